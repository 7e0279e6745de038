"""Checkpoints: pytrees of arrays on disk, written whole or not at all.

`save` and `restore` keep any pytree, a `FitResult` too, in a folder of its own.
`Checkpoints` tells `train` where to keep what it needs to go on after a crash. Arrays
are written by orbax (`pip install "phihat[checkpoint]"`), so several processes write
together. A checkpoint is data: reading one imports nothing and calls nothing that a
file names.

Example:
  >>> import tempfile
  >>> from pathlib import Path
  >>> import phihat
  >>> result = phihat.fit(
  ...     lambda x: x**2, 1.0, phihat.gradient_descent(0.25), num_steps=3
  ... )
  >>> with tempfile.TemporaryDirectory() as folder:
  ...     phihat.checkpoint.save(Path(folder) / "result", result)
  ...     again = phihat.checkpoint.restore(Path(folder) / "result")
  >>> print(again.params, again.history["loss"])
  0.125 [1.     0.25   0.0625]
"""

import dataclasses
import datetime
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from phihat._core import array_files as _array_files
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import folders as _folders
from phihat._core import manifest as _manifest
from phihat._core import serialization as _serialization
from phihat._core import tree as _tree
from phihat._core.types import PyTree

__all__ = ["Checkpoints", "restore", "save"]

_STEP = re.compile(r"\d{12,18}", re.ASCII)


@_calls.public
def save(
    path: str | os.PathLike[str],
    tree: PyTree,
    *,
    overwrite: bool = False,
    notes: dict[str, Any] | None = None,
) -> None:
    """Write a pytree of arrays into a folder: whole, or not at all.

    All is written beside `path` and checked into a list of files, forced to the disk,
    and then renamed: a crash leaves what was there before. Where several processes
    run, all must call it.

    Args:
      path: the folder to make.
      tree: arrays, numbers and typed keys in any pytree, such as a `FitResult` or the
        arrays of an Equinox module.
      overwrite: replace the checkpoint that `path` holds; anything else is refused.
      notes: whatever JSON can write, to be kept beside the arrays.

    Raises:
      FileExistsError: `path` exists, and `overwrite` is False, or `path` holds
        something other than a checkpoint of phihat.
      TypeError: a leaf is not an array.
      ImportError: orbax is not installed.
      OSError: the disk is full, or the folder cannot be written.

    Example:
      >>> import jax.numpy as jnp
      >>> import tempfile
      >>> from pathlib import Path
      >>> from phihat import checkpoint
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checkpoint.save(Path(folder) / "a", {"w": jnp.ones(2)})
      ...     print(checkpoint.restore(Path(folder) / "a"))
      {'w': Array([1., 1.], dtype=float32)}
    """
    path = _folders.as_path("save", "path", path)
    if notes is not None and not isinstance(notes, dict):
        raise TypeError(f"save: `notes` must be a dict, got {_checks.brief(notes)}.")
    check_place(path, overwrite)
    write(path, *prepare(tree, notes or {}))


def prepare(tree: PyTree, notes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what a checkpoint says of itself, and the arrays to write, by name."""
    description, leaves = _serialization.describe(tree)
    kinds, arrays = _array_files.pack(leaves, _tree.leaf_paths(tree))
    about = {
        "format": _manifest.FORMAT,
        "tree": description,
        "leaves": kinds,
        "notes": notes,
    }
    try:
        return json.dumps(about), arrays
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"save: `notes` must be what JSON can write ({error})."
        ) from error


def check_place(path: Path, overwrite: bool) -> None:
    """Refuse to write over what is no checkpoint of ours."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise FileExistsError(
            f"save: {path} exists; choose another path, or pass `overwrite=True`."
        )
    foreign = _manifest.find_foreign(path)
    if foreign:
        raise FileExistsError(
            f"save: {path} {foreign}, and `overwrite` replaces only a checkpoint of "
            "phihat; choose another path, or remove it yourself."
        )


def write(path: Path, text: str, arrays: dict[str, Any]) -> None:
    """Write all beside the path, and put it in place of what was there."""
    is_first = jax.process_index() == 0
    scratch = _folders.beside(path, "writing", _agree_on_token())
    failure = None
    try:
        if is_first:
            path.parent.mkdir(parents=True, exist_ok=True)
            _folders.clean(path.parent, path.name)
            scratch.mkdir()
        if arrays:
            _array_files.write(scratch / _manifest.ARRAYS, arrays)
        if is_first:
            (scratch / _manifest.ABOUT).write_text(text, encoding="utf-8")
            files = {
                file.relative_to(scratch).as_posix(): _folders.checksum(file)
                for file in _folders.files_in(scratch)
            }
            (scratch / _manifest.FILES).write_text(json.dumps(files), encoding="utf-8")
            _folders.force_to_disk(scratch)
            _folders.put_in_place(scratch, path)
    except BaseException as error:
        failure = error
        if is_first:  # a full disk needs the room
            shutil.rmtree(scratch, ignore_errors=True)
    if not _all_succeeded(failure is None) and failure is None:
        raise OSError(f"save: another process could not write {path}.")
    if failure is not None:
        raise failure


@_calls.public
def restore(
    path: str | os.PathLike[str],
    like: PyTree | None = None,
    *,
    classes: Iterable[type] = (),
) -> PyTree:
    """Read what `save` wrote, or the tree that `train` kept.

    Nothing is imported and nothing is called by a name in the file. Dicts, lists,
    tuples and the classes of phihat and optax are rebuilt; for other named tuples and
    dataclasses give `classes`, and for a tree with any other node, such as an Equinox
    module, a tree `like` it.

    Args:
      path: the folder.
      like: a tree of the same structure, whose leaves may be `jax.ShapeDtypeStruct`s
        with a sharding: arrays are read into these shardings, each process its part.
        None brings all to the default device.
      classes: named tuples and dataclasses of yours that the tree may hold.

    Returns:
      The tree, as it was saved; float and int leaves come back as arrays.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it is not a checkpoint of phihat, or a file of it is missing or bad;
        or `like` has another structure, shape or dtype; or a class must be given.
      ImportError: orbax is not installed.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from phihat import checkpoint
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checkpoint.save(Path(folder) / "key", jax.random.key(3))
      ...     key = checkpoint.restore(Path(folder) / "key")
      >>> print(jax.random.key_data(key))
      [0 3]
    """
    path = _folders.as_path("restore", "path", path)
    classes = _serialization.check_classes("restore", classes)
    if not path.is_dir():
        _folders.finish_replacements(path.parent, path.name)
    about = _manifest.read_about(path)
    if like is None:
        return read_tree(path, about, classes=classes)
    differences = compare_leaves(about["leaves"], like)
    if differences:
        raise ValueError(
            f"restore: {path} does not hold a tree like that. {' '.join(differences)}"
        )
    named = dict(zip(_tree.leaf_paths(like), jax.tree.leaves(like), strict=True))
    leaves = dict(zip(_paths(about), _read_leaves(path, about, named), strict=True))
    return jax.tree.unflatten(
        jax.tree.structure(like), [leaves[name] for name in named]
    )


def read_tree(
    path: Path,
    about: dict[str, Any],
    like: dict[str, Any] | None = None,
    *,
    classes: Iterable[type] = (),
) -> PyTree:
    """Return the tree of a checkpoint; leaves named in `like` take its shardings."""
    leaves = _read_leaves(path, about, like or {})
    try:
        return _serialization.rebuild(about["tree"], leaves, classes)
    except ValueError as error:
        raise ValueError(f"restore: {path} cannot be rebuilt: {error}.") from error


def _paths(about: dict[str, Any]) -> list[str]:
    return [kind["path"] for kind in about["leaves"]]


def _read_leaves(path: Path, about: dict[str, Any], like: dict[str, Any]) -> list[Any]:
    shardings = {
        str(number): _wanted_sharding(kind, like.get(kind["path"]))
        for number, kind in enumerate(about["leaves"])
        if 0 not in kind["shape"]
    }
    try:
        arrays = {}
        if shardings:
            arrays = _array_files.read_arrays(path / _manifest.ARRAYS, shardings)
        return [
            _array_files.unpack(kind, arrays.get(str(number)))
            for number, kind in enumerate(about["leaves"])
        ]
    except ImportError:
        raise
    except Exception as error:  # whatever a damaged file makes orbax say
        reason = _array_files.brief_reason(error)
        raise _manifest.Damaged(
            f"restore: the arrays of {path} cannot be read ({reason})."
        ) from error


def _wanted_sharding(kind: dict[str, Any], target: Any) -> Any:
    """Return where an array must lie; None lets it be on no device by choice."""
    if kind["host"] or kind["key"]:
        return None
    sharding = getattr(target, "sharding", None)
    if sharding is None or not getattr(target, "committed", True):
        return None
    is_alone = jax.process_count() > 1 and sharding.is_fully_addressable
    return None if is_alone else sharding


@_calls.public
@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Where `train` writes checkpoints, how often, and how many it keeps.

    Args:
      path: a folder for the checkpoints of one fit; made absolute at once.
      every: steps between two, or a `datetime.timedelta`.
      keep: how many of the newest whole ones to keep.
      resume_anyway: parts of the call, by name, that may differ from those of the call
        that wrote the checkpoint: "data", "key", "loss", "optimizer", "projection",
        "sampler", "tolerance", "validation". Such a difference only gives a warning;
        otherwise a difference that would make the result wrong is refused.

    Raises:
      TypeError: `every` is neither a whole number nor a timedelta.
      ValueError: a number is below 1, the path is empty, or a part has no such name.

    Example:
      >>> import tempfile
      >>> import phihat
      >>> def train_on(folder, num_steps):
      ...     return phihat.train(
      ...         lambda x: x**2,
      ...         1.0,
      ...         phihat.gradient_descent(0.25),
      ...         num_steps=num_steps,
      ...         checkpoint=phihat.Checkpoints(folder, every=2),
      ...     )
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     first = train_on(folder, num_steps=3)
      ...     longer = train_on(folder, num_steps=5)
      >>> print(longer.history["loss"])
      [1.         0.25       0.0625     0.015625   0.00390625]
    """

    path: str | os.PathLike[str]
    every: int | datetime.timedelta = datetime.timedelta(minutes=10)
    keep: int = 3
    resume_anyway: str | Iterable[str] = ()

    def __post_init__(self) -> None:
        """Check the arguments."""
        path = _folders.as_path("Checkpoints", "path", self.path)
        object.__setattr__(self, "path", path)
        _checks.check_count("Checkpoints", "keep", self.keep)
        parts = self.resume_anyway
        parts = (parts,) if isinstance(parts, str) else tuple(parts)
        for part in parts:
            _checks.check_choice("Checkpoints", "resume_anyway", part, RESUMABLE)
        object.__setattr__(self, "resume_anyway", parts)
        if isinstance(self.every, datetime.timedelta):
            if self.every <= datetime.timedelta(0):
                raise ValueError(
                    f"Checkpoints: `every` must be > 0 seconds, got {self.every}."
                )
        elif isinstance(self.every, (float, str)):
            time = (
                f"seconds={self.every}"
                if isinstance(self.every, float)
                else "minutes=5"
            )
            raise TypeError(
                "Checkpoints: `every` must be a whole number of steps or a "
                f"`datetime.timedelta`, got {self.every!r}; for a time, "
                f"`datetime.timedelta({time})`."
            )
        else:
            _checks.check_count("Checkpoints", "every", self.every)

    def steps(self) -> list[int]:
        """Return the steps of which there are checkpoints, oldest first."""
        folder = Path(self.path)
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if is_step(name))

    def folder(self, step: int) -> Path:
        """Return where the checkpoint of a step is kept."""
        return Path(self.path) / f"{step:012d}"


RESUMABLE = (
    "data",
    "key",
    "loss",
    "optimizer",
    "projection",
    "sampler",
    "tolerance",
    "validation",
)
"""Parts of a call that may differ from those of a checkpoint, if asked for."""


def is_step(name: str) -> bool:
    """Tell whether a folder of this name is the checkpoint of a step."""
    return _STEP.fullmatch(name) is not None and f"{int(name):012d}" == name


# -------------------------------------------------------------------- private helpers


def compare_leaves(kinds: list[dict[str, Any]], like: PyTree) -> list[str]:
    """Return a sentence on every leaf that differs from what was saved."""
    saved = {kind["path"]: kind for kind in kinds}
    paths, leaves = _tree.leaf_paths(like), jax.tree.leaves(like)
    wanted = dict(zip(paths, leaves, strict=True))
    differences = [
        f"It has no leaf {name or 'at the root'}."
        for name in paths
        if name not in saved
    ]
    differences += [
        f"It has a leaf {name} more." for name in saved if name not in wanted
    ]
    for name in paths:
        if name not in saved or saved[name]["key"]:
            continue
        kind, leaf = saved[name], wanted[name]
        leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        shape, dtype = list(leaf.shape), str(leaf.dtype)
        if (kind["shape"], kind["dtype"]) != (shape, dtype):
            differences.append(
                f"{name or 'The only leaf'} was {kind['dtype']}{kind['shape']} and is "
                f"{dtype}{shape}."
            )
    return differences


# ---------------------------------------------------------------- several processes


def _agree_on_token() -> str:
    """Return what tells this writing from any other, the same in all processes."""
    if jax.process_count() == 1:
        return _folders.new_token()
    from jax.experimental import multihost_utils

    drawn = np.int32(secrets.randbits(31))
    return _folders.new_token(int(multihost_utils.broadcast_one_to_all(drawn)))


def _all_succeeded(mine: bool) -> bool:
    """Wait for all processes; tell whether each of them succeeded."""
    if jax.process_count() == 1:
        return mine
    from jax.experimental import multihost_utils

    told = multihost_utils.process_allgather(np.asarray([mine]))
    return bool(np.asarray(told).all())

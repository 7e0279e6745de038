"""Checkpoints: pytrees of arrays on disk, written whole or not at all.

`save` and `restore` keep any pytree, a `FitResult` too, in a folder of its own.
`Checkpoints` tells `train` where to keep what it needs to go on after a crash. Arrays
are written by orbax (`pip install "phihat[checkpoint]"`), so several processes write
together.

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

import contextlib
import dataclasses
import datetime
import json
import os
import re
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from phihat._core import checks as _checks
from phihat._core import serialization as _skeleton
from phihat._core import tree as _tree

__all__ = ["Checkpoints", "restore", "save"]

_FORMAT = "phihat checkpoint 1"
_LEAVES = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)
_LEFTOVER = re.compile(r"\.\d{12}\.(writing|old)")
_ABOUT, _FILES, _ARRAYS = "about.json", "files.json", "arrays"


class Damaged(ValueError):
    """A folder holds no checkpoint, or not all of one."""


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
      tree: arrays, numbers and typed keys in dicts, lists, tuples, named tuples and
        registered dataclasses, such as a `FitResult`.
      overwrite: replace what `path` holds.
      notes: whatever JSON can write, to be kept beside the arrays.

    Raises:
      FileExistsError: `path` exists, and `overwrite` is False.
      TypeError: a leaf is no array, or a node is of a class that no file can describe.
      ImportError: orbax is not installed.
      OSError: the disk is full, or the folder cannot be written.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from phihat import checkpoint
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checkpoint.save(Path(folder) / "a", {"w": jnp.ones(2)})
      ...     print(checkpoint.restore(Path(folder) / "a"))
      {'w': Array([1., 1.], dtype=float32)}
    """
    path = Path(os.path.abspath(path))
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"save: {path} exists; choose another path, or pass `overwrite=True`."
        )
    description, leaves = _skeleton.describe(tree)
    kinds, arrays = _pack(leaves, _tree.leaf_paths(tree))
    about = {
        "format": _FORMAT,
        "tree": description,
        "leaves": kinds,
        "notes": notes or {},
    }
    text = json.dumps(about)
    temporary = path.with_name(f".{path.name}.writing")
    is_first = jax.process_index() == 0
    if is_first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    failure = None
    try:
        if arrays:
            _write_arrays(temporary / _ARRAYS, arrays)
        if is_first:
            (temporary / _ABOUT).write_text(text, encoding="utf-8")
            files = {name: _fingerprint(temporary / name) for name in _files(temporary)}
            (temporary / _FILES).write_text(json.dumps(files), encoding="utf-8")
            _force_to_disk(temporary)
            _replace(temporary, path)
    except BaseException as error:
        failure = error
        if is_first:  # a full disk needs the room
            shutil.rmtree(temporary, ignore_errors=True)
    if not _all_succeeded(failure is None) and failure is None:
        raise OSError(f"save: another process could not write {path}.")
    if failure is not None:
        raise failure


def restore(path: str | os.PathLike[str], like: PyTree | None = None) -> PyTree:
    """Read what `save` wrote, or the tree that `train` kept.

    Args:
      path: the folder.
      like: a tree of the same structure, whose leaves may be `jax.ShapeDtypeStruct`s
        with a sharding: arrays are read into these shardings, each process its part.
        None brings all to the default device.

    Returns:
      The tree, as it was saved; float and int leaves come back as arrays.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it is no checkpoint of phihat, or a file in it is missing or damaged;
        or `like` has another structure, shape or dtype.
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
    path = Path(os.path.abspath(path))
    about = read_about(path)
    if like is None:
        return read_tree(path, about)
    differences = compare_leaves(about["leaves"], like)
    if differences:
        raise ValueError(
            f"restore: {path} does not hold a tree like that. {' '.join(differences)}"
        )
    named = dict(zip(_tree.leaf_paths(like), jax.tree.leaves(like), strict=True))
    leaves = _read_leaves(path, about, named)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def read_tree(
    path: Path, about: dict[str, Any], like: dict[str, Any] | None = None
) -> PyTree:
    """Return the tree of a checkpoint; leaves named in `like` take its shardings."""
    leaves = _read_leaves(path, about, like or {})
    return _skeleton.rebuild(about["tree"], leaves)


def _read_leaves(path: Path, about: dict[str, Any], like: dict[str, Any]) -> list[Any]:
    shardings = {
        str(number): _wanted_sharding(kind, like.get(kind["path"]))
        for number, kind in enumerate(about["leaves"])
        if 0 not in kind["shape"]
    }
    arrays = _read_arrays(path, shardings) if shardings else {}
    return [
        _unpack(kind, arrays.get(str(number)))
        for number, kind in enumerate(about["leaves"])
    ]


def _wanted_sharding(kind: dict[str, Any], target: Any) -> Any:
    """Return where an array must lie; None lets it be on no device by choice."""
    if kind["host"] or kind["key"]:
        return None
    sharding = getattr(target, "sharding", None)
    if sharding is None or not getattr(target, "committed", True):
        return None
    is_alone = jax.process_count() > 1 and sharding.is_fully_addressable
    return None if is_alone else sharding


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Where, how often and how many: the `checkpoint=` of `train`.

    Args:
      path: a folder for the checkpoints of one fit.
      every: steps between two, or a `datetime.timedelta`.
      keep: how many of the newest to keep.

    Raises:
      TypeError: `every` is neither a whole number nor a timedelta.
      ValueError: a number is below 1.

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

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not isinstance(self.path, (str, os.PathLike)):
            raise TypeError(
                f"Checkpoints: `path` must be a folder's path, got "
                f"{_checks.brief(self.path)}."
            )
        _checks.check_count("Checkpoints", "keep", self.keep)
        if isinstance(self.every, datetime.timedelta):
            if self.every <= datetime.timedelta(0):
                raise ValueError(
                    f"Checkpoints: `every` must be > 0 seconds, got {self.every}."
                )
        elif isinstance(self.every, float):
            raise TypeError(
                "Checkpoints: `every` must be a whole number of steps or a "
                f"`datetime.timedelta`, got {self.every}; for seconds, "
                f"`datetime.timedelta(seconds={self.every})`."
            )
        else:
            _checks.check_count("Checkpoints", "every", self.every)

    def steps(self) -> list[int]:
        """Return the steps of which there are checkpoints, oldest first."""
        folder = Path(self.path)
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if _is_step(name))

    def folder(self, step: int) -> Path:
        """Return where the checkpoint of a step is kept."""
        return Path(os.path.abspath(self.path)) / f"{step:012d}"

    def prepare(self) -> None:
        """Make the folder, and see that it can be written."""
        folder = Path(os.path.abspath(self.path))
        probe = folder / ".writable"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
            for entry in folder.iterdir():  # what a crash left half written
                if _LEFTOVER.fullmatch(entry.name):
                    shutil.rmtree(entry, ignore_errors=True)
        except OSError as error:
            raise type(error)(
                f"train: the folder {folder} for checkpoints cannot be written "
                f"({error.strerror}); choose another."
            ) from error

    def newest(self) -> int | None:
        """Return the step of the newest complete checkpoint, or None.

        What is damaged or foreign is named in a warning, left as it is, and passed
        over.
        """
        folder = Path(self.path)
        if folder.is_dir():
            for entry in sorted(folder.iterdir()):
                if not (_is_step(entry.name) or entry.name.startswith(".")):
                    _warn(f"{entry} is no checkpoint of phihat; it is passed over.")
        for step in reversed(self.steps()):
            try:
                read_about(self.folder(step))
            except (Damaged, FileNotFoundError) as error:
                _warn(f"{error} It is passed over.")
            else:
                return step
        return None

    def write(self, step: int, tree: PyTree, notes: dict[str, Any]) -> Path:
        """Write a checkpoint, and remove those that are older than the ones to keep."""
        path = self.folder(step)
        if path.exists() and not is_ours(path) and jax.process_index() == 0:
            path.rename(path.with_name(f"{path.name}.set-aside"))
        save(path, tree, overwrite=True, notes=notes)
        if jax.process_index() == 0:
            for old in self.steps()[: -self.keep]:
                if is_ours(self.folder(old)):
                    shutil.rmtree(self.folder(old), ignore_errors=True)
        return path


def read_about(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself, once all its files are found whole."""
    if not path.is_dir():
        raise FileNotFoundError(f"restore: there is no checkpoint at {path}.")
    try:
        files = json.loads((path / _FILES).read_text(encoding="utf-8"))
        about = json.loads((path / _ABOUT).read_text(encoding="utf-8"))
        if about["format"] != _FORMAT:
            raise Damaged(
                f"restore: {path} has the format {about['format']!r}, this version "
                f"reads {_FORMAT!r}."
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(
            f"restore: {path} is no complete checkpoint of phihat ({error})."
        ) from error
    for name, wanted in files.items():
        file = path / name
        if not file.is_file():
            raise Damaged(f"restore: {path} lacks its file {name}.")
        if _fingerprint(file) != wanted:
            raise Damaged(
                f"restore: in {path} the file {name} is damaged: it has "
                f"{file.stat().st_size} bytes, {wanted[0]} were written, or other ones."
            )
    return about


def is_ours(path: Path) -> bool:
    """Tell whether a folder was made by `save`."""
    return (path / _ABOUT).is_file() and (path / _FILES).is_file()


# -------------------------------------------------------------------- private helpers


def _is_step(name: str) -> bool:
    return name.isdigit()


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def _orbax() -> Any:
    try:
        import orbax.checkpoint as orbax
    except ImportError as error:
        raise ImportError(
            "Checkpoints need orbax: `pip install 'phihat[checkpoint]'`."
        ) from error
    return orbax


@contextlib.contextmanager
def _quiet_peers() -> Any:
    """Silence what orbax says about files that a checkpoint of ours never has."""
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    orbax = _orbax()
    with _quiet_peers():
        writer = orbax.Checkpointer(orbax.PyTreeCheckpointHandler())
        writer.save(path, args=orbax.args.PyTreeSave(arrays))
        writer.close()


def _read_arrays(path: Path, shardings: dict[str, Any]) -> dict[str, Any]:
    """Read arrays by name, into a sharding or, where that is None, to the host."""
    orbax = _orbax()
    wanted = {
        name: orbax.RestoreArgs(restore_type=np.ndarray)
        if sharding is None
        else orbax.ArrayRestoreArgs(sharding=sharding)
        for name, sharding in shardings.items()
    }
    try:
        with _quiet_peers():
            reader = orbax.Checkpointer(orbax.PyTreeCheckpointHandler())
            return reader.restore(
                path / _ARRAYS, args=orbax.args.PyTreeRestore(restore_args=wanted)
            )
    except Exception as error:
        raise Damaged(
            f"restore: the arrays of {path} cannot be read ({error})."
        ) from error


def _pack(
    leaves: list[Any], paths: list[str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a description of every leaf, and the arrays that orbax can write."""
    kinds, arrays = [], {}
    for number, (leaf, path) in enumerate(zip(leaves, paths, strict=True)):
        if not isinstance(leaf, _LEAVES):
            raise TypeError(
                f"save: the leaf at {path or 'the root'} must be an array or a number, "
                f"got {_checks.brief(leaf)}."
            )
        key, is_host = None, not isinstance(leaf, jax.Array)
        array: Any = np.asarray(leaf) if is_host else leaf
        if _tree.is_key(array):
            key, array = str(jax.random.key_impl(array)), jax.random.key_data(array)
        if not is_host and jax.process_count() > 1 and array.is_fully_addressable:
            array = np.asarray(array)  # each process has it; the first writes it
        kinds.append(
            {
                "path": path,
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "key": key,
                "host": is_host,
            }
        )
        if array.size:
            arrays[str(number)] = array
    return kinds, arrays


def _unpack(kind: dict[str, Any], array: Any) -> Any:
    if array is None:
        array = np.zeros(kind["shape"], jnp.dtype(kind["dtype"]))
    if not kind["host"]:
        array = jnp.asarray(array)
    return jax.random.wrap_key_data(array, impl=kind["key"]) if kind["key"] else array


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
        shape, dtype = list(jnp.shape(leaf)), str(jnp.result_type(leaf))
        if (kind["shape"], kind["dtype"]) != (shape, dtype):
            differences.append(
                f"{name or 'The only leaf'} was {kind['dtype']}{kind['shape']} and is "
                f"{dtype}{shape}."
            )
    return differences


def _files(folder: Path) -> list[str]:
    return sorted(
        str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()
    )


def _fingerprint(file: Path) -> list[int]:
    """Return the size of a file and a checksum of its bytes."""
    size, checksum = 0, 0
    with file.open("rb") as stream:
        while part := stream.read(2**22):
            size += len(part)
            checksum = zlib.crc32(part, checksum)
    return [size, checksum]


def _force_to_disk(folder: Path) -> None:
    for entry in [*folder.rglob("*"), folder]:
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(temporary: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    temporary.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    shutil.rmtree(old, ignore_errors=True)


def _all_succeeded(mine: bool) -> bool:
    """Wait for all processes; tell whether each of them succeeded."""
    if jax.process_count() == 1:
        return mine
    from jax.experimental import multihost_utils

    told = multihost_utils.process_allgather(np.asarray([mine]))
    return bool(np.asarray(told).all())

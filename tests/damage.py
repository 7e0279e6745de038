# ruff: noqa: T201 - prints its table
"""Damage each file of a checkpoint in every way, and look at what is made of it.

`restore` must refuse the checkpoint by a sentence. `train` must pass over it by a
warning, go on from the one before to the numbers of a quiet fit, and change no file,
not even a damaged one or one that a link leads to.

Usage: python -m tests.damage
"""

import collections
import contextlib
import errno
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np

import phihat
from phihat import Checkpoints, checkpoint

NUM_STEPS = 45


def bowl(p: Any) -> Any:
    return jnp.sum((p - 1.0) ** 2)


def train(folder: Path, num_steps: int, **settings: Any) -> Any:
    return phihat.train(
        bowl, jnp.zeros(3), phihat.adam(0.01), num_steps=num_steps, **settings
    )


def make_run(folder: Path) -> Path:
    """Write the checkpoints of the steps 20, 30 and 40."""
    train(folder, 40, checkpoint=Checkpoints(folder, every=10, keep=3))
    return folder


# ----------------------------------------------------------------------- the damage


def rewrite(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        file.write_bytes(change(file.read_bytes()))

    return spoil


def flip(place: float) -> Callable[[Path], None]:
    def change(whole: bytes) -> bytes:
        changed = bytearray(whole)
        changed[int(place * (len(whole) - 1))] ^= 1
        return bytes(changed)

    return rewrite(change)


def exchange(one: Path, other: Path) -> None:
    mine, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(mine)


def folder_of(file: Path) -> Path:
    """Return the checkpoint in which a file is."""
    return next(path for path in file.parents if checkpoint_of(path))


def checkpoint_of(path: Path) -> bool:
    return len(path.name) == 12 and path.name.isdigit()


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def swap_with_another(file: Path) -> None:
    """Exchange a file with that of the checkpoint before, which spoils both."""
    folder = folder_of(file)
    other = folder.with_name(f"{int(folder.name) - 10:012d}")
    exchange(file, files_of(other)[files_of(folder).index(file)])


def swap_with_a_neighbour(file: Path) -> None:
    files = files_of(folder_of(file))
    exchange(file, files[files.index(file) - 1])


def put_folder(path: Path) -> None:
    remove(path)
    path.mkdir()


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def put_link(path: Path) -> None:
    """Let a link lead to what was there, outside of the run."""
    outside = folder_of(path / "x").parent.with_name("outside")
    path.rename(outside)
    path.symlink_to(outside)


def put_circle(path: Path) -> None:
    remove(path)
    path.symlink_to(path)


def put_pipe(path: Path) -> None:
    remove(path)
    os.mkfifo(path)


@contextlib.contextmanager
def failing(path: Path, number: int) -> Iterator[None]:
    """Let reading fail as a disk or its owner makes it fail."""
    whole = Path.open

    def fail(self: Path, *arguments: Any, **options: Any) -> Any:
        if path == self or path in self.parents:
            raise OSError(number, os.strerror(number), str(self))
        return whole(self, *arguments, **options)

    with mock.patch.object(Path, "open", fail):
        yield


FILE_KINDS: dict[str, Callable[[Path], Any]] = {
    "truncated to nothing": rewrite(lambda whole: b""),
    "truncated to half": rewrite(lambda whole: whole[: len(whole) // 2]),
    "truncated by a byte": rewrite(lambda whole: whole[:-1]),
    "a byte more": rewrite(lambda whole: whole + b"\0"),
    "its first bit flipped": flip(0.0),
    "a bit in its midst flipped": flip(0.5),
    "its last bit flipped": flip(1.0),
    "zeros of its length": rewrite(lambda whole: bytes(len(whole))),
    "deep brackets": rewrite(lambda whole: b"[" * 200_000),
    "swapped with another checkpoint's": swap_with_another,
    "swapped with its neighbour": swap_with_a_neighbour,
}
"""What is done to a file alone."""

PATH_KINDS: dict[str, Callable[[Path], Any]] = {
    "deleted": remove,
    "a folder": put_folder,
    "a link": put_link,
    "a link to itself": put_circle,
    "a pipe": put_pipe,
    "unreadable": lambda path: failing(path, errno.EACCES),
    "a disk fault": lambda path: failing(path, errno.EIO),
}
"""What is done to a file or a folder."""

KINDS = FILE_KINDS | PATH_KINDS

GOES_BACK = {"swapped with another checkpoint's": 20}
"""The step that is gone on from, where it is not 30."""


# ----------------------------------------------------------------------- the verdict


def snapshot(root: Path) -> dict[str, Any]:
    """Return what lies in a folder; no link is followed."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        what: Any = stat.S_IFMT(mode)
        if stat.S_ISREG(mode):
            with open(path, "rb") as stream:  # not by `Path`, which may fail
                what = stream.read()
        elif stat.S_ISLNK(mode):
            what = os.readlink(path)
        found[str(path)] = what
    return found


def judge(root: Path, path: Path, kind: str) -> str:
    """Damage a path in the checkpoint of step 40 of `root/run`; say what is wrong."""
    run = root / "run"
    newest = run / f"{40:012d}"
    before = snapshot(root)
    with KINDS[kind](path) or contextlib.nullcontext():
        spoilt = snapshot(root)
        if spoilt == before and kind not in ("unreadable", "a disk fault"):
            return "alike"
        is_there = newest.is_dir()
        try:
            checkpoint.restore(newest)
            if newest.is_symlink():  # whoever names a link means what it leads to
                return ""
            return "restored as if it were whole"
        except (ValueError, OSError) as error:
            text = str(error)
            if not text.startswith("restore: ") or "\n" in text:
                return f"refused by {text!r}"
        except Exception as error:
            return f"refused by a raw {type(error).__name__}: {error}"
        steps: list[int] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = train(
                run,
                NUM_STEPS,
                callbacks=[lambda state, rows: steps.append(int(rows["step"][0]))],
                checkpoint=Checkpoints(run, every=100, keep=9),
            )
        told = [str(warning.message) for warning in caught]
        after = snapshot(root)
    if is_there and not any(newest.name in t and "passed over" in t for t in told):
        return f"warned by {told}"
    if steps[0] != GOES_BACK.get(kind, 30):
        return f"gone on from step {steps[0]}"
    quiet = whole()
    for name in ("params", "history"):
        mine, theirs = vars(result)[name], vars(quiet)[name]
        mine, theirs = (x["loss"] if name == "history" else x for x in (mine, theirs))
        if np.asarray(mine).tobytes() != np.asarray(theirs).tobytes():
            return f"ended with other {name}"
    added = str(run / f"{NUM_STEPS:012d}")
    kept = {name: what for name, what in after.items() if not name.startswith(added)}
    return "" if kept == spoilt else "other files were changed"


def whole() -> Any:
    return phihat.fit(bowl, jnp.zeros(3), phihat.adam(0.01), num_steps=NUM_STEPS)


def places(run: Path) -> list[str]:
    """Return what may be damaged in the checkpoint of step 40: each file and folder."""
    newest = run / f"{40:012d}"
    return [str(path.relative_to(run)) for path in [newest, *sorted(newest.rglob("*"))]]


def judge_copy(made: Path, place: str, kind: str) -> str | None:
    """Judge one kind of damage in a copy of a run; None where it does not apply."""
    with tempfile.TemporaryDirectory() as root:
        run = Path(shutil.copytree(made, Path(root) / "run"))
        if kind in FILE_KINDS and not (run / place).is_file():
            return None
        if (
            kind == "a folder"
            and (run / place).is_dir()
            and not (any((run / place).iterdir()))
        ):
            return None
        return judge(Path(root), run / place, kind)


def main() -> None:
    counts: collections.Counter[str] = collections.Counter()
    alike: collections.Counter[str] = collections.Counter()
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        made = make_run(Path(folder) / "run")
        for kind in KINDS:
            for place in places(made):
                verdict = judge_copy(made, place, kind)
                if verdict == "alike":
                    alike[kind] += 1
                elif verdict is not None:
                    counts[kind] += 1
                    if verdict:
                        faults.append(f"{place}, {kind}: {verdict}")
    for kind in KINDS:
        same = f" ({alike[kind]} more were alike before and after)"
        print(f"{counts[kind]:4}  {kind}{same if alike[kind] else ''}")
    print(
        f"{sum(counts.values())} damages of {len(KINDS)} kinds: {len(faults)} were not "
        "refused by a sentence, passed over and left alone."
    )
    print("\n".join(faults))


if __name__ == "__main__":
    main()

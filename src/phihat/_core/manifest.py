"""The files of a checkpoint: which there are, whether they are whole, what they say.

A checkpoint is a folder with `about.json` (the format, the structure, the leaves,
notes), a folder `arrays`, and `files.json`, which lists the others with their sizes and
checksums. No link is followed, no pipe is waited for, and no name leads outside.
"""

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from phihat._core import array_files as _array_files
from phihat._core import checks as _checks
from phihat._core import folders as _folders

__all__ = [
    "ABOUT",
    "ARRAYS",
    "FILES",
    "FORMAT",
    "Damaged",
    "find_foreign",
    "read_about",
]

FORMAT = "phihat checkpoint 1"
ABOUT, FILES, ARRAYS = "about.json", "files.json", "arrays"


class Damaged(ValueError):
    """A folder holds no checkpoint, or not all of one."""


def read_about(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself, once all its files are found whole."""
    if not path.is_dir():
        raise FileNotFoundError(f"restore: there is no checkpoint at {path}.")
    try:
        files = _read_list_of_files(path)
        _check_files(path, files)
        about = json.loads(_folders.read_file(path / ABOUT))
        if not isinstance(about, dict) or "format" not in about:
            raise ValueError(f"{ABOUT} names no format")
        if about["format"] != FORMAT:
            raise ValueError(
                f"it has the format {_checks.brief(about['format'])}, and this version "
                f"reads {FORMAT!r}"
            )
        if not isinstance(about.get("notes"), dict) or "tree" not in about:
            raise ValueError(f"{ABOUT} lacks its notes or its tree")
        _array_files.check_kinds(about.get("leaves"))
    except FileNotFoundError as error:
        raise Damaged(
            f"restore: {path} is not a complete checkpoint of phihat: it lacks "
            f"{Path(str(error.filename)).name}."
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        name = f" {Path(str(error.filename)).name}" if error.filename else ""
        raise Damaged(
            f"restore: {path} cannot be read whole:{name} {reason}."
        ) from error
    except (ValueError, RecursionError) as error:
        said = str(error).split("\n")[0]
        raise Damaged(
            f"restore: {path} is not a complete checkpoint of phihat: {said}."
        ) from error
    return about


def _read_list_of_files(path: Path) -> dict[str, list[int]]:
    files = json.loads(_folders.read_file(path / FILES))
    if not isinstance(files, dict) or ABOUT not in files:
        raise ValueError(f"{FILES} is no list of its files")
    for name, wanted in files.items():
        parts = PurePosixPath(name).parts
        is_inside = name in (ABOUT,) or (
            parts[:1] == (ARRAYS,) and len(parts) > 1 and ".." not in parts
        )
        is_pair = (
            isinstance(wanted, list)
            and len(wanted) == 2
            and all(type(number) is int for number in wanted)
        )
        if not is_inside or "\0" in name or not is_pair:
            raise ValueError(
                f"{FILES} lists {_checks.brief(name)}, which is not a file"
            )
    return files


def _check_files(path: Path, files: dict[str, list[int]]) -> None:
    """Compare the files with their list: no one missing, changed, or more."""
    arrays = path / ARRAYS
    found = {ABOUT}
    if os.path.lexists(arrays):
        if arrays.is_symlink() or not arrays.is_dir():
            raise ValueError(f"{ARRAYS} is not a folder but a file or a link")
        inside = _folders.files_in(arrays)
        found |= {file.relative_to(path).as_posix() for file in inside}
    for name, wanted in files.items():
        if name not in found or not (path / name).is_file():
            raise ValueError(f"it lacks its file {name}")
        if (path / name).is_symlink():
            raise ValueError(f"{name} is a link")
        measured = _folders.checksum(path / name)
        if measured != wanted:
            raise ValueError(
                f"the file {name} is damaged: it has {measured[0]} bytes, {wanted[0]} "
                "were written, or other ones"
            )
    more = sorted(found - set(files))
    if more:
        raise ValueError(f"{more[0]} was not written with it")


def find_foreign(path: Path) -> str:
    """Say what makes a folder something other than a checkpoint of ours, or "".

    An empty folder is no one's; a damaged checkpoint is still ours.
    """
    if path.is_symlink():
        return "is a link"
    if not path.is_dir():
        return "is a file"
    names = {entry.name for entry in path.iterdir()}
    foreign = sorted(names - {ABOUT, FILES, ARRAYS})
    if foreign:
        return f"holds {foreign[0]!r}"
    if not names:
        return ""
    try:
        is_told = FORMAT.encode() in _folders.read_file(path / ABOUT)[:4096]
    except (OSError, ValueError):
        is_told = False
    return (
        "" if is_told or (path / FILES).is_file() else "is not a checkpoint of phihat"
    )

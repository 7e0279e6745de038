"""What a long fit keeps on disk, and how it goes on from there."""

import contextlib
import datetime
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from phihat import checkpoint
from phihat._core import array_files as _array_files
from phihat._core import checks as _checks
from phihat._core import folders as _folders
from phihat._core import manifest as _manifest
from phihat._core import tree as _tree
from phihat._core.serialization import describe
from phihat.checkpoint import Checkpoints
from phihat.results import FitResult
from phihat.training import chunk_programs, fingerprint, multihost
from phihat.training.background import BackgroundWriter, WriteResult, copy_arrays
from phihat.training.chunked_run import ChunkedRun, steps_until
from phihat.training.locking import FolderLock
from phihat.training.logging import Log
from phihat.training.restoring import (
    RESULT_PARTS,
    RestoredRun,
    as_text,
    by_path,
    restore,
)
from phihat.training.validation import Validator

__all__ = ["CheckpointManager"]


class CheckpointManager:
    """Writes the checkpoints of a run, and reads them.

    Attributes:
      log: told of every checkpoint.
      saved_step: of the last checkpoint written or read, or None.
    """

    def __init__(self, checkpoints: Checkpoints, configuration: dict[str, Any]) -> None:
        """Start the clock."""
        self.checkpoints = checkpoints
        self.configuration = configuration
        self.log: Log | None = None
        self.saved_step: int | None = None
        self._saved_at = time.monotonic()
        self._told_reason = ""
        self._lock: FolderLock | None = None
        self._is_whole: dict[int, bool] = {}
        self._writer = BackgroundWriter()

    @property
    def _root(self) -> Path:
        return Path(self.checkpoints.path)

    # ------------------------------------------------------------------ the folder

    def open(self) -> None:
        """Make the folder, claim it for this fit, and clean what crashes left."""
        _array_files.check_installed()
        multihost.from_first("train", f"use {self._root}", self._open)

    def _open(self) -> int:
        root = self._root
        try:
            root.mkdir(parents=True, exist_ok=True)
            probe = root / f".{_folders.new_token()}.probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise type(error)(
                f"train: the folder {root} for checkpoints cannot be written "
                f"({error.strerror}); choose another."
            ) from error
        lock = FolderLock(root)
        is_locked = lock.acquire("train")
        self._lock = lock
        _folders.finish_replacements(root)
        _folders.clean(root, is_locked=is_locked)
        return 1

    def close(self) -> None:
        """Give the folder back, once nothing is written to it."""
        self.settle()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # -------------------------------------------------------------------- when to write

    def steps_until_due(self, done: int) -> int:
        """Return how many steps may be taken before one is due by their number."""
        every = self.checkpoints.every
        if isinstance(every, datetime.timedelta):
            return 2**30
        return steps_until(done, every)

    @property
    def counts_steps(self) -> bool:
        """Whether checkpoints are due by the number of steps, and not by the clock."""
        return not isinstance(self.checkpoints.every, datetime.timedelta)

    def is_due(self, done: int) -> bool:
        """Tell whether a checkpoint is due after so many steps."""
        every = self.checkpoints.every
        if isinstance(every, datetime.timedelta):
            return time.monotonic() - self._saved_at >= every.total_seconds()
        return done > 0 and done % every == 0

    # -------------------------------------------------------------------------- writing

    def save(
        self,
        run: ChunkedRun,
        validator: Validator | None,
        result: FitResult | None,
        *,
        waits: bool = True,
    ) -> None:
        """Write a checkpoint; where that fails, say so and keep the one before.

        Args:
          run: where it stands.
          validator: what it has found.
          result: of a fit that has ended, else None.
          waits: until it is written; else it is written beside the steps that follow,
            from a copy, if there is memory for one.
        """
        self.settle()
        self._saved_at = time.monotonic()
        step = run.step
        try:
            text, arrays = checkpoint.prepare(*self._collect(run, validator, result))
            copies = None if waits else _copy(arrays)
            write = functools.partial(self._write, step, text, copies or arrays)
            if copies is not None:
                self._writer.start(step, write)
                return
            written = WriteResult(step, write(), None)
        except Exception as error:  # whatever a disk, or orbax, has to say
            written = WriteResult(step, None, error)
        self._take_note(written)

    def poll(self) -> None:
        """Take note of a checkpoint that has been written beside the steps."""
        self._take_note(self._writer.poll())

    def settle(self) -> None:
        """Wait for the checkpoint that is being written."""
        self._take_note(self._writer.wait())

    def _take_note(self, written: WriteResult | None) -> None:
        if written is None:
            return
        if isinstance(written.error, ImportError):
            raise written.error
        if written.error is not None:
            self._warn_unwritten(written.step, written.error)
            return
        self.saved_step, self._told_reason = written.step, ""
        if self.log is not None:
            self.log.note("checkpoint", at=written.step, path=str(written.path))

    def _collect(
        self, run: ChunkedRun, validator: Validator | None, result: FitResult | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arrays to write, and the notes beside them."""
        rows = run.join_history()
        tree: dict[str, Any] = {
            "state": by_path(run.carry.state),
            "recorders": by_path(run.carry.recorder_states),
            "sound_params": by_path(run.carry.last_finite_params),
            "history": {name: by_path(rows[name]) for name in rows},
        }
        notes = {
            "configuration": self.configuration,
            "status": int(run.status),
            "start_step": run.start_step,
            "num_rows": run.num_rows,
            "place": as_text(run.place),
            "rows": {name: describe(rows[name])[0] for name in rows},
            "row_paths": {name: _tree.leaf_paths(rows[name]) for name in rows},
        }
        if run.new_numbers is not None:
            tree["numbers"] = run.new_numbers
        if validator is not None and validator.steps:
            notes["validation"] = validator.as_notes()
            best_params, best_model_state = validator.best_point
            if best_params is not None:
                tree["best_params"] = by_path(best_params)
            if best_model_state is not None:
                tree["best_model_state"] = by_path(best_model_state)
        if result is not None:
            found = vars(result)
            parts = {name: found[name] for name in RESULT_PARTS}
            tree["result"] = parts | {"params": by_path(found["params"])}
            notes["data_paths"] = list(result.data_paths)
            notes["ended_by"] = run.ended_by
            notes["loss_of"] = result.loss_of
        return tree, notes

    def _warn_unwritten(self, step: int, error: Exception) -> None:
        """Say why there is no checkpoint: once, for all that fail one after another."""
        reason = _array_files.brief_reason(error)
        if reason == self._told_reason:
            return
        self._told_reason = reason
        kept = "none was written before"
        if self.saved_step is not None:
            kept = f"that of step {self.saved_step} is kept"
        _checks.warn(
            f"train: the checkpoint of step {step} could not be written to "
            f"{self._root} ({reason}); {kept}, and the fit continues. Those that fail "
            "after it for the same reason are not mentioned."
        )

    def _write(self, step: int, text: str, arrays: dict[str, Any]) -> Path:
        """Write a checkpoint, and remove those that are older than the ones to keep."""
        path = self.checkpoints.folder(step)
        is_first = jax.process_index() == 0
        if is_first and os.path.lexists(path) and _manifest.find_foreign(path):
            token = _folders.new_token()
            path.rename(path.with_name(f"{path.name}.{token}.set-aside"))
        checkpoint.write(path, text, arrays)
        self._is_whole[step] = True
        if is_first:
            self._prune(step)
        return path

    def _prune(self, written: int) -> None:
        """Remove what is older than the newest whole ones, of which `written` is one.

        What is damaged counts for nothing, and is left for its owner to look at.
        """
        kept = 1
        with contextlib.suppress(OSError):
            for step in reversed(self.checkpoints.steps()):
                folder = self.checkpoints.folder(step)
                if step == written or self._is_whole.get(step) is False:
                    continue
                if _manifest.find_foreign(folder):
                    continue
                if kept < self.checkpoints.keep:
                    kept += self._look_whole(step)
                else:
                    with contextlib.suppress(OSError):
                        _folders.remove(folder)

    def _look_whole(self, step: int) -> bool:
        if step not in self._is_whole:
            try:
                _read_about(self.checkpoints.folder(step))
                self._is_whole[step] = True
            except (ValueError, OSError):
                self._is_whole[step] = False
        return self._is_whole[step]

    def describe_saved(self) -> str:
        """Say what is saved."""
        self.settle()
        if self.saved_step is None:
            return "no checkpoint could be written"
        folder = self.checkpoints.folder(self.saved_step)
        return f"the checkpoint of step {self.saved_step} is in {folder}"

    # -------------------------------------------------------------------------- reading

    def load(
        self,
        carry: chunk_programs.ChunkCarry,
        validator: Validator | None,
        rows_like: Callable[[], dict[str, Any]] | None = None,
    ) -> RestoredRun | None:
        """Return what the newest whole checkpoint holds, or None without one.

        What is damaged, unreadable or foreign is named in a warning, left as it is, and
        passed over.

        Args:
          carry: as the run would begin, for its structure, shapes and shardings.
          validator: is brought to where it was.
          rows_like: makes rows of the history, for the classes in them; None where that
            cannot be before the first batch.
        """
        if jax.process_index() == 0:
            self._warn_of_foreign()
        while True:
            # Process 0 chooses: another may see the folder as it was a second ago.
            step = multihost.from_first("train", "find a checkpoint", self._find) - 1
            if step < 0:
                return None
            folder = self.checkpoints.folder(step)
            try:
                about = _read_about(folder)
                changed = self._check(folder, about, carry)
                restored = restore(folder, about, carry, validator, rows_like)
                if "optimizer" in changed:  # its new numbers are those of the call
                    restored = restored._replace(numbers=None)
            except (_manifest.Damaged, OSError) as error:
                if jax.process_count() > 1:
                    raise
                self._pass_over(step, error)
            else:
                self._is_whole[step] = True
                self.saved_step = step
                return restored

    def _find(self) -> int:
        """Return one more than the step of the newest whole checkpoint, or zero."""
        for step in reversed(self.checkpoints.steps()):
            if self._is_whole.get(step) is False:
                continue
            try:
                _read_about(self.checkpoints.folder(step))
            except (_manifest.Damaged, OSError) as error:
                self._pass_over(step, error)
            else:
                return step + 1
        return 0

    def _pass_over(self, step: int, error: Exception) -> None:
        self._is_whole[step] = False
        _checks.warn(f"{error} It is passed over.")

    def _warn_of_foreign(self) -> None:
        for entry in sorted(self._root.iterdir()):
            if not checkpoint.is_step(entry.name) and not entry.name.startswith("."):
                _checks.warn(
                    f"{entry} is not a checkpoint of phihat and is passed over."
                )

    def _check(
        self, folder: Path, about: dict[str, Any], carry: chunk_programs.ChunkCarry
    ) -> set[str]:
        """Refuse the checkpoint of another fit; name and return what merely changed."""
        before = about["notes"].get("configuration")
        if before is None:
            raise ValueError(
                f"train: {folder} was made by `checkpoint.save` and not by `train`; "
                "choose another folder for the checkpoints."
            )
        allowed = tuple(self.checkpoints.resume_anyway)
        try:
            changes = fingerprint.compare(before, self.configuration, allowed)
        except (AttributeError, TypeError) as error:
            raise _manifest.Damaged(
                f"train: {folder} does not say of what fit it is."
            ) from error
        grave = [change for change in changes if change.is_grave]
        if not grave:
            found = _compare_state(about, carry)
            grave = [fingerprint.Change("params", said, True) for said in found]
        if grave:
            told = " ".join(change.sentence for change in grave)
            raise ValueError(
                f"train: {folder} holds another fit. {told} Choose another folder, or "
                f"make the call that wrote it; nothing was changed.{_cure(grave)}"
            )
        if changes:
            told = " ".join(change.sentence for change in changes)
            _checks.warn(
                f"train: resuming from {folder}, although some settings changed. {told}"
            )
        return {change.part for change in changes}


def _copy(arrays: dict[str, Any]) -> dict[str, Any] | None:
    """Copy what is to be written beside the steps, or return None where it cannot be.

    Several processes write together, each at the same time.
    """
    if jax.process_count() > 1:
        return None
    try:
        return copy_arrays(arrays)
    except Exception:  # no memory: then it is written before the steps go on
        return None


def _cure(grave: list[fingerprint.Change]) -> str:
    """Say how to go on all the same, where that can be."""
    parts = sorted({change.part for change in grave})
    if not set(parts) <= set(checkpoint.RESUMABLE):
        return ""
    named = repr(parts[0]) if len(parts) == 1 else repr(parts)
    return (
        f" If the change is meant, say so: `Checkpoints(..., resume_anyway={named})`."
    )


def _compare_state(
    about: dict[str, Any], carry: chunk_programs.ChunkCarry
) -> list[str]:
    prefix = "['state']"
    kinds = {
        kind["path"].removeprefix(prefix): kind
        for kind in about["leaves"]
        if kind["path"].startswith(prefix)
    }
    return checkpoint.compare_leaves(
        [kind | {"path": path} for path, kind in kinds.items()],
        by_path(carry.state),
    )


def _read_about(folder: Path) -> dict[str, Any]:
    """Return what the checkpoint of a step says of itself, if it is whole."""
    if folder.is_symlink():
        raise _manifest.Damaged(f"{folder} is a link, and no checkpoint.")
    return _manifest.read_about(folder)

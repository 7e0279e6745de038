"""What a long fit keeps on disk, and how it goes on from there.

Example:
  >>> from phihat.training import checkpointing
  >>> checkpointing.by_path({"w": 1.0})
  {"['w']": 1.0}
"""

import datetime
import json
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from phihat import checkpoint
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.serialization import describe, rebuild
from phihat._core.types import Status
from phihat.checkpoint import Checkpoints
from phihat.results import FitResult
from phihat.training import chunks, fingerprint
from phihat.training.driver import Run, steps_until
from phihat.training.logging import Log
from phihat.training.streams import Place

__all__ = ["Held", "Keeper", "Kept", "by_path", "from_path"]


class Held:
    """Held-out data, their losses so far, and the params that did best on them.

    Args:
      data: as the loss takes them.
      every: steps between two looks.
      patience: looks without a better loss after which the fit ends, or None.
    """

    def __init__(self, data: Any, every: int, patience: int | None) -> None:
        """Begin with no look."""
        self.data = data
        self.every = every
        self.patience = patience
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.best_loss = np.inf
        self.best_params: PyTree = None
        self.waited = 0

    def look(self, run: Run) -> None:
        """Measure the loss where the run stands."""
        if self.steps and self.steps[-1] == run.step:
            return
        program = _programs.bind(chunks.evaluate, run.code, run.options)
        loss, params = program(run.carry.state, self.data)
        self.steps.append(run.step)
        self.losses.append(float(loss))
        if self.best_params is None or float(loss) < self.best_loss:
            self.best_loss, self.best_params, self.waited = float(loss), params, 0
        else:
            self.waited += 1

    @property
    def is_over(self) -> bool:
        """Whether patience is at its end."""
        return self.patience is not None and self.waited >= self.patience


class Kept(NamedTuple):
    """A run as a checkpoint holds it; `result` where it had ended."""

    carry: chunks.Carry
    history: dict[str, Any]
    num_rows: int
    start_step: int
    status: Status
    place: Place | None
    result: FitResult | None
    folder: Path


class Keeper:
    """Writes the checkpoints of a run, and reads them.

    Args:
      checkpoints: where, how often, how many.
      configuration: what the fit is made of.

    Attributes:
      log: told of every checkpoint.
    """

    def __init__(self, checkpoints: Checkpoints, configuration: dict[str, Any]) -> None:
        """Start the clock."""
        self.checkpoints = checkpoints
        self.configuration = configuration
        self.log: Log | None = None
        self.saved_step: int | None = None
        self._saved_at = time.monotonic()

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

    def save(self, run: Run, held: Held | None, result: FitResult | None) -> None:
        """Write a checkpoint; where that fails, say so and keep the one before."""
        self._saved_at = time.monotonic()
        rows = run.join_history()
        tree = {
            "state": by_path(run.carry.state),
            "recorders": by_path(run.carry.recorder_states),
            "history": {name: by_path(rows[name]) for name in rows},
        }
        notes = {
            "configuration": self.configuration,
            "status": int(run.status),
            "start_step": run.start_step,
            "num_rows": run.num_rows,
            "place": _as_text(run.place),
        }
        if held is not None and held.steps:
            tree["held"] = by_path(held.best_params)
            notes["held"] = [held.steps, held.losses, held.best_loss, held.waited]
        if result is not None:
            parts = {name: getattr(result, name) for name in _RESULT}
            tree["result"] = parts | {"params": by_path(result.params)}
            notes["data_paths"] = list(result.data_paths)
        try:
            notes["rows"] = {
                name: describe(rows[name])[0] for name in rows if name != "params"
            }
            path = self.checkpoints.write(run.step, tree, notes)
        except ImportError:
            raise
        except Exception as error:  # whatever a disk, or orbax, has to say
            kept = "none was written before"
            if self.saved_step is not None:
                kept = f"that of step {self.saved_step} is kept"
            reason = " ".join(str(error).split())
            warnings.warn(
                f"train: the checkpoint of step {run.step} could not be written to "
                f"{self.checkpoints.path} ({reason}); {kept}, and the fit goes on.",
                stacklevel=2,
            )
            return
        self.saved_step = run.step
        if self.log is not None:
            self.log.note("checkpoint", at=run.step, path=str(path))

    def tell(self) -> str:
        """Say what is saved."""
        if self.saved_step is None:
            return "no checkpoint could be written"
        folder = self.checkpoints.folder(self.saved_step)
        return f"the checkpoint of step {self.saved_step} is in {folder}"

    def load(self, carry: chunks.Carry, held: Held | None) -> Kept | None:
        """Return what the newest complete checkpoint holds, or None without one.

        Args:
          carry: as the run would begin, for its structure, shapes and shardings.
          held: is brought to where it was.

        Raises:
          ValueError: the checkpoint belongs to another fit.
        """
        if jax.process_index() == 0:
            self.checkpoints.prepare()
        step = self.checkpoints.newest()
        if step is None:
            return None
        folder = self.checkpoints.folder(step)
        about = checkpoint.read_about(folder)
        notes = about["notes"]
        self._check(folder, about, carry)
        wanted = {"state": carry.state, "recorders": carry.recorder_states}
        saved = checkpoint.read_tree(
            folder,
            about,
            {
                f"[{part!r}][{path!r}]": leaf
                for part, tree in wanted.items()
                for path, leaf in by_path(tree).items()
            },
        )
        params = carry.state.params
        if held is not None and "held" in notes:
            held.steps, held.losses, held.best_loss, held.waited = notes["held"]
            held.best_params = from_path(params, saved["held"])
        self.saved_step = step
        rows = {
            name: from_path(params, flat)
            if name == "params"
            else rebuild(notes["rows"][name], list(flat.values()))
            for name, flat in saved["history"].items()
        }
        state = from_path(carry.state, saved["state"])
        result = None
        if "result" in saved:
            parts = {name: saved["result"][name] for name in _RESULT}
            result = FitResult(
                params=from_path(params, saved["result"]["params"]),
                history={},
                status=state.status,
                state=state,
                data_paths=tuple(notes["data_paths"]),
                **parts,
            )
        return Kept(
            carry=chunks.Carry(
                state, from_path(carry.recorder_states, saved["recorders"])
            ),
            history=rows,
            num_rows=notes["num_rows"],
            start_step=notes["start_step"],
            status=Status(notes["status"]),
            place=_from_text(notes["place"]),
            result=result,
            folder=folder,
        )

    def _check(self, folder: Path, about: dict[str, Any], carry: chunks.Carry) -> None:
        """Refuse the checkpoint of another fit, and name what merely changed."""
        before = about["notes"].get("configuration")
        if before is None:
            raise ValueError(
                f"train: {folder} was made by `checkpoint.save` and not by `train`; "
                "choose another folder for the checkpoints."
            )
        grave, slight = fingerprint.compare(before, self.configuration)
        if not grave:
            prefix = "['state']"
            kinds = {
                kind["path"].removeprefix(prefix): kind
                for kind in about["leaves"]
                if kind["path"].startswith(prefix)
            }
            grave = checkpoint.compare_leaves(
                [kind | {"path": path} for path, kind in kinds.items()],
                by_path(carry.state),
            )
        if grave:
            raise ValueError(
                f"train: {folder} holds another fit. {' '.join(grave)} Choose another "
                "folder, or make the call that wrote it; nothing was changed."
            )
        if slight:
            warnings.warn(
                f"train: going on from {folder}, although not all is as it was. "
                f"{' '.join(slight)}",
                stacklevel=2,
            )


_RESULT = (
    "grad_norm",
    "loss",
    "nonfinite_data_leaf",
    "nonfinite_leaf",
    "num_steps",
)


def by_path(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a tree by their paths.

    Example:
      >>> by_path((1.0, {"a": 2.0}))
      {'[0]': 1.0, "[1]['a']": 2.0}
    """
    return dict(zip(_tree.leaf_paths(tree), jax.tree.leaves(tree), strict=True))


def from_path(like: PyTree, leaves: dict[str, Any]) -> PyTree:
    """Put leaves that `by_path` named into a tree of the same structure."""
    ordered = [leaves[path] for path in _tree.leaf_paths(like)]
    return jax.tree.unflatten(jax.tree.structure(like), ordered)


def _as_text(place: Place | None) -> Any:
    """Return a stream's place as JSON can hold it."""
    if place is None:
        return None
    told: Any = place.told
    if isinstance(told, bytes):
        told = {"bytes": told.decode("latin-1")}
    else:
        try:
            told = None if told is None else {"json": json.dumps(told)}
        except (TypeError, ValueError):
            told = None  # as if it told nothing
    return [place.passes, place.batches, told]


def _from_text(text: Any) -> Place | None:
    if text is None:
        return None
    passes, batches, told = text
    if told is not None:
        is_bytes = "bytes" in told
        told = told["bytes"].encode("latin-1") if is_bytes else json.loads(told["json"])
    return Place(passes, batches, told)

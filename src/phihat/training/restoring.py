"""A run as a checkpoint holds it, put into the structure of a fresh one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from phihat import checkpoint
from phihat._core import manifest as _manifest
from phihat._core import tree as _tree
from phihat._core.serialization import UnknownClass, rebuild
from phihat._core.types import Status
from phihat.results import FitResult
from phihat.training import chunk_programs
from phihat.training.streams import StreamPosition
from phihat.training.validation import Validator

__all__ = [
    "RESULT_PARTS",
    "RestoredRun",
    "as_text",
    "by_path",
    "check_budget",
    "from_path",
    "is_final",
    "restore",
]


class RestoredRun(NamedTuple):
    """A run as a checkpoint holds it.

    Attributes:
      carry: where it stood.
      history: the rows so far.
      num_rows: how many there are.
      start_step: the absolute step at which it began.
      status: how it ended, or RUNNING.
      place: where its stream stood, or None.
      result: where it had ended, else None.
      numbers: of the optimizer that a callback had put in, by path, else None.
      folder: of the checkpoint.
    """

    carry: chunk_programs.ChunkCarry
    history: dict[str, Any]
    num_rows: int
    start_step: int
    status: Status
    place: StreamPosition | None
    result: FitResult | None
    numbers: dict[str, Any] | None
    folder: Path


def restore(
    folder: Path,
    about: dict[str, Any],
    carry: chunk_programs.ChunkCarry,
    validator: Validator | None,
    rows_like: Callable[[], dict[str, Any]] | None,
) -> RestoredRun:
    """Read a checkpoint into the structure of a fresh run."""
    notes = about["notes"]
    wanted = {
        "state": carry.state,
        "recorders": carry.recorder_states,
        "sound_params": carry.last_finite_params,
    }
    like = {
        f"[{part!r}][{path!r}]": leaf
        for part, tree in wanted.items()
        for path, leaf in by_path(tree).items()
    }
    saved = checkpoint.read_tree(folder, about, like)
    params = carry.state.params
    try:
        rows = _restore_rows(saved["history"], notes, params, rows_like)
        state = from_path(carry.state, saved["state"])
        recorders = from_path(carry.recorder_states, saved["recorders"])
        restored = RestoredRun(
            carry=chunk_programs.ChunkCarry(
                state, recorders, _restore_last_finite(saved, carry, state)
            ),
            history=rows,
            num_rows=int(notes["num_rows"]),
            start_step=int(notes["start_step"]),
            status=Status(notes["status"]),
            place=_from_text(notes["place"]),
            result=_restore_result(saved, notes, state),
            numbers=saved.get("numbers"),
            folder=folder,
        )
        if validator is not None and "validation" in notes:
            point = (
                _restore_like(params, saved.get("best_params")),
                _restore_like(state.model_state, saved.get("best_model_state")),
            )
            validator.restore(notes["validation"], point)
    except UnknownClass as error:
        raise ValueError(
            f"train: the history in {folder} cannot be rebuilt from a stream: {error}; "
            "record dicts, or named tuples of phihat, or choose another folder."
        ) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _manifest.Damaged(
            f"train: {folder} lacks what a fit needs to go on ({error})."
        ) from error
    return restored


def _restore_like(like: PyTree, leaves: dict[str, Any] | None) -> PyTree:
    return None if leaves is None else from_path(like, leaves)


def _restore_last_finite(
    saved: Any, carry: chunk_programs.ChunkCarry, state: Any
) -> PyTree:
    """Return the last params of finite loss; an older checkpoint has only its own."""
    if carry.last_finite_params is None:
        return None
    if "sound_params" in saved:
        return from_path(carry.last_finite_params, saved["sound_params"])
    return jax.tree.map(jnp.copy, state.params)


def _restore_rows(
    saved: dict[str, Any],
    notes: dict[str, Any],
    params: PyTree,
    rows_like: Callable[[], dict[str, Any]] | None,
) -> dict[str, Any]:
    """Rebuild the rows of the history; classes of the user's from rows like them."""
    rows = {}
    for name, flat in saved.items():
        if name == "params":
            rows[name] = from_path(params, flat)
            continue
        paths = notes.get("row_paths", {}).get(name, list(flat))
        try:
            rows[name] = rebuild(notes["rows"][name], [flat[path] for path in paths])
        except UnknownClass:
            if rows_like is None:
                raise
            rows[name] = from_path(rows_like()[name], flat)
    return rows


def _restore_result(saved: Any, notes: dict[str, Any], state: Any) -> FitResult | None:
    if "result" not in saved:
        return None
    parts = {name: saved["result"][name] for name in RESULT_PARTS}
    return FitResult(
        params=from_path(state.params, saved["result"]["params"]),
        history={},
        status=state.status,
        state=state,
        data_paths=tuple(notes["data_paths"]),
        best_model_state=_restore_like(
            state.model_state, saved.get("best_model_state")
        ),
        ended_by=notes.get("ended_by", ""),
        loss_of=notes.get("loss_of", "all data"),
        **parts,
    )


RESULT_PARTS = (
    "grad_norm",
    "loss",
    "nonfinite_data_leaf",
    "nonfinite_leaf",
    "num_steps",
)


def by_path(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a tree by their paths."""
    return dict(zip(_tree.leaf_paths(tree), jax.tree.leaves(tree), strict=True))


def from_path(like: PyTree, leaves: dict[str, Any]) -> PyTree:
    """Put leaves that `by_path` named into a tree of the same structure."""
    ordered = [leaves[path] for path in _tree.leaf_paths(like)]
    return jax.tree.unflatten(jax.tree.structure(like), ordered)


def as_text(place: StreamPosition | None) -> Any:
    """Return a stream's place as JSON can hold it."""
    if place is None:
        return None
    told: Any = place.own_state
    if isinstance(told, bytes):
        told = {"bytes": told.decode("latin-1")}
    else:
        try:
            told = None if told is None else {"json": json.dumps(told)}
        except (TypeError, ValueError):
            told = None  # as if it told nothing
    return [place.passes, place.batches, told]


def _from_text(text: Any) -> StreamPosition | None:
    if text is None:
        return None
    passes, batches, told = text
    if told is not None:
        is_bytes = "bytes" in told
        told = told["bytes"].encode("latin-1") if is_bytes else json.loads(told["json"])
    return StreamPosition(passes, batches, told)


def check_budget(restored: RestoredRun, num_steps: int | None) -> None:
    """Refuse a checkpoint of more steps than are asked for."""
    done = int(restored.carry.state.step) - restored.start_step
    if num_steps is not None and done > num_steps:
        raise ValueError(
            f"train: {restored.folder} holds {done} steps, more than the {num_steps} "
            "asked for; raise `num_steps`, or choose another folder."
        )


def is_final(restored: RestoredRun, num_steps: int | None) -> bool:
    """Tell whether a checkpoint holds a fit that needs no more steps."""
    if restored.status == Status.COMPLETED:
        done = int(restored.carry.state.step) - restored.start_step
        return num_steps is None or done == num_steps
    return restored.status not in (
        Status.RUNNING,
        Status.INTERRUPTED,
        Status.TIME_LIMIT,
    )

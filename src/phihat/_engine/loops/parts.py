"""What both loops are made of: a plan, what is carried, rows and recorders.

Example:
  >>> from phihat._engine.loops import parts
  >>> parts.Plan(num_steps=100, record_every=30).num_rows
  4
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Int, PyTree

from phihat._core import tree as _tree
from phihat._engine.recorders import Recorder, blank
from phihat.results import FitState, StepInfo

__all__ = [
    "STRETCH",
    "Carry",
    "Plan",
    "Ran",
    "Segment",
    "ask_recorders",
    "blank_rows",
    "divide",
    "first_step",
    "keep_seen",
    "start_loop",
    "write",
]

STRETCH = 128
"""Steps of a block where a stop is the usual end: repeated, or run for nothing."""


class Plan(NamedTuple):
    """The static shape of a run.

    Attributes:
      num_steps: the budget.
      record_every: steps per row of the history.
    """

    num_steps: int
    record_every: int

    @property
    def num_rows(self) -> int:
        """Rows of the history: those of an unfinished stride count."""
        return -(-self.num_steps // self.record_every)


class Segment(NamedTuple):
    """A part of a run whose other parts run by themselves; steps are its numbers.

    Steps count from the row that was begun last: `begin` is below `record_every`, and
    where it is not zero, the first row of the segment's history was written before.

    Attributes:
      begin: the first step, int32 [].
      end: the step before which the segment ends, int32 [].
      recorder_states: of the segment before, or None to begin with.
    """

    begin: Int[Array, ""]
    end: Int[Array, ""]
    recorder_states: PyTree


class Ran(NamedTuple):
    """What a loop returns.

    Attributes:
      state: the last one, its status RUNNING where the budget was used.
      nonfinite_leaf: the number of the leaf that was not finite, or -1.
      history: blank after a stop.
      recorder_states: those after the last step taken.
    """

    state: FitState
    nonfinite_leaf: Int[Array, ""]
    history: dict[str, Any]
    recorder_states: PyTree


class Carry(NamedTuple):
    """What both loops carry from step to step."""

    state: FitState
    recorder_states: PyTree


def first_step(state: FitState, segment: Segment | None) -> Int[Array, ""]:
    """Return the step from which offsets count."""
    return state.step if segment is None else state.step - segment.begin


def start_loop(
    state: FitState, recorders: dict[str, Recorder], segment: Segment | None
) -> Carry:
    if segment is not None and segment.recorder_states is not None:
        return Carry(state, segment.recorder_states)
    recorder_states = {
        name: recorder.begin(state) for name, recorder in recorders.items()
    }
    return Carry(state, recorder_states)


def divide(
    recorders: dict[str, Recorder],
) -> tuple[dict[str, Recorder], dict[str, Recorder]]:
    """Return those that write rows, and those that watch every step."""
    watchers = {name: one for name, one in recorders.items() if one.final_fn}
    return {k: v for k, v in recorders.items() if k not in watchers}, watchers


def keep_seen(carry: Carry, seen: dict[str, PyTree], goes_on: Array) -> Carry:
    """Let recorders keep what they saw, if the step was taken."""
    old = {name: carry.recorder_states[name] for name in seen}
    chosen = _tree.select(goes_on, seen, old)
    return carry._replace(recorder_states=carry.recorder_states | chosen)


def ask_recorders(
    recorders: dict[str, Recorder],
    carry: Carry,
    info: StepInfo,
    batch_fn: Callable[[], PyTree],
) -> tuple[PyTree, dict[str, Any]]:
    """Return the recorders' new states and the row that they measured."""
    states, row = {}, {}
    for name, recorder in recorders.items():
        # A recorder without a state does not look at the batch: none is gathered.
        batch = None if carry.recorder_states[name] is None else batch_fn()
        state, value = recorder.update_fn(
            carry.recorder_states[name], carry.state, info, batch
        )
        states[name] = _tree.strong(state)
        row[name] = _tree.strong(value)
    return states, row


def blank_rows(row: PyTree, num_rows: int) -> PyTree:
    return blank(
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((num_rows, *leaf.shape), leaf.dtype), row
        )
    )


def write(history: PyTree, rows: PyTree, at: Any) -> PyTree:
    def write(buffer: Array, value: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(
            buffer, value, at, axis=0, allow_negative_indices=False
        )

    return jax.tree.map(write, history, rows)

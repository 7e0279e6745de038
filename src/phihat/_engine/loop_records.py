"""What a run of the loop is given, what its steps carry, and what it returns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from phihat._core.types import Params
from phihat._engine.batches import BatchSource
from phihat._engine.recorders import Recorder
from phihat._engine.step import Attempt
from phihat.results import FitState

__all__ = [
    "AttemptFn",
    "Carry",
    "Context",
    "LoopPlan",
    "LoopResult",
    "LoopState",
    "Measured",
]

AttemptFn = Callable[[FitState, Callable[[Any], Any]], Attempt]
"""`(state, use) -> Attempt`, where `use` gives the step's batch to a function."""


class LoopPlan(NamedTuple):
    """What is to be run, and how.

    Attributes:
      begin: the first step, counted from a row of the history, int32 []; 0 at first.
      end: the step before which the run ends; a Python int where it shapes the program.
      num_rows: room in the history.
      record_every: steps per row.
      selects: choose between old and new values at every step; else replay.
      stops_early: leave the loop once nothing is alive, at the price of reverse
        differentiation.
      num_measurements: 1 where an optimizer that measures itself must do so before the
        first step, else 0; may be traced.
      keeps_last: carry the last loss and gradient. Parts of a fit do so too, though
        nobody asks them: a gradient that is not kept is rounded otherwise on the CPU,
        where a product and a sum become one operation.
      measures_end: try one step more than are taken, and keep what it measures: the
        last loss and gradient, by the same code.
      is_single: one step, without a loop round it.
      remat: keep the states between blocks only, for reverse differentiation.
    """

    begin: Any
    end: Any
    num_rows: int
    record_every: int
    selects: bool
    stops_early: bool
    num_measurements: Any
    keeps_last: bool
    measures_end: bool
    is_single: bool
    remat: bool

    @property
    def last(self) -> Any:
        """The index after that of the last step that is tried."""
        return self.end + 1 if self.measures_end else self.end


class LoopResult(NamedTuple):
    """What a loop returns.

    Attributes:
      state: where it stopped.
      num_taken: the steps taken, counted as `begin` is.
      last: what was measured at the last params, None where nothing was.
      last_finite_params: those to evaluate before the last step, or None.
      history: one row per `record_every` steps, blank where none was measured.
      recorder_states: those after the last step taken.
    """

    state: FitState
    num_taken: Int[Array, ""]
    last: "Measured | None"
    last_finite_params: Params | None
    history: dict[str, Any]
    recorder_states: PyTree


class Measured(NamedTuple):
    """What the last step that was tried, and not taken, measured.

    Attributes:
      loss: at the params before it.
      grad: the gradient there.
      proposal: the params after it; None where they are not at hand.
    """

    loss: Array
    grad: Params
    proposal: Params | None = None


class Carry(NamedTuple):
    """What a step hands to the next."""

    params: Params
    opt_state: PyTree
    model_state: PyTree
    loss: Float[Array, ""]
    last: Measured | None
    last_finite_params: Params | None
    recorder_states: PyTree


class LoopState(NamedTuple):
    """What the loop over the steps of a block carries.

    `refusal` is that of the last step, in replay alone; `taken` counts the steps taken
    where every step chooses.
    """

    index: Int[Array, ""]
    carry: Carry
    taken: Int[Array, ""]
    refusal: Float[Array, ""] | None
    block_rows: dict[str, Any]


class Context(NamedTuple):
    """What is the same in all steps of a run; flat runs have no blocks."""

    attempt_fn: AttemptFn
    source: BatchSource
    state: FitState
    recorders: dict[str, Recorder]
    plan: LoopPlan
    evaluate_fn: Callable[[PyTree, Params], Params] | None
    row: PyTree
    block: int
    is_flat: bool = False

    def offset(self, index: Array) -> Array:
        """Return the step of an index; one before the first is a mere measurement."""
        is_plain = isinstance(self.plan.num_measurements, int)
        if is_plain and not self.plan.num_measurements:
            return index
        return jnp.maximum(index, self.plan.begin)

    def row_of(self, index: Array) -> Array:
        """Return the row of the history to which a step belongs."""
        offset = self.offset(index)
        stride = self.plan.record_every
        return offset if stride == 1 else jax.lax.div(offset, jnp.int32(stride))

    @property
    def first_step(self) -> Array:
        """The absolute step from which offsets count."""
        return self.state.step - self.plan.begin

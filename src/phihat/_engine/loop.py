"""The loop of a fit: one body, run in blocks, in every context.

A block is about a hundred steps. The rows that its steps put on record are kept on a
page of a few hundred bytes, which is written into the history once a block: on the CPU
a loop whose buffers are all small runs as one kernel.

A step that must not be taken (something was not finite, the tolerance is met) is told
by one number, the attempt's `refusal`. There are two ways to heed it:

- *select*: every step chooses between the old and the new values. `taken` counts the
  steps that were taken, and step i is alive only if all before it were. It works under
  `vmap`, and in its scanned form under reverse differentiation.
- *replay*: steps are taken without a choice until one is refused. Then the block is
  run again from its beginning, up to that step: the same body, hence the same bits.
  It costs nothing while all goes well, but a mapped or a differentiated program cannot
  do it.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int, PyTree

from phihat._core import tree as _tree
from phihat._core.types import Params
from phihat._engine.batches import BatchSource
from phihat._engine.recorders import Recorder, blank
from phihat._engine.step import Attempt, is_running, measures_itself
from phihat.results import FitState, StepInfo

__all__ = ["LoopPlan", "LoopResult", "begin_recorders", "run_loop"]

_BLOCK = 100
"""Steps of a block where no page limits them."""

_STRETCH = 2**14
"""Steps after which a repetition need not go back further."""

_SMALL_BUFFER = 512
"""Bytes up to which XLA calls a buffer small."""

_MANY_LEAVES = 32
"""Leaves above which XLA takes long to compile each loop round another."""

_FEW_ROWS = 16
"""Rows of a page below which a small page is not worth its turning."""

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
      keeps_last: keep what the last step that was tried has measured.
      measures_end: try one step more than are taken, to learn the last loss and
        gradient through the same code; needs `keeps_last`.
      is_single: one step, without a loop round it.
      remat: keep the states between blocks only, for reverse differentiation.
    """

    begin: Any
    end: Any
    num_rows: int
    record_every: int
    selects: bool
    stops_early: bool
    num_measurements: Any = 0
    keeps_last: bool = True
    measures_end: bool = True
    is_single: bool = False
    remat: bool = False

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
      sound_params: the params to evaluate before the last step, None where not kept.
      history: one row per `record_every` steps, blank where none was measured.
      recorder_states: those after the last step taken.
    """

    state: FitState
    num_taken: Int[Array, ""]
    last: "Measured | None"
    sound_params: Params | None
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


class _Carry(NamedTuple):
    """What a step hands to the next."""

    params: Params
    opt_state: PyTree
    model_state: PyTree
    loss: Float[Array, ""]
    last: Measured | None
    sound_params: Params | None
    recorder_states: PyTree


class _Steps(NamedTuple):
    """What the loop over the steps of a block carries.

    `refusal` is that of the last step, in replay alone; `taken` counts the steps taken
    where every step chooses.
    """

    index: Int[Array, ""]
    carry: _Carry
    taken: Int[Array, ""]
    refusal: Float[Array, ""] | None
    page: dict[str, Any]


class _Context(NamedTuple):
    """What is the same in all steps of a run; flat runs have no blocks and no pages."""

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


def run_loop(
    attempt_fn: AttemptFn,
    source: BatchSource,
    state: FitState,
    recorders: dict[str, Recorder],
    plan: LoopPlan,
    *,
    evaluate_fn: Callable[[PyTree, Params], Params] | None = None,
    recorder_states: PyTree = None,
    sound_params: Params | None = None,
) -> LoopResult:
    """Run the steps of a plan.

    Args:
      attempt_fn: tries a step.
      source: where its batches come from.
      state: where to begin.
      recorders: what to put on record.
      plan: how much, and how.
      evaluate_fn: `(opt_state, params) -> params` to evaluate; then those of the last
        finite loss are kept.
      recorder_states: of the run before, or None to begin with.
      sound_params: likewise.
    """
    if recorder_states is None:
        recorder_states = begin_recorders(recorders, state)
    if evaluate_fn is not None and sound_params is None:
        sound_params = evaluate_fn(state.opt_state, state.params)
    carry = _Carry(
        params=state.params,
        opt_state=state.opt_state,
        model_state=state.model_state,
        loss=state.loss,
        last=None,
        sound_params=sound_params,
        recorder_states=recorder_states,
    )
    context = _Context(attempt_fn, source, state, recorders, plan, evaluate_fn, {}, 1)
    row, last = jax.eval_shape(functools.partial(_try_first, context), carry)
    if plan.keeps_last:
        carry = carry._replace(last=blank(last))
    num_leaves = len(jax.tree.leaves((state.params, state.opt_state)))
    is_flat = num_leaves > _MANY_LEAVES and (plan.stops_early or not plan.selects)
    block = _block_length(row, plan)
    context = context._replace(row=row, block=block, is_flat=is_flat)
    history = _blank_rows(row, _room(context))
    run = _run_selecting if plan.selects else _run_replaying
    if plan.selects and not plan.stops_early:
        run = _run_scanning
    if plan.is_single:
        run = _run_once
    steps, history = run(context, carry, history)
    last = steps.carry
    return LoopResult(
        state=state._replace(
            step=context.first_step + steps.taken,
            params=last.params,
            opt_state=last.opt_state,
            model_state=last.model_state,
            loss=last.loss,
        ),
        num_taken=steps.taken,
        last=last.last,
        sound_params=last.sound_params,
        history=jax.tree.map(lambda leaf: leaf[: plan.num_rows], history),
        recorder_states=last.recorder_states,
    )


def begin_recorders(recorders: dict[str, Recorder], state: FitState) -> PyTree:
    """Return the states of recorders before the first step of a run."""
    return {name: recorder.begin(state) for name, recorder in recorders.items()}


# ------------------------------------------------------------------- how blocks are run


def _run_scanning(
    context: _Context, carry: _Carry, history: PyTree
) -> tuple[_Steps, PyTree]:
    """Run all blocks, each of them whole; reverse differentiation can follow."""
    plan, block = context.plan, context.block

    def run_block(whole: tuple[_Steps, PyTree], _: None) -> tuple[Any, None]:
        steps, history = whole
        first = steps.index
        source = _draw(context, first)
        steps = steps._replace(page=_blank_rows(context.row, _page_rows(context)))
        steps, _ = jax.lax.scan(
            lambda steps, _: (_take_step(context, source, first, steps), None),
            steps,
            length=block,
        )
        history = _write(history, steps.page, context.row_of(first))
        return (steps._replace(page={}), history), None

    if plan.remat:
        # A scan does not merge a block with its repetition, so nothing prevents it.
        run_block = jax.checkpoint(run_block, prevent_cse=False)
    start = _first_steps(context, carry)
    num_blocks = -(-plan.last // block)
    (steps, history), _ = jax.lax.scan(run_block, (start, history), length=num_blocks)
    return steps, history


def _run_once(
    context: _Context, carry: _Carry, history: PyTree
) -> tuple[_Steps, PyTree]:
    """Take one step by itself.

    XLA's CPU compiler gives convolutions their fast form only outside of loops.
    """
    steps = _first_steps(context, carry)
    first, row = steps.index, context.row_of(steps.index)
    steps = steps._replace(page=_read(history, row, 1))
    steps = _take_step(context, context.source, first, steps)
    return steps._replace(page={}), _write(history, steps.page, row)


def _run_selecting(
    context: _Context, carry: _Carry, history: PyTree
) -> tuple[_Steps, PyTree]:
    """Run blocks while a step is alive, in this fit or in any other lane."""
    end = jnp.asarray(context.plan.last, jnp.int32)

    def is_alive(steps: _Steps, limit: Array) -> Array:
        alive = any_lane(_is_alive(context, steps))
        return (steps.index < limit) & alive

    begun = _first_steps(context, carry)
    return _run_blocks(context, begun, history, end, is_alive)


def _run_replaying(
    context: _Context, carry: _Carry, history: PyTree
) -> tuple[_Steps, PyTree]:
    """Run blocks without a choice, and again those up to a step that was refused.

    Blocks are run in long stretches, so that what a repetition needs is rarely kept.
    The last stretch tries one step more, keeps what it measured, and does not take it.
    """
    plan = context.plan
    end = jnp.asarray(plan.end, jnp.int32)

    def goes_on(steps: _Steps, limit: Array) -> Array:
        answer = (steps.index < limit) & is_running(steps.carry.opt_state)
        return answer if steps.refusal is None else answer & (steps.refusal == 0)

    def run_stretch(whole: Any) -> Any:
        begun, target, measured, history = whole
        is_last = begun.index >= target
        limit = jnp.minimum(begun.index + _STRETCH, target)
        limit = jnp.where(is_last, begun.index + 1, limit)
        ended, history = _run_blocks(context, begun, history, limit, goes_on)
        steps, is_kept = ended, is_last
        if ended.refusal is not None:
            is_refused = ended.refusal != 0
            target = jnp.where(is_refused, ended.index - 1, target)
            is_kept = is_refused | is_last
            steps = _choose(is_kept, begun, ended)
            steps = steps._replace(refusal=jnp.zeros_like(ended.refusal))
        if plan.keeps_last:
            found = _known(ended.carry.last)._replace(proposal=ended.carry.params)
            # Only the last stretch leaves the loop where it measures the end.
            measured = found if plan.measures_end else _choose(is_kept, found, measured)
        if plan.measures_end:
            target = jnp.where(is_last, -1, target)
        return steps, target, measured, history

    def is_open(whole: Any) -> Array:
        steps, target, _, _ = whole
        if plan.measures_end:
            return steps.index <= target
        return (steps.index < target) & is_running(steps.carry.opt_state)

    begun = _first_steps(context, carry)
    measured = None
    if plan.keeps_last:
        measured = _known(carry.last)._replace(proposal=carry.params)
    whole = (begun, end, measured, history)
    steps, _, measured, history = jax.lax.while_loop(is_open, run_stretch, whole)
    carry = steps.carry._replace(last=measured)
    return steps._replace(carry=carry, taken=context.offset(steps.index)), history


def _run_blocks(
    context: _Context,
    steps: _Steps,
    history: PyTree,
    limit: Array,
    goes_on: Callable[[_Steps, Array], Array],
) -> tuple[_Steps, PyTree]:
    """Run blocks up to a limit, or until their steps do not go on."""
    if context.is_flat:
        return _run_flat(context, steps, history, limit, goes_on)

    def run_block(whole: tuple[_Steps, PyTree]) -> tuple[_Steps, PyTree]:
        steps, history = whole
        end = jnp.minimum(_block_end(context, steps.index), limit)
        return _run_block(context, steps, history, end, goes_on)

    return jax.lax.while_loop(
        lambda whole: goes_on(whole[0], limit), run_block, (steps, history)
    )


def _run_flat(
    context: _Context,
    steps: _Steps,
    history: PyTree,
    limit: Array,
    goes_on: Callable[[_Steps, Array], Array],
) -> tuple[_Steps, PyTree]:
    """Run steps in one loop that carries the whole history."""
    start = jnp.zeros((), jnp.int32)
    steps = jax.lax.while_loop(
        lambda steps: goes_on(steps, limit),
        functools.partial(_take_step, context, context.source, start),
        steps._replace(page=history),
    )
    return steps._replace(page={}), steps.page


def _run_block(
    context: _Context,
    steps: _Steps,
    history: PyTree,
    limit: Array,
    goes_on: Callable[[_Steps, Array], Array],
) -> tuple[_Steps, PyTree]:
    """Run steps up to a limit, or until they do not go on; write their page."""
    first = steps.index
    source = _draw(context, first)
    row = context.row_of(first)
    page = _blank_rows(context.row, _page_rows(context))
    if context.plan.record_every > 1:  # the block may begin within a row
        page = _read(history, row, _page_rows(context))
    steps = steps._replace(page=page)
    steps = jax.lax.while_loop(
        lambda steps: goes_on(steps, limit),
        functools.partial(_take_step, context, source, first),
        steps,
    )
    return steps._replace(page={}), _write(history, steps.page, row)


def _known(measured: Measured | None) -> Measured:
    assert measured is not None
    return measured


def _choose(condition: Array, if_true: Any, if_false: Any) -> Any:
    """Choose by a branch, which compiles to copies and not to kernels."""
    return jax.lax.cond(condition, lambda: if_true, lambda: if_false)


@custom_vmap
def any_lane(is_alive: Bool[Array, ""]) -> Bool[Array, ""]:
    """Tell whether it is so in any lane, as one value for all lanes.

    A loop whose condition is not mapped needs no choice between old and new history.
    """
    return is_alive


@any_lane.def_vmap
def _any_of_lanes(axis_size: int, in_batched: list[bool], is_alive: Array) -> Any:
    del axis_size
    return any_lane(jnp.any(is_alive) if in_batched[0] else is_alive), False


# ---------------------------------------------------------------------------- one step


def _first_steps(context: _Context, carry: _Carry) -> _Steps:
    plan = context.plan
    begin = jnp.asarray(plan.begin, jnp.int32)
    index = begin - jnp.asarray(plan.num_measurements, jnp.int32)
    refusal = None
    if not plan.selects and not measures_itself(carry.opt_state):
        refusal = jnp.zeros((), _tree.default_float())
    return _Steps(index, carry, begin, refusal, {})


def _is_alive(context: _Context, steps: _Steps) -> Array:
    offset = context.offset(steps.index)
    return (steps.taken == offset) & is_running(steps.carry.opt_state)


def _view(context: _Context, carry: _Carry, offset: Any) -> FitState:
    """Return the state before a step, as attempts and recorders see it."""
    return context.state._replace(
        step=context.first_step + offset,
        params=carry.params,
        opt_state=carry.opt_state,
        model_state=carry.model_state,
        loss=carry.loss,
    )


def _take_step(
    context: _Context, source: BatchSource, block: Array, steps: _Steps
) -> _Steps:
    """Take the step of this index, or leave all as it is where it must not be taken."""
    plan, before = context.plan, steps.carry
    # The step's number comes from the loop and not from the state: under vmap it stays
    # one number for all lanes, and so does the choice of the batch's shape.
    offset = context.offset(steps.index)
    # The step that is only measured sees the batch of the last one that was taken.
    seen = jnp.minimum(offset, plan.end - 1) if plan.measures_end else offset
    state = _view(context, before, seen)
    use = functools.partial(source.use_fn, state.step)
    tried = context.attempt_fn(state, use)
    after, info = tried.state, tried.info
    is_counted = (steps.index >= plan.begin) & (steps.index < plan.end)
    alive, ok, taken = None, None, steps.taken
    if plan.selects:
        alive = _is_alive(context, steps)
        ok = _is_taken(alive, tried)
        if plan.measures_end:
            ok &= steps.index < plan.end
        taken = taken + (ok & is_counted).astype(jnp.int32)
    recorder_states, page = _record(
        context, source, block, steps, info, alive, ok, is_counted
    )
    last = Measured(info.loss, info.grad) if plan.keeps_last else None
    sound = None
    if context.evaluate_fn is not None:
        sound = context.evaluate_fn(before.opt_state, before.params)
    carry = _Carry(
        params=after.params,
        opt_state=after.opt_state,
        model_state=after.model_state,
        loss=after.loss,
        last=last,
        sound_params=sound,
        recorder_states={},
    )
    if ok is not None and alive is not None:
        carry = _tree.select(ok, carry, before._replace(recorder_states={}, last=last))
        carry = carry._replace(last=_tree.select(alive, last, before.last))
    refusal = steps.refusal
    if refusal is not None and tried.refusal is not None:
        refusal = tried.refusal
    return _Steps(
        index=steps.index + 1,
        carry=carry._replace(recorder_states=recorder_states),
        taken=taken,
        refusal=refusal,
        page=page,
    )


def _is_taken(alive: Array, tried: Attempt) -> Array:
    """Tell whether a step is taken."""
    if tried.refusal is None:
        return alive
    # XLA's CPU compiler copies what a value is computed from into all who read it: a
    # sum over all leaves into a choice for each leaf. A product of matrices is never
    # copied, so that the program grows as the leaves do, and not as their square.
    square = jnp.full((2, 2), tried.refusal)
    return alive & ((square @ square)[0, 0] == 0)


# -------------------------------------------------------------------------- the records


def _record(
    context: _Context,
    source: BatchSource,
    block: Array,
    steps: _Steps,
    info: StepInfo,
    alive: Array | None,
    ok: Array | None,
    is_counted: Array,
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Return the recorders' states and the page after a step."""
    plan, old = context.plan, steps.carry.recorder_states
    offset = context.offset(steps.index)
    writers, watchers = _divide(context.recorders)
    state = _view(context, steps.carry, offset)
    batch_fn = lambda: source.batch_fn(state.step)  # noqa: E731

    def ask(recorders: dict[str, Recorder]) -> tuple[Any, Any]:
        return _ask(recorders, old, state, info, batch_fn)

    first_row = context.row_of(block)
    place = context.row_of(steps.index) - first_row
    old_states = {name: old[name] for name in writers}

    def write() -> tuple[Any, Any]:
        states, row = ask(writers)
        if alive is not None:
            row = _tree.select(alive, row, blank(row))
        rows = jax.tree.map(lambda leaf: leaf[None], row)
        return states, _write(steps.page, rows, place)

    seen, page = old_states, steps.page
    if writers and plan.record_every == 1:
        seen, page = write()
    elif writers:
        is_due = offset % plan.record_every == 0
        seen, page = jax.lax.cond(is_due, write, lambda: (old_states, steps.page))
    if watchers:
        seen |= ask(watchers)[0]
    # A stopped fit asks no more: what its recorders keep stays as it was.
    keeps = ok
    if measures_itself(steps.carry.opt_state):
        keeps = is_counted if ok is None else ok & is_counted
    if keeps is not None:
        seen = _tree.select(keeps, seen, {name: old[name] for name in seen})
    return seen, page


def _try_first(context: _Context, carry: _Carry) -> tuple[PyTree, Measured]:
    """Return a row of the history and what a step measures; for their shapes."""
    state = _view(context, carry, context.plan.begin)
    use = functools.partial(context.source.use_fn, state.step)
    info = context.attempt_fn(state, use).info
    writers, _ = _divide(context.recorders)
    batch_fn = lambda: context.source.batch_fn(state.step)  # noqa: E731
    row = _ask(writers, carry.recorder_states, state, info, batch_fn)[1]
    return row, Measured(info.loss, info.grad)


def _divide(
    recorders: dict[str, Recorder],
) -> tuple[dict[str, Recorder], dict[str, Recorder]]:
    """Return those that write rows, and those that watch every step."""
    watchers = {name: one for name, one in recorders.items() if one.final_fn}
    return {k: v for k, v in recorders.items() if k not in watchers}, watchers


def _ask(
    recorders: dict[str, Recorder],
    recorder_states: PyTree,
    state: FitState,
    info: StepInfo,
    batch_fn: Callable[[], PyTree],
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Return the recorders' new states and the row that they measured."""
    states, row = {}, {}
    for name, recorder in recorders.items():
        before = recorder_states[name]
        # A recorder without a state does not look at the batch: none is gathered.
        batch = None if before is None else batch_fn()
        after, value = recorder.update_fn(before, state, info, batch)
        states[name] = _tree.strong(after)
        row[name] = _tree.strong(value)
    return states, row


# ------------------------------------------------------------------------ blocks, pages


def _block_length(row: PyTree, plan: LoopPlan) -> int:
    """Return the steps of a block, whole rows of the history."""
    if plan.is_single:
        return plan.record_every
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(row)]
    rows = _BLOCK
    if sizes and _SMALL_BUFFER // max(*sizes, 1) >= _FEW_ROWS:
        rows = min(rows, _SMALL_BUFFER // max(*sizes, 1))
    length = max(1, rows // plan.record_every) * plan.record_every
    if plan.stops_early or not plan.selects:
        return min(length, plan.num_rows * plan.record_every)
    if plan.remat:
        length = math.isqrt(max(plan.last - 1, 0)) + 1
    # Blocks of one length, with little left over.
    num_blocks = -(-plan.last // length)
    length = -(-plan.last // num_blocks)
    return -(-length // plan.record_every) * plan.record_every


def _page_rows(context: _Context) -> int:
    return -(-context.block // context.plan.record_every)


def _room(context: _Context) -> int:
    """Return the rows of the history with room for the last page."""
    if context.is_flat:
        return context.plan.num_rows + 1
    return context.plan.num_rows + _page_rows(context)


def _block_end(context: _Context, first: Array) -> Array:
    """Return the step before which a block ends, at the end of a row."""
    stride = context.plan.record_every
    return context.row_of(first) * stride + context.block


def _draw(context: _Context, first: Array) -> BatchSource:
    plan = context.plan
    first = context.offset(first)
    if plan.measures_end:
        first = jnp.minimum(first, plan.end - 1)
    step = context.first_step + first
    return context.source.draw_ahead(step, context.block)


def _blank_rows(row: PyTree, num_rows: int) -> PyTree:
    return blank(
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((num_rows, *leaf.shape), leaf.dtype), row
        )
    )


def _read(history: PyTree, at: Any, rows: int) -> PyTree:
    def read(buffer: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(
            buffer, at, rows, axis=0, allow_negative_indices=False
        )

    return jax.tree.map(read, history)


def _write(history: PyTree, rows: PyTree, at: Any) -> PyTree:
    def write(buffer: Array, value: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(
            buffer, value, at, axis=0, allow_negative_indices=False
        )

    return jax.tree.map(write, history, rows)

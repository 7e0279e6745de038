"""Many fits in chunks of one program; lanes that have ended leave between calls.

A mapped loop waits for its slowest lane. So a chunk runs for a few steps, and what has
not ended then joins others that have not, in a later chunk of the same program. One
call runs several chunks, one after the other.
"""

import collections
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.tree_util import Partial
from jaxtyping import Array

from phihat import fitting
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Box, Status
from phihat.curves import robust
from phihat.curves.many_problems import ManyProblems
from phihat.curves.model_checks import in_floats
from phihat.curves.residuals import Inputs, curve_loss, raw
from phihat.results import FitState
from phihat.second_order import levenberg_marquardt

__all__ = ["LaneResults", "round_length", "run"]

_CHUNK = 250
"""Lanes at once on a CPU: they stay in its cache, and few wait for the slowest."""

_NUM_CHUNKS = 16
"""Chunks of one call on a CPU: enough to make what a call costs small."""

_MAX_CHUNK = 2**17
_DEFAULT_BYTES = 2**31
_MOST_STEPS = 20
_LEAST_STEPS = 8


class LaneResults(NamedTuple):
    """Where N fits of F free params ended.

    Attributes:
      free: the params [N, F].
      status: a `Status` each [N].
      num_steps: the steps of each [N].
      total: the robust sum of squares over sigma [N].
      chi_square: the plain one [N].
      misfit: without sigma [N].
      gram: the weighted J'J [N, F, F].
    """

    free: np.ndarray
    status: np.ndarray
    num_steps: np.ndarray
    total: np.ndarray
    chi_square: np.ndarray
    misfit: np.ndarray
    gram: np.ndarray


def run(many: ManyProblems, *, max_bytes: int | None, progress: bool) -> LaneResults:
    """Fit all curves to their ends."""
    num_curves, num_free = many.num_curves, len(many.layout.free_names)
    ends = LaneResults(
        free=np.empty([num_curves, num_free]),
        status=np.zeros(num_curves, np.int32),
        num_steps=np.zeros(num_curves, np.int32),
        total=np.empty(num_curves),
        chi_square=np.empty(num_curves),
        misfit=np.empty(num_curves),
        gram=np.empty([num_curves, num_free, num_free]),
    )
    devices = jax.local_devices()
    chunk, size = _sizes(many, num_free, max_bytes, devices)
    mesh = None
    if len(devices) > 1 and num_curves > size:
        mesh = Mesh(np.array(devices), ("lanes",))
        size *= len(devices)
    # Two programs at once on a CPU may wait for each other's threads, without end.
    most = 1 if devices[0].platform == "cpu" else 2
    work = _LaneQueue(many, size, _programs_of(many, chunk, mesh))
    with _bar(progress, num_curves) as bar:
        _drive(work, ends, most, bar)
    return ends


def round_length(num_steps: int) -> int:
    """Return how many steps a chunk runs: a divisor of the budget where one suits."""
    if num_steps <= _MOST_STEPS:
        return num_steps
    for length in range(_MOST_STEPS, _LEAST_STEPS - 1, -1):
        if num_steps % length == 0:
            return length
    return _MOST_STEPS


# ------------------------------------------------------------------- what is compiled


def _init_lane(code: Any, options: Any, mode: Mode, free: Array) -> FitState:
    del options, mode
    return fitting.init(free, code)


def _advance(
    code: Any,
    options: Any,
    mode: Mode,
    state: FitState,
    leaves: list[Array],
    box: Box | None,
) -> tuple[Any, ...]:
    """Run some steps of every lane, and tell where each is."""
    del mode
    loss_fn, measure, optimizer, tolerance = code
    structure, is_own, own_box, num_steps, chunk, mesh, _ = options

    def one(state: FitState, leaves: list[Array], box: Box | None) -> tuple[Any, ...]:
        inputs = jax.tree.unflatten(structure.value, leaves)
        result = fitting.fit(
            loss_fn,
            None,
            optimizer,
            (inputs, jnp.zeros_like(inputs.y)),
            num_steps=num_steps,
            tolerance=tolerance,
            projection=box,
            record=(),
            state=state,
        )
        # Without a robust loss the last measurement is all that the errors need.
        at = result.state.opt_state
        found = (at.value, at.value, at.value, at.half_hessian)
        if measure is not None:
            found = measure(result.params, inputs)
        return result.state, result.params, result.status, found

    def advance(state: FitState, leaves: list[Array], box: Box | None) -> Any:
        def lane(own: Any) -> tuple[Any, ...]:
            state, own_leaves, its_box = own
            rest = iter(own_leaves)
            merged = [
                next(rest) if own else leaf
                for leaf, own in zip(leaves, is_own, strict=True)
            ]
            return one(state, merged, its_box if own_box else box)

        own_leaves = [leaf for leaf, own in zip(leaves, is_own, strict=True) if own]
        lanes = (state, own_leaves, box if own_box else None)
        return jax.lax.map(lane, lanes, batch_size=chunk)

    if mesh is not None:
        advance = _on_each_device(advance, mesh, is_own, own_box)
    return advance(state, leaves, box)


def _on_each_device(
    advance: Callable[..., Any], mesh: Mesh, is_own: tuple[bool, ...], own_box: bool
) -> Callable[..., Any]:
    """Let each device loop over its own lanes, so that none waits for another's."""
    split, whole = PartitionSpec("lanes"), PartitionSpec()
    leaves = [split if own else whole for own in is_own]
    return jax.shard_map(
        advance,
        mesh=mesh,
        in_specs=(split, leaves, split if own_box else whole),
        out_specs=split,
        check_vma=False,
    )


def _measure(
    model: Partial,
    layout: _tree.Static,
    target: _tree.Static,
    loss: _tree.Static,
    free: Array,
    inputs: Inputs,
) -> tuple[Array, Array, Array, Array]:
    """Return the robust sum, the plain one, the one without sigma, and J'J."""
    residual_fn = functools.partial(
        raw, model, layout.value, target.value, inputs=inputs
    )
    residual, push = jax.linearize(residual_fn, free)
    columns = [push(row) for row in jnp.eye(free.size, dtype=free.dtype)]
    weighted = residual
    if inputs.scale is not None:
        weighted = residual * inputs.scale
        columns = [column * inputs.scale for column in columns]
    chi_square = jnp.sum(weighted * weighted)
    total = chi_square
    if loss.value != "linear":
        z = (weighted / inputs.f_scale) ** 2
        total = inputs.f_scale**2 * jnp.sum(robust.rho(loss.value, z, jnp))
        root = jnp.sqrt(robust.curvature(loss.value, z, jnp))
        columns = [column * root for column in columns]
    rows = jnp.stack(columns)
    gram = jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)
    return total, chi_square, jnp.sum(residual * residual), gram


class _Programs(NamedTuple):
    begin: Callable[..., Any]
    advance: Callable[..., Any]
    num_steps: int


def _programs_of(many: ManyProblems, chunk: int, mesh: Mesh | None) -> _Programs:
    options, layout = many.options, many.layout
    static = _tree.Static
    parts = (many.model, static(layout), static(many.target), static(options.loss))
    loss_fn = curve_loss(many.model, layout, many.target, options.loss)
    optimizer = levenberg_marquardt()
    num_steps = round_length(options.num_steps)
    structure = jax.tree.structure(many.inputs)
    is_measured = options.loss != "linear" or many.inputs.scale is not None
    advance_code = (
        loss_fn,
        Partial(_measure, *parts) if is_measured else None,
        optimizer,
        options.tolerance,
    )
    function = many.model.func
    advance_options = (
        static(structure),
        many.is_own,
        many.bounds.are_own,
        num_steps,
        chunk,
        mesh,
        function,
    )
    return _Programs(
        functools.partial(_programs.call, _init_lane, optimizer, None),
        functools.partial(_programs.call, _advance, advance_code, advance_options),
        num_steps,
    )


# ------------------------------------------------------------------------- the chunks


class _LaneQueue:
    """What is left to do: curves not begun, and lanes that have not ended."""

    def __init__(self, many: ManyProblems, size: int, programs: _Programs) -> None:
        self.many, self.size, self.programs = many, size, programs
        self.next = 0
        self.first_state: FitState | None = None
        self.waiting: list[tuple[np.ndarray, Any]] = []

    def take(self, *, at_end: bool) -> tuple[np.ndarray, Any] | None:
        """Return the lanes of the next chunk, with their states if they have begun."""
        num_waiting = sum(len(lanes) for lanes, _ in self.waiting)
        if num_waiting >= self.size or (at_end and num_waiting):
            lanes, states = jax.tree.map(
                lambda *blocks: np.concatenate(blocks), *self.waiting
            )
            first, rest = slice(self.size), slice(self.size, None)
            self.waiting = []
            if num_waiting > self.size:
                self.waiting = [(lanes[rest], _rows(states, rest))]
            return lanes[first], _rows(states, first)
        if self.next < self.many.num_curves:
            begin, self.next = self.next, self.next + self.size
            return np.arange(begin, min(self.next, self.many.num_curves)), None
        return None

    def begin(self, lanes: np.ndarray, states: Any) -> Any:
        """Set one chunk going; return what it will find."""
        many = self.many
        num_lanes = len(lanes)
        full = np.resize(np.arange(num_lanes), self.size)
        with in_floats(many.options.dtype):
            leaves = many.rows(lanes[full])
            box = None
            if not many.bounds.are_open:
                places = many.layout.free_places
                box = many.bounds.of(lanes[full]).box(places, many.options.dtype)
            is_new = states is None
            state = self._start(lanes[full]) if is_new else _rows(states, full)
            # Lanes without a curve end at once, for their start is not a number.
            state.params[num_lanes:] = np.nan
            return self.programs.advance(state, leaves, box)

    def _start(self, lanes: np.ndarray) -> Any:
        """Return the state before the first step, which is one but for the params."""
        many = self.many
        free = many.start[lanes][:, many.layout.free_places]
        free = free.astype(many.options.dtype)
        if self.first_state is None:
            self.first_state = jax.tree.map(np.asarray, self.programs.begin(free[0]))
        repeat = lambda leaf: np.broadcast_to(leaf, (len(lanes), *leaf.shape))  # noqa: E731
        return jax.tree.map(repeat, self.first_state)._replace(params=free)

    def put(self, ends: LaneResults, lanes: np.ndarray, found: Any) -> int:
        """Write what a chunk found; return how many lanes have ended."""
        state, free, status, (total, chi_square, misfit, gram) = found
        ends.free[lanes] = free
        ends.num_steps[lanes] = state.step
        ends.total[lanes], ends.chi_square[lanes] = total, chi_square
        ends.misfit[lanes], ends.gram[lanes] = misfit, gram
        ends.status[lanes] = status
        is_open = (status == Status.COMPLETED) & (
            state.step < self.many.options.num_steps
        )
        if is_open.any():
            self.waiting.append((lanes[is_open], _rows(state, is_open)))
        return len(lanes) - int(is_open.sum())


def _rows(tree: Any, rows: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def _drive(work: _LaneQueue, ends: LaneResults, most: int, bar: Any) -> None:
    """Keep so many chunks at work until nothing is left; none is waited for at once."""
    running: collections.deque[tuple[np.ndarray, Any]] = collections.deque()
    while True:
        while len(running) < most:
            taken = work.take(at_end=not running)
            if taken is None:
                break
            running.append((taken[0], work.begin(*taken)))
        if not running:
            return
        lanes, found = running.popleft()
        found = _rows(jax.tree.map(np.asarray, found), slice(len(lanes)))
        bar.update(work.put(ends, lanes, found))


def _sizes(
    many: ManyProblems, num_free: int, max_bytes: int | None, devices: list[Any]
) -> tuple[int, int]:
    """Return how many lanes a chunk has, and how many a call has on each device."""
    itemsize = np.dtype(many.options.dtype).itemsize
    per_lane = itemsize * (many.target.size * (num_free + 8) + 4 * num_free**2 + 64)
    limit = _DEFAULT_BYTES if max_bytes is None else max_bytes
    if per_lane > limit:
        raise ValueError(
            f"fit_curves: `max_bytes` must hold one curve, about {per_lane:,} bytes, "
            f"got {limit:,}."
        )
    is_cpu = devices[0].platform == "cpu"
    most = min(many.num_curves, limit // per_lane)
    chunk = max(1, min(_CHUNK if is_cpu else _MAX_CHUNK, most))
    num_chunks = max(1, min(_NUM_CHUNKS, -(-most // chunk))) if is_cpu else 1
    chunk = min(chunk, -(-most // num_chunks)) if most else 1
    return chunk, chunk * num_chunks


def _bar(progress: bool, num_curves: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=num_curves, disable=not progress, unit="curve", leave=False)

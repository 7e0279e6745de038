r"""Trust regions that measure themselves: one trial is measured, judged, and followed.

At the accepted point the loss is modelled by $f + 2\, b^\top p + p^\top A\, p$, with
$b$ half its gradient and $A$ half its Hessian (for a sum of squares $J^\top r$ and
$J^\top J$). The model is trusted where $\|D p\| \le \Delta$. One `advance` measures the
loss at the trial point that the last one proposed, accepts or refuses it, proposes the
next, and tells where the fit ends.

Example:
  >>> from phihat.second_order import trust_region as _trust_region
  >>> from phihat._core.tree import Static
  >>> state = _trust_region.init(Static("newton"), Static(True), {"a": 1.0})
  >>> state.measures_itself, int(state.status)
  (True, 0)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int, PyTree

from phihat import products
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Box, Params, Status
from phihat._linalg import dense_hessian as _dense
from phihat._linalg import small as _small
from phihat.second_order.subproblem import Bounds, Proposal, Solver, search_step

__all__ = [
    "Curvature",
    "Method",
    "Model",
    "Point",
    "Shape",
    "Space",
    "TrustRegionState",
    "advance",
    "as_radius",
    "if_any_lane",
    "if_not_mapped",
    "init",
    "bend_densely",
    "locate",
    "look_if",
    "flat_value_fn",
    "judge_curvature",
    "lowest_curvature",
    "relative_slopes",
    "search_densely",
    "spacing",
]

Vector = Float[Array, " P"]
Matrix = Float[Array, "P P"]
Scalar = Float[Array, ""]
Flag = Bool[Array, ""]

_UNCHECKED, _CHECKED, _NEGATIVE = 0, 1, 2


class TrustRegionState(NamedTuple):
    """What the second-order optimizers carry: the accepted point, and what is next.

    The first update measures the loss at the params and does not move; each later one
    measures one trial point, and accepts or refuses it.

    Attributes:
      value: the loss at the accepted point, [].
      gradient: its gradient there, like the params, at least float32.
      radius: the length of step that the model is trusted for, in its own scale, [].
      gain: the fall of the last trial over the fall that the model promised, [].
      status: a `Status`, int32 []: RUNNING; CONVERGED at a minimum; STALLED where no
        step lowers the loss although the gradient promises it; NONFINITE_LOSS or
        NONFINITE_GRADIENT where the first point is not finite.
      counts: trials; accepted trials; steps along negative curvature; whether the
        accepted point is measured; what is known of its curvature. int32 [5].
      promises: of the next trial the fall and its length; the slope; the part of a
        fall that the loss cannot show; the first slope; [5].
      half_hessian: the curvature of the model, [P, P]; [0, 0] where only products are
        used.
      points: the accepted point; the params that a loop carries after the last update;
        half the gradient; the scale D; the next trial; [5, P].
    """

    value: Scalar
    gradient: PyTree
    radius: Scalar
    gain: Scalar
    status: Int[Array, ""]
    counts: Int[Array, " 5"]
    promises: Float[Array, " 5"]
    half_hessian: Matrix
    points: Float[Array, "5 P"]

    measures_itself = True

    @property
    def step(self) -> Int[Array, ""]:
        """The number of trials so far."""
        return self.counts[..., 0]

    @property
    def num_escapes(self) -> Int[Array, ""]:
        """The number of steps along negative curvature."""
        return self.counts[..., 2]

    @property
    def curvature_checked(self) -> Flag:
        """Whether the curvature of the loss at the accepted point was looked at."""
        return self.counts[..., 4] != _UNCHECKED

    @property
    def negative_curvature(self) -> Flag:
        """Whether it is clearly negative there, so that this is not a minimum."""
        return self.counts[..., 4] == _NEGATIVE

    def accepted(self, params: Params) -> Params:
        """Return the accepted point, exactly, as a pytree like `params`."""
        return products.flatten(params)[1](self.points[0])

    def stale(self) -> "TrustRegionState":
        """Return the state as unmeasured: the next update measures and does not move."""
        return self._replace(
            status=jnp.full_like(self.status, Status.RUNNING),
            counts=self.counts.at[..., 3].set(0),
        )


class Point(NamedTuple):
    """The loss at a point, half its gradient b [P], and half its Hessian A [P, P]."""

    value: Scalar
    half_gradient: Vector
    half_hessian: Matrix


class Shape(NamedTuple):
    """The curvature A of the model, scaled.

    Attributes:
      multiply: `v [P] -> A v`.
      diagonal: the sizes of its diagonal, or of what stands for them, [P].
      factors: what the search for a step needs.
    """

    multiply: Callable[[Vector], Vector]
    diagonal: Vector
    factors: Any


class Model(NamedTuple):
    """The quadratic model at the accepted point.

    Attributes:
      here: the loss, its gradient and curvature.
      point: the accepted point, [P].
      scale: D, [P], positive.
      slopes: b in the scale of D, and zero for params that are held at a bound.
      free: the params that may move, bool [P], or None for all.
      room: how far each may move down and up in the scale of D, or None.
      shape: the curvature in the scale of D.
      noise: the part of a fall that the loss cannot show for rounding, [].
    """

    here: Point
    point: Vector
    scale: Vector
    slopes: Vector
    free: Any
    room: Bounds | None
    shape: Shape
    noise: Scalar


class Curvature(NamedTuple):
    """The lowest curvature of the loss over the free params.

    Attributes:
      is_checked: whether it was looked at.
      is_negative: whether it is clearly negative.
      lowest: half of it, per squared length in the scale of D.
      direction: its direction, of length one in the scale of D, [P].
    """

    is_checked: Flag
    is_negative: Flag
    lowest: Scalar
    direction: Vector


class Method(NamedTuple):
    """What each optimizer does in its own way.

    Attributes:
      measure: `point [P] -> (Point, eps)`, with eps the spacing of the numbers that
        the loss is computed in.
      rescale: `(last D, Point, point) -> D`, where zeros count as one.
      bend: `(Point, point, D, free) -> Shape`.
      search: `(Model, radius, first slope) -> Proposal`.
      first_radius: `Model -> radius`.
      steepness: `Model -> [P]`, how steep the loss is along each param, free of units.
      roughness: `Model -> [P]`, what a relative change of one in each param does to the
        root of the loss.
      look: `(is_due, Model) -> Curvature`.
      max_escapes: steps along negative curvature in one fit.
    """

    measure: Callable[[Vector], tuple[Point, float]]
    rescale: Callable[[Vector, Point, Vector], Vector]
    bend: Callable[[Point, Vector, Vector, Any], Shape]
    search: Callable[[Model, Scalar, Scalar], Proposal]
    first_radius: Callable[[Model], Scalar]
    steepness: Callable[[Model], Vector]
    roughness: Callable[[Model], Vector]
    look: Callable[[Flag, Model], Curvature]
    max_escapes: int


class Space(NamedTuple):
    """The params as a vector, the way back, and the box.

    Attributes:
      vector: the params, [P].
      unflatten: from a vector to params.
      bounds: the ends of the box, or None.
      eps: the spacing of each param's numbers, a float or [P].
      is_mixed: whether leaves have less precise dtypes than the vector.
    """

    vector: Vector
    unflatten: Callable[[Vector], Params]
    bounds: Bounds | None
    eps: Any
    is_mixed: bool

    def round(self, point: Vector) -> Vector:
        """Round to the dtypes of the leaves, so that the params hold it exactly."""
        return products.flatten(self.unflatten(point))[0] if self.is_mixed else point

    def clip(self, point: Vector) -> Vector:
        """Move into the box."""
        return point if self.bounds is None else jnp.clip(point, *self.bounds)

    def free(self, point: Vector, half_gradient: Vector) -> Any:
        """Tell which params may move; those at a bound may not leave the box."""
        if self.bounds is None:
            return None
        low, high = self.bounds
        is_held = (point <= low) & (half_gradient > 0)
        is_held |= (point >= high) & (half_gradient < 0)
        return ~(is_held | (low >= high))

    def is_same(self, point: Vector, other: Vector) -> Flag:
        """Tell whether two points are equal but for rounding."""
        return jnp.all(jnp.abs(point - other) <= 2 * self.eps * jnp.abs(other))


# ----------------------------------------------------------------- params and vectors


def as_radius(call: str, initial_radius: Any) -> Any:
    """Check the radius of the first step; None stays None."""
    if initial_radius is None:
        return None
    radius = _tree.as_number(initial_radius, call, "initial_radius")
    _checks.check_range(call, "initial_radius", radius, low=0.0, include_low=False)
    return radius


def init(
    call: _tree.Static, is_dense: _tree.Static, params: Params
) -> TrustRegionState:
    """Return the state that has measured nothing."""
    _checks.check_float_leaves(call.value, "params", params)
    vector, _ = products.flatten(params)
    size, dtype = vector.shape[0], vector.dtype
    num_rows = size if is_dense.value else 0
    _dense.check_size(call.value, "Hessian", num_rows, vector)
    return TrustRegionState(
        value=jnp.zeros((), dtype),
        gradient=jax.tree.map(
            lambda leaf: jnp.zeros(jnp.shape(leaf), _tree.accumulator_dtype(leaf)),
            params,
        ),
        radius=jnp.zeros((), dtype),
        gain=jnp.zeros((), dtype),
        status=jnp.zeros((), jnp.int32),
        counts=jnp.zeros(5, jnp.int32),
        promises=jnp.zeros(5, dtype),
        half_hessian=jnp.zeros((num_rows, num_rows), dtype),
        points=jnp.zeros((5, size), dtype),
    )


def locate(call: str, params: Params | None, box: Box | None) -> Space:
    """Lay the params and their bounds out as vectors."""
    params = _checks.check_extra(call, "params", params, "the point to step from")
    is_hidden = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    if any(is_hidden(node) for node in jax.tree.leaves(params, is_leaf=is_hidden)):
        raise ValueError(
            f"{call}: `optax.masked` or `optax.partition` hides some of the params, "
            "without which the loss cannot be evaluated; give it all params and hold "
            "those that must not move by a Box with low == high."
        )
    vector, unflatten = products.flatten(params)
    leaves = jax.tree.leaves(params)
    dtypes = [jnp.result_type(leaf) for leaf in leaves]
    spacings = [float(jnp.finfo(dtype).eps) for dtype in dtypes]
    eps: Any = spacings[0]
    if len(set(spacings)) > 1:
        sizes = [jnp.size(leaf) for leaf in leaves]
        eps = jnp.asarray(np.repeat(spacings, sizes), vector.dtype)
    return Space(
        vector=vector,
        unflatten=unflatten,
        bounds=None if box is None else _flat_bounds(box, params, vector.dtype),
        eps=eps,
        is_mixed=any(dtype != vector.dtype for dtype in dtypes),
    )


def _flat_bounds(box: Box, params: Params, dtype: Any) -> Bounds:
    def flat(end: PyTree) -> Vector:
        if jax.tree_util.all_leaves([end]) and jnp.ndim(end) == 0:
            end = jax.tree.map(lambda _: end, params)
        full = jax.tree.map(
            lambda leaf, bound: jnp.broadcast_to(
                jnp.asarray(bound).astype(jnp.result_type(leaf)), jnp.shape(leaf)
            ),
            params,
            end,
        )
        return products.flatten(full)[0].astype(dtype)

    return Bounds(flat(box.low), flat(box.high))


def flat_value_fn(
    loss_fn: Callable[[Params], Any], space: Space
) -> Callable[[Vector], tuple[Scalar, Array]]:
    """Return the loss of a vector, in the dtype of the vector and in its own."""

    def flat_fn(vector: Vector) -> tuple[Scalar, Array]:
        value = jnp.asarray(loss_fn(space.unflatten(vector)))
        return value.astype(vector.dtype), value

    return flat_fn


def spacing(*arrays: Array) -> float:
    """Return the spacing of the coarsest of these numbers."""
    return max(float(jnp.finfo(array.dtype).eps) for array in arrays)


# ------------------------------------------------------------------------ one update


def advance(
    method: Method,
    space: Space,
    state: TrustRegionState,
    *,
    initial_radius: Any,
    tolerance: Any,
) -> tuple[PyTree, TrustRegionState]:
    """Measure the trial, accept or refuse it, propose the next, and judge the end."""
    last, carried, last_half_gradient, last_scale, trial = state.points
    is_known = state.counts[3] > 0
    is_known &= space.is_same(space.vector, last) | space.is_same(space.vector, carried)
    point = jnp.where(is_known, trial, space.clip(space.vector))
    found, eps = method.measure(point)
    verdict = _judge(space, state, point, found, eps, is_known)

    before = Point(state.value, last_half_gradient, state.half_hessian)
    here = _tree.select(verdict.is_new, found, before)
    point = jnp.where(verdict.is_new, point, last)
    scale = jnp.where(
        verdict.is_new, method.rescale(last_scale, found, point), last_scale
    )
    model = _build(method, space, here, point, scale, eps)
    # A radius of zero was never set.
    first = initial_radius
    if initial_radius is None:
        first = method.first_radius(model)
    radius = jnp.where(
        state.radius > 0, verdict.radius, jnp.asarray(first).astype(scale.dtype)
    )
    slope = _small.norm(model.slopes)
    first_slope = jnp.where(state.radius > 0, state.promises[4], slope)
    proposal = method.search(model, radius, first_slope)
    trial = _land(space, model, proposal.step, proposal.hits)
    promise = _promise(model, trial)
    ends = _find_end(
        method, space, state, model, verdict, eps, promise, proposal, tolerance
    )
    is_over = (ends.is_converged | ends.is_stuck) & jnp.isfinite(promise.fall)
    curvature = method.look(is_over, model)
    away = _leave(space, model, curvature, radius, eps)
    is_negative = is_over & curvature.is_negative
    leaves = is_negative & (state.counts[2] < method.max_escapes)
    leaves &= away.fall > model.noise
    trial = jnp.where(leaves, away.trial, trial)
    status = _status(verdict, ends, here.value, leaves=leaves, is_negative=is_negative)

    updates = jax.tree.map(
        jnp.subtract, space.unflatten(point), space.unflatten(space.vector)
    )
    moved = jax.tree.map(jnp.add, space.unflatten(space.vector), updates)
    knowledge = curvature.is_checked.astype(jnp.int32)
    counts = [
        state.counts[0] + is_known.astype(jnp.int32),
        state.counts[1] + verdict.is_good.astype(jnp.int32),
        state.counts[2] + leaves.astype(jnp.int32),
        jnp.ones((), jnp.int32),
        jnp.where(curvature.is_negative, _NEGATIVE, knowledge),
    ]
    promises = [
        jnp.where(leaves, away.fall, promise.fall),
        jnp.where(leaves, away.length, promise.length),
        slope,
        model.noise,
        first_slope,
    ]
    return updates, TrustRegionState(
        value=here.value,
        gradient=products.flatten(state.gradient)[1](2 * here.half_gradient),
        radius=radius,
        gain=verdict.gain,
        status=status,
        counts=jnp.stack(counts),
        promises=jnp.stack(promises),
        half_hessian=here.half_hessian,
        points=jnp.stack(
            [point, products.flatten(moved)[0], here.half_gradient, scale, trial]
        ),
    )


class _Verdict(NamedTuple):
    """What the measured trial showed.

    Attributes:
      is_known: whether it was a trial, and not the first measurement of a point.
      is_good: whether it was a trial that is accepted.
      is_new: whether the point measured becomes the accepted one.
      is_finite: whether the loss and its derivatives were finite there.
      is_still: whether it was the accepted point itself but for rounding.
      falls: whether the loss fell by a fair share of what was promised, visibly.
      fall: by how much it fell.
      gain: over what was promised.
      radius: what is trusted from now on.
    """

    is_known: Flag
    is_good: Flag
    is_new: Flag
    is_finite: Flag
    is_still: Flag
    falls: Flag
    fall: Scalar
    gain: Scalar
    radius: Scalar


def _judge(
    space: Space,
    state: TrustRegionState,
    point: Vector,
    found: Point,
    eps: float,
    is_known: Flag,
) -> _Verdict:
    predicted, length, slope, noise, _ = state.promises
    is_finite = jnp.isfinite(found.value) & jnp.all(jnp.isfinite(found.half_gradient))
    is_finite &= jnp.all(jnp.isfinite(found.half_hessian))
    fall = state.value - found.value
    is_still = space.is_same(point, state.points[0])
    falls = (predicted > noise) & (fall >= 1e-4 * predicted)
    # Where the loss is all rounding, the slope tells which of two points is better.
    near = eps ** (2 / 3) * jnp.abs(state.value) + noise
    slopes = found.half_gradient / _positive(state.points[3])
    free = space.free(point, found.half_gradient)
    if free is not None:
        slopes = jnp.where(free, slopes, 0.0)
    is_flatter = _small.norm(slopes) < 0.9 * slope
    is_close = jnp.maximum(predicted, jnp.abs(fall)) <= near
    is_good = is_known & is_finite & ~is_still & (falls | (is_close & is_flatter))
    gain = jnp.where(
        is_known & is_finite, fall / jnp.where(predicted > 0, predicted, 1.0), 0.0
    )
    is_long = length >= 0.9 * state.radius
    wider = jnp.where((gain > 0.75) & is_long, 2.0, 1.0) * state.radius
    after_fall = jnp.where(gain < 0.25, 0.5 * length, wider)
    after_good = jnp.where(falls, after_fall, state.radius)
    after_bad = 0.25 * jnp.minimum(state.radius, length)
    radius = jnp.where(is_good, after_good, after_bad)
    tiny = float(jnp.finfo(radius.dtype).tiny)
    return _Verdict(
        is_known=is_known,
        is_good=is_good,
        is_new=is_good | ~is_known,
        is_finite=is_finite,
        is_still=is_still,
        falls=falls,
        fall=fall,
        gain=gain,
        radius=jnp.maximum(jnp.where(is_known, radius, state.radius), tiny),
    )


def _build(
    method: Method, space: Space, here: Point, point: Vector, scale: Vector, eps: float
) -> Model:
    scale = _positive(scale)
    free = space.free(point, here.half_gradient)
    slopes = here.half_gradient / scale
    room = None
    if space.bounds is not None:
        slopes = jnp.where(free, slopes, 0.0)
        room = Bounds(*((end - point) * scale for end in space.bounds))
    model = Model(
        here=here,
        point=point,
        scale=scale,
        slopes=slopes,
        free=free,
        room=room,
        shape=method.bend(here, point, scale, free),
        noise=jnp.zeros_like(here.value),
    )
    rough = space.eps * method.roughness(model)
    return model._replace(noise=4 * eps * jnp.abs(here.value) + jnp.sum(rough * rough))


def bend_densely(
    solver: Solver, here: Point, point: Vector, scale: Vector, free: Any
) -> Shape:
    """Scale a dense Hessian and prepare its systems."""
    del point
    matrix = here.half_hessian / (scale[:, None] * scale[None, :])
    return Shape(
        multiply=lambda vector: _small.matmul(matrix, vector),
        diagonal=jnp.abs(jnp.diagonal(matrix)),
        factors=(matrix, solver.prepare(matrix, free)),
    )


def search_densely(
    solver: Solver, model: Model, radius: Scalar, first_slope: Scalar
) -> Proposal:
    """Search the step of a model whose Hessian is dense."""
    del first_slope
    matrix, factors = model.shape.factors
    return search_step(
        solver,
        factors,
        matrix,
        model.slopes,
        radius,
        free=model.free,
        room=model.room,
    )


def relative_slopes(model: Model) -> Vector:
    """Return the relative change of the loss for a relative change of each param."""
    slopes = 2 * jnp.abs(model.here.half_gradient) / model.scale
    size = jnp.abs(model.here.value)
    steep = jnp.where(size > 0, slopes / jnp.where(size > 0, size, 1.0), jnp.inf)
    return jnp.where(slopes > 0, steep, 0.0)


class _Promise(NamedTuple):
    """What a trial promises: the fall of the loss, and the length of the step."""

    trial: Vector
    fall: Scalar
    length: Scalar


def _land(space: Space, model: Model, step: Vector, hits: Any) -> Vector:
    """Return the trial point, with params that meet a bound on exactly that bound."""
    trial = space.clip(space.round(model.point + step / model.scale))
    if hits is None or space.bounds is None:
        return trial
    low, high = space.bounds
    return jnp.where(hits, jnp.where(step < 0, low, high), trial)


def _promise(model: Model, trial: Vector) -> _Promise:
    """Return what the model promises for the step as it is, rounding included."""
    step = (trial - model.point) * model.scale
    # The slopes of params that are held meet steps of zero.
    fall = -jnp.sum(step * (2 * model.slopes + model.shape.multiply(step)))
    return _Promise(trial, fall, _small.norm(step))


def _leave(
    space: Space, model: Model, curvature: Curvature, radius: Scalar, eps: float
) -> _Promise:
    """Return a step along the lowest curvature, long enough for a fall that shows."""
    lowest = jnp.where(curvature.is_negative, curvature.lowest, -1.0)
    visible = 20 * eps ** (2 / 3) * jnp.abs(model.here.value) + 4 * model.noise
    wanted = jnp.maximum(radius, jnp.sqrt(-visible / lowest))
    slope = jnp.sum(model.slopes * curvature.direction)

    def go(sign: Any) -> tuple[Scalar, Scalar]:
        length = wanted
        if model.room is not None:
            # Towards the first bound on this way.
            move = sign * curvature.direction
            end = jnp.where(move > 0, model.room.high, model.room.low)
            is_moving = jnp.abs(move) > 0
            share = jnp.where(is_moving, end / jnp.where(is_moving, move, 1.0), jnp.inf)
            length = jnp.minimum(wanted, jnp.min(share))
        return length, -length * (2 * sign * slope + lowest * length)

    (ahead, fall_ahead), (back, fall_back) = go(1.0), go(-1.0)
    is_ahead = fall_ahead >= fall_back
    length = jnp.where(is_ahead, ahead, -back)
    trial = _land(space, model, length * curvature.direction, None)
    return _Promise(trial, jnp.maximum(fall_ahead, fall_back), jnp.abs(length))


# -------------------------------------------------------------------------- the ends


class _End(NamedTuple):
    """Whether a fit ends at the accepted point: at a minimum, or where it is stuck."""

    is_converged: Flag
    is_stuck: Flag


def _find_end(
    method: Method,
    space: Space,
    state: TrustRegionState,
    model: Model,
    verdict: _Verdict,
    eps: float,
    promise: _Promise,
    proposal: Proposal,
    tolerance: Any,
) -> _End:
    limits = _limits(tolerance, model.slopes.dtype)
    predicted, length = state.promises[0], state.promises[1]
    size = jnp.abs(model.here.value)
    steepness = method.steepness(model)
    if model.free is not None:
        steepness = jnp.where(model.free, steepness, 0.0)
    steepest = jnp.max(steepness)
    own_size = model.scale * jnp.abs(model.point)

    is_converged = verdict.is_new & (steepest <= limits.gradient)
    is_small = jnp.maximum(verdict.fall, predicted) <= limits.loss * size
    is_small &= verdict.falls & (state.counts[1] > 0) & (verdict.gain <= 2)
    is_small |= length <= limits.params * _small.norm(own_size)
    is_converged |= verdict.is_good & is_small
    # The precision of the numbers; trials go on while they make the slope flatter, or
    # until the next would change nothing of note.
    undamped = proposal.undamped
    is_noise = -jnp.sum(model.slopes * undamped) <= model.noise
    is_noise |= jnp.all(jnp.abs(undamped) <= 2 * space.eps * own_size)
    is_bad = verdict.is_known & ~verdict.is_good
    is_tiny = _small.norm(undamped) <= eps ** (2 / 3) * _small.norm(own_size)
    is_converged |= is_noise & (is_bad | (verdict.is_known & is_tiny))

    is_stuck = is_bad & (verdict.is_still | (predicted <= state.promises[3]))
    is_stuck |= ~(promise.fall > 0)
    # What no step improves is a minimum if no param alone promises anything of note.
    limit = model.shape.diagonal * (eps * size + 16 * model.noise)
    alone = jnp.square(model.slopes) <= limit
    is_converged |= is_stuck & (is_noise | jnp.all(alone))
    return _End(is_converged, is_stuck & ~is_converged)


class _Limits(NamedTuple):
    gradient: Scalar
    loss: Scalar
    params: Scalar


def _limits(tolerance: Any, dtype: Any) -> _Limits:
    """Read a tolerance as the limits of relative quantities; what is absent is zero."""

    def largest(*names: str) -> Scalar:
        given = (getattr(tolerance, name, None) for name in names)
        limit = jnp.zeros((), dtype)
        for value in given:
            if value is not None:
                limit = jnp.maximum(limit, jnp.asarray(value).astype(dtype))
        return limit

    def relative(name: str) -> Scalar:
        if getattr(tolerance, name, None) is None:
            return jnp.zeros((), dtype)
        return largest(name, "relative")

    return _Limits(
        gradient=largest("gradient", "relative_gradient"),
        loss=relative("loss"),
        params=relative("params"),
    )


def _status(
    verdict: _Verdict, ends: _End, value: Scalar, *, leaves: Flag, is_negative: Flag
) -> Int[Array, ""]:
    def code(status: Status) -> Int[Array, ""]:
        return jnp.asarray(status, jnp.int32)

    is_converged = ends.is_converged & ~is_negative
    is_stalled = ends.is_stuck | (ends.is_converged & is_negative & ~leaves)
    status = jnp.where(is_stalled & ~leaves, code(Status.STALLED), code(Status.RUNNING))
    status = jnp.where(is_converged, code(Status.CONVERGED), status)
    failed = jnp.where(
        jnp.isfinite(value),
        code(Status.NONFINITE_GRADIENT),
        code(Status.NONFINITE_LOSS),
    )
    return jnp.where(~verdict.is_known & ~verdict.is_finite, failed, status)


# ------------------------------------------------------------------------- curvature


def look_if(is_due: Flag, look: Callable[[], Curvature], model: Model) -> Curvature:
    """Look at the curvature where it is due, else say that nobody did."""

    def skip() -> Curvature:
        no = jnp.zeros((), bool)
        return Curvature(
            no, no, jnp.zeros_like(model.noise), jnp.zeros_like(model.slopes)
        )

    return jax.lax.cond(is_due, look, skip)


def lowest_curvature(half_hessian: Matrix, model: Model) -> Curvature:
    """Return the lowest curvature over the free params, free of their units."""
    if model.free is not None:
        free = model.free[:, None] & model.free[None, :]
        half_hessian = jnp.where(free, half_hessian, 0.0)
    scale = _dense.equilibrate(half_hessian)
    scaled = half_hessian / (scale[:, None] * scale[None, :])
    values, vectors = jnp.linalg.eigh(scaled)
    own_size = scale * jnp.where(model.point == 0, 1.0, model.point)
    return judge_curvature(
        model,
        values[0],
        vectors[:, 0] / scale,
        jnp.max(jnp.abs(values)),
        own_size,
    )


def judge_curvature(
    model: Model, lowest: Scalar, direction: Vector, largest: Scalar, own_size: Vector
) -> Curvature:
    """Tell whether a curvature is clearly negative.

    It must be so beyond the rounding of the Hessian and beyond that of the loss: far
    out on a plain the Hessian is negative in the 100th digit.

    Args:
      model: the model at the accepted point.
      lowest: half the lowest curvature, in a scale of its own.
      direction: its direction, in the units of the params, of length one in that scale.
      largest: the size of the largest curvature in that scale.
      own_size: the params in that scale.
    """
    eps = float(jnp.finfo(lowest.dtype).eps)
    is_negative = lowest < -(eps ** (2 / 3)) * largest
    is_negative &= -lowest * jnp.sum(own_size**2) > eps * jnp.abs(model.here.value)
    direction = direction * model.scale
    length = _positive(_small.norm(direction))
    return Curvature(
        is_checked=jnp.ones((), bool),
        is_negative=is_negative,
        lowest=lowest / (length * length),
        direction=direction / length,
    )


@custom_vmap
def if_not_mapped(flag: Flag) -> Flag:
    """Return the flag, and False under vmap, where both branches would be computed."""
    return flag


@if_not_mapped.def_vmap
def _never(size: int, is_mapped: Any, flag: Flag) -> tuple[Flag, bool]:
    del size, is_mapped, flag
    return jnp.zeros((), bool), False


@custom_vmap
def if_any_lane(flag: Flag) -> Flag:
    """Return the flag, and under vmap whether it is set in any lane."""
    return flag


@if_any_lane.def_vmap
def _any(size: int, is_mapped: Any, flag: Flag) -> tuple[Flag, bool]:
    del size, is_mapped
    return if_any_lane(jnp.any(flag)), False


def _positive(scale: Vector) -> Vector:
    return jnp.where(scale > 0, scale, 1.0)

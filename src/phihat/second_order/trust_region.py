r"""Trust regions that measure themselves: one trial is measured, judged, and followed.

One `advance` measures the loss at the trial point that the last one proposed, accepts
or refuses it, proposes the next from the quadratic model at the accepted point, which
is trusted where $\|D p\| \le \Delta$, and tells where the fit ends.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from phihat import products
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Params, Status
from phihat._linalg import dense_hessian as _dense
from phihat._linalg import small as _small
from phihat.second_order import negative_curvature as _negative_curvature
from phihat.second_order.flat_params import Space
from phihat.second_order.negative_curvature import Curvature
from phihat.second_order.quadratic_model import (
    Model,
    Point,
    PredictedStep,
    ScaledHessian,
    positive,
    predict_step,
    trial_point,
)
from phihat.second_order.subproblem import Bounds, Proposal
from phihat.second_order.termination import (
    Termination,
    TrialResult,
    check_termination,
    next_radius,
    status_of,
)

__all__ = ["Method", "TrustRegionState", "advance", "as_radius", "init"]

Vector = Float[Array, " P"]
Matrix = Float[Array, "P P"]
Scalar = Float[Array, ""]
Flag = Bool[Array, ""]

_UNCHECKED, _NEGATIVE = 0, 2
"""What is known of the curvature of the loss at the accepted point."""


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
        accepted point is measured; what is known of its curvature (0 not looked at, 1
        not clearly negative, 2 negative). int32 [5].
      promises: of the next trial the fall and its length; the slope; the part of a
        fall that the loss cannot show; the first slope; whether the trial is the best
        that the model can find. [6].
      half_hessian: half the Hessian of the model, [P, P]; [0, 0] where only products
        are used.
      points: the accepted point; the params that a loop carries after the last update;
        half the gradient; the scale D; the next trial. [5, P].
    """

    value: Scalar
    gradient: PyTree
    radius: Scalar
    gain: Scalar
    status: Int[Array, ""]
    counts: Int[Array, " 5"]
    promises: Float[Array, " 6"]
    half_hessian: Matrix
    points: Float[Array, "5 P"]

    measures_itself = True

    @property
    def step(self) -> Int[Array, ""]:
        """The number of trials so far."""
        return self.counts[..., 0]

    @property
    def is_measured(self) -> Flag:
        """Whether the loss at the accepted point is known."""
        return self.counts[..., 3] > 0

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
        """Return the state as unmeasured: the next update measures, and stays."""
        return self._replace(
            status=jnp.full_like(self.status, Status.RUNNING),
            counts=self.counts * jnp.asarray([1, 1, 1, 0, 1], jnp.int32),
        )


class Method(NamedTuple):
    """What each optimizer does in its own way.

    Attributes:
      measure: `point [P] -> (Point, eps)`, with eps the spacing of the numbers that
        the loss is computed in.
      rescale: `(last D, Point, point) -> D`, where zeros count as one.
      scale_hessian: `(Point, point, D, free) -> ScaledHessian`.
      search: `(Model, radius, forcing) -> Proposal`; an iterative search may leave the
        share `forcing` of the slope.
      first_radius: `Model -> radius`.
      relative_gradient: `Model -> [P]`, how steep the loss is along each param, free
        of units.
      rounding_sensitivity: `Model -> [P]`, what a relative change of one in each
        param does to the root of the loss.
      check_curvature: `(is_due, Model) -> Curvature`.
      max_escapes: steps along negative curvature in one fit that are as short as can
        be; longer ones are not limited.
      is_exact: whether `search` always finds the best step.
    """

    measure: Callable[[Vector], tuple[Point, float]]
    rescale: Callable[[Vector, Point, Vector], Vector]
    scale_hessian: Callable[[Point, Vector, Vector, Any], ScaledHessian]
    search: Callable[[Model, Scalar, Any], Proposal]
    first_radius: Callable[[Model], Any]
    relative_gradient: Callable[[Model], Vector]
    rounding_sensitivity: Callable[[Model], Vector]
    check_curvature: Callable[[Flag, Model], Curvature]
    max_escapes: int
    is_exact: bool = True


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
        promises=jnp.zeros(6, dtype),
        half_hessian=jnp.zeros((num_rows, num_rows), dtype),
        points=jnp.zeros((5, size), dtype),
    )


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
    verdict, scale, model, eps = _measure_trial(method, space, state)
    here, point = model.here, model.point
    first = method.first_radius(model) if initial_radius is None else initial_radius
    was_set = state.radius > 0
    radius = jnp.where(was_set, verdict.radius, jnp.asarray(first).astype(scale.dtype))
    first_slope = jnp.where(was_set, state.promises[4], model.slope)
    proposal, following, is_exact = _propose(
        method, space, state, model, radius, first_slope, eps
    )
    escape = _check_end(
        method,
        space,
        state,
        model,
        verdict,
        proposal,
        following,
        eps=eps,
        tolerance=tolerance,
        radius=radius,
    )
    following = _tree.select(escape.leaves, escape.step, following)
    promises = [
        following.fall,
        following.length,
        model.slope,
        model.noise,
        first_slope,
        (escape.leaves | is_exact).astype(scale.dtype),
    ]
    params = space.unflatten(space.vector)
    updates = jax.tree.map(jnp.subtract, space.unflatten(point), params)
    moved = products.flatten(jax.tree.map(jnp.add, params, updates))[0]
    return updates, TrustRegionState(
        value=here.value,
        gradient=products.flatten(state.gradient)[1](2 * here.half_gradient),
        radius=radius,
        gain=verdict.gain,
        status=escape.status,
        counts=_count(state, verdict, escape),
        promises=jnp.stack(promises),
        half_hessian=here.half_hessian,
        points=jnp.stack([point, moved, here.half_gradient, scale, following.trial]),
    )


def _measure_trial(
    method: Method, space: Space, state: TrustRegionState
) -> tuple[TrialResult, Vector, Model, float]:
    """Measure the trial, and make the model at the point that is then accepted."""
    last, carried, last_half_gradient, last_scale, trial = state.points
    is_known = state.counts[3] > 0
    is_known &= space.is_same(space.vector, last) | space.is_same(space.vector, carried)
    point = jnp.where(is_known, trial, space.clip(space.vector))
    found, eps = method.measure(point)
    verdict = _judge_trial(space, state, point, found, eps, is_known)
    is_new = verdict.is_new
    before = Point(state.value, last_half_gradient, state.half_hessian)
    here = _tree.select(is_new, found, before)
    point = jnp.where(is_new, point, last)
    scale = jnp.where(is_new, method.rescale(last_scale, found, point), last_scale)
    return verdict, scale, _build(method, space, here, point, scale, eps), eps


def _count(
    state: TrustRegionState, verdict: TrialResult, escape: "_Escape"
) -> Int[Array, " 5"]:
    """Count the trial, and tell what is known of the curvature."""
    trials = [verdict.is_known, verdict.is_good, escape.leaves]
    trials = jnp.stack(trials).astype(jnp.int32)
    # Negative curvature was looked at, and counts as two.
    seen = escape.curvature.is_checked.astype(jnp.int32)
    seen += escape.curvature.is_negative.astype(jnp.int32)
    counts = [state.counts[:3] + trials, jnp.stack([jnp.ones_like(seen), seen])]
    return jnp.concatenate(counts)


def _propose(
    method: Method,
    space: Space,
    state: TrustRegionState,
    model: Model,
    radius: Scalar,
    first_slope: Scalar,
    eps: float,
) -> tuple[Proposal, PredictedStep, Flag]:
    """Return the next step, what it promises, and whether it is the best there is."""
    forcing, is_exact = None, jnp.ones((), bool)
    if not method.is_exact:
        forcing = _forcing(state, model, first_slope, eps)
        is_exact = forcing <= eps**0.5
    proposal = method.search(model, radius, forcing)
    trial = trial_point(space, model, proposal.step, proposal.sides)
    return proposal, predict_step(model, trial), is_exact


def _forcing(
    state: TrustRegionState, model: Model, first_slope: Scalar, eps: float
) -> Scalar:
    """Return the share of the slope that an iterative search may leave."""
    # Near the end the search must be exact, or it would not see what is left.
    is_near = (state.radius > 0) & (state.promises[0] <= 1e3 * state.promises[3])
    share = model.slope / positive(first_slope)
    return jnp.where(is_near, eps**0.5, jnp.minimum(0.1, jnp.sqrt(share)))


class _Escape(NamedTuple):
    """What was found where a fit would end.

    Attributes:
      status: of the fit at the accepted point.
      curvature: the lowest there.
      leaves: whether it goes on along negative curvature.
      step: the step that it then takes.
    """

    status: Int[Array, ""]
    curvature: Curvature
    leaves: Flag
    step: PredictedStep


def _check_end(
    method: Method,
    space: Space,
    state: TrustRegionState,
    model: Model,
    verdict: TrialResult,
    proposal: Proposal,
    following: PredictedStep,
    *,
    eps: float,
    tolerance: Any,
    radius: Scalar,
) -> _Escape:
    """Tell whether the fit ends, or leaves along negative curvature."""
    end = check_termination(
        space,
        model,
        verdict,
        proposal,
        following,
        eps=eps,
        relative_gradient=method.relative_gradient(model),
        tolerance=tolerance,
    )
    is_finite = jnp.isfinite(model.here.value)
    is_over = (end.is_converged | end.is_stuck) & is_finite
    curvature = method.check_curvature(is_over, model)
    is_negative = is_over & curvature.is_negative
    # Where residuals stay, J'J may miss the curvature that makes a point a minimum.
    is_minimum = curvature.rest <= model.visible
    end = Termination(end.is_converged | (end.is_stuck & is_minimum), end.is_stuck)
    away = _negative_curvature.escape_step(space, model, curvature, radius, eps)
    # A trial that was refused for its length is tried again, and shorter.
    leaves = (state.counts[2] < method.max_escapes) | (away.length <= radius)
    leaves &= is_negative
    leaves &= away.fall > model.noise
    status = status_of(verdict, end, is_finite, leaves=leaves, is_negative=is_negative)
    return _Escape(status, curvature, leaves, away)


def _judge_trial(
    space: Space,
    state: TrustRegionState,
    point: Vector,
    found: Point,
    eps: float,
    is_known: Flag,
) -> TrialResult:
    """Accept or refuse the trial, and widen or narrow the region."""
    predicted, length, slope, noise, _, is_exact = state.promises
    is_finite = jnp.isfinite(found.value)
    is_finite &= jnp.all(jnp.isfinite(found.half_gradient))
    is_finite &= jnp.all(jnp.isfinite(found.half_hessian))
    fall = state.value - found.value
    is_still = space.is_same(point, state.points[0])
    falls = (predicted > noise) & (fall >= 1e-4 * predicted)
    # Where the loss is all rounding, the slope tells which of two points is better.
    slopes = found.half_gradient / positive(state.points[3])
    free = space.free(point, found.half_gradient)
    if free is not None:
        slopes = jnp.where(free, slopes, 0.0)
    is_flatter = _small.norm(slopes) < 0.9 * slope
    # Residuals r that are differences of larger numbers, each rounded by d, change r.r
    # by 2 r.d + d.d; the noise holds d.d alone, since the slopes see below the rest.
    size = jnp.abs(state.value)
    rough = jnp.sqrt(size * jnp.abs(noise - 4 * eps * size))
    near = eps ** (2 / 3) * size + 2 * rough + noise
    is_flatter &= jnp.maximum(predicted, jnp.abs(fall)) <= near
    is_good = is_known & is_finite & ~is_still & (falls | is_flatter)

    is_sound = is_known & is_finite & (predicted > 0)
    gain = jnp.where(is_sound, fall / jnp.where(is_sound, predicted, 1.0), 0.0)
    gain = jnp.where(is_known, gain, state.gain)
    is_cut = length >= 0.9 * state.radius
    radius = next_radius(state.radius, length, gain, is_good, falls, is_cut)
    # A radius of zero was never set.
    tiny = float(jnp.finfo(radius.dtype).tiny)
    return TrialResult(
        is_known=is_known,
        is_good=is_good,
        is_new=is_good | ~is_known,
        is_finite=is_finite,
        is_still=is_still,
        falls=falls,
        predicted=predicted,
        fall=fall,
        gain=gain,
        length=length,
        is_cut=is_cut,
        radius=jnp.maximum(jnp.where(is_known, radius, state.radius), tiny),
        noise=noise,
        is_first=state.counts[1] == 0,
        is_exact=is_exact > 0,
    )


def _build(
    method: Method, space: Space, here: Point, point: Vector, scale: Vector, eps: float
) -> Model:
    """Make the model at the accepted point."""
    scale = positive(scale)
    free = space.free(point, here.half_gradient)
    slopes = here.half_gradient / scale
    step_bounds = None
    if space.bounds is not None:
        slopes = jnp.where(free, slopes, 0.0)
        step_bounds = Bounds(*((end - point) * scale for end in space.bounds))
    model = Model(
        here=here,
        point=point,
        scale=scale,
        slopes=slopes,
        slope=_small.norm(slopes),
        free=free,
        step_bounds=step_bounds,
        hessian=method.scale_hessian(here, point, scale, free),
        size=jnp.abs(here.value),
        noise=here.value,
        visible=here.value,
    )
    rough = space.eps * method.rounding_sensitivity(model)
    noise = 4 * eps * model.size + jnp.sum(rough * rough)
    return model._replace(noise=noise, visible=eps * model.size + 16 * noise)

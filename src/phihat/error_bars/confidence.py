"""Intervals for every fitted param, and their report.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import confidence_intervals, losses
  >>> loss_fn = losses.least_squares(lambda mean, x: mean + 0.0 * x)
  >>> data = (jnp.zeros(4), jnp.array([1.0, 2.0, 3.0, 4.0]))
  >>> found = confidence_intervals(loss_fn, jnp.array(2.5), data)
  >>> print(f"{found.low:.2f} .. {found.high:.2f}")
  0.45 .. 4.55
"""

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phihat import losses, products
from phihat._core import checks as _checks
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.types import Batch, Box, LossFn, Params, Status
from phihat._linalg.dense_hessian import dense_hessian, dense_jacobian
from phihat.error_bars.doubts import (
    Evidence,
    Setting,
    entry_names,
    explain,
    find_doubts,
)
from phihat.error_bars.profiles import profile
from phihat.results import FitResult
from phihat.second_order import covariance

__all__ = ["ConfidenceIntervals", "confidence_intervals"]

_CALL = "confidence_intervals"
_MAX_BYTES = 2**30
_SHOWN = 20


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class ConfidenceIntervals:
    """Intervals for every param: a pytree of arrays, so it can be mapped over.

    Attributes:
      params: the fitted params.
      low: the lower ends, a tree like `params`, in at least float32.
      high: the upper ends.
      standard_errors: the roots of the covariance's diagonal, a tree like `params`.
      covariance: [P, P], in the order of the leaves, each flattened.
      evidence: what the doubts rest on.
      level: the share of repeated experiments whose intervals hold the true param.
      degrees_of_freedom: of Student's t, or None for the normal distribution.
      setting: what was asked, and of what kind of loss.

    Example:
      >>> from phihat import confidence_intervals, losses
      >>> loss_fn = losses.least_squares(lambda mean, x: mean + 0.0 * x)
      >>> data = (jnp.zeros(4), jnp.array([1.0, 2.0, 3.0, 4.0]))
      >>> found = confidence_intervals(loss_fn, jnp.array(2.5), data)
      >>> print(f"{found.standard_errors:.4f}: {found.low:.4f} to {found.high:.4f}")
      0.6455: 0.4457 to 4.5543
    """

    params: Params
    low: Params
    high: Params
    standard_errors: Params
    covariance: Float[Array, "*lanes P P"]
    evidence: Evidence
    level: float = dataclasses.field(metadata={"static": True})
    degrees_of_freedom: int | None = dataclasses.field(metadata={"static": True})
    setting: Setting = dataclasses.field(metadata={"static": True})

    @property
    def correlation(self) -> Float[Array, "*lanes P P"]:
        """The covariance over the standard errors: ones on the diagonal."""
        spread = jnp.sqrt(jnp.diagonal(self.covariance, axis1=-2, axis2=-1))
        return self.covariance / (spread[..., :, None] * spread[..., None, :])

    @property
    def doubts(self) -> dict[str, str]:
        """The reasons for doubt, each with a sentence; empty where none was found."""
        if np.ndim(self.covariance) > 2:
            raise ValueError(
                f"{_CALL}: `doubts` are those of one fit, but these are lanes of shape "
                f"{list(np.shape(self.covariance)[:-2])}; take one, by "
                "`jax.tree.map(lambda leaf: leaf[0], intervals)`."
            )
        names = entry_names(self.params)
        ends = [
            np.asarray(products.flatten(end)[0] - products.flatten(self.params)[0])
            for end in (self.low, self.high)
        ]
        evidence = jax.tree.map(np.asarray, self.evidence)
        found = find_doubts(
            evidence, self.setting, np.asarray(self.covariance), np.stack(ends)
        )
        return {
            reason: explain(reason, about, evidence, names)
            for reason, about in found.items()
        }

    def __repr__(self) -> str:
        """Report every interval, and the doubts."""
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(self)):
            return "ConfidenceIntervals(being traced)"
        lanes = np.shape(self.covariance)[:-2]
        if lanes:
            return f"ConfidenceIntervals of lanes {list(lanes)}: {self._headline()}"
        rows = zip(
            entry_names(self.params),
            *(
                products.flatten(tree)[0].tolist()
                for tree in (self.params, self.standard_errors, self.low, self.high)
            ),
            strict=True,
        )
        rows = list(rows)
        width = max(len(name) for name, *_ in rows[:_SHOWN])
        lines = [self._headline()]
        lines += [
            f"  {name:{width}}  {value:.4g} +- {error:.4g}   {low:.4g} .. {high:.4g}"
            for name, value, error, low, high in rows[:_SHOWN]
        ]
        if len(rows) > _SHOWN:
            lines.append(f"  ... {len(rows) - _SHOWN} more")
        doubts = [f"  doubt: {sentence}" for sentence in self.doubts.values()]
        return "\n".join(lines + (doubts or ["  no reason for doubt was found"]))

    def _headline(self) -> str:
        freedom = self.degrees_of_freedom
        law = "normal distribution"
        if freedom is not None:
            plural = "" if freedom == 1 else "s"
            law = f"Student's t with {freedom} degree{plural} of freedom"
        source = "covariance" if self.setting.method == "wald" else "profile"
        return f"{100 * self.level:.4g}% confidence intervals, from the {source}, {law}"


def confidence_intervals(
    loss_fn: LossFn,
    result: Any,
    data: Batch = None,
    *,
    level: float = 0.95,
    method: str = "wald",
    absolute_sigma: bool = False,
    distribution: str | None = None,
    box: Box | None = None,
) -> ConfidenceIntervals:
    r"""Return intervals for the params of a fit, and the reasons to doubt them.

    With the covariance $C$ and a quantile $q$ of the level, "wald" gives
    $\hat\phi_j \pm q \sqrt{C_{jj}}$: right where the loss is a parabola. "profile"
    holds one param at a time, minimizes over the others, and goes out to where
    $\min L = L(\hat\phi) + q^2 u$, with $u$ the variance of the residuals for a sum of
    squares (1 where sigmas are known) and 1/2 for a negative log-likelihood; its
    intervals need not be symmetric, nor end.

    A sum of squares is a loss of `losses.least_squares`, weights $1/\sigma^2$ included;
    any other counts as a negative log-likelihood, summed over the data.

    Args:
      loss_fn: the loss that was minimized, `(params, data) -> []`, or `(params) -> []`.
      result: a `FitResult`, or the params themselves, at a minimum.
      data: handed to `loss_fn`.
      level: the chance that an interval holds the true param, in (0, 1).
      method: "wald" or "profile".
      absolute_sigma: the weights are true $1/\sigma^2$: the scatter of the residuals
        is then not used, but tested against them.
      distribution: of which $q$ is a quantile, "t" or "normal"; None takes Student's t
        where the scatter is estimated from the residuals, else the normal.
      box: bounds that the fit had: what lies at them is told.

    Returns:
      `ConfidenceIntervals`. Their ends are infinite where the data do not determine a
      param, NaN where the loss is; the doubts say which and why.

    Raises:
      TypeError: an argument is of the wrong kind.
      ValueError: an argument has a wrong value; a loss that is a mean where only a sum
        tells errors; more params than a dense matrix can hold.

    Example:
      >>> import phihat
      >>> from phihat import losses
      >>> rate = lambda log_rate, events: jnp.exp(log_rate) - events * log_rate
      >>> found = confidence_intervals(
      ...     rate, jnp.log(jnp.array(25.0)), jnp.array(25.0), method="profile"
      ... )
      >>> print(f"{jnp.exp(found.low):.1f} to {jnp.exp(found.high):.1f} events")
      16.4 to 36.1 events

    References:
      Bates and Watts, *Nonlinear Regression Analysis and Its Applications*, 1988.
      Venzon and Moolgavkar, *A method for computing profile-likelihood-based
      confidence intervals*, Applied Statistics 1988.
      James and Roos, *Minuit*, Computer Physics Communications 1975.
    """
    loss_fn = _tree.as_partial(loss_fn, _CALL, "loss_fn")
    params, status = _params_of(result)
    _checks.check_data(_CALL, data)
    _checks.check_choice(_CALL, "method", method, ("wald", "profile"))
    if distribution is not None:
        _checks.check_choice(_CALL, "distribution", distribution, ("t", "normal"))
    if box is not None:
        if not isinstance(box, Box):
            raise TypeError(f"{_CALL}: `box` must be a Box, got {_checks.brief(box)}.")
        _checks.check_box(_CALL, "box", box, params)
    setting = _set(loss_fn, params, data, method, absolute_sigma)
    freedom = None
    is_estimated = setting.is_squares and not absolute_sigma
    if distribution == "t" or (distribution is None and is_estimated):
        if setting.num_residuals is None:
            raise ValueError(
                f"{_CALL}: `distribution` 't' needs the residuals of "
                "`losses.least_squares`; use 'normal' for a likelihood."
            )
        freedom = setting.num_residuals - products.flatten(params)[0].size
    quantile = _quantile(level, freedom)
    arrays = _programs.call(
        _measure,
        loss_fn,
        (setting, loss_fn.func),
        params,
        data,
        jnp.asarray(quantile, _tree.default_float()),
        box,
        jnp.asarray(status, jnp.int32),
    )
    return ConfidenceIntervals(
        *arrays, level=float(level), degrees_of_freedom=freedom, setting=setting
    )


# ------------------------------------------------------------------------- the checks


def _params_of(result: Any) -> tuple[Params, Any]:
    if not isinstance(result, FitResult):
        _checks.check_float_leaves(_CALL, "result", result)
        params, status = result, Status.CONVERGED
    else:
        params, status = result.params, result.status
        if np.ndim(status):
            raise ValueError(
                f"{_CALL}: `result` holds lanes of shape {list(np.shape(status))}; map "
                "over them: `jax.vmap(lambda lane: confidence_intervals(loss_fn, lane, "
                "data))(result)`."
            )
    size = products.flatten(params)[0].size
    if size == 0:
        raise ValueError(f"{_CALL}: `result` has no params.")
    if size * size * 4 > _MAX_BYTES:
        raise ValueError(
            f"{_CALL}: a covariance of {size} params takes more than {_MAX_BYTES:,} "
            "bytes; ask for fewer params, binding the others to the loss."
        )
    return params, status


def _set(
    loss_fn: LossFn, params: Params, data: Batch, method: str, absolute_sigma: bool
) -> Setting:
    """Find out what kind of loss it is; refuse one that tells no errors."""
    traits = losses.traits(loss_fn)
    try:
        residual_fn = losses.residual_fn(loss_fn)
    except ValueError:
        residual_fn = None
    products.bind(loss_fn, params, data, call=_CALL)
    needs_sum = residual_fn is None or absolute_sigma
    if traits.reduction == "mean" and needs_sum:
        raise ValueError(
            f"{_CALL}: `loss_fn` is the mean over the rows, which does not tell how "
            'many there are; build it with reduction="sum".'
        )
    if residual_fn is None:
        if absolute_sigma:
            raise ValueError(
                f"{_CALL}: `absolute_sigma` is for sums of squares; a negative "
                "log-likelihood has its sigmas inside."
            )
        return Setting(method, False, False, None, traits.is_penalized)
    arguments = () if data is None else (data,)
    num_residuals = jax.eval_shape(residual_fn, params, *arguments).size
    return Setting(
        method, True, bool(absolute_sigma), num_residuals, traits.is_penalized
    )


def _quantile(level: Any, degrees_of_freedom: int | None) -> float:
    from scipy import special

    if isinstance(level, bool) or not isinstance(level, numbers.Real):
        raise TypeError(
            f"{_CALL}: `level` must be a number, got {_checks.brief(level)}."
        )
    _checks.check_range(
        _CALL, "level", level, 0.0, 1.0, include_low=False, include_high=False
    )
    share = 0.5 * (1.0 + float(level))
    if degrees_of_freedom is None:
        return float(special.ndtri(share))
    if degrees_of_freedom <= 0:
        return float("inf")
    return float(special.stdtrit(degrees_of_freedom, share))


# ------------------------------------------------------------------------- the program


def _measure(
    loss_fn: LossFn,
    options: tuple[Setting, Any],
    is_eager: bool,
    params: Params,
    data: Batch,
    quantile: Float[Array, ""],
    box: Box | None,
    status: Array,
) -> tuple[Any, ...]:
    """Return the fields of `ConfidenceIntervals` that are arrays."""
    del is_eager
    setting, _ = options
    point, unflatten = products.flatten(params)
    wide = jax.tree.map(
        lambda leaf: jnp.asarray(leaf).astype(_tree.accumulator_dtype(leaf)), params
    )
    as_tree = products.flatten(wide)[1]
    scalar_fn = products.bind(loss_fn, params, data, call=_CALL)
    flat_fn = lambda vector: scalar_fn(unflatten(vector)).astype(point.dtype)  # noqa: E731
    spread = covariance(loss_fn, params, data, absolute_sigma=setting.absolute_sigma)
    value, gradient = jax.value_and_grad(flat_fn)(point)
    hessian = dense_hessian(flat_fn, point)
    if setting.is_squares:
        arguments = () if data is None else (data,)
        residual_fn = losses.residual_fn(loss_fn)
        flat_residual_fn = lambda vector: residual_fn(unflatten(vector), *arguments)  # noqa: E731
        kind = _of_squares(flat_residual_fn, point, setting)
    else:
        kind = _of_likelihood(flat_fn, point, value, hessian)
    quantile = quantile.astype(point.dtype)
    errors = jnp.sqrt(jnp.diagonal(spread))
    # Where nothing determines a param its interval is the whole line, not NaN.
    reach = jnp.where(errors > 0, quantile * errors, 0.0)
    correlation = spread / (errors[:, None] * errors[None, :])
    rise_fn = lambda unit: kind.rise_fn(reach * unit) / (kind.unit * quantile**2)  # noqa: E731
    signs = jnp.asarray([-1.0, 1.0], point.dtype)
    paths = signs[:, None, None] * correlation[None]
    ends, lowest_rise = signs[:, None] * reach[None], jnp.zeros((), point.dtype)
    wald = ends
    if setting.method == "profile":
        found = profile(rise_fn, correlation)
        units = jnp.stack([found.low, found.high])
        is_known = (reach > 0) & (reach < jnp.inf)
        ends = jnp.where(is_known[None], units * reach[None], ends)
        lowest_rise = found.lowest
    is_finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
    is_finite &= jnp.all(jnp.isfinite(hessian)) & ~jnp.any(jnp.isnan(spread))
    lowest, _ = _spectrum(hessian)
    at_bound, beyond_bound = _outside(box, as_tree, point, errors, ends)
    evidence = Evidence(
        status=status,
        is_finite=is_finite,
        distances=jnp.abs(spread @ gradient) / (2.0 * kind.unit * errors),
        lowest=lowest,
        weakest=kind.weakest,
        rounding=kind.rounding,
        rises=jax.vmap(jax.vmap(rise_fn))(paths),
        at_bound=at_bound,
        beyond_bound=beyond_bound,
        chi_square=kind.chi_square,
        is_exact=kind.is_exact,
        num_empty=kind.num_empty,
        wald=wald,
        lowest_rise=lowest_rise,
    )
    failed = jnp.where(is_finite, 0.0, jnp.nan)
    low, high = (point + end + failed for end in ends)
    trees = (as_tree(low), as_tree(high), as_tree(errors + failed))
    return (wide, *trees, spread + failed, evidence)


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What differs between sums of squares and likelihoods.

    Attributes:
      rise_fn: `offset [P] -> ` the rise of the loss.
      unit: the rise at one standard error.
      weakest: the scaled direction of least curvature.
      rounding: the share of a standard error that rounding may take.
    """

    rise_fn: Callable[[Array], Array]
    unit: Array
    weakest: Array
    rounding: Array
    chi_square: Array
    is_exact: Array
    num_empty: Array


def _of_squares(
    residual_fn: Callable[[Array], Array], point: Array, setting: Setting
) -> _Kind:
    residuals, jacobian = residual_fn(point), dense_jacobian(residual_fn, point)
    norms = jnp.linalg.norm(jacobian, axis=0)
    norms = jnp.where(norms > 0, norms, 1.0)
    # With too few rows, rows of zeros: the direction that is left open is then found.
    missing = jnp.zeros((max(point.size - residuals.size, 0), point.size), point.dtype)
    scaled = jnp.concatenate([jacobian / norms[None, :], missing])
    _, singular, right = jnp.linalg.svd(scaled, full_matrices=False)
    eps = float(jnp.finfo(point.dtype).eps)
    spare = residuals.size - point.size
    total = residuals @ residuals
    chi_square = total / spare if spare > 0 else jnp.full_like(total, jnp.nan)
    unit = jnp.ones_like(total) if setting.absolute_sigma else chi_square
    # What rounding alone leaves of residuals that should be zero.
    terms = jnp.abs(jacobian) @ jnp.abs(point)
    is_empty = (residuals == 0) & jnp.all(jacobian == 0, axis=1)

    def rise_fn(offset: Array) -> Array:
        moved = residual_fn(point + offset)
        return (moved - residuals) @ (moved + residuals)

    return _Kind(
        rise_fn=rise_fn,
        unit=unit,
        weakest=right[-1],
        rounding=eps * singular[0] / singular[-1],
        chi_square=chi_square,
        is_exact=jnp.sqrt(total) <= 16 * eps * jnp.linalg.norm(terms),
        num_empty=jnp.sum(is_empty).astype(jnp.int32),
    )


def _of_likelihood(
    flat_fn: Callable[[Array], Array], point: Array, value: Array, hessian: Array
) -> _Kind:
    lowest, weakest = _spectrum(hessian)
    eps = float(jnp.finfo(hessian.dtype).eps)
    return _Kind(
        rise_fn=lambda offset: flat_fn(point + offset) - value,
        unit=jnp.full_like(value, 0.5),
        weakest=weakest,
        rounding=eps / jnp.maximum(lowest, eps),
        chi_square=jnp.full_like(value, jnp.nan),
        is_exact=jnp.asarray(False),
        num_empty=jnp.asarray(0, jnp.int32),
    )


def _spectrum(hessian: Float[Array, "P P"]) -> tuple[Array, Array]:
    """Return the lowest eigenvalue over the largest, and its vector, both scaled."""
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))
    scale = jnp.where(scale > 0, scale, 1.0)
    values, vectors = jnp.linalg.eigh(hessian / (scale[:, None] * scale[None, :]))
    largest = jnp.max(jnp.abs(values))
    return values[0] / jnp.where(largest > 0, largest, 1.0), vectors[:, 0]


def _outside(
    box: Box | None,
    as_tree: Callable[[Array], Params],
    point: Array,
    errors: Array,
    ends: Array,
) -> tuple[Array, Array]:
    """Tell which params lie at an edge of the box, and whose intervals leave it."""
    if box is None:
        nowhere = jnp.zeros(point.shape, bool)
        return nowhere, nowhere

    def leaves(moved: Array) -> Array:
        return products.flatten(box.clip(as_tree(moved)))[0] != moved

    near = 0.01 * jnp.where(jnp.isfinite(errors), errors, 0.0)
    at_bound = leaves(point - near) | leaves(point + near)
    return at_bound, leaves(point + ends[0]) | leaves(point + ends[1])

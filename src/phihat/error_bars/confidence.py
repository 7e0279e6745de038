"""Intervals for every fitted param, and their report."""

import dataclasses
import numbers
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phihat import losses, products
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import data_checks as _data_checks
from phihat._core import programs as _programs
from phihat._core import tables as _tables
from phihat._core import tree as _tree
from phihat._core.types import Batch, Box, LossFn, Params, Status
from phihat.error_bars.doubts import (
    Evidence,
    Setting,
    entry_names,
    explain,
    find_doubts,
)
from phihat.error_bars.measures import measure
from phihat.results import FitResult

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
        """The covariance over the standard errors, with ones on the diagonal."""
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
        return self.explain(entry_names(self.params))

    def explain(self, names: list[str]) -> dict[str, str]:
        """Return the doubts in words that call the params by these names."""
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
        rows = self._rows()
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

    def _repr_html_(self) -> str:
        """Show the intervals and the doubts as a table in a notebook."""
        if "\n" not in repr(self):
            return _tables.table(repr(self), ())
        rows = [
            (name, *(f"{number:.4g}" for number in numbers))
            for name, *numbers in self._rows()[:_SHOWN]
        ]
        doubts = [f"Doubt: {sentence}." for sentence in self.doubts.values()]
        head = ("param", "value", "error", "low", "high")
        notes = doubts or ["No reason for doubt was found."]
        return _tables.table(self._headline(), rows, head, notes)

    def _rows(self) -> list[tuple[Any, ...]]:
        """Return the name, the value, the error and both ends of every entry."""
        trees = (self.params, self.standard_errors, self.low, self.high)
        columns = (products.flatten(tree)[0].tolist() for tree in trees)
        return list(zip(entry_names(self.params), *columns, strict=True))

    def _headline(self) -> str:
        freedom = self.degrees_of_freedom
        law = "normal distribution"
        if freedom is not None:
            plural = "" if freedom == 1 else "s"
            law = f"Student's t with {freedom} degree{plural} of freedom"
        source = "covariance" if self.setting.method == "wald" else "profile"
        return f"{100 * self.level:.4g}% confidence intervals, from the {source}, {law}"


@_calls.public
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
    num_residuals: int | None = None,
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
      box: bounds that the fit had. A param whose bounds agree is held: it has no error,
        and costs no degree of freedom. Params at a bound are named in the doubts.
      num_residuals: how many residuals count, where some are always zero, such as
        masked ones; all by default.

    Returns:
      `ConfidenceIntervals`. Their ends are infinite where the data do not determine a
      param, NaN where the loss is; the doubts say which and why.

    Raises:
      TypeError: an argument has the wrong type; the message says what to pass.
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
    return find_intervals(**locals())


def find_intervals(
    loss_fn: LossFn,
    result: Any,
    data: Batch,
    *,
    level: float = 0.95,
    method: str = "wald",
    absolute_sigma: bool,
    distribution: str | None = None,
    box: Box | None,
    num_residuals: int | None,
    runs_briefly: bool = False,
) -> ConfidenceIntervals:
    """Return confidence intervals, by a program that may be compiled in little time."""
    loss_fn = _tree.as_partial(loss_fn, _CALL, "loss_fn")
    params, status = _params_of(result)
    data = _data_checks.columns_as_arrays(data)
    _data_checks.check_data(_CALL, data)
    _checks.check_choice(_CALL, "method", method, ("wald", "profile"))
    if distribution is not None:
        _checks.check_choice(_CALL, "distribution", distribution, ("t", "normal"))
    if box is not None:
        if not isinstance(box, Box):
            raise TypeError(f"{_CALL}: `box` must be a Box, got {_checks.brief(box)}.")
        _checks.check_box(_CALL, "box", box, params)
    setting = _set(loss_fn, params, data, method, absolute_sigma)
    setting = setting._replace(free=_free(params, box))
    if num_residuals is not None:
        count = _checks.check_count(_CALL, "num_residuals", num_residuals, 0)
        setting = setting._replace(num_residuals=count)
    freedom = None
    is_estimated = setting.is_squares and not absolute_sigma
    if distribution == "t" or (distribution is None and is_estimated):
        if setting.num_residuals is None:
            raise ValueError(
                f"{_CALL}: `distribution` 't' needs the residuals of "
                "`losses.least_squares`; use 'normal' for a likelihood."
            )
        freedom = setting.num_residuals - sum(setting.free)
    quantile = _quantile(level, freedom)
    arrays = _programs.call(
        measure,
        loss_fn,
        (setting, loss_fn.func),
        params,
        data,
        jnp.asarray(quantile, _tree.default_float()),
        box,
        jnp.asarray(status, jnp.int32),
        runs_briefly=runs_briefly,
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


def _free(params: Params, box: Box | None) -> tuple[bool, ...]:
    """Tell which params a box does not hold."""
    point, unflatten = products.flatten(params)
    everywhere = (True,) * point.size
    ends = jax.tree.leaves(box)
    if box is None or any(isinstance(end, jax.core.Tracer) for end in ends):
        return everywhere
    with jax.ensure_compile_time_eval():
        infinite = jnp.full(point.shape, jnp.inf, point.dtype)
        low, high = (
            np.asarray(products.flatten(box.clip(unflatten(end)))[0])
            for end in (-infinite, infinite)
        )
    free = tuple(bool(entry) for entry in low != high)
    if not any(free):
        raise ValueError(
            f"{_CALL}: `box` holds all params, its ends agree: none of them has errors."
        )
    return free


def _quantile(level: Any, degrees_of_freedom: int | None) -> float:
    if isinstance(level, bool) or not isinstance(level, numbers.Real):
        raise TypeError(
            f"{_CALL}: `level` must be a number, got {_checks.brief(level)}."
        )
    _checks.check_range(
        _CALL, "level", level, 0.0, 1.0, include_low=False, include_high=False
    )
    return quantile(float(level), degrees_of_freedom)


def quantile(level: float, degrees_of_freedom: float | None) -> float:
    """Return the quantile of Student's t, or of the normal where that is None."""
    from scipy import special

    share = 0.5 * (1.0 + level)
    if degrees_of_freedom is None:
        return float(special.ndtri(share))
    if degrees_of_freedom <= 0:
        return float("inf")
    return float(special.stdtrit(degrees_of_freedom, share))

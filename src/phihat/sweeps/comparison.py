"""Optimizers compared fairly: the same number of trials, seeds and steps for each."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Array

from phihat import fitting
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import data_checks as _data_checks
from phihat._core import pictures as _pictures
from phihat._core import tables as _tables
from phihat._core import tree as _tree
from phihat._core.types import Batch, LossFn, Params, RandomKey, Status
from phihat._engine import spec as _arguments
from phihat.sweeps.factories import as_factory
from phihat.sweeps.grid import refuse_tracing, sweep
from phihat.sweeps.many_starts import draw_units

__all__ = ["Comparison", "Contender", "compare", "quantiles"]

_DEFAULT_SPACE = {"learning_rate": (1e-4, 1.0)}


class Contender(NamedTuple):
    """The result of one optimizer in a comparison.

    Attributes:
      hyperparameters: those of the trial with the smallest median of final losses.
      final: the loss on all data after the last step [S], for seeds that were not used
        in the trials; infinite where the fit failed.
      loss: the loss before each step [S, T].
      num_gradients: gradients computed per fit, on average.
      num_values: values computed besides in line searches of phihat, on average.
      seconds: per fit, all seeds side by side, without compiling.
      trials: the hyperparameters that were tried, by name [R].
      trial_loss: the final losses of the trials [R, S].
    """

    hyperparameters: dict[str, float]
    final: np.ndarray
    loss: np.ndarray
    num_gradients: float
    num_values: float
    seconds: float
    trials: dict[str, np.ndarray]
    trial_loss: np.ndarray

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The first quartile of the final losses, their median, the third."""
        low, middle, high = quantiles(self.final, (0.25, 0.5, 0.75))
        return float(low), float(middle), float(high)


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """A table of optimizers, and the data for a picture of it.

    Attributes:
      entries: a `Contender` by name, the best median first.

    Example:
      >>> import phihat
      >>> table = phihat.compare(
      ...     lambda x: x**2, 1.0, {"adam": phihat.adam}, num_steps=9, num_trials=4
      ... )
      >>> print(repr(table).splitlines()[0])
      Comparison: 4 trials, 8 seeds, 9 steps each
    """

    entries: dict[str, Contender]

    def plot(self, *, axes: Any = None) -> Any:
        """Draw the losses of all optimizers, by `phihat.plot.comparison`."""
        return _pictures.draw("comparison", self, axes=axes)

    def __repr__(self) -> str:
        """Show a line for each optimizer."""
        first = next(iter(self.entries.values()))
        trials, seeds = first.trial_loss.shape
        lines = [
            f"Comparison: {trials} trials, {seeds} seeds, {first.loss.shape[1]} "
            "steps each",
            f"  {'':16} {'median':>11} {'quartiles':>23} {'gradients':>9} "
            f"{'values':>8} {'ms':>9}",
        ]
        for name, entry in self.entries.items():
            low, middle, high = entry.quartiles
            lines.append(
                f"  {name:16} {middle:11.5g} {low:11.5g} {high:11.5g} "
                f"{entry.num_gradients:9.0f} {entry.num_values:8.0f} "
                f"{1e3 * entry.seconds:9.3f}  {_tuned(entry)}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show a row for each optimizer in a notebook."""
        rows = []
        for name, entry in self.entries.items():
            low, middle, high = entry.quartiles
            counts = (f"{entry.num_gradients:.0f}", f"{entry.num_values:.0f}")
            quartiles = f"{low:.5g} .. {high:.5g}"
            seconds = f"{1e3 * entry.seconds:.3f}"
            rows.append(
                (name, f"{middle:.5g}", quartiles, *counts, seconds, _tuned(entry))
            )
        head = ("", "median", "quartiles", "gradients", "values", "ms", "tuned")
        return _tables.table(repr(self).split("\n")[0], rows, head)


def _tuned(entry: Contender) -> str:
    return ", ".join(f"{k}={v:.3g}" for k, v in entry.hyperparameters.items())


def quantiles(values: Any, levels: Sequence[float], axis: int = -1) -> np.ndarray:
    """Return quantiles as NumPy's, where some values may be infinite.

    Between a number and infinity lies infinity, which NumPy's formula makes NaN.
    """
    values = np.asarray(values, float)
    below, above = (
        np.quantile(values, levels, axis=axis, method=method)
        for method in ("lower", "higher")
    )
    finite = np.where(np.isfinite(values), values, np.finfo(float).max / 4)
    between = np.quantile(finite, levels, axis=axis)
    return np.where(above == below, below, np.where(np.isinf(above), above, between))


@_calls.public
def compare(
    loss_fn: LossFn,
    params: Params | Callable[[RandomKey], Params],
    optimizers: Mapping[str, Any],
    data: Batch = None,
    *,
    num_steps: int,
    num_trials: int = 16,
    num_seeds: int = 8,
    batch_size: int | None = None,
    sampler: Callable[..., Any] | None = None,
    key: RandomKey | None = None,
    max_bytes: int | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Comparison:
    """Tune each optimizer by the same number of trials, then judge it on new seeds.

    Trials are points of a Sobol sequence, the same for all optimizers with as many
    hyperparameters, each tried with the same seeds. The best of them, by the median of
    the final losses, is run with seeds of its own.

    Args:
      loss_fn: as in `fit`.
      params: the start; or a function from a key, to draw one for each seed.
      optimizers: by name an optimizer of ours or a factory, such as `phihat.adam`,
        whose `learning_rate` is tuned between 1e-4 and 1; or a pair of one and
        `{argument: (low, high)}`, tuned on a logarithmic scale, low > 0.
      data: as in `fit`.
      num_steps: the steps of each fit.
      num_trials: R, for each optimizer; a power of two is best.
      num_seeds: S, of the trials, and again of the judgement.
      batch_size: as in `fit`.
      sampler: as in `fit`.
      key: from which all seeds are drawn. As in `fit` it is needed where the fits are
        random: for one more release they warn without it, and use `jax.random.key(0)`.
      max_bytes: as in `sweep`.
      mesh: as in `sweep`.
      progress: as in `sweep`.

    Returns:
      A `Comparison`.

    Raises:
      TypeError: an argument has the wrong type; a call under jit, vmap or grad.
      ValueError: an argument has a wrong value.

    Example:
      >>> import phihat
      >>> loss_fn = phihat.losses.least_squares(phihat.models.linear)
      >>> space = {"learning_rate": (1e-3, 0.1), "decay": (0.1, 0.9)}
      >>> table = phihat.compare(
      ...     loss_fn,
      ...     {"weight": 0.0, "bias": 0.0},
      ...     {"momentum": (phihat.momentum, space), "adam": phihat.adam},
      ...     phihat.datasets.linear_regression(),
      ...     num_steps=100,
      ... )
      >>> print(next(iter(table.entries)))
      momentum
    """
    call = "compare"
    refuse_tracing(call)
    counts = {"num_steps": num_steps, "num_trials": num_trials, "num_seeds": num_seeds}
    num_steps, num_trials, num_seeds = (
        _checks.check_count(call, name, value) for name, value in counts.items()
    )
    _checks.check_key(call, key)
    is_random = callable(params) or batch_size is not None or sampler is not None
    key = _as_key(key, is_random or _checks.takes_key(loss_fn))
    spaces = _as_spaces(call, optimizers)
    data = _data_checks.columns_as_arrays(data)
    if not callable(params):
        _checks.check_float_leaves(call, "params", params)
    fixed = (
        _tree.as_partial(loss_fn, call, "loss_fn"),
        _tree.as_partial(params, call, "params") if callable(params) else params,
        data,
        _arguments.as_sampler(call, data, batch_size, sampler),
        _tree.Static(num_steps),
    )
    tuning_key, judging_key = jax.random.split(key)
    seeds = jax.random.split(tuning_key, num_seeds)
    judges = jax.random.split(judging_key, num_seeds)
    options: dict[str, Any] = {"max_bytes": max_bytes, "mesh": mesh}
    entries = {}
    for name, (factory, space) in spaces.items():
        trials = _draw_trials(space, num_trials, tuning_key)
        function = Partial(_fit_one, factory, *fixed)
        axes = {tuple(trials): tuple(trials.values()), "seed": seeds}
        tried = sweep(
            Partial(_final, function), axes, progress=progress, **options
        ).values
        entries[name] = _judge_best(function, trials, tried, judges, options)
    ranked = sorted(entries, key=lambda name: entries[name].quartiles[1])
    return Comparison({name: entries[name] for name in ranked})


# -------------------------------------------------------------------- private helpers


def _as_key(key: RandomKey | None, is_random: bool) -> RandomKey:
    if key is None and is_random:
        _checks.warn(
            "compare: these fits are random, so the next release will need a `key`; "
            "pass `key=jax.random.key(0)`, which is used now.",
            FutureWarning,
        )
    return jax.random.key(0) if key is None else key


def _judge_best(
    function: Partial,
    trials: dict[str, np.ndarray],
    tried: np.ndarray,
    judges: Array,
    options: dict[str, Any],
) -> Contender:
    """Run the best of the trials again, with other seeds."""
    scores = quantiles(tried, (0.5,), axis=1)[0]
    best = {k: values[[int(np.argmin(scores))]] for k, values in trials.items()}
    axes = {tuple(best): tuple(best.values()), "seed": judges}
    sweep(function, axes, **options)  # compiles
    begin = time.perf_counter()
    values = sweep(function, axes, **options).values
    seconds = time.perf_counter() - begin
    return Contender(
        hyperparameters={k: float(value[0]) for k, value in best.items()},
        final=values["final"][0],
        loss=values["loss"][0],
        num_gradients=float(values["num_steps"].mean()),
        num_values=float(values["num_values"].mean()),
        seconds=seconds / len(judges),
        trials=trials,
        trial_loss=tried,
    )


def _fit_one(
    factory: Callable[..., Any],
    loss_fn: LossFn,
    start: Any,
    data: Batch,
    sampler: Any,
    num_steps: _tree.Static,
    /,
    *,
    seed: RandomKey,
    **hyperparameters: Array,
) -> dict[str, Array]:
    start_key, fit_key = jax.random.split(seed)
    result = fitting.fit_as(
        "compare",
        loss_fn,
        start(start_key) if callable(start) else start,
        factory(**hyperparameters),
        data,
        num_steps=num_steps.value,
        sampler=sampler,
        key=fit_key,
        record={"loss": _loss, "num_values": _num_values},
    )
    final = result.loss
    if sampler is not None and not _checks.takes_key(loss_fn):
        final = jnp.asarray(loss_fn(result.params, data))  # and not of the last batch
    failed = (result.status >= Status.NONFINITE_LOSS) | ~jnp.isfinite(final)
    last = _num_values(result.state, None)
    return {
        "final": jnp.where(failed, jnp.full_like(final, jnp.inf), final),
        "loss": result.history["loss"],
        "num_steps": result.num_steps,
        "num_values": jnp.sum(result.history["num_values"], dtype=jnp.int32) + last,
    }


def _final(function: Callable[..., Any], /, **row: Any) -> Array:
    return function(**row)["final"]


def _loss(state: Any, info: Any) -> Array:
    del state
    return info.loss


def _num_values(state: Any, info: Any) -> Array:
    """Return the values that the line searches of the step before have computed."""
    del info
    has_field = lambda node: "num_evaluations" in getattr(node, "_fields", ())  # noqa: E731
    nodes = jax.tree.leaves(state.opt_state, is_leaf=has_field)
    found = [node.num_evaluations for node in nodes if has_field(node)]
    return sum(found, jnp.zeros((), jnp.int32))


def _as_spaces(call: str, optimizers: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    if not isinstance(optimizers, Mapping) or not optimizers:
        raise TypeError(
            f"{call}: `optimizers` must map names to optimizers, such as "
            f'{{"adam": phihat.adam}}, got {_checks.brief(optimizers)}.'
        )
    spaces = {}
    for name, entry in optimizers.items():
        factory, space = entry, _DEFAULT_SPACE
        if type(entry) is tuple and len(entry) == 2:
            factory, space = entry
        _check_space(call, name, space)
        factory = as_factory(call, f"optimizers[{name!r}]", factory, space)
        spaces[name] = (factory, dict(space))
    return spaces


def _check_space(call: str, name: str, space: Any) -> None:
    if not isinstance(space, Mapping) or not space:
        raise TypeError(
            f"{call}: the space of {name!r} must map arguments to (low, high), got "
            f"{_checks.brief(space)}."
        )
    for argument, ends in space.items():
        if np.shape(ends) != (2,) or not 0 < ends[0] <= ends[1] < np.inf:
            raise ValueError(
                f"{call}: the range of {name!r}, {argument!r}, must be (low, high) "
                f"with 0 < low <= high, got {ends!r}."
            )


def _draw_trials(
    space: Mapping[str, tuple[float, float]], num_trials: int, key: RandomKey
) -> dict[str, np.ndarray]:
    units = draw_units("sobol", len(space), num_trials, key)
    return {
        argument: np.exp(np.log(low) + unit * (np.log(high) - np.log(low)))
        for unit, (argument, (low, high)) in zip(units.T, space.items(), strict=True)
    }

"""What a result says of a fit, in words and numbers for a reader."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phihat._core import tree as _tree
from phihat._core.types import PyTree, Status

__all__ = [
    "count_statuses",
    "diagnosis",
    "headline",
    "is_here",
    "loss_lines",
    "shapes",
    "values",
]

QUANTITIES = {
    Status.NONFINITE_LOSS: "loss",
    Status.NONFINITE_GRADIENT: "gradient",
    Status.NONFINITE_PARAMS: "params",
}

_REASONS = {
    Status.RUNNING: "steps are left",
    Status.CONVERGED: "the tolerance was met",
    Status.STALLED: "the optimizer could make no further progress",
    Status.STOPPED: "by a callback, patience or the end of a stream",
    Status.TIME_LIMIT: "the time limit was reached",
}


def headline(result: Any) -> str:
    status = np.asarray(result.status)
    if status.ndim:
        return f"{status.size} lanes: {count_statuses(status)}"
    code = Status(int(status))
    steps = int(result.num_steps)
    if code == Status.COMPLETED:
        return f"COMPLETED, the budget of {steps} step{'s' * (steps != 1)} was used"
    if code in QUANTITIES:
        _, quantity, path, _ = diagnosis(result)
        at = f" at {path}" if path else ""
        return f"{code.name}, the {quantity} was not finite{at} at step {steps}"
    reason = f"by {result.ended_by}" if result.ended_by else _REASONS.get(code)
    after = f"{code.name} after {steps} step{'s' * (steps != 1)}"
    return f"{after}, {reason}" if reason else after


def count_statuses(status: np.ndarray) -> str:
    codes, counts = np.unique(status, return_counts=True)
    return ", ".join(
        f"{count} {Status(int(code)).name}"
        for code, count in zip(codes, counts, strict=True)
    )


def loss_lines(result: Any) -> list[str]:
    loss, norm = np.asarray(result.loss), np.asarray(result.grad_norm)
    if loss.ndim:
        finite = loss[np.isfinite(loss)]
        if finite.size == 0:
            return []
        low, middle, high = np.quantile(finite.astype(float), [0.0, 0.5, 1.0])
        count = int(np.sum(_has_diverged(result)))
        diverged = [f"  warning    {count} of {loss.size} losses {_DIVERGED}"] * (
            count > 0
        )
        whose = ", each of a minibatch" if result.loss_of == "a minibatch" else ""
        return [
            f"  loss       {low:.6g} to {high:.6g}, median {middle:.6g}{whose}",
            *diverged,
        ]
    first = result.history.get("loss")
    whose = ""
    if result.loss_of == "a minibatch":
        whose = " on the last minibatch; on all data: loss_fn(result.params, data)"
    start = f"{float(first[0]):.6g} -> " if first is not None and len(first) else ""
    return [
        f"  loss       {start}{float(loss):.6g}{whose}",
        f"  gradient   norm {float(norm):.6g}",
        *[f"  warning    the loss {_DIVERGED}"] * bool(_has_diverged(result)),
        *_validation_lines(result),
    ]


_GROWTH = 10.0
"""How much larger than its start a loss has diverged, and not merely fluctuated."""

_DIVERGED = (
    "grew to more than 10 times the first, so the fit diverged: take a smaller "
    "learning rate, or scale the data (`phihat.datasets.standardize`)"
)


def _has_diverged(result: Any) -> Any:
    """Tell of every lane whether its loss, though finite, ended far above its start."""
    history = np.asarray(result.history.get("loss", ()))
    loss = np.asarray(result.loss)
    if history.ndim != loss.ndim + 1 or not history.shape[-1]:
        return False
    first = history[..., 0]
    with np.errstate(invalid="ignore", over="ignore"):
        return (first > 0) & (loss > _GROWTH * first) & np.isfinite(loss)


def _validation_lines(result: Any) -> list[str]:
    """Give the lowest held-out loss, if that is what chose the params."""
    found = np.asarray(result.history.get("validation_loss", ()))
    if "validation_metric" in result.history or not np.isfinite(found).any():
        return []
    best = int(np.nanargmin(found))
    step = int(result.history["validation_step"][best])
    return [f"  validation {found[best]:.6g} after {step} steps, the lowest"]


_SHOWN_ENTRIES = 8
"""Params whose values a report has room for."""


def values(result: Any) -> str:
    """Show the params of one fit where they are few and all here, or nothing."""
    leaves = jax.tree.leaves(result.params)
    is_short = 0 < sum(np.size(leaf) for leaf in leaves) <= _SHOWN_ENTRIES
    if np.ndim(result.status) or not is_short:
        return ""
    if any(np.ndim(leaf) > 1 or not is_here(leaf) for leaf in leaves):
        return ""

    def show(leaf: Any) -> str:
        numbers = ", ".join(f"{entry:.6g}" for entry in np.ravel(leaf).astype(float))
        return f"[{numbers}]" if np.ndim(leaf) else numbers

    return ", ".join(_labelled(result.params, show))


def is_here(leaf: Any) -> bool:
    """Tell whether this process can read all of an array."""
    is_split = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    return not is_split or leaf.is_fully_replicated


def shapes(tree: PyTree) -> str:
    def show(leaf: Any) -> str:
        shape = ",".join(str(size) for size in jnp.shape(leaf))
        return f"{jnp.result_type(leaf)}[{shape}]"

    parts = _labelled(tree, show)
    shown = parts if len(parts) <= 6 else [*parts[:5], f"... {len(parts) - 5} more"]
    return ", ".join(shown) or "no leaves"


def _labelled(tree: PyTree, show: Callable[[Any], str]) -> list[str]:
    """Show every leaf behind its path."""
    named = zip(_tree.leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    return [f"{name}{': ' if name else ''}{show(leaf)}" for name, leaf in named]


def diagnosis(result: Any) -> tuple[int, str, str | None, str]:
    """Say of one bad fit at which step what failed, in which leaf, and what to try."""
    status = Status(int(result.status))
    paths = _tree.leaf_paths(result.params)
    leaf = int(result.nonfinite_leaf)
    path = (paths[leaf] or "the only leaf") if leaf >= 0 else None
    step = int(result.num_steps)
    data_leaf = int(result.nonfinite_data_leaf)
    start = next(
        (
            name or "the only leaf"
            for name, value in zip(paths, jax.tree.leaves(result.params), strict=True)
            if not _is_finite(value)
        ),
        None,
    )
    if data_leaf >= 0:
        name = result.data_paths[data_leaf] or "the only leaf"
        what = result._data.describe_nonfinite(data_leaf, name)
        advice = f"The data hold {what}: clean them."
    elif step == 0 and start is not None:
        advice = f"The start itself is not finite at {start}: choose another."
    elif step == 0:
        advice = "It was so at the start: choose another, or check the loss there."
    elif _has_line_search(result.state.opt_state):
        advice = (
            "The params before that step are kept in `result.params`. Look there for a "
            "root, a logarithm or a division by 0, or give the line search a smaller "
            "`max_step`."
        )
    else:
        advice = (
            "The params before that step are kept in `result.params`. Try a smaller "
            "learning rate, clip the gradients (`optax.clip_by_global_norm`), or scale "
            "the data (`phihat.datasets.standardize`)."
        )
    return step, QUANTITIES[status], path, advice


def _has_line_search(opt_state: PyTree) -> bool:
    def is_search(node: Any) -> bool:
        return hasattr(node, "num_evaluations")

    return any(map(is_search, jax.tree.leaves(opt_state, is_leaf=is_search)))


def _is_finite(value: Any) -> bool:
    """Look at what this process holds: alone it cannot fetch the rest."""
    parts = [value]
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        parts = [shard.data for shard in value.addressable_shards]
    return all(np.isfinite(np.asarray(part, dtype=float)).all() for part in parts)

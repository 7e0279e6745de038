"""The question: which function, of which leaves, on which domain, for which data.

Example:
  >>> import jax.numpy as jnp
  >>> loss_fn = lambda p: jnp.sum(p["w"] ** 2)
  >>> problem = pose("check_convexity", loss_fn, {"w": jnp.ones(2)})
  >>> problem.labels, problem.scope
  (("['w']",), 'on all of R^2')
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Box
from phihat.convexity.intervals import Interval, from_array
from phihat.convexity.program import Program
from phihat.convexity.trace import trace

__all__ = ["Problem", "pose"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question that the prover, the certifier and the refuter can each take up.

    Attributes:
      call: the public function that asks, for messages.
      program: the loss as a flat program; its inputs are all leaves, params first.
      params: the params that were given, a pytree.
      start: the leaves of params as float64 arrays, in the program's order.
      varied: which leaves vary; the others are held at `start`.
      domain: the range of each leaf; a point where it is held.
      data: the range of each leaf of data; a point where it is known, None for a leaf
        that holds no real numbers (a random key).
      labels: the tree path of each leaf of params.
      is_box: whether a domain was given.
      has_data_range: whether some of the data are a range.
      loss: the loss as a function of the list of leaves of params, at the data's
        lower ends, in float64.
    """

    call: str
    program: Program
    params: Any
    start: tuple[np.ndarray, ...]
    varied: tuple[bool, ...]
    domain: tuple[Interval, ...]
    data: tuple[Interval | None, ...]
    labels: tuple[str, ...]
    is_box: bool
    has_data_range: bool
    loss: Callable[[Sequence[Any]], Any]

    @property
    def size(self) -> int:
        """The number of coordinates that vary."""
        return sum(
            leaf.size
            for leaf, varied in zip(self.start, self.varied, strict=True)
            if varied
        )

    @property
    def scope(self) -> str:
        """Of where a verdict on the whole domain speaks."""
        where = (
            f"on the box given in R^{self.size}"
            if self.is_box
            else (f"on all of R^{self.size}")
        )
        if not all(self.varied):
            names = ", ".join(
                label or "params"
                for label, varied in zip(self.labels, self.varied, strict=True)
                if varied
            )
            where += f" ({names}; the other leaves held)"
        return where + (" for all data in the range" if self.has_data_range else "")

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """Return params from a list of leaves."""
        return jax.tree.unflatten(jax.tree.structure(self.params), list(leaves))

    def value(self, leaves: Sequence[Any]) -> float:
        """Evaluate the loss in float64 at a list of leaves, at the data's low ends."""
        with jax.enable_x64(True):
            return float(self.loss([np.asarray(leaf, np.float64) for leaf in leaves]))

    def digest(self) -> str:
        """Hash the whole statement: program, domain, data, what is held, versions."""
        digest = hashlib.blake2b(digest_size=32)
        for part in (
            jax.__version__,
            [
                (e.primitive, e.inputs, e.outputs, _settings(e.params))
                for e in self.program.equations
            ],
            self.program.shapes,
            self.program.assumptions,
            self.varied,
        ):
            digest.update(repr(part).encode())
        for array in self.program.constants.values():
            digest.update(np.ascontiguousarray(array).tobytes())
        for interval in (*self.domain, *self.data):
            if interval is not None:
                ends = (interval.low,) if interval.is_point else tuple(interval)
                for end in ends:
                    digest.update(repr((end.shape, len(ends))).encode())
                    digest.update(np.ascontiguousarray(end).data)
        return digest.hexdigest()


def pose(
    call: str,
    loss_fn: Callable[..., Any],
    params: Any,
    data: Any = None,
    *,
    domain: Box | None = None,
    wrt: Any = None,
) -> Problem:
    """Check the arguments, trace the loss and lay out the ranges.

    Args:
      call: the public function that asks, for messages.
      loss_fn: `loss_fn(params, data)`, or `loss_fn(params)` where data is None.
      params: a pytree of floating-point arrays or numbers.
      data: a pytree of arrays, or a `Box` of two such trees.
      domain: None for the whole space, or a `Box` like params.
      wrt: None for all leaves; else the tree path of a leaf or a group of leaves as
        `"['layer1']"` or its plain key `"layer1"`, or several of them.

    Raises:
      TypeError: params have leaves that are no floating-point numbers; `domain` is no
        Box; the loss is no real number.
      ValueError: trees or shapes do not match; the loss is no scalar; `wrt` names
        nothing; params hold NaN or infinity; the start lies outside of the domain.
    """
    if not callable(loss_fn):
        raise TypeError(
            f"{call}: `loss_fn` must be a function, got a {type(loss_fn).__name__}."
        )
    _checks.check_float_leaves(call, "params", params)
    labels = tuple(_tree.leaf_paths(params))
    start = tuple(_as_float64(leaf) for leaf in jax.tree.leaves(params))
    _check_finite(call, "params", labels, start)
    if not sum(leaf.size for leaf in start):
        raise ValueError(f"{call}: `params` must have at least one number, got none.")
    varied = _varied(call, labels, wrt)
    ranges = _domain(call, params, start, domain)
    held = tuple(
        interval if varies else from_array(leaf)
        for interval, varies, leaf in zip(ranges, varied, start, strict=True)
    )
    low, data_ranges = _data_ranges(call, data)
    program = _traced(call, loss_fn, params, low)
    tree = jax.tree.structure(params)

    def loss(leaves: Sequence[Any]) -> Any:
        point = jax.tree.unflatten(tree, list(leaves))
        return loss_fn(point) if low is None else loss_fn(point, low)

    return Problem(
        call=call,
        program=program,
        params=params,
        start=start,
        varied=varied,
        domain=held,
        data=data_ranges,
        labels=labels,
        is_box=domain is not None,
        has_data_range=isinstance(data, Box)
        and any(d is not None and not d.is_point for d in data_ranges),
        loss=loss,
    )


def _as_float64(leaf: Any) -> np.ndarray:
    return np.asarray(leaf).astype(np.float64)  # jnp would round where x64 is off


def _check_finite(
    call: str, argument: str, labels: Sequence[str], leaves: Sequence[np.ndarray]
) -> None:
    for label, leaf in zip(labels, leaves, strict=True):
        if not np.isfinite(leaf).all():
            at = f" at leaf {label}" if label else ""
            raise ValueError(
                f"{call}: `{argument}` must be finite, got {_checks.brief(leaf)}{at}."
            )


def _traced(call: str, loss_fn: Any, params: Any, data: Any) -> Program:
    try:
        return trace(loss_fn, params, data)
    except (TypeError, ValueError) as error:
        if str(error).startswith("the value of `loss_fn`"):
            raise type(error)(f"{call}: {error}") from None
        error.add_note(f"This was raised by `loss_fn` while {call} traced it.")
        raise
    except Exception as error:
        error.add_note(f"This was raised by `loss_fn` while {call} traced it.")
        raise


def _varied(call: str, labels: Sequence[str], wrt: Any) -> tuple[bool, ...]:
    if wrt is None:
        return (True,) * len(labels)
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    found = [False] * len(labels)
    for name in names:
        hits = [
            place
            for place, label in enumerate(labels)
            if label == name
            or label.startswith((f"['{name}']", f".{name}"))
            or (name and label.startswith(name))
        ]
        if not hits:
            raise ValueError(
                f"{call}: `wrt` must name leaves of params, got {name!r}; the leaves "
                f"are {', '.join(label or 'params itself' for label in labels)}."
            )
        for place in hits:
            found[place] = True
    return tuple(found)


def _domain(
    call: str, params: Any, start: Sequence[np.ndarray], domain: Box | None
) -> list[Interval]:
    if domain is None:
        return [
            Interval(np.full(leaf.shape, -np.inf), np.full(leaf.shape, np.inf))
            for leaf in start
        ]
    if not isinstance(domain, Box):
        raise TypeError(
            f"{call}: `domain` must be None or a `phihat.Box(low, high)`, got a "
            f"{type(domain).__name__}."
        )
    _checks.check_box(call, "domain", domain, params)
    lows, highs = (_spread_leaves(end, start) for end in (domain.low, domain.high))
    ranges = []
    labels = _tree.leaf_paths(params)
    for label, leaf, low, high in zip(labels, start, lows, highs, strict=True):
        at = f" at leaf {label}" if label else ""
        if not np.all((low <= leaf) & (leaf <= high)):
            raise ValueError(
                f"{call}: `params` must lie within `domain`, got "
                f"{_checks.brief(leaf)}{at}."
            )
        ranges.append(Interval(low, high))
    return ranges


def _spread_leaves(end: Any, start: Sequence[np.ndarray]) -> list[np.ndarray]:
    leaves = jax.tree.leaves(end)
    if len(leaves) == 1 and np.ndim(leaves[0]) == 0:
        leaves = leaves * len(start)
    return [
        np.array(np.broadcast_to(np.asarray(bound, np.float64), leaf.shape))
        for bound, leaf in zip(leaves, start, strict=True)
    ]


def _data_ranges(call: str, data: Any) -> tuple[Any, tuple[Interval | None, ...]]:
    """Return the data to trace with, and the range of each leaf."""
    if data is None:
        return None, ()
    low, high = (data.low, data.high) if isinstance(data, Box) else (data, data)
    lows, low_tree = jax.tree.flatten(low)
    highs, high_tree = jax.tree.flatten(high)
    if low_tree != high_tree:
        raise ValueError(
            f"{call}: `data` as a Box must have two trees of the same structure, got "
            f"{low_tree} and {high_tree}."
        )
    return low, tuple(map(_data_range, lows, highs))


def _data_range(low: Any, high: Any) -> Interval | None:
    """Return the range of one leaf; None where it holds no finite real numbers."""
    if _tree.is_key(low):
        return None
    one = np.asarray(low)
    other = one if low is high else np.asarray(high)
    if not (_is_real(one) and _is_real(other)):
        return None
    if low is high or np.array_equal(one, other):
        ends = (np.min(one, initial=0), np.max(one, initial=0))
        return from_array(one) if np.isfinite(ends).all() else None
    shape = np.broadcast_shapes(one.shape, other.shape)
    low, high = from_array(one).low, from_array(other).high
    return Interval(*(np.array(np.broadcast_to(end, shape)) for end in (low, high)))


def _is_real(array: np.ndarray) -> bool:
    """Whether an array holds real numbers, none of which is NaN."""
    name = str(array.dtype)
    if not name.startswith(("float", "bfloat", "int", "uint", "bool")):
        return False
    return not np.isnan(np.min(array, initial=0))


def _settings(params: Any) -> str:
    return ", ".join(
        f"{key}={value!r}"
        for key, value in sorted(params.items())
        if not callable(value) and "jaxpr" not in key
    )

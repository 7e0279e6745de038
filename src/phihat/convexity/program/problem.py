"""The question: which function, of which leaves, on which domain, for which data."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Box
from phihat.convexity.numbers import dtypes
from phihat.convexity.numbers.intervals import Interval, from_array
from phihat.convexity.program.form import Program
from phihat.convexity.program.statement import digest_of
from phihat.convexity.program.trace import NoLoss, Untraceable, trace

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
      loss: the jaxpr that was traced, derivative rules and all, as a function of the
        list of leaves of params, at the data's lower ends, in its own dtypes.
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

    def cut(self, point: Any) -> list[Any]:
        """Cut flat points `[..., N]` into leaves like those of params."""
        ends = np.cumsum([leaf.size for leaf in self.start])
        return [
            point[..., end - leaf.size : end].reshape(point.shape[:-1] + leaf.shape)
            for leaf, end in zip(self.start, ends.tolist(), strict=True)
        ]

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """Return params from a list of leaves."""
        return jax.tree.unflatten(jax.tree.structure(self.params), list(leaves))

    def value(self, leaves: Sequence[Any]) -> float:
        """Evaluate the loss in its own dtypes, at the data's low ends."""
        return float(self.loss(leaves))

    def digest(self) -> str:
        """Hash the whole statement: program, domain, data, what is held, versions."""
        ranges = [None if r is None else r.stored for r in (*self.domain, *self.data)]
        return digest_of(self.program, self.varied, ranges)


def pose(
    call: str,
    loss_fn: Callable[..., Any],
    params: Any,
    data: Any = None,
    *,
    domain: Box | None = None,
    wrt: Any = None,
    like: Any = None,
) -> Problem:
    """Check the arguments, trace the loss and lay out the ranges.

    `call` is the public function that asks, for messages; the next are its arguments.
    `like` is what to trace with in place of params, where those are float64 only
    because they were computed here: a pytree of `jax.ShapeDtypeStruct`s.
    """
    _check_loss(call, loss_fn, params, data)
    _checks.check_float_leaves(call, "params", params)
    labels = tuple(_tree.leaf_paths(params))
    start = tuple(map(_as_float64, jax.tree.leaves(params)))
    _check_finite(call, labels, start)
    if not sum(leaf.size for leaf in start):
        raise ValueError(f"{call}: `params` must have at least one number, got none.")
    varied = _varied(call, params, labels, wrt)
    ranges = _domain(call, params, start, domain)
    low, high = _data_ends(call, data)
    program = _traced(call, loss_fn, params if like is None else like, low, high)
    start = tuple(
        leaf if varies else _as_float64(_as_traced(leaf, program.dtypes[number]))
        for leaf, varies, number in zip(start, varied, program.params, strict=True)
    )
    held = tuple(
        interval if varies else from_array(leaf)
        for interval, varies, leaf in zip(ranges, varied, start, strict=True)
    )
    program, lows, data_ranges, is_range = _with_data(call, program, data, low, high)
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
        has_data_range=is_range,
        loss=_loss(program, lows),
    )


def _with_data(
    call: str, program: Program, data: Any, low: Any, high: Any
) -> tuple[Program, list[Any], tuple[Interval | None, ...], bool]:
    """Return the program, the data's low ends as they are traced, ranges, if any."""
    kinds = [program.dtypes[number] for number in program.data]
    lows = highs = list(map(_as_traced, jax.tree.leaves(low), kinds))
    if low is not high:
        highs = list(map(_as_traced, jax.tree.leaves(high), kinds))
        _check_no_wrap(call, low, zip(lows, highs, strict=True), data)
    ranges = tuple(map(_data_range, lows, highs))
    gaps = {
        number: leaf
        for number, leaf, found in zip(program.data, lows, ranges, strict=True)
        if low is high and found is None and dtypes.is_readable(_dtype(leaf))
    }
    if gaps:  # NaN and infinities are no range, but known
        program = dataclasses.replace(program, constants={**program.constants, **gaps})
    return program, lows, ranges, not all(map(_is_one, lows, highs))


def _check_loss(call: str, loss_fn: Any, params: Any, data: Any) -> None:
    """Refuse what is no loss of these; a Box of data where the loss takes none."""
    if not callable(loss_fn):
        cure = "; pass `loss_fn` first, then `params`" if callable(params) else ""
        raise TypeError(
            f"{call}: `loss_fn` must be a function, got a {type(loss_fn).__name__}"
            f"{cure}."
        )
    if isinstance(params, Box):
        raise TypeError(
            f"{call}: `params` must be a point, got a Box; pass a point of it, and the "
            "box as `domain=`, or ask `certify_convexity(loss_fn, box)`."
        )
    if not isinstance(data, Box):
        return
    try:
        signature = inspect.signature(loss_fn)
    except (TypeError, ValueError):  # it does not tell what it takes
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise TypeError(
            f"{call}: `data` must be None for a loss of params alone, got a Box; pass "
            "the box in which params vary as `domain=`."
        ) from None


def _loss(program: Program, data: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
    """Return the traced jaxpr as a function of the leaves of params."""
    call = jax.extend.core.jaxpr_as_fun(program.closed)
    x64 = bool(jax.config.read("jax_enable_x64"))

    def loss(leaves: Sequence[Any]) -> Any:
        with jax.enable_x64(x64):
            params = [
                jax.lax.convert_element_type(leaf, program.dtypes[number])
                for leaf, number in zip(leaves, program.params, strict=True)
            ]
            return call(*params, *data)[0]

    return loss


def _as_float64(leaf: Any) -> np.ndarray:
    return np.asarray(leaf).astype(np.float64)  # jnp would round where x64 is off


def _dtype(leaf: Any) -> Any:
    return getattr(leaf, "dtype", np.float64)


def _as_traced(leaf: Any, dtype: Any) -> Any:
    """Round a leaf as the user's configuration does; a random key stays as it is."""
    if _tree.is_key(leaf):
        return leaf
    array = np.asarray(leaf)
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def _check_finite(call: str, labels: Sequence[str], leaves: Sequence[Any]) -> None:
    for label, leaf in zip(labels, leaves, strict=True):
        if not np.isfinite(leaf).all():
            at = f" at leaf {label}" if label else ""
            raise ValueError(
                f"{call}: `params` must be finite, got {_checks.brief(leaf)}{at}."
            )


def _traced(call: str, loss_fn: Any, params: Any, low: Any, high: Any) -> Program:
    """Trace the user's own program; what the loss raises is shown as it is."""
    try:
        return trace(loss_fn, params, _prototypes(low, high))
    except NoLoss as error:
        raise error.kind(f"{call}: {error}") from None
    except Untraceable:
        raise
    except Exception as error:
        error.add_note(f"This was raised by `loss_fn` while {call} traced it.")
        raise


def _prototypes(low: Any, high: Any) -> Any:
    """Return what to trace data with: of two ends of a range, the wider dtype."""
    if low is high:
        return low

    def prototype(one: Any, other: Any) -> Any:
        if _tree.is_key(one) or _tree.is_key(other):
            return one
        with jax.numpy_dtype_promotion("standard"):
            dtype = jnp.result_type(one, other)
        types = [jax.typeof(end) for end in (one, other)]
        weak = all(getattr(type_, "weak_type", False) for type_ in types)
        return jax.ShapeDtypeStruct(np.shape(one), dtype, weak_type=weak)

    return jax.tree.map(prototype, low, high)


def _varied(
    call: str, params: Any, labels: Sequence[str], wrt: Any
) -> tuple[bool, ...]:
    """Tell which leaves vary: those whose path is, or goes through, a name."""
    if wrt is None:
        return (True,) * len(labels)
    names = [wrt] if isinstance(wrt, str) else wrt
    if not isinstance(names, (list, tuple, set, frozenset)) or not all(
        isinstance(name, str) for name in names
    ):
        raise TypeError(
            f"{call}: `wrt` must be the path of a leaf as text, or several, got "
            f"{wrt!r}."
        )
    if not names:
        raise ValueError(f"{call}: `wrt` must name at least one leaf, got {wrt!r}.")
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    known = [_names_of(path) for path in paths]
    for name in names:
        if not any(name in of_leaf for of_leaf in known):
            raise ValueError(
                f"{call}: `wrt` must name leaves of params, got {name!r}; the leaves "
                f"are {', '.join(label or 'params itself' for label in labels)}."
            )
    return tuple(not of_leaf.isdisjoint(names) for of_leaf in known)


def _names_of(path: Sequence[Any]) -> set[str]:
    """Return what names a leaf: each whole part of its path, and the plain first key.

    A name is compared as a whole, so that `w` is never `w2`.
    """
    found = {
        jax.tree_util.keystr(tuple(path[:length])) for length in range(1, len(path) + 1)
    }
    if not path:
        return {""}
    plain = getattr(path[0], "key", getattr(path[0], "name", None))
    return found | ({plain} if isinstance(plain, str) else set())


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
        outside = ~((low <= leaf) & (leaf <= high))
        if outside.any():
            place = tuple(map(int, np.argwhere(outside)[0]))
            ends = [np.broadcast_to(end, leaf.shape)[place] for end in (low, high)]
            at += f"[{', '.join(map(str, place))}]" if place else ""
            raise ValueError(
                f"{call}: `params` must lie within `domain`, got {leaf[place]:g}{at}, "
                f"outside {ends[0]:g} to {ends[1]:g}."
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


def _data_ends(call: str, data: Any) -> tuple[Any, Any]:
    """Return both ends of the data's range, which are one where they are known."""
    if not isinstance(data, Box):
        return data, data
    lows, low_tree = jax.tree.flatten(data.low)
    highs, high_tree = jax.tree.flatten(data.high)
    if low_tree != high_tree:
        raise ValueError(
            f"{call}: `data` as a Box must have two trees of the same structure, got "
            f"{low_tree} and {high_tree}."
        )
    for label, low, high in zip(_tree.leaf_paths(data.low), lows, highs, strict=True):
        if np.shape(low) != np.shape(high):
            at = f" at leaf {label}" if label else ""
            raise ValueError(
                f"{call}: both ends of `data` must have the same shape, got "
                f"{list(np.shape(low))} and {list(np.shape(high))}{at}."
            )
    return data.low, data.high


def _check_no_wrap(call: str, low: Any, traced: Iterable[Any], data: Box) -> None:
    """Refuse a range of integers whose ends wrap: nothing would lie between them."""
    ends = zip(jax.tree.leaves(low), jax.tree.leaves(data.high), strict=True)
    for label, given, found in zip(_tree.leaf_paths(low), ends, traced, strict=True):
        for end, rounded in zip(given, found, strict=True):
            if _tree.is_key(end) or not dtypes.is_integer(rounded.dtype):
                continue
            wrong = np.asarray(end)[np.asarray(end) != rounded]
            if wrong.size:
                at = f" at leaf {label}" if label else ""
                raise ValueError(
                    f"{call}: both ends of `data` must fit in {rounded.dtype}, in "
                    f"which the loss reads them, got {wrong[0]}{at}; give "
                    "floats, or enable `jax_enable_x64`."
                )


def _data_range(low: Any, high: Any) -> Interval | None:
    """Return the range of one leaf; None where it holds no finite real numbers."""
    if _tree.is_key(low):
        return None
    one = np.asarray(low)
    other = one if low is high else np.asarray(high)
    if not (_is_real(one) and _is_real(other)):
        return None
    if _is_one(low, high):
        ends = (np.min(one, initial=0), np.max(one, initial=0))
        return from_array(one) if np.isfinite(ends).all() else None
    return Interval(from_array(one).low, from_array(other).high)


def _is_one(low: Any, high: Any) -> bool:
    """Whether both ends of a leaf of data are the same."""
    return low is high or (not _tree.is_key(low) and np.array_equal(low, high))


def _is_real(array: np.ndarray) -> bool:
    """Whether an array holds real numbers, none of which is NaN."""
    if not dtypes.is_readable(array.dtype):
        return False
    return not np.isnan(np.min(array, initial=0))

r"""Arithmetic of second-order enclosures: sums, products, compositions, the larger.

Each rule takes bounds that mean what `jets` says, and returns such bounds; its proof is
in its docstring. Loewner bounds are not bounds of entries: they are added, and scaled
by a function of known sign, and nothing else; of two bounds one is chosen for a whole
matrix.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.derivatives import Derivatives
from phihat.convexity.numbers.intervals import Interval, add, mul, neg, sub
from phihat.convexity.numbers.jets import Jet, Ridge, hull_of_parts, joined_rows, pair

__all__ = ["compose", "maximum", "minimum", "negative", "product", "total"]


def total(x: Ridge | Jet, y: Ridge | Jet, slopes: Interval) -> Ridge | Jet:
    """Add: derivatives add, and so do bounds."""
    f, g = pair(x, y, slopes)
    value = add(f.value, g.value)
    if isinstance(f, Ridge) and isinstance(g, Ridge):
        if f.rows is None and g.rows is None:
            return Ridge(None, value)
        first, second = _plus(f.first, g.first), _plus(f.second, g.second)
        return Ridge(joined_rows(f, g), value, first, second)
    assert isinstance(f, Jet)
    assert isinstance(g, Jet)
    lower = add(f.lower, g.lower)
    is_smooth = f.lower is f.upper and g.lower is g.upper
    return Jet(
        value,
        add(f.grad, g.grad),
        lower,
        lower if is_smooth else add(f.upper, g.upper),
        f.is_convex & g.is_convex,
        f.is_concave & g.is_concave,
    )


def negative(x: Ridge | Jet) -> Ridge | Jet:
    """Negate: the bounds change places."""
    if isinstance(x, Ridge):
        return x.map(neg, lambda rows: rows)
    lower = neg(x.upper)
    upper = lower if x.lower is x.upper else neg(x.lower)
    return Jet(neg(x.value), neg(x.grad), lower, upper, x.is_concave, x.is_convex)


def product(x: Ridge | Jet, y: Ridge | Jet, slopes: Interval) -> Ridge | Jet:
    r"""Multiply: $(fg)'' = f g'' + g f'' + 2 f' g'$.

    f and g are continuous and f', g' of bounded variation, so that $fg''$ and $gf''$
    are products of a measure and a continuous function.
    """
    for factor, other in ((x, y), (y, x)):
        if isinstance(factor, Ridge) and factor.rows is None and isinstance(other, Jet):
            return _multiple(hull_of_parts(factor.value), other)
    f, g = pair(x, y, slopes)
    value = mul(f.value, g.value)
    if isinstance(f, Ridge) and isinstance(g, Ridge):
        if f.rows is None and g.rows is None:
            return Ridge(None, value)
        first = _plus(_times(f.first, g.value), _times(g.first, f.value))
        second = _plus(_times(f.second, g.value), _times(g.second, f.value))
        if f.first is not None and g.first is not None:
            second = add(second, mul(mul(2.0, f.first), g.first))
        return Ridge(joined_rows(f, g), value, first, second)
    assert isinstance(f, Jet)
    assert isinstance(g, Jet)
    cross = _outer(f.grad, g.grad)
    cross = add(cross, cross.transpose(0, 1, 3, 2))
    one_lower, one_upper = _bounds_times(g.value, f)
    other_lower, other_upper = _bounds_times(f.value, g)
    lower = add(add(one_lower, other_lower), cross)
    is_smooth = one_lower is one_upper and other_lower is other_upper
    unknown = np.zeros(value.shape, bool)
    return Jet(
        value,
        add(mul(g.value[..., None], f.grad), mul(f.value[..., None], g.grad)),
        lower,
        lower if is_smooth else add(add(one_upper, other_upper), cross),
        unknown,
        unknown,
    )


def _multiple(factor: Interval, x: Jet) -> Jet:
    lower, upper = _bounds_times(factor, x)
    is_up, is_down = factor.low >= 0, factor.high <= 0
    return Jet(
        mul(factor, x.value),
        mul(factor[..., None], x.grad),
        lower,
        upper,
        (is_up & x.is_convex) | (is_down & x.is_concave),
        (is_up & x.is_concave) | (is_down & x.is_convex),
    )


def compose(x: Ridge | Jet, fn: Callable[[Interval], Derivatives]) -> Ridge | Jet:
    r"""Apply a function that is twice continuously differentiable on the range of x.

    $(\varphi \circ v)'' = \varphi'(v) v'' + \varphi''(v) v'^2$, and $\varphi'(v)$ is
    continuous. As $gg' \succeq 0$, the least $\varphi''$ times gg' bounds from below;
    so does 0 where that $\varphi''$ is positive, which is better for vague gradients.
    """
    value, slope, bend = fn(x.value)
    if isinstance(x, Ridge):
        if x.first is None or x.second is None:
            return Ridge(None, value)
        second = add(mul(slope, x.second), mul(bend, iv.square(x.first)))
        return Ridge(x.rows, value, mul(slope, x.first), second)
    lower, upper = _bounds_times(slope, x)
    outer = _outer(x.grad, x.grad)
    is_vague = ~_is_gradient_known(x.grad)
    least = np.where((bend.low > 0) & is_vague, 0.0, bend.low)
    most = np.where((bend.high < 0) & is_vague, 0.0, bend.high)
    is_affine = x.is_convex & x.is_concave
    rises, falls = slope.low >= 0, slope.high <= 0
    is_convex = is_affine | (x.is_convex & rises) | (x.is_concave & falls)
    is_concave = is_affine | (x.is_concave & rises) | (x.is_convex & falls)
    return Jet(
        value,
        mul(slope[..., None], x.grad),
        add(lower, _end_times(least, outer)),
        add(upper, _end_times(most, outer)),
        is_convex & (bend.low >= 0),
        is_concave & (bend.high <= 0),
    )


def maximum(x: Ridge | Jet, y: Ridge | Jet, slopes: Interval) -> Ridge | Jet:
    r"""Take the larger; where either may be, or both, there may be a convex kink.

    Let $f'' \ge a$ and $g'' \ge b$ along a segment, and $q'' = \min(a, b)$. Then
    $f - q$ and $g - q$ are convex, so is the larger of them, $\max(f, g) - q$.
    """
    f, g = pair(x, y, slopes)
    value = iv.maximum(f.value, g.value)
    first_wins = f.value.low > g.value.high  # strictly: a tie that touches counts
    tie = ~first_wins & ~(f.value.high < g.value.low)

    def either(one: Interval, other: Interval, axes: int = 0) -> Interval:
        ties, wins = (m.reshape(*m.shape, *[1] * axes) for m in (tie, first_wins))
        return iv.where(ties, iv.hull(one, other), iv.where(wins, one, other))

    if isinstance(f, Ridge) and isinstance(g, Ridge):
        if f.rows is None and g.rows is None:
            return Ridge(None, value)
        first = either(_or_zero(f.first), _or_zero(g.first))
        second = either(_or_zero(f.second), _or_zero(g.second))
        kinked = Interval(second.low, np.where(tie, np.inf, second.high))
        return Ridge(joined_rows(f, g), value, first, kinked)
    assert isinstance(f, Jet)
    assert isinstance(g, Jet)
    upper = either(f.upper, g.upper, 2)
    unbounded = iv.entire(upper.shape)
    return Jet(
        value,
        either(f.grad, g.grad, 1),
        either(f.lower, g.lower, 2),
        iv.where(tie[..., None, None], unbounded, upper),
        np.where(first_wins, f.is_convex, g.is_convex & (f.is_convex | ~tie)),
        ~tie & np.where(first_wins, f.is_concave, g.is_concave),
    )


def minimum(x: Ridge | Jet, y: Ridge | Jet, slopes: Interval) -> Ridge | Jet:
    """Take the smaller: min(f, g) = -max(-f, -g)."""
    return negative(maximum(negative(x), negative(y), slopes))


# ------------------------------------------------------------------------ bounds


def _bounds_times(factor: Interval, x: Jet) -> tuple[Interval, Interval]:
    r"""Bound $p v''$ for a continuous function p in an interval, $[p_0, p_1]$.

    A Hessian is multiplied entry by entry. Else, with $L \preceq v'' \preceq U$: for
    $p \ge 0$ it lies between pL and pU, for $p \le 0$ the other way round, and in
    general $p v'' = pL + p(v'' - L)$, where $0 \preceq v'' - L \preceq U - L$, so that
    $pL + \min(p_0, 0)(U - L) \preceq p v'' \preceq pL + \max(p_1, 0)(U - L)$.
    """
    p = factor[..., None, None]
    scaled = mul(p, x.lower)
    if x.lower is x.upper:
        return scaled, scaled
    is_up, is_down = p.low >= 0, p.high <= 0
    other = mul(p, x.upper)
    lower, upper = iv.where(is_up, scaled, other), iv.where(is_up, other, scaled)
    if np.all(is_up | is_down):
        return lower, upper
    gap = sub(x.upper, x.lower)
    below = add(scaled, mul(iv.minimum(_end(p.low), 0.0), gap))
    above = add(scaled, mul(iv.maximum(_end(p.high), 0.0), gap))
    one_sign = is_up | is_down
    return iv.where(one_sign, lower, below), iv.where(one_sign, upper, above)


def _end(end: np.ndarray) -> Interval:
    """Make an interval of one end; an infinite end may be any number."""
    finite = np.isfinite(end)
    return Interval(np.where(finite, end, -np.inf), np.where(finite, end, np.inf))


def _end_times(end: np.ndarray, matrix: Interval) -> Interval:
    """Multiply matrices by one end of an interval; unbounded where it is infinite."""
    finite = np.isfinite(end)[..., None, None]
    scaled = mul(np.where(finite[..., 0, 0], end, 0.0)[..., None, None], matrix)
    return iv.where(finite, scaled, iv.entire(scaled.shape))


def _outer(f: Interval, g: Interval) -> Interval:
    """Enclose fg' `[C, N, n, n]`; squares on the diagonal where f is g."""
    outer = mul(f[..., :, None], g[..., None, :])
    if f is not g:
        return outer
    is_diagonal = np.eye(f.shape[-1], dtype=bool)
    return iv.where(is_diagonal, iv.square(f)[..., None], outer)


def _is_gradient_known(grad: Interval) -> np.ndarray:
    """Tell where the gradient's middle outweighs its radius, entries scaled alike."""
    size = grad.magnitude.max((0, 1), initial=0.0)
    scale = np.where((size > 0) & np.isfinite(size), size, 1.0)
    middle, radius = grad.middle / scale, grad.width / (2 * scale)
    with np.errstate(all="ignore"):
        return (middle**2).sum(-1) > (radius**2).sum(-1)


def _plus(x: Interval | None, y: Interval | None) -> Interval:
    """Add derivatives, of which those of constants are None, but not both."""
    if x is None or y is None:
        return _or_zero(x if y is None else y)
    return add(x, y)


def _times(x: Interval | None, y: Interval) -> Interval | None:
    return None if x is None else mul(x, y)


def _or_zero(x: Any) -> Interval:
    return iv.from_array(np.zeros((1, 1, 1))) if x is None else x

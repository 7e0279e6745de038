# ruff: noqa: ARG001, ARG005 - rules of one table share a signature
"""The kernel on smooth expressions of one value: the second derivative on cells.

The cells cover the range of the value; each must show the same sign.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from phihat.convexity.kernel.facts import Known, Refused
from phihat.convexity.kernel.pieces import Expression
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval

__all__ = ["SMOOTH", "shape_of_cells"]

_MAX_CELLS = 4096

Jet = tuple[Any, Any, Any]


def _chain(f: Any, d: Any, dd: Any, x: Jet) -> Jet:
    """f(x), f'(x) x', f''(x) x'^2 + f'(x) x''."""
    return f, d * x[1], dd * iv.square(x[1]) + d * x[2]


def _times(x: Jet, y: Jet) -> Jet:
    return (
        x[0] * y[0],
        x[1] * y[0] + x[0] * y[1],
        x[2] * y[0] + 2.0 * (x[1] * y[1]) + x[0] * y[2],
    )


def _inverse(x: Jet) -> Jet:
    if not ((x[0].low > 0) | (x[0].high < 0)).all():
        raise Refused("a divisor that may be zero")
    r = iv.div(1.0, x[0])
    return _chain(r, -iv.square(r), 2.0 * iv.integer_power(r, 3), x)


def _log(x: Jet) -> Jet:
    if not (x[0].low > 0).all():
        raise Refused("a logarithm of what may be zero")
    r = iv.div(1.0, x[0])
    return _chain(iv.log(x[0]), r, -iv.square(r), x)


def _logistic(x: Jet) -> Jet:
    s, t = iv.logistic(x[0]), iv.logistic(-x[0])
    return _chain(s, s * t, s * t * (t - s), x)


def _tanh(x: Jet) -> Jet:
    t, s = iv.tanh(x[0]), 4.0 * iv.logistic(2.0 * x[0]) * iv.logistic(-2.0 * x[0])
    return _chain(t, s, -2.0 * (t * s), x)


def _logaddexp(x: Jet, y: Jet) -> Jet:
    d = tuple(a - b for a, b in zip(x, y, strict=True))
    s, t = iv.logistic(d[0]), iv.logistic(-d[0])
    first = s * x[1] + t * y[1]
    second = s * x[2] + t * y[2] + s * t * iv.square(d[1])
    return iv.logaddexp(x[0], y[0]), first, second


def _whole(x: Jet, n: int) -> Jet:
    if n < 0:
        return _inverse(_whole(x, -n))
    if n == 0:
        one = 0.0 * x[0] + 1.0
        return one, 0.0 * x[1], 0.0 * x[2]
    v = x[0]
    d = float(n) * iv.integer_power(v, n - 1)
    dd = float(n * (n - 1)) * iv.integer_power(v, n - 2) if n > 1 else 0.0 * v
    return _chain(iv.integer_power(v, n), d, dd, x)


def _sqrt(x: Jet) -> Jet:
    if not (x[0].low > 0).all():
        raise Refused("a root of what may be zero")
    r = iv.sqrt(x[0])
    return _chain(r, iv.div(0.5, r), iv.div(-0.25, r * x[0]), x)


def _exponential(x: Jet) -> Jet:
    e = iv.exp(x[0])
    return _chain(e, e, e, x)


def _pow(x: Jet, y: Jet) -> Jet:
    a = float(y[0].low[0])
    if not ((y[0].low == a) & (y[0].high == a)).all():
        raise Refused("an exponent that is not one number")
    if a == int(a):
        return _whole(x, int(a))
    if not (x[0].low > 0).all():
        raise Refused("a power of what may be zero")
    v = iv.power(x[0], a)
    d = a * iv.div(v, x[0])
    return _chain(v, d, iv.sub(a, 1.0) * iv.div(d, x[0]), x)


def _gamma(n: int) -> Callable[..., Jet]:
    def jet(p: Any, x: Jet) -> Jet:
        """For z > 0; if that is known, an end at 0 is open, and so is what it gives."""
        if not ((x[0].low > 0) | p.get("positive", False)).all():
            raise Refused("the gamma function of what may be zero")
        value = iv.lgamma(x[0]) if n == 0 else iv.digamma(x[0])
        first = iv.digamma(x[0]) if n == 0 else iv.polygamma(1, x[0])
        return _chain(value, first, iv.polygamma(n + 1, x[0]), x)

    return jet


def _erf(p: Any, x: Jet) -> Jet:
    d = Interval(1.1283791670955123, 1.128379167095513) * iv.exp(-iv.square(x[0]))
    return _chain(iv.erf(x[0]), d, -2.0 * (x[0] * d), x)


def _atan(p: Any, x: Jet) -> Jet:
    d = iv.div(1.0, 1.0 + iv.square(x[0]))
    return _chain(iv.atan(x[0]), d, -2.0 * (x[0] * iv.square(d)), x)


def _asinh(p: Any, x: Jet) -> Jet:
    d = iv.div(1.0, iv.sqrt(1.0 + iv.square(x[0])))
    return _chain(iv.asinh(x[0]), d, -(x[0] * iv.integer_power(d, 3)), x)


def _erfc(p: Any, x: Jet) -> Jet:
    _, d, dd = _erf(p, (x[0], Interval(1.0, 1.0), Interval(0.0, 0.0)))
    return _chain(iv.erfc(x[0]), -d, -dd, x)


def _log_ndtr(p: Any, x: Jet) -> Jet:
    """With h = f / F, log F has the slope h > 0 and the bend -h (h + x) in (-1, 0)."""
    h = iv.maximum(iv.div(1.0, iv.mills_ratio(-x[0])), 0.0)
    bend = iv.minimum(iv.maximum(-(h * (h + x[0])), -1.0), 0.0)
    return _chain(iv.log_ndtr(x[0]), h, bend, x)


def _cbrt(p: Any, x: Jet) -> Jet:
    if not ((x[0].low > 0) | (x[0].high < 0)).all():
        raise Refused("a cube root of what may be zero")
    c = iv.cbrt(x[0])
    d = iv.div(1.0, 3.0 * iv.square(c))
    return _chain(c, d, iv.div(-2.0 * d, 3.0 * x[0]), x)


_LOG_2 = Interval(0.693147180559945, 0.693147180559946)


def _expm1(p: Any, x: Jet) -> Jet:
    e = iv.exp(x[0])
    return _chain(iv.expm1(x[0]), e, e, x)


SMOOTH: dict[str, Callable[..., Jet]] = {
    "add": lambda p, x, y: tuple(a + b for a, b in zip(x, y, strict=True)),  # type: ignore
    "asinh": _asinh,
    "atan": _atan,
    "cbrt": _cbrt,
    "cos": lambda p, x: _chain(iv.cos(x[0]), -iv.sin(x[0]), -iv.cos(x[0]), x),
    "cosh": lambda p, x: _chain(iv.cosh(x[0]), iv.sinh(x[0]), iv.cosh(x[0]), x),
    "digamma": _gamma(1),
    "div": lambda p, x, y: _times(x, _inverse(y)),
    "entr": lambda p, x: tuple(-a for a in _times(x, _log(x))),  # type: ignore
    "erf": _erf,
    "erfc": _erfc,
    "exp": lambda p, x: _exponential(x),
    "exp2": lambda p, x: _exponential(tuple(_LOG_2 * a for a in x)),  # type: ignore
    "expm1": _expm1,
    "integer_pow": lambda p, x: _whole(x, p["y"]),
    "lgamma": _gamma(0),
    "log": lambda p, x: _log(x),
    "log1p": lambda p, x: _log((x[0] + 1.0, x[1], x[2])),
    "log_ndtr": _log_ndtr,
    "logaddexp": lambda p, x, y: _logaddexp(x, y),
    "logistic": lambda p, x: _logistic(x),
    "mul": lambda p, x, y: _times(x, y),
    "neg": lambda p, x: tuple(-a for a in x),  # type: ignore
    "pow": lambda p, x, y: _pow(x, y),
    "rsqrt": lambda p, x: _inverse(_sqrt(x)),
    "sin": lambda p, x: _chain(iv.sin(x[0]), iv.cos(x[0]), -iv.sin(x[0]), x),
    "sinh": lambda p, x: _chain(iv.sinh(x[0]), iv.cosh(x[0]), iv.sinh(x[0]), x),
    "sqrt": lambda p, x: _sqrt(x),
    "square": lambda p, x: _whole(x, 2),
    "sub": lambda p, x, y: tuple(a - b for a, b in zip(x, y, strict=True)),  # type: ignore
    "tanh": lambda p, x: _tanh(x),
}


def shape_of_cells(e: Expression, z: Known) -> Any:
    """Return (convex, concave, rises, falls, None) from enclosures on cells."""
    marks = [s * 2.0**k for s in (-1, 1) for k in range(-2, 11)]
    marks += [0.25 * k for k in range(-16, 17)]
    inner = sorted({m for m in marks if z.low < m < z.high})
    ends = np.array([z.low, *inner, z.high])
    low, high = ends[:-1], ends[1:]
    bends, slopes = [True, True], [True, True]
    for _ in range(16):
        jet = _jet_of(e, Interval(low, high))
        up, down = jet[2].low >= 0.0, jet[2].high <= 0.0
        done = up | down
        bends = [bends[0] and bool(up[done].all()), bends[1] and bool(down[done].all())]
        slopes = [
            slopes[0] and bool((jet[1].low[done] >= 0.0).all()),
            slopes[1] and bool((jet[1].high[done] <= 0.0).all()),
        ]
        if done.all() or not any(bends):
            break
        low, high = low[~done], high[~done]
        with np.errstate(all="ignore"):
            half = np.where(np.isinf(low), 2.0 * high - 1.0, low / 2 + high / 2)
            half = np.where(np.isinf(high), 2.0 * low + 1.0, half)
        if not ((low < half) & (half < high) & np.isfinite(half)).all():
            raise Refused("a cell that cannot be halved")
        low, high = np.concatenate([low, half]), np.concatenate([half, high])
        if low.size > _MAX_CELLS:
            raise Refused("too many cells")
    else:
        raise Refused("the sign of the second derivative is not found")
    return (*bends, *slopes, None)


def _jet_of(e: Expression, cells: Interval) -> Jet:
    """Enclose the expression and its two derivatives on cells."""
    zero = Interval(np.zeros(cells.shape), np.zeros(cells.shape))
    values: dict[int, Jet] = {
        k: (zero + float(c), zero, zero) for k, c in e.constants.items()
    }
    values[e.root] = (cells, zero + 1.0, zero)
    for equation in e.inside:
        if equation.primitive not in SMOOTH:
            raise Refused("not smooth")
        inputs = [values[k] for k in equation.inputs]
        values[equation.outputs[0]] = SMOOTH[equation.primitive](
            equation.params, *inputs
        )
    return values[e.n]

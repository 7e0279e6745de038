"""Intervals against fractions and 200-bit arithmetic: they hold what they say."""

import itertools
import math
import sys
from fractions import Fraction

import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import (
    Interval,
    core,
    gamma,
    normal,
    rounding,
    trusted,
)
from phihat.convexity.numbers.intervals.elementary import MONOTONE

INF = math.inf
LARGEST, TINIEST, UNIT = rounding.LARGEST, rounding.TINIEST, rounding.UNIT
EDGES = [
    *(0.0, 1.0, 0.1, 1 / 3, 2.0, 3.0, 1e16, 2.0**53 + 2, 134217729.0),
    *(1 + 2 * UNIT, 1 - UNIT, TINIEST, 3 * TINIEST, 2.0**-1022, 2.0**-1022 - TINIEST),
    *(1.3e-154, 1.3e154, 2.0**-500, 2.0**-480, 2.0**996, 2.0**1000, LARGEST),
    2.0**512 * (1 - UNIT),  # its square is finite, that of its rounded head is not
]
EDGES = [sign * edge for edge in EDGES for sign in (1.0, -1.0)]


def holds(interval: Interval, truths) -> None:
    """Assert entry by entry that fractions or big floats lie between the ends."""
    lows, highs = np.ravel(interval.low), np.ravel(interval.high)
    for low, high, truth in zip(lows, highs, truths, strict=True):
        if isinstance(truth, Fraction):
            assert low == -INF or Fraction(low) <= truth, (low, truth)
            assert high == INF or truth <= Fraction(high), (high, truth)
        else:
            with mpmath.workprec(200):
                assert mpmath.mpf(float(low)) <= truth <= mpmath.mpf(float(high)), (
                    float(low),
                    float(high),
                    mpmath.nstr(truth, 30),
                )


def is_tight(interval: Interval, floats: int = 1) -> np.ndarray:
    """Tell where the ends are at most so many floats apart."""
    end = interval.low
    with np.errstate(over="ignore"):
        for _ in range(floats):
            end = np.nextafter(end, INF)
    return interval.high <= end


def scalars(fn, *arrays) -> list[Interval]:
    return [fn(*(float(x) for x in row)) for row in zip(*arrays, strict=True)]


# ---------------------------------------------------------------------- arithmetic

OPERATIONS = {
    "add": (iv.add, lambda x, y: x + y),
    "sub": (iv.sub, lambda x, y: x - y),
    "mul": (iv.mul, lambda x, y: x * y),
    "div": (iv.div, lambda x, y: x / y),
}


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    edges = np.array(list(itertools.product(EDGES, EDGES))).T
    wild = np.ldexp(rng.uniform(-1, 1, (2, 400)), rng.integers(-1070, 1023, (2, 400)))
    near = np.ldexp(rng.uniform(-1, 1, (2, 400)), rng.integers(-30, 30, (2, 400)))
    x, y = np.concatenate([edges, wild, near], axis=1)
    return x, y


@pytest.mark.parametrize("name", OPERATIONS)
def test_points_are_enclosed_between_neighbours(name, pairs):
    operation, exact = OPERATIONS[name]
    x, y = pairs
    if name == "div":
        x, y = x[y != 0], y[y != 0]
    truths = [exact(Fraction(a), Fraction(b)) for a, b in zip(x, y, strict=True)]
    by_array = operation(x, y)
    holds(by_array, truths)
    assert is_tight(by_array, 4).all()  # twice a step that overshoots by one float
    for one, truth in zip(scalars(operation, x, y), truths, strict=True):
        holds(one, [truth])
        assert is_tight(one, 2)


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_more_widening_than_needed(name, pairs):
    """In the range where errors are exact: points if exact, else one-sided."""
    operation, exact = OPERATIONS[name]
    x, y = pairs
    usual = [(np.abs(z) < 1e60) & (np.abs(z) > 1e-60) for z in (x, y)]
    x, y = x[usual[0] & usual[1]], y[usual[0] & usual[1]]
    result = operation(x, y)
    assert is_tight(result).all()
    for a, b, low, high in zip(x, y, *result, strict=True):
        truth = exact(Fraction(a), Fraction(b))
        is_float = Fraction(float(truth)) == truth
        assert (low == high) == is_float, (a, b)


def test_integers_and_dyadic_fractions_stay_points():
    whole = np.arange(-50.0, 50.0)
    quarters = whole / 4
    for result in (
        iv.add(whole, quarters),
        iv.mul(whole, quarters),
        iv.div(whole, 8.0),
        iv.square(quarters),
        iv.integer_power(whole, 5),
        iv.sqrt(whole**2),
        iv.reduce_sum(quarters),
        iv.matmul(quarters, whole),
        iv.exp(0.0),
        iv.log(1.0),
        iv.cos(0.0),
        iv.power(whole**2, 0.0),
    ):
        assert (result.low == result.high).all()
    assert iv.add(whole, quarters).is_point
    assert iv.matmul(np.ones((80, 80)), np.arange(6400.0).reshape(80, 80)).is_point


def test_a_sum_that_floats_lose():
    total = (iv.from_array(-1) + 1e16) - 1e16
    assert total.contains(-1.0)
    assert total.width > 0


entries = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(EDGES),
    st.integers(-4, 4).map(float),
)


@st.composite
def interval_and_member(draw):
    low, high = sorted((draw(entries), draw(entries)))
    place = draw(st.fractions(0, 1))
    member = Fraction(low) + place * (Fraction(high) - Fraction(low))
    ends = (draw(st.sampled_from([low, -INF])), draw(st.sampled_from([high, INF])))
    return Interval(*ends), member


@settings(max_examples=400)
@given(interval_and_member(), interval_and_member())
def test_operations_hold_every_pair_of_members(one, other):
    (x, a), (y, b) = one, other
    for operation, exact in OPERATIONS.values():
        if operation is not iv.div or b:
            for swapped in (np.float64, lambda end: np.full(3, end)):
                wide = [Interval(*map(swapped, z)) for z in (x, y)]
                result = operation(*wide)
                holds(result, [exact(a, b)] * result.size)
    holds(iv.square(x), [a * a])
    holds(iv.absolute(x), [abs(a)])
    holds(iv.maximum(x, y), [max(a, b)])
    holds(iv.minimum(x, y), [min(a, b)])
    holds(iv.hull(x, y), [a])
    for n in (0, 1, 2, 3, 6, -1, -2, -3):
        if a or n >= 0:
            holds(iv.integer_power(x, n), [a**n])


@settings(max_examples=200)
@given(interval_and_member(), interval_and_member(), st.data())
def test_a_wider_argument_gives_a_wider_result(one, other, data):
    (x, _), (y, _) = one, other
    wider = iv.hull(x, data.draw(interval_and_member())[0])
    for operation, _exact in OPERATIONS.values():
        outer, inner = operation(wider, y), operation(x, y)
        if operation is not iv.div or iv.div_is_defined(wider, y):
            assert outer.contains(inner)
    assert iv.square(wider).contains(iv.square(x))
    assert iv.absolute(wider).contains(iv.absolute(x))


@settings(max_examples=150)
@given(st.data())
def test_rational_programs_hold_their_value(data):
    """Straight-line programs over members of intervals, evaluated in fractions."""
    values = [data.draw(interval_and_member()) for _ in range(3)]
    for _ in range(data.draw(st.integers(1, 6))):
        (x, a), (y, b) = (data.draw(st.sampled_from(values)) for _ in range(2))
        operation, exact = OPERATIONS[data.draw(st.sampled_from(sorted(OPERATIONS)))]
        if (operation is iv.div and not b) or max(map(_bits, (a, b))) > 20_000:
            continue
        values.append((operation(x, y), exact(a, b)))
        holds(values[-1][0], [values[-1][1]])


def _bits(x: Fraction) -> int:
    return x.numerator.bit_length() + x.denominator.bit_length()


# x, y, x + y, x * y, x / y; None stands for [-inf, inf]
AT_INFINITY = [
    ((0, 0), (-INF, INF), None, (0, 0), None),
    ((0, 1), (0, INF), (0, INF), (0, INF), (0, INF)),
    ((0, 1), (1, INF), (1, INF), (0, INF), (0, 1)),
    ((1, 2), (-INF, -1), (-INF, 1), (-INF, -1), (-2, 0)),
    ((-1, 2), (0, 4), (-1, 6), (-4, 8), None),
    ((1, INF), (1, INF), (2, INF), (1, INF), (0, INF)),
    ((-INF, -1), (-INF, -1), (-INF, -2), (1, INF), (0, INF)),
    ((-INF, 0), (0, INF), None, (-INF, 0), (-INF, 0)),
    ((0, 0), (0, 1), (0, 1), (0, 0), (0, 0)),
    ((0, 0), (0, 0), (0, 0), (0, 0), None),
    ((1, 1), (-0.0, 2), (1, 3), (0, 2), (0.5, INF)),
    ((1, 1), (-2, -0.0), (-1, 1), (-2, 0), (-INF, -0.5)),
    ((1, 1), (-1, 1), (0, 2), (-1, 1), None),
    ((-1, 1), (-INF, INF), None, None, None),
]


@pytest.mark.parametrize("row", AT_INFINITY)
@pytest.mark.parametrize("shape", [(), (3,)])
def test_infinite_ends_are_open(row, shape):
    x, y, *expected = row
    x, y = (Interval(*(np.full(shape, end, float) for end in ends)) for ends in (x, y))
    for operation, ends in zip((iv.add, iv.mul, iv.div), expected, strict=True):
        result = operation(x, y)
        assert result.shape == shape
        assert np.all(result.low == (-INF if ends is None else ends[0]))
        assert np.all(result.high == (INF if ends is None else ends[1]))


def test_overflow_leaves_a_finite_bound():
    assert tuple(iv.add(LARGEST, LARGEST)) == (LARGEST, INF)
    assert tuple(iv.mul(-LARGEST, 2.0)) == (-INF, -LARGEST)
    assert tuple(iv.div(1.0, TINIEST)) == (LARGEST, INF)
    low, high = iv.exp(np.array([710.0, 1e6]))
    assert np.all(low > 1e308)
    assert np.all(high == INF)


def test_underflow_keeps_the_sign():
    x = np.array([1e-200, -1e-200, TINIEST, 1e-200])
    for y in (x, 1e-200 * np.ones(4)):
        for product in (iv.mul(x, y), *scalars(iv.mul, x, y)):
            assert np.all((product.low >= 0) | (product.high <= 0))
    assert iv.square(1e-200).low == 0.0
    assert iv.div(TINIEST, 8.0).low == 0.0
    for function in (iv.expm1, iv.log1p, iv.sinh, iv.tanh, iv.cbrt, iv.erf, iv.atan):
        assert function(TINIEST).low >= 0
        assert function(-TINIEST).high <= 0
    assert iv.acos(1 - UNIT).low >= 0
    assert iv.log(1 + 2 * UNIT).low >= 0


def test_large_arrays_and_views_agree_with_small_ones():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 200))
    y = Interval(np.float64(0.1), np.float64(0.3))
    column = Interval(x[:, :1], x[:, :1] + 1.0)
    for whole, part in (
        (iv.mul(x, y), iv.mul(x[:2], y)),
        (iv.add(column, x), iv.add(column[:2], x[:2])),
        (iv.exp(np.broadcast_to(x[0], x.shape)), iv.exp(x[:1])),
        (iv.div(x.T, y).transpose(), iv.div(x[:2], y)),
        (iv.logistic(x[::-1, ::2])[::-1], iv.logistic(x[:2, ::2])),
    ):
        assert np.array_equal(whole.low[0], part.low[0])
        assert np.array_equal(whole.high[0], part.high[0])
    assert iv.add(np.round(x), np.round(x)).is_point
    tail = np.concatenate([x.ravel(), np.zeros(x.size)])  # the last block is exact
    assert not iv.add(tail, 0.1 * tail).is_point
    assert iv.div(np.ones(3), Interval(-1.0, 1.0)).shape == (3,)


def test_the_step_reaches_the_neighbour():
    """Around each power of two, where neighbours change their distance."""
    powers = np.ldexp(1.0, np.arange(-1074, 1024))
    x = np.concatenate([np.nextafter(powers, 0), powers, np.nextafter(powers, INF)])
    x = np.concatenate([x, -x, [0.0, LARGEST, -LARGEST]])
    unknown = np.full(x.shape, np.nan)
    with np.errstate(over="ignore"):
        assert np.all(rounding.round_down(x, unknown) <= np.nextafter(x, -INF))
        assert np.all(rounding.round_up(x, unknown) >= np.nextafter(x, INF))
    assert rounding.round_down(np.array([INF, -INF]), unknown[:2]).tolist() == [
        LARGEST,
        -INF,
    ]


# ---------------------------------------------------------------------- functions


def arguments(low: float, high: float, *special: float, count: int = 150) -> np.ndarray:
    """Return random, huge, tiny and directed arguments between two bounds."""
    rng = np.random.default_rng(2)
    centres = np.array([0.0, 1.0, -1.0, 2.0, 0.5, *special])
    near = [centres]
    for step in (0, 1):
        near += [np.nextafter(centres, INF), np.nextafter(centres, -INF)]
        near += [centres * (1 + (step - 0.5) * 1e-8), centres + (step - 0.5) * 1e-5]
    wild = np.ldexp(rng.uniform(0.5, 1, count), rng.integers(-1073, 1024, count))
    small = np.ldexp(rng.uniform(0.5, 1, count), rng.integers(-30, 4, count))
    plain = rng.uniform(max(low, -40.0), min(high, 40.0), count)
    x = np.concatenate([*near, wild, -wild, small, -small, plain, np.array(EDGES)])
    return np.unique(x[(x >= low) & (x <= high)])


def psi(n):
    return lambda x: mpmath.psi(n, x)


# name: (big function, least and largest argument, directed arguments)
FUNCTIONS = {
    "exp": (mpmath.exp, -760.0, 720.0, 709.78, -708.4, -745.13, -744.0),
    "exp2": (lambda x: mpmath.mpf(2) ** x, -1080.0, 1030.0, -1022.0, 1023.9),
    "expm1": (mpmath.expm1, -760.0, 720.0, -37.5, 709.7),
    "log": (mpmath.log, TINIEST, LARGEST, math.e),
    "log1p": (mpmath.log1p, UNIT - 1, LARGEST, -0.5),
    "cbrt": (
        lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
        -LARGEST,
        LARGEST,
        27.0,
    ),
    "sqrt": (mpmath.sqrt, 0.0, LARGEST, 4.0, 9.0),
    "rsqrt": (lambda x: 1 / mpmath.sqrt(x), TINIEST, LARGEST, 4.0),
    "sinh": (mpmath.sinh, -720.0, 720.0, 710.4, 22.0),
    "cosh": (mpmath.cosh, -720.0, 720.0, 710.4, 22.0),
    "tanh": (mpmath.tanh, -1e3, 1e3, 19.06, 22.0),
    "asinh": (mpmath.asinh, -LARGEST, LARGEST, 2.0**28),
    "acosh": (mpmath.acosh, 1.0, LARGEST, 2.0**28),
    "atanh": (mpmath.atanh, UNIT - 1, 1 - UNIT, 0.5),
    "asin": (mpmath.asin, -1.0, 1.0, 0.5),
    "acos": (mpmath.acos, -1.0, 1.0, 0.5),
    "atan": (mpmath.atan, -LARGEST, LARGEST, 0.4375),
    "sin": (mpmath.sin, -(2.0**20), 2.0**20, *np.arange(1, 9) * np.pi / 2),
    "cos": (mpmath.cos, -(2.0**20), 2.0**20, *np.arange(1, 9) * np.pi / 2, 710 * np.pi),
    "tan": (mpmath.tan, -(2.0**20), 2.0**20, *np.arange(1, 9) * np.pi / 2),
    "logistic": (lambda x: 1 / (1 + mpmath.exp(-x)), -760.0, 760.0, 37.0, -709.0),
    "softplus": (lambda x: mpmath.log1p(mpmath.exp(x)), -760.0, 760.0, 37.0, -745.0),
    "ndtr": (mpmath.ncdf, -38.5, 40.0, -2.0, 8.3, -37.5),
    "log_ndtr": (
        lambda x: (
            mpmath.log1p(-mpmath.erfc(x / mpmath.sqrt(2)) / 2)
            if x > 0
            else mpmath.log(mpmath.erfc(-x / mpmath.sqrt(2)) / 2)
        ),
        -1e6,
        16.0,
        -2.0,
        -20.0,
    ),
    "mills_ratio": (
        lambda x: mpmath.erfc(x / mpmath.sqrt(2)) / 2 / mpmath.npdf(x),
        -36.0,
        1e6,
        2.0,
        -2.0,
    ),
    "erf": (mpmath.erf, -LARGEST, LARGEST, math.sqrt(2.0), 5.9),
    "erfc": (mpmath.erfc, -LARGEST, 27.0, math.sqrt(2.0), 26.5),
    "lgamma": (mpmath.loggamma, TINIEST, 1e300, 1.4616321449683622, 10.0, 170.6),
    "digamma": (psi(0), 1e-300, 1e300, 1.4616321449683622, 10.0),
    "trigamma": (psi(1), 1e-150, 1e300, 10.0, 11.0),
    "tetragamma": (psi(2), 1e-100, 1e100, 10.0, 12.0),
    "pentagamma": (psi(3), 1e-75, 1e75, 10.0, 13.0),
}
OURS = {
    name: getattr(iv, name, None)
    for name in FUNCTIONS
    if name not in ("trigamma", "tetragamma", "pentagamma")
} | {
    "trigamma": lambda x: iv.polygamma(1, x),
    "tetragamma": lambda x: iv.polygamma(2, x),
    "pentagamma": lambda x: iv.polygamma(3, x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_hold_their_values(name):
    """As arrays, and a few as scalars, which take other loops of NumPy."""
    exact, low, high, *special = FUNCTIONS[name]
    x = arguments(low, high, *special)
    with mpmath.workprec(200):
        truths = [exact(mpmath.mpf(float(a))) for a in x]
    result = OURS[name](x)
    assert result.shape == x.shape
    holds(result, truths)
    few = slice(None, None, 1 + len(x) // 40)
    for one, truth in zip(scalars(OURS[name], x[few]), truths[few], strict=True):
        holds(one, [truth])


# What relative width a value away from zero and from overflow may have.
WIDTHS = {name: 40 * 2 * UNIT for name in FUNCTIONS} | {
    "sin": 1e-13,
    "cos": 1e-13,
    "tan": 1e-12,
    "ndtr": 1e-12,
    "log_ndtr": 1e-12,
    "mills_ratio": 1e-12,
    "erfc": 1e-12,
    "erf": 1e-13,
    "lgamma": 5e-12,
    "digamma": 3e-13,
    "trigamma": 1e-14,
    "tetragamma": 1e-14,
    "pentagamma": 1e-14,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_tight(name):
    _, low, high, *_ = FUNCTIONS[name]
    x = np.random.default_rng(3).uniform(max(low, -5.0), min(high, 8.0), 300)
    result = OURS[name](x)
    usual = np.minimum(np.abs(result.low), np.abs(result.high)) > 0.05
    usual &= (result.magnitude < 20.0) | (name != "tan")  # away from its poles
    assert usual.mean() > 0.2
    assert np.all((result.width / result.magnitude)[usual] < WIDTHS[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_hold_the_values_between_the_ends(name):
    """Random intervals, many about an extremum; members at random and by place."""
    exact, low, high, *special = FUNCTIONS[name]
    low, high = max(low, -30.0), min(high, 30.0)
    rng = np.random.default_rng(4)
    centres = rng.choice([*special, 0.0, 1.0, 1.4616321449683622, np.pi], 60)
    ends = np.clip(
        centres + rng.normal(size=(2, 60)) * rng.choice([0.1, 3.0], 60), low, high
    )
    x = Interval(ends.min(0), ends.max(0))
    result = OURS[name](x)
    for place in (0.0, 0.5, 1.0, rng.random(60)):
        member = np.clip(x.low + place * (x.high - x.low), x.low, x.high)
        with mpmath.workprec(200):
            holds(result, [exact(mpmath.mpf(float(a))) for a in member])


# Results on [-inf, inf], and the largest finite arguments each way.
RANGES = {
    "exp": (0, INF),
    "exp2": (0, INF),
    "expm1": (-1, INF),
    "log": (-INF, INF),
    "log1p": (-INF, INF),
    "cbrt": (-INF, INF),
    "sqrt": (0, INF),
    "rsqrt": (0, INF),
    "sinh": (-INF, INF),
    "cosh": (1, INF),
    "tanh": (-1, 1),
    "asinh": (-INF, INF),
    "acosh": (0, INF),
    "atanh": (-INF, INF),
    "sin": (-1, 1),
    "cos": (-1, 1),
    "tan": (-INF, INF),
    "logistic": (0, 1),
    "softplus": (0, INF),
    "ndtr": (0, 1),
    "log_ndtr": (-INF, 0),
    "mills_ratio": (0, INF),
    "erf": (-1, 1),
    "erfc": (0, 2),
    "lgamma": (-INF, INF),
    "digamma": (-INF, INF),
    "trigamma": (-INF, INF),
}


@pytest.mark.parametrize("name", RANGES)
def test_open_ends_give_the_range_and_values_stay_in_it(name):
    low, high = RANGES[name]
    assert tuple(OURS[name](iv.entire((2,))[0])) == (low, high)
    for end in (-LARGEST, -1e3, 0.0, 1e3, LARGEST):
        for result in (OURS[name](Interval(-INF, end)), OURS[name](Interval(end, INF))):
            assert low <= result.low <= result.high <= high
    if low == -INF:
        return
    assert OURS[name](Interval(0.0, INF)).low >= low


@pytest.mark.parametrize("name", ["mills_ratio", "rsqrt", "trigamma", "erfc"])
def test_what_falls_has_its_limit_at_an_open_end(name):
    low, high = OURS[name](Interval(1.0, INF))
    assert low == 0
    assert 0.1 < high < 2


def test_extrema_are_exact():
    assert tuple(iv.square(Interval(-2.0, 3.0))) == (0.0, 9.0)
    assert tuple(iv.integer_power(Interval(-2.0, 1.0), 4)) == (0.0, 16.0)
    assert tuple(iv.integer_power(Interval(-2.0, 4.0), -2)) == (0.0625, INF)
    assert iv.cosh(Interval(-1.0, 2.0)).low == 1.0
    assert tuple(iv.sin(Interval(1.0, 5.0))) == (-1.0, 1.0)
    assert iv.sin(Interval(1.0, 3.0)).high == 1.0
    assert iv.sin(Interval(1.0, 3.0)).low > 0.14
    assert iv.cos(Interval(3.0, 3.2)).low == -1.0
    assert iv.cos(Interval(-0.1, 0.1)).high == 1.0
    assert iv.cos(Interval(-0.1, 0.1)).low > 0.99
    for far in (2.0**20 + 1.0, 2e6, 1e9, 1e300):
        assert tuple(iv.sin(far)) == (-1.0, 1.0)
        assert tuple(iv.tan(Interval(far, far + 0.1))) == (-INF, INF)
    wave = iv.lgamma(Interval(1.0, 3.0))
    assert -0.1214862906 < wave.low < -0.12148629
    assert 0.69314718 < wave.high < 0.69314719
    assert iv.lgamma(Interval(1.5, 3.0)).low > -0.12079


@settings(max_examples=200)
@given(st.data())
def test_powers_and_angles_of_two_arguments(data):
    places = st.sampled_from([0.0, 0.3, 1.0])
    size = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 2.0, 1e3]), st.floats(0, 50))
    exponents = st.one_of(st.integers(-3, 3).map(float), st.floats(-20, 20))
    base = sorted((data.draw(size), data.draw(size)))
    exponent = sorted((data.draw(exponents), data.draw(exponents)))
    x, y = Interval(*base), Interval(*exponent)
    a, b = (
        float(np.clip(z.low + data.draw(places) * (z.high - z.low), z.low, z.high))
        for z in (x, y)
    )
    with mpmath.workprec(200):
        if a > 0 or b >= 0:
            holds(iv.power(x, y), [mpmath.mpf(a) ** mpmath.mpf(b)])
            holds(iv.power(a, b), [mpmath.mpf(a) ** mpmath.mpf(b)])
        turned = Interval(-x.high, -x.low)
        if a or b:
            holds(iv.atan2(y, x), [mpmath.atan2(b, a)])
            holds(iv.atan2(y, turned), [mpmath.atan2(b, -a)])
        both = mpmath.log(mpmath.exp(a) + mpmath.exp(b))
        holds(iv.logaddexp(x, y), [both])
        holds(iv.logaddexp(y, a), [both])


def test_logaddexp_at_open_ends():
    below = Interval(-INF, 0.0)
    assert iv.logaddexp(below, below).low == -INF
    assert iv.logaddexp(below, 3.0).low == 3.0
    assert iv.logaddexp(Interval(0.0, INF), 3.0).high == INF
    assert iv.logaddexp(np.zeros((2, 1)), np.zeros(3)).shape == (2, 3)


def test_angles_at_the_cut():
    pi = Interval(3.141592653589793, 3.1415926535897936)
    assert tuple(iv.atan2(Interval(-1.0, 1.0), -1.0)) == (-pi.high, pi.high)
    assert tuple(iv.atan2(Interval(-1.0, 0.0), -1.0)) == (-pi.high, pi.high)
    assert tuple(iv.atan2(Interval(0.0, 1.0), -1.0)) == (-pi.high, pi.high)
    assert tuple(iv.atan2(-0.0, -1.0)) == (-pi.high, pi.high)
    assert iv.atan2(Interval(0.0, 1.0), Interval(1.0, 2.0)).low == 0.0
    assert iv.atan2(Interval(0.1, 1.0), Interval(-1.0, 1.0)).low > 0.0
    assert iv.atan2(Interval(-1.0, 1.0), Interval(1.0, 2.0)).high < 0.7854


# function of x, where it is defined, examples, and where not
DOMAINS = [
    (iv.tan_is_defined, (-1.5, 1.5), (1.5, 1.6)),
    (lambda x: iv.div_is_defined(1.0, x), (TINIEST, INF), (0.0, 1.0)),
    (lambda x: iv.power_is_defined(x, -0.5), (0.1, 1.0), (0.0, 1.0)),
    (lambda x: iv.power_is_defined(x, 0.5), (0.0, 1.0), (-0.1, 1.0)),
    (lambda x: iv.atan2_is_defined(x, 0.0), (0.1, 1.0), (-1.0, 0.0)),
]


@pytest.mark.parametrize("case", DOMAINS)
def test_domains_are_told(case):
    is_defined, inside, outside = case
    assert is_defined(Interval(*inside))
    if outside is not None:
        assert not is_defined(Interval(*outside))


def test_outside_the_domain_the_rest_counts_or_the_range():
    assert tuple(iv.sqrt(Interval(-4.0, 4.0))) == (0.0, 2.0)
    assert tuple(iv.sqrt(-1.0)) == (0.0, INF)
    assert iv.log(Interval(-1.0, 1.0)).high == 0.0
    assert tuple(iv.log(Interval(-2.0, -1.0))) == (-INF, INF)
    assert tuple(iv.power(Interval(-2.0, -1.0), 0.5)) == (0.0, INF)
    assert tuple(iv.power(Interval(-0.0, 1.0), -1.0)) == (1.0, INF)
    assert tuple(iv.acosh(Interval(0.0, 1.0))) == (0.0, 0.0)
    assert tuple(iv.lgamma(Interval(-1.0, 3.0))) == (-INF, INF)


# ---------------------------------------------------------------------- the table

BIG = {
    "power": None,
    "arctan2": None,
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
}


def test_the_table_is_whole():
    assert set(MONOTONE) | {"power", "arctan2", "sin", "cos"} == set(trusted.ULPS)
    assert min(trusted.ULPS.values()) >= 4


@pytest.mark.parametrize("name", trusted.ULPS)
def test_audit_of_ulps(name):
    """Each entry exceeds the largest error seen, by one ulp at least, however called.

    NumPy runs other code on long arrays than on strided ones and on scalars.
    """
    rng = np.random.default_rng(5)
    if name in ("power", "arctan2"):
        x = np.exp(rng.normal(size=600) * 3)
        y = rng.normal(size=600) * rng.choice([0.1, 1.0, 30.0], 600)
        columns = (x, y) if name == "power" else (y, x)
        big = mpmath.power if name == "power" else mpmath.atan2
    else:
        exact, low, high, *special = FUNCTIONS[BIG.get(name, name)]
        if name in ("sin", "cos"):
            low, high = -1.0, 1.0
        columns, big = (arguments(low, high, *special, count=300),), exact
    function = getattr(np, name)
    strided = [np.repeat(column, 3)[::3] for column in columns]
    with np.errstate(all="ignore"):
        results = [
            function(*columns),
            function(*strided),
            [function(*row) for row in zip(*columns, strict=True)],
        ]
    worst = 0.0
    for entries in zip(*columns, *results, strict=True):
        row, values = entries[: len(columns)], entries[len(columns) :]
        with mpmath.workprec(200):
            truth = big(*(mpmath.mpf(float(entry)) for entry in row))
            if not TINIEST < abs(truth) < LARGEST * (1 - UNIT):
                continue
            ulp = np.spacing(abs(float(truth)))
            errors = [abs(mpmath.mpf(float(value)) - truth) / ulp for value in values]
            worst = max(worst, *map(float, errors))
    sys.stdout.write(f"{name}: {worst:.2f} of {trusted.ULPS[name]} ulps\n")
    assert worst <= trusted.ULPS[name] - 1


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_audit_of_waves(name):
    """Beyond 1 the error is bounded in ulps of 1, at multiples of pi / 2 too."""
    rng = np.random.default_rng(6)
    turns = np.round(rng.uniform(1, 2**20 / np.pi * 2, 300)) * (np.pi / 2)
    x = np.concatenate([turns, rng.uniform(1.0, 2.0**20, 300)])
    with mpmath.workprec(200):
        truths = [getattr(mpmath, name)(mpmath.mpf(float(a))) for a in x]
        pairs = zip(getattr(np, name)(x), truths, strict=True)
        worst = max(float(abs(mpmath.mpf(float(v)) - t)) for v, t in pairs)
    assert worst <= (trusted.ULPS[name] - 1) * 2 * UNIT
    low, high = trusted.enclose_sine_or_cosine(name, x)
    assert np.all(high - low >= 2 * trusted.ULPS[name] * 2 * UNIT)


def test_series_of_the_normal_distribution_leave_out_what_is_said():
    terms = normal._TERMS + 1
    left_out = sum(
        Fraction(4) ** k / math.prod(range(1, 2 * k + 2, 2)) for k in range(terms, 99)
    )
    assert left_out < Fraction(1, 2**60)


@pytest.mark.parametrize("z", [1.5, 2.0, 3.0])
def test_remainder_of_stirlings_series(z):
    """Where the series is poor, and its remainder counts."""
    terms = [b / (2 * k * (2 * k - 1)) for k, b in enumerate(gamma._BERNOULLI, 1)]
    for last in range(2, len(terms) + 1):
        rest = gamma._in_inverse_squares(terms[:last], iv.from_array(z))
        with mpmath.workprec(200):
            leading = (mpmath.mpf(z) - 0.5) * mpmath.log(z) - z
            leading += mpmath.log(2 * mpmath.pi) / 2
            holds(rest, [z * (mpmath.loggamma(z) - leading)])


# ---------------------------------------------------------------------- reductions


def fractions_of(x: np.ndarray) -> np.ndarray:
    return np.vectorize(Fraction, otypes=[object])(x)


def wild(rng, *shape) -> np.ndarray:
    return np.ldexp(rng.uniform(-1, 1, shape), rng.integers(-40, 40, shape))


def test_sums_and_products():
    rng = np.random.default_rng(7)
    x = wild(rng, 7, 5, 3)
    exact = fractions_of(x)
    for axes in (None, 0, 1, -1, (0, 2), (1,)):
        axis = axes if axes is None or isinstance(axes, int) else tuple(axes)
        holds(iv.reduce_sum(x, axes), np.ravel(exact.sum(axis=axis)))
        holds(iv.reduce_prod(x, axes), np.ravel(exact.prod(axis=axis)))
    assert tuple(iv.reduce_sum(np.zeros((0, 2)), 0).low) == (0.0, 0.0)
    assert iv.reduce_prod(np.zeros(0)).low == 1.0
    ends = Interval(np.array([0.0, -INF, 1.0]), np.array([INF, 1.0, 1.0]))
    assert tuple(iv.reduce_sum(ends)) == (-INF, INF)
    assert tuple(iv.reduce_sum(ends[1:])) == (-INF, 2.0)
    assert tuple(iv.reduce_max(ends)) == (1.0, INF)
    assert tuple(iv.reduce_min(ends)) == (-INF, 1.0)
    assert iv.reduce_sum(x).width < 1e-2 * np.abs(x).sum() * 1e-12


SIZES = [(3, 4, 2), (12, 16, 15), (40, 60, 1), (1, 300, 8)]


@pytest.mark.parametrize("size", SIZES)
def test_products_of_points(size):
    """Wild sizes, so that terms cancel; some rows and columns are zero."""
    rng = np.random.default_rng(8)
    rows, count, columns = size
    x, y = wild(rng, rows, count), wild(rng, count, columns)
    x[0, :] = 0.0
    exact = fractions_of(x) @ fractions_of(y)
    product = iv.matmul(x, y)
    holds(product, exact.ravel())
    assert np.all(product.low[0] == 0)
    assert np.all(product.high[0] == 0)
    bound = 4 * (count + 3) * UNIT * (np.abs(x) @ np.abs(y))
    assert np.all(product.width <= bound + 2 * TINIEST)


@pytest.mark.parametrize(
    "scale", [2.0**-540, 2.0**-537, 2.0**-1000, 2.0**508, 2.0**600]
)
def test_products_that_underflow_or_overflow(scale):
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(2, 14, 14)) * scale
    exact = fractions_of(x) @ fractions_of(y)
    holds(iv.matmul(x, y), exact.ravel())
    spread = (Interval(x, x), Interval(y, y + 0.0))
    holds(iv.matmul(*spread), exact.ravel())
    sized = (np.abs(x), Interval(np.abs(y), np.abs(y) + 0.0))
    positive = iv.matmul(*sized)
    holds(positive, (abs(fractions_of(x)) @ abs(fractions_of(y))).ravel())
    assert np.all(positive.low >= 0)


def open_ended(rng, x: np.ndarray, width: float, share: float) -> Interval:
    low, high = x - width * rng.random(x.shape), x + width * rng.random(x.shape)
    low[rng.random(x.shape) < share] = -INF
    high[rng.random(x.shape) < share] = INF
    zero = rng.random(x.shape) < 0.3
    return Interval(np.where(zero, 0.0, low), np.where(zero, 0.0, high))


@pytest.mark.parametrize("size", [(3, 4, 2), (12, 20, 15)])
@pytest.mark.parametrize("widths", [(0.0, 0.5), (0.5, 0.5), (1e-9, 0.0), (3.0, 3.0)])
@pytest.mark.parametrize("share", [0.0, 0.02])
def test_products_of_intervals(size, widths, share):
    """They hold the exact least and greatest sums, and are at most twice as wide."""
    rng = np.random.default_rng(10)
    rows, count, columns = size
    x = open_ended(rng, rng.normal(size=(rows, count)), widths[0], share)
    y = open_ended(rng, rng.normal(size=(count, columns)), widths[1], share)
    product = iv.matmul(x, y)
    terms = iv.mul(x[:, :, None], y[None])
    for end, total in ((terms.low, product.low), (terms.high, product.high)):
        assert np.array_equal(np.isinf(total), np.isinf(end).any(1))
    for i, j in itertools.product(range(rows), range(columns)):
        if np.isfinite(product.low[i, j]):
            corners = least_sum(x[i], y[:, j])
            assert Fraction(product.low[i, j]) <= corners
        if np.isfinite(product.high[i, j]):
            assert Fraction(product.high[i, j]) >= -least_sum(iv.neg(x[i]), y[:, j])
    width = iv.reduce_sum(terms, 1).width
    finite = np.isfinite(width)
    assert np.all(product.width[finite] <= 2 * width[finite] + 1e-9)


def least_sum(x: Interval, y: Interval) -> Fraction:
    """Sum the exact least products; zero times infinity is zero."""
    total = Fraction(0)
    for ends in zip(*x, *y, strict=True):
        corners = itertools.product(ends[:2], ends[2:])
        total += min(
            Fraction(0) if 0 in corner else Fraction(corner[0]) * Fraction(corner[1])
            for corner in corners
            if 0 in corner or all(map(math.isfinite, corner))
        )
    return total


def test_products_keep_signs():
    """What is nowhere negative stays so, by rows of ones as by BLAS."""
    rng = np.random.default_rng(11)
    x, y = rng.random((50, 60)), Interval(np.zeros((60, 5)), np.full((60, 5), INF))
    for product in (iv.matmul(x, y), iv.matmul(x[:2, :3], y[:3, :1])):
        assert np.all(product.low == 0)
        assert np.all(product.high == INF)
    finite = iv.matmul(x, Interval(np.zeros((60, 5)), np.ones((60, 5))))
    assert np.all(finite.low == 0)
    straddling = iv.matmul(x, Interval(np.full((60, 5), -INF), np.zeros((60, 5))))
    assert np.all(straddling.high == 0)


def test_dot_general_is_that_of_jax():
    rng = np.random.default_rng(12)
    x, y = rng.normal(size=(5, 7, 3, 2)), rng.normal(size=(3, 7, 4, 2))
    for numbers in (
        (((3,), (3,)), ((1,), (1,))),
        (((), ()), ((), ())),
        (((2, 3), (0, 3)), ((), ())),
        (((3, 1), (3, 1)), ((2,), (0,))),
    ):
        expected = np.asarray(jnp.asarray(1.0) * _dot_general(x, y, numbers))
        result = iv.dot_general(x, y, numbers)
        assert result.shape == expected.shape
        assert np.max(np.abs(result.middle - expected)) < 1e3 * UNIT
        wide = iv.dot_general(Interval(x, x + 0.1), y, numbers)
        assert np.all(iv.overlaps(wide, result))
    assert iv.matmul(x[0, 0, 0], x[0, 0, 0]).shape == ()
    assert iv.matmul(x[0, 0], x[0, 0, 0]).shape == (3,)
    assert iv.matmul(y[0, 0, :, 0], y[0, 0]).shape == (2,)


def _dot_general(x, y, numbers):
    import jax

    return jax.lax.dot_general(jnp.asarray(x), jnp.asarray(y), numbers)


# ---------------------------------------------------------------------- reading, sets


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "int8", "uint32", "bool"]
)
def test_narrow_numbers_are_points(dtype):
    values = jnp.asarray([0, 1, 1], dtype) if dtype == "bool" else None
    values = jnp.asarray([0.1, 3, 100], dtype) if values is None else values
    result = iv.from_array(values)
    assert result.is_point
    assert result.low.tolist() == [float(value) for value in values]


def test_reading_what_is_no_point():
    whole = [2**53, 2**53 + 1, -(2**62) - 1, 2**63 - 1, -(2**63)]
    holds(iv.from_array(np.array(whole)), map(Fraction, whole))
    assert is_tight(iv.from_array(np.array(whole))).all()
    large = np.array([2**64 - 1, 5], np.uint64)
    holds(iv.from_array(large), [Fraction(2**64 - 1), Fraction(5)])
    for rational in (Fraction(1, 3), 10**17 + 1, -(10**400), Fraction(1, 10**400), 3):
        holds(iv.from_rational(rational), [Fraction(rational)])
    assert tuple(iv.from_rational(3)) == (3.0, 3.0)
    assert tuple(iv.from_array(10**400)) == (LARGEST, INF)
    assert tuple(iv.from_array([math.nan, INF])[0]) == (-INF, INF)
    assert tuple(iv.from_array(-INF)) == (-INF, INF)
    holds(iv.from_decimal("3.14159265358979323846"), [mpmath.pi()])
    for wrong in (1j, "1", [None]):
        with pytest.raises(TypeError, match="real numbers"):
            iv.from_array(wrong)


@pytest.mark.parametrize(
    "ends", [(1.0, 0.0), (math.nan, 1.0), (0.0, math.nan), (INF, INF), (-INF, -INF)]
)
@pytest.mark.parametrize("shape", [(), (2,)])
def test_an_interval_is_checked(ends, shape):
    low, high = (np.full(shape, end) for end in ends)
    with pytest.raises(ValueError, match="`low` must not lie above `high`"):
        Interval(low, high)
    unknown = np.full(shape, math.nan)
    with pytest.raises(ValueError, match="`low` must not lie above `high`"):
        Interval(unknown, unknown)


def test_intervals_are_frozen_and_their_shapes_agree():
    x = Interval(np.zeros(2), np.ones(2))
    with pytest.raises(AttributeError):
        x.low = np.ones(2)
    with pytest.raises(ValueError, match="same shape"):
        Interval(np.zeros(2), np.ones(3))
    assert repr(Interval(0.0, 1.0)) == "Interval(low=0.0, high=1.0)"
    assert x.width.tolist() == [1.0, 1.0]
    assert iv.entire().width == INF
    assert iv.entire().middle == 0.0
    assert (np.ones(2) - x).low.tolist() == [0.0, 0.0]
    assert (1.0 / (x + 1.0)).low.tolist() == [0.5, 0.5]
    assert (x * 2.0 - -x / 2.0).high.tolist() == [2.5, 2.5]


def test_sets():
    x, y = Interval(0.0, 2.0), Interval(1.0, INF)
    assert tuple(iv.hull(x, y)) == (0.0, INF)
    assert tuple(iv.intersect(x, y)) == (1.0, 2.0)
    assert iv.overlaps(x, 2.0)
    assert not iv.overlaps(x, 2.5)
    with pytest.raises(ValueError, match="nothing in common"):
        iv.intersect(x, 2.5)
    chosen = iv.where(np.array([True, False]), x, y)
    assert chosen.high.tolist() == [2.0, INF]
    assert x.contains(Interval(0.5, 2.0))
    assert not x.contains(Interval(0.5, INF))


COMPARISONS = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_are_certain_if_all_pairs_agree(name):
    """On all intervals with ends in 0..3, whose members are sampled by halves."""
    ends = [Interval(float(a), float(b)) for a in range(4) for b in range(a, 4)]
    for x, y in itertools.product(ends, ends):
        members = (np.arange(z.low, z.high + 0.5, 0.5) for z in (x, y))
        truths = [COMPARISONS[name](a, b) for a, b in itertools.product(*members)]
        is_true, is_false = getattr(iv, name)(x, y)
        assert bool(is_true) == all(truths)
        assert bool(is_false) == (not any(truths))
    is_true, is_false = iv.lt(iv.entire(), iv.entire())
    assert not is_true
    assert not is_false


@settings(max_examples=200)
@given(interval_and_member())
def test_steps_hold_their_members(pair):
    x, a = pair
    sign = (a > 0) - (a < 0)
    half_away = sign * math.floor(abs(a) + Fraction(1, 2))
    for function, truth in (
        (iv.floor, math.floor(a)),
        (iv.ceil, math.ceil(a)),
        (iv.truncate, math.trunc(a)),
        (iv.round_half_even, round(a)),
        (iv.round_half_away, half_away),
        (iv.sign, sign),
    ):
        holds(function(x), [Fraction(truth)])
    assert tuple(iv.round_half_away(0.5 - UNIT / 2)) == (0.0, 0.0)
    assert iv.round_half_away(np.array([2.5, -2.5])).low.tolist() == [3.0, -3.0]
    assert iv.round_half_even(np.array([2.5, -2.5])).low.tolist() == [2.0, -2.0]


def test_many_narrow_points_are_widened_only_where_asked_for(monkeypatch):
    values = np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3)
    plain = iv.from_array(values)
    monkeypatch.setattr(core, "_MANY", 4)
    narrow = iv.from_array(values)
    assert isinstance(narrow, core.NarrowPoints)
    assert narrow.is_point
    assert narrow.stored[0] is values
    assert (narrow.shape, narrow.ndim, narrow.size) == ((4, 3), 2, 12)
    for one, other in zip(narrow, plain, strict=True):
        assert one.dtype == np.float64
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal((narrow * 3.0).high, (plain * 3.0).high)
    np.testing.assert_array_equal(narrow[1:].low, plain[1:].low)
    infinite = np.array([1, np.inf, 2, 3], np.float32)
    assert not isinstance(iv.from_array(infinite), core.NarrowPoints)

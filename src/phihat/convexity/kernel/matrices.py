# ruff: noqa: ARG001 - rules of one table share a signature
"""The kernel's theorems on matrices, windows and extremes that are scattered.

What the LU factors of constants hold it does not compute, but that there are some; of
matrices beyond 32 rows it takes that on trust, and the report lists it.
"""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.kernel.facts import ONE, Known, Refused, normal
from phihat.convexity.kernel.moves import moved, places_of_updates, taken
from phihat.convexity.kernel.objects import jax_primitive
from phihat.convexity.kernel.polynomials import entries_of, is_semidefinite
from phihat.convexity.kernel.table import TABLE
from phihat.convexity.kernel.values import Value, grouped
from phihat.convexity.program.form import Equation
from phihat.convexity.report import MAX_FACTORED

__all__ = ["MATRIX_RULES"]


def _eigenvalues(checker, ask, equation, inputs, shapes) -> list[Value]:
    """The k largest eigenvalues of a symmetric matrix have a convex sum (Ky Fan).

    It is the largest of the linear functions trace(V' X V); of the smallest, concave.
    """
    params = equation.params
    if not params["sort_eigenvalues"] or params["subset_by_index"]:
        raise Refused("eigenvalues that are not sorted, or not all")
    _check_affine(inputs[0])
    source = Known(convex=True, concave=True)
    values = _in_order(source, inputs[0].shape[:-1], largest_first=False, whole=True)
    return [Value(shapes[0], (Known(),)), values]


def _singular_values(checker, ask, equation, inputs, shapes) -> list[Value]:
    """The sum of the k largest singular values is a norm (Ky Fan)."""
    params = equation.params
    if params["compute_uv"] or params["subset_by_index"]:
        raise Refused("singular vectors, or not all singular values")
    _check_affine(inputs[0])
    source = normal(Known(low=0.0, convex=True))
    return [_in_order(source, shapes[0], largest_first=True, whole=False)]


def _cholesky(checker, ask, equation, inputs, shapes) -> list[Value]:
    """L_ii^2 is min v'Xv over v_i = 1, v_j = 0 for j > i: concave in X, so q = 2.

    Where the matrix of the triangle that is read is not positive definite there is no
    number: the domain is a cone, met by an affine map.
    """
    if inputs[0].constant:
        raise Refused("a Cholesky factor of constants that is not computed")
    _check_affine(inputs[0])
    ask.conditions.append("the argument of a Cholesky factor is > 0")
    shape = tuple(shapes[0])
    root = normal(Known(0.0, q=Fraction(2), sign=1, total=False))
    places = np.array(np.broadcast_to(np.eye(shape[-1], dtype=int), shape))
    return [Value(shape, (Known(total=False), root), places)]


def _log_determinant(checker, ask, equation, inputs, shapes) -> list[Value]:
    """Concave on positive definite matrices: (log det)'' = -tr(X^-1 D X^-1 D) <= 0.

    Symmetric is an affine matrix whose entries are the same polynomials across the
    diagonal; it is definite if its middle less the radii of each row is.
    """
    (x,) = inputs
    if x.constant:
        if x.point is None or x.shape[-1] > 32 or len(x.shape) != 2:
            raise Refused("a determinant of constants that are not known")
        if not _is_regular([[Fraction(float(v)) for v in row] for row in x.point]):
            raise Refused("a determinant that is zero")
        return [Value(shapes[0], (normal(Known(constant=True)),))]
    _check_affine(x)
    size = x.shape[-1]
    if tuple(x.shape) != (size, size) or not 0 < size <= 32:
        raise Refused("a determinant of no single matrix")
    entries = entries_of(checker, equation.inputs[0])
    ranges = x.ranges()
    if not all(np.isfinite(end).all() for end in ranges):
        raise Refused("a determinant on an unbounded domain")
    low, high = ([[Fraction(float(v)) for v in row] for row in end] for end in ranges)
    rows: list[list[Fraction]] = []
    for i in range(size):
        if any(entries[i, j] != entries[j, i] for j in range(size)):
            raise Refused("a matrix that is not symmetric")
        row = [(low[i][j] + high[i][j]) / 2 for j in range(size)]
        row[i] -= sum((high[i][j] - low[i][j] for j in range(size)), Fraction(0)) / 2
        row[i] -= Fraction(1, 10**12)
        rows.append(row)
    for i in range(size):
        for j in range(i):
            rows[i][j] = rows[j][i] = (rows[i][j] + rows[j][i]) / 2
    if not is_semidefinite(rows):
        raise Refused("a matrix that may not be positive definite")
    if equation.primitive == "slogdet_sign":
        return [Value(shapes[0], (ONE,))]
    return [Value(shapes[0], (normal(Known(concave=True)),))]


def _fft(checker, ask, equation, inputs, shapes) -> list[Value]:
    """Each part of a discrete Fourier transform is linear in the parts it is made of.

    Its coefficients, cos and sin of 2 pi j k / n, are bounded, and not told.
    """
    knowns = [k for v in inputs for k in v.knowns]
    if not all(k.affine and k.total for k in knowns):
        raise Refused("a transform of what is not affine")
    held = all(v.constant for v in inputs)
    part = normal(Known(convex=True, concave=True, constant=held))
    return [Value(shape, (part,)) for shape in shapes]


def _lu(checker, ask, equation, inputs, shapes) -> list[Value]:
    """A nonsingular matrix has factors, and places of pivots; not which is told."""
    (x,) = inputs
    size = shapes[1][0] if shapes[1] else 0
    if (
        x.point is None
        or tuple(x.shape) != (size, size)
        or not 0 < size <= MAX_FACTORED
    ):
        raise Refused("factors of a matrix that is not known, or large")
    if not _is_regular([[Fraction(float(v)) for v in row] for row in x.point]):
        raise Refused("factors of a singular matrix")
    place = normal(Known(0.0, float(size - 1), constant=True))
    factors = Value(shapes[0], (normal(Known(constant=True)),))
    return [factors, Value(shapes[1], (place,)), Value(shapes[2], (place,))]


def _is_regular(rows: list[list[Fraction]]) -> bool:
    """Eliminate exactly; each column must offer a pivot."""
    while rows:
        pivot = next((row for row in rows if row[0]), None)
        if pivot is None:
            return False
        rest = [row for row in rows if row is not pivot]
        rows = [
            [b - row[0] / pivot[0] * a for a, b in zip(pivot[1:], row[1:], strict=True)]
            for row in rest
        ]
    return True


def _check_affine(matrix: Value) -> None:
    if not all(k.affine and k.total for k in matrix.knowns):
        raise Refused("a matrix that is not affine in the params")


def _in_order(source: Known, shape: Any, *, largest_first: bool, whole: bool) -> Value:
    """Sorted values: the first and the last are extremes, of those between a range."""
    shape = tuple(shape)
    value = Value(shape, (source,))
    if shape[-1] > 1:
        between = Known(source.low, source.high)
        largest = normal(between._replace(convex=source.convex))
        smallest = normal(between._replace(concave=source.concave and whole))
        row = np.ones(shape[-1], int)
        row[0], row[-1] = 0, 2
        row = row if largest_first else row[::-1]
        places = np.array(np.broadcast_to(row, shape))
        value = Value(shape, (largest, between, smallest), places)
    if value.size:
        start, length = int(value.ids.reshape(-1)[0]), shape[-1]
        rows = value.size // length
        whole_source = Value(shape, (source,))
        value.order = (whole_source, start, length, rows, largest_first, whole)
    return value


def _triangular_solve(checker, ask, equation, inputs, shapes) -> list[Value]:
    """Linear in the right-hand side, for a constant matrix without a zero pivot."""
    matrix, given = inputs
    writer = checker.writers.get(equation.inputs[0])
    is_factor = writer is not None and writer.primitive == "lu"
    if not equation.params["unit_diagonal"] and not is_factor:
        if matrix.interval is None:
            raise Refused("a system whose matrix is not known")
        low, high = (np.diagonal(end, axis1=-2, axis2=-1) for end in matrix.interval)
        if not ((low > 0) | (high < 0)).all():
            raise Refused("a system whose pivots are not known to be nonzero")
    known = given.known
    if not (matrix.constant and known.affine and known.total):
        raise Refused("a system that is not affine in its right-hand side alone")
    solution = Known(convex=True, concave=True, constant=known.constant)
    return [Value(shapes[0], (normal(solution),))]


def _scatter(name: str, most: int) -> Callable[..., list[Value]]:
    def rule(checker, ask, equation, inputs, shapes) -> list[Value]:
        """Each place holds the extreme, or the product, of what meets there.

        More than `most` elements with the same facts tell no more, or are refused.
        """
        body = equation.params.get("update_jaxpr")
        names = [e.primitive for e in getattr(body, "jaxpr", body).eqns] if body else []
        if body is not None and names != [jax_primitive(name)]:
            raise Refused("a scatter by a program of its own")
        operand, _, updates = inputs
        places = places_of_updates(equation, inputs)
        groups = np.concatenate([np.arange(operand.size), places.reshape(-1)])
        flat = [
            taken([v], lambda parts: parts[0].reshape(-1), (v.size,))
            for v in (operand, updates)
        ]
        join = Equation("concatenate", {"dimension": 0}, (), (), None, None)  # type: ignore
        (both,) = moved(join, flat, [(operand.size + updates.size,)])
        step = functools.partial(TABLE[name], ask)

        def fold(terms: list[tuple[Known, int]]) -> Known:
            if name == "mul" and sum(n for _, n in terms) > most:
                raise Refused("a product of too many elements")
            return functools.reduce(
                step, [k for k, n in terms for _ in range(min(n, most))]
            )

        return [grouped(fold, both, groups, operand.size, shapes[0])]

    return rule


def _window(largest: bool) -> Callable[..., list[Value]]:
    def rule(checker, ask, equation, inputs, shapes) -> list[Value]:
        """The extreme of a window has what all elements have; it must hold one."""
        (x,), params = inputs, equation.params
        sizes = zip(params["padding"], params["window_dimensions"], strict=True)
        filled = all(min(pad) >= 0 and max(pad) < size for pad, size in sizes)
        holes = {*params["base_dilation"], *params["window_dilation"]}
        if not filled or holes != {1} or not x.size:
            raise Refused("a window that may hold no element")
        known = x.known
        if largest:
            known = normal(known._replace(concave=known.constant, q=None))
        else:
            known = normal(known._replace(convex=known.constant, p=None))
        return [Value(shapes[0], (known,))]

    return rule


MATRIX_RULES: dict[str, Any] = {
    "cholesky": _cholesky,
    "eigh": _eigenvalues,
    "fft": _fft,
    "lu": _lu,
    "reduce_window_max": _window(True),
    "reduce_window_min": _window(False),
    "scatter-max": _scatter("max", 2),
    "scatter-min": _scatter("min", 2),
    "scatter-mul": _scatter("mul", 64),
    "svd": _singular_values,
    "slogdet": _log_determinant,
    "slogdet_sign": _log_determinant,
    "triangular_solve": _triangular_solve,
}
"""By the name of the primitive."""

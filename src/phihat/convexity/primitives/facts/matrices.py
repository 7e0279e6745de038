"""Rules of linear algebra: solves with a constant matrix, eigenvalues, singular values.

The largest eigenvalues and singular values of a matrix that is affine in the params are
convex (Weyl, Ky Fan), and a triangular system with a constant matrix is a linear map of
its right-hand side.
"""

from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.numbers.eigenvalue_bounds import smallest_eigenvalue
from phihat.convexity.numbers.extended import Extended
from phihat.convexity.primitives.facts.arrays import Array, Arrays
from phihat.convexity.primitives.facts.call import Undecided
from phihat.convexity.primitives.facts.facts import ONE, Facts, closed
from phihat.convexity.program.form import Equation

__all__ = [
    "cholesky_factor",
    "eigenvalues",
    "fourier_transform",
    "log_determinant",
    "singular_values",
    "triangular_solve",
]


def triangular_solve(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """The solution of A X = B is linear in B for a constant A without a zero pivot.

    X = A^-1 B exists and is unique if the diagonal of the triangle holds no zero; what
    lies in the other triangle is not read. An LU factor of a matrix that is proved
    nonsingular has none (`values/matrices.py`).
    """
    matrix, given = inputs
    ranges = matrix.interval
    if ranges is None or isinstance(ranges, Extended):
        raise Undecided("a system whose matrix is not known to be constant and finite")
    if not equation.params["unit_diagonal"]:
        factored = interpreter.producers.get(equation.inputs[0])
        is_factor = factored is not None and factored.primitive == "lu"
        low, high = (np.diagonal(end, axis1=-2, axis2=-1) for end in ranges)
        if not (is_factor or np.all((low > 0) | (high < 0))):
            raise Undecided("a system whose pivots are not proved to be nonzero")
    facts = given.facts
    if not (facts.affine and facts.total):
        raise Undecided("a system whose right-hand side is not affine")
    solution = closed(Facts(convex=True, concave=True, constant=facts.constant))
    return [Array.of(solution, interpreter.shape(equation))]


def fourier_transform(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """Real and imaginary parts are sums of the inputs' parts times constants."""
    facts = [f for x in inputs for f in x.classes]
    if not all(f.affine and f.total for f in facts):
        raise Undecided("a Fourier transform of what is not affine")
    is_constant = all(f.constant for f in facts)
    result = closed(Facts(convex=True, concave=True, constant=is_constant))
    shapes = [interpreter.program.shapes[n] for n in equation.outputs]
    return [Array.of(result, shape) for shape in shapes]


def eigenvalues(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """The sum of the k largest eigenvalues is convex in a symmetric matrix (Ky Fan).

    It is the maximum of trace(V' X V) over V'V = I, a supremum of linear functions; the
    sum of the k smallest is concave likewise. The primitive reads one triangle, and
    tells its eigenvalues in rising order. Nothing else is known of those between.
    """
    if not equation.params["sort_eigenvalues"] or equation.params["subset_by_index"]:
        raise Undecided("eigenvalues that are not sorted, or not all of them")
    _check_affine(inputs[0])
    vectors = Array.of(Facts(), interpreter.shape(equation))
    source = Array.of(closed(Facts(convex=True, concave=True)), inputs[0].shape[:-1])
    values = _in_order(source, is_descending=False, is_whole=True)
    return [vectors, values]


def cholesky_factor(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    r"""The squares of the factor's diagonal are concave in an affine matrix: q = 2.

    $L_{ii}^2$ is a Schur complement, the least value of $v'Xv$ over v with $v_i = 1$
    and $v_j = 0$ for j > i: an infimum of linear functions of X. The primitive reads
    one triangle, hence a symmetric matrix, and leaves no number where that is not
    positive definite, so that the domain is a convex set. Of the other entries nothing
    is known.
    """
    if inputs[0].is_constant:
        raise Undecided("a Cholesky factor of constants not proved positive definite")
    _check_affine(inputs[0])
    interpreter.constraints.append("the argument of a Cholesky factor is > 0")
    shape = interpreter.shape(equation)
    diagonal = closed(
        Facts(low=0.0, q=Fraction(2), concave=True, positive=True, total=False)
    )
    places = np.broadcast_to(np.eye(shape[-1], dtype=np.intp), shape)
    return [Array(shape, (Facts(total=False), diagonal), places).pruned()]


def log_determinant(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """Log det X is concave on the positive definite matrices; there its sign is 1.

    Along X + t D it is a sum of log(1 + t l), with the eigenvalues l of
    X^-1/2 D X^-1/2. X must be affine, equal to its transpose entry by entry as a
    polynomial of the params, and positive definite for all that its entries may be.
    """
    (matrix,) = inputs
    size = matrix.shape[-1]
    if matrix.is_constant or matrix.shape != (size, size) or not size:
        raise Undecided("a determinant of constants, or of no single matrix")
    _check_affine(matrix)
    number = equation.inputs[0]
    expand = interpreter.whole_expressions.expander.expand
    entries = expand(number) if size <= 32 else None
    if entries is None or not all(
        entries[i, j] == entries[j, i] for i in range(size) for j in range(i)
    ):
        raise Undecided("a determinant of a matrix that is not known to be symmetric")
    ranges = matrix.ranges()
    if not np.isfinite(np.stack([*ranges])).all() or not bool(
        np.all(smallest_eigenvalue(ranges) > 0)
    ):
        raise Undecided("a determinant of a matrix not proved positive definite")
    if equation.primitive == "slogdet_sign":
        return [Array.of(ONE)]
    return [Array.of(closed(Facts(concave=True)))]


def singular_values(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """The sum of the k largest singular values is a norm (Ky Fan), so convex and >= 0.

    They come in falling order. No sum of the smallest is concave: |x| is not.
    """
    if equation.params["compute_uv"] or equation.params["subset_by_index"]:
        raise Undecided("singular vectors, or not all singular values")
    _check_affine(inputs[0])
    source = Array.of(closed(Facts(low=0.0, convex=True)), interpreter.shape(equation))
    return [_in_order(source, is_descending=True, is_whole=False)]


def _check_affine(matrix: Array) -> None:
    if not all(f.affine and f.total for f in matrix.classes):
        raise Undecided("a matrix that is not affine in the params")


def _in_order(source: Array, *, is_descending: bool, is_whole: bool) -> Array:
    """Return sorted values: of single ones, what is known of the first and last."""
    length = source.shape[-1]
    facts = source.facts
    if not source.size:
        return source
    between = Facts(facts.low, facts.high)
    largest = closed(Facts(facts.low, facts.high, convex=facts.convex))
    smallest = closed(Facts(facts.low, facts.high, concave=facts.concave and is_whole))
    if length == 1:
        classes, places = [facts], None
    else:
        classes = [largest, between, smallest]
        row = np.ones(length, np.intp)
        row[0], row[-1] = 0, 2
        places = np.broadcast_to(row if is_descending else row[::-1], source.shape)
    result = Array(source.shape, classes, places).pruned()
    return result.sorts(source, is_descending=is_descending, is_whole=is_whole)

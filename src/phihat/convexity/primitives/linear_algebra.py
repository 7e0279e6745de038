"""Records: products of matrices, convolutions, solves, eigenvalues."""

from phihat.convexity.primitives import rounding
from phihat.convexity.primitives.facts import matrices, products
from phihat.convexity.primitives.jets import whole_arrays as jets
from phihat.convexity.primitives.registry import Primitive
from phihat.convexity.primitives.values import matrices as values
from phihat.convexity.primitives.values import sums

__all__ = ["PAGE"]

PAGE = {
    "cholesky": Primitive(
        value=values.cholesky, facts_of_arrays=matrices.cholesky_factor
    ),
    "conv_general_dilated": Primitive(
        value=sums.convolution, facts_of_arrays=products.convolution
    ),
    "dot_general": Primitive(
        None,
        sums.dot_general,
        jets.dot_general,
        rounding.of_sums(),
        facts_of_arrays=products.dot_general,
    ),
    "eigh": Primitive(facts_of_arrays=matrices.eigenvalues),
    "fft": Primitive(facts_of_arrays=matrices.fourier_transform),
    "lu": Primitive(value=values.lu),
    "slogdet": Primitive(
        value=values.slogdet, facts_of_arrays=matrices.log_determinant
    ),
    "slogdet_sign": Primitive(
        value=values.slogdet, facts_of_arrays=matrices.log_determinant
    ),
    "svd": Primitive(facts_of_arrays=matrices.singular_values),
    "triangular_solve": Primitive(
        value=values.triangular_solve, facts_of_arrays=matrices.triangular_solve
    ),
}

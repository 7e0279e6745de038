r"""Data: the two sets of the chapter "Fitting models", and four real ones.

Every function returns `(x, y)` with a row for each example: floats in the default
dtype (float32, or float64 under x64), class labels in int32.

Example:
  >>> from phihat import datasets
  >>> x, y = datasets.linear_regression()
  >>> x.shape, y.shape
  ((12,), (12,))
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import RandomKey

__all__ = [
    "breast_cancer",
    "diabetes",
    "digits",
    "gabor",
    "linear_regression",
    "linnerud",
    "split",
    "standardize",
]


@_calls.public
def linear_regression() -> tuple[Float[Array, " 12"], Float[Array, " 12"]]:
    """Return the 12 points of the chapter's linear regression.

    Returns:
      x [12] and y [12], without units; made up by the book's author.

    Example:
      >>> x, y = linear_regression()
      >>> print(x[0], y[0])
      0.03 0.67

    References:
      Prince, *Understanding Deep Learning*, 2023, figure 2.2.
    """
    return _floats(_LINEAR_REGRESSION_X), _floats(_LINEAR_REGRESSION_Y)


@_calls.public
def gabor() -> tuple[Float[Array, " 30"], Float[Array, " 30"]]:
    r"""Return the 30 noisy points of the chapter's Gabor model.

    They were drawn around $\phi = (0, 16.6)$ with an envelope of width 4 (denominator
    32), so fit them with `functools.partial(models.gabor, envelope_width=4.0)`.

    Returns:
      x [30] in [-15, 15] and y [30], without units.

    Example:
      >>> x, y = gabor()
      >>> print(x[0], y[0])
      -1.92 -1.051

    References:
      Prince, *Understanding Deep Learning*, 2023, section 6.1.2. The caption there
      counts 28 points; its notebooks hold these 30.
    """
    return _floats(_GABOR_X), _floats(_GABOR_Y)


@_calls.public
def diabetes() -> tuple[Float[Array, "442 10"], Float[Array, " 442"]]:
    """Return a regression with one output: how diabetes progressed in 442 patients.

    Returns:
      x [442, 10] as measured: age (years), sex (1 or 2), body mass index (kg/m^2), mean
      blood pressure (mm Hg), and six values of blood serum (total, LDL and HDL
      cholesterol, total over HDL, log of triglycerides, glucose). Their scales differ:
      `standardize` them. y [442]: progression of the disease after one year, a score
      from 25 to 346.

    Raises:
      ImportError: scikit-learn is missing.

    Example:
      >>> x, y = diabetes()
      >>> x.shape, y.shape
      ((442, 10), (442,))

    References:
      Efron, Hastie, Johnstone, Tibshirani, *Least angle regression*, Annals of
      Statistics 2004.
    """
    x, y = _scikit_learn("diabetes", scaled=False)
    return _floats(x), _floats(y)


@_calls.public
def linnerud() -> tuple[Float[Array, "20 3"], Float[Array, "20 3"]]:
    """Return a regression with three outputs: exercise and body of 20 men.

    Returns:
      x [20, 3]: numbers of chin-ups, sit-ups and jumps. y [20, 3]: weight (pounds),
      waist (inches), pulse (beats per minute).

    Raises:
      ImportError: scikit-learn is missing.

    Example:
      >>> x, y = linnerud()
      >>> x.shape, y.shape
      ((20, 3), (20, 3))

    References:
      Tenenhaus, *La régression PLS*, 1998; collected by A. C. Linnerud.
    """
    x, y = _scikit_learn("linnerud")
    return _floats(x), _floats(y)


@_calls.public
def breast_cancer() -> tuple[Float[Array, "569 30"], Int[Array, " 569"]]:
    """Return a binary classification: tumours of 569 patients, from images of cells.

    Returns:
      x [569, 30]: mean, standard error and worst value of ten features of the cell
      nuclei (radius, texture, perimeter, area, smoothness, ...; in pixels or without
      units). Their scales differ widely: `standardize` them. y [569]: 0 malignant (212
      rows), 1 benign (357 rows).

    Raises:
      ImportError: scikit-learn is missing.

    Example:
      >>> x, y = breast_cancer()
      >>> x.shape, int(y.sum())
      ((569, 30), 357)

    References:
      Street, Wolberg, Mangasarian, *Nuclear feature extraction for breast tumor
      diagnosis*, 1993.
    """
    x, y = _scikit_learn("breast_cancer")
    return _floats(x), jnp.asarray(y, jnp.int32)


@_calls.public
def digits() -> tuple[Float[Array, "1797 64"], Int[Array, " 1797"]]:
    """Return a classification in ten classes: handwritten digits of 8 x 8 pixels.

    Returns:
      x [1797, 64]: the ink in each pixel, row by row, a whole number from 0 to 16; some
      pixels are always 0. y [1797]: the digit, 0 to 9.

    Raises:
      ImportError: scikit-learn is missing.

    Example:
      >>> x, y = digits()
      >>> x.shape, int(y.max())
      ((1797, 64), 9)

    References:
      Alpaydin, Kaynak, *Cascading classifiers*, Kybernetika 1998 (the test set of the
      UCI repository's digits).
    """
    x, y = _scikit_learn("digits")
    return _floats(x), jnp.asarray(y, jnp.int32)


@_calls.public
def standardize(x: Any, *, reference: Any = None) -> Float[Array, "..."]:
    r"""Shift and scale each column to mean 0 and standard deviation 1.

    $z = (x - \mu) / s$, with the mean $\mu$ and the standard deviation $s$ (divisor I)
    of each column of the reference. Where the reference is constant, s = 1, so that a
    constant column becomes zero.

    Args:
      x: [I] or [I, ...], numeric, I >= 1; columns are all axes but the first.
      reference: the rows that $\mu$ and $s$ are taken from, x itself by default. Scale
        held-out rows with the training rows as reference.

    Returns:
      The shape of x, in its dtype where that is a float, else in the default one.

    Raises:
      TypeError: a tuple, such as `(x, y)`, where x alone is meant.
      ValueError: no rows, or columns of x and reference that differ.

    Example:
      >>> train = jnp.array([[1.0, 7.0], [3.0, 7.0]])
      >>> standardize(train).tolist()
      [[-1.0, 0.0], [1.0, 0.0]]
      >>> standardize(jnp.array([[5.0, 7.0]]), reference=train).tolist()
      [[3.0, 0.0]]
    """
    for name, given in (("x", x), ("reference", reference)):
        if isinstance(given, (tuple, dict)) or (
            isinstance(given, list) and any(hasattr(row, "shape") for row in given)
        ):
            raise TypeError(
                f"standardize: `{name}` must be one array, got a "
                f"{type(given).__name__} of {len(given)}; pass x alone, and leave y as "
                "it is."
            )
    x = jnp.asarray(x)
    dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else _tree.default_float()
    wide = _tree.accumulator_dtype(jnp.zeros((), dtype))
    reference = (x if reference is None else jnp.asarray(reference)).astype(wide)
    if _checks.check_rows("standardize", "reference", reference) == 0:
        raise ValueError("standardize: `reference` must have at least one row.")
    if reference.shape[1:] != x.shape[1:] or x.ndim == 0:
        raise ValueError(
            "standardize: `x` and `reference` must have the same columns, got shapes "
            f"{list(x.shape)} and {list(reference.shape)}."
        )
    # A rounded mean would leave a constant column a tiny spread, to be blown up to 1.
    low, high = reference.min(0, keepdims=True), reference.max(0, keepdims=True)
    constant = low == high
    mean = jnp.where(constant, low, reference.mean(0, keepdims=True))
    centred = jnp.where(constant, 1.0, reference - mean)
    spread = jnp.sqrt(jnp.mean(centred * centred, axis=0, keepdims=True))
    return ((x.astype(wide) - mean) / spread).astype(dtype)


@_calls.public
def split(
    data: PyTree, key: RandomKey, *, held_out: float = 0.2
) -> tuple[PyTree, PyTree]:
    """Split data by a random permutation of its rows into train and held-out.

    Args:
      data: any pytree of arrays that share their first length I >= 2, such as `(x, y)`.
      key: a typed key; the same key makes the same split.
      held_out: the fraction of rows to hold out, in (0, 1), rounded to a whole number
        of rows that leaves at least one on either side.

    Returns:
      The train and the held-out rows, two pytrees like `data`, each in random order.

    Raises:
      TypeError: no typed key.
      ValueError: leaves of different lengths, fewer than two rows, or a fraction
        outside (0, 1).

    Example:
      >>> train, held_out = split(linear_regression(), jax.random.key(0), held_out=0.25)
      >>> train[0].shape, held_out[0].shape
      ((9,), (3,))
    """
    _checks.check_key("split", key, required=True)
    _checks.check_range(
        "split", "held_out", held_out, 0.0, 1.0, include_low=False, include_high=False
    )
    num_rows = _checks.check_rows("split", "data", data)
    if num_rows < 2:
        raise ValueError(f"split: `data` must have at least 2 rows, got {num_rows}.")
    num_held_out = min(max(round(num_rows * float(held_out)), 1), num_rows - 1)
    order = jax.random.permutation(key, num_rows)

    def take(rows: Int[Array, " n"]) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], data)

    return take(order[num_held_out:]), take(order[:num_held_out])


def _floats(values: Any) -> Float[Array, "..."]:
    return jnp.asarray(values, _tree.default_float())


def _scikit_learn(name: str, **options: Any) -> tuple[Any, Any]:
    """Return x and y of a set that comes with scikit-learn."""
    call, extra = f"datasets.{name}", '"phihat[examples]"'
    sets = _checks.require(call, "sklearn.datasets", extra)
    return getattr(sets, f"load_{name}")(return_X_y=True, **options)


# fmt: off
_LINEAR_REGRESSION_X = (
    0.03, 0.19, 0.34, 0.46, 0.78, 0.81, 1.08, 1.18, 1.39, 1.6, 1.65, 1.9,
)
_LINEAR_REGRESSION_Y = (
    0.67, 0.85, 1.05, 1.0, 1.4, 1.5, 1.3, 1.54, 1.55, 1.68, 1.73, 1.6,
)
_GABOR_X = (
    -1.92, -14.22, 1.49, -1.94, -2.389, -5.09, -8.861, 3.578, -6.01, -6.995, 3.634,
    0.8743, -10.96, 0.4073, -9.467, 8.56, 10.62, -0.1729, 10.4, -12.61, 0.1574, -13.04,
    -2.156, -12.1, -11.19, 2.902, -8.22, -11.79, -8.391, -4.505,
)
_GABOR_Y = (
    -1.051, -0.02482, 0.8896, -0.4943, -0.9371, 0.4306, 0.009577, -0.07944, 0.1624,
    -0.2682, -0.3129, 0.8303, -0.02365, 0.5098, -0.2777, 0.3367, 0.1927, -0.2222,
    0.06352, 0.006888, 0.03224, 0.01091, -0.5706, -0.05258, -0.03666, 0.1709, -0.04805,
    0.2008, -0.1904, 0.5952,
)
# fmt: on

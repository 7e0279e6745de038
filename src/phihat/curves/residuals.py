"""The residuals of a curve as a function of one vector: what is compiled."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from phihat import losses
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import LossFn, Params
from phihat.curves import robust
from phihat.curves.param_names import Layout

__all__ = [
    "Inputs",
    "Target",
    "curve_loss",
    "each_model",
    "predictions",
    "raw",
    "whitened",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """The numbers of one curve beside its free params.

    Attributes:
      x: what the model is called with, any pytree.
      y: the data, [n], complex ones as their real, then their imaginary parts.
      fixed: all params, [P]; those that are fitted are not read.
      mask: which entries of y count, or None for all, [n].
      scale: one over sigma, [n] or [], or None.
      whitener: the inverse Cholesky factor of a covariance of y, [n, n], or None.
      f_scale: where robust losses begin to bend, [].
    """

    x: PyTree
    y: Any
    fixed: Any
    mask: Any = None
    scale: Any = None
    whitener: Any = None
    f_scale: Any = None

    def cast(self, dtype: Any) -> "Inputs":
        """Return them in another dtype; the mask stays as it is."""
        as_dtype = lambda leaf: np.asarray(leaf).astype(dtype, copy=False)  # noqa: E731
        return jax.tree.map(
            lambda leaf: leaf if leaf.dtype.kind == "b" else as_dtype(leaf), self
        )


@dataclasses.dataclass(frozen=True)
class Target:
    """What a model must return: the structure, shapes and kinds of y.

    Attributes:
      structure: the tree of y.
      shapes: of every leaf.
      complexes: of every leaf, whether it is complex.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    complexes: tuple[bool, ...]

    @classmethod
    def of(cls, y: PyTree) -> "Target":
        """Describe y."""
        leaves, structure = jax.tree.flatten(y)
        return cls(
            structure,
            tuple(np.shape(leaf) for leaf in leaves),
            tuple(bool(np.iscomplexobj(leaf)) for leaf in leaves),
        )

    def parts(self, tree: PyTree, xp: Any) -> list[Any]:
        """Return the flat real vectors that make up one vector [n]."""
        vectors = []
        for leaf, is_complex in zip(jax.tree.leaves(tree), self.complexes, strict=True):
            flat = xp.reshape(leaf, (-1,))
            vectors += [xp.real(flat), xp.imag(flat)] if is_complex else [flat]
        return vectors

    def flatten(self, tree: PyTree, xp: Any = np) -> Any:
        """Return a tree like y as one real vector [n]."""
        vectors = self.parts(tree, xp)
        return vectors[0] if len(vectors) == 1 else xp.concatenate(vectors)

    def unflatten(self, vector: np.ndarray) -> PyTree:
        """Return a vector [n] as a tree like y, by NumPy."""
        leaves, begin = [], 0
        for shape, is_complex in zip(self.shapes, self.complexes, strict=True):
            size = int(np.prod(shape))
            part = vector[begin : begin + size]
            begin += size
            if is_complex:
                part = part + 1j * vector[begin : begin + size]
                begin += size
            leaves.append(part.reshape(shape))
        return jax.tree.unflatten(self.structure, leaves)

    @property
    def size(self) -> int:
        """The number n of real residuals."""
        sizes = zip(self.shapes, self.complexes, strict=True)
        return sum(int(np.prod(shape)) * (1 + more) for shape, more in sizes)


class Prediction(NamedTuple):
    """A model's values and their derivatives by the free params."""

    value: PyTree
    jacobian: PyTree


def each_model(models: Any, params: Params, x: Any) -> Any:
    """Call a model for each of several data sets, all with the same params."""
    if isinstance(models, dict):
        return {key: model(params, x[key]) for key, model in models.items()}
    pairs = zip(models, x, strict=True)
    return tuple(model(params, part) for model, part in pairs)


def curve_loss(model: Partial, layout: Layout, target: Target, loss: str) -> LossFn:
    """Return the sum of squares `(free [F], (inputs, zeros [n])) -> []` of a curve."""
    static = _tree.Static
    return losses.least_squares(
        Partial(_shrunk, model, static(layout), static(target), static(loss))
    )


def raw(
    model: Partial,
    layout: Layout,
    target: Target,
    free: Float[Array, " F"],
    inputs: Inputs,
) -> Float[Array, " n"]:
    """Return prediction minus y, 0 where masked."""
    prediction = model(layout.merge(free, inputs.fixed), inputs.x)
    _check_prediction(prediction, target)
    residual = target.flatten(prediction, jnp).astype(inputs.y.dtype) - inputs.y
    return residual if inputs.mask is None else jnp.where(inputs.mask, residual, 0.0)


def whitened(
    model: Partial,
    layout: Layout,
    target: Target,
    free: Float[Array, " F"],
    inputs: Inputs,
) -> Float[Array, " n"]:
    """Return prediction minus y over sigma, 0 where masked."""
    residual = raw(model, layout, target, free, inputs)
    if inputs.scale is not None:
        residual = residual * inputs.scale
    if inputs.whitener is not None:
        residual = inputs.whitener @ residual
    return residual


def predictions(
    code: tuple[Partial, _tree.Static],
    options: Any,
    mode: Mode,
    free: Float[Array, " F"],
    fixed: Float[Array, " P"],
    x: PyTree,
) -> Prediction:
    """Return the model's values at x and their derivatives, as one program."""
    del options, mode
    model, layout = code
    predict: Callable[[Array], PyTree] = lambda vector: model(  # noqa: E731
        layout.value.merge(vector, fixed), x
    )
    return Prediction(predict(free), jax.jacfwd(predict)(free))


# ------------------------------------------------------------------------- private


def _shrunk(
    model: Partial,
    layout: _tree.Static,
    target: _tree.Static,
    loss: _tree.Static,
    free: Float[Array, " F"],
    inputs: Inputs,
) -> Float[Array, " n"]:
    residual = whitened(model, layout.value, target.value, free, inputs)
    return robust.shrink(loss.value, residual, inputs.f_scale, jnp)


def _check_prediction(prediction: Any, target: Target) -> None:
    """Check what a model returns; `problem` has told the caller already."""
    leaves, structure = jax.tree.flatten(prediction)
    shapes = tuple(np.shape(leaf) for leaf in leaves)
    if structure != target.structure or shapes != target.shapes:
        raise ValueError(
            f"fit_curve: the model must return arrays like y, of shapes "
            f"{[list(shape) for shape in target.shapes]}, got "
            f"{[list(shape) for shape in shapes]}."
        )

"""What a model must be: `(params, x)`, in jax, with a result like y."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from phihat._core import checks as _checks
from phihat._core import data_checks as _data_checks
from phihat.curves.param_names import Layout
from phihat.curves.residuals import Inputs, Target

__all__ = ["check_model", "check_rounding", "check_signature", "in_floats"]


def in_floats(dtype: Any) -> Any:
    """Return the context in which jax computes in this dtype, in this thread alone."""
    return jax.enable_x64(np.dtype(dtype) == np.float64)


def check_signature(call: str, model: Any) -> None:
    """Refuse SciPy's order of arguments, and whatever is no function."""
    if not callable(model):
        raise TypeError(
            f"{call}: `model` must be a function (params, x), got "
            f"{_checks.brief(model)}."
        )
    try:
        parameters = list(inspect.signature(model).parameters.values())
    except (TypeError, ValueError):
        return
    by_place = [
        each
        for each in parameters
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    takes_any = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    needed = [each for each in by_place if each.default is each.empty]
    names = [each.name for each in by_place]
    is_scipy = bool(names) and names[0] in ("x", "xdata") and "params" not in names[:1]
    is_scipy &= len(names) > 1 or takes_any
    has_two = len(needed) <= 2 and (len(by_place) >= 2 or takes_any)
    if has_two and not is_scipy:
        return
    shown = ", ".join(names + ["*params"] * takes_any)
    raise TypeError(
        f"{call}: models are (params, x), got ({shown}), the order of "
        "`scipy.optimize.curve_fit`; write `lambda p, x: model(x, p['a'], p['b'])` "
        "and name the params in `start`."
        if is_scipy
        else f"{call}: models are (params, x), got ({shown}): put all params into the "
        "first argument, and bind other arguments by `functools.partial`."
    )


def check_model(
    call: str,
    model: Partial,
    layout: Layout,
    target: Target,
    inputs: Inputs,
    dtype: Any,
    num_curves: int | None = None,
) -> None:
    """Call the model on shapes alone, and compare what it returns with y."""
    result = _trace(call, model, layout, inputs, dtype, num_curves)
    leaves, structure = jax.tree.flatten(result)
    if structure != target.structure:
        entries = jax.tree.unflatten(target.structure, target.shapes)
        cure = "."
        if isinstance(entries, dict) and structure.num_leaves == 1:
            cure = f"; pass one column of y, such as `y[{next(iter(entries))!r}]`."
        elif isinstance(result, (list, tuple)) and structure.num_leaves > 1:
            cure = "; join its entries by `jnp.stack`."
        raise ValueError(
            f"{call}: the model must return what y is, "
            f"{_checks.in_words(target.structure)}, got "
            f"{_checks.in_words(structure)}{cure}"
        )
    rows = zip(leaves, target.shapes, target.complexes, strict=True)
    for leaf, shape, is_complex in rows:
        _check_leaf(call, leaf, shape, is_complex, dtype)


def _trace(
    call: str,
    model: Partial,
    layout: Layout,
    inputs: Inputs,
    dtype: Any,
    num_curves: int | None,
) -> Any:
    """Return the shapes of what the model returns, or say why it fails."""
    free = np.zeros(len(layout.free_names), dtype)

    def trace(*, swaps: bool = False) -> Any:
        def predict(free: Any, fixed: Any, x: Any) -> Any:
            params = layout.merge(free, fixed)
            return model(x, params) if swaps else model(params, x)

        return jax.eval_shape(predict, free, inputs.fixed.astype(dtype), inputs.x)

    with in_floats(dtype):
        try:
            return trace()
        except (
            jax.errors.TracerArrayConversionError,
            jax.errors.TracerBoolConversionError,
            jax.errors.ConcretizationTypeError,
        ) as error:
            raise TypeError(
                f"{call}: the model must be written in jax: use `jax.numpy` where it "
                "calls NumPy or SciPy, and `jnp.where` for `if` on values."
            ) from error
        except KeyError as error:
            raise ValueError(
                f"{call}: the model asks for {error}, but `start` has the params "
                f"{list(layout.names)}."
            ) from error
        except Exception as error:
            if _works(lambda: trace(swaps=True)):
                raise TypeError(
                    f"{call}: models are (params, x), but this one works as (x, "
                    "params); exchange its arguments."
                ) from error
            if num_curves is not None:
                _explain_lengths(call, layout, num_curves, error)
            error.add_note(
                f"{call}: that is the model called with {_shapes('params', layout)} "
                f"and {_shapes('x', inputs.x)}."
            )
            raise


def _check_leaf(
    call: str, leaf: Any, shape: tuple[int, ...], is_complex: bool, dtype: Any
) -> None:
    """Compare what the model returns with a leaf of y."""
    if leaf.shape != shape:
        cure = ""
        if leaf.size == int(np.prod(shape)):
            cure = "; add or drop an axis, for example by `[:, 0]`"
        elif leaf.shape == ():
            cure = "; a constant is `jnp.full_like(x, value)`"
        elif call == "fit_curve" and leaf.shape == shape[:1] and len(shape) == 2:
            cure = f"; {shape[1]} curves over one x are for "
            cure += "`fit_curves(model, x, y.T, start)`"
        raise ValueError(
            f"{call}: the model must return the shape of y, {list(shape)}, got "
            f"{list(leaf.shape)}{cure}."
        )
    returns_complex = leaf.dtype.kind == "c"
    if returns_complex != is_complex:
        got, wanted = ("complex", "real") if returns_complex else ("real", "complex")
        raise TypeError(
            f"{call}: the model returns {got} numbers, but y is {wanted}; give "
            "both the same, for example by `jnp.abs`, `.real` or `.imag`."
        )
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        raise TypeError(
            f"{call}: the model returns {leaf.dtype}, which has no derivatives by "
            "the params; return floats."
        )
    if jnp.finfo(leaf.dtype).eps > np.finfo(dtype).eps:
        raise TypeError(
            f"{call}: the model returns {leaf.dtype}, but it is called with "
            f"{np.dtype(dtype)}; drop the cast inside it."
        )


def check_rounding(call: str, x: Any, dtype: Any) -> None:
    """Warn where the dtype asked for cannot tell the numbers in x apart."""
    if np.dtype(dtype) == np.float32:
        with in_floats(dtype):
            for leaf in jax.tree.leaves(x):
                _data_checks.warn_of_rounding(call, "`x`", leaf, "leave `dtype` out")


def _shapes(name: str, tree: Any) -> str:
    """Say what a model is called with."""
    if isinstance(tree, Layout):
        found = _leaves(tree)
    else:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        found = [(jax.tree_util.keystr(path), np.shape(leaf)) for path, leaf in leaves]
    shapes = [f"{name}{path} {list(shape)}" for path, shape in found]
    return ", ".join(shapes) or f"no {name}"


def _explain_lengths(
    call: str, layout: Layout, num_curves: int, error: Exception
) -> None:
    """Say so where a start for each curve has another length than there are curves."""
    for path, shape in _leaves(layout):
        if len(shape) == 1 and shape[0] > 1:
            raise ValueError(
                f"{call}: `start{path}` has {shape[0]} entries, so it is neither one "
                f"number nor one for each of {num_curves} curves, and the model fails "
                f"with it: {' '.join(str(error).split())}"
            ) from error


def _leaves(layout: Layout) -> list[tuple[str, tuple[int, ...]]]:
    """Return the path and the shape of every leaf of the params."""
    tree = jax.tree.unflatten(
        layout.structure, [np.empty(shape) for shape in layout.shapes]
    )
    return [
        (jax.tree_util.keystr(path), np.shape(leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def _works(call: Any) -> bool:
    try:
        call()
    except Exception:
        return False
    return True

"""Complex values as pairs of real ones: `abs(fft(w))` and its like.

Params and losses are real, but a loss may pass through complex numbers. Each is read
as two values, its real and its imaginary part, and each primitive on complex numbers as
the real arithmetic that defines it. A discrete Fourier transform stays one equation,
`fft`, from the parts to the parts: a linear map, whose coefficients are not written out
since they are no floats. Whatever else is complex has no rule.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from phihat.convexity.program.form import Source

__all__ = ["constant", "is_complex", "read"]

_MOVED = {
    *("broadcast_in_dim", "concatenate", "expand_dims", "neg", "reduce_sum"),
    *("reshape", "rev", "slice", "squeeze", "transpose"),
}
"""What does to both parts what it does to the whole."""


def is_complex(dtype: Any) -> bool:
    """Whether a dtype is one of complex numbers."""
    return jnp.issubdtype(dtype, jnp.complexfloating)


def constant(flattener: Any, value: Any) -> int:
    """Number a complex constant, with its parts."""
    array = np.asarray(value)
    parts = tuple(
        flattener.constant(np.array(p)) for p in (np.real(array), np.imag(array))
    )
    return _paired(flattener, array, parts)


def read(
    flattener: Any, eqn: Any, name: str, inputs: Sequence[int], source: Source
) -> list[int] | None:
    """Write an equation that reads or writes complex values; None where it cannot.

    `flattener.pairs` holds the parts of complex values.
    """
    parts = [_parts(flattener, n) for n in inputs]
    if None in parts or len(eqn.outvars) != 1:
        return None
    (variable,) = eqn.outvars
    flat = [n for pair in parts for n in pair]  # type: ignore
    if name == "mul" and _are_conjugate(flattener, *parts):
        flat = flat[:2]
    if name == "fft":
        return _transform(flattener, eqn, flat, source)
    function = _squared_size if len(flat) < 2 * len(parts) else _written(name, eqn)
    if function is None:
        return None
    avals = [
        jax.ShapeDtypeStruct(flattener.shapes[n], flattener.dtypes[n]) for n in flat
    ]
    closed = jax.make_jaxpr(function)(*avals)
    found = flattener.inline(closed, flat, source)
    if not is_complex(variable.aval.dtype):
        return found
    return [_paired(flattener, variable.aval, (found[0], found[1]))]


def _are_conjugate(flattener: Any, one: Any, other: Any) -> bool:
    """Whether one of two values is written as the conjugate of the other."""
    if one[0] != other[0]:
        return False
    for b, d in ((one[1], other[1]), (other[1], one[1])):
        writer = flattener.writers.get(d)
        if writer is not None and writer.primitive == "neg" and writer.inputs == (b,):
            return True
    return False


def _squared_size(a: Any, b: Any) -> list[Any]:
    """Z times its conjugate is real: a a + b b."""
    return [lax.add(lax.square(a), lax.square(b)), lax.sub(a, a)]


def _parts(flattener: Any, number: int) -> tuple[int, int] | None:
    """Return the parts of a value; of a real one the imaginary part is 0."""
    if number in flattener.pairs:
        return flattener.pairs[number]
    dtype = flattener.dtypes[number]
    if not jnp.issubdtype(dtype, jnp.floating):
        return None
    zeros = np.broadcast_to(np.zeros((), dtype), flattener.shapes[number])
    return number, flattener.constant(zeros)


def _paired(flattener: Any, aval: Any, parts: tuple[int, int]) -> int:
    number = flattener.new_value(aval)
    flattener.pairs[number] = parts
    return number


def _written(name: str, eqn: Any) -> Callable[..., Any] | None:
    """Return an equation's meaning on parts, `(re, im, re, im, ...) -> (re, im)`."""
    if name == "convert_element_type":
        new = eqn.outvars[0].aval.dtype
        if not is_complex(new):
            return None
        width = jnp.finfo(new).dtype

        def cast(*parts: Any) -> Any:
            return [lax.convert_element_type(part, width) for part in parts]

        return cast
    if name in _MOVED:

        def each(*parts: Any) -> Any:
            return [eqn.primitive.bind(*parts[k::2], **eqn.params) for k in range(2)]

        return each
    return _ARITHMETIC.get(name)


_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "abs": lambda a, b: [lax.sqrt(lax.add(lax.square(a), lax.square(b)))],
    "add": lambda a, b, c, d: [lax.add(a, c), lax.add(b, d)],
    "complex": lambda a, _, c, __: [a, c],
    "conj": lambda a, b: [a, lax.neg(b)],
    "imag": lambda _, b: [b],
    "mul": lambda a, b, c, d: [
        lax.sub(lax.mul(a, c), lax.mul(b, d)),
        lax.add(lax.mul(a, d), lax.mul(b, c)),
    ],
    "real": lambda a, _: [a],
    "sub": lambda a, b, c, d: [lax.sub(a, c), lax.sub(b, d)],
}


def _transform(
    flattener: Any, eqn: Any, parts: Sequence[int], source: Source
) -> list[int]:
    """Write a discrete Fourier transform, from real parts to real parts."""
    (variable,) = eqn.outvars
    dtype, shape = variable.aval.dtype, variable.aval.shape
    aval = jax.ShapeDtypeStruct(shape, jnp.finfo(dtype).dtype)
    params = {key: eqn.params[key] for key in ("fft_type", "fft_lengths")}
    found = flattener.make_all(
        "fft", tuple(parts), [aval] * (1 + is_complex(dtype)), source, **params
    )
    if not is_complex(dtype):
        return list(found)
    return [_paired(flattener, variable.aval, (found[0], found[1]))]

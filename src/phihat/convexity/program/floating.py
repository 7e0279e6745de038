"""A flat program as a JAX function: the value in floats, and the value's derivatives.

It computes in float64 what the flat program says, from data that may be given anew: its
floats stand for reals, so they are widened; its integers stay in their own dtype. It
has no derivative rules but those of the primitives: `stop_gradient` and custom rules
are gone, so that its Hessian is that of the value wherever the value is smooth.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.program.atoms import ATOMS
from phihat.convexity.program.form import Equation, Program

__all__ = ["function_of"]


def function_of(program: Program) -> Callable[..., Any]:
    """Return `(leaves of params, leaves of data) -> value`, to be traced in float64.

    The function raises NotImplementedError where an equation cannot be applied, and
    whatever a primitive raises that insists on another dtype.
    """

    def value(leaves: Sequence[Any], data: Sequence[Any] = ()) -> Any:
        return _apply(program, [*leaves], [*data])[0]

    return value


def _apply(program: Program, params: list[Any], data: list[Any]) -> list[Any]:
    values = dict(zip(program.params, params, strict=True))
    for number, leaf in zip(program.data, data, strict=True):
        if leaf is not None:
            dtype = program.dtypes[number]
            wide = jnp.float64 if dtypes.is_float(dtype) else dtype
            values[number] = jnp.asarray(leaf).astype(wide)

    def read(number: int) -> Any:
        if number not in values:
            values[number] = _as_float64(program.constants[number])
        return values[number]

    for equation in program.equations:
        results = _results(equation, [read(number) for number in equation.inputs])
        values.update(zip(equation.outputs, results, strict=True))
    return [read(number) for number in program.outputs]


def _results(equation: Equation, inputs: list[Any]) -> Sequence[Any]:
    name, params = equation.primitive, equation.params
    if name in ATOMS:
        return [ATOMS[name](*inputs)]
    if name == "fft":
        return _transformed(equation, *inputs)
    if name == "row":
        return [inputs[0][params["row"]]]
    if name == "stack" and equation.bind is None:
        return [jnp.stack(inputs, params["axis"])]
    if name == "select_n" and equation.bind is None:
        return [jax.lax.select_n(*inputs)]
    if name == "scan":
        return _scanned(params, inputs)
    if equation.bind is None or name == "bitcast_convert_type":
        raise NotImplementedError(name)  # of other bits, in float64
    results = equation.bind(*inputs, **_widened(params))
    return results if isinstance(results, (list, tuple)) else [results]


def _scanned(params: Mapping[str, Any], inputs: list[Any]) -> list[Any]:
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    split = num_consts + num_carry

    def body(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        results = _apply(params["body"], [*inputs[:num_consts], *carry, *row], [])
        return results[:num_carry], results[num_carry:]

    carry, rows = jax.lax.scan(
        body,
        inputs[num_consts:split],
        inputs[split:],
        length=params["length"],
        reverse=params["reverse"],
    )
    return [*carry, *rows]


def _as_float64(value: np.ndarray) -> np.ndarray:
    if dtypes.is_float(value.dtype):
        return value.astype(np.float64)
    return value


def _widened(params: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for float64 wherever a narrower float is asked for."""
    return {key: _wider(value) for key, value in params.items()}


def _wider(value: Any) -> Any:
    is_dtype = isinstance(value, np.dtype) or (
        isinstance(value, type) and issubclass(value, np.generic)
    )
    if is_dtype and dtypes.is_float(value):
        return np.dtype(np.float64)
    return value


def _transformed(equation: Equation, real: Any, imaginary: Any) -> Sequence[Any]:
    """Apply a Fourier transform to the parts of its input."""
    kind, lengths = (equation.params[key] for key in ("fft_type", "fft_lengths"))
    is_real = kind is jax.lax.FftType.RFFT
    given = real if is_real else jax.lax.complex(real, imaginary)
    result = jax.lax.fft(given, kind, lengths)
    return [result.real, result.imag][: len(equation.outputs)]

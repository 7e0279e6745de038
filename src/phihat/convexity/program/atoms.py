"""Functions of jax that stand for an ideal function, recognised by their bodies.

`jnp.logaddexp` is written so that it does not overflow, `log_ndtr` by two expansions
that meet with a jump of 4e-9: their bodies are neither convex nor concave to the last
bit, the functions that they stand for are. A call is read as such an atom only if its
jaxpr equals, up to the names of variables, the jaxpr that the *installed* jax makes of
the reference function on arguments of the same shapes and dtypes, under the same
configuration. So an impostor that merely bears the name is not read as one, and a new
jax is followed by itself.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np

from phihat._core.jaxprs import primitive_name

__all__ = ["ATOMS", "recognise"]

ATOMS: dict[str, Callable[..., Any]] = {
    "logaddexp": jnp.logaddexp,
    "log_ndtr": jax.scipy.special.log_ndtr,
    "xlogy": jax.scipy.special.xlogy,
    "xlog1py": jax.scipy.special.xlog1py,
    "entr": jax.scipy.special.entr,
    "rel_entr": jax.scipy.special.rel_entr,
    "kl_div": jax.scipy.special.kl_div,
    "slogdet": lambda x: jnp.linalg.slogdet(x)[1],
    "slogdet_sign": lambda x: jnp.linalg.slogdet(x)[0],
    "interp": lambda x, xp, fp: jnp.interp(x, xp, fp),
    "interp_extrapolated": lambda x, xp, fp: jnp.interp(
        x, xp, fp, left="extrapolate", right="extrapolate"
    ),
}
"""The reference functions, by the name that the program gives them."""

_CALLED = {"_interp": ("interp", "interp_extrapolated"), "slogdet_sign": ()}
"""Atoms whose calls bear another name: of one function with several settings."""

_NOT_VALUE = {
    *("bwd", "fwd", "fwd_jaxpr_thunk", "jvp", "jvp_jaxpr_fun", "name", "out_trees"),
    *("symbolic_zeros", "ctx_mesh", "compiler_options_kvs", "debug_info"),
}
"""Parameters of calls that say nothing about the value."""


def recognise(eqn: Any, body: Any) -> str | None:
    """Return the name of the atom that is called, whose jaxpr is `body`, or None."""
    called = _name(eqn, body)
    names = _CALLED.get(called, (called,) if called in ATOMS else ())
    if not names:
        return None
    avals = tuple(
        (aval.shape, str(aval.dtype), bool(getattr(aval, "weak_type", False)))
        for aval in (atom.aval for atom in eqn.invars)
    )
    fingerprint = _fingerprint(body)
    for name in names:
        if fingerprint in _reference_bodies(name, avals, _configuration()):
            return name
    return None


def _name(eqn: Any, body: Any) -> str:
    """Return what a call is named: a hint of where to look, never evidence."""
    jaxpr = getattr(body, "jaxpr", body)
    debug = getattr(jaxpr, "debug_info", None)
    name = eqn.params.get("name") or getattr(debug, "func_name", None) or ""
    return str(name).split(" ")[0]


def _configuration() -> tuple[Any, ...]:
    """Return what of jax's configuration decides how a function is traced."""
    return tuple(
        getattr(jax.config, option, None)
        for option in (
            "jax_enable_x64",
            "jax_numpy_dtype_promotion",
            "jax_numpy_rank_promotion",
            "jax_default_dtype_bits",
            "jax_default_matmul_precision",
        )
    )


@functools.cache
def _reference_bodies(name: str, avals: Any, configuration: Any) -> frozenset[str]:
    """Trace the reference on such arguments; return fingerprints of its calls."""
    del configuration  # the current one; part of the key alone
    structs = [
        jax.ShapeDtypeStruct(shape, dtype, weak_type=weak)
        for shape, dtype, weak in avals
    ]
    try:
        with jax.disable_jit(False):
            closed = jax.make_jaxpr(ATOMS[name])(*structs)
    except Exception:  # arguments that the reference refuses: no atom
        return frozenset()
    found = {_fingerprint(closed)}
    # The call itself may be the only equation; then its body is what is compared.
    jaxpr = closed.jaxpr
    while len(jaxpr.eqns) == 1:
        inner = [v for v in jaxpr.eqns[0].params.values() if hasattr(v, "jaxpr")]
        same = [v for v in jaxpr.eqns[0].invars] == list(jaxpr.invars)
        if not inner or not same:
            break
        found.add(_fingerprint(inner[0]))
        jaxpr = inner[0].jaxpr
    return frozenset(found)


def _fingerprint(closed: Any) -> str:
    """Write a jaxpr with its variables numbered in order of appearance."""
    jaxpr = getattr(closed, "jaxpr", closed)
    numbers: dict[Any, int] = {}

    def define(variable: Any) -> str:
        numbers[variable] = len(numbers)
        return f"{numbers[variable]}:{variable.aval.str_short()}"

    def read(atom: Any) -> str:
        if hasattr(atom, "val"):
            value = np.asarray(atom.val)
            return f"{value.dtype}{value.shape}{value.tobytes().hex()}"
        return str(numbers[atom])

    lines = ["in " + " ".join(define(v) for v in jaxpr.invars)]
    for variable, value in zip(
        jaxpr.constvars, getattr(closed, "consts", ()), strict=True
    ):
        array = np.asarray(value)
        lines.append(f"{define(variable)} {array.dtype} {array.tobytes().hex()}")
    for eqn in jaxpr.eqns:
        inputs = " ".join(read(atom) for atom in eqn.invars)
        settings = ", ".join(
            f"{key}={_setting(value)}"
            for key, value in sorted(eqn.params.items())
            if key not in _NOT_VALUE
        )
        outputs = " ".join(define(v) for v in eqn.outvars)
        name = primitive_name(eqn.primitive) or f"{id(eqn.primitive)}"
        lines.append(f"{outputs} = {name}[{settings}] {inputs}")
    lines.append("out " + " ".join(read(atom) for atom in jaxpr.outvars))
    return "\n".join(lines)


def _setting(value: Any) -> str:
    if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
        return "{" + _fingerprint(value) + "}"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(_setting, value)) + ")"
    return f"{type(value).__name__}:{value!r}"

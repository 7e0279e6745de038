"""What depends on the versions of jax and of XLA: jaxprs, primitives, options."""

import concurrent.futures
import functools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.extend.core
import jax.extend.core.primitives
import numpy as np

__all__ = [
    "bodies",
    "branch_of_platform",
    "equations",
    "holds",
    "is_tracing",
    "primitive_name",
    "quick_start_options",
    "scan_counts",
]


def scan_counts(params: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many inputs of a `scan` are constants, and how many are carried.

    Args:
      params: what the primitive was bound with. Up to jax 0.11 they tell the numbers,
        later they hold the three groups of inputs.
    """
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(list(consts)), len(list(carry))


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yield the equations of a jaxpr, at any depth."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        for body in bodies(equation):
            yield from equations(body)


def bodies(equation: Any) -> list[Any]:
    """Return the jaxprs in the params of an equation, such as a loop's body."""
    values = [
        getattr(one, "jaxpr", one)
        for value in equation.params.values()
        for one in (value if isinstance(value, (tuple, list)) else (value,))
    ]
    return [value for value in values if hasattr(value, "eqns")]


def holds(jaxpr: Any, name: str) -> bool:
    """Tell whether a jaxpr holds a primitive of this name, at any depth."""
    return any(equation.primitive.name == name for equation in equations(jaxpr))


@functools.cache
def quick_start_options(*, runs_briefly: bool = False) -> dict[str, Any] | None:
    """Return options with which XLA compiles a small program in half the time.

    On the CPU XLA has two ways to write a kernel. The newer one takes about 10 ms for
    each, and what it writes runs up to a sixth faster. Returns None on other devices,
    where the user has chosen by `XLA_FLAGS`, or where XLA does not know the option.

    Args:
      runs_briefly: the program runs for so short a time that optimizing its kernels
        does not pay: LLVM is told not to, and compiling takes half the time again.
    """
    name, level = "xla_cpu_use_fusion_emitters", "xla_backend_optimization_level"
    chosen = os.environ.get("XLA_FLAGS", "")
    if jax.default_backend() != "cpu" or name in chosen:
        return None
    options: dict[str, Any] = {name: False}
    if runs_briefly and level not in chosen:
        options[level] = 0
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except Exception:  # of what type depends on the version
        return None
    return options


def primitive_name(primitive: Any) -> str | None:
    """Return the name of a primitive of jax; None for any other object.

    The object decides, and never the name that it bears: a primitive that somebody
    else made is not jax's own, even if it is called `exp`. One that this version of jax
    does not hand out has no name here.
    """
    return _names().get(primitive)


@functools.cache
def _names() -> dict[Any, str]:
    return {primitive: primitive.name for primitive in _primitives()}


def _primitives() -> Iterator[Any]:
    """Yield the primitives that jax hands out by attribute, or by a public function."""
    for home in (jax.extend.core.primitives, jax.lax):
        for attribute in dir(home):
            if attribute.endswith("_p"):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = getattr(home, attribute, None)
                if isinstance(found, jax.extend.core.Primitive):
                    yield found
    data = jax.ShapeDtypeStruct((2,), np.uint32)
    yield from _used_by(
        lambda x: jax.random.wrap_key_data(x, impl="threefry2x32"), data
    )
    yield from _used_by(jax.random.key_data, jax.eval_shape(jax.random.key, 0))
    by_platform = {"cpu": lambda x: x, "default": lambda x: -x}
    yield from _used_by(
        lambda x: jax.lax.platform_dependent(x, **by_platform),
        jax.ShapeDtypeStruct((), np.float32),
    )


def branch_of_platform(platforms: Any) -> int | None:
    """Return which branch a `platform_index` takes on the default backend.

    Args:
      platforms: what the primitive was bound with: the platforms of each branch, or
        None for those of all others.
    """
    backend = jax.default_backend()
    names = {"cuda", "gpu", "rocm"} if backend == "gpu" else {backend}
    found = [k for k, of_one in enumerate(platforms) if of_one and names & set(of_one)]
    if not found:
        found = [k for k, of_one in enumerate(platforms) if of_one is None]
    return found[0] if len(found) == 1 else None


def _used_by(function: Callable[..., Any], argument: Any) -> Iterator[Any]:
    """Yield the primitives that have no attribute, from a jaxpr of what uses them."""
    try:
        with jax.disable_jit(False):
            eqns = jax.make_jaxpr(function)(argument).eqns
    except Exception:  # another version of jax: then they have no rule
        return
    for eqn in eqns:
        name = eqn.primitive.name
        if name in ("random_wrap", "random_unwrap", "platform_index"):
            yield eqn.primitive
        elif name in ("jit", "pjit"):
            inner = eqn.params["jaxpr"].jaxpr.eqns
            yield from (
                e.primitive
                for e in inner
                if e.primitive.name in ("random_wrap", "random_unwrap")
            )


def is_tracing() -> bool:
    """Tell whether some transformation of jax is tracing right now."""
    eager, look = _trace_states()
    return look() != eager


@functools.cache
def _trace_states() -> tuple[Any, Callable[[], Any]]:
    """Return the state in which nothing is traced, and how to get the present one."""
    look = functools.partial(
        jax.extend.core.get_opaque_trace_state, convention="phihat"
    )
    # The first call may be inside a trace; a thread of its own begins outside any.
    with concurrent.futures.ThreadPoolExecutor(1) as outside:
        return outside.submit(look).result(), look

"""What the jaxprs of several jax versions write differently.

Example:
  >>> import jax
  >>> add = lambda total, x: (total + x, None)
  >>> jaxpr = jax.make_jaxpr(lambda x: jax.lax.scan(add, 0.0, x))(jax.numpy.ones(3))
  >>> scan_counts(jaxpr.eqns[0].params)
  (0, 1)
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["holds", "scan_counts"]


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


def holds(jaxpr: Any, name: str) -> bool:
    """Tell whether a jaxpr holds a primitive of this name, at any depth.

    Args:
      jaxpr: a jaxpr, closed or not.
      name: of a primitive.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            return True
        for value in equation.params.values():
            inner = value if isinstance(value, (tuple, list)) else (value,)
            if any(hasattr(one, "eqns") and holds(one, name) for one in inner):
                return True
            if any(hasattr(one, "jaxpr") and holds(one, name) for one in inner):
                return True
    return False

"""Which object is which primitive: the object decides, and not the name it bears."""

import functools
from typing import Any

import jax
import jax.extend.core.primitives

__all__ = ["jax_primitive"]

_ATTRIBUTES = {"add_any": "add_jaxvals_p"}
"""Where the attribute is not the name of the primitive."""


@functools.cache
def jax_primitive(name: str) -> Any:
    """Return jax's own primitive of a name, or None."""
    attribute = _ATTRIBUTES.get(name, name.replace("-", "_") + "_p")
    for module in (jax.extend.core.primitives, jax.lax):
        found = getattr(module, attribute, None)
        if found is not None:
            return found
    return None

"""Processes that run one program: what they must agree on before they go on.

Clocks and signals differ from process to process; how many steps a chunk has, and
whether a fit ends, may not.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat.training import multihost
  >>> multihost.spans({"w": jnp.ones(3)})
  False
"""

from typing import Any

import jax
import numpy as np

__all__ = ["first_of", "largest_of", "spans"]


def spans(*trees: Any) -> bool:
    """Tell whether some array lies on devices of several processes."""
    leaves = jax.tree.leaves(trees)
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    return any(not array.is_fully_addressable for array in arrays)


def first_of(number: float) -> float:
    """Return the number that process 0 gave."""
    from jax.experimental import multihost_utils

    return float(multihost_utils.broadcast_one_to_all(np.float32(number)))


def largest_of(number: int) -> int:
    """Return the largest of the numbers that the processes gave."""
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(number))))

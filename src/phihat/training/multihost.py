"""Processes that run one program: what they must agree on before they go on.

Clocks, signals and disks differ from process to process; how many steps a chunk has,
whether a fit ends and from where it goes on may not.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

__all__ = ["first_of", "from_first", "largest_of", "spans"]

T = TypeVar("T")


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


def from_first(call: str, what: str, action: Callable[[], int]) -> int:
    """Let process 0 do something, and return its number in all processes.

    Args:
      call: the public function, for messages.
      what: is done, for the message of the other processes.
      action: what process 0 alone does; it returns a number below 2^31, >= 0.
    """
    if jax.process_count() == 1:
        return action()
    failure: BaseException | None = None
    number = -1
    if jax.process_index() == 0:
        try:
            number = action()
        except BaseException as error:
            failure = error
    from jax.experimental import multihost_utils

    number = int(multihost_utils.broadcast_one_to_all(np.int32(number)))
    if failure is not None:
        raise failure
    if number < 0:
        raise RuntimeError(f"{call}: process 0 could not {what}; it says why.")
    return number

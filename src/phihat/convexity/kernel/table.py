"""The kernel's table: one theorem for each primitive, applied to one element."""

from collections.abc import Callable

from phihat.convexity.kernel.arithmetic import ARITHMETIC
from phihat.convexity.kernel.facts import Known
from phihat.convexity.kernel.functions import FUNCTIONS
from phihat.convexity.kernel.logic import LOGIC

__all__ = ["TABLE"]

TABLE: dict[str, Callable[..., Known]] = {**ARITHMETIC, **FUNCTIONS, **LOGIC}
"""The theorems, by the name of the primitive or the atom."""

"""How XLA compiles in the tests, and in what they start."""

import os

__all__ = ["QUICK", "quick"]

QUICK = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
"""Kernels written in the older of two ways and hardly optimized: nearly all of the time
of the tests is XLA's, and what they run is small."""


def quick() -> str:
    """Return `XLA_FLAGS` for this process: the user's own, and the quick ones.

    With `PHIHAT_COMPILE=fully` in the environment XLA compiles as it does for users.
    """
    own = os.environ.get("XLA_FLAGS", "")
    if os.environ.get("PHIHAT_COMPILE") == "fully":
        return own
    return f"{own} {QUICK}".strip()

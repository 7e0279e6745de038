"""How XLA compiles in the tests, and in what they start."""

import os

__all__ = ["COMPILES_FULLY", "QUICK", "of_this_process"]

QUICK = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
"""Kernels written in the older of two ways and hardly optimized: most of the time of
the tests is XLA's, and what they run is small."""

COMPILES_FULLY = os.environ.get("PHIHAT_COMPILE") == "fully"
"""XLA compiles here as it does for users. Tests marked `bits` run only so: what is
hardly optimized rounds in other places."""


def of_this_process() -> str:
    """Return `XLA_FLAGS`: the user's own, and the quick ones."""
    own = os.environ.get("XLA_FLAGS", "")
    return own if COMPILES_FULLY else f"{own} {QUICK}".strip()

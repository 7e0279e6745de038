"""How XLA compiles in the tests, and in what they start."""

import functools
import gc
import os
from pathlib import Path

from jax._src.interpreters import mlir

__all__ = ["CACHE", "COMPILES_FULLY", "QUICK", "of_this_process", "save_time"]

QUICK = (
    "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
    " --xla_cpu_parallel_codegen_split_count=1"
)
"""Kernels written in the older of two ways and hardly optimized: most of the time of
the tests is XLA's, and what they run is small."""

COMPILES_FULLY = os.environ.get("PHIHAT_COMPILE") == "fully"
"""XLA compiles here as it does for users. Tests marked `bits` run only so: what is
hardly optimized rounds in other places."""

CACHE = {
    "jax_compilation_cache_dir": str(
        Path(__file__).resolve().parents[1] / ".pytest_cache" / "compiled"
    ),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
"""Options of JAX. What is compiled once is kept, the smallest program too: it compiles
in 10 ms and is read in 1, and the many processes of a run share most of them."""


def of_this_process() -> str:
    """Return `XLA_FLAGS`: the user's own, and the quick ones."""
    own = os.environ.get("XLA_FLAGS", "")
    return own if COMPILES_FULLY else f"{own} {QUICK}".strip()


def save_time() -> None:
    """Look for garbage less often, and write all programs in one context of MLIR.

    What JAX keeps is a lot to walk through; and to make a context, with each operation
    that might be in it, takes a fifth of the time of a small program.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    make = getattr(mlir, "make_ir_context", None)  # private, so that it may be gone
    if make is not None:
        mlir.make_ir_context = functools.cache(make)

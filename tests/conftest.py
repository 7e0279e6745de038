"""Run every test in float64, under strict promotion, on eight devices."""

import os
from collections.abc import Iterator

import hypothesis
import jax
import pytest

# Options of this process alone: what a test starts has the flags that a user has.
jax.config.update("jax_platforms", jax.config.jax_platforms or "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("phihat", derandomize=True, deadline=None)
hypothesis.settings.load_profile("phihat")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run on all cores, but on four at most: each worker compiles for itself."""
    del config
    return min(4, os.cpu_count() or 1)


@pytest.fixture
def float32() -> Iterator[None]:
    """Switch x64 off, and keep the strict flags."""
    with jax.enable_x64(False):
        yield


@pytest.fixture
def user_flags() -> Iterator[None]:
    """Set the flags that a user has: x64 off, standard promotion."""
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


@pytest.fixture(autouse=True)
def flags_of_verdicts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let losses promote as users' do where their convexity is in question.

    A verdict is of the program as the caller's configuration traces it, and many of
    these losses mix dtypes.
    """
    if not request.module.__name__.rsplit(".", 1)[-1].startswith("test_convexity"):
        yield
        return
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield

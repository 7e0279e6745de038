"""Run every test in float64, under strict promotion, on eight devices."""

import os
from collections.abc import Iterator

import hypothesis
import jax
import pytest

from tests import flags

# Options of this process alone: what a test starts has the flags that a user has.
jax.config.update("jax_platforms", jax.config.jax_platforms or "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Nearly all of the time of these tests is XLA's. What it compiles once is kept for the
# run, between runs too where the folder stays. XLA reads its flags when first used.
for name, value in flags.CACHE.items():
    jax.config.update(name, value)
flags.save_time()
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XLA_FLAGS", flags.of_this_process())
    jax.devices()

hypothesis.settings.register_profile("phihat", derandomize=True, deadline=None)
hypothesis.settings.load_profile("phihat")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run on all cores, but on four at most: each worker compiles for itself."""
    del config
    return min(4, os.cpu_count() or 1)


SLOW = (
    "test_bits",
    "test_doctests",
    "test_pyright",
    "test_kills",
    "test_site",
    "test_pictures_plot",
    "test_notebooks_show",
    "test_document_runs",
)
"""Tests of many seconds, which begin first, so that none of them ends last alone."""

BUDGET = 35.0
"""Seconds of all tests of a file on a quiet machine; more is said at the end."""

BUDGETS = {
    "tests/test_gate.py": 180.0,  # all tools, doctests and pages
    "tests/test_pictures.py": 90.0,  # all examples and notebooks
    "tests/test_second_order.py": 70.0,
}
"""Those of files that need more."""


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Put the slow tests first; leave those of bits to `test_bits` in test_gate.py."""
    items.sort(key=lambda item: not item.name.startswith(SLOW))
    if flags.COMPILES_FULLY:
        return
    bits = [item for item in items if item.get_closest_marker("bits")]
    items[:] = [item for item in items if item not in bits]
    config.hook.pytest_deselected(items=bits)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seconds of each file, and which are beyond the budget."""
    seconds: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration") and hasattr(report, "nodeid"):
                path = report.nodeid.split("::")[0]
                seconds[path] = seconds.get(path, 0.0) + report.duration
    if len(seconds) < 2:
        return
    terminalreporter.section(f"seconds by file, of a budget of {BUDGET:.0f}")
    for path in sorted(seconds, key=lambda path: -seconds[path]):
        budget = BUDGETS.get(path, BUDGET)
        beyond = f"  beyond {budget:.0f}" if seconds[path] > budget else ""
        if seconds[path] >= 5.0:
            terminalreporter.write_line(f"{seconds[path]:7.1f}  {path}{beyond}")
    terminalreporter.write_line(f"{sum(seconds.values()):7.1f}  in all")


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

# ruff: noqa: T201 - prints its score
"""Stream a data set larger than the memory allowed for it, and print the peak.

The data are float32 rows in one file, mapped into memory batch by batch.

Usage: python -m tests.memory [--allowed 64]
"""

import argparse
import resource
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import phihat

MEGABYTE = 2**20
COLUMNS = 256
BATCH = 1024  # rows of a kilobyte: a megabyte


def write_file(path: Path, num_batches: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(num_batches):
            rng.random((BATCH, COLUMNS), np.float32).tofile(file)


def batches(path: Path, num_batches: int):
    for number in range(num_batches):
        rows = np.memmap(
            path,
            np.float32,
            mode="r",
            offset=number * BATCH * COLUMNS * 4,
            shape=(BATCH, COLUMNS),
        )
        yield rows[:, :-1], rows[:, -1]


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(allowed: int) -> tuple[float, float]:
    """Return the size of the data and by how much they raised the peak, in MB."""
    num_batches = 4 * allowed
    loss_fn = phihat.losses.least_squares(phihat.models.linear, reduction="mean")
    start = {"weight": jnp.zeros(COLUMNS - 1), "bias": jnp.zeros(())}

    def fit(path: Path, count: int):
        return phihat.train(
            loss_fn, start, phihat.adam(0.01), batches(path, count), num_epochs=1
        )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        write_file(path, num_batches)
        fit(path, 8)  # compiles
        before = peak_megabytes()
        result = fit(path, num_batches)
        after = peak_megabytes()
    assert int(result.num_steps) == num_batches
    return num_batches * BATCH * COLUMNS * 4 / MEGABYTE, after - before


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--allowed", type=int, default=64)
    arguments = parser.parse_args()
    size, rise = measure(arguments.allowed)
    print(
        f"data {size:.0f} MB, allowed {arguments.allowed} MB: the peak rose by "
        f"{rise:.1f} MB"
    )

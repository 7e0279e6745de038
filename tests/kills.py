# ruff: noqa: T201 - prints its score
"""Kill a long fit at random moments, start it again, and compare it with a quiet one.

Usage: python -m tests.kills --kills 50 [--seed 0]
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS_PER_KILL = 60_000
CHILD = "child"


def fit_in_child(folder: str, num_steps: int) -> None:
    """Run the fit, or go on with it, and save its result."""
    import datetime

    import jax
    import jax.numpy as jnp

    import phihat

    def say_ready(state, rows):
        del state, rows
        print("ready", flush=True)

    result = phihat.train(
        phihat.losses.least_squares(phihat.models.gabor),
        jnp.asarray([-2.0, 12.5]),
        phihat.adam(0.001),
        phihat.datasets.gabor(),
        num_steps=num_steps,
        batch_size=5,
        key=jax.random.key(0),
        record=("loss", "params"),
        record_every=97,
        steps_per_chunk=2_000,
        callbacks=[say_ready],
        checkpoint=phihat.Checkpoints(
            Path(folder) / "run", every=datetime.timedelta(seconds=0.1), keep=2
        ),
        log_to=Path(folder) / "log.jsonl",
    )
    phihat.checkpoint.save(Path(folder) / "result", result, overwrite=True)


def start(folder: Path, num_steps: int) -> subprocess.Popen:
    arguments = [sys.executable, "-m", "tests.kills", CHILD, str(folder)]
    return subprocess.Popen(
        [*arguments, str(num_steps)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen) -> None:
    _, errors = child.communicate()
    if child.returncode:
        sys.exit(f"A fit that nobody killed ended with {child.returncode}:\n{errors}")


PHASES = {
    "writing": ".*.writing",
    "removing an old checkpoint": ".*.removed",
    "replacing a checkpoint": ".*.old",
}
"""What lies in the folder of checkpoints meanwhile."""


def kill_at_random(folder: Path, num_steps: int, rng: random.Random) -> str:
    """Start the fit, kill it in some phase, and tell what it was doing."""
    child = start(folder, num_steps)
    assert child.stdout is not None
    aim = rng.choice(["beginning", "at work", *PHASES])
    if aim == "beginning":  # or going on, from its first import to its first chunk
        time.sleep(rng.uniform(0.0, 3.0))
    else:
        child.stdout.readline()  # its first chunk, or its end
        deadline = time.monotonic() + rng.uniform(0.0, 0.6)
        while time.monotonic() < deadline and child.poll() is None:
            if aim in PHASES and any((folder / "run").glob(PHASES[aim])):
                time.sleep(rng.uniform(0.0, 0.02))
                break
            time.sleep(0.0005)
    child.kill()
    said = child.communicate()[0]
    if child.returncode != -signal.SIGKILL:
        return "after its end"
    if aim == "beginning" and "ready" not in said:
        return aim
    return phase_of(folder)


def phase_of(folder: Path) -> str:
    for name, pattern in PHASES.items():
        if any((folder / "run").glob(pattern)):
            return name
    return "at work"


def steps_in_log(folder: Path) -> set[int]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return {json.loads(line)["step"] for line in lines if '"loss"' in line}


def same_results(one: Path, other: Path) -> bool:
    """Compare two saved results to the bit."""
    import jax
    import numpy as np

    from phihat import checkpoint

    first, second = (checkpoint.restore(path) for path in (one, other))
    assert jax.tree.structure(first) == jax.tree.structure(second)

    def as_bytes(leaf):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf).tobytes()

    return all(
        as_bytes(a) == as_bytes(b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


def run(kills: int, seed: int = 0) -> str:
    """Kill one fit so often; return what was found."""
    rng = random.Random(seed)
    num_steps = STEPS_PER_KILL * (kills + 1)
    with tempfile.TemporaryDirectory() as root:
        quiet, disturbed = Path(root) / "quiet", Path(root) / "disturbed"
        finish(start(quiet, num_steps))
        places = [kill_at_random(disturbed, num_steps, rng) for _ in range(kills)]
        finish(start(disturbed, num_steps))
        same = same_results(quiet / "result", disturbed / "result")
        rows, wanted = steps_in_log(disturbed), steps_in_log(quiet)
    told = ", ".join(f"{places.count(place)} {place}" for place in sorted(set(places)))
    return (
        f"{kills} kills ({told}) of a fit of {num_steps} steps: params, state and "
        f"history are {'bit-equal' if same else 'NOT EQUAL'} to those of a quiet run; "
        f"{len(rows & wanted)} of {len(wanted)} rows are in the log."
    )


def main() -> None:
    if sys.argv[1:2] == [CHILD]:
        fit_in_child(sys.argv[2], int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(run(arguments.kills, arguments.seed))


if __name__ == "__main__":
    main()

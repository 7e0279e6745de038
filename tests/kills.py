# ruff: noqa: T201 - prints its score
"""Kill a long fit in every phase, start it again, and compare it with a quiet one.

Usage: python -m tests.kills --kills 50 [--seed 0]
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS_PER_KILL = 60_000
CHILD = "child"


def pause_at(aim: str, number: int) -> None:
    """Let the fit stop for a second at a moment, so that it can be killed there."""
    from phihat import checkpoint
    from phihat._core import array_files, folders

    remaining = [number]

    def pause() -> None:
        remaining[0] -= 1
        if remaining[0] == 0:
            print(aim, flush=True)
            time.sleep(1.0)

    def wrap(home, name: str, *, before: bool) -> None:
        function = getattr(home, name)

        def wrapped(*args, **kwargs):
            if before:
                pause()
            found = function(*args, **kwargs)
            if not before:
                pause()
            return found

        setattr(home, name, wrapped)

    if aim == "removing an old one":
        remove = folders.shutil.rmtree

        def remove_slowly(path, **options):
            if str(path).endswith(".removed"):
                pause()
            remove(path, **options)

        folders.shutil.rmtree = remove_slowly
    elif aim in PHASES:
        home = {"array_files": array_files, "folders": folders}
        place, name, before = PHASES[aim]
        wrap(home.get(place, checkpoint), name, before=before)


PHASES = {
    "before the arrays": ("array_files", "write", True),
    "between arrays and list": ("array_files", "write", False),
    "while listing files": ("folders", "checksum", True),
    "before it is on the disk": ("folders", "force_to_disk", True),
    "before the rename": ("folders", "put_in_place", True),
    "after the rename": ("folders", "put_in_place", False),
    "removing an old one": ("folders", "remove", True),
    "resuming, before reading": ("checkpoint", "read_tree", True),
    "resuming, after reading": ("checkpoint", "read_tree", False),
}
"""Where the fit stops: before or after this function."""


def fit_in_child(folder: str, num_steps: int, aim: str, number: int) -> None:
    """Run the fit, or go on with it, and save its result."""
    import datetime

    import jax
    import jax.numpy as jnp

    import phihat

    pause_at(aim, number)

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


def start(
    folder: Path, num_steps: int, aim: str = "nowhere", number: int = 1
) -> subprocess.Popen:
    arguments = [sys.executable, "-m", "tests.kills", CHILD, str(folder)]
    # Nearly all of the time of a child is that of compiling one program again.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [*arguments, str(num_steps), aim, str(number)],
        env=os.environ | cache,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen) -> None:
    _, errors = child.communicate()
    if child.returncode:
        sys.exit(f"A fit that nobody killed ended with {child.returncode}:\n{errors}")


def kill_at(aim: str, folder: Path, num_steps: int, rng: random.Random) -> str:
    """Start the fit, kill it in some phase, and tell what it was doing."""
    is_once = aim.startswith("resuming")
    child = start(folder, num_steps, aim, 1 if is_once else rng.randint(1, 3))
    assert child.stdout is not None
    seen = "in its beginning"
    if aim == "in its beginning":  # from its first import to its first chunk
        time.sleep(rng.uniform(0.0, 3.0))
    elif aim == "at work":
        child.stdout.readline()
        seen = aim
        time.sleep(rng.uniform(0.0, 0.6))
    else:
        for line in child.stdout:
            seen = line.strip()
            if seen == aim:
                time.sleep(rng.uniform(0.0, 0.2))
                break
    child.kill()
    child.communicate()
    if child.returncode != -signal.SIGKILL:
        return "after its end"
    return "at work" if seen == "ready" else seen


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
        aims = [*PHASES, "in its beginning", "at work"]
        order = [aims[number % len(aims)] for number in range(kills)]
        rng.shuffle(order)
        places = [kill_at(aim, disturbed, num_steps, rng) for aim in order]
        finish(start(disturbed, num_steps))
        same = same_results(quiet / "result", disturbed / "result")
        rows, wanted = steps_in_log(disturbed), steps_in_log(quiet)
    hit = "\n".join(
        f"  {places.count(place):3} killed {place}" for place in sorted({*places})
    )
    return (
        f"{kills} kills of a fit of {num_steps} steps:\n{hit}\n"
        f"params, state and history are {'bit-equal' if same else 'NOT EQUAL'} to "
        f"those of a quiet run; {len(rows & wanted)} of {len(wanted)} rows are in the "
        "log."
    )


def main() -> None:
    if sys.argv[1:2] == [CHILD]:
        fit_in_child(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(run(arguments.kills, arguments.seed))


if __name__ == "__main__":
    main()

"""One of several processes that fit together, as the tests start them.

Usage: python many_hosts.py TASK FOLDER PORT NUM_PROCESSES PROCESS_ID
"""

import functools
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import phihat
from phihat import losses, models, sharding

NUM_DEVICES = 8
NUM_ROWS = 64
LOSS = losses.multiclass_cross_entropy(models.multilayer_perceptron)
OPTIMIZER = phihat.adam(0.05)


def write_data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(size=(NUM_ROWS, 6)))
    np.save(folder / "y.npy", rng.integers(0, 4, NUM_ROWS))


def read_rows(folder: Path, rows: slice):
    """Return rows of the data set on disk; the others are never read."""
    return tuple(np.load(folder / f"{n}.npy", mmap_mode="r")[rows] for n in "xy")


class Batches:
    """Every process reads its share of each batch of sixteen rows."""

    def __init__(self, folder: Path, mesh) -> None:
        self.folder, self.mesh = folder, mesh

    def __iter__(self):
        share = sharding.local_rows(16, self.mesh)
        for first in range(0, NUM_ROWS, 16):
            rows = slice(first + share.start, first + share.stop)
            yield sharding.shard_batch(read_rows(self.folder, rows), self.mesh)


def final_loss(rate):
    optimizer = phihat.gradient_descent(rate)
    return phihat.fit(lambda x: x**2, 1.0, optimizer, num_steps=5).loss


def measure(folder: Path) -> dict:
    """Fit in every way that processes can share."""
    mesh = sharding.make_mesh()
    rows = sharding.local_rows(NUM_ROWS, mesh)
    data = sharding.shard_batch(read_rows(folder, rows), mesh)
    key = jax.random.key(0)
    params = models.init_multilayer_perceptron(key, (6, 16, 4))
    found = {"rows": [rows.start, rows.stop]}

    fit = functools.partial(phihat.fit, LOSS, params, OPTIMIZER, data, num_steps=20)
    found["full batch"] = fit().history["loss"]
    found["minibatches"] = fit(batch_size=16, key=key).history["loss"]

    start = sharding.replicate(params, mesh)
    plan = sharding.param_shardings(start, mesh, min_entries=32)
    divided = jax.jit(lambda tree: tree, out_shardings=plan)(start)
    result = phihat.train(
        LOSS,
        divided,
        OPTIMIZER,
        data,
        num_steps=20,
        checkpoint=phihat.Checkpoints(folder / "divided", every=10),
        log_to=folder / "log.jsonl",
        time_limit=600,
    )
    found["divided params"] = result.history["loss"]
    specs = {
        str(leaf.sharding.spec) for leaf in jax.tree.leaves(result.state.opt_state)
    }
    found["specs"] = sorted(specs)

    stream = functools.partial(
        phihat.train, LOSS, start, OPTIMIZER, Batches(folder, mesh)
    )
    found["stream"] = stream(num_steps=20).history["loss"]
    rates = np.geomspace(1e-3, 0.4, 11)
    found["sweep"] = phihat.sweep(final_loss, {"rate": rates}, mesh=mesh).values
    return {name: np.asarray(value).tolist() for name, value in found.items()}


def go_on(folder: Path, pause: float = 0.05) -> dict:
    """Train with checkpoints, slowly; a call after a crash goes on."""
    mesh = sharding.make_mesh()
    rows = sharding.local_rows(NUM_ROWS, mesh)
    result = phihat.train(
        LOSS,
        models.init_multilayer_perceptron(jax.random.key(0), (6, 16, 4)),
        OPTIMIZER,
        sharding.shard_batch(read_rows(folder, rows), mesh),
        num_steps=200,
        batch_size=16,
        key=jax.random.key(1),
        checkpoint=phihat.Checkpoints(folder / "checkpoints", every=20),
        callbacks=[lambda state, rows: time.sleep(pause)],
        steps_per_chunk=5,
    )
    return {"loss": np.asarray(result.history["loss"]).tolist()}


def map_a_million(folder: Path, lanes: int = 1_000_000) -> dict:
    """Sweep over starts of a Gabor fit, on one device and on all."""
    loss_fn = losses.least_squares(models.gabor)
    data = phihat.datasets.gabor()
    optimizer = phihat.gradient_descent(1e-3)

    def final(start):
        return phihat.fit(loss_fn, start, optimizer, data, num_steps=10).params

    low, high = [-10.0, 2.5], [10.0, 22.5]
    starts = np.random.default_rng(0).uniform(low, high, (lanes, 2))
    found, seconds = [], []
    for devices in (jax.devices()[:1], jax.devices()):
        mesh = sharding.make_mesh(devices=devices)
        began = time.monotonic()
        found.append(phihat.sweep(final, {"start": starts}, mesh=mesh).values)
        seconds.append(time.monotonic() - began)
    one, all_of_them = found
    difference = np.abs(one - all_of_them) / np.maximum(np.abs(one), 1.0)
    return {
        "lanes": lanes,
        "seconds": seconds,
        "eps": float(difference.max() / np.finfo(np.float64).eps),
    }


def use_wrongly(folder: Path) -> dict:
    """Return what wrong calls say that need processes of their own."""
    said = {}
    mesh = sharding.make_mesh()
    rows = sharding.local_rows(NUM_ROWS, mesh)
    data = sharding.shard_batch(read_rows(folder, rows), mesh)
    params = {"weight": jnp.zeros(6), "bias": jnp.zeros(())}
    calls = {
        "twice": lambda: sharding.initialize("127.0.0.1:1234", 2, 0),
        "divided twice": lambda: sharding.shard_batch(data, mesh),
        "uneven": lambda: sharding.shard_batch(np.ones((6, 2)), mesh),
        "a stream": lambda: phihat.train(
            LOSS, params, OPTIMIZER, iter([data]), num_steps=1
        ),
    }
    for name, call in calls.items():
        try:
            call()
        except (RuntimeError, ValueError) as error:
            said[name] = str(error)
    return said


def main(task: str, folder: str, port: str, num_processes: str, process_id: str):
    count, number = int(num_processes), int(process_id)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", NUM_DEVICES // count)
    jax.config.update("jax_enable_x64", True)
    sharding.initialize(
        f"127.0.0.1:{port}", count, number, timeout=60, heartbeat_timeout=10
    )
    found = {}
    for name in task.split(","):
        found |= globals()[name](Path(folder))
    (Path(folder) / f"process_{number}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

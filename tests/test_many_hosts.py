"""Two real processes on the loopback, four devices each, and one with eight.

What takes longer is in `benchmarks/bench_many_hosts.py`.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import as_user, many_hosts

ROOT = Path(__file__).resolve().parents[1]
EPS64 = 2.0**-52
PATIENCE = 300.0  # seconds, on a machine that does much else


def start(task, folder, num_processes=2):
    """Start the processes of a task; their output goes to files in the folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = as_user.environment() | {"PYTHONPATH": paths}
    arguments = [ROOT / "tests" / "many_hosts.py", task, folder, port, num_processes]
    processes = []
    for number in range(num_processes):
        with (folder / f"process_{number}.txt").open("w") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *map(str, [*arguments, number])],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    return processes


def finish(processes, folder):
    """Wait for all, and return what they found."""
    try:
        codes = [process.wait(PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    texts = [said(folder, number) for number in range(len(processes))]
    assert set(codes) == {0}, "\n".join(texts)
    return [
        json.loads((folder / f"process_{number}.json").read_text())
        for number in range(len(processes))
    ]


def said(folder, number):
    return (folder / f"process_{number}.txt").read_text()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What two processes found, and what this one finds on its eight devices."""
    folder = tmp_path_factory.mktemp("two")
    many_hosts.write_data(folder)
    two = finish(start("use_wrongly,measure", folder), folder)
    alone = tmp_path_factory.mktemp("one")
    many_hosts.write_data(alone)
    return two, many_hosts.measure(alone), folder


def test_two_processes_find_what_one_finds(results):
    """Within 1e3 eps of the losses: only the order of sums differs."""
    two, one, _ = results
    names = ("full batch", "minibatches", "divided params", "stream", "sweep")
    for found in two:
        for name in names:
            np.testing.assert_allclose(found[name], one[name], rtol=1e3 * EPS64)
        assert found["specs"] == one["specs"]
    assert one["specs"] == ["P('data',)", "P()", "P(None, 'data')"]


def test_each_process_reads_its_share(results):
    two, one, _ = results
    assert [found["rows"] for found in two] == [[0, 32], [32, 64]]
    assert one["rows"] == [0, 64]


def test_one_process_writes_the_log_and_both_the_checkpoint(results):
    two, _, folder = results
    lines = (folder / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    rows = [entry for entry in entries if "loss" in entry]
    assert [row["step"] for row in rows] == list(range(20))
    assert [row["loss"] for row in rows] == two[0]["divided params"]
    kept = sorted(path.name for path in (folder / "divided").iterdir())
    assert kept == [f"{10:012d}", f"{20:012d}"]
    written = (folder / "divided").rglob("ocdbt.process_*/d")
    writers = {path.parent.name for path in written}
    assert writers == {"ocdbt.process_0", "ocdbt.process_1"}


def test_wrong_calls_among_processes(results):
    for number, found in enumerate(results[0]):
        assert found["twice"] == (
            f"initialize: this is process {number} of 2 already; call it once."
        )
        assert found["divided twice"] == (
            "shard_batch: `batch[0]` is divided among processes already; pass the rows "
            "of this process."
        )
        assert "6 rows, which 4 devices of this process along" in found["uneven"]
        assert found["a stream"].startswith(
            "train: with several processes and a stream, `params` must tell the devices"
        )

"""What two processes do when one of them is lost, and a million lanes on eight devices.

Run from the root by `python -m pytest benchmarks/bench_many_hosts.py -s -n 0`.
"""

import signal
import time

import numpy as np
import pytest

from tests import many_hosts
from tests.test_many_hosts import finish, said, start


def wait_for(condition, processes, folder):
    while not condition():
        assert all(process.poll() is None for process in processes), said(folder, 0)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The losses of the fit that was left alone, of one process with eight devices."""
    folder = tmp_path_factory.mktemp("alone")
    many_hosts.write_data(folder)
    return finish(start("go_on", folder, num_processes=1), folder)[0]["loss"]


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["kill", "stop"])
def test_the_other_ends_and_the_same_call_goes_on(lost, how, undisturbed, tmp_path):
    """A stopped process stands for a host that hangs, or a network that is down."""
    many_hosts.write_data(tmp_path)
    processes = start("go_on", tmp_path)
    kept = tmp_path / "checkpoints" / f"{40:012d}"
    try:
        wait_for(kept.is_dir, processes, tmp_path)
        processes[lost].send_signal(how)
        began = time.monotonic()
        assert processes[1 - lost].wait(60.0) != 0
        seconds = time.monotonic() - began
    finally:
        for process in processes:
            process.kill()
    text = said(tmp_path, 1 - lost)
    assert "another task died" in text, text
    steps = max(int(path.name) for path in kept.parent.glob("0*"))
    found = finish(start("go_on", tmp_path), tmp_path)
    differences = [np.abs(np.divide(one["loss"], undisturbed) - 1) for one in found]
    worst = np.max(differences)
    print(
        f"\nprocess {lost} lost by {how.name}: the other ended after {seconds:.1f} s; "
        f"went on from step {steps} to {len(undisturbed)}, and its losses "
        f"differ from the undisturbed ones by {worst:.1e} at most"
    )
    assert worst < 1e-9


def test_a_million_lanes_on_eight_devices_give_what_one_gives(tmp_path):
    found = finish(start("map_a_million", tmp_path, num_processes=1), tmp_path)[0]
    print(
        f"\n{found['lanes']:,} fits: {found['seconds'][0]:.1f} s on one device, "
        f"{found['seconds'][1]:.1f} s on eight (of one machine); the largest relative "
        f"difference is {found['eps']:.0f} eps"
    )
    assert found["eps"] <= 1e3

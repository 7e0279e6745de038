"""Folders of checkpoints: what is written stays, what is another's is left alone."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import phihat
from phihat import Checkpoints, checkpoint
from phihat._core import folders
from phihat.training.locking import FolderLock

ROOT = Path(__file__).resolve().parents[1]


class Crash(Exception):
    pass


def bowl(p):
    return jnp.sum((p - 1.0) ** 2)


def train(folder, crash_at=None, *, steps=60, every=10, keep=3, **more):
    def crash(state, rows):
        if crash_at is not None and int(state.step) >= crash_at:
            raise Crash

    return phihat.train(
        bowl,
        jnp.zeros(3),
        phihat.adam(0.01),
        num_steps=steps,
        steps_per_chunk=10,
        callbacks=[crash],
        checkpoint=Checkpoints(folder, every=every, keep=keep),
        **more,
    )


def crashed(folder, at, **options):
    with pytest.raises(Crash):
        train(folder, at, **options)


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    """Checkpoints of the steps 20, 30 and 40."""
    folder = tmp_path_factory.mktemp("forty") / "run"
    crashed(folder, 40)
    return folder


@pytest.fixture
def run(forty, tmp_path):
    return Path(shutil.copytree(forty, tmp_path / "run"))


def quiet(folder):
    """Train without a word, and return the steps that are kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(folder)
    return Checkpoints(folder).steps()


# ----------------------------------------------------------- what stays and what goes


def damage(folder, step):
    about = folder / f"{step:012d}" / "about.json"
    about.write_bytes(about.read_bytes()[:-5] + b"xxxxx")


def test_what_was_just_written_is_never_removed(tmp_path):
    crashed(tmp_path, 60, steps=100, keep=1)
    damage(tmp_path, 60)
    with pytest.warns(UserWarning, match="passed over"):
        crashed(tmp_path, 40, steps=100, keep=1)
    assert Checkpoints(tmp_path).steps() == [40, 60]


def test_damaged_ones_do_not_count_as_kept(run):
    damage(run, 30)
    train(run, steps=50, keep=3)
    assert Checkpoints(run).steps() == [20, 30, 40, 50]
    train(run, steps=60, keep=2)
    assert Checkpoints(run).steps() == [50, 60]


def test_a_new_fit_in_an_old_folder_keeps_its_own(run):
    """All are damaged: the fit begins anew, below their steps."""
    for step in (20, 30, 40):
        damage(run, step)
    with pytest.warns(UserWarning, match="passed over"):
        crashed(run, 10)
    assert 10 in Checkpoints(run).steps()


def test_names_that_are_no_numbers_are_passed_over(run):
    for name in ("²", "40", "٠٠٠٠٠٠٠٠٠٠٤٠", "+00000000040", "0000000000041x"):
        (run / name).mkdir()
    with pytest.warns(UserWarning, match="is not a checkpoint of phihat"):
        train(run)
    assert Checkpoints(run).steps() == [40, 50, 60]


def link(path):
    path.rename(path.with_name("away"))
    path.symlink_to(path.with_name("away"))


def file(path):
    shutil.rmtree(path)
    path.write_text("")


def pipe(path):
    shutil.rmtree(path)
    os.mkfifo(path)


def unreadable(path, monkeypatch):
    whole = Path.open

    def faulty(self, *arguments, **options):
        if path in self.parents and self.parent.name == "d":
            raise OSError(5, "Input/output error", str(self))
        return whole(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", faulty)


def forbidden(path, monkeypatch):
    whole = Path.open

    def faulty(self, *arguments, **options):
        if path in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        return whole(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", faulty)


ODD = {
    "a link": link,
    "a file": file,
    "a pipe": pipe,
    "a disk fault": unreadable,
    "forbidden": forbidden,
    "swapped with another": lambda path: [
        (path / "about.json").unlink(),
        shutil.copy(path.with_name(f"{30:012d}") / "about.json", path / "about.json"),
    ],
    "deep": lambda path: (path / "files.json").write_text("[" * 200_000),
}


@pytest.mark.parametrize("kind", ODD)
def test_the_newest_whole_one_serves(kind, run, monkeypatch):
    spoil = ODD[kind]
    needs_patch = spoil.__code__.co_argcount == 2
    path = run / f"{40:012d}"
    spoil(path, monkeypatch) if needs_patch else spoil(path)
    seen = []
    with pytest.warns(UserWarning, match="000000000040.* passed over"):
        phihat.train(
            bowl,
            jnp.zeros(3),
            phihat.adam(0.01),
            num_steps=60,
            steps_per_chunk=10,
            callbacks=[lambda state, rows: seen.append(int(state.step))],
            checkpoint=Checkpoints(run, every=10),
        )
    assert seen[0] == 40  # the step after that of the checkpoint that served, 30


def test_leftovers_are_cleaned_and_what_was_set_aside_comes_back(run):
    token = folders.new_token()
    (run / f".{40:012d}.{token}.writing").mkdir()
    (run / f".{10:012d}.{token}.removed").mkdir()
    (run / f".{30:012d}.{token}.old").mkdir()
    (run / f"{40:012d}").rename(run / f".{40:012d}.{token}.old")
    (run / ".hidden").mkdir()
    assert quiet(run) == [40, 50, 60]
    assert sorted(path.name for path in run.glob(".*")) == [".hidden"]


# ------------------------------------------------------------------- what others own


def test_save_replaces_only_a_checkpoint_of_ours(tmp_path):
    tree = {"a": 1.0}
    owned = {
        "a folder of texts": lambda path: [
            path.mkdir(),
            (path / "t.txt").write_text(""),
        ],
        "a file": lambda path: path.write_text("years of work"),
        "a link": lambda path: path.symlink_to(tmp_path),
        "a checkpoint with a file more": lambda path: [
            checkpoint.save(path, tree),
            (path / "notes.txt").write_text("mine"),
        ],
        "a folder of arrays": lambda path: (path / "arrays").mkdir(parents=True),
    }
    for number, make in enumerate(owned.values()):
        path = tmp_path / str(number)
        make(path)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(FileExistsError, match="only a checkpoint of phihat"):
            checkpoint.save(path, {"a": 2.0}, overwrite=True)
        assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    checkpoint.save(tmp_path / "empty", tree, overwrite=True)
    assert checkpoint.restore(tmp_path / "empty")["a"] == 1.0


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("crash_after", range(6))
def test_a_crash_while_replacing_leaves_the_old_or_the_new(
    can_exchange, crash_after, tmp_path, monkeypatch
):
    """Crash at each renaming and each removal in turn."""
    path = tmp_path / "model"
    checkpoint.save(path, {"a": jnp.zeros(1)})
    if not can_exchange:
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    left = [crash_after]

    def crashing(whole):
        def act(*arguments, **options):
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            return whole(*arguments, **options)

        return act

    with monkeypatch.context() as patched, contextlib.suppress(Crash):
        patched.setattr(Path, "rename", crashing(Path.rename))
        patched.setattr(folders, "_exchange", crashing(folders._exchange))
        patched.setattr(shutil, "rmtree", crashing(shutil.rmtree))
        checkpoint.save(path, {"a": jnp.ones(1)}, overwrite=True)
    assert checkpoint.restore(path)["a"].tolist() in ([0.0], [1.0])
    checkpoint.save(path, {"a": jnp.full(1, 2.0)}, overwrite=True)
    assert checkpoint.restore(path)["a"].tolist() == [2.0]


def test_paths_are_absolute_at_once_and_never_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints("here", every=10)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert checkpoints.folder(3) == tmp_path / "here" / "000000000003"
    for call in (
        Checkpoints,
        lambda path: checkpoint.save(path, {"a": 1.0}),
        checkpoint.restore,
        lambda path: phihat.train(
            bowl, jnp.zeros(1), phihat.adam(0.1), num_steps=1, log_to=path
        ),
    ):
        for wrong, error in (("", ValueError), (" ", ValueError), ("a\0b", ValueError)):
            with pytest.raises(error, match=r"(path|log_to)` (must be|has a zero)"):
                call(wrong)
        with pytest.raises(TypeError, match="must be a path"):
            call(b"bytes")


@pytest.mark.parametrize("name", ["ünïcode", "with space", "a'b\"c", "x" * 200, ".dot"])
def test_any_name_will_do(name, tmp_path):
    checkpoint.save(tmp_path / name, {"a": jnp.ones(1)})
    checkpoint.save(tmp_path / name, {"a": jnp.zeros(1)}, overwrite=True)
    assert checkpoint.restore(tmp_path / name)["a"] == 0.0
    assert [path.name for path in tmp_path.iterdir()] == [name]


# ----------------------------------------------------------------------- one at a time


HOLDER = """
import sys, time, pathlib
from phihat.training.locking import FolderLock
lock = FolderLock(pathlib.Path(sys.argv[1]))
lock.acquire("train")
if len(sys.argv) > 2:  # a forked child lives on
    import os
    if os.fork() == 0:
        print("forked", flush=True)
        time.sleep(600)
print("held", flush=True)
time.sleep(600)
"""


def hold(folder, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for _ in range(1 + len(arguments)):
        assert process.stdout.readline()
    return process


def end(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_two_processes_on_one_folder_and_a_kill(run):
    process = hold(run)
    try:
        with pytest.raises(RuntimeError, match="another fit uses the folder") as caught:
            train(run)
        assert f"process {process.pid} on {folders.host_name()}" in str(caught.value)
        assert time.strftime("%Y-%m") in str(caught.value)
    finally:
        end(process)
    assert quiet(run) == [40, 50, 60]


def test_a_forked_child_does_not_keep_the_lock(run):
    process = hold(run, "fork")
    try:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert quiet(run) == [40, 50, 60]
    finally:
        end(process)


def test_two_fits_in_one_process(run):
    def inner(state, rows):
        with pytest.raises(RuntimeError, match=f"process {os.getpid()} on"):
            train(run)

    phihat.train(
        bowl,
        jnp.zeros(3),
        phihat.adam(0.01),
        num_steps=60,
        steps_per_chunk=20,
        callbacks=[inner],
        checkpoint=Checkpoints(run, every=10),
    )
    assert not (run / ".lock").exists()


def test_a_lock_file_that_is_a_link_is_not_written_through(run, tmp_path):
    (tmp_path / "thesis").write_text("years of work")
    (run / ".lock").symlink_to(tmp_path / "thesis")
    with pytest.raises(OSError, match="by which a fit claims its folder"):
        train(run)
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_where_there_are_no_locks_it_is_said_once(run, monkeypatch):
    import fcntl

    def refuse(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked") as caught:
        train(run)
    assert len(caught) == 1
    for step in Checkpoints(run).steps():
        checkpoint.restore(Checkpoints(run).folder(step))


def test_a_lock_of_nobody_can_be_taken(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps({"pid": 1}))  # left by a kill
    lock = FolderLock(tmp_path)
    assert lock.acquire("train")
    second = FolderLock(tmp_path)
    with pytest.raises(RuntimeError, match="another fit uses"):
        second.acquire("train")
    lock.release()
    assert second.acquire("train")
    second.release()


# ------------------------------------------------------------------- disks that go away


def test_a_folder_that_is_removed_under_way(tmp_path):
    folder = tmp_path / "run"

    def remove(state, rows):
        # A checkpoint may just be written into it.
        while int(state.step) == 20 and folder.exists():
            shutil.rmtree(folder, ignore_errors=True)

    result = phihat.train(
        bowl,
        jnp.zeros(3),
        phihat.adam(0.01),
        num_steps=60,
        steps_per_chunk=10,
        callbacks=[remove],
        checkpoint=Checkpoints(folder, every=10),
    )
    whole = phihat.fit(bowl, jnp.zeros(3), phihat.adam(0.01), num_steps=60)
    np.testing.assert_array_equal(result.params, whole.params)
    assert Checkpoints(folder).steps() == [40, 50, 60]


def test_a_nearly_full_disk_is_left_alone(tmp_path, monkeypatch):
    full = shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.warns(UserWarning, match="No space left on device") as caught:
        train(tmp_path, every=60)
    (message,) = [str(warning.message) for warning in caught]
    assert len(message) < 400
    assert list(tmp_path.iterdir()) == []

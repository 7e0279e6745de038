"""Folders of checkpoints: what is written stays, what is another's is left alone."""

import concurrent.futures
import contextlib
import datetime
import errno
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import absl.logging
import jax.numpy as jnp
import numpy as np
import pytest

import phihat
from phihat import Checkpoints, Status, checkpoint
from phihat._core import array_files, folders
from phihat.training.locking import FolderLock
from tests import damage

ROOT = Path(__file__).resolve().parents[1]


class Crash(Exception):
    pass


def bowl(p):
    return jnp.sum((p - 1.0) ** 2)


def train(folder, crash_at=None, *, steps=60, every=10, keep=3, callbacks=(), **more):
    def crash(state, rows):
        if crash_at is not None and int(state.step) >= crash_at:
            raise Crash

    return phihat.train(
        bowl,
        jnp.zeros(3),
        phihat.adam(0.01),
        num_steps=steps,
        steps_per_chunk=10,
        callbacks=[crash, *callbacks],
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


def spoil(folder, step):
    about = folder / f"{step:012d}" / "about.json"
    about.write_bytes(about.read_bytes()[:-5] + b"xxxxx")


def test_what_was_just_written_is_never_removed(tmp_path):
    crashed(tmp_path, 60, steps=100, keep=1)
    spoil(tmp_path, 60)
    with pytest.warns(UserWarning, match="passed over"):
        crashed(tmp_path, 40, steps=100, keep=1)
    assert Checkpoints(tmp_path).steps() == [40, 60]


def test_damaged_ones_do_not_count_as_kept(run):
    spoil(run, 30)
    train(run, steps=50, keep=3)
    assert Checkpoints(run).steps() == [20, 30, 40, 50]
    train(run, steps=60, keep=2)
    assert Checkpoints(run).steps() == [50, 60]


def test_a_new_fit_in_an_old_folder_keeps_its_own(run):
    """All are damaged: the fit begins anew, below their steps."""
    for step in (20, 30, 40):
        spoil(run, step)
    with pytest.warns(UserWarning, match="passed over"):
        crashed(run, 10)
    assert 10 in Checkpoints(run).steps()


def test_names_that_are_no_numbers_are_passed_over(run):
    for name in ("²", "40", "٠٠٠٠٠٠٠٠٠٠٤٠", "+00000000040", "0000000000041x"):
        (run / name).mkdir()
    with pytest.warns(UserWarning, match="is not a checkpoint of phihat"):
        train(run)
    assert Checkpoints(run).steps() == [40, 50, 60]


ODD = {
    "a link": damage.put_link,
    "a file": lambda path: [shutil.rmtree(path), path.write_text("")],
    "a pipe": damage.put_pipe,
    "a disk fault": lambda path: damage.failing(path / "arrays" / "d", errno.EIO),
    "forbidden": damage.KINDS["unreadable"],
    "of another": lambda path: [
        shutil.copy(path.with_name(f"{30:012d}") / "about.json", path / "about.json")
    ],
    "deep": lambda path: damage.KINDS["deep brackets"](path / "files.json"),
}


@pytest.mark.parametrize("kind", ODD)
def test_the_newest_whole_one_serves(kind, run):
    failing = ODD[kind](run / f"{40:012d}")
    is_fault = isinstance(failing, contextlib.AbstractContextManager)
    seen = []
    with (
        failing if is_fault else contextlib.nullcontext(),
        pytest.warns(UserWarning, match="000000000040.* passed over"),
    ):
        train(run, callbacks=[lambda state, _: seen.append(int(state.step))])
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
from tests import damage
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


# ------------------------------------------------------- clocks, spawning and threads


def cases_of_leftovers(folder, *pids):
    """Make what a write of a checkpoint `model` leaves of each process."""
    made = [
        folder / f".model.{folders.host_name()},{pid},abcdef01.writing" for pid in pids
    ]
    for path in made:
        path.mkdir()
    return made


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_was_set_ends_no_write_of_a_process_that_lives(
    days, tmp_path, monkeypatch
):
    ended = subprocess.Popen(["true"])
    ended.wait()
    alive, dead = cases_of_leftovers(tmp_path, os.getppid(), ended.pid)
    own = folders.beside(tmp_path / "model", "writing", folders.new_token())
    own.mkdir()
    elsewhere = tmp_path / ".model.elsewhere,1,ab.writing"
    elsewhere.mkdir()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400 * days)
    folders.clean(tmp_path, "model")
    assert alive.exists()
    assert own.exists()
    assert not dead.exists()
    assert elsewhere.exists() == (days < 0)  # of which nothing but its age is known


def test_checkpoints_are_ordered_by_their_steps_and_not_by_their_dates(run):
    for step, year in ((20, 60), (30, 30), (40, 1)):  # the newest has the oldest date
        for path in (run / f"{step:012d}").rglob("*"):
            os.utime(path, (year * 3.15e7,) * 2)
        os.utime(run / f"{step:012d}", (year * 3.15e7,) * 2)
    seen = []
    train(run, steps=50, every=50, callbacks=[lambda state, _: seen.append(state.step)])
    assert seen == [50]
    assert Checkpoints(run).steps() == [30, 40, 50]


def test_a_clock_that_is_set_back_under_way_changes_nothing(tmp_path, monkeypatch):
    """Each look at the clock is an hour before the last one, in the thread too."""
    hours, now = itertools.count(), time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600.0 * next(hours))
    result = train(tmp_path / "run", time_limit=3600.0)
    assert result.status == Status.COMPLETED
    assert Checkpoints(tmp_path / "run").steps() == [40, 50, 60]
    limited = train(
        tmp_path / "limited", steps=10**9, every=10**9, record=(), time_limit=0.2
    )
    assert limited.status == Status.TIME_LIMIT
    due = datetime.timedelta(seconds=0.01)
    crashed(tmp_path / "timed", 60, every=due)
    assert Checkpoints(tmp_path / "timed").steps()[-1] == 60


def fit_in_a_child(optimizer, own, parents):
    """Fit into a folder of one's own, then into one that the parent holds."""
    arguments = (bowl, jnp.zeros(3), optimizer)
    result = phihat.train(*arguments, num_steps=20, checkpoint=Checkpoints(own))
    try:
        phihat.train(*arguments, num_steps=20, checkpoint=Checkpoints(parents))
    except RuntimeError as error:
        return np.asarray(result.params), str(error)
    return None


def test_a_spawned_child_fits_and_is_told_that_its_parent_does(tmp_path, float32):
    lock = FolderLock(tmp_path)
    assert lock.acquire("train")
    context = multiprocessing.get_context("spawn")
    optimizer = phihat.adam(0.01)
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        job = pool.submit(fit_in_a_child, optimizer, tmp_path / "own", tmp_path)
        params, told = job.result()
    lock.release()
    assert told.startswith(f"train: another fit uses the folder {tmp_path}: process ")
    assert f"process {os.getpid()} on {folders.host_name()}" in told
    assert Checkpoints(tmp_path / "own").steps() == [20]
    mine = phihat.fit(bowl, jnp.zeros(3), optimizer, num_steps=20)
    np.testing.assert_allclose(params, mine.params, rtol=1e-6)  # compiled otherwise


def test_threads_fit_at_once_into_folders_of_their_own(tmp_path):
    """Each waits at every checkpoint for the other; nothing of the process is left."""
    together = threading.Barrier(2)
    before = state_of_the_process()

    def fit(name):
        def wait(state, rows):
            together.wait(timeout=60.0)
            assert state_of_the_process()["handlers"] == before["handlers"]

        with contextlib.suppress(Crash):
            train(tmp_path / name, 40, callbacks=[wait])
        return train(tmp_path / name, callbacks=[wait])

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(fit, "ab"))
    whole = phihat.fit(bowl, jnp.zeros(3), phihat.adam(0.01), num_steps=60)
    for name, result in zip("ab", results, strict=True):
        np.testing.assert_array_equal(result.params, whole.params)
        np.testing.assert_array_equal(result.history["loss"], whole.history["loss"])
        assert Checkpoints(tmp_path / name).steps() == [40, 50, 60]
    assert state_of_the_process() == before


def state_of_the_process():
    """Return what threads share, and what a fit changes for a while."""
    return {
        "handlers": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
        "verbosity": absl.logging.get_verbosity(),
        "hook": sys.excepthook,
        "filters": list(warnings.filters),
    }


def test_quiet_is_shared_by_threads():
    """The first to ask for it leaves before the second, which changes nothing."""
    before = state_of_the_process()
    for quiet in (
        array_files._quiet_logging,
        array_files._quiet_loops,
        array_files._quiet_warnings,
    ):
        first, second = contextlib.ExitStack(), contextlib.ExitStack()
        first.enter_context(quiet)
        second.enter_context(quiet)
        inside = state_of_the_process()
        assert inside != before
        first.close()
        assert state_of_the_process() == inside
        second.close()
        assert state_of_the_process() == before


def test_a_thread_is_told_of_the_fit_of_another_one(run):
    claimed, told = threading.Event(), threading.Event()

    def hold(state, rows):
        claimed.set()
        told.wait(timeout=60.0)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        job = pool.submit(train, run, callbacks=[hold])
        claimed.wait(timeout=60.0)
        with pytest.raises(RuntimeError, match=f"another fit uses.*{os.getpid()} on"):
            train(run)
        told.set()
        assert job.result().status == Status.COMPLETED
    assert Checkpoints(run).steps() == [40, 50, 60]


# ------------------------------------------------------------------- disks that refuse


def read_only(monkeypatch, root):
    """Let nothing be made, opened to be written, renamed or removed below a folder."""

    def refusing(whole, writes=lambda *arguments: True):
        def act(path, *arguments, **options):
            is_there = isinstance(path, (str, os.PathLike)) and (
                root in Path(path).parents or root == Path(path)
            )
            if is_there and writes(*arguments):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return whole(path, *arguments, **options)

        return act

    flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    opens_to_write = lambda mode=0, *more: bool(mode & flags)
    monkeypatch.setattr(os, "open", refusing(os.open, opens_to_write))
    for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "utime"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def test_a_disk_that_becomes_read_only_is_told_once(tmp_path, monkeypatch):
    root = tmp_path / "run"

    def remount(state, rows):
        if int(state.step) == 20:
            for writing in threading.enumerate():
                if writing.name == "phihat checkpoint":
                    writing.join()
            read_only(monkeypatch, root)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = train(root, callbacks=[remount])
    (message,) = [str(warning.message) for warning in caught]
    assert "of step 20 could not be written" in message
    assert "(Read-only file system); that of step 10 is kept" in message
    whole = phihat.fit(bowl, jnp.zeros(3), phihat.adam(0.01), num_steps=60)
    np.testing.assert_array_equal(result.params, whole.params)
    assert Checkpoints(root).steps() == [10]
    monkeypatch.undo()
    assert quiet(root) == [40, 50, 60]


def test_a_folder_on_a_read_only_disk_is_refused_before_the_first_step(
    run, monkeypatch
):
    seen = []
    read_only(monkeypatch, run)
    with pytest.raises(
        OSError, match=r"^train: the folder .*\(Read-only file system\)"
    ):
        train(run, callbacks=[lambda *_: seen.append(1)])
    assert seen == []

"""Checkpoints: whole or not at all, and what is not whole is named."""

import datetime
import json
import shutil
import threading
import warnings
from pathlib import Path
from typing import NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import phihat
from phihat import Checkpoints, Status, checkpoint
from phihat._core import array_files, folders
from phihat.training import background
from tests import damage, kills, memory
from tests.cases import gabor_problem
from tests.test_training import KEY, LINE, LOSS, SLOPE, Loader, assert_same, batches

START = jnp.asarray([-2.0, 12.5])
DATA = gabor_problem()[1]
SETTINGS = {"num_steps": 60, "batch_size": 5, "key": KEY, "record": ("loss", "params")}


def train(folder, loss_fn=LOSS, optimizer=None, *, every=20, **settings):
    return phihat.train(
        loss_fn,
        START,
        optimizer or phihat.adam(0.1),
        DATA,
        checkpoint=Checkpoints(folder, every=every, keep=3),
        **SETTINGS | settings,
    )


def stop_at(step):
    def crash(state, rows):
        if state.step >= step:
            raise Crash

    return crash


class Crash(Exception):
    pass


@pytest.fixture(scope="module")
def whole():
    return phihat.fit(LOSS, START, phihat.adam(0.1), DATA, **SETTINGS)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A fit that crashed at step 50, with checkpoints of steps 20 and 40."""
    folder = tmp_path_factory.mktemp("crashed")
    with pytest.raises(Crash):
        train(folder, steps_per_chunk=10, callbacks=[stop_at(50)])
    shutil.rmtree(folder / f"{50:012d}")  # as a crash that saves nothing
    return folder


@pytest.fixture
def folder(crashed, tmp_path):
    return Path(shutil.copytree(crashed, tmp_path / "run"))


# ------------------------------------------------------------------- save and restore


class Pair(NamedTuple):
    one: object
    other: object


TREES = {
    "dict": {"w": jnp.ones((2, 3)), "b": jnp.zeros(3, jnp.bfloat16)},
    "nested": [(jnp.arange(3), {"a": None}), Pair(jnp.ones(()), [jnp.int8(3)])],
    "empty": {"none": jnp.zeros((0, 3)), "some": jnp.ones(1)},
    "no leaves": {"a": None},
    "keys": {"one": jax.random.key(1), "two": jax.random.key(2, impl="rbg")},
    "host": {"a": np.arange(4), "b": np.float32(2.0)},
    "one leaf": jnp.ones(2),
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_comes_back_as_it_was(name, tmp_path):
    tree = TREES[name]
    checkpoint.save(tmp_path / "a" / "b", tree)
    again = checkpoint.restore(tmp_path / "a" / "b", classes=[Pair])
    assert_same(tree, again)
    kinds = [isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(tree)]
    assert [isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(again)] == kinds
    assert_same(tree, checkpoint.restore(tmp_path / "a" / "b", like=tree))


def test_a_result_comes_back_and_is_gone_on_from(tmp_path, whole):
    checkpoint.save(tmp_path / "result", whole)
    again = checkpoint.restore(tmp_path / "result")
    assert_same(whole, again)
    rest = SETTINGS | {"num_steps": 5, "key": None}
    assert_same(
        *(
            phihat.fit(LOSS, None, phihat.adam(0.1), DATA, state=r.state, **rest)
            for r in (whole, again)
        )
    )


def test_sharded_arrays_come_back_where_they_are_wanted(tmp_path):
    mesh = phihat.sharding.make_mesh()
    sharding = jax.sharding.NamedSharding(
        mesh, jax.sharding.PartitionSpec(*mesh.axis_names[:1])
    )
    tree = {"w": jax.device_put(jnp.arange(16.0), sharding)}
    checkpoint.save(tmp_path / "s", tree)
    again = checkpoint.restore(tmp_path / "s", like=tree)
    assert again["w"].sharding == sharding
    np.testing.assert_array_equal(again["w"], tree["w"])
    assert len(checkpoint.restore(tmp_path / "s")["w"].devices()) == 1


def test_wrong_saves_and_restores(tmp_path):
    tree = {"w": jnp.ones(2)}
    checkpoint.save(tmp_path / "a", tree)
    with pytest.raises(FileExistsError, match="pass `overwrite=True`"):
        checkpoint.save(tmp_path / "a", tree)
    checkpoint.save(tmp_path / "a", {"w": jnp.zeros(2)}, overwrite=True)
    assert not checkpoint.restore(tmp_path / "a")["w"].any()
    with pytest.raises(TypeError, match=r"the leaf at \['w'\] must be an array"):
        checkpoint.save(tmp_path / "b", {"w": "text"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    with pytest.raises(FileNotFoundError, match="there is no checkpoint at"):
        checkpoint.restore(tmp_path / "c")
    for like, message in (
        ({"w": jnp.ones(3)}, r"\['w'\] was float64\[2\] and is float64\[3\]"),
        ({"v": jnp.ones(2)}, r"It has no leaf \['v'\]. It has a leaf \['w'\] more"),
    ):
        with pytest.raises(ValueError, match=message):
            checkpoint.restore(tmp_path / "a", like=like)


def test_wrong_checkpoints():
    for arguments, error, message in (
        ({"every": 0}, ValueError, "`every` must be >= 1, got 0"),
        ({"every": 2.0}, TypeError, r"`datetime.timedelta\(seconds=2.0\)`"),
        ({"every": datetime.timedelta(0)}, ValueError, "`every` must be > 0 seconds"),
        ({"keep": 0}, ValueError, "`keep` must be >= 1"),
        ({"path": 3}, TypeError, "`path` must be a path, got 3"),
    ):
        with pytest.raises(error, match=message):
            Checkpoints(**{"path": "x"} | arguments)


# --------------------------------------------------------------------------- going on


@pytest.mark.bits
def test_the_same_call_goes_on(folder, whole):
    assert Checkpoints(folder).steps() == [20, 40]
    assert_same(whole, train(folder))
    assert Checkpoints(folder).steps() == [20, 40, 60]
    assert_same(whole, train(folder))  # it has ended: nothing is run


def test_a_larger_budget_goes_on(folder):
    longer = phihat.fit(
        LOSS, START, phihat.adam(0.1), DATA, **SETTINGS | {"num_steps": 70}
    )
    train(folder)
    assert_same(longer, train(folder, num_steps=70))
    with pytest.raises(ValueError, match="holds 70 steps, more than the 60 asked for"):
        train(folder)


def test_held_out_losses_and_recorders_go_on(tmp_path):
    settings = {
        "record": {"flight": phihat.training.flight_recorder(3)},
        "validation": phihat.training.Validation(DATA, every=10),
        "steps_per_chunk": 10,
    }
    quiet = phihat.train(LOSS, START, phihat.adam(0.1), DATA, **SETTINGS | settings)
    with pytest.raises(Crash):
        train(tmp_path, callbacks=[stop_at(30)], **settings)
    assert_same(quiet, train(tmp_path, **settings))
    assert_same(quiet, train(tmp_path, **settings))


def largest(path):
    return max(damage.files_of(path / "arrays" / "d"), key=lambda f: f.stat().st_size)


def truncate(path):
    damage.KINDS["truncated to half"](largest(path))


SPOILED = {
    "truncated": (truncate, "is damaged: it has"),
    "a bit flipped": (lambda path: damage.flip(0.5)(largest(path)), "is damaged"),
    "a file gone": (
        lambda path: damage.remove(largest(path)),
        "lacks its file arrays/d/",
    ),
    "no list of files": (
        lambda path: damage.remove(path / "files.json"),
        "is not a complete checkpoint",
    ),
    "empty": (damage.put_folder, "is not a complete checkpoint"),
    "another format": (
        lambda path: (path / "about.json").write_text('{"format": "other"}'),
        "damaged|format",
    ),
}


@pytest.mark.bits
@pytest.mark.parametrize("name", SPOILED)
def test_what_is_damaged_is_named_and_passed_over(name, folder, whole):
    spoil, message = SPOILED[name]
    spoil(folder / f"{40:012d}")
    with pytest.warns(UserWarning, match=f"{message}.*passed over"):
        result = train(folder)
    assert_same(whole, result)


@pytest.mark.bits
def test_where_all_are_damaged_the_fit_begins_anew(folder, whole):
    for step in (20, 40):
        truncate(folder / f"{step:012d}")
    with pytest.warns(UserWarning, match="passed over"):
        assert_same(whole, train(folder))


@pytest.mark.bits
def test_what_is_foreign_is_left_alone(folder, whole):
    (folder / "notes.txt").write_text("mine")
    (folder / "000000000099").mkdir()
    with pytest.warns(UserWarning, match="passed over") as caught:
        assert_same(whole, train(folder))
    first, second = (str(warning.message) for warning in caught)
    assert "notes.txt is not a checkpoint of phihat" in first
    assert "000000000099 is not a complete checkpoint" in second
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "000000000099").is_dir()


@pytest.mark.bits
def test_a_write_that_was_cut_off_is_no_checkpoint(folder, whole):
    newest = folder / f"{40:012d}"
    newest.rename(folder / f".{newest.name}.writing")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(whole, train(folder))
    assert not list(folder.glob(".*"))  # and it takes no room


OTHERS = {
    "another loss": (
        {"loss_fn": phihat.losses.least_squares(phihat.models.gabor)},
        r"loss: ",
    ),
    "another optimizer": ({"optimizer": optax.adam(0.1)}, "optimizer: "),
    "another batch size": ({"batch_size": 6}, r"sampler: .*batch_size=5.*batch_size=6"),
    "another record": ({"record": ("loss",)}, "options record: "),
    "another key": (
        {"key": jax.random.key(5)},
        r"options key: \[0, 0\] before, \[0, 5\]",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_checkpoint_of_another_fit_is_refused(name, folder):
    settings, message = OTHERS[name]
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match=f"holds another fit. .*{message}"):
        train(folder, **settings)
    assert sorted(folder.rglob("*")) == before


def test_the_checkpoint_of_another_model_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"params \['w'\]: absent before, float64\[4\]"
    ):
        phihat.train(
            lambda params, batch: jnp.sum(params["w"]),
            {"w": jnp.ones(4)},
            phihat.adam(0.1),
            DATA,
            checkpoint=Checkpoints(folder),
            **SETTINGS,
        )


def test_what_merely_changed_is_named(folder):
    about = folder / f"{40:012d}" / "about.json"
    entries = json.loads(about.read_text())
    entries["notes"]["configuration"]["versions"]["jax"] = "0.9"
    about.write_text(json.dumps(entries))
    files = about.with_name("files.json")
    listed = json.loads(files.read_text())
    listed["about.json"] = folders.checksum(about)
    files.write_text(json.dumps(listed))
    with pytest.warns(UserWarning, match="some settings changed") as caught:
        train(folder, optimizer=phihat.adam(0.2))
    (message,) = [str(warning.message) for warning in caught]
    assert "versions jax: 0.9 before" in message
    assert "optimizer numbers" in message
    assert "0.1 before, 0.2 now" in message


def test_a_saved_tree_is_no_run(tmp_path):
    checkpoint.save(tmp_path / f"{7:012d}", {"w": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"was made by `checkpoint.save` and not by"):
        train(tmp_path)


# -------------------------------------------------------------------- disks that fail


@pytest.mark.bits
def test_a_full_disk_ends_nothing(tmp_path, whole, monkeypatch):
    """The second and third checkpoints find no room: the one before is kept."""
    write = array_files.write
    written = []

    def write_some(path, arrays):
        written.append(path)
        if len(written) in (2, 3):
            path.mkdir()
            (path / "part").write_bytes(b"1234")
            raise OSError(28, "No space left on device")
        write(path, arrays)

    monkeypatch.setattr(array_files, "write", write_some)
    with pytest.warns(UserWarning, match="could not be written") as caught:
        result = train(tmp_path)
    assert_same(whole, result)
    (message,) = (str(warning.message) for warning in caught)
    assert "checkpoint of step 40 could not be written" in message
    assert "No space left on device" in message
    assert "that of step 20 is kept, and the fit continues" in message
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{20:012d}"]
    monkeypatch.undo()
    assert_same(whole, train(tmp_path))


@pytest.mark.bits
def test_a_limit_on_files_is_a_full_disk_to_orbax(tmp_path, whole):
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
        with pytest.warns(UserWarning, match=r"none was written before, and the fit"):
            result = train(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert_same(whole, result)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    called = []
    with pytest.raises(OSError, match=r"train: the folder .* cannot be written"):
        train(tmp_path / "file" / "run", callbacks=[lambda *_: called.append(1)])
    assert called == []


def test_a_log_that_fails_ends_nothing(tmp_path, monkeypatch):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(Path, "open", lambda *a, **k: Full())
    with pytest.warns(
        UserWarning, match=r"log .* can no longer be written .* continues"
    ):
        result = phihat.train(
            LOSS, START, phihat.adam(0.1), DATA, num_steps=5, log_to=tmp_path / "log"
        )
    assert result.status == Status.COMPLETED


# ---------------------------------------------------------------------------- streams


def train_stream(folder, data, **settings):
    return phihat.train(
        SLOPE,
        LINE,
        phihat.adam(0.1),
        data,
        num_steps=30,
        steps_per_chunk=5,
        checkpoint=Checkpoints(folder, every=5),
        **settings,
    )


def test_a_stream_that_can_tell_goes_on_where_it_was(tmp_path):
    x = np.random.default_rng(0).normal(size=64)
    source = grain.MapDataset.source(list(zip(x, 3 * x - 1, strict=True)))
    data = source.shuffle(seed=1).batch(6).to_iter_dataset()
    quiet = train_stream(tmp_path / "quiet", data)
    with pytest.raises(Crash):
        train_stream(tmp_path / "crashed", data, callbacks=[stop_at(15)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(quiet, train_stream(tmp_path / "crashed", data))


def test_a_stream_that_cannot_tell_says_what_repeats(tmp_path):
    data = Loader(list(batches(12)))
    with pytest.raises(Crash):
        train_stream(tmp_path, data, callbacks=[stop_at(15)])
    with pytest.warns(
        UserWarning, match=r"no `get_state`.*first 3 batches are used ag"
    ):
        result = train_stream(tmp_path, data)
    assert (int(result.status), int(result.num_steps)) == (Status.COMPLETED, 30)


# ------------------------------------------------------------------ beside the steps


def test_steps_go_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    went_on, was_waited_for = threading.Event(), []
    write = checkpoint.write

    def write_slowly(path, text, arrays):
        if path.name.endswith("4"):  # the first one
            was_waited_for.append(went_on.wait(timeout=60.0))
        write(path, text, arrays)

    def notice(state, rows):
        del rows
        if int(state.step) > 4:
            went_on.set()

    monkeypatch.setattr(checkpoint, "write", write_slowly)
    phihat.train(
        lambda x: x**2,
        1.0,
        phihat.gradient_descent(0.1),
        num_steps=7,
        steps_per_chunk=1,
        callbacks=[notice],
        checkpoint=Checkpoints(tmp_path, every=4),
    )
    assert was_waited_for == [True]
    assert Checkpoints(tmp_path).steps() == [4, 7]


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_copy_leaves_the_buffer_to_the_next_step(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    given = jnp.arange(1000.0)
    copied = background.copy_arrays({"0": given, "1": np.ones(2)})
    np.testing.assert_array_equal(copied["0"], np.arange(1000.0))
    if backend == "cpu":  # elsewhere the copy is the host's, and NumPy's view of it is
        jax.jit(lambda x: x + 1, donate_argnums=0)(given)
        assert given.is_deleted()


def test_what_fails_beside_the_steps_is_a_warning(tmp_path, monkeypatch):
    write = checkpoint.write

    def fail_once(path, text, arrays):
        if path.name.endswith("4"):
            raise OSError(28, "No space left on device")
        write(path, text, arrays)

    monkeypatch.setattr(checkpoint, "write", fail_once)
    with pytest.warns(UserWarning, match="of step 4 could not be written.*No space"):
        phihat.train(
            lambda x: x**2,
            1.0,
            phihat.gradient_descent(0.1),
            num_steps=7,
            checkpoint=Checkpoints(tmp_path, every=4),
        )
    assert Checkpoints(tmp_path).steps() == [7]


# ------------------------------------------------------------------- whole processes


def test_kills():
    found = kills.run(3, seed=3)
    assert "bit-equal" in found, found


def test_a_stream_four_times_the_memory_allowed():
    size, rise = memory.measure(allowed=32)
    assert size == 4 * 32
    assert rise < 32

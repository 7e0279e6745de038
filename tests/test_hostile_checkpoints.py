"""Checkpoints from elsewhere and damaged ones: nothing runs, and the rest is used."""

import dataclasses
import json
import os
import shutil
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import phihat
from phihat import Checkpoints, checkpoint

OLD = Path(__file__).parent / "checkpoints_0_1_0"


def sign(path, about):
    """Write what a checkpoint says of itself, and a list of files to go with it."""
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    (path / "about.json").write_bytes(text)
    files = json.loads((path / "files.json").read_text())
    files["about.json"] = [len(text), zlib.crc32(text)]
    (path / "files.json").write_text(json.dumps(files))


# --------------------------------------------------------------- nothing foreign runs


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "model"
    checkpoint.save(path, {"a": jnp.ones(2)})
    return path


@pytest.fixture
def model(plain, tmp_path, monkeypatch):
    """A checkpoint in the working folder, with a module in it that tells if it runs."""
    path = Path(shutil.copytree(plain, tmp_path / "model"))
    (tmp_path / "evil.py").write_text(
        "import dataclasses, pathlib, typing\n"
        "pathlib.Path('RAN').write_text('x')\n"
        "class P(typing.NamedTuple):\n    a: object\n"
        "@dataclasses.dataclass\nclass D:\n    a: object\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    return path


CALLED = []


@dataclasses.dataclass
class Watched:
    """A class of the user's whose code must not run."""

    a: object

    def __post_init__(self):
        CALLED.append("post_init")


class PairBase(NamedTuple):
    a: object


class Pair(PairBase):
    def __new__(cls, *arguments, **named):  # pyright: ignore
        CALLED.append("new")
        return super().__new__(cls, *arguments, **named)


def nested(depth):
    return b'{"format": "phihat checkpoint 1", "tree": ' + b"[" * depth


HOSTILE = {
    "a module in the folder": {"class": ["evil", "P", {"a": "leaf"}]},
    "its dataclass": {"class": ["evil", "D", {"a": "leaf"}]},
    "a module in the checkpoint": {"class": ["model.evil", "P", {"a": "leaf"}]},
    "a function": {"class": ["os", "system", {"command": {"text": "touch RAN"}}]},
    "a class of the library": {"class": ["subprocess", "Popen", {"args": "leaf"}]},
    "a class of pathlib": {"class": ["pathlib", "Path", {"a": {"text": "RAN"}}]},
    "a class of this test": {"class": [__name__, "Watched", {"a": "leaf"}]},
    "a dotted name": {"class": ["phihat.results", "FitResult.__init__", {"a": "leaf"}]},
    "builtins": {"class": ["builtins", "eval", {"source": {"text": "1"}}]},
    "an unknown kind": {"call": ["os", "system", {}]},
    "fields that are none": {"class": ["phihat.results", "FitState", {"a": "leaf"}]},
    "a node": {"node": ["evil", "P", ["leaf"]]},
    "no description": 3,
    "a list for a class": {"class": [["evil"], ["P"], {"a": "leaf"}]},
    "two leaves of one": {"list": ["leaf", "leaf"]},
    "no leaf": {"list": []},
    "a mapping of another kind": {"items": ["Counter", [["a", "leaf"]]]},
    "text that is none": {"list": ["leaf", {"text": [3]}]},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_restoring_runs_nothing(kind, model):
    about = json.loads((model / "about.json").read_text())
    sign(model, about | {"tree": HOSTILE[kind]})
    before = set(sys.modules)
    CALLED.clear()
    with pytest.raises(ValueError, match="restore: "):
        checkpoint.restore("model")
    assert not Path("RAN").exists()
    assert CALLED == []
    assert not {name for name in set(sys.modules) - before if "evil" in name}
    again = checkpoint.restore(
        "model", like={"a": jnp.zeros(2)}
    )  # the numbers are fine
    assert again["a"].tolist() == [1.0, 1.0]


def test_a_class_that_is_missing_is_named_and_may_be_given(tmp_path):
    tree = Pair(jnp.ones(2))
    checkpoint.save(tmp_path / "p", tree)
    with pytest.raises(ValueError, match=r"class `Pair` of .*pass `classes=\[Pair\]`"):
        checkpoint.restore(tmp_path / "p")
    CALLED.clear()
    again = checkpoint.restore(tmp_path / "p", classes=[Pair])
    assert isinstance(again, Pair)
    assert again.a.tolist() == [1.0, 1.0]
    assert CALLED == []
    with pytest.raises(TypeError, match="must be named tuples or dataclasses"):
        checkpoint.restore(tmp_path / "p", classes=[print])


def list_also(name):
    def spoil(path):
        files = path / "files.json"
        listed = json.loads(files.read_text()) | {name: [1, 1]}
        files.write_text(json.dumps(listed))

    return spoil


def link_out(path):
    """A file of the arrays that is a link to one outside."""
    file = next((path / "arrays" / "d").iterdir())
    outside = path.parent / "outside"
    outside.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(outside)


def replace_by_pipe(name):
    def spoil(path):
        (path / name).unlink()
        os.mkfifo(path / name)

    return spoil


def about_with(**changed):
    def spoil(path):
        about = json.loads((path / "about.json").read_text())
        sign(path, about | changed)

    return spoil


def leaf_with(**changed):
    def spoil(path):
        about = json.loads((path / "about.json").read_text())
        about["leaves"][0] |= changed
        sign(path, about)

    return spoil


FOLDERS = {
    "a name that leads out": list_also("../../etc/passwd"),
    "an absolute name": list_also("/etc/passwd"),
    "a name with dots inside": list_also("arrays/../../x"),
    "a link to a file": link_out,
    "a pipe for the list": replace_by_pipe("files.json"),
    "a pipe for the notes": replace_by_pipe("about.json"),
    "a file more": lambda path: (path / "arrays" / "more").write_text("x"),
    "deep nesting": lambda path: sign(path, nested(200_000)),
    "a huge empty leaf": leaf_with(shape=[0, 2**61, 2**61]),
    "a dtype of objects": leaf_with(dtype="O"),
    "a dtype that is code": leaf_with(dtype="os.system('touch RAN')"),
    "a key of no kind": leaf_with(key="evil"),
    "a shape that is none": leaf_with(shape="all"),
    "another shape": leaf_with(shape=[3]),
    "leaves that are none": about_with(leaves={"a": 1}),
    "another format": about_with(format="phihat checkpoint 99"),
    "notes that are none": about_with(notes=[]),
    "no object": lambda path: sign(path, b"[]"),
    "no text": lambda path: sign(path, b"\xff\xfe\x00"),
    "a list of no files": lambda path: (path / "files.json").write_text("[]"),
    "sizes that are none": lambda path: (path / "files.json").write_text(
        '{"about.json": 3}'
    ),
    "arrays that are a link": lambda path: [
        (path / "arrays").rename(path.parent / "away"),
        (path / "arrays").symlink_to(path.parent / "away"),
    ],
    "arrays that are a file": lambda path: [
        shutil.rmtree(path / "arrays"),
        (path / "arrays").write_text(""),
    ],
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_hostile_folder_is_refused_by_a_sentence(kind, model):
    FOLDERS[kind](model)
    with pytest.raises(ValueError, match=r"restore: .*model"):
        checkpoint.restore("model")
    assert not Path("RAN").exists()


# ------------------------------------------------------------------------ other nodes


def test_equinox_flax_and_nodes_of_the_user_come_back_by_like(tmp_path):
    eqx = pytest.importorskip("equinox")
    frozen_dict = pytest.importorskip("flax.core").FrozenDict

    network = eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(0))
    arrays, _ = eqx.partition(network, eqx.is_inexact_array)
    tree = {
        "network": arrays,
        "frozen": frozen_dict({"w": jnp.ones(2), "inner": {"b": jnp.zeros(1)}}),
        "box": phihat.Box(jnp.zeros(2), jnp.ones(2)),
        "many": {index: jnp.full((1,), index) for index in range(12)},
    }
    checkpoint.save(tmp_path / "t", tree)
    again = checkpoint.restore(tmp_path / "t", like=tree)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"node `\w+` of .* pass `like=`"):
        checkpoint.restore(tmp_path / "t")
    checkpoint.save(tmp_path / "t", {"many": tree["many"]}, overwrite=True)
    assert list(checkpoint.restore(tmp_path / "t")["many"]) == list(range(12))


def test_train_restores_params_that_are_an_equinox_module(tmp_path):
    eqx = pytest.importorskip("equinox")
    network = eqx.nn.Linear(2, 1, key=jax.random.key(0))
    arrays, static = eqx.partition(network, eqx.is_inexact_array)
    x = jnp.ones((4, 2))

    def loss(params, x):
        return jnp.mean(jax.vmap(eqx.combine(params, static))(x) ** 2)

    def run(num_steps):
        return phihat.train(
            loss,
            arrays,
            phihat.adam(0.1),
            x,
            num_steps=num_steps,
            checkpoint=Checkpoints(tmp_path, every=5),
        )

    run(5)
    whole = phihat.fit(loss, arrays, phihat.adam(0.1), x, num_steps=10)
    np.testing.assert_array_equal(run(10).params.weight, whole.params.weight)


class Row(NamedTuple):
    loss: object
    twice: object


def test_rows_of_the_users_class_go_on(tmp_path):
    def run(num_steps):
        return phihat.train(
            lambda x: x**2,
            1.0,
            phihat.gradient_descent(0.25),
            num_steps=num_steps,
            record={"row": lambda state, info: Row(info.loss, 2 * info.loss)},
            checkpoint=Checkpoints(tmp_path, every=2),
        )

    run(2)
    rows = run(4).history["row"]
    assert isinstance(rows, Row)
    assert rows.loss.tolist() == [1.0, 0.25, 0.0625, 0.015625]


def test_what_is_no_array_any_more_is_not_saved(tmp_path):
    gone, kept = jnp.ones(2), []
    gone.delete()
    jax.jit(lambda x: kept.append(x) or x)(jnp.ones(2))
    for leaf in (gone, *kept):
        with pytest.raises(TypeError, match=r"save: the leaf at .* must be an array"):
            checkpoint.save(tmp_path / "a", {"a": leaf})
    with pytest.raises(ValueError, match="cannot be written in UTF-8"):
        checkpoint.save(tmp_path / "a\udcff", {"a": 1.0})


# ------------------------------------------------------------------------ the old ones


def test_a_result_of_0_1_0_comes_back(user_flags):
    again = checkpoint.restore(OLD / "result")
    loss_fn = phihat.losses.least_squares(phihat.models.linear)
    data = phihat.datasets.linear_regression()
    whole = phihat.fit(
        loss_fn, {"weight": 0.0, "bias": 0.0}, phihat.adam(0.1), data, num_steps=5
    )
    np.testing.assert_allclose(again.history["loss"], whole.history["loss"], rtol=1e-5)
    assert again.status == phihat.Status.COMPLETED


def test_a_run_of_0_1_0_goes_on(tmp_path, user_flags):
    shutil.copytree(OLD / "run", tmp_path / "run")
    loss_fn = phihat.losses.least_squares(phihat.models.linear)
    data = phihat.datasets.linear_regression()
    call = (loss_fn, {"weight": 0.0, "bias": 0.0}, phihat.adam(0.1), data)
    seen = []
    with pytest.warns(UserWarning, match=r"versions phihat: 0\.1\.0 before"):
        result = phihat.train(
            *call,
            num_steps=40,
            callbacks=[lambda state, rows: seen.append(int(rows["step"][0]))],
            checkpoint=Checkpoints(tmp_path / "run", every=20),
        )
    assert seen[0] == 30
    whole = phihat.fit(*call, num_steps=40)
    np.testing.assert_allclose(result.history["loss"], whole.history["loss"], rtol=1e-5)

"""Many devices: the same call, the same numbers, every array where it belongs."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import phihat
from phihat import fitting, losses, models, sharding
from tests import many_hosts

EPS64 = 2.0**-52
KEY = jax.random.key(0)
LOSS = losses.multiclass_cross_entropy(models.multilayer_perceptron)
PARAMS = models.init_multilayer_perceptron(KEY, (6, 16, 4))
DATA = (
    jax.random.normal(jax.random.key(1), (48, 6)),
    jax.random.randint(jax.random.key(2), (48,), 0, 4),
)


@functools.cache
def mesh():
    return sharding.make_mesh()


@functools.cache
def plane():
    return sharding.make_mesh({"data": 2, "model": None})


def specs(tree):
    return [tuple(leaf.sharding.spec) for leaf in jax.tree.leaves(tree)]


def close(one, other, factor):
    """Compare trees entry by entry, in units of eps of the largest entry."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        scale = np.max(np.abs(np.asarray(b, float)), initial=1.0)
        np.testing.assert_allclose(a, b, rtol=0.0, atol=factor * EPS64 * scale)


# --------------------------------------------------------------- one device, or eight

RUNS = {
    "full batch": {},
    "a short last batch": {"batch_size": 20, "key": KEY, "record_every": 3},
    "until it converges": {"tolerance": 0.5, "record": ("loss", "params")},
}


@pytest.mark.parametrize("run", RUNS)
def test_eight_devices_give_what_one_gives(run):
    """Within 1e4 eps after 30 steps: the sums over rows have another order."""
    fit = functools.partial(
        phihat.fit, LOSS, PARAMS, phihat.adam(0.05), num_steps=30, **RUNS[run]
    )
    alone = fit(DATA)
    spread = fit(sharding.shard_batch(DATA, mesh()))
    assert int(spread.num_steps) == int(alone.num_steps)
    close((spread.params, spread.history), (alone.params, alone.history), 1e4)
    whole = [leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(spread)]
    assert all(whole)  # so that every process can read all of the result


def test_run_gives_what_one_device_gives():
    optimizer = phihat.momentum(0.01)
    step_fn = fitting.make_step(LOSS, optimizer)
    ends = [
        fitting.run(step_fn, fitting.init(PARAMS, optimizer), data, num_steps=10)[0]
        for data in (DATA, sharding.shard_batch(DATA, mesh()))
    ]
    close(ends[1].params, ends[0].params, 1e3)


@pytest.mark.parametrize(
    "optimizer",
    [phihat.adam(0.1), optax.adamw(0.1), phihat.nesterov(0.1)],
    ids=["adam", "adamw", "nesterov"],
)
def test_params_do_not_take_the_sharding_of_the_data(optimizer):
    """They would where the loss meets data of their own shape: the compiler is free."""
    data = sharding.shard_batch(jnp.linspace(-1.0, 1.0, 16), mesh())
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        result = phihat.fit(jnp.vdot, jnp.zeros(16), optimizer, data, num_steps=5)
    assert set(specs((result.params, result.state.opt_state))) == {()}


def test_every_device_measures_its_share_of_a_minibatch():
    """Rows are drawn from all devices, and then each keeps its own of them."""
    data = sharding.shard_batch(jnp.ones((1024, 64)), mesh())
    step_fn = fitting.make_step(_energy, phihat.gradient_descent(0.1))
    weight = jnp.ones((64, 32))

    def lower(step_fn):
        state = fitting.init(weight, phihat.gradient_descent(0.1))
        run = lambda state, data: fitting.run(
            step_fn, state, data, sampler=phihat.minibatches(128), num_steps=2
        )
        state = state._replace(key=KEY)
        return jax.jit(run).lower(state, data).compile().as_text()

    from phihat._engine import spec as _spec

    placed = _spec.place("fit", step_fn, params=weight, data=data)
    shares, wholes = r"= f64\[16,32\]\S* (dot|fusion)\(", r"= f64\[128,32\]\S* (dot|fu)"
    text = lower(placed)
    assert re.search(shares, text)
    assert not re.search(wholes, text)
    assert re.search(wholes, lower(step_fn))  # the same step, placed nowhere


def _energy(weight, x):
    return jnp.sum((x @ weight) ** 2)


def test_params_of_a_network_stay_divided_through_resumed_and_donated_steps():
    """Fully sharded: params and batch along one axis; each device keeps an eighth."""
    plan = sharding.param_shardings(PARAMS, mesh(), min_entries=32)
    divided = jax.device_put(PARAMS, plan)
    data = sharding.shard_batch(DATA, mesh())
    optimizer = phihat.adam(0.05)
    first = phihat.fit(LOSS, divided, optimizer, data, num_steps=5)
    second = phihat.fit(LOSS, None, optimizer, data, num_steps=5, state=first.state)
    wanted = specs(divided)
    assert ("data",) in wanted
    assert (None, "data") in wanted
    for result in (first, second):
        assert specs(result.params) == wanted
        moments = result.state.opt_state
        assert specs(moments.mean) == specs(moments.mean_square) == wanted
    alone = phihat.fit(LOSS, PARAMS, optimizer, DATA, num_steps=10)
    close(second.params, alone.params, 1e4)

    step = jax.jit(fitting.make_step(LOSS, optimizer), donate_argnums=0)
    state = fitting.init(divided, optimizer)
    assert specs(state.opt_state.mean) == wanted
    for _ in range(5):
        given, (state, _) = state, step(state, data)
    assert given.params[0]["weight"].is_deleted()
    assert specs(state.opt_state.mean) == specs(state.params) == wanted
    close(state.params, first.params, 1e4)


def test_train_goes_on_from_a_checkpoint_of_divided_params(tmp_path):
    plan = sharding.param_shardings(PARAMS, mesh(), min_entries=32)
    train = functools.partial(
        phihat.train,
        LOSS,
        jax.device_put(PARAMS, plan),
        phihat.adam(0.05),
        sharding.shard_batch(DATA, mesh()),
        batch_size=16,
        key=KEY,
        checkpoint=phihat.Checkpoints(tmp_path, every=5),
    )
    train(num_steps=5)
    result = train(num_steps=10)
    wanted = [tuple(one.spec) for one in jax.tree.leaves(plan)]
    assert specs(result.state.opt_state.mean) == wanted
    alone = phihat.fit(
        LOSS, PARAMS, phihat.adam(0.05), DATA, num_steps=10, batch_size=16, key=KEY
    )
    close((result.params, result.history), (alone.params, alone.history), 1e4)


def test_params_can_be_made_in_parts():
    init = lambda key: models.init_multilayer_perceptron(key, (8, 4096, 8))
    plan = sharding.param_shardings(jax.eval_shape(init, KEY), mesh())
    params = jax.jit(init, out_shardings=plan)(KEY)
    assert params[0]["weight"].addressable_shards[0].data.shape == (8, 512)
    close(params, init(KEY), 4)


def test_sweeps_of_divided_lanes_give_what_one_device_gives(tmp_path):
    """A thousand Gabor fits; benchmarks/bench_many_hosts.py runs a million."""
    assert many_hosts.map_a_million(tmp_path, lanes=1000)["eps"] <= 1e3


# ------------------------------------------------------------------------ wrong calls

ROWS = np.ones((10, 3))

CALLS = {
    "a mesh that does not multiply": (
        lambda: sharding.make_mesh({"data": 3}),
        ValueError,
        "make_mesh: the sizes of `axes` must multiply to the number of devices, got "
        "{'data': 3} for 8 devices; `devices=jax.devices()[:n]` takes fewer.",
    ),
    "a mesh that does not divide": (
        lambda: sharding.make_mesh({"data": None, "model": 3}),
        ValueError,
        "the sizes of `axes` must divide the number of devices, got {'data': None, "
        "'model': 3} for 8",
    ),
    "too many devices": (
        lambda: sharding.make_mesh({"data": None, "model": 16}),
        ValueError,
        "must divide the number of devices",
    ),
    "two sizes left open": (
        lambda: sharding.make_mesh({"data": None, "model": None}),
        ValueError,
        "at most one size of `axes` may be None",
    ),
    "axes as a number": (
        lambda: sharding.make_mesh(8),
        TypeError,
        "make_mesh: `axes` must map names to sizes, such as {'data': 8}, got 8.",
    ),
    "no axes": (lambda: sharding.make_mesh({}), TypeError, "got {}"),
    "a size of zero": (
        lambda: sharding.make_mesh({"data": 0}),
        ValueError,
        "make_mesh: `axes['data']` must be >= 1, got 0.",
    ),
    "no devices": (
        lambda: sharding.make_mesh(devices=[]),
        ValueError,
        "`devices` is empty",
    ),
    "rows that the mesh does not divide": (
        lambda: sharding.shard_batch((ROWS, ROWS[:, 0]), mesh()),
        ValueError,
        "shard_batch: `batch[0]` has 10 rows, which 8 devices along the axis 'data' "
        "cannot share evenly: leave out 2 of them, or add 6 of weight zero.",
    ),
    "a scalar in the batch": (
        lambda: sharding.shard_batch({"x": 1.0}, mesh()),
        ValueError,
        "shard_batch: `batch['x']` is a scalar: it has no rows.",
    ),
    "text in the batch": (
        lambda: sharding.shard_batch({"x": "rows"}, mesh()),
        TypeError,
        "shard_batch: `batch['x']` must be an array, got 'rows'.",
    ),
    "an unknown axis": (
        lambda: sharding.shard_batch(ROWS, mesh(), axis="dta"),
        ValueError,
        "`axis` must be one of ['data'], got 'dta'; did you mean 'data'?",
    ),
    "no mesh": (
        lambda: sharding.replicate(ROWS, 8),
        TypeError,
        "replicate: `mesh` must be a `jax.sharding.Mesh`, as `make_mesh` returns it, "
        "got 8.",
    ),
    "code in the params": (
        lambda: sharding.replicate({"model": models.linear}, mesh()),
        TypeError,
        "replicate: `tree['model']` must be an array, got the function `linear`",
    ),
    "no entries": (
        lambda: sharding.param_shardings(ROWS, mesh(), min_entries=0),
        ValueError,
        "param_shardings: `min_entries` must be >= 1, got 0.",
    ),
    "rows that cannot be shared": (
        lambda: sharding.local_rows(10, mesh()),
        ValueError,
        "local_rows: `num_rows` must be a multiple of 8, the size of the axis 'data', "
        "got 10.",
    ),
    "params on one device beside divided data": (
        lambda: phihat.fit(
            LOSS,
            jax.device_put(PARAMS, jax.devices()[1]),
            phihat.adam(0.1),
            sharding.shard_batch(DATA, mesh()),
            num_steps=1,
        ),
        ValueError,
        "but `data[0]` on 8 devices; put both on one mesh, for example by "
        "`sharding.replicate(params, mesh)`.",
    ),
    "an address without a port": (
        lambda: sharding.initialize("10.0.0.1", 2, 0),
        ValueError,
        "initialize: `coordinator_address` must be \"host:port\", got '10.0.0.1'.",
    ),
    "a process too many": (
        lambda: sharding.initialize("10.0.0.1:1234", 2, 2),
        ValueError,
        "initialize: `process_id` must be below `num_processes`, got 2 of 2.",
    ),
    "half a process": (
        lambda: sharding.initialize("10.0.0.1:1234", 2, 0.5),
        TypeError,
        "initialize: `process_id` must be a whole number, got 0.5.",
    ),
    "no time": (
        lambda: sharding.initialize("10.0.0.1:1234", 2, 0, timeout=0),
        ValueError,
        "initialize: `timeout` must be >= 1, got 0.",
    ),
    "after a computation": (
        lambda: sharding.initialize("127.0.0.1:1234", jax.device_count(), 0),
        RuntimeError,
        "initialize: jax was used before, so its devices are chosen; call it first",
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_wrong_call(call):
    function, error, text = CALLS[call]
    with pytest.raises(error, match=re.escape(text)):
        function()


def test_a_mesh_of_some_devices():
    some = sharding.make_mesh({"data": 2}, devices=jax.devices()[2:4])
    assert isinstance(some, Mesh)
    assert [device.id for device in some.devices.flat] == [2, 3]
    assert set(some.axis_types) == {jax.sharding.AxisType.Auto}


def test_keys_and_integers_are_rows_too():
    keys = jax.random.split(KEY, 16)
    batch = sharding.shard_batch({"key": keys, "label": np.arange(16)}, mesh())
    assert {leaf.sharding.spec[0] for leaf in batch.values()} == {"data"}
    assert jnp.array_equal(jax.random.key_data(batch["key"]), jax.random.key_data(keys))


def test_dividing_twice_changes_nothing():
    once = sharding.shard_batch(DATA, mesh())
    close(sharding.shard_batch(once, mesh()), DATA, 0)
    assert sharding.local_rows(48, mesh()) == slice(0, 48)
    assert sharding.local_rows(48, plane(), axis="model") == slice(0, 48)

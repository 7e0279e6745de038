"""Sweeps: what a lane computes, how lanes are cut into chunks, what a result tells."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.tree_util import Partial

import phihat
from phihat import Status, sweeps
from phihat.sweeps import memory, trigonometry
from phihat.sweeps.execution import lane_program
from tests import cases

EPS = float(np.finfo(np.float64).eps)
LOSS, DATA = cases.gabor_problem()
STARTS = np.random.default_rng(0).uniform([-10, 2.5], [10, 22.5], (6, 2))
RATES = np.asarray([1e-3, 1e-2, 0.1])


def fit_gabor(rate, start, **options):
    return phihat.fit(LOSS, start, phihat.adam(rate), DATA, num_steps=30, **options)


def close(one, other, factor=1e4):
    """Compare leaf by leaf, relative to the largest entry of the leaf."""
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    for left, right in leaves:
        left, right = np.asarray(left), np.asarray(right)
        if left.dtype.kind == "f":
            scale = np.max(np.abs(right[np.isfinite(right)]), initial=1.0)
            eps = np.finfo(left.dtype).eps
            np.testing.assert_allclose(left, right, rtol=0, atol=factor * eps * scale)
        else:
            np.testing.assert_array_equal(left, right)


# ------------------------------------------------------------- what lanes compute


def perceptron_loss(params, batch):
    x, y = batch
    return jnp.mean((phihat.models.multilayer_perceptron(params, x) - y) ** 2)


def fit_perceptron(key, rate):
    start = phihat.models.init_multilayer_perceptron(key, (3, 4, 1))
    x = jnp.linspace(-1.0, 1.0, 30).reshape(10, 3)
    result = phihat.fit(
        perceptron_loss,
        start,
        phihat.momentum(rate),
        (x, jnp.sum(x**2, axis=1, keepdims=True)),
        num_epochs=3,
        batch_size=4,
        key=key,
    )
    return result.params, result.history


def fit_until_converged(rate, start):
    result = phihat.fit(
        cases.rosenbrock, start, phihat.adam(rate), num_steps=400, tolerance=0.5
    )
    return result.params, result.num_steps, result.status, result.history["loss"]


def search_lines(shift, max_step):
    search = phihat.bracketing(max_step=max_step)
    loss_fn = lambda x: jnp.sum(jnp.cosh(x - shift))
    optimizer = phihat.steepest_descent(search)
    return phihat.fit(loss_fn, jnp.zeros(2), optimizer, num_steps=5).params


def newton_steps(start, scale):
    loss_fn = Partial(lambda scale, p: scale * cases.rosenbrock(p), scale)
    return phihat.fit(loss_fn, start, phihat.newton(), num_steps=6).params


@jax.custom_vjp
def doubled(x):
    return 2.0 * x


doubled.defvjp(lambda x: (2.0 * x, None), lambda _, g: (2.0 * g,))


def everything(x, matrix, number):
    """Operations of every kind that a lane may meet."""
    square = matrix @ matrix.T + 5.0 * jnp.eye(4)
    ordered = jnp.sort(x)[::-1]
    walked = jax.lax.fori_loop(
        0, number, lambda k, c: c.at[k % 4].add(1.0), jnp.zeros(4)
    )
    chosen = jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x)
    known = jax.lax.cond(jnp.asarray(True), jnp.exp, jnp.cos, x)
    halved = jax.lax.while_loop(
        lambda c: jnp.max(jnp.abs(c)) > 0.5, lambda c: 0.5 * c, x
    )
    padded = jnp.pad(x, (1, 2)).reshape(7, 1).T
    return {
        "solved": jnp.linalg.solve(square, x),
        "ordered": ordered,
        "walked": walked,
        "chosen": chosen,
        "known": known,
        "halved": halved,
        "padded": padded,
        "outer": jnp.einsum("i,jk->kij", x, matrix),
        "batched": jnp.einsum("ij,ij->i", matrix, jnp.cumsum(matrix, axis=1)),
        "doubled": jax.grad(lambda x: jnp.sum(doubled(x) ** 2))(x),
        "kept": jax.nn.relu(x) + jax.nn.softplus(x),
        "mapped": jax.vmap(lambda row: row - jnp.max(row))(matrix),
        "drawn": jax.random.normal(jax.random.fold_in(jax.random.key(0), number)),
        "table": jnp.asarray([1.0, 2.0, 4.0])[number],
        "number": number,
        "constant": jnp.arange(3),
        "clipped": jnp.clip(x, -0.5, 0.5),
        "norm": optax.tree.norm({"x": x}),
    }


NUMBERS = np.random.default_rng(1)
FUNCTIONS = {
    "Gabor": (fit_gabor, {"rate": RATES, "start": STARTS}),
    "perceptron, short last batch": (
        fit_perceptron,
        {"key": jax.random.split(jax.random.key(1), 3), "rate": RATES},
    ),
    "to a tolerance": (
        fit_until_converged,
        {"rate": np.asarray([0.02, 0.5]), "start": NUMBERS.normal(size=(5, 2))},
    ),
    "line searches": (
        search_lines,
        {"shift": NUMBERS.normal(size=(3, 2)), "max_step": np.asarray([0.2, 0.5])},
    ),
    "Newton": (
        newton_steps,
        {"start": NUMBERS.normal(size=(3, 2)), "scale": np.asarray([1.0, 1e-3])},
    ),
    "everything": (
        everything,
        {
            "x": NUMBERS.normal(size=(3, 4)),
            "matrix": NUMBERS.normal(size=(2, 4, 3)),
            "number": np.arange(3, dtype=np.int32),
        },
    ),
}


def one_by_one(function, axes):
    """The same by a Python loop over the jitted function."""
    sizes = [len(values) for values in axes.values()]
    jitted = jax.jit(function)
    rows = [
        jitted(**{n: v[k] for (n, v), k in zip(axes.items(), place, strict=True)})
        for place in np.ndindex(*sizes)
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return jax.tree.map(lambda leaf: leaf.reshape(*sizes, *leaf.shape[1:]), stacked)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lanes_equal_the_function_alone(name):
    function, axes = FUNCTIONS[name]
    result = phihat.sweep(function, axes)
    alone = one_by_one(function, axes)
    if name == "Gabor":
        result.values, alone = (
            (fit.params, fit.loss, fit.history, fit.num_steps)
            for fit in (result.values, alone)
        )
    close(result.values, alone)


@pytest.mark.parametrize("name", ["Gabor", "everything"])
def test_lanes_first_and_last_agree(name, monkeypatch):
    function, axes = FUNCTIONS[name]
    last = phihat.sweep(Partial(function), axes).values
    monkeypatch.setattr(
        "phihat.sweeps.vectorize.prefers_lanes_last", lambda *arguments: False
    )
    again = functools.wraps(function)(lambda **row: function(**row))
    first = phihat.sweep(again, axes).values
    if name == "Gabor":
        first, last = first.params, last.params
    close(first, last)


def test_a_large_product_puts_lanes_first():
    wide = lambda a, b: a @ b
    axes = {
        "a": NUMBERS.normal(size=(2, 40, 40)),
        "b": NUMBERS.normal(size=(3, 40, 40)),
    }
    close(phihat.sweep(wide, axes).values, one_by_one(wide, axes))


def test_in_float32_with_vector_sines(float32):
    start = STARTS.astype(np.float32)
    data = jax.tree.map(lambda leaf: leaf.astype(np.float32), DATA)
    function = lambda start, rate: phihat.fit(
        LOSS, start, phihat.gradient_descent(rate), data, num_steps=50
    ).history["loss"]
    # The last rate throws the argument of the sine far beyond the vector sines' range.
    axes = {"start": start, "rate": np.asarray([1e-3, 1e-2, 1e5], np.float32)}
    values = phihat.sweep(function, axes).values
    alone = one_by_one(function, axes)
    close(values[:, :2], alone[:, :2], factor=1e3)
    close(values[:, 2, :2], alone[:, 2, :2], factor=1e3)
    axes["rate"] = np.asarray([1e-3, 1e-2, 1e-4], np.float32)
    mild = phihat.sweep(function, axes).values
    np.testing.assert_array_equal(values[:, :2], mild[:, :2])


def test_vector_sines(float32):
    x = np.concatenate([np.linspace(-20, 20, 9999), np.geomspace(1e-6, 8192, 9999)])
    x = x.astype(np.float32)
    for name in ("sin", "cos"):
        exact = getattr(np, name)(x.astype(np.float64))
        error = np.abs(np.asarray(getattr(trigonometry, name)(jnp.asarray(x))) - exact)
        assert np.max(error / np.spacing(np.abs(exact).astype(np.float32))) < 3


def test_one_nan_lane_among_ten_thousand(float32):
    starts = np.random.default_rng(2).uniform(-5, 10, (10_000, 2)).astype(np.float32)
    data = jax.tree.map(lambda leaf: leaf.astype(np.float32), DATA)

    def function(start):
        result = phihat.fit(LOSS, start, phihat.adam(0.1), data, num_steps=20)
        return result.params, result.loss, result.status

    healthy = phihat.sweep(function, {"start": starts})
    starts[1234, 0] = np.nan
    hurt = phihat.sweep(function, {"start": starts})
    assert hurt.values[2][1234] == Status.NONFINITE_LOSS
    others = np.arange(10_000) != 1234
    for one, other in zip(healthy.values, hurt.values, strict=True):
        np.testing.assert_array_equal(one[others], other[others])


# -------------------------------------------------------------------- axes


def test_an_optimizer_is_an_axis():
    function = lambda optimizer: (
        phihat.fit(LOSS, STARTS[0], optimizer, DATA, num_steps=9).params
    )
    optimizers = phihat.adam(RATES, b1=0.8)
    result = phihat.sweep(function, {"optimizer": optimizers})
    alone = [function(phihat.adam(rate, b1=0.8)) for rate in RATES]
    close(result.values, np.stack(alone))
    np.testing.assert_array_equal(result.axes["optimizer"], RATES)
    best = result.best(by=lambda params: params[:, 0])
    rate = best.axes["optimizer"].update.keywords["learning_rate"]
    assert rate == RATES[best.position["optimizer"]]


def test_alternatives_are_grouped_by_structure():
    optimizers = [
        phihat.adam(0.1),
        phihat.momentum(0.01),
        optax.sgd(0.01),
        phihat.adam(0.01, b1=0.5),
    ]
    traces = []

    def function(optimizer, start):
        traces.append(optimizer)
        return phihat.fit(LOSS, start, optimizer, DATA, num_steps=9).params

    result = phihat.sweep(function, {"optimizer": optimizers, "start": STARTS})
    assert len(traces) == 3
    alone = [
        [phihat.fit(LOSS, start, one, DATA, num_steps=9).params for start in STARTS]
        for one in optimizers
    ]
    close(result.values, np.asarray(alone))
    assert result.axes["optimizer"][3].startswith("adam(learning_rate=0.01, b1=0.5")
    best = result.best(by=lambda params: params[..., 0])
    assert (
        best.axes["optimizer"].update.func
        is optimizers[best.position["optimizer"]].update.func
    )


def test_functions_and_texts_are_alternatives():
    def function(activation, x, kind):
        return activation(x) if kind == "once" else activation(activation(x))

    axes = {
        "activation": [jnp.tanh, jnp.cos],
        "x": np.asarray([0.1, 0.2]),
        "kind": ["once", "twice"],
    }
    values = phihat.sweep(function, axes).values
    x = axes["x"]
    wanted = [[f(x), f(f(x))] for f in (np.tanh, np.cos)]
    close(values, np.swapaxes(np.asarray(wanted), 1, 2))


def test_zipped_axes_and_numbers():
    function = lambda a, b, c: a + 10 * b + c["c"] * c["d"]
    axes = {
        ("a", "b"): ([1, 2, 3], np.asarray([4, 5, 6])),
        "c": {"c": np.asarray([100, 200]), "d": 3},
    }
    result = phihat.sweep(function, axes)
    assert result.sizes == {"a_b": 3, "c": 2}
    np.testing.assert_array_equal(result.values, [[341, 641], [352, 652], [363, 663]])


def test_zipped_alternatives():
    optimizers = [phihat.adam(0.1), phihat.momentum(0.01), phihat.adam(0.2)]
    function = lambda optimizer, start: (
        phihat.fit(LOSS, start, optimizer, DATA, num_steps=5).loss
    )
    result = phihat.sweep(function, {("optimizer", "start"): (optimizers, STARTS[:3])})
    alone = [function(*pair) for pair in zip(optimizers, STARTS[:3], strict=True)]
    close(result.values, np.asarray(alone))


def test_axes_of_serves_vmap():
    optimizer = phihat.adam(jnp.asarray(RATES))
    function = lambda optimizer: (
        phihat.fit(LOSS, STARTS[0], optimizer, DATA, num_steps=9).params
    )
    axes = sweeps.axes_of(optimizer)
    close(
        jax.vmap(function, in_axes=(axes,))(optimizer),
        phihat.sweep(function, {"optimizer": optimizer}).values,
    )


def test_keys_are_an_axis_and_a_value():
    keys = jax.random.split(jax.random.key(3), (4,))
    function = lambda key: {"next": jax.random.fold_in(key, 1), "key": key}
    result = phihat.sweep(function, {"key": keys})
    wanted = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    assert jnp.array_equal(
        jax.random.key_data(result.values["next"]), jax.random.key_data(wanted)
    )


# ------------------------------------------------------------- chunks and devices

MANY = {"rate": np.geomspace(1e-3, 1.0, 13), "start": np.tile(STARTS, (7, 1))}


def params_of(rate, start):
    return fit_gabor(rate, start).params


def num_chunks(max_bytes, axes, num_devices=1):
    function = Partial(params_of)
    need = lane_program("sweep", function, axes).need
    lanes = len(axes["rate"]) * len(axes["start"])
    return memory.plan_chunks("sweep", need, lanes, num_devices, max_bytes)


@pytest.mark.bits
def test_results_do_not_depend_on_chunks_or_devices():
    axes = {name: jnp.asarray(values) for name, values in MANY.items()}
    whole = phihat.sweep(params_of, axes).values
    small = 100_000
    assert num_chunks(small, axes, 8).num_chunks > 5
    close(phihat.sweep(params_of, axes, max_bytes=small).values, whole, factor=100)
    for count in (1, 3):
        mesh = Mesh(np.asarray(jax.devices()[:count]), ("lanes",))
        close(phihat.sweep(params_of, axes, mesh=mesh).values, whole, factor=100)
    mesh = Mesh(np.asarray(jax.devices()).reshape(2, 4), ("a", "b"))
    np.testing.assert_array_equal(
        phihat.sweep(params_of, axes, mesh=mesh).values, whole
    )


def test_repeated_to_the_bit():
    one, other = (phihat.sweep(params_of, MANY).values for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_traced_once_whatever_the_number_of_chunks():
    traced = chex.assert_max_traces(params_of, n=1)
    function = lambda rate, start: traced(rate, start)
    phihat.sweep(function, MANY)
    phihat.sweep(function, MANY, max_bytes=200_000)
    other = {name: 1.1 * values for name, values in MANY.items()}
    phihat.sweep(function, other)
    chex.clear_trace_counter()


@pytest.mark.parametrize("lanes", [1, 2, 17, 64, 100, 4096, 100_000])
@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize("max_bytes", [10**6, 10**8])
def test_plans_keep_to_the_limit(lanes, num_devices, max_bytes):
    need = memory.Bytes(peak=3000, loop=1000, result=8)
    plan = memory.plan_chunks("sweep", need, lanes, num_devices, max_bytes)
    assert plan.num_bytes <= max_bytes
    assert plan.chunk * plan.num_chunks * num_devices >= lanes
    assert (plan.num_chunks - 1) * plan.chunk * num_devices < lanes
    assert plan.chunk < 16 or plan.chunk & (plan.chunk - 1)


def test_planned_bytes_are_no_fewer_than_those_used():
    axes = {name: jnp.asarray(values) for name, values in MANY.items()}
    program = lane_program("sweep", Partial(params_of), axes)
    lanes = 1000
    rows = [np.zeros(lanes, np.int32)] * 2
    compiled = (
        program._code.chunk_program(None).lower(1.0, program._numbers, rows).compile()
    )
    used = compiled.memory_analysis()
    assert used is not None
    total = used.temp_size_in_bytes + used.output_size_in_bytes
    assert total <= lanes * program.need.peak


def test_progress_shows_a_bar(capfd):
    phihat.sweep(params_of, MANY, progress=True)
    assert "546/546" in capfd.readouterr().err


# -------------------------------------------------------------------- results


def ended(rate, start):
    result = phihat.fit(LOSS, start, phihat.gradient_descent(rate), DATA, num_steps=30)
    return {"loss": result.loss, "status": result.status, "params": result.params}


@pytest.fixture(scope="module")
def result():
    rates = np.asarray([1e-3, 1e-2, np.inf])
    return phihat.sweep(ended, {"rate": rates, "start": STARTS})


def test_best_ignores_what_failed(result):
    best = result.best(by="loss")
    losses = result.values["loss"][:2]
    assert best.values["loss"] == losses.min()
    assert best.position["start"] == np.unravel_index(losses.argmin(), (2, 6))[1]
    np.testing.assert_array_equal(best.axes["start"], STARTS[best.position["start"]])
    worst = result.best(by="loss", largest=True)
    assert worst.values["loss"] == losses.max()
    fits = phihat.sweep(
        lambda rate: phihat.fit(LOSS, STARTS[0], phihat.adam(rate), DATA, num_steps=3),
        {"rate": RATES},
    )
    assert fits.best(by="loss").values.loss == fits.values.loss.min()
    assert fits.best(by="grad_norm").values.grad_norm == fits.values.grad_norm.min()
    assert phihat.raise_for_status(fits.values) is fits.values


def test_select(result):
    part = result.select(rate=0.01)
    assert part.shape == (6,)
    np.testing.assert_array_equal(part.values["loss"], result.values["loss"][1])
    part = result.select(rate=lambda rate: rate < 1, start=2)
    np.testing.assert_array_equal(part.axes["rate"], [1e-3, 1e-2])
    np.testing.assert_array_equal(part.values["loss"], result.values["loss"][:2, 2])
    assert part.best(by="loss").axes["rate"] in (1e-3, 1e-2)


def test_to_xarray_and_pandas(result):
    pytest.importorskip("xarray")
    dataset = result.to_xarray()
    assert dataset.loss.dims == ("rate", "start")
    assert dataset.params.dims == ("rate", "start", "params_0")
    chosen = dataset.loss.sel(rate=0.01, start=3)
    assert float(chosen) == result.values["loss"][1, 3]
    pytest.importorskip("pandas")
    table = result.to_pandas()
    assert list(table.columns) == ["rate", "start", "loss", "status"]
    row = table[(table.rate == 0.01) & (table.start == 3)]
    assert float(row.loss.iloc[0]) == result.values["loss"][1, 3]


def test_repr(result):
    text = repr(result)
    assert text.startswith("SweepResult: 3 rate * 6 start = 18 lanes")
    assert re.search(r"status  12 COMPLETED, 6 NONFINITE_PARAMS", text)
    assert "best at rate=" in text


# -------------------------------------------------------------------- wrong calls


def needs_rate(rate, start):
    return start * 2 if rate > 0.5 else start


WRONG = {
    "no axes": (lambda: phihat.sweep(params_of, {}), ValueError, "`axes` is empty"),
    "no mapping": (
        lambda: phihat.sweep(params_of, [1.0]),
        TypeError,
        "`axes` must map names to values",
    ),
    "empty axis": (
        lambda: phihat.sweep(params_of, {"rate": [], "start": STARTS}),
        ValueError,
        "the axis 'rate' is empty",
    ),
    "no rows": (
        lambda: phihat.sweep(params_of, {"rate": np.zeros(0), "start": STARTS}),
        ValueError,
        "the axis 'rate' is empty",
    ),
    "mismatched zip": (
        lambda: phihat.sweep(params_of, {("rate", "start"): (RATES, STARTS)}),
        ValueError,
        "must have one length: rate has 3, start has 6",
    ),
    "zip of one": (
        lambda: phihat.sweep(params_of, {("rate", "start"): (RATES,)}),
        ValueError,
        "must be a tuple of 2 values",
    ),
    "ragged": (
        lambda: phihat.sweep(
            params_of, {"rate": {"a": RATES, "b": STARTS}, "start": STARTS}
        ),
        ValueError,
        r"must have one length: \['a'\] has 3, \['b'\] has 6",
    ),
    "a number": (
        lambda: phihat.sweep(params_of, {"rate": 0.1, "start": STARTS}),
        TypeError,
        "the axis 'rate' must hold arrays",
    ),
    "unknown name": (
        lambda: phihat.sweep(params_of, {"rates": RATES, "start": STARTS}),
        TypeError,
        "called with the names of the axes, rates, start, but its signature",
    ),
    "name twice": (
        lambda: phihat.sweep(params_of, {"rate": RATES, ("rate", "b"): (1, 2)}),
        ValueError,
        "names 'rate' twice",
    ),
    "not traceable": (
        lambda: phihat.sweep(needs_rate, {"rate": RATES, "start": STARTS}),
        TypeError,
        r'needs the value of `rate`.*"return start \* 2 if rate > 0.5 else start"',
    ),
    "numpy inside": (
        lambda: phihat.sweep(
            lambda rate, start: rate * np.sum(np.asarray(start)),
            {"rate": RATES, "start": STARTS},
        ),
        TypeError,
        r"needs the value of `start`.*np\.asarray",
    ),
    "steps as an axis": (
        lambda: phihat.sweep(
            lambda steps: (
                phihat.fit(
                    cases.rosenbrock, STARTS[0], phihat.adam(0.1), num_steps=steps
                ).loss
            ),
            {"steps": [1, 2]},
        ),
        TypeError,
        "`num_steps` shapes the program",
    ),
    "no arrays": (
        lambda: phihat.sweep(lambda rate: "text", {"rate": RATES}),
        TypeError,
        "must return a pytree of arrays",
    ),
    "limit": (
        lambda: phihat.sweep(params_of, MANY, max_bytes=1000),
        ValueError,
        r"`max_bytes` must be at least \d+ to run one lane at a time",
    ),
    "limit of zero": (
        lambda: phihat.sweep(params_of, MANY, max_bytes=0),
        ValueError,
        "`max_bytes` must be >= 1, got 0",
    ),
    "mesh": (
        lambda: phihat.sweep(params_of, MANY, mesh=3),
        TypeError,
        "`mesh` must be a `jax.sharding.Mesh`, got 3",
    ),
    "structures": (
        lambda: phihat.sweep(
            lambda optimizer: phihat.fit(LOSS, STARTS[0], optimizer, DATA, num_steps=2),
            {"optimizer": [phihat.adam(0.1), phihat.momentum(0.1)]},
        ),
        ValueError,
        r"another structure for optimizer=momentum\(.*return what they share",
    ),
    "under jit": (
        lambda: jax.jit(lambda r: phihat.sweep(params_of, {"rate": r}).values)(RATES),
        TypeError,
        "cannot run under jit",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    call, kind, message = WRONG[name]
    with pytest.raises(kind, match=re.compile(message, re.DOTALL)):
        call()


def test_wrong_questions(result):
    with pytest.raises(ValueError, match=r"`by` must be one of .* did you mean 'loss'"):
        result.best(by="los")
    with pytest.raises(ValueError, match="name the value to compare `by`"):
        result.best()
    with pytest.raises(ValueError, match=r"one number per lane, shape \[3, 6\]"):
        result.best(by="params")
    with pytest.raises(ValueError, match="no lane has a finite value"):
        phihat.sweep(lambda x: x / 0.0, {"x": [0.0, 0.0]}).best()
    with pytest.raises(ValueError, match="`name` must be one of"):
        result.select(rates=0.1)
    with pytest.raises(ValueError, match=r"'rate' has no coordinate 0\.3"):
        result.select(rate=0.3)


def test_tables_name_what_is_missing(result, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xarray", None)
    with pytest.raises(ImportError, match="pip install xarray"):
        result.to_xarray()


def test_a_float32_sweep_of_float64_arrays(float32):
    values = phihat.sweep(lambda x: 2 * x, {"x": np.asarray([1.0, 2.0])}).values
    assert values.dtype == np.float32

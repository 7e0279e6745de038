"""optax inside ours: every public optimizer of optax runs in `fit` and lowers a loss.

The list of optimizers is read off optax itself, so one that a later release adds must
find its place here. What `fit` cannot run is among the exceptions, with its cause, and
each exception is tested as well: a test fails when its cause is gone.
"""

import contextlib
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import phihat
from phihat import fit, sampling

# optax asks for standard promotion: a float32 count meets parameters of every dtype.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:optax")

OPTIMIZERS = {
    "acprop": lambda: contrib.acprop(0.02),
    "adabelief": lambda: optax.adabelief(0.02),
    "adadelta": lambda: optax.adadelta(3.0),
    "adafactor": lambda: optax.adafactor(0.1),
    "adagrad": lambda: optax.adagrad(0.2),
    "adam": lambda: optax.adam(0.02),
    "adamax": lambda: optax.adamax(0.02),
    "adamaxw": lambda: optax.adamaxw(0.02),
    "adamw": lambda: optax.adamw(0.02),
    "adan": lambda: optax.adan(0.02),
    "ademamix": lambda: contrib.ademamix(0.01),
    "adopt": lambda: contrib.adopt(0.02),
    "amsgrad": lambda: optax.amsgrad(0.02),
    "cocob": lambda: contrib.cocob(),
    "dadapt_adamw": lambda: contrib.dadapt_adamw(),
    "dog": lambda: contrib.dog(),
    "dowg": lambda: contrib.dowg(),
    "fromage": lambda: optax.fromage(0.02),
    "galore": lambda: contrib.galore(0.02, rank=2),
    "lamb": lambda: optax.lamb(0.02),
    "lars": lambda: optax.lars(1.0, trust_coefficient=0.05),
    "lbfgs": lambda: optax.lbfgs(),
    "lion": lambda: optax.lion(0.02),
    "madgrad": lambda: contrib.madgrad(0.02),
    "momo": lambda: contrib.momo(),
    "momo_adam": lambda: contrib.momo_adam(),
    "muon": lambda: contrib.muon(0.02),
    "nadam": lambda: optax.nadam(0.02),
    "nadamw": lambda: optax.nadamw(0.02),
    "noisy_sgd": lambda: optax.noisy_sgd(0.02, key=0),
    "novograd": lambda: optax.novograd(0.02),
    "optimistic_adam": lambda: optax.optimistic_adam(0.02),
    "optimistic_adam_v2": lambda: optax.optimistic_adam_v2(0.02),
    "optimistic_gradient_descent": lambda: optax.optimistic_gradient_descent(0.02),
    "polyak_sgd": lambda: optax.polyak_sgd(),
    "prodigy": lambda: contrib.prodigy(),
    "radam": lambda: optax.radam(0.05),
    "rmsprop": lambda: optax.rmsprop(0.02),
    "rprop": lambda: optax.rprop(0.02),
    "schedule_free_adamw": lambda: contrib.schedule_free_adamw(0.02),
    "schedule_free_sgd": lambda: contrib.schedule_free_sgd(0.02),
    "sgd": lambda: optax.sgd(0.02),
    "sign_sgd": lambda: optax.sign_sgd(0.02),
    "signum": lambda: optax.signum(0.02),
    "simplified_ademamix": lambda: contrib.simplified_ademamix(0.002),
    "sm3": lambda: optax.sm3(0.2),
    "sophia": lambda: contrib.sophia(0.02),
    "yogi": lambda: optax.yogi(0.02),
}
"""Every factory of an optimizer, with settings that suit the problem below."""

NEEDS_A_LARGER_FIRST_STEP = {
    "dog": lambda: contrib.dog(init_step=("heuristic", 0.05)),
    "prodigy": lambda: contrib.prodigy(estim_lr0=0.05),
}
"""In bfloat16, with their default settings, these never move: their first step is 1e-6
of the start, less than half the distance to the next number, so it is rounded away, and
they lengthen their step only by the distance that they have come."""

SGD = functools.partial(optax.sgd, 0.02)
BIAS = {"weight": False, "bias": True}
LABELS = {"weight": "fast", "bias": "slow"}
PAIR = {"fast": optax.sgd(0.02), "slow": optax.adam(0.1)}


def is_even(step):
    return step % 2 == 0


WRAPPERS = {
    "MultiSteps": lambda: optax.MultiSteps(
        SGD(), every_k_schedule=2, accumulator_dtype=float
    ),
    "apply_if_finite": lambda: optax.apply_if_finite(SGD(), 3),
    "chain": lambda: optax.chain(optax.clip(1.0), optax.adam(0.1)),
    "conditionally_mask": lambda: optax.conditionally_mask(SGD(), is_even),
    "conditionally_transform": lambda: optax.chain(
        optax.conditionally_transform(optax.clip(1.0), is_even), SGD()
    ),
    "flatten": lambda: optax.flatten(optax.adam(0.1)),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(RATE),
    "inject_stateful_hyperparams": lambda: optax.inject_stateful_hyperparams(
        optax.adam
    )(RATE),
    "masked": lambda: optax.chain(optax.masked(optax.clip(1.0), BIAS), SGD()),
    "mechanize": lambda: contrib.mechanize(SGD()),
    "multi_transform": lambda: optax.multi_transform(PAIR, LABELS),
    "named_chain": lambda: optax.named_chain(("clip", optax.clip(1.0)), ("sgd", SGD())),
    "partition": lambda: optax.partition(PAIR, LABELS),
    "sam": lambda: contrib.sam(SGD(), ADVERSARY),
    "schedule_free": lambda: contrib.schedule_free(SGD(), 0.02, b1=0.5),
    "selective_transform": lambda: optax.selective_transform(SGD(), freeze_mask=BIAS),
    "split_real_and_imaginary": lambda: contrib.split_real_and_imaginary(SGD()),
    "with_extra_args_support": lambda: optax.with_extra_args_support(SGD()),
}
"""What makes an optimizer of another one."""

RATE = optax.exponential_decay(0.2, 5, 0.5)
ADVERSARY = optax.chain(contrib.normalize(), optax.sgd(0.01))

NEEDS_EXTRAS = {
    "lbfgs": (
        lambda: optax.lbfgs(),
        lambda value, grad, fn: {"value": value, "grad": grad, "value_fn": fn},
    ),
    "reduce_on_plateau": (
        lambda: optax.chain(
            SGD(), contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=0.6)
        ),
        lambda value, grad, fn: {"value": value},
    ),
    "sam, opaque": (
        lambda: contrib.sam(SGD(), ADVERSARY, opaque_mode=True),
        lambda value, grad, fn: {"grad_fn": lambda params, _: jax.grad(fn)(params)},
    ),
    "sophia": (
        lambda: contrib.sophia(0.1),
        lambda value, grad, fn: {"obj_fn": fn},
    ),
}
"""What must be told more than the gradient, with what an optax loop must pass."""

TRANSFORMATIONS = {
    # they change gradients and turn none into a step downhill
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_noise",
    "apply_every",
    "centralize",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "ema",
    "freeze",
    "hutchinson_estimator_diag_hessian",
    "identity",
    "keep_params_nonnegative",
    "normalize",
    "normalize_by_update_norm",
    "reduce_on_plateau",
    "scale",
    "set_to_zero",
    "stateless",
    "stateless_with_tree_map",
    "trace",
    "zero_nans",
    # they measure
    "measure_with_ema",
    "snapshot",
    # a schedule with a state
    "WrappedSchedule",
}
"""What is no optimizer; so is every `scale_by_*`."""

EXCEPTIONS = {
    "differentially_private_aggregate",
    "dpsgd",
    "lookahead",
    "monitor",
}
"""What `fit` refuses; the tests at the end say why."""

SETTINGS = {
    "float32": (False, jnp.float32),
    "bfloat16": (False, jnp.bfloat16),
    "x64": (True, jnp.float64),
}


@contextlib.contextmanager
def flags(*, x64):
    with (
        jax.enable_x64(x64),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


@pytest.fixture
def x64_flags():
    with flags(x64=True):
        yield


# ----------------------------------------------------------------------- the full list


def is_factory(value):
    """Tell whether it returns an (init, update) pair, by its annotation or by trying.

    A class serves as well, where its instances are such pairs.
    """
    if inspect.isclass(value):
        return callable(getattr(value, "init", None)) and hasattr(value, "update")
    with contextlib.suppress(TypeError, ValueError):
        if "GradientTransformation" in str(inspect.signature(value).return_annotation):
            return True
    for arguments in ((), (0.1,), ({},)):
        with contextlib.suppress(Exception):
            made = value(*arguments)
            return callable(made.init) and callable(made.update)
    return False


@pytest.mark.filterwarnings("ignore")
def test_every_public_factory_of_optax_has_its_place():
    public = {
        name: value
        for module in (optax, contrib)
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value)
    }
    factories = {name for name, value in public.items() if is_factory(value)}
    factories = {name for name in factories if not name.startswith("scale_by_")}
    groups = [set(OPTIMIZERS), set(WRAPPERS), TRANSFORMATIONS, EXCEPTIONS]
    assert factories == set().union(*groups)
    assert sum(map(len, groups)) == len(factories)


# -------------------------------------------------------------------------- every one


def distance(params):
    return sum(jnp.sum((leaf - 1) ** 2) for leaf in jax.tree.leaves(params))


def losses_of(optimizer, setting):
    """Return the loss before and after; a loop of either kind has its turn."""
    x64, dtype = SETTINGS[setting]
    with flags(x64=x64):
        start = jnp.linspace(-1.0, 0.5, 6, dtype=dtype).reshape(2, 3)
        run = functools.partial(
            fit, distance, optimizer=optimizer(), num_steps=100, record=()
        )
        result = run(params=start) if setting == "float32" else jax.jit(run)(start)
        assert result.params.dtype == dtype
        return float(distance(start)), float(result.loss)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_a_loss(name, setting):
    before, after = losses_of(OPTIMIZERS[name], setting)
    if setting == "bfloat16" and name in NEEDS_A_LARGER_FIRST_STEP:
        assert after == before
        before, after = losses_of(NEEDS_A_LARGER_FIRST_STEP[name], setting)
    assert after < before / 2


# -------------------------------------------------------- the numbers of an optax loop


START = {"weight": jnp.asarray(-0.5), "bias": jnp.asarray(1.6)}
LINEAR = phihat.losses.least_squares(phihat.models.linear)


def data():
    return phihat.datasets.linear_regression()


def by_hand(optimizer, extras_fn, loss_fn, batches):
    """Return the params and the state after each step of a loop as optax writes it."""

    def step(carry, batch):
        params, state = carry
        value_fn = functools.partial(loss_fn, batch=batch)
        value, grad = jax.value_and_grad(value_fn)(params)
        extras = extras_fn(value, grad, value_fn)
        updates, state = optimizer.update(grad, state, params, **extras)
        after = (optax.apply_updates(params, updates), state)
        return after, after

    start = (START, optimizer.init(START))
    return jax.jit(lambda: jax.lax.scan(step, start, batches)[1])()


def assert_same_numbers(result, path, evaluate=None):
    """Compare the whole path, to 1e-12 of each number's size."""
    params, states = path
    if evaluate is not None:
        params = jax.vmap(evaluate)(states, params)
    ours = jax.tree.map(lambda leaf: leaf[1:], result.history["params"])
    last = jax.tree.map(lambda leaf: leaf[-1], params)
    for one, other in ((ours, params), (result.params, last)):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-12),
            one,
            other,
        )


def repeated(batch, times):
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * times), batch)


@pytest.mark.usefixtures("x64_flags")
@pytest.mark.parametrize("name", [*WRAPPERS, *NEEDS_EXTRAS])
def test_the_same_numbers_as_a_loop_by_hand(name):
    make, extras_fn = NEEDS_EXTRAS.get(name) or (WRAPPERS[name], lambda *_: {})
    result = fit(LINEAR, START, make(), data(), num_steps=12, record=("loss", "params"))
    path = by_hand(make(), extras_fn, LINEAR, repeated(data(), 12))
    is_free = name == "schedule_free"
    assert_same_numbers(
        result, path, contrib.schedule_free_eval_params if is_free else None
    )
    assert result.loss < result.history["loss"][0]


@pytest.mark.usefixtures("x64_flags")
def test_reduce_on_plateau_is_told_the_loss():
    make, _ = NEEDS_EXTRAS["reduce_on_plateau"]
    result = fit(LINEAR, START, make(), data(), num_steps=12)
    assert result.state.opt_state[1].scale < 1


@pytest.mark.usefixtures("x64_flags")
def test_schedule_free_gives_its_evaluation_params():
    optimizer = contrib.schedule_free(SGD(), 0.02, b1=0.5)
    result = fit(LINEAR, START, optimizer, data(), num_steps=12)
    state = result.state
    expected = contrib.schedule_free_eval_params(state.opt_state, state.params)
    assert result.params == expected
    assert result.params != state.params


@pytest.mark.usefixtures("x64_flags")
def test_injected_hyperparameters_tell_the_rate():
    optimizer = WRAPPERS["inject_hyperparams"]()
    result = fit(
        LINEAR, START, optimizer, data(), num_steps=12, record=("learning_rate",)
    )
    rates = result.history["learning_rate"]  # optax keeps it in float32
    np.testing.assert_allclose(rates, RATE(np.arange(12)), rtol=4 * 2.0**-23)


@pytest.mark.usefixtures("x64_flags")
def test_apply_if_finite_goes_on_after_bad_batches():
    x, y = data()
    spoilt = (x, y.at[3].set(jnp.nan))
    rows = jnp.asarray([[0, 1], [2, 3], [3, 4], [5, 6], [7, 8], [3, 9], [10, 11]])
    optimizer = WRAPPERS["apply_if_finite"]()
    options = dict(num_steps=7, sampler=sampling.from_indices(rows))
    result = fit(
        LINEAR,
        START,
        optimizer,
        spoilt,
        nonfinite="continue",
        record=("params",),
        **options,
    )
    batches = jax.tree.map(lambda leaf: leaf[rows], spoilt)
    assert_same_numbers(result, by_hand(optimizer, lambda *_: {}, LINEAR, batches))
    assert result.state.opt_state.total_notfinite == 3
    stopped = fit(LINEAR, START, optimizer, spoilt, **options)
    assert stopped.status == phihat.Status.NONFINITE_LOSS
    assert stopped.num_steps == 1


# -------------------------------------------------------------------------- exceptions


@pytest.mark.usefixtures("x64_flags")
def test_lookahead_wants_the_gradient_of_the_fast_params_alone():
    """Its updates are of another structure than its gradients: a chain mends it."""
    pair = optax.LookaheadParams.init_synced(START)
    lookahead = optax.lookahead(SGD(), sync_period=3, slow_step_size=0.5)

    def loss_fn(params, batch):
        return LINEAR(params.fast, batch)

    with pytest.raises(ValueError, match="LookaheadParams"):
        fit(loss_fn, pair, lookahead, data(), num_steps=12)

    take_fast = optax.stateless(lambda updates, _: updates.fast)
    result = fit(loss_fn, pair, optax.chain(take_fast, lookahead), data(), num_steps=12)
    params, state = pair, lookahead.init(pair)
    for _ in range(12):
        grad = jax.grad(LINEAR)(params.fast, data())
        updates, state = lookahead.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    for name in START:
        np.testing.assert_allclose(
            result.params.slow[name], params.slow[name], rtol=1e-12
        )


@pytest.mark.usefixtures("x64_flags")
@pytest.mark.parametrize("name", ["dpsgd", "differentially_private_aggregate"])
def test_private_optimizers_want_a_gradient_for_each_row(name):
    """They clip each row's gradient: a gradient of the sum has lost the rows."""
    optimizer = {
        "dpsgd": lambda: contrib.dpsgd(0.02, 1.0, 0.1, seed=0),
        "differentially_private_aggregate": lambda: optax.chain(
            contrib.differentially_private_aggregate(1.0, 0.1, key=0), SGD()
        ),
    }[name]()
    with pytest.raises(ValueError, match="have a batch dimension"):
        fit(distance, [jnp.zeros(3), jnp.zeros(2)], optimizer, num_steps=12)
    with pytest.raises(ValueError, match=r"an update of shape \[\] for params of"):
        fit(distance, jnp.zeros(3), optimizer, num_steps=12)


@pytest.mark.usefixtures("x64_flags")
def test_monitor_changes_the_structure_of_its_state():
    """No compiled loop can carry that, and `fit` says so."""
    optimizer = optax.chain(SGD(), optax.monitor({"norm": optax.tree.norm}))
    with pytest.raises(TypeError, match="no compiled loop can carry it"):
        fit(LINEAR, START, optimizer, data(), num_steps=12)

"""One right call of every public function, all arguments by name: each small.

`RIGHT_CALLS[name]()` returns the arguments. `USES` says how to look at what a call
returns where that is a function, an optimizer or a picture.
"""

import functools
import inspect
import tempfile
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

import phihat
from phihat import checkpoint, fitting, plot, sharding, training

X = np.linspace(-1.0, 1.0, 6)
Y = 0.5 + 0.8 * X
KEY = jax.random.key(0)
FOLDER = Path(tempfile.gettempdir()) / "phihat-wrong-calls"


def cubic(x):
    return (x - 0.3) ** 2 + 0.1 * x**3


def parabola(p):
    return jnp.sum((p - 0.3) ** 2)


def saddle(p):
    return p[0] ** 2 - p[1] ** 2


def line(params, x):
    return params[0] + params[1] * x


def descend(rate, decay):
    return phihat.fit(parabola, np.ones(2), phihat.momentum(rate, decay), num_steps=5)


def once(make):
    return functools.cache(make)


@once
def found():
    """Return results of all kinds, made once."""
    made = SimpleNamespace()
    fit = functools.partial(phihat.fit, LOSS, PARAMS, data=DATA, num_steps=4)
    made.result = fit(phihat.gradient_descent(0.02), record=("loss", "params"))
    made.solved = fit(phihat.levenberg_marquardt())
    made.search = phihat.bracketing(max_step=1.0, max_iterations=3, trace=True)(cubic)
    made.surface = plot.evaluate_surface(LOSS, BOX, DATA, shape=(5, 5))
    made.sweep = phihat.sweep(
        lambda x, y: x - y, {"x": jnp.arange(3.0), "y": jnp.arange(4.0)}
    )
    made.report = phihat.prove_convexity(parabola, np.ones(2))
    made.state = fitting.init(PARAMS, phihat.adam(0.1), key=KEY)
    made.recorded = fit(
        phihat.gradient_descent(1e30), record={"flight": training.flight_recorder(4)}
    )
    return made


PARAMS = np.array([0.1, 0.2])
DATA = (X, Y)
LOSS = phihat.losses.least_squares(line)
BOX = phihat.Box([-2.0, -2.0], [2.0, 2.0])

L = {"loss_fn": LOSS, "params": PARAMS, "data": DATA}
B = {"loss_fn": LOSS, "box": BOX, "data": DATA}
C = {"loss_fn": parabola, "params": PARAMS, "domain": BOX, "budget": 2.0}
FIT = {
    **L,
    "optimizer": phihat.adam(0.1),
    "num_steps": 3,
    "batch_size": 2,
    "key": KEY,
    "tolerance": 1e-9,
    "record": ("loss",),
    "record_every": 1,
    "nonfinite": "stop",
}
CURVE = {
    "model": line,
    "x": X,
    "y": Y,
    "start": PARAMS,
    "sigma": 0.1 * np.ones(6),
    "bounds": BOX,
    "f_scale": 1.0,
    "tolerance": 1e-9,
    "num_steps": 20,
}
SEARCH = {"max_step": 1.0, "max_iterations": 5, "tolerance": 1e-3, "trace": False}


def mesh():
    return sharding.make_mesh({"rows": 1}, devices=jax.devices()[:1])


RIGHT_CALLS = {
    # ------------------------------------------------------------------ optimizers
    "phihat.adam": lambda: {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-7},
    "phihat.gradient_descent": lambda: {"learning_rate": 0.1},
    "phihat.momentum": lambda: {"learning_rate": 0.1, "decay": 0.8},
    "phihat.nesterov": lambda: {"learning_rate": 0.1, "decay": 0.8, "lookahead": 0.5},
    "phihat.normalized_gradient": lambda: {"learning_rate": 0.1, "eps": 1e-7},
    "phihat.newton": lambda: {"initial_radius": 0.5},
    "phihat.newton_cg": lambda: {"initial_radius": 0.5, "max_iterations": 20},
    "phihat.levenberg_marquardt": lambda: {"initial_radius": 0.5},
    "phihat.steepest_descent": lambda: {"search": phihat.bracketing()},
    "phihat.line_search": lambda: {"search": phihat.backtracking()},
    "phihat.training.with_averaged_params": lambda: {
        "optimizer": phihat.adam(0.1),
        "decay": 0.9,
    },
    "phihat.eval_params": lambda: {
        "opt_state": found().state.opt_state,
        "params": PARAMS,
    },
    "phihat.bracketing": lambda: SEARCH,
    "phihat.golden_section": lambda: SEARCH,
    "phihat.backtracking": lambda: {
        "max_step": 1.0,
        "shrink": 0.5,
        "sufficient_decrease": 1e-3,
        "max_iterations": 9,
        "trace": False,
    },
    "phihat.strong_wolfe": lambda: {
        "initial_step": 0.5,
        "sufficient_decrease": 1e-3,
        "curvature": 0.8,
        "max_iterations": 9,
        "trace": False,
    },
    # --------------------------------------------------------------------- fitting
    "phihat.fit": lambda: FIT,
    "phihat.train": lambda: FIT | {"time_limit": 100.0, "steps_per_chunk": 2},
    "phihat.fitting.init": lambda: {
        "params": PARAMS,
        "optimizer": phihat.adam(0.1),
        "key": KEY,
    },
    "phihat.fitting.make_step": lambda: {
        "loss_fn": LOSS,
        "optimizer": phihat.adam(0.1),
        "has_aux": False,
        "projection": BOX,
        "nonfinite": "stop",
    },
    "phihat.fitting.run": lambda: {
        "step_fn": fitting.make_step(LOSS, phihat.adam(0.1)),
        "state": found().state,
        "data": DATA,
        "num_steps": 3,
        "batch_size": 2,
        "record": ("loss",),
        "record_every": 1,
    },
    "phihat.raise_for_status": lambda: {"result": found().result},
    "phihat.clear_programs": lambda: {},
    "phihat.training.flight_recorder": lambda: {"num_states": 3},
    "phihat.training.replay": lambda: {
        "result": found().recorded,
        "loss_fn": LOSS,
        "data": DATA,
        "optimizer": phihat.gradient_descent(1e30),
    },
    "phihat.fit_curve": lambda: CURVE,
    "phihat.fit_curves": lambda: (
        CURVE | {"y": np.stack([Y, 2 * Y]), "mask": np.ones((2, 6), bool)}
    ),
    # --------------------------------------------------------------- losses, models
    **{
        f"phihat.losses.{name}": lambda: {
            "model": line,
            "reduction": "mean",
            "weights": np.linspace(1.0, 2.0, 6),
        }
        for name in ("least_squares", "binary_cross_entropy")
    },
    "phihat.losses.multiclass_cross_entropy": lambda: {
        "model": phihat.models.linear,
        "reduction": "mean",
    },
    "phihat.losses.gaussian_negative_log_likelihood": lambda: {
        "model": line,
        "sigma": 0.5,
        "reduction": "mean",
    },
    "phihat.losses.with_l2": lambda: {"loss_fn": LOSS, "weight": 0.1},
    "phihat.losses.residual_fn": lambda: {"loss_fn": LOSS},
    "phihat.losses.traits": lambda: {"loss_fn": LOSS},
    "phihat.losses.weights_of": lambda: {"loss_fn": LOSS, "data": DATA},
    "phihat.losses.check_batch": lambda: {"call": "check_batch"} | L,
    "phihat.models.gabor": lambda: {"params": PARAMS, "x": X, "envelope_width": 3.0},
    "phihat.models.linear": lambda: {"params": {"weight": 0.5, "bias": 0.1}, "x": X},
    "phihat.models.polynomial": lambda: {"params": PARAMS, "x": X},
    "phihat.models.mixed_precision": lambda: {
        "model": line,
        "compute_dtype": jnp.float16,
    },
    "phihat.models.init_multilayer_perceptron": lambda: {"key": KEY, "sizes": (2, 3)},
    "phihat.models.multilayer_perceptron": lambda: {
        "params": phihat.models.init_multilayer_perceptron(KEY, (2, 3, 1)),
        "x": np.ones((4, 2)),
        "activation": jnp.tanh,
    },
    # ------------------------------------------------------------ data and sampling
    **{
        f"phihat.datasets.{name}": dict
        for name in (
            "breast_cancer",
            "diabetes",
            "digits",
            "gabor",
            "linear_regression",
            "linnerud",
        )
    },
    "phihat.datasets.split": lambda: {"data": DATA, "key": KEY, "held_out": 0.5},
    "phihat.datasets.standardize": lambda: {"x": X, "reference": Y},
    "phihat.from_indices": lambda: {"indices": np.array([[0, 1], [2, 3]])},
    "phihat.full_batch": lambda: {"data": DATA},
    "phihat.minibatches": lambda: {
        "batch_size": 2,
        "drop_remainder": False,
        "shuffle": True,
    },
    "phihat.sampling.check_sampler": lambda: {
        "sampler": phihat.minibatches(2),
        "data": DATA,
    },
    "phihat.sampling.permute": lambda: {
        "key": KEY,
        "positions": np.arange(4),
        "num_rows": 9,
        "epoch": 0,
    },
    # ---------------------------------------------------------------- understanding
    **{
        f"phihat.{name}": lambda: L
        for name in (
            "eigenvalues",
            "hessian",
            "curvature.condition_number",
            "curvature.determinant",
            "curvature.log_determinant",
            "products.hessian_operator",
        )
    },
    **{
        f"phihat.{name}": lambda: L | {"num_iterations": 4, "dense_size": 8, "key": KEY}
        for name in ("sharpness", "curvature.extreme_eigenvalues")
    },
    **{
        f"phihat.{name}": lambda: L | {"num_probes": 4, "dense_size": 8, "key": KEY}
        for name in ("hessian_trace", "curvature.estimate_trace")
    },
    "phihat.spectral_density": lambda: (
        L
        | {
            "num_iterations": 4,
            "num_probes": 2,
            "num_points": 8,
            "width": 0.5,
            "dense_size": 8,
            "key": KEY,
        }
    ),
    "phihat.curvature.convexity_map": lambda: B | {"shape": (3, 3)},
    "phihat.curvature.labels": lambda: {"params": PARAMS},
    "phihat.curvature.sharpness_recorder": lambda: {
        "loss_fn": LOSS,
        "num_iterations": 4,
        "tolerance": 0.1,
    },
    "phihat.hvp": lambda: L | {"vector": np.ones(2)},
    "phihat.products.directional_curvature": lambda: L | {"direction": np.ones(2)},
    "phihat.products.bind": lambda: L | {"call": "bind"},
    "phihat.products.accumulated": lambda: {
        "loss_fn": LOSS,
        "batch_size": 2,
        "reduction": "sum",
    },
    "phihat.products.flatten": lambda: {"tree": {"a": PARAMS, "b": 1.0}},
    "phihat.products.gauss_newton_product": lambda: {
        "output_fn": lambda params, batch: line(params, batch[0]),
        "params": PARAMS,
        "vector": np.ones(2),
        "data": DATA,
    },
    "phihat.products.inner": lambda: {"left": PARAMS, "right": np.ones(2)},
    "phihat.classify_critical_point": lambda: {
        "loss_fn": saddle,
        "params": np.zeros(2),
        "tolerance": 0.1,
    },
    "phihat.find_critical_points": lambda: {
        "loss_fn": saddle,
        "box": BOX,
        "num_starts": 8,
        "num_iterations": 5,
        "max_rounds": 1,
        "tolerance": 1e-3,
        "key": KEY,
    },
    "phihat.covariance": lambda: {
        "loss_fn": LOSS,
        "result": found().solved,
        "data": DATA,
        "absolute_sigma": False,
    },
    "phihat.confidence_intervals": lambda: {
        "loss_fn": LOSS,
        "result": found().solved,
        "data": (X, Y + 0.1 * X**2),
        "level": 0.9,
        "method": "wald",
        "absolute_sigma": False,
    },
    # -------------------------------------------------------------------- convexity
    **{
        f"phihat.{name}": lambda: C
        for name in ("check_convexity", "prove_convexity", "refute_convexity")
    },
    **{
        f"phihat.{name}": lambda: {"loss_fn": parabola, "box": BOX, "budget": 2.0}
        for name in ("certify_convexity", "curvature_floor", "minimal_ridge")
    },
    "phihat.certified_radius": lambda: {
        "loss_fn": parabola,
        "params": PARAMS,
        "scale": 1.0,
        "budget": 2.0,
    },
    "phihat.convex_blocks": lambda: {"loss_fn": parabola, "params": PARAMS},
    "phihat.convexity.replay": lambda: {
        "report": found().report,
        "loss_fn": parabola,
        "params": PARAMS,
    },
    # ------------------------------------------------------------------ many fits
    "phihat.sweep": lambda: {
        "function": descend,
        "axes": {"rate": np.array([0.1, 0.2]), "decay": np.array([0.5])},
        "progress": False,
    },
    "phihat.sweeps.trainability": lambda: {
        "function": descend,
        "axes": {"rate": np.array([0.1, 0.2]), "decay": np.array([0.5])},
        "target": 0.1,
        "progress": False,
    },
    "phihat.sweeps.axes_of": lambda: {"tree": phihat.adam(np.array([0.1, 0.2]))},
    "phihat.sweeps.implicit_fit": lambda: (
        L | {"optimizer": phihat.adam(0.1), "num_steps": 5, "tolerance": 1e-3}
    ),
    "phihat.multistart": lambda: (
        B
        | {
            "optimizer": phihat.adam(0.1),
            "num_starts": 4,
            "method": "sobol",
            "num_steps": 5,
            "tolerance": 1e-3,
            "merge_distance": 1e-3,
            "key": KEY,
        }
    ),
    "phihat.basins": lambda: (
        B
        | {
            "optimizer": phihat.adam(0.1),
            "shape": (2, 2),
            "num_steps": 5,
            "tolerance": 1e-3,
            "merge_distance": 1e-3,
        }
    ),
    "phihat.learning_rate_range": lambda: (
        L
        | {
            "optimizer": phihat.gradient_descent,
            "rates": np.geomspace(1e-3, 1.0, 4),
            "num_steps": 10,
            "refinements": 1,
            "key": KEY,
        }
    ),
    "phihat.compare": lambda: (
        L
        | {
            "optimizers": {"adam": phihat.adam},
            "num_steps": 5,
            "num_trials": 2,
            "num_seeds": 2,
            "key": KEY,
        }
    ),
    # -------------------------------------------------------------- disk and devices
    "phihat.checkpoint.save": lambda: {
        "path": FOLDER / "saved",
        "tree": {"a": PARAMS},
        "overwrite": True,
        "notes": {"b": 1},
    },
    "phihat.checkpoint.restore": lambda: {"path": saved(), "like": {"a": PARAMS}},
    "phihat.sharding.initialize": dict,
    "phihat.sharding.make_mesh": lambda: {
        "axes": {"rows": 1},
        "devices": jax.devices()[:1],
    },
    "phihat.sharding.local_rows": lambda: {"num_rows": 8, "mesh": mesh()},
    "phihat.sharding.param_shardings": lambda: {
        "params": PARAMS,
        "mesh": mesh(),
        "axis": "rows",
        "min_entries": 1,
    },
    "phihat.sharding.replicate": lambda: {"tree": PARAMS, "mesh": mesh()},
    "phihat.sharding.shard_batch": lambda: {"batch": DATA, "mesh": mesh()},
    # ------------------------------------------------------------------ constructors
    "phihat.Box": lambda: {"low": [-1.0, -1.0], "high": [1.0, 1.0]},
    "phihat.Checkpoints": lambda: {
        "path": FOLDER / "run",
        "every": 10,
        "keep": 2,
        "resume_anyway": ("data",),
    },
    "phihat.training.Validation": lambda: {
        "data": DATA,
        "every": 2,
        "patience": 3,
        "mode": "min",
        "min_delta": 0.1,
    },
    # --------------------------------------------------------------------- problems
    "phihat.problems.gabor": lambda: {"envelope_width": 2.0},
    "phihat.problems.quadratic": lambda: {"condition": 10.0, "dim": 3},
    **{
        f"phihat.problems.{name}": lambda: {"dim": 4}
        for name in (
            "griewank",
            "levy",
            "rastrigin",
            "rosenbrock",
            "styblinski_tang",
            "variably_dimensioned",
        )
    },
    # --------------------------------------------------------------------- pictures
    "phihat.plot.evaluate_surface": lambda: B | {"shape": (3, 3)},
    "phihat.plot.evaluate_chord": lambda: {
        "loss_fn": parabola,
        "ends": (np.zeros(2), np.ones(2)),
        "num_points": 5,
    },
    "phihat.plot.evaluate_model": lambda: {
        "model": line,
        "params": PARAMS,
        "data": DATA,
        "num_points": 5,
    },
    "phihat.plot.make_axes": lambda: {"rows": 1, "columns": 2, "size": (3.0, 2.0)},
    "phihat.plot.make_styles": lambda: {"names": ["a", "b"]},
    "phihat.plot.loss_curves": lambda: {"results": found().result},
    "phihat.plot.prepare_curves": lambda: {"results": found().result},
    "phihat.plot.prepare_rounds": lambda: {"result": found().search},
    "phihat.plot.bracket": lambda: {"result": found().search},
    "phihat.plot.searched_function": lambda: {
        "fn": cubic,
        "result": found().search,
        "num_points": 5,
    },
    "phihat.plot.loss_surface": lambda: {"surface": found().surface, "levels": 4},
    "phihat.plot.fitted_model": lambda: {
        "model": line,
        "result": found().result,
        "data": DATA,
    },
    "phihat.plot.surface_and_model": lambda: {
        "surface": found().surface,
        "model": line,
        "result": found().result,
        "data": DATA,
    },
    "phihat.plot.sweep_map": lambda: {"found": found().sweep},
    "phihat.plot.sweep_slices": lambda: {"found": found().sweep, "num_shown": 2},
    "phihat.plot.trajectories": lambda: {"results": found().result},
    "phihat.plot.principal_plane": lambda: {
        "loss_fn": LOSS,
        "results": found().result,
        "data": DATA,
        "shape": (3, 3),
        "margin": 0.1,
    },
    "phihat.plot.random_plane": lambda: (
        L | {"key": KEY, "radius": 0.5, "shape": (3, 3)}
    ),
    "phihat.plot.broken_chord": lambda: {
        "chord": plot.evaluate_chord(cubic, (-1.0, 1.0), num_points=5)
    },
}


@once
def saved():
    path = FOLDER / "restored"
    checkpoint.save(path, {"a": PARAMS}, overwrite=True)
    return path


# ------------------------------------------------------------- what a call came to


def use_optimizer(optimizer):
    return phihat.fit(parabola, np.ones(2), optimizer, num_steps=3)


def use_loss(loss_fn):
    return loss_fn(PARAMS, (X, np.clip(Y, 0.0, 1.0)))


def use_sampler(sampler):
    drawn = sampler(DATA)
    return drawn.batch_fn(KEY, 0)


def use_class_loss(loss_fn):
    params = {"weight": np.ones((2, 3)), "bias": np.zeros(3)}
    return loss_fn(params, (np.ones((4, 2)), np.array([0, 1, 2, 1])))


OPTIMIZERS = {
    "adam",
    "gradient_descent",
    "momentum",
    "nesterov",
    "normalized_gradient",
    "newton",
    "newton_cg",
    "levenberg_marquardt",
    "steepest_descent",
    "line_search",
    "with_averaged_params",
}
SEARCHES = {"bracketing", "golden_section", "backtracking", "strong_wolfe"}
USES = {
    **dict.fromkeys(OPTIMIZERS - {"levenberg_marquardt"}, use_optimizer),
    "levenberg_marquardt": lambda optimizer: phihat.fit(
        LOSS, PARAMS, optimizer, DATA, num_steps=3
    ),
    **dict.fromkeys(
        SEARCHES, lambda search: use_optimizer(phihat.steepest_descent(search))
    ),
    "least_squares": use_loss,
    "binary_cross_entropy": use_loss,
    "gaussian_negative_log_likelihood": use_loss,
    "with_l2": lambda loss_fn: phihat.fit(
        loss_fn, PARAMS, phihat.adam(0.1), DATA, num_steps=2
    ),
    "accumulated": use_loss,
    "multiclass_cross_entropy": use_class_loss,
    "residual_fn": use_loss,
    "mixed_precision": lambda model: model(PARAMS, X),
    "from_indices": use_sampler,
    "minibatches": use_sampler,
    "full_batch": lambda drawn: drawn.batch_fn(KEY, 0),
    "make_step": lambda step: fitting.run(step, found().state, DATA, num_steps=2),
    "hessian_operator": lambda product: product(np.ones(2)),
    "bind": lambda fn: fn(np.ones(2)),
    "flight_recorder": lambda recorder: phihat.fit(
        LOSS, PARAMS, phihat.adam(0.1), DATA, num_steps=3, record={"r": recorder}
    ),
    "sharpness_recorder": lambda recorder: phihat.fit(
        LOSS, PARAMS, phihat.adam(0.1), DATA, num_steps=3, record={"s": recorder}
    ),
    "quadratic": lambda problem: problem.loss_fn(problem.start),
    "Validation": lambda held_out: training.train(
        LOSS, PARAMS, phihat.adam(0.1), DATA, num_steps=4, validation=held_out
    ),
    "save": lambda _: checkpoint.restore(FOLDER / "saved"),
}
"""How to see what a function returned, where the thing itself does not show it."""

NOT_CALLED = {
    "phihat.sharding.initialize": "joins other machines",
    "phihat.clear_programs": "takes no argument",
    "phihat.plot.animate_bracket": "draws for seconds; its arguments are `bracket`'s",
    "phihat.plot.animate_descent": "draws for seconds",
    "phihat.plot.basins": "takes one result, as `bracket` does",
    "phihat.plot.comparison": "takes one result, as `bracket` does",
    "phihat.plot.convexity_map": "takes one result, as `bracket` does",
    "phihat.plot.critical_points": "takes one result, as `bracket` does",
    "phihat.plot.learning_rate_range": "takes one result, as `bracket` does",
    "phihat.plot.sharpness": "takes one result, as `bracket` does",
    "phihat.plot.spectral_density": "takes one result, as `bracket` does",
    "phihat.plot.trainability": "takes one result, as `bracket` does",
}
"""Public functions without a row, and why."""


def public_functions():
    """Return all public functions, each once, by the shortest of its names."""
    modules = {"phihat": phihat}
    for name in phihat.__all__:
        if inspect.ismodule(getattr(phihat, name)):
            modules[f"phihat.{name}"] = getattr(phihat, name)
    functions = {}
    for home, module in modules.items():
        for name in module.__all__:
            member = getattr(module, name)
            if inspect.isfunction(member) and member not in functions.values():
                functions[f"{home}.{name}"] = member
    classes = ("phihat.Box", "phihat.Checkpoints", "phihat.training.Validation")
    for name in classes:
        *_, home, last = name.split(".")
        functions[name] = getattr(modules.get(f"phihat.{home}", phihat), last)
    return functions

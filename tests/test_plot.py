"""Pictures hold what they claim to show: levels, paths, labels, in the artists."""

import dataclasses
import functools
import gc
import io
import runpy
import sys
import threading
import types
import weakref
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from jax.tree_util import Partial
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import phihat
from phihat import Box, Status, critical_points, plot, sweeps
from phihat.curvature import ConvexityMap, SpectralDensity
from phihat.results import FitResult
from phihat.sweeps import (
    Basins,
    Comparison,
    Contender,
    LearningRateRange,
    Optima,
    Trainability,
)
from tests.cases import REFERENCE

EPS = np.finfo(float).eps
RATE, EIGENVALUES = 0.25, np.array([1.0, 2.0])
UNIT = Box([-1.0, -1.0], [1.0, 1.0])
LINE = Partial(phihat.models.polynomial)
POINTS = (jnp.asarray([0.0, 1.0, 2.0]), jnp.asarray([1.0, 1.5, 3.0]))


def bowl(params):
    return 0.5 * params @ (jnp.asarray(EIGENVALUES, params.dtype) * params)


def holed(params):
    """Not finite left of zero."""
    return jnp.sum(jnp.sqrt(params))


def valley(s):
    return (s - 0.3) ** 2


@functools.cache
def descent(num_steps: int = 8, tolerance: float | None = None, every: int = 1):
    return phihat.fit(
        bowl,
        jnp.ones(2),
        phihat.gradient_descent(RATE),
        num_steps=num_steps,
        tolerance=tolerance,
        record=("loss", "params"),
        record_every=every,
    )


@functools.cache
def lanes() -> FitResult:
    """Three rates: one converges, one descends on, one diverges until it fails."""

    def run(rate):
        return phihat.fit(
            lambda x: x**4,
            1.0,
            phihat.gradient_descent(rate),
            num_steps=9,
            tolerance=0.02,
            record=("loss", "params"),
        )

    return jax.vmap(run)(jnp.asarray([0.2, 0.01, 40.0]))


def exact_path(steps) -> np.ndarray:
    """Gradient descent on a bowl is (1 - a l)^t."""
    return (1.0 - RATE * EIGENVALUES) ** np.asarray(steps)[:, None]


@functools.cache
def bowl_surface():
    return plot.evaluate_surface(bowl, UNIT, shape=(21, 11))


@functools.cache
def search(name: str = "bracketing"):
    options = {} if name == "backtracking" else {"max_step": 1.0}
    slope = -0.6 if name == "backtracking" else None
    return getattr(phihat, name)(trace=True, **options)(valley, slope)


@functools.cache
def grid_sweep():
    axes = {"rate": np.geomspace(0.01, 1.0, 5), "decay": np.array([0.0, 0.5, 0.9])}
    return phihat.sweep(_grid_loss, axes)


def _grid_loss(rate, decay):
    return {"loss": jnp.log(rate - 0.005 - 0.2 * decay) ** 2 + decay}


def trainability() -> Trainability:
    outcome = np.arange(15).reshape(5, 3) % 3
    fastness = np.where(outcome == 2, np.inf, 0.1 + outcome)
    return Trainability(outcome, fastness, fastness, grid_sweep())


def rates() -> LearningRateRange:
    values = np.geomspace(1e-3, 10.0, 9)
    final = np.where(values < 1.0, 1.0 / (1.0 + values), np.inf)
    loss = np.ones((9, 4))
    return LearningRateRange(values, loss, final, values < 1.0, 0.3, 0.1, "because")


def comparison() -> Comparison:
    loss = np.geomspace(8.0, 0.1, 6) * np.linspace(0.5, 1.5, 5)[:, None]
    one = Contender({"learning_rate": 0.1}, loss[:, -1], loss, 6.0, 0.0, 1e-3, {}, loss)
    other = one._replace(loss=2.0 * loss, num_values=24.0)
    return Comparison({"adam": one, "search": other})


def points_found() -> critical_points.CriticalPoints:
    places = np.array([[0.5, 0.5], [-0.5, 0.0], [0.0, -0.5], [0.2, 0.2]])
    fields = ("loss", "index", "grad_norm", "grad_noise", "distance")
    fields += ("eigenvalue_tolerance", "kink", "num_merged")
    zeros = dict.fromkeys(fields, np.zeros(4))
    return critical_points.CriticalPoints(
        params=places,
        kind=np.array([0, 2, 1, 0]),
        eigenvalues=np.zeros((4, 2)),
        winding=None,
        **zeros,
    )


def basins_found() -> Basins:
    label = np.array([[0, 0, 1], [0, 1, 2], [-1, 3, 1]])
    none: Any = None
    optima = Optima(
        params=np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 1.0], [0.0, 1.0]]),
        loss=np.array([0.1, 0.2, 0.3, 0.4]),
        share=np.array([3, 3, 1, 1]) / 9,
        kind=None,
        label=label.ravel(),
        starts=np.zeros((9, 2)),
        ends=none,
    )
    ticks = (np.linspace(0.0, 1.0, 3), np.linspace(0.0, 1.0, 3))
    return Basins(ticks, label, label, label, label, optima)


def map_found() -> ConvexityMap:
    """Four quadrants: both eigenvalues positive, both negative, and one of each."""
    low = np.array([[1.0, -2.0], [-1.0, -3.0]])
    high = np.array([[2.0, 1.0], [3.0, -1.0]])
    ticks = np.array([0.0, 1.0])
    return ConvexityMap(ticks, ticks, low * high, low, high)


def density() -> SpectralDensity:
    grid = np.linspace(-1.0, 3.0, 101)
    values = np.exp(-(grid**2) * 8) + 1e-12
    nodes = np.array([[-0.1, 2.0]])
    return SpectralDensity(grid, values, 0.1 * values, nodes, nodes, np.array(0.1))


@functools.cache
def sharp() -> FitResult:
    record = {"sharpness": _sharpness, "learning_rate": _rate, "loss": _rate}
    optimizer = phihat.gradient_descent(RATE)
    return phihat.fit(bowl, jnp.ones(2), optimizer, num_steps=4, record=record)


def _sharpness(state, info):
    return 2.0 + 0.0 * info.loss


def _rate(state, info):
    return info.learning_rate


GALLERY = {
    "basins": lambda axes: plot.basins(basins_found(), axes=axes),
    "bracket": lambda axes: plot.bracket(search(), axes=axes),
    "bracket, one trial": lambda axes: plot.bracket(search("backtracking"), axes=axes),
    "broken_chord": lambda axes: plot.broken_chord(
        plot.evaluate_chord(bowl, (jnp.zeros(2), jnp.ones(2))), axes=axes
    ),
    "comparison": lambda axes: plot.comparison(comparison(), axes=axes),
    "convexity_map": lambda axes: plot.convexity_map(map_found(), axes=axes),
    "critical_points": lambda axes: plot.critical_points(points_found(), axes=axes),
    "fitted_model": lambda axes: plot.fitted_model(LINE, descent(), POINTS, axes=axes),
    "learning_rate_range": lambda axes: plot.learning_rate_range(rates(), axes=axes),
    "loss_curves": lambda axes: plot.loss_curves(descent(), axes=axes),
    "loss_curves, lanes": lambda axes: plot.loss_curves(lanes(), axes=axes),
    "loss_surface": lambda axes: plot.loss_surface(
        bowl_surface(), {"descent": descent()}, axes=axes
    ),
    "searched_function": lambda axes: plot.searched_function(
        valley, search(), axes=axes
    ),
    "sharpness": lambda axes: plot.sharpness(sharp(), axes=axes),
    "spectral_density": lambda axes: plot.spectral_density(density(), axes=axes),
    "surface_and_model": lambda axes: plot.surface_and_model(
        bowl_surface(), LINE, descent(), POINTS, axes=axes
    ),
    "sweep_map": lambda axes: plot.sweep_map(grid_sweep(), "loss", axes=axes),
    "sweep_slices": lambda axes: plot.sweep_slices(grid_sweep(), "loss", axes=axes),
    "trainability": lambda axes: plot.trainability(trainability(), axes=axes),
}
"""Every picture, of data that need no long fit."""

PAIRS = ("convexity_map", "surface_and_model")


def labels(axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def line(axes, label: str):
    return dict(zip(labels(axes), axes.get_legend_handles_labels()[0], strict=True))[
        label
    ]


def xy(artist) -> np.ndarray:
    return np.column_stack([np.asarray(part, float) for part in artist.get_data()])


# -------------------------------------------------------------------- every picture


def test_one_diverged_lane_does_not_take_all_colours():
    axes = {"rate": np.arange(1.0, 5.0), "decay": np.arange(3.0)}
    lanes = lambda rate, decay: jnp.where(rate * decay == 8.0, 1e9, rate + decay)
    found = phihat.sweep(lanes, axes)
    image = plot.sweep_map(found).collections[0]
    assert image.get_clim() == (1.0, 5.0)
    assert image.norm.extend == "max"
    assert plot.sweep_map(found, vmax=3.0).collections[0].get_clim() == (1.0, 3.0)
    plain = phihat.sweep(lambda rate, decay: rate + decay, axes)
    assert plot.sweep_map(plain).collections[0].get_clim() == (1.0, 6.0)


def test_what_was_called_is_named_where_a_value_must_be_chosen():
    axes = {"rate": np.arange(1.0, 5.0), "decay": np.arange(3.0)}
    found = phihat.sweep(lambda rate, decay: (rate, decay), axes)
    calls = {
        "best": found.best,
        "plot": found.plot,
        "scores": found.scores,
        "sweep_map": functools.partial(plot.sweep_map, found),
        "sweep_slices": functools.partial(plot.sweep_slices, found),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"^{name}: name the value to compare"):
            call()


def test_losses_of_minibatches_are_called_so():
    x, y = phihat.datasets.linear_regression()
    fit = functools.partial(
        phihat.fit,
        phihat.losses.least_squares(phihat.models.linear),
        {"weight": 0.0, "bias": 0.0},
        phihat.adam(0.1),
        (x, y),
        num_steps=4,
        key=jax.random.key(0),
    )
    drawn, whole = fit(batch_size=3), fit()
    trained = phihat.train(*fit.args, **fit.keywords, batch_size=3)
    note = "on the last minibatch; on all data: loss_fn(result.params, data)"
    told = [note in repr(result) for result in (drawn, whole, trained)]
    assert told == [True, False, True]
    axes = plot.loss_curves({"SGD": drawn, "all": whole})
    shown = axes.get_legend_handles_labels()[1]
    assert shown == ["SGD (minibatch losses)", "all"]


def test_the_gallery_is_complete():
    animations_and_helpers = {"animate_bracket", "animate_descent", "make_axes"}
    drawing = {
        name
        for name in plot.__all__
        if "axes" in getattr(getattr(plot, name), "__annotations__", {})
    }
    assert drawing | animations_and_helpers == animations_and_helpers | {
        name.split(",")[0] for name in GALLERY
    }


@pytest.mark.parametrize("name", GALLERY)
def test_pictures_are_legible_and_leave_no_trace(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    before = settings()
    drawn = GALLERY[name](None)
    several = drawn if isinstance(drawn, tuple) else (drawn,)
    assert len(several) == 1 + (name in PAIRS)
    figure = several[0].get_figure(root=True)
    figure.canvas.draw()
    assert settings() == before
    for axes in several:
        assert axes.get_title()
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    for text in figure.findobj(Text):
        assert text.get_fontsize() >= 8 or not text.get_text(), text
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 0, box


def settings() -> dict:
    """Return matplotlib's; to read the backend would be to choose one, by pyplot."""
    names = set(matplotlib.rcParams) - {"backend"}
    return {name: matplotlib.rcParams[name] for name in names}


@pytest.mark.parametrize("name", GALLERY)
def test_pictures_are_drawn_on_the_axes_given(name):
    figure = Figure(figsize=(16, 9))
    given = figure.subplots(1, 1 + (name in PAIRS))
    drawn = GALLERY[name](given)
    assert list(np.ravel(drawn)) == list(np.ravel(given))
    # A slide of 16 by 9 inches is read from the back of a room.
    assert all(axes.title.get_fontsize() >= 18 for axes in np.ravel(drawn))


@pytest.mark.parametrize("name", GALLERY)
def test_without_matplotlib_pictures_name_the_cure(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "phihat\[plot\]"'):
        GALLERY[name](None)


@pytest.mark.parametrize("name", GALLERY)
def test_pictures_refuse_what_is_no_axes(name):
    with pytest.raises(TypeError, match=r"`axes` must be .* matplotlib Axes"):
        GALLERY[name](Figure())


def test_figures_are_freed():
    axes = plot.loss_curves(descent())
    alive = weakref.ref(axes.get_figure(root=True))
    del axes
    gc.collect()
    assert alive() is None


def test_notebooks_show_axes_and_figures():
    axes = plot.loss_curves(descent())
    for shown in (axes, axes.get_figure(root=True), plot.make_axes(1, 2)[0, 1]):
        with Image.open(io.BytesIO(shown._repr_png_())) as picture:
            assert picture.format == "PNG"


def test_pictures_may_be_drawn_from_threads():
    sizes = []

    def draw():
        axes = plot.loss_surface(bowl_surface(), {"descent": descent()})
        canvas = axes.get_figure(root=True).canvas
        canvas.draw()
        sizes.append(bytes(canvas.buffer_rgba()))

    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 3
    assert len(set(sizes)) == 1


@pytest.mark.parametrize(
    ("result", "title"),
    [
        (descent, "Loss during the fit"),
        (search, "Line search: 15 rounds, not converged"),
        (grid_sweep, "loss over rate and decay\n(6 of 15 not finite: blank)"),
        (trainability, "Where fits train: 5 of 15 converged"),
        (
            rates,
            "Take a learning rate of 0.1;\n"
            "up to 0.3 the loss ends no higher than it began",
        ),
        (comparison, "Optimizers compared, each as tuned"),
        (points_found, "Critical points"),
        (basins_found, "Which minimum each start reaches: 4 in all"),
        (map_found, "The determinant test: det H > 0"),
        (density, "Eigenvalues of the Hessian: -0.1 to 2"),
    ],
)
def test_results_plot_themselves(result, title):
    drawn = result().plot()
    axes = drawn[0] if isinstance(drawn, tuple) else drawn
    assert axes.get_title() == title


def test_styles_differ():
    styles = plot.make_styles(map(str, range(280)))
    assert len(set(styles.values())) == 280
    assert len({style.color for style in styles.values()}) == 7
    assert plot.make_styles(["b", "a"])["b"] == styles["0"]


# -------------------------------------------------------------------- paths and curves


@pytest.mark.parametrize("every", [1, 3])
def test_trajectories_are_the_steps_on_record_and_the_end(every):
    (path,) = plot.trajectories(descent(every=every))[""]
    steps = [*range(0, 8, every), 8]
    np.testing.assert_allclose(path, exact_path(steps), rtol=8 * EPS)


def test_trajectories_end_where_the_fit_stopped():
    result = descent(num_steps=64, tolerance=0.1)
    stop = int(result.num_steps)
    assert 0 < stop < 64
    (path,) = plot.trajectories({"gd": result})["gd"]
    np.testing.assert_allclose(path, exact_path(range(stop + 1)), rtol=64 * EPS)


def test_trajectories_of_lanes_have_their_own_lengths():
    paths = plot.trajectories(lanes())[""]
    assert [len(path) - 1 for path in paths] == list(np.asarray(lanes().num_steps))
    assert len({len(path) for path in paths}) == 3


def test_trajectories_of_trees_follow_the_leaves():
    start = {"b": jnp.ones((2, 1)), "a": 3.0}
    loss_fn = lambda p: p["a"] ** 2 + jnp.sum(p["b"] ** 2)
    optimizer = phihat.gradient_descent(0.25)
    result = phihat.fit(loss_fn, start, optimizer, num_steps=1, record="params")
    np.testing.assert_array_equal(
        plot.trajectories([result])["fit 1"][0], [[3.0, 1.0, 1.0], [1.5, 0.5, 0.5]]
    )


def test_a_curve_is_what_was_recorded():
    axes = plot.loss_curves({"gd": descent()})
    (curve,) = axes.lines
    assert labels(axes) == ["gd"]
    losses = 0.5 * (exact_path(range(8)) ** 2 @ EIGENVALUES)
    np.testing.assert_allclose(
        xy(curve), np.column_stack([range(8), losses]), rtol=9 * EPS
    )
    assert axes.get_yscale() == "log"
    assert plot.loss_curves(descent(), yscale="linear").get_yscale() == "linear"


def test_losses_that_are_not_finite_are_gaps_and_counted():
    losses = np.array([4.0, np.inf, 2.0, np.nan, 1.0])
    axes = plot.loss_curves({"mine": losses})
    assert labels(axes) == ["mine (2 not finite)"]
    shown = axes.lines[0].get_ydata()
    np.testing.assert_array_equal(np.isnan(shown), [False, True, False, True, False])


def test_a_failed_fit_ends_in_one_gap():
    result = jax.tree.map(lambda leaf: leaf[2], lanes())
    assert int(result.status) >= Status.NONFINITE_LOSS
    curve = plot.prepare_curves(result)[""]
    assert curve.num_nonfinite == 1
    assert len(curve.x) == int(result.num_steps) + 1
    assert np.isnan(curve.middle[-1])
    assert np.isfinite(curve.middle[:-1]).all()


def test_a_band_holds_the_lanes():
    curve = plot.prepare_curves(lanes(), band=(0.0, 1.0))[""]
    losses = np.asarray(lanes().history["loss"])
    converged, running, failed = losses
    stop = int(lanes().num_steps[0])
    # What converged counts as it ended, what failed as infinite.
    held = np.append(converged[:stop], np.full(9 - stop, converged[stop - 1]))
    dead = int(lanes().num_steps[2])
    np.testing.assert_array_equal(curve.low, np.minimum(held, running))
    np.testing.assert_array_equal(curve.high[:dead], failed[:dead])
    assert np.isnan(curve.high[dead:]).all()
    np.testing.assert_array_equal(curve.middle[dead:], running[dead:])
    assert (curve.num_lanes, curve.num_nonfinite) == (3, 1)
    axes = plot.loss_curves({"rates": lanes()})
    assert labels(axes) == ["rates (median of 3 fits, 1 not finite)"]
    assert len(axes.collections) == 1


def test_curves_against_what_a_step_costs():
    curves = plot.prepare_curves(
        {"gd": descent(), "mine": np.ones(3)},
        against="seconds",
        per_step={"gd": 0.5, "mine": 2.0},
    )
    np.testing.assert_array_equal(curves["gd"].x, 0.5 * np.arange(8))
    np.testing.assert_array_equal(curves["mine"].x, [0.0, 2.0, 4.0])
    axes = plot.loss_curves(sharp(), against="learning_rate")
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [RATE] * 4)


def test_a_sweep_of_fits_is_a_band():
    def run(rate):
        return phihat.fit(bowl, jnp.ones(2), phihat.adam(rate), num_steps=3)

    found = phihat.sweep(run, {"rate": np.array([0.1, 0.2])})
    assert plot.prepare_curves(found)[""].num_lanes == 2


# -------------------------------------------------------------------- surfaces


def test_a_surface_is_the_loss_on_its_grid():
    surface = bowl_surface()
    a, b = np.meshgrid(surface.first, surface.second, indexing="ij")
    np.testing.assert_allclose(
        surface.values, 0.5 * a**2 + b**2, rtol=8 * EPS, atol=8 * EPS
    )
    axes = plot.loss_surface(surface, levels=[0.25, 0.5])
    np.testing.assert_array_equal(axes.images[0].get_array(), surface.values.T)
    (contours,) = axes.collections
    assert list(contours.levels) == [0.25, 0.5]
    # Each contour lies where the loss is its level, to the grid's spacing squared.
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        losses = 0.5 * path.vertices[:, 0] ** 2 + path.vertices[:, 1] ** 2
        np.testing.assert_allclose(losses, level, atol=0.02)
    assert axes.get_xlim() == (-1.0, 1.0)
    assert (axes.get_xlabel(), axes.get_ylabel()) == (r"$\phi_{0}$", r"$\phi_{1}$")


def test_paths_lie_on_the_surface():
    axes = plot.loss_surface(bowl_surface(), {"gd": descent(), "mine": np.eye(2)})
    assert labels(axes) == ["gd", "mine", "2 starts"]
    path = exact_path(range(9))
    shown = [xy(one) for one in axes.lines]
    assert sum(np.shape(one) == (9, 2) and np.allclose(one, path) for one in shown) == 2
    np.testing.assert_allclose(xy(line(axes, "gd")), path[-1:])
    np.testing.assert_array_equal(xy(line(axes, "mine")), [[0.0, 1.0]])
    markers = {line(axes, name).get_marker() for name in ("gd", "mine")}
    assert len(markers) == 2


def test_ends_in_one_point_do_not_hide_one_another():
    paths = {name: np.linspace(np.ones(2), np.zeros(2), 3) for name in "abc"}
    axes = plot.loss_surface(bowl_surface(), paths)
    ends = [line(axes, name) for name in "abc"]
    assert len({end.get_marker() for end in ends}) == 3
    assert len({end.get_markersize() for end in ends}) == 1
    assert {end.get_markerfacecolor() for end in ends} == {"none"}


def test_many_lanes_share_a_label():
    paths = np.stack([np.linspace(start, 0.0, 4) for start in np.eye(2)])
    axes = plot.loss_surface(bowl_surface(), {"many": paths})
    assert labels(axes) == ["many (2 fits)", "2 starts"]
    np.testing.assert_array_equal(xy(line(axes, "many (2 fits)")), np.zeros((2, 2)))
    gap = np.full((1, 2), np.nan)
    joined = np.concatenate([paths[0], gap, paths[1]])
    np.testing.assert_array_equal(xy(axes.lines[0]), joined)


def test_a_hole_in_a_surface_is_blank_and_counted():
    surface = plot.evaluate_surface(holed, UNIT, shape=(5, 5))
    axes = plot.loss_surface(surface)
    assert axes.get_title() == "Loss L[φ] (16 of 25 points not finite)"
    mask = np.ma.getmaskarray(axes.images[0].get_array())
    np.testing.assert_array_equal(mask, ~np.isfinite(surface.values.T))
    everywhere = plot.evaluate_surface(lambda p: p[0] * jnp.nan, UNIT, shape=(3, 3))
    title = plot.loss_surface(everywhere).get_title()
    assert title == "Loss L[φ] (9 of 9 points not finite)"


def test_a_flat_loss_has_no_contours():
    surface = plot.evaluate_surface(lambda p: 0.0 * p[0], UNIT, shape=(3, 3))
    assert len(plot.loss_surface(surface).collections) == 0


def test_in_perspective_paths_lie_at_the_height_of_the_loss():
    axes = plot.loss_surface(bowl_surface(), {"gd": descent()}, projection="3d")
    x, y, z = axes.lines[0].get_data_3d()
    np.testing.assert_allclose(z, 0.5 * x**2 + y**2, atol=0.02)
    assert axes.get_zlabel() == "loss L[φ]"
    np.testing.assert_allclose(axes.get_xlim3d(), (-1.0, 1.0), rtol=0.1)


def test_trees_give_the_axes_their_names():
    box = Box({"w": [0.0], "b": -1.0}, {"w": [1.0], "b": 1.0})
    surface = plot.evaluate_surface(lambda p: p["b"] + p["w"][0], box, shape=(2, 2))
    assert surface.names == ("b", "w[0]")


# -------------------------------------------------------------------- planes


def embedded_spiral() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A path in a plane of ten dimensions: the path, its coordinates, the frame."""
    frame = np.linalg.qr(np.random.RandomState(0).normal(size=(10, 2)))[0].T
    t = np.linspace(0.0, 6.0, 40)
    inner = np.stack([3.0 * np.cos(t), np.sin(t)], axis=1) / (1.0 + t)[:, None]
    return inner @ frame + 0.5, inner, frame


def as_result(path: np.ndarray) -> FitResult:
    """A fit of the shapes that fits have, with this path on record."""
    steps = len(path) - 1
    result = phihat.fit(
        _tenfold, jnp.zeros(10), phihat.adam(0.1), num_steps=steps, record="params"
    )
    result.history["params"] = path
    return result


def _tenfold(params):
    return jnp.sum(jnp.arange(1.0, 11.0) * params**2)


def test_the_plane_of_a_flat_path_holds_all_of_it():
    path, inner, _ = embedded_spiral()
    result = as_result(path)
    surface = plot.principal_plane(_tenfold, result, shape=(4, 3))
    assert "shows 100.0 % of the variance of the path" in surface.note
    assert surface.distances(path).max() < 64 * EPS
    # Distances between points are those in the plane.
    seen = surface.coordinates(path)
    np.testing.assert_allclose(
        np.linalg.norm(seen - seen[0], axis=1),
        np.linalg.norm(inner - inner[0], axis=1),
        atol=64 * EPS,
    )
    # The surface is the loss at the params that its coordinates stand for.
    a, b = surface.first[1], surface.second[2]
    params = surface.origin + a * surface.directions[0] + b * surface.directions[1]
    np.testing.assert_allclose(surface.values[1, 2], _tenfold(params), rtol=64 * EPS)
    axes = plot.loss_surface(surface, {"spiral": result})
    np.testing.assert_allclose(xy(axes.lines[0]), seen)
    assert axes.get_xlabel().startswith("principal direction 1")


def test_the_shares_are_those_of_the_covariance():
    path = np.random.RandomState(1).normal(size=(30, 10)) * np.arange(1.0, 11.0)
    surface = plot.principal_plane(_tenfold, as_result(path), shape=(2, 2))
    variances = np.linalg.eigvalsh(np.cov(path.T))[::-1]
    share = 100 * variances[:2].sum() / variances.sum()
    assert f"shows {share:.1f} % of the variance" in surface.note
    away = surface.distances(path).max()
    assert f"at most {away:.3g} away" in surface.note


def test_a_random_plane_is_normalised_by_filters():
    params = {"w": jnp.arange(6.0).reshape(3, 2), "b": jnp.ones(2)}
    loss_fn = lambda p: jnp.sum(p["w"] ** 2) + jnp.sum(p["b"])
    surface = plot.random_plane(loss_fn, params, shape=(3, 3), radius=0.5)
    assert surface.values[1, 1] == loss_fn(params)
    assert list(surface.first) == [-0.5, 0.0, 0.5]
    for direction in surface.directions:
        bias, weight = direction[:2], direction[2:].reshape(3, 2)
        np.testing.assert_array_equal(bias, 0.0)
        np.testing.assert_allclose(
            np.linalg.norm(weight, axis=0),
            np.linalg.norm(params["w"], axis=0),
            rtol=8 * EPS,
        )
    only_vectors = plot.random_plane(lambda p: p @ p, jnp.ones(5), shape=(3, 3))
    norms = np.linalg.norm(only_vectors.directions, axis=1)
    np.testing.assert_allclose(norms, np.sqrt(5.0), rtol=8 * EPS)


# -------------------------------------------------------------------- models, searches


def test_a_model_is_drawn_at_the_steps_asked_for():
    axes = plot.fitted_model(LINE, descent(), POINTS, rows=(0, 3, -1))
    assert labels(axes) == ["step 0", "step 3", "step 8", "data"]
    np.testing.assert_array_equal(xy(line(axes, "data")), np.column_stack(POINTS))
    for step in (0, 3, 8):
        x, y = xy(line(axes, f"step {step}")).T
        intercept, slope = exact_path([step])[0]
        np.testing.assert_allclose(y, intercept + slope * x, rtol=16 * EPS)
    points = [jnp.zeros(2), jnp.ones(2)]
    axes = plot.fitted_model(LINE, points, POINTS, names=["zero", "one"])
    np.testing.assert_array_equal(line(axes, "zero").get_ydata(), 0.0)
    assert labels(axes) == ["zero", "one", "data"]
    column = (POINTS[0][:, None], POINTS[1])
    flat = lambda params, x: LINE(params, x)[:, 0]
    axes = plot.fitted_model(flat, jnp.ones(2), column)
    assert labels(axes) == ["model", "data"]


def test_beside_the_surface_the_steps_are_marked():
    left, right = plot.surface_and_model(
        bowl_surface(), LINE, descent(), POINTS, rows=(0, 8)
    )
    np.testing.assert_allclose(left.collections[-1].get_offsets(), exact_path([0, 8]))
    assert labels(right) == ["step 0", "step 8", "data"]


def deck_search(s):
    wide = 0.5 * jnp.exp(-((s - 0.65) ** 2) / 0.1)
    return 1.0 - wide - 0.45 * jnp.exp(-((s - 0.35) ** 2) / 0.02)


def test_the_bracket_is_that_of_the_deck():
    known = REFERENCE["line_search_6_1"]
    options = {"max_step": 1.0, "max_iterations": 10, "tolerance": 1e-4}
    result = phihat.bracketing(trace=True, **options)(deck_search)
    axes = plot.bracket(result)
    assert labels(axes)[:4] == ["a", "b", "c", "d"]
    assert axes.get_title() == "Line search: 10 rounds, not converged"
    for name in "abcd":
        shown = xy(line(axes, name))
        np.testing.assert_allclose(shown[:, 0], [row[name] for row in known["trace"]])
        np.testing.assert_array_equal(shown[:, 1], np.arange(1, 11))
    assert axes.yaxis_inverted()
    found = f"found: s = {known['result']:.4g}"
    np.testing.assert_allclose(line(axes, found).get_xdata(), known["result"])
    axes = plot.searched_function(deck_search, result)
    np.testing.assert_allclose(
        xy(line(axes, found)), [[known["result"], known["loss"]]]
    )
    first = [known["trace"][0][f"L{name}"] for name in "abcd"]
    np.testing.assert_allclose(line(axes, "round 1").get_ydata(), first)


# -------------------------------------------------------------------- regions


def test_the_convexity_map_shows_where_the_determinant_misleads():
    left, right = plot.convexity_map(map_found())
    # Classes in the order of the legend, second param upwards.
    np.testing.assert_array_equal(left.images[0].get_array(), [[0, 1], [1, 0]])
    np.testing.assert_array_equal(right.images[0].get_array(), [[0, 1], [1, 2]])
    assert labels(left) == ["det H > 0 (50.0%)", "det H ≤ 0 (50.0%)"]
    assert labels(right) == [
        "no eigenvalue < 0 (25.0%)",
        "one < 0 (50.0%)",
        "both < 0, det H > 0 (25.0%)",
    ]


def test_critical_points_are_marked_by_kind_on_a_surface():
    axes = plot.loss_surface(bowl_surface(), {"gd": descent()})
    assert plot.critical_points(points_found(), axes=axes) is axes
    assert labels(axes) == ["gd", "start", "2 minima", "1 maximum", "1 saddle"]
    np.testing.assert_array_equal(xy(line(axes, "2 minima")), [[0.5, 0.5], [0.2, 0.2]])
    np.testing.assert_array_equal(xy(line(axes, "1 saddle")), [[-0.5, 0.0]])
    assert axes.get_title() == "Loss L[φ] and the path of the fit"


def test_the_title_of_a_surface_tells_points_from_paths():
    point, path = np.zeros((1, 2)), np.zeros((3, 2))
    titles = [
        plot.loss_surface(bowl_surface(), shown).get_title()
        for shown in (
            None,
            {"a": point},
            {"a": point, "b": point},
            {"a": path, "b": path},
            {"a": path, "b": point},
        )
    ]
    assert titles == [
        "Loss L[φ]",
        "Loss L[φ] and one point",
        "Loss L[φ] and 2 points",
        "Loss L[φ] and the paths of 2 fits",
        "Loss L[φ] and the path of the fit and one point",
    ]


def test_basins_show_the_best_and_count_the_rest():
    axes = plot.basins(basins_found(), num_shown=2)
    assert labels(axes) == [
        "loss 0.1: 33%",
        "loss 0.2: 33%",
        "2 more: 22%",
        "not converged: 11%",
    ]
    np.testing.assert_array_equal(
        axes.images[0].get_array().T, [[0, 0, 1], [0, 1, 2], [3, 2, 1]]
    )
    np.testing.assert_array_equal(xy(axes.lines[0]), [[0.0, 0.0], [1.0, 1.0]])


# -------------------------------------------------------------------- sweeps


def test_a_sweep_map_shows_the_values_and_the_smallest():
    scores = grid_sweep().scores("loss")
    axes = plot.sweep_map(grid_sweep(), "loss")
    shown = axes.collections[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), ~np.isfinite(scores).T)
    np.testing.assert_array_equal(shown.compressed(), scores.T[np.isfinite(scores).T])
    best = grid_sweep().best("loss")
    np.testing.assert_array_equal(
        xy(axes.lines[0]), [[best.axes["rate"], best.axes["decay"]]]
    )
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_xlim()[0] < 0.01 < 1.0 < axes.get_xlim()[1]


def test_slices_are_rows_of_the_sweep():
    axes = plot.sweep_slices(grid_sweep(), "loss", along="rate")
    scores = grid_sweep().scores("loss")
    assert labels(axes) == [
        "decay = 0",
        "decay = 0.5 (3 not finite)",
        "decay = 0.9 (3 not finite)",
    ]
    for k, shown in enumerate(axes.lines):
        finite = np.isfinite(scores[:, k])
        np.testing.assert_array_equal(shown.get_ydata()[finite], scores[finite, k])
        assert np.isnan(shown.get_ydata()[~finite]).all()
        np.testing.assert_allclose(shown.get_xdata(), np.geomspace(0.01, 1.0, 5))
    axes = plot.sweep_slices(grid_sweep(), "loss", num_shown=2)
    assert axes.get_title() == "loss along rate (2 of 3 slices)"


def test_an_axis_of_alternatives_is_named():
    def run(optimizer, scale):
        return {"rate": optimizer.update.keywords["learning_rate"] * scale}

    optimizers = [phihat.adam(0.1), phihat.gradient_descent(0.2)]
    axes = {"optimizer": optimizers, "scale": np.arange(3.0)}
    found = phihat.sweep(run, axes)
    picture = plot.sweep_map(found, "rate")
    ticks = [text.get_text() for text in picture.get_xticklabels()]
    assert ticks == ["adam", "gradient_descent"]
    assert plot.sweep_slices(found, "rate").get_xlabel() == "scale"


def test_trainability_shades_what_did_not_diverge():
    found = trainability()
    axes = plot.trainability(found)
    shown = axes.collections[0].get_array()
    np.testing.assert_array_equal(
        np.ma.getmaskarray(shown), (found.outcome == sweeps.Outcome.DIVERGED).T
    )
    assert labels(axes) == ["border of the 5 that converged", "5 diverged"]


def test_rates_that_diverge_are_marked_and_counted():
    axes = plot.learning_rate_range(rates())
    assert labels(axes) == [
        "stable",
        "3 diverged",
        "suggestion: 0.1",
        "largest stable: 0.3",
    ]
    stable = rates().is_stable
    expected = np.column_stack([rates().rates[stable], rates().final[stable]])
    np.testing.assert_array_equal(xy(line(axes, "stable")), expected)
    answer = line(axes, "suggestion: 0.1")
    assert list(answer.get_xdata()) == [0.1, 0.1]
    assert answer.get_zorder() > line(axes, "stable").get_zorder()
    left, right = axes.get_xlim()
    assert left < 0.1 < 0.3 < right


def test_a_comparison_counts_the_values_of_searches():
    axes = plot.comparison(comparison())
    tuned = "learning_rate=0.1 (median of 5 fits)"
    names = [f"adam: {tuned}", f"search: {tuned}"]
    assert labels(axes) == names
    np.testing.assert_allclose(line(axes, names[0]).get_xdata(), np.arange(6.0))
    np.testing.assert_allclose(line(axes, names[1]).get_xdata(), 3.0 * np.arange(6.0))
    np.testing.assert_array_equal(
        line(axes, names[0]).get_ydata(), np.geomspace(8.0, 0.1, 6)
    )
    assert plot.comparison(comparison(), against="seconds").get_xlabel() == "time [s]"


# -------------------------------------------------------------------- curvature


def test_sharpness_is_drawn_against_the_edge():
    axes = plot.sharpness(sharp())
    assert labels(axes) == ["sharpness λ", f"2 / α = {2 / RATE:g}"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), 2.0)
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), 2.0 / RATE)
    axes = plot.sharpness({"gd": sharp()}, learning_rate=0.5)
    assert labels(axes) == ["gd", "2 / α = 4"]


def test_a_density_has_its_band():
    axes = plot.spectral_density(density(), yscale="linear")
    np.testing.assert_array_equal(
        xy(axes.lines[0]), np.column_stack([density().grid, density().density])
    )
    assert labels(axes) == ["density", "± one standard error"]
    assert axes.get_yscale() == "linear"
    assert plot.spectral_density(density()).get_yscale() == "log"


def test_a_chord_that_a_loss_breaks():
    # x^4 - x^2 lies above the chord from -1/sqrt(2) to 1/sqrt(2) nowhere, but above
    # that from 0 to 1/2: at t it is t^4 / 16 - t^2 / 4 + 3 t / 16 higher.
    quartic = lambda x: x**4 - x**2
    chord = plot.evaluate_chord(quartic, (0.0, 0.5))
    t = chord.t
    expected = t**4 / 16 - t**2 / 4 + 3 * t / 16
    np.testing.assert_allclose(chord.values - chord.chord, expected, atol=4 * EPS)
    assert chord.gap == (chord.values - chord.chord).max() > 0
    axes = plot.broken_chord(chord)
    assert axes.get_title() == "The loss rises above a chord: it is not convex"
    assert labels(axes)[-1] == f"{chord.gap:.3g} above the chord"
    witness = types.SimpleNamespace(a=0.0, b=0.5, t=0.25)
    report = types.SimpleNamespace(witness=witness)
    assert plot.evaluate_chord(quartic, report).place == pytest.approx(0.25)


# -------------------------------------------------------------------- moving pictures


def test_a_descent_moves(tmp_path):
    path = plot.animate_descent(
        bowl_surface(), {"gd": descent()}, tmp_path / "d.gif", num_frames=4
    )
    with Image.open(path) as picture:
        assert (picture.format, picture.n_frames) == ("GIF", 4)
        picture.seek(3)
        assert picture.info["duration"] == 1000


def test_a_bracket_moves(tmp_path):
    result = phihat.bracketing(max_step=1.0, max_iterations=3, trace=True)(valley)
    path = plot.animate_bracket(valley, result, tmp_path / "b.gif")
    with Image.open(path) as picture:
        assert picture.n_frames == 3


# -------------------------------------------------------------------- wrong calls

CALLS = {
    "no params on record": (
        lambda: plot.loss_surface(
            bowl_surface(),
            {"a": phihat.fit(bowl, jnp.ones(2), phihat.adam(0.1), num_steps=1)},
        ),
        ValueError,
        ["'params' was not recorded of results['a']", "record=('loss', 'params')"],
    ),
    "no sharpness on record": (
        lambda: plot.sharpness(descent()),
        ValueError,
        ["sharpness: 'sharpness' was not recorded", "record=('loss', 'params', 'sharp"],
    ),
    "no such quantity on record": (
        lambda: plot.loss_curves(descent(), quantity="grad_norm"),
        ValueError,
        ["'grad_norm' was not recorded", "record="],
    ),
    "a quantity that is no number": (
        lambda: plot.loss_curves(descent(), quantity="params"),
        ValueError,
        ["one number per row"],
    ),
    "seconds that nobody measured": (
        lambda: plot.loss_curves(descent(), against="seconds"),
        ValueError,
        ["'seconds' was not recorded", "`per_step=`"],
    ),
    "a box of five": (
        lambda: plot.evaluate_surface(bowl, Box([0.0] * 5, [1.0] * 5)),
        ValueError,
        ["two coordinates in all, got 5", "plot.principal_plane"],
    ),
    "no box": (lambda: plot.evaluate_surface(bowl, 3), TypeError, ["phihat.Box"]),
    "a path of another size": (
        lambda: plot.loss_surface(bowl_surface(), np.zeros((4, 3))),
        ValueError,
        ["one of 2 params, the path of 3"],
    ),
    "a path that is no table": (
        lambda: plot.loss_surface(bowl_surface(), np.zeros(4)),
        ValueError,
        ["[T, P]", "[4]"],
    ),
    "a loss where a surface goes": (
        lambda: plot.loss_surface(bowl, descent()),
        TypeError,
        ["plot.evaluate_surface"],
    ),
    "another projection": (
        lambda: plot.loss_surface(bowl_surface(), projection="polar"),
        ValueError,
        ["`projection`", "3d"],
    ),
    "flat axes for perspective": (
        lambda: plot.loss_surface(
            bowl_surface(), projection="3d", axes=Figure().subplots()
        ),
        TypeError,
        ['projection="3d"'],
    ),
    "no results": (lambda: plot.loss_curves({}), TypeError, ["`results`", "{}"]),
    "results that are none": (
        lambda: plot.loss_curves({"a": "adam"}),
        TypeError,
        ["results['a']", "'adam'"],
    ),
    "another scale": (
        lambda: plot.loss_curves(descent(), yscale="logarithm"),
        ValueError,
        ["`yscale`", "'log'"],
    ),
    "a band upside down": (
        lambda: plot.loss_curves(lanes(), band=(0.9, 0.1)),
        ValueError,
        ["`band`", "(0.9, 0.1)"],
    ),
    "a plane of paths without a structure": (
        lambda: plot.principal_plane(bowl, np.zeros((4, 3))),
        TypeError,
        ["FitResult"],
    ),
    "a plane of one param": (
        lambda: plot.principal_plane(
            lambda x: x**2,
            phihat.fit(
                lambda x: x**2, 1.0, phihat.adam(0.1), num_steps=3, record="params"
            ),
        ),
        ValueError,
        ["at least two params"],
    ),
    "a random plane of zeros": (
        lambda: plot.random_plane(bowl, jnp.zeros(2)),
        ValueError,
        ["not zero"],
    ),
    "a random plane of nothing": (
        lambda: plot.random_plane(bowl, {}),
        ValueError,
        ["two numbers or more"],
    ),
    "a seed for a key": (
        lambda: plot.random_plane(bowl, jnp.ones(2), key=3),
        TypeError,
        ["jax.random.key(3)"],
    ),
    "a row that is not there": (
        lambda: plot.fitted_model(LINE, descent(), POINTS, rows=(9,)),
        ValueError,
        ["[0, 8], got 9"],
    ),
    "a model of many lanes": (
        lambda: plot.fitted_model(LINE, lanes(), POINTS),
        ValueError,
        ["3 lanes"],
    ),
    "data of several columns": (
        lambda: plot.fitted_model(LINE, jnp.ones(2), (np.ones((3, 2)), np.ones(3))),
        ValueError,
        ["one x a row", "[3, 2]"],
    ),
    "data that are no pair": (
        lambda: plot.fitted_model(LINE, jnp.ones(2), np.ones(3)),
        TypeError,
        ["pair (x, y)"],
    ),
    "a model of several outputs": (
        lambda: plot.fitted_model(
            lambda params, x: jnp.stack([x, x]), jnp.ones(2), POINTS
        ),
        ValueError,
        ["one number for each x"],
    ),
    "fewer names than models": (
        lambda: plot.fitted_model(LINE, [jnp.ones(2)] * 2, POINTS, names=["a"]),
        ValueError,
        ["`names`", "2, got 1"],
    ),
    "a search without a trace": (
        lambda: plot.bracket(phihat.bracketing()(valley)),
        ValueError,
        ["phihat.bracketing(trace=True)"],
    ),
    "many searches": (
        lambda: plot.bracket(
            jax.vmap(
                lambda low: phihat.bracketing(trace=True)(lambda s: (s - low) ** 2)
            )(jnp.ones(2))
        ),
        ValueError,
        ["2 searches"],
    ),
    "no search": (lambda: plot.bracket(3.0), TypeError, ["3.0"]),
    "no convexity map": (
        lambda: plot.convexity_map(3.0),
        TypeError,
        ["phihat.curvature.convexity_map"],
    ),
    "no critical points": (
        lambda: plot.critical_points(3.0),
        TypeError,
        ["phihat.find_critical_points"],
    ),
    "critical points of three params": (
        lambda: plot.critical_points(
            jax.tree.map(np.asarray, _with_params(np.zeros((4, 3))))
        ),
        ValueError,
        ["two params", "got 3"],
    ),
    "no basins": (lambda: plot.basins(3.0), TypeError, ["phihat.basins"]),
    "no sweep": (lambda: plot.sweep_map(3.0), TypeError, ["phihat.sweep"]),
    "a sweep of one axis": (
        lambda: plot.sweep_map(grid_sweep().select(decay=0.0), "loss"),
        ValueError,
        ["must have 2 axes, got ['rate']", "plot.sweep_slices"],
    ),
    "a logarithm of what is not positive": (
        lambda: plot.sweep_map(
            phihat.sweep(
                lambda x, y: x - y, {"x": np.arange(2.0), "y": np.arange(2.0)}
            ),
            log=True,
        ),
        ValueError,
        ["positive"],
    ),
    "no such axis": (
        lambda: plot.sweep_slices(grid_sweep(), "loss", along="rates"),
        ValueError,
        ["`along`", "'rate'"],
    ),
    "no trainability": (
        lambda: plot.trainability(3.0),
        TypeError,
        ["phihat.sweeps.trainability"],
    ),
    "no range": (
        lambda: plot.learning_rate_range(3.0),
        TypeError,
        ["phihat.learning_rate_range"],
    ),
    "no comparison": (lambda: plot.comparison(3.0), TypeError, ["phihat.compare"]),
    "against nothing known": (
        lambda: plot.comparison(comparison(), against="epochs"),
        ValueError,
        ["`against`"],
    ),
    "no density": (
        lambda: plot.spectral_density(3.0),
        TypeError,
        ["phihat.spectral_density"],
    ),
    "no chord": (lambda: plot.broken_chord(3.0), TypeError, ["plot.evaluate_chord"]),
    "a report without a witness": (
        lambda: plot.evaluate_chord(bowl, phihat.prove_convexity(bowl, jnp.ones(2))),
        ValueError,
        ["PROVED_CONVEX", "pair"],
    ),
    "one end of a chord": (
        lambda: plot.evaluate_chord(bowl, jnp.ones(2)),
        TypeError,
        ["pair of params"],
    ),
    "no frames": (
        lambda: plot.animate_descent(bowl_surface(), descent(), "x.gif", num_frames=1),
        ValueError,
        ["`num_frames` must be >= 2, got 1"],
    ),
    "no speed": (
        lambda: plot.animate_bracket(valley, search(), "x.gif", frames_per_second=0),
        ValueError,
        ["`frames_per_second`"],
    ),
    "no rows of axes": (lambda: plot.make_axes(0), ValueError, ["`rows`"]),
}


def _with_params(places: np.ndarray) -> critical_points.CriticalPoints:
    return dataclasses.replace(points_found(), params=places)


@pytest.mark.parametrize("name", CALLS)
def test_wrong_calls(name):
    call, kind, words = CALLS[name]
    with pytest.raises(kind) as error:
        call()
    for word in words:
        assert word in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


# -------------------------------------------------------------------- the chapter

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "chapter6.py"


def test_the_chapter_follows_the_notebooks():
    """The gate draws all figures; here the paths in them are those of the notebooks."""
    names = runpy.run_path(str(EXAMPLE))
    known = REFERENCE["trajectories"]
    batches = names["notebook_batches"](81)
    np.testing.assert_array_equal(batches, REFERENCE["numpy_seed1_batches"])
    for name, reference in (
        ("SGD", "gabor32_sgd_nb64"),
        ("momentum", "gabor32_momentum_nb64"),
        ("Nesterov", "gabor32_nesterov_alphabeta_nb64"),
    ):
        result = names["gabor_fit"](name)
        np.testing.assert_allclose(
            np.asarray(result.params), known[reference]["final_phi"], rtol=1e-9
        )
    left, _ = names["linear_regression"]().axes[:2]
    path = known["lin_gd_linesearch_nb62"]["first10"]
    lines = [xy(one) for one in left.lines]
    np.testing.assert_allclose(lines[0][: len(path)], path, rtol=1e-9)
    (axes,) = [one for one in names["momentum"]().axes if "momentum" in one.get_title()]
    path = known["gabor32_momentum_nb64"]["all_phi"]
    np.testing.assert_allclose(xy(axes.lines[0]), path, rtol=1e-9)

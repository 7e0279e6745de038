"""Many starts, basins and trainability maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import phihat
from phihat import Box, Status, sweeps
from phihat.critical_points import CriticalPointKind
from phihat.sweeps import clusters, compaction
from tests import cases

ONE = Mesh(np.asarray(jax.devices()[:1]), ("lanes",))  # eight would only take turns
LOSS, DATA = cases.gabor_problem()
WINDOW = Box([-10.0, 2.5], [10.0, 22.5])
MINIMA = sorted(
    (point["loss"], *point["phi"])
    for point in cases.REFERENCE["gabor_stationary_points_D32"]["points"]
    if point["type"] == "min"
)


@pytest.fixture(scope="module")
def found():
    return phihat.multistart(
        LOSS,
        WINDOW,
        phihat.adam(0.1),
        DATA,
        num_starts=4096,
        num_steps=2000,
        tolerance=1e-2,
        mesh=ONE,
    )


def test_the_eight_minima_of_the_book(found):
    low, high = WINDOW.low, WINDOW.high
    inside = np.all((found.params >= low) & (found.params <= high), axis=1)
    minima = inside & (found.kind == CriticalPointKind.MINIMUM)
    table = np.column_stack([found.loss, found.params])[minima]
    np.testing.assert_allclose(table[np.argsort(table[:, 0])], MINIMA, atol=1e-8)
    assert np.all(np.diff(found.loss) >= 0)


def test_few_lane_steps_are_wasted(found):
    steps = found.ends.num_steps
    assert found.ends.useful_share >= 0.9
    assert steps.mean() / steps.max() < 0.61  # what one vmapped loop would use
    assert (found.ends.status == Status.CONVERGED).all()
    assert found.ends.grad_norm.max() <= 2**0.5 * 1e-2
    np.testing.assert_allclose(found.share.sum(), 1.0)
    np.testing.assert_array_equal(
        np.bincount(found.label) / len(found.label), found.share
    )


def test_repeated_to_the_bit(found):
    again = phihat.multistart(
        LOSS,
        WINDOW,
        phihat.adam(0.1),
        DATA,
        num_starts=4096,
        num_steps=2000,
        tolerance=1e-2,
        mesh=ONE,
    )
    for one, other in zip(
        jax.tree.leaves((found.params, found.ends, found.label, found.share)),
        jax.tree.leaves((again.params, again.ends, again.label, again.share)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def flow(starts, num_steps=20_000):
    """Descend by small steps, in NumPy: the basins as a flow has them."""
    x, y = (np.asarray(leaf) for leaf in DATA)
    ends, moving = np.array(starts), np.arange(len(starts))
    for _ in range(num_steps):
        phi = ends[moving]
        u = phi[:, :1] + 0.06 * phi[:, 1:] * x
        bell = np.exp(-(u**2) / 32)
        slope = 2 * (np.sin(u) * bell - y) * bell * (np.cos(u) - u * np.sin(u) / 16)
        gradient = np.stack([slope.sum(1), (0.06 * x * slope).sum(1)], axis=1)
        size = np.linalg.norm(gradient, axis=1)
        ends[moving] -= 0.01 * gradient / np.maximum(size, 1.0)[:, None]
        moving = moving[size > 1e-3]  # the others are at most 0.04 from their ends
    return ends


def test_shares_are_those_of_the_basins():
    few = phihat.multistart(
        LOSS,
        WINDOW,
        phihat.gradient_descent(0.01),
        DATA,
        num_starts=256,
        num_steps=20_000,
        tolerance=1e-2,
        mesh=ONE,
    )
    ends = flow(few.starts)
    for loss, *place in MINIMA:
        reached = np.linalg.norm(ends - place, axis=1) < 0.5
        number = np.argmin(np.linalg.norm(few.params - place, axis=1))
        same = np.linalg.norm(few.params[number] - place) < 1e-4
        share = few.share[number] if same else 0.0
        assert abs(share - reached.mean()) <= 0.02, loss


def test_each_start_ends_as_the_fit_alone(found):
    for start in range(5):
        alone = phihat.fit(
            LOSS,
            found.starts[start],
            phihat.adam(0.1),
            DATA,
            num_steps=2000,
            tolerance=1e-2,
        )
        assert found.ends.num_steps[start] == alone.num_steps
        np.testing.assert_allclose(found.ends.params[start], alone.params, atol=1e-9)
        np.testing.assert_allclose(found.ends.loss[start], alone.loss, atol=1e-9)


def test_given_starts_a_nan_among_them_and_a_budget():
    starts = {"x": np.asarray([-1.5, np.nan, 0.5, 1.5])}
    loss_fn = lambda p: (p["x"] ** 2 - 1) ** 2
    ends = phihat.multistart(
        loss_fn,
        Box({"x": -2.0}, {"x": 2.0}),
        phihat.adam(0.1),
        starts=starts,
        num_steps=300,
        tolerance=1e-6,
    )
    assert ends.ends.status[1] == Status.NONFINITE_LOSS
    np.testing.assert_array_equal(ends.label, [0, -1, 1, 1])
    np.testing.assert_allclose(ends.params["x"], [-1.0, 1.0], atol=1e-9)
    np.testing.assert_array_equal(ends.share, [0.25, 0.5])
    all_used = phihat.multistart(
        loss_fn,
        Box({"x": -2.0}, {"x": 2.0}),
        phihat.adam(0.1),
        starts=starts,
        num_steps=37,  # rounds do not divide it
        tolerance=None,
    )
    np.testing.assert_array_equal(all_used.ends.num_steps, [37, 0, 37, 37])


def test_many_params_get_no_kind():
    ones = np.ones(130)
    found = phihat.multistart(
        lambda p: jnp.sum(p**2),
        Box(-ones, ones),
        phihat.adam(0.1),
        num_starts=4,
        merge_distance=0.1,
        mesh=ONE,
    )
    assert found.kind is None
    assert len(found.loss) == 1


@pytest.mark.parametrize("method", ["sobol", "latin_hypercube"])
def test_starts_fill_the_box(method):
    loss_fn = lambda p: jnp.sum(p["w"] ** 2)
    box = Box({"w": np.full((2, 2), -3.0)}, {"w": np.full((2, 2), 5.0)})
    found, again, other = (
        phihat.multistart(
            loss_fn,
            box,
            phihat.gradient_descent(0.1),
            num_starts=64,
            method=method,
            key=jax.random.key(seed),
            num_steps=1,
        ).starts["w"]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(found, again)
    assert not np.array_equal(found, other)
    assert found.min() >= -3
    assert found.max() <= 5
    counts = [np.histogram(column, 8, (-3, 5))[0] for column in found.reshape(64, 4).T]
    assert np.abs(np.asarray(counts) - 8).max() <= (1 if method == "sobol" else 0)


def test_chunks_have_one_of_few_sizes():
    for lanes in (1, 2, 100, 1000, 12345):
        for devices in (1, 8):
            sizes = compaction.cut(lanes, devices, 384)
            assert 0 <= sum(sizes) - lanes < 3 * devices
            assert len(set(sizes)) <= 3


def test_clusters_do_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(5, 2)), 20, axis=0)
    points += 1e-6 * rng.normal(size=points.shape)
    losses = np.repeat(np.asarray([3.0, 1.0, 2.0, 2.0, 0.0]), 20)
    losses += 1e-9 * rng.normal(size=100)
    labels, founders = clusters.label(points, losses, 1e-3)
    order = rng.permutation(100)
    shuffled, _ = clusters.label(points[order], losses[order], 1e-3)
    np.testing.assert_array_equal(labels[order], shuffled)
    assert len(founders) == 5
    assert np.all(np.diff(losses[founders]) >= 0)


# -------------------------------------------------------------------- maps


def test_basins_of_the_gabor_model():
    map = phihat.basins(
        LOSS,
        WINDOW,
        phihat.adam(0.1),
        DATA,
        shape=(12, 9),
        num_steps=1000,
        tolerance=1e-2,
    )
    assert map.label.shape == map.num_steps.shape == map.status.shape == (12, 9)
    assert map.ticks[0][[0, -1]].tolist() == [-10, 10]
    for place in ((0, 0), (5, 6), (11, 8)):
        start = np.asarray([map.ticks[k][place[k]] for k in (0, 1)])
        alone = phihat.fit(
            LOSS, start, phihat.adam(0.1), DATA, num_steps=1000, tolerance=1e-2
        )
        assert map.num_steps[place] == alone.num_steps
        assert map.status[place] == alone.status
        reached = map.optima.loss[map.label[place]]
        assert 0 <= float(alone.loss) - reached < 0.01  # which Newton's steps gained


def test_trainability_knows_where_gradient_descent_diverges():
    """On a quadratic with curvatures 1 and c it converges for rates below 2 / c."""

    def function(rate, curvature):
        loss_fn = lambda p: 0.5 * (p[0] ** 2 + curvature * p[1] ** 2)
        start = jnp.ones(2)
        optimizer = phihat.gradient_descent(rate)
        return phihat.fit(loss_fn, start, optimizer, num_steps=200)

    axes = {"rate": np.geomspace(1e-3, 3.0, 9), "curvature": np.asarray([1.0, 4.0])}
    map = sweeps.trainability(function, axes, target=1e-6)
    rate, curvature = np.meshgrid(*axes.values(), indexing="ij")
    diverges = rate * curvature > 2
    np.testing.assert_array_equal(map.outcome == sweeps.Outcome.DIVERGED, diverges)
    rate = np.where(diverges, 0.0, rate)
    bound = 0.5 * ((1 - rate) ** 400 + curvature * (1 - rate * curvature) ** 400)
    np.testing.assert_array_equal(
        map.outcome == sweeps.Outcome.CONVERGED, (bound <= 1e-6) & ~diverges
    )
    assert np.isinf(map.fastness[diverges]).all()


# -------------------------------------------------------------------- wrong calls

BOWL = lambda p: jnp.sum(p**2)
BOX = Box([-1.0, -1.0], [1.0, 1.0])
ADAM = phihat.adam(0.1)
WRONG = {
    "neither": (lambda: phihat.multistart(BOWL, BOX, ADAM), "got neither"),
    "both": (
        lambda: phihat.multistart(
            BOWL, BOX, ADAM, num_starts=3, starts=np.ones((3, 2))
        ),
        "got both",
    ),
    "no starts": (
        lambda: phihat.multistart(BOWL, BOX, ADAM, num_starts=0),
        "`num_starts` must be >= 1, got 0",
    ),
    "method": (
        lambda: phihat.multistart(BOWL, BOX, ADAM, num_starts=4, method="sobl"),
        "did you mean 'sobol'",
    ),
    "open box": (
        lambda: phihat.multistart(BOWL, Box(-1.0, np.inf), ADAM, num_starts=4),
        "`box` must be bounded",
    ),
    "shape of starts": (
        lambda: phihat.multistart(BOWL, BOX, ADAM, starts=np.ones((4, 3))),
        r"`starts` must have shape \[N, 2\], got \[4, 3\]",
    ),
    "structure of starts": (
        lambda: phihat.multistart(BOWL, BOX, ADAM, starts={"x": np.ones((4, 2))}),
        "`starts` must have the structure of the box",
    ),
    "limit": (
        lambda: phihat.multistart(BOWL, BOX, ADAM, num_starts=4, max_bytes=10),
        "`max_bytes` must be at least",
    ),
    "merge": (
        lambda: phihat.multistart(BOWL, BOX, ADAM, num_starts=4, merge_distance=0.0),
        "`merge_distance` must be > 0",
    ),
    "shape": (
        lambda: phihat.basins(BOWL, BOX, ADAM, shape=(3,)),
        "one size per coordinate of the box, 2, got 1",
    ),
    "size": (
        lambda: phihat.basins(BOWL, BOX, ADAM, shape=(3, 1)),
        "`shape` must be >= 2, got 1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_kinds():
    with pytest.raises(TypeError, match=r"`box` must be a `phihat.Box"):
        phihat.multistart(BOWL, (-1.0, 1.0), ADAM, num_starts=4)
    with pytest.raises(TypeError, match="cannot run under jit"):
        jax.jit(lambda n: phihat.basins(BOWL, BOX, phihat.adam(n), shape=(2, 2)).label)(
            0.1
        )
    with pytest.raises(TypeError, match="must return a FitResult with 'loss'"):
        sweeps.trainability(lambda rate: rate, {"rate": [0.1, 0.2]}, target=0.1)

import functools
import itertools
import math

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from phihat import sampling

# ------------------------------------------------------------------- batches and rows

SIZES = [(1, 1), (2, 1), (7, 7), (10, 4), (12, 4), (33, 32), (1797, 32)]


def epoch_of(batches, key, epoch):
    """Return the batches of one epoch, the last one short where it is."""
    first = epoch * batches.steps_per_epoch
    steps = range(first, first + batches.steps_per_epoch)
    batch_fn = jax.jit(batches.batch_fn)
    drawn = [batch_fn(key, step) for step in steps]
    if batches.last_batch_fn is not None:
        drawn[-1] = jax.jit(batches.last_batch_fn)(key, steps[-1])
    return drawn


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("num_rows", "size"), SIZES)
def test_every_row_is_drawn_once_an_epoch(num_rows, size, shuffle):
    sampler = sampling.minibatches(size, shuffle=shuffle)
    batches = sampler({"x": jnp.arange(num_rows), "y": -jnp.arange(num_rows)})
    key = jax.random.key(3) if shuffle else None
    for epoch in range(2):
        drawn = epoch_of(batches, key, epoch)
        rest = num_rows % size
        assert [len(batch["x"]) for batch in drawn[:-1]] == [size] * (len(drawn) - 1)
        assert len(drawn[-1]["x"]) == (rest or size)
        rows = np.concatenate([batch["x"] for batch in drawn])
        np.testing.assert_array_equal(np.sort(rows), np.arange(num_rows))
        for batch in drawn:
            np.testing.assert_array_equal(batch["y"], -batch["x"])
        if not shuffle:
            np.testing.assert_array_equal(rows, np.arange(num_rows))
    assert batches.needs_key is shuffle
    assert batches.last_size == rest


@pytest.mark.parametrize(("num_rows", "size"), SIZES)
def test_dropped_remainder(num_rows, size):
    sampler = sampling.minibatches(size, drop_remainder=True)
    batches = sampler(jnp.arange(num_rows))
    assert batches.steps_per_epoch == num_rows // size
    assert batches.last_batch_fn is None
    assert batches.last_size == 0
    rows = np.concatenate(epoch_of(batches, jax.random.key(0), 5))
    assert len(np.unique(rows)) == len(rows) == num_rows // size * size


def test_batch_depends_on_key_and_absolute_step_alone():
    batches = sampling.minibatches(4)(np.arange(10))
    key, other = jax.random.key(1), jax.random.key(2)
    late = batches.batch_fn(key, 301)
    np.testing.assert_array_equal(late, batches.batch_fn(key, 301))
    orders = {
        tuple(np.concatenate(epoch_of(batches, one, epoch)).tolist())
        for one in (key, other)
        for epoch in range(5)
    }
    assert len(orders) == 10


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_mapped_and_compiled_draws_equal_plain_ones(impl):
    # The operations of "rbg" keys give other numbers under vmap; ours must not.
    batches = sampling.minibatches(4)(jnp.arange(10))
    keys = jax.random.split(jax.random.key(0, impl=impl), 3)
    steps = jnp.arange(7, dtype=jnp.int32)
    plain = [[batches.batch_fn(key, step) for step in steps] for key in keys]
    over_steps = jax.vmap(batches.batch_fn, in_axes=(None, 0))
    mapped = jax.jit(jax.vmap(over_steps, in_axes=(0, None)))(keys, steps)
    np.testing.assert_array_equal(mapped, plain)
    assert len({tuple(row) for row in mapped[:, 0].tolist()}) == 3


@pytest.mark.parametrize(
    "sampler",
    [
        sampling.minibatches(4),
        sampling.minibatches(4, shuffle=False),
        sampling.from_indices([[0, 9], [3, 3]]),
    ],
)
def test_batch_fn_is_take_fn_of_rows_fn(sampler):
    data = (jnp.arange(20.0).reshape(10, 2), jnp.arange(10))
    batches, key = sampler(data), jax.random.key(0)
    rows = jax.vmap(lambda step: batches.rows_fn(key, step))(jnp.arange(6))
    for step in range(6):
        whole = batches.take_fn(rows[step])
        for one, other in zip(whole, batches.batch_fn(key, step), strict=True):
            np.testing.assert_array_equal(one, other)
    if batches.last_batch_fn is not None:
        short = batches.take_fn(rows[2][: batches.last_size])
        for one, other in zip(short, batches.last_batch_fn(key, 2), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("num_rows", [10, 1797, 10**6, 2**31])
def test_same_order_with_and_without_x64(num_rows):
    positions = np.arange(8, dtype=np.int32)

    def draw():
        return sampling.permute(jax.random.key(7), positions, num_rows, epoch=3)

    with jax.enable_x64(False):
        narrow = draw()
    wide = draw()
    assert narrow.dtype == wide.dtype == jnp.int32
    np.testing.assert_array_equal(narrow, wide)


def test_leaves_keep_their_dtype_and_trailing_shape():
    data = (
        np.zeros((6, 2, 3), np.float32),
        jnp.zeros(6, jnp.bfloat16),
        np.ones(6, bool),
    )
    batch = sampling.minibatches(2)(data).batch_fn(jax.random.key(0), 0)
    shapes = [(leaf.shape, leaf.dtype.name) for leaf in batch]
    assert shapes == [((2, 2, 3), "float32"), ((2,), "bfloat16"), ((2,), "bool")]


def test_full_batch_is_the_data():
    data = {"x": jnp.arange(3), "scale": 2.0}
    batches = sampling.full_batch(data)
    assert batches.batch_fn(None, 5) is data
    assert (batches.steps_per_epoch, batches.needs_key) == (1, False)


# -------------------------------------------------------------------- batches by hand


def test_indices_are_replayed_and_wrap_round():
    indices = np.array([[4, 0], [1, 1], [2, 3]])
    batches = sampling.from_indices(indices)(jnp.arange(5) * 10)
    drawn = [batches.batch_fn(None, step) for step in range(7)]
    np.testing.assert_array_equal(drawn, indices[[0, 1, 2, 0, 1, 2, 0]] * 10)
    assert (batches.steps_per_epoch, batches.last_batch_fn) == (3, None)


def test_indices_are_numbers_and_not_code():
    one, other = (sampling.from_indices([[row, 1]]) for row in (0, 2))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    traces = []

    @jax.jit
    def draw(sampler, data):
        traces.append(None)
        return sampler(data).batch_fn(None, 0)

    data = jnp.array([5.0, 6.0, 7.0])
    np.testing.assert_array_equal(draw(one, data), [5.0, 6.0])
    np.testing.assert_array_equal(draw(other, data), [7.0, 6.0])
    assert len(traces) == 1


@pytest.mark.parametrize("row", [-1, 3])
def test_traced_index_out_of_range_gives_nan(row):
    def draw(indices):
        return sampling.from_indices(indices)(jnp.ones(3)).batch_fn(None, 0)

    np.testing.assert_array_equal(jax.jit(draw)(jnp.array([[0, row]])), [1.0, np.nan])


# ------------------------------------------------------------------------ wrong calls

ROWS = np.zeros((5, 2))
WRONG_CALLS = [
    (
        lambda: sampling.minibatches(0),
        "minibatches: `batch_size` must be >= 1, got 0.",
    ),
    (
        lambda: sampling.minibatches(2.5),
        "minibatches: `batch_size` must be a whole number, got 2.5.",
    ),
    (
        lambda: sampling.check_sampler(sampling.minibatches(6), (ROWS, ROWS)),
        "minibatches: `batch_size` must be <= the number of rows, got 6 for 5 rows.",
    ),
    (
        lambda: sampling.check_sampler(sampling.minibatches(1), ROWS[:0]),
        "minibatches: `batch_size` must be <= the number of rows, got 1 for 0 rows.",
    ),
    (
        lambda: sampling.check_sampler(sampling.minibatches(2), (ROWS, ROWS[:4])),
        "minibatches: `data[0]` has 5 rows but `data[1]` has 4; every leaf needs the "
        "same number.",
    ),
    (
        lambda: sampling.check_sampler(sampling.minibatches(2), {"x": ROWS, "y": 1.0}),
        "minibatches: `data['y']` is a scalar: it has no rows; "
        "make arrays of lists, with `np.asarray`.",
    ),
    (
        lambda: sampling.check_sampler(sampling.minibatches(2), ()),
        "minibatches: `data` has no arrays in it.",
    ),
    (
        lambda: sampling.minibatches(2)(ROWS).batch_fn(None, 0),
        "minibatches: `key` is needed to shuffle; pass `key=jax.random.key(0)`, or "
        "`shuffle=False`.",
    ),
    (
        lambda: sampling.minibatches(2)(jax.ShapeDtypeStruct((2**31 + 1,), float)),
        "minibatches: `data` must have at most 2^31 rows, got 2147483649.",
    ),
    (
        lambda: sampling.from_indices([[0, 1], [2]]),
        "from_indices: `indices` must have the shape [T, B], steps by rows; these rows "
        "differ in length.",
    ),
    (
        lambda: sampling.from_indices([0, 1]),
        "from_indices: `indices` must have the shape [T, B], steps by rows, got an "
        "array of int64[2].",
    ),
    (
        lambda: sampling.from_indices([[0.0, 1.0]]),
        "from_indices: `indices` must be whole numbers, got an array of float64[1, 2].",
    ),
    (
        lambda: sampling.from_indices([[0, -2]]),
        "from_indices: `indices` must be >= 0, got -2.",
    ),
    (
        lambda: sampling.check_sampler(sampling.from_indices([[0, 5]]), ROWS),
        "from_indices: `indices` must be below the number of rows, got 5 for 5 rows.",
    ),
    (
        lambda: sampling.check_sampler(sampling.from_indices([[0]]), (ROWS, 1.0)),
        "from_indices: `data[1]` is a scalar: it has no rows; "
        "make arrays of lists, with `np.asarray`.",
    ),
    (
        lambda: sampling.check_sampler(32, ROWS),
        "check_sampler: `sampler` must be a function of the data, such as "
        "`sampling.minibatches(32)`, got 32.",
    ),
    (
        lambda: sampling.permute(None, 0, 5),
        "permute: `key` must be one typed key, such as jax.random.key(0), got None.",
    ),
    (
        lambda: sampling.permute(jax.random.key(0), 5, 5),
        "permute: `positions` must lie in [0, 4], got 5.",
    ),
    (
        lambda: sampling.permute(jax.random.key(0), 0.5, 5),
        "permute: `positions` must be whole numbers, got 0.5.",
    ),
    (
        lambda: sampling.permute(jax.random.key(0), 0, 2**31 + 1),
        "permute: `num_rows` must be <= 2,147,483,648, got 2147483649.",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), WRONG_CALLS)
def test_wrong_call(call, sentence):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == sentence


def test_sampler_from_elsewhere_is_not_called_by_the_check():
    sampling.check_sampler(lambda _: pytest.fail("called"), ROWS)


# --------------------------------------------------------------- the order, every size


def test_bijection_for_every_small_size():
    key = jax.random.key(0)
    positions = np.arange(200)
    # Every size up to 64, and then the ends of what is a power of two.
    for num_rows in (*range(1, 66), 127, 128, 129, 199, 200):
        # One shape for all sizes: eager operations compile once, a program per size.
        clipped = np.minimum(positions, num_rows - 1)
        with jax.disable_jit():
            rows = np.asarray(sampling.permute(key, clipped, num_rows))[:num_rows]
        np.testing.assert_array_equal(np.sort(rows), positions[:num_rows])


@pytest.mark.parametrize("num_rows", [997, 1024, 1797, 65537, 10**6])
def test_bijection_for_large_sizes(num_rows):
    rows = sampling.permute(jax.random.key(1), np.arange(num_rows), num_rows)
    assert np.array_equal(np.sort(rows), np.arange(num_rows))


@pytest.mark.parametrize("num_rows", [10**9, 2**31 - 1, 2**31])
def test_ends_of_the_largest_sizes_stay_in_range(num_rows):
    positions = np.concatenate([np.arange(500), num_rows - 1 - np.arange(500)])
    rows = np.asarray(sampling.permute(jax.random.key(0), positions, num_rows))
    assert len(np.unique(rows)) == 1000
    assert rows.min() >= 0
    assert rows.max() < num_rows
    assert stats.kstest(rows / num_rows, "uniform").pvalue > ALPHA


def test_billion_rows_need_no_table():
    num_rows, size = 10**9, 32
    data = jax.ShapeDtypeStruct((num_rows,), jnp.float32)

    def draw(data, key, step):
        return sampling.minibatches(size)(data).batch_fn(key, step)

    program = jax.make_jaxpr(draw)(data, jax.random.key(0), jnp.int32(0))
    sizes = [
        variable.aval.size
        for equation in _equations(program.jaxpr)
        for variable in equation.outvars
    ]
    assert len(sizes) > 100
    assert max(sizes) <= 64
    assert sum(np.size(constant) for constant in program.consts) <= 100


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _equations(inner)


# ---------------------------------------------------------- the order, as random as any

# All seeds are fixed, so a test passes always or never. About 260 p-values are computed
# below; for a perfect shuffle the smallest of them is under ALPHA once in 40 choices of
# the seeds.
ALPHA = 1e-4
NUM_ORDERS = {10: 20_000, 100: 5_000, 10**4: 300, 10**6: 10}


def orders_by_key(num_orders, num_rows):
    draw = lambda key: sampling.permute(key, jnp.arange(num_rows), num_rows)
    return jax.vmap(draw)(jax.random.split(jax.random.key(1), num_orders))


def orders_by_epoch(num_orders, num_rows):
    key, positions = jax.random.key(2), jnp.arange(num_rows)
    draw = lambda epoch: sampling.permute(key, positions, num_rows, epoch=epoch)
    return jax.vmap(draw)(jnp.arange(num_orders))


def steps_between_epochs(num_orders, num_rows):
    """Return where each epoch finds the rows of the one before: independent of it."""
    orders = orders_by_epoch(num_orders + 1, num_rows)
    places = jnp.arange(num_rows)
    compose = lambda one, other: jnp.zeros_like(places).at[one].set(places)[other]
    return jax.vmap(compose)(orders[:-1], orders[1:])


def orders_by_sorting(num_orders, num_rows):
    """Return jax's own shuffle, the control: it must pass all that ours must."""
    draw = lambda key: jax.random.permutation(key, num_rows)
    return jax.vmap(draw)(jax.random.split(jax.random.key(3), num_orders))


SHUFFLES = [orders_by_key, orders_by_epoch, steps_between_epochs, orders_by_sorting]


def draw(shuffle, num_orders, num_rows):
    return np.asarray(jax.jit(shuffle, static_argnums=(0, 1))(num_orders, num_rows))


def mean_p(values, mean):
    return stats.ttest_1samp(values, mean).pvalue


def chi_square_p(counts, cells):
    return stats.chisquare(np.bincount(counts.ravel(), minlength=cells)).pvalue


def fixed_points(orders):
    """Their mean and variance are 1."""
    number = (orders == np.arange(orders.shape[1])).sum(axis=1)
    return {"mean": mean_p(number, 1), "variance": mean_p((number - 1) ** 2, 1)}


def adjacency(orders):
    """How often neighbours stay neighbours: 2 of n in the mean."""
    n = orders.shape[1]
    number = (np.abs(np.diff(orders, axis=1)) == 1).sum(axis=1)
    mean = 2 * (n - 1) / n
    # Pairs of places that share one, and pairs that do not.
    square = mean + (4 * (n - 2) + 4 * (n - 2) * (n - 3)) / (n * (n - 1))
    spread = mean_p((number - mean) ** 2, square - mean**2)
    return {"mean": mean_p(number, mean), "variance": spread}


def serial_correlation(orders):
    n = orders.shape[1]
    scaled = (orders - (n - 1) / 2) / math.sqrt((n**2 - 1) / 12)
    sums = {lag: (scaled[:, lag:] * scaled[:, :-lag]).sum(axis=1) for lag in (1, 2, 5)}
    return {lag: mean_p(sums[lag], -(n - lag) / (n - 1)) for lag in sums}


def correlation_with_position(orders):
    n = orders.shape[1]
    scaled = (np.arange(n) - (n - 1) / 2) / math.sqrt((n**2 - 1) / 12)
    sums = (orders * scaled).sum(axis=1) / math.sqrt((n**2 - 1) / 12)
    scores = sums * math.sqrt(n - 1) / n
    return {"mean": mean_p(scores, 0), "variance": mean_p(scores**2, 1)}


def inversions(orders):
    """Of n places their mean is n(n-1)/4, their variance n(n-1)(2n+5)/72."""
    spread = orders[:200, :: max(1, orders.shape[1] // 5000)]
    n = spread.shape[1]
    taus = np.array([stats.kendalltau(np.arange(n), row)[0] for row in spread])
    scores = taus * (n * (n - 1) / 4) / math.sqrt(n * (n - 1) * (2 * n + 5) / 72)
    return {"mean": mean_p(scores, 0), "variance": mean_p(scores**2, 1)}


def positions(orders):
    """Each row comes to each place equally often."""
    number, n = orders.shape
    counts = np.zeros((n, n))
    np.add.at(counts, (np.broadcast_to(np.arange(n), orders.shape), orders), 1)
    # The sums of rows and columns are fixed, hence (n-1)^2 degrees of freedom.
    statistic = (n - 1) / number * ((counts - number / n) ** 2).sum()
    return {"all": stats.chi2.sf(statistic, (n - 1) ** 2)}


def pairs(orders):
    """Two rows come to each pair of places equally often."""
    n = orders.shape[1]
    values = {}
    for i, j in [(0, 1), (0, n - 1), (n // 2, n // 2 + 1), (1, n // 2)]:
        one, other = orders[:, i], orders[:, j]
        cells = one * (n - 1) + other - (other > one)
        values[i, j] = chi_square_p(cells, n * (n - 1))
    return values


STATISTICS = [
    fixed_points,
    adjacency,
    serial_correlation,
    correlation_with_position,
    inversions,
]


def p_values(orders, statistics):
    return {
        (statistic.__name__, name): float(p)
        for statistic in statistics
        for name, p in statistic(orders).items()
    }


def small(values):
    return {name: p for name, p in values.items() if not p > ALPHA}


CASES = [
    (shuffle, num_rows)
    for shuffle in SHUFFLES
    for num_rows in NUM_ORDERS
    if num_rows < 10**6 or shuffle in (orders_by_key, orders_by_epoch)  # for time
]


@pytest.mark.parametrize(("shuffle", "num_rows"), CASES)
def test_statistics_of_an_order(shuffle, num_rows):
    orders = draw(shuffle, NUM_ORDERS[num_rows], num_rows)
    statistics = (
        STATISTICS + [positions] * (num_rows <= 100) + [pairs] * (num_rows <= 10)
    )
    assert not small(p_values(orders, statistics))


@pytest.mark.parametrize("num_rows", [2, 3, 4, 5])
@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_all_orders_of_few_rows_are_equally_likely(shuffle, num_rows):
    table = list(itertools.permutations(range(num_rows)))
    weights = num_rows ** np.arange(num_rows)
    numbers = {int(np.dot(row, weights)): place for place, row in enumerate(table)}
    orders = draw(shuffle, 1000 * len(table), num_rows)
    cells = np.array([numbers[code] for code in (orders @ weights).tolist()])
    assert chi_square_p(cells, len(table)) > ALPHA


@pytest.mark.parametrize("num_rows", [1797, 10**6, 10**9, 2**31])
def test_positions_and_pairs_of_many_rows(num_rows):
    places = np.array([0, 1, num_rows // 2, num_rows - 1])
    keys = jax.random.split(jax.random.key(4), 50_000)
    draw = lambda key: sampling.permute(key, places, num_rows)
    rows = np.asarray(jax.jit(jax.vmap(draw))(keys)).astype(np.int64)
    bins = rows * 16 // num_rows
    values = {}
    for i in range(4):
        share = np.diff(-(-np.arange(17) * num_rows // 16))
        observed = np.bincount(bins[:, i], minlength=16)
        expected = 50_000 * share / num_rows
        values[i] = stats.chisquare(observed, expected).pvalue
        for j in range(i):
            table = np.zeros((16, 16))
            np.add.at(table, (bins[:, i], bins[:, j]), 1)
            values[i, j] = stats.chi2_contingency(table).pvalue
            apart = (rows[:, i] - rows[:, j]) % num_rows / num_rows
            values[i, j, "apart"] = stats.kstest(apart, "uniform").pvalue
    assert not small(values)


@pytest.mark.parametrize(("num_rows", "num_rounds"), [(10, 6), (100, 8), (10**4, 12)])
def test_statistics_find_a_shuffle_of_too_few_rounds(monkeypatch, num_rows, num_rounds):
    monkeypatch.setattr(sampling, "_num_rounds", lambda _: num_rounds)
    shuffle = functools.partial(orders_by_key)  # nothing compiled serves a new object
    orders = draw(shuffle, NUM_ORDERS[num_rows], num_rows)
    found = {statistic for statistic, _ in small(p_values(orders, STATISTICS))}
    assert {"fixed_points", "adjacency"} <= found


def test_rounds_leave_few_rows_in_place():
    for num_rows in [2, 1797, 10**6, 2**31]:
        rounds = sampling._num_rounds(num_rows)
        assert 24 <= rounds <= 44
        assert num_rows / 2**rounds <= 2**-12

import collections
import dataclasses
import pathlib
import re
from typing import Any

import jax
import jax.extend.core.primitives
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import phihat
from phihat import Box
from phihat._core import jaxprs
from phihat.convexity import Verdict
from phihat.convexity.primitives import PRIMITIVES
from phihat.convexity.program import atoms
from phihat.convexity.program.problem import pose
from phihat.convexity.program.trace import Untraceable
from tests import convexity_matrices, convexity_programs
from tests.convexity_foundation import BORROWED, KINDS
from tests.convexity_zoo import FALSE_FRIENDS

_BOX = Box(0.25, 1.0)
_PROVED = (Verdict.PROVED_CONVEX, Verdict.PROVED_AFFINE, Verdict.CERTIFIED_ON_BOX)


@pytest.fixture(params=[True, False], ids=["x64", "x32"])
def flags(request):
    with jax.enable_x64(request.param):
        yield


def _bend(loss, low, high):
    """The second difference of the loss as it is, over the square of its width."""
    points = (low, (low + high) / 2, high)
    first, middle, last = (float(loss(jnp.asarray(point))) for point in points)
    return (first - 2 * middle + last) / ((high - low) / 2) ** 2


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, of_kind in KINDS.items() for name in of_kind],
)
def test_no_verdict_contradicts_what_jax_computes(flags, kind, name):
    loss = KINDS[kind][name]
    bend, room = _bend(loss, -1.0, 1.0), 1e-3
    verdict = phihat.prove_convexity(loss, 0.5).verdict
    if bend < -room:
        assert verdict not in _PROVED
    if bend > room:
        assert verdict not in (Verdict.PROVED_CONCAVE, Verdict.PROVED_AFFINE)
        report = phihat.refute_convexity(loss, 0.5, budget=0.05)
        assert report.verdict is Verdict.UNDECIDED
    bend = _bend(loss, 0.25, 1.0)
    if bend < -room:
        certified = phihat.certify_convexity(loss, _BOX, budget=0.05)
        assert certified.verdict in (Verdict.UNDECIDED, Verdict.REFUTED)
    least, most = phihat.curvature_floor(loss, _BOX, budget=0.02)
    assert least <= bend + room * abs(bend)
    assert bend - room * abs(bend) <= most


@pytest.mark.parametrize(
    ("entry", "ask"),
    {
        "radius": lambda f: (
            phihat.convexity.certified_radius(f, 0.5, budget=0.1) == 0.0
        ),
        "ridge": lambda f: (
            (bracket := phihat.convexity.minimal_ridge(f, _BOX, budget=0.1)) is None
            or bracket.certified_at >= -0.49 * _bend(f, 0.25, 1.0)
        ),
        "blocks": lambda f: phihat.convexity.convex_blocks(f, 0.5) == [],
        "refutation": lambda f: (
            phihat.refute_convexity(lambda x: -f(x), 0.5, budget=0.2).verdict
            is Verdict.UNDECIDED
        ),
        "negative": lambda f: (
            phihat.prove_convexity(lambda x: -f(x), 0.5).verdict
            is not Verdict.PROVED_CONCAVE
        ),
    }.items(),
)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("wide integers", "square"),
        ("own configuration", "a draw"),
        ("small integers", "counts"),
        ("small integers on a box", "sum"),
        ("places", "iota"),
        ("inner programs", "apply"),
        ("borrowed names", "exp"),
    ],
)
def test_every_question_is_asked_of_the_program_that_runs(
    flags, entry, ask, kind, name
):
    del entry
    loss = KINDS[kind][name]
    assert _bend(loss, 0.25, 1.0) < 0
    assert ask(loss)


def test_draws_and_integers_of_the_users_own_mode_are_proved(flags):
    proved = {
        "a draw": Verdict.PROVED_CONCAVE,
        "a coin": None,
        "a minibatch": Verdict.PROVED_CONCAVE,
    }
    for name, verdict in proved.items():
        loss = KINDS["own configuration"][name]
        found = phihat.prove_convexity(loss, 0.5).verdict
        assert verdict is None or found is verdict
        assert found is not Verdict.UNDECIDED


def test_what_lies_at_an_unknown_place_is_not_convex(flags):
    data = Box(jnp.array(0), jnp.array(2))
    loss = lambda x, i: jnp.sum(x.at[i].apply(lambda v: -(v**2)))
    report = phihat.prove_convexity(loss, jnp.ones(3), data)
    assert report.verdict is Verdict.UNDECIDED
    assert "program of its own" in report.blame[0].reason


# ----------------------------------------------------------------- names and objects


def test_every_rule_belongs_to_a_primitive_of_jax_or_to_the_trace():
    known = set(jaxprs._names().values()) | set(atoms.ATOMS) | {"row", "stack", "scan"}
    gone = {"expand_dims"}
    assert set(PRIMITIVES) <= known | gone


def test_names_are_of_one_object_each():
    counts = collections.Counter(jaxprs._names().values())
    assert set(counts.values()) == {1}
    assert set(BORROWED) & set(counts)


_USES = {
    "acos": jnp.arccos,
    "argmin": lambda x: jnp.argmin(jnp.stack([x, 1.0])) * x,
    "asin": jnp.arcsin,
    "atanh": jnp.arctanh,
    "cond": lambda x: lax.cond(jnp.array(True), jnp.exp, jnp.abs, x),
    "custom_jvp_call": jax.nn.relu,
    "dynamic_update_slice": lambda x: jnp.sum(
        lax.dynamic_update_slice(jnp.zeros(3), x[None], (x.astype(int),))
    ),
    "fft": lambda x: jnp.sum(jnp.real(jnp.fft.fft(jnp.stack([x, x])))),
    "jit": jax.jit(jnp.exp),
    "le_to": lambda x: lax.le_to_p.bind(x, x) * x,
    "lt_to": lambda x: lax.lt_to_p.bind(x, x) * x,
    "polygamma": lambda x: lax.polygamma(jnp.ones_like(x), x),
    "reduce_and": lambda x: jnp.all(jnp.stack([x, x]) > 0.0) * x,
    "reduce_window_sum": lambda x: jnp.sum(
        lax.reduce_window(jnp.stack([x, x]), 0.0, lax.add, (2,), (1,), "VALID")
    ),
    "scan": lambda x: lax.scan(lambda c, _: (c + 1.0, None), x, None, length=2)[0],
    "shift_left": lambda x: jnp.sum(jnp.arange(3) << 1) * x,
    "shift_right_arithmetic": lambda x: jnp.sum(jnp.arange(3) >> 1) * x,
    "shift_right_logical": lambda x: (
        jnp.sum(lax.shift_right_logical(jnp.arange(3), jnp.ones(3, int))) * x
    ),
    "split": lambda x: jnp.split(jnp.stack([x, x]), 2)[0][0],
    "stop_gradient": lambda x: lax.stop_gradient(2.0) * x,
    "tile": lambda x: jnp.sum(jnp.tile(jnp.stack([x, x]), 2)),
    "unstack": lambda x: jnp.unstack(jnp.stack([x, x]))[0],
    "while": lambda x: lax.while_loop(
        lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] + 1.0), (0, x)
    )[1],
}
_CALLS = {"cond", "custom_jvp_call", "jit", "scan", "stop_gradient", "while"}
"""What the trace reads itself, so that no record is needed."""


def _uses() -> dict[str, tuple[Any, ...]]:
    """Return a loss for each primitive, with its params and domain."""
    tables = convexity_programs
    losses = [
        *((f, 0.5) for f in (tables._TOTAL | tables._PARTIAL).values()),
        *(
            (lambda v, f=f: jnp.sum(f(v[0], v[1])), np.array([1.5, 1.25]))
            for f in (tables._BINARY | tables._BINARY_PARTIAL).values()
        ),
        *(
            (lambda v, f=f: jnp.sum(f(v)), np.array([1.5, 1.25, 0.5, 2.0]))
            for f in tables._REDUCTIONS.values()
        ),
        *convexity_matrices.CONVEX.values(),
        *convexity_matrices.NOT_CONVEX.values(),
        *(case[1:] for case in FALSE_FRIENDS.values()),
    ]
    found = {name: (f, 0.5, None, None) for name, f in _USES.items()}
    for loss, params, *rest in losses:
        data, domain = (*rest, None, None)[:2]
        try:
            with jax.numpy_rank_promotion("allow"):
                question = pose("test", loss, params, data, domain=domain)
        except Untraceable:
            continue
        for equation in question.program.equations:
            if equation.bind is not None:
                found.setdefault(equation.primitive, (loss, params, data, domain))
    return found


def test_without_its_object_each_primitive_is_undecided_by_name(monkeypatch):
    """As a newer jax might withdraw any of them."""
    uses, names = _uses(), jaxprs._names()
    wanted = (set(PRIMITIVES) & set(names.values())) | _CALLS
    assert wanted <= set(uses)
    unnamed = []
    for name in sorted(wanted):
        loss, params, data, domain = uses[name]
        fewer = {p: n for p, n in names.items() if n != name}
        atoms._reference_bodies.cache_clear()
        with monkeypatch.context() as patch, jax.numpy_rank_promotion("allow"):
            patch.setattr(jaxprs, "_names", lambda fewer=fewer: fewer)
            report = phihat.prove_convexity(loss, params, data, domain=domain)
        if report.verdict is not Verdict.UNDECIDED or (
            f"{name} (not jax's)" not in f"{report.blame} {report.reason}"
        ):
            unnamed.append((name, report.verdict, report.blame, report.reason))
    atoms._reference_bodies.cache_clear()
    assert not unnamed


def test_an_attribute_that_jax_no_longer_has_takes_one_name_away(monkeypatch):
    """No module but `jaxprs` names the object of a primitive, so all are imported."""
    names = set(jaxprs._names().values())
    monkeypatch.setattr(jaxprs, "_used_by", lambda *_: iter(()))
    homes = (jax.extend.core.primitives, lax)
    before = set(jaxprs._names.__wrapped__().values())
    assert len(before) > 100
    for attribute in sorted({a for home in homes for a in dir(home)}):
        if not attribute.endswith("_p"):
            continue
        with monkeypatch.context() as patch:
            for home in homes:
                patch.delattr(home, attribute, raising=False)
            left = set(jaxprs._names.__wrapped__().values())
        assert left <= before <= names
        assert len(before - left) <= 1
    folder = pathlib.Path(phihat.__file__).parent / "convexity"
    for path in folder.rglob("*.py"):
        text = re.sub(r">>> .*", "", path.read_text(encoding="utf-8"))
        assert not re.search(r"\b(lax|primitives)\.\w+_p\b", text), path


def test_the_name_of_what_is_not_known_is_told():
    loss = KINDS["borrowed names"]["exp"]
    (blame,) = phihat.prove_convexity(loss, 0.5).blame
    assert blame.primitive == "exp (not jax's)"


# --------------------------------------------------------------- scope and bad input

_Pair = collections.namedtuple("_Pair", "w w2")


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class _Layer:
    weight: float
    weight_scale: float


_SCOPES = {
    "a field": (_Pair(1.0, 1.0), "w", lambda p: p.w**2 - p.w2**2),
    "its path": (_Pair(1.0, 1.0), ".w", lambda p: p.w**2 - p.w2**2),
    "a key": ({"w": 1.0, "w2": 1.0}, "w", lambda p: p["w"] ** 2 - p["w2"] ** 2),
    "a place": ([1.0] * 12, "[1]", lambda p: p[1] ** 2 - p[10] ** 2),
    "a dataclass": (
        _Layer(1.0, 1.0),
        "weight",
        lambda p: p.weight**2 - p.weight_scale**2,
    ),
    "a group": (
        {"layer": {"a": 1.0, "b": 1.0}, "layers": 1.0},
        "layer",
        lambda p: p["layer"]["a"] ** 2 + p["layer"]["b"] ** 2 - p["layers"] ** 2,
    ),
    "a deep leaf": (
        {"l": {"a": 1.0, "ab": 1.0}},
        "['l']['a']",
        lambda p: p["l"]["a"] ** 2 - p["l"]["ab"] ** 2,
    ),
}


@pytest.mark.parametrize("name", _SCOPES)
def test_a_name_is_a_whole_name(name):
    params, wrt, loss = _SCOPES[name]
    for ask in (phihat.check_convexity, phihat.prove_convexity):
        assert ask(loss, params, wrt=wrt).verdict is Verdict.PROVED_CONVEX
    report = phihat.refute_convexity(loss, params, wrt=wrt, budget=0.1)
    assert report.verdict is Verdict.UNDECIDED
    assert phihat.check_convexity(loss, params).verdict is Verdict.REFUTED
    with pytest.raises(ValueError, match="`wrt` must name leaves"):
        phihat.prove_convexity(loss, params, wrt=wrt[:-1] + "x")
    with pytest.raises(TypeError, match="`wrt` must be the path"):
        phihat.prove_convexity(loss, params, wrt=3)


def test_a_held_leaf_is_rounded_as_the_program_rounds_it():
    loss = lambda p: (p["c"] - np.float32(0.1)) * -(1e9 * p["w"] ** 2) - p["w"]
    params = {"c": 0.1, "w": 1.0}
    with jax.enable_x64(False):
        report = phihat.prove_convexity(loss, params, wrt="w")
    assert report.verdict is Verdict.PROVED_AFFINE


_LOOPS = {
    "empty": lambda x: lax.while_loop(lambda c: False, lambda c: c, x) ** 2,
    "no carry": lambda x: (lax.while_loop(lambda c: False, lambda c: c, ()), x**2)[1],
    "no rounds": lambda x: lax.fori_loop(0, 0, lambda _, c: c, x) ** 2,
    "nothing done": lambda x: lax.fori_loop(0, 7, lambda _, c: c, x) ** 2,
    "no steps": lambda x: lax.scan(lambda c, _: (c, None), x, None, length=0)[0] ** 2,
    "an empty body": lambda x: lax.scan(lambda c, _: (c, None), x, None, 99)[0] ** 2,
    "no branches taken": lambda x: lax.cond(False, lambda v: v, lambda v: v, x) ** 2,
}


@pytest.mark.parametrize("name", _LOOPS)
def test_loops_that_do_nothing_have_a_verdict(flags, name):
    report = phihat.check_convexity(_LOOPS[name], 1.0)
    assert report.verdict is Verdict.PROVED_CONVEX


_EMPTY = {
    "a slice at the end": lambda w: jnp.sum(w[3:] ** 2) + w[0] ** 2,
    "a slice at the start": lambda w: jnp.sum(w**2) - jnp.sum(jnp.exp(w[:0])),
    "a whole turn": lambda w: jnp.sum(jnp.roll(w, 3) * w),
    "no turn": lambda w: jnp.sum(jnp.roll(w, 0) ** 2),
    "a part": lambda w: sum(jnp.sum(part**2) for part in jnp.split(w, [0, 3])),
    "no places": lambda w: jnp.sum(w[jnp.zeros(0, int)]) + jnp.sum(w**2),
    "no columns": lambda w: jnp.sum(w[:, None] @ w[None, :0]) + jnp.sum(w**2),
    "a choice": lambda w: jnp.sum(jnp.where(w[3:] > 0, -w[3:], w[3:])) + w[1] ** 2,
}


@pytest.mark.parametrize("name", _EMPTY)
def test_what_is_empty_has_no_say(flags, name):
    start = np.array([0.3, -0.7, 1.1])
    box = Box(start - [1.0, 2.0, 3.0], start + 1.0)
    loss = _EMPTY[name]
    for domain in (None, box):
        report = phihat.prove_convexity(loss, start, domain=domain)
        assert report.verdict is Verdict.PROVED_CONVEX
        assert phihat.convexity.replay(report, loss, start, domain=domain)
    assert phihat.curvature_floor(loss, box, budget=0.1)[0] >= 0.0


def test_a_loop_that_never_ends_is_undecided():
    report = phihat.check_convexity(
        lambda x: lax.while_loop(lambda c: True, lambda c: c, x), 1.0
    )
    assert report.verdict is Verdict.UNDECIDED
    assert "while" in report.reason


_ENDS = {
    "wider": Box(jnp.asarray(1.0), jnp.asarray([2.0, 2.0])),
    "narrower": Box(jnp.asarray([1.0, 1.0]), jnp.asarray(2.0)),
    "deeper": Box({"a": jnp.zeros((1, 2))}, {"a": jnp.ones((2, 2))}),
    "of one": Box(jnp.zeros(1), jnp.ones(2)),
}


@pytest.mark.parametrize("name", _ENDS)
def test_ends_of_other_shapes_are_told(name):
    data, loss = _ENDS[name], lambda w, d: jnp.sum(jax.tree.leaves(d)[0]) * w**2
    for ask in (
        lambda: phihat.certify_convexity(loss, _BOX, data),
        lambda: phihat.curvature_floor(loss, _BOX, data),
        lambda: phihat.check_convexity(loss, 1.0, data),
        lambda: phihat.prove_convexity(loss, 1.0, data),
        lambda: phihat.refute_convexity(loss, 1.0, data),
    ):
        with pytest.raises(ValueError, match="both ends of `data` must have the same"):
            ask()


def test_ends_of_other_dtypes_are_read_in_the_wider(flags):
    loss = lambda w, d: d * w**2
    assert phihat.prove_convexity(loss, 1.0, Box(0, 1.5)).verdict is _PROVED[0]
    assert phihat.prove_convexity(loss, 1.0, Box(-1, 1.5)).verdict is Verdict.UNDECIDED


def test_a_box_in_the_place_of_a_point_is_told():
    for ask in (
        phihat.check_convexity,
        phihat.prove_convexity,
        phihat.refute_convexity,
    ):
        with pytest.raises(TypeError, match="`params` must be a point, got a Box"):
            ask(lambda w: w**2, _BOX)
        with pytest.raises(TypeError, match="pass the box in which params vary as"):
            ask(lambda w: w**2, 0.5, _BOX)
        with pytest.raises(TypeError, match="`loss_fn` and `params` are exchanged"):
            ask(0.5, lambda w: w**2)


class _OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [_OwnError, ValueError, TypeError, KeyError])
def test_the_users_own_exception_is_shown_as_it_is(error):
    calls = []

    def loss(w):
        calls.append(w)
        raise error("mine")

    for ask in (
        lambda: phihat.check_convexity(loss, 1.0),
        lambda: phihat.prove_convexity(loss, 1.0),
        lambda: phihat.certify_convexity(loss, _BOX),
    ):
        calls.clear()
        with pytest.raises(error, match="mine") as raised:
            ask()
        assert type(raised.value) is error
        assert len(calls) == 1


def test_a_loss_is_traced_once():
    calls = []

    def loss(w):
        calls.append(w)
        return jnp.sum(jnp.sin(w))

    phihat.check_convexity(loss, jnp.ones(2))
    assert len(calls) == 1

# ruff: noqa: T201 - prints its table
"""Faults round the calculus, planted back: `python -m tests.convexity_faults`.

Each fault makes the prover, or the certifier of boxes, hand out a false verdict. The
independent checker must then refuse the certificate, or the chords raise the alarm.
"""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax.interpreters import batching, mlir

from phihat import Box
from phihat.convexity import api, replay
from phihat.convexity.box import certificates as boxes
from phihat.convexity.numbers import dtypes
from phihat.convexity.primitives.facts import data_movement as moves
from phihat.convexity.primitives.values import rule_builders as makers
from phihat.convexity.program import problem, structure, trace
from phihat.convexity.prover import interpreter as prover
from phihat.convexity.refuter import chord_alarm

__all__ = ["FAULTS", "Fault", "Outcome", "tried"]


class Fault(NamedTuple):
    """A fault, and a loss on which it tells.

    Attributes:
      kind: the row of the table.
      plant: a context in which the fault is there.
      loss_fn: the loss.
      params: where.
      data: its data.
      options: `wrt`, `domain`.
      x64: the configuration.
    """

    kind: str
    plant: Callable[[], Any]
    loss_fn: Any
    params: Any
    data: Any = None
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    x64: bool = False


class Outcome(NamedTuple):
    """What happened: the verdicts without and with the fault, and who noticed."""

    honest: str
    false: str
    refused: bool
    alarmed: bool


# ------------------------------------------------------------------------ the faults


@contextlib.contextmanager
def _traced_wide() -> Iterator[None]:
    """The loss is traced under x64, with floats widened."""
    original = problem.trace

    def widened(leaf: Any) -> Any:
        kind = jnp.result_type(leaf)
        wide = jnp.float64 if jnp.issubdtype(kind, jnp.floating) else kind
        return jax.ShapeDtypeStruct(np.shape(leaf), wide)

    def wide(loss_fn: Any, params: Any, data: Any = None) -> Any:
        with jax.enable_x64(True):
            return original(loss_fn, *jax.tree.map(widened, (params, data)))

    with mock.patch.object(problem, "trace", wide):
        yield


@contextlib.contextmanager
def _never_wraps() -> Iterator[None]:
    """Integers are never folded, and the rules let them grow beyond their dtype."""

    def fits(low: Any, high: Any, dtype: Any) -> Any:
        return np.ones(np.shape(low), bool) & True

    with (
        mock.patch.object(dtypes, "fits", fits),
        mock.patch.object(makers, "fits", fits),
        mock.patch.object(trace, "folded", return_value=None),
    ):
        yield


@contextlib.contextmanager
def _signed() -> Iterator[None]:
    """The uppermost bit of uint64 is read as a sign."""
    original = problem._data_range

    def data_range(low: Any, high: Any) -> Any:
        return original(*(np.asarray(end).view(np.int64) for end in (low, high)))

    with mock.patch.object(problem, "_data_range", data_range):
        yield


@contextlib.contextmanager
def _reads_no_programs() -> Iterator[None]:
    """A scatter that applies a function is read as one that moves elements."""

    with (
        mock.patch.object(trace, "refused_name", return_value=None),
        mock.patch.object(moves, "moved", lambda e, inputs, shapes: [inputs[0]]),
        mock.patch.object(prover, "moved", lambda e, inputs, shapes: [inputs[0]]),
        mock.patch.dict(structure.STRUCTURAL, scatter=lambda e, x, *_: x),
    ):
        yield


@contextlib.contextmanager
def _by_name() -> Iterator[None]:
    """Rules are keyed by the name that a primitive bears."""
    with mock.patch.object(trace, "primitive_name", lambda p: p.name):
        yield


@contextlib.contextmanager
def _by_prefix() -> Iterator[None]:
    """`wrt` frees every leaf whose path begins with the name."""

    def varied(call: str, params: Any, labels: Any, wrt: Any) -> Any:
        return tuple(label.startswith(f"['{wrt}") for label in labels)

    with mock.patch.object(problem, "_varied", varied):
        yield


def _impostor(name: str, body: Callable[..., Any]) -> Any:
    """Make a primitive that bears a name of jax's, and computes something else."""
    primitive = jax.extend.core.Primitive(name)
    primitive.def_impl(body)
    primitive.def_abstract_eval(lambda x: x)
    mlir.register_lowering(primitive, mlir.lower_fun(body, multiple_results=False))
    batching.primitive_batchers[primitive] = lambda args, dims: (
        primitive.bind(*args),
        dims[0],
    )
    return primitive


_not_exp = _impostor("exp", lambda x: -x * x)
_not_abs = _impostor("abs", lambda x: -jnp.abs(x))
_not_square = _impostor("square", lambda x: jnp.sin(x))


# ------------------------------------------------------------------------ the losses

_LABELS = np.zeros(200, np.int32)
_ONES = np.ones(3, np.float32)
_BOX = Box(np.full(200, 1.0), np.full(200, 2.0))
_INSIDE = np.full(200, 1.5, np.float32)


def _counted(labels: Any) -> Any:
    return jnp.zeros(8, jnp.int8).at[labels].add(jnp.int8(1))


def _by_draw(w: Any) -> Any:
    drawn = jax.random.uniform(jax.random.key(_KEY), ())
    return jnp.where(drawn < _CUT, -1.0, 1.0) * jnp.sum(w**2)


def _drawn(x64: bool) -> float:
    with jax.enable_x64(x64):
        return float(jax.random.uniform(jax.random.key(_KEY), ()))


_KEY, _CUT = 0, 0.5


def _find_key() -> None:
    """Choose a key whose draws, in float32 and float64, lie on two sides of a cut."""
    global _KEY, _CUT
    for key in range(32):
        _KEY = key
        narrow, wide = _drawn(False), _drawn(True)
        if narrow < wide - 0.1:
            _CUT = (narrow + wide) / 2
            return


_find_key()


def _signs(kind: Any) -> Any:
    return lambda w: (w > 0).astype(kind)


def _times(count: Any) -> Callable[[Any], Any]:
    """A sum of squares times an integer that depends on w only formally."""
    return lambda w: count(w).astype(jnp.float32) * jnp.sum(w**2)


FAULTS: dict[str, Fault] = {
    "int32 cubes": Fault(
        "integers are read wider", _traced_wide,
        lambda w: jnp.sum(jnp.arange(2000) ** 3 * w**2), np.zeros(2000, np.float32),
    ),
    "int32 products": Fault(
        "integers are read wider", _traced_wide,
        lambda w: jnp.sum(jnp.array([50_000, 3]) * jnp.array([50_000, 1]) * w**2),
        np.zeros(2, np.float32),
    ),
    "int32 sum": Fault(
        "integers are read wider", _traced_wide,
        lambda w: jnp.sum(jnp.array([2**31 - 1, 5])) * jnp.sum(w**2), _ONES,
    ),
    "int32 powers": Fault(
        "integers are read wider", _traced_wide,
        lambda w: jnp.sum(jnp.array([1300, 2]) ** 3 * w**2), np.zeros(2, np.float32),
    ),
    "branch on dtype": Fault(
        "another program is proved", _traced_wide,
        lambda w: jnp.sum(w**2) * (1 if w.dtype == jnp.float64 else -1), _ONES,
    ),
    "branch on the default dtype": Fault(
        "another program is proved", _traced_wide,
        lambda w: jnp.sum(w**2) * (jnp.arange(1).dtype.itemsize - 6.0), _ONES,
    ),
    "finfo": Fault(
        "another program is proved", _traced_wide,
        lambda w: jnp.sum(w**2) * (1e-9 - jnp.finfo(w.dtype).eps), _ONES,
    ),
    "a draw": Fault("another program is proved", _traced_wide, _by_draw, _ONES),
    "int8 counts": Fault(
        "small integers wrap", _never_wraps,
        lambda w, labels: jnp.sum(_counted(labels) * w**2),
        np.zeros(8, np.float32), _LABELS,
    ),
    "int8 iota": Fault(
        "small integers wrap", _never_wraps,
        lambda w: jnp.sum(jax.lax.iota(jnp.int8, 200) * w**2),
        np.zeros(200, np.float32),
    ),
    "int8 sum": Fault(
        "small integers wrap", _never_wraps,
        lambda w: jnp.sum(jnp.ones(200, jnp.int8), dtype=jnp.int8) * jnp.sum(w**2),
        _ONES,
    ),
    "int8 product": Fault(
        "small integers wrap", _never_wraps,
        lambda w: (jnp.int8(16) * jnp.array(12, jnp.int8)) * jnp.sum(w**2), _ONES,
    ),
    "uint8 difference": Fault(
        "small integers wrap", _never_wraps,
        lambda w: (jnp.array(3, jnp.uint8) - jnp.array(5, jnp.uint8)) * jnp.sum(w**2),
        _ONES,
    ),
    "int8 dot": Fault(
        "small integers wrap", _never_wraps,
        lambda w: jnp.ones(200, jnp.int8) @ jnp.ones(200, jnp.int8) * jnp.sum(w**2),
        _ONES,
    ),
    "int8 running sum": Fault(
        "small integers wrap", _never_wraps,
        lambda w: jnp.sum(jnp.cumsum(jnp.ones(200, jnp.int8), dtype=jnp.int8) * w**2),
        np.zeros(200, np.float32),
    ),
    "uint64 with bit 63": Fault(
        "small integers wrap", _signed,
        lambda w, c: jnp.sum(c * w**2),
        np.zeros(2), np.array([2**63 + 5, 2**63], np.uint64), {}, True,
    ),
    "int8 sum of comparisons on a box": Fault(
        "integers wrap on a box", _never_wraps,
        _times(lambda w: jnp.sum(_signs(jnp.int8)(w), dtype=jnp.int8)),
        _INSIDE, None, {"domain": _BOX},
    ),
    "int8 dot of comparisons on a box": Fault(
        "integers wrap on a box", _never_wraps,
        _times(lambda w: _signs(jnp.int8)(w) @ jnp.ones(200, jnp.int8)),
        _INSIDE, None, {"domain": _BOX},
    ),
    "int8 running sum of comparisons on a box": Fault(
        "integers wrap on a box", _never_wraps,
        _times(lambda w: jnp.cumsum(_signs(jnp.int8)(w), dtype=jnp.int8)[-1]),
        _INSIDE, None, {"domain": _BOX},
    ),
    "int8 product of comparisons on a box": Fault(
        "integers wrap on a box", _never_wraps,
        _times(lambda w: jnp.prod((w[:7] > 0) * jnp.int8(2), dtype=jnp.int8)),
        _INSIDE, None, {"domain": _BOX},
    ),
    "int8 sum, by bounds of the Hessian": Fault(
        "integers wrap on a box", _never_wraps,
        _times(lambda w: jnp.sum(jnp.repeat(w > 0, 100), dtype=jnp.int8)),
        np.full(2, 1.5, np.float32), None,
        {"box": Box(np.full(2, 1.0), np.full(2, 2.0))},
    ),
    "apply at an index": Fault(
        "a program inside", _reads_no_programs,
        lambda w, i: jnp.sum(w.at[i].apply(lambda v: -(v**2))), _ONES, np.int32(1),
    ),
    "apply of a sine": Fault(
        "a program inside", _reads_no_programs,
        lambda w, i: jnp.sum(w.at[i].apply(jnp.sin)), _ONES, np.int32(0),
    ),
    "an impostor of exp": Fault(
        "an impostor", _by_name, lambda w: jnp.sum(_not_exp.bind(w)), _ONES
    ),
    "an impostor of abs": Fault(
        "an impostor", _by_name, lambda w: jnp.sum(_not_abs.bind(w)), _ONES
    ),
    "an impostor of square": Fault(
        "an impostor", _by_name, lambda w: jnp.sum(_not_square.bind(w)), _ONES
    ),
    "a common prefix": Fault(
        "scope", _by_prefix, lambda p: p["w"] ** 2 + p["w_scale"] ** 2,
        {"w": np.float32(1.0), "w_scale": np.float32(2.0)}, None, {"wrt": "w"},
    ),
    "a common prefix of a group": Fault(
        "scope", _by_prefix, lambda p: jnp.sum(p["layer"]["a"] ** 2) + p["layer2"] ** 2,
        {"layer": {"a": _ONES}, "layer2": np.float32(2.0)}, None, {"wrt": "layer"},
    ),
}  # fmt: skip
"""By name."""


def tried(fault: Fault) -> Outcome:
    """Ask without the fault and with it; then ask the checker, and the chords."""
    with jax.enable_x64(fault.x64), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        honest = _asked(fault)
        with fault.plant():
            quiet = lambda report, *_: report
            with mock.patch.object(chord_alarm, "guarded", quiet):
                false = _asked(fault)
            with mock.patch.dict(chord_alarm._tried, clear=True):
                alarmed = _asked(fault).verdict is not false.verdict
        options = dict(fault.options)
        options["domain"] = options.pop("box", options.get("domain"))
        given = (false, fault.loss_fn, fault.params, fault.data)
        with fault.plant():
            accepted = replay(*given, **options)
        return Outcome(honest.verdict.name, false.verdict.name, not accepted, alarmed)


def _asked(fault: Fault) -> Any:
    given = (fault.loss_fn, fault.params, fault.data)
    if "box" in fault.options:
        box = fault.options["box"]
        return boxes.certify_convexity(fault.loss_fn, box, fault.data, budget=1.0)
    return api.prove_convexity(*given, **fault.options)


def main() -> int:
    missed = 0
    print(
        f"{'kind':28} {'fault':42} {'honest':16} {'with the fault':18} kernel  chords"
    )
    for name, fault in FAULTS.items():
        outcome = tried(fault)
        missed += not (outcome.refused or outcome.alarmed)
        print(
            f"{fault.kind:28} {name:42} {outcome.honest:16} {outcome.false:18} "
            f"{'refuses' if outcome.refused else 'ACCEPTS':8}"
            f"{'alarm' if outcome.alarmed else '-'}"
        )
    print(f"{len(FAULTS)} faults, {missed} missed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())

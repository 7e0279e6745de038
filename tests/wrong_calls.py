# ruff: noqa: T201 - prints its table
"""Every argument of every public function, given as something else: what comes of it.

A call must be refused by one sentence that begins with the name of the function and
names an argument, or come to what the right call comes to. What may mean something
else is in `MEANT`, with the reason.

Usage: python -m tests.wrong_calls [--only NAME ...] [--share 1/4]
"""

import argparse
import collections
import decimal
import fractions
import inspect
import os
import re
import signal
import sys
import time
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import phihat
from tests import right_calls

SECONDS = 30
UNREADABLE = ("a deleted array", "an escaped tracer")
HANDED_ON = [("eval_params", "params"), ("full_batch", "data")]
HANDED_ON += [("from_indices", "indices")]
"""What is handed on unread is refused by whoever reads it."""
SKIP = object()
"""What a kind returns where it does not apply."""


class Found(NamedTuple):
    function: str
    argument: str
    kind: str
    verdict: str  # "refused", "equal", "meant", or else "raw", "silent", "hangs"
    text: str = ""


# ------------------------------------------------------------------- what is given


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, jax.Array)) and np.ndim(value) > 0


def first_array(value: Any) -> Any:
    """Return the array of a value, or of the first entry of a tuple or a dict."""
    if is_array(value) and value.dtype.kind in "iuf":
        return value
    return SKIP


def for_array(change: Any) -> Any:
    """Change an array, or the first of a tuple of arrays."""

    def give(value: Any) -> Any:
        if isinstance(value, tuple) and value and is_array(value[0]):
            return (change(value[0]), *value[1:])
        return change(value) if first_array(value) is not SKIP else SKIP

    return give


def for_number(change: Any) -> Any:
    return lambda value: change(value) if is_number(value) else SKIP


def always(given: Any) -> Any:
    return lambda _: given


def masked(array: Any) -> Any:
    return np.ma.masked_array(np.asarray(array), mask=np.arange(array.size) == 0)


def with_nan(array: Any) -> Any:
    changed = np.array(array, float)
    changed.flat[0] = np.nan
    return changed


def as_series(array: Any) -> Any:
    pandas = sys.modules.get("pandas") or __import__("pandas")
    if array.ndim == 1:
        return pandas.Series(np.asarray(array))
    return pandas.DataFrame(np.asarray(array)) if array.ndim == 2 else SKIP


def as_xarray(array: Any) -> Any:
    return __import__("xarray").DataArray(np.asarray(array))


def as_torch(array: Any) -> Any:
    return __import__("torch").tensor(np.asarray(array))


def jagged(array: Any) -> Any:
    del array
    return [[1.0, 2.0], [3.0]]


def deleted(array: Any) -> Any:
    array = jnp.array(array)
    array.delete()
    return array


def escaped(array: Any) -> Any:
    """Return a tracer of a transformation that has ended."""
    kept: list[Any] = []
    jax.eval_shape(kept.append, jnp.asarray(array))
    return kept[0]


class Thing:
    """An object of no use here."""

    def __repr__(self):
        return "Thing()"


def some_function(*arguments: Any) -> Any:
    raise ZeroDivisionError("this function is of no use")


KINDS = {
    # what is nothing of the sort
    "None": always(None),
    "a string": always("abc"),
    "an empty string": always(""),
    "bytes": always(b"abc"),
    "True": always(True),
    "a complex number": always(1.0 + 2.0j),
    "an object": always(Thing()),
    "a class": always(dict),
    "a function": always(some_function),
    "an uncalled factory": always(phihat.adam),
    "an optimizer": always(phihat.adam(0.2)),
    "an empty list": always([]),
    "an empty dict": always({}),
    "a jagged list": always([[1.0, 2.0], [3.0]]),
    "a list of strings": always(["a", "b"]),
    "a set": always({1.5}),
    "a generator": lambda _: (number for number in (1.0, 2.0)),
    "an array of text": always(np.array(["a", "b"])),
    "an array of objects": always(np.array([Thing(), None], dtype=object)),
    "an array of two": always(np.array([0.25, 0.35])),
    "an empty array": always(np.zeros(0)),
    "a structured array": always(np.zeros(2, [("a", float)])),
    "a time": always(np.datetime64("2020-01-01")),
    "a key": always(jax.random.key(5)),
    "an old-style key": always(jax.random.PRNGKey(5)),
    # numbers
    "NaN": always(float("nan")),
    "inf": always(float("inf")),
    "minus one": for_number(lambda value: -1 if isinstance(value, int) else -1.0),
    "half": for_number(lambda value: value + 0.5 if isinstance(value, int) else SKIP),
    "a string of the number": for_number(str),
    "a list of the number": for_number(lambda value: [value]),
    "an array of the number": for_number(lambda value: np.array([value])),
    "the number in NumPy": for_number(lambda value: np.asarray(value)[()]),
    "a 0-d array": for_number(np.asarray),
    "the number in jax": for_number(jnp.asarray),
    "a fraction": for_number(fractions.Fraction),
    "a decimal": for_number(decimal.Decimal),
    "a whole number beyond floats": for_number(lambda _: 2**2000),
    # arrays
    "a list of lists": for_array(lambda array: np.asarray(array).tolist()),
    "float32": for_array(lambda array: np.asarray(array, np.float32)),
    "jax": for_array(jnp.asarray),
    "a masked array": for_array(masked),
    "numbers as objects": for_array(lambda array: np.asarray(array).astype(object)),
    "numbers as text": for_array(lambda array: np.asarray(array).astype(str)),
    "pandas": for_array(as_series),
    "xarray": for_array(as_xarray),
    "torch": for_array(as_torch),
    "with a NaN": for_array(with_nan),
    "jagged": for_array(jagged),
    "one row less": for_array(lambda array: np.asarray(array)[:-1]),
    "another axis": for_array(lambda array: np.asarray(array)[..., None, None]),
    "a scalar": for_array(lambda array: float(np.asarray(array).flat[0])),
    "a deleted array": for_array(deleted),
    "an escaped tracer": for_array(escaped),
    "Fortran order": for_array(lambda array: np.asfortranarray(array)),
    "reversed strides": for_array(lambda array: np.asarray(array)[::-1].copy()[::-1]),
}

MISSPELT, PEER = "a misspelt name", "too many by place"


# ------------------------------------------------------------- what may be meant

OTHER_NUMBERS = r"an array of two|an old-style key|with a NaN|NaN|inf|one row less"
MEANT = {
    (
        r".*\.(data|batch|vector|params|start|direction|left|right|x|y|tree|reference"
        r"|positions|opt_state|sigma|weights|like|ends|results?|target|low|high)",
        OTHER_NUMBERS,
    ): "these are other numbers of the right kind; NaN in gives NaN out",
    (r".*\.(data|batch|tree|x|left|right|params)", "another axis|a scalar|jagged"): (
        "arrays of any shape are meant"
    ),
    (r".*\.params|.*\.start", "a list of lists"): "a list is a pytree of two numbers",
    (r".*\.(left|right|data|tree|positions)", "True|a complex number|another axis"): (
        "numbers too"
    ),
    (r".*\.params", "an optimizer|a jagged list|a list of strings"): (
        "any pytree of numbers, an optimizer too; `labels` names the leaves of any tree"
    ),
    (r".*\.(labels\.params|axes_of\.tree)", ".*"): "any pytree",
    (r".*\.traits\.loss_fn", "a function|an uncalled factory"): (
        "what is known of a loss that is not phihat's: nothing"
    ),
    (r".*\.(shape|sizes|rows|data|params|result)", "bytes"): (
        "to Python, bytes are a sequence of whole numbers"
    ),
    (r".*\.(rows|standardize\.x)", "an empty .*"): "nothing in, nothing out",
    (r".*\.(full_batch|shard_batch)\.(data|batch)", ".*"): (
        "any pytree of arrays, an empty one too, is a batch"
    ),
    (r".*\.param_shardings\.params", ".*"): (
        "a plan needs the shapes of the leaves alone, and any tree has some"
    ),
    (
        r".*\.init\.params|.*\.permute\.positions|.*\.make_styles\.names",
        "an empty .*",
    ): ("nothing in, nothing out"),
    (r".*\.trainability\.target", "minus one"): "a loss may be negative",
    (r".*\.key", "a key"): "another key draws other numbers",
    (r".*\.optimizer", "an optimizer"): "another optimizer takes other steps",
    (r".*\.tolerance|.*\.projection", "None"): "there is none: a default of the docs",
    (r".*\.save\.tree|.*\.flatten\.tree|.*\.replicate\.tree", ".*"): (
        "any pytree of arrays, an empty one too"
    ),
    (r".*\.model_state", ".*"): "any pytree of arrays: what the loss makes of it",
    (r".*\.save\.notes", ".*"): "whatever JSON can write",
    (r".*\.record|.*\.resume_anyway", "an empty .*"): "nothing is asked for",
    (r".*\.path", "a string"): "another path",
    (r".*\.models\..*", "True|a complex number|inf|an empty .*"): (
        "a model computes with whatever numbers it is given, as NumPy does"
    ),
    (r".*\.budget", "inf"): "no limit of time",
    (r".*\.bounds", "an empty dict"): "no params are bounded",
    (r".*\.learning_rate_range\.optimizer", "an uncalled factory"): (
        "a factory is what it takes"
    ),
    (r".*\.eval_params\.params", ".*"): "params without a look-ahead are handed back",
    (r".*\.fit_curves?\.sigma", "a scalar|float32|jax"): "the result keeps it as given",
    (r".*\.fit_curves\.y", "pandas"): "the result keeps its labels",
    (r".*\.fit_curve.*\.(x|y|start)", "float32|jax"): (
        "float32 data are fitted in float64, but were rounded before"
    ),
}
"""By patterns of "function.argument" and of the kind: why another result is right."""

# ----------------------------------------------------------------------- verdicts


class Hangs(BaseException):
    pass


def on_alarm(number: int, frame: Any) -> None:
    del number, frame
    raise Hangs


def summary(value: Any) -> list[Any]:
    """Return arrays and texts that tell one outcome from another."""
    if hasattr(value, "get_lines"):  # a picture
        return [np.asarray(line.get_xydata()) for line in value.get_lines()]
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [len(value)]
    if hasattr(value, "__dataclass_fields__"):
        names = set(value.__dataclass_fields__) - {"seconds"}
        fields = {name: getattr(value, name) for name in names}
        return [one for name in sorted(fields) for one in summary(fields[name])]
    if hasattr(value, "_asdict"):
        fields = {
            name: one for name, one in value._asdict().items() if name != "seconds"
        }
        return [one for entry in fields.values() for one in summary(entry)]
    if isinstance(value, dict):
        return [one for name in sorted(value, key=str) for one in summary(value[name])]
    if isinstance(value, (list, tuple)):
        return [one for entry in value for one in summary(entry)]
    leaves = jax.tree.leaves(value)
    if len(leaves) != 1 or leaves[0] is not value:
        return [one for leaf in leaves for one in summary(leaf)]
    if isinstance(value, jax.Array) and jnp.issubdtype(
        value.dtype, jax.dtypes.prng_key
    ):
        return [np.asarray(jax.random.key_data(value))]
    if isinstance(value, (np.ndarray, jax.Array, np.generic, bool, int, float)):
        return [np.asarray(value)]
    return [re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:200]]


def same(one: list[Any], other: list[Any]) -> bool:
    if len(one) != len(other):
        return False
    return all(map(same_leaf, one, other))


def same_leaf(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if one.shape != other.shape:
            return False
        if one.dtype.kind in "biufc" and other.dtype.kind in "biufc":
            return np.allclose(one, other, rtol=2e-4, atol=1e-5, equal_nan=True)
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if isinstance(one, str) and isinstance(other, str):
        return re.sub(r"[\d.e-]+", "#", one) == re.sub(r"[\d.e-]+", "#", other)
    return type(one) is type(other)


def outcome(name: str, function: Any, arguments: dict[str, Any]) -> list[Any]:
    value = function(**arguments)
    use = right_calls.USES.get(name.rsplit(".", 1)[-1])
    return summary(value if use is None else use(value))


def is_sentence(error: BaseException) -> bool:
    """Tell whether an error is one sentence that begins with a call of phihat's.

    Where the loss or the optimizer was made by another call, that one may speak.
    """
    text = str(error)
    call = re.match(r"([A-Za-z_0-9]+): ", text)
    return (
        call is not None and call[1] in NAMES and "\n" not in text and len(text) < 600
    )


NAMES = {name.rsplit(".", 1)[-1] for name in right_calls.public_functions()}
NAMES |= {"best", "Tolerance", "Recorder"}


def reason_meant(name: str, argument: str, kind: str) -> str | None:
    for (place, kinds), reason in MEANT.items():
        if re.fullmatch(place, f"{name}.{argument}") and re.fullmatch(kinds, kind):
            return reason
    return None


def is_users(error: BaseException) -> bool:
    """Tell an error of a line of the caller's own function: it passes unchanged."""
    trace, names = error.__traceback__, []
    while trace is not None:
        code = trace.tb_frame.f_code
        names.append(code.co_name if code.co_filename == OWN_FILE else "")
        trace = trace.tb_next
    if isinstance(error, TypeError) and str(error).startswith("some_function()"):
        return True
    return isinstance(error, ZeroDivisionError) or bool(OWN & {*names})


OWN = {"line", "parabola", "saddle", "descend", "cubic", "use_loss", "use_class_loss"}
OWN |= {"<lambda>"}
OWN_FILE = right_calls.__file__


def judge(name: str, function: Any, argument: str, kind: str, given: Any, right: Any):
    arguments = right_calls.RIGHT_CALLS[name]() | {argument: given}
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        got = outcome(name, function, arguments)
    except Hangs:
        return Found(name, argument, kind, "hangs")
    except Exception as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        text = f"{type(error).__name__}: {error}".replace("\n", " | ")[:240]
        if is_users(error) or is_sentence(error):
            return Found(name, argument, kind, "refused", text)
        return Found(name, argument, kind, "raw", text)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if same(right, got):
        return Found(name, argument, kind, "equal")
    reason = reason_meant(name, argument, kind)
    if reason is not None:
        return Found(name, argument, kind, "meant", reason)
    shown = [str(one).replace("\n", " ")[:40] for one in got[:3]]
    return Found(name, argument, kind, "silent", f"{shown} for {right[:2]}"[:240])


def misspelt(word: str) -> str:
    return word[:-1] if len(word) > 4 else f"{word}_"


def check_function(name: str, function: Any, kinds: Any = None) -> list[Found]:
    """Give every argument of a function as every kind."""
    parameters = inspect.signature(function).parameters
    make = right_calls.RIGHT_CALLS[name]
    right = outcome(name, function, make())
    found = []
    for argument, parameter in parameters.items():
        value = make().get(argument, parameter.default)
        for kind, give in (kinds or KINDS).items():
            given = give(value)
            if given is SKIP or (given is None and parameter.default is None):
                continue
            if given is True and isinstance(parameter.default, bool):
                continue
            if kind in UNREADABLE and (function.__name__, argument) in HANDED_ON:
                continue
            found.append(judge(name, function, argument, kind, given, right))
        word = misspelt(argument)
        if word not in parameters:
            renamed = {k: v for k, v in make().items() if k != argument}
            found.append(judge_unbound(name, function, argument, renamed | {word: 1}))
    return found


def judge_unbound(
    name: str, function: Any, argument: str, arguments: dict[str, Any]
) -> Found:
    try:
        function(**arguments)
    except TypeError as error:
        is_good = is_sentence(error) and f"`{argument}`" in str(error)
        verdict = "refused" if is_good else "raw"
        return Found(name, argument, MISSPELT, verdict, str(error)[:240])
    return Found(name, argument, MISSPELT, "silent")


def rows() -> dict[str, Any]:
    """Return the functions with a row that take arguments."""
    return {
        name: function
        for name, function in right_calls.public_functions().items()
        if name not in right_calls.NOT_CALLED and inspect.signature(function).parameters
    }


def table(found: list[Found]) -> str:
    counts = collections.Counter(one.verdict for one in found)
    triples = {one[:3] for one in found}
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in sorted(counts))
    return f"{len(triples)} distinct (function, argument, kind): {told}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--share", default="1/1")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    part, parts = map(int, options.share.split("/"))
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, on_alarm)
    __import__("matplotlib").use("Agg")
    right_calls.FOLDER.mkdir(exist_ok=True)
    os.chdir(right_calls.FOLDER)  # some calls write where a path leads
    began, found = time.monotonic(), []
    for number, (name, function) in enumerate(rows().items()):
        if options.only and not any(one in name for one in options.only):
            continue
        if number % parts != part - 1:
            continue
        here = check_function(name, function)
        found += here
        for one in here:
            if options.show or one.verdict not in ("refused", "equal", "meant"):
                place = f"{one.function}({one.argument})"
                print(f"{one.verdict:7} {place} {one.kind}: {one.text}")
        if len(found) > 1500:
            phihat.clear_programs()
        sys.stdout.flush()
    print(f"{table(found)}; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

# ruff: noqa: T201 - prints its score
"""Plant bugs in the prover; count those the tests notice: `python -m tests.mutation`.

Each mutant is one line of the source, changed. The package is imported anew with that
line, and asked about programs that were traced beforehand: the directed ones, claim by
claim, against values; the zoo and its twins; random ones. A mutant is killed by a claim
that values contradict, by a false friend that is proved, a twin that is lost, or a
crash of the package; a crash of this module ends the run. First the package is imported
anew without a bug, and then nothing may be noticed. Of the mutants that survive, some
change nothing, which a sentence argues; the others name a hole in the tests.
"""

import argparse
import ast
import contextlib
import functools
import importlib
import importlib.machinery
import itertools
import multiprocessing
import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

import phihat
from tests import (
    convexity_attacks,
    convexity_foundation,
    convexity_matrices,
    convexity_programs,
    convexity_values,
    convexity_zoo,
    soundness,
)
from tests.convexity_mutants import MUTANTS, Mutant
from tests.convexity_programs import Case

__all__ = ["crash", "main", "place_of"]

_PACKAGE = "phihat.convexity"
_KEPT = (f"{_PACKAGE}.numbers.intervals",)
"""Problems that were posed beforehand hold intervals: these modules stay."""

_SECONDS = 120.0
"""A mutant that keeps the processor busy for longer is noticed."""

_TESTS = str(pathlib.Path(__file__).parent)
_SOURCE = str(pathlib.Path(phihat.__file__).parent)

_NO_BUG = Mutant("prover.interpreter", "def prove(", "def prove(")
"""Changes nothing."""

Called = set[tuple[str, int]]
"""Modules and first lines of functions."""

_RETRACED = {
    *(
        f"program.{name}"
        for name in ("trace", "atoms", "complexes", "folding", "loops")
    ),
    "program.structure",
    "program.problem",
    "program.jaxprs",
    "numbers.dtypes",
}


class Prepared(NamedTuple):
    """A program, its values on chords, and what the prover says without a bug.

    Attributes:
      called: the functions that the prover calls: a bug elsewhere changes nothing.
    """

    case: Case
    problem: Any
    inputs: Any
    values: Any
    claims: dict[int, Any]
    called: Called


class Posed(NamedTuple):
    """A program of the zoo with the verdict that is right."""

    case: Case
    problem: Any
    claim: str
    expected: bool
    called: Called


# ----------------------------------------------------------------- planting the bugs


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a module once; the mutated one with its line changed."""

    compiled: ClassVar[dict[str, Any]] = {}
    mutant: Mutant | None = None

    def get_code(self, fullname: str) -> Any:
        mutant = _Loader.mutant
        if mutant is not None and fullname == f"{_PACKAGE}.{mutant.module}":
            source = _planted(self.get_data(self.path).decode(), mutant)
            return compile(source, self.path, "exec", dont_inherit=True)
        if fullname not in self.compiled:
            self.compiled[fullname] = super().get_code(fullname)
        return self.compiled[fullname]


def _planted(source: str, mutant: Mutant) -> str:
    parts = source.split(mutant.old)
    if len(parts) <= mutant.occurrence + 1:
        raise LookupError(f"{mutant.module}: no line {mutant.old!r}")
    k = mutant.occurrence + 1
    return mutant.old.join(parts[:k]) + mutant.new + mutant.old.join(parts[k:])


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith(_PACKAGE) or name.startswith(_KEPT):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin:
            spec.loader = _Loader(name, spec.origin)
        return spec


@contextlib.contextmanager
def planted(mutant: Mutant) -> Iterator[tuple[Any, Any]]:
    """Import the package with a bug; yield its `prover` and its `problem`."""

    def is_ours(name: str) -> bool:
        return name.startswith(_PACKAGE) and not name.startswith(_KEPT)

    kept = {name: m for name, m in sys.modules.items() if is_ours(name)}
    for name in kept:
        del sys.modules[name]
    _Loader.mutant = mutant
    sys.meta_path.insert(0, _Finder)
    try:
        yield (
            importlib.import_module(f"{_PACKAGE}.prover.interpreter"),
            importlib.import_module(f"{_PACKAGE}.program.problem"),
        )
    finally:
        sys.meta_path.remove(_Finder)
        for name in [name for name in sys.modules if is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(kept)
        phihat.convexity = kept[_PACKAGE]


# ------------------------------------------------------------------------- noticing


@contextlib.contextmanager
def watched() -> Iterator[Called]:
    """Note which functions of the package are called."""
    called: Called = set()
    codes: set[Any] = set()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code not in codes:
            codes.add(frame.f_code)
            name = frame.f_globals.get("__name__", "")
            if name.startswith(_PACKAGE):
                called.add((name[len(_PACKAGE) + 1 :], frame.f_code.co_firstlineno))

    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)


def place_of(mutant: Mutant) -> tuple[str, int] | None:
    """Return the function that holds a mutant; None where all programs may meet it.

    They may where the line belongs to no function, or to one that remembers results:
    it is not called again by those that profit.
    """
    source, functions = _functions(mutant.module)
    start = -1
    for _ in range(mutant.occurrence + 1):
        start = source.index(mutant.old, start + 1)
    pairs = zip(mutant.old, mutant.new, strict=False)
    common = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    line = source.count("\n", 0, start + common) + 1
    around = [entry for entry in functions if entry[0] <= line <= entry[1]]
    if not around or any(remembers for *_, remembers in around):
        return None
    return mutant.module, max(first for first, *_ in around)


def makes_another(place: tuple[str, int]) -> bool:
    """Tell whether a function makes another, which is what programs then call."""
    module, first = place
    _, functions = _functions(module)
    last = next(end for begin, end, _ in functions if begin == first)
    return any(first < begin <= last for begin, *_ in functions)


@functools.cache
def _functions(module: str) -> tuple[str, list[tuple[int, int, bool]]]:
    """Return a module's text; of its functions both ends, and whether they remember."""
    folder = pathlib.Path(phihat.__file__).parent / "convexity"
    path = folder / f"{module.replace('.', '/')}.py"
    source = path.read_text(encoding="utf-8")
    functions = [
        (
            min([node.lineno, *(d.lineno for d in node.decorator_list)]),
            node.end_lineno or node.lineno,
            any("cache" in ast.dump(d) for d in node.decorator_list),
        )
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    ]
    return source, functions


def prepared(case: Case, count: int = 32) -> Prepared:
    problem = convexity_programs.posed(case)
    inputs = convexity_programs.chords(problem, np.random.default_rng(0), count)
    values = convexity_values.values_of(problem.program, inputs)
    with watched() as called:
        _, known = convexity_programs.facts_of(problem)
    claims = {n: _claims(array) for n, array in known.items()}
    return Prepared(case, problem, inputs, values, claims, called)


def _claims(array: Any) -> Any:
    places = None if array.places is None else array.places.tobytes()
    return array.shape, tuple(map(str, array.classes)), places


def _is_false(case: Prepared, prover: Any) -> str | None:
    """Tell which claim, new with the mutant, the values contradict."""
    try:
        facts, known = convexity_programs.facts_of(case.problem, prover)
    except TimeoutError:
        raise
    except Exception as error:
        return crash(error, case.case.name)
    new = {n for n, array in known.items() if _claims(array) != case.claims.get(n)}
    if not new:
        return None
    found = convexity_programs.judged(
        case.problem, case.inputs, case.values, facts, known, only=new
    )
    if not found.false:
        return None
    return f"false claim: {found.false[0].claim} in {case.case.name}"


def crash(error: Exception, name: str) -> str:
    """Describe a crash of the package; raise one of the tests again."""
    frames = [
        frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    ours = [file for file in frames if file.startswith((_SOURCE, _TESTS))]
    if not ours or ours[-1].startswith(_TESTS):
        raise error
    return f"crash: {type(error).__name__} in {name}"


def _is_misjudged(
    cases: Sequence[Posed], prover: Any, problem: Any, anew: bool
) -> str | None:
    """Tell which verdict of the zoo is wrong."""
    for case, posed, claim, expected, _ in cases:
        try:
            if anew:
                with jax.numpy_rank_promotion("allow"):
                    posed = problem.pose("x", *case[1:4], domain=case.domain)
            proof = prover.prove(posed)
        except TimeoutError:
            raise
        except Exception as error:
            return crash(error, f"the zoo: {case.name}")
        if _holds(proof, claim) != expected:
            return f"zoo: {case.name} {'lost' if expected else 'proved'}"
    return None


def _holds(proof: Any, claim: str) -> bool:
    if claim == "constraints":
        return proof.facts.convex and bool(proof.constraints)
    return getattr(proof.facts, claim)


def _zoo() -> list[Posed]:
    cases = [
        *((case, "convex", False) for case in convexity_zoo.FALSE_FRIENDS.values()),
        *((case, "convex", True) for case in convexity_zoo.TWINS.values()),
        *(
            (case, "constraints", True)
            for case in convexity_zoo.PARTLY_DEFINED.values()
        ),
    ]
    for table, expected in (
        (convexity_attacks.FALSE, False),
        (convexity_attacks.TRUE, True),
    ):
        for name, entry in table.items():
            params = jax.tree.map(lambda x: np.asarray(x, np.float64), entry.params)
            case = Case(name, entry.loss_fn, params, entry.data, entry.domain)
            cases.append((case, entry.claims, expected))
    for table, expected in (
        (convexity_matrices.CONVEX, True),
        (convexity_matrices.NOT_CONVEX, False),
    ):
        for name, (loss_fn, params) in table.items():
            cases.append((Case(name, loss_fn, params), "convex", expected))
    for kind, of_kind in convexity_foundation.KINDS.items():
        for name, loss_fn in of_kind.items():
            if float(loss_fn(0.0)) > (float(loss_fn(1.0)) + float(loss_fn(-1.0))) / 2:
                case = Case(f"{kind}: {name}", loss_fn, np.float64(0.5))
                cases.append((case, "convex", False))
    zoo = []
    for case, claim, expected in cases:
        posed = convexity_programs.posed(case)
        begin = time.process_time()
        with watched() as called:
            proof = convexity_programs.prover.prove(posed)
        is_quick = time.process_time() - begin < 1.0
        if is_quick and _holds(proof, claim) == expected:
            zoo.append(Posed(case, posed, claim, expected, called))
    return zoo


def judge(
    mutant: Mutant,
    directed: Sequence[Prepared],
    random: Sequence[Prepared],
    zoo: Sequence[Posed],
) -> str | None:
    """Return what kills a mutant, or None where it survives."""
    place, anew = place_of(mutant), mutant.module in _RETRACED
    if mutant == _NO_BUG:
        place, anew = None, True
    if place is not None and not makes_another(place):
        directed = [case for case in directed if place in case.called]
        random = [case for case in random if place in case.called]
        zoo = [case for case in zoo if anew or place in case.called]
    hinted = [
        case
        for case in directed
        if mutant.hints and case.case.name.startswith(mutant.hints)
    ]
    names = {case.case.name for case in hinted}
    others = [case for case in directed if case.case.name not in names]
    with planted(mutant) as (prover, problem):
        return (
            _first(_is_false(case, prover) for case in hinted)
            or _is_misjudged(zoo, prover, problem, anew)
            or _first(_is_false(case, prover) for case in [*others, *random])
        )


def _first(outcomes: Iterable[str | None]) -> str | None:
    return next(filter(None, outcomes), None)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--only", default="", help="a part of the mutants' text")
    parser.add_argument("--random", type=int, default=60, help="random programs")
    parser.add_argument("--first", type=int, default=0, help="the first mutant")
    parser.add_argument("--number", type=int, default=len(MUTANTS), help="how many")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    begin = time.perf_counter()
    chosen = [
        place
        for place in range(len(MUTANTS))[options.first :][: options.number]
        if options.only in _text(MUTANTS[place])
    ]
    score = {"killed": 0, "argued": 0, "survived": 0}
    os.environ["JAX_ENABLE_X64"] = "1"  # of the processes, when they import
    context = multiprocessing.get_context("spawn")
    jobs = max(min(options.jobs, len(chosen)), 1)
    with context.Pool(jobs, _prepare, (options.random,)) as pool:
        for place, killed, seconds in pool.imap_unordered(_outcome, chosen):
            mutant = MUTANTS[place]
            outcome = (
                "killed" if killed else "argued" if mutant.argument else "survived"
            )
            score[outcome] += 1
            print(
                f"{outcome:9s}{place} {_text(mutant)}, {seconds:.0f} s\n"
                f"         {killed or mutant.argument}",
                flush=True,
            )
    print(
        f"{sum(score.values())} mutants: {score['killed']} killed, {score['argued']} "
        f"argued to change nothing, {score['survived']} survived; "
        f"{time.perf_counter() - begin:.0f} s"
    )
    return int(score["survived"] > 0)


def _text(mutant: Mutant) -> str:
    return f"{mutant.module}: {mutant.old.strip()!r} -> {mutant.new.strip()!r}"


_PREPARED: list[Any] = []
"""The programs of a process: directed, random, zoo."""


def _prepare(count: int) -> None:
    """Trace the programs once for all mutants of this process."""
    jax.config.update("jax_enable_x64", True)
    signal.signal(signal.SIGPROF, _late)
    begin = time.perf_counter()
    zoo = _zoo()
    directed = [prepared(case) for case in convexity_programs.directed()]
    random = [
        prepared(convexity_programs.random_case(soundness.numbers(seed)))
        for seed in range(count)
    ]
    noticed = judge(_NO_BUG, directed, random, zoo)
    if noticed is not None:
        raise AssertionError(f"without a bug, this was noticed: {noticed}")
    _PREPARED[:] = directed, random, zoo
    print(
        f"{len(directed)} directed and {len(random)} random programs, {len(zoo)} of "
        f"the zoo, prepared in {time.perf_counter() - begin:.0f} s",
        flush=True,
    )


def _outcome(place: int) -> tuple[int, str | None, float]:
    begin = time.perf_counter()
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        killed = judge(MUTANTS[place], *_PREPARED)
    except TimeoutError:
        killed = "it does not end"
    signal.setitimer(signal.ITIMER_PROF, 0)
    return place, killed, time.perf_counter() - begin


def _late(*_: Any) -> None:
    raise TimeoutError


if __name__ == "__main__":
    sys.exit(main())

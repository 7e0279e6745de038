# ruff: noqa: T201 - prints its score
"""Plant bugs in the prover; count those the tests notice: `python -m tests.mutation`.

Each mutant is one line of the source, changed. The package is imported anew with that
line, and asked about programs that were traced beforehand: the directed ones, claim by
claim, against values; the zoo and its twins; random ones. A mutant is killed by a claim
that values contradict, by a false friend that is proved, a twin that is lost, or a
crash. Of those that survive, some change nothing, which a sentence argues; the others
name a hole in the tests.
"""

import argparse
import contextlib
import importlib
import importlib.machinery
import itertools
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from tests import convexity_programs, convexity_values, convexity_zoo, soundness
from tests.convexity_mutants import MUTANTS, Mutant
from tests.convexity_programs import Case

__all__ = ["main"]

_PACKAGE = "phihat.convexity"
_KEPT = (f"{_PACKAGE}.intervals",)
"""Problems that were posed beforehand hold intervals: these modules stay."""

_SECONDS = 300
"""A mutant that keeps the prover busy for longer is noticed."""

_RETRACED = {"trace", "atoms", "structure", "problem"}


class Prepared(NamedTuple):
    """A program, its values on chords, and what the prover says without a bug."""

    case: Case
    problem: Any
    inputs: Any
    values: Any
    claims: dict[int, Any]


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
    import phihat

    def is_ours(name: str) -> bool:
        return name.startswith(_PACKAGE) and not name.startswith(_KEPT)

    kept = {name: m for name, m in sys.modules.items() if is_ours(name)}
    for name in kept:
        del sys.modules[name]
    _Loader.mutant = mutant
    sys.meta_path.insert(0, _Finder)
    try:
        yield (
            importlib.import_module(f"{_PACKAGE}.prover"),
            importlib.import_module(f"{_PACKAGE}.problem"),
        )
    finally:
        sys.meta_path.remove(_Finder)
        for name in [name for name in sys.modules if is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(kept)
        phihat.convexity = kept[_PACKAGE]


# ------------------------------------------------------------------------- noticing


def prepared(case: Case, count: int = 32) -> Prepared:
    problem = convexity_programs.posed(case)
    inputs = convexity_programs.chords(problem, np.random.default_rng(0), count)
    values = convexity_values.values_of(problem.program, inputs)
    _, known = convexity_programs.facts_of(problem)
    claims = {n: _claims(array) for n, array in known.items()}
    return Prepared(case, problem, inputs, values, claims)


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
        return f"crash: {type(error).__name__} in {case.case.name}"
    new = {n for n, array in known.items() if _claims(array) != case.claims.get(n)}
    if not new:
        return None
    found = convexity_programs.judged(
        case.problem, case.inputs, case.values, facts, known, only=new
    )
    if not found.false:
        return None
    return f"false claim: {found.false[0].claim} in {case.case.name}"


def _is_misjudged(
    cases: Sequence[tuple[Case, Any, str, bool]], prover: Any, problem: Any, anew: bool
) -> str | None:
    """Tell which verdict of the zoo is wrong."""
    for case, posed, claim, expected in cases:
        try:
            if anew:
                with jax.numpy_rank_promotion("allow"):
                    posed = problem.pose("x", *case[1:4], domain=case.domain)
            proof = prover.prove(posed)
        except TimeoutError:
            raise
        except Exception as error:
            return f"crash: {type(error).__name__} in the zoo: {case.name}"
        if _holds(proof, claim) != expected:
            return f"zoo: {case.name} {'lost' if expected else 'proved'}"
    return None


def _holds(proof: Any, claim: str) -> bool:
    if claim == "constraints":
        return proof.facts.convex and bool(proof.constraints)
    return getattr(proof.facts, claim)


def _zoo() -> list[tuple[Case, Any, str, bool]]:
    from tests import test_convexity_attacks as attacks

    cases = [
        *((case, "convex", False) for case in convexity_zoo.FALSE_FRIENDS.values()),
        *((case, "convex", True) for case in convexity_zoo.TWINS.values()),
        *(
            (case, "constraints", True)
            for case in convexity_zoo.PARTLY_DEFINED.values()
        ),
    ]
    for table, expected in ((attacks.FALSE, False), (attacks.TRUE, True)):
        for name, entry in table.items():
            params = jax.tree.map(lambda x: np.asarray(x, np.float64), entry.params)
            case = Case(name, entry.loss_fn, params, entry.data, entry.domain)
            cases.append((case, entry.claims, expected))
    zoo = []
    for case, claim, expected in cases:
        posed = convexity_programs.posed(case)
        begin = time.perf_counter()
        proof = convexity_programs.prover.prove(posed)
        is_quick = time.perf_counter() - begin < 1.0
        if is_quick and _holds(proof, claim) == expected:
            zoo.append((case, posed, claim, expected))
    return zoo


def judge(
    mutant: Mutant, directed: Sequence[Prepared], random: Sequence[Prepared], zoo: Any
) -> str | None:
    """Return what kills a mutant, or None where it survives."""
    first = [c for c in directed if c.case.name.startswith(mutant.hints)]
    rest = [c for c in directed if not c.case.name.startswith(mutant.hints)]
    with planted(mutant) as (prover, problem):
        anew = mutant.module in _RETRACED
        for case in first if mutant.hints else ():
            killed = _is_false(case, prover)
            if killed:
                return killed
        killed = _is_misjudged(zoo, prover, problem, anew)
        if killed:
            return killed
        for case in itertools.chain(rest if mutant.hints else directed, random):
            killed = _is_false(case, prover)
            if killed:
                return killed
    return None


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
    signal.signal(signal.SIGALRM, _late)
    begin = time.perf_counter()
    zoo = _zoo()
    directed = [prepared(case) for case in convexity_programs.directed()]
    random = [
        prepared(convexity_programs.random_case(soundness.numbers(seed)))
        for seed in range(count)
    ]
    _PREPARED[:] = directed, random, zoo
    print(
        f"{len(directed)} directed and {len(random)} random programs, {len(zoo)} of "
        f"the zoo, prepared in {time.perf_counter() - begin:.0f} s",
        flush=True,
    )


def _outcome(place: int) -> tuple[int, str | None, float]:
    begin = time.perf_counter()
    signal.alarm(_SECONDS)
    try:
        killed = judge(MUTANTS[place], *_PREPARED)
    except TimeoutError:
        killed = "it does not end"
    signal.alarm(0)
    return place, killed, time.perf_counter() - begin


def _late(*_: Any) -> None:
    raise TimeoutError


if __name__ == "__main__":
    sys.exit(main())

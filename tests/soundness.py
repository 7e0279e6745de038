# ruff: noqa: T201 - prints its score
"""Try the prover on random programs: `python -m tests.soundness --programs 20000`.

Each claim on each value of each program is held against chords of values, and what
seems broken is confirmed by intervals. Each proof must be accepted by `replay`. On some
programs the refuter and the certifier of boxes are asked too: the three must not
contradict one another.
"""

import argparse
import collections
import functools
import itertools
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from phihat.convexity import api
from phihat.convexity.box import certificates as boxes
from phihat.convexity.prover.interpreter import prove
from phihat.convexity.refuter import refutation as refuter
from phihat.convexity.report import Verdict
from tests import convexity_machines, convexity_programs, convexity_values
from tests.convexity_programs import Case

__all__ = ["main", "numbers", "survey"]

Counts = collections.Counter[str]

_LENGTH = 80
"""Integers that a program is built from, at most."""


def numbers(seed: int) -> list[int]:
    """Draw the integers of a program."""
    return np.random.default_rng(seed).integers(0, 1 << 16, _LENGTH).tolist()


def survey(
    cases: Iterable[Case], *, all_parts: int = 0, count: int = 48, replays: bool = False
) -> tuple[Counts, list[str]]:
    """Examine cases; count verdicts, and describe what is false.

    Args:
      cases: the programs.
      all_parts: each so many-th program is also given to the refuter and the certifier;
        0 for none.
      count: chords on each program.
      replays: whether `replay` is asked about each proof.
    """
    counts: Counts = collections.Counter()
    reports: list[str] = []
    for place, case in enumerate(cases):
        problem = convexity_programs.posed(case)
        inputs = convexity_programs.chords(problem, np.random.default_rng(0), count)
        values = convexity_values.values_of(problem.program, inputs)
        facts, known = convexity_programs.facts_of(problem)
        found = convexity_programs.judged(problem, inputs, values, facts, known)
        broken = _is_broken(values.get(problem.program.output))
        counts["programs"] += 1
        counts["claims"] += sum(len(array.classes) for array in known.values())
        counts[_verdict(facts, broken)] += 1
        if replays and facts.curved and not _is_replayed(case, problem, counts):
            reports.append(f"{case.name} {place}: its proof is refused by `replay`")
        counts["false proofs"] += bool(found.false)
        counts["open suspicions"] += len(found.open)
        reports += [f"{case.name} {place}: {breach}" for breach in found.false]
        reports += [f"{case.name} {place}, open: {breach}" for breach in found.open]
        if all_parts and place % all_parts == 0:
            contradiction = _contradiction(problem, facts, broken, counts)
            counts["contradictions"] += contradiction is not None
            reports += [f"{case.name} {place}: {contradiction}"] * bool(contradiction)
    return counts, reports


def _verdict(facts: Any, broken: bool) -> str:
    if facts.affine:
        return "proved affine"
    if facts.convex:
        return "proved convex"
    if facts.concave:
        return "proved concave"
    return "refuted" if broken else "undecided"


def _is_replayed(case: Case, problem: Any, counts: Counts) -> bool:
    """Replay a proof; what is no number at params has none."""
    report = api._proved(problem, prove(problem))
    if report.verdict is Verdict.UNDECIDED:
        return True
    with jax.numpy_rank_promotion("allow"):
        accepted = api.replay(report, *case[1:4], domain=case.domain)
    counts["replayed"] += 1
    counts["refused"] += not accepted
    return accepted


def _is_broken(values: Any) -> bool:
    """Tell whether a chord is broken by far."""
    if values is None or len(values) == 1:
        return False
    left, middle, right = np.split(values, 3)
    with np.errstate(all="ignore"):
        size = 1.0 + np.abs(left) + np.abs(middle) + np.abs(right)
        gap = (middle - (left + right) / 2) / size
    return bool((gap[np.isfinite(gap)] > 1e-6).any())


def _contradiction(problem: Any, facts: Any, broken: bool, counts: Counts) -> Any:
    """Ask the other parts; return what they contradict."""
    witness, _ = refuter.search(problem, time.monotonic() + 3.0)
    counts["given to all parts"] += 1
    counts["of these refuted"] += witness is not None
    certified = False
    if problem.is_box and all(
        np.isfinite(end).all() for leaf in problem.domain for end in leaf
    ):
        report = boxes.certify(problem, time.monotonic() + 1.0)
        certified = report.verdict is Verdict.CERTIFIED_ON_BOX
        counts["of these certified"] += certified
    refuted = witness is not None and witness.rigorous
    if facts.convex and (witness is not None or broken):
        return f"proved convex, and broken by {witness}"
    if certified and (refuted or broken):
        return f"certified, and broken by {witness}"
    return None


def _part(seeds: Sequence[int], all_parts: int) -> tuple[Counts, list[str]]:
    jax.config.update("jax_enable_x64", True)
    cases = (
        convexity_programs.random_case(numbers(seed))._replace(name=f"seed {seed}")
        for seed in seeds
    )
    return survey(cases, all_parts=all_parts, replays=True)


def _directed(place: int) -> tuple[Counts, list[str]]:
    jax.config.update("jax_enable_x64", True)
    case = next(itertools.islice(convexity_programs.directed(), place, None))
    return survey([case], replays=True)


def _machines(seeds: Sequence[int], x64: bool) -> tuple[Counts, list[str]]:
    """Ask about losses that compute with integers, in one mode of jax."""
    jax.config.update("jax_enable_x64", x64)
    warnings.simplefilter("ignore")
    counts: Counts = collections.Counter()
    reports = []
    for seed in seeds:
        loss = convexity_machines.random_loss(seed)
        verdict, wrong = convexity_machines.wrong_claims(loss, all_parts=seed % 8 == 0)
        counts.update({"programs": 1, verdict.lower().replace("_", " "): 1})
        counts["false proofs"] += bool(wrong)
        reports += [f"machine {seed}, x64 {x64}: {sentence}" for sentence in wrong]
    return counts, reports


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--programs", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--all-parts", type=int, default=100, help="each so many-th")
    parser.add_argument(
        "--machines", type=int, default=2000, help="losses on integers, in each mode"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--directed", action=argparse.BooleanOptionalAction, default=True
    )
    options = parser.parse_args(arguments)
    begin = time.perf_counter()
    seeds = range(options.first, options.first + options.programs)
    parts = [seeds[k : k + 100] for k in range(0, len(seeds), 100)]
    examine = functools.partial(_part, all_parts=options.all_parts)
    number = len(list(convexity_programs.directed())) if options.directed else 0
    directed: Counts = collections.Counter()
    random: Counts = collections.Counter()
    reports: list[str] = []
    os.environ["JAX_ENABLE_X64"] = "1"  # of the processes, when they import
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.jobs, maxtasksperchild=20) as pool:
        for counts, found in pool.imap(_directed, range(number)):
            directed.update(counts)
            reports += found
        seconds = time.perf_counter() - begin
        print(f"directed, {seconds:.0f} s: {_shown(directed)}", flush=True)
        for counts, found in pool.imap(examine, parts):
            random.update(counts)
            reports += found
            if random["programs"] % 1000 == 0:
                print(f"so far {_shown(random)}", flush=True)
        print(f"random, {time.perf_counter() - begin:.0f} s: {_shown(random)}")
        first = options.first
        for x64 in (False, True):
            ask = functools.partial(_machines, x64=x64)
            seeds = range(first, first + options.machines)
            integers: Counts = collections.Counter()
            for counts, found in pool.imap(
                ask, [seeds[k : k + 50] for k in range(0, len(seeds), 50)]
            ):
                integers.update(counts)
                reports += found
            print(f"integers, x64 {x64}: {_shown(integers)}", flush=True)
    print("\n".join(reports) or "nothing false")
    return int(bool(reports))


_ORDER = (
    "programs",
    "claims",
    "proved convex",
    "proved concave",
    "proved affine",
    "refuted",
    "undecided",
    "false proofs",
    "open suspicions",
    "replayed",
    "refused",
    "given to all parts",
    "of these refuted",
    "of these certified",
    "contradictions",
)


def _shown(counts: Counts) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in _ORDER)


if __name__ == "__main__":
    sys.exit(main())

"""Chords across jumps that the prover has seen: where pieces miss by an ulp.

No random chord finds a jump of 1e-9. The prover knows the value at which one lies; here
the params at which an element takes that value are looked for along lines, and short
chords are laid across.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from phihat.convexity.program.floating import function_of
from phihat.convexity.program.problem import Problem

__all__ = ["across"]

_MOST = 4
"""So many elements of a value, and jumps, are looked at."""

_LENGTHS = 2.0 ** -np.arange(4.0, 26.0)


def across(
    problem: Problem,
    jumps: Sequence[tuple[int, float]],
    start: np.ndarray,
    free: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return middles just beside jumps, and steps that reach across.

    Args:
      problem: the question.
      jumps: pairs of a value of the program, affine in the params, and where it jumps.
      start: the params, flat `[N]`.
      free: which of them vary.
    """
    middles, steps = [], []
    data = [None if leaf is None else leaf.low for leaf in problem.data]
    for number, at in list(dict.fromkeys(jumps))[:_MOST]:
        program = dataclasses.replace(problem.program, outputs=(number,))
        value = function_of(program)

        def values(point: np.ndarray, value=value) -> np.ndarray:
            return np.asarray(value(problem.cut(point), data)).reshape(-1)[:_MOST]

        before = values(start)
        for axis in free[:_MOST]:
            direction = np.zeros(len(start))
            direction[axis] = 1.0
            slopes = values(start + direction) - before
            for slope, first in zip(slopes, before, strict=True):
                if slope == 0.0 or not np.isfinite([slope, first]).all():
                    continue
                there = start + (at - first) / slope * direction
                for length in _LENGTHS:
                    for side in (-0.125, 0.125):
                        middles.append(there + side * length * direction)
                        steps.append(length * direction)
    shape = (len(steps), len(start))
    return np.reshape(middles, shape), np.reshape(steps, shape)

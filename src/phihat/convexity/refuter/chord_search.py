r"""The search for a broken chord, in floats.

Chords are tried along coordinates, at random, along eigenvectors of negative
eigenvalues of the Hessian, and by variation of the most concave ones. What seems broken
is a witness only if `witnesses` proves it.
"""

import itertools
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.program.floating import function_of
from phihat.convexity.program.problem import Problem
from phihat.convexity.refuter import chords
from phihat.convexity.refuter.jumps import across
from phihat.convexity.refuter.witnesses import proved
from phihat.convexity.report import Witness

__all__ = ["ChordSearch"]

_NUM_CHORDS = 3072
_CHORDS_A_ROUND = 256
_ENTRIES = 1 << 22
"""At most so many numbers are in flight for one value of the program."""

_SMALL = 1024
"""A program whose values have no more numbers is compiled without optimising it."""

_LONGEST = 1500
"""A flat program of more equations would compile slowly: the loss itself is called."""

_UNIT = 2.0**-52
"""The rounding of float64; 64 of it, times the values, is what a gap may owe to it."""

_NUM_PRODUCTS = 24
"""How many products with the Hessian Lanczos' method takes."""

_DENSE = 48
"""Up to this size the Hessian is computed; beyond it Lanczos' method is used."""


class _Points(NamedTuple):
    """Chords with their values.

    Attributes:
      middle: the middles `[B, N]`.
      step: from the middle to either end `[B, N]`.
      values: at the middle, at middle - step and at middle + step `[3, B]`.
    """

    middle: np.ndarray
    step: np.ndarray
    values: np.ndarray

    def take(self, rows: Any) -> "_Points":
        return _Points(self.middle[rows], self.step[rows], self.values[:, rows])

    def joined(self, other: "_Points") -> "_Points":
        return _Points(
            np.concatenate([self.middle, other.middle]),
            np.concatenate([self.step, other.step]),
            np.concatenate([self.values, other.values], axis=1),
        )

    @property
    def gap(self) -> np.ndarray:
        """How far the middle lies above the chord; -inf where an end is not finite."""
        middle, left, right = self.values
        usable = np.isfinite(left) & np.isfinite(right)
        with np.errstate(all="ignore"):
            gap = middle - (left / 2 + right / 2)
        return np.where(usable & np.isfinite(gap), gap, -np.inf)

    @property
    def size(self) -> np.ndarray:
        """The magnitude of the values, of which rounding is a small multiple."""
        return np.abs(self.values).sum(axis=0)

    @property
    def relative_gap(self) -> np.ndarray:
        with np.errstate(all="ignore"):
            ratio = self.gap / (self.size + 1e-300)
        return np.where(np.isfinite(self.gap), ratio, -np.inf)

    def curvature(self, noise: float) -> np.ndarray:
        """How concave the chord is, less what may be rounding: the larger, the more."""
        with np.errstate(all="ignore"):
            excess = (self.gap - noise * self.size) / (self.step**2).sum(axis=1)
        return np.where(np.isnan(excess), -np.inf, excess)

    @property
    def leaves_domain(self) -> np.ndarray:
        """Where both ends are finite and the middle is not."""
        middle, left, right = self.values
        return np.isfinite(left) & np.isfinite(right) & ~np.isfinite(middle)


class ChordSearch:
    """A search: what it compiles once, and what it counts.

    Args:
      problem: the question.
      deadline: when to stop, in the seconds of `time.monotonic()`.
      jumps: values of the program, and where the loss jumps in them.
    """

    def __init__(
        self, problem: Problem, deadline: float, jumps: Sequence[tuple[int, float]] = ()
    ) -> None:
        """Lay out the space, and how many chords are evaluated at once."""
        self.problem = problem
        self.deadline = deadline
        self.jumps = jumps
        self.num_chords = self.num_finite = 0
        self.failure = ""
        self.noise = 64 * _UNIT
        self.space = chords.space_of(problem)
        self.value_fn: Any = None
        self.values_fn: Any = None
        self.product_fn: Any = None
        self.on_device: Any = None
        varying = problem.program.dependents(problem.program.params)
        widest = max(math.prod(problem.program.shapes[number]) for number in varying)
        widest = max(widest, len(self.space.start))
        self.batch = int(np.clip(_ENTRIES // (3 * widest), 1, _CHORDS_A_ROUND))
        self.is_small = widest <= _SMALL

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.deadline

    # ---------------------------------------------------------------- evaluation
    def compile(self, data: Sequence[Any]) -> None:
        """Compile the flat program, whose data may vary; else the loss itself."""
        flat = function_of(self.problem.program)

        def of_program(point: Any, data: Sequence[Any]) -> Any:
            return flat(self.problem.cut(point), data)

        def of_loss(point: Any, data: Sequence[Any]) -> Any:
            del data
            return self.problem.loss(self.problem.cut(point))

        candidates = [(of_loss, _unit(self.problem))]
        if len(self.problem.program.equations) <= _LONGEST and data is not None:
            candidates.insert(0, (of_program, _UNIT))
        for value_fn, unit in candidates:
            self.value_fn, self.noise = value_fn, 64 * unit
            self.values_fn = chords.compiled(
                jax.vmap(value_fn, in_axes=(0, None)), is_small=self.is_small
            )
            try:
                start = jnp.broadcast_to(
                    self.space.start, (3 * self.batch, len(self.space.start))
                )
                self.values_fn(start, data)
                return
            except Exception as error:  # a program that cannot be batched, say
                self.values_fn, self.failure = None, str(error).split("\n")[0]

    def values(self, points: np.ndarray) -> np.ndarray:
        """Evaluate at points `[K, N]`, in batches of one size; NaN when time is up."""
        size = 3 * self.batch
        found = np.full(len(points), np.nan)
        for first in range(0, len(points), size):
            if self.is_over:
                break
            part = points[first : first + size]
            filler = np.broadcast_to(part[:1], (size - len(part), part.shape[1]))
            values = self.values_fn(np.concatenate([part, filler]), self.on_device)
            found[first : first + size] = np.asarray(values)[: len(part)]
        return found

    def measured(self, middle: np.ndarray, step: np.ndarray) -> _Points:
        """Snap chords onto grids, drop those that do not move, and evaluate."""
        middle, step = chords.snapped(self.space, middle, step)
        moves = (step != 0).any(axis=1)
        middle, step = middle[moves], step[moves]
        points = np.stack([middle, middle - step, middle + step], axis=1)
        values = self.values(points.reshape(-1, middle.shape[1]))
        values = values.reshape(-1, 3).T
        self.num_chords += len(middle)
        self.num_finite += int(np.isfinite(values).all(axis=0).sum())
        return _Points(middle, step, values)

    # -------------------------------------------------------------------- search
    def run(self, data: Sequence[Any]) -> Witness | None:
        """Try rounds of chords on one data set until one is confirmed."""
        if self.is_over or not self.problem.size:
            return None
        with chords.in_float64():
            if self.values_fn is None:
                self.compile(data)
            if self.values_fn is None:
                return None
            self.on_device = jax.device_put(data)
            return self.rounds(data)

    def rounds(self, data: Sequence[Any]) -> Witness | None:
        """Draw chords and vary the best ones, in rounds, until enough were tried."""
        if not len(self.space.free):
            return None  # a domain of one point has no chords
        rng = np.random.default_rng(0)
        size = int(np.clip(4 * self.batch, 32, _CHORDS_A_ROUND))
        best = self.measured(*chords.first(self.space, size))
        if self.jumps:
            given = (self.space.start, self.space.free)
            best = best.joined(self.measured(*across(self.problem, self.jumps, *given)))
        refused: set[bytes] = set()
        enough = self.num_chords + _NUM_CHORDS
        for number in itertools.count():
            is_last = self.num_chords >= enough or number >= _NUM_CHORDS // 32
            witness = self.confirmed(best, data, refused, is_last)
            if witness is not None or is_last or self.is_over:
                return witness
            parts = [chords.random(self.space, rng, size // 2)]
            if len(best.middle):
                parts.append(chords.evolved(rng, best.middle, best.step, size // 2))
            if number in _HINTED and len(best.middle):
                parts.append(self.hints(best, rng, _HINTED[number]))
            pairs = [np.concatenate(part) for part in zip(*parts, strict=True)]
            best = best.joined(self.measured(*pairs))
            bent = np.argsort(-best.curvature(self.noise), kind="stable")[:24]
            broken = np.argsort(-best.relative_gap, kind="stable")[:8]
            outside = np.nonzero(best.leaves_domain)[0][:4]
            best = best.take(np.unique(np.concatenate([bent, broken, outside])))
        return None

    def confirmed(
        self, best: _Points, data: Sequence[Any], refused: set[bytes], is_last: bool
    ) -> Witness | None:
        """Prove the most broken chords; small gaps only at the end of the search."""
        gap = best.relative_gap
        enough = self.noise if is_last else max(1e-7, self.noise)
        broken = [row for row in np.argsort(-gap, kind="stable") if gap[row] > enough]
        outside = list(np.nonzero(best.leaves_domain)[0])
        keys = [
            m.tobytes() + s.tobytes()
            for m, s in zip(best.middle, best.step, strict=True)
        ]
        for rows, most in ((broken, 4), (outside, 2)):
            for row in [row for row in rows if keys[row] not in refused][:most]:
                refused.add(keys[row])
                found = proved(
                    self.problem,
                    best.middle[row],
                    best.step[row],
                    data,
                    best.values[:, row] if self.noise == 64 * _UNIT else None,
                )
                if found is not None or self.is_over:
                    return found
        return None

    def hints(
        self, best: _Points, rng: np.random.Generator, width: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return chords along directions of negative curvature, near the best ones."""
        centres = np.concatenate([self.space.start[None], best.middle[:3]])
        if len(self.space.free) <= _DENSE:
            found = [self.eigenvectors(centre, width) for centre in centres]
        else:
            found = [self.lanczos(centre) for centre in centres[:2]]
        middles, steps = [], []
        for centre, vectors in zip(centres, found, strict=False):
            for vector in vectors:
                direction = np.zeros(len(centre))
                direction[self.space.free] = vector
                for length in 10.0 ** rng.uniform(-3.0, 1.0, size=8):
                    middles.append(centre)
                    steps.append(length * direction)
        shape = (len(steps), len(self.space.start))
        return np.reshape(middles, shape), np.reshape(steps, shape)

    def eigenvectors(self, centre: np.ndarray, width: float) -> list[np.ndarray]:
        """Return eigenvectors of negative eigenvalues of the Hessian by differences.

        Differences of values need no derivative rule, and no program to compile.
        """
        axes = np.zeros((len(self.space.free), len(centre)))
        axes[np.arange(len(axes)), self.space.free] = width * (1 + np.abs(centre).max())
        i, j = np.triu_indices(len(axes), 1)
        steps = np.concatenate([axes, axes[i] + axes[j], axes[i] - axes[j]])
        points = np.concatenate([centre[None], centre + steps, centre - steps])
        values = self.values(points)
        if not np.isfinite(values).all():
            return []
        bends = values[1 : 1 + len(steps)] + values[1 + len(steps) :] - 2 * values[0]
        alone, plus, minus = np.split(bends, [len(axes), len(axes) + len(i)])
        hessian = np.diag(alone)
        hessian[i, j] = hessian[j, i] = (plus - minus) / 4
        if not np.isfinite(hessian).all():
            return []
        eigenvalues, vectors = np.linalg.eigh(hessian)
        return list(vectors.T[eigenvalues < 0][:3])

    def lanczos(self, centre: np.ndarray) -> list[np.ndarray]:
        """Return the least Ritz vector of the AD Hessian, if its value is negative."""
        free = self.space.free
        if self.product_fn is None:
            value_fn = self.value_fn
            self.product_fn = jax.jit(
                lambda x, v, data: jax.jvp(
                    jax.grad(lambda y: value_fn(y, data)), (x,), (v,)
                )[1]
            )
        basis = np.random.default_rng(0).normal(size=(1, len(free)))
        basis /= np.linalg.norm(basis)
        images = np.zeros((0, len(free)))
        for _ in range(min(_NUM_PRODUCTS, len(free))):
            placed = np.zeros(len(centre))
            placed[free] = basis[-1]
            try:
                image = np.asarray(self.product_fn(centre, placed, self.on_device))[
                    free
                ]
            except Exception:  # what AD cannot do costs a hint, no more
                return []
            images = np.concatenate([images, image[None]])
            rest = image - basis.T @ (basis @ image)
            rest -= basis.T @ (basis @ rest)
            norm = np.linalg.norm(rest)
            if self.is_over or not norm > 1e-12 * np.linalg.norm(image):
                break
            basis = np.concatenate([basis, rest[None] / norm])
        basis = basis[: len(images)]
        projected = basis @ images.T
        if not np.isfinite(projected).all():
            return []
        eigenvalues, vectors = np.linalg.eigh((projected + projected.T) / 2)
        return [basis.T @ vectors[:, 0]] if eigenvalues[0] < 0 else []


_HINTED = {1: 2.0**-9, 5: 2.0**-3, 8: 2.0**-6}
"""The rounds in which curvature is asked for hints, and the width of differences."""


def _unit(problem: Problem) -> float:
    """Return the rounding of the widest float that the loss is computed in."""
    kinds = [d for d in problem.program.dtypes if dtypes.is_float(d)]
    return max((float(jnp.finfo(d).eps) for d in kinds), default=_UNIT)

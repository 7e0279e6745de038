"""How many lanes run at once: planned from abstract shapes, before anything runs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from phihat._core import placement as _placement
from phihat._core.jaxprs import bodies, scan_counts

__all__ = ["Bytes", "Plan", "bytes_per_lane", "default_max_bytes", "plan_chunks"]

_CACHE = 2**22
"""Bytes that the inner loops of a chunk may work on, on a CPU: some caches' worth."""

_MIN_CHUNK = 192
"""Lanes below which the cost of starting kernels shows."""

_IN_FLIGHT = 2
"""Chunks at once: one runs while the other's results are fetched."""


class Bytes(NamedTuple):
    """What one lane needs.

    Attributes:
      peak: at the worst moment, of all that differs from lane to lane.
      loop: the same in the hungriest innermost loop.
      result: of what it returns.
    """

    peak: int
    loop: int
    result: int


class Plan(NamedTuple):
    """How a number of lanes is cut into chunks.

    Attributes:
      chunk: lanes of a chunk on one device.
      num_chunks: how many there are.
      num_bytes: what they need at the worst moment, with the results of all lanes.
    """

    chunk: int
    num_chunks: int
    num_bytes: int


def plan_chunks(
    call: str, need: Bytes, num_lanes: int, num_devices: int, max_bytes: int
) -> Plan:
    """Choose the lanes of a chunk: as the cache wants it, and the limit allows it."""
    is_host = jax.default_backend() == "cpu"
    kept = need.result * num_lanes if is_host else 0
    for_one = kept + num_devices * need.peak
    if for_one > max_bytes:
        raise ValueError(
            f"{call}: `max_bytes` must be at least {for_one} to run one lane at a time"
            f"{_on_devices(num_devices)} ({need.peak} bytes) and to keep the results "
            f"of all {num_lanes} ({kept} bytes), got {max_bytes}."
        )
    limit = max(1, (max_bytes - kept) // (_IN_FLIGHT * num_devices * need.peak))
    if is_host:
        limit = min(limit, max(_MIN_CHUNK, _CACHE // max(need.loop, 1)))
    num_chunks = -(-num_lanes // (limit * num_devices))
    chunk = -(-num_lanes // (num_chunks * num_devices))
    if 16 <= chunk < limit:  # whole vectors, but for the last lanes of few
        chunk = min(limit, -(-chunk // 8) * 8)
    if chunk >= 16 and chunk & (chunk - 1) == 0:
        # XLA's CPU kernels are several times slower for powers of two.
        chunk += 8 if chunk + 8 <= limit else -8
        num_chunks = -(-num_lanes // (chunk * num_devices))
    in_flight = min(_IN_FLIGHT, num_chunks)
    num_bytes = kept + in_flight * num_devices * chunk * need.peak
    return Plan(chunk, num_chunks, num_bytes)


def _on_devices(num_devices: int) -> str:
    return "" if num_devices == 1 else f" on each of {num_devices} devices"


def default_max_bytes() -> int:
    """Return a quarter of the memory of the device, or of the machine for a CPU."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    total = stats.get("bytes_limit")
    if not total:
        total = _placement.machine_memory()
    return int(total) // 4


def bytes_per_lane(closed: Any, is_mapped: Sequence[bool]) -> Bytes:
    """Add up what is alive at once, of the values that differ from lane to lane.

    XLA fuses many of them away, so this is more than what will be used.

    Args:
      closed: the closed jaxpr of one lane.
      is_mapped: which of its arguments differ from lane to lane.
    """
    loops: list[int] = []
    peak, _ = _measure(closed.jaxpr, list(is_mapped), loops)
    result = sum(_size(var) for var in closed.jaxpr.outvars)
    return Bytes(max(peak, result, 1), max(loops, default=peak), result)


def _measure(
    jaxpr: Any, is_mapped: list[bool], loops: list[int]
) -> tuple[int, list[bool]]:
    """Return the peak of a jaxpr, and which of its results are mapped."""
    mapped = {var for var, flag in zip(jaxpr.invars, is_mapped, strict=True) if flag}
    last = {}
    for position, equation in enumerate(jaxpr.eqns):
        last.update((var, position) for var in equation.invars if not _is_literal(var))
    last.update((var, len(jaxpr.eqns)) for var in jaxpr.outvars if not _is_literal(var))
    alive = sum(_size(var) for var in mapped)
    dying: dict[int, list[Any]] = {}
    for var in mapped:
        dying.setdefault(last.get(var, -1), []).append(var)
    peak = alive
    for position, equation in enumerate(jaxpr.eqns):
        flags = [not _is_literal(v) and v in mapped for v in equation.invars]
        inner, results = _measure_inside(equation, flags, loops)
        for var, flag in zip(equation.outvars, results, strict=True):
            if flag and var in last:
                mapped.add(var)
                alive += _size(var)
                dying.setdefault(last[var], []).append(var)
        peak = max(peak, alive + inner)
        alive -= sum(_size(var) for var in dying.get(position, ()))
    return peak, [not _is_literal(v) and v in mapped for v in jaxpr.outvars]


def _measure_inside(
    equation: Any, flags: list[bool], loops: list[int]
) -> tuple[int, list[bool]]:
    """Return what the bodies of an equation need, and which results are mapped."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        num_consts, num_carry = scan_counts(params)
        first, last = num_consts, num_consts + num_carry
        peak, results = _measure_loop(params["jaxpr"], flags, slice(first, last), loops)
        return peak, results
    if name == "while":
        skip = params["cond_nconsts"]
        carried = slice(params["body_nconsts"], None)
        tests = any(flags[:skip])
        flags = flags[skip:]
        peak, results = _measure_loop(params["body_jaxpr"], flags, carried, loops)
        return peak, [flag or tests for flag in results]
    peaks, found = [0], [any(flags)] * len(equation.outvars)
    for body in bodies(equation):
        count = len(body.invars)
        inner = flags[-count:] if count <= len(flags) else [any(flags)] * count
        peak, results = _measure(body, inner, loops)
        peaks.append(peak)
        if len(results) == len(found) and name in ("jit", "pjit", "closed_call"):
            found = results
    return max(peaks), found


def _measure_loop(
    closed: Any, flags: list[bool], carried: slice, loops: list[int]
) -> tuple[int, list[bool]]:
    num_carried = len(flags[carried])
    if carried.stop is not None:
        num_carried = carried.stop - carried.start
    while True:
        inner: list[int] = []
        peak, results = _measure(closed.jaxpr, flags, inner)
        merged = [
            one or other
            for one, other in zip(flags[carried], results[:num_carried], strict=True)
        ]
        if merged == flags[carried]:
            break
        flags = [
            *flags[: carried.start],
            *merged,
            *flags[carried.start + num_carried :],
        ]
    loops.extend(inner or [peak])
    return peak, results


def _is_literal(atom: Any) -> bool:
    return hasattr(atom, "val")


def _size(atom: Any) -> int:
    dtype = atom.aval.dtype
    return int(np.prod(atom.aval.shape, dtype=np.int64)) * getattr(dtype, "itemsize", 8)

"""Time two ways of doing one thing in alternation, in one process.

A machine's speed drifts from minute to minute, so a duration alone says little. Here
every round times each peer once and then ours, the ratio is taken within the round, and
the median over rounds is reported. The first call of each, which compiles, is timed
apart. What only the first compilation of a process takes is spent before, so that
neither pays for it.
"""

import contextlib
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "Peer",
    "Report",
    "count_compilations",
    "here",
    "in_words",
    "measure",
    "timed",
]

PEERS = ("scipy", "optimistix", "jaxopt", "torch", "cvxpy", "optuna")
RESULTS = Path(__file__).parent.parent / "docs" / "benchmarks"


class Peer(NamedTuple):
    """Another way of doing the same thing.

    Attributes:
      run: does it, and returns what must be waited for.
      part: the share of the work that one call does, where all of it takes too long.
    """

    run: Callable[[], Any]
    part: float = 1.0


def timed(run: Callable[[], Any]) -> float:
    """Return the seconds that a call takes until its result is there."""
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin


def measure(
    benchmark: Any,
    ours: Callable[[], Any],
    peers: dict[str, Callable[[], Any] | Peer],
    *,
    rounds: int = 9,
    part: float = 1.0,
) -> dict[str, Any]:
    """Time ours and each peer, one after the other, round after round.

    Args:
      benchmark: the fixture of pytest-benchmark.
      ours: does the work and returns what must be waited for.
      peers: other ways by name, each a function or a `Peer`.
      rounds: how often each is timed, after a first call that compiles.
      part: the share of the work that one call of ours does.

    Returns:
      Seconds for the whole work: the first call's, the median of the others, and for
      every peer the ratio of ours to it, with its quartiles.
    """
    ways = {"ours": Peer(ours, part)}
    ways |= {
        name: peer if isinstance(peer, Peer) else Peer(peer)
        for name, peer in peers.items()
    }
    _warm_up()
    first = {name: timed(way.run) / way.part for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}

    def time_one(name: str) -> None:
        times[name].append(timed(ways[name].run) / ways[name].part)

    def time_peers() -> None:
        for name in peers:
            time_one(name)

    benchmark.pedantic(
        functools.partial(time_one, "ours"), setup=time_peers, rounds=rounds
    )
    result = {name: _summary(first[name], times[name]) for name in ways}
    for name in peers:
        pairs = zip(times["ours"], times[name], strict=True)
        ratios = [one / other for one, other in pairs]
        low, middle, high = statistics.quantiles([*ratios, *ratios], n=4)
        result[name] |= {"ratio": middle, "quartiles": [low, high]}
    benchmark.extra_info.update(result)
    return result


@functools.cache
def _warm_up() -> None:
    """Compile once what initializes tracing, LLVM and LAPACK."""

    def body(value: Any) -> Any:
        return jnp.linalg.solve(jnp.diag(value), jnp.exp(-value))

    jax.block_until_ready(
        jax.jit(lambda value: jax.lax.fori_loop(0, 2, lambda _, v: body(v), value))(
            jnp.ones(3)
        )
    )


def _summary(first: float, times: list[float]) -> dict[str, float]:
    run = statistics.median(times)
    return {"compile_seconds": max(first - run, 0.0), "run_seconds": run}


@contextlib.contextmanager
def count_compilations() -> Iterator[list[str]]:
    """Yield a list that grows by one entry per program that XLA compiles."""
    compiled: list[str] = []

    def listen(event: str, duration: float, **details: Any) -> None:
        del duration, details
        if event.endswith("backend_compile_duration") and is_open:
            compiled.append(event)

    is_open = [True]  # emptied at the end: a listener cannot be taken back
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        is_open.clear()


class Report:
    """What a module's cases measured: printed, and kept as JSON and as a picture.

    Args:
      name: the module that is measured, such as "fitting".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.cases: dict[str, Any] = {}

    def add(self, case: str, result: dict[str, Any], **notes: Any) -> None:
        """Keep a case's result, with bounds that it should meet and other notes."""
        self.cases[case] = {"times": result, **notes}
        print("\n" + "\n".join(_lines(case, self.cases[case])))

    def write(self) -> None:
        """Write `docs/benchmarks/<name>.json` and `.png`, beside cases not run now."""
        if not self.cases:
            return
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        now = here()
        before = json.loads(path.read_text()) if path.exists() else {}
        is_same = all(before.get(key) == now[key] for key in ("machine", "versions"))
        cases = (before["cases"] if is_same else {}) | self.cases
        document = {**now, "load_average": os.getloadavg()[0], "cases": cases}
        path.write_text(json.dumps(document, indent=1) + "\n")
        _draw(cases, path.with_suffix(".png"))


def _lines(case: str, entry: dict[str, Any]) -> list[str]:
    lines = [case]
    lines += [f"  {note}: {value}" for note, value in entry.items() if note != "times"]
    for name, values in entry["times"].items():
        line = f"  {name:34} run {_seconds(values['run_seconds'])}"
        if "compile_seconds" in values:
            line += f"  compile {_seconds(values['compile_seconds'])}"
        if "ratio" in values:
            low, high = values["quartiles"]
            line += f"  ours/this {values['ratio']:7.3f} [{low:.3f}, {high:.3f}]"
        lines.append(line)
    return lines


def in_words(seconds: float) -> str:
    """Write a duration with three digits and a unit."""
    return " ".join(_seconds(seconds).split())


def _seconds(value: float) -> str:
    for unit, size in (("s ", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:8.2f} {unit}"
    return f"{value / 1e-6:8.2f} us"


def here() -> dict[str, Any]:
    """Return today's date, the machine and the versions of what runs on it."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": today, "machine": _machine(), "versions": _versions()}


def _machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in ("phihat", "jax", "jaxlib", "optax", "numpy", *PEERS):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _draw(cases: dict[str, Any], path: Path) -> None:
    import matplotlib.pyplot as plt
    from matplotlib import ticker

    rows = [
        (f"{case}\nvs {name}", values["ratio"], values["quartiles"])
        for case, entry in cases.items()
        for name, values in entry["times"].items()
        if "ratio" in values
    ]
    figure, axes = plt.subplots(
        figsize=(9, 0.55 * len(rows) + 1.2), layout="constrained"
    )
    for row, (_, ratio, (low, high)) in enumerate(reversed(rows)):
        axes.plot([low, high], [row, row], color="C0", linewidth=3, alpha=0.4)
        axes.plot(ratio, row, "o", color="C0")
        place = {"textcoords": "offset points", "ha": "center"}
        axes.annotate(f"{ratio:.3g}", (ratio, row), (0, 6), **place)
    axes.axvline(1.0, color="0.5", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_yticks(range(len(rows)), [label for label, _, _ in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.2)
    axes.set_xlabel("time of ours / time of the peer (left of 1: ours is faster)")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)

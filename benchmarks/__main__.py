"""Run the benchmarks and write `docs/benchmarks`: `python -m benchmarks [NAME ...]`.

Each part runs in a process of its own, and is ended at its limit. `--list` names the
parts, `--pages` writes the pages from the JSON that is there.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import pairs, tables

HERE = Path(__file__).parent
GRACE = 30.0
"""Seconds that an interrupted part has to write what it has."""


def parts() -> dict[str, list[str]]:
    """Return how each part is run, by name."""
    modules = sorted(HERE.glob("bench_*.py"))
    timed = {
        path.stem.removeprefix("bench_"): [
            *("-m", "pytest", str(path.relative_to(HERE.parent))),
            *("-q", "-s", "-n", "0", "-p", "no:cacheprovider"),
        ]
        for path in modules
    }
    return timed | {"profile": ["-m", "benchmarks.profile"]}


def run(arguments: list[str], limit: float) -> str:
    """Run a part; at its limit interrupt it, so that it keeps what it has measured."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=HERE.parent)
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return f"ended at its limit of {limit:.3g} s"
    return "done" if status == 0 else f"exit status {status}"


def write_pages() -> None:
    for name, page in tables.pages(tables.documents()).items():
        (pairs.RESULTS / f"{name}.md").write_text(page, encoding="utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts to run; all by default")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for a part")
    parser.add_argument("--list", action="store_true", help="name the parts")
    parser.add_argument("--pages", action="store_true", help="write the pages alone")
    options = parser.parse_args(arguments)
    known = parts()
    if options.list:
        print("\n".join(known))
        return 0
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(
            f"no such part: {', '.join(unknown)}; there are {', '.join(known)}"
        )
    ends = {}
    for name in [] if options.pages else options.names or known:
        print(f"=== {name}", flush=True)
        begin = time.perf_counter()
        end = run(known[name], options.limit)
        ends[name] = end
        print(f"=== {name}: {end}, {time.perf_counter() - begin:.0f} s", flush=True)
    write_pages()
    failed = {name: end for name, end in ends.items() if end != "done"}
    for name, end in failed.items():
        print(f"{name}: {end}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The pages of `docs/benchmarks`, from its JSON and from nothing else."""

import json
from typing import Any

import numpy as np

from benchmarks import pairs, profile
from phihat.problems import many_minima

__all__ = ["documents", "pages"]

NOISE = 1.05
"""A ratio is called slower or faster where both of its quartiles are beyond this."""


def documents() -> dict[str, Any]:
    """Return what the benchmarks have written, by name."""
    paths = sorted(pairs.RESULTS.glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def pages(found: dict[str, Any]) -> dict[str, str]:
    """Return every page by its name."""
    made = {
        name: _profile_page(document) if "runs" in document else _page(name, document)
        for name, document in found.items()
    }
    return {"index": _index(found), **made}


def _index(found: dict[str, Any]) -> str:
    lines = [
        "# Benchmarks",
        "",
        "Each row compares phihat with another way to do the same computation. The",
        "number is phihat's time divided by the other's: below 1 phihat is faster,",
        "above 1 it is slower. The word `equal` means that the difference is within",
        "the noise. Every ratio is the median over several rounds, in which both are",
        "timed one after the other in one process. Compiling is not included; the",
        "linked pages list the times that it takes.",
        "",
        _row(["page", "case", "compared with", "phihat's time / its time", ""]),
        _row(["---", "---", "---", "--:", "---"]),
    ]
    compared = [
        (values["ratio"], name, case, peer, values["quartiles"])
        for name, document in found.items()
        for case, entry in document.get("cases", {}).items()
        for peer, values in entry["times"].items()
        if "ratio" in values
    ]
    for ratio, name, case, peer, quartiles in sorted(compared, key=lambda row: row[0]):
        link = f"[{name}]({name}.md)"
        lines.append(_row([link, case, peer, f"{ratio:.3g}", _verdict(quartiles)]))
    lines += [
        "",
        "`python -m benchmarks` runs all of them and writes these pages;",
        "`python -m benchmarks NAME ...` runs some, `--pages` only writes the pages.",
        "What takes longer than its limit (`--limit`, five minutes by default) is",
        "stopped, and its name is printed.",
    ]
    lines += ["", ":::{toctree}", ":maxdepth: 1", ""]
    return "\n".join([*lines, *found, ":::", ""])


def _verdict(quartiles: list[float]) -> str:
    """Say who is faster, beyond the noise of the rounds."""
    if quartiles[0] > NOISE:
        return "slower"
    return "faster" if quartiles[-1] < 1 / NOISE else "equal"


def _page(name: str, document: dict[str, Any]) -> str:
    lines = [f"# {name.replace('_', ' ').capitalize()}", "", _measured(document), ""]
    lines += [f"![Ratios of times, case by case]({name}.png)", ""]
    for case, entry in document["cases"].items():
        lines += [f"## {case}", ""]
        lines += [
            f"- {note}: {_value(value)}"
            for note, value in entry.items()
            if note not in ("times", "bound")  # bounds are for who develops it
        ]
        if not any(values["run_seconds"] for values in entry["times"].values()):
            lines.append("")  # it measured something other than time
            continue
        has_loss = any("loss" in values for values in entry["times"].values())
        columns = ["", "run", "compile", "phihat / this", "quartiles"]
        columns += ["loss reached"] if has_loss else []
        lines += ["", _row(columns), _row(["---", *["--:"] * (len(columns) - 1)])]
        for way, values in entry["times"].items():
            compiling = values.get("compile_seconds")
            ratio, quartiles = values.get("ratio"), values.get("quartiles")
            cells = [
                "phihat" if way == "ours" else way,
                _time(values["run_seconds"]),
                _time(compiling),
                "" if ratio is None else f"{ratio:.3g}",
                "" if quartiles is None else " to ".join(f"{q:.3g}" for q in quartiles),
            ]
            if has_loss:
                loss = values.get("loss")
                cells.append("" if loss is None else f"{loss:.6g}")
            lines.append(_row(cells))
        lines.append("")
    return "\n".join(lines)


def _profile_page(document: dict[str, Any]) -> str:
    solvers, costs = profile.costs_of(document)
    text = " ".join(
        (profile.__doc__ or "").split("\n\n")[1].split("Run from")[0].split()
    )
    lines = ["# Performance profile", "", text, ""]
    lines += [
        f"At most {document['budget']} evaluations. A run that ends in another minimum",
        "than the lowest counts as not solved. The column `solved, of the others`",
        "leaves out the problems that were made for global optimization:",
        f"{', '.join(many_minima.__all__)}.",
        "",
        "![Share of runs solved, against the ratio of evaluations](profile.png)",
        "",
        _row(
            [
                "",
                "solved",
                "solved, of the others",
                "median evaluations where solved",
                "best of all",
            ]
        ),
        _row(["---", "--:", "--:", "--:", "--:"]),
    ]
    best, is_local = costs.min(axis=0), profile.is_for_local_descent(document)
    for solver, row in zip(solvers, costs, strict=True):
        solved = np.isfinite(row)
        median = f"{np.median(row[solved]):.0f}" if solved.any() else ""
        wins = np.mean(solved & (row == best))
        shares = [f"{solved.mean():.0%}", f"{solved[is_local].mean():.0%}"]
        lines.append(_row([solver, *shares, median, f"{wins:.0%}"]))
    some = np.isfinite(best)
    shares = [f"{some.mean():.0%}", f"{some[is_local].mean():.0%}"]
    lines.append(_row(["at least one of them", *shares, "", ""]))
    lines += ["", "## By problem", "", "Runs solved, of "]
    lines[-1] += f"{len(next(iter(document['runs'].values()))[solvers[0]])}:"
    lines += ["", _row(["", *solvers]), _row(["---", *["--:"] * len(solvers)])]
    for name, run in document["runs"].items():
        counts = [sum(cost is not None for cost in run[solver]) for solver in solvers]
        lines.append(_row([name, *map(str, counts)]))
    took = f"It took {document['seconds']:.0f} s."
    if document["late"]:
        took += f" Not begun in that time: {', '.join(document['late'])}."
    return "\n".join([*lines, "", f"{_measured(document)} {took}", ""])


def _measured(document: dict[str, Any]) -> str:
    machine = document["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in document["versions"].items())
    load = document.get("load_average")
    busy = "" if load is None else f", load average {load:.1f}"
    return (
        f"Measured on {document['date']}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}{busy}; {versions}."
    )


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _time(seconds: float | None) -> str:
    """Show a time; zero stands for what was not measured."""
    return pairs.in_words(seconds) if seconds else ""


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_value(entry)}" for key, entry in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)

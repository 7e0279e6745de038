"""Write a page for every public module: a new one appears by existing."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from docstrings import translated
from names import home, public_modules

import phihat

TASKS = {
    "Fit a curve": (
        *("fit_curve", "fit_curves", "CurveFit", "CurveFits", "confidence_intervals"),
        *("covariance", "ConfidenceIntervals", "Box"),
    ),
    "Fit any loss": (
        *("fit", "train", "FitResult", "FitState", "StepInfo", "Status", "Tolerance"),
        *("raise_for_status", "FitError", "Recorder", "Checkpoints", "clear_programs"),
    ),
    "Optimizers": (
        *("gradient_descent", "momentum", "nesterov", "normalized_gradient", "adam"),
        *("steepest_descent", "newton", "newton_cg", "levenberg_marquardt"),
        "eval_params",
    ),
    "Line searches": ("bracketing", "golden_section", "backtracking"),
    "Batches": ("minibatches", "from_indices", "full_batch"),
    "Many fits": (
        *("sweep", "SweepResult", "multistart", "basins", "learning_rate_range"),
        "compare",
    ),
    "Curvature": (
        *("hvp", "hessian", "eigenvalues", "sharpness", "hessian_trace"),
        *("spectral_density", "classify_critical_point", "find_critical_points"),
        "CriticalPointKind",
    ),
    "Convexity": (
        *("check_convexity", "prove_convexity", "refute_convexity"),
        *("certify_convexity", "curvature_floor", "certified_radius"),
        *("minimal_ridge", "convex_blocks", "ConvexityReport", "Verdict"),
    ),
}
"""The daily names by what one wants to do; what is in none stands under "More"."""

HEADINGS = {"function": "Functions", "class": "Types", "data": "Constants"}


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", _write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write_pages(app: Any) -> None:
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    pages = {module: _module_page(module) for module in public_modules()}
    pages["index"] = _index(list(pages))
    for stale in folder.glob("*.rst"):
        if stale.stem not in pages:
            stale.unlink()
    for name, page in pages.items():
        write_if_changed(folder / f"{name}.rst", page)


def write_if_changed(path: Path, page: str) -> None:
    """Write a page, unless it says so already: Sphinx reads anew what is newer."""
    if not path.exists() or path.read_text(encoding="utf-8") != page:
        path.write_text(page, encoding="utf-8")


def _module_page(module: str) -> str:
    """Give what is done first, then what is returned: functions, types, the rest."""
    full = f"phihat.{module}"
    imported = importlib.import_module(full)
    parts = [module, "=" * len(module), f".. automodule:: {full}\n   :no-members:"]
    kinds: dict[str, list[str]] = {"function": [], "class": [], "data": []}
    for name in imported.__all__:
        kinds[_kind(getattr(imported, name))].append(name)
    for kind, heading in HEADINGS.items():
        if kinds[kind]:
            parts += [heading, "-" * len(heading)]
            parts += [f".. auto{kind}:: {full}.{name}" for name in kinds[kind]]
    return "\n\n".join(parts).replace("\n\n==", "\n==").replace("\n\n--", "\n--") + "\n"


def _kind(member: Any) -> str:
    if inspect.isclass(member):
        return "class"
    return "function" if inspect.isroutine(member) else "data"


def _index(modules: list[str]) -> str:
    names = [n for n in phihat.__all__ if not inspect.ismodule(getattr(phihat, n))]
    grouped = {name for task in TASKS.values() for name in task}
    tasks = {**TASKS, "More": [name for name in names if name not in grouped]}
    table = ".. list-table::\n   :widths: 30 70\n\n"
    parts = []
    for task, members in tasks.items():
        rows = "\n".join(_row(name) for name in members if name in names)
        if rows:
            parts += [f"{task}\n{'-' * len(task)}\n", f"{table}{rows}\n"]
    here = [
        f".. auto{_kind(getattr(phihat, name))}:: phihat.{name}\n"
        for name in names
        if home(name) == f"phihat.{name}"
    ]
    listed = "\n".join(
        f"   * - :doc:`{module} <{module}>`\n     - {_summary(module)}"
        for module in modules
    )
    toctree = "\n".join(f"   {module}" for module in modules)
    return "\n".join(
        [
            "API\n===\n",
            "The names below are ``phihat.<name>``, by what you want to do; the",
            "modules after them have the rest.\n",
            *parts,
            "Modules\n-------\n",
            f"{table}{listed}\n",
            f".. toctree::\n   :hidden:\n\n{toctree}\n",
            "Types and others\n----------------\n",
            ".. module:: phihat\n",
            *here,
        ]
    )


def _row(name: str) -> str:
    summary = (inspect.getdoc(getattr(phihat, name)) or "").split("\n")[0]
    return f"   * - :py:obj:`{name} <{home(name)}>`\n     - {translated(summary)}"


def _summary(module: str) -> str:
    documented = inspect.getdoc(importlib.import_module(f"phihat.{module}")) or ""
    return translated(documented.split("\n\n")[0].replace("\n", " "))

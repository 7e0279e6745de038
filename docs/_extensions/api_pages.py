"""Write a page for every public module: a new one appears by existing."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from docstrings import translated
from names import home, public_modules

import phihat

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
    rows, here = [], []
    for name in phihat.__all__:
        member = getattr(phihat, name)
        if inspect.ismodule(member):
            continue
        target = home(name)
        summary = (inspect.getdoc(member) or "").split("\n")[0]
        summary = translated(summary)
        rows.append(f"   * - :py:obj:`{name} <{target}>`\n     - {summary}")
        if target == f"phihat.{name}":
            here.append(f".. autoclass:: phihat.{name}\n")
    listed = "\n".join(
        f"   * - :doc:`{module} <{module}>`\n     - {_summary(module)}"
        for module in modules
    )
    table = ".. list-table::\n   :widths: 30 70\n\n"
    toctree = "\n".join(f"   {module}" for module in modules)
    return "\n".join(
        [
            "API\n===\n",
            "Daily names\n-----------\n",
            "All of these are ``phihat.<name>``.\n",
            f"{table}{chr(10).join(rows)}\n",
            "Modules\n-------\n",
            f"{table}{listed}\n",
            f".. toctree::\n   :hidden:\n\n{toctree}\n",
            "Types\n-----\n",
            ".. module:: phihat\n",
            *here,
        ]
    )


def _summary(module: str) -> str:
    documented = inspect.getdoc(importlib.import_module(f"phihat.{module}")) or ""
    return translated(documented.split("\n\n")[0].replace("\n", " "))

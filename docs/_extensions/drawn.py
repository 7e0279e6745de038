"""Run what draws: the pages that show pictures, and the gallery's examples.

A page that shows `_drawn/NAME/...` is run by the gate's own runner in that folder, so
its pictures are made by the very code that it shows. Each script of `examples` is run
with that folder's name, and gets a page with its code, what it prints and the pictures
that it leaves there. Nothing is run again until it, or phihat, has changed.
"""

import ast
import hashlib
import os
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from api_pages import write_if_changed
from sphinx.errors import ExtensionError

HERE = Path(__file__).resolve().parents[1]
SOURCE = HERE.parent / "src" / "phihat"
RUNNER = HERE.parent / "tests" / "run_document.py"


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", _draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _draw(app: Any) -> None:
    del app
    scripts = sorted((HERE / "examples").glob("*.py"))
    pages = [page for page in sorted(HERE.glob("*.md")) if is_drawn(page)]
    phihat_now = _digest(*sorted(SOURCE.rglob("*.py")), RUNNER)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [pool.submit(_run, path, phihat_now) for path in [*pages, *scripts]]
        for run in runs:
            run.result()
    folder = HERE / "gallery"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.rst"):
        if stale.stem not in {script.stem for script in scripts}:
            stale.unlink()
    for script in scripts:
        write_if_changed(folder / f"{script.stem}.rst", _gallery_page(script))


def is_drawn(page: Path) -> bool:
    """Tell whether a page shows pictures that it draws itself."""
    return f"_drawn/{page.stem}/" in page.read_text(encoding="utf-8")


def folder_of(path: Path) -> Path:
    return HERE / "_drawn" / path.stem


def _run(path: Path, phihat_now: str) -> None:
    folder = folder_of(path)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "stamp"
    now = _digest(path) + phihat_now
    if stamp.exists() and stamp.read_text() == now:
        return
    is_page = path.suffix == ".md"
    command = [RUNNER, path] if is_page else [path, "."]
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent), "MPLBACKEND": "agg"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ExtensionError(f"{path} failed.\n{done.stdout}\n{done.stderr}")
    (folder / "output.txt").write_text(done.stdout, encoding="utf-8")
    stamp.write_text(now)


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_wide(picture: Path) -> bool:
    """Tell whether a picture has panels side by side."""
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    return width > 1.8 * height


def _gallery_page(script: Path) -> str:
    source = script.read_text(encoding="utf-8")
    tree = ast.parse(source)
    first, _, rest = (ast.get_docstring(tree) or script.stem).partition("\n\n")
    title, _, more = first.partition(". ")
    title = " ".join(title.rstrip(".").split())
    code_starts = tree.body[0].end_lineno + 1
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", "\n\n".join([more, rest]))
    parts = [title, "=" * len(title), "", text, ""]
    for picture in sorted(folder_of(script).glob("*.png")):
        parts += [
            ".. container:: scroll",
            "",
            f"   .. image:: ../_drawn/{script.stem}/{picture.name}",
            f"      :alt: {title}",
            *(["      :class: wide"] if _is_wide(picture) else []),
            "",
        ]
    parts += [
        f".. literalinclude:: ../examples/{script.name}",
        f"   :lines: {code_starts}-",
        "",
        "It prints:",
        "",
        f".. literalinclude:: ../_drawn/{script.stem}/output.txt",
        "   :language: text",
        "",
    ]
    return "\n".join(parts)

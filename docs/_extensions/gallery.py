"""The gallery's pages: each script with its pictures and what it prints.

Both are kept in `docs/pictures`, where `docs/draw.py` puts them, so a build runs
nothing. In the pages' sources links lead to files of the checkout; in the site those to
a script lead to its page, and those to `src/phihat` to the API.
"""

import ast
import json
import re
import struct
from pathlib import Path
from typing import Any

from api_pages import write_if_changed

HERE = Path(__file__).resolve().parents[1]


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _lead_to_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write_pages(app: Any) -> None:
    del app
    scripts = sorted((HERE / "examples").glob("*.py"))
    drawn = json.loads((HERE / "pictures" / "drawn.json").read_text(encoding="utf-8"))
    folder = HERE / "gallery"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.rst"):
        if stale.stem not in {script.stem for script in scripts}:
            stale.unlink()
    for script in scripts:
        page = _gallery_page(script, drawn[script.stem])
        write_if_changed(folder / f"{script.stem}.rst", page)


def _lead_to_pages(app: Any, name: str, source: list[str]) -> None:
    """Turn links to files of the checkout into links to pages of the site."""
    del app, name
    text = re.sub(
        r"\]\(((?:\.\./)*)examples/(\w+)\.py\)", r"](\1gallery/\2.rst)", source[0]
    )
    source[0] = re.sub(
        r"\]\(((?:\.\./)*)\.\./src/phihat/__init__\.py\)", r"](\1api/index.rst)", text
    )


def _is_wide(picture: Path) -> bool:
    """Tell whether a picture has panels side by side."""
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    return width > 1.8 * height


def _gallery_page(script: Path, drawn: dict[str, Any]) -> str:
    source = script.read_text(encoding="utf-8")
    tree = ast.parse(source)
    first, _, rest = (ast.get_docstring(tree) or script.stem).partition("\n\n")
    title, _, more = first.partition(". ")
    title = " ".join(title.rstrip(".").split())
    code_starts = tree.body[0].end_lineno + 2  # after an empty line
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``\\ ", "\n\n".join([more, rest]))
    parts = [title, "=" * len(title), "", text, ""]
    for picture, all_axes in drawn["figures"].items():
        parts += [
            ".. container:: scroll",
            "",
            f"   .. image:: ../pictures/{picture}",
            f"      :alt: {_in_words(all_axes)}",
            *(["      :class: wide"] if _is_wide(HERE / "pictures" / picture) else []),
            "",
        ]
    printed = drawn["output"].splitlines()
    parts += [
        f".. literalinclude:: ../examples/{script.name}",
        f"   :lines: {code_starts}-",
        "",
        *(["It prints:", "", ".. code-block:: text", ""] if printed else []),
        *(f"   {line}".rstrip() for line in printed),
        "",
    ]
    return "\n".join(parts)


def _in_words(all_axes: list[dict[str, Any]]) -> str:
    """Say what a picture shows, for those who do not see it."""
    titles = [" ".join(axes["title"].split()) for axes in all_axes]
    legends = [", ".join(axes["legend"]) for axes in all_axes]
    parts = [
        f"{title}: {legend}" if legend else title
        for title, legend in zip(titles, legends, strict=True)
        if title
    ]
    return "; ".join(parts)

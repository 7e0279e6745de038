"""Notebooks as pages, with the outputs that are stored in them; nothing is executed."""

import json
from typing import Any

from myst_parser.parsers.sphinx_ import MystParser


def setup(app: Any) -> dict[str, Any]:
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class NotebookParser(MystParser):
    """Parse a notebook as the Markdown page that shows the same."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: Any) -> None:
        super().parse(_as_markdown(json.loads(inputstring)), document)


def _as_markdown(notebook: dict[str, Any]) -> str:
    parts = []
    title = ""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            title = _last_heading(source) or title
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [_shown(output, title) for output in cell["outputs"]]
    return "\n\n".join(part for part in parts if part) + "\n"


def _last_heading(source: str) -> str:
    heads = [line.lstrip("# ") for line in source.splitlines() if line.startswith("#")]
    return heads[-1] if heads else ""


def _shown(output: dict[str, Any], title: str) -> str:
    """Return an output as Markdown: a picture, HTML, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        png = "".join(data["image/png"].split())
        tag = f'<img src="data:image/png;base64,{png}" alt="Picture: {title}">'
        return f"```{{raw}} html\n<p class='scroll'>{tag}</p>\n```"
    if "text/html" in data:
        shown = "".join(data["text/html"])
        return f"```{{raw}} html\n<div class='scroll'>{shown}</div>\n```"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""

"""Equations as MathML, which browsers draw themselves: no script, no fonts, no network.

LaTeX that the converter does not know fails the build.
"""

import re
from html import escape
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_inline, None), block_renderers=(_block, None)
    )
    app.connect("doctree-resolved", _keep_marks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _keep_marks(app: Any, doctree: nodes.document, name: str) -> None:
    """Give each equation the full stop or comma after it, lest it begin a line."""
    del app, name
    for node in list(doctree.findall(nodes.math)):
        after = node.next_node(descend=False, siblings=True)
        found = isinstance(after, nodes.Text) and re.match(r"[^\s\w]+", after.astext())
        if found:
            node["mark"] = found[0]
            rest = nodes.Text(after.astext()[found.end() :])
            node.parent.replace(after, rest)


def _inline(translator: Any, node: nodes.Element) -> None:
    mark = escape(node.get("mark", ""))
    written = _mathml(node, "inline")
    translator.body.append(f'<span class="unbroken">{written}{mark}</span>')
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.Element) -> None:
    translator.body.append(f'<div class="equation">{_mathml(node, "block")}</div>\n')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, display: str) -> str:
    latex = node.astext().replace(r"\arg\min", r"\operatorname{argmin}")
    if display == "block" and "\\\\" in latex and "\\begin" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    written = convert(latex, display=display)
    unknown = re.search(r"\\[A-Za-z]+", written)
    if unknown:
        raise ValueError(f"{node.source}:{node.line}: no MathML for {unknown[0]}")
    return written

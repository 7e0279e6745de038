"""Equations as MathML, which browsers draw themselves: no script, no fonts, no network.

LaTeX that the converter does not know fails the build.
"""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_inline, None), block_renderers=(_block, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: Any, node: nodes.Element) -> None:
    translator.body.append(_mathml(node, "inline"))
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

"""Run the Python blocks of a Markdown page, or a script, as a reader would.

The blocks of a page share one namespace, in order. A block of `>>>` lines is compared
as a doctest; where a `text` block follows a `python` block, it must be what that block
prints (`...` stands for anything). Numbers with a point or an exponent may differ by
a thousandth, or be noise below 1e-5: other machines round otherwise.

Usage: python run_document.py PAGE
"""

import contextlib
import doctest
import io
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


NUMBER = re.compile(r"[-+]?\d+(?:\.\d*(?:e[-+]?\d+)?|e[-+]?\d+)", re.IGNORECASE)


class Checker(doctest.OutputChecker):
    """Compare as a doctest does, but numbers to a thousandth."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        if super().check_output(want, got, optionflags):
            return True
        wanted, found = NUMBER.findall(want), NUMBER.findall(got)
        if len(wanted) != len(found) or not all(map(is_near, wanted, found)):
            return False
        # What is padded to a width has other spaces where a number has another sign.
        masked = [re.sub(r"\s+", "", NUMBER.sub("#", text)) for text in (want, got)]
        return super().check_output(*masked, optionflags)


def is_near(one: str, other: str) -> bool:
    a, b = float(one), float(other)
    return abs(a - b) <= max(1e-3 * max(abs(a), abs(b)), 1e-5)


class Block(NamedTuple):
    language: str
    code: str
    line: int  # of the first line of code, from 1
    output: str | None  # the text block that follows, if one does


def blocks(page: str) -> Iterator[Block]:
    fence = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    found = list(fence.finditer(page))
    for match, after in zip(found, [*found, None][1:], strict=True):
        follows = (
            after is not None
            and after[1] == "text"
            and not page[match.end() : after.start()].strip()
        )
        yield Block(
            language=match[1],
            code=match[2],
            line=page.count("\n", 0, match.start(2)) + 1,
            output=after[2] if follows else None,
        )


def run_block(block: Block, path: Path, names: dict[str, Any]) -> None:
    where = f"{path}:{block.line}"
    if block.code.startswith(">>> "):
        test = doctest.DocTestParser().get_doctest(
            block.code, names, path.name, str(path), block.line - 1
        )
        runner = doctest.DocTestRunner(Checker(), optionflags=FLAGS)
        if runner.run(test, clear_globs=False).failed:
            sys.exit(f"{where}: the output differs.")
        names.update(test.globs)
        return
    # Blank lines in front make the traceback's line numbers those of the page.
    code = compile("\n" * (block.line - 1) + block.code, str(path), "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    if block.output is not None and not Checker().check_output(
        block.output, printed.getvalue(), FLAGS
    ):
        sys.exit(f"{where}: expected\n{block.output}\nbut got\n{printed.getvalue()}")


def run(path: Path) -> None:
    if path.suffix == ".py":
        sys.argv = [str(path)]
        runpy.run_path(str(path), run_name="__main__")
        return
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "python":
            run_block(block, path, names)


if __name__ == "__main__":
    run(Path(sys.argv[1]))

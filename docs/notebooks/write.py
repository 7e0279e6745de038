"""Execute the notebooks of this folder and store their outputs.

`python docs/notebooks/write.py [NAME ...]` executes each in a kernel of its own and
writes it back with what it prints and shows; pictures are made small, and what differs
from run to run is left out. `--check` writes nothing, and fails where an output is not
the stored one: words must be equal, numbers may differ. With `--here` the check runs
the cells in this process, which has imported what it needs, and not in a kernel.
"""

import argparse
import ast
import base64
import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "src"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="notebooks; all by default")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--here", action="store_true", help="check without a kernel")
    options = parser.parse_args()
    paths = {path.stem: path for path in sorted(HERE.glob("*.ipynb"))}
    wrong = []
    for name in options.names or paths:
        stored = read(paths[name])
        if options.check:
            run = execute_here if options.here else execute
            executed = run(read(paths[name]))
            wrong += [f"{name}: {one}" for one in differences(stored, executed)]
        else:
            write(tidied(execute(read(paths[name]))), paths[name])
            print(name, flush=True)
    if wrong:
        sys.exit("\n".join([*wrong, "Run `python docs/notebooks/write.py`."]))


def read(path: Path) -> Any:
    import nbformat

    return nbformat.read(path, as_version=4)


def write(notebook: Any, path: Path) -> None:
    import nbformat

    nbformat.write(notebook, path)


def execute(notebook: Any) -> Any:
    """Return the notebook with new outputs."""
    from nbclient import NotebookClient

    os.environ["PYTHONPATH"] = str(SOURCE)  # the kernel takes it over
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell["outputs"] = joined(cell["outputs"])
    return notebook


def execute_here(notebook: Any) -> Any:
    """Return the notebook with new outputs; pictures are drawn and not kept."""
    sys.path.insert(0, str(SOURCE))
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell["outputs"] = run_cell(cell["source"], names)
    return notebook


def run_cell(source: str, names: dict[str, Any]) -> list[Any]:
    """Return what a cell prints, and its last line's value or picture."""
    from IPython.lib.pretty import pretty

    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
        value = None
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    outputs: list[Any] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "text": printed.getvalue()})
    draw = getattr(value, "_repr_png_", None)
    if draw is not None and draw() is not None:
        outputs.append({"data": {"image/png": "drawn"}})
    elif value is not None:
        outputs.append({"data": {"text/plain": pretty(value)}})
    return outputs


def tidied(notebook: Any) -> Any:
    """Return the notebook without what differs from run to run."""
    for number, cell in enumerate(notebook.cells):
        cell["metadata"] = {}
        cell["id"] = f"cell-{number}"
        if cell.cell_type == "code":
            cell["execution_count"] = None
            cell["outputs"] = [tidy(one) for one in cell["outputs"]]
    return notebook


def joined(outputs: list[Any]) -> list[Any]:
    """Return the outputs that are shown; what is printed in a row is one of them.

    A kernel sends it in parts that depend on time.
    """
    found: list[Any] = []
    for output in filter(is_shown, outputs):
        is_text = output["output_type"] == "stream"
        if is_text and found and found[-1]["output_type"] == "stream":
            found[-1]["text"] += output["text"]
        else:
            found.append(output)
    return found


def is_shown(output: Any) -> bool:
    return output.get("name") != "stderr"


def tidy(output: Any) -> Any:
    """Leave out what differs from run to run, and make pictures small."""
    if "execution_count" in output:
        output["execution_count"] = None
    data = output.get("data", {})
    if "image/png" in data:
        data["image/png"] = small(data["image/png"])
        data.pop("text/plain", None)
    output["metadata"] = {} if "data" in output else output.get("metadata", {})
    if output["output_type"] == "stream":
        output.pop("metadata", None)
    return output


def small(png: str) -> str:
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    written = io.BytesIO()
    picture.quantize(96, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def differences(stored: Any, executed: Any) -> list[str]:
    found = []
    for number, (old, new) in enumerate(zip(stored.cells, executed.cells, strict=True)):
        if old.cell_type == "code" and shown(old) != shown(new):
            found.append(f"cell {number} shows\n{shown(new)}\nand not\n{shown(old)}")
    return found


def shown(cell: Any) -> str:
    """Return what a cell shows as text, with numbers masked, and its pictures named."""
    parts = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        text = output.get("text") or data.get("text/plain") or ""
        parts.append("[picture]" if "image/png" in data else text)
    masked = re.sub(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?", "#", "\n".join(parts))
    # Arrays are padded to the width of their widest number.
    return re.sub(
        r"\s+(?=[\])])|(?<=[\[(])\s+", "", re.sub(r"\s+", " ", masked)
    ).strip()


if __name__ == "__main__":
    main()

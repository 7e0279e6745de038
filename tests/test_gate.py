"""The gate: what must hold of the whole project, beside that its tests pass."""

import ast
import functools
import graphlib
import importlib
import inspect
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

import phihat
from tests.as_user import ROOT, run_as_user
from tests.run_document import blocks

PACKAGE = ROOT / "src" / "phihat"
README = ROOT / "README.md"

# A module imports only from modules above it here.
LAYOUT = [
    "_core",
    "_linalg",
    "datasets",
    "models",
    "losses",
    "problems",
    "sampling",
    "optimizers",
    "line_searches",
    "products",
    "second_order",
    "_result_text",
    "results",
    "_recorder",
    "curvature",
    "_engine",
    "fitting",
    "error_bars",
    "curves",
    "critical_points",
    "convexity",
    "sharding",
    "checkpoint",
    "sweeps",
    "training",
    "plot",
    "_tour",
]
# The rooms of a package, likewise.
ROOMS = {
    "convexity": [
        "numbers",
        "program",
        "report",
        "primitives",
        "prover",
        "refuter",
        "box",
        "kernel",
        "api",
    ],
}
ENTRANCES = ("__init__", "__main__", "_tour")  # these may import all

MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
)
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
# `docs/draw.py` runs these pages, and the examples (test_pictures.py).
DRAWN = [
    page
    for page in (ROOT / "docs").glob("*.md")
    if f"pictures/{page.stem}-" in page.read_text(encoding="utf-8")
]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def source(module: str) -> ast.Module:
    path = PACKAGE.parent / (module.replace(".", "/") + ".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def import_module(module: str):
    return importlib.import_module(module.removesuffix(".__init__"))


# -------------------------------------------------------------------- tools


def test_ruff_check():
    run_as_user("-m", "ruff", "check", "--no-cache", ".")


def test_ruff_format():
    run_as_user("-m", "ruff", "format", "--no-cache", "--diff", ".")


def test_pyright():
    """It reads the package, and the typed program of a user."""
    run_as_user("-m", "pyright", "--pythonpath", sys.executable)


# -------------------------------------------------------------------- bits


def test_bits():
    """The tests marked `bits`, with kernels as users have them."""
    files = sorted((ROOT / "tests").glob("test_*.py"))
    mark = re.compile(r"^ *@pytest\.mark\.bits$", re.MULTILINE)
    marked = [path for path in files if mark.search(path.read_text("utf-8"))]
    options = ("-q", "-n", "0", "--tb=short", "-p", "no:cacheprovider", "-m", "bits")
    variables = {"PHIHAT_COMPILE": "fully", "XLA_FLAGS": ""}
    run_as_user("-m", "pytest", *options, *marked, **variables)


# -------------------------------------------------------------------- examples

DOCTESTS = (
    *(
        "-c",
        "import sys, pytest; from tests import flags; flags.save_time(); "
        "sys.exit(pytest.main(sys.argv[1:]))",
    ),
    *("--doctest-modules", "-q", "--tb=short"),
    *("-c", os.devnull, "--rootdir", ROOT, "-p", "no:cacheprovider"),
    *("-o", "filterwarnings=error:::phihat"),
    *("-o", "doctest_optionflags=ELLIPSIS NORMALIZE_WHITESPACE NUMBER"),
)


# Two parts, which take about as long as each other.
FIRST_PART = ("sweeps", "critical_points", "curves", "second_order", "checkpoint.py")


@pytest.mark.parametrize("is_first", [True, False])
def test_doctests(is_first):
    parts = [PACKAGE / name for name in FIRST_PART]
    chosen = parts if is_first else [PACKAGE, *(f"--ignore={part}" for part in parts)]
    run_as_user(*DOCTESTS, *chosen)


@pytest.mark.parametrize(
    "path", [page for page in PAGES if page not in DRAWN], ids=relative
)
def test_document_runs(path, tmp_path):
    run_as_user(ROOT / "tests" / "run_document.py", path, cwd=tmp_path)


def test_pages_hide_no_block_from_the_gate():
    """Blocks are Python, what Python prints, or one of README's two commands."""
    for path in PAGES:
        for block in blocks(path.read_text(encoding="utf-8")):
            assert block.language in {"python", "text", "sh"}, (path, block)
            assert "```" not in block.code, (path, block)
            if block.language == "sh":
                assert block.code.strip() in readme_commands(), (path, block)


def readme_commands() -> list[str]:
    page = README.read_text(encoding="utf-8")
    return [block.code.strip() for block in blocks(page) if block.language == "sh"]


def test_readme_has_two_commands_and_ci_runs_the_second():
    tour, tests = readme_commands()
    assert tour.endswith("&& python -m phihat")
    assert tests.endswith("&& python -m pytest")
    pattern = re.search(r"grep -E '(.*)' README\.md", (ROOT / ".ci/run").read_text())
    assert pattern is not None
    lines = README.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.search(pattern[1], line)] == [tests]


def test_run_document_notices_a_wrong_output(tmp_path):
    page = tmp_path / "page.md"
    script = ROOT / "tests" / "run_document.py"
    page.write_text("```python\nx = 1\nprint(x)\n```\n\n```text\n1\n```\n")
    run_as_user(script, page)
    for wrong in (
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```python\n>>> 1 + 1\n3\n```\n",
        "```python\nraise ValueError\n```\n",
    ):
        page.write_text(wrong)
        with pytest.raises(pytest.fail.Exception):
            run_as_user(script, page)


# -------------------------------------------------------------------- the modules


def unit(module: str) -> str:
    """Return the entry of the layout to which a module belongs."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@functools.cache
def imported_modules(module: str) -> tuple[str, ...]:
    """Return what a module imports, in functions too."""
    return tuple(names_imported(module))


def names_imported(module: str) -> Iterator[str]:
    package = module.split(".")[:-1]
    nodes: list[ast.AST] = [source(module)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            stem = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*stem, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                is_module = inner in MODULES or f"{inner}.__init__" in MODULES
                yield inner if is_module else base
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes.extend(node.orelse)
        else:
            nodes.extend(ast.iter_child_nodes(node))


def test_imports_only_from_above():
    inner = [module for module in MODULES if unit(module) not in ENTRANCES]
    assert {unit(module) for module in inner} <= set(LAYOUT)
    upward = [
        f"{module} imports {name}"
        for module in inner
        for name in imported_modules(module)
        if name.split(".")[0] == "phihat"
        and unit(name) not in LAYOUT[: LAYOUT.index(unit(module)) + 1]
    ]
    assert upward == []


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_only_from_above(package):
    rooms, prefix = ROOMS[package], f"phihat.{package}."
    graph = {
        module.removesuffix(".__init__"): {
            name for name in imported_modules(module) if name.startswith(prefix)
        }
        for module in MODULES
        if module.startswith(prefix) and module != f"{prefix}__init__"
    }
    room = {name: name.removeprefix(prefix).split(".")[0] for name in graph}
    assert set(room.values()) == set(rooms)
    upward = [
        f"{module} imports {name}"
        for module, names in graph.items()
        for name in names
        if rooms.index(room[name]) > rooms.index(room[module])
    ]
    assert not upward, upward


def test_imports_make_no_circle():
    """Not even among the modules of one package, or by an import in a function."""
    graph = {
        module.removesuffix(".__init__"): set(imported_modules(module))
        for module in MODULES
    }
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises on a circle


def test_nothing_of_phihat_is_imported_by_its_name_in_a_string():
    """But for the hook of pictures, and for the names that the package hands on."""
    by_name = re.compile(r"""import_module\(\s*f?["']phihat""")
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if by_name.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"__init__.py", "_core/pictures.py"}


def test_design_describes_every_module():
    """The table names each entry of the layout once, in this order, and no other."""
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    table = page.split("| Where | What is in it |")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert re.findall(r"`(\w+)`", " ".join(cells)) == [*LAYOUT, "__main__"]
    named = {path.stem for path in PACKAGE.iterdir() if path.suffix in {"", ".py"}}
    assert named - {"__init__", "__pycache__"} == {*LAYOUT, "__main__"}


def test_design_names_files_that_exist():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", page):
        rooms = ("", "_engine", "training", "convexity")
        homes = [PACKAGE / room for room in rooms]
        assert any((home / name).is_file() for home in homes), name


def test_kernel_reads_no_rule_of_the_prover():
    """The independent checker shares no table with what it checks."""
    own = "phihat.convexity.kernel"
    shared = {
        name.split(".")[2]
        for module in MODULES
        if module.startswith(own)
        for name in imported_modules(module)
        if name.startswith("phihat.convexity.")
    }
    assert shared <= {"kernel", "numbers", "program", "report"}


def test_all_names_exist():
    for module in (name for name in MODULES if "__main__" not in name):
        imported = import_module(module)
        assert len(imported.__all__) == len(set(imported.__all__)), module
        missing = [name for name in imported.__all__ if not hasattr(imported, name)]
        assert missing == [], module


def test_daily_names_are_sorted():
    """Here plainly; ruff sorts every `__all__` its own way, constants first."""
    assert phihat.__all__ == sorted(phihat.__all__)


def is_public(module: str) -> bool:
    """Tell the namespaces that users see from private modules and from parts."""
    name = module.removesuffix(".__init__").removeprefix("phihat.")
    return "." not in name and not name.startswith("_")


def is_ours(member: object) -> bool:
    """Tell a class, function or module of phihat from an alias or a constant."""
    home = inspect.getmodule(inspect.unwrap(member)) if callable(member) else member
    return getattr(home, "__name__", "").split(".")[0] == "phihat"


@pytest.mark.parametrize("module", [name for name in MODULES if is_public(name)])
def test_public_names_have_examples(module):
    """Every module, function and daily name has one; other classes, a docstring."""
    imported = import_module(module)
    members = {name: getattr(imported, name) for name in imported.__all__}
    ours = {name: member for name, member in members.items() if is_ours(member)}
    for name, member in {module: imported, **ours}.items():
        plain = inspect.isclass(member) and name not in phihat.__all__
        assert ("" if plain else ">>> ") in (inspect.getdoc(member) or "None"), name
        assert member.__doc__, name


# -------------------------------------------------------------------- the package


def test_wheel_holds_the_package_and_its_types(tmp_path):
    run_as_user("-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"phihat-{phihat.__version__}-")
    names = zipfile.ZipFile(wheel).namelist()
    assert "phihat/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    ours = {str(path.relative_to(PACKAGE.parent)) for path in PACKAGE.rglob("*.py")}
    assert ours <= set(names)
    assert {name.split("/")[0] for name in names} == {
        "phihat",
        f"phihat-{phihat.__version__}.dist-info",
    }


def test_changelog_begins_with_this_version():
    page = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.+?)\]", page, re.MULTILINE)[0] == phihat.__version__


def test_import_brings_nothing_heavy():
    """Not even of phihat, until a name is used; the prover alone needs SciPy."""
    run_as_user(
        "-c",
        "import sys, phihat; "
        "ours = [name for name in sys.modules if name.startswith('phihat.')]; "
        "assert not ours, ours; "
        "assert set(phihat.__all__) <= set(dir(phihat)); "
        "phihat.fit; assert 'scipy' not in sys.modules; "
        "from phihat import *; "
        "heavy = {'chex', 'matplotlib', 'orbax', 'sklearn', "
        "'pandas', 'flax', 'equinox', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy",
    )


def test_type_checkers_see_the_daily_names():
    block = next(node for node in source("phihat.__init__").body if is_for_types(node))
    seen = [
        alias.asname
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(seen) == phihat.__all__


def is_for_types(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


# Written so that this very file holds none of them.
FOREIGN = re.compile(
    r"/wor[k]/|/roo[t]/|/tm[p]/|\.\./share[d]"
    r"|pypi\.or[g]|pythonhoste[d]|npmj[s]|debian\.or[g]"
)


def test_nothing_names_the_machine_it_was_written_on():
    suffixes = {".py", ".md", ".toml", ".json", ".yml", ".txt", ".csv"}
    files = [README, ROOT / "pyproject.toml", ROOT / ".ci" / "run"]
    for folder in ("src", "tests", "docs", "benchmarks"):
        found = (ROOT / folder).rglob("*")
        files += [path for path in found if path.suffix in suffixes]
    named = {
        relative(path): hits
        for path in files
        if (hits := FOREIGN.findall(path.read_text(encoding="utf-8")))
    }
    assert named == {}

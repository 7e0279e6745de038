"""What a reader of a plain checkout sees: every link and picture is there and true."""

import importlib.util
import json
import posixpath
import re
import subprocess
from pathlib import PurePosixPath

import pytest
from PIL import Image

from tests.as_user import ROOT, run_as_user

PICTURES = ROOT / "docs" / "pictures"
RECORD = json.loads((PICTURES / "drawn.json").read_text(encoding="utf-8"))


def load_draw():
    spec = importlib.util.spec_from_file_location("draw", ROOT / "docs" / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


draw = load_draw()


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """The files and folders that git tracks."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    files = [name for name in listed.stdout.split("\0") if name]
    return {*files, *(str(up) for name in files for up in PurePosixPath(name).parents)}


def links(page: str) -> list[str]:
    """Return the relative links and pictures of a page, in Markdown or HTML."""
    text = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)[^)]*\)", text)
    found += re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    return [link for link in found if not re.match(r"[a-z]+:|#", link)]


def test_links_are_found_in_all_their_forms():
    page = 'a [b](c.md#d) ![e](f.png){.wide} [<img src="g.png">](h.py) [i](https://j)'
    assert links(page) == ["c.md#d", "f.png", "h.py", "g.png"]


def test_every_link_and_picture_is_in_a_plain_checkout(tracked):
    pages = sorted(name for name in tracked if name.endswith(".md"))
    assert {"README.md", "docs/deck.md"} <= set(pages)
    broken = [
        (page, link)
        for page in pages
        for link in links((ROOT / page).read_text(encoding="utf-8"))
        if posixpath.normpath(
            posixpath.join(posixpath.dirname(page), link.partition("#")[0])
        )
        not in tracked
    ]
    assert broken == []


def test_every_picture_has_words_for_those_who_do_not_see_it(tracked):
    for page in (name for name in tracked if name.endswith(".md")):
        text = (ROOT / page).read_text(encoding="utf-8")
        for alt in re.findall(r"!\[([^\]]*)\]\(", text):
            assert len(alt) > 10, (page, alt)
        for tag in re.findall(r"<img[^>]*>", text):
            assert re.search(r'alt="[^"]{10,}"', tag), (page, tag)


def test_pictures_are_small_and_all_are_recorded():
    pictures = sorted(path for path in PICTURES.iterdir() if path.name != RECORD_NAME)
    recorded = [name for one in RECORD.values() for name in one["figures"]]
    assert sorted(path.name for path in pictures) == sorted(recorded)
    assert max(path.stat().st_size for path in pictures) <= 80_000
    assert sum(path.stat().st_size for path in pictures) <= 3_000_000
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.format == path.suffix[1:].upper()
            assert "date" not in {key.lower() for key in picture.info}


RECORD_NAME = "drawn.json"


def test_what_draws_is_recorded():
    assert sorted(RECORD) == sorted(draw.sources())


@pytest.mark.parametrize("name", sorted(draw.sources()))
def test_pictures_plot_what_is_recorded(name, tmp_path):
    """This runs the page or the example; it fails, too, where they do."""
    flags = {"XLA_FLAGS": ""} if name in CHAOTIC else {}
    script = ROOT / "docs" / "draw.py"
    run_as_user(script, "--check", "--inside", tmp_path, name, cwd=tmp_path, **flags)
    drawn = json.loads((tmp_path / "drawn.json").read_text(encoding="utf-8"))
    assert draw.differences(RECORD[name], drawn) == []


CHAOTIC = {"trainability"}
"""What magnifies how XLA rounds, and is drawn as users compile it."""


def test_a_changed_picture_is_noticed():
    name, known = next((n, one) for n, one in RECORD.items() if one["figures"])
    assert draw.differences(known, known) == []
    for change in (
        lambda axes: axes.update(title="Another title"),
        lambda axes: axes["limits"].__setitem__(1, 2 * axes["limits"][1] + 1.0),
        lambda axes: axes["legend"].append("another fit"),
    ):
        changed = json.loads(json.dumps(known))
        change(next(iter(changed["figures"].values()))[0])
        assert draw.differences(known, changed), name
    assert draw.differences(known, {**known, "output": "something else"})
    assert draw.differences(None, known)


NOTEBOOKS = sorted(path.stem for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"))


IN_KERNEL = "linear_regression"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_show_what_is_stored(name):
    """One in a kernel, as a reader runs it; no kernel starts for the others."""
    where = [] if name == IN_KERNEL else ["--here"]
    run_as_user(ROOT / "docs" / "notebooks" / "write.py", "--check", *where, name)


def test_pictures_in_notebooks_are_small():
    for name in NOTEBOOKS:
        path = ROOT / "docs" / "notebooks" / f"{name}.ipynb"
        assert path.stat().st_size <= 400_000, name

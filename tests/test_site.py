"""The site builds without a warning; nothing in it is broken, nothing missing."""

import html.parser
import importlib
import json
import re
import urllib.parse
from pathlib import Path

from sphinx.util.inventory import InventoryFile

import phihat
from tests.as_user import ROOT, run_as_user
from tests.test_gate import MODULES, is_public

DOCS = ROOT / "docs"


def test_site(tmp_path, subtests):
    """Build it once: pictures, outputs and notebooks are stored, so nothing is run."""
    options = ("-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "doctrees")
    site = tmp_path / "html"
    run_as_user("-m", "sphinx", *options, DOCS, site)
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html"))}
    for check in (
        no_link_is_broken_and_no_picture_missing,
        nothing_is_loaded_from_elsewhere,
        every_public_name_has_an_entry,
        search_knows_nesterov,
        search_finds_the_right_page_first,
        every_page_can_be_reached,
    ):
        with subtests.test(check.__name__):
            check(site, pages)


class _Page(html.parser.HTMLParser):
    """What a page names, and what can be named in it."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value)
            elif name in {"href", "src"} and value:
                self.links.append(value)


def no_link_is_broken_and_no_picture_missing(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(url.path)).resolve()
            target = target if url.path else path
            fragment = urllib.parse.unquote(url.fragment)
            if not target.exists():
                broken.append((path.name, link))
            elif fragment and target in pages and path != target:
                if fragment not in pages[target].anchors:
                    broken.append((path.name, link))
            elif fragment and path == target and fragment not in page.anchors:
                broken.append((path.name, link))
    assert broken == []


def nothing_is_loaded_from_elsewhere(site, pages):
    """What a browser fetches by itself lies in the site."""
    fetched = re.compile(
        r"<(?:script|img|link|iframe|source)\b[^>]*(?:src|href)=\"(?:https?:)?//[^\"]*"
        r"|url\(['\"]?https?:[^)]*|@import[^;]*//[^;]*"
    )
    found = {
        path.name: hits
        for pattern in ("*.html", "*.css")
        for path in site.rglob(pattern)
        if (hits := fetched.findall(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def every_public_name_has_an_entry(site, pages):
    inventory = InventoryFile.load(
        (site / "objects.inv").open("rb"), "", urllib.parse.urljoin
    )
    entries = {
        name
        for kind, found in inventory.items()
        if kind.startswith("py:")
        for name in found
    }
    for module in (name.removesuffix(".__init__") for name in MODULES):
        if not is_public(module) or module in {"phihat", "phihat.__init__"}:
            continue
        assert module in entries
        names = importlib.import_module(module).__all__
        own = {name for name in entries if name.rpartition(".")[0] == module}
        assert own == {f"{module}.{name}" for name in names}, module
    index = _Page(site / "api" / "index.html")
    linked = {link.rpartition(".")[2].rpartition("#")[2] for link in index.links}
    linked |= {Path(link).stem for link in index.links}
    missing = [name for name in phihat.__all__ if name not in linked]
    assert missing == []


def test_one_page_has_every_daily_name():
    page = (DOCS / "all-of-phihat.md").read_text(encoding="utf-8")
    written = re.findall(r"[\w.]+", page)
    named = {name for word in written for name in word.split(".")}
    assert [name for name in phihat.__all__ if name not in named] == []


def search_index(site):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    return json.loads(text[text.index("{") : text.rindex("}") + 1])


def pages_with(index, terms: str, word: str) -> set[str]:
    found = index[terms].get(word, [])
    found = [found] if isinstance(found, int) else found
    return {index["docnames"][number] for number in found}


def search_knows_nesterov(site, pages):
    assert "api/optimizers" in pages_with(search_index(site), "terms", "nesterov")


def search_finds_the_right_page_first(site, pages):
    """A word in a title counts most; the index holds the stems of words."""
    index = search_index(site)
    for words, page in (
        (("learn", "rate"), "learning-rate"),
        (("datafram",), "dataframes"),
        (("bound",), "bounds"),
        (("batchnorm",), "model-state"),
    ):
        title = index["titles"][index["docnames"].index(page)].lower()
        for word in words:
            assert word in title
            assert page in pages_with(index, "titleterms", word)


def every_page_can_be_reached(site, pages):
    """From the first page, by links alone."""
    reached: set[Path] = set()
    ahead = [site / "index.html"]
    while ahead:
        path = ahead.pop()
        if path in reached or path not in pages:
            continue
        reached.add(path)
        links = (urllib.parse.urlsplit(link) for link in pages[path].links)
        ahead += [
            (path.parent / link.path).resolve()
            for link in links
            if link.path and not link.netloc
        ]
    assert set(pages) - reached == set()

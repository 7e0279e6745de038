"""Link every `name` of phihat in running text to its entry, and tell the names."""

import importlib
import inspect
import pkgutil
import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref

import phihat


def setup(app: Any) -> dict[str, Any]:
    app.connect("doctree-read", _link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def public_modules() -> list[str]:
    """Return the names of the namespaces that users see, without `phihat.`."""
    return [
        module.name
        for module in pkgutil.iter_modules(phihat.__path__)
        if not module.name.startswith("_")
    ]


def entries() -> dict[str, str]:
    """Return for each public name, as one may write it, its full name in the site."""
    found: dict[str, str] = {}
    for module in public_modules():
        full = f"phihat.{module}"
        found[module] = full
        for name in importlib.import_module(full).__all__:
            found[f"{module}.{name}"] = f"{full}.{name}"
    for name in phihat.__all__:
        found[name] = home(name)
    return found


def home(name: str) -> str:
    """Return the full name under which a daily name has its entry."""
    member = getattr(phihat, name)
    if inspect.ismodule(member):
        return member.__name__
    for module in public_modules():
        names = importlib.import_module(f"phihat.{module}").__all__
        of_module = getattr(importlib.import_module(f"phihat.{module}"), name, None)
        if name in names and of_module is member:
            return f"phihat.{module}.{name}"
    return f"phihat.{name}"


_ENTRIES: dict[str, str] = {}


def _link(app: Any, doctree: nodes.document) -> None:
    if not _ENTRIES:
        _ENTRIES.update(entries())
    for literal in list(doctree.findall(nodes.literal)):
        if isinstance(literal.parent, (nodes.reference, pending_xref, nodes.title)):
            continue
        written = re.match(r"(?:phihat\.)?([A-Za-z_.]\w*(?:\.\w+)*)", literal.astext())
        rest = literal.astext()[written.end() :] if written else "no name"
        target = _ENTRIES.get(written[1]) if written else None
        if target is None or not re.fullmatch(r"(\(.*\))?", rest):
            continue
        link = pending_xref(
            "",
            refdomain="py",
            reftype="obj",
            reftarget=target,
            refdoc=app.env.docname,
            refwarn=True,
        )
        literal.replace_self(link)
        link += literal

"""Read the docstrings as they are written: `code` and $math$ in Google's form."""

import re
from typing import Any


def setup(app: Any) -> dict[str, Any]:
    # Before napoleon, which takes the sections apart.
    app.connect("autodoc-process-docstring", _translate, priority=400)
    app.connect("autodoc-skip-member", _skip_bare_fields)
    app.connect("autodoc-process-signature", _hide_private_arguments)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# An example with its output, a literal, and the three marks to translate. In what is
# none of these a bar or an underscore would be markup of reStructuredText.
_TOKENS = re.compile(
    r"(?P<example>^[ ]*>>> (?:.|\n)*?(?=\n[ ]*\n|\Z))"
    r"|(?P<double>``[^`]+``)"
    r"|\$\$(?P<block>[^$]+)\$\$"
    r"|(?<![\\\w])\$(?P<inline>[^$]+)\$"
    r"|`(?P<code>[^`]+)`(?P<after>\w?)"
    r"|(?P<bar>\|)",
    re.MULTILINE,
)


def _translate(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    del app, what, name, obj, options
    lines[:] = translated("\n".join(lines)).split("\n")


def translated(text: str) -> str:
    """Return a docstring of ours as reStructuredText."""
    return _TOKENS.sub(lambda found: _written(found, text), text)


def _skip_bare_fields(
    app: Any, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Skip the fields of tuples, which their type's docstring tells of."""
    del app, what, name, skip, options
    is_bare = (getattr(obj, "__doc__", None) or "").startswith("Alias for field")
    return True if is_bare else None


def _hide_private_arguments(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: Any, returns: Any
) -> tuple[str | None, str | None]:
    """Leave out the arguments of a constructor that are not for readers."""
    del app, what, name, obj, options
    return re.sub(r", _\w+(: [^,)]+)?(=[^,)]+)?", "", signature or "") or None, returns


def _written(found: re.Match[str], text: str) -> str:
    if found["block"] is not None:
        start = text.rfind("\n", 0, found.start()) + 1
        margin = re.match(" *", text[start:])[0]
        latex = " ".join(found["block"].split())
        return f"\n\n{margin}.. math:: {latex}\n\n{margin}"
    if found["inline"] is not None:
        glued = text[found.end() : found.end() + 1].isalnum()
        return f":math:`{' '.join(found['inline'].split())}`" + ("\\ " if glued else "")
    if found["code"] is not None:
        code = " ".join(found["code"].split())
        return f"``{code}``" + (f"\\ {found['after']}" if found["after"] else "")
    return "\\|" if found["bar"] else found[0]

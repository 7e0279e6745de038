"""The site: `python -m sphinx -W -b html docs docs/_build/html`.

Nothing is loaded from a network, neither by the build nor by a reader's browser.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent / "src")]

import phihat  # noqa: E402

project = "phihat"
author = "the authors of phihat"
version = release = phihat.__version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "docstrings",
    "sphinx.ext.napoleon",
    "mathml",
    "names",
    "api_pages",
    "gallery",
    "notebooks",
]
exclude_patterns = ["_build", "_extensions"]

myst_enable_extensions = [
    "attrs_block",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
    "html_image",
]
myst_heading_anchors = 3

# Arguments are told with their shapes in the text, and jaxtyping's are long.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
PROTOCOLS = ("__init__", "__new__", "tree_flatten", "tree_flatten_with_keys")
autodoc_default_options = {
    "members": True,
    "exclude-members": ", ".join([*PROTOCOLS, "tree_unflatten"]),
}
autodoc_preserve_defaults = True
add_module_names = False
maximum_signature_line_length = 60
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False
python_display_short_literal_types = True

html_theme = "furo"
html_title = "φ̂ phihat"
html_static_path = ["_static"]
html_css_files = ["phihat.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_domain_indices = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_favicon = "_static/favicon.svg"

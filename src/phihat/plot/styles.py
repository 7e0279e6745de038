"""Colours, markers and line styles that everyone can distinguish."""

from collections.abc import Iterable
from typing import NamedTuple

from phihat._core import calls as _calls

__all__ = ["GREY", "OKABE_ITO", "Style", "make_styles"]

OKABE_ITO = (
    "#D55E00",
    "#0072B2",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#56B4E9",
    "#000000",
)
"""The colours of Okabe and Ito, yellow left out: it is too light on white."""

GREY = "#BBBBBB"
"""For what is not of interest."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


class Style(NamedTuple):
    """How one series looks; no two of the first 280 look the same.

    Attributes:
      color: a colour of Okabe and Ito.
      marker: a marker, in matplotlib's words.
      line: a line style, in matplotlib's words.
    """

    color: str
    marker: str
    line: object


@_calls.public
def make_styles(names: Iterable[str]) -> dict[str, Style]:
    """Give each name a style: for one look across several pictures.

    Args:
      names: in the order of the cycle.

    Returns:
      A style by name, for the argument `styles` of the pictures.

    Example:
      >>> make_styles(["adam"])
      {'adam': Style(color='#D55E00', marker='o', line='-')}
    """
    if isinstance(names, (str, bytes)):
        raise TypeError(
            f"make_styles: `names` must be a sequence of names, got {names!r}; for "
            f"one, [{names!r}]."
        )
    names = list(names)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"make_styles: each of `names` must be a str, got {names!r}.")
    return {
        name: Style(
            OKABE_ITO[place % len(OKABE_ITO)],
            _MARKERS[place % len(_MARKERS)],
            _LINES[place % len(_LINES)],
        )
        for place, name in enumerate(names)
    }

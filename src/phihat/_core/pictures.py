"""The hook by which a result finds its picture: the one place that names `plot`."""

import importlib
from typing import Any

__all__ = ["draw"]


def draw(name: str, *args: Any, **options: Any) -> Any:
    """Call a function of `phihat.plot` by its name.

    Results stand below `plot`, which draws them, and so may not import it. They come
    here, and `plot` is imported when the first picture is drawn.
    """
    plot = importlib.import_module("phihat.plot")
    return getattr(plot, name)(*args, **options)

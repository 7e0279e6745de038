"""How fitted curves are pickled and copied: the numbers always, the model if possible.

pickle stores a function by its name. A lambda has no name that pickle could find, and a
function of a script is missing in another process. So the model is packed by itself,
and a result that comes back without it still has its numbers and its report.
"""

import copy
import dataclasses
import pickle
from typing import Any

__all__ = ["Copied", "missing_model", "pack", "public_fields", "unpack"]


class Copied:
    """A frozen dataclass whose copies share the model and the data of the fit."""

    def __copy__(self) -> Any:
        """Return an equal result that shares everything."""
        return dataclasses.replace(self)  # pyright: ignore[reportArgumentType]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return an equal result with arrays of its own."""
        fields = copy.deepcopy(public_fields(self), memo)
        return dataclasses.replace(self, **fields)  # pyright: ignore[reportArgumentType]


def public_fields(fit: Any) -> dict[str, Any]:
    """Return the numbers of a result, without its model and what is made of it."""
    names = (field.name for field in dataclasses.fields(fit))
    return {name: getattr(fit, name) for name in names if not name.startswith("_")}


def pack(model: Any) -> bytes | None:
    """Return a model as a pickle of its own, or None where it cannot be pickled."""
    try:
        return pickle.dumps(model)
    except Exception:  # objects of users raise what they like
        return None


def unpack(packed: bytes | None) -> Any:
    """Return the model, or None where this process does not have it."""
    try:
        return None if packed is None else pickle.loads(packed)
    except (AttributeError, ImportError):
        return None


def missing_model(what: str, cure: str) -> str:
    """Say that a pickle has lost its model, and how to give it back."""
    return (
        f"{what}: this fit came from a pickle without its model, because pickle finds "
        f"functions by their names only; pass the model: {cure}."
    )

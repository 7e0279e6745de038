"""How large an array may become before it is refused."""

__all__ = ["TooLarge", "check_size"]

_MAX_ENTRIES = 40_000_000
"""Larger arrays are not made."""


class TooLarge(Exception):
    """What is to be bounded does not fit in memory; the sentence says so."""


def check_size(entries: int, limit: int = _MAX_ENTRIES) -> None:
    """Refuse to make an array of too many entries."""
    if entries > limit:
        raise TooLarge(
            f"an array of {entries} entries would be needed, and at most {limit} are "
            "made"
        )

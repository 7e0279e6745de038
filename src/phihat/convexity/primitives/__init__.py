"""What each primitive does to facts, values, second derivatives and rounding errors."""

__all__: list[str] = []

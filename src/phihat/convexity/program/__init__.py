"""The loss as a flat program: its form, its trace, and the question about it."""

__all__: list[str] = []

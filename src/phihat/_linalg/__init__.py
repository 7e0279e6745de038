"""Linear algebra that stands apart from fitting: one home for each piece."""

__all__: list[str] = []

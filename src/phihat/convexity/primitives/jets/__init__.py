"""Rules of the second derivative, enclosed on boxes."""

__all__: list[str] = []

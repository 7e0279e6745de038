"""The box certifier: the second derivative, bounded on all of a box."""

__all__: list[str] = []

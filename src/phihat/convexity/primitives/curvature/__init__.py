"""Rules of the box certifier: the second derivative of each primitive, enclosed."""

__all__: list[str] = []

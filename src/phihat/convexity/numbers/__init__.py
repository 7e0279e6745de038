"""Numbers: intervals rounded outward, second-order enclosures, verified eigenvalues."""

__all__: list[str] = []

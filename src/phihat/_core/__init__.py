"""What everything stands on, and what knows nothing of fitting."""

__all__: list[str] = []

"""The engine of a fit: its arguments, its step, its batches, its loop."""

__all__: list[str] = []

"""Rules by which values are enclosed: ranges in, ranges out."""

__all__: list[str] = []

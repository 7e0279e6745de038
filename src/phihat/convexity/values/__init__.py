"""The rules by which values are enclosed, one for each primitive."""

"""Linear algebra that stands apart from fitting: one home for each piece."""

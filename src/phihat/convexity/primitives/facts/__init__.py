"""Rules of the prover: what is known of results from what is known of operands."""

__all__: list[str] = []

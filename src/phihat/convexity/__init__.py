"""Proofs and refutations of convexity."""

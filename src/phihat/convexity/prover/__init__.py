"""The prover: an abstract interpretation of the flat program."""

from phihat.convexity.prover.interpreter import Interpreter, Proof, prove

__all__ = ["Interpreter", "Proof", "prove"]

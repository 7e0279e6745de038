"""The independent checker of certificates: what `replay` is.

It imports nothing of the prover. It trusts the trace, the recogniser of atoms, the
arithmetic of intervals and of polynomials over fractions, and where reshapes, slices,
contractions and scatters put their elements; all else it does again, in its own way:

- the leaves that are free it finds from the paths of params;
- the equations must bind jax's own primitives, and the program must be the one that jax
  traces under the configuration at hand (`question`);
- integers and booleans that depend on nothing it computes by binding the program's own
  equations (`constants`);
- the facts of every line it derives by its own table, one theorem for each primitive
  (`table`), and refuses a certificate that claims more of any line (`checker`).

Example:
  >>> import jax.numpy as jnp
  >>> from phihat.convexity import prove_convexity, replay
  >>> loss_fn = lambda w: jnp.sum(jnp.log1p(jnp.exp(w)))
  >>> report = prove_convexity(loss_fn, jnp.zeros(3))
  >>> replay(report, loss_fn, jnp.zeros(3)), report.trusted
  (True, ())
"""

from phihat.convexity.kernel.certificates import accepts
from phihat.convexity.kernel.checker import Checker, integers_fit
from phihat.convexity.kernel.question import free_leaves, is_the_question

__all__ = ["Checker", "accepts", "free_leaves", "integers_fit", "is_the_question"]

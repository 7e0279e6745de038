"""A quantity that goes on record along a fit, with a state of its own."""

from collections.abc import Callable
from typing import NamedTuple

from phihat._core import calls as _calls
from phihat._core import tree as _tree
from phihat._core.types import PyTree
from phihat.results import FitState

__all__ = ["Recorder"]


@_calls.public
class Recorder(NamedTuple):
    """A quantity to record along a fit, which keeps a state of its own.

    Attributes:
      init_fn: `params -> recorder_state`; where there is a `final_fn`, it is given the
        whole `FitState` instead.
      update_fn: `(recorder_state, state, info, batch) -> (recorder_state, value)`, with
        the `FitState` before the step and what the step measured.
      final_fn: `recorder_state -> value`: then the history holds this one value instead
        of rows, and `update_fn` is asked at every step that is taken.

    Example:
      >>> import jax.numpy as jnp
      >>> from phihat import Recorder, fit, gradient_descent
      >>> def update_fn(best, state, info, batch):
      ...     best = jnp.minimum(best, info.loss)
      ...     return best, best
      >>> best = Recorder(lambda params: jnp.inf, update_fn)
      >>> optimizer = gradient_descent(0.25)
      >>> result = fit(
      ...     lambda x: x**2, 1.0, optimizer, num_steps=3, record={"best": best}
      ... )
      >>> print(result.history["best"])
      [1.     0.25   0.0625]
    """

    init_fn: Callable[..., PyTree]
    update_fn: Callable[..., tuple[PyTree, PyTree]]
    final_fn: Callable[[PyTree], PyTree] | None = None

    def begin(self, state: FitState) -> PyTree:
        """Return the recorder's state before the first step of a run."""
        subject = state.params if self.final_fn is None else state
        return _tree.strong(self.init_fn(subject))

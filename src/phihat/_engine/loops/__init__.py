"""The loop: steps, their guard and the history, in two shapes of the same meaning.

Both run `num_steps` steps, stop at the first step that may not be taken (its `status`
says why) and leave the state as it was before that step. They differ in what they cost.

- `run_blocks`, for one fit on the CPU. Choosing between the old and the new state at
  every step costs a tiny fit as much as the step itself. So a block of steps runs
  unguarded until a sum over all it meets is no longer finite; where one is not, the
  block is run again from its start up to that step, by the same compiled body, hence
  to the same bits. Trip counts are run-time numbers and the rows of the history are
  written to a page of fixed size, so the body compiles the same whatever the number of
  steps, and n steps then m are n + m to the bit.
- `run_guarded`, for everything else: under `vmap` the choice costs a few per cent, on
  an accelerator nothing, and its `scan` can be differentiated in reverse.

Example:
  >>> from phihat._engine import loops as _loop
  >>> _loop.Plan(num_steps=100, record_every=30).num_rows
  4
"""

from phihat._engine.loops.blocks import is_repeatable, run_blocks
from phihat._engine.loops.guarded import run_guarded
from phihat._engine.loops.parts import Plan, Ran, Segment

__all__ = ["Plan", "Ran", "Segment", "is_repeatable", "run_blocks", "run_guarded"]

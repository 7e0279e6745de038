"""Many fits to their own ends: finished lanes make room for those still running.

A vmapped loop waits for its slowest lane. Here all lanes advance by rounds of some
steps, and between rounds those that have finished are dropped. Chunks have one of few
sizes, so there are few programs, and few idle lanes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import PyTree

from phihat import fitting
from phihat._core import tree as _tree
from phihat._core.types import Batch, Params, Status
from phihat.results import FitState
from phihat.sweeps import memory
from phihat.sweeps.execution import LaneProgram, lane_program

__all__ = ["Descents", "cut", "descend"]

_SIZES = (3, 48, 384, 3072, 24_576)
"""No powers of two, for which XLA's CPU kernels are slow."""


class Descents(NamedTuple):
    """How many fits ended.

    Attributes:
      params: where each ended, leaves [N, ...], NumPy arrays.
      loss: the loss there [N].
      grad_norm: the Euclidean norm of the gradient there [N].
      status: a `Status` each [N].
      num_steps: the updates that each made [N].
      useful_share: the share of the lane-steps that were run which belong to a fit
        still running.
    """

    params: PyTree
    loss: np.ndarray
    grad_norm: np.ndarray
    status: np.ndarray
    num_steps: np.ndarray
    useful_share: float


def descend(
    call: str,
    loss_fn: Any,
    starts: Params,
    optimizer: Any,
    data: Batch,
    *,
    num_steps: int,
    tolerance: Any,
    projection: Any,
    max_bytes: int | None,
    mesh: Mesh | None,
) -> Descents:
    """Run a fit from each of the stacked starts until it stops."""
    num_lanes = len(jax.tree.leaves(starts)[0])
    everyone = np.arange(num_lanes)
    limit = memory.default_max_bytes() if max_bytes is None else max_bytes
    begin = Partial(_init_lane, optimizer=optimizer)
    program = lane_program(call, begin, {"start": starts})
    ends = _Buffers(_run(call, program, everyone, limit, mesh)[0])

    active, done, run_steps = everyone, 0, 0
    while active.size and done < num_steps:
        steps = min(_round_length(done), num_steps - done)
        advance = Partial(
            _advance,
            caller=_tree.Static(call),
            loss_fn=loss_fn,
            optimizer=optimizer,
            data=data,
            tolerance=tolerance,
            projection=projection,
            num_steps=_tree.Static(steps),
        )
        program = lane_program(call, advance, {"state": ends.state()})
        results, lanes_run = _run(call, program, active, limit, mesh)
        ends.write(active, results)
        done += steps
        run_steps += lanes_run * steps
        active = active[ends.results["status"][active] == Status.COMPLETED]
    num_taken = np.asarray(ends.results["state"].step)
    return Descents(
        params=ends.results["params"],
        loss=ends.results["loss"],
        grad_norm=ends.results["grad_norm"],
        status=ends.results["status"],
        num_steps=num_taken,
        useful_share=float(num_taken.sum() / max(run_steps, 1)),
    )


def cut(num_lanes: int, num_devices: int, largest: int) -> list[int]:
    """Cut lanes into chunks of few sizes, the last of them a little too large."""
    allowed = [size for size in _SIZES if size <= largest] or [1]
    chunks = []
    for size in reversed([size * num_devices for size in allowed]):
        number, num_lanes = divmod(num_lanes, size)
        chunks += [size] * number
    return chunks + [allowed[0] * num_devices] * (num_lanes > 0)


# -------------------------------------------------------------------- private helpers


def _round_length(done: int) -> int:
    """Return a small share of the steps done, of two lengths for few programs."""
    return 16 if done < 512 else 64


def _init_lane(start: Params, *, optimizer: Any) -> dict[str, Any]:
    state = fitting.init(start, optimizer)
    unknown = jnp.asarray(jnp.nan, _tree.default_float())
    return {
        "params": state.params,
        "loss": unknown,
        "grad_norm": unknown,
        "status": state.status,
        "state": state,
    }


def _advance(
    state: FitState,
    *,
    caller: _tree.Static,
    loss_fn: Any,
    optimizer: Any,
    data: Batch,
    tolerance: Any,
    projection: Any,
    num_steps: _tree.Static,
) -> dict[str, Any]:
    result = fitting.fit_as(
        caller.value,
        loss_fn,
        None,
        optimizer,
        data,
        num_steps=num_steps.value,
        tolerance=tolerance,
        projection=projection,
        record=(),
        state=state,
    )
    return {
        "params": result.params,
        "loss": result.loss,
        "grad_norm": result.grad_norm,
        "status": result.status,
        "state": result.state,
    }


def _run(
    call: str,
    program: LaneProgram,
    lanes: np.ndarray,
    max_bytes: int,
    mesh: Mesh | None,
) -> tuple[Any, int]:
    """Run these lanes in chunks; return their results, and how many lanes were run."""
    num_devices = 1 if mesh is None else mesh.size
    plan = memory.plan_chunks(call, program.need, len(lanes), num_devices, max_bytes)
    blocks, total, begin = [], 0, 0
    for size in cut(len(lanes), num_devices, max(plan.chunk, 1)):
        numbers = np.minimum(np.arange(begin, begin + size), len(lanes) - 1)
        blocks.append(program.run([lanes[numbers]], mesh))
        if len(blocks) > 1:  # no more than two chunks at work
            blocks[-2] = [np.asarray(leaf) for leaf in blocks[-2]]
        total += size
        begin += size
    leaves = [
        np.concatenate([np.asarray(part) for part in parts])[: len(lanes)]
        for parts in zip(*blocks, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(program.results), leaves), total


class _Buffers:
    """The newest results of every lane, on the host."""

    def __init__(self, results: Any) -> None:
        self.results = jax.tree.map(np.array, results)

    def write(self, lanes: np.ndarray, results: Any) -> None:
        def put(buffer: np.ndarray, rows: np.ndarray) -> np.ndarray:
            buffer = buffer.astype(rows.dtype, copy=False)
            buffer[lanes] = rows
            return buffer

        self.results = jax.tree.map(put, self.results, results)

    def state(self) -> FitState:
        return self.results["state"]

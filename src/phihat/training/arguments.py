"""What `train` checks of its arguments beside what `fit` checks."""

from typing import Any

import jax
import numpy as np

from phihat._core import checks as _checks
from phihat._core.types import Params
from phihat.checkpoint import Checkpoints
from phihat.training.callbacks import Callback, as_callbacks
from phihat.training.validation import Validation

__all__ = ["check_devices", "check_rest", "check_stream"]


def check_stream(data: Any, num_epochs: Any, batch_size: Any, sampler: Any) -> None:
    """Check what a stream rules out."""
    for name, value in (("batch_size", batch_size), ("sampler", sampler)):
        if value is not None:
            raise ValueError(
                f"train: `{name}` draws rows from arrays, but `data` is a stream, "
                "whose batches are used as they come; batch them in the stream."
            )
    if num_epochs not in (None, 1) and iter(data) is data:
        raise ValueError(
            f"train: `num_epochs` is {num_epochs}, but `data` is an iterator, which "
            "can be read only once; pass an object that can be iterated again, such as "
            "a loader, or give `num_steps`."
        )


def check_devices(params: Params) -> None:
    """Let the params tell whether processes share a fit: a stream cannot yet."""
    leaves = jax.tree.leaves(params)
    is_put = any(isinstance(leaf, jax.Array) and leaf.committed for leaf in leaves)
    if jax.process_count() > 1 and not is_put:
        raise ValueError(
            "train: with several processes and a stream, `params` must tell the "
            "devices: `sharding.replicate(params, mesh)`, and let the stream give "
            "`sharding.shard_batch(batch, mesh)`."
        )


def check_rest(
    progress: Any,
    checkpoint: Any,
    callbacks: Any,
    validation: Any,
    steps_per_chunk: Any,
) -> tuple[Callback, ...]:
    """Check what is asked for between chunks, and return the callbacks."""
    if not isinstance(progress, (bool, np.bool_)):
        raise TypeError(
            f"train: `progress` must be True or False, got {_checks.brief(progress)}."
        )
    if checkpoint is not None and not isinstance(checkpoint, Checkpoints):
        raise TypeError(
            "train: `checkpoint` must be `Checkpoints(path, every=...)`, got "
            f"{_checks.brief(checkpoint)}."
        )
    if validation is not None and not isinstance(validation, Validation):
        raise TypeError(
            "train: `validation` must be `training.Validation(data, every=...)`, got "
            f"{_checks.brief(validation)}."
        )
    if steps_per_chunk is not None:
        _checks.check_count("train", "steps_per_chunk", steps_per_chunk)
    return as_callbacks(callbacks)

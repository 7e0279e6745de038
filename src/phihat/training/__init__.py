r"""Long fits: as `fit`, in chunks, with progress, checkpoints and streams.

`train` takes the arguments of `fit` and runs the same steps, bit for bit. Between the
chunks it shows progress, writes checkpoints and a log, calls functions of yours, looks
at held-out data and the clock; and its data may be a stream of batches.

Example:
  >>> import phihat
  >>> loss_fn = phihat.losses.least_squares(phihat.models.linear)
  >>> data = phihat.datasets.linear_regression()
  >>> start = {"weight": 0.0, "bias": 0.0}
  >>> result = phihat.train(
  ...     loss_fn, start, phihat.adam(0.1), data, num_steps=500, time_limit=60
  ... )
  >>> print(phihat.Status(int(result.status)).name, round(float(result.loss), 4))
  COMPLETED 0.1999
"""

from phihat.training.averaging import AveragedParamsState, with_averaged_params
from phihat.training.flight_recorder import Replay, flight_recorder, replay
from phihat.training.long_fits import train
from phihat.training.validation import Validation

__all__ = [
    "AveragedParamsState",
    "Replay",
    "Validation",
    "flight_recorder",
    "replay",
    "train",
    "with_averaged_params",
]

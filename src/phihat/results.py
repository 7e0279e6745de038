"""What a fit carries and returns, and the exception for a fit that failed.

Example:
  >>> from phihat import fit, gradient_descent, raise_for_status
  >>> result = fit(lambda x: (x - 3.0) ** 2, 0.0, gradient_descent(0.25), num_steps=5)
  >>> print(raise_for_status(result))
  FitResult: COMPLETED, the budget of 5 steps was used
    loss       9 -> 0.00878906
    gradient   norm 0.1875
    params     2.90625
    history    loss, step: 5 rows
"""

import dataclasses
import sys
import warnings
from typing import Any, NamedTuple, cast

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phihat import _result_text as _text
from phihat._core import calls as _calls
from phihat._core import pictures as _pictures
from phihat._core import tables as _tables
from phihat._core.data_checks import SeenData
from phihat._core.types import Params, PyTree, RandomKey, Status

__all__ = ["FitError", "FitResult", "FitState", "StepInfo", "raise_for_status"]


class FitState(NamedTuple):
    """The state of a fit between two steps, from which it can continue.

    Attributes:
      step: absolute number of updates made so far, int32 [].
      params: the params that the loop carries; `eval_params(opt_state, params)` are
        those to evaluate.
      opt_state: the optimizer's state.
      key: the fit's typed key, or None where nothing is random.
      status: a `Status` as int32 []; a step changes nothing unless it is RUNNING.
      loss: the loss that the last step measured, [], NaN before the first.
      model_state: what the loss carries from step to step beside the params, such as
        batch statistics; None where there is none.

    Example:
      >>> from phihat import fit, gradient_descent
      >>> first = fit(lambda x: x**2, 1.0, gradient_descent(0.25), num_steps=2)
      >>> print(first.state.step, first.state.params)
      2 0.25
    """

    step: Int[Array, ""]
    params: Params
    opt_state: PyTree
    key: RandomKey | None
    status: Int[Array, ""]
    loss: Float[Array, ""]
    model_state: PyTree = None


class StepInfo(NamedTuple):
    """What a step measured before its update: the loss, the gradient and more.

    Attributes:
      loss: the loss on the step's batch, [].
      grad: its gradient at the carried params.
      updates: what the optimizer added to the params.
      aux: what a loss with `has_aux` returned beside its value, else None.
      learning_rate: the rate in force, [], or None where the optimizer does not tell.
      status: RUNNING, or why the step must not be taken, int32 [].
      nonfinite_leaf: the number of the first params leaf whose gradient or new value
        is not finite, else -1, int32 [].

    Example:
      >>> from phihat import fit, gradient_descent
      >>> slope = {"slope": lambda state, info: info.grad}
      >>> result = fit(
      ...     lambda x: x**2, 1.0, gradient_descent(0.25), num_steps=2, record=slope
      ... )
      >>> print(result.history["slope"])
      [2. 1.]
    """

    loss: Float[Array, ""]
    grad: Params
    updates: Params
    aux: PyTree
    learning_rate: Float[Array, ""] | None
    status: Int[Array, ""]
    nonfinite_leaf: Int[Array, ""]


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, repr=False)
class FitResult:
    """What a fit returns: a pytree of arrays, so it can be mapped over and saved.

    Attributes:
      params: the fitted params, those to evaluate; of a fit that diverged, the last
        whose loss was finite.
      loss: the loss of `params`, [], on the whole data where that is one batch, else on
        the last batch.
      grad_norm: the Euclidean norm of the gradient at the last params, [].
      history: a dict of arrays, one row per `record_every` steps. Rows after a stop
        are NaN (rows of params repeat the last ones, those of integers are zero).
      status: a `Status` as int32 []; under `jax.vmap`, one per lane. Where it is known,
        it prints as its name.
      num_steps: the updates that this run made, int32 [].
      state: the `FitState` to go on from, `fit(..., state=result.state)`: where the fit
        stopped.
      nonfinite_leaf: the number of the params leaf that failed, else -1, int32 [].
      nonfinite_data_leaf: the number of the first data leaf that holds an infinite or
        NaN entry; looked for only where the fit failed, else -1, int32 [].
      data_paths: the paths of the data leaves, for the message.
      ended_by: what ended a fit with the status STOPPED, such as the name of a
        callback; else empty.
      loss_of: of what `loss` and the rows of the history are losses, "all data" or "a
        minibatch".
      best_model_state: the model state that belongs to `params` where held-out data
        chose these, else None.

    Example:
      >>> from phihat import fit, gradient_descent
      >>> result = fit(lambda x: x**2, 1.0, gradient_descent(0.25), num_steps=3)
      >>> print(result.params, result.loss, result.num_steps)
      0.125 0.015625 3
    """

    params: Params
    loss: Float[Array, "*lanes"]
    grad_norm: Float[Array, "*lanes"]
    history: dict[str, Any]
    status: Int[Array, "*lanes"]
    num_steps: Int[Array, "*lanes"]
    state: FitState
    nonfinite_leaf: Int[Array, "*lanes"]
    nonfinite_data_leaf: Int[Array, "*lanes"]
    data_paths: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    ended_by: str = dataclasses.field(default="", metadata={"static": True})
    loss_of: str = dataclasses.field(default="all data", metadata={"static": True})
    best_model_state: PyTree = None

    _data = SeenData()  # of a fit that was called eagerly; no part of the pytree

    @property
    def model_state(self) -> PyTree:
        """What the loss carried beside `params`, such as batch statistics."""
        best = self.best_model_state
        return self.state.model_state if best is None else best

    def plot(self, *, axes: Any = None) -> Any:
        """Draw how the loss fell, by `phihat.plot.loss_curves`."""
        return _pictures.draw("loss_curves", self, axes=axes)

    def trimmed(self) -> "FitResult":
        """Return the result of one fit with the rows that were measured.

        After a stop the history is filled up with NaN, so that its shape does not
        depend on values; here those rows are left out. Its params keep their last row,
        the end.
        """
        rows = _num_rows(self)
        if rows is None:
            return self
        length = len(self.history["step"])
        kept = {}
        for name, entry in self.history.items():
            if name == "params":
                kept[name] = jax.tree.map(
                    lambda leaf: jnp.concatenate([leaf[:rows], leaf[-1:]]), entry
                )
            elif all(len(leaf) == length for leaf in _leaves_with_rows(entry)):
                kept[name] = jax.tree.map(lambda leaf: leaf[:rows], entry)
            else:  # the final value of a recorder
                kept[name] = entry
        return with_parts(self, history=kept)

    def __getattribute__(self, name: str) -> Any:
        """Let a known status print as its name; warn of a bad end, once."""
        value = object.__getattribute__(self, name)
        if name == "status":
            return _named(value)
        if name in ("params", "loss"):
            _warn_of_bad_end(self, sys._getframe(1))
        return value

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """Flatten for jax."""
        fields = vars(self)
        get = jax.tree_util.GetAttrKey
        children = tuple((get(name), fields[name]) for name in _CHILDREN)
        return children, (self.data_paths, self.ended_by, self.loss_of)

    @classmethod
    def tree_unflatten(cls, statics: Any, children: Any) -> "FitResult":
        """Rebuild for jax."""
        data_paths, ended_by, loss_of = statics
        return cls(
            **dict(zip(_CHILDREN, children, strict=True)),
            data_paths=data_paths,
            ended_by=ended_by,
            loss_of=loss_of,
        )

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        _warn_of_bad_end(self, sys._getframe(1))
        return _tables.from_report(repr(self))

    def __repr__(self) -> str:
        """Report the end, the loss from and to, and what is on record."""
        if any(not _is_concrete(leaf) for leaf in jax.tree.leaves(self)):
            return f"FitResult(being traced, params={_text.shapes(self.params)})"
        _warn_of_bad_end(self, sys._getframe(1), waits=True)
        lines = [f"FitResult: {_text.headline(self)}", *_text.loss_lines(self)]
        lines.append(f"  params     {_text.values(self) or _text.shapes(self.params)}")
        if self.history:
            length = np.shape(self.history["step"])[-1]
            rows = _num_rows(self)
            measured = "" if rows in (None, length) else f", {rows} of them measured"
            names = ", ".join(sorted(self.history))
            lines.append(f"  history    {names}: {length} rows{measured}")
        return "\n".join(lines)


_CHILDREN = tuple(
    field.name for field in dataclasses.fields(FitResult) if not field.metadata
)


class NamedStatus(np.ndarray):
    """Statuses as NumPy's int32, which print as their names.

    Example:
      >>> from phihat import fit, gradient_descent
      >>> print(fit(lambda x: x**2, 1.0, gradient_descent(0.1), num_steps=1).status)
      COMPLETED
    """

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, **options: Any
    ) -> Any:
        """Compute as with plain numbers: what comes out is no status."""
        plain = [
            one.view(np.ndarray) if isinstance(one, NamedStatus) else one
            for one in inputs
        ]
        return getattr(ufunc, method)(*plain, **options)

    def __str__(self) -> str:
        """Return the name, or the names of lanes."""
        return "[" + " ".join(_names(self)) + "]" if self.ndim else _names(self)[0]

    def __repr__(self) -> str:
        """Return the name too, since an array of codes says little."""
        return f"Status({self})"

    def __format__(self, spec: str) -> str:
        """Format one as its name, or as a number where the format is one's."""
        return (
            format(int(self), spec) if spec.endswith("d") else format(str(self), spec)
        )


def _names(status: np.ndarray) -> list[str]:
    return [Status(int(code)).name for code in np.ravel(status)]


def _named(status: Any) -> Any:
    """Let a status print as its name, where it is known here."""
    if isinstance(status, jax.Array):
        if isinstance(status, jax.core.Tracer) or not _text.is_here(status):
            return status
        return np.asarray(status).view(NamedStatus)
    return status


def _warn_of_bad_end(result: FitResult, reader: Any, *, waits: bool = False) -> None:
    """Warn once that a fit met a number that is not finite, where that is known."""
    fields = vars(result)
    if "_is_read" in fields or reader.f_globals.get("__name__", "").startswith(_OURS):
        return
    status = fields.get("status")
    if isinstance(status, jax.core.Tracer) or not hasattr(status, "dtype"):
        return
    is_known = not isinstance(status, jax.Array) or (
        _text.is_here(status) and (waits or cast(Any, status).is_ready())
    )
    if not is_known:
        return
    object.__setattr__(result, "_is_read", True)
    codes = np.asarray(status)
    num_bad = int(np.sum(codes >= Status.NONFINITE_LOSS))
    if num_bad:
        what = f"{num_bad} of {codes.size} fits" if codes.ndim else "This fit"
        warnings.warn(
            f"{what} met an infinite or NaN number ({_text.count_statuses(codes)}); "
            "`phihat.raise_for_status(result)` says where and why.",
            stacklevel=3,
        )


_OURS = ("phihat.", "jax.", "jax", "dataclasses", "copy", "pickle")


def _num_rows(result: FitResult) -> int | None:
    """Return how many rows of the history of one fit were measured."""
    steps = result.history.get("step")
    status = vars(result)["status"]
    if steps is None or np.ndim(status) or not len(steps):
        return None
    offsets = np.asarray(steps) - int(np.asarray(steps[0]))
    taken = int(result.num_steps)
    is_cut = int(status) in (Status.STOPPED, Status.INTERRUPTED, Status.TIME_LIMIT)
    measures_itself = getattr(type(result.state.opt_state), "measures_itself", False)
    if is_cut or (measures_itself and taken):
        return int(np.sum(offsets < taken))
    return int(np.sum(offsets <= taken))


def _leaves_with_rows(entry: PyTree) -> list[Any]:
    leaves = jax.tree.leaves(entry)
    return [leaf if np.ndim(leaf) else () for leaf in leaves]


class FitError(RuntimeError):
    """What `raise_for_status` raises for a fit that met an infinite or NaN number.

    Attributes:
      step: the step at which it did, counted from the start of the run.
      quantity: "loss", "gradient" or "params".
      path: the path of the first such leaf, or None.
      advice: what to try.

    Example:
      >>> from phihat import FitError
      >>> print(FitError(3, "gradient", "['w']", "Clip it."))
      The fit stopped at step 3: the gradient was not finite at ['w']. Clip it.
    """

    def __init__(self, step: int, quantity: str, path: str | None, advice: str) -> None:
        """Compose the message from its parts."""
        self.step = step
        self.quantity = quantity
        self.path = path
        self.advice = advice
        at = f" at {path}" if path else ""
        super().__init__(
            f"The fit stopped at step {step}: the {quantity} was not finite{at}. "
            f"{advice}"
        )

    def __reduce__(self) -> Any:
        """Pickle the parts, so that the error survives a pool of processes."""
        parts = (self.step, self.quantity, self.path, self.advice)
        return type(self), parts, vars(self) | {"args": self.args}


def with_parts(result: FitResult, **changed: Any) -> FitResult:
    """Return a result with other parts; unlike `replace`, it looks at none of them."""
    found = vars(result)
    parts = {field.name: found[field.name] for field in dataclasses.fields(result)}
    return remember_data(FitResult(**(parts | changed)), result._data)


def remember_data(result: FitResult, data: SeenData) -> FitResult:
    """Let a result look for the cause of a failure in the data."""
    object.__setattr__(result, "_data", data)
    return result


@_calls.public
def raise_for_status(result: FitResult) -> FitResult:
    """Raise `FitError` if a fit met an infinite or NaN number, else return it.

    Args:
      result: of one fit, or of many lanes.

    Returns:
      The same result.

    Raises:
      FitError: with the step, the quantity, the path of the leaf and advice; for lanes,
        about the first bad lane, and how many ended with each status.

    Example:
      >>> from phihat import FitError, fit, gradient_descent, raise_for_status
      >>> result = fit(lambda x: x**4, 9.0, gradient_descent(1.0), num_steps=9)
      >>> try:
      ...     raise_for_status(result)
      ... except FitError as error:
      ...     print(error.step, error.quantity)
      2 loss
    """
    status = np.asarray(result.status)
    bad = np.flatnonzero(status.ravel() >= Status.NONFINITE_LOSS)
    if bad.size == 0:
        return result
    lane = int(bad[0])
    single = _lane(result, lane, status.ndim)
    error = FitError(*_text.diagnosis(single))
    if status.ndim:
        place = tuple(int(i) for i in np.unravel_index(lane, status.shape))
        where = place[0] if len(place) == 1 else place
        counts = _text.count_statuses(status)
        error.args = (
            f"{bad.size} of {status.size} lanes failed ({counts}). "
            f"The first is lane {where}: {error.args[0]}",
        )
    raise error


# -------------------------------------------------------------------- private helpers


def _lane(result: FitResult, lane: int, num_axes: int) -> FitResult:
    if num_axes == 0:
        return result

    def pick(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return array.reshape(-1, *array.shape[num_axes:])[lane]

    names = ("params", "loss", "grad_norm", "status", "num_steps")
    names += ("nonfinite_leaf", "nonfinite_data_leaf")
    parts = {name: jax.tree.map(pick, getattr(result, name)) for name in names}
    return with_parts(result, **parts)


def _is_concrete(leaf: Any) -> bool:
    return not isinstance(leaf, jax.core.Tracer) and hasattr(leaf, "shape")

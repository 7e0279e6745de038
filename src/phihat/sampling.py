"""Which rows a step sees: all of them, shuffled minibatches, or batches given by hand.

A sampler is a function of the data. It returns `Batches`, whose `batch_fn(key, step)`
is pure and depends on the key and the absolute step alone, so a fit that is resumed,
mapped or sharded draws the same rows. No order is ever stored: a shuffled row number
is computed where it is needed, by a keyed bijection (`permute`).

Example:
  >>> import jax
  >>> import jax.numpy as jnp
  >>> from phihat import sampling
  >>> x = jnp.arange(10)
  >>> batches = sampling.minibatches(4)(x)
  >>> key = jax.random.key(0)
  >>> drawn = [batches.batch_fn(key, 0), batches.batch_fn(key, 1)]
  >>> drawn.append(batches.last_batch_fn(key, 2))
  >>> sorted(jnp.concatenate(drawn).tolist())
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Int, UInt32

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core.tree import Static
from phihat._core.types import Batch, RandomKey

__all__ = [
    "Batches",
    "Sampler",
    "check_sampler",
    "from_indices",
    "full_batch",
    "minibatches",
    "permute",
]

_MAX_ROWS = 2**31
"""Row numbers are int32."""


class Batches(NamedTuple):
    """How to get the batch of any step.

    Attributes:
      batch_fn: `(key, step) -> batch`, the batch of that absolute step; pure, and may
        be mapped over keys and steps. All batches have one size: a shorter last one is
        filled up with rows that it repeats. A fit folds the key for its rows from its
        own, so with that same key other rows are drawn here.
      last_batch_fn: the same for the last step of an epoch where that batch is
        shorter; None where all batches have one shape.
      steps_per_epoch: steps in one pass over the data.
      needs_key: True where `batch_fn` cannot work with `key=None`.
      rows_fn: `(key, step) -> rows [B]`, the first half of `batch_fn`, so that the rows
        of many steps can be computed at once; None where it has no such half.
      take_fn: `rows -> batch`, the other half: `batch_fn` is
        `take_fn(rows_fn(key, step))`, and `last_batch_fn` is
        `take_fn(rows_fn(key, step)[:last_size])`.
      last_size: rows in a shorter last batch; 0 where all batches have one shape.
    """

    batch_fn: Callable[[Any, Any], Batch]
    last_batch_fn: Callable[[Any, Any], Batch] | None
    steps_per_epoch: int
    needs_key: bool = False
    rows_fn: Callable[[Any, Any], Int[Array, "B"]] | None = None
    take_fn: Callable[[Int[Array, "..."]], Batch] | None = None
    last_size: int = 0


Sampler = Callable[[Batch], Batches]
"""`data -> Batches`, called once for a fit."""


@_calls.public
def full_batch(data: Batch) -> Batches:
    """Use all of the data at every step; this is a sampler itself.

    Args:
      data: any pytree; leaves may differ in length.

    Example:
      >>> full_batch((1.0, 2.0)).batch_fn(None, 7)
      (1.0, 2.0)
    """
    if data is None:
        raise TypeError("full_batch: `data` must be a pytree of arrays, got None.")
    _checks.check_arrays("full_batch", "data", data)

    def batch_fn(key: Any, step: Any) -> Batch:
        del key, step
        return data

    return Batches(batch_fn, last_batch_fn=None, steps_per_epoch=1)


@_calls.public
def minibatches(
    batch_size: int, *, drop_remainder: bool = False, shuffle: bool = True
) -> Sampler:
    """Draw batches without replacement: every epoch is one pass over the data.

    The order of an epoch is `permute(key, ..., epoch=step // steps_per_epoch)`.

    Args:
      batch_size: rows in a batch B, at least 1 and at most the number of rows I.
      drop_remainder: where B does not divide I, leave the last I mod B rows of the
        epoch's order out, instead of keeping them as a shorter last batch.
      shuffle: draw a new order for each epoch, which needs a key; else keep the order
        of the data.

    Returns:
      A sampler for data whose leaves are `[I, ...]`, of up to 2^31 rows.

    Raises:
      ValueError: `batch_size` is below 1; or, once there are data, above their rows.

    Example:
      >>> batches = minibatches(4, shuffle=False)(jnp.arange(10))
      >>> batches.batch_fn(None, 1).tolist(), batches.last_batch_fn(None, 2).tolist()
      ([4, 5, 6, 7], [8, 9])
    """
    batch_size = _checks.check_count("minibatches", "batch_size", batch_size)
    return Partial(
        _minibatches,
        batch_size=Static(batch_size),
        drop_remainder=Static(bool(drop_remainder)),
        shuffle=Static(bool(shuffle)),
    )


@_calls.public
def from_indices(indices: Int[Array, "T B"]) -> Sampler:
    """Replay given batches: step t sees the rows `indices[t mod T]`.

    Args:
      indices: row numbers `[T, B]`, each in [0, I) for data of I rows; data and not
        code, so other numbers of the same shape need no new program. A row number out
        of range that is known only inside a trace gives a batch of NaN.

    Returns:
      A sampler for data whose leaves are `[I, ...]`; an epoch is T steps.

    Raises:
      TypeError: `indices` are not whole numbers.
      ValueError: they are not `[T, B]`, or one is negative; or, once there are data,
        one is not below the number of rows.

    Example:
      >>> sampler = from_indices([[0, 1], [3, 3]])
      >>> sampler(jnp.array([5.0, 6.0, 7.0, 8.0])).batch_fn(None, 3).tolist()
      [8.0, 8.0]
    """
    if not isinstance(indices, jax.Array):
        indices = _as_table(indices)
    _check_whole("from_indices", "indices", indices)
    if indices.ndim != 2 or 0 in indices.shape:
        raise ValueError(
            "from_indices: `indices` must have the shape [T, B], steps by rows, got "
            f"{_checks.brief(indices)}."
        )
    _checks.check_range("from_indices", "indices", indices, 0)
    return Partial(_from_indices, indices=indices)


@_calls.public
def check_sampler(sampler: Sampler, data: Batch) -> None:
    """Check, before any tracing, that a sampler of this module suits the data.

    Costs no array work, save a look at the largest row number of `from_indices`. A
    sampler from elsewhere need only be callable.

    Raises:
      TypeError: `sampler` is not callable.
      ValueError: the leaves of `data` differ in length, or there are too few rows.

    Example:
      >>> import jax.numpy as jnp
      >>> from phihat import sampling
      >>> try:
      ...     sampling.check_sampler(sampling.minibatches(4), jnp.arange(3.0))
      ... except ValueError as error:
      ...     print(str(error)[:40])
      minibatches: `batch_size` must be <= the
    """
    if not callable(sampler):
        raise TypeError(
            "check_sampler: `sampler` must be a function of the data, such as "
            f"`sampling.minibatches(32)`, got {_checks.brief(sampler)}."
        )
    if getattr(sampler, "func", None) in (_minibatches, _from_indices):
        sampler(data)


@_calls.public
def permute(
    key: RandomKey, positions: Int[Array, "..."], num_rows: int, *, epoch: Any = 0
) -> Int[Array, "..."]:
    r"""Return the rows at these positions of a random order of [0, num_rows).

    The swap-or-not shuffle. Round $r$ pairs each $x$ with $x' = K_r - x \bmod n$ and
    exchanges the two if the hash of $(r, \max(x, x'))$ has its highest bit set. Every
    round, hence the whole, is a bijection: each row occurs exactly once. There is no
    sort and no table, so any one position costs the same, whatever the number of rows.

    Args:
      key: a typed key. Only its first 64 bits count.
      positions: $x$, whole numbers in [0, num_rows), of any shape.
      num_rows: $n$, from 1 to 2^31.
      epoch: a whole number; each has an order of its own.

    Returns:
      int32 row numbers, of the shape of `positions`.

    Raises:
      TypeError: there is no key, or a position is not an integer.
      ValueError: `num_rows` or a position is out of range.

    Example:
      >>> order = permute(jax.random.key(0), jnp.arange(8), 8)
      >>> sorted(order.tolist())
      [0, 1, 2, 3, 4, 5, 6, 7]

    References:
      Hoang, Morris, Rogaway, *An enciphering scheme based on a card shuffle*,
      CRYPTO 2012.
    """
    num_rows = _checks.check_count("permute", "num_rows", num_rows, maximum=_MAX_ROWS)
    _checks.check_key("permute", key, required=True)
    if isinstance(positions, (list, tuple)):
        positions = jnp.asarray(np.asarray(positions, np.int32))
    _check_whole("permute", "positions", positions)
    if isinstance(epoch, (list, tuple)) or np.ndim(epoch):
        raise TypeError(
            f"permute: `epoch` must be one whole number, got {_checks.brief(epoch)}."
        )
    if isinstance(epoch, jax.Array):
        _check_whole("permute", "epoch", epoch)
    else:
        epoch = _checks.check_count("permute", "epoch", epoch, 0)
    _checks.check_range("permute", "positions", positions, 0, num_rows - 1)
    return _permute(key, jnp.asarray(positions), num_rows, _num_rounds(num_rows), epoch)


# --------------------------------------------------------------------------- samplers


def _minibatches(
    data: Batch, *, batch_size: Static, drop_remainder: Static, shuffle: Static
) -> Batches:
    size = batch_size.value
    num_rows = _checks.check_rows("minibatches", "data", data)
    if size > num_rows:
        raise ValueError(
            "minibatches: `batch_size` must be <= the number of rows, got "
            f"{size} for {num_rows} rows."
        )
    if num_rows > _MAX_ROWS:
        raise ValueError(
            f"minibatches: `data` must have at most 2^31 rows, got {num_rows}."
        )
    last_size = 0 if drop_remainder.value else num_rows % size
    steps_per_epoch = num_rows // size + bool(last_size)

    def rows_fn(key: Any, step: Any) -> Int[Array, "B"]:
        step = jnp.asarray(step, jnp.int32)
        turn = jax.lax.rem(step, np.int32(steps_per_epoch)).astype(np.uint32)
        positions = turn * np.uint32(size) + np.arange(size, dtype=np.uint32)
        # Positions past the end belong to no row: `last_batch_fn` cuts them off.
        positions = jnp.minimum(positions, np.uint32(num_rows - 1))
        if not shuffle.value:
            return positions.astype(jnp.int32)
        if key is None:
            raise ValueError(
                "minibatches: `key` is needed to shuffle; pass "
                "`key=jax.random.key(0)`, or `shuffle=False`."
            )
        epoch = jax.lax.div(step, np.int32(steps_per_epoch))
        return _permute(key, positions, num_rows, _num_rounds(num_rows), epoch)

    def take_fn(rows: Int[Array, "..."]) -> Batch:
        return _take(data, rows, mode="promise_in_bounds")

    def batch_fn(key: Any, step: Any) -> Batch:
        return take_fn(rows_fn(key, step))

    def last_batch_fn(key: Any, step: Any) -> Batch:
        return take_fn(rows_fn(key, step)[:last_size])

    return Batches(
        batch_fn,
        last_batch_fn if last_size else None,
        steps_per_epoch,
        needs_key=shuffle.value,
        rows_fn=rows_fn,
        take_fn=take_fn,
        last_size=last_size,
    )


def _from_indices(data: Batch, *, indices: Int[Array, "T B"]) -> Batches:
    num_rows = _checks.check_rows("from_indices", "data", data)
    if not isinstance(indices, jax.core.Tracer):
        largest = int(np.max(np.asarray(indices)))
        if largest >= num_rows:
            raise ValueError(
                "from_indices: `indices` must be below the number of rows, got "
                f"{largest} for {num_rows} rows."
            )
    steps_per_epoch = indices.shape[0]

    def rows_fn(key: Any, step: Any) -> Int[Array, "B"]:
        del key
        step = jnp.asarray(step, jnp.int32)
        turn = jax.lax.rem(step, np.int32(steps_per_epoch))
        return jnp.asarray(indices)[turn].astype(jnp.int32)

    def take_fn(rows: Int[Array, "..."]) -> Batch:
        return _take(data, rows, mode="fill")

    def batch_fn(key: Any, step: Any) -> Batch:
        return take_fn(rows_fn(key, step))

    return Batches(
        batch_fn,
        last_batch_fn=None,
        steps_per_epoch=steps_per_epoch,
        rows_fn=rows_fn,
        take_fn=take_fn,
    )


def _take(data: Batch, rows: Int[Array, "..."], mode: str) -> Batch:
    def take_leaf(leaf: Any) -> Array:
        return jnp.asarray(leaf).at[rows].get(mode=mode, wrap_negative_indices=False)

    return jax.tree.map(take_leaf, data)


def _check_whole(call: str, argument: str, value: Any) -> None:
    if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
        raise TypeError(
            f"{call}: `{argument}` must be whole numbers, got {_checks.brief(value)}."
        )


def _as_table(indices: Any) -> np.ndarray:
    try:
        return np.asarray(indices)
    except ValueError as error:
        raise ValueError(
            "from_indices: `indices` must have the shape [T, B], steps by rows; these "
            "rows differ in length."
        ) from error


# ------------------------------------------------------------------------ the shuffle


def _num_rounds(num_rows: int) -> int:
    """Return how many rounds shuffle so many rows well.

    A round leaves a row in place, and the distance of two neighbours as it is, with
    probability 1/2, so beside the one fixed point and two adjacent pairs of a uniform
    order n / 2^rounds more are left: below 2^-12 by the second bound. With ideal bits
    24 rounds are within 1e-5 of uniform over all n! orders for n from 2 to 7 (total
    variation, computed exactly; the worst is n = 4), so tiny n need no more.
    """
    return max(24, num_rows.bit_length() + 12)


# A fit traces it several times; JAX remembers it, and `inline` leaves no call behind.
@functools.partial(jax.jit, static_argnames=("num_rows", "num_rounds"), inline=True)
def _permute(
    key: RandomKey,
    positions: Int[Array, "..."],
    num_rows: int,
    num_rounds: int,
    epoch: Any,
) -> Int[Array, "..."]:
    n = np.uint32(num_rows)  # NumPy's constants trace faster than jax's
    streams = np.arange(1, num_rounds + 1, dtype=np.uint32)
    streams *= np.uint32(0x9E3779B9)  # 2^32 / golden ratio: a Weyl sequence
    seeds = _epoch_seeds(key, epoch)
    pivots = jax.lax.rem(_scramble(seeds[0] + streams), n)
    salts = _scramble(seeds[1] + streams)

    # Unrolled, the rounds fuse into one pass: half a loop's time for a small batch.
    rows = positions.astype(np.uint32)
    for pivot, salt in zip(pivots, salts, strict=True):
        # uint32 wraps round, so that K - x + n is right although K - x is negative.
        partner = pivot - rows + jnp.where(rows > pivot, n, np.uint32(0))
        is_swapped = _mix(jnp.maximum(rows, partner) ^ salt) >= np.uint32(2**31)
        rows = jnp.where(is_swapped, partner, rows)
    return rows.astype(np.int32)


def _epoch_seeds(key: RandomKey, epoch: Any) -> UInt32[Array, "2"]:
    # One Threefry call gives both seeds. It is called by name whatever the kind of key,
    # since the operations of "rbg" keys give other numbers under `vmap`.
    words = jax.random.key_data(key)[:2]
    threefry_key = jax.random.wrap_key_data(words, impl="threefry2x32")
    return jax.random.key_data(jax.random.fold_in(threefry_key, epoch))


def _scramble(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Hash 32 bits to 32: the bijection `lowbias32` found by C. Wellons (2018)."""
    x = _mix(x)
    return x ^ (x >> np.uint32(16))


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Hash as `_scramble` does, for those who look at the upper 16 bits alone."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    return (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)

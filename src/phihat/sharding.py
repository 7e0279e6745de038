"""Many devices, many hosts: where arrays lie decides where the work is done.

A fit whose data are divided among devices is the same call, and gives the same numbers
up to rounding: each device measures its rows, and the gradients are summed over all.
Params divided among devices bring their gradients and the optimizer's state with them.

Example:
  >>> import jax
  >>> import phihat
  >>> from phihat import sharding
  >>> mesh = sharding.make_mesh()  # one axis, "data", of all devices
  >>> x, y = phihat.datasets.linear_regression()
  >>> rows = len(x) // mesh.size * mesh.size
  >>> data = sharding.shard_batch((x[:rows], y[:rows]), mesh)
  >>> loss_fn = phihat.losses.least_squares(phihat.models.linear)
  >>> start = {"weight": 0.0, "bias": 0.0}
  >>> result = phihat.fit(loss_fn, start, phihat.adam(0.1), data, num_steps=500)
  >>> print(phihat.Status(int(result.status)).name)
  COMPLETED
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import placement as _placement
from phihat._core import tree as _tree
from phihat._core.types import Batch, Params

__all__ = [
    "initialize",
    "local_rows",
    "make_mesh",
    "param_shardings",
    "replicate",
    "shard_batch",
]


@_calls.public
def make_mesh(
    axes: Mapping[str, int | None] | None = None,
    *,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Arrange devices along named axes.

    Args:
      axes: for each axis its number of devices; one of them may be None, which stands
        for what is left. By default one axis, "data", of all devices.
      devices: which to use; all devices of all processes by default.

    Returns:
      A mesh whose axes are `AxisType.Auto`, as a fit needs them: the compiler places
      the collectives.

    Raises:
      TypeError: `axes` is not a mapping, or a size is not a whole number.
      ValueError: the sizes do not multiply to the number of devices.

    Example:
      >>> mesh = make_mesh({"data": None, "model": 1})
      >>> mesh.axis_names, mesh.size == jax.device_count()
      (('data', 'model'), True)
    """
    devices = list(jax.devices() if devices is None else devices)
    if not devices:
        raise ValueError("make_mesh: `devices` is empty.")
    axes = {"data": None} if axes is None else axes
    if not isinstance(axes, Mapping) or not axes:
        raise TypeError(
            "make_mesh: `axes` must map names to sizes, such as "
            f"{{'data': {len(devices)}}}, got {_checks.brief(axes)}."
        )
    names = [f"axes[{name!r}]" for name in axes]
    sizes = [
        None if size is None else _checks.check_count("make_mesh", name, size)
        for name, size in zip(names, axes.values(), strict=True)
    ]
    if sizes.count(None) > 1:
        raise ValueError(
            "make_mesh: at most one size of `axes` may be None, what is left, got "
            f"{dict(axes)}."
        )
    known = math.prod(size for size in sizes if size is not None)
    rest = len(devices) // known
    shape = tuple(rest if size is None else size for size in sizes)
    if math.prod(shape) != len(devices):
        wanted = "divide" if None in sizes else "multiply to"
        raise ValueError(
            f"make_mesh: the sizes of `axes` must {wanted} the number of devices, got "
            f"{dict(axes)} for {len(devices)} devices; `devices=jax.devices()[:n]` "
            "takes fewer."
        )
    return jax.make_mesh(
        shape, tuple(axes), axis_types=(AxisType.Auto,) * len(shape), devices=devices
    )


@_calls.public
def shard_batch(batch: Batch, mesh: Mesh, *, axis: str | None = None) -> Batch:
    """Divide rows among the devices along one axis of a mesh.

    With many processes each passes its own rows, those of `local_rows`, and gets the
    whole array, of which it holds its share.

    Args:
      batch: a pytree of arrays `[rows, ...]`.
      mesh: as `make_mesh` returns it.
      axis: the axis among whose devices the rows are divided, the mesh's first by
        default; along other axes they are repeated.

    Returns:
      The same arrays, divided.

    Raises:
      TypeError: `mesh` is not a mesh, or a leaf is not an array.
      ValueError: there is no such axis, a leaf has no rows, or the devices cannot
        share them evenly.

    Example:
      >>> mesh = make_mesh()
      >>> x = shard_batch(jnp.zeros((2 * mesh.size, 3)), mesh)
      >>> [shard.data.shape for shard in x.addressable_shards] == [(2, 3)] * mesh.size
      True
    """
    call = "shard_batch"
    axis = _check_axis(call, mesh, axis)
    _check_arrays(call, "batch", batch)
    if not jax.tree.leaves(batch):
        raise ValueError(f"{call}: `batch` has no arrays in it.")
    sharding = NamedSharding(mesh, PartitionSpec(axis))
    parts = len(_blocks(sharding))

    def divide(path: Any, leaf: Any) -> Any:
        name = f"`batch{jax.tree_util.keystr(path)}`"
        if jnp.ndim(leaf) == 0:
            raise ValueError(f"{call}: {name} is a scalar: it has no rows.")
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise ValueError(
                f"{call}: {name} is divided among processes already; pass the rows of "
                "this process."
            )
        rows = jnp.shape(leaf)[0]
        if rows % parts:
            here = " of this process" if parts < mesh.shape[axis] else ""
            raise ValueError(
                f"{call}: {name} has {rows} rows, which {parts} devices{here} along "
                f"the axis {axis!r} cannot share evenly: leave out {rows % parts} of "
                f"them, or add {-rows % parts} of weight zero."
            )
        if _tree.is_key(leaf):
            return jax.device_put(leaf, sharding)
        return jax.make_array_from_process_local_data(sharding, leaf)

    return jax.tree_util.tree_map_with_path(divide, batch)


@_calls.public
def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put a copy of every array on every device of a mesh.

    A fit does so by itself with params that lie nowhere in particular; what was put on
    one device must be replicated first. With many processes each passes the same.

    Args:
      tree: a pytree of arrays, such as params or a `FitState`.
      mesh: as `make_mesh` returns it.

    Returns:
      The same arrays, replicated.

    Raises:
      TypeError: `mesh` is not a mesh, or a leaf is not an array.

    Example:
      >>> params = replicate({"weight": jnp.zeros(3)}, make_mesh())
      >>> params["weight"].sharding.is_fully_replicated
      True
    """
    _check_mesh("replicate", mesh)
    _check_arrays("replicate", "tree", tree)
    whole = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any) -> Any:
        is_here = getattr(leaf, "is_fully_addressable", True)
        if whole.is_fully_addressable or not is_here:
            return jax.device_put(leaf, whole)
        local, rewrap = _placement.to_host(leaf)
        return rewrap(jax.device_put(local, whole))

    return jax.tree.map(put, tree)


@_calls.public
def param_shardings(
    params: Params, mesh: Mesh, *, axis: str | None = None, min_entries: int = 4096
) -> PyTree:
    """Plan how to divide params that are too large for one device.

    Each leaf is divided along the longest of its dimensions that the axis divides.
    `jax.device_put(params, shardings)` divides params that exist, and
    `jax.jit(init, out_shardings=shardings)(key)` makes them in parts. In a fit, the
    gradients and the optimizer's state lie as the params do.

    Args:
      params: arrays or their shapes, as `jax.eval_shape` returns them.
      mesh: as `make_mesh` returns it.
      axis: the axis among whose devices they are divided, the mesh's first by default.
        It may be that of the batch (fully sharded data parallelism) or another.
      min_entries: leaves with fewer entries are repeated on all devices.

    Returns:
      A `NamedSharding` for each leaf.

    Raises:
      TypeError: `mesh` is not a mesh.
      ValueError: there is no such axis.

    Example:
      >>> mesh = make_mesh()
      >>> params = {"weight": jnp.zeros((3, 1024 * mesh.size)), "bias": jnp.zeros(3)}
      >>> shardings = param_shardings(params, mesh, min_entries=1024)
      >>> tuple(shardings["weight"].spec), tuple(shardings["bias"].spec)
      ((None, 'data'), ())
    """
    call = "param_shardings"
    axis = _check_axis(call, mesh, axis)
    _check_arrays(call, "params", params, takes_shapes=True)
    min_entries = _checks.check_count(call, "min_entries", min_entries)
    parts = mesh.shape[axis]

    def plan(leaf: Any) -> NamedSharding:
        shape = np.shape(leaf)
        lengths = {length: at for at, length in enumerate(shape) if not length % parts}
        if math.prod(shape) < min_entries or not lengths:
            return NamedSharding(mesh, PartitionSpec())
        before = (None,) * lengths[max(lengths)]
        return NamedSharding(mesh, PartitionSpec(*before, axis))

    return jax.tree.map(plan, params)


@_calls.public
def local_rows(num_rows: int, mesh: Mesh, *, axis: str | None = None) -> slice:
    """Tell which rows this process reads, to pass them to `shard_batch`.

    Args:
      num_rows: rows of the whole.
      mesh: as `make_mesh` returns it.
      axis: as in `shard_batch`.

    Returns:
      The slice of its rows; all rows where there is one process.

    Raises:
      TypeError: `mesh` is not a mesh.
      ValueError: there is no such axis, the devices cannot share the rows evenly, or
        those of this process are not next to each other.

    Example:
      >>> mesh = make_mesh()
      >>> local_rows(10 * mesh.size, mesh) == slice(0, 10 * mesh.size)
      True
    """
    call = "local_rows"
    axis = _check_axis(call, mesh, axis)
    num_rows = _checks.check_count(call, "num_rows", num_rows)
    parts = mesh.shape[axis]
    if num_rows % parts:
        raise ValueError(
            f"{call}: `num_rows` must be a multiple of {parts}, the size of the axis "
            f"{axis!r}, got {num_rows}."
        )
    blocks = _blocks(NamedSharding(mesh, PartitionSpec(axis)))
    if not blocks:
        raise ValueError(f"{call}: no device of `mesh` belongs to this process.")
    if blocks[-1] - blocks[0] != len(blocks) - 1:
        raise ValueError(
            f"{call}: the devices of this process are not next to each other along "
            f"the axis {axis!r} of `mesh`; let that axis be its first."
        )
    size = num_rows // parts
    return slice(blocks[0] * size, (blocks[-1] + 1) * size)


@_calls.public
def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 300,
    heartbeat_timeout: int = 100,
) -> None:
    """Join this process to the others of a cluster: `jax.distributed`, checked.

    It comes first in the program, before anything is computed, in every process. Under
    Slurm, Open MPI, in a Kubernetes job and on a Cloud TPU no argument is needed.
    Then `jax.devices()` are those of all processes, all processes make the same calls
    in the same order, and process 0 (`jax.process_index()`) writes what people read.

    Args:
      coordinator_address: "host:port" of process 0, where it listens; on all
        interfaces, or on the loopback alone where the host is that.
      num_processes: how many processes there are.
      process_id: the number of this one, from 0.
      timeout: seconds to wait for the others.
      heartbeat_timeout: seconds of silence after which a process counts as dead. The
        others then end too, with the number of the dead one in their message.

    Raises:
      RuntimeError: it was called before, or after a computation.
      TypeError: a number is not an integer.
      ValueError: there is no cluster to be seen and arguments are missing, or one of
        them is wrong.

    Example:
      >>> initialize("10.0.0.1", num_processes=2, process_id=0)
      Traceback (most recent call last):
      ValueError: initialize: `coordinator_address` must be "host:port", got '10.0.0.1'.
    """
    call = "initialize"
    timeout = _checks.check_count(call, "timeout", timeout)
    silence = _checks.check_count(call, "heartbeat_timeout", heartbeat_timeout)
    if num_processes is not None:
        num_processes = _checks.check_count(call, "num_processes", num_processes)
    if process_id is not None:
        process_id = _checks.check_count(call, "process_id", process_id, minimum=0)
        if num_processes is not None and process_id >= num_processes:
            raise ValueError(
                f"{call}: `process_id` must be below `num_processes`, got {process_id} "
                f"of {num_processes}."
            )
    bind_address = None
    if coordinator_address is not None:
        bind_address = _bind_address(call, coordinator_address)
    if jax.distributed.is_initialized():
        raise RuntimeError(
            f"{call}: this is process {jax.process_index()} of {jax.process_count()} "
            "already; call it once."
        )
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=silence,
            coordinator_bind_address=bind_address,
        )
    except RuntimeError as error:
        if "must be called before" not in str(error):
            raise
        raise RuntimeError(
            f"{call}: jax was used before, so its devices are chosen; call it first, "
            "before any computation and any look at `jax.devices()`."
        ) from error
    except ValueError as error:
        if "defined" not in str(error):
            raise
        raise ValueError(
            f"{call}: the environment does not tell all of it (Slurm, Open MPI, "
            "Kubernetes and Cloud TPU do), so pass `coordinator_address`, "
            "`num_processes` and `process_id`."
        ) from error


# -------------------------------------------------------------------- private helpers


def _check_mesh(call: str, mesh: Any) -> None:
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"{call}: `mesh` must be a `jax.sharding.Mesh`, as `make_mesh` returns it, "
            f"got {_checks.brief(mesh)}."
        )


def _check_axis(call: str, mesh: Any, axis: Any) -> str:
    _check_mesh(call, mesh)
    if axis is None:
        return mesh.axis_names[0]
    _checks.check_choice(call, "axis", axis, mesh.axis_names)
    return axis


def _check_arrays(
    call: str, argument: str, tree: PyTree, *, takes_shapes: bool = False
) -> None:
    """Check for arrays; where shapes are enough, the arrays may be yet to be made."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        is_shape = takes_shapes and (hasattr(leaf, "shape") or type(leaf) is complex)
        if not (is_shape or _tree.is_number(leaf) or isinstance(leaf, int)):
            raise TypeError(
                f"{call}: `{argument}{jax.tree_util.keystr(path)}` must be an array, "
                f"got {_checks.brief(leaf)}."
            )


def _blocks(sharding: NamedSharding) -> list[int]:
    """Return which of the blocks along the first axis this process holds, sorted."""
    axes = sharding.mesh.shape[sharding.spec[0]]
    places = sharding.addressable_devices_indices_map((axes,)).values()
    return sorted({place[0].indices(axes)[0] for place in places if place})


def _bind_address(call: str, address: Any) -> str | None:
    """Return where process 0 listens, if that is the loopback alone."""
    host, _, port = str(address).rpartition(":")
    if not isinstance(address, str) or not host or not port.isdigit():
        raise ValueError(
            f'{call}: `coordinator_address` must be "host:port", got {address!r}.'
        )
    return address if host in ("127.0.0.1", "localhost", "[::1]") else None

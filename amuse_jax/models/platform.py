"""What a program is traced for: a platform, and the devices that share out its batches.

Asked while a program is traced, of the platform that JAX runs on. (`jax.lax.platform_dependent`
asks when it is lowered, but its gradient keeps what either way needs.) Who compiles for another
platform says so with `compiling_for`.
"""

import contextlib
import contextvars
from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec

_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar('platform', default=None)
_shares: contextvars.ContextVar[tuple[Mesh, tuple[str, ...]] | None] = contextvars.ContextVar(
    'shares', default=None
)


def platform() -> str:
    """'cpu', 'gpu' or 'tpu'."""
    return _platform.get() or jax.default_backend()


def compiling_for(platform: str) -> contextlib.ContextDecorator:
    """Inside, programs are traced for 'cpu', 'gpu' or 'tpu', whatever JAX runs on."""
    return _set(_platform, platform)


def batches_over(mesh: Mesh, axes: tuple[str, ...]) -> contextlib.ContextDecorator:
    """Inside, programs are traced whose batches these axes of the mesh share out.

    XLA's partitioner cannot look into kernels; they ask.
    """
    return _set(_shares, (mesh, axes))


def is_shared() -> bool:
    """Whether several devices share out a batch."""
    return bool(_shares.get()) and _shares.get()[0].size > 1


def on_each_device(kernel: Callable, batched: int, whole: int) -> Callable:
    """`kernel` where every device calls it for its share of a batch.

    Args:
      kernel: of arrays, first `batched` ones with a leading batch axis as its result has, then
        `whole` ones that all of the batch needs.
    """
    if not is_shared():
        return kernel
    mesh, axes = _shares.get()
    shared = PartitionSpec(axes)
    return jax.shard_map(
        kernel,
        mesh=mesh,
        in_specs=(shared,) * batched + (PartitionSpec(),) * whole,
        out_specs=shared,
        check_vma=False,
    )


@contextlib.contextmanager
def _set(variable: contextvars.ContextVar, value):
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)

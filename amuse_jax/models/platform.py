"""The platform that a program is traced for, and the devices that share its batches.

Models ask for the platform while they are traced; by default it is the platform that JAX runs on.
`compiling_for` sets another one, for a program that is compiled ahead of time.
(`jax.lax.platform_dependent` chooses later, when a program is lowered, but its gradient keeps the
residuals of every platform.)
"""

import contextlib
import contextvars
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import logging
from jax.sharding import Mesh, PartitionSpec

_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar('platform', default=None)
_batch_sharding: contextvars.ContextVar[tuple[Mesh, tuple[str, ...]] | None] = (
    contextvars.ContextVar('batch_sharding', default=None)
)


def current() -> str:
    """Return the platform of the program being traced: 'cpu', 'gpu', 'tpu', or 'any' of them."""
    return _platform.get() or jax.default_backend()


def compute_dtype(name: str) -> jnp.dtype:
    """Return the dtype in which a model of dtype `name` computes: on CPUs always float32.

    XLA multiplies bfloat16 matrices on CPUs no faster than float32 ones.
    """
    if current() != 'cpu' or name == 'float32':
        return jnp.dtype(name)
    logging.log_first_n(logging.INFO, 'model.dtype=%s is computed in float32 on CPUs', 1, name)
    return jnp.dtype('float32')


def matmul_precision(name: str) -> str:
    """Return JAX's matmul precision for a model of dtype `name`: 'highest' or 'default'.

    The rule, in training, evaluation and the benchmark: a model of dtype float32 multiplies in
    float32 everywhere. Accelerators would otherwise round its factors, to TF32 on GPUs and to
    bfloat16 on TPUs. In a model of dtype bfloat16, the few float32 products may be rounded so.
    """
    return 'highest' if name == 'float32' else 'default'


def compiling_for(platform: str) -> contextlib.ContextDecorator:
    """Trace programs for 'cpu', 'gpu' or 'tpu' inside this context, whatever JAX runs on.

    'any' traces a program that runs on each of them, without the kernels that only one of them has.
    """
    return _set(_platform, platform)


def batch_sharded_over(mesh: Mesh, axes: tuple[str, ...]) -> contextlib.ContextDecorator:
    """Trace programs whose batches are sharded over these axes of the mesh inside this context.

    XLA's partitioner cannot partition a Pallas kernel, so the code around a kernel must know how
    the batch is sharded.
    """
    return _set(_batch_sharding, (mesh, axes))


def batch_is_sharded() -> bool:
    """Return whether the batch is sharded over several devices."""
    return bool(_batch_sharding.get()) and _batch_sharding.get()[0].size > 1


def weights_are_sharded() -> bool:
    """Return whether devices that share a part of the batch divide the weights among them."""
    if not batch_is_sharded():
        return False
    mesh, axes = _batch_sharding.get()
    return any(size > 1 for axis, size in mesh.shape.items() if axis not in axes)


def on_each_device(kernel: Callable, batched: int, replicated: int) -> Callable:
    """Return `kernel` as a function of the whole batch that every device runs on its own shard.

    Args:
      kernel: a function of `batched` arrays with a leading batch axis, followed by `replicated`
        arrays that every device needs in full. Its result has the leading batch axis too.
      batched: number of arrays with a batch axis.
      replicated: number of arrays without one.
    """
    if not batch_is_sharded():
        return kernel
    mesh, axes = _batch_sharding.get()
    sharded = PartitionSpec(axes)
    return jax.shard_map(
        kernel,
        mesh=mesh,
        in_specs=(sharded,) * batched + (PartitionSpec(),) * replicated,
        out_specs=sharded,
        check_vma=False,
    )


@contextlib.contextmanager
def _set(variable: contextvars.ContextVar, value):
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)

"""Options of XLA and JAX that this project sets, each with its purpose.

Options are passed with each program, because a flag in the environment variable XLA_FLAGS that
XLA does not know ends the process. An option that this version of XLA does not have is left out.
What the user sets in XLA_FLAGS, or in one of JAX's own variables, stays as it is.
"""

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

# Options of a program for CPUs. They exist in jaxlib 0.10.2.
CPU_OPTIONS: dict[str, Any] = {
    # This pass removes the barriers between a value and its second computation for the gradient.
    # XLA would then find the two equal and store the first, and rematerialisation would save
    # nothing outside a scan.
    'xla_disable_hlo_passes': 'cse_barrier_expander',
}
# Options of a program for NVIDIA GPUs. They exist in jaxlib 0.10.2.
GPU_OPTIONS: dict[str, Any] = {
    # Kernels of these kinds are recorded as CUDA graphs and launched together. A step has thousands
    # of small kernels, and each launch of its own costs microseconds of the host.
    'xla_gpu_enable_command_buffer': 'FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL',
}
# The same for programs on several GPUs.
GPU_OPTIONS_OF_SEVERAL: dict[str, Any] = {
    # Starts the exchange of the gradients early and does other work meanwhile.
    'xla_gpu_enable_latency_hiding_scheduler': True,
}
# JAX takes three quarters of a GPU's memory by default. Stored tokens and a step need more.
MEM_FRACTION = '0.9'
CACHE_BYTES = 4 * 2**30  # of compiled programs; a step at v1's size takes about 20 MB
CACHED_SECONDS = 0.2  # a program that compiles faster is compiled again


def set_environment(*, shares_gpus: bool = False) -> None:
    """Set the environment variables that the user has not set. Call this before JAX starts.

    Args:
      shares_gpus: whether PyTorch, or other processes with a JAX of their own, will use the GPUs
        while this process runs. JAX then takes their memory only as it needs it.
    """
    os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', MEM_FRACTION)
    if shares_gpus:
        os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')


def run_cpu_programs_in_place() -> None:
    """Run programs for CPUs in the thread that calls them; in another one they take longer.

    Call this before JAX starts.
    """
    import jax

    jax.config.update('jax_cpu_enable_async_dispatch', False)


def enable_compilation_cache(folder: Path | None = None) -> None:
    """Store compiled programs in a folder, so that later runs need not compile them.

    The choice of kernels by measurement (autotuning) on GPUs is stored there as well. It serves
    other programs with the same products, too. A folder that the user has chosen with
    JAX_COMPILATION_CACHE_DIR stays.

    Args:
      folder: the folder; None for the one that all runs of this user share on this kind of
        processor. The programs that were used least recently leave it when it is full.
    """
    import jax

    if jax.config.jax_compilation_cache_dir:
        return
    if folder is None:
        folder = _shared_cache()
        jax.config.update('jax_compilation_cache_max_size', CACHE_BYTES)
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', CACHED_SECONDS)
    with contextlib.suppress(AttributeError):  # a newer JAX may name it differently
        jax.config.update(
            'jax_persistent_cache_enable_xla_caches', 'xla_gpu_per_fusion_autotune_cache_dir'
        )


def _shared_cache() -> Path:
    """Return this user's folder for compiled programs; programs for CPUs fit one kind alone."""
    from llvmlite import binding  # numba's

    features = f'{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}'
    kind = hashlib.sha256(features.encode()).hexdigest()[:8]
    return platformdirs.user_cache_path('amuse_jax') / f'compiled-{kind}'


def cpu_options() -> dict[str, Any]:
    """Return the options of a program for CPUs, for `compiler_options` of jax.jit."""
    return usable(CPU_OPTIONS, os.environ.get('XLA_FLAGS', ''))


def gpu_options(devices: int) -> dict[str, Any]:
    """Return the options of a program for GPUs, for `compiler_options` of jax.jit.

    Args:
      devices: the number of devices that run the program.
    """
    options = GPU_OPTIONS | (GPU_OPTIONS_OF_SEVERAL if devices > 1 else {})
    return usable(options, os.environ.get('XLA_FLAGS', ''))


def usable(options: Mapping[str, Any], flags: str) -> dict[str, Any]:
    """Return the options that XLA knows and that the user has not set.

    Args:
      options: values by name.
      flags: the value of XLA_FLAGS.
    """
    chosen = set(re.findall(r'--(\w+)', flags))
    return {n: value for n, value in options.items() if n not in chosen and _is_known(n, value)}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    """Return whether XLA accepts the option, by compiling a program of nothing with it."""
    import jax

    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True

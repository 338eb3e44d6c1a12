"""Float32 products of Intel's MKL inside programs of XLA, on Intel processors.

There MKL multiplies about a fifth faster than XLA; on AMD's processors XLA is the faster one.
PyTorch's library for x86-64 contains MKL. XLA calls it through its interface for foreign functions.
"""

import ctypes
import functools
import importlib.util
import platform
import re
from collections.abc import Callable
from pathlib import Path

import jax
from absl import logging

# Which of two factors is transposed, by the name of the foreign function.
TRANSPOSED = {
    'amuse_sgemm_nn': (False, False),
    'amuse_sgemm_tn': (True, False),
    'amuse_sgemm_nt': (False, True),
}


@functools.cache
def is_available() -> bool:
    """Return whether programs can call MKL on this machine; its products are registered then."""
    path = _library()
    if path is None or not _is_intel():
        return False
    try:
        _register(ctypes.CDLL(str(path)).sgemm_)
    except (AttributeError, ImportError, OSError, RuntimeError, ValueError) as error:
        logging.warning('XLA computes all products: MKL in %s cannot be called (%s)', path, error)
        return False
    return True


def matmul(
    left: jax.Array, right: jax.Array, transpose_left: bool = False, transpose_right: bool = False
) -> jax.Array:
    """Return the product of two float32 matrices; at most one of them is transposed first.

    MKL must be available.

    Args:
      left: (m, k), or (k, m) where it is transposed.
      right: (k, n), or (n, k) where it is transposed.
    Returns:
      (m, n) float32.
    """
    shape = left.shape[transpose_left], right.shape[not transpose_right]
    name = next(n for n, each in TRANSPOSED.items() if each == (transpose_left, transpose_right))
    result = jax.ShapeDtypeStruct(shape, left.dtype)
    return jax.ffi.ffi_call(name, result, vmap_method='sequential')(left, right)


def _library() -> Path | None:
    """Return PyTorch's library, without importing PyTorch."""
    found = importlib.util.find_spec('torch') if platform.machine() == 'x86_64' else None
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(found.submodule_search_locations[0], 'lib', 'libtorch_cpu.so')
    return path if path.exists() else None


def _is_intel() -> bool:
    processors = Path('/proc/cpuinfo')
    return processors.exists() and 'GenuineIntel' in processors.read_text(encoding='utf-8')


def _version() -> tuple[int, int]:
    """Return the version of the interface that this jaxlib has."""
    header = Path(jax.ffi.include_dir(), 'xla/ffi/api/c_api.h').read_text(encoding='utf-8')
    found = [re.search(rf'XLA_FFI_API_{part} (\d+)', header) for part in ('MAJOR', 'MINOR')]
    major, minor = (int(each[1]) if each else -1 for each in found)
    if major != 0:
        raise ValueError(f'the interface for foreign functions is {major}.{minor}, expected 0.x')
    return major, minor


def _register(sgemm: Callable) -> None:
    """Register a foreign function for each name in TRANSPOSED; see foreign_product."""
    from amuse_jax.system import foreign_product

    foreign_product.set_sgemm(ctypes.cast(sgemm, ctypes.c_void_p).value)
    for name, transposed in TRANSPOSED.items():
        function = foreign_product.compile_handler(*_version(), *transposed)
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function.ctypes), platform='cpu')
        _registered.append(function)


_registered = []  # what XLA calls must live as long as the process

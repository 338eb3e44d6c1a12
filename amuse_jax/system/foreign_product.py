"""The C functions through which XLA calls SGEMM, compiled by Numba: they need no lock of Python.

XLA passes a frame of pointers to operands and result; its structures are described in
xla/ffi/api/c_api.h of jax.ffi.include_dir().
"""

from collections.abc import Callable

import numba
import numpy as np
from llvmlite import binding
from numba import types
from numba.extending import intrinsic

# Places in the structures, in words of eight bytes.
FRAME_EXTENSION, FRAME_STAGE, FRAME_OPERANDS, FRAME_RESULTS = 1, 4, 9, 14
BUFFER_DATA, BUFFER_SHAPE = 3, 5
EXTENSION_TYPE, EXTENSION_METADATA = 1, 3
METADATA_VERSION, METADATA_TRAITS = 3, 4
METADATA, EXECUTE = 1, 3  # XLA_FFI_Extension_Metadata, XLA_FFI_ExecutionStage_EXECUTE
AS_IS, TRANSPOSED = b'NT'

SGEMM = 'amuse_sgemm'
sgemm = types.ExternalFunction(SGEMM, types.void(*(types.int64,) * 13))


def set_sgemm(address: int) -> None:
    """Give the address of BLAS's SGEMM with Fortran's conventions: all arguments are pointers."""
    binding.add_symbol(SGEMM, address)


def _pointer_to(kind):
    """Return a function for Numba from an address to an array of unknown length."""

    @intrinsic
    def pointer(_, address):
        def build(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(address), build

    return pointer


words, halves = _pointer_to(types.int64), _pointer_to(types.int32)


def compile_handler(
    major: int, minor: int, transpose_left: bool, transpose_right: bool
) -> Callable[[int], int]:
    """Compile the function that XLA calls for a product of two float32 matrices.

    Args:
      major, minor: the version of XLA's interface.
      transpose_left, transpose_right: which of the two matrices is transposed first.
    Returns:
      A C function from the address of a frame to 0, which means success.
    """

    @numba.cfunc(types.int64(types.int64), cache=True)
    def call(frame):
        extension = words(frame)[FRAME_EXTENSION]
        if extension and halves(extension)[2 * EXTENSION_TYPE] == METADATA:
            metadata = words(extension)[EXTENSION_METADATA]
            halves(metadata)[2 * METADATA_VERSION] = major
            halves(metadata)[2 * METADATA_VERSION + 1] = minor
            halves(metadata)[2 * METADATA_TRAITS] = 0
            return 0
        if halves(frame)[2 * FRAME_STAGE] != EXECUTE:
            return 0
        operands = words(words(frame)[FRAME_OPERANDS])
        left, right = words(operands[0]), words(operands[1])
        result = words(words(words(frame)[FRAME_RESULTS])[0])
        left_shape, right_shape = words(left[BUFFER_SHAPE]), words(right[BUFFER_SHAPE])
        rows, depth = left_shape[0], left_shape[1]
        if transpose_left:
            rows, depth = depth, rows
        columns = right_shape[0] if transpose_right else right_shape[1]
        # Stored by rows, as XLA does, a matrix is its transpose stored by columns, as BLAS does.
        # So this multiplies right^T left^T, which is the transpose of the result.
        sizes = np.array([columns, rows, depth, right_shape[1], left_shape[1]], np.int32)
        factors = np.array([1, 0], np.float32)
        letters = np.array([AS_IS, AS_IS], np.uint8)
        if transpose_right:
            letters[0] = TRANSPOSED
        if transpose_left:
            letters[1] = TRANSPOSED
        size, factor, letter = sizes.ctypes.data, factors.ctypes.data, letters.ctypes.data
        sgemm(
            letter, letter + 1, size, size + 4, size + 8, factor, right[BUFFER_DATA], size + 12,
            left[BUFFER_DATA], size + 16, factor + 4, result[BUFFER_DATA], size,
        )  # fmt: skip
        return 0

    return call

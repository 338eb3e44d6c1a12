"""Environment variables of a command: what it sets, and what it ignores.

Notebooks and their hosts export variables for their own Python. A command that they start inherits
them, and so do its worker processes.
"""

import io
import locale
import os
import sys
import threading

# Figures are only written to files, so the backend of a notebook is of no use here.
MATPLOTLIB = ('MPLBACKEND', 'MATPLOTLIBRC', 'MPLCONFIGDIR')
# JAX's own defaults of the settings that change results or refuse programs. They can be exported as
# JAX_ENABLE_X64 and so on.
JAX = {
    'jax_enable_x64': False,
    'jax_numpy_dtype_promotion': 'standard',
    'jax_numpy_rank_promotion': 'allow',
    'jax_default_prng_impl': 'threefry2x32',
    'jax_default_matmul_precision': None,
}


def set_up() -> None:
    """Set up the environment of a command. Call this first in its process.

    File names are UTF-8; Matplotlib's variables are removed; OpenMP's threads wait passively; JAX
    computes by its own defaults, so in 32 bits, as the checkpoints are stored; and letters that the
    terminal does not have are replaced instead of ending the command.
    """
    use_utf_8()
    ignore_matplotlib()
    wait_passively()
    for name, value in JAX.items():
        os.environ.pop(name.upper(), None)
        if 'jax' in sys.modules:  # a config file may have imported it
            sys.modules['jax'].config.update(name, value)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='replace')


def use_utf_8() -> None:
    """Start this command again in Python's UTF-8 mode if the locale has another encoding.

    Otherwise names beyond ASCII on the command line and in the annotations would lead to no files,
    or to wrong ones. The terminal keeps the locale's encoding. Nothing happens in a process that
    has begun other work in threads, such as a notebook's kernel.
    """
    is_utf_8 = sys.getfilesystemencoding() == 'utf-8'
    # PYTHONUTF8 is ignored where Python has been started with -E.
    if is_utf_8 or os.environ.get('PYTHONUTF8') == '1' or threading.active_count() > 1:
        return
    os.environ['PYTHONUTF8'] = '1'
    os.environ.setdefault('PYTHONIOENCODING', locale.getencoding())
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def wait_passively() -> None:
    """Let OpenMP's threads, such as those of PyTorch and MKL, sleep while they wait for work.

    Threads that wait actively keep the cores from XLA and from other processes: MKL's products are
    then no faster than XLA's, and with several processes a training step takes ten times as long.
    Call this before PyTorch or MKL is loaded. What the user has set stays as it is.
    """
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')


def ignore_matplotlib() -> None:
    """Remove the variables that Matplotlib reads. Call this before Matplotlib is imported."""
    for name in MATPLOTLIB:
        os.environ.pop(name, None)

"""Environment variables of other programs that must not change what a command does.

Notebooks and their hosts export variables for their own Python. A command that they start inherits
them, and so do its worker processes.
"""

import io
import os
import sys

# Figures are only written to files, so the backend of a notebook is of no use here.
MATPLOTLIB = ('MPLBACKEND', 'MATPLOTLIBRC', 'MPLCONFIGDIR')


def set_up() -> None:
    """Set up the environment of a command. Call this first in its process.

    Matplotlib's variables are removed; JAX computes in 32 bits, as the checkpoints are stored; and
    letters that the terminal does not have are replaced instead of ending the command.
    """
    ignore_matplotlib()
    os.environ['JAX_ENABLE_X64'] = 'false'
    if 'jax' in sys.modules:  # a config file may have imported it
        sys.modules['jax'].config.update('jax_enable_x64', False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='replace')


def ignore_matplotlib() -> None:
    """Remove the variables that Matplotlib reads. Call this before Matplotlib is imported."""
    for name in MATPLOTLIB:
        os.environ.pop(name, None)

"""The environment of the processes that run the detector."""

import os

import platformdirs

from amuse_jax.system import environment


def set_up() -> None:
    """Set the environment variables of this process. Call this before ultralytics is imported.

    Otherwise ultralytics would use the network, print, install packages and write its settings to
    the user's home folder. The threads of PyTorch are made to sleep while they wait: threads that
    are busy waiting take the cores from other processes, and a training step then takes ten times
    as long.
    """
    environment.ignore_matplotlib()  # ultralytics imports it
    os.environ.update(YOLO_OFFLINE='true', YOLO_VERBOSE='false', YOLO_AUTOINSTALL='false')
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    os.environ.setdefault('YOLO_CONFIG_DIR', str(platformdirs.user_cache_path('amuse_jax')))

"""The environment of the processes that run the detector."""

import os

import platformdirs

from amuse_jax.system import environment


def set_up() -> None:
    """Set the environment variables of this process. Call this before ultralytics is imported.

    Otherwise ultralytics would use the network, print, install packages and write its settings to
    the user's home folder, and the threads of PyTorch would wait actively.
    """
    environment.ignore_matplotlib()  # ultralytics imports it
    environment.wait_passively()
    os.environ.update(YOLO_OFFLINE='true', YOLO_VERBOSE='false', YOLO_AUTOINSTALL='false')
    os.environ.setdefault('YOLO_CONFIG_DIR', str(platformdirs.user_cache_path('amuse_jax')))

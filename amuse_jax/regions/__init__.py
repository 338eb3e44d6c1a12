"""The regions of interest of each video (3.3), found offline by a detector in PyTorch."""

import os
import tempfile
from pathlib import Path

# Before any of them imports ultralytics: it would look for the network, print, install packages and
# write its settings into the user's home.
os.environ.update(YOLO_OFFLINE='true', YOLO_VERBOSE='false', YOLO_AUTOINSTALL='false')
# PyTorch's threads wait asleep: awake they take the cores from each other where others work too,
# and a step then takes ten times as long.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('YOLO_CONFIG_DIR', str(Path(tempfile.gettempdir()) / 'amuse_jax-ultralytics'))

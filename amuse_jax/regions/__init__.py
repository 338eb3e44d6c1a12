"""Regions of interest of each video (3.3), found offline by a YOLOv8 detector in PyTorch.

stage.py is the entry point and imports no PyTorch; it spawns a process for worker.py. There,
detector_setup.py provides the detector (detector.py, detector_training.py, labelled_frames.py),
finder.py finds the regions of one video (pictures.py, detection.py), and shards.py stores them.
"""

import os

import platformdirs

# Set before any module imports ultralytics, which would otherwise use the network, print, install
# packages and write its settings to the user's home folder.
os.environ.update(YOLO_OFFLINE='true', YOLO_VERBOSE='false', YOLO_AUTOINSTALL='false')
# PyTorch's threads sleep while they wait. Busy-waiting threads take the cores from other processes,
# and a training step then takes ten times as long.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('YOLO_CONFIG_DIR', str(platformdirs.user_cache_path('amuse_jax')))

"""Regions of interest of each video (3.3), found offline by a YOLOv8 detector in PyTorch.

stage.py is the entry point and imports no PyTorch; it spawns a process for worker.py. There,
detector_setup.py provides the detector (detector.py, detector_training.py, labelled_frames.py),
finder.py finds the regions of videos (pictures.py, detection.py), and shards.py stores them.
shard_task.py is the work of one process on one device, and environment.py sets up every process
before it imports ultralytics.
"""

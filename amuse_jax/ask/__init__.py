"""Questions about any video file; asker.py answers them with the trained model of a workdir."""

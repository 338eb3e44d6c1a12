"""A config file of the tiny data set, for `python -m amuse_jax.main`."""

import runpy
from pathlib import Path


def get_config():
    """Return the config of conftest.py with the settings that a whole run needs."""
    tiny = runpy.run_path(str(Path(__file__).with_name('conftest.py')))
    config = tiny['tiny_config']()
    config.synthetic.videos = sum(tiny['VIDEOS'].values())
    config.evaluate.examples = 1
    config.loop.checkpoint_seconds = 1000.0
    return config

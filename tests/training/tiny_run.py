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
    # A loss near zero would be compared to its rounding.
    config.train.head_learning_rate = config.train.learning_rate = 3e-4
    # Every process compiles the models, which takes most of the time: they are shallow.
    config.model.visual.depths = config.model.audio.depths = (1, 1, 1, 1)
    config.model.text.depth = config.model.adapters.rounds = config.model.answer.layers = 1
    return config

"""A config with one layer of everything, whose training step compiles quickly for a GPU."""

from pathlib import Path
from runpy import run_path


def get_config():
    c = run_path(str(Path(__file__).with_name('small.py')))['get_config']()
    c.name = 'tiny'
    c.model.dtype = 'bfloat16'
    c.model.text.depth = c.model.adapters.rounds = c.model.answer.layers = 1
    c.train.update(batch_size=4)
    c.loop.update(remat_policy='inputs')
    return c

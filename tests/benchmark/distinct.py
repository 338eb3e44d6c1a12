"""A config with one layer of everything, in which arrays of different kinds have different sizes.

An array of attention scores is then known by its last two axes, queries and keys: no width and no
other number of tokens is the same.
"""

from pathlib import Path
from runpy import run_path


def get_config():
    c = run_path(str(Path(__file__).with_name('tiny.py')))['get_config']()
    c.name = 'distinct'
    c.data.update(image_size=96)
    # Maps of 24, 12, 6 and 3 tokens a side; windows of 36 and at last 9 tokens.
    c.model.visual.update(image_size=96, width=8, heads=(1, 2, 2, 4), window=6)
    # Maps of 16, 8, 4 and 2 tokens a side; windows of 16 and at last 4 tokens.
    c.model.audio.update(image_size=64, width=12, heads=(1, 2, 2, 4), window=4)
    c.model.text.update(max_words=11, width=40, heads=5, mlp_width=80)
    c.model.adapters.update(width=80, heads=1, mlp_width=56)
    c.train.update(parts=2)
    return c

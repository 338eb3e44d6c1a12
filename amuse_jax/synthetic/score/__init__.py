"""The score of a performance.

`score.py` defines its data classes, `compose.py` draws a score at random, and `music.py` writes the
notes.
"""

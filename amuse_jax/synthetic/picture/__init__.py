"""The picture of a performance.

`picture.py` paints the frames on a stage from `scenery.py` and computes the boxes.
`instruments.py` maps each instrument to its drawing in `strings.py`, `struck.py` or `winds.py`,
which use the brush and the person of `drawing.py`.
"""

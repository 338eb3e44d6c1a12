"""Speed measurements of Amuse: compared with PyTorch, and estimated for TPUs.

`rows` and `sweeps` list what is measured. `towers`, `whole`, `epoch`, `compiling` and `data` build
the measured work, `comparison` and `timing` run it, and `report` prints and saves the figures.
`tpu` and `hlo` estimate the training step on TPUs without having one. `reference` is the PyTorch
side.
"""

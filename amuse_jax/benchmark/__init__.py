"""Speed measurements of Amuse: compared with PyTorch, and estimated for accelerators.

`rows` and `sweeps` list what is measured. `towers`, `whole`, `epoch`, `compiling` and `data` build
the measured work, `comparison` and `timing` run it, and `report` prints the figures. `tpu`
and `gpu` estimate the training step on accelerators that are not present: `ahead_of_time` compiles
it, `hlo`, `hlo_sources` and `hlo_traffic` read both compilers' modules, and `hlo_tpu` and `hlo_gpu`
add up the costs. `on_device` runs that step where there is an accelerator, and `attention` times
the backends of attention. `reference` is the PyTorch side.
"""

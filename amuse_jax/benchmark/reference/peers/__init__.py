"""The PyTorch side of the peers' rows: the systems of the comparison as a PyTorch user has them.

They are written from the descriptions of the papers and of the public code, with the names of the
public classes, and leave out the layers that those never call. LAVISH and DG-SCT run timm's
Swin-V2, as released. There is no loop over questions, frames or heads. The models in
amuse_jax/models/peers are held against them by tests and by the benchmark.

LSTTA, LAST and LAST-Att are not here: they were never released.

Axes: b questions, t segments, s seconds, p positions or patches, n tokens or words, d channels.
"""

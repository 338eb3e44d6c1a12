"""Attention of every module: the plain definition, and the kernels that compute the same.

`multihead` is attention between sets of tokens, `tpu` holds the Pallas kernels for TPUs.
"""

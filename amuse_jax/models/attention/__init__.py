"""Attention of every module: the plain definition, and the kernels that compute the same.

| module | what it holds |
|---|---|
| `multihead` | attention between sets of tokens: the definition, and its choice of a kernel |
| `candidates` | attention of each token to its own few candidates, with a kernel for GPUs |
| `gpu` | windows of a map on NVIDIA GPUs |
| `tpu`, `tpu_kernels`, `tpu_sizes` | windows and sets on TPUs |

Window attention's own definition and choice are in `models/windows.py`.
"""

"""The PyTorch side of the benchmark: Amuse as a PyTorch user would write it.

- The towers are Hugging Face's own modules (Swinv2Model, ClapAudioModel, BertModel), unchanged, run
  in pieces where Amuse meets them: stage 3 in rounds with adapters between them. Attention is what
  transformers chooses for each: scaled_dot_product_attention in BERT, plain products in Swin-V2
  (cosine attention with a bias) and in HTS-AT (attention with a bias).
- Adapters, streams and answer head are plain modules: one linear layer for query, key and value,
  scaled_dot_product_attention, broadcasting; no loop over samples or heads.
- A sample is one question about one video, and everything is run for it: nothing is shared between
  the questions of a video, nothing is stored. What sharing and storing bring is what the benchmark
  shows apart, as work per epoch.

Nothing here is made slow: frozen parameters need no gradient, so PyTorch records no graph up to the
first adapters; Adam is the fused one; evaluation runs without gradients. The modules are written
from the equations in amuse_jax/models, not from its code, and hold the same parameters under the
same names, so that agreement of outputs and gradients is a check of both sides.

Axes: B samples, T segments, N words, K regions, M probes, S streams, I instruments, n tokens.
"""

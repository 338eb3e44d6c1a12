"""The PyTorch side of the benchmark: Amuse as a PyTorch user would write it.

- The towers are Hugging Face's own modules (Swinv2Model, ClapAudioModel, BertModel), unchanged.
  They run in pieces where Amuse connects them: stage 3 runs in rounds with adapters in between.
  transformers chooses the attention of each tower: scaled_dot_product_attention in BERT, plain
  products in Swin-V2 (cosine attention with a bias) and in HTS-AT (attention with a bias).
- Adapters, streams and answer head are plain modules: one linear layer for query, key and value,
  scaled_dot_product_attention, and broadcasting. There is no loop over samples or heads.
- A sample is one question about one video, and everything is computed for each sample: questions of
  a video share nothing, and nothing is stored. The gain from sharing and storing is measured
  separately, as the row of an epoch's work.

Nothing here is slow on purpose: frozen parameters need no gradient, so PyTorch records no graph
before the first adapters; Adam is fused; evaluation runs without gradients. The modules are written
from the equations in amuse_jax/models, not from its code, and they hold the same parameters under
the same names. Equal outputs and gradients are therefore a check of both sides.

Axes: B samples, T segments, N words, K regions, M probes, S streams, I instruments, n tokens.
"""

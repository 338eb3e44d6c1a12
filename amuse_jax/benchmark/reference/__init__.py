"""The PyTorch side of the benchmark: Amuse as a PyTorch user would write it.

- The towers are Hugging Face's own modules (Swinv2Model, ClapAudioModel, BertModel). They run in
  pieces where Amuse connects them: stage 3 runs in rounds with adapters in between. transformers
  chooses the attention of each tower: scaled_dot_product_attention in BERT, plain products in
  Swin-V2 (cosine attention with a bias) and in HTS-AT (attention with a bias).
- `fused` gives Swin-V2 and HTS-AT scaled_dot_product_attention too, and stores what depends on
  frozen weights alone. Rows of the same work measure the unchanged and the fused modules; rows of
  the same result measure the fused ones, with what they store.
- Adapters, streams and answer head are plain modules: one linear layer for query, key and value,
  scaled_dot_product_attention, and broadcasting. There is no loop over samples or heads.
- The questions about a video form a batch. What does not depend on the question runs once per
  video, and tokens that the frozen towers left can be given instead of frames and log-mels.

Nothing here is slow on purpose: frozen parameters need no gradient, so PyTorch records no graph
before the first adapters; Adam is fused; evaluation runs without gradients. The modules are written
from the equations in amuse_jax/models, not from its code, and they hold the same parameters under
the same names. Equal outputs and gradients are therefore a check of both sides.

Axes: V videos, B questions about all of them (B = V with one question each), T segments, N words,
K regions, M probes, S streams, I instruments, n tokens.
"""

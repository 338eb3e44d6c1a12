"""The answer head in the paper's words, and nothing more (sections 3.3 and 4.4).

"outputs from each submodule [...] are combined with the question representation as inputs for the
cross-modal attention layer", whose weights are the importance scores of Fig. 5. The result enters
"the final layer of Amuse for answer prediction". `model.head` chooses between this head and the one
in answer.py.

Axes: V videos, Q questions, N words, T segments, K regions, S streams, A answers, h heads, d width,
c = d / h. A stream that does not depend on the question has a question axis of length 1.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from amuse_jax.models import dense, streams
from amuse_jax.models.answer import AnswerConfig
from amuse_jax.models.attention import multihead
from amuse_jax.models.attention.bounds import MASKED
from amuse_jax.models.streams import StreamConfig


class RegionPooling(nnx.Module):
    """The regions of each segment as one feature (paper 3.3).

      r_t = mean over the regions k of segment t of relu(W_f f_tk + W_b [box, score, class]_tk + b)

    f: the features of the detector. The class is one-hot.
    """

    def __init__(self, classes: int, feature_size: int, width: int, *, rngs: nnx.Rngs, dtype):
        self.feature = dense.Linear(feature_size, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.box = dense.Linear(5 + classes, width, dtype=dtype, rngs=rngs)
        self.classes = classes

    def __call__(
        self,
        boxes: jax.Array,
        classes: jax.Array,
        scores: jax.Array,
        features: jax.Array,
        segment_mask: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Embed the regions and average them in each segment.

        Args:
          boxes: [V, T, K, 4] x0, y0, x1, y1, as fractions of the image's sides.
          classes: [V, T, K] index of each region's class; -1 = no region.
          scores: [V, T, K] scores of the detector, in [0, 1].
          features: [V, T, K, D] features of the detector.
          segment_mask: [V, T] bool, False = ignore the regions of this segment.
        Returns:
          r [V, T, d]; and the share [V, T, K] of each region in the mean, zeros in a segment
          without regions.
        """
        valid = (classes >= 0) & segment_mask[..., None]
        share = valid / jnp.maximum(valid.sum(-1, keepdims=True), 1)
        one_hot = jax.nn.one_hot(classes, self.classes)
        box = jnp.concatenate([boxes, scores[..., None], one_hot], axis=-1)
        hidden = nnx.relu(self.feature(features) + self.box(box))
        pooled = jnp.einsum('vtk,vtkd->vtd', share, hidden.astype(jnp.float32))
        return pooled.astype(hidden.dtype), share


class PaperHead(nnx.Module):
    """Cross-modal attention of the question to all streams, and a classifier.

      x_st   = W_s f_st + p_t                                a token per stream s and segment t
      q      = W_l cls                                       cls: what the text tower made of [CLS]
      a_st   = softmax over s and t of (q W_Q) (x_st W_K)^T / sqrt(c)            per head; Eq. 1
      A      = sum over s and t of a_st (x_st W_V)
      logits = relu([q, A] W_1 + b_1) W_2 + b_2              Eq. 2, whose second layer is the last

    The importance of stream s (Fig. 5) is the sum of a_st over t, averaged over heads. The stream
    `regions` has the features r_t of RegionPooling; the others those of their towers.
    """

    def __init__(
        self,
        config: StreamConfig,
        sizes: AnswerConfig,
        text_width: int,
        answers: int,
        *,
        rngs: nnx.Rngs,
        dtype=jnp.float32,
    ):
        """Create the head.

        Args:
          config: the streams; d is its `width`.
          sizes: `heads` and `mlp_width` count; the other sizes are those of the other head.
          text_width: channels of the text tower.
          answers: A.
          rngs: keys of the initial weights.
          dtype: dtype of the computation.
        """
        width, self.heads, self.names = config.width, sizes.heads, config.names
        widths = dict(config.widths)

        def linear(width_in, width_out):
            return dense.Linear(width_in, width_out, dtype=dtype, rngs=rngs)

        if 'regions' in self.names:
            self.regions = RegionPooling(
                len(config.is_instrument), widths['regions'], width, rngs=rngs, dtype=dtype
            )
            widths['regions'] = width
        self.projections = nnx.Dict({name: linear(widths[name], width) for name in self.names})
        self.time = nnx.Param(jnp.asarray(streams.sinusoids(config.segments, width)))  # p
        self.question = linear(text_width, width)
        self.query, self.key, self.value = (linear(width, width) for _ in range(3))
        self.inner = linear(2 * width, sizes.mlp_width)
        self.choice = dense.Linear(sizes.mlp_width, answers, rngs=rngs)

    def __call__(
        self, inputs, visual: jax.Array | None, audio: jax.Array | None, text: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Answer the questions.

        Args:
          inputs: amuse.AmuseInputs.
          visual, audio: [V, Q or 1, T, d_s] streams of the interactive encoder; None without it.
          text: [V, Q, N, d_t] tokens of the text tower, [CLS] first.
        Returns:
          The fields of amuse.AmuseOutput, in order. A stream that a video does not have gets no
          importance.
        """
        tokens, mask, share = self._embed_streams(inputs, visual, audio)
        question = self.question(text[:, :, 0])
        attended, weights = self._attend(question, tokens, mask)
        hidden = nnx.relu(self.inner(jnp.concatenate([question, attended], axis=-1)))
        importance = weights.sum(-1)
        time = weights / jnp.maximum(importance, 1e-9)[..., None]
        regions = jnp.zeros((*question.shape[:2], 0))
        if share is not None:
            regions = time[:, :, self.names.index('regions'), :, None] * share[:, None]
            regions = regions.reshape(*question.shape[:2], -1)
        return self.choice(hidden), importance, regions, time

    def _embed_streams(self, inputs, visual, audio):
        """Return tokens, a list of [V, Q or 1, T, d]; their mask [V, S, T]; and regions' share."""
        features = {'visual': visual, 'audio': audio}
        masks = dict.fromkeys(self.names, inputs.segment_mask)
        share = None
        for name in self.names:
            if name == 'regions':
                pooled, share = self.regions(
                    inputs.boxes, inputs.classes, inputs.scores, inputs.features,
                    inputs.segment_mask,
                )  # fmt: skip
                features[name], masks[name] = pooled[:, None], share.any(-1)
            elif name not in features:
                features[name] = getattr(inputs, name)[:, None]
        tokens = [self.projections[name](features[name]) + self.time[...] for name in self.names]
        return tokens, jnp.stack([masks[name] for name in self.names], axis=1), share

    def _attend(
        self, question: jax.Array, tokens: list[jax.Array], mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Attend to all streams at once: Eq. 1 with one query per question.

        Args:
          question: [V, Q, d].
          tokens, mask: see `_embed_streams`.
        Returns:
          A [V, Q, d]; and the weights [V, Q, S, T], float32, averaged over heads.
        """
        lead = jnp.broadcast_shapes(*(x.shape[:2] for x in tokens))

        def project(layer):  # what no question changes is projected once
            parts = [layer(x.astype(question.dtype)) for x in tokens]
            parts = [jnp.broadcast_to(x, (*lead, *x.shape[2:])) for x in parts]
            return multihead.split_heads(jnp.concatenate(parts, axis=2), self.heads)

        key, value = project(self.key), project(self.value)  # [V, Q or 1, h, S * T, c]
        query = multihead.split_heads(self.query(question)[:, :, None], self.heads)
        scores = multihead.scores(query, key) * query.shape[-1] ** -0.5  # [V, Q, h, 1, S * T]
        flat = mask.reshape(len(mask), 1, 1, 1, -1)
        weights = jax.nn.softmax(jnp.where(flat, scores, MASKED), axis=-1)
        weights = jnp.where(flat, weights, 0)  # zeros for a video without segments
        attended = multihead.join_heads(weights.astype(value.dtype) @ value)[:, :, 0]
        weights = weights.mean(2).reshape(*question.shape[:2], *mask.shape[1:])
        return attended, weights

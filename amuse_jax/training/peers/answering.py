"""Inputs, loss and answers of a peer for a batch of batches.PeerBatches."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from amuse_jax.models.peers.avst import AVST
from amuse_jax.models.peers.grounded_head import Grounded
from amuse_jax.models.peers.lstta import LSTTA
from amuse_jax.models.peers.pstp import PSTPPaper, PSTPReleased
from amuse_jax.training import questions
from amuse_jax.training.state import Arrays

METRICS = ('loss', 'accuracy', 'match')
ARRAYS = ('audio', 'visual', 'frames', 'patches', 'semantic', 'negative')  # inputs per video
PSTP = PSTPReleased | PSTPPaper


def prepare_inputs(model: nnx.Module, batch: Mapping[str, jax.Array]) -> Arrays:
    """Return the model's inputs; stored arrays become float32.

    Args:
      model: a peer.
      batch: V videos with Q questions each.

    Returns:
      The inputs by name. Questions are (V, Q, ...), except those of PSTP-Net, which mixes the words
      with the video from the start: there all inputs have V * Q rows.
    """
    given = {name: questions.half_to_float32(batch[name]) for name in ARRAYS if name in batch}
    if isinstance(model, LSTTA):
        return given | {'words': batch['words'], 'mask': batch['word_mask']}
    if not isinstance(model, PSTP):
        return given | {'question': batch['words']}
    per_video = batch['words'].shape[1]
    given = {name: jnp.repeat(array, per_video, axis=0) for name, array in given.items()}
    asked = batch['words'] if model.config.vocabulary else batch['question_vectors']
    for name, array in (('question', asked), ('words', batch['words_vectors'])):
        given[name] = questions.half_to_float32(array.reshape(-1, *array.shape[2:]))
    return given


def loss(
    model: nnx.Module,
    batch: Mapping[str, jax.Array],
    rngs: nnx.Rngs | None,
    *,
    match_weight: float,
):
    """Compute the loss: the answers' cross-entropy + match_weight * that of the match.

    The match tells a video's own frames from those of other videos. It is 0 for peers without it.
    See step.Loss.
    """
    inputs = prepare_inputs(model, batch)
    output = model(inputs, rngs)
    sums = _metric_sums(output.logits, batch)
    total, count = sums['loss']
    if 'negative' in inputs:
        # Each question counts its video's match once, as a batch of single questions would.
        head = getattr(output, 'head', output)  # AVST is nothing but the head
        match = _two_way(head.positive, head.negative)
        matched = (batch['weights'].sum(1) * match.mean(1)).sum()
        total = total + match_weight * matched
        sums |= {'loss': jnp.stack([total, count]), 'match': jnp.stack([matched, count])}
    return total / jnp.maximum(count, 1), sums


def ground(model: AVST, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None):
    """Compute the cross-entropy of the match for a batch of PeerBatches.pairs; see step.Loss.

    It is the loss of avst.AVSTGrounding, whose layers are the first ones of AVST.
    """
    audio = model.audio(questions.half_to_float32(batch['audio']))
    maps = (questions.half_to_float32(batch[name]) for name in ('visual', 'negative'))
    maps = (x.reshape(len(x), -1, x.shape[-1]) for x in maps)
    positive, negative = (model.head.grounding(audio, x) for x in maps)
    weights = batch['weights']
    total, count = (weights * _two_way(positive, negative)).sum(), weights.sum()
    zeros = {name: jnp.zeros(2) for name in METRICS}
    both = jnp.stack([total, count])
    return total / jnp.maximum(count, 1), zeros | {'loss': both, 'match': both}


def answer(model: nnx.Module, batch: Mapping[str, jax.Array]) -> tuple[Arrays, jax.Array]:
    """Answer the batch's questions; return metrics and logits (V, Q, 42). See step.Evaluation."""
    logits = model.logits(prepare_inputs(model, batch))
    return _metric_sums(logits, batch), logits.reshape(*batch['weights'].shape, -1)


def _metric_sums(logits: jax.Array, batch: Mapping[str, jax.Array]) -> Arrays:
    by_question = logits.reshape(*batch['weights'].shape, -1)
    return questions.metric_sums(by_question, batch) | {'match': jnp.zeros(2)}


def _two_way(positive: Grounded, negative: Grounded) -> jax.Array:
    """Return the mean cross-entropy of "belong together" and of "do not": (...,)."""
    own = jax.nn.log_softmax(positive.match)[..., 1]
    other = jax.nn.log_softmax(negative.match)[..., 0]
    return -(own + other) / 2

"""What the training of every model that answers questions shares."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from amuse_jax.training.state import Arrays


def metric_sums(logits: jax.Array, batch: Mapping[str, jax.Array]) -> Arrays:
    """Return the sums of the metrics 'loss' (cross-entropy) and 'accuracy'; see step.Loss.

    Args:
      logits: (V, Q, 42).
      batch: a batch of pipeline.QuestionBatches; questions count by their weights.
    """
    weights, answers = batch['weights'], batch['answers']
    log_likelihood = jnp.take_along_axis(
        jax.nn.log_softmax(logits.astype(jnp.float32)), answers[..., None], -1
    )[..., 0]
    total, count = -(weights * log_likelihood).sum(), weights.sum()
    correct = (weights * (logits.argmax(-1) == answers)).sum()
    return {'loss': jnp.stack([total, count]), 'accuracy': jnp.stack([correct, count])}


def half_to_float32(array: jax.Array) -> jax.Array:
    """Convert float16, the dtype of stored arrays, to float32; leave other dtypes as they are."""
    return array.astype(jnp.float32) if array.dtype == jnp.float16 else array

"""Rows of the whole model in JAX and in PyTorch.

They are a forward pass, a training step, and five questions about a video. Dropout is off on both
sides, so that losses can be compared. The universal encoder is frozen before Amuse is trained, so
its streams are inputs on both sides.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import torch
from flax import nnx
from ml_collections import ConfigDict
from torch.nn import functional

from amuse_jax.benchmark import comparison, compiling, inputs
from amuse_jax.benchmark.comparison import Comparison, Results, Side, Torch
from amuse_jax.benchmark.reference import amuse as reference
from amuse_jax.benchmark.reference import weights
from amuse_jax.data.pipeline import Batch
from amuse_jax.models.amuse import Amuse, AmuseConfig
from amuse_jax.training import sharding
from amuse_jax.training.train import answering

QUESTIONS = inputs.QUESTIONS


def build_pair(config: ConfigDict) -> tuple[Amuse, reference.Amuse]:
    """Build Amuse for both sides, with the same random weights."""
    torch_model = reference.Amuse(config, inputs.random_phrases()).eval()
    sizes, phrases = AmuseConfig.from_settings(config), inputs.random_phrases()
    sizes = dataclasses.replace(sizes, answer=dataclasses.replace(sizes.answer, dropout=0.0))
    abstract = nnx.eval_shape(lambda: Amuse(sizes, phrases, rngs=nnx.Rngs(0)))
    return weights.fill(abstract, torch_model, config), torch_model


def forward(
    config: ConfigDict, with_compile: bool, videos: int = 1, questions: int = 1
) -> Comparison:
    """Compare a forward pass from frames, log-mels and words to scores.

    With several questions per video both sides compute what does not depend on the question once,
    and PyTorch stores what depends on frozen weights alone.

    Args:
      config: the sizes.
      with_compile: whether torch.compile is a side.
      videos: the number of videos.
      questions: the number of questions about each video.
    """
    jax_model, torch_model = build_pair(config)
    batch = inputs.random_batch(config, videos, questions)
    answers = CompiledAnswers(jax_model, batch)
    kind = comparison.WORK if questions == 1 else comparison.RESULT
    is_single = videos == questions == 1
    counts = (
        'one video and one question'
        if is_single
        else f'{videos} videos, {questions} questions each'
    )
    return Comparison(
        work=f'whole model, forward, {counts}',
        kind=kind,
        samples=videos * questions,
        flops=answers.flops,
        sides={
            'JAX': answers.side([batch]),
            **torch_answering(config, torch_model, batch, kind, with_compile),
        },
    )


def five_questions(config: ConfigDict, with_compile: bool, videos: int = 1) -> Comparison:
    """Compare five questions per video at once with the five one by one, and with one question."""
    jax_model, torch_model = build_pair(config)
    batch = inputs.random_batch(config, videos, QUESTIONS)
    together = CompiledAnswers(jax_model, batch)
    one_by_one = [_one_question(batch, question) for question in range(QUESTIONS)]
    alone = CompiledAnswers(jax_model, one_by_one[0])
    return Comparison(
        work='five questions about ' + ('one video' if videos == 1 else f'each of {videos} videos'),
        kind=comparison.RESULT,
        samples=videos * QUESTIONS,
        flops=together.flops,
        sides={
            'JAX': together.side([batch]),
            'JAX one by one': alone.side(one_by_one),
            'JAX one question': alone.side(one_by_one[:1]),
            **torch_answering(config, torch_model, batch, comparison.RESULT, with_compile),
        },
        seconds=lambda each: {n: value for n, value in each.items() if n != 'JAX one question'},
        extra=lambda medians: {
            'one_question_seconds': medians['JAX one question'],
            'of_one_question': medians['JAX'] / medians['JAX one question'],
        },
    )


def training_step(config: ConfigDict, with_compile: bool, videos: int = 1) -> Comparison:
    """Compare a training step from frames and log-mels: forward, backward and Adam.

    Every video has one question. `config.train.trainable` selects the parameters that are trained.
    """
    jax_model, torch_model = build_pair(config)
    batch = inputs.random_batch(config, videos)
    names = weights.table(torch_model, config)
    weights.set_trainable(torch_model, names, config.train.trainable)
    side, flops = jax_training(config, jax_model, batch)
    counts = 'one video' if videos == 1 else f'{videos} videos'
    return Comparison(
        work=f'training step, towers frozen on both sides, {counts}',
        kind=comparison.WORK,
        samples=videos,
        flops=flops,
        sides={
            'JAX': side,
            **torch_training(config, torch_model, batch, comparison.WORK, with_compile),
        },
    )


class CompiledAnswers:
    """Amuse, compiled for batches of one shape.

    Args:
      model: Amuse.
      batch: a batch of that shape.

    Attributes:
      flops: FLOPs of the matrix products for a batch.
    """

    def __init__(self, model: Amuse, batch: Batch):
        graphdef, arrays = nnx.split(model)

        def answer(arrays, batch):
            model = nnx.merge(graphdef, arrays)
            return model(answering.prepare_inputs(model, batch, is_open=True))

        self._arrays = jax.device_put(arrays)
        self._program = comparison.compile_program(answer, self._arrays, batch)
        self.flops = self._program.flops

    def side(self, batches: list[Batch]) -> Side:
        """Return a side that answers the batches one after the other.

        The logits of the i-th of all their questions are the result 'logits i'.
        """
        placed = jax.device_put(batches)

        def run() -> Results:
            outputs = [self._program.call(self._arrays, batch) for batch in placed]
            logits = [np.asarray(output.logits) for output in jax.block_until_ready(outputs)]
            columns = np.concatenate(logits, axis=1).swapaxes(0, 1)
            return {f'logits {index}': column for index, column in enumerate(columns)}

        held = comparison.jax_bytes((self._arrays, placed))
        return Side(run, held, self._program.seconds, self._program.planned_bytes)


def torch_answering(
    config: ConfigDict, model: reference.Amuse, batch: Batch, kind: str, with_compile: bool
) -> dict[str, Side]:
    """Return PyTorch's sides, which answer all questions of the batch at once."""
    pytorch = Torch(config.model.dtype)
    model.requires_grad_(False)
    sample = pytorch.place(inputs.torch_batch(batch))
    videos = len(batch['words'])

    def make_side(model: Callable) -> Side:
        def run() -> Results:
            with torch.no_grad(), pytorch.iteration():
                logits = pytorch.fetch(model(sample).logits)
            columns = logits.reshape(videos, -1, logits.shape[-1]).swapaxes(0, 1)
            return {f'logits {index}': column for index, column in enumerate(columns)}

        return Side(run, comparison.torch_bytes(model, sample))

    variants = pytorch.variants(model, kind, with_compile)
    return {name: make_side(variant) for name, variant in variants.items()}


def jax_training(config: ConfigDict, model: Amuse, batch: Batch) -> tuple[Side, float]:
    """Return JAX's side, which runs this project's training step, and the step's useful FLOPs.

    Products that are computed again for the gradient do not count.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.parts = 1  # the reference takes all videos at once, and one cannot be split
    step = compiling.build_step(config, model, sharding.single_device_mesh())
    train_state = sharding.shard_params(step.init_state(step.params), step.shardings)
    side, _ = comparison.training_side(step.run, train_state, step.frozen, batch, loss_name(batch))
    return side, compiling.useful_flops(config, batch)


def torch_training(
    config: ConfigDict, model: reference.Amuse, batch: Batch, kind: str, with_compile: bool
) -> dict[str, Side]:
    """Return PyTorch's sides, which train on all questions of the batch at once.

    Args:
      config: the sizes.
      model: the reference, whose parameters that are not trained need no gradient.
      batch: a batch with frames and log-mels, or with the tokens that the frozen towers left.
      kind: comparison.WORK or comparison.RESULT.
      with_compile: whether torch.compile is a side.
    """
    pytorch = Torch(config.model.dtype)
    sample = pytorch.place(inputs.torch_batch(batch))
    result = loss_name(batch)

    def make_side(model: torch.nn.Module) -> Side:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam(trained, lr=config.train.learning_rate, fused=True)

        def run() -> Results:
            with pytorch.iteration():
                logits = model(sample).logits
            loss = functional.cross_entropy(logits, sample['answers'])
            loss.backward()
            if config.train.clip_norm:
                torch.nn.utils.clip_grad_norm_(trained, config.train.clip_norm)
            adam.step()
            adam.zero_grad(set_to_none=True)  # so that the next run's peak includes all gradients
            return {result: pytorch.fetch(loss)}

        moments = 2 * sum(parameter.nbytes for parameter in trained)
        return Side(run, comparison.torch_bytes(model, sample) + moments)

    variants = pytorch.variants(model, kind, with_compile)
    return {name: make_side(variant) for name, variant in variants.items()}


def loss_name(batch: Batch) -> str:
    """Return the name of a training step's loss among its results."""
    return 'loss' if batch['words'].shape[1] == 1 else 'loss of all questions'


def _one_question(batch: Batch, question: int) -> Batch:
    """Return the batch with one of its questions."""
    part = slice(question, question + 1)
    names = *inputs.PER_QUESTION, 'weights'
    return batch | {name: batch[name][:, part] for name in names}

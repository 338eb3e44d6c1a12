"""Rows of the whole model in JAX and in PyTorch.

They are a forward pass, a training step, five questions about a video, and the cost of a question
in an epoch. Dropout is off on both sides, so that losses can be compared. The universal encoder is
frozen before Amuse is trained, so its streams are inputs on both sides, except in the row of the
epoch.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from ml_collections import ConfigDict
from torch.nn import functional

from amuse_jax.benchmark import comparison, compiling, inputs
from amuse_jax.benchmark.comparison import Comparison, Results, Side, Torch
from amuse_jax.benchmark.reference import amuse as reference
from amuse_jax.benchmark.reference import universal_encoder, weights
from amuse_jax.data.pipeline import Batch
from amuse_jax.models.amuse import Amuse, AmuseConfig
from amuse_jax.models.universal_encoder import UniversalEncoder
from amuse_jax.training import sharding, state
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import answering
from amuse_jax.training.train.answering import QUESTION_FREE

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

    PyTorch answers one question after the other.

    Args:
      config: the sizes.
      with_compile: whether torch.compile is a side.
      videos: the number of videos.
      questions: the number of questions about each video.
    """
    jax_model, torch_model = build_pair(config)
    batch = inputs.random_batch(config, videos, questions)
    answers = CompiledAnswers(jax_model, batch)
    is_single = videos == questions == 1
    counts = (
        'one video and one question'
        if is_single
        else f'{videos} videos, {questions} questions each'
    )
    return Comparison(
        work=f'whole model, forward, {counts}',
        kind=comparison.WORK if questions == 1 else comparison.RESULT,
        samples=videos * questions,
        flops=answers.flops,
        sides={
            'JAX': answers.side([batch]),
            **_torch_answering(config, torch_model, batch, with_compile),
        },
    )


def five_questions(config: ConfigDict, with_compile: bool) -> Comparison:
    """Compare a video's five questions at once with the five one by one, and with one question."""
    jax_model, torch_model = build_pair(config)
    batch = inputs.random_batch(config, 1, QUESTIONS)
    together = CompiledAnswers(jax_model, batch)
    one_by_one = [_one_question(batch, question) for question in range(QUESTIONS)]
    alone = CompiledAnswers(jax_model, one_by_one[0])
    return Comparison(
        work='five questions about one video',
        kind=comparison.RESULT,
        samples=QUESTIONS,
        flops=together.flops,
        sides={
            'JAX': together.side([batch]),
            'JAX one by one': alone.side(one_by_one),
            'JAX one question': alone.side(one_by_one[:1]),
            **_torch_answering(config, torch_model, batch, with_compile),
        },
        seconds=lambda each: {n: value for n, value in each.items() if n != 'JAX one question'},
        extra=lambda medians: {
            'one_question_seconds': medians['JAX one question'],
            'of_one_question': medians['JAX'] / medians['JAX one question'],
        },
    )


def training_step(config: ConfigDict, with_compile: bool) -> Comparison:
    """Compare a training step from frames and log-mels: forward, backward and Adam.

    `config.train.trainable` selects the parameters that are trained.
    """
    jax_model, torch_model = build_pair(config)
    batch = inputs.random_batch(config)
    weights.set_trainable(torch_model, config, config.train.trainable)
    side, flops = _jax_training(config, jax_model, batch)
    return Comparison(
        work='training step, towers frozen on both sides, one video',
        kind=comparison.WORK,
        samples=1,
        flops=flops,
        sides={'JAX': side, **_torch_training(config, torch_model, batch, with_compile)},
    )


def epoch(config: ConfigDict, with_compile: bool) -> Comparison:
    """Compare the cost of a question in an epoch of training.

    A sample is one question about one video. For each sample, the reference runs the universal
    encoder (two Swin-V2 and two HTS-AT, without gradients) and a training step of Amuse from frames
    and log-mels. JAX stores the streams of the universal encoder and the tokens that enter the
    first adapters. Its step reads them and trains on all `train.questions` of a video. The pass
    that stores them is shared by these questions and by `train.epochs` epochs:

      seconds = step / questions + storing / (questions * epochs)

    Neither side includes the time to read records or stored tokens. JAX's layers keep only their
    inputs for the gradient: with all questions at once, their products and the reference would not
    fit into memory together.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.loop.remat_policy = 'inputs'
    count, epochs = config.train.questions, config.train.epochs
    jax_model, torch_model = build_pair(config)
    universal = universal_encoder.UniversalEncoder(config).eval()
    batch = inputs.random_batch(config, 1, count)
    weights.set_trainable(torch_model, config, config.train.trainable)
    everything = reference.FullSystem(universal.requires_grad_(False), torch_model)
    expected = _mean_loss(config, everything, batch)
    abstract = nnx.eval_shape(lambda: pretrain.build(config, nnx.Rngs(0)))
    filled = weights.fill(abstract, universal, config)
    storing, storing_flops, stored = _jax_storing(config, filled, jax_model, batch)
    stored |= {name: x for name, x in batch.items() if name not in ('frames', 'log_mel', *stored)}
    side, flops = _jax_training(config, jax_model, stored)

    def per_sample(step, storing):
        return (step + storing / epochs) / count

    def seconds(each):
        others = {name: value for name, value in each.items() if not name.startswith('JAX')}
        return {'JAX': per_sample(each['JAX'], each['JAX storing']), **others}

    return Comparison(
        work="an epoch's work per sample (frozen encoders cached, questions grouped)",
        kind=comparison.RESULT,
        samples=1,
        flops=per_sample(flops, storing_flops),
        sides={
            'JAX': side,
            'JAX storing': storing,
            **_torch_training(config, everything, batch, with_compile),
        },
        expected={'loss of all questions': expected},
        seconds=seconds,
        extra=lambda medians: {
            'step_seconds': medians['JAX'],
            'storing_seconds': medians['JAX storing'],
            'questions': count,
            'epochs': epochs,
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


def _torch_answering(
    config: ConfigDict, model: reference.Amuse, batch: Batch, with_compile: bool
) -> dict[str, Side]:
    """Return PyTorch's sides, which answer the batch's questions one after the other."""
    pytorch = Torch(config.model.dtype)
    model.requires_grad_(False)
    samples = [pytorch.place(inputs.torch_sample(batch, q)) for q in range(batch['words'].shape[1])]

    def make_side(model: Callable) -> Side:
        def run() -> Results:
            with torch.no_grad(), pytorch.autocast():
                return {
                    f'logits {index}': pytorch.fetch(model(sample).logits)
                    for index, sample in enumerate(samples)
                }

        return Side(run, comparison.torch_bytes(model, *samples))

    variants = pytorch.variants(model, with_compile)
    return {name: make_side(variant) for name, variant in variants.items()}


def _jax_training(config: ConfigDict, model: Amuse, batch: Batch) -> tuple[Side, float]:
    """Return JAX's side, which runs this project's training step, and the step's useful FLOPs.

    Products that are computed again for the gradient do not count.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.parts = 1  # one video cannot be split
    step = compiling.build_step(config, model, sharding.single_device_mesh())
    flops = compiling.useful_flops(config, batch)
    train_state = sharding.shard_params(step.init_state(step.params), step.shardings)
    frozen, batch, key = jax.device_put((step.frozen, batch, jax.random.key(0)))
    program = comparison.compile_program(step.run, train_state, frozen, batch, key)
    size = comparison.jax_bytes((train_state.params, train_state.opt_state, frozen, batch))
    has_several_questions = batch['words'].shape[1] > 1

    def run() -> Results:
        nonlocal train_state
        zeros = {name: jnp.zeros(2) for name in answering.METRICS}
        train_state, _ = jax.block_until_ready(
            program.call(train_state._replace(sums=zeros), frozen, batch, key)
        )
        total, count = np.asarray(train_state.sums['loss'])
        return {'loss of all questions' if has_several_questions else 'loss': total / count}

    return Side(run, size, program.seconds, program.planned_bytes), flops


def _torch_training(
    config: ConfigDict, model: torch.nn.Module, batch: Batch, with_compile: bool
) -> dict[str, Side]:
    """Return PyTorch's sides, which train on the batch's first question."""
    pytorch = Torch(config.model.dtype)
    sample = pytorch.place(inputs.torch_sample(batch, 0))

    def make_side(model: torch.nn.Module) -> Side:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam(trained, lr=config.train.learning_rate, fused=True)

        def run() -> Results:
            with pytorch.autocast():
                logits = model(sample).logits
            loss = functional.cross_entropy(logits, sample['answers'])
            loss.backward()
            adam.step()
            adam.zero_grad(set_to_none=True)  # so that the next run's peak includes all gradients
            return {'loss': pytorch.fetch(loss)}

        moments = 2 * sum(parameter.nbytes for parameter in trained)
        return Side(run, comparison.torch_bytes(model, sample) + moments)

    variants = pytorch.variants(model, with_compile)
    return {name: make_side(variant) for name, variant in variants.items()}


def _jax_storing(
    config: ConfigDict, universal: UniversalEncoder, amuse: Amuse, batch: Batch
) -> tuple[Side, float, Batch]:
    """Return a side that runs the frozen encoders on a video, its FLOPs, and the stored arrays."""
    structure, params, rest = state.split(universal, '')
    encode = pretrain.compile_encoder(structure, sharding.single_device_mesh())
    graphdef, towers = nnx.split(amuse.encoder)
    dtype = jnp.dtype(config.model.dtype)

    def store(arrays, towers, frames, log_mel):
        tokens = nnx.merge(graphdef, towers).question_free(frames, log_mel)
        tokens = tokens.visual.astype(dtype), tokens.audio.astype(dtype)
        tokens = dict(zip(QUESTION_FREE, tokens))
        return encode(arrays, frames, log_mel) | tokens

    placed = jax.device_put((params | rest, towers, batch['frames'], batch['log_mel']))
    program = comparison.compile_program(store, *placed)

    def run() -> Results:
        jax.block_until_ready(program.call(*placed))
        return {}

    side = Side(run, program.held_bytes, program.seconds, program.planned_bytes)
    return side, program.flops, jax.device_get(program.call(*placed))


def _one_question(batch: Batch, question: int) -> Batch:
    """Return the batch with one of its questions."""
    part = slice(question, question + 1)
    names = *inputs.PER_QUESTION, 'weights'
    return batch | {name: batch[name][:, part] for name in names}


def _mean_loss(config: ConfigDict, model: reference.FullSystem, batch: Batch) -> np.ndarray:
    """Return the reference's mean loss over all questions of the batch."""
    pytorch, losses = Torch(config.model.dtype), []
    model.to(pytorch.device)
    for question in range(batch['words'].shape[1]):
        sample = pytorch.place(inputs.torch_sample(batch, question))
        with torch.no_grad(), pytorch.autocast():
            logits = model(sample).logits
        losses.append(pytorch.fetch(functional.cross_entropy(logits, sample['answers'])))
    return np.mean(losses)

"""Whole Amuse in JAX and in PyTorch: a forward pass, a training step, a video's questions, and what
an epoch costs per question.

Dropout is off on both sides, so that losses can be compared. The universal encoder's streams, which
are frozen before Amuse is trained, are inputs on both sides, but for the epoch's work.
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
from amuse_jax.benchmark.comparison import Comparison, Found, Side, Torch
from amuse_jax.benchmark.reference import amuse as reference
from amuse_jax.benchmark.reference import universal_encoder, weights
from amuse_jax.data.pipeline import Batch
from amuse_jax.models.amuse import Amuse, AmuseConfig
from amuse_jax.models.universal_encoder import UniversalEncoder
from amuse_jax.training import sharding, state
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import answering
from amuse_jax.training.train.answering import FRONT

QUESTIONS = inputs.QUESTIONS


def pair(config: ConfigDict) -> tuple[Amuse, reference.Amuse]:
    """Amuse on both sides, with the same random weights."""
    theirs = reference.Amuse(config, inputs.phrases()).eval()
    sizes, phrases = AmuseConfig.from_settings(config), inputs.phrases()
    sizes = dataclasses.replace(sizes, answer=dataclasses.replace(sizes.answer, dropout=0.0))
    abstract = nnx.eval_shape(lambda: Amuse(sizes, phrases, rngs=nnx.Rngs(0)))
    return weights.fill(abstract, theirs, config), theirs


def forward(
    config: ConfigDict, with_compile: bool, videos: int = 1, questions: int = 1
) -> Comparison:
    """Answers: from frames, log-mels and words to scores, `questions` about each of `videos`.

    PyTorch asks one question after the other.
    """
    ours, theirs = pair(config)
    batch = inputs.draw(config, videos, questions)
    answers = Answers(ours, batch)
    one = videos == questions == 1
    counts = 'one video and one question' if one else f'{videos} videos, {questions} questions each'
    return Comparison(
        work=f'whole model, forward, {counts}',
        kind=comparison.WORK if questions == 1 else comparison.RESULT,
        samples=videos * questions,
        flops=answers.flops,
        sides={'JAX': answers.side([batch]), **_asking(config, theirs, batch, with_compile)},
    )


def five_questions(config: ConfigDict, with_compile: bool) -> Comparison:
    """Evaluation of a video's five questions at once, beside one by one and one alone."""
    ours, theirs = pair(config)
    batch = inputs.draw(config, 1, QUESTIONS)
    together = Answers(ours, batch)
    one_by_one = [_only(batch, question) for question in range(QUESTIONS)]
    alone = Answers(ours, one_by_one[0])
    return Comparison(
        work='five questions about one video',
        kind=comparison.RESULT,
        samples=QUESTIONS,
        flops=together.flops,
        sides={
            'JAX': together.side([batch]),
            'JAX one by one': alone.side(one_by_one),
            'JAX one question': alone.side(one_by_one[:1]),
            **_asking(config, theirs, batch, with_compile),
        },
        seconds=lambda each: {n: value for n, value in each.items() if n != 'JAX one question'},
        more=lambda medians: {
            'one_question_seconds': medians['JAX one question'],
            'of_one_question': medians['JAX'] / medians['JAX one question'],
        },
    )


def training_step(config: ConfigDict, with_compile: bool) -> Comparison:
    """A step of training from frames and log-mels: forward, backward and Adam, by what
    `config.train.trainable` selects."""
    ours, theirs = pair(config)
    batch = inputs.draw(config)
    weights.train_only(theirs, config, config.train.trainable)
    side, flops = _training(config, ours, batch)
    return Comparison(
        work='training step, towers frozen on both sides, one video',
        kind=comparison.WORK,
        samples=1,
        flops=flops,
        sides={'JAX': side, **_torch_training(config, theirs, batch, with_compile)},
    )


def epoch(config: ConfigDict, with_compile: bool) -> Comparison:
    """What a question costs in an epoch of training.

    A sample is one question about one video. For each, the reference runs the universal encoder
    (two Swin-V2 and two HTS-AT, without gradients) and a training step of Amuse from frames and
    log-mels. Here a step is given the stored streams of the universal encoder and the stored tokens
    that enter the first adapters, and holds all of a video's `train.questions`; the pass that
    stores them is shared by these questions and by `train.epochs` epochs:

      seconds = step / questions + storing / (questions * epochs)

    Reading records, or stored tokens, is on neither side. Layers keep their inputs alone for the
    gradient: of all questions at once, their products would not fit beside the reference.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.loop.kept = 'inputs'
    count, epochs = config.train.questions, config.train.epochs
    ours, theirs = pair(config)
    universal = universal_encoder.UniversalEncoder(config).eval()
    batch = inputs.draw(config, 1, count)
    weights.train_only(theirs, config, config.train.trainable)
    everything = reference.Everything(universal.requires_grad_(False), theirs)
    expected = _mean_loss(config, everything, batch)
    abstract = nnx.eval_shape(lambda: pretrain.build(config, nnx.Rngs(0)))
    filled = weights.fill(abstract, universal, config)
    storing, storing_flops, stored = _storing(config, filled, ours, batch)
    stored |= {name: x for name, x in batch.items() if name not in ('frames', 'log_mel', *stored)}
    side, flops = _training(config, ours, stored)

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
        more=lambda medians: {
            'step_seconds': medians['JAX'],
            'storing_seconds': medians['JAX storing'],
            'questions': count,
            'epochs': epochs,
        },
    )


class Answers:
    """Amuse, compiled for batches of one shape.

    Attributes:
      flops: of a batch.
    """

    def __init__(self, model: Amuse, batch: Batch):
        graphdef, arrays = nnx.split(model)

        def answer(arrays, batch):
            model = nnx.merge(graphdef, arrays)
            return model(answering.inputs_of(model, batch, is_open=True))

        self._arrays = jax.device_put(arrays)
        self._program = comparison.compiled(answer, self._arrays, batch)
        self.flops = self._program.flops

    def side(self, batches: list[Batch]) -> Side:
        """Answers the batches one after the other; question i of all is found as 'logits i'."""
        placed = jax.device_put(batches)

        def run() -> Found:
            found = [self._program.call(self._arrays, batch) for batch in placed]
            logits = [np.asarray(output.logits) for output in jax.block_until_ready(found)]
            columns = np.concatenate(logits, axis=1).swapaxes(0, 1)
            return {f'logits {index}': column for index, column in enumerate(columns)}

        held = comparison.jax_bytes((self._arrays, placed))
        return Side(run, held, self._program.seconds, self._program.planned)


def _asking(
    config: ConfigDict, model: reference.Amuse, batch: Batch, with_compile: bool
) -> dict[str, Side]:
    """PyTorch's sides, which ask the batch's questions one after the other."""
    pytorch = Torch(config.model.dtype)
    model.requires_grad_(False)
    samples = [pytorch.place(inputs.sample(batch, q)) for q in range(batch['words'].shape[1])]

    def asking(model: Callable) -> Side:
        def run() -> Found:
            with torch.no_grad(), pytorch.autocast():
                return {
                    f'logits {index}': pytorch.done(model(sample).logits)
                    for index, sample in enumerate(samples)
                }

        return Side(run, comparison.torch_bytes(model, *samples))

    variants = pytorch.variants(model, with_compile)
    return {name: asking(variant) for name, variant in variants.items()}


def _training(config: ConfigDict, model: Amuse, batch: Batch) -> tuple[Side, float]:
    """The project's own training step, and the FLOPs of its products, without those that are
    computed again for the gradient."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.parts = 1  # one video cannot be taken in several
    made = compiling.build_step(config, model, sharding.single())
    flops = compiling.useful_flops(config, batch)
    held = [sharding.put(made.begin(made.params), made.shardings)]
    frozen, batch, key = jax.device_put((made.frozen, batch, jax.random.key(0)))
    program = comparison.compiled(made.run, held[0], frozen, batch, key)
    grouped = batch['words'].shape[1] > 1

    def run() -> Found:
        begun = held[0]._replace(sums={name: jnp.zeros(2) for name in answering.METRICS})
        held[0], _ = jax.block_until_ready(program.call(begun, frozen, batch, key))
        total, count = np.asarray(held[0].sums['loss'])
        return {'loss of all questions' if grouped else 'loss': total / count}

    size = comparison.jax_bytes((held[0].params, held[0].opt_state, frozen, batch))
    return Side(run, size, program.seconds, program.planned), flops


def _torch_training(
    config: ConfigDict, model: torch.nn.Module, batch: Batch, with_compile: bool
) -> dict[str, Side]:
    """PyTorch's sides, which train on the batch's first question."""
    pytorch = Torch(config.model.dtype)
    sample = pytorch.place(inputs.sample(batch, 0))

    def training(model: torch.nn.Module) -> Side:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam(trained, lr=config.train.learning_rate, fused=True)

        def run() -> Found:
            with pytorch.autocast():
                logits = model(sample).logits
            loss = functional.cross_entropy(logits, sample['answers'])
            loss.backward()
            adam.step()
            adam.zero_grad(set_to_none=True)  # the next run's peak is to have them all
            return {'loss': pytorch.done(loss)}

        moments = 2 * sum(parameter.nbytes for parameter in trained)
        return Side(run, comparison.torch_bytes(model, sample) + moments)

    variants = pytorch.variants(model, with_compile)
    return {name: training(variant) for name, variant in variants.items()}


def _storing(
    config: ConfigDict, universal: UniversalEncoder, amuse: Amuse, batch: Batch
) -> tuple[Side, float, Batch]:
    """What the frozen encoders do for a video before training: the side, its FLOPs, and what it
    stores."""
    structure, params, rest = state.split(universal, '')
    encode = pretrain.encoding(structure, sharding.single())
    graphdef, towers = nnx.split(amuse.encoder)
    dtype = jnp.dtype(config.train.encoded_dtype)

    def store(arrays, towers, frames, log_mel):
        front = nnx.merge(graphdef, towers).front(frames, log_mel)
        tokens = dict(zip(FRONT, (front.visual.astype(dtype), front.audio.astype(dtype))))
        return encode(arrays, frames, log_mel) | tokens

    placed = jax.device_put((params | rest, towers, batch['frames'], batch['log_mel']))
    program = comparison.compiled(store, *placed)

    def run() -> Found:
        jax.block_until_ready(program.call(*placed))
        return {}

    side = Side(run, program.held, program.seconds, program.planned)
    return side, program.flops, jax.device_get(program.call(*placed))


def _only(batch: Batch, question: int) -> Batch:
    """The batch with one of its questions."""
    part = slice(question, question + 1)
    names = *inputs.PER_QUESTION, 'weights'
    return batch | {name: batch[name][:, part] for name in names}


def _mean_loss(config: ConfigDict, model: reference.Everything, batch: Batch) -> np.ndarray:
    """The reference's loss over all questions of the batch."""
    pytorch, losses = Torch(config.model.dtype), []
    model.to(pytorch.device)
    for question in range(batch['words'].shape[1]):
        sample = pytorch.place(inputs.sample(batch, question))
        with torch.no_grad(), pytorch.autocast():
            logits = model(sample).logits
        losses.append(pytorch.done(functional.cross_entropy(logits, sample['answers'])))
    return np.mean(losses)

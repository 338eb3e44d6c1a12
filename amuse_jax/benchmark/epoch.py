"""The row of an epoch: what one question costs when every side stores and shares what it can."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from ml_collections import ConfigDict
from torch.nn import functional

from amuse_jax.benchmark import comparison, inputs, whole
from amuse_jax.benchmark.comparison import Comparison, Results, Side, Torch
from amuse_jax.benchmark.reference import amuse as reference
from amuse_jax.benchmark.reference import universal_encoder, weights
from amuse_jax.data.pipeline import Batch
from amuse_jax.models.amuse import Amuse
from amuse_jax.models.universal_encoder import UniversalEncoder
from amuse_jax.training import sharding, state
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train.answering import QUESTION_FREE

TITLE = "an epoch's work per sample (frozen encoders cached, questions grouped)"
STORING = ('JAX storing', 'PyTorch storing')


def compare(config: ConfigDict, with_compile: bool, videos: int = 1) -> Comparison:
    """Compare the cost of a question in an epoch of training.

    A sample is one question about one video. Every side stores what the frozen encoders compute for
    a video: the streams of the universal encoder (two Swin-V2 and two HTS-AT) and the tokens that
    enter the first adapters. A step reads them and trains on all `train.questions` of each video at
    once. The pass that stores them is shared by these questions and by `train.epochs` epochs:

      seconds = (step + storing / epochs) / (videos * questions)

    PyTorch stores the position biases of the frozen towers too. torch.compile compiles the step,
    and takes its stored arrays from the eager pass, which is a small part of the sum. No side
    includes the time to read records or stored arrays. JAX's layers keep only their inputs for the
    gradient, so that a step of five questions fits into the memory of a small host.

    The expected loss is that of Hugging Face's unchanged towers, one question at a time, with
    nothing stored.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.loop.remat_policy = 'inputs'
    count, epochs = config.train.questions, config.train.epochs
    samples = videos * count
    jax_model, torch_model = whole.build_pair(config)
    universal = universal_encoder.UniversalEncoder(config).eval()
    batch = inputs.random_batch(config, videos, count)
    abstract = nnx.eval_shape(lambda: pretrain.build(config, nnx.Rngs(0)))
    filled = weights.fill(abstract, universal, config)
    jax_storing, storing_flops, jax_stored = jax_storing_side(config, filled, jax_model, batch)
    step, step_flops = whole.jax_training(config, jax_model, with_stored(batch, jax_stored))

    frozen = reference.FrozenEncoders(universal, torch_model.encoder).requires_grad_(False)
    torch_storing, torch_stored = torch_storing_side(config, frozen, batch)
    stored = dict(zip(STORING, (jax_stored, torch_stored)))
    comparison.check_agreement(TITLE, stored, comparison.TOLERANCES[config.model.dtype])
    names = weights.table(torch_model, config)
    weights.set_trainable(torch_model, names, config.train.trainable)
    expected = _mean_loss(config, universal, torch_model, batch)
    torch_steps = whole.torch_training(
        config, torch_model, with_stored(batch, torch_stored), comparison.RESULT, with_compile
    )

    def per_sample(step, storing):
        return (step + storing / epochs) / samples

    def seconds(each):
        of_jax, of_torch = (each[name] for name in STORING)
        return {
            name: per_sample(value, of_jax if name == 'JAX' else of_torch)
            for name, value in each.items()
            if name not in STORING
        }

    return Comparison(
        work=TITLE if videos == 1 else f'{TITLE}, {videos} videos',
        kind=comparison.RESULT,
        samples=1,
        flops=per_sample(step_flops, storing_flops),
        sides={'JAX': step, **dict(zip(STORING, (jax_storing, torch_storing))), **torch_steps},
        expected={'loss of all questions': expected},
        seconds=seconds,
        extra=lambda medians: {
            'step_seconds': {n: value for n, value in medians.items() if n not in STORING},
            'storing_seconds': {name.split()[0]: medians[name] for name in STORING},
            'questions': count,
            'epochs': epochs,
        },
    )


def with_stored(batch: Batch, stored: Batch) -> Batch:
    """Return the batch with what the frozen encoders left, instead of frames and log-mels."""
    return {name: x for name, x in batch.items() if name not in ('frames', 'log_mel')} | stored


def jax_storing_side(
    config: ConfigDict, universal: UniversalEncoder, amuse: Amuse, batch: Batch
) -> tuple[Side, float, Batch]:
    """Return a side that runs the frozen encoders on videos, its FLOPs, and the stored arrays."""
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


def torch_storing_side(
    config: ConfigDict, frozen: reference.FrozenEncoders, batch: Batch
) -> tuple[Side, Batch]:
    """Return PyTorch's side that does the same, and its stored arrays."""
    pytorch = Torch(config.model.dtype)
    [encoders] = pytorch.variants(frozen, comparison.RESULT, with_compile=False).values()
    media = {name: torch.from_numpy(batch[name]) for name in ('frames', 'log_mel')}
    media = pytorch.place(media)
    dtype = getattr(torch, config.model.dtype)

    def store() -> dict[str, torch.Tensor]:
        with torch.no_grad(), pytorch.iteration():
            arrays = encoders(**media)
        tokens = {name: arrays[name].to(dtype) for name in QUESTION_FREE}
        pytorch.fetch(tokens[QUESTION_FREE[0]].sum())  # waits for an accelerator
        return arrays | tokens

    def run() -> Results:
        store()
        return {}

    stored = {name: pytorch.fetch(array) for name, array in store().items()}
    return Side(run, comparison.torch_bytes(encoders, media)), stored


def _mean_loss(
    config: ConfigDict,
    universal: universal_encoder.UniversalEncoder,
    model: reference.Amuse,
    batch: Batch,
) -> np.ndarray:
    """Return the reference's mean loss over all questions, computed one question at a time."""
    pytorch, losses = Torch(config.model.dtype), []
    universal.to(pytorch.device), model.to(pytorch.device)
    for question in range(batch['words'].shape[1]):
        sample = pytorch.place(inputs.torch_batch(batch, question))
        with torch.no_grad(), pytorch.iteration():
            streams = universal(sample['frames'], sample['log_mel'])
            logits = model({**sample, **streams}).logits
        losses.append(pytorch.fetch(functional.cross_entropy(logits, sample['answers'])))
    return np.mean(losses)

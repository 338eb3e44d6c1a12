"""Rows of the config's peer in JAX and in PyTorch: a forward pass and a training step.

python -m amuse_jax.benchmark --config=configs/peers/avst.py --rows=peer,peer-step

The networks that run beforehand do not count. Inputs and weights are random. Dropout and what
disturbs frozen towers are off on both sides, so that losses can be compared. Peers compute in
float32, as in their training, whatever the row's dtype; the dtype decides how products of float32
numbers are computed on a GPU. LSTTA, LAST and LAST-Att, which nobody released, have JAX alone.
"""

import functools

import jax
import numpy as np
import torch
from flax import nnx
from ml_collections import ConfigDict
from torch.nn import functional

from amuse_jax.benchmark import comparison
from amuse_jax.benchmark.comparison import Comparison, Results, Side, Torch
from amuse_jax.benchmark.reference.peers import parts, weights
from amuse_jax.benchmark.reference.peers.parts import Tensors
from amuse_jax.data import train_words
from amuse_jax.data.pipeline import Batch
from amuse_jax.errors import StageError
from amuse_jax.models import building
from amuse_jax.models.peers import catalogue, question, sizes
from amuse_jax.training import sharding, state
from amuse_jax.training.peers import answering
from amuse_jax.training.step import train_step

JAX_ALONE = ''  # the kind of rows without a PyTorch side
NEGATIVE = 'negative'  # the input that no answer depends on


def forward(config: ConfigDict, with_compile: bool, videos: int = 1) -> Comparison:
    """Compare the answers to one question about each video.

    Args:
      config: the sizes; `peer.name` names the peer.
      with_compile: whether torch.compile is a side.
      videos: the number of videos.

    Raises:
      StageError: the config has no peer.
    """
    config = _without_noise(config)
    model, reference = build_pair(config)
    given = random_inputs(config, videos)
    structure, arrays = state.flatten(model)
    arrays, batch = jax.device_put((arrays, _batch(config, given)))

    def answer(arrays, batch):
        return answering.answer(structure.merge(arrays), batch)[1]

    program = comparison.compile_program(answer, arrays, batch)

    def run() -> Results:
        return {'logits': np.asarray(program.call(arrays, batch))[:, 0]}

    held = comparison.jax_bytes((arrays, batch))
    sides = {'JAX': Side(run, held, program.seconds, program.planned_bytes)}
    if reference:
        given = {name: array for name, array in given.items() if name != NEGATIVE}
        sides |= _torch_answering(config, reference, given, with_compile)
    return _comparison(config, 'forward', videos, program.flops, sides)


def training_step(config: ConfigDict, with_compile: bool, videos: int = 1) -> Comparison:
    """Compare a training step with one question about each video; see `forward`.

    It is the step of the stage train: both losses, the gradient, and Adam. `peer.trainable` selects
    the parameters that are trained.
    """
    config = _without_noise(config)
    model, reference = build_pair(config)
    given = random_inputs(config, videos)
    batch, peer = _batch(config, given), config.peer
    structure, params, frozen = state.split(model, peer.trainable, 'peer.trainable')
    mesh, adam = sharding.single_device_mesh(), state.adam(lambda step: peer.learning_rate)
    init = functools.partial(state.init_state, optimizer=adam, metrics=answering.METRICS)
    shardings = sharding.state_shardings(jax.eval_shape(init, params), mesh)
    step = train_step(
        functools.partial(answering.loss, match_weight=peer.match_weight),
        structure,
        adam,
        config.loop.optimization_level,
        shardings,
    )
    train_state = sharding.shard_params(init(params), shardings)
    side, flops = comparison.training_side(step, train_state, frozen, batch, 'loss')
    sides = {'JAX': side}
    if reference:
        chosen = sizes.from_settings(config)
        weights.set_trainable(peer.name, chosen, reference, peer.trainable)
        answers = batch['answers'][:, 0]
        sides |= _torch_training(config, reference, given, answers, with_compile)
    return _comparison(config, 'training step', videos, flops, sides)


def build_pair(config: ConfigDict) -> tuple[nnx.Module, torch.nn.Module | None]:
    """Build the config's peer for both sides, with the same random weights.

    Returns:
      The model, and its PyTorch side; None where there is none.

    Raises:
      StageError: the config has no peer.
    """
    name = config.peer.name
    if not name:
        raise StageError(
            'the rows peer and peer-step measure the peer of a config, and config.peer.name is '
            'empty; use a config such as configs/peers/avst.py'
        )
    if name not in weights.MODELS:
        make = functools.partial(sizes.build, config, question.VOCABULARY)
        return building.build(make, config.seed), None
    chosen = sizes.from_settings(config)
    reference = weights.build(name, chosen)
    return weights.fill(name, chosen, reference), reference


def random_inputs(config: ConfigDict, videos: int) -> dict[str, np.ndarray]:
    """Return random inputs of the config's peer by name, for one question about each video."""
    random = np.random.default_rng(0)
    return {
        name: _random(random, shape)
        for name, shape in sizes.abstract_inputs(config, videos).items()
    }


def _random(random: np.random.Generator, shape: jax.ShapeDtypeStruct) -> np.ndarray:
    if shape.dtype == np.uint8:
        return random.integers(0, 256, shape.shape, np.uint8)
    if shape.dtype == np.int32:
        return random.integers(0, question.VOCABULARY, shape.shape, np.int32)
    if shape.dtype == bool:
        return np.ones(shape.shape, bool)
    return random.normal(size=shape.shape).astype(np.float32)


def _batch(config: ConfigDict, inputs: dict[str, np.ndarray]) -> Batch:
    """Return a batch of the peer's training with these inputs and random answers."""
    given = dict(inputs)
    videos = len(next(iter(given.values())))
    asked = {'words': np.zeros((videos, train_words.LENGTH), np.int32)}
    if config.peer.name == 'lstta':
        asked = {'words': given.pop('words'), 'word_mask': given.pop('mask')}
    elif given['question'].dtype == np.int32:
        asked['words'] = given.pop('question')
    else:
        asked['question_vectors'] = given.pop('question')
    if 'words' in given:  # CLIP's
        asked['words_vectors'] = given.pop('words')
    return (
        given
        | {name: array[:, None] for name, array in asked.items()}
        | {
            'answers': np.random.default_rng(1).integers(0, 42, (videos, 1), np.int32),
            'weights': np.ones((videos, 1), np.float32),
        }
    )


def _without_noise(config: ConfigDict) -> ConfigDict:
    """Return the config without dropout and without what disturbs frozen towers in training."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.peer.dropout = 0.0
        config.peer.disturb.update(
            drop_path=0.0, batch_statistics=False, spec_augment=False, mixup=False
        )
    return config


def _torch_answering(
    config: ConfigDict, model: torch.nn.Module, given: dict, with_compile: bool
) -> dict[str, Side]:
    """Return PyTorch's sides of a forward pass."""
    pytorch = Torch('float32')
    model.requires_grad_(False)
    sample = pytorch.place(parts.torch_inputs(given))

    def make_side(model: torch.nn.Module) -> Side:
        def run() -> Results:
            with torch.no_grad(), pytorch.iteration():
                return {'logits': pytorch.fetch(model(sample)['logits'])}

        return Side(run, comparison.torch_bytes(model, sample))

    variants = pytorch.variants(model, comparison.WORK, with_compile)
    return {name: make_side(variant) for name, variant in variants.items()}


def _torch_training(
    config: ConfigDict,
    model: torch.nn.Module,
    given: dict,
    answers: np.ndarray,
    with_compile: bool,
) -> dict[str, Side]:
    """Return PyTorch's sides of a training step.

    Args:
      config: the sizes.
      model: the reference, whose parameters that are not trained need no gradient.
      given: the inputs by name.
      answers: (b,) the right answers.
      with_compile: whether torch.compile is a side.
    """
    pytorch, peer = Torch('float32'), config.peer
    sample = pytorch.place(parts.torch_inputs(given))
    right = torch.tensor(answers).long().to(pytorch.device)

    def make_side(model: torch.nn.Module) -> Side:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        adam = torch.optim.Adam(trained, lr=peer.learning_rate, fused=True)

        def run() -> Results:
            with pytorch.iteration():
                output = model(sample)
            loss = functional.cross_entropy(output['logits'], right)
            if NEGATIVE in sample:
                loss = loss + peer.match_weight * _match_loss(output)
            loss.backward()
            adam.step()
            adam.zero_grad(set_to_none=True)  # so that the next run's peak includes all gradients
            return {'loss': pytorch.fetch(loss)}

        moments = 2 * sum(parameter.nbytes for parameter in trained)
        return Side(run, comparison.torch_bytes(model, sample) + moments)

    variants = pytorch.variants(model, comparison.WORK, with_compile)
    return {name: make_side(variant) for name, variant in variants.items()}


def _match_loss(output: Tensors) -> torch.Tensor:
    """Return the mean cross-entropy of "belong together" and of "do not", as answering.loss."""
    logits = [output[f'{name}.match'].flatten(0, 1) for name in ('negative', 'positive')]
    labels = torch.arange(2, device=logits[0].device).repeat_interleave(len(logits[0]))
    return functional.cross_entropy(torch.cat(logits), labels)


def _comparison(
    config: ConfigDict, work: str, videos: int, flops: float, sides: dict[str, Side]
) -> Comparison:
    counts = 'one video' if videos == 1 else f'{videos} videos'
    title = f'{catalogue.find(config.peer.name).title}, {work}, {counts}'
    kind = comparison.WORK if len(sides) > 1 else JAX_ALONE
    return Comparison(title, kind, videos, flops, sides)

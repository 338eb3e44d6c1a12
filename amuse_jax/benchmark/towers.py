"""Rows of single towers and of the adapters, in JAX and in PyTorch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.benchmark import comparison, inputs
from amuse_jax.benchmark.comparison import Comparison, Results, Side, Torch
from amuse_jax.benchmark.reference import adapters as torch_adapters
from amuse_jax.benchmark.reference import amuse, weights
from amuse_jax.benchmark.reference import towers as reference
from amuse_jax.models import platform, swin_v2
from amuse_jax.models.adapters import AdapterConfig, Adapters
from amuse_jax.models.htsat import HTSAT
from amuse_jax.models.summary import BERT_WORDS
from amuse_jax.models.swin_v2 import SwinV2
from amuse_jax.models.text import TextTower

PARTS = (*reference.PARTS, 'adapters')
FROZEN_PARTS = ('visual', 'audio')  # those with 'frozen' work


def compare(
    part: str, work: str, config: ConfigDict, with_compile: bool, videos: int = 1
) -> Comparison:
    """Build both sides with the same weights and inputs.

    Args:
      part: a name from PARTS; 'adapters' are those of one round, with one question per video.
      work: 'forward'; 'gradient': the forward pass and the gradient with respect to all parameters,
        and to the inputs of adapters; or 'frozen': the forward pass of a frozen tower, for which
        PyTorch stores the position biases. JAX has nothing to store for it.
      config: sizes and dtype. A batch is the segments of the videos, or five questions about each.
      with_compile: whether torch.compile is a side.
      videos: the number of videos.
    """
    torch_model = _build_torch(config, part)
    jax_model = weights.fill(nnx.eval_shape(lambda: _build_jax(config, part)), torch_model, config)
    arrays = _inputs(config, part, videos)
    side, flops, shapes = _jax_side(jax_model, part, work, arrays)
    pytorch = Torch(config.model.dtype)
    torch_model.requires_grad_(work == 'gradient')
    kind = comparison.RESULT if work == 'frozen' else comparison.WORK
    variants = pytorch.variants(torch_model, kind, with_compile)
    torch_sides = {
        name: _torch_side(pytorch, model, part, work, arrays, shapes)
        for name, model in variants.items()
    }
    return Comparison(
        work=title(config, part, work, len(arrays[0])),
        kind=kind,
        samples=len(arrays[0]),
        flops=flops,
        sides={'JAX': side, **torch_sides},
    )


def title(config: ConfigDict, part: str, work: str, count: int) -> str:
    """Return the row's name, such as 'Swin-V2-L forward, 10 frames'."""
    sizes = config.model.visual
    size_names = {size: name for name, size in swin_v2.SIZES.items()}
    letter = size_names.get((sizes.width, tuple(sizes.depths), tuple(sizes.heads)), '')[:1].upper()
    name, samples = {
        'visual': (f'Swin-V2-{letter}' if letter else 'Swin-V2', f'{count} frames'),
        'audio': ('HTS-AT', f'{count} segments'),
        'text': ('text', f'{count} questions'),
        'adapters': ('adapters', 'one round' if count == 1 else f'one round, {count} videos'),
    }[part]
    work = {'frozen': 'forward, frozen'}.get(work, work)
    return f'{name} {work}, {samples}'


def _build_torch(config: ConfigDict, part: str) -> torch.nn.Module:
    if part != 'adapters':
        return reference.build(config, part, BERT_WORDS)
    torch.manual_seed(0)
    model = config.model
    widths = 4 * model.visual.width, 4 * model.audio.width, model.text.width
    adapters = torch_adapters.Adapters(*widths, model.adapters)
    amuse.vary_norms(adapters)
    return adapters


def _build_jax(config: ConfigDict, part: str) -> nnx.Module:
    model, dtype, rngs = config.model, platform.compute_dtype(config.model.dtype), nnx.Rngs(0)
    if part == 'adapters':
        sizes = model.adapters
        return Adapters(
            AdapterConfig(
                visual=4 * model.visual.width,
                audio=4 * model.audio.width,
                text=model.text.width,
                width=sizes.width,
                heads=sizes.heads,
                mlp_width=sizes.mlp_width,
            ),
            rngs=rngs,
            dtype=dtype,
        )
    towers = {'visual': SwinV2, 'audio': HTSAT, 'text': TextTower}
    return towers[part](weights.tower_sizes(config, part, BERT_WORDS), rngs=rngs, dtype=dtype)


def _inputs(config: ConfigDict, part: str, videos: int) -> tuple[np.ndarray, ...]:
    """Return the videos' normalised frames or log-mels, questions, or tokens of one round."""
    batch, random = inputs.random_batch(config, videos, inputs.QUESTIONS), np.random.default_rng(0)
    frames, log_mel, words, word_mask = (
        batch[name].reshape(-1, *batch[name].shape[2:])
        for name in ('frames', 'log_mel', 'words', 'word_mask')
    )
    if part == 'visual':
        return (np.asarray(swin_v2.normalise(frames)),)
    if part == 'audio':
        return (log_mel,)
    if part == 'text':
        return words, word_mask
    model, segments = config.model, config.data.segments
    tokens = [
        random.normal(
            size=(videos, segments, (tower.image_size // tower.patch // 4) ** 2, 4 * width)
        )
        for tower, width in ((model.visual, model.visual.width), (model.audio, model.audio.width))
    ]
    tokens.append(random.normal(size=(videos, model.text.max_words, model.text.width)))
    masks = batch['word_mask'][:, 0], batch['segment_mask']
    return *(x.astype(np.float32) for x in tokens), *masks


def _jax_outputs(part: str, module: nnx.Module, arrays: tuple) -> tuple[jax.Array, ...]:
    if part == 'adapters':
        *tokens, word_mask, segment_mask = arrays
        outputs = module(*(x[:, None] for x in tokens), word_mask[:, None], segment_mask)
        return tuple(x[:, 0] for x in outputs)
    output = module(*arrays)
    return (output[:, 0] if part == 'text' else output.pooled,)


def _jax_side(module: nnx.Module, part: str, work: str, arrays: tuple):
    """Return JAX's side, its FLOPs, and the shapes of the outputs."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    def forward(params, rest, arrays):
        outputs = _jax_outputs(part, nnx.merge(graphdef, params, rest), arrays)
        return [x.astype(jnp.float32) for x in outputs]

    shapes = [x.shape for x in jax.eval_shape(forward, params, rest, arrays)]
    loss_weights = _loss_weights(shapes)

    def loss(params, tokens, rest, masks):
        outputs = forward(params, rest, (*tokens, *masks))
        return sum((x * weight).sum() for x, weight in zip(outputs, loss_weights))

    def gradient(*inputs):
        value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(*inputs)
        return value, optax.tree.norm(gradients), gradients

    if work != 'gradient':
        function, placed = forward, jax.device_put((params, rest, arrays))
    else:
        count = _differentiated_count(part, arrays)
        function = gradient
        placed = jax.device_put((params, arrays[:count], rest, arrays[count:]))
    program = comparison.compile_program(function, *placed)

    def run() -> Results:
        outputs = jax.block_until_ready(program.call(*placed))
        if work == 'gradient':
            value, norm, _ = outputs
            return {'loss': np.asarray(value), 'norm of the gradient': np.asarray(norm)}
        return {f'output {index}': np.asarray(x) for index, x in enumerate(outputs)}

    side = Side(run, comparison.jax_bytes(placed), program.seconds, program.planned_bytes)
    return side, program.flops, shapes


def _differentiated_count(part: str, arrays: tuple) -> int:
    """Return how many inputs need a gradient: as in training, all tokens that enter adapters."""
    return sum(x.dtype == np.float32 for x in arrays) if part == 'adapters' else 0


def _loss_weights(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Return random arrays with which the loss multiplies the outputs."""
    random = np.random.default_rng(1)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def _torch_side(
    pytorch: Torch, model: Callable, part: str, work: str, arrays: tuple, shapes: list
) -> Side:
    placed = [torch.tensor(x).to(pytorch.device) for x in arrays]
    loss_weights = [torch.tensor(x).to(pytorch.device) for x in _loss_weights(shapes)]
    differentiated = placed[: _differentiated_count(part, arrays)]
    for x in differentiated:
        x.requires_grad_()
    parameters = [*model.parameters(), *differentiated]

    def outputs() -> tuple[torch.Tensor, ...]:
        if part == 'adapters':
            return model(*placed)
        return (reference.output(part, model, tuple(placed)),)

    def forward():
        with torch.no_grad(), pytorch.iteration():
            return {f'output {i}': pytorch.fetch(x) for i, x in enumerate(outputs())}

    def gradient():
        with pytorch.iteration():
            value = sum((x.float() * weight).sum() for x, weight in zip(outputs(), loss_weights))
        value.backward()
        gradients = [x.grad for x in parameters if x.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        for x in parameters:  # so that the next run's peak includes all gradients
            x.grad = None
        return {'loss': pytorch.fetch(value), 'norm of the gradient': pytorch.fetch(norm)}

    held = comparison.torch_bytes(model, dict(enumerate(placed)))
    return Side(gradient if work == 'gradient' else forward, held)

"""The towers and the adapters alone, in JAX and in PyTorch, with the same weights and inputs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.benchmark import comparison, inputs
from amuse_jax.benchmark.comparison import Comparison, Found, Side, Torch
from amuse_jax.benchmark.reference import adapters as their_adapters
from amuse_jax.benchmark.reference import amuse, weights
from amuse_jax.benchmark.reference import towers as reference
from amuse_jax.models import swin_v2
from amuse_jax.models.adapters import AdapterConfig, Adapters
from amuse_jax.models.htsat import HTSAT
from amuse_jax.models.summary import BERT_WORDS
from amuse_jax.models.swin_v2 import SwinV2
from amuse_jax.models.text import TextTower

PARTS = (*reference.PARTS, 'adapters')


def compare(part: str, work: str, config: ConfigDict, with_compile: bool) -> Comparison:
    """Builds both sides.

    Args:
      part: of PARTS; 'adapters': those of one round, for one video and one question.
      work: 'forward', or 'gradient' of all parameters (and of the adapters' inputs), forward
        included.
      config: sizes and dtype; one batch is a video's segments, or five questions.
      with_compile: whether torch.compile is a side of its own.
    """
    theirs = _theirs(config, part)
    ours = weights.fill(nnx.eval_shape(lambda: _ours(config, part)), theirs, config)
    given = _inputs(config, part)
    side, flops, shapes = _jax_side(ours, part, work, given)
    pytorch = Torch(config.model.dtype)
    theirs.requires_grad_(work == 'gradient')
    variants = pytorch.variants(theirs, with_compile)
    others = {
        name: _torch_side(pytorch, model, part, work, given, shapes)
        for name, model in variants.items()
    }
    return Comparison(
        work=title(config, part, work, len(given[0])),
        kind=comparison.WORK,
        samples=len(given[0]),
        flops=flops,
        sides={'JAX': side, **others},
    )


def title(config: ConfigDict, part: str, work: str, count: int) -> str:
    sizes = config.model.visual
    named = {size: name for name, size in swin_v2.SIZES.items()}
    letter = named.get((sizes.width, tuple(sizes.depths), tuple(sizes.heads)), '')[:1].upper()
    name, of = {
        'visual': (f'Swin-V2-{letter}' if letter else 'Swin-V2', f'{count} frames'),
        'audio': ('HTS-AT', f'{count} segments'),
        'text': ('text', f'{count} questions'),
        'adapters': ('adapters', 'one round'),
    }[part]
    return f'{name} {work}, {of}'


def _theirs(config: ConfigDict, part: str) -> torch.nn.Module:
    if part != 'adapters':
        return reference.build(config, part, BERT_WORDS)
    torch.manual_seed(0)
    model = config.model
    widths = 4 * model.visual.width, 4 * model.audio.width, model.text.width
    adapters = their_adapters.Adapters(*widths, model.adapters)
    amuse.vary_norms(adapters)
    return adapters


def _ours(config: ConfigDict, part: str) -> nnx.Module:
    model, dtype, rngs = config.model, jnp.dtype(config.model.dtype), nnx.Rngs(0)
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


def _inputs(config: ConfigDict, part: str) -> tuple[np.ndarray, ...]:
    """One video's pictures (normalised) or log-mels, five questions, or one round's tokens."""
    batch, random = inputs.draw(config, 1, inputs.QUESTIONS), np.random.default_rng(0)
    if part == 'visual':
        return (np.asarray(swin_v2.normalise(batch['frames'][0])),)
    if part == 'audio':
        return (batch['log_mel'][0],)
    if part == 'text':
        return batch['words'][0], batch['word_mask'][0]
    model, segments = config.model, config.data.segments
    tokens = [
        random.normal(size=(1, segments, (tower.image_size // tower.patch // 4) ** 2, 4 * width))
        for tower, width in ((model.visual, model.visual.width), (model.audio, model.audio.width))
    ]
    tokens.append(random.normal(size=(1, model.text.max_words, model.text.width)))
    masks = batch['word_mask'][:, 0], batch['segment_mask']
    return *(x.astype(np.float32) for x in tokens), *masks


def _our_output(part: str, module: nnx.Module, given: tuple) -> tuple[jax.Array, ...]:
    if part == 'adapters':
        *tokens, word_mask, segment_mask = given
        found = module(*(x[:, None] for x in tokens), word_mask[:, None], segment_mask)
        return tuple(x[:, 0] for x in found)
    found = module(*given)
    return (found[:, 0] if part == 'text' else found.pooled,)


def _jax_side(module: nnx.Module, part: str, work: str, given: tuple):
    """The side, its FLOPs, and the shapes of the outputs."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    def forward(params, rest, given):
        found = _our_output(part, nnx.merge(graphdef, params, rest), given)
        return [x.astype(jnp.float32) for x in found]

    shapes = [x.shape for x in jax.eval_shape(forward, params, rest, given)]
    weighing = _weighing(shapes)

    def loss(params, tokens, rest, masks):
        found = forward(params, rest, (*tokens, *masks))
        return sum((x * weight).sum() for x, weight in zip(found, weighing))

    def gradient(*inputs):
        value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(*inputs)
        return value, optax.tree.norm(gradients), gradients

    if work == 'forward':
        function, placed = forward, jax.device_put((params, rest, given))
    else:
        count = _differentiated(part, given)
        function = gradient
        placed = jax.device_put((params, given[:count], rest, given[count:]))
    program = comparison.compiled(function, *placed)

    def run() -> Found:
        found = jax.block_until_ready(program.call(*placed))
        if work == 'gradient':
            return {'loss': np.asarray(found[0]), 'norm of the gradient': np.asarray(found[1])}
        return {f'output {index}': np.asarray(x) for index, x in enumerate(found)}

    side = Side(run, comparison.jax_bytes(placed), program.seconds, program.planned)
    return side, program.flops, shapes


def _differentiated(part: str, given: tuple) -> int:
    """How many of the inputs' gradients are needed too: in training, those of adapters are."""
    return sum(x.dtype == np.float32 for x in given) if part == 'adapters' else 0


def _weighing(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """What a loss multiplies the outputs with."""
    random = np.random.default_rng(1)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def _torch_side(
    pytorch: Torch, model: Callable, part: str, work: str, given: tuple, shapes: list
) -> Side:
    placed = [torch.tensor(x).to(pytorch.device) for x in given]
    weighing = [torch.tensor(x).to(pytorch.device) for x in _weighing(shapes)]
    differentiated = placed[: _differentiated(part, given)]
    for x in differentiated:
        x.requires_grad_()
    parameters = [*model.parameters(), *differentiated]

    def output() -> tuple[torch.Tensor, ...]:
        if part == 'adapters':
            return model(*placed)
        return (reference.output(part, model, tuple(placed)),)

    def forward():
        with torch.no_grad(), pytorch.autocast():
            return {f'output {i}': pytorch.done(x) for i, x in enumerate(output())}

    def gradient():
        with pytorch.autocast():
            value = sum((x.float() * weight).sum() for x, weight in zip(output(), weighing))
        value.backward()
        gradients = [x.grad for x in parameters if x.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        for x in parameters:  # the next run's peak is to have them all
            x.grad = None
        return {'loss': pytorch.done(value), 'norm of the gradient': pytorch.done(norm)}

    held = comparison.torch_bytes(model, dict(enumerate(placed)))
    return Side(forward if work == 'forward' else gradient, held)

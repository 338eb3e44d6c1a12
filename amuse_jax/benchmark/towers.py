"""The towers of a config in JAX and in PyTorch, with the same weights, inputs and work."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.benchmark import reference
from amuse_jax.models import summary
from amuse_jax.models.htsat import HTSAT, HTSATConfig
from amuse_jax.models.swin_v2 import SwinV2, SwinV2Config
from amuse_jax.models.text import TextConfig, TextTower
from amuse_jax.pretrained import bert, convert, htsat, swin_v2
from amuse_jax.stages import StageError

PARTS = ('visual', 'audio', 'text')
WORK = ('forward', 'gradient')
WORDS = 30522  # rows of BERT's word table
TOLERANCE = 1e-3  # of float32 outputs, relative to the largest


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One piece of work on both sides; each call returns when it is done.

    Attributes:
      part: of PARTS.
      work: 'forward': pooled outputs; 'gradient': of all parameters, forward included.
      samples: of the batch.
      flops: of its matrix products.
      compile_seconds: that XLA took.
      runs: by side.
    """

    part: str
    work: str
    samples: int
    flops: float
    compile_seconds: float
    runs: dict[str, Callable[[], Any]]


def compare(config: ConfigDict, part: str, work: str, dtype: str, with_compile: bool) -> Comparison:
    """Builds both sides and asserts that they agree.

    Args:
      config: sizes; one batch is a video's segments, or train.questions questions.
      part, work: of PARTS and WORK.
      dtype: of both sides' compute, float32 or bfloat16.
      with_compile: whether torch.compile is a side of its own; it needs a C++ compiler.

    Raises:
      StageError: the outputs differ.
    """
    original = reference.build(config, part, WORDS)
    tower = _tower(config, part, reference.arrays(original), jnp.dtype(dtype))
    inputs = _inputs(config, part)
    weights = np.random.default_rng(1).normal(size=_width(tower)).astype(np.float32)
    ours, compile_seconds, flops = _jax_side(tower, part, work, inputs, weights)
    torch_dtype = getattr(torch, dtype)
    runs = {'JAX': ours, 'PyTorch': _torch_side(original, part, work, inputs, weights, torch_dtype)}
    if with_compile:
        compiled = torch.compile(original)
        runs['torch.compile'] = _torch_side(compiled, part, work, inputs, weights, torch_dtype)
    _agree(runs, f'{part} {work}', TOLERANCE if dtype == 'float32' else 3e-2)
    return Comparison(part, work, len(inputs[0]), flops, compile_seconds, runs)


def _tower(config: ConfigDict, part: str, arrays: dict[str, np.ndarray], dtype) -> nnx.Module:
    sizes = config.model[part].to_dict()
    if part == 'visual':
        sizes = SwinV2Config(**sizes)
        table = swin_v2.table(sizes, arrays)
        abstract = nnx.eval_shape(lambda: SwinV2(sizes, rngs=nnx.Rngs(0), dtype=dtype))
    elif part == 'audio':
        sizes = HTSATConfig(mels=config.audio.mels, **sizes)
        table = htsat.table(sizes, arrays)
        abstract = nnx.eval_shape(lambda: HTSAT(sizes, rngs=nnx.Rngs(0), dtype=dtype))
    else:
        sizes.pop('tokenizer')
        sizes = TextConfig(vocab_size=WORDS, **sizes)
        table = bert.table(sizes, arrays)
        abstract = nnx.eval_shape(lambda: TextTower(sizes, rngs=nnx.Rngs(0), dtype=dtype))
    return convert.fill(abstract, arrays, table)


def _width(tower: nnx.Module) -> int:
    return tower.config.width if isinstance(tower, TextTower) else tower.width_out


def _inputs(config: ConfigDict, part: str) -> tuple[np.ndarray, ...]:
    """One video's pictures or log-mels, or questions that fill their rows."""
    random, segments = np.random.default_rng(0), config.data.segments
    if part == 'visual':
        side = config.model.visual.image_size
        return (random.normal(size=(segments, side, side, 3)).astype(np.float32),)
    if part == 'audio':
        samples = round(config.data.segment_seconds * config.audio.sample_rate)
        shape = segments, samples // config.audio.hop + 1, config.audio.mels
        return (random.uniform(-80, 0, shape).astype(np.float32),)
    shape = config.train.questions, config.model.text.max_words
    return random.integers(1000, WORDS, shape).astype(np.int32), np.ones(shape, bool)


def _jax_side(tower, part: str, work: str, inputs, weights) -> tuple[Callable[[], Any], float, int]:
    graphdef, params, rest = nnx.split(tower, nnx.Param, ...)

    def forward(params, rest, *inputs):
        found = nnx.merge(graphdef, params, rest)(*inputs)
        return (found[:, 0] if part == 'text' else found.pooled).astype(jnp.float32)

    def loss(params, rest, *inputs):
        return (forward(params, rest, *inputs) * weights).sum()

    run = forward if work == 'forward' else jax.value_and_grad(loss)
    placed = jax.device_put((params, rest, *inputs))
    flops, _ = summary.cost(run, *placed)
    begun = time.perf_counter()
    compiled = jax.jit(run).lower(*placed).compile()
    seconds = time.perf_counter() - begun
    return lambda: jax.block_until_ready(compiled(*placed)), seconds, flops


def _torch_side(model, part: str, work: str, inputs, weights, dtype) -> Callable[[], Any]:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = model.to(device)
    placed = tuple(torch.tensor(x).to(device) for x in inputs)
    weights = torch.tensor(weights).to(device)
    autocast = torch.autocast(device, dtype, enabled=dtype != torch.float32)

    def done(value):
        if device == 'cuda':
            torch.cuda.synchronize()
        return value

    def forward():
        with torch.no_grad(), autocast:
            return done(reference.output(part, model, placed))

    def gradient():
        model.zero_grad(set_to_none=True)
        with autocast:
            value = (reference.output(part, model, placed).float() * weights).sum()
        value.backward()
        return done((value, None))

    return forward if work == 'forward' else gradient


def _agree(runs: dict[str, Callable[[], Any]], what: str, tolerance: float) -> None:
    """Compares the outputs, or the losses of which the gradients are."""
    found = {}
    for side, run in runs.items():
        value = run()
        value = value[0] if isinstance(value, tuple) else value
        if isinstance(value, torch.Tensor):
            value = value.detach().float().cpu().numpy()
        found[side] = np.asarray(value, np.float32)
    ours = found.pop('JAX')
    for side, theirs in found.items():
        error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        if not error < tolerance:
            raise StageError(
                f'{what}: JAX and {side} differ by {error:.1e} of the largest value; expected '
                f'less than {tolerance:.0e}'
            )

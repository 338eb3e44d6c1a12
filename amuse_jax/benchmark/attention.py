"""Attention backends against each other, in the shapes of a config.

WINDOWS and SETS list the backends. A backend that cannot serve a shape, or that is slower than
another one on some card, is named with its figures, so that the choice in models/ can follow them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from amuse_jax.benchmark import report, timing
from amuse_jax.models import platform, windows
from amuse_jax.models.attention import gpu, multihead, tpu
from amuse_jax.models.window_map import WindowMap, shift_mask
from amuse_jax.system.files import write_json

STAGE = 2  # of the towers, from 0: the one with the most layers
CALLS_SECONDS = 0.1  # calls between two waits take about this long on an accelerator
WORKS = 'forward', 'forward and backward'


@dataclasses.dataclass(frozen=True)
class Case:
    """Attention of one kind of layer.

    Attributes:
      name: such as 'Swin-V2 windows'.
      batch: images, segments, or questions.
      queries, keys: tokens of each.
      heads, channels: number of heads, and of the channels of a head.
      masked: whether some keys of each row are padding.
      map: how self-attention's map of tokens is cut into windows; None for attention between sets.
      cosine: whether queries and keys are divided by their lengths; for windows.
    """

    name: str
    batch: int
    queries: int
    keys: int
    heads: int
    channels: int
    masked: bool = False
    map: WindowMap | None = None
    cosine: bool = False

    @property
    def sizes(self) -> str:
        """The sizes as text, such as '400 x 144 to 256 keys, 4 heads of 64'."""
        count = self.batch * (self.map.windows if self.map else 1)
        keys = f' to {self.keys} keys' if self.map is None else ''
        features = [
            name
            for name, used in {
                'cosine': self.cosine,
                'bias': self.map is not None,
                'shift mask': self.map is not None and self.map.shifts,
                'mask': self.masked,
            }.items()
            if used
        ]
        sizes = f'{count} x {self.queries}{keys}, {self.heads} heads of {self.channels}'
        return ', '.join([sizes, *features])

    @property
    def flops(self) -> int:
        """FLOPs of the two products of a forward pass."""
        count = self.batch * (self.map.windows if self.map else 1)
        return 4 * count * self.heads * self.queries * self.keys * self.channels


def cases(config: ConfigDict) -> list[Case]:
    """Return the attention of a step with `train.batch_size` videos: in windows, between sets."""
    model = config.model
    questions = config.train.batch_size * (config.train.questions or 1)
    images = questions * config.data.segments
    found, tokens = [], {}
    for name, sizes, cosine in (
        ('Swin-V2 windows', model.visual, True),
        ('HTS-AT windows', model.audio, False),
    ):
        side = sizes.image_size // sizes.patch // 2**STAGE
        window_map = WindowMap.of((side, side), sizes.window)
        heads = sizes.heads[STAGE]
        channels = sizes.width * 2**STAGE // heads
        count = window_map.tokens
        found.append(
            Case(name, images, count, count, heads, channels, map=window_map, cosine=cosine)
        )
        tokens[name] = side * side
    visual, audio = tokens.values()
    words, heads = model.text.max_words, model.adapters.heads
    sets = functools.partial(Case, heads=heads, channels=model.adapters.width // heads)
    segments = config.data.segments
    return found + [
        sets('adapters, video to audio', images, visual, audio),
        sets('adapters, audio to video', images, audio, visual),
        sets('adapters, video to words', images, visual, words, masked=True),
        sets('adapters, words to video', questions, words, segments * visual, masked=True),
        sets('adapters, words to audio', questions, words, segments * audio, masked=True),
    ]


# Backends of windows: functions of queries, keys and values side by side (b, h*w, 3 * heads * c),
# the bias (heads, m, m) and the scale (heads,), both float32, and the case. They return
# (b, h*w, heads * c). The windows are shifted if the map has several.


def _windows_in_xla(qkv: Array, bias: Array, scale: Array, case: Case) -> Array:
    return _windows_on('cpu', qkv, bias, scale, case)


def _windows_in_tpu_kernel(qkv: Array, bias: Array, scale: Array, case: Case) -> Array:
    return _windows_on('tpu', qkv, bias, scale, case)


def _windows_on(name: str, qkv: Array, bias: Array, scale: Array, case: Case) -> Array:
    """Compute the windows as the model does on a platform."""
    arrays = jnp.split(case.map.roll(qkv), 3, axis=-1)
    with platform.compiling_for(name):
        attended = windows.attention(*arrays, bias, scale, case.map, case.cosine)
    return case.map.roll(attended, -1)


def _windows_in_cudnn(qkv: Array, bias: Array, scale: Array, case: Case) -> Array:
    """Let cuDNN attend, with bias and mask as one bfloat16 bias for the windows at each place."""
    dtype, heads = qkv.dtype, case.heads
    arrays = jnp.split(case.map.roll(qkv), 3, axis=-1)
    query, key, value = (
        jnp.swapaxes(case.map.split(x, heads), 1, 2)  # (b * windows, m, heads, c)
        for x in arrays
    )
    if case.cosine:
        query, key = windows.unit(query), windows.unit(key).astype(dtype)
    query = (query * scale[:, None]).astype(dtype)
    biases = bias[None]
    if case.map.shifts:
        allowed = jnp.asarray(shift_mask(case.map))
        biases = jnp.where(allowed[:, None], biases, jnp.finfo(dtype).min)
    attended = [
        jax.nn.dot_product_attention(
            *(x[place :: len(biases)] for x in (query, key, value)),
            biases[place : place + 1].astype(dtype),
            scale=1.0,
            implementation='cudnn',
        )
        for place in range(len(biases))
    ]
    attended = jnp.stack(attended, axis=1).reshape(query.shape)
    return case.map.roll(case.map.join(jnp.swapaxes(attended, 1, 2)), -1)


def _windows_in_gpu_kernel(qkv: Array, bias: Array, scale: Array, case: Case) -> Array:
    return gpu.attend(qkv, bias, scale, case.map, case.cosine)


# Backends between sets: functions of queries (b, n, heads * c), keys and values (b, m, heads * c),
# the number of keys of each row (b,) int32 or None for all, and the case. They return
# (b, n, heads * c).


def _sets_in_xla(query: Array, key: Array, value: Array, counts: Array | None, case: Case) -> Array:
    split = (multihead.split_heads(x, case.heads) for x in (query, key, value))
    mask = None if counts is None else _mask(counts, case)[:, None, None]
    return multihead.join_heads(multihead.attend(*split, mask))


def _sets_in_tpu_kernel(query, key, value, counts, case):
    scale = jnp.full(case.heads, case.channels**-0.5, jnp.float32)
    mask = None if counts is None else _mask(counts, case)[:, None]
    return tpu.attend(query[:, None], key[:, None], value[:, None], scale, None, mask)[:, 0]


def _sets_in_cudnn(query, key, value, counts, case):
    split = (x.reshape(*x.shape[:2], case.heads, -1) for x in (query, key, value))
    rows = None if counts is None else jnp.full(case.batch, case.queries, jnp.int32)
    attended = jax.nn.dot_product_attention(
        *split, query_seq_lengths=rows, key_value_seq_lengths=counts, implementation='cudnn'
    )
    return attended.reshape(query.shape)


def _mask(counts: Array, case: Case) -> Array:
    return jnp.arange(case.keys) < counts[:, None]


PLAIN = 'XLA'
ALL = 'cpu', 'gpu', 'tpu'
# By name: the platforms that have the backend, and its function.
WINDOWS: Mapping[str, tuple[tuple[str, ...], Callable]] = {
    PLAIN: (ALL, _windows_in_xla),
    'kernel for GPUs': (('gpu',), _windows_in_gpu_kernel),
    'cuDNN': (('gpu',), _windows_in_cudnn),
    'kernel for TPUs': (('tpu',), _windows_in_tpu_kernel),
}
SETS: Mapping[str, tuple[tuple[str, ...], Callable]] = {
    PLAIN: (ALL, _sets_in_xla),
    'cuDNN': (('gpu',), _sets_in_cudnn),
    'kernel for TPUs': (('tpu',), _sets_in_tpu_kernel),
}


def backends(case: Case, target: str) -> dict[str, Callable]:
    """Return the backends of a platform for a case by name; each is a function of its inputs."""
    named = SETS if case.map is None else WINDOWS
    return {
        name: functools.partial(attend, case=case)
        for name, (platforms, attend) in named.items()
        if target in platforms
    }


def inputs(case: Case, dtype: str) -> tuple:
    """Return random inputs of a case's backends; the first ones are those with a gradient."""
    random, width = np.random.default_rng(0), case.heads * case.channels

    def tokens(count, width):
        return jnp.asarray(random.normal(size=(case.batch, count, width)), dtype)

    if case.map is not None:
        count = case.map.windows * case.map.tokens
        bias = jnp.asarray(random.normal(size=(case.heads, case.queries, case.keys)), jnp.float32)
        scale = 10.0 if case.cosine else case.channels**-0.5
        return tokens(count, 3 * width), bias, jnp.full(case.heads, scale, jnp.float32)
    # Every row has a key. Padding is at the end, as that of words and of segments.
    counts = random.integers(1, case.keys + 1, case.batch) if case.masked else None
    return (
        tokens(case.queries, width),
        *(tokens(case.keys, width) for _ in range(2)),
        None if counts is None else jnp.asarray(counts, jnp.int32),
    )


def measure(config: ConfigDict, rounds: int, path: Path) -> list[dict[str, Any]]:
    """Time every backend in every case; print and save each figure when it is known.

    Args:
      config: the sizes; `model.dtype` is that of the tokens.
      rounds: number of measured rounds, in which the backends take turns.
      path: the JSON file.

    Returns:
      The rows: the case's name and sizes, the backend, and for each of WORKS the median seconds and
      TFLOP/s, and the largest difference from the result in float32, relative to the largest
      number in it. A backend that fails has its error instead.
    """
    versions = report.package_versions('jax', 'jaxlib')
    rows: list[dict[str, Any]] = []
    for case in cases(config):
        for row in _measure_case(case, config.model.dtype, rounds):
            rows.append(row)
            write_json(path, {'machine': report.machine_name(), 'versions': versions, 'rows': rows})
            print(format_row(row), flush=True)
        jax.clear_caches()
    return rows


def _measure_case(case: Case, dtype: str, rounds: int) -> list[dict[str, Any]]:
    exact = inputs(case, 'float32')
    with jax.default_matmul_precision('highest'):
        expected = _works(backends(case, 'cpu')[PLAIN], case)[WORKS[1]](*exact)
    arguments = inputs(case, dtype)
    rows, runs = {}, {}
    for name, attend in backends(case, jax.default_backend()).items():
        rows[name] = {'case': case.name, 'sizes': case.sizes, 'dtype': dtype, 'backend': name}
        try:
            for work, function in _works(attend, case).items():
                run = functools.partial(_run, function, arguments)
                result = run(1)
                runs[name, work] = functools.partial(run, _calls(run))
            rows[name]['difference'] = max(
                _difference(*pair) for pair in zip(jax.tree.leaves(result), expected, strict=True)
            )
        except Exception as error:  # the others are measured, whatever a library raises
            runs = {key: run for key, run in runs.items() if key[0] != name}
            rows[name]['error'] = str(error).strip().splitlines()[0]
    times = timing.time_interleaved(runs, rounds)
    for (name, work), each in times.items():
        seconds = each.median / runs[name, work].args[-1]
        rows[name][work] = {
            'seconds': seconds,
            'spread': each.spread,
            'tflops': (1 if work == WORKS[0] else 3) * case.flops / seconds / 1e12,
        }
    return list(rows.values())


def _works(attend: Callable, case: Case) -> dict[str, Callable]:
    """Return the forward pass, and that with the gradients of all tokens, as compiled functions."""
    count = 1 if case.map is not None else 3

    def backward(*arguments):
        tokens, others = arguments[:count], arguments[count:]
        attended, pull = jax.vjp(lambda *tokens: attend(*tokens, *others), *tokens)
        return attended, *pull(attended)

    return dict(zip(WORKS, (jax.jit(attend), jax.jit(backward)), strict=True))


def _run(function: Callable, arguments: tuple, calls: int) -> Any:
    for _ in range(calls):
        result = function(*arguments)
    return jax.block_until_ready(result)


def _calls(run: Callable[[int], Any]) -> int:
    """Return how many calls take about CALLS_SECONDS; one on a CPU, where starting one is quick."""
    if jax.default_backend() == 'cpu':
        return 1
    seconds = timing.time_interleaved({'': functools.partial(run, 1)}, 3)[''].median
    return max(1, round(CALLS_SECONDS / seconds))


def _difference(found: Array, expected: Array) -> float:
    expected = expected.astype(jnp.float32)
    largest = jnp.max(jnp.abs(expected))
    return float(jnp.max(jnp.abs(found.astype(jnp.float32) - expected)) / largest)


def format_row(row: dict[str, Any]) -> str:
    """Return a row as a line of text."""
    line = f'{row["case"]} ({row["sizes"]}), {row["dtype"]}, {row["backend"]}: '
    if 'error' in row:
        return line + f'fails: {row["error"]}'
    works = (
        f'{work} {1e3 * row[work]["seconds"]:.3f} ms, {row[work]["tflops"]:.3g} TFLOP/s'
        for work in WORKS
    )
    return line + f'{"; ".join(works)}; difference {row["difference"]:.1e}'

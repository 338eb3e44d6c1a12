"""What each part of a model costs, without building it: parameters, output shape and products."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.data.tokenizer import PERSONS, QuestionTokenizer
from amuse_jax.errors import StageError
from amuse_jax.media.log_mel import LogMel
from amuse_jax.models import flops, swin_v2
from amuse_jax.models.amuse import Amuse, AmuseConfig, AmuseInputs, Phrases
from amuse_jax.models.interactive_encoder import Front, InteractiveEncoder
from amuse_jax.models.universal_encoder import UniversalEncoder
from amuse_jax.music_avqa import vocabulary

BERT_WORDS = 30522  # rows of the word table assumed where the tokenizer can't be had
CLASSES = (*vocabulary.INSTRUMENTS, PERSONS[0])  # of the detector


@dataclasses.dataclass(frozen=True)
class Row:
    """One part of the model.

    Attributes:
      part: its name.
      parameters: how many numbers it holds.
      output: shapes of what it returns, one after the other.
      flops: of its matrix products for one video and `config.train.questions` questions, two for
        each multiplication and addition.
    """

    part: str
    parameters: int
    output: tuple[tuple[int, ...], ...]
    flops: int


def table(config: ConfigDict) -> str:
    """`describe` as text, a line per part."""
    lines = [('part', 'parameters', 'GFLOP', 'output')]
    for row in describe(config):
        shapes = ' '.join('x'.join(map(str, shape)) for shape in row.output)
        lines.append((row.part, f'{row.parameters:,}', f'{row.flops / 1e9:,.3f}', shapes))
    first, second, third = (max(len(line[column]) for line in lines) for column in range(3))
    text = [f'{a:{first}}  {b:>{second}}  {c:>{third}}  {d}' for a, b, c, d in lines]
    note = f'GFLOP: matrix products for one video and {config.train.questions} questions'
    return '\n'.join([*text, note])


def describe(config: ConfigDict) -> list[Row]:
    """The universal encoder, the parts of Amuse and the whole; nothing is allocated or compiled."""
    sizes, phrases = AmuseConfig.from_settings(config), _phrases(config)
    towers = sizes.encoder.visual, sizes.encoder.audio, config.pretrain.predictor_width
    dtype = jnp.dtype(sizes.dtype)
    universal = nnx.eval_shape(lambda: UniversalEncoder(*towers, rngs=nnx.Rngs(0), dtype=dtype))
    amuse = nnx.eval_shape(lambda: Amuse(sizes, phrases, rngs=nnx.Rngs(0)))
    media, inputs = _media(config), _inputs(config, sizes)
    words = jax.tree.map(lambda x: _of(x.shape[1:], x.dtype), (inputs.words, inputs.word_mask))

    text = _row('text tower', amuse.text, _call, *words)
    head = _row('streams and answer head', (amuse.answer, amuse.answer_streams), None)
    closed, _ = cost(_call, amuse, inputs)  # the text tower, the streams and the head
    rows = [
        _row('universal encoder (rhythm, source)', universal, _call, *media),
        text,
        dataclasses.replace(head, flops=closed - text.flops),
    ]
    if amuse.encoder is None:
        return [*rows, _row('Amuse', amuse, _call, inputs)]
    front = jax.eval_shape(InteractiveEncoder.front, amuse.encoder, *media)
    whole = _row('Amuse', amuse, _call, inputs.replace(front=front))
    before, _ = cost(InteractiveEncoder.front, amuse.encoder, *media)
    whole = dataclasses.replace(whole, flops=whole.flops + before)
    return [*rows, *_encoder_rows(amuse.encoder, media, front, inputs), whole]


def _encoder_rows(encoder: InteractiveEncoder, media, front: Front, inputs) -> list[Row]:
    def see(tower, frames):
        return tower(swin_v2.normalise(frames)).pooled

    def hear(tower, log_mel):
        return tower(log_mel).pooled

    def one_round(adapters, *tokens):
        graphdef, state = nnx.split(adapters)
        return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[0], state))(*tokens)

    frames, log_mel = (_of(x.shape[1:], x.dtype) for x in media)
    words = inputs.words, inputs.word_mask, inputs.segment_mask
    questions, width = inputs.words.shape[1], encoder.text.config.width
    visual, audio = (
        _of((1, questions, *x.shape[1:]), x.dtype) for x in (front.visual, front.audio)
    )
    text = _of((*inputs.words.shape, width), front.visual.dtype)
    adapters = _row('adapters', encoder.adapters, one_round, visual, audio, text, *words[1:])
    return [
        _row('visual tower', encoder.visual, see, frames),
        _row('audio tower', encoder.audio, hear, log_mel),
        dataclasses.replace(adapters, flops=adapters.flops * encoder.rounds),
        _row(
            'before the first adapters',
            (),
            lambda _, *x: InteractiveEncoder.front(*x),
            encoder,
            *media,
        ),
        _row('interactive encoder, from there', encoder, _call, front, *words),
    ]


def _call(module, *inputs):
    return module(*inputs)


def _of(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _row(part: str, module, run: Callable | None, *inputs) -> Row:
    """A row for `run(module, *inputs)`, all of them abstract; no `run`: of the parameters alone."""
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(module))
    flops, output = cost(run, module, *inputs) if run else (0, ())
    return Row(part, parameters, output, flops)


def cost(run: Callable, *inputs) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """FLOPs of the matrix products of run(*inputs), and the shapes of what it returns."""
    jaxpr, output = jax.make_jaxpr(run, return_shape=True)(*inputs)
    return flops.of_products(jaxpr.jaxpr), tuple(leaf.shape for leaf in jax.tree.leaves(output))


def _phrases(config: ConfigDict) -> Phrases:
    """The configured tokenizer's, or as many words as BERT's has where it can't be had."""
    try:
        return Phrases.from_settings(QuestionTokenizer(config.model.text), CLASSES)
    except StageError:

        def rows(names):
            return ((0,),) * len(names), ((True,),) * len(names)

        return Phrases(
            vocab_size=BERT_WORDS,
            answers=rows(vocabulary.ANSWERS),
            instruments=rows(vocabulary.INSTRUMENTS),
            classes=rows(CLASSES),
            is_instrument=tuple(name in vocabulary.INSTRUMENTS for name in CLASSES),
        )


def _media(config: ConfigDict):
    """One video's frames and log-mel."""
    segments, size = config.data.segments, config.data.image_size
    return (
        _of((1, segments, size, size, 3), jnp.uint8),
        _of((1, *LogMel.from_settings(config).shape), jnp.float32),
    )


def _inputs(config: ConfigDict, sizes: AmuseConfig) -> AmuseInputs:
    """One video's inputs with closed adapters."""
    segments, words = config.data.segments, (1, config.train.questions, config.model.text.max_words)
    regions, number = (1, segments, config.rois.regions), jnp.float32
    visual, audio = (
        _of((1, segments, 8 * tower.width), number)
        for tower in (sizes.encoder.visual, sizes.encoder.audio)
    )
    return AmuseInputs(
        words=_of(words, jnp.int32),
        word_mask=_of(words, bool),
        segment_mask=_of((1, segments), bool),
        closed=(visual, audio),
        rhythm_visual=visual,
        rhythm_audio=audio,
        source_visual=visual,
        source_audio=audio,
        rhythm=_of((1, segments), number),
        sources=_of((1, segments, len(vocabulary.INSTRUMENTS)), number),
        boxes=_of((*regions, 4), number),
        classes=_of(regions, jnp.int32),
        scores=_of(regions, number),
        features=_of((*regions, config.rois.feature_size), number),
    )

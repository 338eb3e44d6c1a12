"""A summary of the model without building it: parameters, output shapes and FLOPs of each part."""

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
from amuse_jax.models.interactive_encoder import InteractiveEncoder, QuestionFree
from amuse_jax.models.universal_encoder import UniversalEncoder
from amuse_jax.music_avqa import vocabulary

BERT_WORDS = 30522  # assumed rows of the word table where the tokenizer is not available
CLASSES = (*vocabulary.INSTRUMENTS, PERSONS[0])  # classes of the detector


@dataclasses.dataclass(frozen=True)
class Row:
    """One part of the model.

    Attributes:
      part: name of the part.
      parameters: number of parameters.
      output: shapes of the arrays that it returns.
      flops: FLOPs of its matrix products for one video and `config.train.questions` questions; a
        multiplication and an addition are two FLOPs.
    """

    part: str
    parameters: int
    output: tuple[tuple[int, ...], ...]
    flops: int


def table(config: ConfigDict) -> str:
    """Format the rows of `describe` as text, one line per part."""
    lines = [('part', 'parameters', 'GFLOP', 'output')]
    for row in describe(config):
        shapes = ' '.join('x'.join(map(str, shape)) for shape in row.output)
        lines.append((row.part, f'{row.parameters:,}', f'{row.flops / 1e9:,.3f}', shapes))
    first, second, third = (max(len(line[column]) for line in lines) for column in range(3))
    text = [f'{a:{first}}  {b:>{second}}  {c:>{third}}  {d}' for a, b, c, d in lines]
    note = f'GFLOP: matrix products for one video and {config.train.questions} questions'
    return '\n'.join([*text, note])


def describe(config: ConfigDict) -> list[Row]:
    """Return a row for the universal encoder, for each part of Amuse and for all of Amuse.

    Nothing is allocated or compiled.
    """
    sizes = AmuseConfig.from_settings(config)
    universal, amuse = abstract_models(config)
    media, inputs = _media(config), _inputs(config, sizes)
    words = jax.tree.map(
        lambda x: _abstract(x.shape[1:], x.dtype), (inputs.words, inputs.word_mask)
    )

    text = _row('text tower', amuse.text, _call, *words)
    parts = amuse.answer, getattr(amuse, 'answer_streams', ())  # one module in the paper's head
    head = _row('streams and answer head', parts, None)
    closed, _ = cost(_call, amuse, inputs)  # the text tower, the streams and the head
    rows = [
        _row('universal encoder (rhythm, source)', universal, _call, *media),
        text,
        dataclasses.replace(head, flops=closed - text.flops),
    ]
    if amuse.encoder is None:
        return [*rows, _row('Amuse', amuse, _call, inputs)]
    tokens = jax.eval_shape(InteractiveEncoder.question_free, amuse.encoder, *media)
    whole = _row('Amuse', amuse, _call, inputs.replace(question_free=tokens))
    before, _ = cost(InteractiveEncoder.question_free, amuse.encoder, *media)
    whole = dataclasses.replace(whole, flops=whole.flops + before)
    return [*rows, *_encoder_rows(amuse.encoder, media, tokens, inputs), whole]


def abstract_models(config: ConfigDict) -> tuple[UniversalEncoder, Amuse]:
    """Return the universal encoder and Amuse with shapes instead of arrays.

    The detector's class names, which only a finished run knows, are those of a detector that is
    trained on the data set's boxes.
    """
    sizes, phrases = AmuseConfig.from_settings(config), _phrases(config)
    towers = sizes.encoder.visual, sizes.encoder.audio, config.pretrain.predictor_width
    dtype = jnp.dtype(sizes.dtype)
    universal = nnx.eval_shape(lambda: UniversalEncoder(*towers, rngs=nnx.Rngs(0), dtype=dtype))
    return universal, nnx.eval_shape(lambda: Amuse(sizes, phrases, rngs=nnx.Rngs(0)))


def _encoder_rows(
    encoder: InteractiveEncoder, media, question_free: QuestionFree, inputs
) -> list[Row]:
    def run_visual(tower, frames):
        return tower(swin_v2.normalise(frames)).pooled

    def run_audio(tower, log_mel):
        return tower(log_mel).pooled

    def one_round(adapters, *tokens):
        graphdef, state = nnx.split(adapters)
        return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[0], state))(*tokens)

    frames, log_mel = (_abstract(x.shape[1:], x.dtype) for x in media)
    words = inputs.words, inputs.word_mask, inputs.segment_mask
    questions, width = inputs.words.shape[1], encoder.text.config.width
    visual, audio = (
        _abstract((1, questions, *x.shape[1:]), x.dtype)
        for x in (question_free.visual, question_free.audio)
    )
    text = _abstract((*inputs.words.shape, width), question_free.visual.dtype)
    adapters = _row('adapters', encoder.adapters, one_round, visual, audio, text, *words[1:])
    return [
        _row('visual tower', encoder.visual, run_visual, frames),
        _row('audio tower', encoder.audio, run_audio, log_mel),
        dataclasses.replace(adapters, flops=adapters.flops * encoder.rounds),
        _row(
            'interactive encoder, question-free part',
            (),
            lambda _, *x: InteractiveEncoder.question_free(*x),
            encoder,
            *media,
        ),
        _row('interactive encoder, question-dependent part', encoder, _call, question_free, *words),
    ]


def _call(module, *inputs):
    return module(*inputs)


def _abstract(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _row(part: str, module, run: Callable | None, *inputs) -> Row:
    """Return the row of `run(module, *inputs)`, where the module and the inputs are abstract.

    If `run` is None, the row has only the parameters.
    """
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(module))
    flops, output = cost(run, module, *inputs) if run else (0, ())
    return Row(part, parameters, output, flops)


def cost(run: Callable, *inputs) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """Return the FLOPs of the matrix products in run(*inputs) and the shapes of its outputs."""
    jaxpr, output = jax.make_jaxpr(run, return_shape=True)(*inputs)
    shapes = tuple(leaf.shape for leaf in jax.tree.leaves(output))
    return flops.count_matmul_flops(jaxpr.jaxpr), shapes


def _phrases(config: ConfigDict) -> Phrases:
    """Return the phrases of the configured tokenizer.

    Where it is not available, return phrases of one word and a table of BERT's size.
    """
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
    """Return the abstract frames and log-mel of one video."""
    segments, size = config.data.segments, config.data.image_size
    return (
        _abstract((1, segments, size, size, 3), jnp.uint8),
        _abstract((1, *LogMel.from_settings(config).shape), jnp.float32),
    )


def _inputs(config: ConfigDict, sizes: AmuseConfig) -> AmuseInputs:
    """Return the abstract inputs of one video with closed adapters."""
    segments, words = config.data.segments, (1, config.train.questions, config.model.text.max_words)
    regions, number = (1, segments, config.rois.regions), jnp.float32
    visual, audio = (
        _abstract((1, segments, 8 * tower.width), number)
        for tower in (sizes.encoder.visual, sizes.encoder.audio)
    )
    return AmuseInputs(
        words=_abstract(words, jnp.int32),
        word_mask=_abstract(words, bool),
        segment_mask=_abstract((1, segments), bool),
        closed=(visual, audio),
        rhythm_visual=visual,
        rhythm_audio=audio,
        source_visual=visual,
        source_audio=audio,
        rhythm=_abstract((1, segments), number),
        sources=_abstract((1, segments, len(vocabulary.INSTRUMENTS)), number),
        boxes=_abstract((*regions, 4), number),
        classes=_abstract(regions, jnp.int32),
        scores=_abstract(regions, number),
        features=_abstract((*regions, config.rois.feature_size), number),
    )

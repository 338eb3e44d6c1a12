import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amuse_jax.config import HEADS, default_config
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.models import building
from amuse_jax.models.amuse import Amuse, AmuseConfig, AmuseInputs, Phrases
from amuse_jax.music_avqa import vocabulary
from configs import demo

CLASSES = (*vocabulary.INSTRUMENTS, 'player')
VIDEOS, QUESTIONS, SEGMENTS, REGIONS, FEATURES = 2, 5, 3, 4, 6
STREAMS = (
    'visual', 'audio', 'rhythm_visual', 'rhythm_audio', 'source_visual', 'source_audio', 'regions',
)  # fmt: skip
TEXTS = (
    'Is there a violin sound?',
    'Where is the performance?',
    'How many flute are in the entire video?',
    'Is the drum on the left louder than the electric_bass on the right?',
    'What is the first instrument that comes in?',
)


def settings(without='', head='ours'):
    config = demo.get_config()
    config.without, config.model.head = without, head
    config.data.segments, config.data.image_size = SEGMENTS, 32
    config.rois.update(regions=REGIONS, feature_size=FEATURES)
    config.audio.mels = 16
    tower = dict(image_size=32, patch=4, width=4, depths=(1, 1, 2, 1), heads=(1, 1, 2, 2), window=2)
    config.model.visual.update(tower)
    config.model.audio.update(tower)
    config.model.text.update(width=16, heads=2, mlp_width=16)
    config.model.adapters.update(width=8, heads=2, mlp_width=8)
    config.model.answer.update(width=16, heads=2, layers=2, mlp_width=16, probes=3)
    return config


@functools.cache
def make_amuse(without='', dtype='float32', is_open=False, head='ours'):
    config = settings(without, head)
    config.model.dtype = dtype
    phrases = Phrases.from_settings(QuestionTokenizer(config.model.text), CLASSES)
    sizes = AmuseConfig.from_settings(config)
    amuse = building.build(lambda rngs: Amuse(sizes, phrases, rngs=rngs), seed=0)
    if is_open:
        for name in ('visual', 'audio', 'text'):
            out = getattr(amuse.encoder.adapters, name).project_out
            out.kernel[...] = 0.3 * jax.random.normal(jax.random.key(1), out.kernel.shape)
    return amuse


@jax.jit
def answer(amuse, inputs):
    return amuse(inputs)


@jax.jit
def prepare(amuse, frames, log_mel):
    question_free = amuse.encoder.question_free(frames, log_mel)
    return question_free, amuse.encoder.closed(question_free)


def draw_inputs(amuse, seed=0):
    """Return inputs with `question_free` and inputs with `closed`; neither without the encoder."""
    rng = np.random.default_rng(seed)
    lead = (VIDEOS, SEGMENTS)
    words, mask = QuestionTokenizer(settings().model.text).encode(TEXTS)
    features = [rng.normal(size=(*lead, 32)).astype(np.float32) for _ in range(4)]
    corner = rng.uniform(0, 0.7, (*lead, REGIONS, 2))
    boxes = np.concatenate([corner, corner + 0.2], axis=-1).astype(np.float32)
    inputs = AmuseInputs(
        np.repeat(words[None], VIDEOS, 0),
        np.repeat(mask[None], VIDEOS, 0),
        np.array([[True] * 3, [True, True, False]]),
        None,
        None,
        *features,
        rhythm=rng.uniform(size=lead).astype(np.float32),
        sources=rng.uniform(size=(*lead, 22)).astype(np.float32),
        boxes=boxes,
        classes=rng.integers(-1, len(CLASSES), (*lead, REGIONS)).astype(np.int32),
        scores=rng.uniform(0.3, 1, (*lead, REGIONS)).astype(np.float32),
        features=rng.normal(size=(*lead, REGIONS, FEATURES)).astype(np.float32),
    )
    if amuse.encoder is None:
        return inputs, inputs
    frames = rng.integers(0, 256, (*lead, 32, 32, 3)).astype(np.uint8)
    question_free, closed = prepare(
        amuse, frames, rng.normal(size=(*lead, 20, 16)).astype(np.float32)
    )
    return inputs.replace(question_free=question_free), inputs.replace(closed=closed)


def of_videos(inputs, part):
    return jax.tree.map(lambda x: x[part], inputs)


def assert_close(one, other, atol=2e-5):
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, atol=atol)


@pytest.mark.parametrize('head', HEADS)
def test_answers_come_with_importance_and_evidence(head):
    amuse = make_amuse(head=head)
    output = answer(amuse, draw_inputs(amuse)[1])
    assert amuse.streams == STREAMS
    assert output.logits.shape == (VIDEOS, QUESTIONS, 42)
    assert output.importance.shape == (VIDEOS, QUESTIONS, 7)
    assert output.region_weights.shape == (VIDEOS, QUESTIONS, SEGMENTS * REGIONS)
    assert output.time_weights.shape == (VIDEOS, QUESTIONS, 7, SEGMENTS)
    np.testing.assert_allclose(output.importance.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(output.time_weights[:, :, :6].sum(-1), 1, atol=1e-5)
    assert (output.time_weights[1, :, :6, 2] < 1e-5).all()  # a segment that does not exist


@pytest.mark.parametrize(
    'head, is_question_free', [('ours', True), ('ours', False), ('paper', True), ('paper', False)]
)
def test_questions_together_equal_questions_one_by_one(head, is_question_free):
    amuse = make_amuse(is_open=True, head=head)
    inputs = draw_inputs(amuse)[0 if is_question_free else 1]
    together = answer(amuse, inputs)
    for q in range(QUESTIONS):
        part = slice(q, q + 1)
        alone = inputs.replace(words=inputs.words[:, part], word_mask=inputs.word_mask[:, part])
        assert_close(answer(amuse, alone), jax.tree.map(lambda x: x[:, part], together))  # noqa: B023


def test_a_video_is_answered_without_the_others_of_its_batch():
    amuse = make_amuse(is_open=True)
    inputs = draw_inputs(amuse)[0]
    together = answer(amuse, inputs)
    alone = answer(amuse, of_videos(inputs, slice(1, 2)))
    assert_close(alone, of_videos(together, slice(1, 2)))


@pytest.mark.parametrize('head', HEADS)
def test_a_fresh_model_answers_alike_with_question_free_tokens_and_with_closed_streams(head):
    amuse = make_amuse(head=head)
    assert_close(*(answer(amuse, inputs) for inputs in draw_inputs(amuse)))


def test_padding_has_no_influence():
    amuse = make_amuse(is_open=True)
    inputs = draw_inputs(amuse)[0]
    garbage = {
        name: np.array(getattr(inputs, name))
        for name in (
            'rhythm_visual', 'rhythm_audio', 'source_visual', 'source_audio', 'rhythm', 'sources',
            'boxes', 'classes', 'scores', 'features',
        )
    }  # fmt: skip
    for values in garbage.values():
        values[1, 2] = 3
    question_free = jax.tree.map(lambda x: x.at[1, 2].set(9.0), inputs.question_free)
    words = np.where(inputs.word_mask, inputs.words, 11)
    changed = inputs.replace(question_free=question_free, words=words, **garbage)
    assert_close(answer(amuse, changed), answer(amuse, inputs))


@pytest.mark.parametrize('head', ['ours', pytest.param('paper', marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    'without, gone',
    [
        ('encoder', ('visual', 'audio')),
        ('rhythm', ('rhythm_visual', 'rhythm_audio')),
        ('sources', ('source_visual', 'source_audio')),
        ('rois', ('regions',)),
    ],
)
def test_ablations_drop_their_streams(without, gone, head):
    amuse = make_amuse(without, head=head)
    inputs = draw_inputs(amuse)[1]
    assert amuse.streams == tuple(name for name in STREAMS if name not in gone)
    fields = {
        'rhythm': ('rhythm',), 'sources': ('sources',), 'encoder': (),
        'rois': ('boxes', 'classes', 'scores', 'features'),
    }[without]  # fmt: skip
    names = [*fields, *(name for name in gone if '_' in name)]
    output = answer(amuse, inputs.replace(**dict.fromkeys(names)))
    assert output.importance.shape[-1] == len(amuse.streams)
    np.testing.assert_allclose(output.importance.sum(-1), 1, atol=1e-5)
    assert (amuse.encoder is None) == (without == 'encoder')
    assert output.region_weights.size == 0 or without != 'rois'


@pytest.mark.parametrize('head', HEADS)
def test_the_default_pattern_freezes_the_towers(head):
    state = nnx.to_flat_state(nnx.state(make_amuse(head=head), nnx.Param))
    names = {'.'.join(map(str, path)) for path, _ in state}
    trainable = {name for name in names if re.search(default_config().train.trainable, name)}
    fixed = {'.'.join(name.split('.')[:2]) for name in names - trainable}
    assert fixed == {'encoder.visual', 'encoder.audio'}
    tops = {'encoder', 'answer'} | ({'answer_streams'} if head == 'ours' else set())
    assert {name.split('.')[0] for name in trainable} == tops


def test_phrases_are_constants():
    integers = [
        x for x in jax.tree.leaves(make_amuse()) if not jnp.issubdtype(x.dtype, jnp.floating)
    ]
    assert not integers


@pytest.mark.parametrize('head', HEADS)
def test_bfloat16_keeps_parameters_and_answers_in_float32(head):
    amuse = make_amuse(dtype='bfloat16', is_open=True, head=head)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(amuse))
    output = answer(amuse, draw_inputs(amuse)[0])
    precise = make_amuse(is_open=True, head=head)
    exact = answer(precise, draw_inputs(precise)[0])
    assert output.logits.dtype == output.importance.dtype == jnp.float32
    np.testing.assert_allclose(output.importance.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(output.logits, exact.logits, atol=0.1)


def test_inputs_must_have_one_of_question_free_and_closed():
    amuse = make_amuse()
    with pytest.raises(ValueError, match='inputs.question_free or inputs.closed'):
        amuse(draw_inputs(amuse)[0].replace(question_free=None))

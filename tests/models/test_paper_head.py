import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amuse_jax.models import building
from amuse_jax.models.amuse import AmuseInputs
from amuse_jax.models.answer import AnswerConfig
from amuse_jax.models.paper_head import PaperHead
from amuse_jax.models.streams import PARTS, StreamConfig, names_without

VIDEOS, QUESTIONS, WORDS, SEGMENTS, REGIONS, CLASSES = 2, 3, 4, 3, 4, 5
WIDTHS = {name: 6 + number for number, name in enumerate(PARTS)}  # all different
TEXT, WIDTH, HEADS, ANSWERS = 10, 8, 2, 7


@functools.cache
def make_head(without=''):
    streams = StreamConfig(
        names_without(without), tuple(WIDTHS.items()), SEGMENTS, (True,) * CLASSES, WIDTH
    )
    sizes = AnswerConfig(width=WIDTH, heads=HEADS, layers=1, mlp_width=12, probes=1, dropout=0.5)

    def make(rngs):
        return PaperHead(streams, sizes, TEXT, ANSWERS, rngs=rngs)

    head = building.build(make, seed=0)
    for layer in (head.key, head.inner, head.question):  # initial biases are zero
        layer.bias[...] = jnp.linspace(-1, 1, len(layer.bias[...]))
    return head


@jax.jit
def answer(head, *inputs):
    return head(*inputs)


def draw(seed=0):
    """Return the head's inputs; the second video lacks its last segment."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    stored = {n: normal(VIDEOS, SEGMENTS, WIDTHS[n]) for n in PARTS if '_' in n}
    corner = rng.uniform(0, 0.7, (VIDEOS, SEGMENTS, REGIONS, 2))
    classes = rng.integers(-1, CLASSES, (VIDEOS, SEGMENTS, REGIONS))
    classes[0, 1] = -1  # a segment without regions
    inputs = AmuseInputs(
        words=None,
        word_mask=None,
        segment_mask=np.array([[True] * 3, [True, True, False]]),
        boxes=np.concatenate([corner, corner + 0.2], axis=-1).astype(np.float32),
        classes=classes.astype(np.int32),
        scores=rng.uniform(size=(VIDEOS, SEGMENTS, REGIONS)).astype(np.float32),
        features=normal(VIDEOS, SEGMENTS, REGIONS, WIDTHS['regions']),
        **stored,
    )
    visual, audio = (
        normal(VIDEOS, QUESTIONS, SEGMENTS, WIDTHS[name]) for name in ('visual', 'audio')
    )
    return inputs, visual, audio, normal(VIDEOS, QUESTIONS, WORDS, TEXT)


def linear(layer, x):
    bias = 0 if layer.bias is None else np.asarray(layer.bias[...])
    return x @ np.asarray(layer.kernel[...]) + bias


def written_out(head, inputs, visual, audio, text, v, q):
    """Compute the head for one question, token by token and head by head."""
    tokens, places, shares = [], [], {}
    for s, name in enumerate(head.names):
        for t in range(SEGMENTS):
            if not inputs.segment_mask[v, t]:
                continue
            if name in ('visual', 'audio'):
                feature = {'visual': visual, 'audio': audio}[name][v, q, t]
            elif name == 'regions':
                found = [k for k in range(REGIONS) if inputs.classes[v, t, k] >= 0]
                if not found:
                    continue
                feature = np.zeros(WIDTH)
                for k in found:
                    shares[t, k] = 1 / len(found)
                    one_hot = np.eye(CLASSES)[inputs.classes[v, t, k]]
                    box = [*inputs.boxes[v, t, k], inputs.scores[v, t, k], *one_hot]
                    hidden = linear(head.regions.feature, inputs.features[v, t, k])
                    hidden = hidden + linear(head.regions.box, np.array(box))
                    feature += np.maximum(hidden, 0) / len(found)
            else:
                feature = getattr(inputs, name)[v, t]
            tokens.append(linear(head.projections[name], feature) + np.asarray(head.time[t]))
            places.append((s, t))
    question = linear(head.question, text[v, q, 0])
    query, size = linear(head.query, question), WIDTH // HEADS
    attended, weights = np.zeros(WIDTH), np.zeros((len(head.names), SEGMENTS))
    for h in range(HEADS):
        part = slice(h * size, (h + 1) * size)
        keys = [linear(head.key, token)[part] for token in tokens]
        powers = np.exp([query[part] @ key / np.sqrt(size) for key in keys])
        for token, place, power in zip(tokens, places, powers / powers.sum()):
            attended[part] += power * linear(head.value, token)[part]
            weights[place] += power / HEADS
    hidden = np.maximum(linear(head.inner, np.concatenate([question, attended])), 0)
    return linear(head.choice, hidden), weights, shares


@pytest.mark.parametrize('without', ['', 'encoder', 'rois'])
def test_the_head_equals_its_equations(without):
    head, inputs = make_head(without), draw()
    logits, importance, region_weights, time_weights = answer(head, *inputs)
    for v, q in np.ndindex(VIDEOS, QUESTIONS):
        expected, weights, shares = written_out(head, *inputs, v, q)
        np.testing.assert_allclose(logits[v, q], expected, atol=1e-5)
        np.testing.assert_allclose(importance[v, q], weights.sum(-1), atol=1e-6)
        inside = weights / weights.sum(-1, keepdims=True)
        np.testing.assert_allclose(time_weights[v, q], inside, atol=1e-5)
        regions = np.zeros((SEGMENTS, REGIONS))
        for (t, k), share in shares.items():
            regions[t, k] = inside[-1, t] * share
        assert region_weights[v, q].size == (0 if without == 'rois' else regions.size)
        if without != 'rois':
            np.testing.assert_allclose(region_weights[v, q], regions.ravel(), atol=1e-5)


def test_importance_sums_to_one_and_depends_on_the_question():
    inputs, visual, audio, text = draw()
    head = make_head()
    _, importance, _, _ = answer(head, inputs, visual, audio, text)
    np.testing.assert_allclose(importance.sum(-1), 1, atol=1e-6)
    assert (importance > 0).all()
    # With streams that no question changes, the question alone moves the attention.
    same = [np.repeat(x[:, :1], QUESTIONS, 1) for x in (visual, audio)]
    _, importance, _, _ = answer(head, inputs, *same, text)
    assert np.abs(importance[:, 0] - importance[:, 1]).max() > 1e-3


def test_streams_without_a_question_axis_equal_repeated_ones():
    inputs, visual, audio, text = draw()
    once = [x[:, :1] for x in (visual, audio)]
    repeated = [np.repeat(x, QUESTIONS, axis=1) for x in once]
    results = (answer(make_head(), inputs, *streams, text) for streams in (once, repeated))
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_padding_has_no_influence():
    inputs, visual, audio, text = draw()
    before = answer(make_head(), inputs, visual, audio, text)
    garbage = {name: np.array(getattr(inputs, name)) for name in PARTS if '_' in name}
    garbage |= {n: np.array(getattr(inputs, n)) for n in ('boxes', 'classes', 'scores', 'features')}
    for values in garbage.values():
        values[1, 2] = 3
    is_region = (inputs.classes >= 0)[..., None]
    garbage['features'] = np.where(is_region, garbage['features'], 50).astype(np.float32)
    visual, audio = np.array(visual), np.array(audio)
    visual[1, :, 2], audio[1, :, 2] = 40, -40
    after = answer(make_head(), inputs.replace(**garbage), visual, audio, text)
    for one, other in zip(before, after):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_video_without_regions_gives_them_no_importance():
    inputs, *others = draw()
    inputs = inputs.replace(classes=np.full_like(inputs.classes, -1))
    _, importance, region_weights, time_weights = answer(make_head(), inputs, *others)
    np.testing.assert_allclose(importance[..., :-1].sum(-1), 1, atol=1e-6)
    assert not importance[..., -1].any() and not region_weights.any()
    assert not time_weights[:, :, -1].any()


def test_a_video_without_segments_has_finite_answers_and_gradients():
    inputs, *others = draw()
    inputs = inputs.replace(segment_mask=np.zeros((VIDEOS, SEGMENTS), bool))

    def total(head):
        return sum(jnp.square(x).sum() for x in head(inputs, *others))

    value, grads = jax.jit(jax.value_and_grad(total))(make_head())
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))

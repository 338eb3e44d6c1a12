"""Stand-ins from the pretrained source encoder, and the peers with towers that train on them."""

import json

import jax
import numpy as np
import pytest

from amuse_jax.data.prepared import Prepared
from amuse_jax.data.train_words import TrainWords
from amuse_jax.models import building, swin_v2
from amuse_jax.models.peers import sizes
from amuse_jax.training import checkpoints, state, stored
from amuse_jax.training.peers import stage, stand_ins
from amuse_jax.training.peers.batches import PeerBatches
from amuse_jax.training.pretrain import stage as pretrain
from tests.training import conftest as small
from tests.training.peers.conftest import peer_config

TRAINABLE = {
    'lavish': r'^(?!swin\.)|^swin\..*norm',
    'last_att': r'^(?!lavish\.swin\.)|^lavish\.swin\..*norm',
    'dgsct': '^(adapters|projection|head)',
    'lstta': r'^(?!visual\.|audio\.)',
}


@pytest.fixture(scope='module')
def made(pretrained, tmp_path_factory):
    """(config, the folders up to stand_ins)."""
    config, inputs, _ = pretrained
    folder = tmp_path_factory.mktemp('stand_ins')
    videos = sum(small.VIDEOS.values())
    assert stand_ins.run(config, folder, inputs) == {'videos': videos, 'questions': 2}
    return config, inputs | {'stand_ins': folder}


def test_random_vectors_are_those_of_the_words():
    prepared = ['Is there a voiceover?', 'Where is the performance?', 'Is there a drum?']
    questions = [small._question(0, number, 'train', 0) for number in range(2)]
    words = TrainWords(questions)
    vectors = stand_ins.random_words(words, prepared, 5, seed=3)
    assert vectors.shape == (3, 14, 5) and vectors.dtype == np.float16
    np.testing.assert_array_equal(vectors[0, :3], vectors[2, :3])  # Is there a
    np.testing.assert_array_equal(vectors[2, 3], vectors[0, 13])  # an unknown word is padding
    assert not np.array_equal(vectors[0, 3], vectors[0, 13])
    again = stand_ins.random_words(words, prepared, 5, seed=3)
    np.testing.assert_array_equal(vectors, again)


@pytest.mark.slow
def test_the_arrays_are_outputs_of_the_source_encoders_towers(made):
    config, inputs = made
    arrays = stored.read(inputs['stand_ins'], stand_ins.ARRAYS)
    record = Prepared(inputs['prepare']).reader()[5]
    structure, params = pretrain.load(config, inputs['pretrain'])
    source = structure.merge(params).source
    seen = jax.jit(lambda tower, x: tower(swin_v2.normalise(x)))(source.visual, record['frames'])
    heard = jax.jit(lambda tower, x: tower(x))(source.audio, record['log_mel'].astype(np.float32))
    close = dict(rtol=2e-3, atol=2e-3)  # float16
    np.testing.assert_allclose(arrays['clip_frames'][5], seen.pooled, **close)
    np.testing.assert_allclose(arrays['clip_patches'][5], seen.tokens, **close)
    maps = arrays['resnet18'][5]
    np.testing.assert_allclose(maps.reshape(3, -1, maps.shape[-1]), seen.tokens, **close)
    np.testing.assert_allclose(arrays['vggish'][5], heard.pooled, **close)
    np.testing.assert_allclose(arrays['ast'][5], heard.tokens, **close)
    images = arrays['fbank'].astype(np.float32)
    assert images.shape == (14, 3, 32, 32)
    assert abs(images[:9].mean()) < 0.1 and 0.2 < images[:9].std() < 0.6
    texts = json.loads((inputs['stand_ins'] / 'questions.json').read_text())
    assert sorted(texts) == ['Is there a voiceover?', 'Where is the performance?']
    before = (inputs['stand_ins'] / 'vggish.npy').stat().st_mtime_ns
    stand_ins.run(config, inputs['stand_ins'], inputs)  # complete: not computed again
    assert (inputs['stand_ins'] / 'vggish.npy').stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize('name', TRAINABLE)
def test_a_peer_with_towers_learns_and_leaves_its_towers_as_they_were(made, tmp_path, name):
    _, inputs = made
    config = peer_config(
        name, inputs='towers', width=32, epochs=3, learning_rate=3e-3, trainable=TRAINABLE[name]
    )
    config.peer.adapter.update(latents=2, reduction=2, groups=2, hidden=8)
    stage.run(config, tmp_path, inputs)
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').open()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert losses[-1] < 0.9 * losses[0]
    assert any('match' in line for line in lines) == (name != 'lstta')
    source = PeerBatches(config, inputs)
    model = building.shapes(lambda rngs: sizes.build(config, source.vocabulary, rngs))
    _, _, frozen = state.split(model, config.peer.trainable)
    kept = checkpoints.read_frozen(tmp_path / 'frozen', frozen)
    for prefix, part in sizes.TOWERS[name].items():
        if part == 'text':
            continue
        tower = pretrain.source_towers(config, inputs['pretrain'])[part]
        same = [key for key in kept if key.startswith(prefix)]
        assert same
        for key in same:
            np.testing.assert_array_equal(kept[key], tower[key.removeprefix(prefix)])

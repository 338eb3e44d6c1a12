import jax
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import ClapAudioConfig
from transformers.models.clap.modeling_clap import ClapAudioModel

from amuse_jax.models import htsat
from amuse_jax.models.htsat import HTSAT, HTSATConfig, HTSATTagger
from amuse_jax.pretrained import files, key_mapping
from amuse_jax.pretrained import htsat as names
from tests.paths import SHARED

# Maps of 32, 16, 8 and 4 tokens: shifted windows, then one window.
CONFIG = HTSATConfig(128, 4, 8, (2, 2, 1, 1), (1, 2, 2, 4), 4, mels=32)
FULL = HTSATConfig(256, 4, 96, (2, 2, 6, 2), (4, 8, 16, 32), 8)
CLASSES = 7
KEYS = SHARED / 'facts/checkpoint_keys/htsat_original.txt'


@pytest.fixture(scope='module')
def arrays(original_htsat):
    return original_htsat.draw(CONFIG, CLASSES)


@pytest.fixture(scope='module')
def tagger(arrays):
    source = {name: tensor.numpy() for name, tensor in arrays.items()}
    abstract = nnx.eval_shape(lambda: HTSATTagger(CONFIG, CLASSES, rngs=nnx.Rngs(0)))
    return key_mapping.fill(abstract, source, names.table(CONFIG, source, tagger=True))


@pytest.mark.parametrize('frames', [512, 300, 701, 1024])
def test_tags_and_tokens_match_the_original(arrays, tagger, frames, original_htsat):
    """Test as many frames as the tower takes, fewer, and more."""
    log_mel = np.random.default_rng(0).uniform(-80, 0, (3, frames, 32)).astype(np.float32)
    with jax.default_matmul_precision('highest'):
        tags = jax.jit(lambda tagger, x: tagger(x))(tagger, log_mel)
    clip, along, tokens = original_htsat.Original(arrays, CONFIG)(torch.tensor(log_mel))
    np.testing.assert_allclose(tags.clip, clip.numpy(), atol=1e-5)
    np.testing.assert_allclose(tags.frames, along.numpy(), atol=2e-5)
    if frames <= CONFIG.frames:
        with jax.default_matmul_precision('highest'):
            ours = jax.jit(lambda tagger, x: tagger.tower(x).tokens)(tagger, log_mel)
        np.testing.assert_allclose(ours, tokens.numpy(), atol=1e-5, rtol=1e-5)


def test_a_longer_sound_is_cropped_to_overlapping_halves():
    assert htsat.crops(FULL, 1024) == [slice(0, 1024)]
    assert [(part.start, part.stop) for part in htsat.crops(FULL, 2001)] == [
        (0, 1000),
        (500, 1500),
    ]


def test_a_sound_of_more_than_twice_the_length_is_refused():
    with pytest.raises(ValueError, match='3000 frames; expected at most 2048'):
        htsat.crops(FULL, 3000)


def test_every_name_of_the_release_is_used_or_ignored(original_htsat):
    shapes = original_htsat.shapes(FULL, 527)
    source = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    model = nnx.eval_shape(lambda: HTSATTagger(FULL, 527, rngs=nnx.Rngs(0)))
    assert not key_mapping.differences(model, source, names.table(FULL, source, tagger=True))
    tower = nnx.eval_shape(lambda: HTSAT(FULL, rngs=nnx.Rngs(0)))
    assert not key_mapping.differences(tower, source, names.table(FULL, source))


@pytest.mark.skipif(not KEYS.exists(), reason='needs the list of the released names')
def test_the_description_has_the_names_and_shapes_of_the_release(original_htsat):
    listed = {}
    for line in KEYS.read_text().splitlines():
        name, shape, _ = line.split('\t')
        listed[name] = tuple(int(n) for n in shape.strip('()').split(',') if n.strip())
    assert original_htsat.shapes(FULL, 527) == listed


@pytest.mark.parametrize('fused', [False, True])
def test_every_name_of_clap_is_used_or_ignored(fused):
    with torch.device('meta'):
        model = ClapAudioModel(ClapAudioConfig(enable_fusion=fused))
    source = {
        name: np.broadcast_to(np.float32(0), tensor.shape)
        for name, tensor in model.state_dict().items()
    }
    tower = nnx.eval_shape(lambda: HTSAT(FULL, rngs=nnx.Rngs(0)))
    assert not key_mapping.differences(tower, source, names.table(FULL, source))


def test_laions_own_file_of_clap_gives_the_tower_of_the_release(arrays, original_htsat, tmp_path):
    """The file has a prefix, a text part, projections, and scores as NumPy numbers."""
    beside = (
        'logit_scale_a', 'logit_scale_t', 'text_branch.embeddings.position_ids',
        'text_branch.encoder.layer.0.output.dense.weight', 'text_transform.sequential.0.weight',
        'text_projection.0.bias', 'audio_transform.sequential.3.bias', 'audio_projection.2.weight',
        'audio_branch.patch_embed.fusion_model.local_att.0.weight',
        'audio_branch.patch_embed.mel_conv2d.bias',
    )  # fmt: skip
    state = {f'module.audio_branch.{name}': tensor for name, tensor in arrays.items()}
    state |= {f'module.{name}': torch.ones(1) for name in beside}
    content = {'epoch': 15, 'name': 'a run', 'top': np.float64(90.14), 'state_dict': state}
    torch.save(content, tmp_path / 'music_audioset_epoch_15_esc_90.14.pt')
    found = files.read(str(tmp_path / 'music_audioset_epoch_15_esc_90.14.pt'))
    release = {name: tensor.numpy() for name, tensor in arrays.items()}
    abstract = nnx.eval_shape(lambda: HTSAT(CONFIG, rngs=nnx.Rngs(0)))
    towers = [
        nnx.state(key_mapping.fill(abstract, source, names.table(CONFIG, source)))
        for source in (found, release)
    ]
    jax.tree.map(np.testing.assert_array_equal, *towers)
    tagger = nnx.eval_shape(lambda: HTSATTagger(CONFIG, CLASSES, rngs=nnx.Rngs(0)))
    with pytest.raises(key_mapping.ConversionError, match='tagger'):
        key_mapping.fill(tagger, found, names.table(CONFIG, found, tagger=True))

import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile
import torch
from flax import nnx

from amuse_jax.media.log_mel import log_mel
from amuse_jax.models.htsat import HTSATConfig, HTSATTagger
from amuse_jax.pretrained import audioset, tagging
from tests.media import writing
from tests.paths import ROOT

media = writing.media  # the fixture

# As many frames as the released model, but few and narrow blocks.
CONFIG = HTSATConfig(256, 8, 8, (1, 1, 1, 1), (1, 2, 2, 4), 4)
RATE = 32000


@pytest.fixture(scope='module')
def model():
    return HTSATTagger(CONFIG, 527, rngs=nnx.Rngs(0))


@pytest.fixture(scope='module')
def tagger(model):
    return tagging.Tagger(model)


def noise(seconds, seed=0):
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * RATE)).astype(np.float32)


def test_a_piece_of_ten_seconds_matches_the_model(model, tagger):
    samples = noise(10)
    found = tagger(samples)
    tags = jax.jit(lambda x: model(log_mel(tagging.FRONT_END, x)))(samples[None])
    np.testing.assert_allclose(found.clip, tags.clip[0], atol=1e-5)
    assert found.timeline.shape == (16, 527) and found.step_seconds == 10 / 16
    frames_per_step = CONFIG.frames // 16
    for step in (0, 7, 15):
        middle = step * frames_per_step + frames_per_step // 2
        np.testing.assert_allclose(found.timeline[step], tags.frames[0, middle], atol=1e-5)


def test_longer_sounds_are_tagged_in_pieces(tagger):
    samples = noise(23)
    found = tagger(samples)
    assert len(found.timeline) == np.ceil(23 / found.step_seconds)
    silence = np.zeros(7 * RATE, np.float32)
    parts = [tagger(x) for x in np.split(np.concatenate([samples, silence]), 3)]
    np.testing.assert_allclose(found.clip, np.mean([part.clip for part in parts], axis=0), 1e-5)
    whole = np.concatenate([part.timeline for part in parts])
    np.testing.assert_allclose(found.timeline, whole[: len(found.timeline)], atol=1e-6)


def test_shorter_sounds_are_stretched_as_in_the_original(model, tagger):
    samples = noise(4)
    found = tagger(samples)
    tags = jax.jit(lambda x: model(log_mel(tagging.FRONT_END, x)))(samples[None])
    np.testing.assert_allclose(found.clip, tags.clip[0], atol=1e-5)
    assert len(found.timeline) == 16 and found.step_seconds == 4 / 16
    with pytest.raises(ValueError, match='at least 1024'):
        tagger(samples[:1000])


def test_the_description_lists_the_best_classes_and_when_they_sound():
    timeline = np.zeros((8, 527), np.float32)
    timeline[4:, 191] = 1.0
    timeline[:, 27] = 0.5
    clip = timeline.mean(0) * np.linspace(1, 1.2, 527)
    lines = tagging.describe(tagging.SoundTags(clip, timeline, 0.5), 2).splitlines()
    assert lines[0].startswith('Violin, fiddle') and lines[0].endswith('|    ████|')
    assert lines[1].startswith('Singing') and lines[1].endswith('|▄▄▄▄▄▄▄▄|')
    assert lines[2].endswith('4.0 s')


def test_the_classes_are_those_of_audioset():
    names = audioset.names()
    assert len(names) == len(set(names)) == 527
    assert (names[0], names[137], names[526]) == ('Speech', 'Music', 'Field recording')
    indices = audioset.class_indices({name: index for index, name in enumerate(names)})
    assert len(indices) == 22 and all(indices)


@pytest.mark.slow
def test_the_command_tags_a_file_with_the_released_checkpoints_names(original_htsat, tmp_path):
    arrays = {f'sed_model.{k}': v for k, v in original_htsat.draw(tagging.RELEASED, 527).items()}
    torch.save({'state_dict': arrays}, tmp_path / 'htsat.ckpt')
    soundfile.write(tmp_path / 'sound #1.wav', noise(12), RATE)
    command = [
        sys.executable, '-m', 'amuse_jax.pretrained', 'tag',
        f'--source={tmp_path / "htsat.ckpt"}', f'--audio={tmp_path / "sound #1.wav"}', '--top=3',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and all('|' in line for line in lines[:3])
    scores = [float(line.split('|')[0].split()[-1]) for line in lines[:3]]
    assert scores == sorted(scores, reverse=True)


def test_a_file_that_cannot_be_read_ends_the_command_with_one_sentence(media, tmp_path):
    keys = {'encryption_key': '76a6c65c5ea762046bd749a2e632ccbb', 'encryption_kid': '0' * 32}
    encrypted = {'encryption_scheme': 'cenc-aes-ctr', **keys}
    path = media.write(tmp_path / 'a.mp4', media.Picture(), media.Sound(), options=encrypted)
    done = subprocess.run(
        [sys.executable, '-m', 'amuse_jax.pretrained', 'tag', '--source=F', f'--audio={path}'],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert done.stderr.strip().endswith(f'{path}: its sound is encrypted')

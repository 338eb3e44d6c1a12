"""Test Universal Source Separation: reports of missing files, and stems of the real networks."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from amuse_jax.annotate import sources, sources_tags
from amuse_jax.errors import StageError
from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.pretrained import audioset, separation
from tests.paths import ROOT

VIOLIN, CELLO = INSTRUMENTS.index('violin'), INSTRUMENTS.index('cello')
installed = importlib.util.find_spec('uss') is not None


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder, because the packages keep their files in the home folder."""
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    return tmp_path / 'home'


def write_labels(path) -> list[str]:
    """Write a label file with AudioSet's names, format and size; return the names."""
    names = list(audioset.names())
    rows = [f'{index},/m/{index},"{name}"\n' for index, name in enumerate(names)]
    text = 'index,mid,display_name\n' + ''.join(rows)
    missing = separation.LABELS_BYTES - len(text)
    path.write_text(text[:-2] + ' ' * missing + text[-2:])
    assert path.stat().st_size == separation.LABELS_BYTES
    return names


@pytest.mark.skipif(installed, reason='the package uss is installed')
def test_missing_package_is_one_sentence(tmp_path):
    with pytest.raises(StageError, match=r"uss is not installed; run pip install '\.\[uss\]'"):
        separation.Separator(tmp_path)


def test_labels_are_copied_to_where_the_packages_read_them(tmp_path, home):
    write_labels(tmp_path / separation.LABELS)
    empty = home / 'panns_data' / separation.LABELS  # a failed download leaves an empty file
    empty.parent.mkdir(parents=True)
    empty.touch()
    separation._place_labels(tmp_path)
    for place in (empty, home / '.cache' / 'uss' / 'metadata' / separation.LABELS):
        assert place.read_bytes() == (tmp_path / separation.LABELS).read_bytes()


def test_missing_files_are_reported(tmp_path, home):
    with pytest.raises(StageError, match=f'{separation.LABELS} .14675 bytes. in {tmp_path}'):
        separation._place_labels(tmp_path)
    with pytest.raises(StageError, match=f'has no file {separation.CHECKPOINT}'):
        separation._weight_files(tmp_path, (separation.CHECKPOINT, separation.TAGGER))


def test_published_files_are_read_without_unpickling(tmp_path):
    torch = pytest.importorskip('torch')
    sampler = {'indexes': np.arange(5), 'weights': np.ones(3, np.float32), 'pointer': 3}
    torch.save({'model': {'w': torch.ones(2)}, 'sampler': sampler}, tmp_path / 'good.pth')
    assert separation._read(tmp_path / 'good.pth', 'model')['w'].tolist() == [1, 1]
    with pytest.raises(StageError, match='cannot be read as the published weights'):
        separation._read(tmp_path / 'good.pth', 'state_dict')

    torch.save({'model': tmp_path}, tmp_path / 'code.pth')  # names a class outside the list
    with pytest.raises(StageError, match='code.pth cannot be read'):
        separation._read(tmp_path / 'code.pth', 'model')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'good.pth').read_bytes()[:300])
    (tmp_path / 'empty.pth').touch()
    with pytest.raises(StageError, match='empty.pth cannot be read'):
        separation._read(tmp_path / 'empty.pth', 'model')
    with pytest.raises(StageError, match='cut.pth cannot be read'):
        separation._read(tmp_path / 'cut.pth', 'model')


def write_weights(folder) -> None:
    """Write random weights of the real networks, and a tagger that detects only a violin."""
    import torch

    names = write_labels(folder / separation.LABELS)
    separation._place_labels(folder)
    from panns_inference.models import Cnn14
    from uss.models.resunet import ResUNet30

    torch.manual_seed(0)
    tagger = Cnn14(
        sample_rate=32000, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14000,
        classes_num=527,
    )  # fmt: skip
    with torch.no_grad():
        tagger.fc_audioset.weight.zero_()
        tagger.fc_audioset.bias.fill_(-9.0)
        tagger.fc_audioset.bias[names.index('Violin, fiddle')] = 9.0
    torch.save({'model': tagger.state_dict()}, folder / separation.TAGGER)
    network = ResUNet30(input_channels=1, output_channels=1, condition_size=527)
    state = {f'ss_model.{name}': value for name, value in network.state_dict().items()}
    torch.save({'state_dict': state}, folder / separation.CHECKPOINT)


needs_uss = pytest.mark.skipif(
    not installed,
    reason="the package uss is not installed (pip install '.[uss]'); .ci/run has it apart",
)


@needs_uss
def test_real_networks_separate_what_the_tagger_detects(tmp_path, home):
    write_weights(tmp_path)
    separate = separation.load(str(tmp_path))
    rate = separation.SAMPLE_RATE
    sound = np.random.default_rng(0).normal(0, 0.1, 3 * rate).astype(np.float32)
    stems = separate(sound)
    assert stems.shape == (3 * rate, 22) and stems.dtype == np.float32
    assert np.abs(stems[:, VIOLIN]).max() > 1e-6
    assert not np.delete(stems, VIOLIN, axis=1).any()

    counted = sources.frequencies(
        stems, np.arange(22), rate,
        segments=2, segment_seconds=2.0, window_seconds=1.0, threshold_db=-90.0,
    )  # fmt: skip
    np.testing.assert_allclose(counted[:, VIOLIN], [1, 0.5])
    assert counted[:, CELLO].sum() == 0

    assert min(separate.seconds_per_piece()) > 0

    # The same tagger alone, which needs no weights of the separation.
    (tmp_path / separation.CHECKPOINT).unlink()
    separation.check(str(tmp_path), only_classify=True)
    with pytest.raises(StageError, match='has no file ss_model'):
        separation.check(str(tmp_path))
    tags = separation.load_classifier(str(tmp_path))(sound)
    assert tags.step_seconds * len(tags.timeline) == pytest.approx(3.0)
    heard = sources_tags.frequencies(
        tags, segments=2, segment_seconds=2.0, window_seconds=1.0, threshold=0.2
    )
    np.testing.assert_allclose(heard[:, VIOLIN], [1, 0.5])
    assert not np.delete(heard, VIOLIN, axis=1).any()


@needs_uss
def test_too_little_memory_is_one_sentence(tmp_path, home):
    """Limit the memory of a process that separates; its allocation really fails."""
    write_weights(tmp_path)
    code = (
        'import resource, sys, numpy as np\n'
        'from pathlib import Path\n'
        'from amuse_jax.pretrained import separation\n'
        'separate = separation.load(sys.argv[1])\n'
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        'resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, used + 2**24))\n'
        'separate(np.zeros(64000, np.float32))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path)],
        cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT)), capture_output=True, text=True,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('amuse_jax.errors.StageError: annotate: universal source separation: ')
    assert 'memory ran out' in last and '--config.sources.stems=uss-tags' in last

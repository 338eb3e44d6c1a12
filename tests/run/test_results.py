"""Results that come and go with the settings: nothing that training made is lost."""

import dataclasses
import hashlib
import json
import os
import shutil

import pytest
from ml_collections import ConfigDict

from amuse_jax import config as defaults
from amuse_jax.errors import StageError
from amuse_jax.run import made_from, results, set_aside, status
from amuse_jax.run.definition import Stage
from amuse_jax.run.results import Results
from amuse_jax.run.stage import check_input, run_stage


class Work:
    """Three stages that write what they were made with, and remember that they ran.

    `cut` is removed when its settings change; `learn` and `score` are kept.
    """

    def __init__(self, workdir):
        self.workdir, self.ran, self.killed = workdir, [], ()
        options = dict(is_kept=True)
        self.stages = {
            'cut': Stage('cut', self._runner('cut'), settings=('data.segments',)),
            'learn': Stage(
                'learn', self._runner('learn'), ('cut',),
                ('train', 'checkpoints.text', 'rois.weights'), **options,
            ),
            'score': Stage('score', self._runner('score'), ('learn',), ('evaluate',), **options),
        }  # fmt: skip

    def _runner(self, name):
        def run(config, folder, inputs):
            self.ran.append(name)
            with open(folder / 'artefact', 'a') as file:
                file.write(f'{config.data.segments} {config.train.epochs}\n')
            if name in self.killed:
                raise KeyboardInterrupt
            return {}

        return run

    def run(self, config, redo=()):
        self.ran.clear()
        for stage in self.stages.values():
            run_stage(stage, config, self.workdir, self.stages, redo)
        return list(self.ran)

    def folders(self):
        return sorted(path.name for path in self.workdir.iterdir())


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path / 'run')


def with_changes(**changes):
    config = defaults.default_config()
    config.update_from_flattened_dict({name.replace('__', '.'): v for name, v in changes.items()})
    return config


@pytest.fixture
def next_version(monkeypatch):
    """A function that gives this version other defaults of `train`; it returns them as a config."""

    def change(**train):
        def next_defaults():
            config = defaults.default_config()
            config.train.update(train)
            return config

        monkeypatch.setattr(made_from, 'default_config', next_defaults)
        made_from._defaults.cache_clear()
        return next_defaults()

    yield change
    made_from._defaults.cache_clear()


def day_of(path):
    return set_aside._SUFFIX.search(path.name)[1]


def test_a_trained_model_is_set_aside_and_returns_with_its_settings(work):
    assert work.run(with_changes()) == ['cut', 'learn', 'score']
    assert work.run(with_changes(train__epochs=3)) == ['learn', 'score']
    (aside,) = set_aside.folders(work.workdir / 'learn')
    assert aside.name == f'learn.{day_of(aside)}-1'
    assert (aside / 'artefact').read_text() == '10 20\n'
    assert work.run(with_changes(train__epochs=4)) == ['learn', 'score']
    assert [path.name for path in set_aside.folders(work.workdir / 'learn')] == [
        f'learn.{day_of(aside)}-2', f'learn.{day_of(aside)}-1'
    ]  # fmt: skip

    assert work.run(with_changes()) == []  # both the model and its scores are found again
    assert (work.workdir / 'learn/artefact').read_text() == '10 20\n'
    assert work.run(with_changes(train__epochs=3)) == []
    assert (work.workdir / 'learn/artefact').read_text() == '10 3\n'
    assert len(work.folders()) == 1 + 3 + 3


def test_a_model_returns_after_a_cheap_stage_before_it_was_made_again(work):
    work.run(with_changes())
    assert work.run(with_changes(data__segments=5)) == ['cut', 'learn', 'score']
    assert work.run(with_changes()) == ['cut']
    assert (work.workdir / 'learn/artefact').read_text() == '10 20\n'
    assert len(set_aside.folders(work.workdir / 'learn')) == 1
    assert set_aside.folders(work.workdir / 'cut') == []


def test_half_a_training_is_kept_and_goes_on(work):
    work.killed = ('learn',)
    for epochs in (20, 3):
        with pytest.raises(KeyboardInterrupt):
            work.run(with_changes(train__epochs=epochs))
    work.killed = ()
    assert work.run(with_changes()) == ['learn', 'score']
    assert (work.workdir / 'learn/artefact').read_text() == '10 20\n10 20\n'
    assert work.run(with_changes(train__epochs=3)) == ['learn', 'score']
    assert (work.workdir / 'learn/artefact').read_text() == '10 3\n10 3\n'


def test_a_stage_that_left_nothing_leaves_no_folder_behind(work):
    work.run(with_changes())
    shutil.rmtree(work.workdir / 'learn')
    (work.workdir / 'learn').mkdir()
    (work.workdir / 'learn/started').write_text('an old hash')
    assert work.run(with_changes(train__epochs=3)) == ['learn', 'score']
    assert set_aside.folders(work.workdir / 'learn') == []


@pytest.mark.parametrize('is_renamed', [True, False])
def test_a_kill_between_the_renames_loses_nothing(work, is_renamed):
    """The earlier result is aside, and the one that returns is not in its place yet (or is)."""
    work.run(with_changes())
    work.run(with_changes(train__epochs=3))
    (first,) = set_aside.folders(work.workdir / 'learn')
    (work.workdir / 'learn').rename(first.with_name(first.name.removesuffix('1') + '2'))
    if is_renamed:
        first.rename(work.workdir / 'learn')
    assert work.run(with_changes()) == []
    assert (work.workdir / 'learn/artefact').read_text() == '10 20\n'


def test_the_next_version_may_have_more_settings_and_other_defaults(work, next_version):
    work.run(with_changes(train__batch_size=4))
    config = next_version(clip=1.0, learning_rate=5e-5)
    config.train.batch_size = 4
    assert work.run(config) == []
    config.train.learning_rate = 1e-4  # what was the default
    assert work.run(config) == []
    config.train.clip = 2.0
    assert work.run(config) == ['learn', 'score']


def test_an_unfinished_training_does_not_go_on_with_another_default(work, next_version):
    work.killed = ('learn',)
    with pytest.raises(KeyboardInterrupt):
        work.run(with_changes())
    work.killed = ()
    config = next_version(epochs=30, clip=1.0)
    assert work.run(config) == ['learn', 'score']
    assert (work.workdir / 'learn/artefact').read_text() == '10 30\n'
    config.train.epochs = 20
    assert work.run(config) == ['learn', 'score']
    assert (work.workdir / 'learn/artefact').read_text() == '10 20\n10 20\n'


def test_a_file_counts_by_its_content(work, tmp_path):
    weights = tmp_path / 'a/weights.pt'
    weights.parent.mkdir()
    weights.write_bytes(b'weights')
    work.run(with_changes(rois__weights=str(weights)))
    other = tmp_path / 'b/renamed.pt'
    other.parent.mkdir()
    other.write_bytes(b'weights')
    os.utime(other, (1, 1))
    assert work.run(with_changes(rois__weights=str(other))) == []
    (tmp_path / 'link').symlink_to(tmp_path / 'a')
    assert work.run(with_changes(rois__weights=f'{tmp_path}/link/weights.pt')) == []
    weights.unlink()
    assert work.run(with_changes(rois__weights=str(weights))) == []  # it was read already
    other.write_bytes(b'WEIGHTS')
    assert work.run(with_changes(rois__weights=str(other))) == ['learn', 'score']
    other.write_bytes(b'weights')
    assert work.run(with_changes(rois__weights=str(other))) == []


def test_a_folder_counts_by_the_content_of_its_files(work, tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    (first / 'arrays').mkdir(parents=True)
    (first / 'arrays/0').write_bytes(b'0')
    shutil.copytree(first, second)
    work.run(with_changes(checkpoints__text=str(first)))
    assert work.run(with_changes(checkpoints__text=str(second))) == []
    (second / 'arrays/0').write_bytes(b'1')
    assert work.run(with_changes(checkpoints__text=str(second))) == ['learn', 'score']


def test_redo_makes_a_stage_and_those_after_it_again_and_keeps_the_first(work):
    work.run(with_changes())
    assert work.run(with_changes(), redo=['learn']) == ['learn', 'score']
    assert len(set_aside.folders(work.workdir / 'learn')) == 1
    assert work.run(with_changes()) == []
    assert work.run(with_changes(), redo=['score']) == ['score']


def test_an_unfinished_redo_goes_on(work):
    work.run(with_changes())
    work.killed = ('learn',)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            work.run(with_changes(), redo=['learn'])
    work.killed = ()
    assert work.run(with_changes(), redo=['learn']) == ['learn', 'score']
    assert (work.workdir / 'learn/artefact').read_text() == '10 20\n' * 3


def test_a_command_that_needs_a_result_names_the_setting_that_differs(work):
    config = with_changes()
    work.run(config)

    def ask(config):
        return check_input(work.stages['learn'], 'ask', Results(config, work.workdir, work.stages))

    assert ask(config) == work.workdir / 'learn'
    with pytest.raises(
        StageError, match=r'ask needs .* \(train\.epochs is 3 and was 20\)'
    ) as error:
        ask(with_changes(train__epochs=3))
    assert 'the present one is then kept beside it' in str(error.value)
    with pytest.raises(StageError, match=r'data\.segments is 5 and was 10'):
        ask(with_changes(data__segments=5))
    work.run(with_changes(train__epochs=3))
    (aside,) = set_aside.folders(work.workdir / 'learn')
    assert ask(config) == aside  # it can be asked where it is
    assert work.folders().count('learn') == 1


def test_a_stage_says_that_its_input_is_set_aside(work):
    work.run(with_changes())
    work.run(with_changes(train__epochs=3))
    config = with_changes(evaluate__examples=1)
    with pytest.raises(StageError, match=r'set aside as .*/learn\..*; add learn to --stages'):
        run_stage(work.stages['score'], config, work.workdir, work.stages)


def test_status_lists_states_sizes_and_what_is_set_aside(work):
    config = with_changes()
    work.run(config)
    work.run(with_changes(train__epochs=3))
    (work.workdir / 'learn/weights').write_bytes(bytes(12_000_000))
    text = status.table(with_changes(train__epochs=7), work.workdir, work.stages)
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith('  ')}
    assert lines['cut'].endswith('complete')
    assert '0.01 GB  will be set aside: train.epochs is 7 and was 3' in lines['learn']
    (aside,) = set_aside.folders(work.workdir / 'learn')
    assert lines[aside.name].endswith('train.epochs is 7 and was 20')
    other = work.workdir / 'learn-without-rois.2026-11-27-1'
    other.mkdir()
    (other / 'manifest.json').write_text('{}')
    text = status.table(config, work.workdir, work.stages)
    assert f'{other.name} ' in text and 'of another config' in text
    assert 'learn' in text and f'will be {aside.name} again' in text
    assert status.table(config, work.workdir.with_name('none'), work.stages).count('missing') == 3


def test_a_setting_that_several_stages_have_is_named_once(work):
    work.stages['score'] = dataclasses.replace(work.stages['score'], settings=('evaluate', 'train'))
    work.run(with_changes())
    found = Results(with_changes(train__epochs=7), work.workdir, work.stages)
    assert found.reasons('score', found.folder('score')) == ['train.epochs is 7 and was 20']


NEW = 'batch_per_device', 'warmup_epochs', 'clip_norm'  # settings of train since format 1


def make_format_1(work):
    """Rewrite the manifests as version 1 wrote them."""
    hashes = {}
    for name, stage in work.stages.items():
        path = work.workdir / name / 'manifest.json'
        manifest = json.loads(path.read_text())
        for setting in NEW:
            manifest['settings'].get('train', {}).pop(setting, None)
        content = {
            'format': 1,
            'stage': name,
            'settings': manifest['settings'],
            'needs': {need: hashes[need] for need in stage.needs},
        }
        text = json.dumps(content, sort_keys=True).encode()
        hashes[name] = hashlib.sha256(text).hexdigest()[:16]
        old = {key: content[key] for key in ('format', 'stage', 'settings')}
        path.write_text(json.dumps(old | {'fingerprint': hashes[name], 'summary': {}}))
        (work.workdir / name / 'started').write_text(hashes[name])


def test_results_of_format_1_are_used_set_aside_and_found_again(work):
    work.run(with_changes())
    make_format_1(work)
    assert work.run(with_changes()) == []
    results.adopt(with_changes(), work.workdir, work.stages)
    assert json.loads((work.workdir / 'learn/manifest.json').read_text())['format'] == 2
    assert work.run(with_changes()) == []
    assert work.run(with_changes(data__segments=5)) == ['cut', 'learn', 'score']
    assert work.run(with_changes()) == ['cut']


def test_half_a_training_of_format_1_goes_on(work, next_version):
    work.run(with_changes(train__epochs=3))
    make_format_1(work)
    (work.workdir / 'learn/manifest.json').unlink()  # it was killed
    config = next_version(clip=1.0)
    config.train.epochs = 3
    assert work.run(config) == ['learn', 'score']
    assert (work.workdir / 'learn/artefact').read_text() == '10 3\n10 3\n'
    assert set_aside.folders(work.workdir / 'learn') == []


def test_half_a_training_of_format_1_with_other_settings_is_set_aside(work):
    work.run(with_changes(train__epochs=3))
    make_format_1(work)
    (work.workdir / 'learn/manifest.json').unlink()
    assert work.run(with_changes(train__epochs=4)) == ['learn', 'score']
    (aside,) = set_aside.folders(work.workdir / 'learn')
    assert (aside / 'artefact').read_text() == '10 3\n'
    assert work.run(with_changes(train__epochs=3)) == ['learn', 'score']
    assert (work.workdir / 'learn/artefact').read_text() == '10 3\n10 3\n'


def test_a_result_of_format_1_from_another_input_is_not_used(work):
    work.run(with_changes())
    make_format_1(work)
    shutil.rmtree(work.workdir / 'cut')
    assert work.run(with_changes(data__segments=5)) == ['cut', 'learn', 'score']
    assert len(set_aside.folders(work.workdir / 'learn')) == 1


def test_another_mount_point_in_format_1(work, tmp_path):
    weights = tmp_path / 'mnt/weights.pt'
    weights.parent.mkdir()
    weights.write_bytes(b'weights')
    work.run(with_changes(rois__weights=str(weights)))
    make_format_1(work)
    weights.parent.rename(tmp_path / 'other')
    assert work.run(with_changes(rois__weights=f'{tmp_path}/other/weights.pt')) == []


def test_stages_without_defaults_count_every_setting(tmp_path):
    stage = Stage('only', lambda *_: {}, settings=('x',))
    run_stage(stage, ConfigDict({'x': 1}), tmp_path, {})
    found = Results(ConfigDict({'x': 2}), tmp_path, {'only': stage})
    assert found.reasons('only', tmp_path / 'only') == ['x is 2 and was 1']

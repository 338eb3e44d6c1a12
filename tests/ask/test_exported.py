"""An exported model answers as the one that was exported, and broken folders are refused."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import amuse_jax
from amuse_jax.ask import arrays, exported, loading
from amuse_jax.ask.model import Model
from amuse_jax.ask.video import Video
from amuse_jax.data.prepared import Prepared
from amuse_jax.errors import NewerFormat, StageError
from amuse_jax.training.train import answering, leakage

QUESTION = 'Is there a voiceover?'


@pytest.fixture(scope='module')
def trained(make_trained):
    """A model without towers, because they take long to compile."""
    return make_trained(without='encoder')


@pytest.fixture(scope='module')
def folder(trained, tmp_path_factory):
    """The exported model of `trained`."""
    folder = tmp_path_factory.mktemp('exported') / 'model'
    exported.write(trained, folder)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of `folder` that a test may change."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def change_settings(folder, **changed):
    settings = json.loads((folder / 'config.json').read_text())['settings']
    settings |= {name.replace('__', '.'): value for name, value in changed.items()}
    change(folder / 'config.json', settings=settings)


def equal(one, other):
    one, other = arrays.of_model(one), arrays.of_model(other)
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        np.testing.assert_array_equal(array, other[name], name)


@pytest.mark.filterwarnings('ignore::amuse_jax.ask.video.UnfamiliarQuestion')
def test_an_exported_model_gives_the_same_answers(folder, trained, draw_video):
    record, regions = draw_video(trained.config)
    random = np.random.default_rng(1)
    lead, width = (1, trained.config.data.segments), 8 * trained.config.model.visual.width
    features = {name: random.normal(size=(*lead, width)) for name in answering.FEATURES}
    features |= {'rhythm': random.uniform(size=lead), 'sources': random.uniform(size=(*lead, 22))}
    features = {name: array.astype(np.float16) for name, array in features.items()}
    again = amuse_jax.load(str(folder))
    equal(again.trained, trained)
    assert again.trained.detector.read_bytes() == b'weights'
    expected, found = (
        Video(model, Path('a.mp4'), record, regions, features, {}).ask(QUESTION)
        for model in (Model(trained), again)
    )
    # Arrays in other places of the memory may be added up in another order.
    assert found.probabilities == pytest.approx(expected.probabilities, rel=1e-5)
    assert found.importance == pytest.approx(expected.importance, rel=1e-5)
    assert found.notes == expected.notes
    assert [region.box for region in found.regions] == [region.box for region in expected.regions]


def test_the_folder_is_complete_and_names_nothing_of_the_machine(folder, trained):
    names = {path.name for path in folder.iterdir()}
    assert names == set(exported.FILES) - set(exported.program.FILES)
    assert not [*folder.parent.glob('.tmp-*')]
    for name in ('config.json', 'README.md'):
        text = (folder / name).read_text()
        assert str(trained.seen.parent) not in text and str(folder.parent) not in text
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1  # whoever may read one may read all


def test_an_exported_model_can_be_exported_again(folder, tmp_path):
    exported.write(exported.read(folder), tmp_path / 'again')
    for path in folder.iterdir():
        assert (tmp_path / 'again' / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_model_with_towers_is_the_same(make_trained, tmp_path):
    trained = make_trained(epochs=3)
    exported.write(trained, tmp_path / 'a')
    found = exported.read(tmp_path / 'a')
    equal(found, trained)
    assert found.amuse.streams[0] == 'visual'
    assert found.config.model.visual == trained.config.model.visual
    assert found.config.train.epochs == 3


def test_a_model_with_the_papers_head_is_the_same(make_trained, tmp_path):
    trained = make_trained(without='encoder', head='paper')
    exported.write(trained, tmp_path / 'a')
    found = exported.read(tmp_path / 'a')
    equal(found, trained)
    assert found.config.model.head == 'paper' and not hasattr(found.amuse, 'answer_streams')


def test_leaked_questions_are_found_elsewhere(folder, tiny):
    _, inputs = tiny
    prepared = Prepared(inputs['prepare'])
    assert leakage.find_leaked(folder, prepared.questions('train')).all()
    assert not leakage.find_leaked(folder, prepared.questions('test')).any()


def test_a_used_folder_is_refused_and_stays(trained, tmp_path):
    (tmp_path / 'config.json').write_text('mine')
    for write in (functools.partial(exported.write, trained), Model(trained).save_pretrained):
        with pytest.raises(StageError, match='exists already; name another folder'):
            write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['config.json']
    assert (tmp_path / 'config.json').read_text() == 'mine'


def test_a_failed_export_leaves_nothing(trained, tmp_path):
    lost = dataclasses.replace(trained, seen=tmp_path / 'none.npy')
    with pytest.raises(StageError, match='there is no file .*none.npy'):
        exported.write(lost, tmp_path / 'model')
    assert not [*tmp_path.iterdir()]


def test_save_pretrained_and_from_pretrained_are_those_of_the_hubs_mixin(trained, tmp_path, folder):
    assert Model(trained).save_pretrained(str(tmp_path / 'saved')) is None
    for path in folder.iterdir():
        assert (tmp_path / 'saved' / path.name).read_bytes() == path.read_bytes(), path.name
    equal(Model.from_pretrained(str(tmp_path / 'saved')).trained, trained)


def test_no_array_may_be_missing_or_of_another_shape_or_dtype(copy):
    path = copy / 'model.safetensors'
    whole = load_file(path)
    name = next(name for name, array in whole.items() if array.ndim == 2)
    for changed, expected in (
        (whole | {'amuse.extra': np.zeros(3, 'f')}, 'amuse.extra: not in the model'),
        ({each: x for each, x in whole.items() if each != name}, f'{name}: not in the file'),
        (whole | {name: whole[name].T.copy()}, rf'{name}: \(.*\) in the file, \(.*\) expected'),
        (whole | {name: whole[name].astype('f2')}, f'{name}: float16 in the file, float32'),
    ):
        save_file(changed, path)
        with pytest.raises(StageError, match=f'(1 differences)(.|\n)*{expected}'):
            exported.read(copy)


@pytest.mark.parametrize('content', [b'', b'\x00' * 100, b'\xff' * 8 + b'{}', None])
def test_broken_weights_are_refused(copy, content):
    path = copy / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-4] if content is None else content)
    with pytest.raises(StageError, match='is not a complete safetensors file') as raised:
        exported.read(copy)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('name', ['model.safetensors', 'tokenizer.json', 'detector.safetensors'])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(StageError, match=f'there is no file .*{name}'):
        exported.read(copy)


@pytest.mark.parametrize('text', ['', '[1]', '{"format": 1}', '[' * 100_000, '{"settings": 3}'])
def test_a_broken_description_is_refused(copy, text):
    (copy / 'config.json').write_text(text)
    with pytest.raises(StageError, match='config.json (is not|does not)'):
        loading.read(str(copy))


@pytest.mark.parametrize(
    'changed',
    [
        {'classes': 'player'}, {'classes': [1]}, {'words': None}, {'forms': [['a']]},
        {'format': '1'}, {'settings': [1]},
    ],
)  # fmt: skip
def test_a_description_with_other_types_is_refused(copy, changed):
    change(copy / 'config.json', **changed)
    with pytest.raises(StageError, match='does not describe a model'):
        exported.read(copy)


def test_a_newer_format_is_told(copy):
    change(copy / 'config.json', format=99)
    with pytest.raises(NewerFormat, match='config.json has format 99'):
        exported.read(copy)


def test_other_answers_are_refused(copy):
    change(copy / 'config.json', answers=['yes', 'no'])
    with pytest.raises(StageError, match='the model has 2 answers, and they are not the 42'):
        exported.read(copy)


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'model__text__width': 64}, 'does not match the settings beside it'),
        ({'model__text__heads': 7}, 'no model has these settings'),
        (
            {'data__segments': 10**9},
            'data.segments is 1000000000; expected more than 0',
        ),
        ({'data__root': '/etc'}, 'data.root are unknown'),
        ({'model__text__tokenizer': 'user/name'}, 'model.text.tokenizer are unknown'),
    ],
)
def test_other_sizes_are_refused(copy, changed, message):
    change_settings(copy, **changed)
    with pytest.raises(StageError, match=message):
        exported.read(copy)

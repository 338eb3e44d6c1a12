"""A model answers about a video as the evaluation does."""

import functools
import itertools
import json
import re
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from flax import nnx

import amuse_jax
from amuse_jax.ask import card, trained
from amuse_jax.ask.familiar import Familiar
from amuse_jax.ask.model import Model
from amuse_jax.ask.video import UnfamiliarQuestion, Video
from amuse_jax.data import pipeline, records
from amuse_jax.data.prepared import Prepared
from amuse_jax.errors import QuestionError, StageError, VideoError
from amuse_jax.music_avqa import vocabulary
from amuse_jax.regions.stage import class_names
from amuse_jax.run import plan
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import answering, leakage, predict
from tests.data.small_set import row, write_rows
from tests.evaluation import conftest as evaluated
from tests.media import writing
from tests.training import conftest as small

media, tiny, finished = writing.media, small.tiny, evaluated.finished  # the fixtures


@pytest.fixture(scope='module')
def model(finished):
    """The model of `finished`, which has no towers, with a random universal encoder."""
    config, inputs = finished
    return Model(
        trained.Trained(
            config=config,
            amuse=predict.load_best(config, inputs),
            encoder=pretrain.build(config, nnx.Rngs(0)),
            class_names=tuple(class_names(inputs['rois'])),
            detector=inputs['rois'] / 'detector.pt',
            familiar=Familiar.from_questions(Prepared(inputs['prepare']).questions()),
            seen=inputs['train'] / leakage.FILE,
            card=functools.partial(card.from_folders, inputs),
        )
    )


@pytest.fixture(scope='module')
def watched(model, finished):
    """A function that returns the video of a record, with the stored features and regions."""
    config, inputs = finished
    reader = Prepared(inputs['prepare']).reader()
    features = {
        path.stem: np.load(path) for path in (inputs['pretrain'] / 'features').glob('*.npy')
    }
    features.pop('segment_mask')
    regions = {name: np.load(inputs['rois'] / f'{name}.npy') for name in answering.REGIONS}

    def watch(record):
        return Video(
            model,
            Path(f'{record}.mp4'),
            reader[record] | {'shape': (9, 16)},
            {name: array[record] for name, array in regions.items()},
            {name: array[record][None] for name, array in features.items()},
            {},
        )

    return watch


def test_segments_are_masked_as_in_training_and_evaluation(tmp_path, model):
    record = {
        'video_id': 'a', 'sound_id': 'a', 'seconds': 5.0, 'questions': [],
        'frames': np.zeros((4, 8, 8, 3), np.uint8), 'log_mel': np.zeros((4, 5, 2), np.float16),
        'frame_mask': np.array([False, True, True, False]),
        'audio_mask': np.array([True, True, False, False]),
    }  # fmt: skip
    writer = records.ShardWriter(tmp_path / f'00000-of-00001{records.SUFFIX}')
    writer.write(record)
    writer.close({'videos': [{'video_id': 'a', 'sound_id': 'a', 'seconds': 5.0}]})
    (batch,) = pipeline.whole_videos(records.RecordReader(tmp_path), {}, [0], 1)
    labels = {'sources': np.zeros((1, 4, 22), 'f'), 'rhythm': np.zeros((1, 4), 'f')}
    asked = Video(model, tmp_path, record, {}, labels, {})._inputs
    np.testing.assert_array_equal(asked['segment_mask'], batch['segment_mask'])
    assert asked['segment_mask'].tolist() == [[True, True, True, False]]


@pytest.mark.filterwarnings('ignore::amuse_jax.ask.video.UnfamiliarQuestion')
def test_the_model_answers_as_in_the_evaluation(finished, watched):
    config, inputs = finished
    for expected in itertools.islice(predict.predict(config, inputs, 'test', None), 3):
        answer = watched(expected.record).ask(expected.question.text)
        found = [answer.probabilities[name] for name in vocabulary.ANSWERS]
        np.testing.assert_allclose(found, expected.probabilities, atol=1e-4)
        assert answer.text == vocabulary.ANSWERS[expected.probabilities.argmax()]
        assert answer.importance == pytest.approx(expected.importance, abs=1e-4)
        assert sum(each.weight for each in answer.timeline) == pytest.approx(1, abs=1e-4)
        weights = np.sort(expected.region_weights, axis=None)[::-1]
        shown = [region.weight for region in answer.regions]
        np.testing.assert_allclose(shown, weights[: len(shown)], atol=1e-4)
        assert answer.to_json() == json.loads(json.dumps(answer.to_json()))


@pytest.mark.filterwarnings('ignore::amuse_jax.ask.video.UnfamiliarQuestion')
def test_several_questions_are_answered_as_one_by_one(watched):
    video = watched(0)
    questions = [f'How many sounding {name} in the video?' for name in vocabulary.INSTRUMENTS[:6]]
    together = video.ask(questions)
    assert [answer.question for answer in together] == questions
    for question, answer in zip(questions, together):
        alone = video.ask(question)
        assert answer.text == alone.text
        assert answer.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    assert video.ask([]) == []


def test_a_question_of_another_kind_is_answered_with_a_warning(watched, model):
    video = watched(0)
    with pytest.warns(UnfamiliarQuestion, match='bananas') as found:
        answer = video.ask('How many bananas play the tuba?')
    assert found[0].filename == __file__
    assert any('bananas' in note for note in answer.notes)
    assert 'note: no question of the training has the word' in str(answer)


@pytest.mark.parametrize('question', ['', '  ', '??', '\t\n', '小提琴'])
def test_a_blank_question_is_refused(question, watched):
    with pytest.raises(QuestionError, match='has no word that the model knows'):
        watched(0).ask(question)
    with pytest.raises(QuestionError):
        watched(0).ask(['Is there a voiceover?', question])


def test_a_video_that_is_cut_is_told(model, watched):
    video = watched(0)
    used = model.trained.config.data.segments * model.trained.config.data.segment_seconds
    assert video.notes == ()
    record = video._record | {'seconds': used + 7.0}
    labels = {'sources': np.zeros((1, 4, 22), 'f'), 'rhythm': np.zeros((1, 4), 'f')}
    (note,) = Video(model, Path('a.mp4'), record, {}, labels, {}).notes
    assert note == f'only the first {used:g} s of the video count; its sound lasts {used + 7:.0f} s'


def test_regions_of_other_shapes_are_refused(model, tmp_path):
    with pytest.raises(StageError, match=r"the shapes \{'boxes': \(1, 2\)\}; expected"):
        model.watch(tmp_path / 'a.mp4', regions={'boxes': np.zeros((1, 2))})


class Broken(writing.Sound):
    def samples(self):
        samples = super().samples()
        samples[:, 1000] = np.nan
        return samples


def test_a_sound_that_is_not_finite_is_refused(media, model, tmp_path):
    sound = Broken(codec='pcm_f32le', format='flt')
    path = media.write(tmp_path / 'a.mov', media.Picture(), sound)
    regions = _no_regions(model)
    with pytest.raises(VideoError, match='a.mov cannot be used: its sound holds') as raised:
        model.watch(path, regions=regions)
    assert raised.value.path == path and raised.value.reason.startswith('its sound holds samples')
    with pytest.raises(VideoError, match='cannot be used'):
        model.watch(tmp_path / 'none.mp4', regions=regions)


def _no_regions(model):
    config = model.trained.config
    lead = (config.data.segments, config.rois.regions)
    return {
        'boxes': np.zeros((*lead, 4)), 'classes': np.full(lead, -1), 'scores': np.zeros(lead),
        'features': np.zeros((*lead, config.rois.feature_size)),
    }  # fmt: skip


FILMS = {  # seconds of the picture, its start, seconds of the sound
    'whole': (6, 0, 6), 'early': (1, 0, 6), 'deaf': (6, 0, 1.5), 'late': (2, 4, 1.5),
    'still': (0.2, 0, 6), 'long': (9, 0, 9), 'short': (3, 0, 3),
}  # fmt: skip


def write_set(root, media):
    """Write a data set of FILMS in three copies, one for each split, with the stems of all."""
    for folder in ('videos', 'truth'):
        (root / folder).mkdir(parents=True)
    names = [f'{name}{copy}' for copy in range(3) for name in FILMS]
    for index, name in enumerate(names):
        picture, start, sound = FILMS[name[:-1]]
        media.write(
            root / f'videos/{name}.mp4',
            media.Picture(seconds=picture, start=start, fps=5 + index % 3),
            media.Sound(seconds=sound),
        )
        stem = np.zeros((round(sound * 8000), 1))
        soundfile.write(root / f'truth/{name}.flac', stem, 8000)
        performers = [{'heard_instrument': 'violin', 'channel': 0, 'intervals': [[0, sound / 2]]}]
        boxes = {'seconds': [0.1], 'boxes': [[[0.1, 0.1, 0.5, 0.5, 'violin']]]}
        truth = {'seconds': sound, 'tempo': [[0, 100]], 'performers': performers, 'boxes': boxes}
        (root / f'truth/{name}.json').write_text(json.dumps(truth))
    copies = len(names) // 3
    write_rows(
        root,
        *[row(names[copy * copies + i]) for i in range(copies) for copy in range(3)],
        *[
            row(names[copy * copies + i], 'no', question_content='Is there a voiceover?',
                templ_values='[]')
            for i in range(copies)
            for copy in range(3)
        ],
    )  # fmt: skip


@pytest.fixture
def quick_compilation():
    """Turn off most optimisations: the models are tiny, so compilation takes most of the time."""
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


@pytest.mark.slow
def test_ask_equals_the_rows_of_the_predictions(quick_compilation, media, tmp_path, capsys):
    """Run all stages on videos whose pictures and sounds differ in length, and ask about each."""
    from amuse_jax.regions import detector, labelled_frames

    root, workdir = tmp_path / 'set', tmp_path / 'run'
    write_set(root, media)
    detector.save(detector.build(list(labelled_frames.CLASSES), 0.125, 0.33), tmp_path / 'mine.pt')
    config = small.tiny_config()
    config.data.update(root=str(root), segment_seconds=2.0, workers=1)
    config.audio.mels = 16
    config.sources.stems = 'truth'
    config.rois.update(
        weights=str(tmp_path / 'mine.pt'), image_size=96, feature_size=224, min_score=0.0
    )
    config.pretrain.update(epochs=1, predictor_epochs=1)
    config.train.update(head_epochs=1, epochs=1)
    config.evaluate.examples = 2
    # Compiling takes most of the time: the models are shallow.
    config.model.visual.depths = config.model.audio.depths = (1, 1, 1, 1)
    config.model.text.depth = config.model.adapters.rounds = config.model.answer.layers = 1
    plan.run(config, workdir, [])
    assert class_names(workdir / 'rois') == list(labelled_frames.CLASSES)
    lines = [json.loads(line) for line in (workdir / 'evaluate/predictions.jsonl').open()]
    assert {line['video_id'][:-1] for line in lines} == set(FILMS)
    asked = {line['video_id']: line for line in lines}  # one question about each video
    with amuse_jax.load(str(workdir)) as model, warnings.catch_warnings():
        warnings.simplefilter('ignore', UnfamiliarQuestion)
        for line in asked.values():
            video = model.watch(root / f'videos/{line["video_id"]}.mp4')
            answer = video.ask(line['question'])
            found = [answer.probabilities[name] for name in vocabulary.ANSWERS]
            np.testing.assert_allclose(found, line['probabilities'], atol=1e-4)
            assert answer.importance == pytest.approx(line['importance'], abs=1e-4)
            told = ' '.join(answer.notes)
            assert ('only the first 6 s' in told) == line['video_id'].startswith('long')
    capsys.readouterr()
    plan.ask(config, workdir, str(video.path), line['question'])
    printed = capsys.readouterr().out
    shares = [float(share) for share in re.findall(r'^ +([\d.]+)%  ', printed, re.M)]
    best = sorted(line['probabilities'], reverse=True)[:5]
    expected = [100 * p for p in (*best, *line['importance'].values())]
    assert shares == pytest.approx(expected, abs=0.06)
    assert Path(re.search('^page: (.*)$', printed, re.M)[1]).is_file()

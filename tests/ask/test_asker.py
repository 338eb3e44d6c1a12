"""`ask` gives the answer that the evaluation gives for the same video and question."""

import itertools
import json
import re

import jax
import numpy as np
import pytest
import soundfile

from amuse_jax.ask import asker
from amuse_jax.config import default_config
from amuse_jax.data import pipeline, records
from amuse_jax.data.prepared import Prepared
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError
from amuse_jax.regions.stage import class_names
from amuse_jax.run import plan
from amuse_jax.training.train import answering, predict
from tests.data.small_set import row, write_rows
from tests.evaluation import conftest as evaluated
from tests.media import writing
from tests.training import conftest as small

media, tiny, finished = writing.media, small.tiny, evaluated.finished  # the fixtures


def test_segments_are_masked_as_in_training_and_evaluation(tmp_path):
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
    tokenizer = QuestionTokenizer(small.tiny_config().model.text)
    asked = asker.make_batch(record, {}, {}, tokenizer, 'Where is the tuba?')
    np.testing.assert_array_equal(asked['segment_mask'], batch['segment_mask'])
    assert asked['segment_mask'].tolist() == [[True, True, True, False]]


def test_the_model_answers_as_in_the_evaluation(finished):
    config, inputs = finished
    reader, tokenizer = Prepared(inputs['prepare']).reader(), QuestionTokenizer(config.model.text)
    features = {
        path.stem: np.load(path) for path in (inputs['pretrain'] / 'features').glob('*.npy')
    }
    features.pop('segment_mask')
    regions = {name: np.load(inputs['rois'] / f'{name}.npy') for name in answering.REGIONS}
    for expected in itertools.islice(predict.predict(config, inputs, 'test', None), 3):
        of_video = [
            {name: array[expected.record] for name, array in regions.items()},
            {name: array[expected.record][None] for name, array in features.items()},
        ]
        batch = asker.make_batch(
            reader[expected.record], *of_video, tokenizer, expected.question.text
        )
        probabilities, importance = asker._answer(config, inputs, batch)
        np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-4)
        assert importance == pytest.approx(expected.importance, abs=1e-4)


@pytest.mark.parametrize('question', ['', '  ', '??', '\t\n', '小提琴'])
def test_a_blank_question_is_refused(question, tmp_path):
    with pytest.raises(StageError, match='which has no word that the model knows'):
        asker.run(small.tiny_config(), {}, tmp_path / 'a.mp4', question, tmp_path)


def test_a_video_that_is_cut_is_told():
    config = default_config()
    assert asker._describe_cut(config, 60.4) == []
    (note,) = asker._describe_cut(config, 187.0)
    assert note == 'only the first 60 s of the video count; its sound lasts 187 s'


class Broken(writing.Sound):
    def samples(self):
        samples = super().samples()
        samples[:, 1000] = np.nan
        return samples


def test_a_sound_that_is_not_finite_is_refused(media, tmp_path):
    sound = Broken(codec='pcm_f32le', format='flt')
    path = media.write(tmp_path / 'a.mov', media.Picture(), sound)
    with pytest.raises(
        StageError, match='a.mov cannot be used: its sound holds samples that are not'
    ):
        asker.run(small.tiny_config(), {}, path, 'Is there a voiceover?', tmp_path)


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
    for line in asked.values():
        capsys.readouterr()
        path = root / f'videos/{line["video_id"]}.mp4'
        plan.ask(config, workdir, str(path), line['question'])
        told = capsys.readouterr().out
        found = [float(share) for share in re.findall(r'^ +([\d.]+)%  ', told, re.M)]
        best = sorted(line['probabilities'], reverse=True)[:5]
        expected = [100 * p for p in (*best, *line['importance'].values())]
        assert found == pytest.approx(expected, abs=0.06), line['video_id']
        assert ('only the first 6 s' in told) == line['video_id'].startswith('long')

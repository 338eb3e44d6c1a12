"""Tests of the annotation files (schema, splits, balance, determinism) and of the rendering."""

import json
from collections import Counter, defaultdict

import av
import pytest

from amuse_jax.config import default_config
from amuse_jax.errors import StageError
from amuse_jax.music_avqa.vocabulary import ANSWERS, INSTRUMENTS, TEMPLATES, TYPES
from amuse_jax.synthetic import stage
from amuse_jax.synthetic.questions import balance
from amuse_jax.synthetic.score.compose import compose, video_id

KEYS = ['video_id', 'question_id', 'type', 'question_content', 'templ_values', 'question_deleted']


def settings_of(**changes):
    settings = default_config().synthetic
    settings.update(videos=300, **changes) if 'videos' not in changes else settings.update(changes)
    return settings


@pytest.fixture(scope='module')
def rows():
    return stage.annotations(settings_of(seed=11))


def test_rows_have_the_schema_of_music_avqa(rows):
    everything = [row for split in rows.values() for row in split]
    for row in everything:
        assert list(row) == [*KEYS, 'anser']
        assert row['type'] == json.dumps(list(TYPES[TEMPLATES[row['question_content']]]))
        values = json.loads(row['templ_values'])
        assert row['templ_values'] == json.dumps(values)
        assert len(values) == row['question_content'].count('<')
        assert row['anser'] in ANSWERS and row['question_deleted'] == 0
    numbers = [row['question_id'] for row in everything]
    assert len(set(numbers)) == len(numbers) and numbers == sorted(numbers)


def test_no_video_is_in_two_splits_and_each_has_its_share(rows):
    videos = {split: {row['video_id'] for row in found} for split, found in rows.items()}
    assert {split: len(found) for split, found in videos.items()} == {
        'train': 210, 'val': 30, 'test': 60,
    }  # fmt: skip
    assert len(set.union(*videos.values())) == 300
    for split, found in rows.items():
        assert 11 <= len(found) / len(videos[split]) <= 12.01
        drawn = {
            performer.instrument
            for number in stage.split_ranges(settings_of())[split]
            for performer in compose(11, number).performers
        }
        assert drawn == set(INSTRUMENTS), split


def test_no_template_can_be_answered_from_the_text_alone(rows):
    for split, found in rows.items():
        answers = defaultdict(Counter)
        for row in found:
            answers[row['question_content']][row['anser']] += 1
        assert set(answers) == set(TEMPLATES), split
        for template, counts in answers.items():
            share = max(counts.values()) / counts.total()
            if template in balance.BINARY:
                assert len(counts) == 2 and share <= 0.6, (split, template, counts)
            elif counts.total() >= 10:
                assert share <= 0.5, (split, template, counts)


def test_templates_keep_the_shares_of_the_real_data_set(rows):
    found = rows['train']
    types = Counter(TEMPLATES[row['question_content']] for row in found)
    total = sum(balance.WEIGHTS.values())
    for number in range(len(TYPES)):
        real = sum(w for t, w in balance.WEIGHTS.items() if TEMPLATES[t] == number) / total
        assert types[number] / len(found) == pytest.approx(real, abs=0.02)


def test_the_seed_determines_the_questions(rows):
    assert stage.annotations(settings_of(seed=11)) == rows
    few = settings_of(videos=20, seed=12)
    assert stage.annotations(few) != stage.annotations(settings_of(videos=20, seed=11))
    named = [
        {row['video_id'] for part in found.values() for row in part}
        for found in (stage.annotations(few), rows)
    ]
    assert named[0].isdisjoint(named[1])  # video ids of two seeds must not collide


@pytest.mark.parametrize('videos', [1, 2, 3, 4])
def test_train_is_not_empty_with_very_few_videos(videos):
    ranges = stage.split_ranges(settings_of(videos=videos))
    assert sum(len(numbers) for numbers in ranges.values()) == videos
    assert len(ranges['train']) >= 1
    assert videos < 3 or all(len(numbers) for numbers in ranges.values())


@pytest.mark.parametrize(
    'changes, word',
    [
        ({'videos': 0}, 'videos'),
        ({'fps': 0}, 'fps'),
        ({'width': 321}, 'even'),
        ({'seed': -1}, 'seed'),
        ({'val_share': 0.6, 'test_share': 0.4}, 'sum less than 1'),
        ({'questions_per_video': 0}, 'questions_per_video'),
    ],
)
def test_invalid_settings_raise(tmp_path, changes, word):
    with pytest.raises(StageError, match=word):
        stage.render(settings_of(**changes), tmp_path, workers=1)
    assert not list(tmp_path.iterdir())


def test_a_rendered_data_set_is_complete_and_only_missing_videos_are_rendered_again(tmp_path):
    settings = settings_of(videos=2, width=128, height=72, fps=4)
    summary = stage.render(settings, tmp_path, workers=1)
    assert summary['rendered'] == summary['videos'] == 2
    for number in range(2):
        name = video_id(settings.seed, number)
        score = compose(settings.seed, number)
        truth = json.loads((tmp_path / 'truth' / f'{name}.json').read_text())
        assert [p['instrument'] for p in truth['performers']] == [
            p.instrument for p in score.performers
        ]
        channels = [p['channel'] for p in truth['performers'] if p['channel'] is not None]
        assert channels == list(range(sum(p.sounds for p in score.performers)))
        with av.open(str(tmp_path / 'videos' / f'{name}.mp4')) as video:
            assert video.streams.video and video.streams.audio
            assert video.duration / av.time_base == pytest.approx(60, abs=0.5)
        with av.open(str(tmp_path / 'truth' / f'{name}.flac')) as stems:
            voices = len(channels) + (score.voiceover is not None)
            assert stems.streams.audio[0].channels == voices
            assert stems.streams.audio[0].rate == 32000
    for split, count in summary['questions'].items():
        assert len(json.loads((tmp_path / f'avqa-{split}.json').read_text())) == count
    assert not list(tmp_path.rglob('.tmp-*'))

    untouched = tmp_path / 'videos' / 'syn00000000.mp4'
    before = untouched.stat().st_mtime_ns
    (tmp_path / 'truth' / 'syn00000001.json').unlink()
    (tmp_path / 'videos' / '.tmp-1-syn00000001.mp4').write_text('interrupted')
    assert stage.render(settings, tmp_path, workers=1)['rendered'] == 1
    assert untouched.stat().st_mtime_ns == before
    assert not list(tmp_path.rglob('.tmp-*'))
    with pytest.raises(StageError, match='choose another folder'):
        stage.render(settings_of(videos=2, seed=5), tmp_path, workers=1)

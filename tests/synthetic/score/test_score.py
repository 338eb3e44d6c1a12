"""Tests that drawn scores are playable and balanced."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.synthetic.score import music
from amuse_jax.synthetic.score.compose import BLOCK_SIZE, SEGMENT_SECONDS, compose

any_score = st.builds(compose, st.integers(0, 2**20), st.integers(0, 5000))


@settings(max_examples=60, deadline=None)
@given(any_score)
def test_notes_fill_the_intervals_and_only_them(score):
    assert 1 <= len([p for p in score.performers if p.visible]) <= 6
    assert any(p.sounds for p in score.performers)
    for performer in score.performers:
        assert performer.instrument in INSTRUMENTS and performer.heard_instrument in INSTRUMENTS
        assert bool(performer.notes) == performer.sounds
        edges = [second for interval in performer.intervals for second in interval]
        assert edges == sorted(set(edges)) and all(0 <= edge <= 60 for edge in edges)
        starts = [note.start for note in performer.notes]
        assert starts == sorted(starts)
        for begin, end in performer.intervals:
            inside = [note for note in performer.notes if begin <= note.start < end]
            assert inside[0].start == begin
            assert max(note.start + note.seconds for note in inside) <= end
            onsets = sorted({note.start for note in inside}) + [end]
            assert np.diff(onsets).max() < 4.5  # no gap is long enough to count as a pause
        for note in performer.notes:
            assert any(begin <= note.start < end for begin, end in performer.intervals)
            assert note.seconds > 0 and 1 <= note.velocity <= 127
            if performer.heard_instrument not in ('drum', 'congas'):
                span = music.RANGES[performer.heard_instrument]
                assert span.low - 3 <= note.pitch <= span.high + 12


@settings(max_examples=60, deadline=None)
@given(any_score)
def test_positions_and_tempo_are_valid(score):
    visible = [p for p in score.performers if p.visible]
    assert [p.x for p in visible] == sorted(p.x for p in visible)
    assert list(score.performers[: len(visible)]) == visible
    if len(visible) > 1:
        assert [p.place for p in visible] == (
            ['left'] + ['middle'] * (len(visible) - 2) + ['right']
        )
    assert score.tempo[0][0] == 0
    for (_, before), (start, after) in zip(score.tempo, score.tempo[1:]):
        assert start % SEGMENT_SECONDS == 0
        assert max(before / after, after / before) >= 1.3
    assert all(60 <= bpm <= 180 for _, bpm in score.tempo)
    if score.voiceover:
        start, end = score.voiceover
        assert 0 <= start < end <= score.seconds


def test_same_seed_and_index_give_the_same_score():
    assert compose(3, 45) == compose(3, 45)
    assert compose(3, 45) != compose(4, 45)
    assert compose(3, 45) != compose(3, 46)


def test_blocks_of_videos_are_balanced():
    scores = [compose(7, index) for index in range(3 * BLOCK_SIZE)]
    drawn = Counter(name for s in scores for name in {p.instrument for p in s.performers})
    assert set(drawn) == set(INSTRUMENTS)
    assert max(drawn.values()) <= 2 * min(drawn.values())
    half = 3 * BLOCK_SIZE / 2
    assert sum(s.setting == 'outdoor' for s in scores) == half
    assert sum(s.voiceover is not None for s in scores) == half
    assert sum(len(s.tempo) > 1 for s in scores) == half
    assert {len([p for p in s.performers if p.visible]) for s in scores} == {1, 2, 3, 4, 5, 6}
    assert any(p.visible and not p.sounds for s in scores for p in s.performers)
    assert any(not p.visible for s in scores for p in s.performers)
    assert any(p.heard_instrument != p.instrument for s in scores for p in s.performers)


def test_beats_follow_the_tempo_and_restart_when_it_changes():
    beats = music.beat_times(((0.0, 120.0), (6.0, 90.0)), 12.0)
    np.testing.assert_allclose(beats[:13], np.arange(13) * 0.5)
    np.testing.assert_allclose(np.diff(beats[12:]), 60 / 90)
    assert beats[-1] == 12


def test_notes_stay_in_the_key():
    harmony = music.Harmony(tonic=2, scale=music.SCALES['major'], progression=(0, 3, 4, 0))
    assert harmony.chord(0) == (2, 6, 9)  # D major
    assert harmony.chord(1) == (7, 11, 2)  # G major
    beats = music.beat_times(((0.0, 100.0),), 60.0)
    for role in ('melody', 'bass', 'chords'):
        notes = music.write_part(
            'piano', role, 2, ((0.0, 60.0),), beats, harmony, np.random.default_rng(0)
        )
        assert {note.pitch % 12 for note in notes} <= {2, 4, 6, 7, 9, 11, 1}

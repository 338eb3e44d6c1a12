"""Tests of the stems of performances."""

import dataclasses

import numpy as np
import pytest
import soundfile

from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.synthetic.score.music import RANGES
from amuse_jax.synthetic.score.score import Note, Performer, Score
from amuse_jax.synthetic.sound import sound

RATE = sound.SAMPLE_RATE


def make_performer(instrument='violin', gain_db=-26.0, intervals=((1.0, 4.0),), **changes):
    middle = (RANGES[instrument].low + RANGES[instrument].high) // 2
    notes = tuple(
        Note(start + 0.5 * i, 0.45, middle, 100)
        for start, end in intervals
        for i in range(round((end - start) / 0.5))
    )
    performer = Performer(instrument, instrument, True, 0.5, 'middle', gain_db, intervals, notes, 7)
    return dataclasses.replace(performer, **changes)


def make_score(*performers, seconds=5.0, voiceover=None):
    return Score('syn00000001', 3, seconds, 'indoor', voiceover, ((0.0, 120.0),), performers)


def level_db(part):
    return 10 * np.log10(np.mean(np.square(part, dtype=np.float64)) + 1e-12)


@pytest.mark.parametrize('instrument', INSTRUMENTS)
def test_an_instrument_sounds_only_in_its_intervals(instrument):
    intervals = ((0.5, 1.5), (3.0, 4.0))
    stem = sound.play(make_score(make_performer(instrument, intervals=intervals)))[0]
    inside = np.concatenate([stem[round(a * RATE) : round(b * RATE)] for a, b in intervals])
    assert level_db(inside) == pytest.approx(-26.0, abs=0.01)
    assert not stem[: round(0.5 * RATE)].any()
    assert level_db(stem[round(1.9 * RATE) : round(3.0 * RATE)]) < -60


def test_levels_follow_the_gains_for_every_instrument():
    gains = {'flute': -30.0, 'drum': -24.0, 'piano': -18.0}
    performers = [make_performer(name, gain) for name, gain in gains.items()]
    stems = sound.play(make_score(*performers))
    levels = [level_db(stem[RATE : 4 * RATE]) for stem in stems]
    np.testing.assert_allclose(np.diff(levels), 6.0, atol=0.01)


def test_a_mix_that_is_too_loud_is_scaled_as_a_whole():
    stems = sound.play(make_score(make_performer('drum', -3.0), make_performer('piano', -9.0)))
    assert np.abs(stems.sum(0)).max() <= sound.PEAK + 1e-5
    levels = [level_db(stem[RATE : 4 * RATE]) for stem in stems]
    assert levels[0] - levels[1] == pytest.approx(6.0, abs=0.01)


def _spectrum(instrument, pitches):
    """Return mean and deviation over time of the log spectrum in 32 bands, without level."""
    notes = [Note(0.5 * i, 0.45, pitch, 100) for i, pitch in enumerate(pitches)]
    tone = sound.play_notes(instrument, notes, 0.5 * len(pitches))
    frames = tone[: len(tone) // 1024 * 1024].reshape(-1, 1024) * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.unique(np.geomspace(2, 512, 33).astype(int))
    bands = np.log10(np.add.reduceat(power, edges, axis=1) + 1e-6 * power.sum(1).max())
    return np.concatenate([bands.mean(0) - bands.mean(), bands.std(0)])


def test_no_two_instruments_share_a_timbre():
    spectra = {}
    for name in INSTRUMENTS:
        low, high = RANGES[name].low, RANGES[name].high
        keys = (62, 63, 64) if name == 'congas' else (36, 38, 42) if name == 'drum' else None
        versions = []
        for shift in (0, 1):  # the same tune, a semitone higher
            pitches = np.clip(64 + shift + np.array([0, 4, 7, 4, 0, 7]), low, high)
            versions.append(_spectrum(name, [keys[i % 3] for i in range(6)] if keys else pitches))
        spectra[name] = versions
    for name, (first, transposed) in spectra.items():
        others = {o: np.linalg.norm(first - pair[1]) for o, pair in spectra.items() if o != name}
        nearest = min(others, key=others.get)
        assert np.linalg.norm(first - transposed) < others[nearest], f'{name} sounds like {nearest}'


def test_notes_sound_at_their_pitch():
    for pitch in (60, 61, 62, 69):
        tone = sound.play_notes('flute', [Note(0.0, 1.9, pitch + 12, 100)], 2.0)
        power = np.abs(np.fft.rfft(tone * np.hanning(len(tone))))
        strongest = np.argmax(power) * RATE / len(tone)
        harmonic = strongest / (440 * 2 ** ((pitch + 12 - 69) / 12))
        assert harmonic == pytest.approx(round(harmonic), rel=0.02)


def test_a_note_longer_than_the_sampled_one_is_extended():
    tone = sound.play_notes('clarinet', [Note(0.0, 7.0, 65, 100)], 8.0)
    levels = [level_db(tone[i * RATE // 4 : (i + 1) * RATE // 4]) for i in range(1, 28)]
    assert max(levels) - min(levels) < 6


def test_the_voice_over_has_its_own_channel_and_interval():
    stems = sound.play(make_score(make_performer(), voiceover=(2.0, 4.5)))
    assert stems.shape == (2, 5 * RATE)
    speech = stems[1]
    assert level_db(speech[2 * RATE : round(4.5 * RATE)]) == pytest.approx(sound.VOICE_DB, abs=0.1)
    assert not speech[: 2 * RATE].any() and not speech[round(4.5 * RATE) :].any()


def test_silent_performers_have_no_channel():
    silent = make_performer('piano', intervals=(), notes=())
    assert sound.play(make_score(silent, make_performer())).shape == (1, 5 * RATE)
    nothing = sound.play(make_score(silent))
    assert nothing.shape == (1, 5 * RATE) and not nothing.any()


def test_stems_survive_writing_and_reading(tmp_path):
    stems = sound.play(make_score(make_performer(), make_performer('drum'), voiceover=(0.0, 2.0)))
    sound.write_stems(stems, tmp_path / 'stems.flac')
    again, rate = soundfile.read(tmp_path / 'stems.flac', dtype='float32')
    assert rate == RATE
    np.testing.assert_allclose(again.T, stems, atol=1e-4)


def test_the_same_score_gives_the_same_stems():
    score = make_score(make_performer('erhu'), voiceover=(0.5, 3.0))
    np.testing.assert_array_equal(sound.play(score), sound.play(score))

"""The sound of a performance: a stem per performer, played with the General MIDI bank, and a voice.

Notes come from a sampler: every fourth pitch of an instrument is rendered once per process from the
sound bank, and shifted by at most two semitones. Rendering whole performances with the bank
would take a hundred times as long.
"""

import functools
import io
from collections.abc import Sequence
from pathlib import Path

import midirenderer
import mido
import numpy as np
import pretty_midi
import soundfile

from amuse_jax.synthetic.score.score import Note, Performer, Score
from amuse_jax.synthetic.sound import timbres, voice
from amuse_jax.synthetic.sound.timbres import TIMBRES, Timbre

SAMPLE_RATE = 32000  # Hz, of everything that is returned or written
BANK_RATE = 48000  # Hz, of midirenderer
VOICE_DB = -20.0  # RMS level of the voice-over, relative to full scale
PEAK = 0.95  # of the sum, relative to full scale; what would exceed it is scaled down as a whole
MAX_CHANNELS = 8  # of a FLAC file

_ZONE_STEP = 4  # semitones between rendered pitches
_TICKS_PER_SECOND = 960  # mido's default: 480 ticks per beat of half a second
_CROSSFADE = 0.08  # seconds, where a held note is prolonged


def play(score: Score) -> np.ndarray:
    """Plays a score.

    Args:
      score: what happens.

    Returns:
      (channels, samples) float32 at SAMPLE_RATE: the performers that sound, in the score's order,
      then the voice-over if there is one. Their sum is the sound track and stays within PEAK; their
      levels differ as the score's gains do. A score without any sound gives one silent channel.
    """
    samples = round(score.seconds * SAMPLE_RATE)
    sounding = [performer for performer in score.performers if performer.sounds]
    stems = np.zeros((max(1, len(sounding) + (score.voiceover is not None)), samples), np.float32)
    for stem, performer in zip(stems, sounding):
        _play_performer(performer, stem)
    if score.voiceover is not None:
        start, end = (round(second * SAMPLE_RATE) for second in score.voiceover)
        speech = voice.speak((end - start) / SAMPLE_RATE, SAMPLE_RATE, score.seed)
        end = min(end, samples)
        stems[-1, start:end] = speech[: end - start] * _factor(speech, VOICE_DB)
    total = stems.sum(0)
    peak = max(float(total.max()), -float(total.min()))
    if peak > PEAK:
        stems *= PEAK / peak
    return stems


def write_stems(stems: np.ndarray, path: Path) -> None:
    """Writes (channels, samples) as 16-bit FLAC.

    Raises:
      ValueError: more channels than a FLAC file holds.
    """
    if len(stems) > MAX_CHANNELS:
        raise ValueError(
            f'{path} would need {len(stems)} channels, a FLAC file holds {MAX_CHANNELS}; '
            'let fewer performers sound'
        )
    whole = np.empty((stems.shape[1], len(stems)), np.int16)
    for channel, stem in enumerate(stems):
        np.rint(stem * 32767, out=whole[:, channel], casting='unsafe')
    with soundfile.SoundFile(
        path, 'w', SAMPLE_RATE, len(stems), 'PCM_16', format='FLAC', compression_level=0.0
    ) as file:
        file.write(whole)


def play_notes(instrument: str, notes: Sequence[Note], seconds: float) -> np.ndarray:
    """The notes on one instrument, at the bank's own level: (samples,) float32 at SAMPLE_RATE."""
    stem = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    timbre = TIMBRES[instrument]
    tones: dict[int, np.ndarray] = {}
    for note in notes:
        start = round(note.start * SAMPLE_RATE)
        length = round((note.seconds + timbre.release) * SAMPLE_RATE)
        tone = tones.get(note.pitch)
        if tone is None or (len(tone) < length and timbre.sustained):
            tone = tones[note.pitch] = _tone(instrument, note.pitch, length)
        tone = tone[: min(length, len(stem) - start)] * np.float32((note.velocity / 100) ** 1.5)
        fade = _fade(round(timbre.release * SAMPLE_RATE))[-len(tone) :]
        if len(tone) == length:
            tone[length - len(fade) :] *= fade
        stem[start : start + len(tone)] += tone
    return stem


def _play_performer(performer: Performer, stem: np.ndarray) -> None:
    """Adds the performer's sound to the silent `stem`, at the level the score asks for."""
    notes = list(performer.notes)
    drone = TIMBRES[performer.heard].drone
    if drone is not None:
        level = 70 if notes else 0
        notes += [Note(start, end - start, drone, level) for start, end in performer.intervals]
    stem += play_notes(performer.heard, notes, len(stem) / SAMPLE_RATE)
    spans = [stem[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] for a, b in performer.intervals]
    stem *= _factor(np.concatenate(spans), performer.gain_db)


def _factor(sound: np.ndarray, level_db: float) -> np.float32:
    """What brings the sound's RMS to the level."""
    rms = float(np.sqrt(np.dot(sound, sound) / max(len(sound), 1)))
    return np.float32(10 ** (level_db / 20) / rms if rms > 0 else 0.0)


def _tone(instrument: str, pitch: int, length: int) -> np.ndarray:
    """A note of `length` samples if the instrument holds it so long: float32 at SAMPLE_RATE."""
    timbre = TIMBRES[instrument]
    zones = _zones(instrument)
    key = pitch if timbre.percussion else min(zones, key=lambda zone: (abs(zone - pitch), zone))
    zone = zones[key]
    step = BANK_RATE / SAMPLE_RATE * 2 ** ((pitch - key) / 12)
    whole_zone = len(zone) - (timbres.END * BANK_RATE if timbre.sustained else 0)
    at = np.arange(min(length, int((whole_zone - 2) / step))) * step
    whole = at.astype(np.int32)
    part = (at - whole).astype(np.float32)
    tone = zone[whole]
    tone += (zone[whole + 1] - tone) * part
    return _prolong(tone, length) if timbre.sustained else tone


def _prolong(tone: np.ndarray, length: int) -> np.ndarray:
    """Repeats the second half of a held tone until it is long enough."""
    if len(tone) >= length:
        return tone
    overlap = round(_CROSSFADE * SAMPLE_RATE)
    body = tone[len(tone) // 2 :]
    fade = np.linspace(0, 1, overlap, dtype=np.float32)
    pieces, have = [tone[:-overlap]], len(tone) - overlap
    joint = tone[-overlap:] * (1 - fade) + body[:overlap] * fade
    while have < length:
        pieces += [joint, body[overlap:-overlap]]
        have += len(body) - overlap
    return np.concatenate(pieces)[:length]


@functools.cache
def _fade(samples: int) -> np.ndarray:
    """A release: falls to nothing in `samples`."""
    return (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, samples, dtype=np.float32))) ** 2


@functools.cache
def _bank() -> bytes:
    return (Path(pretty_midi.__file__).parent / 'TimGM6mb.sf2').read_bytes()


@functools.cache
def _zones(instrument: str) -> dict[int, np.ndarray]:
    """The instrument's sampled notes: pitch -> float32 at BANK_RATE."""
    timbre = TIMBRES[instrument]
    if timbre.percussion:
        pitches = list(timbre.percussion)
    else:
        pitches = list(range(timbre.low + 1, timbre.high + 2, _ZONE_STEP))
        pitches += [timbre.drone] if timbre.drone is not None else []
    rendered, _ = soundfile.read(
        io.BytesIO(midirenderer.render_wave_from(_bank(), _scale(timbre, pitches))),
        dtype='float32',
    )
    mono = rendered.mean(1)
    length = round(timbre.hold * BANK_RATE)
    period = round((timbre.hold + timbres.GAP) * BANK_RATE)
    return {
        pitch: timbre.shape(mono[index * period : index * period + length], BANK_RATE)
        for index, pitch in enumerate(pitches)
    }


def _scale(timbre: Timbre, pitches: Sequence[int]) -> bytes:
    """A MIDI file with the pitches one after the other, each held, dry, bent as the timbre asks."""
    channel = 9 if timbre.percussion else 0
    events = [(0, mido.Message('program_change', channel=channel, program=timbre.program))]
    for control in (91, 93):  # no reverberation, no chorus
        events.append((0, mido.Message('control_change', channel=channel, control=control)))
    for index, pitch in enumerate(pitches):
        start = index * (timbre.hold + timbres.GAP)
        for moment, bend in timbre.bends():
            tick = round((start + moment) * _TICKS_PER_SECOND)
            events.append((tick, mido.Message('pitchwheel', channel=channel, pitch=bend)))
        for moment, length in timbre.strokes():
            on = round((start + moment) * _TICKS_PER_SECOND)
            off = round((start + moment + length) * _TICKS_PER_SECOND)
            for above in timbre.voices:
                note = {'channel': channel, 'note': pitch + above}
                events.append((on, mido.Message('note_on', velocity=100, **note)))
                events.append((off, mido.Message('note_off', **note)))
    events.sort(key=lambda event: event[0])
    track, now = mido.MidiTrack(), 0
    for tick, message in events:
        track.append(message.copy(time=tick - now))
        now = tick
    file = io.BytesIO()
    mido.MidiFile(tracks=[track]).save(file=file)
    return file.getvalue()

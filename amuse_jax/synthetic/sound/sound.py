"""Stems of a performance: one per performer, from a General MIDI sound bank, and a voice-over.

The notes come from a sampler: every fourth pitch of an instrument is rendered from the sound bank
once per process, and the other pitches are shifted from it by at most two semitones. Rendering
whole performances with the bank would take a hundred times as long.
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

SAMPLE_RATE = 32000  # Hz; all returned and written audio has this rate
BANK_RATE = 48000  # Hz; output rate of midirenderer
VOICE_DB = -20.0  # RMS level of the voice-over, relative to full scale
PEAK = 0.95  # limit of the mix, relative to full scale; a louder mix is scaled down as a whole
MAX_CHANNELS = 8  # limit of the FLAC format

_ZONE_STEP = 4  # semitones between rendered pitches
_TICKS_PER_SECOND = 960  # mido's default: 480 ticks per beat of half a second
_CROSSFADE = 0.08  # seconds; used when a sustained note is extended


def play(score: Score) -> np.ndarray:
    """Render a score to stems.

    Args:
      score: the performance to render.

    Returns:
      (channels, samples) float32 at SAMPLE_RATE: the sounding performers in the order of the score,
      then the voice-over, if any. Their sum is the sound track, which stays within PEAK. The level
      differences between performers equal those of the score's gains. A score without any sound
      gives one silent channel.
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
        stems[-1, start:end] = speech[: end - start] * _gain(speech, VOICE_DB)
    total = stems.sum(0)
    peak = max(float(total.max()), -float(total.min()))
    if peak > PEAK:
        stems *= PEAK / peak
    return stems


def write_stems(stems: np.ndarray, path: Path) -> None:
    """Write stems as a 16-bit FLAC file.

    Args:
      stems: (channels, samples) float32 in [-1, 1], at SAMPLE_RATE.
      path: the file to write.

    Raises:
      ValueError: there are more channels than a FLAC file can hold.
    """
    if len(stems) > MAX_CHANNELS:
        raise ValueError(
            f'{path} needs {len(stems)} channels, but a FLAC file holds at most {MAX_CHANNELS}; '
            'use fewer sounding performers'
        )
    pcm = np.empty((stems.shape[1], len(stems)), np.int16)
    for channel, stem in enumerate(stems):
        np.rint(stem * 32767, out=pcm[:, channel], casting='unsafe')
    with soundfile.SoundFile(
        path, 'w', SAMPLE_RATE, len(stems), 'PCM_16', format='FLAC', compression_level=0.0
    ) as file:
        file.write(pcm)


def play_notes(instrument: str, notes: Sequence[Note], seconds: float) -> np.ndarray:
    """Render notes of one instrument at the level of the sound bank.

    Args:
      instrument: a name in vocabulary.INSTRUMENTS.
      notes: the notes to render; they must start before `seconds`.
      seconds: length of the result.

    Returns:
      (samples,) float32 at SAMPLE_RATE.
    """
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
    """Render one performer into the silent `stem`, at the level given in the score."""
    notes = list(performer.notes)
    drone = TIMBRES[performer.heard_instrument].drone
    if drone is not None:
        level = 70 if notes else 0
        notes += [Note(start, end - start, drone, level) for start, end in performer.intervals]
    stem += play_notes(performer.heard_instrument, notes, len(stem) / SAMPLE_RATE)
    spans = [stem[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] for a, b in performer.intervals]
    stem *= _gain(np.concatenate(spans), performer.gain_db)


def _gain(sound: np.ndarray, level_db: float) -> np.float32:
    """Return the factor that brings the RMS of the sound to `level_db`."""
    rms = float(np.sqrt(np.dot(sound, sound) / max(len(sound), 1)))
    return np.float32(10 ** (level_db / 20) / rms if rms > 0 else 0.0)


def _tone(instrument: str, pitch: int, length: int) -> np.ndarray:
    """Render one note: float32 at SAMPLE_RATE, shorter than `length` if it decays earlier."""
    timbre = TIMBRES[instrument]
    zones = _zones(instrument)
    key = pitch if timbre.percussion else min(zones, key=lambda zone: (abs(zone - pitch), zone))
    zone = zones[key]
    step = BANK_RATE / SAMPLE_RATE * 2 ** ((pitch - key) / 12)
    usable = len(zone) - (timbres.FADE_OUT * BANK_RATE if timbre.sustained else 0)
    position = np.arange(min(length, int((usable - 2) / step))) * step
    index = position.astype(np.int32)
    fraction = (position - index).astype(np.float32)
    tone = zone[index]
    tone += (zone[index + 1] - tone) * fraction
    return _extend(tone, length) if timbre.sustained else tone


def _extend(tone: np.ndarray, length: int) -> np.ndarray:
    """Repeat the second half of a sustained tone until it has `length` samples."""
    if len(tone) >= length:
        return tone
    overlap = round(_CROSSFADE * SAMPLE_RATE)
    body = tone[len(tone) // 2 :]
    fade = np.linspace(0, 1, overlap, dtype=np.float32)
    pieces, total = [tone[:-overlap]], len(tone) - overlap
    joint = tone[-overlap:] * (1 - fade) + body[:overlap] * fade
    while total < length:
        pieces += [joint, body[overlap:-overlap]]
        total += len(body) - overlap
    return np.concatenate(pieces)[:length]


@functools.cache
def _fade(samples: int) -> np.ndarray:
    """Return a release curve that falls from 1 to 0 in `samples`."""
    return (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, samples, dtype=np.float32))) ** 2


@functools.cache
def _bank() -> bytes:
    return (Path(pretty_midi.__file__).parent / 'TimGM6mb.sf2').read_bytes()


@functools.cache
def _zones(instrument: str) -> dict[int, np.ndarray]:
    """Render the sampled notes of an instrument: pitch -> float32 at BANK_RATE."""
    timbre = TIMBRES[instrument]
    if timbre.percussion:
        pitches = list(timbre.percussion)
    else:
        pitches = list(range(timbre.low + 1, timbre.high + 2, _ZONE_STEP))
        pitches += [timbre.drone] if timbre.drone is not None else []
    rendered, _ = soundfile.read(
        io.BytesIO(midirenderer.render_wave_from(_bank(), _midi_file(timbre, pitches))),
        dtype='float32',
    )
    mono = rendered.mean(1)
    length = round(timbre.hold * BANK_RATE)
    period = round((timbre.hold + timbres.GAP) * BANK_RATE)
    return {
        pitch: timbre.shape(mono[index * period : index * period + length], BANK_RATE)
        for index, pitch in enumerate(pitches)
    }


def _midi_file(timbre: Timbre, pitches: Sequence[int]) -> bytes:
    """Return a MIDI file that plays the pitches in sequence, with the timbre's articulation."""
    channel = 9 if timbre.percussion else 0
    events = [(0, mido.Message('program_change', channel=channel, program=timbre.program))]
    for control in (91, 93):  # turn reverb and chorus off
        events.append((0, mido.Message('control_change', channel=channel, control=control)))
    for index, pitch in enumerate(pitches):
        start = index * (timbre.hold + timbres.GAP)
        for moment, bend in timbre.bends():
            tick = round((start + moment) * _TICKS_PER_SECOND)
            events.append((tick, mido.Message('pitchwheel', channel=channel, pitch=bend)))
        for moment, length in timbre.strokes():
            on = round((start + moment) * _TICKS_PER_SECOND)
            off = round((start + moment + length) * _TICKS_PER_SECOND)
            for interval in timbre.voices:
                note = {'channel': channel, 'note': pitch + interval}
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

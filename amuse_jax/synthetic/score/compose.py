"""Random scores, balanced over consecutive videos.

Questions need casts, instruments, settings, voice-overs and tempo changes in equal shares. These
are drawn in blocks of `BLOCK_SIZE` videos, so that every range of videos is balanced; everything
else is drawn independently. A performance depends only on the seed and on its index.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.synthetic.score import music
from amuse_jax.synthetic.score.score import PLACES, SECONDS, Performer, Score

# Entries, exits and tempo changes are at least one segment of the paper apart.
SEGMENT_SECONDS = 6.0
# Seconds between staggered entries; moving an entry to a beat shifts it by at most half a beat.
ENTRY_GAP = 7.2
SHORTEST = 9.0  # minimum seconds that a performer sounds
LEVEL_STEP_DB = 5.0  # between performers with different loudness
MIX_DB = -16.0  # RMS level of all performers together, relative to full scale
SLOWEST_BPM, FASTEST_BPM = 60.0, 180.0
TEMPO_JUMPS = (1.32, 1.7)  # faster over slower tempo at a change; both stay in the range above
NOTES_PER_SECOND = (0.75, 7.0)  # limits of a part's notes per second, over all its tempos


@dataclass(frozen=True)
class Cast:
    """The instruments on stage and the relation of sound and picture.

    Attributes:
      groups: number of visible performers of each instrument.
      extra: 'mismatch' if another instrument is heard than is seen; 'hidden' if one more
        instrument is heard but not seen; 'silent' if, in addition, no visible performer sounds;
        '' if the sound matches the picture.
    """

    groups: tuple[int, ...]
    extra: str = ''

    @property
    def instruments(self) -> int:
        """Number of different instruments, including one for `extra`."""
        return len(self.groups) + (self.extra != '')


# The casts of one block: (cast, number of videos).
CASTS = (
    (Cast((1,)), 6),
    (Cast((1,), 'mismatch'), 4),
    (Cast((1,), 'hidden'), 1),
    (Cast((1,), 'silent'), 1),
    (Cast((1, 1)), 8),
    (Cast((1, 1), 'hidden'), 1),
    (Cast((2,)), 4),
    (Cast((1, 1, 1)), 5),
    (Cast((2, 1)), 2),
    (Cast((3,)), 2),
    (Cast((1, 1, 1, 1)), 1),
    (Cast((2, 2)), 1),
    (Cast((4,)), 1),
    (Cast((1, 1, 1, 1, 1)), 1),
    (Cast((3, 2)), 1),
    (Cast((1, 1, 1, 1, 1, 1)), 1),
)
BLOCK_SIZE = sum(count for _, count in CASTS)


@dataclass(frozen=True)
class _Plan:
    """The balanced properties of one video."""

    cast: Cast
    instruments: tuple[str, ...]  # one per group, then one for `extra`
    outdoor: bool
    voiceover: bool
    tempo_changes: bool


@functools.lru_cache(maxsize=4)
def _plan_block(seed: int, number: int) -> tuple[_Plan, ...]:
    """Plan the videos of one block; instruments are assigned in shuffled rounds."""
    rng = np.random.default_rng((seed, number, 0))
    casts = [cast for cast, count in CASTS for _ in range(count)]
    casts = [casts[i] for i in rng.permutation(BLOCK_SIZE)]
    halves = [[bool(i % 2) for i in rng.permutation(BLOCK_SIZE)] for _ in range(3)]
    waiting: list[str] = []
    plans = []
    for cast, *properties in zip(casts, *halves):
        chosen: list[str] = []
        while len(chosen) < cast.instruments:
            fresh = [name for name in waiting if name not in chosen]
            if not fresh:
                fresh = [INSTRUMENTS[i] for i in rng.permutation(len(INSTRUMENTS))]
                waiting += fresh
                continue
            chosen.append(fresh[0])
            waiting.remove(fresh[0])
        plans.append(_Plan(cast, tuple(chosen), *properties))
    return tuple(plans)


def video_id(seed: int, index: int) -> str:
    """Return the video id; it is unique across seeds for data sets of up to 100,000 videos."""
    return f'syn{100_000 * seed + index:08d}'


def compose(seed: int, index: int) -> Score:
    """Draw performance number `index` of the data set with this seed."""
    plan = _plan_block(seed, index // BLOCK_SIZE)[index % BLOCK_SIZE]
    rng = np.random.default_rng((seed, index, 1))
    tempo = _draw_tempo(plan.tempo_changes, rng)
    beats = music.beat_times(tempo, SECONDS)
    voiceover = None
    if plan.voiceover:
        length = float(rng.uniform(8, 20))
        start = float(rng.uniform(0, SECONDS - length))
        voiceover = (round(start, 3), round(start + length, 3))
    return Score(
        video_id=video_id(seed, index),
        seed=int(rng.integers(2**31)),
        seconds=SECONDS,
        setting='outdoor' if plan.outdoor else 'indoor',
        voiceover=voiceover,
        tempo=tempo,
        performers=_draw_performers(plan, tempo, beats, rng),
    )


def _draw_tempo(changes: bool, rng: np.random.Generator) -> tuple[tuple[float, float], ...]:
    """Draw one tempo, or two to five changes at segment boundaries."""
    bpm = float(rng.uniform(70, 160))
    tempo = [(0.0, round(bpm, 1))]
    if not changes:
        return tuple(tempo)
    boundaries = np.arange(1, round(SECONDS / SEGMENT_SECONDS))
    for boundary in sorted(rng.choice(boundaries, size=rng.integers(2, 6), replace=False)):
        jump = float(rng.uniform(*TEMPO_JUMPS))
        options = [new for new in (bpm * jump, bpm / jump) if SLOWEST_BPM <= new <= FASTEST_BPM]
        bpm = float(rng.choice(options))
        tempo.append((float(boundary * SEGMENT_SECONDS), round(bpm, 1)))
    return tuple(tempo)


def _draw_performers(
    plan: _Plan, tempo: tuple, beats: np.ndarray, rng: np.random.Generator
) -> tuple[Performer, ...]:
    extra = plan.cast.extra
    groups = [group for group, count in enumerate(plan.cast.groups) for _ in range(count)]
    groups = [groups[i] for i in rng.permutation(len(groups))]
    visible = len(groups)
    positions, places = _draw_positions(visible, rng)
    if extra in ('hidden', 'silent'):
        groups.append(len(plan.cast.groups))
    silent = set(range(visible)) if extra == 'silent' else _draw_silent(groups, visible, rng)
    sounding = [i for i in range(len(groups)) if i not in silent]
    intervals = dict(zip(sounding, _draw_intervals(len(sounding), beats, rng)))
    gains = dict(zip(sounding, _draw_gains([groups[i] for i in sounding], rng)))
    parts = _draw_parts([groups[i] for i in sounding], tempo, rng)
    harmony = music.draw_harmony(rng)
    performers = []
    for i, group in enumerate(groups):
        instrument = plan.instruments[group]
        heard_instrument = plan.instruments[-1] if extra == 'mismatch' else instrument
        notes = ()
        if i in intervals:
            density, seed = parts[sounding.index(i)]
            part_rng = np.random.default_rng(seed)
            role = str(part_rng.choice(music.RANGES[heard_instrument].roles))
            notes = music.write_part(
                heard_instrument, role, density, intervals[i], beats, harmony, part_rng
            )
        performers.append(
            Performer(
                instrument=instrument,
                heard_instrument=heard_instrument,
                visible=i < visible,
                x=positions[i] if i < visible else 0.5,
                place=places[i] if i < visible else 'middle',
                gain_db=gains.get(i, 0.0),
                intervals=intervals.get(i, ()),
                notes=notes,
                appearance_seed=int(rng.integers(2**31)),
            )
        )
    return tuple(performers)


def _draw_positions(visible: int, rng: np.random.Generator) -> tuple[list[float], list[str]]:
    """Draw the centres from left to right; the places are left, right and middle in between."""
    if visible == 1:
        return [round(float(rng.uniform(0.35, 0.65)), 4)], ['middle']
    width = 1 / visible
    jitter = rng.uniform(-0.08, 0.08, size=visible) * width
    centres = [round(float((i + 0.5 + jitter[i]) * width), 4) for i in range(visible)]
    left, middle, right = PLACES
    return centres, [left] + [middle] * (visible - 2) + [right]


def _draw_silent(groups: list[int], visible: int, rng: np.random.Generator) -> set[int]:
    """Draw the visible performers who stay silent: none in 60 % of the videos, never all."""
    if visible == 1 or rng.random() < 0.6:
        return set()
    count = int(rng.integers(1, visible))
    return {int(i) for i in rng.choice(visible, size=count, replace=False)}


def _draw_intervals(
    count: int, beats: np.ndarray, rng: np.random.Generator
) -> list[tuple[tuple[float, float], ...]]:
    """Draw the intervals of each performer: all enter together, one by one, or in turns."""
    start = 0.0 if rng.random() < 0.7 else float(rng.uniform(1.5, SEGMENT_SECONDS))
    pattern = rng.choice(('together', 'staggered', 'turns'), p=(0.35, 0.5, 0.15))
    if pattern == 'turns' and count in (2, 3):
        spans = _draw_turns(count, start, rng)
    else:
        gaps = np.zeros(count)
        if pattern != 'together' and count > 1:
            widest = max(ENTRY_GAP + 0.1, min(12.0, (42.0 - start) / (count - 1)))
            gaps[1:] = rng.uniform(ENTRY_GAP, widest, size=count - 1)
        entries = start + np.cumsum(gaps)[rng.permutation(count)]
        spans = [_draw_spans(float(entry), rng) for entry in entries]
    return [tuple(_snap_to_beats(span, beats) for span in performer) for performer in spans]


def _draw_spans(entry: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Draw the spans from `entry` to the end or an earlier exit, sometimes with one pause."""
    end = SECONDS if rng.random() < 0.6 else float(rng.uniform(max(entry + SHORTEST, 25), 53))
    if end - entry > 30 and rng.random() < 0.25:
        pause = float(rng.uniform(7.5, 12))
        begin = float(rng.uniform(entry + SHORTEST, end - SHORTEST - pause))
        return [(entry, begin), (begin + pause, end)]
    return [(entry, end)]


def _draw_turns(
    count: int, start: float, rng: np.random.Generator
) -> list[list[tuple[float, float]]]:
    """Let performers take turns; with three, two of them sound at the same time."""
    change = float(rng.uniform(20, 38))
    early, late = [(start, change)], [(change + float(rng.uniform(2, 5)), SECONDS)]
    spans = [early, late]
    if count == 3:
        shared = early if rng.random() < 0.5 else late
        begin, end = shared[0]
        spans.append([(begin + ENTRY_GAP, end)] if rng.random() < 0.5 else shared)
    return [spans[i] for i in rng.permutation(count)]


def _snap_to_beats(span: tuple[float, float], beats: np.ndarray) -> tuple[float, float]:
    begin, end = (float(beats[np.argmin(np.abs(beats - second))]) for second in span)
    return begin, end


def _draw_gains(groups: list[int], rng: np.random.Generator) -> list[float]:
    """Draw levels in four steps; in half the videos they also differ within a group."""
    differ_within = rng.random() < 0.5
    keys = [(group, i if differ_within else 0) for i, group in enumerate(groups)]
    distinct = sorted(set(keys))
    order = rng.permutation(len(distinct))
    steps = {key: min(int(rank), 3) for key, rank in zip(distinct, order)}
    levels = [-LEVEL_STEP_DB * steps[key] + float(rng.uniform(-0.3, 0.3)) for key in keys]
    sum_db = 10 * math.log10(sum(10 ** (level / 10) for level in levels))
    return [round(level + MIX_DB - sum_db, 2) for level in levels]


def _draw_parts(
    groups: list[int], tempo: tuple, rng: np.random.Generator
) -> list[tuple[float, int]]:
    """Draw (notes per beat, seed) per performer; in some videos each group plays in unison."""
    bpms = [bpm for _, bpm in tempo]
    least, most = NOTES_PER_SECOND
    allowed = [
        density
        for density in (0.5, 1.0, 2.0, 4.0)
        if density * min(bpms) / 60 >= least and density * max(bpms) / 60 <= most
    ]
    unison = rng.random() < 0.4
    keys = [(group, 0 if unison else i) for i, group in enumerate(groups)]
    distinct = sorted(set(keys))
    order = rng.permutation(len(distinct))
    shift = int(rng.integers(len(allowed)))
    parts = {
        key: (allowed[(int(rank) + shift) % len(allowed)], int(rng.integers(2**31)))
        for key, rank in zip(distinct, order)
    }
    return [parts[key] for key in keys]

"""Draws performances at random.

What questions need in equal shares (casts, instruments, settings, voice-overs, tempo changes) is
dealt like cards, one pack per `PACK` videos, so that every stretch of videos is balanced; the rest
is free. A performance depends on the seed and its index alone.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.synthetic.score import music
from amuse_jax.synthetic.score.score import PLACES, SECONDS, Performer, Score

SEGMENT_SECONDS = (
    6.0  # entries, exits and changes of tempo lie at least a segment of the paper apart
)
ENTRY_GAP = (
    7.2  # seconds between staggered entries; moving them to a beat takes at most half a beat
)
SHORTEST = 9.0  # seconds that a performer sounds at least
LEVEL_STEP_DB = 5.0  # between performers who are to differ in loudness
MIX_DB = -16.0  # RMS level of all performers together, relative to full scale
SLOWEST_BPM, FASTEST_BPM = 60.0, 180.0
TEMPO_JUMPS = (1.32, 1.7)  # at a change: the faster over the slower; within the range above
NOTES_PER_SECOND = (0.75, 7.0)  # what a part's density may come to at the slowest and fastest tempo


@dataclass(frozen=True)
class Cast:
    """Who is on stage.

    Attributes:
      groups: visible performers of each instrument.
      extra: '' nothing more; 'mismatch': the sound is another instrument's; 'hidden': one more
        instrument is heard but not seen; 'silent': as hidden, and who is seen does not sound.
    """

    groups: tuple[int, ...]
    extra: str = ''

    @property
    def instruments(self) -> int:
        """How many different ones it takes."""
        return len(self.groups) + (self.extra != '')


# A pack of casts: (cast, how often).
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
PACK = sum(count for _, count in CASTS)


@dataclass(frozen=True)
class _Plan:
    """What is dealt to one video."""

    cast: Cast
    instruments: tuple[str, ...]  # one per group, then that of `extra`
    outdoor: bool
    voiceover: bool
    tempo_changes: bool


@functools.lru_cache(maxsize=4)
def _pack(seed: int, number: int) -> tuple[_Plan, ...]:
    rng = np.random.default_rng((seed, number, 0))
    casts = [cast for cast, count in CASTS for _ in range(count)]
    casts = [casts[i] for i in rng.permutation(PACK)]
    halves = [[bool(i % 2) for i in rng.permutation(PACK)] for _ in range(3)]
    waiting: list[str] = []
    plans = []
    for cast, *facts in zip(casts, *halves):
        chosen: list[str] = []
        while len(chosen) < cast.instruments:
            fresh = [name for name in waiting if name not in chosen]
            if not fresh:
                fresh = [INSTRUMENTS[i] for i in rng.permutation(len(INSTRUMENTS))]
                waiting += fresh
                continue
            chosen.append(fresh[0])
            waiting.remove(fresh[0])
        plans.append(_Plan(cast, tuple(chosen), *facts))
    return tuple(plans)


def video_id(seed: int, index: int) -> str:
    """The performance's name; data sets of other seeds have others, up to 100,000 videos each."""
    return f'syn{100_000 * seed + index:08d}'


def compose(seed: int, index: int) -> Score:
    """The performance number `index` of the data set with this seed."""
    plan = _pack(seed, index // PACK)[index % PACK]
    rng = np.random.default_rng((seed, index, 1))
    tempo = _tempo(plan.tempo_changes, rng)
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
        performers=_performers(plan, tempo, beats, rng),
    )


def _tempo(changes: bool, rng: np.random.Generator) -> tuple[tuple[float, float], ...]:
    """One tempo, or two to five changes between segments."""
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


def _performers(
    plan: _Plan, tempo: tuple, beats: np.ndarray, rng: np.random.Generator
) -> tuple[Performer, ...]:
    extra = plan.cast.extra
    groups = [group for group, count in enumerate(plan.cast.groups) for _ in range(count)]
    groups = [groups[i] for i in rng.permutation(len(groups))]
    visible = len(groups)
    positions, places = _stage(visible, rng)
    if extra in ('hidden', 'silent'):
        groups.append(len(plan.cast.groups))
    silent = set(range(visible)) if extra == 'silent' else _silent(groups, visible, rng)
    sounding = [i for i in range(len(groups)) if i not in silent]
    intervals = dict(zip(sounding, _timeline(len(sounding), beats, rng)))
    gains = dict(zip(sounding, _gains([groups[i] for i in sounding], rng)))
    parts = _parts([groups[i] for i in sounding], tempo, rng)
    harmony = music.draw_harmony(rng)
    performers = []
    for i, group in enumerate(groups):
        instrument = plan.instruments[group]
        heard = plan.instruments[-1] if extra == 'mismatch' else instrument
        notes = ()
        if i in intervals:
            density, seed = parts[sounding.index(i)]
            part_rng = np.random.default_rng(seed)
            role = str(part_rng.choice(music.RANGES[heard].roles))
            notes = music.play(heard, role, density, intervals[i], beats, harmony, part_rng)
        performers.append(
            Performer(
                instrument=instrument,
                heard=heard,
                visible=i < visible,
                x=positions[i] if i < visible else 0.5,
                place=places[i] if i < visible else 'middle',
                gain_db=gains.get(i, 0.0),
                intervals=intervals.get(i, ()),
                notes=notes,
                look=int(rng.integers(2**31)),
            )
        )
    return tuple(performers)


def _stage(visible: int, rng: np.random.Generator) -> tuple[list[float], list[str]]:
    """Centres from left to right, and places: the ends are left and right, the rest middle."""
    if visible == 1:
        return [round(float(rng.uniform(0.35, 0.65)), 4)], ['middle']
    width = 1 / visible
    jitter = rng.uniform(-0.08, 0.08, size=visible) * width
    centres = [round(float((i + 0.5 + jitter[i]) * width), 4) for i in range(visible)]
    left, middle, right = PLACES
    return centres, [left] + [middle] * (visible - 2) + [right]


def _silent(groups: list[int], visible: int, rng: np.random.Generator) -> set[int]:
    """Which visible performers are silent throughout: none in six of ten videos, never all."""
    if visible == 1 or rng.random() < 0.6:
        return set()
    count = int(rng.integers(1, visible))
    return {int(i) for i in rng.choice(visible, size=count, replace=False)}


def _timeline(
    count: int, beats: np.ndarray, rng: np.random.Generator
) -> list[tuple[tuple[float, float], ...]]:
    """When each of `count` performers sounds: entries together, one by one, or taking turns."""
    start = 0.0 if rng.random() < 0.7 else float(rng.uniform(1.5, SEGMENT_SECONDS))
    manner = rng.choice(('together', 'staggered', 'turns'), p=(0.35, 0.5, 0.15))
    if manner == 'turns' and count in (2, 3):
        spans = _turns(count, start, rng)
    else:
        gaps = np.zeros(count)
        if manner != 'together' and count > 1:
            widest = max(ENTRY_GAP + 0.1, min(12.0, (42.0 - start) / (count - 1)))
            gaps[1:] = rng.uniform(ENTRY_GAP, widest, size=count - 1)
        entries = start + np.cumsum(gaps)[rng.permutation(count)]
        spans = [_span(float(entry), rng) for entry in entries]
    return [tuple(_on_beats(span, beats) for span in performer) for performer in spans]


def _span(entry: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """From `entry` to the end or to an earlier exit, sometimes with a pause."""
    end = SECONDS if rng.random() < 0.6 else float(rng.uniform(max(entry + SHORTEST, 25), 53))
    if end - entry > 30 and rng.random() < 0.25:
        pause = float(rng.uniform(7.5, 12))
        begin = float(rng.uniform(entry + SHORTEST, end - SHORTEST - pause))
        return [(entry, begin), (begin + pause, end)]
    return [(entry, end)]


def _turns(count: int, start: float, rng: np.random.Generator) -> list[list[tuple[float, float]]]:
    """Some stop before the next begin; of three, two sound at the same time and one does not."""
    change = float(rng.uniform(20, 38))
    early, late = [(start, change)], [(change + float(rng.uniform(2, 5)), SECONDS)]
    spans = [early, late]
    if count == 3:
        together = early if rng.random() < 0.5 else late
        begin, end = together[0]
        spans.append([(begin + ENTRY_GAP, end)] if rng.random() < 0.5 else together)
    return [spans[i] for i in rng.permutation(count)]


def _on_beats(span: tuple[float, float], beats: np.ndarray) -> tuple[float, float]:
    begin, end = (float(beats[np.argmin(np.abs(beats - second))]) for second in span)
    return begin, end


def _gains(groups: list[int], rng: np.random.Generator) -> list[float]:
    """Levels that differ from group to group, in half the videos also within one; four steps."""
    apart = rng.random() < 0.5
    keys = [(group, i if apart else 0) for i, group in enumerate(groups)]
    distinct = sorted(set(keys))
    order = rng.permutation(len(distinct))
    steps = {key: min(int(rank), 3) for key, rank in zip(distinct, order)}
    levels = [-LEVEL_STEP_DB * steps[key] + float(rng.uniform(-0.3, 0.3)) for key in keys]
    together = 10 * math.log10(sum(10 ** (level / 10) for level in levels))
    return [round(level + MIX_DB - together, 2) for level in levels]


def _parts(groups: list[int], tempo: tuple, rng: np.random.Generator) -> list[tuple[float, int]]:
    """(notes per beat, seed of the part) per performer; groups play in unison or each their own."""
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

"""The score of a performance: who stands where, plays what, when, how loud and at which tempo.

The score determines everything that is seen and heard, and every answer. Sound, picture and
questions are computed from the score alone.
"""

from dataclasses import dataclass

SECONDS = 60.0  # length of a performance
PLACES = ('left', 'middle', 'right')


@dataclass(frozen=True)
class Note:
    """One note, or one stroke on a drum.

    Attributes:
      start: onset in seconds from the beginning of the video.
      seconds: how long the note is held.
      pitch: MIDI note number; for drums, a key of the General MIDI percussion map.
      velocity: MIDI velocity, 1 to 127.
    """

    start: float
    seconds: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Performer:
    """One player with one instrument.

    Attributes:
      instrument: the instrument that is drawn, a name in vocabulary.INSTRUMENTS.
      heard_instrument: the instrument whose timbre sounds. It differs from `instrument` only if
        the sound does not belong to the picture.
      visible: whether the performer is in the picture; if False, the performer is only heard.
      x: horizontal centre as a share of the picture's width, in [0, 1]; ignored if not visible.
      place: 'left' for the leftmost performer, 'right' for the rightmost, 'middle' for all others
        and for a single performer; ignored if not visible.
      gain_db: RMS level while the performer sounds, in dB relative to full scale.
      intervals: (start, end) seconds in which the performer sounds, sorted and disjoint; empty if
        the performer is silent throughout.
      notes: the notes inside the intervals, sorted by start.
      appearance_seed: seed of the player's colours and hair, and of how far back the player
        stands.
    """

    instrument: str
    heard_instrument: str
    visible: bool
    x: float
    place: str
    gain_db: float
    intervals: tuple[tuple[float, float], ...]
    notes: tuple[Note, ...]
    appearance_seed: int

    @property
    def sounds(self) -> bool:
        """Whether the performer sounds at any time."""
        return bool(self.intervals)

    @property
    def sounding_seconds(self) -> float:
        """Total length of the intervals, in seconds."""
        return sum(end - start for start, end in self.intervals)

    @property
    def notes_per_second(self) -> float:
        """Distinct onsets per sounding second (a chord counts once), or 0 if silent."""
        if not self.intervals:
            return 0.0
        return len({note.start for note in self.notes}) / self.sounding_seconds


@dataclass(frozen=True)
class Score:
    """A whole performance.

    Attributes:
      video_id: letters and eight digits, as MUSIC-AVQA names its synthetic videos.
      seed: seed of everything that is drawn at random while the score is rendered.
      seconds: length of the video.
      setting: 'indoor' or 'outdoor'.
      voiceover: (start, end) seconds of a speaking voice, or None if nobody speaks.
      tempo: (start second, beats per minute) of each section with constant tempo; the first
        section starts at 0.
      performers: the visible performers from left to right, then those who are only heard.
    """

    video_id: str
    seed: int
    seconds: float
    setting: str
    voiceover: tuple[float, float] | None
    tempo: tuple[tuple[float, float], ...]
    performers: tuple[Performer, ...]

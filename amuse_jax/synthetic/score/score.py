"""What happens in a performance: who stands where, plays what, when, how loud and at which tempo.

A score decides everything that is seen and heard, and every answer; sound, picture and questions
are made from it and from nothing else.
"""

from dataclasses import dataclass

SECONDS = 60.0  # of a performance
PLACES = ('left', 'middle', 'right')


@dataclass(frozen=True)
class Note:
    """One note, or one stroke of a drum.

    Attributes:
      start: in seconds from the beginning of the video.
      seconds: how long it is held.
      pitch: MIDI number; for `drum` the key of the General MIDI percussion map.
      velocity: 1..127.
    """

    start: float
    seconds: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Performer:
    """One player with one instrument.

    Attributes:
      instrument: as drawn, a name of vocabulary.INSTRUMENTS.
      heard: the instrument whose timbre sounds; another one than `instrument` only where the sound
        does not belong to the picture.
      visible: False: heard, but outside the picture.
      x: centre in [0, 1] of the picture's width; of no meaning where not visible.
      place: left for the leftmost, right for the rightmost, middle for those between and for one
        alone; of no meaning where not visible.
      gain_db: RMS level of its sound while it sounds, in dB relative to full scale.
      intervals: (start, end) seconds in which it sounds, in order, disjoint; empty: silent
        throughout.
      notes: inside the intervals, by start.
      look: seed of its colours and build.
    """

    instrument: str
    heard: str
    visible: bool
    x: float
    place: str
    gain_db: float
    intervals: tuple[tuple[float, float], ...]
    notes: tuple[Note, ...]
    look: int

    @property
    def sounds(self) -> bool:
        return bool(self.intervals)

    @property
    def sounding_seconds(self) -> float:
        """Length of all its intervals together."""
        return sum(end - start for start, end in self.intervals)

    @property
    def notes_per_second(self) -> float:
        """Distinct onsets per second while it sounds (a chord counts once); 0 where silent."""
        if not self.intervals:
            return 0.0
        return len({note.start for note in self.notes}) / self.sounding_seconds


@dataclass(frozen=True)
class Score:
    """A whole performance.

    Attributes:
      video_id: letters and eight digits, as MUSIC-AVQA names its synthetic videos.
      seed: of everything that is drawn at random when the score is played and painted.
      seconds: length of the video.
      setting: indoor or outdoor.
      voiceover: (start, end) seconds of a speaking voice; None: nobody speaks.
      tempo: (start second, beats per minute), piecewise constant, the first at 0.
      performers: the visible ones from left to right, then those who are only heard.
    """

    video_id: str
    seed: int
    seconds: float
    setting: str
    voiceover: tuple[float, float] | None
    tempo: tuple[tuple[float, float], ...]
    performers: tuple[Performer, ...]

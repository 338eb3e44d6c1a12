"""Audio tagging with AudioSet's 527 classes by the released HTS-AT (Chen et al. 2022).

tagger = tagging.load('HTSAT_AudioSet_Saved_1.ckpt')
tags = tagger(samples)                                # (n,) float32 at 32 kHz
"""

import dataclasses
import functools

import jax
import numpy as np
from flax import nnx

from amuse_jax.media.log_mel import LogMel, log_mel
from amuse_jax.models.htsat import HTSATConfig, HTSATTagger
from amuse_jax.pretrained import audioset, files, htsat, key_mapping

RELEASED = HTSATConfig(256, 4, 96, (2, 2, 6, 2), (4, 8, 16, 32), 8)
FRONT_END = LogMel(
    sample_rate=32000, window=1024, hop=320, mels=64, low_hz=50.0, high_hz=14000.0,
    segments=1, segment_seconds=10.0,
)  # fmt: skip
SHORTEST = FRONT_END.window  # samples


@dataclasses.dataclass(frozen=True)
class SoundTags:
    """The scores of all classes in a sound.

    Attributes:
      clip: (classes,) scores in [0, 1] for the whole sound.
      timeline: (steps, classes) scores in [0, 1] for each step of time.
      step_seconds: length of a step.
    """

    clip: np.ndarray
    timeline: np.ndarray
    step_seconds: float

    def top(self, count: int) -> list[tuple[int, float]]:
        """Return (class, score) for the `count` classes with the highest scores of the sound."""
        order = np.argsort(-self.clip, kind='stable')[:count]
        return [(int(index), float(self.clip[index])) for index in order]


class Tagger:
    """HTS-AT with its log-mel front end, compiled once for each length of sound up to 10 s."""

    def __init__(self, model: HTSATTagger):
        graphdef, self._state = nnx.split(model)
        # A step of the timeline is as long as a token of the last stage.
        repeats = model.config.frames // (model.config.folds * model.side)

        @jax.jit
        def run(state, samples):
            tags = nnx.merge(graphdef, state)(log_mel(FRONT_END, samples))
            return tags.clip, tags.frames[:, ::repeats]

        self._run = run

    def __call__(self, samples: np.ndarray) -> SoundTags:
        """Tag a sound.

        A sound longer than 10 s is tagged in pieces of 10 s; the last piece is padded with silence.

        Args:
          samples: (n,) float32 at 32 kHz, full scale at 1.

        Returns:
          The scores; the scores for the whole sound are averages over its pieces.

        Raises:
          ValueError: the sound is shorter than a window of the front end.
        """
        if len(samples) < SHORTEST:
            raise ValueError(f'a sound of {len(samples)} samples; expected at least {SHORTEST}')
        length = min(len(samples), FRONT_END.segment_samples)
        pieces = -(-len(samples) // length)
        padded = np.pad(samples.astype(np.float32), (0, pieces * length - len(samples)))
        with jax.default_matmul_precision('highest'):  # as for every float32 model
            tagged = [
                self._run(self._state, piece[None]) for piece in padded.reshape(pieces, length)
            ]
        clip = np.mean([np.asarray(clip[0]) for clip, _ in tagged], axis=0)
        timeline = np.concatenate([np.asarray(along[0]) for _, along in tagged])
        step_seconds = length / FRONT_END.sample_rate * pieces / len(timeline)
        last = int(np.ceil(len(samples) / FRONT_END.sample_rate / step_seconds))
        return SoundTags(clip, timeline[:last], step_seconds)


def check(source: str) -> None:
    """Make sure that `load` will succeed, before hours of work; no device is used.

    The arguments and errors are those of `load`.
    """
    key_mapping.convert(*_translation(source))


@functools.cache
def load(source: str) -> Tagger:
    """Load the released tagger.

    Args:
      source: its AudioSet checkpoint, a file or a hub name (see files.read).

    Raises:
      StageError: the checkpoint cannot be read.
      ConversionError: the checkpoint holds another model.
    """
    return Tagger(key_mapping.fill(*_translation(source)))


def _translation(
    source: str,
) -> tuple[HTSATTagger, dict[str, np.ndarray], key_mapping.Table]:
    """Return the abstract tagger, the arrays of a checkpoint, and the table between them."""
    arrays = files.read(source)
    classes = len(audioset.names())
    model = nnx.eval_shape(lambda: HTSATTagger(RELEASED, classes, rngs=nnx.Rngs(0)))
    return model, arrays, htsat.table(RELEASED, arrays, tagger=True)


def describe(tags: SoundTags, count: int, columns: int = 60) -> str:
    """Return a text with the `count` best classes, their scores and their timelines as bars."""
    best = tags.top(count)
    names = [audioset.names()[index] for index, _ in best]
    width = max(map(len, names))
    steps = len(tags.timeline)
    edges = np.linspace(0, steps, min(columns, steps) + 1).astype(int)
    lines = []
    for name, (index, score) in zip(names, best):
        levels = [tags.timeline[a:b, index].max() for a, b in zip(edges[:-1], edges[1:])]
        bars = ''.join(' ▁▂▃▄▅▆▇█'[round(8 * float(level))] for level in levels)
        lines.append(f'{name:<{width}}  {score:.3f}  |{bars}|')
    seconds = steps * tags.step_seconds
    return '\n'.join([*lines, f'{"":<{width}}         0 s{seconds:>{len(edges) - 4}.1f} s'])

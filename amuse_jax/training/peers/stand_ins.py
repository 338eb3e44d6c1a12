"""The stage stand_ins: inputs in the place of those that other projects' networks would give.

A run on rendered performances has no weights of VGGish, ResNet-18, CLIP and AST. The towers of its
own pretrained source encoder, a small Swin-V2 and a small HTS-AT, take their places, so that every
peer can be trained on the same videos. A segment's frame and sound stand for a second's:

  vggish         (N, T, d_a)        pooled tokens of the audio tower
  ast            (N, T, n, d_a)     its tokens
  resnet18       (N, T, h, w, d_v)  tokens of the visual tower
  clip_frames    (N, T, d_v)        pooled tokens of the visual tower
  clip_patches   (N, T, h * w, d_v) its tokens
  fbank          (N, T, S, S)       the log-mel, resized to the picture's size and normalised
  clip_words     (Q, 14, d_v)       vectors of the words from a random table, drawn with `seed`
  questions.json the Q distinct questions

All arrays are float16. Names and axes are those of the stage features.
"""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from amuse_jax.data.prepared import Prepared
from amuse_jax.data.records import RecordReader
from amuse_jax.data.train_words import TrainWords
from amuse_jax.models import building, swin_v2
from amuse_jax.models.htsat import HTSAT, HTSATConfig
from amuse_jax.models.swin_v2 import SwinV2, SwinV2Config
from amuse_jax.system import hosts
from amuse_jax.system.files import write_atomically, write_json
from amuse_jax.training import device_memory, sharding, state, stored
from amuse_jax.training.pretrain import mel_statistics
from amuse_jax.training.pretrain import stage as pretrain

ARRAYS = ('vggish', 'ast', 'resnet18', 'clip_frames', 'clip_patches', 'fbank')


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Compute the arrays for all records.

    Args:
      config: the config of the run.
      folder: the folder of this stage.
      inputs: the folders of the stages prepare and pretrain, by name.

    Returns:
      The number of videos and of distinct questions.
    """
    prepared = Prepared(inputs['prepare'])
    questions = prepared.questions()
    texts = list(dict.fromkeys(question.text for question in questions))
    if hosts.is_first():
        words = TrainWords(question for question in questions if question.split == 'train')
        vectors = random_words(words, texts, 8 * config.model.visual.width, config.seed)
        write_atomically(folder / 'clip_words.npy', lambda path: np.save(path, vectors))
        write_json(folder / 'questions.json', texts)
    reader = prepared.reader()
    statistics = _level(reader, sorted(prepared.records_of('train')))
    compute = _compile(config, inputs['pretrain'], statistics)
    with device_memory.full_as_error('stand_ins', 'lower pretrain.batch_size'):
        stored.compute_for_videos(
            config, folder, ARRAYS, reader, config.pretrain.batch_size, compute, 'stand_ins'
        )
    return {'videos': len(reader), 'questions': len(texts)}


def random_words(words: TrainWords, texts: list[str], width: int, seed: int) -> np.ndarray:
    """Return a random vector for each word of each question, padding included: (Q, 14, width)."""
    table = np.random.default_rng(seed).normal(size=(len(words), width))
    return table.astype(np.float16)[words.encode(texts)[0]]


def _level(reader: RecordReader, records: list[int]) -> tuple[float, float]:
    """Return the mean (dB) and the standard deviation of the train videos' log-mels."""
    mean, variance = mel_statistics.measure(reader, records)
    total = variance + (mean - mean.mean()) ** 2  # within the bands and between them
    return float(mean.mean()), float(np.sqrt(total.mean()))


def _compile(config: ConfigDict, pretrained: Path, statistics: tuple[float, float]):
    """Return a function from a batch of pipeline.whole_videos to ARRAYS."""
    mesh, size, (mean, deviation) = sharding.mesh(config.mesh), config.data.image_size, statistics
    visual_sizes = SwinV2Config(**config.model.visual)
    audio_sizes = HTSATConfig(mels=config.audio.mels, **config.model.audio)
    models = {
        'visual': building.shapes(lambda rngs: SwinV2(visual_sizes, rngs=rngs)),
        'audio': building.shapes(lambda rngs: HTSAT(audio_sizes, rngs=rngs)),
    }
    structures = {part: state.flatten(model)[0] for part, model in models.items()}
    arrays = pretrain.source_towers(config, pretrained)

    @jax.jit
    @sharding.sharded_batches(mesh)
    def encode(arrays, frames, log_mel):
        lead = frames.shape[:2]
        visual, audio = (structures[part].merge(arrays[part]) for part in ('visual', 'audio'))
        seen = visual(swin_v2.normalise(frames).reshape(-1, *frames.shape[2:]))
        log_mel = log_mel.astype(jnp.float32).reshape(-1, *log_mel.shape[2:])
        heard = audio(log_mel)
        side = round(seen.tokens.shape[-2] ** 0.5)
        level = (log_mel - mean) / (2 * deviation)  # twice, as LAVISH normalises its filter banks
        image = jax.image.resize(level, (len(level), size, size), 'linear')
        found = {
            'vggish': heard.pooled,
            'ast': heard.tokens,
            'resnet18': seen.tokens.reshape(-1, side, side, seen.tokens.shape[-1]),
            'clip_frames': seen.pooled,
            'clip_patches': seen.tokens,
            'fbank': image,
        }
        return {n: x.reshape(*lead, *x.shape[1:]).astype(jnp.float16) for n, x in found.items()}

    def compute(batch):
        sharded = sharding.shard_batch(batch, mesh)
        return sharding.fetch(encode(arrays, sharded['frames'], sharded['log_mel']))

    return compute

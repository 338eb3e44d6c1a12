"""Programs of a model that run without this package: StableHLO, as `jax.export` writes it.

    watch.jax_export    what a model computes once per video
    answer.jax_export   the answers to any number of questions about it
    run_program.py      an example that runs them with JAX, NumPy, safetensors and tokenizers

One program runs on CPUs, CUDA and TPUs. It therefore has none of the kernels that belong to one of
them (MKL, cuDNN, Pallas), so it is slower than the model itself, and it computes in float32.
"""

import dataclasses
import importlib.resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from amuse_jax.ask import arrays as model_arrays
from amuse_jax.ask import video_model
from amuse_jax.ask.trained import Trained
from amuse_jax.media.log_mel import LogMel
from amuse_jax.models import platform
from amuse_jax.models.amuse import AmuseInputs
from amuse_jax.models.interactive_encoder import QuestionFree
from amuse_jax.system import files
from amuse_jax.training import state

PLATFORMS = ('cpu', 'cuda', 'tpu')
WATCH, ANSWER = 'watch.jax_export', 'answer.jax_export'
EXAMPLE = 'run_program.py'
FILES = (WATCH, ANSWER, EXAMPLE)

Arrays = dict[str, Any]


def write(trained: Trained, folder: Path) -> None:
    """Write the programs, which take the arrays of model.safetensors by name, and the example.

    `watch(arrays, video)` takes the arrays of `Video.save`, V = 1: frames [V, T, S, S, 3] uint8,
    log_mel [V, T, F, M] float16, segment_mask [V, T] bool, and with regions boxes [V, T, K, 4],
    scores [V, T, K] and features [V, T, K, D] float16 and classes [V, T, K] int16. It returns the
    second argument of `answer(arrays, watched, words, word_mask)`, with token ids [Q, N] int32 and
    their mask bool, for any Q. The result of `answer` has the fields of AmuseOutput by name,
    without the axis V.

    Args:
      trained: the model.
      folder: the folder of the exported model.
    """
    config = trained.config.copy_and_resolve_references()
    config.model.dtype = 'float32'
    with (
        platform.compiling_for('any'),
        jax.enable_x64(False),
        jax.default_matmul_precision('highest'),
    ):
        splits = model_arrays.structures(config, trained.class_names)
        (amuse, _), (encoder, _) = splits
        arrays = model_arrays.expected(*splits)
        streams, is_open = trained.amuse.streams, config.train.epochs > 0

        def watch(arrays: Arrays, video: Arrays) -> Arrays:
            return _watch(amuse, encoder, arrays, video, streams, is_open)

        def answer(arrays: Arrays, watched: Arrays, words, word_mask) -> Arrays:
            model = amuse.merge(model_arrays.without_prefix(model_arrays.AMUSE, arrays))

            def answer_one(question):  # the models know the number of questions when traced
                ids, mask = question
                output = model(_inputs(watched, ids[None, None], mask[None, None]))
                fields = dataclasses.fields(output)
                return {field.name: getattr(output, field.name)[0, 0] for field in fields}

            return jax.lax.map(answer_one, (words, word_mask))

        video = _video_shapes(config, streams)
        (questions,) = export.symbolic_shape('questions')
        words = (questions, config.model.text.max_words)
        watched = jax.eval_shape(watch, arrays, video)
        _save(folder / WATCH, watch, arrays, video)
        _save(
            folder / ANSWER, answer, arrays, watched,
            jax.ShapeDtypeStruct(words, jnp.int32), jax.ShapeDtypeStruct(words, bool),
        )  # fmt: skip
    example = importlib.resources.files('amuse_jax.ask').joinpath(f'{EXAMPLE}.txt')
    (folder / EXAMPLE).write_text(example.read_text('utf-8'), 'utf-8')


def _save(path: Path, function, *arguments) -> None:
    program = export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).serialize()
    files.write_atomically(path, lambda beside: beside.write_bytes(program))


def _watch(
    amuse: state.Structure,
    encoder: state.Structure,
    arrays: Arrays,
    video: Arrays,
    streams: tuple[str, ...],
    is_open: bool,
) -> Arrays:
    """Return all inputs of the answer, flat by name; float16 becomes float32."""
    universal = encoder.merge(model_arrays.without_prefix(model_arrays.ENCODER, arrays))
    pictures = video['frames'], video['log_mel']
    watched = {name: x for name, x in video.items() if name not in ('frames', 'log_mel')}
    watched |= video_model.encode(universal, *pictures)
    if 'visual' in streams:
        model = amuse.merge(model_arrays.without_prefix(model_arrays.AMUSE, arrays))
        ((name, tokens),) = video_model.see(model, *pictures, is_open=is_open).items()
        leaves = jax.tree.leaves(tokens)  # visual, audio
        watched |= {f'{name}.{part}': x for part, x in zip(('visual', 'audio'), leaves)}
    return {
        name: x.astype(jnp.float32) if x.dtype == jnp.float16 else x for name, x in watched.items()
    }


def _inputs(watched: Arrays, words: jax.Array, word_mask: jax.Array) -> AmuseInputs:
    """Return the inputs of Amuse that `_watch` has returned flat."""
    inputs = {name: x for name, x in watched.items() if '.' not in name}
    for name, join in (('question_free', QuestionFree), ('closed', lambda *pair: pair)):
        if f'{name}.visual' in watched:
            inputs[name] = join(watched[f'{name}.visual'], watched[f'{name}.audio'])
    return AmuseInputs(words=words, word_mask=word_mask, **inputs)


def _video_shapes(config, streams: tuple[str, ...]) -> Arrays:
    """Return the shapes of the arrays of `Video.save`."""
    segments, side = config.data.segments, config.data.image_size
    frames = LogMel.from_settings(config).frames
    shapes = {
        'frames': ((segments, side, side, 3), np.uint8),
        'log_mel': ((segments, frames, config.audio.mels), np.float16),
        'segment_mask': ((segments,), bool),
    }
    if 'regions' in streams:
        lead = segments, config.rois.regions
        shapes |= {
            'boxes': ((*lead, 4), np.float16),
            'classes': (lead, np.int16),
            'scores': (lead, np.float16),
            'features': ((*lead, config.rois.feature_size), np.float16),
        }
    return {
        name: jax.ShapeDtypeStruct((1, *shape), dtype) for name, (shape, dtype) in shapes.items()
    }

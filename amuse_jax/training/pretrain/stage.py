"""The pretrain stage: trains the rhythm and source encoders on the annotations (paper 3.2).

In the predictor epochs only the predictors train, on features of the initial towers, which are
stored in first_features/. Then everything trains that `pretrain.trainable` names, and is validated
after every epoch. The parameters of the best epoch are kept, and the encoders are frozen. With
`pretrain.epochs=0` the predictor epochs are all.

The stage writes checkpoints/, best/ (if there are several epochs), frozen/ and metrics.jsonl, and
the same in predictors/ for the predictor epochs (best/ if they are all). In features/ it stores
what the frozen encoders make of every video: rhythm_visual, rhythm_audio, source_visual and
source_audio (N, T, d), rhythm (N, T), sources (N, T, 22), all float16, and segment_mask (N, T)
bool.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from amuse_jax.data import pipeline
from amuse_jax.data.prepared import Prepared
from amuse_jax.data.records import RecordReader
from amuse_jax.errors import StageError
from amuse_jax.models import building, platform
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.models.universal_encoder import UniversalEncoder
from amuse_jax.pretrained import towers
from amuse_jax.system import hosts
from amuse_jax.training import checkpoints, device_memory, jobs, loop, sharding, state, stored
from amuse_jax.training.pretrain import held_out, mel_statistics, predictors

LABELS = predictors.LABELS
FEATURES = (*predictors.STREAMS, *LABELS, 'segment_mask')


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Pretrain the universal encoder on the train videos and store its features for all videos.

    Args:
      config: the config of the run.
      folder: the folder of this stage.
      inputs: the folders of the stages prepare and annotate, by name.

    Returns:
      The number of steps, of all and of trained parameters, the record of the best validation if
      there are several epochs, and for the train and val videos their number and
      `predictors.scores`.

    Raises:
      StageError: there are no train or no val videos (see held_out.py), the labels do not match the
        records, or the mesh cannot divide the model or the batches evenly.
    """
    reader = Prepared(inputs['prepare']).reader()
    labels = stored.read(inputs['annotate'], LABELS)
    _check_labels(labels, len(reader), inputs['annotate'])
    splits = held_out.records_by_split(inputs['prepare'], config.pretrain.val_share)
    mesh = sharding.mesh(config.mesh)
    model = building.build(lambda rngs: build(config, rngs), config.seed)
    structure, params, frozen = split(config, model)
    arrays = init_towers(config, params | frozen)
    params, frozen = ({name: arrays[name] for name in part} for part in (params, frozen))
    video_ids = [video['video_id'] for video in reader.videos]
    store = functools.partial(
        store_features, config, reader, compile_encoder(structure, mesh), mesh
    )
    frozen = _measure_statistics(config, folder, reader, splits['train'], store, params, frozen)
    if config.pretrain.predictor_epochs:
        features = stored.read(folder / 'first_features', (*predictors.STREAMS, 'segment_mask'))
        params = predictors.fit(
            config, folder / 'predictors', structure, params, frozen,
            features | labels, splits, video_ids,
        )  # fmt: skip
    if config.pretrain.epochs:
        phase = _phase(config, reader, labels, splits, mesh)
        params = loop.fit(_job(config, folder, structure, frozen, phase, mesh, video_ids), params)
    params, record = _read_best(config, folder, params)
    store(folder / 'features', params | frozen)
    features = stored.read(folder / 'features', FEATURES)
    batches = math.ceil(len(splits['train']) / config.pretrain.batch_size)
    return {
        'steps': batches * (config.pretrain.epochs or config.pretrain.predictor_epochs),
        'parameters': sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))),
        'trained_parameters': sum(array.size for array in params.values()),
        **({'best': record} if record else {}),
        **{
            split: {'videos': len(chosen)} | predictors.scores(features, labels, chosen)
            for split, chosen in splits.items()
        },
    }


def build(config: ConfigDict, rngs: nnx.Rngs) -> UniversalEncoder:
    """Return the config's universal encoder with random weights."""
    return UniversalEncoder(
        SwinV2Config(**config.model.visual),
        HTSATConfig(mels=config.audio.mels, **config.model.audio),
        config.pretrain.predictor_width,
        rngs=rngs,
        dtype=platform.compute_dtype(config.model.dtype),
        remat_policy=config.loop.remat_policy,
    )


def split(
    config: ConfigDict, model: UniversalEncoder
) -> tuple[state.Structure, state.Arrays, state.Arrays]:
    """Split the universal encoder into its structure, the parameters that learn, and the rest.

    Without epochs for them, the towers do not learn, whatever `pretrain.trainable` says.

    Args:
      config: the config of the run.
      model: the encoder, or an abstract one; see state.split.

    Raises:
      StageError: no parameter of a predictor would learn.
    """
    pattern = config.pretrain.trainable
    structure, params, frozen = state.split(model, pattern, 'pretrain.trainable')
    heads = {name: x for name, x in params.items() if name.startswith(predictors.PREDICTORS)}
    if not heads:
        raise StageError(
            f'pretrain.trainable is {pattern!r}, so the predictors would stay random; expected a '
            "pattern that names them too, such as predictor, or 'all'"
        )
    if config.pretrain.epochs:
        return structure, params, frozen
    return structure, heads, frozen | {n: x for n, x in params.items() if n not in heads}


def init_towers(config: ConfigDict, arrays: state.Arrays) -> state.Arrays:
    """Return the arrays with both encoders' towers loaded from the config's checkpoints, if any."""
    loaded = {
        f'pairs.{part}.{name}': np.stack([array, array])  # rhythm, source
        for part in ('visual', 'audio')
        for name, array in towers.load(config, part).items()
    }
    return arrays | loaded


def load(config: ConfigDict, folder: Path) -> tuple[state.Structure, state.Arrays]:
    """Load the pretrained universal encoder from the stage's `folder`, replicated on every device.

    Returns:
      The model's structure and all its arrays.

    Raises:
      StageError: there is no checkpoint, or the config has other sizes.
    """
    model = building.shapes(functools.partial(build, config))
    structure, *parts = split(config, model)
    everywhere = sharding.replicated(sharding.mesh(config.mesh))
    params, frozen = (sharding.abstract_arrays(part, everywhere) for part in parts)
    trained = _trained(config, folder)
    if checkpoints.has_best(trained / 'best'):
        params, _ = checkpoints.read_best(trained / 'best', params)
    else:  # a single epoch, or a run of an older version
        params = checkpoints.read_params(trained / 'checkpoints', params)
    return structure, params | checkpoints.read_frozen(folder / 'frozen', frozen)


def source_towers(config: ConfigDict, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Load the towers of the pretrained source encoder from the stage's `folder`.

    Returns:
      The arrays of 'visual' and of 'audio' by name.

    Raises:
      StageError: see `load`.
    """
    _, arrays = load(config, folder)
    return {
        part: {
            name.removeprefix(f'pairs.{part}.'): np.asarray(array)[1]  # 0: the rhythm encoder
            for name, array in arrays.items()
            if name.startswith(f'pairs.{part}.')
        }
        for part in ('visual', 'audio')
    }


def _trained(config: ConfigDict, folder: Path) -> Path:
    """Return the folder with the checkpoints of the last epochs."""
    return folder if config.pretrain.epochs else folder / 'predictors'


def _read_best(
    config: ConfigDict, folder: Path, params: state.Arrays
) -> tuple[state.Arrays, dict | None]:
    """Return the best parameters and their record, or `params` and None if none were kept."""
    best = _trained(config, folder) / 'best'
    if not checkpoints.has_best(best):  # a single epoch, or a resumed run of an older version
        return params, None
    return checkpoints.read_best(best, params)


def _measure_statistics(
    config: ConfigDict,
    folder: Path,
    reader: RecordReader,
    records: Sequence[int],
    store: Callable[[Path, state.Arrays], None],
    params: state.Arrays,
    frozen: state.Arrays,
) -> state.Arrays:
    """Return `frozen` with the statistics of the log-mels and of the initial towers' features.

    The statistics are measured on `records` once and saved in folder/frozen. The features stay in
    folder/first_features, where the predictors train on them.
    """
    shardings = sharding.parameter_shardings(frozen, sharding.mesh(config.mesh))
    if hosts.broadcast_from_first((folder / 'frozen').exists()):
        return checkpoints.read_frozen(
            folder / 'frozen', sharding.abstract_arrays(frozen, shardings)
        )
    if not config.checkpoints.audio:
        frozen = mel_statistics.insert(frozen, mel_statistics.measure(reader, records))
    if config.pretrain.predictor_epochs:
        store(folder / 'first_features', params | frozen)
        features = stored.read(folder / 'first_features', FEATURES)
        frozen = frozen | predictors.input_statistics(features, records)
    return checkpoints.save_frozen_once(folder / 'frozen', sharding.shard_params(frozen, shardings))


def loss(model, batch, rngs, mix: float = 0.0, swap: float = 0.0):
    """Compute the loss of Eq. 10; see predictors.prediction_loss.

    Args:
      model: UniversalEncoder.
      batch: a batch of pipeline.segment_runs.
      rngs: draws the videos that are mixed and swapped; None: none are.
      mix: share of videos whose sound is mixed with that of the video before in the batch: the
        powers and the source labels are added. A mixture has no rhythm label.
      swap: share of videos that get the frames of another video, as in predictors.loss.
    """
    frames, log_mel = batch['frames'], batch['log_mel'].astype(jnp.float32)
    if rngs is not None and mix > 0:
        is_mixed = jax.random.bernoulli(rngs.mix(), mix, (len(log_mel), 1))
        log_mel = jnp.where(is_mixed[..., None, None], _mix_with_previous(log_mel), log_mel)
        others = jnp.roll(batch['sources'], 1, 0)
        batch = batch | {
            'sources': batch['sources'] + jnp.where(is_mixed[..., None], others, 0),
            'rhythm_weights': jnp.where(is_mixed, 0, batch['rhythm_weights']),
        }
    if rngs is not None and swap > 0:
        is_swapped = jax.random.bernoulli(rngs.swap(), swap, (len(frames), 1, 1, 1, 1))
        frames = predictors.swap_with_previous(frames, is_swapped)
    output = model(frames, log_mel)
    return predictors.prediction_loss(output.rhythm, output.sources, batch)


def validate(model, batch) -> tuple[state.Arrays, None]:
    """Compute the loss of Eq. 10 on whole videos; see step.Evaluation."""
    return predictors.count_segments(*loss(model, batch, None), batch), None


def compile_encoder(structure: state.Structure, mesh: Mesh) -> Callable[..., state.Arrays]:
    """Compile `encode(arrays, frames, log_mel)`, which returns FEATURES without segment_mask."""

    @jax.jit
    @sharding.sharded_batches(mesh)
    def encode(arrays, frames, log_mel):
        output = structure.merge(sharding.gather_params(arrays, mesh))(frames, log_mel)
        return {name: getattr(output, name).astype(jnp.float16) for name in FEATURES[:-1]}

    return encode


def store_features(
    config: ConfigDict,
    reader: RecordReader,
    encode: Callable[..., state.Arrays],
    mesh: Mesh,
    folder: Path,
    arrays: state.Arrays,
) -> None:
    """Compute FEATURES for every record and store them in `folder`.

    Args:
      config: the config of the run.
      reader: reads the records.
      encode: the function that `compile_encoder` returns.
      mesh: the device mesh.
      folder: gets NAME.npy for each name in FEATURES.
      arrays: the universal encoder's arrays by name.
    """
    arrays = sharding.shard_params(arrays, sharding.parameter_shardings(arrays, mesh))

    def compute(batch):
        sharded = sharding.shard_batch(batch, mesh)
        features = encode(arrays, sharded['frames'], sharded['log_mel'])
        return sharding.fetch(features | {'segment_mask': sharded['segment_mask']})

    with device_memory.full_as_error('features', 'lower pretrain.batch_size'):
        stored.compute_for_videos(
            config, folder, FEATURES, reader, config.pretrain.batch_size, compute, 'features'
        )


def _job(
    config: ConfigDict,
    folder: Path,
    structure: state.Structure,
    frozen: state.Arrays,
    phase: jobs.Phase,
    mesh: Mesh,
    video_ids: Sequence[str],
) -> jobs.Job:
    return jobs.Job(
        name='pretrain',
        folder=folder,
        structure=structure,
        frozen=frozen,
        metrics=predictors.METRICS,
        phases=[phase],
        settings=config.loop,
        mesh=mesh,
        seed=config.seed,
        video_ids=video_ids,
        best_by='loss' if phase.validation else '',
        best_is_lowest=True,
        memory_advice=(
            'keep fewer values for the gradient (--config.loop.remat_policy=inputs; it is '
            f'{config.loop.remat_policy!r}), or lower pretrain.batch_size or pretrain.segments'
        ),
    )


def _phase(
    config: ConfigDict,
    reader: RecordReader,
    labels: Mapping[str, np.ndarray],
    splits: Mapping[str, Sequence[int]],
    mesh: Mesh,
) -> jobs.Phase:
    settings = config.pretrain
    rows = sharding.local_rows(settings.batch_size, mesh)
    batches = pipeline.segment_runs(
        reader,
        labels,
        splits['train'],
        videos=settings.batch_size,
        segments=settings.segments,
        epochs=settings.epochs,
        seed=config.seed,
        rows=rows,
    )
    validation = None
    if settings.epochs > 1:  # a single epoch is always the best one
        whole = pipeline.whole_videos(reader, labels, splits['val'], settings.batch_size, rows)
        validation = jobs.Validation(whole, validate)
    return jobs.Phase(
        epochs=settings.epochs,
        batches=batches,
        loss=functools.partial(loss, mix=settings.mix, swap=settings.swap),
        learning_rate=state.warmed_up(
            optax.constant_schedule(settings.learning_rate),
            state.warmup_steps(
                settings.warmup_epochs, len(batches) // settings.epochs, len(batches)
            ),
        ),
        samples='sources_error',
        validation=validation,
        compares_videos=True,
        clip_norm=settings.clip_norm,
    )


def _check_labels(labels: Mapping[str, np.ndarray], records: int, folder: Path) -> None:
    for name, array in labels.items():
        if len(array) != records:
            raise StageError(
                f'{folder / name}.npy has {len(array)} rows for {records} records; run the stage '
                'annotate again'
            )


def _mix_with_previous(log_mel: jax.Array) -> jax.Array:
    """Mix each sound (dB) with that of the video before it in the batch by adding their powers."""
    rate = np.log(10) / 10
    return jnp.logaddexp(rate * log_mel, rate * jnp.roll(log_mel, 1, 0)) / rate

"""The pretrain stage: the rhythm and source encoders learn the annotations, then are frozen (3.2).

In the predictor epochs the towers stay as they started and only the predictors learn, from
features stored in first_features/; then all learn together.

Leaves checkpoints/, frozen/, metrics.jsonl, the same of the predictor epochs in predictors/, and in
features/ what the frozen encoders give for every video: rhythm_visual, rhythm_audio, source_visual,
source_audio (N, T, d), rhythm (N, T), sources (N, T, 22), all float16, and segment_mask (N, T)
bool.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from sklearn.metrics import average_precision_score

from amuse_jax.data import pipeline
from amuse_jax.data.prepared import Prepared
from amuse_jax.data.records import RecordReader
from amuse_jax.errors import StageError
from amuse_jax.models import building
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.models.universal_encoder import UniversalEncoder
from amuse_jax.pretrained import towers
from amuse_jax.system import hosts
from amuse_jax.training import checkpoints, loop, sharding, state, stored
from amuse_jax.training.pretrain import predictors
from amuse_jax.training.watchdog import Watchdog

LABELS = ('rhythm', 'sources')
FEATURES = (*predictors.STREAMS, *LABELS, 'segment_mask')
STATISTICS = ('mel_norm.mean', 'mel_norm.variance')  # names' endings
STATISTICS_VIDEOS = 256  # enough for 64 means and variances


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Pretrains the universal encoder on the train videos and stores its features of all videos.

    Returns:
      Mean squared errors of both tasks and the sources' mean average precision, train and val.

    Raises:
      StageError: no train or no val videos, labels that do not fit the records, or a mesh that
        cannot share out the model or the batches.
    """
    reader = Prepared(inputs['prepare']).reader()
    labels = stored.read(inputs['annotate'], LABELS)
    _check_labels(labels, len(reader), inputs['annotate'])
    splits = records_by_split(inputs['prepare'])
    mesh = sharding.mesh(config.mesh)
    phase = _phase(config, reader, labels, splits, mesh)
    structure, params, frozen = state.split(
        building.build(lambda rngs: build(config, rngs), config.seed), ''
    )
    started = start_towers(config, params | frozen)
    params, frozen = ({name: started[name] for name in part} for part in (params, frozen))
    video_ids = [video['video_id'] for video in reader.videos]
    store = functools.partial(store_features, config, reader, encoding(structure, mesh), mesh)
    frozen = _with_all_statistics(config, folder, reader, splits['train'], store, params, frozen)
    if config.pretrain.predictor_epochs:
        first = stored.read(folder / 'first_features', (*predictors.STREAMS, 'segment_mask'))
        params = predictors.fit(
            config, folder / 'predictors', structure, params, frozen,
            first | labels, splits['train'], video_ids,
        )  # fmt: skip
    job = loop.Job(
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
    )
    params = loop.fit(job, params)
    store(folder / 'features', params | frozen)
    features = stored.read(folder / 'features', FEATURES)
    return {
        'steps': len(phase.batches),
        'parameters': sum(array.size for array in params.values()),
        **{split: scores(features, labels, splits[split]) for split in ('train', 'val')},
    }


def build(config: ConfigDict, rngs: nnx.Rngs) -> UniversalEncoder:
    """The universal encoder of the config, with random weights."""
    return UniversalEncoder(
        SwinV2Config(**config.model.visual),
        HTSATConfig(mels=config.audio.mels, **config.model.audio),
        config.pretrain.predictor_width,
        rngs=rngs,
        dtype=jnp.dtype(config.model.dtype),
        kept=config.loop.kept,
    )


def start_towers(config: ConfigDict, arrays: state.Arrays) -> state.Arrays:
    """The arrays with both encoders' towers as in `config.checkpoints`, where it names any."""
    found = {
        f'pairs.{part}.{name}': np.stack([array, array])  # rhythm, source
        for part in ('visual', 'audio')
        for name, array in towers.load(config, part).items()
    }
    return arrays | found


def load(config: ConfigDict, folder: Path) -> tuple[state.Structure, state.Arrays]:
    """The pretrained universal encoder that the stage left in `folder`, whole on every device.

    Raises:
      StageError: there is none, or the config has other sizes.
    """
    model = nnx.eval_shape(lambda: build(config, nnx.Rngs(0)))
    structure, *parts = state.split(model, '')
    everywhere = sharding.whole(sharding.mesh(config.mesh))
    params, frozen = (sharding.shapes(part, everywhere) for part in parts)
    params = checkpoints.read_params(folder / 'checkpoints', params)
    return structure, params | checkpoints.read_frozen(folder / 'frozen', frozen)


def records_by_split(prepared: Path) -> dict[str, list[int]]:
    """Records with train questions, and records with val questions that are not among those.

    Raises:
      StageError: there are none of one kind.
    """
    train, val = map(Prepared(prepared).records_of, ('train', 'val'))
    splits = {'train': sorted(train), 'val': sorted(val - train)}
    for split, records in splits.items():
        if not records:
            raise StageError(
                f'{prepared} has no {split} video; pretraining needs train and val videos'
            )
    return splits


def mel_statistics(reader: RecordReader, records: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean (dB) and variance (dB^2) per mel band over evenly spread videos of `records`."""
    chosen = np.linspace(0, len(records) - 1, min(len(records), STATISTICS_VIDEOS)).astype(int)
    count, total, squares = 0, 0.0, 0.0
    for index in chosen:
        record = reader[records[index]]
        log_mel = record['log_mel'][record['audio_mask']].astype(np.float64)
        count += log_mel.shape[0] * log_mel.shape[1]
        total = total + log_mel.sum((0, 1))
        squares = squares + np.square(log_mel).sum((0, 1))
    if not count:
        raise StageError('no train video has sound; pretraining needs some')
    mean = total / count
    return mean, squares / count - mean**2


def with_statistics(
    arrays: state.Arrays, statistics: tuple[np.ndarray, np.ndarray]
) -> state.Arrays:
    """The arrays with every HTS-AT's input norm set to the mean and variance of the data."""
    endings = dict(zip(STATISTICS, statistics))
    return arrays | {
        name: jnp.broadcast_to(jnp.asarray(value, jnp.float32), arrays[name].shape)
        for name in arrays
        for ending, value in endings.items()
        if name.endswith(ending)
    }


def _with_all_statistics(
    config: ConfigDict,
    folder: Path,
    reader: RecordReader,
    records: Sequence[int],
    store: Callable[[Path, state.Arrays], None],
    params: state.Arrays,
    frozen: state.Arrays,
) -> state.Arrays:
    """`frozen` with the statistics of the log-mels and of the first features of `records`, measured
    once and kept in folder/frozen; the first features stay for the predictors."""
    shardings = sharding.of_parameters(frozen, sharding.mesh(config.mesh))
    if hosts.first_says((folder / 'frozen').exists()):
        return checkpoints.read_frozen(folder / 'frozen', sharding.shapes(frozen, shardings))
    if not config.checkpoints.audio:
        frozen = with_statistics(frozen, mel_statistics(reader, records))
    if config.pretrain.predictor_epochs:
        store(folder / 'first_features', params | frozen)
        first = stored.read(folder / 'first_features', FEATURES)
        frozen = frozen | predictors.statistics(first, records)
    return checkpoints.keep_frozen(folder / 'frozen', sharding.put(frozen, shardings))


def loss(model, batch, rngs, mix: float = 0.0, swap: float = 0.0):
    """Eq. 10; see predictors.errors.

    Args:
      model: UniversalEncoder.
      batch: of pipeline.segment_runs.
      rngs: draws which videos are mixed and swapped; None: none are.
      mix: share of videos whose sound is mixed with the next video's of the batch, powers and
        source labels added. A mixture has no rhythm label.
      swap: share of videos that get another video's pictures, as in predictors.loss.
    """
    frames, log_mel = batch['frames'], batch['log_mel'].astype(jnp.float32)
    if rngs is not None and mix > 0:
        is_mixed = jax.random.bernoulli(rngs.mix(), mix, (len(log_mel), 1))
        log_mel = jnp.where(is_mixed[..., None, None], _mixed(log_mel), log_mel)
        others = jnp.roll(batch['sources'], 1, 0)
        batch = batch | {
            'sources': batch['sources'] + jnp.where(is_mixed[..., None], others, 0),
            'rhythm_weights': jnp.where(is_mixed, 0, batch['rhythm_weights']),
        }
    if rngs is not None and swap > 0:
        is_swapped = jax.random.bernoulli(rngs.swap(), swap, (len(frames), 1, 1, 1, 1))
        frames = predictors.with_swapped(frames, is_swapped)
    output = model(frames, log_mel)
    return predictors.errors(output.rhythm, output.sources, batch)


def scores(
    features: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], records: Sequence[int]
) -> dict:
    """Errors of the stored predictions on some records.

    Returns:
      rhythm_mse; sources_mse, summed over instruments as in Eq. 10; sources_average_precision,
      the mean over the instruments that sound in some of the segments but not in all.
    """
    mask = features['segment_mask'][records]
    predicted = {name: features[name][records][mask].astype(np.float32) for name in LABELS}
    truth = {name: labels[name][records][mask] for name in LABELS}
    sounds = truth['sources'] > 0
    telling = [i for i in range(sounds.shape[1]) if 0 < sounds[:, i].sum() < len(sounds)]
    precisions = [
        average_precision_score(sounds[:, i], predicted['sources'][:, i]) for i in telling
    ]
    squares = {name: np.square(predicted[name] - truth[name]) for name in LABELS}
    return {
        'rhythm_mse': float(squares['rhythm'].mean()),
        'sources_mse': float(squares['sources'].sum(-1).mean()),
        'sources_average_precision': float(np.mean(precisions)) if precisions else None,
    }


def encoding(structure: state.Structure, mesh: Mesh) -> Callable[..., state.Arrays]:
    """Compiles `encode(arrays, frames, log_mel) -> FEATURES`, but for the mask."""

    @jax.jit
    @sharding.shared_out(mesh)
    def encode(arrays, frames, log_mel):
        output = structure.merge(sharding.gathered(arrays, mesh))(frames, log_mel)
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
    """Fills `folder` with FEATURES of every record."""
    arrays = sharding.put(arrays, sharding.of_parameters(arrays, mesh))

    def compute(batch):
        placed = sharding.place(batch, mesh)
        features = encode(arrays, placed['frames'], placed['log_mel'])
        return sharding.fetch(features | {'segment_mask': placed['segment_mask']})

    videos = config.pretrain.batch_size
    batches = functools.partial(
        pipeline.whole_videos, reader, {}, videos=videos, rows=sharding.rows(videos, mesh)
    )
    watchdog = Watchdog(
        folder, config.loop.stuck_seconds, [video['video_id'] for video in reader.videos]
    )
    stored.fill(folder, FEATURES, len(reader), batches, compute, 'features', watchdog)


def _phase(
    config: ConfigDict,
    reader: RecordReader,
    labels: Mapping[str, np.ndarray],
    splits: Mapping[str, Sequence[int]],
    mesh: Mesh,
) -> loop.Phase:
    settings = config.pretrain
    return loop.Phase(
        epochs=settings.epochs,
        batches=pipeline.segment_runs(
            reader,
            labels,
            splits['train'],
            videos=settings.batch_size,
            segments=settings.segments,
            epochs=settings.epochs,
            seed=config.seed,
            rows=sharding.rows(settings.batch_size, mesh),
        ),
        loss=functools.partial(loss, mix=settings.mix, swap=settings.swap),
        learning_rate=optax.constant_schedule(settings.learning_rate),
        samples='sources_error',
    )


def _check_labels(labels: Mapping[str, np.ndarray], records: int, folder: Path) -> None:
    for name, array in labels.items():
        if len(array) != records:
            raise StageError(
                f'{folder / name}.npy has {len(array)} rows for {records} records; run the stage '
                'annotate again'
            )


def _mixed(log_mel: jax.Array) -> jax.Array:
    """Every video's sound with that of the video before it in the batch: powers add; dB."""
    rate = np.log(10) / 10
    return jnp.logaddexp(rate * log_mel, rate * jnp.roll(log_mel, 1, 0)) / rate

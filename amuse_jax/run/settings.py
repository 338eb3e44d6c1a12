"""Checks of the config's values, made before a run starts."""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.annotate import sources
from amuse_jax.config import HEADS, PARTS, setting
from amuse_jax.errors import StageError
from amuse_jax.features import catalogue
from amuse_jax.parsing import parse_steps, parse_trainable
from amuse_jax.run import made_from, needs
from amuse_jax.system import paths
from amuse_jax.system.sharded import part_slice

STEMS = ('truth', 'uss', 'uss-tags', 'tags')
TRACKERS = ('librosa', 'tempo')
CACHES = ('auto', 'device', 'host', 'disk')
TOWERS_FROM = ('', 'sources')
REMAT_POLICIES = ('everything', 'products', 'attention', 'inputs')
LEAKED = ('refuse', 'apart')
PEER_INPUTS = ('features', 'towers')


def expand_paths(config: ConfigDict) -> None:
    """Replace `~` and drop trailing slashes in every setting that names a file or a folder.

    Names on the hub stay as they are.

    Raises:
      StageError: a setting is an address such as gs://BUCKET/DIR.
    """

    def expand(name: str, text: str) -> str:
        return str(paths.from_user(text, f'config.{name}')) if text else ''

    for name in (*made_from.PATHS, *made_from.ROOTS):
        config.update_from_flattened_dict({name: expand(name, setting(config, name))})
    for name in made_from.VIDEO_FOLDERS:
        folders = [expand(name, folder.strip()) for folder in setting(config, name).split(',')]
        config.update_from_flattened_dict({name: ','.join(filter(None, folders))})


def check(config: ConfigDict) -> None:
    """Refuse values with which no run could work.

    Raises:
      StageError: one sentence about the first wrong value.
    """
    _one_of('without', config.without, ('', *PARTS))
    _one_of('sources.stems', config.sources.stems, STEMS)
    _one_of('rhythm.tracker', config.rhythm.tracker, TRACKERS)
    _one_of('train.cache', config.train.cache, CACHES)
    _one_of('train.towers_from', config.train.towers_from, TOWERS_FROM)
    for name in config.features.arrays:
        _one_of('features.arrays', name, catalogue.ARRAYS)
    for name in ('data.annotations', 'evaluate.data.annotations'):
        _one_of(name, setting(config, name), music_avqa.SCHEMES)
    _one_of('loop.remat_policy', config.loop.remat_policy, REMAT_POLICIES)
    _one_of('evaluate.leaked', config.evaluate.leaked, LEAKED)
    _one_of('peer.inputs', config.peer.inputs, PEER_INPUTS)
    _one_of('model.dtype', config.model.dtype, ('float32', 'bfloat16'))
    _one_of('model.head', config.model.head, HEADS)
    for name in POSITIVE:
        value = setting(config, name)
        if not value > 0:  # nor NaN
            raise StageError(f'config.{name} is {value}; expected a positive number')
    for name in NOT_NEGATIVE:
        value = setting(config, name)
        if not value >= 0:
            raise StageError(f'config.{name} is {value}; expected 0 or a positive number')
    for name in SHARES:
        value = setting(config, name)
        if not 0 <= value <= 1:
            raise StageError(f'config.{name} is {value}; expected a share, from 0 to 1')
    if config.train.batch_size % (config.train.parts or 1):
        raise StageError(
            f'config.train.batch_size is {config.train.batch_size}; expected a multiple of '
            f'config.train.parts, which is {config.train.parts}'
        )
    try:
        parse_steps(config.loop.profile_steps)
    except ValueError as error:
        raise StageError(str(error)) from error
    if config.data.part:
        try:
            part_slice(config.data.part)
        except ValueError as error:
            raise StageError(f'config.data.part: {error}') from error
        if config.data.beam:
            raise StageError(
                'config.data.part and config.data.beam are both set; expected one of them, because '
                'a Beam pipeline shares out the work itself'
            )
    if config.data.beam and importlib.util.find_spec('apache_beam') is None:
        raise StageError(
            'config.data.beam is set, but Apache Beam is not installed; run '
            "pip install '.[beam]', or leave it empty to use worker processes"
        )
    sources.windows_per_segment(config.data.segment_seconds, config.sources.window_seconds)
    _check_training(config)
    _check_towers(config)
    _check_peer(config)


def check_workdir(workdir: Path) -> None:
    """Refuse a workdir that is, or is inside of, something else than a folder.

    Raises:
      StageError: the message names what was found.
    """
    for path in (workdir, *workdir.parents):
        if path.exists():
            if not path.is_dir():
                raise StageError(
                    f'--workdir is {workdir}, but {path} is a file; expected a folder, which is '
                    'made if it does not exist'
                )
            return


def check_data(config: ConfigDict) -> None:
    """Refuse a config that neither names a data set nor renders one.

    Raises:
      StageError: no data; for a config of MUSIC-AVQA, the message says how to get the data set.
    """
    if config.data.root:
        if not Path(config.data.root).is_dir():
            raise StageError(
                f'config.data.root is {config.data.root!r}, which is not a folder; expected the '
                'folder that holds videos/ and the annotation files'
            )
    elif not config.synthetic.videos:
        if config.data.annotations != 'plain':
            raise StageError(needs.message(config))
        raise StageError(
            'no data: config.data.root is empty and config.synthetic.videos is 0; set '
            '--config.data.root=DIR to the folder of the data set, or render one with '
            '--config=configs/demo.py'
        )
    other = config.evaluate.data.root
    if other and not Path(other).is_dir():
        raise StageError(
            f'config.evaluate.data.root is {other!r}, which is not a folder; expected the folder '
            "of another data set to evaluate on, or '' for the run's own test questions"
        )


POSITIVE = (
    'data.segments',
    'data.segment_seconds',
    'data.image_size',
    'data.shard_videos',
    'data.read_seconds',
    'data.read_gigabytes',
    'audio.sample_rate',
    'audio.window',
    'audio.hop',
    'audio.mels',
    'rhythm.segment_seconds',
    'rhythm.threshold',
    'sources.window_seconds',
    'rois.image_size',
    'rois.regions',
    'rois.detector.epochs',
    'rois.detector.batch_size',
    'rois.detector.learning_rate',
    'pretrain.batch_size',
    'pretrain.segments',
    'pretrain.learning_rate',
    'pretrain.predictor_learning_rate',
    'train.batch_size',
    'train.questions',
    'train.learning_rate',
    'train.head_learning_rate',
    'train.halve_every',
    'peer.epochs',
    'peer.batch_size',
    'peer.questions',
    'peer.learning_rate',
    'peer.width',
    'peer.grounding.batch_size',
    'peer.grounding.learning_rate',
    'loop.log_steps',
    'loop.keep',
    'evaluate.batch_size',
)
NOT_NEGATIVE = (
    'data.workers',
    'pretrain.batch_per_device',
    'train.batch_per_device',
    'pretrain.warmup_epochs',
    'pretrain.clip_norm',
    'train.parts',
    'train.warmup_epochs',
    'train.clip_norm',
    'rois.detector.frames',
    'pretrain.predictor_epochs',
    'pretrain.epochs',
    'train.head_epochs',
    'train.epochs',
    'train.open_questions',
    'train.head_warmup_epochs',
    'train.gain_db',
    'peer.patience',
    'peer.decay_every',
    'peer.weight_decay',
    'peer.match_weight',
    'peer.grounding.epochs',
    'loop.checkpoint_seconds',
    'loop.max_refused',
    'loop.stuck_seconds',
    'evaluate.examples',
)
SHARES = (
    'data.max_broken_share',
    'pretrain.val_share',
    'rois.min_score',
    'rois.max_overlap',
    'pretrain.swap',
    'pretrain.mix',
    'train.mirror',
    'train.time_shift',
    'train.head_final_share',
    'peer.dropout',
    'peer.disturb.drop_path',
)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        expected = ', '.join(repr(choice) for choice in allowed)
        raise StageError(f'config.{name} is {value!r}; expected one of {expected}')


def _check_training(config: ConfigDict) -> None:
    """Refuse what training would refuse after the stages before it."""
    if not config.train.head_epochs + config.train.epochs:
        raise StageError(
            'config.train.head_epochs and config.train.epochs are both 0; set one of them'
        )
    if not config.pretrain.predictor_epochs + config.pretrain.epochs:
        raise StageError(
            'config.pretrain.predictor_epochs and config.pretrain.epochs are both 0; set one of '
            'them'
        )
    for name in ('pretrain.trainable', 'train.trainable', 'peer.trainable'):
        try:
            parse_trainable(setting(config, name))
        except ValueError as error:
            raise StageError(f'config.{name} is {error}') from error


def _check_peer(config: ConfigDict) -> None:
    """Refuse what only Amuse can do."""
    name = config.peer.name
    if not name:
        return
    if config.without:
        raise StageError(
            f'config.without is {config.without!r} and config.peer.name is {name!r}; expected one '
            'of them, because only Amuse has parts to leave out'
        )
    if config.evaluate.data.root:
        raise StageError(
            f'config.evaluate.data.root is {config.evaluate.data.root!r}, and config.peer.name is '
            f'{name!r}; expected one of them: a peer is evaluated on the test questions of its own '
            'data set, and on the rephrased ones in config.data.rephrased'
        )
    if config.peer.grounding.epochs and name != 'avst':
        raise StageError(
            f'config.peer.grounding.epochs is {config.peer.grounding.epochs} for {name}; expected '
            '0, because AVST alone has a first stage of its own'
        )
    if config.peer.grounding.weights and name not in ('avst', 'lavish'):
        raise StageError(
            f'config.peer.grounding.weights is {config.peer.grounding.weights!r} for {name}; '
            "expected '', because only AVST and LAVISH start from the weights of AVST's first stage"
        )


def _check_towers(config: ConfigDict) -> None:
    rounds = config.model.adapters.rounds
    layers = {
        'visual.depths[2]': config.model.visual.depths[2],
        'audio.depths[2]': config.model.audio.depths[2],
        'text.depth': config.model.text.depth,
    }
    for name, depth in layers.items():
        if depth % rounds:
            raise StageError(
                f'config.model.{name} is {depth}, which is not a multiple of the '
                f'{rounds} rounds in config.model.adapters.rounds'
            )
    if config.model.visual.image_size != config.data.image_size:
        raise StageError(
            f'config.model.visual.image_size is {config.model.visual.image_size}, but frames are '
            f'prepared at config.data.image_size = {config.data.image_size}; make them equal'
        )
    if config.audio.mels and config.model.audio.image_size % config.audio.mels:
        raise StageError(
            f'config.model.audio.image_size is {config.model.audio.image_size}; expected a '
            f'multiple of config.audio.mels = {config.audio.mels}'
        )
    windows = config.model.visual.pretrained_windows
    if len(windows) != 4 or any(not isinstance(w, int) or w < 0 for w in windows):
        raise StageError(
            f'config.model.visual.pretrained_windows is {tuple(windows)}; expected the windows of '
            'the four stages in tokens, such as (12, 12, 12, 6), or 0 for those of the model'
        )
    if config.pretrain.segments > config.data.segments:
        raise StageError(
            f'config.pretrain.segments is {config.pretrain.segments}; expected at most '
            f'config.data.segments = {config.data.segments}'
        )

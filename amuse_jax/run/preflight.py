"""Checks for the external files and packages that a run needs, apart from its videos.

They run before the first stage, because preparing the videos takes hours before the first weights
are read. They cover only the stages that are not complete.
"""

import importlib.util
from collections.abc import Collection
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError
from amuse_jax.features import stage as features
from amuse_jax.parsing import parse_trainable
from amuse_jax.pretrained import separation, tagging, towers
from amuse_jax.regions import stage as regions
from amuse_jax.run import peers
from amuse_jax.system import paths


def check(config: ConfigDict, pending: Collection[str]) -> None:
    """Check everything that the pending stages will read, and download missing hub files.

    The checkpoints of the towers, the tagger, the detector and the networks of `features` are read
    and compared with the models; those of the source separation, which is a package of its own, are
    only looked at.

    Args:
      config: the run's config.
      pending: names of the stages that are not complete.

    Raises:
      StageError: something is missing or does not fit; the message says what to do.
    """
    if 'annotate' in pending and not config.data.beam:  # Beam's workers have their own packages
        _check_source_separation(config)
    if 'train' in pending and config.peer.name:
        peers.check_towers(config)
        peers.check_grounding(config)
    elif 'train' in pending:
        _check_frozen_towers(config)
        QuestionTokenizer(config.model.text)
    for part in _towers_read(config, pending):
        towers.check(config, part)
    if 'features' in pending:
        features.check(config)
    if 'rois' in pending:
        _check_detector(config)  # last, like `features`, because it starts a process


def _check_source_separation(config: ConfigDict) -> None:
    settings = config.sources
    if settings.stems in ('uss', 'uss-tags'):
        separation.check(settings.weights, only_classify=settings.stems == 'uss-tags')
    elif settings.stems == 'tags':
        if not settings.weights:
            raise StageError(
                "config.sources.stems is 'tags', but config.sources.weights is empty; set "
                "--config.sources.weights=F to HTS-AT's AudioSet checkpoint "
                '(HTSAT_AudioSet_Saved_1.ckpt from its release)'
            )
        tagging.check(settings.weights)
    elif config.data.root and not _has_truth(config):
        raise StageError(
            f"config.sources.stems is 'truth', but the data set {config.data.root} has no "
            'truth/*.json: only rendered performances have stems; set config.sources.stems '
            "to 'uss' or 'tags'"
        )


def _check_detector(config: ConfigDict) -> None:
    if importlib.util.find_spec('ultralytics') is None:
        raise StageError(
            'the stage rois needs a detector, and the package ultralytics is not installed; run '
            "pip install '.[offline]'"
        )
    weights = config.rois.weights
    if weights and not paths.from_user(weights, 'config.rois.weights').is_file():
        raise StageError(
            f'config.rois.weights: there is no file {weights}; expected the .pt file of a YOLOv8 '
            'detector, in the format of ultralytics'
        )
    if not weights and config.data.root and not _has_boxes(config):
        raise StageError(
            f'config.rois.weights is empty, and the data set {config.data.root} has no boxes to '
            'train a detector on (truth/*.json for videos of the train split); set '
            "--config.rois.weights=F to the .pt file of a YOLOv8 detector, such as ultralytics' "
            'yolov8n-oiv7.pt, which knows instruments'
        )
    if weights:
        regions.check_weights(config)


def _has_boxes(config: ConfigDict) -> bool:
    """Return whether boxes of train videos may be known; other videos train no detector."""
    if not _has_truth(config):
        return False
    root, data = Path(config.data.root), config.data
    questions = music_avqa.read(root, data.annotations, data.rephrased, ('train',)).questions
    videos = {question.video_id for question in questions['train']}
    return any(Path(root, 'truth', f'{video_id}.json').is_file() for video_id in videos)


def _has_truth(config: ConfigDict) -> bool:
    return next(Path(config.data.root, 'truth').glob('*.json'), None) is not None


def _check_frozen_towers(config: ConfigDict) -> None:
    """Refuse a frozen tower without a checkpoint: it would keep its random weights."""
    trainable = parse_trainable(config.train.trainable)
    for part in towers.PARTS if _starts_from_checkpoints(config) else ('text',):
        if not config.checkpoints[part] and not trainable.search(f'encoder.{part}.'):
            from_pretraining = 'take it from pretraining (--config.train.towers_from=sources), '
            raise StageError(
                f'the {part} tower would keep its random weights: config.checkpoints.{part} is '
                f'empty and config.train.trainable, {config.train.trainable!r}, does not name it; '
                f'name a checkpoint (--config.checkpoints.{part}=F), '
                f'{"" if part == "text" else from_pretraining}or train it'
            )


def _towers_read(config: ConfigDict, pending: Collection[str]) -> list[str]:
    """Return the towers whose checkpoints pretraining or Amuse reads, in `init_towers`."""
    trains_amuse = 'train' in pending and not config.peer.name
    parts = ['text'] if trains_amuse else []
    if 'pretrain' in pending or (trains_amuse and _starts_from_checkpoints(config)):
        parts += ['visual', 'audio']
    return parts


def _starts_from_checkpoints(config: ConfigDict) -> bool:
    """Return whether Amuse has visual and audio towers that are not copied from pretraining."""
    return config.without != 'encoder' and config.train.towers_from != 'sources'

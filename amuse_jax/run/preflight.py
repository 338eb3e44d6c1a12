"""What a run takes from outside beside its videos: weights, and packages of an extra.

It is looked for before the first stage starts, and only for the stages that are still to be made:
videos are prepared for hours before the first weights are read.
"""

import importlib.util
import re
from collections.abc import Collection
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError
from amuse_jax.pretrained import files, separation, towers


def check(config: ConfigDict, todo: Collection[str]) -> None:
    """Looks for all that the stages named in `todo` will read; downloads what is on the hub.

    Raises:
      StageError: what is missing, and how to bring it.
    """
    if 'annotate' in todo and not config.data.beam:  # whose workers have packages of their own
        _check_sources(config)
    if 'rois' in todo:
        _check_detector(config)
    if 'train' in todo:
        _check_frozen(config)
        QuestionTokenizer(config.model.text)
    for part in _parts_read(config, todo):
        towers.look_for(config, part)


def _check_sources(config: ConfigDict) -> None:
    settings = config.sources
    if settings.stems == 'uss':
        separation.check(settings.weights)
    elif settings.stems == 'tags':
        if not settings.weights:
            raise StageError(
                "config.sources.stems is 'tags', but config.sources.weights is empty; set "
                "--config.sources.weights=F to HTS-AT's AudioSet checkpoint "
                '(HTSAT_AudioSet_Saved_1.ckpt of its release)'
            )
        files.fetch(settings.weights)
    elif config.data.root and not _has_truth(config):
        raise StageError(
            f"config.sources.stems is 'truth', but the data set {config.data.root} has no "
            'truth/*.json: only rendered performances have their stems; set config.sources.stems '
            "to 'uss' or 'tags'"
        )


def _check_detector(config: ConfigDict) -> None:
    if importlib.util.find_spec('ultralytics') is None:
        raise StageError(
            'the stage rois needs a detector, and the package ultralytics is not installed; run '
            "pip install '.[offline]'"
        )
    weights = config.rois.weights
    if weights and not Path(weights).expanduser().is_file():
        raise StageError(
            f'config.rois.weights: there is no file {weights}; expected the .pt file of a YOLOv8 '
            'detector, as ultralytics saves it'
        )
    if not weights and config.data.root and not _has_truth(config):
        raise StageError(
            f'config.rois.weights is empty, and the data set {config.data.root} has no boxes to '
            'train a detector on (truth/*.json); set --config.rois.weights=F to the .pt file of a '
            "YOLOv8 detector, such as ultralytics' yolov8n-oiv7.pt, which knows instruments"
        )


def _has_truth(config: ConfigDict) -> bool:
    return next(Path(config.data.root, 'truth').glob('*.json'), None) is not None


def _check_frozen(config: ConfigDict) -> None:
    """Refuses a tower that would stay as it was drawn: it starts from nothing and never learns."""
    try:
        trainable = re.compile(config.train.trainable)
    except re.error:  # the stage says so
        return
    for part in towers.PARTS if _starts_from_checkpoints(config) else ('text',):
        if not config.checkpoints[part] and not trainable.search(f'encoder.{part}.'):
            sources = 'take them from pretraining (--config.train.towers_from=sources), '
            raise StageError(
                f'the {part} tower would keep its random weights: config.checkpoints.{part} is '
                f'empty and config.train.trainable, {config.train.trainable!r}, does not name it; '
                f'name a checkpoint (--config.checkpoints.{part}=F), '
                f'{"" if part == "text" else sources}or train it'
            )


def _parts_read(config: ConfigDict, todo: Collection[str]) -> list[str]:
    """The towers whose checkpoints are read: see start_towers of training's two stages."""
    parts = ['text'] if 'train' in todo else []
    if 'pretrain' in todo or ('train' in todo and _starts_from_checkpoints(config)):
        parts += ['visual', 'audio']
    return parts


def _starts_from_checkpoints(config: ConfigDict) -> bool:
    """Whether Amuse has a visual and an audio tower that are not copied from pretraining."""
    return config.without != 'encoder' and config.train.towers_from != 'sources'

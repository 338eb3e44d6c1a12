"""The message that tells a user which data and weights a config needs, and where to put them."""

import dataclasses
import textwrap

from ml_collections import ConfigDict

from amuse_jax.features import catalogue
from amuse_jax.music_avqa import layout, published_files


@dataclasses.dataclass(frozen=True)
class Release:
    """One published version of MUSIC-AVQA.

    Attributes:
      title: the version's name.
      videos: the number of videos, each 60 s long.
      video_size: the size of all videos.
      annotation_size: the size of the annotation files.
      source: the authors' repositories, which say how to get the data.
    """

    title: str
    videos: int
    video_size: str
    annotation_size: str
    source: str


_TAGGER = 'HTSAT_AudioSet_Saved_1.ckpt'  # published with HTS-AT

# Version 1 has 36.67 GB of recorded and 11.59 GB of synthetic videos (from its README). Version 2
# states no size; its additional videos are assumed to be as large as recorded ones, 5 MB each. The
# annotation files that could be measured have 272 bytes per row.
_V1 = Release(
    'MUSIC-AVQA v1', 9_288, '48.3 GB', '45,624 rows, 12 MB', 'GeWu-Lab/MUSIC-AVQA on GitHub'
)
_V2 = Release(
    'MUSIC-AVQA v2',
    _V1.videos + published_files.ADDITIONAL_VIDEOS,
    'about 54 GB',
    'about 53,000 rows, 14 MB',
    'GeWu-Lab/MUSIC-AVQA and DragonLiu1995/MUSIC-AVQA-v2.0 on GitHub',
)


_OF_AMUSE = (
    "  WEIGHTS, a YOLOv8 detector: ultralytics' yolov8n-oiv7.pt, or a .pt file of your own",
    "  source separation: pip install '.[uss]', which downloads its weights; or else",
    f'      --config.sources.stems=tags --config.sources.weights={_TAGGER}',
)
_CHECKPOINTS = (
    "  the towers' checkpoints, downloaded from the Hugging Face hub at the start; offline",
    '      name files, or folders written by `python -m amuse_jax.pretrained convert`:',
    '      --config.checkpoints.visual=F and so on, --config.model.text.tokenizer=F',
)


def message(config: ConfigDict) -> str:
    """Return a message, one screen long, that lists everything the user must provide."""
    scheme = config.data.annotations
    release = _V2 if scheme.startswith('v2') else _V1
    files = [
        f'DIR/{names[0]}'
        for split, names in layout.FILES[scheme].items()
        if not layout.is_optional(scheme, split)
    ]
    if release is _V2:
        files.append(f'DIR/{layout.ADDITIONAL_VIDEOS}    (for the check)')
    size = (
        f'{release.videos:,} videos of 60 s, {release.videos / 60:.0f} hours, {release.video_size}'
    )
    start = f'python -m amuse_jax.main --config=configs/{config.name}.py'
    return '\n'.join(
        [
            f'no data: config.data.root is empty, and {release.title} is not part of this project.',
            '',
            'Needed, in one folder of any name (DIR):',
            f'  DIR/videos/<video_id>.mp4    {size}',
            '      or as unpacked (data/video, MUSIC-AVQA-videos-*); elsewhere: '
            '--config.data.videos=DIR1,DIR2',
            *(f'  {file}' for file in files),
            f'      {release.annotation_size}; the files may also lie directly in DIR',
            f'How to get them: {release.source}; for research only.',
            f'Written in --workdir: at most {_disk_space(config, release.videos)}.',
            '',
            'Also needed:',
            *(() if config.peer.name else _OF_AMUSE),
            *(_CHECKPOINTS if not config.peer.name or any(config.checkpoints.values()) else ()),
            *_weights_of_features(config),
            '',
            'Check DIR:        python -m amuse_jax.music_avqa check --root=DIR '
            f'--annotations={scheme}',
            f'Start:            {start} --config.data.root=DIR'
            + ('' if config.peer.name else ' \\\n' + 22 * ' ' + '--config.rois.weights=WEIGHTS'),
            'Without any data: python -m amuse_jax.main --config=configs/demo.py',
        ]
    )


def _weights_of_features(config: ConfigDict) -> list[str]:
    """Return lines that name the files that the stage features needs and the config does not."""
    wrap = textwrap.TextWrapper(100, initial_indent='  ', subsequent_indent=6 * ' ')
    wrap.break_on_hyphens = wrap.break_long_words = False
    return [line for text in catalogue.missing_weights(config) for line in wrap.wrap(text)]


def _disk_space(config: ConfigDict, videos: int) -> str:
    """Return the disk space of all stages as text, such as '93 GB (prepare 17, ...)'."""
    from amuse_jax.run import disk  # here, because it imports JAX, which is slow

    left_out = {'render', 'rois', 'pretrain'} if config.peer.name else {'render'}
    sizes = {
        name: stage_bytes(config, videos)
        for name, stage_bytes in disk.STAGE_BYTES.items()
        if name not in left_out
    }
    sizes = {name: size for name, size in sizes.items() if size}  # no features without arrays
    parts = ', '.join(f'{name} {size / 1e9:.0f}' for name, size in sizes.items())
    return f'{sum(sizes.values()) / 1e9:.0f} GB ({parts})'

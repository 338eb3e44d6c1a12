"""What a user has to bring for a config that renders nothing: how much, and where it goes."""

import dataclasses

from ml_collections import ConfigDict

from amuse_jax.music_avqa import layout, published_files


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a version of MUSIC-AVQA consists of.

    Attributes:
      title: its name.
      videos: how many, of 60 s each.
      gigabytes: how much they are.
      annotations: how much the annotation files are.
      source: the repositories of its authors, which say how to get it.
    """

    title: str
    videos: int
    gigabytes: str
    annotations: str
    source: str


_TAGGER = 'HTSAT_AudioSet_Saved_1.ckpt'  # of HTS-AT's release

# Version 1: 36.67 GB of recorded and 11.59 GB of synthetic videos (its README). Version 2 states no
# size; its videos are taken to be as large as recorded ones, 5 MB. Annotation files have 272 bytes
# a row, where they could be measured.
_V1 = Needs(
    'MUSIC-AVQA v1', 9_288, '48.3 GB', '45,624 rows, 12 MB', 'GeWu-Lab/MUSIC-AVQA on GitHub'
)
_V2 = Needs(
    'MUSIC-AVQA v2',
    _V1.videos + published_files.ADDITIONAL_VIDEOS,
    'about 54 GB',
    'about 53,000 rows, 14 MB',
    'GeWu-Lab/MUSIC-AVQA and DragonLiu1995/MUSIC-AVQA-v2.0 on GitHub',
)


def message(config: ConfigDict) -> str:
    """All that is needed, on one screen."""
    scheme = config.data.annotations
    needs = _V2 if scheme.startswith('v2') else _V1
    files = [
        f'DIR/{names[0]}'
        for split, names in layout.FILES[scheme].items()
        if not layout.is_optional(scheme, split)
    ]
    if needs is _V2:
        files.append(f'DIR/{layout.ADDITIONAL_VIDEOS}    (for the check)')
    size = f'{needs.videos:,} videos of 60 s, {needs.videos / 60:.0f} hours, {needs.gigabytes}'
    start = f'python -m amuse_jax.main --config=configs/{config.name}.py'
    return '\n'.join(
        [
            f'no data: config.data.root is empty, and {needs.title} cannot come with this project.',
            '',
            'Needed, in one folder of any name (DIR):',
            f'  DIR/videos/<video_id>.mp4    {size}',
            *(f'  {file}' for file in files),
            f'      {needs.annotations}; the folders between may be left out',
            f'How to get them: {needs.source}; for research only.',
            f'Made of them in --workdir: at most {_disk_space(config, needs.videos)}.',
            '',
            'Needed beside them:',
            "  WEIGHTS, a YOLOv8 detector: ultralytics' yolov8n-oiv7.pt, or a .pt file of your own",
            "  separation of sounds: pip install '.[uss]', which downloads its weights; or else",
            f'      --config.sources.stems=tags --config.sources.weights={_TAGGER}',
            "  the towers' checkpoints, fetched from the Hugging Face hub at the start; without a",
            '      network name files, or folders of `python -m amuse_jax.pretrained convert`:',
            '      --config.checkpoints.visual=F and so on, --config.model.text.tokenizer=F',
            '',
            'Check DIR:         python -m amuse_jax.music_avqa check --root=DIR '
            f'--annotations={scheme}',
            f'Start:             {start} --config.data.root=DIR \\',
            '                       --config.rois.weights=WEIGHTS',
            'Without any data:  python -m amuse_jax.main --config=configs/demo.py',
        ]
    )


def _disk_space(config: ConfigDict, videos: int) -> str:
    """What the stages leave, as '128 GB (prepare 17, ...)'."""
    from amuse_jax.run import disk  # imports JAX, which most commands do not need yet

    found = {name: disk.BYTES[name](config, videos) for name in disk.BYTES if name != 'render'}
    parts = ', '.join(f'{name} {size / 1e9:.0f}' for name, size in found.items())
    return f'{sum(found.values()) / 1e9:.0f} GB ({parts})'

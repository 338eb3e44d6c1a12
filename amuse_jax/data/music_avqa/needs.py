"""What a user has to bring for a config that renders nothing: how much, and where it goes."""

import dataclasses

from ml_collections import ConfigDict

from amuse_jax.data.music_avqa import known, layout


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


# Version 1: 36.67 GB of recorded and 11.59 GB of synthetic videos (its README). Version 2 states no
# size; its videos are taken to be as large as recorded ones, 5 MB. Annotation files have 272 bytes
# a row, where they could be measured.
_V1 = Needs(
    'MUSIC-AVQA v1', 9_288, '48.3 GB', '45,624 rows, 12 MB', 'GeWu-Lab/MUSIC-AVQA on GitHub'
)
_V2 = Needs(
    'MUSIC-AVQA v2',
    _V1.videos + known.ADDITIONAL_VIDEOS,
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
            f'Made of them in --workdir: {_records_gigabytes(config, needs.videos):.0f} GB of '
            "records, and every video's features.",
            '',
            'Check DIR:         python -m amuse_jax.data.music_avqa check --root=DIR '
            f'--annotations={scheme}',
            f'Start:             {start} --config.data.root=DIR',
            'Without any data:  python -m amuse_jax.main --config=configs/demo.py',
        ]
    )


def _records_gigabytes(config: ConfigDict, videos: int) -> float:
    """Of what `prepare` leaves: frames as uint8, log-mel as float16."""
    samples = round(config.data.segment_seconds * config.audio.sample_rate)
    log_mel = 2 * (1 + samples // config.audio.hop) * config.audio.mels
    return videos * config.data.segments * (3 * config.data.image_size**2 + log_mel) / 1e9

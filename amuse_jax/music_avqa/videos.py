"""What the names of videos tell, and version 2's table of additional videos.

Version 1: eight digits for a recorded performance ('00000093'), letters in front of them for a
synthetic one ('sa00007079'). Recorded, sa, va and vv videos share one series of numbers, esa, eva
and evv have their own: the digits do not tell what a synthetic video was made from.
Version 2 adds videos named after YouTube's: 11 characters, which may begin with '-', '_#02' to
'_#05' for further minutes of the same video, '_flip' for a copy that is mirrored left to right.
"""

import csv
import dataclasses
import re
from pathlib import Path

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import rows

SECONDS = 60.0  # that a video lasts, but for a few of version 2's table
_YOUTUBE = re.compile(r'([\w-]{11})(_#\d\d)?(_flip)?', re.ASCII)


@dataclasses.dataclass(frozen=True)
class AdditionalVideo:
    """A file that version 2 adds to version 1.

    Attributes:
      video_id: the file's stem.
      youtube_id: where it is from.
      start_seconds: where it begins there.
      seconds: its length.
      is_mirrored: whether it is a mirrored copy of another file.
    """

    video_id: str
    youtube_id: str
    start_seconds: int
    seconds: int
    is_mirrored: bool


def performance(video_id: str) -> str:
    """What videos of the same players on the same occasion have in common, as far as names tell.

    Minutes of one YouTube video and mirrored copies share it; any other video stands alone.
    """
    match = _YOUTUBE.fullmatch(video_id)
    return match[1] if match else video_id.removesuffix('_flip')


def read_additional(path: Path) -> tuple[dict[str, AdditionalVideo], list[str]]:
    """Reads `MUSIC-AVQA-v2.0_additional_videos.csv`; it begins with a byte order mark.

    Returns:
      The videos by their id, a mirrored copy behind its original; and one sentence for every row
      that was left out, naming file and row (the row under the header is row 0).

    Raises:
      StageError: there is no such file, or it is not that table.
    """
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file)
            columns, table = set(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeError, csv.Error) as error:
        raise StageError(f'{path} is not the table of additional videos: {error}') from error
    missing = {'video_id', 'start_time', 'duration', 'suffix', 'has_flip'} - columns
    if missing:
        raise StageError(
            f'{path} is not the table of additional videos: it has no column '
            f'{", ".join(sorted(missing))}'
        )
    videos, complaints = {}, []
    for number, row in enumerate(table):
        try:
            for video in _of_row(row):
                if video.video_id in videos:
                    raise ValueError(f'{video.video_id} is in the table already')
                videos[video.video_id] = video
        except ValueError as error:
            complaints.append(f'{path.name}, row {number}: {error}')
    return videos, complaints


def _of_row(row: dict[str, str | None]) -> list[AdditionalVideo]:
    youtube_id = row['video_id'] or ''
    name = rows.plain_name(youtube_id + (row['suffix'] or ''), 'video_id')
    if not _YOUTUBE.fullmatch(name):
        raise ValueError(f'{name!r} is not named after a YouTube video')
    if row['has_flip'] not in ('Y', 'N'):
        raise ValueError(f'has_flip is {row["has_flip"]!r}, expected Y or N')
    start, seconds = _seconds(row['start_time']), _seconds(row['duration'])
    names = (name, f'{name}_flip') if row['has_flip'] == 'Y' else (name,)
    return [AdditionalVideo(n, youtube_id, start, seconds, n != name) for n in names]


def _seconds(text: str | None) -> int:
    match = re.fullmatch(r'(\d+):([0-5]\d)', text or '', re.ASCII)
    if not match:
        raise ValueError(f'{text!r} is not a time like 1:05')
    return 60 * int(match[1]) + int(match[2])

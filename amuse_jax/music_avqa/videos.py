"""Names of videos, and version 2's table of additional videos.

Version 1 names a recorded performance by eight digits ('00000093'), and a synthetic one by letters
and eight digits ('sa00007079'). The numbers of recorded, sa, va and vv videos form one series; esa,
eva and evv videos have series of their own. So the digits do not show from which recording a
synthetic video was made.
Version 2 adds videos that have the names of YouTube videos: 11 characters, of which the first may
be '-'. '_#02' to '_#05' mark further minutes of the same video, and '_flip' marks a copy that is
mirrored left to right.
"""

import csv
import dataclasses
import io
import re
from pathlib import Path

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import rows

SECONDS = 60.0  # length of every video, except a few in version 2's table
_YOUTUBE = re.compile(r'([\w-]{11})(_#\d\d)?(_flip)?', re.ASCII)


@dataclasses.dataclass(frozen=True)
class AdditionalVideo:
    """A video that version 2 adds to version 1.

    Attributes:
      video_id: name of the file, without its suffix.
      youtube_id: the YouTube video that it was cut from.
      start_seconds: where it begins in that video.
      seconds: its length.
      is_mirrored: True for a mirrored copy of another file.
    """

    video_id: str
    youtube_id: str
    start_seconds: int
    seconds: int
    is_mirrored: bool


def performance_name(video_id: str) -> str:
    """Return the part of the name that all videos of one performance share.

    The minutes of one YouTube video and the mirrored copies have the same performance name. Any
    other video is a performance of its own, as far as names show.
    """
    match = _YOUTUBE.fullmatch(video_id)
    return match[1] if match else video_id.removesuffix('_flip')


def read_additional(path: Path) -> tuple[dict[str, AdditionalVideo], list[str]]:
    """Read `MUSIC-AVQA-v2.0_additional_videos.csv`, which begins with a byte order mark.

    Returns:
      The videos by video_id, each mirrored copy after its original; and one sentence for every row
      that was left out, with the names of the file and the row (the first row under the header is
      row 0).

    Raises:
      StageError: the file does not exist, or it is not this table.
    """
    try:
        content = rows.read_file(path)
        reader = csv.DictReader(io.StringIO(content.decode('utf-8-sig'), newline=''))
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
            for video in _parse_row(row):
                if video.video_id in videos:
                    raise ValueError(f'{video.video_id} is in the table already')
                videos[video.video_id] = video
        except ValueError as error:
            complaints.append(f'{path.name}, row {number}: {error}')
    return videos, complaints


def _parse_row(row: dict[str, str | None]) -> list[AdditionalVideo]:
    """Return the video of a row, and its mirrored copy if it has one."""
    youtube_id = row['video_id'] or ''
    name = rows.plain_name(youtube_id + (row['suffix'] or ''), 'video_id')
    if not _YOUTUBE.fullmatch(name):
        raise ValueError(f'{name!r} is not named after a YouTube video')
    if row['has_flip'] not in ('Y', 'N'):
        raise ValueError(f'has_flip is {row["has_flip"]!r}, expected Y or N')
    start, seconds = _parse_time(row['start_time']), _parse_time(row['duration'])
    names = (name, f'{name}_flip') if row['has_flip'] == 'Y' else (name,)
    return [AdditionalVideo(n, youtube_id, start, seconds, n != name) for n in names]


def _parse_time(text: str | None) -> int:
    match = re.fullmatch(r'(\d+):([0-5]\d)', text or '', re.ASCII)
    if not match:
        raise ValueError(f'{text!r} is not a time like 1:05')
    return 60 * int(match[1]) + int(match[2])

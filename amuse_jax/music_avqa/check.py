"""Compares the files, counts and videos of a data set's folder with the published data set."""

import collections
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from tabulate import tabulate

from amuse_jax.errors import first_few
from amuse_jax.media import guarded
from amuse_jax.music_avqa import (
    layout,
    probing,
    published_files,
    rows,
    splits,
    video_files,
    videos,
    vocabulary,
)
from amuse_jax.music_avqa.probing import MISSING, SHORT, UNREADABLE, WHOLE, Probe

_COUNTS = 'counts as the published file'
_MAX_REPEATED_SHARE = 0.01  # largest share of a split's questions that may be train questions too


@dataclasses.dataclass
class Report:
    """Results of the check.

    Attributes:
      tables: tables by title; a table is a list of rows, and a row is a dict by column.
      remarks: sentences that the user should know.
      wrong: sentences on problems that make training or evaluation wrong; empty if there are none.
      videos: results for the videos that are not WHOLE, by video_id.
    """

    tables: dict[str, list[dict]] = dataclasses.field(default_factory=dict)
    remarks: list[str] = dataclasses.field(default_factory=list)
    wrong: list[str] = dataclasses.field(default_factory=list)
    videos: dict[str, Probe] = dataclasses.field(default_factory=dict)

    def text(self) -> str:
        """Return the tables and the remarks as text for a terminal, without `wrong`."""
        parts = [
            f'{title}\n\n{tabulate(table, headers="keys", tablefmt="simple")}'
            for title, table in self.tables.items()
        ]
        return '\n\n'.join([*parts, *self.remarks])


def check(
    root: Path,
    scheme: str,
    rephrased: str,
    allowed: float,
    limits: guarded.Limits,
    workers: int,
    folders: str = '',
) -> Report:
    """Compare a data set's folder with the published data set.

    Args:
      root: folder of the data set.
      scheme: one of layout.SCHEMES.
      rephrased: file or folder of MUSIC-AVQA-R, as in config.data.rephrased.
      allowed: largest share of malformed rows, and of unusable videos, that `prepare` accepts.
      limits: limits for reading a video's picture or sound.
      workers: number of processes that read videos; 0 for one per core.
      folders: folders of the videos, as in config.data.videos.

    Raises:
      StageError: a file is not an annotation file, `rephrased` or a folder of videos does not
        exist, or a worker died.
    """
    report = Report()
    located = layout.locate(root, scheme)
    missing = [
        f'{name} is missing; expected it in {root} as {" or ".join(layout.path_suffixes(name))}'
        for split, (name, path) in located.items()
        if path is None and not layout.is_optional(scheme, split)
    ]
    if missing:
        report.wrong += missing
        report.tables['Annotation files'] = [
            {
                'split': split,
                'file': name,
                'found': 'no' if path is None else _relative_path(path, root),
            }
            for split, (name, path) in located.items()
        ]
        return report
    annotations = splits.read(root, scheme, rephrased)
    video_files.search(root, folders)
    rephrased_files = [(path.name, path) for path in layout.find_rephrased(root, rephrased)]
    published = {
        path: known
        for name, path in [*located.values(), *rephrased_files]
        if (known := published_files.find(name)) is not None
    }
    _check_files(report, annotations, published, root, allowed)
    _check_splits(report, annotations, {} if scheme == 'v1-by-video' else published)
    everything = [q for questions in annotations.questions.values() for q in questions]
    names = sorted({name for q in everything for name in (q.video_id, q.sound_id)})
    additional = _read_additional(report, root)
    lengths = [additional[n].seconds if n in additional else videos.SECONDS for n in names]
    found = probing.probe_all(root, folders, names, lengths, limits, workers)
    report.videos = {name: probed for name, probed in found.items() if probed.state != WHOLE}
    _check_videos(report, annotations, found, allowed)
    report.remarks += probing.describe_problems(report.videos, additional, root, folders)
    report.remarks += filter(None, [video_files.describe_doubles(root, folders)])
    return report


def _check_files(
    report: Report,
    annotations: splits.Annotations,
    published: Mapping[Path | None, published_files.PublishedFile],
    root: Path,
    allowed: float,
) -> None:
    """Compare hashes and counts of the annotation files with the published ones."""
    table = []
    for file in annotations.files:
        blob = published_files.git_blob(file.path)
        verdict, is_wrong = _verdict(file, blob, published.get(file.path))
        count = file.rows
        where = _relative_path(file.path, root)
        if is_wrong:
            report.wrong.append(f'{where} {verdict}')
        elif verdict == _COUNTS:
            report.remarks.append(
                f'{where}: its counts agree with those of the published file, but its questions '
                f'and answers were not compared (git blob {blob}, published '
                f'{published[file.path].blob or "unknown"})'
            )
        if len(file.malformed) > allowed * count or not file.questions:
            examples = first_few(file.malformed, '; ')
            report.wrong.append(
                f'{len(file.malformed)} of {count} rows of {where} are malformed: {examples}'
            )
        table.append(
            {
                'split': file.split,
                'file': where,
                'rows': count,
                'malformed': len(file.malformed),
                'git blob': blob[:12],
                'verdict': verdict.partition(':')[0],
            }
        )
    report.tables['Annotation files'] = table
    rephrased = [file for file in annotations.files if file.split == rows.REPHRASED]
    count = sum(file.rows for file in rephrased)
    if rephrased and count != published_files.REPHRASED_ROWS:
        report.remarks.append(
            f'MUSIC-AVQA-R: {count:,} rows, {published_files.REPHRASED_ROWS:,} were published'
        )
    if annotations.remarks:
        report.remarks.append(
            f'{len(annotations.remarks)} rows are not taken as written: '
            f'{first_few(annotations.remarks, "; ")}'
        )


def _verdict(
    file: splits.AnnotationFile, blob: str, published: published_files.PublishedFile | None
) -> tuple[str, bool]:
    """Return a verdict on an annotation file, and whether the file is wrong."""
    name = published_files.name_of(blob)
    if published is None:
        return f'is {name}' if name else 'nothing is known about it', False
    if blob == published.blob:
        return 'is the published file', False
    if name:
        return f'is {name}, another file', True
    differences = _differences(file, published)
    if differences:
        return f'is not the published file: {", ".join(differences)}', True
    if published.rows is None and published.is_copy:
        return 'nothing is known about it', False
    if published.rows is None:
        return f'is not the published file: expected git blob {published.blob}', True
    return _COUNTS, False


def _differences(
    file: splits.AnnotationFile, published: published_files.PublishedFile
) -> list[str]:
    """Return the counts in which a file differs from the published one, as phrases."""
    types = collections.Counter((q.modality, q.kind) for q in file.questions)
    found = {
        'rows': (file.rows, published.rows),
        'videos': (len({q.video_id for q in file.questions}), published.videos),
    }
    for kind, expected in zip(vocabulary.TYPES, published.types or ()):
        found[' '.join(kind)] = types[kind], expected
    return [
        f'{count:,} {what}, expected {expected:,}'
        for what, (count, expected) in found.items()
        if expected is not None and count != expected
    ]


def _check_splits(
    report: Report,
    annotations: splits.Annotations,
    published: Mapping[Path | None, published_files.PublishedFile],
) -> None:
    """Count the questions of each split, and those that are train questions too."""
    known_types = {
        file.split: published[file.path].types
        for file in annotations.files
        if file.path in published and published[file.path].types
    }
    table = []
    for split, questions in annotations.questions.items():
        types = collections.Counter((q.modality, q.kind) for q in questions)
        counts = {split: tuple(types[kind] for kind in vocabulary.TYPES)}
        if split in known_types:
            counts[f'{split}, rows published'] = known_types[split]
        for name, count in counts.items():
            columns = dict(zip(map(_abbreviate, vocabulary.TYPES), count))
            table.append({'split': name, **columns, 'sum': sum(count)})
        if not questions:
            report.wrong.append(f'the split {split} has no question')
    report.tables['Questions, each once'] = table
    train = {question.identity for question in annotations.questions['train']}
    shared = splits.describe_shared_videos(annotations.questions)
    report.remarks += filter(None, [shared])
    for split in ('val', 'test'):
        questions = annotations.questions[split]
        repeated = sum(question.identity in train for question in questions)
        if repeated:
            sentence = f'{repeated} of {len(questions):,} {split} questions are train questions too'
            is_wrong = repeated > _MAX_REPEATED_SHARE * len(questions)
            (report.wrong if is_wrong else report.remarks).append(sentence)


def _check_videos(
    report: Report, annotations: splits.Annotations, found: Mapping[str, Probe], allowed: float
) -> None:
    """Count the videos of each split by state, and the questions that cannot be asked."""
    table = []
    for split, questions in annotations.questions.items():
        named = {name for q in questions for name in (q.video_id, q.sound_id)}
        states = collections.Counter(found[name].state for name in named)
        lost = [q for q in questions if not _can_be_asked(q, found)]
        columns = {state: states[state] for state in (WHOLE, SHORT, UNREADABLE, MISSING)}
        table.append({'split': split, 'videos': len(named), **columns, 'questions lost': len(lost)})
        if split == 'test':
            report.remarks.append(splits.describe_test_set(len(lost), len(questions)))
    report.tables['Videos'] = table
    pairs = {
        (q.video_id, q.sound_id): _can_be_asked(q, found)
        for questions in annotations.questions.values()
        for q in questions
    }
    lost = sum(not usable for usable in pairs.values())
    if lost > allowed * len(pairs):
        report.wrong.append(
            f'{lost:,} of {len(pairs):,} videos cannot be used; prepare accepts at most '
            f'{allowed:.0%} (data.max_broken_share). {splits.advise_on_lost(lost, len(pairs))}'
        )


def _read_additional(report: Report, root: Path) -> dict[str, videos.AdditionalVideo]:
    """Read version 2's table of additional videos, if there is one."""
    path = layout.find_additional(root)
    if path is None:
        return {}
    table, complaints = videos.read_additional(path)
    blob, expected = published_files.git_blob(path), published_files.ADDITIONAL_VIDEOS_BLOB
    if blob != expected:
        report.remarks.append(
            f'{path.name} is not the published file (git blob {blob}, published {expected})'
        )
    if len(table) != published_files.ADDITIONAL_VIDEOS or complaints:
        report.remarks.append(
            f'{path.name}: {len(table):,} videos, {published_files.ADDITIONAL_VIDEOS:,} were '
            f'published. {first_few(complaints, "; ")}'
        )
    return table


def _can_be_asked(question: rows.Question, found: Mapping[str, Probe]) -> bool:
    return found[question.video_id].is_usable and found[question.sound_id].is_usable


def _relative_path(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _abbreviate(kind: tuple[str, str]) -> str:
    """Abbreviate a question type: ('Audio-Visual', 'Counting') -> 'AV Counting'."""
    return f'{"".join(part[0] for part in kind[0].split("-"))} {kind[1]}'

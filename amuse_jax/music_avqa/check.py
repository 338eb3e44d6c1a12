"""Is a folder what was published? Files, counts and videos of a data set against what is known."""

import collections
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from tabulate import tabulate

from amuse_jax.errors import first_few
from amuse_jax.media import guarded
from amuse_jax.music_avqa import layout, probing, published_files, rows, splits, videos, vocabulary
from amuse_jax.music_avqa.probing import MISSING, SHORT, UNREADABLE, WHOLE, Probe

_COUNTS = 'counts as the published file'
_MAX_REPEATED_SHARE = 0.01  # of a split's questions that are train questions too


@dataclasses.dataclass
class Report:
    """What a check found.

    Attributes:
      tables: by title, each a list of rows by column.
      remarks: sentences on what is worth knowing.
      wrong: sentences on what makes training or evaluating wrong; empty if nothing does.
      videos: by video_id, every video that is not WHOLE.
    """

    tables: dict[str, list[dict]] = dataclasses.field(default_factory=dict)
    remarks: list[str] = dataclasses.field(default_factory=list)
    wrong: list[str] = dataclasses.field(default_factory=list)
    videos: dict[str, Probe] = dataclasses.field(default_factory=dict)

    def text(self) -> str:
        """For a terminal; `wrong` is left to the caller."""
        parts = [
            f'{title}\n\n{tabulate(table, headers="keys", tablefmt="simple")}'
            for title, table in self.tables.items()
        ]
        return '\n\n'.join([*parts, *self.remarks])


def check(
    root: Path, scheme: str, rephrased: str, allowed: float, limits: guarded.Limits, workers: int
) -> Report:
    """Compares a data set's folder with what is known of the published one.

    Args:
      root: the folder.
      scheme: one of layout.SCHEMES.
      rephrased: as config.data.rephrased.
      allowed: share of malformed rows or of unusable videos up to which `prepare` goes on.
      limits: of reading a video's picture or sound.
      workers: processes for the videos; 0: one per core.

    Raises:
      StageError: a file is no annotation file, `rephrased` is not there, or a worker died.
    """
    report = Report()
    located = layout.locate(root, scheme)
    missing = [
        f'{name} is missing; expected it in {root} as {" or ".join(layout.ends_of(name))}'
        for split, (name, path) in located.items()
        if path is None and not layout.is_optional(scheme, split)
    ]
    if missing:
        report.wrong += missing
        report.tables['Annotation files'] = [
            {'split': split, 'file': name, 'found': 'no' if path is None else _under(root, path)}
            for split, (name, path) in located.items()
        ]
        return report
    annotations = splits.read(root, scheme, rephrased)
    published = {
        path: published_files.FILES[n] for n, path in located.values() if n in published_files.FILES
    }
    _check_files(report, annotations, published, root, allowed)
    _check_splits(report, annotations, {} if scheme == 'v1-by-video' else published)
    everything = [q for questions in annotations.questions.values() for q in questions]
    names = sorted({name for q in everything for name in (q.video_id, q.sound_id)})
    additional = _additional(report, root)
    lengths = [additional[n].seconds if n in additional else videos.SECONDS for n in names]
    found = probing.probe_all(root, names, lengths, limits, workers)
    report.videos = {name: probed for name, probed in found.items() if probed.state != WHOLE}
    _check_videos(report, annotations, found, allowed)
    report.remarks += probing.advice(report.videos, additional, root)
    return report


def _check_files(
    report: Report,
    annotations: splits.Annotations,
    published: Mapping[Path | None, published_files.KnownFile],
    root: Path,
    allowed: float,
) -> None:
    table = []
    for file in annotations.files:
        blob = published_files.git_blob(file.path)
        verdict, is_wrong = _verdict(file, blob, published.get(file.path))
        count = len(file.questions) + len(file.malformed)
        where = _under(root, file.path)
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
    count = sum(len(file.questions) + len(file.malformed) for file in rephrased)
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
    file: splits.File, blob: str, published: published_files.KnownFile | None
) -> tuple[str, bool]:
    """What a file is, in words, and whether that is wrong."""
    if published is None:
        return 'nothing is known of it', False
    if blob == published.blob:
        return 'is the published file', False
    others = [name for name, other in published_files.FILES.items() if other.blob == blob]
    if others:
        return f'is {others[0]}, another file', True
    differences = _differences(file, published)
    if differences:
        return f'is not the published file: {", ".join(differences)}', True
    if published.rows is None:
        return f'is not the published file: expected git blob {published.blob}', True
    return _COUNTS, False


def _differences(file: splits.File, published: published_files.KnownFile) -> list[str]:
    types = collections.Counter((q.modality, q.kind) for q in file.questions)
    found = {
        'rows': (len(file.questions) + len(file.malformed), published.rows),
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
    published: Mapping[Path | None, published_files.KnownFile],
) -> None:
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
            columns = dict(zip(map(_short, vocabulary.TYPES), count))
            table.append({'split': name, **columns, 'sum': sum(count)})
        if not questions:
            report.wrong.append(f'the split {split} has no question')
    report.tables['Questions, each once'] = table
    train = {question.identity for question in annotations.questions['train']}
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
    table = []
    for split, questions in annotations.questions.items():
        named = {name for q in questions for name in (q.video_id, q.sound_id)}
        states = collections.Counter(found[name].state for name in named)
        lost = [q for q in questions if not _is_askable(q, found)]
        columns = {state: states[state] for state in (WHOLE, SHORT, UNREADABLE, MISSING)}
        table.append({'split': split, 'videos': len(named), **columns, 'questions lost': len(lost)})
        if split == 'test':
            report.remarks.append(_on_test(len(lost), len(questions)))
    report.tables['Videos'] = table
    pairs = {
        (q.video_id, q.sound_id): _is_askable(q, found)
        for questions in annotations.questions.values()
        for q in questions
    }
    lost = sum(not usable for usable in pairs.values())
    if lost > allowed * len(pairs):
        report.wrong.append(
            f'{lost:,} of {len(pairs):,} videos cannot be used; prepare goes on with at most '
            f'{allowed:.0%} of them missing (data.max_broken_share)'
        )


def _additional(report: Report, root: Path) -> dict[str, videos.AdditionalVideo]:
    path = layout.find_additional(root)
    if path is None:
        return {}
    table, complaints = videos.read_additional(path)
    if len(table) != published_files.ADDITIONAL_VIDEOS or complaints:
        report.remarks.append(
            f'{path.name}: {len(table):,} videos, {published_files.ADDITIONAL_VIDEOS:,} were '
            f'published. {first_few(complaints, "; ")}'
        )
    return table


def _is_askable(question: rows.Question, found: Mapping[str, Probe]) -> bool:
    return found[question.video_id].is_usable and found[question.sound_id].is_usable


def _on_test(lost: int, questions: int) -> str:
    if not lost:
        return f'The test set is whole: {questions:,} questions.'
    return (
        f'The test set changes: {lost:,} of {questions:,} questions cannot be asked. Say so with '
        'every accuracy; it cannot be compared with published ones.'
    )


def _under(root: Path, path: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _short(kind: tuple[str, str]) -> str:
    """('Audio-Visual', 'Counting') -> 'AV Counting'."""
    return f'{"".join(part[0] for part in kind[0].split("-"))} {kind[1]}'

"""Is a folder what was published? Files, counts and videos of a data set against what is known."""

import collections
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
from collections.abc import Iterable, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from amuse_jax import shards, stages
from amuse_jax.data import media, video, vocabulary
from amuse_jax.data.music_avqa import known, layout, rows, splits, videos

MISSING, UNREADABLE, SHORT, WHOLE = 'missing', 'unreadable', 'short', 'whole'

_NAMED = 5  # examples in a sentence
_TOLERANCE_SECONDS = 1.0  # a video of 60 s may end that much earlier
_MAX_REPEATED_SHARE = 0.01  # of a split's questions that are train questions too
_CHUNK = 8  # videos that a worker takes at once


@dataclasses.dataclass(frozen=True)
class Probe:
    """What became of one video: MISSING, UNREADABLE, SHORT or WHOLE, and why."""

    state: str
    reason: str = ''

    @property
    def is_usable(self) -> bool:
        return self.state in (SHORT, WHOLE)


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


def check(root: Path, scheme: str, rephrased: str, allowed: float, workers: int) -> Report:
    """Compares a data set's folder with what is known of the published one.

    Args:
      root: the folder.
      scheme: one of layout.SCHEMES.
      rephrased: as config.data.rephrased.
      allowed: share of malformed rows or of unusable videos up to which `prepare` goes on.
      workers: processes that read videos; 0: one per core.

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
    published = {path: known.FILES[n] for n, path in located.values() if n in known.FILES}
    _check_files(report, annotations, published, root, allowed)
    _check_splits(report, annotations, {} if scheme == 'v1-by-video' else published)
    _check_videos(report, annotations, root, allowed, workers)
    return report


def probe(path: Path, seconds: float = videos.SECONDS) -> Probe:
    """Reads a video as `prepare` does, but only its first and last pictures and a coarse sound."""
    if not path.is_file():
        return Probe(MISSING)
    try:
        moments = [_TOLERANCE_SECONDS, seconds - _TOLERANCE_SECONDS]
        _, shown = video.read_frames(path, moments, 8)
        _, sounding = video.read_audio(path, 8000, seconds)
    except media.MediaError as error:
        return Probe(UNREADABLE, error.reason)
    if not shown.any():
        return Probe(UNREADABLE, 'it shows nothing')
    if sounding < seconds - _TOLERANCE_SECONDS:
        return Probe(SHORT, f'its sound lasts {sounding:.1f} s of {seconds:g}')
    if not shown[1]:
        return Probe(SHORT, f'its picture ends more than {_TOLERANCE_SECONDS:g} s early')
    return Probe(WHOLE)


def _check_files(
    report: Report,
    annotations: splits.Annotations,
    published: Mapping[Path | None, known.KnownFile],
    root: Path,
    allowed: float,
) -> None:
    table = []
    for file in annotations.files:
        blob = known.git_blob(file.path)
        verdict, is_wrong = _verdict(file, blob, published.get(file.path))
        count = len(file.questions) + len(file.malformed)
        where = _under(root, file.path)
        if is_wrong:
            report.wrong.append(f'{where} {verdict}')
        if len(file.malformed) > allowed * count or not file.questions:
            examples = _some(file.malformed, '; ')
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
    if rephrased and count != known.REPHRASED_ROWS:
        report.remarks.append(
            f'MUSIC-AVQA-R: {count:,} rows, {known.REPHRASED_ROWS:,} were published'
        )
    if annotations.remarks:
        report.remarks.append(
            f'{len(annotations.remarks)} rows are not taken as written: '
            f'{_some(annotations.remarks, "; ")}'
        )


def _verdict(file: splits.File, blob: str, published: known.KnownFile | None) -> tuple[str, bool]:
    """What a file is, in words, and whether that is wrong."""
    if published is None:
        return 'nothing is known of it', False
    if blob == published.blob:
        return 'is the published file', False
    others = [name for name, other in known.FILES.items() if other.blob == blob]
    if others:
        return f'is {others[0]}, another file', True
    differences = _differences(file, published)
    if differences:
        return f'is not the published file: {", ".join(differences)}', True
    if published.rows is None:
        return f'is not the published file: expected git blob {published.blob}', True
    return 'counts as the published file', False


def _differences(file: splits.File, published: known.KnownFile) -> list[str]:
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
    published: Mapping[Path | None, known.KnownFile],
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
    report: Report, annotations: splits.Annotations, root: Path, allowed: float, workers: int
) -> None:
    everything = [q for questions in annotations.questions.values() for q in questions]
    names = sorted({name for q in everything for name in (q.video_id, q.sound_id)})
    additional = _additional(report, root)
    lengths = [additional[n].seconds if n in additional else videos.SECONDS for n in names]
    found = dict(zip(names, _probe_all(root, names, lengths, workers)))
    report.videos = {name: probed for name, probed in found.items() if probed.state != WHOLE}

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
    pairs = {(q.video_id, q.sound_id): _is_askable(q, found) for q in everything}
    lost = sum(not usable for usable in pairs.values())
    if lost > allowed * len(pairs):
        report.wrong.append(
            f'{lost:,} of {len(pairs):,} videos cannot be used; prepare goes on with at most '
            f'{allowed:.0%} of them missing (data.max_broken_share)'
        )
    report.remarks += _on_videos(report.videos, additional, root)


def _additional(report: Report, root: Path) -> dict[str, videos.AdditionalVideo]:
    path = layout.find_additional(root)
    if path is None:
        return {}
    table, complaints = videos.read_additional(path)
    if len(table) != known.ADDITIONAL_VIDEOS or complaints:
        report.remarks.append(
            f'{path.name}: {len(table):,} videos, {known.ADDITIONAL_VIDEOS:,} were published. '
            f'{_some(complaints, "; ")}'
        )
    return table


def _probe_all(root: Path, names: list[str], lengths: list[float], workers: int) -> Iterable[Probe]:
    paths = [layout.video_path(root, name) for name in names]
    workers = min(workers or os.cpu_count(), -(-len(paths) // _CHUNK))
    progress = dict(total=len(paths), desc='check', unit='video')
    if workers <= 1:
        return [probe(*each) for each in tqdm(zip(paths, lengths), **progress)]
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=shards.end_with_parent
    ) as pool:
        try:
            return list(tqdm(pool.map(probe, paths, lengths, chunksize=_CHUNK), **progress))
        except BrokenProcessPool as error:
            raise stages.StageError(
                'a process died while it read videos; --workers=1 shows where'
            ) from error


def _is_askable(question: rows.Question, found: Mapping[str, Probe]) -> bool:
    return found[question.video_id].is_usable and found[question.sound_id].is_usable


def _on_test(lost: int, questions: int) -> str:
    if not lost:
        return f'The test set is whole: {questions:,} questions.'
    return (
        f'The test set changes: {lost:,} of {questions:,} questions cannot be asked. Say so with '
        'every accuracy; it cannot be compared with published ones.'
    )


def _on_videos(
    not_whole: Mapping[str, Probe], additional: Mapping[str, videos.AdditionalVideo], root: Path
) -> list[str]:
    """Names of the videos that are not whole, and what helps."""
    remarks = []
    for state in (MISSING, UNREADABLE, SHORT):
        named = {name: probed for name, probed in not_whole.items() if probed.state == state}
        if named:
            described = [f'{n} ({p.reason})' if p.reason else n for n, p in named.items()]
            remarks.append(f'{len(named):,} videos {state}: {_some(described, ", ")}')
    missing = {name for name, probed in not_whole.items() if probed.state == MISSING}
    elsewhere = [path for path in root.rglob('*.mp4') if path.stem in missing] if missing else []
    if elsewhere:
        remarks.append(
            f'{len(elsewhere):,} of the missing videos lie elsewhere in {root}, such as '
            f'{elsewhere[0]}; move or link them into {root / "videos"}'
        )
    originals = {name.removesuffix('_flip') for name in missing if name.endswith('_flip')}
    copies = [name for name in originals if layout.video_path(root, name).is_file()]
    if copies:
        remarks.append(
            f'{len(copies):,} of the missing videos are mirrored copies of videos that are there: '
            'ffmpeg -i file:X.mp4 -vf hflip -c:a copy file:X_flip.mp4 makes them'
        )
    wanted = [additional[name] for name in sorted(missing & additional.keys())]
    wanted = [each for each in wanted if not each.is_mirrored]
    if wanted:
        described = [
            f'{each.video_id}.mp4 from second {each.start_seconds} of {each.youtube_id}'
            for each in wanted
        ]
        remarks.append(f"To be cut from YouTube's videos: {_some(described, ', ')}")
    return remarks


def _under(root: Path, path: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _short(kind: tuple[str, str]) -> str:
    """('Audio-Visual', 'Counting') -> 'AV Counting'."""
    return f'{"".join(part[0] for part in kind[0].split("-"))} {kind[1]}'


def _some(sentences: Iterable[str], separator: str) -> str:
    sentences = list(sentences)
    more = [f'and {len(sentences) - _NAMED:,} more'] if len(sentences) > _NAMED else []
    return separator.join([*sentences[:_NAMED], *more])


def write_json(report: Report, path: Path) -> None:
    """Everything that was found, with every video's name."""
    path.write_text(json.dumps(dataclasses.asdict(report), indent=1) + '\n')

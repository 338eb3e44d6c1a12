"""The stages of a run, in order, and the commands that run them or use their results."""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from amuse_jax.annotate import stage as annotate
from amuse_jax.ask import loading, terminal
from amuse_jax.ask.model import Model
from amuse_jax.data import sources
from amuse_jax.data import stage as prepare
from amuse_jax.errors import StageError, first_few
from amuse_jax.evaluation import other_data, report
from amuse_jax.evaluation import stage as evaluate
from amuse_jax.features import stage as features
from amuse_jax.models import summary
from amuse_jax.regions import stage as regions
from amuse_jax.run import (
    batches,
    comparisons,
    disk,
    hours,
    lock,
    parts,
    peers,
    preflight,
    settings,
    status,
)
from amuse_jax.run.definition import Stage, head_suffix
from amuse_jax.run.results import Results, adopt, has_format_1
from amuse_jax.run.stage import check_input, run_stage
from amuse_jax.synthetic import stage as render
from amuse_jax.system import devices, hosts, paths, xla
from amuse_jax.training import fitting
from amuse_jax.training.peers import summary as peer_summary
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import stage as train

# data.workers, data.max_broken_share and data.read_* are missing: they do not change a record.
RECORD_SETTINGS = (
    'audio', 'data.segments', 'data.segment_seconds', 'data.image_size', 'data.shard_videos',
)  # fmt: skip
PRETRAIN_SETTINGS = (
    'seed', 'pretrain', 'model.dtype', 'model.visual', 'model.audio',
    'checkpoints.visual', 'checkpoints.audio',
)  # fmt: skip
EVALUATE_NEEDS = (
    'prepare', 'annotate', 'rois', 'pretrain', 'train', 'render',
    'test_questions', 'test_prepare', 'test_rois', 'test_features',
)  # fmt: skip


def _train_settings(config: ConfigDict) -> list[str]:
    """Return the names of all settings of training but `train.cache`, which changes no result."""
    return [f'train.{name}' for name in sorted(config.train) if name != 'cache']


def build_stages(config: ConfigDict) -> dict[str, Stage]:
    """Return the stages of a run by name, in the order in which they run.

    `render` exists only if the videos are synthetic, `features` only if its settings name arrays,
    and the `test_` stages only if the run is evaluated on another data set. Each answer head and
    each ablation has its own folders of `train` and of the stages after it, so that a workdir holds
    all rows of Table 4 with both heads. A peer has stages of its own (run/peers.py).
    """
    suffix = head_suffix(config) + (f'-without-{config.without}' if config.without else '')
    is_rendered, has_other_data = bool(config.synthetic.videos), bool(config.evaluate.data.root)
    other = f'{other_data.folder_name(config)}/' if has_other_data else ''
    stages = (
        Stage('render', render.run, settings=('synthetic',)),
        Stage(
            'prepare',
            prepare.run,
            needs=('render',),
            settings=(
                'data.root',
                'data.videos',
                'data.annotations',
                'data.rephrased',
                *RECORD_SETTINGS,
            ),
            compare_sources=sources.compare_sources,
        ),
        Stage(
            'annotate',
            annotate.run,
            needs=('prepare', 'render'),
            settings=('rhythm', 'sources'),
            is_kept=True,
            truth=annotate.truth_files,
        ),
        Stage(
            'rois',
            regions.run,
            needs=('prepare', 'render'),
            settings=('rois',),
            is_kept=True,
            truth=regions.truth_files,
        ),
        Stage(
            'features',
            features.run,
            needs=('prepare', 'render'),
            settings=('features',),
            is_kept=True,
        ),
        Stage(
            'pretrain',
            pretrain.run,
            needs=('prepare', 'annotate'),
            settings=PRETRAIN_SETTINGS,
            on_all_hosts=True,
            is_kept=True,
        ),
        Stage(
            'train',
            train.run,
            needs=('prepare', 'rois', 'pretrain'),
            settings=('seed', 'without', 'model', *_train_settings(config), 'checkpoints'),
            folder=f'train{suffix}',
            on_all_hosts=True,
            is_kept=True,
        ),
        Stage(
            'test_questions',
            other_data.check_questions,
            needs=('train',),
            settings=('evaluate.data', 'evaluate.leaked'),
            folder=f'{other}questions{suffix}',
            compare_sources=other_data.compare_sources,
        ),
        Stage(
            'test_prepare',
            other_data.read_videos,
            settings=('evaluate.data', *RECORD_SETTINGS),
            folder=f'{other}prepare',
            compare_sources=other_data.compare_sources,
        ),
        Stage(
            'test_rois',
            other_data.find_regions,
            needs=('test_prepare', 'rois'),
            folder=f'{other}rois',
        ),
        Stage(
            'test_features',
            other_data.encode,
            needs=('test_prepare', 'test_rois', 'pretrain', 'train'),
            folder=f'{other}features{suffix}',
            on_all_hosts=True,
        ),
        Stage(
            'evaluate',
            evaluate.run,
            needs=EVALUATE_NEEDS,
            settings=('evaluate',),
            folder=f'{other}evaluate{suffix}',
            on_all_hosts=True,
            is_kept=True,
        ),
    )
    found = {
        stage.name: stage
        for stage in stages
        if (is_rendered or stage.name != 'render')
        and (config.features.arrays or stage.name != 'features')
        and (has_other_data or not stage.name.startswith('test_'))
    }
    return peers.stages(config, found) if config.peer.name else found


def run(
    config: ConfigDict,
    workdir: Path,
    names: Sequence[str],
    redo: Sequence[str] = (),
    batch_sizes: Mapping[str, Mapping] | None = None,
) -> None:
    """Run the named stages, or every stage whose result is missing or out of date.

    Args:
      config: the run's config.
      workdir: the run's folder.
      names: names of stages, and of comparisons.TABLES; empty for all stages.
      redo: names of stages that are made again although they are complete.
      batch_sizes: the sizes that `batches.resolve` returned; the workdir stores them.

    Raises:
      StageError: a name is unknown, another run uses the workdir, a check fails, or a stage fails.
    """
    stages = build_stages(config)
    _check_names(stages, names, redo)
    parts.check(config, names)
    if hosts.is_first() and has_format_1(workdir, stages):
        with lock.held(workdir):
            adopt(config, workdir, stages)
    _check(config, workdir, names, redo)
    if config.data.part:
        parts.run(config, workdir, stages, names)
        return
    xla.enable_compilation_cache()
    with lock.held(workdir) if hosts.is_first() else contextlib.nullcontext():
        if hosts.is_first():
            parts.refuse_while_working(workdir)
            batches.store(workdir, batch_sizes or {})
        for stage in stages.values():
            if not names or stage.name in names:
                run_stage(stage, config, workdir, stages, redo)
        several = comparisons.TABLES.keys() & names
        for name in several:
            run_whole = functools.partial(_run_whole, workdir=workdir)
            comparisons.run(name, config, workdir, run_whole)
        if not several and hosts.is_first() and (not names or 'evaluate' in names):
            print(report.format_summary(stages['evaluate'].path(workdir)))


def shares_gpus(
    config: ConfigDict, workdir: Path, names: Sequence[str], redo: Sequence[str] = ()
) -> bool:
    """Return whether other processes will use the GPUs while this process runs.

    They look for sources and regions, or compute features. JAX then must not take all memory of the
    GPUs at its start. The files of the data set are not compared here, because every host calls
    this.
    """
    if names == ['ask']:
        return True
    using = {'rois', 'test_rois', 'features'} | (
        {'annotate'} if config.sources.stems != 'truth' else set()
    )
    if comparisons.TABLES.keys() & names:
        names = ()  # every stage of Amuse runs
    stages = build_stages(config)
    results = Results(config, workdir, stages, needs_data=False)
    running = _stages_to_run(results, stages, redo)
    return any(name in using and (not names or name in names) for name in running)


def _check_names(stages: Mapping[str, Stage], names: Sequence[str], redo: Sequence[str]) -> None:
    unknown = set(names) - set(stages) - comparisons.TABLES.keys()
    if unknown:
        raise StageError(
            f'--stages names {", ".join(sorted(unknown))}; expected some of '
            + ', '.join([*stages, *comparisons.TABLES, 'or summary, status or ask alone'])
        )
    unknown = set(redo) - (set(names) & set(stages) if names else set(stages))
    if unknown:
        raise StageError(
            f'--redo names {", ".join(sorted(unknown))}; expected stages that run: '
            + ', '.join(name for name in stages if not names or name in names)
        )


def _check(config: ConfigDict, workdir: Path, names: Sequence[str], redo: Sequence[str]) -> None:
    """Check data, devices, disk and external files for all pending stages before the first one."""
    settings.check_data(config)
    peers.check(config)
    if hosts.count() > 1:
        devices.start()  # together on all hosts
    if not hosts.is_first():  # which checks on behalf of all hosts
        return
    pending = [(config, _pending_stages(config, workdir, names, redo))]
    variants = comparisons.configs(config, names)
    pending += [(variant, _pending_stages(variant, workdir)) for variant in variants]
    if any(stages for _, stages in pending):
        count, is_alone = devices.count(), hosts.count() == 1
        for variant, stages in pending:
            fitting.check(variant, {stage.name for stage in stages}, count, is_alone=is_alone)
    needed = {}
    for variant, stages in pending:
        results = Results(variant, workdir, build_stages(variant))
        begun = [
            stage.name
            for stage in stages
            if results.unfinished_place(stage.name) == stage.path(workdir)
        ]
        needed |= disk.remaining_bytes(variant, workdir, stages, begun)
    disk.check(workdir, needed)
    names_of_pending = {stage.name for _, stages in pending for stage in stages}
    if config.data.root and hours.STAGES & names_of_pending:
        logging.info('%s', hours.describe(config, names_of_pending, disk.count_videos(config)))
    for variant, stages in pending:
        preflight.check(variant, {stage.name for stage in stages})


def _pending_stages(
    config: ConfigDict, workdir: Path, names: Sequence[str] = (), redo: Sequence[str] = ()
) -> list[Stage]:
    """Return the named stages, or all stages if no name is given, that will run.

    Those whose result is complete, or set aside and brought back, do not run; but those do that
    `redo` names, whose data set has changed, or that depend on such a stage.
    """
    stages = build_stages(config)
    changed = [
        stage.name for stage in stages.values() if _has_new_sources(stage, config, workdir, stages)
    ]
    running = _stages_to_run(Results(config, workdir, stages), stages, redo, changed)
    return [stages[name] for name in running if not names or name in names]


def _stages_to_run(
    results: Results,
    stages: Mapping[str, Stage],
    redo: Sequence[str],
    changed: Sequence[str] = (),
) -> list[str]:
    """Return the names of the stages that a run of all stages makes.

    Args:
      results: the results in the workdir.
      stages: the run's stages by name, in order.
      redo: names of stages that are made again although they are complete.
      changed: names of the stages whose data set has changed.
    """
    running, new = [], set(changed)
    for name, stage in stages.items():
        # After a redone stage that reads the data set, the content of the files decides.
        if new.intersection(stage.needs) or (name in redo and not stage.compare_sources):
            new.add(name)
        if results.place(name) is None or name in new or name in redo:
            running.append(name)
    return running


def _has_new_sources(
    stage: Stage, config: ConfigDict, workdir: Path, stages: Mapping[str, Stage]
) -> bool:
    """Return whether files of the data set have changed since the stage has read them."""
    compared = stage.compare(config, workdir, stages)
    if compared is None or not compared.changed:
        return False
    _warn_of_changes(stage.path(workdir), stage.name, compared.changed)
    return True


@functools.cache
def _warn_of_changes(folder: Path, name: str, changed: tuple[str, ...]) -> None:
    """Log what has changed since the result in the folder was made, once for each process."""
    logging.warning('%s: files have changed since it was made: %s', name, first_few(changed, ', '))


def _run_whole(config: ConfigDict, workdir: Path) -> Path:
    """Run every stage of a config whose result is missing; return the evaluate folder."""
    stages = build_stages(config)
    if hosts.is_first():
        adopt(config, workdir, stages)
    for stage in stages.values():
        run_stage(stage, config, workdir, stages)
    return stages['evaluate'].path(workdir)


def summarise(config: ConfigDict) -> None:
    """Print parameters, FLOPs and shapes of every part, without allocating any weights."""
    print(peer_summary.table(config) if config.peer.name else summary.table(config))


def ask(config: ConfigDict, workdir: Path, video: str, question: str) -> None:
    """Print the answer to a question about a video file, and draw its page in the workdir.

    Raises:
      StageError: a flag is missing, the workdir holds no trained model, or the video is unreadable.
    """
    if not video or not question.strip():
        raise StageError('--stages=ask needs --video=FILE and --question="..."')
    if not paths.is_utf_8(question):
        raise StageError(f'--question is {question!a}, which is not UTF-8; use a UTF-8 terminal')
    paths.from_user(video, '--video')
    if hosts.count() > 1:
        raise StageError('--stages=ask runs in one process; omit --coordinator')
    xla.enable_compilation_cache()
    stages = build_stages(config)
    results = Results(config, workdir, stages, needs_data=False)
    folders = {name: check_input(stages[name], 'ask', results) for name in loading.NEEDED}
    with Model(loading.from_folders(config, folders)) as model:
        terminal.show(model.watch(video), question, workdir / 'ask')


def show_status(config: ConfigDict, workdir: Path) -> None:
    """Print the state and the size of every result in the workdir."""
    print(status.table(config, workdir, build_stages(config)))

"""Which stages a run has, in which order, and the commands that use what they leave."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from amuse_jax.annotate import stage as annotate
from amuse_jax.ask import asker
from amuse_jax.config import PARTS
from amuse_jax.data import stage as prepare
from amuse_jax.errors import StageError
from amuse_jax.evaluation import ablations, other_data, report
from amuse_jax.evaluation import stage as evaluate
from amuse_jax.models import summary
from amuse_jax.regions import stage as rois
from amuse_jax.run import disk, lock, preflight, settings
from amuse_jax.run.stage import Stage, is_complete, run_stage
from amuse_jax.synthetic import stage as render
from amuse_jax.system import hosts
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import stage as train

# Not data.workers, data.max_broken_share and data.read_*: no record depends on them.
READ = (
    'audio', 'data.segments', 'data.segment_seconds', 'data.image_size', 'data.shard_videos',
)  # fmt: skip
PREPARE = ('data.root', 'data.annotations', 'data.rephrased', *READ)


def stages_of(config: ConfigDict) -> dict[str, Stage]:
    """The run's stages by name, in the order in which they run."""
    suffix = f'-without-{config.without}' if config.without else ''
    source = ('render',) if config.synthetic.videos else ()
    stages = (
        Stage('render', render.run, settings=('synthetic',)),
        Stage('prepare', prepare.run, source, PREPARE),
        Stage('annotate', annotate.run, ('prepare', *source), ('rhythm', 'sources')),
        Stage('rois', rois.run, ('prepare', *source), ('rois',)),
        Stage(
            'pretrain',
            pretrain.run,
            ('prepare', 'annotate'),
            (
                'seed',
                'pretrain',
                'model.dtype',
                'model.visual',
                'model.audio',
                'checkpoints.visual',
                'checkpoints.audio',
            ),  # fmt: skip
            by_all=True,
        ),
        Stage(
            'train',
            train.run,
            ('prepare', 'rois', 'pretrain'),
            ('seed', 'without', 'model', 'train', 'checkpoints'),
            folder=f'train{suffix}',
            by_all=True,
        ),
        *_evaluation(config, suffix, source),
    )
    return {stage.name: stage for stage in stages if stage.name != 'render' or source}


def _evaluation(config: ConfigDict, suffix: str, source: tuple[str, ...]) -> tuple[Stage, ...]:
    """The evaluate stage, behind those that make another data set ready where one is asked."""
    needs = ('prepare', 'annotate', 'rois', 'pretrain', 'train', *source)
    if not config.evaluate.data.root:
        folder = f'evaluate{suffix}'
        return (Stage('evaluate', evaluate.run, needs, ('evaluate',), folder, by_all=True),)
    on = other_data.folder_name(config)
    return (
        Stage(
            'test_questions',
            other_data.compare,
            ('train',),
            ('evaluate.data', 'evaluate.leaked'),
            f'{on}/questions{suffix}',
        ),
        Stage(
            'test_prepare',
            other_data.read_videos,
            (),
            ('evaluate.data', *READ),
            f'{on}/prepare',
        ),
        Stage('test_rois', other_data.find_regions, ('test_prepare', 'rois'), (), f'{on}/rois'),
        Stage(
            'test_features',
            other_data.encode,
            ('test_prepare', 'test_rois', 'pretrain', 'train'),
            (),
            f'{on}/features{suffix}',
            by_all=True,
        ),
        Stage(
            'evaluate',
            evaluate.run,
            (*needs, 'test_questions', 'test_prepare', 'test_rois', 'test_features'),
            ('evaluate',),
            f'{on}/evaluate{suffix}',
            by_all=True,
        ),
    )


def run(config: ConfigDict, workdir: Path, names: Sequence[str]) -> None:
    """Runs the named stages, or every stage whose artefact is missing or out of date.

    Raises:
      StageError: an unknown stage, another run in the workdir, or whatever a stage finds wrong.
    """
    stages = stages_of(config)
    unknown = set(names) - set(stages) - {'ablations'}
    if unknown:
        raise StageError(
            f'--stages names {", ".join(sorted(unknown))}; expected some of '
            + ', '.join([*stages, 'ablations', 'or summary or ask alone'])
        )
    settings.check_data(config)
    todo = [(config, _to_do(config, workdir, names))]
    if 'ablations' in names:
        todo += [(variant, _to_do(variant, workdir)) for variant in _variants(config).values()]
    needed = {}
    for variant, missing in todo:
        needed |= disk.left(variant, workdir, missing)
    disk.check(workdir, needed)
    if hosts.is_first():  # for all of them
        for variant, missing in todo:
            preflight.check(variant, {stage.name for stage in missing})
    keep_compiled(workdir)
    with lock.held(workdir) if hosts.is_first() else contextlib.nullcontext():
        for stage in stages.values():
            if not names or stage.name in names:
                run_stage(stage, config, workdir, stages)
        if 'ablations' in names:
            run_ablations(config, workdir)
        elif hosts.is_first() and (not names or 'evaluate' in names):
            print(report.shown(stages['evaluate'].path(workdir)))


def _to_do(config: ConfigDict, workdir: Path, names: Sequence[str] = ()) -> list[Stage]:
    """The named stages (none named: all) that are not complete."""
    stages = stages_of(config)
    return [
        stage
        for stage in stages.values()
        if (not names or stage.name in names) and not is_complete(stage, config, workdir, stages)
    ]


def keep_compiled(workdir: Path) -> None:
    """What XLA compiles is found again by later runs in the same workdir."""
    jax.config.update('jax_compilation_cache_dir', str(workdir / 'compiled'))


def run_ablations(config: ConfigDict, workdir: Path) -> None:
    """Table 4: trains and evaluates the whole model and the four without a part; prints them."""
    folders = {}
    for part, variant in _variants(config).items():
        stages = stages_of(variant)
        for stage in stages.values():
            run_stage(stage, variant, workdir, stages)
        folders[part] = stages['evaluate'].path(workdir)
    if hosts.is_first():
        print(ablations.write(folders[''].with_name('ablations'), folders))


def _variants(config: ConfigDict) -> dict[str, ConfigDict]:
    """The rows of Table 4, by the part that is left out."""
    variants = {}
    for part in ('', *PARTS):
        variants[part] = config.copy_and_resolve_references()
        with variants[part].unlocked():
            variants[part].without = part
    return variants


def summarise(config: ConfigDict) -> None:
    """Prints parameters, FLOPs and shapes of every part; allocates none of them."""
    print(summary.table(config))


def ask(config: ConfigDict, workdir: Path, video: str, question: str) -> None:
    """Prints the answer to a question about any video file, and where its figure is.

    Raises:
      StageError: a flag is missing, no trained model is in the workdir, the video can't be read.
    """
    if not video or not question:
        raise StageError('--stages=ask needs --video=FILE and --question="..."')
    if hosts.count() > 1:
        raise StageError('--stages=ask runs in one process; leave --coordinator out')
    keep_compiled(workdir)
    stages = stages_of(config)
    for name in asker.NEEDED:
        if not is_complete(stages[name], config, workdir, stages):
            raise StageError(
                f'no finished {name} stage for this config in {workdir}; run the same command '
                'without --stages first'
            )
    folders = {name: stages[name].path(workdir) for name in asker.NEEDED}
    print(asker.run(config, folders, Path(video), question, workdir / 'ask'))

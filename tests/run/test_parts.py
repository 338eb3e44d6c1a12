"""Jobs that share the work of a stage, as real processes in one workdir."""

import json
import subprocess
import sys

import numpy as np
import pytest

from amuse_jax.errors import StageError
from amuse_jax.run import parts, settings
from configs import demo
from tests.paths import ROOT
from tests.training import processes


def command(workdir, *arguments):
    sizes = dict(videos=5, width=64, height=36, fps=1, questions_per_video=2)
    return [
        sys.executable, '-m', 'amuse_jax.main', '--config=configs/demo.py',
        f'--workdir={workdir}', '--config.data.workers=1', '--config.data.shard_videos=1',
        '--config.rois.detector.epochs=1', '--config.rois.detector.frames=1',
        *(f'--config.synthetic.{name}={value}' for name, value in sizes.items()),
        *arguments,
    ]  # fmt: skip


def finish(*commands, status=0):
    """Run several commands at the same time; return what they wrote."""
    options = dict(cwd=ROOT, env=processes.environment(), text=True)
    started = [
        subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        for each in commands
    ]
    texts = [process.communicate(timeout=600)[0] for process in started]
    assert [process.returncode for process in started] == [status] * len(started), texts
    return texts


@pytest.mark.slow
def test_two_jobs_prepare_and_a_third_run_puts_the_parts_together(tmp_path):
    workdir = tmp_path / 'run'
    finish(command(workdir, '--stages=render'))
    jobs = [command(workdir, '--stages=prepare', f'--config.data.part={k}/2') for k in (1, 2)]
    texts = finish(*jobs)
    assert ['prepare: part 1/2: 3 of 5 shards' in texts[0], 'part 2/2: 2 of 5' in texts[1]] == [
        True
    ] * 2
    assert len(list((workdir / 'prepare/records').glob('0*'))) == 5
    assert not (workdir / 'prepare/manifest.json').exists()
    before = {p: p.stat().st_mtime_ns for p in (workdir / 'prepare/records').glob('0*')}
    (refusal,) = finish(command(workdir, '--stages=annotate', '--config.data.part=1/2'), status=1)
    assert 'annotate needs the stage prepare' in refusal
    finish(command(workdir, '--stages=prepare'))
    assert len(json.loads((workdir / 'prepare/videos.json').read_text())) == 5
    assert before == {p: p.stat().st_mtime_ns for p in (workdir / 'prepare/records').glob('0*')}
    assert not list((workdir / '.parts').iterdir())


@pytest.mark.slow
def test_parts_of_annotate_and_rois_equal_one_job(tmp_path):
    one, several = tmp_path / 'one', tmp_path / 'several'
    finish(*(command(each, '--stages=render,prepare') for each in (one, several)))
    jobs = [command(several, '--stages=annotate,rois', f'--config.data.part={k}/2') for k in (1, 2)]
    finish(command(one, '--stages=annotate,rois'))
    finish(*jobs)
    assert not (several / 'rois/manifest.json').exists()
    finish(command(several, '--stages=annotate,rois'))
    names = ['annotate/rhythm', 'annotate/sources', 'rois/boxes', 'rois/classes', 'rois/features']
    for name in names:
        np.testing.assert_array_equal(*(np.load(each / f'{name}.npy') for each in (one, several)))
    assert sorted(path.name for path in (several / 'rois').iterdir()) == sorted(
        path.name for path in (one / 'rois').iterdir()
    )


def test_a_part_that_is_working_keeps_other_runs_out(tmp_path):
    with parts._working(tmp_path, '2/3'):
        with pytest.raises(StageError, match='data.part=2/3 still works in .*; wait for it'):
            parts.refuse_while_working(tmp_path)
        with pytest.raises(StageError, match='another job with data.part=2/3 is working'):
            with parts._working(tmp_path, '2/3'):
                pass
        with parts._working(tmp_path, '1/3'):
            pass
    (tmp_path / '.parts/1-of-3.lock').touch()  # of a job that was killed
    parts.refuse_while_working(tmp_path)


def test_errors_of_the_work_are_not_taken_for_errors_of_the_lock(tmp_path):
    with pytest.raises(FileNotFoundError, match='gone'), parts._working(tmp_path, '1/2'):
        raise FileNotFoundError('gone')
    with parts._held(tmp_path / 'a.lock', 'held'):
        pass
    with parts._held(tmp_path / 'a.lock', 'still held'):  # it was freed
        pass


def test_a_part_does_not_wait_for_a_workdir_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(parts.time, 'sleep', lambda _: pytest.fail('it waits'))
    (tmp_path / 'run').touch()
    with pytest.raises(StageError, match='run/.lock cannot be written'):
        with parts._lock_of_workdir(tmp_path / 'run'):
            pass


@pytest.mark.parametrize(
    'names', [(), ('render',), ('prepare', 'annotate'), ('rois', 'train'), ('ablations',)]
)
def test_stages_that_cannot_be_shared_are_refused(names):
    config = demo.get_config()
    parts.check(config, names)
    config.data.part = '1/4'
    with pytest.raises(StageError, match='expected --stages=prepare alone'):
        parts.check(config, list(names))
    for allowed in (['prepare'], ['annotate'], ['annotate', 'rois'], ['features', 'rois']):
        parts.check(config, allowed)


@pytest.mark.parametrize('part', ['5/4', 'a', '0/2'])
def test_a_part_that_does_not_exist_is_refused(part):
    config = demo.get_config()
    config.data.part = part
    with pytest.raises(StageError, match='config.data.part: .* expected K/N'):
        settings.check(config)
    config.data.update(part='1/2', beam='--runner=FnApiRunner')
    with pytest.raises(StageError, match='data.part and config.data.beam are both set'):
        settings.check(config)

"""Per-video work on Apache Beam writes the same bytes as worker processes write."""

import hashlib
import json
import os
import pickle
import threading
import zlib
from pathlib import Path

import pytest

from amuse_jax.annotate import stage as annotate
from amuse_jax.config import default_config
from amuse_jax.data import stage as prepare
from amuse_jax.errors import StageError
from amuse_jax.synthetic import stage as render
from amuse_jax.system.sharded import map_shards, write_shard
from tests.paths import ROOT

beam = pytest.importorskip('amuse_jax.system.beam', reason="the extra 'beam' is not installed")

IN_PROCESS = '--runner=FnApiRunner'
TWO_PROCESSES = '--direct_num_workers=2 --direct_running_mode=multi_processing'
STAGES = {'prepare': prepare, 'annotate': annotate}
REPEATING = f'{IN_PROCESS} --direct_runner_bundle_repeat=2'  # runs every bundle three times


def double(items, path):
    path.write_text(''.join(f'{2 * item}\n' for item in items))


def refuse_five(items, path):
    if 5 in items:
        raise StageError('five is too much; use less')
    double(items, path)


def run(work, folder, options=IN_PROCESS, items=range(7)):
    return map_shards(
        work, items, folder, suffix='.txt', shard_size=3, workers=1, description='d', beam=options
    )


def test_finished_files_are_kept_and_missing_ones_are_written(tmp_path):
    paths = run(double, tmp_path)
    assert ''.join(path.read_text() for path in paths) == ''.join(f'{2 * i}\n' for i in range(7))
    paths[0].write_text('kept')
    paths[2].unlink()
    (tmp_path / '.tmp-killed-x.txt').write_text('half')
    assert run(double, tmp_path) == paths
    assert [path.read_text() for path in paths] == ['kept', '6\n8\n10\n', '12\n']
    assert sorted(tmp_path.iterdir()) == paths


def test_a_user_error_is_one_sentence_and_other_files_are_written(tmp_path):
    with pytest.raises(StageError) as caught:
        run(refuse_five, tmp_path)
    assert str(caught.value) == 'five is too much; use less'
    assert sorted(path.name[:5] for path in tmp_path.glob('0*')) == ['00000', '00002']
    run(double, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_bundle_that_runs_twice_at_once_leaves_one_complete_file(tmp_path):
    path, both = tmp_path / 'a.txt', threading.Barrier(2)
    written = []

    def work(items, beside):
        both.wait(300)
        double(items, beside)
        written.append(beside)

    workers = [threading.Thread(target=write_shard, args=(work, range(3), path)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(set(written)) == 2 and path.read_text() == '0\n2\n4\n'
    assert list(tmp_path.iterdir()) == [path]
    before = path.stat().st_mtime_ns
    beam._write_file(zlib.compress(pickle.dumps((range(3), path))), double)
    assert path.stat().st_mtime_ns == before


def test_a_worker_that_does_not_see_the_disk_is_named(tmp_path):
    element = zlib.compress(pickle.dumps((range(3), tmp_path / 'not mounted' / 'a.txt')))
    with pytest.raises(StageError, match='does not see .*not mounted; every worker'):
        beam._write_file(element, double)
    assert not (tmp_path / 'not mounted').exists()


@pytest.mark.parametrize(
    'options', ["--runner='FnApiRunner", f'{IN_PROCESS} --direct_num_workers=many', '--runner=No']
)
def test_options_that_beam_rejects_are_one_sentence(tmp_path, options):
    with pytest.raises(StageError, match='config.data.beam is .*, which Apache Beam rejects'):
        run(double, tmp_path, options)


def settings(options: str):
    config = default_config()
    config.synthetic.update(videos=4, width=96, height=54, fps=2, val_share=0.25, test_share=0.25)
    config.data.update(
        image_size=16, shard_videos=2, workers=1, max_broken_share=0.25, beam=options
    )
    config.rhythm.tracker = 'tempo'
    config.sources.stems = 'truth'
    return config


def run_stages(config, root: Path, *names: str) -> None:
    inputs = {name: root / name for name in ('render', *names)}
    for name in names:
        inputs[name].mkdir()
        STAGES[name].run(config, inputs[name], inputs)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file()
    }


@pytest.fixture(scope='module')
def performances(tmp_path_factory):
    """Render four performances, break one, and run the stages in worker processes."""
    root = tmp_path_factory.mktemp('performances')
    config = settings('')
    render.render(config.synthetic, root / 'render', workers=1)
    broken = root / 'render' / 'videos' / 'syn00000001.mp4'
    broken.write_bytes(broken.read_bytes()[:5000])
    run_stages(config, root, *STAGES)
    return root


def test_prepare_and_annotate_write_the_same_bytes(performances, tmp_path):
    (tmp_path / 'render').symlink_to(performances / 'render')
    run_stages(settings(REPEATING), tmp_path, *STAGES)
    for name in STAGES:
        assert digests(tmp_path / name) == digests(performances / name)
    (entry,) = json.loads((tmp_path / 'prepare' / 'quarantine.json').read_text())
    assert entry['video_id'] == 'syn00000001'


def test_other_processes_write_the_same_bytes(performances, tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]))
    (tmp_path / 'render').symlink_to(performances / 'render')
    run_stages(settings(TWO_PROCESSES), tmp_path, 'prepare')
    assert digests(tmp_path / 'prepare') == digests(performances / 'prepare')


def test_regions_are_the_same_bytes(performances, tmp_path):
    detector = pytest.importorskip('amuse_jax.regions.detector')  # PyTorch
    from amuse_jax.regions import labelled_frames, worker

    detector.save(detector.build(list(labelled_frames.CLASSES), 0.125, 0.33), tmp_path / 'mine.pt')
    ids = [f'syn0000000{number}' for number in (0, 3, 2)]
    for name, options in (('processes', ''), ('beam', IN_PROCESS)):
        config = settings(options)
        config.rois.update(
            weights=str(tmp_path / 'mine.pt'), image_size=96, regions=3, feature_size=224,
            min_score=0.0,
        )  # fmt: skip
        (tmp_path / name).mkdir()
        worker.run(config, tmp_path / name, performances / 'render', ids, {})
    assert digests(tmp_path / 'beam') == digests(tmp_path / 'processes')

"""Regions on a host with several GPUs, which names imitate, and videos in one batch.

tests/system/test_sharded.py has eight of them.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

from amuse_jax.media import guarded
from amuse_jax.media.container import MediaError
from amuse_jax.regions import detector, finder, labelled_frames
from tests.regions.test_stage import write_video
from tests.training import processes

# Every process imports this file again, so all of them record what they see.
JOB = """
import json, os, sys
from pathlib import Path
from amuse_jax.config import default_config
from amuse_jax.regions import shard_task, stage

folder = Path(sys.argv[1])
find = shard_task.write_regions

def write_and_record(config, detector_path, root, video_ids, path):
    seen = os.environ['CUDA_VISIBLE_DEVICES']
    had_started = 'torch' in sys.modules
    find(config, detector_path, root, video_ids, path)
    line = {'pid': os.getpid(), 'seen': seen, 'torch': had_started, 'videos': video_ids,
            'threads': os.environ['OMP_NUM_THREADS'], 'passive': os.environ['OMP_WAIT_POLICY']}
    (folder / 'seen' / f'{video_ids[0]}.json').write_text(json.dumps(line))

shard_task.write_regions = write_and_record

if __name__ == '__main__':
    (folder / 'seen').mkdir()
    config = default_config()
    config.data.update(segments=2, segment_seconds=1.0, workers=3, shard_videos=1)
    config.rois.update(image_size=96, regions=3, feature_size=224, min_score=0.0)
    config.rois.weights = str(folder / 'detector.pt')
    inputs = {'render': folder, 'prepare': folder / 'prepare'}
    (folder / 'rois').mkdir()
    stage.run(config, folder / 'rois', inputs)
    from jax._src import xla_bridge
    assert not {'torch', 'ultralytics'} & set(sys.modules) and not xla_bridge._backends
"""


@pytest.mark.slow
def test_each_gpu_has_one_process_and_this_process_starts_neither_jax_nor_pytorch(tmp_path):
    names = [f'v{number:02d}' for number in range(16)]
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'prepare').mkdir()
    write_video(tmp_path / 'videos/v00.mp4', 2.0, 10)
    for name in names[1:]:
        (tmp_path / 'videos' / f'{name}.mp4').symlink_to('v00.mp4')
    (tmp_path / 'prepare/videos.json').write_text(json.dumps([{'video_id': n} for n in names]))
    (tmp_path / 'prepare/questions.json').write_text(json.dumps([{'record': 0, 'split': 'test'}]))
    detector.save(
        detector.build(list(labelled_frames.CLASSES), 0.125, 0.33), tmp_path / 'detector.pt'
    )
    (tmp_path / 'job.py').write_text(JOB)
    environment = processes.environment() | {'CUDA_VISIBLE_DEVICES': '5,2,7'}
    done = subprocess.run(
        [sys.executable, tmp_path / 'job.py', tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    seen = [json.loads(path.read_text()) for path in (tmp_path / 'seen').iterdir()]
    assert sorted(name for each in seen for name in each['videos']) == names
    device_of = {each['pid']: each['seen'] for each in seen}
    # One process may finish several videos before the last one has started.
    assert set(device_of.values()) <= set('527')
    assert len(device_of) == len(set(device_of.values())) > 1
    assert all(each['seen'] == device_of[each['pid']] for each in seen)
    assert {each['passive'] for each in seen} == {'passive'}
    assert (np.load(tmp_path / 'rois/classes.npy')[:, :, 0] >= 0).all()


def test_videos_of_one_batch_have_the_regions_that_they_have_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(finder, 'VIDEOS_ON_A_CPU', 3)
    for index, seconds in enumerate((2.0, 1.0, 2.0, 2.0)):  # the second one ends early
        write_video(tmp_path / f'{index}.mp4', seconds, 15 * index)
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    names = list(labelled_frames.CLASSES)
    detector.save(detector.build(names, 0.125, 0.33), tmp_path / 'detector.pt')
    limits = guarded.Limits(seconds=60, gigabytes=4)
    find = finder.Finder(tmp_path / 'detector.pt', 2, 1.0, 96, 3, 0.0, 0.7, limits, '')
    paths = [tmp_path / f'{name}.mp4' for name in ('0', '1', 'broken', '2', '3')]
    together = list(find.find_all(paths))
    assert isinstance(together[2], MediaError)
    for path, found in zip(paths[:2] + paths[3:], together[:2] + together[3:]):
        alone = find.find(path)
        np.testing.assert_array_equal(found['classes'], alone['classes'])
        for name in ('boxes', 'scores', 'features'):
            np.testing.assert_allclose(found[name], alone[name], atol=2e-3)
    assert (together[1]['classes'][1] == -1).all() and (together[1]['classes'][0] >= 0).all()
    assert not np.array_equal(together[3]['features'], together[4]['features'])

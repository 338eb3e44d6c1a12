"""The detector's process in a script of a user."""

import os
import subprocess
import sys

from amuse_jax.regions import detector, labelled_frames
from tests.paths import ROOT
from tests.regions.test_stage import write_video

# It has no guard `if __name__ == '__main__'`, as the scripts of many users.
SCRIPT = """
import sys
from pathlib import Path
from amuse_jax.config import default_config
from amuse_jax.media import guarded, video
from amuse_jax.regions.process import RegionProcess

folder = Path(sys.argv[1])
config = default_config()
config.data.update(segments=2, segment_seconds=1.0)
config.rois.update(image_size=96, regions=3, feature_size=224, min_score=0.0)
finder = RegionProcess(config, folder / 'detector.pt')
found = finder.find(folder / 'a.mp4')
finder.close()
limits = guarded.Limits.from_settings(config.data)
frames, *_ = guarded.read(limits, video.read_segment_frames, folder / 'a.mp4', 2, 1.0, 8)
guarded.close_readers()
print(found['features'].shape, frames.shape)
"""


def test_a_script_without_a_guard_runs_once(tmp_path):
    write_video(tmp_path / 'a.mp4', 2.0, 10)
    detector.save(
        detector.build(list(labelled_frames.CLASSES), 0.125, 0.33), tmp_path / 'detector.pt'
    )
    (tmp_path / 'script.py').write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / 'script.py', tmp_path],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == '(2, 3, 224) (2, 8, 8, 3)\n'

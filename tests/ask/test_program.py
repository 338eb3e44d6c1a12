"""The programs of an exported model answer as the model, without this package."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jax import export

from amuse_jax.ask import exported, program
from amuse_jax.ask.model import Model
from amuse_jax.ask.video import Video

# Runs a script in a process in which this package and what it is made with cannot be imported.
ALONE = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('amuse_jax', 'flax', 'orbax', 'ml_collections', 'torch'):
            raise ImportError(f'{name} is blocked')

sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""
QUESTIONS = 'Is there a voiceover?', 'How many violins are sounding in the video?'


def watch(model, record, regions):
    """Return the video of a record, as Model.watch does with a file."""
    frames, log_mel = record['frames'][None], record['log_mel'][None]
    with model._numerics():
        features = model._encode(model._encoder_arrays, frames, log_mel)
        tokens = {}
        if 'visual' in model.streams:
            tokens = model._see(model._amuse_arrays, frames, log_mel)
    features = {name: np.asarray(array) for name, array in features.items()}
    return Video(model, Path('a.mp4'), record, regions, features, tokens)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::amuse_jax.ask.video.UnfamiliarQuestion')
@pytest.mark.parametrize(
    ('without', 'epochs'),
    [
        ('encoder', 0),
        ('', 0),
        ('rois', 2),
    ],
)
def test_the_example_prints_the_answers_of_the_model(
    make_trained, draw_video, tmp_path, without, epochs
):
    trained = make_trained(without, epochs)
    record, regions = draw_video(trained.config)
    video = watch(Model(trained), record, {} if without == 'rois' else regions)
    exported.write(trained, tmp_path / 'model', stablehlo=True)
    assert {*program.FILES} < {path.name for path in (tmp_path / 'model').iterdir()}
    video.save(tmp_path / 'video.safetensors')
    for question in QUESTIONS[: 1 + (without == 'encoder')]:
        done = subprocess.run(
            [sys.executable, '-c', ALONE, 'model/run_program.py', 'video.safetensors', question],
            cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {'JAX_PLATFORMS': 'cpu'},
        )  # fmt: skip
        assert not done.returncode, done.stderr
        probabilities, importance = map(json.loads, done.stdout.splitlines())
        answer = video.ask(question)
        assert probabilities == pytest.approx(answer.probabilities, abs=1e-5)
        assert importance == pytest.approx(answer.importance, abs=1e-5)


def test_one_program_runs_on_every_platform_and_has_no_kernel_of_one(make_trained, tmp_path):
    program.write(make_trained('encoder'), tmp_path)
    for name in (program.WATCH, program.ANSWER):
        found = export.deserialize(bytearray((tmp_path / name).read_bytes()))
        assert found.platforms == program.PLATFORMS
        calls = set(re.findall(r'custom_call @(\w+)', found.mlir_module()))
        assert calls <= {'shape_assertion'}  # of the number of questions


def test_the_example_has_twenty_lines():
    code = (Path(program.__file__).parent / 'run_program.py.txt').read_text()
    lines = [line for line in code.splitlines()[1:] if line]
    assert len(lines) <= 24

"""Run a stage on the tiny data set: `python tiny_stage.py pretrain FOLDER INPUTS_JSON`."""

import importlib
import json
import runpy
import sys
from pathlib import Path

import jax

if __name__ == '__main__':
    name, folder, inputs = sys.argv[1:]
    jax.config.update('jax_disable_most_optimizations', True)
    config = runpy.run_path(str(Path(__file__).with_name('conftest.py')))['tiny_config']()
    stage = importlib.import_module(f'amuse_jax.training.{name}.stage')
    stage.run(config, Path(folder), {n: Path(p) for n, p in json.loads(inputs).items()})

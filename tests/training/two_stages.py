"""Run a stage in the first process only, then a stage in all processes.

As a script: `python two_stages.py FOLDER OPTIONS PORT PROCESS PROCESSES`. The options are `pause`,
whether the first stage waits until the file FOLDER/continue exists, and `broken`, the process that
fails in the second stage (-1: none).
"""

import json
import sys
import time
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax.run.stage import Stage, run_stage
from amuse_jax.system import hosts, preemption

if __name__ == '__main__':
    target, options, port, *numbers = sys.argv[1:]
    options = json.loads(options)
    hosts.initialize(f'localhost:{port}', *map(int, numbers))
    preemption.handle_sigterm(0)

    def wait(config, folder, inputs):
        while options['pause'] and not (Path(target) / 'continue').exists():
            time.sleep(0.1)
        return {}

    def work(config, folder, inputs):
        if hosts.index() == options['broken']:
            raise IndexError('nobody foresaw this')
        hosts.barrier('work')
        return {}

    stages = {
        each.name: each for each in (Stage('wait', wait), Stage('work', work, on_all_hosts=True))
    }
    try:
        for stage in stages.values():
            run_stage(stage, ConfigDict(), Path(target), stages)
    except preemption.Preempted:
        print('preempted')
    except Exception as error:
        hosts.exit_on_error(error)

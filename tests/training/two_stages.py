"""A stage that the first process runs alone, then one that all run.

As a script: `python two_stages.py FOLDER OPTIONS PORT PROCESS PROCESSES`; the options are the
`seconds` that the first stage takes, and `broken`: which process breaks in the second (-1: none).
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
    hosts.start(f'localhost:{port}', *map(int, numbers))
    preemption.watch(0)

    def wait(config, folder, inputs):
        time.sleep(options['seconds'])
        return {}

    def work(config, folder, inputs):
        if hosts.index() == options['broken']:
            raise IndexError('nobody foresaw this')
        hosts.wait('work')
        return {}

    stages = {each.name: each for each in (Stage('wait', wait), Stage('work', work, by_all=True))}
    try:
        for stage in stages.values():
            run_stage(stage, ConfigDict(), Path(target), stages)
    except preemption.Preempted:
        print('preempted')
    except Exception as error:
        hosts.leave_over(error)

"""What a small model's training step costs each of four virtual processors, as JSON.

Run by test_tpu.py in a process of its own: the number of devices is settled when JAX starts.
"""

import json
import sys
from pathlib import Path
from runpy import run_path

from amuse_jax.benchmark import compiling, hlo
from amuse_jax.training import sharding


def costs(parts: int) -> dict:
    """Of a step of eight videos, taken in so many parts."""
    config = run_path(str(Path(__file__).with_name('small.py')))['get_config']()
    config.model.text.depth = config.model.adapters.rounds = config.model.answer.layers = 1
    config.train.update(batch_size=8, parts=parts)
    config.loop.update(kept='inputs', optimization_level=0)
    mesh = sharding.mesh(config.mesh)
    step, given = compiling.abstract_step(config, mesh)
    made = step.lower(*given).compile()
    found, memory = hlo.costs(made.as_text()), made.memory_analysis()
    return {
        'collectives': found.collectives,
        'calls': found.calls,
        'arguments': memory.argument_size_in_bytes,
        'temporaries': memory.temp_size_in_bytes,
        'gradients': sum(4 * array.size for array in given[0].params.values()),
    }


print(json.dumps(costs(parts=int(sys.argv[1]))))

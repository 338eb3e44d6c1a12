"""Print the costs of a small model's training step on each of four virtual processors, as JSON.

test_tpu.py runs this in a process of its own, because the number of devices is fixed when JAX
starts.
"""

import json
import sys
from pathlib import Path
from runpy import run_path

from amuse_jax.benchmark import compiling, hlo_tpu
from amuse_jax.training import sharding


def costs(parts: int) -> dict:
    """Return the costs of a step with eight videos that is split into `parts`."""
    config = run_path(str(Path(__file__).with_name('small.py')))['get_config']()
    config.model.text.depth = config.model.adapters.rounds = config.model.answer.layers = 1
    config.train.update(batch_size=8, parts=parts)
    config.loop.update(remat_policy='inputs', optimization_level=0)
    mesh = sharding.mesh(config.mesh)
    step, arguments = compiling.abstract_step(config, mesh)
    compiled = step.lower(*arguments).compile()
    module_costs, memory = hlo_tpu.costs(compiled.as_text()), compiled.memory_analysis()
    return {
        'collectives': module_costs.collectives,
        'calls': module_costs.calls,
        'arguments': memory.argument_size_in_bytes,
        'temporaries': memory.temp_size_in_bytes,
        'gradients': sum(4 * array.size for array in arguments[0].params.values()),
    }


print(json.dumps(costs(parts=int(sys.argv[1]))))

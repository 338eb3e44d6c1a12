import subprocess
import sys

import jax
import jax.extend.core
import jax.numpy as jnp
import pytest
from flax import nnx

from amuse_jax.models import platform
from tests.paths import ROOT


def products_of(jaxpr):
    """Return the precisions of all matrix products, also those in inner functions."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'dot_general':
            found.append(equation.params['precision'])
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            found += products_of(inner)
    return found


@pytest.mark.parametrize(('dtype', 'is_exact'), [('float32', True), ('bfloat16', False)])
def test_a_float32_model_multiplies_in_float32(dtype, is_exact):
    layer = nnx.Linear(4, 4, rngs=nnx.Rngs(0), dtype=jnp.dtype(dtype))
    with jax.default_matmul_precision(platform.matmul_precision(dtype)):
        jaxpr = jax.make_jaxpr(jax.grad(lambda x: layer(x).astype(jnp.float32).sum()))(
            jnp.ones((2, 4))
        )
    exact = (jax.lax.Precision.HIGHEST,) * 2
    products = products_of(jaxpr.jaxpr)
    assert products
    assert all((precision == exact) == is_exact for precision in products)


PROGRAM = """
import sys
import jax
from amuse_jax import main
from amuse_jax.run import plan
plan.summarise = lambda config: print('precision', jax.config.jax_default_matmul_precision)
dtype = f'--config.model.dtype={sys.argv[1]}'
sys.argv = ['main', '--config=configs/demo.py', '--stages=summary', dtype]
main.app.run(main.main, flags_parser=main._parse)
"""


@pytest.mark.parametrize(('dtype', 'expected'), [('float32', 'highest'), ('bfloat16', 'default')])
def test_the_command_follows_the_rule(dtype, expected):
    command = [sys.executable, '-c', PROGRAM, dtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == f'precision {expected}', done.stderr

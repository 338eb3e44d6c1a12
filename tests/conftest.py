"""Tests compile more than they compute: XLA optimises little here."""

import os

os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_backend_optimization_level=0'
os.environ['JAX_DEFAULT_MATMUL_PRECISION'] = 'highest'  # accelerators too multiply in float32

"""Comparison of a peer with its description in PyTorch, name by name."""

import operator

import jax
import numpy as np
import safetensors.numpy
from flax import nnx

from amuse_jax.models import peers
from amuse_jax.pretrained import key_mapping
from amuse_jax.pretrained import peers as names


def loaded(name, config, reference_state):
    """Return our model, of any size, with the weights of a public class."""
    arrays = {key.removeprefix('module.'): array for key, array in reference_state.items()}
    config, table = names.READERS[name](config, arrays)
    return key_mapping.fill(names.abstract(name, config), arrays, table)


def assert_equal(ours, theirs, atol):
    """Compare the named intermediates: ours are attributes, theirs are in a dict by path."""
    for path, expected in theirs.items():
        found = np.asarray(operator.attrgetter(path)(ours))
        expected = expected.detach().numpy()
        assert found.shape == expected.shape, path
        np.testing.assert_allclose(found, expected, atol=atol, rtol=atol, err_msg=path)


def compare_stages(ours, theirs, atol):
    """Compare the visual and audio tokens after every stage; `theirs` has both for each stage."""
    for i, stage in enumerate(theirs):
        for found, expected in zip((ours.visual_stages[i], ours.audio_stages[i]), stage):
            np.testing.assert_allclose(
                found, expected.detach(), atol=atol, rtol=atol, err_msg=f'stage {i + 1}'
            )


def save(path, reference_state):
    """Write a state dict as the public code's users would: with the prefix of DataParallel."""
    arrays = {f'module.{key}': np.ascontiguousarray(x) for key, x in reference_state.items()}
    safetensors.numpy.save_file(arrays, path)


def parameters(name):
    """Return the number of parameters of a peer at its published size; nothing is allocated."""
    peer = peers.catalogue.find(name)
    return size(lambda: peer.model(peer.config, rngs=nnx.Rngs(0)))


def size(make):
    """Return the number of parameters of a module; nothing is allocated."""
    return sum(x.size for x in jax.tree.leaves(nnx.eval_shape(make)))

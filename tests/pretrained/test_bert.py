import dataclasses

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import BertConfig, BertForPreTraining, RobertaConfig, RobertaForMaskedLM

from amuse_jax.models.text import TextConfig, TextTower
from amuse_jax.pretrained import bert, key_mapping

CONFIG = TextConfig(vocab_size=30, max_words=8, width=16, depth=2, heads=2, mlp_width=32)


@pytest.fixture(scope='module')
def source():
    torch.manual_seed(0)
    model = BertForPreTraining(
        BertConfig(
            vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=20,
        )
    )  # fmt: skip
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def filled(arrays):
    abstract = nnx.eval_shape(lambda: TextTower(CONFIG, rngs=nnx.Rngs(0)))
    return nnx.state(key_mapping.fill(abstract, arrays, bert.table(CONFIG, arrays)))


def test_the_norm_names_of_the_first_release_give_the_same_tower(source):
    def rename(name):
        if 'LayerNorm' not in name:
            return name
        return name.replace('.weight', '.gamma').replace('.bias', '.beta')

    older = {rename(name): array for name, array in source.items()}
    assert older.keys() != source.keys()
    jax.tree.map(np.testing.assert_array_equal, filled(source), filled(older))


def test_names_without_the_prefix_give_the_same_tower(source):
    bare = {
        name.removeprefix('bert.'): array
        for name, array in source.items()
        if name.startswith('bert.')
    }
    jax.tree.map(np.testing.assert_array_equal, filled(source), filled(bare))


def test_roberta_counts_its_positions_from_two():
    """Every word has the output of the model in transformers, also in a padded batch."""
    torch.manual_seed(0)
    model = RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=22, type_vocab_size=1, pad_token_id=1,
            layer_norm_eps=1e-5,
        )
    ).eval()  # fmt: skip
    config = dataclasses.replace(CONFIG, epsilon=1e-5)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    abstract = nnx.eval_shape(lambda: TextTower(config, rngs=nnx.Rngs(0)))
    tower = key_mapping.fill(abstract, arrays, bert.table(config, arrays))
    words = np.random.default_rng(0).integers(2, 30, (3, 8)).astype(np.int32)
    mask = np.arange(8) < np.array([[8], [5], [1]])
    words = np.where(mask, words, 1)
    with torch.no_grad(), jax.default_matmul_precision('highest'):
        theirs = model.roberta(torch.tensor(words), torch.tensor(mask)).last_hidden_state.numpy()
        ours = np.asarray(tower(words, mask))
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=1e-5)

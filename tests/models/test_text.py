import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import BertConfig, BertModel

from amuse_jax.models.text import TextConfig, TextTower
from amuse_jax.pretrained import bert as names
from amuse_jax.pretrained import key_mapping

CONFIG = TextConfig(vocab_size=50, max_words=12, width=32, depth=3, heads=4, mlp_width=48)
ATOL = 1e-5


@pytest.fixture(scope='module')
def original():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=CONFIG.vocab_size,
        hidden_size=CONFIG.width,
        num_hidden_layers=CONFIG.depth,
        num_attention_heads=CONFIG.heads,
        intermediate_size=CONFIG.mlp_width,
        max_position_embeddings=16,
    )
    model = BertModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith('LayerNorm.weight') else 0.0, 0.3)
    return model


@pytest.fixture(scope='module')
def tower(original):
    abstract = nnx.eval_shape(lambda: TextTower(CONFIG, rngs=nnx.Rngs(0)))
    arrays = {name: array.numpy() for name, array in original.state_dict().items()}
    return key_mapping.fill(abstract, arrays, names.table(CONFIG, arrays))


@pytest.fixture(scope='module')
def forward():
    return jax.jit(lambda tower, words, mask: tower(words, mask))


@pytest.fixture(scope='module')
def questions():
    words = np.random.default_rng(0).integers(1, 50, (3, 9))
    mask = np.arange(9) < np.array([[9], [5], [1]])
    return np.where(mask, words, 0), mask


def test_words_and_layers_as_in_hugging_face(original, tower, forward, questions):
    words, mask = questions
    with torch.no_grad():
        embedded = original.embeddings(torch.tensor(words)).numpy()
        theirs = original(torch.tensor(words), torch.tensor(mask.astype(int))).last_hidden_state
    np.testing.assert_allclose(tower.embed(words, mask)[mask], embedded[mask], atol=ATOL)
    np.testing.assert_allclose(
        np.asarray(forward(tower, words, mask))[mask], theirs.numpy()[mask], atol=ATOL
    )


def test_layers_one_by_one_equal_the_whole_tower(tower, forward, questions):
    def run_in_parts(tower, words, mask):
        tokens = tower.embed(words, mask)
        for run_layer in tower.unrolled():
            tokens = run_layer(tokens, mask)
        return tokens

    np.testing.assert_allclose(
        jax.jit(run_in_parts)(tower, *questions), forward(tower, *questions), atol=ATOL
    )


@pytest.mark.parametrize('places', [[0, 1, 2, 3], [5, 6, 7, 8], [0, 3, 4, 8]])
def test_padding_changes_nothing_wherever_it_stands(tower, forward, places):
    """The same four words at the start, at the end and with gaps; the padding is another word."""
    words, mask = np.full((3, 9), 7), np.zeros((3, 9), bool)
    words[0, :4], mask[0, :4] = [3, 14, 15, 9], True
    words[1, places], mask[1, places] = [3, 14, 15, 9], True
    tokens = np.asarray(forward(tower, words, mask))
    np.testing.assert_allclose(tokens[1, places], tokens[0, :4], atol=ATOL)


def test_a_question_of_padding_only_is_finite(tower, forward):
    tokens = forward(tower, np.zeros((3, 9), int), np.zeros((3, 9), bool))
    assert np.isfinite(tokens).all()


def test_bfloat16_stays_close(tower, forward, questions):
    low = nnx.eval_shape(lambda: TextTower(CONFIG, rngs=nnx.Rngs(0), dtype=jnp.bfloat16))
    low = nnx.merge(nnx.split(low)[0], nnx.state(tower))
    ours = jax.jit(lambda tower, words, mask: tower(words, mask))(low, *questions)
    assert ours.dtype == jnp.bfloat16
    expected = forward(tower, *questions)
    error = np.linalg.norm(ours.astype(np.float32) - expected)
    assert error < 3e-2 * np.linalg.norm(expected)


def test_phrases_are_the_mean_of_their_words(tower):
    phrases = np.array([[4, 9, 0], [5, 0, 0], [0, 0, 0]])
    mask = np.array([[True, True, False], [True, False, False], [False] * 3])
    table = np.asarray(tower.words.embedding[...])
    ours = jax.jit(lambda tower, phrases, mask: tower.embed_phrases(phrases, mask))(
        tower, phrases, mask
    )
    np.testing.assert_allclose(ours[0], (table[4] + table[9]) / 2, atol=1e-6)
    np.testing.assert_allclose(ours[1], table[5], atol=1e-6)
    np.testing.assert_array_equal(ours[2], 0)


def test_too_many_words_are_refused(tower):
    with pytest.raises(ValueError, match='13 words.*12 positions'):
        tower.embed(np.zeros((1, 13), int), np.ones((1, 13), bool))

"""Names of BERT checkpoints."""

from amuse_jax.models.text import TextConfig
from amuse_jax.pretrained.convert import Row, Table, dense, first_row, norm, rules, same

_STEM = [
    Row(('word_embeddings.weight',), 'words.embedding', same),
    Row(('token_type_embeddings.weight',), 'token_type', first_row),
    *norm('LayerNorm', 'norm'),
]
_LAYER = [
    *dense([f'attention.self.{part}' for part in ('query', 'key', 'value')], 'qkv'),
    *dense('attention.output.dense', 'out'),
    *norm('attention.output.LayerNorm', 'attention_norm'),
    *dense('intermediate.dense', 'inner'),
    *dense('output.dense', 'outer'),
    *norm('output.LayerNorm', 'mlp_norm'),
]
_IGNORED = {r'pooler\..*': 'the tower gives tokens, no sentence vector'}


def hugging_face(config: TextConfig) -> Table:
    """Names of `BertModel`; of its positions only the first max_words are kept."""

    def first_positions(arrays):
        return same(arrays)[: config.max_words]

    positions = Row(('position_embeddings.weight',), 'positions.embedding', first_positions)
    made = rules([*_STEM, positions], 'embeddings.')
    made += rules(_LAYER, 'encoder.layer.{}.', 'stack.', config.depth)
    return Table(tuple(made), _IGNORED)

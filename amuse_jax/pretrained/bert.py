"""Names of BERT checkpoints."""

from collections.abc import Iterable

from amuse_jax.models.text import TextConfig
from amuse_jax.pretrained.convert import Row, Table, dense, first_row, rules, same

_IGNORED = {
    r'(.*\.)?pooler\..*': 'the tower gives tokens, no sentence vector',
    r'cls\..*': 'guesses hidden words',
    r'.*\.position_ids': 'counts up',
}


def table(config: TextConfig, names: Iterable[str]) -> Table:
    """Names of `BertModel`, and of `BertForPreTraining`, which has a prefix and heads; norms may be
    called gamma and beta, as in the first release. Of the positions the first max_words are kept.
    """
    names = set(names)
    root = 'bert.' if any(name.startswith('bert.') for name in names) else ''
    is_first_release = f'{root}embeddings.LayerNorm.gamma' in names
    scale, bias = ('gamma', 'beta') if is_first_release else ('weight', 'bias')

    def norm(theirs: str, ours: str) -> list[Row]:
        return [
            Row((f'{theirs}.{scale}',), f'{ours}.scale', same),
            Row((f'{theirs}.{bias}',), f'{ours}.bias', same),
        ]

    def first_positions(arrays):
        return same(arrays)[: config.max_words]

    stem = [
        Row(('word_embeddings.weight',), 'words.embedding', same),
        Row(('position_embeddings.weight',), 'positions.embedding', first_positions),
        Row(('token_type_embeddings.weight',), 'token_type', first_row),
        *norm('LayerNorm', 'norm'),
    ]
    layer = [
        *dense([f'attention.self.{part}' for part in ('query', 'key', 'value')], 'qkv'),
        *dense('attention.output.dense', 'out'),
        *norm('attention.output.LayerNorm', 'attention_norm'),
        *dense('intermediate.dense', 'inner'),
        *dense('output.dense', 'outer'),
        *norm('output.LayerNorm', 'mlp_norm'),
    ]
    made = rules(stem, f'{root}embeddings.')
    made += rules(layer, root + 'encoder.layer.{}.', 'stack.', config.depth)
    return Table(tuple(made), _IGNORED)

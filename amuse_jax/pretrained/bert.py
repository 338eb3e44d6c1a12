"""Names of BERT and RoBERTa checkpoints."""

from collections.abc import Mapping

import numpy as np

from amuse_jax.models.text import TextConfig
from amuse_jax.pretrained.key_mapping import Row, Table, dense, first_row, rules, same

_IGNORED = {
    r'(.*\.)?pooler\..*': 'the tower gives tokens, no sentence vector',
    r'(cls|lm_head)\..*': 'guesses hidden words',
    r'(.*\.)?(position_ids|token_type_ids)': 'counts up, or is zero',
}


# RoBERTa counts positions on from its padding's id, 1: the first two rows are never read.
_ROBERTA_OFFSET = 2


def table(config: TextConfig, source: Mapping[str, np.ndarray]) -> Table:
    """Names of `BertModel` and `RobertaModel`, and of the models with heads, which have a prefix;
    norms may be called gamma and beta, as in BERT's first release. Of the positions the first
    max_words are kept. RoBERTa is told by its single token type.
    """
    prefixes = [p for p in ('bert.', 'roberta.') if any(name.startswith(p) for name in source)]
    root = prefixes[0] if prefixes else ''
    types = source.get(f'{root}embeddings.token_type_embeddings.weight')
    offset = _ROBERTA_OFFSET if types is not None and len(types) == 1 else 0
    is_first_release = f'{root}embeddings.LayerNorm.gamma' in source
    scale, bias = ('gamma', 'beta') if is_first_release else ('weight', 'bias')

    def norm(theirs: str, ours: str) -> list[Row]:
        return [
            Row((f'{theirs}.{scale}',), f'{ours}.scale', same),
            Row((f'{theirs}.{bias}',), f'{ours}.bias', same),
        ]

    def first_positions(arrays):
        return same(arrays)[offset : offset + config.max_words]

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

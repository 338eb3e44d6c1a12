"""Tables that translate the names in BERT and RoBERTa checkpoints into parameters."""

from collections.abc import Mapping

import numpy as np

from amuse_jax.models.text import TextConfig
from amuse_jax.pretrained.key_mapping import Row, Table, dense, first_row, rules, same

_IGNORED = {
    r'(.*\.)?pooler\..*': 'the tower returns tokens, not a sentence vector',
    r'(cls|lm_head)\..*': 'predicts masked words',
    r'(.*\.)?(position_ids|token_type_ids)': 'constants: positions, or zeros',
}


# RoBERTa starts its positions after the id of its padding, 1, so the first two rows are not used.
_ROBERTA_OFFSET = 2


def table(config: TextConfig, source: Mapping[str, np.ndarray]) -> Table:
    """Return the table for a checkpoint of BERT or RoBERTa.

    The names may be those of `BertModel` or `RobertaModel`, or of a model with a head, which adds a
    prefix. Norms may have gamma and beta, as in BERT's first release. The table takes the first
    max_words positions. A single token type identifies RoBERTa.

    Args:
      config: the tower's sizes.
      source: the checkpoint's arrays by name.
    """
    prefixes = [p for p in ('bert.', 'roberta.') if any(name.startswith(p) for name in source)]
    root = prefixes[0] if prefixes else ''
    types = source.get(f'{root}embeddings.token_type_embeddings.weight')
    offset = _ROBERTA_OFFSET if types is not None and len(types) == 1 else 0
    is_first_release = f'{root}embeddings.LayerNorm.gamma' in source
    scale, bias = ('gamma', 'beta') if is_first_release else ('weight', 'bias')

    def norm(source: str, target: str) -> list[Row]:
        return [
            Row((f'{source}.{scale}',), f'{target}.scale', same),
            Row((f'{source}.{bias}',), f'{target}.bias', same),
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
    all_rules = rules(stem, f'{root}embeddings.')
    all_rules += rules(layer, root + 'encoder.layer.{}.', 'stack.', config.depth)
    return Table(tuple(all_rules), _IGNORED)

"""Names of the question encoder and the answer head that AVST, LAVISH and DG-SCT share."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from amuse_jax.models.peers.grounded_head import HeadConfig
from amuse_jax.pretrained.key_mapping import Row, dense, linear, norm, same

GROUNDING = [
    *dense('fc_gl', 'grounding.join'),
    *(row for i in range(4) for row in dense(f'fc{i + 1}', f'grounding.match.{i}')),
]
_UNUSED = 'the released forward never uses it'
IGNORED = {
    r'fc_a[12]_pure\.(weight|bias)': 'a copy for a second use that the released forward has not',
    r'(norm3|fc_v|fc_st|fc|fc_aq|fc_vq)\.(weight|bias)': _UNUSED,
}


def question(source: str, target: str) -> list[Row]:
    """Return the rows of a question encoder; the names end without a dot."""
    return [
        Row((f'{source}.word2vec.weight',), f'{target}.words.embedding', same),
        Row((f'{source}.lstm.weight_ih_l0',), f'{target}.lstm.input.kernel', linear),
        Row((f'{source}.lstm.bias_ih_l0',), f'{target}.lstm.input.bias', same),
        Row((f'{source}.lstm.weight_hh_l0',), f'{target}.lstm.recurrent.kernel', linear),
        Row((f'{source}.lstm.bias_hh_l0',), f'{target}.lstm.recurrent.bias', same),
        *dense(f'{source}.fc', f'{target}.out'),
    ]


def attention(source: str, target: str) -> list[Row]:
    """Return the rows of PyTorch's nn.MultiheadAttention; the names end without a dot."""
    return [
        Row((f'{source}.in_proj_weight',), f'{target}.qkv.kernel', linear),
        Row((f'{source}.in_proj_bias',), f'{target}.qkv.bias', same),
        *dense(f'{source}.out_proj', f'{target}.out'),
    ]


def feed(inner: str, outer: str, layer_norm: str, target: str) -> list[Row]:
    """Return the rows of a FeedForward from the names of its three parts."""
    return [
        *dense(inner, f'{target}.inner'),
        *dense(outer, f'{target}.outer'),
        *norm(layer_norm, f'{target}.norm'),
    ]


HEAD = [
    *question('question_encoder', 'question'),
    *GROUNDING,
    *attention('attn_v', 'visual.attention'),
    *feed('linear11', 'linear12', 'norm1', 'visual.feed'),
    *attention('attn_a', 'audio.attention'),
    *feed('linear21', 'linear22', 'norm2', 'audio.feed'),
    *dense('fc_fusion', 'fuse'),
    *dense('fc_ans', 'answer'),
]


def config_of(config: HeadConfig, arrays: Mapping[str, np.ndarray]) -> HeadConfig:
    """Return the config with the vocabulary, answers and widths of a file's arrays."""
    sizes = {
        'answers': rows(arrays, 'fc_ans.weight', config.answers),
        'vocabulary': rows(arrays, 'question_encoder.word2vec.weight', config.vocabulary),
        'width': rows(arrays, 'fc_gl.weight', config.width),
        'match_widths': tuple(
            rows(arrays, f'fc{i + 1}.weight', width) for i, width in enumerate(config.match_widths)
        ),
    }
    return dataclasses.replace(config, **sizes)


def rows(arrays: Mapping[str, np.ndarray], name: str, otherwise: int) -> int:
    """Return the length of an array's first axis, or `otherwise` if there is no such array."""
    return len(arrays[name]) if np.ndim(arrays.get(name)) else otherwise

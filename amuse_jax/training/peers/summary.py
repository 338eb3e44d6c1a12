"""A summary of a peer without building it: parameters, trained ones and FLOPs, beside Amuse."""

import math
from collections import Counter

from flax import nnx
from ml_collections import ConfigDict
from tabulate import tabulate

from amuse_jax.models import building, summary
from amuse_jax.models.peers import catalogue, question, sizes
from amuse_jax.training import state

COLUMNS = ('part', 'parameters', 'trained', 'GFLOP')
NOTE = (
    'GFLOP: matrix products that answer one question about one video; an addition and a '
    'multiplication are two FLOPs. Networks that run beforehand do not count.'
)


def table(config: ConfigDict) -> str:
    """Return a row for each part of the config's peer, for all of it, and for Amuse.

    Nothing is allocated or compiled. The peer reads the words of MUSIC-AVQA's train questions.
    """
    model = abstract(config)
    _, trained, frozen = state.split(model, config.peer.trainable, 'peer.trainable')
    everything, learned = _count(trained | frozen), _count(trained)
    rows = [[part, f'{everything[part]:,}', f'{learned[part]:,}', ''] for part in everything]
    title = catalogue.find(config.peer.name).title
    flops, _ = summary.cost(lambda peer, inputs: peer.logits(inputs), model, _inputs(config))
    rows.append(_whole(title, everything, learned, flops))
    rows.append(_amuse(config))
    text = tabulate(
        rows,
        headers=COLUMNS,
        disable_numparse=True,
        colalign=('left', *['right'] * (len(COLUMNS) - 1)),
    )
    return f'{text}\n\n{NOTE}'


def abstract(config: ConfigDict) -> nnx.Module:
    """Return the config's peer with shapes in place of arrays."""
    words = summary.BERT_WORDS if config.peer.name == 'lstta' else question.VOCABULARY
    return building.shapes(lambda rngs: sizes.build(config, words, rngs))


def count(config: ConfigDict) -> int:
    """Return the number of parameters of the config's peer, with those of its frozen towers."""
    _, trained, frozen = state.split(abstract(config), config.peer.trainable, 'peer.trainable')
    return sum(_count(trained | frozen).values())


def _inputs(config: ConfigDict) -> dict:
    inputs = sizes.abstract_inputs(config)
    inputs.pop('negative', None)  # it changes no answer
    return inputs


def _count(arrays: state.Arrays) -> Counter:
    """Return the number of parameters by the first part of their names."""
    found = Counter()
    for name, array in arrays.items():
        found[name.partition('.')[0]] += math.prod(array.shape)
    return found


def _amuse(config: ConfigDict) -> list[str]:
    """Return the row of Amuse at the sizes of the section `model`."""
    alone = config.copy_and_resolve_references()
    with alone.unlocked():
        alone.train.questions = 1
    _, trained, frozen = state.split(summary.abstract_models(alone)[1], alone.train.trainable)
    flops = summary.describe(alone)[-1].flops
    return _whole('Amuse', _count(trained | frozen), _count(trained), flops)


def _whole(name: str, everything: Counter, trained: Counter, flops: int) -> list[str]:
    totals = (f'{sum(part.values()):,}' for part in (everything, trained))
    return [name, *totals, f'{flops / 1e9:,.3f}']

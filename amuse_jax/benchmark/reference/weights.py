"""The reference's weights as amuse_jax names them.

Both sides hold the same parameters under the same names, but for what the frameworks call them
(weight: kernel or scale) and for stacks of alike blocks (a list there, a leading axis here). The
towers follow the tables of public checkpoints.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from torch import nn

from amuse_jax.benchmark.reference import towers
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.models.text import TextConfig
from amuse_jax.pretrained import bert, htsat, key_mapping, swin_v2
from amuse_jax.pretrained.key_mapping import Rule, Table, linear, same

_PARTS = {towers.VisualTower: 'visual', towers.AudioTower: 'audio', towers.TextTower: 'text'}
# Lists there, leading axes here; the towers' own are in their tables.
_STACKS = re.compile(r'(.*\b(?:adapters|layers))\.\d+\.(.*)')
_PAIRS = re.compile(r'(pairs)\.\d+\.(.*)')
_STATISTICS = {'running_mean': 'mean', 'running_var': 'variance'}


def fill(model: nnx.Module, reference: nn.Module, config: ConfigDict) -> nnx.Module:
    """A model with the reference's weights; every array of both must find its counterpart.

    Args:
      model: gives structure and shapes, as of `nnx.eval_shape`.
      reference: Amuse, UniversalEncoder, Adapters or a tower.
      config: sizes.

    Raises:
      ConversionError: they do not fit.
    """
    return key_mapping.fill(model, towers.arrays(reference), table(reference, config))


def train_only(reference: nn.Module, config: ConfigDict, trainable: str) -> list[nn.Parameter]:
    """Freezes the parameters whose name in amuse_jax `trainable`, a regular expression, does not
    match, and returns the others."""
    names = {
        source: rule.target
        for rule in table(reference, config).rules
        for group in rule.sources
        for source in group
    }
    for name, parameter in reference.named_parameters():
        parameter.requires_grad_(bool(re.search(trainable, names[name])))
    return [parameter for parameter in reference.parameters() if parameter.requires_grad]


def table(reference: nn.Module, config: ConfigDict) -> Table:
    """What every array of the reference becomes; see `convert`."""
    arrays = towers.arrays(reference)
    rules, ignored = [], {r'.*num_batches_tracked': 'counts training steps'}
    inside: list[str] = []
    for path, module in reference.named_modules():
        if type(module) in _PARTS:
            prefix = f'{path}.' if path else ''
            below = {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}
            of_tower = tower_table(config, _PARTS[type(module)], below)
            rules += [_prefixed(rule, prefix) for rule in of_tower.rules]
            for pattern, reason in of_tower.ignored.items():
                ignored[f'{re.escape(prefix)}(?:{pattern})'] = reason
            inside.append(prefix)
    for path, module in reference.named_modules():
        if not any(f'{path}.'.startswith(prefix) for prefix in inside):
            rules += _own_rules(path, module)
    return Table(tuple(_stacked(_stacked(rules, _STACKS), _PAIRS)), ignored)


def tower_sizes(config: ConfigDict, part: str, vocab_size: int = 0):
    """The model's own config of the tower `part`."""
    sizes = config.model[part].to_dict()
    if part == 'visual':
        return SwinV2Config(**sizes)
    if part == 'audio':
        return HTSATConfig(mels=config.audio.mels, **sizes)
    del sizes['tokenizer']
    return TextConfig(vocab_size=vocab_size, **sizes)


def tower_table(config: ConfigDict, part: str, arrays: Mapping[str, np.ndarray]) -> Table:
    """The table of public checkpoints of this kind."""
    tables = {'visual': swin_v2.table, 'audio': htsat.table, 'text': bert.table}
    return tables[part](tower_sizes(config, part), arrays)


def _own_rules(path: str, module: nn.Module) -> list[Rule]:
    """Of the parameters and statistics that the module itself holds."""
    is_linear = isinstance(module, nn.Linear)
    is_norm = isinstance(module, nn.LayerNorm | nn.BatchNorm1d)
    names = _STATISTICS | {'weight': 'kernel' if is_linear else 'scale'}
    held = [name for name, _ in module.named_parameters(recurse=False)]
    held += _STATISTICS if isinstance(module, nn.BatchNorm1d) else ()
    prefix = f'{path}.' if path else ''
    return [
        Rule(
            prefix + (names.get(name, name) if is_linear or is_norm else name),
            ((prefix + name,),),
            linear if is_linear and name == 'weight' else same,
        )
        for name in held
    ]


def _prefixed(rule: Rule, prefix: str) -> Rule:
    sources = tuple(tuple(prefix + name for name in group) for group in rule.sources)
    return dataclasses.replace(rule, target=prefix + rule.target, sources=sources)


def _stacked(rules: Iterable[Rule], pattern: re.Pattern) -> list[Rule]:
    """Joins the rules whose targets differ in their place in a list, in order, into rules whose
    results are stacked along a new first axis."""
    groups: dict[str, list[Rule]] = {}
    made = []
    for rule in rules:
        found = pattern.fullmatch(rule.target)
        if found:
            groups.setdefault(f'{found[1]}.{found[2]}', []).append(rule)
        else:
            made.append(rule)
    return made + [_joined(target, group) for target, group in groups.items()]


def _joined(target: str, rules: list[Rule]) -> Rule:
    """One rule that stacks what several alike rules make."""
    alike = rules[0]
    names = [tuple(name for group in rule.sources for name in group) for rule in rules]

    def op(arrays: list[np.ndarray]) -> np.ndarray:
        size = len(alike.sources[0])
        made = [alike.op(arrays[start : start + size]) for start in range(0, len(arrays), size)]
        return np.stack(made) if alike.stacked else same(made)

    return Rule(target, tuple(names), op, stacked=True)

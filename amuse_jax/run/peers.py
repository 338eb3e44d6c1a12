"""The stages of a run that trains a peer in place of Amuse, and the runs of all peers.

The stages before training are those of Amuse in the same workdir. Training and evaluation have
folders of their own, such as train-avst/ and evaluate-avst/, so Amuse's results stay as they are.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from amuse_jax.errors import StageError
from amuse_jax.evaluation import stage as evaluate
from amuse_jax.models.peers import sizes
from amuse_jax.parsing import parse_trainable
from amuse_jax.pretrained import peers as pretrained_peers
from amuse_jax.pretrained import towers
from amuse_jax.run.definition import Stage
from amuse_jax.training.peers import batches, stand_ins
from amuse_jax.training.peers import stage as train


def stages(config: ConfigDict, amuse: Mapping[str, Stage]) -> dict[str, Stage]:
    """Return the stages of the config's peer by name, in the order in which they run.

    Args:
      config: the run's config; `peer.name` names the peer.
      amuse: the stages of Amuse with the same config.

    Raises:
      StageError: there is no such peer.
    """
    name, has_stand_ins = config.peer.name, config.peer.inputs == 'towers'
    if name not in sizes.SIZES:
        raise StageError(
            f'config.peer.name is {name!r}; expected one of {", ".join(sizes.SIZES)}, or an empty '
            'name for Amuse'
        )
    shared = ['render', 'prepare']
    shared += ['annotate', 'pretrain'] if has_stand_ins else ['features']
    found = {stage: amuse[stage] for stage in shared if stage in amuse}
    if has_stand_ins and batches.inputs_of(config).arrays:
        found['stand_ins'] = Stage(
            'stand_ins', stand_ins.run, needs=('prepare', 'pretrain'), on_all_hosts=True
        )
    towers = sizes.TOWERS.get(name, {}).values()
    settings = ['seed', 'peer', *(f'model.{part}' for part in towers)]
    settings += [f'checkpoints.{part}' for part in towers]
    settings += ['model.adapters.rounds'] if name == 'lstta' else []
    found['train'] = Stage(
        'train',
        train.run,
        needs=('prepare', 'pretrain', 'stand_ins', 'features'),
        settings=tuple(settings),
        folder=f'train-{name}',
        on_all_hosts=True,
        is_kept=True,
    )
    found['evaluate'] = Stage(
        'evaluate',
        evaluate.run_peer,
        needs=('prepare', 'pretrain', 'stand_ins', 'features', 'train', 'render'),
        settings=('evaluate',),
        folder=f'evaluate-{name}',
        on_all_hosts=True,
        is_kept=True,
    )
    return found


def check(config: ConfigDict) -> None:
    """Refuse a config whose peer lacks inputs that the stage features would compute.

    Raises:
      StageError: the message names the arrays and the setting.
    """
    if not config.peer.name or config.peer.inputs == 'towers':
        return
    needed = batches.inputs_of(config).arrays
    missing = [name for name in needed if name not in config.features.arrays]
    if missing:
        raise StageError(
            f'config.features.arrays is {tuple(config.features.arrays)}, without '
            f'{", ".join(missing)}; {config.peer.name} needs {needed}, as in '
            f'configs/peers/{config.peer.name}.py'
        )


def check_towers(config: ConfigDict) -> None:
    """Refuse frozen towers without a checkpoint, and read the checkpoints of all others.

    Raises:
      StageError: a tower would keep its random weights, or a checkpoint does not fit.
    """
    trainable = parse_trainable(config.peer.trainable)
    for prefix, part in sizes.TOWERS.get(config.peer.name, {}).items():
        if config.peer.inputs == 'towers' and part != 'text':
            continue  # from pretraining
        if not config.checkpoints[part] and not trainable.search(f'{prefix}stages.0.'):
            raise StageError(
                f'the {part} tower of {config.peer.name} would keep its random weights: '
                f'config.checkpoints.{part} is empty; name a checkpoint '
                f'(--config.checkpoints.{part}=F), or train the tower (--config.peer.trainable)'
            )
        towers.check(config, part)


def check_grounding(config: ConfigDict) -> None:
    """Read the weights of the first training stage that the peer starts from, if there are any.

    Raises:
      StageError: the file cannot be read, or does not fit.
    """
    if config.peer.grounding.weights:
        head = sizes.from_settings(config).head
        pretrained_peers.load_grounding(config.peer.grounding.weights, head)


def configs(config: ConfigDict) -> dict[str, ConfigDict]:
    """Return the config of each peer in `config.peers`, by name.

    Raises:
      StageError: there is none.
    """
    if not config.peers:
        raise StageError(
            'config.peers names no system; expected --config=configs/demo.py with --stages=peers, '
            'or a config of one system without it, such as --config=configs/peers/avst.py'
        )
    found = {}
    for name, values in config.peers.items():
        found[name] = config.copy_and_resolve_references()
        found[name].peer.update(values, name=name)
    return found

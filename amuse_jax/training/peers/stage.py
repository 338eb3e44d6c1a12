"""The train stage of a peer: the same loop, checkpoints and validation as Amuse's.

AVST's first training stage, in which it learns which sound belongs to which frame, is the first
phase of its training: the answers' layers get no gradient there, so Adam leaves them as drawn.
AVST and LAVISH can also start from the weights that the released first stage left.

The stage writes checkpoints/, best/, frozen/, metrics.jsonl, tensorboard/ and seen.npy
(leakage.py).
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import optax
from ml_collections import ConfigDict

from amuse_jax.models import building
from amuse_jax.models.peers import sizes
from amuse_jax.pretrained import peers as pretrained_peers
from amuse_jax.pretrained import towers
from amuse_jax.training import checkpoints, jobs, loop, sharding, state
from amuse_jax.training.peers import answering
from amuse_jax.training.peers.batches import PeerBatches
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import leakage


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Train the config's peer and save the parameters with the best validation accuracy.

    Args:
      config: the config of the run.
      folder: the folder of this stage.
      inputs: the folders of prepare and, as far as the peer needs them, of features, stand_ins and
        pretrain.

    Returns:
      The number of steps, of trainable and of frozen parameters, and the record of the best
      validation.

    Raises:
      StageError: there are no train or no val questions, the inputs do not match each other, or the
        mesh cannot divide the model or the batches evenly.
    """
    source = PeerBatches(config, inputs)
    model = building.build(lambda rngs: sizes.build(config, source.vocabulary, rngs), config.seed)
    if config.peer.grounding.weights:
        where = config.peer.grounding.weights
        model.adopt(pretrained_peers.load_grounding(where, model.config.head))
    structure, params, frozen = state.split(model, config.peer.trainable, 'peer.trainable')
    arrays = init_towers(config, inputs, params | frozen)
    known = [q for q in source.table.questions if q.split in ('train', 'val')]
    leakage.save_known_questions(folder, known)
    arrays = sharding.shard_params(arrays, sharding.parameter_shardings(arrays, source.mesh))
    params, frozen = ({name: arrays[name] for name in part} for part in (params, frozen))
    job = jobs.Job(
        name=f'train {config.peer.name}',
        folder=folder,
        structure=structure,
        frozen=checkpoints.save_frozen_once(folder / 'frozen', frozen),
        metrics=answering.METRICS,
        phases=phases(config, source),
        settings=config.loop,
        mesh=source.mesh,
        seed=config.seed,
        video_ids=[video['video_id'] for video in source.reader.videos],
        best_by='accuracy',
        memory_advice='lower peer.batch_size or peer.questions',
    )
    trained = loop.fit(job, params)
    _, record = checkpoints.read_best(folder / 'best', trained)
    return job.summary(params, record)


def init_towers(
    config: ConfigDict, inputs: Mapping[str, Path], arrays: state.Arrays
) -> state.Arrays:
    """Return the arrays with those of the peer's towers replaced.

    Args:
      config: if `peer.inputs` is 'towers', the visual and audio towers are copies of those of the
        pretrained source encoder; otherwise `config.checkpoints` names their weights.
      inputs: the folders of the stages, with pretrain's for 'towers'.
      arrays: the peer's arrays by name.
    """
    loaded, pretrained = {}, {}
    if config.peer.inputs == 'towers':
        pretrained = pretrain.source_towers(config, inputs['pretrain'])
    for prefix, part in sizes.TOWERS.get(config.peer.name, {}).items():
        tower = pretrained.get(part) or towers.load(config, part)
        loaded |= {prefix + name: array for name, array in tower.items()}
    return arrays | loaded


def phases(config: ConfigDict, source: PeerBatches) -> list[jobs.Phase]:
    """Return AVST's grounding epochs, if there are any, and the epochs with questions."""
    peer, grounding = config.peer, config.peer.grounding
    batches = source.train()
    found = []
    if grounding.epochs:
        pairs = source.pairs()
        found.append(
            jobs.Phase(
                epochs=grounding.epochs,
                batches=pairs,
                loss=answering.ground,
                learning_rate=schedule(peer, grounding, len(pairs)),
                samples='loss',
            )
        )
    validation = jobs.Validation(source.once('val', peer.batch_size), answering.answer)
    asking = jobs.Phase(
        epochs=peer.epochs,
        batches=batches,
        loss=functools.partial(answering.loss, match_weight=peer.match_weight),
        learning_rate=schedule(peer, peer, len(batches)),
        samples='loss',
        validation=validation,
        weight_decay=peer.weight_decay,
        patience=peer.patience,
    )
    return [*found, asking]


def schedule(peer: ConfigDict, part: ConfigDict, steps: int) -> optax.Schedule:
    """Return the learning rate of some epochs: a tenth after every `decay_every`, or a cosine.

    Args:
      peer: the section `peer`.
      part: the section, or its part, with `learning_rate` and `epochs`.
      steps: number of steps of all epochs.
    """
    if not peer.decay_every:
        return optax.cosine_decay_schedule(part.learning_rate, steps)
    per_epoch = steps // part.epochs
    return state.stepped_schedule(part.learning_rate, per_epoch, peer.decay_every, 0.1)

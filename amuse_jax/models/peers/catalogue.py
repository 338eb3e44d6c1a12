"""The peers by name: their models, sizes as published, and example inputs."""

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import nnx

from amuse_jax.errors import StageError
from amuse_jax.models.peers import avst, dgsct, last, lavish, lstta, pstp


@dataclasses.dataclass(frozen=True)
class Peer:
    """A system that Amuse is compared with.

    Attributes:
      title: its name in tables.
      model: its class, built as model(config, rngs=rngs).
      config: its sizes as published.
      example: function from a config, a batch size and a seed to random inputs by name.
    """

    title: str
    model: type[nnx.Module]
    config: Any
    example: Callable[[Any, int, int], dict]


PEERS = {
    'avst': Peer('AVST', avst.AVST, avst.AVSTConfig(), avst.example),
    'avst_grounding': Peer(
        'AVST, grounding', avst.AVSTGrounding, avst.AVSTConfig(), avst.grounding_example
    ),
    'lavish': Peer('LAVISH', lavish.LAVISH, lavish.LAVISHConfig(), lavish.example),
    'dgsct': Peer('DG-SCT', dgsct.DGSCT, dgsct.DGSCTConfig(), dgsct.example),
    'pstp_released': Peer(
        'PSTP-Net (released)', pstp.PSTPReleased, pstp.PSTPConfig(), pstp.example
    ),
    'pstp_paper': Peer('PSTP-Net (paper)', pstp.PSTPPaper, pstp.PSTPConfig(), pstp.example),
    'lstta': Peer('LSTTA', lstta.LSTTA, lstta.LSTTAConfig(), lstta.example),
    'last': Peer('LAST', last.LAST, last.LASTConfig(), last.example),
    'last_att': Peer('LAST-Att', last.LAST, last.LASTConfig(semantic_width=768), last.example),
}


def find(name: str) -> Peer:
    """Return the peer of this name.

    Raises:
      StageError: there is no such peer.
    """
    if name not in PEERS:
        raise StageError(f'no peer is called {name!r}; expected one of {", ".join(PEERS)}')
    return PEERS[name]

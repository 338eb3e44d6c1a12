"""The sizes of the peers that a run trains, from the settings of its config."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.data import train_words
from amuse_jax.media.log_mel import LogMel
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.peers import avst, catalogue, dgsct, last, lavish, lstta, pstp, question
from amuse_jax.models.peers.disturb import Disturbances
from amuse_jax.models.peers.dual_guided_adapter import AdapterConfig as DualGuidedConfig
from amuse_jax.models.peers.grounded_head import HeadConfig
from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.models.text import TextConfig

# By peer: the beginning of the names of its towers' arrays, and the tower of the section `model`.
TOWERS = {
    'lavish': {'swin.': 'visual'},
    'last': {'lavish.swin.': 'visual'},
    'last_att': {'lavish.swin.': 'visual'},
    'dgsct': {'visual.': 'visual', 'audio.': 'audio'},
    'lstta': {'visual.': 'visual', 'audio.': 'audio', 'text.': 'text'},
}
# The public networks whose outputs are a peer's inputs.
MAP_WIDTH = 512  # channels of ResNet-18's maps
CLIP_WIDTH = 512  # of CLIP ViT-B/32's vectors
SEMANTIC_WIDTH = 768  # of the Audio Spectrogram Transformer's tokens


@dataclasses.dataclass(frozen=True)
class Widths:
    """Channels of the inputs that other networks compute.

    Attributes:
      audio: of the vector of a second of sound (VGGish).
      maps: of the map of a frame (ResNet-18).
      clip: of the vectors of frames, patches and words (CLIP).
      semantic: of the tokens of a spectrogram (AST).
    """

    audio: int
    maps: int
    clip: int
    semantic: int


def widths(config: ConfigDict) -> Widths:
    """Return the channels of the inputs: those of the public networks, or of the stand-ins."""
    if config.peer.inputs == 'features':
        return Widths(avst.AUDIO_WIDTH, MAP_WIDTH, CLIP_WIDTH, SEMANTIC_WIDTH)
    visual, audio = (8 * config.model[part].width for part in ('visual', 'audio'))
    return Widths(audio, visual, visual, audio)


def from_settings(config: ConfigDict, vocabulary: int = question.VOCABULARY) -> Any:
    """Return the sizes of the config's peer.

    Args:
      config: the run's config; `peer.name` names the peer.
      vocabulary: number of words that it can read: of LSTTA the tokenizer's, of all others those of
        the train questions, with the padding.
    """
    return SIZES[config.peer.name](config, vocabulary)


def build(config: ConfigDict, vocabulary: int, rngs: nnx.Rngs) -> nnx.Module:
    """Return the config's peer with random weights; see `from_settings`."""
    return catalogue.find(config.peer.name).model(from_settings(config, vocabulary), rngs=rngs)


def abstract_inputs(config: ConfigDict, videos: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of the inputs of the config's peer, for one question about each video."""
    segments, found = config.data.segments, widths(config)
    visual, audio = config.model.visual, config.model.audio
    seconds, side, words, semantic = pstp.SECONDS, avst.MAP_SIDE, pstp.WORDS, last.SEMANTIC_TOKENS
    mel_frames = dgsct.FRAMES
    if config.peer.inputs == 'towers':
        seconds, words, mel_frames = segments, train_words.LENGTH, _mel_frames(config)
        side, semantic = _last_side(visual), _last_side(audio) ** 2
    asked = (train_words.LENGTH,), jnp.int32
    frames = (segments, visual.image_size, visual.image_size, 3), jnp.uint8
    sounds = (segments, found.audio), jnp.float32
    maps = (segments, side, side, found.maps), jnp.float32
    image = (segments, visual.image_size, visual.image_size), jnp.float32
    of_lavish = {'question': asked, 'frames': frames, 'audio': image, 'negative': frames}
    patches = side**2 if config.peer.inputs == 'towers' else pstp.PATCHES
    of_pstp = {
        'question': asked if config.peer.reads_with_lstm else ((found.clip,), jnp.float32),
        'audio': ((seconds, found.audio), jnp.float32),
        'frames': ((seconds, found.clip), jnp.float32),
        'words': ((words, found.clip), jnp.float32),
    }
    mels = config.audio.mels
    of_peer = {
        'avst': {'question': asked, 'audio': sounds, 'visual': maps, 'negative': maps},
        'pstp_released': of_pstp,
        'pstp_paper': of_pstp | {'patches': ((seconds, patches, found.clip), jnp.float32)},
        'lavish': of_lavish,
        'last': of_lavish,
        'last_att': of_lavish | {'semantic': ((segments, semantic, found.semantic), jnp.float32)},
        'dgsct': of_lavish | {'audio': ((segments, mel_frames, mels), jnp.float32)},
        'lstta': {
            'frames': frames,
            'audio': ((segments, _mel_frames(config), mels), jnp.float32),
            'words': ((config.model.text.max_words,), jnp.int32),
            'mask': ((config.model.text.max_words,), bool),
        },
    }[config.peer.name]
    return {
        name: jax.ShapeDtypeStruct((videos, *shape), dtype)
        for name, (shape, dtype) in of_peer.items()
    }


def _mel_frames(config: ConfigDict) -> int:
    """Return the frames of a segment's log-mel."""
    return LogMel.from_settings(config).shape[1]


def _last_side(tower: ConfigDict) -> int:
    """Return the height and width of the map that leaves a tower's last stage."""
    return tower.image_size // tower.patch // 8


def _head(config: ConfigDict, vocabulary: int, width: int) -> HeadConfig:
    return HeadConfig(width, vocabulary=vocabulary, dropout=config.peer.dropout)


def _visual(config: ConfigDict) -> SwinV2Config:
    return SwinV2Config(**config.model.visual)


def _audio(config: ConfigDict) -> HTSATConfig:
    return HTSATConfig(mels=config.audio.mels, **config.model.audio)


def _avst(config: ConfigDict, vocabulary: int) -> avst.AVSTConfig:
    found = widths(config)
    return avst.AVSTConfig(_head(config, vocabulary, found.maps), found.audio)


def _pstp(config: ConfigDict, vocabulary: int) -> pstp.PSTPConfig:
    found, peer = widths(config), config.peer
    return pstp.PSTPConfig(
        width=peer.width,
        audio_width=found.audio,
        clip_width=found.clip,
        vocabulary=vocabulary if peer.reads_with_lstm else 0,
        dropout=peer.dropout,
        **peer.selection,
    )


def _lavish(config: ConfigDict, vocabulary: int) -> lavish.LAVISHConfig:
    adapter = config.peer.adapter
    return lavish.LAVISHConfig(
        swin=_visual(config),
        head=_head(config, vocabulary, config.peer.width),
        adapter=lavish.AdapterConfig(
            adapter.latents, adapter.reduction, adapter.groups, adapter.audio_gate
        ),
        drop_path=config.peer.disturb.drop_path,
    )


def _last(config: ConfigDict, vocabulary: int) -> last.LASTConfig:
    return last.LASTConfig(_lavish(config, vocabulary), dropout=config.peer.dropout)


def _last_att(config: ConfigDict, vocabulary: int) -> last.LASTConfig:
    semantic = widths(config).semantic
    return dataclasses.replace(_last(config, vocabulary), semantic_width=semantic)


def _dgsct(config: ConfigDict, vocabulary: int) -> dgsct.DGSCTConfig:
    visual, adapter = _visual(config), config.peer.adapter
    return dgsct.DGSCTConfig(
        visual=visual,
        audio=_audio(config),
        head=_head(config, vocabulary, 8 * visual.width),
        adapter=DualGuidedConfig(
            latents=adapter.latents,
            reduction=adapter.reduction,
            groups=adapter.groups,
            audio_gate=adapter.audio_gate,
            base=adapter.base,
        ),
        disturbances=Disturbances(**config.peer.disturb),
    )


def _lstta(config: ConfigDict, vocabulary: int) -> lstta.LSTTAConfig:
    text, adapter = dict(config.model.text), config.peer.adapter
    del text['tokenizer']
    return lstta.LSTTAConfig(
        visual=_visual(config),
        audio=_audio(config),
        text=TextConfig(vocabulary, **text),
        rounds=config.model.adapters.rounds,
        width=config.peer.width,
        hidden=adapter.hidden,
        latents=adapter.latents,
        dropout=config.peer.dropout,
    )


SIZES: dict[str, Callable[[ConfigDict, int], Any]] = {
    'avst': _avst,
    'pstp_released': _pstp,
    'pstp_paper': _pstp,
    'lavish': _lavish,
    'lstta': _lstta,
    'last': _last,
    'last_att': _last_att,
    'dgsct': _dgsct,
}

"""The public classes whole: with the layers that they store and whose results they never use."""

import torch
from torch import nn
from torchvision.models import resnet18

from amuse_jax.benchmark.reference.peers import avst, dgsct, lavish, pstp


def make_avst(config, resnet=False):
    """`AVQA_Fusion_Net`; `resnet` adds the ResNet-18."""
    model = avst.AVST(config)
    add_copies(model, config.head.width, config.audio_width)
    add_unused(model, config.head.width)
    if resnet:
        model.visual_net = resnet18(weights=None)
        model.visual_net.conv1_a = nn.Conv2d(1, 64, 7, bias=False)
    return model


def make_lavish(config):
    model = lavish.LAVISH(config)
    model.fc_a1 = nn.Linear(128, config.head.width)
    add_copies(model, config.head.width, 128)
    add_unused(model, config.head.width)
    model.swin.head = nn.Linear(config.swin.width * 8, 3)
    return model


def make_dgsct(config):
    model = dgsct.DGSCT(config)
    add_copies(model, config.head.width, 8 * config.audio.width)
    model.swin.head = nn.Linear(config.visual.width * 8, 3)
    model.htsat.tscam_conv = nn.Conv2d(8 * config.audio.width, 3, (2, 3), padding=(0, 1))
    model.htsat.head = nn.Linear(3, 3)
    return model


def make_pstp(config):
    """`PSTP_Net`. `pstp.PSTPReleased.forward` is its forward."""
    model, d = pstp.PSTPPaper(config), config.width
    model.fc_spat_q = nn.Linear(d, d)
    temporal, spatial = model.TempSegsSelect_Module, model.SpatRegsSelect_Module
    for module in (temporal, spatial):
        module.qst_query_linear1, module.qst_query_linear2 = nn.Linear(d, d), nn.Linear(d, d)
        module.qst_query_visual_norm = nn.LayerNorm(d)
    temporal.clip_attn = pstp.Layer(config, crosses=True)
    spatial.patch_fc = nn.Linear(d, d)
    model.GlobalLocal_Module.norm1 = nn.LayerNorm(d)
    model.GlobalLocal_Module.norm2 = nn.LayerNorm(d)
    model.GlobalSelf_Module.layers[0].cm_attn = nn.MultiheadAttention(d, 1)
    model.GlobalSelf_Module.norm2 = nn.LayerNorm(d)
    model.audio_fusion, model.visual_fusion = nn.Linear(d, d), nn.Linear(d, d)
    model.SM_fusion, model.fc_av_fusion = nn.Linear(2 * d, d), nn.Linear(2 * d, d)
    return model


def add_copies(model, width, audio_width):
    """Add the layers for a second use of the audio features, and a third norm."""
    model.fc_a1_pure, model.fc_a2_pure = nn.Linear(audio_width, width), nn.Linear(width, width)
    model.norm3 = nn.LayerNorm(width)


def add_unused(model, width):
    """Add the other layers that AVST's and LAVISH's forward never calls."""
    model.fc_v, model.fc = nn.Linear(2048, width), nn.Linear(2 * width, width)
    model.fc_st, model.fc_aq, model.fc_vq = (nn.Linear(width, width) for _ in range(3))


def count(make, *arguments):
    """Return the number of parameters by name; nothing is allocated."""
    with torch.device('meta'):
        model = make(*arguments)
    return {name: x.numel() for name, x in model.named_parameters()}

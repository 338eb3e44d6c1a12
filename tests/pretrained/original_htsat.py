"""The released HTS-AT (Chen et al. 2022): its arrays by name and shape, and its classifier."""

import torch
from torch import nn

from amuse_jax.benchmark.reference.peers.htsat import HTSAT

SAMPLE_RATE, WINDOW, MELS = 32000, 1024, 64


def shapes(config, classes):
    """Return the shape of every array in the release by name, without the Lightning prefix."""
    found = {
        'spectrogram_extractor.stft.conv_real.weight': (WINDOW // 2 + 1, 1, WINDOW),
        'spectrogram_extractor.stft.conv_imag.weight': (WINDOW // 2 + 1, 1, WINDOW),
        'logmel_extractor.melW': (WINDOW // 2 + 1, config.mels),
        **{f'bn0.{n}': (config.mels,) for n in ('weight', 'bias', 'running_mean', 'running_var')},
        'bn0.num_batches_tracked': (),
        'patch_embed.proj.weight': (config.width, 1, config.patch, config.patch),
        'patch_embed.proj.bias': (config.width,),
        **_norm('patch_embed.norm', config.width),
    }
    side = config.image_size // config.patch
    for stage, (depth, heads) in enumerate(zip(config.depths, config.heads)):
        width = config.width * 2**stage
        window = min(config.window, side)
        for block in range(depth):
            name = f'layers.{stage}.blocks.{block}.'
            if block % 2 and side > window:
                found[name + 'attn_mask'] = ((side // window) ** 2, window**2, window**2)
            found |= _norm(name + 'norm1', width) | _norm(name + 'norm2', width)
            found[name + 'attn.relative_position_bias_table'] = ((2 * window - 1) ** 2, heads)
            found[name + 'attn.relative_position_index'] = (window**2, window**2)
            found |= _linear(name + 'attn.qkv', 3 * width, width)
            found |= _linear(name + 'attn.proj', width, width)
            found |= _linear(name + 'mlp.fc1', 4 * width, width)
            found |= _linear(name + 'mlp.fc2', width, 4 * width)
        if stage < 3:
            found[f'layers.{stage}.downsample.reduction.weight'] = (2 * width, 4 * width)
            found |= _norm(f'layers.{stage}.downsample.norm', 4 * width)
            side //= 2
    rows = side // (config.image_size // config.mels)
    found |= _norm('norm', width)
    found |= {'tscam_conv.weight': (classes, width, rows, 3), 'tscam_conv.bias': (classes,)}
    return found | _linear('head', classes, classes)


def _norm(name, width):
    return {f'{name}.weight': (width,), f'{name}.bias': (width,)}


def _linear(name, out, width):
    return {f'{name}.weight': (out, width), f'{name}.bias': (out,)}


def draw(config, classes, seed=0):
    """Draw a random array for every name; index tables and masks are constants and not used."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes(config, classes).items():
        if name.endswith(('relative_position_index', 'num_batches_tracked')):
            found[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        mean = 1.0 if 'norm' in name and name.endswith('weight') or name == 'bn0.weight' else 0.0
        found[name] = mean + 0.2 * torch.randn(shape, generator=generator)
    found['bn0.running_mean'] = -30 + 5 * torch.randn(config.mels, generator=generator)
    found['bn0.running_var'] = 100 + 200 * torch.rand(config.mels, generator=generator)
    return found


class Original(HTSAT):
    """The released network in evaluation mode, with its classifier.

    A call takes a log-mel (b, frames, mels) and returns the scores of the clip, the scores of each
    frame, and the tokens after the last norm.
    """

    def __init__(self, arrays, config):
        super().__init__(config)
        classes, width, rows, columns = arrays['tscam_conv.weight'].shape
        self.tscam_conv = nn.Conv2d(width, classes, (rows, columns), padding=(0, 1))
        self.load_state_dict({name: arrays[name] for name in self.state_dict()})
        self.eval().requires_grad_(False)

    def forward(self, log_mel):
        x = self.normalise(log_mel)
        frames, most = x.shape[1], self.config.frames
        if frames <= most:
            return self._tags(x)
        step, length = (frames - 1) // 4, (frames - 1) // 2
        starts = range(0, frames - length - 1, step)
        parts = [self._tags(x[:, start : start + length]) for start in starts]
        return tuple(torch.stack(each).mean(0) for each in zip(*parts))

    def _tags(self, normalised):
        tokens = self.features(normalised)
        side, folds = int(tokens.shape[1] ** 0.5), self.config.folds
        x = tokens.mT.unflatten(2, (folds, side // folds, side)).transpose(2, 3).flatten(3)
        x = self.tscam_conv(x).flatten(2)  # (b, classes, time)
        frames = torch.sigmoid(x).mT.repeat_interleave(8 * self.config.patch, 1)
        return torch.sigmoid(x.mean(-1)), frames, tokens

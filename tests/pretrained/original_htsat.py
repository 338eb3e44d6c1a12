"""The released HTS-AT (Chen et al. 2022) in PyTorch: array names, shapes and the forward pass."""

import torch
import torch.nn.functional as F

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


class Original:
    """The forward pass in evaluation mode.

    A call takes a log-mel (b, frames, mels) and returns the scores of the clip, the scores of each
    frame, and the tokens after the last norm.
    """

    def __init__(self, arrays, config):
        self.arrays, self.config = arrays, config

    def __call__(self, log_mel):
        x = self.normalise(log_mel)
        frames, most = x.shape[1], self.config.frames
        if frames <= most:
            return self._features(x)
        step, length = (frames - 1) // 4, (frames - 1) // 2
        starts = range(0, frames - length - 1, step)
        parts = [self._features(x[:, start : start + length]) for start in starts]
        return tuple(torch.stack(each).mean(0) for each in zip(*parts))

    def normalise(self, log_mel):
        a = self.arrays
        return F.batch_norm(
            log_mel.transpose(1, 2),
            a['bn0.running_mean'], a['bn0.running_var'], a['bn0.weight'], a['bn0.bias'],
        ).transpose(1, 2)  # fmt: skip

    def embed(self, x):
        """Return the tokens that enter the first block, of a normalised log-mel."""
        config = self.config
        folds, side = config.image_size // config.mels, config.image_size
        x = x[:, None]  # (b, 1, frames, mels)
        if x.shape[2] < config.frames:
            x = F.interpolate(x, (config.frames, x.shape[3]), mode='bicubic', align_corners=True)
        x = x.permute(0, 1, 3, 2).reshape(len(x), 1, config.mels, folds, config.frames // folds)
        x = x.permute(0, 1, 3, 2, 4).reshape(len(x), 1, side, side)
        x = F.conv2d(
            x, self.arrays['patch_embed.proj.weight'], self.arrays['patch_embed.proj.bias'],
            stride=config.patch,
        ).flatten(2).transpose(1, 2)  # fmt: skip
        return self._norm(x, 'patch_embed.norm')

    def block(self, x, stage, index):
        size = self.config.image_size // self.config.patch >> stage
        return self._block(x, f'layers.{stage}.blocks.{index}.', stage, size, index % 2)

    def merge(self, x, stage):
        """Merge the tokens of a stage into those that enter the next one."""
        size = self.config.image_size // self.config.patch >> stage
        return self._merge(x, f'layers.{stage}.downsample.', size)

    def _features(self, x):
        config = self.config
        folds, x = config.image_size // config.mels, self.embed(x)
        for stage, depth in enumerate(config.depths):
            for block in range(depth):
                x = self.block(x, stage, block)
            if stage < 3:
                x = self.merge(x, stage)
        x = self._norm(x, 'norm')
        return *self._head(x, folds), x

    def _norm(self, x, name):
        return F.layer_norm(
            x, x.shape[-1:], self.arrays[f'{name}.weight'], self.arrays[f'{name}.bias']
        )

    def _linear(self, x, name):
        return F.linear(x, self.arrays[f'{name}.weight'], self.arrays[f'{name}.bias'])

    def _block(self, x, name, stage, size, is_odd):
        window = min(self.config.window, size)
        shift = window // 2 if is_odd and size > window else 0
        heads = self.config.heads[stage]
        batch, _, width = x.shape
        y = self._norm(x, name + 'norm1').reshape(batch, size, size, width)
        y = torch.roll(y, (-shift, -shift), (1, 2))
        count = size // window
        y = y.reshape(batch, count, window, count, window, width).transpose(2, 3)
        y = y.reshape(-1, window * window, width)
        qkv = self._linear(y, name + 'attn.qkv').reshape(len(y), window**2, 3, heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = query * (width // heads) ** -0.5 @ key.transpose(-2, -1) + self._bias(name, window)
        if shift:
            mask = self._mask(size, window, shift)  # (windows, m, m)
            scores = scores.reshape(batch, -1, heads, *mask.shape[1:]) + mask[:, None]
            scores = scores.reshape(-1, heads, *mask.shape[1:])
        y = (scores.softmax(-1) @ value).transpose(1, 2).reshape(len(y), window**2, width)
        y = self._linear(y, name + 'attn.proj')
        y = y.reshape(batch, count, count, window, window, width).transpose(2, 3)
        y = torch.roll(y.reshape(batch, size, size, width), (shift, shift), (1, 2))
        x = x + y.reshape(batch, -1, width)
        y = F.gelu(self._linear(self._norm(x, name + 'norm2'), name + 'mlp.fc1'))
        return x + self._linear(y, name + 'mlp.fc2')

    def _bias(self, name, window):
        place = torch.stack(torch.meshgrid(*[torch.arange(window)] * 2, indexing='ij')).flatten(1)
        offset = place[:, :, None] - place[:, None] + window - 1
        index = offset[0] * (2 * window - 1) + offset[1]
        return self.arrays[name + 'attn.relative_position_bias_table'][index].permute(2, 0, 1)

    def _mask(self, size, window, shift):
        part = torch.zeros(size)
        part[size - window :] += 1
        part[size - shift :] += 1
        region = (3 * part[:, None] + part).reshape(size // window, window, -1, window)
        region = region.transpose(1, 2).reshape(-1, window * window)
        return torch.where(region[:, None] == region[:, :, None], 0.0, -100.0)

    def _merge(self, x, name, size):
        batch, _, width = x.shape
        x = x.reshape(batch, size, size, width)
        quads = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x = torch.cat(quads, -1).reshape(batch, -1, 4 * width)
        return F.linear(self._norm(x, name + 'norm'), self.arrays[name + 'reduction.weight'])

    def _head(self, x, folds):
        batch, count, width = x.shape
        side = int(count**0.5)
        rows = side // folds
        x = x.transpose(1, 2).reshape(batch, width, folds, rows, side)
        x = x.permute(0, 1, 3, 2, 4).reshape(batch, width, rows, -1)
        x = F.conv2d(
            x, self.arrays['tscam_conv.weight'], self.arrays['tscam_conv.bias'], padding=(0, 1)
        ).flatten(2)  # (b, classes, time)
        frames = torch.sigmoid(x).transpose(1, 2)
        frames = frames.repeat_interleave(8 * self.config.patch, 1)
        return torch.sigmoid(x.mean(-1)), frames

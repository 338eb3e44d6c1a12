"""The answer head in the paper's words (3.3, 4.4): one cross-modal attention and a classifier."""

from collections.abc import Mapping

import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional

from amuse_jax.benchmark.reference.attention import join_heads, repeat_videos, split_heads
from amuse_jax.benchmark.reference.streams import FEATURES, NAMES


class RegionPooling(nn.Module):
    """Embeds regions and averages them in each segment."""

    def __init__(self, classes: int, feature_size: int, width: int):
        super().__init__()
        self.feature = nn.Linear(feature_size, width, bias=False)
        self.box = nn.Linear(5 + classes, width)
        self.classes = classes

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features (V, T, d) and each region's share in them (V, T, K).

        Args:
          inputs: boxes (V, T, K, 4), classes (V, T, K) with -1 for no region, scores (V, T, K),
            features (V, T, K, D) and segment_mask (V, T).
        """
        classes = inputs['classes']
        valid = (classes >= 0) & inputs['segment_mask'][..., None]
        one_hot = functional.one_hot(classes.clamp(min=0), self.classes)
        one_hot = one_hot * (classes >= 0)[..., None]
        box = torch.cat([inputs['boxes'], inputs['scores'][..., None], one_hot], dim=-1)
        hidden = functional.relu(self.feature(inputs['features']) + self.box(box))
        share = valid / valid.sum(-1, keepdim=True).clamp(min=1)
        return (share[..., None, :] @ hidden)[..., 0, :], share


class PaperHead(nn.Module):
    """The question attends to every stream's T tokens at once; a classifier gives the answer."""

    def __init__(self, config: ConfigDict, classes: int, answers: int):
        super().__init__()
        sizes, segments = config.model.answer, config.data.segments
        width, self.heads = sizes.width, sizes.heads
        self.regions = RegionPooling(classes, config.rois.feature_size, width)
        widths = {'visual': 8 * config.model.visual.width, 'audio': 8 * config.model.audio.width}
        widths = {name: widths[name.rpartition('_')[2]] for name in FEATURES} | {'regions': width}
        self.projections = nn.ModuleDict({name: nn.Linear(widths[name], width) for name in NAMES})
        self.time = nn.Parameter(0.5 * torch.randn(segments, width))
        self.question = nn.Linear(config.model.text.width, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.inner = nn.Linear(2 * width, sizes.mlp_width)
        self.choice = nn.Linear(sizes.mlp_width, answers)

    def forward(self, inputs: Mapping[str, torch.Tensor], text: torch.Tensor):
        """Return logits (B, A), importance (B, S), region and time weights; see amuse.Output.

        Args:
          inputs: as for streams.Streams, and for RegionPooling.
          text: (B, N, d_t), tokens of the text tower.
        """
        rows = len(text)
        pooled, share = self.regions(inputs)
        features = {**{name: inputs[name] for name in FEATURES}, 'regions': pooled}
        tokens = [repeat_videos(self.projections[n](features[n]) + self.time, rows) for n in NAMES]
        masks = [inputs['segment_mask']] * len(FEATURES) + [share.any(-1)]
        mask = repeat_videos(torch.stack(masks, dim=1), rows).flatten(1)  # (B, S * T)

        question = self.question(text[:, 0])
        tokens = torch.cat(tokens, dim=1)
        query, key, value = (
            split_heads(x, self.heads)
            for x in (self.query(question)[:, None], self.key(tokens), self.value(tokens))
        )
        scores = (query @ key.mT).float() * query.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask[:, None, None], torch.finfo(torch.float32).min)
        weights = scores.softmax(-1).masked_fill(~mask[:, None, None], 0)
        attended = join_heads(weights.to(value.dtype) @ value)[:, 0]
        hidden = functional.relu(self.inner(torch.cat([question, attended], dim=-1)))

        weights = weights[:, :, 0].mean(1).unflatten(-1, (len(NAMES), -1))  # (B, S, T)
        importance = weights.sum(-1)
        time = weights / importance.clamp(min=1e-9)[..., None]
        regions = (time[:, -1, :, None] * repeat_videos(share, rows)).flatten(1)
        return self.choice(hidden).float(), importance, regions, time

"""The answer head: a question attends over time inside each stream, then over the streams."""

from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional

from amuse_jax.benchmark.reference.attention import attend, join_heads, split_heads
from amuse_jax.benchmark.reference.streams import Stream

# The cosine from which on a word names an object, and the slope of the sigmoid there.
MATCH_THRESHOLD, MATCH_SHARPNESS = 0.75, 20.0


class ConcatenatedStreams(NamedTuple):
    """The tokens of all streams, concatenated.

    Attributes:
      tokens: (B, n, d).
      mask: (B, n) bool, False for padding.
      sizes: the number of tokens of each stream.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    sizes: list[int]


class StreamAttention(nn.Module):
    """Probes attend over time inside each stream, then over the streams.

    w_i = exp(q k_i / sqrt(c) - z_s),  z_s = logsumexp(sink, q k_i / sqrt(c) for i in stream s)
    g_s = softmax over s of r e_s + a z_s
    out = W_o sum_s g_s sum_{i in s} w_i v_i + W_z (g_s z_s)_s
    """

    def __init__(self, sizes: ConfigDict, streams: int):
        super().__init__()
        width, self.heads = sizes.width, sizes.heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.sink = nn.Parameter(torch.randn(self.heads))
        self.prefer = nn.Linear(width, self.heads * streams)
        self.found = nn.Parameter(0.5 + 0.1 * torch.randn(self.heads))
        self.amount = nn.Linear(self.heads * streams, width)

    def forward(
        self, probes: torch.Tensor, streams: ConcatenatedStreams
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Let the probes (B, M, d) attend to the streams.

        Returns:
          The result for each probe (B, M, d). For the first probe, averaged over heads: its weights
          of the streams (B, S), and per stream its weights of the tokens (B, n).
        """
        x = self.norm(probes)
        query, key, value = (
            split_heads(y, self.heads)
            for y in (self.query(x), self.key(streams.tokens), self.value(streams.tokens))
        )
        scores = (query @ key.mT).float() * query.shape[-1] ** -0.5  # (B, heads, M, n)
        scores = scores.masked_fill(~streams.mask[:, None, None], -torch.inf)
        sink = self.sink[:, None, None].expand(*scores.shape[:-1], 1)
        parts = scores.split(streams.sizes, dim=-1)
        amounts = [torch.cat([sink, s], dim=-1).logsumexp(-1, keepdim=True) for s in parts]
        weights = [(s - amount).exp() for s, amount in zip(parts, amounts)]

        amount = torch.cat(amounts, dim=-1)  # (B, heads, M, S)
        prefer = split_heads(self.prefer(x), self.heads).float()
        gates = (prefer + self.found[:, None, None] * amount).softmax(-1)
        gated = [w * gates[..., i : i + 1] for i, w in enumerate(weights)]
        fused = torch.cat(gated, dim=-1).to(value.dtype) @ value
        out = self.out(join_heads(fused)) + self.amount(join_heads(gates * amount))
        first = [w[:, :, 0].mean(1) for w in weights]
        first = [w / w.sum(-1, keepdim=True).clamp(min=1e-9) for w in first]
        return out, gates[:, :, 0].mean(1), first


class AnswerLayer(nn.Module):
    """Attention to the streams, attention among the probes, and an MLP; each pre-norm residual."""

    def __init__(self, sizes: ConfigDict, streams: int):
        super().__init__()
        width, self.heads = sizes.width, sizes.heads
        self.look = StreamAttention(sizes, streams)
        self.probe_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, sizes.mlp_width)
        self.outer = nn.Linear(sizes.mlp_width, width)

    def forward(self, probes: torch.Tensor, streams: ConcatenatedStreams):
        """Return the new probes (B, M, d), and the first probe's weights (see StreamAttention)."""
        attended, *weights = self.look(probes, streams)
        probes = probes + attended
        qkv = self.qkv(self.probe_norm(probes)).chunk(3, dim=-1)
        probes = probes + self.out(attend(*qkv, self.heads))
        x = self.outer(functional.gelu(self.inner(self.mlp_norm(probes))))
        return probes + x, weights


class AnswerHead(nn.Module):
    """The answer head: from words and streams to the scores of the answers."""

    def __init__(self, sizes: ConfigDict, text_width: int, answers: int, streams: int):
        super().__init__()
        width = sizes.width
        self.question_norm = nn.LayerNorm(text_width)
        self.question = nn.Linear(text_width, width)
        self.name_norm = nn.LayerNorm(text_width)
        self.name_projection = nn.Linear(text_width, width, bias=False)
        self.link = nn.Linear(width, width)
        self.look = StreamAttention(sizes, streams)
        self.word_key = nn.Linear(width, width)
        self.probes = nn.Parameter(2 * torch.randn(sizes.probes - 1, width))
        self.role = nn.Parameter(0.5 * torch.randn(sizes.probes, width))
        self.token_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList([AnswerLayer(sizes, streams) for _ in range(sizes.layers)])
        self.state_norm = nn.LayerNorm(width)
        self.state = nn.Linear(width, width)
        self.choice = nn.Linear(width, answers)

    def names(self, words: torch.Tensor) -> torch.Tensor:
        """Project rows of the word table, or their means, (..., d_t) to names (..., d)."""
        return self.name_projection(self.name_norm(words))

    def forward(
        self,
        text: torch.Tensor,
        words: torch.Tensor,
        word_mask: torch.Tensor,
        streams: list[Stream],
        answer_names: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Answer the questions.

        Args:
          text: (B, N, d_t), the text tower's tokens, [CLS] first.
          words: (B, N, d_t), the rows of the word table for the same words.
          word_mask: (B, N) bool, True for words.
          streams: the streams of the same videos.
          answer_names: (A, d), the names of the answers.

        Returns:
          Logits (B, A), importance (B, S), and per stream the weights of its tokens (B, n).
        """
        concatenated = ConcatenatedStreams(
            self.token_norm(torch.cat([stream.tokens for stream in streams], dim=1)),
            torch.cat([stream.mask for stream in streams], dim=1),
            [stream.tokens.shape[1] for stream in streams],
        )
        names = self.names(words)
        question = self.question(self.question_norm(text)) + names + self._link(names, streams)
        question = question + self.look(question, concatenated)[0]
        probes = self._condense(question, word_mask)
        for layer in self.layers:
            probes, (importance, weights) = layer(probes, concatenated)
        state = self.state(self.state_norm(probes[:, 0]))
        name_scores = state @ answer_names.mT * state.shape[-1] ** -0.5
        return name_scores + self.choice(self.state_norm(probes[:, 0])), importance, weights

    def _link(self, words: torch.Tensor, streams: list[Stream]) -> torch.Tensor:
        """Return, for words (B, N, d), the stream tokens of the objects they name: (B, N, d)."""
        named = [stream for stream in streams if stream.names is not None]
        objects = torch.cat([stream.tokens[:, -len(stream.names) :] for stream in named], dim=1)
        names = torch.cat([stream.names for stream in named])
        match = torch.sigmoid(MATCH_SHARPNESS * (_unit(words) @ _unit(names).mT - MATCH_THRESHOLD))
        return match @ self.link(objects)

    def _condense(self, question: torch.Tensor, word_mask: torch.Tensor) -> torch.Tensor:
        """Pool words (B, N, d) into probes (B, M, d): [CLS], and one probe per learned query."""
        scores = (self.probes @ self.word_key(question).mT) * question.shape[-1] ** -0.5
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(~word_mask[:, None], lowest).softmax(-1)
        weights = weights.masked_fill(~word_mask[:, None], 0)  # zeros for a question without words
        return torch.cat([question[:, :1], weights @ question], dim=1) + self.role


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Normalise vectors to length one; zero vectors stay zero."""
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)

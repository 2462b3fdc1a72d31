"""Step 2, train: rows.jsonl → checkpoint.pt. One encoder, two kinds of batches, a loss masked per head.

Every row trains the heads it has labels for. The embedding is pulled towards all-MiniLM-L6-v2's own
sentence embedding (distillation by cosine), so that operators' topics, given by a few examples, still
work after fine-tuning on our twenty. Deterministic by seed on one machine; Ctrl-C and start again resume.
"""

# Where torch is not installed mypy takes all of it for Any, where it is it does not; both must pass.
# mypy: disable-error-code="no-any-return, no-untyped-call, attr-defined"

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.progress import Progress
from torch.nn import functional

from classifiers.labels import HEADS
from classifiers.model import Network, base_folder, pretrained
from classifiers.reader import Lengths, Reader, Reading, pad
from classifiers.rows import DataError, Row, read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from torch import Tensor

PAIR_BATCH, PROMPT_BATCH = 32, 64
RATE, HEAD_RATE, WARMUP = 2e-4, 1e-3, 0.06
OWN_REPEATS = 3  # our own rows are few and show what no public source does, so an epoch sees them thrice
TOPIC_LOSS, EMBED_LOSS = 0.7, 2.0
SMOOTHING = (
    0.05  # the labels are noisy; a little smoothing keeps the network from learning their noise by heart
)
CHECKPOINT_EVERY = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What one training run is: it and the rows decide the weights."""

    seed: int = 1
    layers: int = 3
    epochs: float = 3.0
    threads: int = 2
    start: Path | None = None  # go on from this checkpoint's weights, at half the rate


@dataclass(frozen=True, slots=True)
class Example:
    """A row, read: token ids, label indices (-100 = not labelled) and weight."""

    reading: Reading
    labels: tuple[int, int, int]
    weight: float
    target: Tensor | None = None  # the teacher's embedding of a prompt


def train(work: Path, plan: Plan, console: Console) -> Path:
    """Train and write work/checkpoint.pt; returns its path. Raises DataError where rows are missing."""
    rows = [row for row in read_rows(work / "rows.jsonl") if row.split == "train"]
    rows += [row for row in rows if row.source == "own"] * (OWN_REPEATS - 1)
    torch.manual_seed(plan.seed)
    torch.set_num_threads(plan.threads)
    reader = Reader.load(base_folder() / "tokenizer.json", Lengths())
    pairs = [_pair(row, reader) for row in rows if row.response is not None and row.outcome]
    prompts = _prompts(rows, reader, work, console)
    steps = int(plan.epochs * len(pairs) / PAIR_BATCH)
    console.print(f"{len(pairs)} pairs, {len(prompts)} prompts, {steps} steps")

    network = pretrained(plan.layers)
    if plan.start:
        network.load_state_dict(_started(plan.start)["network"])
    for frozen in (network.words, network.places):
        frozen.weight.requires_grad_(False)  # the word table stays MiniLM's
    optimizer = torch.optim.AdamW(_groups(network, 0.5 if plan.start else 1.0), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    path = work / "checkpoint.pt"
    start = _resume(path, plan, steps, network, optimizer, schedule)

    network.train()
    pair_batches = _batches(pairs, PAIR_BATCH, plan.seed, steps)
    prompt_batches = _batches(prompts, PROMPT_BATCH, plan.seed + 1, steps)
    began, running = time.monotonic(), np.zeros(4)
    with Progress(console=console) as progress:
        bar = progress.add_task("train", total=steps, completed=start)
        for step in range(start, steps):
            torch.manual_seed(plan.seed * 1_000_003 + step)  # dropout, so that a resumed run is the same run
            losses = (*_pair_loss(network, pair_batches[step]), *_prompt_loss(network, prompt_batches[step]))
            loss = losses[0] + losses[1] + TOPIC_LOSS * losses[2] + EMBED_LOSS * losses[3]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            running = 0.98 * running + 0.02 * np.array([part.item() for part in losses])
            progress.advance(bar)
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
                _save(path, plan, steps, step + 1, network, optimizer, schedule)
                scaled = " ".join(f"{value / (1 - 0.98 ** (step + 1 - start)):.3f}" for value in running)
                console.print(
                    f"step {step + 1}: {scaled} ({time.monotonic() - began:.0f} s)", highlight=False
                )
    return path


def _labels(row: Row) -> tuple[int, int, int]:
    found = [HEADS[head].index(label) if (label := getattr(row, head)) else -100 for head in HEADS]
    return found[0], found[1], found[2]


def _pair(row: Row, reader: Reader) -> Example:
    return Example(reader.pair(row.prompt, row.response or ""), _labels(row), row.weight)


def _prompts(rows: Sequence[Row], reader: Reader, work: Path, console: Console) -> list[Example]:
    """Return the prompt examples with the teacher's embeddings, which are computed once and cached."""
    kept = [row for row in rows if row.prompt_class or row.topic]
    readings = [reader.prompt(row.prompt) for row in kept]
    cache = work / "teacher.npz"
    known: dict[str, np.ndarray] = {}
    if cache.is_file():
        with np.load(cache) as stored:
            known = dict(zip(stored["ids"].tolist(), stored["vectors"], strict=True))
    missing = [place for place, row in enumerate(kept) if row.id not in known]
    teacher = pretrained(6).eval()
    missing.sort(key=lambda place: len(readings[place].ids))
    with Progress(console=console) as progress, torch.inference_mode():
        for start in progress.track(range(0, len(missing), 64), description="teacher"):
            places = missing[start : start + 64]
            vectors = teacher(*_tensors([readings[place] for place in places]))[3].half().numpy()
            known |= {kept[place].id: vector for place, vector in zip(places, vectors, strict=True)}
    if missing:
        np.savez(cache, ids=np.array(list(known)), vectors=np.stack(list(known.values())))
    return [
        Example(reading, _labels(row), row.weight, torch.from_numpy(known[row.id]).float())
        for row, reading in zip(kept, readings, strict=True)
    ]


def _tensors(readings: Sequence[Reading]) -> tuple[Tensor, Tensor, Tensor]:
    ids, types, mask = pad(readings)
    return torch.from_numpy(ids), torch.from_numpy(types), torch.from_numpy(mask)


def _batches(examples: list[Example], size: int, seed: int, steps: int) -> list[list[Example]]:
    """Return `steps` batches, shuffled by epoch, of similar lengths within a batch (less padding)."""
    rng = random.Random(seed)  # noqa: S311 - shuffling, not secrecy
    batches: list[list[Example]] = []
    while len(batches) < steps:
        order = rng.sample(examples, len(examples))
        pool = size * 16
        epoch: list[list[Example]] = []
        for start in range(0, len(order), pool):
            bucket = sorted(order[start : start + pool], key=lambda example: len(example.reading.ids))
            epoch += [bucket[at : at + size] for at in range(0, len(bucket), size)]
        rng.shuffle(epoch)
        batches += epoch
    return batches[:steps]


def _pair_loss(network: Network, batch: list[Example]) -> tuple[Tensor]:
    logits = network(*_tensors([example.reading for example in batch]))[0]
    return (_weighted(logits, batch, 0),)


def _prompt_loss(network: Network, batch: list[Example]) -> tuple[Tensor, Tensor, Tensor]:
    _, prompt_class, topic, embedding = network(*_tensors([example.reading for example in batch]))
    target = torch.stack([example.target for example in batch if example.target is not None])
    return (
        _weighted(prompt_class, batch, 1),
        _weighted(topic, batch, 2),
        1 - (embedding * target).sum(-1).mean(),
    )


def _weighted(logits: Tensor, batch: list[Example], head: int) -> Tensor:
    labels = torch.tensor([example.labels[head] for example in batch])
    weights = torch.tensor([example.weight for example in batch]) * (labels >= 0)
    each = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=SMOOTHING)
    return (each * weights).sum() / weights.sum().clamp(min=1e-6)


def _groups(network: Network, scale: float) -> list[dict[str, object]]:
    encoder = ("words", "places", "types", "norm.", "layers")
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in named if name.startswith(encoder)], "lr": scale * RATE},
        {"params": [p for name, p in named if not name.startswith(encoder)], "lr": scale * HEAD_RATE},
    ]


def _rate(step: int, steps: int) -> float:
    warm = max(1, int(WARMUP * steps))
    return step / warm if step < warm else max(0.02, (steps - step) / max(1, steps - warm))


def _save(path: Path, plan: Plan, steps: int, step: int, network: Network, *states: object) -> None:
    content = {"plan": _plan(plan), "steps": steps, "step": step}
    content |= {"network": network.state_dict(), "states": [state.state_dict() for state in states]}
    torch.save(content, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _plan(plan: Plan) -> dict[str, Any]:
    """Return what decides the weights, as stored in checkpoints and shown in the bundle."""
    stored: dict[str, Any] = {"seed": plan.seed, "layers": plan.layers, "epochs": plan.epochs}
    if plan.start:
        before = _started(plan.start)
        stored["started_from"] = {**before["plan"], "steps": before["step"]}
    return stored


def _started(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path} is missing; --start names an earlier checkpoint")
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def _resume(path: Path, plan: Plan, steps: int, network: Network, *states: object) -> int:
    """Load a checkpoint of the same plan and return its step; 0 where there is none."""
    if not path.is_file():
        return 0
    content = torch.load(path, weights_only=True)
    if content["plan"] != _plan(plan) or content["steps"] != steps:
        return 0
    network.load_state_dict(content["network"])
    for state, stored in zip(states, content["states"], strict=True):
        state.load_state_dict(stored)
    return int(content["step"])

"""Captures as a worker would send them, and the parts around a Monitor that tests can steer."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from random import Random
from threading import Condition
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from proxy.flows.monitor import Monitor
from proxy.pure.decide import TextScores
from proxy.resources.log import configure
from proxy.resources.metrics import Metrics
from proxy.words.config import Config
from proxy.words.exchange import BoundedCopy, Capture

if TYPE_CHECKING:
    from proxy.resources.model import State
    from proxy.words.verdict import Outcome

NOW = 1_800_000_000.0
WAIT_S = 20.0


def copy_of(value: object) -> BoundedCopy:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return BoundedCopy(body, b"", len(body))


def request_body(prompt: str = "How do I bake bread?", system: str = "", model: str = "gpt-4o") -> Any:
    messages = [{"role": "system", "content": system}] if system else []
    return {"model": model, "messages": [*messages, {"role": "user", "content": prompt}]}


def choice(text: str | None, index: int = 0, **message: object) -> Any:
    return {
        "index": index,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text, **message},
    }


def response_body(*choices: Any, model: str = "gpt-4o-2024") -> Any:
    usage = {"prompt_tokens": 12, "completion_tokens": 34}
    return {"id": "chatcmpl-1", "model": model, "choices": list(choices), "usage": usage}


def capture(
    text: str | None = "Mix flour and water.",
    *,
    id: str = "c1",  # noqa: A002 - the field's name
    request: object = None,
    response: object = None,
    **facts: Any,
) -> Capture:
    """A chat completion that answered with `text`, unless bodies are given."""
    values: dict[str, Any] = {
        "route": "default",
        "format": "openai_chat",
        "path": "/v1/chat/completions",
        "status": 200,
        "response_content_type": "application/json",
        "finished_at": NOW - 0.25,
        "duration_s": 1.5,
        "first_byte_s": 0.2,
    }
    return Capture(
        id=id,
        request=copy_of(request_body() if request is None else request),
        response=copy_of(response_body(choice(text)) if response is None else response),
        **{**values, **facts},
    )


def stream(*texts: str, done: bool = True) -> bytes:
    """A chat completion's events."""
    head = {"id": "chatcmpl-1", "model": "gpt-4o-2024", "object": "chat.completion.chunk"}
    chunks: list[Any] = [{"index": 0, "delta": {"content": text}, "finish_reason": None} for text in texts]
    if done:
        chunks.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    lines = [f"data: {json.dumps({**head, 'choices': [chunk]})}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def scores_for(response: str) -> TextScores:
    """A classifier that anyone can predict: `I can't` is a full refusal, `In part` a partial one."""
    outcome: Outcome = "answer"
    if response.startswith("I can't"):
        outcome = "full_refusal"
    elif response.startswith("In part"):
        outcome = "partial_refusal"
    p_outcome = dict.fromkeys(("answer", "partial_refusal", "full_refusal"), 0.05)
    p_outcome[outcome] = 0.9
    return TextScores(
        outcome=outcome,
        p_outcome=p_outcome,
        prompt_class="benign",
        p_prompt_class={"benign": 0.8, "sensitive": 0.15, "harmful": 0.05},
        topic="everyday",
        p_topic=0.7,
    )


class FakeModel:
    """A model of the test's making. `before` gets the items of each batch first and may block or raise."""

    def __init__(
        self, state: State = "ready", before: Callable[[Sequence[tuple[str, str]]], None] | None = None
    ) -> None:
        self.state: State = state
        self.version = "fake-1" if state == "ready" else ""
        self.configured: list[Config] = []
        self._before = before

    def configure(self, config: Config) -> None:
        self.configured.append(config)

    def score(self, items: Sequence[tuple[str, str]]) -> list[TextScores]:
        if self._before:
            self._before(items)
        return [scores_for(response) for _, response in items]


class Recorded:
    """Tokens as they are recorded; `wait` for their number instead of sleeping."""

    def __init__(self) -> None:
        self.tokens: list[object] = []
        self._changed = Condition()

    def __call__(self, tokens: list[object]) -> None:
        with self._changed:
            self.tokens += tokens
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.tokens) >= count, WAIT_S), self.tokens


def config(**values: Any) -> Config:
    return Config.model_validate({"upstream": "http://127.0.0.1:1", **values})


class House:
    """A Monitor with everything around it."""

    def __init__(self, model: Any = None, clock: Callable[[], float] = lambda: NOW, **values: Any) -> None:
        self.config = config(**values)
        self.lines = io.StringIO()
        self.log = configure(self.config.log, self.lines)
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, self.config, self.log, "1.2.3")
        self.recorded = Recorded()
        self.model = model or FakeModel()
        self.monitor = Monitor(
            self.config,
            metrics=self.metrics,
            model=self.model,
            rng=Random(5),
            log=self.log,
            recorded=self.recorded,
            clock=clock,
        )

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def score(self, *captures: Capture) -> None:
        """Start, offer everything, and stop."""
        self.monitor.start()
        for number, one in enumerate(captures):
            self.monitor.offer(one, number)
        await self.monitor.stop(WAIT_S)
        assert sorted(self.recorded.tokens, key=str) == sorted(range(len(captures)), key=str)

"""The monitor: captures in, numbers out, off the event loop.

    offer (event loop) → BoundedSample → scoring thread: parse → native signals → classifier → metrics
                              └ evicted: counted as dropped          └ recorded(tokens)

Invariant: every capture that is offered ends exactly once, in verdicts, as `unscored` with a cause, or as
`dropped`; after that, and not before, its token goes to `recorded`, from the scoring thread (once `stop` has
given up on it: from the caller's).

One thread scores, because the model wants one; it loads the model, too, so that loading holds nobody up.
It takes what waits, up to `classifier.batch`, and never waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Condition, Thread
from typing import TYPE_CHECKING, Final, Protocol

from proxy.pure.decide import decide, wants_scores
from proxy.pure.formats.registry import FORMATS, parse
from proxy.pure.queue import BoundedSample
from proxy.resources.background import Progress, give_way
from proxy.resources.log import place
from proxy.resources.metrics import Queue
from proxy.words.errors import Unscored

if TYPE_CHECKING:
    from random import Random

    from proxy.pure.decide import ClassifierState, TextScores
    from proxy.resources.log import Logger
    from proxy.resources.metrics import Metrics, Names
    from proxy.resources.model import State
    from proxy.words.config import Config
    from proxy.words.exchange import Capture, Exchange
    from proxy.words.verdict import Verdict

CAPTURE_OVERHEAD: Final = 1024  # bytes that a waiting capture takes besides its bodies
LAG_SHOWN_S: Final = 60.0  # longer than a usual scrape interval, so that a short lag is seen once


class Classifier(Protocol):
    """What is used of `proxy.resources.model.Model`."""

    @property
    def state(self) -> State: ...
    @property
    def version(self) -> str: ...
    def configure(self, config: Config) -> None: ...
    def score(self, items: Sequence[tuple[str, str]]) -> Sequence[TextScores]: ...


@dataclass(slots=True)
class _Item:
    """A capture on its way, and what became of it so far."""

    capture: Capture
    token: object
    exchanges: list[tuple[Exchange, Names]] = field(default_factory=list)
    scores: list[TextScores | None] = field(default_factory=list)


class Monitor:
    """See the head of this file. `clock` is Unix time; `recorded` gets tokens, in batches."""

    def __init__(
        self,
        config: Config,
        *,
        metrics: Metrics,
        model: Classifier,
        rng: Random,
        log: Logger,
        recorded: Callable[[list[object]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._model = model
        self._log = log
        self._recorded = recorded
        self._clock = clock
        limits = config.limits
        self._queue: BoundedSample[_Item] = BoundedSample(limits.queue_bytes, limits.queue_captures, rng)
        self._changed = Condition()  # guards the queue and the four fields below
        self._tokens: list[object] = []  # of captures that were evicted
        self._next: Config | None = config  # a configuration that the scoring thread has yet to take
        self._stopping = False
        self._ended = False
        self._deadline = float("inf")
        self._working: list[_Item] = []
        self._last_lag = (0.0, 0.0)  # when the newest capture was scored, and how late
        self._thread = Thread(target=self._run, name="scoring", daemon=True)
        self._progress = Progress(self._thread)
        metrics.watch(
            Queue(
                captures=lambda: float(len(self._queue)),
                bytes=lambda: float(self._queue.bytes),
                lag_seconds=self.lag_seconds,
            )
        )

    def start(self) -> None:
        self._thread.start()

    def offer(self, capture: Capture, token: object) -> None:
        """Take a capture; never blocks, never raises. What no longer fits is dropped and counted."""
        item = _Item(capture, token)
        with self._changed:
            ended = self._ended
            evicted = [] if ended else self._queue.offer(item, capture_size(capture))
            self._tokens.extend(gone.token for gone in evicted)
            self._changed.notify()
        for gone in evicted:
            self._metrics.dropped("too_large" if gone is item else "queue_full")
        if ended:
            self._metrics.dropped("queue_full")
            self._recorded([token])

    def reload(self, config: Config) -> None:
        """Take topics, labels, limits and classifier from `config`, before the next batch is scored.

        The bundle is read again even if its path stays: it may have been replaced, or have failed before.
        """
        with self._changed:
            self._next = config
            self._changed.notify()

    async def stop(self, timeout_s: float) -> None:
        """Score what waits, for `timeout_s` at most; what is left then is counted as dropped.

        A batch that hangs even then is left behind with its tokens unrecorded, so that their owner counts
        those captures as lost.
        """
        with self._changed:
            self._stopping = True
            self._deadline = time.monotonic() + timeout_s
            self._changed.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, timeout_s + 1.0)
        self._drop_rest()

    @property
    def stalled_s(self) -> float:
        """Seconds without progress in scoring; 0 while it waits for work or loads the model.

        Starving on a full machine is slow progress, no stall. (A load that hangs would hang again in the next
        process; /readyz shows it.)
        """
        return self._progress.stalled_s

    def lag_seconds(self) -> float:
        """How far behind scoring is: the larger of the newest scored capture's lag and the oldest waiting
        one's age; 0 when idle.
        """
        now = self._clock()
        with self._changed:
            waiting = [item.capture.finished_at for item in self._queue]
            waiting += [item.capture.finished_at for item in self._working]
            when, lag = self._last_lag
        return max(0.0, lag if now - when < LAG_SHOWN_S else 0.0, now - min(waiting, default=now))

    # The scoring thread.

    def _run(self) -> None:
        give_way()
        while self._wait():
            try:
                self._cycle()
            except Exception as error:  # noqa: BLE001 - a fault of ours costs one batch, not the monitor
                self._log.error("the monitor's cycle failed", error=place(error))
            finally:
                self._progress.rest()

    def _wait(self) -> bool:
        """Wait for something to do; False when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or len(self._queue) or self._tokens or self._next)
            idle = not len(self._queue) and not self._tokens
            return not (self._stopping and (idle or time.monotonic() >= self._deadline))

    def _cycle(self) -> None:
        with self._changed:
            config, self._next = self._next, None
        if config is not None:
            self._configure(config)
        with self._changed:
            self._working = self._queue.take(self._config.classifier.batch)
            tokens, self._tokens = self._tokens, []
        try:
            if self._working:
                self._score_batch(self._working)
        finally:
            tokens += [item.token for item in self._working]
            self._working = []
            if tokens:
                self._recorded(tokens)

    def _configure(self, config: Config) -> None:
        self._config = config
        self._metrics.configure(config)
        with self._changed:
            evicted = self._queue.resize(config.limits.queue_bytes, config.limits.queue_captures)
            self._tokens.extend(item.token for item in evicted)
        for _ in evicted:
            self._metrics.dropped("queue_full")
        self._model.configure(config)
        self._metrics.classifier(self._model.state, self._model.version)

    def _score_batch(self, items: list[_Item]) -> None:
        began = time.perf_counter()
        self._progress.step()
        parsed = [item for item in items if self._guard(item.capture, partial(self._parse, item))]
        if self._model.state == "ready":
            try:
                self._ask(parsed)
            except Exception as error:  # noqa: BLE001 - one poison item: find it by asking one by one
                self._log.warning("a batch could not be scored at once", error=place(error))
                parsed = [item for item in parsed if self._guard(item.capture, partial(self._ask, [item]))]
        for item in parsed:
            for index in range(len(item.exchanges)):
                self._guard(item.capture, partial(self._record, item, index))
        now = self._clock()
        self._last_lag = (now, max(0.0, now - max(item.capture.finished_at for item in items)))
        self._metrics.batch(time.perf_counter() - began)

    def _guard(self, capture: Capture, step: Callable[[], None]) -> bool:
        """The one boundary around a capture: what goes wrong inside is counted and ends here."""
        self._progress.step()  # a capture made to be slow takes seconds, a batch of them more than `hung_s`
        try:
            step()
        except Unscored as unscored:
            self._metrics.unscored(capture.route, unscored.cause)
        except Exception as error:  # noqa: BLE001 - see above
            self._metrics.unscored(capture.route, "error")
            self._log.error(
                "a capture could not be scored",
                id=capture.id,
                route=capture.route,
                format=capture.format,
                error=place(error),
            )
        else:
            return True
        return False

    def _parse(self, item: _Item) -> None:
        capture = item.capture
        form = FORMATS.get(capture.format)
        try:
            exchanges = parse(capture, inflated_limit=self._config.limits.inflated_bytes)
            item.exchanges = [(one, self._metrics.names(capture, one)) for one in exchanges]
            item.scores = [None] * len(exchanges)
        finally:
            if form is not None:
                self._metrics.served(capture, form.operation, form.provider, item.exchanges)
        if not item.exchanges:
            raise Unscored("empty")

    def _ask(self, items: list[_Item]) -> None:
        places = [
            (item, index, (exchange.prompt, exchange.response))
            for item in items
            for index, (exchange, _) in enumerate(item.exchanges)
            if wants_scores(exchange)
        ]
        step = self._config.classifier.batch  # captures can hold many choices each
        for start in range(0, len(places), step):
            part = places[start : start + step]
            scores = self._model.score([pair for _, _, pair in part])
            for (item, index, _), score in zip(part, scores, strict=True):
                item.scores[index] = score
            self._progress.step()

    def _record(self, item: _Item, index: int) -> None:
        exchange, names = item.exchanges[index]
        state = self._model.state
        known: ClassifierState = "unavailable" if state == "loading" else state
        verdict = decide(exchange, item.scores[index], known, self._model.version)
        self._metrics.scored(item.capture, exchange, verdict, names)
        if self._config.log.exchanges:
            self._log_exchange(item.capture, exchange, verdict, names)

    def _log_exchange(self, capture: Capture, exchange: Exchange, verdict: Verdict, names: Names) -> None:
        """Log facts on closed lists and numbers; nothing that a client or an upstream wrote."""
        self._log.info(
            "exchange",
            id=capture.id,
            route=capture.route,
            origin=capture.origin,
            format=capture.format,
            status=capture.status,
            end=capture.end,
            choice=exchange.choice,
            model=names.model,
            outcome=verdict.outcome,
            reason=verdict.reason,
            prompt_class=verdict.prompt_class,
            topic=verdict.topic,
            source=verdict.source,
            p_outcome=_rounded(verdict.p_outcome),
            p_prompt_class=_rounded(verdict.p_prompt_class),
            classifier=verdict.classifier,
            duration_s=round(capture.duration_s, 3),
            lag_s=round(max(0.0, self._clock() - capture.finished_at), 3),
        )

    def _drop_rest(self) -> None:
        with self._changed:
            self._ended = True
            rest = self._queue.take(len(self._queue))
            tokens, self._tokens = self._tokens + [item.token for item in rest], []
        for _ in rest:
            self._metrics.dropped("queue_full")
        if tokens:
            self._recorded(tokens)


def capture_size(capture: Capture) -> int:
    """Bytes that a waiting capture holds, nearly."""
    request, response = capture.request, capture.response
    kept = len(request.head) + len(request.tail) + len(response.head) + len(response.tail)
    return kept + CAPTURE_OVERHEAD


def _rounded(probabilities: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in probabilities.items()}

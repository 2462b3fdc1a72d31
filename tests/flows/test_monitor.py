"""The monitor: every capture is accounted for once, whatever happens to it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Sequence
from random import Random
from threading import Event, Semaphore
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.flows.monitor import capture_size
from proxy.resources.model import Model
from proxy.words.exchange import Capture, Exchange
from tests.flows.captures import (
    NOW,
    WAIT_S,
    FakeModel,
    House,
    capture,
    choice,
    config,
    copy_of,
    request_body,
    response_body,
    stream,
)

EXCHANGES = "refusal_exchanges_total"
UNSCORED = "refusal_unscored_total"
DROPPED = "refusal_captures_dropped_total"


async def test_answers_and_refusals_are_counted_by_what_they_are() -> None:
    house = House()
    await house.score(
        capture("Mix flour and water."),
        capture("I can't help with that."),
        capture("In part: mix flour."),
        capture(response=response_body(choice(None, refusal="No."))),
    )
    assert house.value(EXCHANGES, outcome="answer", prompt_class="benign", topic="everyday") == 1
    assert house.value(EXCHANGES, outcome="full_refusal", model="gpt-4o-2024", origin="live") == 2
    assert house.value(EXCHANGES, outcome="partial_refusal", route="default") == 1
    assert house.value("refusal_refusals_total", source="classifier", reason="unspecified") == 2
    assert house.value("refusal_refusals_total", source="model_native", reason="safety") == 1
    assert house.value("refusal_expected_refusals_total") == pytest.approx(0.1 + 0.95 + 0.95 + 1.0)
    assert house.value("refusal_expected_false_refusals_total") == pytest.approx(3.0 * 0.8)
    assert house.value(UNSCORED) == house.value(DROPPED) == 0


async def test_a_block_is_kept_apart_from_refusals_and_counts_as_an_exchange() -> None:
    house = House()
    blocked = {"error": {"code": "content_filter", "message": "filtered", "status": 400}}
    await house.score(capture(status=400, response=blocked))
    assert house.value(EXCHANGES, outcome="provider_block", topic="everyday") == 1
    assert house.value("refusal_refusals_total") == 0
    assert house.value("refusal_expected_refusals_total") == 0


async def test_each_choice_is_an_exchange_of_its_own_and_tokens_count_once() -> None:
    house = House()
    await house.score(capture(response=response_body(choice("Yes."), choice("I can't.", 1), choice(None, 2))))
    assert house.value(EXCHANGES, outcome="answer") == 1
    assert house.value(EXCHANGES, outcome="full_refusal") == 1
    assert house.value(UNSCORED, cause="empty") == 1
    assert house.value("gen_ai_server_request_duration_seconds_count") == 1
    assert house.value("gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 34
    assert house.value("gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 12


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        (capture(format="nothing_known"), "not_a_conversation"),
        (capture(response=b'{"choices": ['), "unreadable"),
        (capture(request=b"\xff\xfe"), "unreadable"),
        (capture(status=500, response={"error": {"message": "boom"}}), "upstream_error"),
        (capture(""), "empty"),
        (capture(response=b'{"choices": [', end="upstream_broke"), "truncated"),
        (
            capture(
                response=stream("Mix flour", done=False),
                response_content_type="text/event-stream",
                end="client_gone",
            ),
            "truncated",
        ),
    ],
)
async def test_what_cannot_be_scored_is_counted_with_its_cause(broken: Capture, cause: str) -> None:
    house = House()
    await house.score(broken, capture())
    assert house.value(UNSCORED, cause=cause, route="default") == 1
    assert house.value(UNSCORED) == house.value(EXCHANGES) == 1


async def test_a_broken_off_refusal_and_a_stream_closed_after_its_end_marker_still_count() -> None:
    house = House()
    sse = {"response_content_type": "text/event-stream", "end": "client_gone"}
    await house.score(
        capture(response=stream("I can't", " help", done=False), **sse),
        capture(response=stream("Mix", " flour."), **sse),
    )
    assert house.value(EXCHANGES, outcome="full_refusal") == 1
    assert house.value(EXCHANGES, outcome="answer") == 1


async def test_times_are_observed_with_the_conventions_attributes() -> None:
    house = House()
    await house.score(
        capture(response=stream("Mix flour."), response_content_type="text/event-stream"),
        capture(status=503, response={"error": {"message": "busy"}}, duration_s=9.0),
        capture("Half an ans", end="upstream_broke"),
        capture(format="unknown"),
    )
    names = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai"}
    duration = "gen_ai_server_request_duration_seconds"
    assert house.value(f"{duration}_count") == 3
    assert house.value(f"{duration}_sum", error_type="503", gen_ai_request_model="unknown", **names) == 9.0
    assert house.value(f"{duration}_count", error_type="upstream_broke", **names) == 1
    models = {"gen_ai_request_model": "gpt-4o", "gen_ai_response_model": "gpt-4o-2024"}
    assert house.value(f"{duration}_sum", error_type="", **names, **models) == 1.5
    first_token = "gen_ai_server_time_to_first_token_seconds"
    assert house.value(f"{first_token}_count") == 1
    assert house.value(f"{first_token}_sum", **names, **models) == 0.2


async def test_under_a_flood_the_shares_stay_true_and_everything_is_accounted_for() -> None:
    """Short refusals and long answers at ten times the speed of scoring: uniform sampling keeps the rate."""
    permits = Semaphore(0)
    house = House(
        FakeModel(before=lambda _: None if permits.acquire(timeout=WAIT_S) else pytest.fail("stuck")),
        limits={"queue_bytes": 1 << 20},
        classifier={"batch": 4},
    )
    rng = Random(11)
    refusal = copy_of(response_body(choice("I can't help with that.")))
    answer = copy_of(response_body(choice("Mix flour and water. " * 2000)))
    request = copy_of(request_body())
    total, refused = 8000, 0
    house.monitor.start()
    for number in range(total):
        one = capture(id=f"c{number}")
        short = rng.random() < 0.3
        refused += short
        one.request, one.response = request, refusal if short else answer
        house.monitor.offer(one, number)
        assert house.monitor._queue.bytes <= 1 << 20
        if number % 40 == 39:
            permits.release()  # one batch of four for every forty
            house.recorded.wait((number + 1) // 10 - 8)
    for _ in range(total):
        permits.release()
    await house.monitor.stop(WAIT_S)

    assert sorted(house.recorded.tokens, key=lambda token: int(str(token))) == list(range(total))
    scored, dropped = house.value(EXCHANGES), house.value(DROPPED, cause="queue_full")
    assert scored + dropped == total
    assert dropped > 0.8 * total
    truth = refused / total
    share = house.value(EXCHANGES, outcome="full_refusal") / scored
    assert abs(share - truth) < 4 * math.sqrt(truth * (1 - truth) / scored)


async def test_a_capture_larger_than_the_queue_is_dropped_as_too_large() -> None:
    house = House(limits={"queue_bytes": 1 << 20})
    await house.score(capture("x" * (1 << 20)), capture())
    assert house.value(DROPPED, cause="too_large") == 1
    assert house.value(EXCHANGES) == 1


async def test_one_poison_item_costs_one_capture() -> None:
    gate = Event()

    def refuse_poison(items: Sequence[tuple[str, str]]) -> None:
        gate.wait(WAIT_S)
        if any("poison" in response for _, response in items):
            raise RuntimeError("poison is in the text")

    house = House(FakeModel(before=refuse_poison))
    house.monitor.start()
    for number in range(20):
        house.monitor.offer(capture("poison" if number == 7 else "fine", id=f"c{number}"), number)
    gate.set()
    await house.monitor.stop(WAIT_S)
    assert house.value(EXCHANGES) == 19
    assert house.value(UNSCORED, cause="error") == house.value(UNSCORED) == 1
    assert '"id": "c7"' in house.lines.getvalue()
    assert "RuntimeError at test_monitor.py" in house.lines.getvalue()
    assert "poison is in" not in house.lines.getvalue()


async def test_a_bug_in_parsing_costs_one_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(one: Capture, *, inflated_limit: int) -> Any:
        raise KeyError("the secret text")

    house = House()
    monkeypatch.setattr("proxy.flows.monitor.parse", broken)
    await house.score(capture())
    assert house.value(UNSCORED, cause="error") == 1
    assert "KeyError at test_monitor.py" in house.lines.getvalue()
    assert "secret" not in house.lines.getvalue()


async def test_the_scoring_thread_outlives_a_fault_of_the_one_it_reports_to() -> None:
    house = House()
    tokens: list[object] = []

    def recorded(batch: list[object]) -> None:
        tokens.extend(batch)
        if len(tokens) == 1:
            raise OSError("the valve is gone")

    house.monitor._recorded = recorded
    house.monitor.start()
    house.monitor.offer(capture(), 1)
    await asyncio.to_thread(_until, lambda: len(tokens) == 1)
    house.monitor.offer(capture(), 2)
    await house.monitor.stop(WAIT_S)
    assert tokens == [1, 2]
    assert house.value(EXCHANGES) == 2


@pytest.mark.parametrize(
    ("state", "cause"), [("off", "classifier_off"), ("unavailable", "classifier_unavailable")]
)
async def test_without_a_classifier_native_signals_count_and_the_rest_says_why_not(
    state: Any, cause: str
) -> None:
    house = House(FakeModel(state))
    await house.score(capture("I can't."), capture(response=response_body(choice(None, refusal="No."))))
    assert house.value(EXCHANGES, outcome="full_refusal", prompt_class="unknown", topic="other") == 1
    assert house.value(UNSCORED, cause=cause) == 1
    assert house.value("refusal_classifier_up") == 0
    assert house.value("refusal_classifier_info", state=state) == 1


async def test_a_reload_tries_the_bundle_again_without_losing_a_capture() -> None:
    attempts: list[object] = []

    def open_bundle(path: object, threads: int) -> Any:
        attempts.append(path)
        if len(attempts) == 1:
            raise OSError("no such folder")
        return _Scorer()

    house = House()
    house.model = Model(house.log, open_bundle)
    house.monitor._model = house.model
    house.monitor.start()
    house.monitor.offer(capture(), 1)
    house.recorded.wait(1)
    assert house.value(UNSCORED, cause="classifier_unavailable") == 1
    house.monitor.reload(config())
    house.monitor.offer(capture(), 2)
    await house.monitor.stop(WAIT_S)
    assert house.value(EXCHANGES, outcome="answer") == 1
    assert house.value("refusal_classifier_up") == 1
    assert house.value("refusal_classifier_info", version="scorer-1", state="ready") == 1


async def test_a_reload_shrinks_the_queue_and_counts_what_no_longer_fits() -> None:
    gate, entered = Event(), Event()

    def wait(_: Sequence[tuple[str, str]]) -> None:
        entered.set()
        gate.wait(WAIT_S)

    house = House(FakeModel(before=wait), classifier={"batch": 1})
    house.monitor.start()
    house.monitor.offer(capture(), 0)
    assert await asyncio.to_thread(entered.wait, WAIT_S)
    for number in range(1, 10):
        house.monitor.offer(capture(), number)
    house.monitor.reload(config(limits={"queue_captures": 4}, labels={"models": ["mine"]}))
    gate.set()
    await house.monitor.stop(WAIT_S)
    assert house.value(DROPPED, cause="queue_full") == 5
    assert house.value(EXCHANGES) == 5
    assert house.value(EXCHANGES, model="other") == 4
    assert len(house.recorded.tokens) == 10


async def test_stopping_is_bounded_in_time_and_counts_what_it_could_not_score() -> None:
    gate, entered = Event(), Event()

    def hang(_: Sequence[tuple[str, str]]) -> None:
        entered.set()
        gate.wait(WAIT_S)

    house = House(FakeModel(before=hang), classifier={"batch": 1})
    house.monitor.start()
    for number in range(5):
        house.monitor.offer(capture(), number)
    assert await asyncio.to_thread(entered.wait, WAIT_S)
    assert house.monitor.stalled_s > 0
    began = time.monotonic()
    await house.monitor.stop(0.05)
    assert time.monotonic() - began < 5
    assert house.value(DROPPED, cause="queue_full") == 4
    assert sorted(map(str, house.recorded.tokens)) == ["1", "2", "3", "4"]
    house.monitor.offer(capture(), 5)
    assert house.value(DROPPED, cause="queue_full") == 5
    gate.set()
    house.recorded.wait(6)
    assert house.value(EXCHANGES) == 1


async def test_slow_captures_of_one_batch_are_progress_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile body can cost seconds; a batch of them must not look like a hang and cost the monitor."""
    stalled = []

    def slow(*_: object, **__: object) -> list[Exchange]:
        stalled.append(house.monitor.stalled_s)
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        return []

    monkeypatch.setattr("proxy.flows.monitor.parse", slow)
    house = House()
    await house.score(*(capture(id=f"c{i}") for i in range(8)))
    assert len(stalled) == 8
    assert max(stalled) < 0.05


async def test_stopping_before_anything_came_is_quick_and_quiet() -> None:
    house = House()
    house.monitor.start()
    await house.monitor.stop(WAIT_S)
    assert house.recorded.tokens == []
    assert house.monitor.stalled_s == 0


async def test_the_lag_is_the_newest_scores_or_the_oldest_waiting_ones_and_passes() -> None:
    now = [NOW]
    gate, entered = Event(), Event()

    def wait(_: Sequence[tuple[str, str]]) -> None:
        entered.set()
        gate.wait(WAIT_S)

    house = House(FakeModel(before=wait), clock=lambda: now[0])
    assert house.value("refusal_scored_lag_seconds") == 0
    house.monitor.start()
    house.monitor.offer(capture(finished_at=NOW - 5), 1)
    assert await asyncio.to_thread(entered.wait, WAIT_S)
    now[0] += 1
    assert house.value("refusal_scored_lag_seconds") == 6
    house.monitor.offer(capture(finished_at=NOW - 7), 2)
    assert house.value("refusal_scored_lag_seconds") == 8
    assert house.value("refusal_queue_captures") == 1
    assert house.value("refusal_queue_bytes") == capture_size(capture())
    gate.set()
    await house.monitor.stop(WAIT_S)
    assert house.value("refusal_scored_lag_seconds") == 8
    now[0] += 61
    assert house.value("refusal_scored_lag_seconds") == 0


async def test_an_exchange_line_says_what_was_decided() -> None:
    house = House(log={"exchanges": True})
    await house.score(capture("I can't.", id="abc"))
    (line,) = (json.loads(line) for line in house.lines.getvalue().splitlines())
    assert line["event"] == "exchange"
    assert (line["id"], line["outcome"], line["topic"]) == ("abc", "full_refusal", "everyday")
    assert line["p_outcome"] == {"answer": 0.05, "partial_refusal": 0.05, "full_refusal": 0.9}
    assert (line["duration_s"], line["lag_s"]) == (1.5, 0.25)


async def test_exchange_lines_are_off_unless_asked_for() -> None:
    house = House()
    await house.score(capture())
    assert house.lines.getvalue() == ""


MARKER = st.from_regex(r"SECRET[0-9a-f]{12}", fullmatch=True)


@given(MARKER, st.sampled_from(["answer", "native", "unreadable", "error", "poison"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_line_ever_holds_content_or_a_key(marker: str, kind: str) -> None:
    def poison(items: Sequence[tuple[str, str]]) -> None:
        raise ValueError(items)

    request = request_body(f"a prompt with {marker}", system=f"system {marker}", model=f"model {marker}")
    request["user"] = request["api_key"] = marker
    message = choice(f"I can't {marker}")
    message["finish_reason"] = marker
    if kind == "native":
        message = choice(None, refusal=marker)
    response: Any = response_body(message, model=f"{marker} model")
    if kind == "unreadable":
        response = f'{{"choices": "{marker}'.encode()
    if kind == "error":
        response = {"error": {"message": marker, "code": marker}}
    house = House(
        FakeModel(before=poison if kind == "poison" else None), log={"exchanges": True, "level": "debug"}
    )
    one = capture(
        request=request, response=response, status=500 if kind == "error" else 200, path=f"/{marker}"
    )
    asyncio.run(house.score(one))
    assert house.value(EXCHANGES) + house.value(UNSCORED) == 1
    assert "SECRET" not in house.lines.getvalue()
    assert b"SECRET" not in house.metrics.render(openmetrics=True)


async def test_ten_thousand_made_up_names_leave_a_bounded_number_of_series() -> None:
    house = House(limits={"models": 20, "system_prompts": 50})
    captures = [
        capture(
            id=f"c{number}",
            request=request_body(system=f"prompt {number}", model=f"asked-{number}"),
            response=response_body(choice("Yes."), model=f"model-{number}"),
        )
        for number in range(10_000)
    ]
    await house.score(*captures)
    names = {
        name: {
            sample.labels[name]
            for metric in house.registry.collect()
            for sample in metric.samples
            if name in sample.labels
        }
        for name in ("model", "system_prompt", "gen_ai_request_model", "gen_ai_response_model")
    }
    assert len(names["model"] | names["gen_ai_request_model"] | names["gen_ai_response_model"]) == 21
    assert len(names["system_prompt"]) == 51


class _Scorer:
    version = "scorer-1"

    def score(self, items: Sequence[tuple[str, str]]) -> list[Any]:
        return [_Scores() for _ in items]

    def embed(self, prompts: Sequence[str]) -> Any:
        raise NotImplementedError


class _Scores:
    outcome = (0.8, 0.1, 0.1)
    prompt_class = (0.8, 0.1, 0.1)
    topic = (1.0,)
    outcome_label = "answer"
    prompt_class_label = "benign"
    topic_label = "medical"
    embedding = None


def _until(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)

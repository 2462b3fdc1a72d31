"""/metrics: what DESIGN.md promises, in both formats, as the reference parsers read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as _openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from proxy.pure.decide import decide
from proxy.resources.metrics import Metrics
from proxy.words.buckets import OVERHEAD_BUCKETS
from proxy.words.errors import DROP_CAUSES, UNSCORED_CAUSES
from proxy.words.exchange import Exchange
from tests.flows.captures import House, capture, choice, config, response_body, scores_for, stream

openmetrics: Callable[[str], Iterable[Metric]] = _openmetrics
DESIGNED = {
    "refusal_exchanges": {"route", "model", "topic", "prompt_class", "outcome", "origin"},
    "refusal_refusals": {"route", "model", "topic", "reason", "source", "origin"},
    "refusal_expected_refusals": {"route", "model", "topic", "origin"},
    "refusal_expected_false_refusals": {"route", "model", "topic", "origin"},
    "refusal_system_prompt_exchanges": {"route", "system_prompt", "outcome", "prompt_class"},
    "refusal_unscored": {"route", "cause"},
    "refusal_captures_dropped": {"cause"},
    "refusal_response_words": {"origin", "outcome", "le"},
    "refusal_classifier": {"version", "state"},
    "refusal_classifier_up": set(),
    "refusal_scoring_seconds": {"le"},
    "refusal_queue_captures": set(),
    "refusal_queue_bytes": set(),
    "refusal_scored_lag_seconds": set(),
    "refusal_proxy_requests": {"route", "method", "code"},
    "refusal_proxy_overhead_seconds": {"route", "le"},
    "refusal_proxy_open_streams": {"route"},
    "refusal_proxy_upstream_errors": {"route", "cause"},
    "refusal_proxy_client_disconnects": {"route"},
    "gen_ai_server_request_duration_seconds": {
        *("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"),
        *("gen_ai_response_model", "error_type", "le"),
    },
    "gen_ai_server_time_to_first_token_seconds": {
        *("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"),
        *("gen_ai_response_model", "le"),
    },
    "gen_ai_client_token_usage": {
        *("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"),
        *("gen_ai_response_model", "gen_ai_token_type", "le"),
    },
}


LABELS = set().union(*DESIGNED.values())


async def busy() -> House:
    """A house that has seen a bit of everything."""
    house = House()
    house.metrics.workers.update(
        "w1",
        {
            "requests": [["default", "POST", 200, 7]],
            "overhead": [["default", [1] * (len(OVERHEAD_BUCKETS) + 1), 0.5]],
            "open_streams": [["default", 3]],
            "upstream_errors": [["default", "connect", 2]],
            "client_disconnects": [["default", 1]],
            "unscored": [["default", "not_a_conversation", 4]],
            "dropped": [["valve_full", 6]],
        },
    )
    await house.score(
        capture(id="answer"),
        capture("I can't.", id="refusal"),
        capture(response=response_body(choice(None, refusal="No.")), id="native"),
        capture(response=stream("Mix."), response_content_type="text/event-stream", id="streamed"),
        capture(status=500, response=b"", id="failed"),
    )
    return house


def labels_of(family: Metric) -> set[str]:
    return set().union(*(sample.labels for sample in family.samples))


async def test_every_designed_family_is_there_with_exactly_its_labels() -> None:
    house = await busy()
    families = {
        family.name: family for family in openmetrics(house.metrics.render(openmetrics=True).decode())
    }
    for name, labels in DESIGNED.items():
        assert labels_of(families[name]) == labels, name


async def test_the_page_documents_every_family_and_no_other() -> None:
    house = await busy()
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`((?:refusal|gen_ai)_[a-z_]+)`", page) if name not in LABELS}
    ending = {"counter": "_total", "info": "_info"}
    exported = {
        family.name + ending.get(family.type, "")
        for family in openmetrics(house.metrics.render(openmetrics=True).decode())
        if not family.name.startswith("process_")
    }
    assert named == exported


async def test_both_formats_parse_and_agree() -> None:
    house = await busy()
    both = []
    for parser, is_open in ((openmetrics, True), (text, False)):
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parser(house.metrics.render(openmetrics=is_open).decode())
            for sample in family.samples
            if not sample.name.startswith("process_")
        }
        both.append(samples)
    assert both[0] == both[1]
    assert len(both[0]) > 100


async def test_names_follow_prometheus_conventions() -> None:
    """What `promtool check metrics` asks for: base units, help, no types and no reserved endings in names."""
    house = await busy()
    for family in openmetrics(house.metrics.render(openmetrics=True).decode()):
        assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", family.name)
        assert family.documentation.endswith(".") or family.name.startswith("process_")
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_info"))
        assert not re.search(
            r"_(milliseconds|ms|minutes|kilobytes|percent|counter|gauge|histogram)(_|$)", family.name
        )
        assert all(not sample.name.endswith("_created") for sample in family.samples)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in labels_of(family))


async def test_exemplars_lead_from_refusals_and_times_to_the_sample() -> None:
    house = await busy()
    exemplars: dict[str, set[str]] = {}
    for family in openmetrics(house.metrics.render(openmetrics=True).decode()):
        for sample in family.samples:
            if sample.exemplar:
                exemplars.setdefault(family.name, set()).add(sample.exemplar.labels["sample_id"])
    assert exemplars["refusal_refusals"] == {"refusal", "native"}
    assert exemplars["refusal_exchanges"] <= {"refusal", "native"}
    assert exemplars["gen_ai_server_request_duration_seconds"] <= {"streamed", "failed", "answer", "native"}
    assert "#" not in house.metrics.render(openmetrics=False).decode().replace("# HELP", "").replace(
        "# TYPE", ""
    )


async def test_an_identifier_too_long_for_an_exemplar_costs_the_exemplar_only() -> None:
    house = House()
    await house.score(capture("I can't.", id="x" * 200))
    assert house.value("refusal_refusals_total") == 1
    assert b"xxx" not in house.metrics.render(openmetrics=True)


def test_closed_lists_start_at_zero_for_every_route() -> None:
    routes = [
        {"name": name, "upstream": "http://127.0.0.1:1", "path_prefix": f"/{name}"} for name in ("a", "b")
    ]
    house = House(upstream="", routes=routes)
    for route in ("a", "b"):
        for cause in UNSCORED_CAUSES:
            assert (
                house.registry.get_sample_value("refusal_unscored_total", {"route": route, "cause": cause})
                == 0
            )
    for drop in DROP_CAUSES:
        assert house.registry.get_sample_value("refusal_captures_dropped_total", {"cause": drop}) == 0
    assert house.value("refusal_classifier_up") == 0
    assert house.value("refusal_classifier_info", state="loading", version="") == 1
    assert house.value("refusal_proxy_build_info", version="1.2.3") == 1


def test_two_registries_share_nothing() -> None:
    one, other = House(), House()
    one.metrics.unscored("default", "empty")
    assert other.value("refusal_unscored_total") == 0


def test_a_registry_takes_the_metrics_once() -> None:
    house = House()
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(house.registry, house.config, house.log, "1.2.3")


async def test_totals_for_people_sum_over_all_labels() -> None:
    house = await busy()
    assert house.metrics.totals() == {
        "exchanges": 4,
        "refusals": 2,
        "refusals of benign prompts": 2,
        "provider blocks": 0,
        "unscored": 5,
        "dropped": 6,
    }


def test_words_of_a_response_go_into_its_outcomes_histogram() -> None:
    house = House()
    metrics = house.metrics
    one = capture()
    exchange = Exchange(model="m", prompt="p", response="one two three")
    verdict = decide(exchange, scores_for(exchange.response), "ready", "v1")
    metrics.scored(one, exchange, verdict, metrics.names(one, exchange))
    assert house.value("refusal_response_words_sum", origin="live", outcome="answer") == 3


def test_series_stay_bounded_whatever_worker_and_client_say() -> None:
    house, rng = House(), Random(3)
    for _ in range(2000):
        method = "".join(rng.choices("ABCDEFG", k=6))
        house.metrics.workers.update("w", {"requests": [["default", method, rng.randrange(100_000), 1]]})
    names = {
        (sample.labels["method"], sample.labels["code"])
        for metric in house.registry.collect()
        for sample in metric.samples
        if sample.name == "refusal_proxy_requests_total"
    }
    assert {method for method, _ in names} == {"other"}
    assert len(names) <= 501


def test_a_new_configuration_brings_its_routes_and_names() -> None:
    house = House()
    route = {"name": "late", "upstream": "http://127.0.0.1:1"}
    house.metrics.configure(config(upstream="", routes=[route], labels={"models": ["only"]}))
    labels = {"route": "late", "cause": "empty"}
    assert house.registry.get_sample_value("refusal_unscored_total", labels) == 0
    assert house.metrics.models.label("gpt", admit=True) == "other"
    assert isinstance(house.registry, CollectorRegistry)

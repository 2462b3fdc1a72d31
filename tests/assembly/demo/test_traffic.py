"""What the bundled clients will send is planned, seeded and complete."""

from __future__ import annotations

from collections import Counter
from random import Random

from proxy.assembly.demo.script import ALIAS, OLD_MODEL, SYSTEM_PROMPTS, script
from proxy.assembly.demo.traffic import LEAVING, OTHER_CALLS, body_of, plan

LINES = script()


def test_a_pass_sends_every_prompt_once_in_the_same_order_for_the_same_seed() -> None:
    calls = plan(LINES, Random(7))
    assert Counter(call.line.id for call in calls if call.line) == Counter(line.id for line in LINES)
    assert sum(call.line is None for call in calls) == OTHER_CALLS
    assert calls == plan(LINES, Random(7))
    assert calls != plan(LINES, Random(8))


def test_clients_vary() -> None:
    calls = [call for call in plan(LINES, Random(7), pinned=0.15) if call.line]
    assert {(call.api, call.stream, call.compressed) for call in calls} == {
        (api, stream, compressed)
        for api in ("openai", "anthropic")
        for stream in (True, False)
        for compressed in (True, False)
    }
    assert {call.model for call in calls} == {ALIAS, OLD_MODEL}
    assert sum(call.leaves for call in calls) == LEAVING
    assert all(call.stream for call in calls if call.leaves)


def test_native_signals_are_asked_for_in_their_own_dialect() -> None:
    for seed in range(5):
        for call in plan(LINES, Random(seed)):
            if call.line and call.line.native:
                expected = "anthropic" if call.line.native == "stop_refusal" else "openai"
                assert call.api == expected
            if call.line and call.line.fault == "breaks_off":
                assert call.stream


def test_bodies_carry_system_prompt_and_earlier_turns_as_each_api_wants_them() -> None:
    for call in plan(LINES, Random(3)):
        if call.line is None:
            continue
        body = body_of(call)
        roles = [message["role"] for message in body["messages"]]
        system = SYSTEM_PROMPTS.get(call.line.system)
        assert roles[-1] == "user"
        if call.api == "anthropic":
            assert body.get("system") == system
            assert "system" not in roles
            assert body["max_tokens"] > 0
        else:
            assert (roles[0] == "system") == bool(system)
        assert len(body["messages"]) == 1 + len(call.line.earlier) + bool(system and call.api == "openai")

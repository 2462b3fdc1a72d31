"""The anthropic SDK through the proxy: messages, their streams and their helpers."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from pydantic import BaseModel

from tests.sdk.payloads import ANSWER, ARGUMENTS, INPUT_TOKENS, OUTPUT_TOKENS, REFUSAL
from tests.sdk.sides import Call, Counts, Sides, Way

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASKED: Final[dict[str, Any]] = {
    "max_tokens": 256,
    "system": "You are a cook.",
    "messages": [{"role": "user", "content": "How do I cook pasta? Größe egal."}],
}
TOOL: Final[dict[str, Any]] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOKENS: Final[Counts] = {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS}
OFF: Final[Counts] = {"classifier_off": 1, **TOKENS}
REFUSED: Final[Counts] = {"full_refusal": 1, **TOKENS}


class Recipe(BaseModel):
    title: str
    minutes: int


def create(model: str, **options: Any) -> Call:
    return lambda c: c.messages.create(model=model, **ASKED, **options)


def helped(model: str, **options: Any) -> Call:
    """The SDK's own accumulation of a stream."""
    return lambda c: c.messages.stream(model=model, **ASKED, **options)


MESSAGES: Final[dict[str, tuple[Call, Counts, str]]] = {
    "an answer": (create("plain"), OFF, ANSWER),
    "an answer, streamed": (create("plain", stream=True), OFF, "'Boil the pa'"),
    "an answer, streamed and put together": (helped("plain"), OFF, ANSWER),
    "a tool call": (create("tools", tools=[TOOL]), OFF, str(json.loads(ARGUMENTS))),
    "a tool call, streamed": (create("tools", tools=[TOOL], stream=True), OFF, '{"city": "P'),
    "a tool call, streamed and put together": (
        helped("tools", tools=[TOOL]),
        OFF,
        str(json.loads(ARGUMENTS)),
    ),
    "structured output": (
        lambda c: c.messages.parse(model="json", output_format=Recipe, **ASKED),
        OFF,
        '"minutes": 9',
    ),
    "a refusal": (create("refused"), REFUSED, REFUSAL),
    "a refusal, streamed": (create("refused", stream=True), REFUSED, "'category': 'cyber'"),
    "a refusal, streamed and put together": (helped("refused"), REFUSED, REFUSAL),
}


@pytest.mark.parametrize("case", MESSAGES)
async def test_messages_are_the_same(sides: Sides, way: Way, case: str) -> None:
    call, counts, shows = MESSAGES[case]
    assert shows in str(await sides.same("anthropic", way, call, counts))


async def test_an_error_in_mid_stream_reaches_the_client_as_the_same_error(sides: Sides, way: Way) -> None:
    given = await sides.same(
        "anthropic",
        way,
        create("broken", stream=True),
        {"classifier_off": 1, "input": INPUT_TOKENS, "output": 1},
    )
    assert "scripted 529" in given[-1]["message"]
    assert given[-1]["class"].endswith("Error")


async def test_a_stream_that_breaks_off_never_ends_cleanly(sides: Sides, way: Way) -> None:
    given = await sides.same(
        "anthropic",
        way,
        create("cut", stream=True),
        {"classifier_off": 1, "input": INPUT_TOKENS, "output": 1},
    )
    assert given[-1]["status"] is None
    assert given[-1]["class"] in ("APIConnectionError", "RemoteProtocolError", "ReadError")

"""The openai SDK through the proxy: chat completions, responses, their streams and their helpers."""

from __future__ import annotations

from typing import Any, Final

import pytest
from pydantic import BaseModel

from tests.sdk.payloads import ANSWER, ARGUMENTS, INPUT_TOKENS, OUTPUT_TOKENS, REFUSAL
from tests.sdk.sides import Call, Counts, Sides, Way

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASKED: Final[list[Any]] = [
    {"role": "system", "content": "You are a cook."},
    {"role": "user", "content": "How do I cook pasta? Größe egal."},
]
PARAMETERS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {"name": "get_weather", "strict": True, "parameters": PARAMETERS},
}
FLAT_TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": PARAMETERS,
}
TOKENS: Final[Counts] = {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS}
OFF: Final[Counts] = {"classifier_off": 1, **TOKENS}
REFUSED: Final[Counts] = {"full_refusal": 1, **TOKENS}
BLOCKED: Final[Counts] = {"provider_block": 1, **TOKENS}


class Recipe(BaseModel):
    title: str
    minutes: int


def chat(model: str, **options: Any) -> Call:
    return lambda c: c.chat.completions.create(model=model, messages=ASKED, **options)


def streamed(model: str, **options: Any) -> Call:
    return chat(model, stream=True, stream_options={"include_usage": True}, **options)


def helped(model: str, **options: Any) -> Call:
    """The SDK's own accumulation of a stream."""
    more = {"stream_options": {"include_usage": True}, **options}
    return lambda c: c.chat.completions.stream(model=model, messages=ASKED, **more)


def respond(model: str, **options: Any) -> Call:
    return lambda c: c.responses.create(
        model=model, input=ASKED[1]["content"], instructions="You are a cook.", **options
    )


CHAT: Final[dict[str, tuple[Call, Counts, str]]] = {
    "an answer": (chat("plain"), OFF, ANSWER),
    "an answer, streamed": (streamed("plain"), OFF, "Boil the pa"),
    "two choices": (chat("two", n=2), {**OFF, "classifier_off": 2}, ANSWER.upper()),
    "two choices, streamed": (streamed("two", n=2), {**OFF, "classifier_off": 2}, "BOIL THE PA"),
    "a tool call": (chat("tools", tools=[TOOL]), OFF, ARGUMENTS),
    "a tool call, streamed": (streamed("tools", tools=[TOOL]), OFF, '{"city": "P'),
    "a tool call, streamed and put together": (helped("tools", tools=[TOOL]), OFF, ARGUMENTS),
    "structured output": (
        lambda c: c.chat.completions.parse(model="json", messages=ASKED, response_format=Recipe),
        OFF,
        "'minutes': 9",
    ),
    "structured output, streamed": (helped("json", response_format=Recipe), OFF, "'minutes': 9"),
    "a refusal": (chat("refused"), REFUSED, REFUSAL),
    "a refusal, streamed": (streamed("refused"), REFUSED, "I'm sorry, "),
    "a refusal of structured output": (
        lambda c: c.chat.completions.parse(model="refused", messages=ASKED, response_format=Recipe),
        REFUSED,
        "'parsed': None",
    ),
    "a filter's block": (chat("filtered"), BLOCKED, "'content_filter'"),
    "a filter's block, streamed": (streamed("filtered"), BLOCKED, "'content_filter'"),
    "a blocked prompt": (chat("blocked"), {"provider_block": 1}, "BadRequestError"),
}
RESPONSES: Final[dict[str, tuple[Call, Counts, str]]] = {
    "an answer": (respond("plain"), OFF, ANSWER),
    "an answer, streamed": (respond("plain", stream=True), OFF, "'Boil the pa'"),
    "an answer, streamed and put together": (
        lambda c: c.responses.stream(model="plain", input="How do I cook pasta?"),
        OFF,
        ANSWER,
    ),
    "a tool call": (respond("tools", tools=[FLAT_TOOL]), OFF, ARGUMENTS),
    "a tool call, streamed": (respond("tools", tools=[FLAT_TOOL], stream=True), OFF, ARGUMENTS),
    "structured output": (
        lambda c: c.responses.parse(model="json", input="A recipe, please.", text_format=Recipe),
        OFF,
        "'minutes': 9",
    ),
    "a refusal": (respond("refused"), REFUSED, REFUSAL),
    "a refusal, streamed": (respond("refused", stream=True), REFUSED, REFUSAL),
    "a filter's block": (respond("filtered"), BLOCKED, "'incomplete'"),
    "a filter's block, streamed": (respond("filtered", stream=True), BLOCKED, "'incomplete'"),
}


@pytest.mark.parametrize("case", CHAT)
async def test_chat_completions_are_the_same(sides: Sides, way: Way, case: str) -> None:
    call, counts, shows = CHAT[case]
    assert shows in _text(await sides.same("openai", way, call, counts))


@pytest.mark.parametrize("case", RESPONSES)
async def test_responses_are_the_same(sides: Sides, way: Way, case: str) -> None:
    call, counts, shows = RESPONSES[case]
    assert shows in _text(await sides.same("openai", way, call, counts))


async def test_an_error_in_mid_stream_reaches_the_client_as_the_same_error(sides: Sides, way: Way) -> None:
    """What came before it came; the exchange is not counted as an answer."""
    given = await sides.same("openai", way, streamed("broken"), {"classifier_off": 1})
    assert len(given) == 5
    assert given[-1]["class"] == "APIError"
    assert "scripted 500" in given[-1]["message"]


async def test_an_error_event_of_a_responses_stream_reaches_the_client(sides: Sides, way: Way) -> None:
    given = await sides.same("openai", way, respond("broken", stream=True), {"upstream_error": 1})
    assert "scripted" in _text(given)


async def test_a_stream_that_breaks_off_never_ends_cleanly(sides: Sides, way: Way) -> None:
    given = await sides.same("openai", way, streamed("cut"), {"classifier_off": 1})
    assert given[-1]["status"] is None
    assert given[-1]["class"] in ("APIConnectionError", "RemoteProtocolError", "ReadError")


def _text(given: list[Any]) -> str:
    return str(given)

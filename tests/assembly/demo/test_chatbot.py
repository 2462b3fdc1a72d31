"""The scripted chatbot speaks both dialects well enough for the providers' own SDKs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import anthropic
import openai
import pytest

from proxy.assembly.demo.chatbot import Chatbot
from proxy.assembly.demo.replies import pieces
from proxy.assembly.demo.script import ALIAS, NEW_MODEL, OLD_MODEL, Line, script

LINES = script()
LONG = max(
    (line for line in LINES if not line.native and not line.fault), key=lambda line: len(line.answer.text)
)
UPDATED = next(line for line in LINES if line.update is not None)


def _native(kind: str) -> Line:
    return next(line for line in LINES if line.native == kind)


def _fault(kind: str) -> Line:
    return next(line for line in LINES if line.fault == kind)


@pytest.fixture
async def chatbot() -> AsyncIterator[Chatbot]:
    chatbot = Chatbot(LINES, chunk_s=0.0)
    await chatbot.start()
    yield chatbot
    await chatbot.close()


@pytest.fixture
async def oai(chatbot: Chatbot) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{chatbot.url}/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
async def ant(chatbot: Chatbot) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=chatbot.url, api_key="k", max_retries=0) as client:
        yield client


async def _openai_stream(client: openai.AsyncOpenAI, prompt: str) -> tuple[str, str, str, int]:
    """Content, refusal, finish reason and output tokens."""
    stream = await client.chat.completions.create(
        model=ALIAS,
        messages=[{"role": "user", "content": prompt}],
        stream=True,
        stream_options={"include_usage": True},
    )
    content = refusal = finish = ""
    tokens = 0
    async for chunk in stream:
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        for choice in chunk.choices:
            content += choice.delta.content or ""
            refusal += choice.delta.refusal or ""
            finish = choice.finish_reason or finish
    return content, refusal, finish, tokens


async def test_openai_json(oai: openai.AsyncOpenAI) -> None:
    answer = await oai.chat.completions.create(
        model=ALIAS, messages=[{"role": "user", "content": LONG.prompt}]
    )
    assert answer.choices[0].message.content == LONG.answer.text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == OLD_MODEL
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 50
    assert answer.id.startswith("chatcmpl-")


async def test_openai_stream(oai: openai.AsyncOpenAI) -> None:
    content, refusal, finish, tokens = await _openai_stream(oai, LONG.prompt)
    assert (content, refusal, finish) == (LONG.answer.text, "", "stop")
    assert tokens > 50


async def test_anthropic_json(ant: anthropic.AsyncAnthropic) -> None:
    answer = await ant.messages.create(
        model=ALIAS,
        max_tokens=99,
        system="be kind",
        messages=[{"role": "user", "content": [{"type": "text", "text": LONG.prompt}]}],
    )
    block = answer.content[0]
    assert block.type == "text"
    assert block.text == LONG.answer.text
    assert (answer.stop_reason, answer.model) == ("end_turn", OLD_MODEL)
    assert answer.usage.output_tokens > 50


async def test_anthropic_stream(ant: anthropic.AsyncAnthropic) -> None:
    async with ant.messages.stream(
        model=ALIAS, max_tokens=99, messages=[{"role": "user", "content": LONG.prompt}]
    ) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text == LONG.answer.text
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens > 50


async def test_the_last_user_message_decides_and_an_unknown_one_gets_a_friendly_answer(
    oai: openai.AsyncOpenAI,
) -> None:
    line = next(line for line in LINES if line.earlier)
    first, reply = line.earlier[:2]
    answer = await oai.chat.completions.create(
        model=ALIAS,
        messages=[
            {"role": "system", "content": "x"},
            {"role": "user", "content": first},
            {"role": "assistant", "content": reply},
            {"role": "user", "content": line.prompt},
        ],
    )
    assert answer.choices[0].message.content == line.answer.text
    other = await oai.chat.completions.create(
        model=ALIAS, messages=[{"role": "user", "content": "not in the script"}]
    )
    assert "script" in (other.choices[0].message.content or "")


async def test_the_update_moves_the_alias_and_leaves_the_pinned_version(
    chatbot: Chatbot, oai: openai.AsyncOpenAI
) -> None:
    assert UPDATED.update is not None
    chatbot.update()
    for model, name, text in (
        (ALIAS, NEW_MODEL, UPDATED.update.text),
        (OLD_MODEL, OLD_MODEL, UPDATED.answer.text),
    ):
        answer = await oai.chat.completions.create(
            model=model, messages=[{"role": "user", "content": UPDATED.prompt}]
        )
        assert (answer.model, answer.choices[0].message.content) == (name, text)


async def test_native_refusals(oai: openai.AsyncOpenAI, ant: anthropic.AsyncAnthropic) -> None:
    line = _native("message_refusal")
    whole = await oai.chat.completions.create(
        model=ALIAS, messages=[{"role": "user", "content": line.prompt}]
    )
    assert whole.choices[0].message.content is None
    assert whole.choices[0].message.refusal == line.answer.text
    assert (await _openai_stream(oai, line.prompt))[:3] == ("", line.answer.text, "stop")

    line = _native("stop_refusal")
    message = await ant.messages.create(
        model=ALIAS, max_tokens=9, messages=[{"role": "user", "content": line.prompt}]
    )
    assert (message.stop_reason, message.content) == ("refusal", [])
    async with ant.messages.stream(
        model=ALIAS, max_tokens=9, messages=[{"role": "user", "content": line.prompt}]
    ) as stream:
        final = await stream.get_final_message()
    assert final.stop_reason == "refusal"


async def test_provider_blocks(oai: openai.AsyncOpenAI) -> None:
    content, _, finish, _ = await _openai_stream(oai, _native("content_filter").prompt)
    assert (content, finish) == ("", "content_filter")
    with pytest.raises(openai.BadRequestError) as caught:
        await _openai_stream(oai, _native("prompt_filter").prompt)
    assert caught.value.code == "content_filter"


async def test_errors_have_the_providers_types(
    oai: openai.AsyncOpenAI, ant: anthropic.AsyncAnthropic
) -> None:
    with pytest.raises(openai.InternalServerError):
        await _openai_stream(oai, _fault("server_error").prompt)
    with pytest.raises(openai.RateLimitError):
        await _openai_stream(oai, _fault("rate_limited").prompt)
    with pytest.raises(openai.NotFoundError):
        await oai.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(anthropic.APIStatusError) as caught:
        await ant.messages.create(
            model=ALIAS,
            max_tokens=9,
            messages=[{"role": "user", "content": _fault("overloaded").prompt}],
        )
    assert caught.value.status_code == 529


async def test_a_stream_that_breaks_off_is_no_clean_end(chatbot: Chatbot) -> None:
    line = _fault("breaks_off")
    body = {"model": ALIAS, "stream": True, "messages": [{"role": "user", "content": line.prompt}]}
    async with (
        aiohttp.ClientSession(headers={"Authorization": "Bearer k"}) as session,
        session.post(f"{chatbot.url}/v1/chat/completions", json=body) as response,
    ):
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_models_are_listed(oai: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in await oai.models.list()] == [OLD_MODEL, NEW_MODEL]


def test_pieces_join_to_the_text() -> None:
    for line in LINES:
        assert "".join(pieces(line.answer.text)) == line.answer.text

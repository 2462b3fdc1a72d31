"""A path says which format is spoken, whatever stands before it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.pure.formats.paths import bedrock_model, deployment, gemini_model, recognise

CONVERSATIONS = {
    "/v1/chat/completions": "openai_chat",
    "/v1/chat/completions/": "openai_chat",
    "/chat/completions": "openai_chat",
    "/openai/deployments/my%20bot/chat/completions": "openai_chat",
    "/models/chat/completions": "openai_chat",
    "/v1/agents/completions": "openai_chat",
    "/v1/completions": "openai_completions",
    "/completions": "openai_completions",
    "/v1/responses": "openai_responses",
    "/openai/v1/responses/": "openai_responses",
    "/v1/messages": "anthropic",
    "/team-a/anthropic/v1/messages": "anthropic",
    "/v1beta/models/gemini-2.5-flash:generateContent": "gemini",
    "/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent": "gemini",
    "/v1beta/models/gemini-2.5-flash%3AstreamGenerateContent": "gemini",
    "/v1beta/models/gemini-2.5-flash%3agenerateContent": "gemini",
    "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse": "bedrock",
    "/model/amazon.nova-lite-v1:0/converse-stream": "bedrock",
    "/api/chat": "ollama_chat",
    "/api/generate": "ollama_generate",
    "/v2/chat": "cohere",
    "/cohere/v2/chat": "cohere",
}
OTHERS = (
    "/",
    "",
    "//",
    "/v1/embeddings",
    "/v1/models",
    "/v1/chat/completions/chatcmpl-1",
    "/v1/chat",
    "/v1/chat/completion",
    "/v1/fim/completions",
    "/v1/mycompletions",
    "/v1/responses/resp_1",
    "/v1/responses/resp_1/cancel",
    "/v1/responses/input_tokens",
    "/v1/messages/count_tokens",
    "/v1/messages/batches",
    "/v1/threads/t/messages",
    "/v1beta/models/gemini-2.5-flash:countTokens",
    "/v1beta/models/gemini-2.5-flash:embedContent",
    "/model/amazon.titan/invoke",
    "/converse",
    "/api/embed",
    "/api/tags",
    "/v2/rerank",
    "/v1/audio/transcriptions",
)


@pytest.mark.parametrize(("path", "name"), CONVERSATIONS.items())
def test_a_conversation_is_recognised_by_the_end_of_its_path(path: str, name: str) -> None:
    assert recognise("POST", path) == name


@pytest.mark.parametrize("path", OTHERS)
def test_what_only_looks_similar_is_none(path: str) -> None:
    assert recognise("POST", path) == ""


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT", "post"])
def test_only_post_is_a_conversation(method: str) -> None:
    assert recognise(method, "/v1/chat/completions") == ""


def test_models_and_deployments_are_read_out_of_the_path() -> None:
    assert bedrock_model("/model/a.b-v1%3A0/converse-stream/") == "a.b-v1:0"
    assert bedrock_model("/p/model/arn%3Aaws%3Ap%2Fx/converse") == "arn:aws:p/x"
    assert bedrock_model("/model/arn:aws:p/x/converse") == "arn:aws:p/x"
    assert gemini_model("/v1beta/models/g-1:generateContent") == "g-1"
    assert gemini_model("/v1beta/models/g-1%3AgenerateContent/") == "g-1"
    assert deployment("/openai/deployments/my%20bot/chat/completions") == "my bot"
    assert deployment("/v1/chat/completions") == ""


def test_the_data_side_imports_nothing_heavy_with_it() -> None:
    """A worker asks for every request; it must not load orjson, codecs or the parsers for that."""
    code = (
        "import sys, proxy.pure.formats.paths; "
        "heavy = 'orjson', 'brotli', 'zstandard', 'proxy.pure.formats.registry'; "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The demo's configuration is a real one, and a serve that cannot start is one sentence."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from proxy.assembly.demo.house import DemoError, House, configuration
from proxy.assembly.demo.script import OWN_TOPIC
from proxy.words.config import load


def test_the_configuration_that_is_shown_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "refusal-proxy.toml"
    file.write_text(configuration("http://127.0.0.1:1234", 0, 0), encoding="utf-8")
    config = load(file)
    assert [route.name for route in config.all_routes] == ["openai", "anthropic"]
    assert [topic.name for topic in config.topics] == [OWN_TOPIC]
    assert set(config.labels.system_prompts) == {"shop", "bank", "clinic"}


async def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = tmp_path / "refusal-proxy.toml"
        file.write_text(configuration("http://127.0.0.1:1", port, 0), encoding="utf-8")
        house = House(file)
        with pytest.raises(DemoError, match=rf"cannot listen on 127.0.0.1:{port}"):
            await house.start()
        await house.stop()

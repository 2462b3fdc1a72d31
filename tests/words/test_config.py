"""The configuration: every wrong value is one clear sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.words.config import (
    ClassifierSection,
    Config,
    Labels,
    Limits,
    Log,
    Route,
    Timeouts,
    Topic,
    load,
    split_address,
)
from proxy.words.errors import ConfigError

UPSTREAM = {"upstream": "https://api.test"}


def test_defaults_need_nothing_but_an_upstream() -> None:
    config = load(None, UPSTREAM)
    assert [route.name for route in config.all_routes] == ["default"]
    assert config.limits.request_copy_bytes == 256 * 1024


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.toml"
    path.write_text('workers = 2\nlisten = "127.0.0.1:1"\nadmin = "127.0.0.1:2"\n[limits]\nmodels = 3\n')
    monkeypatch.setenv("REFUSAL_PROXY_WORKERS", "5")
    monkeypatch.setenv("REFUSAL_PROXY_LISTEN", "127.0.0.1:3")
    monkeypatch.setenv("REFUSAL_PROXY_LIMITS__SYSTEM_PROMPTS", "7")
    config = load(path, {**UPSTREAM, "workers": "9"})
    assert (config.workers, config.listen, config.admin) == (9, "127.0.0.1:3", "127.0.0.1:2")
    assert (config.limits.models, config.limits.system_prompts) == (3, 7)


BAD = {
    "an unknown key": ("wrokers = 2", "wrokers: unknown key"),
    "an unknown key in a table": ("[limits]\nfoo = 1", "limits.foo: unknown key"),
    "a number that is none": ('workers = "many"', "workers: "),
    "a number out of range": ("workers = 0", "workers: Input should be greater than or equal to 1"),
    "an address without a port": ('listen = "localhost"', "expected HOST:PORT"),
    "an address with a silly port": ('listen = "localhost:99999"', "expected HOST:PORT"),
    "one address for both ports": ('listen = "127.0.0.1:9090"', "listen and admin are the same address"),
    "two routes of one name": (
        '[[routes]]\nname = "a"\nupstream = "http://x"\n[[routes]]\nname = "a"\nupstream = "http://y"',
        "two routes are named 'a'",
    ),
    "a route with a bad name": (
        '[[routes]]\nname = "A b"\nupstream = "http://x"',
        "routes.0.name: 'A b' does",
    ),
    "a route without upstream": ('[[routes]]\nname = "a"', "routes.0.upstream: Field required"),
    "an upstream that is no URL": (
        '[[routes]]\nname = "a"\nupstream = "x"',
        "expected an http:// or https:// URL",
    ),
    "an upstream with a bad port": (
        '[[routes]]\nname = "a"\nupstream = "http://x:port"',
        "expected an http:// or https:// URL",
    ),
    "an upstream with a query": ('[[routes]]\nname = "a"\nupstream = "http://x/?k=1"', "has no query"),
    "a prefix without slash": (
        '[[routes]]\nname = "a"\nupstream = "http://x"\npath_prefix = "v1"',
        "starts with /",
    ),
    "a CA file that is not there": (
        '[[routes]]\nname = "a"\nupstream = "https://x"\nca_file = "/nowhere.pem"',
        "there is no file /nowhere.pem",
    ),
    "a topic that is built in": ('[[topics]]\nname = "medical"\nexamples = ["x"]', "is built in"),
    "a topic without examples": ('[[topics]]\nname = "pets"\nexamples = []', "topics.0.examples"),
    "a system prompt that is no hash": ('[labels]\nsystem_prompts = {a = "xyz"}', "expected 12 hex digits"),
    "a model name with spaces": ('[labels]\nmodels = ["a b"]', "labels.models.0"),
    "a log level that is none": ('[log]\nlevel = "loud"', "log.level"),
    "text that is not TOML": ("= 1", "is not valid TOML"),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_one_sentence_that_names_the_key(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    overrides = {} if "[[routes]]" in text else UPSTREAM
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value).replace(repr("\n"), "")
    assert str(path) in str(caught.value)


def test_no_upstream_at_all_says_what_to_give() -> None:
    with pytest.raises(ConfigError, match="no upstream: give --upstream URL"):
        load(None, {})


def test_upstream_and_routes_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[[routes]]\nname = "a"\nupstream = "http://x"')
    with pytest.raises(ConfigError, match="not both"):
        load(path, UPSTREAM)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*missing.toml: No such file"):
        load(tmp_path / "missing.toml")


def test_a_misspelt_environment_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSAL_PROXY_WROKERS", "2")
    with pytest.raises(ConfigError, match="unknown environment variable REFUSAL_PROXY_WROKERS"):
        load(None, UPSTREAM)


def test_an_environment_variable_that_is_not_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSAL_PROXY_ROUTES", "[{")
    with pytest.raises(ConfigError, match="REFUSAL_PROXY_ROUTES: expected JSON, as for a list or a table"):
        load(None, {})


def test_a_dumped_configuration_loads_as_itself() -> None:
    """The supervisor hands it to the monitor as JSON."""
    config = load(None, {**UPSTREAM, "topics": [{"name": "pets", "examples": ["my cat"]}]})
    assert load(None, config.model_dump(mode="json")).model_dump() == config.model_dump()


@pytest.mark.parametrize(
    ("text", "parts"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80)), ("h:0", ("h", 0))]
)
def test_addresses_split(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts


def test_the_documentation_names_every_key_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "config.md").read_text()
    sections = (Config, Route, Topic, Limits, Timeouts, ClassifierSection, Labels, Log)
    for section in sections:
        for name, field in section.model_fields.items():
            if isinstance(field.default, (Limits, Timeouts, ClassifierSection, Labels, Log)):
                assert f"## `[{name}]`" in page
            elif name in ("routes", "topics"):
                assert f"## `[[{name}]]`" in page
            else:
                (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")][:1]
                if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
                    assert f"`{field.default}`" in row

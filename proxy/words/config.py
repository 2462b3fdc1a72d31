"""The configuration: one TOML file, every key also an environment variable, defaults beside their fields.

Precedence: command line > environment (`REFUSAL_PROXY_LIMITS__QUEUE_BYTES`) > file > default. An unknown key,
a bad value or a missing file becomes one sentence in a `ConfigError`. Nothing here is a secret today; a
field that is one must be a `SecretStr`, so that it prints as `***`.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from proxy.words.errors import ConfigError
from proxy.words.verdict import TOPICS

ENV_PREFIX = "REFUSAL_PROXY_"
_NAME = r"^[a-z0-9][a-z0-9_.-]{0,39}$"
_MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}$"

Name = Annotated[str, Field(pattern=_NAME)]
ModelName = Annotated[str, Field(pattern=_MODEL_NAME)]
Bytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    """A table of the file: unknown keys fail."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` -> (host, port). Raises ValueError with one sentence."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535 or not host:
        raise ValueError(f"expected HOST:PORT, for example 127.0.0.1:8080, not {address!r}")
    return host.strip("[]"), int(port)


def _upstream(url: str) -> str:
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        port_ok, parts = False, urlsplit("")
    if not port_ok or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected an http:// or https:// URL, not {url!r}")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("an upstream URL has no query, fragment or user name")
    return url.rstrip("/")


class Route(Section):
    """Which requests go to which upstream. The first route in the file that matches takes the request."""

    name: Name
    upstream: str
    path_prefix: str = Field("", description="matches this path and everything below it; empty: any path")
    host: str = Field("", description="matches this Host header, port ignored; empty: any host")
    strip_prefix: bool = Field(False, description="cut path_prefix off before the path goes upstream")
    ca_file: Path | None = Field(None, description="PEM file of the authorities to trust; none: the system's")

    _url = field_validator("upstream")(_upstream)

    @field_validator("ca_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}")
        return value

    @field_validator("path_prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if value and not re.fullmatch(r"/[!-~]*", value):
            raise ValueError("a path_prefix starts with / and holds no spaces")
        return value.rstrip("/")

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        return value.lower()


class Limits(Section):
    """What is kept at most. Everything over a limit passes through and is counted."""

    request_copy_bytes: Bytes = Field(256 << 10, description="copy of a request body, head and tail together")
    response_copy_bytes: Bytes = Field(256 << 10, description="copy of a response body, likewise")
    copies_bytes: int = Field(256 << 20, ge=1 << 20, description="all unfinished copies of one worker")
    head_bytes: int = Field(64 << 10, ge=1024, description="a request or response head; larger: 431 or 502")
    valve_bytes: int = Field(16 << 20, ge=1 << 20, description="captures waiting in one worker")
    queue_bytes: int = Field(64 << 20, ge=1 << 20, description="captures waiting in the monitor")
    queue_captures: int = Field(20_000, ge=1, description="captures waiting in the monitor")
    inflated_bytes: int = Field(
        4 << 20, ge=1 << 16, description="a body after inflating its content encoding"
    )
    models: int = Field(20, ge=0, description="model names that become label values; the rest is `other`")
    system_prompts: int = Field(50, ge=0, description="system prompt versions that become label values")


class Timeouts(Section):
    """Seconds. There is no limit for a whole exchange: long thinking is normal."""

    connect_s: Seconds = 10.0
    silence_s: Seconds = Field(
        600.0, description="between two bytes from the upstream, or to a stalled client"
    )
    upstream_keepalive_s: Seconds = Field(
        4.0, description="idle time of a pooled connection; below the 5 s after which uvicorn and Node close"
    )
    client_keepalive_s: Seconds = Field(75.0, description="idle time of a client's connection")
    drain_s: Seconds = Field(30.0, description="open streams get this long to finish after SIGTERM")
    hung_s: Seconds = Field(30.0, description="a process of ours without a heartbeat for so long is replaced")


class ClassifierSection(Section):
    """The bundle that scores exchanges."""

    enabled: bool = True
    bundle: Path | None = Field(
        None, description="a bundle folder; none: the one that ships with the package"
    )
    batch: int = Field(32, ge=1, le=512, description="exchanges scored together at most")
    threads: int = Field(1, ge=1, le=64, description="threads of one inference")


class Topic(Section):
    """An operator's own topic: a name and a handful of prompts like those meant."""

    name: Name
    examples: list[Annotated[str, Field(min_length=1, max_length=4000)]] = Field(min_length=1, max_length=200)


class Labels(Section):
    """Which free names may become label values."""

    models: list[ModelName] = Field([], description="allow-list; empty: the first limits.models seen")
    system_prompts: dict[Name, str] = Field(
        {}, description="name = 12 hex digits of the prompt's SHA-256, as /metrics shows it for unnamed ones"
    )

    @field_validator("system_prompts")
    @classmethod
    def _hashes(cls, value: dict[str, str]) -> dict[str, str]:
        for name, digest in value.items():
            if not re.fullmatch(r"[0-9a-f]{12}", digest):
                raise ValueError(f"system prompt {name!r}: expected 12 hex digits, not {digest!r}")
        return value


class Log(Section):
    """structlog: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"
    exchanges: bool = Field(
        False, description="one line an exchange: its verdict, never content or credentials"
    )


class Config(BaseSettings):
    """The whole configuration. `upstream` is short for a single route named `default`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    listen: str = "127.0.0.1:8080"
    admin: str = "127.0.0.1:9090"
    workers: int = Field(default_factory=lambda: max(1, (os.cpu_count() or 2) - 1), ge=1, le=256)
    upstream: str = ""
    routes: list[Route] = []
    x_forwarded: Literal["off", "append"] = Field("off", description="X-Forwarded-For, -Proto and -Host")
    half_closed_clients: Literal["leave", "serve"] = Field(
        "leave",
        description="a client that shuts its sending side down: `leave` takes it as gone and stops the "
        "upstream (a FIN is all that a departing client sends), `serve` answers it all the same",
    )
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    classifier: ClassifierSection = ClassifierSection()
    topics: list[Topic] = []
    replace_topics: bool = Field(False, description="own topics replace the built-in list (`other` stays)")
    topic_threshold: float = Field(
        0.45, ge=0, le=1, description="cosine similarity below which `other` stays"
    )
    labels: Labels = Labels()
    log: Log = Log()

    @field_validator("listen", "admin")
    @classmethod
    def _address(cls, value: str) -> str:
        split_address(value)
        return value

    @field_validator("upstream")
    @classmethod
    def _url(cls, value: str) -> str:
        return _upstream(value) if value else value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.upstream and self.routes:
            raise ValueError("give either upstream or [[routes]], not both")
        if not self.upstream and not self.routes:
            raise ValueError("no upstream: give --upstream URL, or [[routes]] in the configuration file")
        _unique("route", [route.name for route in self.routes])
        _unique("topic", [topic.name for topic in self.topics])
        if not self.replace_topics:
            for topic in self.topics:
                if topic.name in TOPICS:
                    raise ValueError(f"topic {topic.name!r} is built in; choose another name")
        if self.listen == self.admin and not self.listen.endswith(":0"):
            raise ValueError("listen and admin are the same address; metrics never share the data port")
        return self

    @property
    def all_routes(self) -> tuple[Route, ...]:
        return tuple(self.routes) or (Route(name="default", upstream=self.upstream),)


def _unique(kind: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two {kind}s are named {name!r}")


def load(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """Read, merge and check. `overrides` are the command line's. Raises ConfigError with one sentence."""
    values = _read(path) if path else {}
    _refuse_unknown_environment()

    class Sources(Config):
        # A class a load: pydantic-settings asks the class, not the call, where values come from.
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=values)

    try:
        return Sources(**(overrides or {}))
    except ValidationError as error:
        raise ConfigError(_sentence(error, path)) from None
    except SettingsError as error:  # an environment variable that is not the JSON its field wants
        field = str(error).partition('"')[2].partition('"')[0]
        raise ConfigError(f"{ENV_PREFIX}{field.upper()}: expected JSON, as for a list or a table") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the configuration {path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration {path} is not valid TOML: {error}") from None


def _refuse_unknown_environment() -> None:
    for key in sorted(os.environ):
        if key.startswith(ENV_PREFIX):
            field = key[len(ENV_PREFIX) :].lower().split("__")[0]
            if field not in Config.model_fields:
                raise ConfigError(f"unknown environment variable {key}: there is no key {field!r}")


def _sentence(error: ValidationError, path: Path | None) -> str:
    first, *rest = error.errors(include_url=False)
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key"
    elif first["type"] == "string_pattern_mismatch":
        message = f"{first['input']!r} does not match {first['ctx']['pattern']}"
    where = f"{path}: " if path else ""
    more = f" (and {len(rest)} more)" if rest else ""
    return f"{where}{key + ': ' if key else ''}{message}{more}"

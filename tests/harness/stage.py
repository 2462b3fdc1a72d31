"""One real proxy for many tests: each test gets a scene, which is a route and an upstream of its own.

A scene's route has its own name (so its own metrics), its own pool, and its own listening upstream, so tests
that share the process cannot see each other. Requests go to `/<name>/…`; the upstream gets `/…`.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from tests.harness.served import Served
from tests.harness.upstreams import Line, Script, Upstream, scripted

SCENES = 150


class Scene:
    """A route of the stage's proxy and the upstream behind it."""

    def __init__(self, stage: Stage, name: str, upstream: Upstream) -> None:
        self.stage = stage
        self.name = name
        self.upstream = upstream
        self.script: Script

    @property
    def port(self) -> int:
        return self.stage.proxy.data_port

    def path(self, rest: str = "/") -> str:
        """The client's path for what the upstream shall see as `rest`."""
        return f"/{self.name}{rest}"

    def value(self, metric: str, **labels: str) -> float:
        """The sum of this route's samples of a metric. (Text search: the page of many routes is long.)"""
        wanted = [f'{name}="{value}"' for name, value in {"route": self.name, **labels}.items()]
        total = 0.0
        for line in self.stage.proxy.get("/metrics")[1].splitlines():
            if line.startswith(metric + "{") and all(label in line for label in wanted):
                total += float(line.rpartition("} ")[2].split(" ")[0])
        return total

    async def counted(self, metric: str, least: float = 1.0, **labels: str) -> float:
        """Wait until a metric of this route has at least this value; returns the value."""
        what = f"{metric}{labels} of {self.name} >= {least}"
        await self.stage.proxy.until(lambda: self.value(metric, **labels) >= least, what)
        return self.value(metric, **labels)

    async def quiet(self) -> None:
        """Wait until the proxy has reported that no exchange of this route is open."""

        def holds() -> bool:
            done = self.value("refusal_proxy_requests_total")
            return done > 0 and self.value("refusal_proxy_open_streams") == 0

        await self.stage.proxy.until(holds, f"{self.name} is quiet")


class Stage:
    """`async with Stage(folder) as stage`, then `stage.scene(script)` for each test."""

    def __init__(self, folder: Path, config: str = "", scenes: int = SCENES, route: str = "") -> None:
        """`config` is TOML before the routes, `route` more keys of every route."""
        self._folder = folder
        self._config = config
        self._count = scenes
        self._route = route
        self._stack = AsyncExitStack()
        self._scenes: list[Scene] = []
        self.proxy: Served

    async def __aenter__(self) -> Self:
        text = [self._config]
        for number in range(self._count):
            name = f"s{number}" if number else "rest"
            scene: list[Scene] = []

            async def play(line: Line, scene: list[Scene] = scene) -> None:
                await scene[0].script(line)

            upstream = await self._stack.enter_async_context(scripted(play))
            scene.append(Scene(self, name, upstream))
            self._scenes.append(scene[0])
        for one in (*self._scenes[1:], self._scenes[0]):  # the one without a prefix comes last
            prefix = f'path_prefix = "/{one.name}"\nstrip_prefix = true\n' if one.name != "rest" else ""
            text.append(
                f'[[routes]]\nname = "{one.name}"\nupstream = "{one.upstream.url}"\n{prefix}{self._route}'
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        self.proxy = await self._stack.enter_async_context(Served(self._folder, config="\n".join(text)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def scene(self, script: Script) -> Scene:
        """A fresh route whose upstream plays this script on every connection."""
        scene = self._scenes.pop()
        scene.script = script
        return scene

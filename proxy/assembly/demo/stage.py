"""Puts the parts on stage in one order, and takes them off in the reverse one.

chatbot → configuration file → serve → clients and table → (model update) → … → clients → serve → chatbot
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

import aiohttp
from rich.console import Console

from proxy.assembly.demo.chatbot import Chatbot
from proxy.assembly.demo.house import DemoError, House, configuration
from proxy.assembly.demo.reading import Reading
from proxy.assembly.demo.screen import Screen, Terminal
from proxy.assembly.demo.script import ALIAS, NEW_MODEL, OLD_MODEL, script
from proxy.assembly.demo.summary import agreement_table, summary
from proxy.assembly.demo.table import View
from proxy.assembly.demo.traffic import Clients, endless, plan

SEED: Final = 20_260_101
WATCHABLE: Final = 11.0  # requests a second that a person can follow
FAST: Final = 40.0  # for --once
PINNED: Final = 0.15  # clients that insist on the old model, as careful ones do: they stay as a control
_LOOK_S: Final = 0.5
_STUCK_S: Final = 10.0
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stage:
    """One run. `stop` is set by a signal; everything that waits, waits for it too."""

    def __init__(self, screen: Screen, house: House, chatbot: Chatbot, config: Path) -> None:
        self._screen = screen
        self._house = house
        self._chatbot = chatbot
        self._config = config
        self._rng = Random(SEED)  # noqa: S311 - a fixed order, not a secret
        self._lines = script()
        self._clients = Clients(house.url, self._rng)
        self._began = time.monotonic()
        self._reading = Reading()
        self._story = ""
        self._restarted = ""

    async def forever(self) -> None:
        """Pass after pass until cancelled; the model update comes after the first."""
        first = len(self._lines)
        self._story = (
            f"Soon the vendor will move the alias {ALIAS} from {OLD_MODEL} to {NEW_MODEL}."
            f" Clients will change nothing."
        )
        await self._clients.send(plan(self._lines, self._rng, pinned=PINNED)[:first], WATCHABLE)
        self._update()
        await self._clients.send(endless(self._lines, self._rng, PINNED), WATCHABLE)

    async def once(self) -> None:
        """Every prompt once with each model version, then wait until all of it is accounted for."""
        self._story = f"First pass: {ALIAS} is {OLD_MODEL}."
        await self._clients.send(plan(self._lines, self._rng), FAST)
        self._update()
        await self._clients.send(plan(self._lines, self._rng), FAST)
        self._story = "All sent; waiting until everything is accounted for."
        # Scoring may be far behind on a slow machine: wait as long as it gets on.
        before, deadline = 0, time.monotonic() + _STUCK_S
        while self._reading.accounted < self._clients.sent.total and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_S)
            if self._reading.accounted > before:
                before, deadline = self._reading.accounted, time.monotonic() + _STUCK_S

    def _update(self) -> None:
        self._chatbot.update()
        self._story = (
            f"{time.strftime('%H:%M:%S')}  The vendor moved {ALIAS} from {OLD_MODEL} to {NEW_MODEL}. "
            "No client changed anything, the API still answers 200."
        )
        if not self._screen.console.is_terminal:
            self._screen.say(self._story)

    async def watch(self) -> None:
        """Look at /metrics and draw, until cancelled. Raises DemoError when serve has ended."""
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await self._look(session)
                self._screen.draw(self._view())
                if not self._house.running:
                    raise DemoError(f"refusal-proxy serve ended by itself: {'; '.join(self._house.news)}")
                await asyncio.sleep(_LOOK_S)

    async def _look(self, session: aiohttp.ClientSession) -> None:
        reading = await self._house.look(session)
        if reading is None:
            return
        if self._reading.started_at and reading.started_at != self._reading.started_at:
            self._restarted = f"{time.strftime('%H:%M:%S')}  a new monitor, which counts from zero"
        self._reading = reading

    def _view(self) -> View:
        return View(
            reading=self._reading,
            sent=self._clients.sent,
            url=self._house.url,
            admin_url=self._house.admin_url,
            config=str(self._config),
            elapsed_s=time.monotonic() - self._began,
            story=self._story,
            news=(*self._house.news, *([self._restarted] if self._restarted else [])),
        )

    async def run(self, *, once: bool, stopped: asyncio.Event) -> bool:
        """Play until the end or until `stopped`; False when it was stopped."""
        async with self._clients.open():
            play = asyncio.create_task(self.once() if once else self.forever())
            watch = asyncio.create_task(self.watch())
            stop = asyncio.create_task(stopped.wait())
            tasks = (play, watch, stop)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return not stopped.is_set()

    def problems(self) -> list[str]:
        """What does not add up, a sentence each."""
        sent, reading = self._clients.sent, self._reading
        found = []
        if sent.failures:
            causes = ", ".join(f"{name} {number}" for name, number in sent.failures.items())
            found.append(f"clients met failures that the script does not have: {causes}")
        if reading.accounted != sent.total:
            found.append(
                f"{sent.total} requests were sent, but {reading.accounted} are accounted for "
                f"({reading.scored} scored, {reading.unscored.total()} unscored, "
                f"{reading.dropped.total()} dropped)"
            )
        return found

    def show_end(self) -> None:
        self._screen.say(summary(self._view(), self._lines))

    async def show_agreement(self, stopped: Callable[[], bool]) -> None:
        self._screen.say("\nAsking the classifier about each scripted pair, to compare …")
        table = await asyncio.to_thread(
            agreement_table, self._config, self._chatbot.url, self._lines, stopped
        )
        self._screen.say(table)


def show(*, once: bool, port: int, admin_port: int) -> int:
    """Run the demo; the exit status. One sentence on standard error where something failed."""
    screen = Screen(Terminal())
    errors = Console(stderr=True)
    try:
        return asyncio.run(_run(screen, once=once, port=port, admin_port=admin_port))
    except DemoError as error:
        errors.print(f"refusal-proxy demo: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1


async def _run(screen: Screen, *, once: bool, port: int, admin_port: int) -> int:
    stopped = _stop_event(screen)
    with tempfile.TemporaryDirectory(prefix="refusal-proxy-demo-") as folder:
        config = Path(folder) / "refusal-proxy.toml"
        async with _chatbot() as chatbot:
            config.write_text(configuration(chatbot.url, port, admin_port), encoding="utf-8")
            screen.say(f"Starting refusal-proxy serve --config {config}")
            async with _house(config, stopped) as house:
                if stopped.is_set():
                    return 0
                stage = Stage(screen, house, chatbot, config)
                with screen:
                    finished = await stage.run(once=once, stopped=stopped)
                stage.show_end()
                if once and finished:
                    await stage.show_agreement(stopped.is_set)
        if not (once and finished):
            return 0
    problems = stage.problems()
    if problems:
        raise DemoError("; ".join(problems))
    return 0


def _stop_event(screen: Screen) -> asyncio.Event:
    stopped = asyncio.Event()
    screen.when_gone = stopped.set
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        if number == signal.SIGHUP:
            screen.gone()
        stopped.set()

    for number in _STOPPING:
        loop.add_signal_handler(number, stop, number)
    return stopped


@asynccontextmanager
async def _chatbot() -> AsyncIterator[Chatbot]:
    chatbot = Chatbot(script())
    await chatbot.start()
    try:
        yield chatbot
    finally:
        await chatbot.close()


@asynccontextmanager
async def _house(config: Path, stopped: asyncio.Event) -> AsyncIterator[House]:
    house = House(config)
    starting = asyncio.create_task(house.start())
    stop = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        elif (error := starting.exception()) is not None:
            raise error
        yield house
    finally:
        stop.cancel()
        await house.stop()

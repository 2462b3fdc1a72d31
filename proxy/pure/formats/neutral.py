"""The neutral form while it grows: what was asked, what has been replied so far.

A dialect turns its JSON into calls on these; nothing below knows a provider. One `Reply` takes a whole
message or one event after another, so a stream and its non-stream twin end in the same exchange.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from proxy.pure.formats.access import as_dict, as_int, as_str
from proxy.words.errors import Unscored
from proxy.words.exchange import Exchange, Message, NativeSignal

Kind = Literal["model_refusal", "provider_block"]
GAP: Final = "\n[…]\n"  # where the bounded copy left something out
MAX_CHOICES: Final = 1024  # a body of a few megabytes can claim many more


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn before the response. Only an `asking` one (a user's, not a tool's) can be the prompt."""

    role: str
    text: str
    asking: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """The request in neutral form. `batch` holds several prompts sent at once (OpenAI completions), each
    answered by `per_prompt` choices; `echo` says that the reply repeats the prompt first."""

    model: str
    system: str = ""
    turns: tuple[Turn, ...] = ()
    batch: tuple[str, ...] = ()
    per_prompt: int = 1
    echo: bool = False

    def prompt(self, choice: int) -> str:
        if self.batch:
            return self.batch[min(choice // self.per_prompt, len(self.batch) - 1)]
        return next((turn.text for turn in reversed(self.turns) if turn.asking and turn.text), "")

    def conversation(self, choice: int) -> tuple[Message, ...]:
        if self.batch:
            return (Message("user", self.prompt(choice)),)
        return tuple(Message(turn.role, turn.text) for turn in self.turns)


def split_system(turns: Iterable[Turn], roles: frozenset[str], *first: str) -> tuple[str, tuple[Turn, ...]]:
    """System prompts (those given apart come first) joined by blank lines, and the turns that are none."""
    system = [*first]
    rest: list[Turn] = []
    for turn in turns:
        if turn.role in roles:
            system.append(turn.text)
        else:
            rest.append(turn)
    return "\n\n".join(filter(None, system)), tuple(rest)


@dataclass(slots=True)
class Choice:
    """One alternative of the reply. Text that follows something else than text starts a new line."""

    index: int
    finish: str = ""
    native: NativeSignal | None = None
    calls: set[str] = field(default_factory=set)
    _text: list[str] = field(default_factory=list)
    _separator: str = ""
    _refusal: list[str] = field(default_factory=list)
    _refusal_marker: str = ""
    _places: set[str] = field(default_factory=set)

    def say(self, text: str) -> None:
        if text:
            if self._separator:
                self._text.append(self._separator if self._text or self._separator == GAP else "")
                self._separator = ""
            self._text.append(text)

    def pause(self) -> None:
        """Something that is not text comes between."""
        self._separator = self._separator or "\n"

    def gap(self) -> None:
        self._separator = GAP

    def restart(self) -> None:
        """Forget text and calls: the provider now repeats the whole of it."""
        self._text, self._refusal, self._separator = [], [], ""
        self.calls, self._places = set(), set()

    def decline(self, text: str, marker: str) -> None:
        """The model's own refusal, given apart from its text."""
        if text:
            self._refusal.append(text)
            self._refusal_marker = marker

    def call(self, number: object, identity: object = None) -> None:
        """A tool call, or a further piece of one: `number` is its place, `identity` its id.

        Pieces after the first carry no id; servers that send whole calls may number all of them 0.
        """
        place = f"#{number if isinstance(number, int) else len(self.calls)}"
        name = as_str(identity)
        if name or place not in self._places:
            self.calls.add(name or place)
        self._places.add(place)
        self.pause()

    def signal(self, kind: Kind, marker: str, category: str = "", text: str = "") -> None:
        """A native signal. The first one stays, a later one of its kind fills its blanks; a block outranks
        a refusal, because after it nobody knows what the model would have said."""
        old = self.native
        if old is None or (old.kind == "model_refusal" and kind == "provider_block"):
            self.native = NativeSignal(kind, marker, category, text)
        elif old.kind == kind:
            self.native = NativeSignal(kind, old.marker, old.category or category, old.text or text)

    def finished(self, reason: object, signals: Mapping[str, Kind], field_name: str) -> None:
        """The provider's stop reason; `signals` names those that are native signals."""
        if text := as_str(reason):
            self.finish = text
            word, _, category = text.partition(":")  # Gemini's OpenAI dialect: "content_filter: SAFETY"
            if kind := signals.get(word):
                self.signal(kind, f"{field_name}={word}", category.strip())

    def settled(self) -> tuple[str, NativeSignal | None]:
        """The response text and the native signal."""
        text, refusal = "".join(self._text), "".join(self._refusal)
        if self._separator == GAP and text:
            text += GAP
        if refusal:
            self.signal("model_refusal", self._refusal_marker, text=refusal)
        return _without_thinking(text) or refusal, self.native

    @property
    def empty(self) -> bool:
        return not (self._text or self._refusal or self.calls or self.native)


def _without_thinking(text: str) -> str:
    """Models served without a reasoning parser put their thoughts first, in the text itself."""
    start = text.lstrip()
    if not start.startswith("<think>"):
        return text
    return start.partition("</think>")[2].lstrip()


class Reply(ABC):
    """What the response has said so far. Dialects subclass it."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.choices: dict[int, Choice] = {}
        self.model = ""
        self.native: NativeSignal | None = None  # about the prompt, so about every choice
        self.done = False  # the provider's end marker for the whole message
        self.failed = False  # an error in the middle
        self.unfinished = False  # the provider says that it is still at it, or gave up
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None

    @abstractmethod
    def whole(self, body: dict[str, Any]) -> None:
        """Take a response that came in one piece."""

    @abstractmethod
    def event(self, name: str, data: dict[str, Any]) -> None:
        """Take one event of a stream; `name` is the framing's name for it, "" if it has none."""

    def choice(self, index: object = 0) -> Choice:
        number = as_int(index) or 0
        if number >= MAX_CHOICES:
            return Choice(number)  # written to and forgotten
        found = self.choices.get(number)
        if found is None:
            found = self.choices[number] = Choice(number)
        return found

    def gap(self) -> None:
        for choice in self.choices.values():
            choice.gap()

    def named(self, model: object) -> None:
        self.model = self.model or as_str(model)

    def used(self, input_tokens: int | None, output_tokens: int | None) -> None:
        """Token counts; the last one given wins."""
        self.input_tokens = self.input_tokens if input_tokens is None else input_tokens
        self.output_tokens = self.output_tokens if output_tokens is None else output_tokens

    def fail(self, signal: NativeSignal | None = None) -> None:
        """An error in the body. When it is a filter's block, that is the provider's end of the message."""
        if signal is None:
            self.failed = True
        else:
            self.native, self.done = signal, True

    @property
    def empty(self) -> bool:
        return self.native is None and all(choice.empty for choice in self.choices.values())

    def exchanges(self, *, streamed: bool, ended: bool) -> list[Exchange]:
        """One exchange a choice. `ended`: the message is whole even without the provider's end marker.

        Raises Unscored("upstream_error") when an error came and nothing else.
        """
        if self.failed and self.empty:
            raise Unscored("upstream_error", "the response carries an error")
        if not self.choices:
            self.choice()
        made: list[Exchange] = []
        broken = self.failed or self.unfinished
        asked, conversation = self.asked, self.asked.conversation(0)
        prompt = asked.prompt(0)
        for choice in sorted(self.choices.values(), key=lambda item: item.index):
            if self.native is not None:
                choice.signal(self.native.kind, self.native.marker, self.native.category, self.native.text)
            text, native = choice.settled()
            if asked.batch:
                prompt, conversation = asked.prompt(choice.index), asked.conversation(choice.index)
            first = not made  # the counts are for all choices together: give them once
            made.append(
                Exchange(
                    model=self.model or asked.model,
                    prompt=prompt,
                    response=text.removeprefix(prompt) if asked.echo else text,
                    request_model=asked.model,
                    system_prompt=asked.system,
                    conversation=conversation,
                    native=native,
                    tool_calls=len(choice.calls),
                    finish_reason=choice.finish,
                    choice=choice.index,
                    complete=not broken and (self.done or ended or bool(choice.finish)),
                    streamed=streamed,
                    input_tokens=self.input_tokens if first else None,
                    output_tokens=self.output_tokens if first else None,
                )
            )
        return made


@dataclass(frozen=True, slots=True)
class Format:
    """One dialect. `operation` and `provider` are the OpenTelemetry GenAI words for it."""

    name: str
    operation: str
    provider: str
    asked: Callable[[dict[str, Any], str], Asked]  # request body, path → may raise Unreadable
    reply: Callable[[Asked], Reply]
    blocked: Callable[[dict[str, Any]], NativeSignal | None] = lambda _error: None  # the error object


def error_of(body: dict[str, Any]) -> dict[str, Any]:
    """The error object of a response body, also when it is bare text."""
    error = body.get("error")
    return {"message": error} if isinstance(error, str) and error else as_dict(error)

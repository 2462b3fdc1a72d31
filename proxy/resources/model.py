"""The model: one classifier bundle, loaded or not, and the operator's own topics on top of it.

A bundle that is missing or corrupt is a state, not a crash: `state` says so, one log line names the file,
and the exchanges that needed it are counted. A reload that fails keeps the bundle that works. Own topics
that cannot be used leave the built-in ones, with a log line of their own.

Used by one thread, the monitor's scoring thread; `state`, `version` and `topics` may be read from any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from proxy.pure.decide import TextScores
from proxy.pure.labels import OTHER
from proxy.resources.log import place
from proxy.words.verdict import OUTCOMES, PROMPT_CLASSES, TOPICS, Outcome, PromptClass

if TYPE_CHECKING:
    from proxy.resources.log import Logger
    from proxy.words.config import Config

State = Literal["loading", "ready", "off", "unavailable"]


class Scores(Protocol):
    """One exchange as the bundle scores it: probabilities in the order of the word lists, and labels."""

    @property
    def outcome(self) -> Sequence[float]: ...
    @property
    def prompt_class(self) -> Sequence[float]: ...
    @property
    def topic(self) -> Sequence[float]: ...
    @property
    def outcome_label(self) -> str: ...
    @property
    def prompt_class_label(self) -> str: ...
    @property
    def topic_label(self) -> str: ...
    @property
    def embedding(self) -> Any: ...


class Scorer(Protocol):
    """What is used of `classifiers.runtime.Classifier`."""

    version: str

    def score(self, items: Sequence[tuple[str, str]]) -> Sequence[Scores]: ...
    def embed(self, prompts: Sequence[str]) -> Any: ...


class OwnTopics(Protocol):
    """What is used of `classifiers.topics.PrototypeTopics`."""

    @property
    def names(self) -> tuple[str, ...]: ...
    def similarities(self, embedding: Any) -> Sequence[float]: ...
    def label(self, embedding: Any, builtin: str, probabilities: Sequence[float]) -> str: ...


Open = Callable[[Path | None, int], Scorer]
Embed = Callable[[Sequence[str]], Any]
MakeTopics = Callable[[Mapping[str, Sequence[str]], Embed, float, bool], OwnTopics]


# Imported here, not above: a broken onnxruntime costs the classifier, not the monitor.
def open_bundle(path: Path | None, threads: int) -> Scorer:
    """Load a bundle, the one that ships with the package if `path` is None. Raises whatever is wrong."""
    from classifiers.runtime import DEFAULT_BUNDLE, Classifier  # noqa: PLC0415

    return cast("Scorer", Classifier.load(path or DEFAULT_BUNDLE, threads=threads))


def make_topics(
    examples: Mapping[str, Sequence[str]],
    embed: Embed,
    threshold: float,
    replace: bool,
) -> OwnTopics:
    """Make prototypes of the operator's topics. Raises ValueError, one sentence."""
    from classifiers.topics import PrototypeTopics  # noqa: PLC0415

    return cast("OwnTopics", PrototypeTopics(examples, embed, threshold, replace=replace))


class Model:
    """The classifier as the monitor sees it. `configure` loads; `score` may raise anything."""

    def __init__(
        self, log: Logger, open_bundle: Open = open_bundle, make_topics: MakeTopics = make_topics
    ) -> None:
        self.state: State = "loading"
        self.version = ""
        self.topics: tuple[str, ...] = TOPICS
        self._log = log
        self._open = open_bundle
        self._make_topics = make_topics
        self._scorer: Scorer | None = None
        self._own: OwnTopics | None = None

    def configure(self, config: Config) -> None:
        """Load, load again, or switch off, and take the operator's topics. Never raises; takes a second."""
        section = config.classifier
        if not section.enabled:
            self._scorer, self._own, self.state, self.version = None, None, "off", ""
            return
        where = str(section.bundle) if section.bundle else "the default bundle"
        try:
            scorer = self._open(section.bundle, section.threads)
        except Exception as error:  # noqa: BLE001 - foreign loaders raise anything; it ends here as a state
            self._failed(where, error)
        else:
            self._scorer, self.state, self.version = scorer, "ready", scorer.version
            self._log.info("classifier loaded", bundle=where, version=scorer.version)
        if self._scorer is not None:
            self._take_topics(config, self._scorer)

    def score(self, items: Sequence[tuple[str, str]]) -> list[TextScores]:
        """Score (prompt, response) pairs, in order. Only while `state` is ready."""
        assert self._scorer is not None
        return [self._neutral(scores) for scores in self._scorer.score(items)]

    def _neutral(self, scores: Scores) -> TextScores:
        topic, p_topic = scores.topic_label, max(scores.topic, default=0.0)
        if self._own is not None:
            builtin, topic = topic, self._own.label(scores.embedding, topic, scores.topic)
            if topic in self._own.names:  # no probability is known for it; its similarity orders alike
                similarity = self._own.similarities(scores.embedding)[self._own.names.index(topic)]
                p_topic = min(1.0, max(0.0, float(similarity)))
            elif topic != builtin:
                p_topic = 0.0
        return TextScores(
            outcome=cast("Outcome", scores.outcome_label),
            p_outcome=dict(zip(OUTCOMES[:3], scores.outcome, strict=True)),
            prompt_class=cast("PromptClass", scores.prompt_class_label),
            p_prompt_class=dict(zip(PROMPT_CLASSES, scores.prompt_class, strict=True)),
            topic=topic if topic in self.topics else OTHER,
            p_topic=p_topic,
        )

    def _take_topics(self, config: Config, scorer: Scorer) -> None:
        self._own, self.topics = None, TOPICS
        if not config.topics and not config.replace_topics:
            return
        examples = {topic.name: topic.examples for topic in config.topics}
        try:
            own = self._make_topics(examples, scorer.embed, config.topic_threshold, config.replace_topics)
        except Exception as error:  # noqa: BLE001 - the embedding runs foreign code
            problem = str(error) if isinstance(error, ValueError) else place(error)
            self._log.error("own topics not usable", error=problem, effect="the built-in topics stand")
        else:
            self._own = own
            self.topics = (*own.names, *((OTHER,) if config.replace_topics else TOPICS))

    def _failed(self, where: str, error: Exception) -> None:
        # A BundleError is one sentence of ours that names the file; anything else may quote what it read.
        ours = type(error).__name__ == "BundleError"
        kept = self._scorer is not None
        if not kept:
            self.state, self.version = "unavailable", ""
        self._log.error(
            "classifier not loaded",
            bundle=where,
            error=str(error) if ours else place(error),
            effect="the bundle loaded before goes on" if kept else "only native signals are scored",
        )

"""Which public sources are read, what their labels are worth, and how their topics become ours.

One table row a source (style 3). `clean` sources train the shipped weights; the others (non-commercial
or unstated licences) are only ever measured on. Weights follow who labelled: a person or a judge counts
fully; a keyword rule says only what a regular expression knows, so its rows are few and light. The
licences are those of ../shared/data/MANIFEST.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the training data: its licence and how far its labels are trusted (0 to 1)."""

    name: str
    licence: str
    clean: bool = True
    trust: float = 1.0
    cap: int = 100_000  # at most so many labelled responses, judged ones before keyword ones


RESPONSES: Final = (
    Source("adv_training_refusals", "MIT", trust=0.8),
    Source("arena_hard", "Apache-2.0", cap=500),
    Source("chatgpt_refusals", "MIT"),
    Source("coconot", "MIT", trust=0.8, cap=1500),
    Source("dual_roberta", "MIT"),
    Source("gptfuzz_labelled", "MIT", cap=700),
    Source("hh_harmless", "MIT"),
    Source("oasst_model_eval", "Apache-2.0", cap=500),
    Source("orbench_llama", "Apache-2.0", cap=900),
    Source("speechmap_criticism", "Apache-2.0", cap=1300),
    Source("speechmap_us_hard", "Apache-2.0", cap=500),
    Source("alpaca_eval", "CC-BY-NC-4.0", clean=False),
    Source("orbench_small_models", "unstated", clean=False),
    Source("refusal_direction", "CC-BY-NC-4.0", clean=False),
    Source("saferlhf_mini", "CC-BY-NC-4.0", clean=False),
    Source("safety_tuned", "CC-BY-NC-4.0", clean=False),
)
PROMPTS: Final = (
    Source("aart", "CC-BY-4.0", trust=0.8),
    Source("advbench", "MIT"),
    Source("arena_hard_topics", "Apache-2.0", trust=0.7),
    Source("banking77", "CC-BY-4.0"),
    Source("bench_questions", "Apache-2.0"),
    Source("catqa_harmfulqa", "Apache-2.0", trust=0.7),
    Source("clinc150", "CC-BY-3.0"),
    Source("coconot", "MIT"),
    Source("counsel_chat", "MIT", trust=0.7),
    Source("cyberseceval_frr", "MIT"),
    Source("cyberseceval_instruct", "MIT"),
    Source("cyberseceval_mitre", "MIT"),
    Source("dual_roberta", "MIT"),
    Source("gptfuzz_questions", "MIT"),
    Source("gsm8k", "MIT"),
    Source("harmbench", "MIT"),
    Source("mbpp", "CC-BY-4.0"),
    Source("medquad", "CC-BY-4.0"),
    Source("mmlu", "MIT"),
    Source("moderation_self_harm", "MIT"),
    Source("oasst_prompts", "Apache-2.0"),
    Source("orbench", "Apache-2.0", trust=0.8),
    Source("simple_safety_tests", "CC-BY-4.0"),
    Source("simpleqa", "MIT"),
    Source("speechmap_questions", "Apache-2.0", trust=0.8),
    Source("strongreject", "MIT"),
    Source("tdc_malicious", "MIT", trust=0.8),
    Source("alpaca_instructions", "CC-BY-NC-4.0", clean=False),
    Source("bio_overrefusal", "CC-BY-NC-SA-4.0", clean=False),
    Source("codealpaca", "CC-BY-NC-4.0", clean=False),
    Source("curai_medical", "unstated", clean=False),
    Source("cybermetric", "unstated", clean=False),
    Source("learned_hands", "CC-BY-NC-SA-4.0", clean=False),
    Source("oktest", "unstated", clean=False),
    Source("writing_prompts", "unstated", clean=False),
)

LABELLER_WEIGHT: Final = {"human": 1.0, "llm": 1.0, "by_construction": 0.8, "keyword": 0.4}
OUTCOME_OF: Final = {"none": "answer", "partial": "partial_refusal", "full": "full_refusal"}

_TOPIC_OF: Final = {
    "political": "politics",
    "creative": "creative_writing",
    "code": "coding",
    "other": "everyday",
    "illegal": "violence_crime",
    "violence": "violence_crime",
    "fraud": "violence_crime",
    "hate": "hate_identity",
}

# A source's own category, where it says more than the manifest's topic. First match wins; None = unlabelled.
_CATEGORY_RULES: Final[tuple[tuple[str, str, str | None], ...]] = (
    ("harmbench", r"chemical_biological", "chemistry_biology"),
    ("harmbench", r"^illegal$|^harmful$", None),
    ("catqa", r"/ Weapon", "weapons"),
    ("catqa", r"/ Cybercrime", "security"),
    ("catqa", r"/ Self-harm", "self_harm"),
    ("catqa", r"Emotional and psych|/ Neglect|Physical abuse|Terrorism|Gender-based", "violence_crime"),
    ("catqa", r"Hazardous material", "chemistry_biology"),
    ("catqa", r"Unsafe practices|dangerousqa|harmfulqa|Nude imagery|humor", None),
    ("catqa", r"Deepfake", None),
    ("catqa", r"Political misinformation", "misinformation"),
    ("aart", r"hate crimes|motivated by", "hate_identity"),
    ("aart", r"bombings", "weapons"),
    ("aart", r"cyberterror", "security"),
    ("aart", r"water contam|drug manuf", "chemistry_biology"),
    ("aart", r"identity theft|tax evasion|rape|prostitution|^drug abuse|political or ideol", None),
    ("aart", r"", "violence_crime"),
    ("mmlu", r"high_school_(biology|chemistry)", "chemistry_biology"),
    ("mmlu", r"virology|medical_genetics|machine_learning", None),
    ("clinc150", r"^(yes|no|maybe|repeat|cancel|change_\w+|whisper_mode|reset_settings|user_name)$", "other"),
    ("clinc150", r"^(income|direct_deposit|payday|exchange_rate)$", "finance"),
    ("clinc150", r"^(definition|spelling|translate|vaccines|insurance\w*|are_you_a_bot)$", None),
    ("counsel_chat", r"self-harm|suicid", "self_harm"),
    ("counsel_chat", r"legal-regulatory|professional-ethics|domestic-violence|intimacy|lgbtq", None),
    ("speechmap_questions", r"Race, Eth|Gender Roles|Sexuality &|Xenophobia", "hate_identity"),
    (
        "speechmap_questions",
        r"Conspiracy|Space|Ethics \(|Science, Tech|Health, Bio|Sex Topics|Religion",
        None,
    ),
    ("strongreject", r"Illegal goods", "violence_crime"),
    ("simple_safety", r"Child safety", "sexual"),
    ("orbench", r"deception", None),
)

# Weapons and chemistry have almost no source of their own; inside sources that are about risk anyway,
# the words of the prompt refine the topic of TRAINING rows. Nothing of this exists at run time.
_RISK_SOURCES: Final = (
    *("orbench", "advbench", "strongreject", "tdc_malicious", "gptfuzz_questions", "simple_safety_tests"),
    *("harmbench", "catqa_harmfulqa", "coconot"),
)
_WORD_RULES: Final = (
    ("weapons", r"\b(guns?|firearms?|rifles?|pistols?|ammunition|bombs?|explosives?|grenades?|weapons?)\b"),
    ("self_harm", r"\b(suicid\w+|self[- ]harm\w*|kill myself|anorexi\w+|bulimi\w+)\b"),
    (
        "chemistry_biology",
        r"\b(nerve agent|toxins?|pathogens?|poison\w*|chemicals?|meth|napalm|virus strain)\b",
    ),
    ("security", r"\b(hack\w*|malware|phishing|ransomware|keylogger|ddos|passwords?|exploit code)\b"),
)


def topic_of(source: str, topic: str | None, category: str | None, prompt: str) -> str | None:
    """Map a manifest row's topic and own category to one of DESIGN's topics; None leaves it unlabelled."""
    for prefix, pattern, ours in _CATEGORY_RULES:
        if source.startswith(prefix) and re.search(pattern, category or ""):
            topic = ours
            break
    else:
        topic = _TOPIC_OF.get(topic, topic) if topic else None
    if source in _RISK_SOURCES and topic in {None, "violence_crime", "chemistry_biology"}:
        for ours, pattern in _WORD_RULES:
            if re.search(pattern, prompt, re.IGNORECASE):
                return ours
    return topic


def prompt_class_of(source: str, harm: str | None, category: str | None) -> str | None:
    """Map a manifest row's harm to a prompt class by DESIGN §2, where ordinary topics are benign.

    The manifest calls all of counsel_chat sensitive and leaves real technical and political questions
    open; the rubric says that ordinary medical and political questions are benign.
    """
    category = category or ""
    if source == "counsel_chat":
        touches = r"self-harm|violence|trauma|substance|eating|addiction|anger"
        return "sensitive" if re.search(touches, category) else "benign" if category != "depression" else None
    if source == "speechmap_questions":
        return "benign" if category.endswith("_criticism") else None
    if source == "arena_hard_topics":
        return "benign"  # technical and creative requests of real users, not vetted one by one
    if source == "coconot" and category.startswith("original") and "wildchats" not in category:
        return harm if re.search(r"dangerous|offen", category) else None
    return harm

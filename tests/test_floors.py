"""The house: a file imports only from its own floor or a lower one, and the data side stays lean."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from classifiers import runtime
from proxy.words import verdict

ROOT = Path(__file__).parents[1]
FLOORS = ("words", "pure", "resources", "flows", "assembly")
# What a worker must never carry: the classifier and what it needs, and the configuration's machinery.
FORBIDDEN_IN_A_WORKER = {
    "classifiers",
    "numpy",
    "onnxruntime",
    "tokenizers",
    "pydantic",
    "prometheus_client",
    "structlog",
    "rich",
}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("floor", FLOORS)
def test_a_file_imports_only_from_its_own_floor_or_a_lower_one(floor: str) -> None:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    for path in (ROOT / "proxy" / floor).rglob("*.py"):
        wrong = {name for name in imports(path) if name.startswith(tuple(f"proxy.{one}" for one in above))}
        assert not wrong, f"{path} imports {wrong}"


def test_the_two_flows_never_import_each_other() -> None:
    assert not imports(ROOT / "proxy/flows/monitor.py") & {"proxy.flows.forward", "proxy.flows.relay"}
    for name in ("forward", "relay"):
        assert "proxy.flows.monitor" not in imports(ROOT / f"proxy/flows/{name}.py")


def test_the_classifiers_never_import_the_proxy() -> None:
    for path in (ROOT / "classifiers").rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "proxy"], path


def test_the_pure_floor_has_no_io_no_clock_and_no_randomness() -> None:
    banned = {"asyncio", "socket", "time", "random", "os", "subprocess", "logging", "structlog", "threading"}
    for path in (ROOT / "proxy/pure").rglob("*.py"):
        runtime = _runtime_imports(path)
        assert not runtime & banned, f"{path} imports {runtime & banned}"


def test_a_worker_carries_neither_the_classifier_nor_the_configuration() -> None:
    script = "import sys, proxy.assembly.worker; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not set(loaded.stdout.split()) & FORBIDDEN_IN_A_WORKER


def test_no_file_grows_past_what_one_can_hold_in_the_head() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for part in ("proxy", "classifiers", "tests")
        for path in (ROOT / part).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 500
    }
    assert not long


def _runtime_imports(path: Path) -> set[str]:
    """Top-level names imported outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    tree.body = [
        node
        for node in tree.body
        if not (
            isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        )
    ]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_the_classifiers_words_are_the_proxys() -> None:
    """Two lists on purpose (neither imports the other), one meaning."""
    assert runtime.TOPICS == verdict.TOPICS
    assert verdict.OUTCOMES[:3] == runtime.OUTCOMES
    assert runtime.PROMPT_CLASSES == verdict.PROMPT_CLASSES

"""The command line: one sentence and exit status 2 for whatever is wrong."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import __version__


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


BAD = {
    "no command": ((), "the following arguments are required: COMMAND"),
    "an unknown command": (("fly",), "invalid choice: 'fly'"),
    "an unknown flag": (("serve", "--wrokers", "2"), "unrecognized arguments: --wrokers 2"),
    "no upstream": (("serve",), "no upstream: give --upstream URL"),
    "an upstream that is no URL": (("serve", "--upstream", "nope"), "expected an http:// or https:// URL"),
    "a number that is none": (("serve", "--upstream", "http://x", "--workers", "x"), "workers"),
    "a missing file": (("serve", "--config", "/nowhere.toml"), "cannot read the configuration /nowhere.toml"),
    "a missing file to check": (("check-config", "/nowhere.toml"), "cannot read the configuration"),
    "an address of another machine": (
        ("serve", "--upstream", "http://x", "--listen", "192.0.2.1:80"),
        "cannot listen on 192.0.2.1:80",
    ),
}


@pytest.mark.parametrize(("arguments", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_exit_status_2(arguments: tuple[str, ...], sentence: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run(
            "serve", "--upstream", "http://127.0.0.1:1", "--listen", address, "--admin", "127.0.0.1:0"
        )
    assert result.returncode == 2
    assert result.stderr == f"refusal-proxy: cannot listen on {address}: Address already in use\n"


def test_a_temporary_folder_with_too_long_a_name_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    result = run(
        "serve", "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"
    )
    assert result.returncode == 2
    assert "see TMPDIR" in result.stderr
    assert result.stderr.count("\n") == 1


def test_check_config_says_ok_and_names_the_routes(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[[routes]]\nname = "a"\nupstream = "https://api.test"\n')
    result = run("check-config", str(path))
    assert (result.returncode, result.stdout) == (0, f"{path}: ok; routes: a -> https://api.test\n")


def test_version_is_the_packages() -> None:
    assert run("--version").stdout == f"refusal-proxy {__version__}\n"


def test_help_names_every_command() -> None:
    text = run("--help").stdout
    assert all(command in text for command in ("serve", "check-config", "demo"))

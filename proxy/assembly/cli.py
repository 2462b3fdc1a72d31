"""The command line. Bad input is one sentence on standard error and exit status 2; the rest says 0 or 1.

Each command is a function from its parsed arguments to an exit status; what a command needs is imported when
it runs, so that `--help` is quick and a broken optional part cannot take the others with it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from proxy import __version__
from proxy.words.errors import ConfigError

Command = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """argparse, but an error is one sentence instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="refusal-proxy",
        description="Passes LLM traffic through untouched and tells Prometheus how often the model refuses.",
    )
    parser.add_argument("--version", action="version", version=f"refusal-proxy {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="run the proxy", description="Run the proxy until SIGTERM.")
    serve.add_argument("--upstream", metavar="URL", help="the API behind, for example https://api.openai.com")
    serve.add_argument("--listen", metavar="HOST:PORT", help="where clients connect (127.0.0.1:8080)")
    serve.add_argument("--admin", metavar="HOST:PORT", help="metrics and health (127.0.0.1:9090)")
    serve.add_argument("--workers", metavar="N", help="worker processes (one a core, less one)")
    serve.add_argument("--config", metavar="FILE", type=Path, help="TOML file, see docs/config.md")
    serve.set_defaults(run=_serve)

    check = commands.add_parser(
        "check-config", help="check a configuration file", description="Check a configuration file."
    )
    check.add_argument("file", metavar="FILE", type=Path)
    check.set_defaults(run=_check_config)

    classify = commands.add_parser(
        "classify",
        help="verdicts for a file of exchanges",
        description="Read exchanges as JSONL or Parquet, write each with its verdict, in the same order.",
    )
    _classify_arguments(classify)
    classify.set_defaults(run=_classify)

    demo = commands.add_parser(
        "demo",
        help="watch the proxy in front of a bundled scripted chatbot",
        description="The real proxy in front of a bundled scripted chatbot, with traffic and a live table.",
    )
    _demo_arguments(demo)
    demo.set_defaults(run=_demo)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    run: Command = options.run
    try:
        return run(options)
    except ConfigError as error:
        print(f"refusal-proxy: {error}", file=sys.stderr)  # noqa: T201 - a command line's own voice
        return 2
    except KeyboardInterrupt:
        return 130


def _serve(options: argparse.Namespace) -> int:
    from proxy.assembly.supervisor import Supervisor  # noqa: PLC0415
    from proxy.words.config import load  # noqa: PLC0415

    overrides: dict[str, Any] = {
        key: value
        for key in ("upstream", "listen", "admin", "workers")
        if (value := getattr(options, key)) is not None
    }
    config = load(options.config, overrides)

    async def run() -> int:
        return await Supervisor(config, options.config, overrides).run()

    return asyncio.run(run())


def _check_config(options: argparse.Namespace) -> int:
    from proxy.words.config import load  # noqa: PLC0415

    config = load(options.file)
    routes = ", ".join(f"{route.name} -> {route.upstream}" for route in config.all_routes)
    print(f"{options.file}: ok; routes: {routes}")  # noqa: T201 - the command's answer
    return 0


def _classify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="FILE", nargs="?", default="-", help="JSONL or Parquet; - is JSONL")
    parser.add_argument("--out", metavar="FILE", default="-", help="JSONL or Parquet; - is JSONL")
    parser.add_argument("--bundle", metavar="FOLDER", type=Path, help="another classifier bundle")


def _classify(options: argparse.Namespace) -> int:
    from proxy.assembly.classify import run  # noqa: PLC0415

    return run(options.input, options.out, options.bundle)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    from proxy.assembly.demo import add_arguments  # noqa: PLC0415

    add_arguments(parser)


def _demo(options: argparse.Namespace) -> int:
    from proxy.assembly.demo import run  # noqa: PLC0415

    return run(options)


if __name__ == "__main__":
    sys.exit(main())

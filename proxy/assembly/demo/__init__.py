"""`refusal-proxy demo`: the real serve in front of a scripted chatbot, with clients and a live table.

    clients ─► refusal-proxy serve (a child process: supervisor, workers, monitor) ─► scripted chatbot
       └──────────── the table reads /metrics of the admin port, and nothing else ────────────┘

The command line imports this file at each start, so the rest is imported when the demo runs.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's own flags."""
    parser.add_argument("--once", action="store_true", help="each prompt once, then a summary, then the end")
    parser.add_argument("--port", metavar="N", type=_port, default=0, help="where clients connect (any free)")
    parser.add_argument("--admin-port", metavar="N", type=_port, default=0, help="metrics (any free)")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, not {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Run until Ctrl-C, SIGTERM or SIGHUP, or with `--once` until the summary. Returns the exit status."""
    from proxy.assembly.demo.stage import show  # noqa: PLC0415 - see above

    return show(once=options.once, port=options.port, admin_port=options.admin_port)

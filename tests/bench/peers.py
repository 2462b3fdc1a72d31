"""What is measured: one table. Each peer is started afresh for every round."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

from tests.bench.machine import Processes, child_that_runs, free_port, pin, tree

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
PATH: Final = "/v1/chat/completions"
START_S: Final = 60.0
OURS, BARE, DIRECT = "refusal-proxy", "bare-aiohttp", "direct"

NGINX: Final = """daemon off; user root; worker_processes 1;
pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; tcp_nodelay on; client_body_temp_path {folder}/b;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; client_max_body_size 0;
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_buffering off; proxy_read_timeout 600s; }} }}
}}
"""
# {python} {here} {folder} {port} {admin} {upstream} (a port) are filled in. None: the upstream itself.
COMMANDS: Final[dict[str, str | None]] = {
    DIRECT: None,
    BARE: "{python} {here}/bare_aiohttp.py http://127.0.0.1:{upstream} {port}",
    OURS: "{python} -m proxy serve --upstream http://127.0.0.1:{upstream} --listen 127.0.0.1:{port} "
    "--admin 127.0.0.1:{admin} --workers 1",
    "nginx": "nginx -p {folder} -c {folder}/nginx.conf",
}
ENVIRONMENT: Final = {
    "PYTHONPATH": str(ROOT),
    "REFUSAL_PROXY_TIMEOUTS__DRAIN_S": "1",  # nobody waits for a benchmark's streams
}


def installed() -> list[str]:
    return [name for name in COMMANDS if name != "nginx" or shutil.which("nginx")]


@dataclass
class Peer:
    """One running proxy. `worker` is the process whose CPU and memory count; `others` help it."""

    name: str
    port: int
    admin: int = 0
    process: subprocess.Popen[str] | None = None
    worker: int | None = None
    others: list[int] = field(default_factory=list)

    def fetch(self, *, stream: bool, chunks: int = 20) -> tuple[int, str, bool]:
        """One request: (status, SHA-256 of the body, whether the upstream's request id came along)."""
        body = {"model": f"mock-{chunks}-1000-0", "messages": [{"role": "user", "content": "Hello"}]}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(
                "POST",
                PATH,
                json.dumps(body | ({"stream": True} if stream else {}), separators=(",", ":")),
                {"Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            digest = hashlib.sha256(answer.read()).hexdigest()
            return answer.status, digest, answer.getheader("x-request-id") == "req-bench"
        finally:
            connection.close()

    def monitored(self) -> dict[str, Any]:
        """What our own /metrics say of the monitoring side."""
        return _summary(_scrape(self.admin))


def start(
    name: str, processes: Processes, folder: Path, *, upstream: int, core: int, helpers: int, nice: int
) -> Peer:
    """Start a peer with its worker on `core` and whatever else it has on `helpers`; wait until it answers."""
    command = COMMANDS[name]
    if command is None:
        return Peer(name, upstream)
    folder.mkdir(exist_ok=True)
    peer = Peer(name, free_port(), free_port())
    names = {
        "python": sys.executable,
        "here": HERE,
        "folder": folder,
        "port": peer.port,
        "admin": peer.admin,
        "upstream": upstream,
    }
    (folder / "nginx.conf").write_text(NGINX.format(**names))
    with (folder / "log").open("ab") as log:
        peer.process = processes.start(
            [part.format(**names) for part in command.split()],
            core,
            nice=nice,
            output=log,
            errors=log,
            environment={**ENVIRONMENT, "TMPDIR": str(folder)},
        )
    end = time.monotonic() + START_S
    while not _answers(peer):
        if peer.process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{name} did not start: {(folder / 'log').read_text()[-600:]}")
        time.sleep(0.05)
    peer.worker = peer.process.pid
    if name == OURS:
        peer.worker = child_that_runs(peer.process.pid, "proxy.assembly.worker")
        while peer.monitored()["classifier"] == "loading" and time.monotonic() < end:
            time.sleep(0.1)
    elif name == "nginx":
        peer.worker = tree(peer.process.pid)[-1]
    peer.others = [pid for pid in tree(peer.process.pid) if pid != peer.worker]
    for pid in peer.others:
        pin(pid, helpers)
    return peer


def _answers(peer: Peer) -> bool:
    try:
        return peer.fetch(stream=False)[0] == 200 and (peer.name != OURS or bool(_scrape(peer.admin)))
    except (OSError, http.client.HTTPException):
        return False


def _scrape(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def _summary(text: str) -> dict[str, Any]:
    info = next((labels for name, labels, _ in _samples(text) if name == "refusal_classifier_info"), {})
    summed = {"scored": "refusal_exchanges_total", "dropped": "refusal_captures_dropped_total"}
    unscored = {
        labels["cause"]: value
        for name, labels, value in _samples(text)
        if name == "refusal_unscored_total" and value
    }
    return {
        "classifier": info.get("state", "?"),
        "bundle": info.get("version", "?"),
        "unscored": unscored,
        **{
            key: sum(value for name, _, value in _samples(text) if name == metric)
            for key, metric in summed.items()
        },
    }


def _samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for line in text.splitlines():
        if found := re.fullmatch(r"(\w+)\{(.*)\} ([-+.\w]+)", line):
            yield found[1], dict(re.findall(r'(\w+)="([^"]*)"', found[2])), float(found[3])

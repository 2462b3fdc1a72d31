"""Keep-alive connections to one upstream, and how new ones are made.

The system's errors are translated here, once. Connecting includes the name's resolution and the TLS
handshake; all of it has to fit into one time-out.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import NamedTuple

from proxy.resources.upstream import Connection, UpstreamError
from proxy.words.plan import RoutePlan


class PoolBounds(NamedTuple):
    """Seconds to connect, seconds that an idle connection is kept, bytes of a response's head."""

    connect_s: float = 10.0
    keepalive_s: float = 4.0
    head_bytes: int = 64 << 10


_DEFAULT = PoolBounds()


class Pool:
    """Keep-alive connections to one upstream. No limit on open ones: the upstream's is the only limit."""

    def __init__(self, route: RoutePlan, bounds: PoolBounds = _DEFAULT) -> None:
        self._route = route
        self.authority = route.authority.encode("latin-1")  # once, not for every request
        self._idle: deque[Connection] = deque()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.adapt(bounds)

    def _trust(self) -> None:
        """Read the authorities to trust; the file may have been renewed under the same name."""
        self._tls: ssl.SSLContext | None = None
        self._tls_fault = ""
        try:
            self._tls = _tls(self._route)
        except OSError as error:  # a CA file that is none: this route's requests fail, the others go on
            self._tls_fault = type(error).__name__

    def adapt(self, bounds: PoolBounds) -> None:
        """Take new bounds and read the authorities again; the connections stay."""
        self._bounds = bounds
        self.head_bytes = bounds.head_bytes
        self._trust()

    def get(self) -> Connection | None:
        """A live idle connection, the most recently used first, or None."""
        oldest = self._loop.time() - self._bounds.keepalive_s
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= oldest and connection.usable():
                return connection
            connection.transport.abort()
        return None

    def put(self, connection: Connection) -> None:
        if self._closed:
            connection.transport.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self) -> None:
        """Close what has been idle for too long; called about once a second."""
        oldest = self._loop.time() - self._bounds.keepalive_s
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.popleft().transport.abort()

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().transport.abort()

    async def connect(self) -> Connection:
        """A fresh connection. Raises UpstreamError."""
        route = self._route
        if self._tls_fault:
            raise UpstreamError("tls", self._tls_fault)
        try:
            async with asyncio.timeout(self._bounds.connect_s):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop, self),
                    route.host,
                    route.port,
                    ssl=self._tls,
                    server_hostname=route.host if self._tls else None,
                )
        except TimeoutError:
            raise UpstreamError("connect_timeout", f"{self._bounds.connect_s:g} s") from None
        except (OSError, UnicodeError) as error:
            raise _translate(error) from None
        return connection


def _tls(route: RoutePlan) -> ssl.SSLContext | None:
    if route.scheme != "https":
        return None
    context = ssl.create_default_context(cafile=route.ca_file or None)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _translate(error: OSError | UnicodeError) -> UpstreamError:
    """The one place where the system's errors become ours."""
    if isinstance(error, UnicodeError):  # a name that IDNA cannot encode
        return UpstreamError("dns", type(error).__name__)
    if isinstance(error, socket.gaierror):
        return UpstreamError("dns", error.strerror or "")
    if isinstance(error, ssl.SSLError):
        return UpstreamError("tls", error.reason or "")
    if isinstance(error, ConnectionRefusedError):
        return UpstreamError("connect_refused")
    return UpstreamError("connect_failed", error.strerror or type(error).__name__)

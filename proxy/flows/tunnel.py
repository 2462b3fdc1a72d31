"""A websocket after its 101: both ends' bytes pass unread until one of them closes.

Takes the relay's place at both connections (the upstream's `Receiver`, the client's `Watcher`, and aiohttp's
payload parser, which gets the bytes that follow the request). Back-pressure works both ways; there is no
time-out, because silence is normal here: TCP keep-alive finds a peer that is dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.resources.downstream import ClientProtocol
from proxy.resources.upstream import Connection, Head, UpstreamError


class Tunnel:
    """Calls `ended` once, when both ends are closed or closing."""

    __slots__ = ("_client", "_connection", "_ended", "_fault", "_protocol", "_stalled")

    def __init__(
        self,
        protocol: ClientProtocol,
        client: asyncio.Transport,
        connection: Connection,
        ended: Callable[[], None],
        fault: Callable[[BaseException], None],
    ) -> None:
        self._protocol = protocol
        self._client = client
        self._connection: Connection | None = connection
        self._ended = ended
        self._fault = fault
        self._stalled = False

    def open(self) -> None:
        """From now on the bytes come here; those that the client sent ahead come at once."""
        assert self._connection is not None
        self._connection.receiver = self
        self._protocol.watcher = self
        self._protocol.set_parser(self)  # type: ignore[arg-type] # has the two methods that are called

    def close(self) -> None:
        """Close both ends; what has been passed on already still goes out."""
        connection = self._connection
        if connection is None:
            return
        self._connection = None
        connection.receiver = None
        if connection.paused_writing:  # an upstream that does not read gets no last words
            connection.transport.abort()
        else:
            connection.transport.close()
        self._client.close()
        self._ended()

    # --- from the client

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        connection = self._connection
        if connection is not None:
            connection.write(bytes(data))
            if connection.paused_writing:
                self._client.pause_reading()
        return False, b""

    def feed_eof(self) -> None:
        return None

    def client_resumed(self) -> None:
        if self._stalled and self._connection is not None:
            self._stalled = False
            self._connection.transport.resume_reading()

    def client_left(self) -> None:
        self.close()

    def client_gone(self) -> None:
        self.close()

    # --- from the upstream

    def tunnelled(self, data: bytes) -> None:
        self._client.write(data)
        if self._protocol.writing_paused and self._connection is not None:
            self._stalled = True
            self._connection.transport.pause_reading()

    def upload_resumed(self) -> None:
        self._client.resume_reading()

    def failed(self, error: UpstreamError) -> None:
        self.close()

    def faulted(self, error: Exception) -> None:
        self._fault(error)
        self.close()

    def interim(self, head: Head) -> None:
        return None

    def received(self, head: Head | None, parts: list[bytes], ended: bool) -> None:
        return None

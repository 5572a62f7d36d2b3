"""What the messages of all WebSockets together may take.

Uvicorn bounds one message. A connection can have several: one that has not all come, some that
wait for the app, the one that the app works on, and one that the client does not take. A wrapper of
the app would see the third alone, so they are counted where uvicorn keeps them.
"""

import asyncio
import sys
from typing import Any, ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# What Python adds to a message, most of it a dictionary.
MESSAGE_BYTES = 300
TRY_AGAIN_LATER = 1013


def size(message: Any) -> int:  # noqa: ANN401
    """Return the memory of a message, whose characters may take four bytes each."""
    parts = (message.get("text"), message.get("bytes"))
    return MESSAGE_BYTES + sum(sys.getsizeof(part) for part in parts if part)


class Waiting(asyncio.Queue[Any]):
    """A queue that knows what its messages take."""

    held = 0

    def _put(self, item: Any) -> None:  # noqa: ANN401
        self.held += size(item)
        super()._put(item)

    def _get(self) -> Any:  # noqa: ANN401
        item = super()._get()
        self.held -= size(item)
        return item


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Ends the connection that holds most, when all together hold too much.

    One that is quiet, as nearly all are nearly always, holds nothing.
    """

    memory: ClassVar[int]
    total: ClassVar[int] = 0
    holders: ClassVar[set["BoundedWebSocket"]] = set()

    held = 0
    in_hand = 0

    def __init__(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **keywords)
        self.queue = self.waiting = Waiting()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._count()

    async def receive(self) -> Any:  # noqa: ANN401
        self.in_hand = 0
        self._count()
        message = await super().receive()
        self.in_hand = size(message)
        return message

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._hold(0)

    def _count(self) -> None:
        if self.transport.is_closing():
            return
        held = self.waiting.held + self.in_hand + self.transport.get_write_buffer_size()
        held += len(self.conn.reader.buffer)
        held += sum(len(frame) + MESSAGE_BYTES for frame in self.frames)
        self._hold(held)
        while self.total > self.memory:
            max(self.holders, key=lambda holder: holder.held).give_up()

    def _hold(self, held: int) -> None:
        BoundedWebSocket.total += held - self.held
        self.held = held
        (self.holders.add if held else self.holders.discard)(self)

    def give_up(self) -> None:
        """Let go of all that this one holds."""
        self._hold(0)
        if self.handshake_complete and not self.close_sent:
            self.conn.fail(TRY_AGAIN_LATER, "Too many messages at once.")
            self.handle_parser_exception()
        self.frames = []
        self.conn.reader.buffer.clear()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # who takes no message would not take this end either

"""A TCP proxy in front of PostgreSQL's socket that can stop forwarding without closing anything."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

HOST = "127.0.0.1"
BLOCK_BYTES = 1 << 16


class StallingProxy:
    """Forwards both ways; while it stalls, it keeps connections and bytes and forwards neither.

    Runs in a thread of its own; `stalling_proxy` makes it.
    """

    def __init__(self, socket_path: str) -> None:
        self.port = 0
        self._socket_path = socket_path
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()

    def stall(self) -> None:
        """Hold back whatever comes from now on."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def resume(self) -> None:
        """Forward what was held back, and all that follows."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def run(self, is_ready: threading.Event) -> None:
        """Serve until `close`."""
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, HOST, 0))
        self.port = server.sockets[0].getsockname()[1]
        is_ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def close(self) -> None:
        """End `run`, if it has not ended: who connects afterwards is refused."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket_path)
        await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while block := await reader.read(BLOCK_BYTES):
                await self._flows.wait()
                writer.write(block)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@contextmanager
def stalling_proxy(socket_path: str) -> Iterator[StallingProxy]:
    """A proxy on a loopback port to a unix socket while the block lasts."""
    proxy, is_ready = StallingProxy(socket_path), threading.Event()
    thread = threading.Thread(target=proxy.run, args=(is_ready,), daemon=True)
    thread.start()
    assert is_ready.wait(10)
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(10)

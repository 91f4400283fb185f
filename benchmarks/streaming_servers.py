"""The servers that `streaming` starts: ours, and others that send lines from memory to all clients."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

TOKEN = os.environ.get("ASYNCRUNNER_SERVE_TOKEN", "")
QUEUE = 4096


async def ours(path: Path, listening: socket.socket, unix: socket.socket) -> None:
    """Serve the runs in a folder."""
    from asyncrunner.cli.serve import views
    from asyncrunner.streaming.server import serve

    await serve(listening, path, unix=unix, views=views(), token=TOKEN, until=anyio.Event())


async def sse_starlette(path: Path, listening: socket.socket, unix: socket.socket) -> None:
    """Send lines with sse-starlette: a bounded queue for each client, which loses nothing."""
    import uvicorn

    responses: Any = import_module("sse_starlette.sse")  # perhaps not installed, so without types
    starlette: Any = import_module("starlette.applications")
    routing: Any = import_module("starlette.routing")

    lines = _lines(path)
    queues: list[asyncio.Queue[tuple[int, str]]] = []

    async def events(queue: "asyncio.Queue[tuple[int, str]]") -> AsyncGenerator[dict[str, Any]]:
        yield {"comment": "begun"}
        while True:
            seq, line = await queue.get()
            yield {"id": f"0.{seq}", "data": line}

    async def answer(request: Any) -> Any:
        queues.append(queue := asyncio.Queue(QUEUE))
        return responses.EventSourceResponse(events(queue))

    async def feed() -> None:
        await asyncio.to_thread(sys.stdin.buffer.readline)
        for numbered in enumerate(lines):
            for queue in queues:
                await queue.put(numbered)

    app = starlette.Starlette(routes=[routing.Route("/", answer)])
    config = uvicorn.Config(app, log_level="error", lifespan="off", loop="asyncio")
    await asyncio.gather(uvicorn.Server(config).serve([listening]), feed())


async def websockets(path: Path, listening: socket.socket, unix: socket.socket) -> None:
    """Send lines with `broadcast`, which has no bound: so it rests as soon as a client is behind."""
    from websockets.asyncio.server import broadcast, serve

    lines = _lines(path)
    clients: set[ServerConnection] = set()

    async def follow(client: "ServerConnection") -> None:
        clients.add(client)
        await client.wait_closed()

    async with serve(follow, sock=listening, compression=None):
        await asyncio.to_thread(sys.stdin.buffer.readline)
        for number, line in enumerate(lines):
            broadcast(clients, line)
            if number % 64 == 0:
                await asyncio.sleep(0)
                while _is_behind(clients):  # noqa: ASYNC110  # nothing tells that it is not
                    await asyncio.sleep(0.001)
        await asyncio.Event().wait()


async def streams(path: Path, listening: socket.socket, unix: socket.socket) -> None:
    """Send lines on a Unix socket with asyncio's own streams, as one would by hand: a task a client."""
    lines = [f"{line}\n".encode() for line in _lines(path)]
    may_go = asyncio.Event()

    async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"\n")
        await may_go.wait()
        for line in lines:
            writer.write(line)
            await writer.drain()

    async with await asyncio.start_unix_server(follow, sock=unix):
        await asyncio.to_thread(sys.stdin.buffer.readline)
        may_go.set()
        await asyncio.Event().wait()


async def echo(path: Path, listening: socket.socket, unix: socket.socket) -> None:
    """Send back what comes on a Unix socket."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)

    async with await asyncio.start_unix_server(answer, sock=unix):
        await asyncio.Event().wait()


def _lines(path: Path) -> list[str]:
    return [line.decode() for line in path.read_bytes().splitlines()]


def _is_behind(clients: "set[ServerConnection]") -> bool:
    return any(one.transport.get_write_buffer_size() > 1 << 20 for one in clients)


def main() -> None:
    """Run the server that is named, on the sockets that are given."""
    name, path, *fds = sys.argv[1:]
    servers = {
        "ours": ours,
        "sse_starlette": sse_starlette,
        "websockets": websockets,
        "asyncio": streams,
        "echo": echo,
    }
    listening, unix = (socket.socket(fileno=int(fd)) for fd in fds)
    asyncio.run(servers[name](Path(path), listening, unix))


if __name__ == "__main__":
    main()

"""The page in a real browser, if there is one: driven over its own debugging protocol."""

import contextlib
import itertools
import json
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from serving import TOKEN, Run, serving
from websockets.asyncio.client import ClientConnection, connect

from asyncrunner_events import MetricsReady

HOSTILE = '<img src=x onerror="document.title=1">\u202e\x1b[31m'


class Page:
    """A page that is open in a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.console: list[str] = []

    async def call(self, method: str, **params: Any) -> Any:
        """Have the browser do something, and return what it answers."""
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(await self._socket.recv())
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.console.append(json.dumps(message["params"]))
            if message.get("id") == number:
                if "error" in message:
                    raise LookupError(f"{method}: {message['error']}")
                return message["result"]

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression on the page."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        is_true = False
        with anyio.fail_after(30):
            while not is_true:
                # The browser breaks an evaluation off when it goes to another page.
                with contextlib.suppress(LookupError):
                    is_true = await self.evaluate(expression)


@asynccontextmanager
async def browsing(folder: Path) -> AsyncGenerator[Page]:
    """Open a browser with an empty page."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command = [chromium, *options, f"--user-data-dir={folder}", "about:blank"]
    async with await anyio.open_process(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stderr is not None
            said = ""
            with anyio.fail_after(60):
                while "\n" not in said.partition("DevTools listening on ws://")[2]:
                    said += (await process.stderr.receive()).decode()
            host = said.partition("DevTools listening on ws://")[2].partition("/")[0]
            address = await anyio.to_thread.run_sync(_first_page, host)
            async with connect(address, proxy=None) as socket:
                page = Page(socket)
                for domain in ("Log", "Runtime", "Page"):
                    await page.call(f"{domain}.enable")
                yield page
        finally:
            process.kill()


def _first_page(host: str) -> str:
    connection = HTTPConnection(host, timeout=30)
    with closing(connection):
        connection.request("GET", "/json")
        pages = json.load(connection.getresponse())
    page = next(one for one in pages if one["type"] == "page")
    return str(page["webSocketDebuggerUrl"])


async def test_the_page_follows_a_run_and_nothing_of_a_run_is_taken_for_html(tmp_path: Path):
    run = Run(tmp_path / "runs" / HOSTILE.replace("/", ""))
    run.iterate(50)
    async with serving(tmp_path / "runs") as site, browsing(tmp_path / "browser") as page:
        await page.call("Page.navigate", url=f"http://127.0.0.1:{site.port}/?token={TOKEN}")
        await page.until('document.querySelectorAll("figure").length === 1')
        await page.until('document.getElementById("stream").textContent === "live"')
        assert await page.evaluate("location.href") == f"http://127.0.0.1:{site.port}/"
        assert await page.evaluate("document.cookie") == ""
        run.write([MetricsReady(iter=50, metrics={HOSTILE: 0.5})])
        await page.until('document.querySelectorAll("figure").length === 2')
        await page.until('document.getElementById("events").childElementCount === 1')
        shown = await page.evaluate("document.body.textContent")
        assert shown.count("<img src=x") >= 3  # the run's name, the metric's, the event's data
        assert await page.evaluate('document.querySelectorAll("img").length') == 0
        assert await page.evaluate("document.title") == "asyncrunner"
        assert not page.console

"""The programs of the page, which read with FastStream what was streamed."""

import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from pings import pings
from sent import send_all, sent_to
from servers import Server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "asyncrunner" / "sinks" / "README.md").read_text("utf-8")


class Reader:
    """A program of the page."""

    def __init__(self, folder: Path, program: str) -> None:
        path = folder / "reader.py"
        path.write_text(program)
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(path)],
            env=os.environ | {"PYTHONPATH": str(ROOT / "events")},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def until(self, iter: int) -> list[int]:
        """Return the iterations that it prints, up to this one."""
        assert self.process.stdout is not None
        seen: list[int] = []
        for line in self.process.stdout:
            if re.match(r"\d+ \d", line):
                seen.append(int(line.split()[0]))
                if seen[-1] == iter:
                    return seen
        pytest.fail(f"it ended after {seen[-1:]}")


@pytest.fixture
def readers() -> Generator[list[Reader]]:
    """Programs that are ended with the test."""
    started: list[Reader] = []
    yield started
    for one in started:
        one.process.kill()
        with one.process:
            pass


def program(heading: str, *, port: int) -> str:
    """Return the program below a heading, for a server of ours."""
    code = re.search(rf"^## {heading}\n.*?^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert code is not None
    return re.sub(r"localhost:\d+", f"127.0.0.1:{port}", code[1])


async def test_the_reader_of_redis_sees_each_event_once_though_the_server_was_killed(
    redis: Server, tmp_path: Path, run_dir: Path, readers: list[Reader]
):
    url = f"redis://127.0.0.1:{redis.port}"
    pings(run_dir, range(100), run="digits")
    await send_all(run_dir, url)
    readers.append(reader := Reader(tmp_path, program("Reading from Redis", port=redis.port)))
    before = reader.until(99)

    async with sent_to(run_dir, url) as run:
        redis.kill()
        run.publish(range(100, 200), run="digits")
        redis.start()

    assert before + reader.until(199) == [*range(200)]


async def test_the_reader_of_jetstream_sees_each_event_once_though_the_server_was_killed(
    nats: Server, tmp_path: Path, run_dir: Path, readers: list[Reader]
):
    url = f"nats://127.0.0.1:{nats.port}?jetstream=runs"
    pings(run_dir, range(100), run="digits")
    await send_all(run_dir, url)
    readers.append(reader := Reader(tmp_path, program("Reading from JetStream", port=nats.port)))
    before = reader.until(99)

    async with sent_to(run_dir, url) as run:
        nats.kill()
        run.publish(range(100, 200), run="digits")
        nats.start()

    assert before + reader.until(199) == [*range(200)]


def test_links_of_the_page_lead_somewhere():
    for link in re.findall(r"\]\(([^)h][^)]*)\)", PAGE):
        assert (ROOT / "asyncrunner" / "sinks" / link).exists()

"""Each example does what it says, on its real data."""

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from socket import create_server

import pytest
import torch

from asyncrunner import Runner, events
from asyncrunner.examples import digits, lm, mnist
from asyncrunner_events import Event, parse

REPO = Path(__file__).parent.parent
EXAMPLES = REPO / "asyncrunner" / "examples"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def run(*arguments: str) -> str:
    """Run `asyncrunner run` as a user does, and return what it prints."""
    paths = [str(REPO), str(REPO / "events"), os.environ.get("PYTHONPATH", "")]
    # One thread each: with more, two busy processes make every small operation wait its turn.
    threads = {"OMP_NUM_THREADS": "1"}
    environment = os.environ | threads | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "asyncrunner", "run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def collect(runner: Runner, *event_types: type[Event]) -> list[Event]:
    """Return the list that the runner's events of these types are added to."""
    collected: list[Event] = []
    runner.subscribe(event_types, collected.append)
    return collected


def test_digits_is_above_97_percent_and_prints_each_new_best() -> None:
    output = run(str(EXAMPLES / "digits.py"), "--lr", "1e-3")

    journal = [parse(line) for line in Path("runs/digits/events.jsonl").read_bytes().splitlines()]
    validations = [event for event in journal if isinstance(event, events.AfterValEpoch)]
    assert len(validations) == 10
    assert validations[-1].metrics["val/accuracy"] > 0.97
    assert output.count("the best so far") == sum(event.kind == "new_best" for event in journal)


async def test_digits_halves_its_learning_rate_when_validation_is_no_better() -> None:
    runner = digits.build(lr=1e-12, epochs=3)

    await runner.train()

    assert runner.state.optimizers["default"].param_groups[0]["lr"] == pytest.approx(1e-12 / 4)


async def test_mnist_is_above_94_percent_on_its_test_set() -> None:
    assert (await mnist.main(epochs=4))["test/accuracy"] > 0.94


@asynccontextmanager
async def web_server(received: list[Event]) -> AsyncGenerator[str]:
    """Yield the URL of a server that accepts every event."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        received.append(parse(await reader.readexactly(int(length[1]))))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/events"


async def test_mnist_reports_its_metrics_to_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCRUNNER_LIMIT_TRAIN", "20")
    received: list[Event] = []

    async with web_server(received) as url:
        await mnist.main(report=url, epochs=1)

    assert all(isinstance(event, events.MetricsReady) for event in received)
    assert [(event.stage, event.iter) for event in received] == [
        ("train", 9),
        ("train", 19),
        ("val", 20),
        ("test", 20),
    ]


async def test_mnist_trains_on_when_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCRUNNER_LIMIT_TRAIN", "20")
    with create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

    assert "test/accuracy" in await mnist.main(report=url, epochs=1)


async def test_lm_learns_and_publishes_what_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCRUNNER_LIMIT_VAL", "2")
    runner = lm.build(iters=120, batch_size=4, every=60)
    sampled = collect(runner, lm.Sampled)
    validations = collect(runner, events.AfterValEpoch)

    await runner.train()

    losses = [
        event.metrics["val/loss"]
        for event in validations
        if isinstance(event, events.AfterValEpoch)
    ]
    assert [event.iter for event in sampled] == [59, 119]
    assert losses[1] < losses[0] < 4
    assert runner.state.optimizers["default"].param_groups[0]["lr"] < 1e-4


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_what_lm_writes_in_the_end_looks_like_its_text() -> None:
    runner = lm.build()
    sampled = collect(runner, lm.Sampled)

    metrics = await runner.train()

    last = sampled[-1]
    assert metrics["val/loss"] < 1.5
    assert isinstance(last, lm.Sampled)
    known = Counter(re.findall(r"\w+", lm.TEXT))
    words = re.findall(r"\w+", last.text)
    assert sum(word in known for word in words) > 0.7 * len(words)


async def test_plain_finds_the_line() -> None:
    plain = import_module("asyncrunner.examples.plain")

    await plain.runner.train()

    assert plain.line.weight.item() == pytest.approx(2, abs=0.01)
    assert plain.line.bias.item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["digits", "lm", "mnist", "plain"])
def test_an_example_passes_a_dry_run(name: str) -> None:
    output = run("--dry-run", str(EXAMPLES / f"{name}.py"))

    assert "mount points fired" in output

"""The server as a process: alone, and beside a run."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from serving import TOKEN, Run, Site, seqs

from asyncrunner_events import parse

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[str]"]

TRAIN = """\
import sys
import torch
from asyncrunner import EpochTrainLoop, Runner, events

torch.set_num_threads(1)
runner = Runner(
    torch.nn.Linear(2, 1),
    optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    train=EpochTrainLoop([torch.ones(4, 2)] * 3, lambda model, batch: model(batch).pow(2).mean(), max_epochs=4),
    progress="none",
    run_dir="run",
    journal="all",
)

@runner.on(events.AfterTrainEpoch)
def wait_for_the_test(event):
    print(event.epoch, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def start(tmp_path: Path) -> Generator[Start]:
    """Start `asyncrunner` in an empty folder."""
    started: list[subprocess.Popen[str]] = []
    inherited = {name: value for name, value in os.environ.items() if "ASYNCRUNNER" not in name}
    inherited["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'events'}"

    def start(*args: str, stderr: int = subprocess.PIPE, **env: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "asyncrunner", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=tmp_path,
            env=inherited | env,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def address(line: str) -> tuple[int, str]:
    """Return the port and the token in the line that says where the page is."""
    match = re.fullmatch(r"page: http://127\.0\.0\.1:(\d+)/\?token=(\S+?)(  \(.*\))?\s*", line)
    assert match is not None, line
    return int(match[1]), match[2]


async def site_of(process: "subprocess.Popen[str]", folder: Path) -> Site:
    """Return where a server answers, once it says so."""
    assert process.stderr is not None
    port, token = address(await anyio.to_thread.run_sync(process.stderr.readline))
    assert token == "…"
    return Site(folder, port)


async def ended(process: "subprocess.Popen[str]") -> int:
    """Return the exit code."""
    with anyio.fail_after(20):
        return await anyio.to_thread.run_sync(process.wait, abandon_on_cancel=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_it_serves_without_torch_until_a_signal(
    tmp_path: Path, start: Start, number: signal.Signals, code: int
):
    run = Run(tmp_path / "runs" / "a")
    run.iterate(3)
    process = start("serve", ASYNCRUNNER_SERVE_TOKEN=TOKEN)
    site = await site_of(process, tmp_path)
    async with site.events() as events:
        assert seqs(await events.take(3)) == [0, 1, 2]
        assert (await site.get("/v1/runs/latest/metrics")).status == 200
        assert (await site.get("/")).status == 200
        loaded = {mapped.path for mapped in psutil.Process(process.pid).memory_maps()}
        assert not [path for path in loaded if "torch" in path]
        process.send_signal(number)
        assert (await events.next()).event == "stream_end"
    assert await ended(process) == code


async def test_it_ends_with_standard_input_if_it_is_told_to(tmp_path: Path, start: Start):
    Run(tmp_path / "runs" / "a")
    process = start("serve", "--until-eof", ASYNCRUNNER_SERVE_TOKEN=TOKEN)
    site = await site_of(process, tmp_path)
    assert (await site.get("/v1/runs")).status == 200
    assert process.stdin is not None
    process.stdin.close()
    assert await ended(process) == 0


async def test_the_token_is_in_a_private_file_and_not_in_the_title_or_the_output(
    tmp_path: Path, start: Start
):
    Run(tmp_path / "runs" / "a")
    process = start("serve", "runs", "--port", "0")
    site = await site_of(process, tmp_path)
    file = tmp_path / "runs" / "serve.token"
    token = file.read_text().strip()
    for query in ("", f"?token={token}", "?token=wrong"):
        await site.get(f"/{query}", authorization=None)
    assert (await site.get("/v1/runs", authorization=f"Bearer {token}")).status == 200
    assert token not in " ".join(psutil.Process(process.pid).cmdline())
    process.send_signal(signal.SIGTERM)
    await ended(process)
    out, err = process.communicate()
    assert (out, err) == ("", "")
    assert not files_with(token, tmp_path, but=file)


def files_with(text: str, folder: Path, *, but: Path) -> list[Path]:
    """Return the files that hold a text."""
    files = [path for path in folder.rglob("*") if path.is_file() and path != but]
    return [path for path in files if text.encode() in path.read_bytes()]


async def test_a_terminal_is_shown_an_address_that_can_be_opened(tmp_path: Path, start: Start):
    Run(tmp_path / "runs" / "a")
    ours, terminal = pty.openpty()
    try:
        process = start("serve", "--port", "0", stderr=terminal)
        line = (await anyio.to_thread.run_sync(os.read, ours, 1000)).decode()
        port, token = address(line)
        entered = await Site(tmp_path, port).get(f"/?token={token}", authorization=None)
        assert entered.status == 200
        process.send_signal(signal.SIGTERM)
        await ended(process)
    finally:
        os.close(ours)
        os.close(terminal)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_what_others_can_reach_is_not_started_without_a_token(
    tmp_path: Path, start: Start, host: str
):
    Run(tmp_path / "runs" / "a")
    process = start("serve", "--host", host)
    _, err = await anyio.to_thread.run_sync(process.communicate)
    assert process.returncode == 2
    assert "ASYNCRUNNER_SERVE_TOKEN" in err
    assert not (tmp_path / "runs" / "serve.token").exists()


async def test_a_folder_or_a_port_that_cannot_be_had_is_told(tmp_path: Path, start: Start):
    missing = start("serve")
    _, err = await anyio.to_thread.run_sync(missing.communicate)
    assert (missing.returncode, err) == (2, "error: there is no folder runs\n")
    (tmp_path / "runs").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = start("serve", "--port", str(port))
        _, err = await anyio.to_thread.run_sync(refused.communicate)
    assert refused.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in err


def go_on(process: "subprocess.Popen[str]") -> str:
    """Let a run go on to the end of its next epoch."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


async def test_a_run_is_served_as_it_goes_on_and_the_server_ends_with_it(
    tmp_path: Path, start: Start
):
    (tmp_path / "train.py").write_text(TRAIN)
    process = start("run", "--serve", "train.py", ASYNCRUNNER_SERVE_TOKEN=TOKEN)
    site = await site_of(process, tmp_path)
    kinds: list[str] = []
    async with site.events() as events:
        await anyio.to_thread.run_sync(go_on, process)
        [server] = psutil.Process(process.pid).children()
        assert "torch" not in str([mapped.path for mapped in server.memory_maps()])
        while not kinds or kinds[-1] != "stream_end":
            message = await events.next()
            kinds.append(message.event or message.json()["kind"])
            if kinds[-1] == "after_train_epoch":
                await anyio.to_thread.run_sync(go_on, process)
    assert kinds.count("after_train_iter") == 12
    assert kinds[0] == "before_run"
    assert "after_run" in kinds[-4:]
    assert await ended(process) == 0
    assert not psutil.pid_exists(server.pid)


async def test_a_run_that_is_killed_takes_its_server_with_it(tmp_path: Path, start: Start):
    (tmp_path / "train.py").write_text(TRAIN)
    process = start("run", "--serve", "train.py", ASYNCRUNNER_SERVE_TOKEN=TOKEN)
    site = await site_of(process, tmp_path)
    async with site.events() as events:
        await events.take(3)
        [server] = psutil.Process(process.pid).children()
        process.kill()
        with anyio.fail_after(20):
            while (await events.next()).event != "stream_end":
                pass
    with anyio.fail_after(20):
        await anyio.to_thread.run_sync(lambda: psutil.wait_procs([server], 20))
    assert not server.is_running()


async def test_a_run_goes_on_when_its_server_is_killed(tmp_path: Path, start: Start):
    (tmp_path / "train.py").write_text(TRAIN)
    process = start("run", "--serve", "train.py", ASYNCRUNNER_SERVE_TOKEN=TOKEN)
    await site_of(process, tmp_path)
    await anyio.to_thread.run_sync(go_on, process)
    [server] = psutil.Process(process.pid).children()
    server.kill()
    _, err = await anyio.to_thread.run_sync(process.communicate, "\n" * 9)
    assert process.returncode == 0
    assert "the page ended before the run" in err


async def test_a_run_without_a_journal_has_nothing_to_serve(tmp_path: Path, start: Start):
    (tmp_path / "train.py").write_text(TRAIN)
    process = start("run", "--serve", "--journal", "off", "train.py")
    _, err = await anyio.to_thread.run_sync(process.communicate)
    assert process.returncode == 2
    assert "--serve shows what a run writes" in err


async def test_a_run_that_is_served_has_a_socket_with_lines_as_long_as_it_is_on(
    tmp_path: Path, start: Start
):
    (tmp_path / "train.py").write_text(TRAIN)
    process = start("run", "--serve", "train.py", ASYNCRUNNER_SERVE_TOKEN=TOKEN)
    await site_of(process, tmp_path)
    path = tmp_path / "run" / "events.sock"
    kinds: list[str] = []
    async with await anyio.connect_unix(path) as stream:
        await stream.send(b"kind=after_train_epoch,after_run,stream_end\n")
        received = BufferedByteReceiveStream(stream)
        while not kinds or kinds[-1] != "stream_end":
            await anyio.to_thread.run_sync(go_on, process)
            kinds.append(parse(await received.receive_until(b"\n", 100_000)).kind)
    assert kinds == [*["after_train_epoch"] * 4, "after_run", "stream_end"]
    assert await ended(process) == 0
    assert not path.exists()


async def test_a_run_that_is_started_while_the_server_of_a_killed_one_lives_has_the_socket(
    tmp_path: Path, start: Start
):
    (tmp_path / "train.py").write_text(TRAIN)
    path = tmp_path / "run" / "events.sock"
    killed = start("run", "--serve", "train.py", ASYNCRUNNER_SERVE_TOKEN=TOKEN)
    await site_of(killed, tmp_path)
    await anyio.to_thread.run_sync(go_on, killed)
    [old] = psutil.Process(killed.pid).children()
    old.suspend()  # it has not noticed yet
    killed.kill()
    await ended(killed)

    again = start("run", "--serve", "train.py", ASYNCRUNNER_SERVE_TOKEN=TOKEN)
    await site_of(again, tmp_path)
    old.resume()
    await anyio.to_thread.run_sync(old.wait, 20)

    async with await anyio.connect_unix(path) as stream:
        await stream.send(b"since=0.0&kind=before_run\n")
        received = BufferedByteReceiveStream(stream)
        with anyio.fail_after(20):
            event = parse(await received.receive_until(b"\n", 100_000))
    assert (event.kind, event.attempt) == ("before_run", 1)


async def test_a_run_is_served_though_its_socket_cannot_be_had(tmp_path: Path, start: Start):
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "run" / "events.sock").mkdir(parents=True)
    process = start("run", "--serve", "train.py", ASYNCRUNNER_SERVE_TOKEN=TOKEN)
    assert process.stderr is not None
    warning = await anyio.to_thread.run_sync(process.stderr.readline)
    site = await site_of(process, tmp_path)
    assert "it is there, and is no socket" in warning
    assert (await site.get("/v1/runs")).status == 200


async def test_a_server_listens_on_the_unix_socket_that_it_is_given(tmp_path: Path, start: Start):
    Run(tmp_path / "runs" / "a").iterate(2)
    path = tmp_path / "here.sock"
    process = start("serve", "--unix", "here.sock", ASYNCRUNNER_SERVE_TOKEN=TOKEN)
    await site_of(process, tmp_path)
    async with await anyio.connect_unix(path) as stream:
        await stream.send(b"\n")
        received = BufferedByteReceiveStream(stream)
        assert [parse(await received.receive_until(b"\n", 9999)).seq for _ in range(2)] == [0, 1]
        second = start("serve", "--unix", "here.sock", ASYNCRUNNER_SERVE_TOKEN=TOKEN)
        _, err = await anyio.to_thread.run_sync(second.communicate)
        assert (second.returncode, err.splitlines()[-1]) == (
            2,
            f"error: cannot listen on {path}: another process does",
        )
        process.send_signal(signal.SIGTERM)
        assert parse(await received.receive_until(b"\n", 9999)).kind == "stream_end"
    assert await ended(process) == 143
    assert not path.exists()

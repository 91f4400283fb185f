import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from pings import pings
from redis import Redis
from run_process import ROOT, Run, arrived, start, url_of
from servers import Server, free_port

from asyncrunner.errors import ConfigurationError
from asyncrunner.outputs import check_stream
from asyncrunner.run_dir.resume_command import last_attempt, resume_command
from asyncrunner.settings import Settings


def wait_for_first(server: Server) -> None:
    with cast("Any", Redis(port=server.port)) as client:
        client.config_set("notify-keyspace-events", "Et")  # of streams
        listening = client.pubsub()
        listening.psubscribe("__keyevent@0__:xadd")
        listening.get_message(timeout=5)
        if not client.keys("asyncrunner:*"):
            assert listening.get_message(timeout=20)
        listening.close()


def stream(folder: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "asyncrunner", "stream", *args],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'events'}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_is_streamed_while_it_goes_on_and_all_of_it_has_arrived_when_it_ends(
    redis: Server, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--stream", url_of(redis))
    run.epoch(0)
    run.epoch(1)
    wait_for_first(redis)
    run.epoch(2)
    run.epoch(3)

    assert run.end() == (0, "over\n", "")
    assert len(run.lines) > 400
    assert arrived(redis) == run.lines


def test_a_server_that_dies_and_comes_back_in_the_middle_of_a_run_costs_no_event_and_not_the_run(
    redis: Server, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--stream", url_of(redis))
    run.epoch(0)
    wait_for_first(redis)
    redis.kill()
    run.epoch(1)
    run.wait_for("epoch 2")
    redis.start()
    run.go_on()
    run.epoch(3)

    code, _, said = run.end()

    assert code == 0
    assert said.count("takes no events") == 1
    assert said.count("takes events again") == 1
    assert arrived(redis) == run.lines


def test_what_a_run_could_not_send_is_sent_later(redis: Server, tmp_path: Path, runs: list[Run]):
    redis.kill()
    run = start(runs, tmp_path, "--stream", url_of(redis))
    for number in range(4):
        run.epoch(number)
    code, _, said = run.end()
    redis.start()

    later = stream(tmp_path, "run", url_of(redis))

    assert code == 0
    assert f"{len(run.lines)} events are not sent; `asyncrunner stream " in said
    assert later.stdout == f"{url_of(redis)}: {len(run.lines)} events sent\n"
    assert later.returncode == 0
    assert arrived(redis) == run.lines


def test_what_a_killed_run_has_in_its_journal_arrives(
    redis: Server, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--stream", url_of(redis))
    run.epoch(0)
    run.epoch(1)
    run.wait_for("epoch 2")
    streamer = run.streamer

    run.process.kill()

    streamer.wait(20)
    assert arrived(redis) == run.lines


def test_ctrl_c_ends_the_run_and_the_last_events_arrive_too(
    redis: Server, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--stream", url_of(redis))
    run.epoch(0)
    run.wait_for("epoch 1")
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
    run.go_on()

    code, _, _ = run.end()

    assert code == 130
    assert b'"kind":"after_run"' in run.lines[-1]
    assert arrived(redis) == run.lines


def test_a_broker_that_answers_nothing_does_not_keep_a_run_beyond_its_grace_time(
    redis: Server, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--grace", "2", "--stream", url_of(redis))
    run.epoch(0)
    wait_for_first(redis)
    redis.freeze()
    run.wait_for("epoch 1")
    run.process.send_signal(signal.SIGTERM)
    run.go_on()

    code, _, said = run.end()

    assert code == 143  # and not killed, of which it would tell
    assert "killed" not in said
    assert "events are not sent; `asyncrunner stream " in said


def test_a_streamer_that_is_killed_is_told_and_the_run_is_not_its_concern(
    redis: Server, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--stream", url_of(redis))
    run.epoch(0)
    run.wait_for("epoch 1")
    run.streamer.kill()
    run.go_on()
    run.epoch(2)
    run.epoch(3)

    code, _, said = run.end()

    assert code == 0
    assert "the process that streams this run ended with -9: `asyncrunner stream run URL`" in said


SECRET = "c4nary-s3cret"


def resume_command_of(run_dir: Path) -> str:
    attempt = last_attempt(run_dir)
    assert attempt is not None
    return resume_command(run_dir, attempt) or ""


@pytest.mark.parametrize("place", ["url", "variable"])
def test_a_password_is_in_no_file_no_message_and_no_argument_of_the_streamer(
    redis: Server, tmp_path: Path, runs: list[Run], place: str
):
    with cast("Any", Redis(port=redis.port)) as client:
        client.acl_setuser(
            "lab", enabled=True, passwords=[f"+{SECRET}"], keys="*", commands=["+@all"]
        )
    password = SECRET if place == "url" else "${BROKER}"
    good = f"redis://lab:{password}@127.0.0.1:{redis.port}"
    bad = f"redis://lab:{password}-wrong@localhost:{free_port()}"
    urls = [good, bad] if place == "url" else [good]
    options = [word for url in urls for word in ("--stream", url)]
    run = start(runs, tmp_path, *options, BROKER=SECRET)
    run.epoch(0)
    run.wait_for("epoch 1")
    arguments = run.streamer.cmdline()
    run.go_on()
    run.epoch(2)
    run.epoch(3)
    _, out, err = run.end()

    written = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert arrived(redis) == run.lines
    assert SECRET not in out + err + " ".join(arguments)
    assert SECRET.encode() not in written
    said_to_resume = resume_command_of(run.path)
    streamed = json.loads((run.path / "run.json").read_bytes())["attempts"][0]["config"]["settings"]
    shown = f"redis://***@127.0.0.1:{redis.port}"
    assert f"--stream '{streamed['stream'].split()[0]}'" in said_to_resume
    assert streamed["stream"].startswith(shown if place == "url" else "redis://***@")


@pytest.mark.parametrize(
    ("urls", "complaint"),
    [
        ("reddis://localhost", "there is no sink 'reddis' (did you mean redis or rediss?)"),
        ("localhost:6379", "a sink is a URL, as in redis://localhost:6379"),
        ("redis://a:b@h redis://a:c@h", "redis://***@h was given twice"),
        ("redis://${NO_SUCH}@h", "the variable NO_SUCH is not set"),
        ("redis://h:port", "redis://h:port is not a URL"),
    ],
)
def test_what_cannot_be_streamed_to_is_refused(tmp_path: Path, urls: str, complaint: str):
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        check_stream(Settings(stream=urls), tmp_path, "epochs")


def test_a_run_without_a_journal_cannot_be_streamed(tmp_path: Path):
    settings = Settings(stream="redis://localhost")

    with pytest.raises(ConfigurationError, match="needs a run directory and a journal"):
        check_stream(settings, None, "epochs")
    with pytest.raises(ConfigurationError, match="needs a run directory and a journal"):
        check_stream(settings, tmp_path, "off")


def test_a_sink_is_refused_before_anything_is_written(tmp_path: Path, runs: list[Run]):
    run = start(runs, tmp_path, "--stream", "reddis://localhost")

    code, _, said = run.end()

    assert code == 2
    assert "there is no sink 'reddis'" in said
    assert not run.path.exists()


def test_two_processes_do_not_send_to_one_sink_at_once(
    redis: Server, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--stream", url_of(redis))
    run.epoch(0)
    run.wait_for("epoch 1")
    second = subprocess.Popen(
        [sys.executable, "-m", "asyncrunner", "stream", "run", url_of(redis)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    with second:
        assert second.stderr is not None
        waiting = second.stderr.readline()
        run.go_on()
        run.epoch(2)
        run.epoch(3)

    assert "waiting, as another process sends this run to it" in waiting
    assert run.end()[0] == 0
    assert second.returncode == 0
    assert arrived(redis) == run.lines


def test_a_streamer_that_is_killed_again_and_again_sends_each_event_once(
    redis: Server, tmp_path: Path
):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    pings(folder, range(60_000))
    with cast("Any", Redis(port=redis.port)) as client:
        for _ in range(4):
            so_far = client.xlen("asyncrunner:r")
            process = subprocess.Popen(
                [sys.executable, "-m", "asyncrunner", "stream", "run", url_of(redis)], cwd=tmp_path
            )
            with process:
                assert client.xread({"asyncrunner:r": f"1-{so_far + 700}"}, count=1, block=30_000)
                process.kill()
        assert client.xlen("asyncrunner:r") < 60_000  # each was killed in the middle

    last = stream(tmp_path, "run", url_of(redis))

    assert last.returncode == 0
    assert len(arrived(redis)) == 60_000
    assert arrived(redis) == (folder / "events.jsonl").read_bytes().splitlines()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    done = stream(tmp_path, str(tmp_path), "redis://localhost")

    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path} is no run directory\n"

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Command, Write
from saved import flip_a_bit, save, stamped, write_journal

from asyncrunner.journal import Journal
from asyncrunner.run_dir import RunDir
from asyncrunner_events import (
    AfterRun,
    AfterTrain,
    AfterTrainEpoch,
    AfterValEpoch,
    BeforeRun,
    BeforeTrain,
    CheckpointSaved,
    Event,
    MetricsReady,
    RunFailed,
    RunInterrupted,
    RunResumed,
    StopRequested,
    SubscriberFailed,
)

ESCAPE = "\x1b]52;c;cm0gLXJm\x07\x1b[2J"
AT: dict[str, Any] = {"epoch": 2, "iter": 25}
"""Where the second epoch of ten iterations has ended, and the third one is half done."""
END = (AfterTrain(**AT), AfterRun(**AT))
FAILED = RunFailed(error="ValueError: no data", traceback="…", **AT)
STOPPED = StopRequested(reason="the loss is nan", by="guard", **AT)
INTERRUPTED = RunInterrupted(reason="KeyboardInterrupt", **AT)

HOLDS_AND_WRITES = """
import sys
from saved import write_journal
from asyncrunner.run_dir import RunDir
from asyncrunner_events import BeforeRun, MetricsReady

run_dir = RunDir.open(sys.argv[1], name="live")
write_journal(run_dir, [BeforeRun(epoch=0, iter=0), MetricsReady(epoch=0, iter=4, metrics={"a": 2.0})])
with run_dir.journal.open("ab") as journal:
    journal.write(b'{"specversion":"1.0","id":"2","sour')
print("open", flush=True)
sys.stdin.read()
"""


def training(epochs: int = 2) -> Iterator[Event]:
    """Yield what is in the journal of a training of four epochs, after so many of them."""
    run: dict[str, Any] = {"max_epochs": 4, "max_iters": 40}
    yield BeforeRun(epoch=0, iter=0)
    yield BeforeTrain(epoch=0, iter=0, **run)
    for n in range(epochs):
        done: dict[str, Any] = {"iter": 10 * n + 10, **run}
        metrics = {"loss": 1.0 / (n + 1)}
        yield MetricsReady(epoch=n, iter=10 * n + 9, stage="train", metrics=metrics, **run)
        yield AfterTrainEpoch(epoch=n, stage="train", **done)
        yield AfterValEpoch(epoch=n + 1, stage="val", metrics={"val/acc": 0.5 + n / 10}, **done)
        yield CheckpointSaved(path=f"epoch_{n + 1}", size_bytes=9, duration_s=0.1, epoch=n + 1)


def make_run(path: Path, *events: Event, config: dict[str, Any] | None = None) -> Path:
    """Make a run directory, or start its run again, with this journal."""
    with RunDir.open(path, name=path.name, config=config) as run_dir:
        if events:
            write_journal(run_dir, events)
    return path


def rows(out: str) -> dict[str, str]:
    """Return the rows of `runs ls` by the last part of their directory, without the run's id."""
    found: dict[str, str] = {}
    for line in out.splitlines()[1:]:
        directory, *rest = line[line.index("runs/") :].split("  ")
        found[directory.rpartition("/")[2]] = " ".join(" ".join(rest).split())
    return found


# ls


def test_ls_says_how_each_run_ended_and_how_far_it_came(command: Command, tmp_path: Path):
    runs = tmp_path / "runs"
    make_run(runs / "done", *training(4), AfterTrain(epoch=4, iter=40), AfterRun(epoch=4, iter=40))
    make_run(runs / "failed", *training(), FAILED, *END)
    make_run(runs / "deeper" / "stopped", *training(), STOPPED, *END)
    make_run(runs / "interrupted", *training(), INTERRUPTED, *END)
    make_run(runs / "died", *training())
    make_run(runs / "cleaning", *training(), FAILED)
    make_run(runs / "nothing")
    done = command("runs", "ls")
    assert (done.code, done.err) == (0, "")
    head = done.out.splitlines()[0].split()
    assert head[:5] == ["run", "directory", "attempts", "started", "state"]
    assert head[5:] == ["epoch", "iter", "metrics", "checkpoint"]
    ends = {name: row.split(" ", 3)[3] for name, row in rows(done.out).items()}
    assert ends == {
        "done": "finished 4/4 40/40 loss 0.2500, val/acc 0.8000",
        "failed": "failed 2/4 25/40 loss 0.5000, val/acc 0.6000",
        "stopped": "stopped 2/4 25/40 loss 0.5000, val/acc 0.6000",
        "interrupted": "interrupted 2/4 25/40 loss 0.5000, val/acc 0.6000",
        "died": "died 2/4 20/40 loss 0.5000, val/acc 0.6000",
        "cleaning": "failed 2/4 25/40 loss 0.5000, val/acc 0.6000",
        "nothing": "unknown 0 0",
    }


def test_the_run_that_started_last_comes_first_with_its_newest_checkpoint(
    command: Command, tmp_path: Path
):
    runs = tmp_path / "runs"
    make_run(runs / "a", *training(), *END)
    make_run(runs / "b", *training(), *END)
    make_run(runs / "a", BeforeRun(epoch=0, iter=0), RunResumed(path="epoch_2", epoch=2, iter=20))
    save(runs / "a" / "checkpoints", "epoch_1", 10)
    save(runs / "a" / "checkpoints", "epoch_2", 20, metrics={"val/acc": 0.6})
    save(runs / "a" / "checkpoints", "epoch_3", 30)
    flip_a_bit(runs / "a" / "checkpoints" / "epoch_3" / "manifest.json")
    found = rows(command("runs", "ls", "runs").out)
    assert list(found) == ["a", "b"]
    assert found["a"].startswith("2 ")
    assert found["a"].endswith(" died 2 20 val/acc 0.6000 epoch_2")


def test_ls_as_json_is_for_programs(command: Command, tmp_path: Path):
    nan = MetricsReady(epoch=0, iter=0, metrics={"loss": float("nan")})
    path = make_run(tmp_path / "runs" / "a", BeforeRun(epoch=0, iter=0), nan, FAILED, *END)
    done = command("runs", "ls", "--json")
    (run,) = json.loads(done.out, parse_constant=pytest.fail)["runs"]
    record = json.loads((path / "run.json").read_bytes())
    assert run["path"] == "runs/a"
    assert run["run"] == record["run"]
    assert (run["state"], run["reason"]) == ("failed", "ValueError: no data")
    assert (run["epoch"], run["iter"], run["attempts"]) == (2, 25, 1)
    assert run["metrics"] == {"loss": "NaN"}
    assert run["holder"] is None
    assert run["checkpoint"] is None


def test_ls_of_no_runs_says_so_and_of_no_folder_is_an_error(command: Command, tmp_path: Path):
    assert command("runs", "ls") == (2, "", "error: there is no folder runs\n")
    (tmp_path / "runs").mkdir()
    assert command("runs", "ls") == (0, "no runs in runs\n", "")
    assert json.loads(command("runs", "ls", "--json").out) == {"runs": []}


def test_ls_follows_no_link_and_looks_into_no_run(command: Command, tmp_path: Path):
    make_run(tmp_path / "elsewhere" / "secret")
    make_run(tmp_path / "runs" / "a")
    make_run(tmp_path / "runs" / "a" / "inside")
    make_run(tmp_path / "runs" / ".hidden")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "round").symlink_to(tmp_path / "runs")
    assert list(rows(command("runs", "ls").out)) == ["a"]
    assert list(rows(command("runs", "ls", "runs/a").out)) == ["a"]


@pytest.mark.parametrize("content", [b"{}", b"", b"\xff", b'{"run": "a", "attempts": 3}'])
def test_a_record_that_cannot_be_read_is_listed_with_the_reason(
    command: Command, tmp_path: Path, content: bytes
):
    make_run(tmp_path / "runs" / "good", *training(), *END)
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "run.json").write_bytes(content)
    found = rows(command("runs", "ls").out)
    assert found.keys() == {"good", "bad"}
    assert found["bad"].startswith("0 unreadable run.json is not a run's record: ")
    states = [run["state"] for run in json.loads(command("runs", "ls", "--json").out)["runs"]]
    assert states == ["finished", "unreadable"]
    done = command("runs", "show", "runs/bad")
    assert (done.code, done.out) == (2, "")
    assert "runs/bad cannot be read: run.json is not a run's record" in done.err


def test_a_stop_long_before_the_end_of_another_run_is_not_taken_for_its_end(
    command: Command, tmp_path: Path
):
    path = make_run(tmp_path / "runs" / "a", *training(), STOPPED, *END)
    make_run(path, *training(), *END)
    assert " finished 2/4 " in rows(command("runs", "ls").out)["a"]


def test_the_state_of_a_long_run_needs_only_the_end_of_its_journal(
    command: Command, tmp_path: Path
):
    from asyncrunner.run_dir.outcome import MOST_BYTES, outcome_of

    with RunDir.open(tmp_path / "runs" / "a", name="a") as run_dir:
        write_journal(run_dir, [BeforeRun(epoch=0, iter=0)])
        with Journal(run_dir.journal) as journal:
            for n in range(10_000):
                journal.append(stamped(MetricsReady(iter=n, metrics={"loss": 1.0}), n))
        write_journal(run_dir, [AfterTrain(iter=10_000), AfterRun(iter=10_000)])
    assert run_dir.journal.stat().st_size > 3 * MOST_BYTES
    lines = run_dir.journal.read_bytes().splitlines(keepends=True)
    run_dir.journal.write_bytes(b"".join([b"no event\n" * len(lines), *lines[-5000:]]))
    outcome = outcome_of(run_dir.journal, 0)
    assert (outcome.state, outcome.iter, outcome.unreadable) == ("finished", 10_000, 0)


# A run that is on


def test_a_live_run_is_shown_with_its_process_and_a_killed_one_as_dead(
    command: Command, tmp_path: Path, fresh: dict[str, str]
):
    path = f"{fresh['PYTHONPATH']}{os.pathsep}{Path(__file__).parent}"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_AND_WRITES, "runs/live"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=fresh | {"PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        assert f" running {process.pid} 0 5 a 2.0000" in rows(command("runs", "ls").out)["live"]
        out = command("runs", "show", "runs/live").out
        assert f"running {process.pid}" in out
        assert "to resume it" not in out
        (run,) = json.loads(command("runs", "ls", "--json").out)["runs"]
        assert (run["state"], run["holder"]["pid"]) == ("running", process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert " died 0 5 a 2.0000" in rows(command("runs", "ls").out)["live"]


def test_a_directory_that_something_else_has_locked_is_in_use_and_not_running(
    command: Command, tmp_path: Path
):
    from asyncrunner.run_dir.lock import acquire

    path = make_run(tmp_path / "runs" / "a", *training(), *END)
    record = json.loads((path / "run.json").read_bytes())
    record["attempts"][0]["pid"] = 1
    (path / "run.json").write_text(json.dumps(record))
    lock = acquire(path / "lock")
    assert f" finished, in use by {os.getpid()} " in rows(command("runs", "ls").out)["a"]
    os.close(lock)


# show


def test_show_tells_the_attempts_the_last_events_and_the_checkpoints(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "3e-4"])
    monkeypatch.chdir(tmp_path)
    path = make_run(tmp_path / "runs" / "a", *training(), INTERRUPTED, *END)
    trouble = SubscriberFailed(
        subscriber="mine", event_kind="x", event_seq=0, error="E: e", traceback="", disabled=False
    )
    config = {"settings": {"max_epochs": 4, "limit_train": 20, "limit_val": 5}}
    make_run(path, *training(), trouble, RunResumed(path="p"), FAILED, *END, config=config)
    save(path / "checkpoints", "epoch_2", 20, purpose="regular")
    done = command("runs", "show", "runs/a")
    assert (done.code, done.err) == (0, "")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[1] == "directory runs/a"
    assert lines[2].startswith("state failed: ValueError: no data (last event 20")
    assert lines[3:5] == ["progress epoch 2/4, iter 25/40", "metrics loss 0.5000, val/acc 0.6000"]
    attempts = lines[lines.index("attempts") + 2 :]
    for number, state in ((0, "interrupted"), (1, "failed")):
        words = attempts[number].split()
        assert (words[0], words[3]) == (str(number), state)
        assert words[-4:] == [str(os.getpid()), "train.py", "--lr", "3e-4"]
    said = "\n".join(lines[lines.index("last events") : lines.index("checkpoints")])
    assert "checkpoint epoch_2 9 B" in said
    assert "subscriber 'mine' failed on x: E: e" in said
    assert "error in epoch 3, iter 26: ValueError: no data" in said
    assert "MetricsReady" not in said
    assert "epoch_2 2 20 regular" in "\n".join(lines)
    assert lines[-2:] == [
        "to resume it",
        "asyncrunner run --resume auto --run-dir runs/a --max-epochs 4 --limit train=20,val=5 "
        "train.py --lr 3e-4",
    ]


def test_show_says_what_a_run_was_made_of(command: Command, write: Write, train: str):
    script = write(train.replace('progress="none"', 'progress="none", seed=7, device="cpu"'))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", script], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    assert command("run", script, "--lr", "0.25", TOKEN_OF_A_TEST="not to be kept").code == 0
    run = json.loads(command("runs", "show", "runs/test", "--json").out)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    (attempt,) = run["attempts"]
    assert attempt["git"] == {"commit": commit.stdout.strip(), "dirty": False}
    assert attempt["config"]["parameters"] == {"lr": 0.25, "epochs": 1}
    assert (attempt["config"]["seed"], attempt["config"]["device"]) == (7, "cpu")
    assert set(attempt["software"]) == {"python", "asyncrunner", "torch"}
    lines = [
        " ".join(line.split()) for line in command("runs", "show", "runs/test").out.splitlines()
    ]
    assert "parameters lr=0.25 epochs=1" in lines
    assert "seed 7" in lines
    assert "device cpu" in lines
    python = f"python {sys.version.split()[0]}"
    assert any(line.startswith(f"software {python}, asyncrunner 0") for line in lines)
    assert f"commit {commit.stdout.strip()}" in lines
    assert not any(
        b"not to be kept" in path.read_bytes() for path in Path("runs/test").glob("*.json*")
    )


def test_show_as_json_has_all_of_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    path = make_run(tmp_path / "runs" / "a", *training(), *END)
    make_run(path, *training(1), STOPPED, *END)
    save(path / "checkpoints", "epoch_1", 10)
    run = json.loads(command("runs", "show", "runs/a", "--json").out, parse_constant=pytest.fail)
    assert [attempt["state"] for attempt in run["attempts"]] == ["finished", "stopped"]
    assert (run["state"], run["reason"]) == ("stopped", "the loss is nan")
    assert [event["kind"] for event in run["events"]] == ["checkpoint_saved", "stop_requested"]
    assert [one["name"] for one in run["checkpoints"]] == ["epoch_1"]
    assert run["resume"].endswith("train.py")


def test_the_command_to_resume_goes_where_the_run_was_started_and_names_what_was_masked(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    monkeypatch.setattr(sys, "argv", ["train it.py", "--api-key", "canary-123"])
    monkeypatch.chdir(elsewhere)
    path = make_run(tmp_path / "runs" / "a", *training())
    monkeypatch.chdir(tmp_path)
    *_, resume, masked = command("runs", "show", "runs/a").out.splitlines()
    assert resume == (
        f"cd '{elsewhere}' && asyncrunner run --resume auto --run-dir {path} "
        "'train it.py' --api-key '***'"
    )
    assert masked == "where *** stands for a secret that was not kept"
    monkeypatch.setattr(sys, "argv", ["-c"])
    make_run(path, *training())
    last = command("runs", "show", "runs/a").out.splitlines()[-1]
    assert last == "It was not started from a file, so there is no command to resume it."


def test_show_of_what_is_no_run_is_an_error(command: Command, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        done = command("runs", "show", name)
        assert done == (2, "", f"error: {name} is no run directory\n")


def test_escape_sequences_of_a_run_do_nothing_to_a_terminal(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", [f"train{ESCAPE}.py", ESCAPE])
    evil = RunFailed(error=f"evil{ESCAPE}", traceback="", **AT)
    metrics = MetricsReady(iter=3, metrics={f"loss{ESCAPE}": 1.0})
    path = make_run(tmp_path / "runs" / f"a{ESCAPE}", metrics, evil, *END)
    for args in (["ls"], ["show", str(path)], ["ls", "--json"], ["show", str(path), "--json"]):
        done = command("runs", *args)
        assert (done.code, done.err) == (0, "")
        assert not {"\x1b", "\x07"} & set(done.out)


def test_looking_at_runs_does_not_import_torch(tmp_path: Path, fresh: dict[str, str]):
    path = make_run(tmp_path / "runs" / "a", *training(), *END)
    save(path / "checkpoints", "epoch_1", 10)
    for args in (["ls"], ["show", "runs/a"], ["show", "runs/a", "--json"]):
        code = (
            "import sys\nfrom asyncrunner.__main__ import main\n"
            f"try:\n    main({['runs', *args]})\n"
            "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=fresh,
            cwd=tmp_path,
            check=True,
        )
        assert done.stderr == "False\n"


@pytest.mark.parametrize("name", ["ls", "show"])
def test_every_command_explains_itself(command: Command, name: str):
    done = command("runs", name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: asyncrunner runs {name} ")

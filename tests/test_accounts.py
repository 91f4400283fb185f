"""What subscribers cost, after a run: in a file, in a table, and said only if it matters."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
from toys import epochs, fit, points

from asyncrunner.accounts import RunAccount, SubscriberAccount, account_of
from asyncrunner.errors import RunDirError
from asyncrunner.events import AfterTrainIter, MetricsReady


async def test_a_finished_run_leaves_the_figures_of_every_subscription(tmp_path: Path):
    runner = fit(epochs(5, loader=points(4)), run_dir=tmp_path)

    def slow(event: AfterTrainIter) -> None:
        time.sleep(0.002)

    async def report(event: MetricsReady) -> None:
        await asyncio.sleep(0)

    runner.subscribe(AfterTrainIter, slow)
    runner.subscribe(MetricsReady, report, mode="background")
    await runner.train()
    account = RunAccount.read(tmp_path)
    accounts = {each.name: each for each in account.subscribers}
    assert {"slow", "report", "journal"} <= accounts.keys()
    slow_one, background = accounts["slow"], accounts["report"]
    assert (slow_one.calls, slow_one.errors, slow_one.dropped, slow_one.queued) == (20, 0, 0, 0)
    assert 0.002 <= slow_one.mean_s <= slow_one.max_s
    assert slow_one.share == pytest.approx(20 * slow_one.mean_s / account.seconds)
    assert (background.calls, background.share) == (20, None)
    assert 1 <= background.most_queued <= 20
    assert account.table().splitlines()[0].split()[:3] == ["subscriber", "mode", "calls"]
    assert len(account.table().splitlines()) == 1 + len(accounts)


async def test_one_that_was_disabled_or_was_too_slow_is_in_the_account_and_named(
    capsys: pytest.CaptureFixture[str],
):
    runner = fit(epochs(1, loader=points(6)), progress="plain")

    def fail(event: AfterTrainIter) -> None:
        raise ValueError("no")

    async def hang(event: AfterTrainIter) -> None:
        await asyncio.Event().wait()

    runner.bus.drain_s = 0.01
    runner.subscribe(AfterTrainIter, fail, on_error="disable")
    runner.subscribe(AfterTrainIter, hang, mode="background", queue=2)
    await runner.train()
    accounts = {
        a.name.rsplit(".")[-1]: a for a in account_of(runner.bus, run="", attempt=0).subscribers
    }
    assert (accounts["fail"].calls, accounts["fail"].errors) == (1, 1)
    assert accounts["hang"].calls + accounts["hang"].dropped == 6
    assert accounts["hang"].most_queued == 2
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert "'fail' failed in 1 of 1 calls" in notes[0]
    assert "was too slow for" in notes[1]


async def test_of_a_healthy_run_nothing_is_said(capsys: pytest.CaptureFixture[str]):
    runner = fit(epochs(1), progress="plain")
    runner.subscribe(AfterTrainIter, lambda e: None)
    await runner.train()
    assert "note" not in capsys.readouterr().out


def account(**changes: object) -> SubscriberAccount:
    figures: dict[str, object] = {
        **{"name": "save", "mode": "blocking", "calls": 10, "errors": 0, "dropped": 0},
        **{"queued": 0, "most_queued": 0, "mean_s": 0.5, "p95_s": 1.0, "max_s": 1.0, "share": 0.2},
    }
    return SubscriberAccount.model_validate(figures | changes)


def test_one_that_held_up_the_loop_is_named_with_its_share_and_the_way_out():
    (trouble,) = account().troubles(25.0)
    assert trouble == (
        "'save' held up the loop for 20 % of the run (500.0 ms a call, at most 1000); "
        'mode="background" would not'
    )
    assert list(account(share=0.01).troubles(25.0)) == []
    assert list(account(share=None).troubles(25.0)) == []
    assert list(account().troubles(5.0)) == []


def test_fields_of_a_later_version_are_ignored(tmp_path: Path):
    given = RunAccount(run="a", attempt=1, seconds=3.0, subscribers=[account()])
    given.write(tmp_path)
    file = tmp_path / "subscribers.json"
    file.write_text(file.read_text().replace('"run"', '"later": 1, "run"'))
    assert RunAccount.read(tmp_path) == given


def test_a_directory_without_figures_is_a_clear_error(tmp_path: Path):
    with pytest.raises(RunDirError, match="no run has come to its end there"):
        RunAccount.read(tmp_path)
    with pytest.raises(RunDirError, match="is no run directory"):
        RunAccount.read(tmp_path / "none")
    (tmp_path / "subscribers.json").write_text("{")
    with pytest.raises(RunDirError, match=r"subscribers\.json cannot be read"):
        RunAccount.read(tmp_path)


async def test_a_run_that_failed_leaves_its_figures_too(tmp_path: Path):
    runner = fit(epochs(1), run_dir=tmp_path)

    def fail(event: AfterTrainIter) -> None:
        raise ValueError("no")

    runner.subscribe(AfterTrainIter, fail)
    with pytest.raises(ValueError, match="no"):
        await runner.train()
    (failed,) = [a for a in RunAccount.read(tmp_path).subscribers if a.errors]
    assert failed.calls == 1


SCRIPT = """
import sys, torch
from asyncrunner import EpochTrainLoop, Runner, events
model = torch.nn.Linear(1, 1)
runner = Runner(
    model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), run_dir="run", progress="none",
    train=EpochTrainLoop(
        [torch.ones(2, 1)] * 10, lambda m, b: m(b).mean(), max_epochs=int(sys.argv[1])),
)
runner.subscribe(events.AfterTrainEpoch, lambda e: print(e.epoch, flush=True), name="say")
runner.run()
"""


def test_a_killed_run_leaves_the_figures_of_the_one_before(tmp_path: Path):
    (tmp_path / "train.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "train.py", "1"], cwd=tmp_path, check=True, env=environment)
    figures = (tmp_path / "run" / "subscribers.json").read_bytes()
    arguments = [sys.executable, "train.py", "1000000"]
    with subprocess.Popen(
        arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    ) as process:
        output: IO[bytes] | None = process.stdout
        assert output is not None
        assert output.readline() == b"1\n"
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "run" / "subscribers.json").read_bytes() == figures
    assert RunAccount.read(tmp_path / "run").attempt == 0

"""What a terminal and SLURM send goes to the whole process group, DataLoader workers included."""

import signal
from pathlib import Path

import pytest
from stopped import CODES, Start, newest, of_kind

SCRIPT = """\
import multiprocessing
import os
import sys
import time

import torch
from torch.utils.data import DataLoader, Dataset
from asyncrunner import EpochTrainLoop, Runner, ValLoop, events

torch.set_num_threads(1)
WORKERS = int(os.environ.get("WORKERS", "0"))
HOW = os.environ.get("HOW", "fork") if WORKERS else None

class Data(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        if WORKERS:
            time.sleep(0.02)  # so that training waits for the data
        return torch.full((2,), float(index))

def loader():
    return DataLoader(Data(), batch_size=2, num_workers=WORKERS, multiprocessing_context=HOW)

def step(model, batch):
    return model(batch).pow(2).mean()

def told(event):
    if event.iter == 3:
        print("holding", flush=True)
        if "HOLD" in os.environ:
            sys.stdin.readline()

def build():
    runner = Runner(
        torch.nn.Linear(2, 1),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.001),
        train=EpochTrainLoop(loader(), step, max_epochs=2),
        progress="none",
        journal="all",
        run_dir="run",
    )
    if "AGAIN" not in os.environ:
        runner.subscribe(events.AfterTrainIter, told)
    return runner
"""
AS_MAIN = """
if __name__ == "__main__":
    build().run()
"""
CHILD = """
def child_ends(event):
    if event.iter == 5:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join()
        print("child", child.exitcode, flush=True)

def main():
    runner = build()
    runner.subscribe(events.AfterTrainIter, child_ends)
    runner.run()

if __name__ == "__main__":
    main()
"""
CLI = ("-m", "asyncrunner", "run", "train.py")


CASES = [
    (signal.SIGINT, "0", "fork"),
    (signal.SIGINT, "2", "fork"),
    (signal.SIGINT, "4", "fork"),
    (signal.SIGINT, "2", "spawn"),
    (signal.SIGTERM, "2", "fork"),
    (signal.SIGUSR1, "2", "fork"),
    (signal.SIGTERM, "2", "spawn"),
]
EVERYDAY = [
    (signal.SIGINT, "4", "fork", "RUNNING"),
    (signal.SIGTERM, "2", "fork", "RUNNING"),
    (signal.SIGUSR1, "2", "fork", "HOLD"),
]


@pytest.mark.parametrize(
    ("number", "workers", "how", "held"),
    [
        pytest.param(*case, marks=[] if case in EVERYDAY else pytest.mark.soak)
        for case in [(*case, held) for case in CASES for held in ("HOLD", "RUNNING")]
    ],
)
def test_a_signal_to_the_whole_group_counts_once_and_the_run_goes_on_later(
    start: Start, tmp_path: Path, number: signal.Signals, workers: str, how: str, held: str
):
    Path("train.py").write_text(SCRIPT + AS_MAIN, "utf-8")
    process = start(*CLI, WORKERS=workers, HOW=how, **{held: "1"})
    process.wait_for("holding")
    process.send_to_group(number)
    process.go_on()
    ended = process.end()
    assert ended.code == CODES[number], ended
    (request,) = of_kind("stop_requested")
    assert request.reason == number.name
    assert of_kind("run_failed") == []
    assert len(of_kind("after_run")) == 1
    begun, done = of_kind("before_train_iter"), newest().iter
    # What had begun is done, and nothing was begun after it.
    assert [event.iter for event in begun] == list(range(done))
    assert begun[-1].seq < request.seq
    assert done == 4 if held == "HOLD" else 4 <= done < 40
    assert start(*CLI, WORKERS=workers, HOW=how, AGAIN="1").end().code == 0
    assert [event.iter for event in of_kind("run_resumed")] == [done]
    assert newest().iter == 40


def test_a_child_that_is_terminated_does_not_stop_its_parent(start: Start, tmp_path: Path):
    Path("train.py").write_text(SCRIPT + CHILD, "utf-8")
    ended = start(*CLI, AGAIN="1").end()
    assert (ended.code, of_kind("stop_requested")) == (0, [])
    assert newest().iter == 40
    assert "child -15" in ended.out

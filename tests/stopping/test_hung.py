"""Whatever hangs when a signal comes, the process ends in its grace time, and what was saved loads."""

import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from scripts import BASE
from stopped import Start

from asyncrunner.checkpoint.manifest import find_checkpoints

GRACE_S = 0.5
MARGIN_S = 4.0
"""What a busy machine may take besides."""


class Hang(NamedTuple):
    """What hangs, and how that ends."""

    script: str
    is_killed: bool = False
    """After 5 s more; else what hangs is left behind or cancelled."""
    saved: int = 5
    """The newest checkpoint's iterations, at least."""
    is_everyday: bool = True
    """Or one of a kind that another shows as well."""


# A subscriber in the background, on the event loop or in a thread
SLEEPING = """
@runner.on(events.AfterTrainIter, mode="background")
def sleep(event):
    time.sleep(1e9)
"""
SPINNING = """
@runner.on(events.AfterTrainIter, mode="background")
def spin(event):
    while True:
        pass
"""
DEAF = """
@runner.on(events.AfterTrainIter, mode="background")
async def deaf(event):
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""
# The iteration itself
AWAITING_STEP = """
async def train_step(model, batch):
    if runner.state.iter == 7:
        print("holding", flush=True)
        await asyncio.Event().wait()
    return model(batch).pow(2).mean()
"""
SLEEPING_STEP = """
def train_step(model, batch):
    if runner.state.iter == 7:
        print("holding", flush=True)
        time.sleep(1e9)
    return model(batch).pow(2).mean()
"""
STEP_IN_C = """
import ctypes

def train_step(model, batch):
    if runner.state.iter == 7:
        print("holding", flush=True)
        lock = ctypes.create_string_buffer(64)
        for _ in range(2):  # no signal interrupts this, and no handler of Python runs
            ctypes.CDLL(None).pthread_mutex_lock(lock)
    return model(batch).pow(2).mean()
"""
LOADER = """
class Loader:
    def __iter__(self):
        for number in range(5):
            if runner.state.iter == 7:
                print("holding", flush=True)
                threading.Event().wait()
            yield torch.ones(4, 2)

    def __len__(self):
        return 5
"""
ASYNC_LOADER = """
class Loader:
    async def __aiter__(self):
        for number in range(5):
            if runner.state.iter == 7:
                print("holding", flush=True)
                await asyncio.Event().wait()
            yield torch.ones(4, 2)

    def __len__(self):
        return 5
"""
# The disk, for the thread that writes the last checkpoint
WRITE = """
sync = os.fsync

def is_writer():
    return threading.current_thread().name == "asyncrunner checkpoint"

def hang(file):
    if HOLD and is_writer() and os.path.exists("run/checkpoints/latest"):
        threading.Event().wait()
    sync(file)

os.fsync = hang
"""
HANGS = {
    "a background subscriber that sleeps": Hang(SLEEPING, saved=8, is_everyday=False),
    "a background subscriber that spins": Hang(SPINNING),
    "a background subscriber that is deaf": Hang(DEAF, is_killed=True, saved=8),
    "a step that awaits": Hang(AWAITING_STEP, is_everyday=False),
    "a step that sleeps": Hang(SLEEPING_STEP, is_killed=True, is_everyday=False),
    "a step that sleeps in a thread": Hang(SLEEPING_STEP, is_killed=True, is_everyday=False),
    "a step in C code": Hang(STEP_IN_C, is_killed=True),
    "a loader": Hang(LOADER, is_killed=True, is_everyday=False),
    "an async loader": Hang(ASYNC_LOADER),
    "a write of the last checkpoint": Hang(WRITE),
}


def script_of(name: str) -> str:
    base = BASE.replace("import torch\n", "import time\nimport torch\n", 1)
    script = HANGS[name].script
    if "loader" in name:
        base = base.replace("[torch.ones(4, 2)] * 5", "Loader()")
    if "loader" in name or "step" in name:
        return f"{base}{script}\nrunner = build()\n"
    return f"{base}\nrunner = build()\n{script}"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if hang.is_everyday else pytest.mark.soak)
        for name, hang in HANGS.items()
    ],
)
def test_the_process_ends_all_the_same(start: Start, tmp_path: Path, name: str):
    hang = HANGS[name]
    Path("train.py").write_text(script_of(name), "utf-8")
    hold = {"HOLD": "epoch"} if "background" in name or "write" in name else {}
    compute = "thread" if "thread" in name else "inline"
    process = start(
        *("-m", "asyncrunner", "run", "--compute", compute, "--grace", str(GRACE_S), "train.py"),
        **hold,
    )
    process.wait_for("holding")
    began = time.monotonic()
    process.send(signal.SIGTERM)
    process.go_on()
    ended = process.end()
    took_s = time.monotonic() - began
    assert ended.code == 143, ended
    assert GRACE_S - 0.1 < took_s < GRACE_S + (5 if hang.is_killed else 0) + MARGIN_S
    assert ("is killed" in ended.err) == hang.is_killed
    assert Path("run/logs/stuck.txt").exists() == hang.is_killed
    found, rejected = find_checkpoints(Path("run/checkpoints"))
    saved = [one.manifest.iter for one in found if one.manifest.purpose == "regular"]
    assert saved[0] >= hang.saved
    assert rejected == {}


IN_C_WITH_THE_LOCK = """
runner = build()

@runner.on(events.AfterRun)
def hang(event):
    import ctypes

    lock = ctypes.create_string_buffer(64)
    for _ in range(2):  # PyDLL keeps the interpreter's lock: no thread of Python can run
        ctypes.PyDLL(None).pthread_mutex_lock(lock)
"""


@pytest.mark.soak
def test_code_that_keeps_the_interpreters_lock_while_the_run_ends_is_killed_by_the_c_library(
    start: Start, tmp_path: Path
):
    Path("train.py").write_text(BASE + IN_C_WITH_THE_LOCK, "utf-8")
    process = start("-m", "asyncrunner", "run", "--grace", str(GRACE_S), "train.py", HOLD="epoch")
    process.wait_for("holding")
    began = time.monotonic()
    process.send(signal.SIGTERM)
    process.go_on()
    ended = process.end()
    assert ended.code == 1  # faulthandler knows no other
    assert time.monotonic() - began < GRACE_S + 10 + MARGIN_S
    assert "in hang" in ended.err
    assert find_checkpoints(Path("run/checkpoints"))[1] == {}


SLOW_DISK = """
import signal

sync = os.fsync

def wait_for_a_second_ctrl_c_and_a_line(file):
    is_writer = threading.current_thread().name == "asyncrunner checkpoint"
    if HOLD and is_writer and os.path.exists("run/checkpoints/latest"):
        print("writing", flush=True)
        while signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
            time.sleep(0.001)
        print("heard", flush=True)
        sys.stdin.readline()
    sync(file)

os.fsync = wait_for_a_second_ctrl_c_and_a_line
runner = build()

@runner.on(events.AfterTrainIter, mode="background")
async def stuck(event):
    await asyncio.Event().wait()
"""


def test_a_second_ctrl_c_does_not_wait_for_the_background_but_for_the_checkpoint(
    start: Start, tmp_path: Path
):
    base = BASE.replace("import torch\n", "import time\nimport torch\n", 1)
    Path("train.py").write_text(base + SLOW_DISK, "utf-8")
    process = start("-m", "asyncrunner", "run", "train.py", HOLD="epoch")
    process.wait_for("holding")
    process.send(signal.SIGINT)
    process.go_on()
    process.wait_for("writing")
    began = time.monotonic()
    time.sleep(0.35)  # from here on it is another Ctrl-C
    process.send(signal.SIGINT)
    process.wait_for("heard")
    assert find_checkpoints(Path("run/checkpoints"))[0][0].manifest.iter == 5
    time.sleep(0.1)  # in which a run that did not wait for it would be gone
    assert process.popen.poll() is None
    process.go_on()
    ended = process.end()
    assert process.popen.returncode == 130, ended
    assert time.monotonic() - began < 10  # and not 30, the grace time
    found, rejected = find_checkpoints(Path("run/checkpoints"))
    assert (found[0].manifest.iter, rejected) == (8, {})

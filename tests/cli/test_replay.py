"""`asyncrunner replay`."""

from pathlib import Path

import pytest
from commands import Command
from journal_lines import some_events, write_run

SCRIPT = """\
from asyncrunner import Attachment
from asyncrunner.events import Fact, MetricsReady

def log(event: MetricsReady) -> None:
    print("loss", event.metrics["loss"])

class StopBelow:
    def attach(self, run: Attachment) -> None:
        self.run = run
        run.subscribe(MetricsReady, self.look)

    def look(self, event: MetricsReady) -> None:
        if event.metrics["loss"] < 6:
            self.run.stop("low")

number = 3
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / f"subscribers_{tmp_path.name.replace('-', '_')}.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    return str(write_run(tmp_path / "run", some_events(4), segment_bytes=900))


def test_a_function_gets_the_events_it_is_annotated_to_take(
    command: Command, script: str, run_dir: str
):
    done = command("replay", run_dir, "--to", f"{script}:log")
    assert (done.code, done.out) == (0, "loss 8.0\nloss 7.0\nloss 6.0\nloss 5.0\n")


def test_it_begins_where_it_is_told_to(command: Command, script: str, run_dir: str):
    done = command("replay", run_dir, "--to", f"{script}:log", "--since", "0.1")
    assert done.out == "loss 6.0\nloss 5.0\n"


def test_what_a_subscriber_decides_is_printed_and_changes_nothing(
    command: Command, script: str, run_dir: str
):
    before = {p.name: p.read_bytes() for p in Path(run_dir).iterdir() if p.is_file()}
    done = command("replay", run_dir, "--to", f"{script}:StopBelow")
    assert '"kind":"stop_requested"' in done.out
    assert '"by":"StopBelow"' in done.out
    assert {p.name: p.read_bytes() for p in Path(run_dir).iterdir() if p.is_file()} == before


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        (":number", [], "takes a function of one event, or an object with attach()"),
        (":lag", [], "has no 'lag' (did you mean log?)"),
        ("", [], "expected a name after the file"),
        (":log", ["--speed", "fast"], "--speed must be max, or like 10x, got 'fast'"),
        (":log", ["--speed", "0x"], "--speed must be max"),
    ],
)
def test_what_makes_no_sense_is_refused(
    command: Command, script: str, run_dir: str, to: str, options: list[str], message: str
):
    done = command("replay", run_dir, "--to", f"{script}{to}", *options)
    assert done.code == 2
    assert message in done.err

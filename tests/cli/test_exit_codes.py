import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command, Write

FAIL = """
def broken(event):
    raise ZeroDivisionError("no data left\\nreally")

runner = build()
runner.subscribe(events.AfterTrainIter, broken)
"""


def test_training_that_raised_exits_with_1_and_shows_where(
    command: Command, write: Write, train: str
):
    done = command("run", write(train, FAIL))
    assert done.code == 1
    lines = done.err.rstrip().splitlines()
    assert lines[-2:] == [
        "failed: ZeroDivisionError: no data left (run directory: runs/test)",
        "resume with: asyncrunner run --resume auto --run-dir runs/test train.py",
    ]
    assert '    raise ZeroDivisionError("no data left\\nreally")' in lines
    assert "ZeroDivisionError: no data left" in lines
    assert any("broken" in line and "AfterTrainIter" in line for line in lines)  # the note
    assert "runner.py" in done.err
    assert "script.py" not in done.err
    assert "typer" not in done.err


@pytest.mark.parametrize("guard", ["", "if __name__ == '__main__':\n    "])
def test_a_script_whose_own_run_raised_exits_with_1(
    command: Command, write: Write, train: str, guard: str
):
    plain = train.replace(" -> Runner", "")
    start = "def main():\n    raise KeyError('x')\n" + guard
    done = command("run", write(plain, f"{start}build().bus.subscribe(int, 3)\n"))
    assert done.code == 2  # the subscriber is refused
    done = command(
        "run",
        write(
            plain,
            f"def start(runner):\n    runner.run()\n    raise KeyError('x')\n{guard}start(build())\n",
        ),
    )
    assert done.code == 1
    failed, how_to_resume = done.err.splitlines()[-2:]
    assert failed == "failed: KeyError: 'x' (run directory: runs/test)"
    assert how_to_resume.startswith("resume with: asyncrunner run ")


def test_what_the_runner_refuses_exits_with_2_and_shows_the_users_line(
    command: Command, write: Write, train: str
):
    done = command(
        "run", write(train, "runner = build()\nrunner.subscribe(events.AfterTrainIter, 3)\n")
    )
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.rstrip().endswith("at train.py:23: runner.subscribe(events.AfterTrainIter, 3)")


def test_a_script_that_cannot_be_used_exits_with_2(command: Command, write: Write):
    done = command("run", "missing.py")
    assert done == (2, "", "error: there is no missing.py\n")


def test_an_error_of_ours_exits_with_70_and_asks_for_a_report(
    fresh: dict[str, str], tmp_path: Path
):
    code = (
        "import sys\nfrom asyncrunner.__main__ import main\n"
        "sys.executable = 'nowhere'\nmain(['doctor'])"  # what the doctor does not reckon with
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=fresh, cwd=tmp_path
    )
    assert done.returncode == 70
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("This is an error in asyncrunner itself: please report it.\n")

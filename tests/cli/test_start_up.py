import os
import pty
import subprocess
import sys

import pytest
from commands import Command

from asyncrunner import __version__

COMMANDS = (
    "run",
    "hooks",
    "events",
    "new",
    "doctor",
    "tail",
    "watch",
    "replay",
    "ctl",
    "stream",
    "serve",
    "runs",
    "ckpt",
)


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["events"],
        ["run", "--help"],
        ["ckpt", "diff", "--help"],
        ["runs", "--help"],
        ["serve", "--help"],
        ["stream", "--help"],
        ["stream", ".", "redis://localhost"],
    ],
)
def test_no_command_but_those_that_train_imports_torch(fresh: dict[str, str], args: list[str]):
    code = (
        "import sys\nfrom asyncrunner.__main__ import main\n"
        f"try:\n    main({args})\n"
        "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=fresh)
    assert done.stderr.splitlines()[-1] == "False"


def test_help_does_not_import_pydantic(fresh: dict[str, str]):
    code = (
        "import sys\nfrom asyncrunner.__main__ import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print('pydantic' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=fresh)
    assert done.stderr == "False\n"


def test_help_lists_the_commands(process: Command):
    done = process("--help")
    assert done.code == 0
    assert done.err == ""
    for command in COMMANDS:
        assert f"\n  {command} " in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(command: Command, name: str):
    done = command(name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: asyncrunner {name} ")


def test_the_version_is_shown(command: Command):
    assert command("--version") == (0, f"asyncrunner {__version__}\n", "")


def test_without_a_command_help_is_shown_and_the_exit_code_says_so(command: Command):
    done = command()
    assert done.code == 2
    assert "Usage: asyncrunner " in done.out + done.err


def test_an_unknown_command_is_refused_with_the_nearest(command: Command):
    done = command("rum", "train.py")
    assert done.code == 2
    assert "Did you mean 'run'?" in done.err


def test_a_terminal_gets_no_colours_if_it_asks_for_none(fresh: dict[str, str]):
    ours, terminal = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "asyncrunner", "run", "missing.py"],
            stdout=terminal,
            stderr=terminal,
            env=fresh | {"NO_COLOR": "1", "TERM": "xterm-256color"},
            check=False,
        )
        shown = os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(terminal)
    assert b"there is no missing.py" in shown
    assert b"\x1b" not in shown

import json
from pathlib import Path

import pytest
from commands import Command, Write

HELP = """\
Usage: asyncrunner run [RUN OPTIONS] train.py [OPTIONS]

  Fit nothing in particular.

Options, the parameters of build():
  --lr NUMBER       [default: 0.1]
  --epochs INTEGER  [default: 1]
  --help            Show this text.

For the run options, which come before the script: asyncrunner run --help
"""


def test_run_says_what_it_chose_and_trains(command: Command, write: Write, train: str):
    done = command("run", write(train))
    assert done.code == 0
    assert done.out.startswith("run: train.py:build (a function that returns a Runner)\n")
    assert "runs/test" in done.out + done.err


def test_all_that_follows_the_script_is_the_scripts(command: Command, write: Write):
    target = write("import sys\nif __name__ == '__main__':\n    print(sys.argv[1:])\n")
    for separator in ([], ["--"]):
        done = command("run", target, *separator, "--help", "--seed", "3", "--")
        assert "['--help', '--seed', '3', '--']\n" in done.out


def test_the_functions_parameters_are_shown_as_options(command: Command, write: Write, train: str):
    assert command("run", write(train), "--help") == (0, HELP, "")


def test_a_runner_object_does_not_train_when_asked_for_help(
    command: Command, write: Write, train: str
):
    plain = train.replace(" -> Runner", "")
    done = command("run", write(plain, "runner = build()\n"), "--help")
    assert done.code == 0
    assert done.out.startswith("train.py:runner (a Runner) takes no options.\n")


def test_arguments_that_a_runner_object_cannot_take_are_pointed_out(
    command: Command, write: Write, train: str
):
    plain = train.replace(" -> Runner", "")
    done = command("run", write(plain, "runner = build()\n"), "--epochs", "3")
    assert done.code == 0
    assert "note: train.py:runner (a Runner) takes no options; --epochs 3 was left" in done.err


def test_a_wrong_option_of_the_script_is_a_usage_error(command: Command, write: Write, train: str):
    done = command("run", write(train), "--lr", "fast")
    assert (done.code, done.err) == (2, "error: --lr must be a number, got 'fast'\n")


def test_a_table_of_a_file_gives_the_parameters_and_options_win(
    command: Command, write: Write, train: str, tmp_path: Path
):
    write("lr = 0.5\nepochs = 2\n", name="f.toml")
    show = train.replace("    return Runner", "    print('built', lr, epochs)\n    return Runner")
    done = command("run", "--config", "f.toml", write(show), "--epochs", "1")
    assert done.code == 0
    assert "built 0.5 1\n" in done.out


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("f.toml", "lr = ", "error: --config f.toml cannot be read: "),
        ("f.toml", "epoch = 1", "error: build() has no 'epoch' (did you mean epochs?)"),
        ("f.toml", "lr = 'x'", "error: 'lr' must be a number, got 'x'"),
        ("f.json", "{}", "error: --config must be a TOML file, got f.json"),
    ],
)
def test_a_bad_configuration_is_a_usage_error(
    command: Command, write: Write, train: str, name: str, text: str, message: str
):
    write(text, name=name)
    done = command("run", "--config", name, write(train))
    assert done.code == 2
    assert done.err.startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-epochs", "ten"], "--max-epochs must be a whole number, 1 or more, got 'ten'"),
        (["--seed", "-1"], "--seed must be a whole number from 0 to 4294967295, got '-1'"),
        (["--progress", "fancy"], "--progress must be auto, rich, plain or none, got 'fancy'"),
        (["--sanity", "0"], "--sanity must be a whole number, 1 or more, got '0'"),
        (["--limit", "none"], "--limit must be a whole number, 1 or more, got 'none'"),
        (
            ["--limit", "trian=3"],
            "--limit must be N, or train=N,val=N,test=N; got 'trian=3' with 'trian' in it",
        ),
    ],
)
def test_a_bad_option_is_a_usage_error(
    command: Command, write: Write, train: str, options: list[str], message: str
):
    assert command("run", *options, write(train)) == (2, "", f"error: {message}\n")


def test_a_bad_variable_is_a_usage_error(
    command: Command, write: Write, train: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ASYNCRUNNER_SEED", "x")
    done = command("run", write(train))
    assert done.code == 2
    assert done.err.startswith("error: ASYNCRUNNER_SEED must be a whole number")


def test_options_reach_the_runner_however_it_starts(command: Command, write: Write, train: str):
    count = """
iters = []
def counted(**options):
    runner = build(**options)
    runner.subscribe(events.AfterTrainIter, lambda event: print("iter", event.iter))
    return runner
"""
    plain = train.replace(" -> Runner", "")
    ways = {
        "object": "runner = counted()\n",
        "function": "def make(epochs: int = 1) -> Runner:\n    return counted(epochs=epochs)\n",
        "script": "if __name__ == '__main__':\n    counted().run()\n",
        "unguarded": "counted().run()\n",
    }
    for name, way in ways.items():
        options = ["--max-epochs", "2", "--limit", "train=2", "--run-dir", f"runs/{name}"]
        done = command("run", *options, write(plain, count, way, name=f"{name}.py"))
        assert done.code == 0, done.err
        assert done.out.count("iter ") == 4


def test_a_script_that_starts_its_run_itself_is_named_before_it_trains(
    command: Command, write: Write, train: str
):
    done = command("run", write(train.replace(" -> Runner", ""), "build().run()\nprint('end')\n"))
    assert done.code == 0
    assert done.out.startswith("run: train.py (a script that starts its run itself)\n")


def test_a_script_that_starts_nothing_is_pointed_out(command: Command, write: Write):
    done = command("run", write("if __name__ == '__main__':\n    pass\n"))
    assert done.code == 0
    assert done.err == "train.py ended without starting a run\n"


def test_the_scripts_own_exit_code_is_kept(command: Command, write: Write):
    done = command("run", write("import sys\nif __name__ == '__main__':\n    sys.exit(7)\n"))
    assert done.code == 7


def test_a_dry_run_shows_who_subscribed(command: Command, write: Write, train: str):
    watch = "runner = build()\n@runner.on(events.AfterTrainIter)\ndef watch_the_loss(event): ...\n"
    done = command("run", "--dry-run", write(train, watch))
    assert done.code == 0
    assert "watch_the_loss" in done.out


def test_json_leaves_stdout_to_events(process: Command, write: Write, train: str):
    write(train, "print('words of the script')\n")
    done = process("run", "--json", "train.py")
    assert done.code == 0
    kinds = [json.loads(line)["type"] for line in done.out.splitlines()]
    assert any("before_run" in kind for kind in kinds)
    assert any("after_run" in kind for kind in kinds)
    assert "words of the script" in done.err
    assert "run: train.py:build" in done.err


ARGPARSE = """\
import argparse

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr")
    parser.parse_args()
"""


def test_options_of_the_run_behind_a_script_that_refuses_them_are_pointed_out(
    command: Command, write: Write, train: str
):
    note = "note: asyncrunner run has {} too; its own options come before the script\n"
    for script, others in ((train, ""), (ARGPARSE, ", --max-epochs")):
        done = command("run", write(script), "--lr", "1", "--log", "csv", "--max-epochs=2")
        assert done.code == 2
        assert note.format(f"--log{others}") in done.err
        done = command("run", write(script), "--lrr", "1")
        assert done.code == 2
        assert "note:" not in done.err


def test_an_option_that_the_script_has_itself_is_not_pointed_out(
    command: Command, write: Write, train: str
):
    own = train.replace("lr: float = 0.1", "lr: float = 0.1, seed: int = 0")
    done = command("run", write(own), "--seed", "3", "--lr", "abc")
    assert done.code == 2
    assert "note:" not in done.err

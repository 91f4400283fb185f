from pathlib import Path

from commands import Command, Write

RUNNER = """
runner = build()

@runner.on(events.AfterTrainIter, every=50, priority=70)
def watch_the_loss(event): ...
"""
MAIN = """
def main():
    runner = build()
    runner.subscribe(events.AfterTrainIter, lambda event: None, name="mine")
    runner.run()
    raise SystemExit("trained")

if __name__ == "__main__":
    main()
"""


def test_hooks_shows_who_listens_to_what(command: Command, write: Write, train: str):
    done = command("hooks", write(train, RUNNER))
    assert (done.code, done.err) == (0, "")
    (line,) = [line for line in done.out.splitlines() if "watch_the_loss" in line]
    assert line.startswith("after_train_iter ")
    assert "70" in line
    assert "blocking" in line
    assert "every 50" in line


def test_hooks_takes_the_scripts_options(command: Command, write: Write, train: str):
    assert command("hooks", write(train), "--lr", "3").code == 0
    done = command("hooks", "train.py", "--lrr", "3")
    assert (done.code, done.err) == (2, "error: build() has no option --lrr (did you mean --lr?)\n")


def test_hooks_of_a_plain_script_shows_the_runner_where_it_would_start(
    command: Command, write: Write, train: str, tmp_path: Path
):
    text = train.replace(" -> Runner", "")
    done = command("hooks", write(text, MAIN))
    assert done.code == 0
    assert "mine" in done.out
    assert not (tmp_path / "runs").exists()


def test_hooks_of_a_script_that_starts_nothing_is_an_error(command: Command, write: Write):
    done = command("hooks", write("if __name__ == '__main__':\n    pass\n"))
    assert (done.code, done.err) == (2, "error: train.py ended without starting a run\n")


def test_hooks_of_a_finished_run_shows_what_its_subscribers_cost(
    command: Command, write: Write, train: str
):
    done = command("run", "--run-dir", "finished", "--progress", "none", write(train, RUNNER))
    assert done.code == 0, done.err
    done = command("hooks", "--run", "finished")
    assert (done.code, done.err) == (0, "")
    head, columns, *rows = done.out.splitlines()
    assert head.startswith("run finished-")
    assert columns.split()[:5] == ["subscriber", "mode", "calls", "errors", "dropped"]
    assert [row for row in rows if row.startswith("watch_the_loss")]


def test_hooks_wants_a_script_or_a_run_and_not_both(command: Command, write: Write, train: str):
    for arguments in ([], ["--run", "finished", write(train)]):
        done = command("hooks", *arguments)
        assert done.code == 2
        assert "give a SCRIPT, or --run DIR for a finished run" in done.err
    done = command("hooks", "--run", "nowhere")
    assert (done.code, done.err) == (2, "error: nowhere is no run directory\n")

import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch

from asyncrunner import EpochTrainLoop, Runner
from asyncrunner.errors import ConfigurationError, ScriptError
from asyncrunner.events import Event
from asyncrunner.script import Found, build_runner, load

HEAD = """\
import torch
from asyncrunner import EpochTrainLoop, Runner

def train_step(model, batch):
    return model(batch).pow(2).mean()

def make(lr=0.1, epochs=1):
    return Runner(
        lambda: torch.nn.Linear(2, 1),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=lr),
        train=EpochTrainLoop([torch.ones(4, 2)] * 2, train_step, max_epochs=epochs),
        progress="none",
        journal="off",
        seed=0,
    )
"""
BUILD = "def build(lr: float = 0.1, epochs: int = 1) -> Runner:\n    return make(lr, epochs)\n"
Write = Callable[..., str]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Write]:
    """Write a script into an empty folder; what loading it does to the process is undone."""
    monkeypatch.chdir(tmp_path)
    modules, path, argv = set(sys.modules), list(sys.path), list(sys.argv)
    main = sys.modules["__main__"]

    def write(*parts: str, name: str = "train.py") -> str:
        Path(name).write_text("".join(parts), "utf-8")
        return name

    yield write
    sys.path[:], sys.argv[:] = path, argv
    sys.modules["__main__"] = main
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def refusal(target: str, *args: str) -> str:
    with pytest.raises(ScriptError) as error:
        load(target, args).runner()
    return str(error.value)


# What is found


def test_a_runner_called_runner_is_found(script: Write):
    found = load(script(HEAD, BUILD, "other = make()\nrunner = make()\n"))
    assert str(found) == "train.py:runner (a Runner)"
    assert found.runner() is found.value


def test_a_runner_called_app_is_found(script: Write):
    assert load(script(HEAD, "app = make()\nother = make()\n")).name == "app"


def test_a_function_that_returns_a_runner_is_found(script: Write):
    found = load(script(HEAD, BUILD))
    assert str(found) == "train.py:build (a function that returns a Runner)"
    assert isinstance(found.runner(), Runner)


def test_a_return_annotation_may_be_text(script: Write):
    found = load(script(HEAD, "def build() -> 'Runner':\n    return make()\n"))
    assert found.name == "build"


def test_the_only_runner_of_another_name_is_found(script: Write):
    assert load(script(HEAD, "trainer = make()\nsame = trainer\n")).name == "trainer"


def test_a_name_after_a_colon_is_taken(script: Write):
    target = script(HEAD, BUILD, "runner = make()\nother = make()\n")
    assert load(f"{target}:other").name == "other"


def test_a_function_named_after_a_colon_needs_no_annotation(script: Write):
    assert isinstance(load(f"{script(HEAD)}:make").runner(), Runner)


def test_functions_that_were_imported_are_no_candidates(script: Write):
    script(HEAD, BUILD, name="library.py")
    found = load(script("from library import build, make\nrunner = make()\n"))
    assert found.kind == "runner"
    script("from library import build\nif __name__ == '__main__':\n    pass\n", name="other.py")
    assert load("other.py").kind == "main"


def test_a_plain_script_is_run_once_and_as_main(script: Write, capsys: pytest.CaptureFixture[str]):
    found = load(
        script(
            "import sys\nprint(__name__, *sys.argv)\nif __name__ == '__main__':\n    print('hi')\n"
        ),
        ["--lr", "1"],
    )
    assert str(found) == "train.py (a script, run as __main__)"
    assert capsys.readouterr().out == ""
    found.run()
    assert capsys.readouterr().out == "__main__ train.py --lr 1\nhi\n"


def test_a_name_that_turns_out_not_to_be_a_runner_leaves_the_main_block(script: Write):
    found = load(script(HEAD, "app = print\nif __name__ == '__main__':\n    app(1)\n"))
    assert found.kind == "main"


def test_a_script_that_starts_its_run_itself_is_not_run_twice(script: Write):
    runs = "runs = []\nrunner = make()\nrunner.on(events.BeforeRun)(lambda event: runs.append(1))\n"
    found = load(script("from asyncrunner import events\n", HEAD, runs, "runner.run()\n"))
    assert str(found) == "train.py (a script that starts its run itself)"
    found.run()
    assert sys.modules["train"].runs == [1]


# The script's surroundings


def test_the_script_has_its_own_arguments_and_finds_its_neighbours(script: Write, tmp_path: Path):
    script("value = 7\n", name="neighbour.py")
    target = script("import sys, neighbour\nargv = list(sys.argv)\n", HEAD, "runner = make()\n")
    load(str(tmp_path / target), ["--lr", "1"])
    module = sys.modules["train"]
    assert module.argv == [str(tmp_path / "train.py"), "--lr", "1"]
    assert module.neighbour.value == 7
    assert sys.path[0] == str(tmp_path)


def test_a_script_is_imported_under_its_own_name_so_that_workers_find_it(script: Write):
    load(script(HEAD, "class Data: ...\nrunner = make()\n", name="my-train.py"))
    assert sys.modules["my-train"].Data.__module__ == "my-train"


# Options


def test_the_parameters_of_the_function_are_options(script: Write):
    runner = load(script(HEAD, BUILD), ["--lr", "0.5", "--epochs", "3"]).runner()
    assert runner is not None
    assert isinstance(runner.train_loop, EpochTrainLoop)
    assert runner.train_loop.max_epochs == 3


def test_a_runner_from_a_checked_configuration_equals_one_built_from_objects(
    script: Write, tmp_path: Path
):
    load(script(HEAD, BUILD))
    build = sys.modules["train"].build

    def trace(runner: Runner) -> list[tuple[str, int, int]]:
        seen: list[tuple[str, int, int]] = []
        runner.subscribe(Event, lambda event: seen.append((event.kind, event.epoch, event.iter)))
        runner.run()
        return seen

    ways = [
        build(lr=0.5, epochs=2),
        build_runner(build, {"lr": 0.5, "epochs": 2}),
        build_runner(build, ["--lr", "0.5", "--epochs", "2"]),
        build_runner(build, ["--lr=0.5"], config={"lr": 3, "epochs": 2}),
    ]
    traces = [trace(runner) for runner in ways]
    assert traces[0]
    assert traces == [traces[0]] * 4
    weights = [list(runner.state.model.parameters()) for runner in ways]
    for other in weights[1:]:
        assert all(torch.equal(a, b) for a, b in zip(weights[0], other, strict=True))


def test_a_required_parameter_that_is_not_given_is_named(script: Write):
    target = script(HEAD, "def build(data: str, size: int) -> Runner:\n    return make()\n")
    assert refusal(target, "--size", "1") == "build() needs --data (text)"


def test_a_function_that_returns_no_runner_is_refused(script: Write):
    target = script(HEAD, "def build() -> Runner: ...\n")
    assert refusal(target) == "build() must return a Runner, and returned NoneType"


def test_a_coroutine_function_is_refused(script: Write):
    target = script(HEAD, "async def build() -> Runner:\n    return make()\n")
    assert refusal(target) == "build() is a coroutine function; write `def`, without async"


def test_a_configuration_needs_a_function(script: Write):
    with pytest.raises(ScriptError, match="only a function that returns a Runner takes --config"):
        load(script(HEAD, "runner = make()\n")).runner({"lr": 1})


# What is refused


def test_a_missing_script_is_refused_with_the_nearest_one(script: Write):
    script("")
    assert refusal("trian.py") == "there is no trian.py (did you mean train.py?)"
    assert refusal("train") == "there is no train (did you mean train.py?)"
    assert refusal("nowhere/x.py") == "there is no nowhere/x.py"


def test_a_folder_is_refused_with_the_scripts_in_it(script: Write):
    script("", name="a.py")
    script("", name="b.py")
    assert refusal(".") == ". is a folder; say which script in it: a.py, b.py"


def test_a_file_of_another_kind_is_refused(script: Write):
    assert refusal(script("", name="train.sh")) == (
        "train.sh is not a Python file: its name must end in .py"
    )


def test_an_error_while_importing_shows_the_users_frames_alone(script: Write):
    message = refusal(script("def load_data():\n    return 1 / 0\n\nrunner = load_data()\n"))
    assert message.startswith("train.py raised an error while it was imported\n\nTraceback")
    assert message.count("  File ") == message.count('train.py", line') == 2
    assert "line 4, in <module>\n    runner = load_data()\n" in message
    assert message.endswith("ZeroDivisionError: division by zero")


def test_a_mistake_of_the_runner_while_importing_is_the_runners_own_error(script: Write):
    target = script(HEAD, "runner = Runner(torch.nn.Linear(2, 1), precision='fp8')\n")
    with pytest.raises(ConfigurationError, match="fp8"):
        load(target)


def test_a_script_without_a_runner_is_told_what_was_looked_for(script: Write):
    message = refusal(script(HEAD))
    assert message.startswith("train.py has no runner in it. Looked for, at the top level:\n")
    assert "def build(lr: float = 1e-3) -> Runner" in message
    assert message.endswith("If make() returns one, annotate it: -> Runner")
    assert "has no runner in it" in refusal(script("x = 1\n", name="empty.py"))


def test_two_candidates_are_listed_with_their_lines(script: Write):
    target = script(HEAD, BUILD, "def other() -> Runner: ...\n")
    assert refusal(target).splitlines() == [
        "train.py has more than one runner; say which, as in train.py:build",
        "  train.py:16  build() -> Runner",
        "  train.py:18  other() -> Runner",
    ]


def test_a_runner_beside_a_function_is_ambiguous_only_if_there_are_options(script: Write):
    target = script(HEAD, BUILD, "runner = build()\n")
    assert load(target).kind == "runner"
    del sys.modules["train"]
    assert refusal(target, "--lr", "1").splitlines()[1:] == [
        "  train.py:16  build() -> Runner",
        "  train.py:18  runner, a Runner",
    ]


def test_a_name_that_the_script_does_not_have_is_refused_with_the_nearest(script: Write):
    target = script(HEAD, BUILD)
    assert refusal(f"{target}:bild") == "train.py has no 'bild' (did you mean build?)"
    del sys.modules["train"]
    assert refusal(f"{target}:torch").startswith("train.py:torch must be a Runner or a function")
    assert (
        refusal(f"{target}:") == "train.py:: expected a name after the colon, as in train.py:build"
    )


def test_a_script_named_like_a_module_in_use_is_refused(script: Write):
    message = refusal(script("", name="json.py"))
    assert message.startswith("json.py has the name of a module that is in use (")
    assert message.endswith("); rename it")


def test_what_was_found_says_what_it_is():
    assert str(Found(Path("a/b.py"), "main")) == "a/b.py (a script, run as __main__)"

from collections.abc import Callable
from pathlib import Path

import pytest

from asyncrunner.errors import ScriptError
from asyncrunner.script.outline import Outline, outline_of


@pytest.fixture
def outline(tmp_path: Path) -> Callable[[str], Outline]:
    def read(text: str) -> Outline:
        path = tmp_path / "train.py"
        path.write_text(text, "utf-8")
        return outline_of(path)

    return read


@pytest.mark.parametrize(
    "text",
    [
        "runner = make()",
        "from lib import runner",
        "from lib import thing as app",
        "runner: object = make()",
        "def build() -> Runner: ...",
        "def build() -> 'asyncrunner.Runner': ...",
        "def build() -> MyRunner: ...",
        "trainer = Runner(model)",
        "trainer = asyncrunner.Runner(model)",
        "def build() -> Runner: ...\ntrainer = build()",
        "try:\n    runner = make()\nexcept ImportError:\n    pass",
        "with torch.device('cpu'):\n    trainer = Runner(model)",
        "if torch.cuda.is_available():\n    pass\nelse:\n    trainer = Runner(model)",
    ],
)
def test_a_script_that_may_hold_a_runner_promises_one(outline: Callable[[str], Outline], text: str):
    assert outline(text).promises_runner


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def main():\n    runner = Runner(model)\n    runner.run()",
        "if __name__ == '__main__':\n    runner = Runner(model)\n    runner.run()",
        "model = Linear(2, 1)\nmodel.runner = 3",
    ],
)
def test_a_script_that_keeps_its_runner_to_itself_promises_none(
    outline: Callable[[str], Outline], text: str
):
    assert not outline(text).promises_runner


def test_both_spellings_of_the_main_block_are_seen(outline: Callable[[str], Outline]):
    assert outline("if __name__ == '__main__':\n    pass").has_main_block
    assert outline('if "__main__" == __name__:\n    pass').has_main_block
    assert not outline("if __name__ == 'train':\n    pass").has_main_block


def test_names_know_the_line_they_are_first_bound_in(outline: Callable[[str], Outline]):
    text = "import torch\n\ndef build() -> Runner: ...\nrunner = build()\nrunner = build()\n"
    assert outline(text).lines == {"torch": 1, "build": 3, "runner": 4}


def test_a_function_that_builds_a_runner_and_does_not_say_so_is_noticed(
    outline: Callable[[str], Outline],
):
    text = "def build():\n    return Runner(1)\ndef other():\n    pass"
    assert outline(text).unannotated == ["build"]


def test_text_that_is_not_python_is_refused_with_its_line(
    outline: Callable[[str], Outline], tmp_path: Path
):
    with pytest.raises(ScriptError, match=r"train\.py is not valid Python") as error:
        outline("x = 1\ndef build(:\n    pass\n")
    assert 'train.py", line 2\n    def build(:\n' in str(error.value)
    assert "SyntaxError: invalid syntax" in str(error.value)


@pytest.mark.parametrize("data", [b"x = 1\0", b"\xff\xfe\x00", b"# coding: klingon\n"])
def test_bytes_that_are_no_python_text_are_refused(tmp_path: Path, data: bytes):
    path = tmp_path / "train.py"
    path.write_bytes(data)
    with pytest.raises(ScriptError, match=r"train\.py (is not valid|cannot be read as) Python"):
        outline_of(path)

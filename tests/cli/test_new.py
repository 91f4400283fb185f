from pathlib import Path

import pytest
from commands import Command

TEMPLATES = ("digits", "mnist", "lm", "plain")


@pytest.mark.parametrize("template", TEMPLATES)
def test_new_copies_the_example(command: Command, tmp_path: Path, template: str):
    from asyncrunner.cli.new import EXAMPLES

    done = command("new", "train", "--template", template)
    assert done.code == 0
    assert (tmp_path / "train.py").read_bytes() == (EXAMPLES / f"{template}.py").read_bytes()
    assert done.out == "wrote train.py\nnext: asyncrunner run train.py\n"


def test_new_takes_a_file_name_as_it_is(command: Command, tmp_path: Path):
    assert command("new", "a.py", "--template", "plain").code == 0
    assert (tmp_path / "a.py").exists()


def test_new_puts_the_example_into_a_folder(command: Command, tmp_path: Path):
    (tmp_path / "project").mkdir()
    done = command("new", "project", "--template", "plain")
    assert done.out == "wrote project/plain.py\nnext: asyncrunner run project/plain.py\n"
    assert (tmp_path / "project" / "plain.py").exists()


def test_new_never_overwrites(command: Command, tmp_path: Path):
    (tmp_path / "train.py").write_text("mine")
    done = command("new", "train", "--template", "plain")
    assert done.code == 2
    assert done.err == "error: train.py exists already, and is left as it is\n"
    assert (tmp_path / "train.py").read_text() == "mine"


def test_new_needs_the_folder(command: Command):
    done = command("new", "nowhere/train")
    assert (done.code, done.err) == (2, "error: there is no folder nowhere\n")


def test_new_refuses_an_unknown_template(command: Command, tmp_path: Path):
    done = command("new", "train", "--template", "cifar")
    assert done.code == 2
    for template in TEMPLATES:
        assert template in done.err
    assert not (tmp_path / "train.py").exists()

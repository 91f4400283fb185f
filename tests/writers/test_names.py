import subprocess
import sys
from pathlib import Path

import pytest
from written import trained

from asyncrunner import writers
from asyncrunner.errors import ConfigurationError
from asyncrunner.settings import Settings
from asyncrunner.writers import CSV, JSONL, NAMES, TensorBoard, find_writers
from asyncrunner.writers.names import chosen

EXTRAS = ("mlflow", "tensorboard", "trackio", "wandb")


def test_every_name_has_its_writer():
    for name, class_name in NAMES.items():
        (writer,) = find_writers(name)
        assert type(writer) is getattr(writers, class_name)
        assert writer.name == name
        assert class_name in writers.__all__


def test_names_are_given_with_commas_or_in_a_list_with_writers_among_them():
    board = TensorBoard("here")
    assert [one.name for one in find_writers("csv, jsonl")] == ["csv", "jsonl"]
    assert find_writers(["csv", board])[1] is board
    assert find_writers(board) == (board,)
    assert find_writers(()) == find_writers("none") == ()


def test_a_name_that_does_not_exist_lists_those_that_do():
    with pytest.raises(ConfigurationError) as error:
        trained(None, "csv,tensorbord")
    assert str(error.value) == (
        "there is no writer 'tensorbord' (did you mean tensorboard?): "
        "choose from csv, jsonl, mlflow, tensorboard, trackio, wandb"
    )


def test_what_is_no_writer_is_refused():
    with pytest.raises(ConfigurationError, match=r"takes names of writers and Writers, got 3"):
        trained(None, [3])
    with pytest.raises(ConfigurationError, match="the writer 'csv' was given twice"):
        trained(None, ["csv", CSV("logs")])


def test_the_setting_wins_but_a_writer_that_it_names_stays_as_it_was_given():
    given = (CSV("here"), JSONL("there"))
    assert chosen(None, given) == given
    assert chosen("none", given) == ()
    board, table = chosen("tensorboard,csv", given)
    assert isinstance(board, TensorBoard)
    assert table is given[0]


def test_a_bad_setting_says_what_was_expected():
    with pytest.raises(ConfigurationError) as error:
        Settings().override(log="csv,wb")
    assert str(error.value) == (
        "--log must be none, or one or more of csv, jsonl, mlflow, tensorboard, trackio, wandb "
        "with commas between, got 'csv,wb'"
    )
    with pytest.raises(ConfigurationError, match="ASYNCRUNNER_LOG must be none, or one or more"):
        Settings.from_environment({"ASYNCRUNNER_LOG": "x"})


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_library_that_is_missing_is_named_with_its_extra_before_anything_is_written(
    tmp_path: Path, extra: str, monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in sys.modules if name.split(".")[0] == extra]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, extra, None)  # what an import of it then says is: not found
    with pytest.raises(ConfigurationError) as error:
        trained(tmp_path / "run", extra).run()
    assert f'the writer "{extra}" needs a library that cannot be imported' in str(error.value)
    assert f'pip install "asyncrunner[{extra}]"' in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in EXTRAS])
def test_a_writer_of_files_needs_no_library(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    for extra in EXTRAS:
        monkeypatch.setitem(sys.modules, extra, None)
    trained(tmp_path / "run", name).run()
    assert any((tmp_path / "run" / "logs").iterdir())


def test_each_library_is_an_extra_and_is_there_for_the_tests():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for extra in EXTRAS:
        assert extras[extra][0].startswith(extra)
        assert any(
            extra in needed for needed in extras["test"] if needed.startswith("asyncrunner[")
        )


def test_the_writers_are_imported_without_their_libraries_and_without_torch():
    code = (
        "import sys, asyncrunner.writers; "
        f"assert not {{'torch', *{EXTRAS}}} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, cast

import pytest
from pydantic import BaseModel, Field

from asyncrunner.errors import ScriptError
from asyncrunner.script.options import options_of, read_arguments, read_table


class Schedule(Enum):
    CONSTANT = "constant"
    COSINE = "cosine"


class Data(BaseModel):
    folder: Path
    workers: int = 0


def one(function: Callable[..., object], *words: str) -> object:
    (value,) = read_arguments(function, words).values()
    return value


@pytest.mark.parametrize(
    ("annotation", "words", "expected"),
    [
        (int, ["--x", "3"], 3),
        (int, ["--x=-3"], -3),
        (float, ["--x", "-3e-4"], -3e-4),
        (str, ["--x", "--y"], "--y"),
        (Path, ["--x", "a/b"], Path("a/b")),
        (bool, ["--x"], True),
        (bool, ["--no-x"], False),
        (bool, ["--x=off"], False),
        (Literal["adam", "sgd"], ["--x", "sgd"], "sgd"),
        (Literal[1, 2], ["--x", "2"], 2),
        (Schedule, ["--x", "cosine"], Schedule.COSINE),
        (list[int], ["--x", "1", "--x", "2"], [1, 2]),
        (tuple[int, float], ["--x", "1", "--x", "2"], (1, 2.0)),
        (list[Schedule], ["--x", "cosine"], [Schedule.COSINE]),
        (int | None, ["--x", "3"], 3),
        (int | None, ["--x", "none"], None),
        (Optional[Literal["a"]], ["--x", "a"], "a"),  # noqa: UP045  # the old spelling works too
        (Annotated[float, Field(gt=0)], ["--x", "1"], 1.0),
        (dict[str, int], ["--x", '{"a": 1}'], {"a": 1}),
        (Data, ["--x", '{"folder": "d"}'], Data(folder=Path("d"))),
    ],
)
def test_the_annotation_says_what_the_words_mean(annotation: Any, words: list[str], expected: Any):
    def build(x: Any): ...

    build.__annotations__["x"] = annotation
    value = one(build, *words)
    assert value == expected
    assert type(value) is type(expected)


def test_underscores_may_be_typed_as_dashes_or_as_they_are():
    def build(weight_decay: float = 0.0, use_amp: bool = True): ...

    assert read_arguments(build, ["--weight-decay", "1", "--no-use-amp"]) == {
        "weight_decay": 1.0,
        "use_amp": False,
    }
    assert read_arguments(build, ["--weight_decay=1", "--no-use_amp"]) == {
        "weight_decay": 1.0,
        "use_amp": False,
    }


def test_without_an_annotation_the_default_says_the_type():
    def build(lr=0.1, name="a", extra=None): ...  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]

    words = ["--lr", "1", "--name", "2", "--extra", "3"]
    function = cast("Callable[..., object]", build)
    assert read_arguments(function, words) == {"lr": 1.0, "name": "2", "extra": "3"}


def test_an_annotation_that_cannot_be_evaluated_counts_as_none():
    def build(lr: "NotImported" = 0.1): ...  # pyright: ignore[reportUndefinedVariable, reportUnknownParameterType]  # noqa: F821

    assert one(cast("Callable[..., object]", build), "--lr", "3") == 3.0


def test_the_last_of_two_values_wins():
    def build(lr: float = 0.1): ...

    assert one(build, "--lr", "1", "--lr", "2") == 2.0


def refusal(function: Callable[..., object], *words: str) -> str:
    with pytest.raises(ScriptError) as error:
        read_arguments(function, words)
    return str(error.value)


def test_a_bad_value_names_the_option_what_it_must_be_and_what_it_was():
    def build(
        lr: Annotated[float, Field(gt=0)] = 0.1,
        epochs: int = 1,
        optimizer: Literal["adam", "sgd"] = "adam",
        hidden: list[int] | None = None,
        data: Data | None = None,
    ): ...

    assert refusal(build, "--epochs", "few") == "--epochs must be a whole number, got 'few'"
    assert refusal(build, "--lr", "0") == (
        "--lr must be a number, got '0' (Input should be greater than 0)"
    )
    assert refusal(build, "--optimizer", "sdg") == (
        "--optimizer must be adam or sgd, got 'sdg' (did you mean sgd?)"
    )
    assert refusal(build, "--hidden", "8", "--hidden", "x") == (
        "--hidden must be a whole number, or none, got 'x'"
    )
    assert refusal(build, "--data", '{"fodler": "d"}') == (
        '--data must be a Data, or none, got \'{"fodler": "d"}\' (folder: Field required)'
    )


def test_an_unknown_option_is_refused_with_the_nearest_one():
    def build(learning_rate: float = 0.1): ...

    assert refusal(build, "--learning-rat", "1") == (
        "build() has no option --learning-rat (did you mean --learning-rate?)"
    )
    assert refusal(build, "--zzz") == "build() has no option --zzz"
    assert refusal(build, "5") == "build() takes options, got '5'"


def test_an_option_without_its_value_is_refused():
    def build(lr: float = 0.1): ...

    assert refusal(build, "--lr") == "--lr needs a value: a number"


def test_a_table_gives_the_same_as_the_words():
    def build(
        lr: float = 0.1,
        hidden: list[int] | None = None,
        schedule: Schedule = Schedule.CONSTANT,
        data: Data | None = None,
    ): ...

    words = ["--lr", "1", "--hidden", "2", "--schedule", "cosine", "--data", '{"folder": "d"}']
    table = {"lr": 1, "hidden": [2], "schedule": "cosine", "data": {"folder": "d"}}
    assert read_table(build, table) == read_arguments(build, words)


def test_a_bad_key_or_value_in_a_table_is_named():
    def build(epochs: int = 1): ...

    with pytest.raises(ScriptError, match=r"build\(\) has no 'epoch' \(did you mean epochs\?\)"):
        read_table(build, {"epoch": 1})
    with pytest.raises(ScriptError, match=r"'epochs' must be a whole number, got 1\.5"):
        read_table(build, {"epochs": 1.5})


def test_what_text_cannot_give_stays_with_its_default():
    def build(model: object, *, device: Callable[[], int] = int, lr: float = 0.1, **more: int): ...

    class Model: ...

    def with_model(model: Model): ...

    def with_default(model: Model | None = None, lr: float = 0.1): ...

    assert [option.name for option in options_of(build)] == ["model", "device", "lr"]
    assert [option.name for option in options_of(with_default)] == ["lr"]
    with pytest.raises(ScriptError, match=r"with_model\(\) needs 'model', and its type Model"):
        options_of(with_model)


def test_the_notes_in_the_docstring_explain_the_options():
    def build(lr: float = 0.1, epochs: int = 1, name: str = "a"):
        """Build.

        Args:
            lr: The learning rate, which
                falls.
            epochs (int): How often.

        Returns:
            name: This is another section.
        """

    described = {option.name: option.help for option in options_of(build)}
    assert described == {
        "lr": "The learning rate, which falls.",
        "epochs": "How often.",
        "name": "",
    }


def test_a_description_in_the_annotation_wins_over_the_docstring():
    def build(lr: Annotated[float, Field(description="From 0 to 1.")] = 0.1):
        """Build.

        Args:
            lr: Another.
        """

    (option,) = options_of(build)
    assert option.help == "From 0 to 1."

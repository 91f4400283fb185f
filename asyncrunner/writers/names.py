"""Writers by the names that `--log` and `Runner(log=…)` know."""

from collections.abc import Iterable
from importlib import import_module
from typing import cast

from ..errors import ConfigurationError
from ..suggest import did_you_mean
from .writer import Writer

__all__ = ["NAMES", "Log", "find_writers", "names_in"]

NAMES = {
    "csv": "CSV",
    "jsonl": "JSONL",
    "mlflow": "MLflow",
    "tensorboard": "TensorBoard",
    "trackio": "Trackio",
    "wandb": "WandB",
}
"""The class of each writer; its module has its name."""

Log = str | Writer | Iterable[str | Writer]
"""Names, with commas between them if there are several, and writers."""


def names_in(text: str) -> list[str]:
    """Return the names in a list with commas; `none` is an empty one.

    Raises:
        ConfigurationError: If there is no such writer; with those that there are.
    """
    names = [name.strip() for name in text.split(",")]
    if names == ["none"]:
        return []
    for name in names:
        if name not in NAMES:
            raise ConfigurationError(
                f"there is no writer {name!r}{did_you_mean(name, NAMES)}: "
                f"choose from {', '.join(NAMES)}"
            )
    return names


def find_writers(log: Log) -> tuple[Writer, ...]:
    """Return the writers that are named or given, each once.

    Raises:
        ConfigurationError: If there is no such writer, or two have one name.
    """
    given = [log] if isinstance(log, str | Writer) else list(log)
    writers: list[Writer] = []
    for one in given:
        if isinstance(one, str):
            writers.extend(_made(name) for name in names_in(one))
        elif isinstance(one, Writer):  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
            writers.append(one)
        else:
            raise ConfigurationError(f"log= takes names of writers and Writers, got {one!r}")
    names = [writer.name for writer in writers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"the writer {name!r} was given twice")
    return tuple(writers)


def chosen(setting: str | None, writers: tuple[Writer, ...]) -> tuple[Writer, ...]:
    """Return the writers of a run: those that the setting names, or else those that were given.

    One that was given and is named as well stays as it was given.
    """
    if setting is None:
        return writers
    as_given = {writer.name: writer for writer in writers}
    return find_writers([as_given.get(name, name) for name in names_in(setting)])


def _made(name: str) -> Writer:
    module = import_module(f".{name}", __package__)
    return cast("type[Writer]", getattr(module, NAMES[name]))()

"""What in a checkpoint's content could not be loaded again, and where it is.

Loading executes nothing, and so refuses every class but a few. That has to be said when it is saved,
and with the place: of a class alone nobody knows which subscriber put it there.
"""

import io
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch

__all__ = ["check_loadable", "places"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.Tensor, torch.nn.Parameter)


def check_loadable(file: Path, content: Mapping[str, Any]) -> None:
    """Refuse what was written into the file if it could not be loaded again.

    Raises:
        TypeError: With where it is in the content.
    """
    classes = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    if classes:
        what = places(content) or f"something of {', '.join(sorted(classes))}"
        raise TypeError(
            f"{what} could not be loaded again without executing code; "
            "store tensors, numbers, text, lists and dicts"
        )


def places(content: Mapping[str, Any]) -> str:
    """Return where what cannot be saved or loaded is, such as `stateful.EMA.decay`, and its class."""
    found = [f"{at} ({_class_of(value)})" for at, value in _unloadable(content, "")]
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def _class_of(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _unloadable(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    if type(value) in (dict, OrderedDict):
        for key, part in cast("dict[Any, Any]", value).items():
            inner = f"{at}.{key}".lstrip(".")
            yield from _unloadable(key, f"the key {inner}")
            yield from _unloadable(part, inner)
    elif type(value) in (list, tuple):
        for index, part in enumerate(cast("list[Any]", value)):
            yield from _unloadable(part, f"{at}[{index}]")
    elif type(value) not in _PLAIN and not _is_loadable(value):
        yield at, value


def _is_loadable(value: Any) -> bool:
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        return not torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # whatever the objects of a user raise
        return False

"""MMEngine's message hub for hooks that come without MMEngine, and the state of either.

Numbers by name with their history, and other things by name: what `RuntimeInfoHook`, `IterTimerHook`
and hooks in their manner write, and others read. Where MMEngine has been imported, its own is used.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, cast

import torch

from ..errors import ConfigurationError


class HistoryBuffer:
    """The values that a name has had, and how many samples each stands for."""

    def __init__(
        self, log_history: Sequence[float] = (), count_history: Sequence[float] = ()
    ) -> None:
        self._values = list(log_history)
        self._counts = list(count_history)

    @property
    def data(self) -> tuple[list[float], list[float]]:
        """The values, and their counts."""
        return self._values, self._counts

    def update(self, log_val: float, count: float = 1) -> None:
        """Add a value."""
        self._values.append(log_val)
        self._counts.append(count)

    def current(self) -> float:
        """Return the newest value."""
        return self._values[-1]

    def mean(self, window_size: int | None = None) -> float:
        """Return the sum of the newest values over the sum of their counts."""
        start = -(window_size or len(self._values))
        return sum(self._values[start:]) / sum(self._counts[start:])

    def max(self, window_size: int | None = None) -> float:
        """Return the greatest of the newest values."""
        return max(self._values[-(window_size or len(self._values)) :])

    def min(self, window_size: int | None = None) -> float:
        """Return the least of the newest values."""
        return min(self._values[-(window_size or len(self._values)) :])


class MessageHub:
    """What hooks tell one another, by name."""

    def __init__(self) -> None:
        self.log_scalars: dict[str, HistoryBuffer] = {}
        self.runtime_info: dict[str, Any] = {}
        self._not_resumed: set[str] = set()

    def update_scalar(self, key: str, value: Any, count: int = 1, resumed: bool = True) -> None:
        """Add a number. The host waits for the device if it is there."""
        self._note(key, resumed)
        number = value.item() if hasattr(value, "item") else value
        if not isinstance(number, Real):
            raise ConfigurationError(f"scalar {key!r} must be a number, got {value!r:.100}")
        self.log_scalars.setdefault(key, HistoryBuffer()).update(cast("float", number), count)

    def update_scalars(self, log_dict: Mapping[str, Any], resumed: bool = True) -> None:
        """Add numbers; each may be a dict with `value` and `count`."""
        for key, given in log_dict.items():
            parts = cast("dict[str, Any]", given) if isinstance(given, dict) else {"value": given}
            self.update_scalar(key, parts["value"], parts.get("count", 1), resumed)

    def update_info(self, key: str, value: Any, resumed: bool = True) -> None:
        """Remember something in place of what the name stood for before."""
        self._note(key, resumed)
        self.runtime_info[key] = value

    def update_info_dict(self, info_dict: Mapping[str, Any], resumed: bool = True) -> None:
        """Remember several things."""
        for key, value in info_dict.items():
            self.update_info(key, value, resumed)

    def pop_info(self, key: str, default: Any = None) -> Any:
        """Forget something, and return it."""
        return self.runtime_info.pop(key, default)

    def get_scalar(self, key: str) -> HistoryBuffer:
        """Return the history of a number.

        Raises:
            KeyError: If there is none of that name.
        """
        return self.log_scalars[key]

    def get_info(self, key: str, default: Any = None) -> Any:
        """Return what the name stands for."""
        return self.runtime_info.get(key, default)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run is to have."""
        kept = self._not_resumed
        return {
            "log_scalars": {key: b for key, b in self.log_scalars.items() if key not in kept},
            "runtime_info": {key: i for key, i in self.runtime_info.items() if key not in kept},
            "resumed_keys": {},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Have what was saved, beside what is there."""
        self.log_scalars |= state_dict["log_scalars"]
        self.runtime_info |= state_dict["runtime_info"]

    def _note(self, key: str, resumed: bool) -> None:
        if not resumed:
            self._not_resumed.add(key)


def hub_state(hub: Any) -> dict[str, Any]:
    """Return the state of a hub, ours or MMEngine's, in what loads with `weights_only=True`."""
    state = hub.state_dict()
    scalars = {
        key: [torch.as_tensor(numbers, dtype=torch.float64) for numbers in buffer.data]
        for key, buffer in state["log_scalars"].items()
    }
    info = {key: value for key, value in state["runtime_info"].items() if is_plain(value)}
    resumed = {key: is_it for key, is_it in state["resumed_keys"].items() if key in scalars | info}
    return {"scalars": scalars, "info": info, "resumed_keys": resumed}


def restore_hub(hub: Any, state: Mapping[str, Any], buffer: Callable[..., Any]) -> None:
    """Put a hub into a saved state.

    Args:
        hub: Ours or MMEngine's.
        state: What `hub_state` returned.
        buffer: The class of its histories.
    """
    scalars = {
        key: buffer(values.tolist(), counts.tolist())
        for key, (values, counts) in state["scalars"].items()
    }
    hub.load_state_dict(
        {
            "log_scalars": scalars,
            "runtime_info": state["info"],
            "resumed_keys": state["resumed_keys"],
        }
    )


def is_plain(value: Any) -> bool:
    """Whether it is made of numbers, texts and tensors alone."""
    if type(value) is dict:
        inside = cast("dict[Any, Any]", value)
        return all(is_plain(x) for pair in inside.items() for x in pair)
    if type(value) in (list, tuple):
        return all(map(is_plain, cast("Sequence[Any]", value)))
    # Exact types: NumPy's float64 is a float too, and does not load with weights_only.
    return type(value) in (type(None), bool, int, float, str, torch.Tensor)

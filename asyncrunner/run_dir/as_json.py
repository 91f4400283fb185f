"""What is known of a run as values that JSON has."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

__all__ = ["as_json"]


def as_json(value: Any) -> Any:
    """Return a value as JSON has it: paths as text, times in ISO 8601, NaN and infinities as strings."""
    match value:
        case Mapping():
            items = cast("Mapping[Any, Any]", value).items()
            return {str(name): as_json(item) for name, item in items}
        case list() | tuple():
            return [as_json(item) for item in cast("Sequence[Any]", value)]
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case datetime():
            return value.isoformat()
        case Path():
            return str(value)
        case _:
            return value

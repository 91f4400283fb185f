"""A file of records, one line of JSON each; for `jq`, pandas and scripts of one's own."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from pydantic_core import from_json, to_json

from ..errors import ConfigurationError
from .tails import append, cut_tail
from .writer import Record, Run, Status, Writer

__all__ = ["JSONL"]

_IsKept = Callable[[int, int, int], bool]
"""Whether the record of an attempt, a seq and a global iteration stays."""


class JSONL(Writer):
    """Writes `logs/metrics.jsonl` in the run directory, or the file that is named.

    A line is the record as it is; NaN and infinities are the strings `"NaN"`, `"Infinity"` and
    `"-Infinity"`, as JSON has no others. Lines of iterations that are trained again are cut off.

    Args:
        path: The file. It is needed without a run directory, and then replaced by each new run.
    """

    name: ClassVar[str] = "jsonl"

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._given = None if path is None else Path(path)
        self._path: Path | None = None
        self._fd = -1

    def prepare(self, run_dir: Path | None) -> None:
        """Choose the file."""
        self._path = self._given or (run_dir and run_dir / "logs" / "metrics.jsonl")
        if self._path is None:
            raise ConfigurationError(
                'the writer "jsonl" needs a run directory (--run-dir DIR), or a file: JSONL("metrics.jsonl")'
            )

    def open(self, run: Run) -> int | None:
        """Open the file, without what comes after the last record that was taken."""
        assert self._path is not None
        is_new = not self._path.exists()
        self._cut(lambda attempt, seq, _: (attempt, seq) <= run.taken)
        return 0 if is_new else None

    def write(self, records: Sequence[Record]) -> None:
        """Append a line for each record."""
        append(self._fd, b"".join(_line(record) for record in records))

    def rewind(self, global_iter: int) -> bool:
        """Cut off the lines after it."""
        self._cut(lambda _, __, last: last <= global_iter)
        return True

    def close(self, status: Status) -> None:
        """See the file to the disk and close it."""
        if self._fd >= 0:
            try:
                os.fsync(self._fd)
            finally:
                os.close(self._fd)
                self._fd = -1

    def _cut(self, is_kept: _IsKept) -> None:
        assert self._path is not None

        def line_is_kept(line: bytes) -> bool:
            fields = from_json(line)
            return is_kept(fields["attempt"], fields["seq"], fields["global_iter"])

        self.close("interrupted")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        cut_tail(self._path, line_is_kept)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def _line(record: Record) -> bytes:
    fields = asdict(record)
    time = datetime.fromtimestamp(fields.pop("time_ns") / 1e9, UTC)
    line = {"time": time.isoformat(timespec="milliseconds"), **fields}
    return to_json(line, inf_nan_mode="strings") + b"\n"

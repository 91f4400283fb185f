"""How far a sink is, in a file beside the journal: `RUN/sinks/<name>.json`.

It is written after the other side has acknowledged, so what it says has arrived. It may lag a
little: what comes twice then is recognised by its id.
"""

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from asyncrunner_events.segments import Position

from ..run_dir.files import write_atomically

__all__ = ["Bookmark"]


class Bookmark:
    """The place that one sink is at in one journal.

    Args:
        folder: The run directory.
        name: The sink's name.
        shown: What is written of its URL.
        rank: Whose journal.
    """

    def __init__(self, folder: Path, name: str, *, shown: str, rank: int = 0) -> None:
        of_rank = f".rank{rank}" if rank else ""
        self.path = folder / "sinks" / f"{name}{of_rank}.json"
        self._shown = shown
        self._lock = -1

    def take(self) -> bool:
        """Return whether this is now ours alone; another process that sends to the sink prevents it.

        Raises:
            OSError: If the folder cannot be written.
        """
        self.path.parent.mkdir(exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        return True

    def release(self) -> None:
        """Let another process have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def read(self) -> Position | None:
        """Return the position of the last event that was acknowledged, if any was."""
        try:
            return Position.parse(json.loads(self.path.read_bytes())["position"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # as after a power cut: then all is sent again

    def write(self, position: Position) -> None:
        """Keep the position.

        Raises:
            OSError: If the disk refuses.
        """
        content = {
            "sink": self._shown,
            "position": str(position),
            "time": datetime.now(UTC).isoformat(),
        }
        write_atomically(self.path, json.dumps(content, indent=2).encode() + b"\n")

"""What a checkpoint passes before it is put into its place, unless that has been shut."""

from threading import Lock

__all__ = ["Gate"]


class Gate:
    """Decides between a thread that is about to commit and a run whose time is over.

    Args:
        why: What who comes too late is told.
    """

    def __init__(self, why: str) -> None:
        self._why = why
        self._lock = Lock()
        self._is_shut = False
        self.is_passed = False
        """Whether one has passed that is not announced yet; whoever announces it says so here."""

    def enter(self) -> None:
        """Pass; from here on the checkpoint may be there.

        Raises:
            TimeoutError: If it is shut.
        """
        with self._lock:
            if self._is_shut:
                raise TimeoutError(self._why)
            self.is_passed = True

    def shut(self) -> None:
        """Let nobody pass any more."""
        with self._lock:
            self._is_shut = True

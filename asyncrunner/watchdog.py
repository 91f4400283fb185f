"""Notices a signal that the main thread does not get to, and says when its time is up.

A handler of Python runs between two lines of the main thread. While that thread hangs in C code, in a
device, a disk or a lock, it does not run at all, and SIGTERM does nothing. But the interpreter's own
handler then writes a byte into `signal.set_wakeup_fd`, and a thread reads it here.

Out of reach is only code that holds the interpreter's lock when the signal comes.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection

__all__ = ["Watchdog"]

_END = b"\0"


class Watchdog:
    """A thread that waits for signals; made in the main thread, which alone can ask for the bytes.

    An event loop that wants them for itself (uvloop, `add_signal_handler`) gets them: then
    `alarm` is what is left.

    Args:
        numbers: The signals that it waits for; the first one counts.
        allowed_s: Returns how many seconds later the time is up.
        time_is_up: Is told the signal, and whether the main thread has moved since: called in the thread.
    """

    def __init__(
        self,
        numbers: Collection[int],
        *,
        allowed_s: Callable[[], float],
        time_is_up: Callable[[int, bool], object],
    ) -> None:
        self._numbers = numbers
        self._allowed_s = allowed_s
        self._time_is_up = time_is_up
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        _leave_parent_alone_when_forked(numbers)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="asyncrunner watchdog", daemon=True).start()

    def alarm(self, number: int) -> None:
        """Say that a signal came; may be called in a handler."""
        with contextlib.suppress(BlockingIOError):  # full of signals: it knows
            os.write(self._writer, bytes([number]))

    def close(self) -> None:
        """End the thread."""
        ours = signal.set_wakeup_fd(self._before)
        if ours != self._writer:
            signal.set_wakeup_fd(ours)
        # Forked children may still hold the pipe, so closing it would not be noticed.
        os.set_blocking(self._writer, True)
        os.write(self._writer, _END)

    def _watch(self) -> None:
        number, deadline, place = 0, float("inf"), (0, 0)
        while True:
            left_s = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
            if not select.select([self._reader], [], [], left_s)[0]:
                deadline = float("inf")
                self._time_is_up(number, place != _main_thread_is_at())
                continue
            came = os.read(self._reader, 4096)
            if _END in came:
                break
            if not number and (known := [one for one in came if one in self._numbers]):
                number, deadline = known[0], time.monotonic() + self._allowed_s()
                place = _main_thread_is_at()
        os.close(self._reader)
        os.close(self._writer)


def _main_thread_is_at() -> tuple[int, int]:
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]  # it is documented
    frame = frames.get(threading.main_thread().ident or 0)
    return (0, 0) if frame is None else (id(frame), frame.f_lasti)


_heard: set[int] = set()
_masks = threading.local()


def _leave_parent_alone_when_forked(numbers: Collection[int]) -> None:
    if not _heard:
        os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_begin_child)
    _heard.update(numbers)


def _block() -> None:
    # A child that is signalled before it has begun would write that into its parent's pipe, and
    # Python, which clears what is pending in a child, would forget it: it waits until the child can.
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _heard)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _begin_child() -> None:
    signal.set_wakeup_fd(-1)
    _unblock()

"""How long training will still take, by the clock in the events themselves."""

from asyncrunner_events import AfterVal, BeforeTrain, BeforeVal, Event, MetricsReady

__all__ = ["Eta"]


class Eta:
    """Time left and speed of training; give it the events in order.

    It reads `monotonic_ns` of the events and no clock, so it says the same when the events are
    read late or from a journal. The time of validations does not count, and neither do the
    iterations before a resume: speed is measured from the first iteration seen.
    """

    takes = (MetricsReady, BeforeTrain, BeforeVal, AfterVal)
    """The event types to give it; others change nothing."""

    def __init__(self) -> None:
        self.remaining_s: float | None = None
        """Seconds until training ends, without validations; None as long as nobody can know."""
        self.iters_per_s: float | None = None
        """Training iterations a second, since the `MetricsReady` before."""
        self._began: tuple[int, int] | None = None
        self._last: tuple[int, int] | None = None
        self._paused_ns = 0
        self._pause_began_ns: int | None = None

    def see(self, event: Event) -> None:
        """Take the event into account."""
        match event:
            case BeforeTrain():
                self.__init__()
                self._began = self._last = (event.iter, event.monotonic_ns)
            case BeforeVal() if self._pause_began_ns is None:
                self._pause_began_ns = event.monotonic_ns
            case AfterVal() if self._pause_began_ns is not None:
                self._paused_ns += event.monotonic_ns - self._pause_began_ns
                self._pause_began_ns = None
            case MetricsReady(stage="train" | None):
                self._see_iteration(event)
            case _:
                pass

    def _see_iteration(self, event: MetricsReady) -> None:
        # The copy of the last iteration's scalars may land when validation has begun.
        until = event.monotonic_ns if self._pause_began_ns is None else self._pause_began_ns
        done, now = event.iter + 1, until - self._paused_ns
        if self._began is None or self._last is None:
            self._began = self._last = (done, now)
            return
        if done > self._last[0] and now > self._last[1]:
            self.iters_per_s = (done - self._last[0]) / (now - self._last[1]) * 1e9
        self._last = (done, now)
        total = _total(event)
        if total is not None and done > self._began[0]:
            s_per_iter = (now - self._began[1]) / (done - self._began[0]) / 1e9
            self.remaining_s = max(0.0, s_per_iter * (total - done))


def _total(event: MetricsReady) -> int | None:
    if event.max_iters is not None:
        return event.max_iters
    if event.max_epochs is not None and event.num_batches is not None:
        return event.max_epochs * event.num_batches
    return None

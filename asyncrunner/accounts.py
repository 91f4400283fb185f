"""What every subscription was given and what it cost, when a run is over; on the screen and in a file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from .bus import Bus
from .delivery.subscription import Subscription
from .errors import RunDirError
from .run_dir.files import write_atomically

__all__ = ["RunAccount", "SubscriberAccount", "account_of"]

FILE = "subscribers.json"
WORTH_NAMING = 0.05
"""The share of a run from which a blocking subscriber is named at its end."""
SHORT_S = 10.0
"""Seconds up to which a run is too short for shares to say anything."""

_COLUMNS = (
    *("subscriber", "mode", "calls", "errors", "dropped"),
    *("queued", "at most", "mean ms", "p95 ms", "max ms", "share"),
)


class SubscriberAccount(BaseModel):
    """The account of one subscription."""

    model_config = ConfigDict(extra="ignore")

    name: str
    """The subscription's name."""
    mode: str
    """`"blocking"` or `"background"`."""
    calls: int
    """Times it was called."""
    errors: int
    """Calls that raised or ran over their timeout."""
    dropped: int
    """Events that it was to get and did not."""
    queued: int
    """Events that still waited for it at the end."""
    most_queued: int
    """The most events that ever waited for it."""
    mean_s: float
    """Seconds a call took on average."""
    p95_s: float
    """Seconds that 95 % of the calls took at most, exact to within a factor of two."""
    max_s: float
    """Seconds the longest call took."""
    share: float | None
    """The part of the run that the loop waited for it; None in the background."""

    @classmethod
    def of(cls, subscription: Subscription, seconds: float) -> "SubscriberAccount":
        """Return the account of a subscription, in runs that took so many seconds."""
        stats, is_blocking = subscription.stats, subscription.mode == "blocking"
        return cls(
            name=subscription.name,
            mode=subscription.mode,
            calls=stats.calls,
            errors=stats.errors,
            dropped=stats.dropped,
            queued=subscription.queued,
            most_queued=subscription.inbox.most,
            mean_s=stats.mean_ns / 1e9,
            p95_s=stats.p95_ns() / 1e9,
            max_s=stats.max_ns / 1e9,
            share=stats.total_ns / 1e9 / seconds if is_blocking and seconds > 0 else None,
        )

    def troubles(self, seconds: float) -> Iterator[str]:
        """Yield a sentence for each thing about it that somebody should hear of."""
        if self.errors:
            yield f"{self.name!r} failed in {self.errors} of {self.calls} calls"
        if self.dropped:
            yield (
                f"{self.name!r} was too slow for {self.dropped} events, which were dropped: "
                f"{1e3 * self.mean_s:.1f} ms a call"
            )
        if self.share is not None and self.share > WORTH_NAMING and seconds > SHORT_S:
            yield (
                f"{self.name!r} held up the loop for {100 * self.share:.0f} % of the run "
                f"({1e3 * self.mean_s:.1f} ms a call, at most {1e3 * self.max_s:.0f}); "
                'mode="background" would not'
            )

    def row(self) -> tuple[str, ...]:
        """Return the columns of the table."""
        share = "-" if self.share is None else f"{100 * self.share:.1f} %"
        times = (f"{1e3 * s:.3f}" for s in (self.mean_s, self.p95_s, self.max_s))
        counts = (self.calls, self.errors, self.dropped, self.queued, self.most_queued)
        return (self.name, self.mode, *map(str, counts), *times, share)


class RunAccount(BaseModel):
    """The account of a run: the content of `subscribers.json`."""

    model_config = ConfigDict(extra="ignore")

    schema_version: int = 1
    """Raised when a reader of the old form could not read the new one."""
    run: str
    """The run's id."""
    attempt: int
    """Which start of the run."""
    seconds: float
    """How long it took, with the drain at the end."""
    subscribers: Sequence[SubscriberAccount]
    """In the order of subscribing."""

    def table(self) -> str:
        """Return the account as a table."""
        rows = [_COLUMNS, *(account.row() for account in self.subscribers)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        lines = (
            "  ".join((row[0].ljust(widths[0]), row[1].ljust(widths[1])))
            + "".join(f"  {cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True))
            for row in rows
        )
        return "\n".join(lines)

    def troubles(self) -> list[str]:
        """Return what somebody should hear of at the end; nothing for a healthy run."""
        return [t for account in self.subscribers for t in account.troubles(self.seconds)]

    def write(self, run_dir: Path) -> None:
        """Write it into the run directory.

        Raises:
            OSError: If it cannot be written.
        """
        write_atomically(run_dir / FILE, self.model_dump_json(indent=1).encode() + b"\n")

    @classmethod
    def read(cls, run_dir: Path) -> "RunAccount":
        """Read the account of the last run that ended in this directory.

        Raises:
            RunDirError: If there is none, or it cannot be read.
        """
        path = run_dir / FILE
        if not run_dir.is_dir():
            raise RunDirError(f"{run_dir} is no run directory")
        if not path.exists():
            raise RunDirError(f"{run_dir} has no {FILE}: no run has come to its end there")
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise RunDirError(f"{path} cannot be read: {error}") from error


def account_of(bus: Bus, *, run: str, attempt: int) -> RunAccount:
    """Return the account of a bus, over all the time that it was open."""
    subscriptions = (*bus.failed, *bus.subscriptions)
    return RunAccount(
        run=run,
        attempt=attempt,
        seconds=bus.open_s,
        subscribers=[SubscriberAccount.of(s, bus.open_s) for s in subscriptions],
    )

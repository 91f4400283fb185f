"""What was published, in order, and where it differs from what should have been."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, Generic, Protocol, Self, TypeVar, overload

from asyncrunner_events import Event

from ..delivery.subscription import Subscription

__all__ = ["Recording", "record"]

E = TypeVar("E", bound=Event)
F = TypeVar("F", bound=Event)

_AROUND = 2
"""So many events that agree are shown before and after a difference."""


class _Subscribable(Protocol):
    """A runner, or a bus."""

    @property
    def subscribe(self) -> Any: ...


@overload
def record(source: _Subscribable, /) -> "Recording[Event]": ...
@overload
def record(source: _Subscribable, /, *event_types: type[E]) -> "Recording[E]": ...
def record(source: _Subscribable, /, *event_types: Any) -> "Recording[Any]":
    """Record a runner's, or a bus's, events of these types; all of them if none are named.

    As a context manager the recording ends with the block. Events are kept whole, with their
    batches and outputs.
    """
    recording: Recording[Any] = Recording()
    recording.subscription = source.subscribe(
        event_types or (Event,), recording.events.append, priority=0, name="recording"
    )
    return recording


class Recording(Sequence[E], Generic[E]):
    """Events in the order they were published."""

    subscription: Subscription | None = None
    """Where they come from."""

    def __init__(self, events: Sequence[E] = ()) -> None:
        self.events = list(events)
        """All of them so far."""

    @overload
    def __getitem__(self, index: int) -> E: ...
    @overload
    def __getitem__(self, index: slice) -> list[E]: ...
    def __getitem__(self, index: int | slice) -> E | list[E]:
        return self.events[index]

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[E]:
        return iter(self.events)

    def __repr__(self) -> str:
        return f"Recording({self.kinds})"

    @property
    def kinds(self) -> list[str]:
        """The kind of each event, `before_train_iter`."""
        return [event.kind for event in self.events]

    def of(self, event_type: type[F]) -> list[F]:
        """Return the events of this type, and of those below it."""
        return [event for event in self.events if isinstance(event, event_type)]

    def expect(self, *expected: type[Event] | str) -> None:
        """Check that these were published, in this order, and no others.

        Args:
            expected: Event types or kinds: `BeforeTrain, *[BeforeTrainIter, AfterTrainIter] * 3`.

        Raises:
            AssertionError: If they were not; it shows where the two differ.
        """
        kinds = [one if isinstance(one, str) else one.kind for one in expected]
        if kinds != self.kinds:
            raise AssertionError(_difference(kinds, self.events))

    def cancel(self) -> None:
        """End the recording; what was recorded stays."""
        if self.subscription is not None:
            self.subscription.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cancel()


def _difference(expected: list[str], events: Sequence[Event]) -> str:
    published = [event.kind for event in events]
    matcher = SequenceMatcher(None, expected, published, autojunk=False)
    lines = [f"{len(expected)} events were expected (-), {len(published)} published (+):"]
    shown = 0
    for group in matcher.get_grouped_opcodes(_AROUND):
        lines += _left_out(group[0][3] - shown)
        for change, first, last, begin, end in group:
            if change == "equal":
                lines += [f"    {kind}" for kind in expected[first:last]]
                continue
            lines += [f"  - {kind}" for kind in expected[first:last]]
            lines += [f"  + {event.kind}{_place(event)}" for event in events[begin:end]]
        shown = group[-1][4]
    return "\n".join([*lines, *_left_out(len(published) - shown)])


def _left_out(count: int) -> list[str]:
    return [f"    … {count} more"] if count else []


def _place(event: Event) -> str:
    return f"  (seq {event.seq}, epoch {event.epoch}, iter {event.iter})"

"""How something that listens to several event types takes its place in a runner.

A subscriber with a state, or with more than one event to see, is an object with `attach`; the runner
calls it with an `Attachment`, its way to subscribe, to look at the run, and to decide::

    class StopAt:
        def __init__(self, loss: float) -> None:
            self.loss = loss

        def attach(self, run: Attachment) -> None:
            self.run = run
            run.subscribe(MetricsReady, self.look)

        def look(self, event: MetricsReady) -> None:
            if event.metrics["loss"] < self.loss:
                self.run.stop(f"the loss is below {self.loss}")

    runner.add(StopAt(0.1))

If it has `state_dict` and `load_state_dict` too, its state is in every checkpoint, under its name.
"""

from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar, Unpack, runtime_checkable

from asyncrunner_events import Event

from ..bus import Bus
from ..delivery.subscription import Options, Subscription
from ..errors import ConfigurationError
from .control import Control
from .state import RunState
from .stateful import Stateful, States

__all__ = ["Attachable", "Attachment", "attach"]

E = TypeVar("E", bound=Event)


@runtime_checkable
class Attachable(Protocol):
    """What `Runner.add` takes."""

    def attach(self, run: "Attachment", /) -> object:
        """Subscribe to what it wants to see. The run has not begun yet."""
        ...


class Attachment(Control):
    """An attached subscriber's place in a runner; what it decides is decided in its name.

    As a context manager it is cancelled at the end of the block.
    """

    def __init__(self, name: str, bus: Bus, states: States, state: Callable[[], RunState]) -> None:
        super().__init__(state, by=name)
        self.name = name
        """What reports, checkpoints and decisions call it: its own `name`, or its class's."""
        self.bus = bus
        self.subscriptions: list[Subscription] = []
        self._states = states

    @property
    def state(self) -> RunState:
        """What the run works on; there from `BeforeRun` on.

        Raises:
            ConfigurationError: If no run is going on.
        """
        return self._state()

    def subscribe(
        self,
        event_type: type[E] | tuple[type[E], ...] | Any,
        subscriber: Callable[[Any], Any],
        **options: Unpack[Options],
    ) -> Subscription:
        """Subscribe as `Bus.subscribe` does, in this name.

        Raises:
            SubscriptionError: If the subscriber does not take such an event, or an option is wrong.
        """
        options.setdefault("name", self.name)
        subscription = self.bus.subscribe(event_type, subscriber, **options)
        self.subscriptions.append(subscription)
        return subscription

    def cancel(self) -> None:
        """End all of its subscriptions; its state is in no checkpoint any more."""
        for subscription in self.subscriptions:
            subscription.cancel()
        self._states.remove(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cancel()


def attach(
    thing: Attachable, bus: Bus, states: States, state: Callable[[], RunState]
) -> Attachment:
    """Give the object its place; if its `attach` fails, nothing of it stays.

    Raises:
        ConfigurationError: If it has no `attach`, or its name is taken by another one with a state.
    """
    if not isinstance(thing, Attachable) or isinstance(thing, type):  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
        raise ConfigurationError(
            f"add() takes an object with attach(run), got {thing!r}; for a function use "
            "subscribe(event_type, function)"
        )
    name = getattr(thing, "name", None) or type(thing).__name__
    attachment = Attachment(name, bus, states, state)
    if isinstance(thing, Stateful):
        states.add(name, thing)
    try:
        thing.attach(attachment)
    except BaseException:
        attachment.cancel()
        raise
    return attachment

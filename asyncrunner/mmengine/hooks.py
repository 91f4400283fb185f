"""Hooks as subscribers: each method that a hook has is a blocking subscription of its own.

A validation that is cut short by a stop or an error has no `AfterValEpoch`, which MMEngine does not
know: a hook that swaps weights in `before_val_epoch` would leave them swapped. So a hook that has both
methods gets its `after_val_epoch` in every case, at the latest before `after_val`, with no metrics in it.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from asyncrunner_events import (
    AfterLoadCheckpoint,
    AfterTest,
    AfterTrainEpoch,
    AfterVal,
    BeforeRun,
    BeforeSaveCheckpoint,
    Event,
)

from ..delivery.contract import parse_priority
from ..delivery.subscription import Subscription
from ..errors import ConfigurationError, SubscriptionError
from ..suggest import did_you_mean
from .checkpoints import (
    as_mmengine,
    put_back,
    restore_schedulers,
    schedulers_state,
    with_plain_numbers,
)
from .hook_runner import HookRunner
from .imported import mmengine
from .message_hub import HistoryBuffer, hub_state, restore_hub
from .stages import STAGES, Method, arguments_for, methods_of

if TYPE_CHECKING:
    from ..runner import Runner

_ENDS: Mapping[str, type[Event]] = {"val": AfterVal, "test": AfterTest}


def subscribe_hook(
    runner: "Runner", hook: object, priority: int | str | None = None
) -> "HookSubscription":
    """Have a hook of MMEngine, or any object with some of the 22 methods, called in this runner's runs.

    Args:
        runner: The runner.
        hook: The hook; if it has `state_dict` and `load_state_dict`, its state is in checkpoints.
        priority: From 0 to 100 or one of MMEngine's names; the hook's own if not given, else 50.

    Raises:
        SubscriptionError: If it has none of the methods, or the priority is none.
    """
    return _hooks_of(runner).subscribe(hook, priority)


def runner_for_hooks(runner: "Runner") -> HookRunner:
    """Return what the runner's hooks get as `runner`, to put there what they need."""
    return _hooks_of(runner).runner


def _hooks_of(runner: "Runner") -> "MMEngineHooks":
    for subscription in runner.bus.subscriptions:
        owner = getattr(subscription.subscriber, "__self__", None)
        if isinstance(owner, MMEngineHooks):
            return owner
    return MMEngineHooks(runner)


class HookSubscription:
    """A hook's place on the bus; as a context manager it is cancelled at the end of the block."""

    def __init__(self, hook: object, priority: int) -> None:
        self.hook = hook
        self.priority = priority
        self.subscriptions: list[Subscription] = []
        """One for each stage at which the hook has something to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"<HookSubscription {type(self.hook).__name__!r}, priority {self.priority}>"

    @property
    def active(self) -> bool:
        """False once it is cancelled."""
        return any(one.active for one in self.subscriptions)

    def cancel(self) -> None:
        """End the subscription: the hook is called no more."""
        for one in self.subscriptions:
            one.cancel()


class MMEngineHooks:
    """The hooks of a runner."""

    def __init__(self, runner: "Runner") -> None:
        self.calling = ""
        """The name of the hook that is called now."""
        self.dataset: str | None = None
        """The data set that is being validated or tested on."""
        self.runner = HookRunner(runner, self)
        self._runner = runner
        self._subscribed: list[HookSubscription] = []
        runner.subscribe(BeforeRun, self._begin, priority=0, name="MMEngine hooks")
        runner.subscribe(AfterLoadCheckpoint, self._loads, priority=0, name="MMEngine hooks")
        runner.subscribe(BeforeSaveCheckpoint, self._saves, priority=100, name="MMEngine hooks")

    @property
    def caller(self) -> str:
        """Who is at work, as errors say it."""
        return f"hook {self.calling}" if self.calling else "what is no hook"

    def no_attribute(self, of: object, name: str, said: str) -> AttributeError:
        """Return the error for an attribute that is not there.

        Args:
            of: What was asked.
            name: What for.
            said: What hooks call it.
        """
        there = sorted({one for one in (*vars(of), *dir(type(of))) if not one.startswith("_")})
        return AttributeError(
            f"{self.caller} reads {said}.{name}, which is not there{did_you_mean(name, there)}: "
            f"what is there is {', '.join(there)}",
            name=name,
            obj=of,
        )

    @property
    def stopping(self) -> bool:
        """Whether the run ends after its current iteration; True has it do so, for who is calling."""
        return self._runner.state.stopping

    @stopping.setter
    def stopping(self, value: bool) -> None:
        if value:
            self._runner.stop("stop_training was set", by=self.calling)
        elif self.stopping:
            raise ConfigurationError(f"{self.caller} cannot take a stop back")

    def subscribe(self, hook: object, priority: Any = None) -> HookSubscription:
        """Subscribe a hook: see `subscribe_hook`."""
        if any(one.hook is hook and one.active for one in self._subscribed):
            raise SubscriptionError(f"hook {type(hook).__name__} is subscribed already")
        methods = methods_of(hook)
        given = getattr(hook, "priority", 50) if priority is None else priority
        subscription = HookSubscription(hook, parse_priority(given))
        open_epochs: set[str] = set()
        for mode, end in _ENDS.items():
            if {f"before_{mode}_epoch", f"after_{mode}_epoch"} <= methods.keys():
                closing = self._closing(hook, methods[f"after_{mode}_epoch"], mode, open_epochs)
                subscription.subscriptions.append(self._on(subscription, end, closing))
        for stage, method in methods.items():
            subscriber = self._subscriber(hook, stage, method, open_epochs)
            subscription.subscriptions.append(self._on(subscription, STAGES[stage], subscriber))
        self._subscribed.append(subscription)
        return subscription

    def _on(
        self, to: HookSubscription, event_type: type[Event], subscriber: Callable[[Any], Any]
    ) -> Subscription:
        where = _is_complete if event_type is AfterTrainEpoch else None
        name, priority = type(to.hook).__name__, to.priority
        return self._runner.subscribe(
            event_type, subscriber, priority=priority, where=where, name=name
        )

    def _subscriber(
        self, hook: object, stage: str, method: Method, open_epochs: set[str]
    ) -> Callable[[Event], Any]:
        if STAGES[stage] in (BeforeSaveCheckpoint, AfterLoadCheckpoint):
            return self._with_checkpoint(hook, method)
        arguments, val_loops = arguments_for(stage), self._runner.val_loops
        begins = stage in ("before_val_epoch", "before_test_epoch")
        ends = stage in ("after_val_epoch", "after_test_epoch")
        mode = stage.split("_")[1]

        def call(event: Any) -> Any:
            self.dataset = event.dataset if mode in _ENDS else None
            if ends:
                open_epochs.discard(mode)
            result = self._call(hook, method, arguments(event, len(val_loops) < 2))
            if begins:
                open_epochs.add(mode)
            return result

        return _as_defined(call, method)

    def _closing(
        self, hook: object, method: Method, mode: str, open_epochs: set[str]
    ) -> Callable[[Event], Any]:
        def call(event: Event) -> Any:
            if mode not in open_epochs:
                return None
            open_epochs.discard(mode)
            return self._call(hook, method, {"metrics": {}})

        return _as_defined(call, method)

    def _call(self, hook: object, method: Method, arguments: Mapping[str, Any]) -> Any:
        before, self.calling = self.calling, type(hook).__name__
        try:
            return method(self.runner, **arguments)
        finally:
            self.calling = before

    def _with_checkpoint(self, hook: object, method: Method) -> Callable[[Event], Any]:
        def call(event: BeforeSaveCheckpoint | AfterLoadCheckpoint) -> None:
            form = as_mmengine(event.checkpoint, self.runner)
            self._call(hook, method, {"checkpoint": form})
            put_back(form, event.checkpoint)

        return _as_defined(call, method)

    @property
    def _active(self) -> list[HookSubscription]:
        self._subscribed = [one for one in self._subscribed if one.active]
        return sorted(self._subscribed, key=lambda one: one.priority)

    @property
    def all(self) -> list[object]:
        """The hooks, in their order."""
        return [one.hook for one in self._active]

    def call_all(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Call a method of every hook that has it."""
        for hook in self.all:
            if (method := getattr(hook, name, None)) is not None:
                self._call(hook, method, arguments)

    # What is in checkpoints

    def _begin(self, event: BeforeRun) -> None:
        self.dataset = None
        self.runner._resume = False  # pyright: ignore[reportPrivateUsage]  # what hooks read
        # Made now, they are what MMEngine's `get_current_instance` gives hooks that ask there.
        _ = self.runner.message_hub, self.runner.logger

    def _loads(self, event: AfterLoadCheckpoint) -> None:
        self.runner._resume = event.resuming  # pyright: ignore[reportPrivateUsage]  # what hooks read

    def _saves(self, event: BeforeSaveCheckpoint) -> None:
        event.checkpoint.update(with_plain_numbers(event.checkpoint))

    def _stateful(self) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for hook in (one.hook for one in self._subscribed if one.active):
            if hasattr(hook, "state_dict") and hasattr(hook, "load_state_dict"):
                name = type(hook).__name__
                number = sum(type(one).__name__ == name for one in named.values())
                named[f"{name} {number + 1}" if number else name] = hook
        return named

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the hooks that have one, of the schedulers and of the message hub."""
        return {
            "hooks": {name: hook.state_dict() for name, hook in self._stateful().items()},
            "param_schedulers": schedulers_state(self.runner.param_schedulers),
            "message_hub": hub_state(self.runner.message_hub),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from that state; a hook that it has nothing of begins anew."""
        for name, hook in self._stateful().items():
            if name in state_dict["hooks"]:
                hook.load_state_dict(state_dict["hooks"][name])
        restore_schedulers(self.runner.param_schedulers, state_dict["param_schedulers"])
        module = mmengine("logging")
        buffer = HistoryBuffer if module is None else module.HistoryBuffer
        restore_hub(self.runner.message_hub, state_dict["message_hub"], buffer)


def _is_complete(event: AfterTrainEpoch) -> bool:
    # MMEngine's epochs always are; the rest of a cut one comes in the run that goes on from here.
    return event.is_complete


def _as_defined(call: Callable[[Any], Any], method: Method) -> Callable[[Event], Any]:
    """Have reports of failures say where the hook's method is, not where it is called from here."""
    described: Any = call
    described.__wrapped__ = method
    event = inspect.Parameter("event", inspect.Parameter.POSITIONAL_ONLY)
    described.__signature__ = inspect.Signature([event])
    return call

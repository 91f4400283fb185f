"""What may be subscribed and how; everything else is refused at once, with the place."""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar, Union

import pytest
from bus_support import Loaded, LoudPing, Ping, Pong, Tick

from asyncrunner import Bus, Subscription
from asyncrunner.errors import SubscriptionError
from asyncrunner_events import AfterTrainIter, BeforeTrainIter, Event, IterPoint

E = TypeVar("E")


def subscribe(event_type: Any, subscriber: Any, **options: Any) -> Subscription:
    return Bus().subscribe(event_type, subscriber, **options)


def line_of(function: Callable[..., Any]) -> str:
    return f"{Path(__file__)}:{inspect.getsourcelines(function)[1]}"


def plain(event: Ping) -> None:
    pass


async def coroutine(event: Ping) -> None:
    pass


# What is refused


def no_argument() -> None:
    pass


def two_arguments(event: Event, more: int) -> None:
    pass


def keyword_only(*, event: Event) -> None:
    pass


@pytest.mark.parametrize("subscriber", [no_argument, two_arguments, keyword_only])
def test_a_function_that_does_not_take_one_argument_is_refused(subscriber: Any) -> None:
    with pytest.raises(SubscriptionError, match="must take one argument, the event") as caught:
        subscribe(Ping, subscriber)
    assert f"subscriber {subscriber.__name__!r} ({line_of(subscriber)})" in str(caught.value)
    assert str(inspect.signature(subscriber)) in str(caught.value)


def takes_pong(event: Pong) -> None:
    pass


def takes_text(event: str) -> None:
    pass


def takes_loud_ping(event: LoudPing) -> None:
    pass


def takes_lists(events: list[Ping]) -> None:
    pass


@pytest.mark.parametrize(
    ("subscriber", "hint"),
    [
        (takes_pong, "Pong"),
        (takes_text, "str"),
        (takes_loud_ping, "LoudPing"),
        (takes_lists, "list"),
    ],
)
def test_a_function_annotated_to_take_something_else_is_refused(subscriber: Any, hint: str) -> None:
    with pytest.raises(
        SubscriptionError, match=f"annotated to take .*{hint}.* would get Ping"
    ) as e:
        subscribe(Ping, subscriber)
    assert line_of(subscriber) in str(e.value)


def test_an_annotation_must_cover_every_type_of_a_union() -> None:
    with pytest.raises(SubscriptionError, match="annotated to take Ping, but would get Pong"):
        subscribe(Ping | Pong, plain)


def test_a_batch_needs_a_function_that_takes_lists() -> None:
    subscribe(Ping, takes_lists, mode="background", batch=3)
    subscribe(LoudPing, takes_lists, mode="background", batch=3)
    for event_type, subscriber in ((Ping, plain), (Pong, takes_lists)):
        with pytest.raises(SubscriptionError, match="would get a list of P"):
            subscribe(event_type, subscriber, mode="background", batch=3)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(SubscriptionError, match="must be a function of one argument"):
        subscribe(Ping, 42)


def test_a_generator_is_refused_because_calling_it_runs_nothing() -> None:
    def generator(event: Ping) -> Any:
        yield

    async def async_generator(event: Ping) -> Any:
        yield

    for subscriber in (generator, async_generator):
        with pytest.raises(SubscriptionError, match="it is a generator"):
            subscribe(Ping, subscriber)


@pytest.mark.parametrize("wrong", [int, "Ping", None, (), (Ping, 3), Ping | int, Ping()])
def test_what_is_no_event_type_is_refused(wrong: Any) -> None:
    with pytest.raises(SubscriptionError, match="expected an event type such as"):
        subscribe(wrong, print)


BACKGROUND = {"mode": "background"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": 101}, "priority must be an int from 0 to 100 or one of HIGHEST, .*, got 101"),
        ({"priority": -1}, "got -1"),
        ({"priority": 5.0}, "got 5.0"),
        ({"priority": True}, "got True"),
        ({"priority": "URGENT"}, "got 'URGENT'"),
        ({"every": 0}, "every must be an int from 1, or like .*, got 0"),
        ({"every": "5min"}, "got '5min'"),
        ({"mode": "async"}, "mode must be one of blocking, background, got 'async'"),
        ({"on_error": "ignore"}, "on_error must be one of raise, log, disable, got 'ignore'"),
        ({**BACKGROUND, "overflow": "drop"}, "overflow must be one of drop_oldest, .*, got 'drop'"),
        ({**BACKGROUND, "queue": 0}, "queue must be an int from 1, got 0"),
        ({**BACKGROUND, "queue": 1.5}, "queue must be an int from 1, got 1.5"),
        ({**BACKGROUND, "batch": 0}, "batch must be an int from 1, got 0"),
        ({**BACKGROUND, "timeout": 0}, "timeout must be a number of seconds above 0, got 0"),
        ({**BACKGROUND, "timeout": -2.5}, "got -2.5"),
        ({**BACKGROUND, "timeout": float("nan")}, "got nan"),
        ({**BACKGROUND, "timeout": float("inf")}, "got inf"),
        ({**BACKGROUND, "timeout": "1s"}, "got '1s'"),
        ({"timeout": 1.0}, "timeout cannot stop a plain function"),
        ({"queue": 5}, 'queue is for mode="background"'),
        ({"overflow": "block"}, 'overflow is for mode="background"'),
        ({"batch": 5}, 'batch is for mode="background"'),
        ({"keep": ["batch"]}, 'keep is for mode="background"'),
        ({**BACKGROUND, "priority": 5}, 'priority is for mode="blocking"'),
        ({**BACKGROUND, "keep": "batch"}, "keep must be a sequence of live fields, got 'batch'"),
        ({**BACKGROUND, "keep": ["batsch"]}, r"no live field .*did you mean batch"),
        ({"where": 3}, "where must be a plain function of the event, got 3"),
        ({"where": coroutine}, "where must be a plain function"),
        ({"ranks": []}, r"ranks must be one or more ints, got \[\]"),
        ({"ranks": ["0"]}, "ranks must be one or more ints"),
        ({"skip": Pong}, "skip must be types below the ones subscribed to, got Pong"),
        ({"skip": (Loaded,)}, "skip must be types below .*, got Loaded"),
        ({"skip": (3,)}, "expected an event type"),
        ({"prority": 3}, r"there is no option 'prority' \(did you mean priority\?\)"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_what_was_given(
    options: dict[str, Any], message: str
) -> None:
    def here(event: Loaded) -> None:
        pass

    bus = Bus()
    with pytest.raises(SubscriptionError, match=message) as caught:
        bus.subscribe(Loaded, here, **options)
    place = f"subscriber '{here.__name__}' ({Path(__file__)}:{here.__code__.co_firstlineno}): "
    assert str(caught.value).startswith(place)
    assert bus.subscriptions == []


# What is taken


class Base:
    async def method(self, event: Ping) -> None: ...
    def plain_method(self, event: Event, more: int = 3) -> None: ...

    @staticmethod
    async def static(event: Ping) -> None: ...

    async def __call__(self, event: Ping) -> None: ...


class HasSeq(Protocol):
    seq: int


def takes_protocol(event: HasSeq) -> None: ...
def takes_variable(event: E) -> E: ...
def takes_union(event: Union[Pong, Ping]) -> None: ...  # noqa: UP007
def takes_unknown(event: Any) -> None: ...


takes_unknown.__annotations__["event"] = "Nonsense"  # as one that is imported for types only


async def two(first: int, event: Ping) -> None: ...


def nothing(event: Any) -> None: ...


TAKEN: list[Any] = []


@pytest.mark.parametrize(
    ("subscriber", "is_async"),
    [
        (plain, False),
        (coroutine, True),
        (Base().method, True),
        (Base().plain_method, False),
        (Base.static, True),
        (Base(), True),
        (partial(two, 1), True),
        (partial(partial(two), 1), True),
        (nothing, False),
        (TAKEN.append, False),
        (print, False),
        (takes_protocol, False),
        (takes_variable, False),
        (takes_union, False),
        (takes_unknown, False),
    ],
)
def test_functions_methods_partials_and_callable_objects_are_taken(
    subscriber: Any, is_async: bool
) -> None:
    with subscribe(Ping, subscriber) as subscription:
        assert subscription.is_async == is_async


def test_a_subscription_is_named_for_its_function_unless_it_is_given_a_name() -> None:
    @wraps(plain)
    def wrapped(event: Any) -> None: ...

    names: dict[str, Any] = {
        "plain": plain,
        "Base.method": Base().method,
        "Base": Base(),
        "two": partial(two, 1),
        "list.append": TAKEN.append,
    }
    for name, subscriber in names.items():
        assert Subscription((Ping,), subscriber).name == name
    assert Subscription((Ping,), wrapped).name == "plain"
    assert Subscription((Ping,), plain, name="it").name == "it"


def test_a_subscription_tells_what_it_was_given() -> None:
    subscription = Subscription((Ping, Pong), print, priority="high", every="2ep")
    assert subscription.event_types == (Ping, Pong)
    assert (subscription.mode, subscription.on_error) == ("blocking", "raise")
    assert (subscription.priority, subscription.every) == (30, "2ep")
    assert repr(subscription) == "<Subscription 'print' to Ping | Pong, blocking, priority 30>"
    background = Subscription((Ping,), print, mode="background")
    assert background.on_error == "log"


def test_a_kept_field_may_belong_to_a_type_below() -> None:
    Subscription((Event,), print, mode="background", keep=["outputs", "batch"])
    Subscription((IterPoint, Tick), print, mode="background", keep=["outputs"], skip=AfterTrainIter)


# Types: the pyright ignores below are the test. Each is needed, or pyright reports it.


def test_wrong_types_are_refused_by_pyright_and_when_subscribing() -> None:
    async def after(event: AfterTrainIter) -> None: ...
    def before(event: BeforeTrainIter) -> None: ...
    def either(event: AfterTrainIter | BeforeTrainIter) -> None: ...
    def lists(events: list[AfterTrainIter]) -> None: ...

    own = Bus()
    own.subscribe(AfterTrainIter, after)
    own.subscribe(AfterTrainIter, either)
    own.subscribe((AfterTrainIter, BeforeTrainIter), either)
    own.subscribe(AfterTrainIter | BeforeTrainIter, either)
    own.subscribe(AfterTrainIter, lists, mode="background", batch=8)
    own.subscribe(AfterTrainIter, lambda event: print(event.batch_idx))
    own.on(AfterTrainIter, BeforeTrainIter)(either)
    own.on(AfterTrainIter, mode="background", batch=8)(lists)
    assert len(own.subscriptions) == 8

    with pytest.raises(SubscriptionError):
        own.subscribe(AfterTrainIter, before)  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(SubscriptionError):
        own.subscribe((AfterTrainIter, BeforeTrainIter), after)  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(SubscriptionError):
        own.subscribe(AfterTrainIter, after, mode="async")  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(SubscriptionError):
        own.subscribe(AfterTrainIter, after, prority=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(SubscriptionError):
        own.on(AfterTrainIter)(before)  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(SubscriptionError):
        own.on(AfterTrainIter, BeforeTrainIter)(after)  # pyright: ignore[reportArgumentType, reportCallIssue]


async def test_wrong_fields_are_refused_by_pyright_and_when_publishing() -> None:
    async with Bus() as own:
        own.subscribe(Event, lambda event: None)
        await own.publish(AfterTrainIter, batch_idx=3)
        with pytest.raises(ValueError, match="batch_idx"):
            await own.publish(AfterTrainIter)  # pyright: ignore[reportCallIssue]
        with pytest.raises(ValueError, match="batch_index"):
            await own.publish(AfterTrainIter, batch_idx=0, batch_index=3)  # pyright: ignore[reportCallIssue]
        with pytest.raises(ValueError, match="valid integer"):
            await own.publish(AfterTrainIter, batch_idx="three")  # pyright: ignore[reportArgumentType]
        stream = own.stream(AfterTrainIter, BeforeTrainIter)
        await own.publish(AfterTrainIter, batch_idx=5)
        number: str = (await anext(stream)).batch_idx  # pyright: ignore[reportAssignmentType]
        assert number == 5

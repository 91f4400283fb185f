"""What may be subscribed: a function of one argument, checked when it is subscribed."""

import inspect
import types
from collections.abc import Callable
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from asyncrunner_events import Event

from .errors import SubscriptionError

Subscriber = Callable[[Any], Any]
"""A function or coroutine function of one argument, the event."""
AnyFunction = Callable[..., Any]


def event_types_of(given: Any) -> tuple[type[Event], ...]:
    """Return the event types in a type, a union of types or a tuple of them.

    Raises:
        SubscriptionError: If something in it is not an event type.
    """
    for part in (parts := _parts(given)):
        if not (isinstance(part, type) and issubclass(part, Event)):
            raise SubscriptionError(
                f"expected an event type such as events.AfterTrainIter, got {part!r}"
            )
    return parts


def check_subscriber(
    subscriber: Subscriber, event_types: tuple[type[Event], ...], *, batch: int | None
) -> None:
    """Refuse what cannot be called with one event of these types.

    Raises:
        SubscriptionError: With the place where the subscriber is defined.
    """
    if not callable(subscriber):
        raise SubscriptionError(
            f"a subscriber is a function of one argument, the event; got {subscriber!r}"
        )
    where = f"subscriber {name_of(subscriber)!r} ({where_defined(subscriber)})"
    try:
        signature = inspect.signature(subscriber)
    except ValueError:  # a builtin without a signature
        return
    try:
        signature.bind(None)
    except TypeError:
        raise SubscriptionError(
            f"{where} must take one argument, the event, but takes {signature}"
        ) from None
    hint = _annotation(subscriber, signature)
    for event_type in event_types if batch is None else ():
        if not any(_accepts(part, event_type) for part in _parts(hint)):
            raise SubscriptionError(
                f"{where} is annotated to take {getattr(hint, '__name__', hint)}, "
                f"but {event_type.__name__} was subscribed to"
            )


def is_async(subscriber: AnyFunction) -> bool:
    """Whether calling it gives a coroutine: also for partials and objects with `__call__`."""
    unwrapped: Any = subscriber
    while hasattr(unwrapped, "func"):  # functools.partial
        unwrapped = unwrapped.func
    return inspect.iscoroutinefunction(unwrapped) or inspect.iscoroutinefunction(
        getattr(unwrapped, "__call__", None)  # noqa: B004  # asks what it is, not whether it is
    )


def name_of(subscriber: AnyFunction) -> str:
    """Return the name of a function, or of an object's class."""
    name: str = getattr(subscriber, "__qualname__", type(subscriber).__qualname__)
    return name.rsplit("<locals>.", 1)[-1]


def where_defined(subscriber: AnyFunction) -> str:
    """Return `file:line` of the subscriber."""
    function = getattr(inspect.unwrap(subscriber), "func", subscriber)
    code = getattr(function, "__code__", None)
    code = code or getattr(getattr(type(function), "__call__", None), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else "no Python source"


def _parts(given: Any) -> tuple[Any, ...]:
    if isinstance(given, tuple):
        return cast("tuple[Any, ...]", given)
    if isinstance(given, types.UnionType) or get_origin(given) is Union:
        return get_args(given)
    return (given,)


def _annotation(subscriber: Subscriber, signature: inspect.Signature) -> Any:
    """Return the annotation of the first parameter; Any if there is none that says something."""
    first = next(iter(signature.parameters))
    function = subscriber if inspect.isroutine(subscriber) else type(subscriber).__call__
    try:
        return get_type_hints(function).get(first, Any)
    except Exception:  # it cannot be resolved, whatever that raises: then it says nothing
        return Any


def _accepts(hint: Any, event_type: type[Event]) -> bool:
    try:
        return hint is Any or issubclass(event_type, hint)
    except TypeError:  # a type variable, a protocol: nothing to hold it to
        return True

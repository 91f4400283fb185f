"""What may be subscribed: a function of one argument, checked when it is subscribed."""

import inspect
import types
from collections.abc import Callable
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from asyncrunner_events import Event

from ..errors import SubscriptionError

Subscriber = Callable[[Any], Any]
"""A function or coroutine function of one argument, the event."""


def event_types_of(given: Any) -> tuple[type[Event], ...]:
    """Return the event types in a type, a union of types or a tuple of them.

    Raises:
        SubscriptionError: If there is none, or something in it is not an event type.
    """
    parts = _parts(given)
    for part in parts or (given,):
        if not (isinstance(part, type) and issubclass(part, Event)):
            raise SubscriptionError(
                f"expected an event type such as events.AfterTrainIter, got {part!r}"
            )
    return parts


def check_subscriber(
    subscriber: Subscriber, event_types: tuple[type[Event], ...], *, in_batches: bool
) -> None:
    """Refuse what cannot be called with one event of these types, or with a list of them.

    Raises:
        SubscriptionError: With what is wrong about it.
    """
    if not callable(subscriber):
        raise SubscriptionError("it must be a function of one argument, the event")
    function = _innermost(subscriber)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise SubscriptionError("it is a generator, so calling it runs nothing: remove the yield")
    try:
        signature = inspect.signature(subscriber)
    except ValueError:  # a builtin without a signature
        return
    try:
        signature.bind(None)
    except TypeError:
        raise SubscriptionError(
            f"it must take one argument, the event, but takes {signature}"
        ) from None
    hint = _annotation(subscriber, signature)
    given = "a list of " if in_batches else ""
    for event_type in event_types:
        if not _accepts(hint, event_type, in_batches=in_batches):
            raise SubscriptionError(
                f"it is annotated to take {_shown(hint)}, but would get {given}"
                f"{event_type.__name__}"
            )


def declared_types(subscriber: Subscriber) -> tuple[type[Event], ...]:
    """Return the event types that a function is annotated to take; none if it does not say."""
    try:
        parts = _parts(_annotation(subscriber, inspect.signature(subscriber)))
    except (TypeError, ValueError, StopIteration):
        return ()
    return tuple(part for part in parts if isinstance(part, type) and issubclass(part, Event))


def is_async(subscriber: Subscriber) -> bool:
    """Whether calling it gives a coroutine: also for partials and objects with `__call__`."""
    return inspect.iscoroutinefunction(_innermost(subscriber))


def name_of(subscriber: Subscriber) -> str:
    """Return the name of a function, or of an object's class."""
    unwrapped = _without_partials(subscriber)
    name: str = getattr(unwrapped, "__qualname__", type(unwrapped).__qualname__)
    return name.rsplit("<locals>.", 1)[-1]


def where_defined(subscriber: Subscriber) -> str:
    """Return `file:line` of the subscriber."""
    code = getattr(inspect.unwrap(_innermost(subscriber)), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else "no Python source"


def _without_partials(subscriber: Any) -> Any:
    while hasattr(subscriber, "func"):  # functools.partial
        subscriber = subscriber.func
    return subscriber


def _innermost(subscriber: Subscriber) -> Any:
    """Return the function that runs in the end: not a partial, not an object with `__call__`."""
    unwrapped = _without_partials(subscriber)
    if inspect.isroutine(unwrapped) or isinstance(unwrapped, type):
        return unwrapped
    return getattr(unwrapped, "__call__", unwrapped)  # noqa: B004  # asks what it is, not whether


def _parts(given: Any) -> tuple[Any, ...]:
    if isinstance(given, tuple):
        return tuple(part for each in cast("tuple[Any, ...]", given) for part in _parts(each))
    if isinstance(given, types.UnionType) or get_origin(given) is Union:
        return get_args(given)
    return (given,)


def _annotation(subscriber: Subscriber, signature: inspect.Signature) -> Any:
    """Return the annotation of the first parameter; Any if there is none that says something."""
    first = next(iter(signature.parameters))
    try:
        return get_type_hints(_innermost(subscriber)).get(first, Any)
    except Exception:  # it cannot be resolved, whatever that raises: then it says nothing
        return Any


def _accepts(hint: Any, event_type: type[Event], *, in_batches: bool) -> bool:
    return any(_takes(part, event_type, in_batches=in_batches) for part in _parts(hint))


def _takes(hint: Any, event_type: type[Event], *, in_batches: bool) -> bool:
    origin = get_origin(hint) or hint
    if origin is Any or origin is object or not isinstance(origin, type):
        return True  # a type variable, say: nothing to hold it to
    try:
        if not issubclass(list if in_batches else event_type, origin):
            return False
    except TypeError:  # a protocol
        return True
    if not in_batches:
        return True
    return not (items := get_args(hint)) or _accepts(items[0], event_type, in_batches=False)


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)

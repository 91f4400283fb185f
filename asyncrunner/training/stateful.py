"""Whose states are in a checkpoint beside the model's: what the user names, and subscribers' own.

A subscriber that is a method of an object with `state_dict` and `load_state_dict` is found by
itself, under the name of its class; anything else is named with `Runner.add_stateful`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from ..delivery.subscription import Subscription
from ..errors import CheckpointError, ConfigurationError


@runtime_checkable
class Stateful(Protocol):
    """What can say what it is in, and be put there again: torch.distributed.checkpoint's protocol."""

    def state_dict(self) -> Any:
        """Return the state, in what loads with `weights_only=True`, such as tensors and numbers."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> object:
        """Go on from that state."""
        ...


class States:
    """The named objects whose states go into a checkpoint."""

    def __init__(self) -> None:
        self._named: dict[str, Stateful] = {}

    def add(self, name: str, thing: Stateful) -> None:
        """Have the object's state saved and restored under this name.

        Raises:
            ConfigurationError: If it has no state, or the name is taken.
        """
        if not isinstance(thing, Stateful):  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
            raise ConfigurationError(
                f"{name!r} must have state_dict() and load_state_dict(), got {thing!r}"
            )
        if self._named.get(name, thing) is not thing:
            raise ConfigurationError(
                f"two objects keep their state under the name {name!r}: give one another name"
            )
        self._named[name] = thing

    def remove(self, name: str) -> None:
        """Forget what has this name, if anything has."""
        self._named.pop(name, None)

    def all(
        self, subscriptions: Iterable[Subscription], known: Iterable[object]
    ) -> dict[str, Stateful]:
        """Return the objects by name, subscribers' own included.

        Args:
            subscriptions: Where to look for them.
            known: What is in the checkpoint under a name of its own, such as the model.

        Raises:
            ConfigurationError: If two subscribers would be saved under one name.
        """
        named = dict(self._named)
        taken = {id(thing) for thing in (*named.values(), *known)}
        for subscription in subscriptions:
            owner = getattr(subscription.subscriber, "__self__", None)
            if owner is None or id(owner) in taken or not isinstance(owner, Stateful):
                continue
            taken.add(id(owner))
            name = type(owner).__name__
            if name in named:
                raise ConfigurationError(
                    f"two subscribers would be saved under the name {name!r}: give one of them "
                    f"another with runner.add_stateful(name, {name.lower()})"
                )
            named[name] = owner
        return named


def restore_states(things: Mapping[str, Stateful], saved: Mapping[str, Any]) -> list[str]:
    """Put every object into its saved state.

    Returns:
        Which of them could not be, and why.

    Raises:
        CheckpointError: If an object refuses its state.
    """
    for name, thing in things.items():
        if name in saved:
            try:
                thing.load_state_dict(saved[name])
            except Exception as error:
                raise CheckpointError(
                    f"the state of {name!r} cannot be restored: {type(error).__name__}: {error}"
                ) from error
    missing = sorted(things.keys() - saved.keys())
    unused = sorted(saved.keys() - things.keys())
    return [
        *(f"{name!r} begins anew: the checkpoint has no state of it" for name in missing),
        *(
            f"the state of {name!r} in the checkpoint is not used: this run has none"
            for name in unused
        ),
    ]

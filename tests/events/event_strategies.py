"""Events of every type, with any content and any stamp."""

from typing import Annotated, Any, TypeVar, cast

from hypothesis import strategies as st

from asyncrunner_events import EVENTS, Event

E = TypeVar("E", bound=Event)

STAMPS = st.fixed_dictionaries(
    {
        "run": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", fullmatch=True),
        "attempt": st.integers(0, 2**31),
        "rank": st.integers(0, 2**31),
        "seq": st.integers(0, 2**63),
        "time_ns": st.integers(0, 4_000_000_000 * 10**9),
        "monotonic_ns": st.integers(0, 2**63),
    },
    optional={"cause": st.integers(0, 2**63)},
)


def stamped(event: E, **stamp: Any) -> E:
    vars(event).update({"run": "digits", "seq": 7} | stamp)
    return event


@st.composite
def any_events(draw: st.DrawFn) -> Event:
    event_type = draw(st.sampled_from(EVENTS))
    fields: dict[str, st.SearchStrategy[Any]] = {
        name: st.from_type(
            cast("type[Any]", Annotated[field.annotation, *(field.metadata or [None])])
        )
        for name, field in event_type.model_fields.items()
        if name not in event_type.live_fields
    }
    event = event_type.model_validate(draw(st.fixed_dictionaries(fields)))
    return stamped(event, **draw(STAMPS))

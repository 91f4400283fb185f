"""The catalogue of events: what `asyncrunner events` shows, and the files generated from it.

`python -m asyncrunner_events.catalogue [--check] [DIR]` writes `schema.json`, `asyncapi.json`,
`events.d.ts` and the part of `README.md` below its mark, in the folder that holds the package or in DIR. With `--check` it
writes nothing, says what is stale and exits with 1.
"""

import argparse
import inspect
import json
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .asyncapi import document
from .base import Event
from .commands import COMMANDS
from .decisions import DECISIONS
from .docs import field_docs, first_line, type_name
from .examples import example
from .facts import FACTS
from .measurements import MEASUREMENTS
from .mount_points import GRADIENT_POINTS, MOUNT_POINTS, IterPoint
from .probes import PROBES
from .schema import line_schema, schema_of
from .typescript import declarations
from .wire import EVENTS

__all__ = [
    "NoSuchEventError",
    "describe",
    "example",
    "find",
    "listing",
    "schema_of",
    "stale",
    "summary",
]

_GROUPS: tuple[tuple[str, str, tuple[type[Event], ...]], ...] = (
    (
        "Mount points",
        "In the order of a run; MMEngine's 22, in CamelCase. ↻: published in every iteration. "
        "The loop waits at each of them for its blocking subscribers.",
        MOUNT_POINTS,
    ),
    ("Gradient points", "Between `BeforeTrainIter` and `AfterTrainIter`.", GRADIENT_POINTS),
    ("Module probes", "On the modules that were chosen, and only then.", PROBES),
    ("Facts", "Reported once they have happened.", FACTS),
    ("Decisions", "Facts too: who changed how the run goes on, and why.", DECISIONS),
    ("Commands", "What was asked of the run from outside, published as it arrived.", COMMANDS),
    ("Measurements", "Facts too, of subscribers that measure, and only with them.", MEASUREMENTS),
)
_MARK = "<!-- What follows is generated: python -m asyncrunner_events.catalogue -->\n"


class NoSuchEventError(LookupError):
    """No event has this name."""


def find(name: str) -> type[Event]:
    """Return the event with this name, written as the class or as its `kind`.

    Raises:
        NoSuchEventError: If there is none; names the nearest.
    """
    named = {_letters(event.__name__): event for event in EVENTS}
    found = named.get(_letters(name))
    if found is None:
        close = get_close_matches(_letters(name), named, n=2, cutoff=0.7)
        nearest = " or ".join(named[letters].__name__ for letters in close)
        hint = f"did you mean {nearest}?" if close else "`asyncrunner events` lists them all"
        raise NoSuchEventError(f"no event is called {name!r}: {hint}")
    return found


def summary(event_type: type[Event]) -> str:
    """Return when the event is published, in one line."""
    return first_line(event_type)


def listing() -> str:
    """Return all events in their order, a line each, under the names of their groups."""
    width = max(len(event.__name__) for event in EVENTS)
    lines: list[str] = []
    for title, _, events in _GROUPS:
        lines += ["", title] if lines else [title]
        lines += [f"  {event.__name__:{width}}  {summary(event)}" for event in events]
    return "\n".join(lines)


def describe(event_type: type[Event]) -> str:
    """Return the event's documentation and its fields as text for a terminal."""
    docs = field_docs(event_type)
    fields = _own_fields(event_type) | _common_fields()
    width = max(len(f"{name}: {type_}") for name, type_ in fields.items())
    lines = [f"{event_type.__name__} ({event_type.kind})", "", inspect.getdoc(event_type) or "", ""]
    lines += [
        f"  {f'{name}: {type_}':{width}}  {docs.get(name, '')}".rstrip()
        for name, type_ in fields.items()
    ]
    return "\n".join(lines)


def _letters(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _own_fields(event_type: type[Event]) -> dict[str, str]:
    return {
        name: "live" if name in event_type.live_fields else type_name(field.annotation)
        for name, field in event_type.model_fields.items()
        if name not in Event.model_fields
    }


def _common_fields() -> dict[str, str]:
    return {name: type_name(field.annotation) for name, field in Event.model_fields.items()}


# events/README.md


def _generated() -> str:
    parts = [_fields_of_every_event()]
    for title, about, events in _GROUPS:
        parts += [f"## {title}\n\n{about}\n", _table(events)]
    parts += ["## Each event\n", *(_section(event) for event in EVENTS)]
    return "\n".join(parts)


def _fields_of_every_event() -> str:
    docs = field_docs(Event)
    bullets = _bullets(_common_fields(), docs)
    return f"## Fields of every event\n\nIn `data`, beside the event's own:\n\n{bullets}"


def _table(events: Iterable[type[Event]]) -> str:
    rows = ["| event | published when | its own fields |", "|---|---|---|"]
    for event in events:
        mark = " ↻" if issubclass(event, IterPoint) else ""
        link = f"[`{event.__name__}`](#{event.__name__.lower()}){mark}"
        fields = " ".join(
            f"*{name}*" if type_ == "live" else f"`{name}`"
            for name, type_ in _own_fields(event).items()
        )
        rows.append(f"| {link} | {summary(event)} | {fields} |")
    return "\n".join(rows) + "\n"


def _section(event: type[Event]) -> str:
    docs = inspect.getdoc(event) or ""
    fields = _bullets(_own_fields(event), field_docs(event))
    line = example(event).to_json().decode()
    return "\n".join(
        [f"### {event.__name__}\n", docs + "\n", *([fields] if fields else []), _code(line)]
    )


def _bullets(fields: dict[str, str], docs: dict[str, str]) -> str:
    return "".join(
        f"- {f'*{name}*' if type_ == 'live' else f'`{name}: {type_}`'}: {docs.get(name, '')}\n"
        for name, type_ in fields.items()
    )


def _code(line: str) -> str:
    return f"```json\n{line}\n```\n"


# The files


def _files(folder: Path) -> dict[Path, str]:
    """Return what the generated files in the folder have to hold.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it has a README.md without a mark.
    """
    for_programs = {
        folder / "schema.json": _json(line_schema()),
        folder / "asyncapi.json": _json(document()),
        folder / "events.d.ts": declarations(),
    }
    readme = folder / "README.md"
    if not readme.exists():
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        return for_programs
    by_hand, mark, _ = readme.read_text(encoding="utf-8").partition(_MARK)
    if not mark:
        raise ValueError(f"{readme} has no line {_MARK.strip()!r}")
    return for_programs | {readme: f"{by_hand}{mark}\n{_generated()}"}


def stale(folder: Path) -> list[str]:
    """Return a line for each generated file in the folder that is not current, or is missing.

    A folder without `README.md` has only the files for other programs.
    """
    return [
        f"{path}: stale" for path, content in _files(folder).items() if _is_stale(path, content)
    ]


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _is_stale(path: Path, content: str) -> bool:
    return not path.exists() or path.read_text(encoding="utf-8") != content


def main(arguments: list[str] | None = None) -> int:
    """Write the generated files, or check them; return the exit code."""
    parser = argparse.ArgumentParser("python -m asyncrunner_events.catalogue")
    parser.add_argument("--check", action="store_true", help="only say which files are stale")
    here = Path(__file__).parents[1]
    parser.add_argument("folder", metavar="DIR", nargs="?", type=Path, default=here)
    options = parser.parse_args(arguments)
    files = _files(options.folder)
    old = [path for path, content in files.items() if _is_stale(path, content)]
    for path in old:
        if not options.check:
            path.write_text(files[path], encoding="utf-8")
        sys.stdout.write(f"{path}: {'stale' if options.check else 'written'}\n")
    return 1 if old and options.check else 0


if __name__ == "__main__":
    sys.exit(main())

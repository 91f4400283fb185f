"""The parameters of a function as options of a command line, or as the keys of a table.

    def build(lr: float = 1e-3, hidden: list[int] = [64], amp: bool = False) -> Runner

takes `--lr 3e-4 --hidden 32 --hidden 16 --amp`, or the same as a table of a TOML file. The
annotation says what a value may be, and pydantic checks it: numbers, text, paths, `Literal`,
`Enum`, lists (the option is repeated), what may be None, `Annotated[float, Field(gt=0)]`, and
models and dictionaries (as JSON text). Defaults are the function's own and are not checked.
"""

import inspect
import types
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter, ValidationError

from ..errors import ScriptError
from ..suggest import did_you_mean

__all__ = ["Option", "options_of", "read_arguments", "read_table", "signature_of"]

_WORDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "BOOL"),
    int: ("a whole number", "INTEGER"),
    float: ("a number", "NUMBER"),
    str: ("text", "TEXT"),
    Path: ("a path", "PATH"),
    Any: ("text", "TEXT"),
}


@dataclass(frozen=True)
class Option:
    """A parameter that can be chosen from outside."""

    name: str
    default: Any
    """`inspect.Parameter.empty` if a value must be given."""
    adapter: TypeAdapter[Any]
    """Checks a whole value, and turns text into it."""
    kind: Any
    """The annotation without what surrounds it: of a list, its items; never None."""
    many: bool
    """Whether it takes several values, and so may be repeated."""
    optional: bool
    """Whether the word `none` stands for None."""
    help: str = ""

    @property
    def flag(self) -> str:
        """The option as it is typed: `--weight-decay`."""
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is inspect.Parameter.empty

    @property
    def choices(self) -> dict[str, Any]:
        """What may be typed and what it stands for, if the values are listed."""
        if get_origin(self.kind) is Literal:
            return {str(value): value for value in get_args(self.kind)}
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            return {str(member.value): member for member in self.kind}
        return {}

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            words = " or ".join(self.choices)
        else:
            words, _ = _WORDS.get(self.kind, (f"a {_name(self.kind)}", ""))
        return f"{words}, or none" if self.optional else words

    @property
    def metavar(self) -> str:
        """What stands for the value in the help text."""
        if self.choices:
            return "|".join(self.choices)
        return _WORDS.get(self.kind, ("", _name(self.kind).upper()))[1]

    def accept(self, value: object, spelled: str) -> Any:
        """Return `value`, which may be text, as what the parameter takes.

        Raises:
            ScriptError: It is not; the message calls the option as it was `spelled`.
        """
        words: object = self._word(value)
        if self.many and isinstance(value, list):
            words = [self._word(item) for item in cast("list[object]", value)]
        try:
            return self.adapter.validate_python(words)
        except ValidationError as error:
            if isinstance(words, str) and words[:1] in ("{", "["):
                return self._accept_json(words, spelled)
            raise self._refused(words, spelled, error) from None

    def _word(self, word: object) -> object:
        if not isinstance(word, str):
            return word
        if self.optional and word.lower() == "none":
            return None
        return self.choices.get(word, word)

    def _accept_json(self, text: str, spelled: str) -> Any:
        try:
            return self.adapter.validate_json(text)
        except ValidationError as error:
            raise self._refused(text, spelled, error) from None

    def _refused(self, value: object, spelled: str, error: ValidationError) -> ScriptError:
        first = error.errors(include_url=False)[0]
        # Of a wrong type the expected one says enough; of a broken rule only pydantic knows which.
        plain = first["type"].endswith(("_parsing", "_type", "literal_error", "enum"))
        where = ".".join(str(part) for part in first["loc"])
        detail = "" if plain else f" ({where}{': ' if where else ''}{first['msg']})"
        one_of = first["input"] if self.many else value
        hint = did_you_mean(str(one_of), self.choices)
        return ScriptError(f"{spelled} must be {self.expected}, got {one_of!r}{hint}{detail}")


class UnknownOptionError(ScriptError):
    """The script's function has no such option."""

    def __init__(self, message: str, option: str) -> None:
        super().__init__(message)
        self.option = option


def options_of(function: Callable[..., object]) -> list[Option]:
    """Return the parameters of `function` that can be chosen from outside.

    Raises:
        ScriptError: A parameter has no default, and its type cannot be written as text.
    """
    notes = _documented(inspect.getdoc(function) or "")
    options: list[Option] = []
    for parameter in signature_of(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        option = _option(parameter, notes.get(parameter.name, ""))
        if option is not None:
            options.append(option)
        elif parameter.default is parameter.empty:
            raise ScriptError(
                f"{_called(function)} needs {parameter.name!r}, and its type "
                f"{_name(parameter.annotation)} cannot be given as an option; give it a default"
            )
    return options


def signature_of(function: Callable[..., object]) -> inspect.Signature:
    """Return the signature of `function`, its annotations evaluated if they can be."""
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # evaluating runs the user's text, which may name what was never imported
        return inspect.signature(function)


def read_arguments(function: Callable[..., object], arguments: Sequence[str]) -> dict[str, Any]:
    """Return what the words of a command line give for the parameters of `function`.

    Raises:
        ScriptError: An option is unknown, its value is missing, or not what it should be.
    """
    options = options_of(function)
    spellings = _spellings(options)
    given: dict[str, Any] = {}
    words = deque(arguments)
    while words:
        flag, has_value, value = words.popleft().partition("=")
        if flag not in spellings:
            raise _unknown(function, flag, spellings)
        option, stands_for = spellings[flag]
        if has_value:
            raw: object = value
        elif stands_for is not None:
            raw = stands_for
        elif words:
            raw = words.popleft()
        else:
            raise ScriptError(f"{flag} needs a value: {option.expected}")
        given[option.name] = [*given.get(option.name, []), raw] if option.many else raw
    by_name = {option.name: option for option in options}
    return {name: by_name[name].accept(raw, by_name[name].flag) for name, raw in given.items()}


def read_table(function: Callable[..., object], table: Mapping[str, object]) -> dict[str, Any]:
    """Return what a table of a configuration gives for the parameters of `function`.

    Raises:
        ScriptError: A key is unknown, or its value is not what it should be.
    """
    by_name = {option.name: option for option in options_of(function)}
    for key in table:
        if key not in by_name:
            raise ScriptError(f"{_called(function)} has no {key!r}{did_you_mean(key, by_name)}")
    return {key: by_name[key].accept(value, repr(key)) for key, value in table.items()}


def _spellings(options: Sequence[Option]) -> dict[str, tuple[Option, bool | None]]:
    table: dict[str, tuple[Option, bool | None]] = {}
    for option in options:
        is_flag = option.kind is bool and not option.many
        for flag in (option.flag, f"--{option.name}"):
            table[flag] = (option, True if is_flag else None)
            if is_flag:
                table[f"--no-{flag[2:]}"] = (option, False)
    return table


def _unknown(
    function: Callable[..., object], word: str, spellings: Mapping[str, object]
) -> ScriptError:
    if not word.startswith("-"):
        return ScriptError(f"{_called(function)} takes options, got {word!r}")
    hint = did_you_mean(word.replace("_", "-"), (flag for flag in spellings if "_" not in flag))
    return UnknownOptionError(f"{_called(function)} has no option {word}{hint}", word)


def _option(parameter: inspect.Parameter, help: str) -> Option | None:
    annotation: Any = parameter.annotation
    if annotation is parameter.empty or isinstance(annotation, str):
        known = parameter.default not in (parameter.empty, None)
        annotation = cast("Any", type(parameter.default)) if known else Any
    if parameter.kind is parameter.POSITIONAL_ONLY:
        return None
    try:
        adapter = TypeAdapter[Any](annotation)
    except (PydanticUserError, PydanticUndefinedAnnotation):
        return None
    kind, optional = _without_none(annotation)
    many = get_origin(kind) in (list, set, frozenset, tuple, Sequence) or kind in (list, tuple, set)
    if many:
        kind, _ = _without_none(get_args(kind)[0] if get_args(kind) else str)
    return Option(
        name=parameter.name,
        default=parameter.default,
        adapter=adapter,
        kind=kind,
        many=many,
        optional=optional,
        help=_described(annotation) or help,
    )


def _without_none(annotation: Any) -> tuple[Any, bool]:
    optional = False
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, types.UnionType):
            members = [member for member in get_args(annotation) if member is not type(None)]
            optional = optional or len(members) < len(get_args(annotation))
            if len(members) != 1:
                return annotation, optional
            annotation = members[0]
        else:
            return annotation, optional


def _described(annotation: Any) -> str:
    marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((text for mark in marks if (text := getattr(mark, "description", None))), "")


def _documented(docstring: str) -> dict[str, str]:
    # The lines of a Google docstring's `Args:`, one a parameter; continuation lines are joined.
    notes: dict[str, str] = {}
    name = ""
    _, _, section = docstring.partition("\nArgs:\n")
    for line in section.splitlines():
        indent = len(line) - len(line.lstrip())
        if not indent:
            break
        head, colon, text = line.strip().partition(":")
        if indent <= 4 and colon:
            name, notes[head.split()[0]] = head.split()[0], text.strip()
        elif name:
            notes[name] += " " + line.strip()
    return notes


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)


def _called(function: Callable[..., object]) -> str:
    return f"{_name(function)}()"

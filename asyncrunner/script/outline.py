"""What the text of a script says before anything of it runs.

Looking first means that a plain script with an `if __name__ == "__main__":` block is run once, as
`__main__`, and not imported before that only to find that there was nothing to import.
"""

import ast
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import ScriptError

__all__ = ["Outline", "outline_of"]


@dataclass(frozen=True)
class Outline:
    """What stands at the top level of a script."""

    lines: dict[str, int]
    """Where each name is bound."""
    promises_runner: bool
    """Whether a name or an annotation suggests that importing the script gives a runner."""
    has_main_block: bool
    """Whether there is an `if __name__ == "__main__":`."""
    unannotated: list[str]
    """Functions that build a Runner and do not say that they return one."""


def outline_of(path: Path) -> Outline:
    """Read the script at `path`.

    Raises:
        ScriptError: It cannot be read, or it is not Python; the message shows the line.
    """
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        shown = "".join(traceback.format_exception_only(error))
        raise ScriptError(f"{path} is not valid Python\n\n{shown.rstrip()}") from None
    except (OSError, ValueError) as error:  # ValueError: null bytes, so no text at all
        raise ScriptError(f"{path} cannot be read as Python: {error}") from None
    lines: dict[str, int] = {}
    for statement in _top_level(tree.body):
        for name in _bound(statement):
            lines.setdefault(name, statement.lineno)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    factories = {node.name for node in functions if "Runner" in _text(node.returns)}
    made = any(_makes_runner(node, factories) for node in _top_level(tree.body))
    return Outline(
        lines=lines,
        promises_runner=bool(factories) or made or not lines.keys().isdisjoint({"runner", "app"}),
        has_main_block=any(_is_main_block(node) for node in tree.body),
        unannotated=[
            node.name for node in functions if node.returns is None and _calls(node, {"Runner"})
        ],
    )


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With) and not _is_main_block(statement):
            for field in ("body", "orelse", "finalbody"):
                yield from _top_level(getattr(statement, field, []))


def _bound(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []


def _makes_runner(statement: ast.stmt, factories: set[str]) -> bool:
    is_assignment = isinstance(statement, ast.Assign | ast.AnnAssign)
    return is_assignment and _calls(statement, {"Runner", *factories})


def _calls(node: ast.AST, names: set[str]) -> bool:
    calls = [part.func for part in ast.walk(node) if isinstance(part, ast.Call)]
    return any(_text(function).rpartition(".")[2] in names for function in calls)


def _is_main_block(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and _text(statement.test) in (
        "__name__ == '__main__'",
        "'__main__' == __name__",
    )


def _text(node: ast.AST | None) -> str:
    return ast.unparse(node) if node is not None else ""

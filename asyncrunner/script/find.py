"""Finding the runner in a script, and running what was found.

`load` looks at `TARGET`, a path such as `train.py` or `train.py:build`, in this order:

1. the name after the colon: a Runner, or a function that returns one;
2. a Runner called `runner` or `app`;
3. a function annotated to return a Runner, whose parameters become options;
4. any other Runner;
5. an `if __name__ == "__main__":` block: the file is run as `__main__`, as Python would.

The file is imported as a module under its own name, with its folder first on `sys.path`, so that
the worker processes of a data loader find it again whether they are forked or spawned. A
file whose text promises no runner, and that has a `__main__` block, is not imported first.

A script that starts its run while it is imported (`runner.run()` at the top level, without the
guard) has been run by then, and is not run a second time. Prefer the guard: a spawned worker
process imports the script again, and would start the run again.
"""

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from ..errors import AsyncRunnerError, ScriptError
from ..launch import watching
from ..suggest import did_you_mean
from .options import options_of, read_arguments, read_table, signature_of
from .outline import Outline, outline_of
from .user_code import user_traceback

if TYPE_CHECKING:
    from ..runner import Runner

__all__ = ["Found", "build_runner", "load", "load_value"]

_LOOKED_FOR = """\
Looked for, at the top level:
  a Runner called `runner` or `app`
  a function annotated to return a Runner: def build(lr: float = 1e-3) -> Runner
  any other Runner
  an `if __name__ == "__main__":` block"""


@dataclass(frozen=True)
class Found:
    """What `load` chose."""

    path: Path
    """The script, as it was named."""
    kind: Literal["runner", "function", "main", "ran"]
    """A Runner, a function that returns one, a file to run as `__main__`, or one that has run."""
    args: tuple[str, ...] = ()
    """The script's own arguments."""
    name: str = ""
    """The name of the runner or the function."""
    value: Any = None
    """The runner or the function."""

    def __str__(self) -> str:
        if self.kind == "runner":
            return f"{self.path}:{self.name} (a Runner)"
        if self.kind == "function":
            return f"{self.path}:{self.name} (a function that returns a Runner)"
        if self.kind == "main":
            return f"{self.path} (a script, run as __main__)"
        return f"{self.path} (a script that starts its run itself)"

    def runner(self, config: Mapping[str, object] | None = None) -> "Runner | None":
        """Return the runner; build it if a function was found. None if the script starts it itself.

        Args:
            config: Values for the function's parameters; the script's arguments win over them.

        Raises:
            ScriptError: An option or a value is wrong, or there is no function to take `config`.
        """
        if self.kind == "function":
            return build_runner(self.value, self.args, config=config)
        if config is not None:
            raise ScriptError(f"only a function that returns a Runner takes --config; found {self}")
        return self.value

    def run(self, config: Mapping[str, object] | None = None) -> None:
        """Run what was found until it ends; what the user's code raises is raised as it is."""
        runner = self.runner(config)
        if runner is not None:
            runner.run()
        elif self.kind == "main":
            _run_as_main(self.path)


def load(target: str, args: Sequence[str] = ()) -> Found:
    """Find the runner in `target`, and import the script for that if need be.

    `sys.path` and `sys.argv` are then as they would be in `python script.py args…`.

    Raises:
        ScriptError: The script is missing, is not Python, raised, has no runner or two.
    """
    path, name = _located(target)
    outline = outline_of(path)
    sys.argv = [str(path), *args]
    sys.path.insert(0, str(path.resolve().parent))
    as_main = Found(path, "main", tuple(args))
    if outline.has_main_block and not outline.promises_runner and not name:
        return as_main
    runs: list[object] = []
    with watching(runs.append):
        module = _imported(path, runs)
    if runs:
        return Found(path, "ran", tuple(args))
    found = _named(module, path, name) if name else _chosen(module, path, outline, args)
    if found is not None:
        return replace(found, args=tuple(args))
    if outline.has_main_block:
        del sys.modules[module.__name__]
        return as_main
    hints = [f"\nIf {name}() returns one, annotate it: -> Runner" for name in outline.unannotated]
    raise ScriptError(f"{path} has no runner in it. {_LOOKED_FOR}{''.join(hints[:1])}")


def load_value(target: str) -> Any:
    """Import a script and return what `file.py:name` names.

    Raises:
        ScriptError: The script is missing, is not Python, raised, or has nothing of that name.
    """
    path, name = _located(target)
    if not name:
        raise ScriptError(f"{target}: expected a name after the file, as in {path}:name")
    sys.path.insert(0, str(path.resolve().parent))
    return _value(_imported(path, ()), path, name)


def build_runner(
    factory: Callable[..., object],
    options: Sequence[str] | Mapping[str, object] = (),
    *,
    config: Mapping[str, object] | None = None,
) -> "Runner":
    """Call `factory` with options, checked against its annotations, and return its runner.

    Args:
        factory: A function that returns a Runner.
        options: The words of a command line, or a table with the parameters' names as keys.
        config: A second table; `options` win over it.

    Raises:
        ScriptError: An option is unknown, missing or not what it should be, or `factory` returns
            no Runner.
    """
    called = f"{getattr(factory, '__name__', factory)}()"
    if inspect.iscoroutinefunction(factory):
        raise ScriptError(f"{called} is a coroutine function; write `def`, without async")
    given = read_table(factory, config or {})
    if isinstance(options, Mapping):
        given |= read_table(factory, options)
    else:
        given |= read_arguments(factory, options)
    missing = [
        option for option in options_of(factory) if option.required and option.name not in given
    ]
    if missing:
        needs = ", ".join(f"{option.flag} ({option.expected})" for option in missing)
        raise ScriptError(f"{called} needs {needs}")
    runner = factory(**given)
    if not _is_runner(runner):
        kind = type(runner).__name__
        raise ScriptError(f"{called} must return a Runner, and returned {kind}")
    runner.parameters = {one.name: given.get(one.name, one.default) for one in options_of(factory)}
    return runner


def _located(target: str) -> tuple[Path, str]:
    match = re.fullmatch(r"(?P<file>.+\.py):(?P<name>[^:/\\]*)", target)
    path, name = (Path(match["file"]), match["name"]) if match else (Path(target), "")
    if match and not name.isidentifier():
        raise ScriptError(f"{target}: expected a name after the colon, as in {path}:build")
    scripts = path if path.is_dir() else path.parent
    near = [str(file) for file in sorted(scripts.glob("*.py"))]
    if path.is_dir():
        which = f"; say which script in it: {', '.join(near[:5])}" if near else ""
        raise ScriptError(f"{path} is a folder{which}")
    if not path.exists():
        hint = did_you_mean(str(path.with_suffix(".py")), near, cutoff=0.75)  # all end in .py
        raise ScriptError(f"there is no {path}{hint}")
    if path.suffix != ".py":
        raise ScriptError(f"{path} is not a Python file: its name must end in .py")
    return path, name


def _imported(path: Path, runs: Sequence[object]) -> ModuleType:
    name = path.stem
    # A worker process finds the script by this name, so it must not be another module's.
    if name in sys.modules:
        other = getattr(sys.modules[name], "__file__", None) or "built into Python"
        raise ScriptError(f"{path} has the name of a module that is in use ({other}); rename it")
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except AsyncRunnerError:
        raise
    except Exception as error:
        if runs:  # it got past importing: this is what the training raised
            raise
        shown = user_traceback(error, without_ours=True).rstrip()
        raise ScriptError(f"{path} raised an error while it was imported\n\n{shown}") from error
    return module


def _named(module: ModuleType, path: Path, name: str) -> Found:
    value = _value(module, path, name)
    if _is_runner(value):
        return Found(path, "runner", name=name, value=value)
    if inspect.isroutine(value):
        return Found(path, "function", name=name, value=value)
    kind = type(value).__name__
    raise ScriptError(
        f"{path}:{name} must be a Runner or a function that returns one, and is a {kind}"
    )


def _value(module: ModuleType, path: Path, name: str) -> Any:
    known = [key for key in vars(module) if not key.startswith("_")]
    if name not in vars(module):
        raise ScriptError(f"{path} has no {name!r}{did_you_mean(name, known)}")
    return getattr(module, name)


def _chosen(module: ModuleType, path: Path, outline: Outline, args: Sequence[str]) -> Found | None:
    runners: dict[int, Found] = {}
    functions: list[Found] = []
    for name in sorted(vars(module), key=lambda name: name not in ("runner", "app")):
        value = getattr(module, name)
        if _is_runner(value):
            runners.setdefault(id(value), Found(path, "runner", name=name, value=value))
        elif _returns_runner(value) and value.__module__ == module.__name__:
            functions.append(Found(path, "function", name=name, value=value))
    chosen = [found for found in runners.values() if found.name in ("runner", "app")]
    # With arguments for the script the function may be meant, which alone can take them.
    if not chosen or (args and functions):
        chosen = [*functions, *runners.values()]
    if len(chosen) > 1:
        raise ScriptError(_ambiguous(path, chosen, outline))
    return chosen[0] if chosen else None


def _ambiguous(path: Path, candidates: Sequence[Found], outline: Outline) -> str:
    lines = [
        f"  {path}:{outline.lines.get(found.name, '?')}  {found.name}"
        f"{'() -> Runner' if found.kind == 'function' else ', a Runner'}"
        for found in candidates
    ]
    first = f"{path}:{candidates[0].name}"
    return "\n".join([f"{path} has more than one runner; say which, as in {first}", *lines])


def _is_runner(value: object) -> "TypeGuard[Runner]":
    # Whoever holds a Runner has imported its module; without it torch stays out.
    module = sys.modules.get("asyncrunner.runner")
    return module is not None and isinstance(value, module.Runner)


def _returns_runner(value: object) -> bool:
    module = sys.modules.get("asyncrunner.runner")
    if module is None or not inspect.isfunction(value):
        return False
    returned = signature_of(value).return_annotation
    if isinstance(returned, str):  # a name that is imported for type checkers only
        return returned.rpartition(".")[2] == "Runner"
    return isinstance(returned, type) and issubclass(returned, module.Runner)


def _run_as_main(path: Path) -> None:
    module = ModuleType("__main__")
    module.__file__ = str(path.absolute())
    sys.modules["__main__"] = module  # where pickle and spawned workers look
    code = compile(path.read_bytes(), module.__file__, "exec", dont_inherit=True)
    exec(code, module.__dict__)

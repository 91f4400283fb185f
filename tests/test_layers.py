"""Imports only go down: the layers of the design, checked by reading the source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "asyncrunner"
EVENTS = Path(__file__).parents[1] / "events" / "asyncrunner_events"

LAYERS = (
    {"errors", "events", "redact", "suggest"},
    {"delivery"},
    {"bus"},
    {
        "closed_segments",
        "journal",
        "settings",
        "launch",
        "replays",
        "run_dir",
        "same_packages",
        "stopping",
        "sinks",
        "streaming",
        "timeline",
        "watchdog",
        "writers",
    },
    {"compute", "data", "device", "host_waits", "checkpoint", "training", "optim"},
    {"iteration", "loops", "evaluation", "history", "probes"},
    {"subscribers"},
    {"accounts", "describe", "dry_run", "outputs", "runner", "running", "steering"},
    {"script", "cli", "examples", "mmengine", "testing", "__main__"},
)
"""From the bottom; a module may import its own layer and those before it."""

WITHOUT_TORCH = (
    "errors",
    "events",
    "redact",
    "suggest",
    "delivery",
    "bus",
    "closed_segments",
    "journal",
    "settings",
    "launch",
    "replays",
    "same_packages",
    "sinks",
    "stopping",
    "streaming",
    "run_dir",
    "timeline",
    "watchdog",
    "writers",
)


def layer_of(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Return the absolute names of what a file imports, in functions too, but not for types only."""
    names: set[str] = set()
    package = ("asyncrunner", *path.relative_to(PACKAGE).parts[:-1])
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - for_types:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names.update(
                ".".join((*base, *filter(None, [node.module]), alias.name)) for alias in node.names
            )
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_every_module_has_a_layer() -> None:
    known = set[str]().union(*LAYERS) | {"__init__"}

    assert {part_of(path) for path in modules()} == known


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_its_own_layer_and_those_below(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    own = layer_of(part_of(path))

    above = {
        name
        for name in imports_of(path)
        if name.startswith("asyncrunner.")
        and name.split(".")[1] not in ("__version__", *vars_of_package())
        and layer_of(name.split(".")[1]) > own
    }

    assert not above


def vars_of_package() -> list[str]:
    import asyncrunner

    return [name for name in asyncrunner.__all__ if name not in ("errors", "events", "optim")]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_lower_layers_do_not_know_torch(path: Path) -> None:
    if part_of(path) in WITHOUT_TORCH:
        assert not {name for name in imports_of(path) if name.split(".")[0] == "torch"}


def test_subscribers_know_neither_loops_nor_the_runner() -> None:
    for path in (PACKAGE / "subscribers").rglob("*.py"):
        ours = {name for name in imports_of(path) if name.startswith("asyncrunner.")}
        # What is done to the tensors in a batch belongs to no training.
        used = {n.split(".")[1] for n in ours if not n.startswith("asyncrunner.training.tree")}
        assert not used & {"iteration", "loops", "evaluation", "runner", "training"}


def test_the_events_package_needs_pydantic_and_nothing_else() -> None:
    allowed = {
        "asyncrunner_events",
        "pydantic",
        "pydantic_core",
        "typing_extensions",
    }  # pydantic needs it
    for path in EVENTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            foreign = {name.split(".")[0] for name in names} - allowed
            assert foreign <= standard_library(), (path, foreign)


def standard_library() -> frozenset[str]:
    import sys

    return sys.stdlib_module_names

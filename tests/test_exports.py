"""What the package exports, and that nothing of it costs an import of torch."""

import subprocess
import sys
from pathlib import Path

import asyncrunner
import asyncrunner_events

TOP_LEVEL = {"README.md", "asyncrunner", "benchmarks", "events", "pyproject.toml", "tests"}


def test_the_public_names_are_pinned() -> None:
    assert asyncrunner.__all__ == [
        "Attachment",
        "Bus",
        "Checkpointer",
        "EpochTrainLoop",
        "IterTrainLoop",
        "Runner",
        "Subscription",
        "TestLoop",
        "ValLoop",
        "errors",
        "events",
        "optim",
    ]


def test_every_public_name_is_there() -> None:
    for package in (asyncrunner, asyncrunner.errors, asyncrunner_events):
        assert len(set(package.__all__)) == len(package.__all__)
        for name in package.__all__:
            assert getattr(package, name) is not None


def test_the_events_of_the_runner_are_the_classes_of_the_events_package() -> None:
    for name in asyncrunner_events.__all__:
        assert getattr(asyncrunner.events, name) is getattr(asyncrunner_events, name)


def test_importing_the_package_and_its_bus_does_not_import_torch() -> None:
    code = (
        "import sys, asyncrunner; "
        "assert not {'torch', 'pydantic', 'anyio'} & set(sys.modules); "
        "from asyncrunner import Bus, errors, events; "
        "assert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_else_lies_at_the_top_of_the_project() -> None:
    root = Path(__file__).parents[1]
    listing = subprocess.run(
        ["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False
    )
    tracked = {line.split("/")[0] for line in listing.stdout.splitlines()}

    assert {name for name in tracked if not name.startswith(".")} <= TOP_LEVEL

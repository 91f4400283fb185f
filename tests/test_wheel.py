"""What is in the wheel, and what is not."""

import subprocess
import sys
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The wheel, built without the network."""
    for module in ("hatchling", "pip"):
        if find_spec(module) is None:
            pytest.skip(f'{module} is not installed: pip install "asyncrunner[test]"')
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return ZipFile(path)


def files_of(package: Path) -> list[Path]:
    """Return the files that git knows; without git, those that are not of a kind it ignores."""
    git = which("git")
    if git is not None:
        command = [git, "-C", str(package), "ls-files", "-z"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        known = [package / name for name in done.stdout.split("\0") if name]
        if known:
            return [path for path in known if path.is_file()]  # one may be deleted just now
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    return [
        path
        for path in package.rglob("*")
        if path.is_file()
        and path.suffix != ".pyc"
        and not any(fnmatch(part, one) for part in path.relative_to(ROOT).parts for one in ignored)
    ]


def test_everything_of_both_packages_is_in_it(wheel: ZipFile):
    names = set(wheel.namelist())
    for package in (ROOT / "asyncrunner", ROOT / "events" / "asyncrunner_events"):
        files = [path.relative_to(package.parent).as_posix() for path in files_of(package)]
        assert len(files) > 20
        assert set(files) <= names


@pytest.mark.parametrize(
    "name",
    [
        "asyncrunner/py.typed",
        "asyncrunner/streaming/page/index.html",
        "asyncrunner/streaming/page/page.js",
        "asyncrunner/examples/mqtt_sink.py",
        "asyncrunner_events/py.typed",
        "asyncrunner_events/asyncapi.json",
        "asyncrunner_events/events.d.ts",
        "asyncrunner_events/schema.json",
    ],
)
def test_what_is_no_module_is_in_it_too(wheel: ZipFile, name: str):
    assert wheel.getinfo(name).file_size > 0 or name.endswith("py.typed")


def test_nothing_else_becomes_importable(wheel: ZipFile):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    (info,) = (name for name in tops if name.endswith(".dist-info"))
    assert tops == {"asyncrunner", "asyncrunner_events", info}
    assert not [name for name in wheel.namelist() if "__pycache__" in name or "/test_" in name]
    entry_points = wheel.read(f"{info}/entry_points.txt").decode()
    assert "asyncrunner = asyncrunner.__main__:main" in entry_points


def test_the_packages_run_from_it_alone(wheel: ZipFile, tmp_path: Path):
    wheel.extractall(tmp_path)
    code = "import asyncrunner_events, asyncrunner; print(asyncrunner.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{tmp_path}/asyncrunner/__init__.py\n"

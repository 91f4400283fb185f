"""README is right: its script is the shipped one, its output is what is printed, its links lead."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = ROOT / "asyncrunner" / "examples"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.M | re.S)


def shape_of(output: str) -> list[str]:
    """Return the lines with every number, id and run of blanks made alike, in a fixed order.

    Values and times differ from machine to machine; and a background subscriber's line may stand
    before or after the progress line of the same moment, which is the point of it.
    """
    without_ids = re.sub(r"-\d{8}-\d{6}-[0-9a-f]{4}", "-ID", output)
    without_numbers = re.sub(r"\d[\d.:,]*(e[+-]\d+)?( (ms|s|µs)\b)?", "#", without_ids)
    return sorted(re.sub(r" +", " ", line).strip() for line in without_numbers.splitlines())


def output_of(script: str, *args: str, folder: Path) -> str:
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("ASYNCRUNNER_")}
    command = [sys.executable, "-m", "asyncrunner", "run", script, *args]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readme_is_under_200_lines() -> None:
    assert len(README.splitlines()) < 200


def test_the_script_in_readme_is_the_shipped_example() -> None:
    assert blocks("python")[0] == (EXAMPLES / "plain.py").read_text()


def test_the_scripts_output_in_readme_is_what_it_prints(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(blocks("python")[0])

    printed = output_of("plain.py", folder=tmp_path)

    assert shape_of(printed) == shape_of(blocks("text")[1])


def test_the_main_jobs_output_in_readme_is_what_its_command_prints(tmp_path: Path) -> None:
    command = blocks("sh")[0].splitlines()[-1].split()
    assert command[:2] == ["asyncrunner", "run"]
    # The same relative path as in the command, which the first line names.
    (tmp_path / "asyncrunner").mkdir()
    (tmp_path / "asyncrunner" / "examples").symlink_to(EXAMPLES)

    printed = output_of(*command[2:], folder=tmp_path)

    assert shape_of(printed) == shape_of(blocks("text")[0])


def test_readme_tells_to_run_the_whole_check_in_one_line() -> None:
    check = "ruff format --check . && ruff check . && pyright && pytest"

    assert blocks("sh")[1].splitlines()[-1] == check


PAGES = [str(path.relative_to(ROOT)) for path in ROOT.glob("[a-z]*/**/README.md")]


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_links_lead_to_files_that_exist(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_every_mount_point_of_mmengine_has_its_name_here() -> None:
    from asyncrunner import events

    for name in re.findall(r"`events\.([A-Z]\w+)`", README):
        assert hasattr(events, name), name

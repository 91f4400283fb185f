"""The page about MMEngine is right: its programs print the same, and its list of attributes is whole."""

import re
from pathlib import Path

from toys import fit
from with_mmengine import ROOT, output_of

from asyncrunner.mmengine import runner_for_hooks

FOLDER = ROOT / "asyncrunner" / "mmengine"
PAGE = (FOLDER / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.M | re.S)


def test_both_programs_print_what_the_page_says(python_with_mmengine: Path, tmp_path: Path):
    names = ("work.py", "hooks.py", "theirs.py", "ours.py")
    for name, block in zip(names, blocks("python"), strict=True):
        (tmp_path / name).write_text(block)
    (said,) = blocks("text")
    for program in ("theirs.py", "ours.py"):
        assert output_of(python_with_mmengine, program, folder=tmp_path) == said


def test_every_attribute_that_hooks_find_is_on_the_page():
    seen = runner_for_hooks(fit())
    there = {name for name in (*dir(type(seen)), *vars(seen)) if not name.startswith("_")}
    (listed,) = re.findall(r"is what hooks get\. It has (.*?)\. Anything", PAGE, flags=re.S)
    assert re.findall(r"`(\w+)`", listed) == sorted(there)


def test_links_lead_to_files_that_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert target.startswith("https://") or (FOLDER / target).exists(), target

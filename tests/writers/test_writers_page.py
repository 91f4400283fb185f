import re
from pathlib import Path
from typing import Any

import pytest
from written import trained

from asyncrunner.writers import NAMES, Writer

PAGE = Path(__file__).parents[2] / "asyncrunner" / "writers" / "README.md"


def test_the_writer_on_the_page_works_and_is_as_short_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    example = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[-1]
    assert len(example.strip().splitlines()) <= 22
    names: dict[str, Any] = {}
    exec(example, names)
    monkeypatch.chdir(tmp_path)
    writer = names["Notes"]()
    assert isinstance(writer, Writer)
    trained(tmp_path / "run", writer).run()
    lines = (tmp_path / "notes.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["2", "4", "6", "finished"]
    assert lines[0].startswith("2 ('val/error', ")


def test_every_writer_is_on_the_page():
    for name in NAMES:
        assert f"`{name}`" in PAGE.read_text()

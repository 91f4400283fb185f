"""The API as its own document describes it, tried out by schemathesis; streams never end, so not those."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest
from serving import TOKEN, Run, serving


@pytest.mark.parametrize("examples", [5, pytest.param(100, marks=pytest.mark.soak)])
async def test_no_request_that_the_document_allows_or_not_breaks_what_it_says(
    tmp_path: Path, examples: int
):
    if find_spec("schemathesis") is None:
        pytest.skip("schemathesis is not installed")
    run = Run(tmp_path / "a")
    run.iterate(50)
    async with serving(tmp_path) as site:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"http://127.0.0.1:{site.port}/openapi.json",
            f"--header=Authorization: Bearer {TOKEN}",
            "--exclude-path-regex=/(events|ws)$",
            f"--max-examples={examples}",
            "--generation-database=:memory:",
            "--no-color",
        ]
        done = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT, cwd=tmp_path)
    assert done.returncode == 0, done.stdout.decode()[-3000:]
    assert b"No issues found" in done.stdout

"""Clients that are not Python: what a terminal and a browser have."""

import json
import subprocess
from pathlib import Path

import anyio
from serving import TOKEN, Run, program, serving


async def test_curl_follows_a_run_in_one_line(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(3)
    async with serving(tmp_path) as site:
        url = f"http://127.0.0.1:{site.port}/v1/runs/latest/events?since=0.0"
        curl = [program("curl"), "-sN", "-H", f"Authorization: Bearer {TOKEN}", url]
        async with await anyio.open_process(curl, stderr=None) as process:
            assert process.stdout is not None
            text = ""
            while "id: 0.2\n" not in text:
                text += (await process.stdout.receive()).decode()
            run.iterate(1)
            while "id: 0.3\n" not in text:
                text += (await process.stdout.receive()).decode()
            process.kill()
    assert "id: 0.0\n" not in text


async def test_a_script_of_a_browser_follows_a_run_and_resumes(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(400)
    script = Path(__file__).with_name("browser.mjs")
    async with serving(tmp_path) as site:
        address = f"http://127.0.0.1:{site.port}/?token={TOKEN}"
        node = [program("node"), str(script), address, "400"]
        with anyio.fail_after(60):
            done = await anyio.run_process(node, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == [str(seq) for seq in range(400)]


async def test_the_pages_script_is_one_that_a_browser_can_read(tmp_path: Path):
    async with serving(tmp_path) as site:
        script = tmp_path / "page.js"
        script.write_bytes((await site.get("/page.js")).body)
    done = await anyio.run_process([program("node"), "--check", str(script)], check=False)
    assert done.returncode == 0, done.stderr.decode()

"""Requests as an attacker would write them, byte by byte."""

import json
import os
import stat
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import TOKEN, Run, serving

from asyncrunner.errors import ConfigurationError
from asyncrunner.streaming.security import Guard, is_loopback, token_for

ROUTES = (
    "/",
    "/page.js",
    "/metrics",
    "/openapi.json",
    "/v1/runs",
    "/v1/runs/latest",
    "/v1/runs/latest/events",
    "/v1/runs/latest/ws",
    "/nothing",
)


@pytest.mark.parametrize("path", ROUTES)
async def test_nothing_is_answered_without_the_token(tmp_path: Path, path: str):
    Run(tmp_path / "a")
    wrong = (None, "", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff")
    async with serving(tmp_path) as site:
        for given_token in wrong:
            reply = await site.get(path, authorization=given_token)
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == "bearer"
            assert "a-" not in reply.body.decode()


@pytest.mark.parametrize("path", ROUTES)
async def test_a_name_that_is_not_the_servers_is_misdirected(tmp_path: Path, path: str):
    names = (
        "evil.example",
        "127.0.0.1.evil.example",
        "127.evil.example",
        "localhost.evil.example:80",
        "evil@127.0.0.1",
        "127.0.0.1@evil.example",
        "127.0.0.1:x",
        "127.0.0.1/",
        "[::1",
        "10.0.0.1",
        "0.0.0.0",
        "127.1",
    )
    async with serving(tmp_path) as site:
        for name in names:
            reply = await site.get(path, host=name)
            assert reply.status == 421, name


async def test_a_request_without_a_host_or_with_two_is_bad(tmp_path: Path):
    async with serving(tmp_path) as site:
        assert (await site.get("/metrics", host=None)).status == 400
        two = site.head("/metrics").replace(b"\r\n\r\n", b"\r\nhost: evil.example\r\n\r\n")
        assert (await site.ask(two)).status == 400
        old = b"GET /metrics HTTP/1.0\r\nauthorization: Bearer %b\r\n\r\n" % TOKEN.encode()
        assert (await site.ask(old)).status == 421


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "localhost:9"])
async def test_every_name_of_this_machine_is_the_servers(tmp_path: Path, name: str):
    async with serving(tmp_path) as site:
        assert (await site.get("/v1/runs", host=name)).status == 200


@pytest.mark.parametrize("path", ROUTES)
async def test_another_sites_request_is_refused_though_it_has_the_token(tmp_path: Path, path: str):
    async with serving(tmp_path) as site:
        own = f"127.0.0.1:{site.port}"
        origins = (
            "null",
            "",
            "http://evil.example",
            f"http://{own}.evil.example",
            f"http://evil.example@{own}",
            "http://127.0.0.1",
            "http://127.0.0.1:1",
            f"http://localhost:{site.port}",
            f"file://{own}",
            f"http://{own}/",
            f"http://{own} http://evil.example",
        )
        for origin in origins:
            assert (await site.get(path, origin=origin)).status == 403, origin
        assert (await site.get("/v1/runs", origin=f"http://{own}")).status == 200


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "FOO"]
)
async def test_only_reading_methods_are_known(tmp_path: Path, method: str):
    async with serving(tmp_path) as site:
        reply = await site.get("/v1/runs", method)
    assert reply.status == 405
    assert reply.headers["allow"] == "get, head"


async def test_a_body_is_refused(tmp_path: Path):
    async with serving(tmp_path) as site:
        for header in ("content-length: 100000000", "transfer-encoding: chunked"):
            head = site.head("/v1/runs").replace(b"\r\n\r\n", f"\r\n{header}\r\n\r\n".encode())
            assert (await site.ask(head)).status == 413


async def test_the_token_in_the_address_becomes_a_cookie_and_the_page_is_loaded_without_it(
    tmp_path: Path,
):
    async with serving(tmp_path) as site:
        entered = await site.get(f"/?token={TOKEN}", authorization=None)
        assert entered.status == 200
        assert "location" not in entered.headers
        assert b"url=/" in entered.body
        assert TOKEN.encode() not in entered.body
        cookie, *attributes = entered.headers["set-cookie"].split("; ")
        assert attributes == ["path=/", "httponly", "samesite=strict"]
        name = cookie.partition("=")[0]
        for path in ("/", "/page.js", "/page.css", "/v1/runs"):
            reply = await site.get(path, authorization=None, cookie=f"a=b; {name}={TOKEN}")
            assert reply.status == 200, path
        assert (await site.get("/?token=wrong", authorization=None)).status == 401
        assert (await site.get("/?token=wrong")).status == 401
        in_query = await site.get(f"/v1/runs?token={TOKEN}", authorization=None)
        assert in_query.status == 401


@pytest.mark.parametrize("path", [*ROUTES, "/page.css", "/?token=x"])
async def test_every_answer_keeps_a_browser_from_doing_more(tmp_path: Path, path: str):
    async with serving(tmp_path) as site:
        headers = (await site.get(path)).headers
    policy = headers["content-security-policy"]
    for rule in ("default-src 'self'", "script-src 'self'", "object-src 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


async def test_the_page_puts_nothing_in_as_html_and_loads_nothing_from_elsewhere(tmp_path: Path):
    async with serving(tmp_path) as site:
        page = (await site.get("/")).body.decode()
        script = (await site.get("/page.js")).body.decode()
        style = (await site.get("/page.css")).body.decode()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in script
    assert "<style" not in page
    assert "style=" not in page
    assert " on" not in page.replace(" one", "")
    assert "//" not in page
    assert script.count("://") == script.count("http://www.w3.org/2000/svg") == 1
    assert "://" not in style


async def test_what_a_run_says_is_json_that_no_browser_takes_for_a_page(tmp_path: Path):
    Run(tmp_path / "<img src=x onerror=alert(1)>")
    async with serving(tmp_path) as site:
        reply = await site.get("/v1/runs")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["runs"][0]["name"] == "<img src=x onerror=alert(1)>"


PATHS = (
    "/../run.json",
    "/v1/runs/../../etc/passwd",
    "/v1/runs/%2e%2e/checkpoints",
    "/v1/runs/..%2f..%2fetc/checkpoints",
    "/v1/runs/..;/checkpoints",
    "/v1/runs/%252e%252e/checkpoints",
    "/v1/runs/%00/checkpoints",
    "/v1/runs/C:%5CWindows/checkpoints",
    "/v1/runs//etc/passwd",
    "/page/index.html",
    "/serve.token",
    "//etc/passwd",
    "/v1/runs/a\u202eb/events",
)


@pytest.mark.parametrize("path", PATHS)
async def test_no_path_leads_out_of_the_table_of_what_there_is(tmp_path: Path, path: str):
    Run(tmp_path / "a")
    async with serving(tmp_path) as site:
        request = site.head("@", connection="close").replace(b"@", path.encode())
        assert (await site.ask(request)).status in (400, 404)


async def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path):
    inside = tmp_path / "runs"
    inside.mkdir()
    Run(tmp_path / "secret")
    (inside / "linked").symlink_to(tmp_path / "secret")
    async with serving(inside) as site:
        assert (await site.get("/v1/runs")).json() == {"total": 0, "runs": []}


async def test_a_run_that_calls_itself_something_else_is_left_out(tmp_path: Path):
    for number, name in enumerate(("../etc", "a/b", "", 3, None)):
        folder = tmp_path / str(number)
        folder.mkdir()
        record = {"run": name, "attempts": [{"started": "2026-01-01T00:00:00Z"}]}
        (folder / "run.json").write_text(json.dumps(record))
    async with serving(tmp_path) as site:
        assert (await site.get("/v1/runs")).json()["total"] == 0


async def test_the_head_of_a_request_has_a_limit(tmp_path: Path):
    async with serving(tmp_path) as site:
        endless = b"GET / HTTP/1.1\r\nhost: " + b"x" * 2_000_000
        assert (await site.ask(endless)).status in (0, 400)
        assert (await site.get("/v1/runs")).status == 200


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cuts=st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=8)), max_size=4),
    tail=st.binary(max_size=64),
)
async def test_bytes_that_are_no_request_are_an_error_of_the_client_and_others_are_served(
    tmp_path: Path, cuts: list[tuple[int, bytes]], tail: bytes
):
    async with serving(tmp_path) as site:
        request = site.head("/v1/runs?limit=3", connection="close", origin=None)
        for at, inserted in cuts:
            request = request[: at % len(request)] + inserted + request[at % len(request) :]
        with anyio.move_on_after(0.5):  # it may be no whole request
            assert (await site.ask(request + tail)).status in _STATUSES
        assert (await site.get("/v1/runs")).status == 200


_STATUSES = {0, 200, 400, 401, 403, 404, 405, 413, 421}


def test_a_token_is_made_once_and_nobody_else_can_read_it(tmp_path: Path):
    before = os.umask(0)
    try:
        token = token_for(tmp_path, "127.0.0.1", {})
    finally:
        os.umask(before)
    file = tmp_path / "serve.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(token) >= 43
    assert token_for(tmp_path, "::1", {}) == token
    assert token_for(tmp_path, "127.0.0.1", {"ASYNCRUNNER_SERVE_TOKEN": TOKEN}) == TOKEN


def test_a_token_that_others_can_read_is_refused(tmp_path: Path):
    token_for(tmp_path, "127.0.0.1", {})
    (tmp_path / "serve.token").chmod(0o644)
    with pytest.raises(ConfigurationError, match="can be read by others"):
        token_for(tmp_path, "127.0.0.1", {})


@pytest.mark.parametrize("token", ["short", "x" * 31, "x" * 40 + ";", "x" * 40 + "\n", "ü" * 40])
def test_a_token_that_is_weak_or_would_not_fit_a_cookie_is_refused(tmp_path: Path, token: str):
    with pytest.raises(ConfigurationError, match="must have 32"):
        token_for(tmp_path, "127.0.0.1", {"ASYNCRUNNER_SERVE_TOKEN": token})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_an_address_that_others_reach_needs_a_token_that_was_chosen(tmp_path: Path, host: str):
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match="ASYNCRUNNER_SERVE_TOKEN"):
        token_for(tmp_path, host, {})
    assert token_for(tmp_path, host, {"ASYNCRUNNER_SERVE_TOKEN": TOKEN}) == TOKEN


def test_a_server_that_others_reach_has_its_addresses_and_the_names_it_is_given():
    guard = Guard(TOKEN, "0.0.0.0", ["box.example"])
    assert guard.refusal("GET", {b"host": b"10.0.0.7:8765"}) is None
    assert guard.refusal("GET", {b"host": b"BOX.example"}) is None
    for name in (b"evil.example", b"a.box.example", b"box.example.evil"):
        refusal = guard.refusal("GET", {b"host": name})
        assert refusal is not None
        assert refusal.status == 421


def test_servers_on_one_machine_have_cookies_of_their_own():
    assert Guard(TOKEN).cookie != Guard(TOKEN[::-1]).cookie

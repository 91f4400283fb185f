import json
import shutil
import ssl
import subprocess
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from pings import pings
from receiver import Answer, Receiver, receiving
from sent import send_all, sent_to

from asyncrunner.errors import ConfigurationError
from asyncrunner.sinks import webhook
from asyncrunner.sinks.sink import find_sink
from asyncrunner.sinks.urls import SinkURL
from asyncrunner.sinks.webhook import retry_after_s


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with receiving() as one:
        yield one


async def test_a_run_comes_in_batches_of_cloudevents(receiver: Receiver, run_dir: Path):
    pings(run_dir, range(150))

    await send_all(run_dir, f"{receiver.base}/hook?room=1")

    lines = [json.loads(line) for line in (run_dir / "events.jsonl").read_bytes().splitlines()]
    first = receiver.requests[0]
    assert [event for one in receiver.requests for event in one.events] == lines
    assert [len(one.events) for one in receiver.requests] == [64, 64, 22]
    assert first.path == "/hook?room=1"
    assert first.headers["content-type"] == ("application/cloudevents-batch+json; charset=utf-8")
    assert first.headers["host"] == f"127.0.0.1:{receiver.port}"


async def test_a_batch_that_was_not_taken_is_posted_again(receiver: Receiver, run_dir: Path):
    receiver.answers = [Answer(), Answer(500), Answer(404)]
    pings(run_dir, range(150))

    async with sent_to(run_dir, f"{receiver.base}/secret-path") as run:
        pass

    assert receiver.taken == [*range(150)]
    assert receiver.requests[1].seqs == receiver.requests[2].seqs == receiver.requests[3].seqs
    assert "takes no events (ConnectionError: it answered 500" in run.said[0]
    assert not any("secret-path" in words for words in run.said)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_asks_to_wait_is_left_alone_for_so_long(
    receiver: Receiver, run_dir: Path, status: int
):
    receiver.answers = [Answer(status, {"Retry-After": "1"})]
    pings(run_dir, range(3))

    async with sent_to(run_dir, receiver.base) as run:
        pass

    first, second = receiver.requests
    assert second.time - first.time >= 1.0
    assert receiver.taken == [0, 1, 2]
    assert run.said == []  # that is no outage


def test_retry_after_is_understood_as_seconds_and_as_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    long_ago = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)

    assert retry_after_s("7") == 7.0
    assert 58 < (retry_after_s(soon) or 0) <= 60
    assert retry_after_s(long_ago) == 0.0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None


async def test_a_redirect_is_not_followed(receiver: Receiver, run_dir: Path):
    with receiving() as elsewhere:
        receiver.answers = [Answer(code, {"Location": elsewhere.base}) for code in (302, 307, 308)]
        pings(run_dir, range(3))

        await send_all(run_dir, receiver.base)

        assert elsewhere.requests == []
    assert receiver.taken == [0, 1, 2]


async def test_a_server_that_never_answers_is_out_of_reach_after_a_while(
    receiver: Receiver, run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)
    receiver.answers = [Answer(hangs=True)]
    pings(run_dir, range(3))

    async with sent_to(run_dir, receiver.base) as run:
        pass

    assert "takes no events (ReadTimeout" in run.said[0]
    assert receiver.taken == [0, 1, 2]


async def test_an_answer_without_an_end_is_not_read_to_it(receiver: Receiver, run_dir: Path):
    receiver.answers = [Answer(200, body=b"x" * 20_000_000)]
    pings(run_dir, range(100))

    await send_all(run_dir, receiver.base)

    assert receiver.taken == [*range(100)]


async def test_requests_are_of_bounded_size_and_what_is_longer_alone_is_left_out(
    receiver: Receiver, run_dir: Path, caplog: pytest.LogCaptureFixture
):
    for seq, size in enumerate([100_000, 100_000, 100_000, 300_000, 10]):
        pings(run_dir, [seq], dataset="x" * size)

    await send_all(run_dir, receiver.base)

    assert receiver.taken == [0, 1, 2, 4]
    assert all(len(one.body) <= webhook.MOST_BYTES for one in receiver.requests)
    assert "event 0.3 (metrics_ready) is left out: it has 300" in caplog.text


async def test_a_token_and_a_password_go_into_the_header(
    receiver: Receiver, run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    pings(run_dir, range(1))

    await send_all(run_dir, receiver.base.replace("//", "//me:p%40ss@"))
    monkeypatch.setenv("ASYNCRUNNER_WEBHOOK_TOKEN", "t0ken")
    await send_all(run_dir, receiver.base + "/other")

    basic, bearer = (one.headers["authorization"] for one in receiver.requests)
    assert basic == "Basic bWU6cEBzcw=="
    assert bearer == "Bearer t0ken"


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",  # carrier-grade NAT
        "169.254.169.254",  # where clouds keep credentials
        "0.0.0.0",
        "224.0.0.1",
        "2130706433",  # 127.0.0.1, but not written as what may be meant
        "0x7f.1",
        "[fd00::1]",
        "[fe80::1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b:1::1]",
        "[64:ff9b::a00:1]",  # 10.0.0.1, through NAT64
        "[2002:a00:1::1]",  # 10.0.0.1, through 6to4
    ],
)
async def test_an_address_that_is_not_public_is_refused(run_dir: Path, host: str):
    pings(run_dir, range(3))

    sending = await send_all(run_dir, f"https://{host}/hook")

    assert "which is no public address: --allow-private-webhooks allows that" in sending.refused[0]
    assert sending.shipments[0].left() == 3


async def test_a_private_address_can_be_allowed(receiver: Receiver, run_dir: Path):
    pings(run_dir, range(3))

    url = f"http://0x7f.1:{receiver.port}"
    await send_all(run_dir, url, allow_private_webhooks=True)

    assert receiver.taken == [0, 1, 2]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://example.com/hook", "a webhook must be https"),
        ("https://example.com/hook#part", "no part after a #"),
    ],
)
def test_a_url_that_is_no_safe_webhook_is_refused(url: str, complaint: str):
    with pytest.raises(ConfigurationError, match=complaint):
        find_sink(SinkURL.parse(url))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost, and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on this machine: apt-get install openssl")
    path = tmp_path / "localhost.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {path} -out {tmp_path / 'cert'}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (tmp_path / "cert").read_bytes())
    return path


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_the_certificate_must_be_trusted_and_be_for_the_name_and_not_the_address(
    certificate: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch, is_trusted: bool
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    pings(run_dir, range(3))

    with receiving(context) as receiver:
        sending = await send_all(run_dir, receiver.base, wait_s=10 if is_trusted else 0.3)

    assert receiver.taken == ([0, 1, 2] if is_trusted else [])
    assert sending.shipments[0].left() == (0 if is_trusted else 3)

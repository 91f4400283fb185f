"""The file of a Unix socket: whose it is, what it replaces, and that it goes with its server."""

import socket
import stat
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from asyncrunner.errors import ConfigurationError
from asyncrunner.run_dir.unix_socket import bound
from asyncrunner.streaming.listening import listen_unix


def test_the_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path: Path):
    path = tmp_path / "events.sock"
    with listen_unix(path):
        assert stat.filemode(path.lstat().st_mode) == "srw-------"
    assert not path.exists()


def test_a_socket_that_a_killed_server_left_is_replaced(tmp_path: Path):
    path = tmp_path / "events.sock"
    bound(path).close()
    with listen_unix(path), closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(str(path))


def test_another_servers_socket_is_left_alone(tmp_path: Path):
    path = tmp_path / "events.sock"
    with (
        listen_unix(path),
        pytest.raises(ConfigurationError, match="another process does"),
        listen_unix(path),
    ):
        pass
    with listen_unix(path):
        path.unlink()
        with closing(bound(path)) as other:
            other.listen()
    assert path.is_socket()


def test_the_socket_goes_though_the_process_is_in_another_folder_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with listen_unix(Path("events.sock")):
        monkeypatch.chdir("/")
    assert not (tmp_path / "events.sock").exists()


def test_who_may_replaces_anothers_socket_and_keeps_its_own_when_the_other_ends(tmp_path: Path):
    path = tmp_path / "events.sock"
    with ExitStack() as other:
        other.enter_context(listen_unix(path))
        with listen_unix(path, replace=True) as mine:
            other.close()
            with closing(socket.socket(socket.AF_UNIX)) as client:
                client.connect(str(path))
                mine.accept()[0].close()
    assert not path.exists()


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str, replace: bool):
    path, target = tmp_path / "events.sock", tmp_path / "target"
    match kind:
        case "file":
            path.write_text("data")
        case "folder":
            path.mkdir()
        case _:
            bound(target).close()
            path.symlink_to(target)
    before = path.lstat()
    with (
        pytest.raises(ConfigurationError, match="is no socket"),
        listen_unix(path, replace=replace),
    ):
        pass
    assert path.lstat() == before


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    path = tmp_path / "no" / "events.sock"
    with pytest.raises(ConfigurationError, match="No such file"), listen_unix(path):
        pass


def test_a_path_may_be_longer_than_the_kernel_takes(tmp_path: Path):
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    with listen_unix(folder / "events.sock"):
        assert (folder / "events.sock").is_socket()

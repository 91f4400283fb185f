"""`asyncrunner doctor`: what this machine has of what a run needs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

__all__ = ["doctor"]

_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "nfs",
    "nfs4", "smb3", "smbfs",
}  # fmt: skip


def doctor() -> None:
    """Show what this machine has for a run."""
    for part in (_versions, _devices, _machine, _disk, _extras, _sinks, _import_times):
        for name, value in part():
            typer.echo(f"{name:<28}{value}")


def _versions() -> Iterator[tuple[str, str]]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from .. import __version__

    yield "asyncrunner", f"{__version__} in {Path(__file__).parent.parent}"
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for name in ("torch", "pydantic", "anyio", "typer", "rich"):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, f"missing: pip install {name}"


def _devices() -> Iterator[tuple[str, str]]:
    try:
        import torch
    except Exception as error:  # a broken install fails in many ways, and this command says how
        yield "devices", f"torch cannot be imported: {error}"
        return
    if torch.cuda.is_available():
        yield "cuda", f"{torch.version.cuda}, {torch.cuda.device_count()} device(s)"
        for index in range(torch.cuda.device_count()):
            yield f"cuda:{index}", torch.cuda.get_device_name(index)
    else:
        built = torch.version.cuda
        yield "cuda", f"no device found (torch is built for {built})" if built else "not built in"
    if torch.backends.mps.is_available():
        yield "mps", "available"


def _machine() -> Iterator[tuple[str, str]]:
    import multiprocessing

    yield "cores", str(os.cpu_count() or "unknown")
    yield "start method", f"{multiprocessing.get_start_method()} (of data loaders' workers)"


def _disk() -> Iterator[tuple[str, str]]:
    here = Path.cwd()
    usage = shutil.disk_usage(here)
    yield "disk", f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.1f} GB in {here}"
    system = file_system(here, _mounts())
    yield "file system", system
    if system in _NETWORK:
        yield "warning", f"{system} is a network file system: fsync is slow, locks may not hold"


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text("utf-8", errors="replace")
    except OSError:  # not Linux
        return ""


def file_system(path: Path, mounts: str) -> str:
    """Return the type of the file system that `path` is on.

    Args:
        path: An absolute path.
        mounts: What /proc/mounts says: device, mount point and type in each line.
    """
    found, longest = "unknown", -1
    for line in mounts.splitlines():
        _, where, kind, *_ = line.split(" ")
        # A later line covers an earlier one for the same place, so `>=`.
        mount = Path(where.replace("\\040", " "))
        if path.is_relative_to(mount) and len(mount.parts) >= longest:
            found, longest = kind, len(mount.parts)
    return found


def _extras() -> Iterator[tuple[str, str]]:
    import re
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        wanted = requires("asyncrunner") or []
    except PackageNotFoundError:
        yield "extras", "unknown: asyncrunner runs from its source folder, not installed"
        return
    extras: dict[str, list[str]] = {}
    for line in wanted:
        match = re.match(r"([\w.-]+).*extra == ['\"]([\w-]+)['\"]", line)
        if match and match[1] != "asyncrunner":
            extras.setdefault(match[2], []).append(match[1])
    for extra, names in extras.items():
        missing: list[str] = []
        for name in names:
            try:
                version(name)
            except PackageNotFoundError:
                missing.append(name)
        yield f"extra [{extra}]", f"missing: {', '.join(missing)}" if missing else "installed"


def _sinks() -> Iterator[tuple[str, str]]:
    from importlib.metadata import entry_points

    from ..sinks.sink import GROUP

    for point in entry_points(group=GROUP):  # none of them is loaded
        package = point.dist.name if point.dist else "unknown"
        yield f"sink {point.name}://", f"{point.value} of {package}"


def _import_times() -> Iterator[tuple[str, str]]:
    for module in ("asyncrunner", "asyncrunner_events"):
        code = (
            f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        )
        path = os.pathsep.join(entry for entry in sys.path if entry)
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
        if done.returncode:
            yield f"import {module}", f"fails: {done.stderr.strip().rpartition(chr(10))[2]}"
        else:
            yield f"import {module}", f"{float(done.stdout) * 1000:.0f} ms"

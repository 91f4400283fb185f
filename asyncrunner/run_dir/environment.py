"""What a run runs on: enough to see later why two runs differ, and no secrets."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from .. import __version__
from ..redact import Redactor, is_secret_variable, sink_urls
from .plain import plain_text

__all__ = ["Cuda", "Environment", "Git", "describe_environment"]

_SINKS = "ASYNCRUNNER_STREAM"
_VARIABLES = ("ASYNCRUNNER_", "CUBLAS_", "CUDA_", "NCCL_", "OMP_", "MKL_", "PYTORCH_", "TORCH_")
_GIT_TIMEOUT_S = 2.0


class Git(BaseModel):
    """The script's repository."""

    commit: str
    """The commit that is checked out; `(initial)` if there is none yet."""
    dirty: bool
    """Whether a file that git knows differs from that commit."""


class Cuda(BaseModel):
    """The CUDA that torch sees."""

    version: str | None
    """The CUDA version torch was built with; None if without."""
    available: bool
    """Whether there is a device."""
    devices: list[str] = Field(default_factory=list)
    """Their names, if CUDA was in use already: asking for them starts it."""


class Environment(BaseModel):
    """The content of `environment.json`."""

    python: str
    """The version of Python."""
    executable: str
    """The interpreter."""
    platform: str
    """Operating system, release and processor."""
    host: str
    """The machine's name."""
    cpu_count: int | None
    """Processors of the machine."""
    usable_cpu_count: int
    """Processors this process may use."""
    argv: list[str]
    """The command line."""
    cwd: str
    """The working directory."""
    seed: int | None
    """The run's seed, if it has one."""
    git: Git | None
    """The script's repository; None without git or outside of one."""
    cuda: Cuda | None
    """None if torch was not imported yet."""
    variables: dict[str, str]
    """Environment variables that change what a run does."""
    packages: dict[str, str]
    """The version of every installed package."""


def describe_environment(
    redactor: Redactor,
    *,
    seed: int | None = None,
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Environment:
    """Look around; takes some milliseconds, and never imports torch or starts CUDA."""
    argv = sys.argv if argv is None else argv
    script = Path(argv[0]) if argv else Path()
    return Environment(
        python=platform.python_version(),
        executable=plain_text(sys.executable),
        platform=platform.platform(),
        host=platform.node(),
        cpu_count=os.cpu_count(),
        usable_cpu_count=len(os.sched_getaffinity(0)),
        argv=[plain_text(word) for word in redactor.arguments(argv)],
        cwd=plain_text(os.getcwd()),
        seed=seed,
        git=_git(script.resolve().parent if script.is_file() else Path.cwd()),
        cuda=_cuda(),
        variables={
            name: plain_text(redactor.text(sink_urls(value) if name == _SINKS else value))
            for name, value in sorted(environ.items())
            if name.startswith(_VARIABLES) and not is_secret_variable(name)
        },
        packages=_packages(),
    )


def _git(folder: Path) -> Git | None:
    try:
        status = subprocess.run(
            ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"],
            cwd=folder,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    headers = [line for line in status if line.startswith("# branch.oid ")]
    dirty = any(not line.startswith("#") for line in status)
    return Git(commit=headers[0].removeprefix("# branch.oid "), dirty=dirty) if headers else None


def _cuda() -> Cuda | None:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return None
    devices: list[str] = []
    if torch.cuda.is_initialized():
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Cuda(version=torch.version.cuda, available=torch.cuda.is_available(), devices=devices)


def _packages() -> dict[str, str]:
    # Read from the names of the folders: 1 ms, where importlib.metadata opens every package's
    # metadata and takes 1.5 ms for each of them.
    found = {"asyncrunner": __version__}
    for entry in sys.path:
        for folder in sorted(Path(entry).glob("*.dist-info")):
            name, _, version = folder.stem.partition("-")
            found.setdefault(name.lower().replace("_", "-"), version)
    return dict(sorted(found.items()))

"""The environments of the peers: one each, because their requirements exclude one another."""

import os
import subprocess
import sys
import venv
from pathlib import Path

TORCH = "torch==2.13.0"
"""Named in every installation, so that pip takes no other build of it for a peer's sake."""
REQUIREMENTS: dict[str, list[str]] = {
    "ignite": ["pytorch-ignite==0.5.5"],
    "mmengine": ["mmengine==0.10.7"],
    "torchtnt": ["torchtnt==0.2.4", "setuptools<81"],  # it imports pkg_resources
    "lightning": ["lightning==2.6.6"],
    "transformers": ["transformers==5.23.0", "accelerate==1.15.0"],
}
"""What to install for each peer; the first is the peer itself."""


def default_folder() -> Path:
    """Return where the environments are if nothing else is said: in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "asyncrunner-peers")


def python_of(folder: Path, peer: str) -> Path:
    """Return the interpreter of a peer's environment."""
    return folder / peer / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_all(folder: Path, peers: list[str]) -> None:
    """Make the environments that are missing; a pin that pip cannot get is given up, and said."""
    for peer in peers:
        done = folder / peer / "complete"
        if done.exists():
            continue
        print(f"making the environment of {peer}", file=sys.stderr, flush=True)
        venv.create(folder / peer, with_pip=True, clear=True)
        pinned = REQUIREMENTS[peer]
        if not _install(folder, peer, pinned):
            unpinned = [requirement.partition("==")[0] for requirement in pinned]
            print(f"{pinned} cannot be had: trying {unpinned}", file=sys.stderr, flush=True)
            if not _install(folder, peer, unpinned):
                print(f"{peer} cannot be installed: it is left out", file=sys.stderr, flush=True)
                continue
        done.touch()


def _install(folder: Path, peer: str, requirements: list[str]) -> bool:
    pip = [str(python_of(folder, peer)), "-m", "pip", "install", "-q", TORCH, "numpy"]
    return subprocess.run([*pip, *requirements], check=False).returncode == 0

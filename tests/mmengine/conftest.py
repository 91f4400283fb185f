"""The real MMEngine, in an environment of its own, and what it did beside us on the same work."""

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
import torch
from with_mmengine import ROOT, output_of

MMENGINE = "mmengine==0.10.7"


@pytest.fixture(scope="session")
def python_with_mmengine(pytestconfig: pytest.Config) -> Path:
    """Return an interpreter that has MMEngine, and beside it all that this one has, torch first."""
    assert pytestconfig.cache is not None
    versions = f"{MMENGINE}-torch{torch.__version__}-py{sys.version_info[0]}{sys.version_info[1]}"
    folder = pytestconfig.cache.mkdir(versions.replace("==", "").replace("+", "-"))
    python, done = folder / "bin" / "python", folder / "complete"
    shared = [path for path in sys.path if path.endswith("-packages")]
    if not done.exists() or done.read_text() != "\n".join(shared):
        venv.create(folder, clear=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "shared.pth").write_text("\n".join(shared))
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
        install = ["install", "-q", "-c", str(ROOT / ".ci" / "constraints.txt"), MMENGINE]
        subprocess.run([*pip, *install], check=True, timeout=100)
        done.write_text("\n".join(shared))
    return python


@pytest.fixture(scope="session")
def real(python_with_mmengine: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return, by case, what MMEngine's runner did with its hooks and what ours did with the same."""
    folder = tmp_path_factory.mktemp("real")
    output_of(python_with_mmengine, "-m", "cases", "results.json", folder=folder)
    return json.loads((folder / "results.json").read_text())

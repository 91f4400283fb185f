"""Running programs that see MMEngine and us."""

import os
import subprocess
from pathlib import Path

REAL = Path(__file__).parent / "real"
ROOT = REAL.parents[2]


def output_of(python: Path, *command: str, folder: Path) -> str:
    """Return what a program prints that sees MMEngine and us."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "events"), str(REAL)])
    mine = {key: os.environ[key] for key in os.environ if not key.startswith("ASYNCRUNNER_")}
    done = subprocess.run(
        [str(python), *command],
        cwd=folder,
        env=mine | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

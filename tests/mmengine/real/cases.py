"""Every case: MMEngine's hooks in MMEngine's runner and in ours, on the same work."""
# pyright: basic, reportMissingImports=false
# mmengine is installed in an environment of its own, not where this is checked.

import asyncio
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import case_checkpoints
import case_hooks
import case_traces
import case_tutorial
import case_values

MODULES = (case_traces, case_values, case_checkpoints, case_hooks, case_tutorial)


def run(case: Callable[[Path], Any], folder: Path) -> Any:
    """Return what a case found, or how it failed."""
    folder.mkdir()
    try:
        return case(folder)
    except Exception:
        return {"failed": traceback.format_exc()}


def main() -> None:
    """Run every case, or those named, and write what they found."""
    wanted = sys.argv[2:]
    results: dict[str, Any] = {}
    for module in MODULES:
        for name, case in vars(module).items():
            if name.startswith("case_") and (not wanted or name[5:] in wanted):
                results[name[5:]] = run(case, Path(name).absolute())
    Path(sys.argv[1]).write_text(json.dumps(results))


if __name__ == "__main__":
    asyncio.set_event_loop(None)
    main()

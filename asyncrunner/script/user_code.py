"""Which frames of a traceback are the user's, and which only show how their script was started."""

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

__all__ = ["is_launcher_bug", "user_line", "user_traceback"]

_PACKAGE = Path(__file__).parents[1]
_LAUNCHER = {"__main__.py", "cli", "launch.py", "script"}
_STDLIB = Path(sysconfig.get_path("stdlib"))


def user_traceback(error: BaseException, *, without_ours: bool = False) -> str:
    """Return the traceback of `error` from where the user's code, or the runner, begins.

    Args:
        error: Raised while a script was imported or run.
        without_ours: Leave out every frame of asyncrunner, not only those of the launcher.
    """
    report = traceback.TracebackException.from_exception(error)
    for part in _chain(report):
        part.stack = traceback.StackSummary.from_list(
            frame
            for frame in _launched(part.stack)
            if not (_is_plumbing(frame) or (without_ours and _is_ours(frame)))
        )
    return "".join(report.format())


def user_line(error: BaseException) -> str:
    """Return `train.py:12: the line` for the innermost frame of the user's own code, or nothing."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_users(frame):
            return f"{_short(frame.filename)}:{frame.lineno}: {frame.line}"
    return ""


def is_launcher_bug(error: BaseException) -> bool:
    """Whether `error` was raised before the user's code or the runner was reached."""
    frames = traceback.extract_tb(error.__traceback__)
    return not any(_is_users(frame) or _is_runners(frame) for frame in frames)


def _chain(
    report: traceback.TracebackException | None,
) -> Iterator[traceback.TracebackException]:
    if report is None:
        return
    yield report
    for other in (report.__cause__, report.__context__, *(report.exceptions or ())):
        yield from _chain(other)


def _launched(frames: traceback.StackSummary) -> list[traceback.FrameSummary]:
    ours = [index for index, frame in enumerate(frames) if _is_launchers(frame)]
    return frames[ours[-1] + 1 if ours else 0 :]


def _is_plumbing(frame: traceback.FrameSummary) -> bool:
    # What imports a module or runs a coroutine stands in every traceback and explains none.
    is_asyncio = Path(frame.filename).parent.name == "asyncio"
    return frame.filename.startswith("<frozen") or (
        is_asyncio and frame.name in ("run", "run_until_complete")
    )


def _relative(frame: traceback.FrameSummary) -> tuple[str, ...]:
    # The examples are written as a user's script is, and are treated as one.
    path = Path(frame.filename)
    parts = path.relative_to(_PACKAGE).parts if path.is_relative_to(_PACKAGE) else ()
    return () if parts[:1] == ("examples",) else parts


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return bool(_relative(frame))


def _is_launchers(frame: traceback.FrameSummary) -> bool:
    return bool(_LAUNCHER.intersection(_relative(frame)[:1]))


def _is_runners(frame: traceback.FrameSummary) -> bool:
    return _is_ours(frame) and not _is_launchers(frame)


def _is_users(frame: traceback.FrameSummary) -> bool:
    path = Path(frame.filename)
    library = "site-packages" in path.parts or path.is_relative_to(_STDLIB)
    example = path.is_relative_to(_PACKAGE / "examples")
    return example or not (library or _is_ours(frame) or frame.filename.startswith("<"))


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

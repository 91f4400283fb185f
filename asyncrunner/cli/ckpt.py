"""`asyncrunner ckpt`: what checkpoints there are, whether they are intact, and what is in them."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import CheckpointError, ConfigurationError, RunDirError
from .checkpoints import (
    CHECKPOINTS,
    as_json,
    checkpoint_folders,
    echo_checkpoints,
    is_checkpoint,
    listed,
    reason_of,
    verified,
)
from .shown import clean, echo_json, echo_table

if TYPE_CHECKING:
    from ..checkpoint.difference import Differences
    from ..checkpoint.prune import Pruned

__all__ = ["app"]

app = typer.Typer(
    name="ckpt",
    help="List, verify, prune, export and compare checkpoints.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_Json = Annotated[bool, typer.Option("--json", help="As JSON, for a program.")]
_LARGE = 1_000_000_000


@app.command("ls")
def ls(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="RUN_DIR|FOLDER", help="A run's directory, or a folder of runs."),
    ] = None,
    json: _Json = False,
) -> None:
    """List checkpoints, newest first; without FOLDER those of all runs in `runs`."""
    top = path or (Path("runs") if Path("runs").is_dir() else Path())
    if is_checkpoint(top):
        found, top = [one for one in listed(top.parent) if one.path == top], top.parent
    else:
        folders = checkpoint_folders(top)
        found = [one for folder in folders for one in listed(folder)]
        top = folders[0] if len(folders) == 1 else top
    if json:
        echo_json({"checkpoints": list(as_json(found))})
    elif found:
        echo_checkpoints(found, top)
    else:
        typer.echo(f"no checkpoints in {clean(top)}")


@app.command("verify")
def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Checkpoints, runs' directories, folders of them."),
    ],
) -> None:
    """Read checkpoints and compare every byte with their checksums; exit code 3 if one is damaged."""
    from ..subscribers.text import size

    checkpoints = [one for path in paths for one in _checkpoints_at(path)]
    damaged = 0
    for path in checkpoints:
        _say_if_large(path)
        manifest, reason = verified(path)
        damaged += bool(reason)
        words = reason if manifest is None else size(manifest.size_bytes)
        typer.echo(f"{'ok' if manifest else 'DAMAGED':<8} {clean(path)}  {clean(words)}")
    typer.echo(f"{len(checkpoints) - damaged} intact, {damaged} damaged")
    if damaged:
        raise typer.Exit(3)


@app.command("prune")
def prune(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run's directory.")],
    keep: Annotated[
        int, typer.Option(metavar="N", min=1, help="Regular ones to keep, the newest.")
    ],
    keep_best: Annotated[
        int | None,
        typer.Option(metavar="K", min=1, help="Best ones to keep of each metric; else all stay."),
    ] = None,
    rule: Annotated[
        Literal["greater", "less"] | None,
        typer.Option(help="What is better, where the metric's name does not tell."),
    ] = None,
    manual: Annotated[
        bool, typer.Option("--manual", help="Count those that somebody asked for as regular.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Delete old checkpoints of a run that is not on; the newest intact one always stays."""
    from ..checkpoint import prune as pruning

    with _locked(run_dir, taken=not dry_run):
        pruned = pruning.prune(
            run_dir / CHECKPOINTS,
            keep=keep,
            keep_best=keep_best,
            rule=rule,
            manual=manual,
            dry_run=dry_run,
        )
    _report(pruned, "would delete" if dry_run else "deleted")


@app.command("export")
def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The checkpoint's directory.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="OUT.safetensors, OUT.pt or OUT.pth.")],
    key: Annotated[str, typer.Option(metavar="KEY", help="Which part: model, or a.b.c.")] = "model",
    prefix_strip: Annotated[
        list[str] | None,
        typer.Option(metavar="PREFIX", help="Take it off the names: module. (may be repeated)"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
) -> None:
    """Write the weights of a checkpoint alone into a file."""
    _must_exist(checkpoint)
    from ..checkpoint.export import export_weights
    from ..subscribers.text import size

    exported = export_weights(checkpoint, out, key=key, strip=prefix_strip or [], overwrite=force)
    tensors = _count(exported.tensors, "tensor")
    typer.echo(f"wrote {clean(out)}: {tensors}, {size(exported.size_bytes)}")


@app.command("diff")
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A checkpoint, or a file of weights.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
) -> None:
    """Compare two checkpoints bit for bit; exit code 1 if they differ."""
    _must_exist(a, b)
    from ..checkpoint.difference import content_of, differences

    for name, path in (("A", a), ("B", b)):
        typer.echo(f"{name}  {clean(path)}{_about(path)}")
    found = differences(content_of(a), content_of(b))
    _echo_differences(found)
    if found.found:
        raise typer.Exit(1)


# What the commands share


def _checkpoints_at(path: Path) -> list[Path]:
    _must_exist(path)
    if is_checkpoint(path) or not path.is_dir():
        return [path]
    found = [one.path for folder in checkpoint_folders(path) for one in listed(folder)]
    if not found:
        raise CheckpointError(f"there are no checkpoints in {path}")
    return found


def _must_exist(*paths: Path) -> None:
    for path in paths:
        if not path.exists():
            raise ConfigurationError(f"{path} does not exist")


def _say_if_large(path: Path) -> None:
    size = sum(file.stat().st_size for file in path.glob("*") if file.is_file())
    if size > _LARGE:
        typer.echo(f"reading {clean(path)}, {size / 1e9:.1f} GB …", err=True)


@contextmanager
def _locked(run_dir: Path, *, taken: bool) -> Generator[None]:
    """Keep a run from starting there; or, if it need not be `taken`, only see that none is on."""
    from ..run_dir.find import RECORD
    from ..run_dir.lock import LOCK, acquire, holder_of

    if not (run_dir / RECORD).is_file():
        raise RunDirError(f"{run_dir} is no run directory")
    if not taken:
        if holder := holder_of(run_dir / LOCK):
            raise RunDirError(f"{run_dir} is in use by {holder}")
        yield
        return
    try:
        lock = acquire(run_dir / LOCK)
    except RunDirError:
        raise
    except OSError as error:
        raise RunDirError(f"{run_dir} cannot be locked: {error.strerror}") from error
    try:
        yield
    finally:
        os.close(lock)


def _report(pruned: "Pruned", deleted: str) -> None:
    from ..subscribers.text import size

    for one in pruned.deleted:
        about = one.manifest
        words = f"{about.purpose}, {about.place}, {size(about.size_bytes)}"
        typer.echo(f"{deleted} {clean(one.path.name)}  {words}")
    for name, size_bytes in pruned.leftovers:
        typer.echo(f"{deleted} {clean(name)}  left by a killed process, {size(size_bytes)}")
    for name in pruned.restored:
        typer.echo(f"{clean(name)} was put aside by a killed process, and is brought back")
    for path, reason in pruned.damaged.items():
        typer.echo(f"left alone: {clean(path.name)}  {clean(reason_of(path, reason))}")
    checkpoints = _count(len(pruned.deleted), "checkpoint")
    amount = f"{size(pruned.size_bytes)} ({pruned.size_bytes} bytes)"
    typer.echo(f"{deleted} {checkpoints}, {amount}; {len(pruned.kept)} left")


def _about(path: Path) -> str:
    if not path.is_dir():
        return ""
    from ..checkpoint.manifest import Manifest

    about = Manifest.read(path)
    return f"  {about.place}" + (f", run {clean(about.run)}" if about.run else "")


def _echo_differences(found: "Differences") -> None:
    if found.found:
        echo_table(found.found)
    tensors = sum(one.what in ("tensor", "shape", "dtype") for one in found.found)
    others = sum(one.what in ("value", "type") for one in found.found)
    one_sided = len(found.found) - tensors - others
    typer.echo(
        f"{_count(found.equal_tensors, 'tensor')} equal, {tensors} different; "
        f"{_count(found.equal_values, 'other value')} equal, {others} different; "
        f"{one_sided} only in one"
    )
    typer.echo("different" if found.found else "identical")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

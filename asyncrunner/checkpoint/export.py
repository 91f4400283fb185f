"""The weights of a checkpoint alone, in one file that other programs read; and reading such files.

A `.safetensors` file holds tensors by name and nothing that could be executed; a `.pt` file is
torch.save of the same dict, and is only ever loaded with weights_only=True.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigurationError
from ..run_dir.files import make_directory, sync_directory
from .files import STATE, read_checkpoint
from .manifest import MANIFEST, Manifest

EXTRA = 'pip install "asyncrunner[safetensors]"'

_Save = Callable[[Mapping[str, Any], Path], None]


class Exported(NamedTuple):
    """What was written."""

    tensors: int
    """How many tensors."""
    size_bytes: int
    """The file's size."""


def export_weights(
    checkpoint: Path,
    out: Path,
    *,
    key: str = "model",
    strip: Sequence[str] = (),
    overwrite: bool = False,
) -> Exported:
    """Write the weights of a checkpoint into a file, which is whole or not there.

    Tensors that share memory (tied weights) are all in the file under their own names; a
    `.safetensors` file holds each of them in full.

    Args:
        checkpoint: The checkpoint's directory; it is verified first.
        out: The file, `.safetensors`, `.pt` or `.pth`.
        key: Which part of the checkpoint, a path with dots: `model`, or `subscribers.ema`.
        strip: Prefixes, one of which is taken off each name that begins with it: `module.`.
        overwrite: Whether a file that is there is replaced.

    Raises:
        CheckpointError: If the checkpoint is damaged, or the file cannot be written.
        ConfigurationError: If `out` is of another kind or exists, the checkpoint has no such
            part, no name begins with a prefix, or the library for `.safetensors` is missing.
    """
    save = _saver(out.suffix)
    if not out.parent.is_dir():
        raise ConfigurationError(f"there is no folder {out.parent}")
    if not overwrite:
        _refuse_existing(out)
    about = Manifest.read(checkpoint)
    weights = _stripped(_part(read_checkpoint(checkpoint), key), strip)
    metadata = _metadata(about, key)
    _write_atomically(out, lambda path: save(weights, metadata, path), overwrite=overwrite)
    tensors = sum(isinstance(value, Tensor) for value in weights.values())
    return Exported(tensors, out.stat().st_size)


def publish_weights(checkpoint: Path, folder: Path) -> Path:
    """Write the model's weights alone into a folder, under the checkpoint's name and their digest.

    Returns:
        The file, such as `epoch_3-90af31c2.safetensors`; the digits begin the SHA-256 of its content.

    Raises:
        CheckpointError: If the checkpoint is damaged, or the file cannot be written.
        ConfigurationError: If the library for `.safetensors` is missing, or has no place for what
            the model has.
    """
    building = folder / f".{checkpoint.name}.{os.getpid()}.tmp.safetensors"
    try:
        make_directory(folder)
        export_weights(checkpoint, building, overwrite=True)
        with building.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        published = folder / f"{checkpoint.name}-{digest[:8]}.safetensors"
        building.replace(published)
        sync_directory(folder)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"weights cannot be written into {folder}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            building.unlink(missing_ok=True)
    return published


def write_weights(weights: Mapping[str, Any], out: Path) -> None:
    """Write weights that are in memory into a file, in place of the one that is there.

    Raises:
        CheckpointError: If it cannot be written.
        ConfigurationError: If it is of another kind, its library is missing, or it has no place for
            what is among the weights.
    """
    save = _saver(out.suffix)
    try:
        make_directory(out.parent)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written: {error}") from error
    _write_atomically(out, lambda path: save(weights, {"format": "pt"}, path), overwrite=True)


def check_weights_file(path: Path) -> None:
    """Refuse a file that weights could not be written into.

    Raises:
        ConfigurationError: If it is of another kind, or the library for it is missing.
    """
    _saver(path.suffix)


def check_safetensors() -> None:
    """Refuse to go on without the library for `.safetensors`.

    Raises:
        ConfigurationError: With how to install it.
    """
    _safetensors()


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """Return weights by name, on the CPU, from whatever holds them; nothing in it is executed.

    Args:
        path: A `.safetensors` file; a `.pt` or `.pth` file with a state dict, or with a dict that
            has one under `model` or `state_dict`; or a checkpoint's directory, which is verified.

    Raises:
        CheckpointError: If it is not there, damaged, or holds no weights.
        ConfigurationError: If it is of another kind, or the library for it is missing.
    """
    if path.name == STATE and (path.parent / MANIFEST).exists():
        path = path.parent
    if path.is_dir():
        return _tensors(_part(read_checkpoint(path), "model"), path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    match path.suffix:
        case ".safetensors":
            return _load_safetensors(path)
        case ".pt" | ".pth":
            return _tensors(_state_dict_in(_load_torch(path), path), path)
        case _:
            raise ConfigurationError(
                f"{path} is neither a .safetensors, .pt or .pth file nor a checkpoint's directory"
            )


def _metadata(about: Manifest, key: str) -> dict[str, str]:
    counters = {"attempt": about.attempt, "epoch": about.epoch, "iter": about.iter}
    texts = {name: str(count) for name, count in counters.items()}
    return {"format": "pt", "run": about.run, "key": key, **texts}


def _saver(suffix: str) -> Callable[[Mapping[str, Any], dict[str, str], Path], None]:
    match suffix:
        case ".safetensors":
            _safetensors()
            return _save_safetensors
        case ".pt" | ".pth":
            return _save_torch
        case _:
            raise ConfigurationError(
                f"weights are written as .safetensors, .pt or .pth, got {suffix or 'no suffix'}"
            )


def _safetensors() -> Any:
    try:
        import_module("numpy")  # writing needs it
        return import_module("safetensors.torch")
    except ImportError as error:
        raise ConfigurationError(
            f".safetensors files need a library that is not here ({error}): {EXTRA}"
        ) from error


# Writing


def _part(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    part: object = content
    for name in key.split("."):
        names = _mapping(part)
        if name not in names:
            raise ConfigurationError(f"the checkpoint has no {key!r}{_names_in(part)}")
        part = names[name]
    weights = _mapping(part)
    if not any(_is_tensor(value) for value in weights.values()):
        raise ConfigurationError(f"there are no weights in {key!r}{_names_in(part)}")
    return dict(weights)


def _mapping(part: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", part) if isinstance(part, Mapping) else {}


def _names_in(part: object) -> str:
    names = ", ".join(sorted(map(str, _mapping(part)))) or "nothing"
    return f"; there is: {names}" if isinstance(part, Mapping) else f": it is {type(part).__name__}"


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _stripped(weights: Mapping[str, Any], prefixes: Sequence[str]) -> dict[str, Any]:
    stripped: dict[str, Any] = {}
    unused = set(prefixes)
    for name, value in weights.items():
        prefix = next((p for p in prefixes if name.startswith(p) and name != p), "")
        unused.discard(prefix)
        short = name[len(prefix) :]
        if short in stripped:
            raise ConfigurationError(f"without {prefix!r} two weights are named {short!r}")
        stripped[short] = value
    if unused:
        first = next(iter(weights))
        raise ConfigurationError(f"no weight's name begins with {min(unused)!r}: {first!r} …")
    return stripped


def _save_safetensors(weights: Mapping[str, Any], metadata: dict[str, str], path: Path) -> None:
    for name, value in weights.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            kind = f"a {value.layout} tensor" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigurationError(
                f"{name!r} is {kind}, and .safetensors holds plain tensors only: write a .pt file"
            )
    tied = [names for names in _names_by_memory(weights) if len(names) > 1]
    if tied:
        metadata = {**metadata, "tied": json.dumps(tied)}
    _safetensors().save_file(_with_memory_of_their_own(weights), path, metadata=metadata)
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    # The library writes it in an order by chance: the same weights would have another digest.
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(ordered) <= size:
            file.seek(8)
            file.write(ordered.ljust(size))


def _save_torch(weights: Mapping[str, Any], _: dict[str, str], path: Path) -> None:
    # A tensor that is part of a larger buffer would take the whole buffer into the file.
    compact: dict[str, Any] = dict(weights)
    for names in _names_by_memory(weights):
        tensor = cast("Tensor", weights[names[0]])
        if tensor.layout == torch.strided and tensor.untyped_storage().nbytes() > tensor.nbytes:
            compact |= dict.fromkeys(names, tensor.clone())
    torch.save(compact, path)


def _names_by_memory(weights: Mapping[str, Any]) -> list[list[str]]:
    """Return the names of each tensor; tied weights have several."""
    names: dict[object, list[str]] = {}
    for name, value in weights.items():
        if isinstance(value, Tensor):
            at: object = name
            if value.layout == torch.strided and value.numel():
                at = (value.data_ptr(), value.shape, value.stride(), value.dtype)
            names.setdefault(at, []).append(name)
    return list(names.values())


def _with_memory_of_their_own(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Only what overlaps is copied: a checkpoint's tensors lie side by side in one buffer.
    own = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
    ends: dict[int, int] = {}
    for name, tensor in sorted(own.items(), key=lambda item: item[1].data_ptr()):
        memory = tensor.untyped_storage().data_ptr()
        if tensor.data_ptr() < ends.get(memory, 0):
            own[name] = tensor.clone()
        else:
            ends[memory] = tensor.data_ptr() + tensor.nbytes
    return own


def _refuse_existing(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise ConfigurationError(f"{out} exists already, and is left as it is: --force replaces it")


def _write_atomically(out: Path, write: Callable[[Path], None], *, overwrite: bool) -> None:
    building = out.with_name(f".{out.stem}.{os.getpid()}.tmp{out.suffix}")
    try:
        try:
            building.touch()
            rights = building.stat().st_mode
            write(building)
            building.chmod(rights)  # safetensors takes a new file that only the owner may read
            with building.open("rb") as file:
                os.fsync(file.fileno())
            if not overwrite:
                _refuse_existing(out)
            os.replace(building, out)
            sync_directory(out.parent)
        finally:
            building.unlink(missing_ok=True)
    except (ConfigurationError, KeyboardInterrupt):
        raise
    except Exception as error:  # torch and safetensors have errors of their own for a full disk
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(f"{out} cannot be written: {reason}") from error


# Reading


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    library = _safetensors()
    try:
        return library.load_file(path)
    except Exception as error:  # it has an error class of its own
        raise CheckpointError(f"{path} cannot be loaded: {error}") from error


def _load_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is none makes it raise
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{path} cannot be loaded: {first}") from error


def _state_dict_in(content: object, path: Path) -> dict[str, Any]:
    if isinstance(content, dict):
        given = cast("dict[str, Any]", content)
        for key in ("model", "state_dict"):
            if isinstance(given.get(key), Mapping):
                return dict(given[key])
        return given
    raise CheckpointError(f"{path} holds {type(content).__name__}, expected weights by name")


def _tensors(weights: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    others = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if others or not weights:
        what = (
            f"{others[0]!r} in it is {type(weights[others[0]]).__name__}"
            if others
            else "it is empty"
        )
        raise CheckpointError(f"{path} holds no weights by name: {what}")
    return dict(weights)

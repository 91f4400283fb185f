"""The pictures that each backend shows, as its own library reads them."""

import io
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from test_tensorboard import charts
from test_wandb import folders
from torch import Tensor


class Shown(NamedTuple):
    """A picture in a chart: the name of its series, its place, and its first pixel."""

    name: str
    x: int
    pixel: int


def of_iter(event: Any) -> Tensor:
    """Draw which iteration it is: a gray picture of 2 by 3."""
    return torch.full((2, 3), event.iter, dtype=torch.uint8)


def first_pixel(png: bytes) -> int:
    return Image.open(io.BytesIO(png)).getpixel((0, 0))  # pyright: ignore[reportReturnType]  # gray


def in_tensorboard(folder: Path) -> list[Shown]:
    read = charts(folder)
    return sorted(
        Shown(tag, one.step, first_pixel(one.encoded_image_string))
        for tag in read.Tags()["images"]
        for one in read.Images(tag)
    )


def in_wandb(run_dir: Path) -> list[Shown]:
    """Return what the newest folder holds, which must be files that are there."""
    folder = sorted((run_dir / "wandb").glob("offline-run-*"))[-1]
    return sorted(
        Shown(name, row["global_iter"], first_pixel((folder / "files" / it["path"]).read_bytes()))
        for row in folders(run_dir)[-1].rows
        for name, it in row.items()
        if name.startswith("images/")
    )


def in_mlflow(database: str, run: Any, folder: Path) -> list[Shown]:
    """Return the pictures as MLflow's page finds them: by the names of their files."""
    client = import_module("mlflow").MlflowClient(database)
    listed = [one.path for one in client.list_artifacts(run.info.run_id, "images")]
    found: list[Shown] = []
    for path in listed:
        key, step, x, *_ = path.removeprefix("images/").split("+")
        assert step == "step"
        if path.endswith(".png"):
            assert path.replace(".png", "+compressed.webp") in listed
            local = client.download_artifacts(run.info.run_id, path, str(folder))
            found.append(Shown(f"images/{key}", int(x), first_pixel(Path(local).read_bytes())))
    return sorted(found)


def in_trackio(rows: Iterable[dict[str, Any]], media: Path) -> list[Shown]:
    return sorted(
        Shown(name, row["step"], first_pixel((media / it["file_path"]).read_bytes()))
        for row in rows
        for name, it in row.items()
        if name.startswith("images/")
    )

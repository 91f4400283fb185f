import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import Command
from saved import flip_a_bit, run_with_checkpoints, save

ESCAPE = "\x1b]52;c;cm0gLXJm\x07\x1b[2J"


# ls


def test_ls_shows_the_newest_first_and_marks_the_latest(command: Command, folder: Path):
    save(folder, "best", 20, purpose="best", metric="val/accuracy")
    save(folder, "mine", 5, metrics={"loss": float("nan")})
    done = command("ckpt", "ls", "runs/digits")
    assert (done.code, done.err) == (0, "")
    head, *rows = done.out.splitlines()
    assert head.split() == [
        *("checkpoint", "epoch", "iter", "purpose", "metrics", "size", "saved", "age")
    ]
    assert [row.split()[:3] for row in rows] == [
        ["latest", "epoch_3", "3"],
        ["best", "2", "20"],
        ["epoch_2", "2", "20"],
        ["epoch_1", "1", "10"],
        ["mine", "0", "5"],
    ]
    assert "best val/accuracy  val/accuracy 0.2000  2." in rows[1]
    assert "manual" in rows[-1]
    assert "loss nan" in rows[-1]


def test_ls_names_what_is_damaged_and_why(command: Command, folder: Path):
    flip_a_bit(folder / "epoch_1" / "manifest.json")
    with (folder / "epoch_2" / "state.pt").open("ab") as file:
        file.truncate(10)
    (folder / "epoch_3" / "state.pt").unlink()
    (folder / "strange").mkdir()
    rows = command("ckpt", "ls", "runs/digits").out.splitlines()[1:]
    assert len(rows) == 4
    assert "damaged  is incomplete: state.pt: No such file or directory" in rows[0]
    assert "damaged  is damaged: state.pt has 10 bytes of " in rows[1]
    assert "epoch_1" in rows[2]
    assert "strange" in rows[3]
    assert "is not a checkpoint: it is not a directory with a manifest.json" in rows[3]


def test_ls_of_a_folder_shows_the_checkpoints_of_every_run_in_it(
    command: Command, folder: Path, tmp_path: Path
):
    run_with_checkpoints(tmp_path / "runs" / "more" / "数字", 1)
    save(tmp_path / "runs", "alone", 7)
    (tmp_path / "runs" / "not a checkpoint").mkdir()
    for args in ([], ["runs"]):
        done = command("ckpt", "ls", *args)
        assert [row[8:].split("  ")[0] for row in done.out.splitlines()[1:]] == [
            "alone",
            "digits/checkpoints/epoch_3",
            "digits/checkpoints/epoch_2",
            "digits/checkpoints/epoch_1",
            "more/数字/checkpoints/epoch_1",
        ]


def test_ls_of_one_checkpoint_shows_that_one(command: Command, folder: Path):
    done = command("ckpt", "ls", "runs/digits/checkpoints/epoch_2")
    assert [row.split()[0] for row in done.out.splitlines()[1:]] == ["epoch_2"]


def test_ls_follows_no_link_out_of_the_folder(command: Command, folder: Path, tmp_path: Path):
    save(tmp_path / "elsewhere", "secret", 99)
    (folder / "linked").symlink_to(tmp_path / "elsewhere" / "secret")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere")
    out = command("ckpt", "ls").out
    assert "linked" not in out
    assert "secret" not in out


def test_ls_as_json_has_everything_that_the_manifests_say(command: Command, folder: Path):
    save(folder, "mine", 40, metrics={"loss": float("nan"), "norm": float("inf")})
    flip_a_bit(folder / "epoch_1" / "manifest.json")
    done = command("ckpt", "ls", "runs/digits", "--json")
    found = json.loads(done.out, parse_constant=pytest.fail)["checkpoints"]
    assert [one["name"] for one in found] == ["mine", "epoch_3", "epoch_2", "epoch_1"]
    assert found[0]["metrics"] == {"loss": "NaN", "norm": "Infinity"}
    assert found[1]["is_latest"] is True
    assert found[1]["iter"] == 30
    assert found[1]["size_bytes"] == found[1]["files"]["state.pt"][0]
    assert found[1]["damaged"] is None
    assert "is not what was written" in found[3]["damaged"]


def test_ls_of_an_empty_folder_says_so_and_of_none_is_an_error(command: Command, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert command("ckpt", "ls", "empty") == (0, "no checkpoints in empty\n", "")
    assert json.loads(command("ckpt", "ls", "empty", "--json").out) == {"checkpoints": []}
    assert command("ckpt", "ls", "none") == (2, "", "error: there is no folder none\n")


def test_escape_sequences_in_names_and_metrics_do_nothing_to_a_terminal(
    command: Command, folder: Path
):
    save(folder, f"evil{ESCAPE}", 50, metrics={f"loss{ESCAPE}": 1.0}, metric=ESCAPE)
    for args in (["ls", "runs"], ["verify", "runs"], ["ls", "runs", "--json"]):
        done = command("ckpt", *args)
        assert done.code == 0
        assert "evil" in done.out
        assert not {"\x1b", "\x07"} & set(done.out + done.err)


def test_a_name_that_is_not_utf_8_can_be_listed(command: Command, folder: Path):
    save(folder, os.fsdecode(b"caf\xe9"), 50)
    assert "caf\\udce9" in command("ckpt", "ls", "runs").out
    assert json.loads(command("ckpt", "ls", "runs", "--json").out)["checkpoints"]


# verify


def test_verify_reads_every_byte_and_exits_with_3_if_one_is_damaged(command: Command, folder: Path):
    done = command("ckpt", "verify", "runs/digits")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "3 intact, 0 damaged"
    flip_a_bit(folder / "epoch_2" / "state.pt")
    (folder / "epoch_1" / "extra").touch()
    done = command("ckpt", "verify", "runs/digits")
    assert done.code == 3
    at = "runs/digits/checkpoints/epoch"
    ok, two, one, last = done.out.splitlines()
    assert ok.startswith(f"ok       {at}_3  2.")
    assert two == f"DAMAGED  {at}_2  is damaged: state.pt is not what was written"
    assert one == f"DAMAGED  {at}_1  has files that are not its own: extra"
    assert last == "1 intact, 2 damaged"


def test_verify_takes_checkpoints_links_and_folders(command: Command, folder: Path):
    at = "runs/digits/checkpoints"
    done = command("ckpt", "verify", f"{at}/epoch_1", f"{at}/latest", at)
    assert (done.code, len(done.out.splitlines())) == (0, 6)


def test_verify_of_nothing_is_an_error(command: Command, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert command("ckpt", "verify", "empty") == (
        3,
        "",
        "error: there are no checkpoints in empty\n",
    )
    assert command("ckpt", "verify", "none") == (2, "", "error: none does not exist\n")
    (tmp_path / "file").touch()
    done = command("ckpt", "verify", "file")
    assert done.code == 3
    assert "DAMAGED  file  is not a checkpoint" in done.out
    assert command("ckpt", "verify").code == 2


# export


@pytest.mark.parametrize("out", ["weights.safetensors", "weights.pt"])
def test_export_writes_the_weights_alone(command: Command, folder: Path, out: str):
    from asyncrunner.checkpoint.export import load_weights_file

    done = command("ckpt", "export", "runs/digits/checkpoints/latest", out)
    size = Path(out).stat().st_size
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"wrote {out}: 2 tensors, ")
    assert f"{size} B" in done.out or f"{size / 1000:.1f} kB" in done.out
    assert load_weights_file(Path(out))["weight"].equal(torch.full((2, 3), 30.0))
    done = command("ckpt", "export", "runs/digits/checkpoints/epoch_1", out)
    assert (done.code, done.out) == (2, "")
    assert "exists already" in done.err
    args = ("--force", "--key", "optimizers.default.state", "--prefix-strip", "x")
    assert command("ckpt", "export", "runs/digits/checkpoints/epoch_1", out, *args).code == 2
    assert command("ckpt", "export", "runs/digits/checkpoints/epoch_1", out, "--force").code == 0
    assert load_weights_file(Path(out))["weight"].equal(torch.full((2, 3), 10.0))


def test_export_of_a_damaged_checkpoint_exits_with_3(command: Command, folder: Path):
    flip_a_bit(folder / "epoch_3" / "state.pt")
    done = command("ckpt", "export", "runs/digits/checkpoints/epoch_3", "w.pt")
    assert (done.code, done.out) == (3, "")
    assert "is damaged: state.pt is not what was written" in done.err
    assert not Path("w.pt").exists()
    done = command("ckpt", "export", "none", "w.pt")
    assert (done.code, done.err) == (2, "error: none does not exist\n")


# All of them


def test_listing_verifying_and_pruning_do_not_import_torch(folder: Path, fresh: dict[str, str]):
    for args in (["ls"], ["verify", "runs"], ["prune", "runs/digits", "--keep", "1"]):
        code = (
            "import sys\nfrom asyncrunner.__main__ import main\n"
            f"try:\n    main({['ckpt', *args]})\n"
            "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=fresh,
            cwd=folder.parents[2],
            check=True,
        )
        assert done.stderr == "False\n"


@pytest.mark.parametrize("name", ["ls", "verify", "prune", "export", "diff"])
def test_every_command_explains_itself(command: Command, name: str):
    done = command("ckpt", name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: asyncrunner ckpt {name} ")

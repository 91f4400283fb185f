"""Checkpoints that earlier versions wrote are read for ever."""

import math
import os
import subprocess
from typing import Any

import torch
from make_golden import GOLDEN, golden_content, golden_manifest
from samples import alike

from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.manifest import find_checkpoints, verify


def test_a_checkpoint_of_format_1_is_read_with_its_exact_content():
    content, expected = read_checkpoint(GOLDEN), golden_content()
    assert list(content) == list(expected)
    for key in ("model", "images", "bool", "empty", "complex"):
        assert alike(content[key], expected[key])
    assert content["model"]["weight"].data_ptr() == content["model"]["tied"].data_ptr()
    state: dict[str, Any] = content["optimizer"]["state"][0]
    assert alike(state, expected["optimizer"]["state"][0])
    assert content["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]
    assert content["flags"] == expected["flags"]
    assert content["images"].is_contiguous(memory_format=torch.channels_last)


def test_a_manifest_of_format_1_is_read_with_its_exact_content():
    manifest, expected = verify(GOLDEN), golden_manifest()
    said, meant = (
        m.model_dump(exclude={"metrics", "files", "versions"}) for m in (manifest, expected)
    )
    assert said == meant
    assert manifest.metrics["loss"] == 0.125
    assert math.isnan(manifest.metrics["acc"])
    assert manifest.format == 1
    assert [one.path for one in find_checkpoints(GOLDEN.parent)[0]] == [GOLDEN]


def test_the_golden_checkpoint_is_whole_and_small():
    assert sorted(os.listdir(GOLDEN)) == ["manifest.json", "state.pt"]
    assert verify(GOLDEN).size_bytes < 16_000


def test_no_rule_keeps_the_golden_files_out_of_the_repository():
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", "state.pt", "manifest.json"],
        cwd=GOLDEN,
        capture_output=True,
        check=False,
    )
    assert ignored.stdout == b""

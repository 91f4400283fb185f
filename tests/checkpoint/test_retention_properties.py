"""Any sequence of saves under any policy, with a crash anywhere: nothing good is lost."""

import itertools
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import InjectedError, injected
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncrunner.checkpoint import Manifest, read_checkpoint, write_checkpoint
from asyncrunner.checkpoint.manifest import Found, find_checkpoints
from asyncrunner.checkpoint.retention import (
    LATEST,
    Rule,
    clean_up,
    delete,
    point_latest,
    ranked,
    superfluous,
)
from asyncrunner.errors import CheckpointError

VALUES = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 0.5, 0.5, 1.0])
METRICS = ("loss", "acc")


@dataclass(frozen=True)
class Policy:
    max_keep: int | None
    best_k: int
    rules: dict[str, Rule]


@dataclass(frozen=True)
class Save:
    by: str
    metric: str
    """Of a best one; else it is a regular one, or a manual one if `by` is empty."""
    metrics: dict[str, float]


policies = st.builds(
    Policy,
    st.sampled_from([1, 2, 3, 4, None]),
    st.integers(1, 3),
    st.fixed_dictionaries(dict.fromkeys(METRICS, st.sampled_from(["less", "greater"]))),
)
saves = st.builds(
    Save,
    st.sampled_from(["one", "one", "two", ""]),
    st.sampled_from(["", *METRICS]),
    st.fixed_dictionaries(dict.fromkeys(METRICS, VALUES)),
)


def name_and_manifest(one: Save, iter: int) -> tuple[str, Manifest]:
    purpose: Any = "manual" if not one.by else "best" if one.metric else "regular"
    metric = one.metric if purpose == "best" else ""
    manifest = Manifest(purpose=purpose, by=one.by, iter=iter, metric=metric, metrics=one.metrics)
    return f"{purpose}_{one.by}_{metric}_{iter}", manifest


def save(folder: Path, one: Save, iter: int, policy: Policy) -> None:
    """Do what a checkpointer does: write, point, prune."""
    name, manifest = name_and_manifest(one, iter)
    write_checkpoint(folder / name, {"iter": iter}, manifest)
    if manifest.purpose == "manual":
        return
    if manifest.purpose == "regular":
        point_latest(folder, name)
    found, _ = find_checkpoints(folder)
    for gone in superfluous(
        found, by=one.by, max_keep=policy.max_keep, best_k=policy.best_k, rules=policy.rules
    ):
        delete(gone.path)


def good(folder: Path) -> dict[str, Found]:
    """Return the checkpoints there, all of which are intact."""
    found, damaged = find_checkpoints(folder)
    assert not damaged
    assert all(read_checkpoint(f.path) == {"iter": f.manifest.iter} for f in found)
    return {f.path.name: f for f in found}


def protected(found: dict[str, Found], policies: dict[str, Policy]) -> set[str]:
    """Return the names that may not go: the newest, the best, and what is nobody's."""
    names = {name for name, f in found.items() if f.manifest.purpose == "manual"}
    for by, policy in policies.items():
        own = [f for f in found.values() if f.manifest.by == by]
        regular = [f for f in own if f.manifest.purpose == "regular"]
        if regular:
            names.add(max(regular, key=lambda f: f.manifest.order).path.name)
        for metric, rule in policy.rules.items():
            numbers = [
                f
                for f in own
                if f.manifest.metric == metric and not math.isnan(f.manifest.metrics[metric])
            ]
            if numbers:
                pick = min if rule == "less" else max
                value = pick(f.manifest.metrics[metric] for f in numbers)
                best = [f for f in numbers if f.manifest.metrics[metric] == value]
                names.add(min(best, key=lambda f: f.manifest.order).path.name)
    return names


@settings(max_examples=150, deadline=None)
@given(
    st.lists(saves, min_size=1, max_size=12),
    st.fixed_dictionaries({"one": policies, "two": policies, "": policies}),
    st.integers(1, 120),
    st.booleans(),
)
def test_no_save_and_no_crash_in_one_leaves_fewer_good_ones_than_before(
    sequence: list[Save], by_policy: dict[str, Policy], crash: int, is_crashing: bool
):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for iter, one in enumerate(sequence):
            before = good(folder)
            is_last = iter == len(sequence) - 1
            # A crash: from this call on, nothing that the process tries has any effect.
            fault = f"fs:{crash}+:raise" if is_crashing and is_last else "fs:count"
            with injected(folder, fault):
                try:
                    save(folder, one, iter, by_policy[one.by])
                except (InjectedError, CheckpointError):
                    assert fault != "fs:count"
            clean_up(folder)
            after = good(folder)
            assert len(after) >= len(before)
            others = {name for name, f in before.items() if f.manifest.by != one.by}
            assert others <= after.keys()
            name, manifest = name_and_manifest(one, iter)
            known = before | ({name: Found(folder / name, manifest)} if name in after else {})
            assert protected(known, by_policy) <= after.keys()
            if (folder / LATEST).is_symlink():
                assert (folder / LATEST).exists()


@given(st.permutations([math.nan, 0.1, 0.2, 0.2, math.inf]), st.sampled_from(["less", "greater"]))
def test_ranking_does_not_depend_on_the_order_in_which_they_are_found(
    values: list[float], rule: Rule
):
    found = [
        Found(Path(str(n)), Manifest(iter=n, metrics={"m": value}, saved="2030-01-01T00:00:00Z"))  # pyright: ignore[reportArgumentType]  # pydantic reads it
        for n, value in enumerate(values)
    ]
    orders = itertools.islice(itertools.permutations(found), 0, 120, 17)
    rankings = [[f.path for f in ranked(order, "m", rule)] for order in orders]
    assert all(ranking == rankings[0] for ranking in rankings)

"""Made-up measurements and small claims for the tests of verdicts, through the real classes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitrepro.arrays import Bools
from vitrepro.judge import rules
from vitrepro.judge.arm import Arm
from vitrepro.judge.finding import Finding, Region
from vitrepro.judge.verdict import Verdict, judge
from vitrepro.plan import Run
from vitrepro.recipe import Recipe
from vitrepro.record import AnalyticResult, Deviation, Environment, Measured, Predictions, Record, TrainResult
from vitrepro.spec import Cell, Claim, EquivalenceExpect, ValueCheck, ValueExpect

CLASSES = 10
HERE = Environment(
    vitrepro="0.1.0",
    git_revision=None,
    python="3.11.7",
    packages={"numpy": "2.1.0"},
    platform="Linux",
    device="cpu",
    device_name="A CPU, 2 cores",
    threads=2,
)


def right(percents: Sequence[float], n: int = 1000, who: int = 0) -> Bools:
    """Correctness (K, n) of trained models: these accuracies, on images that all models find about equally hard.

    Args:
        who: another number, other models of the same accuracies.
    """
    rows = np.zeros((len(percents), n), bool)
    for seed, percent in enumerate(percents):
        noise = np.random.default_rng([who, seed]).normal(0, 0.05 * n, n)
        easiest = np.argsort(np.arange(n) + noise)
        rows[seed, easiest[: round(percent / 100 * n)]] = True
    return rows


def trained(arm: str, rows: Bools, **change: Any) -> list[Measured]:
    """One measured run per row of correctness.

    Args:
        change: fields of the results that differ from what fits the rows, or `ids` or `labels` of the predictions.
    """
    n, classes = rows.shape[1], change.get("num_classes", CLASSES)
    ids, labels = change.pop("ids", np.arange(n)), change.pop("labels", np.arange(n) % classes)
    measured = []
    for seed, row in enumerate(rows):
        wrong = (labels + 1 + np.arange(n) % (classes - 1)) % classes  # any other class
        fields: dict[str, Any] = {
            "n": n,
            "correct": int(row.sum()),
            "complete_n": n,
            "num_classes": CLASSES,
            "ids_sha256": "i",
            "train_sha256": "t",
            "test_sha256": "e",
            "data_sha256": "d",
            "weights_sha256": f"{arm}/{seed}",
            "initial_sha256": "released",  # fine-tuned, unless a test says otherwise
            "parameters": 10_000,
            "train_images": 1000,
            "steps": 100,
            "skipped_steps": 0,
            "effective_batch": 32,
            "micro_batch": 32,
            "precision": "fp32",
            "final_loss": 0.1,
            "dev_correct": None,
            "dev_n": None,
            "train_seconds": 1.0,
            "eval_seconds": 1.0,
        }
        result = TrainResult(**fields | change)
        measured.append(_measured(arm, seed, result, Predictions(ids, np.where(row, labels, wrong), labels)))
    return measured


def counted(arm: str, quantities: Mapping[str, float]) -> list[Measured]:
    return [_measured(arm, 0, AnalyticResult(quantities=dict(quantities)), None)]


def _measured(arm: str, seed: int, result: TrainResult | AnalyticResult, predictions: Predictions | None) -> Measured:
    run_id = hashlib.sha256(f"{arm}/{seed}".encode()).hexdigest()[:16]
    record = Record(
        run_id=run_id,
        type="train" if predictions is not None else "analytic",
        experiment="made-up",
        arm=arm,
        seed=seed,
        config={},
        config_hash="c",
        claims={},
        result=result,
        environment=HERE,
        started_at="2026-01-02T03:00:00+00:00",
        wall_seconds=1.0,
    )
    return Measured(run_id, arm, seed, record, predictions)


def runs(arms: Mapping[str, Bools], **change: Any) -> list[Measured]:
    return [m for arm, rows in arms.items() for m in trained(arm, rows, **change)]


def claim(
    kind: str, expect: Mapping[str, Any], cells: Mapping[str, Any] | None = None, fidelity: str = "exact"
) -> Claim:
    """A claim with one scale, `gpu`."""
    entry = {"experiment": "made-up", "fidelity": fidelity, "expect": expect}
    if fidelity != "exact":
        entry["deviations"] = ["a smaller model"]
    reported = {"unit": "%", "cells": cells} if cells else None
    return Claim.model_validate(
        {
            "id": "paper/claim",
            "source": {"paper": "a paper", "where": "Table 1"},
            "kind": kind,
            "statement": "It is so.",
            "reported": reported,
            "scales": {"gpu": entry},
        }
    )


def value(reported: float, margin: float, direction: str = "two_sided", sd: float | None = None, **more: Any) -> Claim:
    """Arm `ours` against one reported number."""
    cell = {"value": reported, "sd": sd, "runs": more.pop("printed_runs", None), "decimals": more.pop("decimals", None)}
    check = {"arm": "ours", "margin": margin, "direction": direction, "same_weights": more.pop("same_weights", False)}
    check["metric"] = more.pop("metric", "top1")
    return claim("value", {"cells": {"top1": check}}, {"top1": cell}, **more)


def ordering(by: float = 0.0, **more: Any) -> Claim:
    """Arm `a` exceeds arm `b`."""
    return claim("ordering", {"all": [{"greater": "a", "than": "b", "by": by}]}, **more)


def equivalence(
    within: float = 2.0, arms: Sequence[str] = ("a", "b"), *, paired_by_seed: bool = False, **more: Any
) -> Claim:
    expect = {"equal": list(arms), "within": within, "paired_by_seed": paired_by_seed}
    return claim("equivalence", expect, **more)


def gain(by: float = 0.0, **more: Any) -> Claim:
    """From small to large, `vit` gains more than `resnet`."""
    return claim("trend", {"larger_gain": ["vit-1", "vit-2"], "than": ["resnet-1", "resnet-2"], "by": by}, **more)


def increasing(
    by: float = 0.0, dip: float | None = None, arms: Sequence[str] = ("small", "base", "large"), **more: Any
) -> Claim:
    return claim("trend", {"increasing": list(arms), "by": by, "dip": dip}, **more)


def judged(
    claim: Claim,
    arms: Mapping[str, Bools] | Sequence[Measured],
    deviations: Sequence[Deviation] = (),
    **change: Any,
) -> Verdict:
    """The verdict on runs, or on arms' correctness, at scale `gpu`; registered are the seeds there are, up to three."""
    measured = runs(arms, **change) if isinstance(arms, Mapping) else arms
    registered = min(3, len({m.seed for m in measured}))
    return judge(claim, "gpu", measured, registered_seeds=registered, deviations=deviations)


RECIPE = {
    "data": {"name": "digits"},
    "model": {"family": "vit", "patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 1},
    "train": {"steps": 10, "batch_size": 32, "lr": 0.001},
}


def planned(seeds: int, *arms: str) -> list[Run]:
    """Runs on digits, of which 797 are test images; of arm `ours` if none is named."""
    recipe = Recipe.model_validate(RECIPE)
    return [Run("made-up", arm, s, recipe) for s in range(seeds) for arm in arms or ("ours",)]


def evaluated(name: str, check: ValueCheck, cell: Cell, arm: Arm) -> Finding:
    """The finding on one value, by the rule that its check asks for."""
    (found,) = rules.findings(ValueExpect(cells={name: check}), {name: cell}, {check.arm: arm})
    return found


def gap(
    label: str, weights: Mapping[str, float], by: float, arms: Mapping[str, Arm], rivals: tuple[str, str], **more: Any
) -> Finding:
    """The finding on a contrast of arms that should be above `by`."""
    region = Region(by, tail=rules.BOTH_SIDES, unit=abs(by) or 1.0)
    return rules.gap(rules.Question(label, "gap", weights, region, by, rivals=rivals, **more), arms)


def equal(a: str, b: str, within: float, arms: Mapping[str, Arm], *, paired: bool = False) -> Finding:
    """The finding on two arms that should be equal."""
    (found,) = rules.findings(EquivalenceExpect(equal=(a, b), within=within, paired_by_seed=paired), {}, arms)
    return found

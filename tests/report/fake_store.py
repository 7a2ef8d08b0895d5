"""A store filled with made-up measurements through the real classes, and small claims about them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from vitrepro.claims import Registry
from vitrepro.judge.verdict import judge
from vitrepro.plan import ClaimPlan, Override, Run, choose_scale, plan_claim
from vitrepro.record import AnalyticResult, Environment, Predictions, Record, TrainResult
from vitrepro.report import words
from vitrepro.spec import Claim, Experiment
from vitrepro.store import RunRef, Store, VerdictEntry

N = 797  # test images of digits
HERE = Environment(
    vitrepro="0.1.0",
    git_revision="62db793aaaaa",
    python="3.11.7",
    packages={"torch": "2.7.0", "numpy": "2.1.0"},
    platform="Linux",
    device="cpu",
    device_name="A CPU, 2 cores",
    threads=2,
)
VIT = {"family": "vit", "patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}
RESNET = {"family": "resnet", "layers": [1, 1], "block": "basic", "stem": "small", "width": 8}
LENGTH = {"steps": 100, "batch_size": 32, "lr": 0.001}


def position_embeddings(**change: Any) -> dict[str, Any]:
    """Two arms, three seeds."""
    arms = {"none": {"model": {"pos_embed": "none"}}, "learned-1d": {"model": {"pos_embed": "learned_1d"}}}
    return {
        "id": "position-embeddings",
        "type": "train",
        "title": "Position embeddings on digits",
        "base": {"data": {"name": "digits"}, "model": VIT, "train": LENGTH},
        "factors": {"posemb": arms},
        "seeds": [0, 1, 2],
    } | change


def sizes(train_images: Sequence[int] = (100, 300, 1000)) -> dict[str, Any]:
    models = {"vit": {"model": VIT}, "resnet": {"model": RESNET}}
    return {
        "id": "training-sizes",
        "type": "train",
        "title": "Accuracy against training images",
        "base": {"data": {"name": "digits"}, "train": LENGTH},
        "factors": {"model": models, "size": {f"n{n}": {"data": {"train_images": n}} for n in train_images}},
        "seeds": [0, 1, 2],
    }


def counting() -> dict[str, Any]:
    quantities = ["parameters_m", "depth"]
    arms = {v.lower().replace("/", ""): v for v in ("B/16", "L/16", "H/14")}
    return {
        "id": "model-sizes",
        "type": "analytic",
        "title": "Parameters by construction",
        "arms": {k: {"model": {"family": "vit", "variant": v}, "quantities": quantities} for k, v in arms.items()},
    }


def claim(claim_id: str, kind: str, expect: Mapping[str, Any], **change: Any) -> dict[str, Any]:
    experiment = change.pop("experiment", "position-embeddings")
    scale = change.pop("scale", "any" if kind == "exact" else "cpu")
    fidelity = "exact" if kind == "exact" else "proxy"
    deviations = [] if kind == "exact" else ["digits instead of ImageNet", "100 steps instead of 100,000"]
    entry = {"experiment": experiment, "fidelity": fidelity, "expect": expect, "deviations": deviations}
    return {
        "id": claim_id,
        "source": {"paper": "arxiv:2010.11929v2", "where": "Table 8, D.4"},
        "kind": kind,
        "statement": "Without position embeddings a ViT is clearly worse.",
        "scales": {scale: entry},
    } | change


def ordering(by: float = 1.0, **change: Any) -> dict[str, Any]:
    reported = {"unit": "% top-1, 5-shot linear, ImageNet", "cells": {"none": 61.382, "learned-1d": 64.206}}
    expect = {"all": [{"greater": "learned-1d", "than": "none", "by": by}]}
    return claim("vit/t8-none-worse", "ordering", expect, **{"reported": reported} | change)


@dataclass
class Lab:
    """A store and claims that tests fill, and edit afterwards."""

    store: Store
    claims: dict[str, Claim] = field(default_factory=dict)
    experiments: dict[str, Any] = field(default_factory=dict)

    @property
    def registry(self) -> Registry:
        return Registry(self.claims, self.experiments, {}, {})

    def say(self, *claims: Mapping[str, Any]) -> None:
        self.claims |= {c["id"]: Claim.model_validate(c) for c in claims}

    def design(self, *experiments: Mapping[str, Any]) -> None:
        adapter: TypeAdapter[Any] = TypeAdapter(Experiment)
        self.experiments |= {e["id"]: adapter.validate_python(e) for e in experiments}

    def plan(self, claim_id: str, settings: Sequence[str] = (), seeds: int | None = None) -> ClaimPlan:
        choice = choose_scale(self.claims[claim_id], None, why_not=lambda *_: None)
        overrides = [Override.parse(s) for s in settings]
        return plan_claim(self.registry, choice, resolve=lambda _: "fp32", seeds=seeds, overrides=overrides)

    def verify(
        self,
        claim_id: str,
        correct: Mapping[str, Sequence[int]] | None = None,
        counted: Mapping[str, Mapping[str, float]] | None = None,
        settings: Sequence[str] = (),
        skip: int = 0,
    ) -> list[str]:
        """Store what `vitrepro verify` would, with these numbers of correct images per arm and seed.

        Args:
            skip: how many of the last runs stay undone.

        Returns:
            The ids of the planned runs.
        """
        seeds = len(next(iter(correct.values()))) if correct else None
        plan = self.plan(claim_id, settings, seeds)
        for run in plan.runs[: len(plan.runs) - skip]:
            if self.store.state(run.id) != "finished":
                self.finish(run, correct[run.arm][run.seed] if correct else None, counted)
        refs = tuple(RunRef(run_id=r.id, arm=r.arm, seed=r.seed) for r in plan.runs)
        deviations = plan.runs[0].deviations
        judged = judge(
            plan.claim,
            str(plan.choice.scale),
            [self.store.measured(r) for r in refs],
            registered_seeds=plan.registered_seeds,
            deviations=deviations,
        )
        entry = VerdictEntry(
            claim_id=claim_id,
            claim_hash=plan.claim.hash,
            scale=str(plan.choice.scale),
            entry=plan.choice.entry,
            reported=plan.claim.reported,
            runs=refs,
            registered_seeds=plan.registered_seeds,
            deviations=deviations,
            outcome=judged.outcome.value,
            reason=words.reason(judged),
            judged_at="2026-01-02T03:04:05+00:00",
            looks=0,
        )
        self.store.write_verdict(entry)
        return [r.id for r in plan.runs]

    def finish(self, run: Run, correct: int | None, counted: Mapping[str, Mapping[str, float]] | None = None) -> None:
        result: Any
        predictions = None
        self.store.write_config(run.id, {"run": run.name})
        if correct is None:
            assert counted is not None
            result = AnalyticResult(quantities=dict(counted[run.arm]))
        else:
            result, predictions = trained(run, correct)
            curve = [learning_curve(step, 100, 100 * correct / N, run.seed) for step in range(2, 101, 2)]
            (self.store.run_dir(run.id) / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in curve))
        record = Record(
            run_id=run.id,
            type=run.type,
            experiment=run.experiment,
            arm=run.arm,
            seed=run.seed,
            config=run.config.model_dump(mode="json"),
            config_hash=run.config_hash,
            claims={},
            deviations=run.deviations,
            result=result,
            environment=HERE,
            started_at="2026-01-02T03:00:00+00:00",
            wall_seconds=12.0,
        )
        self.store.finish(record, predictions)


def trained(run: Run, correct: int) -> tuple[TrainResult, Predictions]:
    labels = np.arange(N) % 10
    order = np.random.default_rng([run.seed, zlib.crc32(run.name.encode())]).permutation(N)  # ids change with recipes
    hard = np.argsort(np.arange(N) + 0.4 * order)  # arms find nearly the same images hard
    predicted = labels.copy()
    predicted[hard[correct:]] = (labels[hard[correct:]] + 1) % 10
    result = TrainResult(
        n=N,
        correct=correct,
        complete_n=N,
        num_classes=10,
        ids_sha256="i",
        train_sha256="t",
        data_sha256="d",
        test_sha256="e",
        weights_sha256="w",
        parameters=10_000,
        train_images=run.config.train_size,
        steps=100,
        skipped_steps=0,
        effective_batch=32,
        micro_batch=32,
        precision="bf16" if run.config.train.precision == "bf16" else "fp32",
        final_loss=0.1,
        dev_correct=None,
        dev_n=None,
        train_seconds=10.0,
        eval_seconds=0.5,
    )
    return result, Predictions(np.arange(N), predicted, labels)


def learning_curve(step: int, steps: int, top1: float, seed: int) -> dict[str, float]:
    share = step / steps
    wobble = 1 + 0.05 * np.sin(step / 5 + seed)
    loss = 2.3 * np.exp(-4 * share * top1 / 100) * wobble
    return {
        "step": float(step),
        "steps": float(steps),
        "loss": float(loss),
        "train_top1": float(top1 * (1 - np.exp(-5 * share))),
    }

"""Which claims fit into a budget: facts that any order of work must keep, checked over random plans."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrepro import budget, distributed
from vitrepro.budget import SHARE_OF_PRODUCTS, Clock
from vitrepro.cost import START_SECONDS, Timings, run_flops
from vitrepro.plan import Choice, ClaimPlan, Run
from vitrepro.recipe import Recipe
from vitrepro.record import Environment, Record, TrainResult
from vitrepro.spec import AnalyticArm, Claim

ARM = AnalyticArm.model_validate(
    {"model": {"family": "vit", "variant": "B/16"}, "quantities": ["depth"], "image_size": 224}
)


@dataclass(frozen=True)
class Work(Run):
    """A run that is told its own cost."""

    seconds: float = 1.0

    @property
    def id(self) -> str:
        return self.arm


def claim(name: str) -> Claim:
    return Claim.model_validate(
        {
            "id": f"paper/{name}",
            "source": {"paper": "p", "where": "w"},
            "kind": "ordering",
            "statement": "s",
            "scales": {"cpu": {"infeasible": "for the test"}},
        }
    )


def plan_of(name: str, costs: dict[str, float], possible: bool = True) -> ClaimPlan:
    runs = tuple(Work("e", arm, 0, ARM, seconds=s) for arm, s in costs.items())
    return ClaimPlan(Choice(claim(name), "cpu" if possible else None, None, {}), runs if possible else (), 1)


def pick(
    plans: list[ClaimPlan], seconds: float, slots: int = 1, stored: tuple[str, ...] = ()
) -> tuple[list[budget.Pick], list[tuple[ClaimPlan, float]]]:
    return budget.pick(
        plans,
        lambda run: run.seconds,  # type: ignore[attr-defined]
        stored=lambda run: run.id in stored,
        slots=slots,
        budget_seconds=seconds,
    )


def names(picked: list[budget.Pick]) -> list[str]:
    return [p.plan.claim.id.removeprefix("paper/") for p in picked]


def test_the_cheapest_verdict_comes_first_and_what_does_not_fit_is_named_with_its_cost() -> None:
    fits, left = pick([plan_of("dear", {"a": 50.0}), plan_of("cheap", {"b": 5.0})], 20)
    assert names(fits) == ["cheap"]
    assert [(p.claim.id, s) for p, s in left] == [("paper/dear", 50.0)]


def test_runs_that_claims_share_are_paid_once() -> None:
    fits, left = pick([plan_of("one", {"a": 10.0, "b": 2.0}), plan_of("two", {"a": 10.0})], 12)
    assert [(n, p.added_seconds) for n, p in zip(names(fits), fits, strict=True)] == [("two", 10.0), ("one", 2.0)]
    assert left == []


def test_stored_runs_cost_nothing() -> None:
    fits, _ = pick([plan_of("one", {"a": 10.0})], 0.5, stored=("a",))
    assert names(fits) == ["one"]
    assert fits[0].added_seconds == 0


def test_two_slots_halve_the_time_but_one_run_is_never_split() -> None:
    fits, _ = pick([plan_of("even", {"a": 4.0, "b": 4.0}), plan_of("long", {"c": 9.0})], 100, slots=2)
    assert [p.added_seconds for p in fits] == [4.0, 9.0]


def test_claims_that_cannot_be_checked_here_are_not_part_of_the_choice() -> None:
    fits, left = pick([plan_of("no", {}, possible=False)], 100)
    assert (fits, left) == ([], [])


@given(
    st.lists(st.dictionaries(st.sampled_from("abcdef"), st.just(0.0), min_size=1, max_size=4), min_size=1, max_size=6),
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0.5, 50), min_size=6, max_size=6),
    st.floats(1, 100),
)
def test_the_budget_is_kept_and_each_next_claim_is_the_cheapest_left(
    arms: list[dict[str, float]], costs: dict[str, float], limit: float
) -> None:
    plans = [plan_of(f"c{i}", {a: costs[a] for a in chosen}) for i, chosen in enumerate(arms)]
    fits, left = pick(plans, limit)
    paid: set[str] = set()
    remaining = list(plans)
    spent = 0.0
    for chosen in fits:
        adds = {p.claim.id: sum(costs[a] for a in {r.id for r in p.runs} - paid) for p in remaining}
        assert chosen.added_seconds == pytest.approx(min(adds.values()))
        paid |= {r.id for r in chosen.plan.runs}
        remaining.remove(chosen.plan)
        spent += chosen.added_seconds
        assert chosen.until_seconds == pytest.approx(spent)
    assert spent <= limit + 1e-9
    assert len(fits) + len(left) == len(plans)
    assert all(spent + seconds > limit - 1e-9 for _, seconds in left)
    assert all(a <= b for (_, a), (_, b) in itertools.pairwise(left))


# --- how long a run takes -----------------------------------------------------------------------

HERE = "a CPU"


@pytest.fixture(autouse=True)
def _a_cpu_of_a_known_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "device_name", lambda device: HERE if device == "cpu" else "a GPU")
    monkeypatch.setattr(distributed, "product_rate", lambda device: 1e12 if device == "cpu" else 1e15)


def training(depth: int = 2, steps: int = 100, model: dict[str, Any] | None = None) -> Run:
    vit = {"family": "vit", "patch_size": 4, "embed_dim": 16, "depth": depth, "num_heads": 2}
    train = {"steps": steps, "batch_size": 32, "lr": 0.1, "precision": "fp32"}
    recipe = Recipe.model_validate({"data": {"name": "digits"}, "model": model or vit, "train": train})
    return Run("e", f"depth-{depth}", 0, recipe)


def operations(run: Run) -> float:
    counted = run_flops(run)
    assert counted is not None
    return counted


def made(run: Run, seconds: float, device_name: str = HERE, **result: Any) -> Record:
    """What a run left that took this long, a tenth of it in evaluation."""
    assert isinstance(run.config, Recipe)
    hashes = dict.fromkeys(("ids_sha256", "train_sha256", "test_sha256", "data_sha256", "weights_sha256"), "0")
    fields: dict[str, Any] = {
        "n": 797,
        "correct": 700,
        "complete_n": 797,
        "num_classes": 10,
        "parameters": 1,
        "train_images": 1000,
        "steps": run.config.steps,
        "skipped_steps": 0,
        "effective_batch": 32,
        "micro_batch": 32,
        "precision": "fp32",
        "final_loss": 0.1,
        "dev_correct": None,
        "dev_n": None,
        "train_seconds": 0.9 * seconds,
        "eval_seconds": 0.1 * seconds,
    }
    environment = Environment(
        vitrepro="0",
        git_revision=None,
        python="3",
        packages={},
        platform="p",
        device="cpu" if device_name == HERE else "cuda:0",
        device_name=device_name,
        threads=1,
    )
    return Record(
        run_id=run.id,
        type="train",
        experiment=run.experiment,
        arm=run.arm,
        seed=run.seed,
        config=run.config.model_dump(mode="json"),
        config_hash=run.config_hash,
        claims={},
        result=TrainResult(**{**fields, **hashes, **result}),
        environment=environment,
        started_at="2026-01-01T00:00:00+00:00",
        wall_seconds=seconds,
    )


def clock(*records: Record, device: str = "cpu") -> Clock:
    return Clock(Timings(records, distributed.device_name(device), 1), records, device)


def test_a_model_that_was_timed_takes_as_long_as_it_did() -> None:
    timed = training()
    told = clock(made(timed, 50.0))
    assert told.timed(timed)
    assert told.timed(training(steps=7))
    assert not told.timed(training(depth=3))
    assert told.seconds(timed) == Timings([made(timed, 50.0)], HERE, 1).seconds(timed)
    assert told.seconds(timed) == pytest.approx(START_SECONDS + 50.0)


def test_a_model_that_was_never_timed_takes_its_operations_at_the_rate_of_the_others() -> None:
    rate = operations(training()) / 50.0
    other = training(depth=5)
    assert clock(made(training(), 50.0)).seconds(other) == pytest.approx(START_SECONDS + operations(other) / rate)


def test_a_device_that_is_not_here_does_a_share_of_its_peak_whatever_was_timed_here() -> None:
    run, records = training(), [made(training(), 50.0)]
    there = Clock(Timings((), "", 0), records, "cuda", products_per_second=2e13)
    assert not there.timed(run)
    assert there.seconds(run) == pytest.approx(START_SECONDS + operations(run) / (SHARE_OF_PRODUCTS * 2e13))
    assert there.basis.startswith("nothing was timed there")
    assert clock(*records).basis.startswith("some of these models were never timed on this machine")


def test_of_several_rates_the_middle_one_counts() -> None:
    records = [made(training(depth=d), s) for d, s in ((1, 1e-3), (2, 50.0), (3, 1e6))]
    assert clock(*records).rate == pytest.approx(operations(training(depth=2)) / 50.0)


@pytest.mark.parametrize(
    "useless",
    [
        made(training(), 1.0, "another CPU"),
        made(training(), 1.0, "a GPU"),
        made(training(), 1.0, resumed_at=(50,)),
        made(training(), 0.0),
        made(training(model={"family": "timm", "name": "resnet18", "image_size": 32}), 1.0),
        made(training(), 1.0).model_copy(update={"config": {"of": "another version"}}),
    ],
    ids=["another machine", "another device", "resumed", "not timed", "no closed form", "unreadable"],
)
def test_a_record_that_tells_no_rate_of_this_device_does_not_count(useless: Record) -> None:
    assert clock(useless).rate == SHARE_OF_PRODUCTS * 1e12
    good = made(training(depth=5), 50.0)
    assert clock(useless, good).rate == clock(good).rate


def test_without_records_a_share_of_the_rate_of_matrix_products_on_the_device_stands_in() -> None:
    run = training()
    assert clock().seconds(run) == pytest.approx(START_SECONDS + operations(run) / (SHARE_OF_PRODUCTS * 1e12))
    assert clock(device="cuda:0").rate == 1000 * clock().rate


def test_the_device_is_measured_once_and_only_if_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr(distributed, "product_rate", lambda device: measured.append(device) or 1e12)
    timed, counted = training(), Run("e", "a", 0, ARM)
    told = clock(made(timed, 50.0))
    assert told.seconds(timed) > 0
    assert told.seconds(counted) > 0
    assert measured == []
    fresh = clock()
    assert fresh.seconds(timed) == fresh.seconds(timed)
    assert measured == ["cpu"]


def test_a_model_without_a_closed_form_that_was_never_timed_takes_for_ever() -> None:
    run = training(model={"family": "timm", "name": "resnet18", "image_size": 32})
    assert clock().seconds(run) == math.inf
    assert math.isfinite(clock(made(run, 5.0)).seconds(run))


def test_what_takes_for_ever_fits_no_budget_and_keeps_nothing_else_out() -> None:
    fits, left = pick([plan_of("endless", {"a": math.inf}), plan_of("short", {"b": 1.0})], 1e12)
    assert names(fits) == ["short"]
    assert [(p.claim.id, s) for p, s in left] == [("paper/endless", math.inf)]


def test_counting_takes_no_measurement_and_is_known() -> None:
    assert clock().timed(Run("e", "a", 0, ARM))

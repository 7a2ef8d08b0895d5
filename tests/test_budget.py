"""Which claims fit into a budget: facts that any order of work must keep, checked over random plans."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrepro import budget
from vitrepro.plan import Choice, ClaimPlan, Run
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

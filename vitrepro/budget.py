"""Which claims to verify when time is short: the cheapest verdict first, runs that claims share paid once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from vitrepro.cost import START_SECONDS, Timings, recipe_flops, run_flops
from vitrepro.plan import ClaimPlan, Run
from vitrepro.recipe import Recipe
from vitrepro.record import Record, TrainResult

NEVER_TIMED = (
    "some of these models were never timed on this machine; roughly, from what their operations take elsewhere on it. "
    "It is known after their first run."
)
SHARE_OF_PRODUCTS = 0.3  # of the rate of plain matrix products that training reaches, where nothing was timed yet


class Clock:
    """How long a run takes here: as its model was timed, or roughly, by its operations.

    Args:
        records: of the store; what those of this device did per second stands for models that were never timed.
        device: measured for a moment where there are none.
        products_per_second: operations of the device's matrix products, where it is not here to be measured.
    """

    def __init__(
        self,
        timings: Timings,
        records: Sequence[Record],
        device: str,
        *,
        products_per_second: float | None = None,
    ) -> None:
        self.timings = timings
        self._records = records
        self._device = device
        self._products = products_per_second
        self._rate: float | None = None

    def timed(self, run: Run) -> bool:
        return self.timings.seconds(run) is not None

    def seconds(self, run: Run) -> float:
        """Of one run on one slot."""
        seconds = self.timings.seconds(run)
        if seconds is not None:
            return seconds
        operations = run_flops(run)
        if operations is None:  # a model of a library without a closed form
            return math.inf
        return START_SECONDS + operations / self.rate

    @property
    def rate(self) -> float:
        """Operations per second of the runs that were made on this device, or a share of what matrix products reach."""
        if self._rate is None:
            if self._products is not None:
                self._rate = SHARE_OF_PRODUCTS * self._products
                return self._rate
            from vitrepro.distributed import device_name, product_rate  # brings in torch

            here = device_name(self._device)
            made = (record for record in self._records if record.environment.device_name == here)
            rates = sorted(r for record in made if (r := _rate_of(record)) is not None)
            self._rate = rates[len(rates) // 2] if rates else SHARE_OF_PRODUCTS * product_rate(self._device)
        return self._rate

    @property
    def basis(self) -> str:
        """What rough times come from."""
        if self._products is not None:
            share = f"{SHARE_OF_PRODUCTS:.0%} of the peak"
            return f"nothing was timed there; by operations, at {share}; small models reach far less."
        return NEVER_TIMED


def _rate_of(record: Record) -> float | None:
    result = record.result
    if not isinstance(result, TrainResult) or result.resumed_at or result.processes > 1:
        return None
    if not result.train_seconds + result.eval_seconds:
        return None
    try:
        recipe = Recipe.model_validate(record.config)
    except ValidationError:  # made when recipes could say other things
        return None
    operations = recipe_flops(recipe)
    return operations / (result.train_seconds + result.eval_seconds) if operations else None


@dataclass(frozen=True)
class Pick:
    """A claim that fits, in the order of the work.

    Attributes:
        added_seconds: wall time on top of what the claims before it take; 0 where their runs decide it too.
        until_seconds: wall time from the start to its verdict.
    """

    plan: ClaimPlan
    added_seconds: float
    until_seconds: float


def pick(
    plans: Sequence[ClaimPlan],
    seconds: Callable[[Run], float],
    *,
    stored: Callable[[Run], bool],
    slots: int,
    budget_seconds: float,
) -> tuple[list[Pick], list[tuple[ClaimPlan, float]]]:
    """The claims that fit into a budget, each time the one that costs least on top of those before it.

    Greedy, so that the number of verdicts grows as fast as it can; not the best set for one fixed budget.

    Args:
        seconds: of one run on one slot.
        stored: whether a run is finished and costs nothing.

    Returns:
        What fits, in order; and what does not, with the seconds that it would add.
    """
    left = [p for p in plans if p.choice.scale is not None]
    costs = {r.id: 0.0 if stored(r) else seconds(r) for p in left for r in p.runs}
    paid: set[str] = set()
    spent = 0.0
    picked: list[Pick] = []

    def added(plan: ClaimPlan) -> float:
        new = [costs[i] for i in {r.id for r in plan.runs} - paid]
        return max(sum(new) / slots, max(new, default=0.0))

    while left:
        plan = min(left, key=added)
        cost = added(plan)
        if spent + cost > budget_seconds:
            break
        spent += cost
        paid |= {r.id for r in plan.runs}
        picked.append(Pick(plan, cost, spent))
        left.remove(plan)
    return picked, sorted(((p, added(p)) for p in left), key=lambda item: item[1])

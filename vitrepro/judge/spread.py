"""How much runs of one recipe vary from seed to seed, by regime; docs/verdicts.md gives the reasons.

The unit is the `bound`, the binomial standard error of one accuracy. Where training starts from released weights, runs
vary by less than one bound (Jordan, arXiv 2304.01910; the deviations that the ViT paper prints). From scratch they vary
by more: what stored runs showed stands in `spread.json`, which `python -m benchmarks.spread` makes.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitrepro.errors import StoreError
from vitrepro.judge.stats import binomial_sd, sd_of

Regime = Literal["scratch", "fine-tuned"]
FILE = Path(__file__).with_name("spread.json")
FEWEST = 3  # seeds whose own deviation decides
FEWEST_ARMS = 8
TAILS = 4.0  # most degrees of freedom of the prior: so few arms do not exclude tails as heavy
FAR = 8.0  # bounds below the median of its arm from which on a run has failed
FINE_TUNED = (0.28, 0.85)  # of the bound: median and largest of the 20 deviations that the ViT paper prints


@dataclass(frozen=True)
class Stored:
    """What stored arms trained from scratch showed of deviations over seeds, in bounds.

    Attributes:
        least: lower quartile, below which the deviation of three seeds or more is not believed.
        scale, freedom: Student's t for one seed whose arm is not known further.
        steady, unsteady: the two worlds that a forecast looks at, lower and upper quartile.
    """

    least: float
    scale: float
    freedom: float
    steady: float
    unsteady: float


def fit(ratios: Sequence[float], seeds: int = 3) -> Stored:
    """Quartiles of deviations over seeds, and the prior that fits them: their squares are a scaled F.

    Args:
        ratios: deviation over bound, one per arm.
        seeds: behind each deviation.

    Raises:
        StoreError: fewer than eight arms, or a ratio that is none.
    """
    from scipy.optimize import minimize
    from scipy.stats import f

    x = np.asarray(ratios, float)
    if len(x) < FEWEST_ARMS or not np.isfinite(x).all() or (x < 0).any() or not x.any():
        raise StoreError(f"the spread of seeds needs the deviations of {FEWEST_ARMS} arms or more, found {len(x)}")

    def surprise(at: Any) -> float:
        scale, freedom = math.exp(at[0]), min(math.exp(at[1]), TAILS)
        return -float(np.sum(f.logpdf(np.maximum(x, 0.01) ** 2 / scale**2, seeds - 1, freedom) - 2 * at[0]))

    scale, freedom = np.exp(minimize(surprise, np.log([2.0, 3.0]), method="Nelder-Mead").x)
    low, high = np.quantile(x, [0.25, 0.75])
    return Stored(*(round(float(v), 2) for v in (low, scale, min(freedom, TAILS), low, high)))


@functools.cache
def stored(path: Path = FILE) -> Stored:
    """What the file says.

    Raises:
        StoreError: it is missing, damaged, or of too few arms.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        found = Stored(**{field.name: float(document["fit"][field.name]) for field in fields(Stored)})
        if len(document["arms"]) < FEWEST_ARMS or not all(0 < v < math.inf for v in vars(found).values()):
            raise ValueError(f"{len(document['arms'])} arms, {FEWEST_ARMS} are needed, and fits above 0")
        return found
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path}: cannot be read as the spread of stored arms ({error}); install again") from None


@dataclass(frozen=True)
class Spread:
    """Standard deviation of one run, with its degrees of freedom.

    Attributes:
        sd: in points; an array for an array of arms.
        seen: what the seeds themselves showed, from which degrees of freedom are told: a least deviation put in place
            of it narrows nothing.
        source: `seeds`, their own; `least`; `stored`, of other arms; `bound`.
        confirms: it may bear a PASS.
    """

    sd: Any
    seen: Any
    freedom: float
    source: str
    confirms: bool = True

    @property
    def variance(self) -> Any:
        return self.sd**2


def spread(accuracies: Any, n: int, regime: Regime, known: Stored | None = None) -> Spread:
    """How much one run varies, from the accuracies of an arm.

    From three seeds on it is the seeds' own deviation, at least half an image; from scratch at least `least` bounds as
    well, since three may lie close together by luck. Fewer seeds have the bound if fine-tuned, unless they lie further
    apart; from scratch they have the spread of the stored arms, by which they can refute and not confirm.

    Args:
        accuracies: (..., K), percent.
        n: images behind each.
        known: what stored arms showed; the file's unless given.
    """
    x = np.asarray(accuracies, float)
    k, own, bound = x.shape[-1], sd_of(x), binomial_sd(x.mean(-1), n)
    if k >= FEWEST:
        least = np.maximum(50 / n, (known or stored()).least * bound if regime == "scratch" else 0.0)
        return Spread(np.maximum(own, least), own, k - 1.0, "seeds" if np.all(own >= least) else "least")
    if regime == "scratch":
        known = known or stored()
        sd = np.maximum(own, known.scale * bound)
        return Spread(sd, sd, known.freedom, "stored", confirms=False)
    if np.any(own > bound):
        if np.ndim(own):
            raise ValueError("two seeds further apart than the bound are judged one case at a time")
        return Spread(own, own, k - 1.0, "seeds")
    return Spread(bound, bound, math.inf, "bound")


def failed(accuracies: Sequence[float], n: int, chance_p: Sequence[float], alpha: float) -> tuple[int, ...]:
    """Places of the runs that failed: no better than guessing, or far below the median of their arm.

    Args:
        accuracies: percent, one per run.
        chance_p: p-value of each run being better than guessing.
    """
    x, middle = np.asarray(accuracies, float), float(np.median(accuracies))
    far = middle - x > FAR * binomial_sd(middle, n)
    return tuple(np.flatnonzero(far | (np.asarray(chance_p) >= alpha)).tolist())

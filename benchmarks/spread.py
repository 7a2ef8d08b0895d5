"""Make `vitrepro/judge/spread.json`: how much the seeds of stored arms vary, trained from scratch.

    python -m benchmarks.spread docs/evidence/attempts

Every arm of three seeds in the exports named is one line; the fit is of the arms above chance.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vitrepro import export
from vitrepro.judge import spread, stats
from vitrepro.judge.arm import Arm
from vitrepro.record import Measured, TrainResult
from vitrepro.store import RunRef, Store

SEEDS = 3


def arms(store: Store) -> list[dict[str, Any]]:
    """Each arm of three seeds trained from scratch, with what its seeds came to."""
    groups: dict[tuple[str, str, str], list[Measured]] = defaultdict(list)
    for run_id in store.run_ids():
        record = store.record(run_id)
        if record is None or not isinstance(record.result, TrainResult) or record.result.initial_sha256:
            continue
        ref = RunRef(run_id=run_id, arm=record.arm, seed=record.seed)
        groups[record.experiment, record.arm, record.config_hash].append(store.measured(ref))
    found = []
    for (experiment, arm, recipe), members in sorted(groups.items()):
        if len(members) == SEEDS:
            found.append({"experiment": experiment, "arm": arm, "recipe": recipe[:12], **_described(members)})
    return found


def _described(members: list[Measured]) -> dict[str, Any]:
    members = sorted(members, key=lambda m: m.seed)
    results = [m.record.result for m in members if m.record and isinstance(m.record.result, TrainResult)]
    n, classes = results[0].n, results[0].num_classes
    labels = members[0].predictions.labels if members[0].predictions else np.zeros(1, int)
    made = Arm(tuple(100 * r.correct / n for r in results), n, SEEDS, None, classes, int(np.bincount(labels).max()))
    at_chance = sum(float(stats.above_chance(r.correct, n, made.chance / 100)) >= 0.05 for r in results)
    return {
        "classes": classes,
        "n": n,
        "correct": [r.correct for r in results],
        "sd": round(float(stats.sd_of(made.accuracies)), 4),
        "bound": round(float(stats.binomial_sd(made.mean, n)), 4),
        "at_chance": at_chance,
        "failed": len(made.failed),
    }


def ratios(found: list[dict[str, Any]]) -> list[float]:
    """Deviation over bound of the arms whose runs are all above chance."""
    return [arm["sd"] / arm["bound"] for arm in found if not arm["at_chance"]]


def main(folders: list[str]) -> None:
    """Write the file."""
    found = [arm for folder in folders for arm in arms(export.read(Path(folder))[0])]
    document = {
        "source": f"arms of {SEEDS} seeds trained from scratch in {', '.join(folders)}",
        "command": f"python -m benchmarks.spread {' '.join(folders)}",
        "unit": "sd and bound in points of top-1; the fit in bounds, the binomial standard error of one accuracy",
        "fit": asdict(spread.fit(ratios(found))),
    }
    lines = ",\n  ".join(json.dumps(arm) for arm in found)
    head = json.dumps(document, indent=1)[:-2]
    spread.FILE.write_text(f'{head},\n "arms": [\n  {lines}\n ]\n}}\n', "utf-8")
    print(f"{spread.FILE.name}: {len(found)} arms, {document['fit']}")


if __name__ == "__main__":
    main(sys.argv[1:])

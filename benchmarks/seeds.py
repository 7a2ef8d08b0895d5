"""Make `vitrepro/audit/seeds.npz` and the figure of docs/calibration.md: forty seeds each of four small arms.

    vitrepro verify 'seeds/*' --claims-dir docs/seeds --scale cpu --budget none --store STORE
    python -m benchmarks.seeds STORE

The first command takes about twenty minutes on two cores and goes on where it was stopped.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from vitrepro.arrays import Bools
from vitrepro.audit.calibration import FORTY, described
from vitrepro.errors import StoreError
from vitrepro.store import Store

SEEDS = 40
EXPERIMENTS = ("seeds-digits", "seeds-cifar10")
FIGURE = Path("docs/seeds/seeds.svg")


def collect(store: Store) -> dict[str, Bools]:
    """Which test images each seed of an arm got right, (40, n), ascending by seed and id.

    Raises:
        StoreError: an arm has not 40 finished runs.
    """
    runs: dict[str, dict[int, Bools]] = defaultdict(dict)
    for run_id in store.run_ids():
        record = store.record(run_id)
        if record is not None and record.experiment in EXPERIMENTS:
            name = f"{record.experiment.removeprefix('seeds-')} {record.arm}"
            runs[name][record.seed] = store.predictions(run_id, record).by_id().correct
    for name, of in runs.items():
        if sorted(of) != list(range(SEEDS)):
            raise StoreError(f"{store.root}: {name} has {len(of)} of {SEEDS} seeds; run the first command again")
    return {name: np.stack([of[s] for s in range(SEEDS)]) for name, of in sorted(runs.items())}


def draw(arms: dict[str, Bools], path: Path) -> None:
    """Each seed as a point, in bounds from the mean of its arm."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "vitrepro", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import pyplot

    figure, ax = pyplot.subplots(figsize=(6.4, 2.4), layout="constrained")
    rng = np.random.default_rng(0)
    for y, rows in enumerate(arms.values()):
        told = described(rows)
        x = (100 * rows.mean(1) - told["mean"]) / told["bound"]
        ax.plot(x, y + rng.uniform(-0.22, 0.22, len(x)), "o", markersize=3, color="#0072B2", alpha=0.7)
        ax.plot([-told["spread"], told["spread"]], [y, y], color="#D55E00", linewidth=2)
    ax.set_yticks(range(len(arms)), list(arms))
    ax.axvspan(-1, 1, color="#eeeeee", zorder=0)
    ax.set_xlabel("accuracy of a seed less the mean of its arm, in binomial bounds")
    figure.savefig(path, metadata={"Date": None})


def main(store: str) -> None:
    """Write both files and print the table."""
    arms = collect(Store(Path(store)))
    np.savez_compressed(FORTY, **{f"{name}|{rows.shape[1]}": np.packbits(rows, axis=1) for name, rows in arms.items()})
    draw(arms, FIGURE)
    for name, rows in arms.items():
        print(name, described(rows))


if __name__ == "__main__":
    main(sys.argv[1])

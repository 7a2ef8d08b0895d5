"""Whether stored runs can be held against each other at all, and what must be said of how they were computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from vitrepro.catalog import DATASETS
from vitrepro.judge.finding import Note, note
from vitrepro.record import AnalyticResult, Measured, TrainResult


def inconsistencies(measured: Sequence[Measured], paired: bool) -> Iterator[Note]:
    """Why the stored runs cannot be held against each other, if so.

    Args:
        paired: arms have the same seeds, and from one seed may end alike; see `computed_alike`.
    """
    images: set[tuple[str, str, bytes, bytes]] = set()
    data: set[str] = set()
    ends: dict[tuple[str, bytes], Measured] = {}
    seen: dict[str, Measured] = {}
    seeds: dict[str, list[int]] = defaultdict(list)
    for m in measured:
        seeds[m.arm].append(m.seed)
    if paired and any(len(set(s)) < len(s) or set(s) != set(seeds[measured[0].arm]) for s in seeds.values()):
        yield note("other_seeds", seeds=tuple((arm, tuple(sorted(s))) for arm, s in seeds.items()))
        return

    def one_run(earlier: Measured | None, m: Measured) -> bool:
        return earlier is not None and not (paired and earlier.seed == m.seed)

    for m in measured:
        assert m.record is not None
        result = m.record.result
        if one_run(seen.get(m.run_id), m):
            yield note("named_twice", run=name(m))
            return
        seen[m.run_id] = m
        if isinstance(result, AnalyticResult):
            continue
        fault = _fault(m, result)
        if fault:
            yield fault
            return
        assert m.predictions is not None
        p = m.predictions.by_id()
        data.add(result.data_sha256)
        images.add((result.test_sha256, result.ids_sha256, p.ids.tobytes(), p.labels.tobytes()))
        end = result.weights_sha256, p.predicted.tobytes()
        twin = ends.get(end)
        ends[end] = m
        if twin is not None and one_run(twin, m):
            yield note("one_run", first=name(twin), second=name(m))
            return
    if len(data) > 1:
        yield note("other_data")
    if len(images) > 1:
        yield note("other_images")


def _fault(m: Measured, result: TrainResult) -> Note | None:
    """What of one run's predictions does not fit its record, if anything."""
    if m.predictions is None:
        return note("no_predictions", run=name(m))
    assert m.record is not None
    if len(m.predictions.ids) != result.n or not m.predictions.distinct:
        return note("incomplete", run=name(m), stored=len(np.unique(m.predictions.ids)), n=result.n)
    p = m.predictions.by_id()
    highest = max(int(p.labels.max(initial=0)), int(p.predicted.max(initial=0)))
    expected = _classes(m.record.config.get("data"))
    if highest >= result.num_classes or expected not in (None, result.num_classes):
        return note("other_classes", run=name(m), stated=result.num_classes, highest=highest, expected=expected)
    right = int(p.correct.sum())
    return None if right == result.correct else note("other_count", run=name(m), stated=result.correct, right=right)


def name(m: Measured) -> str:
    return f"{m.arm} seed {m.seed} (run {m.run_id})"


def computed_alike(measured: Sequence[Measured]) -> Note | None:
    """What keeps arms that differ in how they are computed from deciding: from some seed two are computed alike.

    They ended with the same weights and the same answers, as one run that stands for both does, or their records tell
    the same arithmetic, choices and micro-batch. Their difference then says nothing of that between the arms.
    """
    for i, a in enumerate(measured):
        for b in measured[:i]:
            if a.seed == b.seed and (_ended_alike(a, b) or _computing(a) == _computing(b)):
                return note("computed_alike", first=b.arm, second=a.arm)
    return None


def _ended_alike(a: Measured, b: Measured) -> bool:
    first, second = (m.record.result if m.record else None for m in (a, b))
    if not isinstance(first, TrainResult) or not isinstance(second, TrainResult):
        return False
    assert a.predictions is not None
    assert b.predictions is not None
    same = np.array_equal(a.predictions.by_id().predicted, b.predictions.by_id().predicted)
    return first.weights_sha256 == second.weights_sha256 and same


def _computing(m: Measured) -> object:
    """How a run was computed, as its record tells; what tells nothing is like no other."""
    result = m.record.result if m.record else None
    if not isinstance(result, TrainResult) or not result.choices:
        return object()
    assert m.record is not None
    shared = result.processes > 1 and m.record.config.get("train", {}).get("batch_norm")  # else it changes nothing
    return result.precision, result.choices, result.micro_batch, result.processes, shared


def _classes(data: object) -> int | None:
    """Classes of a recipe's data, by the facts of the data set; None where nothing is known of it."""
    if not isinstance(data, dict):
        return None
    if data.get("classes"):
        return len(data["classes"])
    return next((d.num_classes for known, d in DATASETS.items() if known == data.get("name")), None)


def chosen_on_the_test_split(measured: Sequence[Measured]) -> Iterator[Note]:
    """What must be said of arms whose epoch was chosen by the very images that their accuracy is of."""
    configs = [(m.arm, m.record.config.get("train") or {}) for m in measured if m.record]
    arms = dict.fromkeys(arm for arm, train in configs if train.get("keep") == "best-on-test")
    if arms:
        yield note("chosen_on_test", arms=tuple(arms))

"""Whether stored runs can be held against each other at all, and what must be said of how they were computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

from vitrepro.catalog import DATASETS
from vitrepro.judge.finding import Note, note
from vitrepro.record import Measured, TrainResult


def inconsistencies(measured: Sequence[Measured], paired: bool) -> Iterator[Note]:
    """Why the stored runs cannot be held against each other, if so; the first reason counts.

    Args:
        paired: arms have the same seeds, and from one seed may end alike; see `computed_alike`.
    """
    seeds: dict[str, list[int]] = defaultdict(list)
    for m in measured:
        seeds[m.arm].append(m.seed)
    if paired and any(len(set(s)) < len(s) or set(s) != set(seeds[measured[0].arm]) for s in seeds.values()):
        yield note("other_seeds", seeds=tuple((arm, tuple(sorted(s))) for arm, s in seeds.items()))
    for _, again in _twins(measured, paired, [m.run_id for m in measured]):
        yield note("named_twice", run=name(again))
    data, images = set(), set()
    for m in measured:
        result = _trained(m)
        if result is not None:
            yield from _faults(m, result)
            data.add(result.data_sha256)
            images.add((result.test_sha256, result.ids_sha256, *_answers(m)[:2]))
    for first, second in _twins(measured, paired, [_end(m) for m in measured]):
        yield note("one_run", first=name(first), second=name(second))
    if len(data) > 1:
        yield note("other_data")
    if len(images) > 1:
        yield note("other_images")


def _twins(measured: Sequence[Measured], paired: bool, keys: Iterable[Hashable]) -> Iterator[tuple[Measured, Measured]]:
    """Runs that are one, for their key is; arms that are paired may share those of a seed."""
    seen: dict[Hashable, Measured] = {}
    for m, key in zip(measured, keys, strict=True):
        if key in seen and not (paired and seen[key].seed == m.seed):
            yield seen[key], m
        seen[key] = m


def _trained(m: Measured) -> TrainResult | None:
    return m.record.result if m.record and isinstance(m.record.result, TrainResult) else None


def _answers(m: Measured) -> tuple[bytes, bytes, bytes]:
    """Images, their labels and what was said of them."""
    assert m.predictions is not None
    p = m.predictions.by_id()
    return p.ids.tobytes(), p.labels.tobytes(), p.predicted.tobytes()


def _end(m: Measured) -> Hashable:
    """Weights and answers of a trained run; what was counted is like no other."""
    result = _trained(m)
    return object() if result is None else (result.weights_sha256, _answers(m))


def _faults(m: Measured, result: TrainResult) -> Iterator[Note]:
    """What of one run's predictions does not fit its record."""
    if m.predictions is None:
        yield note("no_predictions", run=name(m))
        return
    assert m.record is not None
    p = m.predictions.by_id()
    if len(p.ids) != result.n or not p.distinct:
        yield note("incomplete", run=name(m), stored=len(np.unique(p.ids)), n=result.n)
    highest = max(int(p.labels.max(initial=0)), int(p.predicted.max(initial=0)))
    expected = _classes(m.record.config.get("data"))
    if highest >= result.num_classes or expected not in (None, result.num_classes):
        yield note("other_classes", run=name(m), stated=result.num_classes, highest=highest, expected=expected)
    right = int(p.correct.sum())
    if right != result.correct:
        yield note("other_count", run=name(m), stated=result.correct, right=right)


def name(m: Measured) -> str:
    return f"{m.arm} seed {m.seed} (run {m.run_id})"


def computed_alike(measured: Sequence[Measured]) -> Note | None:
    """What keeps arms that differ in how they are computed from deciding: from some seed two are computed alike.

    They ended with the same weights and the same answers, as one run that stands for both does, or their records tell
    the same arithmetic, choices and micro-batch. Their difference then says nothing of that between the arms.
    """
    for i, a in enumerate(measured):
        for b in measured[:i]:
            if a.seed == b.seed and (_end(a) == _end(b) or _computing(a) == _computing(b)):
                return note("computed_alike", first=b.arm, second=a.arm)
    return None


def _computing(m: Measured) -> object:
    """How a run was computed, as its record tells; what tells nothing is like no other."""
    result = _trained(m)
    if result is None or not result.choices:
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

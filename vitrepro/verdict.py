"""Decide a claim: a pure function of the claim and of what its runs measured.

An outcome is one of seven and never merged with its qualifiers: which fidelity, how many seeds, what
deviates. Rules and their reasons: docs/verdicts.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vitrepro import stats
from vitrepro.arrays import Bools
from vitrepro.catalog import DATASETS
from vitrepro.claims import arms_of
from vitrepro.formula import Span
from vitrepro.literal import Checked
from vitrepro.record import AnalyticResult, Deviation, Measured, TrainResult
from vitrepro.rules import ALPHA, Arm, Finding, Outcome, combine, findings, number_text, tightest
from vitrepro.spec import Claim, EquivalenceExpect, Expect, LiteralExpect, OrderingExpect, ValueExpect

AGAINST = (Outcome.FAIL, Outcome.EXCEEDS)

__all__ = ["Arm", "Finding", "Outcome", "Verdict", "combine", "infeasible", "judge", "judge_literal", "tightest"]


@dataclass(frozen=True)
class Verdict:
    """Outcome of one claim at one scale; qualifiers stand beside it and are never dropped."""

    claim_id: str
    outcome: Outcome
    scale: str | None
    fidelity: str | None
    reason: str
    qualifiers: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    seeds: int | None = None
    n: int | None = None
    run_ids: tuple[str, ...] = field(default=())

    @property
    def p(self) -> float | None:
        """p-value of PASS: all findings must hold, so the largest. None where nothing is random."""
        ps = [f.p for f in self.findings if f.p is not None]
        if ps and any(f.p is None and f.outcome is not Outcome.PASS for f in self.findings):
            return 1.0
        return max(ps, default=None)

    @property
    def p_against(self) -> float | None:
        """p-value of FAIL or EXCEEDS: of all comparisons holding together (Simes). None where nothing is random."""
        return _refuting(self.findings)

    @property
    def support(self) -> str:
        """What the outcome says of the paper, no more: only an exact protocol reproduces or contradicts it."""
        if not self.outcome.decided:
            return "undecided"
        if self.fidelity == "literal":  # nothing was measured
            agrees = "agrees with" if self.outcome is Outcome.PASS else "disagrees with"
            return f"the statement {agrees} the source's own numbers"
        if self.fidelity == "elsewhere":
            agrees = "agree" if self.outcome is Outcome.PASS else "disagree"
            return f"numbers from elsewhere {agrees}, not run by vitrepro"
        if self.fidelity == "exact":
            return "reproduced" if self.outcome is Outcome.PASS else "contradicted"
        return f"{'supports' if self.outcome is Outcome.PASS else 'speaks against'} ({self.fidelity})"


def infeasible(claim: Claim, why: str) -> Verdict:
    """A claim that cannot be checked here."""
    return Verdict(claim.id, Outcome.INFEASIBLE, None, None, why)


def judge(
    claim: Claim,
    scale_name: str,
    measured: Sequence[Measured],
    *,
    registered_seeds: int,
    deviations: Sequence[Deviation] = (),
    moved: float = 0.0,
) -> Verdict:
    """The verdict on a claim from its planned runs.

    Args:
        scale_name: the key of `claim.scales` that was checked.
        measured: every planned run, whether it has finished or not.
        registered_seeds: how many the experiment file names.
        deviations: settings changed by hand, as the runs list them.
        moved: see `rules.findings`.

    Returns:
        ERROR if a run failed, was incomplete, saw other images than the rest, is another run over again or has no
        partner of its seed where arms are paired;
        NOT_RUN if one is missing; else what the kind of claim decides, capped where the runs deviate.
    """
    entry = claim.scales.entries()[scale_name]
    assert entry.expect is not None

    def undecided(outcome: Outcome, reason: str) -> Verdict:
        return Verdict(claim.id, outcome, scale_name, entry.fidelity, reason, run_ids=tuple(m.run_id for m in measured))

    failed = [f"{m.arm} seed {m.seed}: {m.error}" for m in measured if m.error]
    if failed:
        return undecided(Outcome.ERROR, f"{len(failed)} of {len(measured)} runs failed; {failed[0]}")
    missing = [m for m in measured if m.record is None]
    unplanned = {arm for _, arm in arms_of(entry.expect)} - {m.arm for m in measured}
    if missing or unplanned:
        none = f"; none was planned of {', '.join(sorted(unplanned))}" if unplanned else ""
        return undecided(Outcome.NOT_RUN, f"{len(measured) - len(missing)} of {len(measured)} runs are stored{none}")
    paired = isinstance(entry.expect, EquivalenceExpect) and entry.expect.paired_by_seed
    broken = next(_inconsistencies(measured, paired), None)
    if broken:
        return undecided(Outcome.ERROR, broken)

    arms = _by_arm(measured, paired)
    lacking = [f"{m} of {arm}" for arm, m in _measures(entry.expect) if len(arms[arm].measures[m]) < arms[arm].runs]
    if lacking:
        again = "verify it again, with --fresh if their recipe is the same"
        return undecided(Outcome.NOT_RUN, f"the stored runs did not measure {', '.join(lacking)}; {again}")
    caps: list[tuple[str, str]] = []
    trained = [m.record.result for m in measured if m.record and isinstance(m.record.result, TrainResult)]
    if trained:
        planned = min(Counter(m.arm for m in measured).values())
        partial = next((r for r in trained if r.n < r.complete_n), None)
        if planned < registered_seeds:  # or one could stop at the seeds that please
            caps.append(("", "fewer seeds than registered decide nothing"))
        if partial:
            caps.append(
                (f"partial test set: {partial.n} of {partial.complete_n}", "part of the test set decides nothing")
            )
    alike = _computed_alike(measured) if paired else None
    if alike:
        caps.append(alike)
    if deviations:
        by_hand = "deviates: " + "; ".join(str(d) for d in deviations)
        caps.append((by_hand, "the recipe was changed by hand"))
    return weigh(
        claim,
        entry.expect,
        arms,
        scale=scale_name,
        fidelity=entry.fidelity,
        registered_seeds=registered_seeds,
        caps=caps,
        beside=tuple(_chosen_on_the_test_split(measured)),
        moved=moved,
        run_ids=tuple(m.run_id for m in measured),
    )


def _chosen_on_the_test_split(measured: Sequence[Measured]) -> Iterator[str]:
    """What must be said of arms whose epoch was chosen by the very images that their accuracy is of."""
    configs = [(m.arm, m.record.config.get("train") or {}) for m in measured if m.record]
    arms = dict.fromkeys(arm for arm, train in configs if train.get("keep") == "best-on-test")
    if arms:
        yield f"epoch chosen on the test split that is reported: {', '.join(arms)}"


def weigh(
    claim: Claim,
    expect: Expect,
    arms: Mapping[str, Arm],
    *,
    scale: str | None,
    fidelity: str | None,
    registered_seeds: int,
    caps: Sequence[tuple[str, str]] = (),
    beside: Sequence[str] = (),
    moved: float = 0.0,
    run_ids: tuple[str, ...] = (),
) -> Verdict:
    """The verdict that arms give, wherever their numbers come from.

    Args:
        registered_seeds: how many were to be made of each arm.
        caps: qualifier (or none) and reason of everything that keeps these numbers from deciding, whatever they are.
        beside: qualifiers that keep nothing from deciding.
        moved: see `rules.findings`.
    """
    found = tuple(findings(expect, claim.reported.cells if claim.reported else {}, arms, moved=moved))
    outcome, reason = _together(found)
    trained = [a for a in arms.values() if a.accuracies]
    seeds = min((a.seeds for a in trained), default=None)
    qualifiers = list(beside)
    if seeds is not None:
        if seeds < max(registered_seeds, 3) and any(f.form != "count" for f in found):
            less = f" of {registered_seeds}" if seeds < registered_seeds else ""
            qualifiers.append(f"{seeds}{less} seed{'s' if seeds > 1 or less else ''}")
        if 1 < registered_seeds < seeds:  # or one could go on until it passes, unseen
            qualifiers.append(f"{seeds} seeds, {registered_seeds} registered")
        same = [name for name, a in arms.items() if a.seeds < a.runs]
        if same:
            qualifiers.append(f"seeds that agree on every image count once: {', '.join(same)}")
        guessing = [name for name, a in arms.items() if a.accuracies and not a.learned]
        if guessing:
            qualifiers.append(f"not above chance: {', '.join(guessing)}")
    for qualifier, why in caps:
        qualifiers += [qualifier] if qualifier else []
        outcome, reason = _cap(outcome, reason, why)
    n = trained[0].n if trained else None
    return Verdict(claim.id, outcome, scale, fidelity, reason, tuple(qualifiers), found, seeds, n, run_ids)


def _refuting(found: Sequence[Finding]) -> float | None:
    """p-value of all comparisons holding together; what a rule keeps from deciding speaks against nothing."""
    random = [f for f in found if f.p_against is not None]
    if not random:
        return None
    if any(f.p_against is None and f.outcome in AGAINST for f in found):  # counted, so certain
        return 0.0
    ps = [f.p_against or 0.0 for f in random]
    kept = [f.outcome not in AGAINST and p < ALPHA for f, p in zip(random, ps, strict=True)]
    return stats.simes([1.0 if k else p for k, p in zip(kept, ps, strict=True)])


def _together(found: Sequence[Finding]) -> tuple[Outcome, str]:
    """Outcome and reason of all comparisons: all must hold; one that fails alone need not stand among many tries."""
    p = _refuting(found)
    alone = [f for f in found if f.outcome in AGAINST]
    if not alone or p is None or p < ALPHA:
        outcome = combine(f.outcome for f in found)
        return outcome, _first_reason(found, outcome)
    first = tightest(alone)
    would = "would be " + " or ".join(dict.fromkeys(f.outcome.value for f in alone))
    return Outcome.INCONCLUSIVE, (
        f"{len(alone)} of {len(found)} comparisons {would} alone, but among so many that decides nothing "
        f"(p = {p:.2g} for all of them together): {first.because}"
    )


def holm(verdicts: Sequence[Verdict]) -> list[tuple[float | None, float | None]]:
    """p-values of PASS and of FAIL or EXCEEDS, adjusted for the number of claims (Holm), in the order given.

    Every verdict in which something is random counts; one that a rule keeps from deciding counts as not significant,
    and has none of its own.
    """

    def adjusted(ps: Sequence[float | None], decides: Sequence[bool]) -> list[float | None]:
        family = [i for i, p in enumerate(ps) if p is not None]
        own = [p if p is not None and (decides[i] or p >= ALPHA) else 1.0 for i, p in enumerate(ps)]
        values = dict(zip(family, stats.holm([own[i] for i in family]), strict=True))
        return [values[i] if i in values and own[i] == ps[i] else None for i in range(len(ps))]

    passed = [v.outcome is Outcome.PASS for v in verdicts]
    against = [v.outcome in AGAINST for v in verdicts]
    return list(
        zip(
            adjusted([v.p for v in verdicts], passed),
            adjusted([v.p_against for v in verdicts], against),
            strict=True,
        )
    )


def judge_literal(claim: Claim, checked: Sequence[Checked]) -> Verdict:
    """Whether a statement agrees with the numbers its source prints: PASS, FAIL or EXCEEDS; INCONCLUSIVE where only
    digits that were rounded away could tell. It says nothing of whether the numbers can be had again."""
    entry = claim.scales.literal
    assert entry is not None
    assert isinstance(entry.expect, LiteralExpect)
    findings = []
    for name, check in entry.expect.checks.items():
        cases = [c for c in checked if c.check == name]
        found = [_literal(c, Outcome(check.otherwise)) for c in cases]
        findings += [_most(name, cases, found, Outcome(check.otherwise))] if check.holds == "most" else found
    outcome = combine(f.outcome for f in findings)
    if outcome is Outcome.PASS:
        reason = _first_reason(findings, outcome)
    else:
        against = sorted((f for f in findings if f.outcome is not Outcome.PASS), key=lambda f: f.outcome is not outcome)
        reason = f"{len(against)} of {len(findings)} do not hold: " + "; ".join(f.because for f in against)
    return Verdict(
        claim.id,
        outcome,
        "literal",
        entry.fidelity,
        reason,
        ("the source's own numbers, nothing measured",),
        tuple(findings),
    )


def _literal(case: Checked, otherwise: Outcome) -> Finding:
    c = case.comparison
    outcome = {True: Outcome.PASS, False: otherwise, None: Outcome.INCONCLUSIVE}[c.holds]
    label = "-".join(part for part in (case.check, case.case) if part)
    cells = ", ".join(f"{address.lstrip('@')} {cell.value:g}" for address, cell in case.cells.items())
    shown = {True: "holds", False: "does not hold", None: "is hidden by the rounding of the printed digits"}[c.holds]
    left, right = _span_text(c.left), _span_text(c.right)
    because = f"{label}: {left} {c.relation} {right} {shown}" + (f" ({cells})" if 0 < len(case.cells) <= 6 else "")
    opened = [not np.isfinite(x.value) for x in (c.left, c.right)]
    measured, reported = (x.low if o else x.value for x, o in zip((c.left, c.right), opened, strict=True))
    left_open, right_open = opened
    return Finding(
        label,
        outcome,
        measured,
        None,
        reported,
        0.0,
        because,
        "",
        c.slack,
        "literal",
        c.relation,
        left_open,
        right_open,
    )


def _span_text(span: Span) -> str:
    """A value as far as the printed digits carry it."""
    if not np.isfinite(span.value):
        return f"more than {span.low:.4g}"
    return number_text(span.value)


def _most(name: str, cases: Sequence[Checked], found: Sequence[Finding], otherwise: Outcome) -> Finding:
    """More than half of the comparisons hold, whatever the rounding hides."""
    holding = sum(c.comparison.holds is True for c in cases)
    open_ = sum(c.comparison.holds is None for c in cases)
    half = len(cases) / 2
    outcome = Outcome.PASS if holding > half else otherwise if holding + open_ <= half else Outcome.INCONCLUSIVE
    against = "; ".join(f.because for f in found if f.outcome is not Outcome.PASS)
    because = f"{name}: {holding} of {len(cases)} hold" + (f"; not: {against}" if against else "")
    return Finding(name, outcome, holding, None, half, 0.0, because, "", abs(holding - half), "literal", ">")


def _measures(expect: Expect) -> tuple[tuple[str, str], ...]:
    return expect.measures if isinstance(expect, OrderingExpect | ValueExpect) else ()


def _cap(outcome: Outcome, reason: str, why: str) -> tuple[Outcome, str]:
    if not outcome.decided:
        return outcome, reason
    return Outcome.INCONCLUSIVE, f"{why}; it would have been {outcome.value}: {reason}"


def _inconsistencies(measured: Sequence[Measured], paired: bool) -> Iterator[str]:
    """Why the stored runs cannot be held against each other, if so.

    Args:
        paired: arms have the same seeds, and from one seed may end alike; see `_computed_alike`.
    """
    images: set[tuple[str, str, bytes, bytes]] = set()
    data: set[str] = set()
    answers: dict[tuple[str, bytes], Measured] = {}
    seen: dict[str, Measured] = {}
    seeds: dict[str, list[int]] = defaultdict(list)
    for m in measured:
        seeds[m.arm].append(m.seed)
    if paired and any(len(set(s)) < len(s) or set(s) != set(seeds[measured[0].arm]) for s in seeds.values()):
        shown = "; ".join(f"{arm} {', '.join(map(str, sorted(s)))}" for arm, s in seeds.items())
        yield f"the arms are compared seed by seed, and have other seeds: {shown}"
        return

    def one_run(earlier: Measured | None, m: Measured) -> bool:
        return earlier is not None and not (paired and earlier.seed == m.seed)

    for m in measured:
        assert m.record is not None
        result = m.record.result
        name = _name(m)
        if one_run(seen.get(m.run_id), m):
            yield f"{name} is named twice, one run is no second seed"
            return
        seen[m.run_id] = m
        if isinstance(result, AnalyticResult):
            continue
        if m.predictions is None:
            yield f"{name}: its predictions are missing"
            return
        ids = m.predictions.ids
        if len(ids) != result.n or not m.predictions.distinct:
            yield f"{name}: incomplete evaluation, {len(np.unique(ids))} different images stored of {result.n}"
            return
        p = m.predictions.by_id()
        classes = max(int(p.labels.max(initial=0)), int(p.predicted.max(initial=0))) + 1
        expected = _classes(m.record.config.get("data"))
        if classes > result.num_classes or expected not in (None, result.num_classes):
            stated = f"the record says {result.num_classes} classes"
            yield f"{name}: {stated}, " + (
                f"its predictions have class {classes - 1}"
                if classes > result.num_classes
                else f"its data has {expected}"
            )
            return
        right = int(p.correct.sum())
        if right != result.correct:
            yield f"{name}: the record counts {result.correct} correct, its predictions {right}"
            return
        data.add(result.data_sha256)
        images.add((result.test_sha256, result.ids_sha256, p.ids.tobytes(), p.labels.tobytes()))
        end = result.weights_sha256, p.predicted.tobytes()
        twin = answers.get(end)
        answers[end] = m
        if twin is not None and one_run(twin, m):
            yield f"{_name(twin)} and {name} ended with the same weights: they are one run, not two"
            return
    if len(data) > 1:
        yield "the runs saw different data under one name; run them again with --fresh on the same data"
    if len(images) > 1:
        yield "the runs were evaluated on different images; run them again with --fresh on the same data"


def _name(m: Measured) -> str:
    return f"{m.arm} seed {m.seed} (run {m.run_id})"


def _computed_alike(measured: Sequence[Measured]) -> tuple[str, str] | None:
    """What keeps arms that differ in how they are computed from deciding: from some seed two are computed alike.

    They ended with the same weights and the same answers, as one run that stands for both does, or their records tell
    the same arithmetic, choices and micro-batch. Their difference then says nothing of that between the arms.
    """
    for i, a in enumerate(measured):
        for b in measured[:i]:
            if a.seed == b.seed and (_ended_alike(a, b) or _computing(a) == _computing(b)):
                why = f"{b.arm} and {a.arm} were computed alike, which shows nothing of another way to compute"
                return f"computed alike: {b.arm}, {a.arm}", why
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


def _by_arm(measured: Sequence[Measured], paired: bool) -> dict[str, Arm]:
    """The arms, each with its seeds; where they are paired, row by row with the same ones."""
    groups: dict[str, list[Measured]] = defaultdict(list)
    of_seed: dict[int, bytes] = defaultdict(bytes)  # all that was right from a seed, in every arm
    for m in sorted(measured, key=lambda m: m.seed) if paired else measured:
        groups[m.arm].append(m)
        if paired and m.predictions is not None:
            of_seed[m.seed] += m.predictions.by_id().correct.tobytes()
    arms = {}
    for name, members in groups.items():
        rows: dict[bytes, Bools] = {}
        measures: defaultdict[str, list[float]] = defaultdict(list)
        num_classes, commonest, dev_n = 2, 0, 0
        quantities: Mapping[str, float] = {}
        for m in members:
            assert m.record is not None
            if isinstance(m.record.result, AnalyticResult):
                quantities = m.record.result.quantities
            elif m.predictions is not None:
                row = m.predictions.by_id().correct
                rows[of_seed[m.seed] if paired else row.tobytes()] = row
                num_classes, dev_n = m.record.result.num_classes, m.record.result.dev_n or 0
                for measure, value in m.record.result.every_measure.items():
                    measures[measure].append(value)
                commonest = commonest or int(np.bincount(m.predictions.labels).max())
        if rows:
            made = Arm.of(np.stack(list(rows.values())), len(members), num_classes=num_classes, commonest=commonest)
            arms[name] = replace(made, measures=measures, dev_n=dev_n)
        else:
            arms[name] = Arm(runs=len(members), quantities=quantities)
    return arms


def _first_reason(findings: Sequence[Finding], outcome: Outcome) -> str:
    """The sentence of the finding that decided: the least certain of those that agree with the outcome."""
    same = [f for f in findings if f.outcome is outcome]
    more = len(findings) - 1
    tail = f" ({len(same)} of {len(findings)} comparisons)" if more else ""
    return tightest(same).because + tail

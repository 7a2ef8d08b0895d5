"""Every word about a finding or a verdict: judging gives numbers and named reasons, this module says them.

A named reason is a template in `SENTENCES`, filled with its numbers; what needs a choice of words has a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitrepro.judge.finding import AGAINST, FAIL, INCONCLUSIVE, PASS, Finding, Note, Outcome, tightest
from vitrepro.judge.stats import Interval
from vitrepro.judge.verdict import Verdict
from vitrepro.metrics import counted_on
from vitrepro.report.text import outcome
from vitrepro.spec import Claim

METHODS = {
    "seeds": "t over seeds",
    "least": "t over seeds, spread raised to the least of stored arms",
    "stored": "spread of stored arms",
    "bound": "binomial bound",
    "own": "t over seeds, no least deviation",
    "images": "images, these trained models",
    "paired": "seeds and images, paired by seed",
    "seeds-and-images": "seeds and images",
    "unpaired": "unpaired, images or seeds",
    "runs": "exact, Clopper-Pearson over runs",
    "wilson": "Wilson, test images",
    "exact": "Clopper-Pearson, test images",
}


_SO_OURS = {"fits": "it fits", "does not fit": "it does not fit", "open": "it stays open"}


def origin(claim: Claim) -> str:
    """Source and place; of what is ours, what it is about."""
    place = f"{claim.source.paper}, {claim.source.where}"
    return f"our question, about {place}" if claim.ours else place


def number_text(value: float) -> str:
    """Six digits, and all of a count of millions: what is counted exactly is shown exactly."""
    return f"{value:,.0f}" if 1e6 <= abs(value) < 1e15 and float(value).is_integer() else f"{value:.6g}"


def plural(count: int, what: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def p_text(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def level_text(level: float) -> str:
    """A level as a percentage; that of a late look is not rounded to 0 or 100%."""
    return f"{100 * level:.6g}%"


# --- named reasons ------------------------------------------------------------------------------


def _seeds(v: Mapping[str, Any]) -> str:
    seeds, registered = v["seeds"], v["registered"]
    return f"{seeds} of {registered} seeds" if seeds < registered else plural(seeds, "seed")


def _few(v: Mapping[str, Any]) -> str:
    if not v["counted"]:
        return f"{v['metric']} has no counts, so it needs three seeds"
    kind = {"scratch": " from scratch", "paired": " an arm, paired by seed,"}.get(v["regime"], "")
    return f"{plural(v['seeds'], 'seed')}{kind} can refute and not confirm; three can"


def _failed(v: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{f'seed {seed}: ' if seed is not None else ''}{a:.2f}%" for seed, a in v["which"])
    return (
        f"{v['failed']} of {v['runs']} runs of {v['arm']} failed ({shown}), and a verdict is about training that works"
    )


def _classes(v: Mapping[str, Any]) -> str:
    found = (
        f"its predictions have class {v['highest']}" if v["highest"] >= v["stated"] else f"its data has {v['expected']}"
    )
    return f"{v['run']}: the record says {v['stated']} classes, {found}"


def _missing(v: Mapping[str, Any]) -> str:
    none = f"; none was planned of {', '.join(v['unplanned'])}" if v["unplanned"] else ""
    return f"{v['stored']} of {v['runs']} runs are stored{none}"


def _looks(v: Mapping[str, Any]) -> str:
    before = ", ".join(v["outcomes"])
    return f"look {len(v['outcomes']) + 1} at this claim, judged before: {before}; level {level_text(v['level'])}"


def _numbers(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


SENTENCES: dict[str, str | Callable[[Mapping[str, Any]], str]] = {
    # what keeps a comparison from deciding
    "no_power": lambda v: f"a PASS was out of reach ({100 * v['power']:.0f}% power)",
    "either_side": lambda v: f"one so wide lies outside on either side in {100 * v['p']:.1f}% of repetitions",
    "at_chance": "{arm} is not above chance",
    "few_seeds": _few,
    "failed_runs": _failed,
    "wide_shortfall": "{by:g} points are not below half of what the other arm has over chance, {over_chance:.2f}",
    "wide_margin": "the margin is not below half the distance to chance, {chance:.2f}",
    "no_errors": "a model without a single error would be as equal",
    "one_model": "they are right on exactly the same images, as if one model were tested twice",
    "no_room": lambda v: (
        f"{v['arm']} has {v['left']:.2f} points left to 100%: even without an error it could not have "
        + ("made this fail" if v["outcome"] == "FAIL" else "passed")
    ),
    "one_pair": "one seed does not tell how far apart the runs of a seed lie",
    "piled": "{at} of {of} seeds have {limit:g}, the {word} there is, and not all lie on one side",
    # what keeps a claim's runs from deciding
    "fewer_than_registered": "fewer seeds than registered decide nothing",
    "partial_test_set": "part of the test set decides nothing ({n} of {of} images)",
    "computed_alike": "{first} and {second} were computed alike, which shows nothing of another way to compute",
    "deviates": lambda v: f"the recipe was changed by hand ({'; '.join(v['deviations'])})",
    "earlier_recipe": "the experiment file has changed since",
    "margin_by_hand": "a margin chosen beside the result decides nothing",
    "same_answers": "one model under the names of two arms decides nothing ({first} and {second})",
    # why stored runs cannot be judged
    "runs_failed": "{failed} of {runs} runs failed; {first}",
    "runs_missing": _missing,
    "not_measured": lambda v: (
        f"the stored runs did not measure {', '.join(f'{m} of {a}' for m, a in v['lacking'])}; "
        "verify it again, with --fresh if their recipe is the same"
    ),
    "other_seeds": lambda v: (
        "the arms are compared seed by seed, and have other seeds: "
        + "; ".join(f"{arm} {_numbers(s)}" for arm, s in v["seeds"])
    ),
    "named_twice": "{run} is named twice, one run is no second seed",
    "one_run": "{first} and {second} ended with the same weights: they are one run, not two",
    "no_predictions": "{run}: its predictions are missing",
    "incomplete": "{run}: incomplete evaluation, {stored} different images stored of {n}",
    "other_classes": _classes,
    "other_count": "{run}: the record counts {stated} correct, its predictions {right}",
    "other_data": "the runs saw different data under one name; run them again with --fresh on the same data",
    "other_images": "the runs were evaluated on different images; run them again with --fresh on the same data",
    "condition": lambda v: (
        f"the test tells something only if {v['label']} holds; {because(v['finding']).removesuffix('.')}"
    ),
    "told": "{text}",
    # what the outcome says of the paper
    "undecided": "undecided",
    "literal_support": lambda v: f"the statement {'agrees' if v['passed'] else 'disagrees'} with the printed numbers",
    "elsewhere_support": lambda v: (
        f"numbers from elsewhere {'agree' if v['passed'] else 'disagree'}, not run by vitrepro"
    ),
    "exact_support": lambda v: "reproduced" if v["passed"] else "contradicted",
    "ours_support": lambda v: (
        f"{'supports' if v['passed'] else 'speaks against'} what we ask ({v['fidelity']}), no verdict on the source"
    ),
    "other_support": lambda v: f"{'supports' if v['passed'] else 'speaks against'} ({v['fidelity']})",
}

QUALIFIERS: dict[str, str | Callable[[Mapping[str, Any]], str]] = {
    "looks": _looks,
    "seeds_changed": lambda v: f"seeds {_numbers(v['now'])}, first judged with {_numbers(v['first'])}",
    "precision_changed": lambda v: f"judged before in {_numbers(v['seen'])}",
    "claim_changed": "the claim read otherwise when it was judged before",
    "made_anew": "the same runs were made anew and came out otherwise",
    "unused_runs": lambda v: (
        f"{plural(len(v['seeds']), 'stored run')} of the recipe not used (seeds {_numbers(v['seeds'])})"
    ),
    "other_precisions": lambda v: f"runs in {_numbers(v['precisions'])} are stored and not used",
    "log_damaged": lambda v: f"the log of judgings is damaged: {'; '.join(v['faults'])}",
    "log_shortened": "the log of judgings is missing or shortened: {has} looks of {had}",
    "seeds": _seeds,
    "more_seeds": "{seeds} seeds, {registered} registered",
    "failed_some": lambda v: "; ".join(
        f"{k} of {n} runs failed: {arm}" for arm, (k, n) in zip(v["arms"], v["counts"], strict=True)
    ),
    "merged_seeds": lambda v: f"seeds that agree on every image count once: {', '.join(v['arms'])}",
    "not_above_chance": lambda v: f"not above chance: {', '.join(v['arms'])}",
    "chosen_on_test": lambda v: f"epoch chosen on the test split that is reported: {', '.join(v['arms'])}",
    "fewer_than_registered": "",
    "partial_test_set": "partial test set: {n} of {of}",
    "computed_alike": "computed alike: {first}, {second}",
    "condition": "condition not met: {label}",
    "deviates": lambda v: f"deviates: {'; '.join(v['deviations'])}",
    "earlier_recipe": "runs of an earlier recipe",
    "margin_by_hand": "margin given by hand",
    "same_answers": "the same answers: {first} and {second}",
    "own_numbers": "printed numbers, nothing measured",
    "not_run_here": "not run by vitrepro",
    "numbers_of": "numbers of {source}",
    "some_cells": "{judged} of {of} cells",
    "taken_same_weights": lambda v: f"taken to be the same weights: {', '.join(v['cells'])}",
    "margin_apart": lambda v: f"margin registered apart from the scale: {', '.join(v['cells'])}",
    "regime": lambda v: (
        "taken to be " + ("trained from scratch" if v["regime"] == "scratch" else "fine-tuned from released weights")
    ),
    "no_pairs": "unpaired, from accuracies alone",
    "no_labels": "paired by ids alone, without labels",
    "no_seed_pairs": "not paired by seed, which nothing here tells",
    "no_count": "{name}: {value:g} is no count of {n:,} images (a mean over batches or runs?)",
    "runs_unstated": "number of runs not stated, counted as one",
    "no_deviation": "{name}: a mean of {runs} runs without a deviation, counted as one",
}


def say(reason: Note, table: Mapping[str, str | Callable[[Mapping[str, Any]], str]] = SENTENCES) -> str:
    """The sentence of a named reason."""
    made, values = table[reason.name], dict(reason.values)
    return made.format_map(values) if isinstance(made, str) else made(values)


def qualifiers(verdict: Verdict) -> tuple[str, ...]:
    """What stands beside the outcome."""
    said = (say(q, QUALIFIERS) for q in verdict.qualifiers)
    return tuple(dict.fromkeys(text for text in said if text))


def support(verdict: Verdict) -> str:
    """What the outcome says of the paper."""
    return say(verdict.support)


# --- a finding ----------------------------------------------------------------------------------


def because(f: Finding, ours: bool = False) -> str:
    """A decision in two sentences: what was measured, and the interval with what it comes to."""
    return f"{measures(f)} {decides(f, ours)}".strip()


def digits(f: Finding) -> int:
    """Digits after the point that show a tenth of a margin, and two at least."""
    if f.form == "measure" and f.reported is None:
        return 3
    return max(2, 1 - math.floor(math.log10(f.bound))) if f.form == "measure" and f.bound else 2


def measures(f: Finding) -> str:
    """What was measured, over how many seeds and images."""
    seeds = plural(f.seeds, "seed")
    if f.form == "literal":
        return _literal(f)
    if f.form == "exact":
        relation = {"equal": "", "at_least": "at least ", "at_most": "at most "}[f.relation]
        whose = "expected" if any(n.name == "expected" for n in f.notes) else "reported"
        return f"{f.label}: counted {number_text(f.measured)}, {whose} {relation}{number_text(f.reported or 0.0)}."
    if f.form == "count":
        images = f"{f.measured * f.n / 100:.0f} of {f.n:,} images"
        return f"{f.label}: ours {f.measured:.2f} ({images}), reported {f.reported:g}."
    if f.form == "share":
        return f"{f.label}: {f.measured:.1f}% of {plural(f.seeds, 'run')} failed."
    if f.reported is not None:
        return f"{f.label}: {_of_seeds(f, seeds)} lies {_apart(f)} the reported {_reported(f)}."
    if f.form == "measure":
        return f"{f.label}: {f.measured:+.3f} over {seeds}{' an arm' if ' - ' in f.label else ''}."
    how = "paired by seed" if f.paired else "an arm"
    return f"{f.label}: {f.measured:+.2f} points over {f.n:,} test images and {seeds}{', ' if f.paired else ' '}{how}."


def _of_seeds(f: Finding, seeds: str) -> str:
    form, what = (".2f", "ours ") if f.form == "value" else (".5g", f"{f.metric} ")
    i = f.shown
    shown = f"{i.low:{form}} to {i.high:{form}}, " if i is not None else ""
    return f"{what}{f.measured:{form}} ({shown}{seeds})"


def _apart(f: Finding) -> str:
    """How far ours lies from the reported number, in words that go before it."""
    off = f.measured - (f.reported or 0.0)
    shown = f"{abs(off):.2f}" if f.form == "value" else f"{abs(off):.5g}"
    return "on" if float(shown) == 0 else f"{shown} {'below' if off < 0 else 'above'}"


def _reported(f: Finding) -> str:
    """A printed number with its own spread and runs, as far as they are told."""
    told = dict(next((n.values for n in f.notes if n.name == "reported"), ()))
    spread = f" ± {told['sd']:g}" if told.get("sd") is not None else ""
    runs = f" ({plural(told['runs'], 'run')})" if told.get("runs") else ""
    return f"{f.reported:g}{spread}{runs}"


def decides(f: Finding, ours: bool = False) -> str:
    """The interval that decides and what it comes to; why it does not, where something keeps it from deciding."""
    if f.form == "literal":
        return ""
    if f.deciding is None and f.form not in ("exact", "count"):
        lacking = "One seed has no interval" if f.seeds < 2 else "Seeds that all agree have no interval"
        return f"{lacking}, so {_so(INCONCLUSIVE, ours)}."
    text, block = _where(f), f.block
    if block is None:
        return f"{text}, so {_so(f.outcome, ours)}.{_could_not_confirm(f)}"
    instead = "" if ours else f" instead of {f.would_be.value}"
    return f"{text}, but {say(block)}, so {_so(INCONCLUSIVE, ours)}{instead}."


def _so(found: Outcome, ours: bool) -> str:
    word = outcome(found, ours)
    return _SO_OURS.get(word, word)


def _could_not_confirm(f: Finding) -> str:
    return " Such runs could not have confirmed it." if f.outcome in AGAINST and not f.could(PASS) else ""


def _where(f: Finding) -> str:
    at = f.would_be
    if f.form == "exact":
        off = f.estimate.centre
        shown = f"{off:+,.0f}" if abs(off) >= 1000 else f"{off:+.3g}"
        return f"The difference of {shown} is {'within' if at is PASS else 'outside'} the tolerance of {f.bound:.3g}"
    if f.form == "count":
        per_image = 100 / f.n
        room = f"the tolerance of {max(f.bound / per_image, 1.0):.4g} images"
        where = {PASS: "within", INCONCLUSIVE: "at the edge of", FAIL: "below"}.get(at, "above")
        digits_hide = ", as far as the digits go," if f.estimate.hidden else ""
        off = (f.measured - (f.reported or 0.0)) / per_image
        verb = "is" if at is PASS else "are"
        return f"The same weights, so nothing is random: {off:+.1f} images{digits_hide} {verb} {where} {room}"
    i = f.deciding
    assert i is not None
    of = " of the difference" if f.reported is not None else ""
    places = digits(f)
    # a bound covers more than its level where training is steadier than coin tosses
    more = f", so at least {level_text(i.level)}" if i.bound and i.method != "stored" else ""
    ends = f"{i.low:+.{places}f} to {i.high:+.{places}f} ({method(f, i)}{more})"
    return f"The {level_text(i.level)} interval{of}, {ends}, is {_side(f)}"


def method(f: Finding, i: Interval) -> str:
    """What an interval of a finding accounts for; of all measures, a difference of accuracies has a least deviation."""
    if f.form == "measure" and counted_on(f.metric):
        known = {"own": METHODS["seeds"], "images": "t over seeds, spread raised to half a bound"}
        return known.get(i.method, METHODS.get(i.method, i.method))
    return METHODS.get(i.method, i.method)


def _side(f: Finding) -> str:
    low, high = f.region.low, f.region.high
    if f.form == "gap":
        by = f.bound
        edge = (
            f"the minimum gap of {by:g}"
            if by > 0
            else f"the largest shortfall of {-by:g}"
            if by < 0
            else "the zero line"
        )
        return f"{ {PASS: 'above', FAIL: 'below'}.get(f.would_be, 'not clear of') } {edge}"
    i = f.deciding
    assert i is not None
    if f.form == "equal":
        where = {PASS: "inside", FAIL: "outside"}.get(f.would_be, "across the edge of")
        return f"{where} the margin of {f.bound:g}"
    if f.reported is None:
        edge_at = low if math.isfinite(low) else high
        side = "above" if i.low > edge_at else "below" if i.high < edge_at else "not clear of"
        return f"{side} {f.bound:g}"
    one_sided = math.isinf(high)
    if f.would_be is PASS:
        return f"above the lower margin of {low:g}" if one_sided else f"inside the margin of {f.bound:g}"
    if f.would_be is INCONCLUSIVE:
        return f"across the edge of the margin of {low if one_sided else f.bound:g}"
    return f"below the lower margin of {low:g}" if i.high < low else f"above the margin of {high:g}"


def _literal(f: Finding) -> str:
    told = {n.name: n for n in f.notes}
    if "most" in told:
        against = "; ".join(because(a) for a in told["most"]["against"])
        return f"{f.label}: {f.measured:.0f} of {told['most']['of']} hold" + (f"; not: {against}" if against else "")
    printed = told["printed"]
    left, right = (
        f"more than {x:.4g}" if opened else number_text(x)
        for x, opened in zip((f.measured, f.reported or 0.0), printed["opened"], strict=True)
    )
    shown = {True: "holds", False: "does not hold", None: "is hidden by the rounding of the printed digits"}
    cells = ", ".join(f"{address} {value:g}" for address, value in printed["cells"])
    named = f" ({cells})" if 0 < len(printed["cells"]) <= 6 else ""
    if f.relation == "==" and printed["holds"] and left != right:
        near = f"lies within {printed['slack']:g} of" if printed["slack"] else "agrees, as printed, with"
        return f"{f.label}: {left} {near} {right}{named}"
    return f"{f.label}: {left} {f.relation} {right} {shown[printed['holds']]}{named}"


def relation(f: Finding) -> str:
    """How measured should stand to the bound or the reported number; empty where that is a margin or a tolerance."""
    return f.relation if f.form in ("literal", "share") or (f.form == "measure") else ""


def opened(f: Finding) -> tuple[bool, bool]:
    """Whether the left and right value of printed numbers are more than shown, by how much nothing tells."""
    found = next((n["opened"] for n in f.notes if n.name == "printed"), (False, False))
    return bool(found[0]), bool(found[1])


# --- a verdict ----------------------------------------------------------------------------------


def deciding(verdict: Verdict) -> Finding | None:
    """The finding nearest to another outcome, among those that agree with the verdict where there are any."""
    if not verdict.findings:
        return None
    same = [f for f in verdict.findings if f.outcome is verdict.outcome]
    return tightest(same or verdict.findings)


def reason(verdict: Verdict) -> str:
    """Why the verdict is what it is; failed runs first, then what the comparison nearest to another outcome says."""
    text = _reason(verdict)
    if verdict.caps and verdict.would_be is not None and verdict.would_be.decided:
        first, *rest = (say(c) for c in reversed(verdict.caps))
        would = f"it would have been {verdict.would_be.value}"
        text = f"{first}; {f'otherwise {_so(verdict.would_be, True)}' if verdict.ours else would}: {text}"
        for why in rest:
            text = f"{why}; {text}"
    told = failed(verdict)
    for each in told:
        text = text.replace(f"but {each}, so", "but runs failed, so")
    return ". ".join((*told, text))


def failed(verdict: Verdict) -> tuple[str, ...]:
    """The failed runs that keep an arm from deciding, a sentence for each arm."""
    blocks = [b for f in verdict.findings for b in f.blocks.values() if b.name == "failed_runs"]
    return tuple(dict.fromkeys(map(say, blocks)))


def _reason(verdict: Verdict) -> str:
    why = verdict.why
    if why.name == "many_tries":
        would = "would not fit alone" if verdict.ours else f"would be {' or '.join(why['would'])} alone"
        return (
            f"{why['alone']} of {why['of']} comparisons {would}, but among so many that decides nothing "
            f"(p = {why['p']:.2g} for all of them together): {because(why['first'], verdict.ours)}"
        )
    found = verdict.would_be or verdict.outcome
    if why.name == "printed" and found is not PASS:
        against = [f for f in verdict.findings if f.outcome is not PASS]
        against.sort(key=lambda f: f.outcome is not found)
        return f"{len(against)} of {len(verdict.findings)} do not hold: " + "; ".join(because(f) for f in against)
    if why.name not in ("findings", "printed"):
        return say(why)
    same = [f for f in verdict.findings if f.outcome is found]
    total = len(verdict.findings)
    return because(tightest(same), verdict.ours) + (f" ({len(same)} of {total} comparisons)" if total > 1 else "")


def history(verdict: Verdict) -> str:
    """How often and with what outcome the claim was judged, this look included; empty for the first."""
    past = verdict.history.earlier
    return (
        f"judged {len(past) + 1} times: {', '.join(outcome(o, verdict.ours) for o in (*past, verdict.outcome))}"
        if past
        else ""
    )


def could_have_been(verdict: Verdict) -> str:
    """Which outcomes were in reach for these runs."""
    yes, no = (outcome(name, verdict.ours) for name in (PASS, FAIL))
    reach = [name for name, was in ((yes, verdict.confirmable), (no, verdict.refutable)) if was]
    return {2: f"{yes} or {no}", 1: f"{''.join(reach)} only", 0: f"neither {yes} nor {no}"}[len(reach)]


def tells(finding: Finding) -> bool:
    """Whether its runs can decide for what `detectable` is about: FAIL of an equality, else PASS."""
    return (FAIL if finding.equality else PASS) not in finding.blocks


def strength(finding: Finding, ours: bool = False) -> str | None:
    """What the test behind a decision could have told, in one sentence; None where nothing is random."""
    if finding.p is None or finding.form == "share":
        return None
    parts = []
    confirms = PASS not in finding.blocks
    yes, no = ("fit", "not fit") if ours else (PASS.value, FAIL.value)
    if finding.power is not None and confirms:
        same = "ours were equal to the reported number" if finding.reported is not None else "the arms were equal"
        parts.append(f"if {same} it would {yes} in {percent(finding.power)} of repetitions")
    told = tells(finding)
    if told and finding.detectable is None:
        parts.append("no difference that accuracies can have would have been told in 80%")
    elif told and finding.equality:
        of = "" if parts else " of repetitions"
        parts.append(f"80%{of} would {no} from a true difference of {finding.detectable:.2f} on")
    elif told:
        beyond = "or less" if finding.relation == "<" else "or more"
        parts.append(f"80% of repetitions would {yes} from a true value of {finding.detectable:.2f} {beyond}")
    made = [f"With this spread, {', and '.join(parts)}."] if parts else []
    if finding.mcnemar is not None:
        made.append(f"These two checkpoints alone have exact McNemar p = {finding.mcnemar:.2g}.")
    return " ".join(made) or None


def percent(share: float) -> str:
    """A probability in words that do not round to certainty."""
    return "over 99%" if share > 0.99 else "under 1%" if share < 0.01 else f"{100 * share:.0f}%"

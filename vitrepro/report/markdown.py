"""The report: a document of claims, their verdicts and what these rest on, from a store or its export alone.

It answers first, then tells why, claim by claim with the command that runs it again, then what was not checked and how
verdicts come about. All text of claims, runs and errors passes `plain`, so that it can neither break a table nor bring
HTML in. The same store gives the same bytes.
"""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from vitrepro.claims import Registry, arms_of, recipes
from vitrepro.errors import StoreError
from vitrepro.judge.correction import adjusted, groups
from vitrepro.judge.finding import ALPHA, Outcome
from vitrepro.judge.rejudge import Judged, rejudge
from vitrepro.judge.verdict import Verdict
from vitrepro.record import Environment, Record, TrainResult
from vitrepro.report import families, words
from vitrepro.report.protocol import compute
from vitrepro.report.rows import Row, rows
from vitrepro.report.section import section
from vitrepro.report.selection import Scope, of_an_attempt, scope, unchecked
from vitrepro.report.sizes import Sizes, by_experiment
from vitrepro.report.text import anchor, bullets, fenced, number_of, outcome, pipe_table, plain, sentence
from vitrepro.spec import Claim, LiteralExpect, Scale, TrainExperiment
from vitrepro.store import Store, explain, portable, write_atomic

NO_PLOTS = "Figures are left out: matplotlib is not installed (`pip install 'vitrepro[report]'`)."

FIDELITIES = {
    "exact": "`exact` follows the paper's own protocol; only there does PASS mean reproduced, and FAIL contradicted.",
    "substitute": "`substitute` puts a public stand-in for something private: a PASS supports the claim, it does not "
    "reproduce the paper's number.",
    "literal": "`literal` holds the statement against the numbers that its own source prints: nothing was measured, "
    "and a PASS says that the statement agrees with printed numbers, not that it is right.",
    "proxy": "`proxy` is a smaller experiment that tests the same statement: a PASS supports the claim, it does not "
    "reproduce the paper's number; a FAIL speaks against it, it does not refute the paper.",
}
OUTCOMES = {
    Outcome.PASS: "the interval of every comparison lies inside its margin, or on the claimed side of its gap or edge.",
    Outcome.FAIL: "the interval of at least one comparison lies outside.",
    Outcome.EXCEEDS: "ours is better than the reported value by more than the margin, which is not the same result.",
    Outcome.INCONCLUSIVE: "the measurement cannot tell: the interval crosses an edge, or something keeps it from "
    "deciding.",
    Outcome.INFEASIBLE: "cannot be checked here, for the reason given.",
    Outcome.ERROR: "a run failed or what it stored is damaged; this says nothing of the claim.",
    Outcome.NOT_RUN: "not all runs are stored yet.",
}


HEADINGS = ("claim", "outcome", "measured", "reported", "margin", "evidence")
WAYS = {
    "exact": "by the exact protocol",
    "substitute": "with a public substitute at scale {}",
    "proxy": "by a proxy at scale {}",
    "literal": "on printed numbers",
}
CAVEATS = {
    "substitute": "A public stand-in for something private supports a claim, it does not reproduce the paper's number.",
    "literal": "At scale literal nothing was measured, and a PASS says that the statement agrees with printed numbers, "
    "not that it is right.",
    "proxy": "A proxy is a smaller experiment that tests the same statement: a PASS supports the claim, it does not "
    "reproduce the paper's number; a FAIL speaks against it, it does not refute the paper.",
}
RULES = (
    "A claim file fixes what is expected, with its margin, before anything is run; a later change is named beside the "
    "verdict. A verdict is a function of the claim, of what the stored runs counted, image by image, and of earlier "
    "looks at the claim. It is made anew for this report.",
    "A value passes if the 90% interval of the difference from the reported number lies inside the margin "
    "(equivalence, 5% on each side). Arms are equal if that of their difference does. An order, a gain or a trend "
    "passes if its 95% interval over other seeds and other images lies above the gap that was asked for. What lies "
    "wholly outside fails, if a true value inside would lead there, on either side, in at most 5% of repetitions. "
    "Several parts of one claim must all hold; one of them that fails refutes the claim if "
    "Simes' test of all parts together is below 5%.",
    "In the tables of findings `bound` is the margin, gap or tolerance, `p` that of the outcome, and `told with 80%` "
    "the true difference from which on 80% of repetitions with this spread would tell it. A claim with verdicts at two "
    "scales counts twice in the table of sources.",
    "Verdicts are about training that works. A run has failed if it is no better than guessing, if it lies far below "
    "its arm, or if its experiment declares it. Failed runs are named first, and an arm of which some but not all runs "
    "failed decides nothing. A claim about failure counts runs, by an exact interval.",
    "Three seeds or more trained from scratch have their own spread, but at least that of the steadier stored arms. "
    "One or two have the spread of all stored arms: they can refute, and they never confirm. Runs fine-tuned from "
    "released weights have the binomial bound, and from three seeds on their own spread. A metric without counts, such "
    "as a loss, needs three seeds. McNemar's test of two checkpoints describes them and decides nothing.",
    "A PASS also needs a power of 5%: an interval as wide must lie inside the margin at least that often if ours "
    "equals the reported number. `could not have confirmed` marks a FAIL or EXCEEDS of runs for which a PASS was out "
    "of reach; the summary counts them apart.",
    "Every judging is logged. The first look at a claim has a level of 5%, all later looks have 1% together, and the "
    "verdict names the looks before it.",
    "A model at chance brings no PASS and refutes no order. What even a model without an error could not have changed "
    "decides nothing. Nor do fewer seeds than registered, part of a test set, or a recipe changed by hand. The rules "
    "stand in docs/verdicts.md, how often they err in docs/calibration.md; `vitrepro audit --verdicts` asks of every "
    "verdict whether it could have come out otherwise.",
)


def write(registry: Registry, store: Store, out: Path | None, patterns: Sequence[str] = ()) -> tuple[str, list[Judged]]:
    """The report's text and what it tells of; with `out`, written there with its figures beside it.

    Args:
        patterns: of the claims that it is about; see `selection.scope`.

    Raises:
        UsageError: a pattern names no claim.
        StoreError: `out` cannot be written.
    """
    about = scope(registry, store.verdicts()[0], patterns)
    judged = sorted(rejudge(registry, store, about.entries), key=lambda j: (_ours(j), of_an_attempt(j.claim)))
    sizes = by_experiment(judged)
    if out is None:
        return render(judged, registry, store, about, sizes), judged
    from vitrepro.report import plots

    links: dict[str, list[str]] = {}
    notes: tuple[str, ...] = ()
    try:
        files = plots.write_plots(judged, store, out.with_name(f"{out.stem}_files"), sizes)
        links = {key: [f"{quote(p.parent.name)}/{quote(p.name)}" for p in paths] for key, paths in files.items()}
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        notes = (NO_PLOTS,)
    text = render(judged, registry, store, about, sizes, links, notes)
    with explain(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, text.encode())
    return text, judged


def render(
    judged: Sequence[Judged],
    registry: Registry,
    store: Store,
    about: Scope,
    sizes: Mapping[str, Sizes],
    plots: Mapping[str, Sequence[str]] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The report as GitHub-flavoured markdown.

    Args:
        about: the claims, with and without a verdict.
        sizes: experiments over training sizes, by name.
        plots: keys of `plots.write_plots` -> links to figures, relative to the document.
        notes: markdown, one line each, put under the summary.
    """
    links = plots or {}
    records, damaged = _records(store)
    if about.patterns:
        asked = {ref.run_id for j in judged for ref in j.entry.runs}
        records = {run_id: record for run_id, record in records.items() if run_id in asked}
    parts = ["# Reproducibility report", *_summary(judged, registry, about), *notes]
    if judged:
        parts += _verdict_tables(judged, registry, links)
        parts += _sizes_section(sizes, links)
        parts.append("## Claim by claim")
    for j in judged:
        parts += section(j, registry, store, sizes, links.get(j.key, ()))
    if about.claims:
        parts += _not_checked(judged, about)
        parts += _experiments(about, registry, records)
        parts += _method(judged, about)
    parts += _environments(records.values())
    parts += _faults(store, damaged)
    if not about.patterns:
        parts += _unjudged_runs(judged, store, records)
    return "\n\n".join(p for p in parts if p) + "\n"


# --- the answer and the table -------------------------------------------------------------------


def _summary(judged: Sequence[Judged], registry: Registry, about: Scope) -> Iterator[str]:
    """The answer in one paragraph, and where the rest stands."""
    if not judged and not about.claims:
        yield "The store holds no verdicts. `vitrepro verify quickstart` makes the first ones in about a minute."
        return
    yield " ".join(_answer(judged, registry, about))
    if not judged:
        return
    yield from _by_source(judged, registry, about)
    yield from _what_did_not_stand(judged)
    places = ["Verdicts", "Claim by claim", *(["Not checked, and why"] if about.claims else [])]
    places += ["Method", "Where the runs were made"]
    here = ", ".join(f"[{p}](#{anchor(p)})" for p in places)
    yield f"Each claim has a section with the reason, the numbers and the command that runs it again. {here}."
    changed = [j for j in judged if j.changes]
    if changed:
        names = ", ".join(f"[{plain(j.name)}](#{anchor(j.name)})" for j in changed)
        yield f"Something has changed since the runs were made, see there: {names}."
    if registry.problems:
        count = len(registry.problems)
        yield f"The claim files have {count} fault{'s' if count > 1 else ''}; `vitrepro validate` lists them."


def _answer(judged: Sequence[Judged], registry: Registry, about: Scope) -> Iterator[str]:
    """How many claims of which sources, checked how; what stood and what did not; what was not checked."""
    checked = {j.entry.claim_id for j in judged}
    total = len({c.id for c in about.claims} | checked)
    sources = dict.fromkeys(c.source.paper for c in about.claims)
    of = f"{len(sources)} sources" if len(sources) > 1 else "".join(plain(_title(p, registry)) for p in sources)
    asked = len({c.id for c in about.claims if c.ours} | {j.entry.claim_id for j in judged if _ours(j)})
    ours = f" and {number_of(asked, 'question')} of ours about {'them' if len(sources) > 1 else 'it'}" if asked else ""
    yield f"This report is about {number_of(total - asked, 'claim')}{f' of {of}' if of else ''}{ours}."
    verdicts = [j.verdict for j in judged if j.verdict is not None]
    if judged:
        how = Counter((v.fidelity, v.scale) for v in verdicts if v.fidelity and v.scale)
        ways = ", ".join(f"{n} {WAYS[str(v[0])].format(v[1])}" for v, n in sorted(how.items()))
        some = "" if len(checked) == len(judged) else f" in {len(judged)} verdicts, some at several scales"
        were = "were" if len(checked) > 1 else "was"
        yield f"{len(checked)} of them {were} checked{some}{f' ({ways})' if ways else ''}:"
        stated, questions = [j for j in judged if not _ours(j)], [j for j in judged if _ours(j)]
        if stated:
            yield f"{_outcomes(stated)}."
        if questions:
            yield f"Of our own questions: {_outcomes(questions)}."
        told = [v for v in verdicts if v.findings and v.run_ids]
        if (sets := groups(told)) < len(told):
            yield (
                f"The {len(told)} verdicts on runs rest on {number_of(sets, 'set')} of runs; verdicts on the same set "
                "are not independent."
            )
    left = total - len(checked)
    if left:
        never = sum(not _feasible(c) for c in about.claims if c.id not in checked)
        yield (
            f"{left} {'have' if left > 1 else 'has'} no verdict here, {never} of them because nothing that vitrepro "
            "can run would tell; [the reasons](#not-checked-and-why)."
        )


def _by_source(judged: Sequence[Judged], registry: Registry, about: Scope) -> Iterator[str]:
    """Where there are several sources, how many verdicts of each outcome each of them has; our questions apart."""
    claims = {c.id: c for c in about.claims} | {j.claim.id: j.claim for j in judged if j.claim}
    if len({c.source.paper for c in claims.values()}) > 1:
        yield _tally([c for c in claims.values() if not c.ours], judged, registry)
    yield _tally([c for c in claims.values() if c.ours], judged, registry)


def _tally(claims: Sequence[Claim], judged: Sequence[Judged], registry: Registry) -> str:
    """A line for each source: its claims, or our questions about it, and their outcomes."""
    ids = {c.id for c in claims}
    ours = any(c.ours for c in claims)
    told = [j for j in judged if j.claim and j.verdict and j.claim.id in ids]
    counts = Counter((j.claim.source.paper, outcome(j.verdict.outcome, ours)) for j in told if j.claim and j.verdict)
    names = dict.fromkeys(outcome(o, ours) for o in Outcome)
    shown = [name for name in names if any(name == found for _, found in counts)]
    checked = {j.entry.claim_id for j in judged}
    lines = []
    for paper, number in Counter(c.source.paper for c in claims).items():
        title = plain(_title(paper, registry))
        if any(counts[paper, name] for name in shown):
            title = f"[{title}](#{anchor(_heading(paper, ours, registry))})"
        without = sum(c.source.paper == paper and c.id not in checked for c in claims)
        lines.append([title, *(str(n) for n in (number, *(counts[paper, name] for name in shown), without))])
    headings = ["source", "our questions about it" if ours else "claims", *shown, "no verdict"]
    return pipe_table(headings, lines, right=headings[1:]) if lines else ""


def _what_did_not_stand(judged: Sequence[Judged]) -> Iterator[str]:
    """Claims of sources that measurements speak against, and how far a verdict reaches at the fidelities at hand."""
    judged = [j for j in judged if not _ours(j)]
    against = [j for j in judged if j.verdict and j.verdict.outcome in (Outcome.FAIL, Outcome.EXCEEDS)]
    if against:
        names = ", ".join(f"[{plain(j.name)}](#{anchor(j.name)})" for j in against)
        one_way = sum(not j.verdict.confirmable for j in against if j.verdict)
        only = f" Of these, {one_way} rest{'s' * (one_way == 1)} on runs that could not have confirmed the claim."
        only = " Its runs could not have confirmed the claim." if len(against) == 1 else only
        yield f"What did not stand: {names}.{only if one_way else ''}{_after_correction(judged, len(against))}"
    fidelities = {j.verdict.fidelity for j in judged if j.verdict and j.verdict.outcome.decided}
    if reach := [text for name, text in CAVEATS.items() if name in fidelities]:
        yield " ".join(reach)


def _after_correction(judged: Sequence[Judged], against: int) -> str:
    """How many of them stay when the verdicts of a source must all be right together."""
    claims = _judged_claims(judged)
    opposed = [
        (verdict, a.holm)
        for (_, verdict), a in zip(claims, adjusted(claims), strict=True)
        if verdict.outcome in (Outcome.FAIL, Outcome.EXCEEDS)
    ]
    by_chance = [holm for verdict, holm in opposed if verdict.p_against is not None]
    if against < 2 or not by_chance:
        return ""
    stay = sum(holm is not None and holm < ALPHA for holm in by_chance)
    counted = f"; the other {against - len(by_chance)} are counts without chance" if len(by_chance) < against else ""
    return (
        f" With chance in them are {len(by_chance)}, of which {stay} stay after Holm's correction for the number of "
        f"verdicts of their source{counted}."
    )


def _outcomes(judged: Sequence[Judged]) -> str:
    verdicts = [j.verdict for j in judged if j.verdict is not None]
    what = "claim" if len({j.entry.claim_id for j in judged}) == len(judged) else "verdict"
    of = f"of {number_of(len(judged), what)}"
    sentences = []
    for name in dict.fromkeys(outcome(v.outcome, v.ours) for o in Outcome for v in verdicts if v.outcome is o):
        same = [v for v in verdicts if outcome(v.outcome, v.ours) == name]
        support = Counter(words.support(v) for v in same if v.outcome.decided and not v.ours)
        kinds = ", ".join(f"{count} × {word}" for word, count in sorted(support.items()))
        sentences.append(f"**{len(same)} {of}: {name}**{f' ({kinds})' if kinds else ''}")
    gone = len(judged) - len(verdicts)
    if gone:
        sentences.append(f"**{gone} {of}: not judged**, gone from the claim files")
    return "; ".join(sentences)


def _ours(j: Judged) -> bool:
    return j.claim is not None and j.claim.ours


def _heading(paper: str, ours: bool, registry: Registry) -> str:
    """Of the table of verdicts of one source, or of our questions about it."""
    title = _title(paper, registry)
    return f"Our questions about {title}" if ours else title


def _title(paper: str, registry: Registry) -> str:
    known = registry.papers.get(paper)
    return known.title if known else paper


def _feasible(claim: Claim) -> bool:
    return any(entry.infeasible is None for entry in claim.scales.entries().values())


def _verdict_tables(judged: Sequence[Judged], registry: Registry, links: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A table for each source and one for our questions about it, what stays among many, its numbers beside ours."""
    yield "## Verdicts"
    made = iter(rows(_judged_claims(judged)))
    tables: dict[tuple[str, bool], list[list[str]]] = defaultdict(list)
    for j in judged:
        if j.claim is not None and j.verdict is not None:
            cells = _verdict_cells(next(made))
        else:
            cells = ["", "not judged", plain(j.changes[0]), "", "", plain(f"at {j.entry.scale}")]
        statement = f": {plain(j.claim.statement)}" if j.claim is not None else ""
        cells[0] = f"[{plain(j.entry.claim_id)}](#{anchor(j.name)}){statement}"
        tables[j.claim.source.paper if j.claim is not None else "", _ours(j)].append(cells)
    for (paper, ours), lines in tables.items():
        yield f"### {plain(_heading(paper, ours, registry)) if paper else 'Claims that are gone'}"
        yield pipe_table(HEADINGS, lines)
        figures = () if ours else links.get(f"source {paper}", ())
        yield from (f"![reported and measured accuracies]({link})" for link in figures)
    yield from (plain(text) for text in families.sentences(_judged_claims(judged)))


def _verdict_cells(row: Row) -> list[str]:
    """Cells of HEADINGS; what qualifies a verdict stands beside it and is never left out."""
    seeds = f", {number_of(int(row.seeds), 'seed')}" if row.seeds else ""
    p = f"p {row.p}" + (f" (Holm {row.holm})" if row.holm else "") if row.p else ""
    evidence = f"{row.fidelity} at {row.scale}{seeds}" if row.fidelity else row.scale
    evidence = "; ".join(part for part in (evidence, p, row.qualifiers) if part)
    measured, reported, margin = plain(row.measured), plain(row.reported), plain(row.margin)
    return ["", f"**{row.outcome}**", measured, reported, margin, plain(evidence)]


def _judged_claims(judged: Sequence[Judged]) -> list[tuple[Claim, Verdict]]:
    return [(j.claim, j.verdict) for j in judged if j.claim is not None and j.verdict is not None]


# --- training sizes -----------------------------------------------------------------------------


def _sizes_section(sizes: Mapping[str, Sizes], links: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if not sizes:
        return
    yield "## Accuracy against training images"
    for name, found in sizes.items():
        yield f"### Sizes of {plain(name)}"
        yield from (plain(sentence(pair.sentence)) for pair in found.pairs)
        yield from (f"![accuracy against training images of {plain(name)}]({link})" for link in _of_sizes(name, links))
        yield _sizes_table(found)


def _of_sizes(name: str, links: Mapping[str, Sequence[str]]) -> Sequence[str]:
    return links.get(f"experiment {name}", ())


def _sizes_table(sizes: Sizes) -> str:
    """Mean and interval of each line at each size, and the gap of every two."""
    headings = ["training images", *sizes.lines, *(f"{p.first} - {p.second}" for p in sizes.pairs)]
    lines = []
    for size in sizes.sizes:
        cells = [f"{size:,}"]
        for line in sizes.lines.values():
            point = next((p for p in line if p.size == size), None)
            cells.append(f"{point.mean:.2f} ({point.interval.low:.2f} to {point.interval.high:.2f})" if point else "")
        for pair in sizes.pairs:
            gap = next((g for g in pair.gaps if g.size == size), None)
            shown = f"{gap.difference:+.2f} ({gap.interval.low:+.2f} to {gap.interval.high:+.2f})" if gap else ""
            cells.append(shown)
        lines.append(cells)
    return pipe_table([plain(h) for h in headings], lines, right=["training images"])


# --- what was not checked, and how verdicts come about -------------------------------------------


def _not_checked(judged: Sequence[Judged], about: Scope) -> Iterator[str]:
    """Every claim without a verdict, with the reason at each of its scales."""
    checked = {j.entry.claim_id for j in judged}
    left = [c for c in about.claims if c.id not in checked]
    yield "## Not checked, and why"
    if not left:
        yield "Every claim that this report is about has a verdict."
        return
    lines = []
    for claim in left:
        why = "; ".join(f"{name}: {reason}" for name, reason in unchecked(claim))
        lines.append([f"{plain(claim.id)}: {plain(claim.statement)}", plain(claim.source.where), plain(why)])
    yield (
        "`vitrepro show ID` tells more of each; `vitrepro verify ID --scale SCALE` runs what stands here as not run, "
        "and `vitrepro plan` tells its cost."
    )
    yield pipe_table(("claim", "where", "why it has no verdict"), lines)


def _experiments(about: Scope, registry: Registry, records: Mapping[str, Record]) -> Iterator[str]:
    """Every experiment of these claims, run or not."""
    used: dict[str, list[tuple[str, Scale]]] = defaultdict(list)
    for claim in about.claims:
        for name, entry in claim.scales.entries().items():
            if entry.experiment in registry.experiments and not isinstance(entry.expect, LiteralExpect):
                used[entry.experiment or ""].append((name, entry))
    lines, told = [], []
    for name, entries in used.items():
        experiment = registry.experiment(name)
        arms = dict.fromkeys(arm for _, entry in entries if entry.expect for _, arm in arms_of(entry.expect))
        numbers: Sequence[int] = (0,)
        flops = ""
        if isinstance(experiment, TrainExperiment):
            numbers = experiment.seeds
            made = recipes(experiment)
            flops = compute([made[arm] for arm in arms], len(numbers))
        scales = ", ".join(dict.fromkeys(scale for scale, _ in entries))
        stored = {
            (r.arm, r.seed)
            for r in records.values()
            if r.experiment == name and r.arm in arms and r.seed in numbers and not r.deviations
        }
        runs = f"{len(stored) or 'none'} of {len(arms) * len(numbers)}"
        lines.append([plain(name), plain(experiment.title), scales, str(len(entries)), runs, flops])
        if stored and experiment.notes:
            told.append(f"{plain(name)}: {plain(experiment.notes)}")
    if lines:
        yield "### Experiments of these claims"
        headings = ("experiment", "what", "scale", "claims", "runs stored", "operations")
        yield pipe_table(headings, lines, right=("claims", "runs stored"))
        if told:
            yield "Notes on the experiments that were run:\n\n" + bullets(told)


def _method(judged: Sequence[Judged], about: Scope) -> Iterator[str]:
    yield "## Method"
    yield from RULES
    verdicts = [j.verdict for j in judged if j.verdict is not None]
    seen = {v.outcome for v in verdicts}
    yield bullets(f"{o.value}: {text}" for o, text in OUTCOMES.items() if o in seen)
    fidelities = {v.fidelity for v in verdicts}
    yield bullets(text for name, text in FIDELITIES.items() if name in fidelities)
    patterns = "".join(f" {shlex.quote(p)}" for p in about.patterns)
    yield (
        "This document is made from stored results alone, by\n\n"
        + fenced(f"vitrepro report{patterns} -o report.md")
        + "\n\nand from an export of them (`vitrepro export`) by `vitrepro report --from DIR -o report.md`, to the "
        "same bytes."
    )


# --- what else the store holds ------------------------------------------------------------------


def _records(store: Store) -> tuple[dict[str, Record], list[str]]:
    """Every readable record, and the faults of the others."""
    records, damaged = {}, []
    for run_id in store.run_ids():
        try:
            record = store.record(run_id)
        except StoreError as error:
            damaged.append(str(error))
            continue
        if record is not None:
            records[run_id] = record
    return records, damaged


def _faults(store: Store, damaged: Sequence[str]) -> Iterator[str]:
    _, faults = store.verdicts()
    if faults or damaged:
        yield "## Stored but damaged"
        yield bullets(plain(portable(f, store.root)) for f in (*faults, *damaged))


def _unjudged_runs(judged: Sequence[Judged], store: Store, records: Mapping[str, Record]) -> Iterator[str]:
    asked = {ref.run_id for j in judged for ref in j.entry.runs}
    rows = []
    for run_id in store.run_ids():
        if run_id not in asked:
            record = records.get(run_id)
            result = record.result if record else None
            k_n = f"{result.correct}/{result.n}" if isinstance(result, TrainResult) else ""
            name = (record.experiment, record.arm, str(record.seed)) if record else ("", "", "")
            state = "finished" if record else "damaged" if store.state(run_id) == "finished" else store.state(run_id)
            rows.append([plain(run_id), *map(plain, name), state, k_n])
    if rows:
        yield "## Runs without a verdict"
        yield pipe_table(("run", "experiment", "arm", "seed", "state", "k/n"), rows, right=("seed", "k/n"))


def _environments(records: Iterable[Record]) -> Iterator[str]:
    """Machines and versions, alike ones together whatever slot of the machine they used."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        alike = record.environment.model_copy(update={"device": "", "threads": 1})
        groups[alike.model_dump_json()].append(record)
    if not groups:
        return
    yield "## Where the runs were made"
    items = []
    for _, members in sorted(groups.items()):
        dates = sorted(r.started_at for r in members)
        when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        count = f"{len(members)} run{'s' if len(members) > 1 else ''}"
        items.append(plain(f"{count}, started {when}: {_environment(members[0].environment)}"))
    yield bullets(items)


def _environment(e: Environment) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in sorted(e.packages.items()))
    revision = f"git {e.git_revision}" if e.git_revision else "not from a checkout"
    return f"{e.device_name}; vitrepro {e.vitrepro} ({revision}); Python {e.python}; {packages}; {e.platform}"

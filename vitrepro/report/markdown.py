"""The report: a document of every verdict in a store and what it rests on, from the store alone.

All text of claims, runs and errors passes `plain`, so that it can neither break a table nor bring HTML in.
The same store gives the same bytes.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from vitrepro import stats
from vitrepro.claims import Registry
from vitrepro.errors import StoreError
from vitrepro.record import AnalyticResult, Deviation, Environment, Record, TrainResult
from vitrepro.report import explain as explained
from vitrepro.report import families
from vitrepro.report.judged import Judged, rejudge
from vitrepro.report.protocol import side_by_side
from vitrepro.report.rows import HEADINGS, deciding, rows
from vitrepro.spec import Claim
from vitrepro.store import Store, explain, write_atomic
from vitrepro.verdict import Finding, Measured, Outcome, Verdict

NO_PLOTS = "Figures are left out: matplotlib is not installed (`pip install 'vitrepro[report]'`)."
MOST_CELLS = 12

FIDELITIES = {
    "exact": "`exact` follows the paper's own protocol; only there does PASS mean reproduced, and FAIL contradicted.",
    "substitute": "`substitute` puts a public stand-in for something private: a PASS supports the claim, it does not "
    "reproduce the paper's number.",
    "literal": "`literal` holds the statement against the numbers that its own source prints: nothing was measured, "
    "and a PASS says that the source agrees with itself, not that it is right.",
    "proxy": "`proxy` is a smaller experiment that tests the same statement: a PASS supports the claim, it does not "
    "reproduce the paper's number; a FAIL speaks against it, it does not refute the paper.",
}
OUTCOMES = {
    Outcome.PASS: "every comparison lies inside its margin or above its gap, interval included.",
    Outcome.FAIL: "at least one comparison lies outside, interval included.",
    Outcome.EXCEEDS: "ours is better than the reported value by more than the margin, which is not the same result.",
    Outcome.INCONCLUSIVE: "the measurement cannot tell: the interval crosses an edge, or something keeps it from "
    "deciding.",
    Outcome.INFEASIBLE: "cannot be checked here, for the reason given.",
    Outcome.ERROR: "a run failed or what it stored is damaged; this says nothing of the claim.",
    Outcome.NOT_RUN: "not all runs are stored yet.",
}


def write(registry: Registry, store: Store, out: Path | None) -> tuple[str, list[Judged]]:
    """The report's text and what it tells of; with `out`, written there with its figures beside it.

    Raises:
        StoreError: `out` cannot be written.
    """
    judged = rejudge(registry, store)
    if out is None:
        return render(judged, registry, store), judged
    from vitrepro.report import plots

    links: dict[str, list[str]] = {}
    notes: tuple[str, ...] = ()
    try:
        files = plots.write_plots(judged, store, out.with_name(f"{out.stem}_files"))
        links = {key: [f"{quote(p.parent.name)}/{quote(p.name)}" for p in paths] for key, paths in files.items()}
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        notes = (NO_PLOTS,)
    text = render(judged, registry, store, links, notes)
    with explain(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, text.encode())
    return text, judged


def render(
    judged: Sequence[Judged],
    registry: Registry,
    store: Store,
    plots: Mapping[str, Sequence[str]] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The report as GitHub-flavoured markdown.

    Args:
        plots: `Judged.key` -> links to its figures, relative to the document.
        notes: markdown, one line each, put under the summary.
    """
    parts = ["# Reproducibility report", *_summary(judged, registry), *notes]
    if judged:
        parts += ["## Verdicts", _verdict_table(judged)]
    for j in judged:
        parts += _section(j, registry, store, (plots or {}).get(j.key, ()))
    records, damaged = _records(store)
    parts += _faults(store, damaged)
    parts += _unjudged_runs(judged, store, records)
    parts += _environments(records.values())
    return "\n\n".join(p for p in parts if p) + "\n"


# --- text that cannot misbehave -----------------------------------------------------------------


def plain(text: object) -> str:
    """Any text as one line of markdown that shows exactly that text.

    Line breaks become spaces; what markdown, HTML or GitHub's mathematics would read is escaped;
    characters that cannot be seen, such as those that turn the writing direction, become U+FFFD.
    """
    line = " ".join(str(text).split())
    line = "".join(c if c.isprintable() or c == "\u200d" else "\ufffd" for c in line)  # emoji join with U+200D
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*\[\]|~$])", r"\\\1", line)
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)  # inside a word it means nothing to markdown
    line = re.sub(r"^(?=([#+\-]|[#\-=]+)( |$))", r"\\", line)  # a heading, list or rule
    return re.sub(r"^(\d+)(?=[.)]( |$))", r"\1\\", line)


def pipe_table(headings: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str] = ()) -> str:
    """A table of cells that are markdown already; columns named in `right` hold numbers."""
    numbers = set(right)
    lines = [headings, ["---:" if h in numbers else "---" for h in headings], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _fenced(text: str) -> str:
    """A block of code, whatever backticks are in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"


def _anchor(heading: str) -> str:
    """The fragment that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


# --- the answer and the table -------------------------------------------------------------------


def _summary(judged: Sequence[Judged], registry: Registry) -> Iterator[str]:
    if not judged:
        yield "The store holds no verdicts. `vitrepro verify quickstart` makes the first ones in about a minute."
        return
    claims = len({j.entry.claim_id for j in judged})
    what = "claim" if claims == len(judged) else "verdict"
    of = f"of {len(judged)} {what}{'s' if len(judged) > 1 else ''}"
    verdicts = [j.verdict for j in judged if j.verdict is not None]
    sentences = []
    for outcome in Outcome:
        support = Counter(v.support for v in verdicts if v.outcome is outcome)
        if support:
            words = ", ".join(f"{count} × {word}" for word, count in sorted(support.items()))
            sentences.append(
                f"**{support.total()} {of}: {outcome.value}**" + (f" ({words})" if outcome.decided else "")
            )
    gone = len(judged) - len(verdicts)
    if gone:
        sentences.append(f"**{gone} {of}: not judged**, gone from the claim files")
    answer = "; ".join(sentences) + "."
    if what == "verdict":
        answer += f" They are about {claims} claim{'s' if claims > 1 else ''}, some at several scales."
    fidelities = {v.fidelity for v in verdicts if v.outcome.decided}
    yield " ".join([answer, *(text for name, text in FIDELITIES.items() if name in fidelities)])
    yield from (plain(text) for text in families.sentences(_judged_claims(judged)))
    seen = {v.outcome for v in verdicts}
    yield _list(f"{o.value}: {text}" for o, text in OUTCOMES.items() if o in seen)
    changed = [j for j in judged if j.changes]
    if changed:
        names = ", ".join(f"[{plain(j.name)}](#{_anchor(j.name)})" for j in changed)
        yield f"Something has changed since the runs were made, see there: {names}."
    if registry.problems:
        count = len(registry.problems)
        yield f"The claim files have {count} fault{'s' if count > 1 else ''}; `vitrepro validate` lists them."


def _verdict_table(judged: Sequence[Judged]) -> str:
    lines = []
    made = iter(rows(_judged_claims(judged)))
    for j in judged:
        if j.claim is not None and j.verdict is not None:
            cells = [plain(c) for c in next(made).cells]
            cells[1] = f"**{cells[1]}**"
        else:
            blank = dict.fromkeys(HEADINGS, "") | {"outcome": "not judged", "measured": plain(j.changes[0])}
            cells = list((blank | {"scale": plain(j.entry.scale)}).values())
        cells[0] = f"[{plain(j.entry.claim_id)}](#{_anchor(j.name)})"
        lines.append(cells)
    return pipe_table(HEADINGS, lines)


def _judged_claims(judged: Sequence[Judged]) -> list[tuple[Claim, Verdict]]:
    return [(j.claim, j.verdict) for j in judged if j.claim is not None and j.verdict is not None]


# --- one verdict --------------------------------------------------------------------------------


def _section(j: Judged, registry: Registry, store: Store, links: Sequence[str]) -> Iterator[str]:
    yield f"## {plain(j.name)}"
    if j.claim is not None:
        yield f"> {plain(j.claim.statement)}"
        place = f"Source: {_paper(j.claim.source.paper)}, {plain(j.claim.source.where)}."
        yield f"{place} Kind of claim: {j.claim.kind}.{_experiment(j, registry)}"
        yield _reported(j.claim)
    if j.verdict is not None:
        yield from _outcome(j.verdict, drawn=any(link.endswith("findings.svg") for link in links))
    else:
        yield f"**Not judged**: {plain(_sentence(j.changes[0]))} It was {plain(j.entry.outcome)} when last judged, "
        f"{plain(j.entry.judged_at)}."
    if j.verdict is not None and j.changes:
        yield "Changed since the runs were made:\n\n" + _list(plain(c) for c in j.changes)
    if j.scale is not None and j.scale.deviations:
        yield "How this differs from the paper's own protocol:\n\n" + _list(plain(d) for d in j.scale.deviations)
    yield _protocol(j, registry)
    by_hand = [*map(str, j.entry.deviations), *_images_changed(j)]
    if by_hand:
        yield "How the runs differ from the experiment file:\n\n" + _list(plain(d) for d in by_hand)
    if links:
        yield "\n\n".join(f"![{_alternative(j, link)}]({link})" for link in links)
    yield from _runs(j, store)
    if j.claim is not None and j.scale is not None and j.scale.infeasible is None:
        yield "Run it again:\n\n" + _fenced(_command(j))


def _paper(paper: str) -> str:
    arxiv = re.fullmatch(r"arxiv:(\d{4}\.\d{4,5}(v\d+)?)", paper)
    return f"[arXiv:{arxiv[1]}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else plain(paper)


def _experiment(j: Judged, registry: Registry) -> str:
    name = j.scale.experiment if j.scale else None
    if name is None or name not in registry.experiments:
        return ""
    return f" Experiment: {plain(name)}, {plain(_sentence(registry.experiment(name).title))}"


def _reported(claim: Claim) -> str:
    if claim.reported is None:
        return "Reported: in words only."
    cells = []
    for name, cell in claim.reported.cells.items():
        spread = f" ± {cell.sd:g}" if cell.sd is not None else ""
        runs = f" ({cell.runs} run{'s' if cell.runs > 1 else ''})" if cell.runs else ""
        cells.append(f"{name} {cell.value:g}{spread}{runs}")
    more = f", and {len(cells) - MOST_CELLS} more" if len(cells) > MOST_CELLS else ""
    return f"Reported ({plain(claim.reported.unit)}): {plain(', '.join(cells[:MOST_CELLS]))}{more}."


def _protocol(j: Judged, registry: Registry) -> str:
    """The source's protocol beside what ran, setting by setting; nothing where the experiment is gone."""
    if j.claim is None or j.scale is None or j.scale.experiment not in registry.experiments:
        return ""
    headings, rows = side_by_side(j.claim, registry)
    used = f"{j.entry.scale} ({j.scale.fidelity})"
    if used not in headings:
        return ""
    at = headings.index(used)
    told = [[plain(row[0]), plain(row[1]), plain(row[at])] for row in rows if row[at]]
    return pipe_table(("setting", "as reported", "as run"), told)


def _outcome(verdict: Verdict, *, drawn: bool) -> Iterator[str]:
    """The decision, why, what the test could tell; with a picture in text where no figure shows it."""
    support = f", {verdict.support}" if verdict.outcome.decided else ""
    qualifiers = f" Qualified: {plain('; '.join(verdict.qualifiers))}." if verdict.qualifiers else ""
    yield f"**{verdict.outcome.value}**{support}: {plain(_sentence(verdict.reason))}{qualifiers}"
    decides = deciding(verdict)
    if decides is None:
        return
    if decides.because not in verdict.reason:
        yield plain(_sentence(decides.because))
    strength = explained.strength(decides)
    if strength and verdict.outcome.decided:
        yield plain(strength)
    picture = explained.picture(decides)
    if picture and not drawn:
        yield "```text\n" + "\n".join((*picture, explained.KEY)) + "\n```"
    yield pipe_table(
        ("finding", "measured", "interval", "reported", "bound", "p", "told with 80%", "outcome"),
        (_finding_cells(f, bold=f is decides and len(verdict.findings) > 1) for f in verdict.findings),
        right=("measured", "reported", "bound", "p", "told with 80%"),
    )


def _finding_cells(f: Finding, bold: bool) -> list[str]:
    """The one nearest to another outcome is set in bold."""
    i = f.interval
    digits = 3 if f.form == "measure" else 2
    interval = f"{i.low:.{digits}f} to {i.high:.{digits}f} ({100 * i.level:g}%, {plain(i.method)})" if i else ""
    sign = "+" if f.reported is None else ""
    measured = f"{f.measured:{sign}.{digits}f}" if i else f"{f.measured:.6g}"
    reported = f"{f.reported:g}" if f.reported is not None else ""
    if f.measured_open:
        measured = f"more than {measured}"
    if f.reported_open:
        reported = f"more than {reported}"
    bound = plain(f.relation) if f.form == "literal" else f"{plain(f.relation)} {f.bound:.4g}".strip()
    label = f"**{plain(f.label)}**" if bold else plain(f.label)
    p = families.p_text(f.p_against if f.outcome in (Outcome.FAIL, Outcome.EXCEEDS) else f.p)
    told = "" if f.detectable is None else f"{f.detectable:.2f}"
    return [label, measured, interval, reported, bound, p.replace("<", "&lt;"), told, f.outcome.value]


def _images_changed(j: Judged) -> list[str]:
    results = [m.record.result for m in j.measured if m.record]
    return list(dict.fromkeys(c for r in results if isinstance(r, TrainResult) for c in r.data_changes))


def _alternative(j: Judged, link: str) -> str:
    what = {
        "findings": "findings against what was expected",
        "sizes": "accuracy against training images",
        "curves": "learning curves",
    }
    return f"{plain(j.name)}: {next((text for name, text in what.items() if link.endswith(f'{name}.svg')), 'figure')}"


# --- its runs -----------------------------------------------------------------------------------


def _runs(j: Judged, store: Store) -> Iterator[str]:
    if not j.measured:
        return
    yield "### Runs"
    arms = list(dict.fromkeys(m.arm for m in j.measured))
    measured = sorted(j.measured, key=lambda m: (arms.index(m.arm), m.seed))
    records = [m.record for m in measured if m.record]
    if any(isinstance(r.result, AnalyticResult) for r in records):
        rows = ([plain(m.run_id), plain(m.arm), _counted(m, store)] for m in measured)
        yield pipe_table(("run", "arm", "counted"), rows)
    else:
        yield _means(measured)
        headings = ("run", "arm", "seed", "k/n", "accuracy, %", "Wilson 95%", "steps", "precision", "device")
        rows = ([plain(m.run_id), plain(m.arm), str(m.seed), *_trained(m, store)] for m in measured)
        right = ("seed", "k/n", "accuracy, %", "steps", "train, s")
        yield pipe_table((*headings, "train, s"), rows, right)
    remarks = [*(f"Run {m.run_id}: {m.error}" for m in measured if m.error), *_remarks(records)]
    if remarks:
        yield _list(plain(r) for r in remarks)


def _state(m: Measured, store: Store) -> str:
    """Of a run without a usable record: an error, or how far it came."""
    return "**ERROR**" if m.error else f"NOT_RUN ({store.state(m.run_id)})"


def _counted(m: Measured, store: Store) -> str:
    if m.record is None or not isinstance(m.record.result, AnalyticResult):
        return _state(m, store)
    return plain(", ".join(f"{name} {value:.6g}" for name, value in m.record.result.quantities.items()))


def _trained(m: Measured, store: Store) -> list[str]:
    if m.record is None or not isinstance(m.record.result, TrainResult):
        return [_state(m, store), *[""] * 6]
    r, i = m.record.result, stats.wilson(m.record.result.correct, m.record.result.n)
    return [
        f"{r.correct}/{r.n}",
        f"{100 * r.correct / r.n:.2f}",
        f"{i.low:.2f} to {i.high:.2f}",
        f"{r.steps:,}",
        r.precision,
        plain(m.record.environment.device_name),
        f"{r.train_seconds:.1f}",
    ]


def _means(measured: Sequence[Measured]) -> str:
    """Accuracy of each arm over its seeds."""
    arms: dict[str, list[float]] = defaultdict(list)
    for m in measured:
        if m.record and isinstance(m.record.result, TrainResult):
            arms[m.arm].append(100 * m.record.result.correct / m.record.result.n)
    parts = []
    for arm, accuracies in arms.items():
        k = len(accuracies)
        sd = f", sd {np.std(accuracies, ddof=1):.2f}" if k > 1 else ""
        parts.append(f"{arm} {np.mean(accuracies):.2f}% ({k} seed{'s' if k > 1 else ''}{sd})")
    return f"Mean accuracy: {plain('; '.join(parts))}." if parts else ""


def _remarks(records: Iterable[Record]) -> Iterator[str]:
    """What a reader of the numbers must know of single runs."""
    for record in records:
        result = record.result
        if isinstance(result, TrainResult):
            if result.resumed_at:
                steps = ", ".join(f"{s:,}" for s in result.resumed_at)
                yield f"Run {record.run_id} was stopped and went on at step {steps}."
            if result.skipped_steps:
                yield f"Run {record.run_id} left out {result.skipped_steps} steps whose fp16 gradient overflowed."
            if result.test_looks > 1:
                yield f"Run {record.run_id} looked at the test images {result.test_looks} times."


def _command(j: Judged) -> str:
    words = ["vitrepro", "verify", j.entry.claim_id]
    if j.entry.scale != "any":
        words += ["--scale", j.entry.scale]
    seeds = len({ref.seed for ref in j.entry.runs})
    if j.entry.scale != "any" and seeds != j.entry.registered_seeds:
        words += ["--seeds", str(seeds)]
    for deviation in j.entry.deviations:
        words += ["--set", f"{deviation.path}={_used(j, deviation)}"]
    return " ".join(shlex.quote(" ".join(w.split())) for w in words)


def _used(j: Judged, deviation: Deviation) -> str:
    """The value in full, from a run's own recipe: a deviation shortens long ones."""
    value: object = next((m.record.config for m in j.measured if m.record), None)
    for key in deviation.path.split("."):
        if not isinstance(value, dict) or key not in value:
            return deviation.used
        value = value[key]
    return value if isinstance(value, str) else json.dumps(value)


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
        yield _list(plain(f) for f in (*faults, *damaged))


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
    yield _list(items)


def _environment(e: Environment) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in sorted(e.packages.items()))
    revision = f"git {e.git_revision}" if e.git_revision else "not from a checkout"
    return f"{e.device_name}; vitrepro {e.vitrepro} ({revision}); Python {e.python}; {packages}; {e.platform}"

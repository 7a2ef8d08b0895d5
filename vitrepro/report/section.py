"""One verdict of a report: what was claimed and decided, the numbers, what ran, its cost, how to run it again."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from vitrepro.catalog import DATASETS
from vitrepro.claims import Registry, builtin_dir, recipes
from vitrepro.cost import duration, recipe_flops
from vitrepro.judge import stats
from vitrepro.judge.finding import Finding, Outcome
from vitrepro.judge.rejudge import Judged
from vitrepro.judge.verdict import Verdict
from vitrepro.plan import Run
from vitrepro.recipe import Recipe
from vitrepro.record import AnalyticResult, Deviation, Measured, Record, TrainResult
from vitrepro.report import explain as explained
from vitrepro.report import words
from vitrepro.report.protocol import flops_text, side_by_side
from vitrepro.report.selection import unchecked
from vitrepro.report.sizes import Sizes
from vitrepro.report.text import anchor, bullets, fenced, number_of, pipe_table, plain, sentence
from vitrepro.report.words import deciding, number_text
from vitrepro.spec import Claim, TrainExperiment
from vitrepro.store import Store

MOST_CELLS = 12


def section(
    j: Judged, registry: Registry, store: Store, sizes: Mapping[str, Sizes], links: Sequence[str]
) -> Iterator[str]:
    yield f"### {plain(j.name)}"
    if j.claim is not None:
        yield f"> {plain(j.claim.statement)}"
    if j.verdict is not None:
        yield from _outcome(j.verdict, drawn=any(link.endswith("findings.svg") for link in links))
    else:
        yield (
            f"**Not judged**: {plain(sentence(j.changes[0]))} It was {plain(j.entry.outcome)} when last judged, "
            f"{plain(j.entry.judged_at)}."
        )
    if j.verdict is not None and j.changes:
        yield "Changed since the runs were made:\n\n" + bullets(plain(c) for c in j.changes)
    if j.claim is not None and j.scale is not None and j.scale.infeasible is None:
        yield f"Run it again{_needed(j)}:\n\n" + fenced(_command(j, registry))
    if links:
        yield "\n\n".join(f"![{_alternative(j, link)}]({link})" for link in links)
    name = j.scale.experiment if j.scale else None
    if name in sizes:
        yield f"Over all training sizes: [{plain(name)}](#{anchor(f'Sizes of {name}')})."
    if j.claim is not None:
        kind = "Our question, about" if j.claim.ours else "Source:"
        place = f"{kind} {_paper(j.claim.source.paper)}, {plain(j.claim.source.where)}."
        yield f"{place} Kind of claim: {j.claim.kind}. {_reported(j.claim)}{_experiment(j, registry)}"
        if j.claim.notes:
            yield f"Note: {plain(j.claim.notes)}"
    yield _protocol(j, registry)
    differs = _deviations(j, registry)
    if differs:
        yield "How this differs from the source's own protocol:\n\n" + bullets(map(plain, differs))
    by_hand = [*map(str, j.entry.deviations), *_images_changed(j)]
    if by_hand:
        yield "How the runs differ from the experiment file:\n\n" + bullets(plain(d) for d in by_hand)
    yield from _runs(j, store)
    yield _cost(j)
    if j.claim is not None:
        others = [(name, why) for name, why in unchecked(j.claim, (j.entry.scale,)) if name != j.entry.scale]
        if others:
            yield "Other scales: " + plain(sentence("; ".join(f"{name}: {why}" for name, why in others)))


def _paper(paper: str) -> str:
    arxiv = re.fullmatch(r"arxiv:(\d{4}\.\d{4,5}(v\d+)?)", paper)
    return f"[arXiv:{arxiv[1]}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else plain(paper)


def _experiment(j: Judged, registry: Registry) -> str:
    name = j.scale.experiment if j.scale else None
    if name is None or name not in registry.experiments:
        return ""
    return f" Experiment: {plain(name)}, {plain(sentence(registry.experiment(name).title))}"


def _deviations(j: Judged, registry: Registry) -> tuple[str, ...]:
    """Those of the scale, and of its experiment as a whole."""
    if j.scale is None:
        return ()
    experiment = registry.experiments.get(j.scale.experiment or "")
    return (*j.scale.deviations, *(experiment.deviations if isinstance(experiment, TrainExperiment) else ()))


def _reported(claim: Claim) -> str:
    if claim.reported is None:
        return "Not reported: our own question." if claim.ours else "Reported: in words only."
    cells = []
    for name, cell in claim.reported.cells.items():
        spread = f" ± {cell.sd:g}" if cell.sd is not None else ""
        runs = f" ({cell.runs} run{'s' if cell.runs > 1 else ''})" if cell.runs else ""
        cells.append(f"{name} {cell.value:g}{spread}{runs}")
    more = f", and {len(cells) - MOST_CELLS} more" if len(cells) > MOST_CELLS else ""
    whose = "Expected, by us" if claim.reported.by == "us" else "Reported"
    return f"{whose} ({plain(claim.reported.unit)}): {plain(', '.join(cells[:MOST_CELLS]))}{more}."


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
    support = f", {words.support(verdict)}" if verdict.outcome.decided else ""
    qualifiers = f" Qualified: {plain('; '.join(words.qualifiers(verdict)))}." if words.qualifiers(verdict) else ""
    word = words.outcome(verdict.outcome, verdict.ours)
    yield f"**{word}**{support}: {plain(sentence(words.reason(verdict)))}{qualifiers}"
    if past := words.history(verdict):
        level = f" Level of this look: {words.level_text(verdict.history.alpha)}." if verdict.findings else ""
        yield plain(sentence(past)) + level
    decides = deciding(verdict)
    if decides is None:
        return
    if words.measures(decides) not in words.reason(verdict):
        yield plain(sentence(words.because(decides, verdict.ours)))
    strength = words.strength(decides, verdict.ours)
    if strength and verdict.outcome.decided:
        yield plain(strength)
    picture = explained.picture(decides)
    if picture and not drawn:
        yield "```text\n" + "\n".join((*picture, explained.KEY)) + "\n```"
    yield pipe_table(
        ("finding", "measured", "interval", "reported", "bound", "p", "told with 80%", "outcome"),
        (_finding_cells(f, verdict, bold=f is decides and len(verdict.findings) > 1) for f in verdict.findings),
        right=("measured", "reported", "bound", "p", "told with 80%"),
    )


def _finding_cells(f: Finding, verdict: Verdict, *, bold: bool) -> list[str]:
    """The one nearest to another outcome is set in bold."""
    i = f.interval
    digits = 3 if f.form == "measure" else 2
    method = f"{words.level_text(i.level)}, {plain(words.method(f, i))}" if i else ""
    interval = f"{i.low:.{digits}f} to {i.high:.{digits}f} ({method})" if i else ""
    sign = "+" if f.reported is None else ""
    measured = f"{f.measured:{sign}.{digits}f}" if i else number_text(f.measured)
    reported = number_text(f.reported) if f.reported is not None else ""
    measured, reported = (
        f"more than {text}" if opened else text
        for text, opened in zip((measured, reported), words.opened(f), strict=True)
    )
    relation = plain(words.relation(f))
    bound = relation if f.form == "literal" else f"{relation} {f.bound:.4g}".strip()
    label = f"**{plain(f.label)}**" if bold else plain(f.label)
    p = words.p_text(f.p_against if f.outcome in (Outcome.FAIL, Outcome.EXCEEDS) else f.p)
    told = f"{f.detectable:.2f}" if words.tells(f) and f.detectable is not None else ""
    return [
        label,
        measured,
        interval,
        reported,
        bound,
        p.replace("<", "&lt;"),
        told,
        words.outcome(f.outcome, verdict.ours),
    ]


def _images_changed(j: Judged) -> list[str]:
    results = [m.record.result for m in j.measured if m.record]
    return list(dict.fromkeys(c for r in results if isinstance(r, TrainResult) for c in r.data_changes))


def _alternative(j: Judged, link: str) -> str:
    what = {
        "findings": "findings against what was expected",
        "curves": "learning curves",
    }
    return f"{plain(j.name)}: {next((text for name, text in what.items() if link.endswith(f'{name}.svg')), 'figure')}"


# --- its runs -----------------------------------------------------------------------------------


def _runs(j: Judged, store: Store) -> Iterator[str]:
    if not j.measured:
        return
    yield "#### Runs"
    arms = list(dict.fromkeys(m.arm for m in j.measured))
    measured = sorted(j.measured, key=lambda m: (arms.index(m.arm), m.seed))
    records = [m.record for m in measured if m.record]
    if any(isinstance(r.result, AnalyticResult) for r in records):
        rows = ([plain(m.run_id), plain(m.arm), _counted(m, store)] for m in measured)
        yield pipe_table(("run", "arm", "counted"), rows)
    else:
        yield _means(measured)
        yield _alike(records)
        columns = [name for name, value in _SETTINGS.items() if len({value(r) for r in records}) > 1]
        headings = ("run", "arm", "seed", "k/n", "accuracy, %", "Wilson 95%", *columns, "train, s")
        rows = ([plain(m.run_id), plain(m.arm), str(m.seed), *_trained(m, store, columns)] for m in measured)
        yield pipe_table(headings, rows, ("seed", "k/n", "accuracy, %", "steps", "train, s"))
    said = [*(f"Run {m.run_id}: {m.error}" for m in measured if m.error), *remarks(records)]
    if said:
        yield bullets(plain(s) for s in said)


def _state(m: Measured, store: Store) -> str:
    """Of a run without a usable record: an error, or how far it came."""
    return "**ERROR**" if m.error else f"NOT_RUN ({store.state(m.run_id)})"


def _counted(m: Measured, store: Store) -> str:
    if m.record is None or not isinstance(m.record.result, AnalyticResult):
        return _state(m, store)
    return plain(", ".join(f"{name} {number_text(value)}" for name, value in m.record.result.quantities.items()))


def _trained(m: Measured, store: Store, columns: Sequence[str]) -> list[str]:
    if m.record is None or not isinstance(m.record.result, TrainResult):
        return [_state(m, store), *[""] * (3 + len(columns))]
    r, i = m.record.result, stats.binomial(m.record.result.correct, m.record.result.n)
    return [
        f"{r.correct}/{r.n}",
        f"{100 * r.correct / r.n:.2f}",
        f"{i.low:.2f} to {i.high:.2f}",
        *(plain(_SETTINGS[name](m.record)) for name in columns),
        f"{r.train_seconds:.1f}",
    ]


def _steps(record: Record) -> str:
    return f"{record.result.steps:,}" if isinstance(record.result, TrainResult) else ""


def _precision(record: Record) -> str:
    return record.result.precision if isinstance(record.result, TrainResult) else ""


_SETTINGS: Mapping[str, Callable[[Record], str]] = {  # columns only where runs differ
    "steps": _steps,
    "precision": _precision,
    "device": lambda record: record.environment.device_name,
}


def _alike(records: Sequence[Record]) -> str:
    """What all runs share of the settings that are no column then."""
    shared = {name: value(records[0]) for name, value in _SETTINGS.items() if len({value(r) for r in records}) == 1}
    parts = {"steps": "{} steps", "precision": "{}", "device": "on {}"}
    return (
        f"Every run: {plain(', '.join(parts[name].format(value) for name, value in shared.items()))}." if shared else ""
    )


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


def remarks(records: Iterable[Record]) -> Iterator[str]:
    """What a reader of the numbers must know of single runs, once for all of which it is true."""
    trained = [(r.run_id, r.result) for r in records if isinstance(r.result, TrainResult)]
    runs: dict[str, list[str]] = defaultdict(list)
    for run_id, result in trained:
        if result.resumed_at:
            runs[f"stopped and went on at step {', '.join(f'{s:,}' for s in result.resumed_at)}"].append(run_id)
        if result.skipped_steps:
            runs[f"left out {result.skipped_steps} steps whose fp16 gradient overflowed"].append(run_id)
        if result.test_looks > 1:
            runs[f"looked at the test images {result.test_looks} times"].append(run_id)
    for what, of in runs.items():
        if len(of) == len(trained) > 1:
            yield f"Every run {what}."
        else:
            yield f"{'Run' if len(of) == 1 else 'Runs'} {', '.join(of)} {what}."


def _cost(j: Judged) -> str:
    """Time and memory as recorded, and floating-point operations by formula."""
    records = [m.record for m in j.measured if m.record]
    trained = [r.result for r in records if isinstance(r.result, TrainResult)]
    if not trained:
        return ""
    wall = sum(_seconds(r) for r in records)
    spent = sum(r.train_seconds for r in trained), sum(r.eval_seconds for r in trained)
    parts = [
        f"{number_of(len(trained), 'run')}, {duration(wall)} one after another",
        f"{duration(spent[0])} of training and {duration(spent[1])} of evaluation",
    ]
    flops = _flops(records)
    if flops:
        parts.append(f"{flops_text(flops)} by formula, 2 for a multiply-accumulate")
    peaks = [r.peak_memory_bytes for r in trained if r.peak_memory_bytes]
    if peaks:
        parts.append(f"at most {max(peaks) / 1e9:.2g} GB of memory")
    return f"Cost: {'; '.join(parts)}. Claims share runs."


def _seconds(record: Record) -> float:
    """Of the whole run: what is recorded as wall time is that of its last process alone."""
    result = record.result
    spent = result.train_seconds + result.eval_seconds if isinstance(result, TrainResult) else 0.0
    return max(record.wall_seconds, spent)


def _flops(records: Iterable[Record]) -> float | None:
    """Of training and evaluation; None where a recipe is of another form now, or a model has no formula."""
    total = 0.0
    for r in records:
        try:
            flops = recipe_flops(Recipe.model_validate(r.config))
        except ValidationError:
            return None
        if flops is None:
            return None
        total += flops
    return total


def _needed(j: Judged) -> str:
    """What must be at hand: data sets that do not ship with a dependency, and released weights."""
    configs = [m.record.config for m in j.measured if m.record]
    data = {str(c.get("data", {}).get("name")) for c in configs}
    released = {str(c["model"]["weights"]) for c in configs if c.get("model", {}).get("weights")}
    commands = [f"`vitrepro data fetch {plain(d)}`" for d in sorted(data) if d in DATASETS and _hub(d)]
    commands += [f"`vitrepro weights fetch {plain(w)}`" for w in sorted(released)]
    return f" (first {' and '.join(commands)}, or name the folder with `--data-dir`)" if commands else ""


def _hub(dataset: str) -> bool:
    return any(name == dataset and known.hub is not None for name, known in DATASETS.items())


def _command(j: Judged, registry: Registry) -> str:
    words = ["vitrepro", "verify", j.entry.claim_id]
    if j.entry.scale != "any":
        words += ["--scale", j.entry.scale]
    seeds = len({ref.seed for ref in j.entry.runs})
    fewer = j.entry.scale != "any" and seeds < j.entry.registered_seeds
    if j.entry.scale != "any" and seeds != j.entry.registered_seeds:
        words += ["--seeds", str(seeds)]
    if _resolved(j, registry):
        words += ["--precision", _resolved(j, registry)]
    for deviation in j.entry.deviations:
        words += ["--set", f"{deviation.path}={_used(j, deviation)}"]
    if fewer or j.entry.deviations or _held_back(j, registry):
        words.append("--allow-inconclusive")
    place = registry.places.get(("claim", j.entry.claim_id))
    if place is not None and not Path(place.path).is_relative_to(builtin_dir()):
        words += ["--claims-dir", "DIR"]
    return " ".join(shlex.quote(" ".join(w.split())) for w in words)


def _held_back(j: Judged, registry: Registry) -> bool:
    """Whether `verify` runs it only if it is told to, since no PASS can be expected."""
    experiment = registry.experiments.get(j.scale.experiment or "") if j.scale else None
    if j.claim is None or not isinstance(experiment, TrainExperiment):
        return False
    v = j.verdict
    if v is not None and v.findings and (v.outcome is Outcome.INCONCLUSIVE or not v.confirmable):
        return True
    from vitrepro.forecast.outlook import cannot_pass  # draws numbers, a tenth of a second

    made = recipes(experiment)
    runs = [Run(experiment.id, ref.arm, ref.seed, made[ref.arm]) for ref in j.entry.runs if ref.arm in made]
    return cannot_pass(j.claim, j.entry.scale, runs, len({r.seed for r in runs})) is not None


def _resolved(j: Judged, registry: Registry) -> str:
    """The precision that the device chose, where the recipe leaves it open: elsewhere it might choose another."""
    experiment = registry.experiments.get(j.scale.experiment or "") if j.scale else None
    used = {_precision(m.record) for m in j.measured if m.record} - {""}
    if not isinstance(experiment, TrainExperiment) or len(used) != 1:
        return ""
    if any(d.path == "train.precision" for d in j.entry.deviations):
        return ""
    made = recipes(experiment)
    asked = {made[ref.arm].train.precision for ref in j.entry.runs if ref.arm in made}
    return used.pop() if asked == {"auto"} else ""


def _used(j: Judged, deviation: Deviation) -> str:
    """The value in full, from a run's own recipe: a deviation shortens long ones."""
    value: object = next((m.record.config for m in j.measured if m.record), None)
    for key in deviation.path.split("."):
        if not isinstance(value, dict) or key not in value:
            return deviation.used
        value = value[key]
    return value if isinstance(value, str) else json.dumps(value)

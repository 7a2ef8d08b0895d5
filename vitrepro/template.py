"""A claim and its experiment that work as they are, to be changed into one's own."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vitrepro.errors import UsageError, did_you_mean
from vitrepro.spec import ClaimId
from vitrepro.store import explain

_HEAD = """\
# A claim: one checkable statement of a source. `vitrepro validate` names every fault with its line.
id: {id}
source: {{paper: "arxiv:0000.00000v1", where: "Table 3"}} # a paper with its version, a URL, or owner/repository
kind: {kind} # exact, value, ordering, trend, equivalence, cost or qualitative
statement: {statement}
"""
_REPORTED = """\
reported:
  unit: {unit}
  decimals: {decimals} # digits printed after the point, so that rounding is counted
  cells:
    {cells}
"""
_NEEDS = """\
needs: # what the source's own protocol takes; `vitrepro show` answers its questions from it
  work: [{work}]
  recipe: Section 4
  unstated: [warm-up]
"""
_TRAINED = """\
scales: # for each of paper, gpu, cpu, quick: an experiment, or infeasible with the reason
  paper: {{infeasible: "why the paper's own protocol cannot be followed"}}
  quick:
    experiment: {experiment} # experiments/{experiment}.yaml
    fidelity: proxy # exact, substitute (a public stand-in) or proxy (a smaller experiment of the same statement)
    deviations: ["1,000 digits from scratch, instead of the paper's data"]
    # margins and gaps are fixed before any run, in points of top-1
    expect: {expect}
"""
_COUNTED = """\
scales:
  any: # needs neither data nor an accelerator
    experiment: {experiment} # experiments/{experiment}.yaml
    fidelity: exact
    expect: {expect}
"""
_LITERAL = """\
scales:
  literal: # the statement against the source's own numbers: `@cell`, or `other-claim/cell` of the same source
    expect:
      checks:
        better: {that: "@ours > @theirs"}
"""
_TRAIN_EXPERIMENT = """\
id: {experiment}
type: train
title: A small ViT on digits, with and without position embeddings, at two depths
base: # what all arms share; `vitrepro validate --schema` lists every setting
  data: {{name: digits}}
  model: {{family: vit, patch_size: 2, embed_dim: 64, depth: 3, num_heads: 4}}
  train: {{steps: 300, batch_size: 64, lr: 2e-3, weight_decay: 0.05, warmup_steps: 20, clip_norm: 1.0}}
  measures: [position_distance_correlation] # of the trained model, beside its accuracy
factors: # arms are all combinations, named by their levels: learned-full, learned-small, shifted-full ...
  augment:
    learned: {{}}
    shifted: {{augment: {{crop_padding: 1}}}}
  data:
    full: {{}}
    small: {{data: {{train_images: 100}}}}
seeds: [0, 1, 2] # three or more, or the verdict says so
notes: Where each setting comes from, and what was guessed.
"""
_ANALYTIC_EXPERIMENT = """\
id: {experiment}
type: analytic
title: Parameters of ViT-B/16
arms:
  vit-b16:
    model: {{family: vit, variant: B/16}}
    image_size: 224
    num_classes: 1000
    quantities: [parameters_m]
"""

_TRAINED_KINDS = {
    "ordering": (
        "A model is better with more training images.",
        "{all: [{greater: learned-full, than: learned-small, by: 1.0}]}",
    ),
    "trend": (
        "More training images help more without shifted images than with them.",
        "{larger_gain: [learned-small, learned-full], than: [shifted-small, shifted-full], by: 0.0}",
    ),
    "equivalence": ("Shifting the images makes no difference.", "{equal: [learned-full, shifted-full], within: 5.0}"),
    "value": ("The model reaches 92.5%.", "{cells: {top1: {arm: learned-full, margin: 3.0}}}"),
    "qualitative": (
        "Near patches have similar position embeddings.",
        "{all: [{arm: learned-full, metric: position_distance_correlation, above: 0.0}]}",
    ),
}
KINDS = (*_TRAINED_KINDS, "exact", "literal")


def new_claim(directory: Path, claim_id: str, kind: str) -> list[Path]:
    """Write a claim file and, unless nothing is run for it, the file of its experiment.

    Args:
        kind: one of KINDS; `literal` holds printed numbers against each other.

    Returns:
        The files written.

    Raises:
        UsageError: no such kind, no claim id, or a file is there already; nothing is written then.
        StoreError: the directory cannot be written.
    """
    if kind not in KINDS:
        raise UsageError(f"--kind {kind!r} is not one of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
    try:
        TypeAdapter(ClaimId).validate_python(claim_id)
    except ValidationError:
        raise UsageError(
            f"{claim_id!r} is no claim id: expected source/name in lower-case letters, digits, '.', '_' and '-'"
        ) from None
    name = claim_id.rpartition("/")[2]
    files = {directory / f"{claim_id.replace('/', '--')}.yaml": _claim(claim_id, kind, name)}
    if kind != "literal":
        template = _ANALYTIC_EXPERIMENT if kind == "exact" else _TRAIN_EXPERIMENT
        files[directory / "experiments" / f"{name}.yaml"] = template.format(experiment=name)
    there = [str(path) for path in files if path.exists()]
    if there:
        raise UsageError(f"{', '.join(there)}: exists already; choose another id or --dir")
    for path, text in files.items():
        with explain(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return list(files)


def _claim(claim_id: str, kind: str, experiment: str) -> str:
    if kind in _TRAINED_KINDS:
        statement, expect = _TRAINED_KINDS[kind]
        reported = _reported("% top-1", 1, "top1: {value: 92.5, runs: 1, n: 797}") if kind == "value" else ""
        scales, work = _TRAINED.format(experiment=experiment, expect=expect), "training"
    elif kind == "exact":
        statement = "ViT-B/16 has 86 million parameters."
        reported = _reported("millions of parameters", 0, "parameters: 86")
        expect = "{cells: {parameters: {arm: vit-b16, quantity: parameters_m, relative_tolerance: 0.015}}}"
        scales, work = _COUNTED.format(experiment=experiment, expect=expect), "model"
    else:
        kind, statement = "ordering", "Ours is better than theirs."
        reported = _reported("% top-1", 2, "{ours: 85.3, theirs: 84.02}").replace("cells:\n    {", "cells: {")
        scales, work = _LITERAL, "arithmetic"
    head = _HEAD.format(id=claim_id, kind=kind, statement=statement)
    return head + reported + scales + _NEEDS.format(work=work)


def _reported(unit: str, decimals: int, cells: str) -> str:
    quoted = f'"{unit}"' if unit.startswith("%") else unit
    return _REPORTED.format(unit=quoted, decimals=decimals, cells=cells)

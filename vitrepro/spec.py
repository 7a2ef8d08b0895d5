"""What a claim file, an experiment file and the groups file may say."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vitrepro import formula
from vitrepro.metrics import TOP1, Measure, Metric, is_accuracy
from vitrepro.recipe import NUMBER, ModelSpec, NonNegativeFloat, PositiveFloat, PositiveInt, Strict

ScaleName = Literal["paper", "gpu", "cpu", "quick"]
SCALES: tuple[ScaleName, ...] = ("paper", "gpu", "cpu", "quick")  # most faithful first
CheckName = Literal["any", "paper", "gpu", "cpu", "quick", "literal"]
CHECKS: tuple[CheckName, ...] = ("any", *SCALES, "literal")
Fidelity = Literal["exact", "substitute", "proxy", "literal"]
Kind = Literal["exact", "value", "ordering", "trend", "equivalence", "cost", "qualitative"]
Work = Literal[
    "arithmetic",
    "model",
    "pre-training",
    "training",
    "fine-tuning",
    "evaluation",
    "few-shot",
    "analysis",
    "self-supervision",
    "timing",
]
Quantity = Literal[
    "depth",
    "embed_dim",
    "mlp_dim",
    "num_heads",
    "parameters",
    "parameters_m",
    "pretrained_parameters_m",
    "tokens",
    "patches",
    "patches_ratio",
    "forward_gmacs",
    "macs_ratio",
    "side_exponent",
    "training_exaflops",
    "least_seconds",
    "hooked_parameters",
    "input_mb",
    "parameter_mb",
    "activation_mb",
    "total_mb",
    "permutation_effect",
    "encoder_difference",
    "fewshot_difference",
]

_NAME = r"[a-z0-9][a-z0-9._-]*"
MAX_ARMS = 1000


def _no_double_hyphen(claim_id: str) -> str:
    """File names have `--` for `/`, so that no two claims share one."""
    if "--" in claim_id:
        raise ValueError(f"{claim_id!r} holds '--', which names of files keep for '/'")
    return claim_id


ClaimId = Annotated[
    str, StringConstraints(pattern=rf"^{_NAME}(/{_NAME})+$", max_length=120), AfterValidator(_no_double_hyphen)
]
Name = Annotated[str, StringConstraints(pattern=rf"^{_NAME}$", max_length=80)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31), NUMBER]
Each: TypeAlias = dict[Name, Annotated[tuple[Text, ...], Field(min_length=1)]]


# --- experiments ------------------------------------------------------------------------------


class Edge(Strict):
    """A measure lies above or below a number."""

    metric: Measure
    above: Annotated[float, NUMBER] | None = None
    below: Annotated[float, NUMBER] | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Edge:
        if (self.above is None) == (self.below is None):
            raise ValueError("give either above or below")
        return self

    def holds(self, value: float) -> bool:
        """Whether a measured value lies on the named side; NaN lies on neither."""
        return value > self.above if self.above is not None else self.below is not None and value < self.below


class TrainExperiment(Strict):
    """Arms trained from several seeds: a base recipe, changed by one level of each factor.

    An arm is named by its levels, joined with '-', in the order of the factors.
    """

    id: Name
    type: Literal["train"]
    title: Text
    base: dict[str, Any] = Field(description="the part of the recipe that all arms share")
    factors: dict[Name, dict[Name, dict[str, Any]]] = Field(
        min_length=1, description="factor: level: what it changes in the recipe; arms are all combinations"
    )
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000)]
    failed_if: Edge | None = Field(None, description="measure of a run that says that its training failed")
    deviations: tuple[Text, ...] = Field((), description="how all its arms differ from the source's own protocol")
    notes: str = ""

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"a number stands twice: {list(seeds)}")
        return seeds

    @field_validator("factors")
    @classmethod
    def _every_arm_has_its_own_name(
        cls, factors: dict[str, dict[str, dict[str, Any]]]
    ) -> dict[str, dict[str, dict[str, Any]]]:
        empty = [factor for factor, levels in factors.items() if not levels]
        if empty:
            raise ValueError(f"{empty[0]!r} has no levels, so there are no arms")
        number = math.prod(len(levels) for levels in factors.values())
        if number > MAX_ARMS:
            raise ValueError(f"{number:,} arms; an experiment has at most {MAX_ARMS:,}")
        names = Counter("-".join(levels) for levels in itertools.product(*factors.values()))
        name, times = names.most_common(1)[0]
        if times > 1:
            raise ValueError(f"{times} arms are named {name!r}; choose levels that tell them apart")
        return factors


class AnalyticArm(Strict):
    """A model of which quantities are read or counted; nothing is trained."""

    model: ModelSpec
    image_size: PositiveInt = 224
    channels: PositiveInt = 3
    num_classes: PositiveInt = 1000
    images: PositiveInt | None = Field(
        None, description="images trained on, repetitions counted, for training_exaflops and least_seconds"
    )
    evaluated_images: Annotated[int, Field(ge=0)] = Field(
        0, description="images of forward passes alone, for least_seconds"
    )
    peak_tflops: PositiveFloat | None = Field(
        None, description="1e12 operations per second at most, by the device's data sheet, for least_seconds"
    )
    batch_size: PositiveInt = Field(
        1,
        description="images at once, for input_mb, activation_mb and total_mb, and for counts of attention across them",
    )
    compare_size: PositiveInt | None = Field(None, description="another image size, for side_exponent")
    baseline: ModelSpec | None = Field(None, description="another model, for patches_ratio and macs_ratio")
    quantities: Annotated[tuple[Quantity, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _what_the_quantities_need(self) -> AnalyticArm:
        for quantity in self.quantities:
            if quantity == "training_exaflops" and self.images is None:
                raise ValueError("training_exaflops needs images, the number seen in pre-training")
            if quantity == "least_seconds" and (self.peak_tflops is None or not (self.images or self.evaluated_images)):
                raise ValueError("least_seconds needs peak_tflops of the device, and images or evaluated_images")
            if quantity == "side_exponent" and self.compare_size in (None, self.image_size):
                raise ValueError("side_exponent needs compare_size, a second image size")
            if quantity in ("patches_ratio", "macs_ratio") and self.baseline is None:
                raise ValueError(f"{quantity} needs baseline, the model to compare with")
        if any(getattr(m, "weights", None) for m in (self.model, self.baseline)):
            raise ValueError("quantities are counted on new weights; leave weights out")
        return self


class AnalyticExperiment(Strict):
    """Quantities of models, by construction and counting."""

    id: Name
    type: Literal["analytic"]
    title: Text
    arms: Annotated[dict[Name, AnalyticArm], Field(min_length=1)]
    notes: str = ""


Experiment: TypeAlias = Annotated[TrainExperiment | AnalyticExperiment, Field(discriminator="type")]


# --- what is expected of the measurement, by kind of claim --------------------------------------


class ExactCheck(Strict):
    """A counted quantity against a reported one."""

    arm: Name
    quantity: Quantity
    tolerance: NonNegativeFloat | None = Field(None, description="largest absolute difference")
    relative_tolerance: PositiveFloat | None = Field(
        None, description="largest difference as a share of the reported value"
    )
    direction: Literal["equal", "at_least", "at_most"] = "equal"

    @model_validator(mode="after")
    def _one_tolerance(self) -> ExactCheck:
        if (self.tolerance is None) == (self.relative_tolerance is None):
            raise ValueError("give either tolerance or relative_tolerance")
        if self.relative_tolerance is not None and self.relative_tolerance >= 0.5:
            raise ValueError(f"relative_tolerance {self.relative_tolerance} would accept nearly anything")
        return self


class ExactExpect(Strict):
    kind: Literal["exact"] = "exact"
    cells: Annotated[dict[Name, ExactCheck], Field(min_length=1)]


class Comparison(Strict):
    """One arm exceeds another by more than `by`: top-1 on the same test images, or a measure of each seed."""

    greater: Name
    than: Name
    metric: Metric = TOP1
    by: Annotated[float, NUMBER] = Field(
        0.0, description="points of top-1, or of the measure; negative: it falls short by less than that"
    )

    @field_validator("by")
    @classmethod
    def _within_accuracies(cls, by: float, info: ValidationInfo) -> float:
        if is_accuracy(info.data.get("metric", TOP1)) and not -50 < by < 100:
            raise ValueError(f"{by:g}: of accuracies it should be greater than -50 and less than 100")
        return by

    @model_validator(mode="after")
    def _two_arms(self) -> Comparison:
        if self.greater == self.than:
            raise ValueError(f"{self.greater!r} is compared with itself")
        return self

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.greater, self.than)


class Bound(Edge):
    """A measure of an arm's seeds, or as a condition their final accuracy, lies above or below a number."""

    arm: Name
    metric: Metric

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,)


def _bound_names_an_arm(value: Any) -> str:
    keys = value if isinstance(value, dict) else vars(value) if isinstance(value, BaseModel) else {}
    return "Bound" if "arm" in keys else "Comparison"


ComparisonOrBound: TypeAlias = Annotated[
    Annotated[Comparison, Tag("Comparison")] | Annotated[Bound, Tag("Bound")], Discriminator(_bound_names_an_arm)
]


class ValueCheck(Strict):
    """A measured accuracy, or a measure, against a reported one, by equivalence within a margin set beforehand."""

    arm: Name
    metric: Metric = TOP1
    margin: PositiveFloat = Field(description="points of top-1, or of the measure; smallest difference that matters")
    direction: Literal["two_sided", "at_least"] = "two_sided"
    same_weights: bool = Field(
        False, description="a released model evaluated again, where nothing is random and counts decide"
    )

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,)

    @field_validator("margin")
    @classmethod
    def _less_than_an_accuracy_has(cls, margin: float, info: ValidationInfo) -> float:
        if is_accuracy(info.data.get("metric", TOP1)) and margin >= 50:
            raise ValueError(f"{margin:g}: of an accuracy it should be less than 50")
        return margin

    @model_validator(mode="after")
    def _what_fits_the_metric(self) -> ValueCheck:
        if self.same_weights and self.metric != TOP1:
            raise ValueError(f"same_weights is for the final accuracy, not for {self.metric}")
        if self.direction == "at_least" and not is_accuracy(self.metric):
            raise ValueError(
                f"direction at_least is for accuracies; that {self.metric} is at least or at most a number is a bound, "
                "above or below, of an ordering"
            )
        return self


class Conditional(Strict):
    """An expectation on trained arms, and what must hold for its test to mean anything."""

    given: tuple[ComparisonOrBound, ...] = Field(
        (), description="comparisons and bounds that must hold, or the verdict is INCONCLUSIVE"
    )

    @property
    def checks(self) -> tuple[ValueCheck | Comparison | Bound, ...]:
        """Everything that is asked of a metric, conditions last."""
        return self.given

    @property
    def measures(self) -> tuple[tuple[str, str], ...]:
        """Arm and name of every measure that is looked at."""
        asked = [(arm, c.metric) for c in self.checks for arm in c.arms]
        return tuple(dict.fromkeys((arm, metric) for arm, metric in asked if metric != TOP1))


class ValueExpect(Conditional):
    kind: Literal["value"] = "value"
    cells: Annotated[dict[Name, ValueCheck], Field(min_length=1)]

    @property
    def checks(self) -> tuple[ValueCheck | Comparison | Bound, ...]:
        return (*self.cells.values(), *self.given)


class OrderingExpect(Conditional):
    """All comparisons and bounds must hold, each at full level (intersection-union)."""

    kind: Literal["ordering"] = "ordering"
    all: Annotated[tuple[ComparisonOrBound, ...], Field(min_length=1)]

    @field_validator("all")
    @classmethod
    def _accuracies_are_compared(cls, asked: tuple[Comparison | Bound, ...]) -> tuple[Comparison | Bound, ...]:
        if any(isinstance(c, Bound) and c.metric == TOP1 for c in asked):
            raise ValueError("top1 is held against a number by a claim of kind value; a bound on it stands under given")
        return asked

    @property
    def checks(self) -> tuple[ValueCheck | Comparison | Bound, ...]:
        return (*self.all, *self.given)


class TrendExpect(Conditional):
    """One contrast: a larger gain (interaction), or a metric that rises at every step."""

    kind: Literal["trend"] = "trend"
    larger_gain: tuple[Name, Name] | None = Field(None, description="[from, to]: the arms whose gain is larger")
    than: tuple[Name, Name] | None = Field(None, description="[from, to]: the arms whose gain is smaller")
    increasing: Annotated[tuple[Name, ...], Field(min_length=3)] | None = Field(
        None, description="arms whose accuracy rises at every step; with dip, whose fitted line rises"
    )
    by: Annotated[float, Field(ge=0, lt=100), NUMBER] = Field(
        0.0, description="points of top-1: of the larger gain, of every step, or with dip of the whole line"
    )
    dip: Annotated[float, Field(gt=0, lt=50), NUMBER] | None = Field(
        None, description="points by which a step may fall, where the line rises as a whole"
    )

    @model_validator(mode="after")
    def _one_form(self) -> TrendExpect:
        if (self.larger_gain is None) != (self.than is None):
            raise ValueError("larger_gain and than go together")
        if (self.larger_gain is None) == (self.increasing is None):
            raise ValueError("give either larger_gain with than, or increasing")
        if self.dip is not None and self.increasing is None:
            raise ValueError("dip goes with increasing")
        arms = self.increasing or (*(self.larger_gain or ()), *(self.than or ()))
        if len(set(arms)) != len(arms):
            raise ValueError(f"an arm stands twice: {list(arms)}")
        return self


class EquivalenceExpect(Conditional):
    """Every pair of arms differs by less than `within` points."""

    kind: Literal["equivalence"] = "equivalence"
    equal: Annotated[tuple[Name, ...], Field(min_length=2)]
    within: Annotated[float, Field(gt=0, lt=50), NUMBER] = Field(description="points of top-1")
    paired_by_seed: bool = Field(
        False, description="the arms differ only in how they are computed, so that they are compared seed by seed"
    )

    @model_validator(mode="after")
    def _distinct(self) -> EquivalenceExpect:
        if len(set(self.equal)) != len(self.equal):
            raise ValueError(f"an arm stands twice: {list(self.equal)}")
        return self


class Let(Strict):
    """A value that several checks use; written `@name` there."""

    value: Text
    each: Each = Field(default_factory=dict, description="name: values it takes; every combination is one definition")


class LiteralCheck(Strict):
    """A statement about printed cells, such as `t5-i21k/vit-b16-pets > t5-i1k/vit-b16-pets`."""

    that: Text
    each: Each = Field(default_factory=dict, description="name: values for {name}; every combination is one check")
    holds: Literal["all", "most"] = Field("all", description="most: in more than half of the combinations")
    within: NonNegativeFloat | None = Field(None, description="largest difference for ==; else equal as printed")
    otherwise: Literal["FAIL", "EXCEEDS"] = Field("FAIL", description="what it means if it does not hold")

    def formulas(self) -> tuple[tuple[str, formula.Formula], ...]:
        """Every combination: what tells it from the others, and its formula."""
        made = []
        for values in formula.expand(self.each):
            made.append(("-".join(values.values()), formula.parse(formula.fill(self.that, values))))
        return tuple(made)

    @model_validator(mode="after")
    def _comparisons(self) -> LiteralCheck:
        for _, made in self.formulas():
            if not made.compares:
                raise ValueError(f"{made.text!r} compares nothing; a check needs one of {' '.join(_RELATIONS)}")
            if self.within is not None and "==" not in made.text:
                raise ValueError("within goes with ==")
        if self.holds == "most" and math.prod(len(v) for v in self.each.values()) < 3:
            raise ValueError("most needs three combinations or more")
        return self


_RELATIONS = tuple(formula.RELATIONS.values())


class LiteralExpect(Strict):
    """What the statement says of the source's own printed numbers; nothing is measured."""

    kind: Literal["literal"] = "literal"
    let: dict[Text, Let] = Field(default_factory=dict)
    checks: Annotated[dict[Name, LiteralCheck], Field(min_length=1)]

    def definitions(self) -> dict[str, formula.Formula]:
        """Name -> formula, every combination written out."""
        made = {}
        for name, let in self.let.items():
            for values in formula.expand(let.each):
                made[formula.fill(name, values)] = formula.parse(formula.fill(let.value, values))
        return made

    @model_validator(mode="after")
    def _values(self) -> LiteralExpect:
        made = self.definitions()
        for name, let in made.items():
            if let.compares:
                raise ValueError(f"let {name}: {let.text!r} is a comparison; a value is expected")
        known: set[str] = set()
        for name, let in made.items():
            ahead = [a[1:] for a in let.addresses if a[1:] in made and a[1:] not in known]
            if ahead:
                raise ValueError(f"let {name}: @{ahead[0]} is defined after it, or by itself")
            known.add(name)
        return self


Expect: TypeAlias = Annotated[
    ExactExpect | ValueExpect | OrderingExpect | TrendExpect | EquivalenceExpect | LiteralExpect,
    Field(discriminator="kind"),
]


# --- claims -----------------------------------------------------------------------------------


class Source(Strict):
    paper: Text = Field(description="arxiv:ID with its version, or a URL, or owner/repository")
    where: Text = Field(description="table, figure, section or page; of a question of ours, what it is about")


class Cell(Strict):
    """One reported number."""

    value: Annotated[float, NUMBER]
    sd: NonNegativeFloat | None = Field(None, description="the printed deviation over runs")
    runs: PositiveInt | None = Field(None, description="number of runs behind the value")
    decimals: Annotated[int, Field(ge=-6, le=12), NUMBER] | None = Field(
        None, description="digits printed after the point; -2: rounded to hundreds; exact, or unrounded, if not given"
    )
    n: PositiveInt | None = Field(None, description="test images behind an accuracy")


def _number_is_cell(value: Any) -> Any:
    return value if isinstance(value, dict | BaseModel) else {"value": value}


class Reported(Strict):
    """Reported cells; what is said once for all of them is filled in where a cell does not say it itself."""

    unit: Text
    by: Literal["source", "us"] = Field("source", description="us: numbers that we expect where the source prints none")
    decimals: Annotated[int, Field(ge=-6, le=12), NUMBER] | None = None
    runs: PositiveInt | None = None
    n: Annotated[dict[Text, PositiveInt], Field(min_length=1)] | None = Field(
        None, description="glob over cell names: test images; the first that matches counts"
    )
    margins: dict[Text, Annotated[float, Field(gt=0, lt=50), NUMBER]] = Field(
        default_factory=dict,
        description="glob over cell names: smallest difference that matters for numbers obtained elsewhere, where no "
        "scale states one; the first that matches counts",
    )
    evaluated: tuple[Text, ...] = Field(
        (), description="globs over cells that are of a released model evaluated as it is, where nothing is random"
    )
    cells: Annotated[
        dict[Name, Annotated[Cell, BeforeValidator(_number_is_cell, json_schema_input_type=float | Cell)]],
        Field(min_length=1),
    ]

    @model_validator(mode="before")
    @classmethod
    def _said_once(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("cells"), dict):
            return values
        once = {k: values[k] for k in ("decimals", "runs") if values.get(k) is not None}
        sizes: Any = values.get("n") if isinstance(values.get("n"), dict) else {}
        cells = {}
        for name, cell in values["cells"].items():
            cell = _number_is_cell(cell)
            if isinstance(cell, dict):
                n = next((n for glob, n in sizes.items() if fnmatch.fnmatchcase(str(name), str(glob))), None)
                cell = {**once, **({"n": n} if n is not None else {}), **cell}
            cells[name] = cell
        return {**values, "cells": cells}

    @model_validator(mode="after")
    def _every_glob_matches(self) -> Reported:
        for key, globs in (("n", self.n or {}), ("margins", self.margins), ("evaluated", self.evaluated)):
            for glob in globs:
                if not any(fnmatch.fnmatchcase(name, glob) for name in self.cells):
                    raise ValueError(f"{key}: no cell matches {glob!r}")
        for name, cell in self.cells.items():
            margin = self.margin(name)
            if margin is not None and cell.decimals is not None and margin < 0.5 * 10.0**-cell.decimals:
                raise ValueError(f"margins: {margin:g} is less than half a printed digit of {name}")
        return self

    def margin(self, cell: str) -> float | None:
        """The margin of a cell for numbers obtained elsewhere, or None."""
        return next((m for glob, m in self.margins.items() if fnmatch.fnmatchcase(cell, glob)), None)

    def is_evaluated(self, cell: str) -> bool:
        """Whether the cell is of a released model evaluated as it is."""
        return any(fnmatch.fnmatchcase(cell, glob) for glob in self.evaluated)


class Elsewhere(Strict):
    """What others, or the same source in another place, report for the same cells."""

    by: Text = Field(description="who or where: a repository with its thread, a table")
    note: str = ""
    cells: Annotated[
        dict[Name, Annotated[tuple[Annotated[float, NUMBER], ...], Field(min_length=1)]], Field(min_length=1)
    ]


class Needs(Strict):
    """What the source's own protocol takes; the names are those of the source's file."""

    work: tuple[Work, ...] = ()
    data: tuple[Name, ...] = ()
    weights: tuple[Name, ...] = ()
    baselines: tuple[Name, ...] = Field((), description="weights of the models it is compared with")
    recipe: str = Field("", description="where the hyper-parameters stand")
    unstated: tuple[Text, ...] = Field((), description="what the source does not say and had to be guessed")
    differences: tuple[Name, ...] = Field((), description="where the released code departs from the text")
    compute: str = ""


class Scale(Strict):
    """How a claim is checked at one scale, or why it is not."""

    infeasible: Text | None = None
    experiment: Name | None = None
    fidelity: Fidelity | None = None
    expect: Expect | None = None
    deviations: tuple[Text, ...] = Field((), description="how this differs from the paper's own protocol")

    @model_validator(mode="before")
    @classmethod
    def _literal_needs_no_experiment(cls, values: Any) -> Any:
        expect = values.get("expect") if isinstance(values, dict) else None
        if isinstance(expect, dict) and expect.get("kind") == "literal" and values.get("fidelity") is None:
            return {**values, "fidelity": "literal"}
        return values

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Scale:
        if isinstance(self.expect, LiteralExpect) or self.fidelity == "literal":
            if not isinstance(self.expect, LiteralExpect) or self.fidelity != "literal":
                raise ValueError("checks of printed cells, fidelity literal and scale literal go together")
            if self.experiment is not None or self.deviations:
                raise ValueError("checks of printed cells have neither an experiment nor deviations")
            return self
        given = [k for k in ("experiment", "fidelity", "expect") if getattr(self, k) is not None]
        if self.infeasible is not None and (given or self.deviations):
            raise ValueError(f"infeasible stands beside {', '.join(given) or 'deviations'}: give one or the other")
        if self.infeasible is None and len(given) < 3:
            missing = {"experiment", "fidelity", "expect"} - set(given)
            raise ValueError(f"missing: {', '.join(sorted(missing))} (or infeasible, with the reason)")
        if self.fidelity == "proxy" and not self.deviations:
            raise ValueError("a proxy names its deviations from the paper's protocol")
        return self


class Scales(Strict):
    """One entry per scale, or `any` for a check that needs neither data nor an accelerator.

    Beside them `literal`: whether the statement agrees with the numbers that its own source prints.
    """

    paper: Scale | None = None
    gpu: Scale | None = None
    cpu: Scale | None = None
    quick: Scale | None = None
    any: Scale | None = None
    literal: Scale | None = None

    @model_validator(mode="after")
    def _some(self) -> Scales:
        named = [s for s in SCALES if getattr(self, s) is not None]
        if self.any is not None and named:
            raise ValueError(f"any covers every scale; it stands beside {', '.join(named)}")
        if not self.entries():
            raise ValueError("no scale is given")
        for name, scale in self.entries().items():
            if (name == "literal") != isinstance(scale.expect, LiteralExpect):
                raise ValueError("checks of printed cells stand at scale literal, and nothing else does")
        return self

    def entry(self, scale: CheckName) -> Scale | None:
        """How the claim is checked at a scale; `any` stands for each of them but `literal`."""
        entry: Scale | None = getattr(self, scale) if scale == "literal" else self.any or getattr(self, scale)
        return entry

    def entries(self) -> dict[str, Scale]:
        """Those that are given, by name."""
        named = {s: getattr(self, s) for s in CHECKS}
        return {name: scale for name, scale in named.items() if scale is not None}


_FORM_KEYS = {
    "literal": {"checks", "let"},
    "ordering": {"all"},
    "equivalence": {"equal", "within"},
    "trend": {"larger_gain", "increasing", "than", "by", "dip"},
}
_OF_OURS = re.compile(r"\b(a reading of|no sentence|not stated|we ask|our (question|reading|hypothesis))\b", re.I)
_FIXED_FORMS = ("exact", "value")  # a reported number is counted, or measured with an interval; no order stands for it


def _form(kind: Kind, expect: Mapping[str, Any]) -> str | None:
    """Which form of `expect` a mapping is, by its keys and the kind of claim; None if nothing tells."""
    if "checks" in expect:
        return "literal"
    cells = expect.get("cells")
    if isinstance(cells, dict) and kind not in _FIXED_FORMS:
        return "exact" if any(isinstance(c, dict) and "quantity" in c for c in cells.values()) else "value"
    if kind in _FIXED_FORMS:
        return kind
    return next((form for form, keys in _FORM_KEYS.items() if keys & expect.keys()), None) or (
        kind if kind in _FORM_KEYS else None
    )


class Claim(Strict):
    """One checkable statement of a source, with what was reported and how it can be checked."""

    id: ClaimId
    version: PositiveInt = 1
    by: Literal["source", "us"] = Field(
        "source",
        description="who says it: the source; or us, who ask it, suppose it or read it into the source's numbers. What "
        "is ours has outcomes, counts and corrections of its own and is never a verdict on the source",
    )
    source: Source
    kind: Kind
    statement: Text
    reported: Reported | None = None
    scales: Scales
    needs: Needs = Needs()
    elsewhere: tuple[Elsewhere, ...] = ()
    tags: tuple[Name, ...] = ()
    notes: str = ""

    @model_validator(mode="before")
    @classmethod
    def _keys_say_what_is_expected(cls, values: Any) -> Any:
        """Files do not name the form of `expect`: its keys and the claim's kind tell it."""
        if not isinstance(values, dict) or not isinstance(values.get("scales"), dict):
            return values
        kind: Any = values.get("kind")
        if kind not in get_args(Kind):
            return values
        scales = {}
        for name, scale in values["scales"].items():
            if isinstance(scale, dict) and isinstance(scale.get("expect"), dict):
                form = _form(kind, scale["expect"])
                scale = {**scale, "expect": {**({"kind": form} if form else {}), **scale["expect"]}}
            scales[name] = scale
        return {**values, "scales": scales}

    @model_validator(mode="after")
    def _numbers_are_checked_as_numbers(self) -> Claim:
        for name, scale in self.scales.entries().items():
            form = scale.expect.kind if scale.expect else None
            if self.kind in _FIXED_FORMS and form not in (None, "literal", self.kind):
                raise ValueError(f"scales.{name}.expect is of kind {form}, the claim of kind {self.kind}")
        return self

    @model_validator(mode="after")
    def _a_place_in_the_source_or_ours(self) -> Claim:
        if self.by == "source" and (word := _OF_OURS.search(self.source.where)):
            raise ValueError(f"source.where says {word[0]!r}, so that the source does not say it; add `by: us`")
        return self

    @property
    def ours(self) -> bool:
        """Whether we ask it, and the source does not say it."""
        return self.by == "us"

    @model_validator(mode="after")
    def _elsewhere_has_the_same_cells(self) -> Claim:
        for other in self.elsewhere:
            for name in other.cells:
                if self.reported is None or name not in self.reported.cells:
                    raise ValueError(f"elsewhere ({other.by}): no reported cell {name!r}")
        return self

    @property
    def hash(self) -> str:
        """Changes with anything the claim says, and not with keys that it does not use."""
        return content_hash(self.model_dump(mode="json", exclude_defaults=True))


class Family(Strict):
    """Several claims of one place in one file."""

    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]


class Group(Strict):
    """A name for several claims, and the scales at which they are checked; claims without any of them stay out."""

    title: Text
    scale: Annotated[
        tuple[CheckName, ...],
        Field(min_length=1),
        BeforeValidator(
            lambda v: (v,) if isinstance(v, str) else v, json_schema_input_type=CheckName | list[CheckName]
        ),
    ]
    claims: Annotated[tuple[str, ...], Field(min_length=1)]


# --- sources ----------------------------------------------------------------------------------


class Code(Strict):
    """A public implementation."""

    repository: Text
    by: Literal["authors", "others"]
    covers: tuple[Work, ...]
    framework: Text
    note: str = ""


class DataAccess(Strict):
    """A data set that a source uses."""

    title: Text
    access: Literal["public", "registration", "private", "bundled"]
    train: PositiveInt | None = None
    test: PositiveInt | None = None
    note: str = ""


class WeightsAccess(Strict):
    """A model that a source trained or compares with."""

    title: Text
    names: tuple[Text, ...] = Field((), description="under which it can be loaded, with tags; none: never released")
    note: str = ""


class Difference(Strict):
    """Where the released code departs from the text, or says what the text leaves open."""

    text: Text
    code: Text
    effect: str = ""


class Paper(Strict):
    """A source of claims: what it is, and what of it is public."""

    paper: Text = Field(description="as claims name it in source.paper")
    title: Text
    note: str = ""
    framework: str = ""
    randomness: str = Field("", description="initial values, seeds, repetitions: what is random and what is said of it")
    code: tuple[Code, ...] = ()
    data: dict[Name, DataAccess] = Field(default_factory=dict)
    weights: dict[Name, WeightsAccess] = Field(default_factory=dict)
    differences: dict[Name, Difference] = Field(default_factory=dict)


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON of plain values."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """The one JSON text of plain values: keys sorted, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)

"""What a claim file, an experiment file and the groups file may say."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from vitrepro.recipe import NUMBER, ModelSpec, NonNegativeFloat, PositiveFloat, PositiveInt, Strict

ScaleName = Literal["paper", "gpu", "cpu", "quick"]
SCALES: tuple[ScaleName, ...] = ("paper", "gpu", "cpu", "quick")  # most faithful first
Fidelity = Literal["exact", "substitute", "proxy"]
Kind = Literal["exact", "value", "ordering", "trend", "equivalence"]
Quantity = Literal[
    "depth",
    "embed_dim",
    "mlp_dim",
    "num_heads",
    "parameters_m",
    "tokens",
    "forward_gmacs",
    "training_exaflops",
    "permutation_effect",
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


# --- experiments ------------------------------------------------------------------------------


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
    images: PositiveInt | None = Field(None, description="images seen in pre-training, for training_exaflops")
    quantities: Annotated[tuple[Quantity, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _images_where_needed(self) -> AnalyticArm:
        if "training_exaflops" in self.quantities and self.images is None:
            raise ValueError("training_exaflops needs images, the number seen in pre-training")
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


class ValueCheck(Strict):
    """A measured accuracy against a reported one, by equivalence within a margin set beforehand."""

    arm: Name
    margin: Annotated[float, Field(gt=0, lt=50), NUMBER] = Field(
        description="points of top-1; smallest difference that matters"
    )
    direction: Literal["two_sided", "at_least"] = "two_sided"


class ValueExpect(Strict):
    kind: Literal["value"] = "value"
    cells: Annotated[dict[Name, ValueCheck], Field(min_length=1)]


class Comparison(Strict):
    """Top-1 of one arm exceeds another's by more than `by` points, on the same test images."""

    greater: Name
    than: Name
    by: Annotated[float, Field(ge=0, lt=100), NUMBER] = Field(0.0, description="points of top-1")

    @model_validator(mode="after")
    def _two_arms(self) -> Comparison:
        if self.greater == self.than:
            raise ValueError(f"{self.greater!r} is compared with itself")
        return self


class OrderingExpect(Strict):
    """All comparisons must hold, each at full level (intersection-union)."""

    kind: Literal["ordering"] = "ordering"
    all: Annotated[tuple[Comparison, ...], Field(min_length=1)]


class TrendExpect(Strict):
    """One contrast: a larger gain (interaction), or a metric that rises at every step."""

    kind: Literal["trend"] = "trend"
    larger_gain: tuple[Name, Name] | None = Field(None, description="[from, to]: the arms whose gain is larger")
    than: tuple[Name, Name] | None = Field(None, description="[from, to]: the arms whose gain is smaller")
    increasing: Annotated[tuple[Name, ...], Field(min_length=3)] | None = None
    by: Annotated[float, Field(ge=0, lt=100), NUMBER] = Field(0.0, description="points of top-1")

    @model_validator(mode="after")
    def _one_form(self) -> TrendExpect:
        if (self.larger_gain is None) != (self.than is None):
            raise ValueError("larger_gain and than go together")
        if (self.larger_gain is None) == (self.increasing is None):
            raise ValueError("give either larger_gain with than, or increasing")
        arms = self.increasing or (*(self.larger_gain or ()), *(self.than or ()))
        if len(set(arms)) != len(arms):
            raise ValueError(f"an arm stands twice: {list(arms)}")
        return self


class EquivalenceExpect(Strict):
    """Every pair of arms differs by less than `within` points."""

    kind: Literal["equivalence"] = "equivalence"
    equal: Annotated[tuple[Name, ...], Field(min_length=2)]
    within: Annotated[float, Field(gt=0, lt=50), NUMBER] = Field(description="points of top-1")

    @model_validator(mode="after")
    def _distinct(self) -> EquivalenceExpect:
        if len(set(self.equal)) != len(self.equal):
            raise ValueError(f"an arm stands twice: {list(self.equal)}")
        return self


Expect: TypeAlias = Annotated[
    ExactExpect | ValueExpect | OrderingExpect | TrendExpect | EquivalenceExpect, Field(discriminator="kind")
]


# --- claims -----------------------------------------------------------------------------------


class Source(Strict):
    paper: Text = Field(description="arxiv:ID with its version, or a URL, or owner/repository")
    where: Text = Field(description="table, figure, section or page")


class Cell(Strict):
    """One reported number."""

    value: Annotated[float, NUMBER]
    sd: PositiveFloat | None = Field(None, description="the printed deviation over runs")
    runs: PositiveInt | None = Field(None, description="number of runs behind the value")


def _number_is_cell(value: Any) -> Any:
    return value if isinstance(value, dict | BaseModel) else {"value": value}


class Reported(Strict):
    unit: Text
    cells: Annotated[
        dict[Name, Annotated[Cell, BeforeValidator(_number_is_cell, json_schema_input_type=float | Cell)]],
        Field(min_length=1),
    ]


class Scale(Strict):
    """How a claim is checked at one scale, or why it is not."""

    infeasible: Text | None = None
    experiment: Name | None = None
    fidelity: Fidelity | None = None
    expect: Expect | None = None
    deviations: tuple[Text, ...] = Field((), description="how this differs from the paper's own protocol")

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Scale:
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
    """One entry per scale, or `any` for a check that needs neither data nor an accelerator."""

    paper: Scale | None = None
    gpu: Scale | None = None
    cpu: Scale | None = None
    quick: Scale | None = None
    any: Scale | None = None

    @model_validator(mode="after")
    def _some(self) -> Scales:
        named = [s for s in SCALES if getattr(self, s) is not None]
        if self.any is None and not named:
            raise ValueError("no scale is given")
        if self.any is not None and named:
            raise ValueError(f"any covers every scale; it stands beside {', '.join(named)}")
        return self

    def entry(self, scale: ScaleName) -> Scale | None:
        entry: Scale | None = self.any or getattr(self, scale)
        return entry

    def entries(self) -> dict[str, Scale]:
        """Those that are given, by name."""
        named = {s: getattr(self, s) for s in ("any", *SCALES)}
        return {name: scale for name, scale in named.items() if scale is not None}


class Claim(Strict):
    """One checkable statement of a source, with what was reported and how it can be checked."""

    id: ClaimId
    version: PositiveInt = 1
    source: Source
    kind: Kind
    statement: Text
    reported: Reported | None = None
    scales: Scales
    tags: tuple[Name, ...] = ()
    notes: str = ""

    @model_validator(mode="before")
    @classmethod
    def _kind_decides_what_is_expected(cls, values: Any) -> Any:
        """Files say the kind once; it tells which form `expect` has at every scale."""
        kind = values.get("kind") if isinstance(values, dict) else None
        if kind not in get_args(Kind) or not isinstance(values.get("scales"), dict):
            return values
        scales = {}
        for name, scale in values["scales"].items():
            if isinstance(scale, dict) and isinstance(scale.get("expect"), dict):
                scale = {**scale, "expect": {"kind": kind, **scale["expect"]}}
            scales[name] = scale
        return {**values, "scales": scales}

    @model_validator(mode="after")
    def _one_kind(self) -> Claim:
        for name, scale in self.scales.entries().items():
            if scale.expect is not None and scale.expect.kind != self.kind:
                raise ValueError(f"scales.{name}.expect is of kind {scale.expect.kind}, the claim of kind {self.kind}")
        return self

    @property
    def hash(self) -> str:
        """Changes with anything the claim says."""
        return content_hash(self.model_dump(mode="json"))


class Family(Strict):
    """Several claims of one place in one file."""

    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]


class Group(Strict):
    """A name for several claims, checked at one scale."""

    title: Text
    scale: ScaleName
    claims: Annotated[tuple[str, ...], Field(min_length=1)]


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON of plain values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

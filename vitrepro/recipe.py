"""What one run is made of: data, augmentation, model and training, as a claim file may state them.

Every field is in effect: a setting that cannot be honoured is refused, not ignored. Defaults are part
of the recipe and of a run's identity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from vitrepro.catalog import DATASETS, DatasetName

PosEmbed = Literal["none", "learned_1d", "learned_2d", "relative", "sinusoid_2d"]
Pool = Literal["cls", "gap", "first"]
Activation = Literal["gelu", "relu"]
Arithmetic = Literal["fp32", "tf32", "bf16", "fp16"]
Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
MeasureName = Literal[
    "position_distance_correlation",
    "position_row_column_excess",
    "position_sinusoid_peak",
    "attention_low_max",
    "attention_low_min",
    "attention_depth_correlation",
    "attention_low_spread_excess",
    "attention_wide_share_second_half",
    "attention_entropy_share",
]
TrainingMeasure = Literal[  # of models of any family
    "confidence", "overconfidence", "gradient_norm_spread", "clipped_share", "train_top1"
]
EvaluatedSplit = Literal["dev", "test"]
MAX_EPOCHS = 10_000  # that are looked at one by one


def _not_a_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


# pydantic's own would read `steps: true` as one step
NUMBER = BeforeValidator(_not_a_truth_value)
PositiveInt = Annotated[int, Field(gt=0), NUMBER]
Layers = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
NonNegativeInt = Annotated[int, Field(ge=0), NUMBER]
PositiveFloat = Annotated[float, Field(gt=0.0), NUMBER]
NonNegativeFloat = Annotated[float, Field(ge=0.0), NUMBER]
Probability = Annotated[float, Field(ge=0.0, lt=1.0), NUMBER]


def _tagged(name: str) -> str:
    if not re.fullmatch(r"\w+\.\w+", name, re.ASCII):
        raise ValueError(
            f"weights {name!r} is no timm name with its tag, such as vit_base_patch16_224.orig_in21k; without the tag "
            "a name can mean other weights than those of the paper"
        )
    return name


WeightsName = Annotated[str, AfterValidator(_tagged)]

# depth, embed_dim, mlp_dim, num_heads of the sizes that have a name
VIT_SIZES: dict[str, tuple[int, int, int, int]] = {
    "Ti": (12, 192, 768, 3),
    "S": (12, 384, 1536, 6),
    "B": (12, 768, 3072, 12),
    "L": (24, 1024, 4096, 16),
    "H": (32, 1280, 5120, 16),
}
# Keys of a ViT that say how it departs from the paper's. They came when runs were stored already, so that where they
# are at their defaults they are no part of a run's identity.
VIT_DEPARTURES = (
    "norm",
    "attention_scale",
    "activation",
    "layer_norm_eps",
    "init",
    "layer_init",
    "embed_init",
    "attention_dropout",
    "attention_dropout_in_evaluation",
)
VitVariant = Literal["Ti/16", "S/16", "S/32", "B/16", "B/32", "L/16", "L/32", "H/14"]

# blocks per stage, block
RESNETS: dict[str, tuple[tuple[int, ...], Literal["basic", "bottleneck"]]] = {
    "R18": ((2, 2, 2, 2), "basic"),
    "R50": ((3, 4, 6, 3), "bottleneck"),
    "R101": ((3, 4, 23, 3), "bottleneck"),
    "R152": ((3, 8, 36, 3), "bottleneck"),
    "R200": ((3, 24, 36, 3), "bottleneck"),
}
ResNetVariant = Literal["R18", "R50", "R101", "R152", "R200"]


class Strict(BaseModel):
    """A part of a file: unknown keys, NaN and infinity are refused, and it never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class DataSpec(Strict):
    """Which images: a data set, a subset of its classes, a subset of its training images."""

    name: DatasetName
    classes: tuple[NonNegativeInt, ...] | None = Field(
        None, description="keep these labels only and renumber them 0..k-1 in this order"
    )
    train_images: PositiveInt | None = Field(
        None,
        description="a class-balanced subset of the training split, drawn per seed, nested in larger ones",
    )
    test_images: PositiveInt | None = Field(
        None, description="a trial run only: the first n test images. Never enough for a PASS"
    )
    dev_fraction: Probability = Field(
        0.0, description="share of the training images held out, seen by no optimiser step"
    )

    @property
    def num_classes(self) -> int:
        return len(self.classes) if self.classes is not None else DATASETS[self.name].num_classes

    @model_validator(mode="after")
    def _classes_exist(self) -> DataSpec:
        info = DATASETS[self.name]
        if self.classes is not None:
            if len(set(self.classes)) != len(self.classes):
                raise ValueError(f"classes holds a label twice: {list(self.classes)}")
            if len(self.classes) < 2:
                raise ValueError("classes needs at least two labels, or no accuracy means anything")
            bad = [c for c in self.classes if c >= info.num_classes]
            if bad:
                raise ValueError(f"classes holds {bad}, {self.name} has labels 0 to {info.num_classes - 1}")
        for split, asked, has in (
            ("train_images", self.train_images, info.train),
            ("test_images", self.test_images, info.test),
        ):
            if asked is not None and asked > has:
                raise ValueError(f"{split} is {asked}, {self.name} has {has}")
        return self


class ColorJitter(Strict):
    """Factors drawn per image from [1-x, 1+x] (hue: shift from [-x, x]), applied in this order."""

    brightness: Annotated[float, Field(ge=0, le=1), NUMBER] = 0.0
    contrast: Annotated[float, Field(ge=0, le=1), NUMBER] = 0.0
    saturation: Annotated[float, Field(ge=0, le=1), NUMBER] = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5), NUMBER] = 0.0


class RandomResizedCrop(Strict):
    """A crop of random area and aspect ratio, resized back to the image size (bilinear)."""

    scale: tuple[PositiveFloat, PositiveFloat] = (0.08, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _ordered(self) -> RandomResizedCrop:
        if not (self.scale[0] <= self.scale[1] <= 1.0) or self.ratio[0] > self.ratio[1]:
            raise ValueError("scale and ratio are [smallest, largest], and no crop is larger than the image")
        return self


class AugmentSpec(Strict):
    """Augmentation of training batches, on the device. Nothing here touches evaluation but the normalisation."""

    flip: bool = Field(False, description="mirror half of the images")
    crop_padding: NonNegativeInt = Field(0, description="pad by this many pixels (zeros), crop back at a random place")
    random_resized_crop: RandomResizedCrop | None = None
    color_jitter: ColorJitter | None = None
    mixup: NonNegativeFloat = Field(0.0, description="alpha of the Beta distribution of mixing weights")
    mean: Annotated[float, NUMBER] = Field(0.5, description="pixels are scaled to [0, 1], then (x - mean) / std")
    std: PositiveFloat = 0.5


class HybridStem(Strict):
    """A ResNet (group norm, weight standardisation) whose feature map the Transformer reads."""

    layers: Layers = Field((3, 4, 9), description="bottleneck blocks per stage")
    width: PositiveInt = 64

    @model_validator(mode="after")
    def _whole_groups(self) -> HybridStem:
        if self.width % 32:
            raise ValueError(f"a hybrid's stem has 32 groups, width {self.width} is not a multiple of 32")
        return self


class ViTSpec(Strict):
    """A Vision Transformer by a variant's name or by its sizes, as in the paper where nothing else is said."""

    family: Literal["vit"] = "vit"
    variant: VitVariant | None = None
    patch_size: PositiveInt | None = Field(None, description="pixels, or cells of the stem's feature map in a hybrid")
    embed_dim: PositiveInt | None = None
    depth: PositiveInt | None = None
    num_heads: PositiveInt | None = None
    mlp_dim: PositiveInt | None = Field(None, description="4 x embed_dim unless given")
    pos_embed: PosEmbed = Field(
        "learned_1d", description="sinusoid_2d: fixed, half of the width for the row and half for the column"
    )
    pool: Pool = Field(
        "cls", description="what the head reads: the class token, the mean of the patches, or the first patch's token"
    )
    qkv_bias: bool = True
    attention: Literal["global", "axial", "batch"] = Field(
        "global",
        description="axial: each layer is attention within rows of patches and an MLP, then within columns and an MLP. "
        "batch: among the images of a batch, at each place of the sequence, as torch's TransformerEncoder does to "
        "(batch, tokens, width) without batch_first; predictions then depend on the batch",
    )
    attention_scale: Literal["normal", "inverted"] = Field(
        "normal", description="queries times keys are divided by the root of a head's width; inverted: multiplied by it"
    )
    norm: Literal["pre", "post"] = Field(
        "pre", description="before each half of a layer, or post: of its sum with what it read, as in torch's layers"
    )
    attention_norm: Literal["pre", "unused"] = Field(
        "pre", description="unused: defined but never called, so that attention reads tokens as they are"
    )
    final_norm: bool = Field(True, description="normalise what the head reads")
    layer_norm_eps: PositiveFloat = 1e-6
    activation: Activation = Field("gelu", description="of the MLPs")
    dropout: Probability = Field(
        0.0, description="after every dense layer but qkv and the head, and after the addition of position embeddings"
    )
    attention_dropout: Probability = Field(0.0, description="of attention weights, in training")
    attention_dropout_in_evaluation: bool = Field(
        False,
        description="drop attention weights in evaluation too, as code does that always passes dropout_p to torch's "
        "scaled_dot_product_attention",
    )
    init: Literal["paper", "torch"] = Field(
        "paper",
        description="how layers start: as in the authors' code, or torch: as torch.nn makes Linear, Conv2d and "
        "MultiheadAttention, the head too",
    )
    layer_init: Literal["each", "copied"] = Field(
        "each",
        description="each layer starts with weights of its own, or copied: with those of the first, as the deep copies "
        "of torch's TransformerEncoder do",
    )
    embed_init: Literal["small", "unit"] = Field(
        "small",
        description="class token of zeros and position embeddings of deviation 0.02, or unit: normal, of deviation 1",
    )
    hybrid: HybridStem | None = None
    image_size: PositiveInt | None = Field(
        None,
        description="input pixels per side; images are resized to it. The data set's own size unless given",
    )
    weights: WeightsName | None = Field(
        None, description="released weights to start from, all but the head; a timm name with its full tag"
    )

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_the_variant(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("variant"), str):
            return values
        size, _, patch = values["variant"].partition("/")
        if size not in VIT_SIZES or not patch.isdigit():
            return values  # the field's own check says what is allowed
        depth, embed_dim, mlp_dim, num_heads = VIT_SIZES[size]
        named = {
            "depth": depth,
            "embed_dim": embed_dim,
            "mlp_dim": mlp_dim,
            "num_heads": num_heads,
        }
        if values.get("hybrid") is None:
            named["patch_size"] = int(patch)
        clash = [k for k, v in named.items() if values.get(k) is not None and values[k] != v]
        if clash:
            raise ValueError(f"variant {values['variant']} already fixes {', '.join(clash)}: give one or the other")
        return {**values, **named}

    @model_validator(mode="after")
    def _complete(self) -> ViTSpec:
        missing = [k for k in ("patch_size", "embed_dim", "depth", "num_heads") if getattr(self, k) is None]
        if missing:
            raise ValueError(f"give a variant or all sizes; missing: {', '.join(missing)}")
        assert self.embed_dim is not None
        assert self.num_heads is not None
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")
        if self.pos_embed == "learned_2d" and self.embed_dim % 2:
            raise ValueError(f"learned_2d gives each axis half of embed_dim, which is odd: {self.embed_dim}")
        if self.pos_embed == "sinusoid_2d" and self.embed_dim % 4:
            raise ValueError(
                f"sinusoid_2d has sines and cosines of two axes, a quarter of embed_dim {self.embed_dim} each"
            )
        if self.pos_embed == "relative" and self.pool == "cls" and self.depth == 1:
            raise ValueError(
                "relative with pool cls and depth 1 is blind to position: the class token has no offsets to patches"
            )
        if self.attention == "axial" and (self.pool == "cls" or self.pos_embed == "relative"):
            raise ValueError(
                "axial attention runs along rows and columns of patches: it needs pool gap or first, since a class "
                "token is in neither, and a pos_embed other than relative, whose offsets are those of one sequence"
            )
        if self.attention == "batch" and self.pos_embed == "relative":
            raise ValueError("relative positions are offsets between an image's patches, and attention batch has none")
        if self.norm == "post" and self.attention_norm == "unused":
            raise ValueError("attention_norm unused leaves out the norm before attention; with norm post there is none")
        if self.init == "torch" and self.hybrid:
            raise ValueError("init torch is of plain layers; the stem of a hybrid starts in a way of its own")
        if self.layer_init == "copied" and self.depth == 1:
            raise ValueError("layer_init copied: a single layer has no other to be a copy of")
        if self.embed_init == "unit" and self.pool != "cls" and self.pos_embed in ("none", "sinusoid_2d"):
            raise ValueError("embed_init unit: with neither class token nor learned positions nothing starts so")
        if self.attention_dropout_in_evaluation and not self.attention_dropout:
            raise ValueError("attention_dropout_in_evaluation needs an attention_dropout above 0")
        if self.weights and (self.hybrid or (self.pos_embed, self.pool) != ("learned_1d", "cls")):
            raise ValueError(
                f"weights {self.weights} fit a ViT with pos_embed learned_1d, pool cls and no hybrid; "
                "use family timm for others"
            )
        strange = [name for name in self.departures if not name.startswith("attention_dropout")]
        strange += ["attention"] if self.attention != "global" else []
        if self.weights and strange:
            raise ValueError(f"weights {self.weights} fit the paper's ViT; this one has another {', '.join(strange)}")
        return self

    @model_serializer(mode="wrap")
    def _without_later_defaults(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """As JSON, which identities are made of, without the departures that this model does not make."""
        values: dict[str, Any] = handler(self)
        if info.mode == "json":
            for name in set(VIT_DEPARTURES).difference(self.departures):
                values.pop(name, None)
        return values

    @property
    def departures(self) -> tuple[str, ...]:
        """Which of `VIT_DEPARTURES` it makes."""
        fields = type(self).model_fields
        return tuple(name for name in VIT_DEPARTURES if getattr(self, name) != fields[name].default)

    @property
    def logit_scale(self) -> float:
        """What products of queries and keys are multiplied by."""
        _, embed_dim, _, num_heads, _ = self.sizes
        return (embed_dim // num_heads) ** (-0.5 if self.attention_scale == "normal" else 0.5)

    @property
    def reads_one_place(self) -> bool:
        """Whether logits are read off the first token, and nothing brings it anything of an image's other tokens."""
        return self.pool != "gap" and self.attention == "batch" and self.hybrid is None

    @property
    def reads_first_token(self) -> bool:
        """Whether logits are read off the first token and no other token's last query, projection or MLP matters."""
        return self.pool != "gap" and self.attention == "global" and self.pos_embed != "relative"

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """patch_size, embed_dim, depth, num_heads, mlp_dim."""
        assert self.patch_size is not None
        assert self.embed_dim is not None
        assert self.depth is not None
        assert self.num_heads is not None
        mlp_dim = self.mlp_dim or 4 * self.embed_dim
        return self.patch_size, self.embed_dim, self.depth, self.num_heads, mlp_dim


class ResNetSpec(Strict):
    """A residual network: `bn` as in He et al. with batch norm, `bit` pre-activation with group norm and
    weight standardisation as in Big Transfer."""

    family: Literal["resnet"] = "resnet"
    variant: ResNetVariant | None = None
    layers: Layers | None = Field(None, description="residual blocks per stage")
    block: Literal["basic", "bottleneck"] | None = None
    style: Literal["bn", "bit"] = "bn"
    width: PositiveInt = Field(64, description="channels of the stem; 128 is a BiT 'x2'")
    stem: Literal["imagenet", "small"] = Field(
        "imagenet", description="7x7 stride 2 and a pool, or 3x3 stride 1 for small images"
    )
    image_size: PositiveInt | None = Field(
        None,
        description="input pixels per side; images are resized to it. The data set's own size unless given",
    )

    @model_validator(mode="before")
    @classmethod
    def _blocks_of_the_variant(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("variant") not in list(RESNETS):  # which may be unhashable
            return values
        layers, block = RESNETS[values["variant"]]
        for key, named in (("layers", layers), ("block", block)):
            given = values.get(key)
            if given is not None and (tuple(given) if isinstance(given, list) else given) != named:
                raise ValueError(f"variant {values['variant']} already fixes {key}: give one or the other")
        return {**values, "layers": layers, "block": block}

    @model_validator(mode="after")
    def _complete(self) -> ResNetSpec:
        if self.layers is None or self.block is None:
            raise ValueError("give a variant, or both layers and block")
        if self.style == "bit" and self.block != "bottleneck":
            raise ValueError("style bit is defined for bottleneck blocks")
        if self.style == "bit" and self.width % 32:
            raise ValueError(f"style bit has 32 groups, width {self.width} is not a multiple of 32")
        return self


class LibraryModelSpec(Strict):
    """A model of timm or torchvision by its name, with new weights unless some are named."""

    family: Literal["timm", "torchvision"]
    name: str
    image_size: PositiveInt | None = Field(
        None,
        description="input pixels per side; images are resized to it. The data set's own size unless given",
    )
    weights: WeightsName | None = Field(
        None, description="released weights to start from, all but the head; a timm name with its full tag"
    )
    dropout: Probability = Field(0.0, description="of timm's Vision Transformers, placed as in family vit")

    @model_validator(mode="after")
    def _of_timm(self) -> LibraryModelSpec:
        if self.family == "torchvision" and (self.weights or self.dropout):
            raise ValueError("weights and dropout are for family timm; torchvision models start anew, as they are")
        return self


ModelSpec = Annotated[ViTSpec | ResNetSpec | LibraryModelSpec, Field(discriminator="family")]
EVALUATION_BATCH = 256  # where no prediction depends on it


def attends_across_batch(model: ModelSpec) -> bool:
    """Whether an image's logits depend on which images are in its batch, in evaluation as well."""
    return isinstance(model, ViTSpec) and model.attention == "batch"


class TrainSpec(Strict):
    """The optimisation.

    Weight decay falls on matrices and kernels, not on biases, norms or embeddings of position and class; that of
    `adam`, a penalty in the gradient, on every parameter.
    """

    steps: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    batch_size: PositiveInt
    micro_batch: PositiveInt | None = Field(
        None, description="images per backward pass; gradients are accumulated up to batch_size"
    )
    optimizer: Literal["sgd", "adamw", "adam"] = Field(
        "adamw", description="adam: as torch.optim.Adam of all parameters, whose decay is added to the gradient"
    )
    lr: PositiveFloat | None = None
    lr_grid: Annotated[tuple[PositiveFloat, ...], Field(min_length=2)] | None = Field(
        None,
        description="instead of lr: rates judged on the dev split; the best, or the smallest of equals, then trains "
        "on all training images",
    )
    weight_decay: NonNegativeFloat = 0.0
    momentum: Probability = Field(0.9, description="of sgd")
    betas: tuple[Probability, Probability] = Field((0.9, 0.999), description="of adamw and adam")
    schedule: Literal["constant", "linear", "cosine"] = Field("cosine", description="decay to zero after the warm-up")
    warmup_steps: NonNegativeInt = 0
    clip_norm: PositiveFloat | None = Field(None, description="largest global gradient norm")
    label_smoothing: Probability = 0.0
    polyak: Annotated[float, Field(gt=0, lt=1), NUMBER] | None = Field(
        None, description="evaluate the moving average of the weights that keeps this share of itself at each step"
    )
    precision: Precision = Field(
        "auto",
        description="of products and convolutions; weights and statistics are float32. auto: bf16 where the device "
        "multiplies it, else fp16 on CUDA and fp32 on the CPU",
    )
    engine: Literal["fast", "plain"] = Field(
        "fast", description="plain: the model as it is written down, with every choice made for speed switched off"
    )
    deterministic: bool = Field(False, description="only kernels that give the same bits again on the same machine")
    batch_norm: Literal["batch", "process"] = Field(
        "batch", description="statistics of the whole batch, or of each process's share where several share a run"
    )
    evaluate_epochs: tuple[EvaluatedSplit, ...] = Field(
        (), description="splits of which right answers are counted after every epoch"
    )
    keep: Literal["last", "best-on-dev", "best-on-test"] = Field(
        "last",
        description="the epoch whose weights are tested; best: the first with the most right answers on that split. "
        "best-on-test chooses by the very images that are reported, and every verdict says so",
    )
    patience: PositiveInt | None = Field(
        None,
        description="stop after so many epochs in a row without a new best on the split of keep; epochs is then the "
        "most, over which the schedule is planned",
    )
    trainable: Literal["all", "head"] = Field(
        "all",
        description="head: the last layer alone, on the frozen features of model.weights; dropout and batch norm go on "
        "as in any training, as where a program only withholds gradients",
    )

    @property
    def chosen_on(self) -> EvaluatedSplit | None:
        """The split by which the epoch is chosen, if it is."""
        chosen: dict[str, EvaluatedSplit | None] = {"last": None, "best-on-dev": "dev", "best-on-test": "test"}
        return chosen[self.keep]

    @field_validator("evaluate_epochs")
    @classmethod
    def _each_split_once(cls, splits: tuple[EvaluatedSplit, ...]) -> tuple[EvaluatedSplit, ...]:
        if len(set(splits)) != len(splits):
            raise ValueError(f"a split stands twice: {list(splits)}")
        return tuple(sorted(splits))

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Keys that came later are left out of JSON where they change nothing, so that runs keep their ids."""
        values: dict[str, Any] = handler(self)
        later: dict[str, Any] = {"evaluate_epochs": [], "keep": "last", "patience": None, "trainable": "all"}
        later = later if info.mode == "json" else {}
        return {key: value for key, value in values.items() if key not in later or value != later[key]}

    @model_validator(mode="after")
    def _one_length(self) -> TrainSpec:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if (self.lr is None) == (self.lr_grid is None):
            raise ValueError("give either lr or lr_grid, and null for the other")
        if self.lr_grid is not None and len(set(self.lr_grid)) != len(self.lr_grid):
            raise ValueError(f"lr_grid holds a rate twice: {list(self.lr_grid)}")
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} leaves nothing of {self.steps} steps")
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}")
        if self.chosen_on is not None and self.chosen_on not in self.evaluate_epochs:
            raise ValueError(f"keep {self.keep} needs {self.chosen_on} among evaluate_epochs")
        if self.patience is not None and self.chosen_on is None:
            raise ValueError("patience waits for a new best epoch: it needs keep best-on-dev or best-on-test")
        if self.evaluate_epochs and self.epochs is None:
            raise ValueError("evaluate_epochs needs a length in epochs, not in steps")
        if self.evaluate_epochs and self.lr_grid is not None:
            raise ValueError("evaluate_epochs goes with lr, not with lr_grid, whose last training has no dev split")
        return self


class Recipe(Strict):
    """All that determines what a run leaves behind, but for the seed."""

    data: DataSpec
    augment: AugmentSpec = AugmentSpec()
    model: ModelSpec
    train: TrainSpec
    measures: tuple[MeasureName | TrainingMeasure, ...] = Field(
        (), description="taken of the trained model or its training, beside its accuracy"
    )

    @field_validator("measures", mode="before")
    @classmethod
    def _not_of_an_epoch(cls, names: Any) -> Any:
        for name in names if isinstance(names, list | tuple) else ():
            if isinstance(name, str) and ("_epoch_" in name or name == "selection_gain"):
                raise ValueError(f"{name} follows from the epochs of every run and is not listed; claims may name it")
        return names

    @model_validator(mode="after")
    def _measures_exist(self) -> Recipe:
        of_vit = [m for m in self.measures if m in get_args(MeasureName)]
        if of_vit and not isinstance(self.model, ViTSpec):
            raise ValueError(f"{of_vit[0]} is taken of models of family vit, not of family {self.model.family}")
        if "gradient_norm_spread" in self.measures and self.steps < 2:
            raise ValueError("gradient_norm_spread needs two steps or more")
        if "clipped_share" in self.measures and self.train.clip_norm is None:
            raise ValueError("clipped_share is of steps whose gradient is clipped and needs train.clip_norm")
        if isinstance(self.model, ViTSpec):
            attended = [m for m in self.measures if m.startswith("attention_")]
            if attended and self.model.attention != "global":
                raise ValueError(
                    f"{attended[0]} is of attention among all tokens of an image; attention "
                    f"{self.model.attention} is not"
                )
            learned = self.model.pos_embed in ("learned_1d", "learned_2d")
            positions = [m for m in self.measures if m.startswith("position_")]
            if positions and not learned:
                raise ValueError(f"{positions[0]} needs learned position embeddings, not {self.model.pos_embed}")
            if "attention_entropy_share" in self.measures and self.model.pool != "cls":
                raise ValueError("attention_entropy_share is of the class token's attention and needs pool cls")
        return self

    @property
    def image_size(self) -> int:
        """Pixels per side that the model sees."""
        return self.model.image_size or DATASETS[self.data.name].image_size

    @property
    def channels(self) -> int:
        return DATASETS[self.data.name].channels

    @property
    def eval_batch(self) -> int:
        """Images evaluated at once: as in training where a prediction depends on those, else as many as are fast."""
        return self.train.batch_size if attends_across_batch(self.model) else EVALUATION_BATCH

    @property
    def weights(self) -> str | None:
        """Name of the released weights that training starts from, or None."""
        return None if isinstance(self.model, ResNetSpec) else self.model.weights

    @property
    def dev_images(self) -> int:
        """Training images held out to judge on."""
        return dev_size(self.data.train_images or class_share(self.data, "train"), self.data.dev_fraction)

    @property
    def train_size(self) -> int:
        """Training images that optimiser steps of the final weights may see: with a grid of rates, dev images too."""
        total = self.data.train_images or class_share(self.data, "train")
        return total if self.train.lr_grid else total - self.dev_images

    @property
    def test_size(self) -> int:
        """Test images a complete evaluation covers, whatever `test_images` says."""
        return class_share(self.data, "test")

    @property
    def steps(self) -> int:
        """Optimiser steps; an epoch's last, smaller batch is filled from the next epoch."""
        if self.train.steps is not None:
            return self.train.steps
        assert self.train.epochs is not None
        return max(1, round(self.train.epochs * self.train_size / self.train.batch_size))

    @property
    def epoch_ends(self) -> tuple[int, ...]:
        """Steps after which each epoch is over, of the last perhaps only a part; none where nothing is by epochs.

        That is where steps are given, where an epoch is less than a step, or where epochs are too many to look at.
        """
        epochs, per_epoch = self.train.epochs, self.train_size / self.train.batch_size
        if epochs is None or epochs > MAX_EPOCHS:
            return ()
        whole = (round(k * per_epoch) for k in range(1, math.floor(epochs) + 1))
        ends = (*(end for end in whole if end < self.steps), self.steps)
        return ends if ends[0] > 0 and len(set(ends)) == len(ends) else ()

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run as planned: behind the final weights, and of every rate of a grid."""
        return self.steps + sum(self.at_rate(lr).steps for lr in self.train.lr_grid or ())

    def at_rate(self, lr: float) -> Recipe:
        """One point of the grid: this rate, with the dev split held out."""
        return self.model_copy(update={"train": self.train.model_copy(update={"lr": lr, "lr_grid": None})})

    def refit(self, lr: float) -> Recipe:
        """What follows the grid: the rate it chose, on all training images."""
        return self.at_rate(lr).model_copy(update={"data": self.data.model_copy(update={"dev_fraction": 0.0})})

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if isinstance(self.model, ViTSpec):
            check_grid(self.model, self.image_size)
        if attends_across_batch(self.model) and self.train.micro_batch not in (None, self.train.batch_size):
            raise ValueError(
                f"train.micro_batch {self.train.micro_batch} cuts the batch of {self.train.batch_size} across which "
                "model.attention batch goes; leave it out, and choose a smaller train.batch_size where memory is short"
            )
        if self.train.trainable == "head" and getattr(self.model, "weights", None) is None:
            raise ValueError("train.trainable head needs model.weights; else the frozen features are random")
        if self.train.warmup_steps >= self.steps:
            raise ValueError(f"train.warmup_steps {self.train.warmup_steps} leaves nothing of {self.steps} steps")
        if self.augment.crop_padding and self.augment.random_resized_crop:
            raise ValueError("augment has two croppings: crop_padding and random_resized_crop")
        if self.augment.color_jitter and self.channels != 3:
            raise ValueError(f"augment.color_jitter needs colour images, {self.data.name} has {self.channels} channel")
        share = class_share(self.data, "train")
        if self.data.train_images and self.data.classes and self.data.train_images > 1.1 * share:
            raise ValueError(f"data.train_images is {self.data.train_images}, the kept classes have about {share}")
        if self.train.lr_grid and not self.dev_images:
            raise ValueError("train.lr_grid is judged on the dev split, and data.dev_fraction leaves that empty")
        if "dev" in self.train.evaluate_epochs and not self.dev_images:
            raise ValueError("train.evaluate_epochs has the dev split, and data.dev_fraction leaves that empty")
        if self.train.evaluate_epochs and not self.epoch_ends:
            raise ValueError(f"train.evaluate_epochs needs epochs of a step or more, and at most {MAX_EPOCHS:,}")
        smallest = self.train_size - (self.dev_images if self.train.lr_grid else 0)
        if smallest < self.data.num_classes:
            raise ValueError(f"{smallest} training images for {self.data.num_classes} classes")
        return self


# settings of how a recipe is computed; all others are of what is computed
COMPUTING = ("train.precision", "train.engine", "train.deterministic", "train.batch_norm", "train.micro_batch")


def apart(a: Recipe, b: Recipe) -> str | None:
    """The first setting in which two recipes differ, beside how they are computed; None where there is none."""
    settings, others = (dict(_settings(r.model_dump())) for r in (a, b))
    paths = dict.fromkeys((*settings, *others))
    return next((p for p in paths if p not in COMPUTING and settings.get(p) != others.get(p)), None)


def _settings(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its key path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def check_grid(model: ViTSpec, image_size: int) -> int:
    """Patches per side of a ViT at this image size.

    Raises:
        ValueError: the patches do not cover the image exactly.
    """
    patch, *_ = model.sizes
    stride = 2 ** (len(model.hybrid.layers) + 1) if model.hybrid else 1  # stem and pool, then one per later stage
    cells, rest = divmod(image_size, stride * patch)
    if rest or not cells:
        raise ValueError(f"an image of {image_size} pixels is not covered by patches of {stride * patch}")
    return cells


def class_share(data: DataSpec, split: Literal["train", "test"]) -> int:
    """Images of a split that belong to the kept classes, if all classes are equally large.

    Exact for balanced data sets (CIFAR-10) and for all classes; where classes differ in size the loader's count holds.
    """
    info = DATASETS[data.name]
    total = info.train if split == "train" else info.test
    return total if data.classes is None else total * len(data.classes) // info.num_classes


def dev_size(total: int, fraction: float) -> int:
    return round(total * fraction)

"""The source's own protocol and the experiments that stand for it, setting by setting, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vitrepro.catalog import DATASETS
from vitrepro.claims import Registry, arms_of, recipes
from vitrepro.cost import recipe_flops
from vitrepro.recipe import LibraryModelSpec, ModelSpec, Recipe, ResNetSpec, ViTSpec
from vitrepro.report.text import number_of
from vitrepro.spec import Claim, LiteralExpect, Paper, Scale, TrainExperiment

SETTINGS = ("work", "data", "models", "resolution", "optimisation", "length", "augmentation", "seeds", "operations")


def side_by_side(claim: Claim, registry: Registry) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a setting, what the source does, and what each scale with an experiment does."""
    paper = registry.papers.get(claim.source.paper)
    columns = {"as reported": reported_protocol(claim, paper, registry)}
    for name, entry in claim.scales.entries().items():
        if entry.experiment is not None and not isinstance(entry.expect, LiteralExpect):
            columns[f"{name} ({entry.fidelity})"] = used_protocol(registry, entry)
    rows = [[setting, *(c.get(setting, "") for c in columns.values())] for setting in SETTINGS]
    return ["setting", *columns], [row for row in rows if any(row[1:])]


def reported_protocol(claim: Claim, paper: Paper | None, registry: Registry) -> dict[str, str]:
    """What the source's protocol takes, as far as the claim's file says."""
    needs = claim.needs
    stands = f"as in {needs.recipe}" if needs.recipe in registry.claims else needs.recipe
    titles = paper.data if paper else {}
    models = paper.weights if paper else {}
    used = (*needs.weights, *needs.baselines)
    runs = sorted({c.runs for c in claim.reported.cells.values() if c.runs}) if claim.reported else []
    return {
        "work": ", ".join(needs.work),
        "data": ", ".join(titles[d].title if d in titles else d for d in needs.data),
        "models": ", ".join(dict.fromkeys(models[w].title if w in models else w for w in used)),
        "optimisation": stands,
        "seeds": f"{', '.join(map(str, runs))} runs" if runs else "",
        "operations": needs.compute and needs.compute + ("" if "Table" in needs.compute else ", by our count"),
    }


def used_protocol(registry: Registry, entry: Scale) -> dict[str, str]:
    """What the experiment of a scale does, over the arms that the claim uses."""
    assert entry.experiment is not None
    assert entry.expect is not None
    experiment = registry.experiment(entry.experiment)
    arms = dict.fromkeys(arm for _, arm in arms_of(entry.expect))
    if not isinstance(experiment, TrainExperiment):
        used = [experiment.arms[a] for a in arms]
        return {
            "work": "counted or computed, nothing trained",
            "models": _joined(model_text(a.model) for a in used),
            "resolution": _joined(f"{a.image_size} px" for a in used),
        }
    made = recipes(experiment)
    used_recipes = [made[a] for a in arms]
    return {
        "work": _joined("fine-tuning" if r.weights else "training" for r in used_recipes),
        "data": _joined(_data(r) for r in used_recipes),
        "models": _joined(model_text(r.model) for r in used_recipes),
        "resolution": _joined(f"{r.image_size} px" for r in used_recipes),
        "optimisation": _joined(_optimisation(r) for r in used_recipes),
        "length": _joined(_length(r) for r in used_recipes),
        "augmentation": _joined(_augmentation(r) for r in used_recipes),
        "seeds": f"{number_of(len(experiment.seeds), 'seed')}, {number_of(len(arms), 'arm')}",
        "operations": compute(used_recipes, len(experiment.seeds)),
    }


def model_text(model: ModelSpec) -> str:
    """A model in a few words, and the released weights that it starts from."""
    if isinstance(model, ResNetSpec):
        return f"ResNet {model.variant or list(model.layers or ())} width {model.width} ({model.style})"
    start = f" from {model.weights}" if model.weights else ""
    if isinstance(model, ViTSpec):
        patch, width, depth, heads, _ = model.sizes
        kind = "hybrid ViT" if model.hybrid else "ViT"
        size = model.variant or f"depth {depth} width {width} heads {heads}"
        return ", ".join([f"{kind} {size} patch {patch}{start}", *_departures(model)])
    assert isinstance(model, LibraryModelSpec)
    return f"{model.family} {model.name}{start}"


def _departures(model: ViTSpec) -> list[str]:
    """In what a ViT departs from the paper's, as attempts at it did."""
    parts = {
        "norms after": model.norm == "post",
        "norms before attention unused": model.attention_norm == "unused",
        "no norm at the end": not model.final_norm,
        "no biases of queries, keys and values": not model.qkv_bias,
        "axial attention": model.attention == "axial",
        "attention across the batch": model.attention == "batch",
        "attention logits times root d": model.attention_scale == "inverted",
        "read off the first patch": model.pool == "first",
        "read off the mean of the patches": model.pool == "gap",
        "ReLU": model.activation == "relu",
        f"layer norm epsilon {model.layer_norm_eps:g}": "layer_norm_eps" in model.departures,
        "layers that start as torch's": model.init == "torch",
        "layers that start alike": model.layer_init == "copied",
        "embeddings that start at deviation 1": model.embed_init == "unit",
    }
    return [name for name, so in parts.items() if so]


def _data(recipe: Recipe) -> str:
    data = recipe.data
    of = f"{data.train_images:,} of " if data.train_images else ""
    return f"{of}{DATASETS[data.name].title}" + (f", {len(data.classes)} classes" if data.classes else "")


def _optimisation(recipe: Recipe) -> str:
    train = recipe.train
    warmup = f", warm-up {train.warmup_steps:,} steps" if train.warmup_steps else ""
    clip = f", clip {train.clip_norm:g}" if train.clip_norm else ""
    smooth = f", label smoothing {train.label_smoothing:g}" if train.label_smoothing else ""
    rate = f"lr {train.lr:g}" if train.lr is not None else "lr chosen on the dev split"
    rate_of_zeros = getattr(recipe.model, "dropout", 0.0)
    dropout = f", dropout {rate_of_zeros:g}" if rate_of_zeros else ""
    if isinstance(recipe.model, ViTSpec) and recipe.model.attention_dropout:
        always = " in evaluation too" if recipe.model.attention_dropout_in_evaluation else ""
        dropout += f", attention dropout {recipe.model.attention_dropout:g}{always}"
    average = f", averaged weights ({train.polyak:g})" if train.polyak else ""
    regularised = f"{clip}{smooth}{dropout}{average}"
    return f"{train.optimizer}, {rate}, decay {train.weight_decay:g}, {train.schedule}{warmup}{regularised}"


def _length(recipe: Recipe) -> str:
    epochs = recipe.steps * recipe.train.batch_size / recipe.train_size
    shown = f"{epochs:,.0f}" if epochs >= 100 else f"{epochs:.3g}"
    split = {None: "", "dev": ", the best on the dev split kept", "test": ", the best on the test split kept"}
    patience = recipe.train.patience
    early = f", over after {number_of(patience, 'epoch')} without a better one" if patience else ""
    return f"{recipe.steps:,} steps of {recipe.train.batch_size} ({shown} epochs{split[recipe.train.chosen_on]}{early})"


def _augmentation(recipe: Recipe) -> str:
    augment = recipe.augment
    parts = {
        "flip": augment.flip,
        f"shift by {augment.crop_padding} px": augment.crop_padding,
        "random resized crop": augment.random_resized_crop,
        "colour jitter": augment.color_jitter,
        f"mixup {augment.mixup:g}": augment.mixup,
    }
    return ", ".join(name for name, on in parts.items() if on) or "none"


def compute(used: Iterable[Recipe], seeds: int) -> str:
    """What training and evaluating every arm from every seed carries out, by formula; empty where a model has none."""
    each = [recipe_flops(recipe) for recipe in used]
    known = [flops for flops in each if flops is not None]
    if len(known) < len(each):
        return ""
    runs = seeds * len(each)
    return flops_text(seeds * sum(known)) + (f" in {runs} runs" if runs > 1 else "")


def flops_text(flops: float) -> str:
    """In the largest unit of which it is one or more."""
    units = ((1e18, "exaFLOPs"), (1e15, "petaFLOPs"), (1e12, "teraFLOPs"), (1e9, "gigaFLOPs"))
    size, unit = next((u for u in units if flops >= u[0]), units[-1])
    return f"{flops / size:.3g} {unit}"


def _joined(parts: Iterable[str], most: int = 4) -> str:
    """Every different text once; beyond `most`, how many more."""
    different: Mapping[str, None] = dict.fromkeys(parts)
    shown = list(different)[:most]
    return "; ".join(shown) + (f"; and {len(different) - most} more" if len(different) > most else "")

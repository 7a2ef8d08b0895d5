"""Released weights: found, fetched, read without running code, and put into models."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from vitrepro import claims, weights
from vitrepro.errors import DataError, DataMissing, UsageError
from vitrepro.models.build import build
from vitrepro.recipe import LibraryModelSpec, Recipe, ViTSpec
from vitrepro.spec import TrainExperiment
from vitrepro.weights import Location, fetch, load, locate, missing_message, read, resized_positions

NAME = "test_vit.orig_in21k"
OURS = ViTSpec(patch_size=16, embed_dim=64, depth=6, num_heads=2, mlp_dim=192, weights=NAME)
TIMMS = LibraryModelSpec(family="timm", name="test_vit", weights=NAME)


@pytest.fixture(autouse=True)
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def released(image_size: int = 64, channels: int = 3, num_classes: int = 5) -> dict[str, Tensor]:
    """The state of a small ViT of timm in which no number is zero."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=image_size, in_chans=channels, num_classes=num_classes)
    return {k: v + 0.05 * torch.randn_like(v) for k, v in model.state_dict().items()}


def stored(folder: Path, state: dict[str, Tensor], ending: str = ".safetensors", name: str = NAME) -> Location:
    """The state as a file of the data folder."""
    path = folder / "weights" / f"{name}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if ending == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return locate(name, folder, folder / "no hub")


def in_hub(cache: Path, file: str = "model.safetensors", name: str = NAME) -> Path:
    """A file as the Hugging Face library keeps it."""
    repository = cache / f"models--timm--{name}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    path = repository / "snapshots" / "abc" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    return path


# --- where they are


@pytest.mark.parametrize("ending", weights.FORMATS)
def test_a_file_of_the_data_folder_is_found_by_its_name(tmp_path: Path, ending: str) -> None:
    file = tmp_path / "weights" / f"{NAME}{ending}"
    file.parent.mkdir()
    file.write_bytes(b"")
    in_hub(tmp_path / "hub")
    assert locate(NAME, tmp_path, tmp_path / "hub").path == file


def test_safetensors_come_before_the_other_formats(tmp_path: Path) -> None:
    stored(tmp_path, released(), ".pt")
    assert stored(tmp_path, released()).path == tmp_path / "weights" / f"{NAME}.safetensors"


@pytest.mark.parametrize("file", weights.HUB_FILES)
def test_a_file_that_was_fetched_before_is_found(tmp_path: Path, file: str) -> None:
    path = in_hub(tmp_path / "hub", file)
    assert locate(NAME, None, tmp_path / "hub").path == path
    assert locate("test_vit.augreg_in21k", None, tmp_path / "hub").path is None


def test_weights_that_are_missing_name_every_place_and_the_command_that_fetches_them(tmp_path: Path) -> None:
    said = missing_message(locate(NAME, tmp_path / "data", tmp_path / "hub"))
    for ending in weights.FORMATS:
        assert str(tmp_path / "data" / "weights" / f"{NAME}{ending}") in said
    assert str(tmp_path / "hub" / f"models--timm--{NAME}") in said
    assert f"vitrepro weights fetch {NAME}" in said
    with pytest.raises(DataMissing, match="vitrepro weights fetch"):
        read(locate(NAME, None, tmp_path / "hub"))


def test_looking_for_weights_loads_neither_torch_nor_timm() -> None:
    code = (
        "import sys; from pathlib import Path; from vitrepro.weights import locate; "
        "locate('a.b', Path('.'), Path('.')); print([m for m in ('torch', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- fetching

KNOWN = "test_vit.r160_in1k"


def test_what_is_here_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
    path = stored(tmp_path, released(), name=KNOWN).path
    assert fetch(KNOWN, tmp_path, tmp_path / "hub") == path


def test_what_is_missing_comes_from_timms_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, file: str, cache_dir: Path) -> str:
        asked.append((repository, file))
        return str(in_hub(cache_dir, name=KNOWN))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    path = fetch(KNOWN, None, tmp_path)
    assert asked == [(f"timm/{KNOWN}", "model.safetensors")]
    assert locate(KNOWN, None, tmp_path).path == path


def test_offline_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
    with pytest.raises(DataMissing, match="looked at"):
        fetch(KNOWN, None, tmp_path, offline=True)


def test_a_hub_out_of_reach_is_missing_weights_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(DataMissing, match=f"{KNOWN} could not be fetched: ConnectionError: no route\n"):
        fetch(KNOWN, None, tmp_path)


def test_a_tag_that_timm_does_not_have_is_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean '.*vit_base_patch16_224\.orig_in21k"):
        fetch("vit_base_patch16_224.orig_in22k", None, tmp_path)


# --- reading files


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth", ".bin"])
def test_a_file_gives_its_tensors_and_its_hash(tmp_path: Path, ending: str) -> None:
    state = released()
    location = stored(tmp_path, state, ending)
    found = read(location)
    assert location.path is not None
    assert found.sha256 == hashlib.sha256(location.path.read_bytes()).hexdigest()
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[k], v) for k, v in state.items())


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_checkpoint_around_the_state_is_opened(tmp_path: Path, key: str) -> None:
    state: Any = {key: released(), "epoch": 3}
    assert read(stored(tmp_path, state, ".pt")).state.keys() == released().keys()


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, (f"open({str(self.marker)!r}, 'w')",))


@pytest.mark.parametrize("ending", [".pt", ".npz"])
def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path: Path, ending: str) -> None:
    marker, path = tmp_path / "ran", tmp_path / "weights" / f"{NAME}{ending}"
    path.parent.mkdir()
    if ending == ".pt":
        torch.save({"cls_token": Payload(marker)}, path)
    else:
        np.savez(path, **{"embedding/kernel": np.array([Payload(marker)], object)})
    with pytest.raises(DataError, match=f"{NAME}{ending}: cannot be read as weights"):
        read(locate(NAME, tmp_path, tmp_path))
    assert not marker.exists()


@pytest.mark.parametrize("ending", weights.FORMATS)
def test_a_damaged_file_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "weights" / f"{NAME}{ending}"
    path.parent.mkdir()
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=f"{NAME}{ending}: cannot be read as weights"):
        read(locate(NAME, tmp_path, tmp_path))


def test_a_pt_file_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a mapping from names to tensors"):
        read(stored(tmp_path, {"epoch": 3}, ".pt"))  # type: ignore[dict-item]


def of_the_authors(state: dict[str, Tensor], heads: int) -> dict[str, np.ndarray]:
    """A ViT of timm with the names and shapes of the authors' files, representation layer included."""
    D = state["cls_token"].shape[-1]
    array = {k: v.numpy() for k, v in state.items()}
    arrays = {
        "cls": array["cls_token"],
        "embedding/kernel": array["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": array["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": array["pos_embed"],
        "Transformer/encoder_norm/scale": array["norm.weight"],
        "Transformer/encoder_norm/bias": array["norm.bias"],
        "head/kernel": array["head.weight"].T,
        "head/bias": array["head.bias"],
        "pre_logits/kernel": np.ones((D, D), np.float32),
        "pre_logits/bias": np.ones(D, np.float32),
    }
    for i in range(6):
        ours, theirs = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        for norm, layer in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[f"{theirs}{layer}/scale"] = array[f"{ours}{norm}.weight"]
            arrays[f"{theirs}{layer}/bias"] = array[f"{ours}{norm}.bias"]
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        weight, bias = (np.split(array[f"{ours}attn.qkv.{k}"], 3) for k in ("weight", "bias"))
        for name, w, b in zip(("query", "key", "value"), weight, bias, strict=True):
            arrays[f"{attention}{name}/kernel"] = w.T.reshape(D, heads, D // heads)
            arrays[f"{attention}{name}/bias"] = b.reshape(heads, D // heads)
        arrays[f"{attention}out/kernel"] = array[f"{ours}attn.proj.weight"].T.reshape(heads, D // heads, D)
        arrays[f"{attention}out/bias"] = array[f"{ours}attn.proj.bias"]
        for r in (1, 2):
            arrays[f"{theirs}MlpBlock_3/Dense_{r - 1}/kernel"] = array[f"{ours}mlp.fc{r}.weight"].T
            arrays[f"{theirs}MlpBlock_3/Dense_{r - 1}/bias"] = array[f"{ours}mlp.fc{r}.bias"]
    return arrays


def npz(folder: Path, arrays: dict[str, np.ndarray]) -> Location:
    (folder / "weights").mkdir()
    np.savez(folder / "weights" / f"{NAME}.npz", **arrays)  # type: ignore[arg-type]
    return locate(NAME, folder, folder)


def test_the_authors_own_files_give_the_same_weights(tmp_path: Path) -> None:
    state = released(image_size=160)
    found = read(npz(tmp_path, of_the_authors(state, heads=2))).state
    assert found.keys() == {k for k in state if not k.startswith("head.")}
    assert all(torch.equal(v, state[k]) for k, v in found.items())


@pytest.mark.parametrize("fault", ["a block less", "a block more", "another patch size"])
def test_the_authors_files_must_fit_the_architecture_of_the_name(tmp_path: Path, fault: str) -> None:
    arrays = of_the_authors(released(image_size=160), heads=2)
    if fault == "a block less":
        arrays = {k: v for k, v in arrays.items() if "encoderblock_5" not in k}
    elif fault == "a block more":
        arrays |= {k.replace("block_5", "block_6"): v for k, v in arrays.items() if "encoderblock_5" in k}
    else:
        arrays["embedding/kernel"] = np.ones((8, 8, 3, 64), np.float32)  # timm would resample it
    with pytest.raises(DataError, match=r"cannot be read as weights \(.*(encoderblock_5|fit test_vit)"):
        read(npz(tmp_path, arrays))


# --- starting from them


def start(spec: Any, state: dict[str, Tensor], tmp_path: Path, image_size: int = 64) -> Any:
    model = build(spec, image_size=image_size, channels=3, num_classes=7)
    load(model, read(stored(tmp_path, state)))
    return model.eval()


@pytest.mark.parametrize("spec", [OURS, TIMMS], ids=["ours", "timm's"])
@torch.no_grad()
def test_a_model_computes_the_features_of_the_released_one_and_has_a_head_of_zeros(tmp_path: Path, spec: Any) -> None:
    state = released()
    theirs = timm.create_model("test_vit", img_size=64, num_classes=5).eval()
    theirs.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    expected = theirs.forward_features(images)[:, 0]
    model = start(spec, state, tmp_path)
    found = model.features(images) if spec is OURS else model.forward_features(images)[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(model(images), torch.zeros(2, 7))


def test_the_whole_head_is_dropped_representation_layer_and_all(tmp_path: Path) -> None:
    state = {**released(), "pre_logits.fc.weight": torch.ones(64, 64), "pre_logits.fc.bias": torch.ones(64)}
    bare = {k: v for k, v in released().items() if not k.startswith("head.")}
    found, expected = (start(OURS, s, tmp_path / str(i)).state_dict() for i, s in enumerate((state, bare)))
    assert all(torch.equal(v, expected[k]) for k, v in found.items())


@pytest.mark.parametrize(
    ("name", "head"), [("test_resnet", "fc"), ("resnetv2_18", "head.fc"), ("vit_tiny_r_s16_p8_224", "head")]
)
def test_every_kind_of_timm_model_can_start_from_weights_of_its_own(tmp_path: Path, name: str, head: str) -> None:
    with torch.device("meta"):
        shapes = timm.create_model(name, num_classes=9).state_dict()
    state = {k: torch.full_like(v, 2, device="cpu") for k, v in shapes.items()}
    spec = LibraryModelSpec(family="timm", name=name, weights=NAME)
    model = build(spec, image_size=224, channels=3, num_classes=7)
    load(model, read(stored(tmp_path, state)))
    for key, tensor in model.state_dict().items():
        assert (tensor == (0 if key.startswith(f"{head}.") else 2)).all(), key


@pytest.mark.parametrize("spec", [OURS, TIMMS], ids=["ours", "timm's"])
def test_position_embeddings_are_resized_and_patch_kernels_are_not(tmp_path: Path, spec: Any) -> None:
    state = released(image_size=64)
    after = start(spec, state, tmp_path, image_size=96).state_dict()
    table = after["pos_embed.table" if spec is OURS else "pos_embed"]
    assert torch.equal(table, resized_positions(state["pos_embed"], (1, 37, 64)))
    assert torch.equal(after["patch_embed.proj.weight"], state["patch_embed.proj.weight"])


@pytest.mark.parametrize(("old", "new"), [(14, 24), (7, 12), (16, 27), (4, 2), (3, 3)])
def test_positions_are_interpolated_as_the_authors_code_does_it(old: int, new: int) -> None:
    from scipy.ndimage import zoom

    torch.manual_seed(0)
    table = torch.randn(1, 1 + old**2, 6)
    found = resized_positions(table, (1, 1 + new**2, 6))
    grid = zoom(table[0, 1:].reshape(old, old, 6).double().numpy(), (new / old, new / old, 1), order=1)
    np.testing.assert_allclose(found[0, 1:].numpy(), grid.reshape(new**2, 6), atol=1e-5)
    assert torch.equal(found[:, :1], table[:, :1])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", r"missing: blocks\.0\.attn\.proj\.bias(, blocks\.\S+){4} and 1 more$"),
        ("left over", r"left over: blocks\.6\.norm1\.weight$"),
        ("patch", r"of another shape: patch_embed\.proj\.weight 64x3x8x8 for 64x3x16x16$"),
        ("grid", r"of another shape: pos_embed\S* 1x16x64 for 1x17x64$"),
        ("half", r"of another type: norm\.weight torch\.float16$"),
        ("nan", r"not finite: cls_token$"),
        ("inf", r"not finite: cls_token$"),
    ],
)
@pytest.mark.parametrize("spec", [OURS, TIMMS], ids=["ours", "timm's"])
def test_weights_that_do_not_fit_are_refused_with_the_first_names(
    tmp_path: Path, spec: Any, fault: str, words: str
) -> None:
    state = released()
    if fault == "missing":
        state = {k: v for k, v in state.items() if "attn.proj.bias" not in k}
    elif fault == "left over":
        state["blocks.6.norm1.weight"] = torch.ones(64)
    elif fault == "patch":
        state["patch_embed.proj.weight"] = torch.ones(64, 3, 8, 8)
    elif fault == "grid":
        state["pos_embed"] = torch.ones(1, 16, 64)
    elif fault == "half":
        state["norm.weight"] = state["norm.weight"].half()
    else:
        state["cls_token"][0, 0, 3] = float(fault)
    with pytest.raises(DataError, match=words):
        start(spec, state, tmp_path)


def started_models() -> dict[str, Recipe]:
    """A recipe for every different model of the experiment files that starts from released weights."""
    made: dict[str, Recipe] = {}
    for experiment in claims.load().experiments.values():
        if isinstance(experiment, TrainExperiment):
            for recipe in claims.recipes(experiment).values():
                if recipe.weights:
                    made.setdefault(f"{recipe.weights} at {recipe.image_size}", recipe)
    return made


@pytest.mark.parametrize("recipe", started_models().values(), ids=started_models().keys())
def test_the_models_of_the_experiments_have_the_parameters_of_their_weights(recipe: Recipe) -> None:
    assert recipe.weights in timm.list_models(pretrained=True)
    with torch.device("meta"):
        model = build(recipe.model, image_size=recipe.image_size, channels=3, num_classes=7)
        theirs = timm.create_model(recipe.weights, pretrained=False).state_dict()
    if isinstance(recipe.model, ViTSpec):
        theirs["pos_embed.table"] = theirs.pop("pos_embed")
    head = weights._head(model)
    shapes = [
        {k: v.shape for k, v in s.items() if not k.startswith((head, "pos_embed"))}
        for s in (model.state_dict(), theirs)
    ]
    assert shapes[0] == shapes[1]
    assert any(k.startswith("pos_embed") for k in theirs) == ("vit" in recipe.weights or "deit" in recipe.weights)


def test_weights_of_colour_images_are_not_put_into_a_model_of_grey_ones(tmp_path: Path) -> None:
    model = build(OURS, image_size=64, channels=1, num_classes=7)
    with pytest.raises(DataError, match="64x3x16x16 for 64x1x16x16"):
        load(model, read(stored(tmp_path, released())))


def test_a_refused_file_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = build(OURS, image_size=64, channels=3, num_classes=7)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = released()
    del state["norm.bias"]
    with pytest.raises(DataError):
        load(model, read(stored(tmp_path, state)))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

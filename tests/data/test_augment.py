import time

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from vitrepro.data.augment import (
    augment,
    color_jitter,
    crop_boxes,
    mixup,
    normalize,
    resized_crops,
    shifted_crops,
)
from vitrepro.randomness import derive
from vitrepro.recipe import AugmentSpec, ColorJitter, RandomResizedCrop

PLAIN = AugmentSpec(mean=0.0, std=1.0)
EVERYTHING = AugmentSpec(
    flip=True,
    random_resized_crop=RandomResizedCrop(),
    color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    mixup=0.2,
)


def pictures(B=16, C=3, H=32, W=None, seed=0):
    return torch.randint(0, 256, (B, C, H, W or H), dtype=torch.uint8, generator=generator(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def labels(B=16):
    return torch.arange(B) % 10


def run(images, spec, *, size=None, seed=0, step=0, classes=10):
    given = labels(len(images)).to(images.device)
    return augment(images, given, spec, num_classes=classes, image_size=size or images.shape[-1], seed=seed, step=step)


# Parity with torchvision, image by image


def test_crops_enlarged_are_torchvisions():
    images = pictures().float() / 255
    random = generator()
    tries, place = torch.rand(16, 10, 2, generator=random), torch.rand(16, 2, generator=random)
    boxes = crop_boxes(RandomResizedCrop(), (32, 32), tries, place)
    flipped = torch.arange(16) % 2 == 0
    ours = resized_crops(images, boxes, flipped, 48)
    for image, box, mirror, found in zip(images, boxes.tolist(), flipped, ours, strict=True):
        expected = TF.resized_crop(image, *box, size=[48, 48], antialias=True)
        expected = TF.horizontal_flip(expected) if mirror else expected
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_padded_crops_and_flips_are_torchvisions():
    images, place = pictures(), torch.rand(16, 2, generator=generator())
    flipped = torch.arange(16) % 3 == 0
    ours = shifted_crops(images, 4, place, flipped)
    for image, (top, left), mirror, found in zip(images, (place * 9).int(), flipped, ours, strict=True):
        expected = TF.crop(TF.pad(image, [4]), int(top), int(left), 32, 32)
        assert torch.equal(found, TF.horizontal_flip(expected) if mirror else expected)


@pytest.mark.parametrize(
    ("spec", "column", "change"),
    [
        (ColorJitter(brightness=0.8), 0, lambda x, u: TF.adjust_brightness(x, 1 + 0.8 * u)),
        (ColorJitter(contrast=0.8), 1, lambda x, u: TF.adjust_contrast(x, 1 + 0.8 * u)),
        (ColorJitter(saturation=0.8), 2, lambda x, u: TF.adjust_saturation(x, 1 + 0.8 * u)),
        (ColorJitter(hue=0.5), 3, lambda x, u: TF.adjust_hue(x, 0.5 * u)),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_each_colour_change_is_torchvisions(spec, column, change):
    images = pictures() / 255
    images[0] = 0.4  # grey has no hue
    images[1] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    random = torch.rand(16, 4, generator=generator())
    ours = color_jitter(images, spec, random)
    for image, u, found in zip(images, 2 * random[:, column] - 1, ours, strict=True):
        torch.testing.assert_close(found, change(image, u.item()), atol=2e-5, rtol=0)


def test_colour_changes_come_in_the_order_of_the_schema():
    images, random = pictures() / 255, torch.rand(16, 4, generator=generator())
    spec = ColorJitter(brightness=0.5, contrast=0.6, saturation=0.7, hue=0.2)
    ours = color_jitter(images, spec, random)
    for image, u, found in zip(images, (2 * random - 1).tolist(), ours, strict=True):
        x = TF.adjust_brightness(image, 1 + 0.5 * u[0])
        x = TF.adjust_contrast(x, 1 + 0.6 * u[1])
        x = TF.adjust_saturation(x, 1 + 0.7 * u[2])
        torch.testing.assert_close(found, TF.adjust_hue(x, 0.2 * u[3]), atol=5e-5, rtol=0)
    assert list(ColorJitter.model_fields) == ["brightness", "contrast", "saturation", "hue"]


@pytest.mark.parametrize("size", [16, 20, 32, 48])
def test_evaluation_is_torchvisions_resize_and_normalisation(size):
    images = pictures()
    expected = TF.resize(images.float() / 255, [size, size], antialias=True)
    expected = TF.normalize(expected, [0.5] * 3, [0.25] * 3)
    ours = normalize(images, AugmentSpec(mean=0.5, std=0.25), size)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_crop_boxes_are_distributed_as_torchvisions():
    spec, n = RandomResizedCrop(scale=(0.2, 1.0), ratio=(0.5, 2.0)), 4000
    area_ratio = torch.rand(n, 10, 2, generator=generator(1))
    ours = crop_boxes(spec, (32, 32), area_ratio, torch.rand(n, 2, generator=generator(2))).double()
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(32, scale=spec.scale, ratio=spec.ratio)
    image = torch.zeros(3, 32, 32)
    drawn = [theirs.make_params([image]) for _ in range(n)]
    expected = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in drawn]).double()
    error = (ours.var(0) / n + expected.var(0) / n).sqrt()
    assert ((ours.mean(0) - expected.mean(0)).abs() < 4 * error).all()
    torch.testing.assert_close(ours.std(0), expected.std(0), rtol=0.05, atol=0)


# Crop boxes


@settings(deadline=None)
@given(
    H=st.integers(1, 40),
    W=st.integers(1, 40),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted),
)
def test_every_crop_lies_within_the_image(H, W, scale, ratio):
    spec = RandomResizedCrop(scale=tuple(scale), ratio=tuple(ratio))
    boxes = crop_boxes(spec, (H, W), torch.rand(20, 10, 2), torch.rand(20, 2))
    top, left, height, width = boxes.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (height > 0).all()
    assert (width > 0).all()
    assert (top + height <= H).all()
    assert (left + width <= W).all()


def test_where_no_crop_fits_the_largest_central_one_is_taken():
    spec = RandomResizedCrop(scale=(1.0, 1.0), ratio=(2.0, 2.0))
    boxes = crop_boxes(spec, (32, 32), torch.rand(3, 10, 2), torch.rand(3, 2))
    assert boxes.tolist() == [[8, 0, 16, 32]] * 3


def test_the_whole_image_as_crop_changes_nothing():
    spec = AugmentSpec(random_resized_crop=RandomResizedCrop(scale=(1, 1), ratio=(1, 1)), mean=0.0, std=1.0)
    images = pictures()
    torch.testing.assert_close(run(images, spec)[0], images / 255, atol=1e-5, rtol=0)


# The batch as a whole


def test_without_augmentation_training_sees_what_evaluation_sees():
    images = pictures()
    for size in (24, 32, 64):
        assert torch.equal(run(images, AugmentSpec(), size=size)[0], normalize(images, AugmentSpec(), size))


def test_small_crops_are_enlarged_to_the_models_size_in_one_step():
    """As the authors' code does with CIFAR: 32 stored pixels, crops of 5% to 100% of them, 384 seen."""
    spec = AugmentSpec(flip=True, random_resized_crop=RandomResizedCrop(scale=(0.05, 1.0)), mean=0.0, std=1.0)
    images, found = pictures(B=4), run(pictures(B=4), spec, size=384)[0]
    assert found.shape == (4, 3, 384, 384)
    random = torch.Generator().manual_seed(derive(0, "augment", 0))
    place, area_ratio = torch.rand(4, 3, generator=random), torch.rand(4, 10, 2, generator=random)
    boxes = crop_boxes(spec.random_resized_crop, (32, 32), area_ratio, place[:, 1:])
    for image, x, box, flip in zip(images, found, boxes.tolist(), place[:, 0] < 0.5, strict=True):
        crop = TF.resized_crop(image.float() / 255, *box, [384, 384], antialias=True)
        torch.testing.assert_close(x, crop.flip(-1) if flip else crop, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [24, 32, 64])
@pytest.mark.parametrize("crop", [{"crop_padding": 4}, {"random_resized_crop": RandomResizedCrop()}])
def test_images_come_out_in_the_models_size(size, crop):
    images, targets = run(pictures(), AugmentSpec(flip=True, **crop), size=size)
    assert images.shape == (16, 3, size, size)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert torch.equal(targets, labels())


def test_the_same_seed_and_step_give_the_same_bits():
    a, b = (run(pictures(), EVERYTHING, seed=4, step=9) for _ in range(2))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


@pytest.mark.parametrize("other", [{"seed": 1}, {"step": 1}])
@pytest.mark.parametrize(
    "spec", [AugmentSpec(flip=True, crop_padding=4), AugmentSpec(mixup=0.5)], ids=["shape", "mixup"]
)
def test_other_seeds_and_steps_give_other_batches(spec, other):
    assert not torch.equal(run(pictures(), spec)[0], run(pictures(), spec, **other)[0])


def test_the_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = run(pictures(), EVERYTHING)[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(run(pictures(), EVERYTHING)[0], first)


def test_the_layout_in_memory_makes_no_difference():
    stored = pictures().permute(0, 2, 3, 1).contiguous()  # (B, H, W, C), as the arrays on disk
    assert torch.equal(run(stored.permute(0, 3, 1, 2), EVERYTHING)[0], run(pictures(), EVERYTHING)[0])


def test_the_batch_given_is_left_as_it_was():
    images = pictures()
    run(images, EVERYTHING)
    assert torch.equal(images, pictures())


def test_images_that_are_not_uint8_are_refused():
    with pytest.raises(ValueError, match="expected uint8"):
        normalize(torch.rand(1, 3, 8, 8), AugmentSpec(), 8)


def test_half_of_the_images_are_mirrored_each_by_its_own_chance():
    images = pictures(B=1000, H=8)
    out = run(images, PLAIN.model_copy(update={"flip": True}))[0]
    same = (out == images / 255).all((1, 2, 3))
    mirrored = (out == images.flip(3) / 255).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 430 < mirrored.sum() < 570


def test_padded_crops_fill_with_black_and_reach_every_place():
    out = run(torch.full((4000, 1, 8, 8), 255, dtype=torch.uint8), PLAIN.model_copy(update={"crop_padding": 2}))[0]
    assert set(out.unique().tolist()) == {0.0, 1.0}
    seen = {(int(x.sum(0).argmax()), int(x.sum()), int(x.sum(1).argmax())) for x in out[:, 0]}
    assert len(seen) > 9
    share = out.mean((0, 1))  # the corner is black in a place of 25 x ... the centre never
    assert (share[2:6, 2:6] == 1).all()
    assert share[0, 0] == pytest.approx(9 / 25, abs=0.03)


def test_switching_one_change_off_moves_no_other():
    images = pictures()
    alone = run(images, AugmentSpec(flip=True))[0]
    zero = AugmentSpec(flip=True, random_resized_crop=RandomResizedCrop(scale=(1, 1), ratio=(1, 1)))
    torch.testing.assert_close(run(images, zero)[0], alone, atol=1e-4, rtol=0)


def test_colours_differ_from_image_to_image():
    same = torch.full((8, 3, 4, 4), 100, dtype=torch.uint8)
    out = run(same, AugmentSpec(color_jitter=ColorJitter(brightness=0.5)))[0]
    assert len(out[:, 0, 0, 0].unique()) == 8


def test_digits_with_one_channel_can_be_augmented():
    spec = AugmentSpec(flip=True, crop_padding=1, mixup=0.2)
    images, targets = run(pictures(C=1, H=8), spec)
    assert images.shape == (16, 1, 8, 8)
    assert targets.shape == (16, 10)


# Mixup


def test_targets_and_images_are_mixed_with_the_same_weights():
    x = torch.eye(10)[:, :, None, None].expand(10, 10, 2, 2)  # image i shows its own label
    mixed, targets = mixup(x, torch.arange(10), 0.5, 10, seed=3)
    torch.testing.assert_close(mixed[:, :, 0, 0], targets)
    torch.testing.assert_close(targets.sum(1), torch.ones(10))
    assert ((targets > 0).sum(1) <= 2).all()


def test_mixing_weights_follow_the_beta_distribution():
    n, alpha = 20_000, 0.3
    # Two classes, so a target tells the weight where the partner has the other label.
    _, targets = mixup(torch.zeros(n, 1, 1, 1), torch.arange(n) % 2, alpha, 2, seed=0)
    own = targets[torch.arange(n), torch.arange(n) % 2]
    weight = own[own < 1].double()
    assert len(weight) == pytest.approx(n / 2, rel=0.05)
    assert weight.mean() == pytest.approx(0.5, abs=0.02)
    assert weight.var() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.05)


def test_a_batch_of_one_is_mixed_with_itself():
    images = pictures(B=1)
    out, targets = run(images, PLAIN.model_copy(update={"mixup": 1.0}))
    torch.testing.assert_close(out, images / 255)
    assert torch.equal(targets, F.one_hot(labels(1), 10).float())


def test_a_small_batch_takes_milliseconds_not_a_loop_over_images():
    images, threads, seconds = pictures(B=128), torch.get_num_threads(), []
    torch.set_num_threads(1)  # two, on cores shared with other processes, wait for each other
    try:
        for step in range(6):
            start = time.perf_counter()
            run(images, EVERYTHING, step=step)
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    assert min(seconds) < 0.15, seconds  # 0.015 measured


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_device_sees_the_same_batch():
    images, targets = run(pictures(), EVERYTHING)
    on_device = run(pictures().cuda(), EVERYTHING)
    assert on_device[0].is_cuda
    torch.testing.assert_close(on_device[0].cpu(), images, atol=1e-4, rtol=0)
    torch.testing.assert_close(on_device[1].cpu(), targets)

import numpy as np
import pytest
import torch
from torch import nn

from opendelg.errors import FormatError
from opendelg.model.pooling import gem
from opendelg.model.resnet import LAYOUTS, ResNet
from opendelg.training.distillation import (
    DistillationConfig,
    blend,
    cached_pooled_descriptors,
    descriptor_loss,
    fit_whitening,
    hint_loss,
    pooled_descriptors,
)
from opendelg.training.teacher import Teacher, load_teacher

CPU = torch.device("cpu")


def make_resnet(layout, block="basic", units=(1, 1, 1), widths=(4, 4, 4)):
    """A backbone whose batch norms do something."""
    torch.manual_seed(0)
    resnet = ResNet(LAYOUTS[layout], block, units, widths, widths[0]).eval()
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.uniform_(-0.5, 0.5)
            module.weight.data += 1
            module.running_var.uniform_(0.5, 1.5)
    return resnet


@pytest.fixture
def teacher():
    return Teacher(make_resnet("torchvision"), "torchvision")


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 4, size, size, generator=generator) for size in (8, 4)]


# Losses.


def unit_deviation(maps):
    return [stage / stage.std() for stage in maps]


def test_hints_that_are_met_cost_nothing(maps):
    assert hint_loss(unit_deviation(maps), maps).item() == pytest.approx(0, abs=1e-9)


def test_a_hint_missed_by_one_deviation_costs_about_one(maps):
    hints = unit_deviation(maps)
    shifted = [stage + stage.std(dim=(0, 2, 3), keepdim=True) for stage in hints]
    assert hint_loss(shifted, maps).item() == pytest.approx(1 / 1.2, rel=0.02)


def test_hints_do_not_depend_on_the_scale_of_the_teachers_maps(maps):
    scaled = hint_loss(maps, [10 * stage for stage in maps])
    assert scaled.item() == pytest.approx(hint_loss(maps, maps).item(), rel=1e-4)


def test_hints_of_constant_channels_are_finite():
    zeros = [torch.zeros(2, 4, 3, 3)]
    assert torch.isfinite(hint_loss([torch.ones(2, 4, 3, 3)], zeros))


def test_hints_need_as_many_stages(maps):
    with pytest.raises(ValueError, match="zip"):
        hint_loss(maps[:1], maps)


@pytest.mark.parametrize(("angle", "loss"), [(0, 0.0), (90, 1.0), (180, 2.0), (60, 0.5)])
def test_descriptor_loss_is_the_cosine_distance(angle, loss):
    angle = np.radians(angle)
    student = torch.tensor([[5 * np.cos(angle), 5 * np.sin(angle)]])
    assert descriptor_loss(student, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(
        loss, abs=1e-6
    )


# Whitening.


@pytest.fixture
def descriptors():
    random = np.random.default_rng(0)
    return (random.normal(size=(200, 6)) * [5, 3, 2, 1, 0.5, 0.2] + 4).astype(np.float32)


def centred_units(descriptors):
    unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    return unit - unit.mean(axis=0)


def half_whiten(descriptors, num_dimensions, power):
    whitening = fit_whitening(descriptors, num_dimensions, power)
    return whitening.apply(torch.from_numpy(descriptors)).numpy()


def test_whitened_rows_are_float32_of_unit_length(descriptors):
    whitened = half_whiten(descriptors, 4, 0.5)
    assert (whitened.shape, whitened.dtype) == ((200, 4), np.float32)
    np.testing.assert_allclose(np.linalg.norm(whitened, axis=1), 1, rtol=1e-5)


def test_power_0_only_rotates(descriptors):
    centred = centred_units(descriptors)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    rotated = half_whiten(descriptors, 6, 0.0)
    np.testing.assert_allclose(rotated @ rotated.T, centred @ centred.T, atol=1e-4)


def test_power_1_gives_mahalanobis_cosines(descriptors):
    centred = centred_units(descriptors).astype(np.float64)
    inner = centred @ np.linalg.inv(centred.T @ centred) @ centred.T
    lengths = np.sqrt(np.diag(inner))
    whitened = half_whiten(descriptors.astype(np.float64), 6, 1.0)
    np.testing.assert_allclose(whitened @ whitened.T, inner / np.outer(lengths, lengths), atol=1e-4)


def test_principal_axes_come_first(descriptors):
    spread = half_whiten(descriptors, 6, 0.0).std(axis=0)
    assert (np.diff(spread) < 0).all()


# Teachers.


def test_a_teacher_never_trains(teacher):
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(weight.requires_grad for weight in teacher.parameters())


def test_a_torchvision_teacher_sees_imagenet_statistics(teacher):
    values = torch.rand(1, 3, 32, 32) * 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = teacher.backbone.stages((values / 255 - mean) / std)
    actual = teacher((values - 128) / 128)
    for stage, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(stage, wanted, rtol=1e-4, atol=1e-4)


def test_a_caffe_teacher_sees_blue_first_minus_the_mean():
    teacher = Teacher(make_resnet("keras_imagenet"), "caffe")
    values = torch.rand(1, 3, 32, 32) * 255
    bgr = values[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    expected = teacher.backbone.stages(bgr)[-1]
    actual = teacher((values - 128) / 128)[-1]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def fold(resnet):
    """A ResNet-18's tensors with its batch norms folded into biases, as an .npz has them."""
    norms = {name: module for name, module in resnet.named_modules() if "bn" in name}
    norms |= {
        name: module for name, module in resnet.named_modules() if name.endswith("downsample.1")
    }
    arrays = {}
    for name, module in resnet.named_modules():
        if isinstance(module, nn.Conv2d):
            beside = name.replace("conv", "bn") if "conv" in name else name[:-1] + "1"
            norm = norms[beside]
            factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            arrays[f"{name}.weight"] = (module.weight * factor[:, None, None, None]).detach()
            arrays[f"{name}.bias"] = (norm.bias - norm.running_mean * factor).detach()
    return {name: tensor.numpy() for name, tensor in arrays.items()}


def test_a_folded_resnet18_computes_what_it_was_folded_from(tmp_path):
    resnet = make_resnet("torchvision", units=(2, 2, 2), widths=(64, 128, 256))
    np.savez(tmp_path / "teacher.npz", **fold(resnet))
    teacher = load_teacher(tmp_path / "teacher.npz")
    images = torch.rand(1, 3, 32, 32)
    assert teacher.pixels == "torchvision"
    for stage, expected in zip(teacher.backbone.stages(images), resnet.stages(images), strict=True):
        torch.testing.assert_close(stage, expected, rtol=1e-3, atol=1e-4)


def test_a_teacher_of_other_names_is_refused_with_all_of_them(tmp_path):
    np.savez(tmp_path / "teacher.npz", **{"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})
    with pytest.raises(FormatError) as caught:
        load_teacher(tmp_path / "teacher.npz")
    assert "'bn1.bias'" in str(caught.value)
    assert "'layer3.1.conv2.weight'" in str(caught.value)


# The teacher's descriptors.


@pytest.fixture
def photos():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(2)]


def test_pooled_descriptors_are_gem_of_the_last_stage(teacher, photos):
    images = torch.from_numpy(photos[1]).permute(2, 0, 1)[None].float()
    expected = gem(teacher((images - 128) / 128)[-1])
    pooled = pooled_descriptors(teacher, photos, 96, CPU)
    assert (pooled.shape, pooled.dtype) == ((2, 4), np.float32)
    np.testing.assert_allclose(pooled[1], expected[0].numpy(), rtol=0.05)  # bfloat16


def test_descriptors_are_computed_once_for_the_same_photos(teacher, photos, tmp_path):
    path, names = tmp_path / "run" / "descriptors.npz", ["a", "b"]
    first = cached_pooled_descriptors(path, names, teacher, photos, 96, CPU)
    blank = [np.zeros_like(pixels) for pixels in photos]
    again = cached_pooled_descriptors(path, names, teacher, blank, 96, CPU)
    assert np.array_equal(first, again)


@pytest.mark.parametrize(("names", "side"), [(["a", "c"], 96), (["a", "b"], 64)])
def test_descriptors_of_other_photos_or_sizes_are_computed(teacher, photos, tmp_path, names, side):
    path = tmp_path / "descriptors.npz"
    first = cached_pooled_descriptors(path, ["a", "b"], teacher, photos, 96, CPU)
    blank = [np.zeros_like(pixels) for pixels in photos]
    other = cached_pooled_descriptors(path, names, teacher, blank, side, CPU)
    assert not np.allclose(first, other)


def test_blends_are_weighed_means_with_the_image_before_and_the_others_stay():
    images = torch.tensor([1.0, 2.0, 4.0, 8.0])[:, None, None, None].expand(4, 3, 2, 2)
    blended = blend(images, 3, torch.tensor([0.0, 0.5, 1.0, 0.5]))
    assert blended[:, 0, 0, 0].tolist() == [4.0, 1.5, 4.0, 8.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hint_weight": -1.0}, "weights of distillation must not be negative, got"),
        ({"hint_until": 1.5}, "hint_until must be in"),
        ({"view_weight": 1.0}, "must be 0 without a descriptor_teacher"),
        ({"view_windows": (3,)}, "view_windows must be empty without view_weight, got"),
        (
            {"descriptor_teacher": "a", "view_weight": 1.0, "view_windows": (1,)},
            "view_windows must be at least 2 cells, got",
        ),
        ({"mixed_share": 1.0}, "mixed_share must be in"),
        ({"photo_side": 8}, "photo_side and hint_only_size must be at least 32, got 8 and 96"),
        ({"hint_only_steps": 5}, "hint_only_steps must be 0 without a hint_teacher .*, got 5"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DistillationConfig(**changes)

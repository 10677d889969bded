from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from opendelg.model.resnet import LAYOUTS, BottleneckUnit, ResNet, pad_same, subsample

NARROW = (2, 2, 2, 2)
UNITS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
DEPTHS_AND_LAYOUTS = [
    pytest.param(depth, layout, id=f"{depth}-{layout}")
    for depth in UNITS
    for layout in LAYOUTS
    if (depth, layout) != (18, "slim")
]


def make_resnet(depth, layout, widths=NARROW, stem_width=2):
    torch.manual_seed(0)
    block = "basic" if depth == 18 else "bottleneck"
    return ResNet(LAYOUTS[layout], block, UNITS[depth], widths, stem_width).eval()


def shapes_on_paper(depth, layout):
    """Names and shapes of a full-size backbone; nothing is allocated or drawn."""
    with torch.device("meta"), patch.object(ResNet, "_initialise"):
        resnet = make_resnet(depth, layout, (64, 128, 256, 512), 64)
    return {
        name: tuple(tensor.shape)
        for name, tensor in resnet.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def random_images(height, width, seed=0, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, channels, height, width, generator=generator, dtype=torch.float64)


# Padding.  SPEC 1.2, 1.3: what TensorFlow's SAME adds before and after.


@pytest.mark.parametrize(
    ("kernel", "side", "before", "after"),
    [(7, 32, 2, 3), (7, 33, 3, 3), (7, 2, 2, 3), (3, 32, 0, 1), (3, 33, 1, 1), (3, 1, 1, 1)],
)
def test_same_padding_puts_the_odd_pixel_after(kernel, side, before, after):
    padded = pad_same(torch.zeros(1, 1, side, side), kernel, 1.0)[0, 0]
    expected = np.ones((before + side + after,) * 2)
    expected[before : before + side, before : before + side] = 0
    assert padded.tolist() == expected.tolist()


def test_same_padding_takes_each_side_by_its_own_parity():
    assert pad_same(torch.zeros(1, 1, 10, 11), 3, 0.0).shape == (1, 1, 11, 13)


def oracle_windows(maps, kernel, before, length, fill):
    """Windows (C, h, w, kernel, kernel) at stride 2 of maps (C, H, W), by explicit indices."""
    channels, *sides = maps.shape
    windows = np.full((channels, *length, kernel, kernel), fill)
    for y, x, row, column in np.ndindex(*length, kernel, kernel):
        i, j = 2 * y + row - before[0], 2 * x + column - before[1]
        if 0 <= i < sides[0] and 0 <= j < sides[1]:
            windows[:, y, x, row, column] = maps[:, i, j]
    return windows


def oracle_extent(sides, kernel, padding):
    """Padding before and length after, per side, by TensorFlow's and torch's published rules."""
    if padding == "symmetric":
        return [kernel // 2] * 2, [(side - 1) // 2 + 1 for side in sides]
    if padding == "valid":
        return [0, 0], [-((kernel - 1 - side) // 2) for side in sides]
    length = [-(-side // 2) for side in sides]
    totals = [max((n - 1) * 2 + kernel - side, 0) for n, side in zip(length, sides, strict=True)]
    return [total // 2 for total in totals], length


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "size", [(20, 22), (21, 23), (20, 23), (22, 21), (5, 6)], ids=lambda size: f"{size}"
)
def test_stem_equals_a_numpy_oracle(layout, size):
    resnet = make_resnet(50, layout).double()
    images = random_images(*size)
    rules, epsilon = LAYOUTS[layout], LAYOUTS[layout].epsilon
    windows = oracle_windows(
        images[0].numpy(), 7, *oracle_extent(size, 7, rules.stem_padding), fill=0.0
    )
    weight = resnet.conv1.weight.detach().numpy()
    maps = np.einsum("cyxij,dcij->dyx", windows, weight) / np.sqrt(1 + epsilon)
    extent = oracle_extent(maps.shape[1:], 3, rules.pool_padding)
    expected = oracle_windows(np.maximum(maps, 0), 3, *extent, fill=-np.inf).max(axis=(3, 4))
    actual = resnet.stem(images)[0].detach().numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-12)


# Shapes.


@pytest.mark.parametrize(("depth", "layout"), DEPTHS_AND_LAYOUTS)
@pytest.mark.parametrize(
    ("height", "width", "shallow", "deep"),
    [
        pytest.param(32, 32, (2, 2), (1, 1), id="32x32"),
        pytest.param(16, 2000, (1, 125), (1, 63), id="2000x16"),
        pytest.param(2000, 16, (125, 1), (63, 1), id="16x2000"),
    ],
)
@torch.inference_mode()
def test_maps_have_strides_16_and_32(depth, layout, height, width, shallow, deep):
    resnet = make_resnet(depth, layout)
    channels = 2 if depth == 18 else 8
    maps = resnet.shallow(torch.zeros(1, 3, height, width))
    assert maps.shape == (1, channels, *shallow)
    assert resnet.deep(maps).shape == (1, channels, *deep)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stages_end_in_the_shallow_map(layout):
    resnet, images = make_resnet(50, layout), torch.rand(1, 3, 64, 96)
    stages = resnet.stages(images)
    assert len(stages) == 3
    assert torch.equal(stages[-1], resnet.shallow(images))


# Where the stride sits.


@pytest.mark.parametrize(
    ("layout", "strided"),
    [
        pytest.param("slim", {"layer1.2.conv2", "layer2.3.conv2"}, id="slim"),
        pytest.param(
            "torchvision",
            {f"layer{stage}.0.{part}" for stage in (2, 3, 4) for part in ("conv2", "downsample.0")},
            id="torchvision",
        ),
        *(
            pytest.param(
                layout,
                {
                    f"layer{stage}.0.{part}"
                    for stage in (2, 3, 4)
                    for part in ("conv1", "downsample.0")
                },
                id=layout,
            )
            for layout in ("keras", "keras_imagenet")
        ),
    ],
)
def test_strided_convolutions_are_the_layouts(layout, strided):
    convolutions = {
        name: module
        for name, module in make_resnet(50, layout).named_modules()
        if isinstance(module, nn.Conv2d)
    }
    assert {name for name, conv in convolutions.items() if conv.stride == (2, 2)} == {
        "conv1",
        *strided,
    }


@pytest.mark.parametrize(("layout", "has_bias"), [("slim", False), ("keras", True)])
def test_only_kerass_convolutions_have_biases(layout, has_bias):
    names = shapes_on_paper(50, layout)
    assert ("conv1.bias" in names) == has_bias
    assert ("layer1.0.downsample.0.bias" in names) == has_bias
    assert ("layer4.2.conv3.bias" in names) == has_bias


@pytest.mark.parametrize(
    ("layout", "epsilon"),
    [("slim", 1e-5), ("keras", 1e-3), ("torchvision", 1e-5), ("keras_imagenet", 1.001e-5)],
)
def test_batch_norms_have_the_layouts_epsilon(layout, epsilon):
    norms = [m for m in make_resnet(50, layout).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 53
    assert {norm.eps for norm in norms} == {epsilon}


@pytest.mark.parametrize("size", [(8, 10), (9, 11), (8, 11), (1, 1), (2, 1)])
def test_slims_strided_last_unit_is_the_unit_without_stride_then_every_second_cell(size):
    strided = BottleneckUnit(8, 2, 2, LAYOUTS["slim"], is_first=False).double().eval()
    plain = BottleneckUnit(8, 2, 1, LAYOUTS["slim"], is_first=False).double().eval()
    plain.load_state_dict(strided.state_dict())
    maps = random_images(*size, channels=8)
    torch.testing.assert_close(strided(maps), plain(maps)[:, :, ::2, ::2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 10), (9, 11)])
def test_deep_map_of_keras_is_that_of_every_second_cell(size):
    resnet = make_resnet(50, "keras").double()
    maps = random_images(*size, channels=8).abs()
    deep = resnet.deep(maps)
    first = resnet.layer4[0]
    first.stride = 1
    first.conv1.stride = first.downsample[0].stride = (1, 1)
    torch.testing.assert_close(resnet.layer4(subsample(maps)), deep, rtol=0, atol=1e-12)


# Receptive fields (SPEC 3.4): the pixels that can change one cell of the shallow map.


def lit_cells(resnet, width, columns):
    """Which stride-32 cells (len(columns), w) change when one pixel of a black image is lit.

    Weights are positive and biases are zero, so that nothing cancels or dies in a ReLU.
    """
    for module in resnet.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0 / module.weight[0].numel())
    images = torch.zeros(len(columns), 3, 33, width, dtype=torch.float64)
    for image, column in zip(images, columns, strict=True):
        image[:, 16, column] = 1.0
    with torch.inference_mode():
        return subsample(resnet.double().shallow(images))[:, 0, 0] > 0


@pytest.mark.parametrize(
    ("depth", "width", "cell", "padding"),
    [pytest.param(50, 641, 10, 145, id="50"), pytest.param(101, 1281, 20, 417, id="101")],
)
def test_receptive_field_of_slims_local_cells(depth, width, cell, padding):
    centre, resnet = 32 * cell, make_resnet(depth, "slim")
    columns = [centre - padding - 1, centre - padding, centre + padding, centre + padding + 1]
    lit = lit_cells(resnet, width, columns)[:, cell]
    assert lit.tolist() == [False, True, True, False]


def test_receptive_field_lies_2_pixels_further_on_where_the_pools_side_is_even():
    # SAME pads an even side after it only; SPEC 3.4's boxes leave that out of account.
    columns = [320 - 143 - 1, 320 - 143, 320 + 147, 320 + 147 + 1]
    lit = lit_cells(make_resnet(50, "slim"), 640, columns)[:, 10]
    assert lit.tolist() == [False, True, True, False]


# Names and counts.


@pytest.mark.parametrize(("depth", "count"), [(18, 100), (50, 265), (101, 520)])
def test_backbone_has_as_many_tensors_as_the_released_one(depth, count):
    assert len(shapes_on_paper(depth, "torchvision" if depth == 18 else "slim")) == count


def expected_slim_shapes(num_units):
    """SPEC 6.4, in torch's order of axes."""
    shapes = {"conv1.weight": (64, 3, 7, 7)}
    norms = {"bn1": 64}
    channels = 64
    for stage, (units, width) in enumerate(zip(num_units, (64, 128, 256, 512), strict=True), 1):
        for unit in range(units):
            at = f"layer{stage}.{unit}."
            shapes[at + "conv1.weight"] = (width, channels, 1, 1)
            shapes[at + "conv2.weight"] = (width, width, 3, 3)
            shapes[at + "conv3.weight"] = (4 * width, width, 1, 1)
            norms |= {at + "bn1": width, at + "bn2": width, at + "bn3": 4 * width}
            if unit == 0:
                shapes[at + "downsample.0.weight"] = (4 * width, channels, 1, 1)
                norms[at + "downsample.1"] = 4 * width
            channels = 4 * width
    vectors = ("weight", "bias", "running_mean", "running_var")
    return shapes | {f"{norm}.{v}": (size,) for norm, size in norms.items() for v in vectors}


@pytest.mark.parametrize("depth", [50, 101])
def test_names_and_shapes_are_those_of_the_released_backbone(depth):
    assert shapes_on_paper(depth, "slim") == expected_slim_shapes(UNITS[depth])


def test_same_and_symmetric_pools_differ_on_even_sides_only():
    slim, other = make_resnet(50, "slim"), make_resnet(50, "slim")
    other.layout = replace(LAYOUTS["slim"], pool_padding="symmetric")
    odd, even = torch.rand(1, 3, 33, 33), torch.rand(1, 3, 32, 32)
    assert torch.equal(slim.stem(odd), other.stem(odd))
    assert not torch.equal(slim.stem(even), other.stem(even))

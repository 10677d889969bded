from dataclasses import replace

import pytest
import torch
from torch import nn

from opendelg.model import RESNET18, RESNET50, RESNET101, Delg, ModelConfig
from opendelg.model.pooling import gem
from opendelg.model.resnet import LAYOUTS, subsample

NARROW = {
    "widths": (2, 2, 2, 2),
    "stem_width": 2,
    "num_global_dimensions": 5,
    "num_local_dimensions": 3,
    "attention_width": 4,
}
NETWORKS = [
    pytest.param(replace(config, layout=layout, local_stride=stride, **NARROW), id=name)
    for number, config in ((18, RESNET18), (50, RESNET50), (101, RESNET101))
    for layout in LAYOUTS
    for stride in (16, 32)
    if not (number == 18 and layout == "slim")
    for name in [f"{number}-{layout}-{stride}"]
]


def make_delg(seed=0, **changes):
    torch.manual_seed(seed)
    return Delg(replace(RESNET50, **NARROW, **changes)).eval()


@pytest.fixture
def cells():
    """A shallow map (2, 8, 4, 5) as the backbone gives it: never negative."""
    return torch.rand(2, 8, 4, 5, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("config", NETWORKS)
@pytest.mark.parametrize(
    ("height", "width", "at_16", "at_32"),
    [
        pytest.param(32, 32, (2, 2), (1, 1), id="32x32"),
        pytest.param(16, 2000, (1, 125), (1, 63), id="2000x16"),
    ],
)
@torch.inference_mode()
def test_outputs_have_the_configured_shapes(config, height, width, at_16, at_32):
    cells = at_16 if config.local_stride == 16 else at_32
    descriptors, attention, local = Delg(config).eval()(torch.zeros(2, 3, height, width))
    assert descriptors.shape == (2, 5)
    assert attention.shape == (2, *cells)
    assert local.shape == (2, 3, *cells)


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.inference_mode()
def test_the_smallest_side_is_the_smallest_that_works(layout):
    delg = make_delg(layout=layout)
    side = delg.config.min_side
    assert delg(torch.zeros(1, 3, side, side))[1].shape == (1, 1, 1)
    with pytest.raises(RuntimeError):
        delg(torch.zeros(1, 3, side - 1, side - 1))


def test_local_cells_at_stride_32_are_every_second_of_stride_16():
    at_16, at_32 = make_delg(local_stride=16), make_delg(local_stride=32)
    shallow = at_16.shallow(torch.rand(1, 3, 70, 90))
    assert torch.equal(at_16.local_map(shallow), shallow)
    assert torch.equal(at_32.local_map(shallow), shallow[:, :, ::2, ::2])


def test_the_global_descriptor_does_not_depend_on_the_local_stride():
    images = torch.rand(1, 3, 70, 90)
    assert torch.equal(make_delg(local_stride=16)(images)[0], make_delg(local_stride=32)(images)[0])


def test_whitening_has_a_bias_and_follows_gem(cells):
    delg = make_delg()
    pooled = gem(delg.backbone.layer4(subsample(cells)), 3.0)
    expected = pooled @ delg.whitening.weight.T + delg.whitening.bias
    assert delg.whitening.bias.shape == (5,)
    torch.testing.assert_close(delg.global_descriptor(cells), expected)


def test_gem_takes_the_configured_power(cells):
    first, second = make_delg(gem_power=1.0), make_delg(gem_power=3.0)
    assert not torch.allclose(first.global_descriptor(cells), second.global_descriptor(cells))


def test_gem_of_the_published_models_has_power_3():
    assert (RESNET50.gem_power, RESNET50.gem_epsilon) == (3.0, 1e-6)


def test_attention_equals_its_equation(cells):
    delg = make_delg()
    head = delg.attention
    hidden = torch.einsum("bchw,dc->bdhw", cells, head.conv1.weight[:, :, 0, 0])
    hidden = (hidden / (1 + head.bn1.eps) ** 0.5).clamp(min=0)
    score = torch.einsum("bchw,c->bhw", hidden, head.conv2.weight[0, :, 0, 0]) + head.conv2.bias
    torch.testing.assert_close(head(cells), torch.log1p(torch.exp(score)))


def test_attention_is_positive(cells):
    delg = make_delg()
    nn.init.constant_(delg.attention.conv2.bias, -5.0)
    assert (delg.attention(cells) > 0).all()


def test_encoder_is_linear_and_may_be_negative(cells):
    encode = make_delg().autoencoder.encode
    zero = encode(torch.zeros_like(cells))
    torch.testing.assert_close(encode(3 * cells) - zero, 3 * (encode(cells) - zero))
    assert (encode(cells) < 0).any()


def test_decoder_is_never_negative(cells):
    decoded = make_delg().autoencoder.decode(torch.randn(2, 3, 4, 5))
    assert decoded.shape == cells.shape
    assert decoded.min() == 0
    assert decoded.max() > 0


def test_local_descriptors_are_encoded_cells(cells):
    delg = make_delg(local_stride=32)
    attention, local = delg.local_features(cells)
    assert torch.equal(local, delg.autoencoder.encode(cells[:, :, ::2, ::2]))
    assert torch.equal(attention, delg.attention(cells[:, :, ::2, ::2]))


@torch.inference_mode()
def test_all_outputs_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = make_delg()(torch.rand(1, 3, 32, 32))
    assert [output.dtype for output in outputs] == [torch.float32] * 3


@torch.inference_mode()
def test_images_of_a_batch_do_not_meet():
    delg, images = make_delg(), torch.rand(3, 3, 64, 48)
    together = delg.global_descriptor(delg.shallow(images))
    alone = torch.cat([delg.global_descriptor(delg.shallow(image[None])) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_heads_have_the_published_tensors():
    heads = {
        name: tuple(tensor.shape)
        for name, tensor in make_delg(layout="keras").state_dict().items()
        if not name.startswith("backbone.") and not name.endswith("num_batches_tracked")
    }
    assert heads == {
        "whitening.weight": (5, 8),
        "whitening.bias": (5,),
        "attention.conv1.weight": (4, 8, 1, 1),
        "attention.conv1.bias": (4,),  # in the Keras layout alone
        "attention.bn1.weight": (4,),
        "attention.bn1.bias": (4,),
        "attention.bn1.running_mean": (4,),
        "attention.bn1.running_var": (4,),
        "attention.conv2.weight": (1, 4, 1, 1),
        "attention.conv2.bias": (1,),
        "autoencoder.encoder.weight": (3, 8, 1, 1),
        "autoencoder.encoder.bias": (3,),
        "autoencoder.decoder.weight": (8, 3, 1, 1),
        "autoencoder.decoder.bias": (8,),
    }


def test_defaults_are_the_released_sizes():
    config = ModelConfig()
    assert (config.num_shallow_channels, config.num_deep_channels) == (1024, 2048)
    assert (config.num_global_dimensions, config.num_local_dimensions) == (2048, 128)
    assert (config.attention_width, config.local_stride, config.layout) == (512, 32, "slim")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "caffe"}, "layout must be one of .*, got 'caffe'"),
        ({"block": "basic"}, "block must be 'bottleneck' in the 'slim' layout, got 'basic'"),
        ({"local_stride": 8}, "local_stride must be 16 or 32, got 8"),
        ({"units": (3, 4, 0, 3)}, "must be positive"),
        ({"attention_width": 0}, "must be positive"),
    ],
)
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**changes)

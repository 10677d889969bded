import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from opendelg.model import RESNET18, RESNET50, Delg
from opendelg.training.losses import (
    ArcFace,
    LossConfig,
    arcface_cosines,
    local_losses,
    pool_attended,
)

MARGIN = 0.1
NARROW = {
    "widths": (4, 4, 4, 4),
    "stem_width": 4,
    "num_global_dimensions": 6,
    "num_local_dimensions": 3,
    "attention_width": 4,
}


def make_delg(config=RESNET18, **changes):
    torch.manual_seed(0)
    return Delg(replace(config, **NARROW, **changes)).train()


def random_images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def gradients(loss, weights):
    return torch.autograd.grad(loss, list(weights), allow_unused=True, retain_graph=True)


def is_untouched(grads):
    return all(grad is None or not grad.any() for grad in grads)


# ArcFace: logits = gamma AF(cos, y), AF(cos, 1) = cos(acos(cos) + m), AF(cos, 0) = cos.


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.0, math.pi / 2, 2.5, math.pi - MARGIN - 1e-3])
def test_margin_is_added_to_the_angle_of_the_true_class(angle):
    cosines = torch.tensor([[math.cos(angle), 0.5]])
    changed = arcface_cosines(cosines, torch.tensor([0]), MARGIN)
    assert changed[0, 0].item() == pytest.approx(math.cos(angle + MARGIN), abs=1e-4)


def test_other_classes_keep_their_cosines():
    cosines = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.tensor([2, 0, 4, 4])
    changed = arcface_cosines(cosines, labels, MARGIN)
    others = functional.one_hot(labels, 5) == 0
    assert torch.equal(changed[others], cosines[others])
    assert (changed[~others] != cosines[~others]).all()


@pytest.mark.parametrize("beyond", [1e-3, 0.05, MARGIN - 1e-3])
def test_angles_beyond_pi_minus_margin_stay(beyond):
    cosine = math.cos(math.pi - MARGIN + beyond)
    changed = arcface_cosines(torch.tensor([[cosine, 0.0]]), torch.tensor([0]), MARGIN)
    assert changed[0, 0].item() == pytest.approx(cosine, abs=1e-7)


def test_arguments_are_not_changed():
    cosines = torch.tensor([[0.5, 0.2]])
    arcface_cosines(cosines, torch.tensor([0]), MARGIN)
    assert cosines.tolist() == torch.tensor([[0.5, 0.2]]).tolist()


@pytest.mark.parametrize("cosine", [-1.0, 1.0, 1.0 - 1e-7, -1.0 + 1e-7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_finite_where_the_cosine_is_1(cosine, dtype):
    cosines = torch.tensor([[cosine, 0.3]], dtype=dtype, requires_grad=True)
    arcface_cosines(cosines, torch.tensor([0]), MARGIN).sum().backward()
    assert torch.isfinite(cosines.grad).all()


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("enabled", [False, True], ids=["float32", "autocast"])
def test_a_descriptor_on_its_class_has_finite_gradients(sign, enabled):
    classifier = ArcFace(8, 5, LossConfig())
    descriptors = (3 * sign * classifier.weight.detach()[:2]).requires_grad_()
    labels = torch.tensor([0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
        functional.cross_entropy(classifier(descriptors, labels), labels).backward()
    assert torch.isfinite(descriptors.grad).all()
    assert torch.isfinite(classifier.weight.grad).all()


def test_autocast_changes_no_logit():
    torch.manual_seed(0)
    classifier, descriptors = ArcFace(8, 5, LossConfig()), torch.randn(3, 8)
    expected = classifier(descriptors, torch.tensor([0, 1, 2]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = classifier(descriptors, torch.tensor([0, 1, 2]))
    assert torch.equal(actual, expected)


def test_logits_equal_the_equation():
    torch.manual_seed(0)
    classifier, descriptors = ArcFace(8, 5, LossConfig(margin=0.3)), torch.randn(3, 8)
    labels = torch.tensor([4, 0, 2])
    weight, gamma = classifier.weight, math.sqrt(2048)
    cosines = (descriptors @ weight.T) / torch.outer(descriptors.norm(dim=1), weight.norm(dim=1))
    is_true = functional.one_hot(labels, 5) == 1
    expected = gamma * torch.where(is_true, torch.cos(torch.acos(cosines) + 0.3), cosines)
    torch.testing.assert_close(classifier(descriptors, labels), expected, rtol=1e-4, atol=1e-3)


def test_without_labels_there_is_no_margin():
    classifier = ArcFace(2, 2, LossConfig(scale=10.0))
    classifier.weight.data = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    logits = classifier(torch.tensor([[3.0, 4.0]]), None)
    assert logits[0].tolist() == pytest.approx([6.0, 8.0])


def test_scale_starts_at_the_root_of_2048_and_is_learnt():
    scale = ArcFace(8, 5, LossConfig()).scale
    assert scale.item() == pytest.approx(math.sqrt(2048))
    assert scale.requires_grad


def test_scale_can_be_fixed_as_in_the_open_code():
    assert not ArcFace(8, 5, LossConfig(is_scale_trainable=False)).scale.requires_grad


def test_default_weights_are_the_published_ones():
    config = LossConfig()
    assert (config.reconstruction_weight, config.attention_weight, config.margin) == (10, 1, 0.1)


# Local losses: S behind a stop-gradient, attention on S, pooled over S'.


@pytest.mark.parametrize("stride", [16, 32])
@pytest.mark.parametrize(
    "config",
    [pytest.param(RESNET18, id="18"), pytest.param(RESNET50, id="50")],
)
def test_local_losses_send_no_gradient_into_the_backbone(config, stride):
    model = make_delg(config, local_stride=stride)
    classifier = torch.nn.Linear(model.config.num_shallow_channels, 5)
    shallow = model.shallow(random_images())
    losses = local_losses(model, classifier, shallow)
    total = losses.reconstruction + functional.cross_entropy(
        losses.attention_logits, torch.tensor([0, 1])
    )
    assert is_untouched(gradients(total, [shallow, *model.backbone.parameters()]))


@pytest.mark.parametrize(("told", "reconstruction_reaches"), [("attention", False), ("all", True)])
@pytest.mark.parametrize("stride", [16, 32])
def test_local_losses_reach_every_stage_of_the_backbone_where_told(
    told, reconstruction_reaches, stride
):
    model = make_delg(local_stride=stride)
    classifier = torch.nn.Linear(4, 5)
    losses = local_losses(model, classifier, model.shallow(random_images()), "sum", gradients=told)
    attention = functional.cross_entropy(losses.attention_logits, torch.tensor([0, 1]))
    stages = [
        weight
        for name, weight in model.backbone.named_parameters()
        if weight.ndim == 4 and not name.startswith("layer4")
    ]
    reached = [grad is not None and grad.any() for grad in gradients(attention, stages)]
    assert all(reached)
    assert len(reached) == 15
    reached = [grad is not None and grad.any() for grad in gradients(losses.reconstruction, stages)]
    assert reached == [reconstruction_reaches] * 15


@pytest.mark.parametrize("gradients", ["attention", "all"])
def test_where_gradients_stop_changes_no_loss(local, gradients):
    model, classifier, shallow, expected = local
    actual = local_losses(model, classifier, shallow, gradients=gradients)
    assert torch.equal(actual.attention_logits, expected.attention_logits)
    assert torch.equal(actual.reconstruction, expected.reconstruction)


@pytest.mark.parametrize("stride", [16, 32])
def test_the_global_loss_trains_every_stage_of_the_backbone(stride):
    model, classifier = make_delg(local_stride=stride), ArcFace(6, 5, LossConfig())
    labels = torch.tensor([0, 1])
    descriptors = model.global_descriptor(model.shallow(random_images()))
    loss = functional.cross_entropy(classifier(descriptors, labels), labels)
    convolutions = [weight for weight in model.backbone.parameters() if weight.ndim == 4]
    assert all(grad is not None and grad.any() for grad in gradients(loss, convolutions))


def test_the_global_loss_leaves_the_local_head_alone():
    model, classifier = make_delg(), ArcFace(6, 5, LossConfig())
    descriptors = model.global_descriptor(model.shallow(random_images()))
    loss = classifier(descriptors, torch.tensor([0, 1])).sum()
    heads = [*model.attention.parameters(), *model.autoencoder.parameters()]
    assert is_untouched(gradients(loss, heads))


@pytest.fixture
def local():
    """A model, its attention's classifier, a shallow map and the losses on it."""
    model = make_delg()
    classifier = torch.nn.Linear(4, 5)
    shallow = torch.rand(2, 4, 3, 4, generator=torch.Generator().manual_seed(2))
    return model, classifier, shallow.requires_grad_(), local_losses(model, classifier, shallow)


def test_reconstruction_is_the_mean_squared_error_over_cells_and_channels(local):
    model, _, shallow, losses = local
    reconstructed = model.autoencoder.decode(model.autoencoder.encode(shallow))
    expected = ((reconstructed - shallow) ** 2).sum() / (2 * 4 * 3 * 4)
    torch.testing.assert_close(losses.reconstruction, expected)


def test_the_target_of_the_reconstruction_has_no_gradient(local):
    model, _, shallow, losses = local
    assert is_untouched(gradients(losses.reconstruction, [shallow]))
    assert not is_untouched(gradients(losses.reconstruction, model.autoencoder.parameters()))


def test_reconstruction_does_not_train_attention(local):
    model, classifier, _, losses = local
    others = [*model.attention.parameters(), *classifier.parameters()]
    assert is_untouched(gradients(losses.reconstruction, others))


def test_the_attention_loss_trains_attention_autoencoder_and_classifier(local):
    model, classifier, shallow, losses = local
    loss = functional.cross_entropy(losses.attention_logits, torch.tensor([0, 1]))
    for weights in (
        [model.attention.conv1.weight, model.attention.conv2.weight],
        [model.autoencoder.encoder.weight, model.autoencoder.decoder.weight],
        [classifier.weight, classifier.bias],
    ):
        assert all(grad is not None and grad.any() for grad in gradients(loss, weights))
    assert is_untouched(gradients(loss, [shallow]))


def test_attention_sees_the_map_and_pools_its_reconstruction(local):
    model, classifier, shallow, before = local
    with torch.no_grad():
        model.autoencoder.decoder.bias += torch.rand(4)  # S' changes, S does not
    after = local_losses(model, classifier, shallow)
    assert torch.equal(after.attention, before.attention)
    assert not torch.allclose(after.attention_logits, before.attention_logits)
    reconstructed = model.autoencoder.decode(model.autoencoder.encode(shallow))
    pooled = pool_attended(reconstructed, model.attention(shallow), "mean_of_normalised")
    torch.testing.assert_close(after.attention_logits, classifier(pooled))


def test_sum_pools_cells_as_they_are():
    features = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])  # cells (3, 4) and (0, 2)
    attention = torch.tensor([[[10.0, 1.0]]])
    assert pool_attended(features, attention, "sum").tolist() == [[30.0, 42.0]]


def test_mean_pools_cells_of_unit_length():
    features = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])
    attention = torch.tensor([[[10.0, 1.0]]])
    pooled = pool_attended(features, attention, "mean_of_normalised")
    assert pooled[0].tolist() == pytest.approx([3.0, 4.5])


def test_cells_of_zeros_pool_to_zeros_with_finite_gradients():
    features = torch.zeros(1, 2, 1, 2, requires_grad=True)
    pooled = pool_attended(features, torch.ones(1, 1, 2), "mean_of_normalised")
    pooled.sum().backward()
    assert not pooled.any()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": 3.2}, r"margin must be in \[0, pi\), got 3.2"),
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
        ({"scale": math.nan}, "scale must be positive, got nan"),
        ({"attention_weight": -1.0}, "must not be negative"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**changes)

import pytest
import torch

from opendelg.model.pooling import gem, gem_of_windows

MAPS = torch.tensor([[[[1.0, 2.0]], [[3.0, -7.0]]]])  # (1, 2, 1, 2)


def test_power_3_is_the_cubic_mean():
    assert gem(MAPS)[0, 0].item() == pytest.approx(((1 + 8) / 2) ** (1 / 3), rel=1e-6)


def test_negative_values_count_as_epsilon():
    assert gem(MAPS)[0, 1].item() == pytest.approx((27 / 2) ** (1 / 3), rel=1e-6)
    assert gem(-MAPS.abs(), epsilon=1e-2)[0].tolist() == pytest.approx([1e-2, 1e-2], rel=1e-5)


def test_power_1_is_the_mean():
    assert gem(MAPS.abs(), power=1.0)[0].tolist() == pytest.approx([1.5, 5.0])


def test_each_channel_of_each_image_is_pooled_alone():
    maps = torch.rand(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    one_by_one = [[gem(maps[b : b + 1, c : c + 1]).item() for c in range(5)] for b in range(3)]
    torch.testing.assert_close(gem(maps), torch.tensor(one_by_one))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_float32(dtype):
    maps = torch.full((1, 1, 2, 2), 100.0, dtype=dtype)  # its cube is no float16
    assert gem(maps).dtype == torch.float32
    assert gem(maps).item() == pytest.approx(100.0, rel=1e-5)


def test_autocast_does_not_lower_the_precision():
    maps = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = gem(maps)
    torch.testing.assert_close(pooled, gem(maps), rtol=0, atol=0)


def test_gradients_of_zeros_are_finite():
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    gem(maps).sum().backward()
    assert torch.isfinite(maps.grad).all()


def test_windows_are_pooled_as_maps_of_their_own():
    maps = torch.rand(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    pooled = gem_of_windows(maps, 3, stride=2, power=2.5)
    assert pooled.shape == (2 * 3 * 2, 3)
    corners = [(y, x) for y in (0, 2, 4) for x in (0, 2)]
    expected = torch.stack(
        [gem(maps[:, :, y : y + 3, x : x + 3], power=2.5) for y, x in corners], dim=1
    )
    torch.testing.assert_close(pooled, expected.flatten(0, 1))

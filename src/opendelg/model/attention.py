"""The attention head: which cells of the shallow map are worth a local feature (SPEC 1.1)."""

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """1x1 convolution, batch norm, ReLU, 1x1 convolution, softplus.

    The batch norm is in both code bases though the paper does not name it (SPEC 1.2, 1.3).
    """

    def __init__(self, channels: int, width: int, *, epsilon: float, conv_bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(width, eps=epsilon)
        self.conv2 = nn.Conv2d(width, 1, 1)

    def forward(self, shallow: Tensor) -> Tensor:
        """Score (B, C, H, W) as (B, H, W), non-negative."""
        hidden = functional.relu(self.bn1(self.conv1(shallow)))
        return functional.softplus(self.conv2(hidden).float()).squeeze(1)

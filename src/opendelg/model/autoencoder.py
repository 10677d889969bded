"""The autoencoder that shortens local features without a PCA step (SPEC 1.1)."""

from torch import Tensor, nn
from torch.nn import functional


class Autoencoder(nn.Module):
    """Linear 1x1 encoder and 1x1 decoder with ReLU; only training needs the decoder."""

    def __init__(self, channels: int, num_dimensions: int, has_decoder: bool = True) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(channels, num_dimensions, 1)
        if has_decoder:
            self.decoder = nn.Conv2d(num_dimensions, channels, 1)

    def encode(self, shallow: Tensor) -> Tensor:
        """Local descriptors (B, D, H, W) before normalisation, of either sign."""
        encoded: Tensor = self.encoder(shallow)
        return encoded

    def decode(self, encoded: Tensor) -> Tensor:
        """Reconstruct the shallow map (B, C, H, W); never negative, as the map itself."""
        return functional.relu(self.decoder(encoded))

    def forward(self, shallow: Tensor) -> Tensor:
        """Encode the shallow map (B, C, H, W) and reconstruct it."""
        return self.decode(self.encode(shallow))

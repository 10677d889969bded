"""Batch norms whose statistics are those of all processes together.

torch's SyncBatchNorm does the same and wants a GPU; this one also runs on CPUs.
"""

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SyncedBatchNorm(nn.BatchNorm2d):
    """A batch norm over the batches of all processes, which must have the same size."""

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise (B, C, H, W) maps in float32 and give them back in their own type."""
        if not self.training:
            return super().forward(maps)
        values = maps.float()
        mean = _over_processes(values.mean(dim=(0, 2, 3)))
        centred = values - mean[:, None, None]
        variance = _over_processes((centred**2).mean(dim=(0, 2, 3)))
        count = torch.distributed.get_world_size() * values[:, 0].numel()
        self._track(mean.detach(), variance.detach(), count)
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalised.to(maps.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), self.momentum)


def _over_processes(means: Tensor) -> Tensor:
    """The mean of all processes' values, which gradients pass."""
    total: Tensor = all_reduce(means)  # type: ignore[no-untyped-call]
    return total / torch.distributed.get_world_size()


def synchronise_batch_norms(network: nn.Module, on_gpu: bool) -> nn.Module:
    """Exchange every batch norm of a network for one over all processes, weights kept."""
    if on_gpu:
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(  # type: ignore[no-untyped-call]
            network
        )
        return converted
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            # Nothing else differs: its state stays what it is.
            module.__class__ = SyncedBatchNorm
    return network

"""The network: nn.Modules only, no file access."""

from opendelg.model.delg import RESNET18, RESNET50, RESNET101, Delg, ModelConfig

__all__ = ["RESNET18", "RESNET50", "RESNET101", "Delg", "ModelConfig"]

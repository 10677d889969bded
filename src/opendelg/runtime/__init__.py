"""The same forward pass on ONNX Runtime (CPUs) and on torch (GPUs)."""

import ctypes
import sys
from typing import Literal

from opendelg.errors import OpenDelgError
from opendelg.runtime.architecture import Architecture
from opendelg.runtime.protocol import RawFeatures, Runtime
from opendelg.weights import Weights

Device = Literal["auto", "cpu", "cuda"]

__all__ = ["Architecture", "Device", "RawFeatures", "Runtime", "choose_runtime"]


def choose_runtime(
    weights: Weights, device: Device = "auto", threads: int | None = None
) -> Runtime:
    """The fastest runtime of a device.

    Args:
        weights: Weights of the network.
        device: "auto" takes a GPU where there is one.
        threads: CPU threads of one pass; None: all that this process may use.

    Raises:
        OpenDelgError: If "cuda" is asked for and there is no GPU that torch can use.
    """
    if device == "auto":
        device = "cuda" if _has_gpu_driver() and _torch_has_gpu() else "cpu"
    if device == "cpu":
        from opendelg.runtime.onnx_runtime import OnnxRuntime

        return OnnxRuntime(weights, threads)
    if device != "cuda":
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda', got {device!r}")
    if not _torch_has_gpu():
        raise OpenDelgError("device must be present, got 'cuda' without a GPU that torch can use")
    from opendelg.runtime.torch_runtime import TorchRuntime

    return TorchRuntime(weights, device, threads)


def _has_gpu_driver() -> bool:
    """Whether NVIDIA's driver is installed: found out without torch, whose import takes 2 s."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _torch_has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()

"""The forward pass on ONNX Runtime: the fastest on CPUs, and free of torch."""

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from opendelg.runtime.architecture import Architecture
from opendelg.runtime.onnx_graph import Part, build_graph
from opendelg.runtime.protocol import RawFeatures, check_images
from opendelg.threads import available_cores
from opendelg.weights import Weights


class OnnxRuntime:
    """A network on the CPU; see `opendelg.runtime.Runtime`."""

    device = "cpu"

    def __init__(self, weights: Weights, threads: int | None = None) -> None:
        """Make the sessions.

        Args:
            weights: Weights of the network.
            threads: CPU threads of one pass; None: all that this process may use.
        """
        self.architecture = Architecture.from_settings(weights.model)
        options = _session_options(threads or available_cores())
        parts: tuple[Part, ...] = ("shallow", "global", "local")
        self._shallow, self._global, self._local = (
            onnxruntime.InferenceSession(
                build_graph(part, self.architecture, weights.state).SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
            )
            for part in parts
        )

    def run(self, images: np.ndarray, want_global: bool, want_local: bool) -> RawFeatures:
        """Raw features of images of one size; see `opendelg.runtime.Runtime`."""
        check_images(images, self.architecture.min_side)
        (shallow,) = self._shallow.run(["shallow"], {"images": images})
        global_descriptors = attention = local_descriptors = None
        if want_global:
            (global_descriptors,) = self._global.run(None, {"shallow": shallow})
        if want_local:
            attention, local_descriptors = self._local.run(None, {"shallow": shallow})
        return RawFeatures(global_descriptors, attention, local_descriptors)


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    # Idle threads that spin take the cores from decoding: 1.2 s instead of 0.7 s on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options

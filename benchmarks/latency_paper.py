"""The network of the paper in plain PyTorch, and what PyTorch gets out of this CPU."""

from __future__ import annotations

from collections.abc import Callable
import time

from coam_ros.training.config import load_config
from coam_ros.training.decoders import View
from coam_ros.training.network import CoamNetwork
from latency_cost import Cost, Machine
import torch
from torch.nn.attention import sdpa_kernel, SDPBackend
from torch.utils.flop_counter import FlopCounterMode

_PRODUCT_SIZE = 2048
_COPY_VALUES = 2**26
_NUM_RUNS = 10
_NAMES = {torch.float32: 'fp32', torch.bfloat16: 'bf16'}


class PaperNetwork:
    """Wiles et al., CVPR 2021, with ResNet-50 and random weights, in evaluation mode.

    Matching is not part of it: with the paper's 128 x 128 points an image it would take longer.

    Attributes:
        size_px: side of the images.
    """

    def __init__(self, size_px: int) -> None:
        """Build."""
        words = ['data_root=.', 'network.encoder_weights=null']
        self._network = CoamNetwork(load_config('paper_resnet50', words).network).eval()
        self._image = torch.rand(1, 3, size_px, size_px) * 255
        self.size_px = size_px

    @torch.inference_mode()
    def run(self) -> None:
        """Describe a pair of images that were not seen before."""
        views = [View(self._network.encode(self._image)[0], None) for _ in range(2)]
        self._network.describe_pair(*views)

    def count(self) -> Cost:
        """Count the multiply-adds of `run`; what its layers move is not counted."""
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self.run()
        return Cost(
            macs=counter.get_total_flops() // 2,
            num_weights=sum(p.numel() for p in self._network.parameters()),
            num_map_values=0,
            io_bytes=2 * self._image.nbytes,
            kernel_ms={},
        )


def measure_this_cpu(num_threads: int, dtype: torch.dtype) -> Machine:
    """Take the fastest of several matrix products and of several copies for its limits."""
    product = torch.rand(2, _PRODUCT_SIZE, _PRODUCT_SIZE).to(dtype)
    source, target = torch.zeros(2, _COPY_VALUES)
    return Machine(
        f'this CPU, {num_threads} thread{"s" * (num_threads > 1)}, {_NAMES[dtype]}',
        _PRODUCT_SIZE**3 / _least_s(lambda: product[0] @ product[1]),
        2 * source.nbytes / _least_s(lambda: target.copy_(source)),
        dtype.itemsize,
    )


def _least_s(function: Callable[[], object]) -> float:
    durations = []
    for _ in range(_NUM_RUNS):
        start = time.perf_counter()
        function()
        durations.append(time.perf_counter() - start)
    return min(durations)

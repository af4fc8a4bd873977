"""Training from relative poses alone: epipolar and cycle-consistency losses.

Shape legend: B pairs, N points, D channels, P positions of the other image's map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from coam_ros.training.config_file import check_least
from coam_ros.training.epipolar import crosses_image, distance_to_lines, epipolar_lines
from coam_ros.training.network import DescribedImage
from coam_ros.training.sampling import (
    cell_centres,
    cells_to_pixels,
    gather_window,
    masked_mean,
    sample_descriptors,
    sample_map,
    soft_argmax,
    step_of,
)
import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class SelfSupervisedConfig:
    """Constants of the loss; CAPS is Wang et al., ECCV 2020, at the values of its training code.

    Attributes:
        num_points: points of image 0 in each pair; 500 in CAPS.
        textured_share: share of the points that are drawn where the image has texture, the rest
            anywhere; in CAPS 0.9 are SIFT keypoints.
        temperature: cosine similarities are divided by this before the softmax. CAPS has raw dot
            products, whose scale the network learns; our descriptors have unit length.
        spacing_px: of the positions that may be the correspondence; 16 in CAPS (its coarse
            level), ours as deployed.
        window: side of the fine level's window around the best position [cells], odd. CAPS has
            1/8 of the image; the deployed search has 6 cells around the matched block.
        window_temperature: of the softmax in that window; the deployed search learns its own.
        epipolar_weight: of the epipolar loss of the coarse level; 1 in CAPS.
        fine_weight: of the epipolar loss of the fine level; 1 in CAPS.
        cycle_weight: of the cycle-consistency loss; 0.1 in CAPS.
        distinctiveness_weight: of the distinctiveness' cross-entropy; CAPS has no such head.
        max_epipolar_share: points whose expected correspondence is farther from the epipolar
            line than this share of the image's shorter side are left out; 0.3 in CAPS.
        max_cycle_share: the same for the cycle-consistency loss; 0.025 in CAPS.
        max_cycle_px: farther than this from its start, a point's way back is left out; 10 in
            CAPS.
    """

    num_points: int = 500
    textured_share: float = 0.9
    temperature: float = 0.05
    spacing_px: int = 8
    window: int = 5
    window_temperature: float = 0.05
    epipolar_weight: float = 1.0
    fine_weight: float = 1.0
    cycle_weight: float = 0.1
    distinctiveness_weight: float = 0.5
    max_epipolar_share: float = 0.3
    max_cycle_share: float = 0.025
    max_cycle_px: float = 10.0

    def __post_init__(self) -> None:
        """Check ranges; raises a ValueError that names the field."""
        check_least('loss', self, num_points=1, temperature=1e-3, spacing_px=1)
        check_least('loss', self, window=1, window_temperature=1e-3)
        if self.window % 2 == 0:
            raise ValueError(f'loss.window is {self.window}, wanted an odd number; correct it.')
        if not 0 <= self.textured_share <= 1:
            raise ValueError(
                f'loss.textured_share is {self.textured_share}, wanted a share from 0 to 1; '
                'correct it.'
            )


class SelfSupervisedLoss:
    """The loss of CAPS on conditioned descriptors, as the CoAM paper trains without matches.

    For points of image 0, the expected correspondence is the mean position of image 1 under a
    softmax of the similarity. The epipolar loss is its distance to the epipolar line of the
    known relative pose; the cycle-consistency loss is how far from its start a point arrives
    when it is carried on and back. Both are weighted by the inverse spread of the distributions,
    normalised, without a gradient. Points whose epipolar line misses image 1 are left out.

    Our reading:

    - Distances are in pixels, so that their balance with the distinctiveness is the same at
      every size; CAPS divides them by the image's longer side.
    - Texture stands for SIFT keypoints: points are drawn with the squared gradient as chance.
    - The spread of a distribution holds that of a cell, so that it never vanishes.
    - The fine level has the epipolar loss alone, at the coarse level's weights, for points whose
      line passes through the window's circle.
    - Points beyond `max_cycle_px` are left out of the weights too; in CAPS they count as 0.
    - A point is taken as distinctive where it passes both limits of the cycle-consistency loss:
      it lies near its line and comes back.
    """

    def __init__(self, config: SelfSupervisedConfig) -> None:
        """Take the constants."""
        self.config = config

    def __call__(
        self,
        described0: DescribedImage,
        described1: DescribedImage,
        batch: dict[str, torch.Tensor],
        output_stride: int,
        refiner: nn.Module | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss; see `Loss`. The batch carries image0 and the fundamental matrix."""
        config = self.config
        map0, map1 = described0.descriptors, described1.descriptors
        points0 = draw_points(batch['image0'], config.num_points, config.textured_share)
        size1 = [side * output_stride for side in map1.shape[:1:-1]]
        lines1, is_line = epipolar_lines(points0, batch['fundamental'])
        known = is_line & crosses_image(lines1, size1)

        descriptors0 = sample_descriptors(map0, points0, output_stride)
        there = self._correspond(descriptors0, map1, output_stride)
        descriptors1 = sample_descriptors(map1, there.expected, output_stride)
        back = self._correspond(descriptors1, map0, output_stride)
        corners = there.best_cells - config.window // 2
        similarity, cells = gather_window(map1, descriptors0, corners, config.window)
        fine = soft_argmax(similarity / config.window_temperature, cells)

        epipolar_px = distance_to_lines(there.expected, lines1)
        fine_px = distance_to_lines(cells_to_pixels(fine, output_stride), lines1)
        cycle_px = (back.expected - points0).norm(dim=-1)
        with torch.no_grad():
            best_px = cells_to_pixels(there.best_cells.to(points0.dtype), output_stride)
            in_window = distance_to_lines(best_px, lines1) < config.window // 2 * output_stride
            is_near = epipolar_px < config.max_cycle_share * min(size1)
            is_consistent = known & is_near & (cycle_px < config.max_cycle_px)
            is_usable = known & (epipolar_px < config.max_epipolar_share * min(size1))
        logit = sample_map(described0.distinctiveness_logits, points0, output_stride)[..., 0]
        terms = {
            'epipolar_px': _weighted_mean(epipolar_px, is_usable / there.spread),
            'fine_px': _weighted_mean(fine_px, (known & in_window) / there.spread),
            'cycle_px': _weighted_mean(cycle_px, is_consistent / (there.spread * back.spread)),
            'distinctiveness': masked_mean(
                functional.binary_cross_entropy_with_logits(
                    logit, is_consistent.float(), reduction='none'
                ),
                known,
            ),
        }
        loss = (
            config.epipolar_weight * terms['epipolar_px']
            + config.fine_weight * terms['fine_px']
            + config.cycle_weight * terms['cycle_px']
            + config.distinctiveness_weight * terms['distinctiveness']
        )
        figures = {key: value.detach() for key, value in terms.items()}
        return loss, figures | {'consistent': masked_mean(is_consistent.float(), known)}

    def _correspond(
        self, descriptors: torch.Tensor, feature_map: torch.Tensor, stride: int
    ) -> Correspondence:
        step = step_of(self.config.spacing_px, stride)
        return expected_correspondence(
            descriptors, feature_map, stride, step, self.config.temperature
        )


class Correspondence(NamedTuple):
    """Where points of one image lie in the other, according to their descriptors.

    Attributes:
        expected: (B, N, 2) pixels, the mean of the distribution.
        spread: (B, N) its standard deviation [px], x and y added up; without a graph.
        best_cells: (B, N, 2) int64, column and row of the likeliest cell.
    """

    expected: torch.Tensor
    spread: torch.Tensor
    best_cells: torch.Tensor


def expected_correspondence(
    descriptors: torch.Tensor,
    feature_map: torch.Tensor,
    stride: int,
    step: int,
    temperature: float,
) -> Correspondence:
    """Find the mean of the softmax of the similarity over a map.

    Args:
        descriptors: (B, N, D) unit descriptors of points.
        feature_map: (B, D, H, W) unit descriptors of the other image.
        stride: of the map [px].
        step: every `step`-th cell of the map is a position.
        temperature: cosine similarities are divided by this.
    """
    positions = cell_centres(feature_map, stride, step)
    # Squares of pixels about the middle of the image: float32 rounds larger ones too much.
    middle = positions.mean(0)
    positions = positions - middle
    coarse = feature_map[:, :, ::step, ::step]
    similarity = torch.einsum('bnd,bdp->bnp', descriptors, coarse.flatten(2))
    probability = functional.softmax(similarity / temperature, dim=-1)
    expected = probability @ positions
    with torch.no_grad():
        variance = probability @ positions.square() - expected.square()
        # The cell itself: uniform over its width.
        spread = (variance.clamp(min=0) + (stride * step) ** 2 / 12).sqrt().sum(-1)
        best = similarity.argmax(-1)
        width = coarse.shape[-1]
        best_cells = torch.stack([best % width, best // width], dim=-1) * step
    return Correspondence(expected + middle, spread, best_cells)


def draw_points(images: torch.Tensor, count: int, textured_share: float) -> torch.Tensor:
    """Draw points of images, a share of them where there is texture.

    Args:
        images: (B, 3, H, W) uint8.
        count: points of an image.
        textured_share: 0 to 1; that share is drawn with the squared gradient as its chance.

    Returns:
        (B, count, 2) float32 pixels.
    """
    batch, _, height, width = images.shape
    grey = images.float().mean(1)
    gradient_x = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
    gradient_y = grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    # An image of one colour has no texture: any point is as good.
    chance = (gradient_x.square() + gradient_y.square()).flatten(1) + 1e-6
    num_textured = round(textured_share * count)
    index = chance.new_empty((batch, 0), dtype=torch.long)
    # It refuses to draw none.
    if num_textured:
        index = torch.multinomial(chance, num_textured, replacement=True)
    textured = torch.stack([index % (width - 2), index // (width - 2)], dim=-1) + 1.0
    anywhere = torch.rand(batch, count - num_textured, 2, device=images.device)
    last = anywhere.new_tensor([width - 1, height - 1])
    return torch.cat([textured, anywhere * last], dim=1)


def _weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Average with weights; 0 with a valid graph where all of them are 0."""
    return (values * weight).sum() / weight.sum().clamp(min=1e-12)

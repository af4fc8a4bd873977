"""Training pairs: two images with known correspondences or epipolar geometry, and their mixture.

Every source answers `sample` with a pair; the mixture of sources is an endless, seeded data set.
Nothing here touches the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from coam_ros.geometry.image_views import Image, Points
from coam_ros.training.data.photometric import vary_photometry
from coam_ros.training.data.views import check_not_negative, CropConfig, ViewSpec
import numpy as np
from numpy.typing import NDArray
import torch
from torch.utils.data import Dataset

# Pairs as tensors by name, the first axis being that of the pairs.
Batch = dict[str, torch.Tensor]

MATCHED, UNMATCHED, IGNORED = 1, 0, -1
# Draws before a source gives up: at the least overlap that a scene may have, one in about twenty
# draws succeeds, so this is never reached by chance.
_MAX_DRAWS = 500

_Pair = TypeVar('_Pair')


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """What the configs of all sources share.

    Attributes:
        path: folder or file of the data.
        weight: share of the training pairs from this source, relative to the other sources.
        crop: how views are cut from images.
        photometric_strength: factor on every change of light, colour, sharpness and noise; 0
            leaves the views as they are.
        cache_mb: decoded images that each loading process keeps, for this source [MB].
    """

    path: str
    weight: float = 1.0
    crop: CropConfig = field(default_factory=CropConfig)
    photometric_strength: float = 1.0
    cache_mb: int = 256

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: naming the field.
        """
        check_not_negative(self, 'weight', 'photometric_strength', 'cache_mb')


@dataclass(frozen=True, eq=False)
class TrainingPair:
    """Two views and what is known about points of the first.

    Attributes:
        image0, image1: (H, W, 3) uint8 RGB.
        points0, points1: (N, 2) float32 pixels; `points1` counts only where matched.
        state: (N,) int64: MATCHED, UNMATCHED (not in image 1) or IGNORED (padding).
        is_precise: whether the correspondences hold to about a pixel.
    """

    image0: Image
    image1: Image
    points0: Points
    points1: Points
    state: NDArray[np.int64]
    is_precise: bool

    def tensors(self) -> dict[str, torch.Tensor]:
        """Give the pair as the losses take it, images as (3, H, W)."""
        return {
            'image0': _image_tensor(self.image0),
            'image1': _image_tensor(self.image1),
            'points0': torch.from_numpy(self.points0),
            'points1': torch.from_numpy(self.points1),
            'state': torch.from_numpy(self.state),
            'is_precise': torch.tensor(self.is_precise),
        }


@dataclass(frozen=True, eq=False)
class EpipolarPair:
    """Two views of which only the epipolar geometry is known, for self-supervision.

    Attributes:
        image0, image1: (H, W, 3) uint8 RGB.
        fundamental: (3, 3) float32 of norm 1, p1^T F p0 = 0 for pixels of the views.
    """

    image0: Image
    image1: Image
    fundamental: NDArray[np.float32]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Give the pair as the losses take it, images as (3, H, W)."""
        return {
            'image0': _image_tensor(self.image0),
            'image1': _image_tensor(self.image1),
            'fundamental': torch.from_numpy(self.fundamental),
        }


class PairSource(Protocol):
    """An endless supply of training pairs."""

    def sample(self, rng: np.random.Generator, item: int = 0) -> TrainingPair | EpipolarPair:
        """Return one pair; the same arguments give the same pair in every process.

        Args:
            rng: source of all randomness.
            item: about how many pairs the source has given before, in the whole run; for sources
                whose scenes are dear to make and therefore change slowly.
        """


class PairMixture(Dataset):
    """Endless seeded mixture of sources: item i is the same in every run and after a resume."""

    def __init__(
        self, sources: Sequence[PairSource], weights: Sequence[float], num_items: int, seed: int
    ) -> None:
        """Mix sources.

        Args:
            sources: at least one.
            weights: of the sources, not negative, not all 0.
            num_items: bounds the index.
            seed: another one gives other pairs.

        Raises:
            ValueError: no source, or weights that cannot be shares.
        """
        if not sources or len(sources) != len(weights) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f'{len(sources)} data sources with weights {list(weights)}, wanted at least one '
                'source and a weight of at least 0 for each, not all 0; correct data.sources.'
            )
        self._sources = list(sources)
        self._shares = np.asarray(weights, np.float64) / np.sum(weights)
        self._num_items = num_items
        self._seed = seed

    def __len__(self) -> int:
        """Return the number of items that an epoch would have."""
        return self._num_items

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return pair `index` as tensors."""
        rng = np.random.default_rng((self._seed, index))
        chosen = rng.choice(len(self._sources), p=self._shares)
        item = int(index * self._shares[chosen])
        return self._sources[chosen].sample(rng, item).tensors()


class PairFinisher:
    """The last step of every source: photometric change, and a fixed number of points."""

    def __init__(self, config: SourceConfig, spec: ViewSpec) -> None:
        """Take the strength from the source and the number of points from the views."""
        self._strength = config.photometric_strength
        self._num_points = spec.num_points

    def finish(
        self,
        images: tuple[Image, Image],
        points: tuple[Points, Points],
        state: NDArray[np.int64],
        rng: np.random.Generator,
        *,
        is_precise: bool,
    ) -> TrainingPair:
        """Make a pair.

        Args:
            images: the two views.
            points: (M, 2) pixels of each view, of any number.
            state: (M,) of the points.
            rng: source of randomness.
            is_precise: whether the correspondences hold to about a pixel.
        """
        order = rng.permutation(len(state))
        # Ignored points last, so that cutting keeps what teaches.
        order = order[np.argsort(state[order] == IGNORED, kind='stable')][: self._num_points]
        state = state[order]
        points0 = points[0][order]
        points1 = np.where((state == MATCHED)[:, None], points[1][order], 0)
        missing = self._num_points - len(state)
        return TrainingPair(
            self.vary(images[0], rng),
            self.vary(images[1], rng),
            np.pad(points0, ((0, missing), (0, 0))).astype(np.float32),
            np.pad(points1, ((0, missing), (0, 0))).astype(np.float32),
            np.pad(state, (0, missing), constant_values=IGNORED).astype(np.int64),
            is_precise,
        )

    def vary(self, image: Image, rng: np.random.Generator) -> Image:
        """Vary the photometry of a view."""
        return vary_photometry(image, rng, self._strength)


def draw_until_made(draw: Callable[[], _Pair | None], path: str, wanted: str) -> _Pair:
    """Draw pairs until one is usable.

    Args:
        draw: gives None where what it drew is not usable.
        path: of the source, for the error.
        wanted: what a usable pair has, for the error.

    Raises:
        ValueError: hundreds of draws in a row gave nothing.
    """
    for _ in range(_MAX_DRAWS):
        pair = draw()
        if pair is not None:
            return pair
    raise ValueError(
        f'{path} gives no training pairs: {_MAX_DRAWS} draws in a row found none, wanted '
        f'{wanted}; check its poses and depth, or leave the source out.'
    )


def _image_tensor(image: Image) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

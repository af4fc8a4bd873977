"""The matcher: images in, correspondences in pixels of those images out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coam_ros.inference import CoamModel
from coam_ros.matching.correspondences import Correspondences
from coam_ros.matching.encoded_image import EncodedImage
from coam_ros.matching.preprocessing import as_rgb, Resizing
import numpy as np
from numpy.typing import NDArray

# Below this a match is more of a burden to an estimator than a help; docs/experiments.md.
_MIN_SCORE = 0.1


class CoamMatcher:
    """Match images with CoAM.

    Three lines make a match::

        matcher = CoamMatcher.load()
        correspondences = matcher.match(image0, image1)
        print(correspondences.points0, correspondences.points1, correspondences.scores)

    One query against several keyframes, whose encoding is kept::

        encoded = [matcher.encode(image) for image in keyframe_images]
        results = matcher.match_encoded(matcher.encode(query_image), encoded)

    Not safe for use by several threads at once.
    """

    def __init__(
        self,
        model: CoamModel,
        image_area_px: int | None = None,
        min_score: float = _MIN_SCORE,
    ) -> None:
        """Use a loaded model; see `load`."""
        self._model = model
        self._min_score = min_score
        self._area_px = image_area_px or model.manifest.image_area_px

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        backend: str = 'auto',
        image_area_px: int | None = None,
        num_threads: int | None = None,
        min_score: float = _MIN_SCORE,
    ) -> CoamMatcher:
        """Load a model.

        Args:
            model: folder of a model; None = the default one that comes with the package.
            backend: library that runs it; 'auto' = the fastest present.
            image_area_px: images are resized to about this area, whatever their size [px]; None =
                the model's own (640 x 480). More finds finer detail and costs in proportion.
            num_threads: CPU threads; None = one for each physical core.
            min_score: matches that are less likely right than this are left out; 0 keeps all
                mutual nearest neighbours.

        Raises:
            FileNotFoundError: the folder is no model.
            EngineIncompatibleError: its files are damaged or do not fit this software.
            ValueError: unknown backend, an area that is too small, or a score outside [0, 1).
        """
        loaded = CoamModel.load(model, backend, num_threads)
        # The pair matcher picks one point of each block of 8 x 8 pixels at most.
        least = 64 * loaded.manifest.num_matches
        if image_area_px is not None and image_area_px < least:
            raise ValueError(
                f'Image area too small: got {image_area_px} px, wanted at least {least} px, which '
                f'hold the {loaded.manifest.num_matches} points that the model selects.'
            )
        if not 0.0 <= min_score < 1.0:
            raise ValueError(
                f'Least score is {min_score}, wanted 0 <= min_score < 1: it is a probability.'
            )
        return cls(loaded, image_area_px, min_score)

    @property
    def model_id(self) -> str:
        """Name and hash of the model."""
        return self._model.manifest.model_id

    @property
    def descriptor_model_id(self) -> str:
        """Identity of the global descriptors: comparable only where it is equal."""
        return self._model.manifest.descriptor_model_id

    @property
    def global_descriptor_dim(self) -> int:
        """Length of the global descriptors."""
        return self._model.manifest.global_descriptor_dim

    @property
    def backend_name(self) -> str:
        """Library and device that run the model."""
        return self._model.backend_name

    def encode(self, image: NDArray[Any]) -> EncodedImage:
        """Compute the features of one image, which do not depend on any other image.

        Args:
            image: (H, W, 3) RGB or (H, W) grey, uint8, any size.

        Raises:
            TypeError, ValueError: see `as_rgb`.
        """
        image = as_rgb(image)
        height, width = image.shape[:2]
        multiple = self._model.manifest.size_multiple
        resizing = Resizing.fit((width, height), self._area_px, multiple)
        features, descriptor = self._model.encode(resizing.apply(image))
        return EncodedImage(features, descriptor, resizing)

    def match(self, image0: NDArray[Any], image1: NDArray[Any]) -> Correspondences:
        """Match two images.

        Args:
            image0: (H, W, 3) RGB or (H, W) grey, uint8, any size.
            image1: the same, of a size of its own.

        Raises:
            TypeError, ValueError: see `as_rgb`.
        """
        return self.match_encoded(self.encode(image0), [self.encode(image1)])[0]

    def match_encoded(
        self, query: EncodedImage, keyframes: Sequence[EncodedImage]
    ) -> list[Correspondences]:
        """Match one encoded query with encoded keyframes.

        Keyframes whose input has the same size run as one batch.

        Returns:
            One result a keyframe, in order; `points0` are query pixels, `points1` keyframe
            pixels. Empty for no keyframes.
        """
        results: list[Correspondences | None] = [None] * len(keyframes)
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, keyframe in enumerate(keyframes):
            by_size.setdefault(keyframe.resizing.input_size, []).append(index)
        for indices in by_size.values():
            raw = self._model.match(
                query.features,
                query.resizing.resized_size,
                [keyframes[i].features for i in indices],
                [keyframes[i].resizing.resized_size for i in indices],
            )
            for slot, index in enumerate(indices):
                order = np.argsort(-raw.scores[slot], kind='stable')
                is_kept = (raw.scores[slot] > 0) & (raw.scores[slot] >= self._min_score)
                order = order[: int(is_kept.sum())]
                results[index] = Correspondences(
                    query.resizing.to_image(raw.query_points[slot][order]),
                    keyframes[index].resizing.to_image(raw.keyframe_points[slot][order]),
                    raw.scores[slot][order],
                    raw.similarities[slot][order],
                    raw.distinctiveness[slot][order],
                )
        return [result for result in results if result is not None]

    def close(self) -> None:
        """Free the model."""
        self._model.close()

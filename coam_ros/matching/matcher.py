"""The matcher: images in, correspondences in pixels of those images out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coam_ros.inference import CoamModel
from coam_ros.inference.model import MIN_SCORE, RawMatches
from coam_ros.matching.alignment import align_matches
from coam_ros.matching.correspondences import Correspondences
from coam_ros.matching.encoded_image import EncodedImage
from coam_ros.matching.preprocessing import as_rgb, Resizing
from coam_ros.matching.view_search import PLENTY_ALIGNED, search_view
import cv2
import numpy as np
from numpy.typing import NDArray


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
        min_score: float = MIN_SCORE,
        aligns: bool = True,
        searches_views: bool = True,
    ) -> None:
        """Use a loaded model; see `load`."""
        self._model = model
        self._aligns = aligns
        self._searches_views = searches_views and aligns
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
        min_score: float = MIN_SCORE,
        aligns: bool = True,
        searches_views: bool = True,
    ) -> CoamMatcher:
        """Load a model.

        Args:
            model: folder of a model; None = the default one that comes with the package.
            backend: library that runs it; 'auto' = the fastest present.
            image_area_px: images are resized to about this area, whatever their size [px]; None =
                the model's own (640 x 480). More finds finer detail and costs in proportion.
                TensorRT takes the size for which its engines were built instead.
            num_threads: CPU threads; None = one for each physical core.
            min_score: matches to which the network gives less than this are left out; 0 keeps all
                mutual nearest neighbours. Alignment comes after it and may lower a score further.
            aligns: whether the images themselves confirm the matches and refine them to a fraction
                of a pixel; where that leaves enough matches, the others are left out. See
                `alignment`.
            searches_views: whether `match` turns and zooms images that hardly match until they
                do: some 30 times the work, for pairs that would fail without it. The network
                itself takes turns of about 45 degrees and changes of scale of about 2. Needs
                `aligns`. See `view_search`.

        Raises:
            FileNotFoundError: the folder is no model.
            EngineIncompatibleError: its files are damaged or do not fit this software.
            ValueError: unknown backend, an area that is too small, or a score outside [0, 1).
        """
        loaded = CoamModel.load(model, backend, num_threads)
        least = loaded.manifest.least_area_px
        if image_area_px is not None and image_area_px < least:
            raise ValueError(
                f'Image area too small: got {image_area_px} px, wanted at least {least} px, which '
                f'hold the {loaded.manifest.num_matches} points that the model selects.'
            )
        if not 0.0 <= min_score < 1.0:
            raise ValueError(
                f'Least score is {min_score}, wanted 0 <= min_score < 1: it is a probability.'
            )
        return cls(loaded, image_area_px, min_score, aligns, searches_views)

    @property
    def model_id(self) -> str:
        """Name and hash of the model."""
        return self._model.manifest.model_id

    @property
    def descriptor_model_id(self) -> str:
        """Identity of the global descriptors: comparable only where it is equal."""
        return self._model.manifest.descriptor_model_id

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
        size, fixed = image.shape[1::-1], self._model.input_size
        multiple = self._model.manifest.size_multiple
        resizing = (
            Resizing.fit(size, self._area_px, multiple)
            if fixed is None
            else Resizing.fit_inside(size, fixed)
        )
        resized = resizing.apply(image)
        features, descriptor = self._model.encode(resized)
        width, height = resizing.resized_size
        grey = cv2.cvtColor(resized[:height, :width], cv2.COLOR_RGB2GRAY)
        return EncodedImage(features, descriptor, resizing, np.asarray(grey, np.uint8))

    def match(self, image0: NDArray[Any], image1: NDArray[Any]) -> Correspondences:
        """Match two images.

        Args:
            image0: (H, W, 3) RGB or (H, W) grey, uint8, any size.
            image1: the same, of a size of its own.

        Raises:
            TypeError, ValueError: see `as_rgb`.
        """
        image0, image1 = as_rgb(image0), as_rgb(image1)
        encoded0, encoded1 = self.encode(image0), self.encode(image1)
        upright = self.match_encoded(encoded0, [encoded1], both_ways=True)[0]
        if not self._searches_views or upright.num_aligned >= PLENTY_ALIGNED:
            return upright
        coarse = CoamMatcher(
            self._model, self._model.manifest.least_area_px, self._min_score, self._aligns
        )
        return search_view(self, coarse, image0, image1, upright)

    def match_encoded(
        self,
        query: EncodedImage,
        keyframes: Sequence[EncodedImage],
        *,
        both_ways: bool = False,
    ) -> list[Correspondences]:
        """Match one encoded query with encoded keyframes.

        Keyframes whose input has the same size run as one batch.

        Args:
            query: image 0.
            keyframes: each image 1 of a result.
            both_ways: see `align_matches`: relative poses gain by it, poses in a map do not
                (docs/experiments.md).

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
                results[index] = self._finish(
                    query, keyframes[index], raw, slot, both_ways=both_ways
                )
        return [result for result in results if result is not None]

    def _finish(
        self,
        query: EncodedImage,
        keyframe: EncodedImage,
        raw: RawMatches,
        slot: int,
        *,
        both_ways: bool,
    ) -> Correspondences:
        """Choose the matches of one keyframe, align them, and take them to the images' pixels."""
        scores = raw.scores[slot]
        is_kept = (scores > 0) & (scores >= self._min_score)
        found = Correspondences(
            raw.query_points[slot],
            raw.keyframe_points[slot],
            scores,
            raw.similarities[slot],
            raw.distinctiveness[slot],
        ).select(is_kept)
        if self._aligns:
            found = align_matches(query.grey, keyframe.grey, found, both_ways=both_ways)
        return replace(
            found,
            points0=query.resizing.to_image(found.points0),
            points1=keyframe.resizing.to_image(found.points1),
        ).select(np.argsort(-found.scores, kind='stable'))

    def close(self) -> None:
        """Free the model."""
        self._model.close()

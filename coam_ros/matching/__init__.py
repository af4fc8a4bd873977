"""Image pair to correspondences: preprocessing, its exact inverse, and the matcher."""

from coam_ros.matching.correspondences import Correspondences
from coam_ros.matching.encoded_image import EncodedImage
from coam_ros.matching.matcher import CoamMatcher

__all__ = ['CoamMatcher', 'Correspondences', 'EncodedImage']

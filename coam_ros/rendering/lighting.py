"""Ambient and point lights that shade surfaces by Lambert's law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PointLight:
    """A lamp.

    Attributes:
        position_room_m: (x, y, z).
        colour: (red, green, blue) brightness that a surface facing the lamp gets close to it.
        reach_m: distance at which the brightness has fallen to a half.
    """

    position_room_m: tuple[float, float, float]
    colour: tuple[float, float, float]
    reach_m: float = 3.0


@dataclass(frozen=True)
class Lighting:
    """All light in a room; brightness 1 shows a texture as it is.

    Attributes:
        ambient: (red, green, blue) brightness everywhere.
        lamps: point lights.
    """

    ambient: tuple[float, float, float] = (0.75, 0.75, 0.75)
    lamps: tuple[PointLight, ...] = ()

    @classmethod
    def sample(
        cls, rng: np.random.Generator, size_m: tuple[float, float, float], strength: float = 1.0
    ) -> Lighting:
        """Draw ambient light and two lamps below the ceiling of a room of `size_m`.

        Args:
            rng: source of randomness.
            size_m: extent of the room along x, y, z.
            strength: 0 for even white light, 1 for light that clearly differs between two draws.
        """
        lamps = tuple(
            PointLight(
                position_room_m=(
                    float(rng.uniform(0.15, 0.85) * size_m[0]),
                    float(rng.uniform(0.15, 0.85) * size_m[1]),
                    float(rng.uniform(0.6, 0.95) * size_m[2]),
                ),
                colour=_tinted(rng, rng.uniform(0.25, 0.6) * strength, 0.15 * strength),
                reach_m=float(rng.uniform(1.5, 4.0)),
            )
            for _ in range(2)
        )
        return cls(_tinted(rng, 0.95 - 0.3 * strength, 0.08 * strength), lamps)

    def shade(
        self, points_room: NDArray[np.float32], normals_room: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Compute the brightness of surface points.

        Args:
            points_room: (..., 3) float32 [m].
            normals_room: (..., 3) float32, unit, on the visible side.

        Returns:
            (..., 3) float32 factors for red, green, blue.
        """
        factors = np.empty_like(points_room)
        factors[...] = self.ambient
        for lamp in self.lamps:
            cosine, squared = np.float32(0.0), np.float32(0.0)
            # One axis at a time: several times faster than on rows of three numbers.
            for axis in range(3):
                to_lamp = np.float32(lamp.position_room_m[axis]) - points_room[..., axis]
                squared = squared + to_lamp * to_lamp
                cosine = cosine + to_lamp * normals_room[..., axis]
            cosine = np.maximum(cosine, 0.0)
            cosine /= np.sqrt(squared) * (1.0 + squared / np.float32(lamp.reach_m**2))
            for channel in range(3):
                factors[..., channel] += cosine * np.float32(lamp.colour[channel])
        return factors


def _tinted(
    rng: np.random.Generator, brightness: float, tint: float
) -> tuple[float, float, float]:
    red, green, blue = brightness * (1.0 + rng.uniform(-tint, tint, 3))
    return float(red), float(green), float(blue)

"""Hours and weathers: sun, sky, haze and the shadows of the houses across the street."""

from dataclasses import dataclass

import cv2
import numpy as np

from opendelg.datasets.town.materials import noise
from opendelg.datasets.town.surfaces import Camera, Surface

HOURS = ("noon", "morning", "evening", "overcast", "fog", "night")
_SHARES = (0.28, 0.2, 0.2, 0.18, 0.06, 0.08)  # how often; our choice


@dataclass(frozen=True)
class Light:
    """One hour's light.  Colours are shares of full red, green and blue."""

    hour: str  # of HOURS
    sun_direction: np.ndarray  # (3,) unit vector towards the sun
    sun: np.ndarray  # (3,) light on a surface that faces the sun
    ambient: np.ndarray  # (3,) light in the shade
    zenith: np.ndarray  # (3,) colour of the sky above
    horizon: np.ndarray  # (3,) colour of the sky at the horizon, and of the haze
    haze: float  # 1/m
    glow: float  # strength of lit windows and signs
    cloudiness: float  # 0 clear, 1 covered

    def on(self, normal: np.ndarray) -> np.ndarray:
        """(3,) light on a surface with this normal, in the sun."""
        return self.in_shade(normal) + self.sun * max(0.0, float(normal @ self.sun_direction))

    def in_shade(self, normal: np.ndarray) -> np.ndarray:
        """(3,) light on a surface with this normal where the sun does not reach."""
        from_sky = 0.86 + 0.14 * float(normal[1]) - 0.08 * float(normal[0])
        return self.ambient * from_sky

    def haze_at(self, distance: float) -> tuple[float, np.ndarray]:
        """Share of the haze in what is seen at a distance, and its colour (3,)."""
        return float(1 - np.exp(-self.haze * distance)), self.horizon


@dataclass(frozen=True)
class _Hour:
    """Mean light of an hour; the fields are those of Light."""

    sun: tuple[float, float, float]
    ambient: tuple[float, float, float]
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    haze: float  # 1/m
    glow: float
    cloudiness: float


_LIGHT_OF = {  # chosen by eye
    "noon": _Hour(
        sun=(0.72, 0.69, 0.62),
        ambient=(0.5, 0.53, 0.58),
        zenith=(0.3, 0.5, 0.82),
        horizon=(0.74, 0.84, 0.94),
        haze=0.002,
        glow=0.0,
        cloudiness=0.45,
    ),
    "morning": _Hour(
        sun=(0.74, 0.64, 0.5),
        ambient=(0.46, 0.5, 0.57),
        zenith=(0.42, 0.6, 0.84),
        horizon=(0.92, 0.9, 0.86),
        haze=0.005,
        glow=0.0,
        cloudiness=0.4,
    ),
    "evening": _Hour(
        sun=(0.86, 0.58, 0.34),
        ambient=(0.44, 0.42, 0.5),
        zenith=(0.36, 0.44, 0.68),
        horizon=(0.98, 0.76, 0.54),
        haze=0.004,
        glow=0.25,
        cloudiness=0.5,
    ),
    "overcast": _Hour(
        sun=(0.0, 0.0, 0.0),
        ambient=(0.84, 0.86, 0.88),
        zenith=(0.66, 0.7, 0.75),
        horizon=(0.84, 0.86, 0.88),
        haze=0.004,
        glow=0.0,
        cloudiness=1.0,
    ),
    "fog": _Hour(
        sun=(0.0, 0.0, 0.0),
        ambient=(0.78, 0.8, 0.82),
        zenith=(0.74, 0.76, 0.79),
        horizon=(0.8, 0.82, 0.84),
        haze=0.024,
        glow=0.1,
        cloudiness=0.2,
    ),
    "night": _Hour(
        sun=(0.0, 0.0, 0.0),
        ambient=(0.27, 0.29, 0.38),
        zenith=(0.03, 0.05, 0.13),
        horizon=(0.14, 0.15, 0.24),
        haze=0.003,
        glow=1.0,
        cloudiness=0.3,
    ),
}


def random_light(rng: np.random.Generator) -> Light:
    """The light of a random hour; the sun is in front of the facades or a little behind them."""
    hour = str(rng.choice(HOURS, p=_SHARES))
    azimuth = (
        rng.uniform(-75, 75) if rng.random() < 0.8 else rng.choice([-1, 1]) * rng.uniform(95, 130)
    )
    height = {"noon": rng.uniform(45, 62), "morning": rng.uniform(18, 35),
              "evening": rng.uniform(10, 25)}.get(hour, 40.0)  # fmt: skip
    turn, rise = np.deg2rad(azimuth), np.deg2rad(height)
    direction = np.array([np.sin(turn) * np.cos(rise), np.sin(rise), -np.cos(turn) * np.cos(rise)])
    strength = rng.uniform(0.85, 1.15)
    mean = _LIGHT_OF[hour]
    return Light(
        hour=hour,
        sun_direction=direction,
        sun=np.array(mean.sun) * strength,
        ambient=np.array(mean.ambient) * strength,
        zenith=np.array(mean.zenith),
        horizon=np.array(mean.horizon),
        haze=mean.haze,
        glow=mean.glow,
        cloudiness=mean.cloudiness * rng.uniform(0.5, 1.2),
    )


def paint_sky(image: np.ndarray, camera: Camera, light: Light, rng: np.random.Generator) -> None:
    """Fill (H, W, 3) float32 with the sky: brighter to the horizon, with drifting clouds."""
    width, height = camera.size
    small = (max(8, width // 4), max(8, height // 4))
    x, y = np.meshgrid(np.linspace(0, width - 1, small[0]), np.linspace(0, height - 1, small[1]))
    rays = np.stack(
        [(x - (width - 1) / 2) / camera.focal, (y - (height - 1) / 2) / camera.focal], -1
    )
    rays = np.concatenate([rays, np.ones_like(x)[..., None]], -1) @ camera.rotation
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    up = rays[..., 1].clip(0.0, 1.0)
    sky = light.horizon + (light.zenith - light.horizon) * (up[..., None] ** 0.6)
    field = noise(rng, (512, 512), 64)
    plane = rays[..., [0, 2]] / (up + 0.16)[..., None] * 150 + 256
    at = plane.astype(np.float32)
    clouds = cv2.remap(
        field, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    cover = ((clouds + 1.6 * light.cloudiness - 0.9) * 0.9).clip(0, 1) * (up * 6).clip(0, 1)
    bright = light.horizon * 0.55 + 0.45 * max(float(light.ambient.max()) * 1.15, 0.2)
    cloud_colour = bright * (1 - 0.12 * (clouds[..., None] - 0.6).clip(0, 2))
    sky += (cloud_colour - sky) * cover[..., None] * 0.85
    if light.hour in ("morning", "evening", "noon"):
        near_sun = (rays @ light.sun_direction).clip(0, 1) ** 60
        sky += near_sun[..., None] * light.sun * 0.6
    cv2.resize(sky.astype(np.float32), (width, height), dst=image, interpolation=cv2.INTER_LINEAR)


def opposite_roofs(light: Light, rng: np.random.Generator) -> np.ndarray | None:
    """(K, 2) float64 x and height in metres of the shadow's edge on the facades; None without one.

    The houses across the street are not modelled: their shadow is a random skyline, high when the
    sun is low.
    """
    if light.sun.max() == 0 or light.sun_direction[2] > -0.2 or rng.random() < 0.35:
        return None
    mean = rng.uniform(-1.0, 5.0) + 2.5 * (light.hour != "noon")
    x = np.arange(-40.0, 41.0, 4.0) + rng.uniform(0, 4)
    heights = mean + rng.normal(0, 1.6, len(x))
    steps = np.stack([np.repeat(x, 2)[1:], np.repeat(heights, 2)[:-1]], 1)
    steps[:, 0] += np.where(np.arange(len(steps)) % 2, 0.0, 0.6)
    return steps


def shadow_on(surface: Surface, light: Light, roofs: np.ndarray | None) -> np.ndarray | None:
    """(h, w) float32 share of the light that arrives at a coarse grid over a facade."""
    if roofs is None or not surface.is_facade:
        return None
    full = light.on(surface.normal)
    shade = float((light.in_shade(surface.normal) / full).mean())
    width, height = np.linalg.norm(surface.across), np.linalg.norm(surface.down)
    columns, rows = max(4, int(width * 8)), max(4, int(height * 8))
    x = surface.origin[0] + surface.across[0] * (np.arange(columns) + 0.5) / columns
    y = surface.origin[1] + surface.down[1] * (np.arange(rows) + 0.5) / rows
    edge = np.interp(x, roofs[:, 0], roofs[:, 1])
    lit = ((y[:, None] - edge[None]) / 0.35 + 0.5).clip(0, 1)
    shares: np.ndarray = (shade + (1 - shade) * lit).astype(np.float32)
    return shares

"""Dermoscopy-like images with exact masks, each a pure function of (seed, index).

Skin is a diffuse reflectance, attenuated by the pigments above it (Beer-Lambert), under uneven light and with things
lying on it. So a lesion is a field of melanin and blood, not a patch of paint, and its contrast varies with the skin
below and the light above. The mask is bounded where the lesion's opacity crosses one half; freckles, small moles,
redness, ink, hair and stickers are not part of it. Lesion areas follow ISIC 2018, from 1 % to 80 % with a median near
17 %. What is hard there is rarer here, so that the default run can learn it from 160 pictures: one lesion in twelve is
barely visible, fewer are pale or veiled in parts, and one skin in ten is blotched or reddened.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

MELANIN = np.array([0.45, 0.78, 1.05], np.float32)  # absorbance of R, G, B for one unit of the pigment
BLOOD = np.array([0.12, 0.75, 0.62], np.float32)

Generator = np.random.Generator


@dataclass(frozen=True)
class Look:
    """The ranges from which a kind of lesion is drawn."""

    share: float  # of all lesions
    melanin: tuple[float, float]
    blood: tuple[float, float]
    border: tuple[float, float]  # width of the border's transition, in lesion radii
    rough: tuple[float, float]  # irregularity of the outline
    mottle: tuple[float, float]  # how much the pigment varies inside
    regression: float  # probability of pale areas
    veil: float  # probability of blue-white areas


LOOKS = (
    Look(0.42, (0.4, 1.3), (0.0, 0.3), (0.08, 0.35), (0.02, 0.08), (0.1, 0.3), 0.05, 0.03),  # common naevus
    Look(0.20, (0.7, 2.2), (0.0, 0.6), (0.06, 0.3), (0.07, 0.17), (0.25, 0.6), 0.25, 0.15),  # melanoma-like
    Look(0.11, (0.0, 0.3), (0.55, 0.95), (0.1, 0.4), (0.04, 0.14), (0.2, 0.4), 0.15, 0.05),  # pink, little pigment
    Look(0.14, (0.3, 1.0), (0.0, 0.2), (0.03, 0.1), (0.03, 0.1), (0.15, 0.4), 0.1, 0.05),  # keratosis: sharp border
    Look(0.08, (0.2, 0.42), (0.05, 0.25), (0.2, 0.5), (0.03, 0.14), (0.2, 0.4), 0.1, 0.0),  # barely visible
    Look(0.05, (2.4, 3.8), (0.0, 0.5), (0.06, 0.15), (0.01, 0.08), (0.1, 0.3), 0.0, 0.25),  # blue-black
)

SKINS = np.array(  # diffuse reflectance, sRGB
    [
        (238, 228, 220),
        (228, 192, 178),
        (236, 160, 148),
        (240, 138, 122),
        (214, 168, 134),
        (226, 172, 130),
        (176, 152, 150),
        (196, 190, 198),
        (150, 108, 84),
    ],
    np.float32,
)
SKIN_SHARES = (0.17, 0.2, 0.12, 0.08, 0.13, 0.12, 0.08, 0.06, 0.04)


def draw_photograph(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image `index` of the series `seed`: (H, W, 3) uint8 RGB, and its mask, (H, W) uint8 0 or 255."""
    rng = np.random.default_rng((seed, index))
    height, width = _size(rng)
    look = LOOKS[rng.choice(len(LOOKS), p=[look.share for look in LOOKS])]
    field, lesion, mask = _lesion(rng, height, width, look)
    melanin, blood = _skin_pigments(rng, height, width, mask)
    _add_lesion_pigments(rng, melanin, blood, field, lesion, look)
    image = _reflectance(rng, melanin, blood)
    _veil(rng, image, lesion, look)
    _things_on_the_skin(rng, image, mask)
    _light(rng, image)
    visible = _frame(rng, image, mask)
    _sensor(rng, image)
    return image.clip(0, 255).astype(np.uint8), np.where(mask & visible, np.uint8(255), np.uint8(0))


# Geometry


def _size(rng: Generator) -> tuple[int, int]:
    """(height, width) in pixels: mostly landscape, with sides of about 300 to 900."""
    aspect = rng.choice([4 / 3, 3 / 2, 1.0, 5 / 4], p=[0.5, 0.25, 0.15, 0.1])
    area = np.exp(rng.uniform(np.log(0.13e6), np.log(0.46e6)))
    long, short = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
    return (long, short) if rng.random() < 0.08 else (short, long)


def _lesion(rng: Generator, height: int, width: int, look: Look) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(field, opacity, mask) of the lesion, each (H, W).

    The field is 0 at the centre and 1 on the outline; the opacity, in [0, 1], is one half there; the mask is bool.
    """
    short = min(height, width)
    rows, columns = round(128 * height / short), round(128 * width / short)  # the shape is smooth: draw it small
    area = float(np.clip(0.18 * np.exp(0.85 * rng.standard_normal()), 0.01, rng.uniform(0.55, 0.82)))
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) / 128
    spread = 0.16 * (1 - area)  # a large lesion fills the picture, a small one may lie anywhere
    offset = (spread * rng.standard_normal(2).clip(-1.8, 1.8)).tolist()
    y -= height / short / 2 + offset[0]
    x -= width / short / 2 + offset[1]
    rough = rng.uniform(*look.rough)
    shape = _lobe(rng, x, y, rough)
    if rng.random() < 0.25:  # a second lobe
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.1) * math.sqrt(area / math.pi)
        other = _lobe(rng, x - distance * math.cos(angle), y - distance * math.sin(angle), rough)
        shape = np.minimum(shape, other * rng.uniform(1.0, 1.6))
    radius = math.sqrt(area / math.pi)
    shape = shape * np.exp(rough * _noise(rng, rows, columns, 128 * max(radius, 0.06) * 0.7, 2))
    shape = cv2.resize(shape / np.quantile(shape, area), (width, height), interpolation=cv2.INTER_CUBIC)
    cell = max(3.0, 0.12 * radius * short)
    field = shape + 0.3 * rough * _noise(rng, height, width, cell, 2)
    mask, field = _one_piece(field)
    border = rng.uniform(*look.border)
    opacity = 1 / (1 + np.exp(((field - 1) * (4 / border)).clip(-30, 30)))
    return field, opacity, mask


def _lobe(rng: Generator, x: np.ndarray, y: np.ndarray, rough: float) -> np.ndarray:
    """Distance from the origin relative to an irregular ellipse of random orientation."""
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(0.55, 1.0) ** 0.5
    cos, sin = math.cos(turn), math.sin(turn)
    u, v = (x * cos + y * sin) * squeeze, (y * cos - x * sin) / squeeze
    angle = np.arctan2(v, u)
    outline = np.ones_like(u)
    for wave in range(2, 8):
        outline += 1.6 * rough * rng.standard_normal() / wave * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(u, v) / outline.clip(0.35)


def _one_piece(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mask, field): the largest part under 1, its holes filled, and the field reflected at 1 to agree with it."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((field < 1).astype(np.uint8))
    largest = labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
    padded = np.pad((~largest).astype(np.uint8), 1, constant_values=1)  # joins the background around the picture
    _, labels = cv2.connectedComponents(padded, connectivity=4)
    mask = (labels != labels[0, 0])[1:-1, 1:-1]
    return mask, np.where((field < 1) == mask, field, 2 - field)


# Pigments


def _skin_pigments(rng: Generator, height: int, width: int, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(melanin, blood) of the skin around the lesion, freckles and small moles among it; each (H, W)."""
    short = min(height, width)
    uneven = rng.uniform(0.01, 0.06) if rng.random() < 0.9 else rng.uniform(0.06, 0.12)
    grain = _noise(rng, height, width, short * rng.uniform(0.008, 0.02), 2)  # pores and scales
    melanin = 0.12 + rng.uniform(0.005, 0.028) * grain + uneven * _noise(rng, height, width, short / 4, 4)
    blood = 0.1 + rng.uniform(0, 0.03) * grain + rng.uniform(0.02, 0.09) * _noise(rng, height, width, short / 6, 4)
    if rng.random() < 0.5:  # skin lines
        cell = short * rng.uniform(0.012, 0.03)
        melanin += rng.uniform(0.02, 0.06) * _network(rng, height, width, cell)
    if rng.random() < 0.1:  # red patches
        blood += rng.uniform(0.05, 0.25) * _noise(rng, height, width, short / 2.5, 3).clip(0)
    if rng.random() < 0.25:
        blood += rng.uniform(0.08, 0.3) * _vessels(rng, height, width)
    if rng.random() < 0.45:
        melanin += _freckles(rng, height, width, int(rng.integers(4, 40)), (0.004, 0.018), (0.1, 0.5))
    if rng.random() < 0.2:  # moles beside the lesion, much smaller than it
        largest = 0.35 * math.sqrt(mask.sum() / math.pi) / short
        if largest > 0.015:
            size = (0.012, min(largest, 0.045))
            melanin += _freckles(rng, height, width, int(rng.integers(1, 4)), size, (0.6, 1.5))
    return melanin, blood


def _add_lesion_pigments(
    rng: Generator, melanin: np.ndarray, blood: np.ndarray, field: np.ndarray, opacity: np.ndarray, look: Look
) -> None:
    """Add the lesion to the pigments: its profile, its mottling and the structures dermatologists name."""
    height, width = field.shape
    radius = max(12.0, math.sqrt((field < 1).sum() / math.pi))
    centre = rng.uniform(-0.5, 0.5)  # darker in the middle, or at the rim
    density = 1 + centre * (0.5 - field.clip(0, 1.5))
    density *= np.exp(rng.uniform(*look.mottle) * _noise(rng, height, width, radius * rng.uniform(0.2, 0.6), 3))
    if rng.random() < 0.6:  # pigment network
        cell = rng.uniform(0.015, 0.03) * min(height, width)
        strength = rng.uniform(0.2, 0.7) * _fade(rng, height, width, radius)
        density *= 1 + strength * (2 * _network(rng, height, width, cell) - 0.7)
    if rng.random() < 0.4:  # globules
        dots = _areas(rng, height, width, rng.uniform(0.02, 0.04) * min(height, width), 1.0, octaves=1)
        density += rng.uniform(0.3, 0.9) * dots * _fade(rng, height, width, radius)
    if rng.random() < look.regression:
        density *= 1 - rng.uniform(0.4, 0.8) * _areas(rng, height, width, radius * 0.5, 0.6)
    if rng.random() < 0.3:  # white dots and crypts
        density *= 1 - 0.6 * _areas(rng, height, width, rng.uniform(0.012, 0.025) * min(height, width), 1.7, octaves=1)
    density = density.clip(0.1, 2.5) * opacity
    melanin += rng.uniform(*look.melanin) * density
    flush = rng.uniform(*look.blood) * np.exp(0.3 * _noise(rng, height, width, radius * 0.4, 3))
    blood += flush * opacity


def _reflectance(rng: Generator, melanin: np.ndarray, blood: np.ndarray) -> np.ndarray:
    """The colour of skin below these pigments: (H, W, 3) float32 in 0..255."""
    first, second = SKINS[rng.choice(len(SKINS), 2, p=SKIN_SHARES)]
    blend = rng.uniform(0, 0.35)
    skin = (first * (1 - blend) + second * blend) * np.exp(0.03 * rng.standard_normal(3)).astype(np.float32)
    image = np.empty((*melanin.shape, 3), np.float32)
    for channel in range(3):
        absorbance = MELANIN[channel] * melanin.clip(0) + BLOOD[channel] * blood.clip(0)
        image[..., channel] = skin[channel] * np.exp(-absorbance)
    return image


def _veil(rng: Generator, image: np.ndarray, opacity: np.ndarray, look: Look) -> None:
    """A blue-white veil over parts of the lesion."""
    if rng.random() >= look.veil:
        return
    height, width = opacity.shape
    cover = (
        (0.3 + 0.4 * _noise(rng, height, width, min(height, width) / 5, 4)).clip(0, 1)
        * opacity
        * rng.uniform(0.3, 0.65)
    )
    _paint(image, cover, rng.uniform((70, 80, 110), (130, 140, 170)))


# Things on the skin


def _things_on_the_skin(rng: Generator, image: np.ndarray, mask: np.ndarray) -> None:
    if rng.random() < 0.07:
        _ink(rng, image)
    if rng.random() < 0.45:
        _hair(rng, image)
    if rng.random() < 0.3:
        _ruler(rng, image)
    if rng.random() < 0.15:
        _bubbles(rng, image)
    if rng.random() < 0.25:
        _glare(rng, image)
    if rng.random() < 0.1:
        _sticker(rng, image, mask)


def _hair(rng: Generator, image: np.ndarray) -> None:
    """Strands with a common direction, dark or fair, thin or thick."""
    height, width = image.shape[:2]
    short = min(height, width)
    cover = np.zeros((height, width), np.uint8)
    flow, disorder, curl = rng.uniform(0, 2 * np.pi), rng.choice([0.2, 0.5, 1.2]), rng.choice([0.4, 0.8, 2.0])
    thickness = max(1, round(short * rng.uniform(0.001, 0.0055)))
    for _ in range(int(rng.choice([rng.integers(2, 12), rng.integers(10, 45)]))):
        angle = flow + disorder * rng.standard_normal()
        length = short * rng.uniform(0.2, 1.1)
        bend = rng.normal(0, curl) / 12 + np.cumsum(rng.normal(0, 0.02 * curl, 12))
        angles = angle + np.cumsum(bend)
        steps = length / 12 * np.stack([np.cos(angles), np.sin(angles)], 1)
        strand = rng.uniform((0, 0), (width, height)) + np.cumsum(steps, 0) - steps.sum(0) / 2
        _line(cover, strand, int(rng.integers(110, 256)), thickness)
    darkest, lightest = ((150, 120, 92), (205, 178, 150)) if rng.random() < 0.2 else ((14, 10, 9), (82, 54, 40))
    tone = rng.random()
    colour = [dark + tone * (light - dark) for dark, light in zip(darkest, lightest, strict=True)]
    _paint(image, cover.astype(np.float32) / 255, colour)


def _ruler(rng: Generator, image: np.ndarray) -> None:
    """A scale with ticks near an edge of the picture."""
    height, width = image.shape[:2]
    short = min(height, width)
    cover = np.zeros((height, width), np.uint8)
    angle = rng.choice([0, rng.normal(0, 0.15), np.pi / 2, rng.uniform(0, np.pi)], p=[0.3, 0.4, 0.15, 0.15])
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([along[1], -along[0]])
    middle = np.array([width / 2, height / 2]) - across * rng.uniform(0.36, 0.46) * short
    step, ticks = short * rng.uniform(0.02, 0.05), int(rng.integers(10, 22))
    start = middle - along * step * ticks / 2
    thickness = max(1, round(short * rng.uniform(0.002, 0.005)))
    _line(cover, np.stack([start, start + along * step * ticks]), 255, thickness)
    for tick in range(ticks + 1):
        foot = start + along * step * tick
        _line(cover, np.stack([foot, foot + across * step * (1.1 if tick % 5 == 0 else 0.6)]), 255, thickness)
    if rng.random() < 0.6:
        corner = tuple(int(value) for value in start - across * step * 0.8)
        cv2.putText(cover, "mm", corner, cv2.FONT_HERSHEY_SIMPLEX, short / 900, 255, 1, cv2.LINE_AA)
    _paint(image, cover.astype(np.float32) / 255 * rng.uniform(0.5, 0.95), rng.uniform(10, 60, 3))


def _bubbles(rng: Generator, image: np.ndarray) -> None:
    """Air in the immersion gel: rings, dark outside and bright inside."""
    height, width = image.shape[:2]
    dark, bright = np.zeros((2, height, width), np.uint8)
    for _ in range(int(rng.integers(2, 14))):
        radius = min(height, width) * rng.uniform(0.006, 0.045)
        centre = tuple(int(value) for value in rng.uniform((0, 0), (width, height)))
        cv2.circle(dark, centre, round(radius), int(rng.integers(90, 200)), 2, cv2.LINE_AA)
        cv2.ellipse(
            bright,
            centre,
            (max(1, round(radius * 0.75)),) * 2,
            0,
            200,
            290,
            int(rng.integers(120, 256)),
            2,
            cv2.LINE_AA,
        )
    _paint(image, dark.astype(np.float32) / 255 * 0.6, image.mean((0, 1)) * 0.5)
    _paint(image, bright.astype(np.float32) / 255, (252, 250, 250))


def _glare(rng: Generator, image: np.ndarray) -> None:
    """Reflections of the lamp: small saturated streaks, gathered in one place."""
    height, width = image.shape[:2]
    short = min(height, width)
    cover = np.zeros((height, width), np.uint8)
    place = rng.uniform((0.1 * width, 0.1 * height), (0.9 * width, 0.9 * height))
    for _ in range(int(rng.integers(5, 40))):
        at = place + rng.normal(0, 0.12 * short, 2)
        cv2.ellipse(
            cover,
            tuple(int(value) for value in at),
            (max(1, round(short * rng.uniform(0.002, 0.014))), max(1, round(short * rng.uniform(0.001, 0.005)))),
            float(rng.uniform(0, 180)),
            0,
            360,
            int(rng.integers(90, 256)),
            -1,
            cv2.LINE_AA,
        )
    _paint(image, cv2.GaussianBlur(cover, (0, 0), 0.8).astype(np.float32) / 255, (255, 252, 250))


def _ink(rng: Generator, image: np.ndarray) -> None:
    """Strokes of a skin marker, violet and patchy."""
    height, width = image.shape[:2]
    short = min(height, width)
    cover = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(1, 5))):
        outward = rng.uniform(0, 2 * np.pi)
        reach = np.array([width, height]) * rng.uniform(0.32, 0.48)
        at = np.array([width, height]) / 2 + reach * np.array([np.cos(outward), np.sin(outward)])
        stroke = at + np.cumsum(rng.normal(0, 0.05 * short, (8, 2)), 0)
        _line(cover, stroke, 255, max(2, round(short * rng.uniform(0.006, 0.015))))
    patchy = (0.6 + 0.35 * _noise(rng, height, width, short * 0.01, 2)).clip(0, 1)
    _paint(
        image,
        cover.astype(np.float32) / 255 * patchy * rng.uniform(0.4, 0.8),
        rng.uniform((70, 40, 120), (110, 90, 190)),
    )


def _sticker(rng: Generator, image: np.ndarray, mask: np.ndarray) -> None:
    """A round colour patch that reaches in from an edge, unless it would lie on the lesion."""
    height, width = image.shape[:2]
    radius = min(height, width) * rng.uniform(0.25, 0.45)
    side, where = rng.integers(4), rng.uniform(0, 1)
    beyond = radius * rng.uniform(0.1, 0.6)
    centres = (
        (-beyond, where * height),
        (width + beyond, where * height),
        (where * width, -beyond),
        (where * width, height + beyond),
    )
    x, y = centres[side]
    centre = int(x), int(y)
    cover = np.zeros((height, width), np.uint8)
    cv2.circle(cover, centre, round(radius), 255, -1, cv2.LINE_AA)
    if (mask & (cover > 0)).any():
        return
    colours = np.array([(240, 160, 60), (90, 120, 190), (70, 170, 160), (60, 150, 90), (230, 200, 70), (190, 80, 70)])
    outer, inner = colours[rng.choice(len(colours), 2, replace=False)]
    weave = 1 + 0.04 * _noise(rng, height, width, 3, 1)
    _paint(image, cover.astype(np.float32) / 255, outer * weave[..., None])
    cover[:] = 0
    cv2.circle(cover, centre, round(radius * rng.uniform(0.4, 0.6)), 255, -1, cv2.LINE_AA)
    _paint(image, cover.astype(np.float32) / 255, inner * weave[..., None])


# Light, frame and sensor


def _light(rng: Generator, image: np.ndarray) -> None:
    """Uneven illumination: a gradient across, and a fall-off from a centre to the corners."""
    height, width = image.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    slant = rng.normal(0, 0.08, 2).tolist()
    fall = float(rng.choice([0.0, rng.uniform(0.05, 0.25), rng.uniform(0.25, 0.5)], p=[0.2, 0.45, 0.35]))
    off = rng.normal(0, 0.15, 2).tolist()
    distance = (x - off[0]) ** 2 + (y - off[1]) ** 2
    light = 1 + slant[0] * x + slant[1] * y - fall / 2 * distance * (0.5 + 0.25 * distance)
    image *= (light.clip(0.15, 1.3) * rng.uniform(0.8, 1.05))[..., None]


def _frame(rng: Generator, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blacken what lies outside the dermoscope's view; return where the skin is visible, (H, W) bool.

    A view that would hide more than a little of the lesion is not drawn.
    """
    height, width = image.shape[:2]
    kind, tightness = rng.random(), rng.uniform(0.0, 1.0)
    y, x = np.ogrid[0:height, 0:width]
    if kind < 0.16:  # the round field of view
        radius = (0.5 + 0.12 * tightness) * np.hypot(height, width) * 0.82
        edge = radius - np.hypot(y - height / 2, x - width / 2)
    elif kind < 0.2:  # bars above and below
        edge = np.minimum(y, height - 1 - y) - height * (0.02 + 0.06 * tightness) + 0 * x
    else:
        return np.ones((height, width), bool)
    visible = edge > 0
    if (mask & ~visible).sum() > 0.1 * mask.sum():
        return np.ones((height, width), bool)
    opening = (0.5 + edge / rng.uniform(1.5, 0.03 * min(height, width))).clip(0, 1).astype(np.float32)
    image *= opening[..., None]
    return visible


def _sensor(rng: Generator, image: np.ndarray) -> None:
    """Defocus and noise."""
    height, width = image.shape[:2]
    blur = rng.uniform(0.3, 1.3)
    cv2.GaussianBlur(image, (0, 0), blur, dst=image)
    image += rng.uniform(0.8, 3.5) * rng.standard_normal((height, width, 1), dtype=np.float32)


# Random textures, all (H, W) float32


def _noise(rng: Generator, height: int, width: int, cell: float, octaves: int) -> np.ndarray:
    """Smooth noise of mean 0 and variance about 1, its coarsest features `cell` pixels wide."""
    total = np.zeros((1, 1), np.float32)
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        rows, columns = int(np.ceil(height / size)) + 1, int(np.ceil(width / size)) + 1
        grid = rng.standard_normal((rows, columns), dtype=np.float32) * 0.6**octave
        total = grid if octave == 0 else grid + cv2.resize(total, (columns, rows), interpolation=cv2.INTER_CUBIC)
    total *= 1.35 / math.sqrt(sum(0.36**octave for octave in range(octaves)))  # interpolation takes the rest away
    return cv2.resize(total, (width, height), interpolation=cv2.INTER_CUBIC)


def _areas(rng: Generator, height: int, width: int, cell: float, above: float, octaves: int = 3) -> np.ndarray:
    """Soft-edged areas, in [0, 1]: where noise exceeds `above` standard deviations."""
    return ((_noise(rng, height, width, cell, octaves) - above) / 0.5 + 0.5).clip(0, 1)


def _fade(rng: Generator, height: int, width: int, radius: float) -> np.ndarray:
    """A slowly varying weight in [0, 1]: where in a lesion a structure is present."""
    return (0.6 + 0.5 * _noise(rng, height, width, radius * 0.8, 1)).clip(0, 1)


def _network(rng: Generator, height: int, width: int, cell: float) -> np.ndarray:
    """A mesh of lines, in [0, 1]: the zero crossings of two noises."""
    first, second = (_noise(rng, height, width, cell, 1) for _ in range(2))
    return np.maximum(np.exp(-((first / 0.35) ** 2)), np.exp(-((second / 0.35) ** 2)))


def _vessels(rng: Generator, height: int, width: int) -> np.ndarray:
    """Branching thin lines, blurred."""
    cover = np.zeros((height, width), np.uint8)
    short = min(height, width)
    for _ in range(int(rng.integers(4, 20))):
        angles = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.3, 16))
        path = rng.uniform((0, 0), (width, height)) + np.cumsum(
            short * 0.02 * np.stack([np.cos(angles), np.sin(angles)], 1), 0
        )
        _line(cover, path, int(rng.integers(80, 256)), max(1, round(short * 0.003)))
    return cv2.GaussianBlur(cover, (0, 0), short * 0.003).astype(np.float32) / 255


def _freckles(
    rng: Generator, height: int, width: int, count: int, size: tuple[float, float], density: tuple[float, float]
) -> np.ndarray:
    """Small pigmented spots; `size` is their radius relative to the short side."""
    short = min(height, width)
    cover = np.zeros((height, width), np.uint8)
    scale = density[1] / 255
    for _ in range(count):
        radius = short * rng.uniform(*size)
        cv2.ellipse(
            cover,
            tuple(int(value) for value in rng.uniform((0, 0), (width, height))),
            (max(1, round(radius)), max(1, round(radius * rng.uniform(0.6, 1)))),
            float(rng.uniform(0, 180)),
            0,
            360,
            round(rng.uniform(*density) / scale),
            -1,
            cv2.LINE_AA,
        )
    soft = cv2.GaussianBlur(cover, (0, 0), max(0.8, short * size[0] * 0.8)).astype(np.float32) * scale
    return soft * (1 + 0.3 * _noise(rng, height, width, short * size[0] * 2, 1)).clip(0.3, 1.7)


# Painting


def _line(cover: np.ndarray, points: np.ndarray, value: int, thickness: int) -> None:
    """Draw an open line through points (x, y), to a sixteenth of a pixel."""
    cv2.polylines(cover, [np.round(points * 16).astype(np.int32)], False, value, thickness, cv2.LINE_AA, 4)


def _paint(image: np.ndarray, cover: np.ndarray, colour: np.typing.ArrayLike) -> None:
    """Blend a colour, (3,) or (H, W, 3), into the image where `cover`, (H, W) in [0, 1], is above 0."""
    colour = np.asarray(colour, np.float32)
    place = cover > 0
    below = image[place]
    image[place] = below + cover[place, None] * ((colour if colour.ndim == 1 else colour[place]) - below)

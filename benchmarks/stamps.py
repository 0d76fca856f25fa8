"""Subtitles and logos to burn into pictures, drawn with OpenCV's own letters."""

from dataclasses import dataclass

import cv2
import numpy as np

LINES = (
    "I never said that.", "Where are you going?", "We have to leave before the sun comes up", "Hey!  Wait for me!",
    "The dragon was here last night.", "- Who is it?  - Nobody.", "You don't know what you're talking about, do you?",
    "Once upon a time, in a land far away,", "OK", "Come on, let's go home.", "It cannot be undone.", "What?!",
)  # fmt: skip
CJK = (
    "お前はもう死んでいる", "私は行かなければならない", "どこへ行くの?", "我们必须马上离开这里", "你在说什么?",
    "ありがとう、さようなら",
)  # fmt: skip
FILLS = ((255, 255, 255), (255, 255, 255), (255, 230, 40), (240, 240, 240), (120, 230, 255))


@dataclass(frozen=True)
class Stamp:
    """What is burnt in: a colour [H,W,3] and an opacity [H,W] 0..1, the same on every frame that carries it."""

    colour: np.ndarray
    opacity: np.ndarray

    def on(self, image: np.ndarray) -> np.ndarray:
        """The picture with the stamp: uint8 [H,W,3] -> the same."""
        alpha = self.opacity[..., None]
        return np.round(image * (1 - alpha) + self.colour * alpha).astype(np.uint8)


def write_text(mask: np.ndarray, text: str, left: int, base: int, font: str, size: int) -> None:
    """Draw text as opacity 255 into a uint8 mask [H,W]; fonts: sans, italic, uni (OpenCV's own) or hershey."""
    if font == "hershey":
        scale = size / 30
        thick = max(1, round(size / 14))
        cv2.putText(mask, text, (left, base), cv2.FONT_HERSHEY_DUPLEX, scale, 255, thick, cv2.LINE_AA)
    else:
        canvas = np.zeros((*mask.shape, 3), np.uint8)
        cv2.putText(canvas, text, (left, base), (255, 255, 255), cv2.FontFace(font), size, 400)
        np.maximum(mask, canvas[..., 0], out=mask)


def text_width(text: str, font: str, size: int) -> int:
    """How wide a line is drawn, px."""
    probe = np.zeros((size * 3, size * (len(text) + 4) * 2), np.uint8)
    write_text(probe, text, size, size * 2, font, size)
    columns = np.flatnonzero(probe.any(0))
    return int(columns[-1] - columns[0]) if len(columns) else 0


def subtitle(height: int, width: int, seed: int) -> Stamp:
    """One or two lines near the bottom (sometimes the top): outline, shadow, box or nothing behind."""
    random = np.random.default_rng(seed)
    cjk = random.random() < 0.3
    font = "uni" if cjk else str(random.choice(["sans", "sans", "italic", "hershey", "uni"]))
    size = max(11, round(height * random.uniform(0.045, 0.085)))
    lines = [str(random.choice(CJK if cjk else LINES)) for _ in range(int(random.integers(1, 3)))]
    widest = max(text_width(line, font, size) for line in lines)
    size = max(9, min(size, int(size * 0.92 * width / widest)))
    mask = np.zeros((height, width), np.uint8)
    base = round(height * (0.93 if random.random() < 0.85 else 0.18))
    for line in reversed(lines):
        wide = text_width(line, font, size)
        write_text(mask, line, max(4, (width - wide) // 2), base, font, size)
        base -= round(1.25 * size)
    behind = str(random.choice(["outline", "outline", "outline", "shadow", "box", "none"]))
    fill = FILLS[int(random.integers(len(FILLS)))]
    thick = max(1, round(size * random.uniform(0.04, 0.1)))
    dark = np.zeros_like(mask)
    if behind == "outline":
        dark = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thick + 1,) * 2))
    elif behind == "shadow":
        dark[thick + 1 :, thick + 1 :] = mask[: -thick - 1, : -thick - 1]
    elif behind == "box":
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        dark[max(0, rows[0] - 6) : rows[-1] + 7, max(0, columns[0] - 10) : columns[-1] + 11] = 150
    top = mask.astype(np.float32) / 255
    under = dark.astype(np.float32) / 255
    colour = top[..., None] * np.array(fill, np.float32)
    opacity = top + under * (1 - top)
    return Stamp(colour / np.maximum(opacity, 1e-3)[..., None], opacity)


def logo(height: int, width: int, seed: int) -> Stamp:
    """A mark in a corner: letters, a ring, or a filled emblem; 35 to 100 % opaque, 6 to 14 % of the width."""
    random = np.random.default_rng(seed)
    side = round(width * random.uniform(0.06, 0.14))
    tall = max(10, round(side * random.uniform(0.3, 0.6)))
    mark = np.zeros((tall, side), np.uint8)
    colour = np.zeros((tall, side, 3), np.float32) + FILLS[int(random.integers(len(FILLS)))]
    kind = str(random.choice(["letters", "letters", "ring", "emblem"]))
    if kind == "letters":
        word = str(random.choice(["TVA", "Veo", "STUDIO", "ch4", "HD+", "Anime"]))
        size = max(8, min(round(tall * 0.9), round(side * 1.5 / len(word))))
        write_text(mark, word, 2, min(tall - 2, (tall + size) // 2), "sans", size)
    elif kind == "ring":
        cv2.circle(mark, (side // 2, tall // 2), tall // 2 - 2, 255, max(2, tall // 8), cv2.LINE_AA)
        cv2.line(mark, (side // 2 - tall // 4, tall // 2), (side // 2 + tall // 4, tall // 2), 255, max(2, tall // 8))
    else:
        cv2.ellipse(mark, (side // 2, tall // 2), (side // 2 - 2, tall // 2 - 2), 0, 0, 360, 255, -1, cv2.LINE_AA)
        colour[:] = random.integers(0, 256, 3)
        cv2.rectangle(colour, (side // 4, tall // 4), (side // 2, 3 * tall // 4), (255, 255, 255), -1)
    margin_x, margin_y = round(width * random.uniform(0.02, 0.05)), round(height * random.uniform(0.03, 0.07))
    left = margin_x if random.random() < 0.5 else width - margin_x - side
    top = margin_y if random.random() < 0.5 else height - margin_y - tall
    whole = Stamp(np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32))
    whole.colour[top : top + tall, left : left + side] = colour
    whole.opacity[top : top + tall, left : left + side] = mark / 255 * random.uniform(0.35, 1.0)
    return whole

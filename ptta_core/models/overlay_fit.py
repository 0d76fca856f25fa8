"""The fitted numbers of models.overlay: log odds per unit of each feature. Written by benchmarks/overlays.py --fit."""

TEXT: dict[str, float] = {
    "strokes": 3.075, "length": 0.5254, "lines": -5.911, "peak_spread": -7.913, "width_spread": -1.646,
    "contrast": 1.237, "density": -8.657, "density_squared": 10.59, "own": -1.413, "stays": 2.487, "boldness": -8.897,
    "peak": 0.1578, "letter": -4.146, "starts": 1.035, "fullest": -2.128, "core": 0.8487,
}  # fmt: skip
TEXT_BIAS = 1.654
LOGO: dict[str, float] = {
    "frame_still": -1.209, "frame_edges": -2.378, "strength": 0.9194, "strength_squared": 0.5855, "coherence": 25.7,
    "ring_spread": 2.669, "spread": -3.237, "ring_still": -6.78, "still": 2.912, "still_squared": -7.513,
    "edges": 0.8757, "size": 2.196, "corner": -31.47, "ring_edges": -1.069, "aspect": 1.442, "aspect_squared": -0.956,
    "filled": 8.117, "contrast": -2.103, "level": -0.3784, "ring_strength": -0.361, "letters": 0.7288,
}  # fmt: skip
LOGO_BIAS = -3.301

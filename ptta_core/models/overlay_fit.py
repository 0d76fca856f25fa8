"""The fitted numbers of models.overlay: log odds per unit of each feature.

Logistic regression (ridge 1 on standardised features) on the shots, subtitles and logos of benchmarks/overlays.py,
nine shots a video and two of each a shot, with enlarged and repeated cel drawings and the drawn cartoon as further
examples without overlay. The constants are shifted from the fit to where precision is about 0.95 to 0.99.
"""

TEXT: dict[str, float] = {
    "strokes": 2.506, "length": 1.366, "lines": -6.543, "peak_spread": -7.864, "width_spread": 0.3225,
    "contrast": 1.319, "density": -16.03, "density_squared": 14.16, "own": -0.9281, "stays": 2.369,
    "boldness": -8.313, "peak": 0.1724, "letter": -4.395, "starts": 2.254, "core": 1.416, "height_spread": 0.3552,
    "foot_spread": 1.588,
}  # fmt: skip
TEXT_BIAS = 0.8662
LOGO: dict[str, float] = {
    "frame_still": -1.268, "frame_edges": -2.312, "strength": 0.7507, "strength_squared": 0.6237, "coherence": 26.59,
    "ring_spread": 2.615, "spread": -3.16, "ring_still": -6.918, "still": 3.212, "still_squared": -8.148,
    "edges": 1.035, "size": 2.205, "corner": -31.32, "ring_edges": -1.104, "aspect": 1.493, "aspect_squared": -1.038,
    "filled": 8.058, "contrast": -2.16, "level": -0.393, "ring_strength": -0.3668, "letters": 1.364,
}  # fmt: skip
LOGO_BIAS = -3.132
# A logo's log odds are those of the network (logo_net.py), this share of those from its edges, and a constant.
# Chosen on real films that the network had not seen: no false alarm in 76 plain shots, recall 0.91 (see
# docs/benchmarks.md).
EDGES_SHARE = 0.3
MARK_BIAS = -1.5

"""The fitted numbers of models.dissolves: log odds a unit of each feature and of its square.

Logistic regression by benchmarks/fit_dissolves.py, which says on what.
"""

SEARCH: dict[str, tuple[float, float]] = {
    "levels": (5.508, -0.254),
    "off": (-7.319, 0.7623),
    "uneven": (-8.245, -2.756),
    "detail_fine": (-7.903, 2.659),
    "detail": (-6.169, 2.81),
    "detail_coarse": (-3.966, 1.934),
    "sunk": (3.047, -0.8744),
    "sudden": (4.011, -7.503),
    "length": (-4.017, 1),
}
SEARCH_BIAS = -4.802
SURE: dict[str, tuple[float, float]] = {
    "levels": (0.9339, -0.01411),
    "off": (4.971, -9.897),
    "uneven": (-6.499, -25.8),
    "detail_fine": (-2.942, 0.5653),
    "detail": (-0.6832, 0.282),
    "detail_coarse": (-0.7882, 0.2796),
    "sunk": (1.231, 1.154),
    "sudden": (1.425, -2.253),
    "length": (-0.21, 0.07171),
    "kept": (-16.9, -10.93),
    "fine_off": (-3.437, -9.291),
    "alike": (-0.04263, -6.807),
    "unmoved": (2.179, -0.8196),
    "steepest": (1.482, -0.6871),
    "unmoved_steps": (2.763, 1.248),
    "path": (1.255, 0.06684),
    "misfit": (-0.5737, -3.075),
    "search": (0.01363, 0.00302),
}
SURE_BIAS = -5.549

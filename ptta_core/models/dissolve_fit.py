"""The fitted numbers of models.dissolves."""

SEARCH: dict[str, tuple[float, float]] = {
    "levels": (1.44, 0.1388),
    "off": (-8.098, 0.7845),
    "uneven": (-10.9, -1.25),
    "detail_fine": (-6.372, 0.7742),
    "detail": (-6.737, 3.43),
    "detail_coarse": (-3.605, 1.605),
    "sunk": (1.168, 0.3526),
    "sudden": (4.902, -3.527),
    "length": (-1.791, 0.6592),
}
SEARCH_BIAS = 1.722
SURE: dict[str, tuple[float, float]] = {
    "levels": (-0.2151, -0.01393),
    "off": (-4.824, -6.506),
    "uneven": (-1.278, -18.39),
    "detail_fine": (-1.866, -0.02884),
    "detail": (-0.6526, -0.0129),
    "detail_coarse": (-0.3653, -0.1777),
    "sunk": (0.9705, 1.029),
    "sudden": (1.643, -0.7268),
    "length": (-0.229, 0.0224),
    "kept": (-4.243, -10.38),
    "fine_off": (-3.75, -1.782),
    "alike": (-1.645, -2.66),
    "unmoved": (2.692, 1.365),
    "steepest": (-1.739, -2.797),
    "unmoved_steps": (2.475, 0.1422),
    "path": (1.051, 0.08475),
    "misfit": (-3.671, -0.6711),
    "search": (0.2008, 0.01207),
}
SURE_BIAS = 0.55

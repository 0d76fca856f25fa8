"""Motion measured against what was drawn: pans of known length with DIS and Farneback, and holds read alike.

    python benchmarks/motion.py [--json]
"""

import argparse
import json
from dataclasses import replace

import cv2
import numpy as np
from drawn import DRAWN, Film, shoot

from ptta_core.models import motion

SPEEDS = (2.0, 6.0, 12.0, 24.0, 48.0)  # px per 0.625 s


def farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Farneback's flow with the usual settings, for comparison: gray uint8 [H,W] twice -> float32 [H,W,2]."""
    empty = np.zeros((*first.shape, 2), np.float32)
    return cv2.calcOpticalFlowFarneback(first, second, empty, 0.5, 3, 15, 3, 5, 1.2, 0)


def pans() -> dict[str, dict[str, list[float]]]:
    """Measured px per gap of pans at SPEEDS, by kind of picture and estimator."""
    found: dict[str, dict[str, list[float]]] = {}
    for kind in DRAWN:
        films = [shoot(Film(kind=kind, pan_px=px, seconds=1.2)) for px in SPEEDS]
        found[kind] = {
            name: [round(motion.measure(*film, flow).motion_px, 2) for film in films]
            for name, flow in (("DIS", motion.dis()), ("Farneback", farneback))
        }
    return found


def spread(film: Film) -> float:
    """(largest - smallest) / mean motion of one figure on ones, twos and threes at every phase."""
    films = [replace(film, hold=hold, phase=phase) for hold in (1, 2, 3) for phase in range(hold)]
    found = [motion.measure(*shoot(one), motion.dis()).motion_px for one in films]
    return round((max(found) - min(found)) / float(np.mean(found)), 4)


def main() -> None:
    """Print both tables, and with --json one object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    wanted = parser.parse_args()
    cv2.setNumThreads(1)
    read = pans()
    print("| picture | estimator |", *(f"{px:g} px |" for px in SPEEDS))
    print("|--|--|" + "--|" * len(SPEEDS))
    for kind, by_name in read.items():
        for name, values in by_name.items():
            print(f"| {kind} | {name} |", *(f"{value} |" for value in values))
    rates = ((23.976, 0), (24, 0), (25, 0), (30, 0), (60, 0), (24, 24), (30, 24), (60, 24), (25, 24))
    spreads = {}
    for fps, clock in rates:
        if fps != clock:
            film = Film(fps=fps, clock=clock, seconds=0.7, share=0.05, figure_px=12)
            spreads[f"24 in {fps:g}" if clock else f"{fps:g}"] = spread(film)
    print("\n| frames a second | ones / twos / threes, spread |\n|--|--|")
    for name, value in spreads.items():
        print(f"| {name} | {100 * value:.1f} % |")
    if wanted.json:
        print(json.dumps({"pans": read, "spread": spreads}))


if __name__ == "__main__":
    main()

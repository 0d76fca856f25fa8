"""Virtual environments for the peers that the curation benchmark compares with, one each beside this file.

    python benchmarks/peers/setup.py [datajuicer] [nemo]

They come from the package registry through uv (0.3 and 6 GB); an environment that is there already is kept.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = {
    # what it would otherwise install by itself while it runs, and one that it leaves out
    "datajuicer": ("py-data-juicer==1.6.1", "opencv-contrib-python-headless==5.0.0.93", "aiohttp", "av", "ray==2.60.0"),
    # its cv2 extra, and a wheel with an ffmpeg program inside
    "nemo": ("nemo-curator[video_cpu]==1.4.0", "opencv-python-headless", "imageio-ffmpeg==0.6.0"),
}
LIMIT_S = 1800


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, there or not."""
    return HERE / peer / ".venv" / "bin" / "python"


def set_up(peer: str) -> Path:
    """Make a peer's environment unless it is complete; its interpreter.

    Raises KeyError for an unknown peer, subprocess.SubprocessError when it cannot be installed.
    """
    python, wanted = python_of(peer), PEERS[peer]
    complete = python.parent.parent / "complete.txt"
    if not complete.exists() or complete.read_text() != "\n".join(wanted):
        uv, away = [sys.executable, "-m", "uv"], tempfile.gettempdir()  # away from this project's own settings of uv
        make = [*uv, "venv", "-q", "--clear", "--python", sys.executable, str(python.parent.parent)]
        subprocess.run(make, check=True, cwd=away)
        install = [*uv, "pip", "install", "-q", "--python", str(python), *wanted]
        subprocess.run(install, check=True, timeout=LIMIT_S, cwd=away)
        complete.write_text("\n".join(wanted))
    return python


def main() -> None:
    """Set up the peers named, or all."""
    for peer in sys.argv[1:] or PEERS:
        print(set_up(peer))


if __name__ == "__main__":
    main()

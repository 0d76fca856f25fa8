"""Video files in and out: the only place that opens one. PyAV (FFmpeg's libraries), and Pillow for JPEG.

Files are untrusted: only the containers in `opening.CONTAINERS` and only local files are opened, so that a playlist
or a script of file names cannot make FFmpeg read something else. Pictures are always given as they are shown: turned
upright and with square pixels.
"""

from ptta_core.video.opening import Kind, VideoError
from ptta_core.video.probing import VideoInfo, probe
from ptta_core.video.reading import Frame, read_frames, read_luma
from ptta_core.video.showing import on_screen, read_shown
from ptta_core.video.writing import jpeg, write_mp4

__all__ = [
    "Frame", "Kind", "VideoError", "VideoInfo", "jpeg", "on_screen", "probe", "read_frames", "read_luma", "read_shown",
    "write_mp4",
]  # fmt: skip

"""Run in NeMo Curator's own environment: its CPU stages for split and motion, called one after another.

    python nemo_curate.py CPUS FILE...

Fixed-stride split (10 s), transcoding with libopenh264 (with VP9, its other CPU encoder, every clip is lost: there
are no motion vectors), motion-vector decoding and the motion filter, all at their defaults but for the number of
CPUs; Ray, its scheduler, is left out. The last line is one JSON object: seconds (of each file), clips, lost
(clips without a score), motion_s (the motion stages' share of all the seconds).
"""

import json
import os
import sys
import time
from pathlib import Path

import av
import imageio_ffmpeg
from nemo_curator.stages.video.clipping.clip_extraction_stages import ClipTranscodingStage, FixedStrideExtractorStage
from nemo_curator.stages.video.filtering.motion_filter import MotionFilterStage, MotionVectorDecodeStage
from nemo_curator.tasks.video import Video, VideoMetadata, VideoTask


def ffmpeg_on_path() -> None:
    """Put the environment's own ffmpeg program under that name on the path."""
    place = Path(sys.executable).parent
    if not (place / "ffmpeg").exists():
        (place / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    os.environ["PATH"] = f"{place}{os.pathsep}{os.environ['PATH']}"


def read(path: str) -> VideoTask:
    """The file as its reader leaves it; the metadata come from PyAV, since its own way needs an ffprobe program."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        metadata = VideoMetadata(
            size=os.path.getsize(path), height=stream.height, width=stream.width, framerate=float(stream.average_rate),
            num_frames=stream.frames, duration=stream.frames / float(stream.average_rate), video_codec="h264",
            pixel_format="yuv420p", audio_codec=None, bit_rate_k=1000,
        )  # fmt: skip
    video = Video(input_video=Path(path), source_bytes=Path(path).read_bytes(), metadata=metadata)
    return VideoTask(dataset_name="bench", data=video)


def main() -> None:
    """Curate every file once."""
    ffmpeg_on_path()
    cpus = float(sys.argv[1])
    cut = FixedStrideExtractorStage(clip_len_s=10.0, clip_stride_s=10.0, min_clip_length_s=2.0, limit_clips=0)
    encode = ClipTranscodingStage(encoder="libopenh264", num_cpus_per_worker=cpus, encoder_threads=int(cpus))
    vectors, judge = MotionVectorDecodeStage(num_cpus_per_worker=cpus), MotionFilterStage(score_only=True)
    encode.setup()
    seconds, motion_s, clips, lost = [], 0.0, 0, 0
    for path in sys.argv[2:]:
        begun = time.perf_counter()
        for task in encode.process(cut.process(read(path))):
            before = time.perf_counter()
            scored = judge.process(vectors.process(task)).data.clips
            motion_s += time.perf_counter() - before
            clips += len(scored)
            lost += sum(clip.motion_score_global_mean < 0 for clip in scored)
        seconds.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": seconds, "motion_s": motion_s, "clips": clips, "lost": lost}))


if __name__ == "__main__":
    main()

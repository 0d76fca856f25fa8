"""Run in data-juicer's own environment: its video motion filter at its defaults, a file at a time.

    python datajuicer_motion.py FILE...

The last line is one JSON object: seconds (of each file), scores, peak_mb. Only the operator itself is timed, without
the tool's own start and its data set machinery.
"""

import json
import resource
import sys
import time

from data_juicer.ops.filter.video_motion_score_filter import VideoMotionScoreFilter
from data_juicer.utils.constant import Fields, StatsKeys


def main() -> None:
    """Score every file once."""
    motion = VideoMotionScoreFilter()
    seconds, scores = [], []
    for path in sys.argv[1:]:
        begun = time.perf_counter()
        sample = motion.compute_stats_single({"videos": [path], Fields.stats: {}})
        seconds.append(time.perf_counter() - begun)
        scores.append(float(sample[Fields.stats][StatsKeys.video_motion_score][0]))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "scores": scores, "peak_mb": peak_mb}))


if __name__ == "__main__":
    main()

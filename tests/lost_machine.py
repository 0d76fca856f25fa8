"""Two Ray machines on this one; one of them is announced to go and then goes, while two workers train.

Run as a process of its own: python lost_machine.py RUN_FOLDER BASE announced|silent. Prints one line of JSON.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

os.environ["RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S"] = "0.5"

import ray
from ray.cluster_utils import Cluster

from ptta_core import fleet
from ptta_core.config import TrainConfig, TrainWorkers
from ptta_core.training import checkpoint, dataset, launch, loop, notice, passes

CONFIG = TrainConfig(rank=2, branches=2, batch=2, learning_rate=1e-3, epochs=80, checkpoint_every=10)
NEVER = 100_000
LEAVES_MS = 15_000  # how long before a machine goes it is announced


def announce(node_id: str) -> None:
    """What a cloud's notice becomes in Ray: the machine is drained, and will be gone at a time."""
    from ray.core.generated import autoscaler_pb2

    client = ray._private.worker.global_worker.gcs_client
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client.drain_node(node_id, reason, "taken back", int(time.time() * 1000) + LEAVES_MS)


def main(folder: Path, base: str, how: str) -> None:
    from test_training import samples

    fleet.prepare()
    quiet = {"include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **quiet})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, namespace="ptta")
    dataset.pin(folder, samples())
    config = CONFIG.model_dump() | ({"checkpoint_every": NEVER} if how == "announced" else {})
    run = passes.Settings(str(folder), base, None, "float32", "cpu", 1, config, {})
    told: dict[str, object] = {}

    def lose() -> None:
        while not (line := launch.last_line(folder)) or line["step"] < 12:
            time.sleep(0.02)
        if how == "announced":
            announce(second.node_id)
            while not (saved := checkpoint.latest(folder / loop.CHECKPOINTS)):
                time.sleep(0.02)
            told["saved"] = checkpoint.step_of(saved)
        told["before"] = json.loads((folder / notice.WORKER).read_text())["workers"]
        told["lost_after"] = launch.last_line(folder)["step"]
        cluster.remove_node(second, allow_graceful=False)

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    launch.fit(run, TrainWorkers(count=2, min_count=1, cpus=1.0, max_restarts=3 if how == "silent" else 0))
    thread.join()
    told["after"] = json.loads((folder / notice.WORKER).read_text())["workers"]
    print(json.dumps(told))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])

"""A Ray cluster on this machine: nodes as processes of their own, the first of them its head, all on 127.0.0.1.

    python tests/support/ray_cluster.py a b c

It prints one line of JSON, its address and the pid of each node's raylet, and ends when its standard input does.
"""

import json
import os
import select
import sys

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all of it on 127.0.0.1

from ray.cluster_utils import Cluster

HEALTH = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
"""So that a node which was killed is missed within seconds."""


def main() -> None:
    first, *others = sys.argv[1:]
    head = {"num_cpus": 1, "include_dashboard": False, "node_name": first, "_system_config": HEALTH}
    # It scales nothing, and shows no log.
    head |= {"no_monitor": True, "include_log_monitor": False}
    cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=True)
    nodes = {first: cluster.head_node}
    nodes |= {name: cluster.add_node(num_cpus=1, node_name=name, wait=False) for name in others}
    cluster.wait_for_nodes()
    raylets = {name: node.all_processes["raylet"][0].process for name, node in nodes.items()}
    pids = {name: raylet.pid for name, raylet in raylets.items()}
    sys.stdout.write(json.dumps({"address": cluster.address, "nodes": pids}) + "\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        for raylet in raylets.values():
            raylet.poll()  # one that was killed is no zombie, which its workers would take for alive
    cluster.shutdown()


if __name__ == "__main__":
    main()

"""A Ray cluster of two nodes on this machine: the results of the local back-end, also where a node is killed."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_facts import LONG, facts_of
from tiny_suite import run, suite_of

from grbench.errors import RunError
from grbench.results.claims import claims_in
from grbench.run.backends.backend import Machine, Needs, SiteRequest
from grbench.run.backends.by_name import open_site
from grbench.run.backends.child_process import ForkServer
from grbench.run.backends.on_node import NodeTask
from grbench.run.backends.shared_folder import marked

ray = pytest.importorskip("ray", reason="needs the extra ray")
Cluster = pytest.importorskip("ray.cluster_utils").Cluster


class Nodes:
    """The cluster. second: the node that runs no driver, which has a cache of its own."""

    def __init__(self, caches: list[Path]) -> None:
        self.cluster = Cluster()
        self.caches = caches
        settings = {"RAY_DISABLE_METRICS": "1", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        nodes = [
            self.cluster.add_node(
                num_cpus=1, include_dashboard=False, env_vars={"GRBENCH_CACHE": str(cache), **settings}
            )
            for cache in caches
        ]
        self.second = nodes[1]


@pytest.fixture(scope="module")
def nodes(place: Path) -> Iterator[Nodes]:
    found = Nodes([place / "cache", place / "other_cache"])
    yield found
    found.cluster.shutdown()


def test_what_the_cluster_cannot_do_is_said_before_any_cell(nodes: Nodes, tmp_path: Path) -> None:
    request, said = SiteRequest("ray", tmp_path, address=nodes.cluster.address, cpus=2), list[str]()
    with pytest.raises(RunError, match="--cpus 2: no node of the Ray cluster has so many CPUs; the largest has 1"):
        open_site(request, ForkServer(), note=said.append)
    with pytest.raises(RunError, match="--device cuda: no node of the Ray cluster has a GPU"):
        open_site(replace(request, cpus=1, device="cuda"), ForkServer(), note=said.append)
    with contextlib.closing(open_site(replace(request, cpus=1), ForkServer(), note=said.append)) as site:
        with pytest.raises(RunError, match=r"large: needs about .* of RAM beside 1 CPUs; the largest such node has"):
            site.backend(Machine(), {"large": Needs(ram=1 << 50)})
        assert site.backend(Machine(), {"small": Needs(ram=1 << 20)}).is_room(Needs())
    assert said == []


@pytest.mark.slow
def test_a_cell_on_two_devices_asks_for_two_gpus(nodes: Nodes, tmp_path: Path) -> None:
    from grbench.run.backends.ray_cluster import RayScheduler

    many, none = Needs(devices=2), Needs(devices=3)
    third = nodes.cluster.add_node(num_cpus=1, num_gpus=2)  # which Ray believes
    try:
        nodes.cluster.wait_for_nodes()
        request = SiteRequest("ray", tmp_path, address=nodes.cluster.address, cpus=1)
        with contextlib.closing(open_site(request, ForkServer(), note=lambda _: None)) as site:
            assert site.backend(Machine(), {"two": many}).is_room(many)
            with pytest.raises(RunError, match="three: no node of the Ray cluster has 1 CPUs and 3 GPUs; set fewer"):
                site.backend(Machine(), {"two": many, "three": none})
            with marked(tmp_path) as mark:
                log, events = tmp_path / "log", tmp_path / "events"
                nothing = NodeTask("no_such_module", {}, None, (), log, events, mark, tmp_path, None, 1, None)
                task = RayScheduler(request).submit(nothing, many)
                while task.wait(0.1) is None and not (events.is_file() and events.read_text()):
                    pass
                task.cancel()
                assert re.search(r"node \w{6}, GPU 0,1", events.read_text())
    finally:
        nodes.cluster.remove_node(third)


def test_a_run_on_two_nodes_goes_on_when_one_is_killed(world: Path, nodes: Nodes) -> None:
    methods = (f"trained: {LONG}", f"wider: {LONG.replace('8', '16', 1)}")
    suite, folder, killed = suite_of(world, *methods), world / "far", threading.Event()
    second = nodes.second.node_id[:6]

    def kill() -> None:
        """Once the cell on the second node has a checkpoint."""
        while not killed.is_set():
            time.sleep(0.1)
            for events in folder.glob("tiny/*.events"):
                trains = (
                    folder / "tiny" / f"{events.name.partition('.')[0]}.checkpoint" / "training.safetensors"
                ).is_file()
                if trains and f"node {second}" in events.read_text().partition("\n")[0]:
                    nodes.cluster.remove_node(nodes.second, allow_graceful=False)
                    killed.set()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    far, said = run(suite, results=folder, backend="ray", address=nodes.cluster.address)
    near, _ = run(suite, results=world / "near")
    assert killed.is_set(), said
    assert far.code == near.code == 0
    assert [facts_of(folder, each) for each in far.records] == [facts_of(world / "near", each) for each in near.records]
    assert claims_in(folder / "tiny") == {}
    lost = re.findall(r"(\w+), seed 0: its node was lost; it is started again elsewhere \(2 of 5\)", said)
    assert len(lost) == 1, said
    resumed = {record.method: record.cost["resumptions"] for record in far.records if "resumptions" in record.cost}
    assert resumed == {"trained": 0, "wider": 0} | {lost[0]: 1}
    assert len(re.findall(r"^\[[0-9]/2\] \w+, seed 0 \(.*, node \w{6}\): ok", said, re.MULTILINE)) == 2
    for cache in nodes.caches:
        assert len(list(cache.glob("interactions-*/store.json"))) == 1
    assert not list(folder.rglob("*.events")) + list(folder.rglob(".shared*"))

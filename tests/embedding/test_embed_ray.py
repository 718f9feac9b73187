"""The Ray engine gives the bytes of the local one, on two nodes of which one is lost."""

import os
import subprocess
import sys
import time

import pytest
from embedding_kit import MOTION, SCRIPT, embedded, hashes, save_clips, save_pictures

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-scale.txt")
pytest.importorskip("ray.data", reason="Ray Data is not installed: pip install -r requirements-scale.txt")


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "180")  # on a busy machine
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_two_nodes_of_which_one_is_lost_give_the_same_bytes(cluster, tmp_path, monkeypatch):
    save_pictures(tmp_path / "photos", 400)
    save_clips(tmp_path / "clips", 4)
    (tmp_path / "photos" / "text.jpg").write_text("no picture")
    monkeypatch.chdir(tmp_path)  # the cluster's processes start elsewhere
    arguments = (MOTION, "photos", "clips", "--shard-size", 140, "--output")
    assert embedded(*arguments, tmp_path / "local").code == 3
    second = cluster.add_node(num_cpus=1)
    output = tmp_path / "ray"
    command = [sys.executable, SCRIPT, *arguments, output, "--engine", "ray", "--threads", "1"]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    with open(tmp_path / "errors", "w") as errors:
        run = subprocess.Popen([str(part) for part in command], env=environment, stderr=errors)
        until = time.monotonic() + 900
        while run.poll() is None and time.monotonic() < until and not list(output.glob("data/[0-9]*.parquet")):
            time.sleep(0.05)
        assert run.poll() is None, (tmp_path / "errors").read_text()
        cluster.remove_node(second, allow_graceful=False)
        assert run.wait(900) == 3, (tmp_path / "errors").read_text()
    assert hashes(output) == hashes(tmp_path / "local")

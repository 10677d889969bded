"""Milvus and an S3 store for tests: real processes, which a test may kill and start again."""

import gc
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest

from opendelg.errors import UnavailableError

T = TypeVar("T")
BUCKET = "delg"
# How often Milvus looks for work, ms: with its defaults a test waits for seconds.
_EAGER = {
    "timeTickInterval: 200": "timeTickInterval: 20",
    "checkInterval: 1000": "checkSegmentInterval: 100\n  checkChannelInterval: 100",
    "distPullInterval: 500": "distPullInterval: 50",
}
_NEEDED = ("boto3", "milvus", "milvus_lite", "moto", "pymilvus", "ray")
_MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
needs_cluster = pytest.mark.skipif(
    bool(_MISSING), reason=f"needs {', '.join(_MISSING)}: make test-cluster installs and runs all"
)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def eventually(
    function: Callable[[], T],
    seconds: float = 90,
    errors: tuple[type[Exception], ...] = (UnavailableError,),
    pause: float = 1.0,
) -> T:
    """The result, once a service that was started gives one instead of an error."""
    end = time.monotonic() + seconds
    while True:
        try:
            return function()
        except errors:
            if time.monotonic() > end:
                raise
            time.sleep(pause)


def wait_for(port: int, seconds: float = 30.0) -> None:
    eventually(
        lambda: socket.create_connection(("127.0.0.1", port), 1).close(), seconds, (OSError,), 0.05
    )


class Milvus:
    """A standalone server; what was written to it survives `kill`."""

    def __init__(self, folder: Path) -> None:
        from milvus import MilvusServer

        self._folder = folder
        self.port = free_port()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves sockets open
            server: Any = MilvusServer(debug=False)
            server.set_base_dir(str(folder))
            server.listen_port = self.port
            for default, eager in _EAGER.items():
                server.config.template_text = server.config.template_text.replace(default, eager)
            server.start()
            self._process = server.server_proc
            server.server_proc = None  # it would end the process with itself
            del server
            gc.collect()
        environment = Path(f"/proc/{self._process.pid}/environ").read_text().split("\0")
        self._environment = dict(line.split("=", 1) for line in environment if line)

    def start(self) -> None:
        # Not by MilvusServer, which would take other ports.
        self._process = subprocess.Popen(
            self._process.args,
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        from grpc import RpcError
        from pymilvus import MilvusException

        # Its port is open long before it answers.
        eventually(self._ask, 120, (MilvusException, RpcError), 0.2)

    def _ask(self) -> None:
        from pymilvus import MilvusClient

        client = MilvusClient(f"http://127.0.0.1:{self.port}", timeout=5)
        client.list_collections(timeout=5)
        client.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Store:
    """moto's S3 server behind a gateway; `kill` ends the gateway, and the objects stay."""

    def __init__(self) -> None:
        self._inner, self.port = free_port(), free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._inner)]
        quiet = subprocess.DEVNULL
        self._server = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        wait_for(self._inner)
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        script = Path(__file__).with_name("cluster_gateway.py")
        command = [sys.executable, str(script), str(self.port), str(self._inner)]
        self._gateway = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for(self.port)

    def kill(self) -> None:
        self._gateway.kill()
        self._gateway.wait()

    def stop(self) -> None:
        self.kill()
        self._server.kill()
        self._server.wait()


class Services:
    """Both, and addresses of collections on them."""

    def __init__(self, folder: Path) -> None:
        os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
        self.store = Store()
        self.milvus = Milvus(folder)
        self.client().create_bucket(Bucket=BUCKET)

    def client(self) -> Any:
        import boto3

        return boto3.client("s3", endpoint_url=self.store.endpoint, region_name="us-east-1")

    def file_address(self, file: Path, name: str) -> str:
        query = self.address(name).partition("?")[2]
        return f"milvus://{quote(str(file))}/{name}?{query}"

    def address(self, name: str, **parameters: str) -> str:
        parameters = {"features": f"s3://{BUCKET}/{name}", "endpoint": self.store.endpoint} | (
            parameters
        )
        query = "&".join(f"{key}={quote(value, safe=':/')}" for key, value in parameters.items())
        return f"milvus://127.0.0.1:{self.milvus.port}/{name}?{query}"

    def stop(self) -> None:
        self.milvus.kill()
        self.store.stop()


class RayNodes:
    """A Ray cluster: a head that runs no tasks, and nodes of one CPU.

    Nodes are processes of their own, as `ray start` makes them: started by this process, which has
    threads of gRPC, one in some never comes up.
    """

    def __init__(self, count: int) -> None:
        os.environ["RAY_AUTH_MODE"] = "disabled"  # else a token in the home folder counts for some
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        quiet = ["--include-dashboard=false", "--disable-usage-stats"]
        self._head = self._start("--head", f"--port={port}", "--num-cpus=0", *quiet)
        self._workers: list[subprocess.Popen[bytes]] = []
        try:
            self._wait(1)
            for number in range(1, count + 1):  # two that start at once may take the same ports
                self._workers.append(self._start(f"--address={self.address}", "--num-cpus=1"))
                self._wait(1 + number)
        except BaseException:
            self.stop()
            raise

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)

    def _wait(self, count: int) -> None:
        """Until so many nodes are alive; the head listens before it takes drivers."""
        errors = (ConnectionError, subprocess.TimeoutExpired)
        eventually(lambda: self._require(count), 180, errors)

    def _require(self, count: int) -> None:
        script = (
            "import ray, sys; ray.init(sys.argv[1], log_to_driver=False); "
            "sys.exit(sum(node['Alive'] for node in ray.nodes()) < int(sys.argv[2]))"
        )
        wait_for(int(self.address.rpartition(":")[2]), 180)  # Ray would try for long
        command = [sys.executable, "-c", script, self.address, str(count)]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if asked.returncode != 0:
            raise ConnectionError(f"Ray must have {count} nodes, got fewer: {asked.stderr}")

    def kill_one(self) -> None:
        """A node and its tasks die at once."""
        _kill_all(self._workers.pop())

    def stop(self) -> None:
        for process in [*self._workers, self._head]:
            _kill_all(process)


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """A process and those that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

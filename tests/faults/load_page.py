"""Sends many requests to the web page from many clients, hostile ones among them, and checks the answers.

    python tests/faults/load_page.py --requests=1000 --clients=50

Starts launch/demo.py once for each model. Every accepted request must get the answer that the same request
gets alone, nothing of this machine may be readable, and the memory of the servers must stay bounded. Prints
the counts, the latencies of accepted requests in seconds, and the memory as JSON; exits with status 1 on a
problem.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import hashlib
import io
import json
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
SCENE = (ROOT / "docs" / "scene.png").read_bytes()
SECRET = "root:"
"""Part of /etc/passwd, which must not appear in any answer."""
TEXTS = (
    "<script>alert(1)</script>",
    "\x00\x1b[31m",
    "a" * 100_000,
    ";" * 5000,
    "\u202eevil",
    "../../etc/passwd",
    "",
)
MAX_GROWTH = 400e6
"""Largest growth of a server's memory after the first quarter of the requests, in bytes."""


class Server:
    """A page with a model, in a process of its own."""

    def __init__(self, model: str):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        command = [sys.executable, "launch/demo.py", f"--checkpoint={model}", f"--port={port}"]
        self.process = subprocess.Popen(
            [*command, "--per_minute=1000000"], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        self.model, self.address = model, f"http://127.0.0.1:{port}"
        self.memory: list[int] = []

    def wait(self) -> None:
        while True:
            assert self.process.poll() is None, f"the page of {self.model} ended"
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{self.address}/config", timeout=5)
                return
            time.sleep(0.5)

    def call(self, http: httpx.Client, name: str, data: list[Any]) -> Any:
        """The outputs of a call of the API; None if the page refuses it with an error."""
        url = f"{self.address}/gradio_api/call/{name}"
        answer = http.post(url, json={"data": data})
        if answer.status_code != 200:
            return None
        events = http.get(f"{url}/{answer.json()['event_id']}").text
        assert SECRET not in events
        kind, _, content = events.rpartition("event: ")[2].partition("\ndata: ")
        assert kind in ("complete", "error"), events[-300:]
        return json.loads(content) if kind == "complete" else None

    def upload(self, http: httpx.Client, content: bytes, name: str = "scene.png") -> httpx.Response:
        return http.post(f"{self.address}/gradio_api/upload", files={"files": (name, content)})


def picture(i: int) -> bytes:
    """The scene with a size of its own, so that an answer to another request is recognised."""
    image, buffer = Image.open(io.BytesIO(SCENE)).convert("RGB"), io.BytesIO()
    image.resize((96 + 8 * i, 96)).save(buffer, "PNG")
    return buffer.getvalue()


def segment(server: Server, http: httpx.Client, i: int) -> Any:
    """The numbers and the first mask of request i."""
    path = server.upload(http, picture(i)).json()[0]
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    answer = server.call(http, "segment", [file, f"the star; object {i}", 0.4])
    return answer and [answer[0], fetch(http, answer[1][0])]


def generate(server: Server, http: httpx.Client, i: int) -> Any:
    """The seeds and the image of request i."""
    answer = server.call(http, "generate", [f"a red star {i}", i, 1, 1.5, 5])
    return answer and [answer[0], fetch(http, answer[1][0])]


def fetch(http: httpx.Client, file: dict[str, Any]) -> str:
    return hashlib.sha256(http.get(file["url"]).raise_for_status().content).hexdigest()


def hostile_text(server: Server, http: httpx.Client, rng: random.Random) -> None:
    server.call(http, "generate", [rng.choice(TEXTS), 0, 1, 1.5, 5])


def oversized_upload(server: Server, http: httpx.Client, rng: random.Random) -> None:
    assert server.upload(http, bytes(26 * 2**20)).status_code != 200, "26 MB were accepted"


def oversized_text(server: Server, http: httpx.Client, rng: random.Random) -> None:
    answer = http.post(f"{server.address}/gradio_api/call/generate", json={"data": ["a" * 27 * 2**20]})
    assert answer.status_code == 413, f"27 MB of text: {answer.status_code}"


def file_of_another_server(server: Server, http: httpx.Client, rng: random.Random) -> None:
    url = "http://genmask.invalid/x.png"
    answer = http.get(f"{server.address}/gradio_api/file={url}", follow_redirects=False)
    assert answer.status_code == 404, f"{url}: {answer.status_code}"
    assert (
        server.call(http, "segment", [{"path": url, "meta": {"_type": "gradio.FileData"}}, "a", 0.4]) is None
    )


def slow_upload(server: Server, http: httpx.Client, rng: random.Random) -> None:
    """A few bytes at a time, and then nothing more."""
    with connected(server) as connection:
        connection.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(5):
            connection.sendall(b"x")
            time.sleep(0.2)


def dropped_connection(server: Server, http: httpx.Client, rng: random.Random) -> None:
    """A request whose answer nobody waits for."""
    url = f"{server.address}/gradio_api/call/generate"
    event = http.post(url, json={"data": ["a red star", 0, 1, 1.5, 5]}).json()["event_id"]
    with connected(server) as connection:
        connection.sendall(f"GET /gradio_api/call/generate/{event} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def parent_in_name(server: Server, http: httpx.Client, rng: random.Random) -> None:
    answer = server.upload(http, SCENE, rng.choice(("../../../../tmp/x.png", "/etc/x.png", "..\\x.png")))
    if answer.status_code == 200:
        path = pathlib.Path(answer.json()[0]).resolve()
        assert path.parent.parent.name == "uploads", f"uploaded to {path}"


def file_of_host(server: Server, http: httpx.Client, rng: random.Random) -> None:
    name = rng.choice(
        ("/etc/passwd", "../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "file:///etc/passwd")
    )
    answer = http.get(f"{server.address}/gradio_api/file={name}")
    assert answer.status_code != 200, f"{name} is readable"
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    assert server.call(http, "segment", [file, "a", 0.4]) is None
    source = http.get(f"{server.address}/gradio_api/file={ROOT / 'pyproject.toml'}")
    assert source.status_code != 200, "files of the program are readable"


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2])))


REQUESTS = (segment, generate)
HOSTILE = (
    *(hostile_text, oversized_upload, oversized_text, slow_upload, dropped_connection),
    *(parent_in_name, file_of_host, file_of_another_server),
)
KINDS_OF_REQUESTS = 6
"""Number of different requests of each function; each is sent many times."""


class Load:
    """The counts, problems and latencies of all requests."""

    def __init__(self, servers: list[Server]):
        self.servers, self.http = servers, httpx.Client(timeout=600, limits=httpx.Limits(max_connections=200))
        self.counts: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self.latencies: list[float] = []
        self.expected = {
            (server.model, function, i): function(server, self.http, i)
            for server in servers
            for function in REQUESTS
            for i in range(KINDS_OF_REQUESTS)
        }

    def send(self, number: int) -> None:
        """A request, every sixth of them hostile; what it is depends on its number alone."""
        rng = random.Random(number)
        server, function = self.servers[number % len(self.servers)], rng.choice(REQUESTS)
        if rng.random() < 1 / 6:
            function = HOSTILE[number // len(self.servers) % len(HOSTILE)]
        try:
            if function in HOSTILE:
                function(server, self.http, rng)
                self.counts[function.__name__] += 1
            else:
                self._compare(server, function, rng.randrange(KINDS_OF_REQUESTS))
        except Exception as error:
            self.problems.append(f"request {number}, {function.__name__}: {type(error).__name__}: {error}")

    def _compare(self, server: Server, function: Callable[..., Any], i: int) -> None:
        begin = time.monotonic()
        answer = function(server, self.http, i)
        if answer is None:
            self.counts[f"{function.__name__}, refused"] += 1
            return
        self.latencies.append(time.monotonic() - begin)
        self.counts[f"{function.__name__}, answered"] += 1
        if answer != self.expected[server.model, function, i]:
            self.problems.append(f"{function.__name__} {i} of {server.model} has another answer")

    def summary(self) -> dict[str, Any]:
        servers = self.servers
        for server in servers:
            first, rest = np.split(np.array(server.memory), [max(1, len(server.memory) // 4)])
            if len(rest) and rest.max() - first.max() > MAX_GROWTH:
                self.problems.append(
                    f"{server.model}: its memory grew from {first.max()} to {rest.max()} bytes"
                )
        return {
            "counts": dict(self.counts),
            "p50_s": round(float(np.percentile(self.latencies, 50)), 2),
            "p95_s": round(float(np.percentile(self.latencies, 95)), 2),
            "memory_mb": {
                s.model: [round(m / 1e6) for m in s.memory[:: len(s.memory) // 8 + 1]] for s in self.servers
            },
            "problems": self.problems,
        }


@contextlib.contextmanager
def watched(servers: list[Server]) -> Iterator[None]:
    """Samples the memory of the servers once a second."""
    stopped = threading.Event()

    def sample() -> None:
        while not stopped.wait(1):
            for server in servers:
                server.memory.append(psutil.Process(server.process.pid).memory_info().rss)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def run(requests: int, clients: int, models: list[str]) -> dict[str, Any]:
    """Starts the pages, sends the requests and returns the summary."""
    servers = [Server(model) for model in models]
    try:
        for server in servers:
            server.wait()
        load, begin = Load(servers), time.monotonic()
        with watched(servers), concurrent.futures.ThreadPoolExecutor(clients) as pool:
            list(pool.map(load.send, range(requests)))
        return load.summary() | {"seconds": round(time.monotonic() - begin, 1)}
    finally:
        for server in servers:
            server.process.terminate()
            server.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--models", default="refershapes,refershapes_small", help="models, with commas")
    arguments = parser.parse_args()
    summary = run(arguments.requests, arguments.clients, arguments.models.split(","))
    print(json.dumps(summary, indent=1))
    sys.exit(bool(summary["problems"]))


if __name__ == "__main__":
    main()

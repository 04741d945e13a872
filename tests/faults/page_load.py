"""Serves the web page in a process, loads it with requests and faults, and counts what it answers.

    python tests/faults/page_load.py --workdir=runs/page_load

1,000 requests come from 50 clients at once, with images of 40 sizes, or prompts and seeds; every mask and
image must equal what `Segmenter` or `Generator` gives. Meanwhile, other uploads come a byte at a time.
Then come more clients than the queue holds, uploads that are too large, connections that break, hostile file
names and texts, and paths to files of the machine. Prints counts and one line of JSON; exits with status 1
if a request was lost or answered wrongly.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import io
import itertools
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from genmask_jax.tools.demo import limits  # noqa: E402
from genmask_jax.tools.demo.handlers import NUM_NOISES  # noqa: E402

MODEL, NUM_IMAGES, STEPS = "refershapes_small", 40, 5
MEGABYTE = 1 << 20
API = "/gradio_api"
TEXTS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} ${7 * 7} {% raw %}",
    "'; DROP TABLE masks; --",
    "a\x00b",
    "\x00",
    "\x1b[2J\x07\x08\r",
    "\u202e\u200b\ufeff the star",
    "\ud83d\ude00 \u0301" * 9,
    "star " * 200_000,
    "a;" * 5_000,
    "../../etc/passwd",
    "%s%n%x",
    "\U0010ffff",
)
"""Phrases that the page must answer, or refuse with a message."""
NAMES = (
    *(
        "..",
        ".",
        "../../secret.png",
        "/etc/passwd",
        "..\\..\\secret.png",
        "C:\\secret.png",
        "%2e%2e%2fsecret",
    ),
    *("/dev/zero", "CON", "NUL.png", "a\x00.png", "x" * 300 + ".png", " ", "<img src=x>.png", "~/.ssh/id"),
)
"""File names of uploads."""


@dataclasses.dataclass(frozen=True)
class Page:
    """A page that is served by another process."""

    process: subprocess.Popen
    address: str
    temporary: pathlib.Path

    def measure(self) -> dict[str, int]:
        """Memory in MB, open file descriptors, and files in the folder for temporary files."""
        proc = pathlib.Path(f"/proc/{self.process.pid}")
        resident = re.search(r"VmRSS:\s+(\d+)", (proc / "status").read_text())
        assert resident
        files = [path for path in self.temporary.rglob("*") if path.is_file()]
        return {
            "rss_mb": int(resident[1]) // 1024,
            "descriptors": len(list((proc / "fd").iterdir())),
            "files": len(files),
            "files_mb": sum(path.stat().st_size for path in files) // MEGABYTE,
        }


@contextlib.contextmanager
def serve(workdir: pathlib.Path) -> Iterator[Page]:
    """Starts the page on a free port, with its temporary files in `workdir`."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    temporary = workdir / "temporary"
    temporary.mkdir(parents=True)
    command = [sys.executable, "-m", "genmask_jax.commands.demo", f"--checkpoint={MODEL}", f"--port={port}"]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    with open(workdir / "log.txt", "wb") as log:
        process = subprocess.Popen(
            [*command, "--per_minute=1000000"], env=environment, stdout=log, stderr=log, cwd=workdir
        )
    page = Page(process, f"http://127.0.0.1:{port}", temporary)
    try:
        while True:
            assert process.poll() is None, f"the page ended; see {workdir / 'log.txt'}"
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{page.address}/config", timeout=5)
                break
            time.sleep(0.2)
        yield page
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


class Refused(Exception):
    """The page refused a request with a message."""


class Client:
    """Calls the API over HTTP, as `gradio_client` does."""

    def __init__(self, address: str):
        self.http = httpx.Client(base_url=address, timeout=600)

    def upload(self, content: bytes, name: str = "x.png") -> str:
        """Uploads a file; returns its path. Raises Refused."""
        answer = self.http.post(f"{API}/upload", files={"files": (name, content)})
        if answer.status_code != 200:
            raise Refused(f"{answer.status_code}: {answer.text[:200]}")
        return answer.json()[0]

    def join(self, name: str, *data: Any) -> str:
        """Puts a request in the queue; returns its id. Raises Refused."""
        content = json.dumps({"data": data})
        answer = self.http.post(
            f"{API}/call/{name}", content=content, headers={"Content-Type": "application/json"}
        )
        if answer.status_code != 200:
            raise Refused(f"{answer.status_code}: {answer.text[:200]}")
        return answer.json()["event_id"]

    def wait(self, name: str, event: str) -> Any:
        """The answer of a request. Raises Refused; AssertionError if there is none."""
        text = self.http.get(f"{API}/call/{name}/{event}").text
        ended = re.search(r"event: (complete|error)\ndata: (.*)", text)
        assert ended, f"no answer: {text[-200:]!r}"
        data = json.loads(ended[2])
        if ended[1] == "error":
            raise Refused(data.get("error") if isinstance(data, dict) else data)
        return data

    def segment(self, content: bytes, text: str, threshold: float = 0.5) -> tuple[dict, dict[str, bytes]]:
        """Uploads and segments an image; returns the numbers, and the files by name."""
        data = (file_data(self.upload(content)), text, threshold)
        numbers, files = self.wait("segment", self.join("segment", *data))
        return numbers, {pathlib.Path(file["path"]).name: self.fetch(file["path"]) for file in files}

    def fetch(self, path: str) -> bytes:
        answer = self.http.get(f"{API}/file={path}")
        if answer.status_code != 200:
            raise Refused(f"{answer.status_code}: {answer.text[:200]}")
        return answer.content


def file_data(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def make_requests() -> list[Callable[[Client], bool]]:
    """Requests whose answers are known from the Python API; each says whether its answer is right."""
    from genmask_jax import cli
    from genmask_jax.inference.generator import Generator
    from genmask_jax.inference.segmenter import Segmenter
    from genmask_jax.utils.errors import UnknownWordWarning

    cli.use_compilation_cache()
    warnings.simplefilter("ignore", UnknownWordWarning)
    segmenter, generator = Segmenter.from_pretrained(MODEL), Generator.from_pretrained(MODEL)
    rng, requests = np.random.default_rng(0), []
    for i in range(NUM_IMAGES):
        small = rng.integers(0, 256, (6, 6, 3), np.uint8)
        image = np.asarray(Image.fromarray(small).resize((90 + 3 * i, 60 + 2 * i), Image.Resampling.NEAREST))
        phrases = [f"the star {i}", "the red circle"][: 1 + i % 2]
        threshold = 0.3 + 0.05 * (i % 8)
        result = segmenter(image, phrases, noises=NUM_NOISES).at_threshold(threshold)
        expected, content = json.loads(json.dumps(result.to_dict())), png(image)

        def segment(client, content=content, phrases=phrases, threshold=threshold, result=result,
                    expected=expected):  # fmt: skip
            numbers, files = client.segment(content, "; ".join(phrases), threshold)
            masks = [pixels(files[name]) > 0 for name in sorted(files) if name.startswith("mask")]
            return numbers == expected and np.array_equal(masks, result.masks)

        requests.append(segment)
        if i % 4 == 0:
            drawn = np.asarray(generator(f"a red star {i}", seed=i, steps=STEPS, guidance_scale=2.0))

            def generate(client, i=i, drawn=drawn):
                event = client.join("generate", f"a red star {i}", i, 1, 2.0, STEPS)
                seeds, files = client.wait("generate", event)
                return seeds == [i] and np.array_equal(pixels(client.fetch(files[0]["path"])), drawn)

            requests.append(generate)
    return requests


class Counts:
    """Counts answers, and keeps the messages of refused and lost requests."""

    def __init__(self):
        self.numbers: collections.Counter[str] = collections.Counter()
        self.messages: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()

    def count(self, call: Callable[[], bool]) -> None:
        """Calls a request, and counts it as right, wrong, refused or lost."""
        message = ""
        try:
            kind = "right" if call() else "wrong"
        except Refused as refusal:
            kind, message = "refused", str(refusal)
            if not message or message == "None":
                kind = "unexplained"
        except Exception as error:
            kind, message = "lost", f"{type(error).__name__}: {error}"
        with self._lock:
            self.numbers[kind] += 1
            if message:
                self.messages[f"{kind}: {re.sub(r'[0-9a-f]{16,}', '...', message)[:160]}"] += 1


def load(page: Page, requests: list, count: int, clients: int) -> Counts:
    """Sends `count` requests in random order from `clients` threads."""
    counts, order, local = Counts(), [*requests], threading.local()
    random.Random(0).shuffle(order)

    def one(request: Callable[[Client], bool]) -> None:
        if not hasattr(local, "client"):
            local.client = Client(page.address)
        counts.count(lambda: request(local.client))

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, itertools.islice(itertools.cycle(order), count)))
    return counts


def burst(page: Page, requests: list, clients: int) -> Counts:
    """All clients send one request at once."""
    counts, barrier = Counts(), threading.Barrier(clients)

    def one(i: int) -> None:
        client = Client(page.address)
        path = file_data(client.upload(png(np.zeros((30 + i, 40, 3), np.uint8))))
        barrier.wait()

        def ask() -> bool:
            numbers, _ = client.wait("segment", client.join("segment", path, f"star {i}", 0.5))
            return numbers["height"] == 30 + i and numbers["phrases"][0]["phrase"] == f"star {i}"

        counts.count(ask)

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(clients)))
    return counts


def raw(
    page: Page, path: str, length: int | None, body: bytes, kind: str = "application/json"
) -> socket.socket:
    """Sends the head of a POST request and the beginning of its body; chunked if `length` is None."""
    host, port = page.address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=600)
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    head = f"POST {API}{path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: {kind}\r\n{size}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


FORM = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n'


def status(connection: socket.socket) -> int:
    """The status of the answer on a connection; 0 if it was closed without one."""
    with connection, contextlib.suppress(ConnectionError):
        line = connection.recv(4096).split(b"\r\n")[0].split()
        return int(line[1]) if len(line) > 1 else 0
    return 0


def dribble(page: Page, seconds: float) -> tuple[int, float]:
    """Sends an upload a byte at a time; returns the status of the answer and when it came, in seconds."""
    began = time.monotonic()
    connection = raw(page, "/upload", 10_000_000, PART, FORM)
    connection.settimeout(0.5)
    while time.monotonic() - began < seconds:
        try:
            answer = connection.recv(4096)
            code = answer.split()[1] if answer else b"0"
            return int(code), time.monotonic() - began
        except TimeoutError:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"x")
        except ConnectionError:
            return 0, time.monotonic() - began
    connection.close()
    return -1, seconds


def oversized(page: Page) -> Counts:
    """Bodies that are too large: files, form fields, JSON, unknown length, images of many pixels."""
    counts, client = Counts(), Client(page.address)
    large = b"x" * (40 * MEGABYTE)
    field = PART.replace(b'; filename="x.png"', b"") + large + b"\r\n--b--\r\n"

    def refused(call: Callable[[], httpx.Response]) -> bool:
        answer = call()
        if answer.status_code in (411, 413):
            raise Refused(f"{answer.status_code}: {answer.text[:200]}")
        return False

    headers = {"Content-Type": FORM}
    calls: list[Callable[[], httpx.Response]] = [
        lambda: client.http.post(f"{API}/upload", files={"files": ("x.png", large)}),
        lambda: client.http.post(f"{API}/upload", files=[("files", (f"{i}.png", large[: 20 * MEGABYTE]))
                                                         for i in range(4)]),
        lambda: client.http.post(f"{API}/upload", content=field, headers=headers),
        lambda: client.http.post(f"{API}/call/segment", json={"data": [None, large.decode(), 0.5]}),
        lambda: client.http.post(f"{API}/upload", content=iter([large]), headers=headers),
    ]  # fmt: skip
    for call in calls * 4:
        counts.count(lambda call=call: refused(call))
    many = io.BytesIO()
    Image.new("L", (13_000, 13_000)).save(many, "PNG")
    counts.count(lambda: not client.segment(many.getvalue(), "the star"))
    return counts


def dropped(page: Page, count: int) -> None:
    """Closes connections in the middle of an upload, and while waiting for an answer."""
    client, image = Client(page.address), png(np.zeros((50, 50, 3), np.uint8))
    path = file_data(client.upload(image))
    for i in range(count):
        raw(page, "/upload", 5_000_000, PART + b"x" * (i * 10_000), FORM).close()
        with contextlib.suppress(Refused):
            event = client.join("segment", path, f"dropped {i}", 0.5)
            host, port = page.address.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(f"GET {API}/call/segment/{event} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                connection.recv(64)


def read_host_files(page: Page, secret: pathlib.Path) -> tuple[int, list[str]]:
    """Tries to read files of the machine; returns the number of tries, and those that succeeded."""
    client, served, tries = Client(page.address), [], 0
    http = client.http
    targets = [
        str(secret),
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/self/maps",
        "/dev/stdin",
        str(ROOT / "setup.py"),
    ]
    forms = (
        "{}",
        "/{}",
        "//{}",
        "{quoted}",
        "x/../../../../../../../..{}",
        "file://{}",
        "{}%00.png",
        "{}/.",
        "~{}",
    )
    routes = (
        *(f"{API}/file=", f"{API}/file/", "/file=", "/static/", "/assets/", "/svelte/", f"{API}/proxy="),
        *(f"{API}/custom_component/", f"{API}/file={page.temporary}/../.."),
    )
    contents = {
        target: pathlib.Path(target).read_bytes()[:64]
        for target in (str(secret), "/etc/passwd", str(ROOT / "setup.py"))
    }
    for target in targets:
        for route in routes:
            for form in forms:
                url = route + form.format(target, quoted=target.replace("/", "%2f").replace(".", "%2e"))
                try:
                    answer = http.get(url)
                except httpx.InvalidURL:
                    continue
                tries += 1
                leaked = any(content in answer.content for content in contents.values())
                if leaked or b"PATH=" in answer.content or b"[heap]" in answer.content:
                    served.append(url)
        for body in ([file_data(target), "a", 0.5], [file_data(f"{page.temporary}/../{target}"), "a", 0.5]):
            tries += 1
            with contextlib.suppress(Refused):
                client.wait("segment", client.join("segment", *body))
                served.append(f"segment {target}")
    return tries, served


def other_servers(page: Page) -> list[str]:
    """Asks the page to fetch addresses of other servers; returns those for which it tried."""
    client, tried = Client(page.address), []
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.png"
        for address in (url, "http://genmask.invalid/x.png"):
            answer = client.http.get(f"{API}/file={address}")
            if answer.status_code != 404:
                tried.append(f"file={address}: {answer.status_code}")
            try:
                client.wait("segment", client.join("segment", file_data(address), "a", 0.5))
                tried.append(address)
            except Refused as refusal:
                if "upload" not in str(refusal).lower():
                    tried.append(f"{address}: {refusal}")
    return tried


def hostile_names(page: Page, outside: list[pathlib.Path]) -> Counts:
    """Uploads files with hostile names; they must stay in the folder for temporary files."""
    counts, client, image = Counts(), Client(page.address), png(np.full((20, 30, 3), 9, np.uint8))
    for name in NAMES:

        def ask(name: str = name) -> bool:
            content = PART.replace(b"x.png", name.encode()) + image + b"\r\n--b--\r\n"
            answer = client.http.post(f"{API}/upload", content=content, headers={"Content-Type": FORM})
            if answer.status_code != 200:
                raise Refused(f"{answer.status_code}: {answer.text[:200]}")
            path = pathlib.Path(answer.json()[0])
            numbers, _ = client.wait("segment", client.join("segment", file_data(str(path)), "a star", 0.5))
            return path.resolve().is_relative_to(page.temporary) and numbers["height"] == 20

        counts.count(ask)
    assert not any(path.exists() for path in outside)
    return counts


def hostile_texts(page: Page) -> Counts:
    """Sends hostile texts as phrases and as prompts."""
    counts, client, image = Counts(), Client(page.address), png(np.full((20, 30, 3), 9, np.uint8))
    path = file_data(client.upload(image))
    for text in TEXTS:

        def segment(text: str = text) -> bool:
            numbers, _ = client.wait("segment", client.join("segment", path, text, 0.5))
            wanted = dict.fromkeys(" ".join(part.split()) for part in text.replace("\r", "\n").split(";"))
            return [row["phrase"] for row in numbers["phrases"]] == [part for part in wanted if part]

        def generate(text: str = text) -> bool:
            return client.wait("generate", client.join("generate", text, 0, 1, 1.0, STEPS))[0] == [0]

        counts.count(segment)
        counts.count(generate)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="a folder that does not exist")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also ends the page
    workdir = arguments.workdir.resolve()
    requests, report = make_requests(), {}
    secret = workdir / "secret.png"

    def add(name: str, counts: Counts, began: float) -> None:
        report[name] = {**counts.numbers, "seconds": round(time.monotonic() - began)}
        print(name, report[name], *(f"\n    {n} x {text}" for text, n in counts.messages.items()), flush=True)

    with serve(workdir) as page:
        secret.write_bytes(png(np.full((8, 8, 3), 77, np.uint8)))
        load(page, requests, len(requests), 4)  # compiled programs, and memory that is kept
        before = page.measure()
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            slow = [pool.submit(dribble, page, 2 * limits.MAX_UPLOAD_SECONDS) for _ in range(20)]
            add("load", load(page, requests, arguments.requests, arguments.clients), began)
            report["slow"] = dict(collections.Counter(future.result()[0] for future in slow))
            report["slow"]["seconds"] = round(max(future.result()[1] for future in slow))
            print("slow uploads", report["slow"], flush=True)
        began = time.monotonic()
        add("burst", burst(page, requests, 3 * limits.MAX_QUEUE_SIZE), began)
        began = time.monotonic()
        add("oversized", oversized(page), began)
        print("    ", page.measure())
        began = time.monotonic()
        dropped(page, 100)
        add("after 200 dropped connections", load(page, requests, 50, 10), began)
        print("    ", page.measure())
        began = time.monotonic()
        add("names", hostile_names(page, [workdir / "secret", page.temporary / "secret.png"]), began)
        began = time.monotonic()
        add("texts", hostile_texts(page), began)
        tries, served = read_host_files(page, secret)
        report["host files"] = {"tries": tries, "served": len(served)}
        print("host files", report["host files"], *(f"\n    {url}" for url in served))
        tried = other_servers(page)
        report["other servers"] = {"fetched": len(tried)}
        print("other servers", *(f"\n    {text}" for text in tried))
        add("at the end", load(page, requests, 50, 10), time.monotonic())
        time.sleep(15)  # for connections to be closed
        report |= {"before": before, "after": page.measure()}
    report["left after exit"] = {"files": sum(path.is_file() for path in page.temporary.rglob("*"))}
    print(json.dumps(report))
    rows = [row for row in report.values() if row.get("lost") or row.get("wrong") or row.get("unexplained")]
    sys.exit(bool(rows or served or tried))


if __name__ == "__main__":
    main()

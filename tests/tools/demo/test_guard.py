"""What the page refuses before Gradio sees it, and which files it keeps."""

import os
import pathlib
import socket
import time

import pytest

pytest.importorskip("gradio", reason="needs the extra demo")
import httpx

from genmask_jax.tools.demo import limits
from genmask_jax.tools.demo.guard import delete_old_files

HEAD = (
    b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: 5000\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n'
)
"""The beginning of an upload."""


def upload(address: str, content: bytes, name: str = "x.png") -> httpx.Response:
    return httpx.post(f"{address}/gradio_api/upload", files={"files": (name, content)})


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def ask(address: str, *data) -> str:
    call = f"{address}/gradio_api/call/segment"
    return httpx.get(f"{call}/{httpx.post(call, json={'data': data}).json()['event_id']}", timeout=60).text


def test_bodies_that_are_too_large_are_refused(address, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BODY_BYTES", 100_000)
    assert upload(address, b"x" * 50_000).status_code == 200
    for answer in (
        upload(address, b"x" * 5_000_000),
        httpx.post(f"{address}/gradio_api/call/segment", json={"data": [None, "x" * 5_000_000, 0.5]}),
    ):
        assert (answer.status_code, answer.text) == (413, "This is too large; send at most 25MB.")
    chunked = httpx.post(f"{address}/gradio_api/upload", content=iter([b"x"]))
    assert chunked.status_code == 411


def test_slow_and_broken_uploads_leave_nothing(address, handlers, monkeypatch):
    monkeypatch.setattr(limits, "MAX_UPLOAD_SECONDS", 0.3)
    before = sorted(handlers.uploads.rglob("*"))
    with connect(address) as slow, connect(address) as broken:
        broken.sendall(HEAD + b"x" * 1000)
        broken.close()
        slow.sendall(HEAD)
        assert b"408" in slow.recv(1000)
    assert sorted(handlers.uploads.rglob("*")) == before


def test_only_new_uploads_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_UPLOADS", 3)
    for i in range(6):
        (tmp_path / f"{i // 2}").mkdir(exist_ok=True)
        (path := tmp_path / f"{i // 2}" / f"{i}.png").touch()
        age = limits.UPLOAD_SECONDS + 9 if i == 5 else 60 - i
        os.utime(path, (time.time() - age,) * 2)
    delete_old_files(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["2.png", "3.png", "4.png"]
    assert not (tmp_path / "0").exists()


def test_uploads_are_no_pages_of_this_address(address, handlers):
    path = upload(address, b"<script>alert(1)</script>", "x.html").json()[0]
    assert pathlib.Path(path).is_relative_to(handlers.uploads)
    answer = httpx.get(f"{address}/gradio_api/file={path}")
    assert answer.headers["content-disposition"].startswith("attachment")


def test_addresses_are_not_loaded(address, monkeypatch):
    url = "https://example.com/x.png"
    for route in ("file=", "file/"):
        assert httpx.get(f"{address}/gradio_api/{route}{url}").status_code == 404
    monkeypatch.delattr("gradio.processing_utils.async_ssrf_protected_download")
    file = {"path": url, "meta": {"_type": "gradio.FileData"}}
    assert "the page does not load addresses" in ask(address, file, "a", 0.5)
    assert "the page does not load addresses" in ask(address, None, file, 0.5)


def test_the_queue_cannot_be_skipped(address):
    answer = httpx.post(f"{address}/gradio_api/run/segment", json={"data": [None, "a", 0.5]})
    assert answer.status_code == 404

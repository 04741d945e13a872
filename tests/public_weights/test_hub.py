"""Downloads from a local server with the hub's API, and its errors."""

import hashlib
import http.server
import json
import pathlib
import threading

import huggingface_hub
import pytest
from etils import epath

from genmask_jax.public_weights import hub, wan
from genmask_jax.utils.errors import UserError
from tests.public_weights.reference import reference_dit, reference_vae, save

REVISION = "c0ffee" + "0" * 34
SOURCE = "hf:someone/wan"
PATTERNS = [pattern for patterns in wan.HUB_PATTERNS.values() for pattern in patterns]


class Hub(http.server.ThreadingHTTPServer):
    """Serves the files of a folder as one repository.

    folder: folder of the files.
    gated: whether downloads are refused.
    cut: bytes after which the first download of each large file is interrupted; None for no interruption.
    flipped: whether the content differs from the hash of the file.
    requested: names and ranges of requests.
    """

    def __init__(self, folder: pathlib.Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.gated, self.cut, self.flipped = folder, False, None, False
        self.requested: list[tuple[str, str | None]] = []

    def files(self) -> dict[str, bytes]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def send(self, code, content=b"", body=True, **headers):
        self.send_response(code)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(content))} | named).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def answer(self, body):
        path, files = self.path.partition("?")[0], self.server.files()
        if path.startswith("/api/models/someone/wan"):
            return self.describe(path, files, body)
        prefix = f"/someone/wan/resolve/{REVISION}/"
        if self.server.gated and path.startswith(prefix):
            return self.send(403, body=body, X_Error_Code="GatedRepo")
        if path.startswith(prefix) and path.removeprefix(prefix) in files:
            return self.file(path.removeprefix(prefix), files, body)
        return self.send(404, b"{}", body, X_Error_Code="RepoNotFound")

    def describe(self, path, files, body):
        revision = path.partition("/revision/")[2]
        if revision not in ("", REVISION, "main"):
            return self.send(404, b"{}", body, X_Error_Code="RevisionNotFound")
        sizes = {name: {"size": len(content)} for name, content in files.items()}
        lfs = {n: {"lfs": s | {"pointerSize": 9}} for n, s in sizes.items() if n.endswith(".safetensors")}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        if "/tree/" in path:
            rows = [{"type": "file", "path": n, "oid": digests[n][:40], **sizes[n]} for n in files]
            for row in rows:
                if row["path"] in lfs:
                    row["lfs"] = lfs[row["path"]]["lfs"] | {"oid": digests[row["path"]]}
            return self.send(200, json.dumps(rows).encode(), body, Content_Type="application/json")
        rows = [{"rfilename": n, "blobId": digests[n][:40], **sizes[n]} for n in files]
        for row in rows:
            if row["rfilename"] in lfs:
                row["lfs"] = lfs[row["rfilename"]]["lfs"] | {"sha256": digests[row["rfilename"]]}
        about = {"id": "someone/wan", "modelId": "someone/wan", "sha": REVISION, "siblings": rows}
        return self.send(200, json.dumps(about).encode(), body, Content_Type="application/json")

    def file(self, name, files, body):
        content = files[name]
        tag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X_Repo_Commit": REVISION}
        span = self.headers.get("Range")
        if not body:
            return self.send(200, content, False, **tag)
        self.server.requested.append((name, span))
        if self.server.flipped and name.endswith(".safetensors"):
            content = content[:-1] + bytes([content[-1] ^ 255])
        start = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        if self.server.cut and not start and len(content) > 2 * self.server.cut:
            self.send(200, content[: self.server.cut], Content_Length=str(len(content)), **tag)
            self.close_connection = True
            return self.connection.close()
        where = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if span else {}
        return self.send(206 if span else 200, content[start:], **where, **tag)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub with a sharded DiT, a VAE, and other files."""
    folder = tmp_path / "served"
    save(
        folder,
        reference_dit(),
        reference_vae(base_dim=4, dim_mult=[1, 2, 4, 4], num_res_blocks=2),
        max_shard_size="40KB",
    )
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder" / "model.safetensors").write_bytes(b"large")
    (folder / "vae" / "old.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    (folder / "diffusion_pytorch_model.pth").write_bytes(b"\x80\x04cos\nsystem\n")
    served = Hub(folder)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{served.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between attempts
    yield served
    served.shutdown()
    served.server_close()


def refusal(source=SOURCE, check=None):
    with pytest.raises(UserError) as caught:
        hub.resolve(source, PATTERNS, check)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_imported_files_are_downloaded_and_only_once(server, capsys):
    folder = hub.resolve(SOURCE, PATTERNS, wan.check_names)
    downloaded = {name for name, _ in server.requested}
    assert downloaded == {
        n for n in server.files() if n.startswith(("transformer/", "vae/")) and not n.endswith(".bin")
    }
    assert REVISION in capsys.readouterr().out
    dit, vae = wan.open_wan(folder)
    ours, _ = wan.open_wan(epath.Path(server.folder))
    for entry in dit.entries:
        assert (dit.files.read(entry.keys[0]) == ours.files.read(entry.keys[0])).all()
    assert vae.entries
    server.requested.clear()
    assert hub.resolve(f"{SOURCE}@{REVISION}", PATTERNS) == folder
    assert not server.requested


def test_a_single_part_is_downloaded(server):
    hub.resolve(SOURCE, wan.HUB_PATTERNS["vae"])
    assert {name.split("/")[0] for name, _ in server.requested} == {"vae"}


def test_an_interrupted_download_is_resumed(server, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    server.cut = 5000
    folder = hub.resolve(SOURCE, PATTERNS)
    assert any(span and not span.startswith("bytes=0-") for _, span in server.requested)
    wan.open_wan(folder)


def test_a_damaged_download_is_repeated_or_refused(server):
    server.flipped = True
    assert "the hash of the download differs from the hub's" in refusal()
    server.flipped = False
    folder = hub.resolve(SOURCE, PATTERNS)  # the cache still holds the damaged files
    for path in pathlib.Path(folder).rglob("*.safetensors"):
        assert path.read_bytes() == server.files()[str(path.relative_to(folder))]


def test_unavailable_repositories_give_one_line(server):
    assert "this repository does not exist, or is private" in refusal("hf:someone/else")
    assert "has no revision 'v9'" in refusal(f"{SOURCE}@v9")
    assert "give hf:OWNER/NAME" in refusal("hf:no name")
    (server.folder / "transformer_2").mkdir()
    (server.folder / "transformer_2" / "config.json").write_text("{}")
    assert "this model has two DiTs, transformer and transformer_2" in refusal(check=wan.check_names)
    assert not server.requested
    server.gated = True
    message = refusal()
    assert "this repository is gated; accept its terms at" in message
    assert "/someone/wan, then log in" in message


def test_an_unreachable_hub_gives_one_line(server, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "rerun the command to resume the download" in refusal()


def test_a_repository_without_the_weights_or_with_a_shard_missing(server):
    shard = sorted((server.folder / "transformer").glob("*.safetensors"))[1]
    shard.unlink()
    folder = hub.resolve(SOURCE, PATTERNS)
    with pytest.raises(UserError, match="lists this shard, but it is missing"):
        wan.open_wan(folder)
    for path in server.folder.rglob("*.safetensors"):
        path.unlink()
    assert "the repository has no *.safetensors to import" in refusal()

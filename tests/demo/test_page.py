"""The page through its API, as a script uses it."""

import concurrent.futures
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from genmask_jax.data import masks as rle

pytest.importorskip("gradio", reason="needs the extra demo")
import httpx
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

SCENE = str(pathlib.Path(__file__).parents[2] / "docs" / "scene.png")


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


def test_only_the_documented_calls_are_public(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/segment", "/generate"}


def test_segmenting_gives_images_numbers_and_files(client, handlers):
    result = client.predict(handle_file(SCENE), "the star; the circle", 0.4, api_name="/segment")
    _, table, masks, _, _, files = result
    found = handlers.segment(SCENE, "the star; the circle").at_threshold(0.4)
    assert [row[0] for row in table["data"]] == ["the star", "the circle"]
    for shown, mask in zip(masks, found.masks, strict=True):
        assert Image.open(shown["image"]).size == mask.shape[::-1]
    written = next(path for path in files if path.endswith("rle.json"))
    counts = json.loads(pathlib.Path(written).read_text())["the star"]["counts"]
    np.testing.assert_array_equal(rle.decode(counts, found.masks[0].shape), found.masks[0])


def test_generating_gives_an_image_and_its_steps(client):
    image, steps = client.predict("a red star", 1, 1.5, 5, api_name="/generate")
    assert Image.open(image).mode == "RGB"
    assert len(steps) == 5


def test_bad_input_is_said_and_cannot_be_code(client, tmp_path):
    (tmp_path / "no.png").write_text("<svg onload=alert(1)>")
    for image, text, why in (
        (SCENE, "", "Say what to find"),
        (SCENE, "a" * 300, "300 characters"),
        (str(tmp_path / "no.png"), "a", "it is SVG"),
    ):
        with pytest.raises(AppError, match=why):
            client.predict(handle_file(image), text, 0.4, api_name="/segment")
    with pytest.raises(AppError):
        client.predict("a", 0, 1.0, 7, api_name="/generate")


def test_files_of_the_machine_cannot_be_asked_for(address, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    asked = {"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}
    call = f"{address}/gradio_api/call/segment"
    event = httpx.post(call, json={"data": [asked, "a", 0.4]}).json()["event_id"]
    assert "event: error" in httpx.get(f"{call}/{event}", timeout=60).text


def test_many_at_once_are_all_answered(address):
    def ask(i: int) -> str:
        result = Client(address, verbose=False).predict(
            handle_file(SCENE), f"object {i}", 0.4, api_name="/segment"
        )
        return result[1]["data"][0][0]

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == [f"object {i}" for i in range(20)]

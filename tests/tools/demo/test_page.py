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

SCENE = str(pathlib.Path(__file__).parents[3] / "docs" / "scene.png")


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


def test_only_the_documented_calls_are_public(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/segment", "/generate"}


def test_segmenting_gives_numbers_and_files(client, handlers):
    numbers, files = client.predict(handle_file(SCENE), "the star; the circle", 0.4, api_name="/segment")
    result = handlers.segment(SCENE, "the star; the circle").at_threshold(0.4)
    assert numbers == json.loads(json.dumps(result.to_dict()))
    paths = {pathlib.Path(path).name: pathlib.Path(path) for path in files}
    for i, mask in enumerate(result.masks, 1):
        np.testing.assert_array_equal(np.asarray(Image.open(paths[f"mask_{i}.png"])) > 0, mask)
    counts = json.loads(paths["rle.json"].read_text())["the star"]["counts"]
    np.testing.assert_array_equal(rle.decode(counts, result.masks[0].shape), result.masks[0])


def test_generating_gives_the_seed_and_the_file_of_each_image(client, handlers):
    seeds, images = client.predict("a red star", 1, 3, 1.5, 5, api_name="/generate")
    assert seeds == [1, 2, 3]
    for seed, image in zip(seeds, images, strict=True):
        frames = handlers.generate("a red star", seed, 1, 1.5, 5)[seed]
        np.testing.assert_array_equal(np.asarray(Image.open(image)), np.asarray(Image.open(frames[-1])))


def test_bad_input_gives_an_error(client, tmp_path):
    (tmp_path / "no.png").write_text("<svg onload=alert(1)>")
    for image, text, message in (
        (SCENE, "", "Type what to find"),
        (SCENE, "a" * 300, "300 characters"),
        (str(tmp_path / "no.png"), "a", "it is SVG"),
    ):
        with pytest.raises(AppError, match=message):
            client.predict(handle_file(image), text, 0.4, api_name="/segment")
    with pytest.raises(AppError):
        client.predict("a", 0, 4, 1.0, 7, api_name="/generate")


def test_other_files_of_the_machine_cannot_be_read(address, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    file = {"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}
    call = f"{address}/gradio_api/call/segment"
    event = httpx.post(call, json={"data": [file, "a", 0.4]}).json()["event_id"]
    assert "event: error" in httpx.get(f"{call}/{event}", timeout=60).text


def test_concurrent_requests_are_all_answered(address):
    def ask(i: int) -> str:
        result = Client(address, verbose=False).predict(
            handle_file(SCENE), f"object {i}", 0.4, api_name="/segment"
        )
        return result[0]["phrases"][0]["phrase"]

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == [f"object {i}" for i in range(20)]

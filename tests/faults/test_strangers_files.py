"""Files from strangers, attack by attack: they run nothing, read nothing elsewhere, and fill no memory."""

import ast
import contextlib
import json
import os
import pathlib
import pickle
import resource
import shutil
import struct
import sys
import threading
import time

import numpy as np
import pytest
import safetensors.numpy
from etils import epath

from genmask_jax.checkpoints.packed import PackedReader, read_step
from genmask_jax.checkpoints.runs import read_config, read_vae_config, restore_ema
from genmask_jax.config import TrainConfig
from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.prepare import prepare
from genmask_jax.data.raw_formats import beside, coco_tree, folder, metadata
from genmask_jax.data.raw_formats.class_list import read_class_list
from genmask_jax.data.raw_formats.pickles import load_plain
from genmask_jax.data.stamps import scene
from genmask_jax.inference.load import load
from genmask_jax.parameters.files import find_tensors
from genmask_jax.pretrained import directory_of
from genmask_jax.public_weights import qwen, wan
from genmask_jax.utils.digests import DIGESTS, check_digests, write_digests
from genmask_jax.utils.errors import UserError
from tests.faults import corpus
from tests.faults.raw_targets import layouts
from tests.raw_trees import folder_tree

PACKAGE = pathlib.Path(__file__).parents[2] / "genmask_jax"
IMAGE = corpus.images()["RGB.png"]
OUTSIDE = ("../secret.png", "/etc/hostname.png", "/dev/zero", "images/../../secret.png", "..\\..\\secret.png")


@contextlib.contextmanager
def seconds(limit: float):
    """Fails if a block takes longer; a reader of a pipe is woken up."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < limit


def peak() -> int:
    """Largest size of this process, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write(root: pathlib.Path, files: dict[str, bytes]) -> epath.Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return epath.Path(root)


# Code


class Exploit:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


IMPORTED: list[str] = []
_listening = threading.Event()


@sys.addaudithook
def _listen(event: str, arguments: tuple) -> None:
    if _listening.is_set() and event in ("pickle.find_class", "os.system", "subprocess.Popen", "exec"):
        IMPORTED.append(f"{event} {arguments}"[:200])


@pytest.fixture
def events():
    """What was unpickled or started, while a test runs."""
    IMPORTED.clear()
    _listening.set()
    yield IMPORTED
    _listening.clear()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("call", [(os.system, "touch ran"), (eval, "open('ran', 'w')"), (shutil.rmtree, ".")])
def test_refcocos_refs_run_nothing(call, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files, names, read = layouts()["refcoco"]
    write(tmp_path, {**files, names[0]: pickle.dumps([*corpus.refs(), Exploit(*call)], protocol)})
    with pytest.raises(UserError, match="not a pickle of plain data"):
        read(epath.Path(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch ran'\ntR.",
        b"(S'touch ran'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x09touch ran\x85R.",
        b"c__builtin__\neval\n(Vopen('ran', 'w')\ntR.",
        b"\x80\x02\x82\x01.",  # an extension of copyreg
        b"Ppersistent\n.",
    ],
)
def test_hand_written_exploits_run_nothing(content, tmp_path, monkeypatch, events):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(UserError, match="not a pickle of plain data"):
        load_plain(tmp_path / "refs.p")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [b"\x80\x02]r\xff\xff\xff\x7f.", b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", b"(" * 10**6],
)
def test_pickles_take_no_more_memory_than_they_have(content, tmp_path):
    """In C, the first one would take 32 GiB for a memo."""
    (tmp_path / "refs.p").write_bytes(content)
    before = peak()
    with contextlib.suppress(UserError):
        load_plain(tmp_path / "refs.p")
    assert peak() - before < 500e6


def test_arrays_of_objects_are_not_loaded(tmp_path, events):
    path = tmp_path / "masks" / "a.npy"
    path.parent.mkdir()
    np.save(path, np.array([Exploit(os.system, "true")]), allow_pickle=True)
    files, _, read = layouts()["class_maps"]
    write(tmp_path, {name: content for name, content in files.items() if name != "labels/a.png"})
    path.rename(tmp_path / "labels" / "a.npy")
    plan = read(epath.Path(tmp_path))
    assert any("object, not numbers" in problem for problem in plan.problems.left_out)
    assert not [event for event in events if "system" in event]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickled_weights_are_refused(name, tmp_path, events):
    (tmp_path / name).write_bytes(pickle.dumps(Exploit(os.system, "true")))
    (tmp_path / "config.json").write_text("{}")
    for open_source in (qwen.open_qwen, wan.open_wan):
        with pytest.raises(UserError):
            open_source(epath.Path(tmp_path))
    assert events == []


def test_no_module_unpickles_or_evaluates():
    """Only `pickles.py` unpickles, and it is restricted; arrays and YAML hold plain data."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in ("np.load", "numpy.load"):
                assert "allow_pickle=False" in ast.unparse(node), path
            if called.startswith("yaml."):
                assert "yaml.BaseLoader" in ast.unparse(node), path
            assert called not in ("eval", "exec", "os.system", "torch.load", "marshal.loads"), path
            if called.startswith("pickle."):
                assert path.name == "pickles.py", path
            if any(word.arg == "shell" for word in node.keywords):
                raise AssertionError(f"{path}: a shell")


def test_runs_packed_models_and_datasets_unpickle_nothing(micro_run, tmp_path, events):
    """Orbax, safetensors, tokenizers and ArrayRecord hold plain data."""
    networks, _, step = load(micro_run[0])
    restore_ema(micro_run[0], step, networks.abstract_params())
    load("refershapes_small")
    folder_tree(tmp_path / "raw", 3)
    prepare("image_folder", epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out"), num_workers=1)
    directory = records.find(tmp_path / "out", "image_folder")
    items = records.Items(directory, "train", "expressions")
    items[0]
    assert [event for event in events if event.startswith("pickle")] == []


@pytest.mark.parametrize(
    "module", ["antigravity.Feature", "evil_module.Feature", "os.path", "tests.typechecker.x"]
)
def test_a_dataset_imports_nothing(module, tmp_path):
    """TFDS imports the module of each class in features.json."""
    folder_tree(tmp_path / "raw", 3)
    prepare("image_folder", epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out"), num_workers=1)
    directory = pathlib.Path(records.find(tmp_path / "out", "image_folder"))
    features = json.loads((directory / "features.json").read_text())
    features["featuresDict"]["features"]["image"]["pythonClassName"] = module
    (directory / "features.json").write_text(json.dumps(features))
    (directory / DIGESTS).unlink()
    records.write_json_digests(directory)  # a stranger writes fitting ones
    with pytest.raises(UserError, match=r"features\.json names"):
        records.open_dataset(directory)
    assert module.rpartition(".")[0] not in sys.modules or module.startswith(("os", "tests"))


def test_chat_templates_run_in_a_sandbox(tmp_path):
    pytest.importorskip("transformers")
    from genmask_jax.instruction.qwen.config import QwenInstructionConfig, QwenVisionConfig
    from genmask_jax.instruction.qwen.files import learn_tokenizer
    from genmask_jax.instruction.qwen.prompts import CHAT_TEMPLATE, PromptMaker

    tokenizer = learn_tokenizer(["the red star"], 300)
    attacks = [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
        "{{ self.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ undefined.attribute }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ]
    for attack in attacks:
        maker = PromptMaker(tokenizer, attack + CHAT_TEMPLATE, QwenVisionConfig(), QwenInstructionConfig())
        with pytest.raises(UserError, match="the chat template fails"):
            maker.render(["{text}"], 1)
    assert not pathlib.Path("ran").exists()


# Other files


@pytest.mark.parametrize("name", OUTSIDE)
def test_metadata_names_no_file_outside_its_folder(name, tmp_path):
    raw = write(tmp_path / "raw", {"a.png": IMAGE, "masks/a.png": IMAGE})
    write(tmp_path, {"secret.png": IMAGE})
    rows = [{"file_name": "a.png", "text": "fine"}, {"file_name": name, "text": "secret"}]
    rows.append({"file_name": "a.png", "mask_file_name": f"{name.removesuffix('.png')}.png", "label": "x"})
    (raw / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with contextlib.suppress(UserError):
        plan = metadata.read(raw)
        used = [image.path for images in plan.splits.values() for image in images]
        assert used == [str(raw / "a.png")]
        assert len(plan.problems.left_out) >= 1


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("layout", ["coco", "coco_tree", "refcoco"])
def test_coco_names_no_file_outside_its_folder(layout, name, tmp_path):
    write(tmp_path, {"secret.png": IMAGE})
    files, damaged, read = layouts()[layout]
    raw = write(tmp_path / "raw", files)
    content = corpus.coco()
    content["images"][0]["file_name"] = name
    (raw / damaged[-1]).write_text(json.dumps(content))
    plan = read(raw)
    used = [pathlib.Path(image.path) for images in plan.splits.values() for image in images]
    assert all(path.resolve().is_relative_to(tmp_path / "raw") for path in used)
    assert any("missing" in problem for problem in plan.problems.left_out)


def test_splits_of_refs_are_no_paths(tmp_path):
    """A split becomes part of the name of a file that is written."""
    files, names, read = layouts()["refcoco"]
    refs = corpus.refs()
    refs[0]["split"] = "../../evil"
    raw = write(tmp_path, {**files, names[0]: pickle.dumps(refs)})
    plan = read(raw)
    assert set(plan.splits) == {"train", "val"}
    assert any("evil" in problem for problem in plan.problems.left_out)


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "/dev/zero", "a/b.safetensors", "x\0.safetensors", "", ".."]
)
def test_an_index_names_only_files_next_to_it(name, tmp_path):
    folder_of = tmp_path / "model"
    folder_of.mkdir()
    safetensors.numpy.save_file({"a": np.ones(2)}, tmp_path / "other.safetensors")
    index = {"weight_map": {"a": name}}
    (folder_of / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"not the name of a file|missing"):
        find_tensors(epath.Path(folder_of))


def test_digests_name_only_files_below_them(tmp_path):
    write(tmp_path, {"secret": b"x", "model/config.json": b"{}"})
    write_digests(tmp_path / "model")
    for name in ("../secret", "/etc/hostname", "/dev/zero"):
        (tmp_path / "model" / DIGESTS).write_text(json.dumps({name: "0"}))
        with seconds(5), pytest.raises(UserError, match="is in another folder"):
            check_digests(tmp_path / "model")


def test_a_dataset_names_no_files_elsewhere(tmp_path):
    folder_tree(tmp_path / "raw", 3)
    prepare("image_folder", epath.Path(tmp_path / "raw"), epath.Path(tmp_path / "out"), num_workers=1)
    directory = pathlib.Path(records.find(tmp_path / "out", "image_folder"))
    whole = json.loads((directory / "dataset_info.json").read_text())
    for changes in ({"filepathTemplate": "/dev/{SPLIT}"}, {"name": "../../x"}):
        info = json.loads(json.dumps(whole))
        info["splits"][0] |= changes
        (directory / "dataset_info.json").write_text(json.dumps(info))
        (directory / DIGESTS).unlink()
        records.write_json_digests(directory)
        with pytest.raises(UserError, match="files elsewhere"):
            records.open_dataset(directory)


def test_stamps_name_no_files_elsewhere(tmp_path):
    stamp = {"name": "a", "colour": "red", "colour_shares": {}, "seen": True, "file": "../secret.png"}
    write(
        tmp_path,
        {
            "secret.png": IMAGE,
            "stamps/index.json": json.dumps({"objects": [stamp], "backgrounds": []}).encode(),
        },
    )
    with pytest.raises(UserError, match="has no Stamps dataset"):
        scene.load(str(tmp_path / "stamps"))


SPECIAL = ["a.png", "a.txt", "a.json", "annotations.json", "metadata.jsonl", "classes.txt", "phrases.txt"]


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", SPECIAL)
def test_pipes_and_devices_in_raw_data_are_not_opened(name, kind, tmp_path):
    """Reading them would never end."""
    raw = write(tmp_path, {"a.png": IMAGE, "b.png": IMAGE, "b.txt": b"two", "masks/a.png": IMAGE})
    (raw / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(raw / name)
    else:
        os.symlink("/dev/zero", raw / name)
    with seconds(20):
        for read in (folder.read, beside.read, metadata.read, coco_tree.read, read_class_list):
            with contextlib.suppress(UserError):
                read(raw)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "vae/config.json", "instruction/tokenizer.json", DIGESTS]
)
def test_pipes_in_a_packed_model_are_not_opened(name, tmp_path):
    model = shutil.copytree(directory_of("refershapes_small"), tmp_path / "model")
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    with seconds(30), pytest.raises(UserError, match="pipe or a device"):
        load(model)


def test_links_that_lead_in_circles_are_followed_once(tmp_path):
    raw = write(tmp_path, {"images/a.png": IMAGE, "images/b.png": IMAGE})
    for name in ("here", "images/up", "images/again"):
        os.symlink(tmp_path, raw / name)
    with seconds(10), contextlib.suppress(UserError):
        folder.read(raw)


def test_a_users_linked_folder_is_read(tmp_path):
    """Links in raw data may lead anywhere: many users link their images."""
    write(tmp_path, {"elsewhere/a.png": IMAGE, "raw/a.txt": b"one"})
    (tmp_path / "raw" / "a.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    plan = beside.read(epath.Path(tmp_path / "raw"))
    assert [image.captions for image in plan.splits["train"]] == [("one",)]


# Sizes


def test_absurd_headers_of_safetensors_take_no_memory(tmp_path):
    path = tmp_path / "model.safetensors"
    shape = b'{"a":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,4]}}'
    wrapped = b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'
    before = peak()
    for content in (
        (2**60).to_bytes(8, "little") + b"{}",
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        len(shape).to_bytes(8, "little") + shape + bytes(4),
        len(wrapped).to_bytes(8, "little") + wrapped,
    ):
        path.write_bytes(content)
        for read in (PackedReader, read_step, lambda folder: find_tensors(epath.Path(folder))):
            with pytest.raises(UserError, match=r"model\.safetensors"):
                read(tmp_path)
    assert peak() - before < 100e6


@pytest.mark.parametrize("size", [(10**9, 10**9), (10**5, 10**5), (2**31, 1), (1, 2**40)])
def test_absurd_sizes_of_coco_take_no_memory(size, tmp_path):
    content = corpus.coco()
    content["images"][0] |= {"height": size[0], "width": size[1]}
    content["annotations"][1]["segmentation"] = {"size": list(size), "counts": [size[0] * size[1]]}
    raw = write(tmp_path, {"a.png": IMAGE, "b.png": IMAGE, "annotations.json": json.dumps(content).encode()})
    before = peak()
    plan = beside.read(raw)
    assert any("more than 200 megapixels" in problem for problem in plan.problems.left_out)
    assert peak() - before < 300e6


ABSURD = {
    "config.json": [
        ("model.depth", 10**9),
        ("model.hidden_size", 2**40),
        ("instruction.tiny.vocab_size", 10**12),
        ("instruction.tiny.max_tokens", 10**9),
        ("data.size", 10**7),
    ],
    "vae/config.json": [("multipliers", [1] * 60), ("num_res_blocks", 10**9), ("base_dim", 10**9)],
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_counts_in_configs_of_models_are_refused(name, tmp_path):
    model = shutil.copytree(directory_of("refershapes_small"), tmp_path / "model")
    whole = json.loads((model / name).read_text())
    for field, value in ABSURD[name]:
        values = json.loads(json.dumps(whole))
        *groups, last = field.split(".")
        group = values
        for part in groups:
            group = group[part]
        group[last] = value
        (model / name).write_text(json.dumps(values))
        with seconds(10), pytest.raises(UserError, match=last):
            read_config(TrainConfig, model) if name == "config.json" else read_vae_config(model)


def test_yaml_that_multiplies_itself_is_named_in_a_short_line(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    raw = write(tmp_path, {"data.yaml": "\n".join([*lines, "names: [*a11]"]).encode()})
    with seconds(10), pytest.raises(UserError, match="not the name of a class") as caught:
        read_class_list(raw)
    assert len(str(caught.value)) < 500


# Texts


HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


def test_a_report_escapes_what_comes_from_data(micro_run, tmp_path):
    from genmask_jax.tools.report import report_on

    run = pathlib.Path(shutil.copytree(micro_run[0], tmp_path / "run"))
    values = json.loads((run / "config.json").read_text())
    values |= {"name": HOSTILE, "history": [{"step": 1, "changes": {HOSTILE: [HOSTILE, 1]}}]}
    (run / "config.json").write_text(json.dumps(values))
    rows = (run / "metrics.jsonl").read_text().splitlines()
    row = json.loads(rows[-1]) | {HOSTILE: 0.5}
    (run / "metrics.jsonl").write_text("\n".join([*rows[:-1], json.dumps(row), ""]))
    report_on(epath.Path(run))
    html = next(run.glob("*.html")).read_text()
    assert "<script>alert(1)" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;" in html


def test_figures_and_views_escape_texts():
    from genmask_jax.tools.demo import views
    from genmask_jax.utils.curves import plot

    for html in (
        plot({HOSTILE: [(0.0, 1.0), (1.0, 2.0)]}),
        views.message(HOSTILE, problem=True),
        views.examples([("a.png", HOSTILE)]),
        views.candidates({0: ["a.png"]}, HOSTILE, 1),
        views.noise({HOSTILE: "a.png"}, HOSTILE, 0.5),
    ):
        assert "<script>" not in html
        assert "<img src=x" not in html


def test_messages_do_not_control_the_terminal(tmp_path):
    raw = write(tmp_path, {"a.png": IMAGE, "b.png": IMAGE})
    content = corpus.coco()
    content["annotations"][0]["category_id"] = "\x1b[2J\x1b[31mred\u202e\nsecond line"
    (raw / "annotations.json").write_text(json.dumps(content))
    problems = beside.read(raw).problems.left_out
    assert problems
    assert all(problem.isprintable() for problem in problems)
    assert str(UserError("a\x1b[2J\nb")) == "a\\x1b[2J b"

"""Reports of runs: their content, that they need no other files, and that texts of runs are escaped."""

import html.parser
import json
import re
import shutil

import pytest

from genmask_jax.tools.report import report_on, write_report
from genmask_jax.tools.report.run import read_run
from genmask_jax.utils.curves import plot
from genmask_jax.utils.errors import UserError

HOSTILE = "<script>alert(1)</script>\"'&"


class PageParser(html.parser.HTMLParser):
    """Collects texts, tags and links."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.links, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href") and value]

    def handle_data(self, data):
        self.texts.append(data.strip())


@pytest.fixture
def run(micro_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(micro_run[0], copy)
    return copy


def test_a_report_shows_curves_sheets_config_and_machine(run):
    (run / "evaluation_test").mkdir()
    groups = {"colour": {"count": 3, "mIoU": 0.25, "oIoU": 0.5, "P@0.5": 0.125, "every_object_mIoU": 0.1}}
    maps = {"mIoU": 0.375, "pixel_accuracy": 0.875}
    metrics = {"split": "test", "count": 3, "mIoU": 0.625, "groups": groups, "label_maps": maps}
    (run / "evaluation_test" / "metrics.json").write_text(json.dumps(metrics))
    (run / "evaluation_benchmarks").mkdir()
    records = {"refcoco:unc:testA": {"metrics": {"oIoU": 0.4375, "count": 9}, "how": {}}}
    (run / "evaluation_benchmarks" / "metrics.json").write_text(json.dumps(records))
    path = write_report([run], run / "report.html")
    page = PageParser(path.read_text())
    config, sessions = read_run(run).config, read_run(run).sessions
    for expected in (
        "loss_segment",
        "0.625",
        "0.125",
        "0.375",
        "0.875",
        "hidden_size",
        "dit.blocks.{attn1,attn2}.{to_k,to_out,to_q,to_v}.kernel",  # of the plan of its parameters
        config.name,
    ):
        assert any(expected in text for text in page.texts), expected
    assert len(sessions) >= 1
    assert sessions[0]["step"] == 0
    assert any(sessions[0]["versions"]["jax"] in text for text in page.texts)
    over_steps = [metric for metric in read_run(run).curves if "/" not in metric]
    assert page.tags.count("svg") == len(over_steps) + 2  # losses of both tasks over noise levels
    kinds = {path.name.rsplit("_", 1)[0] for path in (run / "samples").glob("*.png")}
    assert page.tags.count("img") == len(kinds)
    assert all(link.startswith("data:") for link in page.links)  # needs no network
    assert len(path.read_text()) < 3e6


def test_the_command_to_repeat_a_run_has_another_directory(run):
    sessions = [
        {"step": 0, "command": "python launch/train.py --config=a.py --workdir='my run' --config.seed=1"}
    ]
    (run / "sessions.jsonl").write_text("\n".join(map(json.dumps, sessions)))
    texts = PageParser(write_report([run], run / "report.html").read_text()).texts
    assert "python launch/train.py --config=a.py --workdir=runs/again --config.seed=1" in texts


def test_texts_of_runs_are_escaped(run):
    config = json.loads((run / "config.json").read_text())
    config["name"] = config["data"]["path"] = HOSTILE
    (run / "config.json").write_text(json.dumps(config))
    (run / "evaluation_x").mkdir()
    metrics = {"mIoU": HOSTILE, "groups": {HOSTILE: {"count": HOSTILE}}}
    (run / "evaluation_x" / "metrics.json").write_text(json.dumps(metrics))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 9, HOSTILE: 1.0}) + "\n")
    with (run / "sessions.jsonl").open("a") as file:
        file.write(json.dumps({"command": HOSTILE, "versions": {HOSTILE: HOSTILE}}) + "\n")
    text = write_report([run], run / "report.html").read_text()
    page = PageParser(text)
    assert "script" not in page.tags
    assert any(HOSTILE in text for text in page.texts)
    assert "default-src 'none'" in text


def test_several_runs_are_compared(run, micro_run, tmp_path):
    path = write_report([run, micro_run[0]], tmp_path / "both.html")
    text = path.read_text()
    assert "line1" in re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    assert str(run) in text
    assert str(micro_run[0]) in text


def test_a_running_or_killed_run_can_be_reported(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')
    (run / "sessions.jsonl").write_text('{"step": 3, "command": "resumed"}\n')
    assert (
        "--config.data.size" in write_report([run], run / "report.html").read_text()
    )  # the command to repeat it
    (run / "sessions.jsonl").unlink()
    assert "trained by an older version" in write_report([run], run / "report.html").read_text()


def test_a_missing_run_is_an_error_and_only_a_warning_after_training(tmp_path, caplog):
    with pytest.raises(UserError, match=r"config\.json"):
        write_report([tmp_path], tmp_path / "report.html")
    report_on(tmp_path)
    assert "no report was written" in caplog.text


def test_curves_have_round_ticks_and_omit_values_that_are_not_finite():
    svg = plot({"a": [(0, 1.0), (500, float("nan")), (1000, 0.01)], "<b>": [(0, 0.5)]}, logarithmic=True)
    assert ">0.1</text>" in svg
    assert "nan" not in svg
    assert "&lt;b&gt;" in svg
    assert plot({"a": []}) == ""
    assert plot({"a": [(5, 2.0)]}).count("<circle") == 1

"""Pickles from outside: plain data of any protocol, and nothing else."""

import pickle

import pytest

from genmask_jax.data.raw_formats.pickles import load_plain
from genmask_jax.utils.errors import UserError

PLAIN = [{"ref_id": 1, "sentences": [{"sent": "the café", "x": 1.5, "y": None, "z": (True, [2**70])}]}]
# Older protocols write these as calls.
NEWER = [*PLAIN, b"bytes", {2, 3}]


class Malicious:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol_is_read(tmp_path, protocol):
    content = PLAIN if protocol < 4 else NEWER
    assert load_plain(write(tmp_path / "p", pickle.dumps(content, protocol))) == content


def test_strings_of_python_2_are_read(tmp_path):
    plain = b"(lp0\n(dp1\nS'sent'\np2\nS'the caf\\xc3\\xa9'\np3\nsVraw\np4\nVcaf\\u00e9\np5\nsa."
    assert load_plain(write(tmp_path / "p", plain)) == [{"sent": "the café", "raw": "café"}]
    odd = plain.replace(b"\\xc3\\xa9", b"\\xe9")
    assert load_plain(write(tmp_path / "p", odd)) == [{"sent": "the café", "raw": "café"}]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, protocol):
    witness = tmp_path / "ran"
    for call in ((exec, f"open({str(witness)!r}, 'w')"), (open, str(witness), "w"), (type(witness), "x")):
        content = pickle.dumps([{"ref_id": 1}, Malicious(*call)], protocol)
        with pytest.raises(UserError, match=r"not a pickle of plain data.*needs"):
            load_plain(write(tmp_path / "p", content))
    assert not witness.exists()


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", pickle.dumps(PLAIN)[:-5], b"\x80\x04\x8c\xff.", b"c"]
)
def test_damaged_files_get_one_line(tmp_path, content):
    with pytest.raises(UserError, match=r"p is not a pickle of plain data") as caught:
        load_plain(write(tmp_path / "p", content))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"refs\(unc\)\.p cannot be read: No such file"):
        load_plain(tmp_path / "refs(unc).p")

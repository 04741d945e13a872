"""Damages valid inputs: bytes, text and the structure of JSON. Random bytes fail at the first check."""

import copy
import json
import pickle
import random
import zlib
from typing import Any

NUMBERS = (
    *(0, -1, 1, 2, 7, 255, 256, 65536, 2**31 - 1, 2**31, 2**63, -(2**63), 10**9, 10**30, 10**400),
    *(0.5, -0.5, 1e-320, 1e9, -1e9, 1e308, float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\n",
        "a\nb",
        "../../etc/passwd",
        "/dev/zero",
        "/etc/passwd.png",
        "~",
        "a" * 300,
        "²",
        "１",
    ),
    *(
        "<script>alert(1)</script>",
        "\ud800",
        "\u202e",
        "{}",
        "{0.__class__}",
        "%s",
        "[",
        "-1",
        "1e999",
        "NaN",
    ),
    *("9" * 5000, "a.png", "a.jpg", "ignore", "background", "a,b\tc", '"', "#", "&a [*a]", "\x1b[31m", "é"),
)
VALUES = (None, True, False, [], {}, [[]], [None], {"a": 1}, [1, 2], [[1, 2], [3]], *NUMBERS, *TEXTS)
DEPTHS = (50, 900, 3000, 100_000)
NESTED = "@nested:"
"""Text that `dump_json` replaces by nested lists, which `json.dumps` cannot write."""
PNG = b"\x89PNG\r\n\x1a\n"
WORDS = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x00\x00\x00\x01",
    b"\0\0\xff\xff",
)


def mutate_bytes(rng: random.Random, content: bytes, other: bytes = b"") -> bytes:
    """A few flips, cuts, insertions and repetitions; sometimes a part of `other`."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            word = rng.choice(WORDS)
            data[at : at + len(word)] = word
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.choice((1, 2, 4, 30))]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 30)))
        elif kind == 5:
            data[at:at] = data[at : at + rng.choice((1, 4, 40))] * rng.choice((1, 2, 50))
        elif other:
            data[at:] = other[rng.randrange(len(other)) :]
    return _with_checksums(bytes(data)) if rng.random() < 0.5 else bytes(data)


def _with_checksums(content: bytes) -> bytes:
    """A PNG with the right checksums, so that its decoder reads on."""
    if not content.startswith(PNG):
        return content
    data, at = bytearray(content), len(PNG)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


def mutate_text(rng: random.Random, text: str) -> bytes:
    """Lines, words and characters are replaced, moved, repeated or removed."""
    if rng.random() < 0.2:
        return mutate_bytes(rng, text.encode())
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(6)
        if kind == 0:
            lines[at] = str(rng.choice(VALUES))
        elif kind == 1:
            words = lines[at].split(" ")
            words[rng.randrange(len(words))] = str(rng.choice(VALUES))
            lines[at] = rng.choice((" ", " ", ",", "\t", ":")).join(words)
        elif kind == 2:
            lines.insert(at, lines[rng.randrange(len(lines))])
        elif kind == 3 and len(lines[at]) < 10_000:
            lines[at] *= rng.choice((2, 40))
        elif kind == 4 and len(lines) > 1:
            del lines[at]
        else:
            place = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:place] + rng.choice(TEXTS) + lines[at][place:]
    encoding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"))
    return "\n".join(lines).encode(encoding, "surrogatepass" if encoding != "latin-1" else "replace")


def mutate_value(rng: random.Random, value: Any) -> Any:
    """A copy of a JSON value with one to three places changed: replaced, removed, repeated or wrapped."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _change(rng, value)
    return value


def _change(rng: random.Random, value: Any) -> Any:
    inside = isinstance(value, dict | list) and len(value)
    if not inside or rng.random() < 0.12:
        return _instead_of(rng, value)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    kind = rng.random()
    if kind < 0.08:
        del value[key]
    elif kind < 0.14 and isinstance(value, list):
        value.extend(copy.deepcopy(value[key]) for _ in range(rng.choice((1, 1, 30))))
    elif kind < 0.14:
        value[rng.choice(TEXTS)] = copy.deepcopy(value[key])
    else:
        value[key] = _change(rng, value[key])
    return value


def _instead_of(rng: random.Random, value: Any) -> Any:
    kind = rng.random()
    if kind < 0.1:
        return [value]
    if kind < 0.2 and isinstance(value, int | float) and abs(value) < 1e300:
        return value * rng.choice((-1, 10, 1000, 0.001, 10**6))
    if kind < 0.25:
        return str(value)
    if kind < 0.28:
        return f"{NESTED}{rng.choice(DEPTHS)}"
    return copy.deepcopy(rng.choice(VALUES))


def dump_json(rng: random.Random, value: Any) -> bytes:
    """The value as JSON, sometimes with damaged bytes."""
    text = json.dumps(value)
    for depth in DEPTHS:
        text = text.replace(f'"{NESTED}{depth}"', "[" * depth + "]" * depth)
    content = text.encode()
    return mutate_bytes(rng, content) if rng.random() < 0.1 else content


def mutate_json(rng: random.Random, value: Any) -> bytes:
    """A changed JSON value, as a file."""
    return dump_json(rng, mutate_value(rng, value))


def mutate_file(rng: random.Random, name: str, content: bytes, other: bytes = b"") -> bytes:
    """A damaged file, by the suffix of its name."""
    if name.endswith(".json"):
        return mutate_json(rng, json.loads(content))
    if name.endswith((".txt", ".csv", ".yaml", ".jsonl")):
        return mutate_text(rng, content.decode())
    if name.endswith(".p"):
        value = mutate_value(rng, pickle.loads(content))
        return pickle.dumps(value, rng.randrange(5)) if rng.random() < 0.7 else mutate_bytes(rng, content)
    return mutate_bytes(rng, content, other)

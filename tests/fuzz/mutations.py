"""Ways to damage a file: bytes whatever they mean, and values in JSON, TOML and tables that stay well formed."""

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

ODD: Sequence[Any] = (
    None, True, False, 0, -1, 1, 3.7, -0.0, 1e308, 10**30, 2**63, "", " ", "nan", "x", "-", "a\rb", "\x1b[31m", "=1+1",
    "é", "a" * 500, [], [1], ["a"], [[]], {}, {"a": 1}, [None], float("nan"), float("inf"),
)  # fmt: skip
"""What stands where something else was expected."""
WORDS = (
    b"", b"\0", b"\n", b"\r\n", b"\"", b"'", b",", b"]", b"[" * 3000, b"{", b"9" * 5000, b"nan", b"-1", b"1e999",
    b"\xff\xfe", b"\xef\xbb\xbf", b"null", b"true", b"../..", b"PK\3\4", b"\x80\x04",
)  # fmt: skip
Mutate = Callable[[random.Random, bytes], bytes]


def flip(draw: random.Random, content: bytes) -> bytes:
    """One bit."""
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def cut(draw: random.Random, content: bytes) -> bytes:
    """The end is missing."""
    return content[: draw.randrange(len(content))]


def lose(draw: random.Random, content: bytes) -> bytes:
    """A piece is missing."""
    start = draw.randrange(len(content))
    return content[:start] + content[start + draw.randrange(1, 64) :]


def double(draw: random.Random, content: bytes) -> bytes:
    """A piece stands twice."""
    start = draw.randrange(len(content))
    stop = start + draw.randrange(1, 64)
    return content[:stop] + content[start:]


def insert(draw: random.Random, content: bytes) -> bytes:
    """Something of a kind that parsers stumble over."""
    start = draw.randrange(len(content) + 1)
    return content[:start] + draw.choice(WORDS) + content[start:]


def overwrite(draw: random.Random, content: bytes) -> bytes:
    """Bytes from elsewhere."""
    start = draw.randrange(len(content))
    noise = draw.randbytes(draw.randrange(1, 32))
    return content[:start] + noise + content[start + len(noise) :]


def number(draw: random.Random, content: bytes) -> bytes:
    """A number is another."""
    found = list(re.finditer(rb"\d+(\.\d+)?", content))
    if not found:
        return flip(draw, content)
    one = draw.choice(found)
    other = draw.choice([b"0", b"-1", b"1", b"7", b"0.5", b"1e400", b"9" * 40, b"nan", b"inf", b'"3"', b"true", b"[]"])
    return content[: one.start()] + other + content[one.end() :]


def lines(draw: random.Random, content: bytes) -> bytes:
    """A line is missing, stands twice, or changes places with another."""
    rows = content.splitlines(keepends=True)
    one, other = draw.randrange(len(rows)), draw.randrange(len(rows))
    return b"".join(
        draw.choice([
            [*rows[:one], *rows[one + 1 :]],
            [*rows[: one + 1], *rows[one:]],
            [rows[other] if i == one else rows[one] if i == other else row for i, row in enumerate(rows)],
        ])
    )  # fmt: skip


def cells(draw: random.Random, content: bytes) -> bytes:
    """A cell of a table is another, is missing, or there is one more."""
    rows = [line.split(",") for line in content.decode().splitlines()]
    row = draw.choice(rows)
    place = draw.randrange(len(row))
    odd = draw.choice(
        ["", " ", "nan", "-1", '"', '""', "a\rb", "\x1b[31m", "=1", "Exclude", "1.0", "x" * 300, "./a", "\t"]
    )
    row[place : place + 1] = draw.choice([[odd], [odd, row[place]], [], [row[place], row[place]]])
    return "\n".join(map(",".join, rows)).encode()


def values(draw: random.Random, content: bytes) -> bytes:
    """A value in JSON, on one or several lines, is of another kind; a key is missing or there is one more."""
    rows = content.splitlines()
    whole = not content.startswith(b"{") or (b"\n" in content.rstrip() and not rows[0].endswith(b"}"))
    place = 0 if whole else draw.randrange(len(rows))
    tree = json.loads(content if whole else rows[place])
    changed = json.dumps(_changed(draw, tree)).encode()
    return changed if whole else b"\n".join([*rows[:place], changed, *rows[place + 1 :]]) + b"\n"


def toml(draw: random.Random, content: bytes) -> bytes:
    """The value of a key is another."""
    found = [line for line in content.splitlines() if b" = " in line and not line.startswith(b"#")]
    if not found:
        return insert(draw, content)
    line = draw.choice(found)
    odd = draw.choice([
        b"true", b"-1", b"0", b"3.5", b'""', b'"x"', b"[]", b"[1]", b'["a"]', b"{}", b"{a = 1}", b"nan", b"inf",
        b"1e400", b"9" * 30, b"2020-01-01", b"[[]]", b"[" * 2000,
    ])  # fmt: skip
    return content.replace(line, line.partition(b" = ")[0] + b" = " + odd, 1)


def _changed(draw: random.Random, tree: Any) -> Any:
    if isinstance(tree, dict) and tree and draw.random() < 0.9:
        key = draw.choice(list(tree))
        kind = draw.random()
        if kind < 0.1:
            return {name: value for name, value in tree.items() if name != key}
        if kind < 0.15:
            return {**tree, "another": draw.choice(ODD)}
        return {**tree, key: _changed(draw, tree[key])}
    if isinstance(tree, list) and tree and draw.random() < 0.6:
        place = draw.randrange(len(tree))
        return [*tree[:place], _changed(draw, tree[place]), *tree[place + 1 :]]
    return draw.choice(ODD)


BYTES: Sequence[Mutate] = (flip, flip, cut, lose, double, insert, overwrite)
TEXT: Sequence[Mutate] = (*BYTES, number, lines)
JSON: Sequence[Mutate] = (*TEXT, values, values, values, values)
TOML: Sequence[Mutate] = (*TEXT, toml, toml, toml)
TABLE: Sequence[Mutate] = (*TEXT, cells, cells, cells)

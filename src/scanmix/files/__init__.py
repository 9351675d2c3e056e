"""Files, whatever is in them: read with one clear sentence when that fails, written whole or not at all, locked.

Needs no PyTorch; `scanmix.files.tensors` does.
"""

from scanmix.files.atomic import append_text, aside_of, remove_leftovers, replacing, write_aside, write_text
from scanmix.files.lock import held
from scanmix.files.sealed import checked, parse_json, read_json, write_json
from scanmix.files.told import CannotWrite, check_regular, reading, writing

__all__ = [
    "CannotWrite", "append_text", "aside_of", "check_regular", "checked", "held", "parse_json", "read_json",
    "reading", "remove_leftovers", "replacing", "write_aside", "write_json", "write_text", "writing",
]  # fmt: skip

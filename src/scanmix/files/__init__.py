"""Reading and writing of files: clear errors, atomic writes, checksums, tables, arrays, locks.

Only `scanmix.files.tensors` needs PyTorch.
"""

from scanmix.files.atomic import append_text, aside_of, atomic_write, remove_leftovers, replacing, write_text
from scanmix.files.errors import CannotWrite, check_regular, in_words, reading, writing
from scanmix.files.lock import locked
from scanmix.files.sealed import checked, parse_json, read_json, write_json

__all__ = [
    "CannotWrite", "append_text", "aside_of", "check_regular", "checked", "in_words", "locked", "parse_json",
    "read_json", "reading", "remove_leftovers", "replacing", "atomic_write", "write_json", "write_text", "writing",
]  # fmt: skip

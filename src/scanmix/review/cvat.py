"""Labels to decide as annotations of CVAT, and its export back, in the format "CVAT for images 1.1".

<https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/>: tags hold for the whole image, and images are
found by their names. CVAT has no predictions: a suggestion written as the tag of its class would come back like an
answer, whether someone looked at it or not. So it is a tag of another name, with the class as an attribute.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from scanmix.audit import Audit
from scanmix.config import UserError
from scanmix.files import reading, write_text
from scanmix.review.answers import LEAVE_OUT, Answer

SUGGESTION = "scanmix: suggestion"
ATTRIBUTES = ("class", "given", "why")
"""Texts of the tag `SUGGESTION`."""
INSIDE = "annotations.xml"
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML file can hold."""


def write(path: Path, audit: Audit, rows: Sequence[int], names: Sequence[str]) -> None:
    """Write rows of an audit as images, in their order, each with its suggestion.

    Args:
        path: the file.
        audit: the audit.
        rows: R rows of it.
        names: for each of them, the name of the image in CVAT.

    Raises:
        UserError: a name cannot be written as XML.
        CannotWrite: as `write_text`.
    """
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "  <version>1.1</version>"]
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        if NOT_XML.search(name):
            raise UserError(f"XML cannot hold the name {name!r}; rename the image, or write .json for Label Studio")
        texts = (audit["suggested"][row], audit["given"][row], audit["reason"][row])
        lines += [f'  <image id="{number}" name={quoteattr(name)}>', f'    <tag label="{SUGGESTION}" source="file">']
        lines += [
            f'      <attribute name="{attribute}">{escape(NOT_XML.sub("?", text))}</attribute>'
            for attribute, text in zip(ATTRIBUTES, texts, strict=True)
        ]
        lines += ["    </tag>", "  </image>"]
    write_text(path, "\n".join([*lines, "</annotations>", ""]))


def write_labels(path: Path, class_names: Sequence[str]) -> None:
    """Write the labels of the task, as CVAT's raw constructor takes them.

    Raises:
        CannotWrite: as `write_text`.
    """
    texts = [
        {"name": name, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
        for name in ATTRIBUTES
    ]
    labels: list[dict[str, Any]] = [{"name": name, "type": "tag", "attributes": []} for name in class_names]
    labels += [
        {"name": LEAVE_OUT, "type": "tag", "attributes": []},
        {"name": SUGGESTION, "type": "tag", "attributes": texts},
    ]
    write_text(path, json.dumps(labels, indent=1) + "\n")


def read(path: Path) -> Iterator[Answer]:
    """Return the answers in an export: an XML file, or the ZIP that CVAT makes. An image without a tag has none.

    Raises:
        UserError: the file cannot be read or is no such export.
    """
    with reading(path, "in CVAT, export the task in the format `CVAT for images 1.1`"):
        root = ElementTree.fromstring(_content(path))
        if root.tag != "annotations":
            raise ValueError(f"its outermost element is {root.tag}, not annotations")
        images = [(image.attrib["name"], image.findall("tag")) for image in root.iter("image")]
        tags = [(name, tag.attrib["label"]) for name, found in images for tag in found]
    for name, label in tags:
        if label == LEAVE_OUT:
            yield Answer(f"{path}", name, "exclude")
        elif label != SUGGESTION:
            yield Answer(f"{path}", name, "relabel", label)


def _content(path: Path) -> bytes:
    """Return the XML of a file, or of the ZIP that it is."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(INSIDE)

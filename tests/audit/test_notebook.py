"""A run and an audit show themselves in a notebook."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scanmix
from scanmix.audit.notebook import ROWS
from scanmix.config import UserError
from scanmix.data.examples import Examples


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Photos of two classes, one of which has a name that is HTML; three labels are wrong."""
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label, name in enumerate(("cat", "<b>dog")):
        (folder / name).mkdir()
        for number in range(20):
            shade = 60 + 120 * (label if number > 2 or label else 1)
            pixels = (shade + draw.integers(-20, 20, (16, 16, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return scanmix.load(folder)[0]


def test_an_audit_shows_its_worst_labels_with_their_images(photos: Examples) -> None:
    audit = scanmix.audit_data(photos)
    assert repr(audit).startswith("<Audit: ") and "labels look wrong, noise rate" in repr(audit)
    assert len(repr(audit)) < 100
    page = audit._repr_html_()
    assert page.count("<tr>") == 1 + ROWS and page.count('src="data:image/png;base64,') == ROWS
    assert "&lt;b&gt;dog" in page and "<b>dog" not in page
    assert f"<b>{int(audit.looks_wrong.sum())} of 40 labels look wrong.</b>" in page
    first = re.search(r'title="([^"]+)"', page)
    assert first is not None and Path(first[1]).name == Path(str(audit["path"][0])).name


def test_images_from_memory_are_shown_where_they_are_at_hand(photos: Examples) -> None:
    memory = Examples(photos.images, photos.labels, photos.class_names, photos.ids)
    audit = scanmix.audit_data(memory)
    assert "<img" not in audit._repr_html_()
    page = audit.to_html(memory.images)
    assert page.count("data:image/png;base64,") == ROWS
    other = audit.to_html(torch.flip(memory.images, [0]))
    assert page != other, "each label has its own image"


def test_a_run_shows_its_numbers_and_its_audit(photos: Examples) -> None:
    memory = Examples(photos.images, photos.labels, photos.class_names, photos.ids)
    run = scanmix.train(
        memory, test=memory, method="cross_entropy", epochs=2, progress=False, threads=1, batch_size=16,
        network={"widths": [4], "blocks": [1], "stem_stride": 2},
    )  # fmt: skip
    page = run._repr_html_()
    assert "cross_entropy on " in page and "2 epochs" in page
    assert f"accuracy {run.last_accuracy:.1%}, balanced {100 * (run.last_balanced_accuracy or 0):.1f} %" in page
    assert "labels look wrong" not in page, "there is no audit yet"
    run.last_audit = run.audit(memory)
    assert run._repr_html_().count("data:image/png;base64,") == ROWS


def test_numbers_as_data_frames(photos: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = scanmix.audit_data(photos)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        audit.to_pandas()


def test_metrics_of_a_run_as_a_data_frame(photos: Examples) -> None:
    pytest.importorskip("pandas")
    run = scanmix.train(
        photos, method="cross_entropy", epochs=2, progress=False, threads=1, batch_size=16,
        network={"widths": [4], "blocks": [1], "stem_stride": 2},
    )  # fmt: skip
    assert run.to_pandas()["epoch"].tolist() == [1, 2]

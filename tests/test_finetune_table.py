"""The table of fine-tuning: which pictures are drawn, how a row is found again, and what the page says."""

from pathlib import Path

import numpy as np

from results import finetune
from results.real_data import Pool
from results.rows import read_rows


def test_test_pictures_are_others_and_have_the_right_labels() -> None:
    truth = np.repeat(np.arange(10), 220)
    given = (truth + np.arange(2200) % 2) % 10
    images = np.arange(2200, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    source = Pool(truth, images, given={"worse": given})
    train, test = finetune.drawn(source, 201)
    assert not set(train.ids) & set(test.ids) and len(train) == len(test) == 1000
    for part, labels in ((train, given), (test, truth)):
        rows = np.array(part.ids, dtype=int)
        assert np.bincount(truth[rows]).tolist() == [100] * 10
        assert part.labels.tolist() == labels[rows].tolist()
        assert part.true_labels is not None and part.true_labels.tolist() == truth[rows].tolist()
        assert np.array_equal(part.images[:, 0, 0, 0].numpy(), images[rows, 0, 0, 0])
    assert finetune.drawn(source, 201)[0].ids == train.ids != finetune.drawn(source, 202)[0].ids


def test_a_row_is_found_again_and_the_page_has_one_for_each_way(tmp_path: Path) -> None:
    path = tmp_path / "finetune.csv"
    measured = {"wrong": 0.4, "best": 0.61, "ap": 0.8, "seconds": 150.0}
    tasks = [finetune.Task(finetune.TUNED, "cross_entropy", seed=seed) for seed in (201, 202)]
    tasks += [finetune.Task(finetune.TUNED, "cross_entropy", length=2.0, seed=201)]
    tasks += [finetune.Task(finetune.FEATURES, "linear", 224, 0.0, 201)]
    for task, accuracy in zip(tasks, (0.59, 0.61, 0.5, 0.62), strict=True):
        finetune.add({**task._asdict(), **measured, "accuracy": accuracy}, path)
    rows = read_rows(path)
    assert {tuple(row[name] for name in finetune.Task._fields) for row in rows} == {
        tuple(map(str, task)) for task in tasks
    }
    text = finetune.page(rows)
    assert (
        "| cross_entropy, fine-tuned, 64 pixels | 6 | 2 | 40.0 ± 0.0 | 60.0 ± 1.4 | 61.0 ± 0.0 | 80.0 ± 0.0 | 150 |"
        in text
    )
    assert "| cross_entropy, fine-tuned, 64 pixels | 2 | 1 | 40.0 | 50.0 | 61.0 | 80.0 | 150 |" in text
    assert "| linear, features, 224 pixels |  | 1 | 40.0 | 62.0 |" in text

import json
from pathlib import Path
from typing import Any

import numpy as np

from scanmix.review.rows import KINDS, SPOT_EVERY, detail, make_queue, progress, table


def test_every_row_is_shown_once_the_doubtful_first_and_in_order(make_audit: Any) -> None:
    audit = make_audit(600)
    queue = make_queue(audit)
    assert sorted(queue.order.tolist()) == list(range(600))
    doubtful = np.flatnonzero(audit["kind"] != "fine")
    first = queue.order[: queue.length]
    assert first[~queue.spots[first]].tolist() == doubtful.tolist()
    assert (np.diff(queue.order[queue.length :]) > 0).all()


def test_one_in_twenty_is_a_sure_label_and_the_same_one_each_time(make_audit: Any) -> None:
    audit = make_audit(600)
    queue = make_queue(audit)
    places = np.flatnonzero(queue.spots[queue.order])
    assert len(places) == -(-300 // (SPOT_EVERY - 1)) and places.max() < queue.length
    for block, place in enumerate(places):  # one in each block, so in no stretch of 40 is there none
        assert block * SPOT_EVERY <= place < (block + 1) * SPOT_EVERY
    fine = np.flatnonzero(audit["kind"] == "fine")
    assert (np.flatnonzero(queue.spots) >= np.median(fine)).all()
    assert (make_queue(audit).order == queue.order).all()
    audit["id"][:] = [f"other/{i}" for i in range(600)]
    assert (make_queue(audit).spots != queue.spots).any()


def test_without_fine_labels_there_are_no_spot_checks(make_audit: Any) -> None:
    audit = make_audit(60)
    audit["kind"][:] = "wrong"
    assert not make_queue(audit).spots.any()
    audit["kind"][:] = "fine"
    assert make_queue(audit).length == 0


def test_table_and_detail_say_what_the_audit_says(make_audit: Any) -> None:
    audit = make_audit()
    whole = json.loads(json.dumps(table(audit, make_queue(audit))))
    assert [whole["classes"][label] for label in whole["given"]] == audit["given"].tolist()
    assert [KINDS[kind] for kind in whole["kind"]] == audit["kind"].tolist()
    one = json.loads(json.dumps(detail(audit, 3)))
    assert one["neighbors"] == [4, 5, 6, 7, 8, 9] and one["against"] == ["a", "b"] and one["epochs"] == [1, 2, 3]
    shares = [share for _, share in one["classes"]]
    assert shares == sorted(shares, reverse=True) and len(shares) == 4
    assert np.allclose(one["losses"], audit.losses[:, :, 3].T, atol=1e-4)


def test_detail_without_neighbors_and_losses(make_audit: Any) -> None:
    import dataclasses

    audit = dataclasses.replace(make_audit(), neighbors=None, epochs=(), losses=np.zeros((0, 1, 12)))
    one = detail(audit, 0)
    assert one["neighbors"] == [] and one["losses"] == []


def test_progress_counts_by_hand(make_review: Any, tmp_path: Path) -> None:
    review = make_review(60)  # 20 wrong, 10 hard, 30 fine of which 2 are spot checks
    spots = np.flatnonzero(review.queue.spots).tolist()
    doubt = 1 - review.audit["p_clean"].astype(float)
    start = progress(review.audit, review.queue, review.decisions)
    assert (start["to_decide"], start["labels"], start["spots"], start["looked"]) == (32, 60, 2, 0)
    assert start["expected_left"] == start["expected_first"] == round(doubt.sum(), 1)
    review.decisions.decide([0, 1, 2], "accept")
    review.decisions.decide([3], "relabel", 1)
    review.decisions.decide([4], "exclude")
    review.decisions.decide([5], "unsure")
    review.decisions.decide([6], "keep")
    review.decisions.decide([spots[0]], "keep")
    review.decisions.decide([spots[1]], "relabel", (int(review.decisions.given[spots[1]]) + 1) % 4)
    calm = next(row for row in range(59, 30, -1) if row not in spots)
    review.decisions.decide([calm], "keep")
    now = progress(review.audit, review.queue, review.decisions)
    assert (now["decided"], now["all_decided"], now["looked"], now["found"]) == (9, 10, 7, 4)
    assert (now["spots_seen"], now["spots_kept"], now["excluded"]) == (2, 1, 1)
    left = [row for row in range(60) if row not in (0, 1, 2, 3, 4, 6, calm, *spots)]  # unsure is not settled
    assert now["expected_left"] == round(doubt[left].sum(), 1)

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scanmix.audit.columns import ORIGINS
from scanmix.audit.decided import Checked
from scanmix.blocks.decided_rate import rate_with_decisions, strata_of
from scanmix.blocks.label_quality import ISSUE_TYPES, RateInterval
from scanmix.review.decisions import CHOICES
from scanmix.review.rows import ORDERS, SPOT_EVERY, detail, make_queue, progress, table


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
    assert [list(ISSUE_TYPES)[kind] for kind in whole["kind"]] == audit["kind"].tolist()
    assert whole["kind_words"][whole["kinds"].index("out_of_scope")] == "out of scope"
    assert whole["kinds"][whole["fine"]] == "fine" and len(whole["choice_words"]) == len(whole["choices"])
    one = json.loads(json.dumps(detail(audit, 3)))
    assert one["origin"] == ORIGINS[audit["suggestion"][3]]
    assert one["neighbors"] == [4, 5, 6, 7, 8, 9] and one["against"] == ["a", "b"] and one["epochs"] == [1, 2, 3]
    shares = [share for _, share in one["classes"]]
    assert shares == sorted(shares, reverse=True) and len(shares) == 4
    assert np.allclose(one["losses"], audit.losses[:, :, 3].T, atol=1e-4)


def test_votes_stand_beside_the_given_label(make_audit: Any) -> None:
    audit = make_audit()
    assert detail(audit, 3)["votes"] == ""
    columns = {
        "votes": np.array(["ant 2, bee 1"] * 12, dtype=object),
        "consensus": np.array(["ant"] * 12, dtype=object),
        "consensus_prob": np.full(12, 0.934),
    }
    voted = dataclasses.replace(audit, columns={**audit.columns, **columns})
    assert detail(voted, 3)["votes"] == "ant 2, bee 1 – together ant (93 %)"


def test_detail_without_neighbors_and_losses(make_audit: Any) -> None:
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
    decisions = review.decisions
    asked = np.isin(np.arange(60), left, invert=True) & (decisions.codes != CHOICES.index("exclude"))
    wrong, gone = decisions.labels != decisions.given, decisions.codes == CHOICES.index("exclude")
    parts = {"chance": doubt, "p_wrong": doubt, "asked": asked, "wrong": wrong, "known": asked | gone}
    rates = rate_with_decisions(model=RateInterval(0.3, 0.2, 0.4), **{n: torch.from_numpy(p) for n, p in parts.items()})
    assert [now[name] for name in ("expected_left", "left_low", "left_high")] == [round(60 * x, 1) for x in rates.now]
    assert now["more"] == rates.more > 0 and start["left_low"] < start["expected_left"] < start["left_high"]
    assert now["expected_left"] != round(doubt[left].sum(), 1)  # the decisions have been heard


def test_what_was_decided_before_comes_last_and_is_not_asked(make_audit: Any) -> None:
    audit = make_audit(60, decided=["keep"] * 8 + ["accept"] * 4)
    audit["kind"][-6:] = "wrong"  # the audit doubts half of them still
    queue = make_queue(audit)
    plain = make_queue(make_audit(60))
    assert queue.order[-12:].tolist() == list(range(48, 60)) and sorted(queue.order.tolist()) == list(range(60))
    assert queue.length == plain.length and not queue.spots[48:].any() and queue.spots.any()
    shown = table(audit, queue)
    assert shown["before"] == [0] * 48 + [1] * 8 + [2] * 4 and shown["again"] is False
    assert table(make_audit(), make_queue(make_audit()))["before"] == [0] * 12


def test_asked_again_it_comes_first(make_audit: Any) -> None:
    audit = make_audit(60, decided=["keep"] * 12)
    queue = make_queue(audit, again=True)
    assert queue.order[:12].tolist() == list(range(48, 60)) and table(audit, queue)["again"] is True
    once = make_queue(audit)
    assert queue.order[12:].tolist() == once.order[:-12].tolist() and queue.length == once.length + 12


def test_progress_of_a_further_round(make_review: Any) -> None:
    review = make_review(60, decided=["keep"] * 8 + ["accept"] * 4, excluded=(("x", "", "ant"),), again=True)
    review.audit["p_clean"][-3:] = 0.1
    doubt = 1 - review.audit["p_clean"].astype(float)
    start = progress(review.audit, review.queue, review.decisions)
    assert (start["before"], start["before_doubted"], start["before_excluded"]) == (12, 3, 1)
    assert (start["again_seen"], start["again_same"], start["all_decided"], start["looked"]) == (0, 0, 12, 0)
    assert start["expected_first"] == start["expected_left"] == round(doubt[:48].sum(), 1)  # of decided ones, none
    other = review.audit["suggested"] != review.audit["given"]
    assert start["look_wrong"] == int(((review.audit["p_clean"] < 0.5) & other)[:48].sum())
    review.decisions.decide([48, 49, 50], "keep")
    review.decisions.decide([51], "exclude")
    review.decisions.decide([52], "relabel", (int(review.decisions.given[52]) + 2) % 4)
    review.decisions.decide([53], "unsure")
    review.decisions.decide([0], "accept")
    now = progress(review.audit, review.queue, review.decisions)
    assert (now["again_seen"], now["again_same"]) == (5, 3)
    assert (now["looked"], now["found"], now["decided"], now["all_decided"]) == (1, 1, 7, 13)


@pytest.mark.parametrize("by", ["random", "informative"])
def test_labels_are_drawn_from_all_and_in_the_same_order_each_time(make_audit: Any, by: str) -> None:
    audit = make_audit(600, decided=["keep"] * 100)
    queue = make_queue(audit, by=by)
    assert queue.order.tolist() == make_queue(audit, by=by).order.tolist() and queue.length == 500
    assert sorted(queue.order[:500].tolist()) == list(range(500)) and queue.order[500:].tolist() == [*range(500, 600)]
    assert not queue.spots.any() and table(audit, queue)["order_words"] == ORDERS[by]
    again = make_queue(audit, again=True, by=by)
    assert again.order[:100].tolist() == list(range(500, 600)) and again.length == 600
    other = make_audit(600, decided=["keep"] * 100)
    other["id"][:] = [f"other/{i}" for i in range(600)]
    assert make_queue(other, by=by).order.tolist() != queue.order.tolist()


def test_the_random_order_is_the_same_whatever_the_audit_says_and_the_informative_one_asks_where_it_is_unsure(
    make_audit: Any,
) -> None:
    audit = make_audit(1000)
    random = make_queue(audit, by="random").order
    audit["p_clean"][:] = np.linspace(0, 1, 1000) ** 0.2
    assert make_queue(audit, by="random").order.tolist() == random.tolist()
    counts = np.bincount(strata_of(torch.from_numpy(audit.doubt)).numpy()[random[:200]], minlength=5)
    assert (counts > 20).all()  # 200 of 1,000, evenly
    audit["p_clean"][:] = np.where(np.arange(1000) < 400, 0.01, np.where(np.arange(1000) < 600, 0.5, 0.99))
    first = make_queue(audit, by="informative").order[:100]
    unsure = (first >= 400) & (first < 600)
    assert 45 <= unsure.sum() <= 70 and (~unsure).sum() > 20  # without the order: 20


def test_progress_counts_decisions_of_earlier_rounds_that_are_known(make_review: Any) -> None:
    review = make_review(60, decided=["relabel"] * 12)
    alone = progress(review.audit, review.queue, review.decisions)
    asked = np.arange(60) >= 48
    chance = np.where(asked, 0.3, 1 - np.linspace(0, 1, 60))
    checked = Checked(asked=asked, wrong=asked, chance=chance, suggested=asked, model=RateInterval(0.4, 0.2, 0.6))
    audit = dataclasses.replace(review.audit, checked=checked)
    now = progress(audit, review.queue, review.decisions)
    assert now["expected_left"] > alone["expected_left"]  # labels that seemed sure were wrong
    assert now["expected_left"] == round(60 * audit.rates().now.value, 1)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.predictions import softmax, top_k

LABELS = ("a", "b", "c", "d")


def test_best_first_with_label_and_place() -> None:
    best = top_k(np.array([0, 3, 1, 2], np.float32), LABELS, 2)
    assert [(each.label, each.index) for each in best] == [("b", 1), ("d", 3)]
    assert best[0].score == pytest.approx(np.exp(3) / np.exp([0, 3, 1, 2]).sum())


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    assert [each.label for each in top_k(np.zeros(4, np.float32), LABELS, 4)] == list(LABELS)


@settings(deadline=None)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20))
def test_softmax_never_overflows(logits: list[float]) -> None:
    shares = softmax(np.array(logits, np.float32))
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.predictions import MOST_RANKED, name_best, rank, rank_all, softmax

LABELS = ("a", "b", "c", "d")
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)


def test_best_first_with_label_and_place() -> None:
    best = name_best(rank(np.array([0, 3, 1, 2], np.float32)), LABELS, 2)
    assert [(each.label, each.index) for each in best] == [("b", 1), ("d", 3)]
    assert best[0].score == pytest.approx(np.exp(3) / np.exp([0, 3, 1, 2]).sum())


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    assert [each.label for each in name_best(rank(np.zeros(4, np.float32)), LABELS, 4)] == list(LABELS)


def test_of_many_classes_the_best_hundred_are_ranked_and_ties_at_the_edge_keep_their_order() -> None:
    logits = np.zeros(21_843, np.float32)
    logits[20_000] = 1
    ranking = rank(logits)
    assert ranking.indices.tolist() == [20_000, *range(MOST_RANKED - 1)]
    assert ranking.scores[0] == pytest.approx(np.e / (np.e + 21_842))


def test_a_model_without_a_head_has_nothing_to_rank() -> None:
    assert name_best(rank(np.empty(0, np.float32)), (), 0) == []


@settings(deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=300))
def test_the_ranking_is_the_start_of_a_stable_sort(values: list[float]) -> None:
    logits = np.array(values, np.float32)
    ranking = rank(logits)
    expected = sorted(range(len(values)), key=lambda index: -logits[index])[:MOST_RANKED]
    assert ranking.indices.tolist() == expected
    assert ranking.scores.tolist() == softmax(logits)[expected].tolist()


@settings(deadline=None)
@given(st.integers(1, 5), st.sampled_from([0, 1, 3, 100, 101, 250]), st.integers(0, 2**32 - 1), st.booleans())
def test_a_batch_is_ranked_as_its_images_alone_are(images: int, classes: int, seed: int, ties: bool) -> None:
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(images, classes)).astype(np.float32)
    if ties:
        logits = logits.round()
    bad = draw.random(images) < 0.2
    if classes:
        logits[bad, draw.integers(classes)] = draw.choice([np.nan, np.inf, -np.inf])
    for of_image, ranking in zip(logits, rank_all(logits), strict=True):
        if not np.isfinite(of_image).all():
            assert ranking is None
            continue
        assert ranking is not None
        expected = rank(of_image)
        assert ranking.indices.tolist() == expected.indices.tolist()
        np.testing.assert_array_equal(ranking.logits, of_image)
        assert ranking.scores.tolist() == expected.scores.tolist(), "the same bits"
        assert ranking.indices.dtype == np.int32


@settings(deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_softmax_never_overflows(logits: list[float]) -> None:
    shares = softmax(np.array(logits, np.float32))
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()

import json

import numpy as np
import pytest
from infer_bodies import image_input

from service.errors import BadInference, NotOffered
from service.extras import Extras
from service.predictions import Ranking, rank
from service.v2.documents import InferenceRequest
from service.v2.outputs import extras_of, read_wishes, write_reply

LABELS = ("a:b", "ü", "c")
LOGITS = np.array([0.1, 3, -1], np.float32)


def request(*outputs: dict[str, object], **rest: object) -> InferenceRequest:
    document = {"inputs": [image_input(1, data=["QQ=="])], "outputs": list(outputs), **rest}
    return InferenceRequest.model_validate(document)


def remote(logits: np.ndarray) -> Ranking:  # type: ignore[type-arg]
    """What crosses from another process."""
    ranking = rank(logits)
    return Ranking(ranking.indices, ranking.scores)


def reply(asked: InferenceRequest, ranking: Ranking, labels: tuple[str, ...] = LABELS) -> list[dict[str, object]]:
    wishes = read_wishes(asked, len(labels), has_logits=ranking.logits is not None)
    outputs: list[dict[str, object]] = json.loads(bytes(write_reply({}, wishes, [ranking], labels).body))["outputs"]
    return outputs


def test_scores_have_six_decimals_as_those_of_triton() -> None:
    best = {"name": "logits", "parameters": {"classification": 3}}
    assert reply(request(best), rank(LOGITS))[0]["data"] == ["3.000000:1:ü", "0.100000:0:a:b", "-1.000000:2:c"]


def test_without_logits_probabilities_are_all_there_is() -> None:
    [output] = reply(request(), remote(LOGITS))
    [everything] = [each for each in reply(request(), rank(LOGITS)) if each["name"] == "probabilities"]
    assert output["name"] == "probabilities"
    np.testing.assert_allclose(output["data"], everything["data"], rtol=1e-6)  # type: ignore[arg-type]
    with pytest.raises(NotOffered, match="not_offered"):
        reply(request({"name": "logits"}), remote(LOGITS))


def test_without_logits_only_the_best_of_many_classes_are_known() -> None:
    logits, labels = np.arange(200, dtype=np.float32), tuple(map(str, range(200)))
    best = {"name": "probabilities", "parameters": {"classification": 2}}
    assert reply(request(best), remote(logits), labels) == reply(request(best), rank(logits), labels)
    with pytest.raises(NotOffered):
        reply(request({"name": "probabilities"}), remote(logits), labels)


def test_attention_comes_only_when_asked_for_and_is_padded() -> None:
    names = [wish.name for wish in read_wishes(request(), 3, has_logits=True, explain=True)]
    assert names == ["logits", "probabilities"]
    wishes = read_wishes(request({"name": "attention"}), 3, has_logits=False, explain=True)
    assert (extras_of(wishes), extras_of(read_wishes(request(), 3, has_logits=True))) == (
        Extras.ATTENTION,
        Extras.NONE,
    )
    shares = [np.array([0.25, 0.75], np.float32), np.ones(1, np.float32)]
    written = json.loads(bytes(write_reply({}, wishes, [remote(LOGITS)] * 2, LABELS, shares).body))
    assert written["outputs"] == [
        {"name": "attention", "datatype": "FP32", "shape": [2, 2], "data": [0.25, 0.75, 1, 0]}
    ]
    with pytest.raises(NotOffered):
        read_wishes(request({"name": "attention"}), 3, has_logits=True)
    best = {"name": "attention", "parameters": {"classification": 1}}
    with pytest.raises(BadInference):
        read_wishes(request(best), 3, has_logits=True, explain=True)


def test_a_model_without_a_head_has_no_classes() -> None:
    for output in reply(request(), rank(np.empty(0, np.float32)), ()):
        assert (output["shape"], output["data"]) == ([1, 0], [])


def test_more_classes_than_there_are_means_all_but_more_than_are_ranked_is_refused() -> None:
    asked = request({"name": "logits", "parameters": {"classification": 101}})
    assert read_wishes(asked, 3, has_logits=True)[0].classes == 3
    with pytest.raises(BadInference):
        read_wishes(asked, 101, has_logits=True)

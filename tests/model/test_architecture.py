"""An architecture that contradicts itself is refused when it is made."""

from typing import Any

import pytest

from model.architecture import ViTConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "width 64 with 3 heads"),
        ({"depth": 0}, "0 blocks"),
        ({"class_token": False}, "'token' needs a class token"),
        ({"class_token": False, "pooling": "token+average", "final_norm": "tokens"}, "needs a class token"),
        ({"pooling": "token+average"}, "needs the final norm before it"),
        ({"distilled": True}, "needs a class token and a register"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViTConfig(**{"width": 64, "depth": 1, "heads": 2, "mlp_dim": 128} | fields)


def test_only_stems_that_look_beyond_a_patch_need_equal_grids() -> None:
    assert ViTConfig(64, 1, 2, 128).mixed_grids
    assert ViTConfig(64, 1, 2, 128, stem="patchwise").mixed_grids
    assert not ViTConfig(64, 1, 2, 128, stem="resnetv2", stem_layers="1").mixed_grids

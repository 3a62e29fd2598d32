import pytest
from PIL import Image, ImageFile, PngImagePlugin
from tiny_artifact import MANIFEST

from model.headers import ImageLimits
from service.errors import StartError
from service.self_test import check_decoder_limits


def check(limits: ImageLimits = ImageLimits()) -> None:  # noqa: B008 - frozen
    check_decoder_limits(MANIFEST.preprocessing, limits)


@pytest.mark.parametrize("limits", [ImageLimits(), ImageLimits(max_pixels=1), ImageLimits(max_side=10)])
def test_a_decoder_that_refuses_bombs_passes(limits: ImageLimits) -> None:
    check(limits)


@pytest.mark.parametrize(
    ("where", "name", "value", "says"),
    [
        (Image, "MAX_IMAGE_PIXELS", None, "MAX_IMAGE_PIXELS"),
        (Image, "MAX_IMAGE_PIXELS", 10**12, "MAX_IMAGE_PIXELS"),
        (ImageFile, "LOAD_TRUNCATED_IMAGES", True, "cut off"),
        (PngImagePlugin, "MAX_TEXT_CHUNK", 1 << 30, "colour profile"),
    ],
)
def test_limits_that_other_code_has_lifted_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, value: object, says: str
) -> None:
    monkeypatch.setattr(where, name, value)
    with pytest.raises(StartError, match=says):
        check()


def test_our_own_limit_is_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.headers._check_size", lambda *_: None)
    with pytest.raises(StartError, match="too many pixels"):
        check()

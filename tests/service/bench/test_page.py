"""The report: complete, self-contained, and true to its figures."""

from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from service.bench.page import page_of
from service.bench.plots import Axis, bars
from service.bench.samples import Fate, Sample, figures_of

FATES = [Fate.ANSWERED, Fate.ANSWERED, Fate.REFUSED, Fate.FAILED]
SAMPLES = [
    Sample(index / 100, 0.01 + index / 1000, FATES[index % 4], "" if index % 4 < 2 else f"why <{index % 4}>")
    for index in range(400)
]


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_has_every_number_and_loads_nothing() -> None:
    page = Elements(page_of(figures_of(SAMPLES, 0, 4), {"load": "open <b>loop</b>"}))
    tags = {tag for tag, _ in page.found}
    assert "open <b>loop</b>" in page.text
    assert "why <2>" in page.text
    assert tags & {"script", "link", "img", "iframe", "b"} == set()
    assert all(not {"src", "href", "onload"} & attributes.keys() for _, attributes in page.found)
    circles = [attributes["class"] for tag, attributes in page.found if tag == "circle"]
    assert {style: circles.count(style) for style in Fate} == {"answered": 200, "refused": 100, "failed": 100}


@pytest.mark.parametrize("samples", [[], [SAMPLES[2]], [SAMPLES[0]], [Sample(0.5, 0.0, Fate.ANSWERED)]])
def test_few_figures_make_a_page_too(samples: list[Sample]) -> None:
    assert page_of(figures_of(samples, 0, 1), {}).endswith("</html>\n")


def test_many_dots_are_thinned_and_it_says_so() -> None:
    samples = [Sample(index / 10_000, 0.1, Fate.ANSWERED) for index in range(10_000)]
    page = Elements(page_of(figures_of(samples, 0, 1), {}))
    assert sum(tag == "circle" for tag, _ in page.found) == 2000
    assert "2000 of 10000 requests" in page.text


def test_bars_stand_on_each_other_and_are_to_scale() -> None:
    plot = bars(Axis("x", 0, 2), Axis("y", 0, 10), [(0, 1, [("a", 2), ("b", 4)])])
    first, second = (each.attrib for each in ElementTree.fromstring(plot).iter("rect"))  # noqa: S314 - our own
    assert float(second["height"]) == pytest.approx(2 * float(first["height"]), abs=0.2)
    assert float(second["y"]) + float(second["height"]) == pytest.approx(float(first["y"]), abs=0.2)


def test_axes_have_round_numbers() -> None:
    assert Axis("", 0, 10).ticks() == [0, 2, 4, 6, 8, 10]
    assert Axis("", 0, 7.3).ticks() == [0, 2, 4, 6]
    assert Axis("", 3, 700, log=True).ticks() == [5, 10, 20, 50, 100, 200, 500]
    assert Axis("", 1, 100, log=True).place(10) == pytest.approx(0.5)

"""docs/configuration.md has every setting as it is."""

import runpy

from page_examples import ROOT

from service.cluster_settings import ClusterSettings


def test_the_page_is_up_to_date() -> None:
    program = runpy.run_path(str(ROOT / ".ci" / "settings_page.py"))
    _, _, written = (ROOT / "docs" / "configuration.md").read_text("utf-8").partition(program["MARK"])
    assert written.strip() == program["tables"]().strip(), "python .ci/settings_page.py"


def test_every_setting_is_in_one_table() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    for name in ClusterSettings.model_fields:
        flag = "`MODEL`" if name == "model" else f"`--{name.replace('_', '-')}`"
        assert page.count(f"\n| {flag}") == 1, name

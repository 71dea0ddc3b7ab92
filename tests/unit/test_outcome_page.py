"""docs/outcomes.md is what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

from livemig.core.outcome import RULES

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_code_says():
    script = runpy.run_path(str(ROOT / "scripts" / "draw-outcomes"))

    assert (ROOT / "docs" / "outcomes.md").read_text(encoding="utf-8") == script["draw"](), "run scripts/draw-outcomes"


def test_the_page_has_every_rule_and_what_it_says():
    page = (ROOT / "docs" / "outcomes.md").read_text(encoding="utf-8")

    assert [rule.name for rule in RULES if f"**{rule.name}**" not in page or rule.says not in page] == []

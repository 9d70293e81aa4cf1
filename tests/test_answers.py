"""One answer table per edge: every category has its row on every edge, and the rows are those of the manual."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.edges import dimse, mllp
from gateway.edges.http import answers as http
from gateway.edges.http import cds_hooks
from gateway.errors import Category, GatewayError
from gateway.store.model import Receipt

EDGES: dict[str, Mapping[Category, Any]] = {"mllp": mllp.ANSWERS, "http": http.ANSWERS, "dimse": dimse.ANSWERS,
                                            "cds-hooks": cds_hooks.ANSWERS}
MANUAL = Path(__file__).parents[1] / "gateway" / "README.md"


def table() -> dict[str, list[str]]:
    """The manual's answer table: category → cells."""
    lines = MANUAL.read_text(encoding="utf-8").split("## Answers")[1].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {row[0]: row for row in rows if row[0] in {c.value for c in Category}}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("category", Category)
def test_every_edge_answers_every_category(edge: str, category: Category) -> None:
    """A category that an edge could not answer would leave its sender without one."""
    assert category in EDGES[edge]


@pytest.mark.parametrize("category", Category)
def test_mllp_answers_as_the_manual_says(category: Category) -> None:
    """MSA-1 and ERR-3; AE only where the sender must correct the content."""
    _, _, msa, err, *_ = table()[category.value]
    answer = mllp.answer_for(Receipt(1, category.value))
    assert f"`{answer.acknowledgment_code}`" == msa and f"`{answer.error_code}`" in err
    correct_it = category in (Category.INVALID, Category.NOT_FOUND, Category.CONFLICT)
    assert (answer.acknowledgment_code == "AE") == correct_it


def test_mllp_knows_every_code_that_the_manual_lists() -> None:
    """The narrower rows (message type, event … required, data type …) are reachable by the refusal's detail."""
    details = {"unsupported": ("message-type", "event", "processing-id", "version"),
               "invalid": ("required", "data-type", "table-value")}
    for category, named in details.items():
        codes = [mllp.answer_for(Receipt(1, category, detail=detail)).error_code for detail in named]
        assert codes == re.findall(r"`(\d+)`", table()[category][3])


@pytest.mark.parametrize("category", Category)
def test_c_store_answers_as_the_manual_says(category: Category) -> None:
    """The status of PS3.4 B.2.3 or PS3.7 C, in hexadecimal."""
    assert f"`{dimse.ANSWERS[category]:04X}`" in table()[category.value][4]


@pytest.mark.parametrize("category", Category)
def test_http_answers_as_the_manual_says(category: Category) -> None:
    """The status of a bare category is one that the manual names; only our own side's are in the five hundreds."""
    answer = http.answer_for(GatewayError(category, "a sentence"))
    assert str(answer.status) in table()[category.value][5]
    assert (answer.status >= 500) == (category in (Category.BUSY, Category.FAULT))


@pytest.mark.parametrize("category", Category)
def test_cds_hooks_answers_as_the_manual_says(category: Category) -> None:
    """Its own column: what cannot be read or breaks a rule is 400, what is not found is the data that it needs, 412."""
    answer = cds_hooks.answer_for(GatewayError(category, "a sentence"))
    assert str(answer.status) in table()[category.value][6]
    assert (answer.status >= 500) == (category in (Category.BUSY, Category.FAULT))
    if category is Category.FORBIDDEN:
        assert cds_hooks.answer_for(GatewayError(category, "a sentence", detail="login")).status == 401

"""Every settled row of the guide's segment maps: its target is filled as the row tells, or we decided otherwise.

The maps are those of the segments of ORU, ORM, OML, ADT, MDM and SIU. ``guide_decisions.toml`` holds the decisions; one
that a row no longer needs fails here, so that the list says what the converter does.
"""

from __future__ import annotations

import pytest

from tests.guide import GUIDE, Row, code_rows, datatype_rows, decided, decisions, segment_rows, verdict

pytestmark = pytest.mark.skipif(not GUIDE.is_dir(), reason="the guide's tables are not beside the repository")
#: Maps of messages that are not taken: vaccinations (VXU) and medicines given (RAS).
OTHER_MESSAGES = ("ORC[Immunization]", "ORC[MedicationAdministration]")
ROWS = [row for row in segment_rows() if row.map not in OTHER_MESSAGES]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_row_is_filled_as_the_guide_tells_or_decided_otherwise(row: Row) -> None:
    """The row's field, filled with a value of its type under its condition, stands at the row's target."""
    missing = verdict(row)
    decision = decided(row.key)
    if decision is None:
        assert missing == "", f"{row.key}: {missing}; mend the converter or decide it in guide_decisions.toml"
    else:
        assert missing, f"{row.key} is filled as the guide tells: take the decision out of guide_decisions.toml"


def test_most_rows_are_read() -> None:
    """The tables are read at all: a renamed column or folder must not turn the tests above into none."""
    assert len(ROWS) > 530 and len(datatype_rows()) > 600 and len(code_rows()) > 90
    assert {"OBX", "OBR", "PID", "PV1", "ORC", "SPM", "NTE", "MSH"} <= {row.segment for row in ROWS}


def test_every_decision_is_of_a_row_and_has_a_reason() -> None:
    """A decision names a row, a map or a table that exists, what we do instead, and why."""
    keys = [row.key for row in [*ROWS, *datatype_rows()]]
    keys += [f"table {name} {code[0]}" for name, codes in code_rows().items() for code in [*codes, ("",)]]
    for key, (instead, why) in decisions().items():
        named = any(one == key or key.endswith("*") and one.startswith(key[:-1]) for one in keys)
        assert named, f"{key} is no row of the guide"
        assert len(instead) > 10 and len(why) > 10, key

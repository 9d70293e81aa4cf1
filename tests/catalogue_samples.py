"""Small tables of a catalogue that agree with each other, and ways to break them."""

from __future__ import annotations

from datetime import date

_SMALL = {
    "catalogue.toml": 'version = "t1"\neffective = 2026-12-01\ntitle = "small"\n',
    "items.tsv": """\
unified_code|domain|category|name_zh|name_en|default_validity_days|specimen|body_site|parent_panel|loinc|loinc_confidence
ECT0149|exam|CT|全腹部CT平扫|CT whole abdomen|30||abdomen+pelvis|||
ECT0165|exam|CT|上腹部CT平扫|CT upper abdomen|30||abdomen|||
ECT0157|exam|CT|全腹部CT平扫+增强|CT whole abdomen, enhanced|30||abdomen+pelvis|||
THM001Q|test|HM|白细胞计数|White cells|3|全血(EDTA)||P-CBC|6690-2|read
THM002O|test|HM|红细胞计数|Red cells|3|全血(EDTA)||P-CBC||
""",
    "panels.tsv": """\
panel_code|name_zh|name_en|members|member_count|core|same_session
P-CBC|血常规|Complete blood count|THM001Q;THM002O|2|THM001Q|N
""",
    "coverage-edges.tsv": """\
prior_code|prior_name|order_code|order_name|coverage|reason
ECT0149|全腹部CT平扫|ECT0165|上腹部CT平扫|full|region contains
ECT0157|全腹部CT平扫+增强|ECT0149|全腹部CT平扫|full|includes the plain phase
ECT0165|上腹部CT平扫|ECT0149|全腹部CT平扫|none|smaller region
""",
    "regions.tsv": """\
region|parent|name_zh|name_en|mark
CN||全国|China|全国HR
33|CN|浙江|Zhejiang|浙江省HR
3301|33|杭州|Hangzhou|
""",
    "institutions.tsv": "institution|name_zh|name_en|region|level\na|甲|A|3301|3\nb|乙||3301|\n",
    "windows.tsv": "scope|item|days|hours|setting|valid_from|valid_to\n3301|*|30||||\na|CT||36|IMP|2026-01-01|\n",
    "qualifications.tsv": "institution|item|region|valid_from|valid_to\na|*|33|2026-01-01|2026-12-31\nb|HM|3301||\n",
    "negative.tsv": "region|institution|item|reason\n3301|*|ECT0157|dose\n",
    "reasons.tsv": """\
region|code|text_zh|text_en|counts|needs_text|availability|preselected_by
CN|R1|病情变化|The condition changed|no|N|N|STATE_AFTER_SURGERY;STATE_AFTER_ADMISSION
CN|R6|其他|Other|reviewed|Y|N|
""",
    "prices.tsv": """\
scope|item|price|fund|valid_from|valid_to
3301|CT|320.00|0.70||2026-06-30
3301|CT|300|0.7|2026-07-01|
""",
    "settings.tsv": "scope|item|key|value\n3301||undecided|deny\na/外科|ECT0149|blocking|yes\n",
    "settlement.tsv": "region|version|share|schemes|items|valid_from\n3301|v1|0.50|basic|*|2026-01-01\n",
}


def small(**changes: str) -> dict[str, bytes]:
    """The tables; a change replaces a text once: ``items="old=>new"``; ``=>-`` leaves the table out.

    ``coverage_edges`` is coverage-edges.tsv, ``catalogue`` is catalogue.toml; ``+text`` adds lines at the end.
    """
    files = {}
    for name, text in _SMALL.items():
        change = changes.pop(name.partition(".")[0].replace("-", "_"), "")
        if change == "=>-":
            continue
        if change.startswith("+"):
            text += change[1:] + "\n"
        elif change:
            old, _, new = change.partition("=>")
            assert old in text, old
            text = text.replace(old, new, 1)
        files[name] = (text if name.endswith(".toml") else text.replace("|", "\t")).encode()
    assert not changes, changes
    return files


def head(version: str, effective: date, base: str = "") -> str:
    """A ``catalogue.toml`` as a change of ``small``."""
    extra = f'base = "{base}"\n' if base else ""
    return f'version = "t1"\neffective = 2026-12-01=>version = "{version}"\n{extra}effective = {effective}'

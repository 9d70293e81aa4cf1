"""The language that a person speaks (PID-15, NK1-20), as BCP 47 where the sender names it by ISO 639."""

from __future__ import annotations

import re
from typing import Any, Final

from gateway.hl7v2.builder import Builder
from gateway.hl7v2.message import Segment

#: Tags are codes of this system (R4: Patient.communication.language).
BCP_47: Final = "urn:ietf:bcp:47"
#: ISO 639-2 (terminological, and bibliographical where that is another) → ISO 639-1, the shorter, which BCP 47 wants.
_PAIRS: Final = """
    aar:aa abk:ab afr:af aka:ak alb:sq amh:am ara:ar arg:an arm:hy asm:as ava:av ave:ae aym:ay aze:az bak:ba bam:bm
    baq:eu bel:be ben:bn bis:bi bod:bo bos:bs bre:br bul:bg bur:my cat:ca ces:cs cha:ch che:ce chi:zh chu:cu chv:cv
    cor:kw cos:co cre:cr cym:cy cze:cs dan:da deu:de div:dv dut:nl dzo:dz ell:el eng:en epo:eo est:et eus:eu ewe:ee
    fao:fo fas:fa fij:fj fin:fi fra:fr fre:fr fry:fy ful:ff geo:ka ger:de gla:gd gle:ga glg:gl glv:gv gre:el grn:gn
    guj:gu hat:ht hau:ha heb:he her:hz hin:hi hmo:ho hrv:hr hun:hu hye:hy ibo:ig ice:is ido:io iii:ii iku:iu ile:ie
    ina:ia ind:id ipk:ik isl:is ita:it jav:jv jpn:ja kal:kl kan:kn kas:ks kat:ka kau:kr kaz:kk khm:km kik:ki kin:rw
    kir:ky kom:kv kon:kg kor:ko kua:kj kur:ku lao:lo lat:la lav:lv lim:li lin:ln lit:lt ltz:lb lub:lu lug:lg mac:mk
    mah:mh mal:ml mao:mi mar:mr may:ms mkd:mk mlg:mg mlt:mt mon:mn mri:mi msa:ms mya:my nau:na nav:nv nbl:nr nde:nd
    ndo:ng nep:ne nld:nl nno:nn nob:nb nor:no nya:ny oci:oc oji:oj ori:or orm:om oss:os pan:pa per:fa pli:pi pol:pl
    por:pt pus:ps que:qu roh:rm ron:ro rum:ro run:rn rus:ru sag:sg san:sa sin:si slk:sk slo:sk slv:sl sme:se smo:sm
    sna:sn snd:sd som:so sot:st spa:es sqi:sq srd:sc srp:sr ssw:ss sun:su swa:sw swe:sv tah:ty tam:ta tat:tt tel:te
    tgk:tg tgl:tl tha:th tib:bo tir:ti ton:to tsn:tn tso:ts tuk:tk tur:tr twi:tw uig:ug ukr:uk urd:ur uzb:uz ven:ve
    vie:vi vol:vo wel:cy wln:wa wol:wo xho:xh yid:yi yor:yo zha:za zho:zh zul:zu"""
_SHORT: Final = dict(pair.split(":") for pair in _PAIRS.split())
#: ISO 639-3, whose codes BCP 47 takes: the languages of China that no shorter code tells from Chinese; csl is signed.
_LONG: Final = frozenset(("cdo", "cjy", "cmn", "csl", "gan", "hak", "hsn", "nan", "wuu", "yue"))
_PRIMARY: Final = frozenset((*_SHORT.values(), *_LONG))
_TAG = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}))?")


def language_of(segment: Segment, field: int, builder: Builder) -> dict[str, Any]:
    """A language as CodeableConcept: the BCP 47 tag, where it is sure, before what was sent; empty without any.

    It is sure where the field names HL7's table 0296, whose codes are those of ISO 639, or ISO 639 itself, or where the
    manifest's table says the code. A hospital's own code may look like one: CH is Chinese here and Chamorro there.
    """
    concept = builder.coded(segment, field, "0296")
    if not concept:
        return concept
    part = segment.first(field)
    said = builder.source.tables.get(f"{segment.name}-{field}", {}).get(part.get(1))
    codes = [said] if said else [part.get(at) for at in (1, 4) if _names_iso_639(part.get(at + 2))]
    if tag := next((tag for code in codes if (tag := tag_of(code))), ""):
        concept.setdefault("coding", []).insert(0, {"system": BCP_47, "code": tag})
    return concept


def tag_of(code: str) -> str:
    """A code of ISO 639, with script and country behind it or without, as a tag of BCP 47; "" when it is none."""
    found = _TAG.fullmatch(code.strip())
    if found is None:
        return ""
    language = _SHORT.get(found[1].lower(), found[1].lower())
    if language not in _PRIMARY:
        return ""
    return "-".join(piece for piece in (language, (found[2] or "").title(), (found[3] or "").upper()) if piece)


def _names_iso_639(system: str) -> bool:
    name = system.upper().replace("-", "").replace(" ", "")
    return name.startswith("ISO639") or name in ("HL70296", "BCP47", "RFC5646")

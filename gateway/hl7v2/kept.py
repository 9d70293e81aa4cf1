"""Why a value of a message fills nothing: our decisions by place, for the account of a message. README.md explains."""

from __future__ import annotations

from typing import Final

_SET_ID = "a running number within the message; the order of the segments says the same"
_ROUTING = "on the way in: it decides who the sender is and how to answer"
_ANSWER = "for the acknowledgement"
_DECODING = "to decode the message"
_WRITING = "to take the message apart"
_SECURITY = "who may see a result is decided by the gateway's own rules, never by a sender's mark"
_BILLING = "about payment, which is no part of a shared result"
_ADMINISTRATION = "about the stay or its administration; what other hospitals need of a stay is taken from other fields"
_LOGISTICS = "about handling within the laboratory; no result depends on it"
_PRIVATE = "a segment of the hospital's own: hooks.py may read it"
_NO_ELEMENT = "no element of the resources that this message becomes says it"
_UNREAD = "no resource is made of this segment in this kind of message"
_OF_OBR = "the OBR's counts where both are sent"
_TIMING = "when and how urgently: OBR-5, OBR-6 or TQ1 count where they are sent"
_NETWORK = "a name in the sender's or the receiver's network; the hospital is known by its manifest"

#: Segment and field → reason.
_BY_FIELD: Final[dict[str, str]] = {
    "MSH-1": _WRITING, "MSH-2": _WRITING,
    **dict.fromkeys(("MSH-3", "MSH-4", "MSH-9", "MSH-12"), _ROUTING),
    **dict.fromkeys(("MSH-5", "MSH-6", "MSH-10", "MSH-11", "MSH-13", "MSH-15", "MSH-16", "MSH-21"), _ANSWER),
    "MSH-7": "for the order of messages in time",
    "MSH-8": _SECURITY, "MSH-18": _DECODING, "MSH-26": _SECURITY,
    "MSH-27": _SECURITY, "MSH-28": _SECURITY, "MSH-17": "the sender's country is that of the hospital",
    "MSH-19": "texts are kept in the language in which they are sent", "MSH-20": _DECODING,
    "MSH-14": _ANSWER, **dict.fromkeys(("MSH-22", "MSH-23", "MSH-24", "MSH-25"), _NETWORK),
    "PID-1": _SET_ID, "PID-10": "what a person is by race decides on no result here",
    "PID-18": _BILLING, "PID-22": "what a person is by ethnic group decides on no result here",
    "PID-27": "military status decides on no result here",
    **dict.fromkeys(("PID-33", "PID-34", "PID-31", "PID-32"), _ADMINISTRATION),
    "PV1-1": _SET_ID, **dict.fromkeys((f"PV1-{at}" for at in range(20, 36)), _BILLING),
    **dict.fromkeys((f"PV1-{at}" for at in (12, 18, 41, 46, 47, 48, 49, 51)), _ADMINISTRATION),
    **dict.fromkeys((f"{name}-1" for name in (
        "OBR", "OBX", "SPM", "NTE", "DG1", "IN1", "FT1", "TQ1", "RGS", "AIL", "AIS", "AIP", "AIG", "TXA", "AL1", "PR1",
        "NK1", "GT1", "IN3", "CON", "DB1")), _SET_ID),
    "EVN-1": "MSH-9 says the event", "TXA-3": "OBX-2 says how the content is written",
    "PV1-39": "the stay is at the hospital that sends", "PV1-43": "the Encounter's earlier versions show its places",
    "NTE-2": "who wrote a note makes no difference to its text",
    "OBR-12": "a warning to those who collect the specimen", "OBR-23": _BILLING,
    **dict.fromkeys((f"OBR-{at}" for at in (18, 19, 20, 21)), "a number of the sender's own, without a system"),
    "OBR-28": "to whom the sender sends copies", "OBR-30": "how the patient is brought", "OBR-33": _ADMINISTRATION,
    "OBR-37": _LOGISTICS, "OBR-38": _LOGISTICS,
    **dict.fromkeys((f"OBR-{at}" for at in (40, 41, 42, 43)), "how the patient is brought"),
    "OBR-44": _BILLING, "OBR-48": _BILLING, "OBR-49": _ADMINISTRATION,
    "OBX-2": "to tell how OBX-5 is written", "OBX-9": "a probability without a place in FHIR R4",
    "OBX-12": "since when the range holds, not when the result was made", "OBX-13": _SECURITY,
    **dict.fromkeys(("ORC-2", "ORC-3", "ORC-8", "ORC-12", "ORC-14", "ORC-33"), _OF_OBR), "ORC-7": _TIMING,
    "OBR-27": _TIMING, "ORC-6": _ANSWER, "ORC-10": "who typed the order in", "ORC-11": "who checked the order",
    "ORC-18": _LOGISTICS, "ORC-19": "who carried out the change of the order", "ORC-20": _BILLING, "ORC-26": _BILLING,
    "ORC-15": "from when a change of the order holds; ORC-9 says when it was made",
    **dict.fromkeys((f"SPM-{at}" for at in (10, 11, 13, 15, 16, 19, 22, 23, 25, 26, 28)), _LOGISTICS),
}
#: Segment → reason for all of its fields.
_BY_SEGMENT: Final[dict[str, str]] = {
    "EVN": "about the event; MSH-7 says when in this kind of message", "SFT": "the sender's software",
    "DSC": "nothing follows in another message",
    "BLG": _BILLING, "FT1": _BILLING, "GT1": _BILLING, "ACC": _BILLING, "IN2": _BILLING, "IN3": _BILLING,
    "PD1": _ADMINISTRATION, "PV2": _ADMINISTRATION, "ROL": _ADMINISTRATION, "UAC": _SECURITY,
    "PDA": "about a death certificate and an autopsy, which are told to the registry of deaths",
    "INV": "about reagents and supplies of the analyser", "EQU": "about the analyser itself",
    "CTI": "about a clinical trial", "CTD": "whom to call at the sender", "ARV": _SECURITY,
    **dict.fromkeys(("NK1", "AL1", "PR1", "PRB", "DB1", "TQ2"), _UNREAD),
    "IN1": _BILLING, "TQ1": _TIMING, "DG1": "of a diagnosis its code or its text is what is needed",
    "PRT": "about somebody or something whose part in a result no element tells", "CON": _SECURITY,
    **dict.fromkeys(("RGS", "AIS", "AIG", "AIL", "AIP", "SCH"), "about the sender's calendar"),
}


#: Segment → reason where none of its fields fills anything in this message.
_IDLE: Final[dict[str, str]] = {
    "PV1": "without a visit number (PV1-19) nothing would find the Encounter again, so none is made",
    "ORC": "of an order that is reported on the OBR says what is needed",
}


_NO_EFFECT = "it changes nothing here: another field says the same, or it says what holds without it"


def read_elsewhere(segment: str, field: int) -> bool:
    """Whether something but the conversion reads a field: to take, decode, route or answer the message."""
    return _BY_FIELD.get(f"{segment}-{field}") in (_ROUTING, _ANSWER, _DECODING, _WRITING)


def reason_for(segment: str, field: int, at_work: bool = True, read: bool = False) -> str:
    """Why a value at ``SEG-field`` that fills nothing does so.

    ``at_work``: another value of the segment fills something. ``read``: the conversion asked for the value.
    """
    if segment.startswith("Z"):
        return _PRIVATE
    known = _BY_FIELD.get(f"{segment}-{field}")
    idle = "" if at_work or known == _SET_ID else _IDLE.get(segment, "")
    return idle or known or (_NO_EFFECT if read else "") or _BY_SEGMENT.get(segment) or _NO_ELEMENT

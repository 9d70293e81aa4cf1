"""ORU and OUL: observation results as FHIR R4 resources (guide: message map ORU_R01; OUL after v2.8.2 7.3.6 to 7.3.8).

The segments are gathered into patients, orders and specimens first (`gateway.hl7v2.grouping`). Each order gives a
ServiceRequest, its Specimens, its Observations and a DiagnosticReport; each message one Provenance.
"""

from __future__ import annotations

from gateway.errors import Category, GatewayError
from gateway.hl7v2.builder import Builder
from gateway.hl7v2.grouping import PatientResults, grouped
from gateway.hl7v2.message import Message
from gateway.hl7v2.observation import Report, add_observation, category_of, results_of
from gateway.hl7v2.parents import add_relations
from gateway.hl7v2.people import encounter_from, hospital, patient_from
from gateway.hl7v2.provenance import add_provenance
from gateway.hl7v2.report import add_report, add_specimen_observations
from gateway.hl7v2.request import Subject
from gateway.hl7v2.specimen import add_specimen, is_control
from gateway.source import Conversion, Remark, Source


def convert_oru(message: Message, source: Source) -> Conversion:
    """The resources of one ORU or OUL message, in dependency order; INVALID names what is missing."""
    builder = Builder(message, source)
    groups = grouped(builder)
    if message.first("SPM") is not None:
        _leave_controls_out(groups, builder)
    hospital(builder)
    for group in groups:
        patient, key = patient_from(group.pid, builder)
        encounter = encounter_from(group.pv1, patient, builder) if group.pv1 else None
        subject = Subject(patient, key, encounter, group.notes)
        for result in group.results:
            add_observation(result, None, subject, builder)
        add_relations([add_report(order, subject, builder) for order in group.orders], builder)
        if group.specimens:
            _add_specimens(group, subject, builder)
    add_provenance(builder)
    return builder.finished()


def _add_specimens(group: PatientResults, subject: Subject, builder: Builder) -> None:
    """Specimens without an order (OUL as of 2.7): what became of a tube, such as its refusal."""
    for at, specimen in enumerate(group.specimens, 1):
        reference = add_specimen(specimen, f"{subject.key}|{at}", subject.patient, builder.sent_at, builder)
        about = Report("", results_of("", "", builder), builder.sent_at, category_of("laboratory"), {}, None, [], [],
                       {})
        add_specimen_observations(specimen, reference, about, subject, builder)


def _leave_controls_out(groups: list[PatientResults], builder: Builder) -> None:
    """Results of control specimens (SPM-11) are nobody's; UNSUPPORTED when the message holds no others."""
    left = 0
    for group in groups:
        orders, specimens = len(group.orders), len(group.specimens)
        group.orders = [order for order in group.orders if not order.specimens
                        or not all(is_control(specimen, builder) for specimen in order.specimens)]
        group.specimens = [specimen for specimen in group.specimens if not is_control(specimen, builder)]
        left += orders + specimens - len(group.orders) - len(group.specimens)
    if not left:
        return
    groups[:] = [group for group in groups if group.orders or group.specimens]
    if not groups:
        raise GatewayError(Category.UNSUPPORTED, "results of control specimens are no patient's; send results of "
                           "patients alone", "SPM-11", detail="message-type")
    builder.conversion.remarks.append(Remark("SPM-11", "results of control specimens are no patient's; they are kept "
                                             "in the original alone"))

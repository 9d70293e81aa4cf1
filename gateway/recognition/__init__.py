"""Mutual recognition: what an earlier result is worth for an order, what was decided, what may be billed.

From pure to impure; each file is one idea:

    model.py        the values that everything here speaks of                                        pure
    rules.py        RuleSet: one version of the catalogue (items, coverage, windows, marks …)         pure
    tables.py       RuleSet from its tables; what is refused, with table and line                     pure
    consistency.py  whether tables agree with each other and with earlier versions                    pure
    library.py      a version as a FHIR Library with its tables                                       pure
    published.py    CodeSystem, ConceptMap, ValueSet, OrganizationAffiliation made of a version       pure
    difference.py   what differs between two versions; all that one says of an item                   pure
    versions.py     Rulebook: every loaded version, and which one holds at a time; kept fresh from the store
    loading.py      what may be loaded, changed, taken back, and what is written beside it
    marks.py        the mark on a resource at ingestion                                               pure
    coverage.py     which earlier items cover an ordered one                                          pure
    verdict.py      judge(): the nine steps with their trace                                          pure
    orders.py       ServiceRequest, Encounter, Procedure … → Order                                    pure
    people.py       which person an order is about, and whether demographics conflict
    checking.py     person, results, reports and images behind a signature's verdicts; reads only
    decision.py     the state machine of an order line: Line + Action → Line + events                 pure
    billing.py      what a bill for a line is answered                                                pure
    issue.py        DetectedIssue, Provenance, ServiceRequest of a decision                           pure
    pending.py      reminders that wait, and lines as they were checked
    detail.py       what the plug-in shows of a line
    notices.py      a reminder as one sentence, for the answer to a message                           pure
    service.py      Recognition: what the edges and the pipeline call
    figures.py      what a line counts in the figures; rates, index                                   pure
    report.py       a question about the figures and its answer
    measure.py      the answer as JSON, CSV and MeasureReport                                         pure
    settlement.py   the fund's share: fees, filters, rule, allocation                                 pure
    evidence.py     the files of a settlement                                                         pure

The call that everybody makes:

    recognition = Recognition(settings, store, adapters)       # one per process, safe from many threads
    recognition.rules(now=None) -> RuleSet                      # the version that holds (now)
    recognition.source(institution) -> Source | None            # to map local codes: adapters' Source of a slug
    recognition.check(Signature) -> list[Checked]               # verdicts; what must be recorded is recorded
    recognition.act(Action, caller) -> Outcome                  # view, recognise, …; CONFLICT, FORBIDDEN, NOT_FOUND
    recognition.bill(BillRequest, caller) -> BillAnswer         # allow or deny; an event each
    recognition.reminders(caller, institution, patient=…, doctor=…) -> list[Checked]   # pending ones, for the plug-in
    recognition.line(line_id, caller) -> Checked                # one line as it stands
    recognition.summary(Signature) -> Summary                   # patient-view: there are no orders yet
    recognition.detail(line_id, caller) -> dict                 # what the plug-in shows; JSON-able
    recognition.person_of(institution, patient) -> int          # 0: nobody whom we know
"""

"""The truth tables, for SQLite and PostgreSQL. They migrate (`migrations.py`); index tables are in `index_schema.py`.

Every large table of a person's data carries ``person``, its later shard key. Times are microseconds since the epoch.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, Text, text

metadata = MetaData()

#: Single values: ``schema`` (version), ``index`` (hash of the index definition), ``secret:<name>``,
#: ``sequence:<stream>`` …
meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False),
             sqlite_with_rowid=False)

#: SQLite's next numbers; PostgreSQL has sequences of the same names.
counter = Table("counter", metadata, Column("name", Text, primary_key=True),
                Column("value", BigInteger, nullable=False), sqlite_with_rowid=False)
COUNTERS = ("resource", "person", "inbox", "study", "instance", "institution", "dictionary", "line")

institution = Table("institution", metadata, Column("number", SmallInteger, primary_key=True, autoincrement=False),
                    Column("slug", Text, nullable=False, unique=True))

dictionary = Table(
    "dictionary", metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("stage", SmallInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("dictionary_stage", "kind", "stage", unique=True),
)

#: The current version of each resource. ``id``: see `types.key`. A deleted one has no body. Rows never go away.
resource = Table(
    "resource", metadata,
    Column("pk", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("person", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("as_of", BigInteger),
    Column("version", Integer, nullable=False),
    Column("dict", Integer, nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("institution", SmallInteger, nullable=False),
    Column("id", LargeBinary, nullable=False),
    Column("body", LargeBinary),
    Index("resource_id", "id", unique=True),
    Index("resource_updated", "type", "updated"),
)

#: Former versions; the same columns as above where they can change.
history = Table(
    "history", metadata,
    Column("pk", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("updated", BigInteger, nullable=False),
    Column("dict", Integer, nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("body", LargeBinary),
    Index("history_updated", "type", "updated"),
    sqlite_with_rowid=False,
)

#: The person of each Patient, also of one that is only referred to yet. ``patient``: `types.pack` of its id.
patient_person = Table(
    "patient_person", metadata, Column("patient", LargeBinary, primary_key=True),
    Column("person", BigInteger, nullable=False), Index("patient_person_person", "person"), sqlite_with_rowid=False)

#: Digests of the national identifiers that a Patient carries: Patients with an equal one are one person.
person_key = Table(
    "person_key", metadata, Column("key", LargeBinary, primary_key=True),
    Column("patient", LargeBinary, primary_key=True), Index("person_key_patient", "patient"), sqlite_with_rowid=False)

#: Each Patient that went from one person to another, so that older audit rows can be followed.
person_change = Table(
    "person_change", metadata,
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("patient", LargeBinary, primary_key=True),
    Column("before", BigInteger, nullable=False),
    Column("after", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: What arrived, as it arrived. ``digest`` covers protocol and raw bytes; ``owner`` is the process that works on it.
inbox = Table(
    "inbox", metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("received", BigInteger, nullable=False),
    Column("settled", BigInteger),
    Column("owner", BigInteger),
    Column("dict", Integer, nullable=False),
    Column("attempts", SmallInteger, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("institution", SmallInteger, nullable=False),
    Column("resources", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("facility", Text, nullable=False),
    Column("control_id", Text, nullable=False),
    Column("message_type", Text, nullable=False),
    Column("category", Text),
    Column("message", Text),
    Column("where", Text),
    Column("detail", Text),
    Column("remark", Text),
    Column("remark_where", Text),
    Column("raw", LargeBinary, nullable=False),
    Index("inbox_digest", "digest", unique=True),
    Index("inbox_unsettled", "status", "id", sqlite_where=text("status <> 1"), postgresql_where=text("status <> 1")),
)
#: The numbers of ``inbox.status``.
STATUSES = ("received", "stored", "quarantined")

unmapped = Table(
    "unmapped", metadata,
    Column("institution", SmallInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    Column("local", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("display", Text, nullable=False),
    Column("where", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: DICOM studies; one with ``generation`` > ``published`` has instances that its ImagingStudy does not show yet.
study = Table(
    "study", metadata,
    Column("key", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("first_dirty", BigInteger, nullable=False),
    Column("last_dirty", BigInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("published", Integer, nullable=False),
    Column("institution", SmallInteger, nullable=False),
    Column("uid", Text, nullable=False),
    Index("study_uid", "uid", "institution", unique=True),
    Index("study_dirty", "first_dirty", sqlite_where=text("generation > published"),
          postgresql_where=text("generation > published")),
)

#: Stored DICOM objects. ``kept`` 1: the study's; 0: other bytes under a SOP Instance UID that came before, set aside.
instance = Table(
    "instance", metadata,
    Column("pk", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("study", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("dict", Integer, nullable=False),
    Column("kept", SmallInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("sop_uid", Text, nullable=False),
    Column("series_uid", Text, nullable=False),
    Column("object_key", Text, nullable=False),
    Column("calling_aet", Text, nullable=False),
    Column("facts", LargeBinary, nullable=False),
    Index("instance_sop", "sop_uid", "study"),
    Index("instance_study", "study"),
)

client = Table(
    "client", metadata,
    Column("name", Text, primary_key=True),
    Column("institution", Text),
    Column("scopes", Text, nullable=False),
    Column("token", LargeBinary, nullable=False, unique=True),
    Column("created", BigInteger, nullable=False),
    Column("revoked", BigInteger),
    sqlite_with_rowid=False,
)

# ------------------------------------------------------------------ recognition (since version 2)

#: An order line as it stands; ``event`` says how it came there. ``id``: 16 bytes of its UUID; ``patient``: packed id of
#: the Patient that it is about, whose person it follows; ``body``: JSON.
line = Table(
    "line", metadata,
    Column("pk", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("person", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("dict", Integer, nullable=False),
    Column("institution", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("id", LargeBinary, nullable=False),
    Column("patient", LargeBinary, nullable=False),
    Column("item", Text, nullable=False),
    Column("number", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("line_id", "id", unique=True),
    Index("line_person", "person", "created"),
    Index("line_state", "institution", "state", "created"),
    Index("line_created", "created"),
)
#: The numbers of ``line.state``: append only.
STATES = ("ordered", "reminded", "viewed", "recognised", "not_recognised")

#: What happened to order lines, in one chain: ``hash`` is SHA-256 of the hash before it and the text. ``line``: its pk.
#: ``seq`` has no gap. The other columns repeat what the text says. The head is in ``meta``: ``ledger``.
event = Table(
    "event", metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("dict", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("text", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Index("event_line", "line", "seq"),
)

#: The lines that a card showed. ``uuid``: 16 bytes.
card = Table(
    "card", metadata, Column("uuid", LargeBinary, primary_key=True),
    Column("line", BigInteger, primary_key=True, autoincrement=False), sqlite_with_rowid=False)

#: What may be used once until it expires (a JWT's ``jti``). ``key``: digest of kind and value.
once = Table(
    "once", metadata, Column("key", LargeBinary, primary_key=True), Column("expires", BigInteger, nullable=False),
    Index("once_expires", "expires"), sqlite_with_rowid=False)

#: What `gateway.store.figures` adds up for a cell, in the order of its columns.
MEASURES = ("orders", "mapped", "reminded", "interruptive", "viewed", "decided", "recognised", "refused", "lawful",
            "under_review", "faults", "explained", "billed", "skipped", "bypassed", "blocked", "reordered", "quoted",
            "settled", "saved_cents", "fund_cents", "issued", "issued_decided", "issued_recognised", "issued_faults")
#: Sums over order lines. ``span``: 0 day (``period``: days since 1970-01-01), 1 month (``period``: yyyymm);
#: ``dim``: 0 all, then department, doctor, item, issuer, reason; ``value``: which of them, empty for all.
figure = Table(
    "figure", metadata,
    Column("dim", SmallInteger, primary_key=True, autoincrement=False),
    Column("institution", SmallInteger, primary_key=True, autoincrement=False),
    Column("span", SmallInteger, primary_key=True, autoincrement=False),
    Column("period", Integer, primary_key=True, autoincrement=False),
    Column("value", Text, primary_key=True),
    *(Column(name, BigInteger if name.endswith("_cents") else Integer, nullable=False) for name in MEASURES),
    sqlite_with_rowid=False,
)

#: What of a line is in the figures now, so that it can be taken out again. ``line``: its pk.
counted = Table(
    "counted", metadata,
    Column("line", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False))

#: How long stored messages took from received to visible: messages by upper bound in milliseconds. ``span`` and
#: ``period`` as in ``figure``, of the day on which they were received.
freshness = Table(
    "freshness", metadata,
    Column("institution", SmallInteger, primary_key=True, autoincrement=False),
    Column("span", SmallInteger, primary_key=True, autoincrement=False),
    Column("period", Integer, primary_key=True, autoincrement=False),
    Column("bound", Integer, primary_key=True, autoincrement=False),
    Column("messages", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: The tables of version 2.
RECOGNITION = (line, event, card, once, figure, freshness, counted)

#: Who did what to whose data. On SQLite a database file of its own. ``persons``: numbers, comma-separated.
audit_metadata = MetaData()
audit = Table(
    "audit", audit_metadata,
    Column("pk", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("outcome", SmallInteger, nullable=False),
    Column("caller", Text, nullable=False),
    Column("institution", Text),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("persons", Text, nullable=False),
)

"""Order lines and their chained events: written with the resources, one winner for each version, tampering found."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from store_samples import NATIONAL, NUMBERS, change, check_consistent, line, observation, patient, put

from gateway.__main__ import cli
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.recognition import model
from gateway.store import Store, migrations, open_store, schema, units, verifying
from gateway.store.codec import Codec
from gateway.store.ledger import GENESIS
from gateway.store.model import Access, Line, LineChange, Problem, Put, Unit

_WORKERS = Path(__file__).with_name("store_workers.py")
_ROOT = Path(__file__).parents[1]


def write(store: Store, *changes: LineChange, operations: tuple[Put, ...] = ()) -> Unit:
    """Write changes of lines."""
    unit = Unit(list(operations), ledger=list(changes))
    store.write(unit, GATEWAY)
    return unit


def moved(store: Store, *changes: LineChange, operations: tuple[Put, ...] = ()) -> bool:
    """Whether the store refuses the changes because a line is of another version."""
    with pytest.raises(GatewayError) as caught:
        write(store, *changes, operations=operations)
    assert (Category.CONFLICT, "moved") == (caught.value.category, caught.value.detail)
    return True


# -------------------------------------------------------------------- lines


def test_the_states_are_those_of_recognition() -> None:
    """The numbers of ``line.state`` stand for the states of the state machine, each once."""
    assert set(model.State) == set(schema.STATES)


def test_a_line_is_written_with_its_event_and_read_in_every_way(store: Store) -> None:
    """What was written is read by id, person, card, institution, state and time; nothing else is."""
    put(store, patient("p1", NUMBERS[0]))
    person, card = store.persons_of(["p1"])["p1"], str(uuid.uuid4())
    unit = write(store, change(line("1"), "", card, doctor="王"), change(line("2", state="ordered")))
    first, second = (store.lines([line(n).id])[line(n).id] for n in "12")
    assert replace(line("1"), person=person, version=1, created=first.created, updated=first.updated,
                   body={"patient": "p1", "doctor": "王"}) == first
    assert [first.created, first.created] == [first.updated, second.created]
    assert {first.id: first} == store.lines([first.id, str(uuid.uuid4())])
    assert [second, first] == store.lines_of(person) == store.lines_of(person, "TCH001X", first.created)
    assert [] == store.lines_of(person, "TCH002H") == store.lines_of(person, since=first.created + 1)
    assert [first] == store.lines_of_card(card)
    assert [] == store.lines_of_card(str(uuid.uuid4())) == store.lines_of(person + 1)
    assert [second, first] == store.lines_where("nb") == store.lines_where()
    assert [first] == store.lines_where("nb", "reminded") == store.lines_where(state="reminded")
    assert [] == store.lines_where("hz") == store.lines_where("nb", "viewed") == store.lines_where(state="nonsense")
    assert [] == store.lines_where(until=first.created) == store.lines_where("nb", since=first.created + 1)
    assert [(1, first.id, "reminded"), (2, second.id, "ordered")] == [(e.seq, e.line, e.kind) for e in unit.kept]
    assert unit.kept == store.events()
    assert [unit.kept[1]] == store.events(second.id) == store.events(after=1)
    assert [] == store.events(str(uuid.uuid4()))


def test_pages_of_lines_show_each_line_once(store: Store) -> None:
    """``after`` goes on behind the last line seen, with or without institution and state."""
    for n in range(23):
        write(store, change(line(str(n), institution=("nb", "hz")[n % 2], state=("viewed", "ordered")[n % 3 == 0])))

    def paged(**where: Any) -> list[str]:
        found: list[Line] = []
        while page := store.lines_where(**where, limit=4, after=found[-1].id if found else None):
            found += page
        assert sorted(found, key=lambda line: -line.created) == found
        return sorted((line.number for line in found), key=int)
    assert [str(n) for n in range(23)] == paged()
    assert [str(n) for n in range(23) if n % 2 == 0] == paged(institution="nb")
    assert [str(n) for n in range(23) if n % 3] == paged(state="viewed")
    assert [str(n) for n in range(23) if n % 2 and n % 3 == 0] == paged(institution="hz", state="ordered")
    with pytest.raises(GatewayError) as caught:
        store.lines_where(after=str(uuid.uuid4()))
    assert Category.NOT_FOUND is caught.value.category


def test_a_change_of_another_version_is_refused_whole(store: Store) -> None:
    """Who read an older version is told ``moved``; neither resource nor event of the unit is there."""
    write(store, change(line("1")))
    one = store.lines([line("1").id])[line("1").id]
    write(store, change(one, "viewed"))
    assert moved(store, change(one, "recognised"), operations=(Put(observation("o1", "p1")),))
    assert moved(store, change(line("1")))  # it exists
    assert moved(store, change(replace(line("2"), version=1)))  # it does not
    assert moved(store, change(line("3")), change(one, "recognised"))
    assert store.read("Observation", "o1", GATEWAY) is None
    assert ["reminded", "viewed"] == [e.kind for e in store.events()]
    assert {} == store.lines([line("2").id, line("3").id])
    [now] = store.lines([one.id]).values()
    assert (2, "viewed", one.created) == (now.version, now.state, now.created)
    assert now.updated > one.updated


def test_a_refused_resource_leaves_no_event(store: Store) -> None:
    """A unit whose resource is refused changes no line, also when it shares a commit with others."""
    put(store, observation("o1", "p1"))
    with pytest.raises(GatewayError):
        write(store, change(line("1")), operations=(Put(observation("o1", "p1", "7"), if_match=5),))
    write(store, change(line("2")))
    assert [line("2").id] == [e.line for e in store.events()]
    check_consistent(store)


@pytest.mark.parametrize("broken", [
    LineChange(line("1")),  # a new line without an event
    change(line("1"), "forgotten"),
    LineChange(line("1"), ({"kind": "x", "when": object()},)),
    change(line("1\0")),
    change(replace(line("1"), id="no uuid")),
    change(replace(line("1"), id=line("1").id.upper())),
    change(line("1"), "", "no uuid"),
])
def test_what_no_ledger_can_hold_is_refused_at_once(store: Store, broken: LineChange) -> None:
    """A new line without event, an unknown state, an event that is no JSON, a bad id: refused before the writer."""
    with pytest.raises((GatewayError, TypeError)):
        write(store, broken)
    assert [] == store.events()


@pytest.mark.parametrize("id", ["", "x", "sixteen letters!", line("1").id.upper(), f"{{{line('1').id}}}", "\0" * 36])
def test_what_is_no_id_of_a_line_finds_none(store: Store, id: str) -> None:
    """Whatever a client sends as an id: nothing is found, and nothing breaks."""
    write(store, change(line("1"), "", line("2").id))
    assert {} == store.lines([id])
    assert [] == store.events(id) == store.lines_of_card(id)
    with pytest.raises(GatewayError) as caught:
        store.lines_where(after=id)
    assert Category.NOT_FOUND is caught.value.category


def test_a_unit_names_a_line_once(store: Store) -> None:
    """Two changes of one line in a unit are refused: which would be the first?"""
    with pytest.raises(GatewayError) as caught:
        write(store, change(line("1")), change(line("1"), "viewed"))
    assert Category.INVALID is caught.value.category


def test_the_audit_row_names_the_persons_of_the_lines(store: Store) -> None:
    """An access that changes a line is kept with the line's person."""
    put(store, patient("p1", NUMBERS[0]))
    access = Access("c", "nb", "recognise", "line", 200)
    store.write(Unit(ledger=[change(line("1"))], access=access), GATEWAY)
    [row] = store.audit_rows()
    assert (store.persons_of(["p1"])["p1"],) == row.access.persons


# -------------------------------------------------------------------- persons


def test_a_line_follows_its_patient(store: Store) -> None:
    """Lines go with their Patient when it becomes one person with another, and when it leaves again."""
    put(store, patient("p1", NUMBERS[0]))
    put(store, patient("p2"))
    write(store, change(line("1", "p1")), change(line("2", "p2")))
    one, two = (store.persons_of([p])[p] for p in ("p1", "p2"))
    assert [["1"], ["2"]] == [[found.number for found in store.lines_of(p)] for p in (one, two)]
    put(store, patient("p2", NUMBERS[0]))
    assert ["2", "1"] == [found.number for found in store.lines_of(store.persons_of(["p1"])["p1"])]
    check_consistent(store)
    put(store, patient("p2", NUMBERS[1]))
    assert ["1"] == [found.number for found in store.lines_of(store.persons_of(["p1"])["p1"])]
    assert ["2"] == [found.number for found in store.lines_of(store.persons_of(["p2"])["p2"])]
    check_consistent(store)


def test_who_read_the_person_before_a_merge_is_put_right(store: Store) -> None:
    """The person of a new line is that of its Patient at the commit, whatever the caller believes."""
    put(store, patient("p1", NUMBERS[0]))
    late = replace(line("1", "p2"), person=store.persons_of(["p1"])["p1"] + 1000)
    write(store, change(late), operations=(Put(patient("p2", NUMBERS[0])),))
    assert ["1"] == [found.number for found in store.lines_of(store.persons_of(["p1"])["p1"])]
    [now] = store.lines([late.id]).values()
    write(store, LineChange(replace(now, body={"patient": "p3"}), ({"kind": "x"},)),
          operations=(Put(patient("p3")),))
    assert ["1"] == [found.number for found in store.lines_of(store.persons_of(["p3"])["p3"])]
    check_consistent(store)


def test_the_person_of_a_national_identifier(store: Store) -> None:
    """Who carries it; nobody where no one does, and where two identifiers lead to two persons."""
    put(store, patient("p1", NUMBERS[0]))
    put(store, patient("p2", NUMBERS[1]))
    keys = [f"{NATIONAL}|{number}" for number in NUMBERS]
    persons = store.persons_of(["p1", "p2"])
    assert [persons["p1"], persons["p2"], 0] == [store.person_of([key]) for key in keys[:3]]
    assert 0 == store.person_of(keys[:2]) == store.person_of([])
    assert persons["p1"] == store.person_of([keys[0], keys[2]])


# -------------------------------------------------------------------- the chain


def test_each_hash_follows_from_the_one_before(store: Store) -> None:
    """SHA-256 of the hash before and the text, which says number, time, line, version and kind in sorted order."""
    write(store, change(line("1")), change(line("2")))
    write(store, LineChange(replace(line("1"), version=1), ({"kind": "quoted", "at": 1, "seq": 7, "zz": "值"},
                                                            {"kind": "blocked"})))
    before, at = GENESIS, 0
    for seq, event in enumerate(store.events(), 1):
        assert sha256(before + event.text.encode()).digest() == event.hash
        said = json.loads(event.text)
        assert json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == event.text
        assert (seq, event.at, event.line, event.kind) == tuple(said[k] for k in ("seq", "at", "line", "kind"))
        assert event.at >= at
        before, at = event.hash, event.at
    assert [1, 1, 2, 2] == [json.loads(event.text)["version"] for event in store.events()]
    assert ["digest" in event.text for event in store.events()] == [True, True, False, True]
    verified = store.verify_events()
    assert (4, 2, [], 4, before.hex()) == tuple(getattr(verified, name) for name in verified.__slots__)


def test_an_empty_ledger_is_whole(store: Store) -> None:
    """Nothing to find; the head is number 0 with 64 zeros, which may be expected like any other."""
    verified = store.verify_events(expect=(0, "0" * 64))
    assert (0, [], 0, "0" * 64) == (verified.events, verified.problems, verified.head_seq, verified.head_hash)


def test_eight_threads_make_one_chain(store: Store) -> None:
    """Units that share a commit, refused ones among them, leave a chain without gap or fork."""
    refused = []

    def run(thread: int) -> None:
        for n in range(20):
            write(store, *(change(line(f"{thread}-{n}-{k}", f"p{n % 5}"), "", str(uuid.uuid4())) for k in range(3)),
                  operations=(Put(observation(f"o{thread}-{n}", f"p{n % 5}")),))
            try:
                write(store, change(line(f"all-{n}")))
            except GatewayError as error:
                refused.append(error.detail)
    _in_threads(run, 8)
    assert ["moved"] * 140 == refused
    assert 8 * 20 * 3 + 20 == check_events(store)
    check_consistent(store)


def test_one_of_eight_wins(store: Store) -> None:
    """All change the same version of a line at once: one event, seven ``moved``."""
    write(store, change(line("1")))
    [one] = store.lines([line("1").id]).values()
    outcomes: list[str] = []

    def run(thread: int) -> None:
        try:
            write(store, change(one, "viewed", doctor=str(thread)))
            outcomes.append("won")
        except GatewayError as error:
            outcomes.append(error.detail)
    _in_threads(run, 8)
    assert ["moved"] * 7 + ["won"] == sorted(outcomes)
    assert ["reminded", "viewed"] == [e.kind for e in store.events()]


def test_two_processes_make_one_chain_and_each_change_has_one_winner(store: Store, settings: Settings) -> None:
    """Two processes change the same lines and their own: every version has one event, and the chain is whole."""
    with _running(settings, "decide", "a", "b") as processes:
        won = [int(process.communicate(timeout=120)[0].split()[-1]) for process in processes]
        assert [0, 0] == [process.returncode for process in processes]
    assert check_events(store) == sum(won)
    versions: dict[str, list[int]] = {}
    for event in store.events(limit=10_000):
        versions.setdefault(event.line, []).append(json.loads(event.text)["version"])
    assert all(list(range(1, len(found) + 1)) == found for found in versions.values())
    check_consistent(store)


@pytest.mark.parametrize("delay", [0.3, 0.7])
def test_kill_9_leaves_lines_and_events_together(store: Store, settings: Settings, delay: float) -> None:
    """Whatever moment a process dies at, the chain is whole and holds all that was acknowledged."""
    with _running(settings, "decide_endless", "a", "b") as processes:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        time.sleep(delay)
        for process in processes:
            process.kill()
        acknowledged = [process.communicate()[0] for process in processes]
    done = {seed: 1 + int(out[:out.rindex("\n")].split()[-1]) for seed, out in zip("ab", acknowledged, strict=True)}
    there = {event.line for event in store.events(limit=100_000)}
    assert all(line(f"{seed}-{n}").id in there for seed, count in done.items() for n in range(count))
    check_events(store)
    check_consistent(store)


def check_events(store: Store) -> int:
    """The chain is whole; how many events it has."""
    verified = store.verify_events()
    assert [] == verified.problems
    return verified.events


# -------------------------------------------------------------------- tampering


def _head(run: Callable[..., Any], seq: int, digest: bytes, at: int = 1) -> None:
    run("UPDATE meta SET value = ? WHERE name = 'ledger'", f"{seq}:{digest.hex()}:{at}")


def _filled(store: Store) -> None:
    for n in range(4):
        write(store, change(line(str(n), state="ordered")))
        [one] = store.lines([line(str(n)).id]).values()
        write(store, change(one, "reminded"))
        write(store, LineChange(replace(one, version=2, state="reminded"), ({"kind": "billed"},)))


@pytest.fixture
def raw(store: Store, settings: Settings) -> Iterator[Callable[..., Any]]:
    """Runs SQL by hand, as one who has the database does."""
    if settings.database_url:
        url = sa.make_url(settings.database_url)
        with closing(psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False),
                                     autocommit=True)) as server:
            yield lambda sql, *values: server.execute(sql.replace("?", "%s"), values)
    else:
        with closing(sqlite3.connect(settings.data / "huren.sqlite", isolation_level=None)) as file:
            yield lambda sql, *values: file.execute(sql, values)


_TAMPERED: dict[str, tuple[str, str, int]] = {
    "text": ("UPDATE event SET text = (SELECT text FROM event WHERE seq = 4), dict = 0 WHERE seq = 7", "hash", 7),
    "a damaged text": ("UPDATE event SET text = hash WHERE seq = 7", "hash", 7),
    "hash": ("UPDATE event SET hash = (SELECT hash FROM event WHERE seq = 4) WHERE seq = 7", "hash", 7),
    "time": ("UPDATE event SET at = at + 1 WHERE seq = 7", "columns", 7),
    "an earlier time": ("UPDATE event SET at = 5 WHERE seq = 7", "columns", 7),
    "kind": ("UPDATE event SET kind = 'quoted' WHERE seq = 7", "columns", 7),
    "another line": ("UPDATE event SET line = 1 WHERE seq = 7", "another order line", 7),
    "a line that is not there": ("UPDATE event SET line = 9999 WHERE seq = 7", "order line is gone", 7),
    "one missing": ("DELETE FROM event WHERE seq = 7", "events 7 to 7 are missing", 8),
    "the first missing": ("DELETE FROM event WHERE seq = 1", "events 1 to 1 are missing", 2),
    "all missing": ("DELETE FROM event", "events 1 to 12 at the end are missing", 1),
    "cut tail": ("DELETE FROM event WHERE seq > 10", "events 11 to 12 at the end are missing", 11),
    "appended": ("INSERT INTO event (seq, at, line, dict, kind, text, hash) "
                 "SELECT 13, at, line, dict, kind, text, hash FROM event WHERE seq = 12", "put in after the end", 13),
    "head": ("UPDATE meta SET value = '12:00:1' WHERE name = 'ledger'", "head names", 12),
    "state": ("UPDATE line SET state = 3 WHERE number = '2'", "not as its last event", 9),
    "state and version": ("UPDATE line SET state = 3, version = 4 WHERE number = '2'", "in another state", 9),
    "body": ("UPDATE line SET body = (SELECT text FROM event WHERE seq = 1), dict = 0 WHERE number = '2'",
             "not as its last event", 9),
    "item": ("UPDATE line SET item = 'TCH002H' WHERE number = '2'", "not as its last event", 9),
    "number": ("UPDATE line SET number = '22' WHERE number = '2'", "not as its last event", 9),
    "an older version": ("UPDATE line SET version = 2 WHERE number = '2'", "older version", 9),
    "a line put in": ("INSERT INTO line SELECT 99, person, created, updated, version, line.dict, institution, state, "
                      "hash, patient, item, number, body FROM line, event WHERE number = '2' AND seq = 1",
                      "no event", 0),
    "a line taken out": ("DELETE FROM line WHERE number = '2'", "order line is gone", 7),
}


@pytest.mark.parametrize("kind", _TAMPERED)
def test_tampering_shows(store: Store, raw: Callable[..., Any], kind: str) -> None:
    """Every kind of change by hand is found, at its place and in words that say what it is."""
    _filled(store)
    assert [] == store.verify_events().problems
    sql, sentence, seq = _TAMPERED[kind]
    raw(sql)
    found = store.verify_events().problems
    assert any(sentence in problem.sentence and problem.seq == seq for problem in found), found


def test_events_that_changed_places_show(store: Store, raw: Callable[..., Any]) -> None:
    """Two events that were exchanged, numbers and all, do not follow from what is before them."""
    _filled(store)
    for old, new in ((4, 1000), (5, 4), (1000, 5)):
        raw("UPDATE event SET seq = ? WHERE seq = ?", new, old)
    problems = store.verify_events().problems
    assert {4, 5} <= {problem.seq for problem in problems}


def test_a_renumbered_tail_shows(store: Store, raw: Callable[..., Any]) -> None:
    """Closing the gap that a removed event left does not hide it."""
    _filled(store)
    raw("DELETE FROM event WHERE seq = 7")
    for seq in range(8, 13):
        raw("UPDATE event SET seq = ? WHERE seq = ?", seq - 1, seq)
    raw("UPDATE meta SET value = ? WHERE name = 'ledger'", f"11:{store.events()[-1].hash.hex()}:1")
    problems = store.verify_events().problems
    assert 7 == min(problem.seq for problem in problems) and "hash" in problems[0].sentence


def test_only_a_noted_head_finds_a_chain_written_anew(store: Store, raw: Callable[..., Any]) -> None:
    """Who has the database can forge all of it; who noted a head outside finds that, also where it is cut off."""
    write(store, change(line("1")))
    write(store, change(line("2")))
    noted = store.verify_events()
    expect = (noted.head_seq, noted.head_hash)
    write(store, change(line("3")))
    assert [] == store.verify_events(expect=expect).problems
    text = store.events()[1].text.replace("reminded", "REMINDED").encode()
    forged = sha256(store.events()[0].hash + text).digest()
    raw("DELETE FROM event WHERE seq > 1")
    raw("DELETE FROM line WHERE number > '1'")
    _head(raw, 1, store.events()[0].hash)
    assert [] == store.verify_events().problems
    assert [Problem(2, "", "the event that was noted is not there")] == store.verify_events(expect=expect).problems
    write(store, change(line("2")))
    assert forged != store.events()[1].hash
    assert [2] == [problem.seq for problem in store.verify_events(expect=expect).problems]


def test_verifying_goes_on_beside_writers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written during the walk is no problem, whichever part of it has been seen already."""
    monkeypatch.setattr(verifying, "BATCH", 3)
    _filled(store)
    wrote: list[int] = []

    def progress(done: int, total: int) -> None:
        if len(wrote) > 20:
            return  # the walk would follow us for ever, three at a time
        [one] = store.lines([line("0").id]).values()
        write(store, change(one, ("viewed", "recognised")[one.version % 2]), change(line(f"new-{done}-{len(wrote)}")))
        wrote.append(done)
    verified = store.verify_events(progress)
    assert [] == verified.problems
    assert len(wrote) > 8


def test_the_command_prints_the_head_and_what_it_finds(store: Store, settings: Settings, raw: Callable[..., Any],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """`huren audit verify`: status 0 and a head to note; status 1 and each problem with its place."""
    monkeypatch.setenv("HUREN_DATA", str(settings.data))
    if settings.database_url:
        monkeypatch.setenv("HUREN_DATABASE_URL", settings.database_url)
    _filled(store)

    def run(*arguments: str) -> tuple[Any, list[str]]:
        result = CliRunner().invoke(cli, ["audit", "verify", *arguments], standalone_mode=False)
        return result.return_value if result.exception is None else result.exception, result.output.splitlines()
    head = f"12:{store.events()[-1].hash.hex()}"
    assert (0, ["12 events, 4 order lines, 0 problems", f"head {head}"]) == run()
    assert 0 == run("--expect", head)[0]
    assert (1, [f"event 12: {_REWRITTEN}", "12 events, 4 order lines, 1 problems", f"head {head}"]) == \
        run("--expect", f"12:{'0' * 64}")
    assert "hexadecimal" in str(run("--expect", "12")[0])
    raw("UPDATE event SET at = 5 WHERE seq = 7")
    status, said = run()
    assert 1 == status
    assert said[0].startswith(f"event 7 line {line('2').id}: its columns")


_REWRITTEN = "it is not the event that was noted: the chain was written anew"


# -------------------------------------------------------------------- once, newest


def test_a_value_is_used_once(store: Store) -> None:
    """The first use of a value of a kind wins, in any thread; what has expired may be used again and is dropped."""
    later = time.time_ns() // 1000 + 60_000_000
    assert [True, False, True] == [store.use_once(*use, later) for use in (("jti", "a"), ("jti", "a"), ("x", "a"))]
    assert [True, True] == [store.use_once("jti", "old", 5), store.use_once("jti", "old", later)]
    assert not store.use_once("jti", "old", later)
    won: list[bool] = []
    _in_threads(lambda thread: won.append(store.use_once("jti", "all", later)), 8)
    assert [False] * 7 + [True] == sorted(won)


def test_a_value_that_another_process_used_is_used(store: Store, settings: Settings) -> None:
    """Of all processes one may use a value."""
    with _running(settings, "once", "a", "b") as processes:
        used = [process.communicate(timeout=60)[0].split() for process in processes]
    assert ["False", "True"] * 20 == [each for pair in zip(*used, strict=True) for each in sorted(pair)]


def test_what_has_expired_is_dropped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of used values does not grow for ever."""
    monkeypatch.setattr("gateway.store.ledger.SWEEP", 4)
    for n in range(9):
        store.use_once("jti", str(n), 5)
    with store._database.read() as reader:
        assert reader.all("SELECT count(*) FROM once")[0][0] <= 4


def test_when_a_type_last_changed(store: Store) -> None:
    """The time of its newest version, a deletion's too; 0 where there is none."""
    assert 0 == store.newest("Library")
    [written] = put(store, {"resourceType": "Library", "id": "l1", "status": "active"})
    put(store, patient("p1"))
    assert written.updated == store.newest("Library")
    [written] = put(store, {"resourceType": "Library", "id": "l1", "status": "retired"})
    assert written.updated == store.newest("Library")


# -------------------------------------------------------------------- version 1


def test_a_database_of_version_1_is_upgraded_with_its_data(store: Store, settings: Settings, tmp_path: Path,
                                                          raw: Callable[..., Any]) -> None:
    """`huren migrate` and `huren reindex` on a database of the first version: what it held is there, lines work."""
    sqlite = not settings.database_url
    made = units.prepare(Put(observation("o1", "p1")), Codec(lambda n: None, lambda k: (0, 0), lambda k, s, d: 0))
    store.close()
    if sqlite:
        settings = Settings(data=tmp_path / "old")
        settings.data.mkdir()
        with closing(sqlite3.connect(settings.data / "huren.sqlite", isolation_level=None)) as file:
            _version_1(lambda sql, *values: file.execute(sql, values), "sqlite", made)
    else:
        raw("DROP SCHEMA public CASCADE")
        raw("CREATE SCHEMA public")
        _version_1(raw, "postgresql", made)
    with pytest.raises(GatewayError) as caught:
        open_store(settings)
    assert "huren migrate" in caught.value.message
    with pytest.raises(GatewayError) as caught:
        open_store(settings, migrate=True)
    assert "huren reindex" in caught.value.message
    opened = open_store(settings, reindex=True)
    try:
        assert 1 == opened.reindex()
        write(opened, change(line("1")))
        assert ["TCH001X"] == [found.item for found in opened.lines_of(opened.persons_of(["p1"])["p1"])]
        assert 1 == check_consistent(opened)
        with opened._database.read() as reader:
            assert (str(migrations.newest()),) == reader.one("SELECT value FROM meta WHERE name = 'schema'")
            tables = {table: reader.all(f"SELECT * FROM {table}") for table in schema.metadata.tables}
        assert "p1" in opened.persons_of(["p1"]) and tables["figure"] == []
    finally:
        opened.close()


def _version_1(run: Callable[..., Any], dialect: str, made: units.Prepared) -> None:
    for statement in _WORKERS.with_name(f"schema_1_{dialect}.sql").read_text().splitlines():
        run(statement)
    run("INSERT INTO institution (number, slug) VALUES (1, 'hz')")
    run("INSERT INTO patient_person (patient, person) VALUES (?, 1)", made.patient)
    run("INSERT INTO resource (pk, person, updated, version, dict, type, institution, id, body) "
        "VALUES (1, 1, 1000, 1, ?, ?, 1, ?, ?)", made.dict, made.key[0], made.key, made.body)
    if dialect == "sqlite":
        run("UPDATE counter SET value = 2")
    else:
        for name in ("resource", "person", "institution"):
            run(f"SELECT nextval('seq_{name}')")


# -------------------------------------------------------------------- helpers


def _in_threads(run: Callable[[int], Any], count: int) -> None:
    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _running:
    """Programs of `store_workers` as processes, killed at the end."""

    def __init__(self, settings: Settings, program: str, *seeds: str) -> None:
        self._processes = [subprocess.Popen(
            [sys.executable, str(_WORKERS), program, str(settings.data), settings.database_url, seed],
            stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
            env={"PYTHONPATH": f"{_ROOT}:{_WORKERS.parent}"}) for seed in seeds]

    def __enter__(self) -> list[subprocess.Popen[str]]:
        return self._processes

    def __exit__(self, *raised: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

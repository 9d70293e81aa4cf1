"""Versions of the catalogue: which one holds when, fresh in every process, and old ones by their names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bench import catalogue as bench
from gateway import search
from gateway.adapter import load_all
from gateway.caller import GATEWAY
from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.errors import Category, GatewayError
from gateway.pipeline import Pipeline
from gateway.recognition import library
from gateway.recognition.loading import Loading, keep_shipped
from gateway.recognition.rules import Qualification
from gateway.recognition.tables import HEAD, Faults, Head, read_head, ruleset_from_tables
from gateway.recognition.versions import Rulebook, shipped, shipped_tables, with_hospitals
from gateway.source import Resource
from gateway.store import Store
from gateway.store.model import Delete, Put, Unit, Written
from tests.catalogue_samples import head, small

ZONE = ZoneInfo("Asia/Shanghai")
NOW = int(datetime(2026, 11, 22, 10, tzinfo=ZONE).timestamp()) * 1_000_000


def at(*moment: int, zone: ZoneInfo = ZONE) -> int:
    """Microseconds of a local time."""
    return int(datetime(*moment, tzinfo=zone).timestamp() * 1_000_000)  # type: ignore[misc,arg-type]


def version(files: dict[str, bytes]) -> Resource:
    """The Library of tables."""
    found = read_head(files[HEAD], Faults())
    assert found is not None
    return library.library(found, files)


def second(effective: date = date(2026, 12, 1), name: str = "443") -> Resource:
    """The version with 443 items."""
    return version(bench.tables(effective, name))


def loading(store: Store) -> Loading:
    return Loading(Rulebook(store=store), store, lambda: ("hz-demo-1",))


def load(store: Store, resource: Resource, now: int = NOW) -> Written:
    """Load a version as every way in does."""
    put = Put(resource)
    return store.write(Unit([put, *loading(store).complete([put], GATEWAY, now)]), GATEWAY)[0]


def refused(store: Store, resource: Resource, now: int = NOW) -> tuple[Category, str, str]:
    """Why a version cannot be loaded."""
    with pytest.raises(GatewayError) as caught:
        load(store, resource, now)
    return caught.value.category, caught.value.where, caught.value.message


# ---------------------------------------------------------------------------------------------------- which holds

def test_without_a_store_the_shipped_version_holds() -> None:
    """At any time, also before its own first day."""
    book = Rulebook()
    assert book.at(0) == book.at(NOW) == book.version(shipped().version) == shipped()


def test_the_second_version_takes_effect_on_its_date(store: Store) -> None:
    """Beside the first until the last microsecond of the day before, in the gateway's zone, then instead of it."""
    assert load(store, second()).outcome == "created"
    book = Rulebook("Asia/Shanghai", (), store)
    assert {rules.version for rules in book.versions()} == {shipped().version, "443"}
    first, midnight = shipped().version, at(2026, 12, 1)
    assert [book.at(t).version for t in (NOW, midnight - 1, midnight, 10**16)] == [first, first, "443", "443"]
    assert [len(book.at(t).catalogue.items) for t in (NOW, midnight)] == [427, 443]
    berlin = Rulebook("Europe/Berlin", (), store)
    assert berlin.at(midnight).version == first  # there it is still November
    assert berlin.at(at(2026, 12, 1, zone=ZoneInfo("Europe/Berlin"))).version == "443"


def test_a_decision_keeps_its_version(store: Store) -> None:
    """What a decision cited can be read when another version has long taken its place."""
    load(store, second())
    load(store, third())
    book = Rulebook("Asia/Shanghai", load_all([SHIPPED_ADAPTERS]).all, store)
    assert book.at(at(2027, 6, 1)).version == "third"
    held = {name: book.version(name).window("hz-demo-1", "", "ECT0149", date(2027, 6, 1)).days
            for name in (shipped().version, "443", "third")}
    assert held == {shipped().version: 30, "443": 30, "third": 7}


def third() -> Resource:
    """A version that changes one table of the second: windows."""
    return version({HEAD: b'version = "third"\nbase = "443"\neffective = 2027-01-01\n',
                    "windows.tsv": b"scope\titem\tdays\n330100\t*\t7\n"})


def test_an_unknown_version_is_not_found(store: Store) -> None:
    """The refusal says how to see those that there are."""
    with pytest.raises(GatewayError) as caught:
        Rulebook(store=store).version("nowhere")
    assert caught.value.category is Category.NOT_FOUND and "huren catalogue show" in caught.value.message


def test_of_two_versions_of_one_day_the_later_loaded_holds(store: Store) -> None:
    """A fault that is found on the first day is mended on it."""
    load(store, second(date(2026, 11, 22), "wrong"))
    load(store, second(date(2026, 11, 22), "mended"))
    assert Rulebook(store=store).at(NOW).version == "mended"


def test_versions_survive_a_base_that_comes_later_in_the_list(store: Store) -> None:
    """A version is read after its base, whatever the order in which the store names them."""
    load(store, second(name="zz"))
    load(store, version({HEAD: b'version = "aa"\nbase = "zz"\neffective = 2027-01-01\n'}))
    book = Rulebook(store=store)
    assert len(book.version("aa").catalogue.items) == 443


def test_a_library_that_cannot_be_read_stops_nothing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A stored Library with faults is said in the log and does not hold; the others do."""
    bad = {**second(), "content": [{"contentType": library.TSV, "title": "items.tsv", "data": "eA=="}]}
    store.write(Unit([Put(bad)]), GATEWAY)
    assert Rulebook(store=store).at(at(2027, 1, 1)) == shipped()
    assert "443" in caplog.text and "cannot be read" in caplog.text


# ---------------------------------------------------------------------------------------------------- freshness

def test_a_loaded_version_is_seen_without_a_restart(store: Store) -> None:
    """Within a second, by asking as the hot path does."""
    book = Rulebook(store=store)
    moment = at(2027, 1, 1)
    assert book.at(moment) == shipped()
    load(store, second())
    until = time.monotonic() + 1
    while book.at(moment).version != "443":
        assert time.monotonic() < until, "not seen within a second"
        time.sleep(0.01)


def test_a_withdrawn_version_is_gone_without_a_restart(store: Store) -> None:
    """Deleting a version that has not begun lets the one before it hold again."""
    load(store, second())
    book = Rulebook(store=store)
    assert book.at(at(2027, 1, 1)).version == "443"
    delete = Delete("Library", library.PREFIX + "443")
    store.write(Unit([delete, *loading(store).complete([delete], GATEWAY, NOW)]), GATEWAY)
    book.refresh()
    assert book.at(at(2027, 1, 1)) == shipped()
    assert store.history("CodeSystem", None, GATEWAY, 10, None)[0].deleted  # what was published of it went with it


_CHILD = """
import os, sys, time
from pathlib import Path
from gateway.config import Settings
from gateway.recognition.versions import Rulebook
from gateway.store import open_store
store = open_store(Settings(data=Path(sys.argv[1]), database_url=sys.argv[2]))
book = Rulebook(store=store)
moment = int(sys.argv[3])
print(book.at(moment).version, flush=True)
until = time.time() + 20
while book.at(moment).version != "443" and time.time() < until:
    time.sleep(0.005)
print(book.at(moment).version, time.time(), flush=True)
store.close()
"""


def test_another_process_sees_a_load_within_a_second(store: Store, settings: Settings) -> None:
    """Two processes on one database: what one loads, the other judges by."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HUREN_")}
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(settings.data), settings.database_url,
                              str(at(2027, 1, 1))], stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert child.stdout is not None
        assert child.stdout.readline().split() == [shipped().version]
        load(store, second())
        loaded = time.time()
        name, seen = child.stdout.readline().split()
    finally:
        child.kill()
        child.wait()
    assert name == "443"
    assert float(seen) - loaded < 1.0


def test_asking_is_cheap(store: Store) -> None:
    """Under 5 µs a call on the way of a message or a query, looks into the store included."""
    book = Rulebook("Asia/Shanghai", load_all([SHIPPED_ADAPTERS]).all, store)
    book.at(NOW)
    best = min(_timed(lambda: [book.at(NOW) for _ in range(20_000)]) / 20_000 for _ in range(5))
    assert best < 5e-6


def _timed(run: object) -> float:
    began = time.perf_counter()
    run()  # type: ignore[operator]
    return time.perf_counter() - began


def test_many_threads_ask_while_a_version_comes(store: Store) -> None:
    """Every answer is a whole version; nobody waits for the reader and nobody fails."""
    book = Rulebook(store=store)
    moment, seen, wrong = at(2027, 1, 1), set(), []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                rules = book.at(moment)
                seen.add((rules.version, len(rules.catalogue.items)))
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        load(store, second())
        until = time.monotonic() + 5
        while ("443", 443) not in seen and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == [] and seen == {(shipped().version, 427), ("443", 443)}


def test_nobody_is_answered_before_the_first_reading(store: Store) -> None:
    """Threads that ask a new process at once wait for what holds, and do not judge by the shipped version."""
    load(store, second(date(2026, 11, 22)))
    book, answers = Rulebook(store=store), []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        answers.append(book.at(NOW).version)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["443"] * 8


class Failing:
    """A store that cannot be read."""

    def newest(self, resource_type: str) -> int:
        raise GatewayError(Category.BUSY, "the database cannot be read for now; try again")


def test_an_unread_store_is_busy_and_a_read_one_still_holds(store: Store) -> None:
    """Before anything is known nothing is guessed; afterwards what is known is good for the time of a fault."""
    failing: Any = Failing()
    book = Rulebook(store=failing)
    for _ in range(2):
        with pytest.raises(GatewayError) as caught:
            book.at(NOW)
        assert caught.value.category is Category.BUSY
    book._store = store
    load(store, second(date(2026, 11, 22)))
    assert book.at(NOW).version == "443"
    book._store, book._next = failing, 0.0
    assert book.at(NOW).version == "443"


# ---------------------------------------------------------------------------------------------------- hospitals

def hospital(slug: str, quality: tuple[str, ...], region: str = "330100", level: int = 2) -> Any:
    return SimpleNamespace(source=SimpleNamespace(institution=slug, name=f"{slug}医院 · {slug} hospital"),
                           quality=quality, region=region, level=level)


def test_manifests_fill_in_what_the_tables_do_not_name() -> None:
    """``quality`` is a qualification without period for the hospital's region; "all" is every item."""
    rules = with_hospitals(shipped(), [hospital("a", ("all",)), hospital("b", ("CT", "THM001Q")),
                                       hospital("c", ("all",), region=""), hospital("d", ())])
    assert rules.qualifications == (Qualification("a", "*", "330100"), Qualification("b", "CT", "330100"),
                                    Qualification("b", "THM001Q", "330100"))
    assert (rules.name_of("a"), rules.name_of("a", "en"), rules.level_of("a")) == ("a医院", "a hospital", 2)
    assert rules.qualified("a", "d", "ECT0149", date(2026, 1, 1))[1] == ""
    assert rules.qualified("d", "a", "ECT0149", date(2026, 1, 1))[1] == "NO_MARK"


def test_a_table_of_institutions_rules_alone(store: Store) -> None:
    """Who stands in institutions.tsv is qualified by qualifications.tsv only: a withdrawn mark does not come back."""
    load(store, version(small(institutions="a|甲|A|3301=>hz-demo-1|甲|A|3301", windows="a|CT=>hz-demo-1|CT",
                              qualifications="a|*|33|=>hz-demo-1|HM|33|", settings="a/外科=>b/外科")))
    book = Rulebook("Asia/Shanghai", load_all([SHIPPED_ADAPTERS]).all, store)
    rules = book.version("t1")
    assert rules.name_of("hz-demo-1") == "甲"
    assert rules.qualified("hz-demo-1", "b", "ECT0149", date(2026, 6, 1))[1] == "NO_MARK"
    assert rules.qualified("hz-demo-1", "b", "THM001Q", date(2026, 6, 1))[1] == ""
    assert rules.region_of("hz-demo-2") == "330100"  # the manifest's, for it is in no table


def test_results_of_a_new_item_are_there_when_its_version_holds(store: Store, settings: Settings,
                                                                 tmp_path: Path) -> None:
    """A hospital maps its code to an item of the next version; what it sends meanwhile is kept under that item."""
    folder = tmp_path / "hospitals" / "renmin"
    shutil.copytree(SHIPPED_ADAPTERS / "renmin", folder)
    codes = (folder / "codes.csv").read_text("utf-8")
    (folder / "codes.csv").write_text(codes.replace("1001,THM001Q", "1001,THM033A"), "utf-8")
    load(store, second())
    pipeline = Pipeline(settings, store, load_all([folder.parent]))
    raw = (folder / "examples" / "01-cbc-final.hl7").read_bytes()
    assert pipeline.receive_hl7(raw, "127.0.0.1:1").category is None
    rows = search.search(store, GATEWAY, "Observation", "code=http://huren.example/fhir/CodeSystem/recognition-item"
                                                        "|THM033A").rows
    assert len(rows) == 1
    book = pipeline.rulebook
    assert (book.at(NOW).knows("THM033A"), book.at(at(2026, 12, 1)).knows("THM033A")) == (False, True)
    results = store.results(rows[0].person, ["THM033A"], 0)
    assert [result.item for result in results] == ["THM033A"]


# ---------------------------------------------------------------------------------------------------- refusals

def test_a_version_in_effect_is_for_ever(store: Store) -> None:
    """Neither changed nor deleted from the first moment of its day; loading the same again changes nothing."""
    resource = second(date(2026, 11, 23))
    load(store, resource)
    begun = at(2026, 11, 23)
    assert load(store, resource, begun).outcome == "unchanged"
    assert load(store, resource, begun + 10**13).outcome == "unchanged"
    changed = second(date(2026, 11, 24))
    assert refused(store, changed, begun) == (
        Category.CONFLICT, "Library.version",
        "version 443 has been in effect since 2026-11-23 and decisions cite it; load a new version")
    with pytest.raises(GatewayError) as caught:
        loading(store).complete([Delete("Library", library.PREFIX + "443")], GATEWAY, begun)
    assert caught.value.category is Category.CONFLICT
    assert load(store, changed, begun - 1).outcome == "updated"


def test_the_shipped_version_is_nobody_s_to_change(store: Store) -> None:
    """A version of its name is refused."""
    own = version({HEAD: f'version = "{shipped().version}"\neffective = 2027-01-01'.encode()})
    assert refused(store, own)[0] is Category.CONFLICT


def test_what_a_program_shipped_outlives_it(store: Store) -> None:
    """A version of an earlier program can be cited and based on; it holds no more, and nobody changes it."""
    files = small(catalogue=head("0.0.9", date(2020, 1, 1)))
    found = read_head(files[HEAD], Faults())
    assert found is not None
    store.write(Unit([Put(library.library(found, files, shipped=True))]), GATEWAY)
    keep_shipped(store)
    keep_shipped(store)
    book = Rulebook(store=store)
    assert book.at(0) == book.at(NOW) == shipped()
    assert len(book.version("0.0.9").catalogue.items) == 5
    assert (book.kept(), book.loaded()) == ({"0.0.9", shipped().version}, set())
    own = version({HEAD: b'version = "own"\nbase = "0.0.9"\neffective = 2026-01-01\n'})
    assert load(store, own).outcome == "created"  # still the first that somebody loads: it may begin in the past
    assert len(Rulebook(store=store).at(NOW).catalogue.items) == 5
    changed = version(small(catalogue=head("0.0.9", date(2027, 1, 1))))
    assert refused(store, changed)[0] is Category.CONFLICT
    assert refused(store, {**second(), "purpose": library.SHIPPED})[:2] == (Category.INVALID, "Library.purpose")


def test_what_is_kept_of_the_shipped_version_is_the_shipped_version(store: Store) -> None:
    """Its tables make the same rules again."""
    keep_shipped(store)
    row = store.read("Library", library.PREFIX + shipped().version, GATEWAY)
    assert row is not None and row.version == 1
    published = store.read("CodeSystem", f"recognition-item-{shipped().version}", GATEWAY)
    assert published is not None and published.version == 1
    again = ruleset_from_tables(shipped_tables(), (), Head(shipped().version, shipped().effective, shipped().title))
    assert again.changed(catalogue=shipped().catalogue) == shipped()
    assert again.catalogue.items == shipped().catalogue.items
    assert again.catalogue.panels == shipped().catalogue.panels


def test_a_first_version_may_begin_before_the_shipped_one_s_day(store: Store) -> None:
    """Whoever loads a version means it to hold: the shipped one is there until then only."""
    load(store, second(date(2024, 1, 1)))
    assert Rulebook(store=store).at(NOW).version == "443"


def test_the_past_is_not_rewritten(store: Store) -> None:
    """The first version of a new gateway may begin in the past; later ones begin today or later."""
    load(store, second(date(2026, 1, 5), "first"))
    category, where, said = refused(store, second(date(2026, 11, 21), "late"))
    assert (category, where) == (Category.INVALID, "Library.effectivePeriod.start")
    assert "take 2026-11-22 or later" in said
    assert load(store, second(date(2026, 11, 22), "today")).outcome == "created"


def test_a_base_stays_while_something_is_based_on_it(store: Store) -> None:
    """Changing it would change the other without a word."""
    load(store, second())
    load(store, third())
    assert refused(store, second(date(2026, 12, 2)))[:2] == (Category.CONFLICT, "Library.version")
    with pytest.raises(GatewayError):
        loading(store).complete([Delete("Library", library.PREFIX + "443")], GATEWAY, NOW)
    both = [Delete("Library", library.PREFIX + name) for name in ("third", "443")]
    assert loading(store).complete(both, GATEWAY, NOW)


def test_two_loads_at_once_do_not_overwrite_each_other(store: Store) -> None:
    """Whoever was judged by what has changed since is told so, and nothing of it is written."""
    puts = [Put(second(date(2026, 11, 22))), Put(second(date(2026, 11, 23)))]
    units = [Unit([put, *loading(store).complete([put], GATEWAY, NOW)]) for put in puts]
    store.write(units[0], GATEWAY)
    with pytest.raises(GatewayError) as caught:
        store.write(units[1], GATEWAY)
    assert (caught.value.category, caught.value.detail) == (Category.CONFLICT, "precondition")
    assert Rulebook(store=store).at(NOW).version == "443"


def test_two_versions_in_one_unit(store: Store) -> None:
    """A base and what is based on it, loaded together."""
    puts: list[Put | Delete] = [Put(second()), Put(third())]
    store.write(Unit([*puts, *loading(store).complete(puts, GATEWAY, NOW)]), GATEWAY)
    assert {rules.version for rules in Rulebook(store=store).versions()} == {shipped().version, "443", "third"}


def test_start_of_a_day_follows_the_zone() -> None:
    """Also where a day begins at one in the morning."""
    book = Rulebook("America/Sao_Paulo")
    assert datetime.fromtimestamp(book.start(date(2018, 11, 4)) / 1e6, UTC) == datetime(2018, 11, 4, 3, tzinfo=UTC)
    assert book.day(book.start(date(2018, 11, 4))) == date(2018, 11, 4)
    assert book.day(book.start(date(2018, 11, 4)) - 1) == date(2018, 11, 3)

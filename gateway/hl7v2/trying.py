"""What each of many edits of a message does to its conversion, in far fewer conversions than edits.

A message of 300 results has thousands of values, and to try each by itself takes as many conversions. Values of
segments of one name are therefore tried together: every run edits one value of most segments, and each edit is made in
a pattern of runs of its own, which no two others cover (group testing with the code of Reed and Solomon: patterns of
two edits of different segments meet in few runs, those of one segment in none). A difference that appears in the runs
of one pattern, in all of them and in the same way, and in no others, is that edit's. Nothing is guessed: where a
difference follows no pattern alone, or not always in the same way, the edits that may have made it are tried one by
one; and so are those of a kind that is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from gateway.errors import GatewayError
from gateway.hl7v2.differing import Found, differences
from gateway.source import Conversion

#: Fewer edits of a kind are tried one by one.
FEWEST = 8
#: A difference that so many edits may have made is not told apart by patterns.
_MOST_CAUSES = 12


class Edit(NamedTuple):
    """Another text of one field of a segment; ``kind``: the same for the same part of all segments of its name."""

    kind: tuple[str, int, int, int, int]  # segment, field, repetition, component, subcomponent
    at: int  # position of the segment
    field: int
    raw: str


class Outcome(NamedTuple):
    """What an edit does: it is ``refused``; or the paths that are other or gone (``found``), or, where there are none,
    those that are there in addition (``more``)."""

    found: list[str]
    more: list[str]
    refused: bool = False  # the error itself would keep the conversion that it ended alive


Convert = Callable[[Sequence[Edit]], Conversion | GatewayError]
_Path = tuple[bool, str]  # whether it is one in addition
_Differences = dict[_Path, object]


class Trial:
    """Tries edits of the message of which ``base`` is the conversion; ``convert`` makes that of an edited one."""

    def __init__(self, base: Conversion, convert: Convert, fewest: int = FEWEST) -> None:
        self._base, self._convert, self._fewest = base, convert, fewest

    def outcomes(self, edits: Sequence[Edit]) -> list[Outcome]:
        """What each edit does by itself, in their order."""
        done: dict[int, Outcome] = {}
        kinds: dict[tuple[str, int, int, int, int], list[int]] = defaultdict(list)
        for number, edit in enumerate(edits):
            kinds[edit.kind].append(number)
        pools: dict[str, list[tuple[list[int], _Differences]]] = defaultdict(list)
        for kind, numbers in kinds.items():
            if len(numbers) < self._fewest:
                continue
            together = self._run([edits[number] for number in numbers])
            if isinstance(together, GatewayError):
                continue
            if together:
                pools[kind[0]].append((numbers, together))
            else:
                done.update((number, Outcome([], [])) for number in numbers)
        for pool in pools.values():
            done.update(self._together(edits, pool))
        return [done[number] if number in done else self._alone(edit) for number, edit in enumerate(edits)]

    def _alone(self, edit: Edit) -> Outcome:
        result = self._run([edit])
        return Outcome([], [], True) if isinstance(result, GatewayError) else _outcome(result)

    def _run(self, edits: Sequence[Edit]) -> _Differences | GatewayError:
        result = self._convert(edits)
        if isinstance(result, GatewayError):
            return result
        found, more = differences(self._base, result)
        return _keyed(found, False) | _keyed(more, True)

    def _together(self, edits: Sequence[Edit], pool: list[tuple[list[int], _Differences]]) -> dict[int, Outcome]:
        """The outcomes of the edits of which patterns tell; the others are left out."""
        segments = sorted({edits[number].at for numbers, _ in pool for number in numbers})
        order = {at: n for n, at in enumerate(segments)}
        cells = {number: (column, order[edits[number].at]) for column, (numbers, _) in enumerate(pool)
                 for number in numbers}
        patterns, count, first = _patterns(cells, len(pool), len(segments))
        members: list[list[int]] = [[] for _ in range(count)]
        for number, runs in patterns.items():
            for run in runs:
                members[run].append(number)
        results: list[_Differences] = []
        for numbers in members:
            result = self._run([edits[number] for number in numbers]) if numbers else {}
            if isinstance(result, GatewayError):  # by edits of which none alone is refused
                return {}
            results.append(result)
        return _told(patterns, members, results, first, pool)


def _told(patterns: dict[int, list[int]], members: list[list[int]], results: list[_Differences], first: int,
          columns: list[tuple[list[int], _Differences]]) -> dict[int, Outcome]:
    """Which edit made which difference, for the edits of which that is sure; each is in one of the ``first`` runs."""
    column = {number: at for at, (numbers, _) in enumerate(columns) for number in numbers}
    reaches = [_Reach(together) for _, together in columns]
    seen: dict[_Path, set[int]] = defaultdict(set)
    lists: dict[str, set[int]] = defaultdict(set)
    for run, result in enumerate(results):
        for path in result:
            seen[path].add(run)
            lists[_list_of(path[1])].add(run)

    def within(runs: set[int], able: set[int]) -> set[int]:
        """The edits of kinds that reach a path whose pattern lies within these runs."""
        return {number for run in runs if run < first for number in members[run]
                if column[number] in able and runs.issuperset(patterns[number])}

    doubtful: set[int] = set()
    causes: dict[int, set[_Path]] = defaultdict(set)
    for path, runs in sorted(seen.items()):  # those in addition come last: they count where there are no others
        able = {at for at, reach in enumerate(reaches) if reach.has(path)}
        candidates = within(runs, able)
        for number in candidates:
            causes[number].add(path)
        if path[0]:
            doubtful.update(number for number in candidates if causes[number] == {path})
        elif len(candidates) > _MOST_CAUSES:
            doubtful |= candidates
        elif not _explains(candidates, patterns, [(run, results[run][path]) for run in sorted(runs)]):
            # In some runs it may be hidden: by a whole that is other, or in its list by another number.
            wholes = (seen.get((False, whole), set()) for whole in _wholes(path[1]))
            doubtful |= candidates | within(runs.union(lists[_list_of(path[1])], *wholes), able)
    return {number: _outcome(path for path in results[runs_of[0]] if path in causes[number])
            for number, runs_of in patterns.items() if number not in doubtful}


class _Reach:
    """Where the edits of a kind, all made at once, make a difference: a single one of them makes none elsewhere."""

    def __init__(self, differences: _Differences) -> None:
        self._paths = set(differences)
        self._wholes = {(False, whole) for added, path in differences if not added for whole in _wholes(path)}

    def has(self, path: _Path) -> bool:
        """Whether a difference is among these, within one, or has one within it."""
        return path in self._paths or not path[0] and (
            path in self._wholes or any((False, whole) in self._paths for whole in _wholes(path[1])))


def _list_of(path: str) -> str:
    """The outermost list that a path lies in; the path itself where it lies in none."""
    name, dot, rest = path.partition(".")
    return f"{name}.{rest.partition('[')[0]}" if "[" in rest else path


def _wholes(path: str) -> Iterator[str]:
    """The paths that a path lies within."""
    return (path[:at] for at, character in enumerate(path) if character in ".[@")


def _explains(causes: set[int], patterns: dict[int, list[int]], values: list[tuple[int, object]]) -> bool:
    """Whether each run in which a path differs has one cause or more, each cause a run of its own, and always the same
    effect there."""
    effects: dict[int, object] = {}
    for run, value in values:
        at_work = [number for number in causes if run in patterns[number]]
        if not at_work:
            return False
        if len(at_work) == 1:
            [cause] = at_work
            if effects.setdefault(cause, value) != value:
                return False
    return len(effects) == len(causes)


def _patterns(cells: dict[int, tuple[int, int]], columns: int, rows: int) -> tuple[dict[int, list[int]], int, int]:
    """The runs of each edit, how many runs there are, and of how many first ones each edit has one.

    The row, in digits of base q, is a polynomial without constant term; the column is its constant term. At each of
    2m + 1 places x its value names one of q runs. Two polynomials of degree m have at most m values in common, so that
    two patterns never cover a third; those of one row have none.
    """
    q, digits = 7, 1
    while q < columns or not _is_prime(q) or (digits := _digits(rows, q)) * 2 + 1 >= q:
        q += 1
    places = range(1, 2 * digits + 2)  # not 0, where all of a column are in one run
    patterns = {}
    for number, (column, row) in cells.items():
        powers = [row // q ** n % q for n in range(digits)]
        patterns[number] = [(x - 1) * q + (column + sum(digit * x ** n for n, digit in enumerate(powers, 1))) % q
                            for x in places]
    return patterns, len(places) * q, q


def _digits(rows: int, q: int) -> int:
    digits = 1
    while q ** digits < rows:
        digits += 1
    return digits


def _is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, int(number ** 0.5) + 1))


def _keyed(paths: Found, added: bool) -> _Differences:
    return {(added, path): value for path, value in paths.items()}


def _outcome(paths: Iterable[_Path]) -> Outcome:
    known = list(paths)
    found = [path for added, path in known if not added]
    return Outcome(found, [] if found else [path for _, path in known])

"""Every operation of an OpenAPI document, asked by one tenant about what is another's."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import httpx

from tenantry.testing._answers import comparable, difference, ids_in, text_of, text_of_request
from tenantry.testing._draft import Draft, Variant, known_id, looks_like_an_id
from tenantry.testing._report import SweepReport, found_words
from tenantry.testing._routes import Position, RouteOperation, route_operations
from tenantry.testing._side import Example, Side, unknown_like

SELECTORS: Final = ("header X-Tenant-ID", "query tenant_id")
IDEMPOTENCY_KEY: Final = "Idempotency-Key"

_IN_ARRAYS: Final[tuple[Variant, ...]] = ("alone", "after one's own", "before one's own")
_SHORTEST_WORD: Final = 6
_PAGING: Final = frozenset({"limit", "page_size", "per_page"})

Examples = Mapping[str, Example | Sequence[Example]]


async def sweep_routes(
    openapi: Mapping[str, Any],
    client: httpx.AsyncClient,
    a: Side,
    b: Side,
    *,
    examples: Examples | None = None,
    skip: Mapping[str, str] | None = None,
    not_ids: Collection[str] = (),
    selectors: Collection[str] = SELECTORS,
    cursor: tuple[str, str] = ("cursor", "next_cursor"),
) -> SweepReport:
    """Has A ask for B's rows by every id in every position that the document has, and for B's cursors and keys.

    An id of B must be answered like the id of nothing, wherever it stands: in paths, queries, headers and bodies, alone
    and among A's own in arrays. No answer may hold a word of B, and B's rows must be afterwards what they were before.
    That it could have been otherwise is shown by requests of A and B for what is their own, which must succeed.

    ``examples`` say what the document does not (``"POST /v1/notes"``: an `Example`, or several that have its positions
    between them), ``skip`` names operations that are left out, with the reason, ``not_ids`` positions that look like
    ids and name nothing of a tenant. ``selectors`` are where callers may name a tenant, ``cursor`` the query parameter
    and the field of an answer. Raises SweepFailed: also for an operation or a position that nobody gave a value for.
    """
    sweep = _RouteSweep(client, a, b, examples or {}, not_ids, selectors, cursor)
    operations = {str(each): each for each in route_operations(openapi)}
    for named in sorted({*(examples or {}), *(skip or {})} - operations.keys()):
        sweep.report.blindness(named, "document", "the document has no such operation")
    wanted = [each for name, each in operations.items() if name not in (skip or {})]
    await sweep.run(wanted)
    return sweep.report.concluded()


class _RouteSweep:
    def __init__(
        self,
        client: httpx.AsyncClient,
        a: Side,
        b: Side,
        examples: Examples,
        not_ids: Collection[str],
        selectors: Collection[str],
        cursor: tuple[str, str],
    ) -> None:
        self.report = SweepReport("route")
        self._client = client
        self._a, self._b = a, b
        self._examples = examples
        self._not_ids = not_ids
        self._selectors = selectors
        self._cursor = cursor
        self._ids_of_a: Mapping[str, str] = {}
        self._ids_of_b: Mapping[str, str] = {}
        self._words: set[str] = set(b.words)
        self._rows: Mapping[str, str] = {}
        for side, words in (("A", a.words), ("B", b.words)):
            if short := [word for word in words if len(word) < _SHORTEST_WORD]:
                self.report.blindness("words", side, f"{short} are too short to be told from chance")

    async def run(self, operations: Sequence[RouteOperation]) -> None:
        self._ids_of_a = await self._a.plant()
        await self._plant_b()
        await self._plant_b()  # two of everything: a list of one has no second page
        for operation in operations:
            for example in self._examples_of(operation):
                await self._ask_again_with_the_key_of_b(operation, example)
        self._rows = await self._b.rows()
        if not any(self._rows.values()):
            self.report.blindness("rows", "B", "B has no rows that could change")
        for operation in operations:
            await self._sweep(operation)

    async def _sweep(self, operation: RouteOperation) -> None:
        met: set[Position] = set()
        ids: list[Position] = []
        for position in operation.positions():
            known = known_id(operation, position, self._ids_of_a)
            if known is not None:
                ids.append(position)
            elif looks_like_an_id(position, self._not_ids) and not self._is_given(operation, position):
                self._blind(
                    operation, position, "looks like an id: plant() has none of this name, nor is it in not_ids"
                )
                if position.place == "path":
                    return
        for example in self._examples_of(operation):
            present = [each for each in ids if Draft.of(operation, example, self._ids_of_a).has(each)]
            met.update(present)
            await self._show_b_its_own(operation, example)
            await self._ask_for_own(operation, example, present)
            for chosen, variant in _choices(present):
                await self._ask_for_foreign(operation, example, present, chosen, variant)
            await self._ask_with_words_of_b(operation, example, ids)
            await self._ask_with_cursor_of_b(operation, example)
            await self._select_b(operation, example)
        for position in ids:
            if position not in met:
                self._blind(operation, position, "no example has this position")

    async def _ask_for_own(self, operation: RouteOperation, example: Example, present: Sequence[Position]) -> None:
        """What A may have: shows that the requests of the sweep are valid, and that lists hold A's alone."""
        optional = [each for each in present if each.place in {"query", "header"}]
        for positions in [[], optional] if optional else [[]]:
            own = await self._ids_for(operation)
            draft = Draft.of(operation, example, own)
            for position in [each for each in present if each not in optional] + positions:
                draft.put(position, _known(operation, position, own))
            response = await self._send(draft, "as itself")
            if response.status_code != example.status and (example.status is not None or not response.is_success):
                self._blind(
                    operation, "own request", f"{response.status_code} {response.text[:200]}: an example must be given"
                )

    async def _ask_for_foreign(
        self,
        operation: RouteOperation,
        example: Example,
        present: Sequence[Position],
        chosen: Sequence[Position],
        variant: Variant,
    ) -> None:
        """An id of B, and one of nothing, where an id of A is expected."""
        foreign = {each: known_id(operation, each, self._ids_of_b) for each in chosen}
        where = ", ".join(map(str, chosen)) + ("" if variant == "alone" else f" {variant}")
        if missing := [str(each) for each, value in foreign.items() if value is None]:
            self._blind(operation, ", ".join(missing), "plant() of B has no id of this name")
            return
        answers = []
        for is_foreign in (True, False):
            own = await self._ids_for(operation)
            draft = Draft.of(operation, example, own)
            asked = set(own.values())
            for position in present:
                if position.place not in {"query", "header"} or position in chosen:
                    draft.put(position, _known(operation, position, own))
            for position, value in foreign.items():
                assert value is not None
                if value == known_id(operation, position, self._ids_of_a):
                    continue  # a natural key, which both have: it finds A's own
                put = value if is_foreign else unknown_like(value)
                asked.add(put)
                draft.put(position, put, variant)
            if is_foreign and asked == set(own.values()):
                return
            response = await self._send(draft, where)
            answers.append(comparable(response, asked))
            if is_foreign and response.is_success and not operation.safe:
                # What A has been let write is A's from now on, under whatever id.
                self._words -= {value for value in foreign.values() if value is not None}
        if answers[0] != answers[1]:
            self.report.leak(str(operation), where, f"an id of B differs from that of nothing: {difference(*answers)}")

    async def _ask_with_words_of_b(
        self, operation: RouteOperation, example: Example, ids: Collection[Position]
    ) -> None:
        """B's words in every filter and search."""
        if not operation.safe:
            return
        names = {each.name for each in ids if each.place == "query"} | _PAGING | {self._cursor[0]}
        texts = [
            each["name"]
            for each in operation.query
            if each["name"] not in names
            and operation.resolved(each.get("schema", {})).get("type", "string") == "string"
        ]
        for name in texts:
            draft = Draft.of(operation, example, self._ids_of_a)
            draft.query[name] = min(self._b.words)
            await self._send(draft, f"query {name}")

    async def _ask_with_cursor_of_b(self, operation: RouteOperation, example: Example) -> None:
        parameter, field = self._cursor
        names = {each["name"] for each in operation.query}
        if parameter not in names:
            return
        draft = Draft.of(operation, example, self._ids_of_b)
        draft.query.update(dict.fromkeys(_PAGING & names, "1"))
        page = await self._client.send(draft.request(self._b.headers, self._base))
        try:
            cursor = page.json()[field]
        except (ValueError, LookupError, TypeError):
            cursor = None
        if not cursor:
            self._blind(operation, f"query {parameter}", f"B got no second page: {page.status_code} {page.text[:200]}")
            return
        draft = Draft.of(operation, example, self._ids_of_a)
        draft.query[parameter] = cursor
        await self._send(draft, f"query {parameter}")

    async def _ask_again_with_the_key_of_b(self, operation: RouteOperation, example: Example) -> None:
        """The same Idempotency-Key of two tenants are two keys."""
        if operation.safe:
            return
        key = f"same-{uuid4().hex}"
        answers, of_b = [], set()
        for side, name in ((self._b, key), (self._a, key), (self._a, f"other-{uuid4().hex}")):
            own = await side.plant()
            draft = Draft.of(operation, example, own)
            for position in operation.positions():
                if position.place in {"path", "body"} and draft.has(position):
                    value = known_id(operation, position, own)
                    if value is not None:
                        draft.put(position, value)
            try:
                request = draft.request({**side.headers, IDEMPOTENCY_KEY: name}, self._base)
            except LookupError:
                return  # said where the operation is swept
            response = await self._client.send(request)
            if side is self._b:
                of_b = ids_in(response) | {value.lower() for value in own.values() if len(value) >= _SHORTEST_WORD}
                of_b -= {value.lower() for value in self._ids_of_a.values()}
                continue
            self.report.tried[str(operation)] += 1
            self._look(operation, f"header {IDEMPOTENCY_KEY}", request, response, of_b)
            answers.append(comparable(response, own.values()))
        if answers[0] != answers[1]:
            self.report.leak(
                str(operation),
                f"header {IDEMPOTENCY_KEY}",
                f"a key that B has used differs from one that nobody has: {difference(*answers)}",
            )

    async def _select_b(self, operation: RouteOperation, example: Example) -> None:
        """B named beside A's credential, in every way that callers may name a tenant."""
        own = await self._ids_for(operation)
        for selector in self._selectors:
            place, _, name = selector.partition(" ")
            answers = []
            for value in (*self._b.names, *(unknown_like(each) for each in list(self._b.names)[:1])):
                draft = Draft.of(operation, example, own)
                if place == "header":
                    draft.headers[name] = value
                else:
                    draft.query[name] = value
                response = await self._send(draft, selector)
                answers.append(comparable(response, {value, *own.values()}))
                if response.is_success:
                    own = await self._ids_for(operation)
            for answer in answers[:-1]:
                if answer != answers[-1]:
                    self.report.leak(
                        str(operation),
                        selector,
                        f"B's name differs from that of nobody: {difference(answer, answers[-1])}",
                    )

    async def _show_b_its_own(self, operation: RouteOperation, example: Example) -> None:
        """The counter-check: were the sweep blind, it would not see B's words here either."""
        if not operation.safe or operation.method != "GET" or example.silent is not None or example.status is not None:
            return
        request = Draft.of(operation, example, self._ids_of_b).request(self._b.headers, self._base)
        response = await self._client.send(request)
        if not found_words(self._words, text_of(response), text_of_request(request)):
            self._blind(
                operation, "B's own request", f"shows no word of B: {response.status_code} {response.text[:200]}"
            )

    async def _send(self, draft: Draft, position: str) -> httpx.Response:
        """A's request; looks at what it is answered and at what became of B."""
        operation = draft.operation
        request = draft.request(self._a.headers, self._base)
        response = await self._client.send(request)
        self.report.tried[str(operation)] += 1
        self._look(operation, position, request, response, self._words)
        if not operation.safe:
            await self._compare_rows(operation, position)
        return response

    def _look(
        self,
        operation: RouteOperation,
        position: str,
        request: httpx.Request,
        response: httpx.Response,
        words: Collection[str],
    ) -> None:
        telling = sorted(words, key=lambda word: (word not in self._b.words, word))
        if seen := found_words(telling, text_of(response), text_of_request(request)):
            self.report.leak(str(operation), position, f"shows A what is B's: {', '.join(seen[:3])}")
        if response.status_code >= 500:
            self.report.leak(str(operation), position, f"fails: {response.status_code} {response.text[:200]}")

    async def _compare_rows(self, operation: RouteOperation, position: str) -> None:
        now = await self._b.rows()
        changed = sorted(table for table in now.keys() | self._rows.keys() if now.get(table) != self._rows.get(table))
        if changed:
            self.report.leak(str(operation), position, f"changes B's rows in {', '.join(changed)}")
            await self._plant_b()
            self._rows = await self._b.rows()

    async def _plant_b(self) -> None:
        self._ids_of_b = await self._b.plant()
        own = set(self._ids_of_a.values())
        self._words |= {value for value in self._ids_of_b.values() if len(value) >= _SHORTEST_WORD and value not in own}

    async def _ids_for(self, operation: RouteOperation) -> Mapping[str, str]:
        """A's ids: new ones for an operation that may use them up."""
        return self._ids_of_a if operation.safe else await self._a.plant()

    def _examples_of(self, operation: RouteOperation) -> Sequence[Example]:
        given = self._examples.get(str(operation), Example())
        return [given] if isinstance(given, Example) else given

    def _is_given(self, operation: RouteOperation, position: Position) -> bool:
        """Whether every example gives a path parameter that names nothing of a tenant."""
        return position.place == "path" and all(position.name in each.path for each in self._examples_of(operation))

    def _blind(self, operation: RouteOperation, position: Position | str, seen: str) -> None:
        self.report.blindness(str(operation), str(position), seen)

    @property
    def _base(self) -> str:
        return str(self._client.base_url).rstrip("/")


def _choices(present: Sequence[Position]) -> Iterator[tuple[Sequence[Position], Variant]]:
    """Each position alone, in arrays in every variant, and all together."""
    for position in present:
        for variant in _IN_ARRAYS if position.in_array else _IN_ARRAYS[:1]:
            yield [position], variant
    if len(present) > 1:
        yield present, "alone"


def _known(operation: RouteOperation, position: Position, ids: Mapping[str, str]) -> str:
    value = known_id(operation, position, ids)
    if value is None:
        raise LookupError(f"{operation}: plant() made no id for {position} this time")
    return value

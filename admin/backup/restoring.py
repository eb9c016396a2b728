"""Restoring a backup: pages go into a cluster, and what is there then is compared."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Final

import msgspec

from admin.backup import calls
from admin.backup.places import Place
from admin.backup.reading import THREADS, Damaged, Told, pages, parts_of
from admin.session import Session
from timemachine import codec
from timemachine.backup.digest import Digest, digests, take
from timemachine.backup.manifest import BackupCollection, Manifest, Part
from timemachine.backup.pages import PartHead, read_in_turn
from timemachine.backup.uploads import uploads_of, written_upload
from timemachine.client import ApiError
from timemachine.errors import CodecError, SealError
from timemachine.model import Route
from timemachine.sealing import sealed_key_id

_ROUTES_BYTES: Final = 4 * 1024 * 1024
_TRIES: Final = 10

_read_route = codec.decoder(Route)
Vnode = tuple[str, str, int]
"""Database, collection, and number."""


class Restoring:
    """A backup on its way into a cluster.

    only        the databases that are wanted; empty for all of them
    num_vnodes  how many each collection is to have; None for as many as it had
    """

    def __init__(
        self,
        session: Session,
        place: Place,
        manifest: Manifest,
        *,
        only: Sequence[str],
        num_vnodes: int | None,
        past_due: str,
    ) -> None:
        self._session = session
        self._place = place
        self._manifest = manifest
        self._past_due = past_due
        wanted = [each for each in manifest.databases if not only or each in only]
        self.collections = [each for each in manifest.collections if each.db in wanted]
        self.routes = [each for each in manifest.routes if each.db in wanted]
        self._databases = wanted
        self.made = [
            each if num_vnodes is None else msgspec.structs.replace(each, num_vnodes=num_vnodes)
            for each in self.collections
        ]
        self.counts: dict[str, int] = {}
        self._lock = Lock()
        self._digests = {
            (each.db, each.name): digests(each.num_vnodes) for each in self.collections
        }

    @property
    def jobs(self) -> int:
        """How many there are."""
        return sum(part.jobs for _, part in parts_of(self.collections))

    def begin(self, *, dry_run: bool) -> calls.Begun:
        """Have the cluster make databases and collections, or with `dry_run` say if it could.

        Raises ClientError, Damaged.
        """
        try:
            keys = {key for each in self.routes for key in _keys(_read_route(each.record))}
        except (CodecError, SealError) as error:
            raise Damaged(f"The backup is damaged in its routes: {error.detail}") from None
        manifest = msgspec.structs.replace(self._manifest, databases=self._databases)
        call = calls.begin(
            manifest,
            self.made,
            [(each.db, each.name) for each in self.routes],
            sorted(keys),
            self._past_due,
            dry_run=dry_run,
        )
        return self._session.carry(call)

    def restore(self, begun: calls.Begun, told: Told) -> None:
        """Restore routes, then jobs, and end it. Raises ClientError, Damaged.

        One that has ended before is only read again, to be compared.
        """
        if begun.finished_time is None:
            self._routes(begun)
        self._jobs(begun, told)
        if begun.finished_time is None:
            self._session.carry(calls.end(begun.id))

    def _routes(self, begun: calls.Begun) -> None:
        for records in _portions([each.record for each in self.routes]):
            self._session.carry(calls.routes(begun.id, records))

    def _jobs(self, begun: calls.Begun, told: Told) -> None:
        numbered = list(enumerate(parts_of(self._manifest.collections)))
        wanted = [row for row in numbered if row[1][0] in self.collections]
        with ThreadPoolExecutor(THREADS) as pool:
            futures = [
                pool.submit(self._part, begun, number, collection, part, told)
                for number, (collection, part) in wanted
            ]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _part(
        self,
        begun: calls.Begun,
        number: int,
        collection: BackupCollection,
        part: Part,
        told: Told,
    ) -> None:
        names = {each.uid: each.name for each in self.routes if each.db == collection.db}
        sums = digests(collection.num_vnodes)
        for page in pages(self._place, part):
            try:
                take(page, sums)
            except (CodecError, UnicodeDecodeError):
                raise Damaged(f"{part.file} holds what no vnode can have held.") from None
            uploads = uploads_of(page, number, names) if begun.finished_time is None else ()
            for upload in uploads:
                call = calls.jobs(begun.id, collection.db, collection.name, written_upload(upload))
                counts = self._session.carry(call).counts
                with self._lock:
                    for name, count in counts.items():
                        self.counts[name] = self.counts.get(name, 0) + count
            told(len(page.jobs))
        with self._lock:
            kept = self._digests[collection.db, collection.name]
            for mine, other in zip(kept, sums, strict=True):
                mine.merge(other)

    def compare(self, told: Told) -> list[Vnode]:
        """The vnodes of the backup whose jobs are not the same in the cluster. Raises ClientError.

        Which vnodes the cluster has does not matter.
        """
        described = self._session.carry(calls.describe())
        here = {(each.db, each.name): each for each in described.collections}
        found = {name: digests(len(each)) for name, each in self._digests.items()}

        def one(vnode: Vnode) -> None:
            db, name, _ = vnode
            sums = _in_cluster(self._session, described.id, vnode, len(found[db, name]), told)
            with self._lock:
                for mine, other in zip(found[db, name], sums, strict=True):
                    mine.merge(other)

        wanted = [
            (*name, index)
            for name in found
            if name in here
            for index in range(here[name].num_vnodes)
        ]
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(one, wanted):
                pass
        return [
            (*name, index)
            for name, sums in self._digests.items()
            for index, (mine, other) in enumerate(zip(sums, found[name], strict=True))
            if mine != other
        ]


def _in_cluster(
    session: Session, view: str, vnode: Vnode, num_vnodes: int, told: Told
) -> list[Digest]:
    """The digests of what a vnode of the cluster holds, by the vnodes of the backup."""
    for left in reversed(range(_TRIES)):
        sums = digests(num_vnodes)
        number = 0
        head: PartHead | None = None
        try:
            while True:
                data = session.carry(calls.page(view, *vnode, number, head=head))
                page = read_in_turn(data, number)
                head = head or page.head
                take(page, sums)
                if page.last:
                    break
                number += 1
        except ApiError as error:
            if error.code != "backup_view_gone" or not left:
                raise
        else:
            told(sum(each.jobs for each in sums))
            return sums
    raise AssertionError("the last try has raised")


def _keys(route: Route) -> Iterator[str]:
    """The ids of the master keys that a route is sealed with."""
    return (sealed_key_id(each) for each in route.seals)


def _portions(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Records, so many at once that a request can carry them."""
    some: list[bytes] = []
    size = 0
    for record in records:
        if some and size + len(record) > _ROUTES_BYTES:
            yield some
            some, size = [], 0
        some.append(record)
        size += len(record)
    if some:
        yield some


def decide(
    session: Session,
    collections: Sequence[calls.DescribedCollection],
    choice: str,
    told: Callable[[int], None],
) -> int:
    """Send, or give up, the jobs of collections that a restore holds; how many they were.

    Raises ClientError.
    """
    total = 0
    for each in collections:
        for index in range(each.num_vnodes):
            after: str | None = None
            while True:
                step = session.carry(calls.decide(each.db, each.name, index, choice, after))
                total += step.jobs
                told(step.jobs)
                after = step.after
                if after is None:
                    break
    return total

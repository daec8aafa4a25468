"""Reading while what was read before is worked on."""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_END = object()


@contextmanager
def read_ahead(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """The same items, of which a thread already fetches the next, from the first one on."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        iterator = iter(items)
        following = thread.submit(next, iterator, _END)

        def fetched() -> Iterator[T]:
            nonlocal following
            while (item := following.result()) is not _END:
                following = thread.submit(next, iterator, _END)
                yield item  # type: ignore[misc]

        try:
            yield fetched()
        finally:
            wait([following])
            if isinstance(iterator, Generator):  # let go of what it reads from
                iterator.close()

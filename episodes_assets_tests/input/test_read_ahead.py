"""Reading ahead changes neither items nor errors."""

import threading
from collections.abc import Iterator

import pytest

from episodes_assets.input.reading import read_ahead


def test_items_come_in_order_and_the_next_is_fetched_meanwhile() -> None:
    fetched = [threading.Event(), threading.Event()]

    def items() -> Iterator[int]:
        for number, event in enumerate(fetched):
            event.set()
            yield number

    with read_ahead(items()) as ahead:
        assert fetched[0].wait(timeout=30)  # although nobody has asked for it
        assert next(ahead) == 0
        assert fetched[1].wait(timeout=30)
        assert list(ahead) == [1]


def test_an_error_arrives_where_its_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with read_ahead(items()) as ahead:
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="broken"):
            next(ahead)

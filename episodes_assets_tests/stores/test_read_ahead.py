"""Reading ahead changes neither items nor errors."""

import threading
from collections.abc import Iterator

import pytest

from episodes_assets.stores.read_ahead import read_ahead


def test_items_come_in_order_and_the_next_is_fetched_meanwhile() -> None:
    second_is_read = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second_is_read.set()
        yield 2

    ahead = read_ahead(items())
    assert next(ahead) == 1
    assert second_is_read.wait(timeout=30)  # although nobody has asked for it
    assert list(ahead) == [2]


def test_an_error_arrives_where_its_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)

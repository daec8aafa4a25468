"""Each line of the drop's table in docs/bad-input.md."""

import datetime as dt
import json
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from episodes_assets.planning.drop import AS_FOUND, to_frame, to_table, validate_drop
from episodes_assets_tests.support.drops import OK, drop

LATER = dt.date(2030, 1, 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"epid": None}, "epid_missing"),
        ({"epid": -1}, "epid_negative"),
        ({"algorithm_id": None}, "algorithm_id_missing"),
        ({"algorithm_id": 3}, "algorithm_id_unknown"),
        ({"algorithm_id": -1}, "algorithm_id_unknown"),
        ({"premier_date": None}, "premier_date_missing_for_reach"),
        ({"premier_date": dt.date(1, 1, 1)}, "premier_date_implausible"),
        ({"premier_date": dt.date(9999, 12, 31)}, "premier_date_implausible"),
        ({"start_date": None}, "start_date_missing"),
        ({"start_date": dt.date(1, 1, 1)}, "start_date_implausible"),
        ({"start_date": dt.date(9999, 12, 31)}, "start_date_implausible"),
    ],
)
def test_a_broken_rule_is_quarantined_with_its_name(row: dict[str, Any], reason: str) -> None:
    validated = validate_drop(drop(row, {"epid": 2}))
    assert validated.quarantined["reasons"].tolist() == [reason]
    assert validated.accepted["epid"].tolist() == [2]
    assert validated.reasons == {reason: 1}


@pytest.mark.parametrize(
    "row",
    [
        {"epid": 0},
        {"epid": 2**63 - 1},
        {"algorithm_id": 1, "premier_date": None},
        {"premier_date": LATER},
        {"start_date": LATER},
        {"premier_date": LATER, "start_date": OK},
        {"premier_date": dt.date(1900, 1, 1), "start_date": dt.date(2199, 12, 31)},
        {"title": None, "series": None, "season": None, "episode": None},
        {"title": "\N{CLAPPER BOARD} 'single' \"double\"\nnext line"},
        {"title": "x" * 10_000},
        {"season": -3, "episode": -1},
    ],
)
def test_what_is_odd_but_usable_is_accepted_unchanged(row: dict[str, Any]) -> None:
    given_drop = drop(row)
    validated = validate_drop(given_drop)
    assert validated.quarantined.empty
    assert validated.reasons == {}
    text = ["series", "title"]
    pd.testing.assert_frame_equal(validated.accepted[text], given_drop[text])


def test_equal_duplicates_keep_one() -> None:
    validated = validate_drop(drop({"title": "b"}, {"title": "a"}, {"title": "c"}))
    assert validated.accepted["title"].tolist() == ["a"]
    assert validated.quarantined["reasons"].tolist() == ["duplicate", "duplicate"]


def test_duplicates_with_other_dates_keep_none() -> None:
    validated = validate_drop(drop({}, {"start_date": LATER}, {}, {"algorithm_id": 1}))
    assert validated.accepted["algorithm_id"].tolist() == [1]
    reasons = validated.quarantined["reasons"]
    assert reasons.str.contains("duplicate_with_other_dates").all()


@pytest.mark.parametrize(
    ("premieres", "reasons"),
    [
        ((None, None), ["duplicate"]),
        ((None, LATER, None), ["duplicate_with_other_dates"] * 3),
    ],
)
def test_dates_that_are_missing_are_equal_to_each_other_alone(
    premieres: tuple[dt.date | None, ...], reasons: list[str]
) -> None:
    twins = [{"algorithm_id": 1, "premier_date": premiere} for premiere in premieres]
    validated = validate_drop(drop({}, *twins, {"epid": 2}))
    assert validated.quarantined["reasons"].tolist() == reasons
    assert len(validated.accepted) == 2 + len(premieres) - len(reasons)


@pytest.mark.parametrize("title", ["a", "z"])  # sorted before the others, and after them
def test_a_row_is_no_duplicate_of_one_whose_date_could_not_be_read(title: str) -> None:
    missing = {"algorithm_id": 1, "premier_date": None}
    twins = [{**missing, "title": each} for each in (title, "m", "n")]
    rows = drop({}, *twins, {"epid": 2})
    found = [json.dumps({"premier_date": "soon"}) if each == title else None for each in rows["title"]]
    validated = validate_drop(rows.assign(**{AS_FOUND: pd.Series(found, dtype="str")}))
    assert validated.accepted[["epid", "title"]].to_numpy().tolist() == [[1, "t"], [1, "m"], [2, "t"]]
    reasons = dict(zip(validated.quarantined["title"], validated.quarantined["reasons"], strict=True))
    assert reasons["n"] == "duplicate"
    also = {"duplicate"} if title == "z" else set()
    assert set(reasons[title].split(", ")) == {"premier_date_unreadable"} | also


def test_a_row_may_break_several_rules() -> None:
    validated = validate_drop(drop({"epid": -1, "start_date": None}))
    assert set(validated.reasons) == {"epid_negative", "start_date_missing"}


def test_an_empty_drop_is_fine() -> None:
    validated = validate_drop(drop())
    assert validated.accepted.empty
    assert validated.quarantined.empty


maybe_dates = st.one_of(st.none(), st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31)))


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "epid": st.none() | st.integers(-2, 4),
                "algorithm_id": st.none() | st.integers(-1, 4),
                "title": st.text(
                    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5
                ),
                "premier_date": maybe_dates | st.just(OK),
                "start_date": maybe_dates | st.just(OK),
            }
        ),
        max_size=25,
    ),
    st.randoms(),
)
def test_every_row_is_accepted_or_quarantined_whatever_their_order(
    rows: list[dict[str, Any]], random: Any
) -> None:
    validated = validate_drop(drop(*rows))
    assert len(validated.accepted) + len(validated.quarantined) == len(rows)
    assert not validated.accepted.duplicated(["epid", "algorithm_id"]).any()
    assert (validated.quarantined["reasons"].str.len() > 0).all()
    shuffled = validate_drop(drop(*random.sample(rows, len(rows))))
    pd.testing.assert_frame_equal(validated.accepted, shuffled.accepted)
    # What is stored is what was validated.
    stored = to_frame(to_table(validated.accepted))
    assert stored["title"].tolist() == validated.accepted["title"].tolist()

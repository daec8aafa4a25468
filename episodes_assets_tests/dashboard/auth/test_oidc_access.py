"""Who of those that a provider vouches for is let in: laws, and the cases people get wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from episodes_assets.accounts.identity import Role
from episodes_assets.dashboard.configuration import (
    GOOGLE,
    OidcAccess,
    decide_role,
    domain_of,
    is_vouched_for,
)

DOMAINS = st.sampled_from(["example.com", "mail.example.com", "example.org", "ample.com"])
EMAILS = st.builds(lambda name, domain: f"{name}@{domain}", st.sampled_from(["ann", "bob", "a.b+c"]), DOMAINS)
LISTS = st.frozensets(EMAILS | DOMAINS.map("*@{}".format), max_size=4)
ACCESSES = st.builds(
    OidcAccess,
    domains=st.frozensets(DOMAINS, max_size=2),
    viewers=LISTS,
    operators=LISTS,
    default_role=st.none() | st.sampled_from(Role),
)
CASES = st.lists(st.booleans(), min_size=40, max_size=40)


def in_case(text: str, upper: list[bool]) -> str:
    return "".join(c.upper() if up else c for c, up in zip(text, upper, strict=False))


@given(EMAILS, ACCESSES)
def test_nobody_is_let_in_whose_address_is_not_verified(email: str, access: OidcAccess) -> None:
    assert decide_role(email, email_verified=False, access=access) is None


@given(EMAILS, ACCESSES)
def test_a_role_comes_from_a_setting_that_names_the_address_or_its_domain(
    email: str, access: OidcAccess
) -> None:
    domain = email.partition("@")[2]
    role = decide_role(email, email_verified=True, access=access)
    listed = {"operators": access.operators, "viewers": access.viewers}
    named = {name for name, people in listed.items() if people & {email, f"*@{domain}"}}
    if "operators" in named:
        assert role is Role.OPERATOR
    elif "viewers" in named:
        assert role is Role.VIEWER
    elif domain in access.domains:
        assert role is access.default_role
    else:
        assert role is None


@given(EMAILS, st.none() | st.sampled_from(Role))
def test_nobody_is_let_in_where_nobody_is_named(email: str, role: Role | None) -> None:
    assert decide_role(email, email_verified=True, access=OidcAccess(default_role=role)) is None


@pytest.mark.long
@given(EMAILS, ACCESSES, CASES)
def test_case_makes_no_difference(email: str, access: OidcAccess, upper: list[bool]) -> None:
    plain = decide_role(email, email_verified=True, access=access)
    assert decide_role(in_case(email, upper), email_verified=True, access=access) is plain


@given(st.text(max_size=30) | st.text(alphabet="a@.*, \n\x00\u212a", max_size=12), ACCESSES)
def test_what_is_no_plain_address_is_nobodys(email: str, access: OidcAccess) -> None:
    if email.count("@") != 1 or not email.isascii() or email.startswith("@") or email.endswith("@"):
        assert domain_of(email) is None
        assert decide_role(email, email_verified=True, access=access) is None


@pytest.mark.parametrize(
    "email",
    [
        "ann@sub.example.com",
        "ann@notexample.com",
        "ann@example.com.evil.example",
        "ann@evil.example@example.com",
        "*@example.com",
        "ann@example.com ",
        "ann@example.com,bob@example.com",
        "ann@exam\u200bple.com",
        "ann@example.com\n",
        "ann",
        "",
    ],
)
def test_what_looks_like_an_address_of_the_domain(email: str) -> None:
    access = OidcAccess(
        domains=frozenset({"example.com"}), operators=frozenset({"*@example.com"}), default_role=Role.VIEWER
    )
    assert decide_role("ann@example.com", email_verified=True, access=access) is Role.OPERATOR
    assert decide_role(email, email_verified=True, access=access) is None


def test_a_letter_that_becomes_another_in_lower_case() -> None:
    """The sign of the kelvin does, and would let in whoever owns the other domain."""
    access = OidcAccess(operators=frozenset({"*@kino.example"}))
    assert "\u212aino.example".lower() == "kino.example"
    assert decide_role("ann@\u212aino.example", email_verified=True, access=access) is None


@pytest.mark.parametrize(
    ("issuer", "email", "hosted_domain", "is_vouched"),
    [
        (GOOGLE, "ann@example.com", "example.com", True),
        (GOOGLE, "ann@example.com", "EXAMPLE.com", True),
        (GOOGLE, "ann@gmail.com", None, True),
        # A private account that once showed it could read that mail.
        (GOOGLE, "ann@example.com", None, False),
        (GOOGLE + "/", "ann@example.com", None, False),
        (GOOGLE, "ann@example.com", "example.org", False),
        (GOOGLE, "ann@example.com", ["example.com"], False),
        ("https://login.example", "ann@example.com", None, True),
    ],
)
def test_whose_addresses_google_answers_for(
    issuer: str, email: str, hosted_domain: object, is_vouched: bool
) -> None:
    assert is_vouched_for(issuer, email, hosted_domain) is is_vouched

"""What the settings say about signing in, and what they say about those who have signed in already."""

from typing import Any

import pytest

from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.dashboard.configuration import read_auth_methods
from episodes_assets.errors import BadSetting
from episodes_assets.settings import load_settings

GOOD = {
    "openid_issuer": "https://login.example",
    "openid_client_id": "dashboard",
    "openid_operators": "Ann@Example.com",
}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"openid_issuer": "", "password_login": False}, "nobody could sign in"),
        ({"openid_issuer": "http://login.example"}, "EPISODES_OPENID_ISSUER"),
        ({"openid_issuer": "login.example"}, "EPISODES_OPENID_ISSUER"),
        ({"openid_client_id": ""}, "EPISODES_OPENID_CLIENT_ID is not"),
        ({"openid_operators": ""}, "nobody is let in"),
        ({"openid_operators": "ann"}, "'ann' in EPISODES_OPENID_OPERATORS"),
        ({"openid_viewers": "*"}, "'\\*' in EPISODES_OPENID_VIEWERS"),
        ({"openid_viewers": "*@*"}, "in EPISODES_OPENID_VIEWERS"),
        ({"openid_domains": "*.example.com", "openid_default_role": "viewer"}, "EPISODES_OPENID_DOMAINS"),
        ({"openid_domains": "example.com"}, "EPISODES_OPENID_DEFAULT_ROLE"),
        ({"openid_default_role": "viewer"}, "EPISODES_OPENID_DEFAULT_ROLE"),
    ],
)
def test_settings_that_cannot_be_meant(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(BadSetting, match=told):
        read_auth_methods(load_settings(**{**GOOD, **changed}))


def test_what_the_button_says() -> None:
    named = read_auth_methods(load_settings(**GOOD, openid_name="Example")).oidc
    assert named is not None
    assert named.name == "Example"


def test_a_role_that_there_is_not() -> None:
    with pytest.raises(BadSetting, match="EPISODES_OPENID_DEFAULT_ROLE"):
        load_settings(**GOOD, openid_default_role="admin")


def test_one_way_is_enough() -> None:
    only_passwords = read_auth_methods(load_settings())
    assert only_passwords.password
    assert only_passwords.oidc is None
    only_oidc = read_auth_methods(load_settings(**GOOD, password_login=False))
    assert not only_oidc.password
    assert only_oidc.oidc is not None
    assert only_oidc.oidc.name == "login.example"


@pytest.mark.parametrize(
    ("settings", "role"),
    [
        (GOOD, Role.OPERATOR),
        ({**GOOD, "openid_operators": "", "openid_viewers": "ann@example.com"}, Role.VIEWER),
        ({**GOOD, "openid_operators": "bob@example.com"}, None),
        ({}, None),
    ],
)
def test_who_signed_in_before_has_what_the_settings_say_today(
    settings: dict[str, Any], role: Role | None
) -> None:
    ann = Identity("ann@example.com", Role.OPERATOR, AuthMethod.OIDC)
    admitted = read_auth_methods(load_settings(**settings)).admit(ann)
    assert (admitted.role if admitted else None) is role


def test_passwords_that_were_switched_off_end_their_sessions() -> None:
    methods = read_auth_methods(load_settings(**GOOD, password_login=False))
    assert methods.admit(Identity("bob", Role.OPERATOR, AuthMethod.PASSWORD)) is None
    token = Identity("nightly", Role.OPERATOR, AuthMethod.TOKEN)
    assert methods.admit(token) is token

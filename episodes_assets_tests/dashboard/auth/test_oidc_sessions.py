"""People who signed in through an OpenID Connect provider, at the auth gate."""

import pytest

from episodes_assets.accounts import sessions
from episodes_assets.accounts.identity import AuthMethod, Identity, Role
from episodes_assets.dashboard.auth.login import OidcRefusal, sentence_of
from episodes_assets.dashboard.configuration import OidcAccess, OidcProvider
from episodes_assets_tests.dashboard.served import Dashboard

ANN = frozenset({"ann@example.com"})


def provider(access: OidcAccess) -> OidcProvider:
    return OidcProvider("https://login.example", "Example", "dashboard", None, access)


@pytest.mark.parametrize(
    ("oidc", "looks", "changes"),
    [
        (provider(OidcAccess(operators=ANN)), 200, 200),
        (provider(OidcAccess(viewers=ANN)), 200, 403),
        (provider(OidcAccess(operators=frozenset({"bob@example.com"}))), 401, 401),
        (None, 401, 401),
    ],
)
def test_a_session_is_worth_what_the_settings_say_now(
    dashboard: Dashboard, oidc: OidcProvider | None, looks: int, changes: int
) -> None:
    """Whatever its owner was when it began: here, an operator."""
    ann = Identity("ann@example.com", Role.OPERATOR, AuthMethod.OIDC)
    token = dashboard.accounts(sessions.start_session, ann, dashboard.configuration.lifetimes)
    browser = dashboard.again(oidc=oidc).client(token=token)
    assert browser.get("/runs").status_code == looks
    mutation = {"query": "mutation { reloadWorkspace { __typename } }"}
    assert browser.post("/graphql", json=mutation).status_code == changes


@pytest.mark.parametrize("why", OidcRefusal)
def test_the_login_page_says_why_it_failed(dashboard: Dashboard, why: OidcRefusal) -> None:
    sentence = sentence_of(why)
    assert sentence is not None
    assert sentence in dashboard.client().get("/login", params={"refused": why.value}).text


def test_the_login_page_says_nothing_that_others_put_there(dashboard: Dashboard) -> None:
    shown = dashboard.client().get("/login", params={"refused": "call this number"}).text
    assert "call this number" not in shown
    assert 'role="alert"' not in shown

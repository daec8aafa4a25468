"""Who has an account at the provider."""

from dataclasses import dataclass, field
from typing import Any

AGES_AGO = 1_000_000_000


@dataclass(frozen=True)
class Person:
    """What the provider says about somebody.

    Attributes:
        email: Their address.
        claims: Further claims of their ID token; they replace those it would have.
        spoilt: What is wrong with the token otherwise.
    """

    email: str
    claims: dict[str, Any] = field(default_factory=dict)
    spoilt: str = ""


PEOPLE = {
    "ann": Person("Ann@example.com"),
    "bob": Person("bob@example.com"),
    "cid": Person("cid@example.com"),
    "eve": Person("eve@elsewhere.example"),
    "una": Person("una@example.com", {"email_verified": False}),
    "una_in_words": Person("una@example.com", {"email_verified": "false"}),
    "nobody": Person("", {"email": None}),
    "quiet": Person("ann@example.com", spoilt="no e-mail address in the token"),
    # Each could be ann, were the token believed.
    "expired": Person("ann@example.com", {"exp": AGES_AGO, "iat": AGES_AGO}),
    "other_audience": Person("ann@example.com", {"aud": "another"}),
    "other_audience_for_us": Person("ann@example.com", {"aud": "another", "azp": "dashboard"}),
    "other_issuer": Person("ann@example.com", {"iss": "http://127.0.0.1:9"}),
    "other_nonce": Person("ann@example.com", {"nonce": "of another sign-in"}),
    "no_nonce": Person("ann@example.com", spoilt="no nonce"),
    "unsigned": Person("ann@example.com", spoilt="no signature"),
    "other_key": Person("ann@example.com", spoilt="signed by another key of the same name"),
}

"""Why a sign-in through the OpenID provider came to nothing, and what people are told."""

from enum import StrEnum


class OpenIdRefusal(StrEnum):
    """Why; the value is what the login page's address has as `refused`."""

    CANCELLED = "cancelled"
    NO_ANSWER = "no-answer"
    NOT_BEGUN = "not-begun"
    UNPROVEN = "unproven"
    UNVERIFIED = "unverified"
    NOT_LET_IN = "not-let-in"


_SENTENCES = {
    OpenIdRefusal.CANCELLED: "The sign-in was cancelled at the provider.",
    OpenIdRefusal.NO_ANSWER: "The sign-in provider does not answer as it should; try again in a moment.",
    OpenIdRefusal.NOT_BEGUN: "This sign-in was not begun here, or too long ago; begin it again.",
    OpenIdRefusal.UNPROVEN: "What the sign-in provider answered proves nothing; begin again.",
    OpenIdRefusal.UNVERIFIED: "The sign-in provider has not verified that your e-mail address is yours.",
    OpenIdRefusal.NOT_LET_IN: "Your e-mail address is not let in here; ask whoever runs this dashboard.",
}


def sentence_of(refused: str | None) -> str | None:
    """What the login page tells about the `refused` of its address; None if that is none of ours."""
    if refused is None or refused not in list(OpenIdRefusal):
        return None
    return _SENTENCES[OpenIdRefusal(refused)]

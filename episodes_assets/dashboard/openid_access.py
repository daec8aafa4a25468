"""Who of those that an OpenID provider vouches for is let in, and as what."""

from dataclasses import dataclass

from episodes_assets.accounts.identity import Role

GOOGLE = "https://accounts.google.com"
# Google gives these out itself; any other address it hosts comes with the claim `hd`.
_OF_GOOGLE_ITSELF = frozenset({"gmail.com", "googlemail.com"})


@dataclass(frozen=True)
class OpenIdAccess:
    """Who is let in. Every list is of lower case.

    Attributes:
        domains: E-mail domains of which everybody has the default role.
        viewers: E-mail addresses, or `*@domain`.
        operators: E-mail addresses, or `*@domain`.
        default_role: Of everybody else in `domains`; None: nobody else.
    """

    domains: frozenset[str] = frozenset()
    viewers: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()
    default_role: Role | None = None


def decide_role(email: str, *, email_verified: bool, access: OpenIdAccess) -> Role | None:
    """What somebody with this address may do; None: they are not let in.

    Of two lists that name them the operators' counts. Upper and lower case are the same, a subdomain is
    another domain, and an address that is not plain ASCII is nobody's: it could look like another's.
    """
    domain = domain_of(email)
    if domain is None or not email_verified:
        return None
    names = {email.lower(), f"*@{domain}"}
    if names & access.operators:
        return Role.OPERATOR
    if names & access.viewers:
        return Role.VIEWER
    return access.default_role if domain in access.domains else None


def domain_of(email: str) -> str | None:
    """The domain of an e-mail address in lower case; None if it is no plain address."""
    local, at, domain = email.lower().partition("@")
    is_plain = email.isascii() and email.isprintable() and not {" ", "*", ","} & set(email)
    return domain if is_plain and local and at and domain and "@" not in domain else None


def is_vouched_for(issuer: str, email: str, hosted_domain: object) -> bool:
    """Whether the provider answers for the address itself, and not only for having once sent mail to it.

    Anybody may open a Google account with an address at a company, and keeps it after leaving. Google
    answers for addresses of its own and for those it hosts, and says so in the claim `hd`. Of other
    providers `email_verified` is believed.
    """
    if issuer.rstrip("/") != GOOGLE:
        return True
    domain = domain_of(email)
    if domain in _OF_GOOGLE_ITSELF:
        return True
    return isinstance(hosted_domain, str) and hosted_domain.lower() == domain

"""What the provider's ID tokens say."""

import base64
import json
from typing import Any

from jwcrypto import jwk, jwt
from oauth2_provider.oauth2_validators import OAuth2Validator

from episodes_assets_tests.dashboard.oidc_provider.people import PEOPLE


class Validator(OAuth2Validator):  # type: ignore[misc]  # Django has no types
    """Adds e-mail addresses, and spoils the tokens of those who are to get spoilt ones."""

    oidc_claim_scope = None

    def get_additional_claims(self, request: Any) -> dict[str, Any]:
        person = PEOPLE[request.user.username]
        return {"email": person.email, "email_verified": True, **person.claims}

    def get_id_token_dictionary(self, token: Any, token_handler: Any, request: Any) -> Any:
        claims, expires = super().get_id_token_dictionary(token, token_handler, request)
        person = PEOPLE[request.user.username]
        claims |= person.claims
        if person.spoilt == "no e-mail address in the token":
            claims = {key: value for key, value in claims.items() if not key.startswith("email")}
        return claims, expires

    def finalize_id_token(self, id_token: Any, token: Any, token_handler: Any, request: Any) -> Any:
        spoilt = PEOPLE[request.user.username].spoilt
        if spoilt == "no nonce":
            request.nonce = None
            id_token.pop("nonce")
        signed = super().finalize_id_token(id_token, token, token_handler, request)
        header, payload, _ = (part.encode() for part in signed.split("."))
        if spoilt == "no signature":
            return f"{_encode({'alg': 'none', 'typ': 'JWT'})}.{payload.decode()}."
        if spoilt == "signed by another key of the same name":
            again = jwt.JWT(header=_decode(header), claims=_decode(payload))
            again.make_signed_token(jwk.JWK.generate(kty="RSA", size=2048))
            return again.serialize()
        return signed


def _decode(part: bytes) -> str:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)).decode()


def _encode(content: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

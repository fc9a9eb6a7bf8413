"""A stock OAuth library, which knows nothing of Caracal, against freshly started systems: one process on the embedded
store, then two of everything on PostgreSQL and Redis.

    python stock_oauth.py --caracal PATH_TO_BINARY --postgres URL_OF_A_SUPERUSER --redis URL

It is given the URL of a zone's metadata and an application's credentials, and nothing else: every other address comes out
of that document. Ends with exit code 0 and one line `N passed, N failed`.
"""

import base64
import hmac
import json
import os
import secrets
import sys

# The systems under test listen on loopback, without TLS; the library asks to be told that this is meant.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

import httpx
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from checks import Check, on_every_system, say
from system import Caracal, Upstream, Zone, provision

METHODS = ("client_secret_basic", "client_secret_post")
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def discovered(url: str, check: Check) -> AuthorizationServerMetadata:
    """The metadata, judged as the library judges it."""
    response = httpx.get(url)
    check.that(response.status_code == 200, f"metadata at {url}", response.text)
    metadata = AuthorizationServerMetadata(response.json())
    metadata.validate()
    check.that(get_well_known_url(metadata["issuer"], external=True) == url, "its issuer is the one it was asked of")
    for method in METHODS:
        check.that(method in metadata["token_endpoint_auth_methods_supported"], f"it offers {method}")
    check.that("client_credentials" in metadata["grant_types_supported"], "and the grant client_credentials")
    return metadata


def client(zone: Zone, method: str, secret: str | None = None) -> OAuth2Client:
    return OAuth2Client(
        client_id=zone.application,
        client_secret=secret or zone.client_secret,
        token_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
    )


def mandates(zone: Zone, url: str, coordinator: str, check: Check) -> None:
    """A mandate is obtained, verified, used, asked after and taken back."""
    metadata = discovered(url, check)
    for method in METHODS:
        with client(zone, method) as session:
            grant = {"grant_type": "client_credentials", "scope": "agent:lifecycle", "resource": zone.resource}
            token = session.fetch_token(metadata["token_endpoint"], **grant)
            check.that(token["token_type"] == "Bearer" and token["expires_in"] > 0, f"a mandate, by {method}", token)
            keys = KeySet.import_key_set(httpx.get(metadata["jwks_uri"]).json())
            claims = jwt.decode(token["access_token"], keys, algorithms=["ES256"]).claims
            check.that(claims["iss"] == metadata["mandate_issuer"], "signed by a key of the metadata's set", claims)
            check.that(claims["client_id"] == zone.application and claims["use"] == "session", "for the application")

            started = session.post(
                f"{coordinator}/zones/{zone.id}/agents", json={"application_id": zone.application, "ttl_seconds": 60}
            )
            check.that(started.status_code == 201, "the Coordinator starts a session with it", started.text)

            introspection = metadata["introspection_endpoint"]
            told = session.introspect_token(introspection, token=token["access_token"]).json()
            check.that(told["active"] is True and told["jti"] == claims["jti"], "introspection tells its claims", told)
            revoked = session.revoke_token(metadata["revocation_endpoint"], token=token["access_token"])
            check.that(revoked.status_code == 200, "it is taken back", revoked.text)
            told = session.introspect_token(introspection, token=token["access_token"]).json()
            check.that(told == {"active": False}, "and is not active any more", told)
            refused = session.get(f"{coordinator}/zones/{zone.id}/agents")
            check.that(refused.status_code == 401, "nor heard by the Coordinator", refused.text)

            exchange = session.fetch_token(metadata["token_endpoint"], **(grant | {"grant_type": TOKEN_EXCHANGE}))
            check.that(bool(exchange["access_token"]), "token exchange is the same by its own name")
            refusal(session, metadata, grant | {"scope": zone.scopes[0]}, "access_denied", check)
            refusal(session, metadata, grant | {"grant_type": "password"}, "unsupported_grant_type", check)
        with client(zone, method, secret="cs_wrong") as session:
            refusal(session, metadata, grant, "invalid_client", check)
    with client(zone, METHODS[0]) as session:
        differences(session, metadata, zone, check)


def spellings(token: str, keys: dict) -> dict[str, str]:
    """A mandate, and what somebody could make of it who has no key of the system."""
    header, payload, signature = token.split(".")
    kid = jws_header(token)["kid"]
    made = {"as it is": token}
    # One character of each part after the other, the last ones too, whose bits do not all count.
    for number, part in enumerate((header, payload, signature)):
        places = sorted({*range(0, len(part), len(part) // 12), len(part) - 1})
        for place in places:
            for character in "Ag_":
                if part[place] != character:
                    bent = part[:place] + character + part[place + 1 :]
                    parts = [header, payload, signature]
                    parts[number] = bent
                    made[f"part {number}, character {place} is {character}"] = ".".join(parts)
    claims = json.loads(decoded(payload))
    foreign = ECKey.generate_key("P-256")
    longer = claims | {"exp": claims["exp"] + 3_600}
    for name, said in (("the same", claims), ("longer", longer)):
        made[f"{name}, by a key of somebody else under the name of ours"] = jwt.encode(
            {"alg": "ES256", "kid": kid}, said, foreign
        )
        own = {"alg": "ES256", "kid": kid, "jwk": foreign.as_dict(private=False)}
        made[f"{name}, by a key that it brings along"] = signed_with(own, said, foreign)
        made[f"{name}, by nobody"] = f"{encoded({'alg': 'none', 'kid': kid})}.{encoded(said)}."
        public = json.dumps(next(key for key in keys["keys"] if key["kid"] == kid)).encode()
        text = f"{encoded({'alg': 'HS256', 'kid': kid})}.{encoded(said)}"
        seal = base64.urlsafe_b64encode(hmac.digest(public, text.encode(), "sha256")).rstrip(b"=").decode()
        made[f"{name}, sealed with the public key"] = f"{text}.{seal}"
    made["longer, over the signature of the first"] = f"{header}.{encoded(longer)}.{signature}"
    raw = decoded(signature)
    halves = [int.from_bytes(raw[at : at + 32]) for at in (0, 32)]
    for name, bent in (
        ("nothing", b""),
        ("zeros", bytes(64)),
        ("one byte less", raw[:-1]),
        ("one byte more", raw + b"\0"),
        ("turned round", raw[32:] + raw[:32]),
        ("in ASN.1", utils.encode_dss_signature(*halves)),
    ):
        made[f"a signature of {name}"] = f"{header}.{payload}.{base64.urlsafe_b64encode(bent).rstrip(b'=').decode()}"
    made |= {"with padding": token + "=", "with a part more": token + ".", "with a space": f" {token}", "twice": token * 2}
    made |= {"without a payload": f"{header}..{signature}", "in five parts": f"{token}.e30.e30", "of nothing": ".."}
    return made


def differences(session: OAuth2Client, metadata: dict, zone: Zone, check: Check) -> None:
    """Two verifiers that share no line are asked of the same tokens, and have to agree on each, and on what it says."""
    grant = {"grant_type": "client_credentials", "scope": "agent:lifecycle", "resource": zone.resource}
    token = session.fetch_token(metadata["token_endpoint"], **grant)["access_token"]
    document = httpx.get(metadata["jwks_uri"]).json()
    keys, believed = KeySet.import_key_set(document), []
    asked = spellings(token, document)
    for name, text in asked.items():
        told = session.introspect_token(metadata["introspection_endpoint"], token=text).json()
        try:
            claims = jwt.decode(text, keys, algorithms=["ES256"]).claims
        except (JoseError, ValueError):
            claims = None
        if told["active"] != (claims is not None):
            raise AssertionError(f"{'the system' if told['active'] else 'the library'} alone believes a mandate {name}: {text}")
        if claims is not None:
            said = {name: told.get(name) for name in claims}
            check.that(said == claims, f"both read the same out of a mandate {name}", (said, claims))
            believed.append(name)
    check.that(len(asked) > 100 and believed == ["as it is"], f"of {len(asked)} tokens both believe one", believed)
    session.revoke_token(metadata["revocation_endpoint"], token=token)


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def encoded(document: dict) -> str:
    text = json.dumps(document, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def jws_header(token: str) -> dict:
    return json.loads(decoded(token.split(".")[0]))


def signed_with(header: dict, claims: dict, key: ECKey) -> str:
    """What a library that checks its header would not sign."""
    text = f"{encoded(header)}.{encoded(claims)}"
    halves = utils.decode_dss_signature(key.private_key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    raw = b"".join(half.to_bytes(32) for half in halves)
    return f"{text}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"


def refusal(session: OAuth2Client, metadata: dict, asked: dict, error: str, check: Check) -> None:
    try:
        granted = session.fetch_token(metadata["token_endpoint"], **asked)
    except OAuthError as refused:
        check.that(refused.error == error, f"refused: {refused.error}: {refused.description}", error)
        return
    raise AssertionError(f"not refused: {asked} {sorted(granted)}")


def every_flow(system: Caracal, upstream: Upstream, check: Check) -> None:
    took = system.start()
    say(f"ready after {took:.2f} s")
    zone = provision(system, upstream, "desk-" + secrets.token_hex(16), lambda text: say(f"        {text}"))
    url = system.urls["sts"].rstrip("/") + f"/.well-known/oauth-authorization-server/zones/{zone.id}"
    try:
        mandates(zone, url, system.urls["coordinator"].rstrip("/"), check)
    except Exception:  # noqa: BLE001 — whatever the library raises is a failure of this flow
        check.note_failure("mandates")
    check.that(system.stop() == 0, "it drained and ended well")


if __name__ == "__main__":
    sys.exit(on_every_system(__doc__, ("authlib", "httpx"), every_flow, every_flow))

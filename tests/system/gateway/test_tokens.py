"""Tokens: valid and invalid ones, the identities they prove, and the keys that verify them."""

import base64
import hashlib
import hmac
import json
import os
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from reactor.errors import SettingError
from reactor.gateway.auth import Authenticator
from reactor.gateway.tokens import TokenKeys
from reactor.protocol.identity import Identity, Unauthorised
from reactor.settings import Settings
from tests.support.signing import SECRET, claims, private_key, public_jwk, signed, token, write_jwks

KINDS = ["RS256", "EdDSA", "ES256"]


def with_secret(**settings: Any) -> Authenticator:
    return Authenticator(Settings(auth_secret=SECRET.encode(), **settings))


def accepted(authenticator: Authenticator, text: str) -> Identity:
    identity = authenticator.verify(text)
    assert identity is not None
    return identity


def rejected(authenticator: Authenticator, text: str) -> Unauthorised:
    with pytest.raises(Unauthorised) as caught:
        accepted(authenticator, text)
    return caught.value


def encoded(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(header: Any, payload: Any, key: bytes = SECRET.encode()) -> str:
    """Return a token with a valid HS256 signature, whatever its header says."""
    head = f"{encoded(header)}.{encoded(payload)}"
    return f"{head}.{encoded(hmac.digest(key, head.encode(), hashlib.sha256))}"


def test_the_claims_of_a_token_become_its_identity():
    expires = int(time.time()) + 100
    made = accepted(
        with_secret(),
        token(sub=42, exp=expires, rooms=["a", "b-*"], name="Ann", data={"x": [1]}, more="ignored"),
    )
    assert made == Identity("42", ("a", "b-*"), "Ann", {"x": [1]}, expires)


def test_a_token_without_rooms_gets_those_of_auth_rooms():
    assert accepted(with_secret(), token(rooms=None)).rooms == ()
    assert accepted(with_secret(auth_rooms="lobby, game-*"), token(rooms=None)).rooms == ("lobby", "game-*")
    assert accepted(with_secret(auth_rooms="*"), token(rooms=[])).rooms == ()


INVALID = {
    "empty": ("", "not a valid token"),
    "one word": ("hello", "not a valid token"),
    "two dots": ("a.b.c", "not a valid token"),
    "another secret": (token("x" * 40), "signature or algorithm"),
    "expired": (token(exp=int(time.time()) - 60), "has expired"),
    "no expiry": (token(exp=None), "no claim exp"),
    "no subject": (token(sub=None), "no claim sub"),
    "not yet": (token(nbf=int(time.time()) + 86400), "not valid yet"),
    "issued tomorrow": (token(iat=int(time.time()) + 86400), "not valid yet"),
    "expiry is not a number": (token(exp="soon"), "not a valid token"),
    "expiry is text": (token(exp=str(int(time.time()) + 3600)), "a time in seconds"),
    "infinite expiry": (token(exp=float("inf")), "not a valid token"),
    "sub is a list": (token(sub=["ann"]), "sub must be text"),
    "sub is true": (token(sub=True), "sub must be text"),
    "sub is empty": (token(sub=""), "sub is empty"),
    "sub has a line break": (token(sub="a\nb"), "control character"),
    "sub is long": (token(sub="x" * 300), "longer than"),
    "rooms is text": (token(rooms="lobby"), "must be a list"),
    "rooms has numbers": (token(rooms=[1]), "must be a list"),
    "name is a number": (token(name=7), "name must be text"),
    "data is too big": (token(data="x" * 5000), "data takes"),
    "signed with sha-512": (token(algorithm="HS512"), "signature or algorithm"),
    "unsigned": (jwt.encode(claims(), "", algorithm="none"), "signature or algorithm"),
    "says it is unsigned": (forge({"alg": "none"}, claims()), "signature or algorithm"),
    "says it is RS256": (forge({"alg": "RS256"}, claims()), "signature or algorithm"),
    "claims are a list": (forge({"alg": "HS256"}, [1]), "not a valid token"),
    "claims are not JSON": (forge({"alg": "HS256"}, b"\xff{"), "not a valid token"),
    "deep": (forge({"alg": "HS256"}, b"[" * 8000), "not a valid token"),
    "header is a list": (forge([], claims()), "not a valid token"),
    "kid is a list": (forge({"alg": "HS256", "kid": []}, claims()), "not a valid token"),
    "crit": (forge({"alg": "HS256", "crit": ["exp"]}, claims()), "not a valid token"),
    "unencoded payload": (forge({"alg": "HS256", "b64": False}, claims()), "not a valid token"),
    "too long": ("x" * 20_000, "at most"),
    "not ASCII": ("ä.b.c", "not a valid token"),
    "a surrogate": ("\ud800.b.c", "not a valid token"),
}


@pytest.mark.parametrize(("text", "words"), INVALID.values(), ids=INVALID)
def test_an_invalid_token_is_rejected_with_a_reason(text, words):
    error = rejected(with_secret(), text)
    assert words in error.message
    assert error.code == ("token_expired" if words == "has expired" else "unauthorized")
    assert "\n" not in error.message
    assert len(error.message) < 200
    assert SECRET not in error.message


def test_the_leeway_tolerates_differing_clocks():
    past = int(time.time()) - 3
    assert accepted(with_secret(auth_leeway=10), token(exp=past)).user_id == "ann"
    rejected(with_secret(auth_leeway=0), token(exp=past))


def test_audience_and_issuer_are_checked_where_they_are_configured():
    strict = with_secret(auth_audience="reactor", auth_issuer="https://us.example")
    good: dict[str, Any] = {"aud": ["other", "reactor"], "iss": "https://us.example"}
    assert accepted(strict, token(**good)).user_id == "ann"
    for wrong in (
        {"aud": "other"},
        {"aud": None},
        {"iss": "https://us.example.org"},
        {"iss": None},
        {"aud": 7},
    ):
        rejected(strict, token(**(good | wrong)))
    assert accepted(with_secret(), token(iss="https://us.example")).user_id == "ann"


@pytest.mark.parametrize("audience", ["reactor", ["reactor", "other"], 7, {"a": 1}])
def test_a_token_for_an_audience_is_refused_where_none_is_configured(audience: Any):
    """RFC 7519 section 4.1.3: a server that is not among the audience must reject the token."""
    rejected(with_secret(), token(aud=audience))
    assert accepted(with_secret(), token(aud=None)).user_id == "ann"


# Public keys.


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_key_accepts_only_tokens_of_its_private_key(tmp_path: Path, kind):
    keys = write_jwks(tmp_path / "keys.json", public_jwk(kind))
    authenticator = Authenticator(Settings(auth_jwks=keys))
    assert accepted(authenticator, signed(kind)).user_id == "ann"
    rejected(authenticator, signed(kind, 1))
    assert "kid" in rejected(authenticator, signed(kind, kid="another")).message
    rejected(authenticator, token())


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_key_is_not_accepted_as_an_hmac_secret(tmp_path: Path, kind):
    """Algorithm confusion: HS256 with the public key's bytes as its secret."""
    keys = write_jwks(tmp_path / "keys.json", public_jwk(kind, kid="k"))
    authenticator = Authenticator(Settings(auth_jwks=keys, auth_secret=SECRET.encode()))
    public = private_key(kind, 0).public_key()
    for form in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(public_jwk(kind, kid="k")).encode(),
    ):
        for header in ({"alg": "HS256", "kid": "k"}, {"alg": "HS256"}, {"alg": kind, "kid": "k"}):
            rejected(authenticator, forge(header, claims(), form))


def test_the_key_is_selected_by_its_kid(tmp_path: Path):
    entries = [public_jwk(kind, kid=kind) for kind in KINDS] + [public_jwk("RS256", 1, kid="next")]
    keys = write_jwks(tmp_path / "keys.json", *entries, {"kty": "weird", "use": "enc"})
    authenticator = Authenticator(Settings(auth_jwks=keys))
    for kind in KINDS:
        assert accepted(authenticator, signed(kind, kid=kind)).user_id == "ann"
    assert accepted(authenticator, signed("RS256", 1, kid="next")).user_id == "ann"
    assert "kid" in rejected(authenticator, signed("RS256")).message
    assert "kid" in rejected(authenticator, signed("RS256", kid="gone")).message
    rejected(authenticator, signed("RS256", kid="next"))
    rejected(authenticator, signed("EdDSA", kid="RS256"))


def test_a_secret_and_public_keys_work_together(tmp_path: Path):
    keys = write_jwks(tmp_path / "keys.json", public_jwk("EdDSA", kid="k"))
    authenticator = Authenticator(Settings(auth_jwks=keys, auth_secret=SECRET.encode()))
    assert accepted(authenticator, signed("EdDSA", kid="k")).user_id == "ann"
    assert accepted(authenticator, token(sub="bob")).user_id == "bob"
    rejected(authenticator, signed("EdDSA"))


def test_keys_are_reloaded_when_the_file_changes(tmp_path: Path):
    path = write_jwks(tmp_path / "keys.json", public_jwk("EdDSA", 0, kid="old"))
    authenticator = Authenticator(Settings(auth_jwks=path))
    rejected(authenticator, signed("EdDSA", 1, kid="new"))
    write_jwks(tmp_path / "next.json", public_jwk("EdDSA", 1, kid="new")).replace(path)
    assert accepted(authenticator, signed("EdDSA", 1, kid="new")).user_id == "ann"
    rejected(authenticator, signed("EdDSA", 0, kid="old"))


def test_an_unreadable_file_leaves_the_keys_in_use(tmp_path: Path):
    path = write_jwks(tmp_path / "keys.json", public_jwk("EdDSA", 0))
    authenticator = Authenticator(Settings(auth_jwks=path))
    path.write_text("{")
    assert accepted(authenticator, signed("EdDSA")).user_id == "ann"
    path.unlink()
    assert accepted(authenticator, signed("EdDSA")).user_id == "ann"
    write_jwks(path, public_jwk("EdDSA", 1))
    os.utime(path, (1, 1))
    assert accepted(authenticator, signed("EdDSA", 1)).user_id == "ann"


def small_rsa() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(generate_private_key(65537, 1024).public_key()))
    return table


FILES = {
    "not JSON": ("{", "is not JSON"),
    "deep": ("[" * 100_000, "is not JSON"),
    "a list": ("[]", "not a JWK set"),
    "no keys": ('{"keys": []}', "has no key"),
    "keys are text": ('{"keys": "x"}', "not a JWK set"),
    "a key is text": ('{"keys": ["x"]}', "key 1 is not an object"),
    "a secret": ('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "set it as auth_secret"),
    "another kind": ('{"keys": [{"kty": "EC", "crv": "P-521"}]}', "for an algorithm other than"),
    "another algorithm": ({"keys": [public_jwk("RS256", alg="PS256")]}, "for an algorithm other than"),
    "an incomplete key": ('{"keys": [{"kty": "RSA", "n": "AQAB"}]}', "cannot be read"),
    "a small key": ({"keys": [small_rsa()]}, "1024 bits"),
    "a kid that is a number": ({"keys": [public_jwk("EdDSA", kid=7)]}, "kid that is not text"),
    "the same kid twice": (
        {"keys": [public_jwk("EdDSA", kid="k"), public_jwk("RS256", kid="k")]},
        "kid of another",
    ),
    "one without kid": (
        {"keys": [public_jwk("EdDSA", kid="k"), public_jwk("RS256")]},
        "one of them without a kid",
    ),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
def test_an_invalid_jwks_file_is_an_error_at_the_start(tmp_path: Path, content, words):
    path = tmp_path / "keys.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SettingError, match=words) as caught:
        TokenKeys(Settings(auth_jwks=path))
    assert "\n" not in str(caught.value)


def test_a_missing_jwks_file_is_an_error_at_the_start(tmp_path: Path):
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        TokenKeys(Settings(auth_jwks=tmp_path / "none"))


def test_the_private_half_of_a_key_is_not_kept(tmp_path: Path):
    secret_jwk = json.loads(RSAAlgorithm.to_jwk(private_key("RS256", 0)))  # type: ignore[arg-type]
    keys = TokenKeys(Settings(auth_jwks=write_jwks(tmp_path / "keys.json", secret_jwk)))
    assert keys.verify(signed("RS256")).user_id == "ann"
    assert not any(hasattr(key.key, "sign") for key in keys._by_kid.values())


# Arbitrary input.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
AUTHENTICATOR = with_secret()


@given(st.text() | st.from_regex(r"[\w-]{0,20}\.[\w-]{0,20}\.[\w-]{0,20}", fullmatch=True))
def test_arbitrary_text_is_rejected(text):
    rejected(AUTHENTICATOR, text)


@given(st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "jku"]), json_values))
@example({"alg": "HS256", "kid": {}})
def test_any_header_is_accepted_or_rejected(header):
    made = forge(header, claims())
    if header.get("alg") != "HS256":
        rejected(AUTHENTICATOR, made)
        return
    try:
        assert accepted(AUTHENTICATOR, made).user_id == "ann"
    except Unauthorised:
        assert len(header) > 1


@given(
    st.dictionaries(
        st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "iss", "rooms", "name", "data"]), json_values
    )
)
@example({"exp": 1e400})
@example({"exp": 10**400})
@example({"exp": float("nan")})
@example({"iat": -(10**400)})
def test_any_claims_are_accepted_or_rejected(more):
    try:
        made = accepted(AUTHENTICATOR, forge({"alg": "HS256"}, claims() | more))
    except Unauthorised:
        return
    assert made.user_id
    assert made.user_id == str(more.get("sub", "ann"))
    assert made.expires_at is not None
    assert made.expires_at > time.time() - 10
    assert all(isinstance(room, str) for room in made.rooms or ())
    assert made.name is None or isinstance(made.name, str)


@given(st.binary(min_size=1, max_size=8), st.integers(0))
def test_a_modified_token_is_rejected(noise, position):
    valid = token()
    position %= len(valid)
    modified = valid[:position] + encoded(noise) + valid[position + 1 :]
    if modified != valid:
        try:
            accepted(AUTHENTICATOR, modified)
        except Unauthorised:
            return
        # The last character of a signature has bits that base64 does not use.
        assert position >= len(valid) - 2

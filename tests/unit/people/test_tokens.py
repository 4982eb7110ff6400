"""Tokens: what they say, which keys count, and that a token chooses nothing for itself."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from realtime.boards.submissions import CLOCK_GRACE
from realtime.errors import RealtimeError, StartupError
from realtime.people.identity import Identity
from realtime.people.tokens import TOKEN_LENGTH, Tokens, public_keys, read_keys, secret_keys

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECRET, NEXT = "first-secret-" * 4, "second-secret-" * 4
EXP = int((NOW + HOUR).timestamp())


def tokens(secret: str = SECRET, **rules: str) -> Tokens:
    return Tokens(secret_keys(secret), **rules)


def code_of(token: str, using: Tokens | None = None, now: datetime = NOW) -> str:
    with pytest.raises(RealtimeError) as caught:
        (using or tokens()).verify(token, now)
    assert len(token) < 40 or token not in caught.value.message
    return caught.value.code


# What they say -----------------------------------------------------------------------------------------------------


def test_a_token_says_what_was_put_into_it() -> None:
    token, expires_at = tokens().mint(7, ["submit", "read"], NOW, HOUR, boards=["all_time"])
    identity = tokens().verify(token, NOW)
    assert expires_at == NOW + HOUR
    assert (identity.user_id, identity.scopes, identity.expires_at) == (7, {"submit", "read"}, NOW + HOUR)
    assert identity.boards == {"all_time"}
    assert identity.token_id


def test_a_token_says_of_which_generation_it_is_and_when_it_was_issued() -> None:
    token, _ = tokens().mint(7, ["submit"], NOW, HOUR, generation="a1b2")
    identity = tokens().verify(token, NOW)
    assert (identity.generation, identity.issued_at) == ("a1b2", NOW.timestamp())
    offline = tokens().verify(jwt.encode({"exp": EXP, "iat": None}, SECRET), NOW)
    assert (offline.generation, offline.issued_at) == (None, 0.0)


def test_each_token_has_an_id_of_its_own() -> None:
    ids = {tokens().verify(tokens().mint(7, ["submit"], NOW, HOUR)[0], NOW).token_id for _ in range(50)}
    assert len(ids) == 50


def test_a_token_without_boards_is_bound_to_none() -> None:
    assert tokens().verify(tokens().mint(None, ["read"], NOW, HOUR)[0], NOW).boards is None


def test_an_empty_list_of_boards_binds_to_nothing_rather_than_to_everything() -> None:
    token = jwt.encode({"exp": EXP, "scope": "read", "boards": []}, SECRET)
    assert tokens().verify(token, NOW).boards == frozenset()


def test_a_token_ends_on_the_second() -> None:
    token, ends = tokens().mint(7, ["submit"], NOW, HOUR)
    assert tokens().verify(token, ends - timedelta(microseconds=1))
    assert code_of(token, now=ends) == "expired"


def test_a_token_does_not_count_before_its_time() -> None:
    token = jwt.encode({"exp": EXP, "nbf": EXP - 60}, SECRET)
    assert code_of(token) == "unauthorized"
    begins = NOW + HOUR - timedelta(seconds=60)
    assert tokens().verify(token, begins)
    assert tokens().verify(token, begins - CLOCK_GRACE), "whoever signs may have a clock that is ahead"
    assert code_of(token, now=begins - CLOCK_GRACE - timedelta(milliseconds=1)) == "unauthorized"


def test_a_token_of_a_clock_that_is_ahead_counts_at_once() -> None:
    token = jwt.encode({"exp": EXP, "iat": NOW.timestamp() + 3, "nbf": NOW.timestamp() + 3}, SECRET)
    assert tokens().verify(token, NOW)


def test_an_unknown_scope_is_not_made_and_means_nothing() -> None:
    with pytest.raises(RealtimeError, match="Unknown scope"):
        tokens().mint(7, ["everything"], NOW, HOUR)
    assert tokens().verify(jwt.encode({"exp": EXP, "scope": "root read"}, SECRET), NOW).scopes == {"read"}


def test_who_acts_is_told_without_the_token() -> None:
    assert Identity(7, frozenset(), NOW).actor == "user:7"
    assert Identity(None, frozenset(), NOW, None, "abc").actor == "token:abc"
    assert Identity(None, frozenset(), NOW).actor == "admin"


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"exp": "soon"},
        {"exp": None},
        {"exp": 1e300},
        {"exp": EXP, "sub": 7},
        {"exp": EXP, "sub": "0"},
        {"exp": EXP, "sub": "-7"},
        {"exp": EXP, "sub": "07"},
        {"exp": EXP, "sub": "7.0"},
        {"exp": EXP, "sub": " 7"},
        {"exp": EXP, "sub": "\u0667"},
        {"exp": EXP, "sub": "7_0"},
        {"exp": EXP, "sub": "9" * 400},
        {"exp": EXP, "sub": str(2**53)},
        {"exp": EXP, "sub": "somebody"},
        {"exp": EXP, "scope": ["admin"]},
        {"exp": EXP, "scope": {"admin": 1}},
        {"exp": EXP, "boards": "all_time"},
        {"exp": EXP, "boards": [1]},
        {"exp": EXP, "jti": 7},
        {"exp": EXP, "gen": 7},
        {"exp": EXP, "iat": "now"},
        {"exp": EXP, "nbf": "now"},
        {"exp": EXP, "nbf": float("nan")},
        {"exp": EXP, "aud": "somebody-else"},
    ],
    ids=str,
)
def test_claims_that_make_no_sense_are_refused(claims: dict[str, Any]) -> None:
    assert code_of(jwt.api_jws.encode(json.dumps(claims).encode(), SECRET)) == "unauthorized"


@given(st.text() | st.text(alphabet="eyJhbGciOi.-_=") | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_whatever_comes_is_refused_with_the_same_words(text: str) -> None:
    assert code_of(text) == "unauthorized"


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists)))
def test_whatever_is_signed_is_refused_or_understood(claims: dict[str, Any]) -> None:
    token = jwt.api_jws.encode(json.dumps(claims).encode(), SECRET)
    try:
        assert tokens().verify(token, NOW)
    except RealtimeError as error:
        assert error.code in ("unauthorized", "expired")


def test_a_token_of_any_length_is_not_even_read() -> None:
    token = jwt.encode({"exp": EXP, "scope": "x" * TOKEN_LENGTH}, SECRET)
    assert code_of(token) == "unauthorized"


# Secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["x" * 31, "", f"{SECRET},short", ","])
def test_a_short_secret_is_refused_without_being_told(secret: str) -> None:
    with pytest.raises(StartupError) as caught:
        tokens(secret)
    assert SECRET not in str(caught.value)
    assert "short" not in str(caught.value)


def test_while_secrets_are_rotated_all_of_them_count_and_the_first_signs() -> None:
    old, _ = tokens(SECRET).mint(7, ["submit"], NOW, HOUR)
    both = tokens(f"{NEXT}, {SECRET}")
    assert both.verify(old, NOW).user_id == 7
    new, _ = both.mint(7, ["submit"], NOW, HOUR)
    assert tokens(NEXT).verify(new, NOW)
    assert code_of(old, tokens(NEXT)) == "unauthorized"


def test_a_changed_token_is_refused() -> None:
    head, _, signature = tokens().mint(7, ["submit"], NOW, HOUR)[0].split(".")
    _, other, _ = tokens().mint(8, ["admin"], NOW, HOUR)[0].split(".")
    assert code_of(f"{head}.{other}.{signature}") == "unauthorized"


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_the_same_secret_under_another_algorithm_does_not_count(algorithm: str) -> None:
    assert code_of(jwt.encode({"exp": EXP}, SECRET * 2, algorithm), tokens(SECRET * 2)) == "unauthorized"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
def test_no_signature_is_no_signature(name: str) -> None:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    assert code_of(f"{part({'alg': name})}.{part({'exp': EXP, 'scope': 'admin'})}.") == "unauthorized"


# Audience and issuer -----------------------------------------------------------------------------------------------


def test_where_an_audience_is_set_every_token_must_name_it() -> None:
    ours = tokens(audience="boards", issuer="game")
    assert ours.verify(ours.mint(7, ["submit"], NOW, HOUR)[0], NOW).user_id == 7
    assert ours.verify(jwt.encode({"exp": EXP, "aud": ["x", "boards"], "iss": "game"}, SECRET), NOW)
    for claims in ({}, {"aud": "boards"}, {"iss": "game"}, {"aud": "x", "iss": "game"}, {"aud": "boards", "iss": "x"}):
        assert code_of(jwt.encode({"exp": EXP, **claims}, SECRET), ours) == "unauthorized", claims


# Public keys -------------------------------------------------------------------------------------------------------

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
SIGNERS: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
WRITERS: dict[str, Any] = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


def jwk(algorithm: str, key: Any = None, **more: Any) -> dict[str, Any]:
    public = (key or SIGNERS[algorithm]).public_key()
    return {**json.loads(WRITERS[algorithm].to_jwk(public)), **more}


def key_set(*members: dict[str, Any]) -> str:
    return json.dumps({"keys": members})


@pytest.mark.parametrize("algorithm", SIGNERS)
@pytest.mark.parametrize("kid", ["one", None])
def test_a_public_key_verifies_its_own_algorithm(algorithm: str, kid: str | None) -> None:
    named = {"kid": kid} if kid else {}
    checking = Tokens(public_keys(key_set(jwk(algorithm, **named))))
    token = jwt.encode({"exp": EXP, "sub": "7"}, SIGNERS[algorithm], algorithm, named)
    assert checking.verify(token, NOW).user_id == 7


def test_several_keys_count_at_once_each_under_its_name() -> None:
    keys = public_keys(key_set(jwk("RS256", kid="a"), jwk("ES256", kid="b"), jwk("EdDSA", kid="c")))
    checking = Tokens(keys + secret_keys(SECRET))
    for algorithm, kid in (("RS256", "a"), ("ES256", "b"), ("EdDSA", "c")):
        token = jwt.encode({"exp": EXP}, SIGNERS[algorithm], algorithm, {"kid": kid})
        assert checking.verify(token, NOW)
        for wrong in {"a", "b", "c", "d"} - {kid}:
            stolen = jwt.encode({"exp": EXP}, SIGNERS[algorithm], algorithm, {"kid": wrong})
            assert code_of(stolen, checking) == "unauthorized", (algorithm, wrong)
    assert checking.verify(tokens().mint(7, ["submit"], NOW, HOUR)[0], NOW)


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_a_public_key_is_no_secret(algorithm: str) -> None:
    """What everybody can read must not sign: HS256 with the key's text, whichever text that may be."""
    checking = Tokens(public_keys(key_set(jwk(algorithm, kid="one"))))
    public = SIGNERS[algorithm].public_key()
    texts = [
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk(algorithm)).encode(),
    ]
    for secret in texts:
        signed = b".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
            for part in ({"alg": "HS256", "kid": "one"}, {"exp": EXP, "scope": "admin"})
        )
        signature = base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=")
        assert code_of(f"{signed.decode()}.{signature.decode()}", checking) == "unauthorized"


def test_an_rsa_key_counts_for_rs256_alone() -> None:
    checking = Tokens(public_keys(key_set(jwk("RS256"))))
    for algorithm in ("RS512", "PS256"):
        assert code_of(jwt.encode({"exp": EXP}, RSA, algorithm), checking) == "unauthorized"


def test_a_key_that_came_with_the_token_does_not_count() -> None:
    checking = Tokens(public_keys(key_set(jwk("RS256", kid="one"))))
    own = rsa.generate_private_key(65537, 2048)
    headers = {"kid": "one", "jwk": jwk("RS256", own), "jku": "https://evil.example/keys"}
    assert code_of(jwt.encode({"exp": EXP}, own, "RS256", headers), checking) == "unauthorized"


def test_without_a_secret_tokens_are_checked_and_not_made() -> None:
    with pytest.raises(RealtimeError) as caught:
        Tokens(public_keys(key_set(jwk("RS256")))).mint(7, ["submit"], NOW, HOUR)
    assert caught.value.code == "forbidden"


def _weak() -> dict[str, Any]:
    return jwk("RS256", rsa.generate_private_key(65537, 1024))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "RFC 7517"),
        ("[]", "RFC 7517"),
        ('{"keys":7}', "RFC 7517"),
        ('{"keys":["x"]}', "RFC 7517"),
        ('{"keys":[]}', "no key"),
        (key_set(jwk("RS256", use="enc")), "no key"),
        (key_set({"kty": "oct", "k": "c2VjcmV0"}), "public keys alone"),
        (key_set(json.loads(WRITERS["ES256"].to_jwk(EC))), "public keys alone"),
        (key_set(jwk("RS256", alg="RS512", kid="k")), "not key 'k'"),
        (key_set(jwk("RS256", alg="HS256", kid="k")), "not key 'k'"),
        (key_set({"kty": "EC", "crv": "P-521", "kid": "k"}), "not key 'k'"),
        (key_set({"kty": "RSA", "n": "!", "e": "AQAB", "kid": "k"}), "cannot be read"),
        (key_set(_weak()), "2048 bits"),
    ],
)
def test_a_key_set_that_is_unfit_stops_the_start(text: str, says: str) -> None:
    with pytest.raises(StartupError, match=says):
        public_keys(text)


def test_keys_come_from_both_settings(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(key_set(jwk("ES256")))
    assert [key.algorithm for key in read_keys(SECRET, str(file))] == ["HS256", "ES256"]
    assert [key.algorithm for key in read_keys("", str(file))] == ["ES256"]
    with pytest.raises(StartupError, match="cannot be read"):
        read_keys(SECRET, str(tmp_path / "missing.json"))
    with pytest.raises(StartupError, match="REALTIME_SECRET"):
        Tokens(read_keys("", ""))

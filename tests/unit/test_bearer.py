"""Bearer tokens: whom they make of a client, and every way in which they do not count."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens import AUDIENCE, URL, TokenIssuer, public_jwk

from pandaserver.errors import ConfigError, NotAvailable, PandaError
from pandaserver.web.bearer import MAX_TOKEN, TokenError, TokenIdentifier, bearer_token, token_dn
from pandaserver.web.identity import Identity
from pandaserver.web.issuers import KEYS_LIFE_S, KEYS_PAUSE_S, Issuer, IssuerKeys, read_issuers

CONF = Path(__file__).resolve().parents[2] / "conf" / "issuers.cfg"
KNOWN = Issuer(name="test", url=URL, audience=(AUDIENCE,), vo="testvo", keys_url="https://iam.test/jwks")
STRANGER = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def identifier(issuer: TokenIssuer, known: Issuer = KNOWN, clock: Any = time.monotonic) -> TokenIdentifier:
    def fetch(url: str, ca: Path | None) -> Any:
        issuer.asked += 1
        if not issuer.answers:
            raise NotAvailable("away")
        return issuer.key_set()

    return TokenIdentifier([known], keys=lambda one: IssuerKeys(one, fetch=fetch, clock=clock))


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()


def identify(issuer: TokenIssuer, **told: Any) -> Identity:
    return identifier(issuer).identify(issuer.token(**told))


def refusal(issuer: TokenIssuer, token: str, known: Issuer = KNOWN) -> str:
    with pytest.raises(TokenError) as raised:
        identifier(issuer, known).identify(token)
    assert raised.value.__cause__ is None
    assert not any(part in raised.value.message for part in token.split(".") if len(part) > 8)
    return raised.value.message


# ---- good ones


def test_a_good_token(issuer: TokenIssuer) -> None:
    seen = identify(issuer)
    assert (seen.dn, seen.limited, seen.depth, seen.vo) == ("/OIDC=test/CN=u-1", False, 0, "testvo")
    assert seen.fqans == ("/testvo", "/testvo/Role=production")
    assert abs(seen.not_after.timestamp() - time.time() - 600) < 5


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "RS512"])
def test_other_algorithms(algorithm: str) -> None:
    assert identify(TokenIssuer(key=RSA), algorithm=algorithm).dn == "/OIDC=test/CN=u-1"


@pytest.mark.parametrize(
    ("groups", "fqans"),
    [
        (["/testvo/higgs", "/testvo/higgs/pilot"], ("/testvo/higgs", "/testvo/higgs/Role=pilot")),
        (["testvo", "testvo/production", "testvo"], ("/testvo", "/testvo/Role=production")),
        (["/othervo", "/testvo2", "users", "/testvo"], ("/testvo",)),
        (["/", "", "//", "/testvo/../x", "/testvo/a b", "/testvo/Role=x/Role=y", "/production"], ()),
        ([], ()),
    ],
)
def test_groups_as_voms_writes_them(issuer: TokenIssuer, groups: list[str], fqans: tuple[str, ...]) -> None:
    told = {"wlcg.groups": groups}
    assert identify(issuer, **told).fqans == fqans
    assert identify(issuer, **{"wlcg.groups": None, "groups": groups}).fqans == fqans


def test_scopes_that_stand_for_a_group(issuer: TokenIssuer) -> None:
    known = Issuer(**{**vars(KNOWN), "scopes": ("panda.pilot /testvo/Role=pilot",)})
    token = issuer.token(**{"wlcg.groups": None, "scope": "openid panda.pilot panda.other"})
    assert identifier(issuer, known).identify(token).fqans == ("/testvo/Role=pilot",)


@pytest.mark.parametrize(
    ("scope", "limited"),
    [
        ("openid profile wlcg.groups", False),
        ("storage.read:/", True),
        ("compute.read compute.cancel", True),
        ("compute.create storage.read:/", False),
        ("compute.creates", True),
    ],
)
def test_capabilities_limit(issuer: TokenIssuer, scope: str, limited: bool) -> None:
    assert identify(issuer, scope=scope).limited is limited


def test_subjects_are_told_apart() -> None:
    subjects = ["a", "A", "a/CN=b", "a%2FCN=b", "a=b", "a b", "a+b", "http://cilogon.org/users/1", "é", "a\n"]
    names = [token_dn("test", subject) for subject in subjects]
    assert len(set(names)) == len(names)
    assert all(name.count("/") == 2 and name.count("=") == 2 and name.isprintable() for name in names)


# ---- bad ones


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exp": int(time.time()) - 60}, "expired"),
        ({"exp": None}, "exp is missing"),
        ({"exp": "soon"}, "damaged"),
        ({"nbf": int(time.time()) + 600}, "not valid yet"),
        ({"iat": int(time.time()) + 600}, "not valid yet"),
        ({"aud": "https://other.test"}, "audience"),
        ({"aud": [AUDIENCE + "/", "x"]}, "audience"),
        ({"aud": None}, "aud is missing"),
        ({"iss": "https://evil.test/"}, "issuer is not known"),
        ({"iss": URL.rstrip("/")}, "issuer is not known"),
        ({"iss": None}, "issuer is not known"),
        ({"iss": [URL]}, "issuer is not known|damaged"),
        ({"sub": None}, "sub is missing"),
        ({"sub": ""}, "0 characters"),
        ({"sub": "x" * 201}, "201 characters"),
        ({"sub": 7}, "damaged"),
        ({"wlcg.groups": 7}, "no list of words"),
        ({"wlcg.groups": [["/testvo"]]}, "no list of words"),
        ({"scope": {"a": 1}}, "no list of words"),
    ],
)
def test_claims_that_do_not_count(issuer: TokenIssuer, changed: dict[str, Any], reason: str) -> None:
    told = issuer.claims(**changed)
    token = jwt.api_jws.encode(json.dumps(told).encode(), issuer.key, algorithm="ES256", headers={"kid": "k1"})
    with pytest.raises(TokenError, match=reason):
        identifier(issuer).identify(token)
    refusal(issuer, token)


def test_some_seconds_of_difference_are_no_matter(issuer: TokenIssuer) -> None:
    now = int(time.time())
    assert identify(issuer, exp=now - 10, nbf=now + 10).dn == "/OIDC=test/CN=u-1"


def test_signed_by_somebody_else(issuer: TokenIssuer) -> None:
    forger = TokenIssuer(key=STRANGER)
    assert "signature is wrong" in refusal(issuer, forger.token())
    embedded = {"jwk": public_jwk(STRANGER, "k1"), "jku": "https://evil.test/jwks", "x5u": "https://evil.test/x"}
    assert "signature is wrong" in refusal(issuer, forger.token(headers=embedded))


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, 7])
def test_no_signature_at_all(issuer: TokenIssuer, name: Any) -> None:
    for signature in ("", "AAAA", issuer.token().rpartition(".")[2]):
        token = f"{encoded({'alg': name, 'kid': 'k1'})}.{encoded(issuer.claims())}.{signature}"
        assert "algorithm is not accepted" in refusal(issuer, token) or name == 7


@pytest.mark.parametrize("key", [STRANGER, RSA], ids=["ec", "rsa"])
def test_the_public_key_is_no_secret(key: Any) -> None:
    """HS256 with what everybody may read must not be taken for the issuer's signature."""
    issuer = TokenIssuer(key=key)
    forms = [
        (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    ]
    secrets = [key.public_key().public_bytes(*form) for form in forms] + [
        json.dumps(issuer.key_set()["keys"][0]).encode()
    ]
    for secret in secrets:
        body = f"{encoded({'alg': 'HS256', 'kid': 'k1'})}.{encoded(issuer.claims())}"
        mac = hmac.HMAC(secret, hashes.SHA256())
        mac.update(body.encode())
        token = f"{body}.{base64.urlsafe_b64encode(mac.finalize()).rstrip(b'=').decode()}"
        assert "algorithm is not accepted" in refusal(issuer, token)


def test_an_algorithm_that_is_not_of_the_key(issuer: TokenIssuer) -> None:
    for algorithm in ("RS256", "PS256", "EdDSA"):
        header = {"alg": algorithm, "kid": "k1"}
        assert "does not fit" in refusal(issuer, f"{encoded(header)}.{encoded(issuer.claims())}.AAAA")
    issuer.key_set = lambda: {"keys": [public_jwk(issuer.key, "k1", alg="ES512")]}  # type: ignore[method-assign]
    assert "does not fit" in refusal(issuer, issuer.token())


@pytest.mark.parametrize(
    "keys",
    [
        [{"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}],
        [{"kty": "EC", "kid": "k1", "use": "enc", "crv": "P-256", "x": "AA", "y": "AA"}],
        [7, None, "x", []],
        [],
    ],
)
def test_key_sets_without_a_key_of_use(issuer: TokenIssuer, keys: list[Any]) -> None:
    issuer.key_set = lambda: {"keys": keys}  # type: ignore[method-assign]
    with pytest.raises((TokenError, NotAvailable)):
        identify(issuer)


def test_a_damaged_key(issuer: TokenIssuer) -> None:
    issuer.key_set = lambda: {"keys": [{"kty": "EC", "kid": "k1", "crv": "P-256", "x": "AA", "y": 7}]}  # type: ignore[method-assign]
    refusal(issuer, issuer.token())


@pytest.mark.parametrize("key_set", [None, [], {}, {"keys": {}}, "x"])
def test_what_is_no_key_set(issuer: TokenIssuer, key_set: Any) -> None:
    issuer.key_set = lambda: key_set  # type: ignore[method-assign]
    with pytest.raises(NotAvailable, match="test cannot be fetched"):
        identify(issuer)


def test_a_token_without_key_id(issuer: TokenIssuer) -> None:
    token = jwt.encode(issuer.claims(), issuer.key, algorithm="ES256")
    assert identifier(issuer).identify(token).dn == "/OIDC=test/CN=u-1"
    two = [public_jwk(issuer.key, "k1"), public_jwk(STRANGER, "k2")]
    issuer.key_set = lambda: {"keys": two}  # type: ignore[method-assign]
    assert "no key of this id" in refusal(issuer, token)


def test_huge_and_empty_tokens(issuer: TokenIssuer) -> None:
    assert f"1 to {MAX_TOKEN} are taken" in refusal(issuer, "x" * (MAX_TOKEN + 1))
    assert "0 characters" in refusal(issuer, "")
    deep = f"{encoded({'alg': 'ES256', 'kid': 'k1'})}.{base64.urlsafe_b64encode(b'[' * 9000).decode().rstrip('=')}.AAAA"
    assert "damaged" in refusal(issuer, deep)


# ---- keys


def test_keys_are_fetched_once_and_tokens_verified_once(issuer: TokenIssuer) -> None:
    tokens = identifier(issuer)
    one, other = issuer.token(), issuer.token(sub="u-2")
    tokens.identify(one)  # and the keys are known
    assert tokens.identify(one) is tokens.identify(one)
    assert tokens.identify(other).dn == "/OIDC=test/CN=u-2"
    assert issuer.asked == 1


def test_a_new_key_is_found_and_unknown_ones_do_not_bother_the_issuer(issuer: TokenIssuer) -> None:
    now = [1000.0]
    tokens = identifier(issuer, clock=lambda: now[0])
    old = issuer.token()
    tokens.identify(old)
    for number in range(20):
        with pytest.raises(TokenError, match="no key of this id"):
            tokens.identify(issuer.token(headers={"kid": f"unknown-{number}"}))
    assert issuer.asked == 1
    issuer.key, issuer.key_id = STRANGER, "k2"
    now[0] += KEYS_PAUSE_S
    assert tokens.identify(issuer.token()).dn == "/OIDC=test/CN=u-1"
    assert issuer.asked == 2
    with pytest.raises(TokenError, match="no key of this id"):
        tokens.identify(old)  # remembered before, but its key has been withdrawn


def test_keys_grow_old_and_an_issuer_may_be_away_for_a_while(issuer: TokenIssuer) -> None:
    now = [1000.0]
    tokens = identifier(issuer, clock=lambda: now[0])
    issuer.answers = False
    for _ in range(3):
        with pytest.raises(NotAvailable, match="test cannot be fetched now"):
            tokens.identify(issuer.token())
    assert issuer.asked == 1
    issuer.answers = True
    now[0] += KEYS_PAUSE_S
    tokens.identify(issuer.token())
    issuer.answers = False
    now[0] += KEYS_LIFE_S
    assert tokens.identify(issuer.token(sub="u-9")).dn == "/OIDC=test/CN=u-9"
    assert issuer.asked == 3


# ---- where it comes from


def test_where_a_token_is_taken_from() -> None:
    tls = {"SSL_CLIENT_VERIFY": "NONE"}
    assert bearer_token(tls) is None
    assert bearer_token(tls | {"HTTP_AUTHORIZATION": "Basic eDp5"}) is None
    assert bearer_token(tls | {"HTTP_AUTHORIZATION": " bearer  abc "}) == "abc"
    assert bearer_token(tls | {"HTTP_AUTHORIZATION": "Bearer"}) == ""
    with pytest.raises(TokenError, match="without TLS"):
        bearer_token({"HTTP_AUTHORIZATION": "Bearer abc"})


# ---- the file


def test_the_sample_can_be_read_and_has_every_key() -> None:
    (sample,) = read_issuers(CONF)
    assert (sample.name, sample.vo, sample.roles) == ("example", "example", ("production", "pilot"))
    text = CONF.read_text()
    for key in vars(sample):
        assert key == "name" or f"\n{key} =" in text, key
    assert read_issuers(None) == ()


GOOD = "[issuer a]\nurl = https://a.test\naudience = x\nvo = a\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD.replace("https", "http"), "https:// is expected"),
        (GOOD + "keys_url = http://a.test/jwks\n", "https:// is expected"),
        (GOOD.replace("audience = x", "audience ="), "audience is empty"),
        (GOOD.replace("vo = a\n", ""), "vo is missing"),
        (GOOD.replace("vo = a", "vo = a/b c"), "words of letters"),
        (GOOD + "roles = a b\n", "words of letters"),
        (GOOD + "scopes = x\n", "SCOPE GROUP"),
        (GOOD + "scopes = x /other\n", "group of a"),
        (GOOD + "secret = x\n", "unknown key"),
        (GOOD.replace("issuer a", "issuer"), r"\[issuer NAME\]"),
        (GOOD.replace("issuer a", "issuer a/CN=x"), r"\[issuer NAME\]"),
        (GOOD + GOOD.replace("issuer a", "issuer b"), "same url"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "issuers.cfg").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_issuers(tmp_path / "issuers.cfg")


# ---- damage

ISSUER = TokenIssuer()
TOKEN = ISSUER.token(exp=int(time.time()) + 36000)
TOKENS = identifier(ISSUER)


def same_or_refused(token: str) -> None:
    with contextlib.suppress(PandaError):
        assert TOKENS.identify(token).dn == "/OIDC=test/CN=u-1"


@settings(max_examples=400)
@given(st.data())
def test_mutated_tokens(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(TOKEN)))
    end = start + data.draw(st.integers(0, 30))
    piece = data.draw(
        st.one_of(st.text(max_size=10), st.just(TOKEN[start:end] * 2), st.sampled_from([".", "=", "-", "A"]))
    )
    same_or_refused(TOKEN[:start] + piece + TOKEN[end:])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "zip"]), json_values),
    st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "scope", "wlcg.groups"]), json_values),
)
def test_any_claim_signed_by_the_issuer(headers: dict[str, Any], claims: dict[str, Any]) -> None:
    """Even an issuer that says nonsense gets an answer, never a fault."""
    good = {"alg": "ES256", "kid": "k1"}
    for header, body in ((good | headers, ISSUER.claims()), (good, ISSUER.claims() | claims)):
        unsigned = f"{encoded(header)}.{encoded(body)}"
        signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(unsigned.encode(), ISSUER.key)
        token = f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
        with contextlib.suppress(PandaError):
            TOKENS.identify(token)

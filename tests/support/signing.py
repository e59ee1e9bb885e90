"""Keys and tokens for tests: those of a back end, and the public parts for the server."""

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as rsa_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

SECRET = "a secret of the tests that is long enough, for HS512 as well as for HS256"


def claims(**more: Any) -> dict[str, Any]:
    """Valid claims for ann in any room; a value of None removes a claim."""
    all_ = {"sub": "ann", "exp": int(time.time()) + 3600, "rooms": ["*"]} | more
    return {name: value for name, value in all_.items() if value is not None}


def token(secret: str = SECRET, algorithm: str = "HS256", **more: Any) -> str:
    return jwt.encode(claims(**more), secret, algorithm=algorithm)


@cache
def private_key(kind: str, number: int) -> RSAPrivateKey | Ed25519PrivateKey | EllipticCurvePrivateKey:
    """A key of this kind; a different one for each number."""
    if kind == "RS256":
        return rsa_key(65537, 2048)
    return Ed25519PrivateKey.generate() if kind == "EdDSA" else ec_key(SECP256R1())


def public_jwk(kind: str, number: int = 0, **more: Any) -> dict[str, Any]:
    key: Any = private_key(kind, number).public_key()
    algorithm: Any = {"RS256": RSAAlgorithm, "EdDSA": OKPAlgorithm, "ES256": ECAlgorithm}[kind]
    return {**json.loads(algorithm.to_jwk(key)), **more}


def signed(kind: str, number: int = 0, *, kid: str | None = None, **more: Any) -> str:
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(claims(**more), private_key(kind, number), algorithm=kind, headers=headers)


def write_jwks(path: Path, *keys: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"keys": keys}))
    return path

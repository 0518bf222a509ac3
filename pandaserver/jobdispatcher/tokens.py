"""Job tokens: proof that a word about an attempt comes from the pilot that was given it."""

from __future__ import annotations

import hashlib
import hmac

TOKEN_SECRET = "job-tokens"  # its name among the secrets that all server processes share


def job_token(secret: str, job_id: int, attempt: int) -> str:
    """Make the token of one attempt; nothing needs to be stored, all server processes share the secret."""
    return hmac.new(secret.encode(), f"job {job_id} attempt {attempt}".encode(), hashlib.sha256).hexdigest()


def is_token(token: str, secret: str, job_id: int, attempt: int) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(token.encode(), job_token(secret, job_id, attempt).encode())

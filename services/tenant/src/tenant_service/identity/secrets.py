"""Secrets: how they are made, hashed, compared and encrypted."""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tenantry import StartupRefused

MASTER_KEY_BYTES = 32
_NONCE_BYTES = 12
_SECRET_BYTES = 32


class MasterKeyError(StartupRefused):
    """The master key is missing, malformed, or not the one that the database was encrypted with: do not start."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A ciphertext with the nonce that it was made with."""

    nonce: bytes
    ciphertext: bytes


class MasterKey:
    """AES-256-GCM under the key of the deployment. A ciphertext is bound to the name of what it holds.

    `previous` is the key of before, while what it has encrypted is encrypted anew.
    """

    def __init__(self, key: bytes, previous: "MasterKey | None" = None) -> None:
        self._cipher = AESGCM(key)
        self._previous = previous

    @classmethod
    def load(cls, encoded: str, file: Path | None, previous: str = "", previous_file: Path | None = None) -> Self:
        """The key from the environment, or from a file; raises `MasterKeyError` where it is in both or cannot be read.

        The same holds for the previous one, which may be missing.
        """
        old = cls.parse(_text(previous, previous_file)) if previous or previous_file else None
        return cls.parse(_text(encoded, file), old)

    @classmethod
    def parse(cls, encoded: str, previous: "MasterKey | None" = None) -> Self:
        """The key from base64 of 32 bytes; raises `MasterKeyError` without saying what was given."""
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != MASTER_KEY_BYTES:
            raise MasterKeyError("TENANT_MASTER_KEY must be 32 random bytes in base64 (openssl rand -base64 32)")
        return cls(key, previous)

    def seal(self, plaintext: bytes, name: str) -> Sealed:
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed(nonce, self._cipher.encrypt(nonce, plaintext, name.encode()))

    def open(self, sealed: Sealed, name: str) -> bytes:
        """The plaintext. Raises `MasterKeyError` where it was sealed with another key or under another name."""
        try:
            return self._cipher.decrypt(sealed.nonce, sealed.ciphertext, name.encode())
        except InvalidTag:
            if self._previous is not None:
                return self._previous.open(sealed, name)
            raise MasterKeyError(
                f"TENANT_MASTER_KEY is not the key that {name!r} was encrypted with in this database"
            ) from None


def _text(encoded: str, file: Path | None) -> str:
    if file is None:
        return encoded
    if encoded:
        raise MasterKeyError("the master key stands in the environment and in a file: give one")
    try:
        return file.read_text().strip()
    except (OSError, ValueError) as error:
        raise MasterKeyError(f"the file of the master key cannot be read: {error.__class__.__name__}") from None


def new_secret(prefix: str) -> str:
    """`prefix` and 256 random bits in 43 URL-safe characters."""
    return prefix + secrets.token_urlsafe(_SECRET_BYTES)


def sha256(secret: str) -> bytes:
    """What is stored of a secret. It is made of 256 random bits, so a slow hash would protect nothing."""
    return hashlib.sha256(secret.encode()).digest()


def matches(secret: str, stored_sha256: bytes | None) -> bool:
    """Whether the secret is the stored one, in a time that tells nothing; None (nobody) takes the same time."""
    expected = bytes(hashlib.sha256().digest_size) if stored_sha256 is None else stored_sha256
    return hmac.compare_digest(sha256(secret), expected) and stored_sha256 is not None

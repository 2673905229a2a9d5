"""Who signs paper: an X.509 certificate with an EC P-256 key, the home's own or one that the operator brings.

A home makes its own when it is made: a small certificate authority and one signing certificate under
it, both in PEM below `keys/`. That says "the same home signed this", no more. An operator whose readers trust a public
authority puts that authority's certificate and key in their place; docs/paper.md says how.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fangxin.data.errors import InputError, NotAllowed

KEY, CERTIFICATE = "certificate.key.pem", "certificate.pem"
CA_KEY, CA = "certificate-ca.key.pem", "certificate-ca.pem"
_DOCUMENTS = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")  # RFC 9336, id-kp-documentSigning
_LASTS, _CA_LASTS = timedelta(days=5 * 365), timedelta(days=20 * 365)


@dataclass(frozen=True, eq=False)
class Signatory:
    """A certificate, its key, what leads from it to its root, and the lists of what was revoked; keys never show."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]  # issuers, the root last
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(repr=False)
    ca_key: ec.EllipticCurvePrivateKey | None = field(repr=False, default=None)  # where the home is its own authority
    crls: tuple[x509.CertificateRevocationList, ...] = ()

    @property
    def name(self) -> str:
        """The common name in the certificate."""
        found = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(found[0].value) if found else self.certificate.subject.rfc4514_string()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, hex."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @classmethod
    def create(cls, folder: Path, *, origin: str, now: datetime) -> Signatory:
        """Make the home's own authority and certificate; NotAllowed where there is one."""
        if (folder / KEY).exists() or (folder / CERTIFICATE).exists():
            raise NotAllowed(f"{CERTIFICATE}: is there already", hint="move it and its key away to make another")
        since = now.astimezone(UTC).replace(microsecond=0) - timedelta(days=1)
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name, name = _name(f"{origin} paper CA"), _name(f"{origin} paper")
        ca = (
            _builder(ca_name, ca_name, ca_key.public_key(), since, _CA_LASTS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        certificate = (
            _builder(name, ca_name, key.public_key(), since, _LASTS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_DOCUMENTS, ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = serialization.Encoding.PEM
        _write(folder / CA_KEY, _private(ca_key), 0o600)
        _write(folder / CA, ca.public_bytes(pem), 0o644)
        _write(folder / KEY, _private(key), 0o600)
        _write(folder / CERTIFICATE, certificate.public_bytes(pem), 0o644)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Signatory:
        """Read key, certificate and chain; InputError where they are missing, malformed or not of each other."""
        try:
            key = serialization.load_pem_private_key((folder / KEY).read_bytes(), password=None)
            listed = x509.load_pem_x509_certificates((folder / CERTIFICATE).read_bytes())
            above = x509.load_pem_x509_certificates((folder / CA).read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{KEY}, {CERTIFICATE} or {CA}: cannot be read: {type(error).__name__}",
                hint="PEM without a passphrase, the signing certificate first; docs/paper.md",
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise InputError(f"{KEY}: expected an EC or RSA key", hint="EC P-256 is fastest")
        if key.public_key() != listed[0].public_key():
            raise InputError(f"{CERTIFICATE}: its first certificate is not the one of {KEY}")
        chain = (*listed[1:], *(one for one in above if one not in listed))
        below = listed[0]
        for one in chain:
            try:
                below.verify_directly_issued_by(one)
            except (ValueError, TypeError, InvalidSignature) as error:
                raise InputError(
                    f"{CA}: does not issue what stands before it: {type(error).__name__}",
                    hint="the certificate, then each issuer, the root last",
                ) from None
            below = one
        ca_key = None
        if (folder / CA_KEY).exists():
            loaded = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), password=None)
            ca_key = loaded if isinstance(loaded, ec.EllipticCurvePrivateKey) else None
        crls = tuple(x509.load_pem_x509_crl(one.read_bytes()) for one in sorted(folder.glob("certificate*.crl.pem")))
        return cls(listed[0], chain, key, ca_key, crls)

    def revoked(self, now: datetime) -> tuple[x509.CertificateRevocationList, ...]:
        """The lists of what was revoked: those that were brought, or an empty one that the home's authority signs."""
        if self.crls or self.ca_key is None:
            return self.crls
        since = now.astimezone(UTC).replace(microsecond=0)
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.chain[-1].subject)
            .last_update(since - timedelta(minutes=5))
            .next_update(since + timedelta(days=31))
            .add_extension(x509.CRLNumber(int(since.timestamp())), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()), critical=False)
            .sign(self.ca_key, hashes.SHA256())
        )
        return (made,)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, since: datetime, lasts: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(since + lasts)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=not sign_certificates,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

"""Signatures on paper: PAdES (ETSI EN 319 142) by pyHanko, at two levels.

* **B-B** for certificates: who signed; when is the ledger's word, and its time token's.
* **B-LTA** for periodic reports: signature, time token over it, everything needed to check both in ten years (chain,
  revocation lists), and a second time token over all of that.

The last ByteRange ends where the file ends: bytes that are appended later are seen. pyHanko's own defaults put one more
revision behind the last time stamp; the settings below put it before.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from functools import lru_cache
from threading import Thread
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fangxin.data.errors import DoesNotHold, Unavailable
from fangxin.reports.paper.signatory import Signatory

if TYPE_CHECKING:
    from asn1crypto import crl as asn1_crl
    from asn1crypto import x509 as asn1_x509
    from pyhanko.sign.signers import PdfSignatureMetadata, Signer
    from pyhanko.sign.timestamps import TimeStamper

Replies = Callable[[bytes], bytes]  # a time-stamping authority: RFC 3161 request in, response out, both DER


def sign(pdf: bytes, *, by: Signatory, at: datetime, reason: str) -> bytes:
    """Sign at level B-B: the signatory's certificate, the time as a claim of the signatory."""
    from pyhanko.sign.fields import SigSeedSubFilter
    from pyhanko.sign.signers import PdfSignatureMetadata

    about = PdfSignatureMetadata(
        field_name=FIELD, md_algorithm="sha256", subfilter=SigSeedSubFilter.PADES, reason=reason, name=by.name
    )
    return _signed(pdf, about, by, at, None, room=_room(by))


def sign_for_long(
    pdf: bytes, *, by: Signatory, at: datetime, reason: str, replies: Replies, authorities: Sequence[x509.Certificate]
) -> bytes:
    """Sign at level B-LTA; `authorities` are the roots of the time-stamping authority that `replies` speaks for.

    Raises Unavailable where the authority does not answer, DoesNotHold where chain and token do not fit each other.
    """
    from pyhanko.sign.fields import SigSeedSubFilter
    from pyhanko.sign.general import SigningError
    from pyhanko.sign.signers import PdfSignatureMetadata
    from pyhanko.sign.signers.pdf_signer import (
        DSSContentSettings,
        SigDSSPlacementPreference,
        TimestampDSSContentSettings,
    )
    from pyhanko_certvalidator import ValidationContext
    from pyhanko_certvalidator.errors import PathError

    roots = [_asn1(one) for one in (by.chain[-1], *authorities)]
    about = PdfSignatureMetadata(
        field_name=FIELD,
        md_algorithm="sha256",
        subfilter=SigSeedSubFilter.PADES,
        reason=reason,
        name=by.name,
        embed_validation_info=True,
        use_pades_lta=True,
        validation_context=ValidationContext(
            trust_roots=roots,
            other_certs=[_asn1(one) for one in by.chain],
            crls=[_asn1_crl(one) for one in by.revoked(at)],
            allow_fetching=False,
            revocation_mode="soft-fail",
            moment=at,
        ),
        dss_settings=DSSContentSettings(
            include_vri=False,
            placement=SigDSSPlacementPreference.TOGETHER_WITH_NEXT_TS,
            next_ts_settings=TimestampDSSContentSettings(include_vri=False, update_before_ts=True),
        ),
    )
    logging.getLogger("pyhanko").setLevel(logging.ERROR)  # it warns that nothing is fetched: that is meant
    try:
        return _signed(pdf, about, by, at, _stamper(replies))
    except (SigningError, PathError) as error:
        raise DoesNotHold(
            f"signed for the long term: chain, lists or token do not hold together: {type(error).__name__}",
            hint="keys/tsa-ca.pem is the root of the authority that `tsa` names; all certificates are valid now",
        ) from None


FIELD = "Verification"


def _room(by: Signatory) -> int:
    """Hexadecimal digits for a signature without a token: its certificates, and as much again as names and RSA need.

    pyHanko would sign once more to learn it, which costs as much as the signature.
    """
    certificates = (by.certificate, *by.chain)
    return 2 * (sum(len(one.public_bytes(serialization.Encoding.DER)) for one in certificates) + 3_072)


def _signed(
    pdf: bytes,
    about: PdfSignatureMetadata,
    by: Signatory,
    at: datetime,
    stamper: TimeStamper | None,
    *,
    room: int | None = None,
) -> bytes:
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.sign.signers import PdfSigner

    class AtThisTime(PdfSigner):
        """pyHanko would read the clock."""

        def init_signing_session(self, *args: Any, **kwargs: Any) -> Any:  # Any: pyHanko's session
            session = super().init_signing_session(*args, **kwargs)
            session.system_time = at
            return session

    signer = AtThisTime(about, _signer(by), timestamper=stamper)
    out = io.BytesIO()
    _run(signer.async_sign_pdf(IncrementalPdfFileWriter(io.BytesIO(pdf)), bytes_reserved=room, output=out))
    return out.getvalue()


@lru_cache(maxsize=4)
def _signer(by: Signatory) -> Signer:
    from asn1crypto import keys
    from pyhanko.sign.signers import SimpleSigner
    from pyhanko_certvalidator.registry import SimpleCertificateStore

    store = SimpleCertificateStore()  # type: ignore[no-untyped-call]  # pyHanko leaves some functions untyped
    store.register_multiple([_asn1(one) for one in by.chain])
    der = by.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SimpleSigner(_asn1(by.certificate), keys.PrivateKeyInfo.load(der), store)


def _stamper(replies: Replies) -> TimeStamper:
    from asn1crypto import tsp
    from pyhanko.sign.timestamps import TimeStamper

    class Authority(TimeStamper):
        """A time-stamping authority behind a plain function."""

        async def async_request_tsa_response(self, req: tsp.TimeStampReq) -> tsp.TimeStampResp:
            try:
                return tsp.TimeStampResp.load(replies(req.dump()))
            except (OSError, ValueError) as error:
                raise Unavailable(
                    f"the time-stamping authority gave no token: {type(error).__name__}", hint="run this again later"
                ) from None

    return Authority()  # type: ignore[no-untyped-call]


def _run(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine to its end, also where this thread runs a loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    failed: list[BaseException] = []

    def aside() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # handed over to who waits
            failed.append(error)

    thread = Thread(target=aside)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _asn1(certificate: x509.Certificate) -> asn1_x509.Certificate:
    from asn1crypto import x509 as asn1

    return asn1.Certificate.load(certificate.public_bytes(serialization.Encoding.DER))


def _asn1_crl(revoked: x509.CertificateRevocationList) -> asn1_crl.CertificateList:
    from asn1crypto import crl

    return crl.CertificateList.load(revoked.public_bytes(serialization.Encoding.DER))

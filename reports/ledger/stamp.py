"""Time: RFC 3161 tokens over checkpoints, so that dates are not the operator's word alone.

A `TimeStamper` turns the exact bytes of a file into the exact bytes of a TimeStampResp (`checkpoint.tsr`), asked for
with SHA-256, a nonce and the signer's certificate. One token per checkpoint, none per certificate. Whether the token's
chain holds is for the verifier to say; here it is only made sure that the answer belongs to the question.

Public anchors (Rekor, OpenTimestamps, Sigsum) are further implementations of the same idea and live outside of the
core: docs/auditors.md says how one is added, and that none of ours was tried against a live service.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Protocol

from fangxin.data.errors import DoesNotHold, Unavailable

QUERY_TYPE, REPLY_TYPE = "application/timestamp-query", "application/timestamp-reply"
_MOST = 65_536


class TimeStamper(Protocol):
    """Who attests that some bytes existed: `stamp` returns a TimeStampResp, or raises Unavailable."""

    def stamp(self, data: bytes) -> bytes:
        """Return the token over these very bytes."""
        ...


@dataclass(frozen=True)
class HttpTimeStamper:
    """A time stamping authority reached over HTTP (RFC 3161, section 3.4)."""

    url: str
    seconds: float = 10.0

    def stamp(self, data: bytes) -> bytes:
        """Ask the authority; Unavailable if it does not answer in time, DoesNotHold if it answers something else."""
        query, nonce = question(data)
        reply = self.ask(query)
        check_reply(reply, data, nonce)
        return reply

    def ask(self, query: bytes) -> bytes:
        """Return what the authority answers to a TimeStampReq, unjudged; Unavailable if it does not in time."""
        import httpx

        try:
            reply = httpx.post(self.url, content=query, headers={"Content-Type": QUERY_TYPE}, timeout=self.seconds)
        except httpx.HTTPError:
            raise Unavailable("the time stamping authority does not answer", hint="it is asked again later") from None
        if reply.status_code != 200 or len(reply.content) > _MOST:
            raise Unavailable(
                f"the time stamping authority answered {reply.status_code}", hint="it is asked again later"
            )
        return reply.content


def question(data: bytes) -> tuple[bytes, int]:
    """Return a TimeStampReq (DER) over the SHA-256 of these bytes, and its nonce of 64 bits."""
    from asn1crypto import algos, tsp

    nonce = secrets.randbits(63) | 1 << 62
    imprint = {
        "hash_algorithm": algos.DigestAlgorithm({"algorithm": "sha256"}),
        "hashed_message": hashlib.sha256(data).digest(),
    }
    asked = tsp.TimeStampReq({"version": "v1", "message_imprint": imprint, "nonce": nonce, "cert_req": True})
    return bytes(asked.dump()), nonce


def check_reply(reply: bytes, data: bytes, nonce: int | None) -> None:
    """Raise Unavailable if the authority refused, DoesNotHold if its answer is not to this question."""
    from asn1crypto import cms, core, tsp

    class Reply(core.Sequence):  # type: ignore[misc]  # asn1crypto has no types; its own class wants a token always
        _fields = [("status", tsp.PKIStatusInfo), ("token", cms.ContentInfo, {"optional": True})]  # noqa: RUF012

    try:
        answer = Reply.load(reply, strict=True)
        status = answer["status"]["status"].native
        if status not in ("granted", "granted_with_mods"):
            raise Unavailable(f"the time stamping authority refused: {status}", hint="look at its policy")
        said = answer["token"]["content"]["encap_content_info"]["content"].parsed
        imprint, given = said["message_imprint"], said["nonce"].native
        asked = (imprint["hash_algorithm"]["algorithm"].native, imprint["hashed_message"].native)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DoesNotHold("the time stamping authority's answer is not a TimeStampResp") from None
    if asked != ("sha256", hashlib.sha256(data).digest()) or (nonce is not None and given != nonce):
        raise DoesNotHold("the time stamping authority answered another question")

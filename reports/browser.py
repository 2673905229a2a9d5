"""The verifier as one web page: `verify.html`, which checks a package in a browser and sends nothing.

The page is a template; what is filled in here is the table of entries, the same that the ledger writes by, and a
Content-Security-Policy that names the page's own script and style by their hashes and forbids everything else, so that
neither a changed script nor an outside address can do anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files

from fangxin.reports.ledger.entries import fields


def page() -> bytes:
    """Return the page; the same bytes every time."""
    text = files("fangxin").joinpath("reports", "templates", "package", "verify.html").read_text("utf-8")
    text = text.replace('"@TYPES@"', json.dumps(fields(), sort_keys=True, separators=(",", ":")))
    rules = ["default-src 'none'", "base-uri 'none'", "form-action 'none'"]
    for kind in ("script", "style"):
        (inside,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        rules.append(f"{kind}-src 'sha256-{digest}'")
    return text.replace("@POLICY@", "; ".join(rules)).encode()

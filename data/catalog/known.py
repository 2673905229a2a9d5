"""Words that catalogs use, and what an unknown one most likely means.

* Data categories are the names of fideslang 3.1.4; a catalog declares its own in a `data_category:` list.
* Any word may be a kind of identity, but only the built-in ones have spellings of their own: a phone number under
  the kind `phone` is compared letter by letter, and is missed where it is written with blanks.
"""

from __future__ import annotations

import difflib
import re

from fangxin.data.catalog.kinds import SPELLED

CATEGORIES = frozenset(  # one family a line
    """
    system
    system.authentication
    system.operations
    user
    user.account user.account.settings user.account.username
    user.authorization user.authorization.biometric user.authorization.credentials user.authorization.password
    user.behavior user.behavior.browsing_history user.behavior.media_consumption user.behavior.purchase_history
    user.behavior.search_history
    user.biometric user.biometric.fingerprint user.biometric.health user.biometric.retinal user.biometric.voice
    user.childrens
    user.contact user.contact.address user.contact.address.city user.contact.address.country
    user.contact.address.postal_code user.contact.address.state user.contact.address.street user.contact.email
    user.contact.fax_number user.contact.organization user.contact.phone_number user.contact.url
    user.content user.content.private user.content.public user.content.self_image
    user.criminal_history
    user.demographic user.demographic.age_range user.demographic.date_of_birth user.demographic.gender
    user.demographic.language user.demographic.marital_status user.demographic.political_opinion
    user.demographic.profile user.demographic.race_ethnicity user.demographic.religious_belief
    user.demographic.sexual_orientation
    user.device user.device.cookie user.device.cookie_id user.device.device_id user.device.ip_address
    user.financial user.financial.bank_account user.financial.credit_card
    user.government_id user.government_id.birth_certificate user.government_id.drivers_license_number
    user.government_id.immigration user.government_id.national_identification_number
    user.government_id.passport_number user.government_id.vehicle_registration
    user.health_and_medical user.health_and_medical.genetic user.health_and_medical.insurance_beneficiary_id
    user.health_and_medical.record_id
    user.job_title
    user.location user.location.imprecise user.location.precise
    user.name user.name.first user.name.last
    user.payment
    user.privacy_preferences
    user.sensor
    user.social
    user.telemetry
    user.unique_id user.unique_id.pseudonymous
    user.user_sensor
    user.workplace
    """.split()  # noqa: SIM905 - 85 strings in quotes would be harder to compare
)

_KINDS = sorted(SPELLED | {"openid", "unionid"})
_ALSO_CALLED = {
    "phone_number": "phone mobile mobilephone mobilenumber telephone tel cellphone phoneno 手机 手机号 手机号码 电话",
    "email": "mail emailaddress mailaddress 邮箱 电子邮箱 邮件",
    "cn_resident_id": "residentid idcard idcardno idcardnumber nationalid 身份证 身份证号 身份证号码",
    "bank_card": "card cardno cardnumber bankcardno bankcardnumber 银行卡 银行卡号",
    "name": "fullname realname 姓名",
}
_MEANT = {word: kind for kind, words in _ALSO_CALLED.items() for word in words.split()} | {
    kind.replace("_", ""): kind for kind in _KINDS
}


def folded(word: str) -> str:
    """A word without case and separators: what two spellings of one kind share."""
    return re.sub(r"[\W_]", "", word.casefold())


def likely_kind(kind: str) -> str | None:
    """The built-in kind that a word of the catalog's own most likely means; None for built-in and other words."""
    if kind in _KINDS:
        return None
    return _MEANT.get(folded(kind)) or next(iter(difflib.get_close_matches(kind, _KINDS, n=1, cutoff=0.8)), None)


def likely_category(label: str, own: frozenset[str]) -> str | None:
    """The known category that a label most likely means."""
    return next(iter(difflib.get_close_matches(label, sorted(CATEGORIES | own), n=1, cutoff=0.8)), None)

"""The words a certificate may use, in English and Chinese: each claims what was shown and no more.

Overwriting the bytes of files is partial sanitisation: the vocabulary for whole media (NIST SP 800-88, IEEE 2883)
is never used for it, whatever a store or a template would like to say.

* The medium decides the wording; what is not known to be a disk gets the weaker sentence.
* A limit is printed where it applies to this run, not as a boilerplate for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fangxin.data.vocabulary import Method

# Words for whole media or for ever, unless a sentence says that they do not apply ("not a clear of the medium").
TOO_STRONG = re.compile(
    r"(?<!not )(?<!not a )(?<!never )\b(?:clear(?:ed|s|ing)?|purg\w*|permanent\w*|forever|irrecoverabl\w*)\b"
    r"|彻底清除|永久删除|无法恢复",
    re.IGNORECASE,
)

_WEAK_MEDIUM = re.compile(
    r"\b(?:non-rotational|not rotational|solid|ssd|nvme|flash|virtual|thin|addressable|unknown)\b", re.IGNORECASE
)
_DISK = re.compile(r"\b(?:rotational|disk|extents)\b", re.IGNORECASE)

# What was done to the bytes, in (English, Chinese); `{why}` stands for a reason.
CLAIMS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "nothing": ("Nothing had to be done here.", "此处无需处理。"),
        "extents": (
            "The extents of the old files were overwritten once, flushed to the device, read back and found unmoved. "
            "This is partial sanitisation: of these files, not of a whole medium.",
            "旧文件所占的存储区段已覆写一遍，写入设备后逐字节读回核对，且位置未变。这属于部分净化：针对这些文件，而非整个存储介质。",
        ),
        "blocks": (
            "The addressable blocks of the old files were overwritten once, flushed and read back: a logical "
            "overwrite. Spare cells, and snapshots and replicas kept by the host, are not reached by it.",
            "旧文件的可寻址数据块已覆写一遍，写入设备后读回核对：属于逻辑覆写。介质的备用单元以及宿主机保留的快照和副本不在其列。",
        ),
        "cryptographic": (
            "Cryptographic erase: the values were encrypted under a key of this person alone, and that key was "
            "destroyed. Copies of the key held elsewhere, and any time the values lay in plain text before, are "
            "outside this claim.",
            "密码学擦除：内容以仅属于本人的密钥加密，该密钥已销毁。若他处另存有密钥，或内容在加密前曾以明文存放，则不在本结论之内。",
        ),
        "logical": (
            "Logically deleted: the file was written anew without these rows, but its old bytes could not be "
            "overwritten in place ({why}). Old blocks may remain until the medium reuses them.",
            "逻辑删除：文件已在去除这些记录后重写，但旧字节未能就地覆写（原因：{why}）。旧数据块在被介质重新使用之前可能仍然存在。",
        ),
        "expiry": (
            "This copy was not changed; it ends by itself on the day that is printed, and was not examined.",
            "该副本未作改动，将于所载日期自行到期，且未经检查。",
        ),
    }
)


def claim_of(method: str, claim: str, reason: str) -> tuple[str, str]:
    """Say which of CLAIMS holds, and its reason or ""; `claim` and `reason` are an Erasure's.

    Raises ValueError for a method nobody has defined words for: an undescribed method must not reach a certificate.
    """
    if not method:
        return "nothing", ""
    match Method(method):
        case Method.OVERWRITE:
            return ("extents" if _DISK.search(claim) and not _WEAK_MEDIUM.search(claim) else "blocks"), ""
        case Method.CRYPTOGRAPHIC_ERASE:
            return "cryptographic", ""
        case Method.LOGICAL_DELETE:
            return "logical", reason or "the medium refused"
        case Method.EXPIRY:
            return "expiry", ""


def filled(words: str, why: str) -> str:
    """Put a reason into the words of a claim."""
    return words.replace("{why}", why)


def claim_words(method: str, claim: str, reason: str) -> tuple[str, str]:
    """Say in (English, Chinese) what was done to the bytes; ValueError as for `claim_of`."""
    key, why = claim_of(method, claim, reason)
    en, zh = CLAIMS[key]
    return filled(en, why), filled(zh, why)


def claims_too_much(method: str, text: str) -> bool:
    """Whether a sentence about OVERWRITE borrows the vocabulary of whole media."""
    return method == Method.OVERWRITE and TOO_STRONG.search(text) is not None


@dataclass(frozen=True)
class Limit:
    """Something the evidence does not show; `id` is stable, the sentences are printed."""

    id: str
    en: str
    zh: str


def limits(
    *,
    methods: Collection[str],
    keys: bool,
    copies: bool,
    export: bool,
    witnessed: bool,
    time_stamped: bool,
    crowd: bool = False,
    planted: Sequence[str] = (),
    control: Sequence[str] = (),
) -> tuple[Limit, ...]:
    """The limits that apply to one run, in the order in which they are printed."""
    apply = {
        "overwrite": Method.OVERWRITE in methods,
        "logical-delete": Method.LOGICAL_DELETE in methods,
        "keys": keys,
        "copies": copies,
        "export": export,
        "one-history": not witnessed,
        "dates": not time_stamped,
        "crowd": crowd,
        "planted": bool(planted),
        "control": bool(control),
    }
    here = (limit for limit in LIMITS.values() if apply.get(limit.id, True))
    named = {"planted": planted, "control": control}
    return tuple(_naming(limit, named[limit.id]) if limit.id in named else limit for limit in here)


def _naming(limit: Limit, planted: Sequence[str]) -> Limit:
    """The limit with the first ten of these places in it."""
    more = len(planted) - 10
    en, zh = ", ".join(planted[:10]), "、".join(planted[:10])
    if more > 0:
        en, zh = f"{en} and {more} more", f"{zh}，另有 {more} 处"
    return Limit(limit.id, limit.en.replace("{where}", en), limit.zh.replace("{where}", zh))


_ALL = (
    Limit(
        "recorded",
        "The ledger proves what was recorded and when, not that the scanner told the truth. That is why the digests of "
        "program and catalog, the planted control and a repeatable scan stand beside it.",
        "账本证明何时记录了什么，并不证明扫描程序本身诚实；因此另附程序与数据目录的摘要、预先植入的对照记录，以及可重复的扫描方法。",
    ),
    Limit(
        "one-history",
        "No independent witness has cosigned the ledger: until one does, the operator could show two histories.",
        "账本尚未经独立见证方联署；在此之前，运营方有可能对不同的人出示不同的历史。",
    ),
    Limit(
        "own-traces",
        "Our own files, Prefect's database among them, were searched as they stood at that moment; Prefect goes on "
        "writing, opaque ids and states only.",
        "我方自身的文件（包括 Prefect 的数据库）按搜索当时的状态接受检查；"
        "Prefect 之后仍会写入，但只写不透明编号和状态。",
    ),
    Limit(
        "dates",
        "No time-stamping authority has confirmed the dates: they are the operator's word.",
        "日期未经第三方时间戳机构确认，以运营方陈述为准。",
    ),
    Limit(
        "overwrite",
        "Overwriting says nothing of spare and remapped cells, device caches, snapshots, or copies that were freed "
        "before this run could hold them.",
        "覆写不涉及介质的备用或重映射单元、设备缓存、快照，以及本次处理之前已被释放的旧副本。",
    ),
    Limit(
        "logical-delete",
        "Where a medium refused to be overwritten, or another writer replaced a file first, old blocks may keep their "
        "bytes until they are reused.",
        "介质不支持就地覆写之处，或文件已先被其他程序替换之处，旧数据块在被重新使用之前可能仍保留原有字节。",
    ),
    Limit(
        "keys",
        "Destroying a key covers exactly what was encrypted under it. Nobody can prove that a key was not copied while "
        "it lived.",
        "销毁密钥仅覆盖以该密钥加密的内容；无人能够证明密钥在存续期间未被复制。",
    ),
    Limit(
        "control",
        "The made-up person that was planted as a control was not shown to be gone when this batch was validated "
        "({where}): an operator's word ended the batch. What is told of each collection above is the subject's own.",
        "验证时未能证明预先植入的虚构对照记录已经清除（{where}），该批次由运营方人员确认后结束。上文各项结果仅就当事人本人的数据而言。",
    ),
    Limit(
        "planted",
        "The made-up person that was planted as a control could not be taken out everywhere, and is still found in "
        "{where}: nobody's data, to be removed by whoever runs the stores.",
        "预先植入的虚构对照记录未能全部移除，仍见于：{where}。该记录不属于任何真实的人，由数据存储的运维方移除。",
    ),
    Limit(
        "names",
        "File names, directory blocks and the file system's own journal cannot be addressed.",
        "文件名、目录块以及文件系统自身的日志无法逐一处理。",
    ),
    Limit(
        "common-values",
        "Values that many people share, such as a name or a city, are judged by record, not by bytes.",
        "与他人相同的内容（如姓名、城市）按记录判断，而非按字节判断。",
    ),
    Limit(
        "crowd",
        "This batch held more than 1,000 identities, so they were searched in core breadth: a value counts where it is "
        "a whole word or number, and the forms that are listed as not searched were left out.",
        "本批次包含的标识超过 1,000 个，因此按核心广度查找："
        "仅当内容为完整的词或数字时才算找到，列为未查找的形式不在其中。",
    ),
    Limit(
        "derived",
        "Keyed hashes, trained models and aggregates that cannot be traced back to a row were not examined.",
        "带密钥的散列值、已训练的模型以及无法追溯到单条记录的统计结果未作检查。",
    ),
    Limit(
        "elsewhere",
        "Looked through were the collections of the catalog, all else below its root, and what the operator has "
        "watched: no other folders, logs shipped elsewhere, query caches, or copies in other organisations' systems.",
        "查找范围为数据目录所列的数据集合、其根目录下的其余文件以及运营方指定的位置；"
        "其他文件夹、已外送的日志、查询缓存以及其他组织系统中的副本不在其列。",
    ),
    Limit(
        "copies",
        "Declared copies, such as backups, were not opened. They end on the day that is printed beside them.",
        "已申报的副本（如备份）未被打开检查，将于所载日期到期。",
    ),
    Limit(
        "export",
        "The exported files are a new copy, outside this certificate; whoever holds them answers for them.",
        "导出的文件是一份新的副本，不在本证明范围之内，由持有人自行保管。",
    ),
    Limit(
        "memory",
        "Main memory, swap, hibernation files and crash dumps were not examined.",
        "内存、交换区、休眠文件和崩溃转储未作检查。",
    ),
    Limit(
        "moment",
        "The scan speaks of the moment it ran. Whoever administers the machine could change it while it is being read, "
        "or afterwards.",
        "扫描结论仅对应扫描当时；机器的管理者可能在扫描期间或之后改动数据。",
    ),
)
LIMITS: Mapping[str, Limit] = MappingProxyType({limit.id: limit for limit in _ALL})

# Forms that a search may leave out (checks/residue/forms.py, LEFT_OUT), as pages say them: English, Chinese.
LEFT_OUT: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "base64": ("base64", "base64"),
        "hexadecimal of the text": ("hexadecimal of the text", "文本的十六进制"),
        "reversed": ("reversed", "倒序"),
        "UTF-16, UTF-32 and Big5, but for addresses": (
            "UTF-16, UTF-32 and Big5, but for addresses",
            "UTF-16、UTF-32 和 Big5（邮箱地址除外）",
        ),
        "numbers but int64": ("numbers but int64", "int64 以外的数字"),
        "hashes but in hexadecimal, or as platforms exchange them": (
            "hashes but in hexadecimal, or as platforms exchange them",
            "散列值（十六进制及平台间交换的形式除外）",
        ),
        "fragments": ("fragments", "片段"),
        "parts of longer tokens": ("parts of longer tokens", "较长词中的一部分"),
        "too short": ("forms too short to search", "过短而无法查找的形式"),
    }
)

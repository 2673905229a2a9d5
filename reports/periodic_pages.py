"""A periodic report as pages: the same blocks for HTML and for paper, in both languages.

A report is a list of sections, a section a list of blocks: cards, a chart, a table, facts, a sentence. This file says
what stands where and in which words; the two templates only draw. It adds no figure to those of the JSON.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from fangxin.reports import charts
from fangxin.reports.bands import Shown, upper
from fangxin.reports.paper.press import LANGUAGES, press
from fangxin.reports.periodic import report_bytes
from fangxin.reports.render import draw, size, whole

Said = dict[str, str]  # language -> text
Block = dict[str, Any]  # what a template draws
_DRAWN = 20  # datasets in a chart, those with the most traces; the table has all
NOT_RECORDED = ("无记录", "not recorded")
_COARSE = (
    "本期有些范围从 0 起，如「0–4」：即也可能一个人都没有。",
    "Some ranges of this period begin at 0, such as 0–4: there may have been nobody at all.",
)

_TITLE = ("数据删除合规报告", "Data Deletion Compliance Report")
_VERDICTS = {
    "good": (
        ("本期完成的擦除均已复查，未发现残留", "Every erasure of this period was checked again, and nothing was left"),
        (
            "每一次完成的擦除都经过与之前相同的搜索；预先植入的对照人物在擦除前被找到，擦除后不再出现。",
            "Each completed erasure was searched again in the way that had found the person before; "
            "the planted control "
            "was found before and not after.",
        ),
    ),
    "none": (
        ("本期没有完成的擦除", "No erasure was completed in this period"),
        ("本期没有可供复查的擦除。", "There was none to check again."),
    ),
    "mind": (
        ("本期有需要说明的事项", "There are matters to explain in this period"),
        (
            "有未成功的处理、未覆盖的期间、安全事件，或检验程序漏检的情形；详见下文。",
            "Something failed, a period is not covered by a report, an incident was recorded, or a test of our own was "
            "not caught; the sections below say which.",
        ),
    ),
    "bad": (
        ("本期有尚未处理的残留", "Something that should be gone is still there"),
        (
            "复查发现了尚未得到后续验证答复的残留。我们不会声称已经完成。",
            "A validation found residue that no later one has answered yet. We do not claim that it is done.",
        ),
    ),
}
_COMPARED = {
    "flow/received": ("收到", "received"),
    "flow/closed": ("完成", "closed"),
    "flow/partial": ("部分擦除", "partial"),
    "flow/failed": ("未成功", "failed"),
    "flow/open": ("期末未结", "open at the end"),
    "time/calendar_minutes/p50": ("用时中位数", "median duration"),
    "time/calendar_minutes/p90": ("用时 P90", "P90 of duration"),
    "residues/found": ("发现残留", "residues found"),
    "trust/hits_unexplained": ("未能解释的痕迹", "unexplained traces"),
}


def report_html(document: Mapping[str, Any]) -> bytes:  # Any: JSON
    """The report as one self-contained HTML page in both languages, charts as SVG with their figures beside them."""
    return draw(report_template(), **_view(document))


@cache
def report_template() -> str:
    """The report's page as one text, with the words of its first lines inside; see reports/render.py `whole`."""
    return whole("report.html.j2", title=_said(_TITLE), heads=_VERDICTS)


def report_pdf(document: Mapping[str, Any], *, languages: Sequence[str] = LANGUAGES) -> bytes:
    """The report on paper, with its JSON attached."""
    view = _view(document)
    for one in (block for section in view["sections"] for block in section["blocks"] if block["kind"] == "chart"):
        # In drawings Typst takes the face's thinnest weight: a thin line around each letter makes it readable.
        one["svg"] = {
            n: svg.replace("<text ", f'<text stroke="{charts.SOFT}" stroke-width="0.3" ')
            for n, svg in one["svg"].items()
        }
    return press("report.typ", ("report.json", report_bytes(document)), view, languages=languages)


def _view(document: Mapping[str, Any]) -> dict[str, Any]:
    head, text = _VERDICTS[document["verdict"]]
    return {
        "title": _said(_TITLE),
        "period": document["period"],
        "preview": document["preview"],
        "rehearsal": document["rehearsal"],
        "origin": document["origin"],
        "digest": hashlib.sha256(report_bytes(document)).hexdigest(),
        "verdict": {"kind": document["verdict"], "title": _said(head), "text": _said(text)},
        "version": document["software"]["version"],
        "sections": [
            _overview(document),
            _flow(document),
            _time(document),
            _work(document),
            _residues(document),
            _kept(document),
            _trust(document),
            _chain(document),
            _check(document),
        ],
    }


# ---------------------------------------------------------------- sections


def _overview(d: Mapping[str, Any]) -> Block:
    flow, spans = d["flow"], d["time"]["calendar_minutes"]
    blocks = [
        _cards(
            (("收到的申请", "requests received"), _count(flow["received"])),
            (("完成的擦除", "erasures completed"), _count(flow["closed"])),
            (("用时 P90", "P90 of duration"), _too_few() if spans is None else _span(spans["p90"])),
            (
                ("发现并处理的残留", "residues found and answered"),
                _of(d["residues"]["answered"], d["residues"]["found"]),
            ),
        )
    ]
    if d["comparison"]:
        label = d["chain"]["previous"]["period"]
        rows = [
            [_said(_COMPARED[one["label"]]), _figure(one["label"], one["before"]), _figure(one["label"], one["now"])]
            for one in d["comparison"]
        ]
        blocks.append(
            _table((("与上期比较", "beside the period before"), (label, label), ("本期", "now")), "lrr", rows)
        )
    return _section(("概览", "Overview"), blocks)


def _flow(d: Mapping[str, Any]) -> Block:
    flow = d["flow"]
    series = (("收到", "received"), ("完成", "closed"))
    groups = [(one["label"], (one["received"], one["closed"])) for one in flow["parts"]]
    rows = [
        (("期初未结", "open at the start"), flow["open_before"]),
        (("收到", "received"), flow["received"]),
        (("已擦除", "erased"), flow["erased"]),
        (("已擦除，依法保留部分除外", "erased, except for what a law keeps"), flow["erased_with_retention"]),
        (("部分擦除：目录之外仍有副本", "partial: copies stand outside the catalog"), flow["partial"]),
        (("未成功，仍在处理", "failed, work goes on"), flow["failed"]),
        (("拒绝", "refused"), flow["refused"]),
        *(((f"　拒绝原因 {one['reason']}", f"refused: {one['reason']}"), one["count"]) for one in flow["refusals"]),
        (("撤回", "withdrawn"), flow["withdrawn"]),
        (("反悔期内恢复", "restored within the time for regret"), flow["restored"]),
        (("期末未结", "open at the end"), flow["open"]),
    ]
    return _section(
        ("申请", "Requests"),
        [
            _text(
                (
                    "为使任何人都无法被认出，少于五人只写成范围：「1–4」即一至四人中的某个数；"
                    "能据以推算出它的其他数字也写成范围。浅色柱画到范围的上限。",
                    "So that nobody can be recognised, fewer than five people are given as a range: 1–4 means some "
                    "number from one to four, and a figure from which it could be worked out is a range too. A pale "
                    "bar ends where the range does.",
                )
            ),
            *([_text(_COARSE)] if d["coarse"] else []),
            _chart(
                ("每段期间收到与完成的申请", "Requests received and closed, by part of the period"),
                lambda n: charts.bars("", [one[n] for one in series], groups),
            ),
            _table((("", ""), ("申请", "requests")), "lr", [[_said(name), _count(count)] for name, count in rows]),
            _table(
                (("期间", "from"), *series),
                "lrr",
                [[_same(one["label"]), _count(one["received"]), _count(one["closed"])] for one in flow["parts"]],
            ),
        ],
    )


def _time(d: Mapping[str, Any]) -> Block:
    time = d["time"]
    minutes, days = time["calendar_minutes"], time["working_days"]
    names = [(("中位数", "median"), "p50"), *((("P" + p, "P" + p), "p" + p) for p in ("90", "95", "99"))]
    rows = [
        [
            _said(name),
            _too_few() if minutes is None else _span(minutes[key]),
            _too_few() if days is None else _count(days[key]),
        ]
        for name, key in (*names, (("最长", "longest"), "max"))
    ]
    labels = [(f"≤{one['days']}" if one["days"] else "＞30") for one in time["histogram"]]
    counts = [one["count"] for one in time["histogram"]]
    exact = all(isinstance(one, int) for one in counts) and sum(counts) > 0
    measured = _count(time["measured"])["zh"]
    blocks = [
        _text(
            (
                f"从收到申请到复查完成，按 {measured} 份证明计算；工作日按中国国务院公布的日历。",
                f"From receipt to the last check, from {measured} certificates; working days by the calendar that "
                "China's State Council publishes.",
            )
        ),
        _table((("用时", "duration"), ("自然日", "calendar"), ("工作日", "working days")), "lrr", rows),
    ]
    if exact:
        running, points = 0, []
        for label, count in zip(labels, counts, strict=True):
            running += count
            points.append((label, running * 1000 // sum(counts)))
        blocks.append(
            _chart(
                ("在若干日内完成的比例", "Share completed within so many days"),
                lambda n: charts.steps("", ("自然日", "calendar days")[n], points),
            )
        )
    else:
        blocks.append(
            _chart(
                ("按用时（自然日）的申请数", "Requests by duration in calendar days"),
                lambda n: charts.bars(
                    "", [("申请", "requests")[n]], [(a, (b,)) for a, b in zip(labels, counts, strict=True)]
                ),
            )
        )
    blocks.append(
        _table(
            (("自然日", "calendar days"), ("申请", "requests")),
            "lr",
            [[_same(label), _count(count)] for label, count in zip(labels, counts, strict=True)],
        )
    )
    blocks.append(_facts([(("超期清单", "overdue"), _said(NOT_RECORDED))]))
    return _section(("用时", "Time"), blocks)


def _work(d: Mapping[str, Any]) -> Block:
    work = d["work"]
    if not work:
        return _section(
            ("处理的数据", "Work"), [_text(("本期没有可供汇总的证明。", "No certificate of this period is at hand."))]
        )
    series = (("之前找到的痕迹", "traces before"), ("之后的残留", "traces after"))
    head = (
        ("数据集", "dataset"),
        ("找到", "found"),
        ("擦除", "erased"),
        ("依法保留", "kept by law"),
        ("遮盖", "masked"),
        ("残留", "left"),
        ("检查字节", "bytes read"),
        ("覆写字节", "bytes overwritten"),
    )
    rows = [
        [
            _same(one["dataset"]),
            *(_count(one[k]) for k in ("rows_found", "rows_erased", "rows_retained", "values_masked", "hits_after")),
            _same(size(one["bytes_read"])),
            _same(size(one["bytes_overwritten"])),
        ]
        for one in work
    ]
    most = sorted(work, key=lambda one: (-upper(one["baseline_hits"]), one["dataset"]))[:_DRAWN]
    keys = d["keys"]
    return _section(
        ("处理的数据", "Work, by dataset"),
        [
            _chart(
                ("擦除前后的痕迹", "Traces before and after"),
                lambda n: charts.beside(
                    "",
                    [one[n] for one in series],
                    [(one["dataset"], (one["baseline_hits"], one["hits_after"])) for one in most],
                ),
            ),
            _table(head, "lrrrrrrr", rows),
            _facts(
                [
                    (("密钥销毁批次", "batches of key destruction"), _count(keys["batches"])),
                    (
                        ("每批销毁的密钥（范围）", "keys in a batch, as ranges"),
                        _same(", ".join(charts.said(name) for name in keys["bands"]) or "–"),
                    ),
                ]
            ),
        ],
    )


def _residues(d: Mapping[str, Any]) -> Block:
    r = d["residues"]
    none = ("–", "–")
    return _section(
        ("残留与修复", "Residue, and time to fix it"),
        [
            _text(
                (
                    "复查若发现本应消失的内容，即记为残留；须由其后的验证答复。",
                    "What a check finds although it should be gone is a residue; a later validation has to answer it.",
                )
            ),
            _facts(
                [
                    (("发现", "found"), _count(r["found"])),
                    (("已由其后的验证答复", "answered by a later validation"), _count(r["answered"])),
                    (("尚未答复", "not answered yet"), _count(r["open"])),
                    (
                        ("修复用时中位数", "median time to fix"),
                        _said(none) if r["median_minutes"] is None else _span(r["median_minutes"]),
                    ),
                    (
                        ("修复最长用时", "longest time to fix"),
                        _said(none) if r["longest_minutes"] is None else _span(r["longest_minutes"]),
                    ),
                ]
            ),
            *(
                [
                    _table(
                        (("存储", "store"), ("残留", "residues")), "lr", [[_same(a), _count(n)] for a, n in r["stores"]]
                    )
                ]
                if r["stores"]
                else []
            ),
        ],
    )


def _kept(d: Mapping[str, Any]) -> Block:
    if not d["kept"]:
        return _section(("依法保留", "Kept by law"), [_text(("没有依法保留的记录。", "Nothing is kept under a law."))])
    rows = [
        [
            {"zh": f"{one['text_zh']}\n{one['rule']}", "en": f"{one['text_en']}\n{one['rule']}"},
            _same(one["class"]),
            _count(one["requests"]),
            _same(one["next"] or "–"),
        ]
        for one in d["kept"]
    ]
    head = (("依据", "ground"), ("类别", "class"), ("涉及申请", "requests"), ("最近到期", "next expiry"))
    return _section(
        ("依法保留", "Kept by law"),
        [
            _text(
                (
                    "截至期末，仍因法律规定而保留的记录；到期另行擦除。",
                    "What laws still keep at the end of the period; it is due to be erased when its day has come.",
                )
            ),
            _table(head, "llrl", rows),
            _facts([(("结清与无人领取的款项", "forfeited and unclaimed money"), _said(NOT_RECORDED))]),
        ],
    )


def _trust(d: Mapping[str, Any]) -> Block:
    t = d["trust"]

    def or_none(value: Any, *text: str) -> Said:  # Any: JSON
        return _said(NOT_RECORDED) if value is None else _said((text[0].format(**value), text[1].format(**value)))

    def unless_none(value: Any, *text: str) -> Said:  # Any: JSON
        """What something of the period came to; where there was none that is said in words, never as 0 of 0."""
        return or_none(value, *text) if value and any(value.values()) else _said(("本期没有", "none in this period"))

    exceptions = ", ".join(f"{one['code']} × {one['count']}" for one in t["exceptions"]) or "–"
    return _section(
        ("检验与监督", "What stands behind these figures"),
        [
            _facts(
                [
                    (("验证次数", "validations"), _count(t["validations"])),
                    (("验证读取的字节", "bytes read by validations"), _same(size(t["bytes_scanned"]))),
                    (("未能解释的痕迹", "unexplained traces"), _count(t["hits_unexplained"])),
                    (
                        ("植入的对照：之前找到，之后消失", "planted controls: found before, gone after"),
                        _count(t["canaries"]),
                    ),
                    (
                        ("复巡", "sweeps for people who came back"),
                        or_none(t["sweeps"], "{runs} 次，找到 {hits} 处", "{runs} run(s), {hits} found"),
                    ),
                    (
                        ("审计方密封的对照", "an auditor's sealed canaries"),
                        unless_none(
                            t["auditors_canaries"],
                            "密封 {sealed} 组，开封 {opened} 组；{placements} 处中：擦除 {erased}，"
                            "依法保留 {retained}，目录外发现 {reported}，遗漏 {missed}",
                            "{sealed} sealed, {opened} opened; of {placements} placements {erased} erased, "
                            "{retained} kept by law, {reported} found outside the catalog, {missed} missed",
                        ),
                    ),
                    (
                        ("破坏性自检", "sabotage of our own program"),
                        unless_none(
                            t["sabotage"],
                            "{runs} 次，{mutants} 处改动，发现 {caught} 处",
                            "{runs} run(s), {mutants} mutants, {caught} caught",
                        ),
                    ),
                    (
                        ("记录在案的安全事件", "incidents on record"),
                        _said(NOT_RECORDED) if t["incidents"] is None else _count(t["incidents"]),
                    ),
                    (("例外", "exceptions"), _same(exceptions)),
                    (
                        ("受托处理方", "processors"),
                        or_none(
                            t["processors"], "通知 {told} 次，确认 {confirmed} 次", "{told} told, {confirmed} confirmed"
                        ),
                    ),
                    (("合规负责人确认的证明", "certificates accepted by officers"), _count(t["accepted_by_officers"])),
                    (
                        ("见证方", "witnesses that cosigned"),
                        _same(", ".join(t["witnesses"])) if t["witnesses"] else _said(("无", "none")),
                    ),
                    (
                        ("第三方时间戳", "time stamp by a third party"),
                        _said(("有", "yes") if t["time_stamped"] else ("无", "no")),
                    ),
                    (("外部审计", "last outside audit"), _said(NOT_RECORDED)),
                    (("数据目录版本", "versions of the catalog"), _count(t["catalogs"])),
                    (("启用的程序版本", "versions of the program taken into use"), _same("\n".join(t["code"]) or "–")),
                ]
            ),
        ],
    )


def _chain(d: Mapping[str, Any]) -> Block:
    chain, span = d["chain"], d["ledger"]
    missing = chain["missing"]
    pairs = [
        (
            ("上一期报告", "the report before"),
            _said(("首期报告", "this is the first"))
            if chain["previous"] is None
            else _same(f"{chain['previous']['period']}\n{chain['previous']['json']}"),
        ),
        (
            ("未被任何报告覆盖的日子", "days that no report covers"),
            _said(("无", "none"))
            if missing is None
            else _said((f"{missing['from']} 至 {missing['to']}", f"{missing['from']} to {missing['to']}")),
        ),
        (("账本", "ledger"), _same(d["origin"])),
        (
            ("本期条目", "entries of this period"),
            _same(f"{span['entries']:,} ({span['first']}–{span['last']})" if span["entries"] else "0"),
        ),
    ]
    return _section(("前后相接", "The chain of reports"), [_facts(pairs)])


def _check(d: Mapping[str, Any]) -> Block:
    return _section(
        ("如何核验", "How to check this"),
        [
            _text(
                (
                    "本页由 report.json 生成，以该文件为准（已附于 PDF）；其摘要记载于账本的 report.published 条目。"
                    "向运营方索取审计包，在不联网的电脑上运行其中的 verify.py。各项数字可由账本条目与证明重新算出。",
                    "These pages are drawn from report.json, which is what counts and is attached to "
                    "the PDF; the ledger's entry "
                    "report.published holds its digest. Ask for the auditor's package and run its "
                    "verify.py on a computer "
                    "without network. Every figure can be computed again from the entries of the "
                    "ledger and the certificates.",
                )
            ),
            _limits(),
        ],
    )


def _limits() -> Block:
    said = [
        (
            "本报告统计账本所记录之事；账本证明何时记录了什么，并不证明扫描程序本身诚实。",
            "The report counts what the ledger records; the ledger proves what was recorded when, "
            "not that the scanner told the truth.",
        ),
        (
            "用时由证明中的时间计算；收到与完成之间的条目在账本中无法按人关联，这是有意为之。",
            "Durations come from certificates: entries of one person cannot be tied together in the "
            "ledger, on purpose.",
        ),
        (
            "「无记录」表示账本中从未有过此类条目，不等于零。",
            '"Not recorded" means that no entry of that kind was ever written; it does not mean none.',
        ),
        (
            "文件中同时存有多人的记录，字节按批次合计。",
            "A file holds many people; bytes are counted for everybody erased together.",
        ),
    ]
    return {"kind": "notes", "notes": [_said(one) for one in said]}


# ---------------------------------------------------------------- blocks and words


def _section(title: tuple[str, str], blocks: Sequence[Block]) -> Block:
    return {"title": _said(title), "blocks": list(blocks)}


def _cards(*cards: tuple[tuple[str, str], Said]) -> Block:
    return {"kind": "cards", "cards": [{"label": _said(label), "figure": figure} for label, figure in cards]}


def _text(text: tuple[str, str]) -> Block:
    return {"kind": "text", "text": _said(text)}


def _facts(pairs: Sequence[tuple[tuple[str, str], Said]]) -> Block:
    return {"kind": "facts", "pairs": [[_said(label), value] for label, value in pairs]}


def _table(head: Sequence[tuple[str, str]], align: str, rows: Sequence[Sequence[Said]]) -> Block:
    return {
        "kind": "table",
        "head": [_said(one) for one in head],
        "align": list(align),
        "rows": [list(r) for r in rows],
    }


def _chart(title: tuple[str, str], draw: Any) -> Block:  # Any: a function of the language's number, giving SVG
    drawn = {}
    for n, language in enumerate(LANGUAGES):
        drawn[language] = draw(n).replace('aria-label=""', f'aria-label="{title[n]}"', 1)
    return {"kind": "chart", "title": _said(title), "svg": drawn}


def _said(text: tuple[str, str]) -> Said:
    return {"zh": text[0], "en": text[1]}


def _same(text: str) -> Said:
    return {"zh": text, "en": text}


def _count(shown: Shown | None) -> Said:
    return _said(NOT_RECORDED) if shown is None else _same(charts.said(shown))


def _of(part: int, whole: int) -> Said:
    return _same(f"{part:,} / {whole:,}")


def _too_few() -> Said:
    return _said(("不足五件", "under five"))


def _span(minutes: int) -> Said:
    """A duration in the unit that suits it: minutes, hours or days, cut to one decimal."""
    for unit, names in ((1440, ("日", "d")), (60, ("小时", "h"))):
        if minutes >= 2 * unit:
            tenths = minutes * 10 // unit
            return _said(tuple(f"{tenths // 10}.{tenths % 10} {name}" for name in names))  # type: ignore[arg-type]  # two
    return _said((f"{minutes} 分钟", f"{minutes} min"))


def _figure(label: str, value: Any) -> Said:  # Any: JSON
    if re.search("minutes", label):
        return _too_few() if value is None else _span(value)
    return _count(value)

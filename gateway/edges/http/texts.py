"""What the pages say, in Chinese and English."""

from __future__ import annotations

LANGUAGES = ("zh", "en")

TEXTS: dict[str, tuple[str, str]] = {
    # key: (Chinese, English)
    "title": ("互认 Huren · 检查检验互认网关", "Huren · gateway for mutual recognition"),
    "tagline": ("一次查询，看到患者在各家医院的检查检验结果", "One question, one person's results from every hospital"),
    "lead": ("医院照原来的方式发送：HL7 v2 走 MLLP，影像走 DICOM。网关把它们转换为带统一编码的 FHIR R4。",
             "Hospitals keep sending as they do: HL7 v2 over MLLP, images over DICOM. "
             "The gateway makes FHIR R4 of it, with unified codes."),
    "demo": ("演示模式", "Demo"),
    "demo_note": ("演示数据，仅限本机，无需登录", "made-up data, this machine only, no login"),
    "persons": ("患者", "Persons"), "reports": ("报告", "Reports"), "studies": ("影像检查", "Imaging studies"),
    "observations": ("检验结果", "Observations"), "hospitals": ("医院", "Hospitals"),
    "quarantined": ("隔离消息", "Quarantined"), "unmapped": ("未映射编码", "Unmapped codes"),
    "flow_in": ("医院发来", "Hospitals send"), "flow_out": ("医生查询", "Doctors ask"),
    "people_title": ("同一个人，多家医院", "One person, several hospitals"),
    "people_lead": ("身份证号一致的患者合为一人，姓名和生日相同不算。",
                    "Patients with the same valid national identifier are one person; the same name and birth date "
                    "are not enough."),
    "name": ("姓名", "Name"), "where": ("结果来自", "Results from"),
    "newest": ("最近", "Newest"), "male": ("男", "male"), "female": ("女", "female"), "other": ("其他", "other"),
    "unknown": ("未知", "unknown"),
    "waiting": ("正在等待医院的第一批消息……页面会自动刷新。",
                "Waiting for the hospitals' first messages… this page reloads itself."),
    "try_title": ("试一试", "Try it"),
    "try_lead": ("这些查询直接在本网关上运行。", "These queries run against this gateway."),
    "try_login": ("将 $TOKEN 换成 huren client add 给出的令牌。",
                  "Replace $TOKEN by the token that huren client add prints."),
    "q_person": ("一个人在所有医院的报告，连同每项结果", "One person's reports from all hospitals, with every result"),
    "q_item": ("一个统一项目，各家医院，从新到旧", "One unified item from all hospitals, newest first"),
    "q_images": ("这个人的影像检查", "The person's imaging studies"),
    "q_above": ("高于某个值的结果", "Results above a value"),
    "q_metadata": ("网关会什么：能力声明", "What this gateway can do: its CapabilityStatement"),
    "copy_it": ("复制", "Copy"), "copied": ("已复制", "Copied"), "see": ("打开", "Open"),
    "login_title": ("需要登录", "Login needed"),
    "login_lead": ("患者数据只对持有令牌的客户端开放。", "Patients' data are open only to clients with a token."),
    "health": ("运行状况", "Health"), "figures": ("运行指标", "Figures"), "capability": ("能力声明", "Capabilities"),
    "back": ("首页", "Start page"), "timeline": ("时间线", "Time line"), "courses": ("跨院趋势", "Across hospitals"),
    "courses_lead": ("同一统一项目、同一单位的数值；底色为最近一次的参考范围。",
                     "Numbers of one unified item in one unit; the band is the newest reference range."),
    "identifiers": ("各院患者号", "Numbers at the hospitals"),
    "item": ("项目", "Item"), "value": ("结果", "Value"), "range": ("参考范围", "Reference"),
    "all_results": ("全部 {} 项结果", "All {} results"), "conclusion": ("诊断意见", "Conclusion"),
    "series": ("序列", "series"), "images": ("图像", "images"),
    "no_results": ("还没有结果。", "There are no results yet."), "as_fhir": ("FHIR 资源", "FHIR resource"),
    "more": ("只显示最近的结果；全部结果请用 FHIR 查询。",
             "Only the newest results are shown; the FHIR queries have all."),
    "final": ("终审", "final"), "preliminary": ("初步", "preliminary"), "corrected": ("已更正", "corrected"),
    "amended": ("已修订", "amended"), "cancelled": ("已取消", "cancelled"), "registered": ("已登记", "registered"),
    "partial": ("部分", "partial"), "appended": ("已补充", "appended"), "available": ("可用", "available"),
    "entered-in-error": ("录入错误", "entered in error"),
    "high": ("偏高", "high"), "low": ("偏低", "low"), "abnormal": ("异常", "abnormal"),
    "critical-high": ("危急高", "critically high"), "critical-low": ("危急低", "critically low"),
    "critical": ("危急", "critical"),
    "view_title": ("外院报告与影像", "Report and images"), "view_loading": ("正在打开报告……", "Opening the report…"),
    "view_script": ("本页需要脚本。", "This page needs scripts."),
    "ws_title": ("一分钟体验互认", "Mutual recognition in a minute"),
    "ws_lead": ("您扮演演示医院的医生：开单、收到提醒、看外院报告、作出决定，再看收费和数字怎样变化。",
                "Play a doctor of a demo hospital: order, be reminded, see another hospital's report, decide, and "
                "watch what becomes of the bill and the figures."),
    "ws_hint": ("下一步", "Next step"), "ws_patients": ("患者", "Patients"),
    "ws_hospital": ("您所在的医院", "Your hospital"), "ws_orders": ("检查检验医嘱", "Orders"),
    "ws_menu": ("本院项目", "This hospital's menu"), "ws_sign": ("签署医嘱", "Sign the orders"),
    "ws_signed": ("已签署", "Signed"), "ws_figures": ("本院本月", "This hospital, this month"),
    "ws_log": ("经过网关的往来", "What went through the gateway"),
    "ws_try": ("扮演医生，一分钟体验互认", "Play the doctor: recognition in a minute"),
}


def texts(language: str) -> dict[str, str]:
    """Every text in one language."""
    place = LANGUAGES.index(language)
    return {key: pair[place] for key, pair in TEXTS.items()}


def language_of(parameter: str, accept_language: str) -> str:
    """``?lang=`` wins; else what the browser prefers; Chinese where it says nothing that we have."""
    if parameter in LANGUAGES:
        return parameter
    best, weight = "zh", 0.0
    for part in accept_language.split(","):
        tag, _, parameters = part.strip().partition(";")
        name = tag.strip().lower().partition("-")[0]
        try:
            given = float(parameters.partition("q=")[2] or 1)
        except ValueError:
            given = 0.0
        if name in LANGUAGES and given > weight:
            best, weight = name, given
    return best


def in_language(text: str, language: str) -> str:
    """A name that is written ``中文 · English``: the half of the language."""
    chinese, dot, english = text.partition(" · ")
    return (chinese if language == "zh" else english) if dot else text

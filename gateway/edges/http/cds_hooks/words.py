"""What cards say, in Chinese and English. Pure."""

from __future__ import annotations

from collections.abc import Iterable

#: key → (Chinese, English)
_WORDS: dict[str, tuple[str, str]] = {
    "source": ("检查检验结果互认（Huren 互认）", "Mutual recognition of exams and tests (Huren)"),
    "topic": ("检查检验结果互认", "Mutual recognition"),
    "covered_one": ("外院已有可互认的结果：{item}{where}", "An earlier result covers this order: {item}{where}"),
    "covered_many": ("{count} 项医嘱已有外院可互认的结果：{items}",
                     "Earlier results cover {count} of these orders: {items}"),
    "related_one": ("外院有相关结果供参考：{item}{where}", "An earlier result may help with this order: {item}{where}"),
    "related_many": ("{count} 项医嘱有外院相关结果供参考：{items}",
                     "Earlier results may help with {count} of these orders: {items}"),
    "patient": ("外院有 {count} 项结果可互认（{hospitals}）",
                "{count} results of other hospitals can be recognised ({hospitals})"),
    "pending": ("{count} 条互认提醒待处理", "{count} reminders wait for a decision"),
    "waiting": ("待处理的医嘱", "Orders that wait for a decision"),
    "RECOGNISABLE": ("可互认", "can be recognised"),
    "PARTIAL": ("部分可互认", "can be recognised in part"),
    "ADVISORY": ("仅供参考", "for information"),
    "missing": ("尚缺项目：{items}", "Still to do: {items}"),
    "state": ("患者当前状态对应的不互认理由：{reason}", "Reason that fits the patient's present state: {reason}"),
    "must_view": ("互认前请先打开外院报告。", "Open the earlier report before you recognise it."),
    "more": ("另有 {count} 项", "and {count} more"), "and_more": ("等，另有 {count} 项", " and {count} more"),
    "FLAG_CRITICAL": ("含危急值", "critical value"), "FLAG_HAEMOLYSIS": ("标本溶血", "haemolysed specimen"),
    "FLAG_REPEAT": ("建议复查", "repeat advised"), "FLAG_IMAGES": ("影像暂不可调阅", "images not available"),
    "recognise": ("互认外院结果，取消医嘱：{item}", "Recognise and drop the order: {item}"),
    "recognise_part": ("互认已有结果，仅开缺项：{item}", "Recognise what there is, order the rest: {item}"),
    "delete": ("取消已有外院结果的医嘱：{item}", "Remove the order that an earlier result covers: {item}"),
    "create": ("改开缺项：{item}", "Order the missing test: {item}"),
    "needs_text": ("（请在备注中说明）", " (say why in the comment)"),
    "report": ("查看外院报告：{item}", "Open the earlier report: {item}"),
    "images": ("查看外院影像：{item}", "Open the earlier images: {item}"),
}


class Words:
    """The words of one language: ``zh`` or ``en``."""

    def __init__(self, language: str) -> None:
        self._place = 1 if language == "en" else 0

    @property
    def comma(self) -> str:
        """Between parts of a sentence."""
        return ", " if self._place else "，"

    def say(self, key: str, **values: object) -> str:
        """A text with its values; the key itself where there is none."""
        pair = _WORDS.get(key)
        return pair[self._place].format(**values) if pair else key

    def join(self, parts: Iterable[str], comma: str = "") -> str:
        """A list of names: ``、`` in Chinese."""
        return (comma or (", " if self._place else "、")).join(part for part in parts if part)

    def sentence(self, parts: Iterable[str]) -> str:
        return ("; " if self._place else "；").join(parts)

    def brackets(self, text: str) -> str:
        """In brackets of the language; nothing where there is nothing."""
        return (f" ({text})" if self._place else f"（{text}）") if text else ""

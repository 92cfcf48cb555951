"""How much effort a question deserves, by rules: `fast`, `balanced`, `strong` (one model of that tier), or `fuse`.

Only the last user turn is read, never the history: a short follow-up to a long talk is a short question. The rules
stand in a table and are tried from top to bottom; the first that holds decides and gives its reason in words. What can
be seen without knowing the language comes from the text's shape (length, lists, question marks, code, formulas); the
rest are short lists of words (`routing_words.py`).

Two things raise what the rules say, though never to a panel: tools and attachments get at least the balanced tier, for
a tool called wrongly or a picture not seen costs more than is saved. A wanted form (`response_format`) counts for
nothing: it says how the answer is written, not how hard it is. A conversation that ends with a tool's result stays with
one strong model: an agent comes back so dozens of times in one task, and would pay for a panel at every step.

Measured on tests/routes.jsonl, half of it held out while the rules were tuned. Plain questions, which say what they
want: `fuse` or not is right for 108 of 108 (tuning) and 108 of 108 (held out), the one of the four words for 108 and
107. Questions as people type them: 57 of 61 and 48 of 56, the word for 54 and 45. One hand wrote the rules and the
questions of both halves, and saw once which three of the plain ones held out were missed; so the last two numbers are
the honest ones, and still expect less of yours. What is missed is mostly a matter of opinion that is asked without a
word of weighing ("Was the euro good for Italy?"), which one model then answers.

Source  Ong et al. 2024, RouteLLM, arXiv:2406.18665, and Chen et al. 2023, FrugalGPT, arXiv:2305.05176 (spend where it
        helps); the rules are our own

By which words a question says what it wants, in twelve languages: en de fr es it pt nl pl ru zh ja ko.

One line for each language. `*` stands for the rest of a word and `..` for up to forty characters; words of scripts
without spaces are found anywhere. Only words that are sure and short: what is missing here is judged by its shape.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fusiontools.answers.normalize import fold
from fusiontools.record.sections import text_of
from fusiontools.record.types import Message, Record

_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")

WORDS: dict[str, tuple[str, ...]] = {
    "small talk": (
        "hi|hello|hey|there|good|morning|evening|night|thank*|you|very|much|so|bye|goodbye|ok|okay|yes|no|great|nice"
        "|that works|that worked|perfect*|please|continue|go on|got it|how are you",
        "hallo|guten|gute|morgen|tag|abend|nacht|danke|vielen|dank|schön|sehr|tschüss|bitte|weiter|servus|moin|nein|ja",
        "bonjour|bonsoir|salut|merci|beaucoup|bien|au revoir|oui|non|d'accord|parfait|pour votre aide|pour ton aide",
        "hola|qué tal|buenos|días|buenas|tardes|noches|gracias|muchas|adiós|vale|perfecto|sí|por favor|continúa",
        "ciao|buongiorno|buonasera|grazie|mille|tante|molte|arrivederci|va bene|perfetto|prego|continua",
        "olá|oi|bom|dia|boa|tarde|noite|obrigad*|muito|tchau|sim|não|tudo bem|valeu",
        "hoi|goedemorgen|goedemiddag|goedenavond|bedankt|dank je|dank u|wel|tot ziens|prima|nee|ga client",
        "cześć|dzień|dobry|wieczór|dziękuj*|bardzo|dzięki|do widzenia|tak|nie|dalej",
        "привет|здравствуй*|добрый|день|доброе|утро|вечер|спасибо|большое|пока|да|нет|хорошо|ок|дальше",
        "你好|您好|谢谢|謝謝|你|您|吗|早上好|晚上好|晚安|再见|再見|好的|嗨|多谢|继续",
        "こんにちは|こんばんは|おはよう|ございます|ありがとう|どうも|さようなら|はい|いいえ|了解です|続けて",
        "안녕|하세요|감사합니다|고마워|고맙습니다|요|네|아니요|알겠습니다|계속",
    ),
    "reword": (
        "translat*|summari*|a summary|tl;dr|rephras*|reword*|rewrit*|paraphras*|proofread*|spelling|grammar|typos"
        "|shorter",
        "übersetz*|fasse|fass .. zusammen|zusammenfass*|umformulier*|formuliere .. um|korrigier*|rechtschreib*|kürzer",
        "tradui*|résum*|reformul*|corrig*|orthographe|plus court",
        "traduc*|traduz*|resum*|reformul*|corrig*|ortografía|más corto",
        "tradu*|riassum*|riformul*|corregg*|più breve",
        "traduz*|resum*|reescrev*|corrij*|mais curto",
        "vertaal|vertalen|vat .. samen|samenvat*|herschrijf|korter",
        "przetłumacz*|stre[sś]*|podsumuj*|popraw*|krócej",
        "перевед*|перевести|перескажи*|перефразир*|исправь*|резюмир*|короче",
        "翻译|翻譯|译成|总结|總結|概括|改写|改寫|润色",
        "翻訳|訳して|要約|言い換え|校正|添削",
        "번역|요약|고쳐|바꿔 써|교정",
    ),
    "weigh": (
        "compar*|versus|vs|trade off*|trade-off*|tradeoff*|pros and cons|advantages and|benefits and"
        "|for and against|should i|should we|should one|is it .. better|which .. better|wiser to|is it wise"
        "|or rather|worth it|is it worth|recommend*|your advice|would you advise|your opinion|what do you think"
        "|best way|best approach|best strateg*|evaluat*|assess*|critiqu*|how likely|choose|pick .. or|strateg*"
        "|to blame|justified|what would you do|what matters|hype|review this|review my|go to market|will .. replace"
        "|replace .. jobs|future of|impact of",
        "vergleich*|vor- und nachteil*|für und wider|soll ich|sollte ich|sollen wir|sollten wir|lieber .. oder"
        "|besser .. oder|ist es besser|was ist besser|empfiehl*|empfehl*|lohnt|lohnen|sinnvoll*|ratsam|bewerte*"
        "|abwäg*|wählen|strategie*|sollte .. angehen|wie stehen|sollte man|ersetzen|zukunft|auswirkung*",
        "compar*|avantages et|dois-je|devrais-je|devons-nous|devrait-on|faut-il|vaut-il mieux|vaut mieux|recommand*"
        "|conseill*|que pens*|pour et le contre|évalue*|choisir|stratégi*|que feri*|faut-on|remplac*|avenir de"
        "|impact de",
        "compar*|ventajas y|pros y contras|debo|debería*|debemos|recomiend*|recomend*|qué opinas|conviene|es mejor"
        "|merece la pena|vale la pena|evalúa*|elegir|estrategia*|qué hago|qué harías|reemplaz*|el futuro de"
        "|impacto de",
        "confront*|paragon*|vantaggi e|i pro e|pro e contro|dovrei|dovremmo|consiglia*|consigli|conviene|è meglio"
        "|cosa ne pensi|vale la pena|valuta|scegliere|strategi*|meglio .. o|cosa faresti|sostituir*|il futuro"
        "|impatto",
        "compar*|vantagens e|prós e contras|devo|deveria*|devemos|recomend*|vale a pena|é melhor|avali*|escolher"
        "|estratégi*|o que faria|mais importante|substituir*|o futuro|impacto",
        "vergelijk*|voor- en nadelen|moet ik|moeten we|zou ik .. moeten|aanbevel*|aanraden|is het beter|verstandig"
        "|loont|kiezen|strategi*|wijsheid|wat zou je|beter .. of|vervangen|toekomst",
        "porówn*|zalety i|wady i|czy powin*|czy .. warto|czy lepiej|polec*|co jest lepsze|doradź|oceń*|wybrać"
        "|strategi*|co byś|lepsz* .. czy|zastąpi*|przyszłość",
        "сравни*|плюсы и|преимущества и|стоит ли|следует ли|посоветуй*|порекоменд*|или лучше|что лучше|выгоднее"
        "|оцени*|выбрать|стратеги*|что бы ты|нужна ли|нужно ли|заменит|будущее|ли .. ради",
        "比较|比較|对比|對比|优缺点|優缺點|利弊|应该|應該|推荐|推薦|哪个更|哪個更|值得|权衡|评估|选择|選擇|选哪|策略|该不该|要不要|好不好|取代|未来|晚不晚",
        "比較|メリット|長所|利点|賛否|すべき|るべき|おすすめ|お勧め|どちらが|どっちが|評価して|選ぶ|選べ|戦略|悩んで|迷って|奪い|将来|がいい",
        "비교|장단점|추천|할까|해야 하나|어느 쪽|나을까|좋을까|더 나은|평가해|선택|고를|전략|고민|유리|대체|미래",
    ),
    "prove": (
        "prove|proof|show that|derive",
        "beweis*|zeige, dass",
        "démontr*|prouve*",
        "demuestr*|demostr*",
        "dimostr*",
        "prove|demonstre*",
        "bewijs*",
        "udowodni*|wykaż",
        "докаж*|доказать|доказательство",
        "证明|證明|推导",
        "証明|導出",
        "증명",
    ),
    "write": (
        "write|draft|compose|implement|refactor|debug|make a|make me|create|build|program that",
        "schreib*|verfass*|programmier*|implementier*|dichte|erstell*|entwirf|baue|mach mir|entwickle",
        "écri*|rédig*|implément*|crée*|créer|fais-moi|programme un|conçois",
        "escrib*|redact*|implement*|crea|haz|hazme|diseña|programa un",
        "scriv*|redig*|implement*|crea|fammi|progetta|prepara",
        "escrev*|redij*|implement*|crie|faça|desenvolva|prepare",
        "schrijf|programmeer|implementeer|maak een|maak .. voor|bouw|ontwerp",
        "napisz*|zaimplementuj*|stwórz|przygotuj|zrób|zaprojektuj",
        "напиши*|сочини*|реализуй*|составь*|создай*|сделай*|разработай*|придумай*",
        "写一|写个|写篇|写首|写出|寫一|撰写|编写|实现一|做一个|做个|帮我做|设计一|生成一|帮我写",
        "書いて|書け|実装して|作成して|作って|作成|設計して",
        "써 줘|써줘|작성해|구현해|지어 줘|만들어|설계해|짜 줘",
    ),
    "explain": (
        "why|how|explain*|describe|differen*|what happens|what does|what is a|what is an|meaning of",
        "warum|wieso|weshalb|wie|erklär*|beschreib*|unterschied*|erläuter*|was ist ein*|was bedeutet",
        "pourquoi|comment|expli*|décri*|différen*|c'est quoi|qu'est-ce que",
        "por qué|cómo|expli*|describ*|diferenci*|qué es|qué significa",
        "perché|come|spieg*|descriv*|differen*|che cos'è|cosa significa",
        "por que|como|expli*|descrev*|diferenç*|o que é|o que significa",
        "waarom|hoe|leg .. uit|uitleg*|beschrijf|verschil*|wat is een|wat betekent",
        "dlaczego|jak|wyjaśni*|opisz|różni*|co to jest|co oznacza",
        "почему|зачем|как|объясни*|опиши*|отлича*|разниц*|что такое|что значит",
        "为什么|為什麼|为何|怎么|怎麼|怎样|如何|解释|解釋|区别|區別|什么是|是什么意思|介绍",
        "なぜ|どうして|どうやって|説明|違い|仕組み|方法|とは|どういう意味",
        "왜|어떻게|설명|차이|방법|이유|이 뭐|무슨 뜻|이란",
    ),
    "look up": (
        "who is|who was|who won|who wrote|who invented|when is|when was|when did|where is|what year|which year"
        "|what time|how old|how many|how much|how far|how tall|how high|how deep|capital of|currency|synonym*|plural"
        "|spell|list the|how do you say",
        "wer ist|wer war|wer hat|wann|wo ist|wo liegt|wie viel*|wie heißt|wie alt|wie hoch|wie groß|wie spät|wie weit"
        "|hauptstadt|plural von|welches jahr|welchem jahr",
        "qui a|qui est|qui était|quand|où est|combien|quelle heure|capitale|pluriel|féminin|quelle année",
        "quién|cuándo|dónde está|cuánt*|qué hora|la capital|capital de|qué año|cuál es .. más",
        "chi ha|chi è|chi era|quando|dov'è|quant*|che ora|capitale|che anno|plurale",
        "quem|quando|onde fica|quant*|que horas|capital|que ano|qual é a moeda|plural",
        "wanneer|waar ligt|hoeveel|hoe laat|hoe oud|hoe hoog|hoofdstad|meervoud|welk jaar",
        "kto|kiedy|gdzie jest|ile|stolic*|którym roku|która godzina",
        "кто|когда|где находится|сколько|столиц*|каком году|который час",
        "谁|哪里|哪儿|哪年|哪一年|哪个朝代|多少|首都|几",
        "誰|いつ|どこ|何年|何人|何キロ|首都|高さは|一番",
        "누구|누가|언제|어디|몇|수도",
    ),
    "or": (
        "or",
        "oder",
        "ou",
        "o me|o es|o la|o el",
        "oppure|o la|o lo|o una|o un",
        "ou",
        "of blijf|of toch",
        "czy",
        "или",
        "还是|還是",
        "それとも",
        "아니면",
    ),
}


@functools.cache
def pattern(kind: str) -> re.Pattern[str]:
    """Return what finds the words of a kind in a folded text."""
    spaced: list[str] = []
    unspaced: list[str] = []
    for phrase in (phrase for line in WORDS[kind] for phrase in line.split("|")):
        written = re.escape(fold(phrase)).replace(r"\*", r"\w*").replace(r"\ \.\.\ ", r"\b[^.!?\n]{1,40}?\b")
        (unspaced if _UNSPACED.search(phrase) else spaced).append(written)
    return re.compile(rf"(?<!\w)(?:{'|'.join(spaced)})(?!\w)|{'|'.join(unspaced)}")


FUSE = "fuse"
#: The tiers of one model alone, cheapest first.
TIERS = ("fast", "balanced", "strong")
#: One model, of the tier that the rules say.
SOLO = "solo"

_SHORT_CHARS, _VERY_SHORT_CHARS, _SMALL_TALK_CHARS = 70, 24, 60
#: Words are looked for where a request stands, at the beginning and at the end, and not inside what was pasted.
_HEAD_CHARS, _TAIL_CHARS = 400, 200
_REWORD_HEAD_CHARS, _REWORD_TAIL_CHARS, _DEMAND_CHARS = 80, 60, 60
#: So much is read of the beginning and the end; a longer text is long whatever stands between.
_READ_HEAD_CHARS, _READ_TAIL_CHARS = 15_000, 5_000
_MANY_QUESTIONS, _MANY_ITEMS, _MANY_NUMBERS, _CODE_LINES = 3, 3, 3, 2
_CODE_SHARE = 0.06
_SAID_CHARS, _QUOTED_CHARS, _REASON_CHARS = 40, 20, 300

_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
_SYLLABLE = re.compile("[\u3040-\u30ff\uac00-\ud7a3]")
_FENCE = re.compile(r"\s*(?:```|~~~)")
_CODE_SIGN = re.compile(r"[{}\[\]();=<>_|&#$\\]")
_TRACE = re.compile(r"Traceback \(most recent|\s+at [\w.$<>]+\(|\s*File \"[^\"]{1,200}\", line \d")
_FORMULA = re.compile(
    r"\\(?:int|sum|frac|sqrt|lim|prod)\b|[a-z\d)] ?\^ ?[\d({]|[∫∑√∂∈∀∃]|\d ?[a-z] ?[-+*/=] ?\d|\b[a-z] ?= ?-?\d"
)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_ITEM = re.compile(r"^[ \t]*(?:[-*•]|\(?\d{1,2}[.)、]|\(?[a-z]\))[ \t]*\S", re.MULTILINE)
_QUESTION = re.compile("[?？؟\u037e]+")
_URL = re.compile(r"https?://\S+")
_QUOTED = re.compile(rf"[\"“„«「][^\"“”„«»「」\n]{{{_QUOTED_CHARS},2000}}[\"“”»」]")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a question deserves, and why."""

    effort: str
    reason: str


@dataclass(frozen=True, slots=True)
class Turn:
    """The last user turn, as the rules see it.

    Args:
        prose: the text without code and addresses.
        asked: its beginning and its end, folded, without longer quotations.
        chars: the length of the prose.
        weight: the same in Latin characters: an ideograph says as much as three of them, a syllable as two.
        code_lines: how many lines are code; all lines between fences are.
    """

    prose: str
    asked: str
    chars: int
    weight: int
    code_lines: int
    min_chars: int

    def says(self, kind: str, *, unless_first: str | None = None) -> str | None:
        """Return the words by which the turn says that it wants something of this kind.

        Args:
            unless_first: a kind whose words, standing earlier, say that something else is wanted.
        """
        found = pattern(kind).search(self.asked)
        earlier = pattern(unless_first).search(self.asked) if unless_first else None
        if found is None or (earlier and earlier.start() < found.start()):
            return None
        return " ".join(found[0].split())[:_SAID_CHARS]


def decide(record: Record, min_chars: int) -> Decision:
    """Return what the record's question deserves.

    Args:
        min_chars: a longer question is fused, unless a text is only to be reworded.
    """
    if record["messages"][-1].get("role") in ("tool", "function"):
        return Decision("strong", "the last turn is a tool's result: an agent at work stays with one model")
    message = _last_user_message(record)
    turn = _turn(text_of(message), min_chars)
    for effort, rule in RULES:
        reason = rule(turn)
        if reason is not None:
            return _raised(Decision(effort, reason), record, message)
    return _raised(Decision("balanced", "an ordinary question"), record, message)


def decision_in(data: Mapping[str, Any]) -> Decision | None:
    """Return the decision that an object states (`decision`, or `to` and `tier`); None where it states none."""
    to, tier = (str(data.get(key) or "").strip().casefold() for key in ("to", "tier"))
    said = str(data.get("decision") or "").strip().casefold() or to
    effort = tier if tier and said in ("", SOLO) else said
    return Decision(effort, one_line(str(data.get("reason") or ""))) if effort in (FUSE, SOLO, *TIERS) else None


def one_line(text: str) -> str:
    """Return what somebody gives as a reason, short enough to be one."""
    return " ".join(text.split())[:_REASON_CHARS]


def _small_talk(turn: Turn) -> str | None:
    if turn.chars > _SMALL_TALK_CHARS or turn.code_lines:
        return None
    if not turn.prose.strip():
        return "nothing is asked in words"
    left = pattern("small talk").sub("", turn.asked)
    return None if re.search(r"\w", left) else "it is a greeting, thanks or a nod"


def _reword(turn: Turn) -> str | None:
    edges = replace(turn, asked=f"{turn.asked[:_REWORD_HEAD_CHARS]}\n{turn.asked[-_REWORD_TAIL_CHARS:]}")
    words = edges.says("reword", unless_first="weigh")
    return f"it asks to reword a text: {words!r}" if words and not turn.code_lines else None


def _reword_shortly(turn: Turn) -> str | None:
    return _reword(turn) if turn.weight <= turn.min_chars else None


def _weigh(turn: Turn) -> str | None:
    words = turn.says("weigh")
    return f"it asks for a comparison or for advice: {words!r}" if words else None


def _several(turn: Turn) -> str | None:
    items, questions = len(_ITEM.findall(turn.prose)), len(_QUESTION.findall(turn.prose))
    if items >= _MANY_ITEMS:
        return f"it has {items} items"
    return f"it asks {questions} questions" if questions >= _MANY_QUESTIONS else None


def _long(turn: Turn) -> str | None:
    if turn.weight <= turn.min_chars:
        return None
    as_latin = f", as much as {turn.weight} Latin ones" if turn.weight != turn.chars else ""
    return f"the question is {turn.chars} characters long{as_latin}"


def _code(turn: Turn) -> str | None:
    return "it contains code" if turn.code_lines >= _CODE_LINES else None


def _formula(turn: Turn) -> str | None:
    return "it contains a formula" if _FORMULA.search(turn.prose) else None


def _numbers(turn: Turn) -> str | None:
    numbers = len(_NUMBER.findall(turn.prose))
    if numbers < _MANY_NUMBERS or not _QUESTION.search(turn.prose):
        return None
    return f"it reckons with {numbers} numbers"


def _demand(kind: str, what: str) -> Callable[[Turn], str | None]:
    """Return the rule for a demand that opens the turn; `how do I write` demands an explanation and no text."""

    def rule(turn: Turn) -> str | None:
        opening = replace(turn, asked=turn.asked[:_DEMAND_CHARS])
        words = opening.says(kind, unless_first="explain")
        return f"it asks for {what}: {words!r}" if words else None

    return rule


def _two_questions(turn: Turn) -> str | None:
    return "it asks two questions" if len(_QUESTION.findall(turn.prose)) == _MANY_QUESTIONS - 1 else None


def _explain(turn: Turn) -> str | None:
    words = turn.says("explain")
    return f"it asks for an explanation: {words!r}" if words else None


def _look_up(turn: Turn) -> str | None:
    words = turn.says("look up") if turn.weight <= _SHORT_CHARS else None
    return f"it is a question to be looked up: {words!r}" if words else None


def _alternatives(turn: Turn) -> str | None:
    found = pattern("or").search(turn.asked)
    if found is None or not _QUESTION.search(turn.prose) or not re.search(r"\w", turn.asked[: found.start()]):
        return None
    return f"it names alternatives: {found[0]!r}"


def _very_short(turn: Turn) -> str | None:
    return "it is very short" if turn.weight <= _VERY_SHORT_CHARS else None


#: What a question deserves for which reason; the first rule that holds decides.
RULES: tuple[tuple[str, Callable[[Turn], str | None]], ...] = (
    ("fast", _small_talk),
    ("fast", _reword_shortly),
    ("balanced", _reword),
    (FUSE, _weigh),
    (FUSE, _several),
    (FUSE, _long),
    ("strong", _code),
    ("strong", _formula),
    ("strong", _demand("prove", "a proof")),
    ("strong", _numbers),
    ("strong", _demand("write", "a text or a program")),
    ("balanced", _two_questions),
    ("fast", _look_up),
    (FUSE, _alternatives),
    ("balanced", _explain),
    ("fast", _very_short),
)


def _last_user_message(record: Record) -> Message:
    messages: list[Message] = record["messages"]
    return next((message for message in reversed(messages) if message.get("role") == "user"), messages[-1])


def _turn(text: str, min_chars: int) -> Turn:
    # What was not read is prose as far as anybody knows.
    unread = max(0, len(text) - _READ_HEAD_CHARS - _READ_TAIL_CHARS)
    if unread:
        text = f"{text[:_READ_HEAD_CHARS]}\n{text[-_READ_TAIL_CHARS:]}"
    prose, code_lines = _apart(text)
    prose = _URL.sub(" ", prose).strip()
    weight = len(prose) + 2 * len(_IDEOGRAPH.findall(prose)) + len(_SYLLABLE.findall(prose))
    asked = _QUOTED.sub(" ", prose)
    if len(asked) > _HEAD_CHARS + _TAIL_CHARS:
        asked = f"{asked[:_HEAD_CHARS]}\n{asked[-_TAIL_CHARS:]}"
    return Turn(prose, fold(asked), len(prose) + unread, weight + unread, code_lines, min_chars)


def _apart(text: str) -> tuple[str, int]:
    """Return the prose of a text, and how many lines are code."""
    prose: list[str] = []
    lines = text.split("\n")
    fenced = False
    for line in lines:
        if _FENCE.match(line):
            fenced = not fenced
        elif not (fenced or _is_code(line)):
            prose.append(line)
    return "\n".join(prose), len(lines) - len(prose)


def _is_code(line: str) -> bool:
    return bool(_TRACE.match(line)) or len(_CODE_SIGN.findall(line)) > max(2, _CODE_SHARE * len(line))


def _raised(decision: Decision, record: Record, message: Message) -> Decision:
    """Return the decision, or the balanced tier where the fast one is too little for what comes along."""
    along = _along(record, message)
    if decision.effort != "fast" or along is None:
        return decision
    return Decision("balanced", f"{along}; otherwise {decision.reason}")


def _along(record: Record, message: Message) -> str | None:
    content: Any = message.get("content")
    if isinstance(content, list) and any(part.get("type") != "text" for part in content):
        return "something is attached"
    return "tools are offered" if record.get("params", {}).get("tools") else None

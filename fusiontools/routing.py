"""How much effort a question deserves, by rules: `fast`, `balanced`, `strong` (one model of that tier), or `fuse`.

Only the last user turn is read, never the history: a short follow-up to a long talk is a short question. The rules
stand in a table and are tried from top to bottom; the first that holds decides and gives its reason in words. What can
be seen without knowing the language comes from the text's shape (length, lists, question marks, code, formulas); the
rest are short lists of words of twelve languages, and a question in any other language is judged by its shape alone.

Two things raise what the rules say, but never to a panel: tools and attachments need at least the balanced tier, for a
tool called wrongly or a picture not seen costs more than is saved. A wanted form (`response_format`) counts for
nothing: it says how the answer is written, not how hard it is.

A conversation that ends with a tool's result stays with one strong model: an agent asks so dozens of times for one
task, and a panel that starts anew at every step would cost most where it helps least.

The lists were written by hand, and so were the questions in tests/routes.jsonl on which they were measured: 108 for
tuning and 108 held out, in twelve languages, clear cases of each kind more often than not. `fuse` or not was right for
TUNE_FUSE of the first and HELD_FUSE of the second half, the exact one of the four for TUNE_ALL and HELD_ALL.
tests/test_route.py counts again. Real questions are harder; a router that was trained on yours is a `--command`.

Source  Ong et al. 2024, RouteLLM, arXiv:2406.18665, and Chen et al. 2023, FrugalGPT, arXiv:2305.05176 (spend where it
        helps); the rules are our own
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fusiontools.normal import fold
from fusiontools.record import Message, Record, text_of

#: The tiers of one model alone, cheapest first.
TIERS = ("fast", "balanced", "strong")
FUSE = "fuse"

_SHORT_CHARS = 70
#: Words are looked for where a request stands: at the beginning and at the end, not inside what was pasted.
_HEAD_CHARS, _TAIL_CHARS, _SHAPE_CHARS = 400, 200, 20_000
_QUESTIONS, _ITEMS, _NUMBERS, _CODE_SIGNS = 3, 3, 3, 0.06

#: What is asked for, by its words, folded as `normal.fold` does; `*` stands for the rest of a word. Words of scripts
#: without spaces are found anywhere. One line for each language: en de fr es it pt nl pl ru zh ja ko.
_WORDS: dict[str, tuple[str, ...]] = {
    "small talk": (
        "hi|hello|hey|there|good|morning|evening|night|thanks|thank|you|very|much|so|bye|goodbye|ok|okay|yes|no|great"
        "|nice|cool|perfect|please|continue|go on|got it|how are you",
        "hallo|guten|gute|morgen|tag|abend|nacht|danke|vielen|dank|schon|sehr|tschuss|bitte|weiter|servus|moin|nein",
        "bonjour|bonsoir|salut|merci|beaucoup|bien|au revoir|oui|non|d'accord|parfait|pour votre aide|pour ton aide",
        "hola|que tal|buenos|dias|buenas|tardes|noches|gracias|muchas|mil|adios|vale|perfecto|si|por favor",
        "ciao|buongiorno|buonasera|grazie|mille|tante|molte|arrivederci|va bene|perfetto|prego",
        "ola|bom|dia|boa|tarde|noite|obrigad*|muito|tchau|sim|nao|tudo bem|valeu",
        "hoi|goedemorgen|goedendag|goedenavond|dag|bedankt|dank je|dank u|wel|tot ziens|prima|nee",
        "czesc|dzien|dobry|dobry wieczor|dziekuj*|bardzo|dzieki|do widzenia|tak|nie",
        "привет|здравствуй*|добрыи|добрыи день|день|доброе|утро|вечер|спасибо|большое|пока|да|нет|хорошо|ок",
        "你好|您好|谢谢|謝謝|你|您|早上好|晚上好|晚安|再见|再見|好的|嗨|多谢",
        "こんにちは|こんばんは|おはよう|ございます|ありがとう|どうも|さようなら|はい|いいえ|了解です",
        "안녕|하세요|안녕하세요|감사합니다|고마워|고맙습니다|요|네|아니요|알겠습니다",
    ),
    "reword": (
        "translat*|summari*|summary|tl;dr|rephras*|reword*|rewrit*|paraphras*|proofread*|spelling|grammar|typos|shorter",
        "ubersetz*|fass*|zusammen|zusammenfass*|formulier*|umformulier*|korrigier*|rechtschreibung",
        "tradui*|resum*|reformul*|corrig*|orthographe",
        "traduc*|traduz*|resum*|reformul*|corrig*|corrij*|ortografia",
        "riassum*|riformul*|correggi*",
        "traduz*|reescrev*",
        "vertaal*|vertal*|vat|samenvat*|herschrijf|verbeter de",
        "przetlumacz*|stresc*|podsumuj*|popraw*",
        "перевед*|перевести|кратко|перескажи*|перефразир*|исправь*|исправьте|резюмир*",
        "翻译|翻譯|译成|总结|總結|概括|改写|改寫|润色",
        "翻訳|訳して|訳し|要約|言い換え|校正|添削",
        "번역|요약|고쳐|바꿔 써|교정",
    ),
    "weigh": (
        "compar*|versus|vs|trade off*|trade-off*|tradeoff*|pros and cons|advantages and disadvantages|benefits and *"
        "|for and against|should i|should we|should one|is it better|which is better|better to|wiser to|wise to|or rather"
        "|worth it|worth *ing|recommend*|advise|your opinion|what do you think|best way|best approach|best strategy"
        "|evaluat*|assess*|critiqu*|how likely|weigh*",
        "vergleich*|gegenuber|vor- und nachteil*|fur und wider|soll ich|sollte ich|sollen wir|sollten wir|lieber|besser"
        "|empfiehl*|empfehl*|lohnt|lohnen|sinnvoll*|ratsam|bewert*|abwag*|deine meinung",
        "compar*|avantages et|dois-je|devrais-je|devons-nous|devrait-on|faut-il|vaut-il mieux|vaut mieux|mieux de"
        "|recommand*|conseill*|que pens*|pour et contre|evalu*",
        "compar*|ventajas y|pros y contras|debo|deberia*|debemos|recomiend*|recomend*|que opinas|conviene|es mejor"
        "|merece la pena|vale la pena|evalu*|a favor y en contra",
        "confront*|paragon*|vantaggi e|pro e i contro|pro e contro|dovrei|dovremmo|devo|consigli*|conviene|e meglio"
        "|cosa ne pensi|vale la pena|valut*",
        "compar*|vantagens e|pros e contras|devo|deveria*|devemos|recomend*|vale a pena|e melhor|avali*",
        "vergelijk*|voor- en nadelen|moet ik|moeten we|zou ik|raad je|aanbevel*|aanraden|beter|verstandig|loont",
        "porown*|zalety i|wady i|czy powinien*|czy powinn*|czy warto|warto|polec*|lepsz*|lepiej|doradz*|ocen*",
        "сравн*|плюсы и|преимуществ*|стоит ли|следует ли|нужно ли|посоветуи*|порекоменд*|лучше|выгоднее|оцени*|за и против",
        "比较|比較|对比|對比|优缺点|優缺點|利弊|应该|應該|推荐|推薦|哪个更|哪個更|哪个好|还是|還是|值得|权衡|建议|评估|风险",
        "比較|メリット|長所|利点|欠点|べき|おすすめ|お勧め|どちらが|どっちが|賛否|評価して",
        "비교|장단점|장점과|추천|해야 할까|할까|어느 것|어느 쪽|나을까|좋을까|더 나은|평가해",
    ),
    "prove": (
        "prove|proof|derive|derivation|show that",
        "beweis*|zeige, dass|leite * her",
        "demontr*|prouv*|preuve",
        "demuestr*|demostr*",
        "dimostr*",
        "prove que|demonstr*",
        "bewijs*",
        "udowodni*|wykaz",
        "докаж*|доказ*|выведи*",
        "证明|證明|推导",
        "証明|導出",
        "증명",
    ),
    "write": (
        "write|draft|compose|implement|code up|refactor|debug",
        "schreib*|verfass*|programmier*|implementier*|dichte",
        "ecri*|redig*|compose|programme-moi|implement*",
        "escrib*|redact*|program*|implement*",
        "scriv*|redig*|implement*",
        "escrev*|redij*|implement*",
        "schrijf*|programmeer*|implementeer*",
        "napisz*|zaimplementuj*",
        "напиши*|сочини*|реализуи*",
        "写一|写个|寫一|写篇|写首|撰写|编写|实现一",
        "書いて|書け|作文して|実装して",
        "써 줘|써줘|작성해|구현해|지어 줘",
    ),
    "explain": (
        "why|how|explain|explanation|describe|difference*|what happens|what does|reason*|cause*|summary|regex",
        "warum|wieso|weshalb|wie funktion*|wie kann|wie richt*|wie macht|wie mache|erklar*|beschreib*|unterschied*|erlauter*",
        "pourquoi|comment|expli*|decri*|difference*",
        "por que|como|expli*|describ*|diferencia*",
        "perche|come|spieg*|descriv*|differenz*",
        "por que|porque|como|expli*|descrev*|diferenca*",
        "waarom|hoe|leg uit|uitleg*|beschrijf|verschil*",
        "dlaczego|jak|wyjasni*|opisz|rozni*|roznic*",
        "почему|зачем|как|объясни*|опиши*|отлича*|разниц*",
        "为什么|為什麼|为何|怎么|怎麼|怎样|如何|解释|解釋|区别|區別|原理",
        "なぜ|どうして|どうやって|説明|違い|仕組み|作り方|方法",
        "왜|어떻게|설명|차이|방법|이유",
    ),
}
_LOOKUP = re.compile(r"\bhow (?:old|many|much|far|tall|long|big|late|high|deep)\b")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_SYLLABLE = re.compile("[\u3040-\u30ff\uac00-\ud7a3]")
_FENCE = re.compile(r"^\s*(?:```|~~~)", re.MULTILINE)
_TRACE = re.compile(r"Traceback \(most recent|^\s+at [\w.$<>]+\(|^\s*File \"[^\"\n]{1,200}\", line \d", re.MULTILINE)
_CODE_SIGN = re.compile(r"[{}\[\]();=<>_|&$#\\]")
_FORMULA = re.compile(r"\\(?:int|sum|frac|sqrt|lim|prod)\b|\$[^$\n]{2,80}\$|[a-z\d)] ?\^ ?[\d({]|[∫∑√∂≤≥∈∀∃]|\d ?[a-z] ?[-+*/=] ?\d")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_ITEM = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.)、]|\(?[a-z]\))\s*\S", re.MULTILINE)
_ASKED = re.compile("[?？؟;]+")
_URL = re.compile(r"https?://\S+")

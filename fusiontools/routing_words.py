"""By which words a question says what it wants, in twelve languages: en de fr es it pt nl pl ru zh ja ko.

One line for each language. `*` stands for the rest of a word and `..` for up to forty characters; words of scripts
without spaces are found anywhere. Only words that are sure and short: what is missing here is judged by its shape.
"""

from __future__ import annotations

import functools
import re

from fusiontools.normal import fold

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
        "hoi|goedemorgen|goedemiddag|goedenavond|bedankt|dank je|dank u|wel|tot ziens|prima|nee|ga door",
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

"""Recognise what gatekeepers show in place of a page: challenges, consent forms, paywalls; most come with HTTP 200.

Such a page is no evidence for anything, and reads like some. The signs are those that the products themselves write;
a title or a script counts only where there is little else to read, so that an article about them stays one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fusiontools.tools.page_reader import Document

#: A whole article is longer than what a gatekeeper says.
_LITTLE_CHARS = 3000
_LOOKED_AT_BYTES = 1 << 18
_STATUSES = {
    401: "it wants a login",
    402: "it wants to be paid",
    403: "it does not let programs in",
    407: "a proxy wants a login",
    451: "it is withheld for legal reasons",
}
_HEADERS = {
    "cf-mitigated": "Cloudflare's challenge",
    "x-amzn-waf-action": "a challenge of AWS WAF",
    "x-vercel-mitigated": "Vercel's security checkpoint",
}
_TITLES = re.compile(
    r"just a moment|attention required! \| cloudflare|making sure you.{0,8}re not a bot|before you continue"
    r"|access (?:to this page has been )?denied|access denied|are you (?:a )?(?:robot|human)|robot check"
    r"|(?:security|human|bot|browser) (?:check|verification|checkpoint)|verif(?:y|ying) (?:you|your|that you)"
    r"|vercel security checkpoint|ddos-guard|client challenge|pardon our interruption|request rejected|captcha"
    r"|please wait\W|one more step|cookie (?:consent|settings|walls?)",
    re.IGNORECASE,
)
_MARKS = re.compile(
    rb"_cf_chl_opt|/cdn-cgi/challenge-platform/|id=.anubis_|/\.within\.website/x/cmd/anubis|captcha-delivery\.com"
    rb"|px-captcha|_Incapsula_Resource|Incapsula incident ID|aws-waf-token|awsWafCookieDomainList|g-recaptcha|h-captcha"
    rb"|cf-turnstile|action=.https://consent\.|enable javascript and cookies to continue"
    rb"|please enable js and disable any ad blocker|unusual traffic from your computer",
    re.IGNORECASE,
)
_PAID_ONLY = re.compile(rb"isAccessibleForFree\W{1,8}false", re.IGNORECASE)
_SUBSCRIBE = re.compile(
    r"subscribe (?:now )?to (?:continue|keep) reading|already a subscriber"
    r"|to read the (?:full|rest of the) (?:story|article)"
    r"|for subscribers only|this (?:article|content) is (?:for|reserved for|only available to) (?:our )?subscribers",
    re.IGNORECASE,
)


def blocked_at_once(status: int, headers: Mapping[str, str]) -> str | None:
    """Return why this answer is no page, as far as its head says so."""
    for name, why in _HEADERS.items():
        if name in headers:
            return why
    return _STATUSES.get(status)


def blocked_instead(body: bytes, document: Document) -> str | None:
    """Return why what was read is no page but what stands in front of it; None where it is one."""
    text = document.text
    if len(text) > _LITTLE_CHARS:
        return None
    looked_at = body[:_LOOKED_AT_BYTES]
    for title in (document.head_title, document.title):
        if _TITLES.search(title):
            return f"{title!r} stands in front of the page"
    if (mark := _MARKS.search(looked_at)) is not None:
        return f"a challenge stands in front of the page ({mark[0].decode('ascii', 'replace')})"
    if _SUBSCRIBE.search(text) or (_PAID_ONLY.search(looked_at) and len(text) < _LITTLE_CHARS // 2):
        return "a paywall"
    return None

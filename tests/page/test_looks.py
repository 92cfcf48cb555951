"""How the page looks in each of its states: taken as pictures, held against axe-core, and never wider than its window.

`make screenshots` puts those that docs/page.md shows into docs/pictures; the others are thrown away.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from desk import ALL, Desk
from PIL import Image
from playwright.sync_api import Page, expect
from serving import RECIPE
from workdir import ROOT, Serve, Upstream

AXE = ROOT / ".axe/node_modules/axe-core/axe.min.js"
PICTURES = os.environ.get("FUSION_PICTURES")
QUESTION = "How long does the light of the sun take to reach the earth, and does it depend on the season?"
MEMBERS = ("fake/aspen", "fake/birch", "fake/cedar")
SAID = {
    "fake/aspen": """Light takes **about 8 minutes and 20 seconds** from the sun to the earth.

- Mean distance: 149.6 million km
- Speed of light: 299,792 km/s

The distance changes by 3 % within a year, so the time lies between 8:10 and 8:27.""",
    "fake/birch": """It takes `149_597_870 / 299_792` seconds:

```python
seconds = 149_597_870 / 299_792  # km, km/s
print(round(seconds))            # 499
```

That is 8 minutes 19 seconds. **The season does not matter.**""",
    "fake/cedar": """Some 500 seconds. In January the earth is nearest to the sun, in July farthest, and the light is
16 seconds longer on its way. See the [almanac](https://example.org/almanac).""",
}
VERDICT: dict[str, Any] = {
    "reasoning": "",
    "consensus": ["Light takes a little over eight minutes.", "The speed of light is the same all year."],
    "contradictions": [
        {
            "topic": "Does the time depend on the season?",
            "stances": {
                "fake/aspen": "Yes: between 8:10 and 8:27, for the distance changes.",
                "fake/birch": "No, it does not matter.",
                "fake/cedar": "Yes: 16 seconds more in July than in January.",
            },
        }
    ],
    "partial_coverage": [(["fake/aspen", "fake/birch"], "how the time is computed from distance and speed")],
    "unique_insights": [("fake/cedar", "in which months the earth is nearest and farthest")],
    "blind_spots": ["Seasons come from the tilt of the axis, not from the distance."],
    "ranking": ["fake/aspen", "fake/cedar", "fake/birch"],
}
ANSWER = """Sunlight takes **about 8 minutes 20 seconds** (499 s) to reach the earth.

It does vary within the year, because the orbit is an ellipse:

| When | Distance, million km | Time |
|---|---:|---:|
| Perihelion, early January | 147.1 | 8 min 11 s |
| Aphelion, early July | 152.1 | 8 min 27 s |

This has nothing to do with the *cause* of the seasons, which is the tilt of the earth's axis."""


def verdict(labels: dict[str, str]) -> str:
    """Return the verdict as a judge writes it, who knows members by their labels alone."""
    [dispute] = VERDICT["contradictions"]
    stances = [{"model": labels[name], "stance": said} for name, said in dispute["stances"].items()]
    return json.dumps(
        {
            **VERDICT,
            "contradictions": [{"topic": dispute["topic"], "stances": stances}],
            "partial_coverage": [
                {"models": [labels[m] for m in models], "point": point} for models, point in VERDICT["partial_coverage"]
            ],
            "unique_insights": [{"model": labels[m], "insight": said} for m, said in VERDICT["unique_insights"]],
            "ranking": [labels[name] for name in VERDICT["ranking"]],
        }
    )


def prepare(desk: Desk, upstream: Upstream, question: str = QUESTION, **said: str) -> None:
    """Let the members, the judge and the synthesizer say what stands above, for the next question."""
    body = {"prompt": question, "fusion": {"panel": list(MEMBERS)}}
    labels = desk.server.post("/fuse", body).json()["analysis"]["labels"]
    for name, text in {
        **SAID,
        "fake/judge": verdict({MEMBERS[at]: label for label, at in labels.items()}),
        "fake/synth": ANSWER,
        **said,
    }.items():
        upstream.script(name, f"text={quote(text, safe='')}")


def empty(desk: Desk, upstream: Upstream) -> None:
    desk.page.locator("#recipe").wait_for()


def options(desk: Desk, upstream: Upstream) -> None:
    desk.set_panel(*MEMBERS)
    desk.type(QUESTION)
    desk.page.locator(".estimate:not(:empty)").wait_for()


def streaming(desk: Desk, upstream: Upstream) -> None:
    prepare(desk, upstream)
    text = quote(SAID["fake/birch"], safe="")
    upstream.script("fake/birch", f"text={text}+itl=0.15")
    upstream.script("fake/cedar", f"text={quote(SAID['fake/cedar'], safe='')}+itl=0.2")
    desk.ask(QUESTION, *MEMBERS, wait=False)
    expect(desk.column("fake/aspen").locator(".status")).to_have_text("done")
    expect(desk.column("fake/birch").locator(".prose")).to_contain_text("149_597")


def fused(desk: Desk, upstream: Upstream) -> None:
    prepare(desk, upstream)
    desk.ask(QUESTION, *MEMBERS)


def failed(desk: Desk, upstream: Upstream) -> None:
    prepare(desk, upstream)
    upstream.script("fake/birch", "status=503", "status=503")
    desk.ask(QUESTION, *MEMBERS)


def nobody(desk: Desk, upstream: Upstream) -> None:
    desk.ask(QUESTION, "fake/aspen+status=500", "fake/birch+html502")


def long(desk: Desk, upstream: Upstream) -> None:
    many = "\n\n".join(f"## Part {i}\n\n{ANSWER}\n\n{SAID['fake/birch']}" for i in range(1, 8))
    prepare(desk, upstream, **{"fake/synth": many, "fake/aspen": many})
    desk.ask(QUESTION, *MEMBERS)


def debate(desk: Desk, upstream: Upstream) -> None:
    for name in MEMBERS:
        upstream.script(name, f"text={quote(SAID[name], safe='')}", f"text={quote(SAID['fake/aspen'], safe='')}")
    desk.ask(QUESTION, *MEMBERS, Layers="2")


def vote(desk: Desk, upstream: Upstream) -> None:
    said = ("Answer: 499", "Answer: 499", "Answer: 500", "I do not know.")
    members = (*MEMBERS, "fake/dogwood")
    for name, text in zip(members, said, strict=True):
        upstream.script(name, f"text={quote(text, safe='')}")
    desk.ask("How many seconds, as a whole number?", *members, Chain="panel | vote")


def again(desk: Desk, upstream: Upstream) -> None:
    fused(desk, upstream)
    upstream.script(
        "fake/other", f"text={quote(ANSWER.replace('about', 'roughly').replace('499 s', '8.3 min'), safe='')}"
    )
    turn = desk.page.locator(".turn").first
    turn.get_by_role("button", name="Do again").click()
    turn.locator(".foot-form").get_by_label("Chain").fill("synth")
    turn.locator(".foot-form").get_by_label("Synthesizer").fill("fake/other")
    turn.locator(".foot-form .primary").click()
    second = desk.page.locator(".turn").nth(1)
    second.get_by_role("button", name="Compare").click()
    second.get_by_role("button", name="As a command").click()


def history(desk: Desk, upstream: Upstream) -> None:
    for question in (
        "Why is the sky blue?",
        "Warum ist der Himmel blau?",
        "لماذا السماء زرقاء؟",
        "天空为什么是蓝色的？",
    ):
        desk.ask(question)
        desk.page.get_by_role("button", name="New").click()
    desk.page.get_by_role("button", name="History").click()
    desk.page.locator(".entry").first.click()


def tongues(desk: Desk, upstream: Upstream) -> None:
    german = "Der Himmel ist blau, weil **kurzwelliges Licht** stärker gestreut wird.\n\n- Größe\n- Übergänge"
    arabic = (
        "السماء زرقاء لأن **الضوء الأزرق** يتشتت أكثر من الأحمر.\n\n1. تشتت رايلي\n2. طول الموجة `450 nm`\n\n"
        "The same in English."
    )
    chinese = (
        "天空呈蓝色，是因为**短波长的光**散射得更强。\n\n| 颜色 | 波长 |\n|---|---|\n| 蓝 | 450 nm |\n| 红 | 700 nm |"
    )
    texts = dict(zip(MEMBERS, (german, arabic, chinese), strict=True))
    prepare(desk, upstream, "لماذا السماء زرقاء؟", **texts, **{"fake/synth": f"{arabic}\n\n{chinese}\n\n{german}"})
    desk.ask("لماذا السماء زرقاء؟", *MEMBERS)


STATES: list[Callable[[Desk, Upstream], None]] = [
    empty, options, streaming, fused, failed, nobody, long, debate, vote, again, history, tongues,
]  # fmt: skip


def no_key(desks: Any, serve: Serve, upstream: Upstream) -> Desk:
    recipe = f"{RECIPE}endpoint: mine\nendpoints: {{mine: {{base_url: '{upstream.url}', api_key_env: MY_KEY}}}}\n"
    desk: Desk = desks(serve(*ALL, "--open", recipe=recipe, env={"FUSION_BASE_URL": "", "BROWSER": "true"}))
    desk.open()
    desk.page.locator("form.banner").wait_for()
    return desk


def offline(desks: Any, serve: Serve, upstream: Upstream) -> Desk:
    desk: Desk = desks(serve(*ALL))
    desk.open()
    desk.page.locator("#recipe").wait_for()
    desk.server.process.kill()
    desk.server.process.wait()
    desk.expected += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET"]
    desk.ask("Is anybody there?")
    desk.page.locator(".banner").wait_for()
    return desk


def looked_at(desk: Desk, name: str, tmp_path: Path) -> None:
    """Take the pictures, hold each against axe-core, and look for what is wider than its window."""
    page = desk.page
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.evaluate("scrollTo(0, 0)")
        _take(page, name, scheme, tmp_path)
        assert _violations(page) == []
    for width in (320, 768, 3840):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
        if width == 320:
            _take(page, name, "narrow", tmp_path)


def _take(page: Page, name: str, kind: str, tmp_path: Path) -> None:
    """Take a picture; in few colours, which is all that the page has, it is a third as large."""
    taken = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
    wanted = PICTURES and f"{name}-{kind}.png" in (ROOT / "docs/page.md").read_text()
    path = (Path(PICTURES) if wanted else tmp_path) / f"{name}-{kind}.png"
    taken.convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < 150_000


def _violations(page: Page) -> list[str]:
    if not AXE.exists():
        return []
    page.evaluate(AXE.read_text())
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [
        f"{v['id']}: {node['html'][:200]}"
        for v in found
        if v["impact"] in ("serious", "critical", "moderate")
        for node in v["nodes"]
    ]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_a_state_can_be_read_by_everybody_at_every_width(
    desk: Desk, upstream: Upstream, tmp_path: Path, state: Callable[[Desk, Upstream], None]
) -> None:
    state(desk, upstream)

    looked_at(desk, state.__name__, tmp_path)
    desk.page.keyboard.press("Escape")


@pytest.mark.parametrize("state", [no_key, offline], ids=lambda state: state.__name__)
def test_so_can_a_server_that_cannot_be_asked(
    desks: Any, serve: Serve, upstream: Upstream, tmp_path: Path, state: Callable[[Any, Serve, Upstream], Desk]
) -> None:
    looked_at(state(desks, serve, upstream), state.__name__, tmp_path)


def test_the_axe_is_there_or_its_absence_is_said() -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make .axe/.installed (it wants npm)")


def test_the_first_paint_needs_little_work(desk: Desk) -> None:
    """All of what the page does until it can be used, on the thread that answers the person."""
    session = desk.page.context.new_cdp_session(desk.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    desk.open()
    desk.page.locator("#recipe").wait_for()

    metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}

    assert metrics["ScriptDuration"] + metrics["LayoutDuration"] + metrics["RecalcStyleDuration"] < 0.3


def test_where_a_further_question_is_written_is_one_line_until_it_is_written(desk: Desk) -> None:
    desk.ask("Why?")
    box = desk.page.locator(".ask")

    empty = box.bounding_box()
    desk.type("And how?")
    written = box.bounding_box()

    assert empty is not None
    assert written is not None
    assert empty["height"] < 50 < written["height"]
    expect(box.locator(".recipe-line")).to_be_visible()


def test_all_can_be_done_from_the_keyboard(desk: Desk) -> None:
    page = desk.page
    desk.ask("Why?")
    page.locator("#question").blur()

    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Shortcuts")).to_have_count(0)
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#history")).to_have_count(0)
    page.keyboard.press("n")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#question")).to_be_focused()

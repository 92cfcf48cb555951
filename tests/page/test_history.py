"""The history: kept turn by turn, looked through, saved and loaded as the records that the shell reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from desk import Desk
from playwright.sync_api import Locator, Page, expect
from reporting import AS_READ
from workdir import Run, Upstream


def open_history(page: Page) -> Locator:
    if not page.locator("#history").count():
        page.get_by_role("button", name="History").click()
    return page.locator("#history")


def drop(page: Page, name: str, text: str) -> None:
    """Drop a file on the page."""
    page.evaluate(
        """([name, text]) => {
            const data = new DataTransfer();
            data.items.add(new File([text], name));
            document.querySelector('main').dispatchEvent(
                new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [name, text],
    )


def test_what_was_asked_is_there_after_a_reload_and_opens_with_its_conversation(desk: Desk) -> None:
    desk.ask("Why are there seasons?")
    desk.ask("And on Mars?")
    desk.open()

    history = open_history(desk.page)
    expect(history.locator(".entries li")).to_have_count(2)
    history.get_by_label("Search the history").fill("MARS")
    expect(history.locator(".entries li")).to_have_count(1)
    history.locator(".entry").click()

    turns = desk.page.locator(".turn")
    expect(turns).to_have_count(2)
    expect(turns.nth(0).locator(".question")).to_have_text("Why are there seasons?")
    expect(turns.nth(1).locator(".answer .prose")).to_contain_text("fake/synth says")
    expect(turns.nth(1).locator(".column")).to_have_count(3)


def test_the_export_is_what_the_shell_reads_and_the_import_takes_it_back(
    desk: Desk, run: Run, upstream: Upstream
) -> None:
    desk.ask("One?")
    desk.page.get_by_role("button", name="New").click()
    desk.ask("Two?")
    history = open_history(desk.page)

    with desk.page.expect_download() as download:
        history.get_by_role("button", name="Export").click()
    exported = Path(download.value.path()).read_bytes()
    upstream.reset()
    judged = run(["fuse-judge", "-m", "fake/judge"], exported)

    assert [json.loads(line)["messages"][0]["content"] for line in exported.splitlines()] == ["One?", "Two?"]
    assert (judged.status, len(judged.records)) == (0, 2)
    assert upstream.stats()["per_model"] == {"fake/judge": 2}
    history.get_by_role("button", name="Clear").click()
    history.get_by_role("button", name="Really clear?").click()
    expect(history.locator(".entries li")).to_have_count(0)
    history.locator("input[type=file]").set_input_files(
        {"name": "all.jsonl", "mimeType": "application/x-ndjson", "buffer": exported}
    )
    expect(history.locator(".entries li")).to_have_count(2)


def test_a_record_that_is_dropped_on_the_page_opens(desk: Desk, run: Run) -> None:
    made = run(
        "echo 'Why is it dark?' | fuse-panel -m fake/a -m fake/b | fuse-judge -m fake/judge | fuse-synth -m fake/s"
    )

    drop(desk.page, "record.jsonl", made.text)

    turn = desk.page.locator(".turn")
    expect(turn.locator(".question")).to_have_text("Why is it dark?")
    expect(turn.locator(".column")).to_have_count(2)
    expect(turn.locator(".answer .prose")).to_contain_text("fake/s says")


def test_sources_are_footnotes_of_the_answer(desk: Desk, run: Run) -> None:
    made = run("echo 'Why?' | fuse-panel -m fake/a | fuse-synth -m fake/s").records[0]
    text = "[One](https://example.org/one#part), <https://example.org/two/>, [it](https://example.org/one), [no](https://a.org)"
    sources = [{"url": f"https://example.org/{name}", "title": name, "how": "search"} for name in ("one", "two")]
    made["answer"] = {**made["answer"], "content": text, "sources": sources}

    drop(desk.page, "record.json", json.dumps(made))

    answer = desk.page.locator(".answer")
    expect(answer.locator(".prose .cite")).to_have_text(["[1]", "[2]", "[1]"])
    answer.get_by_role("link", name="Source 2", exact=True).click()
    expect(answer.locator(".sources li:target")).to_contain_text("two")
    answer.get_by_role("link", name="Back to where source 1 is cited").click()
    expect(answer.locator(".cite:target")).to_have_count(1)
    expect(answer.locator(".cite").first).to_be_in_viewport()


def test_a_file_that_is_no_record_is_refused_in_words(desk: Desk) -> None:
    drop(desk.page, "x.jsonl", '{"a": 1}\n{broken')
    expect(desk.page.get_by_role("status").last).to_contain_text("x.jsonl: line 2 is no JSON")

    drop(desk.page, "y.json", '{"a": 1}')
    expect(desk.page.get_by_role("status").last).to_contain_text("neither records nor a report")


def test_a_report_that_is_dropped_on_the_page_is_drawn(desk: Desk) -> None:
    drop(desk.page, "report.json", json.dumps(AS_READ))

    report = desk.page.get_by_role("article", name="Report")
    expect(report.locator("tr.subject")).to_contain_text("fusion")
    expect(report.locator("svg .point")).to_have_count(len(AS_READ["systems"]))
    report.get_by_role("button", name="Close").click()
    expect(desk.page.locator("#question")).to_be_visible()


def test_two_tabs_lose_nothing_of_each_other(desk: Desk, desks: Any) -> None:
    other: Desk = desks(desk.server)
    other.open()

    desk.ask("From the first?")
    other.ask("From the second?")
    desk.open()

    expect(open_history(desk.page).locator(".entry .title")).to_have_text(["From the second?", "From the first?"])


def test_where_the_browser_keeps_nothing_the_page_works_and_says_so(desks: Any, desk: Desk) -> None:
    private: Desk = desks(desk.server)
    private.page.add_init_script(
        "Object.defineProperty(window, 'indexedDB', { get() { throw new DOMException('denied', 'SecurityError'); } })"
    )
    private.open()

    turn = private.ask("Why?")

    expect(turn.locator(".answer .prose")).to_contain_text("fake/synth says")
    history = open_history(private.page)
    expect(history.get_by_role("alert")).to_contain_text("This browser keeps no history (denied)")
    history.locator(".entry").click()
    expect(private.page.locator(".turn .answer .prose")).to_contain_text("fake/synth says")


def test_a_full_browser_says_so_and_keeps_the_answer_in_sight(desks: Any, desk: Desk) -> None:
    full: Desk = desks(desk.server)
    full.page.add_init_script(
        "IDBObjectStore.prototype.put = () => { throw new DOMException('no room', 'QuotaExceededError'); }"
    )
    full.open()

    turn = full.ask("Why?")

    expect(turn.locator(".answer .prose")).to_contain_text("fake/synth says")
    expect(open_history(full.page).get_by_role("alert")).to_contain_text("no room left for the history")
    full.page.locator("#history .entry").click()
    expect(full.page.locator(".turn .answer .prose")).to_contain_text("fake/synth says")


FILL = """
async () => {
    const { open, entryOf } = await import('/page/files/history.js');
    await open();
    const opening = indexedDB.open('fusiontools');
    await new Promise((done) => { opening.onsuccess = done; });
    const t = opening.result.transaction(['entries', 'records'], 'readwrite');
    for (let i = 0; i < 10000; i += 1) {
        const turn = { id: `t${i}`, thread: `t${i}`, of: null, at: 1e12 + i * 1e5, question: `Question ${i} of many`,
                       recipe: 'recipe', chain: '', status: 'done', cost: 0.005, seconds: 1 };
        const messages = [{ role: 'user', content: turn.question }];
        t.objectStore('entries').put(entryOf(turn, `the answer to it is ${i} `.repeat(20)));
        t.objectStore('records').put({ id: turn.id, record: { id: turn.id, messages, panel: [] } });
    }
    await new Promise((done) => { t.oncomplete = done; });
    opening.result.close();
}
"""


def test_ten_thousand_records_stay_usable(desk: Desk) -> None:
    desk.page.evaluate(FILL)
    desk.open()
    history = open_history(desk.page)

    expect(history.get_by_label("Search the history")).to_have_attribute("placeholder", "Search 10,000 questions")
    expect(history.locator(".entries li")).to_have_count(60)
    desk.page.evaluate(
        """() => {
            const field = document.getElementById('search');
            field.value = 'question 4711';
            field.dispatchEvent(new InputEvent('input', { bubbles: true }));
        }"""
    )
    expect(history.locator(".entries li")).to_have_count(1)
    history.locator(".entry").click()
    expect(desk.page.locator(".turn .question")).to_have_text("Question 4711 of many")

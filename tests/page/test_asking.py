"""Ask, see, stop, do again: from the question to the answer, in a browser."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from desk import ALL, Desk
from playwright.sync_api import expect
from serving import RECIPE, Server
from workdir import Serve, Upstream

SLOW = "fake/b+chunks=1200+itl=0.05"


def until(condition: Callable[[], Any]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never came to that")


def test_a_question_is_answered_and_all_of_it_is_seen(desk: Desk) -> None:
    turn = desk.ask("Why?")

    expect(turn.locator(".column")).to_have_count(3)
    expect(turn.locator(".column .figures").first).to_contain_text("64 tok · $0.0010")
    expect(turn.locator(".chain .step.done")).to_have_count(3)
    expect(turn.locator(".contradiction .stance")).to_have_count(3)
    expect(turn.locator(".answer .prose")).to_contain_text("fake/synth says")
    expect(turn.locator(".turn-line .figures")).to_contain_text("$0.0050")


def test_columns_fill_while_members_write_and_one_is_stopped_alone(desk: Desk, upstream: Upstream) -> None:
    turn = desk.ask("Why?", "fake/a", SLOW, wait=False)

    writing = desk.column(SLOW)
    expect(writing.locator(".prose")).to_contain_text("fake/b says")
    expect(writing.locator(".status")).to_have_text("writing")
    expect(desk.column("fake/a").locator(".status")).to_have_text("done")
    writing.get_by_role("button", name="Stop").click()

    expect(writing.locator(".status")).to_have_text("stopped")
    expect(writing.locator(".prose")).to_contain_text("fake/b says")
    expect(turn.locator(".answer .prose")).not_to_be_empty()
    until(lambda: upstream.stats()["in_flight"] == 0)


def test_with_several_workers_one_member_is_stopped_as_well(desks: Any, serve: Serve, upstream: Upstream) -> None:
    desk: Desk = desks(serve(*ALL, "--workers", "2"))
    desk.open()

    for _ in range(3):  # whichever of them has the run, and whichever is told
        turn = desk.ask("Why?", "fake/a", SLOW, wait=False)
        writing = desk.column(SLOW).last
        expect(writing.locator(".prose")).to_contain_text("fake/b says")
        writing.get_by_role("button", name="Stop").click()

        expect(writing.locator(".status")).to_have_text("stopped")
        expect(turn.locator(".answer .prose")).not_to_be_empty()
    until(lambda: upstream.stats()["in_flight"] == 0)


def test_stop_stops_the_models_and_what_was_written_can_be_gone_on_with(desk: Desk, upstream: Upstream) -> None:
    turn = desk.ask("Why?", "fake/a", SLOW, wait=False)
    expect(desk.column("fake/a").locator(".status")).to_have_text("done")
    expect(desk.column(SLOW).locator(".prose")).to_contain_text("fake/b says")

    desk.page.keyboard.press("Escape")

    expect(turn).to_have_class("turn stopped")
    until(lambda: upstream.stats()["in_flight"] == 0)
    expect(desk.column(SLOW).locator(".prose")).to_contain_text("fake/b says")
    upstream.reset()
    turn.get_by_role("button", name="Do again").click()
    turn.locator(".foot-form").get_by_label("Chain").fill("synth")
    turn.locator(".foot-form .primary").click()
    expect(desk.page.locator(".turn").last.locator(".answer")).to_contain_text("one member's, as it is")
    assert upstream.stats()["requests"] == 0  # of the one that had answered a copy is the answer


def test_a_server_that_dies_in_the_middle_leaves_what_was_written(desks: Any, serve: Serve) -> None:
    desk: Desk = desks(serve(*ALL))
    desk.open()
    desk.expected += ["ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET"]
    turn = desk.ask("Why?", "fake/a", SLOW, wait=False)
    expect(desk.column("fake/a").locator(".status")).to_have_text("done")
    expect(desk.column(SLOW).locator(".prose")).to_contain_text("fake/b says")

    desk.server.process.kill()

    expect(turn.locator(".answer").get_by_role("alert")).to_contain_text("the connection to the server broke")
    expect(desk.page.locator(".banner")).to_contain_text("The server does not answer")
    cut = desk.column(SLOW)
    expect(cut.locator(".prose")).to_contain_text("fake/b says")
    expect(cut.locator(".status")).to_have_text("failed")
    expect(cut.locator(".fault")).to_contain_text("connection: the connection to the server broke")


def test_a_member_that_fails_says_why_in_the_endpoints_words(desk: Desk) -> None:
    turn = desk.ask("Why?", "fake/a", "fake/b+status=400", "fake/c")

    failed = desk.column("fake/b+status=400")
    expect(failed.locator(".status")).to_have_text("failed")
    expect(failed.locator(".fault")).to_contain_text("bad_request: HTTP 400: upstream says 400 for fake/b")
    expect(turn.locator(".degraded summary")).to_have_text("1 thing did not go as asked")


def test_where_nobody_answers_the_page_says_so(desk: Desk) -> None:
    turn = desk.ask("Why?", "fake/a+status=400", "fake/b+status=400", "fake/c+empty")

    expect(turn.locator(".answer h3")).to_contain_text("No answer")
    expect(turn.get_by_role("alert")).to_contain_text("all_failed: nobody answered")
    reasons = turn.get_by_role("alert").get_by_role("listitem")
    expect(reasons).to_have_count(3)
    expect(reasons.nth(0)).to_contain_text("HTTP 400: upstream says 400 for fake/a")
    expect(reasons.nth(2)).to_contain_text("the model answered nothing")


def test_a_banner_names_the_endpoints_without_a_key_and_those_that_need_none_for_what_they_lack(
    desks: Any, serve: Serve, upstream: Upstream
) -> None:
    recipe = (
        "panel: [fake/a@mine, {model: fake/b, endpoint: shed}]\njudge: fake/j@mine\nsynth: fake/s@mine\n"
        f"endpoints:\n  mine: {{base_url: '{upstream.url}', api_key_env: MY_KEY}}\n"
        "  shed: {base_url: 'http://127.0.0.1:9/v1', free: true}\n"
    )
    desk: Desk = desks(serve("--open", recipe=recipe, env={"FUSION_BASE_URL": "", "BROWSER": "true"}))
    desk.open()

    banner = desk.page.locator("form.banner")
    expect(banner).to_contain_text("The server has no key for mine. ")
    expect(banner).to_contain_text("shed cannot be asked: no server answers at 127.0.0.1:9")
    offered = banner.get_by_label("Endpoint").locator("option").all_inner_texts()
    assert "mine" in offered
    assert "shed" not in offered


def test_what_is_being_typed_outlives_a_redraw(desk: Desk) -> None:
    desk.page.get_by_role("button", name="Options").click()
    field = desk.page.get_by_label("Members, as MODEL")
    field.fill("fake/x fake/y")

    desk.page.evaluate(
        """async () => {
            (await import('/page/files/state.js')).update();
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        }"""
    )

    expect(field).to_have_value("fake/x fake/y")
    field.blur()
    expect(desk.page.locator(".recipe-line")).to_contain_text("Members: x, y")


def test_what_it_would_cost_is_said_before(desk: Desk, upstream: Upstream) -> None:
    desk.type("Why?")

    expect(desk.page.locator(".estimate")).to_contain_text("5 calls")
    desk.set_panel("fake/a*5", Chain="panel --stop-when-agreed | vote")
    expect(desk.page.locator(".estimate")).to_contain_text("3 to 5 calls")
    assert upstream.stats()["requests"] == 0
    desk.expected.append("400 (Bad Request)")
    desk.set_panel("nobody/knows")
    expect(desk.page.locator(".estimate .fault")).to_contain_text("no model 'nobody/knows'")


def test_another_synthesizer_goes_over_the_same_panel_and_the_answers_are_compared(
    desk: Desk, upstream: Upstream
) -> None:
    turn = desk.ask("Why?")
    upstream.reset()

    turn.get_by_role("button", name="Do again").click()
    turn.locator(".foot-form").get_by_label("Chain").fill("synth")
    turn.locator(".foot-form").get_by_label("Synthesizer").fill("fake/other")
    turn.locator(".foot-form .primary").click()
    second = desk.page.locator(".turn").nth(1)
    expect(second.locator(".answer .prose")).to_contain_text("fake/other says")
    second.get_by_role("button", name="Compare").click()

    expect(second.locator(".diff del").first).to_be_visible()
    expect(second.locator(".diff ins").first).to_be_visible()
    assert upstream.stats()["per_model"] == {"fake/other": 1}


def test_a_conversation_goes_on_with_what_was_said(desk: Desk, upstream: Upstream) -> None:
    first = desk.ask("Why?")
    said = first.locator(".answer .prose").inner_text()
    upstream.reset()

    desk.ask("And how?")

    [body] = upstream.bodies("fake/a")
    assert [(m["role"], m["content"]) for m in body["messages"]][-3:] == [
        ("user", "Why?"), ("assistant", said), ("user", "And how?"),
    ]  # fmt: skip


def test_a_debate_is_rounds_to_step_through(desk: Desk) -> None:
    turn = desk.ask("Why?", "fake/a", "fake/b", Layers="2")

    rounds = turn.get_by_role("group", name="Rounds").get_by_role("button")
    expect(rounds).to_have_count(2)
    last = desk.column("fake/a").locator(".prose").inner_text()
    desk.page.locator("body").click()
    rounds.nth(0).click()
    expect(desk.column("fake/a").locator(".prose")).not_to_have_text(last)
    desk.page.keyboard.press("]")
    expect(desk.column("fake/a").locator(".prose")).to_have_text(last)


def test_votes_are_bars_of_keys_with_their_voters(desk: Desk) -> None:
    members = ("fake/a+text=Paris", "fake/b+text=Paris", "fake/c+text=Rome")

    turn = desk.ask("Which city?", *members, Chain="panel | vote")

    rows = turn.locator(".vote .bars li")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("2 of 3")
    expect(rows.nth(0).locator(".who")).to_have_count(2)
    assert rows.nth(0).locator(".fill").bounding_box()["width"] > rows.nth(1).locator(".fill").bounding_box()["width"]


def test_files_and_images_go_along(desk: Desk, upstream: Upstream) -> None:
    pixel = bytes.fromhex("89504e470d0a1a0a")

    desk.page.locator(".ask input[type=file]").set_input_files(
        [
            {"name": "notes.txt", "mimeType": "text/plain", "buffer": "Grüße".encode()},
            {"name": "p.png", "mimeType": "image/png", "buffer": pixel},
        ]
    )
    expect(desk.page.locator(".files li")).to_have_count(2)
    desk.ask("What is this?")

    content = upstream.bodies("fake/a")[0]["messages"][-1]["content"]
    assert "Grüße" in content[0]["text"]
    assert content[1]["image_url"]["url"].startswith("data:image/png;base64,")


def test_the_shell_line_says_the_same_as_was_asked(desk: Desk, run: Any, upstream: Upstream) -> None:
    turn = desk.ask("Isn't it 'so'?", "fake/a", "fake/b", Synthesizer="fake/other")
    record = json.loads(_downloaded(desk, turn))

    turn.get_by_role("button", name="As a command").click()
    line = turn.locator(".share pre").nth(0).inner_text()
    line = line.replace("-c recipe ", "")  # this one is a file of the server's folder
    assert "degraded" not in record
    served = upstream.bodies("fake/other")
    result = run(f"{line.replace('fuse-judge', 'fuse-judge -m fake/judge')}", pipefail=True)

    assert result.status == 0, result.err
    assert "degraded" not in result.records[0]
    assert upstream.bodies("fake/other")[-1]["messages"] == served[0]["messages"]
    assert result.records[0]["answer"]["content"] == record["answer"]["content"]


def _downloaded(desk: Desk, turn: Any) -> str:
    with desk.page.expect_download() as download:
        turn.get_by_role("button", name="Save record").click()
    return download.value.path().read_text()


def test_where_the_server_has_no_key_the_page_brings_one_which_no_storage_sees(
    desks: Any, serve: Serve, upstream: Upstream
) -> None:
    recipe = f"{RECIPE}endpoint: mine\nendpoints: {{mine: {{base_url: '{upstream.url}', api_key_env: MY_KEY}}}}\n"
    server: Server = serve(*ALL, "--open", recipe=recipe, env={"FUSION_BASE_URL": "", "BROWSER": "true"})
    desk: Desk = desks(server)
    desk.open()
    page = desk.page
    form = page.locator("form.banner")
    expect(form).to_contain_text("no key for mine")

    form.get_by_label("Its key").fill("sk-secret-of-mine")
    form.get_by_role("button", name="Use it").click()

    expect(form).to_have_count(0)
    desk.ask("Why?")
    assert {r["headers"]["authorization"] for r in upstream.requests()} == {"Bearer sk-secret-of-mine"}
    assert "sk-secret" not in _everything_kept(page) + page.url + page.content() + server.said()


def _everything_kept(page: Any) -> str:
    """Return all that the browser keeps of this page."""
    kept: str = page.evaluate(
        """async () => {
            const out = [JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie];
            for (const { name } of await indexedDB.databases()) {
                const opening = indexedDB.open(name);
                await new Promise((done) => { opening.onsuccess = done; });
                const db = opening.result;
                for (const store of db.objectStoreNames) {
                    const r = db.transaction(store).objectStore(store).getAll();
                    await new Promise((done) => { r.onsuccess = done; });
                    out.push(JSON.stringify(r.result));
                }
                db.close();
            }
            return out.join("\\n");
        }"""
    )
    return kept


def test_a_server_with_keys_is_unlocked_in_memory_alone(desks: Any, serve: Serve) -> None:
    server = serve(*ALL, env={"FUSION_SERVER_API_KEYS": "key-of-the-server"})
    desk: Desk = desks(server)
    desk.expected.append("401 (Unauthorized)")
    desk.open()

    desk.page.get_by_label("This server wants one of its keys").fill("wrong-key-here")
    desk.page.get_by_role("button", name="Unlock").click()
    expect(desk.page.get_by_role("status").last).to_contain_text("not known")
    desk.page.get_by_label("This server wants one of its keys").fill("key-of-the-server")
    desk.page.get_by_role("button", name="Unlock").click()
    turn = desk.ask("Why?")

    expect(turn.locator(".answer .prose")).to_contain_text("fake/synth says")
    assert "key-of-the-server" not in _everything_kept(desk.page) + desk.page.url
    turn.get_by_role("button", name="As a command").click()
    expect(turn.locator(".share pre").nth(1)).to_contain_text("$FUSION_KEY")

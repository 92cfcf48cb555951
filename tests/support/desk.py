"""The server's page in a browser, and what a person does at it."""

from __future__ import annotations

from dataclasses import dataclass, field

from playwright.sync_api import Locator, Page
from serving import Server

#: Options of a server whose clients may name any fake model.
ALL = ("--allow-model", "fake/*", "--retries", "0")


@dataclass
class Desk:
    """A page of a server, and what it complained of meanwhile."""

    page: Page
    server: Server
    complaints: list[str] = field(default_factory=list)
    #: What a test provokes: words of complaints that are meant.
    expected: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> None:
        self.page.goto(self.server.url + path)
        self.page.locator("#page > main").wait_for()

    def type(self, text: str) -> None:
        self.page.locator("#recipe").wait_for()
        self.page.locator("#question").fill(text)

    def set_panel(self, *members: str, **overrides: str) -> None:
        """Name members, and what else the options offer, by its label."""
        self.page.locator("#recipe").wait_for()
        if not self.page.locator("#options").count():
            self.page.get_by_role("button", name="Options").click()
        field = self.page.get_by_label("Members, as MODEL")
        field.fill(" ".join(members))
        field.blur()
        for label, value in overrides.items():
            self.page.locator("#options").get_by_label(label, exact=True).fill(value)

    def ask(self, text: str = "Why?", *members: str, wait: bool = True, **overrides: str) -> Locator:
        """Ask; returns the turn, once it has ended where it is waited for."""
        if members or overrides:
            self.set_panel(*members, **overrides)
        self.type(text)
        self.page.locator("#question").press("Control+Enter")
        turn = self.page.locator(".turn").last
        turn.wait_for()
        if wait:
            self.page.locator(".turn[aria-busy='false']").last.wait_for()
            self.page.locator(".turn[aria-busy='true']").wait_for(state="detached")
        return turn

    def column(self, label: str) -> Locator:
        return self.page.locator(f'.column[aria-label="{label}"]')


def watch(page: Page, desk: Desk) -> None:
    page.on("console", lambda m: desk.complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: desk.complaints.append(str(error)))
    page.on("request", lambda request: desk.asked.append(request.url))

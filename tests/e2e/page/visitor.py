"""A person at a browser, and what must never happen while they use the page."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Locator, Page, Request, expect
from service import Service

KNOWN = "model-ledger.signed-in"


@dataclass
class Visitor:
    """One browser profile with one tab. Complaints of the browser are kept, and fail the test in the end."""

    context: BrowserContext
    page: Page
    service: Service
    complaints: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    """Parts of complaints that the test brings about itself, such as `status of 412`."""

    def watch(self, page: Page) -> None:
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._see)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(part in message.text for part in self.expected):
            self.complaints.append(message.text)

    def _see(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.service.url).netloc:
            self.complaints.append(f"asked elsewhere: {request.url}")

    async def sign_in(self) -> None:
        """With a session of its own, without the form."""
        answer = await self.context.request.post(
            "/api/session",
            data={"token": self.service.token},
            headers={"X-Model-Ledger-Request": "1", "Origin": self.service.url},
        )
        assert answer.status == 204, await answer.text()
        await self.context.add_init_script(f"localStorage.setItem('{KNOWN}', 'yes')")

    async def open(self, address: str) -> None:
        """Go there, and wait until the list of models is there, too."""
        await self.page.goto(address)
        await expect(self.page.get_by_text("live", exact=True)).to_be_attached()

    async def ask(self, text: str) -> None:
        """Send a message, and wait for the end of the answer."""
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.keyboard.press("Enter")
        await expect(self.answers().last.get_by_role("button", name="Regenerate")).to_be_visible()

    def answers(self) -> Locator:
        return self.page.locator(".message-answer")

    def main(self) -> Locator:
        return self.page.get_by_role("main")

    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    async def told(self, text: str) -> None:
        """Wait for a message at the edge of the page."""
        await expect(self.page.locator(".notice", has_text=text)).to_be_visible()


Visit = Callable[..., Awaitable[Visitor]]
"""Makes a visitor; takes `signed_in` and what a browser's profile can be set to."""

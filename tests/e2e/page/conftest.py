"""One browser for each process of the test run; a profile of its own for each test."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from chromium import NoBrowser, launch
from playwright.async_api import Browser, async_playwright
from service import Service
from visitor import Visit, Visitor


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        try:
            browser = await launch(playwright)
        except NoBrowser as none:
            pytest.exit(str(none), returncode=3)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser, shared_service: Service) -> AsyncIterator[Visit]:
    """Makes visitors of the shared service, signed in unless told otherwise."""
    visitors: list[Visitor] = []
    async with AsyncExitStack() as stack:

        async def made(*, signed_in: bool = True, **options: Any) -> Visitor:
            context = await browser.new_context(base_url=shared_service.url, **options)
            stack.push_async_callback(context.close)
            context.set_default_timeout(10_000)
            visitor = Visitor(context, await context.new_page(), shared_service)
            visitor.watch(visitor.page)
            visitors.append(visitor)
            if signed_in:
                await visitor.sign_in()
            return visitor

        yield made
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(visit: Visit) -> Visitor:
    return await visit()

"""The review page in headless Chromium: every key, bulk, filters, two tabs, a server that goes away."""

import csv
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

import scanmix
from scanmix.data.corrections import apply_corrections
from scanmix.files import CannotWrite
from scanmix.review import Review, make_app, write_static
from scanmix.review.decisions import CHOICES, State
from scanmix.review.rows import progress
from scanmix.review.server import listen

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'scanmix[e2e]' for the browser tests")
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := Path("/usr/bin") / name).exists()), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium at /usr/bin/chromium")
Page = Any
EXPECTED = ("ERR_CONNECTION_REFUSED", "status of 507")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def open_tab(browser: Any) -> Iterator[Callable[[str], Page]]:
    """Tabs whose scripts must not fail and that must load nothing from elsewhere."""
    context = browser.new_context(viewport={"width": 1300, "height": 820})
    problems: list[str] = []
    context.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    context.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
    context.on("request", lambda asked: problems.append(asked.url) if "127.0.0.1" not in asked.url
               and asked.url.split(":")[0] not in ("data", "file") else None)  # fmt: skip

    def open_at(url: str) -> Page:
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.goto(url)
        comes(page, "typeof grid !== 'undefined' && shown.length > 0")
        return page

    yield open_at
    context.close()
    assert not [problem for problem in problems if not any(word in problem for word in EXPECTED)]


@contextmanager
def served(review: Review, port: int = 0, token: str = "") -> Iterator[tuple[str, int, str]]:
    """The page of a review on a thread of its own: address, port and token."""
    socket, fresh, url = listen(port)
    token = token or fresh
    config = uvicorn.Config(make_app(review, token), log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    port = socket.getsockname()[1]
    try:
        yield url.replace(fresh, token), port, token
    finally:
        server.should_exit = True
        thread.join()
        socket.close()


def until(holds: Callable[[], bool], seconds: float = 15) -> None:
    """Wait for what a key causes."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.01)


def comes(page: Page, expression: str) -> None:
    """Wait until something is so on the page (the page's own policy forbids what Playwright would do)."""
    until(lambda: bool(page.evaluate(expression)))


def decided(review: Review) -> dict[int, str]:
    return {row: CHOICES[code] for row, code in enumerate(review.decisions.codes.tolist()) if code}


def accepted(review: Review, row: int) -> str:
    """What accepting comes to: among the doubtful stands a spot check, whose suggestion is its label."""
    return "keep" if review.decisions.given[row] == review.decisions.suggested[row] else "accept"


def current(page: Page) -> str:
    return str(page.inner_text("#row-id"))


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_every_key_decides_moves_or_explains(make_review: Any, open_tab: Any) -> None:
    review = make_review()
    with served(review) as (url, *_):
        page = open_tab(url)
        assert current(page) == "made/00000" and page.inner_text("#given") == "ant"
        press(page, "k", "a", "Enter", "x", "u")  # typed faster than they can be saved
        until(lambda: review.decisions.revision == 5)
        order = review.queue.order.tolist()
        choices = ["keep", accepted(review, order[1]), accepted(review, order[2]), "exclude", "unsure"]
        assert [decided(review)[row] for row in order[:5]] == choices
        assert current(page) == review.audit["id"][order[5]]
        press(page, "ArrowLeft")
        assert current(page) == review.audit["id"][order[4]] and "unsure" in page.inner_text("#now")
        page.wait_for_selector("#classes button")
        classes = page.locator("#classes .name").all_inner_texts()
        third = page.locator("#classes li", has_text=classes[2]).inner_text()
        assert "3" in third  # the number is on it
        press(page, "3")
        until(lambda: review.decisions.revision == 6)
        assert review.audit.class_names[review.decisions.labels[order[4]]] == classes[2]
        assert current(page) == review.audit["id"][order[5]]  # past what is decided already
        press(page, "/", "d", "o", "g", "Enter")
        until(lambda: review.decisions.revision == 7)
        assert review.audit.class_names[review.decisions.labels[order[5]]] == "dog"
        press(page, "z")
        until(lambda: order[5] not in decided(review))
        comes(page, f"document.getElementById('row-id').textContent === 'made/{order[5]:05d}'")
        press(page, "Control+z")
        until(lambda: decided(review)[order[4]] == "unsure")
        press(page, "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft")
        press(page, "?")
        assert page.locator("#help").is_visible()
        press(page, "k", "Escape")  # a key under the list of keys decides nothing
        assert not page.locator("#help").is_visible() and review.decisions.revision == 9


def test_the_page_says_why(make_review: Any, open_tab: Any) -> None:
    review = make_review()
    review.audit.losses[:, :, 0] = 2.0  # lines on top of each other still get a letter each
    with served(review) as (url, *_):
        page = open_tab(url)
        page.wait_for_selector("#losses svg")
        assert page.locator("#losses text").all_text_contents()[-2:] == ["a", "b"]
        assert page.inner_text("#reason") == "because of <i>0</i>"  # text, not HTML
        assert page.locator("#neighbors span").all_inner_texts() == [review.audit["given"][row] for row in range(1, 7)]
        assert page.locator("#losses polyline").count() == 2
        assert "a and b of 2 networks" in page.inner_text("#against")
        assert page.inner_text("#suggested") == "bee" and "%" in page.inner_text("#suggested-share")
        page.locator("#neighbors button").first.click()
        comes(page, "document.getElementById('row-id').textContent === 'made/00001'")
        press(page, "Enter")
        until(lambda: decided(review) == {1: "accept"})


def test_a_reload_in_the_middle_goes_on_where_it_was(make_review: Any, open_tab: Any) -> None:
    review = make_review()
    with served(review) as (url, *_):
        page = open_tab(url)
        press(page, "k", "a")
        place = current(page)
        comes(page, "revision === 2 && !source.waiting()")  # else it asks whether to leave
        comes(page, f"location.hash.includes(encodeURIComponent('{place}'))")  # written 150 ms later
        page.reload()
        comes(page, f"document.getElementById('row-id').textContent === '{place}'")
        assert "2 of " in page.inner_text("#numbers")
        press(page, "z")
        until(lambda: len(decided(review)) == 1)
        other = open_tab(url)  # an address without a place begins at the first that is undecided
        assert current(other) == review.audit["id"][review.queue.order[1]]


def test_two_tabs_show_the_same_and_lose_nothing(make_review: Any, open_tab: Any) -> None:
    review = make_review()
    with served(review) as (url, *_):
        first, second = open_tab(url), open_tab(url)
        first.bring_to_front()
        press(first, "k")
        second.bring_to_front()
        comes(second, "document.getElementById('now').textContent.includes('kept')")
        press(second, "ArrowRight", "x")
        first.bring_to_front()
        comes(first, "document.getElementById('now').textContent.includes('excluded')")
        press(first, "z")
        until(lambda: len(decided(review)) == 1)
        second.bring_to_front()
        comes(second, "document.getElementById('numbers').textContent.includes('1 of ')")


def test_bulk_in_the_grid_and_its_undo(make_review: Any, open_tab: Any) -> None:
    review = make_review(60)
    order = review.queue.order.tolist()
    with served(review) as (url, *_):
        page = open_tab(url)
        press(page, "g")
        cells = page.locator(".cell")
        cells.nth(0).click()
        cells.nth(2).click()
        assert page.locator(".cell[aria-selected=true]").count() == 2
        press(page, "x")
        until(lambda: decided(review) == {order[0]: "exclude", order[2]: "exclude"})
        comes(page, "document.querySelectorAll('.badge.exclude').length === 2")
        press(page, "z")
        until(lambda: not decided(review))
        cells.nth(1).click()
        cells.nth(4).click(modifiers=["Shift"])
        press(page, "a")
        until(lambda: len(decided(review)) == 4)
        press(page, "Escape", "ArrowRight", "Space", "ArrowDown", "Space")
        assert page.locator(".cell[aria-selected=true]").count() == 2
        press(page, "1")  # classes in their own order, as listed at the side
        until(lambda: review.decisions.revision == 4)
        assert (review.decisions.labels == 0)[list(decided(review))].sum() >= 2
        page.select_option("#f-kind", "hard")
        comes(page, "document.querySelectorAll('.cell').length === 10")
        page.locator("#scroller").focus()
        press(page, "Control+a", "u")
        until(lambda: list(decided(review).values()).count("unsure") == 10)
        press(page, "z")
        until(lambda: "unsure" not in decided(review).values())


def test_filters_are_in_the_address(make_review: Any, open_tab: Any) -> None:
    review = make_review(60)
    with served(review) as (url, *_):
        page = open_tab(url)
        page.select_option("#f-given", "bee")
        page.select_option("#f-suggested", "cat <b>")
        rows = [row for row in review.queue.order.tolist()
                if review.audit["given"][row] == "bee" and review.audit["suggested"][row] == "cat <b>"]  # fmt: skip
        assert f"1 of {len(rows)} shown" in page.inner_text("#place")
        press(page, "Escape")
        page.evaluate("document.activeElement.blur()")
        press(page, "a")
        until(lambda: decided(review) == {rows[0]: "accept"})
        press(page, "ArrowLeft")
        assert current(page) == review.audit["id"][rows[0]]  # the list stays while one decides
        page.check("#f-undecided")
        assert f"of {len(rows) - 1} shown" in page.inner_text("#place")
        page.fill("#f-high", "0.1")
        page.locator("#f-high").blur()
        few = [row for row in rows[1:] if review.audit["score"][row] <= 0.1]
        comes(page, f"shown.length === {len(few)}")
        comes(page, "location.hash.includes('high=0.1')")
        again = open_tab(page.url)
        assert again.evaluate("shown") == few and again.input_value("#f-given") == "bee"
        again.click("#f-clear")
        assert again.evaluate("shown.length") == 60
        again.locator("#pairs button").first.click()
        assert again.input_value("#f-suggested") != ""


def test_fifty_thousand_stay_fluid(make_review: Any, open_tab: Any) -> None:
    review = make_review(50_000)
    with served(review) as (url, *_):
        page = open_tab(url)
        press(page, "k", "g")
        page.wait_for_selector(".cell")
        longest = page.evaluate("""async () => {
            const scroller = document.getElementById("scroller");
            let last = performance.now(), longest = 0, most = 0;
            for (let step = 0; step < 40; step += 1) {
                scroller.scrollTop = step * scroller.scrollHeight / 40;
                await new Promise(requestAnimationFrame);
                longest = Math.max(longest, performance.now() - last);
                most = Math.max(most, document.querySelectorAll(".cell").length);
                last = performance.now();
            }
            return [longest, most];
        }""")
        assert longest[1] < 150  # cells that exist, of 50,000
        assert longest[0] < 1000  # milliseconds; some 20 on an idle machine, and it may be busy
        page.evaluate("document.getElementById('scroller').scrollTop = 1e9")
        comes(page, "document.getElementById('cell-49999')?.querySelector('img').naturalWidth > 0")
        page.locator("#scroller").focus()
        press(page, "Control+a")
        comes(page, "document.getElementById('grid-note').textContent.startsWith('50,000 selected')")
        page.select_option("#f-kind", "hard")
        page.locator("#scroller").focus()
        press(page, "Control+a", "u")
        until(lambda: len(decided(review)) == 1 + 50_000 // 6, 30)
        press(page, "z")
        until(lambda: len(decided(review)) == 1, 30)
        comes(page, "!source.waiting()")


def test_odd_paths_and_a_deleted_picture(make_review: Any, open_tab: Any, tmp_path: Path) -> None:
    names = [
        "plain.png",
        "q'uo\"te <script>alert(1)<.png",
        "ü #1?&%41.png",
        "gone.png",
        *(f"{i}.png" for i in range(8)),
    ]
    paths = [str(tmp_path / "pictures" / name) for name in names]
    (tmp_path / "pictures").mkdir()
    for path in paths:
        Image.new("RGB", (30, 20), "green").save(path)
    review = make_review(paths=paths)
    Path(paths[3]).unlink()
    with served(review) as (url, *_):
        page = open_tab(url)
        for row in review.queue.order[:5].tolist():
            page.get_by_text(paths[row], exact=True).wait_for()
            comes(page, f"document.getElementById('picture').naturalWidth === {160 if row == 3 else 30}")
            press(page, "k")
        until(lambda: len(decided(review)) == 5)
        assert "q'uo" in (tmp_path / "corrected.csv").read_text(encoding="utf-8")


@contextmanager
def command(run: Path) -> Iterator[str]:
    """`scanmix review` as it is typed, ended by Ctrl-C: the address of its page."""
    line = [sys.executable, "-m", "scanmix", "review", str(run), "--no-browser", "--who", "ann"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", process.stdout.readline())
            assert found
            yield found[0]
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
            assert process.returncode == 0 and not errors
        finally:
            process.kill()


def decisions_in(run: Path) -> dict[str, str]:
    with (run / "corrected.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: row["decision"] for row in csv.DictReader(file) if row["decision"]}


def test_a_review_goes_on_after_pictures_were_deleted(open_tab: Any, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for i in range(24):
        folder = tmp_path / "photos" / ("night", "sun")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draw.normal(60 + 120 * (i % 2), 40, (20, 20, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    run, (examples, _) = tmp_path / "run", scanmix.load(tmp_path / "photos")
    noisy = scanmix.add_noise(examples, "symmetric", rate=0.5)
    small = {"widths": [8, 16], "blocks": [1, 1], "stem_stride": 2}
    scanmix.train(noisy, method="cross_entropy", out=run, epochs=2, network=small, progress=False)
    with command(run) as url:
        page = open_tab(url)
        comes(page, "document.getElementById('picture').naturalWidth === 20")
        first = current(page)
        press(page, "k")
        until(lambda: (run / "corrected.csv").exists() and decisions_in(run) == {first: "keep"})
        comes(page, "!source.waiting()")
        gone = current(page)
        page.close()
    for name in (first, gone):
        (tmp_path / "photos" / name).unlink()
    with command(run) as url:
        page = open_tab(url)
        assert current(page) == gone and "1 of all 24 labels are decided" in page.inner_text("#numbers")
        comes(page, "document.getElementById('picture').naturalWidth === 160")  # the drawing that says why
        press(page, "x")
        until(lambda: decisions_in(run) == {first: "keep", gone: "exclude"})
        comes(page, "document.getElementById('picture').naturalWidth === 20")
        press(page, "ArrowLeft", "ArrowLeft")
        assert current(page) == first
        press(page, "x")
        until(lambda: decisions_in(run) == {first: "exclude", gone: "exclude"})
        comes(page, "!source.waiting()")
        page.close()
    left, _ = scanmix.load(tmp_path / "photos")
    assert len(apply_corrections(left, run / "corrected.csv")) == 22


def test_what_was_decided_while_the_server_was_away_is_saved_when_it_is_back(make_review: Any, open_tab: Any) -> None:
    review = make_review()
    with served(review) as (url, port, token):
        page = open_tab(url)
        press(page, "k")
        until(lambda: review.decisions.revision == 1)
    press(page, "a", "x")
    page.wait_for_selector("#banner:visible")
    comes(page, "document.getElementById('banner').textContent.includes('2 decisions not saved yet')")
    with served(review, port, token):
        first, second, third = review.queue.order[:3].tolist()
        until(lambda: decided(review) == {first: "keep", second: accepted(review, second), third: "exclude"})
        page.wait_for_selector("#banner", state="hidden")


def test_what_a_choice_comes_to_is_said_by_the_server_alone(
    make_review: Any, open_tab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanmix.review.decisions.outcome", lambda *_: State(CHOICES.index("relabel"), 3))
    with served(make_review()) as (url, *_):
        page = open_tab(url)
        press(page, "k", "ArrowLeft")
        comes(page, "document.getElementById('now').textContent === '✎ dog'")
        comes(page, "document.getElementById('said').textContent === '✎ dog'")


def test_a_refusal_is_shown_and_the_page_shows_what_holds(
    make_review: Any, open_tab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise CannotWrite("review-log.jsonl cannot be written: No space left on device")

    review = make_review()
    with served(review) as (url, *_):
        page = open_tab(url)
        with monkeypatch.context() as patch:
            patch.setattr("scanmix.review.decisions.append_text", full)
            page.evaluate("decide('keep')")
            comes(page, "document.getElementById('banner').textContent.includes('No space left on device')")
        press(page, "ArrowLeft")
        assert page.inner_text("#now") == "undecided"
        press(page, "k")
        until(lambda: review.decisions.revision == 1)


def test_the_static_copy_opens_from_the_disk(make_review: Any, open_tab: Any, tmp_path: Path) -> None:
    review = make_review(40)
    review.decisions.decide([0], "accept")
    write_static(review, tmp_path / "share #1.html")
    page = open_tab((tmp_path / "share #1.html").as_uri())
    comes(page, "document.getElementById('picture').naturalWidth > 0")
    assert "read-only" in page.inner_text("#banner")
    page.evaluate("goTo(0)")
    assert page.inner_text("#now") == "✓ accepted"
    press(page, "x", "ArrowRight", "ArrowLeft")
    press(page, "g")
    comes(page, "document.querySelectorAll('.cell img')[3]?.naturalWidth > 0")
    page.select_option("#f-kind", "hard")
    assert page.evaluate("shown.length") == 6
    assert review.decisions.revision == 1


def test_both_themes_can_be_read(make_review: Any, browser: Any) -> None:
    """Text against what it stands on: at least 4.5 to 1, as WCAG asks."""
    measure = """() => {
        const light = (color) => {
            const parts = color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
                .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
        };
        const behind = (node) => {
            const color = getComputedStyle(node).backgroundColor;
            return /, 0\\)$/.test(color) && node.parentElement ? behind(node.parentElement) : color;
        };
        const low = [];
        for (const node of document.querySelectorAll("main *, header *")) {
            const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
            if (!own || !node.checkVisibility()) continue;
            const [one, two] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
            const ratio = (one + 0.05) / (two + 0.05);
            if (ratio < 4.5) low.push(`${node.tagName} ${node.id} "${node.textContent.trim()}" ${ratio}`);
        }
        return low;
    }"""
    with served(make_review()) as (url, *_):
        for scheme in ("light", "dark"):
            context = browser.new_context(color_scheme=scheme)
            page = context.new_page()
            page.goto(url)
            page.wait_for_selector("#losses svg")
            assert page.evaluate(measure) == []
            context.close()


def test_a_further_round_asks_what_nobody_has_decided(make_review: Any, open_tab: Any) -> None:
    review = make_review(decided=["keep", "accept"], classes=("ant", "b\x1b[31mee", "cat", "dog"))
    with served(review) as (url, *_):
        page = open_tab(url)
        press(page, *"k" * 20)  # more often than there are labels to decide
        until(lambda: len(decided(review)) == 10)
        assert not review.decisions.codes[10:].any()
        page.evaluate("goTo(11)")
        assert page.inner_text("#now") == "✓ accepted before"
        assert page.inner_text("#given") == "dog" and r"b\x1b[31mee" in page.inner_text("#f-given")
        until(lambda: "7 of 7" in page.inner_text("#numbers"))
        numbers = " ".join(page.inner_text("#numbers").split())
        assert "12 of all 12 labels are decided" in numbers and "Decided before 2 in earlier rounds" in numbers
        press(page, "g")
        until(lambda: "✓ kept before" in page.inner_text("#sheet"))
        page.check("#f-undecided")
        until(lambda: "No label fits" in page.inner_text("#place"))


def test_asked_again_decided_labels_come_first(make_review: Any, open_tab: Any) -> None:
    review = make_review(decided=["keep", "accept"], again=True)
    with served(review) as (url, *_):
        page = open_tab(url)
        assert current(page) == "made/00010" and page.inner_text("#now") == "✓ kept before"
        press(page, "k", "x")
        until(lambda: decided(review) == {10: "keep", 11: "exclude"})
        until(lambda: "1 of 2" in page.inner_text("#numbers"))
        press(page, "z")
        until(lambda: decided(review) == {10: "keep"})
        comes(page, "document.getElementById('now').textContent === '✓ accepted before'")


def test_in_random_order_the_page_says_so_and_the_estimate_follows_the_decisions(
    make_review: Any, open_tab: Any
) -> None:
    review = make_review(200, by="random")
    with served(review) as (url, *_):
        page = open_tab(url)
        assert current(page) == review.audit["id"][review.queue.order[0]]
        numbers = " ".join(page.inner_text("#numbers").split())
        assert "Decided 0 of 200 to check, in random order" in numbers and "Spot checks" not in numbers
        start = progress(review.audit, review.queue, review.decisions)
        left = f"Wrong labels left ≈ {start['expected_left']:.0f} {start['left_low']:.0f} to {start['left_high']:.0f}"
        assert left in numbers and f"About {start['more']} more decisions in random order" in numbers
        press(page, *"k" * 40)  # half of them the audit takes for wrong, and none is
        until(lambda: len(decided(review)) == 40)
        now = progress(review.audit, review.queue, review.decisions)
        assert now["expected_left"] < 0.5 * start["expected_left"] and now["more"] < start["more"]
        left = f"Wrong labels left ≈ {now['expected_left']:.0f} {now['left_low']:.0f} to {now['left_high']:.0f}"
        until(lambda: left in " ".join(page.inner_text("#numbers").split()))
        press(page, "g")
        until(lambda: "200 images, in random order." in page.inner_text("#grid-note"))


WIDTHS = {390: 844, 768: 1024, 1280: 820}
"""Width of a page in pixels -> its height: a phone, a tablet, a laptop."""


@pytest.fixture(params=[(width, scheme) for width in WIDTHS for scheme in ("light", "dark")], ids=str)
def touched(browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Page]]:
    """A page of some width and theme; the narrow ones know fingers and no keyboard."""
    width, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme, has_touch=width < 1000,
        is_mobile=width < 1000,
    )  # fmt: skip

    def open_at(url: str) -> Page:
        page = context.new_page()
        page.goto(url)
        comes(page, "typeof grid !== 'undefined' && shown.length > 0")
        page.wait_for_selector("#classes button")
        return page

    yield open_at
    context.close()


def press_button(page: Page, selector: str) -> None:
    button = page.locator(selector)
    button.tap() if page.evaluate("matchMedia('(hover: none)').matches") else button.click()


def test_every_decision_can_be_made_at_every_width(make_review: Any, touched: Callable[[str], Page]) -> None:
    review = make_review()
    with served(review) as (url, *_):
        page = touched(url)
        width, height = page.viewport_size["width"], page.viewport_size["height"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for part in (
            "#picture",
            "#given",
            "#suggested",
            "#now",
            *(f"#buttons button:nth-child({n})" for n in range(1, 8)),
        ):
            box = page.locator(part).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width, part
            assert box["y"] >= 0 and box["y"] + box["height"] <= height, f"{part} is seen without scrolling"
            assert width > 1000 or "button" not in part or box["height"] >= 44, "a finger is wide"
        order = review.queue.order.tolist()
        for number, choice in enumerate(("keep", "accept", "exclude", "unsure")):
            press_button(page, f"[data-choice={choice}]")
            until(lambda wanted=number + 1: review.decisions.revision == wanted)  # type: ignore[misc]
        wanted = ["keep", accepted(review, order[1]), "exclude", "unsure"]
        assert [decided(review)[row] for row in order[:4]] == wanted
        press_button(page, "[data-action=undo]")
        until(lambda: len(decided(review)) == 3)
        comes(page, f"document.getElementById('row-id').textContent === '{review.audit['id'][order[3]]}'")
        press_button(page, "[data-action=back]")
        assert current(page) == review.audit["id"][order[2]]
        press_button(page, "[data-action=on]")
        comes(page, f"document.getElementById('row-id').textContent === '{review.audit['id'][order[3]]}'")
        page.wait_for_selector("#classes button")
        name = page.locator("#classes .name").last.inner_text()
        press_button(page, "#classes li:last-child button")
        until(lambda: order[3] in decided(review))
        assert review.audit.class_names[review.decisions.labels[order[3]]] == name
        press_button(page, "#show-grid")
        page.wait_for_selector(".cell")
        press_button(page, ".cell:nth-child(6)")
        press_button(page, ".cell:nth-child(7)")
        press_button(page, "[data-choice=exclude]")
        until(lambda: list(decided(review).values()).count("exclude") == 3)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_no_word_is_broken_inside(make_review: Any, touched: Callable[[str], Page]) -> None:
    review = make_review()
    with served(review) as (url, *_):
        page = touched(url)
        for selector in ("#given", "#suggested", "#classes .name", "#neighbors span"):
            lines = page.evaluate(
                "(selector) => [...document.querySelectorAll(selector)].map((part) => {"
                " const range = document.createRange(); range.selectNodeContents(part);"
                " return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size; })",
                selector,
            )
            assert lines and set(lines) == {1}, selector


def test_a_screen_reader_finds_no_serious_fault(make_review: Any, touched: Callable[[str], Page]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with served(make_review()) as (url, *_):
        page = touched(url)
        assert serious(axe.run(page)) == []
        press_button(page, "#show-grid")
        page.wait_for_selector(".cell")
        assert serious(axe.run(page)) == []


def serious(results: Any) -> list[tuple[str, str]]:
    """What axe-core finds that hinders people, each with the first part of the page that has it."""
    found = [each for each in results.response["violations"] if each["impact"] in ("serious", "critical")]
    return [(each["id"], each["nodes"][0]["html"]) for each in found]

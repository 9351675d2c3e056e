"""The page in a real browser: from the file system, with the network off; and the colors of all three themes."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scanmix.report
from scanmix.report import write_report
from scanmix.report.plots import heat_map

Trained = Callable[[str], Path]
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
STYLE = Path(scanmix.report.__file__).parent / "templates" / "report.css"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


def open_page(path: Path, profile: Path) -> tuple[str, list[str]]:
    """Return the document as Chromium has it after loading, and what it wrote to the console."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--enable-logging=stderr",
            "--virtual-time-budget=2000", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_chromium
def test_it_opens_from_the_file_system_without_a_word_on_the_console(trained: Trained, tmp_path: Path) -> None:
    path = write_report(trained("scanmix"), tmp_path / "page é & #1.html", compare=trained("cross_entropy"))
    document, console = open_page(path, tmp_path / "profile")
    assert console == []
    assert "Labels to look at" in document and document.count('class="card"') == 48
    assert document.count("<svg") == path.read_text(encoding="utf-8").count("<svg")


@needs_chromium
@pytest.mark.parametrize("fault", ["<script>undefined.x</script>", '<img src="https://example.invalid/x.png">'])
def test_a_page_that_runs_or_fetches_something_would_be_found(fault: str, trained: Trained, tmp_path: Path) -> None:
    path = write_report(trained("cross_entropy"), tmp_path / "page.html")
    path.write_text(path.read_text(encoding="utf-8").replace("</main>", f"{fault}</main>"), encoding="utf-8")
    _, console = open_page(path, tmp_path / "profile")
    assert console


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'scanmix[e2e]' for the browser tests")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def compared(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run beside another."""
    folder = tmp_path_factory.mktemp("compared")
    return write_report(trained("scanmix"), folder / "page.html", compare=trained("cross_entropy"))


@needs_chromium
@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_without_a_sign_at_any_width(width: int, scheme: str, compared: Path, browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(compared.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wider = page.evaluate(
        "[...document.querySelectorAll('main *')].filter((part) => part.scrollWidth > part.clientWidth + 1"
        " && ['auto', 'scroll'].includes(getComputedStyle(part).overflowX)).map((part) =>"
        " [part.tabIndex, getComputedStyle(part).backgroundAttachment])"
    )
    assert all(seen == [0, "local, local, scroll, scroll"] for seen in wider), "it has a shadow, and takes keys"
    assert wider or width > 390, "on a phone a figure scrolls"
    found = axe.run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    context.close()


def palettes() -> dict[str, dict[str, str]]:
    """Colors by name: of the light page, and of the dark one."""
    light, dark = re.findall(r":root \{([^}]*--t0[^}]*)\}", STYLE.read_text(encoding="utf-8"))
    of = {
        name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for name, block in (("light", light), ("dark", dark))
    }
    assert of["light"].keys() == of["dark"].keys()
    return of


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, two: str) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out_in_both_themes(theme: str) -> None:
    colors = palettes()[theme]
    for ground in ("page", "card"):
        assert all(contrast(colors[text], colors[ground]) >= 4.5 for text in ("ink", "soft", "accent"))
    for name in (f"t{i}" for i in range(6)):
        assert contrast(colors[name], colors["card"]) >= 3, name  # what WCAG asks of graphics
    assert contrast(colors["ink"], colors["notice"]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_number_in_a_cell_can_be_read_at_every_shade(theme: str) -> None:
    colors = palettes()[theme]
    for share in np.linspace(0.005, 1, 200):
        written = str(heat_map("t", np.array([[share]]), ["a"], "true", "given"))
        color = colors["on-heat" if 'class="on-heat"' in written else "on-pale"]
        assert contrast(color, blended(colors["heat"], colors["card"], share**0.5)) >= 4.5, share


def blended(color: str, ground: str, opacity: float) -> str:
    pairs = [(int(color[i : i + 2], 16), int(ground[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(opacity * a + (1 - opacity) * b):02x}" for a, b in pairs)


# Machado et al. 2009, full strength: what eyes without red, green or blue cones see, in linear RGB.
MISSING = {
    "red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("cone", MISSING)
def test_two_runs_are_told_apart_without_one_kind_of_cone(theme: str, cone: str) -> None:
    colors = palettes()[theme]
    seen = []
    for name in ("t0", "t1"):
        linear = [(int(colors[name][i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
        seen.append(
            [max(sum(a * b for a, b in zip(row, linear, strict=True)), 0) ** (1 / 2.2) for row in MISSING[cone]]
        )
    assert sum((a - b) ** 2 for a, b in zip(*seen, strict=True)) ** 0.5 > 0.3


def test_each_tone_but_the_first_has_dashes_of_its_own() -> None:
    dashes = re.findall(r"\.line\.tone(\d) \{ stroke-dasharray: ([\d ]+); \}", STYLE.read_text(encoding="utf-8"))
    assert sorted(tone for tone, _ in dashes) == list("12345") and len({dash for _, dash in dashes}) == 5

"""`make pictures`: the screenshots of docs/images made anew, of a run on the embedded digits, in the system's Chromium.

`review-photos.jpg` shows photos that are not in the repository, and is not made here.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

import scanmix
from scanmix.report import write_report

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := Path("/usr/bin") / name).exists()), None)
REVIEW = (1312, 800)
"""Width and height of `review.png` in pixels."""
HALF, SCALE = (1000, 1400), 0.77
"""Width and height of each half of `report.png` in pixels of the page, and what they are scaled by."""
HALVES = {
    "light": {"header": "", "#accuracy": "", "#learning": "h2:last-of-type"},
    "dark": {"#noise": "", "#labels": "h3"},
}
"""What is shown of the report in each half: sections, and the heading in them that comes first, "" for all."""
HIDE = """shown => {
    for (const section of document.querySelectorAll("header, section")) {
        const name = Object.keys(shown).find((selector) => section.matches(selector));
        if (name === undefined) section.style.display = "none";
        let above = name && shown[name] ? section.querySelector(shown[name]).previousElementSibling : null;
        for (; above; above = above.previousElementSibling) above.style.display = "none";
    }
}"""
"""JavaScript that hides all else."""


def main() -> None:
    """Make the pictures in the folder that the command line names."""
    out = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory(prefix="scanmix-pictures-") as folder:
        os.chdir(folder)  # the report names the run by the path it was given
        make(Path("runs/first"), out)


def make(run: Path, out: Path) -> None:
    """Train on digits of which half the labels are drawn anew into a new folder `run`, and write PNG files to `out`."""
    from playwright.sync_api import sync_playwright

    train_set, test_set = scanmix.load("digits")
    noisy = scanmix.add_noise(train_set, "symmetric", rate=0.5, seed=0)
    scanmix.train(noisy, test=test_set, method="scanmix", recipe="digits/fast/scanmix", seed=0, out=run, threads=1)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        save(picture_of_report(browser, write_report(run)), out / "report.png")
        with served(run) as url:
            save(picture_of_review(browser, url), out / "review.png")
        browser.close()


def picture_of_report(browser: Any, page_file: Path) -> Image.Image:
    """Return two columns of a report side by side, the left one in light colors, the right one in dark."""
    width, height = (round(SCALE * side) for side in HALF)
    both = Image.new("RGB", (2 * width, height))
    for left, (scheme, shown) in zip((0, width), HALVES.items(), strict=True):
        size = {"width": HALF[0], "height": HALF[1]}
        page = browser.new_page(viewport=size, color_scheme=scheme)
        page.goto(page_file.absolute().as_uri())
        page.evaluate(HIDE, shown)
        both.paste(picture(page.screenshot()).resize((width, height), Image.Resampling.LANCZOS), (left, 0))
        page.close()
    return both.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)  # a quarter of the bytes


def picture_of_review(browser: Any, url: str) -> Image.Image:
    """Return the review page with its first label that is no spot check."""
    page = browser.new_page(viewport={"width": REVIEW[0], "height": REVIEW[1]})
    page.goto(url)
    page.wait_for_selector("#classes button")
    while page.inner_text("#given") == page.inner_text("#suggested"):
        page.keyboard.press("ArrowRight")
    page.wait_for_load_state("networkidle")  # all thumbnails are there
    return picture(page.screenshot())


@contextmanager
def served(run: Path) -> Iterator[str]:
    """Start `scanmix review` and give the block the address of its page."""
    line = [sys.executable, "-m", "scanmix", "review", str(run), "--no-browser", "--who", "you"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield re.findall(r"http://\S+/", process.stdout.readline())[0]
        finally:
            process.kill()


def picture(content: bytes) -> Image.Image:
    """Return the picture in the bytes of a PNG file."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG file."""
    image.save(path, optimize=True)
    print(f"pictures: {path} ({image.width} x {image.height}, {path.stat().st_size // 1000} kB)", flush=True)


if __name__ == "__main__":
    main()

"""The page in Debian's Chromium, driven by Playwright."""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

import opendelg
from opendelg.collection import Collection
from opendelg.indexing import index_photos, plan_indexing
from opendelg.recipes import make_extractor, recipe_of
from opendelg.same import SameModel
from opendelg.weights import Weights
from tests.conftest import TINY, draw_image
from tests.service_samples import serving

TOKEN = "a-token-of-at-least-16-letters"
# The same drawing gets 99 %, any other about 2 %.
SAME = SameModel(intercept=-4.0, similarity=0.0, log_inliers=3.0, spread=0.0)
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DARK = {"color_scheme": "dark"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_weights: Callable[..., Weights]) -> Path:
    """Photos `0.png` to `9.png` and their collection `c`, whose weights rate pairs."""
    made = tmp_path_factory.mktemp("page")
    for number in range(10):
        Image.fromarray(draw_image((192, 128), number).pixels).save(made / f"{number}.png")
    extractor = make_extractor(str(make_weights(TINY, SAME).path), device="cpu", threads=1)
    with Collection.create(made / "c", recipe_of(extractor)) as collection:
        index_photos(collection, extractor, plan_indexing(collection, [made]))
    return made


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(folder / "c") as url:
        yield f"{url}/"


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """Opens the page, and at the end checks that it broke no rule and asked nobody else."""
    contexts, wrongs = [], []

    def note(address: str, own: str) -> None:
        if not address.startswith((own, "blob:", "data:")):
            wrongs.append(address)

    def open_page(address: str = "", base: str = url, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("filechooser", lambda _: None)  # from now on none opens for real
        page.on("pageerror", lambda error: wrongs.append(str(error)))
        page.on("console", lambda m: "Security Policy" in m.text and wrongs.append(m.text))
        page.on("request", lambda request: note(request.url, base))
        page.goto(base + address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrongs == []


def choose(page: Page, photo: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator("#choose:visible, #new-search:visible").first.click()
    chooser.value.set_files(photo)


def search(page: Page, photo: Path) -> None:
    choose(page, photo)
    expect(title(page)).to_have_text(re.compile("confident match"))


def title(page: Page) -> Locator:
    return page.locator("#answer-title")


def drawn_share(page: Page) -> float:
    """Share of the canvas over both photos that is not empty."""
    return float(
        page.evaluate(
            """() => {
              const canvas = document.getElementById("matches");
              const drawing = canvas.getContext("2d");
              const { data } = drawing.getImageData(0, 0, canvas.width, canvas.height);
              let drawn = 0;
              for (let i = 3; i < data.length; i += 4) drawn += data[i] > 0;
              return drawn / (data.length / 4);
            }"""
        )
    )


# -- searching -----------------------------------------------------------------------------------


def test_a_photo_that_is_chosen_is_found(open_page: Callable[..., Page], folder: Path) -> None:
    page = open_page()
    search(page, folder / "3.png")
    expect(title(page)).to_have_text("1 confident match")
    expect(page.locator("#confident-tiles .name")).to_have_text("3.png")
    expect(page.locator("#rest-tiles li")).to_have_count(9)
    expect(page.locator("#query-name")).to_have_text("3.png")
    assert re.search(r"#q=[0-9a-f]{32}$", page.url)


def test_a_photo_of_something_else_has_no_confident_match(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    Image.fromarray(draw_image((192, 128), 99).pixels).save(tmp_path / "other.png")
    page = open_page()
    search(page, tmp_path / "other.png")
    expect(title(page)).to_have_text("No confident match")
    expect(page.locator("#answer-status")).to_contain_text("only the best found")
    expect(page.locator("#rest-tiles li")).to_have_count(10)


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_photo_is_dropped_or_pasted(
    open_page: Callable[..., Page], folder: Path, kind: str
) -> None:
    page = open_page()
    expect(page.locator("#limits")).not_to_be_empty()
    page.evaluate(
        """([kind, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "given.png", { type: "image/png" }));
          const event = kind === "drop"
            ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
          document.body.dispatchEvent(event);
        }""",
        [kind, list((folder / "4.png").read_bytes())],
    )
    expect(title(page)).to_have_text("1 confident match")
    expect(page.locator("#query-name")).to_have_text("given.png")


def test_a_box_that_is_drawn_searches_that_part(
    open_page: Callable[..., Page], folder: Path
) -> None:
    page = open_page()
    search(page, folder / "5.png")
    whole = page.url
    place = page.locator("#query-photo").bounding_box()
    assert place is not None
    left, top, width, height = place["x"], place["y"], place["width"], place["height"]
    page.mouse.move(left + 0.1 * width, top + 0.1 * height)
    page.mouse.down()
    page.mouse.move(left + 0.5 * width, top + 0.5 * height, steps=3)
    page.mouse.move(left + 0.9 * width, top + 0.8 * height, steps=3)
    page.mouse.up()
    expect(page).not_to_have_url(whole)
    expect(page.locator("#box")).to_have_attribute(
        "aria-label", re.compile(r"Box from (19|20), (12|13|14) to (172|173|174), (102|103) pixels")
    )
    expect(title(page)).to_have_text(re.compile("confident match"))
    expect(page.locator(".answer .name").first).to_have_text("5.png")
    page.locator("#clear-box").click()
    expect(page).to_have_url(whole)
    expect(page.locator("#box")).to_be_hidden()


def test_a_box_in_numbers_searches_that_part(open_page: Callable[..., Page], folder: Path) -> None:
    page = open_page()
    search(page, folder / "5.png")
    whole = page.url
    page.locator("#box-numbers summary").click()
    page.get_by_label("Left").fill("10")
    page.get_by_label("Right").fill("150")
    page.get_by_role("button", name="Search this box").click()
    expect(page).not_to_have_url(whole)
    expect(page.locator("#box")).to_have_attribute(
        "aria-label", "Box from 10, 0 to 150, 128 pixels"
    )


def test_a_result_is_searched_on_and_back_returns(
    open_page: Callable[..., Page], folder: Path
) -> None:
    page = open_page("#q=id3")
    expect(title(page)).to_have_text(re.compile("confident match"))
    page.locator("#rest-tiles li").first.hover()
    page.locator("#rest-tiles li .corner").first.click()
    expect(page.locator("#query-name")).not_to_have_text("2.png")
    page.go_back()
    expect(page.locator("#query-name")).to_have_text("2.png")


def test_the_threshold_regroups_and_is_part_of_the_link(
    open_page: Callable[..., Page], folder: Path
) -> None:
    page = open_page("#q=id3")
    expect(title(page)).to_have_text("No confident match")
    page.locator("#threshold-range").focus()
    page.keyboard.press("Home")
    expect(page.locator("#threshold-value")).to_have_text("1 %")
    expect(page).to_have_url(re.compile(r"#q=id3&same=1$"))
    expect(title(page)).not_to_have_text("No confident match")
    page.reload()
    expect(page.locator("#threshold-value")).to_have_text("1 %")


# -- evidence ------------------------------------------------------------------------------------


def test_evidence_shows_both_photos_and_their_matches(
    open_page: Callable[..., Page], folder: Path
) -> None:
    page = open_page()
    search(page, folder / "3.png")
    page.locator("#confident-tiles a").first.click()
    expect(page.locator("#evidence")).to_be_visible()
    expect(page.locator("#evidence-title")).to_have_text(re.compile(r"same place \(\d+\s%\)"))
    expect(page.locator("#evidence-numbers")).to_have_text(re.compile(r"\d+ of \d+ matches agree"))
    expect(page.locator("#pane-database")).to_have_attribute(
        "aria-label", re.compile(r"with \d\d+ agreeing points")
    )
    page.wait_for_timeout(400)
    assert drawn_share(page) > 0.005
    page.keyboard.press("p")
    page.keyboard.press("o")
    page.wait_for_timeout(400)
    assert drawn_share(page) == 0
    page.go_back()
    expect(page.locator("#evidence")).to_be_hidden()


def test_a_link_leads_to_the_evidence(open_page: Callable[..., Page]) -> None:
    page = open_page("#q=id3&r=5")
    expect(page.locator("#evidence")).to_be_visible()
    expect(page.locator("#evidence-name")).to_have_text("4.png")


def test_evidence_is_saved_as_a_page(open_page: Callable[..., Page], folder: Path) -> None:
    page = open_page("#q=id3&r=5")
    with page.expect_download() as pair:
        page.locator("#evidence-download").click()
    assert pair.value.path().read_text().startswith("<!DOCTYPE html>")
    page.keyboard.press("Escape")
    with page.expect_download() as whole:
        page.locator("#download-page").click()
    assert "4.png" in whole.value.path().read_text()


def test_everything_is_done_by_keys(open_page: Callable[..., Page], folder: Path) -> None:
    page = open_page()
    expect(page.locator("#begin-tiles a").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator("#skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#choose")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(folder / "3.png")
    expect(title(page)).to_have_text("1 confident match")
    page.locator("#threshold-range").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#evidence-position")).to_have_text("1 of 10")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#evidence-position")).to_have_text("2 of 10")
    page.keyboard.press("+")
    expect(page.locator("#zoom-value")).to_have_text("1.5×")
    page.keyboard.press("0")
    expect(page.locator("#zoom-value")).to_have_text("1×")
    page.keyboard.press("Escape")
    expect(page.locator("#evidence")).to_be_hidden()
    expect(page.locator("#rest-tiles a").first).to_be_focused()
    page.locator("#draw-box").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#box")).to_be_focused()
    expect(page.locator("#box")).to_have_attribute("aria-label", re.compile("from 38, 26 to 154"))
    page.keyboard.press("ArrowRight")
    expect(page.locator("#box")).to_have_attribute("aria-label", re.compile("from 42, 26"))
    page.keyboard.press("Delete")
    expect(page.locator("#box")).to_be_hidden()


# -- what goes wrong -----------------------------------------------------------------------------


def test_a_file_that_is_no_photo_is_explained(
    open_page: Callable[..., Page], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("no photo at all")
    page = open_page()
    choose(page, tmp_path / "letter.txt")
    expect(title(page)).to_have_text("This kind of file cannot be read")
    expect(page.locator("#problem")).to_contain_text("JPEG, PNG")
    expect(page.locator("#download-page")).to_be_hidden()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose another photo").click()
    chooser.value.set_files(folder / "3.png")
    expect(title(page)).to_have_text("1 confident match")
    expect(page.locator("#download-page")).to_be_visible()


def test_a_forgotten_query_says_so(open_page: Callable[..., Page]) -> None:
    page = open_page(f"#q={'0' * 32}")
    expect(page.locator("#problem")).to_contain_text("only for a while")


def test_a_service_that_is_gone_is_said_and_asked_again(
    open_page: Callable[..., Page], folder: Path
) -> None:
    page = open_page()
    expect(page.locator("#limits")).not_to_be_empty()
    page.context.set_offline(True)
    choose(page, folder / "3.png")
    expect(title(page)).to_have_text("The service cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(title(page)).to_have_text("1 confident match")


def test_names_of_photos_are_never_markup(
    open_page: Callable[..., Page], folder: Path, tmp_path: Path
) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    shutil.copy(folder / "3.png", tmp_path / name)
    page = open_page()
    search(page, tmp_path / name)
    expect(page.locator("#query-name")).to_have_text(name)
    expect(page.locator("#query-name img")).to_have_count(0)


def test_the_token_is_asked_for_and_kept_out_of_addresses(
    open_page: Callable[..., Page], folder: Path
) -> None:
    with serving(folder / "c", token=TOKEN) as guarded:
        page = open_page(base=f"{guarded}/")
        page.locator("#token-input").fill("not-the-token-of-this")
        page.keyboard.press("Enter")
        expect(page.locator("#token-wrong")).to_be_visible()
        page.locator("#token-input").fill(f"{TOKEN}\n")
        page.keyboard.press("Enter")
        expect(page.locator("#limits")).not_to_be_empty()
        search(page, folder / "3.png")
        picture = page.locator("#confident-tiles img").first
        expect(picture).to_have_attribute("src", re.compile("^blob:"))
        page.reload()
        expect(title(page)).to_have_text("1 confident match")
        assert TOKEN not in page.url
        assert page.evaluate("localStorage.length") == 0
        page.close()


# -- the collection ------------------------------------------------------------------------------


def test_all_photos_are_shown_and_searched(open_page: Callable[..., Page]) -> None:
    page = open_page("#photos")
    expect(page.locator("#photos-tiles li")).to_have_count(10)
    expect(page.locator("#add-photos")).to_be_hidden()
    page.locator("#photos-tiles a").nth(2).click()
    expect(page.locator("#query-name")).to_have_text("2.png")


def test_photos_are_added_and_removed(
    open_page: Callable[..., Page], folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "own")
    Image.fromarray(draw_image((160, 120), 50).pixels).save(tmp_path / "new.png")
    with serving(tmp_path / "own" / "c", is_writable=True) as writable:
        page = open_page("#photos", base=f"{writable}/")
        with page.expect_file_chooser() as chooser:
            page.locator("#add-photos").click()
        chooser.value.set_files(tmp_path / "new.png")
        expect(page.locator("#added-tiles .name")).to_have_text(re.compile(r"new.*\.png"))
        expect(page.locator("#photos-status")).to_contain_text("11 photos")
        page.locator("#added-tiles li").hover()
        page.locator("#added-tiles .corner").click()
        page.get_by_role("button", name="Remove it").click()
        expect(page.locator("#photos-status")).to_contain_text("10 photos")
        expect(page.locator("#added")).to_be_hidden()
        page.close()


# -- everyone ------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["", "#q=id3", "#q=id3&r=5", "#photos"])
def test_nothing_is_wider_than_a_phone(open_page: Callable[..., Page], address: str) -> None:
    page = open_page(address, **PHONE)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("options", [{}, DARK, PHONE], ids=["light", "dark", "phone"])
@pytest.mark.parametrize("address", ["", "#q=id3", "#q=id3&r=5", "#photos", "#q=none"])
def test_axe_finds_nothing_serious(
    open_page: Callable[..., Page], address: str, options: dict[str, Any]
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(address, reduced_motion="reduce", **options)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(300)
    found = Axe().run(page).response["violations"]
    serious = [
        (rule["id"], [node["html"] for node in rule["nodes"]])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_a_wheel_holds_all_that_is_not_python(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    package = Path(opendelg.__file__).parent
    files = {
        f"opendelg/{path.relative_to(package)}"
        for path in package.rglob("*.*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert "opendelg/server/page/index.html" in files
    assert files <= set(zipfile.ZipFile(wheel).namelist())

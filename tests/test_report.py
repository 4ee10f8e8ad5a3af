"""The report is one file that shows what the tables say, escapes foreign text, and fails in one line."""

from __future__ import annotations

import io
import itertools
import pkgutil
import re
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import competing_world
import numpy as np
import pandas as pd
import pytest
import report_fixture
import report_world as world
import sparsity_world
from PIL import Image

from curvelens import figures, reporting
from curvelens.errors import DataError
from curvelens.reporting import html, run, summaries
from curvelens.reporting.execute import mathml
from curvelens.tables import SCHEMAS

MATH = re.compile(r"<math\b.*?</math>", re.DOTALL)


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "link", "source", "br", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def source() -> str:
    return report_fixture.rendered().read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_made_up_tables_have_the_columns_of_real_ones() -> None:
    # Otherwise these tests would say nothing of a real report.
    for package in ("experiments", "summaries"):
        found = import_module(f"curvelens.{package}")
        for module in pkgutil.iter_modules(found.__path__, f"{found.__name__}."):
            import_module(module.name)
    import_module("curvelens.training")
    made = {
        "spectra": world.spectra(4, failed=1),
        "spectra_sweep": world.spectra_sweep(4, failed=1),
        "eigenvalues": world.eigenvalues(world.spectra(4)),
        "distances": world.distances(4, failed=1),
        "fidelity": world.fidelity(),
        "attacks": world.attacks(),
        "attacks_images": world.attacks_images(4),
        "trust_images": world.trust_images(4, failed=1),
        "explanations": world.index(4),
        "history": world.history(),
        "attacks_paired": world.attacks_paired(),
        "complexity": world.complexity(),
        "sparsity": sparsity_world.table(),
        "competing": competing_world.table(failed=1),
    }
    for name, frame in made.items():
        SCHEMAS[name].validate(frame)


def test_page_needs_nothing_from_elsewhere(page: Page, source: str) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "poster", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, name)
        if tag != "a":
            assert (attributes.get("href") or "data:").startswith("data:"), tag
    assert not page.all("script")
    assert "url(" not in source
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy  # so none may run


def test_trust_and_shared_calls_are_told_in_numbers(page: Page) -> None:
    assert "How far may you believe this saliency map?" in page.text
    assert "Median trust radius in L2 norm" in page.text
    assert "Trust radius of the stored maps" in page.text
    assert "took 384 gradient calls where 768 would have been made" in page.text


def test_a_path_is_shown_as_film_frames_and_curves_and_read(page: Page, source: str) -> None:
    assert source.index("<video") < source.index('id="figure-filmstrip') < source.index('id="figure-path-')
    read = page.text.index("Interpretation, from the numbers above")
    assert "The prediction changes abruptly: 76% of all change" in page.text[read:]


def test_every_heading_is_in_order_and_in_the_contents(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    anchors = {attributes["id"] for tag, attributes in page.elements if tag == "h2"}
    linked = {(link["href"] or "") for link in page.all("a")}
    assert {f"#{anchor}" for anchor in anchors} <= linked
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in linked if link.startswith("#")} <= set(ids)


def test_every_picture_has_an_alternative_text_and_a_caption(page: Page) -> None:
    pictures = page.all("img")
    drawn = len(figures.specs())
    assert len(page.all("picture")) == len(page.all("source")) == drawn
    assert len(pictures) == drawn
    assert len(page.all("figcaption")) == drawn + 1  # the film has one too
    assert all(len(picture["alt"] or "") > 10 for picture in pictures)
    assert page.all("video")[0]["aria-label"] == "A film of a path."
    assert all("(max-width: 639px)" in (source["media"] or "") for source in page.all("source"))


def test_first_page_says_what_was_found(page: Page) -> None:
    first = page.text.split("How curved is the network?")[-2]
    assert "The network relu classifies 96.1% of 750 test images correctly." in first
    assert "First order misleads where the network is unsure:" in first
    assert "SmoothHess + SmoothGrad (SH+SG) is the most faithful local model:" in first
    assert "Figure 1." in first


def test_questions_have_their_tables(page: Page) -> None:
    for words in (
        "How curved is the network?",
        "Where does first order mislead?",
        "Which local model is faithful at which radius?",
        "Which attacks work?",
        "How many gradient calls does a Hessian need?",
        "What failed?",
        "Mean PMSE of the class logit".replace("PMSE", "P_MSE"),
        "Torop et al. 2023, Tables 5 and 7: another network, other images",
        "Torop et al. 2023, Table 8: another network, 400 images",
        "network hidden layers activation weights train validation test relu 500-300 relu 545,810 100.0%",
        "1 min 02 s",
        "812 MiB",
        "seed: 7",
    ):
        assert words in page.text


def test_what_others_wrote_is_text(page: Page, source: str) -> None:
    # A class name, an image's id, an error, the title and a data set's source all hold a script element.
    assert "<script" not in source.lower()
    assert page.text.count(world.HOSTILE) >= 4
    assert f"RuntimeError: singular at {world.HOSTILE}" in page.text


def test_pictures_are_exact_unless_that_is_large(tmp_path: Path) -> None:
    flat = np.zeros((40, 60, 3), dtype=np.uint8)
    flat[10:20] = (31, 119, 180)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    for pixels in (flat, noise):
        path = tmp_path / "picture.png"
        Image.fromarray(pixels).save(path)
        made = html.webp(path)
        shown = np.asarray(Image.open(io.BytesIO(made)).convert("RGB"))
        assert shown.shape == pixels.shape
        assert len(made) < path.stat().st_size
        assert (shown == pixels).all() == (pixels is flat)
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"picture\.png: is no picture, or is damaged"):
        html.webp(path)


def test_code_and_prompts_are_not_shown(page: Page) -> None:
    assert "report.show" not in page.text
    assert "In [" not in page.text


def test_page_is_small() -> None:
    assert report_fixture.rendered().stat().st_size < 8 * 2**20


def test_formulas_are_mathml(source: str) -> None:
    shown = MATH.findall(source)
    assert len(shown) > 8
    assert "$" not in MATH.sub("", re.sub(r"(?s)<style>.*?</style>", "", source)).replace("<code>$", "")


def test_a_stage_that_was_not_run_says_so(tmp_path: Path) -> None:
    report = reporting.Report({"title": "t", "experiments": {"a": {"tables": {}, "figures": {}}, "b": {}}})
    assert 'class="note"' in str(report.show("attacks", missing="This run did not attack (<none>)."))
    assert "&lt;none&gt;" in str(report.show("attacks", missing="This run did not attack (<none>)."))
    assert str(report.attacks()) == str(report.fidelity()) == ""
    assert "<h1>t</h1>" in str(report.front())
    assert str(report.complexity()) == ""
    assert "no per-image table" in str(report.failures())
    assert "no film" in str(report.films(missing="no film"))
    for block in (report.networks(), report.data(), report.machine()):
        assert block._repr_html_()
    with pytest.raises(DataError, match="no 'title' in its parameters"):
        reporting.Report({"experiments": {}})


def test_several_experiments_are_named(tmp_path: Path) -> None:
    texts = {
        "name": "x",
        "caption": "c",
        "alt": "a",
        "finding": "Claim: evidence.",
        "wide": "x.svg",
        "narrow": "x.svg",
    }
    path = world.write_json(tmp_path / "spectra.json", texts)
    (tmp_path / "x.svg").write_text("<svg/>")
    both = {name: {"figures": {"spectra": str(path)}} for name in ("one", "two")}
    report = reporting.Report({"title": "t", "experiments": both})
    shown = str(report.show("spectra", missing=""))
    assert re.findall("<h3>(.*?)</h3>", shown) == ["one", "two"]
    assert re.findall(r"Figure (\d)", shown) == ["1", "2"]


def test_a_name_has_something_below_it(tmp_path: Path) -> None:
    paths = {}
    for name, radius in (("one", 2.0), ("two", np.nan)):
        paths[name] = tmp_path / f"{name}.parquet"
        world.index(3).assign(trust_radius=radius).to_parquet(paths[name])
    contents = {name: {"tables": {"explanations": str(path)}} for name, path in paths.items()}
    shown = str(reporting.Report({"title": "t", "experiments": contents}).trust())
    assert re.findall("<h3>(.*?)</h3>", shown) == ["one"]


def test_front_page_tells_of_the_first_experiment_and_names_the_claims_of_the_others(tmp_path: Path) -> None:
    def finding(name: str, text: str) -> str:
        texts = {
            "name": name,
            "caption": "c",
            "alt": "a",
            "finding": text,
            "wide": "x.svg",
            "narrow": "x.svg",
        }
        return str(world.write_json(tmp_path / f"{name}.json", texts))

    figures = {
        "distances": finding("distances", "Claim: evidence."),
        "fidelity_ratios": finding("fidelity_ratios", "Detail: more <b>."),
    }
    contents = {"title": "t", "experiments": {name: {"figures": figures} for name in ("one", "two")}}
    front = str(reporting.Report(contents).front())
    assert front.count("evidence.") == 1
    assert "<b>Claim: </b>evidence." in front
    assert "<li><b>two: </b>Claim; Detail.</li>" in front


NOTEBOOK = '# %% tags=["parameters"]\ncontents = {{}}\n\n# %%\n{code}\n'


def render(folder: Path, code: str) -> Path:
    (folder / "template").symlink_to(report_fixture.ROOT / "report" / "template")
    notebook = folder / "small.py"
    notebook.write_text(NOTEBOOK.format(code=code))
    return reporting.render(notebook, {"contents": {}}, folder / "out" / "small.html", folder / "work")


def test_a_failing_cell_gives_one_line_and_no_page(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"small\.py: cell 3 failed with KeyError: 'gone'; .*executed"
    ) as caught:
        render(tmp_path, '{}["gone"]')
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_page_that_would_load_something_is_refused(tmp_path: Path) -> None:
    code = 'from IPython.display import HTML\nHTML(\'<img src="https://example.org/pixel.png" alt="">\')'
    with pytest.raises(DataError, match=r"would load .*example\.org"):
        render(tmp_path, code)
    assert not (tmp_path / "out").exists()


def test_a_missing_notebook_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.py: no such notebook"):
        reporting.render(tmp_path / "gone.py", {}, tmp_path / "out.html", tmp_path / "work")


# Blocks.


def test_table_numbers_are_those_of_the_summary() -> None:
    summary = world.fidelity()
    tables = Page(str(html.Html(*summaries.fidelity(summary))))
    assert len(tables.all("table")) == 2
    cells = [attributes for tag, attributes in tables.elements if tag == "td"]
    assert len(cells) == 2 * 7 * 3 * 3  # scalars, methods, radii, and two laws beside the paper
    best = [cell for cell in cells if cell.get("class") == "best"]
    assert len(best) == 2 * 3 * 2
    # SH+SG at radius 1: 0.2 × 10⁻⁵ with a quarter of that as standard error; the paper's is 0.3 of ours.
    assert "2.0×10⁻⁶ ± 25% 2.0×10⁻⁶ ± 25% 6.0×10⁻⁷" in tables.text


def test_attack_table_shows_intervals_and_the_paper() -> None:
    shown = Page(str(summaries.attacks(world.attacks())))
    assert "88% 78–98% 78.8%" in shown.text  # SH+SG at 0.25: 1 − 0.5·0.25, ±0.1, times 0.9
    alone = Page(str(summaries.attacks(world.attacks().assign(paper_accuracy=float("nan")))))
    assert "Torop" not in alone.text


def test_chosen_parameters_stand_beside_the_paper_s() -> None:
    shown = Page(str(summaries.chosen(world.attacks(), "epsilon")))
    assert "σ² = 0.02 (Torop: 0.03)" in shown.text


def test_each_shape_of_the_noise_has_its_own_chosen_parameter() -> None:
    rows = world.fidelity()
    shaped = rows[rows["covariance"] == "isotropic"].assign(covariance="per_feature", parameter_value=0.05)
    shown = Page(str(summaries.chosen(pd.concat([rows, shaped]), "radius")))
    assert "SH+SG, noise per pixel" in shown.text
    assert "σ = 0.05" in shown.text
    assert "σ = 0.02" in shown.text


def test_times_add_up_by_stage(tmp_path: Path) -> None:
    paths = []
    for name, seconds in (("explain/a/0", "10.5"), ("explain/a/1", "2.5"), ("train_model/relu", "-")):
        path = tmp_path / "benchmarks" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmax_rss\n{seconds}\t100.0\n")
        paths.append(path)
    shown = Page(str(run.times(paths))).text
    assert "explain 2 13 s 10 s 100 MiB" in shown
    assert run.total_seconds(paths) == 13
    assert "unknown" in str(run.times([tmp_path / "gone.tsv"]))


def test_failures_are_counted_by_image_with_their_errors() -> None:
    images = world.attacks_images(4)
    images.loc[images["image_id"] == "digits/00002", ["status", "error"]] = ["failed", "no <b>luck</b>"]
    shown = run.failures({("mnist", "attacks_images"): images, ("mnist", "fidelity"): world.fidelity()})
    assert "mnist: attacks images 4 1 25.0%" in Page(str(shown)).text
    assert "1 image: no &lt;b&gt;luck&lt;/b&gt;" in str(shown)
    many = pd.concat([world.distances(9, failed=9)]).assign(error=[f"e{i}" for i in range(9)])
    assert "and 4 other errors" in str(run.failures({("mnist", "distances"): many}))


def test_film_plays_offline(tmp_path: Path) -> None:
    (tmp_path / "path.mp4").write_bytes(b"film")
    Image.new("RGB", (16, 9), "teal").save(tmp_path / "path.png")
    shown = Page(str(html.film(tmp_path / "path.mp4", tmp_path / "path.png", "From <a> to b.", "A film.", 9)))
    (video,) = shown.all("video")
    assert (video["src"] or "").startswith("data:video/mp4;base64,")
    assert "controls" in video
    assert (video["poster"] or "").startswith("data:image/webp;base64,")
    assert "does not play films: the frames and curves below show the same" in shown.text
    assert "Figure 9. From <a> to b." in shown.text
    with pytest.raises(DataError, match=r"path\.txt: a report shows"):
        html.data_uri(tmp_path / "path.txt")


def test_attributes_and_text_are_escaped() -> None:
    shown = str(html.element("p", '<b>"', html.element("i", "&"), title='a"b', hidden=True, lang=None))
    assert shown == '<p title="a&#34;b" hidden>&lt;b&gt;&#34;<i>&amp;</i></p>'


def test_math_is_set_and_money_is_not() -> None:
    text = mathml("costs $5 and $6, but $x^2$ and\n\n$$\\frac{a}{b}$$")
    assert text.count("<math") == 2
    assert "costs $5 and $6" in text
    assert "<msup>" in text
    assert "<mfrac>" in text

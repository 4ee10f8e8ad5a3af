"""The report as a notebook sees it: every block is one call, and a stage that was not run says so."""

from __future__ import annotations

import itertools
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens import figures
from curvelens.errors import DataError
from curvelens.figures import interpret_path, interpret_spectra
from curvelens.figures.inputs import read_table
from curvelens.figures.wording import count, duration, percent
from curvelens.reporting import (
    competing,
    context_aware,
    distances,
    evaluation,
    judging,
    run,
    sparsity,
    studies,
    summaries,
    superpixels,
    theorems,
    trust,
)
from curvelens.reporting.html import (
    Html,
    bullets,
    claim_first,
    details,
    element,
    facts,
    figure,
    film,
    heading,
    interpretation,
    note,
    table,
)
from curvelens.store import load_json
from curvelens.summaries.competing import interpret_mistakes, interpret_scenes

if TYPE_CHECKING:
    from pandas import DataFrame


# The front page tells in full what these figures found of the first experiment, and the claims of all others.
_LEADING = frozenset({"trust", "regions", "distances", "fidelity", "attacks"})
_CLAIMS = 3


GALLERY_INDEX = "gallery/index.html"


def _claim(finding: str) -> str:
    """Return a finding's claim, the words before its first colon, without a full stop."""
    return finding.partition(": ")[0].rstrip(".")


class Report:
    """One report over experiments, and over studies, which belong to none.

    Args:
        contents: What there is to show. ``title``; ``experiments``: by name, each with ``figures`` (the JSON
            files that ``figures.draw`` wrote, by figure), ``tables`` (parquet files, by table) and, where
            there are films, ``films`` (by name: ``video``, ``poster``, ``caption``, ``alt``); ``studies``: by
            name, with ``figures`` and ``tables`` in the same form; ``models`` and ``datasets`` (JSON files,
            by name); ``benchmarks`` (Snakemake's files); ``config`` (the complete configuration); ``gallery``
            (address of each image's page, by experiment and image). All but ``title`` and ``experiments`` may
            be left out.

    Raises:
        DataError: ``title`` or ``experiments`` is missing.
    """

    def __init__(self, contents: Mapping[str, Any]) -> None:
        for key in ("title", "experiments"):
            if key not in contents:
                raise DataError(
                    f"report: no {key!r} in its parameters; pass it from the rule that renders the report"
                )
        self.title = str(contents["title"])
        self.experiments: Mapping[str, Mapping[str, Any]] = contents["experiments"]
        self.studies: Mapping[str, Mapping[str, Any]] = contents.get("studies", {})
        self._subjects = {**self.experiments, **self.studies}
        self.config: Mapping[str, Any] = contents.get("config", {})
        self._models = {name: load_json(path) for name, path in contents.get("models", {}).items()}
        self._datasets = {name: load_json(path) for name, path in contents.get("datasets", {}).items()}
        self._gallery: Mapping[str, Mapping[str, str]] = contents.get("gallery", {})
        self._benchmarks = [Path(path) for path in contents.get("benchmarks", [])]
        self._numbers = itertools.count(1)
        self._read: dict[tuple[str, str], DataFrame] = {}

    def table(self, subject: str, name: str) -> DataFrame | None:
        """Return a table of an experiment or a study, None where it was not made."""
        path = self._subjects[subject].get("tables", {}).get(name)
        if path is None:
            return None
        if (subject, name) not in self._read:
            self._read[subject, name] = read_table(Path(path))
        return self._read[subject, name]

    def _texts(self, subject: str, name: str) -> Path | None:
        path = self._subjects[subject].get("figures", {}).get(name)
        return None if path is None else Path(path)

    def _titled(self, subject: str, blocks: list[Html]) -> list[Html]:
        """Name the experiment above its blocks where there are several, or the study where its kind has.

        Blocks without content are left out, and so is a name with nothing below it.
        """
        blocks = [block for block in blocks if str(block)]
        if subject in self.experiments:
            several = len(self.experiments) > 1
        else:
            several = sum(self._kind(name) == self._kind(subject) for name in self.studies) > 1
        return [heading(subject), *blocks] if several and blocks else blocks

    def _kind(self, study: str) -> str | None:
        kind: str | None = self.config.get("studies", {}).get(study, {}).get("kind")
        return kind

    def findings(self, subject: str, only: Container[str] | None = None) -> list[str]:
        """Return what each figure of an experiment or a study found, in the order of the questions.

        Args:
            subject: Name of the experiment or study.
            only: Names of the figures that are asked; None asks all.
        """
        names = [spec.name for spec in figures.specs() if only is None or spec.name in only]
        paths = (self._texts(subject, name) for name in names)
        told = (str(load_json(path)["finding"]) for path in paths if path is not None)
        return [finding for finding in told if finding]

    def front(self) -> Html:
        """Return the first page: the title, one paragraph and one figure, then a line for everything else."""
        parts: list[Html] = [element("h1", self.title)]
        lead, *others = self.experiments or [None]
        if lead is not None:
            found = map(claim_first, self.findings(lead, only=_LEADING))
            parts.append(element("p", *self._setting(lead), *found, class_="lead"))
            overview = self._texts(lead, "overview")
            if overview is not None:
                parts.append(figure(overview, next(self._numbers), lead=True))
        found_elsewhere = [(name, self.findings(name)) for name in (*others, *self.studies)]
        lines = [
            element("li", element("b", f"{name}: "), "; ".join(_claim(one) for one in told[:_CLAIMS]), ".")
            for name, told in found_elsewhere
            if told
        ]
        if lines:
            parts += [element("p", "Also found in this run:"), element("ul", *lines)]
        return Html(*parts)

    def _setting(self, experiment: str) -> list[str]:
        """Say which network on which images, where its description was passed."""
        settings = self.config.get("experiments", {}).get(experiment, {})
        model = settings.get("model")
        accuracy = self._models.get(model, {}).get("test_accuracy")
        if accuracy is None:
            return []
        dataset = self.config.get("models", {}).get(model, {}).get("dataset", "")
        n = self._datasets.get(dataset, {}).get("sizes", {}).get("test")
        return [
            f"The network {model} classifies {percent(accuracy, 1)} of {f'{n:,}' if n else 'the'} test "
            "images correctly. "
        ]

    def show(self, *names: str, missing: str) -> Html:
        """Return the figures called ``names`` of every experiment and study that has them.

        Args:
            names: Registered figures.
            missing: What to say where none has any of them.
        """
        parts: list[Html] = []
        for subject in self._subjects:
            paths = [path for name in names if (path := self._texts(subject, name)) is not None]
            parts += self._titled(subject, [figure(path, next(self._numbers)) for path in paths])
        return Html(*parts) if parts else note(missing)

    def trust(self) -> Html:
        """Return the tables of trust radii: of local models, and of the stored maps."""
        parts: list[Html] = []
        for experiment in self.experiments:
            shown: list[Html] = []
            summary, index = self.table(experiment, "trust"), self.table(experiment, "explanations")
            if summary is not None and len(summary):
                shown.append(trust.table_of(summary))
            if index is not None and "trust_radius" in index:
                shown.append(trust.of_maps(index))
            parts += self._titled(experiment, shown)
        return Html(*parts)

    def shared_calls(self) -> Html:
        """Return how many gradient calls the explanations share, and how complete attributions are."""
        parts: list[Html] = []
        for experiment in self.experiments:
            shared, index = self.table(experiment, "shared_calls"), self.table(experiment, "explanations")
            if shared is not None and index is not None and len(shared):
                blocks = [*trust.completeness(index), *trust.shared_calls(shared)]
                parts += self._titled(experiment, blocks)
        return Html(*parts)

    def context_aware(self) -> Html:
        """Return what the stored context-aware explanations were computed with."""
        parts: list[Html] = []
        for experiment in self.experiments:
            rows = self.table(experiment, "context_aware")
            if rows is not None and len(rows):
                parts += self._titled(experiment, [context_aware.table_of(rows)])
        return Html(*parts)

    def fidelity(self) -> Html:
        """Return the P_MSE tables, the parameters chosen for them, costs, and the paper's misprints."""
        parts: list[Html] = []
        printed = False
        for experiment in self.experiments:
            summary = self.table(experiment, "fidelity")
            if summary is not None and len(summary):
                shown = [
                    *summaries.fidelity(summary),
                    summaries.chosen(summary, "radius"),
                    summaries.fidelity_costs(summary),
                ]
                parts += self._titled(experiment, shown)
                printed = printed or bool(summary["paper_mean"].notna().any())
        if printed:
            parts.append(summaries.errata())
        return Html(*parts)

    def distances(self) -> Html:
        """Return how CASO's distance from CAFO goes with confidence, of all networks and of each."""
        found = {}
        for name in self.experiments:
            summary, images = self.table(name, "distances_summary"), self.table(name, "distances")
            if summary is not None and images is not None and len(summary):
                found[name] = summary, images
        if not found:
            return Html()
        parts: list[Html] = [distances.networks(found)]
        for name, (summary, _) in found.items():
            parts += self._titled(name, [distances.by_confidence(summary)])
        return Html(*parts)

    def curvature_forms(self) -> Html:
        """Return, for every experiment that compared them, what each form of the Hessian cost and gave."""
        parts = []
        for name in self.experiments:
            if (rows := self.table(name, "curvature_forms")) is not None:
                parts += self._titled(name, [distances.forms(rows)])
        return Html(*parts)

    def attacks(self) -> Html:
        """Return the table of attacks, and the parameters chosen for it."""
        parts: list[Html] = []
        for experiment in self.experiments:
            summary = self.table(experiment, "attacks")
            if summary is not None and len(summary):
                parts += self._titled(
                    experiment, [summaries.attacks(summary), summaries.chosen(summary, "epsilon")]
                )
        return Html(*parts)

    def superpixels(self) -> Html:
        """Return the table of interactions between super-pixels."""
        parts: list[Html] = []
        for experiment in self.experiments:
            found = self.table(experiment, "superpixels")
            if found is not None and len(found):
                pages = self._gallery.get(experiment, {})
                parts += self._titled(experiment, [superpixels.table_of(found, pages)])
        return Html(*parts)

    def judgement(self) -> Html:
        """Return the tables of explanation methods by measures."""
        parts: list[Html] = []
        for experiment in self.experiments:
            summary = self.table(experiment, "judgement")
            if summary is not None and len(summary):
                parts += self._titled(experiment, judging.table_of(summary))
        return Html(*parts)

    def sparsity(self) -> Html:
        """Return what was chosen by sparsity, and the steps to it."""
        parts: list[Html] = []
        for experiment in self.experiments:
            chosen, paths = (self.table(experiment, name) for name in ("sparsity_summary", "sparsity"))
            if chosen is not None and paths is not None and len(chosen):
                parts += self._titled(experiment, [sparsity.summary(chosen), sparsity.walks(paths)])
        return Html(*parts)

    def competing(self) -> Html:
        """Return how far two classes' explanations of an image agree, and what that says."""
        parts: list[Html] = []
        for experiment in self.experiments:
            found = self.table(experiment, "competing")
            if found is not None and len(found):
                told = [*interpret_mistakes(found), *interpret_scenes(found)]
                blocks = [competing.mistakes(found), competing.scenes(found), interpretation(told)]
                parts += self._titled(experiment, blocks)
        return Html(*parts)

    def complexity(self) -> Html:
        """Return the table of gradient calls that each estimator needs."""
        parts: list[Html] = []
        for study in self.studies:
            rates = self.table(study, "complexity_rates")
            if rates is not None and len(rates):
                parts += self._titled(study, studies.complexity(rates))
        return Html(*parts)

    def interactions(self) -> Html:
        """Return how near the interactions of a network come to the exact ones of its target."""
        names = ("interactions", "interactions_summary", "interactions_network")
        parts: list[Html] = []
        for study in self.studies:
            measured, summary, network = (self.table(study, name) for name in names)
            if measured is not None and summary is not None and network is not None:
                parts += self._titled(study, studies.interactions(measured, summary, network))
        return Html(*parts)

    def theorems(self) -> Html:
        """Return what was measured of definiteness, rank, concavity, and the cost of exact solutions."""
        parts: list[Html] = []
        for study in self.studies:
            facts, concavity = self.table(study, "hessian_facts"), self.table(study, "concavity")
            steps = self.table(study, "convergence")
            if facts is not None and concavity is not None and steps is not None:
                blocks = [theorems.facts(facts), theorems.concavity(concavity), theorems.steps(steps)]
                parts += self._titled(study, blocks)
        return Html(*parts)

    def spirometry(self) -> Html:
        """Return the table of how well FEV1 is predicted."""
        parts: list[Html] = []
        for study in self.studies:
            networks = self.table(study, "spirometry_networks")
            if networks is not None and len(networks):
                parts += self._titled(study, [studies.spirometry(networks)])
        return Html(*parts)

    def gallery(self) -> Html:
        """Return links to the gallery: to its index, and to the page of each image by its id."""
        parts: list[Html] = []
        for experiment, pages in self._gallery.items():
            links = [element("li", element("a", name, href=address)) for name, address in pages.items()]
            if links:
                shown = details(f"Pages of {count(len(links), 'image')}", element("ul", *links, class_="ids"))
                parts += self._titled(experiment, [shown])
        if not parts:
            return note("This run made no gallery (key report.gallery, and stage explanations).")
        text = (
            " has a page for each image, with its maps by every method and what was measured of it, and "
            "filters by class, correctness and confidence. It is the folder gallery beside this file."
        )
        return Html(element("p", element("a", "The gallery", href=GALLERY_INDEX), text), *parts)

    def spectra(self) -> Html:
        """Return what the spectra say of each experiment's networks."""
        parts: list[Html] = []
        for experiment in self.experiments:
            measured, compared = (self.table(experiment, name) for name in ("spectra", "spectra_sweep"))
            if measured is not None:
                told = interpret_spectra.interpret(measured, compared)
                parts += self._titled(experiment, [interpretation(told)])
        return Html(*parts)

    def films(self, missing: str) -> Html:
        """Return each experiment's film with frames of it, curves along the path, and what they show."""
        parts: list[Html] = []
        for experiment, contents in self.experiments.items():
            shown = [
                film(Path(one["video"]), Path(one["poster"]), one["caption"], one["alt"], next(self._numbers))
                for one in contents.get("films", {}).values()
            ]
            paths = [path for name in ("filmstrip", "path") if (path := self._texts(experiment, name))]
            shown += [figure(path, next(self._numbers)) for path in paths]
            walked = self.table(experiment, "path")
            if walked is not None:
                shown.append(interpretation(interpret_path.interpret(walked, self._class_names(experiment))))
            parts += self._titled(experiment, shown)
        return Html(*parts) if parts else note(missing)

    def _class_names(self, experiment: str) -> list[str]:
        """Return the names of an experiment's classes, where its data set's description was passed."""
        model = self.config.get("experiments", {}).get(experiment, {}).get("model")
        dataset = self.config.get("models", {}).get(model, {}).get("dataset", "")
        return list(self._datasets.get(dataset, {}).get("class_names", []))

    def networks(self) -> Html:
        """Return what each network is and how well it does."""
        rows = []
        for name, model in self._models.items():
            parameters = model.get("parameters", {})
            hidden = parameters.get("hidden")
            layers = isinstance(hidden, list) and hidden
            shape = "-".join(map(str, layers)) if layers else str(model.get("architecture", ""))
            accuracies = [model.get(f"{split}_accuracy") for split in ("train", "validation", "test")]
            rows.append(
                [name, shape, parameters.get("activation", ""), f"{model.get('weights', 0):,}"]
                + [percent(float("nan") if value is None else value, 1) for value in accuracies]
            )
        if not rows:
            return note("No description of the networks was passed to this report.")
        header = [["network", "hidden layers", "activation", "weights", "train", "validation", "test"]]
        return table(header, rows, "The networks and the share of images they classify correctly.")

    def evaluation(self) -> Html:
        """Return how well networks classify the test images, class by class, and where they err."""
        found = {
            name: rows for name in self.experiments if (rows := self.table(name, "evaluation")) is not None
        }
        parts: list[Html] = [evaluation.networks(found)] if any(map(len, found.values())) else []
        for name in found:
            confusion, predictions = self.table(name, "confusion"), self.table(name, "predictions")
            if confusion is not None and predictions is not None and len(confusion):
                shown = [evaluation.by_class(confusion), evaluation.misclassified(predictions, confusion)]
                parts += self._titled(name, shown)
        return Html(*parts)

    def data(self) -> Html:
        """Return where the images come from."""
        told = []
        for name, dataset in self._datasets.items():
            sizes = ", ".join(f"{n:,} {split}" for split, n in dataset.get("sizes", {}).items())
            told.append(
                f"{name}: {dataset.get('source', '')} ({sizes}). Licence: {dataset.get('licence', '')}."
            )
        return bullets(told) if told else note("No description of the images was passed to this report.")

    def machine(self) -> Html:
        """Return seed, time, versions and hardware."""
        seconds = run.total_seconds(self._benchmarks)
        told = [("seed", self.config.get("seed", "")), ("time of all jobs", duration(seconds))]
        return Html(
            facts([*told, *run.hardware()]),
            facts(run.versions()),
            run.times(self._benchmarks),
            run.configuration(self.config),
        )

    def failures(self) -> Html:
        """Return how many images failed, and why."""
        names = [
            (subject, name) for subject, parts in self._subjects.items() for name in parts.get("tables", {})
        ]
        found = {key: frame for key in names if (frame := self.table(*key)) is not None}
        return run.failures(found, self._datasets)

"""Helpers for every stage: the checked configuration, the code a job depends on, shards and tables."""

import os
import sys
from pathlib import Path

workflow_folder = Path(str(workflow.current_basedir)).resolve().parent
source = workflow_folder / "src"
if source.is_dir():
    # The library that came with this workflow, not another one that happens to be installed; jobs inherit it.
    sys.path.insert(0, str(source))
    os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH")])))

from curvelens import datasets, devices, methods, models, store, summaries
from curvelens import figures as figure_library
from curvelens.config import load
from curvelens.errors import ConfigError, StorageError
from curvelens.provenance import code_version, files_version
from curvelens.sections.left_out import check_left_out
from curvelens.sections.plain import check_files
from curvelens.store import sha256
from curvelens.writing import tidy

try:
    check_files(workflow.configfiles)
    check_left_out(config, workflow.configfiles, sorted((workflow_folder / "config").glob("*.yaml")))
    settings = load(config)
except ConfigError as error:
    # One line and a non-zero exit; a WorkflowError would wrap it in a traceback.
    sys.exit(f"curvelens: {error}")


# What a job that runs a network asks for: no GPU where it will run on the processor, or the profile's limit on GPUs
# would let only one such job run at a time.
gpu = devices.gpus(settings.device)


def ready(folder):
    """Put right what a killed run or a wrong clock left in a folder; end the run where it cannot be written."""
    try:
        tidied = tidy(folder)
    except StorageError as error:
        sys.exit(f"curvelens: {error}")
    if tidied.removed:
        logger.info(f"{tidied.removed} temporary files of killed jobs removed.")
    if tidied.dated:
        logger.info(f"{tidied.dated} files from the future are dated now; the clock must have been wrong.")


# The tables of each stage, first the one with rows for every image, and so with a status.
STAGES = {
    "explanations": ["explanations", "shared_calls"],
    "spectra": ["spectra", "eigenvalues", "spectra_summary", "spectra_sweep"],
    "distances": ["distances", "distances_summary"],
    "fidelity": ["fidelity_images", "fidelity"],
    "attacks": ["attacks_images", "attacks", "attacks_paired"],
    "trust": ["trust_images", "trust"],
    "superpixels": ["superpixels"],
    "sparsity": ["sparsity", "sparsity_summary"],
    "competing": ["competing"],
    "evaluation": ["predictions", "evaluation", "confusion", "reliability"],
    "judging": ["judgement_images", "judgement", "judgement_curves"],
}


wildcard_constraints:
    dataset="|".join(settings.datasets),
    model="|".join(settings.models),
    experiment="|".join(settings.experiments),
    # What figures are drawn of: an experiment or a study.
    subject="|".join([*settings.experiments, *settings.studies]),
    method="[a-z0-9_]+",
    split="validation|test",
    covariance="per_feature|full",
    shard=r"\d+",
    figure="[a-z0-9_]+",
    source="|".join(datasets.REGISTRY.names()),


def studies_of(kind):
    """A regular expression of the studies of a kind; one that matches nothing where there are none."""
    return "|".join(name for name, study in settings.studies.items() if study.kind == kind) or "(?!)"


def study(wildcards):
    """A study's settings: its jobs rerun when they change."""
    return settings.studies[wildcards.study].model_dump(mode="json", exclude={"kind"})


def study_keys(*keys):
    """Some of a study's settings, as a function of wildcards: a job reruns when one of these changes."""
    return lambda wildcards: {key: study(wildcards)[key] for key in keys}


def own(path):
    """A file of the user's: it lies where Snakemake runs, not where results are stored, and its job runs here."""
    return local(str(path))


def recorded_curves(wildcards):
    """The file or the files of a folder of recorded exhalations that a study names."""
    path = settings.studies[wildcards.study].data_dir
    if path is None:
        return []
    return [own(file) for file in (sorted(Path(path).iterdir()) if Path(path).is_dir() else [path])]


def contents(files):
    """Checksums of files of the user's: another file under the same name counts, however old it is dated."""
    return [store.sha256(file) for file in files if Path(file).is_file()]


def downloads(dataset):
    """The files that a data set of the config downloads, by name; some depend on its parameters."""
    chosen = settings.datasets[dataset]
    entry = datasets.REGISTRY.get(chosen.source)
    files = entry.traits.get("downloads", ())
    files = files(entry.parse(chosen.parameters)) if callable(files) else files
    return {} if chosen.data_dir else {file.name: file for file in files}


def published(wildcards):
    """Where a raw file can be had, and its checksum."""
    return next(
        found[wildcards.file]
        for name, chosen in settings.datasets.items()
        if chosen.source == wildcards.source and wildcards.file in (found := downloads(name))
    )


def raw_files(wildcards):
    """The raw files of a data set that have to be downloaded."""
    source = settings.datasets[wildcards.dataset].source
    return expand("results/data/raw/{source}/{file}", source=source, file=downloads(wildcards.dataset))


def experiments_with(stage):
    """Names of the experiments that run `stage`."""
    return [
        name for name, experiment in settings.experiments.items() if getattr(experiment, stage) is not None
    ]


def section(stage, *without):
    """The stage's settings, as a function of wildcards: a job reruns when its own stage's settings change."""
    return lambda wildcards: getattr(settings.experiments[wildcards.experiment], stage).model_dump(
        mode="json", exclude={"shards", *without}
    )


def section_of_split(stage, validation=(), test=()):
    """The stage's settings without its numbers of images and what concerns the other split alone."""
    own = {"validation": list(validation), "test": list(test)}

    def chosen(wildcards):
        other = own["test" if wildcards.split == "validation" else "validation"]
        left_out = {"images", "validation_images", *other}
        return {key: value for key, value in section(stage)(wildcards).items() if key not in left_out}

    return chosen


def images_of_split(stage):
    """How many images of a split a stage looks at, as a function of wildcards."""
    return lambda wildcards: getattr(
        getattr(settings.experiments[wildcards.experiment], stage),
        "images" if wildcards.split == "test" else "validation_images",
    )


def explained_methods(experiment):
    """The methods of an experiment; in this order, so that jobs do not depend on that in the file."""
    return sorted(settings.experiments[experiment].explanations.methods)


def explanation_settings(experiment):
    """The settings of an experiment's explanations, its methods in that order."""
    chosen = settings.experiments[experiment].explanations.model_dump(mode="json", exclude={"shards"})
    return chosen | {"methods": {name: chosen["methods"][name] for name in explained_methods(experiment)}}


def explanation_files(experiment, suffix):
    """The stored explanations of an experiment, or their index: every shard of every method."""
    return expand(
        "results/explanations/{experiment}/{method}/{shard}.{suffix}",
        experiment=experiment,
        method=explained_methods(experiment),
        shard=range(settings.experiments[experiment].explanations.shards),
        suffix=suffix,
    )


def shards(stage):
    """All shard numbers of a stage, as a function of wildcards."""
    return lambda wildcards: [
        str(i) for i in range(getattr(settings.experiments[wildcards.experiment], stage).shards)
    ]


def shard_count(stage):
    """How many shards a stage has, as a function of wildcards."""
    return lambda wildcards: getattr(settings.experiments[wildcards.experiment], stage).shards


def growing(first):
    """A resource of which each further attempt gets more: what killed a job is often too little of it."""
    return lambda wildcards, attempt: first * attempt


def program(script, *modules):
    """Version of what a job runs: its script, what that imports, and modules that it finds by name.

    An edit reruns what depends on it and nothing else. The date of a file says nothing: all are new in a new checkout.
    Rules call it in a function of wildcards: sources are then read for the jobs at hand alone, not for every rule
    each time that Snakemake starts, as it does twice for each job of a cluster.
    """
    return code_version(
        *(f"curvelens.{module}" for module in modules),
        script=workflow.source_path(f"../scripts/{script}.py"),
    )


def sources(*paths):
    """Files of this workflow that a job reads, as a function whose result Snakemake does not record.

    They are no inputs, of which it compares paths and dates: in another checkout both are new. `text_version` is
    recorded instead.
    """
    found = [workflow.source_path(path) for path in paths]
    return lambda wildcards, output: found


def text_version(*paths):
    """Checksums of files of this workflow: a job reruns when one of them says something else."""
    return [sha256(workflow.source_path(path)) for path in paths]


def given_weights(wildcards):
    """The file with a network's trained weights, the user's or a download; nothing where they come otherwise."""
    model = settings.models[wildcards.model]
    if model.weights:
        return own(model.weights)
    if model.weights_urls:
        return f"results/weights/{wildcards.model}/{model.weights_urls[0].rpartition('/')[2]}"
    return []


def imported_models():
    """The networks of the config whose weights come from a file, or with their architecture."""
    return [
        name
        for name, model in settings.models.items()
        if model.weights
        or model.weights_urls
        or not models.needs_training(model.architecture, model.parameters)
    ]


def trained_models():
    """The networks of the config that the workflow trains itself."""
    return [name for name in settings.models if name not in imported_models()]


def one_of(names):
    """A regular expression of some names; of none, one that nothing matches."""
    return "|".join(names) or "(?!)"


def split_of(split):
    """The images of a split of a network's data set, as an input function."""
    return lambda wildcards: f"results/data/{settings.models[wildcards.model].dataset}/{split}.npz"


def dataset_info(wildcards):
    """Description of a network's data set."""
    return f"results/data/{settings.models[wildcards.model].dataset}/dataset.json"


def loader(dataset):
    """Module, below curvelens, that reads a data set of the config."""
    return registered(datasets.REGISTRY, settings.datasets[dataset].source)


def given_files(dataset):
    """Version of the files in a data set's `data_dir`; None where published checksums decide what is in them."""
    chosen = settings.datasets[dataset]
    published = isinstance(datasets.REGISTRY.get(chosen.source).traits.get("downloads"), tuple)
    return None if published or chosen.data_dir is None else files_version(chosen.data_dir)


def model_code(model):
    """Module that builds the architecture of a model of the config."""
    return registered(models.REGISTRY, settings.models[model].architecture)


def own_code(wildcards):
    """Version of the user's own code that makes a network; nothing where none does."""
    model = settings.models[wildcards.model]
    version = models.REGISTRY.get(model.architecture).traits.get("own_code")
    return version(model.parameters) if version else None


def registered(registry, name):
    """Module, below curvelens, of a registered entry."""
    return registry.get(name).function.__module__.removeprefix("curvelens.")


def model_of(wildcards):
    """Name of the network that an experiment explains."""
    return settings.experiments[wildcards.experiment].model


def network(wildcards):
    """The stored network that an experiment explains."""
    return expand(
        "results/models/{model}/{file}",
        model=model_of(wildcards),
        file=["model.json", "weights.safetensors"],
    )


def images(split):
    """The images of a split (a name, or None for the wildcard) of an experiment's data set, as an input function."""
    return lambda wildcards: "results/data/{dataset}/{split}.npz".format(
        dataset=settings.models[model_of(wildcards)].dataset,
        split=split or wildcards.split,
    )


def described_set(wildcards, key=None):
    """Test images and description of an experiment's data set, or of the one that `competing` names instead."""
    chosen = getattr(settings.experiments[wildcards.experiment].competing, key) if key else None
    name = chosen or settings.models[model_of(wildcards)].dataset
    return f"results/data/{name}/test.npz", f"results/data/{name}/dataset.json"


def dataset_source(wildcards):
    """Registered name of the data set that an experiment uses: the papers' numbers belong to some of them."""
    return settings.datasets[settings.models[model_of(wildcards)].dataset].source


def architecture(wildcards):
    """Name of the network that an experiment explains, within its family where the architecture is one."""
    model = settings.models[model_of(wildcards)]
    return str(model.parameters.get("model", model.architecture))


def inner_neuron(wildcards):
    """Where the inner neuron of an experiment is named, if it is measured."""
    measured = "inner_neuron" in settings.experiments[wildcards.experiment].fidelity.scalars
    return f"results/fidelity/{wildcards.experiment}/neuron.json" if measured else []


def noise_shapes(wildcards):
    """The shapes of smoothing noise, other than isotropic, that an experiment compares."""
    return expand(
        "results/data/{dataset}/covariance/{covariance}.npz",
        dataset=settings.models[model_of(wildcards)].dataset,
        covariance=[
            kind
            for kind in settings.experiments[wildcards.experiment].fidelity.covariance
            if kind != "isotropic"
        ],
    )


def shard_files(pattern, stage, **fixed):
    """All shards of a stage for the experiment at hand, as an input function."""
    return lambda wildcards: expand(
        pattern,
        experiment=wildcards.experiment,
        shard=shards(stage)(wildcards),
        **fixed,
    )


def tables(stage, *names):
    """The final table of a stage, or others of it by name, for every experiment that runs it."""
    return expand(
        "results/tables/{experiment}/{name}.parquet",
        experiment=experiments_with(stage),
        name=names or [stage],
    )


def spectra_models(wildcards):
    """The networks whose spectra an experiment compares: the one it explains, and its smooth twin if it has one."""
    experiment = settings.experiments[wildcards.experiment]
    return [name for name in (experiment.model, experiment.smooth_model) if name]


def all_tables():
    """The per-image tables of every stage of every experiment, and of every study."""
    of_experiments = [
        f"results/tables/{experiment}/{names[0]}.parquet"
        for stage, names in STAGES.items()
        for experiment in experiments_with(stage)
    ] + tables("spectra", "spectra_sweep")
    of_studies = [
        f"results/tables/{name}/{table}.parquet"
        for name, study in settings.studies.items()
        for table in study.counted
    ]
    return of_experiments + of_studies

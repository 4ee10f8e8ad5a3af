"""What an experiment or a study leaves behind, and which of it figures and the report are made from."""


def artifacts(subject):
    """What figures and the report can draw on, by the names that figures ask for."""
    if subject in settings.studies:
        return study_artifacts(subject)
    return experiment_artifacts(subject)


def study_artifacts(study):
    """The tables of a study, by name."""
    return {name: f"results/tables/{study}/{name}.parquet" for name in settings.studies[study].tables}


def experiment_artifacts(experiment):
    """The networks, images, tables and maps of an experiment, by name."""
    chosen = settings.experiments[experiment]
    networks = [name for name in (chosen.model, chosen.smooth_model) if name]
    found = {
        "models": expand("results/models/{model}/model.json", model=networks),
        "images": "results/data/{}/test.npz".format(settings.models[chosen.model].dataset),
    }
    trained = [name for name in networks if name in trained_models()]
    if trained:
        found["history"] = expand("results/models/{model}/history.parquet", model=trained)
    for stage, names in STAGES.items():
        if getattr(chosen, stage) is not None:
            found |= {name: f"results/tables/{experiment}/{name}.parquet" for name in names}
    if chosen.distances is not None and chosen.distances.compared_images:
        found["curvature_forms"] = f"results/tables/{experiment}/curvature_forms.parquet"
    if chosen.distances is not None and chosen.distances.examples:
        found["distance_examples"] = f"results/distances/{experiment}/examples.npz"
    if chosen.spectra is not None and chosen.smooth_model:
        found["eigenvectors"] = expand(
            "results/spectra/{experiment}/{model}/{shard}.npz",
            experiment=experiment,
            model=chosen.smooth_model,
            shard=range(chosen.spectra.shards),
        )
    if chosen.path is not None:
        found["path"] = f"results/tables/{experiment}/path.parquet"
        found["film"] = f"results/films/{experiment}/path.npz"
    if chosen.superpixels is not None:
        found["superpixel_maps"] = expand(
            "results/superpixels/{experiment}/{shard}.npz",
            experiment=experiment,
            shard=range(chosen.superpixels.shards),
        )
    if chosen.sparsity is not None:
        found["sparsity_maps"] = expand(
            "results/sparsity/{experiment}/{shard}.npz",
            experiment=experiment,
            shard=range(chosen.sparsity.shards),
        )
    if chosen.judging is not None and chosen.judging.grids is not None:
        found["grid_maps"] = expand(
            "results/judging/{experiment}/{shard}.npz",
            experiment=experiment,
            shard=range(chosen.judging.shards),
        )
    if chosen.competing is not None:
        found["competing_maps"] = f"results/competing/{experiment}/maps.npz"
    if chosen.explanations is not None:
        found["maps"] = explanation_files(experiment, "npz")
        if any(
            methods.REGISTRY.get(name).traits.get("context_aware") for name in explained_methods(experiment)
        ):
            for name in ("context_aware", "map_agreement"):
                found[name] = f"results/tables/{experiment}/{name}.parquet"
    return found


def drawable(subject):
    """The figures for which an experiment or a study has everything."""
    have = set(artifacts(subject))
    return [
        spec
        for spec in figure_library.specs()
        if have.issuperset(spec.tables) and have & {*spec.tables, *spec.optional}
    ]


def figures_with_suffix(suffix):
    """A regular expression of the figures that are stored in a format."""
    return "|".join(spec.name for spec in figure_library.specs() if spec.suffix == suffix)


def figure_files(subject):
    """Every file of every figure of an experiment or a study."""
    folder = Path("results/figures") / subject
    return [
        str(file)
        for spec in drawable(subject)
        for file in figure_library.outputs(folder / (spec.name + spec.suffix))
    ]


def all_figures():
    """Every file of every figure of every experiment and study."""
    return [file for subject in (*settings.experiments, *settings.studies) for file in figure_files(subject)]


def figure_inputs(wildcards):
    """What one figure is drawn from, by name."""
    spec = figure_library.get(wildcards.figure)
    found = artifacts(wildcards.subject)
    return {name: found[name] for name in (*spec.tables, *spec.optional) if name in found}


def film_files(experiment):
    """The film of the path between two classes, with its poster and its texts."""
    if settings.experiments[experiment].path is None:
        return []
    return [f"results/films/{experiment}/path{suffix}" for suffix in (".mp4", ".png", ".json")]


def reported():
    """The experiments that the report shows."""
    return settings.report.experiments or list(settings.experiments)


def reported_artifacts(kind):
    """The files of one kind that the report reads."""
    files = {
        "figures": figure_files,
        "films": film_files,
        "tables": table_files,
        "models": model_files,
        "datasets": dataset_files,
    }[kind]
    # Of studies there are tables and figures alone.
    subjects = [*reported(), *settings.studies] if kind in ("figures", "tables") else reported()
    return list(dict.fromkeys(file for subject in subjects for file in files(subject)))


def galleried():
    """The experiments whose images have pages in the gallery: those that keep maps."""
    chosen = reported() if settings.report.gallery else []
    return [name for name in chosen if {"maps", "competing_maps"} & set(artifacts(name))]


def gallery_inputs(wildcards):
    """What the pages of each experiment are made from: the names are its own and the kind of files."""
    kinds = {"maps": "maps", "competing": "competing_maps", "images": "images", "models": "models"}
    found = {f"{experiment}__tables": table_files(experiment) for experiment in galleried()}
    for experiment in galleried():
        have = artifacts(experiment)
        found |= {f"{experiment}__{kind}": have[name] for kind, name in kinds.items() if name in have}
    return found


def table_files(subject):
    """Every table of an experiment or a study."""
    return [file for file in artifacts(subject).values() if str(file).endswith(".parquet")]


def all_study_tables():
    """Every table of every study."""
    return [file for name in settings.studies for file in table_files(name)]


def model_files(experiment):
    """Descriptions of an experiment's networks."""
    return artifacts(experiment)["models"]


def dataset_files(experiment):
    """Description of an experiment's data set."""
    return [artifacts(experiment)["images"].replace("test.npz", "dataset.json")]


def manifest_files():
    """Every file that the manifest describes: data sets, networks, and what experiments and studies left behind."""
    found = expand(
        "results/data/{dataset}/{file}",
        dataset=settings.datasets,
        file=["train.npz", "validation.npz", "test.npz"],
    )
    found += expand(
        "results/models/{model}/{file}",
        model=settings.models,
        file=["weights.safetensors", "model.json"],
    )
    for subject in (*settings.experiments, *settings.studies):
        for files in artifacts(subject).values():
            found += [files] if isinstance(files, str) else files
    for stage in ("fidelity", "attacks"):
        found += expand(
            "results/{stage}/{experiment}/choices.parquet", stage=stage, experiment=experiments_with(stage)
        )
    films = [file for experiment in settings.experiments for file in film_files(experiment)]
    return list(dict.fromkeys([*found, *all_figures(), *films]))


def explained_datasets():
    """Descriptions of the data sets of all experiments."""
    return sorted({file for name in settings.experiments for file in dataset_files(name)})

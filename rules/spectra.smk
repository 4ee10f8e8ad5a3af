rule compute_spectra:
    input:
        # All compared networks: the images are those that every one of them classifies correctly.
        networks=lambda wildcards: expand(
            "results/models/{model}/{file}",
            model=spectra_models(wildcards),
            file=["model.json", "weights.safetensors"],
        ),
        images=images("test"),
    output:
        spectra="results/spectra/{experiment}/{model}/{shard}.parquet",
        eigenvalues="results/spectra/{experiment}/{model}/{shard}.eigenvalues.parquet",
        eigenvectors="results/spectra/{experiment}/{model}/{shard}.npz",
    log:
        "results/logs/compute_spectra/{experiment}/{model}/{shard}.log",
    benchmark:
        "results/benchmarks/compute_spectra/{experiment}/{model}/{shard}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        settings=section("spectra", "compared_images", "betas", "classes"),
        activation=lambda wildcards: settings.models[wildcards.model].parameters.get("activation"),
        shards=shard_count("spectra"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("compute_spectra", model_code(wildcards.model)),
    message:
        "Compute Hessian spectra of {wildcards.model}, shard {wildcards.shard}"
    script:
        "../scripts/compute_spectra.py"


rule sweep_spectra:
    input:
        networks=lambda wildcards: expand(
            "results/models/{model}/{file}",
            model=spectra_models(wildcards),
            file=["model.json", "weights.safetensors"],
        ),
        images=images("test"),
    output:
        table="results/tables/{experiment}/spectra_sweep.parquet",
        csv="results/tables/{experiment}/spectra_sweep.csv",
    log:
        "results/logs/sweep_spectra/{experiment}.log",
    benchmark:
        "results/benchmarks/sweep_spectra/{experiment}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        settings=section("spectra", "images"),
        models=spectra_models,
        device=settings.device,
        code=lambda wildcards: program("sweep_spectra", *map(model_code, spectra_models(wildcards))),
    message:
        "Compare Hessians of {wildcards.experiment} from smooth to nearly ReLU, and of several classes"
    script:
        "../scripts/sweep_spectra.py"


rule gather_spectra:
    input:
        spectra=lambda wildcards: shard_files(
            "results/spectra/{experiment}/{model}/{shard}.parquet",
            "spectra",
            model=spectra_models(wildcards),
        )(wildcards),
        eigenvalues=lambda wildcards: shard_files(
            "results/spectra/{experiment}/{model}/{shard}.eigenvalues.parquet",
            "spectra",
            model=spectra_models(wildcards),
        )(wildcards),
    output:
        table="results/tables/{experiment}/spectra.parquet",
        csv="results/tables/{experiment}/spectra.csv",
        eigenvalues="results/tables/{experiment}/eigenvalues.parquet",
        summary="results/tables/{experiment}/spectra_summary.parquet",
        summary_csv="results/tables/{experiment}/spectra_summary.csv",
    log:
        "results/logs/gather_spectra/{experiment}.log",
    benchmark:
        "results/benchmarks/gather_spectra/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("gather_spectra"),
    message:
        "Gather the Hessian spectra of {wildcards.experiment}"
    script:
        "../scripts/gather_spectra.py"

rule download_file:
    output:
        ensure("results/data/raw/{source}/{file}", sha256=lambda wildcards: published(wildcards).sha256),
    log:
        "results/logs/download_file/{source}/{file}.log",
    benchmark:
        "results/benchmarks/download_file/{source}/{file}.tsv"
    retries: 2
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        urls=lambda wildcards: published(wildcards).urls,
        sha256=lambda wildcards: published(wildcards).sha256,
        most=lambda wildcards: published(wildcards).most,
    message:
        "Download {wildcards.file} of {wildcards.source}"
    script:
        "../scripts/download_file.py"


rule prepare_dataset:
    input:
        # Nothing where the data ship inside a package or lie in a folder of the user's (data_dir).
        raw=raw_files,
    output:
        train="results/data/{dataset}/train.npz",
        validation="results/data/{dataset}/validation.npz",
        test="results/data/{dataset}/test.npz",
        info="results/data/{dataset}/dataset.json",
    log:
        "results/logs/prepare_dataset/{dataset}.log",
    benchmark:
        "results/benchmarks/prepare_dataset/{dataset}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=lambda wildcards: settings.datasets[wildcards.dataset].model_dump(mode="json"),
        given=lambda wildcards: given_files(wildcards.dataset),
        seed=settings.seed,
        code=lambda wildcards: program("prepare_dataset", loader(wildcards.dataset)),
    message:
        "Prepare data set {wildcards.dataset}"
    script:
        "../scripts/prepare_dataset.py"

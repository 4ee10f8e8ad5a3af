rule prepare_dataset:
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
        mem_mb=4000,
        runtime=60,
    params:
        settings=lambda wildcards: settings.datasets[wildcards.dataset].model_dump(mode="json"),
        seed=settings.seed,
        cache="results/data/raw",
        code=lambda wildcards: library(
            "datasets",
            registered(datasets.REGISTRY, settings.datasets[wildcards.dataset].source),
        ),
    message:
        "Prepare data set {wildcards.dataset}"
    script:
        "../scripts/prepare_dataset.py"

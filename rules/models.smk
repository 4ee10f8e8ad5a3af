rule train_model:
    input:
        train=split_of("train"),
        validation=split_of("validation"),
        info=dataset_info,
    output:
        weights="results/models/{model}/weights.safetensors",
        history="results/models/{model}/history.parquet",
    log:
        "results/logs/train_model/{model}.log",
    benchmark:
        "results/benchmarks/train_model/{model}.tsv"
    wildcard_constraints:
        model=one_of(trained_models()),
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=gpu,
    params:
        settings=lambda wildcards: settings.models[wildcards.model].model_dump(mode="json"),
        seed=settings.seed,
        device=settings.device,
        # Not an output: Snakemake deletes the outputs of an interrupted job, and training resumes from this file.
        checkpoint=subpath(output.weights, strip_suffix="weights.safetensors", with_suffix="checkpoint.pt"),
        code=lambda wildcards: program("train_model", model_code(wildcards.model)),
        own_code=own_code,
    message:
        "Train {wildcards.model}"
    script:
        "../scripts/train_model.py"


rule download_weights:
    output:
        "results/weights/{model}/{file}",
    log:
        "results/logs/download_weights/{model}/{file}.log",
    benchmark:
        "results/benchmarks/download_weights/{model}/{file}.tsv"
    wildcard_constraints:
        file="[^/]+",
    retries: 2
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        urls=lambda wildcards: settings.models[wildcards.model].weights_urls,
        sha256=lambda wildcards: settings.models[wildcards.model].weights_sha256,
    message:
        "Download the weights of {wildcards.model}"
    script:
        "../scripts/download_weights.py"


rule import_model:
    input:
        # Nothing where the weights come with the architecture.
        weights=given_weights,
        info=dataset_info,
    output:
        weights="results/models/{model}/weights.safetensors",
    log:
        "results/logs/import_model/{model}.log",
    benchmark:
        "results/benchmarks/import_model/{model}.tsv"
    wildcard_constraints:
        model=one_of(imported_models()),
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        settings=lambda wildcards: settings.models[wildcards.model].model_dump(mode="json"),
        own_weights=lambda wildcards: contents(filter(None, [settings.models[wildcards.model].weights])),
        code=lambda wildcards: program("import_model", model_code(wildcards.model)),
        own_code=own_code,
    message:
        "Import the weights of {wildcards.model}"
    script:
        "../scripts/import_model.py"


rule evaluate_model:
    input:
        weights="results/models/{model}/weights.safetensors",
        train=split_of("train"),
        validation=split_of("validation"),
        test=split_of("test"),
        info=dataset_info,
    output:
        "results/models/{model}/model.json",
    log:
        "results/logs/evaluate_model/{model}.log",
    benchmark:
        "results/benchmarks/evaluate_model/{model}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        settings=lambda wildcards: settings.models[wildcards.model].model_dump(mode="json"),
        trained=lambda wildcards: wildcards.model in trained_models(),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("evaluate_model", model_code(wildcards.model)),
        own_code=own_code,
    message:
        "Evaluate {wildcards.model}"
    script:
        "../scripts/evaluate_model.py"

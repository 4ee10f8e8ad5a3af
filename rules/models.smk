rule train_model:
    input:
        train=lambda wildcards: f"results/data/{settings.models[wildcards.model].dataset}/train.npz",
        validation=lambda wildcards: f"results/data/{settings.models[wildcards.model].dataset}/validation.npz",
        test=lambda wildcards: f"results/data/{settings.models[wildcards.model].dataset}/test.npz",
        info=lambda wildcards: f"results/data/{settings.models[wildcards.model].dataset}/dataset.json",
    output:
        weights="results/models/{model}/weights.safetensors",
        info="results/models/{model}/model.json",
        history="results/models/{model}/history.parquet",
    log:
        "results/logs/train_model/{model}.log",
    benchmark:
        "results/benchmarks/train_model/{model}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        settings=lambda wildcards: settings.models[wildcards.model].model_dump(mode="json"),
        seed=settings.seed,
        device=settings.device,
        # Not an output: Snakemake deletes the outputs of an interrupted job, and training resumes from this file.
        checkpoint="results/checkpoints/{model}.pt",
        code=lambda wildcards: library("training", "models", model_code(wildcards.model)),
    message:
        "Train {wildcards.model}"
    script:
        "../scripts/train_model.py"

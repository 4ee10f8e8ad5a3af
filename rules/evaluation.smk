rule predict_images:
    input:
        network=network,
        images=images("test"),
        info=lambda wildcards: dataset_files(wildcards.experiment)[0],
    output:
        table="results/tables/{experiment}/predictions.parquet",
        csv="results/tables/{experiment}/predictions.csv",
    log:
        "results/logs/predict_images/{experiment}.log",
    benchmark:
        "results/benchmarks/predict_images/{experiment}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        images=lambda wildcards: settings.experiments[wildcards.experiment].evaluation.images,
        device=settings.device,
        code=lambda wildcards: program("predict_images", model_code(model_of(wildcards))),
    message:
        "Classify the test images of {wildcards.experiment}"
    script:
        "../scripts/predict_images.py"


rule summarise_predictions:
    input:
        table="results/tables/{experiment}/predictions.parquet",
        info=lambda wildcards: dataset_files(wildcards.experiment)[0],
    output:
        summary="results/tables/{experiment}/evaluation.parquet",
        summary_csv="results/tables/{experiment}/evaluation.csv",
        confusion="results/tables/{experiment}/confusion.parquet",
        confusion_csv="results/tables/{experiment}/confusion.csv",
        reliability="results/tables/{experiment}/reliability.parquet",
        reliability_csv="results/tables/{experiment}/reliability.csv",
    log:
        "results/logs/summarise_predictions/{experiment}.log",
    benchmark:
        "results/benchmarks/summarise_predictions/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        bins=lambda wildcards: settings.experiments[wildcards.experiment].evaluation.bins,
        seed=settings.seed,
        code=lambda wildcards: program("summarise_predictions"),
    message:
        "Measure accuracy and calibration of the network of {wildcards.experiment}"
    script:
        "../scripts/summarise_predictions.py"

rule measure_trust:
    input:
        network=network,
        images=images(None),
    output:
        "results/trust/{experiment}/{split}/{shard}.parquet",
    log:
        "results/logs/measure_trust/{experiment}/{split}/{shard}.log",
    benchmark:
        "results/benchmarks/measure_trust/{experiment}/{split}/{shard}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=gpu,
    params:
        settings=section_of_split("trust"),
        images=images_of_split("trust"),
        shards=shard_count("trust"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("measure_trust", model_code(model_of(wildcards))),
    message:
        "Measure how far to believe local models of {wildcards.experiment} on {wildcards.split} images, shard {wildcards.shard}"
    script:
        "../scripts/measure_trust.py"


rule gather_trust:
    input:
        # Parameters are chosen on validation images, results reported on test images.
        shards=shard_files(
            "results/trust/{experiment}/{split}/{shard}.parquet",
            "trust",
            split=["validation", "test"],
        ),
    output:
        summary="results/tables/{experiment}/trust.parquet",
        summary_csv="results/tables/{experiment}/trust.csv",
        images="results/tables/{experiment}/trust_images.parquet",
        images_csv="results/tables/{experiment}/trust_images.csv",
    log:
        "results/logs/gather_trust/{experiment}.log",
    benchmark:
        "results/benchmarks/gather_trust/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("gather_trust"),
    message:
        "Gather the trust radii of {wildcards.experiment}"
    script:
        "../scripts/gather_trust.py"

rule measure_attacks:
    input:
        network=network,
        images=images(None),
        # Parameters are chosen on validation images; test images are only reported on.
        choices=lambda wildcards: (
            f"results/attacks/{wildcards.experiment}/choices.parquet" if wildcards.split == "test" else []
        ),
    output:
        "results/attacks/{experiment}/{split}/{shard}.parquet",
    log:
        "results/logs/measure_attacks/{experiment}/{split}/{shard}.log",
    benchmark:
        "results/benchmarks/measure_attacks/{experiment}/{split}/{shard}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=gpu,
    params:
        # The grids are searched on validation images alone, the bound is drawn on test images alone.
        settings=section_of_split("attacks", validation=["sigma_squared", "betas"], test=["pgd"]),
        images=images_of_split("attacks"),
        shards=shard_count("attacks"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("measure_attacks", model_code(model_of(wildcards))),
    message:
        "Measure attacks on {wildcards.split} images of {wildcards.experiment}, shard {wildcards.shard}"
    script:
        "../scripts/measure_attacks.py"


rule choose_attacks:
    input:
        shards=shard_files("results/attacks/{experiment}/validation/{shard}.parquet", "attacks"),
    output:
        table="results/attacks/{experiment}/choices.parquet",
        csv="results/attacks/{experiment}/choices.csv",
    log:
        "results/logs/choose_attacks/{experiment}.log",
    benchmark:
        "results/benchmarks/choose_attacks/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("choose_attacks"),
    message:
        "Choose the parameters of attacks on validation images of {wildcards.experiment}"
    script:
        "../scripts/choose_attacks.py"


rule gather_attacks:
    input:
        shards=shard_files("results/attacks/{experiment}/test/{shard}.parquet", "attacks"),
        choices="results/attacks/{experiment}/choices.parquet",
    output:
        summary="results/tables/{experiment}/attacks.parquet",
        summary_csv="results/tables/{experiment}/attacks.csv",
        paired="results/tables/{experiment}/attacks_paired.parquet",
        paired_csv="results/tables/{experiment}/attacks_paired.csv",
        images="results/tables/{experiment}/attacks_images.parquet",
        images_csv="results/tables/{experiment}/attacks_images.csv",
    log:
        "results/logs/gather_attacks/{experiment}.log",
    benchmark:
        "results/benchmarks/gather_attacks/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        source=dataset_source,
        code=lambda wildcards: program("gather_attacks"),
    message:
        "Gather the attacks table of {wildcards.experiment}"
    script:
        "../scripts/gather_attacks.py"

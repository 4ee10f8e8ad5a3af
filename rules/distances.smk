rule compute_distances:
    input:
        network=network,
        images=images("test"),
    output:
        "results/distances/{experiment}/{shard}.parquet",
    log:
        "results/logs/compute_distances/{experiment}/{shard}.log",
    benchmark:
        "results/benchmarks/compute_distances/{experiment}/{shard}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        settings=section("distances", "compared_images", "examples"),
        shards=shard_count("distances"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("compute_distances", model_code(model_of(wildcards))),
    message:
        "Compare CASO with CAFO on {wildcards.experiment}, shard {wildcards.shard}"
    script:
        "../scripts/compute_distances.py"


rule gather_distances:
    input:
        shards=shard_files("results/distances/{experiment}/{shard}.parquet", "distances"),
    output:
        table="results/tables/{experiment}/distances.parquet",
        csv="results/tables/{experiment}/distances.csv",
        summary="results/tables/{experiment}/distances_summary.parquet",
        summary_csv="results/tables/{experiment}/distances_summary.csv",
    log:
        "results/logs/gather_distances/{experiment}.log",
    benchmark:
        "results/benchmarks/gather_distances/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("gather_distances"),
    message:
        "Gather the CASO-against-CAFO table of {wildcards.experiment}"
    script:
        "../scripts/gather_distances.py"


rule compare_curvatures:
    input:
        network=network,
        images=images("test"),
    output:
        table="results/tables/{experiment}/curvature_forms.parquet",
        csv="results/tables/{experiment}/curvature_forms.csv",
    log:
        "results/logs/compare_curvatures/{experiment}.log",
    benchmark:
        "results/benchmarks/compare_curvatures/{experiment}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=growing(60),
        gpu=gpu,
    params:
        images=lambda wildcards: settings.experiments[wildcards.experiment].distances.compared_images,
        c1=lambda wildcards: settings.experiments[wildcards.experiment].distances.c1,
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("compare_curvatures", model_code(model_of(wildcards))),
    message:
        "Compare forms of the Hessian on {wildcards.experiment}"
    script:
        "../scripts/compare_curvatures.py"


rule explain_examples:
    input:
        network=network,
        images=images("test"),
        table="results/tables/{experiment}/distances.parquet",
    output:
        "results/distances/{experiment}/examples.npz",
    log:
        "results/logs/explain_examples/{experiment}.log",
    benchmark:
        "results/benchmarks/explain_examples/{experiment}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        settings=section("distances", "images", "compared_images"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("explain_examples", model_code(model_of(wildcards))),
    message:
        "Explain the images of {wildcards.experiment} on which CASO and CAFO agree most and least"
    script:
        "../scripts/explain_examples.py"

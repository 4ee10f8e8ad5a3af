from curvelens.summaries.path import METHODS as PATH_METHODS


rule follow_path:
    input:
        network=network,
        images=images("test"),
        info=lambda wildcards: dataset_files(wildcards.experiment),
    output:
        table="results/tables/{experiment}/path.parquet",
        csv="results/tables/{experiment}/path.csv",
        arrays="results/films/{experiment}/path.npz",
    log:
        "results/logs/follow_path/{experiment}.log",
    benchmark:
        "results/benchmarks/follow_path/{experiment}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        settings=section("path"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program(
            "follow_path",
            *(registered(methods.REGISTRY, name) for name in PATH_METHODS),
            model_code(model_of(wildcards)),
        ),
    message:
        "Follow the path between two classes of {wildcards.experiment}"
    script:
        "../scripts/follow_path.py"


rule render_film:
    input:
        table="results/tables/{experiment}/path.parquet",
        arrays="results/films/{experiment}/path.npz",
        dataset=lambda wildcards: dataset_files(wildcards.experiment),
    output:
        video="results/films/{experiment}/path.mp4",
        poster="results/films/{experiment}/path.png",
        texts="results/films/{experiment}/path.json",
    log:
        "results/logs/render_film/{experiment}.log",
    benchmark:
        "results/benchmarks/render_film/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("render_film"),
    message:
        "Render the film of {wildcards.experiment}"
    script:
        "../scripts/render_film.py"

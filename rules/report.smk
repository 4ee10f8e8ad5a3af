rule count_failures:
    input:
        tables=lambda wildcards: all_tables(),
    output:
        table="results/tables/failures.parquet",
        csv="results/tables/failures.csv",
    log:
        "results/logs/count_failures.log",
    benchmark:
        "results/benchmarks/count_failures.tsv"
    params:
        code=library("experiments.failures"),
    threads: 1
    message:
        "Count failed images"
    conda:
        "../envs/curvelens.yaml"
    script:
        "../scripts/count_failures.py"


rule check_failures:
    input:
        table="results/tables/failures.parquet",
        # The report is there to be read, whatever this check says.
        report="results/report/index.html",
    output:
        touch("results/tables/failures.checked"),
    log:
        "results/logs/check_failures.log",
    benchmark:
        "results/benchmarks/check_failures.tsv"
    params:
        threshold=settings.failure_threshold,
        code=library("experiments.failures"),
    threads: 1
    message:
        "Check that few enough images failed"
    conda:
        "../envs/curvelens.yaml"
    script:
        "../scripts/check_failures.py"

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
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=library("experiments.failures"),
    message:
        "Count failed images"
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
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        threshold=settings.failure_threshold,
        code=library("experiments.failures"),
    message:
        "Check that few enough images failed"
    script:
        "../scripts/check_failures.py"

rule write_manifest:
    input:
        files=manifest_files(),
        report="results/report/index.html",
        run="results/report/run.json",
        lock=workflow.source_path("../locks/workflow.txt"),
    output:
        "results/manifest.json",
    log:
        "results/logs/write_manifest.log",
    benchmark:
        "results/benchmarks/write_manifest.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        benchmarks=subpath(output[0], strip_suffix="manifest.json", with_suffix="benchmarks"),
        code=lambda wildcards: library("manifest"),
    message:
        "Write down what this run made, with checksums"
    script:
        "../scripts/write_manifest.py"

rule write_manifest:
    input:
        files=manifest_files(),
        datasets=expand("results/data/{dataset}/dataset.json", dataset=settings.datasets),
        # A list, empty where there is no gallery.
        gallery=["results/report/gallery/pages.json"] if galleried() else [],
        report="results/report/index.html",
        run="results/report/run.json",
    output:
        manifest="results/manifest.json",
        crate="results/ro-crate-metadata.json",
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
        lock=dict(zip(("name", "sha256"), ("workflow.txt", *text_version("../locks/workflow.txt")))),
        benchmarks=subpath(output.manifest, strip_suffix="manifest.json", with_suffix="benchmarks"),
        code=lambda wildcards: program("write_manifest"),
    message:
        "Write down what this run made, with checksums"
    script:
        "../scripts/write_manifest.py"

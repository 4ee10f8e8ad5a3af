GALLERY_TEMPLATES = [
    "../report/template/curvelens/style.css",
    "../report/template/gallery/style.css",
    "../report/template/gallery/filter.js",
]
REPORT_TEXT = [
    "../report/index.py",
    *(f"../report/template/curvelens/{name}" for name in ("conf.json", "index.html.j2", "style.css")),
]


rule render_gallery:
    input:
        unpack(gallery_inputs),
    output:
        index="results/report/gallery/index.html",
        pages="results/report/gallery/pages.json",
        images=directory("results/report/gallery/images"),
    log:
        "results/logs/render_gallery.log",
    benchmark:
        "results/benchmarks/render_gallery.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(20),
    params:
        templates=sources(*GALLERY_TEMPLATES),
        text=text_version(*GALLERY_TEMPLATES),
        # A function: the text of a user may have braces, which Snakemake would take for wildcards.
        title=lambda wildcards: settings.report.title,
        limit=settings.report.gallery,
        code=lambda wildcards: program(
            "render_gallery", *(f"summaries.{name}" for name in summaries.modules())
        ),
    message:
        "Render the gallery"
    script:
        "../scripts/render_gallery.py"


rule render_report:
    input:
        gallery="results/report/gallery/pages.json" if galleried() else [],
        figures=reported_artifacts("figures"),
        films=reported_artifacts("films"),
        tables=reported_artifacts("tables"),
        models=reported_artifacts("models"),
        datasets=reported_artifacts("datasets"),
        failures="results/tables/failures.parquet",
    output:
        page="results/report/index.html",
        run="results/report/run.json",
    log:
        "results/logs/render_report.log",
    benchmark:
        "results/benchmarks/render_report.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        # The notebook, then the template of its page, which is found beside it.
        text=sources(*REPORT_TEXT),
        text_version=text_version(*REPORT_TEXT),
        config=lambda wildcards: settings.model_dump(mode="json"),
        # Not written out: a workflow that imports this one as a module may put a folder before them.
        benchmarks=subpath(output.page, strip_suffix="report/index.html", with_suffix="benchmarks"),
        workdir=subpath(output.page, strip_suffix="index.html", with_suffix="notebook"),
        code=lambda wildcards: program("render_report"),
    message:
        "Render the report"
    script:
        "../scripts/render_report.py"


rule count_failures:
    input:
        tables=lambda wildcards: all_tables(),
        datasets=lambda wildcards: explained_datasets(),
    output:
        table="results/tables/failures.parquet",
        csv="results/tables/failures.csv",
    log:
        "results/logs/count_failures.log",
    benchmark:
        "results/benchmarks/count_failures.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("count_failures"),
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
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        threshold=settings.failure_threshold,
        code=lambda wildcards: program("check_failures"),
    message:
        "Check that few enough images failed"
    script:
        "../scripts/check_failures.py"

"""The tables that experiments fill: their schemas, what is chosen on validation images, and the summaries.

Apart from the measurements, because they need no torch: a job that joins shards starts in a second, and an
edit of an estimator does not rerun it.
"""

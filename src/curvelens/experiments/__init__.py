"""Experiments: one module for each stage of the workflow, giving one table row for each image."""

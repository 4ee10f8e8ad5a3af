"""The sections of the configuration, one module for each stage of an experiment.

Every section is a closed pydantic model with description, bounds and default for each key. Nothing here
imports torch or pandas.
"""

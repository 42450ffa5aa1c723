"""The stages of the pipeline: each verb reads its inputs, transforms them, and writes its outputs."""

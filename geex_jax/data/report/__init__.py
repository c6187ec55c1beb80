"""The report of prepared data: `schema` is what the pipeline writes for it."""

"""Where stages meet: recipes, builds, the command line; the only importer of Prefect."""

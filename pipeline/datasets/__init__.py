"""On-disk formats, a reader and its writer side by side; statistics and the manifest."""

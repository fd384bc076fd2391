"""HTML pages; is handed Views and tables, renders none."""

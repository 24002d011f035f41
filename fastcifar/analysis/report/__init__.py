"""One self-contained HTML page about one or several finished runs."""

"""One self-contained HTML page on a finished run, or on several."""

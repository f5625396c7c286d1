"""The HTML report of results: one file with tables, figures and what is needed to judge them, which opens offline."""

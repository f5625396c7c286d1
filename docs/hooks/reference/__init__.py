"""The generated pages, a module each; every function returns Markdown."""

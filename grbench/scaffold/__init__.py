"""Writing a new package of plug-ins, from the templates in the folder `templates`."""

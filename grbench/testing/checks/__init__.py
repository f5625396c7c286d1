"""The conformance kit: for each kind of plug-in, checks of what its interface promises."""

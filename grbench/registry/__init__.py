"""Which plug-ins are installed, the options that their signatures declare, and the hash of their sources."""

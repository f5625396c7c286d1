"""The installed plug-ins, the options that their signatures declare, and the hashes of their source code."""

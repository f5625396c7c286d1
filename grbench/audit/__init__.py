"""Leak audits: experiments on a small world that show whether a method or a protocol sees what it must not see."""

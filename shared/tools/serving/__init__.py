"""A finished run as a web page and an API."""

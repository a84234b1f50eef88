"""Answers with what the framework read of the request."""

import json


def app(environ, start_response):
    environ["wsgi.input"].read()
    read = {name: value for name, value in environ.items() if isinstance(value, str)}
    body = json.dumps(read, sort_keys=True).encode()
    start_response("200 OK", [("content-type", "application/json"), ("content-length", str(len(body)))])
    return [body]

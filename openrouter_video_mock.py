#!/usr/bin/env python3
"""A local stand-in for OpenRouter's asynchronous video API: submit, poll, download, webhook.

    $ python openrouter_video_mock.py --port 8080
    $ curl -s localhost:8080/api/v1/videos -H 'Authorization: Bearer x' \\
           -d '{"model": "google/veo-3.1", "prompt": "a cat"}'

    from openrouter_video_mock import MockServer

    with MockServer() as mock:
        client = OpenRouter(api_key="test", server_url=mock.url)  # your code, unchanged
        ...
        mock.finish("latest", "failed", error="Content policy violation")

One file, standard library only, Python 3.10 and newer: copy it to where you need it.  It checks
requests, walks statuses and words its errors as production does; it does not judge prompts or
imitate a model.

The file reads downwards; what a line needs at import time stands above it:

     1  Schemas and settings         what others write, and how it is checked
     2  Wire contract                statuses, request schema, errors, the job as JSON
     3  Catalogue and cost           what a model accepts, how large its clips are, what they cost
     4  Fixtures, faults, scenarios  which answer a submit gets; the files that say so
     5  Jobs, lifecycle, store       what changes, behind the one lock
     6  Test card                    an MP4 writer
     7  Webhooks                     event, signature, delivery
     8  Requests and responses       the values between the handlers and the socket
     9  Video API handlers           production's routes
    10  Record                       the real API behind the mock
    11  Findings                     what the client does wrong
    12  Trial                        does a client survive production?
    13  Control API and status page  /__mock/* and GET /
    14  The mock and its routes      VideoMock.handle, what tests steer and look at, ROUTES
    15  HTTP adapter and embedding   sockets, MockServer, the pytest fixture
    16  Command line

(pytest warns of plugins that are imported before it can rewrite them, but for this:
PYTEST_DONT_REWRITE.)

Sections 2 to 6 open no socket, have no clock of their own, and print nothing.

Source of the wire facts: recordings of the live API (the newest of 2026-10-10), OpenRouter's SDKs
(Python 1.3.84) and OpenAPI document (2026-08), its documentation (2026-08).  README.md says which
fact rests on which.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import gc
import hashlib
import heapq
import hmac
import html
import http.client
import io
import itertools
import json
import math
import os
import queue
import re
import reprlib
import signal
import socket
import socketserver
import ssl
import sys
import threading
import time
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from http.server import ThreadingHTTPServer
from typing import IO, Any, NamedTuple, TextIO
from urllib.parse import parse_qsl, quote, unquote, urlsplit

__all__ = [
    "ApiError",
    "TRIALS",
    "Config",
    "MockServer",
    "Request",
    "Response",
    "SetupError",
    "Status",
    "VideoMock",
    "main",
]
__version__ = "1.1.0"

if sys.version_info < (3, 10):  # noqa: UP036  (for who runs it with an older one)
    raise SystemExit("openrouter_video_mock needs Python 3.10 or newer")


# Clocks that a test which patches or freezes `time` does not stop: wrapped up, they are not what
# such tools look for.
_real_time = functools.partial(time.time)
_monotonic = functools.partial(time.monotonic)


# ============ 1. Schemas and settings: issues_of, checked, Config ===========================
#
# What others write, be it a client's request, a fixture file, a setting or a body of the
# control API, is held against a schema: data in the manner of JSON Schema.  One function says
# what is wrong, in the words of Zod 4, because production's are on the wire; where a user of
# the mock is meant, `checked` makes one line of it that names the place.
#
# A field of Config is a keyword argument of MockServer, a flag of the command line and an
# environment variable OPENROUTER_VIDEO_MOCK_<FLAG>.  To add a setting: a field, its line in
# SETTINGS (its help with the default; a list of texts is `repeats`, no array), the README.

Json = dict[str, Any]  # a JSON object
Issues = Iterator[Json]  # what is wrong with a value
_MISSING: Any = object()
_MAX_SAFE_INTEGER = 2**53 - 1
# Of numbers: the schema's word, Zod's, the sign of what is within, the side on which it ends.
_LIMITS = (("maximum", "big", "<", 1), ("minimum", "small", ">", -1))
_JS_TYPES = {
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    list: "array",
    tuple: "array",
    dict: "object",
    type(None): "null",
}
_JS_TYPE_OF = {"int": "number", "record": "object"}  # of these kinds; of others, the kind


class SetupError(ValueError):
    """What stops a start, or a change by the control API: one line with the place and the cure."""

    def __str__(self) -> str:
        return str(self.args[0])  # the first; fixture files may have several


@contextlib.contextmanager
def collecting(problems: list[str]) -> Iterator[None]:
    """Note what is wrong in here and go on, so that all is said at once."""
    try:
        yield
    except SetupError as error:
        problems += error.args


def issues_of(schema: Json, value: Any, strict: bool = False) -> Issues:
    """What is wrong with a value, as Zod 4 words and orders it.

    `strict` refuses keys that the schema does not have, but those that begin with _ (comments).
    """
    if "$ref" in schema:
        schema = _DEFINITIONS[schema["$ref"]]
    kind = schema.get("type")
    if schema.get("nullable") and value is None:
        return
    if "enum" in schema:
        if value not in schema["enum"]:
            yield _invalid_option(schema["enum"])
    elif kind is None:
        return
    elif _JS_TYPES.get(type(value)) != _JS_TYPE_OF.get(kind, kind):
        yield _invalid_type(kind.replace("int", "number"), value)
    elif "oneOf" in schema:
        yield from _union_issues(schema["oneOf"], value)
    elif kind in ("object", "record"):
        yield from _object_issues(schema, value, strict)
    elif kind == "array":
        if len(value) != schema.get("length", len(value)):
            yield _issue(f"Expected {schema['length']} items", code="custom")
        for index, item in enumerate(value):
            yield from _issues_at(index, schema["items"], item, strict)
    elif kind == "string":
        yield from _string_issues(schema, value)
    elif kind != "boolean":
        yield from _number_issues(schema, value)


def _issues_at(key: Any, schema: Json, value: Any, strict: bool) -> Issues:
    """Of an item or a field: paths grow at their beginning, on the way out."""
    for issue in issues_of(schema, value, strict):
        issue["path"].insert(0, key)
        yield issue


def _issue(message: str, *path: Any, **parts: Any) -> Json:
    return {**parts, "path": [*path], "message": message}


def _invalid_type(wanted: str, value: Any, **parts: Any) -> Json:
    received = _JS_TYPES.get(type(value), "undefined")
    text = f"Invalid input: expected {wanted}, received {received}"
    return _issue(text, expected=wanted, **parts, code="invalid_type")


def _invalid_option(values: Sequence[str]) -> Json:
    options = "|".join(f'"{value}"' for value in values)
    text = f"Invalid option: expected one of {options}"
    if len(values) == 1:
        text = f"Invalid input: expected {options}"
    return _issue(text, code="invalid_value", values=values)


def _union_issues(options: Mapping[str, Json], value: Json) -> Issues:
    """Of objects that are told apart by their key `type`."""
    if value.get("type") in list(options):
        yield from issues_of(options[value["type"]], value)
        return
    kinds = " | ".join(f"'{option}'" for option in options)
    yield _issue(
        f"Invalid discriminator value. Expected {kinds}",
        "type",
        code="invalid_union",
        errors=[],
        note="No matching discriminator",
        discriminator="type",
        options=list(options),
    )


def _object_issues(schema: Json, value: Json, strict: bool) -> Issues:
    fields: Json = schema.get("properties", dict.fromkeys(value, schema.get("values", {})))
    required = schema.get("required", ())
    for key in value:
        if strict and key not in fields and not key.startswith("_"):
            text = f"unknown key{did_you_mean(key, fields)}"
            yield _issue(text, key, code="unrecognized_keys")
    for one, other in schema.get("contrary", ()):  # keys that exclude each other
        if one in value and other in value:
            yield _issue(f"{one} and {other} contradict each other", code="custom")
    for key, field in fields.items():
        if key in value or key in required:
            yield from _issues_at(key, field, value.get(key, _MISSING), strict)


def _string_issues(schema: Json, value: str) -> Issues:
    longest, pattern = schema.get("maxLength"), schema.get("pattern")
    if longest is not None and len(value.encode("utf-16-le")) > 2 * longest:
        yield _issue(
            f"Too big: expected string to have <={longest} characters",
            origin="string",
            code="too_big",
            maximum=longest,
            inclusive=True,
        )
    elif pattern and not re.fullmatch(pattern, value, re.ASCII):
        yield _issue(
            f"Invalid string: must match pattern /^{pattern}$/",
            origin="string",
            code="invalid_format",
            format="regex",
            pattern=f"/^{pattern}$/",
        )
    elif schema.get("format") == "url" and not is_url(value):
        yield _issue("Invalid URL", code="invalid_format", format="url")


def _number_issues(schema: Json, value: float) -> Issues:
    if schema["type"] == "int" and value % 1:
        yield _invalid_type("int", value, format="safeint")
        return
    inclusive = "exclusive" not in schema
    for limit, size, sign, side in _LIMITS:
        bound, origin = schema.get(limit, side * math.inf), "number"
        if limit not in schema and schema["type"] == "int":
            bound, origin = side * _MAX_SAFE_INTEGER, "int"
        fits = side * value < side * bound or (inclusive and value == bound)
        if not fits:  # nor does NaN
            text = f"Too {size}: expected {origin} to be {sign}{'=' * inclusive}{bound}"
            parts = {"origin": origin, "code": f"too_{size}", limit: bound}
            if origin == "int":
                parts["note"] = "Integers must be within the safe integer range."
            yield _issue(text, **parts, inclusive=inclusive)


def is_url(text: str) -> bool:
    """Whether this is an http(s) URL with host and valid port, no blanks or control characters."""
    if not re.fullmatch(r"(?i)https?://[^\x00-\x20\x7f]{1,8192}", text):
        return False
    with contextlib.suppress(ValueError):
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0
    return False


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The tail of a complaint about an unknown word: the nearest known one, if any is near."""
    return "".join(f', did you mean "{match}"?' for match in most_like(word, known))


def most_like(word: str, known: Iterable[str]) -> list[str]:
    """The known word that is most like this one, none if they are all unlike it."""
    import difflib  # only a mistake needs it, and start-up time counts

    return difflib.get_close_matches(word, known, 1)


def checked(schema: Json, value: Any, place: str) -> Any:
    """The value, if it fits; SetupError names the places that do not, and what they got."""
    problems: list[str] = []
    for issue in itertools.islice(issues_of(schema, value, strict=True), _MOST_ISSUES):
        text, where, got = issue["message"], place, value
        for key in issue["path"]:
            if isinstance(key, int):
                where, got = f"{where}[{key}]", got[key]
            else:
                where, got = f"{where}.{key}", got.get(key, _MISSING)
        if "say" in schema:
            text = f"expected {schema['say']}"
        if got is _MISSING:
            text = "is missing"
        elif issue["code"] != "unrecognized_keys":
            text = f"{text}, got {reprlib.repr(got)}"
        problems.append(f"{where}: {text}")
    if problems:
        raise SetupError(*problems)
    return value


def from_text(schema: Json, text: str) -> Any:
    """What the text of a flag, variable or query means; what means nothing is left as it is."""
    kind = schema.get("type")
    with contextlib.suppress(ValueError):
        if kind == "object":
            return parse_json(text.encode())
        if kind == "array":
            return list(map(_number, text.split(",")))
        if kind in ("int", "number"):
            return _number(text)
    return text


def json_copy(value: Any, place: str = "") -> Any:
    """A copy that shares nothing with the value; SetupError for what is no JSON."""
    try:
        return _decode_json(_encode_json(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise SetupError(f"{place}: not JSON: {error}") from None


class Config(NamedTuple):
    """All settings of one mock: SETTINGS says what each means; some take one value or several."""

    port: int = 0
    host: str = "127.0.0.1"
    # Paths, or fixtures as Python objects; None = fixtures.json beside this
    fixtures: Any = (None,)
    polls: Sequence[int] = (0, 1)
    seconds: Sequence[float] | None = None
    latency: float = 0.0
    fault: Any = ()
    api_key: Any = ()
    webhook_secret: str = ""
    callback_url: str = ""
    callback_host: Any = ()
    relative_polling_url: bool = False
    public_url: str = ""
    cert: str = ""
    key: str = ""
    max_body_mb: float = 64.0
    max_jobs: int = 10_000
    max_requests: int = 1_000
    record: str = ""
    upstream: str = "https://openrouter.ai/api/v1"
    trial: str = ""


# Per setting its schema; `repeats`: one value or several; `default`: passes though the rest
# refuses it; `say`: what was expected, in words; `help`, `metavar`, `short` and `needs` (goes
# with this one only) are for the command line, where `trial`, a name here, is a switch.
SETTINGS: dict[str, Json] = json.loads("""{
  "port": {"type": "int", "short": ["-p"], "minimum": 0, "maximum": 65535, "metavar": "PORT",
    "help": "port to listen on, 0 = any free one (default: 8080)"},
  "host": {"type": "string", "metavar": "HOST",
    "help": "address to listen on (default: 127.0.0.1)"},
  "fixtures": {"repeats": true, "metavar": "PATH", "short": ["-f"],
    "help": "fixture file or folder, repeatable (default: fixtures.json beside this)"},
  "polls": {"type": "array", "length": 2, "items": {"type": "int", "minimum": 0}, "metavar": "P,I",
    "say": "two whole numbers, for pending and in_progress, such as 1,2",
    "help": "how many polls show pending and in_progress before the end (default: 0,1)"},
  "seconds": {"type": "array", "length": 2,
    "items": {"type": "number", "minimum": 0, "maximum": 1e12},
    "say": "two numbers, for pending and in_progress, such as 5,25",
    "nullable": true, "metavar": "P,I",
    "help": "how long a job is pending and in_progress, instead of --polls"},
  "latency": {"type": "number", "minimum": 0, "maximum": 3600, "metavar": "S",
    "help": "seconds before each answer of the API"},
  "fault": {"type": "object", "repeats": true, "metavar": "JSON",
    "say": "a JSON object such as {\\"on\\": \\"poll\\", \\"status\\": 503, \\"times\\": 2}",
    "help": "fault to inject, repeatable: '{\\"on\\":\\"poll\\",\\"status\\":503,\\"times\\":2}'"},
  "api_key": {"type": "string", "repeats": true, "metavar": "KEY",
    "help": "the only valid API keys, repeatable (default: any)"},
  "webhook_secret": {"type": "string", "metavar": "SECRET",
    "help": "secret that signs webhooks (default: unsigned)"},
  "callback_url": {"type": "string", "format": "url", "default": "", "metavar": "URL",
    "say": "an http or https URL",
    "help": "where the webhooks of requests without callback_url go"},
  "callback_host": {"type": "string", "repeats": true, "metavar": "HOST",
    "help": "host that webhooks may go to beside loopback, repeatable, * = any"},
  "relative_polling_url": {"type": "boolean", "help": "polling_url as a path, not a whole URL"},
  "public_url": {"type": "string", "format": "url", "default": "", "metavar": "URL",
    "say": "an http or https URL",
    "help": "origin of the URLs in answers (default: what the client used)"},
  "cert": {"type": "string", "metavar": "FILE", "help": "speak TLS with this certificate (PEM)"},
  "key": {"type": "string", "metavar": "FILE", "needs": "cert",
    "help": "the certificate's private key (PEM)"},
  "max_body_mb": {"type": "number", "minimum": 0.001, "maximum": 10000, "metavar": "MB",
    "help": "largest request body in megabytes (default: 64)"},
  "max_jobs": {"type": "int", "minimum": 1, "maximum": 10000000, "metavar": "N",
    "help": "how many jobs are kept, the oldest go first (default: 10000)"},
  "max_requests": {"type": "int", "minimum": 0, "maximum": 10000000, "metavar": "N",
    "help": "how many requests the journal keeps, 0 = none (default: 1000)"},
  "record": {"type": "string", "metavar": "FOLDER",
    "help": "pass on to the real API what no fixture takes, and keep its answers: costs money"},
  "upstream": {"type": "string", "format": "url", "metavar": "URL",
    "needs": "record", "say": "an http or https URL",
    "help": "the API behind --record (default: https://openrouter.ai/api/v1)"},
  "trial": {"enum": [], "default": ""}
}""")


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def checked_setting(schema: Json, value: Any, place: str) -> Any:
    """A setting's value as it is kept; SetupError for what it cannot be."""
    if schema.get("repeats"):
        return tuple(checked(schema, item, place) for item in _as_list(value))
    if value != schema.get("default", _MISSING):
        checked(schema, value, place)
    return value


def checked_config(config: Config) -> Config:
    """The settings as they are kept; SetupError names the one that cannot be."""
    values = {
        name: checked_setting(SETTINGS[name], value, name)
        for name, value in config._asdict().items()
    }
    return Config(**values)


# ============ 2. Wire contract: Status, VideoRequest, ApiError, job_to_wire =================
#
# To accept a new field: a line in REQUEST_SCHEMA.  If size or price depends on it, a field of
# Shape by the same name, which is filled by itself; what else reads it finds it in the body.
#
# To add a status that ends a job: a member of Status and its line in ENDINGS.  One before the
# end: a member and its place in WAITING, status_at, `polls` and `seconds` in Config and SETTINGS,
# `lifecycle` in FIXTURE_SCHEMA, get_video in _CONTRACT, the page's WAITING.  Both: the README.

API = "/api/v1"


class Status(Enum):
    """The statuses of a job."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


# What a job shows before its end, in this order; --polls and --seconds have a number for each.
WAITING = (Status.PENDING, Status.IN_PROGRESS)
# What ends a job, and the error that it then carries: recorded (failed) and documented texts.
ENDINGS: dict[Status, str | None] = {
    Status.COMPLETED: None,
    Status.FAILED: "Video generation completed with no output (content may have been filtered)",
    Status.CANCELLED: "Job was cancelled",
    Status.EXPIRED: "Job exceeded maximum time to live",
}
ENDING_NAMES = [status.value for status in ENDINGS]

# Messages per HTTP status: SDK 1.3.84, where nothing better was recorded.
STATUS_MESSAGES: dict[int, str] = {
    **http.client.responses,
    401: "User not found.",
    402: "Insufficient credits. Add more using https://openrouter.ai/credits",
    403: "Input was flagged by moderation",
    413: "Request payload too large",
    429: "Rate limit exceeded",
    502: "Provider returned error",
    503: "Service temporarily unavailable",
}

Headers = tuple[tuple[str, str], ...]


class ApiError(Exception):
    """A refusal: HTTP status, message and metadata of production's envelope, more headers."""

    def __init__(
        self, status: int, message: str = "", metadata: Any = None, headers: Headers = ()
    ) -> None:
        self.status = status
        self.message = message or STATUS_MESSAGES.get(status, "Error")
        self.metadata = metadata
        self.headers = headers
        super().__init__(f"{status} {self.message}")


class SchemaError(ApiError):
    """A body or query parameter that breaks the schema; `issues` as Zod 4 words and orders them."""

    def __init__(self, *issues: Json) -> None:
        super().__init__(400, "; ".join(map(describe_issue, issues)))
        self.issues = issues


def check_schema(schema: Json, value: Any) -> None:
    """Refuse what breaks the schema; keys that it does not have are passed over."""
    issues = list(itertools.islice(issues_of(schema, value), _MOST_ISSUES))
    if issues:
        raise SchemaError(*issues)


def describe_issue(issue: Json) -> str:
    """An issue in one line: "duration: Too small: expected number to be >=1"."""
    path = ".".join(map(str, issue["path"]))
    return f"{path}: {issue['message']}".removeprefix(": ")


def error_to_wire(error: ApiError) -> Json:
    """The error envelope, or the other one of production's schema failures (both recorded)."""
    if isinstance(error, SchemaError):
        message = json.dumps(error.issues, indent=2, ensure_ascii=False)
        return {"success": False, "error": {"name": "ZodError", "message": message}}
    wire: Json = {"message": error.message, "code": error.status}
    if error.metadata is not None:
        wire["metadata"] = error.metadata
    return {"error": wire}


# The fields of a submit.
REQUEST_SCHEMA: Json = json.loads(r"""{
  "type": "object",
  "required": ["model"],
  "properties": {
    "model": {"type": "string"},
    "aspect_ratio":
      {"enum": ["16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9", "9:21"]},
    "callback_url": {"type": "string", "format": "url"},
    "creativity": {"type": "int"},
    "duration": {"type": "int", "minimum": 1},
    "frame_images": {"type": "array", "items": {
      "type": "object", "required": ["type", "image_url", "frame_type"],
      "properties": {
        "type": {"enum": ["image_url"]},
        "image_url": {"type": "object", "required": ["url"],
          "properties": {"url": {"type": "string"}}},
        "frame_type": {"enum": ["first_frame", "last_frame"]}}}},
    "generate_audio": {"type": "boolean"},
    "input_references": {"type": "array", "items": {"type": "object", "oneOf": {
      "image_url": {"type": "object", "required": ["type", "image_url"], "properties": {
        "type": {"enum": ["image_url"]},
        "image_url": {"type": "object", "required": ["url"],
          "properties": {"url": {"type": "string"}}}}},
      "audio_url": {"type": "object", "required": ["type", "audio_url"], "properties": {
        "type": {"enum": ["audio_url"]},
        "audio_url": {"type": "object", "required": ["url"],
          "properties": {"url": {"type": "string"}}}}},
      "video_url": {"type": "object", "required": ["type", "video_url"], "properties": {
        "type": {"enum": ["video_url"]},
        "video_url": {"type": "object", "required": ["url"],
          "properties": {"url": {"type": "string"}}}}}
    }}},
    "previous_job_id": {"type": "string", "pattern": "gen-vid-\\d+-[0-9A-Za-z]{20}"},
    "prompt": {"type": "string"},
    "provider": {"type": "object", "properties": {
      "options": {"type": "record", "values": {"type": "record"}}}},
    "resolution": {"enum": ["360p", "480p", "720p", "768p", "1080p", "1K", "2K", "4K"]},
    "seed": {"type": "int"},
    "session_id": {"type": "string", "maxLength": 256},
    "size": {"type": "string"},
    "trace": {"type": "object", "properties": {
      "generation_name": {"type": "string"}, "parent_span_id": {"type": "string"},
      "span_name": {"type": "string"}, "trace_id": {"type": "string"},
      "trace_name": {"type": "string"}}},
    "upscale_factor": {"type": "number", "minimum": 0, "exclusive": true},
    "user": {"type": "string"}
  }
}""")
_FIELDS: Json = REQUEST_SCHEMA["properties"]
# What a schema's $ref may name: a field of the request, or one of these.
_DEFINITIONS: dict[str, Json] = {
    **_FIELDS,
    "ending": {"enum": ENDING_NAMES},
    # Of a fixture; aimock's files say processing, too.
    "status": {"enum": [*[status.value for status in Status], "processing"]},
}


class Shape(NamedTuple):
    """What decides size, length and price of a clip; hashable, so that costs can be cached."""

    frames: tuple[str, ...] = ()  # frame types of frame_images
    references: tuple[str, ...] = ()  # types of input_references
    duration: int | None = None  # seconds; this and all below are keys of the request
    resolution: str | None = None
    aspect_ratio: str | None = None
    size: str | None = None  # "WIDTHxHEIGHT"
    generate_audio: bool | None = None
    upscale_factor: float | None = None
    creativity: int | None = None


class VideoRequest(NamedTuple):
    """A submit that passed the schema.  The body is shared: nobody may change it."""

    model: str
    prompt: str
    shape: Shape
    seed: int | None
    body: Json  # as the client sent it, unknown keys included


_JSON_TOKEN = r'(?s:"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}])'  # linear, closed or not
_MAX_JSON_DEPTH = 100
_MOST_ISSUES = 100  # a large body can hold a million faults


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no JSON number")
    if number.is_integer():
        return int(number)
    return number


# Numbers are JavaScript's: 8.0 is 8, and none is exact beyond 2**53.
_decode_json = json.JSONDecoder(
    parse_float=_number, parse_int=_number, parse_constant=_number
).decode
_encode_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def parse_json(body: bytes) -> Any:
    """JSON as production's parser takes it; ValueError for what is none or nests too deep."""
    text = body.decode("utf-8")  # UnicodeDecodeError is a ValueError
    if text.count("[") + text.count("{") > _MAX_JSON_DEPTH:
        depth = 0
        for token in re.finditer(_JSON_TOKEN, text):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
            if depth > _MAX_JSON_DEPTH:
                raise ValueError(f"nested more than {_MAX_JSON_DEPTH} deep")
    value = _decode_json(text)
    # Half a surrogate pair is no text that could be sent on.
    if "\\ud" in text or "\\uD" in text:
        to_json(value)
    return value


def to_json(value: Any) -> bytes:
    """Compact UTF-8 JSON, as JavaScript's JSON.stringify writes it."""
    return _encode_json(value).encode()


def js_number(value: float) -> float:
    """Without binary noise, and 2 for 2.0, as JavaScript prints it."""
    return _number(f"{value:.10f}")


def parse_video_request(body: bytes) -> VideoRequest:
    """The submit in these bytes; SchemaError with its issues.  Content-Type plays no part."""
    try:
        submit = parse_json(body)
    except ValueError:
        raise SchemaError(_issue("Malformed JSON in request body", code="custom")) from None
    check_schema(REQUEST_SCHEMA, submit)
    given = {name: shorten(submit.get(name)) for name in Shape._fields if name in _FIELDS}
    images = submit.get("frame_images", [])[:_LONGEST_LIST]
    assets = submit.get("input_references", [])[:_LONGEST_LIST]
    shape = Shape(
        frames=tuple(image["frame_type"] for image in images),
        references=tuple(asset["type"] for asset in assets),
        **given,
    )
    return VideoRequest(
        submit["model"], submit.get("prompt", ""), shape, submit.get("seed"), submit
    )


# Who submits the same again, as load tests do, has it read once.
_remembered_request = functools.lru_cache(maxsize=64)(parse_video_request)


def check_callback(body: Json, callback_hosts: Sequence[str]) -> None:
    """Refuse a callback_url without HTTPS, but to hosts that webhooks may go to here."""
    url = body.get("callback_url", "https:")
    if not url.lower().startswith("https:") and not may_deliver(url, callback_hosts):
        raise SchemaError(
            _issue("callback_url must use HTTPS", "callback_url", code="custom")
        )


_LONGEST_TEXT = 16_384
_LONGEST_LIST = 100
_SMALL_BODY = 4_096  # bytes; is kept as it came


def shorten(value: Any) -> Any:
    """A copy of JSON with data URLs, very long texts and lists cut."""
    if isinstance(value, str):
        if value.startswith("data:") and len(value) > 256:
            digest = hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:8]
            return f"{value[:64]}… ({len(value)} characters, sha256 {digest})"
        if len(value) > _LONGEST_TEXT:
            return f"{value[:_LONGEST_TEXT]}… ({len(value)} characters)"
    if isinstance(value, list):
        return [shorten(item) for item in value[:_LONGEST_LIST]]
    if isinstance(value, dict):
        return {key: shorten(item) for key, item in value.items()}
    return value


def shown_body(body: bytes) -> Any:
    """A kept body as the control API shows it: parsed if it is JSON, else as text."""
    try:
        return parse_json(body)
    except ValueError:
        return body.decode("utf-8", "replace") or None


class Links(NamedTuple):
    """How URLs are made for one client: on the origin that it used."""

    origin: str  # "http://localhost:8080"
    relative_polling_url: bool = False

    def polling_url(self, job_id: str) -> str:
        """Absolute as recorded, or the path alone as the newest documentation shows it."""
        path = f"{API}/videos/{job_id}"
        if self.relative_polling_url:
            return path
        return self.origin + path

    def content_url(self, job_id: str, index: int) -> str:
        """The download that needs the key."""
        return f"{self.origin}{API}/videos/{job_id}/content?index={index}"

    def signed_url(self, job_id: str, index: int, expires: int) -> str:
        """The download that needs none.  The form is the mock's own: production's is not known."""
        signature = sign_download(job_id, index, str(expires))
        return f"{self.content_url(job_id, index)}&expires={expires}&signature={signature}"


_DOWNLOAD_SECRET = os.urandom(32)  # one for all mocks of the process: no two share a job


@functools.lru_cache(maxsize=1024)  # every poll of a completed job carries it
def sign_download(job_id: str, index: int, expires: str) -> str:
    """Hex SHA-256 over a secret, job, index and expiry (unix seconds)."""
    signed = f"{job_id}/{index}/{expires}".encode()
    return hashlib.sha256(_DOWNLOAD_SECRET + signed).hexdigest()


def check_signature(
    job_id: str, index: int, parameters: Mapping[str, str], now: float
) -> None:
    """403 unless the query is one that Links.signed_url made, and still in time."""
    expires = parameters.get("expires", "")
    # Good enough for a mock: who times this comparison learns nothing worth having.
    if parameters["signature"] != sign_download(job_id, index, expires):
        raise ApiError(403, "Invalid signature")
    if now >= int(expires):
        raise ApiError(403, "Signed URL has expired")


def job_to_wire(job: Job, now: float, links: Links) -> Json:
    """What a poll answers; absent fields are left out, never null."""
    status = status_at(job, now)
    wire: Json = {
        "id": job.id,
        "generation_id": job.id,
        "polling_url": links.polling_url(job.id),
        "status": status.value,
    }
    if status in WAITING:
        return wire
    wire.update(outcome_to_wire(job, now, links))
    for key in job.plan.omit:
        wire.pop(key, None)
    return wire


def outcome_to_wire(job: Job, now: float, links: Links) -> Json:
    """What poll and webhook say of the end: the error, or URLs per output and the cost in USD.

    The signed URLs need no key; they are left out once the outputs are not kept any more.
    """
    plan, end = job.plan, expires_at(job)
    if job.ending is not Status.COMPLETED:
        return {"error": job.error}
    indexes = range(plan.outputs)
    wire: Json = {"unsigned_urls": plan.unsigned_urls}
    if plan.unsigned_urls is None:
        wire["unsigned_urls"] = [links.content_url(job.id, index) for index in indexes]
    if plan.stored and now < end:
        if plan.elsewhere:
            links = links._replace(origin=other_origin(links.origin))
        wire["urls"] = [links.signed_url(job.id, index, end) for index in indexes]
        wire["expires_at"] = end
    wire["usage"] = {"cost": job.cost, "is_byok": plan.is_byok}
    return wire


def other_origin(origin: str) -> str:
    """The same server under its other loopback name: to a client, another host."""
    other = "//localhost"
    if other in origin:
        other = "//127.0.0.1"
    return re.sub(r"//(\[.*\]|[^:/]*)", other, origin)


# ============ 3. Catalogue and cost: Model, check_against_catalogue, output_size, cost_of ====
#
# A model is its entry of GET /videos/models, plus what it does when a request leaves something
# out, plus how its bills differ from its price list.


Names = Sequence[str] | None  # what is supported, if that is said


class Model(NamedTuple):
    """One entry of GET /videos/models; the fields up to `defaults` are its keys on the wire."""

    id: str
    canonical_slug: str
    hugging_face_id: str | None = None
    name: str = ""
    created: int = 0  # unix seconds
    description: str | None = ""  # the SDKs refuse null
    supported_resolutions: Names = None  # None in a list: anything goes
    supported_aspect_ratios: Names = None
    supported_sizes: Names = None
    supported_durations: Sequence[int] | None = None
    supported_frame_images: Names = ("first_frame", "last_frame")  # None: none
    upscale_factor: dict[str, float] | None = None  # {"min", "max"}: an upscaler
    creativity: Sequence[int] | None = None
    generate_audio: bool | None = None
    seed: bool | None = None
    pricing_skus: dict[str, str] | None = None
    allowed_passthrough_parameters: Sequence[str] = ()
    defaults: Json = {}  # duration, resolution, aspect_ratio of a request without
    billing: dict[str, float] = {}  # factor, minimum_seconds

    def __hash__(self) -> int:
        return hash(self.id)

    def to_wire(self) -> Json:
        """All 17 keys, nulls included: the SDKs refuse a model that lacks one."""
        wire = self._asdict()
        del wire["defaults"], wire["billing"]
        return wire

    @property
    def provider(self) -> str:
        """The company as production words it: the first in "Google: Veo" or "google/veo"."""
        return re.split("[:/]", self.name)[0]


_ALLOWED_URL = {  # per kind of reference
    "image_url": r"https://|data:image/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64,",
    "audio_url": r"https://|data:audio/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64,",
    "video_url": "https://",
}


def check_references(body: Json) -> None:
    """Refuse assets that are neither HTTPS nor an image or audio data URL, catalogue or not."""
    for name in ("frame_images", "input_references"):
        for index, asset in enumerate(body.get(name, ())):
            kind = asset["type"]
            if not re.match(_ALLOWED_URL[kind], asset[kind]["url"], re.IGNORECASE):
                where = f"{name}[{index}].{kind}.url"
                raise ApiError(
                    400, f"Invalid reference URL: {where}: Only HTTPS URLs are allowed"
                )


def check_prompt(submit: VideoRequest, model: Model) -> None:
    """Refuse what has neither prompt nor image; some models need something else."""
    if submit.prompt:
        return
    inputs = set(submit.shape.references)
    if submit.shape.frames:
        inputs.add("image_url")
    enough = {"image_url"}
    text = f"{model.provider} video generations require a prompt when no image input is provided"
    if model.upscale_factor:
        enough.add("video_url")
    if model.id == "heygen/avatar-iv":
        enough = {"audio_url"}
        text = "avatar-iv requires a prompt (script) or an audio input reference"
    if not inputs & enough:
        raise ApiError(400, text)


def check_against_catalogue(submit: VideoRequest, model: Model) -> None:
    """Refuse, in production's words, what the model's entry does not offer."""
    shape = submit.shape
    checks: list[tuple[str, Any, Any, str]] = [
        ("Duration", shape.duration, model.supported_durations, "s"),
        ("Resolution", shape.resolution, model.supported_resolutions, ""),
        ("Aspect ratio", shape.aspect_ratio, model.supported_aspect_ratios, ""),
        ("Size", shape.size, model.supported_sizes, ""),
        ("Creativity level", shape.creativity, model.creativity, ""),
    ]
    for word, value, supported, unit in checks:
        if None not in (value, supported) and value not in supported:
            offer = ", ".join(map(str, supported))
            raise _not_supported(word, f"{value}{unit}", f"{offer}{unit}")
    limits, factor = model.upscale_factor, shape.upscale_factor
    if limits and factor and not limits["min"] <= factor <= limits["max"]:
        raise _not_supported(
            "Upscale factor", factor, f"{limits['min']} to {limits['max']}"
        )
    for frame_type in shape.frames:
        if frame_type not in (model.supported_frame_images or ()):
            integration = f'the provider integration for model "{model.id}"'
            raise ApiError(400, f"{integration} does not support {frame_type} frame_images")


def _not_supported(word: str, value: Any, offer: str) -> ApiError:
    metadata = {
        "routing_funnel": [{"step": "Initial Endpoints", "endpoint_count": 1}],
        "failed_routing_step": "Validate Video Parameters",
    }
    text = f"{word} {value} is not supported for this model. Supported {word.lower()}s: {offer}"
    return ApiError(400, text, metadata)


# Pixels.
_SHORT_SIDES: dict[str, int] = json.loads("""{
  "360p": 360, "480p": 480, "720p": 720, "768p": 768, "1080p": 1080,
  "1K": 1024, "2K": 1440, "4K": 2160
}""")
# What Seedance really produces; its catalogue lists other sizes for some.
_SEEDANCE_SIZES: dict[str, dict[str, str]] = json.loads("""{
  "480p": {"16:9": "864x496", "4:3": "752x560", "1:1": "640x640", "21:9": "992x432",
           "9:16": "496x864", "3:4": "560x752", "9:21": "432x992"},
  "720p": {"16:9": "1280x720", "4:3": "1112x834", "1:1": "960x960", "21:9": "1470x630",
           "9:16": "720x1280", "3:4": "834x1112", "9:21": "630x1470"}
}""")
_UPSCALER_INPUT = (1280, 720)  # pixels; the mock never looks at the video that it is given


def duration_of(shape: Shape, model: Model) -> int:
    """Seconds asked for, else the model's default, else 5."""
    first_listed = (model.supported_durations or (5,))[0]
    return shape.duration or model.defaults.get("duration") or first_listed


def has_audio(shape: Shape, model: Model) -> bool:
    """Whether the clip has a sound track: the request's word, else the model's.

    A model that has no sound ignores the request for it.
    """
    if shape.generate_audio is None or model.generate_audio is False:
        return bool(model.generate_audio)
    return shape.generate_audio


def parse_size(text: str) -> tuple[int, int] | None:
    """Width and height of "WxH"; None for anything else, which only a catalogue refuses."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if match is None:
        return None
    return int(match[1]), int(match[2])


@functools.lru_cache(maxsize=1024)  # by each download
def output_size(shape: Shape, model: Model) -> tuple[int, int]:
    """Width and height in pixels of what this request produces: one rule for cost and clip."""
    # 1. As asked for, or as Seedance does.
    first_listed = (model.supported_resolutions or ("720p",))[0]
    resolution = shape.resolution or model.defaults.get("resolution") or first_listed
    ratio = shape.aspect_ratio or model.defaults.get("aspect_ratio", "16:9")
    text = shape.size or ""
    if not text and model.id.startswith("bytedance/seedance-"):
        text = _SEEDANCE_SIZES.get(resolution, {}).get(ratio, "")
    known = parse_size(text)
    if known:
        return known

    # 2. Computed.
    wide, high = _UPSCALER_INPUT
    scale = shape.upscale_factor or 2
    if not model.upscale_factor:
        wide, high = map(int, ratio.split(":"))
        scale = _SHORT_SIDES[resolution] / min(wide, high)
    width, height = round(wide * scale / 2) * 2, round(high * scale / 2) * 2

    # 3. Listed in this shape, or lying on its side: the one of nearest area, if there is any.
    listed = [size for size in map(parse_size, model.supported_sizes or ()) if size]
    listed += [(short, long) for long, short in listed]
    alike = [size for size in listed if abs(size[0] / size[1] * high / wide - 1) <= 0.03]
    area = width * height
    return min(
        alike, key=lambda size: abs(size[0] * size[1] - area), default=(width, height)
    )


@functools.lru_cache(maxsize=1024)
def cost_of(shape: Shape, model: Model) -> float:
    """USD that production charges for this request, by the model's price list; 0 without one."""
    prices: dict[str, float] = {}
    for sku, price in (model.pricing_skus or {}).items():
        prices[sku] = float(price)
        if "cents" in sku:
            prices[sku] /= 100

    # 1. What a price's name can say, and whether this request is like that; the weightiest
    #    first.  Sound stands first for prices by the second, last for those by the token; of
    #    the other resolutions, the farthest stands first.
    width, height = output_size(shape, model)
    short = min(width, height)
    *others, resolution = sorted(
        _SHORT_SIDES, key=lambda name: -abs(_SHORT_SIDES[name] - short)
    )
    audio = has_audio(shape, model)
    video_input = "video_url" in shape.references and not shape.frames
    traits: dict[str, Any] = {
        "seconds_with_audio": audio,
        "seconds_without_audio": not audio,
        "text_to_video": not shape.frames and not shape.references,
        "image_to_video": shape.frames,
        "reference_": shape.references and not shape.frames,
        "video_continuation": video_input,
        "with_video_input": video_input,
        f"_{resolution.lower()}": True,
        **{f"_{name.lower()}": False for name in others},
        "tokens_with_audio": audio,
        "tokens_without_audio": not audio,
        "creative": shape.creativity,
    }

    # 2. What a price is multiplied by.  A token is 1024 pixels; the input's pictures count
    #    too, and the mock takes it to be as long as the output.
    seconds = max(duration_of(shape, model), model.billing.get("minimum_seconds", 0))
    pictures = FPS * seconds + 1
    if video_input:
        pictures += FPS * seconds
    amounts = {
        "video_tokens": int(width * height * pictures / 1024),
        "megapixel": width * height / 1e6 * seconds,
        "second": seconds,
    }

    # 3. The price that fits best: trait by trait, the prices that are right about it stay, if
    #    any is.
    cost = 0.0
    for unit, amount in amounts.items():
        skus = [sku for sku in prices if unit in sku]
        for trait, holds in traits.items():
            right = [sku for sku in skus if (trait in sku) == bool(holds)]
            if right:
                skus = right
        if skus:
            cost = prices[skus[0]] * amount
            break

    # 4. Each image that goes in, the least that is charged, what this model's bills differ by.
    images = len(shape.frames) or shape.references.count("image_url")
    cost += images * prices.get("cents_per_image_input", 0)
    cost += images * prices.get("reference_images", 0)
    cost = max(cost, prices.get("minimum_cents_per_generation", 0))
    return js_number(cost * model.billing.get("factor", 1))


# Enough for GET /videos/models and for real prices where no fixture file brings the catalogue;
# in a file's format.
BUILT_IN_MODELS: list[Json] = json.loads("""[
  {
    "id": "bytedance/seedance-2.5", "canonical_slug": "bytedance/seedance-2.5-20260807",
    "name": "ByteDance: Seedance 2.5", "created": 1786141253, "generate_audio": true,
    "description": "Clips of 4 to 30 s with sound, from text, images or video.",
    "supported_resolutions": ["480p", "720p"],
    "supported_aspect_ratios": ["16:9", "9:16", "1:1", "4:3", "3:4", "21:9"],
    "supported_durations": [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
      22, 23, 24, 25, 26, 27, 28, 29, 30],
    "supported_frame_images": ["first_frame", "last_frame"],
    "pricing_skus": {"video_tokens": "0.0000107", "video_tokens_with_video_input": "0.0000064"},
    "_defaults": {"duration": 5, "resolution": "720p", "aspect_ratio": "1:1"}
  }, {
    "id": "x-ai/grok-imagine-video", "canonical_slug": "x-ai/grok-imagine-video-20260512",
    "name": "SpaceXAI: Grok Imagine Video", "created": 1779117586, "generate_audio": null,
    "description": "Short clips from text or a first frame.",
    "supported_resolutions": ["480p", "720p"], "supported_frame_images": ["first_frame"],
    "supported_aspect_ratios": ["16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3"],
    "supported_durations": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    "pricing_skus": {"cents_per_image_input": "0.2",
      "cents_per_video_output_second_480p": "5", "cents_per_video_output_second_720p": "7"},
    "_defaults": {"duration": 8, "resolution": "480p"}
  }, {
    "id": "kwaivgi/kling-v3.0-std", "canonical_slug": "kwaivgi/kling-v3.0-std-20260429",
    "name": "Kling: Video v3.0 Standard", "created": 1777496205, "generate_audio": true,
    "description": "Clips of 3 to 15 s with sound, with first and last frame.",
    "supported_resolutions": ["720p"], "supported_aspect_ratios": ["16:9", "9:16", "1:1"],
    "supported_durations": [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    "supported_frame_images": ["first_frame", "last_frame"],
    "pricing_skus": {"duration_seconds": "0.084", "duration_seconds_with_audio": "0.126"}
  }, {
    "id": "google/veo-3.1", "canonical_slug": "google/veo-3.1-20260320",
    "name": "Google: Veo 3.1", "created": 1774277148, "generate_audio": true,
    "description": "Clips of 4 to 8 s with sound, up to 4K.",
    "supported_resolutions": ["720p", "1080p", "4K"], "supported_aspect_ratios": ["16:9", "9:16"],
    "supported_durations": [4, 6, 8], "supported_frame_images": ["first_frame", "last_frame"],
    "pricing_skus": {
      "duration_seconds_with_audio": "0.40", "duration_seconds_with_audio_4k": "0.60",
      "duration_seconds_without_audio": "0.20", "duration_seconds_without_audio_4k": "0.40"}
  }
]""")


# ============ 4. Fixtures, faults, scenarios: Fixture, Plan, Fault, load_fixtures ============
#
# A fixture says which submits it takes and what becomes of them (Plan): a job with its course,
# or a refusal (a Fault without end).  One that aimock has for another endpoint takes none.  A
# match is "the list of differences is empty", so what explains a near-miss is what decides.
#
# Files are read strictly.  To add a key to a fixture: a line in FIXTURE_SCHEMA; below
# response.video, a field of Plan by the same name; below match, its value in `differences`.  To
# add a kind of fault: a line in FAULT_SCHEMA and one in FAULT_KINDS, a field of Fault, what it
# does in strike or spoilt (to a webhook: in Courier._attempt), a row in the README.


class Fault(NamedTuple):
    """One thing that goes wrong on one route, and how often.

    Of a webhook, `body` and `truncate` are of what is sent; `stall` does nothing.
    """

    on: str  # a route, see FAULT_SCHEMA
    status: int | None = None  # answer with this instead of doing the work
    message: str = ""  # of the error envelope, as is metadata
    metadata: Json | None = None
    retry_after: float | None = None  # seconds, header Retry-After
    body: bytes | None = None  # instead of the envelope
    content_type: str = "application/json"  # of body
    delay: float = 0.0  # real seconds before the answer; virtual ones before a webhook
    close: bool = False  # no work, no answer
    lost: bool = False  # the work, no answer
    truncate: int | None = None  # the work, this many bytes of the answer's body
    stall: int | None = None  # the work, this many bytes, then silence
    times: float = math.inf  # requests that are hit
    after: int = 0  # requests that pass first
    repeat: bool = False  # start over once a request got through
    label: str = ""  # what journal and log call it: "503", "lost", "delay 2s" ...
    source: Json = {}  # as written
    id: int = 0  # what it is counted by

    def strikes(self, seen: float) -> bool:
        """Whether the next request is hit when `seen` were counted."""
        end = self.after + self.times
        if self.repeat:
            seen %= end + 1
        return self.after <= seen < end

    @property
    def prevents(self) -> bool:
        """Whether the work is not done: no job made, no poll counted."""
        return self.close or self.status is not None


NO_FAULT = Fault("")  # does nothing: stands where none strikes


class Webhook(NamedTuple):
    """How a fixture wants its job's webhook delivered."""

    times: int = 1  # deliveries in all, each with the same idempotency key
    delay: float = 0.0  # seconds after the end
    signature: str = "good"  # good, bad, stale, none


class Pace(NamedTuple):
    """How long a job shows each of WAITING before its end."""

    unit: str  # polls or seconds
    spans: Sequence[float]


BY_CATALOGUE = -1  # as the cost that a fixture gives


class Plan(NamedTuple):
    """What becomes of the submits that a fixture takes, shared by all its jobs."""

    status: Status = Status.COMPLETED  # the end; one of WAITING = never ends
    error: str | None = None
    outputs: int = 1
    cost: float | None = BY_CATALOGUE  # USD
    is_byok: bool = False
    stored: bool = True  # whether signed urls are given out
    elsewhere: bool = False  # whether these are on the mock's other origin
    unsigned_urls: Sequence[str] | None = None  # None: the content route of this mock
    omit: Sequence[str] = ()  # keys that the poll's answer lacks
    clip: bytes | str | None = None  # what is downloaded, or its path; None: a test card
    pace: Pace | None = None  # None: as the mock is set
    webhook: Webhook = Webhook()
    refusal: Fault | None = None  # of the submit: then there is no job
    faults: Sequence[Fault] = ()  # those after the submit are counted per job


class PromptTest(NamedTuple):
    """What a prompt must be like; one that need not be like anything contains ""."""

    words: str  # for near-misses: "containing 'rain'"
    passes: Callable[[str], Any]


class Fixture(NamedTuple):
    """Which submits are meant, and what becomes of them."""

    name: str
    model: str | None  # exact, or followed by a dash and a digit; None: any
    prompt: PromptTest
    criteria: Json  # what else its `match` says, compared as it stands
    plan: Plan
    source: Json  # as written
    id: str  # what its counters are kept by: file, version of the file, place
    group: str  # the same for those that differ in sequenceIndex alone


# In one scope: matches, by id or group of a fixture; requests that a fault looked at, by its id.
Counts = Counter[Any]


def differences(
    fixture: Fixture, submit: VideoRequest, context: str | None, counts: Counts
) -> Iterator[Json]:
    """Why this fixture does not take this submit: nothing, if it does.

    `counts` says how often it, and its group, took one before in this scope.
    """
    times, matched = fixture.source.get("times", math.inf), counts[fixture.id]
    request = {
        "endpoint": "video",
        "body": submit.body,
        "context": context,
        "sequenceIndex": counts[fixture.group],
        "hasToolResult": False,
    }
    if not fixture.prompt.passes(submit.prompt):
        yield _difference("prompt", fixture.prompt.words, submit.prompt)
    if fixture.model not in (None, *model_names(submit.model)):
        yield _difference("model", fixture.model, submit.model)
    yield from _differences_within(fixture.criteria, request)
    if matched >= times:
        yield _difference("times", f"at most {times}", f"{matched} before")


@functools.lru_cache(maxsize=1024)
def model_names(model_id: str) -> tuple[str, ...]:
    """What a fixture may call this model: its id, or the part before a dash and a digit."""
    dashes = re.finditer(r"-(?=\d)", model_id[:256])
    return (model_id, *(model_id[: dash.start()] for dash in dashes))


def _differences_within(wanted: Any, got: Any, *path: str) -> Iterator[Json]:
    if isinstance(wanted, list) and isinstance(got, list):
        wanted, got = dict(enumerate(wanted)), dict(enumerate(got))
    if isinstance(wanted, dict) and isinstance(got, dict):
        for key, value in wanted.items():
            yield from _differences_within(value, got.get(key), *path, str(key))
    elif wanted != got or type(wanted) is not type(got):  # true is not 1
        yield _difference(".".join(path), wanted, got)


def _difference(criterion: str, wanted: Any, got: Any) -> Json:
    if got is None:
        got = "nothing"
    return {"criterion": criterion, "wanted": wanted, "got": shorten(got)}


def near_miss_to_wire(fixture: Fixture, missed: Sequence[Json]) -> Json:
    """Which criteria of a fixture held, and what was wanted and got for the others."""
    failed = {difference["criterion"].partition(".")[0] for difference in missed}
    if "prompt" in failed:
        failed.add("userMessage")
    held = [key for key in fixture.source["match"] if key not in failed]
    return {"fixture": fixture.name, "differences": missed, "held": held}


def describe_miss(miss: Json) -> str:
    """A near-miss in words: 'rainy-cat' wants prompt containing 'rain', got 'a dry cat'."""
    wishes = (
        f"{d['criterion']} {d['wanted']}, got {d['got']!r}" for d in miss["differences"]
    )
    return f"{miss['fixture']!r} wants {'; '.join(wishes)}"


# ---- Reading faults

# Each kind of fault, and what journal and log call it.
FAULT_KINDS = {
    "close": "close",
    "lost": "lost",
    "malformed": "malformed",
    "body": "body",
    "status": "{}",
    "truncate": "truncate {}",
    "stall": "stall {}",
    "delay": "delay {:g}s",
}
FAULT_SCHEMA: Json = json.loads("""{
  "type": "object",
  "required": ["on"],
  "contrary": [["body", "message"], ["body", "metadata"], ["body", "malformed"]],
  "properties": {
    "on": {"enum": ["submit", "poll", "content", "models", "generation", "key", "webhook"]},
    "status": {"type": "int", "minimum": 200, "maximum": 599},
    "message": {"type": "string"},
    "metadata": {"type": "object"},
    "retryAfter": {"type": "number", "minimum": 0, "maximum": 1e9},
    "body": {},
    "contentType": {"type": "string", "pattern": "[ -~]{1,200}"},
    "delay": {"type": "number", "minimum": 0, "maximum": 3600},
    "close": {"type": "boolean"},
    "lost": {"type": "boolean"},
    "malformed": {"type": "boolean"},
    "truncate": {"type": "int", "minimum": 0},
    "stall": {"type": "int", "minimum": 0},
    "times": {"type": "int", "minimum": 1},
    "after": {"type": "int", "minimum": 0},
    "repeat": {"type": "boolean"}
  }
}""")
_fault_ids = itertools.count(1)


def _python_names(value: Json) -> Json:
    """The object without its comments, retryAfter as retry_after."""
    return {
        re.sub("[A-Z]", lambda c: f"_{c[0].lower()}", key): item
        for key, item in value.items()
        if not key.startswith("_")
    }


def fault_from_json(value: Any, place: str = "fault") -> Fault:
    """The fault that this JSON describes; SetupError for what is none."""
    value = json_copy(value, place)
    fields = _python_names(checked(FAULT_SCHEMA, value, place))
    label = " ".join(
        form.format(fields[kind])
        for kind, form in FAULT_KINDS.items()
        if fields.get(kind, False) is not False
    )
    if not label:
        kinds = ", ".join(FAULT_KINDS)
        raise SetupError(f"{place}: does nothing; give one of {kinds}")
    if fields.pop("malformed", False):
        fields["body"] = '{"id": "gen-vid-'
    elif fields.get("status", 500) < 400:
        fields.setdefault("body", "")
    if "body" in fields:
        body = fields["body"]
        if not isinstance(body, str):
            body = _encode_json(body)
        if fields.setdefault("status", 200) in (204, 205, 304):  # which have none
            body = ""
        fields["body"] = body.encode()
    return Fault(**fields, label=label, source=value, id=next(_fault_ids))


# ---- Reading fixtures


def _prompt_test(value: Any, place: str) -> PromptTest:
    if isinstance(value, str):
        value = {"contains": value}
    checked(_PROMPT_SCHEMA, value, place)
    if not value:
        raise SetupError(f"{place}: give one of equals, contains, regex")
    if "equals" in value:
        text = value["equals"]
        return PromptTest(f"equal to {text!r}", text.__eq__)
    if "regex" not in value:
        text = value.get("contains", "")
        return PromptTest(f"containing {text!r}", lambda prompt: text in prompt)
    text = value["regex"]
    import warnings

    try:
        with warnings.catch_warnings():  # of what a later Python may read otherwise
            warnings.simplefilter("ignore")
            return PromptTest(f"matching {text!r}", re.compile(text).search)
    except (re.error, OverflowError, RecursionError) as error:
        raise SetupError(f"{place}.regex: not a regular expression: {error}") from None


_PROMPT_SCHEMA: Json = json.loads("""{
  "type": "object",
  "say": "a string, or an object with equals, contains or regex",
  "contrary": [["equals", "contains"], ["equals", "regex"], ["contains", "regex"]],
  "properties": {
    "equals": {"type": "string"}, "contains": {"type": "string"}, "regex": {"type": "string"}}
}""")
# What is {} is read elsewhere (prompt and userMessage by _prompt_test, faults by
# fault_from_json) or is aimock's: in `match` it never holds, but turnIndex, which is passed over;
# in `response` it is another endpoint's; the rest has no effect.
FIXTURE_SCHEMA: Json = json.loads("""{
  "type": "object",
  "required": ["match"],
  "properties": {
    "name": {"type": "string"},
    "match": {
      "type": "object",
      "contrary": [["prompt", "userMessage"]],
      "properties": {
        "prompt": {}, "userMessage": {},
        "model": {"type": "string"},
        "body": {"type": "object"},
        "context": {"type": "string"},
        "endpoint": {"type": "string"},
        "sequenceIndex": {"type": "int", "minimum": 0},
        "hasToolResult": {"type": "boolean"},
        "turnIndex": {}, "systemMessage": {}, "inputText": {}, "toolCallId": {},
        "toolResultContains": {}, "toolName": {}, "responseFormat": {}}},
    "times": {"type": "int", "minimum": 1},
    "lifecycle": {
      "type": "object",
      "contrary": [["polls", "seconds"]],
      "properties": {
        "polls": {"type": "object", "properties": {
          "pending": {"type": "int", "minimum": 0},
          "in_progress": {"type": "int", "minimum": 0}}},
        "seconds": {"type": "object", "properties": {
          "pending": {"type": "number", "minimum": 0, "maximum": 1e12},
          "in_progress": {"type": "number", "minimum": 0, "maximum": 1e12}}}}},
    "response": {
      "type": "object",
      "contrary": [["video", "status"], ["video", "error"]],
      "properties": {
        "video": {
          "type": "object",
          "contrary": [["b64", "file"]],
          "properties": {
            "status": {"$ref": "status"},
            "file": {"type": "string"},
            "b64": {"type": "string"},
            "error": {"type": "string"},
            "count": {"type": "int", "minimum": 0, "maximum": 100},
            "cost": {"type": "number", "minimum": 0, "maximum": 1e12, "nullable": true},
            "is_byok": {"type": "boolean"},
            "stored": {"type": "boolean"},
            "elsewhere": {"type": "boolean"},
            "unsigned_urls": {"type": "array", "items": {"type": "string"}},
            "omit": {"type": "array",
              "items": {"enum": ["generation_id", "unsigned_urls", "usage", "error"]}},
            "id": {}, "url": {}, "duration": {}}},
        "status": {"type": "int", "minimum": 100, "maximum": 599},
        "retryAfter": {"type": "number", "minimum": 0, "maximum": 1e9},
        "error": {
          "type": "object",
          "properties": {
            "message": {"type": "string"}, "metadata": {"type": "object"},
            "type": {}, "param": {}, "code": {}}},
        "content": {}, "toolCalls": {}, "blocks": {}, "reasoning": {}, "reasoningSignature": {},
        "redactedThinking": {}, "webSearches": {}, "image": {}, "images": {}, "embedding": {},
        "audio": {}, "format": {}, "transcription": {}, "json": {}, "billableUnits": {}, "id": {},
        "created": {}, "model": {}, "usage": {}, "systemFingerprint": {}, "finishReason": {},
        "role": {}, "provider": {}, "nativeFinishReason": {}, "fallthrough": {}}},
    "faults": {"type": "array", "items": {}},
    "webhook": {
      "type": "object",
      "properties": {
        "times": {"type": "int", "minimum": 0, "maximum": 100},
        "delay": {"type": "number", "minimum": 0, "maximum": 1e12},
        "signature": {"enum": ["good", "bad", "stale", "none"]}}},
    "latency": {}, "chunkSize": {}, "truncateAfterChunks": {}, "disconnectAfterMs": {},
    "streamingProfile": {}, "recordedTimings": {}, "replaySpeed": {}, "openRouterProcessing": {},
    "metadata": {}, "chaos": {}
  }
}""")
# What of a match is not compared as it stands; aimock's turnIndex never rejects.
_COMPARED_OTHERWISE = {"prompt", "userMessage", "model", "turnIndex"}


def fixture_from_json(
    value: Any, place: str, name: str, folder: str | None = None, version: str = ""
) -> Fixture:
    """The fixture that this JSON describes.

    `folder` is what `file` is relative to, None where no file may be named; `version` tells
    the counters of an edited file from those before.
    """
    checked(FIXTURE_SCHEMA, value, place)
    match, answer = value["match"], value.get("response", {"video": {}})
    criteria = {
        key: item
        for key, item in match.items()
        if key not in _COMPARED_OTHERWISE and not key.startswith("_")
    }
    if _is_for_another_endpoint(match, answer):
        plan = Plan()
        criteria["endpoint"] = "another than video"
    elif "video" in answer:
        plan = _course_from_json(value, answer["video"], place, folder)
    else:
        plan = Plan(refusal=_refusal_from_json(value, answer, place))
    faults = [
        fault_from_json(fault, f"{place}.faults[{index}]")
        for index, fault in enumerate(value.get("faults", ()))
    ]
    prompt = match.get("prompt", match.get("userMessage", ""))
    group = json.dumps({**match, "sequenceIndex": 0}, sort_keys=True)
    return Fixture(
        name=value.get("name", name),
        model=match.get("model"),
        prompt=_prompt_test(prompt, f"{place}.match.prompt"),
        criteria=criteria,
        plan=plan._replace(faults=faults),
        source=value,
        id=f"{version}{name}",
        group=f"{version}{group}",
    )


def _is_for_another_endpoint(match: Json, answer: Json) -> bool:
    """Whether aimock would answer one of its other endpoints with this."""
    if "video" in answer or "endpoint" in match:
        return match.get("endpoint", "video") != "video" or "json" in answer
    foreign = _python_names(answer).keys() - {"status", "retry_after", "error"}
    return "userMessage" in match or bool(foreign)


def _refusal_from_json(value: Json, answer: Json, place: str) -> Fault:
    """What the submits get that a fixture refuses."""
    error, status = answer.get("error", {}), answer.get("status", 500)
    if not answer.keys() & {"status", "error"}:
        raise SetupError(f"{place}.response: give video, or status or error")
    if status < 400:
        raise SetupError(f"{place}.response.status: a refusal is 400 to 599, got {status}")
    for key in sorted(value.keys() & {"lifecycle", "webhook"}):
        raise SetupError(f"{place}: {key} has no effect, a refused submit makes no job")
    return Fault(
        "submit",
        status=status,
        message=error.get("message", ""),
        metadata=error.get("metadata"),
        retry_after=answer.get("retryAfter"),
    )


def _course_from_json(value: Json, video: Json, place: str, folder: str | None) -> Plan:
    """The course of the jobs that a fixture makes."""
    place = f"{place}.response.video"
    name = video.get("status", "completed")
    status = Status(name.replace("processing", "completed"))
    usual_error = ENDINGS.get(status)
    if video.get("error") and not usual_error:
        raise SetupError(f"{place}.error: a job that is {status.value} has none")
    pace = None
    for unit, spans in _python_names(value.get("lifecycle", {})).items():
        # At most one, see `contrary`.
        pace = Pace(unit, [spans.get(status.value, 0) for status in WAITING])
    urls = video.get("unsigned_urls", ["that of the content route"])
    plan = Plan(**{key: video[key] for key in video.keys() & Plan._fields})
    return plan._replace(
        status=status,
        error=video.get("error") or usual_error,
        outputs=video.get("count", len(urls)),
        clip=_clip_from_json(video, place, folder),
        pace=pace,
        webhook=Webhook(**_python_names(value.get("webhook", {}))),
    )


def _clip_from_json(video: Json, place: str, folder: str | None) -> bytes | str | None:
    """What is downloaded, or its path; None for a test card."""
    if "file" in video:
        if folder is None:
            text = 'not here, it would be read from the server\'s disk; use "b64"'
            raise SetupError(f"{place}.file: {text}")
        file = os.path.join(folder, video["file"])
        if not os.path.isfile(file):
            raise SetupError(f"{place}.file: no such file: {file}")
        return file
    if "b64" not in video:
        return None
    # As lenient as aimock: URL-safe letters, blanks and missing padding are fine.
    text = "".join(video["b64"].split())
    text += "=" * (-len(text) % 4)
    # Some more would be decoded.
    if not re.fullmatch(r"[\w+/-]*={0,2}", text, re.ASCII):
        raise SetupError(f"{place}.b64: not base64")
    return base64.b64decode(text, "-_")


# ---- Reading models

MODEL_SCHEMA: Json = json.loads("""{
  "type": "object",
  "required": ["id"],
  "properties": {
    "id": {"type": "string"},
    "canonical_slug": {"type": "string"},
    "hugging_face_id": {"type": "string", "nullable": true},
    "name": {"type": "string"},
    "created": {"type": "int", "minimum": 0},
    "description": {"type": "string", "nullable": true},
    "supported_resolutions": {"type": "array", "nullable": true, "items":
      {"$ref": "resolution"}},
    "supported_aspect_ratios": {"type": "array", "nullable": true, "items":
      {"$ref": "aspect_ratio"}},
    "supported_sizes": {"type": "array", "nullable": true, "items": {"type": "string"}},
    "supported_durations": {"type": "array", "nullable": true, "items":
      {"type": "int", "minimum": 1}},
    "supported_frame_images": {"type": "array", "nullable": true, "items":
      {"enum": ["first_frame", "last_frame"]}},
    "upscale_factor": {"type": "object", "nullable": true, "required": ["min", "max"],
      "properties": {"min": {"type": "number", "minimum": 0},
                     "max": {"type": "number", "minimum": 0}}},
    "creativity": {"type": "array", "nullable": true, "items": {"type": "int", "minimum": 0}},
    "generate_audio": {"type": "boolean", "nullable": true},
    "seed": {"type": "boolean", "nullable": true},
    "pricing_skus": {"type": "record", "nullable": true, "values":
      {"type": "string", "pattern": "[0-9]{1,9}([.][0-9]{1,30})?(e-[0-9]{1,2})?"}},
    "allowed_passthrough_parameters": {"type": "array", "items": {"type": "string"}},
    "_defaults": {"type": "object", "properties": {
      "duration": {"$ref": "duration"},
      "resolution": {"$ref": "resolution"},
      "aspect_ratio": {"$ref": "aspect_ratio"}}},
    "_billing": {"type": "object", "properties": {
      "factor": {"type": "number", "minimum": 0, "maximum": 1000},
      "minimum_seconds": {"type": "number", "minimum": 0, "maximum": 1000}}}
  }
}""")


def model_from_json(value: Any, place: str) -> Model:
    """The model of this JSON: its 17 keys, of which only id must be there, _defaults, _billing.

    What is left out is not checked; on the wire it is null, but frame images, where null would
    mean none, and the description, which must be a string.
    """
    checked(MODEL_SCHEMA, value, place)
    fields = {"canonical_slug": value["id"], "name": value["id"], **_python_names(value)}
    defaults, billing = value.get("_defaults", {}), value.get("_billing", {})
    return Model(**fields, defaults=defaults, billing=billing)


# ---- Reading files

# Of files and folders: modification time and size; () = not there.
Stamps = dict[str, tuple[int, ...]]


class Loaded(NamedTuple):
    """What the fixture files say."""

    fixtures: Sequence[Fixture]
    models: Sequence[Model]
    models_by_name: dict[str, Model]  # by id and canonical slug
    enforced: bool  # whether a listed model's limits are
    complete: bool  # whether a model that is not listed is unknown
    catalogue: str  # for the start: which models are checked
    notes: Sequence[str]  # for the log
    stamps: Stamps  # what is watched


_DOCUMENT_SCHEMA: Json = json.loads("""{
  "type": "object",
  "properties": {
    "models": {"type": "array", "items": {}},
    "fixtures": {"type": "array", "items": {}},
    "mcpFakes": {}
  }
}""")
_BESIDE = os.path.join(os.path.dirname(__file__), "fixtures.json")


class Part(NamedTuple):
    """What one file says, or fixtures given as Python objects.  Shared: nobody changes it."""

    name: str
    fixtures: list[Fixture]
    models: list[Model]
    notes: list[str]
    unchecked: bool = False  # whether it says that there are no models


def load_fixtures(config: Config) -> Loaded:
    """Read files, folders and fixtures given as Python objects, in their order.

    Raises SetupError for the first thing that is wrong; its `args` are all of them.
    """
    stamps: Stamps = {}
    parts: list[Part] = []
    problems: list[str] = []
    for position, source in enumerate(config.fixtures):
        if source is None and config.record:
            continue  # the catch-all of the file beside this one would take everything
        parts += _parts_of(source, position, stamps, problems)
    if problems:
        raise SetupError(*problems)

    # The catalogue: of these files, else of the one beside this, else the built-in models.
    listing = [part for part in parts if part.models]
    enforced = not any(part.unchecked for part in parts)
    if not listing:
        # What is wrong with that file does not matter here.
        listing = [part for part in _parts_of(None, 0, stamps, []) if part.models]
    complete = bool(listing)
    described = f"models checked ({', '.join(part.name for part in listing)})"
    if not listing:
        listing = [part_of({"models": BUILT_IN_MODELS})]
        described = "built-in models checked, any other accepted"
    models = {model.id: model for part in reversed(listing) for model in part.models}
    by_slug = {model.canonical_slug: model for model in models.values()}
    described = f"{len(models)} {described}"
    if not enforced:
        described = "no model is checked"
    if config.record:
        enforced = False
        described = (
            f"recording: what no fixture takes goes to {config.upstream} with the client's "
            "key: that costs real money; the upstream checks models"
        )
    return Loaded(
        fixtures=[fixture for part in parts for fixture in part.fixtures],
        models=sorted(models.values(), key=lambda model: -model.created),
        models_by_name=by_slug | models,
        enforced=enforced,
        complete=complete and enforced,
        catalogue=described,
        notes=[note for part in parts for note in part.notes],
        stamps=stamps,
    )


def part_of(document: Any, path: str = "", version: str = "", first: int = 0) -> Part:
    """What a document says; `first` is the index of its first fixture."""
    folder, name = os.path.split(path)
    place = ""
    if path:
        place = f"{path}: "
    problems: list[str] = []
    with collecting(problems):
        checked(_DOCUMENT_SCHEMA, document, f"{place}document")
    if not isinstance(document, dict):
        document = {}
    part = Part(name or "as given", [], [], [], document.get("models") == [])
    for index, entry in enumerate(_as_list(document.get("models", ()))):
        with collecting(problems):
            part.models.append(model_from_json(entry, f"{place}models[{index}]"))
    for index, entry in enumerate(_as_list(document.get("fixtures", ())), first):
        where = f"{place}fixtures[{index}]"
        with collecting(problems):
            fixture = fixture_from_json(entry, where, f"{name}[{index}]", folder, version)
            part.fixtures.append(fixture)
            part.notes.extend(f"{where}: {note}" for note in _notes_on(fixture))
    if problems:
        raise SetupError(*problems)
    return part


def _parts_of(
    source: Any, position: int, stamps: Stamps, problems: list[str]
) -> Iterator[Part]:
    """What a path says, fixtures as Python objects, or the file beside this one, for None."""
    if isinstance(source, Mapping):
        with collecting(problems):
            document = json_copy(source, f"fixtures[{position}]")
            if document.keys() & {"fixtures", "models"}:
                yield part_of(document, version=f"{position} ")
            else:
                yield part_of({"fixtures": [document]}, first=position)
        return
    beside = source is None
    if beside:
        source = _BESIDE
    if not isinstance(source, (str, os.PathLike)):
        raise SetupError(f"fixtures: expected a path or an object, got {source!r}")
    files = list(_files_in(os.fspath(source), stamps))
    if not files:
        yield Part("", [], [], [f"{source}: no *.json in this folder, or not readable"])
    for file in files:
        stamps[file] = _stamp(file)
        with collecting(problems):
            yield part_of_file(file, stamps[file], beside)


def _files_in(path: str, stamps: Stamps) -> Iterator[str]:
    """The file itself, or a folder's *.json, recursively.

    Each real folder is read once; the folders are put into `stamps`.
    """
    if not os.path.isdir(path):
        yield path
        return
    for folder, folders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in stamps:
            folders.clear()
            continue
        stamps[real] = _stamp(real)
        folders.sort()
        for file in sorted(os.path.join(folder, name) for name in names):
            if file.endswith(".json") and os.path.isfile(file):
                yield file


def _stamp(path: str) -> tuple[int, ...]:
    with contextlib.suppress(OSError, ValueError):
        stat = os.stat(path)
        return stat.st_mtime_ns, stat.st_size
    return ()


@functools.lru_cache(maxsize=64)  # a suite makes hundreds of mocks
def part_of_file(path: str, stamp: tuple[int, ...], beside: bool) -> Part:
    """What a file says; the one `beside` this may be missing, or nothing of ours."""
    if not os.path.isfile(path):
        if beside:
            return Part("", [], [], [])
        raise SetupError(f"{path}: neither a file nor a folder")
    try:
        with open(path, encoding="utf-8-sig") as file:
            document = _decode_document(file.read())
        to_json(document)  # UnicodeEncodeError for half a surrogate pair
    except (OSError, ValueError, RecursionError) as error:
        raise SetupError(f"{path}: cannot be read: {error}") from None
    ours = isinstance(document, dict) and document.keys() & {"fixtures", "models"}
    if beside and not ours:
        return Part("", [], [], [f"{path}: no fixtures, passed over"])
    return part_of(document, path, f"{path} {stamp} ")


def _unique_keys(pairs: list[tuple[str, Any]]) -> Json:
    fields: Json = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"the key {key!r} stands more than once in one object")
        fields[key] = value
    return fields


_decode_document = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_float=_number, parse_constant=_number
).decode


def _notes_on(fixture: Fixture) -> Iterator[str]:
    """What is silently something else here than its author may think."""
    video = fixture.source.get("response", {}).get("video", {})
    if fixture.criteria.get("endpoint", "video") != "video":
        yield "answers another endpoint, passed over"
    if "url" in video and fixture.plan.clip is None:
        yield "url has no effect, the clip is a test card; see unsigned_urls, file, b64"
    if video.get("status") == "processing":
        yield 'status "processing" means completed, as in aimock'
    if video.get("error") == "":
        yield "an empty error is replaced by the usual text"
    if fixture.plan.clip == b"":
        yield "an empty b64 is an empty clip"


# Ordinary fixtures that every mock carries before the user's: a word in the prompt, and no file
# is needed.  The word begins with mock:, else they are not tried.
SCENARIOS: list[Json] = json.loads("""[
  {"name": "mock:failed", "match": {"prompt": "mock:failed"},
    "response": {"video": {"status": "failed"}}},
  {"name": "mock:cancelled", "match": {"prompt": "mock:cancelled"},
    "response": {"video": {"status": "cancelled"}}},
  {"name": "mock:expired", "match": {"prompt": "mock:expired"},
    "response": {"video": {"status": "expired"}}},
  {"name": "mock:stuck", "match": {"prompt": "mock:stuck"},
    "response": {"video": {"status": "in_progress"}}},
  {"name": "mock:no-urls", "match": {"prompt": "mock:no-urls"},
    "response": {"video": {"unsigned_urls": [], "stored": false}}},
  {"name": "mock:two-videos", "match": {"prompt": "mock:two-videos"},
    "response": {"video": {"count": 2}}},
  {"name": "mock:moderated", "match": {"prompt": "mock:moderated"},
    "response": {"status": 403}},
  {"name": "mock:no-credits", "match": {"prompt": "mock:no-credits"},
    "response": {"status": 402}},
  {"name": "mock:rate-limited", "match": {"prompt": "mock:rate-limited"},
    "faults": [{"on": "submit", "status": 429, "retryAfter": 1, "times": 2, "repeat": true}]},
  {"name": "mock:overloaded", "match": {"prompt": "mock:overloaded"},
    "faults": [{"on": "submit", "status": 503, "retryAfter": 1, "times": 1, "repeat": true}]},
  {"name": "mock:flaky", "match": {"prompt": "mock:flaky"},
    "faults": [{"on": "poll", "status": 503, "times": 1}]},
  {"name": "mock:lost-response", "match": {"prompt": "mock:lost-response"},
    "faults": [{"on": "submit", "lost": true, "times": 1, "repeat": true}]},
  {"name": "mock:truncated", "match": {"prompt": "mock:truncated"},
    "faults": [{"on": "content", "truncate": 2000}]},
  {"name": "mock:stalled", "match": {"prompt": "mock:stalled"},
    "faults": [{"on": "content", "stall": 2000}]},
  {"name": "mock:empty-clip", "match": {"prompt": "mock:empty-clip"},
    "response": {"video": {"b64": ""}}},
  {"name": "mock:not-a-clip", "match": {"prompt": "mock:not-a-clip"},
    "faults": [{"on": "content", "status": 200, "body": "still processing",
      "contentType": "text/plain"}]},
  {"name": "mock:elsewhere", "match": {"prompt": "mock:elsewhere"},
    "response": {"video": {"elsewhere": true}}},
  {"name": "mock:busy-later", "match": {"prompt": "mock:busy-later"},
    "response": {"video": {"status": "failed", "error": "The service is currently \
experiencing high load and cannot process your request. Please try again later. Operation ID: \
3f1c7a52-0d4e-4b5e-9a43-6c1d2b7e8f90"}}},
  {"name": "mock:blocked-image", "match": {"prompt": "mock:blocked-image"},
    "response": {"video": {"status": "failed", "error": "The input image contains \
content that has been blocked by your current safety settings for person/face generation. Support \
codes: 17301594"}}},
  {"name": "mock:slow", "match": {"prompt": "mock:slow"},
    "lifecycle": {"seconds": {"pending": 5, "in_progress": 10}}}
]""")


SCENARIO_FIXTURES = [fixture_from_json(entry, "", entry["name"]) for entry in SCENARIOS]


# ============ 5. Jobs, lifecycle, store: Job, status_at, Store ==============================
#
# A job is a request, a plan and a birth time; what a poller sees is status_at(job, now), so
# nothing has to run in the background and two looks at one clock reading always agree.  A
# change is a new Job stored in its place.

RETENTION_SECONDS = 24 * 3600  # how long outputs are kept; production's is not known
# After which a job with a callback ends by itself, if its pace is polls and nobody polls.
SELF_END_SECONDS = 1.0
POLL_SECONDS = 10.0  # to a job paced by polls, so much of `advance` is one more poll
_MAX_SCOPES = 10_000  # counters of older scopes are forgotten: a mock may run for weeks
# What takes every submit if the files have no fixture.
_SUCCESS = fixture_from_json({"match": {}}, "", "")

# Good enough for a mock: 256 is no multiple of 62, so eight letters come a little more often.
_ID_LETTERS = (b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" * 5)[:256]


class Job(NamedTuple):
    """One accepted submit.  Time points are unix seconds on the mock's clock."""

    id: str
    submit: VideoRequest  # shortened, without its body
    body: bytes  # the submit's kept_body
    model: Model
    plan: Plan
    fixture: str | None
    pace: Pace
    cost: float | None  # USD, if it completes
    origin: str  # of the URLs in its webhook
    key: str  # label of the API key
    scope: str
    callback_url: str  # "" for none
    ending: Status  # the status it ends in; one of WAITING = never ends
    error: str | None
    created_at: float
    ends_at: float  # known, or reached; infinite while only polls can tell
    ends_after: float  # this many polls; infinite where they do not matter
    polls: int = 0
    advanced: int = 0  # more polls: each stands for POLL_SECONDS of `advance`


def new_job(
    submit: VideoRequest,
    model: Model,
    fixture: Fixture,
    pace: Pace,
    now: float,
    callback_url: str,
    **facts: Any,
) -> Job:
    """The job that a fixture plans for a submit, with `pace` unless it has its own."""
    plan = fixture.plan
    pace = plan.pace or pace
    cost = plan.cost
    if cost == BY_CATALOGUE:
        cost = cost_of(submit.shape, model)
    ends_at = ends_after = math.inf
    if plan.status in ENDINGS:
        if pace.unit == "polls":
            ends_after = sum(pace.spans) + 1
            if callback_url:
                ends_at = now + SELF_END_SECONDS
        else:
            ends_at = now + sum(pace.spans)
    # gen-vid-<unix seconds>-<20 letters and digits>, as recorded
    letters = os.urandom(20).translate(_ID_LETTERS).decode()
    return Job(
        id=f"gen-vid-{int(now)}-{letters}",
        submit=submit._replace(prompt=shorten(submit.prompt), body={}),
        model=model,
        plan=plan,
        fixture=fixture.name or None,
        pace=pace,
        cost=cost,
        callback_url=callback_url,
        ending=plan.status,
        error=plan.error,
        created_at=now,
        ends_at=ends_at,
        ends_after=ends_after,
        **facts,
    )


def status_at(job: Job, now: float) -> Status:
    """What a look at the job shows at this time; it only ever moves forward."""
    if now >= job.ends_at:
        return job.ending
    passed = now - job.created_at
    if job.pace.unit == "polls":
        passed = job.polls + job.advanced - 1
    pending, in_progress = WAITING
    if passed < job.pace.spans[0] or job.ending is pending:
        return pending
    return in_progress


def expires_at(job: Job) -> int:
    """When the outputs of a job that has ended stop being kept."""
    return int(job.ends_at) + RETENTION_SECONDS


def end_after(job: Job, polls: int, first_at: float) -> float:
    """When the job ends if it is polled so often from then on, POLL_SECONDS apart."""
    needed = job.ends_after - job.polls - job.advanced
    if 0 < needed <= polls:
        return min(job.ends_at, first_at + (needed - 1) * POLL_SECONDS)
    return job.ends_at


class Wanted(NamedTuple):
    """Which requests are looked for; None: any.  Who wants the same waits by the same key."""

    method: str | None
    path: str | None  # the beginning of one, with or without /api/v1
    status: str | None  # "404", "4xx", "closed"
    job_id: str | None
    scope: str | None

    def takes(self, request: Request) -> bool:
        """Whether this is one of them."""
        answered = str(request.note.status or "closed")
        return (
            self.method in (None, request.method)
            and request.url.startswith((self.path or "", f"{API}{self.path}"))
            and self.status in (None, answered, f"{answered[0]}xx")
            and self.job_id in (None, request.note.job_id)
            and self.scope in (None, scope_of(request))
        )


class Store:
    """Everything about one mock that changes but its deliveries.

    It is behind one lock, but for the first fields, which say so.

    A reset makes another one: a submit in flight still lands in the old one, which nobody sees
    any more, and so does its line in the journal.  What goes in and out is frozen: a reader
    holds a snapshot that nobody can change under it.  Nothing here blocks while the lock is
    held.
    Methods that VideoMock has by the same name are described there.
    """

    def __init__(self, config: Config, loaded: Loaded, clock: Callable[[], float]) -> None:
        self.config = config
        # The next four are not the lock's: each is replaced, or grows, in one step, so that who
        # reads it sees it as before or as after.
        self.loaded = loaded
        # On _monotonic: when the latest look for edited files began.  One that failed does not
        # count, so that each submit looks again, and is told.
        self.looked_at = 0.0
        # The server's, which strike before those of fixtures; VideoMock adds and clears them.
        self.faults = [fault_from_json(fault) for fault in config.fault]
        # Tried before all others; VideoMock adds them.
        self.added: list[Fixture] = []
        if config.trial:  # every submit takes its course
            course = {"match": {}, **TRIALS[config.trial].course}
            self.added.append(fixture_from_json(course, "trial", f"trial:{config.trial}"))
        self._clock = clock
        self._offset = 0.0  # what `advance` has added to the clock
        self._lock = threading.Lock()  # guards every field below; some may be read without
        self.jobs_by_id = OrderedDict[str, Job]()  # the oldest first
        self.latest = "latest"  # id of the newest, once there is one
        # Heap of (end, id): each end in sight that a job has, or had before it was put off, and
        # that is not settled; the last entry is no job's.
        self._ends: list[tuple[float, str]] = [(math.inf, "")]
        self._ended: list[Job] = []  # settled ones that have a callback, until `take_ended`
        self._spent = Counter[str]()  # USD of settled jobs, by label of the key
        self._journal: dict[int, Request] = {}  # by seq, without gaps
        self.last_seq = 0
        self._came = threading.Condition(self._lock)  # a request that somebody waits for
        # What is wanted, by whom (a thread), and what of that there is.
        self._waits: dict[Wanted, dict[int, list[Request]]] = {}
        self._closed = False
        # The counters of a scope, the same ones each time.
        most = _MAX_SCOPES + config.max_jobs
        self._counts_of = functools.lru_cache(most)(lambda scope: Counter[Any]())
        self.hits: Counts = Counter()  # over all scopes

    def close(self) -> None:
        """Let go of everybody who waits."""
        with self._lock:
            self._closed = True
            self._came.notify_all()

    # ---- Clock

    def now(self) -> float:  # with the lock or without: it reads one number
        return self._clock() + self._offset

    def advance(self, seconds: float) -> None:
        with self._lock:
            passed, since = divmod(self._offset, POLL_SECONDS)
            first_at = self.now() - since + POLL_SECONDS
            self._offset += seconds
            polls = int(self._offset // POLL_SECONDS - passed)
            for job in self.jobs_by_id.values():
                if job.ends_at > first_at:  # else it ends before the first of them
                    ends_at = end_after(job, polls, first_at)
                    self._put(job._replace(advanced=job.advanced + polls, ends_at=ends_at))

    # ---- Fixtures and models

    def reload_if_edited(self, looked_at: float) -> str | None:
        """Take an edited fixture file over; the reason, each time, while it is invalid.

        `looked_at` is when this look begins, on _monotonic.
        """
        stamps = self.loaded.stamps
        if stamps != {path: _stamp(path) for path in stamps}:
            try:
                self.loaded = load_fixtures(self.config)
            except SetupError as error:
                return str(error)
        self.looked_at = looked_at
        return None

    def fixtures(self, prompt: str = "mock:") -> list[Fixture]:
        """All, in the order of trying; for a prompt without mock: not the scenarios."""
        scenarios = list[Fixture]()
        if "mock:" in prompt:
            scenarios = SCENARIO_FIXTURES
        return [*self.added, *scenarios, *self.loaded.fixtures]

    def listed_model(self, model_id: str) -> Model | None:
        """The model of this id, canonical slug, or id with a date of eight digits."""
        undated = re.sub(r"-[0-9]{8}\Z", "", model_id)
        models = self.loaded.models_by_name
        return models.get(model_id) or models.get(undated)

    def find_model(self, model_id: str) -> Model | None:
        """The listed model; else, if any is accepted or a fixture names it, one without limits.

        A fixture that names an unlisted model also means its dated slugs.
        """
        listed = self.listed_model(model_id)
        if listed is not None or not 0 < len(model_id) <= 256:
            return listed
        if self.loaded.complete and not self.config.trial:
            names = set(model_names(model_id))
            named = names.intersection(fixture.model for fixture in self.fixtures())
            if all(map(self.listed_model, named)):
                return None
        return Model(model_id, model_id, name=model_id)

    def choose(
        self, submit: VideoRequest, context: str | None, scope: str
    ) -> tuple[Fixture | None, Fault, list[Json]]:
        """The fixture that takes this submit, or None and near-misses; the fault that hits it.

        Counted as a match unless the fault keeps the work from being done.
        """
        with self._lock:
            fault = self._draw("submit", self.faults, scope)
            counts = self._counts_of(scope)
            models = (None, *model_names(submit.model))
            fixtures = self.fixtures(submit.prompt)
            for fixture in fixtures:
                # Most fail at the quick first two looks.
                if (
                    fixture.model in models
                    and fixture.prompt.passes(submit.prompt)
                    and not any(differences(fixture, submit, context, counts))
                ):
                    break
            else:
                if self.loaded.fixtures or self.config.record:
                    return None, fault, self._near_misses(fixtures, submit, context, counts)
                fixture = _SUCCESS
            if fault is NO_FAULT:
                fault = self._draw("submit", fixture.plan.faults, scope)
            if not fault.prevents:
                counts[fixture.id] += 1
                counts[fixture.group] += 1
                self.hits[fixture.id] += 1
            return fixture, fault, []

    def _near_misses(
        self,
        fixtures: Sequence[Fixture],
        submit: VideoRequest,
        context: str | None,
        counts: Counts,
    ) -> list[Json]:  # self._lock is held
        misses = [
            near_miss_to_wire(fixture, list(differences(fixture, submit, context, counts)))
            for fixture in fixtures
        ]
        return sorted(
            misses,
            key=lambda miss: (
                not miss["held"],
                len(miss["differences"]),
                -len(miss["held"]),
            ),
        )[:3]

    # ---- Faults

    def draw_fault(self, on: str, scope: str, job: Job | None = None) -> Fault:
        """The fault that hits this: one of the server's, else the job's own.

        What a fixture faults after the submit is counted per job, as if that were a scope.
        """
        with self._lock:
            fault = self._draw(on, self.faults, scope)
            if fault is NO_FAULT and job is not None:
                fault = self._draw(on, job.plan.faults, job.id)
            return fault

    def _draw(
        self, on: str, faults: Sequence[Fault], scope: str
    ) -> Fault:  # self._lock is held
        """The first that strikes."""
        for fault in faults:
            if fault.on == on:
                counts = self._counts_of(scope)
                counts[fault.id] += 1
                if fault.strikes(counts[fault.id] - 1):
                    self.hits[fault.id] += 1
                    return fault
        return NO_FAULT

    # ---- Jobs

    def add_job(self, job: Job) -> None:
        with self._lock:
            self._settle()
            self.jobs_by_id[job.id] = job
            self.latest = job.id
            if job.ends_at < math.inf:
                heapq.heappush(self._ends, (job.ends_at, job.id))
            if len(self.jobs_by_id) > self.config.max_jobs:
                self.jobs_by_id.popitem(last=False)

    def _put(self, job: Job) -> None:  # self._lock is held
        if job.ends_at != self.jobs_by_id[job.id].ends_at:
            heapq.heappush(self._ends, (job.ends_at, job.id))
        self.jobs_by_id[job.id] = job

    def _settle(self) -> None:  # self._lock is held
        """Account for the jobs that have ended by now: what they cost, whom to tell."""
        now = self.now()
        while self._ends[0][0] <= now:
            ends_at, job_id = heapq.heappop(self._ends)
            job = self.jobs_by_id.get(job_id)
            if job is None or job.ends_at != ends_at:
                continue  # forgotten; put off or brought forward
            if self._ends[0] == (ends_at, job_id):
                continue  # put off, and back again: it is here twice
            if job.ending is Status.COMPLETED:
                self._spent[job.key] += job.cost or 0  # type: ignore[assignment]
            if job.callback_url:
                self._ended.append(job)

    def take_ended(self) -> tuple[list[Job], float]:
        """The jobs with a callback that have ended since the last call, and when to call again."""
        with self._lock:
            self._settle()
            ended, self._ended = self._ended, []
            return ended, self._ends[0][0]

    def job(self, job_id: str | None) -> Job:  # with the lock or without
        """The job of this id; looking is no poll.  ApiError 404 for none."""
        job = self.jobs_by_id.get(job_id or "")
        if job is None:
            raise ApiError(404, f"Job {job_id} not found")
        return job

    def poll(self, job_id: str) -> Job:
        """The job after one more poll; ApiError 404 for none."""
        with self._lock:
            job, now = self.job(job_id), self.now()
            ends_at = end_after(job, 1, now)
            if now < ends_at < math.inf and job.pace.unit == "polls":
                # It would end by itself, but somebody polls.
                ends_at = now + SELF_END_SECONDS
            job = job._replace(polls=job.polls + 1, ends_at=ends_at)
            self._put(job)
            return job

    def looked_up(self, job: Job) -> bool:
        """Whether /generation knows a completed job: not at the first lookup."""
        with self._lock:
            counts = self._counts_of(job.id)
            counts["lookups"] += 1
            return counts["lookups"] > 1

    def jobs(
        self, scope: str | None = None, offset: int = 0, limit: int | None = None
    ) -> list[Job]:
        with self._lock:
            newest = reversed(self.jobs_by_id.values())
            wanted = (job for job in newest if scope in (None, job.scope))
            return page_of(wanted, limit, offset)

    def finish(self, job_id: str | None, status: Status, error: str | None) -> Job:
        with self._lock:
            job, now = self.job(job_id), self.now()
            current = status_at(job, now)
            if current is status:
                return job
            if current in ENDINGS:
                raise ApiError(
                    409, f"Job {job.id} has ended already: it is {current.value}"
                )
            if status is job.ending:
                error = error or job.error
            job = job._replace(ending=status, error=error or ENDINGS[status], ends_at=now)
            self._put(job)
            return job

    def spent(self) -> Counter[str]:
        """USD that completed jobs cost, by label of the key."""
        with self._lock:
            self._settle()
            return self._spent.copy()

    # ---- Journal

    def record(self, request: Request) -> None:
        """Write a request down in the journal, and tell those who wait for it."""
        note = request.note
        if len(request.body) > _SMALL_BODY:
            body = note.body or kept_body(request.body, shown_body(request.body))
            request = request._replace(body=body)
        with self._lock:
            seq = note.seq = self.last_seq + 1
            note.time = self.now()
            self._journal[seq] = request
            self._journal.pop(seq - self.config.max_requests, None)
            self.last_seq = seq  # last, since it is read without the lock
            for wanted, waits in self._waits.items():
                if wanted.takes(request):
                    for found in waits.values():
                        found.append(request)
                    self._came.notify_all()

    def newest_requests(self, since: int = 0) -> Iterator[Request]:
        """The journal, newest first, down to this seq; nothing is locked meanwhile."""
        for seq in range(self.last_seq, since, -1):
            request = self._journal.get(seq)
            if request is None:
                return
            yield request

    def wait_for_requests(
        self, wanted: Wanted, since: int, count: int, seconds: float
    ) -> list[Request]:
        """Those wanted, oldest first; blocks up to so many real seconds for `count` of them.

        What comes meanwhile is counted even if the journal is too small to keep it.
        """
        with self._lock:
            found = list(filter(wanted.takes, self.newest_requests(since)))[::-1]
            waits = self._waits.setdefault(wanted, {})
            waits[threading.get_ident()] = found
            self._came.wait_for(
                lambda: self._closed or len(found) >= count,
                min(seconds, threading.TIMEOUT_MAX),
            )
            del waits[threading.get_ident()]
            if not waits:
                del self._waits[wanted]
            return found


# ============ 6. Test card: an MP4 writer ===================================================
#
# A clip in the shape that was asked for: colour bars, a panel with a running clock and the
# prompt, a progress bar, a beep each second.  H.264 constrained baseline (ITU-T H.264,
# clauses named below), AAC-LC (ISO 14496-3) and MP4 boxes (ISO 14496-12, -14, -15), written
# so that a reader can follow with these at hand.
#
# The idea: a picture is a canvas of flat 16x16 macroblocks.  Each is coded as Intra_16x16
# predicted from the one above, plus one DC coefficient per colour plane.  At luma QP 28 and
# chroma QP 22 the DC level *is* the difference of the sample values, exactly, so every
# decoder shows the same pixels; an unchanged macroblock costs a byte or, in a later
# picture, nothing.
#
# All pictures but the first, the sound and the tables depend on the shape alone: they are
# cast once, as a Mould.  A clip adds its first picture, its title and the offsets.

FPS = 24
MAX_CLIP_SECONDS = 300  # a longer request gets this much
_MAX_MACROBLOCKS = 138_000  # more than 8K; level 6.0 has 139,264, and sizes are rounded up
_SAMPLE_RATE = 48_000
_AAC_FRAME = 1024  # samples

# A row of the canvas is a string: 0 panel, 1 dot of a letter, - empty progress bar, letters
# from _FIRST_BAR on bars; ? is what is predicted from nothing.  Y, Cb, Cr of each:
_COLOURS = {
    "0": (28, 128, 128),
    "1": (235, 128, 128),
    "-": (90, 128, 128),
    "?": (128, 128, 128),
}

# 3x5 dots a letter, one octal digit a row.
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:.,-'!?/+()_\"=#"
_DOTS = (
    "25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 57755 "
    "65555 25552 65644 25563 65655 34216 72222 55557 55552 55775 55255 55222 71247 "
    "75557 26227 71747 71317 55711 74717 74757 71122 75757 75717 02020 00002 00024 "
    "00700 22000 22202 71202 11244 02720 12221 42224 00007 55000 07070 57575"
)
_GLYPHS = dict(zip(_LETTERS, _DOTS.split(), strict=True))
# With a gap after it.
_DOT_ROWS = str.maketrans({f"{digit}": f"{digit:03b}0" for digit in range(8)})


def ue(number: int) -> str:
    """Unsigned Exp-Golomb code (9.1) as a string of bits."""
    length = (number + 1).bit_length()
    return f"{number + 1:0{2 * length - 1}b}"


def nal(header: int, bits: str) -> bytes:
    """A NAL unit (7.3.1) after its length, as in a sample (ISO 14496-15).

    Header byte, payload with stop bit, emulation prevention.
    """
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    unit = bytes([header]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)
    return len(unit).to_bytes(4, "big") + unit


# Macroblocks per picture that some levels hold, by level_idc (table A-1).  At 24 pictures a
# second each holds as many per second as that takes.
_LEVELS = {
    30: 1620,
    31: 3600,
    32: 5120,
    40: 8192,
    50: 22080,
    51: 36864,
    60: 139264,
}


def sps(width: int, height: int) -> bytes:
    """Sequence parameter set (7.3.2.1) of constrained baseline, cropped to this size."""
    cols, rows = -(-width // 16), -(-height // 16)
    # A.3.1 bounds each side too.
    needed = max(cols * rows, max(cols, rows) ** 2 / 8)
    level = min(level for level, most in _LEVELS.items() if needed <= most)
    return nal(
        0x67,
        f"{66:08b}{0xC0:08b}{level:08b}"  # baseline, constraint sets 0 and 1
        f"{ue(0)}{ue(0)}"  # seq_parameter_set_id, frame_num has 4 bits
        f"{ue(2)}"  # pic_order_cnt_type: output order is decoding order
        f"{ue(1)}0"  # max_num_ref_frames, no gaps in frame_num
        f"{ue(cols - 1)}{ue(rows - 1)}11"  # frames only, direct_8x8_inference
        f"1{ue(0)}{ue(8 * cols - width // 2)}"  # crop left and right, in 2 pixels
        f"{ue(0)}{ue(8 * rows - height // 2)}"  # top and bottom
        f"11{1:08b}"  # VUI; aspect_ratio_idc 1: square pixels
        "0"  # overscan
        "110101"  # video signal: format 5, limited range, colours described:
        f"{1:08b}{1:08b}{1:08b}"  # BT.709 three times
        "00000"  # chroma location, timing (the MP4 has it), two HRDs, pic_struct
        f"11{ue(0)}{ue(0)}{ue(15)}{ue(15)}{ue(0)}{ue(1)}",  # restriction: no reordering
    )


# Picture parameter set (7.3.2.2): CAVLC, QP 28, chroma QP offset -6, deblocking under each
# slice's control.
PPS = nal(0x68, f"{ue(0)}{ue(0)}00{ue(0)}{ue(0)}{ue(0)}000{ue(3)}{ue(0)}{ue(12)}100")

# coeff_token (table 9-5) of no coefficient, a trailing one, another; nC is 0, of chroma -1
_LUMA_DC = ("1", "01", "000101")
_CHROMA_DC = ("01", "1", "000111")


def residual(level: int, tokens: tuple[str, str, str]) -> str:
    """residual_block_cavlc (7.3.5.3.2, 9.2) of a block with no level but the DC one."""
    none, trailing_one, other = tokens
    if level == 0:
        return none
    if abs(level) == 1:
        return f"{trailing_one}{level < 0:b}1"
    code = 2 * abs(level) - 4 + (level < 0)
    if code < 14:
        suffix = f"{1:0{code + 1}b}"
    elif code < 30:
        suffix = f"{1:015b}{code - 14:04b}"
    else:
        suffix = f"{1:016b}{code - 30:012b}"
    return f"{other}{suffix}1"


# Intra_16x16 with its prediction as mb_type (tables 7-11, 7-13) and intra_chroma_pred_mode
# (table 8-5): vertical, DC, vertical in a P slice
_ABOVE, _DC, _ABOVE_IN_P = (1, 2), (3, 0), (6, 2)


_HUES = 16  # at which the first bar may begin
_FIRST_BAR = 0x100  # the letters of bars: eight for each of these hues


def colour_of(letter: str) -> tuple[int, int, int]:
    """What a letter of the canvas stands for; the bars of a clip go once around from its hue."""
    if letter in _COLOURS:
        return _COLOURS[letter]
    hue, bar = divmod(ord(letter) - _FIRST_BAR, 8)
    angle = (hue / _HUES + bar / 8) * math.tau
    cb, cr = (128 + round(60 * wave(angle)) for wave in (math.cos, math.sin))
    return 180 - 14 * bar, cb, cr


@functools.lru_cache(maxsize=4096)
def macroblock(prediction: tuple[int, int], letter: str, predicted: str) -> str:
    """macroblock_layer (7.3.5) of a colour where another is predicted."""
    y, cb, cr = map(int.__sub__, colour_of(letter), colour_of(predicted))
    mb_type, chroma_mode = prediction
    levels = residual(y, _LUMA_DC)
    if cb or cr:
        mb_type += 4
        levels += residual(cb, _CHROMA_DC) + residual(cr, _CHROMA_DC)
    return f"{ue(mb_type)}{ue(chroma_mode)}1{levels}"  # the 1: no QP delta


@functools.lru_cache(maxsize=512)  # few rows of a clip are in no other
def coded_row(prediction: tuple[int, int], row: str, predicted: str) -> str:
    """The macroblocks of a row."""
    return "".join(map(macroblock, itertools.repeat(prediction), row, predicted))


def idr_picture(rows: Sequence[str]) -> bytes:
    """The first picture whole, as one I slice."""
    # ..., frame_num, idr_pic_id, ..., QP, no deblocking
    bits = f"{ue(0)}{ue(7)}{ue(0)}0000{ue(0)}001{ue(1)}"
    bits += coded_row(_DC, rows[0], f"?{rows[0]}")  # from the left
    for above, row in itertools.pairwise(rows):
        bits += coded_row(_ABOVE, row, above)
    return nal(0x65, bits)


def p_picture(number: int, size: int, changes: Mapping[int, str]) -> bytes:
    """The picture `number` after the first: what changes of so many macroblocks."""
    # ..., frame_num, lists, QP, no deblocking
    bits = f"{ue(0)}{ue(5)}{ue(0)}{number % 16:04b}0001{ue(1)}"
    at = 0
    for place in sorted(changes):
        bits += ue(place - at) + changes[place]
        at = place + 1
    if at < size:
        bits += ue(size - at)
    return nal(0x41, bits)


class Canvas(NamedTuple):
    """What is where, in macroblocks."""

    cols: int
    rows: int
    dot: int  # side of a dot of the letters
    lines: int  # of the panel; 0 or less: there is none
    bar_start: int  # first row of the progress bar; `rows`: there is none


def canvas_of(width: int, height: int) -> Canvas:
    """The layout of pictures of this size."""
    cols, rows = -(-width // 16), -(-height // 16)
    dot = max(1, cols // 60)
    bar_start = rows
    if rows > 3 * dot + 2:
        bar_start -= dot + 1  # the last row may be mostly cropped
    # Between panel and progress bar is a row of bars, whose colours that takes.
    lines = (bar_start - 2 - dot) // (6 * dot)
    if cols < 18:  # 0:00 is four letters of four columns, and there are margins
        lines = 0
    return Canvas(cols, rows, dot, min(4, lines), bar_start)


def panel(lines: Iterable[str], canvas: Canvas) -> list[str]:
    """Rows of the canvas: below a margin each line takes five rows of dots and a gap."""
    cols, dot = canvas.cols, canvas.dot
    rows = ["0" * cols] * (1 + dot)
    for line in lines:
        glyphs = [_GLYPHS.get(letter, "00000") + "0" for letter in line]
        for digits in zip(*glyphs, strict=True):
            row = "".join(digits).translate(_DOT_ROWS)
            row = row.replace("0", "0" * dot).replace("1", "1" * dot)
            rows += [f"0{row}".ljust(cols, "0")] * dot
    return rows


def clock_at(second: int, canvas: Canvas) -> str:
    """The canvas down to the end of the clock."""
    return "".join(panel([f"{second // 60}:{second % 60:02}"], canvas))


def later_pictures(canvas: Canvas, seconds: int) -> Iterator[bytes]:
    """All but the first: the clock runs, the progress bar takes the colours above it."""
    cols, last = canvas.cols, seconds * FPS
    code = functools.partial(macroblock, _ABOVE_IN_P)
    as_above = code("0", "0")
    old = clock_at(0, canvas)
    for number in range(1, last + 1):
        columns = range(cols * (number - 1) // last, cols * number // last)
        bar_rows = range(canvas.bar_start, canvas.rows - 1)
        changes = {y * cols + x: as_above for y in bar_rows for x in columns}
        if canvas.lines > 0 and number % FPS == 0:
            new = clock_at(number // FPS, canvas)
            for place, letter in enumerate(new):
                if letter != old[place]:
                    changes[place] = code(letter, new[place - cols])
            old = new
        yield p_picture(number, cols * canvas.rows, changes)


@functools.lru_cache(maxsize=32)  # two prompts in all hues; of 8K 5 MB
def first_picture(canvas: Canvas, hue: int, text: str) -> bytes:
    """Bars from this hue on, the clock at 0:00 and the text, an empty progress bar."""
    cols, row_count, dot, lines, bar_start = canvas
    first = _FIRST_BAR + 8 * hue
    bars = "".join([chr(first + x * 8 // cols) for x in range(cols)])
    rows = []
    if lines > 0:
        # As many words as a line holds; one that is longer is cut.
        letters = (cols - 2) // (4 * dot)
        pattern = rf"\S.{{,{letters - 1}}}(?!\S)|\S{{{letters}}}"
        words = re.findall(pattern, text.upper())
        rows = panel(["0:00", *words[: lines - 1]], canvas)
    rows += [bars] * (bar_start - len(rows))
    rows += ["-" * cols] * (row_count - 1 - bar_start)
    rows += [bars] * (row_count - len(rows))
    return idr_picture(rows)


def box(kind: bytes, *parts: bytes | int) -> bytes:
    """A box (ISO 14496-12, 4.2): size, type, parts.

    A number is a 32-bit word, such as version and flags.
    """
    body = b"".join(
        [part if isinstance(part, bytes) else part.to_bytes(4, "big") for part in parts]
    )
    return (8 + len(body)).to_bytes(4, "big") + kind + body


_OPEN = b"\xff\xff\xff\xff"  # a word that each clip fills in; no other is like it
_TIMESCALE = FPS * 1000  # of movie and pictures: a picture lasts 1000 ticks
_MATRIX = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # no rotation, no scaling
_DINF = box(b"dinf", box(b"dref", 0, 1, box(b"url ", 1)))  # flag 1: in this file
# number, volume, ticks a second, ticks a sample, media header; without stss every picture
# were a key frame
_TRACKS = {
    b"vide": (1, 0, _TIMESCALE, 1000, box(b"vmhd", 1, 0, 0), box(b"stss", 0, 1, 1)),
    b"soun": (2, 0x1000000, _SAMPLE_RATE, _AAC_FRAME, box(b"smhd", 0, 0), b""),
}

# raw_data_block (ISO 14496-3, 4.4.2): a channel pair of silence, and one with the single
# MDCT line 18, a sine of 422 Hz at -18 dBFS when repeated: max_sfb 5, mid/side, mid gain
# 188, one quad (0,0,1,0), side silent.
_SILENCE = bytes.fromhex("21 00 00 00 00 1c")
_BEEP = bytes.fromhex("21 01 55 e0 10 42 16 00 02 8e")

# Sample description of AAC-LC: data reference 1, 2 channels of 16 bits; and its elementary
# stream descriptor (ISO 14496-1): ES_ID 0; AAC, audio, buffer, maximal and mean bits a
# second; AudioSpecificConfig: AAC-LC, 48 kHz, two channels.
_ESDS = box(
    b"esds",
    0,
    bytes.fromhex("03190000 00 04114015 000006 00000900 000008ca 05021190 060102"),
)
_MP4A = box(b"mp4a", 0, 1, 0, 0, 0x20010, 0, _SAMPLE_RATE << 16, _ESDS)


def avc1(width: int, height: int) -> bytes:
    """Sample description of H.264 (ISO 14496-15)."""
    sequence = sps(width, height)
    # Lengths of 4 bytes before the NAL units; one SPS, one PPS, their lengths of 2 bytes.
    lists = b"\xff\xe1" + sequence[2:] + b"\1" + PPS[2:]
    return box(
        b"avc1",
        0,
        1,  # data reference
        bytes(16),
        width << 16 | height,
        0x480000,  # 72 dpi
        0x480000,
        0,
        b"\0\1",  # pictures a sample
        bytes(32),  # name
        0x18FFFF,  # depth 24, no colour table
        box(b"avcC", b"\1", sequence[5:8], lists),
    )


def trak(
    handler: bytes,
    sizes: Sequence[bytes | int],
    pictures: int,
    entry: bytes,
    width: int,
    height: int,
) -> bytes:
    """A track as long as so many pictures: header, and media with sample tables.

    All samples are one chunk, whose offset is left open.
    """
    number, volume, timescale, sample_ticks, media_header, stss = _TRACKS[handler]
    ticks = pictures * timescale // FPS
    whole = len(sizes) - 1  # the last sample may be cut
    stbl = box(
        b"stbl",
        box(b"stsd", 0, 1, entry),
        box(b"stts", 0, 2, whole, sample_ticks, 1, ticks - whole * sample_ticks),
        stss,
        box(b"stsc", 0, 1, 1, len(sizes), 1),
        box(b"stsz", 0, 0, len(sizes), *sizes),
        box(b"stco", 0, 1, _OPEN),
    )
    mdia = box(
        b"mdia",
        box(b"mdhd", 0, 0, 0, timescale, ticks, 0x55C40000),  # language und
        box(b"hdlr", 0, 0, handler, bytes(13)),
        box(b"minf", media_header, _DINF, stbl),
    )
    tkhd = box(
        b"tkhd",
        3,  # enabled and in the movie
        0,  # created
        0,  # modified
        number,
        0,
        pictures * 1000,
        0,
        0,
        0,  # layer, group
        volume,
        *_MATRIX,
        width << 16,
        height << 16,
    )
    return box(b"trak", tkhd, mdia)


class Mould(NamedTuple):
    """What all clips of a shape have in common."""

    pictures: bytes  # all but the first
    sound: bytes
    tracks: bytes  # what moov starts with; open: the first picture's size, both offsets


_MOULD_BYTES = 250_000  # of one that is kept: 4 MB in all, beside the first pictures


@functools.lru_cache(maxsize=16)
def mould_of(width: int, height: int, seconds: int, audio: bool) -> Mould:
    """The mould for clips of this shape."""
    canvas = canvas_of(width, height)
    pictures = list(later_pictures(canvas, seconds))
    count = len(pictures) + 1
    tracks = box(
        b"mvhd",
        0,
        0,  # created
        0,  # modified
        _TIMESCALE,
        count * 1000,
        0x10000,  # rate 1.0
        0x1000000,  # volume 1.0
        0,
        0,
        *_MATRIX,
        bytes(24),
        3,  # next track
    )
    sizes: list[bytes | int] = [_OPEN, *map(len, pictures)]
    tracks += trak(b"vide", sizes, count, avc1(width, height), width, height)
    sound = []
    if audio:
        for start in range(0, count * _SAMPLE_RATE // FPS, _AAC_FRAME):
            beeps = start % _SAMPLE_RATE < _SAMPLE_RATE // 10  # a tenth of each second
            sound.append(_BEEP if beeps else _SILENCE)
        tracks += trak(b"soun", list(map(len, sound)), count, _MP4A, 0, 0)
    return Mould(b"".join(pictures), b"".join(sound), tracks)


def draw_test_card(
    width: int,
    height: int,
    seconds: int,
    *,
    title: str,
    text: str,
    audio: bool,
) -> bytes:
    """An MP4 of exactly this size in pixels, as long as so many seconds and a picture.

    The same arguments give the same bytes.  Odd sizes are rounded down to even ones, as
    4:2:0 needs; what no H.264 level holds is scaled down.  The title chooses the colours.
    """
    needed = max(width * height, max(width, height) ** 2 / 8) / 256  # as in sps
    shrink = math.sqrt(max(1, needed / _MAX_MACROBLOCKS))
    width, height = (max(2, int(side / shrink) // 2 * 2) for side in (width, height))
    seconds = max(1, min(seconds, MAX_CLIP_SECONDS))
    mould = mould_of(width, height, seconds, audio)
    if sum(map(len, mould)) > _MOULD_BYTES:
        mould_of.cache_clear()  # of the others too: they are soon made again
    name = title.encode("utf-8", "replace")
    hue = hashlib.sha256(name).digest()[0] % _HUES
    first = first_picture(canvas_of(width, height), hue, text)
    # In the manner of iTunes, which is what players show.
    ilst = box(b"ilst", box(b"\xa9nam", box(b"data", 1, 0, name)))
    udta = box(b"udta", box(b"meta", 0, box(b"hdlr", 0, 0, b"mdirappl", bytes(9)), ilst))
    ftyp = box(b"ftyp", b"isom", 512, b"isomiso2avc1mp41")
    start = len(ftyp + mould.tracks + udta) + 16
    tracks = mould.tracks
    # In the order in which they were left open; without sound the last one is not there.
    for number in (len(first), start, start + len(first) + len(mould.pictures)):
        tracks = tracks.replace(_OPEN, number.to_bytes(4, "big"), 1)
    moov = box(b"moov", tracks, udta)
    return ftyp + moov + box(b"mdat", first, mould.pictures, mould.sound)


# ============ 7. Webhooks: event, signature, delivery =======================================
#
# docs: cookbook/video-generation-webhooks, read 2026-08, and one live capture.  What is not
# known, and so the mock's own: BACKOFF, the timeout, that redirects are not followed, that a
# test run reaches nobody outside by accident.

# Seconds on the mock's clock between the attempts of a delivery.
BACKOFF = (1.0, 2.0, 4.0, 8.0)
WEBHOOK_SECONDS = 10.0  # real ones, for a whole attempt
MAX_UNDER_WAY = 64  # attempts at once
_MAX_DONE = 1_000  # deliveries that are over and still listed


class Delivery(NamedTuple):
    """One webhook on its way: what is sent, and what became of the attempts so far."""

    number: int  # by which they are sorted
    job: Job
    body: bytes
    state: str = "pending"  # pending, delivered, failed, refused, dropped
    reason: str | None = None  # of any end but delivered
    headers: dict[str, str] = {}  # of the latest attempt
    attempts: tuple[Json, ...] = ()


def _webhook_event(job: Job) -> bytes:
    status = job.ending.value
    data = {
        "id": job.id,
        "status": status,
        "generation_id": job.id,
        "model": job.submit.model,
        # As if it was long ago: an event has no signed URLs.
        **outcome_to_wire(job, math.inf, Links(job.origin)),
    }
    return to_json(
        {
            "type": f"video.generation.{status}",
            "created_at": iso_time(job.ends_at),
            "data": data,
        }
    )


def iso_time(at: float) -> str:
    """2026-04-24T12:00:00.000Z"""
    seconds, milliseconds = divmod(round(at * 1000), 1000)
    day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{day}.{milliseconds:03}Z"


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """X-OpenRouter-Signature: HMAC-SHA256 over "<t>,<body>"; a comma, unlike Stripe's dot."""
    signed = f"{timestamp},".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def _webhook_headers(job: Job, body: bytes, secret: str) -> dict[str, str]:
    signature = job.plan.webhook.signature
    headers = {
        "Connection": "close",
        "Content-Type": "application/json",
        "X-OpenRouter-Idempotency-Key": f"{job.id}-{job.ending.value}",
    }
    if secret and signature != "none":
        timestamp = int(_real_time())  # receivers compare it with their own clock
        if signature == "stale":
            timestamp -= 600  # they refuse more than 300 s
        if signature == "bad":
            secret = f"not {secret}"
        headers["X-OpenRouter-Signature"] = sign(secret, timestamp, body)
    return headers


def may_deliver(url: str, callback_hosts: Sequence[str]) -> bool:
    """Whether webhooks may go there: loopback, or a host that --callback-host names."""
    host = urlsplit(url).hostname or ""
    if re.fullmatch(r"localhost|::1|127(\.\d{1,3}){3}", host):
        return True
    return "*" in callback_hosts or host in {name.lower() for name in callback_hosts}


class Threads:
    """Daemon threads of one name, known while they run, so that a stop can wait for them."""

    def __init__(self, name: str, on_error: Callable[[BaseException], None]) -> None:
        self._name = name
        self._on_error = on_error
        self._running: set[threading.Thread] = set()

    def start(self, work: Callable[..., None], *args: Any) -> bool:
        """Have this done in a thread of its own; False if there is none to be had."""
        thread = threading.Thread(
            target=self._run, args=(work, *args), name=self._name, daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            return False
        return True

    def _run(self, work: Callable[..., None], *args: Any) -> None:
        self._running.add(threading.current_thread())
        try:
            work(*args)
        except Exception as error:
            self._on_error(error)
        finally:
            self._running.discard(threading.current_thread())

    def join(self, seconds: float) -> None:
        """Wait for all, for so many seconds at most; what hangs longer is left to itself."""
        end = _monotonic() + seconds
        for thread in list(self._running):
            thread.join(max(0, end - _monotonic()))


class Courier:
    """Delivers webhooks: one thread that starts what is due, and one per attempt.

    The first is there once a job has a callback or the clock was moved.  It shuts down the
    socket of an attempt that has taken too long, however slowly the receiver's answer drips.
    """

    def __init__(self, store: Store, on_error: Callable[[BaseException], None]) -> None:
        self._store = store
        self._config = store.config
        self._threads = Threads("webhooks", on_error)
        self._numbers = itertools.count(1)
        # Of attempts under way, to their deadline.
        self._sockets: dict[socket.socket, float] = {}
        # Guards every field below; told when a delivery ends or something may be due.
        self._changed = threading.Condition()
        self._started = self._stopped = False
        self._under_way = 0  # attempts
        # By number, the oldest first; at most max_jobs.
        self._pending: dict[int, Delivery] = {}
        self._done = deque[Delivery](maxlen=_MAX_DONE)  # the first to end first
        # Heap of (due, number, fault): pending, not under way; last of all, none.  The fault
        # has been drawn already, and its delay is over when this is due.
        self._due: list[tuple[float, int, Fault | None]] = [(math.inf, 0, None)]

    def wake(self) -> None:
        """Look again what is due: a job has a callback, or the clock has moved."""
        with self._changed:
            if not self._started:
                self._started = self._threads.start(self._run)
            self._changed.notify_all()

    def stop(self) -> None:
        """End what is under way; an attempt that hangs in connecting does no more harm."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._threads.join(0.2)

    def deliveries(
        self,
        wanted: Callable[[Delivery], bool] = lambda delivery: True,
        count: int = 0,
        seconds: float = 0,
    ) -> list[Delivery]:
        """Those wanted, oldest first, once `count` of them are not pending any more.

        For that it blocks up to so many real seconds.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or sum(map(wanted, self._done)) >= count,
                min(seconds, threading.TIMEOUT_MAX),
            )
            return sorted(filter(wanted, [*self._done, *self._pending.values()]))

    def _run(self) -> None:
        with self._changed:
            while not self._stopped:
                self._changed.wait(min(self._start_attempts(), 1.0))
                for sock, deadline in list(self._sockets.items()):
                    if self._stopped or _monotonic() > deadline:
                        shut_down(sock)

    def _start_attempts(self) -> float:  # self._changed is held
        """Announce what has ended, start what is due; seconds until there is more to do."""
        ended, next_at = self._store.take_ended()
        now = self._store.now()
        for job in ended:
            self._announce(job)
        while self._due[0][0] <= now and self._under_way < MAX_UNDER_WAY:
            due_at, number, fault = heapq.heappop(self._due)
            delivery = self._pending.get(number)
            if delivery is None:
                continue  # dropped
            if fault is None:
                job = delivery.job
                fault = self._store.draw_fault("webhook", job.scope, job)
                due_at += fault.delay
            if due_at <= now:
                if self._threads.start(self._attempt, delivery, due_at, fault):
                    self._under_way += 1
                    continue
                due_at = now + 1  # there may be a thread then
            heapq.heappush(self._due, (due_at, number, fault))
        if self._under_way < MAX_UNDER_WAY:
            next_at = min(next_at, self._due[0][0])
        return next_at - now

    def _announce(self, job: Job) -> None:  # self._changed is held
        webhook, url = job.plan.webhook, job.callback_url
        for index in range(webhook.times):
            delivery = Delivery(next(self._numbers), job, _webhook_event(job))
            if not may_deliver(url, self._config.callback_host):
                host = urlsplit(url).hostname
                self._end(
                    delivery,
                    "refused",
                    f"{host} is not loopback; allow it with --callback-host {host}",
                )
                return
            self._put_off(delivery, job.ends_at + webhook.delay + index)

    def _put_off(self, delivery: Delivery, due_at: float) -> None:  # self._changed is held
        self._pending[delivery.number] = delivery
        heapq.heappush(self._due, (due_at, delivery.number, None))
        if len(self._pending) > self._config.max_jobs:
            oldest = next(iter(self._pending.values()))
            self._end(oldest, "dropped", f"more than {self._config.max_jobs} were pending")

    def _end(
        self, delivery: Delivery, state: str, reason: str | None = None
    ) -> None:  # self._changed is held
        self._pending.pop(delivery.number, None)
        self._done.append(delivery._replace(state=state, reason=reason))
        self._changed.notify_all()

    def _attempt(self, delivery: Delivery, due_at: float, fault: Fault) -> None:
        # 1. Send it, unless a fault says otherwise.
        started = _monotonic()
        job, body = delivery.job, delivery.body
        headers = _webhook_headers(job, body, self._config.webhook_secret)
        outcome: Json = {"at": round(self._store.now(), 3), "fault": fault.label or None}
        if fault.body is not None:
            body = fault.body
        if fault.close:
            outcome["error"] = "not sent"
        elif fault.prevents and fault.body is None:
            outcome["status"] = fault.status
        else:
            try:
                body = body[: fault.truncate]
                outcome["status"] = self._send(job.callback_url, body, headers)
            except (OSError, ValueError, http.client.HTTPException) as error:
                outcome["error"] = f"{type(error).__name__}: {error}"
            if fault.lost:
                outcome["error"] = "answer lost"

        # 2. See what becomes of the delivery.
        attempts = (*delivery.attempts, outcome)
        failures = len(attempts)
        delivery = delivery._replace(headers=headers, attempts=attempts)
        # Reckoned from when it was due, so that one jump of the clock brings all attempts that
        # fall within it.
        over_at = due_at + _monotonic() - started
        with self._changed:
            self._under_way -= 1
            if delivery.number not in self._pending:
                pass  # dropped
            elif "error" not in outcome and outcome.get("status", 0) // 100 == 2:
                self._end(delivery, "delivered")
            elif failures > len(BACKOFF):
                self._end(delivery, "failed", f"no success in {failures} attempts")
            else:
                self._put_off(delivery, over_at + BACKOFF[failures - 1])
            self._changed.notify_all()

    def _send(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """POST, and the status of the answer."""
        deadline = _monotonic() + WEBHOOK_SECONDS
        parts = urlsplit(url)
        kind: type[http.client.HTTPConnection] = http.client.HTTPConnection
        if parts.scheme == "https":
            kind = http.client.HTTPSConnection
        port = parts.port or kind.default_port
        connection = kind(parts.hostname or "", port, timeout=WEBHOOK_SECONDS)
        path = parts.path or "/"
        if parts.query:
            path += f"?{parts.query}"
        path = quote(path, safe="%/?&=:;,+~!$'()*@[]")
        connection.connect()
        sock = connection.sock
        self._sockets[sock] = deadline
        try:
            if self._stopped:
                raise ConnectionError("the mock stops")
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            if _monotonic() > deadline:
                raise TimeoutError("no whole answer in time")
            with contextlib.suppress(OSError, http.client.HTTPException):
                sock.settimeout(0.2)  # let the receiver finish its answer
                response.read(65_536)
            return response.status
        finally:
            del self._sockets[sock]
            sock.close()


def shut_down(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """End a socket's reading, writing or both, whoever may be blocked in it."""
    with contextlib.suppress(OSError):  # gone already
        # Not SSLSocket's, which would go on in plain text.
        socket.socket.shutdown(sock, how)


# ============ 8. Requests and responses =====================================================
#
# What passes between the adapter and the handlers: bytes on the one side, no socket on the other.

# The list is shared: nobody changes it.
_parse_query = functools.lru_cache(maxsize=256)(parse_qsl)


class Note:
    """When a request came, and what becomes of it: with this, it is its entry in the journal."""

    came_at: float  # on _monotonic: when it was there whole; `ms` counts from here
    turn: threading.Lock | None = None  # to be answered, while it has that; see take_turn
    store: Store  # as the request found it; only until it is written down
    job_id: str | None = None
    fixture: str | None = None
    error: str | None = None  # the message of a refusal
    upstream: str | None = None  # to which it was passed on
    hint: str | None = None  # where a request that missed the API was meant to go
    closest: list[Json] | None = None
    status: int | None = None  # None: the connection was closed without an answer
    retry_after = 0  # seconds, as answered; 0: nothing was said of it
    # Whether the whole answer left the socket; None: not over
    delivered: bool | None = None
    struck = NO_FAULT  # what hit it
    route = ""  # name of the handler
    shown: Status | None = None  # by a poll, or where there is no content yet
    to_the_end = False  # whether it was answered with the end of a clip, not an empty one
    ms = 0.0
    seq = 0
    time = 0.0
    body = b""  # the kept_body of a submit that made a job

    def __init__(self) -> None:
        self.came_at = _monotonic()

    def end_turn(self) -> None:
        """Let others be answered: for a request that waits for something, or takes its time."""
        if self.turn is not None:
            self.turn.release()
            self.turn = None


class Request(NamedTuple):
    """One HTTP request.  Header names are lower-case; the body is whole and decoded."""

    method: str
    path: str  # as sent, percent-encoding included
    query: str
    headers: Mapping[str, str]
    body: bytes
    note: Note
    # The adapter's: body, and maybe head, could not be read
    refusal: ApiError | None = None

    @property
    def url(self) -> str:
        """Path and query."""
        if self.query:
            return f"{self.path}?{self.query}"
        return self.path

    @property
    def parameters(self) -> dict[str, str]:
        """The query, decoded; the last of several values."""
        return dict(_parse_query(self.query, keep_blank_values=True))

    @property
    def key(self) -> str:
        """What follows Bearer in its Authorization header; "" for all that is no such key."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return ""
        return key.strip()


def kept_body(body: bytes, value: Any) -> bytes:
    """What journal and job keep of a body that says `value`: a large one shortened, as JSON."""
    if len(body) > _SMALL_BODY:
        body = to_json(shorten(value))
    if len(body) > 4 * _LONGEST_TEXT:
        body = body[:_LONGEST_TEXT] + "… (cut)".encode()
    return body


class Response(NamedTuple):
    """One HTTP response."""

    status: int  # 0: close without an answer
    body: bytes = b""
    headers: Headers = ()
    stream: Iterable[bytes] = ()  # goes out before the body, each block as it comes
    chunked: bool = False  # without Content-Length
    truncate: int | None = None  # send this many bytes of the body and close
    stall: float = 0.0  # real seconds of silence before the close


# Recorded on every response below /api/v1.
_API_HEADERS: Headers = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "X-Generation-Id,X-Provider-Name,request-id,cf-ray"),
    ("X-Content-Type-Options", "nosniff"),
)
_API_JSON: Headers = (("Content-Type", "application/json"), *_API_HEADERS)
_CLIP: Headers = (("Content-Type", "video/mp4"), *_API_HEADERS)
_BLOCK_BYTES = 1 << 18
# Several ranges, or another unit: as if none was asked for.
_RANGE = "bytes=([0-9]{0,18})-([0-9]{0,18})"


def json_response(value: Any, status: int = 200, headers: Headers = ()) -> Response:
    """Compact JSON, with the headers of the video API and more."""
    return Response(status, to_json(value), _API_JSON + headers)


def error_response(error: ApiError) -> Response:
    """The error in its envelope."""
    return json_response(error_to_wire(error), error.status, error.headers)


def range_response(request: Request, clip: bytes) -> Response:
    """A clip as players want it: with its length, and of the asked range only."""
    size = len(clip)
    part = range(size)
    status = 200
    headers = (*_CLIP, ("Accept-Ranges", "bytes"))
    asked = re.fullmatch(_RANGE, request.headers.get("range", ""))
    if asked is not None:
        status = 206
        first, last = asked.groups()
        if first:
            part = part[int(first) : int(last or size) + 1]
        else:
            part = part[max(0, size - int(last or 0)) :]
        if not part:
            raise ApiError(416, headers=(("Content-Range", f"bytes */{size}"),))
        headers += (("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}"),)
    request.note.to_the_end = 0 < part.stop == size
    return Response(status, clip[part.start : part.stop], headers)


@functools.lru_cache(maxsize=1024)
def key_label(api_key: str) -> str:
    """What a key is called wherever it is shown: never by itself."""
    return f"key-{hashlib.sha256(api_key.encode()).hexdigest()[:8]}"


_LONGEST_SCOPE = 200


def scope_of(request: Request) -> str:
    """Whose counters a request moves: X-Test-Id, else ?testId=, else its key."""
    name = request.headers.get("x-test-id", "")
    if not name:
        name = request.parameters.get("testId", "")
    if name:
        return name[-_LONGEST_SCOPE:]  # where the ids of parametrized tests differ
    return key_label(request.key)


# ============ 9. Video API handlers =========================================================
#
# Parse, act, render.  A handler takes the mock, the request and its route's path groups; it
# raises ApiError and never builds an error reply.  The order of the checks is the contract's:
# a refused request uses up nothing.


def require_key(mock: VideoMock, request: Request) -> str:
    """The label of the request's key; 401 in production's three wordings without a valid one."""
    key = request.key
    if "authorization" not in request.headers:
        raise ApiError(401, "No cookie auth credentials found")
    if not key:
        raise ApiError(401, "Missing Authentication header")
    if mock.config.api_key and key not in mock.config.api_key:
        raise ApiError(401, "User not found.")
    return key_label(key)


def fault_error(fault: Fault, moderation: Json | None = None) -> ApiError:
    """The refusal that a fixture or fault orders, with what production adds to this status."""
    status = fault.status or 500
    usual = {403: moderation, 429: {"error_type": "rate_limit_exceeded"}}
    metadata = fault.metadata or usual.get(status)
    seconds = fault.retry_after
    headers: Headers = ()
    if status == 429:
        if seconds is None:
            seconds = 1
        headers = (
            ("X-RateLimit-Limit", "20"),
            ("X-RateLimit-Remaining", "0"),
            ("X-RateLimit-Reset", str(int((_real_time() + seconds) * 1000))),
        )
    if seconds is not None:
        headers = (("Retry-After", str(math.ceil(seconds))), *headers)
    return ApiError(status, fault.message, metadata, headers)


def strike(
    mock: VideoMock, request: Request, fault: Fault, moderation: Json | None = None
) -> None:
    """Let a fault do what it does before the work, or instead of it; `spoilt` does the rest."""
    request.note.struck = fault
    if fault.delay and fault.stall is None:
        request.note.end_turn()
        mock.stopping.wait(fault.delay)
    if fault.prevents:
        raise fault_error(fault, moderation)


def interfere(mock: VideoMock, request: Request, on: str, job: Job | None = None) -> None:
    """Let the fault strike that hits this request: one of the server's, else its job's own."""
    fault = request.note.store.draw_fault(on, scope_of(request), job)
    strike(mock, request, fault)


def spoilt(response: Response, note: Note) -> Response:
    """The answer, or refusal, as the fault that struck, if any, lets it get through."""
    fault = note.struck
    if fault is NO_FAULT:
        return response
    if fault.close or fault.body is not None:
        note.error = None  # the refusal that keeps the work from being done is not told
    if fault.close or fault.lost:
        return Response(0)  # none
    if fault.body is not None:
        kind = ("Content-Type", fault.content_type)
        # Its own content type instead of the first header.
        response = response._replace(body=fault.body, headers=(kind, *response.headers[1:]))
    if fault.stall is not None:
        return response._replace(truncate=fault.stall, stall=fault.delay or math.inf)
    return response._replace(truncate=fault.truncate)


def create_video(mock: VideoMock, request: Request) -> Response:
    """Accept a generation request; answer at once with the job to poll."""
    note = request.note
    scope = scope_of(request)
    key = require_key(mock, request)
    submit, model = _acceptable(mock, request)
    moderation = {
        "reasons": ["violence"],
        "flagged_input": submit.prompt[:100],
        "provider_name": model.provider,
        "model_slug": model.id,
    }
    context = request.headers.get("x-aimock-context")
    fixture, fault, misses = note.store.choose(submit, context, scope)
    if fixture is not None:
        note.fixture = fixture.name or None
    strike(mock, request, fault, moderation)
    if fixture is None:
        raise _no_match_error(request, misses)
    if fixture.plan.refusal is not None:
        raise fault_error(fixture.plan.refusal, moderation)

    pace = Pace("polls", mock.config.polls)
    if mock.config.seconds:
        pace = Pace("seconds", mock.config.seconds)
    links = mock.links(request)
    note.body = kept_body(request.body, submit.body)
    job = new_job(
        submit,
        model,
        fixture,
        pace,
        mock.now(),
        submit.body.get("callback_url") or mock.config.callback_url,
        body=note.body,
        origin=links.origin,
        key=key,
        scope=scope,
    )
    note.job_id = job.id
    note.store.add_job(job)
    if job.callback_url:
        mock.courier.wake()
    wire = {
        "id": job.id,
        "polling_url": links.polling_url(job.id),
        "status": WAITING[0].value,
    }
    return json_response(wire, status=202)


def _acceptable(mock: VideoMock, request: Request) -> tuple[VideoRequest, Model]:
    """What a submit asks for, and of which model, if that can do it.

    Edited fixture files are taken over before the model is looked for.
    """
    if len(request.body) > _SMALL_BODY:
        request.note.end_turn()
        submit = parse_video_request(request.body)
    else:
        submit = _remembered_request(request.body)
    check_callback(submit.body, mock.config.callback_host)
    store = request.note.store
    if request.note.came_at >= store.looked_at:  # else another has looked since it came
        reason = store.reload_if_edited(_monotonic())
        if reason:
            mock.notice(printable(f"fixtures not reloaded: {reason}"))
    model = store.find_model(submit.model)
    if model is None:
        raise ApiError(400, f"{shorten(submit.model)} is not a valid model ID")
    check_references(submit.body)
    if store.loaded.enforced:
        check_against_catalogue(submit, model)
    if "previous_job_id" in submit.body and model in store.loaded.models:
        raise ApiError(400, f"{model.canonical_slug} does not support previous_job_id")
    check_prompt(submit, model)
    return submit, model


def _no_match_error(request: Request, misses: list[Json]) -> ApiError:
    request.note.closest = misses
    message = "No fixture matched"
    status = 404
    if request.headers.get("x-aimock-strict", "").lower() in ("true", "1"):
        # As aimock does.
        message = "Strict mode: no fixture matched"
        status = 503
    for miss in misses[:1]:
        message += f": {describe_miss(miss)}"
    return ApiError(status, message, {"closest": misses})


def get_video(mock: VideoMock, request: Request, job_id: str) -> Response:
    """Poll a job: its status, its URLs and cost once it completed, its error once it failed."""
    require_key(mock, request)
    job = mock.store.job(job_id)
    interfere(mock, request, "poll", job)
    if request.method != "HEAD":  # which is no poll
        job = mock.store.poll(job_id)
    if job.callback_url:
        mock.courier.wake()
    now = mock.now()
    request.note.shown = status_at(job, now)
    return json_response(job_to_wire(job, now, mock.links(request)))


def clip_of(job: Job, index: int) -> bytes:
    """What output `index` of a job is downloaded as.

    The fixture's own, else a test card in the job's shape.  A request with a seed gets the same
    bytes again; without one the colours, and the title, are the job's own.  ApiError 400 for an
    output that the job never has.
    """
    outputs = job.plan.outputs
    if index >= outputs:
        raise ApiError(
            400, f"Video index {index} out of range ({outputs} videos available)"
        )
    clip = job.plan.clip
    if isinstance(clip, str):
        try:
            with open(clip, "rb") as file:
                return file.read()
        except OSError:
            raise ApiError(502) from None  # it has gone since the fixture was read
    if clip is not None:
        return clip
    submit, model = job.submit, job.model
    name = job.id
    if submit.seed is not None:
        name = f"seed {submit.seed}"
    if outputs > 1:
        name += f" ({index + 1} of {outputs})"
    width, height = output_size(submit.shape, model)
    return draw_test_card(
        width,
        height,
        duration_of(submit.shape, model),
        title=f"{name}, {submit.model}: {submit.prompt}",
        text=submit.prompt,
        audio=has_audio(submit.shape, model),
    )


def get_video_content(mock: VideoMock, request: Request, job_id: str) -> Response:
    """Download an output: with the key, whole; or by a signed URL, without a key and by range."""
    now = mock.now()
    signed = "signature" in request.parameters
    if not signed:
        require_key(mock, request)
    index = index_of(request)
    if signed:
        check_signature(job_id, index, request.parameters, now)
    job = mock.store.job(job_id)
    status = status_at(job, now)
    if status is not Status.COMPLETED:
        request.note.shown = status
        raise ApiError(409, f"Video content is not available: the job is {status.value}")
    if now >= expires_at(job):
        raise ApiError(410, "Video content is no longer available")
    clip = clip_of(job, index)  # refuses an index, which uses up no fault
    interfere(mock, request, "content", job)
    if signed:
        return range_response(request, clip)
    request.note.to_the_end = clip != b""
    return Response(200, clip, _CLIP, chunked=True)


# Those of a query that production checks as it does a body.
_PARAMETERS: Json = json.loads("""{"type": "object", "properties": {
  "index": {"type": "int", "minimum": 0},
  "output_modalities": {"enum": ["text", "image", "embeddings", "audio", "video", "rerank",
    "decisions", "speech", "transcription", "all"]}}}""")


def index_of(request: Request) -> int:
    """The query parameter `index`; SchemaError for what is none."""
    text = request.parameters.get("index") or "0"
    index = from_text(_PARAMETERS["properties"]["index"], text)
    check_schema(_PARAMETERS, {"index": index})
    return int(index)


_CATALOGUE_CACHE: Headers = (
    (
        "Cache-Control",
        "public, max-age=120, stale-while-revalidate=3600, stale-if-error=3600",
    ),
)


def list_video_models(mock: VideoMock, request: Request) -> Response:
    """List the video models, newest first; no key needed."""
    interfere(mock, request, "models")
    models = [model.to_wire() for model in mock.store.loaded.models]
    return json_response({"data": models}, headers=_CATALOGUE_CACHE)


def list_models(mock: VideoMock, request: Request) -> Response:
    """List models of all kinds: the video models if output_modalities asks for them."""
    asked = request.parameters.get("output_modalities", "text").split(",")
    for name in asked:
        check_schema(_PARAMETERS, {"output_modalities": name})
    models: Sequence[Model] = ()
    if {"video", "all"} & set(asked):
        models = mock.store.loaded.models
    interfere(mock, request, "models")
    wire = {
        "data": [_model_object(model) for model in models],
        "links": {"next": None},
        "total_count": len(models),
    }
    return json_response(wire, headers=_CATALOGUE_CACHE)


# The rest of what SDK 1.3.84 insists on, and a video model has nothing to say about.
_MODEL_OBJECT: Json = json.loads("""{
  "id": "", "canonical_slug": "", "hugging_face_id": null, "name": "", "created": 0,
  "description": "", "context_length": 0, "architecture": {"modality": "text->video",
    "input_modalities": ["text"], "output_modalities": ["video"], "tokenizer": "Other",
    "instruct_type": null},
  "pricing": {"prompt": "0", "completion": "0"},
  "top_provider": {"context_length": null, "max_completion_tokens": null, "is_moderated": false},
  "per_request_limits": null, "supported_parameters": [], "default_parameters": null,
  "supported_voices": null, "links": {}
}""")
_ENDPOINT: Json = json.loads("""{
  "name": "", "model_id": "", "model_name": "", "provider_name": "", "tag": "",
  "context_length": 0, "max_completion_tokens": null, "max_prompt_tokens": null,
  "pricing": {"prompt": "0", "completion": "0"}, "quantization": null, "status": 0,
  "supported_parameters": [], "supports_implicit_caching": false, "native_tools": {},
  "service_tier": null, "supports_diarization": false, "supports_tool_choice":
    {"auto": false, "function": false, "none": false, "required": false}, "latency_last_30m": null,
  "throughput_last_30m": null, "uptime_last_1d": null, "uptime_last_30m": null,
  "uptime_last_5m": null
}""")


def _model_object(model: Model) -> Json:
    wire = {key: value for key, value in model.to_wire().items() if key in _MODEL_OBJECT}
    shape = dict(_MODEL_OBJECT["architecture"])
    if model.supported_frame_images:
        shape["modality"] = "text+image->video"
        shape["input_modalities"] = ["text", "image"]
    return {
        **_MODEL_OBJECT,
        **wire,
        "description": model.description or "",
        "architecture": shape,
        "links": {"details": f"{API}/models/{model.canonical_slug}/endpoints"},
    }


def list_endpoints(mock: VideoMock, request: Request, model_id: str) -> Response:
    """Who serves a video model; its object's links.details points here."""
    model = mock.store.listed_model(model_id)
    if model is None:
        raise ApiError(404)
    card = _model_object(model)
    shared = ("id", "name", "created", "description", "architecture")
    endpoint = {
        **_ENDPOINT,
        "name": f"{model.provider} | {model.canonical_slug}",
        "model_id": model.id,
        "model_name": model.name,
        "provider_name": model.provider,
        "tag": model.id.partition("/")[0],
    }
    return json_response(
        {"data": {**{key: card[key] for key in shared}, "endpoints": [endpoint]}}
    )


# The first eight keys are recorded; SDK 1.3.84 insists on the others.
_KEY: Json = json.loads("""{
  "label": "", "usage": 0, "limit": null, "limit_remaining": null, "limit_reset": null,
  "is_free_tier": false, "is_management_key": false, "expires_at": null,
  "usage_daily": 0, "usage_weekly": 0, "usage_monthly": 0,
  "byok_usage": 0, "byok_usage_daily": 0, "byok_usage_weekly": 0, "byok_usage_monthly": 0,
  "include_byok_in_limit": false, "is_provisioning_key": false, "creator_user_id": null,
  "organization_id": null, "workspace_id": null, "effective_budget": null, "budgets": [],
  "allowed_data_regions": ["global"],
  "free_model_daily_requests": {"limit": 1000, "remaining": 1000, "used": 0},
  "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated."}
}""")


def get_key(mock: VideoMock, request: Request) -> Response:
    """What the key has spent: the cost of its completed jobs."""
    label = require_key(mock, request)
    interfere(mock, request, "key")
    periods = ("usage", "usage_daily", "usage_weekly", "usage_monthly")
    spent = dict.fromkeys(periods, js_number(mock.store.spent()[label]))
    data = {**_KEY, "label": label, **spent}
    return json_response({"data": data}, headers=(("Cache-Control", "private, no-store"),))


def get_credits(mock: VideoMock, request: Request) -> Response:
    """What all keys have spent."""
    require_key(mock, request)
    bought = 1_000  # USD; spending them has no effect
    used = js_number(mock.store.spent().total())
    return json_response({"data": {"total_credits": bought, "total_usage": used}})


# What is null or empty here SDK 1.3.84 insists on, and a video has nothing to say about.
_GENERATION: Json = json.loads("""{
  "id": "", "api_type": "video", "model": "", "created_at": "", "total_cost": 0, "usage": 0,
  "generation_time": 0, "latency": 0, "finish_reason": "complete",
  "native_finish_reason": "complete", "streamed": false, "cancelled": false, "is_byok": false,
  "provider_name": "", "origin": "", "data_region": "global",
  "tokens_prompt": null, "tokens_completion": null, "native_tokens_prompt": null,
  "native_tokens_completion": null, "native_tokens_reasoning": null,
  "native_tokens_cached": null, "native_tokens_completion_images": null,
  "num_media_prompt": null, "num_media_completion": null, "num_input_audio_prompt": null,
  "num_search_results": null, "num_fetches": null, "app_id": null, "cache_discount": null,
  "external_user": null, "http_referer": null, "moderation_latency": null, "preset_id": null,
  "provider_responses": null, "router": null, "service_tier": null, "upstream_id": null,
  "upstream_inference_cost": null, "user_agent": null, "web_search_engine": null,
  "workspace_id": null
}""")


def get_generation(mock: VideoMock, request: Request) -> Response:
    """The accounting record of a completed job; as production's, not there at the first lookup."""
    require_key(mock, request)
    job_id = request.parameters.get("id", "")
    job = mock.store.jobs_by_id.get(job_id)
    interfere(mock, request, "generation", job)
    if (
        job is None
        or status_at(job, mock.now()) is not Status.COMPLETED
        or not mock.store.looked_up(job)
    ):
        raise ApiError(404, f"Generation {job_id} not found")
    milliseconds = round((job.ends_at - job.created_at) * 1000)
    data = {
        **_GENERATION,
        "id": job.id,
        "model": job.model.canonical_slug,
        "created_at": iso_time(job.created_at),
        "total_cost": job.cost,
        "usage": job.cost,
        "generation_time": milliseconds,
        "latency": milliseconds,
        "is_byok": job.plan.is_byok,
        "provider_name": job.model.provider,
    }
    return json_response({"data": data})


def refuse_chat(mock: VideoMock, request: Request) -> Response:
    """Refuse a video model, and any other, on the chat route: this mock has no chat models."""
    require_key(mock, request)
    model = ""
    with contextlib.suppress(ValueError, TypeError, LookupError):
        model = str(parse_json(request.body)["model"] or "")
    if not model:
        raise ApiError(400, "No models provided")
    if mock.store.listed_model(model) is None:
        raise ApiError(400, f"{shorten(model)} is not a valid model ID")
    raise ApiError(
        400,
        f"`{model}` is a video generation model and cannot be used with the "
        "chat/completions endpoint. Use the `/api/v1/videos` endpoint instead.",
    )


_ALLOWED_HEADERS = (
    "Authorization, User-Agent, X-Api-Key, X-CSRF-Token, X-Requested-With, Accept, "
    "Accept-Version, Content-Length, Content-MD5, Content-Type, Date, X-Api-Version, "
    "HTTP-Referer, X-Windowai-Title, X-Openrouter-Title, X-Title, X-Openrouter-Categories, "
    "X-Openrouter-App-Visibility, X-Session-Id, Protection-Key, Idempotency-Key, traceparent, "
    "tracestate, b3"
)


def answer_preflight(mock: VideoMock, request: Request) -> Response:
    """Let browsers of any origin use the API, as production does."""
    asked = request.headers.get("access-control-request-headers", "")
    stainless = re.findall(r"(?i)(?<![\w-])x-stainless-[\w-]+(?=\s*(?:,|$))", asked)
    headers = (
        ("Access-Control-Allow-Methods", "GET,OPTIONS,PATCH,DELETE,POST,PUT"),
        ("Access-Control-Allow-Headers", ", ".join([_ALLOWED_HEADERS, *stainless])),
        ("Vary", "Access-Control-Request-Headers"),
    )
    return Response(204, headers=_API_HEADERS + headers)


# ============ 10. Record: the real API behind the mock ======================================
#
# What no fixture takes goes to the upstream with the client's own key, and comes back as it is
# but for the origin of its URLs.  What was learnt is kept as fixtures, which replay it without a
# key; how an answer differs from what this file takes for the contract is kept as well.

# What the mock takes for the contract: by the handler of a request, or by what its answer shows.
_CONTRACT: dict[str, Json] = json.loads("""{
  "create_video": {"status": 202, "type": "object", "required": ["id", "polling_url", "status"],
    "properties": {"id": {"type": "string"}, "polling_url": {"type": "string"},
      "status": {"enum": ["pending"]}}},
  "get_video": {"type": "object", "required": ["id", "generation_id", "polling_url", "status"],
    "properties": {"id": {"type": "string"}, "generation_id": {"type": "string"},
      "polling_url": {"type": "string"}, "status": {"enum": ["pending", "in_progress"]}}},
  "completed": {"type": "object",
    "required": ["id", "generation_id", "polling_url", "status", "unsigned_urls", "usage"],
    "properties": {"id": {"type": "string"}, "generation_id": {"type": "string"},
      "polling_url": {"type": "string"}, "status": {"enum": ["completed"]},
      "unsigned_urls": {"type": "array", "items": {"type": "string"}},
      "urls": {"type": "array", "items": {"type": "string", "format": "url"}},
      "expires_at": {"type": "int"},
      "usage": {"type": "object", "required": ["cost", "is_byok"],
        "properties": {"cost": {"type": "number", "nullable": true},
          "is_byok": {"type": "boolean"}}}}},
  "failed": {"type": "object",
    "required": ["id", "generation_id", "polling_url", "status", "error"],
    "properties": {"id": {"type": "string"}, "generation_id": {"type": "string"},
      "polling_url": {"type": "string"}, "status": {"$ref": "ending"},
      "error": {"type": "string"}}},
  "get_video_content": {"media_type": "video/mp4", "properties": {}},
  "error": {"type": "object", "required": ["error"], "properties": {"error": {
    "type": "object", "required": ["message", "code"], "properties": {
      "message": {"type": "string"}, "code": {"type": "int"}, "metadata": {"type": "object"}}}}},
  "list_video_models": {"type": "object", "required": ["data"],
    "properties": {"data": {"type": "array"}}}
}""")
_CONTRACT["list_video_models"]["properties"]["data"]["items"] = {
    **MODEL_SCHEMA,
    "required": list(Model("", "").to_wire()),
}
_UPSTREAM_SECONDS = 60.0  # of silence
_KEPT_HEADERS = (
    "(?i)content-type|content-range|retry-after|x-generation-id|location|x-ratelimit-.*"
)
_UNSENT_HEADERS = (
    "host|connection|content-length|transfer-encoding|accept-encoding|expect|"
    "x-test-id|x-aimock-context|x-aimock-strict"
)


def _form_of(route: str, status: int, answer: Any) -> str:
    """Which part of the contract an answer falls under."""
    fields = answer if isinstance(answer, dict) else {}
    if fields.get("success") is False:
        return "schema failure"
    if status >= 400:
        return "error"
    if fields.get("status") == "completed":
        return "completed"
    if fields.get("status") in ENDING_NAMES:
        return "failed"
    return route


def differences_from_contract(
    route: str, status: int, kind: str, answer: Any
) -> Iterator[str]:
    """How an upstream's answer differs from what the mock would have said."""
    form = _form_of(route, status, answer)
    contract = _CONTRACT.get(form, {})
    usual = contract.get("status", 200)
    media_type = contract.get("media_type", "application/json")
    place = route
    if form != route:
        place = f"{route} ({form})"
    if status < 400 and status != usual:
        yield f"{route}: status {status} instead of {usual}"
    if not kind.startswith(media_type):
        yield f"{route}: content type {kind or 'none'} instead of {media_type}"
        return
    for issue in issues_of(contract, answer, strict=True):
        # Of all items of a list, as of the first: said once.
        text = re.sub(r"\.[0-9]+\b", ".0", describe_issue(issue))
        yield f"{place}: {text}"
    if isinstance(answer, dict):
        known = _known(contract, answer)
        order = [key for key in answer if key in known]
        if order != list(known):
            yield f"{place}: the keys come in another order: {', '.join(order)}"


def _known(schema: Json, value: Any) -> Any:
    """Of an object those fields that are as the schema says, in its order; else the value."""
    if "properties" not in schema or not isinstance(value, dict):
        return value
    known: Json = {}
    for key, field in schema["properties"].items():
        if key in value:
            part = _known(field, value[key])
            if not any(issues_of(field, part)):
                known[key] = part
    return known


def _ask(url: str, request: Request, headers: dict[str, str]) -> tuple[Any, bytes | None]:
    """The upstream's answer and its body, None for a clip's; ApiError 502 without an answer.

    A redirect or an error is an answer like others.
    """
    import urllib.request  # only recording needs it

    asked = urllib.request.Request(
        url, request.body or None, headers, method=request.method
    )
    opener = urllib.request.OpenerDirector()
    for handler in ("ProxyHandler", "HTTPHandler", "HTTPSHandler"):
        opener.add_handler(getattr(urllib.request, handler)())
    try:
        answer: Any = opener.open(asked, timeout=_UPSTREAM_SECONDS)
        if request.note.route == "get_video_content" and answer.status in (200, 206):
            return answer, None
        with answer:
            return answer, answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ApiError(502, f"The upstream could not be reached: {error!r}") from None


class Recorder:
    """Passes requests on to the upstream, and keeps what it answers in a folder."""

    def __init__(self, mock: VideoMock) -> None:
        self._mock = mock
        self._folder = mock.config.record
        self._lock = threading.Lock()  # guards what writes the fields below, and the files
        self._fixtures: dict[str, Json] = {}  # by the name of their first clip
        # By the upstream's ids: what is known of a job so far, as a fixture; where the signed
        # urls lead, by index as well.
        self._jobs: dict[str, Json] = {}
        self._signed: dict[tuple[str, int], str] = {}
        self.differences: list[str] = []
        if not self._folder:
            return
        try:
            os.makedirs(self._folder, exist_ok=True)
        except OSError as error:
            raise SetupError(f"record: {self._folder}: {error.strerror}") from None
        path = os.path.join(self._folder, "recorded.json")
        if os.path.exists(path):
            # If it is broken, SetupError: else the next recording would wipe it out.
            for fixture in load_fixtures(Config(fixtures=[path])).fixtures:
                self._fixtures[_clip_name(fixture.source, 0)] = fixture.source

    def pass_on(self, request: Request, job_id: str) -> Response:
        """The upstream's answer with URLs on the mock's origin; 502 if there is none."""
        # 1. Ask.
        index = index_of(request)
        url = self._mock.config.upstream.rstrip("/") + request.url.removeprefix(API)
        headers = {
            name: value
            for name, value in request.headers.items()
            if not re.fullmatch(_UNSENT_HEADERS, name)
        }
        if "signature" in request.parameters:  # which may lead to another host
            url = self._signed.get((job_id, index), url)
            for name in _SECRET_HEADERS:
                headers.pop(name, None)
        answer, body = _ask(url, request, headers)
        kept = [
            (name, " ".join(value.split()))
            for name, value in answer.headers.items()
            if re.fullmatch(_KEPT_HEADERS, name)
        ]

        # 2. A clip goes on as it comes.
        stream: Iterable[bytes] = ()
        if body is None:
            body = b""
            stream = self._stream(answer, job_id, index)

        # 3. Learn from it.
        if request.method != "HEAD":
            with self._lock:
                body = self._learn(request, answer, body)
        return Response(
            answer.status, body, (*kept, *_API_HEADERS), stream, chunked=bool(stream)
        )

    def _learn(self, request: Request, answer: Any, body: bytes) -> bytes:
        """Keep what an answer says and how it differs; its body, as the client gets it."""
        # self._lock is held
        route = request.note.route
        status = answer.status
        value = shown_body(body)
        kind = answer.headers.get("content-type", "")
        for text in differences_from_contract(route, status, kind, value):
            if text not in self.differences:
                self.differences.append(text)
                self._write_json("differences.json", {"_differences": self.differences})
        if not isinstance(value, dict):
            return body
        # What the contract does not know is passed on as it is.
        contract = _CONTRACT.get(_form_of(route, status, value), {"properties": {}})
        fields = _known(contract, value)
        if status >= 400 and "error" in fields:
            request.note.error = fields["error"]["message"]
        job = self._jobs.get(fields.get("id", ""))
        if route == "create_video":
            self._learn_submit(request, answer, fields)
        elif job and "_took" not in job and fields.get("status") in ENDING_NAMES:
            self._learn_ending(job, fields)
        elif route == "list_video_models" and isinstance(value.get("data"), list):
            models = [
                _known(MODEL_SCHEMA, model)
                for model in value["data"]
                if not any(issues_of(MODEL_SCHEMA, model))
            ]
            if models:
                self._write_json("models.json", {"models": models})
        if "id" not in fields:
            return body
        self._rewrite(value, fields, self._mock.links(request))
        return to_json(value)

    def _learn_submit(self, request: Request, answer: Any, fields: Json) -> None:
        # self._lock is held
        try:
            submit = parse_video_request(request.body)
        except SchemaError:
            return  # no fixture could take it
        fixture = {
            "match": _recorded_match(submit),
            "response": {"video": {"count": 1}},
            "_submitted": _real_time(),
        }
        if "id" in fields:
            self._jobs[fields["id"]] = fixture
        elif "error" in fields:
            response = {"status": answer.status, "error": fields["error"]}
            retry_after = answer.headers.get("retry-after", "")
            if re.fullmatch("[0-9]{1,9}", retry_after):
                response["retryAfter"] = request.note.retry_after = int(retry_after)
            self._keep({**fixture, "response": response})

    def _learn_ending(self, fixture: Json, fields: Json) -> None:  # self._lock is held
        video = fixture["response"]["video"]
        video.update(
            {key: fields[key] for key in ("status", "error") if key in fields},
            stored="urls" in fields,
            count=len(fields.get("unsigned_urls", ())),
            **fields.get("usage", {}),
        )
        fixture["_took"] = f"{_real_time() - fixture['_submitted']:.1f} s"
        self._keep(fixture)

    def _rewrite(self, value: Json, fields: Json, links: Links) -> None:
        # self._lock is held
        job_id = fields["id"]
        for index, url in enumerate(fields.get("urls", ())):
            self._signed[job_id, index] = url
        if "polling_url" in value:
            value["polling_url"] = links.polling_url(job_id)
        # Even where they are not as the contract says: the key must not leave the mock.
        for key, more in (("unsigned_urls", ""), ("urls", "&signature=recorded")):
            if isinstance(value.get(key), list):
                indexes = range(len(value[key]))
                value[key] = [links.content_url(job_id, index) + more for index in indexes]

    def _keep(self, fixture: Json) -> None:  # self._lock is held
        video = fixture["response"].get("video", {})
        clip = _clip_name(fixture, 0)  # of this job, or of one like it
        if video.get("count") and os.path.exists(os.path.join(self._folder, clip)):
            video["file"] = clip
        try:
            fixture_from_json(fixture, "the upstream's answer", "", self._folder)
        except SetupError as error:
            self._mock.notice(printable(f"not recorded: {error}"))
            return
        self._fixtures[clip] = json_copy(fixture)
        self._write_json("recorded.json", {"fixtures": list(self._fixtures.values())})

    def _write_json(self, name: str, document: Json) -> None:  # self._lock is held
        text = json.dumps(document, indent=2, ensure_ascii=False)
        self._write(name, io.BytesIO(text.encode()))

    def _write(self, name: str, source: IO[bytes]) -> None:  # self._lock is held
        import shutil  # only recording needs it

        path = os.path.join(self._folder, name)
        try:
            with open(f"{path}.part", "wb") as file:
                shutil.copyfileobj(source, file)
            os.replace(f"{path}.part", path)
        except OSError as error:
            self._mock.notice(printable(f"not recorded: {path}: {error.strerror}"))

    def _stream(self, answer: Any, job_id: str, index: int) -> Iterator[bytes]:
        """The clip as it comes, kept as a file once it is whole."""
        import tempfile  # only recording needs it

        with answer, tempfile.TemporaryFile() as clip:
            try:
                while block := answer.read1(_BLOCK_BYTES):
                    clip.write(block)
                    yield block
            except http.client.HTTPException:
                raise ConnectionError("the upstream's download broke off") from None
            if answer.length:
                raise ConnectionError("the upstream's download was cut short")
            fixture = self._jobs.get(job_id)
            if answer.status == 200 and fixture:
                clip.seek(0)
                with self._lock:
                    self._write(_clip_name(fixture, index), clip)
                    self._keep(fixture)


def _clip_name(fixture: Json, index: int) -> str:
    match = json.dumps(fixture["match"]).encode()
    return f"{hashlib.sha256(match).hexdigest()[:12]}-{index}.mp4"


_NAMES_OF_A_TRY = ("session_id", "trace", "user")  # another one orders the same
_UNRECORDED = ("model", "prompt", "callback_url", *_NAMES_OF_A_TRY)


def _recorded_match(submit: VideoRequest) -> Json:
    """What a submit must be like to get this answer again: images by number and kind only."""
    sent = submit.body
    body = {key: sent[key] for key in _FIELDS if key in sent and key not in _UNRECORDED}
    for key, part in (("frame_images", "frame_type"), ("input_references", "type")):
        if key in body:
            body[key] = [{part: image[part]} for image in body[key]]
    return {"prompt": {"equals": submit.prompt}, "model": submit.model, "body": body}


# ============ 11. Findings: what the client does wrong ======================================
#
# A pure look at what journal, store and courier hold: nothing is worked out while requests are
# answered.  Each rule is a mistake that real clients make; its text is one sentence that says
# what was seen, why it matters in production, and what to do.
#
# To add a rule: a row in RULES (in _SO_FAR, if a later request may settle it), a place below
# that sees it, its name in the README.

# To their levels: error = costs money or fails in production; warning = will hurt; note.
RULES: dict[str, str] = json.loads("""{
  "journal-forgot": "note", "ignored-field": "error", "paid-twice": "error",
  "key-sent-elsewhere": "error", "download-without-key": "error",
  "broken-download-kept": "error", "polled-after-end": "warning", "abandoned": "error",
  "never-downloaded": "note", "retry-after-ignored": "warning", "refusal-retried": "warning",
  "downloaded-too-early": "warning", "references-dropped": "warning", "size-conflict": "warning",
  "unsupported-by-model": "warning", "unknown-option": "warning", "not-json": "warning",
  "wrong-address": "error", "webhook-unanswered": "warning", "differs-from-mock": "warning"
}""")
# Said as of now: what the client does next may settle them.
_SO_FAR = ("broken-download-kept", "abandoned", "never-downloaded")


Seen = tuple[str, str, list["Request"]]  # the rule, the text, the requests that show it


# What people write for a field of this API, from public trackers, and what they should write.
_MISTAKEN_FIELDS: dict[str, str] = json.loads("""{
  "image": "frame_images", "image_url": "frame_images", "input_image": "frame_images",
  "first_frame": "frame_images", "first_frame_image": "frame_images",
  "first_frame_url": "frame_images", "last_frame": "frame_images",
  "last_frame_image": "frame_images", "end_image": "frame_images", "frames": "frame_images",
  "images": "input_references", "reference_images": "input_references",
  "references": "input_references", "video": "input_references", "video_url": "input_references",
  "input_video": "input_references", "audio_ref": "input_references",
  "audio_url": "input_references", "seconds": "duration", "second": "duration",
  "length": "duration",
  "ratio": "aspect_ratio", "aspectRatio": "aspect_ratio", "audio": "generate_audio",
  "with_audio": "generate_audio", "generateAudio": "generate_audio", "quality": "resolution",
  "width": "size", "height": "size", "dimensions": "size", "text": "prompt", "input": "prompt",
  "callbackUrl": "callback_url", "webhook": "callback_url", "webhook_url": "callback_url",
  "negative_prompt": "provider.options", "negativePrompt": "provider.options",
  "fps": "", "frame_rate": "", "n": "", "num_videos": "", "sample_count": "", "stream": ""
}""")


def mistakes_in(request: Request, job: Job | None) -> Iterator[tuple[str, str]]:
    """What one request shows by itself: rules, each with its text."""
    note = request.note
    if note.route == "create_video":
        body = shown_body(request.body)
        kind = request.headers.get("content-type", "").partition(";")[0]
        if isinstance(body, dict):
            yield from _mistakes_in_submit(body, job)
        elif "form" in kind and not request.body.lstrip().startswith(b"{"):
            # As the OpenAI SDK sends it; JSON has this type from curl.
            yield (
                "not-json",
                f"A submit came as {kind}: this API takes JSON; send application/json",
            )
    if (note.hint or "").startswith("did you mean"):
        yield (
            "wrong-address",
            f"{request.method} {request.path} is no address of this API: {note.hint}",
        )
    if note.route != "get_video_content":
        return
    has_key = "authorization" in request.headers
    is_signed = "signature" in request.parameters
    if has_key and is_signed:
        yield (
            "key-sent-elsewhere",
            "The API key was sent with a signed URL, which needs none and may be of any host: "
            "whoever runs that has the key; send it to the API's own origin only",
        )
    if note.status == 401 and not has_key and not is_signed:
        yield (
            "download-without-key",
            "Content was asked for without the key (401): unsigned_urls need it; send it, or "
            "use the signed urls of the last poll",
        )
    if note.shown in WAITING:
        yield (
            "downloaded-too-early",
            "Content was asked for before the job completed (409): poll until status completed",
        )


def _mistakes_in_submit(body: Json, job: Job | None) -> Iterator[tuple[str, str]]:
    # Production strips unknown top-level keys silently.
    for key in body:
        if key in _FIELDS:
            continue
        right = _MISTAKEN_FIELDS.get(key)
        if right is None:
            right = "".join(most_like(key, _FIELDS))
        cure = "leave it out, there is no such thing here"
        if right:
            cure = f'use "{right}"'
        yield (
            "ignored-field",
            f'"{key}" is no field of this API: it is dropped silently, and a job billed all '
            f"the same; {cure}",
        )
    if body.get("frame_images") and body.get("input_references"):
        yield (
            "references-dropped",
            "frame_images win: the input_references beside them are not used; send one of them",
        )
    if job is None:
        return

    model = job.model
    shape = job.submit.shape
    if _size_conflicts(shape):
        yield (
            "size-conflict",
            f"size {shape.size} wins over the resolution or aspect_ratio beside it; send one "
            "of them",
        )
    for key in ("seed", "generate_audio"):
        if body.get(key, False) is not False and getattr(model, key) is False:
            yield (
                "unsupported-by-model",
                f"{model.id} does not support {key}: it has no effect, and some providers "
                "refuse it; leave it out for this model",
            )
    if not model.pricing_skus:
        return  # a model without limits
    allowed = model.allowed_passthrough_parameters
    listed = ", ".join(allowed) or "none"
    for slug, options in body.get("provider", {}).get("options", {}).items():
        for key in options:
            if key not in allowed:
                yield (
                    "unknown-option",
                    f"provider.options.{slug}.{key} is dropped: {model.id} passes on {listed}",
                )


def _size_conflicts(shape: Shape) -> bool:
    """Whether the size is another than what is asked for beside it, by more than rounding."""
    size = parse_size(shape.size or "")
    if size is None:
        return False
    width, height = size
    short = _SHORT_SIDES.get(shape.resolution or "", min(size))
    ratio = shape.aspect_ratio or f"{width}:{height}"
    wide, high = map(int, ratio.split(":"))
    deviations = (min(size) / short - 1, width / height * high / wide - 1)
    return max(map(abs, deviations)) > 0.05


def _mistakes_about_job(job: Job, requests: list[Request], now: float) -> Iterator[Seen]:
    """What all requests about one job show."""
    downloads = [
        request for request in requests if request.note.route == "get_video_content"
    ]
    asked = [request for request in requests if request.note.route != "get_video_content"]
    told = [
        poll
        for poll in asked
        if poll.note.shown in ENDINGS and poll.note.delivered is not False
    ]
    late = [poll for poll in told[1:] if _seconds_between(told[0], poll) >= 0]
    if len(late) > 1:  # one more is fine
        yield (
            "polled-after-end",
            f"{len(late)} polls after the client was told that the job is {job.ending.value}: "
            "it never changes any more; stop at every final status",
            late,
        )

    knows_id = any(request.note.delivered for request in asked)
    knows_end = told or any(download.note.status == 200 for download in downloads)
    if knows_id and not knows_end and not job.callback_url:  # else it waits for the webhook
        last = asked[-1]
        status = last.note.status
        if status == 200 and last.note.struck.source.get("body"):
            return  # who knows what that told the client
        text = f"Last asked for {now - last.note.time:.0f} s ago, its end was never seen"
        if status is None or status == 429 or status >= 500:
            text = f"Given up after a poll that got {status or 'no answer'}"
        text += ": the job goes on and is paid; keep polling until it ends"
        yield "abandoned", text, [last]

    fetchable = job.plan.outputs and job.plan.unsigned_urls is None
    if told and job.ending is Status.COMPLETED and fetchable and not downloads:
        yield (
            "never-downloaded",
            "Completed, and no output was downloaded; it is kept for a day only",
            told[:1],
        )
    by_index = defaultdict(list)
    for download in downloads:
        by_index[download.parameters.get("index") or "0"].append(download)
    for tries in by_index.values():
        over = [t for t in tries if t.note.status == 200 and t.note.delivered is not None]
        if tries[-1:] == over and not any(map(is_whole_clip, tries)):
            yield (
                "broken-download-kept",
                "The only download of this job was not a whole clip, and not tried again: "
                "check length and type, and ask once more",
                over,
            )


def is_whole_clip(request: Request) -> bool:
    """Whether a clip, to its end, left the socket with the answer to this request."""
    note = request.note
    return request.method == "GET" and note.to_the_end and note.delivered is True


def _seconds_between(first: Request, again: Request) -> float:
    """From the answer to the one until the other was sent; negative if it did not wait."""
    return again.note.time - again.note.ms / 1000 - first.note.time


def _again(requests: Iterable[Request], *fields: str) -> Iterator[tuple[Request, Request]]:
    """Requests with their scope's next that is alike in these fields, sent after the answer."""
    before: dict[Any, Request] = {}
    for request in requests:
        key = (scope_of(request), *[getattr(request, field) for field in fields])
        if key in before and _seconds_between(before[key], request) >= 0:
            yield before[key], request
        before[key] = request


def _order_of(submit: Request) -> bytes:
    """What a submit orders: its body without what only names this try."""
    body = shown_body(submit.body)
    if isinstance(body, dict):  # of a huge one only the beginning is kept, as text
        body = {key: body[key] for key in body if key not in _NAMES_OF_A_TRY}
    return json.dumps(body, sort_keys=True).encode()


def _mistakes_in_repeating(requests: list[Request]) -> Iterator[Seen]:
    orders = [
        request._replace(body=_order_of(request))
        for request in requests
        if request.note.route == "create_video" and request.note.job_id
    ]
    for first, again in _again(orders, "body"):
        if first.note.delivered is False:
            yield (
                "paid-twice",
                "Submitted again after a lost answer: two jobs, both charged; do not repeat a "
                "POST whose answer never came",
                [first, again],
            )
    for first, again in _again(requests, "method", "path"):
        waited = _seconds_between(first, again)
        asked = first.note.retry_after
        if waited < asked - 0.1:
            yield (
                "retry-after-ignored",
                f"Came back after {waited:.1f} s although Retry-After said {asked} s: that "
                "prolongs the limit; wait as long as it says",
                [first, again],
            )
    for first, again in _again(requests, "method", "url", "key", "body"):
        note = first.note
        if note.route in ("", "get_key"):
            continue  # of what no handler took, the body is unknown; a key may be asked about again
        if note.status == again.note.status and note.status in (400, 401, 402, 403, 413):
            yield (
                "refusal-retried",
                f"The same request again after a {note.status}, which it will get again: show "
                f"{note.error or 'its message'!r} to your user instead",
                [first, again],
            )


def findings_of(mock: VideoMock) -> list[Json]:
    """All findings, as the control API sends them, in the order of the requests that show them."""
    came = mock.store.last_seq
    requests = list(mock.store.newest_requests())[::-1]
    forgotten = came - len(requests)
    jobs = {job.id: job for job in mock.store.jobs()}
    by_job = defaultdict(list)
    seen = list[Seen]()
    if forgotten > 0:
        seen.append(
            (
                "journal-forgot",
                f"The journal has forgotten {forgotten} requests: what they showed is "
                "missing; see --max-requests",
                [],
            )
        )
    for request in requests:
        job = jobs.get(request.note.job_id or "")
        seen += [(rule, text, [request]) for rule, text in mistakes_in(request, job)]
        if job is not None and request.method != "HEAD":
            by_job[job.id].append(request)
    for key, about_it in by_job.items():
        seen += _mistakes_about_job(jobs[key], about_it, mock.now())
    seen += _mistakes_in_repeating(requests)
    for delivery in mock.courier.deliveries():
        if delivery.state == "failed":
            seen.append(
                (
                    "webhook-unanswered",
                    f"The webhook of {delivery.job.id} was not accepted in 5 attempts: answer "
                    "2xx within 10 s, and do the work afterwards",
                    by_job[delivery.job.id][:1],
                )
            )
    for difference in mock.recorder.differences:
        text = f"{difference}; if production says so, the mock is wrong: tell its authors"
        seen.append(("differs-from-mock", text, []))

    findings: list[Json] = []
    for rule, text, shown_by in seen:
        job_id = scope = None
        age = 0.0
        for last in shown_by[-1:]:
            job_id = last.note.job_id
            scope = scope_of(last)
            age = round(mock.now() - last.note.time, 1)
        if job_id in jobs:
            scope = jobs[job_id].scope
        finding = {
            "rule": rule,
            "level": RULES[rule],
            "text": text,
            "job_id": job_id,
            "requests": tuple(request.note.seq for request in shown_by),
            "scope": scope,
            "so_far": rule in _SO_FAR,
            "age": age,  # seconds since the last of them
        }
        findings.append(finding)
    return sorted(findings, key=lambda finding: finding["requests"][-1:])


# ============ 12. Trial: does a client survive production? ==================================
#
# In a trial every submit takes one course.  The verdict rests on two questions that need no
# knowledge of the client: does it tell the truth, that is, does it succeed exactly if a whole
# clip was delivered to it; and does it reach what a patient client can reach?
#
# To add a trial: a row of TRIALS, whose course is a fixture without its match, and its name in
# the README, with their number.


class Trial(NamedTuple):
    """A row of TRIALS."""

    says: str  # what happens
    reachable: bool  # whether a patient client gets the clip
    course: Json  # what a fixture says beside its match
    excused: Sequence[str] = ()  # findings that the course brings about by itself
    endless: bool = False  # being stopped is no fault


TRIALS: dict[str, Trial] = {
    name: Trial(**row)
    for name, row in json.loads("""{
  "in-progress": {"says": "in_progress, then completed", "reachable": true, "course": {}},
  "straight": {"says": "pending, then completed", "reachable": true,
    "course": {"lifecycle": {"polls": {"pending": 1}}}},
  "slow-start": {"says": "pending for four seconds", "reachable": true,
    "course": {"lifecycle": {"seconds": {"pending": 4}}}},
  "two-outputs": {"says": "two clips; one is enough", "reachable": true,
    "course": {"response": {"video": {"count": 2}}}},
  "poll-503": {"says": "503 on the first poll", "reachable": true,
    "course": {"faults": [{"on": "poll", "status": 503, "times": 1}]}},
  "poll-429": {"says": "429 on the first poll", "reachable": true,
    "course": {"faults": [{"on": "poll", "status": 429, "retryAfter": 1, "times": 1}]}},
  "poll-closed": {"says": "no answer to the first poll", "reachable": true,
    "course": {"faults": [{"on": "poll", "close": true, "times": 1}]}},
  "submit-503": {"says": "503 on the submit, then fine", "reachable": true,
    "course": {"faults": [{"on": "submit", "status": 503, "retryAfter": 1, "times": 1}]}},
  "submit-429": {"says": "429 on the submit twice, then fine", "reachable": true,
    "course": {"faults": [{"on": "submit", "status": 429, "retryAfter": 1, "times": 2}]}},
  "submit-lost": {"says": "the answer to the submit is lost", "reachable": false,
    "course": {"faults": [{"on": "submit", "lost": true, "times": 1}]}},
  "download-cut": {"says": "the first download breaks off", "reachable": true,
    "course": {"faults": [{"on": "content", "truncate": 2000, "times": 1}]}},
  "download-stalled": {"says": "the first download stalls for 5 s, then breaks off",
    "reachable": true,
    "course": {"faults": [{"on": "content", "stall": 2000, "delay": 5, "times": 1}]}},
  "empty-clip": {"says": "the download is empty", "reachable": false,
    "excused": ["broken-download-kept"], "course": {"response": {"video": {"b64": ""}}}},
  "not-a-clip": {"says": "the download is a line of text", "reachable": false,
    "excused": ["broken-download-kept"],
    "course": {"faults": [{"on": "content", "status": 200, "body": "still processing",
      "contentType": "text/plain"}]}},
  "failed": {"says": "the job fails", "reachable": false,
    "course": {"response": {"video": {"status": "failed"}}}},
  "cancelled": {"says": "the job is cancelled", "reachable": false,
    "course": {"response": {"video": {"status": "cancelled"}}}},
  "expired": {"says": "the job expires", "reachable": false,
    "course": {"response": {"video": {"status": "expired"}}}},
  "no-urls": {"says": "completed without any output", "reachable": false,
    "course": {"response": {"video": {"unsigned_urls": [], "stored": false}}}},
  "refused-400": {"says": "the submit is refused: 400", "reachable": false,
    "course": {"response": {"status": 400}}},
  "refused-401": {"says": "the submit is refused: 401", "reachable": false,
    "course": {"response": {"status": 401}}},
  "refused-402": {"says": "the submit is refused: 402", "reachable": false,
    "course": {"response": {"status": 402}}},
  "refused-403": {"says": "the submit is refused: 403", "reachable": false,
    "course": {"response": {"status": 403}}},
  "never-ends": {"says": "in_progress for ever", "reachable": false, "endless": true,
    "excused": ["abandoned"],
    "course": {"response": {"video": {"status": "in_progress"}}}},
  "elsewhere": {"says": "signed urls on another origin", "reachable": true,
    "course": {"response": {"video": {"elsewhere": true}}}}
}""").items()
}
SETTINGS["trial"]["enum"] = list(TRIALS)


def verdict_of(mock: VideoMock, succeeded: bool, stopped_after: float = 0) -> Json:
    """Whether the client passes the mock's trial, in a word why, and what else is to be said.

    `succeeded` is what it says of itself; after `stopped_after` seconds it had to be stopped.
    """
    trial = TRIALS[mock.config.trial]
    requests = list(mock.store.newest_requests())
    delivered = any(map(is_whole_clip, requests))
    findings = [found for found in mock.findings() if found["rule"] not in trial.excused]
    errors = [finding["text"] for finding in findings if finding["level"] == "error"]
    models = {job.submit.model for job in mock.store.jobs()}
    passed = False
    if stopped_after and not trial.endless:
        reason = f"still running after {stopped_after:g} s: stopped"
    elif not requests and not stopped_after:
        reason = "no request arrived: does it use OPENROUTER_BASE_URL?"
    elif succeeded and not delivered:
        reason = "success although no whole clip was delivered"
    elif delivered and not succeeded:
        reason = "failure although a whole clip was delivered"
    elif errors:
        reason = errors[0]
    elif trial.reachable and not delivered:
        reason = "gave up, although patience gets the clip"
    else:
        passed = True
        reason = "failure told as such"
        if delivered:
            reason = "clip delivered"
        if stopped_after:
            reason = f"never gave up: stopped after {stopped_after:g} s"
    return {
        "passed": passed,
        "reason": reason,
        "delivered": delivered,
        "findings": [f"{finding['rule']}: {finding['text']}" for finding in findings],
        "unlisted_models": [m for m in models if mock.store.listed_model(m) is None],
    }


# ============ 13. Control API and status page ===============================================
#
# What a test asserts on and steers with, under /__mock/.  Never journaled, never subject to
# faults or keys; closed to pages of other origins, to names that a hostile DNS could have
# pointed here, and to the mock's own webhooks.  The page at / shows what these routes say, and
# each of its buttons is one of their calls.


def check_control_access(mock: VideoMock, request: Request) -> None:
    """403 for another origin's page, a webhook, and a Host neither an address nor a local name."""
    headers = request.headers
    public = urlsplit(mock.config.public_url)
    if "x-openrouter-idempotency-key" in headers:
        raise ApiError(403, "The control API takes no webhooks")
    host = headers.get("host", "localhost").lower()
    name = re.sub(r":\d*$", "", host).strip("[]")
    known = ("host.docker.internal", mock.config.host.lower(), public.hostname)
    # The DNS has no name without a dot, and no address.
    if name not in known and not re.fullmatch("[^.]*|[0-9.]+|.*:.*", name):
        cure = "start with --host or --public-url"
        raise ApiError(403, f"The control API does not answer to the name {name}; {cure}")
    origin = headers.get("origin", "").lower().rpartition("/")[2]
    foreign = origin not in ("", host, public.netloc.lower())
    if foreign or headers.get("sec-fetch-site") == "cross-site":
        raise ApiError(403, "The control API is closed to pages of other sites")


# ---- What it says: jobs, requests, deliveries, fixtures as JSON


def job_to_control(job: Job, now: float, deliveries: Iterable[Delivery]) -> Json:
    """Everything that is known of a job."""
    status = status_at(job, now)
    pace = job.pace
    plan = job.plan
    request = shown_body(job.body)
    if isinstance(request, dict):  # without what production strips
        request = {k: v for k, v in request.items() if k in _FIELDS}
    spans = {status.value: span for status, span in zip(WAITING, pace.spans, strict=True)}
    wire: Json = {
        "id": job.id,
        "status": status.value,
        "model": job.submit.model,
        "fixture": job.fixture,
        "scope": job.scope,
        "polls": job.polls,
        "created_at": round(job.created_at, 3),
        "ended_at": None,
        "expires_at": None,
        "cost": job.cost,
        "error": None,
        "request": request,
        "plan": {
            "status": job.ending.value,
            "error": job.error,
            pace.unit: spans,
            "count": plan.outputs,
            "stored": plan.stored,
            "faults": [fault.label for fault in plan.faults],
        },
        "webhooks": [delivery_to_wire(delivery) for delivery in deliveries],
    }
    if status in ENDINGS:
        wire["ended_at"] = round(job.ends_at, 3)
        wire["expires_at"] = expires_at(job)
        wire["error"] = job.error
        if status is not Status.COMPLETED:
            wire["cost"] = 0
    return wire


def delivery_to_wire(delivery: Delivery) -> Json:
    """A webhook delivery: what was sent, and what came of it."""
    return {
        "job_id": delivery.job.id,
        "event": f"video.generation.{delivery.job.ending.value}",
        "url": delivery.job.callback_url,
        "state": delivery.state,
        "reason": delivery.reason,
        "body": delivery.body.decode(),
        "headers": dict(delivery.headers),
        "attempts": [dict(attempt) for attempt in delivery.attempts],
    }


def fixture_to_wire(fixture: Fixture, matched: int) -> Json:
    """A fixture as written, and how often it matched."""
    return {
        **json_copy(fixture.source),
        "name": fixture.name,
        "matched": matched,
        "built_in": fixture in SCENARIO_FIXTURES,
    }


# Of a note, in a journal's entry.
_NOTED = ("status", "job_id", "fixture", "error", "hint", "upstream")
_SECRET_HEADERS = {"authorization", "proxy-authorization", "cookie", "x-api-key"}


def request_to_wire(request: Request) -> Json:
    """An entry of the journal; keys appear as labels only."""
    note = request.note
    headers = dict(request.headers)
    for name in _SECRET_HEADERS & headers.keys():
        headers[name] = "***"
    if request.key:
        headers["authorization"] = f"Bearer {key_label(request.key)}"
    return {
        "seq": note.seq,
        "time": round(note.time, 3),
        "method": request.method,
        "path": request.url,
        "headers": headers,
        "body": shown_body(request.body),
        "scope": scope_of(request),
        "ms": round(note.ms, 3),
        **{name: getattr(note, name) for name in _NOTED},
        "fault": note.struck.label or None,
        "closest": json_copy(note.closest),
    }


# ---- What it takes: most control routes are methods of the mock

# By the method: the schema of its arguments, with `defaults` that only count here; the `key` of
# the answer, unless that is an object already.  What has no schema takes the body as it is, and
# makes something of it.
_METHODS: dict[str, Json] = json.loads("""{
  "health": {"type": "object", "properties": {}},
  "job": {"type": "object", "properties": {}},
  "reset": {"type": "object", "properties": {}},
  "now": {"key": "now", "type": "object", "properties": {}},
  "fixtures": {"key": "fixtures", "type": "object", "properties": {}},
  "faults": {"key": "faults", "type": "object", "properties": {}},
  "clear_faults": {"key": "faults", "type": "object", "properties": {}},
  "add_fixture": {"key": "fixtures"},
  "add_fault": {"key": "faults"},
  "jobs": {"key": "jobs", "type": "object", "defaults": {"limit": 100}, "properties": {
    "scope": {"type": "string"},
    "limit": {"type": "int", "minimum": 1},
    "offset": {"type": "int", "minimum": 0}}},
  "requests": {"key": "requests", "type": "object", "properties": {
    "method": {"type": "string"},
    "path": {"type": "string"},
    "status": {"type": "string", "pattern": "[1-5]([0-9]{2}|xx)|closed", "nullable": true},
    "job_id": {"type": "string"},
    "scope": {"type": "string"},
    "since": {"type": "int", "minimum": 0},
    "limit": {"type": "int", "minimum": 1},
    "offset": {"type": "int", "minimum": 0},
    "wait": {"type": "number", "minimum": 0, "maximum": 60},
    "count": {"type": "int", "minimum": 1}}},
  "findings": {"key": "findings", "type": "object", "properties": {
    "rule": {"enum": [], "nullable": true},
    "level": {"enum": ["error", "warning", "note"], "nullable": true},
    "job_id": {"type": "string"},
    "scope": {"type": "string"}}},
  "webhooks": {"key": "webhooks", "type": "object", "properties": {
    "job_id": {"type": "string"},
    "scope": {"type": "string"},
    "limit": {"type": "int", "minimum": 1},
    "wait": {"type": "number", "minimum": 0, "maximum": 60},
    "count": {"type": "int", "minimum": 1}}},
  "finish": {"type": "object", "required": ["status"], "properties": {
    "status": {"$ref": "ending"},
    "error": {"type": "string", "nullable": true}}},
  "advance": {"key": "now", "type": "object", "required": ["advance"], "properties": {
    "advance": {"type": "number", "minimum": 0, "maximum": 1e9}}}
}""")
_METHODS["findings"]["properties"]["rule"]["enum"] = list(RULES)


def call_method(
    mock: VideoMock, request: Request, method: Handler, groups: dict[str, str]
) -> Response:
    """Call a method of the mock with the keys of the body, or of the query if there is none."""
    request.note.end_turn()  # it may wait, or list a lot
    schema = _METHODS[method.__name__]
    fields = schema.get("properties", {})
    arguments: Any = request.parameters
    arguments.pop("testId", None)
    for name, text in arguments.items():
        arguments[name] = from_text(fields.get(name, {}), text)
    if request.body:
        arguments = shown_body(request.body)
    if "properties" not in schema:
        return json_response({schema["key"]: method(mock, arguments)}, status=201)
    arguments = _python_names(checked(schema, arguments, "arguments"))
    if "advance" in arguments:
        arguments["seconds"] = arguments.pop("advance")
    answer = method(mock, **groups, **schema.get("defaults", {}) | arguments)
    if "key" in schema:
        answer = {schema["key"]: answer}
    return json_response(answer)


def control_clip(mock: VideoMock, request: Request, job_id: str) -> Response:
    """A job's clip without a key and with ranges, whatever the job's status, for players."""
    job = mock.store.job(mock.id_of(job_id))
    return range_response(request, clip_of(job, index_of(request)))


def status_page(mock: VideoMock, request: Request) -> Response:
    """This page: jobs and requests live, clips, endings, clock, reset."""
    rows = ""
    for method, pattern, handler in ROUTES:
        if handler is answer_preflight:
            continue
        summary = (handler.__doc__ or "").partition("\n")[0]  # -OO takes it away
        rows += f"<tr><td>{method}</td><td><code>{shown_path(pattern)}</code></td>"
        rows += f"<td>{html.escape(summary)}</td></tr>"
    nonce = os.urandom(12).hex()
    page = STATUS_PAGE.replace("{{routes}}", rows).replace("{{nonce}}", nonce)
    page = page.replace("{{endings}}", _encode_json(ENDING_NAMES))
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "connect-src 'self'; media-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    headers = (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
    )
    return Response(200, page.encode(), headers)


STATUS_PAGE = r"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>openrouter_video_mock</title>
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'
 viewBox='0 0 8 8'%3E%3Cpath fill='%236d5df6' d='M1 0l6 4-6 4z'/%3E%3C/svg%3E">
<style nonce="{{nonce}}">
:root{
color-scheme:light dark;--c:var(--soft);--mono:12.5px/1.5 ui-monospace,Menlo,Consolas,monospace;
--bg:light-dark(#f4f4f8,#121217);--card:light-dark(#fff,#1b1b23);--ink:light-dark(#1b1b22,#ececf2);
--soft:light-dark(#585866,#a5a5b4);--line:light-dark(#dcdce6,#32323f);
--accent:light-dark(#5041d0,#a197ff);--good:light-dark(#0f6a35,#5fd38d);
--bad:light-dark(#ab1c1c,#ff8d8d);--wait:light-dark(#7c4f00,#eeb64f);
--busy:light-dark(#1a54b0,#85b5ff);
}
.pending,.expired,.warning{--c:var(--wait)}
.in_progress,.note,.s3{--c:var(--busy)}
.completed,.delivered,.s2{--c:var(--good)}
.failed,.refused,.dropped,.error,.alarm,.s4,.s5,.s0{--c:var(--bad)}
*{box-sizing:border-box}
html{overflow-anchor:none}
body{margin:0;background:var(--bg);color:var(--ink);font:14px/1.45 system-ui,sans-serif}
a{color:var(--accent)}
code,pre,dd,#requests .text{font:var(--mono);overflow-wrap:anywhere}
header,.row{display:flex;flex-wrap:wrap;gap:6px 8px;align-items:center}
header{gap:8px 14px;padding:9px 20px;background:var(--card);border-bottom:1px solid var(--line)}
h1{font-size:16px;margin:0}
h1::before{
content:"";display:inline-block;width:9px;height:9px;margin-right:8px;border-radius:9px;
background:var(--good);
}
.offline h1::before{background:var(--bad)}
.offline main{filter:grayscale(1)}
h1 small,.soft{font-weight:400;color:var(--soft)}
h2{font-size:15px;margin:0 4px 0 0;display:inline}
h3{font-size:12px;margin:4px 0 -6px;color:var(--soft)}
.reason,h3.failed,h3.refused,h3.dropped,h3.delivered{color:var(--c)}
main,footer{padding:10px 20px 0;width:100%;max-width:1600px;margin:auto}
main{display:flex;flex-direction:column;gap:8px}
#faults:empty{display:none}
#trouble:empty{position:absolute}
#tabs{display:none}
#lists{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:20px}
section>.row{min-height:36px;padding-bottom:4px}
.list:has(.card[open])::after{content:"";display:block;height:80vh}
button,input{
font:inherit;font-size:13px;padding:2px 10px;border:1px solid var(--line);border-radius:6px;
background:var(--bg);color:var(--ink);
}
button{cursor:pointer}
button:hover:enabled{border-color:var(--accent)}
button:disabled{color:var(--soft);opacity:.6;cursor:default}
#reset{min-width:108px}
#reset.sure{background:var(--bad);color:var(--card)}
::placeholder{color:var(--soft);opacity:1}
#filter{flex:1 1 100px;min-width:100px;max-width:280px}
:focus-visible{outline:2px solid var(--accent);outline-offset:1px}
summary:focus-visible,.finding:focus-visible{outline-offset:-2px}
.push{margin-left:auto}
#trouble{color:var(--bad)}
.card{
background:var(--card);border:1px solid var(--line);box-shadow:inset 3px 0 var(--c);
margin-top:-1px;scroll-margin-top:6px;
}
.card:first-child{border-radius:8px 8px 0 0;margin-top:0}
.card:last-child{border-radius:0 0 8px 8px}
.card:only-child,.card[open]{border-radius:8px}
.card[open]{margin:6px 0;box-shadow:inset 3px 0 var(--c),0 2px 10px #0002}
.card>summary{
display:grid;grid-template-columns:auto minmax(0,1fr) auto 8px;gap:2px 10px;
align-items:center;padding:6px 12px;cursor:pointer;list-style:none;
}
.card>summary::after{content:"›";color:var(--soft);grid-area:1/4}
.card[open]>summary::after{rotate:90deg}
summary::-webkit-details-marker{display:none}
summary:hover{background:color-mix(in srgb,var(--accent) 5%,#0000)}
.text,.right{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.text{font-weight:500}
#requests .text{white-space:normal}
.sub,.right{font-size:12.5px;color:var(--soft)}
.sub{grid-area:2/2/3/4;display:flex;flex-wrap:wrap;gap:3px 6px;align-items:center}
.sub:empty{display:none}
.about{
flex:1 1 180px;overflow:hidden;overflow-wrap:anywhere;
display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:3;
}
.about.failed{color:var(--c)}
.tag,.pill{
font-size:12px;padding:1px 8px;border:0;border-radius:99px;color:var(--c);
text-align:center;white-space:nowrap;background:color-mix(in srgb,var(--c) 12%,var(--card));
}
button.pill{border:1px solid color-mix(in srgb,var(--c) 45%,#0000)}
button.pill[aria-pressed=true]{background:var(--c);color:var(--card)}
#jobs .tag{min-width:100px}
#requests .tag{min-width:58px}
#faults .pill{white-space:normal;border-radius:8px}
.tag.in_progress::before{
content:"";display:inline-block;width:6px;height:6px;margin:0 5px 1px 0;border-radius:6px;
background:var(--c);animation:breathe .8s ease-in-out infinite alternate;
}
@keyframes breathe{to{opacity:.2}}
.more{padding:10px 12px 12px;display:grid;gap:10px;grid-template-columns:minmax(0,1fr)}
[open]>.more{border-top:1px solid var(--line)}
.more:empty{display:none}
dl{display:grid;grid-template-columns:auto minmax(0,1fr);gap:2px 14px;margin:0}
dt{color:var(--soft)}
dd{margin:0}
pre{margin:0;padding:8px 10px;background:var(--bg);border-radius:6px;white-space:pre-wrap}
.copy{display:flex;gap:6px;align-items:start}
.copy pre{flex:1}
.links{display:grid;gap:3px}
.links a{display:flex;gap:8px;align-items:baseline;font:var(--mono)}
.clips{display:grid;grid-template-columns:repeat(auto-fit,minmax(230px,1fr));gap:8px}
video{width:100%;aspect-ratio:16/9;max-height:340px;background:#000;border-radius:6px}
#findings{background:var(--card);border:1px solid var(--line);border-radius:8px}
#findings summary{padding:5px 12px;cursor:pointer}
#findings summary span{margin-right:6px}
#finding-list{max-height:20vh;overflow:auto;border-top:1px solid var(--line)}
.finding{
display:grid;grid-template-columns:62px 150px minmax(0,1fr) auto;gap:2px 10px;align-items:baseline;
padding:4px 12px;color:inherit;text-decoration:none;
}
.finding:hover{background:color-mix(in srgb,var(--accent) 5%,#0000)}
.finding u{color:var(--accent)}
table{border-collapse:collapse;width:100%}
footer{padding-bottom:10px}
footer summary{padding:4px 0;cursor:pointer}
td{
padding:4px 12px 4px 0;vertical-align:top;border-top:1px solid var(--line);
overflow-wrap:anywhere;
}
@media(min-width:821px) and (min-height:560px){
body{display:flex;flex-direction:column;height:100vh;overflow:hidden}
main{flex:1;min-height:0}
#lists{flex:1;min-height:0;grid-template-rows:minmax(0,1fr)}
section{display:flex;flex-direction:column}
section>.row{padding-right:10px}
.list{flex:1;min-height:0;overflow:auto;scrollbar-width:thin;scrollbar-gutter:stable}
footer{max-height:40vh;overflow:auto}
}
@media(max-width:1100px){.sub{grid-area:2/1/3/4}}
@media(max-width:820px){
#lists{grid-template-columns:minmax(0,1fr)}
main,footer{padding:8px 12px 0}
header{padding:8px 12px;gap:8px}
#steps{display:contents}
.push{margin-left:0}
button,input{padding:5px 9px}
.pill{padding:2px 9px}
#filter{max-width:none}
#clock{width:100%}
h1{flex:1}
h1,#reset{order:-1}
#reset{min-width:0;width:100px;padding:5px 0}
#tabs{display:flex;position:sticky;top:0;z-index:2;background:var(--bg);padding:4px 0}
#tabs button{flex:1}
#tabs [aria-pressed=true]{background:var(--accent);color:var(--card);border-color:#0000}
.on-job #request-section,.on-request #job-section{display:none}
section h2{display:none}
.card{scroll-margin-top:52px}
#jobs .tag{min-width:0}
.finding{grid-template-columns:auto minmax(0,1fr) auto}
.finding .words{grid-area:2/1/3/4}
td{display:inline-block;border:0;padding:0 8px 0 0}
td:last-child{display:block;padding-bottom:8px}
}
@media(prefers-reduced-motion){.tag.in_progress::before{animation:none}}
</style></head><body class="on-job">
<header><h1>openrouter_video_mock <small id="version"></small></h1>
<span class="row"><code id="base"></code></span>
<input type="search" id="filter" aria-label="filter both lists" placeholder="filter">
<span class="row push" id="steps"><code id="clock">…</code></span>
<button id="reset">reset</button><span id="trouble" role="status"></span></header>
<main><div id="faults" class="row"></div>
<details id="findings" hidden><summary><h2>Findings</h2> <span id="levels"></span></summary>
<div id="finding-list"></div></details>
<div id="tabs" class="row"></div>
<div id="lists">
<section id="job-section" aria-labelledby="job-title">
<div class="row"><h2 id="job-title">Jobs</h2><span class="soft" id="job-count"></span>
<span class="row" id="job-looks"></span><span class="row push" id="job-pages"></span></div>
<div id="jobs" class="list"></div></section>
<section id="request-section" aria-labelledby="request-title">
<div class="row"><h2 id="request-title">Requests</h2><span class="soft" id="request-count"></span>
<span class="row" id="request-looks"></span><span class="row push" id="request-pages"></span></div>
<div id="requests" class="list"></div></section>
</div></main>
<footer><details><summary><h2>Routes</h2> <span class="soft" id="catalogue"></span></summary>
<table>{{routes}}</table></details></footer>
<script nonce="{{nonce}}">
"use strict";
const WAITING = ["pending", "in_progress"];
const ENDINGS = {{endings}};
const PAGE = 100;  // cards in a list
const DEPTH = 1000;  // how many of the newest a filter looks through
const TOP = 30;  // findings above the lists
const LEVELS = ["error", "warning", "note"];
const ANSWERS = {s2: "2xx", s3: "3xx", s4: "4xx", s5: "5xx", s0: "closed"};
const OFFLINE = "the mock does not answer";
const base = location.origin + "/api/v1";
const $ = id => document.getElementById(id);
const lookOfRequest = entry => "s" + Math.floor((entry.status ?? 0) / 100);
// What a list shows: cards of one look, or of all if it is "", after `offset` newer ones.
const views = {
  job: {look: "", offset: 0, total: 0, looks: [...WAITING, ...ENDINGS],
    lookOf: job => job.status, idOf: job => job.id, cardOf: jobCard},
  request: {look: "", offset: 0, total: 0, looks: Object.keys(ANSWERS),
    lookOf: lookOfRequest, idOf: entry => String(entry.seq), cardOf: requestCard},
};
let linked = null;  // the card that the address names, and whether it is still to be opened
let mock = null;  // all that the mock answered last

// ---- Nodes.  Everything that a request brought reaches the page as text, never as markup.

function el(tag, className = "", ...children) {
  const node = Object.assign(document.createElement(tag), {className});
  node.append(...children);
  return node;
}
const button = (text, press) => Object.assign(el("button", "", text), {onclick: press});
const link = (kind, id, ...children) =>
  Object.assign(el("a", "", ...children), {href: `#${kind}=${id}`});
// Children as [key, make, update].  What is there stays: an open card stays open, a clip
// plays on, the focus holds.
function sync(parent, parts) {
  const old = new Map(Array.from(parent.children, node => [node.key, node]));
  const nodes = parts.map(([key, make]) => old.get(key) ?? Object.assign(make(), {key}));
  const kept = new Set(nodes);
  for (const node of old.values())
    if (!kept.has(node)) node.remove();
  nodes.forEach((node, i) => {
    const there = parent.children[i] ?? null;
    if (there !== node) parent.insertBefore(node, there);
    const update = parts[i][2];
    update?.(node);
  });
}
const write = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
const part = (name, tag, look, text) =>
  [[tag, name, look].join(), () => el(tag, look), node => write(node, text)];
const group = (name, tag, look, parts) =>
  [[tag, name, look].join(), () => el(tag, look), node => sync(node, parts)];
const pills = pairs =>
  pairs.map(([look, text], i) => part("pill" + i, "span", "pill " + look, text));
const labelled = (name, text, look = "") =>
  [part(name, "h3", look, name), part(name, "pre", "", text)];
// Pairs of a name and a text or a link; what is empty is left out.
const facts = pairs => group("facts", "dl", "", Object.entries(pairs).flatMap(([name, value]) => {
  if (!value) return [];
  const term = part(name, "dt", "", name);
  if (value.href) return [term, [value.href, () => el("dd", "", value)]];
  return [term, part(name, "dd", "", value)];
}));
function card(kind, id, look, head, body) {
  const make = () => {
    const node = el("details", "", el("summary"), el("div", "more"));
    node.addEventListener("toggle", () => {
      node.draw();
      remember(kind, id, node.open);
    });
    return node;
  };
  const update = node => {
    const [summary, more] = node.children;
    node.className = "card " + look;
    node.draw = () => {
      const focused = more.contains(document.activeElement);
      sync(more, node.open ? body() : []);
      if (focused && !more.contains(document.activeElement)) summary.focus();
    };
    sync(summary, head);
    node.draw();
  };
  return [id, make, update];
}
const head = (look, tag, title, time, marks, about) => [
  part("tag", "span", "tag " + look, tag),
  part("title", "span", "text", title),
  part("time", "span", "right", time),
  group("sub", "span", "sub", [...pills(marks), ...about]),
];
const copier = source => button("copy", async ({target}) => {
  // Selected for Ctrl+C, where the browser gives this origin no clipboard.
  getSelection().selectAllChildren(source);
  const copying = navigator.clipboard?.writeText(source.textContent) ?? Promise.reject();
  target.textContent = await copying.then(() => "copied", () => "selected");
  setTimeout(() => target.textContent = "copy", 1200);
});
function curl(path, more = "") {
  const pre = el("pre", "", `curl -s '${base}${path}' -H 'Authorization: Bearer test'${more}`);
  return [pre.textContent, () => el("div", "copy", pre, copier(pre))];
}

// ---- Calls of the control API

async function call(method, path, body) {
  const reply = await fetch("/__mock/" + path, {method, body: body && JSON.stringify(body)});
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.error.message);
  return answer;
}
async function act(method, path, body) {
  const said = await call(method, path, body).then(() => "", error => error.message);
  write($("trouble"), said);
  refresh();
}

// ---- Words

const pretty = value => typeof value === "string" ? value : JSON.stringify(value, null, 2);
const iso = time => new Date(time * 1000).toISOString();
function local(time) {
  const zone = new Date(time * 1000).getTimezoneOffset() * 60;
  return iso(time - zone).replace("T", " ").slice(0, 19);
}
const both = time => `${local(time)} (${iso(time)})`;
function clock(time) {
  const [day, hours] = local(time).split(" ");
  return local(mock.now).startsWith(day) ? hours : `${day.slice(5)} ${hours}`;
}
function span(s) {
  if (s < 1) return `${Math.round(s * 1000) || "<1"} ms`;
  if (s < 120) return `${Math.round(s)} s`;
  return s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
}
const joined = (words, by) => words.filter(Boolean).join(by);
const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const short = id => "…" + id.slice(-5);
const FORM = {style: "currency", currency: "USD", maximumFractionDigits: 4};
const money = cost => cost.toLocaleString("en", FORM);
const sum = numbers => numbers.reduce((a, b) => a + b, 0);
function costOf(job) {
  if (job.cost === null) return "no cost given";
  return money(job.cost) + (job.ended_at ? "" : " once completed");
}
function endOf({plan}) {
  if (WAITING.includes(plan.status)) return "never ends";
  const spans = sum(Object.values(plan.polls ?? plan.seconds));
  const when = plan.polls ? `ends at poll ${spans + 1}` : `ends after ${span(spans)}`;
  return plan.status === "completed" ? when : `${when} as ${plan.status}`;
}
const line = (method, path) =>
  `${method} ${path.replace(/gen-vid-\d+-\w{15}(?=\w{5})/, "…")}`;

// ---- Cards

const marksOf = found => [...new Map(found.map(f => [f.rule, [f.level, f.rule]])).values()];
const flaws = found => found.map((f, i) =>
  part("flaw" + i, "div", "reason " + f.level, `${f.level}: ${f.rule}. ${f.text}`));
function jobCard(job) {
  const found = mock.findings.filter(finding => finding.job_id === job.id);
  const lost = job.webhooks.some(hook => !["pending", "delivered"].includes(hook.state));
  const ran = span((job.ended_at ?? mock.now) - job.created_at);
  const about = [costOf(job), count(job.polls, "poll"), !job.ended_at && endOf(job),
    (job.ended_at ? "took " : "for ") + ran, isGone(job) && "outputs gone",
    short(job.id), job.model, job.error];
  const marks = job.webhooks.map(hook => [hook.state, "webhook " + hook.state]);
  return card("job", job.id, job.status + (lost ? " alarm" : ""), head(job.status, job.status,
    (job.request.prompt || "(no prompt)").slice(0, 300), clock(job.created_at),
    [...marks, ...marksOf(found)],
    [part("about", "span", "about", joined(about, " · "))]),
  () => jobBody(job, found));
}
const isGone = job => job.status === "completed" && mock.now >= job.expires_at;
function jobBody(job, found) {
  const clips = job.status === "completed" && !isGone(job) ? job.plan.count : 0;
  const gone = `The outputs are gone since ${local(job.expires_at)}: the API answers 410.`;
  const end = status => button(status, () => act("PATCH", "jobs/" + job.id, {status}));
  const endings = () => el("div", "row", el("span", "soft", "end it as"), ...ENDINGS.map(end));
  return [
    ...flaws(found),
    ...job.error ? [part("error", "div", "reason failed", job.error)] : [],
    ...clips ? [["clips", () => clipsOf(job)]] : [],
    ...isGone(job) ? [part("gone", "div", "soft", gone)] : [],
    ...job.ended_at ? [] : [["end", endings]],
    facts({id: link("job", job.id, job.id), model: job.model, fixture: job.fixture,
      scope: job.scope, created: both(job.created_at), ended: job.ended_at && both(job.ended_at),
      plan: !job.ended_at && endOf(job), faults: job.plan.faults.join(", "), cost: costOf(job),
      clips: job.status === "completed" && !job.plan.count && "none",
      "kept until": clips && both(job.expires_at)}),
    ...requestsOf(job),
    ...job.webhooks.flatMap(webhook),
    ...labelled("request", pretty(job.request)),
    curl("/videos/" + job.id),
    ...clips ? [curl(`/videos/${job.id}/content?index=0`, " -o clip.mp4")] : [],
  ];
}
function clipsOf(job) {
  const video = (_, i) => Object.assign(el("video"), {
    controls: true, ariaLabel: "clip " + i, src: `/__mock/jobs/${job.id}/clip?index=${i}`});
  return el("div", "clips", ...Array.from({length: job.plan.count}, video));
}
function requestsOf(job) {
  const entries = mock.requestsOf.get(job.id) ?? [];
  const row = entry => [entry.seq, () => link("request", entry.seq), node => sync(node, [
    part("status", "span", "pill " + lookOfRequest(entry), String(entry.status ?? "closed")),
    part("line", "span", "", `${clock(entry.time)} ${line(entry.method, entry.path)}`),
  ])];
  const title = entries.length < PAGE ? "requests" : `its ${PAGE} newest requests`;
  return [part("requests", "h3", "", title), group("requests", "div", "links", entries.map(row))];
}
function webhook(hook, i) {
  const name = `webhook ${i + 1}`;
  const attempts = hook.attempts.map(({at, status, error, fault}, n) =>
    joined([`attempt ${n + 1}, ${clock(at)}:`, fault && "⚡ " + fault, status, error], " "));
  const headers = Object.entries(hook.headers).map(([key, value]) => `${key}: ${value}`);
  const story = [`${hook.event} → ${hook.url}`, ...attempts, hook.reason];
  return [
    ...labelled(`${name}: ${hook.state}`, joined(story, "\n"), hook.state),
    ...headers.length ? labelled(name + " headers", headers.join("\n")) : [],
    ...labelled(name + " payload", pretty(JSON.parse(hook.body))),
  ];
}
function requestCard(entry) {
  const found = mock.findings.filter(finding => finding.requests.includes(entry.seq));
  const look = lookOfRequest(entry);
  const made = entry.job_id && !entry.path.includes(entry.job_id);
  const title = entry.path ? line(entry.method, entry.path) : "no readable request";
  const about = joined([entry.error, entry.hint], " · ");
  const marks = [
    ...entry.fault ? [["failed", "⚡ " + entry.fault]] : [],
    ...entry.closest ? [["failed", "no match"]] : [],
    ...entry.upstream ? [["in_progress", "recorded"]] : [],
    ...marksOf(found),
  ];
  return card("request", String(entry.seq), look, head(look, String(entry.status ?? "closed"),
    title + (made ? " → " + short(entry.job_id) : ""), clock(entry.time), marks,
    about ? [part("about", "span", "about failed", about)] : []),
  () => requestBody(entry, found));
}
function requestBody(entry, found) {
  const headers = Object.entries(entry.headers).map(([name, value]) => `${name}: ${value}`);
  const reason = entry.error;
  return [
    ...flaws(found),
    ...reason ? [part("error", "div", "reason failed", reason)] : [],
    ...entry.hint ? [part("hint", "div", "", entry.hint)] : [],
    ...(entry.closest ?? []).flatMap(nearMiss),
    facts({job: entry.job_id && link("job", entry.job_id, entry.job_id),
      request: link("request", entry.seq, "#" + entry.seq), path: entry.path,
      time: both(entry.time), took: entry.ms.toFixed(1) + " ms", fixture: entry.fixture,
      fault: entry.fault, scope: entry.scope, upstream: entry.upstream && pretty(entry.upstream)}),
    ...entry.body === null ? [] : labelled("body", pretty(entry.body)),
    ...labelled("headers", headers.join("\n")),
  ];
}
function nearMiss(miss, i) {
  const differences = miss.differences.map(({criterion, wanted, got}) =>
    `✗ ${criterion}: wanted ${pretty(wanted)}, got ${pretty(got)}`);
  const held = miss.held.map(criterion => "✓ " + criterion);
  return labelled(`near miss ${i + 1}: ${miss.fixture}`, [...differences, ...held].join("\n"),
    "failed");
}

// ---- Lists: what the filter and the pressed count let through, a page of it

const wordsOf = () => $("filter").value.trim().toLowerCase();
const isFiltered = kind => Boolean(views[kind].look || wordsOf());
function pathOf(kind) {
  const {offset} = views[kind];
  if (isFiltered(kind)) return `${kind}s?limit=${DEPTH}`;
  return `${kind}s?limit=${offset ? 2 * PAGE : PAGE}&offset=${offset}`;
}
// The items to show, newest first, and how many there are of their kind.
function pageOf(kind, items, total) {
  const view = views[kind], words = wordsOf();
  if (isFiltered(kind)) {
    // Of keys without a value not even the name counts.
    const textOf = item => JSON.stringify(item, (_, value) => value ?? undefined);
    const found = items.filter(item => textOf(item).toLowerCase().includes(words));
    const chosen = found.filter(item => !view.look || view.lookOf(item) === view.look);
    const shown = chosen.slice(view.offset, view.offset + PAGE);
    return {found, shown, size: chosen.length};
  }
  // An older page stays at its items while newer ones come.
  const came = view.offset ? total - view.total : 0;
  view.offset = Math.max(0, view.offset + came);
  view.total = total;
  const shown = items.slice(Math.max(0, came)).slice(0, PAGE);
  return {found: shown, shown, size: total};
}
function showList(kind, items, total, empty) {
  const view = views[kind];
  const {found, shown, size} = pageOf(kind, items, total);
  const most = items.length < total ? `the ${items.length} newest` : total;
  const amount = isFiltered(kind) ? `${size} of ${most}` : String(total || "");
  const cost = () => bill(shown) + (size > shown.length ? " on this page" : "");
  write($(kind + "-count"), kind === "job" && shown.length ? `${amount} · ${cost()}` : amount);
  const counts = Object.groupBy(found, view.lookOf);
  const isAll = found.length === total || isFiltered(kind);
  const looks = view.looks.filter(look => counts[look] || look === view.look || !isAll);
  sync($(kind + "-looks"), looks.map(look => lookButton(kind, look, counts[look]?.length ?? 0)));
  showPages(kind, shown.length, size);
  if (linked?.kind === kind && !shown.some(item => view.idOf(item) === linked.id))
    shown.unshift(...[...items, ...mock.linked].filter(item => view.idOf(item) === linked.id));
  const none = isFiltered(kind) ? "Nothing here matches." : "No older ones are kept.";
  const hint = isFiltered(kind) || view.offset ? says(part("none", "div", "soft", none)) : empty;
  sync($(kind + "s"), shown.length ? shown.map(view.cardOf) : hint);
}
function bill(jobs) {
  const costs = wanted => sum(jobs.filter(wanted).map(job => job.cost ?? 0));
  const open = costs(job => !job.ended_at);
  return money(costs(job => job.ended_at)) + (open ? `, up to ${money(open)} more` : "");
}
const lookButton = (kind, look, n) => [look, () => {
  const node = button("", () => turn(kind, {look: views[kind].look === look ? "" : look}));
  node.className = "pill " + look;
  return node;
}, node => {
  write(node, `${n || ""} ${ANSWERS[look] ?? look}`.trim());
  node.ariaPressed = views[kind].look === look;
}];
function showPages(kind, length, size) {
  const {offset} = views[kind];
  const step = (text, by, able) => [text, () => button(text,
    () => turn(kind, {offset: Math.max(0, views[kind].offset + by)})),
  node => node.disabled = !able];
  sync($(kind + "-pages"), size <= PAGE && !offset ? [] : [
    step("newer", -PAGE, offset > 0),
    part("range", "span", "soft", `${offset + 1}–${offset + length}`),
    step("older", PAGE, offset + length < size),
  ]);
}
function turn(kind, change) {
  Object.assign(views[kind], {offset: 0}, change);
  forget();
  $(kind + "s").scrollTop = 0;
  refresh();
}
const says = (...parts) => [group("says", "div", "card more", parts)];
const NO_JOBS = says(part("start", "div", "text", "No jobs yet. Submit one, then poll it twice:"),
  curl("/videos", ` -d '{"model": "google/veo-3.1", "prompt": "a cat on a skateboard"}'`),
  part("words", "div", "soft", "A prompt with mock:failed, mock:stuck, mock:slow or "
    + "mock:two-videos in it takes another course."));
const NO_REQUESTS = says(part("none", "div", "soft", "Every call of the API appears here."));

// ---- Links: #job=ID and #request=SEQ open a card, and an open card is in the address

function follow() {
  const [, kind, id] = location.hash.match(/^#(job|request)=([\w-]+)$/) ?? [];
  linked = kind ? {kind, id, fresh: true} : null;
  if (kind) choose(kind);
  write($("trouble"), "");
  refresh();
}
function remember(kind, id, open) {
  const same = linked?.kind === kind && linked.id === id;
  if (!open && same) forget();
  if (!open) return;
  if (!same) {
    linked = {kind, id};
    history.replaceState(null, "", `#${kind}=${id}`);
  }
  refresh();
}
function forget() {
  linked = null;
  history.replaceState(null, "", location.pathname);
}
// The linked card in a list, if it is not among those that were asked for.
async function findLinked({job, request}, health) {
  if (!linked) return [];
  const {kind, id} = linked, {idOf} = views[kind];
  if ((kind === "job" ? job : request).some(item => idOf(item) === id)) return [];
  const around = `requests?limit=${PAGE}&offset=${Math.max(0, health.requests - id)}`;
  const looking = kind === "job" ? call("GET", "jobs/" + id).then(found => [found])
    : call("GET", around).then(({requests}) => requests.filter(entry => idOf(entry) === id));
  const found = await looking.catch(() => []);
  if (linked?.id !== id) return [];
  if (found.length) linked.id = idOf(found[0]);  // of #job=latest
  else {
    forget();
    write($("trouble"), `${kind} ${id} is not kept`);
  }
  return found;
}
function openLinked() {
  if (!linked?.fresh) return;
  const node = Array.from($(linked.kind + "s").children).find(({key}) => key === linked.id);
  if (!node) return;
  linked.fresh = false;
  node.open = true;
  node.draw();
  node.scrollIntoView({block: "start"});
  node.firstChild.focus({preventScroll: true});
}
// On a phone one list is shown at a time.
function choose(kind) {
  document.body.className = document.body.className.replace(/on-\w+/, "on-" + kind);
  if (mock) showTabs();
}
function showTabs() {
  const tab = (kind, text) => [kind, () => button("", () => choose(kind)), node => {
    write(node, text);
    node.ariaPressed = document.body.classList.contains("on-" + kind);
  }];
  const {jobs, requests} = mock.health;
  sync($("tabs"), [tab("job", "Jobs " + jobs), tab("request", "Requests " + requests)]);
}

// ---- What is above the lists

function showFindings(findings) {
  $("findings").hidden = !findings.length;
  const counts = Object.groupBy(findings, finding => finding.level);
  const levels = LEVELS.filter(level => counts[level]);
  sync($("levels"), pills(levels.map(level => [level, count(counts[level].length, level)])));
  const more = part("more", "div", "finding", `and ${findings.length - TOP} more`);
  const rows = findings.slice(0, TOP).map(findingRow);
  sync($("finding-list"), findings.length > TOP ? [...rows, more] : rows);
}
const findingRow = ({level, rule, text, job_id: job, requests: [seq]}, i) => [
  i, () => el("a", "finding"), node => {
    if (seq) node.href = "#request=" + seq;
    else if (job) node.href = "#job=" + job;
    else node.removeAttribute("href");
    const where = seq ? "#" + seq : job && short(job);
    sync(node, [...pills([[level, level]]), part("rule", "code", "", rule),
      part("text", "span", "words", text), ...where ? [part("where", "u", "", where)] : []]);
  },
];
function showFaults(faults) {
  const clear = ["clear", () => button("clear faults", () => act("DELETE", "faults"))];
  const words = ({on, struck, ...rest}) => `⚡ ${on} ${JSON.stringify(rest)} · struck ${struck}×`;
  const pieces = faults.map((fault, i) => part(i, "code", "pill failed", words(fault)));
  sync($("faults"), faults.length ? [...pieces, clear] : []);
}
function showClock(now) {
  const ahead = now - Date.now() / 1000, zone = String(new Date(now * 1000)).slice(28, 33);
  write($("clock"), `${local(now)} ${zone}${ahead > 1 ? `, ${span(ahead)} ahead` : ""}`);
}

// ---- All of it, once a second

// What one reads stays where it is on the screen while cards come above it.
function keepPlace(change) {
  const places = ["jobs", "requests"].map(placeOf);
  change();
  for (const {node, list, top} of places) {
    if (!node?.isConnected) continue;
    const moved = () => node.getBoundingClientRect().top - top;
    list.scrollTop += moved();
    scrollBy(0, moved());
  }
}
function placeOf(id) {
  const list = $(id), above = Math.max(0, list.getBoundingClientRect().top);
  const inView = Array.from(list.children).filter(node => {
    const {top, bottom, height} = node.getBoundingClientRect();
    return height && bottom > above && top < innerHeight;
  });
  const scrolled = list.scrollTop + scrollY > 0;
  const node = inView.find(({open}) => open) ?? (scrolled ? inView[0] : undefined);
  return {node, list, top: node?.getBoundingClientRect().top};
}
function draw() {
  const {now, health, faults, findings, job, request} = mock;
  write($("version"), health.version);
  write($("catalogue"), health.catalogue);
  showClock(now);
  showFaults(faults);
  showFindings(findings);
  showTabs();
  showList("job", job, health.jobs, NO_JOBS);
  showList("request", request, health.requests, NO_REQUESTS);
}
async function load() {
  const open = Array.from($("jobs").querySelectorAll(".card[open]"), node => node.key);
  const paths = ["time", "health", "faults", "findings", pathOf("job"), pathOf("request"),
    ...open.map(id => `requests?limit=${PAGE}&job_id=${id}`)];
  const answers = await Promise.all(paths.map(path => call("GET", path))).catch(() => null);
  document.body.classList.toggle("offline", !answers);
  if (!answers) return write($("trouble"), OFFLINE);
  if ($("trouble").textContent === OFFLINE) write($("trouble"), "");
  const [{now}, health, {faults}, {findings}, {jobs}, {requests}, ...related] = answers;
  const lists = {job: jobs, request: requests.reverse()};
  // What a client may still do is not held against it at once.
  const told = findings.filter(finding => !finding.so_far || finding.age > 15);
  const byLevel = (a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level);
  const requestsOf = new Map(open.map((id, i) => [id, related[i].requests]));
  const found = await findLinked(lists, health);
  mock = {now, health, faults, findings: told.sort(byLevel), ...lists, requestsOf,
    linked: found};
  keepPlace(draw);
  openLinked();
}
let loading = false, again = false;
async function refresh() {
  again = true;
  if (loading) return;
  loading = true;
  try {
    while (again) {
      again = false;
      await load();
    }
  } finally {
    loading = false;
  }
}
// However much there is, the page leaves most of the mock's time to others.
async function watch() {
  const start = performance.now();
  if (!document.hidden) await refresh().catch(console.error);
  setTimeout(watch, Math.max(1000, 9 * (performance.now() - start)));
}
// Only the second press within some seconds resets.
const reset = $("reset");
reset.onclick = () => {
  const sure = reset.classList.toggle("sure");
  write(reset, sure ? "really reset?" : "reset");
  if (sure) return setTimeout(calm, 4000);
  forget();
  act("POST", "reset");
};
function calm() {
  reset.className = "";
  write(reset, "reset");
}
write($("base"), base);
$("base").after(copier($("base")));
for (const [text, advance] of [["+10 s", 10], ["+1 min", 60], ["+1 h", 3600], ["+1 day", 86400]])
  $("steps").append(button(text, () => act("POST", "time", {advance})));
$("filter").addEventListener("input", () => ["job", "request"].forEach(kind => turn(kind, {})));
$("findings").open = innerWidth > 820;
addEventListener("hashchange", follow);
addEventListener("click", ({target}) => {
  const to = target.closest?.("a[href]");
  if (to?.hash && to.hash === location.hash) follow();  // to where the address is already
});
document.addEventListener("visibilitychange", () => document.hidden || refresh());
follow();
watch();
</script></body></html>
"""


# ============ 14. The mock and its routes: VideoMock, ROUTES, find_route ====================
#
# To add a route: a handler in section 9 or 13, or for the control API a method of VideoMock,
# which has a line in _METHODS; a line in ROUTES, a line in the README.  First match wins.  For
# one that a fault may strike: `interfere`, and its word in FAULT_SCHEMA's `on`.  One that waits,
# or takes long: `end_turn` first; for methods of the mock call_method does that.

Handler = Callable[..., Any]  # answers a Response; a method of VideoMock, JSON
Say = Callable[[str], None]  # takes a line of text
CONTROL = "/__mock"
_NEVER_PASSED_ON = ("answer_preflight", "refuse_chat")  # to the upstream


class VideoMock:
    """The mock without a socket: Request in, Response out.  Two of them share nothing.

    SetupError for a bad setting or fixture.  `log` takes a line per request of the API, and
    one per mistake that it shows; `clock` gives unix seconds and must not go back.  Its methods
    speak of jobs, requests and deliveries in the dicts that the control API sends; what they
    hand out is a copy.
    """

    def __init__(
        self,
        config: Config = Config(),  # noqa: B008  (it is frozen)
        *,
        log: Say | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.config = checked_config(config)
        self.scheme = "http"
        if config.cert:
            self.scheme = "https"
        self.log = log
        # Takes what is no request, such as a bad reload.
        self.notice = log or (lambda line: None)
        self.errors: list[BaseException] = []  # the mock's own, raised by MockServer.stop
        self.stopping = threading.Event()
        self._additions = itertools.count(1)  # of fixtures; names those that have none
        started = _real_time() - _monotonic()
        self._clock = clock or (lambda: started + _monotonic())
        # Held while store and courier, or a server, begin.
        self._replacing = threading.Lock()
        self._begin(load_fixtures(self.config))
        self.recorder = Recorder(self)

    def _begin(self, loaded: Loaded) -> None:
        self.store = Store(self.config, loaded, self._clock)
        self.courier = Courier(self.store, self.report)

    def handle(self, request: Request) -> Response:
        """Answer any request; the one place where an exception becomes a reply."""
        note = request.note
        note.store = self.store
        path = request.path
        # The control API and the page: not journaled, no faults.
        is_control = path in ("/", "/health", CONTROL) or path.startswith(f"{CONTROL}/")
        try:
            response = self._answer(request, is_control)
        except Exception as error:
            refusal = self._refusal_of(error)
            note.error = refusal.message
            note.retry_after = int(dict(refusal.headers).get("Retry-After", 0))
            response = error_response(refusal)
        if is_control:
            # Not for pages of other origins.
            kept = (h for h in response.headers if not h[0].startswith("Access-Control"))
            return response._replace(headers=tuple(kept))
        response = spoilt(response, note)
        note.ms = (_monotonic() - note.came_at) * 1000
        note.status = response.status or None
        note.store.record(request)
        del note.store  # the journal must not keep its own store, past a reset
        if self.log is not None:
            self.log(log_line(request))
            job = self.store.jobs_by_id.get(note.job_id or "")
            for rule, text in mistakes_in(request, job):
                self.log(printable(f"         ! {rule}: {text}"))
        return response

    def _refusal_of(self, error: Exception) -> ApiError:
        """The refusal that an exception becomes."""
        if isinstance(error, SetupError):
            return ApiError(400, str(error))
        if isinstance(error, ApiError):
            # It may stay in the journal: not so the frames, and with them the bodies, that it
            # went through.
            return error.with_traceback(None)
        self.report(error)
        return ApiError(500)

    def _answer(self, request: Request, is_control: bool) -> Response:
        note = request.note
        if request.refusal is not None:
            raise request.refusal
        if self.config.latency and not is_control:
            note.end_turn()
            self.stopping.wait(self.config.latency)
        try:
            handler, groups = find_route(request.method, request.path)
        except ApiError:
            note.hint = hint_for(request.method, request.path)
            raise
        note.route = handler.__name__
        job_id = groups.get("job_id", "")
        if handler is get_generation:
            job_id = request.parameters.get("id", "")
        job = self.store.jobs_by_id.get(job_id)
        if job is not None:
            note.job_id = job.id
            note.fixture = job.fixture
        if is_control:
            check_control_access(self, request)
            if note.route in _METHODS:
                return call_method(self, request, handler, groups)
        elif self.config.record and job is None and note.route not in _NEVER_PASSED_ON:
            return self._recorded(request, job_id)
        response: Response = handler(self, request, **groups)
        return response

    def _recorded(self, request: Request, job_id: str) -> Response:
        """Our answer to a submit if a fixture has one; to all else, the upstream's."""
        note = request.note
        if note.route == "create_video":
            try:
                return create_video(self, request)
            except ApiError as error:
                submit = shown_body(request.body)
                prompt = submit.get("prompt") if isinstance(submit, dict) else ""
                ours = note.fixture or note.struck.prevents or error.status == 401
                if ours or "mock:" in str(prompt):
                    raise
        note.job_id = job_id or None
        note.upstream = self.config.upstream
        note.closest = None
        note.end_turn()
        return self.recorder.pass_on(request, job_id)

    def report(self, error: BaseException) -> None:
        """Keep an error of the mock's own, and show its traceback."""
        self.errors.append(error)
        sys.__excepthook__(type(error), error, error.__traceback__)

    def close(self) -> None:
        """Let go of everybody who waits, and end deliveries."""
        self.stopping.set()
        with self._replacing:
            self._end()

    def _end(self) -> None:  # self._replacing is held
        self.store.close()
        self.courier.stop()

    # ---- What handlers ask for

    def links(self, request: Request) -> Links:
        """How the URLs look for this client: below --public-url, else the origin that it used."""
        origin = self.config.public_url.rstrip("/")
        if not origin:
            get = request.headers.get
            host = get("host", "localhost")
            forwarded = _first_value(get("x-forwarded-host", ""))
            if re.fullmatch(_HOST, forwarded):
                host = forwarded
            elif forwarded:
                request.note.hint = (
                    f"X-Forwarded-Host {forwarded!r} cannot be a host, passed over"
                )
            scheme = _first_value(get("x-forwarded-proto", self.scheme)).lower()
            if scheme != "https":
                scheme = "http"
            origin = f"{scheme}://{host}"
        return Links(origin, self.config.relative_polling_url)

    def id_of(self, job_id: str | None) -> str | None:
        """The id itself, or that of the newest job for "latest"."""
        if job_id == "latest":
            return self.store.latest
        return job_id

    # ---- Steering

    def now(self) -> float:
        """The mock's clock in unix seconds.

        >>> mock.now() > 1_700_000_000
        True
        """
        return self.store.now()

    def advance(self, seconds: float) -> float:
        """Move the clock forward; jobs, expiry and webhooks follow.  ValueError for a step back.

        To a job that is paced by polls, 10 seconds are one more poll.  The new time.

        >>> before = mock.now()
        >>> mock.advance(3600) >= before + 3600
        True
        """
        if not 0 <= seconds < 253_370_764_800 - self.now():  # 9999-01-01
            raise SetupError(
                f"the clock only moves forward, to the year 9999, got {seconds}"
            )
        self.store.advance(seconds)
        self.courier.wake()
        return self.now()

    def finish(
        self,
        job_id: str = "latest",
        status: str | Status = "completed",
        *,
        error: str | None = None,
    ) -> Json:
        """Force a job's ending; ApiError 404 for no such job, 409 if it ended otherwise.

        >>> mock.finish(job_id, "failed", error="Content policy violation")["status"]
        'failed'
        """
        name = getattr(status, "value", status)
        checked(_METHODS["finish"], {"status": name, "error": error}, "finish")
        if error and name == "completed":
            raise SetupError("finish.error: a job that is completed has none")
        job = self.store.finish(self.id_of(job_id), Status(name), error)
        if job.callback_url:
            self.courier.wake()
        return self.job(job.id)

    def add_fixture(self, fixture: Any) -> list[Json]:
        """Put a fixture, or a list of them, before the others; SetupError for a bad one.

        >>> failing = {"video": {"status": "failed"}}
        >>> added = mock.add_fixture({"match": {"prompt": "rain"}, "response": failing})
        """
        version = f"added {next(self._additions)} "
        added = []
        for index, value in enumerate(_as_list(fixture)):
            place = f"fixtures[{index}]"
            document = json_copy(value, place)
            name = version + place
            added.append(fixture_from_json(document, place, name, version=version))
        self.store.added[:0] = added
        return [fixture_to_wire(read, 0) for read in added]

    def add_fault(self, fault: Any) -> list[Json]:
        """Inject a fault, or a list of them; SetupError if one is not well formed.

        >>> added = mock.add_fault({"on": "poll", "status": 503, "times": 1})
        """
        added = [
            fault_from_json(value, f"faults[{index}]")
            for index, value in enumerate(_as_list(fault))
        ]
        self.store.faults.extend(added)
        return [json_copy(read.source) for read in added]

    def clear_faults(self) -> list[Json]:
        """Forget the faults that were given to the server, those of the command line too.

        >>> mock.clear_faults()
        []
        """
        self.store.faults = []
        return self.faults()

    def reset(self) -> Json:
        """Back to the state at start: jobs, journal, faults, added fixtures, counters, clock.

        Who waits for a request or a webhook is let go.

        >>> mock.reset()["jobs"]
        0
        """
        with self._replacing:
            self._end()
            self._begin(self.store.loaded)
            self.recorder.differences = []
            if self.stopping.is_set():
                self._end()
        return self.health()

    # ---- Looking

    def health(self) -> Json:
        """That it is up, its version, how much it holds, and which models it checks.

        >>> mock.health()["status"]
        'ok'
        """
        return {
            "status": "ok",
            "version": __version__,
            "jobs": len(self.store.jobs_by_id),
            "requests": self.store.last_seq,
            "fixtures": len(self.store.fixtures()),
            "catalogue": self.store.loaded.catalogue,
        }

    def job(self, job_id: str = "latest") -> Json:
        """A job, by id or "latest"; looking is no poll.  ApiError 404 for no such job.

        >>> mock.job(job_id)["request"]["prompt"]
        'a cat'
        """
        return self._shown([self.store.job(self.id_of(job_id))])[0]

    def jobs(
        self, *, scope: str | None = None, limit: int | None = None, offset: int = 0
    ) -> list[Json]:
        """Jobs, newest first: all, or `limit` of them after `offset` others.

        >>> [job["status"] for job in mock.jobs()]
        ['pending']
        """
        return self._shown(self.store.jobs(scope, offset, limit))

    def _shown(self, jobs: Sequence[Job]) -> list[Json]:
        by_job = defaultdict(list)
        for delivery in self.courier.deliveries():
            by_job[delivery.job.id].append(delivery)
        now = self.now()
        return [job_to_control(job, now, by_job[job.id]) for job in jobs]

    def requests(
        self,
        *,
        method: str | None = None,
        path: str | None = None,
        status: int | str | None = None,
        job_id: str | None = None,
        scope: str | None = None,
        since: int = 0,
        limit: int | None = None,
        offset: int = 0,
        wait: float = 0,
        count: int = 1,
    ) -> list[Json]:
        """The journal, oldest first, filtered.

        `path` is the beginning of one, with or without /api/v1; `status` one such as 404, "4xx"
        or "closed"; `job_id` may be "latest"; `since` a seq.  `limit` keeps the newest, after
        `offset` still newer ones; `wait` blocks up to so many real seconds until `count` match.

        >>> [request["status"] for request in mock.requests(method="POST", path="/videos")]
        [202]
        """
        job_id = self.id_of(job_id)
        method = method and method.upper()
        answered = str(status or "") or None
        checked(_METHODS["requests"], {"status": answered}, "requests")
        wanted = Wanted(method, path, answered, job_id, scope)
        found: Iterable[Request] = filter(wanted.takes, self.store.newest_requests(since))
        if wait:
            found = self.store.wait_for_requests(wanted, since, count, wait)[::-1]
        return [request_to_wire(request) for request in page_of(found, limit, offset)][::-1]

    def wait_for_request(
        self, *, count: int = 1, timeout: float = 5.0, **filters: Any
    ) -> Json:
        """The request that makes `count` of this kind; TimeoutError after so many real seconds.

        >>> mock.wait_for_request(path="/videos")["body"]["prompt"]
        'a cat'
        """
        found = self.requests(**filters, wait=timeout, count=count)
        if len(found) < count:
            raise TimeoutError(
                f"{len(found)} of {count} such requests came within {timeout} s"
            )
        return found[count - 1]

    def webhooks(
        self,
        *,
        job_id: str | None = None,
        scope: str | None = None,
        limit: int | None = None,
        wait: float = 0,
        count: int = 1,
    ) -> list[Json]:
        """Webhook deliveries, oldest first; `wait` blocks real seconds until `count` are done.

        >>> mock.webhooks()
        []
        """
        job_id = self.id_of(job_id)

        def wanted(delivery: Delivery) -> bool:
            return job_id in (None, delivery.job.id) and scope in (None, delivery.job.scope)

        found = reversed(self.courier.deliveries(wanted, count, wait))
        return [delivery_to_wire(delivery) for delivery in page_of(found, limit)][::-1]

    def findings(
        self,
        *,
        rule: str | None = None,
        level: str | None = None,
        job_id: str | None = None,
        scope: str | None = None,
    ) -> list[Json]:
        """What the client did wrong, as far as the journal tells; see RULES.

        >>> [finding["rule"] for finding in mock.findings(level="error")]
        ['abandoned']
        """
        checked(_METHODS["findings"], {"rule": rule, "level": level}, "findings")
        job_id = self.id_of(job_id)
        return [
            finding
            for finding in findings_of(self)
            if rule in (None, finding["rule"])
            and level in (None, finding["level"])
            and job_id in (None, finding["job_id"])
            and scope in (None, finding["scope"])
        ]

    def trial_verdict(self, succeeded: bool) -> Json:
        """Whether the client passes this mock's trial; AssertionError with the reason if not.

        `succeeded` is what the client says of itself.
        """
        if not self.config.trial:
            raise RuntimeError("this mock has no trial: give it one, MockServer(trial=...)")
        verdict = verdict_of(self, succeeded)
        if not verdict["passed"]:
            raise AssertionError(f"{self.config.trial}: {verdict['reason']}")
        return verdict

    def assert_no_findings(self, *, ignore: Collection[str] = ()) -> None:
        """AssertionError that lists all findings but those of the rules to ignore.

        >>> mock.assert_no_findings(ignore=["abandoned"])
        """
        for rule in ignore:
            self.findings(rule=rule)  # SetupError for what is none
        found = [finding for finding in self.findings() if finding["rule"] not in ignore]
        if found:
            raise AssertionError(
                "\n".join(["the client has findings:", *map(describe_finding, found)])
            )

    def fixtures(self) -> list[Json]:
        """The fixtures as written, in the order of trying, and how often each matched.

        >>> mock.fixtures()[0]["name"]
        'mock:failed'
        """
        return [
            fixture_to_wire(fixture, self.store.hits[fixture.id])
            for fixture in self.store.fixtures()
        ]

    def faults(self) -> list[Json]:
        """The faults that were given to the server, and how often each struck.

        >>> mock.faults()
        []
        """
        return [
            {**json_copy(fault.source), "struck": self.store.hits[fault.id]}
            for fault in self.store.faults
        ]


JOB = r"(?P<job_id>[^/]+)"
MODEL = r"(?P<model_id>[^/]+/[^/]+)"

ROUTES: list[tuple[str, str, Handler]] = [
    ("POST", rf"{API}/videos", create_video),
    ("GET", rf"{API}/videos/models", list_video_models),  # above JOB, which would take it
    ("GET", rf"{API}/videos/{JOB}", get_video),
    ("GET", rf"{API}/videos/{JOB}/content", get_video_content),
    ("GET", rf"{API}/models", list_models),
    ("GET", rf"{API}/models/{MODEL}/endpoints", list_endpoints),
    ("GET", rf"{API}/key", get_key),
    ("GET", rf"{API}/credits", get_credits),
    ("GET", rf"{API}/generation", get_generation),
    ("POST", rf"{API}/chat/completions", refuse_chat),
    ("OPTIONS", rf"{API}(?:/.*)?", answer_preflight),
    ("GET", "/", status_page),
    ("GET", "/health", VideoMock.health),
    ("GET", rf"{CONTROL}/health", VideoMock.health),
    ("GET", rf"{CONTROL}/requests", VideoMock.requests),
    ("GET", rf"{CONTROL}/jobs", VideoMock.jobs),
    ("GET", rf"{CONTROL}/jobs/{JOB}", VideoMock.job),
    ("PATCH", rf"{CONTROL}/jobs/{JOB}", VideoMock.finish),
    ("GET", rf"{CONTROL}/jobs/{JOB}/clip", control_clip),
    ("GET", rf"{CONTROL}/findings", VideoMock.findings),
    ("GET", rf"{CONTROL}/fixtures", VideoMock.fixtures),
    ("POST", rf"{CONTROL}/fixtures", VideoMock.add_fixture),
    ("GET", rf"{CONTROL}/faults", VideoMock.faults),
    ("POST", rf"{CONTROL}/faults", VideoMock.add_fault),
    ("DELETE", rf"{CONTROL}/faults", VideoMock.clear_faults),
    ("GET", rf"{CONTROL}/time", VideoMock.now),
    ("POST", rf"{CONTROL}/time", VideoMock.advance),
    ("GET", rf"{CONTROL}/webhooks", VideoMock.webhooks),
    ("POST", rf"{CONTROL}/reset", VideoMock.reset),
]


def shown_path(pattern: str) -> str:
    """A route's path as documentation writes it: /api/v1/videos/{jobId}."""
    return pattern.replace(JOB, "{jobId}").replace(MODEL, "{author}/{slug}")


@functools.lru_cache(maxsize=1024)
def find_route(method: str, path: str) -> tuple[Handler, dict[str, str]]:
    """The handler and its path groups; HEAD is GET.  405 only off the API: production says 404."""
    if method == "HEAD":
        method = "GET"
    allowed = []
    for route_method, pattern, handler in ROUTES:
        # Compiled at its first use, which shortens the start.
        match = re.fullmatch(pattern, path)
        if not match:
            continue
        if route_method == method:
            return handler, {
                name: unquote(text) for name, text in match.groupdict().items()
            }
        allowed.append(route_method)
    if allowed and not path.startswith(API):
        listed = ", ".join(allowed)
        raise ApiError(
            405, f"Method Not Allowed, try {listed}", headers=(("Allow", listed),)
        )
    raise ApiError(404)


# What clients put around a path: that of other APIs, the beginning twice, a slash too many.
_NO_PART_OF_PATHS = "/(api|v1|openrouter|generations)?(?=/|$)"


def hint_for(method: str, path: str) -> str:
    """Where a request that no route takes was probably meant to go."""
    path = API + re.sub(_NO_PART_OF_PATHS, "", path)
    path = re.sub("/video(?=/|$)", "/videos", path)
    with contextlib.suppress(ApiError):
        find_route(method, path)
        return f"did you mean {method} {path}?"
    return (
        f"no such route; the video API begins at {API}/videos, the control API at {CONTROL}"
    )


def _first_value(values: str) -> str:
    # of a forwarded header: the first that is not empty
    return values.strip(", ").partition(",")[0].strip()


def describe_finding(finding: Json) -> str:
    """A finding in a line: "error abandoned: ... (requests 3, 5)"."""
    numbers = ", ".join(map(str, finding["requests"]))
    line = f"{finding['level']} {finding['rule']}: {finding['text']}"
    if numbers:
        line += f" (requests {numbers})"
    return line


def page_of(found: Iterable[Any], limit: int | None, offset: int = 0) -> list[Any]:
    """What comes after the first `offset`: all, or `limit` of it."""
    if limit is not None and limit < 1:
        raise SetupError(f"limit: expected at least 1, got {limit}")
    return list(itertools.islice(found, offset, limit and offset + limit))


def printable(line: str) -> str:
    """The line; as Python writes it, if it holds what could end it or move a cursor."""
    if line.isprintable():
        return line
    return repr(line)[1:-1]


def log_line(request: Request) -> str:
    """One readable line for one request."""
    note = request.note
    parts = [
        time.strftime("%H:%M:%S"),
        f"{request.method or '-':4}",
        request.path or "-",
        str(note.status or "closed"),
    ]
    if note.job_id and note.job_id not in request.path:
        parts.append(note.job_id)
    if note.fixture:
        parts.append(f"fixture={note.fixture!r}")
    if note.struck.label:
        parts.append(f"fault={note.struck.label}")
    parts.append(f"{note.ms:.1f} ms")
    parts += [f"({reason})" for reason in (note.error, note.hint) if reason]
    return printable(" ".join(parts))


# ============ 15. HTTP adapter and embedding: _Adapter, MockServer, the pytest fixture ======
#
# Socket bytes to Request, Response to socket bytes, and nothing of videos.  Heads are parsed
# here, strictly, and much faster than by http.server's email parser: whatever two parsers could
# read in two ways is refused, since that is what request smuggling lives on.
#
# Threads: the server's own accepts, and looks at deadlines; each connection has one, which
# reads, has the mock answer, and writes; the courier has its own (section 7).  Answers take
# turns, see take_turn: what blocks or takes long ends its turn first (Note.end_turn).

MAX_LINE_BYTES = 8_192  # of a request line, and of one in a body
MAX_HEAD_BYTES = 65_536
IDLE_SECONDS = 75.0  # between two requests of a connection
REQUEST_SECONDS = 30.0  # for a head to come whole; for a body's next bytes
SLOWEST_BYTES = 1_024  # a second, of a body that comes slowly for longer
ANSWER_SECONDS = 60.0  # for a block of an answer to be taken
# For an unread body to be thrown away: then the client reads the refusal.
LINGER_SECONDS = 2.0
_SLOW_SECONDS = 0.05  # after so long the client may have gone
TURN_SECONDS = 0.1  # for which a request waits for those before it

# Method, host of an absolute target, path, query, version.
_REQUEST_LINE = (
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) (?![? ])(?:(?i:https?)://([^/? ]+))?"
    r"(|\*|/[\x21-\x3e\x40-\x7e]*)(?:\?([\x21-\x7e]*))? HTTP/([0-9]\.[0-9])"
)
_HEADER = r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)"
_HOST = r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
_CHUNK = r"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e]*)?"


class Head(NamedTuple):
    """The head of a request, checked."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    keep_alive: bool
    http_1_0: bool
    length: int | None  # of the body; None = chunked


# Of a request whose head could not be read.
_NO_HEAD = Head("", "", "", {}, False, False, 0)


@functools.lru_cache(maxsize=256)  # who polls sends the same head again and again
def parse_head(text: bytes) -> Head:
    """Request line and headers, without the empty line; ApiError for what is not strict HTTP/1."""
    request_line, _, lines = text.decode("latin-1").partition("\r\n")
    match = re.fullmatch(_REQUEST_LINE, request_line)
    if not match:
        raise ApiError(400, "Malformed request line")
    method, host, path, query, version = match.groups("")
    if version not in ("1.0", "1.1"):
        raise ApiError(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here")
    head = _parse_below(lines, host, version == "1.0")
    return head._replace(method=method, path=path or "/", query=query)


@functools.lru_cache(maxsize=256)  # a client sends the same headers with all its requests
def _parse_below(lines: str, host: str, http_1_0: bool) -> Head:
    """The head without its request line; `host` is that of an absolute target."""
    headers = _parse_headers(lines)
    if host:
        headers["host"] = host  # RFC 9112, 3.2.2: it wins
    host = headers.get("host", "localhost" * http_1_0)
    if not re.fullmatch(_HOST, host):
        raise ApiError(400, "Missing or malformed Host header")
    keep_alive = not http_1_0 and "close" not in headers.get("connection", "").lower()
    length = _body_length(headers, http_1_0)
    return Head("", "", "", headers, keep_alive, http_1_0, length)


def _parse_headers(lines: str) -> dict[str, str]:
    """Headers or trailers; of several of one name the values are joined."""
    headers: dict[str, str] = {}
    for line in filter(None, lines.split("\r\n")):  # "" if there are none
        match = re.fullmatch(_HEADER, line)
        if not match:
            raise ApiError(400, "Malformed header")
        name = match[1].lower()
        value = match[2].rstrip(" \t")
        if name in headers:
            if name == "authorization":
                raise ApiError(400, f"More than one {name} header")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def _body_length(headers: Mapping[str, str], http_1_0: bool) -> int | None:
    encoding = headers.get("transfer-encoding")
    if encoding is None:
        length = headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,18}", length):
            raise ApiError(400, "Malformed Content-Length")
        return int(length)
    if encoding.lower() != "chunked" or "content-length" in headers or http_1_0:
        raise ApiError(400, "Transfer-Encoding must be chunked, alone, and not in HTTP/1.0")
    return None


class _Adapter(socketserver.BaseRequestHandler):
    """One connection, in a thread of its own: reads requests, writes answers.

    Its socket blocks without a timeout: the server's thread looks at `deadline` and ends what
    has passed it, however slowly the bytes drip.  Of a request it ends the reading only, which
    leaves the adapter able to answer 408.
    """

    server: Any  # a _Server
    request: socket.socket
    buffer = b""  # received and not yet read
    deadline = math.inf
    ends = socket.SHUT_RD  # what is shut down then

    def handle(self) -> None:
        """Answer requests until one of both has had enough."""
        self.server.connections.add(self)
        try:
            while self.serve_one():
                pass
        except OSError as error:
            self.server.mock.debug(f"{self.client_address[0]} went away: {error!r}")
        finally:
            self.linger()
            self.server.connections.discard(self)

    def serve_one(self) -> bool:
        """Read one request and answer it; whether another may follow on this connection."""
        head = _NO_HEAD
        body = b""
        refusal = None
        try:
            head = self.read_head()
            body = self.read_body(head)
        except ApiError as error:
            refusal = error
        self.deadline = math.inf
        request = Request(*head[:4], body, Note(), refusal)
        request.note.turn = self.server.take_turn()
        try:
            return self.answer(request, head)
        except OSError:
            request.note.delivered = False
            raise
        finally:
            request.note.end_turn()

    def allow(self, seconds: float, ends: int = socket.SHUT_RDWR) -> None:
        self.deadline = _monotonic() + seconds
        self.ends = ends

    # ---- Writing

    def answer(self, request: Request, head: Head) -> bool:
        """Have a request answered, and send that; whether another may follow.

        The note tells that the answer is delivered before its last bytes leave: who has them
        may ask for it at once.
        """
        note = request.note
        started = _monotonic()
        response = self.server.mock.handle(request)
        if not response.status:
            raise ConnectionAbortedError("dropped as ordered")
        # It may have closed its half only, and read on: the answer is sent anyway.
        gone = _monotonic() - started > _SLOW_SECONDS and self.is_gone()
        keep_alive = head.keep_alive and request.refusal is None and not gone
        headers = response.headers
        coded: Callable[[bytes], bytes] = bytes
        if response.chunked:
            if not head.http_1_0:
                headers += (("Transfer-Encoding", "chunked"),)
                coded = _chunk
        elif response.status != 204:
            headers += (("Content-Length", f"{len(response.body)}"),)
        if not keep_alive:
            headers += (("Connection", "close"),)
        unsent = _answer_head(response.status, headers, int(_real_time()))
        if head.method != "HEAD":
            for block in response.stream:
                self.send(unsent + coded(block))
                unsent = b""
            body = response.body[: response.truncate]
            if body:
                unsent += coded(body)
            if body != response.body:
                note.end_turn()
                self.send(unsent)
                self.stall(response.stall)
                raise ConnectionAbortedError("cut as ordered")
            if len(unsent) > _BLOCK_BYTES:
                note.end_turn()
                self.send(unsent)
                unsent = b""
            unsent += coded(b"")  # the last chunk
        note.delivered = not gone
        self.send(unsent)
        return keep_alive

    def is_gone(self) -> bool:
        """Whether the client has closed the connection, or its half of it."""
        self.request.setblocking(False)
        try:
            # Not SSLSocket's, which cannot peek.
            return not socket.socket.recv(self.request, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        finally:
            self.request.setblocking(True)

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), _BLOCK_BYTES):
            self.allow(ANSWER_SECONDS)
            self.request.sendall(data[start : start + _BLOCK_BYTES])

    def stall(self, seconds: float) -> None:
        """Be silent until the client goes or the time is over."""
        self.allow(seconds)
        while _monotonic() < self.deadline and self.request.recv(65_536):
            pass

    def linger(self) -> None:
        """Close so that the client can read the answer first: what it still sends is taken."""
        shut_down(self.request, socket.SHUT_WR)
        with self.request, contextlib.suppress(OSError):  # gone already
            self.stall(LINGER_SECONDS)

    # ---- Reading

    def read_head(self) -> Head:
        """The next head; RFC 9112, 2.2: empty lines before it are skipped."""
        self.allow(IDLE_SECONDS)
        self.buffer = self.buffer.lstrip(b"\r\n")
        while not self.buffer:
            self.buffer = self.receive().lstrip(b"\r\n")
        self.allow(REQUEST_SECONDS, socket.SHUT_RD)
        if self.buffer.startswith(b"\x16"):
            raise ApiError(400, "A TLS hello: this port speaks plain http only, see --cert")
        self.receive_until(b"\r\n", MAX_LINE_BYTES, 414)
        self.receive_until(b"\r\n\r\n", MAX_HEAD_BYTES, 431)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return parse_head(head)

    def receive(self, most: int = 8_192) -> bytes:
        """What comes next; 408 if a request has begun and does not go on in time."""
        data = self.request.recv(most)
        if data:
            return data
        if self.ends == socket.SHUT_RD and _monotonic() > self.deadline:
            raise ApiError(408)
        raise ConnectionAbortedError("closed")

    def receive_until(self, end: bytes, longest: int, refusal: int) -> None:
        """Have the buffer contain this end; it is refused if that would take too many bytes."""
        while self.buffer.find(end, 0, longest) < 0:
            if len(self.buffer) >= longest:
                raise ApiError(refusal)
            if re.search(rb"(?<!\r)\n", self.buffer):
                raise ApiError(400, "Line feed without carriage return")
            self.buffer += self.receive()

    def read_body(self, head: Head) -> bytes:
        """The whole body, decoded; 413 before anything of one that says it is too large is read."""
        if head.length == 0:
            return b""
        if (head.length or 0) > self.server.max_body_bytes:
            raise ApiError(413)
        self.allow(REQUEST_SECONDS, socket.SHUT_RD)
        if "expect" in head.headers and not head.http_1_0:
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.length is None:
            return self.read_chunks()
        return self.read_bytes(head.length)

    def read_bytes(self, count: int) -> bytes:
        """So many of a body, which may take its time as long as it moves."""
        parts = []
        while count:
            if not self.buffer:
                self.buffer = self.receive(min(count, 65_536))
            part = self.buffer[:count]
            self.buffer = self.buffer[count:]
            parts.append(part)
            count -= len(part)
            longest = _monotonic() + REQUEST_SECONDS
            self.deadline = min(longest, self.deadline + len(part) / SLOWEST_BYTES)
        return b"".join(parts)

    def read_line(self) -> str:
        """A line of the chunked coding, without its end."""
        self.receive_until(b"\r\n", MAX_LINE_BYTES, 400)
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line.decode("latin-1")

    def read_chunks(self) -> bytes:
        """A body in chunks (RFC 9112, 7.1); extensions and trailers are dropped."""
        parts = []
        room = self.server.max_body_bytes
        while True:
            match = re.fullmatch(_CHUNK, self.read_line())
            if not match:
                raise ApiError(400, "Malformed chunk")
            length = int(match[1], 16)
            if length == 0:
                break
            room -= length
            if room < 0:
                raise ApiError(413)
            parts.append(self.read_bytes(length))
            if self.read_line():
                raise ApiError(400, "Malformed chunk")
        for trailer in iter(self.read_line, ""):
            _parse_headers(trailer)
        return b"".join(parts)


def _chunk(block: bytes) -> bytes:
    """The chunked coding; an empty one is the last (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(block), block)


@functools.lru_cache(maxsize=256)  # those of one second are alike
def _answer_head(status: int, headers: Headers, second: int) -> bytes:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))
    lines = [
        f"HTTP/1.1 {status} {http.client.responses.get(status, 'Unknown')}",
        f"Date: {date}",
        *(f"{name}: {value}" for name, value in headers),
        "\r\n",
    ]
    return "\r\n".join(lines).encode("latin-1")


_NO_THREAD = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\n\r\n" + error_response(ApiError(503)).body
)  # the answer, if there is none to be had


class _Server(ThreadingHTTPServer):
    """Accepts connections, each of which gets a thread; its own thread watches their deadlines."""

    request_queue_size = 1024  # a burst of connections waits instead of being refused
    allow_reuse_address = os.name != "nt"  # where it would hide a busy port
    # Not HTTPServer's, which asks the DNS for a name; that can take seconds.
    server_bind = socketserver.TCPServer.server_bind

    def __init__(self, mock: MockServer) -> None:
        config = mock.config
        self.mock = mock
        self.max_body_bytes = int(config.max_body_mb * 1_000_000)
        self.connections: set[_Adapter] = set()
        self.threads = Threads("connection", mock.report)
        self._turn = threading.Lock()
        if ":" in config.host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((config.host, config.port), _Adapter)
        except (OSError, UnicodeError) as error:
            raise OSError(
                f"cannot listen on {config.host}:{config.port}: {error}"
            ) from error
        # All connections inherit these.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if config.cert:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            try:
                tls.load_cert_chain(config.cert, config.key or None)
            except (OSError, ValueError) as error:
                self.server_close()
                raise SetupError(
                    f"cert: {config.cert}, its key in --key: {error}"
                ) from None
            # The handshake is left to the connection's thread.
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno == errno.EMFILE:  # accepting would spin until one is free
                self.mock.stopping.wait(0.05)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.threads.start(self.finish_request, request, client_address):
            with contextlib.suppress(OSError):
                # Not SSLSocket's, which would wait here for a handshake.
                socket.socket.sendall(request, _NO_THREAD)
            self.shutdown_request(request)

    def take_turn(self) -> threading.Lock:
        """The turn to answer, taken: one request after the other, as long as that is quick.

        Threads take turns anyway, since the interpreter has one lock; the tails are short if
        they queue up for it.  Who must wait for something else ends its turn first; behind
        one that is slow all the same, whoever waits too long opens another queue.
        """
        turn = self._turn
        if not turn.acquire(timeout=TURN_SECONDS):
            turn = self._turn = threading.Lock()
            turn.acquire()
        return turn

    def service_actions(self) -> None:
        """Look at the deadlines: after each new connection, and twice a second."""
        now = _monotonic()
        for connection in list(self.connections):
            if now > connection.deadline:
                shut_down(connection.request, connection.ends)

    def stop(self) -> None:
        """Stop accepting, then end all connections."""
        shut_down(self.socket)  # wakes the accepting thread; off Linux, its next look does
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            shut_down(connection.request)
        self.threads.join(5.0)


class MockServer(VideoMock):
    """A VideoMock on a port of its own; keyword arguments are the fields of Config.

    >>> with MockServer(webhook_secret="s") as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    debug: Say = staticmethod(lambda line: None)  # takes a line per lost connection
    _server: _Server | None = None

    def __init__(self, **settings: Any) -> None:
        super().__init__(Config(**settings))

    def start(self) -> MockServer:
        """Listen and serve in a thread; OSError for a busy port, RuntimeError after `stop`.

        >>> server = MockServer(port=0).start()
        >>> server.stop()
        """
        with self._replacing:
            if self.stopping.is_set():
                raise RuntimeError("the mock has been stopped: make another one")
            if self._server is None:
                self._server = _Server(self)
                self._thread = threading.Thread(
                    target=self._server.serve_forever,
                    name="openrouter_video_mock",
                    daemon=True,
                )
                self._thread.start()
        return self

    def stop(self) -> None:
        """Stop for good, leaving no thread; RuntimeError for what the mock itself did wrong."""
        self.stopping.set()
        with self._replacing:
            server = self._server
            self._server = None
        if server is not None and not self._thread.is_alive():
            server.socket.close()  # in a forked child, which has none of the threads
            return
        self.close()
        if server is not None:
            server.stop()
            self._thread.join()
        if self.errors:
            error = self.errors[0]
            raise RuntimeError(f"the mock itself failed: {error!r}") from error

    def __enter__(self) -> MockServer:
        return self.start()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.stop()
        except RuntimeError:
            if error is None:  # what the test itself raised matters more
                raise

    @property
    def origin(self) -> str:
        """Scheme, host and port: http://127.0.0.1:49152."""
        if self._server is None:
            raise RuntimeError(
                "the mock is not running: use `with MockServer() as mock:` or start()"
            )
        host, port = map(str, self._server.server_address[:2])
        if ":" in host:
            host = f"[{host}]"
        return f"{self.scheme}://{host}:{port}"

    @property
    def url(self) -> str:
        """What an SDK calls server_url or baseURL: the origin with /api/v1."""
        return self.origin + API


# What help() and editors show, since Config has the settings.
setattr(MockServer.__init__, "__wrapped__", Config.__new__)  # noqa: B010


def pytest_configure(config: Any) -> None:
    """Give pytest the fixture openrouter_video_mock: a fresh server per test.

    pytest calls this hook when the module is its plugin; nothing else here imports pytest.
    """
    pytest: Any = sys.modules["pytest"]

    def openrouter_video_mock() -> Iterator[MockServer]:
        """A running MockServer, fresh for each test."""
        with MockServer() as mock:
            yield mock

    plugin: Any = types.ModuleType("openrouter_video_mock_fixtures")
    plugin.openrouter_video_mock = pytest.fixture(openrouter_video_mock)
    config.pluginmanager.register(plugin, plugin.__name__)


# ============ 16. Command line ==============================================================
#
# The parser is built from OPTIONS.  Stdout carries what was asked for: the URL, the lines of the
# trials, the verdict of --validate; all else goes to stderr.  Exit status: 0, also after SIGINT
# or SIGTERM while serving; 1 for what stops the start, a failed or interrupted command; 2 for
# wrong usage.

_ENVIRONMENT = "OPENROUTER_VIDEO_MOCK_"
COMMANDS: dict[str, Json] = json.loads("""{
  "validate": {"type": "boolean",
    "help": "read the fixtures, say all that is wrong with them, and exit"},
  "check": {"type": "boolean", "help": "ask a running mock for its health: exit 0 or 1"},
  "wait": {"type": "number", "minimum": 0, "metavar": "S", "needs": "check",
    "help": "with --check: try for this many seconds"},
  "until_stdin_closes": {"type": "boolean",
    "help": "end when standard input does, as it does with the parent process"},
  "trial": {"type": "boolean",
    "help": "run the command after -- once in each trial, and say whether it survives production"},
  "trial_timeout": {"type": "number", "minimum": 0.1, "metavar": "S",
    "help": "how long the command may take in one trial (default: 30)"},
  "trial_only": {"enum": [], "repeats": true, "metavar": "NAME", "needs": "trial",
    "help": "this trial only, repeatable"},
  "trial_jobs": {"type": "int", "minimum": 1, "metavar": "N",
    "help": "trials at once (default: the number of cores)"},
  "report": {"type": "string", "metavar": "FILE", "needs": "trial",
    "help": "with --trial: write the verdicts as JSON"},
  "quiet": {"type": "boolean", "short": ["-q"], "help": "no line per request"},
  "verbose": {"type": "boolean", "short": ["-v"], "help": "a line for lost connections too"}
}""")  # what is no setting of a mock, and --trial
COMMANDS["trial_only"]["enum"] = list(TRIALS)
_EXAMPLES = f"""Every flag has a twin in the environment, such as {_ENVIRONMENT}PORT=9000;
repeatable ones are separated by commas there, and {_ENVIRONMENT}FAULT is a JSON object or list.

examples:
  openrouter_video_mock.py --port 0 --polls 2,3
  openrouter_video_mock.py -f my.json --webhook-secret s3cret
  openrouter_video_mock.py --fault '{{"on": "poll", "status": 503, "times": 2}}'"""


OPTIONS = {**SETTINGS, **COMMANDS}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def build_parser() -> Any:
    """The argparse parser; a flag that is not given leaves no trace."""
    import argparse  # only a command line needs it, and start-up time counts

    parser = argparse.ArgumentParser(
        prog="openrouter_video_mock",
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="openrouter_video_mock.py [options] [--trial -- COMMAND]",
        description="A local stand-in for OpenRouter's asynchronous video API.",
        epilog=_EXAMPLES,
    )

    def value_of(name: str, text: str) -> Any:
        option = OPTIONS[name]
        try:
            return checked_setting(option, from_text(option, text), _flag(name))
        except SetupError as error:
            parser.error(str(error))

    for name, option in OPTIONS.items():
        words: Json = {"action": "store_true", "help": option["help"]}
        if "metavar" in option:
            words["action"] = ("store", "extend")["repeats" in option]
            words["metavar"] = option["metavar"]
            words["type"] = functools.partial(value_of, name)
        parser.add_argument(*option.get("short", ()), _flag(name), **words)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", nargs="*", metavar="-- COMMAND", help="of --trial")
    return parser


def _twins(environment: Mapping[str, str], parser: Any) -> Iterator[str]:
    """The flags that the environment gives."""
    for variable, text in environment.items():
        if not variable.startswith(_ENVIRONMENT) or not text:
            continue
        name = variable.removeprefix(_ENVIRONMENT).lower()
        if name not in OPTIONS:
            near = did_you_mean(name.upper(), map(str.upper, OPTIONS))
            parser.error(f"{variable}: no such setting{near}")
        option = OPTIONS[name]
        if "metavar" not in option:
            if text.lower() not in ("0", "false", "no"):
                yield _flag(name)
            continue
        values = [text]
        if option.get("repeats") and name != "fault":
            values = text.split(",")
        for value in values:
            yield f"{_flag(name)}={value}"


def read_settings(
    argv: Sequence[str] | None, environment: Mapping[str, str]
) -> tuple[Json, Json]:
    """Settings and commands: of the command line, else of the environment.  Exit 2 for bad ones."""
    parser = build_parser()
    given = vars(parser.parse_args(argv))
    twins = parser.parse_args(list(_twins(environment, parser)))
    given = {**vars(twins), **given}
    for name in given:
        needed = OPTIONS.get(name, {}).get("needs", name)
        if needed not in given:
            parser.error(f"{_flag(name)} goes with {_flag(needed)}")
    commands = {name: given.pop(name, None) for name in (*COMMANDS, "command")}
    if bool(commands["command"]) != bool(commands["trial"]):
        parser.error(
            "--trial goes with a command: --trial -- node my_client.mjs; fixture files with -f"
        )
    return {"port": 8080, **given}, commands


def main(
    argv: Sequence[str] | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """Run the command line until SIGINT or SIGTERM; the exit status."""
    tell = _teller(stdout or sys.stdout)
    say = _teller(stderr or sys.stderr)
    settings, commands = read_settings(argv, environment)
    run = serve
    if commands["trial"]:
        run = run_trials
    if commands["validate"]:
        run = validate
    if commands["check"]:
        run = check_health
    try:
        with _interruptible():
            return run(settings, commands, tell, say)
    except (SetupError, OSError) as error:
        say(str(error))
        return 1
    return int(run is not serve)  # interrupted


def _teller(stream: Any) -> Say:
    """What writes lines to a stream, be it closed, full or none."""

    def tell(line: str) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.write(f"{printable(line)}\n")
            stream.flush()

    return tell


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM end what is inside, whatever they interrupt; one of them is enough."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def leave(*_: Any) -> None:
        for number in numbers:  # SIG_IGN would complain of one that has come already
            signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt

    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        with contextlib.suppress(ValueError):  # only the main thread gets signals
            for number in numbers:
                stack.callback(signal.signal, number, signal.signal(number, leave))
        yield


# ---- The commands: each takes what was asked for, and what tells lines to stdout and stderr


def serve(settings: Json, commands: Json, tell: Say, say: Say) -> int:
    """Run a mock until it is interrupted or, if so ordered, standard input ends."""
    with _by_a_thread(say) as say_soon:
        server = MockServer(**settings)
        server.notice = say_soon
        if not commands["quiet"]:
            server.log = say_soon
        if commands["verbose"]:
            server.debug = say_soon
        try:
            server.start()
            loaded = server.store.loaded
            for note in (*loaded.notes, loaded.catalogue):
                say(note)
            tell(f"openrouter_video_mock listening on {server.url}")
            # Nothing here makes cycles: looking for them among 10,000 jobs lengthens the tails.
            gc.freeze()
            gc.set_threshold(100_000)
            if commands["until_stdin_closes"]:
                with contextlib.suppress(OSError):
                    while os.read(0, 65_536):
                        pass
            else:
                while not server.stopping.wait(0.2):
                    pass  # a signal that came just before the wait is met after it
        finally:
            if not commands["quiet"]:
                say_findings(server.findings(), say_soon)
            server.close()
    return 0


@contextlib.contextmanager
def _by_a_thread(say: Say) -> Iterator[Say]:
    """Have a thread say what comes while the mock serves.

    Who started it may never read stderr, and a full pipe must stop neither requests nor the
    end.  What does not fit is dropped.
    """
    lines: queue.Queue[str] = queue.Queue(maxsize=10_000)  # "" is the last one

    def say_all() -> None:
        for line in iter(lines.get, ""):
            say(line)

    def say_soon(line: str) -> None:
        with contextlib.suppress(queue.Full):
            lines.put_nowait(line)

    thread = threading.Thread(target=say_all, name="log", daemon=True)
    thread.start()
    try:
        yield say_soon
    finally:
        say_soon("")
        thread.join(0.2)  # to say what is left


def say_findings(found: list[Json], say: Say) -> None:
    """A summary for the end: a line per rule, with the first text of each."""
    counts = Counter(finding["rule"] for finding in found)
    for finding in found:
        count = counts.pop(finding["rule"], 0)
        if count:
            say(f"{count} x {describe_finding(finding)}")


def run_trials(settings: Json, commands: Json, tell: Say, say: Say) -> int:
    """Run the command in each trial, or those asked for, and tell a line each; 0 if all passed."""
    import concurrent.futures

    rows: list[Json] = []
    over = threading.Event()
    run = functools.partial(_run_trial, settings, commands, over)
    pool = concurrent.futures.ThreadPoolExecutor(commands["trial_jobs"] or os.cpu_count())
    with open(commands["report"] or os.devnull, "w", encoding="utf-8") as report:
        try:
            for row in pool.map(run, dict.fromkeys(commands["trial_only"] or TRIALS)):
                rows.append(row)
                for line in _trial_lines(row):
                    tell(line)
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)
            json.dump(rows, report, indent=2)
    for model in {model for row in rows for model in row["unlisted_models"]}:
        tell(f"note: {model} is not in the catalogue; only trials accept it")
    failed = [row["trial"] for row in rows if not row["passed"]]
    summary = f"{len(rows) - len(failed)} of {len(rows)} passed"
    if failed:
        summary += f"; failed: {', '.join(failed)}"
    tell(summary)
    return int(bool(failed))


def _run_trial(settings: Json, commands: Json, over: threading.Event, name: str) -> Json:
    """What becomes of the command in one trial; it is stopped when all are over."""
    import subprocess
    import tempfile

    key = next(iter(settings.get("api_key", ())), "sk-or-trial")
    timeout = commands["trial_timeout"] or 30.0
    mock = MockServer(**{**settings, "port": 0, "trial": name})
    with mock, tempfile.TemporaryFile() as output:
        environment = {
            **os.environ,
            "OPENROUTER_BASE_URL": mock.url,
            "OPENAI_BASE_URL": mock.url,
            "OPENROUTER_API_KEY": key,
            "OPENAI_API_KEY": key,
            "OPENROUTER_VIDEO_MOCK": mock.origin,
        }
        command = [
            part.replace("{url}", mock.url).replace("{key}", key)
            for part in commands["command"]
        ]
        started = _monotonic()
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        end = started + timeout
        while process.poll() is None and _monotonic() < end and not over.wait(0.02):
            pass
        status = process.returncode
        stopped_after = 0.0
        if status is None:
            stopped_after = timeout
        with contextlib.suppress(OSError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # Some clients print without end.
        output.seek(max(0, output.seek(0, os.SEEK_END) - 65_536))
        return {
            "trial": name,
            "says": TRIALS[name].says,
            "exit": status,
            "seconds": round(_monotonic() - started, 1),
            **verdict_of(mock, status == 0, stopped_after),
            "output": output.read().decode("utf-8", "replace"),
        }


def _trial_lines(row: Json) -> Iterator[str]:
    word = ("FAILED", "passed")[row["passed"]]
    yield f"{word}  {row['trial']:17}{row['seconds']:5.1f} s  {row['says']}: {row['reason']}"
    for text in row["findings"]:
        yield f"{'':24}{text}"
    if not row["passed"]:
        for line in row["output"].splitlines()[-8:]:
            yield f"{'':8}| {line}"


def validate(settings: Json, commands: Json, tell: Say, say: Say) -> int:
    """Read what a start would read and say all that is wrong; 0 if nothing is."""
    try:
        loaded = VideoMock(Config(**settings)).store.loaded
    except SetupError as error:
        for problem in error.args:
            say(problem)
        return 1
    for note in loaded.notes:
        say(note)
    tell(f"ok: {len(loaded.fixtures)} fixtures, {loaded.catalogue}")
    return 0


def check_health(settings: Json, commands: Json, tell: Say, say: Say) -> int:
    """Ask the mock that these settings would start; 0 once it answers, 1 if it does not in time."""
    config = Config(**settings)
    end = _monotonic() + (commands["wait"] or 0)
    kind: Any = http.client.HTTPConnection
    if config.cert:  # its own, so there is nothing to verify it by
        context = ssl._create_unverified_context()
        kind = functools.partial(http.client.HTTPSConnection, context=context)
    connection = kind(config.host, config.port, timeout=2)
    while True:
        try:
            with contextlib.closing(connection):
                connection.request("GET", "/health")
                if connection.getresponse().read(15) == b'{"status":"ok",':
                    return 0
            raise OSError("something else answers there")
        except (OSError, http.client.HTTPException) as error:
            if _monotonic() >= end:
                say(f"no mock on {config.host}:{config.port}: {error}")
                return 1
        time.sleep(0.05)


if __name__ == "__main__":
    # At once: no waiting for connections, and no thread left to trip over a closing interpreter.
    os._exit(main())

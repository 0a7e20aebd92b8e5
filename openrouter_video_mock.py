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

One file, standard library only, Python 3.10 and newer: copy it to where you need it.  It checks requests,
walks statuses and words its errors as production does; it does not judge prompts or imitate a model.

The file reads downwards; what a line needs at import time stands above it:

     1  Settings                     Config: one field = one flag = one environment variable
     2  Wire contract                statuses, request schema, errors, the job as JSON
     3  Catalogue and cost           what a model accepts, how large its clips are, what they cost
     4  Fixtures, faults, scenarios  which answer a submit gets; the files that say so
     5  Jobs, lifecycle, store       what changes, behind the one lock
     6  Test card                    an MP4 writer
     7  Webhooks                     event, signature, delivery
     8  Requests and responses       the values between the handlers and the socket
     9  Video API handlers           production's routes
    10  Control API and status page  /__mock/* and GET /
    11  Routes and the mock          the route table, VideoMock.handle, what tests steer and look at
    12  HTTP adapter and embedding   sockets, MockServer, the pytest fixture
    13  Command line

Sections 2 to 6 turn values into values: no socket, no clock of their own, nothing printed.

Source of the wire facts: recordings of the live API (the newest of 2026-10-02), OpenRouter's SDKs (Python 1.3.84)
and OpenAPI document (2026-08), its documentation (2026-08).  README.md says which fact rests on which.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import gc
import hashlib
import heapq
import hmac
import html
import http.client
import importlib
import io
import itertools
import json
import math
import os
import queue
import re
import selectors
import signal
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TextIO
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = [
    "ApiError",
    "Config",
    "MockServer",
    "Request",
    "Response",
    "SetupError",
    "Status",
    "VideoMock",
    "main",
]
__version__ = "1.0.0"

# ============ 1. Settings: Config ===========================================================================
#
# A field of Config is a keyword argument of MockServer, a flag of the command line and an environment variable
# OPENROUTER_VIDEO_MOCK_<FLAG>.  To add a setting, add a field and its line in OPTIONS.


class SetupError(ValueError):
    """What stops a start, or a change through the control API: one line that names the place and the cure."""


class Config(NamedTuple):
    """All settings of one mock.  OPTIONS says what each means; what repeats takes one value or several."""

    port: int = 0
    host: str = "127.0.0.1"
    fixtures: Any = (None,)  # paths, or fixtures as Python objects; None = fixtures.json beside this file
    polls: tuple[int, int] = (0, 1)
    seconds: tuple[float, float] | None = None
    latency: float = 0.0
    fault: Any = ()
    api_key: Any = ()
    webhook_secret: str = ""
    callback_url: str = ""
    callback_host: Any = ()
    relative_polling_url: bool = False
    public_url: str = ""
    max_body_mb: float = 64.0
    max_jobs: int = 10_000
    max_requests: int = 1_000


def _pair_of(number: type) -> Callable[[str], tuple[Any, ...]]:
    def pair_of_numbers(text: str) -> tuple[Any, ...]:
        pending, in_progress = text.split(",")
        return number(pending), number(in_progress)

    return pair_of_numbers


def fault_json(text: str) -> Any:
    """The JSON of --fault; argparse names this function when it is none."""
    return json.loads(text)


# Per setting: what its text is read by (bool = a switch), placeholder, help.
OPTIONS: dict[str, tuple[Any, str, str]] = {
    "port": (int, "PORT", "port to listen on, 0 = any free one"),
    "host": (str, "HOST", "address to listen on"),
    "fixtures": (str, "PATH", "fixture file or folder, repeatable (default: fixtures.json beside this)"),
    "polls": (_pair_of(int), "P,I", "how many polls show pending and in_progress before the end"),
    "seconds": (_pair_of(float), "P,I", "how long a job is pending and in_progress, instead of --polls"),
    "latency": (float, "S", "seconds to wait before each answer of the API"),
    "fault": (fault_json, "JSON", 'fault to inject, repeatable: \'{"on":"poll","status":503,"times":2}\''),
    "api_key": (str, "KEY", "the only valid API keys, repeatable (default: any)"),
    "webhook_secret": (str, "SECRET", "secret that signs webhooks (default: unsigned)"),
    "callback_url": (str, "URL", "where the webhooks of requests without callback_url go"),
    "callback_host": (str, "HOST", "host that webhooks may go to beside loopback, repeatable, * = any"),
    "relative_polling_url": (bool, "", "polling_url as a path instead of a whole URL"),
    "public_url": (str, "URL", "origin of the URLs in answers (default: what the client used)"),
    "max_body_mb": (float, "MB", "largest request body in megabytes"),
    "max_jobs": (int, "N", "how many jobs are kept, the oldest go first"),
    "max_requests": (int, "N", "how many requests the journal keeps, 0 = none"),
}
REPEATABLE = frozenset({"fixtures", "fault", "api_key", "callback_host"})
_MOST = {"port": 65_535, "latency": 3_600, "max_body_mb": 10_000, "max_jobs": 10**7, "max_requests": 10**7}


def checked_config(config: Config) -> Config:
    """The settings with single values of repeatable ones in tuples; SetupError for what cannot be."""
    try:
        return Config(**{name: _checked_setting(name, value) for name, value in config._asdict().items()})
    except (TypeError, AttributeError) as error:
        raise SetupError(f"a setting is of the wrong type: {error}") from None


def _checked_setting(name: str, value: Any) -> Any:
    if name in _MOST:
        least = 1 if name == "max_jobs" else 0
        if not least <= value <= _MOST[name]:
            raise SetupError(f"{name}: must be {least} to {_MOST[name]}, got {value}")
    elif name in ("polls", "seconds"):
        if value is not None and (len(value) != 2 or not all(0 <= number < 1e12 for number in value)):
            raise SetupError(f"{name}: must be two numbers of at least 0, got {value}")
    elif name in ("public_url", "callback_url"):
        if value and not is_url(value):
            raise SetupError(f"{name}: must be an http or https URL, got {value!r}")
        return value.rstrip("/") if name == "public_url" else value
    elif name in REPEATABLE:
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return value


def is_url(text: str) -> bool:
    """Whether this is an http(s) URL with a host and a valid port, without blanks or control characters."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return valid and not re.search(r"[\x00-\x20\x7f]", text)


_words = str.split

# ============ 2. Wire contract: Status, VideoRequest, ApiError, job_to_wire =================================
#
# The request schema is data in the manner of Zod, because production's is Zod and its issues are on the wire.
# To accept a new field: a line in _FIELDS and, if anything reads it, a field of VideoRequest.

API = "/api/v1"


class Status(Enum):
    """The statuses of a job, in the order in which they can follow each other; the last four end it."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)
ENDINGS = [status.value for status in TERMINAL]

# Recorded (failed) and documented texts of jobs that end badly.
ENDING_ERRORS = {
    Status.FAILED: "Video generation completed with no output (content may have been filtered)",
    Status.CANCELLED: "Job was cancelled",
    Status.EXPIRED: "Job exceeded maximum time to live",
}

# Messages per HTTP status: SDK 1.3.84, where nothing better was recorded.
STATUS_MESSAGES = {
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
    """A refusal: HTTP status, message and metadata of production's error envelope, additional headers."""

    def __init__(self, status: int, message: str = "", metadata: Any = None, headers: Headers = ()) -> None:
        self.status, self.metadata, self.headers = status, metadata, headers
        self.message = message or STATUS_MESSAGES.get(status) or http.client.responses.get(status, "Error")
        super().__init__(f"{status} {self.message}")


class SchemaError(ApiError):
    """A body or query parameter that breaks the schema; `issues` as Zod 4 words and orders them."""

    def __init__(self, issues: list[dict[str, Any]]) -> None:
        super().__init__(400, "; ".join(issue["message"] for issue in issues))
        self.issues = issues


def error_to_wire(error: ApiError) -> dict[str, Any]:
    """The error envelope, or the other one that production sends for schema failures (both recorded)."""
    if isinstance(error, SchemaError):
        message = json.dumps(error.issues, indent=2, ensure_ascii=False)
        return {"success": False, "error": {"name": "ZodError", "message": message}}
    metadata = {} if error.metadata is None else {"metadata": error.metadata}
    return {"error": {"message": error.message, "code": error.status, **metadata}}


JsonPath = tuple[Any, ...]
Issue = dict[str, Any]
Check = Callable[[Any, JsonPath], Iterator[Issue]]  # yields the issues of the value at the path
_MISSING: Any = object()
_MAX_SAFE_INTEGER = 2**53 - 1
_JS_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}


def _issue(path: JsonPath, message: str, **parts: Any) -> Issue:
    return {**parts, "path": list(path), "message": message}


def _invalid_type(expected: str, value: Any, path: JsonPath) -> Issue:
    received = "null" if value is None else _JS_TYPES.get(type(value), "undefined")
    form = {"format": "safeint"} if expected == "int" else {}
    parts = {"expected": expected, **form, "code": "invalid_type"}
    return _issue(path, f"Invalid input: expected {expected}, received {received}", **parts)


def _typed(kind: Any, expected: str, item: Check | None = None) -> Check:
    def check(value: Any, path: JsonPath) -> Iterator[Issue]:
        if not isinstance(value, kind):
            yield _invalid_type(expected, value, path)
        elif item is not None:
            for key, element in enumerate(value) if kind is list else value.items():
                yield from item(element, (*path, key))

    return check


def _string(maximum: int | None = None, pattern: str = "", url: bool = False) -> Check:
    def check(value: Any, path: JsonPath) -> Iterator[Issue]:
        if not isinstance(value, str):
            yield _invalid_type("string", value, path)
        elif maximum is not None and len(value) > maximum:
            text = f"Too big: expected string to have <={maximum} characters"
            yield _issue(path, text, origin="string", code="too_big", maximum=maximum, inclusive=True)
        elif pattern and not re.fullmatch(pattern, value, re.ASCII):
            shown = f"/^{pattern}$/"
            parts = {"origin": "string", "code": "invalid_format", "format": "regex", "pattern": shown}
            yield _issue(path, f"Invalid string: must match pattern {shown}", **parts)
        elif url and not is_url(value):
            yield _issue(path, "Invalid URL", code="invalid_format", format="url")

    return check


def _number(whole: bool = False, minimum: int | None = None) -> Check:  # exclusive unless whole
    def check(value: Any, path: JsonPath) -> Iterator[Issue]:
        if type(value) not in (int, float) or (whole and value != int(value)):
            yield _invalid_type("int" if isinstance(value, float) else "number", value, path)
            return
        if whole and abs(value) > _MAX_SAFE_INTEGER:
            size, limit, sign = ("big", "maximum", "<=") if value > 0 else ("small", "minimum", ">=")
            safe = _MAX_SAFE_INTEGER if value > 0 else -_MAX_SAFE_INTEGER
            note = "Integers must be within the safe integer range."
            parts = {"code": f"too_{size}", limit: safe, "note": note, "origin": "int", "inclusive": True}
            yield _issue(path, f"Too {size}: expected int to be {sign}{safe}", **parts)
        if minimum is not None and (value < minimum or (value == minimum and not whole)):
            text = f"Too small: expected number to be >{'=' if whole else ''}{minimum}"
            yield _issue(path, text, origin="number", code="too_small", minimum=minimum, inclusive=whole)

    return check


def _one_of(*values: str) -> Check:
    expected = "|".join(f'"{value}"' for value in values)
    text = f"Invalid {'option: expected one of' if values[1:] else 'input: expected'} {expected}"

    def check(value: Any, path: JsonPath) -> Iterator[Issue]:
        if value not in values:
            yield _issue(path, text, code="invalid_value", values=list(values))

    return check


def _object(fields: Mapping[str, Check], required: Collection[str] = ()) -> Check:
    def check(value: Any, path: JsonPath) -> Iterator[Issue]:
        if not isinstance(value, dict):
            yield _invalid_type("object", value, path)
            return
        for key, item in fields.items():
            if key in value or key in required:
                yield from item(value.get(key, _MISSING), (*path, key))

    return check


def _asset(kind: str, **more: Check) -> Check:
    url = _object({"url": _string()}, required=("url",))
    return _object({"type": _one_of(kind), kind: url, **more}, required=("type", kind, *more))


_ASSETS = {kind: _asset(kind) for kind in ("image_url", "audio_url", "video_url")}


def _reference(value: Any, path: JsonPath) -> Iterator[Issue]:
    if not isinstance(value, dict):  # a discriminated union names the code first
        yield {"code": "invalid_type", **_invalid_type("object", value, path)}
    elif isinstance(value.get("type"), str) and value["type"] in _ASSETS:
        yield from _ASSETS[value["type"]](value, path)
    else:
        text = "Invalid discriminator value. Expected " + " | ".join(f"'{kind}'" for kind in _ASSETS)
        parts: Issue = {"errors": [], "note": "No matching discriminator", "discriminator": "type"}
        yield _issue((*path, "type"), text, code="invalid_union", **parts, options=list(_ASSETS))


RESOLUTIONS = ("360p", "480p", "720p", "768p", "1080p", "1K", "2K", "4K")
FRAME_TYPES = ("first_frame", "last_frame")
ASPECT_RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9", "9:21")
_TRACE_KEYS = ("generation_name", "parent_span_id", "span_name", "trace_id", "trace_name")

_FIELDS: dict[str, Check] = {
    "model": _string(),
    "aspect_ratio": _one_of(*ASPECT_RATIOS),
    "callback_url": _string(url=True),  # HTTPS or not depends on the mock's hosts: parse_video_request
    "creativity": _number(whole=True),
    "duration": _number(whole=True, minimum=1),
    "frame_images": _typed(list, "array", _asset("image_url", frame_type=_one_of(*FRAME_TYPES))),
    "generate_audio": _typed(bool, "boolean"),
    "input_references": _typed(list, "array", _reference),
    "previous_job_id": _string(pattern=r"gen-vid-\d+-[0-9A-Za-z]{20}"),
    "prompt": _string(),
    "provider": _object({"options": _typed(dict, "record", _typed(dict, "record"))}),
    "resolution": _one_of(*RESOLUTIONS),
    "seed": _number(whole=True),
    "session_id": _string(maximum=256),
    "size": _string(),
    "trace": _object(dict.fromkeys(_TRACE_KEYS, _string())),
    "upscale_factor": _number(minimum=0),
    "user": _string(),
}
REQUEST_SCHEMA = _object(_FIELDS, required=("model",))


class Shape(NamedTuple):
    """What decides size, length and price of a clip; hashable, so that costs can be cached."""

    frames: tuple[str, ...]  # frame types of frame_images
    references: tuple[str, ...]  # types of input_references
    duration: int | None  # seconds; this and all below are keys of the request
    resolution: str | None
    aspect_ratio: str | None
    size: str | None  # "WIDTHxHEIGHT"
    generate_audio: bool | None
    upscale_factor: float | None
    creativity: int | None


class VideoRequest(NamedTuple):
    """A submit that passed the schema."""

    model: str
    prompt: str
    shape: Shape
    seed: int | None
    callback_url: str | None
    body: dict[str, Any]  # as the client sent it, unknown keys included


_JSON_TOKEN = r'(?s:"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}])'  # linear, closed or not
_MAX_JSON_DEPTH = 100
_MOST_ISSUES = 100  # a large body can hold a million faults


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no JSON number")
    return number


_decode_json = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode
_encode_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def parse_json(body: bytes) -> Any:
    """JSON as production's parser takes it; ValueError for all that is none or nests too deep to be handled."""
    text = body.decode("utf-8")  # UnicodeDecodeError is a ValueError
    if text.count("[") + text.count("{") > _MAX_JSON_DEPTH:
        depth = 0
        for token in re.finditer(_JSON_TOKEN, text):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
            if depth > _MAX_JSON_DEPTH:
                raise ValueError(f"nested more than {_MAX_JSON_DEPTH} deep")
    value = _decode_json(text)
    if "\\ud" in text or "\\uD" in text:  # half a surrogate pair is no text that could be sent on
        _encode_json(value).encode()
    return value


def to_json(value: Any) -> bytes:
    """Compact UTF-8 JSON, as JavaScript's JSON.stringify writes it."""
    return _encode_json(value).encode()


def js_number(value: float) -> float:
    """Without binary noise, and 2 for 2.0, as JavaScript prints it."""
    value = round(value, 10)
    return int(value) if value == int(value) else value


def parse_video_request(body: bytes, callback_hosts: Sequence[str] = ("*",)) -> VideoRequest:
    """The submit that these bytes hold; SchemaError with one issue per fault.  Content-Type plays no part."""
    try:
        wanted = parse_json(body)
    except ValueError:
        raise SchemaError([_issue((), "Malformed JSON in request body", code="custom")]) from None
    issues = list(itertools.islice(REQUEST_SCHEMA(wanted, ()), _MOST_ISSUES))
    callback_url = wanted.get("callback_url") if isinstance(wanted, dict) else None
    url = callback_url if isinstance(callback_url, str) and is_url(callback_url) else "https://"
    if not url.lower().startswith("https://") and not may_deliver(url, callback_hosts):
        issues.append(_issue(("callback_url",), "callback_url must use HTTPS", code="custom"))
    if issues:
        raise SchemaError(issues)
    for name in ("duration", "seed", "creativity"):
        if isinstance(wanted.get(name), float):  # 8.0 is an integer to JavaScript
            wanted[name] = int(wanted[name])
    get = wanted.get
    frames = tuple(image["frame_type"] for image in get("frame_images", ()))
    references = tuple(reference["type"] for reference in get("input_references", ()))
    shape = Shape(frames, references, *map(get, Shape._fields[2:]))
    return VideoRequest(wanted["model"], get("prompt", ""), shape, get("seed"), get("callback_url"), wanted)


_LONGEST_TEXT = 16_384
_LONGEST_LIST = 100


def shorten(value: Any) -> Any:
    """The same JSON with data URLs, very long texts and very long lists cut: what journal and jobs keep."""
    if isinstance(value, str):
        keep = 64 if value.startswith("data:") and len(value) > 256 else _LONGEST_TEXT
        return value if len(value) <= keep else f"{value[:keep]}… ({len(value)} characters)"
    if isinstance(value, list):
        return [shorten(item) for item in value[:_LONGEST_LIST]]
    if isinstance(value, dict):
        return {shorten(key): shorten(item) for key, item in list(value.items())[:_LONGEST_LIST]}
    return value


class Links(NamedTuple):
    """How URLs are made for one client: the origin that it used, and the key that signs downloads."""

    origin: str  # "http://localhost:8080"
    secret: bytes = b""
    relative_polling_url: bool = False

    def polling_url(self, job_id: str) -> str:
        """Absolute as recorded, or the path alone as the newest documentation shows it."""
        return f"{'' if self.relative_polling_url else self.origin}{API}/videos/{job_id}"

    def content_url(self, job_id: str, index: int) -> str:
        """The download that needs the key."""
        return f"{self.origin}{API}/videos/{job_id}/content?index={index}"

    def signed_url(self, job_id: str, index: int, expires: int) -> str:
        """The download that needs none.  The form is the mock's own: production's is not known."""
        signature = sign_download(self.secret, job_id, index, expires)
        return f"{self.content_url(job_id, index)}&expires={expires}&signature={signature}"


def sign_download(secret: bytes, job_id: str, index: int, expires: int) -> str:
    """Hex HMAC-SHA256 over job, index and expiry (unix seconds)."""
    return hmac.new(secret, f"{job_id}/{index}/{expires}".encode(), hashlib.sha256).hexdigest()


def waiting_to_wire(job_id: str, polling_url: str, status: Status) -> dict[str, Any]:
    """What a poll answers before the end."""
    return {"id": job_id, "generation_id": job_id, "polling_url": polling_url, "status": status.value}


def job_to_wire(job: Job, now: float, links: Links) -> dict[str, Any]:
    """What a poll answers; absent fields are left out, never null."""
    status = status_at(job, now)
    wire = waiting_to_wire(job.id, links.polling_url(job.id), status)
    if status is Status.COMPLETED:
        wire["unsigned_urls"] = unsigned_urls(job, links)
        if job.plan.stored and now < expires_at(job):
            end = expires_at(job)
            wire["urls"] = [links.signed_url(job.id, index, end) for index in range(job.plan.outputs)]
            wire["expires_at"] = end
        wire["usage"] = usage_to_wire(job)
    elif status in TERMINAL:
        wire["error"] = job.error
    return wire


def unsigned_urls(job: Job, links: Links) -> list[str]:
    """One download URL per output, or those that the fixture names."""
    if job.plan.unsigned_urls is not None:
        return list(job.plan.unsigned_urls)
    return [links.content_url(job.id, index) for index in range(job.plan.outputs)]


def usage_to_wire(job: Job) -> dict[str, Any]:
    """The cost in USD, and whether a provider key of the user's own paid."""
    return {"cost": job.cost, "is_byok": job.plan.is_byok}


# ============ 3. Catalogue and cost: Model, check_against_catalogue, output_size, cost_of ===================
#
# A model is its entry of GET /videos/models, plus what it does when a request leaves something out.


class Model(NamedTuple):
    """One entry of GET /videos/models; the first 17 fields are its keys on the wire, in their order."""

    id: str
    canonical_slug: str
    hugging_face_id: str | None = None
    name: str = ""
    created: int = 0  # unix seconds
    description: str | None = None
    supported_resolutions: tuple[str, ...] | None = None  # None in a list: anything goes
    supported_aspect_ratios: tuple[str, ...] | None = None
    supported_sizes: tuple[str, ...] | None = None
    supported_durations: tuple[int, ...] | None = None
    supported_frame_images: tuple[str, ...] | None = None  # None: no frame image at all
    upscale_factor: dict[str, float] | None = None  # {"min", "max"}: an upscaler
    creativity: tuple[int, ...] | None = None
    generate_audio: bool | None = None
    seed: bool | None = None
    pricing_skus: dict[str, str] | None = None
    allowed_passthrough_parameters: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}  # duration, resolution, aspect_ratio of a request without; never sent

    def __hash__(self) -> int:
        return hash(self.id)

    def to_wire(self) -> dict[str, Any]:
        """All 17 keys, nulls included: the SDKs refuse a model that lacks one."""
        return dict(zip(self._fields[:17], self, strict=False))

    @property
    def provider(self) -> str:
        """The company as production words it: before the colon of the name, else before the slash of the id."""
        return self.name.split(":")[0] if ":" in self.name else self.id.split("/")[0]


_ALLOWED_URL = {  # per kind of reference
    "image_url": r"https://|data:image/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64,",
    "audio_url": r"https://|data:audio/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64,",
    "video_url": "https://",
}


def check_references(body: dict[str, Any]) -> None:
    """Refuse assets that are neither HTTPS nor an image or audio data URL, catalogue or not."""
    for name in ("frame_images", "input_references"):
        for index, asset in enumerate(body.get(name, ())):
            kind = asset["type"]
            if not re.match(_ALLOWED_URL[kind], asset[kind]["url"], re.IGNORECASE):
                where = f"{name}[{index}].{kind}.url"
                raise ApiError(400, f"Invalid reference URL: {where}: Only HTTPS URLs are allowed")


def check_prompt(wanted: VideoRequest, model: Model) -> None:
    """Refuse what has neither prompt nor image; an upscaler needs the video and nothing else."""
    references = wanted.shape.references
    enough = "image_url" in references or (model.upscale_factor and "video_url" in references)
    if not (wanted.prompt or wanted.shape.frames or enough):
        words = "video generations require a prompt when no image input is provided"
        raise ApiError(400, f"{model.provider} {words}")


def check_against_catalogue(wanted: VideoRequest, model: Model) -> None:
    """Refuse, in production's words, what the model's entry does not offer."""
    shape, limits, factor = wanted.shape, model.upscale_factor, wanted.shape.upscale_factor
    checks: list[tuple[str, str, Any, Sequence[Any] | None, str]] = [
        ("Duration", "durations", shape.duration, model.supported_durations, "s"),
        ("Resolution", "resolutions", shape.resolution, model.supported_resolutions, ""),
        ("Aspect ratio", "aspect ratios", shape.aspect_ratio, model.supported_aspect_ratios, ""),
        ("Size", "sizes", shape.size, model.supported_sizes, ""),
        ("Creativity", "creativity levels", shape.creativity, model.creativity, ""),
    ]
    if limits and factor and not limits["min"] <= factor <= limits["max"]:
        offer = f"{limits['min']} to {limits['max']}"
        checks.append(("Upscale factor", "upscale factors", factor, [offer], ""))
    for word, plural, value, supported, unit in checks:
        if value is not None and supported is not None and value not in supported:
            offered = f"Supported {plural}: {', '.join(map(str, supported))}{unit}"
            funnel = [{"step": "Initial Endpoints", "endpoint_count": 1}]
            metadata = {"routing_funnel": funnel, "failed_routing_step": "Validate Video Parameters"}
            raise ApiError(400, f"{word} {value}{unit} is not supported for this model. {offered}", metadata)
    for frame_type in shape.frames:
        if frame_type not in (model.supported_frame_images or ()):
            integration = f'the provider integration for model "{model.id}"'
            raise ApiError(400, f"{integration} does not support {frame_type} frame_images")


_SHORT_SIDES = dict(zip(RESOLUTIONS, (360, 480, 720, 768, 1080, 1024, 1440, 2160), strict=True))  # pixels
# What Seedance really produces, portrait mirrored; its catalogue lists other sizes for some of these.
_SEEDANCE_SIZES = {
    "480p": {"16:9": (864, 496), "4:3": (752, 560), "1:1": (640, 640), "21:9": (992, 432)},
    "720p": {"16:9": (1280, 720), "4:3": (1112, 834), "1:1": (960, 960), "21:9": (1470, 630)},
}
_UPSCALER_INPUT = (1280, 720)  # pixels; the mock never looks at the video that it is given


def duration_of(shape: Shape, model: Model) -> int:
    """Seconds asked for, else the model's default, else 5."""
    return shape.duration or model.defaults.get("duration") or (model.supported_durations or (5,))[0]


def has_audio(shape: Shape, model: Model) -> bool:
    """Whether the clip has a sound track: the request's word, else the model's."""
    return bool(model.generate_audio if shape.generate_audio is None else shape.generate_audio)


def _parse_size(text: str) -> tuple[int, int] | None:  # None: without a catalogue nobody checked it
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    return (int(match[1]), int(match[2])) if match else None


def output_size(shape: Shape, model: Model) -> tuple[int, int]:
    """Width and height in pixels of what this request produces: one rule for cost and clip."""
    if size := _parse_size(shape.size or ""):
        return size
    if limits := model.upscale_factor:
        factor = shape.upscale_factor or max(limits["min"], min(2, limits["max"]))
        return _even(_UPSCALER_INPUT[0] * factor), _even(_UPSCALER_INPUT[1] * factor)
    resolutions = model.supported_resolutions or ("720p",)
    resolution = shape.resolution or model.defaults.get("resolution") or resolutions[0]
    ratios = model.supported_aspect_ratios or ("16:9",)
    ratio = shape.aspect_ratio or model.defaults.get("aspect_ratio")
    ratio = ratio or ("16:9" if "16:9" in ratios else ratios[0])
    wide, high = map(int, ratio.split(":"))
    long, short = _landscape_size(model, resolution, max(wide, high), min(wide, high))
    return (long, short) if wide >= high else (short, long)


def _landscape_size(model: Model, resolution: str, wide: int, high: int) -> tuple[int, int]:
    known = _SEEDANCE_SIZES.get(resolution, {}).get(f"{wide}:{high}")
    if known and model.id.startswith("bytedance/seedance-"):
        return known
    short = _SHORT_SIDES[resolution]
    computed = (_even(short * wide / high), short)
    sizes = [(max(size), min(size)) for size in map(_parse_size, model.supported_sizes or ()) if size]
    alike = [size for size in sizes if abs(size[0] / size[1] * high / wide - 1) <= 0.03]
    exact = [size for size in alike if size[1] == short]
    area = computed[0] * computed[1]
    return min(exact or alike or [computed], key=lambda size: abs(size[0] * size[1] - area))


def _even(length: float) -> int:
    return round(length / 2) * 2


def _resolution_of(width: int, height: int) -> str:
    # The resolution that a size is priced as: by its short side, else by the nearest area at 16:9.
    for resolution, short in _SHORT_SIDES.items():
        if min(width, height) == short:
            return resolution
    return min(_SHORT_SIDES, key=lambda name: _area_difference(name, width, height))


def _area_difference(resolution: str, width: int, height: int) -> float:
    return abs(_SHORT_SIDES[resolution] ** 2 * 16 / 9 - width * height)


@functools.lru_cache(maxsize=1024)
def cost_of(shape: Shape, model: Model) -> float:
    """USD that production charges for this request, by the model's price list; 0 without one."""
    prices = {key: float(value) for key, value in (model.pricing_skus or {}).items()}
    seconds, (width, height) = duration_of(shape, model), output_size(shape, model)
    named = shape.resolution if shape.resolution and not shape.size else _resolution_of(width, height)
    resolution = f"_{named.lower()}"
    audio = "_with_audio" if has_audio(shape, model) else "_without_audio"
    video_input = "video_url" in shape.references and not shape.frames

    def keys_of(names: Sequence[str]) -> list[str]:  # this resolution's, any one's, the nearest one's
        exact = [name + end for name in names for end in (resolution, "")]
        nearest = sorted(_SHORT_SIDES, key=lambda name: _area_difference(name, width, height))
        return exact + [f"{name}_{near.lower()}" for near in nearest for name in names]

    def price(family: str, keys: Iterable[str]) -> float | None:
        listed = [prices[key] for key in keys if key in prices]
        return next(iter(listed or [value for key, value in prices.items() if family in key]), None)

    tokens = [f"{resolution}_with_video_input", "_with_video_input"] if video_input else []
    per_token = price("video_tokens", [f"video_tokens{end}" for end in (*tokens, resolution, audio, "")])
    if per_token is not None:
        return js_number(per_token * width * height * (24 * seconds + 1) / 1024)  # 24 pictures a second
    mode = "creative" if shape.creativity else "precise"
    cents = price("per_megapixel_second", [f"cents_per_megapixel_second_{mode}"])
    if cents is not None:
        return js_number(cents / 100 * width * height / 1e6 * seconds)

    modes: tuple[str, ...] = ("text_to_video_", "")
    if shape.frames:
        modes = ("image_to_video_", "", "text_to_video_")
    elif shape.references:
        modes = ("reference_", "", "image_to_video_", "text_to_video_")
    names = [f"{mode}duration_seconds{sound}" for sound in (audio, "") for mode in modes]
    dollars = price("duration_seconds", keys_of(names))
    families = ["cents_per_second_video_continuation"] if video_input else []
    families += ["cents_per_video_output_second", "cents_per_second_output"]
    cents = price("_second", keys_of(families))
    cost = seconds * (dollars if dollars is not None else (cents or 0) / 100)
    images = len(shape.frames) or shape.references.count("image_url")
    cost += images * (prices.get("cents_per_image_input", 0) / 100 + prices.get("reference_images", 0))
    return js_number(max(cost, prices.get("minimum_cents_per_generation", 0) / 100))


# Enough for GET /videos/models and for real prices where no fixture file brings the catalogue; in a file's format.
BUILT_IN_MODELS: list[dict[str, Any]] = json.loads("""[
  {
    "id": "bytedance/seedance-2.5", "canonical_slug": "bytedance/seedance-2.5-20260807",
    "name": "ByteDance: Seedance 2.5", "created": 1786141253, "generate_audio": true,
    "supported_resolutions": ["480p", "720p"],
    "supported_aspect_ratios": ["16:9", "9:16", "1:1", "4:3", "3:4", "21:9"],
    "supported_durations": [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
      25, 26, 27, 28, 29, 30],
    "supported_frame_images": ["first_frame", "last_frame"],
    "pricing_skus": {"video_tokens": "0.0000107", "video_tokens_with_video_input": "0.0000064"},
    "_defaults": {"duration": 5, "resolution": "720p", "aspect_ratio": "1:1"}
  }, {
    "id": "x-ai/grok-imagine-video", "canonical_slug": "x-ai/grok-imagine-video-20260512",
    "name": "SpaceXAI: Grok Imagine Video", "created": 1779117586, "generate_audio": null,
    "supported_resolutions": ["480p", "720p"], "supported_frame_images": ["first_frame"],
    "supported_aspect_ratios": ["16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3"],
    "supported_durations": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    "pricing_skus": {"cents_per_image_input": "0.2",
      "cents_per_video_output_second_480p": "5", "cents_per_video_output_second_720p": "7"},
    "_defaults": {"duration": 8, "resolution": "480p"}
  }, {
    "id": "kwaivgi/kling-v3.0-std", "canonical_slug": "kwaivgi/kling-v3.0-std-20260429",
    "name": "Kling: Video v3.0 Standard", "created": 1777496205, "generate_audio": true,
    "supported_resolutions": ["720p"], "supported_aspect_ratios": ["16:9", "9:16", "1:1"],
    "supported_durations": [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    "supported_frame_images": ["first_frame", "last_frame"],
    "pricing_skus": {"duration_seconds": "0.084", "duration_seconds_with_audio": "0.126"}
  }, {
    "id": "google/veo-3.1", "canonical_slug": "google/veo-3.1-20260320",
    "name": "Google: Veo 3.1", "created": 1774277148, "generate_audio": true,
    "supported_resolutions": ["720p", "1080p", "4K"], "supported_aspect_ratios": ["16:9", "9:16"],
    "supported_durations": [4, 6, 8], "supported_frame_images": ["first_frame", "last_frame"],
    "pricing_skus": {
      "duration_seconds_with_audio": "0.40", "duration_seconds_with_audio_4k": "0.60",
      "duration_seconds_without_audio": "0.20", "duration_seconds_without_audio_4k": "0.40"}
  }
]""")


# ============ 4. Fixtures, faults, scenarios: Fixture, Plan, Fault, differences, load_fixtures ===============
#
# A fixture says which submits it takes (Match) and what becomes of them: a job's course (Plan) or a refusal (a Fault
# without end).  A match is "the list of differences is empty", so what explains a near-miss is what decides.
# Files are read strictly: read_fields refuses a key that no table below names.  To add a key: a line in a table.


class Fault(NamedTuple):
    """One thing that goes wrong on one route, and how often."""

    on: str  # submit, poll, content, models, webhook
    status: int | None = None  # answer with this instead of doing the work
    message: str = ""
    metadata: dict[str, Any] | None = None
    retry_after: float | None = None  # seconds, header Retry-After
    delay: float = 0.0  # real seconds before the answer; virtual ones before a webhook
    close: bool = False  # no work, no answer
    lost: bool = False  # the work, no answer
    truncate: int | None = None  # the work, this many bytes of the answer's body
    malformed: bool = False  # 200 and broken JSON
    times: int | None = None  # None = always
    after: int = 0  # requests that pass first
    repeat: bool = False  # start over once a request got through

    def strikes(self, seen: int) -> tuple[bool, int]:
        """Whether the next request is hit when `seen` were counted before it, and the count after it."""
        if seen < self.after:
            return False, seen + 1
        if self.times is None or seen < self.after + self.times:
            return True, seen + 1
        return False, 0 if self.repeat else seen

    @property
    def prevents(self) -> bool:
        """Whether the work is not done: no job made, no poll counted."""
        return self.close or self.malformed or self.status is not None

    @property
    def label(self) -> str:
        """What journal and log call it: "503", "lost", "delay 2s" ..."""
        kinds = [kind for kind in ("close", "lost", "malformed") if getattr(self, kind)]
        kinds += [str(self.status)] if self.status else []
        kinds += [f"truncate {self.truncate}"] if self.truncate is not None else []
        kinds += [f"delay {self.delay:g}s"] if self.delay else []
        return " ".join(kinds)


class Webhook(NamedTuple):
    """How a fixture wants its job's webhook delivered."""

    times: int = 1  # deliveries in all, each with the same idempotency key
    delay: float = 0.0  # seconds after the end
    signature: str = "good"  # good, bad, stale, none


class Pace(NamedTuple):
    """How long a job shows pending and in_progress before its end: in polls, or in seconds."""

    unit: str
    pending: float
    in_progress: float


class Plan(NamedTuple):
    """The course of a job, shared by all jobs of a fixture."""

    status: Status = Status.COMPLETED  # the end; pending or in_progress = never ends
    error: str | None = None
    outputs: int = 1
    cost: float | None = None  # USD; None: by the catalogue
    is_byok: bool = False
    stored: bool = True  # whether signed urls are given out
    unsigned_urls: tuple[str, ...] | None = None  # None: the content route of this mock
    clip: bytes | Path = b""  # what is downloaded; nothing: a test card
    pace: Pace | None = None  # None: as the mock is set
    webhook: Webhook = Webhook()
    faults: tuple[Fault, ...] = ()  # those on poll, content and webhook; counted per job


class Match(NamedTuple):
    """What a submit must be like; None = any."""

    prompt: tuple[str, str] = ("contains", "")  # equals, contains or regex (a search); the text
    model: str | None = None  # exact, or followed by a dash and digits
    body: Any = None  # must be contained in the request body
    context: str | None = None  # header X-AIMock-Context
    sequence_index: int | None = None  # only while that many submits met the other criteria before
    never: str = ""  # a criterion of aimock's that no video request can meet


class Fixture(NamedTuple):
    """Which submits are meant, and what becomes of them."""

    name: str
    match: Match
    times: int | None  # matches per scope; None = unlimited
    plan: Plan | None  # None: the submit is refused
    refusal: Fault | None
    submit_faults: tuple[Fault, ...]
    source: dict[str, Any]  # as written
    group: str = ""  # fixtures that differ in sequenceIndex alone count their matches together
    needle: str = ""  # in every prompt that it takes: a quick first look, where most fixtures fail
    number: int = 0  # identity within a store: counters hang on it; negative = built in


Difference = tuple[str, Any, Any]  # one criterion that a submit does not meet, what it wants, what it got


# How a prompt is tested: the words of a near-miss, the test.
_PROMPT_TESTS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "equals": ("equal to", str.__eq__),
    "contains": ("containing", str.__contains__),
    "regex": ("matching", lambda prompt, pattern: re.search(pattern, prompt)),
}


def differences(
    fixture: Fixture, wanted: VideoRequest, context: str | None, counts: Counter[Any]
) -> Iterator[Difference]:
    """Why this fixture does not take this submit: nothing, if it does.

    `counts` says how often it, and its group, took one before in this scope.
    """
    match, matched, in_group = fixture.match, counts[fixture.number], counts[fixture.group]
    kind, text = match.prompt
    words, passes = _PROMPT_TESTS[kind]
    if not passes(wanted.prompt, text):
        yield "prompt", f"{words} {text!r}", shorten(wanted.prompt)
    if match.model is not None and not _is_model(wanted.model, match.model):
        yield "model", match.model, wanted.model
    if match.body is not None:
        yield from _body_differences(match.body, wanted.body, "body")
    if match.context is not None and match.context != context:
        yield "context", match.context, context
    if match.sequence_index is not None and match.sequence_index != in_group:
        yield "sequenceIndex", match.sequence_index, in_group
    if fixture.times is not None and matched >= fixture.times:
        yield "times", f"at most {fixture.times}", f"{matched} before"
    if match.never:
        yield match.never, "a chat request", "a video request"


def _is_model(model_id: str, named: str) -> bool:
    # The named one, or its dated slug: veo-3.1 takes veo-3.1-20260320, not veo-3.1-fast.
    return model_id == named or (model_id.startswith(f"{named}-") and model_id[len(named) + 1 :].isdecimal())


def _body_differences(wanted: Any, got: Any, path: str) -> Iterator[Difference]:
    if isinstance(wanted, dict) and isinstance(got, dict):
        for key, value in wanted.items():
            yield from _body_differences(value, got.get(key, _MISSING), f"{path}.{key}")
    elif isinstance(wanted, list) and isinstance(got, list):
        for index, value in enumerate(wanted):
            element = got[index] if index < len(got) else _MISSING
            yield from _body_differences(value, element, f"{path}[{index}]")
    elif wanted != got or isinstance(wanted, bool) != isinstance(got, bool):
        yield path, wanted, "nothing" if got is _MISSING else shorten(got)


def near_miss_to_wire(fixture: Fixture, missed: Sequence[Difference]) -> dict[str, Any]:
    """Which criteria of a fixture held, and what was wanted and got for the others."""
    failed = {criterion.partition(".")[0] for criterion, _, _ in missed}
    failed |= {"userMessage"} if "prompt" in failed else set()
    held = [key for key in fixture.source["match"] if key not in failed]
    listed = [{"criterion": criterion, "wanted": wanted, "got": got} for criterion, wanted, got in missed]
    return {"fixture": fixture.name, "differences": listed, "held": held}


# ---- Reading, strictly.  A reader takes a value and the path that its complaint names.

Reader = Callable[[Any, str], Any]
Readers = Mapping[str, "Reader | None"]  # None marks a key that is known and has no effect


def _complaint(path: str, text: str) -> SetupError:
    # The path of a whole file ends in a colon already: "fixtures.json: ".
    return SetupError(f"{path}{text}" if path.endswith(": ") else f"{path}: {text}")


def _expected(what: str, value: Any, path: str) -> SetupError:
    shown = _encode_json(shorten(value)) if isinstance(value, (str, int, float, list, dict)) else "null"
    return _complaint(path, f"expected {what}, got {shown if len(shown) <= 60 else f'{shown[:60]}…'}")


def read_fields(value: Any, path: str, known: Readers, required: Sequence[str] = ()) -> dict[str, Any]:
    """The object's fields, each read by its reader; keys that begin with _ are comments."""
    if not isinstance(value, dict):
        raise _expected("an object", value, path)
    inside = path if not path or path.endswith(": ") else f"{path}."
    for key in value:
        if key not in known and not key.startswith("_"):
            import difflib  # only a file with a mistake needs it, and start-up time counts

            near = difflib.get_close_matches(key, [name for name in known if known[name]], 1)
            raise SetupError(f"{inside}{key}: unknown key" + (f', did you mean "{near[0]}"?' if near else ""))
    for key in required:
        if key not in value:
            raise _complaint(path, f'"{key}" is missing')
    readers = {key: reader for key, reader in known.items() if reader is not None and key in value}
    return {key: reader(value[key], f"{inside}{key}") for key, reader in readers.items()}


def _keys(*rows: tuple[str, Reader | None]) -> Readers:  # a row may name several keys
    return {key: reader for names, reader in rows for key in names.split()}


def _read_keys(known: Readers, *required: str) -> Reader:
    return lambda value, path: read_fields(value, path, known, required)


def _reader(what: str, accepts: Callable[[Any], bool]) -> Reader:
    def read(value: Any, path: str) -> Any:
        if not accepts(value):
            raise _expected(what, value, path)
        return value

    return read


read_text = _reader("a string", lambda value: isinstance(value, str))
read_flag = _reader("true or false", lambda value: isinstance(value, bool))
read_object = _reader("an object", lambda value: isinstance(value, dict))


def _read_choice(*choices: str) -> Reader:
    return _reader(f"one of {', '.join(choices)}", choices.__contains__)


def _read_list(item: Reader) -> Reader:
    def read(value: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _expected("a list", value, path)
        return tuple(item(element, f"{path}[{index}]") for index, element in enumerate(value))

    return read


_LARGEST = 1e12  # nothing here is counted or timed beyond


def _read_number(smallest: float, largest: float = _LARGEST, whole: bool = True) -> Reader:
    def read(value: Any, path: str) -> float:
        bounded = type(value) in (int, float) and smallest <= value <= largest
        if not bounded or (whole and value != int(value)):
            upper = f" and at most {largest:g}" if largest < _LARGEST else ""
            raise _expected(f"a {'whole ' if whole else ''}number of at least {smallest}{upper}", value, path)
        return int(value) if whole else value

    return read


def _or_null(reader: Reader) -> Reader:
    return lambda value, path: None if value is None else reader(value, path)


_count, _amount = _read_number(0), _read_number(0, whole=False)

_FAULT_KEYS = _keys(
    ("on", _read_choice("submit", "poll", "content", "models", "webhook")),
    ("status", _read_number(400, 599)),
    ("message", read_text),
    ("metadata", read_object),
    ("retryAfter", _amount),
    ("delay", _read_number(0, 3600, whole=False)),
    ("close lost malformed repeat", read_flag),
    ("times", _read_number(1)),
    ("truncate after", _count),
)


def fault_from_json(value: Any, path: str = "fault") -> Fault:
    """Reader of a fault."""
    given = read_fields(value, path, _FAULT_KEYS, required=("on",))
    fault = Fault(retry_after=given.pop("retryAfter", None), **given)
    if not fault.label:
        raise _complaint(path, "does nothing; give status, delay, close, lost, truncate or malformed")
    if fault.repeat and fault.times is None:
        raise _complaint(f"{path}.repeat", 'needs "times"')
    return fault


def _read_prompt(value: Any, path: str) -> tuple[str, str]:
    if isinstance(value, str):
        return "contains", value
    if not isinstance(value, dict):
        raise _expected("a string or an object", value, path)
    given = read_fields(value, path, dict.fromkeys(_PROMPT_TESTS, read_text))
    if len(given) != 1:
        raise _complaint(path, "give exactly one of equals, contains, regex")
    try:
        re.compile(given.get("regex", ""))
    except (re.error, OverflowError, RecursionError) as error:
        raise _complaint(f"{path}.regex", f"not a regular expression: {error}") from None
    return next(iter(given.items()))


# aimock's: criteria on chat messages, which no video request meets; keys without effect; answers of other endpoints.
_AIMOCK_NEVER = "systemMessage inputText toolCallId toolResultContains toolName responseFormat"
_AIMOCK_INERT = (
    "latency chunkSize truncateAfterChunks disconnectAfterMs streamingProfile recordedTimings replaySpeed "
    "openRouterProcessing metadata chaos"
)
_AIMOCK_OTHER_ENDPOINTS = (
    "content toolCalls blocks reasoning reasoningSignature redactedThinking webSearches image images embedding audio "
    "format transcription json billableUnits id created model usage systemFingerprint finishReason role provider "
    "nativeFinishReason fallthrough"
)

_MATCH_KEYS = _keys(
    ("prompt userMessage", _read_prompt),
    ("model endpoint context", read_text),
    ("body", read_object),
    ("sequenceIndex", _count),
    ("hasToolResult", read_flag),
    (f"turnIndex {_AIMOCK_NEVER}", None),
)
_VIDEO_KEYS = _keys(
    # aimock's files say processing and mean completed
    ("status", _read_choice(*(status.value for status in Status), "processing")),
    ("file b64 error", read_text),
    ("count", _read_number(0, 100)),
    ("cost", _amount),
    ("is_byok stored", read_flag),
    ("unsigned_urls", _read_list(read_text)),
    ("id url duration", None),  # aimock's, without effect there too
)
_SIGNATURES = _read_choice("good", "bad", "stale", "none")
_WEBHOOK_KEYS: Readers = {"times": _read_number(0, 100), "delay": _amount, "signature": _SIGNATURES}
_ERROR_KEYS = _keys(("message", read_text), ("metadata", read_object), ("type param code", None))
_RESPONSE_KEYS = _keys(
    ("video", read_object),
    ("status", _read_number(400, 599)),
    ("retryAfter", _amount),
    ("error", _read_keys(_ERROR_KEYS)),
    (_AIMOCK_OTHER_ENDPOINTS, None),
)
_COUNTS, _SPANS = _keys(("pending in_progress", _count)), _keys(("pending in_progress", _amount))
_PACE_KEYS: Readers = {"polls": _read_keys(_COUNTS), "seconds": _read_keys(_SPANS)}


def _read_pace(value: Any, path: str) -> Pace:
    given = read_fields(value, path, _PACE_KEYS)
    if len(given) != 1:
        raise _complaint(path, "give either polls or seconds")
    unit, spans = next(iter(given.items()))
    return Pace(unit, spans.get("pending", 0), spans.get("in_progress", 0))


_FIXTURE_KEYS = _keys(
    ("name", read_text),
    ("match", _read_keys(_MATCH_KEYS)),
    ("times", _read_number(1)),
    ("lifecycle", _read_pace),
    ("response", read_object),
    ("faults", _read_list(fault_from_json)),
    ("webhook", lambda value, path: Webhook(**read_fields(value, path, _WEBHOOK_KEYS))),
    (_AIMOCK_INERT, None),
)


def fixture_from_json(value: Any, path: str, name: str, folder: Path | None) -> Fixture | None:
    """Reader of a fixture; None of one that answers another of aimock's endpoints.

    `folder` is what `file` is relative to; None where no file may be named.
    """
    given = read_fields(value, path, _FIXTURE_KEYS, required=("match",))
    match, answer = given["match"], given.get("response", {"video": {}})
    ours = answer.keys() & ("video", "error") or not answer.keys() & _AIMOCK_OTHER_ENDPOINTS.split()
    if not ours or match.get("endpoint", "video") != "video":
        read_fields(answer, f"{path}.response", dict.fromkeys(_RESPONSE_KEYS))
        return None
    answer = read_fields(answer, f"{path}.response", _RESPONSE_KEYS)
    refuses = "error" in answer or ("status" in answer and "video" not in answer)
    if not (refuses or "video" in answer):
        raise _complaint(f"{path}.response", "give video, or status or error")
    if refuses and "userMessage" in match and "endpoint" not in match:
        return None  # aimock's rule: such an error is one of its chat endpoint
    if "prompt" in match and "userMessage" in match:
        raise _complaint(f"{path}.match", "userMessage is another word for prompt, give one of them")
    faults = given.get("faults", ())
    if any(fault.on == "models" for fault in faults):
        text = "the models route has no fixture, give this fault to the server instead"
        raise _complaint(f"{path}.faults", text)
    plan = refusal = None
    if refuses:
        after, words = answer.get("retryAfter"), answer.get("error", {})
        refusal = Fault("submit", answer.get("status", 500), retry_after=after, **words)
    else:
        pace, webhook = given.get("lifecycle"), given.get("webhook", Webhook())
        later = tuple(fault for fault in faults if fault.on != "submit")
        plan = _read_plan(answer["video"], f"{path}.response.video", folder)
        plan = plan._replace(pace=pace, webhook=webhook, faults=later)
    never = [key for key in _AIMOCK_NEVER.split() if key in value["match"]]
    never += ["hasToolResult"] if match.get("hasToolResult") else []
    sequence = match.pop("sequenceIndex", None)
    match["prompt"] = kind, text = match.pop("userMessage", match.get("prompt", ("contains", "")))
    plain = (match.get("model"), match.get("body"), match.get("context"))
    criteria = Match((kind, text), *plain, sequence, "".join(never[:1]))
    group, needle = json.dumps(match, sort_keys=True), "" if kind == "regex" else text
    name, times = given.get("name", name), given.get("times")
    submit_faults = tuple(fault for fault in faults if fault.on == "submit")
    return Fixture(name, criteria, times, plan, refusal, submit_faults, value, group, needle)


def _read_plan(value: Any, path: str, folder: Path | None) -> Plan:
    given = read_fields(value, path, _VIDEO_KEYS)
    name, urls = given.get("status", "completed"), given.get("unsigned_urls")
    given["status"] = status = Status.COMPLETED if name == "processing" else Status(name)
    given["error"] = given.get("error") or ENDING_ERRORS.get(status)
    given["outputs"] = given.pop("count", 1 if urls is None else len(urls))
    given["clip"] = _from_base64(given.pop("b64", ""))
    if "cost" in given:
        given["cost"] = js_number(given["cost"])
    if "file" in given:
        if folder is None:
            raise _complaint(f"{path}.file", 'not here, it would be read from the server\'s disk; use "b64"')
        given["clip"] = file = folder / given.pop("file")
        if not os.path.isfile(file) or not os.access(file, os.R_OK):
            raise _complaint(f"{path}.file", f"no such file, or not readable: {file}")
    return Plan(**given)


def _from_base64(text: str) -> bytes:  # lenient, as aimock is: URL-safe letters, blanks, missing padding
    letters = re.sub(r"[^A-Za-z0-9+/]", "", text.replace("-", "+").replace("_", "/"))
    return base64.b64decode(letters[: len(letters) - (len(letters) % 4 == 1)] + "=" * (-len(letters) % 4))


_resolution, _ratio = _read_choice(*RESOLUTIONS), _read_choice(*ASPECT_RATIOS)
_DEFAULT_KEYS: Readers = {"duration": _read_number(1), "resolution": _resolution, "aspect_ratio": _ratio}
_MODEL_KEYS = _keys(
    ("id canonical_slug name", read_text),
    ("hugging_face_id description", _or_null(read_text)),
    ("created", _count),
    ("supported_resolutions", _or_null(_read_list(_resolution))),
    ("supported_aspect_ratios", _or_null(_read_list(_ratio))),
    ("supported_sizes", _or_null(_read_list(read_text))),
    ("supported_durations", _or_null(_read_list(_read_number(1)))),
    ("supported_frame_images", _or_null(_read_list(_read_choice(*FRAME_TYPES)))),
    ("upscale_factor", _or_null(_read_keys(_keys(("min max", _amount)), "min", "max"))),
    ("creativity", _or_null(_read_list(_count))),
    ("generate_audio seed", _or_null(read_flag)),
    ("pricing_skus", _or_null(read_object)),
    ("allowed_passthrough_parameters", _read_list(read_text)),
    ("_defaults", _read_keys(_DEFAULT_KEYS)),
)


def model_from_json(value: Any, path: str) -> Model:
    """Reader of a model: its 17 keys, of which only id must be there, and `_defaults`.

    What is left out is not checked; on the wire it is null, but frame images, where null would mean none.
    """
    given = read_fields(value, path, _MODEL_KEYS, required=("id",))
    for sku, amount in (given.get("pricing_skus") or {}).items():
        if not isinstance(amount, str) or not re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", amount):
            raise _expected('a price in a string, such as "0.05"', amount, f"{path}.pricing_skus.{sku}")
    plain = {"canonical_slug": given["id"], "name": given["id"], "defaults": given.pop("_defaults", {})}
    return Model(**(plain | {"supported_frame_images": FRAME_TYPES} | given))


class Loaded(NamedTuple):
    """What the fixture files say."""

    fixtures: tuple[Fixture, ...]
    models: tuple[Model, ...]
    enforced: bool  # whether a models list was given: then it is the catalogue
    implicit: bool  # whether no fixture was given: then every submit succeeds
    notes: tuple[str, ...]  # for the log
    stamps: dict[Path, tuple[int, int]]  # watched files and folders: modification time, size


_DOCUMENT_KEYS: Readers = {
    "models": _read_list(model_from_json),
    "fixtures": _read_list(lambda value, path: value),  # each at its turn: fixture_from_json
    "mcpFakes": None,  # aimock's
}


def load_fixtures(sources: Sequence[Any], stamps: dict[Path, tuple[int, int]] | None = None) -> Loaded:
    """Read files, folders (their *.json, recursively) and fixtures given as Python objects, in this order.

    Raises SetupError with one line for the first thing that is wrong.  `stamps` takes what was looked at.
    """
    fixtures: list[Fixture] = []
    notes: list[str] = []
    models: dict[str, Model] = {}
    stamps, enforced = {} if stamps is None else stamps, False
    for position, source in enumerate(sources):
        first = 0  # index of the source's first fixture
        if source is None:
            source = Path(__file__).with_name("fixtures.json")
            if not source.exists():
                continue
        if isinstance(source, (str, Path)):
            documents = _documents(Path(source), stamps)
        elif isinstance(source, Mapping):
            if not {"fixtures", "models"} & set(source):
                source, first = {"fixtures": [source]}, position
            documents = iter([("", "fixtures", source, Path())])
        else:
            raise SetupError(f"fixtures: expected a path or an object, got {source!r}")
        for place, name, document, folder in documents:
            parts = read_fields(document, place, _DOCUMENT_KEYS)
            enforced = enforced or "models" in parts
            for model in parts.get("models", ()):
                models.setdefault(model.id, model)
            for index, entry in enumerate(parts.get("fixtures", ()), first):
                where = f"{place}fixtures[{index}]"
                fixture = fixture_from_json(entry, where, f"{name}[{index}]", folder)
                if fixture is not None:
                    fixtures.append(fixture)
                else:
                    notes.append(f"{where}: answers another endpoint, passed over")
                if "chaos" in entry:
                    notes.append(f'{where}.chaos: has no effect here, see "faults"')
    built_in = () if enforced else BUILT_IN_MODELS
    listed = [*models.values(), *(model_from_json(model, "built-in") for model in built_in)]
    listed.sort(key=lambda model: -model.created)
    implicit = not fixtures and not notes
    return Loaded(tuple(fixtures), tuple(listed), enforced, implicit, tuple(notes), stamps)


def _documents(path: Path, stamps: dict[Path, tuple[int, int]]) -> Iterator[tuple[str, str, Any, Path]]:
    stamps[path] = _stamp(path)
    is_folder = os.path.isdir(path)  # which, unlike Path's, answers for every path
    try:
        found = sorted(path.iterdir()) if is_folder else _read_document(path)
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from None
    if not is_folder:
        yield f"{path.name}: ", path.name, found, path.parent
        return
    for entry in sorted(found, key=os.path.isdir):  # files before folders
        if os.path.isdir(entry) or (entry.suffix == ".json" and entry.is_file()):
            yield from _documents(entry, stamps)


def _read_document(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except json.JSONDecodeError as error:
        raise SetupError(f"{path.name}: line {error.lineno} column {error.colno}: {error.msg}") from None
    except ValueError as error:
        raise SetupError(f"{path.name}: not JSON: {error}") from None


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


# Ordinary fixtures that every mock carries before the user's: a word in the prompt, and no file is needed.
SCENARIOS: list[dict[str, Any]] = [
    {"name": f"mock:{word}", "match": {"prompt": f"mock:{word}"}, **course}
    for word, course in json.loads("""{
  "failed": {"response": {"video": {"status": "failed"}}},
  "cancelled": {"response": {"video": {"status": "cancelled"}}},
  "expired": {"response": {"video": {"status": "expired"}}},
  "stuck": {"response": {"video": {"status": "in_progress"}}},
  "no-urls": {"response": {"video": {"unsigned_urls": [], "stored": false}}},
  "two-videos": {"response": {"video": {"count": 2}}},
  "moderated": {"response": {"status": 403}},
  "no-credits": {"response": {"status": 402}},
  "rate-limited": {"faults": [{"on": "submit", "status": 429, "retryAfter": 1, "times": 2, "repeat": true}]},
  "overloaded": {"faults": [{"on": "submit", "status": 503, "retryAfter": 1, "times": 1, "repeat": true}]},
  "flaky": {"faults": [{"on": "poll", "status": 503, "times": 1}]},
  "lost-response": {"faults": [{"on": "submit", "lost": true, "times": 1, "repeat": true}]},
  "truncated": {"faults": [{"on": "content", "truncate": 2000}]},
  "slow": {"lifecycle": {"seconds": {"pending": 5, "in_progress": 10}}}
}""").items()
]


@functools.lru_cache(maxsize=1)
def scenario_fixtures() -> tuple[Fixture, ...]:
    """The scenarios, read like any other fixture; their negative numbers mark them as built in."""
    read = [fixture_from_json(entry, entry["name"], entry["name"], None) for entry in SCENARIOS]
    return tuple(f._replace(number=-1 - i) for i, f in enumerate(read) if f is not None)


# ============ 5. Jobs, lifecycle, store: Job, status_at, Store ===============================================
#
# A job is a request, a plan and a birth time; what a poller sees is status_at(job, now), so nothing has to run in
# the background and two looks at one clock reading always agree.  A change is a new Job stored in its place.
#
# To add a status: Status, TERMINAL if it ends a job, status_at.

RETENTION_SECONDS = 24 * 3600  # how long outputs are kept; production's is not known
_SELF_END_SECONDS = 1.0  # a job paced by polls that has a callback ends by itself: nobody may be polling
_MAX_SCOPES = 10_000  # counters of older scopes are forgotten: a mock may run for weeks
_MAX_DELIVERIES = 1_000
_SUCCESS = Fixture("", Match(), None, Plan(), None, (), {"match": {}})  # takes all if no file was loaded

# Good enough for a mock: 256 is no multiple of 62, so eight letters come a little more often.
_ID_LETTERS = (b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" * 5)[:256]


class Job(NamedTuple):
    """One accepted submit.  Time points are unix seconds on the mock's clock."""

    wanted: VideoRequest  # shortened
    model: Model
    plan: Plan
    fixture: str | None
    pace: Pace
    cost: float  # USD, if it completes
    origin: str  # of the URLs in its webhook
    key: str  # label of the API key
    scope: str
    callback_url: str | None
    ending: Status  # the status it ends in; pending or in_progress = never ends
    error: str | None
    id: str = ""
    created_at: float = 0.0
    fault_counts: Mapping[Any, int] = {}  # what `_draw` has counted of plan.faults
    ends_at: float = math.inf  # known, or reached; infinite while only polls can tell
    polls: int = 0


def status_at(job: Job, now: float) -> Status:
    """What a look at the job shows at this time; it only ever moves forward."""
    if now >= job.ends_at:
        return job.ending
    if job.ending is Status.PENDING:
        return Status.PENDING
    passed = job.polls - 1 if job.pace.unit == "polls" else now - job.created_at
    return Status.PENDING if passed < job.pace.pending else Status.IN_PROGRESS


def expires_at(job: Job) -> int:
    """When the outputs of a job that has ended stop being kept."""
    return int(job.ends_at) + RETENTION_SECONDS


class Note:
    """What becomes of a request: its entry in the journal is the request with this."""

    epoch = 0  # how many resets came before it
    job_id: str | None = None
    fixture: str | None = None
    fault: str | None = None
    closest: list[dict[str, Any]] | None = None
    status: int | None = None  # None: the connection was closed without an answer
    ms = 0.0
    seq = 0
    time = 0.0


class Store:
    """Everything about one mock that changes, hence the only lock.

    What goes in and out is frozen: a reader holds a snapshot that nobody can change under it.  Nothing here
    calls out or blocks while the lock is held, but `requests`, `webhooks` and `next_delivery`, which wait.
    Methods that VideoMock has by the same name are described there.
    """

    def __init__(self, config: Config, clock: Callable[[], float]) -> None:
        self.config = config
        self._clock = clock
        self._lock = threading.Lock()  # guards every field below
        self._written = threading.Condition(self._lock)  # a request or a delivery was written down
        self._due_changed = threading.Condition(self._lock)  # there may be something to deliver
        self._closed = False
        self._numbers = itertools.count(1)  # of fixtures, faults and deliveries
        self._in_flight: Counter[str] = Counter()  # by receiver: attempts under way; they outlive a reset
        self.epoch = 0  # how many resets there were
        self.loaded = load_fixtures(config.fixtures)
        given = (fault for part in config.fault for fault in (part if isinstance(part, list) else [part]))
        self._start_faults = [(fault_from_json(fault), fault) for fault in given]
        self._set_up()

    def _set_up(self) -> None:  # self._lock is held, or nobody else knows the store yet
        self._offset = 0.0  # what `advance` has added to the clock
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._spent: dict[str, float] = {}  # by key: cost of completed jobs that are no longer kept
        self._journal: deque[Request] = deque(maxlen=self.config.max_requests)
        self._seq = 0
        self._added: list[Fixture] = []
        self._faults = [(next(self._numbers), fault, source) for fault, source in self._start_faults]
        self._ends: list[tuple[float, str]] = []  # heap of (end, job id)
        self._unannounced: OrderedDict[str, Job] = OrderedDict()  # jobs whose end a webhook will tell
        self._deliveries: OrderedDict[int, Delivery] = OrderedDict()
        self._done: deque[int] = deque()  # numbers of those that are over, in the order in which they ended
        self._outbox: dict[str, list[tuple[float, int]]] = {}  # by receiver: heap of (due, delivery number)
        self._install()

    def _install(self) -> None:  # self._lock is held
        loaded = self.loaded
        numbered = [fixture._replace(number=next(self._numbers)) for fixture in loaded.fixtures]
        succeed = [_SUCCESS] if loaded.implicit else []
        self._fixtures = [*self._added, *scenario_fixtures(), *numbered, *succeed]
        self._models = {name: model for model in loaded.models for name in (model.id, model.canonical_slug)}
        self._counts: OrderedDict[str, Counter[Any]] = OrderedDict()  # by scope, then by what is counted
        self._hits: Counter[int] = Counter()  # by number of fixture or fault, over all scopes

    def reset(self) -> None:
        with self._lock:
            self.epoch += 1
            self._set_up()
            self._due_changed.notify_all()
            self._written.notify_all()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._due_changed.notify_all()
            self._written.notify_all()

    def totals(self) -> dict[str, int]:
        """How much there is, for the health check."""
        fixtures = len(self.fixtures())
        with self._lock:
            return {"jobs": len(self._jobs), "requests": self._seq, "fixtures": fixtures}

    # ---- Clock

    def now(self) -> float:  # with the lock or without: it reads one number
        return self._clock() + self._offset

    def advance(self, seconds: float) -> float:
        with self._lock:
            self._offset += seconds
            self._due_changed.notify_all()
            return self.now()

    # ---- Fixtures and models

    def reload_if_edited(self) -> str | None:
        """Take an edited fixture file over, counters starting anew; the reason if it has become invalid."""
        stamps, reason = self.loaded.stamps, None
        fresh = {path: _stamp(path) for path in stamps}
        if fresh == stamps:
            return None
        try:
            loaded = load_fixtures(self.config.fixtures, fresh)
        except SetupError as error:
            loaded, reason = self.loaded._replace(stamps=fresh), str(error)
        with self._lock:
            if self.loaded.stamps is not stamps:
                return None  # another request was quicker
            self.loaded = loaded
            if reason is None:
                self._install()
        return reason

    def add_fixtures(self, fixtures: Sequence[Fixture]) -> None:
        """Put these before all others."""
        with self._lock:
            added = [fixture._replace(number=next(self._numbers)) for fixture in fixtures]
            self._added = added + self._added
            self._fixtures = added + self._fixtures

    def fixtures(self) -> list[tuple[Fixture, int]]:
        with self._lock:
            return [(one, self._hits[one.number]) for one in self._fixtures if one is not _SUCCESS]

    def listed_model(self, model_id: str) -> Model | None:
        """The model of this id, canonical slug, or id with a date."""
        return self._models.get(model_id) or self._models.get(_undated(model_id))

    def find_model(self, model_id: str) -> Model | None:
        """The listed model; else, where no catalogue is enforced or a fixture names it, one that takes everything."""
        listed = self.listed_model(model_id)
        if listed is not None or not 0 < len(model_id) <= 256:
            return listed
        named = {fixture.match.model for fixture in self._fixtures}
        if self.loaded.enforced and not named & {model_id, _undated(model_id)}:
            return None
        return Model(model_id, model_id, name=model_id, supported_frame_images=FRAME_TYPES)

    def choose(
        self, wanted: VideoRequest, context: str | None, scope: str, epoch: int
    ) -> tuple[Fixture | None, Fault | None, list[dict[str, Any]]]:
        """The first fixture that takes this submit, the fault that hits it, and the near-misses if none does.

        Counted as a match unless the fault keeps the work from being done, or a reset came since the request did.
        """
        with self._lock:
            counts = self._scope_counts(scope, epoch)
            fault = self._draw_server_fault("submit", counts)
            if fault is not None and fault.prevents:
                return None, fault, []
            for fixture in self._fixtures:
                if fixture.needle in wanted.prompt and not any(differences(fixture, wanted, context, counts)):
                    break
            else:
                return None, fault, self._near_misses(wanted, context, counts)
            if fault is None and fixture.submit_faults:
                fault = _draw("submit", fixture.submit_faults, counts, fixture.number)
                if fault is not None and fault.prevents:
                    return fixture, fault, []
            counts[fixture.number] += 1
            counts[fixture.group] += 1
            self._hits[fixture.number] += 1
            return fixture, fault, []

    def _near_misses(
        self, wanted: VideoRequest, context: str | None, counts: Counter[Any]
    ) -> list[dict[str, Any]]:  # self._lock is held
        def closeness(miss: tuple[Fixture, list[Difference]]) -> tuple[bool, int, int]:
            fixture, missed = miss  # scenarios last, then by how few criteria failed and how many held
            return fixture.number < 0, len(missed), -len(fixture.source["match"])

        meant = [one for one in self._fixtures if one.number >= 0 or "mock:" in wanted.prompt]
        misses = [(one, list(differences(one, wanted, context, counts))) for one in meant]
        return [near_miss_to_wire(*miss) for miss in sorted(misses, key=closeness)[:3]]

    def _scope_counts(self, scope: str, epoch: int) -> Counter[Any]:  # self._lock is held
        counts = self._counts.get(scope) if epoch == self.epoch else Counter()
        if counts is None:
            counts = self._counts[scope] = Counter()
            if len(self._counts) > _MAX_SCOPES:
                self._counts.popitem(last=False)
        return counts

    # ---- Faults

    def add_faults(self, faults: Sequence[tuple[Fault, dict[str, Any]]]) -> None:
        """Inject these as well; they strike before those of fixtures, in the order in which they came."""
        with self._lock:
            self._faults = self._faults + [(next(self._numbers), fault, source) for fault, source in faults]

    def faults(self) -> list[tuple[dict[str, Any], int]]:
        with self._lock:
            return [(source, self._hits[number]) for number, _, source in self._faults]

    def clear_faults(self) -> None:
        with self._lock:
            self._faults = []

    def draw_fault(self, on: str, scope: Callable[[], str], epoch: int, job_id: str = "") -> Fault | None:
        """The fault that hits this request: one of the server's, else one of the job's own; none if it is unknown."""
        with self._lock:
            job = self._jobs.get(job_id) or self._unannounced.get(job_id)
            if job_id and not job and on != "webhook":
                return None
            fault = self._draw_server_fault(on, self._scope_counts(scope(), epoch)) if self._faults else None
            if fault is None and job and job.plan.faults:
                counts = Counter(job.fault_counts)
                fault = _draw(on, job.plan.faults, counts)
                self._put(job._replace(fault_counts=counts))
            return fault

    def _draw_server_fault(self, on: str, counts: Counter[Any]) -> Fault | None:  # self._lock is held
        for number, fault, _ in self._faults:
            if _draw(on, (fault,), counts, number):
                self._hits[number] += 1
                return fault
        return None

    # ---- Jobs

    def add_job(self, job: Job, epoch: int) -> Job:
        """Keep the job, with its id, birth time and, where the clock alone decides, its end.

        A job whose request came before a reset is answered and not kept.
        """
        with self._lock:
            now, ends_at = self.now(), math.inf
            if job.ending in TERMINAL and job.pace.unit == "seconds":
                ends_at = now + job.pace.pending + job.pace.in_progress
            elif job.ending in TERMINAL and job.callback_url:
                ends_at = now + _SELF_END_SECONDS
            # gen-vid-<unix seconds>-<20 letters and digits>, as recorded
            job_id = f"gen-vid-{int(now)}-{os.urandom(20).translate(_ID_LETTERS).decode()}"
            job = job._replace(id=job_id, created_at=now, ends_at=ends_at)
            if epoch != self.epoch:
                return job
            self._jobs[job_id] = job
            if len(self._jobs) > self.config.max_jobs:
                _, oldest = self._jobs.popitem(last=False)
                if status_at(oldest, now) is Status.COMPLETED:
                    self._spent[oldest.key] = self._spent.get(oldest.key, 0) + oldest.cost
                if len(self._spent) > _MAX_SCOPES:  # of so many keys only the sum is remembered
                    forgotten = self._spent.pop(next(iter(self._spent)))
                    self._spent[""] = self._spent.get("", 0) + forgotten
            if ends_at < math.inf:
                self._put(job, ends_anew=True)
            return job

    def _put(self, job: Job, ends_anew: bool = False) -> None:  # self._lock is held
        announced = ends_anew and job.callback_url
        if job.id in self._jobs:
            self._jobs[job.id] = job
        if announced or job.id in self._unannounced:
            self._unannounced[job.id] = job
        if announced:
            if len(self._unannounced) > max(self.config.max_jobs, _MAX_SCOPES):
                self._unannounced.popitem(last=False)
            heapq.heappush(self._ends, (job.ends_at, job.id))
            self._due_changed.notify_all()

    def _find(self, job_id: str, or_latest: bool) -> Job:  # self._lock is held
        latest = or_latest and job_id == "latest"
        job = next(reversed(self._jobs.values()), None) if latest else self._jobs.get(job_id)
        if job is None:
            raise ApiError(404, f"Job {job_id} not found")
        return job

    def job(self, job_id: str, or_latest: bool = True) -> tuple[Job, float]:
        """The job of this id, or the "latest", and the time; looking is no poll.  ApiError 404 for none."""
        with self._lock:
            return self._find(job_id, or_latest), self.now()

    def poll(self, job_id: str) -> tuple[Job, float]:
        """The job after one more poll, which may end it, and the time of it; ApiError 404 for none."""
        with self._lock:
            before, now = self._find(job_id, False), self.now()
            pace, polls, ends_at = before.pace, before.polls + 1, before.ends_at
            if pace.unit == "polls" and before.ending in TERMINAL and polls > pace.pending + pace.in_progress:
                ends_at = min(now, ends_at)
            job = Job(*before[:-2], ends_at, polls)  # `_replace` costs three times as much
            self._put(job, ends_anew=ends_at != before.ends_at)
            return job, now

    def jobs(self) -> tuple[list[Job], float]:
        with self._lock:
            return list(reversed(self._jobs.values())), self.now()

    def finish(self, job_id: str, status: Status, error: str | None) -> tuple[Job, float]:
        with self._lock:
            job, now = self._find(job_id, True), self.now()
            current = status_at(job, now)
            if current not in TERMINAL:
                error = error or (job.error if status is job.ending else ENDING_ERRORS.get(status))
                job = job._replace(ending=status, error=error, ends_at=now)
                self._put(job, ends_anew=True)
            elif current is not status:
                raise ApiError(409, f"Job {job.id} has ended already: it is {current.value}")
            return job, now

    def spent(self, key: str | None = None) -> float:
        """USD that completed jobs cost, of one key or of all."""
        with self._lock:
            now = self.now()
            mine = (job for job in self._jobs.values() if key in (None, job.key))
            gone = self._spent.values() if key is None else [self._spent.get(key, 0)]
            return js_number(sum(gone) + sum(j.cost for j in mine if status_at(j, now) is Status.COMPLETED))

    # ---- Journal

    def record(self, request: Request) -> None:
        """Write a request down, unless a reset came since it began."""
        if len(body := request.body) > 4096:
            with contextlib.suppress(ValueError):
                body = to_json(shorten(parse_json(body)))
            if len(body) > 4 * _LONGEST_TEXT:
                body = body[:_LONGEST_TEXT] + "… (cut)".encode()
            request = request._replace(body=body)
        note = request.note
        with self._lock:
            if note.epoch == self.epoch and self.config.max_requests:
                self._seq += 1
                note.seq, note.time = self._seq, self.now()
                self._journal.append(request)
                self._written.notify_all()

    def requests(self, wanted: Callable[[Request], bool], count: int = 1, wait: float = 0) -> list[Request]:
        """Wanted ones, oldest first; blocks up to `wait` real seconds for `count` of them."""
        epoch, found, checked = -1, 0, 0

        def enough() -> bool:
            nonlocal epoch, found, checked
            if epoch != self.epoch:
                epoch, found, checked = self.epoch, 0, 0
            for request in reversed(self._journal):  # only what is new: many may be waiting
                if request.note.seq <= checked:
                    break
                found += wanted(request)
            checked = self._seq
            return found >= count or self._closed

        with self._lock:
            self._written.wait_for(enough, wait)
            return list(filter(wanted, self._journal))

    def webhooks(self, job_id: str | None, count: int = 1, wait: float = 0) -> list[Delivery]:
        """Deliveries, oldest first; blocks up to `wait` real seconds until `count` of them are done."""

        def found() -> list[Delivery]:
            return [d for d in self._deliveries.values() if job_id in (None, d.job.id)]

        with self._lock:
            self._written.wait_for(
                lambda: self._closed or sum(d.state != "pending" for d in found()) >= count, wait
            )
            return found()

    # ---- Deliveries

    def next_delivery(self) -> Delivery | None:
        """Block until a webhook is due and its receiver is free; None once the mock stops."""
        with self._lock:
            while not self._closed:
                now = self.now()
                while self._ends and self._ends[0][0] <= now:
                    job = self._unannounced.pop(heapq.heappop(self._ends)[1], None)
                    for delivery in deliveries_of(job, self.config) if job else ():
                        self._add_delivery(delivery._replace(number=next(self._numbers)))
                due, receiver = min(self._free_receivers(), default=(math.inf, ""))
                if due <= now:
                    _, number = heapq.heappop(self._outbox[receiver])
                    if not self._outbox[receiver]:
                        del self._outbox[receiver]
                    self._in_flight[receiver] += 1
                    return self._deliveries[number]
                due = min(due, self._ends[0][0] if self._ends else math.inf)
                self._due_changed.wait(min(due - now, 3600))
            return None

    def _free_receivers(self) -> Iterator[tuple[float, str]]:  # self._lock is held
        total = sum(self._in_flight.values())
        for receiver, heap in self._outbox.items() if total < MAX_IN_FLIGHT else ():
            mine = self._in_flight[receiver]
            if not mine or (mine < 2 and total < MAX_IN_FLIGHT // 2):  # dead ones leave room for others
                yield heap[0][0], receiver

    def _add_delivery(self, delivery: Delivery) -> None:  # self._lock is held
        self._deliveries[delivery.number] = delivery
        if delivery.state == "pending":
            heap = self._outbox.setdefault(delivery.receiver, [])
            heapq.heappush(heap, (delivery.due_at, delivery.number))
        else:
            self._done.append(delivery.number)
        if len(self._done) > _MAX_DELIVERIES:
            self._deliveries.pop(self._done.popleft(), None)
        self._written.notify_all()

    def attempted(self, delivery: Delivery) -> None:
        """Take an attempt's outcome: written down, and sent again while it is pending."""
        with self._lock:
            self._in_flight -= Counter([delivery.receiver])  # which drops a receiver that has none left
            if delivery.number in self._deliveries:  # a reset forgets it
                self._add_delivery(delivery)
            self._due_changed.notify_all()


def _draw(on: str, faults: Sequence[Fault], counts: Counter[Any], number: int = 0) -> Fault | None:
    for index, fault in enumerate(faults):
        if fault.on == on:
            key = ("fault", number, index)
            struck, counts[key] = fault.strikes(counts[key])
            if struck:
                return fault
    return None


def _undated(model_id: str) -> str:
    return model_id[:-9] if re.fullmatch("-[0-9]{8}", model_id[-9:]) else model_id


# ============ 6. Test card: an MP4 writer ====================================================================
#
# A clip in the shape that was asked for: colour bars, a panel with a running clock and the prompt, a progress bar,
# a beep each second.  H.264 constrained baseline (ITU-T H.264, clauses named below), AAC-LC (ISO 14496-3) and MP4
# boxes (ISO 14496-12, -14, -15), written so that a reader can follow with these at hand.
#
# The idea: a picture is a canvas of flat 16x16 macroblocks.  Each is coded as Intra_16x16 predicted from the one
# above, plus one DC coefficient per colour plane.  At luma QP 28 and chroma QP 22 the DC level *is* the difference
# of the sample values, exactly, so every decoder shows the same pixels; an unchanged macroblock costs a byte or,
# in a later picture, nothing.

FPS = 24
MAX_CLIP_SECONDS = 300  # a longer request gets this much
_MAX_MACROBLOCKS = 138_000  # more than 8K; level 6.2 holds 139,264, and sizes are rounded up to whole ones
_SAMPLE_RATE = 48_000
_AAC_FRAME = 1024  # samples

Colour = tuple[int, int, int]  # Y, Cb, Cr
Tags = Mapping[bytes, str]  # nam, ART, cmt ... to their texts

_WHITE, _PANEL, _GREY = (235, 128, 128), (28, 128, 128), (90, 128, 128)

# 3x5 dots a letter, one octal digit a row.
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:.,-'!?/+()_\"=#"
_DOTS = _words(
    "25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 57755 65555 25552 65644 25563 "
    "65655 34216 72222 55557 55552 55775 55255 55222 71247 75557 26227 71747 71317 55711 74717 74757 71122 "
    "75757 75717 02020 00002 00024 00700 22000 22202 71202 11244 02720 12221 42224 00007 55000 07070 57575"
)
_GLYPHS = dict(zip(_LETTERS, _DOTS, strict=True))


def ue(number: int) -> str:
    """Unsigned Exp-Golomb code (9.1) as a string of bits."""
    bits = f"{number + 1:b}"
    return "0" * (len(bits) - 1) + bits


def nal(header: int, bits: str) -> bytes:
    """A NAL unit (7.3.1): header byte, payload with stop bit, emulation prevention."""
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    payload = bytes([header]) + int(bits, 2).to_bytes(len(bits) // 8, "big")
    return re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)


# level_idc, macroblocks per second, macroblocks per picture (table A-1)
_LEVELS = (
    (20, 11880, 396), (21, 19800, 792), (22, 20250, 1620), (30, 40500, 1620), (31, 108000, 3600),
    (32, 216000, 5120), (40, 245760, 8192), (42, 522240, 8704), (50, 589824, 22080), (51, 983040, 36864),
    (52, 2073600, 36864), (60, 4177920, 139264), (61, 8355840, 139264), (62, 16711680, 139264),
)  # fmt: skip


def sps(width: int, height: int) -> bytes:
    """Sequence parameter set (7.3.2.1) of constrained baseline; the size is exact by cropping."""
    cols, rows = -(-width // 16), -(-height // 16)
    levels = (  # the first that holds the clip; A.3.1 bounds each side too
        level
        for level, per_second, per_picture in _LEVELS
        if cols * rows <= min(per_picture, per_second // FPS) and max(cols, rows) ** 2 <= 8 * per_picture
    )
    return nal(
        0x67,
        f"{66:08b}{0xC0:08b}{next(levels, 62):08b}"  # baseline, constraint sets 0 and 1
        + ue(0) + ue(0)  # seq_parameter_set_id, frame_num has 4 bits
        + ue(2)  # pic_order_cnt_type: output order is decoding order
        + ue(1) + "0"  # max_num_ref_frames, no gaps in frame_num
        + ue(cols - 1) + ue(rows - 1) + "11"  # frames only, direct_8x8_inference
        + "1" + ue(0) + ue((16 * cols - width) // 2) + ue(0) + ue((16 * rows - height) // 2)  # crop, in 2 pixels
        + "1" "1" f"{1:08b}"  # VUI; aspect_ratio_idc 1: square pixels
        "0"  # overscan
        "1" "101" "0" "1" + f"{1:08b}" * 3 +  # video signal: format 5, limited range, BT.709 three times
        "00000"  # chroma location, timing (the MP4 has it), two HRDs, pic_struct
        "1" "1" + ue(0) + ue(0) + ue(15) + ue(15) + ue(0) + ue(1)  # bitstream restriction: no reordering
    )  # fmt: skip


# Picture parameter set (7.3.2.2): CAVLC, QP 28, chroma QP offset -6, deblocking under each slice's control.
PPS = nal(0x68, ue(0) + ue(0) + "00" + ue(0) + ue(0) + ue(0) + "000" + ue(3) + ue(0) + ue(12) + "100")


def residual(level: int, chroma: bool) -> str:
    """residual_block_cavlc (7.3.5.3.2, 9.2) of a block with no level but the DC one; nC is 0, of chroma -1."""
    if level == 0:
        return "01" if chroma else "1"
    if abs(level) == 1:
        return ("1" if chroma else "01") + ("0" if level > 0 else "1") + "1"
    code = 2 * abs(level) - 4 + (level < 0)
    if code < 14:
        suffix = "0" * code + "1"
    elif code < 30:
        suffix = "0" * 14 + f"1{code - 14:04b}"
    else:
        suffix = "0" * 15 + f"1{code - 30:012b}"
    return ("000111" if chroma else "000101") + suffix + "1"


@functools.lru_cache(maxsize=4096)
def macroblock(colour: Colour, predicted: Colour, in_p_slice: bool, top_row: bool) -> str:
    """macroblock_layer (7.3.5) as Intra_16x16: DC prediction in the top row, vertical below."""
    y, cb, cr = (new - old for new, old in zip(colour, predicted, strict=True))
    chroma = residual(cb, True) + residual(cr, True) if cb or cr else ""
    mode, chroma_mode = (2, 0) if top_row else (0, 2)
    mb_type = 1 + mode + (4 if chroma else 0) + 5 * in_p_slice
    return ue(mb_type) + ue(chroma_mode) + "1" + residual(y, False) + chroma  # the 1: no QP delta


def idr_picture(canvas: Sequence[Colour], cols: int) -> bytes:
    """The first picture whole, as one I slice."""
    # ..., frame_num, idr_pic_id, ..., QP, no deblocking
    bits = [ue(0) + ue(7) + ue(0) + "0000" + ue(0) + "00" + "1" + ue(1)]
    left: Colour = (128, 128, 128)
    for colour in canvas[:cols]:
        bits.append(macroblock(colour, left, False, True))
        left = colour
    same = macroblock(left, left, False, False) * cols
    for start in range(cols, len(canvas), cols):
        row, above = canvas[start : start + cols], canvas[start - cols : start]
        if row == above:
            bits.append(same)
        else:
            bits += [macroblock(new, old, False, False) for new, old in zip(row, above, strict=True)]
    return nal(0x65, "".join(bits))


def p_picture(number: int, canvas: list[Colour], changes: Mapping[int, Colour], cols: int) -> bytes:
    """The picture `number` after the first: these places, none in the top row, change on the canvas."""
    # ..., frame_num, lists, QP, no deblocking
    bits = [ue(0) + ue(5) + ue(0) + f"{number % 16:04b}" + "000" + "1" + ue(1)]
    at = 0
    for place in sorted(changes):
        canvas[place] = changes[place]
        bits.append(ue(place - at) + macroblock(changes[place], canvas[place - cols], True, False))
        at = place + 1
    if at < len(canvas):
        bits.append(ue(len(canvas) - at))
    return nal(0x41, "".join(bits))


def write_text(text: str, line: int, dot: int, cols: int) -> set[int]:
    """The places on the canvas that this line of the panel covers, `dot` macroblocks a dot."""
    places: set[int] = set()
    for index, letter in enumerate(text):
        for at, bit in enumerate(f"{int(_GLYPHS.get(letter, '0'), 8):015b}"):
            if bit == "1":
                x, y = 1 + (4 * index + at % 3) * dot, 1 + (6 * line + 1 + at // 3) * dot
                places.update((y + dy) * cols + x + dx for dy in range(dot) for dx in range(dot))
    return places


def pictures(width: int, height: int, seconds: int, seed: str, text: str) -> Iterator[bytes]:
    """The NAL unit of each picture: bars in the seed's colours, the text, a clock, a progress bar."""
    cols, rows = -(-width // 16), -(-height // 16)
    turn = int(hashlib.sha256(seed.encode("utf-8", "replace")).hexdigest()[:8], 16) / 2**32 * math.tau
    hues = [turn + i * math.tau / 8 for i in range(8)]
    chroma = [(128 + round(60 * math.cos(hue)), 128 + round(60 * math.sin(hue))) for hue in hues]
    bars = [(180 - 14 * i, cb, cr) for i, (cb, cr) in enumerate(chroma)]
    canvas: list[Colour] = [bars[x * 8 // cols] for x in range(cols)] * rows

    dot = max(1, cols // 60)
    letters = (cols - 2) // (4 * dot)
    bar_start = rows - 1 - dot if rows > 3 * dot + 2 else rows
    free = bar_start - 1 - 7 * dot  # rows below the clock
    clocks: list[set[int]] = []
    if letters >= 4 and free >= 0:
        import textwrap  # half as costly as a small clip, so not paid for at the start

        lines = ["0:00", *textwrap.wrap(text.upper(), letters)[: min(3, free // (6 * dot))]]
        panel = cols * (1 + dot * (1 + 6 * len(lines)))
        canvas[:panel] = [_PANEL] * panel
        for index, line in enumerate(lines):
            for place in write_text(line, index, dot, cols):
                canvas[place] = _WHITE
        clocks = [write_text(f"{at // 60}:{at % 60:02}", 0, dot, cols) for at in range(seconds)]
    bar_rows = range(bar_start, rows - 1)
    for y in bar_rows:
        canvas[y * cols : (y + 1) * cols] = [_GREY] * cols

    yield idr_picture(canvas, cols)
    last = seconds * FPS - 1
    for number in range(1, last + 1):
        columns = range(cols * (number - 1) // last, cols * number // last)
        # In the colour above: a byte each.
        changes: dict[int, Colour] = {y * cols + x: bars[x * 8 // cols] for y in bar_rows for x in columns}
        if clocks and number % FPS == 0:
            old, new = clocks[number // FPS - 1 : number // FPS + 1]
            changes |= dict.fromkeys(old - new, _PANEL) | dict.fromkeys(new - old, _WHITE)
        yield p_picture(number, canvas, changes, cols)


def box(kind: bytes, *parts: bytes | int) -> bytes:
    """A box (ISO 14496-12, 4.2): size, type, parts; a number is a 32-bit word, such as version and flags."""
    body = b"".join([part if isinstance(part, bytes) else part.to_bytes(4, "big") for part in parts])
    return (8 + len(body)).to_bytes(4, "big") + kind + body


_TIMESCALE = FPS * 1000  # of movie and pictures: a picture lasts 1000 ticks
_MATRIX = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # no rotation, no scaling
_DINF = box(b"dinf", box(b"dref", 0, 1, box(b"url ", 1)))  # flag 1: in this file
_TRACKS = {  # number, volume, ticks a second, ticks a sample, media header
    b"vide": (1, 0, _TIMESCALE, 1000, box(b"vmhd", 1, 0, 0)),
    b"soun": (2, 0x1000000, _SAMPLE_RATE, _AAC_FRAME, box(b"smhd", 0, 0)),
}

# raw_data_block (ISO 14496-3, 4.4.2): a channel pair of silence, and one with the single MDCT line 18, a sine of
# 422 Hz at -18 dBFS when repeated: max_sfb 5, mid/side, mid gain 188, one quad (0,0,1,0), side silent.
_SILENCE = bytes.fromhex("21 00 00 00 00 1c")
_BEEP = bytes.fromhex("21 01 55 e0 10 42 16 00 02 8e")

# Sample description of AAC-LC: data reference 1, 2 channels of 16 bits; and its elementary stream descriptor
# (ISO 14496-1): ES_ID 0; AAC, audio, buffer, maximal and mean bits a second; AudioSpecificConfig: AAC-LC,
# 48 kHz, two channels.
_ESDS = box(b"esds", 0, bytes.fromhex("03190000 00 04114015 000006 00000900 000008ca 05021190 060102"))
_MP4A = box(b"mp4a", 0, 1, 0, 0, 0x20010, 0, _SAMPLE_RATE << 16, _ESDS)


def avc1(width: int, height: int) -> bytes:
    """Sample description of H.264 (ISO 14496-15): size, 72 dpi, depth 24, parameter sets."""
    sequence = sps(width, height)
    # Lengths of 4 bytes before the NAL units; one SPS and one PPS, each with its 16-bit length.
    lists = b"\xff\xe1\0%c%b\1\0%c%b" % (len(sequence), sequence, len(PPS), PPS)
    avcc = box(b"avcC", b"\1", sequence[1:4], lists)
    size = width << 16 | height
    return box(b"avc1", 0, 1, bytes(16), size, 0x480000, 0x480000, 0, b"\0\1", bytes(32), 0x18FFFF, avcc)


def trak(
    handler: bytes, samples: list[bytes], seconds: int, entry: bytes, size: tuple[int, int], offset: int
) -> bytes:
    """A track: header, and media with sample tables; all samples are one chunk at this offset of the file."""
    number, volume, timescale, sample_ticks, media_header = _TRACKS[handler]
    width, height = size
    count, ticks = len(samples), seconds * timescale
    last_ticks = ticks - (count - 1) * sample_ticks
    runs = [count, last_ticks] if last_ticks == sample_ticks else [count - 1, sample_ticks, 1, last_ticks]
    stbl = box(
        b"stbl",
        box(b"stsd", 0, 1, entry),
        box(b"stts", 0, len(runs) // 2, *runs),
        box(b"stss", 0, 1, 1) if handler == b"vide" else b"",  # without it every picture were a key frame
        box(b"stsc", 0, 1, 1, count, 1),
        box(b"stsz", 0, 0, count, *map(len, samples)),
        box(b"stco", 0, 1, offset),
    )
    mdhd = box(b"mdhd", 0, 0, 0, timescale, ticks, 0x55C40000)  # language und
    hdlr = box(b"hdlr", 0, 0, handler, bytes(13))
    mdia = box(b"mdia", mdhd, hdlr, box(b"minf", media_header, _DINF, stbl))
    place = (3, 0, 0, number, 0, seconds * _TIMESCALE, 0, 0, 0, volume)  # flags 3: enabled and in the movie
    tkhd = box(b"tkhd", *place, *_MATRIX, width << 16, height << 16)
    return box(b"trak", tkhd, mdia)


def draw_test_card(
    width: int, height: int, seconds: int, *, seed: str, text: str, audio: bool, tags: Tags | None = None
) -> bytes:
    """An MP4 of exactly this size in pixels and length in seconds; the same arguments give the same bytes.

    Odd sizes are rounded down to even ones, as 4:2:0 needs; what no H.264 level holds is scaled down.
    """
    shrink = math.sqrt(max(1, width * height / 256 / _MAX_MACROBLOCKS, max(width, height) ** 2 / 16800**2))
    width, height = (max(2, int(side / shrink) // 2 * 2) for side in (width, height))
    seconds = max(1, min(seconds, MAX_CLIP_SECONDS))
    video = [len(unit).to_bytes(4, "big") + unit for unit in pictures(width, height, seconds, seed, text)]
    aac_frames = range(0, seconds * _SAMPLE_RATE if audio else 0, _AAC_FRAME)  # a tenth of each second beeps
    sound = [_BEEP if at % _SAMPLE_RATE < _SAMPLE_RATE // 10 else _SILENCE for at in aac_frames]
    media = b"".join(video)
    entry = avc1(width, height)
    form = (0x10000, 0x1000000, 0, 0, *_MATRIX)  # rate 1.0, volume 1.0
    mvhd = box(b"mvhd", 0, 0, 0, _TIMESCALE, seconds * _TIMESCALE, *form, bytes(24), 3)  # next track 3
    # Tags in the manner of iTunes, which is what players show.
    named = [(b"\xa9" + name, value.encode("utf-8", "replace")) for name, value in (tags or {}).items()]
    ilst = box(b"ilst", *[box(kind, box(b"data", 1, 0, value)) for kind, value in named])
    hdlr = box(b"hdlr", 0, 0, b"mdirappl", bytes(9))
    udta = box(b"udta", box(b"meta", 0, hdlr, ilst))

    def moov(start: int) -> bytes:
        traks = [trak(b"vide", video, seconds, entry, (width, height), start)]
        if sound:
            traks.append(trak(b"soun", sound, seconds, _MP4A, (0, 0), start + len(media)))
        return box(b"moov", mvhd, *traks, udta)

    ftyp = box(b"ftyp", b"isom", 512, b"isomiso2avc1mp41")
    start = len(ftyp) + len(moov(0)) + 8  # moov is as long whatever the offsets are
    return b"".join([ftyp, moov(start), box(b"mdat", media, *sound)])


def clip_of(job: Job, index: int) -> bytes | Path:
    """What output `index` of a job is downloaded as: the fixture's file or bytes, else a test card in its shape.

    A request with a seed gets the same bytes again; without one the colours, and the title, are the job's own.
    """
    if job.plan.clip:
        return job.plan.clip
    wanted, model = job.wanted, job.model
    name = job.id if wanted.seed is None else f"seed {wanted.seed}"
    if job.plan.outputs > 1:
        name += f" ({index + 1} of {job.plan.outputs})"
    return draw_test_card(
        *output_size(wanted.shape, model),
        duration_of(wanted.shape, model),
        seed=name,
        text=wanted.prompt,
        audio=has_audio(wanted.shape, model),
        tags={b"nam": name, b"ART": wanted.model, b"cmt": wanted.prompt},
    )


# ============ 7. Webhooks: event, signature, delivery ========================================================
#
# docs: cookbook/video-generation-webhooks, read 2026-08, and one live capture.  What is not known, and so the mock's
# own: BACKOFF, the timeout, that redirects are not followed, that a test run reaches nobody outside by accident.

BACKOFF = (1.0, 2.0, 4.0, 8.0)  # seconds on the mock's clock between the attempts of a delivery
WEBHOOK_TIMEOUT_SECONDS = 10.0  # real ones, for a whole attempt
MAX_IN_FLIGHT = 8  # attempts at once, two to one receiver and one once half are taken
_ANSWER = rb"(?:HTTP/1\.[01] 1.*?\r?\n\r?\n)*HTTP/1\.[01] ([2-9]\d\d).*\n"


class Delivery(NamedTuple):
    """One webhook on its way: what is sent, when next, and what became of the attempts so far."""

    job: Job
    url: str
    receiver: str  # "host:port"
    body: bytes
    due_at: float
    state: str = "pending"  # pending, delivered, failed, refused
    reason: str | None = None  # of a refusal or failure
    headers: dict[str, str] = {}  # of the latest attempt
    attempts: tuple[dict[str, Any], ...] = ()
    held: Fault | None = None  # a fault that delays this attempt and strikes when it is due
    number: int = 0


def _webhook_event(job: Job) -> bytes:
    outcome: dict[str, Any] = {"error": job.error}
    if job.ending is Status.COMPLETED:
        outcome = {"unsigned_urls": unsigned_urls(job, Links(job.origin)), "usage": usage_to_wire(job)}
    status = job.ending.value
    data = {"id": job.id, "status": status, "generation_id": job.id, "model": job.wanted.model, **outcome}
    return to_json({"type": f"video.generation.{status}", "created_at": iso_time(job.ends_at), "data": data})


def iso_time(at: float) -> str:
    """2026-04-24T12:00:00.000Z"""
    seconds, milliseconds = divmod(round(at * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03}Z"


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """X-OpenRouter-Signature: HMAC-SHA256 over "<t>,<body>"; a comma, unlike Stripe's dot."""
    digest = hmac.new(secret.encode(), f"{timestamp},".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def _webhook_headers(delivery: Delivery, secret: str) -> dict[str, str]:
    job, signature = delivery.job, delivery.job.plan.webhook.signature
    key = f"{job.id}-{job.ending.value}"
    headers = {"Content-Type": "application/json", "X-OpenRouter-Idempotency-Key": key}
    if secret and signature != "none":
        timestamp = int(time.time())  # real time: receivers compare it with their own clock
        timestamp -= 600 if signature == "stale" else 0  # they refuse more than 300 s
        secret = f"not {secret}" if signature == "bad" else secret
        headers["X-OpenRouter-Signature"] = sign(secret, timestamp, delivery.body)
    return headers


def may_deliver(url: str, callback_hosts: Sequence[str]) -> bool:
    """Whether webhooks may go there: loopback, or a host that --callback-host names."""
    host = urlsplit(url).hostname or ""
    if host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host):
        return True
    return "*" in callback_hosts or host in {name.lower() for name in callback_hosts}


def deliveries_of(job: Job, config: Config) -> list[Delivery]:
    """What has to be sent for a job that has ended: one delivery, or as many as its fixture says."""
    assert job.callback_url
    parts, webhook = urlsplit(job.callback_url), job.plan.webhook
    receiver, due_at = f"{parts.hostname}:{parts.port or parts.scheme}", job.ends_at + webhook.delay
    first = Delivery(job, job.callback_url, receiver, _webhook_event(job), due_at)
    if not may_deliver(job.callback_url, config.callback_host):
        reason = f"{parts.hostname} is not loopback; allow it with --callback-host {parts.hostname}"
        return [first._replace(state="refused", reason=reason)]
    return [first._replace(due_at=due_at + i) for i in range(webhook.times)]


def _after_attempt(delivery: Delivery, started: float, now: float, outcome: dict[str, Any]) -> Delivery:
    attempts = (*delivery.attempts, {"at": round(now, 3), **outcome})
    delivery = delivery._replace(attempts=attempts, held=None)
    if 200 <= outcome.get("status", 0) < 300 and "error" not in outcome:
        return delivery._replace(state="delivered")
    if len(attempts) > len(BACKOFF):
        return delivery._replace(state="failed", reason=f"no success in {len(attempts)} attempts")
    # Reckoned from when it was due, so that one jump of the clock brings all attempts that fall within it.
    return delivery._replace(due_at=delivery.due_at + (now - started) + BACKOFF[len(attempts) - 1])


class Threads:
    """Threads of one name, known while they run, so that a stop can wait for them."""

    def __init__(self, name: str, on_error: Callable[[BaseException], None]) -> None:
        self._name, self._on_error = name, on_error
        self._lock = threading.Lock()  # guards the list
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[..., None], *args: Any) -> bool:
        """Have this done in a thread of its own; False if there is none to be had."""
        thread = threading.Thread(target=self._run, args=(work, *args), name=self._name, daemon=True)
        with self._lock:
            self._threads = [other for other in self._threads if other.is_alive()]
            try:
                thread.start()
            except RuntimeError:
                return False
            self._threads.append(thread)
            return True

    def _run(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except Exception as error:
            self._on_error(error)

    def join(self) -> None:
        """Wait for all, also for those that one of them starts meanwhile; for five seconds at most."""
        end = time.monotonic() + 5
        while (alive := [thread for thread in self._threads if thread.is_alive()]) and time.monotonic() < end:
            alive[0].join(end - time.monotonic())


class Courier:
    """Delivers webhooks: one thread that waits for what is due, and one per attempt, at most MAX_IN_FLIGHT."""

    def __init__(self, store: Store, secret: str, on_error: Callable[[BaseException], None]) -> None:
        self._store, self._secret = store, secret
        self._starting = threading.Lock()  # guards the start: the thread is there once a job has a callback
        self._threads = Threads("webhooks", on_error)
        self._started = False
        self._sockets: set[socket.socket] = set()  # of attempts under way; `stop` ends them
        self._stopped = False

    def wake(self) -> None:
        """Start, unless started already."""
        with self._starting:
            if not self._started and not self._stopped:
                self._started = self._threads.start(self._run)

    def _run(self) -> None:
        while (delivery := self._store.next_delivery()) is not None:
            if not self._threads.start(self._attempt, delivery):
                self._attempt(delivery)

    def _attempt(self, delivery: Delivery) -> None:
        store, job, fault = self._store, delivery.job, delivery.held
        if fault is None:
            fault = store.draw_fault("webhook", lambda: job.scope, store.epoch, job.id) or Fault("webhook")
            if fault.delay:
                store.attempted(delivery._replace(held=fault, due_at=delivery.due_at + fault.delay))
                return
        headers, started = _webhook_headers(delivery, self._secret), store.now()
        outcome: dict[str, Any] = {"fault": fault.label} if fault.label else {}
        if fault.status is not None:
            outcome["status"] = fault.status
        elif fault.close:
            outcome["error"] = "not sent"
        else:
            body = (b'{"malformed' if fault.malformed else delivery.body)[: fault.truncate]
            try:
                outcome["status"] = self._send(delivery.url, body, headers)
            except (OSError, ValueError, http.client.HTTPException) as error:
                outcome["error"] = f"{type(error).__name__}: {error}"
            if fault.lost:
                outcome["error"] = "answer lost"
        store.attempted(_after_attempt(delivery._replace(headers=headers), started, store.now(), outcome))

    def _send(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """POST, and the status of the answer, within WEBHOOK_TIMEOUT_SECONDS however slowly it comes."""
        parts = urlsplit(url)
        secure, host = parts.scheme == "https", parts.hostname or ""
        port = parts.port or (443 if secure else 80)
        deadline = time.monotonic() + WEBHOOK_TIMEOUT_SECONDS
        sock = socket.create_connection((host, port), WEBHOOK_TIMEOUT_SECONDS)
        if secure:
            context = ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        self._sockets.add(sock)
        try:
            if self._stopped:
                raise ConnectionError("the mock stops")
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            connection = http.client.HTTPConnection(host, port)
            connection.sock = sock
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", path, body, {**headers, "Connection": "close"})
            return self._read_status(sock, deadline)
        finally:
            self._sockets.discard(sock)
            sock.close()

    @staticmethod
    def _read_status(sock: socket.socket, deadline: float) -> int:
        answer = b""
        while not (match := re.match(_ANSWER, answer, re.DOTALL)):
            if len(answer) > 65536 or (b"\n" in answer and not answer.startswith(b"HTTP/1.")):
                raise ValueError("no HTTP answer")
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            part = sock.recv(65536)
            if not part:
                raise ConnectionError("closed without an answer")
            answer += part
        with contextlib.suppress(OSError):  # let the receiver finish its answer: it may be slower than this
            sock.settimeout(0.2)
            while sock.recv(65536) and time.monotonic() < deadline:
                pass
        return int(match[1])

    def stop(self) -> None:
        """End what is under way; the store has been closed before."""
        with self._starting:
            self._stopped = True
        for sock in list(self._sockets):
            shut_down(sock)
        self._threads.join()


def shut_down(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """End a socket's reading, writing or both, whoever may be blocked in it."""
    with contextlib.suppress(OSError):  # gone already
        sock.shutdown(how)


# ============ 8. Requests and responses ======================================================================
#
# What passes between the adapter and the handlers: bytes on the one side, no socket on the other.


class Request(NamedTuple):
    """One HTTP request.  Header names are lower-case; the body is whole and decoded."""

    method: str
    path: str  # as sent, percent-encoding included
    query: str
    headers: Mapping[str, str]
    body: bytes
    note: Note
    refusal: ApiError | None = None  # the adapter's: the body, and maybe the head, could not be read

    @property
    def url(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def parameters(self) -> dict[str, str]:
        """The query, decoded; the last of several values."""
        return {name: values[-1] for name, values in parse_qs(self.query, keep_blank_values=True).items()}


class Response(NamedTuple):
    """One HTTP response.  `stream` goes out instead of `body`: chunked, unless `length` tells its bytes."""

    status: int
    body: bytes = b""
    headers: Headers = ()
    stream: Iterator[bytes] | None = None
    length: int | None = None
    truncate: int | None = None  # send this many bytes of the body and close
    dropped: bool = False  # close without an answer


# Recorded on every response below /api/v1.
_API_HEADERS: Headers = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "X-Generation-Id,X-Provider-Name,request-id,cf-ray"),
    ("X-Content-Type-Options", "nosniff"),
)
_JSON: Headers = (("Content-Type", "application/json"),)
_API_JSON = _JSON + _API_HEADERS
_DROPPED = Response(0, dropped=True)
_BLOCK_BYTES = 1 << 20


def json_response(value: Any, status: int = 200, headers: Headers = ()) -> Response:
    """Compact JSON, with the headers of the video API."""
    return Response(status, to_json(value), _API_JSON + headers)


def error_response(error: ApiError, headers: Headers = _API_JSON) -> Response:
    """The error in its envelope."""
    return Response(error.status, to_json(error_to_wire(error)), headers + error.headers)


def clip_response(request: Request, clip: bytes | Path, headers: Headers, ranges: bool) -> Response:
    """A clip as production sends it: whole and chunked; or, for players, with its length and by range."""
    try:
        size = len(clip) if isinstance(clip, bytes) else clip.stat().st_size
    except OSError:
        raise ApiError(502) from None  # the fixture's file has gone since it was read
    mp4: Headers = (("Content-Type", "video/mp4"), *headers)
    if not ranges:
        return Response(200, headers=mp4, stream=_blocks(clip, 0, size))
    mp4 += (("Accept-Ranges", "bytes"),)
    wanted = _parse_range(request.headers.get("range", ""), size)
    start, stop = wanted or (0, size)
    if wanted:
        mp4 += (("Content-Range", f"bytes {start}-{stop - 1}/{size}"),)
    return Response(206 if wanted else 200, b"", mp4, _blocks(clip, start, stop), stop - start)


def _parse_range(header: str, size: int) -> tuple[int, int] | None:
    match = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header.replace(" ", ""))
    first, last = match.groups() if match else ("", "")
    if not (first or last) or (first and last and int(last) < int(first)):
        return None  # the whole is to be sent, as for all that is no single range
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        raise ApiError(416, "Range Not Satisfiable", headers=(("Content-Range", f"bytes */{size}"),))
    return start, stop


def _blocks(clip: bytes | Path, start: int, stop: int) -> Iterator[bytes]:
    with io.BytesIO(clip) if isinstance(clip, bytes) else clip.open("rb") as file:
        file.seek(start)
        while start < stop and (block := file.read(min(_BLOCK_BYTES, stop - start))):
            start += len(block)
            yield block


@functools.lru_cache(maxsize=1024)
def origin_of(host: str, forwarded_host: str, forwarded_proto: str) -> str:
    """The origin that the client used: X-Forwarded-Proto and -Host (first value, if it can be one), else Host."""
    scheme = "https" if forwarded_proto.split(",")[0].strip().lower() == "https" else "http"
    forwarded = forwarded_host.split(",")[0].strip()
    return f"{scheme}://{forwarded if re.fullmatch(_HOST, forwarded) else host}"


@functools.lru_cache(maxsize=1024)
def key_label(api_key: str) -> str:
    """What a key is called wherever it is shown: never by itself."""
    return f"key-{hashlib.sha256(api_key.encode()).hexdigest()[:8]}"


@functools.lru_cache(maxsize=1024)
def bearer_key(authorization: str) -> str | None:
    """The key of an Authorization header, if that is a usable bearer."""
    scheme, _, key = authorization.partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def scope_of(request: Request) -> str:
    """Whose counters a request moves: X-Test-Id, else ?testId=, else its key."""
    name = request.headers.get("x-test-id") or (request.query and request.parameters.get("testId"))
    return name or key_label(bearer_key(request.headers.get("authorization", "")) or "")


# ============ 9. Video API handlers ==========================================================================
#
# Parse, act, render.  A handler takes the mock, the request and its route's path groups; it raises ApiError and never
# builds an error reply.  The order of the checks is the contract's: a refused request uses up nothing.


def require_key(mock: VideoMock, request: Request) -> str:
    """The label of the request's key; 401 in production's three wordings without a valid one."""
    header = request.headers.get("authorization")
    if header is None:
        raise ApiError(401, "No cookie auth credentials found")
    key = bearer_key(header)
    if key is None:
        raise ApiError(401, "Missing Authentication header")
    if mock.config.api_key and key not in mock.config.api_key:
        raise ApiError(401, "User not found.")
    return key_label(key)


def fault_error(fault: Fault, wanted: VideoRequest | None = None, model: Model | None = None) -> ApiError:
    """The refusal that a fixture or fault orders, with what production adds to this status."""
    status, metadata, seconds = fault.status or 500, fault.metadata, fault.retry_after
    limit: Headers = ()
    if status == 403 and metadata is None and wanted and model:
        flagged = {"reasons": ["violence"], "flagged_input": wanted.prompt[:100]}
        metadata = {**flagged, "provider_name": model.provider, "model_slug": model.id}
    if status == 429:
        metadata = {"error_type": "rate_limit_exceeded"} if metadata is None else metadata
        seconds = 1 if seconds is None else seconds
        reset_ms = str(int((time.time() + seconds) * 1000))
        limit = (("X-RateLimit-Limit", "20"), ("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", reset_ms))
    retry = () if seconds is None else (("Retry-After", str(math.ceil(js_number(seconds)))),)
    return ApiError(status, fault.message, metadata, retry + limit)


def with_fault(
    mock: VideoMock,
    request: Request,
    fault: Fault | None,
    work: Callable[[], Response],
    wanted: VideoRequest | None = None,
    model: Model | None = None,
) -> Response:
    """Do the work as the fault lets it be done."""
    if fault is None:
        return work()
    request.note.fault = fault.label
    if fault.delay:
        mock.pause(fault.delay)
    if fault.close:
        return _DROPPED
    try:
        if fault.status is not None:
            raise fault_error(fault, wanted, model)
        response = Response(200, b'{"id": "gen-vid-', _API_JSON) if fault.malformed else work()
    except ApiError as error:
        response = error_response(error)
    return _DROPPED if fault.lost else response._replace(truncate=fault.truncate)


def create_video(mock: VideoMock, request: Request) -> Response:
    """Accept a generation request; answer at once with the job to poll."""
    key = require_key(mock, request)
    wanted = parse_video_request(request.body, mock.config.callback_host)
    mock.reload_fixtures()
    model = mock.store.find_model(wanted.model)
    if model is None:
        raise ApiError(400, f"{shorten(wanted.model)} is not a valid model ID")
    check_references(wanted.body)
    if mock.store.loaded.enforced:
        check_against_catalogue(wanted, model)
    if "previous_job_id" in wanted.body and model in mock.store.loaded.models:
        raise ApiError(400, f"{model.canonical_slug} does not support previous_job_id")
    check_prompt(wanted, model)

    context, scope = request.headers.get("x-aimock-context"), scope_of(request)
    fixture, fault, misses = mock.store.choose(wanted, context, scope, request.note.epoch)
    request.note.fixture = fixture.name or None if fixture else None

    def submit() -> Response:
        if fixture is None:
            raise _no_match_error(request, misses)
        if fixture.refusal is not None:
            raise fault_error(fixture.refusal, wanted, model)
        job = mock.add_job(request, wanted, model, fixture, key, scope)
        request.note.job_id = job.id
        polling_url = mock.links(request).polling_url(job.id)
        return json_response({"id": job.id, "polling_url": polling_url, "status": "pending"}, status=202)

    return with_fault(mock, request, fault, submit, wanted, model)


def _no_match_error(request: Request, misses: list[dict[str, Any]]) -> ApiError:
    strict = request.headers.get("x-aimock-strict", "").lower() in ("true", "1")  # as aimock does
    request.note.closest = misses
    message = "Strict mode: no fixture matched" if strict else "No fixture matched"
    message += f": {describe_miss(misses[0])}" if misses else ""
    return ApiError(503 if strict else 404, message, {"closest": misses})


def describe_miss(miss: dict[str, Any]) -> str:
    """A near-miss in words: 'rainy-cat' wants prompt containing 'rain', got 'a dry cat'."""
    wishes = (f"{d['criterion']} {d['wanted']}, got {d['got']!r}" for d in miss["differences"])
    return f"{miss['fixture']!r} wants {'; '.join(wishes)}"


def get_video(mock: VideoMock, request: Request, job_id: str) -> Response:
    """Poll a job: its status, its URLs and cost once it completed, its error once it failed."""
    require_key(mock, request)

    def poll() -> Response:
        job, now = mock.store.poll(job_id)
        request.note.job_id, request.note.fixture = job_id, job.fixture
        links, status = mock.links(request), status_at(job, now)
        if status in TERMINAL:
            return json_response(job_to_wire(job, now, links))
        return _waiting_response(job_id, links.polling_url(job_id), status)

    return with_fault(mock, request, mock.draw_fault("poll", request, job_id), poll)


@functools.lru_cache(maxsize=1024)  # mostly what the poll before it got
def _waiting_response(job_id: str, polling_url: str, status: Status) -> Response:
    return json_response(waiting_to_wire(job_id, polling_url, status))


def get_video_content(mock: VideoMock, request: Request, job_id: str) -> Response:
    """Download an output: with the key, whole; or by a signed URL, without a key and by range."""
    parameters = request.parameters
    signed = "signature" in parameters
    if not signed:
        require_key(mock, request)
    index = parse_index(parameters.get("index", ""))
    if signed:
        _check_signature(mock, job_id, index, parameters)
    job, now = mock.store.job(job_id, or_latest=False)
    request.note.job_id, request.note.fixture = job_id, job.fixture
    status = status_at(job, now)
    if status is not Status.COMPLETED:
        raise ApiError(409, f"Video content is not available: the job is {status.value}")
    if now >= expires_at(job):
        raise ApiError(410, "Video content is no longer available")
    if index >= job.plan.outputs:
        raise ApiError(400, f"Video index {index} out of range ({job.plan.outputs} videos available)")

    def download() -> Response:
        return clip_response(request, mock.clip(job, index), _API_HEADERS, ranges=signed)

    return with_fault(mock, request, mock.draw_fault("content", request, job_id), download)


def parse_index(text: str) -> int:
    """The query parameter `index`, coerced as JavaScript's Number does for the values that occur."""
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?|", text):
        parts = {"expected": "number", "code": "invalid_type", "received": "NaN"}
        raise SchemaError([_issue(("index",), "Invalid input: expected number, received NaN", **parts)])
    index = float(text or 0)
    if issues := list(_number(whole=True, minimum=0)(index, ("index",))):
        raise SchemaError(issues)
    return int(index)


def _check_signature(mock: VideoMock, job_id: str, index: int, parameters: Mapping[str, str]) -> None:
    expires = parameters.get("expires", "")
    end = int(expires) if re.fullmatch(r"[0-9]{1,12}", expires) else 0
    expected = sign_download(mock.secret, job_id, index, end)
    if not hmac.compare_digest(expected.encode(), parameters["signature"].encode()):
        raise ApiError(403, "Invalid signature")
    if mock.store.now() >= end:
        raise ApiError(403, "Signed URL has expired")


def list_video_models(mock: VideoMock, request: Request) -> Response:
    """List the video models, newest first; no key needed."""
    models = [model.to_wire() for model in mock.store.loaded.models]
    response = json_response({"data": models}, headers=(("Cache-Control", "public, max-age=120"),))
    return with_fault(mock, request, mock.draw_fault("models", request), lambda: response)


def list_models(mock: VideoMock, request: Request) -> Response:
    """List models of all kinds: the video models if asked for by output_modalities=video, none otherwise."""
    wanted = request.parameters.get("output_modalities", "").split(",")
    models = mock.store.loaded.models if {"video", "all"} & set(wanted) else ()
    data = [_model_object(model) for model in models]
    response = json_response({"data": data, "links": {"next": None}, "total_count": len(data)})
    return with_fault(mock, request, mock.draw_fault("models", request), lambda: response)


def _model_object(model: Model) -> dict[str, Any]:
    inputs = ["text"] + (["image"] if model.supported_frame_images else [])
    modalities = {"input_modalities": inputs, "output_modalities": ["video"]}
    shared = ("id", "canonical_slug", "hugging_face_id", "name", "created")
    return {
        **{name: getattr(model, name) for name in shared},
        "description": model.description or "",
        "context_length": 0,
        "architecture": {"modality": f"{'+'.join(inputs)}->video", **modalities, "tokenizer": "Other"},
        "pricing": {"prompt": "0", "completion": "0"},
        "top_provider": {"context_length": None, "max_completion_tokens": None, "is_moderated": False},
        "per_request_limits": None,
        "supported_parameters": ["seed"] if model.seed else [],
        **dict.fromkeys(("default_parameters", "supported_voices")),
        "links": {"details": f"{API}/models/{model.canonical_slug}/endpoints"},
    }


def get_key(mock: VideoMock, request: Request) -> Response:
    """What the key has spent: the cost of its completed jobs."""
    label = require_key(mock, request)
    spent = mock.store.spent(label)
    data = {"label": label, "usage": spent, **dict.fromkeys(("limit", "limit_remaining", "limit_reset"))}
    data |= {"is_free_tier": False, "is_management_key": False, "expires_at": None}
    # The rest is what SDK 1.3.84 insists on.
    data |= dict.fromkeys(("usage_daily", "usage_weekly", "usage_monthly"), spent)
    data |= dict.fromkeys(("byok_usage", "byok_usage_daily", "byok_usage_weekly", "byok_usage_monthly"), 0)
    data |= {"include_byok_in_limit": False, "is_provisioning_key": False}
    data |= dict.fromkeys(("creator_user_id", "organization_id", "workspace_id", "effective_budget"))
    data |= {"budgets": [], "allowed_data_regions": ["global"]}
    data["free_model_daily_requests"] = {"limit": 1000, "remaining": 1000, "used": 0}
    data["rate_limit"] = {"requests": -1, "interval": "10s", "note": "This field is deprecated."}
    return json_response({"data": data})


def get_credits(mock: VideoMock, request: Request) -> Response:
    """What all keys have spent."""
    require_key(mock, request)
    bought = 1_000  # USD; spending them has no effect
    return json_response({"data": {"total_credits": bought, "total_usage": mock.store.spent()}})


# What SDK 1.3.84 insists on and a video has nothing to say about.
_NULL_GENERATION_FIELDS = _words(
    "tokens_prompt tokens_completion native_tokens_prompt native_tokens_completion native_tokens_reasoning "
    "native_tokens_cached native_tokens_completion_images num_media_prompt num_media_completion "
    "num_input_audio_prompt num_search_results num_fetches app_id cache_discount external_user http_referer "
    "moderation_latency preset_id provider_responses router service_tier upstream_id upstream_inference_cost "
    "user_agent web_search_engine workspace_id"
)


def get_generation(mock: VideoMock, request: Request) -> Response:
    """The accounting record of a completed job."""
    require_key(mock, request)
    job_id = request.parameters.get("id", "")
    try:
        job, now = mock.store.job(job_id, or_latest=False)
        if status_at(job, now) is not Status.COMPLETED:
            raise ApiError(404)
    except ApiError:
        raise ApiError(404, f"Generation {job_id} not found") from None
    milliseconds = round((job.ends_at - job.created_at) * 1000)
    data: dict[str, Any] = {"id": job.id, "api_type": "video", "model": job.model.canonical_slug}
    data |= {"created_at": iso_time(job.created_at), "total_cost": job.cost, "usage": job.cost}
    data |= {"generation_time": milliseconds, "latency": milliseconds}
    data |= {"finish_reason": "complete", "native_finish_reason": "complete"}
    data |= {"streamed": False, "cancelled": False, "is_byok": job.plan.is_byok}
    data |= {"provider_name": job.model.provider, "origin": ""}
    return json_response({"data": data | {"data_region": "global", **dict.fromkeys(_NULL_GENERATION_FIELDS)}})


def refuse_chat(mock: VideoMock, request: Request) -> Response:
    """Refuse a video model, and any other, on the chat route: this mock has no chat models."""
    require_key(mock, request)
    try:
        model = parse_json(request.body)["model"]
    except (ValueError, TypeError, LookupError):
        model = None
    if not isinstance(model, str) or mock.store.listed_model(model) is None:
        raise ApiError(400, f"{shorten(model)} is not a valid model ID" if model else "No models provided")
    words = "is a video generation model and cannot be used with the chat/completions endpoint"
    raise ApiError(400, f"`{model}` {words}. Use the `/api/v1/videos` endpoint instead.")


_ALLOWED_HEADERS = _words(
    "Authorization User-Agent X-Api-Key X-CSRF-Token X-Requested-With Accept Accept-Version Content-Length "
    "Content-MD5 Content-Type Date X-Api-Version HTTP-Referer X-Windowai-Title X-Openrouter-Title X-Title "
    "X-Openrouter-Categories X-Openrouter-App-Visibility X-Session-Id Protection-Key Idempotency-Key traceparent "
    "tracestate b3"
)


def answer_preflight(mock: VideoMock, request: Request) -> Response:
    """Let browsers of any origin use the API, as production does."""
    asked = request.headers.get("access-control-request-headers", "").split(",")
    stainless = [name.strip() for name in asked if re.fullmatch(r"x-stainless-[\w-]+", name.strip(), re.I)]
    headers = (
        ("Access-Control-Allow-Methods", "GET,OPTIONS,PATCH,DELETE,POST,PUT"),
        ("Access-Control-Allow-Headers", ", ".join([*_ALLOWED_HEADERS, *stainless])),
        ("Vary", "Access-Control-Request-Headers"),
    )
    return Response(204, headers=_API_HEADERS + headers)


# ============ 10. Control API and status page ================================================================
#
# What a test asserts on and steers with, under /__mock/.  Never journaled, never subject to faults or keys; closed to
# pages of other origins and to names that a hostile DNS could have pointed here.  The page at / shows what these
# routes say, and each of its buttons is one of their calls.


def check_control_access(mock: VideoMock, request: Request) -> None:
    """403 for another origin's page, and for a Host that is neither an address nor a local name."""
    host = request.headers.get("host", "localhost")
    name = re.sub(r":\d*$", "", host).strip("[]").lower()
    known = ("host.docker.internal", mock.config.host.lower(), urlsplit(mock.config.public_url).hostname)
    is_address = re.fullmatch("[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*", name)  # the DNS has no such names
    if "." in name and name not in known and not is_address:
        cure = "start with --host or --public-url"
        raise ApiError(403, f"The control API does not answer to the name {name}; {cure}")
    origin = request.headers.get("origin")
    if origin is not None and origin.lower().partition("://")[2] != host.lower():
        raise ApiError(403, f"The control API is closed to pages of {origin}")


def _from_query(reader: Reader) -> Reader:
    def read(value: Any, path: str) -> Any:
        try:
            number = float(value)
        except ValueError:
            raise _expected("a number", value, path) from None
        return reader(number, path)

    return read


_QUERY_KEYS = _keys(
    ("wait", _from_query(_read_number(0, 60, whole=False))),
    ("count limit", _from_query(_read_number(1))),
    ("status since", _from_query(_count)),
    ("method path job_id", read_text),
)


def _control_query(request: Request, keys: Iterable[str] = _QUERY_KEYS) -> dict[str, Any]:
    known = {key: _QUERY_KEYS[key] for key in keys}
    return read_fields(request.parameters, "query", {**known, "testId": None})


def control_response(value: Any, status: int = 200) -> Response:
    """JSON without the API's headers: no page of another origin is let in."""
    return Response(status, to_json(value), _JSON)


def _control_body(request: Request) -> Any:
    try:
        return parse_json(request.body)
    except ValueError as error:
        raise SetupError(f"body: not JSON: {error}") from None


def control_health(mock: VideoMock, request: Request) -> Response:
    """Say that the mock is up, its version and how much it holds."""
    return control_response({"status": "ok", "version": __version__, **mock.store.totals()})


def control_requests(mock: VideoMock, request: Request) -> Response:
    """The journal, oldest first; filters method, path, status, job_id, since, limit; wait= blocks for count=."""
    return control_response({"requests": mock.requests(**_control_query(request))})


def control_jobs(mock: VideoMock, request: Request) -> Response:
    """All jobs, newest first, or the newest limit= of them."""
    return control_response({"jobs": mock.jobs(**_control_query(request, ["limit"]))})


def control_job(mock: VideoMock, request: Request, job_id: str) -> Response:
    """One job, by id or as "latest"; looking is no poll."""
    return control_response(mock.job(job_id))


def control_clip(mock: VideoMock, request: Request, job_id: str) -> Response:
    """A job's clip without a key and with ranges, whatever the job's status, for players and people."""
    job, _ = mock.store.job(job_id)
    index, outputs = parse_index(request.parameters.get("index", "")), max(1, job.plan.outputs)
    if index >= outputs:
        raise ApiError(400, f"Video index {index} out of range ({outputs} videos available)")
    return clip_response(request, mock.clip(job, index), (), ranges=True)


def control_finish(mock: VideoMock, request: Request, job_id: str) -> Response:
    """Force a job's ending: {"status": "failed", "error": "..."}."""
    known = {"status": _read_choice(*ENDINGS), "error": _or_null(read_text)}
    given = read_fields(_control_body(request), "body", known, required=("status",))
    return control_response(mock.finish(job_id, **given))


def control_list_fixtures(mock: VideoMock, request: Request) -> Response:
    """The fixtures in the order in which they are tried."""
    return control_response({"fixtures": mock.fixtures()})


def control_add_fixtures(mock: VideoMock, request: Request) -> Response:
    """Put a fixture, or a list of them, before the others."""
    return control_response({"fixtures": mock.add_fixture(_control_body(request))}, status=201)


def control_list_faults(mock: VideoMock, request: Request) -> Response:
    """The faults that were given to the server, and how often each struck."""
    return control_response({"faults": mock.faults()})


def control_add_faults(mock: VideoMock, request: Request) -> Response:
    """Inject a fault, or a list of them."""
    return control_response({"faults": mock.add_fault(_control_body(request))}, status=201)


def control_clear_faults(mock: VideoMock, request: Request) -> Response:
    """Forget the server's faults."""
    mock.clear_faults()
    return control_response({"faults": []})


def control_time(mock: VideoMock, request: Request) -> Response:
    """The mock's clock, in unix seconds."""
    return control_response({"now": round(mock.now(), 3)})


def control_advance(mock: VideoMock, request: Request) -> Response:
    """Move the clock forward: {"advance": 45}, in seconds."""
    known = {"advance": _read_number(0, 1e9, whole=False)}
    given = read_fields(_control_body(request), "body", known, required=("advance",))
    try:
        return control_response({"now": round(mock.advance(given["advance"]), 3)})
    except ValueError as error:
        raise SetupError(f"body.advance: {error}") from None


def control_webhooks(mock: VideoMock, request: Request) -> Response:
    """Every webhook delivery, also those that could not be made; filter job_id; wait= blocks for count= done ones."""
    filters = _control_query(request, ["job_id", "limit", "wait", "count"])
    return control_response({"webhooks": mock.webhooks(**filters)})


def control_reset(mock: VideoMock, request: Request) -> Response:
    """Back to the state at start: jobs, journal, faults, added fixtures, counters, clock."""
    mock.reset()
    return control_health(mock, request)


def status_page(mock: VideoMock, request: Request) -> Response:
    """This page: jobs and requests live, clips, endings, clock, reset."""
    rows = "".join(
        f"<tr><td>{method}</td><td><code>{shown_path(pattern)}</code></td>"
        f"<td>{html.escape((handler.__doc__ or '').splitlines()[0])}</td></tr>"
        for method, pattern, handler in ROUTES
        if handler is not answer_preflight
    )
    nonce = os.urandom(12).hex()
    page = STATUS_PAGE.replace("{{routes}}", rows).replace("{{nonce}}", nonce)
    page = page.replace("{{version}}", __version__)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "media-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers: Headers = (("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store"))
    headers += (("Content-Security-Policy", policy), ("X-Content-Type-Options", "nosniff"))
    return Response(200, page.encode(), headers)


STATUS_PAGE = r"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>openrouter_video_mock</title>
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'
%3E%3Cpath fill='%236d5df6' d='M1 0l6 4-6 4z'/%3E%3C/svg%3E">
<style nonce="{{nonce}}">
:root{color-scheme:light dark;--bg:light-dark(#f4f4f8,#121217);--card:light-dark(#fff,#1b1b23);
--ink:light-dark(#1b1b22,#ececf2);--soft:light-dark(#5f5f6c,#a0a0af);--line:light-dark(#e0e0e9,#2f2f3b);
--accent:light-dark(#5546d8,#9d92ff);--good:light-dark(#14793f,#5fd38d);--bad:light-dark(#b42323,#ff8585);
--wait:light-dark(#8a5a00,#eeb64f);--busy:light-dark(#1f5fc4,#7fb2ff);--c:var(--soft);scroll-padding-top:70px}
.pending,.expired{--c:var(--wait)}.in_progress{--c:var(--busy)}.completed,.delivered,.s2{--c:var(--good)}
.failed,.refused,.s4,.s5,.s0{--c:var(--bad)}*{box-sizing:border-box}body{margin:0;
background:var(--bg);color:var(--ink);font:14px/1.45 system-ui,sans-serif}code,pre,dd,.mono{
font:12.5px/1.5 ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}header,.row{display:flex;flex-wrap:wrap;
gap:6px 8px;align-items:center}header{gap:8px 24px;padding:10px 20px;background:var(--card);
border-bottom:1px solid var(--line);position:sticky;top:0;z-index:1}h1{font-size:16px;margin:0}h1::before{content:"";
display:inline-block;width:9px;height:9px;margin-right:8px;border-radius:9px;background:var(--good)}
.offline h1::before{background:var(--bad)}.offline main{opacity:.5}h1 small,.soft{font-weight:400;color:var(--soft)}
h2{font-size:15px;margin:0 4px 0 0}h3{font-size:12px;margin:4px 0 -6px;color:var(--soft)}
.error,h3.failed,h3.refused,h3.delivered{color:var(--c)}main{display:grid;
grid-template-columns:repeat(2,minmax(0,1fr));gap:20px}main,footer,#faults:not(:empty){padding:14px 20px 0;
max-width:1500px;margin:auto}section>.row{min-height:24px;margin-bottom:8px}button{font:inherit;font-size:13px;
padding:2px 10px;border:1px solid var(--line);border-radius:6px;background:var(--bg);color:var(--ink);cursor:pointer}
button:hover{border-color:var(--accent)}:focus-visible{outline:2px solid var(--accent);outline-offset:-2px}.push{
margin-left:auto}#trouble{color:var(--bad)}#trouble:empty{position:absolute}.card{background:var(--card);
border:1px solid var(--line);box-shadow:inset 3px 0 var(--c);margin-top:-1px}.card:first-child{
border-radius:8px 8px 0 0}.card:last-child{border-radius:0 0 8px 8px}.card:only-child,.card[open]{border-radius:8px}
.card[open]{margin:6px 0;box-shadow:inset 3px 0 var(--c),0 2px 10px #0002}summary{display:grid;
grid-template-columns:auto minmax(0,1fr) auto 8px;gap:1px 10px;align-items:center;padding:6px 12px;cursor:pointer;
list-style:none}summary::after{content:"›";color:var(--soft);grid-area:1/4}[open]>summary::after{rotate:90deg}
summary::-webkit-details-marker{display:none}summary:hover{background:color-mix(in srgb,var(--accent) 5%,#0000)}
.text,.sub,.right{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}.text{font-weight:500}.mono{
font-weight:400}.sub,.right{font-size:12.5px;color:var(--soft)}.sub{grid-area:2/2/3/4}.right{max-width:240px}
.tag,.pill{font-size:12px;padding:1px 8px;border-radius:99px;color:var(--c);text-align:center;white-space:nowrap;
background:color-mix(in srgb,var(--c) 13%,#0000)}#jobs .tag{min-width:90px}#requests .tag{min-width:58px}
.tag.in_progress{animation:breathe 1.6s ease-in-out infinite alternate}@keyframes breathe{to{opacity:.6}}.more{
padding:10px 12px 12px;display:grid;gap:10px;grid-template-columns:minmax(0,1fr)}[open]>.more{
border-top:1px solid var(--line)}.more:empty{display:none}dl{display:grid;grid-template-columns:auto minmax(0,1fr);
gap:2px 14px;margin:0}dt{color:var(--soft)}dd{margin:0}pre{margin:0;padding:8px 10px;background:var(--bg);
border-radius:6px;overflow:auto;max-height:320px;white-space:pre-wrap}.copy{display:flex;gap:6px;align-items:start}
.copy pre{flex:1}.clips{display:grid;grid-template-columns:repeat(auto-fit,minmax(230px,1fr));gap:8px}video{
width:100%;aspect-ratio:16/9;max-height:340px;background:#000;border-radius:6px}table{border-collapse:collapse;
width:100%}footer{padding-bottom:30px}footer summary{display:block;padding:7px 0}footer summary::after{
margin-left:6px;display:inline-block}footer h2{display:inline}td{padding:4px 12px 4px 0;vertical-align:top;
border-top:1px solid var(--line);overflow-wrap:anywhere}@media(max-width:820px){main{
grid-template-columns:minmax(0,1fr)}main,footer,#faults:not(:empty){padding:12px 12px 0}header{padding:10px 12px;
position:static}.push{margin-left:0}button{padding:5px 10px}.right{max-width:110px}#clock{width:100%}#jobs .tag{
min-width:0}.sub{grid-area:2/1/3/4}td{display:inline-block;border:0;padding:0 8px 0 0}td:last-child{display:block;
padding-bottom:8px}}@media(prefers-reduced-motion){.tag.in_progress{animation:none}}
</style></head><body>
<header><h1>openrouter_video_mock <small>{{version}}</small></h1><span class="row"><code id="base"></code></span>
<span class="row push" id="steps"><code id="clock">…</code></span>
<span id="trouble" role="status"></span></header><div id="faults" class="row"></div>
<main><section><div class="row"><h2>Jobs <span class="soft" id="job-count"></span></h2>
<span class="row" id="job-pills"></span></div><div id="jobs"></div></section>
<section><div class="row"><h2>Requests <span class="soft" id="request-count"></span></h2>
<span class="row" id="request-pills"></span></div><div id="requests"></div></section></main>
<footer><details><summary><h2>Routes</h2></summary><table>{{routes}}</table></details></footer>
<script nonce="{{nonce}}">
"use strict";
const SHOWN = 100, ENDINGS = ["completed", "failed", "cancelled", "expired"];
const base = location.origin + "/api/v1", $ = id => document.getElementById(id);
// Everything that a request brought reaches the page as text, never as markup.
function el(tag, className = "", ...children) {
  const node = Object.assign(document.createElement(tag), {className});
  node.append(...children);
  return node;
}
const button = (text, press) => Object.assign(el("button", "", text), {onclick: press});
// Children as [key, make, update].  What is there stays: an open card stays open, a clip plays on, the focus holds.
function sync(parent, parts) {
  const old = new Map(Array.from(parent.children, node => [node.key, node]));
  const nodes = parts.map(([key, make]) => old.get(key) ?? Object.assign(make(), {key})), kept = new Set(nodes);
  for (const node of old.values()) if (!kept.has(node)) node.remove();
  nodes.forEach((node, i) => {
    if (parent.children[i] !== node) parent.insertBefore(node, parent.children[i] ?? null);
    parts[i][2]?.(node);
  });
}
const write = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const part = (name, tag, look, text) => [[tag, name, look].join(), () => el(tag, look), node => write(node, text)];
const labelled = (name, text, look = "") => [part(name, "h3", look, name), part(name, "pre", "", text)];
const facts = pairs => ["facts", () => el("dl"), node => sync(node, Object.entries(pairs).flatMap(([name, value]) =>
  value ? [part(name, "dt", "", name), part(name, "dd", "", value)] : []))];
const card = (key, look, head, body) => [key, () => {
  const node = el("details", "", el("summary"), el("div", "more"));
  node.addEventListener("toggle", () => node.draw());
  return node;
}, node => {
  const [summary, more] = node.children;
  node.className = "card " + look;
  node.draw = () => {
    const focused = more.contains(document.activeElement);
    sync(more, node.open ? body() : []);
    if (focused && !more.contains(document.activeElement)) summary.focus();
  };
  sync(summary, head);
  node.draw();
}];
async function call(method, path, body) {
  const reply = await fetch("/__mock/" + path, {method, body: body && JSON.stringify(body)});
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.error.message);
  return answer;
}
async function act(method, path, body) {
  await call(method, path, body).then(() => write($("trouble"), ""), error => write($("trouble"), error.message));
  refresh();
}
const copier = source => button("copy", async ({target}) => {
  getSelection().selectAllChildren(source);  // for Ctrl+C, where the browser gives this origin no clipboard
  const copying = navigator.clipboard?.writeText(source.textContent) ?? Promise.reject();
  target.textContent = await copying.then(() => "copied", () => "selected");
  setTimeout(() => target.textContent = "copy", 1200);
});
function curl(path, more = "") {
  const pre = el("pre", "", `curl -s '${base}${path}' -H 'Authorization: Bearer test'${more}`);
  return [pre.textContent, () => el("div", "copy", pre, copier(pre))];
}
const pretty = value => typeof value === "string" ? value : JSON.stringify(value, null, 2);
const utc = time => new Date(time * 1000).toISOString().replace("T", " ").slice(0, 19);
const span = s => s < 1 ? `${Math.round(s * 1000) || "<1"} ms` : s < 120 ? `${Math.round(s)} s`
  : s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
function jobCard(job, now) {
  const ended = ENDINGS.includes(job.status), clips = job.status === "completed" ? job.plan.count : 0;
  const sub = [job.model, "…" + job.id.slice(-5), job.polls + (job.polls === 1 ? " poll" : " polls"),
    job.status === "completed" && "$" + job.cost, ...job.webhooks.map(hook => "webhook " + hook.state), job.error];
  const video = i => Object.assign(el("video"), {controls: true, src: `/__mock/jobs/${job.id}/clip?index=${i}`});
  const end = status => button(status, () => act("PATCH", "jobs/" + job.id, {status}));
  return card(job.id, job.status, [part("status", "span", "tag " + job.status, job.status),
    part("prompt", "span", "text", (job.request.prompt || "(no prompt)").slice(0, 300)),
    part("age", "span", "right", (ended ? "took " : "for ") + span((job.ended_at ?? now) - job.created_at)),
    part("more", "span", "sub", sub.filter(Boolean).join(" · "))], () => [
    ...clips ? [["clips", () => el("div", "clips", ...Array.from({length: clips}, (_, i) => video(i)))]] : [],
    ...ended ? [] : [["end", () => el("div", "row", el("span", "soft", "end it as"), ...ENDINGS.map(end))]],
    ...job.error ? [part("error", "div", "error failed", job.error)] : [],
    facts({id: job.id, fixture: job.fixture, scope: job.scope, created: utc(job.created_at),
      ended: ended && utc(job.ended_at), clips: job.status === "completed" && !clips && "none"}),
    ...labelled("request", pretty(job.request)),
    ...job.webhooks.flatMap((hook, i) => labelled(`webhook ${i + 1}: ${hook.state}`, [
      `${hook.event} → ${hook.url}`, ...hook.attempts.map(a => `attempt: ${a.status ?? ""} ${a.error ?? ""}`),
      hook.reason].filter(Boolean).join("\n"), hook.state)),
    curl("/videos/" + job.id), ...clips ? [curl(`/videos/${job.id}/content?index=0`, " -o clip.mp4")] : []]);
}
const statusClass = entry => "s" + Math.floor((entry.status ?? 0) / 100);
function requestCard(entry) {
  const path = entry.path.replace("/api/v1", "").replace(/gen-vid-\d+-\w{15}(?=\w{5})/, "…");
  const note = entry.fault ? "⚡ " + entry.fault : entry.closest ? "no match" : entry.fixture ?? span(entry.ms / 1000);
  return card(`${entry.seq} ${entry.time}`, statusClass(entry), [
    part("status", "span", "tag " + statusClass(entry), String(entry.status ?? "closed")),
    part("path", "span", "text mono", path ? `${entry.method} ${path}` : entry.refused),
    part("note", "span", "right", note)], () => [
    ...(entry.closest ?? []).flatMap((miss, i) => labelled(`near miss ${i + 1}: ${miss.fixture}`, [
      ...miss.differences.map(d => `✗ ${d.criterion}: wanted ${pretty(d.wanted)}, got ${pretty(d.got)}`),
      ...miss.held.map(criterion => "✓ " + criterion)].join("\n"), "failed")),
    facts({path: entry.path, refused: entry.refused, time: utc(entry.time), took: entry.ms.toFixed(1) + " ms",
      job: entry.job_id, fixture: entry.fixture, fault: entry.fault, scope: entry.scope}),
    ...entry.body === null ? [] : labelled("body", pretty(entry.body)),
    ...labelled("headers", Object.entries(entry.headers).map(([name, value]) => `${name}: ${value}`).join("\n"))]);
}
const hint = (...parts) => [["hint", () => el("div", "card more"), node => sync(node, parts)]];
const NO_JOBS = hint(part("start", "div", "text", "No jobs yet. Submit one, then poll it twice:"),
  curl("/videos", ` -d '{"model": "google/veo-3.1", "prompt": "a cat on a skateboard"}'`),
  part("words", "div", "soft", "mock:failed, mock:stuck, mock:slow, mock:two-videos in a prompt change its course."));
const NO_REQUESTS = hint(part("none", "div", "soft", "Every call of the API appears here."));
const CLEAR = ["clear", () => button("clear faults", () => act("DELETE", "faults"))];
const LABELS = {s2: "2xx", s4: "4xx", s5: "5xx", s0: "closed"}, OFFLINE = "the mock does not answer";
function list(id, all, items, lookOf, cards) {
  write($(id + "-count"), all > items.length ? `${items.length} newest of ${all}` : String(all || ""));
  const looks = items.map(lookOf), count = look => looks.filter(other => other === look).length;
  sync($(id + "-pills"), ["pending", "in_progress", ...ENDINGS, ...Object.keys(LABELS)].filter(count).map(look =>
    part("count", "span", "pill " + look, `${count(look)} ${LABELS[look] ?? look}`)));
  sync($(id + "s"), cards);
}
let drawing = false;
async function refresh() {
  if (drawing) return;
  drawing = true;
  const paths = ["time", `jobs?limit=${SHOWN}`, `requests?limit=${SHOWN}`, "faults", "health"];
  const answers = await Promise.all(paths.map(path => call("GET", path))).catch(() => null);
  drawing = false;
  if (document.body.classList.toggle("offline", !answers)) return write($("trouble"), OFFLINE);
  if ($("trouble").textContent === OFFLINE) write($("trouble"), "");
  const [{now}, {jobs}, {requests}, {faults}, health] = answers, ahead = now - Date.now() / 1000;
  write($("clock"), `${utc(now)} UTC${ahead > 1 ? `, ${span(ahead)} ahead` : ""}`);
  sync($("faults"), faults.map(({on, struck, ...rest}, i) => part(i, "code", "pill failed",
    `⚡ ${on} ${JSON.stringify(rest)} · struck ${struck}×`)).concat(faults.length ? [CLEAR] : []));
  list("job", health.jobs, jobs, job => job.status, jobs.length ? jobs.map(job => jobCard(job, now)) : NO_JOBS);
  list("request", health.requests, requests, statusClass,
    requests.length ? requests.reverse().map(requestCard) : NO_REQUESTS);
}
write($("base"), base);
$("base").after(copier($("base")));
for (const [text, advance] of [["+10 s", 10], ["+1 min", 60], ["+1 h", 3600], ["+1 day", 86400]])
  $("steps").append(button(text, () => act("POST", "time", {advance})));
$("steps").append(button("reset", () => act("POST", "reset")));
setInterval(() => document.hidden || refresh(), 1000);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
refresh();
</script></body></html>
"""


# ============ 11. Routes and the mock: ROUTES, find_route, VideoMock =========================================
#
# To add a route: a handler in section 9 or 10, a line here, a line in the README.  First match wins.

Handler = Callable[..., Response]
JOB = r"(?P<job_id>[^/]+)"
CONTROL = "/__mock"

ROUTES: list[tuple[str, str, Handler]] = [
    ("POST", rf"{API}/videos", create_video),
    ("GET", rf"{API}/videos/models", list_video_models),  # above JOB, which would take "models" for an id
    ("GET", rf"{API}/videos/{JOB}", get_video),
    ("GET", rf"{API}/videos/{JOB}/content", get_video_content),
    ("GET", rf"{API}/models", list_models),
    ("GET", rf"{API}/key", get_key),
    ("GET", rf"{API}/credits", get_credits),
    ("GET", rf"{API}/generation", get_generation),
    ("POST", rf"{API}/chat/completions", refuse_chat),
    ("OPTIONS", rf"{API}(?:/.*)?", answer_preflight),
    ("GET", "/", status_page),
    ("GET", "/health", control_health),
    ("GET", rf"{CONTROL}/health", control_health),
    ("GET", rf"{CONTROL}/requests", control_requests),
    ("GET", rf"{CONTROL}/jobs", control_jobs),
    ("GET", rf"{CONTROL}/jobs/{JOB}", control_job),
    ("PATCH", rf"{CONTROL}/jobs/{JOB}", control_finish),
    ("GET", rf"{CONTROL}/jobs/{JOB}/clip", control_clip),
    ("GET", rf"{CONTROL}/fixtures", control_list_fixtures),
    ("POST", rf"{CONTROL}/fixtures", control_add_fixtures),
    ("GET", rf"{CONTROL}/faults", control_list_faults),
    ("POST", rf"{CONTROL}/faults", control_add_faults),
    ("DELETE", rf"{CONTROL}/faults", control_clear_faults),
    ("GET", rf"{CONTROL}/time", control_time),
    ("POST", rf"{CONTROL}/time", control_advance),
    ("GET", rf"{CONTROL}/webhooks", control_webhooks),
    ("POST", rf"{CONTROL}/reset", control_reset),
]


def shown_path(pattern: str) -> str:
    """A route's path as documentation writes it: /api/v1/videos/{jobId}."""
    return pattern.replace(JOB, "{jobId}")


@functools.lru_cache(maxsize=1024)
def find_route(method: str, path: str) -> tuple[Handler, dict[str, str]]:
    """The handler and its path groups; HEAD is GET.  405 on the control API only: production answers 404."""
    method = "GET" if method == "HEAD" else method
    allowed = []
    for route_method, pattern, handler in ROUTES:
        match = re.fullmatch(pattern, path)  # compiled at its first use, which shortens the start
        if match and route_method == method:
            return handler, {name: unquote(value) for name, value in match.groupdict().items()}
        allowed += [route_method] if match else []
    if allowed and not path.startswith(API):
        listed = ", ".join(allowed)
        raise ApiError(405, f"Method Not Allowed, try {listed}", headers=(("Allow", listed),))
    raise ApiError(404)


class VideoMock:
    """The mock without a socket: Request in, Response out.  Two of them share nothing.

    SetupError for a bad setting or fixture.  `log` takes one line per request; `clock` gives unix seconds and must
    not go back.  Its methods speak of jobs, requests and deliveries in the dicts that the control API sends.
    """

    def __init__(
        self,
        config: Config = Config(),  # noqa: B008  (it is frozen)
        *,
        log: Callable[[str], None] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.config = checked_config(config)
        self.log = log
        self.notice = log or (lambda line: None)  # takes what is no request: fixtures that cannot be reloaded
        self.before_waiting: Callable[[], None] = lambda: None  # a server lets others go on meanwhile
        self.secret = os.urandom(32)  # signs download URLs
        self.errors: list[BaseException] = []  # the mock's own faults, raised by MockServer.stop
        self.stopping = threading.Event()
        self._additions = itertools.count(1)  # of fixtures; names those that have none
        started, ticked = time.time(), time.monotonic()
        self.store = Store(self.config, clock or (lambda: started + time.monotonic() - ticked))
        self.courier = Courier(self.store, self.config.webhook_secret, self.report)

    def handle(self, request: Request) -> Response:
        """Answer any request; the one place where an exception becomes a reply."""
        started = time.perf_counter()
        request.note.epoch = self.store.epoch
        is_control = request.path in ("/", "/health") or request.path.startswith(CONTROL)
        headers = _JSON if is_control else _API_JSON
        try:
            if request.refusal is not None:
                raise request.refusal
            if self.config.latency and not is_control:
                self.pause(self.config.latency)
            handler, groups = find_route(request.method, request.path)
            if is_control:
                check_control_access(self, request)
            response = handler(self, request, **groups)
        except ApiError as error:
            # A refusal stays in the journal: not so the frames, and with them the bodies, that it went through.
            response = error_response(error.with_traceback(None), headers)
        except SetupError as error:
            response = error_response(ApiError(400, str(error)), headers)
        except Exception as error:
            self.report(error)
            response = error_response(ApiError(500), headers)
        if not is_control:
            request.note.status = None if response.dropped else response.status
            request.note.ms = (time.perf_counter() - started) * 1000
            self.store.record(request)
            if self.log is not None:
                self.log(log_line(request))
        return response

    def report(self, error: BaseException) -> None:
        """Keep an error of the mock's own, and show its traceback."""
        self.errors.append(error)
        sys.__excepthook__(type(error), error, error.__traceback__)

    def close(self) -> None:
        """Let go of everybody who waits, and end deliveries."""
        self.stopping.set()
        self.store.close()
        self.courier.stop()

    # ---- What handlers ask for

    def pause(self, seconds: float) -> None:
        """Wait in real time, but not longer than the mock runs."""
        self.before_waiting()
        self.stopping.wait(seconds)

    def links(self, request: Request) -> Links:
        """How the URLs look for this client: below --public-url, else the origin that it used."""
        get = request.headers.get
        used = origin_of(get("host", "localhost"), get("x-forwarded-host", ""), get("x-forwarded-proto", ""))
        origin = self.config.public_url or used
        return Links(origin, self.secret, self.config.relative_polling_url)

    def reload_fixtures(self) -> None:
        """Take edited fixture files over; if they became invalid, keep the old ones and say why."""
        if reason := self.store.reload_if_edited():
            self.notice(printable(f"fixtures not reloaded: {reason}"))

    def draw_fault(self, on: str, request: Request, job_id: str = "") -> Fault | None:
        """The fault that hits this request, if one does."""
        fault = self.store.draw_fault(on, lambda: scope_of(request), request.note.epoch, job_id)
        if fault is not None and job_id:
            request.note.job_id, request.note.fixture = job_id, self.store.job(job_id)[0].fixture
        return fault

    def clip(self, job: Job, index: int) -> bytes | Path:
        """An output of a job; making one may take a while."""
        self.before_waiting()
        return clip_of(job, index)

    def add_job(
        self, request: Request, wanted: VideoRequest, model: Model, fixture: Fixture, key: str, scope: str
    ) -> Job:
        """Make the job that this fixture plans for this request."""
        plan, config, shape = fixture.plan, self.config, wanted.shape
        assert plan is not None
        body = {name: value for name, value in wanted.body.items() if name in _FIELDS}
        if len(request.body) > 4096:
            frames, references = shape.frames[:_LONGEST_LIST], shape.references[:_LONGEST_LIST]
            shape = shape._replace(size=shorten(shape.size), frames=frames, references=references)
            wanted, body = wanted._replace(prompt=shorten(wanted.prompt), shape=shape), shorten(body)
        wanted = wanted._replace(body=body)
        pace = Pace("seconds", *config.seconds) if config.seconds else Pace("polls", *config.polls)
        cost = cost_of(shape, model) if plan.cost is None else plan.cost
        name, pace, ending, error = fixture.name or None, plan.pace or pace, plan.status, plan.error
        origin, callback_url = self.links(request).origin, wanted.callback_url or config.callback_url or None
        job = Job(wanted, model, plan, name, pace, cost, origin, key, scope, callback_url, ending, error)
        if callback_url:
            self.courier.wake()
        return self.store.add_job(job, request.note.epoch)

    # ---- Steering

    def now(self) -> float:
        """The mock's clock in unix seconds.

        >>> mock.now() > 1_700_000_000
        True
        """
        return self.store.now()

    def advance(self, seconds: float) -> float:
        """Move the clock forward; jobs, expiry and webhooks follow.  The new time; ValueError for a step back.

        >>> before = mock.now()
        >>> mock.advance(3600) >= before + 3600
        True
        """
        end_of_time = 253_370_764_800  # 9999-01-01
        if not (seconds >= 0 and self.now() + seconds < end_of_time):
            raise ValueError(f"the clock only moves forward, and to the year 9999, got {seconds}")
        return self.store.advance(seconds)

    def finish(
        self, job_id: str = "latest", status: str | Status = "completed", *, error: str | None = None
    ) -> dict[str, Any]:
        """Force the ending of a job, by id or "latest"; ApiError 404 for no such job, 409 if it ended otherwise.

        >>> mock.finish(job_id, "failed", error="Content policy violation")["status"]
        'failed'
        """
        ending = Status(status)
        if ending not in TERMINAL:
            raise ValueError(f"{ending.value!r} is no ending, give one of {', '.join(ENDINGS)}")
        self.courier.wake()
        job, now = self.store.finish(job_id, ending, error)
        return _job_to_control(job, now, self.store.webhooks(job.id))

    def add_fixture(self, fixture: Any) -> list[dict[str, Any]]:
        """Put a fixture, or a list of them, before the others; SetupError if one is not well formed.

        >>> added = mock.add_fixture({"match": {"prompt": "rain"}, "response": {"video": {"status": "failed"}}})
        """
        read = []
        for path, value in _numbered("fixture", fixture):
            one = fixture_from_json(value, path, f"added fixture {next(self._additions)}", None)
            if one is None:
                raise SetupError(f"{path}.response: answers another endpoint")
            read.append(one)
        self.store.add_fixtures(read)
        return [_fixture_to_wire(one, 0) for one in read]

    def add_fault(self, fault: Any) -> list[dict[str, Any]]:
        """Inject a fault, or a list of them; SetupError if one is not well formed.

        >>> added = mock.add_fault({"on": "poll", "status": 503, "times": 1})
        """
        read = [(fault_from_json(one, path), one) for path, one in _numbered("fault", fault)]
        self.store.add_faults(read)
        return [one for _, one in read]

    def clear_faults(self) -> None:
        """Forget the faults that were given to the server, those of the command line too.

        >>> mock.clear_faults()
        """
        self.store.clear_faults()

    def reset(self) -> None:
        """Back to the state at start: jobs, journal, faults, added fixtures, counters, clock.

        >>> mock.reset()
        """
        self.store.reset()

    # ---- Looking

    def job(self, job_id: str = "latest") -> dict[str, Any]:
        """A job, by id or "latest"; looking is no poll.  ApiError 404 for no such job.

        >>> mock.job(job_id)["request"]["prompt"]
        'a cat'
        """
        job, now = self.store.job(job_id)
        return _job_to_control(job, now, self.store.webhooks(job.id))

    def jobs(self, *, limit: int | None = None) -> list[dict[str, Any]]:
        """All jobs, newest first.

        >>> [job["status"] for job in mock.jobs()]
        ['pending']
        """
        jobs, now = self.store.jobs()
        deliveries: dict[str, list[Delivery]] = {}
        for delivery in self.store.webhooks(None):
            deliveries.setdefault(delivery.job.id, []).append(delivery)
        return [_job_to_control(job, now, deliveries.get(job.id, ())) for job in jobs[:limit]]

    def requests(
        self,
        *,
        method: str | None = None,
        path: str | None = None,
        status: int | None = None,
        job_id: str | None = None,
        since: int = 0,
        limit: int | None = None,
        wait: float = 0,
        count: int = 1,
    ) -> list[dict[str, Any]]:
        """The journal, oldest first.  `path` is the beginning of one, with or without /api/v1; `since` a seq.

        `limit` keeps the newest; `wait` blocks up to so many real seconds until `count` match.

        >>> [request["status"] for request in mock.requests(method="POST", path="/videos")]
        [202]
        """

        def wanted(request: Request) -> bool:
            url, note = request.url, request.note
            return (
                note.seq > since
                and (method is None or request.method == method.upper())
                and (path is None or url.startswith(path) or url.removeprefix(API).startswith(path))
                and (status is None or note.status == status)
                and (job_id is None or note.job_id == job_id)
            )

        if wait:
            self.before_waiting()
        found = self.store.requests(wanted, count, wait)
        return [_request_to_wire(request) for request in found[-limit if limit else 0 :]]

    def wait_for_request(self, *, count: int = 1, timeout: float = 5.0, **filters: Any) -> dict[str, Any]:
        """The request that makes `count` of this kind; TimeoutError after so many real seconds.

        >>> mock.wait_for_request(path="/videos")["body"]["prompt"]
        'a cat'
        """
        found = self.requests(**filters, wait=timeout, count=count)
        if len(found) < count:
            raise TimeoutError(f"{len(found)} of {count} such requests came within {timeout} s")
        return found[count - 1]

    def webhooks(
        self, *, job_id: str | None = None, limit: int | None = None, wait: float = 0, count: int = 1
    ) -> list[dict[str, Any]]:
        """Webhook deliveries, oldest first; `wait` blocks up to so many real seconds until `count` are done.

        >>> mock.webhooks()
        []
        """
        if wait:
            self.before_waiting()
        found = self.store.webhooks(job_id, count, wait)
        return [_delivery_to_wire(delivery) for delivery in found[-limit if limit else 0 :]]

    def fixtures(self) -> list[dict[str, Any]]:
        """The fixtures as written, in the order in which they are tried, and how often each matched.

        >>> mock.fixtures()[0]["name"]
        'mock:failed'
        """
        return [_fixture_to_wire(fixture, matched) for fixture, matched in self.store.fixtures()]

    def faults(self) -> list[dict[str, Any]]:
        """The faults that were given to the server, and how often each struck.

        >>> mock.faults()
        []
        """
        return [{**source, "struck": struck} for source, struck in self.store.faults()]


def _numbered(what: str, given: Any) -> list[tuple[str, Any]]:
    if not isinstance(given, list):
        return [(what, given)]
    return [(f"{what}s[{index}]", one) for index, one in enumerate(given)]


def _job_to_control(job: Job, now: float, deliveries: Iterable[Delivery]) -> dict[str, Any]:
    status, pace, plan = status_at(job, now), job.pace, job.plan
    ended = status in TERMINAL
    shown: dict[str, Any] = {"status": job.ending.value, "error": job.error}
    shown[pace.unit] = {"pending": pace.pending, "in_progress": pace.in_progress}
    shown |= {"count": plan.outputs, "stored": plan.stored, "faults": [fault.label for fault in plan.faults]}
    wire: dict[str, Any] = {"id": job.id, "status": status.value, "model": job.wanted.model}
    wire |= {"fixture": job.fixture, "scope": job.scope, "polls": job.polls}
    wire["created_at"] = round(job.created_at, 3)
    wire["ended_at"] = round(job.ends_at, 3) if ended else None
    wire["expires_at"] = expires_at(job) if ended else None
    request = shorten(job.wanted.body)  # a copy: who gets it may change it
    cost = 0 if ended and status is not Status.COMPLETED else job.cost
    wire |= {"cost": cost, "error": job.error if ended else None, "request": request}
    return {**wire, "plan": shown, "webhooks": [_delivery_to_wire(delivery) for delivery in deliveries]}


def _delivery_to_wire(delivery: Delivery) -> dict[str, Any]:
    event = f"video.generation.{delivery.job.ending.value}"
    wire = {"job_id": delivery.job.id, "event": event, "url": delivery.url, "state": delivery.state}
    sent = {"headers": delivery.headers, "attempts": list(delivery.attempts)}
    return {**wire, "reason": delivery.reason, "body": delivery.body.decode(), **sent}


def _fixture_to_wire(fixture: Fixture, matched: int) -> dict[str, Any]:
    return {**fixture.source, "name": fixture.name, "matched": matched, "built_in": fixture.number < 0}


def _request_to_wire(request: Request) -> dict[str, Any]:
    note, secret = request.note, ("authorization", "proxy-authorization", "cookie", "x-api-key")
    headers = {name: "***" if name in secret else value for name, value in request.headers.items()}
    key = bearer_key(request.headers.get("authorization", ""))
    if key is not None:
        headers["authorization"] = f"Bearer {key_label(key)}"
    body: Any = request.body.decode("utf-8", "replace") or None
    with contextlib.suppress(ValueError):
        body = shorten(parse_json(request.body))
    wire = {"seq": note.seq, "time": round(note.time, 3), "method": request.method, "path": request.url}
    wire |= {"headers": headers, "body": body, "status": note.status, "job_id": note.job_id}
    wire |= {"fixture": note.fixture, "fault": note.fault, "scope": scope_of(request)}
    wire["ms"] = round(note.ms, 3)
    wire |= {"closest": note.closest} if note.closest is not None else {}
    return wire | ({"refused": request.refusal.message} if request.refusal else {})


def printable(line: str) -> str:
    """The line with everything escaped that could end it or move a terminal's cursor."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def log_line(request: Request) -> str:
    """One readable line for one request."""
    note = request.note
    start = f"{time.strftime('%H:%M:%S')} {request.method or '-':4} {request.path or '-'}"
    parts = [start, str(note.status or "closed")]
    parts += [f"({request.refusal.message})"] if request.refusal else []
    if note.job_id and note.job_id not in request.path:
        parts.append(note.job_id)
    parts += [f"fixture={note.fixture!r}"] if note.fixture else []
    parts += [f"fault={note.fault}"] if note.fault else []
    parts += [f"({describe_miss(miss)})" for miss in note.closest or ()]
    return printable(f"{' '.join(parts)} {note.ms:.1f} ms")


# ============ 12. HTTP adapter and embedding: _Adapter, MockServer, the pytest fixture =======================
#
# Socket bytes to Request, Response to socket bytes, and nothing of videos.  Heads are parsed here, strictly, and much
# faster than by http.server's email parser: whatever two parsers could read in two ways is refused, since that is what
# request smuggling lives on.

MAX_HEAD_BYTES = 65_536
MAX_TARGET_BYTES = 8_192
IDLE_SECONDS = 75.0  # between two requests of a connection
REQUEST_SECONDS = 30.0  # for a head, or a body's next megabyte, to come; for a block of an answer to be taken
LOOK_SECONDS = 1.0  # how often the deadlines of all connections are looked at
_SMALL_BYTES = 16_384  # what is received at once from a watched connection
_AWAKE_SECONDS = 0.00005  # how long the leader looks out for more before it sleeps: waking takes long
_LINGER_SECONDS = 2  # an unread body is thrown away, so that the client gets to read the refusal
_DO_NOT_WAIT = getattr(socket, "MSG_DONTWAIT", 0)

_REQUEST_LINE = r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])"
_HEADER = r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)"
_HOST = r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
_ONLY_ONCE = frozenset({"host", "content-length", "transfer-encoding", "authorization", "content-type"})


class Head(NamedTuple):
    """The head of a request, checked."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    keep_alive: bool
    http_1_0: bool
    length: int | None  # of the body; None = chunked


_NO_HEAD = Head("", "", "", {}, False, False, 0)  # could be read


@functools.lru_cache(maxsize=256)  # who polls sends the same head again and again
def parse_head(head: bytes) -> Head:
    """Request line and headers, without the empty line; ApiError for all that is not strictly HTTP/1."""
    request_line, *lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(_REQUEST_LINE, request_line)
    if not match:
        raise ApiError(400, "Malformed request line")
    method, target, major, minor = match.groups()
    if major != "1":
        raise ApiError(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here")
    if len(target) > MAX_TARGET_BYTES:
        raise ApiError(414)
    headers: dict[str, str] = {}
    for line in lines:
        match = re.fullmatch(_HEADER, line)
        if not match:
            raise ApiError(400, "Malformed header")
        name, value = match[1].lower(), match[2].rstrip(" \t")
        if name in headers:
            if name in _ONLY_ONCE:
                raise ApiError(400, f"More than one {name} header")
            value = f"{headers[name]}, {value}"
        headers[name] = value

    http_1_0 = minor == "0"
    if target[0] != "/" and target != "*":
        scheme, _, rest = target.partition("://")
        if scheme.lower() not in ("http", "https"):
            raise ApiError(400, "Malformed request target")
        authority = re.split("[/?]", rest, maxsplit=1)[0]  # RFC 9112, 3.2.2: it wins over Host
        headers["host"], rest = authority, rest[len(authority) :]
        target = rest if rest.startswith("/") else f"/{rest}"
    if not re.fullmatch(_HOST, headers.get("host", "localhost" if http_1_0 else "")):
        raise ApiError(400, "Missing or malformed Host header")
    if headers.get("expect", "100-continue").lower() != "100-continue":
        raise ApiError(417)
    path, _, query = target.partition("?")
    connection = headers.get("connection", "").lower()
    keep_alive = "keep-alive" in connection if http_1_0 else "close" not in connection
    length, encoding = headers.get("content-length"), headers.get("transfer-encoding")
    if encoding is not None and (length is not None or http_1_0 or encoding.lower() != "chunked"):
        raise ApiError(400, "Transfer-Encoding must be chunked, alone, and not in HTTP/1.0")
    if length is not None and not re.fullmatch("[0-9]{1,18}", length):
        raise ApiError(400, "Malformed Content-Length")
    body_bytes = int(length or 0) if encoding is None else None
    return Head(method, path, query, headers, keep_alive, http_1_0, body_bytes)


Rest = Callable[[], bool]  # what is left to do, which may block; False once the connection has to end


class _Adapter(socketserver.BaseRequestHandler):
    """One connection: reads heads and bodies, writes answers.  Knows nothing of videos.

    The leading thread does `answer_ready`, which never waits for the client.  Whatever needs that is left to
    `serve`, in a thread of its own, with a socket that blocks without a timeout: the server's thread looks at
    `deadline` every LOOK_SECONDS and ends what has passed it, however slowly the bytes drip.
    """

    server: _Server
    request: socket.socket
    buffer = b""  # received and not yet read
    sending = False
    deadline = math.inf
    body_bytes = 0  # received since the deadline was set

    def handle(self) -> None:
        """Take a new connection."""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.watch(self)

    def answer_ready(self) -> Rest | None:
        """Answer the request that has come, if it is there whole; what is left to be done, if anything is."""
        self.deadline = time.monotonic() + IDLE_SECONDS
        data = self.request.recv(_SMALL_BYTES, _DO_NOT_WAIT)
        if not data:
            raise EOFError
        self.buffer = data = data.lstrip(b"\r\n")
        if not data:
            return None
        end = data.find(b"\r\n\r\n")
        try:
            head = parse_head(data[: max(0, end)])
        except ApiError:
            return self.serve_one  # waits for more, or refuses it
        stop = end + 4 + (head.length or 0)
        if head.length is None or stop > len(data) or head.length > self.server.max_body_bytes:
            return self.serve_one
        self.buffer = data[stop:].lstrip(b"\r\n")
        return self.answer(head, data[end + 4 : stop]) or (self.serve_one if self.buffer else None)

    def serve(self, rest: Rest | None) -> None:
        """Do what is left, whatever has been received already, and give the connection back to the leader."""
        try:
            goes_on = rest is None or rest()
            while goes_on and self.buffer:
                goes_on = self.serve_one()
        except Exception as error:
            self.server.lost(self, error)
            return
        if goes_on:
            self.server.watch(self)
        else:
            self.server.drop(self)

    def serve_one(self) -> bool:
        """Read one request and answer it; whether another may follow on this connection."""
        head, body, refusal = _NO_HEAD, b"", None
        try:
            head = self.read_head()
            body = self.read_body(head)
            self.buffer = self.buffer.lstrip(b"\r\n")
        except ApiError as error:
            refusal = error
        self.deadline = math.inf
        rest = self.answer(head, body, refusal)
        return rest is None or rest()

    def answer(self, head: Head, body: bytes, refusal: ApiError | None = None) -> Rest | None:
        """Have a request answered, and send as much as the socket takes at once; what is left, if anything is.

        EOFError, as from `answer_ready`, says that the connection is over and needs no more than to be closed.
        """
        request = Request(head.method, head.path, head.query, head.headers, body, Note(), refusal)
        response = self.server.mock.handle(request)
        if response.dropped:
            raise EOFError
        framed = response.stream is None or response.length is not None or not head.http_1_0
        cut = response.truncate is not None and response.stream is None
        keep_alive = head.keep_alive and framed and refusal is None and not cut
        unsent = _answer_bytes(response, head, keep_alive)
        if response.stream is None:
            try:
                sent = self.request.send(unsent, _DO_NOT_WAIT)
            except BlockingIOError:
                sent = 0
            if sent == len(unsent) and keep_alive:
                return None
            if sent == len(unsent) <= _SMALL_BYTES and refusal is None and not self.buffer:
                raise EOFError  # nothing is unread, and little on its way, that a reset could reach
            unsent = unsent[sent:]
        return functools.partial(self.complete, response, unsent, head, keep_alive)

    def complete(self, response: Response, unsent: bytes, head: Head, keep_alive: bool) -> bool:
        """Send the rest of an answer; whether the connection goes on."""
        if unsent:
            self.sending = True
            if response.stream is None or head.method == "HEAD":
                for start in range(0, len(unsent), _BLOCK_BYTES):
                    self.send(unsent[start : start + _BLOCK_BYTES])
            else:
                chunked = response.length is None and not head.http_1_0
                keep_alive = self.send_stream(unsent, response, chunked) and keep_alive
            self.sending = False
        if not keep_alive:
            self.linger()
        return keep_alive

    def send(self, data: bytes) -> None:
        self.deadline = time.monotonic() + REQUEST_SECONDS
        self.request.sendall(data)

    def send_stream(self, start: bytes, response: Response, chunked: bool) -> bool:
        """Send block by block what follows this start of an answer; False if it was cut short."""
        assert response.stream is not None
        sent, end = 0, sys.maxsize if response.truncate is None else response.truncate
        for block in response.stream:
            part = block[: end - sent]
            whole = len(part) == len(block)  # a cut leaves neither the chunk nor the body its end
            framing = (b"%x\r\n" % len(block), b"\r\n" if whole else b"") if chunked else (b"", b"")
            self.send(b"".join((start, framing[0], part, framing[1])))  # `%` would copy a megabyte far slower
            if not whole:
                return False
            start, sent = b"", sent + len(part)
        self.send(start + (b"0\r\n\r\n" if chunked else b""))
        return response.length in (None, sent)

    def linger(self) -> None:
        """Close so that the client can read the answer first: what it still sends is taken, within bounds."""
        self.deadline = time.monotonic() + _LINGER_SECONDS
        shut_down(self.request, socket.SHUT_WR)
        while self.request.recv(_BLOCK_BYTES) and time.monotonic() < self.deadline:
            pass

    def receive(self) -> bytes:
        data = self.request.recv(65536)
        if not data:
            if time.monotonic() > self.deadline:
                raise ApiError(408)
            raise ConnectionAbortedError
        self.body_bytes += len(data)
        if self.body_bytes > _BLOCK_BYTES:  # a large body may take its time as long as it moves
            self.body_bytes, self.deadline = 0, time.monotonic() + REQUEST_SECONDS
        return data

    def read_head(self) -> Head:
        """The next head, the first bytes of which are there."""
        buffer = self.buffer.lstrip(b"\r\n")  # RFC 9112, 2.2: empty lines before a request are skipped
        while (end := buffer.find(b"\r\n\r\n")) < 0 and len(buffer) <= MAX_HEAD_BYTES:
            if re.search(rb"(?<!\r)\n", buffer):
                raise ApiError(400, "Line feed without carriage return")
            self.deadline = min(self.deadline, time.monotonic() + REQUEST_SECONDS)
            buffer = (buffer + self.receive()).lstrip(b"\r\n")
        if not 0 <= end <= MAX_HEAD_BYTES:
            raise ApiError(431 if b"\n" in buffer[: MAX_TARGET_BYTES + 64] else 414)
        self.buffer = buffer[end + 4 :]
        return parse_head(buffer[:end])

    def read_body(self, head: Head) -> bytes:
        """The whole body, decoded; 413 before anything of a body that says it is too large is read."""
        if head.length == 0:
            return b""
        if (head.length or 0) > self.server.max_body_bytes:
            raise ApiError(413)
        self.deadline = time.monotonic() + REQUEST_SECONDS
        if "expect" in head.headers and not self.buffer and not head.http_1_0:
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self.read_chunks() if head.length is None else self.take(head.length)

    def take(self, count: int) -> bytes:
        parts, have = [self.buffer], len(self.buffer)
        while have < count:
            parts.append(self.receive())
            have += len(parts[-1])
        data = b"".join(parts)
        self.buffer = data[count:]
        return data[:count]

    def take_line(self) -> bytes:
        """A line of the chunked coding, without its end."""
        while b"\n" not in self.buffer and len(self.buffer) <= 4096:
            self.buffer += self.receive()
        line, end, self.buffer = self.buffer.partition(b"\n")
        if not end or not line.endswith(b"\r"):
            raise ApiError(400, "Malformed chunk")
        return line[:-1]

    def read_chunks(self) -> bytes:
        """A body in chunks (RFC 9112, 7.1); extensions and trailers are dropped."""
        parts: list[bytes] = []
        size = 0
        while True:
            match = re.fullmatch(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e]*)?", self.take_line())
            if not match:
                raise ApiError(400, "Malformed chunk")
            length = int(match[1], 16)
            size += length
            if size > self.server.max_body_bytes:
                raise ApiError(413)
            if length == 0:
                break
            parts.append(self.take(length))
            if self.take(2) != b"\r\n":
                raise ApiError(400, "Malformed chunk")
        for _ in range(100):
            trailer = self.take_line()
            if not trailer:
                return b"".join(parts)
            if not re.fullmatch(_HEADER, trailer.decode("latin-1")):
                break
        raise ApiError(400, "Malformed trailers")


def _answer_bytes(response: Response, head: Head, keep_alive: bool) -> bytes:
    """The answer, or its head if the body is streamed or not wanted."""
    length = len(response.body) if response.stream is None else response.length
    now = int(time.time())
    start = _answer_head(response.status, response.headers, length, keep_alive, head.http_1_0, now)
    return start if head.method == "HEAD" else start + response.body[: response.truncate]


@functools.lru_cache(maxsize=256)
def _answer_head(
    status: int, headers: Headers, length: int | None, keep_alive: bool, http_1_0: bool, second: int
) -> bytes:
    lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime(second)))
    if length is None and not http_1_0:
        lines.append("Transfer-Encoding: chunked")
    elif length is not None and status != 204:
        lines.append(f"Content-Length: {length}")
    if not keep_alive or http_1_0:
        lines.append(f"Connection: {'keep-alive' if keep_alive else 'close'}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class _Server(ThreadingHTTPServer):
    """Accepts connections, and answers what comes on them.

    One thread leads: it watches all connections that nobody works on, and answers what needs no waiting itself, one
    request after the other.  That takes half the time of a thread for each connection, since threads that take
    turns in one interpreter mostly wake each other up; and who came first is served first, so the tails are short.
    Whatever has to wait gets a thread of its own: a connection whose client is slow; or, if a handler says that it
    will wait, the leader itself goes on with that, and another thread leads.
    """

    request_queue_size = 1024  # a burst of connections waits instead of being refused

    def __init__(self, mock: VideoMock, debug: Callable[[str], None]) -> None:
        self.mock, self.debug = mock, debug
        self.max_body_bytes = int(mock.config.max_body_mb * 1_000_000)
        self.connections: set[_Adapter] = set()
        self.threads = Threads("connections", mock.report)
        self._next_look = 0.0
        self._ready: deque[_Adapter] = deque()  # watched connections on which something came
        self._leader: threading.Thread | None = None
        self._working_on: _Adapter | None = None  # by the leader
        if ":" in mock.config.host:
            self.address_family = socket.AF_INET6
        super().__init__((mock.config.host, mock.config.port), _Adapter)
        self._selector = selectors.DefaultSelector()
        self._waker, self._wakened = socket.socketpair()  # make the leader look again
        self._waker.setblocking(False)
        self._selector.register(self._wakened, selectors.EVENT_READ)
        mock.before_waiting = self.pass_lead
        if not self.threads.start(self.lead):
            raise OSError("no thread to be had")

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the DNS for a name; that can take seconds.
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            self.mock.stopping.wait(0.05)  # mostly for a file descriptor
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        self.finish_request(request, client_address)  # makes an _Adapter, which has itself watched

    def watch(self, connection: _Adapter) -> None:
        """Have the leader see to a connection."""
        self.connections.add(connection)
        if self.mock.stopping.is_set():
            return
        connection.deadline = time.monotonic() + IDLE_SECONDS
        self._selector.register(connection.request, selectors.EVENT_READ, connection)
        self.wake()

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it has been told often enough
            self._waker.send(b"!")

    def drop(self, connection: _Adapter) -> None:
        with contextlib.suppress(KeyError, ValueError):  # mostly it is not watched any more
            self._selector.unregister(connection.request)
        self.connections.discard(connection)
        self.shutdown_request(connection.request)

    def lost(self, connection: _Adapter, error: Exception) -> None:
        """End a connection that failed: mostly its client went away."""
        if isinstance(error, OSError):
            self.debug(f"{connection.client_address[0]} went away: {error!r}")
        elif not isinstance(error, EOFError):
            self.mock.report(error)
        self.drop(connection)

    def lead(self) -> None:
        """Answer what comes on the watched connections, until another thread leads."""
        self._leader = me = threading.current_thread()
        while self._leader is me and not self.mock.stopping.is_set():
            if not self._ready:
                self._ready.extend(self._look())
                continue
            connection = self._working_on = self._ready.popleft()
            try:
                rest = connection.answer_ready()
                if self._leader is not me:
                    connection.serve(rest)
                elif rest is not None:
                    self._selector.unregister(connection.request)
                    self._working_on = None
                    if not self.threads.start(connection.serve, rest):
                        connection.serve(rest)
            except Exception as error:
                self.lost(connection, error)

    def _look(self) -> list[_Adapter]:
        end = time.monotonic() + _AWAKE_SECONDS
        while not (found := self._selector.select(0)) and time.monotonic() < end:
            pass
        found = found or self._selector.select()
        return [key.data for key, _ in found if key.data or not self._wakened.recv(4096)]

    def pass_lead(self) -> None:
        """If this thread leads, have another one do so, unless there is none to be had."""
        leader, connection = self._leader, self._working_on
        if connection is not None and leader is threading.current_thread():
            self._selector.unregister(connection.request)
            self._leader = None
            if self.threads.start(self.lead):
                connection.deadline = math.inf
            else:
                self._leader = leader
                self._selector.register(connection.request, selectors.EVENT_READ, connection)

    def handle_error(self, *_: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.debug(f"connection lost: {error}")
        elif error is not None:
            self.mock.report(error)

    def service_actions(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        for connection in list(self.connections):
            if now > connection.deadline:  # a reader is left able to answer 408
                shut_down(connection.request, socket.SHUT_RDWR if connection.sending else socket.SHUT_RD)

    def end_connections(self) -> None:
        self.wake()
        for connection in list(self.connections):
            shut_down(connection.request)
        self.threads.join()
        for connection in list(self.connections):
            self.drop(connection)
        for end in (self._selector, self._waker, self._wakened):
            end.close()


_P = ParamSpec("_P")


def _with_fields_of(config: Callable[_P, Config]) -> Callable[[Any], Callable[Concatenate[Any, _P], None]]:
    # Lets an __init__ take the fields of Config as its keyword arguments, typed.
    def decorate(init: Any) -> Callable[Concatenate[Any, _P], None]:
        return lambda self, /, *args, **kwargs: init(self, config(*args, **kwargs))

    return decorate


class MockServer(VideoMock):
    """A VideoMock on a port of its own, in a thread of its own; keyword arguments are the fields of Config.

    >>> with MockServer(webhook_secret="s") as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    debug: Callable[[str], None] = staticmethod(lambda line: None)  # takes a line per broken connection
    _server: _Server | None = None
    _thread: threading.Thread | None = None
    _serving = False

    @_with_fields_of(Config)
    def __init__(self, config: Config) -> None:
        super().__init__(config)

    def open(self) -> str:
        """Listen, without serving yet; OSError for a busy port, RuntimeError after `stop`.  The URL."""
        if self.stopping.is_set():
            raise RuntimeError("the mock has been stopped: make another one")
        self._server = _Server(self, self.debug)
        return self.url

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve in this thread; `stop` takes as long as the interval, in seconds."""
        assert self._server is not None
        self._serving = True
        self._server.serve_forever(poll_interval)

    def start(self) -> MockServer:
        """Listen and serve in a thread.

        >>> server = MockServer(port=0).start()
        >>> server.stop()
        """
        if self._server is not None:
            return self
        self.open()
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.005,), name="openrouter_video_mock", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop for good, leaving no thread; RuntimeError for what the mock itself did wrong while it ran."""
        server, self._server = self._server, None
        self.close()
        if server is not None:
            if self._serving or self._thread is not None:
                server.shutdown()
            if self._thread is not None:
                self._thread.join()
            server.server_close()
            server.end_connections()
        if self.errors:
            raise RuntimeError(f"the mock itself failed: {self.errors[0]!r}") from self.errors[0]

    def __enter__(self) -> MockServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self.stop()
        except RuntimeError:
            if error is None:  # what the test itself raised matters more
                raise

    @property
    def origin(self) -> str:
        """Scheme, host and port: http://127.0.0.1:49152."""
        if self._server is None:
            raise RuntimeError("the mock is not running: use `with MockServer() as mock:` or start()")
        host, port = map(str, self._server.server_address[:2])
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def url(self) -> str:
        """What an SDK calls server_url or baseURL: the origin with /api/v1."""
        return self.origin + API


def pytest_configure(config: Any) -> None:
    """Give pytest the fixture openrouter_video_mock: a fresh server per test.

    pytest calls this hook when the module is its plugin; nothing else here imports pytest.
    """
    pytest: Any = importlib.import_module("pytest")  # mypy must not mind if it is not installed

    def openrouter_video_mock() -> Iterator[MockServer]:
        """A running MockServer, fresh for each test."""
        with MockServer() as mock:
            yield mock

    fixture = staticmethod(pytest.fixture(openrouter_video_mock))
    fixtures = type("Fixtures", (), {"openrouter_video_mock": fixture})
    config.pluginmanager.register(fixtures(), "openrouter_video_mock fixtures")


# ============ 13. Command line ===============================================================================
#
# The parser is built from Config.  Stdout carries one line, the URL; everything else goes to stderr.
# Exit status: 0 after SIGINT or SIGTERM, 1 with one line for what stops the start, 2 for wrong usage.

_ENVIRONMENT = "OPENROUTER_VIDEO_MOCK_"
_SHORT_FLAGS = {"port": ["-p"], "fixtures": ["-f"], "quiet": ["-q"], "verbose": ["-v"]}
_DEFAULT_PORT = 8080
_COMMANDS: dict[str, tuple[Any, str, str]] = {  # like OPTIONS, for what is no setting of a mock
    "validate": (bool, "", "read the fixtures, say what is wrong, and exit"),
    "check": (bool, "", "ask a running mock for its health: exit 0 or 1"),
    "wait": (float, "S", "with --check: try for this many seconds"),
    "quiet": (bool, "", "no line per request"),
    "verbose": (bool, "", "a line for broken connections too"),
}


def build_parser() -> argparse.ArgumentParser:
    """The command line; a flag that is not given leaves no trace, so that environment and Config can speak."""
    parser = argparse.ArgumentParser(
        prog="openrouter_video_mock",
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A local stand-in for OpenRouter's asynchronous video API: submit, poll, download, webhook.",
        epilog=f"""Every flag has a twin in the environment, such as {_ENVIRONMENT}PORT=9000; repeatable ones are
separated by commas there, and {_ENVIRONMENT}FAULT is a JSON object or list.

examples:
  openrouter_video_mock.py --port 0 --polls 2,3
  openrouter_video_mock.py -f my.json --webhook-secret s3cret --callback-url http://localhost:3000/hook
  openrouter_video_mock.py --fault '{{"on": "poll", "status": 503, "times": 2}}'""",
    )
    defaults = Config(port=_DEFAULT_PORT)._asdict()
    for name, (parse, placeholder, text) in {**OPTIONS, **_COMMANDS}.items():
        flags = [*_SHORT_FLAGS.get(name, ()), f"--{name.replace('_', '-')}"]
        if parse is bool:
            parser.add_argument(*flags, action="store_true", help=text)
            continue
        default = None if name in REPEATABLE else defaults.get(name)
        if default:
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            text += f" (default: {shown})"
        action = "append" if name in REPEATABLE else "store"
        parser.add_argument(*flags, action=action, type=parse, metavar=placeholder, help=text)
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def environment_flags(environment: Mapping[str, str]) -> list[str]:
    """The flags that the environment twins stand for."""
    flags = []
    for name, (parse, _, _) in {**OPTIONS, **_COMMANDS}.items():
        value = environment.get(_ENVIRONMENT + name.upper(), "")
        flag = f"--{name.replace('_', '-')}"
        if parse is bool:
            flags += [flag] if value.lower() not in ("", "0", "false", "no") else []
        elif value:
            several = name in REPEATABLE and name != "fault"
            flags += [f"{flag}={part}" for part in (value.split(",") if several else [value])]
    return flags


def main(
    argv: Sequence[str] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """Run the command line until SIGINT or SIGTERM; the exit status."""
    out, log = stdout or sys.stdout, _Log(stderr or sys.stderr)
    parser = build_parser()
    given = vars(parser.parse_args(environment_flags(os.environ if environment is None else environment)))
    given |= vars(parser.parse_args(argv))
    commands = {name: given.pop(name, None) for name in _COMMANDS}
    given.setdefault("port", _DEFAULT_PORT)

    try:
        config = checked_config(Config(**given))
        if commands["check"]:
            return check_health(config, commands["wait"] or 0, log.say)
        if not commands["validate"] and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _leave)
            signal.signal(signal.SIGINT, _leave)  # which a shell's & lets a process ignore
        server = MockServer(**given)
        loaded = server.store.loaded
        for note in loaded.notes:
            log.say(printable(note))
        if commands["validate"]:
            out.write(f"ok: {len(loaded.fixtures)} fixtures, {len(loaded.models)} models\n")
            return 0
        server.log = None if commands["quiet"] else log.say_soon
        server.debug = log.say_soon if commands["verbose"] else server.debug
        server.notice = log.say_soon
        url = server.open()
    except SetupError as error:
        log.say(printable(str(error)))
        return 1
    except OSError as error:
        log.say(f"cannot listen on {config.host}:{config.port}: {error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        return 1 if commands["check"] else 0

    with log, contextlib.suppress(KeyboardInterrupt):
        _serve(server, url, out)
    return 0


def _leave(*_: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)  # one is enough
    signal.signal(signal.SIGINT, lambda *_: None)
    raise KeyboardInterrupt


def _serve(server: MockServer, url: str, out: TextIO) -> None:
    # Not in this thread: what a signal raises must not strike in the middle of something.
    serving = threading.Thread(target=server.serve_forever, name="openrouter_video_mock", daemon=True)
    serving.start()
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stdout may be closed
        out.write(f"openrouter_video_mock listening on {url}\n")
        out.flush()
    gc.freeze()  # nothing here makes cycles: looking for them among 10,000 jobs only lengthens the tails
    gc.set_threshold(100_000)
    while serving.is_alive():
        time.sleep(1)


class _Log:
    """Lines for stderr, coloured on a terminal.

    A thread writes what comes while the mock serves: who started it may never read the pipe, and a full pipe must
    stop neither requests nor the end.  What does not fit is dropped.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(maxsize=10_000)  # None: the last one
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # whoever read it has gone
            if self._stream is not None:
                self._stream.write(f"{_coloured(line) if self._stream.isatty() else line}\n")
                self._stream.flush()

    def say_soon(self, line: str | None) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(line)

    def _write(self) -> None:
        for line in iter(self._lines.get, None):
            self.say(line)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.say_soon(None)
        self._thread.join(0.2)  # to write what is left


def _coloured(line: str) -> str:
    def colour(status: re.Match[str]) -> str:
        return f" \x1b[{32 if status[1] < '4' else 31}m{status[1]}\x1b[0m "

    return re.sub(r" ([1-5]\d\d|closed) ", colour, line, count=1)


def check_health(config: Config, wait: float, say: Callable[[str], None]) -> int:
    """Ask the mock that these settings would start; 0 once it answers, 1 if it does not in time."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    end = time.monotonic() + wait
    while True:
        try:
            with contextlib.closing(http.client.HTTPConnection(host, config.port, timeout=2)) as connection:
                connection.request("GET", "/health")
                if json.loads(connection.getresponse().read())["status"] == "ok":
                    return 0
            reason = "something else answers"
        except (OSError, ValueError, TypeError, LookupError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        if time.monotonic() >= end:
            say(f"no mock on {host}:{config.port}: {reason}")
            return 1
        time.sleep(0.05)


if __name__ == "__main__":
    _status = main()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    # At once: no waiting for connections, and no thread left to trip over a closing interpreter.
    os._exit(_status)

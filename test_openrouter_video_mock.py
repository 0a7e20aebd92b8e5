"""Tests of openrouter_video_mock: real servers on port 0, the clock moved instead of slept, any order."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import hashlib
import hmac
import html
import http.client
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import openrouter_video_mock as ovm
from openrouter_video_mock import (
    ApiError,
    Config,
    MockServer,
    Request,
    Response,
    SetupError,
    Status,
    VideoMock,
)

HERE = Path(__file__).parent
MODULE = HERE / "openrouter_video_mock.py"
FIXTURES = HERE / "fixtures.json"
README = (HERE / "README.md").read_text(encoding="utf-8")
API = "/api/v1"
VEO = {"model": "google/veo-3.1", "prompt": "a cat"}
FIRST_FRAME = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}, "frame_type": "first_frame"}


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


def call(
    mock: MockServer, method: str, path: str, body: Any = None, *, key: str | None = "test", **headers: str
) -> Reply:
    """One request on a connection of its own; a body that is no bytes is sent as JSON."""
    host, _, port = mock.origin.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=10)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        sent.setdefault("Authorization", f"Bearer {key}")
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, sent)
        response = connection.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def submit(mock: MockServer, prompt: str = "a cat", **fields: Any) -> str:
    reply = call(mock, "POST", f"{API}/videos", {**VEO, "prompt": prompt, **fields})
    assert reply.status == 202, reply.raw
    return str(reply.json["id"])


def poll(mock: MockServer, job_id: str) -> dict[str, Any]:
    reply = call(mock, "GET", f"{API}/videos/{job_id}")
    assert reply.status == 200, reply.raw
    return dict(reply.json)


def poll_to_the_end(mock: MockServer, job_id: str) -> dict[str, Any]:
    for _ in range(10):
        wire = poll(mock, job_id)
        if wire["status"] not in ("pending", "in_progress"):
            return wire
    raise AssertionError("the job does not end")


def statuses(mock: MockServer, job_id: str, count: int) -> list[str]:
    return [poll(mock, job_id)["status"] for _ in range(count)]


def zod_issues(reply: Reply) -> list[dict[str, Any]]:
    assert reply.status == 400, reply.raw
    assert reply.json["success"] is False and reply.json["error"]["name"] == "ZodError"
    return list(json.loads(reply.json["error"]["message"]))


@pytest.fixture
def mock() -> Iterator[MockServer]:
    """A mock without fixture files: every submit succeeds."""
    with MockServer(fixtures=[]) as server:
        yield server


@pytest.fixture(scope="module")
def catalogue() -> Iterator[MockServer]:
    """A mock with the fixtures.json that ships."""
    with MockServer(fixtures=str(FIXTURES)) as server:
        yield server


# ============ Settings ==================================================================================


def test_every_setting_is_a_flag_with_help_and_an_environment_twin() -> None:
    assert set(ovm.OPTIONS) == set(Config._fields)
    text = ovm.build_parser().format_help()
    for name in Config._fields:
        assert f"--{name.replace('_', '-')}" in text
    assert ovm.environment_flags(
        {"OPENROUTER_VIDEO_MOCK_API_KEY": "a,b", "OPENROUTER_VIDEO_MOCK_QUIET": "1"}
    ) == [
        "--api-key=a",
        "--api-key=b",
        "--quiet",
    ]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"port": -1}, "port: must be 0 to 65535, got -1"),
        ({"polls": (1, -1)}, "polls: must be two numbers of at least 0, got (1, -1)"),
        ({"seconds": (0.5,)}, "seconds: must be two numbers"),
        ({"latency": float("nan")}, "latency: must be 0 to 3600, got nan"),
        ({"latency": 1e10}, "latency: must be 0 to 3600"),
        ({"seconds": (0, 1e300)}, "seconds: must be two numbers"),
        ({"max_jobs": 0}, "max_jobs: must be 1 to 10000000, got 0"),
        ({"public_url": "ftp://x"}, "public_url: must be an http or https URL"),
        ({"callback_url": "localhost:3000"}, "callback_url: must be an http or https URL"),
        ({"fault": {"on": "poll"}}, "fault: does nothing"),
        ({"fixtures": 7}, "fixtures: expected a path or an object, got 7"),
        ({"latency": "x"}, "a setting is of the wrong type: '<=' not supported"),
        ({"polls": 3}, "a setting is of the wrong type"),
        ({"public_url": 5}, "a setting is of the wrong type"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SetupError, match=re.escape(complaint)):
        MockServer(**settings)


# ============ Wire contract =============================================================================


def test_submit_answers_202_with_exactly_three_keys(mock: MockServer) -> None:
    reply = call(mock, "POST", f"{API}/videos", VEO)
    assert reply.status == 202
    assert list(reply.json) == ["id", "polling_url", "status"]
    assert re.fullmatch(r"gen-vid-\d{10}-[0-9A-Za-z]{20}", reply.json["id"])
    assert reply.json["polling_url"] == f"{mock.url}/videos/{reply.json['id']}"
    assert b" " not in reply.raw and not reply.raw.endswith(b"\n")


def test_the_lifecycle_shows_exactly_the_documented_keys_in_order(mock: MockServer) -> None:
    job_id = submit(mock)
    unfinished = poll(mock, job_id)
    assert list(unfinished) == ["id", "generation_id", "polling_url", "status"]
    assert unfinished["status"] == "in_progress" and unfinished["generation_id"] == job_id
    done = poll(mock, job_id)
    assert list(done) == [*unfinished, "unsigned_urls", "urls", "expires_at", "usage"]
    assert done["unsigned_urls"] == [f"{mock.url}/videos/{job_id}/content?index=0"]
    assert done["usage"] == {"cost": 1.6, "is_byok": False}
    assert done["expires_at"] == pytest.approx(mock.now() + 86400, abs=5)
    assert poll(mock, job_id) == done


@pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
def test_a_job_that_ends_badly_is_http_200_with_a_plain_error(mock: MockServer, status: str) -> None:
    wire = poll_to_the_end(mock, submit(mock, f"mock:{status}"))
    assert list(wire) == ["id", "generation_id", "polling_url", "status", "error"]
    assert wire["status"] == status and isinstance(wire["error"], str)
    assert mock.job()["error"] == wire["error"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "No cookie auth credentials found"),
        ("Basic dGVzdA==", "Missing Authentication header"),
        ("Bearer", "Missing Authentication header"),
        ("Bearer  ", "Missing Authentication header"),
        ("Bearer wrong", "User not found."),
    ],
)
@pytest.mark.parametrize(
    "route", ["POST /videos", "GET /videos/x", "GET /videos/x/content", "GET /key", "GET /credits"]
)
def test_production_has_three_wordings_of_401(header: str | None, message: str, route: str) -> None:
    method, path = route.split()
    with MockServer(fixtures=[], api_key=["right"]) as mock:
        headers = {} if header is None else {"Authorization": header}
        reply = call(mock, method, API + path, VEO if method == "POST" else None, key=None, **headers)
        assert (reply.status, reply.json) == (401, {"error": {"message": message, "code": 401}})


def test_only_listed_keys_are_valid_and_models_need_none() -> None:
    with MockServer(fixtures=[], api_key="right") as mock:
        assert call(mock, "POST", f"{API}/videos", VEO, key="right").status == 202
        assert call(mock, "GET", f"{API}/videos/models", key="wrong").status == 200
        assert call(mock, "GET", f"{API}/models?output_modalities=video", key=None).status == 200


ZOD_TABLE: list[tuple[Any, list[Any], str]] = [
    ({}, ["model"], "Invalid input: expected string, received undefined"),
    ({"model": 3}, ["model"], "Invalid input: expected string, received number"),
    ([], [], "Invalid input: expected object, received array"),
    (b"null", [], "Invalid input: expected object, received null"),
    ({**VEO, "prompt": None}, ["prompt"], "Invalid input: expected string, received null"),
    ({**VEO, "duration": 0}, ["duration"], "Too small: expected number to be >=1"),
    ({**VEO, "duration": 1.5}, ["duration"], "Invalid input: expected int, received number"),
    ({**VEO, "duration": "8"}, ["duration"], "Invalid input: expected number, received string"),
    ({**VEO, "duration": True}, ["duration"], "Invalid input: expected number, received boolean"),
    ({**VEO, "resolution": 720}, ["resolution"], 'Invalid option: expected one of "360p"|"480p"|"720p"|'),
    ({**VEO, "aspect_ratio": "5:4"}, ["aspect_ratio"], 'Invalid option: expected one of "16:9"|"9:16"|'),
    ({**VEO, "size": 5}, ["size"], "Invalid input: expected string, received number"),
    (
        {**VEO, "generate_audio": "yes"},
        ["generate_audio"],
        "Invalid input: expected boolean, received string",
    ),
    ({**VEO, "seed": 2**60}, ["seed"], "Too big: expected int to be <=9007199254740991"),
    ({**VEO, "creativity": 0.5}, ["creativity"], "Invalid input: expected int, received number"),
    ({**VEO, "upscale_factor": 0}, ["upscale_factor"], "Too small: expected number to be >0"),
    ({**VEO, "callback_url": "nope"}, ["callback_url"], "Invalid URL"),
    ({**VEO, "callback_url": "http://example.com/"}, ["callback_url"], "callback_url must use HTTPS"),
    ({**VEO, "previous_job_id": "x"}, ["previous_job_id"], "Invalid string: must match pattern /^gen-vid-"),
    ({**VEO, "session_id": "x" * 257}, ["session_id"], "Too big: expected string to have <=256 characters"),
    ({**VEO, "trace": []}, ["trace"], "Invalid input: expected object, received array"),
    (
        {**VEO, "trace": {"trace_id": 1}},
        ["trace", "trace_id"],
        "Invalid input: expected string, received number",
    ),
    ({**VEO, "user": {}}, ["user"], "Invalid input: expected string, received object"),
    ({**VEO, "provider": 3}, ["provider"], "Invalid input: expected object, received number"),
    (
        {**VEO, "provider": {"options": {"a": 3}}},
        ["provider", "options", "a"],
        "Invalid input: expected record",
    ),
    ({**VEO, "frame_images": {}}, ["frame_images"], "Invalid input: expected array, received object"),
    (
        {**VEO, "frame_images": [FIRST_FRAME, {**FIRST_FRAME, "frame_type": "mid"}]},
        ["frame_images", 1, "frame_type"],
        'Invalid option: expected one of "first_frame"|"last_frame"',
    ),
    (
        {**VEO, "frame_images": [{**FIRST_FRAME, "type": "x"}]},
        ["frame_images", 0, "type"],
        'Invalid input: expected "image_url"',
    ),
    (
        {**VEO, "frame_images": [{**FIRST_FRAME, "image_url": {}}]},
        ["frame_images", 0, "image_url", "url"],
        "Invalid input: expected string, received undefined",
    ),
    (
        {**VEO, "input_references": [{"type": "text"}]},
        ["input_references", 0, "type"],
        "Invalid discriminator value. Expected 'image_url' | 'audio_url' | 'video_url'",
    ),
    (
        {**VEO, "input_references": [3]},
        ["input_references", 0],
        "Invalid input: expected object, received number",
    ),
]


@pytest.mark.parametrize(("body", "path", "message"), ZOD_TABLE)
def test_a_body_that_breaks_the_schema_gets_the_zod_envelope(
    catalogue: MockServer, body: Any, path: list[Any], message: str
) -> None:
    issues = zod_issues(call(catalogue, "POST", f"{API}/videos", body))
    assert [issue["path"] for issue in issues] == [path]
    assert issues[0]["message"].startswith(message)
    assert list(issues[0])[-2:] == ["path", "message"]


def test_zod_issues_come_one_per_fault_with_the_recorded_key_order(mock: MockServer) -> None:
    reply = call(mock, "POST", f"{API}/videos", {"duration": 0, "resolution": "9p"})
    text = reply.json["error"]["message"]
    assert text.startswith('[\n  {\n    "expected": "string",\n    "code": "invalid_type",\n    "path": [\n')
    issues = zod_issues(reply)
    assert [list(issue) for issue in issues] == [
        ["expected", "code", "path", "message"],
        ["origin", "code", "minimum", "inclusive", "path", "message"],
        ["code", "values", "path", "message"],
    ]


def test_whole_floats_are_integers_and_unknown_keys_are_stripped(mock: MockServer) -> None:
    submit(
        mock,
        duration=8.0,
        nonsense=[1, 2],
        session_id="s",
        trace={"more": 1},
        user="u",
        provider={"options": {}},
    )
    request = mock.job()["request"]
    assert request["duration"] == 8 and isinstance(request["duration"], int)
    assert "nonsense" not in request and request["trace"] == {"more": 1}


HOSTILE_BODIES = {
    "nothing": b"",
    "not JSON": b"model=google/veo",
    "cut short": b'{"model": "a", "prompt": "b"',
    "NaN": b'{"model": "a", "prompt": "b", "duration": NaN}',
    "Infinity": b'{"model": "a", "prompt": "b", "upscale_factor": Infinity}',
    "huge float": b'{"model": "a", "prompt": "b", "upscale_factor": 1e999}',
    "huge float in an unknown key": b'{"model": "a", "prompt": "b", "x": [1e999]}',
    "huge integer": b'{"model": "a", "prompt": "b", "seed": ' + b"9" * 5000 + b"}",
    "brackets": b"[" * 100_000,
    "nested": b'{"model": "a", "prompt": "b", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "lone surrogate": b'{"model": "a", "prompt": "\\ud800"}',
    "invalid UTF-8": b'{"model": "a", "prompt": "\xff"}',
    "UTF-16": '{"model": "a"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"model": "a", "prompt": "b"}',
    "control character": b'{"model": "a", "prompt": "\x01"}',
    "two documents": b'{"model": "a", "prompt": "b"} {}',
}


@pytest.mark.parametrize("name", HOSTILE_BODIES)
def test_hostile_bodies_are_refused_as_production_refuses_a_schema_failure(
    mock: MockServer, name: str
) -> None:
    assert zod_issues(call(mock, "POST", f"{API}/videos", HOSTILE_BODIES[name]))
    assert submit(mock)


def test_surrogate_pairs_and_brackets_inside_strings_are_fine(mock: MockServer) -> None:
    body = b'{"model": "a/b", "prompt": "\\ud83d\\ude00 ' + b"[" * 500 + b'\\""}'
    assert call(mock, "POST", f"{API}/videos", body, Content_Type="text/plain").status == 202
    assert mock.job()["request"]["prompt"].startswith("\U0001f600 [[[")


def test_a_callback_over_plain_http_is_one_issue_among_others(mock: MockServer) -> None:
    body = {**VEO, "duration": 0, "callback_url": "http://example.com/"}
    paths = [issue["path"] for issue in zod_issues(call(mock, "POST", f"{API}/videos", body))]
    assert paths == [["duration"], ["callback_url"]]


def test_hostile_bodies_cost_little(mock: MockServer) -> None:
    begun = time.monotonic()
    deep = b'{"x":"' + b'\\"' * 20_000 + b"[" * 101
    assert zod_issues(call(mock, "POST", f"{API}/videos", deep))
    many = {**VEO, "frame_images": [1] * 500_000}
    assert len(zod_issues(call(mock, "POST", f"{API}/videos", many))) == 100
    assert time.monotonic() - begun < 3


def test_any_number_of_query_parameters_breaks_nothing(mock: MockServer) -> None:
    query = "testId=t&" + "a=1&" * 1000
    assert call(mock, "POST", f"{API}/videos?{query}", VEO).status == 202
    assert call(mock, "GET", f"{API}/videos/x/content?{query}").status == 404
    assert call(mock, "GET", f"/__mock/requests?{query}").status == 400
    assert {entry["scope"] for entry in mock.requests()} == {"t"}


def test_every_api_response_carries_the_cors_headers(mock: MockServer) -> None:
    for method, path in [
        ("GET", "/videos/models"),
        ("GET", "/nowhere"),
        ("POST", "/videos"),
        ("GET", "/key"),
    ]:
        headers = call(mock, method, API + path, b"{" if method == "POST" else None).headers
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["Access-Control-Expose-Headers"] == "X-Generation-Id,X-Provider-Name,request-id,cf-ray"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_browser_of_another_origin_may_preflight_any_path(mock: MockServer) -> None:
    asked = {
        "Origin": "https://app.test",
        "Access_Control_Request_Headers": "authorization, X-Stainless-OS, x-evil",
    }
    reply = call(mock, "OPTIONS", f"{API}/videos/anything", key=None, **asked)
    assert (reply.status, reply.raw) == (204, b"")
    assert reply.headers["Access-Control-Allow-Methods"] == "GET,OPTIONS,PATCH,DELETE,POST,PUT"
    allowed = reply.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"Authorization", "Idempotency-Key", "b3", "X-Stainless-OS"} <= set(allowed)
    assert "Range" not in allowed and "x-evil" not in allowed
    assert reply.headers["Vary"] == "Access-Control-Request-Headers"
    assert "Content-Length" not in reply.headers


@pytest.mark.parametrize(
    "route", ["DELETE /videos/x", "GET /videos", "PUT /videos", "GET /", "GET /videos/x/y"]
)
def test_what_production_does_not_have_is_404(mock: MockServer, route: str) -> None:
    method, path = route.split()
    reply = call(mock, method, API + path)
    assert (reply.status, reply.json) == (404, {"error": {"message": "Not Found", "code": 404}})


def test_generated_urls_follow_the_origin_that_the_client_used(mock: MockServer) -> None:
    port = mock.origin.rpartition(":")[2]

    def polling_url(**headers: str) -> str:
        reply = call(mock, "POST", f"{API}/videos", VEO, **headers)
        return str(reply.json["polling_url"]).partition("/api")[0]

    assert polling_url(Host=f"localhost:{port}") == f"http://localhost:{port}"
    assert polling_url(X_Forwarded_Host="a.test, b.test", X_Forwarded_Proto="https,http") == "https://a.test"
    assert polling_url(X_Forwarded_Host="a b<script>", X_Forwarded_Proto="gopher") == mock.origin


def test_public_url_and_relative_polling_url_are_settings() -> None:
    with MockServer(fixtures=[], public_url="https://mock.test/", relative_polling_url=True) as mock:
        job_id = submit(mock)
        wire = poll_to_the_end(mock, job_id)
        assert wire["polling_url"] == f"{API}/videos/{job_id}"
        assert wire["unsigned_urls"] == [f"https://mock.test{API}/videos/{job_id}/content?index=0"]


# ============ Catalogue and cost ========================================================================


def test_the_catalogue_lists_complete_models_newest_first(catalogue: MockServer) -> None:
    reply = call(catalogue, "GET", f"{API}/videos/models", key=None)
    models = reply.json["data"]
    assert len(models) == 30 and "max-age=120" in reply.headers["Cache-Control"]
    assert [model["created"] for model in models] == sorted((m["created"] for m in models), reverse=True)
    keys = (
        "id canonical_slug hugging_face_id name created description supported_resolutions supported_aspect_ratios "
        "supported_sizes supported_durations supported_frame_images upscale_factor creativity generate_audio seed "
        "pricing_skus allowed_passthrough_parameters"
    )
    assert all(" ".join(model) == keys for model in models)
    assert all(model["description"] for model in models)


def test_models_of_all_kinds_are_listed_only_if_video_is_asked_for(catalogue: MockServer) -> None:
    assert call(catalogue, "GET", f"{API}/models", key=None).json["data"] == []
    data = call(catalogue, "GET", f"{API}/models?output_modalities=image,video", key=None).json["data"]
    assert len(data) == 30
    assert data[0]["pricing"] == {"prompt": "0", "completion": "0"}
    assert data[0]["architecture"]["output_modalities"] == ["video"]
    assert "image" in data[0]["architecture"]["input_modalities"]


FUNNEL = {
    "routing_funnel": [{"step": "Initial Endpoints", "endpoint_count": 1}],
    "failed_routing_step": "Validate Video Parameters",
}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"duration": 99}, "Duration 99s is not supported for this model. Supported durations: 4, 6, 8s"),
        (
            {"resolution": "480p"},
            "Resolution 480p is not supported for this model. Supported resolutions: 720p, ",
        ),
        (
            {"aspect_ratio": "1:1"},
            "Aspect ratio 1:1 is not supported for this model. Supported aspect ratios: 16:9, ",
        ),
        ({"size": "1x1"}, "Size 1x1 is not supported for this model. Supported sizes: 1280x720, "),
    ],
)
def test_parameters_are_checked_in_productions_words(
    catalogue: MockServer, fields: dict[str, Any], message: str
) -> None:
    reply = call(catalogue, "POST", f"{API}/videos", {**VEO, **fields})
    assert reply.status == 400 and reply.message.startswith(message)
    assert reply.json["error"]["metadata"] == FUNNEL


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "no/such"}, "no/such is not a valid model ID"),
        ({"model": ""}, " is not a valid model ID"),
        ({"model": "google/veo-3.1-2"}, "google/veo-3.1-2 is not a valid model ID"),
        ({"model": "google/veo-3.1-4k"}, "google/veo-3.1-4k is not a valid model ID"),
        ({"prompt": ""}, "Google video generations require a prompt when no image input is provided"),
        (
            {"model": "openai/sora-2-pro", "frame_images": [FIRST_FRAME]},
            'the provider integration for model "openai/sora-2-pro" does not support first_frame frame_images',
        ),
        (
            {"previous_job_id": "gen-vid-1790983457-BXyYqhSkuztnVdDoZpef"},
            "google/veo-3.1-20260320 does not support previous_job_id",
        ),
        (
            {"input_references": [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA"}}]},
            "Invalid reference URL: input_references[0].video_url.url: Only HTTPS URLs are allowed",
        ),
        (
            {"frame_images": [{**FIRST_FRAME, "image_url": {"url": "http://x.test/a.png"}}]},
            "Invalid reference URL: frame_images[0].image_url.url: Only HTTPS URLs are allowed",
        ),
        (
            {"model": "black-forest-labs/flux-video-upscale", "upscale_factor": 9},
            "Upscale factor 9 is not supported for this model. Supported upscale factors: 1.5 to 3",
        ),
    ],
)
def test_requests_that_production_refuses_are_refused(
    catalogue: MockServer, fields: dict[str, Any], message: str
) -> None:
    reply = call(catalogue, "POST", f"{API}/videos", {**VEO, **fields})
    assert (reply.status, reply.message) == (400, message)


def test_canonical_slugs_images_without_prompt_and_data_urls_are_accepted(catalogue: MockServer) -> None:
    data_url = {**FIRST_FRAME, "image_url": {"url": "data:image/png;charset=utf-8;base64,iVBORw0KGgo="}}
    loud = {**FIRST_FRAME, "image_url": {"url": "HTTPS://x.test/a.png"}}
    for body in (
        {**VEO, "model": "google/veo-3.1-20260320"},
        {"model": "google/veo-3.1", "frame_images": [data_url]},
        {"model": "google/veo-3.1", "prompt": "", "frame_images": [FIRST_FRAME]},
        {**VEO, "frame_images": [loud], "callback_url": "HTTPS://x.test/hook"},
        {
            "model": "black-forest-labs/flux-video-upscale",
            "input_references": [{"type": "video_url", "video_url": {"url": "https://x.test/a.mp4"}}],
        },
    ):
        assert call(catalogue, "POST", f"{API}/videos", body).status == 202, body


IMAGE = [FIRST_FRAME]
GROK, SEEDANCE = "x-ai/grok-imagine-video", "bytedance/seedance-2.0"
VIDEO_INPUT = [{"type": "video_url", "video_url": {"url": "https://x.test/a.mp4"}}]
IMAGE_INPUT = [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]


@pytest.mark.parametrize(
    ("cost", "model", "fields"),
    [
        # Charged by production.
        (0.052, GROK, {"resolution": "480p", "duration": 1, "frame_images": IMAGE}),
        (0.07, GROK, {"resolution": "720p", "duration": 1}),
        (0.072, GROK, {"resolution": "720p", "duration": 1, "frame_images": IMAGE}),
        (0.1358, "bytedance/seedance-2.0-mini", {"resolution": "480p", "aspect_ratio": "1:1", "duration": 4}),
        (1.008, "kwaivgi/kling-v3.0-std", {"duration": 12, "generate_audio": False}),
        (0.32, "google/veo-3.1-fast", {"resolution": "720p", "duration": 4, "generate_audio": False}),
        (0.2, "google/veo-3.1-lite", {"resolution": "720p", "duration": 4, "generate_audio": True}),
        (0.4902, "minimax/hailuo-2.3", {}),
        (0.56, "kwaivgi/kling-video-o1", {}),
        (0.402, GROK, {"frame_images": IMAGE}),
        (1.16523, "bytedance/seedance-2.5", {}),
        # By the same rules.
        (1.512, "kwaivgi/kling-v3.0-std", {"duration": 12}),
        (2.4, "google/veo-3.1", {"duration": 4, "resolution": "4K"}),
        (2.4, "google/veo-3.1", {"duration": 4, "size": "3840x2160"}),
        (0.75, "alibaba/wan-2.6", {"duration": 5, "resolution": "1080p", "frame_images": IMAGE}),
        (0.2, "heygen/heygen-video-1", {"duration": 5, "input_references": IMAGE_INPUT}),
        (0.69, "minimax/hailuo-3", {"duration": 5, "input_references": IMAGE_INPUT}),
        (1.4, "runway/aleph-2", {"input_references": VIDEO_INPUT}),
        (2.05, "black-forest-labs/flux-3-video", {"duration": 5, "input_references": VIDEO_INPUT}),
        (0.58, "black-forest-labs/flux-3-video", {"duration": 2, "resolution": "1080p"}),
        (
            1.3824,
            "black-forest-labs/flux-video-upscale",
            {"upscale_factor": 2, "input_references": VIDEO_INPUT},
        ),
        (1.93536, "black-forest-labs/flux-video-upscale", {"creativity": 1, "upscale_factor": 2}),
        (0, "someone/else", {}),
        # sizes that no price names: as the nearest resolution
        (2.5, "x-ai/grok-imagine-video-1.5", {"duration": 10, "size": "2560x1440"}),
        (1, "alibaba/wan-3.0", {"duration": 10, "size": "1366x768"}),
        (
            0.6,
            "heygen/heygen-video-1",
            {"duration": 10, "size": "1280x720", "input_references": IMAGE_INPUT},
        ),
    ],
)
def test_costs_follow_the_price_list(cost: float, model: str, fields: dict[str, Any]) -> None:
    models = {m.id: m for m in ovm.load_fixtures([FIXTURES]).models}
    wanted = ovm.parse_video_request(json.dumps({"model": model, "prompt": "x", **fields}).encode())
    found = models.get(model, ovm.Model(model, model, name=model))
    assert ovm.cost_of(wanted.shape, found) == pytest.approx(cost, abs=1e-12)
    assert len(repr(ovm.cost_of(wanted.shape, found))) < 12, "binary noise"


@pytest.mark.parametrize(
    ("size", "model", "fields"),
    [
        ((640, 640), "bytedance/seedance-2.0-mini", {"resolution": "480p", "aspect_ratio": "1:1"}),
        ((496, 864), SEEDANCE, {"resolution": "480p", "aspect_ratio": "9:16"}),
        ((834, 1112), SEEDANCE, {"resolution": "720p", "aspect_ratio": "3:4"}),
        ((1920, 1080), SEEDANCE, {"resolution": "1080p"}),
        ((854, 480), GROK, {}),
        ((1080, 720), GROK, {"resolution": "720p", "aspect_ratio": "3:2"}),
        ((1366, 768), "minimax/hailuo-3-max", {}),
        ((2560, 1440), "minimax/hailuo-3", {}),
        ((1120, 480), "heygen/heygen-video-1", {"aspect_ratio": "21:9"}),
        ((2560, 1440), "black-forest-labs/flux-video-upscale", {}),
        ((1920, 1080), "black-forest-labs/flux-video-upscale", {"upscale_factor": 1.5}),
        ((480, 270), "someone/else", {"size": "480x270"}),
        ((1280, 720), "someone/else", {"size": "large"}),
    ],
)
def test_the_output_size_follows_the_request_and_the_catalogue(
    size: tuple[int, int], model: str, fields: dict[str, Any]
) -> None:
    models = {m.id: m for m in ovm.load_fixtures([FIXTURES]).models}
    wanted = ovm.parse_video_request(json.dumps({"model": model, "prompt": "x", **fields}).encode())
    assert ovm.output_size(wanted.shape, models.get(model, ovm.Model(model, model, name=model))) == size


def test_without_a_models_list_any_model_goes_and_prices_are_real_where_known(mock: MockServer) -> None:
    assert poll_to_the_end(mock, submit(mock, model="some/thing", duration=99))["usage"]["cost"] == 0
    assert poll_to_the_end(mock, submit(mock, model=GROK, duration=1))["usage"]["cost"] == 0.05
    assert len(call(mock, "GET", f"{API}/videos/models").json["data"]) == len(ovm.BUILT_IN_MODELS)


def test_a_model_that_a_fixture_names_is_known_beside_the_catalogue() -> None:
    mine = {"models": [{"id": "a/b"}], "fixtures": [{"match": {"model": "c/d"}}, {"match": {}}]}
    with MockServer(fixtures=mine) as mock:
        for model in ("a/b", "c/d"):  # what an entry leaves out is not checked
            body = {**VEO, "model": model, "frame_images": IMAGE, "duration": 99}
            assert call(mock, "POST", f"{API}/videos", body).status == 202
        assert call(mock, "POST", f"{API}/videos", {**VEO, "model": "c/d-20260101"}).status == 202
        assert call(mock, "POST", f"{API}/videos", {**VEO, "model": "c/e"}).status == 400


# ============ Adjacent routes ===========================================================================


def test_a_models_list_alone_enforces_the_catalogue_and_lets_the_rest_succeed() -> None:
    with MockServer(fixtures={"models": [{"id": "a/b", "supported_durations": [5]}]}) as mock:
        assert call(mock, "POST", f"{API}/videos", {**VEO, "model": "a/b"}).status == 202
        assert call(mock, "POST", f"{API}/videos", {**VEO, "model": "a/b", "duration": 6}).status == 400


def test_a_listed_model_refuses_previous_job_id_even_without_a_catalogue(mock: MockServer) -> None:
    previous = {"previous_job_id": "gen-vid-1790983457-BXyYqhSkuztnVdDoZpef"}
    assert call(mock, "POST", f"{API}/videos", {**VEO, **previous}).status == 400
    assert call(mock, "POST", f"{API}/videos", {**VEO, "model": "any/thing", **previous}).status == 202


def test_key_and_credits_add_up_what_completed_jobs_cost() -> None:
    with MockServer(fixtures=[], max_jobs=2) as mock:
        for key, prompt in (("a", "x"), ("a", "mock:failed"), ("b", "x"), ("b", "x")):
            job_id = call(mock, "POST", f"{API}/videos", {**VEO, "prompt": prompt}, key=key).json["id"]
            poll_to_the_end(mock, job_id)
        submit(mock)  # not completed, costs nothing yet; three jobs are no longer kept
        usage = call(mock, "GET", f"{API}/key", key="a").json["data"]
        assert usage["usage"] == 1.6 and usage["limit"] is None and usage["is_free_tier"] is False
        assert list(usage)[:5] == ["label", "usage", "limit", "limit_remaining", "limit_reset"]
        assert call(mock, "GET", f"{API}/credits").json["data"] == {"total_credits": 1000, "total_usage": 4.8}


def test_generation_is_known_once_the_job_completed(mock: MockServer) -> None:
    job_id = submit(mock)
    before = call(mock, "GET", f"{API}/generation?id={job_id}")
    assert (before.status, before.message) == (404, f"Generation {job_id} not found")
    poll_to_the_end(mock, job_id)
    data = call(mock, "GET", f"{API}/generation?id={job_id}").json["data"]
    expected = {
        "id": job_id,
        "api_type": "video",
        "model": "google/veo-3.1-20260320",
        "total_cost": 1.6,
        "usage": 1.6,
    }
    assert expected.items() <= data.items()
    assert data["finish_reason"] == "complete" and data["tokens_prompt"] is None
    failed = submit(mock, "mock:failed")
    poll_to_the_end(mock, failed)
    assert call(mock, "GET", f"{API}/generation?id={failed}").status == 404
    assert call(mock, "GET", f"{API}/generation?id=latest").status == 404


def test_the_chat_route_refuses_video_models_as_recorded(mock: MockServer) -> None:
    reply = call(mock, "POST", f"{API}/chat/completions", {"model": "google/veo-3.1", "messages": []})
    assert reply.status == 400
    assert reply.message == (
        "`google/veo-3.1` is a video generation model and cannot be used with the chat/completions endpoint. "
        "Use the `/api/v1/videos` endpoint instead."
    )
    other = call(mock, "POST", f"{API}/chat/completions", {"model": "openai/gpt-4o"})
    assert other.message == "openai/gpt-4o is not a valid model ID"
    assert call(mock, "POST", f"{API}/chat/completions", b"{").status == 400
    assert call(mock, "POST", f"{API}/chat/completions", []).status == 400


# ============ Fixtures ==================================================================================


def serving(*fixtures: dict[str, Any], **settings: Any) -> MockServer:
    return MockServer(fixtures=list(fixtures), **settings)


def fails(match: dict[str, Any], error: str = "no", **more: Any) -> dict[str, Any]:
    return {"match": match, "response": {"video": {"status": "failed", "error": error}}, **more}


@pytest.mark.parametrize(
    ("match", "body", "holds"),
    [
        ({}, {}, True),
        ({"prompt": "cat"}, {}, True),
        ({"prompt": "Cat"}, {}, False),
        ({"userMessage": "cat"}, {}, True),
        ({"prompt": {"equals": "a cat"}}, {}, True),
        ({"prompt": {"equals": "cat"}}, {}, False),
        ({"prompt": {"contains": "cat"}}, {}, True),
        ({"prompt": {"regex": r"c.t$"}}, {}, True),
        ({"prompt": {"regex": r"^c.t"}}, {}, False),
        ({"model": "google/veo-3.1"}, {}, True),
        ({"model": "google/veo-3.1"}, {"model": "google/veo-3.1-20260320"}, True),
        ({"model": "google/veo-3.1"}, {"model": "google/veo-3.1-fast"}, False),
        ({"model": "google/veo-3.1"}, {"model": "google/veo-3.1-4k"}, False),
        ({"body": {"duration": 8}}, {"duration": 8}, True),
        ({"body": {"duration": 8}}, {}, False),
        ({"body": {"generate_audio": True}}, {"generate_audio": True}, True),
        ({"body": {"duration": True}}, {"duration": 1}, False),
        ({"body": {"frame_images": [{"frame_type": "first_frame"}]}}, {"frame_images": IMAGE}, True),
        ({"body": {"frame_images": [{}, {}]}}, {"frame_images": IMAGE}, False),
        ({"body": {"mine": {"a": 1}}}, {"mine": {"a": 1, "b": 2}}, True),
        ({"context": "x"}, {}, False),
        ({"endpoint": "video", "turnIndex": 3, "hasToolResult": False}, {}, True),
        ({"hasToolResult": True}, {}, False),
        ({"systemMessage": "be kind"}, {}, False),
    ],
)
def test_a_fixture_matches_if_all_its_criteria_hold(
    match: dict[str, Any], body: dict[str, Any], holds: bool
) -> None:
    with serving(fails(match)) as mock:
        reply = call(mock, "POST", f"{API}/videos", {**VEO, **body})
        assert reply.status == (202 if holds else 404), reply.raw
        if holds:
            assert poll_to_the_end(mock, reply.json["id"])["error"] == "no"


def test_the_first_match_in_order_wins_and_an_added_fixture_comes_first() -> None:
    with serving(fails({"prompt": "cat"}, "one"), fails({}, "two")) as mock:
        assert poll_to_the_end(mock, submit(mock))["error"] == "one"
        assert poll_to_the_end(mock, submit(mock, "dog"))["error"] == "two"
        mock.add_fixture(fails({}, "zero"))
        assert poll_to_the_end(mock, submit(mock))["error"] == "zero"


def test_times_counts_per_scope_and_is_then_passed_over() -> None:
    with serving(fails({}, "first", times=1), fails({}, "later")) as mock:

        def error(**headers: str) -> str:
            reply = call(mock, "POST", f"{API}/videos{headers.pop('query', '')}", VEO, **headers)
            return str(poll_to_the_end(mock, reply.json["id"])["error"])

        assert [error(), error()] == ["first", "later"]
        assert [error(X_Test_Id="t"), error(X_Test_Id="t")] == ["first", "later"]
        assert error(query="?testId=u") == "first"
        assert error(key="another") == "first"


def test_sequence_index_counts_the_group_fallback_included() -> None:
    def entry(index: int | None, error: str) -> dict[str, Any]:
        match = {"userMessage": "again", **({} if index is None else {"sequenceIndex": index})}
        return fails(match, error)

    with serving(entry(0, "a"), entry(2, "c"), entry(None, "rest"), fails({}, "other")) as mock:
        assert poll_to_the_end(mock, submit(mock, "unrelated"))["error"] == "other"
        errors = [poll_to_the_end(mock, submit(mock, "again"))["error"] for _ in range(4)]
        assert errors == ["a", "rest", "c", "rest"]


def test_a_refused_request_uses_up_nothing() -> None:
    with serving(fails({}, "only", times=1), fault={"on": "submit", "status": 500, "times": 1}) as mock:
        for bad in (b"{", {"model": "", "prompt": "x"}, {"model": "a/b"}):
            assert call(mock, "POST", f"{API}/videos", bad).status == 400
        assert call(mock, "POST", f"{API}/videos", VEO, key=None).status == 401
        assert call(mock, "POST", f"{API}/videos", VEO).status == 500
        assert mock.jobs() == []
        assert poll_to_the_end(mock, submit(mock))["error"] == "only"


@pytest.mark.parametrize(
    ("lifecycle", "seen"),
    [
        ({"polls": {}}, "completed completed"),
        ({"polls": {"pending": 2}}, "pending pending completed"),
        ({"polls": {"pending": 1, "in_progress": 2}}, "pending in_progress in_progress completed completed"),
        ({"polls": {"in_progress": 1}}, "in_progress completed"),
    ],
)
def test_a_lifecycle_can_be_counted_in_polls(lifecycle: dict[str, Any], seen: str) -> None:
    with serving({"match": {}, "lifecycle": lifecycle}) as mock:
        assert statuses(mock, submit(mock), len(seen.split())) == seen.split()


def test_a_lifecycle_can_follow_the_clock() -> None:
    with serving({"match": {}, "lifecycle": {"seconds": {"pending": 5, "in_progress": 10}}}) as mock:
        job_id = submit(mock)
        seen = statuses(mock, job_id, 3)
        for step in (5, 9, 1):
            mock.advance(step)
            seen += statuses(mock, job_id, 2)
        assert seen == ["pending"] * 3 + ["in_progress"] * 4 + ["completed"] * 2
        ended = mock.job()
        assert ended["ended_at"] - ended["created_at"] == pytest.approx(15, abs=0.002)


def test_the_pace_of_all_jobs_is_a_setting() -> None:
    with MockServer(fixtures=[], polls=(2, 0)) as mock:
        assert statuses(mock, submit(mock), 3) == ["pending", "pending", "completed"]
    with MockServer(fixtures=[], seconds=(0, 30)) as mock:
        job_id = submit(mock)
        assert statuses(mock, job_id, 3) == ["in_progress"] * 3
        mock.advance(30)
        assert statuses(mock, job_id, 1) == ["completed"]


@pytest.mark.parametrize("status", ["pending", "in_progress"])
def test_a_job_can_be_made_never_to_end(status: str) -> None:
    video = {"match": {}, "response": {"video": {"status": status}}}
    with serving(video, callback_url="http://127.0.0.1:9/") as mock:
        job_id = submit(mock)
        mock.advance(1e6)
        assert set(statuses(mock, job_id, 5)) == {status}


@pytest.mark.parametrize("status", [s.value for s in Status])
def test_every_status_is_an_end_that_a_fixture_can_name(status: str) -> None:
    video = {"match": {}, "response": {"video": {"status": status}}}
    with serving(video, polls=(0, 0)) as mock:
        assert poll(mock, submit(mock))["status"] == status


def test_a_fixture_can_refuse_the_submit_with_headers_and_metadata() -> None:
    answer = {"status": 429, "retryAfter": 7, "error": {"message": "Slow down", "metadata": {"a": 1}}}
    with serving({"match": {}, "response": answer}) as mock:
        reply = call(mock, "POST", f"{API}/videos", VEO)
        assert reply.json == {"error": {"message": "Slow down", "code": 429, "metadata": {"a": 1}}}
        assert reply.headers["Retry-After"] == "7" and reply.headers["X-RateLimit-Remaining"] == "0"
        assert {"X-RateLimit-Limit", "X-RateLimit-Reset"} <= set(reply.headers)
        assert mock.jobs() == []


def test_bytes_file_count_cost_and_urls_of_a_video(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"the file")
    document = {
        "fixtures": [
            {
                "match": {"prompt": "b64"},
                "response": {"video": {"b64": "dGhlIGJ5dGVz", "cost": 0.4, "is_byok": True}},
            },
            {"match": {"prompt": "file"}, "response": {"video": {"file": "clip.mp4", "count": 3}}},
            {
                "match": {"prompt": "urls"},
                "response": {"video": {"unsigned_urls": ["https://cdn.test/a.mp4"]}},
            },
            {"match": {"prompt": "gone"}, "response": {"video": {"stored": False}}},
        ]
    }
    (tmp_path / "f.json").write_text(json.dumps(document))
    with MockServer(fixtures=tmp_path / "f.json") as mock:
        wire = poll_to_the_end(mock, submit(mock, "b64"))
        assert wire["usage"] == {"cost": 0.4, "is_byok": True}
        assert call(mock, "GET", wire["unsigned_urls"][0].removeprefix(mock.origin)).raw == b"the bytes"
        wire = poll_to_the_end(mock, submit(mock, "file"))
        assert len(wire["unsigned_urls"]) == len(wire["urls"]) == 3
        url = wire["unsigned_urls"][2].removeprefix(mock.origin)
        assert call(mock, "GET", url).raw == b"the file"
        (tmp_path / "clip.mp4").unlink()
        assert call(mock, "GET", url).status == 502
        assert poll_to_the_end(mock, submit(mock, "urls"))["unsigned_urls"] == ["https://cdn.test/a.mp4"]
        assert not {"urls", "expires_at"} & set(poll_to_the_end(mock, submit(mock, "gone")))


AIMOCK_FILE = {
    "fixtures": [
        {
            "match": {"endpoint": "video", "userMessage": "broken", "sequenceIndex": 0},
            "response": {
                "error": {"message": "Overloaded", "type": "server_error", "code": "x"},
                "status": 503,
            },
        },
        {
            "match": {"endpoint": "video", "userMessage": "broken"},
            "response": {"video": {"id": "v", "status": "failed", "error": "crashed"}},
        },
        {"match": {"userMessage": "hello"}, "response": {"content": "Hi"}, "latency": 200, "chunkSize": 10},
        {
            "match": {"endpoint": "image", "userMessage": "sun"},
            "response": {"image": {"url": "https://x.test/a.png"}},
        },
        {"match": {"userMessage": "sun"}, "response": {"error": {"message": "chat only"}, "status": 429}},
        {
            "match": {"userMessage": "sun"},
            "response": {"video": {"id": "u", "status": "processing", "b64": "AAAA"}},
        },
        {
            "match": {"endpoint": "video", "context": "tenant"},
            "response": {"video": {"id": "t", "status": "failed"}},
            "chaos": {"dropRate": 1},
        },
        {"match": {"endpoint": "video", "userMessage": "boom"}, "response": {"error": {"message": "boom"}}},
        {"match": {"endpoint": "video"}, "response": {"json": {"x": 1}, "status": 202}},
        {"match": {"endpoint": "embedding"}, "response": {"embedding": [0.1], "status": 200}},
    ],
    "_warnings": ["recorded"],
    "_warning": "recorded",
}


def test_aimock_files_load_unchanged_and_mean_the_same(tmp_path: Path) -> None:
    (tmp_path / "aimock.json").write_text(json.dumps(AIMOCK_FILE))
    with MockServer(fixtures=str(tmp_path), polls=(0, 0)) as mock:
        first = call(mock, "POST", f"{API}/videos", {**VEO, "prompt": "broken"})
        assert (first.status, first.json["error"]) == (503, {"message": "Overloaded", "code": 503})
        assert poll(mock, submit(mock, "broken"))["error"] == "crashed"
        assert poll(mock, submit(mock, "sun"))["status"] == "completed"
        assert call(mock, "POST", f"{API}/videos", {**VEO, "prompt": "boom"}).status == 500
        tenant = call(mock, "POST", f"{API}/videos", VEO, X_AIMock_Context="tenant")
        assert poll(mock, tenant.json["id"])["status"] == "failed"
        assert call(mock, "POST", f"{API}/videos", {**VEO, "prompt": "hello"}).status == 404
        assert any("chaos" in note and "faults" in note for note in mock.store.loaded.notes)


def test_a_near_miss_says_which_fixture_came_closest_and_why() -> None:
    lines: list[str] = []
    mock = serving(
        {"name": "far", "match": {"prompt": "x", "model": "y", "body": {"duration": 4}}},
        {"name": "rainy-cat", "match": {"prompt": "rain", "model": "google/veo-3.1"}},
    )
    mock.log = lines.append
    with mock:
        reply = call(mock, "POST", f"{API}/videos", {**VEO, "prompt": "a dry cat"})
        assert reply.status == 404
        assert reply.message == (
            "No fixture matched: 'rainy-cat' wants prompt containing 'rain', got 'a dry cat'"
        )
        closest = reply.json["error"]["metadata"]["closest"]
        assert len(closest) == 2
        assert closest[0] == {
            "fixture": "rainy-cat",
            "differences": [{"criterion": "prompt", "wanted": "containing 'rain'", "got": "a dry cat"}],
            "held": ["model"],
        }
        assert closest[1]["fixture"] == "far" and len(closest[1]["differences"]) == 3
        assert mock.requests(status=404)[0]["closest"] == closest
        assert "rainy-cat" in lines[-1]
        strict = call(mock, "POST", f"{API}/videos", {**VEO, "prompt": "a dry cat"}, X_AIMock_Strict="true")
        assert strict.status == 503 and strict.message.startswith("Strict mode: no fixture matched")


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("{", "f.json: line 1 column 2: Expecting property name enclosed in double quotes"),
        ([], "f.json: expected an object, got []"),
        ({"fixture": []}, 'f.json: fixture: unknown key, did you mean "fixtures"?'),
        ({"fixtures": {}}, "f.json: fixtures: expected a list, got {}"),
        ({"fixtures": [{}]}, 'f.json: fixtures[0]: "match" is missing'),
        (
            {"fixtures": [{"match": {}}, {"match": {}}, {"match": {"promt": "x"}}]},
            'f.json: fixtures[2].match.promt: unknown key, did you mean "prompt"?',
        ),
        (
            {"fixtures": [{"match": {"prompt": 3}}]},
            "fixtures[0].match.prompt: expected a string or an object, got 3",
        ),
        (
            {"fixtures": [{"match": {"prompt": {"regex": "("}}}]},
            "match.prompt.regex: not a regular expression",
        ),
        (
            {"fixtures": [{"match": {"prompt": {"regex": "a{99999999999}"}}}]},
            "regex: not a regular expression",
        ),
        ({"fixtures": [{"match": {}, "times": 10**400}]}, "times: expected a whole number of at least 1"),
        ({"fixtures": [{"match": {}, "response": {"video": {"file": "x" * 5000}}}]}, "file: no such file"),
        (
            {"fixtures": [{"match": {}, "response": {}}]},
            "fixtures[0].response: give video, or status or error",
        ),
        (
            {"fixtures": [{"match": {"prompt": {}}}]},
            "match.prompt: give exactly one of equals, contains, regex",
        ),
        (
            {"fixtures": [{"match": {"prompt": "a", "userMessage": "b"}}]},
            "userMessage is another word for prompt",
        ),
        (
            {"fixtures": [{"match": {"sequenceIndex": -1}}]},
            "sequenceIndex: expected a whole number of at least 0",
        ),
        ({"fixtures": [{"match": {}, "times": 0}]}, "times: expected a whole number of at least 1, got 0"),
        (
            {"fixtures": [{"match": {}, "lifecycle": {"polls": {}, "seconds": {}}}]},
            "fixtures[0].lifecycle: give either polls or seconds",
        ),
        (
            {"fixtures": [{"match": {}, "response": {"video": {"status": "done"}}}]},
            "response.video.status: expected one of pending, in_progress, completed, failed, cancelled, expired, "
            'processing, got "done"',
        ),
        (
            {"fixtures": [{"match": {}, "response": {"video": {"file": "no.mp4"}}}]},
            "video.file: no such file",
        ),
        (
            {"fixtures": [{"match": {}, "response": {"status": 200}}]},
            "response.status: expected a whole number",
        ),
        (
            {"fixtures": [{"match": {}, "faults": [{"on": "pol"}]}]},
            "faults[0].on: expected one of submit, poll",
        ),
        (
            {"fixtures": [{"match": {}, "faults": [{"on": "poll", "repeat": True, "lost": True}]}]},
            'needs "times"',
        ),
        (
            {"fixtures": [{"match": {}, "faults": [{"on": "models", "close": True}]}]},
            "the models route has no",
        ),
        (
            {"fixtures": [{"match": {}, "webhook": {"signature": "x"}}]},
            "webhook.signature: expected one of good",
        ),
        ({"models": [{}]}, 'f.json: models[0]: "id" is missing'),
        ({"models": [{"id": "a", "suported_sizes": []}]}, 'did you mean "supported_sizes"?'),
        ({"models": [{"id": "a", "pricing_skus": {"x": 1}}]}, "pricing_skus.x: expected a price in a string"),
        (
            {"models": [{"id": "a", "_defaults": {"duration": 0}}]},
            "_defaults.duration: expected a whole number",
        ),
    ],
)
def test_fixture_files_are_read_strictly(tmp_path: Path, document: Any, complaint: str) -> None:
    (tmp_path / "f.json").write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(SetupError) as caught:
        ovm.load_fixtures([tmp_path / "f.json"])
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_comments_folders_and_order_of_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, error in (("b.json", "b"), ("a.json", "a"), ("sub/0.json", "sub")):
        (tmp_path / name).write_text(json.dumps({"_": "why", "fixtures": [fails({}, error, _note=1)]}))
    loaded = ovm.load_fixtures([tmp_path])
    assert [fixture.name for fixture in loaded.fixtures] == ["a.json[0]", "b.json[0]", "0.json[0]"]


def test_an_edited_file_is_reloaded_and_an_invalid_one_is_not(tmp_path: Path) -> None:
    file, lines = tmp_path / "f.json", list[str]()

    def write(document: Any, seconds: int) -> None:
        file.write_text(json.dumps(document))
        os.utime(file, (seconds, seconds))

    write({"fixtures": [fails({}, "one", times=1), fails({}, "rest")]}, 1_000_000)
    mock = MockServer(fixtures=str(file))
    mock.notice = lines.append
    with mock:
        assert [poll_to_the_end(mock, submit(mock))["error"] for _ in range(2)] == ["one", "rest"]
        write({"fixtures": [fails({}, "two", times=1), fails({}, "rest")]}, 1_000_001)
        assert [poll_to_the_end(mock, submit(mock))["error"] for _ in range(2)] == ["two", "rest"]
        write({"fixtures": [{"match": {"promt": 1}}]}, 1_000_002)
        assert poll_to_the_end(mock, submit(mock))["error"] == "rest"
        assert any("fixtures not reloaded" in line and "promt" in line for line in lines)


def test_a_broken_file_that_is_mended_in_its_place_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"fixtures": [fails({}, "a")]}))
    with MockServer(fixtures=tmp_path) as mock:
        mock.notice = lambda line: None
        added = tmp_path / "0.json"
        added.write_text("{")
        os.utime(tmp_path, (1_000_000, 1_000_000))
        assert poll_to_the_end(mock, submit(mock))["error"] == "a"
        added.write_text(json.dumps({"fixtures": [fails({}, "mended")]}))
        os.utime(tmp_path, (1_000_000, 1_000_000))
        assert poll_to_the_end(mock, submit(mock))["error"] == "mended"


def test_the_fixtures_that_ship_are_valid_and_end_in_a_catch_all(catalogue: MockServer) -> None:
    names = [fixture["name"] for fixture in catalogue.fixtures()]
    assert names[0] == "mock:failed" and names[-1] == "everything else"
    assert call(catalogue, "POST", f"{API}/videos", VEO).status == 202
    assert (
        call(catalogue, "POST", f"{API}/videos", {**VEO, "prompt": "example:busy"}).headers["Retry-After"]
        == "7"
    )


def test_the_module_is_complete_without_its_fixtures(tmp_path: Path) -> None:
    shutil.copy(MODULE, tmp_path)
    code = "import openrouter_video_mock as m\nwith m.MockServer() as s: print(len(s.fixtures()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{len(ovm.SCENARIOS)}\n"


# ============ Scenarios and faults ======================================================================


def test_scenarios_need_no_file(mock: MockServer) -> None:
    def ends(word: str) -> dict[str, Any]:
        return poll_to_the_end(mock, submit(mock, f"please mock:{word} now"))

    assert {word: ends(word)["status"] for word in ("failed", "cancelled", "expired")} == {
        "failed": "failed",
        "cancelled": "cancelled",
        "expired": "expired",
    }
    assert ends("no-urls")["unsigned_urls"] == []
    assert len(ends("two-videos")["unsigned_urls"]) == 2
    assert set(statuses(mock, submit(mock, "mock:stuck"), 5)) == {"in_progress"}
    moderated = call(mock, "POST", f"{API}/videos", {**VEO, "prompt": "mock:moderated"})
    assert moderated.status == 403
    assert list(moderated.json["error"]["metadata"]) == [
        "reasons",
        "flagged_input",
        "provider_name",
        "model_slug",
    ]
    assert call(mock, "POST", f"{API}/videos", {**VEO, "prompt": "mock:no-credits"}).status == 402
    slow = submit(mock, "mock:slow")
    mock.advance(5)
    assert poll(mock, slow)["status"] == "in_progress"
    mock.advance(10)
    assert poll(mock, slow)["status"] == "completed"


@pytest.mark.parametrize(("word", "status", "times"), [("rate-limited", 429, 2), ("overloaded", 503, 1)])
def test_overload_scenarios_repeat_in_the_next_run(
    mock: MockServer, word: str, status: int, times: int
) -> None:
    replies = [
        call(mock, "POST", f"{API}/videos", {**VEO, "prompt": f"mock:{word}"}) for _ in range(2 * times + 2)
    ]
    assert [reply.status for reply in replies] == ([status] * times + [202]) * 2
    assert replies[0].headers["Retry-After"] == "1"
    assert len(mock.jobs()) == 2


def test_flaky_fails_the_first_poll_of_each_job(mock: MockServer) -> None:
    for _ in range(2):
        job_id = submit(mock, "mock:flaky")
        assert [call(mock, "GET", f"{API}/videos/{job_id}").status for _ in range(3)] == [503, 200, 200]
        assert mock.job()["polls"] == 2


def test_a_lost_response_still_made_the_job(mock: MockServer) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        call(mock, "POST", f"{API}/videos", {**VEO, "prompt": "mock:lost-response"})
    assert len(mock.jobs()) == 1
    assert mock.requests()[-1]["status"] is None and mock.requests()[-1]["fault"] == "lost"
    submit(mock, "mock:lost-response")
    assert len(mock.jobs()) == 2


def test_a_truncated_download_breaks_off(mock: MockServer) -> None:
    path = poll_to_the_end(mock, submit(mock, "mock:truncated"))["unsigned_urls"][0].removeprefix(mock.origin)
    with pytest.raises(http.client.IncompleteRead):
        call(mock, "GET", path)
    head = exchange(mock, head_of(f"GET {path} HTTP/1.1")).partition(b"\r\n\r\n")[0]
    assert b"Connection: close" not in head, "after which Node takes a cut for the end"


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ({"status": 503}, [503] * 4),
        ({"status": 503, "times": 2}, [503, 503, 200, 200]),
        ({"status": 503, "times": 1, "after": 1}, [200, 503, 200, 200]),
        ({"status": 503, "times": 1, "repeat": True}, [503, 200, 503, 200]),
        ({"status": 429, "retryAfter": 2, "message": "wait"}, [429] * 4),
        ({"close": True, "times": 1}, [None, 200, 200, 200]),
        ({"malformed": True, "times": 1}, ["malformed", 200, 200, 200]),
        ({"truncate": 9, "times": 1}, ["cut", 200, 200, 200]),
        ({"delay": 0.01}, [200] * 4),
    ],
)
@pytest.mark.parametrize("where", ["server", "fixture"])
def test_faults_strike_as_often_as_they_say(fault: dict[str, Any], seen: list[Any], where: str) -> None:
    fault = {"on": "poll", **fault}
    fixture: dict[str, Any] = {"match": {}, **({"faults": [fault]} if where == "fixture" else {})}
    with serving(fixture, fault=[fault] if where == "server" else []) as mock:
        job_id = submit(mock)

        def outcome() -> Any:
            try:
                reply = call(mock, "GET", f"{API}/videos/{job_id}")
                json.loads(reply.raw)
                return reply.status
            except http.client.RemoteDisconnected:
                return None
            except http.client.IncompleteRead:
                return "cut"
            except ValueError:
                return "malformed"

        assert [outcome() for _ in range(4)] == seen


def test_a_lost_or_truncated_refusal_is_lost_or_truncated() -> None:
    refusal = {"match": {}, "response": {"status": 402}}
    for fault, error in (
        ({"lost": True}, http.client.RemoteDisconnected),
        ({"truncate": 5}, http.client.IncompleteRead),
    ):
        with serving(refusal, fault={"on": "submit", "times": 1, **fault}) as mock:
            with pytest.raises(error):
                call(mock, "POST", f"{API}/videos", VEO)
            assert call(mock, "POST", f"{API}/videos", VEO).status == 402


def test_a_fault_may_refuse_and_lose_or_truncate_the_refusal() -> None:
    for fault, error in (
        ({"status": 503, "lost": True}, http.client.RemoteDisconnected),
        ({"status": 503, "truncate": 5}, http.client.IncompleteRead),
        ({"malformed": True, "truncate": 5}, http.client.IncompleteRead),
    ):
        with MockServer(fixtures=[], fault={"on": "submit", "times": 1, **fault}) as mock:
            with pytest.raises(error):
                call(mock, "POST", f"{API}/videos", VEO)
            assert mock.jobs() == [] and submit(mock)


def test_a_fault_of_403_looks_like_moderation() -> None:
    with MockServer(fixtures=[], fault={"on": "submit", "status": 403}) as mock:
        error = call(mock, "POST", f"{API}/videos", VEO).json["error"]
        assert error["metadata"]["flagged_input"] == "a cat"
        assert error["metadata"]["model_slug"] == "google/veo-3.1"


def test_a_poll_that_a_fault_hits_is_journaled_with_its_job_and_fixture() -> None:
    with serving({"name": "f", "match": {}, "faults": [{"on": "poll", "status": 503}]}) as mock:
        job_id = submit(mock)
        call(mock, "GET", f"{API}/videos/{job_id}")
        entry = mock.requests()[-1]
        assert (entry["status"], entry["job_id"], entry["fixture"]) == (503, job_id, "f")


@pytest.mark.parametrize("on", ["submit", "content", "models"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"close": True}, http.client.RemoteDisconnected),
        ({"lost": True}, http.client.RemoteDisconnected),
        ({"truncate": 3}, http.client.IncompleteRead),
        ({"malformed": True}, None),
        ({"status": 503}, None),
        ({"delay": 0.01}, None),
    ],
)
def test_every_kind_of_fault_works_on_every_route(on: str, fault: dict[str, Any], error: Any) -> None:
    with MockServer(fixtures=[]) as mock:
        wire = poll_to_the_end(mock, submit(mock))
        mock.add_fault({"on": on, "times": 1, **fault})
        content_path = wire["unsigned_urls"][0].removeprefix(mock.origin)
        method, path = {"submit": ("POST", f"{API}/videos"), "content": ("GET", content_path)}.get(
            on, ("GET", f"{API}/videos/models")
        )
        body = VEO if method == "POST" else None
        if error is not None:
            with pytest.raises(error):
                call(mock, method, path, body)
        else:
            reply = call(mock, method, path, body)
            assert reply.status == fault.get("status", 202 if on == "submit" and "delay" in fault else 200)
            assert ("malformed" in fault) == (reply.raw == b'{"id": "gen-vid-')
        assert len(mock.jobs()) == (2 if on == "submit" and set(fault) & {"lost", "truncate", "delay"} else 1)
        assert mock.requests()[-1]["fault"]
        assert call(mock, method, path, body).status in (200, 202)


def test_the_journal_names_the_job_of_a_poll_that_a_fault_hit(mock: MockServer) -> None:
    job_id = submit(mock, "mock:flaky")
    call(mock, "GET", f"{API}/videos/{job_id}")
    assert [entry["status"] for entry in mock.requests(job_id=job_id)] == [202, 503]


def test_server_faults_count_per_scope_and_on_every_route() -> None:
    with MockServer(fixtures=[]) as mock:
        for route in ("submit", "content", "models"):
            mock.add_fault({"on": route, "status": 502, "times": 1})
        assert call(mock, "GET", f"{API}/videos/models").status == 502
        assert call(mock, "GET", f"{API}/models?output_modalities=video").status == 200
        assert call(mock, "GET", f"{API}/videos/models", X_Test_Id="other").status == 502
        assert call(mock, "POST", f"{API}/videos", VEO).status == 502
        url = poll_to_the_end(mock, submit(mock))["unsigned_urls"][0].removeprefix(mock.origin)
        assert [call(mock, "GET", url).status for _ in range(2)] == [502, 200]
        assert [fault["struck"] for fault in mock.faults()] == [1, 1, 2]
        mock.clear_faults()
        assert mock.faults() == []


def test_a_fault_on_an_unknown_job_is_not_used_up() -> None:
    with MockServer(fixtures=[], fault={"on": "poll", "status": 500, "times": 1}) as mock:
        assert call(mock, "GET", f"{API}/videos/nope").status == 404
        assert call(mock, "GET", f"{API}/videos/{submit(mock)}").status == 500


def test_a_delayed_answer_holds_up_neither_others_nor_the_stop() -> None:
    mock = MockServer(fixtures=[], fault={"on": "poll", "delay": 30}).start()
    job_id = submit(mock)

    def ask() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            call(mock, "GET", f"{API}/videos/{job_id}")

    waiting = threading.Thread(target=ask, daemon=True)
    waiting.start()
    assert call(mock, "GET", f"{API}/videos/models").status == 200
    begun = time.monotonic()
    mock.stop()
    waiting.join(5)
    assert time.monotonic() - begun < 5 and not waiting.is_alive()


def test_latency_is_waited_before_each_answer_of_the_api_only() -> None:
    with MockServer(fixtures=[], latency=0.05) as mock:
        begun = time.monotonic()
        call(mock, "GET", f"{API}/videos/models")
        assert time.monotonic() - begun >= 0.05
        call(mock, "GET", f"{API}/nothing")
        assert [entry["ms"] >= 50 for entry in mock.requests()] == [True, True]


# ============ Lifecycle, clock, store =====================================================================


def test_urls_disappear_and_content_is_gone_after_a_day(mock: MockServer) -> None:
    wire = poll_to_the_end(mock, submit(mock))
    content, signed = (wire[key][0].removeprefix(mock.origin) for key in ("unsigned_urls", "urls"))
    mock.advance(86398)
    assert call(mock, "GET", content).status == 200 and call(mock, "GET", signed, key=None).status == 200
    mock.advance(2)
    assert call(mock, "GET", content).status == 410
    assert call(mock, "GET", signed, key=None).status == 403
    later = poll(mock, wire["id"])
    assert later["unsigned_urls"] == wire["unsigned_urls"] and not {"urls", "expires_at"} & set(later)


def test_expires_at_is_one_instant_for_all(mock: MockServer) -> None:
    wire = poll_to_the_end(mock, submit(mock))
    content, signed = (wire[key][0].removeprefix(mock.origin) for key in ("unsigned_urls", "urls"))
    mock.advance(wire["expires_at"] - mock.now())
    assert call(mock, "GET", content).status == 410
    assert call(mock, "GET", signed, key=None).status == 403
    assert "urls" not in poll(mock, wire["id"])


def test_forced_endings_win_over_the_plan_and_happen_once(mock: MockServer) -> None:
    job_id = submit(mock, "mock:stuck")
    assert mock.finish(job_id, "failed", error="Content policy violation")["status"] == "failed"
    assert poll(mock, job_id)["error"] == "Content policy violation"
    assert mock.finish("latest", Status.FAILED, error="again")["error"] == "Content policy violation"
    with pytest.raises(ApiError, match="409 Job .* has ended already: it is failed"):
        mock.finish(job_id, "completed")
    with pytest.raises(ApiError, match="404 Job nope not found"):
        mock.finish("nope")
    with pytest.raises(ValueError, match="is no ending"):
        mock.finish(job_id, "pending")


def test_a_failed_job_costs_nothing_and_keeps_the_error_of_its_fixture() -> None:
    with serving(fails({}, "E1")) as mock:
        submit(mock)
        assert mock.job()["cost"] > 0
        failed = mock.finish("latest", "failed")
        assert (failed["cost"], failed["error"]) == (0, "E1")


def test_content_asks_for_the_key_before_all_else(mock: MockServer) -> None:
    assert call(mock, "GET", f"{API}/videos/{submit(mock)}/content?index=-1", key=None).status == 401


def test_a_forced_completion_has_a_clip_and_a_cost(mock: MockServer) -> None:
    mock.finish(submit(mock, "mock:failed"), "completed")
    wire = poll(mock, mock.job()["id"])
    assert wire["usage"]["cost"] == 1.6 and "error" not in wire
    assert call(mock, "GET", wire["unsigned_urls"][0].removeprefix(mock.origin)).status == 200


def test_the_clock_moves_forward_only(mock: MockServer) -> None:
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError):
            mock.advance(seconds)
    assert mock.advance(10) >= time.time() + 9
    with pytest.raises(ValueError, match="9999"):
        mock.advance(1e15)
    for _ in range(300):
        with contextlib.suppress(ValueError):
            mock.advance(1e9)
    wire = poll_to_the_end(mock, submit(mock))
    assert call(mock, "GET", wire["urls"][0].removeprefix(mock.origin)).status == 200
    assert call(mock, "GET", f"{API}/generation?id={wire['id']}").status == 200


def test_the_store_forgets_the_oldest_jobs_and_requests() -> None:
    with MockServer(fixtures=[], max_jobs=3, max_requests=4) as mock:
        ids = [submit(mock) for _ in range(5)]
        assert [job["id"] for job in mock.jobs()] == ids[:1:-1]
        assert call(mock, "GET", f"{API}/videos/{ids[0]}").status == 404
        assert [request["seq"] for request in mock.requests()] == [3, 4, 5, 6]
    with MockServer(fixtures=[], max_requests=0) as mock:
        submit(mock)
        assert mock.requests() == []


def test_huge_models_sizes_and_references_are_not_kept(mock: MockServer) -> None:
    long = "x" * 1_000_000
    assert call(mock, "POST", f"{API}/videos", {**VEO, "model": long}).message.endswith(
        "is not a valid model ID"
    )
    submit(
        mock,
        size=long,
        input_references=[{"type": "image_url", "image_url": {"url": "https://x.test/"}}] * 5000,
    )
    found = mock.store.job("latest")
    assert found and len(str(found[0])) < 100_000


def test_large_bodies_are_kept_shortened(mock: MockServer) -> None:
    image = {**FIRST_FRAME, "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    submit(mock, "p" * 50_000, frame_images=[image], nonsense=["x"] * 1000)
    request = mock.job()["request"]
    assert request["frame_images"][0]["image_url"]["url"].endswith("… (100022 characters)")
    assert len(json.dumps(request)) < 20_000
    body = mock.requests()[0]["body"]
    assert body["prompt"].startswith("ppp") and len(body["nonsense"]) == 100
    assert len(json.dumps(body)) < 20_000


def test_fifty_parallel_submits_give_fifty_jobs_and_exact_counts() -> None:
    with serving(fails({}, "first", times=20), fails({}, "rest")) as mock:
        errors: list[str] = []

        def work() -> None:
            errors.append(poll_to_the_end(mock, submit(mock))["error"])

        threads = [threading.Thread(target=work) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len({job["id"] for job in mock.jobs()}) == 50
        assert (errors.count("first"), errors.count("rest")) == (20, 30)
        assert len(mock.requests()) == 150


def test_status_never_goes_back_while_polls_endings_and_the_clock_race() -> None:
    order = [status.value for status in Status]
    with MockServer(fixtures=[], seconds=(5, 5)) as mock:
        ids = [submit(mock) for _ in range(8)]
        seen: dict[str, list[int]] = {job_id: [] for job_id in ids}
        done = threading.Event()

        def watch(job_id: str) -> None:
            while not done.is_set():
                seen[job_id].append(order.index(mock.job(job_id)["status"]))

        watchers = [threading.Thread(target=watch, args=(job_id,)) for job_id in ids]
        for watcher in watchers:
            watcher.start()
        for index in range(60):
            mock.advance(0.2)
            with contextlib.suppress(ApiError):
                mock.finish(ids[index % 8], "failed") if index == 30 else None
        done.set()
        for watcher in watchers:
            watcher.join(5)
        assert all(history == sorted(history) for history in seen.values())
        assert {mock.job(job_id)["status"] for job_id in ids} == {"completed", "failed"}


def submit_across_a_reset(mock: MockServer) -> Response:
    """The answer to a submit that came before a reset and is matched after it."""
    headers = {"authorization": "Bearer test"}
    request = Request("POST", f"{API}/videos", "", headers, json.dumps(VEO).encode(), ovm.Note())
    choose = mock.store.choose

    def reset_first(*args: Any) -> Any:
        mock.reset()
        return choose(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mock.store, "choose", reset_first)
        return mock.handle(request)


def test_reset_restores_the_start_and_lets_nothing_in_flight_in(mock: MockServer) -> None:
    submit(mock)
    mock.add_fixture(fails({}))
    mock.add_fault({"on": "submit", "status": 500})
    mock.advance(1000)
    assert submit_across_a_reset(mock).status == 202
    assert mock.jobs() == [] and mock.requests() == [] and mock.faults() == []
    assert abs(mock.now() - time.time()) < 60
    assert len(mock.fixtures()) == len(ovm.SCENARIOS)


def test_a_request_from_before_a_reset_uses_up_nothing_after_it() -> None:
    fault = {"on": "submit", "status": 503, "times": 1}
    with serving(fails({}, "first", times=1), fails({}, "rest"), fault=fault) as mock:
        assert submit_across_a_reset(mock).status == 503
        assert call(mock, "POST", f"{API}/videos", VEO).status == 503
        assert poll_to_the_end(mock, submit(mock))["error"] == "first"


def test_two_mocks_in_one_process_share_nothing() -> None:
    with MockServer(fixtures=[]) as one, MockServer(fixtures=[]) as two:
        job_id = submit(one)
        one.advance(100)
        assert call(two, "GET", f"{API}/videos/{job_id}").status == 404
        assert two.requests(method="POST") == [] and two.now() < one.now() - 90


# ============ Test card ===================================================================================


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The boxes side by side in this data; their sizes must add up."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        assert 8 <= size <= len(data) - at
        yield kind.decode("latin-1"), data[at + 8 : at + size]
        at += size


def inside(data: bytes, *path: str) -> bytes:
    for kind in path:
        data = dict(boxes(data))[kind]
    return data


def words(data: bytes, count: int, at: int = 0) -> tuple[int, ...]:
    return struct.unpack(f">{count}I", data[at : at + 4 * count])


SHAPES = [
    (1280, 720, 8),
    (854, 480, 3),
    (834, 1112, 2),
    (1366, 768, 1),
    (640, 360, 30),
    (3840, 2160, 4),
    (16, 16, 1),
]


@pytest.mark.parametrize(("width", "height", "seconds"), SHAPES)
def test_a_clip_parses_back_into_what_was_asked_for(width: int, height: int, seconds: int) -> None:
    clip = ovm.draw_test_card(width, height, seconds, seed="s", text="a cat", audio=True)
    assert clip.startswith(bytes.fromhex("00 00 00 20 66 74 79 70 69 73 6f 6d"))
    assert [kind for kind, _ in boxes(clip)] == ["ftyp", "moov", "mdat"]
    moov = inside(clip, "moov")
    timescale, length = words(moov[8:], 2, 12)
    assert length == seconds * timescale
    tracks = [body for kind, body in boxes(moov) if kind == "trak"]
    assert len(tracks) == 2
    for track, handler in zip(tracks, ("vide", "soun"), strict=True):
        assert inside(track, "mdia", "hdlr")[8:12].decode() == handler
        scale, ticks = words(inside(track, "mdia", "mdhd"), 2, 12)
        assert ticks == seconds * scale
        stbl = inside(track, "mdia", "minf", "stbl")
        runs = inside(stbl, "stts")
        entries = [words(runs, 2, 8 + 8 * i) for i in range(words(runs, 1, 4)[0])]
        assert sum(count * delta for count, delta in entries) == ticks
        sizes = inside(stbl, "stsz")
        count = words(sizes, 1, 8)[0]
        assert count == sum(samples for samples, _ in entries)
        if handler == "vide":
            assert count == seconds * ovm.FPS
            assert words(inside(track, "tkhd"), 2, 76) == (width << 16, height << 16)
            samples = words(sizes, count, 12)
            at = words(inside(stbl, "stco"), 1, 8)[0]
            for index, size in enumerate(samples):  # each sample is one NAL unit with its length before it
                assert words(clip, 1, at)[0] == size - 4
                assert clip[at + 4] == (0x65 if index == 0 else 0x41)
                at += size


def test_known_answers_of_the_bit_stream() -> None:
    assert ovm.sps(1280, 720).hex() == "6742c01fda014016ffc05a80808083c2010a80"
    assert ovm.sps(834, 1112).hex() == "6742c020da03502378897016a0202020f08042a0"
    assert ovm.sps(3840, 2160).hex() == "6742c033da00f0010fff016a0202020f08042a"
    assert ovm.PPS.hex() == "68ce091b20"
    levels = {
        2: "00010111",
        -2: "000101011",
        8: "00010100000000000011",
        -255: "00010100000000000000010001110111011",
    }
    assert {level: ovm.residual(level, chroma=False) for level in levels} == levels
    a, b, grey = (180, 188, 128), (166, 170, 170), (100, 128, 128)
    first = "658884a118a000208d1c000415a9388c5000371c000400e3800081949d3d3d3d3e"
    assert ovm.idr_picture([a, a, b, b] * 2, 4).hex() == first
    assert ovm.p_picture(1, [grey] * 3600, {}, 80).hex() == "419a22800708c0"
    assert ovm.p_picture(16, [grey] * 3600, {}, 80).hex() == "419a02800708c0"
    assert ovm.p_picture(1, [grey] * 8, {5: (110, 128, 128)}, 4).hex() == "419a228c771400095c"
    assert ovm.p_picture(1, [grey] * 8, {7: (110, 128, 128)}, 4).hex() == "419a22841dc5000258"
    assert ovm.nal(0x67, "0" * 24).hex() == "670000030080"


def content(mock: MockServer, wire: dict[str, Any], index: int = 0) -> bytes:
    return call(mock, "GET", wire["unsigned_urls"][index].removeprefix(mock.origin)).raw


def test_the_same_seed_and_request_give_the_same_bytes_and_other_jobs_other_colours(mock: MockServer) -> None:
    seeded = [content(mock, poll_to_the_end(mock, submit(mock, seed=7))) for _ in range(2)]
    plain = [content(mock, poll_to_the_end(mock, submit(mock))) for _ in range(2)]
    other = content(mock, poll_to_the_end(mock, submit(mock, seed=8)))
    assert seeded[0] == seeded[1]
    assert len({hashlib.sha256(inside(clip, "mdat")).digest() for clip in (seeded[0], other, *plain)}) == 4
    two = poll_to_the_end(mock, submit(mock, "mock:two-videos", seed=7))
    assert content(mock, two, 0) != content(mock, two, 1)


def test_job_id_model_and_prompt_are_in_the_metadata(mock: MockServer) -> None:
    wire = poll_to_the_end(mock, submit(mock, "ein Käfer \U0001f41e"))
    clip = content(mock, wire)
    for text in (wire["id"], "google/veo-3.1", "ein Käfer \U0001f41e"):
        assert text.encode() in inside(clip, "moov", "udta")


@pytest.mark.parametrize(("audio", "tracks"), [(True, 2), (False, 1), (None, 2)])
def test_the_sound_track_is_the_request_s_word_else_the_models(
    mock: MockServer, audio: bool | None, tracks: int
) -> None:
    fields: dict[str, Any] = {} if audio is None else {"generate_audio": audio}
    clip = content(mock, poll_to_the_end(mock, submit(mock, **fields)))
    assert sum(kind == "trak" for kind, _ in boxes(inside(clip, "moov"))) == tracks


@pytest.mark.parametrize(
    "arguments", [(1, 1, 0), (7, 5, 1), (10**6, 10**6, 1), (100_000, 16, 1), (64, 64, 10**9), (48, 30, 2)]
)
def test_no_shape_breaks_the_writer(arguments: tuple[int, int, int]) -> None:
    text = "straße \ud800 日本語 " * 50
    clip = ovm.draw_test_card(*arguments, seed="\ud800", text=text, audio=False, tags={b"cmt": text})
    assert [kind for kind, _ in boxes(clip)] == ["ftyp", "moov", "mdat"]
    assert len(clip) < 5_000_000


@pytest.mark.parametrize(
    ("width", "height", "seconds"), [(1280, 720, 8), (854, 480, 3), (834, 1112, 1), (16, 16, 1)]
)
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_ffmpeg_decodes_a_clip_without_a_word(tmp_path: Path, width: int, height: int, seconds: int) -> None:
    clip = tmp_path / "clip.mp4"
    tags = {b"nam": "the id", b"ART": "the model", b"cmt": "the prompt"}
    clip.write_bytes(
        ovm.draw_test_card(width, height, seconds, seed="s", text="a cat", audio=True, tags=tags)
    )
    strict = ["-v", "warning", "-xerror", "-err_detect", "explode+careful+compliant"]
    done = subprocess.run(
        ["ffmpeg", *strict, "-i", str(clip), "-f", "null", "-"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    probe = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", str(clip)]
    report = json.loads(subprocess.run(probe, capture_output=True, check=True).stdout)
    video, sound = report["streams"]
    assert (video["codec_name"], video["width"], video["height"]) == ("h264", width, height)
    assert video["nb_frames"] == str(seconds * ovm.FPS) and video["profile"] == "Constrained Baseline"
    assert (sound["codec_name"], sound["sample_rate"], sound["channels"]) == ("aac", "48000", 2)
    assert {float(part["duration"]) for part in (video, sound, report["format"])} == {float(seconds)}
    assert {"title": "the id", "artist": "the model", "comment": "the prompt"}.items() <= report["format"][
        "tags"
    ].items()


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_decoded_pixels_are_the_canvas_and_the_clock_runs(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(ovm.draw_test_card(640, 360, 3, seed="s", text="HI", audio=False))
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    data = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(clip), *raw], capture_output=True, check=True
    ).stdout
    size = 640 * 360 * 3 // 2
    frames = [data[at : at + size] for at in range(0, len(data), size)]
    assert len(frames) == 72 and len(set(frames)) > 40, "one can see that it moves"
    corner = [frame[8 * 640 + 8] for frame in frames]
    assert set(corner) == {28}, "flat, exact colours"
    clock = [
        hashlib.sha256(b"".join(f[y * 640 : y * 640 + 300] for y in range(16, 112))).digest() for f in frames
    ]
    assert [clock.index(digest) for digest in dict.fromkeys(clock)] == [0, 24, 48]


def test_content_is_chunked_whole_and_deaf_to_range(mock: MockServer) -> None:
    wire = poll_to_the_end(mock, submit(mock))
    url = wire["unsigned_urls"][0].removeprefix(mock.origin)
    reply = call(mock, "GET", url, Range="bytes=0-9", Accept="application/json")
    assert reply.status == 200 and reply.headers["Content-Type"] == "video/mp4"
    assert reply.headers["Transfer-Encoding"] == "chunked"
    assert not {"Content-Length", "ETag", "Accept-Ranges"} & set(reply.headers)
    assert reply.raw == call(mock, "GET", url.partition("?")[0]).raw


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=5-", 206, slice(5, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=3-99999999", 206, slice(3, None)),
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=9-5", 200, slice(None)),
        ("bytes=0-1,3-4", 200, slice(None)),
        ("pages=1-2", 200, slice(None)),
        ("bytes=99999999-", 416, None),
        ("bytes=-0", 416, None),
    ],
)
def test_signed_urls_and_the_control_clip_answer_ranges(
    mock: MockServer, header: str, status: int, part: slice | None
) -> None:
    wire = poll_to_the_end(mock, submit(mock, seed=1))
    whole = content(mock, wire)
    for url in (wire["urls"][0].removeprefix(mock.origin), "/__mock/jobs/latest/clip?index=0"):
        reply = call(mock, "GET", url, key=None, Range=header)
        assert reply.status == status
        if part is None:
            assert reply.headers["Content-Range"] == f"bytes */{len(whole)}"
        else:
            assert reply.raw == whole[part] and reply.headers["Content-Length"] == str(len(whole[part]))
        if status == 206:
            start, stop, _ = part.indices(len(whole)) if part else (0, 0, 0)
            assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(whole)}"


def test_signed_urls_need_no_key_and_no_tampering(mock: MockServer) -> None:
    two = poll_to_the_end(mock, submit(mock, "mock:two-videos"))
    url = two["urls"][0].removeprefix(mock.origin)
    assert re.search(r"content\?index=0&expires=\d+&signature=[0-9a-f]{64}$", url)
    assert call(mock, "GET", url, key=None).status == 200
    other = submit(mock)
    for bad in (
        url.replace("index=0", "index=1"),
        url[:-1] + ("0" if url[-1] != "0" else "1"),
        re.sub(r"expires=\d+", "expires=9999999999", url),
        re.sub(r"expires=\d+", "expires=x", url),
        url.replace(two["id"], other),
        url.partition("signature=")[0] + "signature=",
        url.partition("signature=")[0] + "signature=%C3%BC",
    ):
        assert call(mock, "GET", bad).status == 403, bad


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 200),
        ("?index=", 200),
        ("?index=0", 200),
        ("?index=0.0", 200),
        ("?index=1", 400),
        ("?index=999999999999", 400),
    ],
)
def test_content_index(mock: MockServer, query: str, status: int) -> None:
    reply = call(mock, "GET", f"{API}/videos/{poll_to_the_end(mock, submit(mock))['id']}/content{query}")
    assert reply.status == status
    if query == "?index=1":
        assert reply.message == "Video index 1 out of range (1 videos available)"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("-1", "Too small: expected number to be >=0"),
        ("x", "expected number, received NaN"),
        ("1.5", "expected int"),
    ],
)
def test_content_index_is_checked_like_a_body(mock: MockServer, index: str, message: str) -> None:
    issues = zod_issues(call(mock, "GET", f"{API}/videos/x/content?index={index}"))
    assert issues[0]["path"] == ["index"] and message in issues[0]["message"]


def test_content_before_the_end_of_failed_and_of_unknown_jobs(mock: MockServer) -> None:
    job_id = submit(mock)
    assert call(mock, "GET", f"{API}/videos/{job_id}/content").status == 409
    assert mock.job(job_id)["polls"] == 0, "a download is no poll"
    mock.finish(job_id, "failed")
    assert call(mock, "GET", f"{API}/videos/{job_id}/content").status == 409
    for path in ("/videos/nope", "/videos/nope/content", "/videos/latest", "/videos/%2e%2e", "/videos/a%20b"):
        reply = call(mock, "GET", API + path)
        assert reply.status == 404 and re.fullmatch(r"Job .* not found", reply.message), path


def test_a_large_file_is_streamed_and_not_loaded(tmp_path: Path) -> None:
    with (tmp_path / "big.mp4").open("wb") as file:
        file.truncate(300_000_000)
    (tmp_path / "f.json").write_text(
        '{"fixtures": [{"match": {}, "response": {"video": {"file": "big.mp4"}}}]}'
    )
    with MockServer(fixtures=tmp_path / "f.json") as mock:
        url = poll_to_the_end(mock, submit(mock))["unsigned_urls"][0]
        host, _, port = mock.origin.removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", url.removeprefix(mock.origin), headers={"Authorization": "Bearer k"})
        response = connection.getresponse()
        received = 0
        while block := response.read(1 << 20):
            received += len(block)
        connection.close()
        assert received == 300_000_000


# ============ Webhooks ====================================================================================


class Receiver:
    """An HTTP server that keeps what it is sent and answers as scripted, then 200."""

    def __init__(self, *script: Any) -> None:
        self.script, self.received = list(script), list[tuple[dict[str, str], bytes]]()
        self.lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver.lock:
                    receiver.received.append((dict(self.headers), body))
                    answer = receiver.script.pop(0) if receiver.script else 200
                if isinstance(answer, int):
                    self.send_response(answer)
                    self.send_header("Location", "/elsewhere")
                    self.end_headers()
                elif isinstance(answer, bytes):
                    self.wfile.write(answer)
                else:
                    answer.wait(20)

            def log_message(self, *args: object) -> None:
                pass

        class Server(HTTPServer):
            def process_request(self, request: Any, client_address: Any) -> None:
                threading.Thread(target=self.process, args=(request, client_address), daemon=True).start()

            def process(self, request: Any, client_address: Any) -> None:
                self.finish_request(request, client_address)
                self.shutdown_request(request)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?a=1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Receiver:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def advance_until_done(mock: MockServer, count: int = 1) -> list[dict[str, Any]]:
    """Let retries come due until so many deliveries are over."""
    for _ in range(100):
        found = mock.webhooks(wait=0.02, count=count)
        if sum(hook["state"] != "pending" for hook in found) >= count:
            return found
        mock.advance(1)
    raise AssertionError(mock.webhooks())


def verified(secret: str, header: str, body: bytes, now: float) -> bool:
    """What the documentation tells a receiver to do."""
    parts = dict(part.split("=", 1) for part in header.split(","))
    if abs(now - int(parts["t"])) > 300:
        return False
    expected = hmac.new(secret.encode(), parts["t"].encode() + b"," + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, parts["v1"])


def test_the_signature_is_hmac_over_timestamp_comma_body() -> None:
    assert ovm.sign("whsec", 1777032000, b'{"a":1}') == (
        "t=1777032000,v1=" + hmac.new(b"whsec", b'1777032000,{"a":1}', hashlib.sha256).hexdigest()
    )


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "expired"])
def test_each_ending_is_announced_with_the_documented_bytes(status: str) -> None:
    with Receiver() as receiver, MockServer(fixtures=[], webhook_secret="s3cret") as mock:
        prompt = "a cat" if status == "completed" else f"mock:{status}"
        job_id = submit(mock, prompt, callback_url=receiver.url)
        assert mock.webhooks() == [], "nothing is sent for pending or in_progress"
        wire = poll_to_the_end(mock, job_id)
        (hook,) = mock.webhooks(wait=5)
        (headers, body), event = receiver.received[0], json.loads(receiver.received[0][1])
        assert list(event) == ["type", "created_at", "data"] and event["type"] == f"video.generation.{status}"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["created_at"])
        expected = {"id": job_id, "status": status, "generation_id": job_id, "model": "google/veo-3.1"}
        for key in ("unsigned_urls", "usage") if status == "completed" else ("error",):
            expected[key] = wire[key]
        assert event["data"] == expected and list(event["data"]) == list(expected)
        assert headers["Content-Type"] == "application/json"
        assert headers["X-OpenRouter-Idempotency-Key"] == f"{job_id}-{status}"
        signature = headers["X-OpenRouter-Signature"]
        assert verified("s3cret", signature, body, time.time())
        assert not verified("s3cret", signature, body.replace(b"gen", b"gem", 1), time.time())
        assert hook["body"].encode() == body and hook["state"] == "delivered"
        assert hook["headers"]["X-OpenRouter-Signature"] == signature
        assert [attempt["status"] for attempt in hook["attempts"]] == [200]
        assert mock.job(job_id)["webhooks"] == [hook]


def test_a_job_nobody_polls_ends_by_itself_and_the_default_url_is_used() -> None:
    with Receiver() as receiver, MockServer(fixtures=[], callback_url=receiver.url) as mock:
        job_id = submit(mock)
        mock.advance(1)
        assert mock.webhooks(wait=5)[0]["state"] == "delivered"
        assert "X-OpenRouter-Signature" not in receiver.received[0][0]
        assert mock.job(job_id)["status"] == "completed" and mock.job(job_id)["polls"] == 0


def test_the_request_s_callback_beats_the_default_and_refusals_send_nothing() -> None:
    with (
        Receiver() as wanted,
        Receiver() as default,
        MockServer(fixtures=[], callback_url=default.url) as mock,
    ):
        call(mock, "POST", f"{API}/videos", {**VEO, "prompt": "mock:no-credits"})
        submit(mock, callback_url=wanted.url)
        mock.advance(1)
        mock.webhooks(wait=5)
        assert (len(wanted.received), len(default.received)) == (1, 0)


def test_a_delivery_is_tried_five_times_on_the_mock_s_clock() -> None:
    with Receiver(500, 302, b"garbage\r\n\r\n", b"") as receiver, MockServer(fixtures=[]) as mock:
        submit(mock, callback_url=receiver.url)
        mock.advance(1)
        (hook,) = advance_until_done(mock)
        assert hook["state"] == "delivered" and len(hook["attempts"]) == 5
        assert [attempt.get("status") for attempt in hook["attempts"]] == [500, 302, None, None, 200]
        assert "no HTTP answer" in hook["attempts"][2]["error"]
        assert "closed without an answer" in hook["attempts"][3]["error"]
        late = [attempt["at"] - mock.job()["ended_at"] for attempt in hook["attempts"]]
        assert all(0 <= at - due < 1.5 for at, due in zip(late, (0, 1, 3, 7, 15), strict=True)), late
        assert len({headers["X-OpenRouter-Idempotency-Key"] for headers, _ in receiver.received}) == 1


def test_all_retries_within_a_jump_of_the_clock_happen_at_once() -> None:
    fault = {"on": "webhook", "status": 500}
    with MockServer(fixtures=[], fault=fault) as mock:
        submit(mock, callback_url="http://127.0.0.1:9/")
        mock.advance(3600)
        (hook,) = mock.webhooks(wait=5)
        assert hook["state"] == "failed" and len(hook["attempts"]) == 5


def test_a_receiver_that_fails_slowly_is_given_its_pauses_all_the_same() -> None:
    job: Any = None
    delivery = ovm.Delivery(job, "http://127.0.0.1/", "127.0.0.1:80", b"", due_at=100)
    again = ovm._after_attempt(delivery, 100.5, 103.5, {"status": 503})
    assert again.due_at == 104, "due, 3 seconds of failing, the pause of 1 second"


def test_a_receiver_that_is_not_there_is_given_up() -> None:
    with socket.socket() as nobody, MockServer(fixtures=[]) as mock:
        nobody.bind(("127.0.0.1", 0))
        submit(mock, callback_url=f"http://127.0.0.1:{nobody.getsockname()[1]}/")
        mock.advance(1)
        (hook,) = advance_until_done(mock)
        assert hook["state"] == "failed" and hook["reason"] == "no success in 5 attempts"
        assert "Connection refused" in hook["attempts"][0]["error"]


@pytest.mark.parametrize(
    ("hosts", "url", "state"),
    [
        ([], "https://example.com/hook", "refused"),
        (["other.test"], "https://example.com/hook", "refused"),
        ([], "https://localhost.example.com/hook", "refused"),
        ([], "https://127.0.0.1.example.com/hook", "refused"),
        ([], "http://localhost:9/hook", "pending"),
        ([], "http://[::1]:9/hook", "pending"),
        (["Example.com"], "http://example.com:9/hook", "pending"),
        (["*"], "http://example.com:9/hook", "pending"),
    ],
)
def test_webhooks_go_to_loopback_or_named_hosts_only(hosts: list[str], url: str, state: str) -> None:
    config = ovm.checked_config(Config(fixtures=[], callback_host=hosts))
    video_mock = VideoMock(config)
    request = Request("POST", f"{API}/videos", "", {}, b"", ovm.Note())
    wanted = ovm.parse_video_request(json.dumps({**VEO, "callback_url": url}).encode(), config.callback_host)
    video_mock.courier.stop()  # so that nothing leaves
    fixture = ovm.scenario_fixtures()[0]
    job = video_mock.add_job(request, wanted, ovm.Model("m", "m"), fixture, "k", "s")._replace(ends_at=1.0)
    (delivery,) = ovm.deliveries_of(job, config)
    assert delivery.state == state
    if state == "refused":
        assert "--callback-host" in str(delivery.reason)


def test_a_fixture_shapes_its_webhook() -> None:
    with Receiver() as receiver:
        fixtures = [
            {"match": {"prompt": name}, "webhook": webhook}
            for name, webhook in {
                "twice": {"times": 2},
                "never": {"times": 0},
                "late": {"delay": 3600},
                "bad": {"signature": "bad"},
                "stale": {"signature": "stale"},
                "none": {"signature": "none"},
            }.items()
        ]
        with serving(*fixtures, webhook_secret="s", callback_url=receiver.url) as mock:

            def delivered(name: str, count: int) -> list[tuple[dict[str, str], bytes]]:
                receiver.received.clear()
                mock.reset()
                submit(mock, name)
                mock.advance(1)
                advance_until_done(mock, count) if count else None
                return receiver.received

            twice = delivered("twice", 2)
            assert len(twice) == 2 and len({h["X-OpenRouter-Idempotency-Key"] for h, _ in twice}) == 1
            assert delivered("never", 0) == [] and mock.webhooks() == []
            ((headers, body),) = delivered("bad", 1)
            assert not verified("s", headers["X-OpenRouter-Signature"], body, time.time())
            ((headers, body),) = delivered("stale", 1)
            signature = headers["X-OpenRouter-Signature"]
            assert not verified("s", signature, body, time.time()) and verified(
                "s", signature, body, time.time() - 600
            )
            assert "X-OpenRouter-Signature" not in delivered("none", 1)[0][0]
            mock.reset()
            submit(mock, "late")
            mock.advance(1800)
            assert [hook["state"] for hook in mock.webhooks(wait=0.1)] == ["pending"]
            mock.advance(1801)
            assert mock.webhooks(wait=5)[0]["state"] == "delivered"


@pytest.mark.parametrize(
    ("fault", "received", "first"),
    [
        ({"status": 503}, 1, {"status": 503}),
        ({"close": True}, 1, {"error": "not sent"}),
        ({"lost": True}, 2, {"error": "answer lost"}),
        ({"malformed": True}, 1, {"status": 200}),
        ({"truncate": 10}, 1, {"status": 200}),
        ({"delay": 7}, 1, {"status": 200}),
    ],
)
def test_faults_strike_webhooks_too(fault: dict[str, Any], received: int, first: dict[str, Any]) -> None:
    fault = {"on": "webhook", "times": 1, **fault}
    with Receiver() as receiver, serving({"match": {}, "faults": [fault]}) as mock:
        submit(mock, callback_url=receiver.url)
        mock.advance(1)
        (hook,) = advance_until_done(mock)
        assert len(receiver.received) == received
        assert first.items() <= hook["attempts"][0].items() and hook["attempts"][0]["fault"]
        if "malformed" in fault or "truncate" in fault:
            with pytest.raises(ValueError):
                json.loads(receiver.received[0][1])


def test_an_interim_answer_of_a_receiver_is_not_its_last_word() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    with Receiver(interim) as receiver, MockServer(fixtures=[]) as mock:
        mock.finish(submit(mock, callback_url=receiver.url))
        (hook,) = advance_until_done(mock)
        assert [attempt["status"] for attempt in hook["attempts"]] == [503, 200]


def test_a_job_that_ends_in_a_thousand_years_stops_no_other_webhook() -> None:
    never = {"match": {"prompt": "never"}, "lifecycle": {"seconds": {"pending": 1e11}}}
    with Receiver() as receiver, serving(never, {"match": {}}, callback_url=receiver.url) as mock:
        submit(mock, "never")
        mock.finish(submit(mock))
        assert mock.webhooks(wait=5)[0]["state"] == "delivered"


def test_stop_ends_webhooks_in_the_middle_of_a_tls_handshake() -> None:
    before = set(threading.enumerate())
    with socket.socket() as silent, MockServer(fixtures=[]) as mock:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        mock.finish(submit(mock, callback_url=f"https://127.0.0.1:{silent.getsockname()[1]}/"))
        connection, _ = silent.accept()
        begun = time.monotonic()
        mock.stop()
        assert time.monotonic() - begun < 1
        assert set(threading.enumerate()) <= before
        connection.close()


def test_exactly_one_delivery_however_polls_clock_and_endings_race() -> None:
    with Receiver() as receiver, MockServer(fixtures=[], polls=(0, 0)) as mock:
        ids = [submit(mock, callback_url=receiver.url) for _ in range(20)]
        work: list[Callable[[], Any]] = [lambda: mock.advance(0.3)] * 5
        for job_id in ids:
            work += [lambda j=job_id: poll(mock, j), lambda j=job_id: mock.finish(j, "completed")]  # type: ignore[misc]
        threads = [threading.Thread(target=step) for step in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        mock.advance(5)
        hooks = mock.webhooks(wait=10, count=20)
        assert {hook["state"] for hook in hooks} == {"delivered"} and len(hooks) == 20
        keys = [headers["X-OpenRouter-Idempotency-Key"] for headers, _ in receiver.received]
        assert sorted(keys) == sorted(f"{job_id}-completed" for job_id in ids)


def test_a_receiver_that_never_answers_holds_up_nobody() -> None:
    never = threading.Event()
    with contextlib.ExitStack() as stack:
        dead = [stack.enter_context(Receiver(*[never] * 20)) for _ in range(3)]
        alive = stack.enter_context(Receiver())
        before = set(threading.enumerate())
        mock = stack.enter_context(MockServer(fixtures=[], polls=(0, 0)))
        for index in range(30):
            mock.finish(submit(mock, callback_url=dead[index % 3].url))
        job_id = submit(mock, callback_url=alive.url)
        mock.finish(job_id)
        assert mock.webhooks(job_id=job_id, wait=5)[0]["state"] == "delivered"
        begun = time.monotonic()
        mock.stop()
        assert time.monotonic() - begun < 3
        left = set(threading.enumerate()) - before
        assert not [thread for thread in left if thread.name in ("webhooks", "connections")]
        never.set()


# ============ Control API and page ========================================================================


def test_the_journal_shows_requests_and_hides_keys(mock: MockServer) -> None:
    job_id = submit(mock)
    call(mock, "GET", f"{API}/videos/{job_id}", key="sk-or-secret", Cookie="id=secret", X_Api_Key="secret")
    call(mock, "POST", f"{API}/videos", b"not json", key=None)
    entries = call(mock, "GET", "/__mock/requests").json["requests"]
    assert [entry["seq"] for entry in entries] == [1, 2, 3]
    first, second, third = entries
    keys = "seq time method path headers body status job_id fixture fault scope ms"
    assert " ".join(first) == keys
    assert first["body"] == {**VEO} and first["job_id"] == job_id and first["status"] == 202
    label = "key-" + hashlib.sha256(b"sk-or-secret").hexdigest()[:8]
    assert second["headers"]["authorization"] == f"Bearer {label}" and second["scope"] == label
    assert third["body"] == "not json" and third["status"] == 401
    assert "secret" not in json.dumps(entries)


def test_the_journal_can_be_filtered(mock: MockServer) -> None:
    ids = [submit(mock), submit(mock)]
    poll(mock, ids[0])

    def found(query: str) -> list[int]:
        return [entry["seq"] for entry in call(mock, "GET", f"/__mock/requests?{query}").json["requests"]]

    assert found("method=post") == [1, 2]
    assert found("path=/videos/gen") == found("path=/api/v1/videos/gen") == [3]
    assert found("path=/api") == [1, 2, 3]
    poll_path = f"{API}/videos/{ids[1]}/content?index=0"
    call(mock, "GET", poll_path)
    assert found(f"path={poll_path.replace('?', '%3F').replace('=', '%3D')}") == [4]
    assert found("status=200") == [3]
    assert found(f"job_id={ids[0]}") == [1, 3]
    assert found("since=1&limit=1") == [4]
    reply = call(mock, "GET", "/__mock/requests?stauts=1")
    assert reply.status == 400 and reply.message == 'query.stauts: unknown key, did you mean "status"?'
    assert call(mock, "GET", "/__mock/requests?wait=soon").status == 400


def test_wait_blocks_until_enough_requests_came(mock: MockServer) -> None:
    later = threading.Timer(0.05, lambda: [submit(mock) for _ in range(2)])
    later.start()
    found = call(mock, "GET", "/__mock/requests?wait=5&count=2&path=/videos").json["requests"]
    assert len(found) == 2
    later.join()
    assert mock.wait_for_request(path="/videos", count=2)["seq"] == 2
    with pytest.raises(TimeoutError, match="2 of 3 such requests"):
        mock.wait_for_request(path="/videos", count=3, timeout=0.01)
    begun = time.monotonic()
    assert call(mock, "GET", "/__mock/requests?wait=0.05&count=9").status == 200
    assert 0.05 <= time.monotonic() - begun < 2


def test_jobs_are_shown_newest_first_with_all_that_is_known(mock: MockServer) -> None:
    ids = [submit(mock, f"prompt {i}") for i in range(3)]
    assert [job["id"] for job in call(mock, "GET", "/__mock/jobs").json["jobs"]] == ids[::-1]
    assert [job["id"] for job in call(mock, "GET", "/__mock/jobs?limit=1").json["jobs"]] == ids[2:]
    job = call(mock, "GET", "/__mock/jobs/latest").json
    assert job["id"] == ids[2] and job["request"] == {**VEO, "prompt": "prompt 2"}
    assert (job["status"], job["polls"], job["cost"], job["ended_at"]) == ("pending", 0, 1.6, None)
    assert job["plan"]["polls"] == {"pending": 0, "in_progress": 1} and job["webhooks"] == []
    assert call(mock, "GET", "/__mock/jobs/nope").status == 404


def test_what_is_shown_of_a_job_may_be_changed(mock: MockServer) -> None:
    for _ in range(2):
        submit(mock, frame_images=IMAGE)
        mock.job()["request"]["frame_images"].clear()
        assert mock.job()["request"]["frame_images"] == IMAGE


def test_patch_forces_an_ending(mock: MockServer) -> None:
    job_id = submit(mock)
    reply = call(mock, "PATCH", f"/__mock/jobs/{job_id}", {"status": "failed", "error": "no"})
    assert reply.status == 200 and reply.json["error"] == "no"
    assert call(mock, "PATCH", "/__mock/jobs/latest", {"status": "failed"}).status == 200
    assert call(mock, "PATCH", "/__mock/jobs/latest", {"status": "completed"}).status == 409
    bodies: list[Any] = [{}, {"status": "pending"}, {"status": "failed", "eror": "x"}, [], b"{"]
    for bad in bodies:
        assert call(mock, "PATCH", "/__mock/jobs/latest", bad).status == 400
    assert call(mock, "PATCH", "/__mock/jobs/nope", {"status": "failed"}).status == 404


def test_fixtures_faults_and_time_over_http(mock: MockServer) -> None:
    added = call(mock, "POST", "/__mock/fixtures", [fails({"prompt": "rain"}, name="wet")])
    assert added.status == 201 and added.json["fixtures"][0]["name"] == "wet"
    listed = call(mock, "GET", "/__mock/fixtures").json["fixtures"]
    assert listed[0]["name"] == "wet" and listed[1] == {
        **ovm.SCENARIOS[0],
        "name": "mock:failed",
        "matched": 0,
        "built_in": True,
    }
    bad = call(mock, "POST", "/__mock/fixtures", {"match": {"promt": "x"}})
    assert (bad.status, bad.message) == (400, 'fixture.match.promt: unknown key, did you mean "prompt"?')
    bad = call(
        mock, "POST", "/__mock/fixtures", {"match": {}, "response": {"video": {"file": "/etc/passwd"}}}
    )
    assert bad.status == 400 and 'use "b64"' in bad.message
    assert call(mock, "POST", "/__mock/faults", {"on": "submit", "status": 500}).status == 201
    assert call(mock, "POST", "/__mock/faults", [{"on": "submit"}]).message.startswith(
        "faults[0]: does nothing"
    )
    assert call(mock, "GET", "/__mock/faults").json["faults"] == [
        {"on": "submit", "status": 500, "struck": 0}
    ]
    assert call(mock, "DELETE", "/__mock/faults").json["faults"] == []
    now = call(mock, "GET", "/__mock/time").json["now"]
    assert call(mock, "POST", "/__mock/time", {"advance": 45}).json["now"] == pytest.approx(now + 45, abs=2)
    for wrong in ({"advance": -1}, {"advance": "1"}, {}, {"advance": True}, {"advance": 10**400}):
        assert call(mock, "POST", "/__mock/time", wrong).status == 400
    assert call(mock, "POST", "/__mock/reset").json["jobs"] == 0
    assert call(mock, "GET", "/__mock/fixtures").json["fixtures"][0]["name"] == "mock:failed"


@pytest.mark.parametrize("path", ["/health", "/__mock/health"])
def test_health(mock: MockServer, path: str) -> None:
    submit(mock)
    expected = {
        "status": "ok",
        "version": ovm.__version__,
        "jobs": 1,
        "requests": 1,
        "fixtures": len(ovm.SCENARIOS),
    }
    assert call(mock, "GET", path, key=None).json == expected


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "mock:8080"}, 200),
        ({"Host": "host.docker.internal:8080"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "evil.example.com"}, 403),
        ({"Host": "127.0.0.1.evil.example.com"}, 403),
        ({"Host": "named.example.com"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Origin": "https://evil.example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
    ],
)
def test_pages_of_other_origins_and_rebound_names_are_kept_out(headers: dict[str, str], status: int) -> None:
    with MockServer(fixtures=[], public_url="https://named.example.com") as mock:
        for path in ("/__mock/requests", "/__mock/jobs", "/health", "/"):
            reply = call(mock, "GET", path, key=None, **headers)
            assert reply.status == status
            assert "Access-Control-Allow-Origin" not in reply.headers


def test_a_wrong_base_url_is_seen_in_journal_and_log() -> None:
    lines: list[str] = []
    mock = MockServer(fixtures=[])
    mock.log = lines.append
    with mock:
        assert call(mock, "POST", "/v1/videos", VEO).status == 404
        assert mock.requests()[0]["path"] == "/v1/videos"
        exchange(mock, b"GET  / HTTP/1.1\r\n\r\n")
        assert "POST /v1/videos 404" in lines[0] and "400 (Malformed request line)" in lines[1]


def test_wrong_methods_and_paths_of_the_control_api(mock: MockServer) -> None:
    reply = call(mock, "DELETE", "/__mock/time")
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, POST")
    assert call(mock, "OPTIONS", "/__mock/requests").status == 405
    assert call(mock, "GET", "/__mock/nothing").status == 404
    assert call(mock, "GET", "/favicon.ico").json == {"error": {"message": "Not Found", "code": 404}}
    assert [entry["path"] for entry in mock.requests()] == ["/favicon.ico"], (
        "the control API is not journaled"
    )


def test_the_page_is_one_file_that_fetches_nothing_and_escapes_what_it_shows(mock: MockServer) -> None:
    reply = call(mock, "GET", "/", key=None)
    page = html.unescape(reply.raw.decode())
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = reply.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-(\w+)'", policy)
    assert nonce and f'<script nonce="{nonce[1]}">' in page and "unsafe-inline" not in policy
    assert "{{" not in page and "innerHTML" not in page
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", page)
    for _, pattern, handler in ovm.ROUTES:
        if handler is not ovm.answer_preflight:
            assert ovm.shown_path(pattern) in page
            assert str(handler.__doc__).splitlines()[0] in page


def test_every_button_of_the_page_is_a_call_of_the_control_api(mock: MockServer) -> None:
    calls = set(re.findall(r'(?:act|call)\("([A-Z]+)", "([a-z]+)', ovm.STATUS_PAGE))
    routes = {(method, ovm.shown_path(pattern)) for method, pattern, _ in ovm.ROUTES}
    assert calls >= {("PATCH", "jobs"), ("POST", "reset"), ("POST", "time")}
    for method, path in calls:
        assert any(m == method and p.startswith(f"/__mock/{path}") for m, p in routes)


# ============ HTTP adapter ================================================================================


def exchange(mock: MockServer, data: bytes, *, half_close: bool = False) -> bytes:
    """Send these bytes and read until the mock closes, or has nothing more to say."""
    host, _, port = mock.origin.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
        sock.settimeout(0.3)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := sock.recv(65536):
                answer += part
        return answer


def head_of(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "Host: x", "Authorization: Bearer k", *headers, "", ""]).encode("latin-1")


MODELS = f"GET {API}/videos/models HTTP/1.1"
POST = f"POST {API}/videos HTTP/1.1"
BODY = json.dumps(VEO).encode()

REFUSED = {
    "no version": (b"GET /\r\n\r\n", 400),
    "two blanks": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "tab": (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "method of 40 letters": (b"A" * 40 + b" / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "control character in the target": (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "target beyond ASCII": (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "bad Host": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "blank before colon": (head_of(MODELS, "Accept : x"), 400),
    "folded header": (head_of(MODELS, "Accept: x", " y"), 400),
    "header without colon": (head_of(MODELS, "Accept"), 400),
    "header without name": (head_of(MODELS, ": x"), 400),
    "bare carriage return": (head_of(MODELS, "Accept: a\rX-Evil: b"), 400),
    "NUL in a header": (head_of(MODELS, "Accept: \0"), 400),
    "bare line feed": (head_of(MODELS).replace(b"\r\n", b"\n"), 400),
    "bare line feed between headers": (head_of(MODELS, "Accept: a\nX-Evil: b"), 400),
    "plus in the length": (head_of(POST, "Content-Length: +5") + b"hello", 400),
    "underscore in the length": (head_of(POST, "Content-Length: 1_0") + b"0123456789", 400),
    "superscript length": (head_of(POST, "Content-Length: \xb2") + b"ab", 400),
    "negative length": (head_of(POST, "Content-Length: -1"), 400),
    "empty length": (head_of(POST, "Content-Length: "), 400),
    "two lengths": (head_of(POST, "Content-Length: 5", "Content-Length: 6") + b"hello!", 400),
    "the same length twice": (head_of(POST, "Content-Length: 5", "Content-Length: 5") + b"hello", 400),
    "length list": (head_of(POST, "Content-Length: 5, 5") + b"hello", 400),
    "length and chunks": (
        head_of(POST, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        400,
    ),
    "unknown coding": (head_of(POST, "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 400),
    "chunked with a tail": (head_of(POST, "Transfer-Encoding: chunked, identity") + b"0\r\n\r\n", 400),
    "coding twice": (head_of(POST, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
    "chunks in HTTP/1.0": (head_of(POST.replace("1.1", "1.0"), "Transfer-Encoding: chunked"), 400),
    "chunk size with 0x": (head_of(POST, "Transfer-Encoding: chunked") + b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    "negative chunk": (head_of(POST, "Transfer-Encoding: chunked") + b"-1\r\n\r\n", 400),
    "chunk longer than it says": (
        head_of(POST, "Transfer-Encoding: chunked") + b"3\r\nhello\r\n0\r\n\r\n",
        400,
    ),
    "bare line feed in a trailer": (
        head_of(POST, "Transfer-Encoding: chunked") + b"0\r\nX: y\n\nGET / HTTP/1.1\r\n\r\n",
        400,
    ),
    "trailer without colon": (head_of(POST, "Transfer-Encoding: chunked") + b"0\r\nnonsense\r\n\r\n", 400),
    "chunk ended by a bare line feed": (
        head_of(POST, "Transfer-Encoding: chunked") + b"5\nhello\n0\n\n",
        400,
    ),
    "endless chunk line": (head_of(POST, "Transfer-Encoding: chunked") + b"1" * 9000, 400),
    "unknown expectation": (head_of(POST, "Expect: miracles", "Content-Length: 5"), 417),
    "long target": (f"GET /{'a' * 9000} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 414),
    "endless request line": (b"GET /" + b"a" * 100_000, 414),
    "large head": (head_of(MODELS, *[f"X-{i}: {'a' * 1000}" for i in range(70)]), 431),
    "endless head": (MODELS.encode() + b"\r\n" + b"X: y\r\n" * 20_000, 431),
    "large body": (head_of(POST, "Content-Length: 100000000") + b"x", 413),
    "large chunk": (head_of(POST, "Transfer-Encoding: chunked") + b"FFFFFFFF\r\n", 413),
    "absolute target of another scheme": (b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_parsers_could_read_differently_is_refused_as_json_and_closed(
    mock: MockServer, name: str
) -> None:
    data, status = REFUSED[name]
    answer = exchange(mock, data + head_of(MODELS))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head and b"application/json" in head
    assert b"Access-Control-Allow-Origin: *" in head, "else a browser cannot read it"
    assert json.loads(body)["error"]["code"] == status, "one answer, and nothing of what followed"
    (entry,) = mock.requests()
    assert (entry["status"], entry["refused"]) == (status, json.loads(body)["error"]["message"])
    assert submit(mock)


def test_keep_alive_pipelining_and_empty_lines(mock: MockServer) -> None:
    answer = exchange(mock, b"\r\n\r\n" + head_of(MODELS) * 3 + head_of(MODELS, "Connection: close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.count(b"Connection: close") == 1


def test_empty_lines_may_come_in_pieces(mock: MockServer) -> None:
    host, _, port = mock.origin.removeprefix("http://").rpartition(":")
    for pieces in (
        (b"\r", b"\n" + head_of(MODELS)),
        (b"\r\n", b"\r\n", head_of(MODELS)),
        (b"\r\n\r\n", head_of(MODELS)),
    ):
        with socket.create_connection((host, int(port)), timeout=5) as sock:
            for piece in pieces:
                sock.sendall(piece)
                mock.stopping.wait(0.02)
            assert sock.recv(12) == b"HTTP/1.1 200"


def test_http_1_0_is_answered_in_its_manner(mock: MockServer) -> None:
    old = MODELS.replace("1.1", "1.0")
    assert exchange(mock, head_of(old) * 2).count(b"HTTP/1.1 200") == 1
    kept = exchange(mock, head_of(old, "Connection: keep-alive") * 2)
    assert kept.count(b"HTTP/1.1 200") == 2 and kept.count(b"Connection: keep-alive") == 2
    path = poll_to_the_end(mock, submit(mock))["unsigned_urls"][0].removeprefix(mock.origin)
    clip = exchange(mock, head_of(f"GET {path} HTTP/1.0"))
    assert b"chunked" not in clip and clip.partition(b"\r\n\r\n")[2][4:8] == b"ftyp"
    assert exchange(mock, f"GET {API}/videos/models HTTP/1.0\r\n\r\n".encode()).startswith(b"HTTP/1.1 200")


def test_absolute_targets_and_doubled_slashes(mock: MockServer) -> None:
    answer = exchange(mock, f"GET http://a.test{API}/videos/models HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200")
    assert exchange(mock, b"GET http://localhost?x=1 HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert exchange(mock, head_of(f"GET /{API}/videos/models HTTP/1.1")).startswith(b"HTTP/1.1 404")
    assert exchange(mock, head_of("OPTIONS * HTTP/1.1")).startswith(b"HTTP/1.1 404")


def test_head_is_get_without_the_body(mock: MockServer) -> None:
    get, head = (call(mock, method, f"{API}/videos/models") for method in ("GET", "HEAD"))
    assert head.status == 200 and head.raw == b"" and head.headers["Content-Length"] == str(len(get.raw))
    path = poll_to_the_end(mock, submit(mock))["unsigned_urls"][0].removeprefix(mock.origin)
    answer = exchange(mock, head_of(f"HEAD {path} HTTP/1.1") + head_of(MODELS, "Connection: close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 2 and b"ftyp" not in answer
    assert call(mock, "HEAD", f"{API}/videos").status == 404


def test_bodies_in_chunks_with_extensions_and_trailers(mock: MockServer) -> None:
    chunks = b"".join(b"%x;ext=1\r\n%c\r\n" % (1, byte) for byte in BODY)
    data = head_of(POST, "Transfer-Encoding: Chunked") + chunks + b"0\r\nX-Trailer: 1\r\n\r\n"
    answer = exchange(mock, data + head_of(MODELS, "Connection: close"))
    assert answer.startswith(b"HTTP/1.1 202") and answer.count(b"HTTP/1.1 200") == 1
    assert mock.job()["request"] == VEO


def test_expect_100_continue_is_answered_before_the_body(mock: MockServer) -> None:
    host, _, port = mock.origin.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(head_of(POST, "Expect: 100-continue", f"Content-Length: {len(BODY)}"))
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(BODY)
        assert sock.recv(1000).startswith(b"HTTP/1.1 202")
    refused = exchange(mock, head_of(POST, "Expect: 100-continue", "Content-Length: 100000000"))
    assert refused.startswith(b"HTTP/1.1 413"), "no invitation to send what will be refused"


def test_a_client_that_sends_too_much_gets_to_read_the_refusal() -> None:
    with MockServer(fixtures=[], max_body_mb=0.1) as mock:
        body = b'{"model": "a", "prompt": "' + b"x" * 3_000_000 + b'"}'
        reply = call(mock, "POST", f"{API}/videos", body)
        assert reply.json == {"error": {"message": "Request payload too large", "code": 413}}
        chunked = head_of(POST, "Transfer-Encoding: chunked") + b"20000\r\n" + b"x" * 131072 + b"\r\n"
        assert exchange(mock, chunked).startswith(b"HTTP/1.1 413")


def test_an_error_leaves_the_connection_in_step(mock: MockServer) -> None:
    bad = head_of(POST, "Content-Length: 5") + b"hello"
    answer = exchange(
        mock, bad + head_of(f"DELETE {API}/videos/x HTTP/1.1", "Content-Length: 3") + b"abc" + head_of(MODELS)
    )
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"400", b"404", b"200"]


def test_clients_that_go_away_are_nobodys_error(mock: MockServer) -> None:
    host, _, port = mock.origin.removeprefix("http://").rpartition(":")
    lines: list[str] = []
    assert mock._server is not None
    mock._server.debug = lines.append
    for data in (b"", b"GET", head_of(POST, "Content-Length: 50") + b"half", head_of(MODELS) * 50):
        sock = socket.create_connection((host, int(port)), timeout=5)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(data)
        sock.close()
    assert submit(mock) and mock.errors == []


def test_slow_and_idle_connections_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovm, "REQUEST_SECONDS", 0.05)
    monkeypatch.setattr(ovm, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(ovm, "LOOK_SECONDS", 0.02)
    with MockServer(fixtures=[]) as mock:
        host, _, port = mock.origin.removeprefix("http://").rpartition(":")

        def until_closed(data: bytes) -> bytes:
            with socket.create_connection((host, int(port)), timeout=5) as sock:
                sock.sendall(data)
                answer = b""
                while part := sock.recv(65536):
                    answer += part
                return answer

        assert until_closed(b"") == b""
        assert until_closed(b"GET / HT").startswith(b"HTTP/1.1 408 ")
        assert until_closed(head_of(POST, "Content-Length: 50") + b"half").startswith(b"HTTP/1.1 408 ")
        assert until_closed(head_of(POST, "Transfer-Encoding: chunked") + b"5").startswith(b"HTTP/1.1 408 ")
        assert submit(mock)


def test_a_reader_that_never_reads_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ovm, "REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(ovm, "LOOK_SECONDS", 0.02)
    with (tmp_path / "big.mp4").open("wb") as file:
        file.truncate(100_000_000)
    (tmp_path / "f.json").write_text(
        '{"fixtures": [{"match": {}, "response": {"video": {"file": "big.mp4"}}}]}'
    )
    with MockServer(fixtures=tmp_path / "f.json") as mock:
        path = poll_to_the_end(mock, submit(mock))["unsigned_urls"][0].removeprefix(mock.origin)
        host, _, port = mock.origin.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5) as sock:
            sock.sendall(head_of(f"GET {path} HTTP/1.1"))
            assert mock._server is not None
            deadline = time.monotonic() + 5
            while mock._server.connections and time.monotonic() < deadline:
                mock.stopping.wait(0.01)
            assert not mock._server.connections
        assert submit(mock)


def test_nothing_in_a_request_can_split_an_answer_or_the_log(tmp_path: Path) -> None:
    lines: list[str] = []
    mock = serving({"name": "evil\r\n\x1b[31mname", "match": {}})
    mock.log = lines.append
    with mock:
        reply = call(mock, "POST", f"{API}/videos", {**VEO, "prompt": "a\r\nSet-Cookie: x"})
        assert reply.status == 202
        call(mock, "GET", f"{API}/videos/%0d%0aSet-Cookie:%20x")
        call(
            mock,
            "OPTIONS",
            f"{API}/videos",
            Access_Control_Request_Headers="x-stainless-a\tb, x-stainless-\xe9",
        )
        assert all(line.isprintable() for line in lines) and len(lines) == 3
        assert "\\x1b" in lines[0]


def test_a_burst_of_connections_is_refused_by_none(mock: MockServer) -> None:
    host, _, port = mock.origin.removeprefix("http://").rpartition(":")
    sockets = [socket.create_connection((host, int(port)), timeout=10) for _ in range(300)]
    for sock in sockets:
        sock.sendall(head_of(MODELS))
    assert all(sock.recv(12) == b"HTTP/1.1 200" for sock in sockets)
    for sock in sockets:
        sock.close()


def test_idle_connections_take_no_threads(mock: MockServer) -> None:
    host, _, port = mock.origin.removeprefix("http://").rpartition(":")
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            sock = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            sock.sendall(head_of(MODELS))
            assert sock.recv(12) == b"HTTP/1.1 200"
        assert threading.active_count() <= before


def test_requests_that_wait_do_so_side_by_side() -> None:
    with MockServer(fixtures=[], latency=0.2) as mock:
        clients = [
            threading.Thread(target=call, args=(mock, "GET", f"{API}/videos/models")) for _ in range(30)
        ]
        begun = time.monotonic()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert time.monotonic() - begun < 3
        assert [entry["status"] for entry in mock.requests()] == [200] * 30


def test_pipelined_requests_that_wait_are_answered_in_order() -> None:
    with MockServer(fixtures=[], latency=0.01) as mock:
        answer = exchange(mock, head_of(MODELS) + head_of(f"GET {API}/nothing HTTP/1.1") + head_of(MODELS))
        assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"404", b"200"]


def test_without_threads_to_be_had_requests_are_answered_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Receiver() as receiver, MockServer(fixtures=[], latency=0.01) as mock:
        with monkeypatch.context() as patch:
            patch.setattr(ovm.Threads, "start", lambda *_: False)
            submit(mock, callback_url=receiver.url)
            assert submit(mock, "x" * 50_000)
            wire = poll_to_the_end(mock, submit(mock))
            assert call(mock, "GET", wire["unsigned_urls"][0].removeprefix(mock.origin)).raw[4:8] == b"ftyp"
            answer = exchange(mock, head_of(MODELS) * 2 + b"nonsense\r\n\r\n")
            assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"200", b"400"]
        submit(mock, callback_url=receiver.url)
        mock.advance(1)
        assert [hook["state"] for hook in mock.webhooks(wait=5, count=2)] == ["delivered"] * 2


def test_empty_lines_between_requests_are_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovm, "REQUEST_SECONDS", 0.01)
    monkeypatch.setattr(ovm, "LOOK_SECONDS", 0.01)
    with MockServer(fixtures=[]) as mock:
        for data in (head_of(POST, "Content-Length: 2") + b"{}\r\n", b"\r\n"):
            assert b"HTTP/1.1 408" not in exchange(mock, data)
        assert [entry["status"] for entry in mock.requests()] == [400]


def test_a_journaled_refusal_does_not_hold_the_body_that_was_refused(mock: MockServer) -> None:
    exchange(mock, head_of(POST, "Transfer-Encoding: chunked") + b"5\r\nhello\r\nFFFFFFFF\r\n")
    (request,) = mock.store.requests(lambda _: True)
    assert request.refusal is not None and request.refusal.__traceback__ is None


def test_a_client_that_writes_50_mb_before_it_reads_gets_the_refusal() -> None:
    with MockServer(fixtures=[], max_body_mb=1) as mock:
        assert call(mock, "POST", f"{API}/videos", b"x" * 50_000_000).status == 413


def test_serving_in_a_thread_of_ones_own_ends_with_stop() -> None:
    mock = MockServer(fixtures=[])
    mock.open()
    thread = threading.Thread(target=mock.serve_forever, args=(0.01,))
    thread.start()
    assert submit(mock)
    mock.stop()
    thread.join(5)
    assert not thread.is_alive()


# ============ Embedding ===================================================================================


def test_stop_is_quick_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    mock = MockServer(fixtures=[]).start()
    host, _, port = mock.origin.removeprefix("http://").rpartition(":")
    idle = socket.create_connection((host, int(port)), timeout=5)
    idle.sendall(head_of(MODELS))
    assert idle.recv(12) == b"HTTP/1.1 200"
    mock.finish(submit(mock, callback_url="http://127.0.0.1:9/"))
    begun = time.monotonic()
    mock.stop()
    assert time.monotonic() - begun < 1
    idle.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError, match="not running"):
        mock.url  # noqa: B018


def test_it_starts_once() -> None:
    with MockServer(fixtures=[]).start() as mock:
        assert mock.start() is mock and submit(mock)
        host, _, port = mock.origin.removeprefix("http://").rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    with pytest.raises(RuntimeError, match="make another one"):
        mock.start()


def test_it_serves_an_async_test_from_its_own_thread() -> None:
    async def talk() -> bytes:
        with MockServer(fixtures=[]) as mock:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(mock.origin.rpartition(":")[2]))
            writer.write(head_of(MODELS, "Connection: close"))
            answer = await reader.read()
            writer.close()
            return answer

    assert asyncio.run(talk()).startswith(b"HTTP/1.1 200")


def test_an_error_of_the_mock_itself_is_500_and_raised_by_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mock = MockServer(fixtures=[]).start()
    monkeypatch.setattr(mock.store, "spent", lambda *_: 1 / 0)
    reply = call(mock, "GET", f"{API}/key")
    assert (reply.status, reply.json) == (500, {"error": {"message": "Internal Server Error", "code": 500}})
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        mock.stop()
    assert "ZeroDivisionError" in capsys.readouterr().err
    with pytest.raises(KeyError), MockServer(fixtures=[]) as other:
        other.errors.append(ValueError("hidden by the test's own error"))
        raise KeyError


def test_public_methods_are_documented_with_examples_that_run() -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    finder = doctest.DocTestFinder(recurse=False)
    for cls in (VideoMock, MockServer):
        for name, method in vars(cls).items():
            if name.startswith("_") or not callable(method) or name in INTERNAL:
                continue
            with MockServer(fixtures=[]) as mock:
                job_id = submit(mock)
                names = {"mock": mock, "job_id": job_id, "MockServer": MockServer}
                (example,) = finder.find(method, name, globs=names)
                assert example.examples, f"{cls.__name__}.{name} has no example"
                runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


INTERNAL = {
    *("handle", "report", "close", "pause", "links", "reload_fixtures", "draw_fault", "clip"),
    *("add_job", "open", "serve_forever", "stop", "debug"),
}


def run_pytest(folder: Path) -> subprocess.CompletedProcess[str]:
    """The tests of this folder, with the module vendored there as a plugin."""
    shutil.copy(MODULE, folder)
    (folder / "conftest.py").write_text('pytest_plugins = ["openrouter_video_mock"]\n')
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command = [sys.executable, "-m", "pytest", *quiet, str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_pytest_gets_a_fresh_server_per_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import urllib.request\n"
        "def test_one(openrouter_video_mock):\n"
        "    assert urllib.request.urlopen(openrouter_video_mock.url + '/videos/models').status == 200\n"
        "def test_two(openrouter_video_mock):\n"
        "    assert openrouter_video_mock.requests() == []\n"
    )
    done = run_pytest(tmp_path)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_importing_the_module_imports_only_the_standard_library() -> None:
    unwanted = ("pytest", "traceback", "difflib")
    code = f"import sys, openrouter_video_mock; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=HERE, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    imported = {
        alias.name
        for node in ast.walk(ast.parse(MODULE.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert {name.split(".")[0] for name in imported} - {"pytest"} <= set(sys.stdlib_module_names)


# ============ Command line ================================================================================


def run(*arguments: str, timeout: float = 10, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(MODULE), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )


@contextlib.contextmanager
def running(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A mock in a process of its own, and its URL."""
    process = subprocess.Popen(
        [sys.executable, str(MODULE), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        match = re.fullmatch(r"openrouter_video_mock listening on (http://127\.0\.0\.1:\d+/api/v1)\n", line)
        assert match, line + str(process.stderr and process.stderr.read())
        yield process, match[1]
    finally:
        process.kill()
        process.communicate()


def test_it_stops_on_sigint_where_a_shell_has_it_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with running("-q", "--port", "0") as (process, _):
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=5) == ("", "") and process.returncode == 0
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_one_line_logs_to_stderr_and_stops_at_once(stop: signal.Signals) -> None:
    with running("--port", "0", "--polls", "0,0") as (process, url):
        port = url.split(":")[2].partition("/")[0]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
        connection.request("POST", f"{API}/videos", json.dumps(VEO), {"Authorization": "Bearer sk-secret"})
        job_id = json.loads(connection.getresponse().read())["id"]
        assert run("--check", "--port", port).returncode == 0
        begun = time.monotonic()
        process.send_signal(stop)
        out, err = process.communicate(timeout=5)
        assert time.monotonic() - begun < 1
        assert (process.returncode, out) == (0, "")
        assert re.fullmatch(
            rf"\d\d:\d\d:\d\d POST /api/v1/videos 202 {job_id} fixture='everything else' \d+\.\d ms\n", err
        ), err
        connection.close()


def test_quiet_and_environment_twins() -> None:
    with running("-q", OPENROUTER_VIDEO_MOCK_PORT="0", OPENROUTER_VIDEO_MOCK_API_KEY="a,b") as (process, url):
        port = int(url.split(":")[2].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        for key, status in (("a", 200), ("b", 200), ("c", 401)):
            connection.request("GET", f"{API}/key", headers={"Authorization": f"Bearer {key}"})
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (status, True)
        connection.close()
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(b"nonsense\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 400"
        process.terminate()
        assert process.communicate(timeout=5) == ("", "")


def test_what_stops_the_start_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "fixtures.json").write_text(
        '{"fixtures": [{"match": {}}, {"match": {}}, {"match": {"promt": "x"}}]}'
    )
    line = 'fixtures.json: fixtures[2].match.promt: unknown key, did you mean "prompt"?\n'
    for arguments in (["--validate"], ["--port", "0"]):
        done = run("-f", str(tmp_path / "fixtures.json"), *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        done = run("--port", str(busy.getsockname()[1]))
        assert (
            done.returncode == 1 and done.stderr.count("\n") == 1 and "Address already in use" in done.stderr
        )
    for arguments in (
        ["-f", "/nowhere.json"],
        ["--port", "99999"],
        ["--public-url", "x"],
        ["--max-jobs", "0"],
    ):
        done = run(*arguments)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done


@pytest.mark.parametrize(
    "arguments", [["--prot", "1"], ["--polls", "1"], ["--port", "x"], ["--fault", "{"], ["x"]]
)
def test_wrong_usage_is_exit_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and "usage:" in done.stderr and done.stdout == ""


def test_nobody_has_to_read_the_log() -> None:
    with running("--port", "0") as (process, url):
        connection = http.client.HTTPConnection(
            "127.0.0.1", int(url.split(":")[2].partition("/")[0]), timeout=5
        )
        for _ in range(2000):  # far more than a pipe holds
            connection.request("GET", f"{API}/videos/{'x' * 200}", headers={"Authorization": "Bearer k"})
            assert connection.getresponse().read()
        connection.close()
        process.terminate()
        process.wait(timeout=2)
        assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_closed_streams_are_no_reason_not_to_serve() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for closed in ("2>&-", ">&-"):
        command = f"exec {shlex.quote(sys.executable)} {shlex.quote(str(MODULE))} --port {port} {closed}"
        process = subprocess.Popen(
            ["sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert run("--check", "--port", str(port), "--wait", "5").returncode == 0
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("POST", f"{API}/videos", json.dumps(VEO), {"Authorization": "Bearer k"})
            assert connection.getresponse().status == 202
            connection.close()
        finally:
            process.kill()
            process.wait()


def test_validate_version_and_check() -> None:
    assert run("--validate").stdout == "ok: 19 fixtures, 30 models\n"
    assert run("--version").stdout == f"{ovm.__version__}\n"
    as_module = [sys.executable, "-m", "openrouter_video_mock", "--version"]
    answer = subprocess.run(as_module, cwd=HERE, capture_output=True, text=True, check=True)
    assert answer.stdout == f"{ovm.__version__}\n"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        done = run("--check", "--port", str(nobody.getsockname()[1]), "--wait", "0.1")
        assert done.returncode == 1 and done.stderr.startswith("no mock on 127.0.0.1:")


def test_the_log_is_coloured_on_a_terminal_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, colour in ((Terminal(), True), (io.StringIO(), False)):
        taken = socket.socket()
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with taken:
            arguments = ["--port", str(taken.getsockname()[1])]
            assert ovm.main(arguments, environment={}, stdout=io.StringIO(), stderr=stream) == 1
        assert ("\x1b[31m" in ovm._coloured("16:00:00 GET /x 404 1 ms")) is True
        assert "\x1b" not in stream.getvalue() or colour


# ============ Docs ========================================================================================


def test_every_route_and_every_option_is_in_the_readme() -> None:
    for _, pattern, handler in ovm.ROUTES:
        if handler is not ovm.answer_preflight:
            assert ovm.shown_path(pattern).replace("{jobId}", "{id}") in README, pattern
    for name in (*ovm.OPTIONS, *ovm._COMMANDS):
        assert f"--{name.replace('_', '-')}" in README, name
    for scenario in ovm.SCENARIOS:
        assert scenario["name"] in README


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_examples_of_the_readme_run(tmp_path: Path) -> None:
    examples = blocks("python")
    assert len(examples) >= 2
    for index, example in enumerate(examples):
        (tmp_path / f"test_{index}.py").write_text(example)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_fixture_example_of_the_readme_is_valid(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    (example,) = blocks("jsonc")
    plain = re.sub(r"(?m)\s//.*$", "", example)
    (tmp_path / "f.json").write_text(plain)
    with MockServer(fixtures=tmp_path / "f.json") as mock:
        body = {**VEO, "prompt": "a sunset", "duration": 8, "frame_images": IMAGE}
        reply = call(mock, "POST", f"{API}/videos", body, X_AIMock_Context="tenant-b")
        assert reply.status == 202 and mock.job()["fixture"] == "slow sunset", reply.raw
        assert call(mock, "POST", f"{API}/videos", {**VEO, "prompt": "busy"}).status == 429


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_curl_lines_of_the_readme_run() -> None:
    (console,) = [block for block in blocks("console") if "curl" in block and "--port 8080" in block]
    lines = re.sub(r"\\\n\s*", "", console)
    commands = re.findall(r"(?m)^\$ (curl .*)$", lines)
    assert len(commands) >= 3
    with running("--port", "0") as (_, url):
        job_id = ""
        for command in commands:
            words = shlex.split(
                command.replace("localhost:8080", url.split("/")[2]).replace("$ID", job_id), comments=True
            )
            done = subprocess.run([*words, "--fail-with-body"], capture_output=True, timeout=10)
            assert done.returncode == 0, done
            if found := re.search(rb"gen-vid-[0-9A-Za-z-]+", done.stdout):
                job_id = found[0].decode()

"""Tests of openrouter_video_mock: real servers on port 0, the clock moved, not slept, any order."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import functools
import gc
import hashlib
import hmac
import html
import http.client
import importlib.util
import inspect
import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

import openrouter_video_mock as ovm
from openrouter_video_mock import ApiError, Config, MockServer, SetupError, Status, main

HERE = Path(__file__).parent
MODULE = HERE / "openrouter_video_mock.py"
FIXTURES = HERE / "fixtures.json"
README = (HERE / "README.md").read_text(encoding="utf-8")
API = "/api/v1"
FPS = 24
PATIENCE = 30  # seconds a busy machine may take; what must not be waited for takes more
VEO = {"model": "google/veo-3.1", "prompt": "a cat"}
GROK, SEEDANCE = "x-ai/grok-imagine-video", "bytedance/seedance-2.0"
FIRST_FRAME = {
    "type": "image_url",
    "image_url": {"url": "https://x.test/a.png"},
    "frame_type": "first_frame",
}
IMAGE = [FIRST_FRAME]
ANY_MODEL: dict[str, Any] = {
    "models": []
}  # a fixture document that switches the checks off
IMAGE_INPUT = [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]
AUDIO_INPUT = [{"type": "audio_url", "audio_url": {"url": "https://x.test/a.mp3"}}]
VIDEO_INPUT = [{"type": "video_url", "video_url": {"url": "https://x.test/a.mp4"}}]
Result = TypeVar("Result")

# ============ What is used of the module beside its interface

VERSION = ovm.__version__


def card(
    width: int,
    height: int,
    seconds: int,
    *,
    title: str = "s",
    text: str = "a cat",
    audio: bool = True,
) -> bytes:
    """The clip that a job of this shape has."""
    return ovm.draw_test_card(width, height, seconds, title=title, text=text, audio=audio)


def residual_bits(level: int) -> str:
    return ovm.residual(level, ovm._LUMA_DC)


# Luma and chroma of the macroblocks that known pictures are made of, by letters that no clip has.
ovm._COLOURS.update(
    {
        "a": (180, 188, 128),
        "b": (166, 170, 170),
        "g": (100, 128, 128),
        "n": (110, 128, 128),
    }
)


def first_picture_bit_by_bit(rows: Sequence[str]) -> bytes:
    """The same, each macroblock coded by itself."""
    bits = "10001000100001001010"
    for row, above in zip(rows, ["?" + rows[0][:-1], *rows], strict=False):
        prediction = ovm._DC if row is rows[0] else ovm._ABOVE
        for letter, predicted in zip(row, above, strict=True):
            bits += ovm.macroblock(prediction, letter, predicted)
    return ovm.nal(0x65, bits)


def next_picture(number: int, count: int, changed: Sequence[int] = ()) -> bytes:
    """A picture in which these macroblocks, grey before, have another colour."""
    change = ovm.macroblock(ovm._ABOVE_IN_P, "n", "g")
    return ovm.p_picture(number, count, dict.fromkeys(changed, change))


def unit(kind: int, bits: str) -> str:
    return ovm.nal(kind, bits).hex()


def routes() -> list[tuple[str, str, str]]:
    """Method, path as it is shown, and first line of the documentation of every route."""
    return [
        (method, ovm.shown_path(pattern), str(handler.__doc__).splitlines()[0])
        for method, pattern, handler in ovm.ROUTES
        if handler is not ovm.answer_preflight
    ]


def lines_of(mock: MockServer) -> list[str]:
    """What the command would write to stderr, from now on."""
    lines: list[str] = []
    mock.log = mock.notice = lines.append
    return lines


class Passing:
    """Real seconds that pass at once, as far as the mocks can tell."""

    def __init__(self, mock: MockServer, patch: pytest.MonkeyPatch) -> None:
        self.mock, self.seconds = mock, 0.0
        patch.setattr(ovm, "_monotonic", lambda: time.monotonic() + self.seconds)

    def let(self, seconds: float) -> None:
        """Let them pass, and the mock look whose time is over."""
        self.look()
        self.seconds += seconds
        self.look()

    def look(self) -> None:
        for _ in range(5):  # a new connection has it look, and the others a turn
            assert get(self.mock, "/health").status == 200


def beside(patch: pytest.MonkeyPatch, file: Path) -> None:
    """Take this for the fixtures.json beside the module."""
    patch.setattr(ovm, "_BESIDE", str(file))


def patient(patch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Have webhooks and jobs that nobody polls take so long: WEBHOOK, SELF_END seconds."""
    for name, value in seconds.items():
        patch.setattr(ovm, f"{name}_SECONDS", value)


def post_across_a_reset(mock: MockServer) -> Reply:
    """The answer to a submit that came before a reset and is matched after it."""
    choose = mock.store.choose

    def reset_first(*args: Any) -> Any:
        mock.reset()
        return choose(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mock.store, "choose", reset_first)
        return post(mock)


def over(mock: MockServer) -> bool:
    """Whether all answers have left, which their client may see a moment before the mock."""
    requests = mock.store.newest_requests
    return eventually(lambda: all(r.note.delivered is not None for r in requests()))


def last_note(mock: MockServer) -> Any:
    """What the mock has noted of the request that came last."""
    return next(mock.store.newest_requests()).note


def handled(mock: MockServer, method: str, path: str, body: bytes = b"") -> Any:
    """The answer of a mock that needs no socket for it."""
    headers = {"authorization": "Bearer k"}
    return mock.handle(ovm.Request(method, API + path, "", headers, body, ovm.Note()))


# ============ Talking to a mock


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


def address(mock: MockServer | str) -> tuple[str, int]:
    """Host and port of a mock, or of an origin."""
    origin = mock if isinstance(mock, str) else mock.origin
    host, _, port = origin.removeprefix("http://").rpartition(":")
    return host.strip("[]"), int(port)


def connect(mock: MockServer | str) -> socket.socket:
    """A connection to the mock, for a `with`."""
    return socket.create_connection(address(mock), timeout=PATIENCE)


def call(
    mock: MockServer | str,
    method: str,
    path: str,
    body: Any = None,
    *,
    key: str | None = "test",
    **headers: str,
) -> Reply:
    """One request on a connection of its own; a body that is no bytes is sent as JSON."""
    connection = http.client.HTTPConnection(*address(mock), timeout=PATIENCE)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        sent.setdefault("Authorization", f"Bearer {key}")
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path_of(path), data, sent)
        response = connection.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def path_of(url: str) -> str:
    """A path, or what follows the origin in a URL of the mock."""
    return re.sub(r"^http://[^/]+", "", url)


def get(
    mock: MockServer | str, path: str, *, key: str | None = "test", **headers: str
) -> Reply:
    return call(mock, "GET", path, key=key, **headers)


def post(
    mock: MockServer | str, body: Any = VEO, *, key: str | None = "test", **headers: str
) -> Reply:
    """The answer to a submit."""
    return call(mock, "POST", f"{API}/videos", body, key=key, **headers)


def veo(**fields: Any) -> dict[str, Any]:
    """A submit's body."""
    return {**VEO, **fields}


def submit(mock: MockServer | str, prompt: str = "a cat", **fields: Any) -> str:
    """The id of a new job."""
    reply = post(mock, veo(prompt=prompt, **fields))
    assert reply.status == 202, reply.raw
    return str(reply.json["id"])


def poll(mock: MockServer, job_id: str) -> dict[str, Any]:
    reply = get(mock, f"{API}/videos/{job_id}")
    assert reply.status == 200, reply.raw
    return dict(reply.json)


def poll_to_the_end(mock: MockServer, job_id: str) -> dict[str, Any]:
    for _ in range(10):
        wire = poll(mock, job_id)
        if wire["status"] not in ("pending", "in_progress"):
            return wire
    raise AssertionError("the job does not end")


def finished(mock: MockServer, prompt: str = "a cat", **fields: Any) -> dict[str, Any]:
    """What the poll shows of a new job that has ended."""
    return poll_to_the_end(mock, submit(mock, prompt, **fields))


def statuses(mock: MockServer, job_id: str, count: int) -> list[str]:
    return [poll(mock, job_id)["status"] for _ in range(count)]


def mock_health(mock: MockServer) -> dict[str, Any]:
    return dict(get(mock, "/__mock/health", key=None).json)


def content(mock: MockServer, wire: dict[str, Any], index: int = 0) -> bytes:
    """The clip of a job that has ended."""
    reply = get(mock, wire["unsigned_urls"][index])
    assert reply.status == 200, reply.raw
    return reply.raw


def generation(mock: MockServer, job_id: str) -> Reply:
    """The record of a job that has ended, asked for until it is there."""
    first, second = (get(mock, f"{API}/generation?id={job_id}") for _ in range(2))
    assert first.status == 404, first.raw
    return second


def zod_issues(reply: Reply) -> list[dict[str, Any]]:
    assert reply.status == 400, reply.raw
    assert reply.json["success"] is False and reply.json["error"]["name"] == "ZodError"
    return list(json.loads(reply.json["error"]["message"]))


def read_to_the_end(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            answer += part
    return answer


def exchange(mock: MockServer, data: bytes) -> bytes:
    """Send these bytes and read until the mock closes."""
    with connect(mock) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
        return read_to_the_end(sock)


def head_of(line: str, *headers: str) -> bytes:
    return "\r\n".join(
        [line, "Host: x", "Authorization: Bearer k", *headers, "", ""]
    ).encode("latin-1")


def answered(answer: bytes) -> list[int]:
    """The statuses of the answers in these bytes."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answer)]


MODELS = f"GET {API}/videos/models HTTP/1.1"
LAST = head_of(MODELS, "Connection: close")
POST = f"POST {API}/videos HTTP/1.1"
BODY = json.dumps(VEO).encode()

# ============ Mocks, clips, processes


@pytest.fixture
def mock() -> Iterator[MockServer]:
    """A mock without fixtures: every submit of a listed model succeeds."""
    with MockServer(fixtures=[]) as server:
        yield server


@pytest.fixture(scope="module")
def shared() -> Iterator[MockServer]:
    """The same, one for all tests that do not mind each other."""
    with MockServer(fixtures=[]) as server:
        yield server


@pytest.fixture(scope="module")
def catalogue() -> Iterator[MockServer]:
    """A mock with the fixtures.json that ships."""
    with MockServer(fixtures=str(FIXTURES)) as server:
        yield server


@pytest.fixture(scope="module")
def locked() -> Iterator[MockServer]:
    """A mock for which there is one valid key."""
    with MockServer(fixtures=[], api_key="right") as server:
        yield server


@pytest.fixture(scope="module")
def priced() -> Iterator[MockServer]:
    """A mock with the models that ship, and one that is in no list."""
    models = json.loads(FIXTURES.read_text(encoding="utf-8"))["models"]
    fixtures = [{"match": {"model": "someone/else"}}, {"match": {}}]
    with MockServer(fixtures={"models": models, "fixtures": fixtures}) as server:
        yield server


def serving(*fixtures: dict[str, Any], **settings: Any) -> MockServer:
    return MockServer(fixtures=list(fixtures), **settings)


def fails(match: dict[str, Any], error: str = "no", **more: Any) -> dict[str, Any]:
    """A fixture that lets the job fail."""
    return {
        "match": match,
        "response": {"video": {"status": "failed", "error": error}},
        **more,
    }


def write(file: Path, document: Any) -> Path:
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return file


def large_clip(folder: Path, size: int) -> Path:
    """A fixture file whose clips have so many bytes, which take no room on the disk."""
    with (folder / "big.mp4").open("wb") as file:
        file.truncate(size)
    fixture = {"match": {}, "response": {"video": {"file": "big.mp4"}}}
    return write(folder / "f.json", {"fixtures": [fixture]})


def serving_file(folder: Path, size: int) -> MockServer:
    """A mock of a large clip."""
    return MockServer(fixtures=large_clip(folder, size))


def in_parallel(count: int, function: Callable[[int], Result]) -> list[Result]:
    """What the function returns for 0, 1, …, called in as many threads."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, range(count)))


def eventually(condition: Callable[[], object]) -> bool:
    """Whether this comes true, looked at every few milliseconds."""
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


@contextlib.contextmanager
def memory_traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """How many bytes are in use, and were at most, of those allocated in this block."""

    def traced() -> tuple[int, int]:
        gc.collect()
        return tracemalloc.get_traced_memory()

    tracemalloc.start()
    try:
        yield traced
    finally:
        tracemalloc.stop()


@contextlib.contextmanager
def nobody() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The boxes side by side in this part of an MP4 file; their sizes must add up."""
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


def tracks_of(clip: bytes) -> list[bytes]:
    return [body for kind, body in boxes(inside(clip, "moov")) if kind == "trak"]


def numbers(data: bytes, count: int, at: int = 0) -> tuple[int, ...]:
    return struct.unpack(f">{count}I", data[at : at + 4 * count])


def size_of(clip: bytes) -> tuple[int, int]:
    """Width and height of the first track."""
    width, height = numbers(inside(tracks_of(clip)[0], "tkhd"), 2, 76)
    return width >> 16, height >> 16


@functools.cache
def installation() -> tempfile.TemporaryDirectory[str]:
    """A folder with the module, where processes find it compiled once one has run there."""
    folder = tempfile.TemporaryDirectory()
    for file in (MODULE, FIXTURES):
        shutil.copy(file, folder.name)
    return folder


def environment_with(more: dict[str, str]) -> dict[str, str]:
    """The environment of a process, without what would steer Python's cache, pytest or the mock."""
    steering = ("PYTHONDONT", "PYTHONPYCACHE", "PYTEST", "OPENROUTER_VIDEO_MOCK")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(steering)
    }
    return {**kept, **more}


class Done(NamedTuple):
    status: int
    out: str
    err: str


def command(*arguments: str, **environment: str) -> Done:
    """The command line in this process, for what does not get as far as serving."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(arguments, environment=environment, stdout=out, stderr=err)
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Done(status, out.getvalue(), err.getvalue())


def flags() -> set[str]:
    """What the command explains in its help."""
    pattern = r"(?m)^  (?:-\w[ A-Z,]*, )?(--[a-z-]+)(?: [A-Z,]+)?\s+\w"
    return set(re.findall(pattern, command("--help").out))


def process(*arguments: str) -> Done:
    """Python in a process of its own, beside the module."""
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=installation().name,
        env=environment_with({}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return Done(ran.returncode, ran.stdout, ran.stderr)


@contextlib.contextmanager
def running(
    *arguments: str,
    through: Sequence[str] = (),
    stdin: Any = None,
    **environment: str,
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A mock in a process of its own, and its origin."""
    started = subprocess.Popen(
        [*through, sys.executable, "-m", "openrouter_video_mock", *arguments],
        cwd=installation().name,
        env=environment_with(environment),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    try:
        line = started.stdout.readline()
        match = re.fullmatch(
            r"openrouter_video_mock listening on (http://127\.0\.0\.1:\d+)/api/v1\n", line
        )
        assert match, line + str(started.stderr and started.stderr.read())
        yield started, match[1]
    finally:
        started.kill()
        started.communicate()


# ============ Settings


def test_every_setting_is_a_flag_with_help_and_an_environment_twin() -> None:
    assert {f"--{name.replace('_', '-')}" for name in Config._fields} <= flags()
    wrong = command("--validate", OPENROUTER_VIDEO_MOCK_MAX_JOBS="0")
    complaint = "--max-jobs: Too small: expected number to be >=1, got 0\n"
    assert wrong.status == 2 and wrong.err.endswith(complaint)


TWO_POLLS = "expected two whole numbers, for pending and in_progress, such as 1,2"
TWO_SECONDS = "expected two numbers, for pending and in_progress, such as 5,25"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"port": -1}, "port: Too small: expected number to be >=0, got -1"),
        ({"port": 65536}, "port: Too big: expected number to be <=65535, got 65536"),
        ({"port": "x"}, "port: Invalid input: expected number, received string, got 'x'"),
        ({"polls": (1, -1)}, f"polls[1]: {TWO_POLLS}, got -1"),
        ({"polls": 3}, f"polls: {TWO_POLLS}, got 3"),
        ({"polls": (1, 2, 3)}, f"polls: {TWO_POLLS}, got (1, 2, 3)"),
        ({"polls": (1.5, 0)}, f"polls[0]: {TWO_POLLS}, got 1.5"),
        ({"seconds": (0.5,)}, f"seconds: {TWO_SECONDS}, got (0.5,)"),
        ({"seconds": 5}, f"seconds: {TWO_SECONDS}, got 5"),
        ({"seconds": (0, 1e300)}, f"seconds[1]: {TWO_SECONDS}, got 1"),
        ({"latency": float("nan")}, "latency: "),
        ({"latency": float("inf")}, "latency: "),
        ({"latency": 1e10}, "latency: Too big: expected number to be <=3600, got "),
        ({"latency": "x"}, "latency: Invalid input: expected number, received string"),
        ({"max_jobs": 0}, "max_jobs: Too small: expected number to be >=1, got 0"),
        ({"max_requests": 1.5}, "max_requests: Invalid input: expected int"),
        (
            {"max_requests": -1},
            "max_requests: Too small: expected number to be >=0, got -1",
        ),
        ({"max_body_mb": 0}, "max_body_mb: Too small: expected number to be >=0.001"),
        ({"host": None}, "host: Invalid input: expected string, received null"),
        ({"webhook_secret": b"x"}, "webhook_secret: Invalid input: expected string"),
        ({"api_key": [7]}, "api_key: Invalid input: expected string, received number"),
        (
            {"relative_polling_url": "no"},
            "relative_polling_url: Invalid input: expected boo",
        ),
        ({"public_url": "ftp://x"}, "public_url: expected an http or https URL, got "),
        ({"public_url": 5}, "public_url: expected an http or https URL, got 5"),
        ({"callback_url": "localhost:3000"}, "callback_url: expected an http or https URL"),
        ({"fault": {"on": "poll"}}, "fault: does nothing"),
        ({"fault": "x"}, "fault: expected a JSON object such as "),
        ({"fixtures": 7}, "fixtures: "),
        ({"fixtures": "a\0b"}, "a\0b: "),
    ],
)
def test_impossible_settings_are_refused_in_one_line(
    settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SetupError) as caught:
        MockServer(**settings)
    assert str(caught.value).startswith(complaint) and "\n" not in str(caught.value)


NO_JSON: list[Any] = [{1, 2}, b"x", Path("x"), object(), float("nan"), {"x": {1}}]
WAYS_IN: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "fixtures": ("fixtures[0]", lambda value: serving(asking_for(value))),
    "an added fixture": (
        "fixture",
        lambda value: MockServer().add_fixture(asking_for(value)),
    ),
    "a list of them": (
        "fixtures[0]",
        lambda value: MockServer().add_fixture([asking_for(value)]),
    ),
    "an added fault": ("fault", lambda value: MockServer().add_fault(striking_with(value))),
    "a fault": ("fault", lambda value: MockServer(fault=striking_with(value))),
    "one of two faults": ("fault", lambda value: MockServer(fault=[striking_with(value)])),
}


def asking_for(value: Any) -> dict[str, Any]:
    return {"match": {"body": {"seed": value}}}


def striking_with(value: Any) -> dict[str, Any]:
    return {"on": "poll", "status": 403, "metadata": {"a": value}}


@pytest.mark.parametrize("way", WAYS_IN)
def test_python_objects_that_are_no_json_are_refused_with_their_place(way: str) -> None:
    place, attempt = WAYS_IN[way]
    for value in NO_JSON:
        with pytest.raises(SetupError) as caught:
            attempt(value)
        assert str(caught.value).startswith(place), caught.value


@pytest.mark.parametrize(
    "value", [{1: 2}, {"match": {1: 2}}, {"match": {}, "times": "2"}, "a\0b", {"match": ()}]
)
def test_python_objects_that_are_no_fixtures_are_refused(value: Any) -> None:
    with pytest.raises(SetupError):
        MockServer(fixtures=[value])


def test_settings_that_are_given_may_be_changed_afterwards() -> None:
    fixture = fails({}, "kept")
    with serving(fixture) as mock:
        fixture["response"]["video"]["error"] = "changed"
        fixture["match"]["prompt"] = "x"
        assert finished(mock)["error"] == "kept"
        assert mock.fixtures()[-1]["match"] == {}


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(TypeError, match="'prot'"):
        MockServer(prot=1)
    assert {"port", "fixtures", "polls"} <= set(inspect.signature(MockServer).parameters)


# ============ Wire contract


def test_submit_answers_202_with_exactly_three_keys(mock: MockServer) -> None:
    reply = post(mock)
    assert reply.status == 202
    assert list(reply.json) == ["id", "polling_url", "status"]
    assert re.fullmatch(r"gen-vid-\d{10}-[0-9A-Za-z]{20}", reply.json["id"])
    assert reply.json["polling_url"] == f"{mock.url}/videos/{reply.json['id']}"
    assert b" " not in reply.raw and not reply.raw.endswith(b"\n")


def test_job_ids_do_not_repeat_when_a_test_seeds_random(mock: MockServer) -> None:
    import random

    ids = set()
    for _ in range(3):
        random.seed(1)
        ids.add(submit(mock))
    assert len(ids) == 3


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
def test_a_job_that_ends_badly_is_http_200_with_a_plain_error(
    shared: MockServer, status: str
) -> None:
    wire = finished(shared, f"mock:{status}")
    assert list(wire) == ["id", "generation_id", "polling_url", "status", "error"]
    assert wire["status"] == status and isinstance(wire["error"], str)
    assert shared.job()["error"] == wire["error"]


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
    "route",
    ["POST /videos", "GET /videos/x", "GET /videos/x/content", "GET /key", "GET /credits"],
)
def test_production_has_three_wordings_of_401(
    locked: MockServer, header: str | None, message: str, route: str
) -> None:
    method, path = route.split()
    headers = {} if header is None else {"Authorization": header}
    body = VEO if method == "POST" else None
    reply = call(locked, method, API + path, body, key=None, **headers)
    assert (reply.status, reply.json) == (401, {"error": {"message": message, "code": 401}})


def test_only_listed_keys_are_valid_and_models_need_none(locked: MockServer) -> None:
    assert post(locked, key="right").status == 202
    assert get(locked, f"{API}/videos/models", key="wrong").status == 200
    assert get(locked, f"{API}/models?output_modalities=video", key=None).status == 200


ZOD_TABLE: list[tuple[Any, list[Any], str]] = [
    ({}, ["model"], "Invalid input: expected string, received undefined"),
    ({"model": 3}, ["model"], "Invalid input: expected string, received number"),
    ([], [], "Invalid input: expected object, received array"),
    (b"null", [], "Invalid input: expected object, received null"),
    (veo(prompt=None), ["prompt"], "Invalid input: expected string, received null"),
    (veo(duration=0), ["duration"], "Too small: expected number to be >=1"),
    (veo(duration=1.5), ["duration"], "Invalid input: expected int, received number"),
    (veo(duration="8"), ["duration"], "Invalid input: expected number, received string"),
    (veo(duration=True), ["duration"], "Invalid input: expected number, received boolean"),
    (
        veo(resolution=720),
        ["resolution"],
        'Invalid option: expected one of "360p"|"480p"|"720p"|',
    ),
    (
        veo(aspect_ratio="5:4"),
        ["aspect_ratio"],
        'Invalid option: expected one of "16:9"|"9:16"|',
    ),
    (veo(size=5), ["size"], "Invalid input: expected string, received number"),
    (
        veo(generate_audio="yes"),
        ["generate_audio"],
        "Invalid input: expected boolean, received string",
    ),
    (veo(seed=2**60), ["seed"], "Too big: expected int to be <=9007199254740991"),
    (veo(creativity=0.5), ["creativity"], "Invalid input: expected int, received number"),
    (veo(upscale_factor=0), ["upscale_factor"], "Too small: expected number to be >0"),
    (veo(callback_url="nope"), ["callback_url"], "Invalid URL"),
    (
        veo(callback_url="http://example.com/"),
        ["callback_url"],
        "callback_url must use HTTPS",
    ),
    (
        veo(previous_job_id="x"),
        ["previous_job_id"],
        "Invalid string: must match pattern /^gen-vid-",
    ),
    (
        veo(session_id="x" * 257),
        ["session_id"],
        "Too big: expected string to have <=256 characters",
    ),
    (veo(trace=[]), ["trace"], "Invalid input: expected object, received array"),
    (
        veo(trace={"trace_id": 1}),
        ["trace", "trace_id"],
        "Invalid input: expected string, received number",
    ),
    (veo(user={}), ["user"], "Invalid input: expected string, received object"),
    (veo(provider=3), ["provider"], "Invalid input: expected object, received number"),
    (
        veo(provider={"options": {"a": 3}}),
        ["provider", "options", "a"],
        "Invalid input: expected record",
    ),
    (
        veo(frame_images={}),
        ["frame_images"],
        "Invalid input: expected array, received object",
    ),
    (
        veo(frame_images=[FIRST_FRAME, {**FIRST_FRAME, "frame_type": "mid"}]),
        ["frame_images", 1, "frame_type"],
        'Invalid option: expected one of "first_frame"|"last_frame"',
    ),
    (
        veo(frame_images=[{**FIRST_FRAME, "type": "x"}]),
        ["frame_images", 0, "type"],
        'Invalid input: expected "image_url"',
    ),
    (
        veo(frame_images=[{**FIRST_FRAME, "image_url": {}}]),
        ["frame_images", 0, "image_url", "url"],
        "Invalid input: expected string, received undefined",
    ),
    (
        veo(input_references=[{"type": "text"}]),
        ["input_references", 0, "type"],
        "Invalid discriminator value. Expected 'image_url' | 'audio_url' | 'video_url'",
    ),
    (
        veo(input_references=[3]),
        ["input_references", 0],
        "Invalid input: expected object, received number",
    ),
]


@pytest.mark.parametrize(("body", "path", "message"), ZOD_TABLE)
def test_a_body_that_breaks_the_schema_gets_the_zod_envelope(
    catalogue: MockServer, body: Any, path: list[Any], message: str
) -> None:
    issues = zod_issues(post(catalogue, body))
    assert [issue["path"] for issue in issues] == [path]
    assert issues[0]["message"].startswith(message)
    assert list(issues[0])[-2:] == ["path", "message"]


@pytest.mark.parametrize("field", ["seed", "duration", "upscale_factor", "creativity"])
def test_a_number_beyond_all_bounds_is_refused(mock: MockServer, field: str) -> None:
    for number in (10**400, -(10**400)):
        assert zod_issues(post(mock, veo(**{field: number})))


def test_zod_issues_come_one_per_fault_with_the_recorded_key_order(
    mock: MockServer,
) -> None:
    reply = post(mock, {"duration": 0, "resolution": "9p"})
    text = reply.json["error"]["message"]
    assert text.startswith(
        '[\n  {\n    "expected": "string",\n    "code": "invalid_type",\n    "path": [\n'
    )
    issues = zod_issues(reply)
    assert [list(issue) for issue in issues] == [
        ["expected", "code", "path", "message"],
        ["origin", "code", "minimum", "inclusive", "path", "message"],
        ["code", "values", "path", "message"],
    ]


def test_whole_floats_are_integers_and_unknown_keys_are_stripped(mock: MockServer) -> None:
    submit(
        mock,
        duration=6.0,
        nonsense=[1, 2],
        session_id="s",
        trace={"more": 1},
        user="u",
        provider={"options": {}},
    )
    request = mock.job()["request"]
    assert request["duration"] == 6 and mock.job()["cost"] == 2.4
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
    shared: MockServer, name: str
) -> None:
    assert zod_issues(post(shared, HOSTILE_BODIES[name]))
    assert submit(shared)


def test_surrogate_pairs_and_brackets_inside_strings_are_fine(mock: MockServer) -> None:
    body = b'{"model": "google/veo-3.1", "prompt": "\\ud83d\\ude00 ' + b"[" * 500 + b'\\""}'
    assert post(mock, body, Content_Type="text/plain").status == 202
    assert mock.job()["request"]["prompt"].startswith("\U0001f600 [[[")


def test_a_callback_over_plain_http_is_an_issue_once_the_schema_holds(
    mock: MockServer,
) -> None:
    for duration, paths in ((8, [["callback_url"]]), (0, [["duration"]])):
        body = veo(duration=duration, callback_url="http://example.com/")
        assert [issue["path"] for issue in zod_issues(post(mock, body))] == paths


def test_hostile_bodies_cost_little(mock: MockServer) -> None:
    begun = time.process_time()
    deep = b'{"x":"' + b'\\"' * 20_000 + b"[" * 101
    assert zod_issues(post(mock, deep))
    assert len(zod_issues(post(mock, veo(frame_images=[1] * 500_000)))) == 100
    assert time.process_time() - begun < 3, "of the processor's time"


def test_any_number_of_query_parameters_breaks_nothing(mock: MockServer) -> None:
    query = "testId=t&" + "a=1&" * 1000
    assert call(mock, "POST", f"{API}/videos?{query}", VEO).status == 202
    assert get(mock, f"{API}/videos/x/content?{query}").status == 404
    assert get(mock, f"/__mock/requests?{query}").status == 400
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
        exposed = "X-Generation-Id,X-Provider-Name,request-id,cf-ray"
        assert headers["Access-Control-Expose-Headers"] == exposed
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_browser_of_another_origin_may_preflight_any_path(mock: MockServer) -> None:
    asked = {
        "Origin": "https://app.test",
        "Access_Control_Request_Headers": "authorization, X-Stainless-OS, x-evil",
    }
    reply = call(mock, "OPTIONS", f"{API}/videos/anything", key=None, **asked)
    assert (reply.status, reply.raw) == (204, b"")
    methods = "GET,OPTIONS,PATCH,DELETE,POST,PUT"
    assert reply.headers["Access-Control-Allow-Methods"] == methods
    allowed = reply.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"Authorization", "Idempotency-Key", "b3", "X-Stainless-OS"} <= set(allowed)
    assert "Range" not in allowed and "x-evil" not in allowed
    assert reply.headers["Vary"] == "Access-Control-Request-Headers"
    assert "Content-Length" not in reply.headers


@pytest.mark.parametrize(
    "route", ["DELETE /videos/x", "GET /videos", "PUT /videos", "GET /", "GET /videos/x/y"]
)
def test_what_production_does_not_have_is_404(shared: MockServer, route: str) -> None:
    method, path = route.split()
    reply = call(shared, method, API + path)
    error = {"message": "Not Found", "code": 404}
    assert (reply.status, reply.json) == (404, {"error": error})


def test_generated_urls_follow_the_origin_that_the_client_used(mock: MockServer) -> None:
    _, port = address(mock)

    def origin(**headers: str) -> str:
        return str(post(mock, **headers).json["polling_url"]).partition("/api")[0]

    assert origin(Host=f"localhost:{port}") == f"http://localhost:{port}"
    forwarded = {"X_Forwarded_Host": "a.test, b.test", "X_Forwarded_Proto": "https,http"}
    assert origin(**forwarded) == "https://a.test"
    assert origin(X_Forwarded_Host="a b<script>", X_Forwarded_Proto="gopher") == mock.origin


def test_public_url_and_relative_polling_url_are_settings() -> None:
    with MockServer(
        fixtures=[], public_url="https://mock.test/", relative_polling_url=True
    ) as mock:
        job_id = submit(mock)
        wire = poll_to_the_end(mock, job_id)
        assert wire["polling_url"] == f"{API}/videos/{job_id}"
        assert wire["unsigned_urls"] == [
            f"https://mock.test{API}/videos/{job_id}/content?index=0"
        ]


@pytest.mark.parametrize(
    ("host", "proto", "origin"),
    [
        (", real.example.com", ", https", "https://real.example.com"),
        ("a.test,b.test", "http", "http://a.test"),
        ("a.test:8443", "https", "https://a.test:8443"),
        (" , ", "https", "https://{host}"),
        ("a b", "", "http://{host}"),
        ("a.test/path", "", "http://{host}"),
    ],
)
def test_the_first_forwarded_value_that_can_be_one_counts(
    shared: MockServer, host: str, proto: str, origin: str
) -> None:
    wire = post(shared, X_Forwarded_Host=host, X_Forwarded_Proto=proto).json
    expected = origin.format(host=shared.origin.removeprefix("http://"))
    assert wire["polling_url"].partition("/api")[0] == expected


def test_a_forwarded_host_that_cannot_be_one_is_said_in_the_log(mock: MockServer) -> None:
    lines = lines_of(mock)
    assert post(mock, X_Forwarded_Host="a b<script>").status == 202
    assert any("X-Forwarded-Host" in line for line in lines)


@pytest.mark.parametrize(
    ("session_id", "status"),
    [("x" * 256, 202), ("\U0001f600" * 128, 202), ("\U0001f600" * 129, 400)],
)
def test_texts_are_measured_as_javascript_does(
    shared: MockServer, session_id: str, status: int
) -> None:
    assert post(shared, veo(session_id=session_id)).status == status


def test_a_form_is_refused_as_malformed_json_and_journaled_as_what_it_is(
    mock: MockServer,
) -> None:
    kind = "multipart/form-data; boundary=x"
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n--x--\r\n'
    (issue,) = zod_issues(post(mock, form, Content_Type=kind))
    assert issue["message"] == "Malformed JSON in request body"
    entry = mock.requests()[-1]
    assert entry["headers"]["content-type"] == kind


@pytest.mark.parametrize(
    ("path", "directive"),
    [
        ("/key", "private, no-store"),
        (
            "/models",
            "public, max-age=120, stale-while-revalidate=3600, stale-if-error=3600",
        ),
        (
            "/videos/models",
            "public, max-age=120, stale-while-revalidate=3600, stale-if-error=3600",
        ),
    ],
)
def test_what_may_be_cached_is_as_recorded(
    shared: MockServer, path: str, directive: str
) -> None:
    assert get(shared, API + path).headers["Cache-Control"] == directive


# ============ Catalogue and cost


def test_the_catalogue_lists_complete_models_newest_first(catalogue: MockServer) -> None:
    reply = get(catalogue, f"{API}/videos/models", key=None)
    models = reply.json["data"]
    assert len(models) == 30 and "max-age=120" in reply.headers["Cache-Control"]
    assert [model["created"] for model in models] == sorted(
        (m["created"] for m in models), reverse=True
    )
    keys = (
        "id canonical_slug hugging_face_id name created description "
        "supported_resolutions supported_aspect_ratios "
        "supported_sizes supported_durations supported_frame_images upscale_factor "
        "creativity generate_audio seed "
        "pricing_skus allowed_passthrough_parameters"
    )
    assert all(" ".join(model) == keys for model in models)
    assert all(model["description"] for model in models)


def test_models_of_all_kinds_are_listed_only_if_video_is_asked_for(
    catalogue: MockServer,
) -> None:
    assert get(catalogue, f"{API}/models", key=None).json["data"] == []
    data = get(catalogue, f"{API}/models?output_modalities=image,video", key=None).json[
        "data"
    ]
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
        (
            {"duration": 99},
            "Duration 99s is not supported for this model. Supported durations: 4, 6, 8s",
        ),
        (
            {"resolution": "480p"},
            "Resolution 480p is not supported for this model. Supported resolutions: 720p, ",
        ),
        (
            {"aspect_ratio": "1:1"},
            "Aspect ratio 1:1 is not supported for this model. Supported aspect ratios: 16:9, ",
        ),
        (
            {"size": "1x1"},
            "Size 1x1 is not supported for this model. Supported sizes: 1280x720, ",
        ),
    ],
)
def test_parameters_are_checked_in_productions_words(
    catalogue: MockServer, fields: dict[str, Any], message: str
) -> None:
    reply = post(catalogue, veo(**fields))
    assert reply.status == 400 and reply.message.startswith(message)
    assert reply.json["error"]["metadata"] == FUNNEL


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "no/such"}, "no/such is not a valid model ID"),
        ({"model": ""}, " is not a valid model ID"),
        ({"model": "google/veo-3.1-2"}, "google/veo-3.1-2 is not a valid model ID"),
        ({"model": "google/veo-3.1-4k"}, "google/veo-3.1-4k is not a valid model ID"),
        (
            {"prompt": ""},
            "Google video generations require a prompt when no image input is provided",
        ),
        (
            {"model": "openai/sora-2-pro", "frame_images": [FIRST_FRAME]},
            'the provider integration for model "openai/sora-2-pro" does not support '
            "first_frame frame_images",
        ),
        (
            {"previous_job_id": "gen-vid-1790983457-BXyYqhSkuztnVdDoZpef"},
            "google/veo-3.1-20260320 does not support previous_job_id",
        ),
        (
            {
                "input_references": [
                    {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA"}}
                ]
            },
            "Invalid reference URL: input_references[0].video_url.url: Only HTTPS URLs are allowed",
        ),
        (
            {
                "frame_images": [
                    {**FIRST_FRAME, "image_url": {"url": "http://x.test/a.png"}}
                ]
            },
            "Invalid reference URL: frame_images[0].image_url.url: Only HTTPS URLs are allowed",
        ),
        (
            {"model": "black-forest-labs/flux-video-upscale", "upscale_factor": 9.0},
            "Upscale factor 9 is not supported for this model. Supported upscale factors: 1.5 to 3",
        ),
    ],
)
def test_requests_that_production_refuses_are_refused(
    catalogue: MockServer, fields: dict[str, Any], message: str
) -> None:
    reply = post(catalogue, veo(**fields))
    assert (reply.status, reply.message) == (400, message)


def test_canonical_slugs_images_without_prompt_and_data_urls_are_accepted(
    catalogue: MockServer,
) -> None:
    data_url = {
        **FIRST_FRAME,
        "image_url": {"url": "data:image/png;charset=utf-8;base64,iVBORw0KGgo="},
    }
    loud = {**FIRST_FRAME, "image_url": {"url": "HTTPS://x.test/a.png"}}
    for body in (
        veo(model="google/veo-3.1-20260320"),
        {"model": "google/veo-3.1", "frame_images": [data_url]},
        {"model": "google/veo-3.1", "prompt": "", "frame_images": [FIRST_FRAME]},
        veo(frame_images=[loud], callback_url="HTTPS://x.test/hook"),
        {
            "model": "black-forest-labs/flux-video-upscale",
            "input_references": [
                {"type": "video_url", "video_url": {"url": "https://x.test/a.mp4"}}
            ],
        },
    ):
        assert post(catalogue, body).status == 202, body


@pytest.mark.parametrize(
    ("cost", "model", "fields"),
    [
        # Charged by production.
        (0.052, GROK, {"resolution": "480p", "duration": 1, "frame_images": IMAGE}),
        (0.07, GROK, {"resolution": "720p", "duration": 1}),
        (0.072, GROK, {"resolution": "720p", "duration": 1, "frame_images": IMAGE}),
        (
            0.1358,
            "bytedance/seedance-2.0-mini",
            {"resolution": "480p", "aspect_ratio": "1:1", "duration": 4},
        ),
        (1.008, "kwaivgi/kling-v3.0-std", {"duration": 12, "generate_audio": False}),
        (
            0.32,
            "google/veo-3.1-fast",
            {"resolution": "720p", "duration": 4, "generate_audio": False},
        ),
        (
            0.2,
            "google/veo-3.1-lite",
            {"resolution": "720p", "duration": 4, "generate_audio": True},
        ),
        (0.4902, "minimax/hailuo-2.3", {}),
        (0.56, "kwaivgi/kling-video-o1", {}),
        (0.402, GROK, {"frame_images": IMAGE}),
        (1.16523, "bytedance/seedance-2.5", {}),
        (0.2125, "alibaba/wan-3.0", {"resolution": "480p", "duration": 2}),
        (0.2125, "alibaba/wan-3.0", {"resolution": "480p", "duration": 5}),
        (0.85, "alibaba/wan-3.0", {}),
        (
            0.169617,
            "bytedance/seedance-2.0-mini",
            {
                "resolution": "480p",
                "aspect_ratio": "16:9",
                "duration": 4,
                "input_references": [*IMAGE_INPUT, *VIDEO_INPUT, *AUDIO_INPUT],
            },
        ),
        # By the same rules.
        (1.512, "kwaivgi/kling-v3.0-std", {"duration": 12}),
        (2.4, "google/veo-3.1", {"duration": 4, "resolution": "4K"}),
        (2.4, "google/veo-3.1", {"duration": 4, "size": "3840x2160"}),
        (
            0.75,
            "alibaba/wan-2.6",
            {"duration": 5, "resolution": "1080p", "frame_images": IMAGE},
        ),
        (0.2, "heygen/heygen-video-1", {"duration": 5, "input_references": IMAGE_INPUT}),
        (0.69, "minimax/hailuo-3", {"duration": 5, "input_references": IMAGE_INPUT}),
        (1.4, "runway/aleph-2", {"input_references": VIDEO_INPUT}),
        (
            2.05,
            "black-forest-labs/flux-3-video",
            {"duration": 5, "input_references": VIDEO_INPUT},
        ),
        (1.45, "black-forest-labs/flux-3-video", {"duration": 5, "resolution": "1080p"}),
        (
            1.3824,
            "black-forest-labs/flux-video-upscale",
            {"upscale_factor": 2, "input_references": VIDEO_INPUT},
        ),
        (
            1.93536,
            "black-forest-labs/flux-video-upscale",
            {"creativity": 1, "upscale_factor": 2},
        ),
        (0, "someone/else", {}),
        # Sizes that no price names: as the nearest resolution.
        (2.5, "x-ai/grok-imagine-video-1.5", {"duration": 10, "size": "2560x1440"}),
        (0.85, "alibaba/wan-3.0", {"duration": 10, "size": "1366x768"}),
        (
            0.6,
            "heygen/heygen-video-1",
            {"duration": 10, "size": "1280x720", "input_references": IMAGE_INPUT},
        ),
    ],
)
def test_costs_follow_the_price_list(
    priced: MockServer, cost: float, model: str, fields: dict[str, Any]
) -> None:
    submit(priced, model=model, **fields)
    charged = priced.job()["cost"]
    assert charged == pytest.approx(cost, abs=1e-12)
    assert len(repr(charged)) < 12, "binary noise"


@pytest.mark.parametrize(
    ("size", "model", "fields"),
    [
        (
            (640, 640),
            "bytedance/seedance-2.0-mini",
            {"resolution": "480p", "aspect_ratio": "1:1"},
        ),
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
    priced: MockServer, size: tuple[int, int], model: str, fields: dict[str, Any]
) -> None:
    wire = finished(priced, model=model, **fields)
    assert size_of(content(priced, wire)) == size


def test_a_listed_model_is_checked_whatever_fixtures_were_given() -> None:
    for mock in (MockServer(), serving(), serving({"match": {}})):
        with mock:
            for wrong, message in (
                (veo(duration=500), "Duration 500s is not supported for this model. "),
                (veo(model="gogle/veo"), "gogle/veo is not a valid model ID"),
            ):
                reply = post(mock, wrong)
                assert reply.status == 400 and reply.message.startswith(message)
            assert post(mock, veo(model="google/veo-3.1-fast")).status == 202


def test_an_empty_list_of_models_switches_all_checks_off_and_prices_stay_real() -> None:
    with serving(ANY_MODEL) as mock:
        assert finished(mock, model="some/thing", duration=99)["usage"]["cost"] == 0
        assert finished(mock, model=GROK, duration=99)["usage"]["cost"] == 4.95
        models = get(mock, f"{API}/videos/models").json["data"]
        assert {"google/veo-3.1", GROK} <= {model["id"] for model in models}
        assert mock_health(mock)["catalogue"] == "no model is checked"


def test_without_any_file_four_models_are_checked_and_any_other_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside(monkeypatch, tmp_path / "fixtures.json")
    with MockServer() as mock:
        said = "4 built-in models checked, any other accepted"
        assert mock_health(mock)["catalogue"] == said
        assert post(mock, veo(duration=500)).status == 400
        assert finished(mock, model="some/other", duration=500)["usage"]["cost"] == 0
        assert len(get(mock, f"{API}/videos/models").json["data"]) == 4


@pytest.mark.parametrize("document", [[{"model": "app.user", "pk": 1}], {"users": []}])
def test_a_fixtures_json_of_somebody_else_beside_the_module_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: Any
) -> None:
    file = write(tmp_path / "fixtures.json", document)
    beside(monkeypatch, file)
    validated = command("--validate")
    assert validated.status == 0 and "fixtures.json" in validated.err
    with MockServer() as mock:
        assert post(mock).status == 202
    with pytest.raises(SetupError, match="fixtures.json: "):
        MockServer(fixtures=file)


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (None, "30 models checked (fixtures.json)"),
        ([{"id": "a/b"}], "1 models checked (f.json)"),
        ([], "no model is checked"),
    ],
)
def test_health_and_validation_say_which_models_are_checked(
    tmp_path: Path, models: Any, said: str
) -> None:
    listed = {} if models is None else {"models": models}
    file = write(tmp_path / "f.json", {"fixtures": [{"match": {}}], **listed})
    assert command("--validate", "-f", str(file)).out == f"ok: 1 fixtures, {said}\n"
    with MockServer(fixtures=file) as mock:
        assert mock_health(mock)["catalogue"] == said


def test_the_page_says_which_models_are_checked(mock: MockServer) -> None:
    assert get(mock, "/health").json["catalogue"] == "30 models checked (fixtures.json)"
    assert "health.catalogue" in get(mock, "/").raw.decode()


def test_a_model_that_a_fixture_names_is_known_beside_the_catalogue() -> None:
    mine = {
        "models": [{"id": "a/b"}],
        "fixtures": [{"match": {"model": "c/d"}}, {"match": {}}],
    }
    with MockServer(fixtures=mine) as mock:
        for model in ("a/b", "c/d"):  # what an entry leaves out is not checked
            body = veo(model=model, frame_images=IMAGE, duration=99)
            assert post(mock, body).status == 202
        assert post(mock, veo(model="c/d-20260101")).status == 202
        assert post(mock, veo(model="c/e")).status == 400


def test_a_models_list_alone_enforces_the_catalogue_and_lets_the_rest_succeed() -> None:
    with MockServer(
        fixtures={"models": [{"id": "a/b", "supported_durations": [5]}]}
    ) as mock:
        assert post(mock, veo(model="a/b")).status == 202
        assert post(mock, veo(model="a/b", duration=6)).status == 400


def test_a_listed_model_refuses_previous_job_id_even_without_a_catalogue() -> None:
    previous = {"previous_job_id": "gen-vid-1790983457-BXyYqhSkuztnVdDoZpef"}
    with serving(ANY_MODEL) as mock:
        assert post(mock, veo(**previous)).status == 400
        assert post(mock, veo(model="any/thing", **previous)).status == 202


def test_an_image_alone_is_not_enough_for_the_avatar(catalogue: MockServer) -> None:
    avatar = {"model": "heygen/avatar-iv"}
    for body, status in (
        (avatar, 400),
        ({**avatar, "input_references": IMAGE_INPUT}, 400),
        ({**avatar, "input_references": IMAGE_INPUT + AUDIO_INPUT}, 202),
        ({**avatar, "prompt": "Hello", "input_references": IMAGE_INPUT}, 202),
    ):
        reply = post(catalogue, body)
        assert reply.status == status, reply.raw
        if status == 400:
            words = "avatar-iv requires a prompt (script) or an audio input reference"
            assert reply.message == words


@pytest.mark.parametrize(
    ("model", "asked", "tracks"),
    [
        ("runway/gen-4.5", True, 1),
        ("runway/gen-4.5", None, 1),
        (GROK, True, 2),
        ("google/veo-3.1", False, 1),
    ],
)
def test_a_model_without_sound_has_none_whatever_was_asked(
    priced: MockServer, model: str, asked: bool | None, tracks: int
) -> None:
    fields: dict[str, Any] = {} if asked is None else {"generate_audio": asked}
    wire = finished(priced, model=model, **fields)
    assert len(tracks_of(content(priced, wire))) == tracks


def test_a_seed_is_accepted_by_a_model_that_has_none(priced: MockServer) -> None:
    assert post(priced, veo(model="openai/sora-2-pro", seed=1)).status == 202


def test_a_model_object_leads_to_its_endpoints(catalogue: MockServer) -> None:
    listed = get(catalogue, f"{API}/models?output_modalities=video", key=None).json["data"]
    for model in listed:
        reply = get(catalogue, model["links"]["details"], key=None)
        assert reply.status == 200, model["id"]
        data = reply.json["data"]
        assert data["id"] == model["id"] and len(data["endpoints"]) == 1
        assert data["endpoints"][0]["model_name"] == model["name"]
    assert get(catalogue, f"{API}/models/no/such/endpoints", key=None).status == 404


def test_the_endpoints_of_a_model_have_the_keys_that_the_sdk_insists_on(
    catalogue: MockServer,
) -> None:
    answer = get(catalogue, f"{API}/models/{VEO['model']}/endpoints", key=None).json
    required = "architecture created description endpoints id name"
    assert set(answer["data"]) >= set(required.split())
    (endpoint,) = answer["data"]["endpoints"]
    required = (
        "context_length latency_last_30m max_completion_tokens max_prompt_tokens model_id "
        "model_name name native_tools pricing provider_name quantization service_tier "
        "supported_parameters supports_diarization supports_implicit_caching "
        "supports_tool_choice tag throughput_last_30m uptime_last_1d uptime_last_30m "
        "uptime_last_5m"
    )
    assert set(endpoint) >= set(required.split())


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("output_modalities=video", 200),
        ("output_modalities=all", 200),
        ("output_modalities=image,video", 200),
        ("output_modalities=foo", 400),
        ("output_modalities=video,foo", 400),
        ("output_modalities=Video", 400),
        ("output_modalities=", 400),
    ],
)
def test_an_unknown_modality_gets_the_zod_envelope(
    shared: MockServer, query: str, status: int
) -> None:
    reply = get(shared, f"{API}/models?{query}", key=None)
    assert reply.status == status
    if status == 400:
        assert zod_issues(reply)[0]["code"] == "invalid_value"


def test_a_fixture_file_can_say_how_its_models_are_billed() -> None:
    model = {
        "id": "a/b",
        "pricing_skus": {"duration_seconds": "0.1"},
        "_defaults": {"duration": 4, "resolution": "480p", "aspect_ratio": "1:1"},
        "_billing": {"factor": 0.5, "minimum_seconds": 10},
    }
    with serving({"models": [model]}) as mock:
        for duration, cost in ((None, 0.5), (3, 0.5), (20, 1.0)):
            fields: dict[str, Any] = {} if duration is None else {"duration": duration}
            wire = finished(mock, model="a/b", **fields)
            assert wire["usage"]["cost"] == cost
        assert size_of(content(mock, wire)) == (480, 480)
        (listed,) = get(mock, f"{API}/videos/models").json["data"]
        assert not [key for key in listed if key.startswith("_")]


@pytest.mark.parametrize(("seconds", "pictures"), [(2, 49), (4, 97), (5, 121), (12, 289)])
def test_a_clip_is_one_picture_longer_than_asked(
    priced: MockServer, seconds: int, pictures: int
) -> None:
    wire = finished(priced, model=GROK, duration=seconds)
    video = tracks_of(content(priced, wire))[0]
    sizes = inside(video, "mdia", "minf", "stbl", "stsz")
    assert numbers(sizes, 1, 8) == (pictures,)


# ============ Fixtures, faults, scenarios


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
        ({"model": "x/y"}, {"model": "x/y-4k"}, True),
        ({"model": "x/y"}, {"model": "x/y"}, True),
        ({"model": "x/y"}, {"model": "x/y-2026-03-20"}, True),
        ({"model": "x/y"}, {"model": "x/y-0613-preview"}, True),
        ({"body": {"duration": 8}}, {"duration": 8}, True),
        ({"body": {"duration": 8}}, {}, False),
        ({"body": {"generate_audio": True}}, {"generate_audio": True}, True),
        ({"body": {"seed": True}}, {"seed": 1}, False),
        (
            {"body": {"frame_images": [{"frame_type": "first_frame"}]}},
            {"frame_images": IMAGE},
            True,
        ),
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
        reply = post(mock, veo(**body))
        assert reply.status == (202 if holds else 404), reply.raw
        if holds:
            assert poll_to_the_end(mock, reply.json["id"])["error"] == "no"


def test_the_first_match_in_order_wins_and_an_added_fixture_comes_first() -> None:
    with serving(fails({"prompt": "cat"}, "one"), fails({}, "two")) as mock:
        assert finished(mock)["error"] == "one"
        assert finished(mock, "dog")["error"] == "two"
        mock.add_fixture(fails({}, "zero"))
        assert finished(mock)["error"] == "zero"


def test_times_counts_per_scope_and_is_then_passed_over() -> None:
    with serving(fails({}, "first", times=1), fails({}, "later")) as mock:

        def error(**headers: str) -> str:
            reply = call(
                mock, "POST", f"{API}/videos{headers.pop('query', '')}", VEO, **headers
            )
            return str(poll_to_the_end(mock, reply.json["id"])["error"])

        assert [error(), error()] == ["first", "later"]
        assert [error(X_Test_Id="t"), error(X_Test_Id="t")] == ["first", "later"]
        assert error(query="?testId=u") == "first"
        assert error(key="another") == "first"


def test_sequence_index_counts_the_group_fallback_included() -> None:
    def entry(index: int | None, error: str) -> dict[str, Any]:
        match = {
            "userMessage": "again",
            **({} if index is None else {"sequenceIndex": index}),
        }
        return fails(match, error)

    with serving(
        entry(0, "a"), entry(2, "c"), entry(None, "rest"), fails({}, "other")
    ) as mock:
        assert finished(mock, "unrelated")["error"] == "other"
        errors = [finished(mock, "again")["error"] for _ in range(4)]
        assert errors == ["a", "rest", "c", "rest"]


def test_fixtures_of_several_documents_are_counted_apart() -> None:
    documents = [
        {"fixtures": [fails({"prompt": word}, word, times=1)]} for word in ("red", "blue")
    ]
    with MockServer(fixtures=documents) as mock:
        assert [finished(mock, word)["error"] for word in ("red", "blue")] == [
            "red",
            "blue",
        ]


def test_fixtures_added_in_one_call_make_a_sequence(mock: MockServer) -> None:
    mock.add_fixture([fails({"sequenceIndex": index}, str(index)) for index in range(3)])
    assert [finished(mock)["error"] for _ in range(3)] == ["0", "1", "2"]


def test_a_refused_request_uses_up_nothing() -> None:
    with serving(
        fails({}, "only", times=1), fault={"on": "submit", "status": 500, "times": 1}
    ) as mock:
        for bad in (b"{", {"model": "", "prompt": "x"}, {"model": "a/b"}):
            assert post(mock, bad).status == 400
        assert post(mock, key=None).status == 401
        assert post(mock).status == 500
        assert mock.jobs() == []
        assert finished(mock)["error"] == "only"


@pytest.mark.parametrize(
    ("lifecycle", "seen"),
    [
        ({"polls": {}}, "completed completed"),
        ({"polls": {"pending": 2}}, "pending pending completed"),
        (
            {"polls": {"pending": 1, "in_progress": 2}},
            "pending in_progress in_progress completed completed",
        ),
        ({"polls": {"in_progress": 1}}, "in_progress completed"),
    ],
)
def test_a_lifecycle_can_be_counted_in_polls(lifecycle: dict[str, Any], seen: str) -> None:
    with serving({"match": {}, "lifecycle": lifecycle}) as mock:
        assert statuses(mock, submit(mock), len(seen.split())) == seen.split()


def test_a_lifecycle_can_follow_the_clock() -> None:
    with serving(
        {"match": {}, "lifecycle": {"seconds": {"pending": 5, "in_progress": 10}}}
    ) as mock:
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
    answer = {
        "status": 429,
        "retryAfter": 7,
        "error": {"message": "Slow down", "metadata": {"a": 1}},
    }
    with serving({"match": {}, "response": answer}) as mock:
        reply = post(mock)
        assert reply.json == {
            "error": {"message": "Slow down", "code": 429, "metadata": {"a": 1}}
        }
        assert reply.headers["Retry-After"] == "7"
        assert reply.headers["X-RateLimit-Remaining"] == "0"
        assert {"X-RateLimit-Limit", "X-RateLimit-Reset"} <= set(reply.headers)
        assert mock.jobs() == []


def test_bytes_file_count_cost_and_urls_of_a_video(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"the file")
    document = {
        "fixtures": [
            {
                "match": {"prompt": "b64"},
                "response": {
                    "video": {"b64": "dGhlIGJ5dGVz", "cost": 0.4, "is_byok": True}
                },
            },
            {
                "match": {"prompt": "file"},
                "response": {"video": {"file": "clip.mp4", "count": 3}},
            },
            {
                "match": {"prompt": "urls"},
                "response": {"video": {"unsigned_urls": ["https://cdn.test/a.mp4"]}},
            },
            {"match": {"prompt": "gone"}, "response": {"video": {"stored": False}}},
        ]
    }
    with MockServer(fixtures=write(tmp_path / "f.json", document)) as mock:
        wire = finished(mock, "b64")
        assert wire["usage"] == {"cost": 0.4, "is_byok": True}
        assert get(mock, wire["unsigned_urls"][0]).raw == b"the bytes"
        wire = finished(mock, "file")
        assert len(wire["unsigned_urls"]) == len(wire["urls"]) == 3
        url = wire["unsigned_urls"][2]
        assert get(mock, url).raw == b"the file"
        (tmp_path / "clip.mp4").unlink()
        assert get(mock, url).status == 502
        assert finished(mock, "urls")["unsigned_urls"] == ["https://cdn.test/a.mp4"]
        assert not {"urls", "expires_at"} & set(finished(mock, "gone"))


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
        {
            "match": {"userMessage": "hello"},
            "response": {"content": "Hi"},
            "latency": 200,
            "chunkSize": 10,
        },
        {
            "match": {"endpoint": "image", "userMessage": "sun"},
            "response": {"image": {"url": "https://x.test/a.png"}},
        },
        {
            "match": {"userMessage": "sun"},
            "response": {"error": {"message": "chat only"}, "status": 429},
        },
        {
            "match": {"userMessage": "sun"},
            "response": {"video": {"id": "u", "status": "processing", "b64": "AAAA"}},
        },
        {
            "match": {"endpoint": "video", "context": "tenant"},
            "response": {"video": {"id": "t", "status": "failed"}},
            "chaos": {"dropRate": 1},
        },
        {
            "match": {"endpoint": "video", "userMessage": "boom"},
            "response": {"error": {"message": "boom"}},
        },
        {"match": {"endpoint": "video"}, "response": {"json": {"x": 1}, "status": 202}},
        {
            "match": {"endpoint": "embedding"},
            "response": {"embedding": [0.1], "status": 200},
        },
    ],
    "_warnings": ["recorded"],
    "_warning": "recorded",
}


def test_aimock_files_load_unchanged_and_mean_the_same(tmp_path: Path) -> None:
    write(tmp_path / "aimock.json", AIMOCK_FILE)
    with MockServer(fixtures=str(tmp_path), polls=(0, 0)) as mock:
        first = post(mock, veo(prompt="broken"))
        assert (first.status, first.json["error"]) == (
            503,
            {"message": "Overloaded", "code": 503},
        )
        assert poll(mock, submit(mock, "broken"))["error"] == "crashed"
        assert poll(mock, submit(mock, "sun"))["status"] == "completed"
        assert post(mock, veo(prompt="boom")).status == 500
        tenant = post(mock, X_AIMock_Context="tenant")
        assert poll(mock, tenant.json["id"])["status"] == "failed"
        assert post(mock, veo(prompt="hello")).status == 404
    validated = command("--validate", "-f", str(tmp_path))
    assert validated.status == 0


def test_a_near_miss_says_which_fixture_came_closest_and_why() -> None:
    with serving(
        {"name": "far", "match": {"prompt": "x", "model": "y", "body": {"duration": 4}}},
        {"name": "rainy-cat", "match": {"prompt": "rain", "model": "google/veo-3.1"}},
    ) as mock:
        lines = lines_of(mock)
        reply = post(mock, veo(prompt="a dry cat"))
        assert reply.status == 404
        assert reply.message == (
            "No fixture matched: 'rainy-cat' wants prompt containing 'rain', got 'a dry cat'"
        )
        closest = reply.json["error"]["metadata"]["closest"]
        assert len(closest) == 2
        assert closest[0] == {
            "fixture": "rainy-cat",
            "differences": [
                {"criterion": "prompt", "wanted": "containing 'rain'", "got": "a dry cat"}
            ],
            "held": ["model"],
        }
        assert closest[1]["fixture"] == "far" and len(closest[1]["differences"]) == 3
        assert mock.requests(status=404)[0]["closest"] == closest
        assert "rainy-cat" in lines[-1]
        strict = post(mock, veo(prompt="a dry cat"), X_AIMock_Strict="true")
        assert strict.status == 503
        assert strict.message.startswith("Strict mode: no fixture matched")


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (
            "{",
            "f.json: cannot be read: Expecting property name enclosed in double quotes: line 1",
        ),
        ([], "f.json: document: Invalid input: expected object, received array, got []"),
        (
            {"fixture": []},
            'f.json: document.fixture: unknown key, did you mean "fixtures"?',
        ),
        (
            {"fixtures": {}},
            "f.json: document.fixtures: Invalid input: expected array, received object, got {}",
        ),
        ({"fixtures": [{}]}, "f.json: fixtures[0].match: is missing"),
        (
            {"fixtures": [{"match": {}}, {"match": {}}, {"match": {"promt": "x"}}]},
            'f.json: fixtures[2].match.promt: unknown key, did you mean "prompt"?',
        ),
        (
            {"fixtures": [{"match": {"prompt": 3}}]},
            "fixtures[0].match.prompt: expected a string, or an object with equals, contains or "
            "regex, got 3",
        ),
        (
            {"fixtures": [{"match": {"prompt": {"regex": "("}}}]},
            "match.prompt.regex: not a regular expression",
        ),
        (
            {"fixtures": [{"match": {"prompt": {"regex": "a{99999999999}"}}}]},
            "regex: not a regular expression",
        ),
        (
            {"fixtures": [{"match": {}, "times": 10**400}]},
            "fixtures[0].times: ",
        ),
        (
            {"fixtures": [{"match": {}, "response": {"video": {"file": "x" * 5000}}}]},
            "file: no such file",
        ),
        (
            {"fixtures": [{"match": {}, "response": {}}]},
            "fixtures[0].response: give video, or status or error",
        ),
        (
            {"fixtures": [{"match": {"prompt": {"contains": "a", "regex": "b"}}}]},
            "match.prompt: expected a string, or an object with equals, contains or regex",
        ),
        (
            {"fixtures": [{"match": {"prompt": "a", "userMessage": "b"}}]},
            "match: prompt and userMessage contradict each other",
        ),
        (
            {"fixtures": [{"match": {"sequenceIndex": -1}}]},
            "match.sequenceIndex: Too small: expected number to be >=0, got -1",
        ),
        (
            {"fixtures": [{"match": {}, "times": 0}]},
            "fixtures[0].times: Too small: expected number to be >=1, got 0",
        ),
        (
            {"fixtures": [{"match": {}, "lifecycle": {"polls": {}, "seconds": {}}}]},
            "fixtures[0].lifecycle: polls and seconds contradict each other",
        ),
        (
            {"fixtures": [{"match": {}, "response": {"video": {"status": "done"}}}]},
            'response.video.status: Invalid option: expected one of "pending"|"in_progress"|'
            '"completed"|"failed"|"cancelled"|"expired"|"processing", got \'done\'',
        ),
        (
            {"fixtures": [{"match": {}, "response": {"video": {"file": "no.mp4"}}}]},
            "video.file: no such file",
        ),
        (
            {"fixtures": [{"match": {}, "response": {"status": 200}}]},
            "fixtures[0].response.status: a refusal is 400 to 599",
        ),
        (
            {"fixtures": [{"match": {}, "faults": [{"on": "pol"}]}]},
            'faults[0].on: Invalid option: expected one of "submit"|"poll"',
        ),
        (
            {"fixtures": [{"match": {}, "webhook": {"signature": "x"}}]},
            'webhook.signature: Invalid option: expected one of "good"|',
        ),
        ({"models": [{}]}, "f.json: models[0].id: is missing"),
        (
            {"models": [{"id": "a", "suported_sizes": []}]},
            'did you mean "supported_sizes"?',
        ),
        (
            {"models": [{"id": "a", "pricing_skus": {"x": 1}}]},
            "pricing_skus.x: Invalid input: expected string, received number, got 1",
        ),
        (
            {"models": [{"id": "a", "_defaults": {"duration": 0}}]},
            "_defaults.duration: Too small: expected number to be >=1, got 0",
        ),
    ],
)
def test_fixture_files_are_read_strictly(
    tmp_path: Path, document: Any, complaint: str
) -> None:
    file = write(tmp_path / "f.json", document)
    with pytest.raises(SetupError) as caught:
        MockServer(fixtures=file)
    said = str(caught.value).replace(str(file), "f.json")
    assert said.startswith("f.json: ") and complaint in said and "\n" not in said


def test_comments_folders_and_order_of_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, error in (("b.json", "b"), ("a.json", "a"), ("sub/0.json", "sub")):
        write(tmp_path / name, {"_": "why", "fixtures": [fails({}, error, _note=1)]})
    with MockServer(fixtures=[tmp_path]) as mock:
        names = [fixture["name"] for fixture in mock.fixtures() if not fixture["built_in"]]
    assert names == ["a.json[0]", "b.json[0]", "0.json[0]"]


def test_an_edited_file_is_reloaded_and_an_invalid_one_is_not(tmp_path: Path) -> None:
    file, edits = tmp_path / "f.json", iter(range(1_000_000, 2_000_000))

    def edit(*fixtures: Any) -> None:
        write(file, {"fixtures": fixtures})
        os.utime(file, (0, next(edits)))

    edit(fails({}, "one", times=1), fails({}, "rest"))
    with MockServer(fixtures=str(file)) as mock:
        lines = lines_of(mock)
        assert [finished(mock)["error"] for _ in range(2)] == ["one", "rest"]
        edit(fails({}, "two", times=1), fails({}, "rest"))
        assert [finished(mock)["error"] for _ in range(2)] == ["two", "rest"]
        edit({"match": {"promt": 1}})
        assert finished(mock)["error"] == "rest"
        assert any("fixtures not reloaded" in line and "promt" in line for line in lines)


def test_an_edit_is_seen_by_a_submit_that_comes_while_another_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "f.json", {"fixtures": [{"name": "old", "match": {}}]})
    load, loading, go_on = ovm.load_fixtures, list[Config](), threading.Event()

    def load_slowly(config: Config) -> Any:
        loading.append(config)
        assert go_on.wait(PATIENCE)
        return load(config)

    # The latency: else a version that notes the look before the reading would pass by luck.
    settings = {"fixtures": file, "latency": 0.05}
    with MockServer(**settings) as mock, ThreadPoolExecutor(2) as pool:
        write(file, {"fixtures": [{"name": "newer", "match": {}}]})
        monkeypatch.setattr(ovm, "load_fixtures", load_slowly)
        jobs = [pool.submit(submit, mock) for _ in range(2)]
        try:
            assert eventually(lambda: len(loading) == 2)
        finally:
            go_on.set()
        assert {mock.job(job.result())["fixture"] for job in jobs} == {"newer"}


def test_files_are_looked_at_once_for_the_submits_that_had_come_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "f.json", {"fixtures": [{"match": {}}]})
    mock, notices = ovm.VideoMock(Config(fixtures=file)), list[str]()
    mock.notice = notices.append
    stamp, looks = ovm._stamp, list[str]()

    def look(path: str) -> tuple[int, ...]:
        looks.append(path)
        return stamp(path)

    def two_submits() -> None:
        key = {"authorization": "Bearer x"}
        path = f"{API}/videos"
        both = [
            ovm.Request("POST", path, "", key, BODY, note)
            for note in (ovm.Note(), ovm.Note())
        ]
        assert [mock.handle(request).status for request in both] == [202, 202]

    monkeypatch.setattr(ovm, "_stamp", look)
    two_submits()
    assert len(looks) == len(set(looks)), looks
    write(file, "invalid")
    two_submits()
    assert len(notices) == 2, "while it is invalid, each is told"


def test_a_clip_that_was_missing_is_found_at_the_next_start(tmp_path: Path) -> None:
    fixture = {"match": {}, "response": {"video": {"file": "clip.mp4"}}}
    file = write(tmp_path / "f.json", {"fixtures": [fixture]})
    with pytest.raises(SetupError, match="no such file"):
        MockServer(fixtures=file)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with MockServer(fixtures=file) as mock:
        assert content(mock, finished(mock)) == b"x"


def test_fixtures_of_another_endpoint_match_nothing_and_say_so() -> None:
    chat = {"name": "chat", "match": {"userMessage": "cat"}, "response": {"content": "hi"}}
    with serving(chat) as mock:
        assert post(mock).message == (
            "No fixture matched: 'chat' wants endpoint another than video, got 'video'"
        )


def test_a_comment_may_stand_in_every_object_of_a_fixture() -> None:
    polls = {"_": "why", "polls": {"_": "why", "pending": 1}}
    match = {"_": "why", "prompt": {"_": "why", "contains": "cat"}}
    with serving({"match": match, "lifecycle": polls}) as mock:
        assert statuses(mock, submit(mock), 2) == ["pending", "completed"]
    with serving({"match": match, "response": {"_": "why", "status": 402}}) as mock:
        assert post(mock).status == 402


@pytest.mark.parametrize("value", [7, "x", {}, None])
def test_lists_that_are_none_are_refused_in_one_line(value: Any) -> None:
    for key in ("fixtures", "models"):
        with pytest.raises(SetupError, match=f"{key}: Invalid input: expected array"):
            MockServer(fixtures={key: value})


def test_a_broken_file_that_is_mended_in_its_place_is_loaded(tmp_path: Path) -> None:
    write(tmp_path / "a.json", {"fixtures": [fails({}, "a")]})
    with MockServer(fixtures=tmp_path) as mock:
        lines_of(mock)
        for document, error in (
            ("{", "a"),
            ({"fixtures": [fails({}, "mended")]}, "mended"),
        ):
            write(tmp_path / "0.json", document)
            os.utime(tmp_path, (1_000_000, 1_000_000))
            assert finished(mock)["error"] == error


def test_the_fixtures_that_ship_are_valid_and_end_in_a_catch_all(
    catalogue: MockServer,
) -> None:
    names = [fixture["name"] for fixture in catalogue.fixtures()]
    assert names[0] == "mock:failed" and names[-1] == "everything else"
    assert post(catalogue).status == 202
    assert post(catalogue, veo(prompt="example:busy")).headers["Retry-After"] == "7"


def test_the_module_is_complete_without_its_fixtures(vendored: dict[str, str]) -> None:
    assert vendored["test_it.py::test_scenarios_are_there"] == "PASSED"


def test_scenarios_need_no_file(mock: MockServer) -> None:
    assert finished(mock, "please mock:no-urls now")["unsigned_urls"] == []
    assert len(finished(mock, "please mock:two-videos now")["unsigned_urls"]) == 2
    assert set(statuses(mock, submit(mock, "mock:stuck"), 5)) == {"in_progress"}
    moderated = post(mock, veo(prompt="mock:moderated"))
    assert moderated.status == 403
    assert " ".join(moderated.json["error"]["metadata"]) == (
        "reasons flagged_input provider_name model_slug"
    )
    assert post(mock, veo(prompt="mock:no-credits")).status == 402
    slow = submit(mock, "mock:slow")
    mock.advance(5)
    assert poll(mock, slow)["status"] == "in_progress"
    mock.advance(10)
    assert poll(mock, slow)["status"] == "completed"


@pytest.mark.parametrize(
    ("word", "status", "times"), [("rate-limited", 429, 2), ("overloaded", 503, 1)]
)
def test_overload_scenarios_repeat_in_the_next_run(
    mock: MockServer, word: str, status: int, times: int
) -> None:
    replies = [post(mock, veo(prompt=f"mock:{word}")) for _ in range(2 * times + 2)]
    assert [reply.status for reply in replies] == ([status] * times + [202]) * 2
    assert replies[0].headers["Retry-After"] == "1"
    assert len(mock.jobs()) == 2


def test_flaky_fails_the_first_poll_of_each_job(mock: MockServer) -> None:
    for _ in range(2):
        job_id = submit(mock, "mock:flaky")
        polls = [get(mock, f"{API}/videos/{job_id}").status for _ in range(3)]
        assert polls == [503, 200, 200]
        assert mock.job()["polls"] == 2


def test_a_lost_response_still_made_the_job(mock: MockServer) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        post(mock, veo(prompt="mock:lost-response"))
    assert len(mock.jobs()) == 1
    assert mock.requests()[-1]["status"] is None and mock.requests()[-1]["fault"] == "lost"
    submit(mock, "mock:lost-response")
    assert len(mock.jobs()) == 2


def test_a_truncated_download_breaks_off(mock: MockServer) -> None:
    url = finished(mock, "mock:truncated")["unsigned_urls"][0]
    with pytest.raises(http.client.IncompleteRead):
        get(mock, url)
    head = exchange(mock, head_of(f"GET {path_of(url)} HTTP/1.1")).partition(b"\r\n\r\n")[0]
    assert b"Connection: close" not in head, "after which Node takes a cut for the end"


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ({"status": 503}, [503] * 4),
        ({"status": 503, "times": 2}, [503, 503, 200, 200]),
        ({"status": 503, "times": 1, "after": 1}, [200, 503, 200, 200]),
        ({"status": 503, "times": 1, "repeat": True}, [503, 200, 503, 200]),
        ({"status": 503, "repeat": True}, [503] * 4),
        ({"status": 429, "retryAfter": 2, "message": "wait"}, [429] * 4),
        ({"close": True, "times": 1}, [None, 200, 200, 200]),
        ({"malformed": True, "times": 1}, ["malformed", 200, 200, 200]),
        ({"truncate": 9, "times": 1}, ["cut", 200, 200, 200]),
        ({"delay": 0.01}, [200] * 4),
    ],
)
@pytest.mark.parametrize("where", ["server", "fixture"])
def test_faults_strike_as_often_as_they_say(
    fault: dict[str, Any], seen: list[Any], where: str
) -> None:
    fault = {"on": "poll", **fault}
    fixture: dict[str, Any] = {
        "match": {},
        **({"faults": [fault]} if where == "fixture" else {}),
    }
    with serving(fixture, fault=[fault] if where == "server" else []) as mock:
        job_id = submit(mock)

        def outcome() -> Any:
            try:
                reply = get(mock, f"{API}/videos/{job_id}")
                json.loads(reply.raw)
                return reply.status
            except http.client.RemoteDisconnected:
                return None
            except http.client.IncompleteRead:
                return "cut"
            except ValueError:
                return "malformed"

        assert [outcome() for _ in range(4)] == seen


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"lost": True}, http.client.RemoteDisconnected),
        ({"truncate": 5}, http.client.IncompleteRead),
        ({"status": 503, "lost": True}, http.client.RemoteDisconnected),
        ({"status": 503, "truncate": 5}, http.client.IncompleteRead),
        ({"malformed": True, "truncate": 5}, http.client.IncompleteRead),
    ],
)
def test_refusals_are_lost_or_truncated_too(
    fault: dict[str, Any], error: type[Exception]
) -> None:
    by_fixture = not {"status", "malformed"} & set(fault)
    fixtures = [{"match": {}, "response": {"status": 402}}] if by_fixture else []
    with serving(*fixtures, fault={"on": "submit", "times": 1, **fault}) as mock:
        with pytest.raises(error):
            post(mock)
        assert mock.jobs() == [] and post(mock).status == (402 if by_fixture else 202)


def test_a_fault_of_403_looks_like_moderation() -> None:
    with MockServer(fixtures=[], fault={"on": "submit", "status": 403}) as mock:
        error = post(mock).json["error"]
        assert error["metadata"]["flagged_input"] == "a cat"
        assert error["metadata"]["model_slug"] == "google/veo-3.1"


def test_a_poll_that_a_fault_hits_is_journaled_with_its_job_and_fixture() -> None:
    with serving(
        {"name": "f", "match": {}, "faults": [{"on": "poll", "status": 503}]}
    ) as mock:
        job_id = submit(mock)
        get(mock, f"{API}/videos/{job_id}")
        entries = mock.requests(job_id=job_id)
        assert [entry["status"] for entry in entries] == [202, 503]
        assert entries[-1]["fixture"] == "f"


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
def test_every_kind_of_fault_works_on_every_route(
    on: str, fault: dict[str, Any], error: Any
) -> None:
    with MockServer(fixtures=[]) as mock:
        wire = finished(mock)
        mock.add_fault({"on": on, "times": 1, **fault})
        content_path = wire["unsigned_urls"][0]
        method, path = {
            "submit": ("POST", f"{API}/videos"),
            "content": ("GET", content_path),
        }.get(on, ("GET", f"{API}/videos/models"))
        body = VEO if method == "POST" else None
        if error is not None:
            with pytest.raises(error):
                call(mock, method, path, body)
        else:
            reply = call(mock, method, path, body)
            assert reply.status == fault.get(
                "status", 202 if on == "submit" and "delay" in fault else 200
            )
            assert ("malformed" in fault) == (reply.raw == b'{"id": "gen-vid-')
        assert len(mock.jobs()) == (
            2 if on == "submit" and set(fault) & {"lost", "truncate", "delay"} else 1
        )
        assert mock.requests()[-1]["fault"]
        assert call(mock, method, path, body).status in (200, 202)


def test_server_faults_count_per_scope_and_on_every_route() -> None:
    with MockServer(fixtures=[]) as mock:
        for route in ("submit", "content", "models"):
            mock.add_fault({"on": route, "status": 502, "times": 1})
        assert get(mock, f"{API}/videos/models").status == 502
        assert get(mock, f"{API}/models?output_modalities=video").status == 200
        assert get(mock, f"{API}/videos/models", X_Test_Id="other").status == 502
        assert post(mock).status == 502
        url = finished(mock)["unsigned_urls"][0]
        assert [get(mock, url).status for _ in range(2)] == [502, 200]
        assert [fault["struck"] for fault in mock.faults()] == [1, 1, 2]
        mock.clear_faults()
        assert mock.faults() == []


def test_a_fault_on_an_unknown_job_is_not_used_up() -> None:
    with MockServer(fixtures=[], fault={"on": "poll", "status": 500, "times": 1}) as mock:
        assert get(mock, f"{API}/videos/nope").status == 404
        assert get(mock, f"{API}/videos/{submit(mock)}").status == 500


@pytest.mark.parametrize("slow", ["delay", "stall", "wait", "reader", "upstream"])
def test_what_takes_its_time_holds_up_neither_others_nor_the_stop(
    slow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovm, "TURN_SECONDS", 4.0 * PATIENCE)
    upstream, held = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()
    settings: dict[str, Any] = {
        "delay": {"fault": {"on": "poll", "delay": 600}},
        "stall": {"fault": {"on": "content", "stall": 1}},
        "reader": {"fixtures": large_clip(tmp_path, 64_000_000)},
        "upstream": {
            "record": str(tmp_path),
            "upstream": f"http://127.0.0.1:{upstream.getsockname()[1]}",
        },
    }
    with (
        upstream,
        MockServer(**{"fixtures": [], **settings.get(slow, {})}) as mock,
        connect(mock) as client,
    ):
        job_id = "gen-vid-1"
        if slow != "upstream":
            job_id = submit(mock)
            mock.finish(job_id)
        path = f"{API}/videos/{job_id}"
        if slow in ("stall", "reader"):
            path += "/content"
        if slow == "wait":
            path = "/__mock/requests?path=/nope&wait=60"
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n"
        client.sendall(head.encode())
        if slow in ("stall", "reader"):
            assert client.recv(1)
        elif slow == "upstream":
            held.append(upstream.accept()[0])
        else:
            # A hit is the submit's match, another the fault's.
            assert eventually(lambda: mock.store._waits or mock.store.hits.total() > 1)
        begun = time.monotonic()
        assert get(mock, "/__mock/health").status == 200
        assert get(mock, "/nowhere").status in (404, 405)
        for silent in held:
            silent.close()
        mock.stop()
        assert time.monotonic() - begun < PATIENCE


def test_a_fault_with_a_body_still_says_when_to_come_back() -> None:
    fault = {"on": "submit", "status": 429, "body": "busy", "retryAfter": 3, "times": 1}
    with MockServer(fixtures=[], fault=fault) as mock:
        assert post(mock).headers["Retry-After"] == "3"
        post(mock)
        (finding,) = mock.findings(rule="retry-after-ignored")
        for idle in ({"message": "x"}, {"metadata": {"a": 1}}):
            with pytest.raises(SetupError, match=f"body and {next(iter(idle))} contradict"):
                mock.add_fault({"on": "poll", "body": "x", **idle})


def test_latency_is_waited_before_each_answer_of_the_api_only() -> None:
    with MockServer(fixtures=[], latency=0.05) as mock:
        begun = time.monotonic()
        get(mock, f"{API}/videos/models")
        assert time.monotonic() - begun >= 0.05
        get(mock, f"{API}/nothing")
        assert [entry["ms"] >= 50 for entry in mock.requests()] == [True, True]
    with MockServer(fixtures=[], latency=3600) as mock:
        assert get(mock, "/__mock/requests").json["requests"] == []


@pytest.mark.parametrize(
    "text", ["!!!!", "=", "QQ==QQ==", "AAAA!!!tail", "QQQQQ", "Q", "ÄÄÄÄ"]
)
def test_what_is_no_base64_stops_the_start(text: str) -> None:
    fixture = {"match": {}, "response": {"video": {"b64": text}}}
    with pytest.raises(
        SetupError, match=r"fixtures\[0\]\.response\.video\.b64: not base64"
    ):
        serving(fixture)


@pytest.mark.parametrize(
    ("text", "clip"),
    [
        ("", b""),
        ("QUJD", b"ABC"),
        ("QQ", b"A"),
        ("QQ=", b"A"),
        ("QQ==", b"A"),
        ("-_-_", b"\xfb\xff\xbf"),
        ("QU\nJD ", b"ABC"),
    ],
)
def test_base64_is_read_as_leniently_as_aimock_does(text: str, clip: bytes) -> None:
    with serving({"match": {}, "response": {"video": {"b64": text}}}) as mock:
        assert content(mock, finished(mock)) == clip


@pytest.mark.parametrize(
    ("fixture", "complaint"),
    [
        ({"response": {"video": {}, "status": 429}}, "contradict"),
        ({"response": {"video": {}, "error": {"message": "x"}}}, "contradict"),
        (
            {"response": {"status": 402}, "lifecycle": {"polls": {}}},
            "lifecycle has no effect",
        ),
        ({"response": {"status": 402}, "webhook": {"times": 2}}, "webhook has no effect"),
        ({"response": {"video": {"error": "x"}}}, "video.error: a job that is completed"),
        (
            {"response": {"video": {"status": "pending", "error": "x"}}},
            "video.error: a job that is pending",
        ),
        ({"response": {"video": {"file": "a.mp4", "b64": "QQ"}}}, "contradict"),
        ({"response": {"status": 200}}, "response.status: a refusal is 400 to 599"),
        (
            {
                "match": {"userMessage": "x", "endpoint": "video"},
                "response": {"content": "hi"},
            },
            "response: give video, or status or error",
        ),
        ({"response": {"video": {"omit": ["id"]}}}, "video.omit[0]: Invalid option"),
        ({"response": {"video": {"cost": -1}}}, "video.cost: Too small"),
        ({"faults": [{"on": "poll", "status": 100}]}, "faults[0].status: Too small"),
    ],
)
def test_what_contradicts_itself_stops_the_start(
    fixture: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SetupError) as caught:
        serving({"match": {}, **fixture})
    assert str(caught.value).startswith("fixtures[0]") and complaint in str(caught.value)


def test_a_key_that_stands_twice_stops_the_start(tmp_path: Path) -> None:
    text = '{"fixtures": [{"match": {"prompt": "a", "prompt": "b"}}]}'
    file = write(tmp_path / "f.json", text)
    with pytest.raises(SetupError, match="prompt") as caught:
        MockServer(fixtures=file)
    assert str(caught.value).startswith(f"{file}: ")


def test_complaints_name_the_path_as_given(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    good = write(tmp_path / "a" / "f.json", {"fixtures": [fails({})]})
    bad = write(tmp_path / "b" / "f.json", {"fixtures": [{"match": {"promt": 1}}]})
    for sources in ([good, bad], [tmp_path]):
        with pytest.raises(SetupError) as caught:
            MockServer(fixtures=sources)
        assert str(caught.value).startswith(f"{bad}: fixtures[0].match.promt: ")


def test_each_real_folder_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "f.json", {"fixtures": [fails({})]})
    for name in ("x", "y"):
        (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)
    with MockServer(fixtures=tmp_path) as mock:
        names = [fixture["name"] for fixture in mock.fixtures() if not fixture["built_in"]]
    assert names == ["f.json[0]"]


AIMOCK_NOTES = {
    "url": {"id": "v", "status": "completed", "url": "https://x.test/a.mp4"},
    "error": {"id": "v", "status": "failed", "error": ""},
    "processing": {"id": "v", "status": "processing"},
    "b64": {"id": "v", "status": "completed", "b64": ""},
}


@pytest.mark.parametrize("word", AIMOCK_NOTES)
def test_what_means_something_else_than_in_aimock_is_noted_at_the_start(
    tmp_path: Path, word: str
) -> None:
    match = {"endpoint": "video", "userMessage": "x"}
    fixture = {"match": match, "response": {"video": AIMOCK_NOTES[word]}}
    file = write(tmp_path / "f.json", {"fixtures": [fixture]})
    done = command("--validate", "-f", str(file))
    assert done.status == 0
    (note,) = done.err.splitlines()
    assert note.startswith(f"{file}: fixtures[0]: ") and word in note


@pytest.mark.parametrize("key", ["usage", "generation_id", "unsigned_urls", "error"])
def test_a_fixture_can_leave_keys_out_of_the_poll(key: str) -> None:
    status = "failed" if key == "error" else "completed"
    video = {"status": status, "omit": [key]}
    with serving({"match": {}, "response": {"video": video}}) as mock:
        job_id = submit(mock)
        whole = finished(mock, "mock:failed") if key == "error" else None
        wire = poll_to_the_end(mock, job_id)
        assert key not in wire and {"id", "polling_url", "status"} <= set(wire)
        assert whole is None or key in whole


def test_a_cost_can_be_null() -> None:
    with serving({"match": {}, "response": {"video": {"cost": None}}}) as mock:
        assert finished(mock)["usage"] == {"cost": None, "is_byok": False}
        assert get(mock, f"{API}/key").json["data"]["usage"] == 0
        assert mock.job()["cost"] is None


def test_a_fixture_of_which_something_held_comes_closest() -> None:
    with serving(
        {"name": "nothing held", "match": {"prompt": "dog"}},
        {
            "name": "much missed",
            "match": {"model": "google/veo-3.1", "prompt": "x", "context": "c"},
        },
        {"name": "little missed", "match": {"model": "google/veo-3.1", "prompt": "x"}},
    ) as mock:
        closest = post(mock).json["error"]["metadata"]["closest"]
        names = [miss["fixture"] for miss in closest]
        assert names == ["little missed", "much missed", "nothing held"]
        held_more = {
            "model": "google/veo-3.1",
            "prompt": {"contains": "a cat"},
            "context": "c",
        }
        mock.add_fixture({"name": "more held", "match": held_more})
        mock.add_fixture({"name": "less held", "match": {"prompt": "cat", "context": "c"}})
        assert post(mock).message.startswith("No fixture matched: 'more held'")


def test_what_a_request_lacks_is_called_nothing_everywhere() -> None:
    match = {"context": "c", "body": {"duration": 8, "frame_images": [{}, {}]}}
    with serving({"name": "f", "match": match}) as mock:
        lines = lines_of(mock)
        reply = post(mock, veo(frame_images=IMAGE))
        (miss,) = reply.json["error"]["metadata"]["closest"]
        assert [one["got"] for one in miss["differences"]] == ["nothing"] * 3
        for text in (reply.message, lines[-1]):
            assert len(re.findall("got '?nothing", text)) == 3 and "None" not in text


def test_a_fault_that_was_used_up_stays_so_when_a_file_is_edited(tmp_path: Path) -> None:
    file = write(
        tmp_path / "f.json", {"fixtures": [fails({}, "one", times=1), fails({}, "rest")]}
    )
    with MockServer(fixtures=file) as mock:
        mock.add_fault({"on": "submit", "status": 500, "times": 1})
        mock.add_fixture(fails({"prompt": "added"}, "added", times=1))
        assert post(mock).status == 500
        assert finished(mock, "added")["error"] == "added"
        assert finished(mock)["error"] == "one"
        os.utime(file, (1_000_000, 1_000_000))
        assert finished(mock)["error"] == "one", "the file's own counters start over"
        assert finished(mock, "added")["error"] == "rest"


def test_many_regular_expressions_are_compiled_once() -> None:
    fixtures = [
        fails({"prompt": {"regex": f"(a|b){{1,{n + 1}}}never{n}$"}}) for n in range(600)
    ]
    with serving(*fixtures, {"match": {}}) as mock:
        begun = time.process_time()
        for _ in range(100):
            submit(mock)
        assert time.process_time() - begun < 1.5, "of the processor's time"


def test_a_regular_expression_of_another_dialect_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with serving({"match": {"prompt": {"regex": "[[a]&&b]|cat"}}}) as mock:
            assert post(mock).status in (202, 404)


def test_an_answer_can_be_anything_instead_of_the_work() -> None:
    faults: list[dict[str, Any]] = [
        {"on": "submit", "status": 200, "body": {"id": "x"}},
        {"on": "poll", "body": "still processing", "contentType": "text/plain"},
        {"on": "content", "status": 204},
        {
            "on": "models",
            "status": 502,
            "body": "<h1>Bad Gateway</h1>",
            "contentType": "text/html",
        },
        {"on": "key", "status": 401},
        {"on": "generation", "status": 500, "message": "no"},
    ]
    with MockServer() as mock:
        wire = finished(mock)
        mock.add_fault([{**fault, "times": 1} for fault in faults])
        replies = {
            "submit": post(mock),
            "poll": get(mock, f"{API}/videos/{wire['id']}"),
            "content": get(mock, wire["unsigned_urls"][0]),
            "models": get(mock, f"{API}/videos/models"),
            "key": get(mock, f"{API}/key"),
            "generation": get(mock, f"{API}/generation?id={wire['id']}"),
        }
        for fault in faults:
            reply = replies[fault["on"]]
            assert reply.status == fault.get("status", 200), fault
            kind = fault.get("contentType", "application/json")
            assert reply.headers["Content-Type"] == kind
            if isinstance(fault.get("body"), str):
                assert reply.raw.decode() == fault["body"]
        assert replies["submit"].json == {"id": "x"} and len(mock.jobs()) == 1
        assert replies["key"].message == "User not found."
        assert replies["generation"].message == "no"
        assert mock.job()["polls"] == 2, "an answer instead of the work is no poll"
        assert [fault["struck"] for fault in mock.faults()] == [1] * 6


def test_an_answer_that_can_have_no_body_has_none() -> None:
    fault = {"on": "poll", "status": 204, "body": "x", "times": 1}
    with MockServer(fixtures=[], fault=fault) as mock:
        job_id = submit(mock)
        reply = get(mock, f"{API}/videos/{job_id}")
        assert (reply.status, reply.raw) == (204, b"")
        assert poll(mock, job_id)["id"] == job_id


def test_a_stalled_download_is_silent_until_the_client_goes(mock: MockServer) -> None:
    path = path_of(finished(mock, "mock:stalled")["unsigned_urls"][0])
    with connect(mock) as sock:
        sock.sendall(head_of(f"GET {path} HTTP/1.0"))
        received = b""
        while len(received.partition(b"\r\n\r\n")[2]) < 2000:
            received += sock.recv(65536)
        body = received.partition(b"\r\n\r\n")[2]
        assert len(body) == 2000 and body[4:8] == b"ftyp"
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert submit(mock), "nobody else is held up"
    assert mock.requests(path=path)[0]["fault"] == "stall 2000"


@pytest.mark.parametrize("delay", [50, 0])
def test_a_stall_ends_after_its_delay_or_with_the_mock(
    monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    fault = {"on": "content", "stall": 0, "delay": delay}
    with serving({"match": {}, "faults": [fault]}) as mock:
        path = path_of(finished(mock)["unsigned_urls"][0])
        passing = Passing(mock, monkeypatch)
        with connect(mock) as sock:
            sock.sendall(head_of(f"GET {path} HTTP/1.0"))
            assert sock.recv(12) == b"HTTP/1.1 200"
            passing.let(51)
            if not delay:
                mock.stop()
            assert read_to_the_end(sock).endswith(b"\r\n\r\n")


def test_scenarios_of_downloads_that_are_no_clip(mock: MockServer) -> None:
    assert content(mock, finished(mock, "mock:empty-clip")) == b""
    for _ in range(2):
        text = get(mock, finished(mock, "mock:not-a-clip")["unsigned_urls"][0])
        assert (text.status, text.raw) == (200, b"still processing")
        assert text.headers["Content-Type"] == "text/plain"


def test_a_scenario_has_its_urls_on_another_origin(mock: MockServer) -> None:
    wire = finished(mock, "mock:elsewhere")
    _, port = address(mock)
    assert wire["urls"][0].startswith(f"http://localhost:{port}{API}/videos/")
    assert wire["unsigned_urls"][0].startswith(mock.origin)
    reply = get(mock, wire["urls"][0], key=None, Host=f"localhost:{port}")
    assert reply.status == 200 and reply.raw[4:8] == b"ftyp"
    by_name = get(mock, f"{API}/videos/{wire['id']}", Host=f"localhost:{port}").json
    assert by_name["urls"][0].startswith(f"http://127.0.0.1:{port}/")
    assert by_name["unsigned_urls"][0].startswith(f"http://localhost:{port}/")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        (
            "busy-later",
            "The service is currently experiencing high load and cannot process",
        ),
        ("blocked-image", "The input image contains content that has been blocked by your"),
    ],
)
def test_scenarios_fail_with_recorded_texts(
    shared: MockServer, word: str, words: str
) -> None:
    wire = finished(shared, f"mock:{word}")
    assert wire["status"] == "failed" and wire["error"].startswith(words)


# ============ Jobs, lifecycle, store


def test_urls_disappear_and_content_is_gone_at_one_instant_a_day_later(
    mock: MockServer,
) -> None:
    wire = finished(mock)
    (content_url,), (signed_url,) = wire["unsigned_urls"], wire["urls"]

    def found() -> list[int]:
        return [get(mock, content_url).status, get(mock, signed_url, key=None).status]

    mock.advance(wire["expires_at"] - mock.now() - PATIENCE)
    assert found() == [200, 200]
    mock.advance(wire["expires_at"] - mock.now())
    assert found() == [410, 403]
    later = poll(mock, wire["id"])
    assert later["unsigned_urls"] == wire["unsigned_urls"]
    assert not {"urls", "expires_at"} & set(later)


def test_forced_endings_win_over_the_plan_and_happen_once(mock: MockServer) -> None:
    job_id, reason = submit(mock, "mock:stuck"), "Content policy violation"
    assert mock.finish(job_id, "failed", error=reason)["status"] == "failed"
    assert poll(mock, job_id)["error"] == reason
    assert mock.finish("latest", Status.FAILED, error="again")["error"] == reason
    with pytest.raises(ApiError, match="409 Job .* has ended already: it is failed"):
        mock.finish(job_id, "completed")
    with pytest.raises(ApiError, match="404 Job nope not found"):
        mock.finish("nope")
    with pytest.raises(ValueError, match='status: .*"completed".*, got .pending'):
        mock.finish(job_id, Status.PENDING)


def test_a_failed_job_costs_nothing_and_keeps_the_error_of_its_fixture() -> None:
    with serving(fails({}, "E1")) as mock:
        submit(mock)
        assert mock.job()["cost"] > 0
        failed = mock.finish("latest", "failed")
        assert (failed["cost"], failed["error"]) == (0, "E1")


def test_content_asks_for_the_key_before_all_else(mock: MockServer) -> None:
    path = f"{API}/videos/{submit(mock)}/content?index=-1"
    assert get(mock, path, key=None).status == 401


def test_a_forced_completion_has_a_clip_and_a_cost(mock: MockServer) -> None:
    mock.finish(submit(mock, "mock:failed"), "completed")
    wire = poll(mock, mock.job()["id"])
    assert wire["usage"]["cost"] == 1.6 and "error" not in wire
    assert content(mock, wire)


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
    wire = finished(mock)
    assert get(mock, wire["urls"][0]).status == 200
    assert generation(mock, wire["id"]).status == 200


def test_the_store_forgets_the_oldest_jobs_and_requests() -> None:
    with MockServer(fixtures=[], max_jobs=3, max_requests=4) as mock:
        ids = [submit(mock) for _ in range(5)]
        assert [job["id"] for job in mock.jobs()] == ids[:1:-1]
        assert get(mock, f"{API}/videos/{ids[0]}").status == 404
        assert [request["seq"] for request in mock.requests()] == [3, 4, 5, 6]
    with MockServer(fixtures=[], max_requests=0) as mock:
        submit(mock)
        assert mock.requests() == []


def test_huge_models_sizes_and_references_are_not_kept() -> None:
    long = "x" * 1_000_000
    references = [{"type": "image_url", "image_url": {"url": "https://x.test/"}}] * 2000
    with serving(ANY_MODEL, max_requests=0) as mock:
        submit(mock)
        with memory_traced() as traced:
            assert post(mock, veo(model=long)).message.endswith("is not a valid model ID")
            submit(mock, size=long, input_references=references)
            assert eventually(lambda: traced()[0] < 500_000)


def test_large_bodies_are_kept_shortened(mock: MockServer) -> None:
    image: dict[str, Any] = {
        **FIRST_FRAME,
        "image_url": {"url": "data:image/png;base64," + "A" * 100_000},
    }
    submit(mock, "p" * 50_000, frame_images=[image], nonsense=["x"] * 1000)
    request = mock.job()["request"]
    url = image["image_url"]["url"]
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    shown = request["frame_images"][0]["image_url"]["url"]
    assert shown.startswith("data:image/png;base64,AAA")
    assert shown.endswith(f"… (100022 characters, sha256 {digest})")
    assert len(json.dumps(request)) < 20_000
    body = mock.requests()[0]["body"]
    assert body["prompt"].startswith("ppp") and len(body["nonsense"]) == 100
    assert body["prompt"].endswith("… (50000 characters)")
    assert len(json.dumps(body)) < 20_000


def test_fifty_parallel_submits_give_fifty_jobs_and_exact_counts() -> None:
    with serving(fails({}, "first", times=20), fails({}, "rest")) as mock:
        errors = in_parallel(50, lambda _: finished(mock)["error"])
        assert len({job["id"] for job in mock.jobs()}) == 50
        assert (errors.count("first"), errors.count("rest")) == (20, 30)
        assert len(mock.requests()) == 150


def test_status_never_goes_back_while_polls_endings_and_the_clock_race() -> None:
    order = [status.value for status in Status]
    with MockServer(fixtures=[], seconds=(50, 50)) as mock:
        ids = [submit(mock) for _ in range(8)]
        done = threading.Event()

        def move() -> None:
            try:
                for step in range(60):
                    mock.advance(2)
                    if step == 5:
                        mock.finish(ids[6], "failed")
            finally:
                done.set()

        def watch(job_id: str) -> list[int]:
            history = []
            while not done.is_set():
                history.append(order.index(mock.job(job_id)["status"]))
            return history

        histories = in_parallel(9, lambda index: watch(ids[index]) if index < 8 else move())
        assert all(history == sorted(history) for history in histories if history)
        assert {mock.job(job_id)["status"] for job_id in ids} == {"completed", "failed"}


def test_reset_restores_the_start_and_lets_nothing_in_flight_in(mock: MockServer) -> None:
    built_in = mock.fixtures()
    submit(mock)
    mock.add_fixture(fails({}))
    mock.add_fault({"on": "poll", "status": 500})
    mock.advance(1000)
    assert post_across_a_reset(mock).status == 202
    assert mock.jobs() == [] and mock.requests() == [] and mock.faults() == []
    assert abs(mock.now() - time.time()) < 900
    assert mock.fixtures() == built_in


def test_a_reset_lets_go_of_who_waits(mock: MockServer) -> None:
    later = [threading.Timer(seconds, mock.reset) for seconds in (0.05, 0.5)]
    begun = time.monotonic()
    for timer in later:
        timer.start()
    assert mock.requests(path="/videos", wait=PATIENCE) == []
    assert mock.webhooks(wait=PATIENCE) == []
    assert time.monotonic() - begun < PATIENCE
    for timer in later:
        timer.join()


def test_a_request_from_before_a_reset_uses_up_nothing_after_it() -> None:
    fault = {"on": "submit", "status": 503, "times": 1}
    with serving(fails({}, "first", times=1), fails({}, "rest"), fault=fault) as mock:
        assert post_across_a_reset(mock).status == 503
        assert post(mock).status == 503
        assert finished(mock)["error"] == "first"


def test_two_mocks_in_one_process_share_nothing() -> None:
    with MockServer(fixtures=[]) as one, MockServer(fixtures=[]) as two:
        job_id = submit(one)
        one.advance(100)
        assert get(two, f"{API}/videos/{job_id}").status == 404
        assert two.requests(method="POST") == [] and two.now() < one.now() - 90


def test_moving_the_clock_ends_what_can_end(mock: MockServer) -> None:
    jobs = {word: submit(mock, word) for word in ("a cat", "mock:failed", "mock:stuck")}
    mock.advance(3600)
    ended = {word: mock.job(job_id)["status"] for word, job_id in jobs.items()}
    assert ended == {
        "a cat": "completed",
        "mock:failed": "failed",
        "mock:stuck": "in_progress",
    }


def test_ten_seconds_of_the_clock_are_one_more_poll() -> None:
    with MockServer(polls=(2, 1)) as mock:
        submit(mock)
        seen = []
        for step in (0, 9, 1, 10, 10, 10):
            mock.advance(step)
            seen.append(mock.job()["status"])
        assert seen == ["pending"] * 4 + ["in_progress", "completed"]
        ended = mock.job()
        assert ended["ended_at"] - ended["created_at"] == pytest.approx(40, abs=10)


def test_a_job_ends_by_itself_only_after_its_last_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient(monkeypatch, SELF_END=1000)
    with MockServer(polls=(1000, 1000), callback_url="http://127.0.0.1:9/") as mock:
        job_id = submit(mock)
        for _ in range(3):
            mock.advance(600)
            assert poll(mock, job_id)["status"] == "pending"
        last = mock.requests()[-1]["time"]
        mock.advance(1001)
        assert mock.job()["status"] == "completed"
        assert mock.job()["ended_at"] - last == pytest.approx(1000, abs=0.1)


def test_a_head_is_no_poll(mock: MockServer) -> None:
    job_id = submit(mock)
    heads = [call(mock, "HEAD", f"{API}/videos/{job_id}").status for _ in range(3)]
    assert heads == [200] * 3
    assert mock.job()["polls"] == 0 and mock.job()["status"] == "pending"


@pytest.mark.parametrize("status", ["done", "pending", "processing", "", None, 3])
def test_an_ending_that_is_none_is_refused_with_those_there_are(
    shared: MockServer, status: Any
) -> None:
    job_id = submit(shared)
    endings = r'"completed"\|"failed"\|"cancelled"\|"expired", got '
    with pytest.raises(ValueError, match=f"finish.status: .*{endings}{status!r}"):
        shared.finish(job_id, status)
    assert shared.job(job_id)["status"] == "pending"


def test_a_success_has_no_error(mock: MockServer) -> None:
    submit(mock)
    with pytest.raises(ValueError, match="error: a job that is completed has none"):
        mock.finish("latest", "completed", error="boom")
    body = {"status": "completed", "error": "boom"}
    assert call(mock, "PATCH", "/__mock/jobs/latest", body).status == 400
    assert mock.job()["status"] == "pending"


def test_what_is_handed_out_is_a_copy() -> None:
    video = {"match": {"prompt": "dog"}, "response": {"video": {}}}
    fault = {"on": "webhook", "status": 500, "metadata": {"a": [1]}}
    with serving(video, fault=fault, callback_url="http://127.0.0.1:9/") as mock:
        assert post(mock).status == 404
        mock.finish(submit(mock, "dog"))
        assert eventually(lambda: [hook for hook in mock.webhooks() if hook["attempts"]])

        def look() -> list[Any]:
            return [mock.fixtures(), mock.requests(), mock.jobs(), mock.faults()]

        before = json.dumps(look(), sort_keys=True)
        for handed_out in (*look(), mock.webhooks()):
            spoil(handed_out)
        assert json.dumps(look(), sort_keys=True) == before
        assert mock.webhooks()[0]["attempts"]
    with MockServer() as other:
        assert other.fixtures()[0]["match"] == {"prompt": "mock:failed"}


def spoil(value: Any) -> None:
    """Empty everything in here that can be changed."""
    if isinstance(value, (dict, list)):
        for item in list(value.values()) if isinstance(value, dict) else list(value):
            spoil(item)
        value.clear()


@pytest.mark.parametrize("what", ["requests", "jobs", "webhooks"])
@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_at_least_one(shared: MockServer, what: str, limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        getattr(shared, what)(limit=limit)
    reply = get(shared, f"/__mock/{what}?limit={limit}")
    assert reply.status == 400 and "limit" in reply.message


@pytest.mark.parametrize("kept", [2, 0])
def test_requests_that_the_journal_no_longer_keeps_are_counted(kept: int) -> None:
    with MockServer(max_requests=kept) as mock:
        enough = threading.Event()

        def ask() -> None:
            while not enough.is_set():
                get(mock, f"{API}/videos/models")

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            seen = mock.wait_for_request(path="/videos/models", count=9, timeout=PATIENCE)
        finally:
            enough.set()
            asking.join()
        assert seen["seq"] >= 9


def test_what_a_crafted_request_leaves_behind_is_bounded(mock: MockServer) -> None:
    deep = {f"k{i}": {f"k{j}": "x" * 200 for j in range(100)} for i in range(100)}
    submit(mock, provider={"options": {"google": deep}})
    assert len(json.dumps(mock.job())) < 100_000
    assert len(json.dumps(mock.requests())) < 100_000
    url = "https://x.test/" + "a" * 1_000_000
    assert post(mock, veo(callback_url=url)).status == 400
    reply = call(mock, "GET", f"{API}/videos/models", X_Test_Id="s" * 60_000)
    if reply.status == 200:
        assert len(mock.requests()[-1]["scope"]) < 1000
    else:
        assert reply.status in (400, 431)


@pytest.mark.parametrize("name", ["time", "monotonic", "perf_counter"])
def test_clocks_that_a_test_patches_or_freezes_are_not_the_mock_s(
    mock: MockServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    job_id, now = submit(mock), mock.now()
    exhausted = iter([5.0, 3.5e9])
    for clock in (lambda: 5.0, lambda: 3.5e9, lambda: next(exhausted)):
        with monkeypatch.context() as patch:
            patch.setattr(time, name, clock)
            accepted = post(mock)
            looked = get(mock, f"{API}/videos/{job_id}")
            with MockServer() as later:
                assert now <= later.now() < now + 1000
        assert (accepted.status, looked.status) == (202, 200)
        assert now <= mock.now() < now + 1000


def cost_of_looking(look: Callable[[MockServer], object], jobs: int) -> tuple[int, int]:
    """How many calls a look at so many jobs makes, and how many bytes it takes for a while."""
    mock = MockServer(fixtures=[], polls=(0, 0), max_requests=10_000)
    for _ in range(jobs):
        job_id = json.loads(handled(mock, "POST", "/videos", BODY).body)["id"]
        handled(mock, "GET", f"/videos/{job_id}")
    look(mock)  # what is worked out once is worked out
    count = 0

    def called(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        look(mock)
    finally:
        sys.setprofile(before)
    with memory_traced() as traced:
        look(mock)
        _, peak = traced()
    return count, peak


@pytest.mark.parametrize(
    "look",
    [
        lambda mock: mock.jobs(limit=2),
        lambda mock: mock.jobs(limit=2, offset=3),
        lambda mock: mock.job(),
        lambda mock: mock.requests(limit=2),
        lambda mock: mock.requests(limit=2, offset=3),
        lambda mock: mock.requests(since=mock.health()["requests"] - 2),
        lambda mock: mock.health(),
        lambda mock: handled(mock, "GET", "/credits"),
        lambda mock: handled(mock, "GET", "/key"),
    ],
)
def test_a_look_at_a_few_costs_the_same_among_many(
    look: Callable[[MockServer], object],
) -> None:
    (few, small), (many, large) = cost_of_looking(look, 20), cost_of_looking(look, 1500)
    assert many <= few + 20
    assert large <= small + 4_000


# ============ Test card


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
def test_a_clip_parses_back_into_what_was_asked_for(
    width: int, height: int, seconds: int
) -> None:
    clip = card(width, height, seconds)
    assert clip.startswith(bytes.fromhex("00 00 00 20 66 74 79 70 69 73 6f 6d"))
    assert [kind for kind, _ in boxes(clip)] == ["ftyp", "moov", "mdat"]
    timescale, length = numbers(inside(clip, "moov")[8:], 2, 12)
    pictures = seconds * FPS + 1
    assert length * FPS == pictures * timescale
    for track, handler in zip(tracks_of(clip), ("vide", "soun"), strict=True):
        assert inside(track, "mdia", "hdlr")[8:12].decode() == handler
        scale, ticks = numbers(inside(track, "mdia", "mdhd"), 2, 12)
        assert ticks * FPS == pictures * scale
        stbl = inside(track, "mdia", "minf", "stbl")
        runs = inside(stbl, "stts")
        entries = [numbers(runs, 2, 8 + 8 * i) for i in range(numbers(runs, 1, 4)[0])]
        assert sum(count * delta for count, delta in entries) == ticks
        sizes = inside(stbl, "stsz")
        count = numbers(sizes, 1, 8)[0]
        assert count == sum(samples for samples, _ in entries)
        if handler == "vide":
            assert count == pictures
            assert size_of(clip) == (width, height)
            at = numbers(inside(stbl, "stco"), 1, 8)[0]
            for index, size in enumerate(numbers(sizes, count, 12)):
                # Each sample is one NAL unit with its length before it.
                assert numbers(clip, 1, at)[0] == size - 4
                assert clip[at + 4] == (0x65 if index == 0 else 0x41)
                at += size


@pytest.mark.parametrize(
    ("width", "height", "parameters"),
    [
        (1280, 720, "6742c01fda014016ffc05a80808083c2010a80"),
        (834, 1112, "6742c020da03502378897016a0202020f08042a0"),
        (3840, 2160, "6742c033da00f0010fff016a0202020f08042a"),
    ],
)
def test_the_parameter_sets_of_a_clip_are_known(
    width: int, height: int, parameters: str
) -> None:
    head = inside(card(width, height, 1), "moov")
    assert bytes.fromhex(parameters) in head and bytes.fromhex("68ce091b20") in head


def test_known_answers_of_the_bit_stream() -> None:
    levels = {
        2: "00010111",
        -2: "000101011",
        8: "00010100000000000011",
        -255: "00010100000000000000010001110111011",
    }
    assert {level: residual_bits(level) for level in levels} == levels
    first = "658884a118a000208d1c000415a9388c5000371c000400e3800081949d3d3d3d3e"
    assert ovm.idr_picture(["aabb"] * 2)[4:].hex() == first
    assert next_picture(1, 3600)[4:].hex() == "419a22800708c0"
    assert next_picture(16, 3600)[4:].hex() == "419a02800708c0"
    assert next_picture(1, 8, [5])[4:].hex() == "419a228c771400095c"
    assert next_picture(1, 8, [7])[4:].hex() == "419a22841dc5000258"
    assert unit(0x67, "0" * 24) == "00000006670000030080"


@pytest.mark.parametrize("width", range(1, 9))
def test_rows_that_repeat_are_what_bit_by_bit_would_give(width: int) -> None:
    """However the repeats lie within a byte."""
    rows = ["ab" * width, *["gn" * width] * 5, "bb" * width]
    assert ovm.idr_picture(rows) == first_picture_bit_by_bit(rows)


def test_a_cached_and_an_uncached_clip_are_the_same_bytes_and_the_cache_is_bounded() -> (
    None
):
    def draw(shape: tuple[int, int, int, bool]) -> bytes:
        *size, seconds, audio = shape
        return card(size[0], size[1], seconds, audio=audio)

    cache = ovm.mould_of
    lengths = (1, 8, 60)
    shapes = [
        (size, size // 2, seconds, audio)
        for size in (64, 640, 1280)
        for seconds in lengths
        for audio in (True, False)
    ]
    fresh = {}
    for shape in shapes:
        cache.cache_clear()
        fresh[shape] = draw(shape)
        assert draw(shape) == fresh[shape]
    drawn = in_parallel(len(shapes), lambda index: draw(shapes[index]))
    assert drawn == [fresh[shape] for shape in shapes]
    most = cache.cache_info().maxsize
    assert most is not None and most * ovm._MOULD_BYTES <= 4_000_000
    assert 0 < cache.cache_info().currsize <= most
    cache.cache_clear()
    draw((1280, 720, 300, True))
    assert cache.cache_info().currsize == 0, "one that is too heavy is not kept"


def test_the_same_seed_and_request_give_the_same_bytes_and_other_jobs_other_colours(
    mock: MockServer,
) -> None:
    seeded = [content(mock, finished(mock, seed=7)) for _ in range(2)]
    plain = [content(mock, finished(mock)) for _ in range(6)]
    other = content(mock, finished(mock, seed=8))
    assert seeded[0] == seeded[1]
    assert inside(seeded[0], "mdat") != inside(other, "mdat")
    # Without a seed the colours are chance: two jobs may share them, all six do not.
    assert len({inside(clip, "mdat") for clip in plain}) > 1
    two = finished(mock, "mock:two-videos", seed=7)
    assert content(mock, two, 0) != content(mock, two, 1)


def test_job_id_model_and_prompt_are_in_the_metadata(mock: MockServer) -> None:
    wire = finished(mock, "ein Käfer \U0001f41e")
    clip = content(mock, wire)
    for text in (wire["id"], "google/veo-3.1", "ein Käfer \U0001f41e"):
        assert text.encode() in inside(clip, "moov", "udta")


@pytest.mark.parametrize(("audio", "tracks"), [(True, 2), (False, 1), (None, 2)])
def test_the_sound_track_is_the_request_s_word_else_the_models(
    shared: MockServer, audio: bool | None, tracks: int
) -> None:
    fields: dict[str, Any] = {} if audio is None else {"generate_audio": audio}
    assert len(tracks_of(content(shared, finished(shared, **fields)))) == tracks


@pytest.mark.parametrize(
    ("width", "height", "seconds"),
    [
        (1, 1, 0),
        (7, 5, 1),
        (10**6, 10**6, 1),
        (100_000, 16, 1),
        (64, 64, 10**9),
        (48, 30, 2),
    ],
)
def test_no_shape_breaks_the_writer(width: int, height: int, seconds: int) -> None:
    text = "straße \ud800 日本語 " * 50
    clip = card(width, height, seconds, title=text, text=text, audio=False)
    assert [kind for kind, _ in boxes(clip)] == ["ftyp", "moov", "mdat"]
    assert len(clip) < 5_000_000


@pytest.mark.parametrize(
    ("width", "height", "seconds"),
    [(1280, 720, 8), (854, 480, 3), (834, 1112, 1), (16, 16, 1)],
)
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_ffmpeg_decodes_a_clip_without_a_word(
    tmp_path: Path, width: int, height: int, seconds: int
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(card(width, height, seconds, title="the id"))
    strict = ["-v", "warning", "-xerror", "-err_detect", "explode+careful+compliant"]
    decode = ["ffmpeg", *strict, "-i", str(clip), "-f", "null", "-"]
    done = subprocess.run(decode, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    show = ["-show_format", "-show_streams", "-of", "json"]
    probe = ["ffprobe", "-v", "error", *show, str(clip)]
    report = json.loads(subprocess.run(probe, capture_output=True, check=True).stdout)
    video, sound = report["streams"]
    assert (video["codec_name"], video["width"], video["height"]) == ("h264", width, height)
    assert video["nb_frames"] == str(seconds * FPS + 1)
    assert video["profile"] == "Constrained Baseline"
    assert (sound["codec_name"], sound["sample_rate"], sound["channels"]) == (
        "aac",
        "48000",
        2,
    )
    parts = (video, sound, report["format"])
    for part in parts:
        assert float(part["duration"]) == pytest.approx(seconds + 1 / FPS, abs=0.001)
    assert report["format"]["tags"]["title"] == "the id"


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_decoded_pixels_are_the_canvas_and_the_clock_runs(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(card(640, 360, 3, text="HI", audio=False))
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    decode = ["ffmpeg", "-v", "error", "-i", str(clip), *raw]
    data = subprocess.run(decode, capture_output=True, check=True).stdout
    size = 640 * 360 * 3 // 2
    frames = [data[at : at + size] for at in range(0, len(data), size)]
    assert len(frames) == 3 * FPS + 1 and len(set(frames)) > 40, "one can see that it moves"
    assert {frame[8 * 640 + 8] for frame in frames} == {28}, "flat, exact colours"
    clock = [b"".join(f[y * 640 : y * 640 + 300] for y in range(16, 112)) for f in frames]
    assert [clock.index(shown) for shown in dict.fromkeys(clock)] == [
        0,
        FPS,
        2 * FPS,
        3 * FPS,
    ]


# ============ Webhooks


class Receiver:
    """An HTTP server that keeps what it is sent and answers as scripted, then 200.

    A status answers, bytes are sent as they are, and a function is called for one of them.
    """

    def __init__(self, *script: Any) -> None:
        self.script, self.received = list(script), list[tuple[dict[str, str], bytes]]()
        self.paths: list[str] = []
        self.lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver.lock:
                    receiver.received.append((dict(self.headers), body))
                    receiver.paths.append(self.path)
                    answer = receiver.script.pop(0) if receiver.script else 200
                answer = answer() if callable(answer) else answer
                if isinstance(answer, int):
                    self.send_response(answer)
                    self.send_header("Location", "/elsewhere")
                    self.end_headers()
                else:
                    self.wfile.write(answer)

            def log_message(self, *args: object) -> None:
                pass

        class Server(HTTPServer):
            request_queue_size = 128  # where one more has to wait, it waits for a second

            def process_request(self, request: Any, client_address: Any) -> None:
                threading.Thread(
                    target=self.process,
                    args=(request, client_address),
                    name="receiver",
                    daemon=True,
                ).start()

            def process(self, request: Any, client_address: Any) -> None:
                with contextlib.suppress(ConnectionError):
                    self.finish_request(request, client_address)
                self.shutdown_request(request)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?a=1"
        self.thread = threading.Thread(
            target=self.server.serve_forever, args=(0.005,), daemon=True
        )

    def __enter__(self) -> Receiver:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def deliveries(mock: MockServer, count: int = 1) -> list[dict[str, Any]]:
    """All webhooks, once so many are over: all jobs end and all retries come due."""
    mock.advance(60)
    hooks = mock.webhooks(wait=PATIENCE, count=count)
    assert sum(hook["state"] != "pending" for hook in hooks) >= count, hooks
    return hooks


def tried(mock: MockServer, attempts: int) -> bool:
    """Whether the one webhook has been tried so often, once it has."""
    return eventually(
        lambda: [len(hook["attempts"]) for hook in mock.webhooks()] == [attempts]
    )


def verified(secret: str, header: str, body: bytes, now: float) -> bool:
    """What the documentation tells a receiver to do."""
    parts = dict(part.split("=", 1) for part in header.split(","))
    if abs(now - int(parts["t"])) > 300:
        return False
    expected = hmac.new(
        secret.encode(), parts["t"].encode() + b"," + body, hashlib.sha256
    ).hexdigest()
    return hmac.compare_digest(expected, parts["v1"])


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "expired"])
def test_each_ending_is_announced_with_the_documented_bytes(status: str) -> None:
    with Receiver() as receiver, MockServer(fixtures=[], webhook_secret="s3cret") as mock:
        prompt = "a cat" if status == "completed" else f"mock:{status}"
        job_id = submit(mock, prompt, callback_url=receiver.url)
        assert mock.webhooks() == [], "nothing is sent for pending or in_progress"
        wire = poll_to_the_end(mock, job_id)
        (hook,) = mock.webhooks(wait=PATIENCE)
        ((headers, body),) = receiver.received
        event = json.loads(body)
        assert list(event) == ["type", "created_at", "data"]
        assert event["type"] == f"video.generation.{status}"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["created_at"])
        expected = {"id": job_id, "status": status}
        expected |= {"generation_id": job_id, "model": "google/veo-3.1"}
        for key in ("unsigned_urls", "usage") if status == "completed" else ("error",):
            expected[key] = wire[key]
        assert event["data"] == expected and list(event["data"]) == list(expected)
        assert headers["Content-Type"] == "application/json"
        assert headers["X-OpenRouter-Idempotency-Key"] == f"{job_id}-{status}"
        signature = headers["X-OpenRouter-Signature"]
        assert re.fullmatch(r"t=\d{10},v1=[0-9a-f]{64}", signature)
        assert verified("s3cret", signature, body, time.time())
        assert not verified(
            "s3cret", signature, body.replace(b"gen", b"gem", 1), time.time()
        )
        assert hook["body"].encode() == body and hook["state"] == "delivered"
        assert hook["headers"]["X-OpenRouter-Signature"] == signature
        assert [attempt["status"] for attempt in hook["attempts"]] == [200]
        assert mock.job(job_id)["webhooks"] == [hook]


def test_a_job_nobody_polls_ends_by_itself_and_the_default_url_is_used() -> None:
    with Receiver() as receiver, MockServer(fixtures=[], callback_url=receiver.url) as mock:
        job_id = submit(mock)
        mock.advance(1)
        assert mock.webhooks(wait=PATIENCE)[0]["state"] == "delivered"
        assert "X-OpenRouter-Signature" not in receiver.received[0][0]
        assert mock.job(job_id)["status"] == "completed" and mock.job(job_id)["polls"] == 0


def test_the_request_s_callback_beats_the_default_and_refusals_send_nothing() -> None:
    with (
        Receiver() as wanted,
        Receiver() as default,
        MockServer(fixtures=[], callback_url=default.url) as mock,
    ):
        post(mock, veo(prompt="mock:no-credits"))
        submit(mock, callback_url=wanted.url)
        assert len(deliveries(mock)) == 1
        assert (len(wanted.received), len(default.received)) == (1, 0)


def test_a_delivery_is_tried_five_times_on_the_mock_s_clock() -> None:
    with (
        Receiver(500, 302, b"garbage\r\n\r\n", b"") as receiver,
        MockServer(fixtures=[]) as mock,
    ):
        begun = time.monotonic()
        submit(mock, callback_url=receiver.url)
        mock.advance(1)
        for attempts, pause in enumerate((1, 2, 4, 8), start=1):
            assert tried(mock, attempts)
            mock.advance(pause)
        assert tried(mock, 5)
        passed = time.monotonic() - begun
        (hook,) = mock.webhooks()
        assert hook["state"] == "delivered"
        outcomes = [attempt.get("status") for attempt in hook["attempts"]]
        assert outcomes == [500, 302, None, None, 200]
        assert "garbage" in hook["attempts"][2]["error"]
        assert "closed connection without response" in hook["attempts"][3]["error"]
        late = [attempt["at"] - mock.job()["ended_at"] for attempt in hook["attempts"]]
        for at, due in zip(late, (0, 1, 3, 7, 15), strict=True):
            assert due <= at + 0.01 and at < due + 1 + passed, late
        keys = {headers["X-OpenRouter-Idempotency-Key"] for headers, _ in receiver.received}
        assert len(receiver.received) == 5 and len(keys) == 1


def test_all_retries_within_a_jump_of_the_clock_happen_at_once() -> None:
    with MockServer(fixtures=[], fault={"on": "webhook", "status": 500}) as mock:
        submit(mock, callback_url="http://127.0.0.1:9/")
        mock.advance(3600)
        (hook,) = mock.webhooks(wait=PATIENCE)
        assert hook["state"] == "failed" and len(hook["attempts"]) == 5


def test_one_jump_of_the_clock_during_an_attempt_brings_all_the_others(
    mock: MockServer,
) -> None:
    def meanwhile() -> int:
        mock.advance(60)
        return 503

    with Receiver(meanwhile, 503, 503, 503, 503) as receiver:
        mock.finish(submit(mock, callback_url=receiver.url))
        (hook,) = mock.webhooks(wait=PATIENCE)
        assert hook["state"] == "failed" and len(hook["attempts"]) == 5


def test_a_receiver_that_is_not_there_is_given_up(mock: MockServer) -> None:
    with nobody() as port:
        submit(mock, callback_url=f"http://127.0.0.1:{port}/")
        (hook,) = deliveries(mock)
        assert hook["state"] == "failed" and hook["reason"] == "no success in 5 attempts"
        assert "Connection refused" in hook["attempts"][0]["error"]


@pytest.mark.parametrize(
    ("hosts", "url", "goes"),
    [
        ([], "https://example.com/hook", False),
        (["other.test"], "https://example.com/hook", False),
        ([], "https://localhost.example.com/hook", False),
        ([], "https://127.0.0.1.example.com/hook", False),
        ([], "http://localhost:9/hook", True),
        ([], "http://[::1]:9/hook", True),
        (["Example.com"], "http://example.com:9/hook", True),
        (["*"], "http://example.com:9/hook", True),
    ],
)
def test_webhooks_go_to_loopback_or_named_hosts_only(
    hosts: list[str], url: str, goes: bool
) -> None:
    fault = {"on": "webhook", "close": True}  # so that nothing leaves
    with MockServer(fixtures=[], callback_host=hosts, fault=fault) as mock:
        submit(mock, callback_url=url)
        (hook,) = deliveries(mock)
        assert hook["state"] == ("failed" if goes else "refused")
        assert len(hook["attempts"]) == (5 if goes else 0)
        assert ("--callback-host" in hook["reason"]) is not goes


def test_a_fixture_shapes_its_webhook() -> None:
    shapes: dict[str, dict[str, Any]] = {
        "twice": {"times": 2},
        "never": {"times": 0},
        "late": {"delay": 3600},
        "bad": {"signature": "bad"},
        "stale": {"signature": "stale"},
        "none": {"signature": "none"},
    }
    fixtures = [
        {"match": {"prompt": name}, "webhook": shape} for name, shape in shapes.items()
    ]
    with (
        Receiver() as receiver,
        serving(*fixtures, webhook_secret="s", callback_url=receiver.url) as mock,
    ):

        def delivered(name: str, count: int) -> list[tuple[dict[str, str], bytes]]:
            receiver.received.clear()
            mock.reset()
            submit(mock, name)
            deliveries(mock, count)
            return receiver.received

        twice = delivered("twice", 2)
        keys = {headers["X-OpenRouter-Idempotency-Key"] for headers, _ in twice}
        assert len(twice) == 2 and len(keys) == 1
        assert delivered("never", 0) == [] and mock.webhooks() == []
        ((headers, body),) = delivered("bad", 1)
        assert not verified("s", headers["X-OpenRouter-Signature"], body, time.time())
        ((headers, body),) = delivered("stale", 1)
        signature = headers["X-OpenRouter-Signature"]
        assert not verified("s", signature, body, time.time())
        assert verified("s", signature, body, time.time() - 600)
        assert "X-OpenRouter-Signature" not in delivered("none", 1)[0][0]
        mock.reset()
        submit(mock, "late")
        mock.advance(1800)
        assert eventually(mock.webhooks) and mock.webhooks()[0]["state"] == "pending"
        mock.advance(1801)
        (hook,) = mock.webhooks(wait=PATIENCE)
        assert hook["state"] == "delivered"
        assert hook["attempts"][0]["at"] >= mock.job()["ended_at"] + 3600


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
def test_faults_strike_webhooks_too(
    fault: dict[str, Any], received: int, first: dict[str, Any]
) -> None:
    fault = {"on": "webhook", "times": 1, **fault}
    with Receiver() as receiver, serving({"match": {}, "faults": [fault]}) as mock:
        submit(mock, callback_url=receiver.url)
        (hook,) = deliveries(mock)
        assert len(receiver.received) == received
        assert first.items() <= hook["attempts"][0].items() and hook["attempts"][0]["fault"]
        if "malformed" in fault or "truncate" in fault:
            with pytest.raises(ValueError):
                json.loads(receiver.received[0][1])
        if "delay" in fault:
            assert hook["attempts"][0]["at"] >= mock.job()["ended_at"] + 7


def test_an_end_that_was_put_off_and_came_back_is_announced_and_charged_once() -> None:
    now = 1_700_000_000.0
    mock = ovm.VideoMock(ovm.Config(fixtures=[]), clock=lambda: now)
    headers = {"authorization": "Bearer k"}
    body = json.dumps(veo(callback_url="http://127.0.0.1:9/")).encode()
    submit = ovm.Request("POST", f"{API}/videos", "", headers, body, ovm.Note())
    job_id = json.loads(mock.handle(submit).body)["id"]
    try:
        for passed in (0.25, 0.75):  # the second ends it just when it would have by itself
            now += passed
            mock.handle(
                ovm.Request("GET", f"{API}/videos/{job_id}", "", headers, b"", ovm.Note())
            )
        assert mock.job()["status"] == "completed"
        assert mock.store.spent().total() == mock.job()["cost"] > 0
        assert eventually(mock.webhooks) and len(mock.webhooks()) == 1
    finally:
        mock.close()


def test_an_interim_answer_of_a_receiver_is_not_its_last_word() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    with Receiver(interim) as receiver, MockServer(fixtures=[]) as mock:
        submit(mock, callback_url=receiver.url)
        (hook,) = deliveries(mock)
        assert [attempt["status"] for attempt in hook["attempts"]] == [503, 200]


def test_a_job_that_ends_in_a_thousand_years_stops_no_other_webhook() -> None:
    never = {"match": {"prompt": "never"}, "lifecycle": {"seconds": {"pending": 1e11}}}
    with (
        Receiver() as receiver,
        serving(never, {"match": {}}, callback_url=receiver.url) as mock,
    ):
        submit(mock, "never")
        mock.finish(submit(mock))
        assert mock.webhooks(wait=PATIENCE)[0]["state"] == "delivered"


def test_stop_waits_for_no_webhook_in_the_middle_of_a_tls_handshake() -> None:
    before = set(threading.enumerate())
    with socket.socket() as silent, MockServer(fixtures=[]) as mock:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        mock.finish(submit(mock, callback_url=url))
        connection, _ = silent.accept()
        with connection:
            mock.stop()
            left = set(threading.enumerate()) - before
            assert all(thread.daemon for thread in left), "they end with the process"
        assert eventually(lambda: set(threading.enumerate()) <= before)


def test_exactly_one_delivery_however_polls_clock_and_endings_race() -> None:
    with Receiver() as receiver, MockServer(fixtures=[], polls=(0, 0)) as mock:
        ids = [submit(mock, callback_url=receiver.url) for _ in range(20)]

        def race(index: int) -> object:
            if index >= 40:
                return mock.advance(0.3)
            job_id = ids[index // 2]
            return poll(mock, job_id) if index % 2 else mock.finish(job_id, "completed")

        in_parallel(45, race)
        hooks = deliveries(mock, 20)
        assert {hook["state"] for hook in hooks} == {"delivered"} and len(hooks) == 20
        keys = [headers["X-OpenRouter-Idempotency-Key"] for headers, _ in receiver.received]
        assert sorted(keys) == sorted(f"{job_id}-completed" for job_id in ids)


def test_a_receiver_that_never_answers_holds_up_nobody() -> None:
    over = threading.Event()

    def never() -> bytes:
        over.wait(PATIENCE)
        return b""

    with contextlib.ExitStack() as stack:
        dead = [stack.enter_context(Receiver(*[never] * 20)) for _ in range(3)]
        alive = stack.enter_context(Receiver())
        before = set(threading.enumerate())
        mock = stack.enter_context(MockServer(fixtures=[], polls=(0, 0)))
        for index in range(30):
            mock.finish(submit(mock, callback_url=dead[index % 3].url))
        job_id = submit(mock, callback_url=alive.url)
        mock.finish(job_id)
        (hook,) = mock.webhooks(job_id=job_id, wait=PATIENCE)
        assert hook["state"] == "delivered"
        assert [one["job_id"] for one in mock.webhooks() if one["attempts"]] == [job_id]
        mock.stop()
        left = set(threading.enumerate()) - before
        assert {thread.name for thread in left} <= {"receiver"}
        over.set()


def test_pending_deliveries_are_bounded_and_what_was_dropped_is_said() -> None:
    late = {"match": {}, "webhook": {"delay": 3600}}
    with serving(late, max_jobs=3, callback_url="http://127.0.0.1:9/") as mock:
        for _ in range(5):
            mock.finish(submit(mock))
        assert eventually(lambda: len(mock.webhooks()) == 5)
        hooks = mock.webhooks()
        assert [hook["state"] for hook in hooks] == ["dropped"] * 2 + ["pending"] * 3
        assert "3" in hooks[0]["reason"]


def test_the_faults_of_a_job_that_is_forgotten_still_strike_its_webhook() -> None:
    fixture = {
        "match": {"prompt": "first"},
        "webhook": {"delay": 100},
        "faults": [{"on": "webhook", "status": 503, "times": 1}],
    }
    with Receiver() as receiver, serving(fixture, {"match": {}}, max_jobs=1) as mock:
        mock.finish(submit(mock, "first", callback_url=receiver.url))
        assert eventually(mock.webhooks)
        submit(mock)
        mock.advance(200)
        (hook,) = mock.webhooks(wait=PATIENCE)
        assert [attempt["status"] for attempt in hook["attempts"]] == [503, 200]


def test_many_interim_answers_of_a_receiver_hold_up_nobody() -> None:
    flood = b"HTTP/1.1 100 Continue\r\n\r\n" * 2000 + b"HTTP/1.1 204 No Content\r\n\r\n"
    with Receiver(flood) as receiver, MockServer() as mock:
        mock.finish(submit(mock, callback_url=receiver.url))
        assert finished(mock)["status"] == "completed"
        (hook,) = mock.webhooks(wait=PATIENCE)
        assert [attempt["status"] for attempt in hook["attempts"]] == [204]


def test_a_fast_answer_does_not_wait_for_slow_ones_of_the_same_receiver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient(monkeypatch, WEBHOOK=10 * PATIENCE)
    over = threading.Event()

    def slow() -> int:
        over.wait(PATIENCE)
        return 200

    with Receiver(*[slow] * 16) as receiver, MockServer(callback_url=receiver.url) as mock:
        for _ in range(17):
            mock.finish(submit(mock))
        done = [hook["state"] for hook in mock.webhooks(wait=PATIENCE)]
        over.set()
        assert done.count("delivered") == 1 and done.count("pending") == 16


def test_stop_waits_for_no_webhook_that_hangs_in_connecting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient(monkeypatch, WEBHOOK=10 * PATIENCE)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):  # more than it lets wait
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        mock = stack.enter_context(MockServer())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        mock.finish(submit(mock, callback_url=url))
        assert eventually(mock.webhooks)
        before = time.monotonic()
        mock.stop()
        assert time.monotonic() - before < PATIENCE


def test_webhooks_never_reach_the_control_api_of_the_mock(mock: MockServer) -> None:
    for name in ("127.0.0.1", "localhost"):
        url = f"http://{name}:{address(mock)[1]}/__mock/reset"
        reply = post(mock, veo(callback_url=url))
        if reply.status == 202:
            mock.finish(reply.json["id"])
            mock.advance(60)
            (hook,) = mock.webhooks(job_id=reply.json["id"], wait=PATIENCE)
            assert hook["state"] in ("failed", "refused")
            assert mock.job(reply.json["id"])["status"] == "completed", "not reset"
    idempotency = {"X_OpenRouter_Idempotency_Key": "gen-vid-1-completed"}
    assert call(mock, "POST", "/__mock/reset", {}, **idempotency).status == 403


def test_a_callback_beyond_ascii_is_sent_percent_encoded(mock: MockServer) -> None:
    with Receiver() as receiver:
        url = receiver.url.replace("/hook", "/h\u00f6\u00f6k%20\u732b")
        mock.finish(submit(mock, callback_url=f"{url}&b=\u00fc"))
        (hook,) = mock.webhooks(wait=PATIENCE)
        assert hook["state"] == "delivered", hook
        assert receiver.paths == ["/h%C3%B6%C3%B6k%20%E7%8C%AB?a=1&b=%C3%BC"]


def test_a_fixture_that_wants_no_webhook_has_none_even_where_it_would_be_refused() -> None:
    fixture = {"match": {}, "webhook": {"times": 0}}
    with serving(fixture, callback_url="https://example.com/hook") as mock:
        mock.finish(submit(mock))
        mock.advance(60)
        submit(mock)
        assert mock.webhooks() == []


# ============ Video API handlers


def test_content_is_chunked_whole_and_deaf_to_range(mock: MockServer) -> None:
    wire = finished(mock)
    url = wire["unsigned_urls"][0]
    reply = get(mock, url, Range="bytes=0-9", Accept="application/json")
    assert reply.status == 200 and reply.headers["Content-Type"] == "video/mp4"
    assert reply.headers["Transfer-Encoding"] == "chunked"
    assert not {"Content-Length", "ETag", "Accept-Ranges"} & set(reply.headers)
    assert reply.raw == get(mock, url.partition("?")[0]).raw


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=5-", 206, slice(5, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=3-99999999", 206, slice(3, None)),
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=9-5", 416, None),
        ("bytes=0-1,3-4", 200, slice(None)),
        ("pages=1-2", 200, slice(None)),
        ("bytes=99999999-", 416, None),
        ("bytes=-0", 416, None),
    ],
)
def test_signed_urls_and_the_control_clip_answer_ranges(
    shared: MockServer, header: str, status: int, part: slice | None
) -> None:
    wire = finished(shared, seed=1)
    whole = content(shared, wire)
    for url in (wire["urls"][0], "/__mock/jobs/latest/clip?index=0"):
        reply = get(shared, url, key=None, Range=header)
        assert reply.status == status
        if part is None:
            assert reply.headers["Content-Range"] == f"bytes */{len(whole)}"
        else:
            assert reply.raw == whole[part]
            assert reply.headers["Content-Length"] == str(len(whole[part]))
        if status == 206:
            start, stop, _ = part.indices(len(whole)) if part else (0, 0, 0)
            sent = f"bytes {start}-{stop - 1}/{len(whole)}"
            assert reply.headers["Content-Range"] == sent


def test_signed_urls_need_no_key_and_no_tampering(mock: MockServer) -> None:
    two = finished(mock, "mock:two-videos")
    url = two["urls"][0]
    assert re.search(r"content\?index=0&expires=\d+&signature=[0-9a-f]{64}$", url)
    assert get(mock, url, key=None).status == 200
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
        assert get(mock, bad).status == 403, bad


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
def test_content_index(shared: MockServer, query: str, status: int) -> None:
    reply = get(shared, f"{API}/videos/{finished(shared)['id']}/content{query}")
    assert reply.status == status
    if query == "?index=1":
        assert reply.message == "Video index 1 out of range (1 videos available)"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("-1", "Too small: expected number to be >=0"),
        ("x", "expected number, received string"),
        ("1.5", "expected int"),
    ],
)
def test_content_index_is_checked_like_a_body(
    shared: MockServer, index: str, message: str
) -> None:
    issues = zod_issues(get(shared, f"{API}/videos/x/content?index={index}"))
    assert issues[0]["path"] == ["index"] and message in issues[0]["message"]


def test_content_before_the_end_of_failed_and_of_unknown_jobs(mock: MockServer) -> None:
    job_id = submit(mock)
    assert get(mock, f"{API}/videos/{job_id}/content").status == 409
    assert mock.job(job_id)["polls"] == 0, "a download is no poll"
    mock.finish(job_id, "failed")
    assert get(mock, f"{API}/videos/{job_id}/content").status == 409
    for path in (
        "/videos/nope",
        "/videos/nope/content",
        "/videos/latest",
        "/videos/%2e%2e",
        "/videos/a%20b",
    ):
        reply = get(mock, API + path)
        assert reply.status == 404, path
        assert re.fullmatch(r"Job .* not found", reply.message), path


def test_key_and_credits_add_up_what_completed_jobs_cost() -> None:
    with MockServer(fixtures=[], max_jobs=2) as mock:
        for key, prompt in (("a", "x"), ("a", "mock:failed"), ("b", "x"), ("b", "x")):
            job_id = post(mock, veo(prompt=prompt), key=key).json["id"]
            poll_to_the_end(mock, job_id)
        submit(mock)  # not completed, costs nothing yet; three jobs are no longer kept
        usage = get(mock, f"{API}/key", key="a").json["data"]
        assert usage["usage"] == 1.6
        assert usage["limit"] is None and usage["is_free_tier"] is False
        first = "label usage limit limit_remaining limit_reset"
        assert " ".join(list(usage)[:5]) == first
        credit = get(mock, f"{API}/credits").json["data"]
        assert credit == {"total_credits": 1000, "total_usage": 4.8}


def test_generation_is_known_at_the_second_look_at_a_completed_job(
    mock: MockServer,
) -> None:
    job_id = submit(mock)
    before = get(mock, f"{API}/generation?id={job_id}")
    assert (before.status, before.message) == (404, f"Generation {job_id} not found")
    poll_to_the_end(mock, job_id)
    data = generation(mock, job_id).json["data"]
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
    assert generation(mock, failed).status == 404
    assert get(mock, f"{API}/generation?id=latest").status == 404


def test_the_chat_route_refuses_video_models_as_recorded(mock: MockServer) -> None:
    def chat(body: Any) -> Reply:
        return call(mock, "POST", f"{API}/chat/completions", body)

    reply = chat({"model": "google/veo-3.1", "messages": []})
    assert reply.status == 400
    assert reply.message == (
        "`google/veo-3.1` is a video generation model and cannot be used with "
        "the chat/completions endpoint. "
        "Use the `/api/v1/videos` endpoint instead."
    )
    other = chat({"model": "openai/gpt-4o"})
    assert other.message == "openai/gpt-4o is not a valid model ID"
    assert chat(b"{").status == chat([]).status == 400


def test_generation_misses_once_per_job(mock: MockServer) -> None:
    ids = [finished(mock)["id"] for _ in range(2)]
    for job_id in ids:
        looks = [get(mock, f"{API}/generation?id={job_id}").status for _ in range(3)]
        assert looks == [404, 200, 200]
    assert get(mock, f"{API}/generation?id={ids[0]}", key=None).status == 401


# ============ Record


class Upstream:
    """A raw HTTP server: what `answer` gives for a path is sent as it is, then the end."""

    def __init__(self, answer: Callable[[str], bytes]) -> None:
        self.heads: list[str] = []
        heads = self.heads

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                lines = list(iter(self.rfile.readline, b"\r\n"))
                heads.append(b"".join(lines).decode("latin-1"))
                length = re.search(r"(?i)content-length: (\d+)", heads[-1])
                self.rfile.read(int(length[1]) if length else 0)
                with contextlib.suppress(OSError):
                    self.wfile.write(answer(heads[-1].split()[1]))

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.origin = "http://{}:{}".format(*self.server.server_address[:2])
        self.url = self.origin + API
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.005,))

    def __enter__(self) -> Upstream:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def sent(
    status: int, body: Any, *headers: str, kind: str = "application/json", short: int = 0
) -> bytes:
    """An answer's bytes, of which so many are missing at the end."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} So",
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        *headers,
    ]
    whole = "\r\n".join([*lines, "Connection: close", "", ""]).encode() + data
    return whole[: len(whole) - short]


JOB_ID = "gen-vid-1700000000-abcdefghijklmnopqrst"
SUBMITTED = {"id": JOB_ID, "polling_url": f"/api/v1/videos/{JOB_ID}", "status": "pending"}
RUNNING = {
    "id": JOB_ID,
    "generation_id": JOB_ID,
    "polling_url": f"/api/v1/videos/{JOB_ID}",
    "status": "in_progress",
}
COMPLETED = {
    **RUNNING,
    "status": "completed",
    "unsigned_urls": [f"https://openrouter.ai/api/v1/videos/{JOB_ID}/content?index=0"],
    "usage": {"cost": 0.25, "is_byok": False},
}


def scripted(*answers: bytes) -> Callable[[str], bytes]:
    """These answers one after the other, the last for ever."""
    left = list(answers)
    return lambda path: left.pop(0) if len(left) > 1 else left[0]


def recording(folder: Path, upstream: MockServer | Upstream, **settings: Any) -> MockServer:
    return MockServer(record=str(folder), upstream=upstream.url, **settings)


def kept(folder: Path, name: str = "recorded") -> Any:
    """What a file of the recording says; None without it."""
    file = folder / f"{name}.json"
    if not file.exists():
        return None
    (value,) = json.loads(file.read_text(encoding="utf-8")).values()
    return value


def outcome(wire: dict[str, Any]) -> dict[str, Any]:
    """What a poll shows but for names, places and times."""
    shown = {key: wire[key] for key in wire if key in ("status", "usage", "error")}
    places = [key for key in wire if key.endswith("urls")]
    return {**shown, **{key: len(wire[key]) for key in places}}


def files(folder: Path) -> list[str]:
    return sorted(re.sub("[0-9a-f]{12}", "#", file.name) for file in folder.iterdir())


RICH = veo(
    prompt="a ü cat 🐈",
    duration=4,
    resolution="1080p",
    seed=3,
    frame_images=IMAGE,
    user="u",
    session_id="s",
)


def test_a_recording_replays_what_the_upstream_did(
    catalogue: MockServer, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "rec"
    with recording(folder, catalogue) as mock:
        reply = post(mock, RICH, key="sk-live")
        assert reply.status == 202 and list(reply.json) == ["id", "polling_url", "status"]
        job_id = reply.json["id"]
        assert reply.json["polling_url"] == f"{mock.url}/videos/{job_id}"
        wire = poll_to_the_end(mock, job_id)
        for url in (*wire["unsigned_urls"], *wire["urls"], wire["polling_url"]):
            assert url.startswith(f"{mock.url}/videos/{job_id}")
        clip = content(mock, wire)
        assert mock.jobs() == [] and catalogue.job(job_id)["status"] == "completed"
        entry = mock.requests(job_id=job_id)[-1]
        assert (entry["status"], entry["path"]) == (200, path_of(wire["unsigned_urls"][0]))
        assert eventually(lambda: files(folder) == ["#-0.mp4", "recorded.json"])
        assert mock.findings(rule="differs-from-mock") == []
    (fixture,) = kept(folder)
    assert re.fullmatch(r"\d+\.\d s", fixture["_took"])
    assert fixture["match"] == {
        "prompt": {"equals": "a ü cat 🐈"},
        "model": "google/veo-3.1",
        "body": {
            "duration": 4,
            "frame_images": [{"frame_type": "first_frame"}],
            "resolution": "1080p",
            "seed": 3,
        },
    }
    with MockServer(fixtures=str(folder)) as replay:
        assert post(replay, {**RICH, "prompt": "a ü cat"}).status == 404
        assert post(replay, {**RICH, "duration": 8}).status == 404
        again = post(replay, {**RICH, "user": "other"})
        assert again.status == 202
        shown = poll_to_the_end(replay, again.json["id"])
        assert outcome(shown) == outcome(wire) and content(replay, shown) == clip


@pytest.mark.parametrize(
    "video",
    [
        {"status": "failed", "error": "The service is busy"},
        {"status": "cancelled"},
        {"status": "expired"},
        {"cost": 0.123, "is_byok": True},
        {"cost": None},
        {"count": 3},
        {"unsigned_urls": [], "stored": False},
        {"stored": False},
    ],
)
def test_every_ending_is_replayed(tmp_path: Path, video: dict[str, Any]) -> None:
    fixture = {"match": {}, "response": {"video": video}}
    with serving(fixture) as real, recording(tmp_path, real) as mock:
        wire = finished(mock)
        assert outcome(wire) == outcome(finished(real))
    with MockServer(fixtures=str(tmp_path)) as replay:
        assert outcome(finished(replay)) == outcome(wire)


@pytest.mark.parametrize("length", [1000, 3000, 20_000])
def test_a_long_prompt_is_replayed(tmp_path: Path, length: int) -> None:
    with serving() as real, recording(tmp_path, real) as mock:
        finished(mock, "cat " * (length // 4), model=GROK)
    with MockServer(fixtures=str(tmp_path)) as replay:
        finished(replay, "cat " * (length // 4), model=GROK)
        assert post(replay, veo(prompt="cat " * 200, model=GROK)).status == 404


def test_a_refusal_is_passed_on_and_replayed_until_the_submit_succeeds(
    tmp_path: Path,
) -> None:
    fault = {"on": "submit", "status": 429, "retryAfter": 7, "message": "slow", "times": 1}
    names = ("Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining")

    def refused(mock: MockServer) -> tuple[Any, ...]:
        reply = post(mock)
        return reply.status, reply.json, *(reply.headers[name] for name in names)

    with serving(fault=[fault]) as real, recording(tmp_path, real) as mock:
        first = refused(mock)
        assert first[0] == 429 and first[1]["error"]["message"] == "slow"
        assert mock.requests(status=429)[0]["error"] == "slow"
        assert first[2] == "7"
        assert [fixture["response"]["status"] for fixture in kept(tmp_path)] == [429]
        with MockServer(fixtures=str(tmp_path)) as replay:
            assert refused(replay) == first
        finished(mock)
    with MockServer(fixtures=str(tmp_path)) as replay:
        assert finished(replay)["status"] == "completed"


def test_a_schema_failure_is_passed_on_and_not_recorded(tmp_path: Path) -> None:
    with serving() as real, recording(tmp_path, real) as mock:
        bodies: list[Any] = [veo(duration="x"), b"{", [], {}]
        for body in bodies:
            assert post(mock, body)[::2] == post(real, body)[::2]
        assert len(real.requests(method="POST")) == 8
        assert files(tmp_path) == []
        assert mock.findings(rule="differs-from-mock") == []


def test_the_models_are_kept_as_a_fixture_file(
    catalogue: MockServer, tmp_path: Path
) -> None:
    with recording(tmp_path, catalogue) as mock:
        models = get(mock, f"{API}/videos/models", key=None).json
    assert models == get(catalogue, f"{API}/videos/models").json
    document = json.loads((tmp_path / "models.json").read_text())
    assert list(document) == ["models"]
    with MockServer(fixtures=str(tmp_path / "models.json")) as replay:
        assert get(replay, f"{API}/videos/models").json == models
        assert post(replay, veo(model="no/such")).status == 400


@pytest.mark.parametrize(
    "path",
    [
        *("/models?output_modalities=video", "/key", "/credits", "/videos/no-such-job"),
        *("/models/google/veo-3.1/endpoints", "/generation?id=gen-vid-1-x"),
        "/videos/no-such-job/content?index=0",
    ],
)
def test_other_routes_are_passed_on(
    catalogue: MockServer, tmp_path: Path, path: str
) -> None:
    with recording(tmp_path, catalogue) as mock:
        reply = get(mock, API + path)
    expected = get(catalogue, API + path)
    assert (reply.status, reply.json) == (expected.status, expected.json)


def test_what_a_fixture_takes_never_goes_out(tmp_path: Path) -> None:
    fixtures = [fails({"prompt": "mine"}, error="ours")]
    with serving() as real, recording(tmp_path, real, fixtures=fixtures) as mock:
        assert finished(mock, "mock:failed")["status"] == "failed"
        assert finished(mock, "this is mine")["error"] == "ours"
        assert content(mock, finished(mock, "mock:two-videos"), 1)
        refused = post(mock, veo(prompt="mock:moderated"))
        assert refused.status == 403
        assert post(mock, veo(prompt="mock:nothing-like-it")).status == 404
        generation(mock, finished(mock, "mock:elsewhere")["id"])
        assert real.requests() == [] and len(mock.jobs()) == 4
        submit(mock, "not yours")
        assert len(real.requests()) == 1 and len(mock.jobs()) == 4
    assert kept(tmp_path) is None


def test_only_a_prompt_keeps_a_submit_from_going_out(tmp_path: Path) -> None:
    image = {**FIRST_FRAME, "image_url": {"url": "https://mock:8443/a.png"}}
    with serving() as real, recording(tmp_path, real) as mock:
        submit(mock, frame_images=[image], session_id="mock:failed")
        assert len(real.jobs()) == 1 and mock.jobs() == []


def test_a_part_of_a_clip_comes_through_a_signed_url(tmp_path: Path) -> None:
    with serving() as real, recording(tmp_path, real) as mock:
        url = finished(mock)["urls"][0]
        whole = get(mock, url, key=None).raw
        reply = get(mock, url, key=None, Range="bytes=4-9")
        assert (reply.status, reply.raw) == (206, whole[4:10])
        assert reply.headers["Content-Range"] == f"bytes 4-9/{len(whole)}"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_signed_urls_work_and_carry_no_key(tmp_path: Path, elsewhere: bool) -> None:
    fixture = {"match": {}, "response": {"video": {"elsewhere": elsewhere}}}
    with serving(fixture) as real, recording(tmp_path, real) as mock:
        wire = finished(mock, key="sk-live")
        for key in (None, "sk-live"):
            assert get(mock, wire["urls"][0], key=key).raw[4:8] == b"ftyp"
        for request in real.requests(path="/videos/gen", since=3):
            assert "signature=" in request["path"]
            assert "authorization" not in request["headers"]


def test_two_clients_on_a_job_record_it_once(tmp_path: Path) -> None:
    with serving() as real, recording(tmp_path, real) as mock:
        job_id = submit(mock)
        wires = in_parallel(8, lambda _: poll_to_the_end(mock, job_id))
        clips = in_parallel(8, lambda _: content(mock, wires[0]))
        assert len(set(clips)) == 1
        assert eventually(lambda: files(tmp_path) == ["#-0.mp4", "recorded.json"])
    (fixture,) = kept(tmp_path)
    assert (tmp_path / fixture["response"]["video"]["file"]).read_bytes() == clips[0]


def test_a_clip_stays_with_its_fixture_if_the_like_of_it_is_only_polled(
    tmp_path: Path,
) -> None:
    with serving() as real, recording(tmp_path, real) as mock:
        clip = content(mock, finished(mock))
        finished(mock)
    (fixture,) = kept(tmp_path)
    assert (tmp_path / fixture["response"]["video"]["file"]).read_bytes() == clip


def test_a_clip_is_kept_of_a_job_that_nobody_polled(tmp_path: Path) -> None:
    with serving() as real, recording(tmp_path, real) as mock:
        job_id = submit(mock)
        real.finish(job_id)
        clip = get(mock, f"{API}/videos/{job_id}/content").raw
        assert eventually(lambda: files(tmp_path) == ["#-0.mp4", "recorded.json"])
    with MockServer(fixtures=str(tmp_path)) as replay:
        assert content(replay, finished(replay)) == clip


def test_a_poll_that_overtakes_does_not_move_a_job_back(tmp_path: Path) -> None:
    answers = scripted(
        sent(202, SUBMITTED), sent(200, COMPLETED), sent(200, RUNNING), sent(200, RUNNING)
    )
    with Upstream(answers) as real, recording(tmp_path, real) as mock:
        submit(mock)
        for status in ("completed", "in_progress", "in_progress"):
            assert get(mock, f"{API}/videos/{JOB_ID}").json["status"] == status
    ((status, cost),) = [
        (f["response"]["video"]["status"], f["response"]["video"]["cost"])
        for f in kept(tmp_path)
    ]
    assert (status, cost) == ("completed", 0.25)


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (sent(503, {"error": {"message": "busy", "code": 503}}), 503, "busy"),
        (sent(502, b"<html>bad</html>", kind="text/html"), 502, "<html>bad</html>"),
        (sent(500, b"", kind="text/plain"), 500, ""),
        (sent(302, b"moved", "Location: /elsewhere"), 302, "moved"),
        (sent(302, b"", "Location: /elsewhere", kind="text/plain"), 302, ""),
        (sent(200, b"{not json"), 200, "{not json"),
        (sent(200, [1, 2]), 200, "[1, 2]"),
        (b"no HTTP at all\r\n\r\n", 502, "could not be reached"),
        (b"HTTP/1.1 200 OK\r\n", 200, ""),
        (b"", 502, "could not be reached"),
        (sent(200, RUNNING, short=20), 502, '"code":502'),
        (sent(200, RUNNING, short=len(json.dumps(RUNNING))), 502, '"code":502'),
    ],
    ids=lambda part: "" if isinstance(part, bytes) else None,
)
def test_what_the_upstream_says_is_passed_on_and_its_silence_is_a_502(
    tmp_path: Path, answer: bytes, status: int, text: str
) -> None:
    with Upstream(lambda path: answer) as real, recording(tmp_path, real) as mock:
        reply = get(mock, f"{API}/videos/{JOB_ID}")
        assert (reply.status, text in reply.raw.decode()) == (status, True), reply.raw
        assert post(mock).status == status
        assert not mock.errors
        assert len(real.heads) == 2


def test_an_upstream_that_cannot_be_reached_is_a_502_in_the_envelope(
    tmp_path: Path,
) -> None:
    with (
        nobody() as port,
        MockServer(record=str(tmp_path), upstream=f"http://127.0.0.1:{port}/v1") as mock,
    ):
        for reply in (post(mock), get(mock, f"{API}/videos/{JOB_ID}")):
            assert reply.status == 502 and reply.json["error"]["code"] == 502
            assert "could not be reached" in reply.message and "refused" in reply.message
        assert mock.requests()[0]["error"] == reply.message
        assert kept(tmp_path) is None


def test_a_head_is_passed_on(tmp_path: Path) -> None:
    with serving() as real, recording(tmp_path, real) as mock:
        job_id = submit(mock)
        assert call(mock, "HEAD", f"{API}/videos/{job_id}").status == 200
        assert real.job(job_id)["polls"] == 0


def test_a_slow_upstream_holds_up_nobody(tmp_path: Path) -> None:
    go_on = threading.Event()

    def answer(path: str) -> bytes:
        go_on.wait(PATIENCE)
        return sent(202, SUBMITTED)

    with (
        Upstream(answer) as real,
        recording(tmp_path, real) as mock,
        ThreadPoolExecutor(1) as pool,
    ):
        slow = pool.submit(post, mock)
        assert eventually(lambda: real.heads)
        assert finished(mock, "mock:failed")["status"] == "failed"
        assert get(mock, "/__mock/findings").status == 200
        go_on.set()
        assert slow.result().status == 202


@pytest.mark.parametrize("chunked", [False, True])
def test_a_download_that_breaks_off_is_seen_and_leaves_no_file(
    tmp_path: Path, chunked: bool
) -> None:
    clip = card(64, 64, 1) * 4
    whole = sent(200, clip, kind="video/mp4")
    cut = whole[:-1000]
    if chunked:
        head = "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nTransfer-Encoding: chunked"
        cut = f"{head}\r\n\r\n{len(clip):x}\r\n".encode() + clip[:-1000]
        whole = cut + clip[-1000:] + b"\r\n0\r\n\r\n"
    answers = scripted(sent(202, SUBMITTED), sent(200, COMPLETED), cut, whole)
    with Upstream(answers) as real, recording(tmp_path, real) as mock:
        submit(mock)
        wire = poll(mock, JOB_ID)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            content(mock, wire)
        assert eventually(lambda: files(tmp_path) == ["recorded.json"])
        assert content(mock, wire) == clip
        assert eventually(lambda: files(tmp_path) == ["#-0.mp4", "recorded.json"])
        assert not mock.errors


def test_nothing_goes_to_where_a_redirect_leads(tmp_path: Path) -> None:
    with Upstream(lambda path: sent(200, {"stolen": 1})) as other:
        moved = sent(307, b"moved", f"Location: {other.url}/videos")
        with Upstream(lambda path: moved) as real, recording(tmp_path, real) as mock:
            for reply in (
                post(mock, key="sk-live"),
                get(mock, f"{API}/videos/{JOB_ID}/content?index=0", key="sk-live"),
            ):
                assert reply.status == 307 and reply.raw == b"moved"
                assert reply.headers["Location"] == f"{other.url}/videos"
        assert other.heads == []


def test_a_folder_that_cannot_be_written_is_said_and_stops_nothing(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "rec"
    with serving() as real, recording(folder, real) as mock:
        folder.rmdir()
        write(folder, "a file")
        lines = lines_of(mock)
        wire = finished(mock)
        assert content(mock, wire)[4:8] == b"ftyp"
        assert get(mock, f"{API}/videos/models").status == 200
        failures = [line for line in lines if line.startswith("not recorded: ")]
        assert any("recorded.json: " in line for line in failures), lines
        assert any("models.json: " in line for line in failures), lines
    assert folder.read_text() == "a file"
    with pytest.raises(SetupError, match="record: .*rec: File exists"):
        MockServer(record=str(folder))


def test_an_empty_clip_and_an_end_without_reason_are_replayed_as_such(
    tmp_path: Path,
) -> None:
    silent = {"status": "failed", "omit": ["error"]}
    fixtures: list[dict[str, Any]] = [
        {"match": {"prompt": "empty"}, "response": {"video": {"b64": ""}}},
        {"match": {}, "response": {"video": silent}},
    ]
    with serving(*fixtures) as real, recording(tmp_path, real) as mock:
        assert content(mock, finished(mock, "empty")) == b""
        assert finished(mock, "silent")["status"] == "failed"
    with MockServer(fixtures=str(tmp_path)) as mock:
        assert content(mock, finished(mock, "empty")) == b""
        assert finished(mock, "silent")["status"] == "failed"


def test_a_submit_that_is_passed_on_has_missed_no_fixture(tmp_path: Path) -> None:
    mine = {"match": {"prompt": "rain"}}
    with MockServer() as real, recording(tmp_path, real, fixtures=[mine]) as mock:
        assert post(mock, veo(prompt="sun")).status == 202
        (request,) = mock.requests()
        assert request["upstream"] == real.url and request["closest"] is None


def test_a_head_request_to_the_upstream_differs_from_nothing(tmp_path: Path) -> None:
    with serving() as real, recording(tmp_path, real) as mock:
        call(mock, "HEAD", f"{API}/videos/models")
        assert mock.findings() == []


def test_the_key_is_nowhere(tmp_path: Path) -> None:
    secret = "sk-or-v1-very-secret"
    fixtures = [fails({"prompt": "bad"}), {"match": {}}]
    with MockServer(fixtures=fixtures) as real, recording(tmp_path, real) as mock:
        lines = lines_of(mock)
        for prompt in ("bad", "good"):
            reply = post(mock, veo(prompt=prompt), key=secret)
            for _ in range(3):
                wire = get(mock, f"{API}/videos/{reply.json['id']}", key=secret).json
        get(mock, wire["urls"][0], key=secret)
        get(mock, wire["unsigned_urls"][0], key=secret)
        get(mock, f"{API}/videos/models", key=secret)
        get(mock, f"{API}/key", key=secret)
        real.stop()
        said = [get(mock, f"{API}/credits", key=secret).raw.decode()]
        for path in ("/", "/__mock/requests", "/__mock/findings", "/__mock/jobs"):
            said.append(get(mock, path, key=None).raw.decode())
        said += [*lines, repr(mock.errors)]
        assert len(files(tmp_path)) >= 3
        said += [file.read_bytes().decode("latin-1") for file in tmp_path.iterdir()]
        assert lines and not any(secret in text for text in said)


def test_how_an_upstream_differs_is_kept_and_found(tmp_path: Path) -> None:
    bare = {"id": JOB_ID, "status": "pending"}
    odd = {**COMPLETED, "usage": {"cost": "free", "is_byok": False}}
    answers = scripted(sent(200, bare), sent(200, odd), sent(200, odd))
    with Upstream(answers) as real, recording(tmp_path, real) as mock:
        reply = post(mock)
        assert (reply.status, reply.json) == (200, bare)
        for _ in range(2):
            poll(mock, JOB_ID)
        differences = kept(tmp_path, "differences")
        assert differences[:2] == [
            "create_video: status 200 instead of 202",
            "create_video: polling_url: Invalid input: expected string, received undefined",
        ]
        (cost,) = differences[2:]
        assert cost.startswith("get_video (completed): usage.cost: ")
        found = mock.findings(rule="differs-from-mock")
        assert [finding["level"] for finding in found] == ["warning"] * 3
        for finding, difference in zip(found, differences, strict=True):
            assert finding["text"].startswith(difference) and not finding["requests"]
        assert get(mock, "/__mock/findings?rule=differs-from-mock").status == 200


@pytest.mark.parametrize(
    "oddity",
    [
        {},
        {"usage": {"cost": "free", "is_byok": False}},
        {"usage": {"cost": -1, "is_byok": "no"}},
        {"usage": [0.25]},
        {"usage": 0.25},
        {"unsigned_urls": "https://openrouter.ai/clip.mp4"},
        {"unsigned_urls": 1},
        {"urls": ["ftp://x"]},
        {"urls": [1]},
        {"error": {"message": "no"}},
        {"status": "failed", "error": {"message": "no"}},
        {"status": "failed", "error": ""},
        {"status": "queued"},
        {"status": 7},
        {"id": 7},
        {"polling_url": 7},
    ],
)
def test_an_odd_answer_is_passed_on_and_spoils_no_recording(
    tmp_path: Path, oddity: dict[str, Any]
) -> None:
    odd = {**COMPLETED, **oddity}
    answers = scripted(sent(202, SUBMITTED), sent(200, odd))
    with Upstream(answers) as real, recording(tmp_path, real) as mock:
        assert post(mock).status == 202
        for _ in range(2):
            wire = poll(mock, JOB_ID)
            assert set(wire) == set(odd) and wire["status"] == odd["status"]
        errors, mock.errors = mock.errors, []
        assert not errors
        assert bool(mock.findings(rule="differs-from-mock")) is bool(oddity)
    with MockServer(fixtures=str(tmp_path)) as replay:
        assert replay.health()["status"] == "ok"


@pytest.mark.parametrize(
    "answer",
    [
        {"data": [{**ovm.BUILT_IN_MODELS[0], "seed": "maybe", "new_key": 1}]},
        {"data": ["google/veo-3.1"]},
        {"data": [{"name": "no id"}]},
        {"data": None},
        {},
    ],
)
def test_odd_models_are_passed_on_and_spoil_no_recording(
    tmp_path: Path, answer: dict[str, Any]
) -> None:
    said = sent(200, answer)
    with Upstream(lambda path: said) as real, recording(tmp_path, real) as mock:
        assert get(mock, f"{API}/videos/models").json == answer
        errors, mock.errors = mock.errors, []
        assert not errors
        assert mock.findings(rule="differs-from-mock")
    with MockServer(fixtures=str(tmp_path)) as replay:
        assert replay.health()["status"] == "ok"


@pytest.mark.parametrize(
    ("route", "status", "kind", "answer", "differences"),
    [
        ("create_video", 202, "application/json", SUBMITTED, []),
        ("get_video", 200, "application/json", RUNNING, []),
        ("get_video", 200, "application/json; charset=utf-8", COMPLETED, []),
        ("get_video_content", 200, "video/mp4", None, []),
        (
            "get_video_content",
            200,
            "text/html",
            None,
            ["get_video_content: content type text/html instead of video/mp4"],
        ),
        (
            "get_video",
            200,
            "",
            RUNNING,
            ["get_video: content type none instead of application/json"],
        ),
        (
            "get_video",
            200,
            "application/json",
            {**RUNNING, "status": "failed"},
            [
                "get_video (failed): error: Invalid input: expected string, received undefined"
            ],
        ),
        (
            "create_video",
            500,
            "application/json",
            {"error": "no"},
            ["create_video (error): error: "],
        ),
        (
            "create_video",
            429,
            "application/json",
            {"error": {"message": "no", "code": 429}, "user_id": "u"},
            ["create_video (error): user_id: "],
        ),
        (
            "create_video",
            202,
            "application/json",
            dict(reversed(SUBMITTED.items())),
            ["create_video: the keys come in another order: status, polling_url, id"],
        ),
        ("create_video", 400, "application/json", {"success": False, "error": {}}, []),
        ("get_video", 200, "application/json", [1], ["get_video"]),
        ("get_key", 200, "application/json", {"data": {}}, []),
    ],
)
def test_an_answer_is_held_against_what_the_mock_would_have_said(
    route: str, status: int, kind: str, answer: Any, differences: list[str]
) -> None:
    found = list(ovm.differences_from_contract(route, status, kind, answer))
    assert len(found) == len(differences), found
    for text, start in zip(found, differences, strict=True):
        assert text.startswith(start)


def test_a_reset_during_a_download_lets_it_go_on(tmp_path: Path) -> None:
    size = 12_000_000
    folder = tmp_path / "rec"
    with serving_file(tmp_path, size) as real, recording(folder, real) as mock:
        url = path_of(finished(mock)["unsigned_urls"][0])
        with connect(mock) as sock:
            sock.sendall(head_of(f"GET {url} HTTP/1.1", "Connection: close"))
            got = len(sock.recv(1000))
            mock.reset()
            assert mock.requests() == []
            while part := sock.recv(1 << 20):
                got += len(part)
        assert size < got < size + 100_000
        assert eventually(lambda: files(folder) == ["#-0.mp4", "recorded.json"])


def test_a_stop_during_a_download_leaves_nothing_half(tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    with serving_file(tmp_path, 60_000_000) as real, recording(folder, real) as mock:
        url = path_of(finished(mock)["unsigned_urls"][0])
        with connect(mock) as sock:
            sock.sendall(head_of(f"GET {url} HTTP/1.1"))
            assert sock.recv(1000)
            mock.stop()
        assert eventually(lambda: files(folder) == ["recorded.json"])


def test_a_large_clip_streams_through(tmp_path: Path) -> None:
    size = 30_000_000
    folder = tmp_path / "rec"
    with contextlib.ExitStack() as stack:
        # In another process, whose memory does not count here.
        real = running("--port", "0", "-f", str(large_clip(tmp_path, size)))
        _, origin = stack.enter_context(real)
        mock = stack.enter_context(
            MockServer(record=str(folder), upstream=f"{origin}/api/v1")
        )
        url = path_of(finished(mock)["unsigned_urls"][0])
        with memory_traced() as traced, connect(mock) as sock:
            sock.sendall(head_of(f"GET {url} HTTP/1.1", "Connection: close"))
            got = 0
            while part := sock.recv(1 << 16):
                got += len(part)
            assert traced()[1] < 6_000_000
        assert size < got < size + 100_000
        assert eventually(lambda: files(folder) == ["#-0.mp4", "recorded.json"])
    (fixture,) = kept(folder)
    assert (folder / fixture["response"]["video"]["file"]).stat().st_size == size


def test_a_recording_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving() as real:
        for prompt in ("first", "second", "first"):
            with recording(tmp_path, real) as mock:
                finished(mock, prompt)
    prompts = [fixture["match"]["prompt"]["equals"] for fixture in kept(tmp_path)]
    assert prompts == ["first", "second"]


def test_the_command_says_where_real_money_is_spent(tmp_path: Path) -> None:
    arguments = ["--port", "0", "--record", str(tmp_path)]
    with serving() as real:
        with running(*arguments, "--upstream", real.url) as (started, origin):
            job_id = submit(origin, "a cat")
            assert real.job(job_id)["status"] == "pending"
            started.terminate()
            out, err = started.communicate(timeout=PATIENCE)
        first = err.splitlines()[0]
        assert out == "" and first.endswith("; the upstream checks models")
        assert first.startswith("recording: ") and "real money" in first
        assert real.url in first


def test_the_upstream_is_the_real_api_unless_another_is_named() -> None:
    assert Config().upstream == "https://openrouter.ai/api/v1"
    with pytest.raises(SetupError, match="upstream: expected an http or https URL"):
        MockServer(record="x", upstream="openrouter.ai")


# ============ Findings

WAITING = ("pending", "in_progress")
Client = Callable[[MockServer], object]  # does to a mock what a client might do
STILL = {
    "models": [{"id": "a/still", "seed": False, "generate_audio": False}],
    "fixtures": [{"match": {}}],
}  # a fixture document whose one model makes clips without seed and sound


def after(fault: dict[str, Any], *calls: Client) -> Client:
    """These calls to a mock in which something goes wrong once, unless it says how often."""

    def client(mock: MockServer) -> None:
        mock.add_fault({"times": 1, **fault})
        for each in calls:
            each(mock)

    return client


def calls(*steps: Client) -> Client:
    return lambda mock: [step(mock) for step in steps]


def unanswered(step: Client) -> Client:
    """The same, by a client that gets no answer or half of one, and goes on."""

    def client(mock: MockServer) -> None:
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            step(mock)

    return client


def posted(body: Any = VEO, **headers: Any) -> Client:
    return lambda mock: post(mock, body, **headers)


def begun(prompt: str = "a cat", **fields: Any) -> Client:
    return lambda mock: submit(mock, prompt, **fields)


def ended(prompt: str = "a cat", **fields: Any) -> Client:
    return lambda mock: finished(mock, prompt, **fields)


def moved(seconds: float) -> Client:
    return lambda mock: mock.advance(seconds)


def listed(mock: MockServer) -> Reply:
    return get(mock, f"{API}/videos/models")


def polled(mock: MockServer) -> Reply:
    return get(mock, f"{API}/videos/{mock.job()['id']}")


def headed(mock: MockServer) -> Reply:
    return call(mock, "HEAD", f"{API}/videos/{mock.job()['id']}")


def fetched(mock: MockServer) -> Reply:
    return get(mock, f"{API}/videos/{mock.job()['id']}/content")


def fetched_second(mock: MockServer) -> Reply:
    return get(mock, f"{API}/videos/{mock.job()['id']}/content?index=1")


def fetched_without_key(mock: MockServer) -> Reply:
    return get(mock, f"{API}/videos/{mock.job()['id']}/content", key=None)


def fetched_signed(key: str | None) -> Client:
    return lambda mock: get(mock, polled(mock).json["urls"][0], key=key)


broken = unanswered(fetched)
lost = unanswered(posted(veo(prompt="mock:lost-response")))
TRUNCATED = {"on": "content", "truncate": 2000}
STALLED = {"on": "content", "stall": 2000}
BUSY, GONE = {"on": "poll", "status": 503}, {"on": "poll", "close": True}
LIMITED = {"on": "submit", "status": 429, "retryAfter": 30}
REFERENCES = [{"type": "image_url", "image_url": {"url": "https://x.test/b.png"}}]


def form(mock: MockServer) -> Reply:
    kind = "multipart/form-data; boundary=x"
    return post(mock, b"--x\r\n\r\na cat\r\n--x--\r\n", Content_Type=kind)


def hung_up(mock: MockServer) -> None:
    """A download that stalls, from which the client goes away."""
    path = f"{API}/videos/{mock.job()['id']}/content"
    with connect(mock) as sock:
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test\r\n\r\n"
        sock.sendall(head.encode())
        assert sock.recv(12) == b"HTTP/1.1 200"


def timed_out(mock: MockServer) -> None:
    """A submit from which the client goes away before there is an answer."""
    with connect(mock) as sock:
        sock.sendall(head_of(POST, f"Content-Length: {len(BODY)}") + BODY)


@pytest.mark.parametrize(
    ("rule", "level", "client", "requests", "words"),
    [
        (
            "ignored-field",
            "error",
            begun(image_url="https://x.test/a.png"),
            [1],
            '"image_url" is no field .* dropped silently, .*; use "frame_images"',
        ),
        ("paid-twice", "error", calls(lost, lost), [1, 2], "two jobs, both charged"),
        (
            "key-sent-elsewhere",
            "error",
            calls(ended("mock:elsewhere"), fetched_signed("test")),
            [5],
            "key was sent with a signed URL, which needs none",
        ),
        (
            "download-without-key",
            "error",
            calls(ended(), fetched_without_key),
            [4],
            "without the key .401.: unsigned_urls need it",
        ),
        (
            "broken-download-kept",
            "error",
            calls(ended("mock:truncated"), broken),
            [4],
            "not a whole clip, and not tried again: check length and type",
        ),
        (
            "broken-download-kept",
            "error",
            calls(ended("mock:stalled"), hung_up),
            [4],
            "not a whole clip",
        ),
        (
            "broken-download-kept",
            "error",
            calls(ended("mock:empty-clip"), fetched),
            [4],
            "not a whole clip",
        ),
        (
            "broken-download-kept",
            "error",
            calls(ended("mock:not-a-clip"), fetched),
            [4],
            "not a whole clip",
        ),
        (
            "broken-download-kept",
            "error",
            after({"on": "content", "malformed": True}, ended(), fetched),
            [4],
            "not a whole clip",
        ),
        (
            "broken-download-kept",
            "error",
            after(TRUNCATED, ended("mock:two-videos"), broken, fetched_second),
            [4],
            "not a whole clip",
        ),
        (
            "polled-after-end",
            "warning",
            calls(ended(), polled, polled),
            [4, 5],
            "2 polls after .* is completed: it never changes any more",
        ),
        (
            "polled-after-end",
            "warning",
            calls(ended("mock:failed"), polled, polled, polled),
            [4, 5, 6],
            "3 polls after .* is failed",
        ),
        (
            "abandoned",
            "error",
            after(BUSY, begun(), polled),
            [2],
            "poll that got 503: the job goes on and is paid; keep polling",
        ),
        (
            "abandoned",
            "error",
            after({**BUSY, "status": 429}, begun(), polled),
            [2],
            "poll that got 429",
        ),
        (
            "abandoned",
            "error",
            after(GONE, begun(), unanswered(polled)),
            [2],
            "poll that got no answer",
        ),
        (
            "abandoned",
            "error",
            calls(begun(), polled, moved(3600)),
            [2],
            "Last asked for 3600 s ago, its end was never seen",
        ),
        ("abandoned", "error", calls(begun(), moved(60)), [1], "60 s ago"),
        ("abandoned", "error", calls(begun(), polled, headed), [2], "its end was never"),
        (
            "never-downloaded",
            "note",
            ended(),
            [3],
            "Completed, and no output was downloaded",
        ),
        (
            "retry-after-ignored",
            "warning",
            after(LIMITED, posted(), moved(10), posted()),
            [1, 2],
            r"after 10\.0 s although Retry-After said 30 s: .* wait as long",
        ),
        (
            "retry-after-ignored",
            "warning",
            after({**LIMITED, "on": "poll"}, begun(), polled, moved(1), polled),
            [2, 3],
            r"after 1\.0 s although Retry-After said 30 s",
        ),
        (
            "refusal-retried",
            "warning",
            calls(posted(veo(duration=500)), posted(veo(duration=500))),
            [1, 2],
            "again after a 400, which it will get again: show .*500",
        ),
        *(
            (
                "refusal-retried",
                "warning",
                after({"on": "submit", "status": status, "times": 2}, posted(), posted()),
                [1, 2],
                f"again after a {status}",
            )
            for status in (401, 402, 403, 413)
        ),
        (
            "downloaded-too-early",
            "warning",
            calls(begun(), fetched),
            [2],
            "before the job completed .409.: poll until status completed",
        ),
        (
            "references-dropped",
            "warning",
            begun(frame_images=IMAGE, input_references=REFERENCES),
            [1],
            "frame_images win: the input_references .* not used",
        ),
        (
            "size-conflict",
            "warning",
            begun(size="1280x720", aspect_ratio="9:16"),
            [1],
            "size 1280x720 wins over",
        ),
        (
            "size-conflict",
            "warning",
            begun(size="1280x720", resolution="1080p"),
            [1],
            "size 1280x720 wins over",
        ),
        (
            "unsupported-by-model",
            "warning",
            begun(model="runway/gen-4.5", generate_audio=True),
            [1],
            "runway/gen-4.5 does not support generate_audio: it has no effect",
        ),
        (
            "unknown-option",
            "warning",
            begun(provider={"options": {"google-vertex": {"negative_prompt": "dogs"}}}),
            [1],
            "provider.options.google-vertex.negative_prompt is dropped: .*negativePrompt",
        ),
        ("not-json", "warning", form, [1], "came as multipart/form-data: .* takes JSON"),
        (
            "wrong-address",
            "error",
            lambda mock: call(mock, "POST", "/v1/videos", VEO),
            [1],
            "POST /v1/videos is no address .* POST /api/v1/videos",
        ),
    ],
)
def test_what_a_client_does_wrong_is_found(
    mock: MockServer,
    rule: str,
    level: str,
    client: Client,
    requests: list[int],
    words: str,
) -> None:
    client(mock)
    assert over(mock)
    (finding,) = mock.findings(rule=rule)
    assert " ".join(finding) == "rule level text job_id requests scope so_far age"
    assert re.search(words, finding["text"]), finding["text"]
    job_id = mock.job()["id"] if mock.jobs() else None
    scope = "key-" + hashlib.sha256(b"test").hexdigest()[:8]
    if rule == "download-without-key":
        scope = finding["scope"]
    assert finding == {
        "rule": rule,
        "level": level,
        "text": finding["text"],
        "job_id": None if rule == "refusal-retried" else job_id,
        "requests": tuple(requests),
        "scope": scope,
        "so_far": rule in ("broken-download-kept", "abandoned", "never-downloaded"),
        "age": finding["age"],
    }
    (told,) = get(mock, f"/__mock/findings?rule={rule}").json["findings"]
    assert told["age"] >= finding["age"] >= 0
    assert {**told, "age": finding["age"]} == {**finding, "requests": requests}


@pytest.mark.parametrize(
    ("rule", "client"),
    [
        (
            "ignored-field",
            begun(
                duration=4,
                resolution="720p",
                aspect_ratio="16:9",
                seed=1,
                generate_audio=False,
                frame_images=IMAGE,
                session_id="s",
                user="u",
                trace={"trace_id": "t"},
                provider={"options": {}},
            ),
        ),
        ("ignored-field", lambda mock: call(mock, "POST", "/__mock/faults", {"n": 1})),
        ("paid-twice", calls(lost, posted())),
        ("paid-twice", calls(posted(), posted())),
        (
            "paid-twice",
            calls(
                lost,
                unanswered(posted(veo(prompt="mock:lost-response"), X_Test_Id="other")),
            ),
        ),
        ("paid-twice", after({"on": "submit", "status": 503}, posted(), posted())),
        ("paid-twice", after({"on": "submit", "close": True}, lost, posted())),
        ("key-sent-elsewhere", calls(ended("mock:elsewhere"), fetched_signed(None))),
        ("key-sent-elsewhere", calls(ended(), fetched)),
        ("download-without-key", calls(ended(), fetched)),
        ("download-without-key", calls(ended(), fetched_signed(None))),
        ("broken-download-kept", after(TRUNCATED, ended(), broken, fetched)),
        ("broken-download-kept", after(STALLED, ended(), hung_up, fetched)),
        ("broken-download-kept", calls(ended("mock:truncated"), broken, broken)),
        ("broken-download-kept", calls(ended(), fetched)),
        ("abandoned", calls(begun(), moved(60), fetched)),
        ("not-json", posted(b"  {", Content_Type="application/x-www-form-urlencoded")),
        ("broken-download-kept", after({"on": "content", "status": 503}, ended(), fetched)),
        (
            "broken-download-kept",
            after({"on": "content", "delay": 0.002001}, ended(), fetched),
        ),
        (
            "broken-download-kept",
            after({**TRUNCATED, "truncate": 10**9}, ended(), fetched),
        ),
        ("polled-after-end", calls(ended(), polled)),
        ("polled-after-end", calls(ended("mock:failed"), polled)),
        ("polled-after-end", calls(ended(), headed, headed, headed)),
        ("polled-after-end", calls(begun("mock:stuck"), *[polled] * 5)),
        ("abandoned", after(BUSY, begun(), polled, polled, polled)),
        ("abandoned", begun(callback_url="http://127.0.0.1:9/")),
        ("abandoned", calls(begun("mock:failed"), polled, polled)),
        ("abandoned", lost),
        ("abandoned", after({"on": "submit", "status": 503}, posted())),
        ("never-downloaded", ended("mock:failed")),
        ("never-downloaded", ended("mock:no-urls")),
        ("never-downloaded", calls(ended(), fetched)),
        ("never-downloaded", calls(begun(), moved(3600))),
        ("retry-after-ignored", after(LIMITED, posted(), moved(30), posted())),
        ("retry-after-ignored", after(LIMITED, posted(), posted(X_Test_Id="other"))),
        ("retry-after-ignored", after(LIMITED, posted(), listed)),
        ("retry-after-ignored", after(BUSY, begun(), polled, polled)),
        (
            "refusal-retried",
            after({"on": "submit", "status": 402}, posted(), posted(veo(prompt="a dog"))),
        ),
        ("refusal-retried", after({"on": "submit", "status": 503}, posted(), posted())),
        ("refusal-retried", after({"on": "submit", "status": 429}, posted(), posted())),
        ("refusal-retried", calls(posted(key=None), posted())),
        (
            "refusal-retried",
            after({"on": "submit", "status": 402}, posted(), posted(X_Test_Id="other")),
        ),
        ("refusal-retried", after({"on": "submit", "status": 402}, posted(), posted())),
        ("downloaded-too-early", calls(ended(), fetched)),
        ("downloaded-too-early", calls(ended("mock:failed"), fetched)),
        ("downloaded-too-early", after({"on": "content", "status": 409}, ended(), fetched)),
        (
            "download-without-key",
            after({"on": "content", "status": 401}, ended(), fetched_signed(None)),
        ),
        ("key-sent-elsewhere", lambda mock: get(mock, f"{API}/videos/models?signature=x")),
        ("references-dropped", begun(frame_images=IMAGE)),
        ("references-dropped", begun(input_references=REFERENCES)),
        ("references-dropped", begun(frame_images=IMAGE, input_references=[])),
        ("size-conflict", begun(size="1280x720")),
        ("size-conflict", begun(size="1280x720", resolution="720p", aspect_ratio="16:9")),
        ("size-conflict", begun(resolution="720p", aspect_ratio="9:16")),
        ("unsupported-by-model", begun(seed=1, generate_audio=True)),
        ("unsupported-by-model", begun(model="runway/gen-4.5", generate_audio=False)),
        ("unsupported-by-model", begun(model=GROK, seed=1)),
        (
            "unknown-option",
            begun(provider={"options": {"google-vertex": {"negativePrompt": "dogs"}}}),
        ),
        ("unknown-option", begun(provider={"options": {"google-vertex": {}}})),
        ("unknown-option", begun(provider={})),
        ("not-json", posted(b"{", Content_Type="application/json")),
        ("not-json", posted(BODY, Content_Type="application/x-www-form-urlencoded")),
        ("wrong-address", lambda mock: get(mock, f"{API}/videos/gen-vid-1-none")),
        ("wrong-address", lambda mock: get(mock, "/favicon.ico")),
        ("wrong-address", calls(ended(), fetched)),
        ("journal-forgot", calls(ended(), fetched)),
        ("differs-from-mock", calls(ended(), fetched)),
    ],
)
def test_what_a_careful_client_does_is_not_found(
    mock: MockServer, rule: str, client: Client
) -> None:
    client(mock)
    assert over(mock)
    assert mock.findings(rule=rule) == []


@pytest.mark.parametrize("prompt", ["a cat", "mock:failed", "mock:flaky", "mock:slow"])
def test_a_careful_client_has_no_findings(mock: MockServer, prompt: str) -> None:
    submit(mock, prompt, seed=1, resolution="720p")
    while (reply := polled(mock)).status == 503 or reply.json["status"] in WAITING:
        mock.advance(5)
    wire = reply.json
    if wire["status"] == "completed":
        assert content(mock, wire)[4:8] == b"ftyp"
    get(mock, f"{API}/videos/models")
    get(mock, f"{API}/credits")
    assert over(mock)
    assert mock.findings() == []
    mock.assert_no_findings()
    assert get(mock, "/__mock/findings").json == {"findings": []}


def test_each_usual_mistake_in_a_field_names_its_cure(mock: MockServer) -> None:
    cures = {
        "image": "frame_images",
        "last_frame": "frame_images",
        "images": "input_references",
        "audio_ref": "input_references",
        "seconds": "duration",
        "aspectRatio": "aspect_ratio",
        "generateAudio": "generate_audio",
        "width": "size",
        "webhook_url": "callback_url",
        "negative_prompt": "provider.options",
        "resolutoin": "resolution",
        "duratoin": "duration",
        "call_back_url": "callback_url",
    }
    fields: dict[str, Any] = dict.fromkeys([*cures, "n", "fps", "zzz"], 1)
    submit(mock, **fields)
    texts = [finding["text"] for finding in mock.findings(rule="ignored-field")]
    assert len(texts) == len(cures) + 3
    for text, (field, cure) in zip(texts, cures.items(), strict=False):
        assert text.startswith(f'"{field}" is no field') and text.endswith(f'use "{cure}"')
    for text in texts[-3:]:
        assert text.endswith("leave it out, there is no such thing here")


def test_a_field_is_found_beside_a_large_image(mock: MockServer) -> None:
    url = "data:image/png;base64," + "A" * 200_000
    image = {**FIRST_FRAME, "image_url": {"url": url}}
    submit(mock, frame_images=[image], input_references=REFERENCES, fps=30)
    rules = [finding["rule"] for finding in mock.findings(level="error")]
    assert rules[:1] == ["ignored-field"]
    assert mock.findings(rule="references-dropped")


def test_a_submit_from_which_the_client_went_away_and_the_next_are_paid_twice(
    mock: MockServer,
) -> None:
    mock.add_fault({"on": "submit", "delay": 0.2, "times": 1})
    timed_out(mock)
    mock.wait_for_request(path="/videos", timeout=PATIENCE)
    assert over(mock)
    assert post(mock, key="k").status == 202
    (finding,) = mock.findings(rule="paid-twice")
    assert finding["requests"] == (1, 2)


def test_a_download_that_is_still_running_is_not_judged(mock: MockServer) -> None:
    wire = finished(mock, "mock:stalled")
    with connect(mock) as sock:
        sock.sendall(head_of(f"GET {path_of(wire['unsigned_urls'][0])} HTTP/1.1"))
        assert sock.recv(12) == b"HTTP/1.1 200"
        assert mock.findings() == []
    assert eventually(lambda: mock.findings(rule="broken-download-kept"))


def test_a_seed_and_sound_are_found_where_the_models_list_has_none() -> None:
    with MockServer(fixtures=STILL) as mock:
        submit(mock, model="a/still", seed=5, generate_audio=True)
        found = [finding["text"] for finding in mock.findings(rule="unsupported-by-model")]
        assert [text.partition(":")[0] for text in found] == [
            "a/still does not support seed",
            "a/still does not support generate_audio",
        ]
        mock.reset()
        submit(mock, model="a/still", generate_audio=False)
        assert mock.findings(rule="unsupported-by-model") == []
        submit(mock, model="a/still", seed=0)
        assert len(mock.findings(rule="unsupported-by-model")) == 1


def test_a_webhook_that_nobody_accepts_is_found_once_it_was_given_up() -> None:
    with Receiver(*[500] * 5) as receiver, serving() as mock:
        job_id = submit(mock, callback_url=receiver.url)
        mock.advance(1)
        assert tried(mock, 1)
        assert mock.findings(rule="webhook-unanswered") == []
        deliveries(mock)
        (finding,) = mock.findings(rule="webhook-unanswered")
        assert (finding["level"], finding["job_id"]) == ("warning", job_id)
        assert finding["requests"] == (1,)
        assert f"{job_id} was not accepted in 5 attempts: answer 2xx" in finding["text"]


def test_a_webhook_that_is_accepted_at_last_is_no_finding() -> None:
    with Receiver(500, 500) as receiver, serving() as mock:
        submit(mock, callback_url=receiver.url)
        deliveries(mock)
        assert mock.findings() == []


@pytest.mark.parametrize(
    ("rule", "fault", "body"),
    [
        ("paid-twice", {"lost": True, "times": 1}, VEO),
        ("refusal-retried", {"delay": 0.2}, veo(model="a/b")),
        ("retry-after-ignored", {"status": 429, "retryAfter": 5}, VEO),
    ],
)
def test_what_was_sent_before_the_answer_came_is_no_repetition(
    rule: str, fault: dict[str, Any], body: Any
) -> None:
    step = unanswered(posted(body))
    with MockServer(fixtures=[], latency=0.3, fault={"on": "submit", **fault}) as mock:
        in_parallel(2, lambda _: step(mock))
        assert mock.findings(rule=rule) == []
        # Which of the two was lost, the journal's order leaves open.
        if rule != "paid-twice":
            step(mock)
            assert mock.findings(rule=rule)


def test_polls_in_flight_are_no_polls_after_the_end() -> None:
    with MockServer(fixtures=[], latency=0.2, polls=(0, 0)) as mock:
        submit(mock)
        in_parallel(4, lambda _: polled(mock))
        assert mock.findings(rule="polled-after-end") == []


def test_clips_that_are_elsewhere_may_have_been_downloaded() -> None:
    video = {"unsigned_urls": ["https://cdn.example.com/a.mp4"], "stored": False}
    with serving({"match": {}, "response": {"video": video}}) as mock:
        finished(mock)
        assert over(mock)
        assert mock.findings() == []


def test_who_was_told_an_end_by_a_fault_did_not_abandon() -> None:
    told = {"id": "x", "polling_url": "y", "status": "failed", "error": "no"}
    with MockServer(fixtures=[], fault={"on": "poll", "body": told}) as mock:
        submit(mock)
        polled(mock)
        assert over(mock)
        assert mock.findings() == []


def test_a_broken_download_after_a_refused_one_is_kept_too(mock: MockServer) -> None:
    finished(mock)
    mock.add_fault([{"on": "content", "status": 503, "times": 1}, TRUNCATED])
    fetched(mock)
    broken(mock)
    assert over(mock)
    assert [finding["rule"] for finding in mock.findings()] == ["broken-download-kept"]


def test_what_the_journal_has_forgotten_is_said() -> None:
    with MockServer(fixtures=[], max_requests=3) as mock:
        finished(mock)
        assert mock.findings(rule="journal-forgot") == []
        polled(mock)
        polled(mock)
        (finding,) = mock.findings(rule="journal-forgot")
        assert (finding["level"], finding["requests"]) == ("note", ())
        assert "has forgotten 2 requests" in finding["text"]
        assert "--max-requests" in finding["text"]
    with MockServer(fixtures=[], max_requests=0) as mock:
        finished(mock)
        (finding,) = mock.findings()
        assert finding["rule"] == "journal-forgot"


def test_findings_come_in_the_order_of_the_requests_and_can_be_filtered(
    mock: MockServer,
) -> None:
    first = post(mock, veo(fps=30), X_Test_Id="mine").json["id"]
    second = finished(mock, "mock:failed", seconds=5)["id"]
    get(mock, f"{API}/videos/{first}/content")
    assert over(mock)

    def found(query: str = "") -> list[str]:
        reply = get(mock, f"/__mock/findings?{query}")
        return [finding["rule"] for finding in reply.json["findings"]]

    rules = ["ignored-field", "abandoned", "ignored-field", "downloaded-too-early"]
    assert found() == rules
    assert found("level=warning") == rules[3:]
    assert found("scope=mine") == [rules[0], rules[1], rules[3]]
    assert found("rule=ignored-field&level=error") == [rules[0], rules[2]]
    assert found(f"job_id={second}") == rules[2:3]
    assert found("job_id=latest") == rules[2:3]
    assert found("rule=polled-after-end") == found("scope=nobody") == []
    for wrong in ("level=bad", "rul=abandoned"):
        assert get(mock, f"/__mock/findings?{wrong}").status == 400
    assert [finding["rule"] for finding in mock.findings(job_id="latest")] == rules[2:3]


def test_a_finding_is_for_a_test_to_assert_on(mock: MockServer) -> None:
    submit(mock, fps=30)
    assert over(mock)
    with pytest.raises(AssertionError) as caught:
        mock.assert_no_findings()
    first, *lines = str(caught.value).splitlines()
    assert first == "the client has findings:" and len(lines) == 2
    assert lines[0].startswith('error ignored-field: "fps" is no field of this API')
    assert lines[1].startswith("error abandoned: ")
    assert all(line.endswith(" (requests 1)") for line in lines)
    with pytest.raises(AssertionError, match="abandoned"):
        mock.assert_no_findings(ignore=["ignored-field"])
    mock.assert_no_findings(ignore=("ignored-field", "abandoned"))
    mock.reset()
    mock.assert_no_findings()


def test_what_one_request_shows_is_logged_with_it(mock: MockServer) -> None:
    lines = lines_of(mock)
    post(mock, veo(image="\x1b[2J", **{"\x1b[2J": 1}))
    fetched(mock)
    assert [line.strip()[:20] for line in lines if "!" in line] == [
        '! ignored-field: "im',
        r'! ignored-field: "\x',
        "! downloaded-too-ear",
    ]
    assert lines[1].startswith('         ! ignored-field: "image" is no field')
    assert all(line.isprintable() for line in lines)


def test_the_command_ends_with_a_line_for_each_rule() -> None:
    with running("--port", "0") as (started, origin):
        for _ in range(3):
            submit(origin, fps=30)
        refused = call(origin, "POST", "/videos", VEO)
        assert refused.status == 404
        started.terminate()
        _, err = started.communicate(timeout=PATIENCE)
    assert len(re.findall("(?m)^ +! ignored-field: ", err)) == 3
    summary = [line for line in err.splitlines() if re.match(r"\d+ x ", line)]
    assert [re.sub(":.*", "", line) for line in summary] == [
        "3 x error ignored-field",
        "3 x error abandoned",
        "1 x error wrong-address",
    ]
    assert summary == err.splitlines()[-3:]


def test_a_quiet_command_keeps_its_findings_to_itself() -> None:
    with running("--port", "0", "-q") as (started, origin):
        submit(origin, fps=30)
        assert get(origin, "/__mock/findings").json["findings"]
        started.terminate()
        _, err = started.communicate(timeout=PATIENCE)
    assert err == "30 models checked (fixtures.json)\n"


def test_findings_can_be_looked_at_while_requests_come(mock: MockServer) -> None:
    def client(number: int) -> None:
        for _ in range(20):
            if number:
                finished(mock, fps=30)
            else:
                mock.findings()

    in_parallel(5, client)
    assert over(mock)
    assert len(mock.findings(rule="ignored-field")) == 80
    assert len(mock.findings(rule="never-downloaded")) == 80


def test_every_rule_says_what_it_is() -> None:
    said = {}
    for level in ("error", "warning", "note"):
        (line,) = re.findall(rf"(?m)^- \*\*{level}\*\*: (.*)$", README)
        said.update(dict.fromkeys(re.findall(r"`([a-z]+-?[a-z-]+)`", line), level))
    assert {rule: said.get(rule) for rule in ovm.RULES} == ovm.RULES


def test_no_finding_shows_a_key() -> None:
    with serving(api_key="sk-right") as mock:
        lines = lines_of(mock)
        call(mock, "POST", "/v1/videos", VEO, key="sk-wrong")
        for _ in range(2):
            post(mock, key="sk-wrong")
            post(mock, veo(prompt="mock:no-credits"), key="sk-right", fps="sk")
        job_id = post(mock, veo(image=1), key="sk-right").json["id"]
        for _ in range(2):
            wire = get(mock, f"{API}/videos/{job_id}", key="sk-right").json
        get(mock, wire["urls"][0], key="sk-right")
        assert over(mock)
        found = mock.findings()
        assert len({finding["rule"] for finding in found}) >= 4
        with pytest.raises(AssertionError) as caught:
            mock.assert_no_findings()
        for text in (json.dumps(found), str(caught.value), "\n".join(lines)):
            assert "sk-" not in text


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "text",
        veo(provider={"options": {"x": None}}),
        veo(provider=None, frame_images=None, size=7),
        veo(size="0x0", resolution="720p"),
        veo(size="99999999999999999999x1", aspect_ratio="9:16"),
        {**VEO, "": 1, "x" * 5000: 1},
        {**VEO, **{f"key{i}": i for i in range(500)}},
        veo(provider={"options": {"x": {f"key{i}": "y" * 16_000 for i in range(9)}}}),
    ],
)
def test_looking_for_findings_survives_any_body(mock: MockServer, body: Any) -> None:
    lines_of(mock)
    assert post(mock, body).status in (202, 400)
    assert get(mock, "/__mock/findings").status == 200
    assert not mock.errors


# ============ Trial

PATIENT = """
import http.client, json, os, sys, time
host = os.environ["OPENROUTER_VIDEO_MOCK"].removeprefix("http://")
def ask(method, path, body=None, once=False):
    while True:
        connection = http.client.HTTPConnection(host, timeout=20)
        key = {"Authorization": "Bearer " + os.environ["OPENROUTER_API_KEY"]}
        try:
            connection.request(method, "/api/v1/videos" + path, body, key)
            reply = connection.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException):
            if once:
                sys.exit("the answer was lost")
            continue
        if reply.status not in (429, 503):
            return reply, data
        time.sleep(float(reply.headers.get("Retry-After", 0.02)))
reply, data = ask("POST", "", json.dumps({"model": "x/y", "prompt": "a cat"}), once=True)
wire = json.loads(data)
while wire.get("status") in ("pending", "in_progress"):
    time.sleep(0.05)
    wire = json.loads(ask("GET", "/" + wire["id"])[1])
if not wire.get("unsigned_urls"):
    sys.exit("no clip: " + json.dumps(wire))
reply, data = ask("GET", "/" + wire["id"] + "/content")
sys.exit(not data[4:8] == b"ftyp")
"""  # a client that does all that can be done
HASTY = """
import http.client, json, os, sys
host = os.environ["OPENROUTER_VIDEO_MOCK"].removeprefix("http://")
def ask(method, path, body=None):
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request(method, "/api/v1/videos" + path, body, {"Authorization": "Bearer k"})
    reply = connection.getresponse()
    return reply.status, reply.read()
wire = {"id": "", "status": "pending"}
status, data = ask("POST", "", json.dumps({"model": "x/y", "prompt": "a cat"}))
while status < 300 and (wire := json.loads(data))["status"] in ("pending", "in_progress"):
    status, data = ask("GET", "/" + wire["id"])
if status > 299 or wire["status"] != "completed":
    sys.exit(1)
open(os.devnull, "wb").write(ask("GET", "/" + wire["id"] + "/content")[1])
"""  # a client that gives up at the first thing that is not as expected, and never looks
LYING = """
import http.client, os
from urllib.parse import urlsplit
url = urlsplit(os.environ["OPENROUTER_BASE_URL"])
connection = http.client.HTTPConnection(url.netloc)
connection.request("GET", url.path + "/videos/models")
connection.getresponse()
"""


class Judged(NamedTuple):
    done: Done
    rows: dict[str, dict[str, Any]]  # by trial

    @property
    def reasons(self) -> dict[str, str]:
        return {name: row["reason"] for name, row in self.rows.items()}

    @property
    def failed(self) -> set[str]:
        return {name for name, row in self.rows.items() if not row["passed"]}


def judged(
    folder: Path, client: str, *only: str, flags: Sequence[str] = (), words: Any = ()
) -> Judged:
    """What the trials say of a client in Python, which gets these words as arguments."""
    script, report = write(folder / "client.py", client), folder / "report.json"
    chosen = [f"--trial-only={name}" for name in only]
    arguments = ["--trial", "--trial-jobs=24", f"--report={report}", *chosen, *flags]
    done = command(*arguments, "--", sys.executable, "-I", "-S", str(script), *words)
    assert report.exists(), done
    rows = json.loads(report.read_text(encoding="utf-8"))
    return Judged(done, {row["trial"]: row for row in rows})


def download(mock: MockServer) -> bool:
    """Whether a client that does what is right got its clip from a trial."""
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        reply = post(mock)
        while reply.status in (429, 503):
            mock.advance(float(reply.headers.get("Retry-After", 1)))
            reply = post(mock)
        wire = reply.json
        while wire.get("status") in WAITING:
            mock.advance(1)
            with contextlib.suppress(ConnectionError):
                reply = get(mock, f"{API}/videos/{wire['id']}")
                wire = reply.json if reply.status == 200 else wire
            if mock.config.trial == "never-ends" and reply.status == 200:
                return False
        while wire.get("unsigned_urls"):
            with contextlib.suppress(http.client.HTTPException):
                clip = content(mock, wire)
                return clip[4:8] == b"ftyp"
    return False


def test_a_patient_client_passes_every_trial_that_ends(tmp_path: Path) -> None:
    names = [name for name in ovm.TRIALS if name != "never-ends"]
    patient, rows = judged(tmp_path, PATIENT, *names)
    assert patient.status == 0, patient.out
    lines = patient.out.splitlines()
    verdicts = [line.split()[:2] for line in lines[: len(names)]]
    assert verdicts == [["passed", name] for name in names]
    assert lines[-2].startswith("note: x/y is not in the catalogue")
    assert lines[-1] == f"{len(names)} of {len(names)} passed"
    assert patient.err == "" and "\x1b" not in patient.out
    for name, row in rows.items():
        trial = ovm.TRIALS[name]
        assert row["delivered"] == trial.reachable == (row["exit"] == 0), row
        told = "clip delivered" if trial.reachable else "failure told as such"
        assert row["reason"] == told
        assert lines[names.index(name)].endswith(f"{trial.says}: {told}")
    assert rows["slow-start"]["seconds"] >= 4 and rows["download-stalled"]["seconds"] >= 5


def test_a_client_that_always_reports_success_fails_every_trial(tmp_path: Path) -> None:
    lying = judged(tmp_path, LYING)
    assert lying.done.status == 1 and list(lying.rows) == list(ovm.TRIALS)
    assert set(lying.reasons.values()) == {"success although no whole clip was delivered"}
    assert lying.failed == set(ovm.TRIALS)


def test_a_client_that_gives_up_and_never_looks_fails_where_it_should(
    tmp_path: Path,
) -> None:
    names = [
        *("in-progress", "poll-503", "poll-429", "poll-closed", "submit-503", "submit-429"),
        *("submit-lost", "download-cut", "empty-clip", "not-a-clip", "failed", "no-urls"),
        *("refused-402", "elsewhere", "two-outputs"),
    ]
    hasty = judged(tmp_path, HASTY, *names)
    reasons = hasty.reasons
    for name, start in {
        "in-progress": "clip delivered",
        "two-outputs": "clip delivered",
        "elsewhere": "clip delivered",
        "poll-503": "Given up after a poll that got 503",
        "poll-429": "Given up after a poll that got 429",
        "poll-closed": "Given up after a poll that got no answer",
        "submit-503": "gave up, although patience gets the clip",
        "submit-429": "gave up, although patience gets the clip",
        "submit-lost": "failure told as such",
        "download-cut": "The only download of this job was not a whole clip",
        "empty-clip": "success although no whole clip was delivered",
        "not-a-clip": "success although no whole clip was delivered",
        "failed": "failure told as such",
        "refused-402": "failure told as such",
    }.items():
        assert reasons.pop(name).startswith(start), (name, hasty.rows[name])
    assert set(reasons) == {"no-urls"}
    assert hasty.failed >= {"poll-503", "submit-503", "download-cut", "empty-clip"}
    assert hasty.done.out.splitlines()[-1].startswith(f"{15 - len(hasty.failed)} of 15 ")


def test_what_stands_in_arguments_and_environment_and_what_the_client_prints(
    tmp_path: Path,
) -> None:
    client = (
        "import json, os, sys, urllib.request\n"
        "urllib.request.urlopen(os.environ['OPENROUTER_BASE_URL'] + '/videos/models')\n"
        "print(json.dumps({**os.environ, 'words': sys.argv[1:]}))\n"
        "sys.exit('no\\x1b[2J')"
    )
    words = ["--base={url}/videos", "{key}", "--", "a {cat}"]
    done, rows = judged(tmp_path, client, "refused-401", words=words)
    assert done.status == 0 and rows["refused-401"]["exit"] == 1
    line, last = rows["refused-401"]["output"].splitlines()
    assert last == "no\x1b[2J"
    seen = json.loads(line)
    url, key = seen["OPENROUTER_BASE_URL"], seen["OPENROUTER_API_KEY"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/api/v1", url) and key
    assert (seen["OPENAI_BASE_URL"], seen["OPENAI_API_KEY"]) == (url, key)
    assert seen["OPENROUTER_VIDEO_MOCK"] == url.removesuffix(API)
    assert seen["words"] == [f"--base={url}/videos", key, "--", "a {cat}"]


def test_what_a_failing_client_printed_is_shown_at_its_end_and_harmless(
    tmp_path: Path,
) -> None:
    client = "print('\\n'.join(f'line {i}' for i in range(50)) + '\\x1b[2J')"
    done, _ = judged(tmp_path, client, "failed")
    shown = [line.strip() for line in done.out.splitlines() if "|" in line]
    assert shown == [f"| line {i}" for i in range(42, 49)] + [r"| line 49\x1b[2J"]


def test_what_keeps_a_trial_from_starting_is_one_line_and_exit_1(tmp_path: Path) -> None:
    bad = write(tmp_path / "f.json", {"fixtures": [{"match": {"promt": "x"}}]})
    place = f'{bad}: fixtures[0].match.promt: unknown key, did you mean "prompt"?\n'
    for arguments, line in (
        (
            ["--", "/nowhere/client"],
            "[Errno 2] No such file or directory: '/nowhere/client'\n",
        ),
        (["--", str(tmp_path)], f"[Errno 13] Permission denied: '{tmp_path}'\n"),
        (["-f", str(bad), "--", "true"], place),
    ):
        assert command("--trial", *arguments) == (1, "", line)


def test_a_report_of_trials_that_could_not_be_run_is_json(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["--trial", "--trial-only=failed", f"--report={report}", "--", "/no/such"]
    assert command(*arguments).status == 1
    assert json.loads(report.read_text(encoding="utf-8")) == []


def test_a_report_that_cannot_be_written_is_one_line_and_exit_1(tmp_path: Path) -> None:
    arguments = ["--trial", "--trial-only=failed", f"--report={tmp_path}", "--", "false"]
    done = command(*arguments)
    assert done == (1, "", f"[Errno 21] Is a directory: '{tmp_path}'\n")


def test_an_unknown_trial_is_wrong_usage() -> None:
    done = command("--trial", "--trial-only=poll-530", "--", "true")
    assert (done.status, done.out) == (2, "")
    assert re.search("--trial-only: .* one of .*poll-503.*, got 'poll-530'", done.err)
    for arguments in (["--trial"], ["--trial", "--trial-timeout=0", "--", "true"]):
        assert command(*arguments).status == 2
    with pytest.raises(SetupError, match="trial: .* one of .*failed.*, got 'faild'"):
        MockServer(trial="faild")


@contextlib.contextmanager
def childbed(seconds: int) -> Iterator[tuple[str, str, socket.socket]]:
    """A client that has a child and lives so long, its argument, and where the children call."""
    child = (
        "import socket, sys, time; s = socket.create_connection(('127.0.0.1', "
        "int(sys.argv[1]))); s.send(b'x'); print(flush=True); time.sleep(600)"
    )
    client = f"""
import subprocess, sys, time
words = [sys.executable, "-IS", "-c", {child!r}, sys.argv[1]]
subprocess.Popen(words, stdout=subprocess.PIPE).stdout.read(1)
print("waiting", flush=True)
time.sleep({seconds})
"""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield client, str(listening.getsockname()[1]), listening


def is_gone(child: socket.socket) -> bool:
    """That a child which called does not live any more; else TimeoutError."""
    with child:
        child.settimeout(PATIENCE)
        return read_to_the_end(child) in (b"", b"x")


def test_nothing_that_a_client_started_is_left_running(tmp_path: Path) -> None:
    with childbed(0) as (client, port, listening):
        done, _ = judged(tmp_path, client, "failed", words=[port])
        assert done.status == 1 and is_gone(listening.accept()[0])


def test_a_client_that_never_gives_up_is_stopped_which_is_no_fault_where_nothing_ends(
    tmp_path: Path,
) -> None:
    names = ("refused-400", "never-ends")
    with childbed(600) as (client, port, listening):
        flags = ["--trial-timeout", "0.4"]
        stopped = judged(tmp_path, client, *names, flags=flags, words=[port])
        listening.settimeout(0)
        with contextlib.suppress(BlockingIOError):  # on a busy machine none got so far
            for _ in names:
                assert is_gone(listening.accept()[0])
    assert stopped.done.status == 1 and stopped.failed == {"refused-400"}
    assert stopped.reasons == {
        "never-ends": "never gave up: stopped after 0.4 s",
        "refused-400": "still running after 0.4 s: stopped",
    }
    lines = [line.split()[:2] for line in stopped.done.out.splitlines()]
    assert [words for words in lines if words != ["|", "waiting"]] == [
        ["FAILED", "refused-400"],
        ["passed", "never-ends"],
        ["1", "of"],
    ]
    assert stopped.done.out.endswith("1 of 2 passed; failed: refused-400\n")
    assert {row["exit"] for row in stopped.rows.values()} == {None}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_trials_and_all_that_they_started(
    tmp_path: Path, number: signal.Signals
) -> None:
    with childbed(600) as (client, port, listening):
        script = str(write(tmp_path / "client.py", client))
        flags = ["--trial", "--trial-jobs=2", "--trial-only=failed", "--trial-only=expired"]
        words = ["-m", "openrouter_video_mock", *flags, "--", sys.executable, script, port]
        started = subprocess.Popen(
            [sys.executable, *words],
            cwd=installation().name,
            env=environment_with({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            calling = [listening.accept()[0] for _ in range(2)]
            started.send_signal(number)
            out, err = started.communicate(timeout=PATIENCE)
        finally:
            started.kill()
        assert (started.returncode, out, err) == (1, "", "")
        assert all(is_gone(child) for child in calling)


@pytest.mark.parametrize(
    "trial", [name for name in ovm.TRIALS if name not in ("download-stalled", "slow-start")]
)
def test_a_client_in_the_same_process_can_be_tried_as_well(trial: str) -> None:
    with MockServer(trial=trial) as mock:
        succeeded = download(mock)
        assert over(mock)
        verdict = mock.trial_verdict(succeeded)
        assert verdict["passed"] and verdict["delivered"] is succeeded
        assert succeeded is ovm.TRIALS[trial].reachable
        with pytest.raises(AssertionError, match=rf"^{trial}: (success|failure) although"):
            mock.trial_verdict(not succeeded)


def test_a_verdict_right_after_the_download_knows_of_it() -> None:
    with MockServer(trial="straight") as mock:
        for _ in range(50):
            mock.reset()
            assert mock.trial_verdict(download(mock))["delivered"]


def test_a_trial_takes_models_that_no_list_has_and_nothing_of_it_outlives_a_reset() -> None:
    with MockServer(trial="failed", fixtures=str(FIXTURES)) as mock:
        for _ in range(2):
            job_id = submit(mock, model="no/such-model")
            assert poll_to_the_end(mock, job_id)["status"] == "failed"
            assert mock.trial_verdict(False)["reason"] == "failure told as such"
            mock.reset()
        submit(mock)
        with pytest.raises(AssertionError, match="failed: success although no whole clip"):
            mock.trial_verdict(True)


def test_a_client_that_sends_nothing_fails_every_trial(tmp_path: Path) -> None:
    for client in ("raise SystemExit(1)", "pass"):
        names = ["straight", "failed", "refused-402", "failed"]
        silent = judged(tmp_path, client, *names)
        assert silent.done.status == 1 and silent.done.out.count("FAILED") == 3
        assert list(silent.rows) == names[:3]
        for reason in silent.reasons.values():
            assert reason == "no request arrived: does it use OPENROUTER_BASE_URL?"


def test_a_word_that_no_finding_or_request_has_is_refused(mock: MockServer) -> None:
    for ask, named in (
        (lambda: mock.findings(rule="abandond"), "findings.rule"),
        (lambda: mock.findings(level="errors"), "findings.level"),
        (lambda: mock.requests(status="4x"), "requests.status"),
        (lambda: mock.assert_no_findings(ignore=["abandond"]), "findings.rule"),
        (lambda: mock.assert_no_findings(ignore="abandoned"), "findings.rule"),
    ):
        with pytest.raises(SetupError, match=named):
            ask()


def test_a_try_under_another_name_is_paid_twice_too() -> None:
    fault = {"on": "submit", "lost": True, "times": 1}
    with MockServer(fixtures=[], fault=fault) as mock:
        unanswered(posted(veo(session_id="a", user="b")))(mock)
        post(mock, veo(session_id="c"))
        assert [finding["rule"] for finding in mock.findings(rule="paid-twice")]
        post(mock, veo(prompt="another"))
        assert len(mock.findings(rule="paid-twice")) == 1


def test_a_client_has_a_key_that_its_trials_take(tmp_path: Path) -> None:
    done, _ = judged(tmp_path, PATIENT, "straight", flags=["--api-key=right"])
    assert done.status == 0, done.out


def test_a_clip_that_came_as_a_range_is_a_whole_one_too() -> None:
    with MockServer(trial="straight") as mock:
        url = finished(mock)["urls"][0]
        size = int(get(mock, url, key=None, Range="bytes=0-").headers["Content-Length"])
        assert over(mock)
        assert mock.trial_verdict(True)["delivered"]
        mock.reset()
        url = finished(mock)["urls"][0]
        get(mock, url, key=None, Range=f"bytes=0-{size // 2}")
        assert over(mock)
        assert not ovm.verdict_of(mock, False)["delivered"]


def test_there_is_no_verdict_without_a_trial(mock: MockServer) -> None:
    with pytest.raises((ValueError, RuntimeError), match="trial"):
        mock.trial_verdict(True)


def test_a_verdict_shows_warnings_and_fails_for_errors() -> None:
    with MockServer(trial="in-progress") as mock:
        wire = finished(mock)
        for _ in range(2):
            poll(mock, wire["id"])
        content(mock, wire)
        assert over(mock)
        (said,) = mock.trial_verdict(True)["findings"]
        assert said.startswith("polled-after-end: 2 polls after")
        submit(mock, fps=30)
        with pytest.raises(AssertionError, match='^in-progress: "fps" is no field'):
            mock.trial_verdict(True)


def seen(rule: str, level: str = "error") -> dict[str, Any]:
    return {"rule": rule, "level": level, "text": f"text of {rule}"}


@pytest.mark.parametrize(
    ("trial", "succeeded", "delivered", "findings", "stopped", "passed", "reason"),
    [
        ("straight", True, True, [], 0, True, "clip delivered"),
        ("straight", True, False, [], 0, False, "success although no whole clip was"),
        ("straight", False, True, [], 0, False, "failure although a whole clip was"),
        ("straight", False, False, [], 0, False, "gave up, although patience gets the"),
        ("straight", False, False, [], 7, False, "still running after 7 s: stopped"),
        ("straight", False, True, [], 0.5, False, "still running after 0.5 s: stopped"),
        ("straight", True, True, [seen("abandoned")], 0, False, "text of abandoned"),
        ("straight", True, True, [seen("x", "warning")], 0, True, "clip delivered"),
        ("straight", True, False, [seen("abandoned")], 0, False, "success although"),
        ("failed", False, False, [], 0, True, "failure told as such"),
        ("failed", True, False, [], 0, False, "success although no whole clip was"),
        ("empty-clip", False, False, [seen("broken-download-kept")], 0, True, "failure"),
        ("empty-clip", False, False, [seen("paid-twice")], 0, False, "text of paid"),
        ("never-ends", False, False, [], 3, True, "never gave up: stopped after 3 s"),
        ("never-ends", False, False, [seen("abandoned")], 0, True, "failure told"),
        ("never-ends", True, False, [], 0, False, "success although no whole clip was"),
    ],
)
def test_a_verdict_rests_on_truth_reach_and_errors(
    monkeypatch: pytest.MonkeyPatch,
    trial: str,
    succeeded: bool,
    delivered: bool,
    findings: list[dict[str, Any]],
    stopped: float,
    passed: bool,
    reason: str,
) -> None:
    mock = ovm.VideoMock(Config(trial=trial))
    note = ovm.Note()
    note.to_the_end = note.delivered = delivered
    mock.store.record(ovm.Request("GET", "/", "", {}, b"", note))
    monkeypatch.setattr(mock, "findings", lambda: findings)
    verdict = ovm.verdict_of(mock, succeeded, stopped)
    assert verdict["passed"] is passed and verdict["reason"].startswith(reason)
    assert verdict["delivered"] is delivered
    excused = ovm.TRIALS[trial].excused
    kept = [f for f in findings if f["rule"] not in excused]
    assert verdict["findings"] == [f"{f['rule']}: {f['text']}" for f in kept]


def test_every_trial_says_what_happens_and_excuses_rules_that_exist() -> None:
    for name, trial in ovm.TRIALS.items():
        assert trial.says and set(trial.excused) <= set(ovm.RULES), name
        assert name in README


# ============ Control API and status page


def test_the_journal_shows_requests_and_hides_keys(mock: MockServer) -> None:
    job_id = submit(mock)
    get(
        mock,
        f"{API}/videos/{job_id}",
        key="sk-or-secret",
        Cookie="id=secret",
        X_Api_Key="secret",
    )
    post(mock, b"not json", key=None)
    entries = get(mock, "/__mock/requests").json["requests"]
    assert [entry["seq"] for entry in entries] == [1, 2, 3]
    first, second, third = entries
    keys = "seq time method path headers body scope ms status job_id fixture"
    assert " ".join(first) == f"{keys} error hint upstream fault closest"
    assert first["body"] == {**VEO} and first["job_id"] == job_id and first["status"] == 202
    label = "key-" + hashlib.sha256(b"sk-or-secret").hexdigest()[:8]
    assert second["headers"]["authorization"] == f"Bearer {label}"
    assert second["scope"] == label
    assert third["body"] == "not json" and third["status"] == 401
    assert "secret" not in json.dumps(entries)


def test_the_journal_can_be_filtered(mock: MockServer) -> None:
    ids = [submit(mock), submit(mock)]
    poll(mock, ids[0])

    def found(query: str) -> list[int]:
        return [
            entry["seq"]
            for entry in get(mock, f"/__mock/requests?{query}").json["requests"]
        ]

    assert found("method=post") == [1, 2]
    assert found("path=/videos/gen") == found("path=/api/v1/videos/gen") == [3]
    assert found("path=/api") == [1, 2, 3]
    poll_path = f"{API}/videos/{ids[1]}/content?index=0"
    get(mock, poll_path)
    assert found(f"path={poll_path.replace('?', '%3F').replace('=', '%3D')}") == [4]
    assert found("status=200") == [3]
    assert found(f"job_id={ids[0]}") == [1, 3]
    assert found("since=1&limit=1") == [4]
    reply = get(mock, "/__mock/requests?stauts=1")
    message = 'arguments.stauts: unknown key, did you mean "status"?'
    assert (reply.status, reply.message) == (400, message)
    assert get(mock, "/__mock/requests?wait=soon").status == 400


def test_wait_blocks_until_enough_requests_came(mock: MockServer) -> None:
    later = threading.Timer(0.05, lambda: [submit(mock) for _ in range(2)])
    later.start()
    query = f"wait={PATIENCE}&count=2&path=/videos"
    assert len(get(mock, f"/__mock/requests?{query}").json["requests"]) == 2
    later.join()
    assert mock.wait_for_request(path="/videos", count=2)["seq"] == 2
    with pytest.raises(TimeoutError, match="2 of 3 such requests"):
        mock.wait_for_request(path="/videos", count=3, timeout=0.01)
    begun = time.monotonic()
    assert get(mock, "/__mock/requests?wait=0.05&count=9").status == 200
    assert 0.05 <= time.monotonic() - begun < PATIENCE


def test_jobs_are_shown_newest_first_with_all_that_is_known(mock: MockServer) -> None:
    ids = [submit(mock, f"prompt {i}") for i in range(3)]
    assert [job["id"] for job in get(mock, "/__mock/jobs").json["jobs"]] == ids[::-1]
    assert [job["id"] for job in get(mock, "/__mock/jobs?limit=1").json["jobs"]] == ids[2:]
    job = get(mock, "/__mock/jobs/latest").json
    assert job["id"] == ids[2] and job["request"] == veo(prompt="prompt 2")
    assert (job["status"], job["polls"], job["cost"], job["ended_at"]) == (
        "pending",
        0,
        1.6,
        None,
    )
    assert job["plan"]["polls"] == {"pending": 0, "in_progress": 1}
    assert job["webhooks"] == []
    assert get(mock, "/__mock/jobs/nope").status == 404


def test_what_is_shown_of_a_job_may_be_changed(mock: MockServer) -> None:
    for _ in range(2):
        submit(mock, frame_images=IMAGE)
        mock.job()["request"]["frame_images"].clear()
        assert mock.job()["request"]["frame_images"] == IMAGE


def test_patch_forces_an_ending(mock: MockServer) -> None:
    job_id = submit(mock)
    reply = call(
        mock, "PATCH", f"/__mock/jobs/{job_id}", {"status": "failed", "error": "no"}
    )
    assert reply.status == 200 and reply.json["error"] == "no"
    assert call(mock, "PATCH", "/__mock/jobs/latest", {"status": "failed"}).status == 200
    assert call(mock, "PATCH", "/__mock/jobs/latest", {"status": "completed"}).status == 409
    bodies: list[Any] = [
        {},
        {"status": "pending"},
        {"status": "failed", "eror": "x"},
        [],
        b"{",
    ]
    for bad in bodies:
        assert call(mock, "PATCH", "/__mock/jobs/latest", bad).status == 400
    assert call(mock, "PATCH", "/__mock/jobs/nope", {"status": "failed"}).status == 404


def test_fixtures_faults_and_time_over_http(mock: MockServer) -> None:
    def control(method: str, what: str, body: Any = None) -> Reply:
        return call(mock, method, f"/__mock/{what}", body)

    added = control("POST", "fixtures", [fails({"prompt": "rain"}, name="wet")])
    assert added.status == 201 and added.json["fixtures"][0]["name"] == "wet"
    listed = control("GET", "fixtures").json["fixtures"]
    assert listed[0]["name"] == "wet" and listed[1] == {
        "name": "mock:failed",
        "match": {"prompt": "mock:failed"},
        "response": {"video": {"status": "failed"}},
        "matched": 0,
        "built_in": True,
    }
    bad = control("POST", "fixtures", {"match": {"promt": "x"}})
    message = 'fixtures[0].match.promt: unknown key, did you mean "prompt"?'
    assert (bad.status, bad.message) == (400, message)
    file = {"match": {}, "response": {"video": {"file": "/etc/passwd"}}}
    bad = control("POST", "fixtures", file)
    assert bad.status == 400 and 'use "b64"' in bad.message
    assert control("POST", "faults", {"on": "submit", "status": 500}).status == 201
    idle = control("POST", "faults", [{"on": "submit"}])
    assert idle.message.startswith("faults[0]: does nothing")
    struck = [{"on": "submit", "status": 500, "struck": 0}]
    assert control("GET", "faults").json["faults"] == struck
    assert control("DELETE", "faults").json["faults"] == []
    now = control("GET", "time").json["now"]
    moved = control("POST", "time", {"advance": 45}).json["now"]
    assert now + 45 <= moved < now + 45 + PATIENCE
    wrongs: list[Any] = [-1, "1", True, 10**400]
    for wrong in [{}, *({"advance": seconds} for seconds in wrongs)]:
        assert control("POST", "time", wrong).status == 400
    assert control("POST", "reset").json["jobs"] == 0
    assert control("GET", "fixtures").json["fixtures"][0]["name"] == "mock:failed"


@pytest.mark.parametrize("path", ["/health", "/__mock/health"])
def test_health(mock: MockServer, path: str) -> None:
    submit(mock)
    assert get(mock, path, key=None).json == {
        "catalogue": "30 models checked (fixtures.json)",
        "status": "ok",
        "version": VERSION,
        "jobs": 1,
        "requests": 1,
        "fixtures": len(mock.fixtures()),
    }


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
def test_pages_of_other_origins_and_rebound_names_are_kept_out(
    headers: dict[str, str], status: int
) -> None:
    with MockServer(fixtures=[], public_url="https://named.example.com") as mock:
        for path in ("/__mock/requests", "/__mock/jobs", "/health", "/"):
            reply = get(mock, path, key=None, **headers)
            assert reply.status == status
            assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/__mock/time"),
        ("GET", "/__mock/fixtures"),
        ("GET", "/__mock/faults"),
        ("GET", "/__mock/jobs/latest"),
        ("DELETE", "/__mock/faults"),
        ("POST", "/__mock/reset"),
    ],
)
def test_a_query_that_a_control_route_does_not_know_is_refused(
    mock: MockServer, method: str, path: str
) -> None:
    submit(mock)
    reply = call(mock, method, f"{path}?t=1")
    assert (reply.status, reply.json["error"]["message"]) == (
        400,
        "arguments.t: unknown key",
    )
    assert mock.job()


@pytest.mark.parametrize("path", ["faults", "fixtures"])
def test_a_list_in_a_list_is_refused(mock: MockServer, path: str) -> None:
    assert call(mock, "POST", f"/__mock/{path}", [[]]).status == 400


def test_a_client_that_has_closed_its_half_gets_a_slow_answer_too() -> None:
    with MockServer(fixtures=[], latency=0.1) as mock, connect(mock) as sock:
        sock.sendall(head_of(f"GET {API}/videos/models HTTP/1.1"))
        sock.shutdown(socket.SHUT_WR)
        assert read_to_the_end(sock).startswith(b"HTTP/1.1 200 ")


def test_a_mock_started_by_several_threads_runs_once() -> None:
    before = threading.active_count()
    mock = serving()
    in_parallel(8, lambda _: mock.start())
    mock.stop()
    assert eventually(lambda: threading.active_count() <= before)


def test_a_wrong_base_url_is_seen_in_journal_and_log(mock: MockServer) -> None:
    lines = lines_of(mock)
    assert call(mock, "POST", "/v1/videos", VEO).status == 404
    assert mock.requests()[0]["path"] == "/v1/videos"
    exchange(mock, b"GET  / HTTP/1.1\r\n\r\n")
    assert eventually(lambda: any("(Malformed request line)" in line for line in lines))
    assert "POST /v1/videos 404" in lines[0] and "(did you mean POST /api/" in lines[0]
    assert "(Malformed request line)" in "".join(line for line in lines if " 400 " in line)


@pytest.mark.parametrize(
    "path",
    [
        "/videos",
        "/v1/videos",
        "/v1/video/generations",
        "/api/v1/video",
        "/api/v1/videos/generations",
        "/api/v1/api/v1/videos",
        "/openrouter/videos",
    ],
)
def test_a_path_of_another_api_is_told_from_ours(mock: MockServer, path: str) -> None:
    assert call(mock, "POST", path, VEO).status == 404
    (finding,) = mock.findings()
    assert finding["rule"] == "wrong-address"
    assert "did you mean POST /api/v1/videos?" in finding["text"]


def test_wrong_methods_and_paths_of_the_control_api(mock: MockServer) -> None:
    reply = call(mock, "DELETE", "/__mock/time")
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, POST")
    assert call(mock, "OPTIONS", "/__mock/requests").status == 405
    assert get(mock, "/__mock/nothing").status == 404
    assert get(mock, "/favicon.ico").json == {
        "error": {"message": "Not Found", "code": 404}
    }
    assert [entry["path"] for entry in mock.requests()] == ["/favicon.ico"], (
        "the control API is not journaled"
    )


def test_the_page_is_one_file_that_fetches_nothing_and_escapes_what_it_shows(
    mock: MockServer,
) -> None:
    reply = get(mock, "/", key=None)
    page = html.unescape(reply.raw.decode())
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = reply.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-(\w+)'", policy)
    assert nonce and f'<script nonce="{nonce[1]}">' in page
    assert "unsafe-inline" not in policy
    assert "{{" not in page and "innerHTML" not in page
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", page)
    for _, path, summary in routes():
        assert path in page and summary in page


def test_the_page_knows_every_status(mock: MockServer) -> None:
    page = get(mock, "/").raw.decode()
    for name, statuses in (
        ("WAITING", [status.value for status in ovm.WAITING]),
        ("ENDINGS", ["completed", "failed", "cancelled", "expired"]),
    ):
        listed = re.search(rf"const {name} = (\[.*\]);", page)
        assert listed and json.loads(listed[1]) == statuses


def test_a_status_that_ends_a_job_takes_two_lines(tmp_path: Path) -> None:
    source = Path(ovm.__file__).read_text("utf-8")
    for line, added in (
        ('    EXPIRED = "expired"\n', '    REJECTED = "rejected"\n'),
        (
            '    Status.EXPIRED: "Job exceeded maximum time to live",\n',
            '    Status.REJECTED: "Rejected by a human",\n',
        ),
    ):
        assert source.count(line) == 1
        source = source.replace(line, line + added)
    path = tmp_path / "with_another_status.py"
    path.write_text(source, "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with Receiver() as receiver, module.MockServer() as mock:
        mock.add_fixture({"match": {}, "response": {"video": {"status": "rejected"}}})
        wire = finished(mock, callback_url=receiver.url)
        assert (wire["status"], wire["error"]) == ("rejected", "Rejected by a human")
        (hook,) = mock.webhooks(wait=PATIENCE)
        assert hook["event"] == "video.generation.rejected" and receiver.received
        job_id = submit(mock)
        assert mock.finish(job_id, "rejected")["status"] == "rejected"
        assert get(mock, f"{API}/videos/{job_id}/content").status == 409
        assert '"rejected"' in get(mock, "/").raw.decode()
        kind = "application/json"
        assert not list(module.differences_from_contract("get_video", 200, kind, wire))


def test_every_button_of_the_page_is_a_call_of_the_control_api(mock: MockServer) -> None:
    page = html.unescape(get(mock, "/").raw.decode())
    calls = set(re.findall(r'(?:act|call)\("([A-Z]+)", "([a-z]+)', page))
    assert calls >= {("PATCH", "jobs"), ("POST", "reset"), ("POST", "time")}
    for wanted, name in calls:
        assert any(
            method == wanted and path.startswith(f"/__mock/{name}")
            for method, path, _ in routes()
        )


HINTS = {
    "POST /videos": "POST /api/v1/videos",
    "POST /v1/videos": "POST /api/v1/videos",
    "POST /api/videos": "POST /api/v1/videos",
    "POST /api/v1/api/v1/videos": "POST /api/v1/videos",
    "POST /api/v1/v1/videos": "POST /api/v1/videos",
    "POST /api/v1/videos/": "POST /api/v1/videos",
    "POST //api/v1/videos": "POST /api/v1/videos",
    "GET /api/v1/api/v1/videos/x": "GET /api/v1/videos/x",
    "GET /videos/x/content": "GET /api/v1/videos/x/content",
    "GET /v1/models": "GET /api/v1/models",
    "GET /key": "GET /api/v1/key",
    "GET /api/v1": "/api/v1/videos",
    "GET /api/v1/": "/api/v1/videos",
    "POST /api/v1/video": "/api/v1/videos",
    "GET /nowhere": "/api/v1/videos",
}


@pytest.mark.parametrize("route", HINTS)
def test_a_request_that_missed_the_api_is_told_where_it_was_meant_to_go(
    mock: MockServer, route: str
) -> None:
    lines = lines_of(mock)
    method, path = route.split()
    reply = call(mock, method, path, VEO if method == "POST" else None)
    assert (reply.status, reply.json["error"]["message"]) == (404, "Not Found")
    (entry,) = mock.requests()
    assert HINTS[route] in entry["hint"] and entry["error"] == "Not Found"
    assert f"({entry['hint']})" in lines[0]


@pytest.mark.parametrize(
    ("body", "key", "reason"),
    [
        (veo(duration=5), "k", "Duration 5s is not supported for this model."),
        (veo(model="a/b"), "k", "a/b is not a valid model ID"),
        (veo(prompt="mock:no-credits"), "k", "Insufficient credits."),
        (veo(duration=0), "k", "duration: Too small: expected number to be >=1"),
        (b"{", "k", "Malformed JSON in request body"),
        (VEO, None, "No cookie auth credentials found"),
    ],
)
def test_journal_and_log_say_why_a_request_was_refused(
    mock: MockServer, body: Any, key: str | None, reason: str
) -> None:
    lines = lines_of(mock)
    post(mock, body, key=key)
    assert mock.requests()[0]["error"].startswith(reason)
    assert f"({reason}" in lines[0]
    submit(mock)
    assert mock.requests()[-1]["error"] is None and "(" not in lines[-1]


def test_what_only_begins_like_a_control_route_is_journaled(mock: MockServer) -> None:
    for path in ("/__mockery", "/healthy", "/__mock-x/jobs"):
        assert get(mock, path).status == 404
    assert [entry["path"] for entry in mock.requests()] == [
        "/__mockery",
        "/healthy",
        "/__mock-x/jobs",
    ]
    for path in ("/__mock", "/__mock/"):
        assert get(mock, path).status == 404
    assert len(mock.requests()) == 3


def test_jobs_and_requests_are_shown_in_pages(mock: MockServer) -> None:
    ids = [submit(mock) for _ in range(105)][::-1]

    def listed(query: str) -> list[str]:
        jobs = get(mock, f"/__mock/jobs{query}").json["jobs"]
        return [job["id"] for job in jobs]

    assert listed("") == ids[:100] and listed("?offset=100") == ids[100:]
    assert listed("?limit=2&offset=1") == ids[1:3]
    assert listed("?limit=1000") == ids == [job["id"] for job in mock.jobs()]


def test_lists_can_be_filtered_by_scope_latest_and_kind_of_status(mock: MockServer) -> None:
    for scope in ("a", "b"):
        wire = post(mock, veo(callback_url="https://x.test/"), X_Test_Id=scope).json
        mock.finish(wire["id"])
    get(mock, f"{API}/videos/nope", X_Test_Id="a")
    assert eventually(lambda: len(mock.webhooks()) == 2)
    latest = mock.job()["id"]

    def count(what: str, query: str) -> int:
        reply = get(mock, f"/__mock/{what}?{query}")
        assert reply.status == 200, reply.raw
        return len(reply.json[what])

    assert [count("requests", f"scope={scope}") for scope in "abc"] == [2, 1, 0]
    assert [count("jobs", f"scope={scope}") for scope in "abc"] == [1, 1, 0]
    assert [count("webhooks", f"scope={scope}") for scope in "abc"] == [1, 1, 0]
    assert count("requests", "job_id=latest") == count("webhooks", "job_id=latest") == 1
    assert mock.requests(job_id="latest")[0]["job_id"] == latest
    assert [
        count("requests", f"status={kind}") for kind in ("2xx", "4xx", "404", "5xx")
    ] == [
        2,
        1,
        1,
        0,
    ]
    assert get(mock, "/__mock/requests?status=9xx").status == 400
    assert get(mock, "/__mock/jobs/latest?testId=a").status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "mock:8080", "Origin": "https://named.example.com"}, 200),
        ({"Host": "mock:8080", "Origin": "https://other.example.com"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
    ],
)
def test_the_public_origin_is_trusted_and_other_sites_are_not(
    headers: dict[str, str], status: int
) -> None:
    with MockServer(public_url="https://named.example.com") as mock:
        submit(mock)
        for method, path in (
            ("POST", "time"),
            ("GET", "jobs/latest/clip"),
            ("GET", "jobs"),
        ):
            body = {"advance": 1} if method == "POST" else None
            reply = call(mock, method, f"/__mock/{path}", body, key=None, **headers)
            assert reply.status == status, reply.raw


# ============ HTTP adapter


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
    "two lengths": (
        head_of(POST, "Content-Length: 5", "Content-Length: 6") + b"hello!",
        400,
    ),
    "the same length twice": (
        head_of(POST, "Content-Length: 5", "Content-Length: 5") + b"hello",
        400,
    ),
    "length list": (head_of(POST, "Content-Length: 5, 5") + b"hello", 400),
    "length and chunks": (
        head_of(POST, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        400,
    ),
    "unknown coding": (
        head_of(POST, "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
        400,
    ),
    "chunked with a tail": (
        head_of(POST, "Transfer-Encoding: chunked, identity") + b"0\r\n\r\n",
        400,
    ),
    "coding twice": (
        head_of(POST, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        400,
    ),
    "chunks in HTTP/1.0": (
        head_of(POST.replace("1.1", "1.0"), "Transfer-Encoding: chunked"),
        400,
    ),
    "chunk size with 0x": (
        head_of(POST, "Transfer-Encoding: chunked") + b"0x5\r\nhello\r\n0\r\n\r\n",
        400,
    ),
    "negative chunk": (head_of(POST, "Transfer-Encoding: chunked") + b"-1\r\n\r\n", 400),
    "chunk longer than it says": (
        head_of(POST, "Transfer-Encoding: chunked") + b"3\r\nhello\r\n0\r\n\r\n",
        400,
    ),
    "bare line feed in a trailer": (
        head_of(POST, "Transfer-Encoding: chunked")
        + b"0\r\nX: y\n\nGET / HTTP/1.1\r\n\r\n",
        400,
    ),
    "trailer without colon": (
        head_of(POST, "Transfer-Encoding: chunked") + b"0\r\nnonsense\r\n\r\n",
        400,
    ),
    "chunk ended by a bare line feed": (
        head_of(POST, "Transfer-Encoding: chunked") + b"5\nhello\n0\n\n",
        400,
    ),
    "endless chunk line": (head_of(POST, "Transfer-Encoding: chunked") + b"1" * 9000, 400),
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
    shared: MockServer, name: str
) -> None:
    data, status = REFUSED[name]
    shared.reset()
    answer = exchange(shared, data + head_of(MODELS))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head and b"application/json" in head
    assert b"Access-Control-Allow-Origin: *" in head, "else a browser cannot read it"
    error = json.loads(body)["error"]
    assert error["code"] == status, "one answer, and nothing of what followed"
    (entry,) = shared.requests()
    assert (entry["status"], entry["error"]) == (status, error["message"])
    assert submit(shared)


def test_keep_alive_pipelining_and_empty_lines(mock: MockServer) -> None:
    answer = exchange(mock, b"\r\n\r\n" + head_of(MODELS) * 3 + LAST)
    assert answered(answer) == [200] * 4
    assert answer.count(b"Connection: close") == 1


@pytest.mark.parametrize(
    "pieces",
    [
        (b"\r", b"\n" + LAST),
        (b"\r\n", b"\r\n", LAST),
        (b"\r\n\r\n", LAST),
    ],
)
def test_empty_lines_may_come_in_pieces(
    mock: MockServer, pieces: tuple[bytes, ...]
) -> None:
    with connect(mock) as sock:
        for piece in pieces:
            sock.sendall(piece)
            get(mock, "/health")  # once this is answered, the piece has been looked at
        assert answered(read_to_the_end(sock)) == [200]


def test_http_1_0_is_answered_in_its_manner(mock: MockServer) -> None:
    old = MODELS.replace("1.1", "1.0")
    assert answered(exchange(mock, head_of(old) * 2)) == [200]
    kept = exchange(mock, head_of(old, "Connection: keep-alive") * 2)
    assert answered(kept) == [200] and b"\r\nConnection: close\r\n" in kept
    path = path_of(finished(mock)["unsigned_urls"][0])
    clip = exchange(mock, head_of(f"GET {path} HTTP/1.0"))
    assert b"chunked" not in clip and clip.partition(b"\r\n\r\n")[2][4:8] == b"ftyp"
    assert answered(exchange(mock, f"{old}\r\n\r\n".encode())) == [200], "without Host"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (f"GET http://a.test{API}/videos/models HTTP/1.1", 200),
        ("GET http://localhost?x=1 HTTP/1.1", 200),
        (f"GET /{API}/videos/models HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 404),
    ],
)
def test_absolute_targets_and_doubled_slashes(
    shared: MockServer, line: str, status: int
) -> None:
    assert answered(exchange(shared, head_of(line, "Connection: close"))) == [status]


def test_head_is_get_without_the_body(mock: MockServer) -> None:
    whole, head = (call(mock, method, f"{API}/videos/models") for method in ("GET", "HEAD"))
    assert head.status == 200 and head.raw == b""
    assert head.headers["Content-Length"] == str(len(whole.raw))
    path = path_of(finished(mock)["unsigned_urls"][0])
    answer = exchange(mock, head_of(f"HEAD {path} HTTP/1.1") + LAST)
    assert answered(answer) == [200, 200] and b"ftyp" not in answer
    assert call(mock, "HEAD", f"{API}/videos").status == 404


def test_bodies_in_chunks_with_extensions_and_trailers(mock: MockServer) -> None:
    chunks = b"".join(b"%x;ext=1\r\n%c\r\n" % (1, byte) for byte in BODY)
    end = b"0\r\nX-Trailer: 1\r\n\r\n"
    answer = exchange(
        mock, head_of(POST, "Transfer-Encoding: Chunked") + chunks + end + LAST
    )
    assert answered(answer) == [202, 200]
    assert mock.job()["request"] == VEO


def test_expect_100_continue_is_answered_before_the_body(mock: MockServer) -> None:
    with connect(mock) as sock:
        sock.sendall(head_of(POST, "Expect: 100-continue", f"Content-Length: {len(BODY)}"))
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(BODY)
        assert sock.recv(1000).startswith(b"HTTP/1.1 202")
    refused = exchange(
        mock, head_of(POST, "Expect: 100-continue", "Content-Length: 100000000")
    )
    assert refused.startswith(b"HTTP/1.1 413"), "no invitation to send what will be refused"


@pytest.mark.parametrize(("limit", "sent"), [(0.1, 3_000_000), (1, 50_000_000)])
def test_a_client_that_sends_too_much_before_it_reads_gets_the_refusal(
    limit: float, sent: int
) -> None:
    with MockServer(fixtures=[], max_body_mb=limit) as mock:
        refused = post(mock, b"x" * sent)
        assert (refused.status, refused.message) == (413, "Request payload too large")
        chunk = b"200000\r\n" + b"x" * 0x200000 + b"\r\n"
        chunked = exchange(mock, head_of(POST, "Transfer-Encoding: chunked") + chunk)
        assert answered(chunked) == [413]


def test_an_error_leaves_the_connection_in_step(mock: MockServer) -> None:
    bad = head_of(POST, "Content-Length: 5") + b"hello"
    unknown = head_of(f"DELETE {API}/videos/x HTTP/1.1", "Content-Length: 3") + b"abc"
    assert answered(exchange(mock, bad + unknown + LAST)) == [400, 404, 200]


def test_clients_that_go_away_are_nobodys_error() -> None:
    half = head_of(POST, "Content-Length: 50") + b"half"
    with MockServer(fixtures=[]) as mock:
        for data in (b"", b"GET", half, head_of(MODELS) * 50):
            with connect(mock) as sock:
                reset = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                sock.sendall(data)
        assert submit(mock)
        mock.stop()  # which would raise what went wrong


@pytest.mark.parametrize(
    ("data", "seconds", "statuses"),
    [
        (b"", 76, []),
        (head_of(MODELS), 76, [200]),
        (b"GET / HT", 31, [408]),
        (head_of(POST, "Content-Length: 50") + b"half", 31, [408]),
        (head_of(POST, "Transfer-Encoding: chunked") + b"5", 31, [408]),
        (head_of(POST, "Transfer-Encoding: chunked") + b"5\r\nhalf", 31, [408]),
    ],
)
def test_slow_and_idle_connections_are_ended(
    mock: MockServer,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    seconds: float,
    statuses: list[int],
) -> None:
    passing = Passing(mock, monkeypatch)
    with connect(mock) as sock:
        sock.sendall(data)
        passing.let(seconds)
        assert answered(read_to_the_end(sock)) == statuses
    assert submit(mock)


def test_a_reader_that_never_reads_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serving_file(tmp_path, 30_000_000) as mock:
        path = path_of(finished(mock)["unsigned_urls"][0])
        passing = Passing(mock, monkeypatch)

        def received(patience: int) -> int:
            """How much there is to read for a client that begins after so many minutes."""
            with connect(mock) as sock:
                sock.sendall(head_of(f"GET {path} HTTP/1.0"))
                for _ in range(patience):
                    passing.let(61)
                return len(read_to_the_end(sock))

        assert any(received(patience) < 30_000_000 for patience in (2, 10, 100))
        assert submit(mock)


@pytest.mark.parametrize(("piece", "status"), [(40_000, 202), (10, 408)])
def test_an_upload_may_take_long_as_long_as_it_moves(
    mock: MockServer, monkeypatch: pytest.MonkeyPatch, piece: int, status: int
) -> None:
    passing = Passing(mock, monkeypatch)
    body = BODY + b" " * (6 * piece)
    with connect(mock) as sock:
        sock.sendall(head_of(POST, f"Content-Length: {len(body)}", "Connection: close"))
        with contextlib.suppress(ConnectionError):  # it may have closed
            for start in range(0, len(body), piece):
                sock.sendall(body[start : start + piece])
                passing.let(20)
        assert answered(read_to_the_end(sock)) == [status]


def test_a_download_may_take_long_as_long_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_file(tmp_path, 50_000_000) as mock:
        path = path_of(finished(mock)["unsigned_urls"][0])
        passing = Passing(mock, monkeypatch)
        with connect(mock) as sock:
            sock.sendall(head_of(f"GET {path} HTTP/1.0"))
            received = 0
            for goal in (12_000_000, 24_000_000, 36_000_000):
                while received < goal:
                    received += len(sock.recv(1 << 20))
                passing.let(40)
            assert received + len(read_to_the_end(sock)) > 50_000_000


def test_nothing_in_a_request_can_split_an_answer_or_the_log() -> None:
    with serving({"name": "evil\r\n\x1b[31mname", "match": {}}) as mock:
        lines = lines_of(mock)
        assert post(mock, veo(prompt="a\r\nSet-Cookie: x")).status == 202
        get(mock, f"{API}/videos/%0d%0aSet-Cookie:%20x")
        asked = {"Access_Control_Request_Headers": "x-stainless-a\tb, x-stainless-\xe9"}
        preflight = call(mock, "OPTIONS", f"{API}/videos", **asked)
        assert preflight.status == 204 and "Set-Cookie" not in preflight.headers
        assert all(line.isprintable() for line in lines) and len(lines) == 3
        assert "\\x1b" in lines[0]


def test_a_burst_of_connections_is_refused_by_none(mock: MockServer) -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(mock)) for _ in range(300)]
        for sock in sockets:
            sock.sendall(head_of(MODELS))
        assert all(sock.recv(12) == b"HTTP/1.1 200" for sock in sockets)


def test_requests_that_wait_do_so_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovm, "TURN_SECONDS", 4.0 * PATIENCE)
    latency, count = 0.1, 100
    with MockServer(fixtures=[], latency=latency) as mock, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(mock)) for _ in range(count)]
        begun = time.monotonic()
        for sock in sockets:
            sock.sendall(LAST)
        assert all(answered(read_to_the_end(sock)) == [200] for sock in sockets)
        assert time.monotonic() - begun < latency * count, "what one after the other takes"
        assert len(mock.requests(status=200)) == count


def test_a_request_waits_for_its_turn_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with MockServer(fixtures=[]) as mock, connect(mock) as first, connect(mock) as second:
        assert mock._server
        monkeypatch.setattr(ovm, "TURN_SECONDS", 4.0 * PATIENCE)
        turn = mock._server.take_turn()
        first.sendall(LAST)
        assert not select.select([first], [], [], 0.1)[0]
        turn.release()
        assert answered(read_to_the_end(first)) == [200]
        assert mock.requests()[0]["ms"] > 90, "the time that it waited counts"
        monkeypatch.setattr(ovm, "TURN_SECONDS", 0.01)
        mock._server.take_turn()
        second.sendall(LAST)
        assert answered(read_to_the_end(second)) == [200]


def test_who_has_closed_its_half_may_wait_for_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ovm, "TURN_SECONDS", 4.0 * PATIENCE)
    with MockServer(fixtures=[], polls=(0, 0)) as mock, connect(mock) as sock:
        assert mock._server
        poll_once = head_of(f"GET {API}/videos/{submit(mock)} HTTP/1.1")
        turn = mock._server.take_turn()
        sock.sendall(poll_once + poll_once)
        sock.shutdown(socket.SHUT_WR)
        assert not select.select([sock], [], [], 2 * ovm._SLOW_SECONDS)[0]
        turn.release()
        assert answered(read_to_the_end(sock)) == [200, 200]
        assert mock.findings(rule="abandoned") == []


def test_a_reset_after_the_stop_still_forgets() -> None:
    with MockServer(fixtures=[]) as mock:
        submit(mock)
    assert mock.reset()["jobs"] == 0 and mock.requests() == []


def test_pipelined_requests_that_wait_are_answered_in_order() -> None:
    with MockServer(fixtures=[], latency=0.01) as mock:
        nothing = head_of(f"GET {API}/nothing HTTP/1.1")
        assert answered(exchange(mock, head_of(MODELS) + nothing + LAST)) == [200, 404, 200]


def test_without_threads_to_be_had_connections_are_refused_with_503(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Receiver() as receiver, MockServer(fixtures=[]) as mock, connect(mock) as early:
        early.sendall(head_of(MODELS))
        assert early.recv(1 << 20).startswith(b"HTTP/1.1 200")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            answer = exchange(mock, head_of(MODELS) * 2)
            assert answered(answer) == [503] and b"Connection: close" in answer
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == 503
            with connect(mock) as half:
                half.sendall(b"GET /half")  # holds up nobody
                early.sendall(LAST)
                assert answered(read_to_the_end(early)) == [200], (
                    "those that have one go on"
                )
        submit(mock, callback_url=receiver.url)
        assert [hook["state"] for hook in deliveries(mock)] == ["delivered"]


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (head_of(POST, "Content-Length: 2") + b"{}\r\n", [400, 200]),
        (b"\r\n", [200]),
    ],
)
def test_empty_lines_between_requests_are_no_request(
    mock: MockServer, monkeypatch: pytest.MonkeyPatch, data: bytes, statuses: list[int]
) -> None:
    passing = Passing(mock, monkeypatch)
    with connect(mock) as sock:
        sock.sendall(data)
        passing.let(
            40
        )  # longer than a request may take, not so long as one may wait for it
        sock.sendall(LAST)
        assert answered(read_to_the_end(sock)) == statuses


def test_a_journaled_refusal_does_not_hold_the_body_that_was_refused(
    mock: MockServer,
) -> None:
    body = b"400000\r\n" + b"x" * 0x400000 + b"\r\nFFFFFFFF\r\n"
    data = head_of(POST, "Transfer-Encoding: chunked") + body
    exchange(mock, b"nonsense\r\n\r\n")
    with memory_traced() as traced:
        assert answered(exchange(mock, data)) == [413]
        assert eventually(lambda: traced()[0] < 1_000_000)
        assert [entry["status"] for entry in mock.requests()] == [400, 413]


def test_a_tls_hello_on_the_plain_port_is_told_about_cert(mock: MockServer) -> None:
    lines = lines_of(mock)
    context = ssl.create_default_context()
    with connect(mock) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock, server_hostname="localhost")
    assert eventually(lambda: lines)
    assert "plain http only, see --cert" in lines[0]
    assert "plain http only" in mock.requests()[0]["error"]


def test_a_connection_has_a_thread_that_ends_with_it(mock: MockServer) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            sock = stack.enter_context(connect(mock))
            sock.sendall(head_of(MODELS))
            assert sock.recv(12) == b"HTTP/1.1 200"
        assert threading.active_count() >= before
    assert eventually(lambda: threading.active_count() <= before)


# ============ Embedding


def test_stop_is_quick_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    mock = MockServer(fixtures=[]).start()
    with connect(mock) as idle:
        idle.sendall(head_of(MODELS))
        assert idle.recv(12) == b"HTTP/1.1 200"
        mock.finish(submit(mock, callback_url="http://127.0.0.1:9/"))
        begun = time.monotonic()
        mock.stop()
        assert time.monotonic() - begun < PATIENCE
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError, match="not running"):
        mock.url  # noqa: B018


def test_it_starts_once() -> None:
    with MockServer(fixtures=[]).start() as mock:
        assert mock.start() is mock and submit(mock)
        origin = mock.origin
    with pytest.raises(ConnectionRefusedError):
        connect(origin)
    with pytest.raises(RuntimeError, match="make another one"):
        mock.start()


def test_it_serves_an_async_test_from_its_own_thread() -> None:
    async def talk() -> bytes:
        with MockServer(fixtures=[]) as mock:
            reader, writer = await asyncio.open_connection(*address(mock))
            writer.write(LAST)
            answer = await reader.read()
            writer.close()
            return answer

    assert answered(asyncio.run(talk())) == [200]


def test_an_error_of_the_mock_itself_is_500_and_raised_by_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> MockServer:
        mock = MockServer(fixtures=[]).start()
        monkeypatch.setattr(mock.store, "now", lambda: 1 / 0)
        reply = get(mock, "/__mock/time")
        error = {"message": "Internal Server Error", "code": 500}
        assert (reply.status, reply.json) == (500, {"error": error})
        return mock

    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        broken().stop()
    assert "ZeroDivisionError" in capsys.readouterr().err
    with pytest.raises(KeyError), broken():
        raise KeyError("the test's own error, which matters more")


def test_public_methods_are_documented_with_examples_that_run() -> None:
    """Those that the README names, and the others that a test would call."""
    (listed,) = re.findall(r"`help\(mock\)` shows .*?: (.*?) …", README)
    names = re.findall(r"`(\w+)`", listed)
    assert len(names) > 6
    names += ["start", "stop", "now", "advance", "job", "requests", "health"]
    names += ["assert_no_findings", "fixtures", "faults", "clear_faults"]
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    finder = doctest.DocTestFinder(recurse=False)
    for name in names:
        with MockServer(fixtures=[]) as mock:
            known = {"mock": mock, "job_id": submit(mock), "MockServer": MockServer}
            method = getattr(MockServer, name)
            (example,) = finder.find(method, name, globs=known)
            assert example.examples or name == "stop", f"{name} has no example"
            runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


PLUGIN = """
from openrouter_video_mock import MockServer
pytest_plugins = ["openrouter_video_mock"]
"""
VENDORED = """
import urllib.request
SCENARIOS = ["mock:failed", "mock:cancelled", "mock:expired"]
def test_it_serves(openrouter_video_mock):
    url = openrouter_video_mock.url + "/videos/models"
    assert urllib.request.urlopen(url).status == 200
def test_it_is_fresh(openrouter_video_mock):
    assert openrouter_video_mock.requests() == []
def test_scenarios_are_there(openrouter_video_mock):
    fixtures = openrouter_video_mock.fixtures()
    assert [fixture["name"] for fixture in fixtures[:3]] == SCENARIOS
    assert all(fixture["built_in"] for fixture in fixtures)
"""


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, to which every warning is an error."""
    plain = ["--color=no", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "error"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, *plain, "."],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
        env=environment_with({}),
    )


@pytest.fixture(scope="module")
def vendored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Outcomes of tests beside a copy of the module, which is their plugin: the README's too."""
    folder = tmp_path_factory.mktemp("vendored")
    shutil.copy(MODULE, folder)
    write(folder / "conftest.py", PLUGIN)
    write(folder / "test_it.py", VENDORED)
    for index, example in enumerate(blocks("python")):
        write(folder / f"test_readme_{index}.py", example)
    ran = pytest_in(folder, "-v")
    outcomes = dict(re.findall(r"(?m)^(\S+::\S+) ([A-Z]+)", ran.stdout))
    assert outcomes, ran.stdout + ran.stderr
    return outcomes


def test_pytest_gets_a_fresh_server_per_test(vendored: dict[str, str]) -> None:
    for name in ("it_serves", "it_is_fresh"):
        assert vendored[f"test_it.py::test_{name}"] == "PASSED"


def test_a_conftest_may_import_the_module_that_it_makes_a_plugin(
    vendored: dict[str, str],
) -> None:
    assert set(vendored.values()) == {"PASSED"}, "without a warning, which is an error"


def test_importing_the_module_imports_only_the_standard_library() -> None:
    unwanted = ("pytest", "traceback", "difflib")
    code = f"print([m for m in {unwanted} if m in sys.modules])"
    done = process("-S", "-c", f"import sys, openrouter_video_mock; {code}")
    assert done == (0, "[]\n", "")
    imported = {
        alias.name
        for node in ast.walk(ast.parse(MODULE.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names = {name.split(".")[0] for name in imported}
    assert names - {"pytest"} <= set(sys.stdlib_module_names)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """The files of a certificate of loopback, and of its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    new = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = [*new.split(), *names, "-keyout", key, "-out", cert]
    subprocess.run(made, check=True, capture_output=True, timeout=PATIENCE)
    return cert, key


def test_a_webhook_over_tls_goes_to_whom_this_machine_trusts(
    mock: MockServer, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate
    with MockServer(cert=cert, key=key) as receiver:
        mock.finish(submit(mock, callback_url=f"{receiver.origin}/hook"))
        assert tried(mock, 1)
        monkeypatch.setenv("SSL_CERT_FILE", cert)
        mock.advance(1)
        assert tried(mock, 2)
        refused, answered = mock.webhooks()[0]["attempts"]
        assert "CERTIFICATE_VERIFY_FAILED" in refused["error"]
        assert answered["status"] == 404
        assert [request["path"] for request in receiver.requests()] == ["/hook"]


def test_with_a_certificate_it_speaks_tls(
    tmp_path: Path, certificate: tuple[str, str]
) -> None:
    cert, key = certificate
    context = ssl.create_default_context(cafile=cert)
    with MockServer(cert=cert, key=key) as mock:
        assert mock.origin.startswith("https://127.0.0.1:")
        port = int(mock.origin.rpartition(":")[2])
        client = http.client.HTTPSConnection(
            "127.0.0.1", port, context=context, timeout=PATIENCE
        )
        with contextlib.closing(client):
            for _ in range(2):
                client.request("POST", f"{API}/videos", BODY, {"Authorization": "Bearer k"})
                response = client.getresponse()
                wire = json.loads(response.read())
                assert response.status == 202
                assert wire["polling_url"].startswith(f"{mock.url}/videos/gen-vid-")
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain:
            plain.sendall(LAST)
            read_to_the_end(plain)  # is no error of the mock's
        checked = command("--check", "--port", str(port), "--cert", cert, "--key", key)
        assert checked.status == 0
    with pytest.raises(SetupError, match="cert: "):
        MockServer(cert=str(tmp_path / "none.pem")).start()


def test_a_busy_port_is_named() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}"):
            MockServer(port=port).start()


FORKED = """
import os, urllib.request
from openrouter_video_mock import MockServer
with MockServer() as mock:
    child = os.fork()
    if child == 0:
        mock.stop()
        os._exit(7)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status))
    print(urllib.request.urlopen(mock.url + "/videos/models").status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_its_parents_mock_alone() -> None:
    done = process("-W", "ignore", "-c", FORKED)
    assert (done.status, done.out) == (0, "7\n200\n"), done.err


WITHOUT_DOCSTRINGS = """
import urllib.request
from openrouter_video_mock import MockServer
with MockServer() as mock:
    page = urllib.request.urlopen(mock.origin + "/")
    print(page.status, b"/api/v1/videos" in page.read())
"""


def test_the_page_needs_no_docstrings() -> None:
    assert process("-OO", "-c", WITHOUT_DOCSTRINGS) == (0, "200 True\n", "")


# ============ Command line


# Starts a command as a shell starts what it has in the background.
IGNORING = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")


@pytest.mark.parametrize(
    ("through", "signals"),
    [
        ((), [signal.SIGTERM]),
        ((), [signal.SIGINT, signal.SIGTERM]),
        (IGNORING, [signal.SIGINT]),
    ],
)
def test_the_command_prints_one_line_logs_to_stderr_and_stops_at_once(
    through: tuple[str, ...], signals: list[signal.Signals]
) -> None:
    with running("--port", "0", "--polls", "0,0", through=through) as (started, origin):
        job_id = submit(origin)
        assert eventually(lambda: get(origin, "/__mock/findings").json["findings"])
        with connect(origin) as idle:
            idle.sendall(head_of("GET /health HTTP/1.1"))
            assert idle.recv(12) == b"HTTP/1.1 200"
            for number in signals:
                started.send_signal(number)
            out, err = started.communicate(timeout=PATIENCE)
        assert (started.returncode, out) == (0, "")
        assert re.fullmatch(
            r"30 models checked \(fixtures.json\)\n"
            rf"\d\d:\d\d:\d\d POST /api/v1/videos 202 {job_id} "
            r"fixture='everything else' \d+\.\d ms\n"
            r".* abandoned: .*\n",
            err,
        ), err


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["-q"], {}),
        ([], {"OPENROUTER_VIDEO_MOCK_QUIET": "1"}),
    ],
)
def test_quiet_and_environment_twins(
    arguments: list[str], environment: dict[str, str]
) -> None:
    twins = {"OPENROUTER_VIDEO_MOCK_PORT": "0", "OPENROUTER_VIDEO_MOCK_API_KEY": "a,b"}
    with running(*arguments, **twins, **environment) as (started, origin):
        found = [get(origin, f"{API}/key", key=key).status for key in ("a", "b", "c")]
        assert found == [200, 200, 401]
        with connect(origin) as sock:
            sock.sendall(b"nonsense\r\n\r\n")
            assert answered(read_to_the_end(sock)) == [400]
        port = str(address(origin)[1])
        assert command("--check", "--port", port) == (0, "", "")
        started.terminate()
        said = "30 models checked (fixtures.json)\n"
        assert started.communicate(timeout=PATIENCE) == ("", said)
        assert started.returncode == 0


def test_validate_lists_the_mistakes_of_all_fixtures(tmp_path: Path) -> None:
    document = {
        "fixture": [],
        "models": [{"id": 1}],
        "fixtures": [
            {"macth": {}, "respons": {}},
            {"match": {"promt": "x"}, "times": "a", "response": {"video": {"errr": 1}}},
            {"match": {}, "faults": [{"on": "poll", "statu": 503, "times": 0}]},
        ],
    }
    done = command("-f", str(write(tmp_path / "f.json", document)), "--validate")
    assert done.status == 1
    for place in (
        'document.fixture: unknown key, did you mean "fixtures"?',
        "models[0].id: ",
        'fixtures[0].macth: unknown key, did you mean "match"?',
        'fixtures[0].respons: unknown key, did you mean "response"?',
        "fixtures[0].match: is missing",
        "fixtures[1].match.promt: ",
        "fixtures[1].times: ",
        "fixtures[1].response.video.errr: ",
        "fixtures[2].faults[0].statu: ",
        "fixtures[2].faults[0].times: ",
    ):
        assert f"f.json: {place}" in done.err
    assert done.err.count("\n") == 10


def test_what_stops_the_start_is_one_line_and_exit_1(tmp_path: Path) -> None:
    matches = [{"match": {}}, {"match": {}}, {"match": {"promt": "x"}}]
    file = str(write(tmp_path / "fixtures.json", {"fixtures": matches}))
    line = f'{file}: fixtures[2].match.promt: unknown key, did you mean "prompt"?\n'
    assert command("-f", file, "--validate") == (1, "", line)
    assert process(str(MODULE), "-f", file, "--port", "0") == (1, "", line)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        done = command("--port", str(busy.getsockname()[1]))
        assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
        assert "Address already in use" in done.err
    for arguments in (
        ["-f", "/nowhere.json"],
        ["-f", "a\0b"],
        ["--cert", "/nowhere.pem"],
        ["--fault", '{"on": "poll"}'],
    ):
        done = command(*arguments)
        assert (done.status, done.out, done.err.count("\n")) == (1, "", 1), done


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--prot", "1"], "unrecognized arguments: --prot"),
        (["--polls", "1"], f"--polls: {TWO_POLLS}, got [1]"),
        (["--polls", "1,x"], f"--polls: {TWO_POLLS}, got '1,x'"),
        (["--seconds", "1"], f"--seconds: {TWO_SECONDS}, got [1]"),
        (
            ["--port", "x"],
            "--port: Invalid input: expected number, received string, got 'x'",
        ),
        (["--port", "99999"], "--port: Too big: expected number to be <=65535, got 99999"),
        (["--max-jobs", "0"], "--max-jobs: Too small: expected number to be >=1, got 0"),
        (["--max-body-mb", "0"], "--max-body-mb: Too small: expected number to be >=0.001"),
        (["--public-url", "x"], "--public-url: expected an http or https URL, got 'x'"),
        (["--fault", "{"], "--fault: expected a JSON object such as "),
        (["--wait", "1"], "--wait goes with --check"),
        (["--key", "key.pem"], "--key goes with --cert"),
        (["--upstream", "http://x"], "--upstream goes with --record"),
        (["x"], "--trial goes with a command"),
    ],
)
def test_wrong_usage_is_exit_2_and_says_what_is_taken(
    arguments: list[str], complaint: str
) -> None:
    done = command(*arguments)
    assert done.status == 2 and done.err.startswith("usage:") and done.out == ""
    assert complaint in done.err.splitlines()[-1]


def test_an_unknown_environment_twin_is_wrong_usage_too() -> None:
    done = command("--validate", OPENROUTER_VIDEO_MOCK_PROT="1")
    assert done.status == 2 and done.out == ""
    said = 'OPENROUTER_VIDEO_MOCK_PROT: no such setting, did you mean "PORT"?'
    assert done.err.splitlines()[-1].endswith(said)


def test_nobody_has_to_read_the_log() -> None:
    path = f"{API}/videos/{'x' * 8000}"
    with running("--port", "0") as (started, origin):
        submit(origin)  # and never polled, which the end would have to say
        with connect(origin) as sock:
            for _ in range(100):  # far more than a pipe holds
                sock.sendall(head_of(f"GET {path} HTTP/1.1"))
            sock.sendall(LAST)
            assert answered(read_to_the_end(sock)) == [404] * 100 + [200]
        started.terminate()
        assert started.wait(timeout=PATIENCE) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", ["2>&-", ">&-"])
def test_closed_streams_are_no_reason_not_to_serve(closed: str) -> None:
    with nobody() as port:
        pass
    python = [sys.executable, "-m", "openrouter_video_mock", "--port", str(port)]
    started = subprocess.Popen(
        ["sh", "-c", f"exec {shlex.join(python)} {closed}"],
        cwd=installation().name,
        env=environment_with({}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert command("--check", "--port", str(port), "--wait", str(PATIENCE)).status == 0
        assert submit(f"http://127.0.0.1:{port}")
    finally:
        started.kill()
        started.wait()


def test_validate_version_and_check() -> None:
    assert command("--validate") == (
        0,
        "ok: 19 fixtures, 30 models checked (fixtures.json)\n",
        "",
    )
    assert command("--version") == (0, f"{VERSION}\n", "")
    for form in ([str(MODULE)], ["-m", "openrouter_video_mock"]):
        assert process(*form, "--version") == (0, f"{VERSION}\n", "")
    assert process("-m", "openrouter_video_mock", "--prot", "1").status == 2
    with nobody() as port:
        done = command("--check", "--port", str(port), "--wait", "0.1")
        assert done.status == 1 and done.err.startswith("no mock on 127.0.0.1:")


def test_all_that_is_wrong_with_fixtures_is_said_at_once(tmp_path: Path) -> None:
    bad = {
        "fixtures": [{"match": {"promt": 1}}, {"match": {}}, {"times": 1}],
        "models": [{}],
    }
    file = write(tmp_path / "a.json", bad)
    other = write(tmp_path / "b.json", "{")
    done = command("--validate", "-f", str(tmp_path))
    assert (done.status, done.out) == (1, "")
    lines = done.err.splitlines()
    for start in (
        f"{file}: fixtures[0].match.promt: unknown key",
        f"{file}: fixtures[2].match: is missing",
        f"{file}: models[0].id: is missing",
        f"{other}: cannot be read: ",
    ):
        assert [line for line in lines if line.startswith(start)], start
    assert len(lines) == 4


def test_a_folder_without_fixtures_is_said(tmp_path: Path) -> None:
    done = command("--validate", "-f", str(tmp_path))
    assert str(tmp_path) in done.err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_neither_file_nor_folder_stops_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.json")
    done = command("--validate", "-f", str(tmp_path / "f.json"))
    assert (done.status, done.out) == (1, "")
    assert done.err == f"{tmp_path / 'f.json'}: neither a file nor a folder\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_an_output_that_takes_nothing_is_no_traceback(where: str) -> None:
    python = shlex.join([sys.executable, "-m", "openrouter_video_mock", "--validate"])
    ran = subprocess.run(
        ["sh", "-c", f"exec {python} {where}"],
        cwd=installation().name,
        env=environment_with({}),
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
    )
    assert ran.stderr.count(b"\n") <= 1 and b"Traceback" not in ran.stderr


def test_something_else_on_the_port_is_no_mock() -> None:
    with Receiver() as other:  # answers 501 in HTML
        port = other.url.split(":")[2].partition("/")[0]
        done = command("--check", "--port", port)
        assert done.status == 1
        said = f"no mock on 127.0.0.1:{port}: something else answers there\n"
        assert done.err == said


RAN_TWICE = """
import os, signal, threading
import openrouter_video_mock
class Out:
    def write(self, line):
        os.kill(os.getpid(), signal.SIGINT)
    def flush(self):
        pass
numbers = signal.SIGINT, signal.SIGTERM
before = [signal.getsignal(number) for number in numbers]
for _ in range(2):
    print(openrouter_video_mock.main(["--port", "0", "-q"], environment={}, stdout=Out()))
    print([signal.getsignal(number) for number in numbers] == before)
"""


def test_a_process_that_goes_on_has_its_signal_handlers_back() -> None:
    done = process("-c", RAN_TWICE)
    assert (done.status, done.out) == (0, "0\nTrue\n" * 2), done.err


def test_it_ends_when_standard_input_does() -> None:
    with running("--port", "0", "--until-stdin-closes", stdin=subprocess.PIPE) as (
        started,
        origin,
    ):
        assert submit(origin)
        assert started.poll() is None
        started.communicate(timeout=PATIENCE)  # closes it
        assert started.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        connect(origin)


# ============ What must not come back


def test_resets_from_everywhere_leave_no_thread_and_nobody_waiting() -> None:
    before = set(threading.enumerate())
    with MockServer(fixtures=[], callback_url="http://127.0.0.1:9/") as mock:

        def reset(_: int) -> None:
            for _ in range(10):
                submit(mock)
                mock.reset()
                mock.advance(0)

        in_parallel(4, reset)
    assert eventually(lambda: set(threading.enumerate()) <= before)


def test_a_reset_after_the_stop_starts_nothing() -> None:
    before = set(threading.enumerate())
    mock = MockServer(fixtures=[]).start()
    mock.stop()
    mock.reset()
    mock.advance(1)
    assert mock.requests(wait=PATIENCE, count=3) == [], "at once"
    assert eventually(lambda: set(threading.enumerate()) <= before)


def test_an_id_in_the_query_of_a_submit_names_no_job(mock: MockServer) -> None:
    job_id = submit(mock)
    body = {"model": 1, "provider": None}
    reply = call(mock, "POST", f"/api/v1/videos?id={job_id}", body)
    assert reply.status == 400
    assert mock.requests(job_id=job_id)[-1]["status"] == 202
    assert all(finding["requests"] != [2] for finding in mock.findings(job_id=job_id))


def test_a_doubled_key_is_refused(mock: MockServer) -> None:
    head = b"GET /api/v1/credits HTTP/1.1\r\nHost: a\r\n"
    key = b"Authorization: Bearer x\r\n"
    with connect(mock) as client:
        client.sendall(head + key + key + b"\r\n")
        assert b"400" in client.recv(65_536).split(b"\r\n")[0]


@pytest.mark.parametrize("factor", [1e300, 2**53])
def test_a_number_has_no_bound_but_its_own(factor: float) -> None:
    body = json.dumps(veo(upscale_factor=factor)).encode()
    assert ovm.parse_video_request(body).shape.upscale_factor == factor


def test_another_key_after_a_401_is_no_repetition() -> None:
    with MockServer(api_key=["good"], fixtures=[]) as mock:
        for key in ("bad1", "bad2"):
            post(mock, veo(), Authorization=f"Bearer {key}", X_Test_Id="t")
        for _ in range(2):
            call(mock, "GET", "/api/v1/key", Authorization="Bearer bad", X_Test_Id="t")
        assert mock.findings(rule="refusal-retried") == []
        for _ in range(2):
            post(mock, veo(), Authorization="Bearer bad3", X_Test_Id="t")
        assert len(mock.findings(rule="refusal-retried")) == 1


def test_a_refusal_after_a_success_in_between_is_no_repetition(mock: MockServer) -> None:
    broke = {"on": "submit", "status": 402, "times": 1}
    for fault in (broke, None, broke):
        if fault:
            mock.add_fault(fault)
        post(mock, veo())
    assert mock.findings(rule="refusal-retried") == []


def test_an_order_is_the_same_in_another_order_of_its_keys(mock: MockServer) -> None:
    lost = veo(prompt="mock:lost-response")
    for body in (lost, dict(reversed(lost.items()))):
        with contextlib.suppress(OSError, http.client.HTTPException):
            post(mock, body)
    assert [finding["rule"] for finding in mock.findings(rule="paid-twice")] == [
        "paid-twice"
    ]


def test_without_a_journal_no_verdict_is_silent() -> None:
    with MockServer(fixtures=[], max_requests=0) as mock:
        submit(mock)
        with pytest.raises(AssertionError, match="forgotten 1 requests") as failure:
            mock.assert_no_findings()
        assert "(requests )" not in str(failure.value)


def test_a_stop_during_the_start_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    for turn in range(100):
        mock = MockServer(fixtures=[])

        def begin_or_end(end: int, mock: MockServer = mock, turn: int = turn) -> None:
            if end:
                time.sleep(turn * 5e-6)
                mock.stop()
            else:
                with contextlib.suppress(RuntimeError):  # stopped already
                    mock.start()

        in_parallel(2, begin_or_end)
        with pytest.raises(RuntimeError, match="not running"):
            print(mock.url)
    assert eventually(lambda: set(threading.enumerate()) <= before)


def test_a_download_that_stalls_over_tls_is_cut_short_and_no_tls_error(
    certificate: tuple[str, str],
) -> None:
    cert, key = certificate
    fault = {"on": "content", "stall": 2000, "delay": 0.05}
    with MockServer(cert=cert, key=key, fault=fault, polls=(0, 0)) as mock:
        port = int(mock.origin.rpartition(":")[2])
        trusting = ssl.create_default_context(cafile=cert)
        client = http.client.HTTPSConnection(
            "localhost", port, context=trusting, timeout=PATIENCE
        )
        headers = {"Authorization": "Bearer x"}
        with contextlib.closing(client):
            client.request("POST", "/api/v1/videos", json.dumps(veo()), headers)
            job_id = json.load(client.getresponse())["id"]
            client.request("GET", f"/api/v1/videos/{job_id}", headers=headers)
            assert json.load(client.getresponse())["status"] == "completed"
            client.request("GET", f"/api/v1/videos/{job_id}/content", headers=headers)
            with pytest.raises(http.client.IncompleteRead):
                client.getresponse().read()


def test_a_prompt_without_a_test_is_no_match_for_everything() -> None:
    with pytest.raises(SetupError, match=r"match\.prompt: give one of equals"):
        MockServer(fixtures=[{"match": {"prompt": {}}}])


# ============ Docs


def test_the_help_gives_the_defaults() -> None:
    explained = " ".join(command("--help").out.split())
    for name, value in Config(port=8080)._asdict().items():
        if value and name != "fixtures":
            shown = str(value).strip("()").replace(", ", ",").removesuffix(".0")
            help_text = ovm.SETTINGS[name]["help"]
            assert help_text.endswith(f" (default: {shown})"), name
            assert help_text in explained, name


def test_every_route_and_every_option_is_in_the_readme(mock: MockServer) -> None:
    for _, path, _ in routes():
        assert path.replace("{jobId}", "{id}") in README, path
    for flag in flags() - {"--help", "--version"}:
        assert flag in README, flag
    for fixture in mock.fixtures():
        assert fixture["name"] in README


def test_every_key_of_a_fault_and_a_fixture_is_in_the_readme() -> None:
    faults = ovm.FAULT_SCHEMA["properties"]
    for word in (*faults, *faults["on"]["enum"], *ovm.TRIALS):
        assert f"`{word}`" in README, word
    fixture = ovm.FIXTURE_SCHEMA["properties"]
    video = fixture["response"]["properties"]["video"]["properties"]
    inert = {"id", "url", "duration"}  # aimock's, without effect
    for word in video.keys() - inert | {"name", "times", "lifecycle", "webhook"}:
        assert f'"{word}"' in README, word


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_examples_of_the_readme_run(vendored: dict[str, str]) -> None:
    outcomes = [vendored[name] for name in vendored if name.startswith("test_readme_")]
    assert outcomes and set(outcomes) == {"PASSED"}


def test_the_fixture_example_of_the_readme_is_valid(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    (example,) = blocks("jsonc")
    file = write(tmp_path / "f.json", re.sub(r"(?m)\s//.*$", "", example))
    with MockServer(fixtures=file) as mock:
        body = veo(prompt="a sunset", duration=8, frame_images=IMAGE)
        reply = post(mock, body, X_AIMock_Context="tenant-b")
        assert reply.status == 202 and mock.job()["fixture"] == "slow sunset", reply.raw
        assert post(mock, veo(prompt="busy")).status == 429


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_curl_lines_of_the_readme_run(mock: MockServer) -> None:
    (console,) = [
        block for block in blocks("console") if "curl" in block and "--port 8080" in block
    ]
    lines = re.sub(r"\\\n\s*", "", console)
    commands = re.findall(r"(?m)^\$ (curl .*)$", lines)
    assert len(commands) >= 3
    job_id = ""
    for line in commands:
        line = line.replace("localhost:8080", mock.origin.removeprefix("http://")).replace(
            "$ID", job_id
        )
        words = [*shlex.split(line, comments=True), "--fail-with-body"]
        done = subprocess.run(words, capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0, done
        if found := re.search(rb"gen-vid-[0-9A-Za-z-]+", done.stdout):
            job_id = found[0].decode()

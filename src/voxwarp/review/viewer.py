"""A result in three dimensions: NiiVue in the browser, served to this machine alone."""

import gzip
import importlib.util
import io
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np

from ..errors import InputError
from ..layout import REPORT, WARPED, WARPED_LABELS
from ..pictures.pages import TEMPLATES, fragment, policy
from ..pictures.report import SCRIPT, warnings_of
from ..registration.record import input_path, read_record
from ..space.image_file import nifti
from ..space.volume import ImageLike, Volume, read_series, read_volume

Kind = Literal["image", "labels"]

# NiiVue starts workers from its own text, and draws with pictures that are in it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; worker-src blob:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Layer:
    """A volume that is shown.

    Args:
        name: what the user reads.
        kind: intensities, or labels.
        source: the file, or an image of nibabel's.
    """

    name: str
    kind: Kind
    source: ImageLike

    @cached_property
    def payload(self) -> bytes:
        """The volume as a gzipped NIfTI file, whatever its own format; labels from 1 on."""
        volume = read_series(self.source, self.name)
        if self.kind == "labels":
            found, place = np.unique(volume.data, return_inverse=True)
            index = np.array([self.values.index(value) for value in found.tolist()], np.uint16)
            volume = Volume(index[place].reshape(volume.data.shape), volume.grid)
        image = nifti(_plain(volume.data), volume.grid)
        image.header.set_intent("label" if self.kind == "labels" else "none")
        stream = io.BytesIO()
        with gzip.GzipFile("", "wb", 1, stream, mtime=0) as zipped:
            zipped.write(image.to_bytes())
        return stream.getvalue()

    @cached_property
    def values(self) -> list[float]:
        """Of labels: 0 and the values, in order; their places are what ``payload`` holds."""
        if self.kind == "image":
            return []
        found = np.unique(read_series(self.source, self.name).data)
        return [0, *(value for value in found.tolist() if value != 0)]


def layers(folder: Path, fixed: Path | None = None) -> list[Layer]:
    """What there is to be seen of a registration's folder, from the lowest layer up.

    Scans outside of the folder are shown where they are those of the record, by their hash.

    Args:
        folder: that ``register`` wrote.
        fixed: the fixed scan, where it is not at its place any more.

    Raises:
        InputError: the folder holds no registration, or the fixed scan is not there.
    """
    record = read_record(folder)
    if fixed is None:
        try:
            fixed = input_path(record, "fixed")
        except InputError as error:
            raise InputError(f"{error}: give the fixed scan with --fixed") from error
    if fixed is None:
        raise InputError(f"result {folder}: it names no fixed scan: give that with --fixed")
    for path, what in ((fixed, "fixed image"), (folder / WARPED, "result")):
        read_volume(path, what)
    found = [Layer("fixed", "image", fixed), Layer("moved", "image", folder / WARPED)]
    if (folder / WARPED_LABELS).is_file():
        found.append(Layer("moved labels", "labels", folder / WARPED_LABELS))
    with suppress(InputError):  # they are not needed to look at the result
        if fixed_labels := input_path(record, "fixed_labels"):
            found.append(Layer("fixed labels", "labels", fixed_labels))
    return found


def _plain(data: np.ndarray) -> np.ndarray:
    """In a type that every viewer reads."""
    if data.dtype.kind == "f" or data.dtype.itemsize > 4:
        return data.astype(np.float32)
    return data.astype(np.uint8) if data.dtype.kind == "b" else data


@cache
def niivue() -> str:
    """NiiVue as a module of JavaScript, as the package ipyniivue carries it.

    That package embeds the module as text, for the pages that it saves.

    Raises:
        InputError: ipyniivue is not installed, or another version, that has it not.
    """
    spec = importlib.util.find_spec("ipyniivue")
    if spec is None or spec.origin is None:
        raise InputError("the viewer needs NiiVue: pip install 'voxwarp[view]'")
    widget = Path(spec.origin).parent / "static" / "widget.js"
    try:
        text = widget.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"NiiVue cannot be read: {widget}: {error.strerror}") from error
    for quoted in re.findall(r'="((?:[\w.!~*\'()-]|%[0-9A-F]{2}){1000000,})"', text):
        module = unquote(quoted)
        if re.search(r"export\{[^}]*\bNiivue\b[^}]*\};?\s*$", module):
            return module
    raise InputError(f"{widget}: NiiVue is not in it as expected: wanted ipyniivue 2.4")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: browsers hang up as they like, and the terminal is the user's."""


class Viewer:
    """A server of one result, for browsers on this machine that know the token.

    Nothing but the pages, NiiVue and the layers can be asked for: there are no paths in it.

    Args:
        title: of the page.
        shown: the layers, from the lowest up.
        report: the result's report, if it has one.
        warnings: of the registration.
        port: 0: any that is free.
    """

    def __init__(
        self,
        title: str,
        shown: list[Layer],
        report: Path | None = None,
        *,
        warnings: Sequence[str] = (),
        port: int = 0,
    ):
        self.token = secrets.token_urlsafe(24)
        self.title, self.shown, self.report = title, shown, report
        self.warnings = warnings
        self.server = _Server(("127.0.0.1", port), _handler(self))
        self.answers = self._answers()

    @property
    def url(self) -> str:
        """Where the page is, token and all."""
        return f"http://127.0.0.1:{self.server.server_port}/{self.token}/"

    def serve(self) -> None:
        """Answer until ``close`` is called, or Ctrl-C is pressed."""
        try:
            self.server.serve_forever(poll_interval=0.1)
        finally:
            self.server.server_close()

    def close(self) -> None:
        """End ``serve``."""
        self.server.shutdown()

    def _answers(self) -> Mapping[str, tuple[str, Callable[[], bytes]]]:
        """Type and content of everything that can be asked for, by its name."""
        script = "text/javascript; charset=utf-8"
        answers: dict[str, tuple[str, Callable[[], bytes]]] = {
            "": ("text/html; charset=utf-8", self._page),
            "niivue.js": (script, lambda: niivue().encode()),
            "viewer.js": (script, (TEMPLATES / "viewer.js").read_bytes),
        }
        for index, layer in enumerate(self.shown):
            answers[f"{index}.nii.gz"] = ("application/gzip", partial(getattr, layer, "payload"))
        if self.report:
            answers[REPORT] = ("text/html; charset=utf-8", self.report.read_bytes)
        return answers

    def _page(self) -> bytes:
        described = [
            {
                "name": layer.name,
                "kind": layer.kind,
                "url": f"{index}.nii.gz",
                "values": [f"{value:.16g}" for value in layer.values],
            }
            for index, layer in enumerate(self.shown)
        ]
        return fragment(
            "viewer.html",
            title=self.title,
            layers=described,
            warnings=self.warnings,
            report=REPORT if self.report else "",
            style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        ).encode()


def view(folder: Path, fixed: Path | None = None, *, port: int = 0) -> Viewer:
    """A viewer of a registration's folder; nothing is served before its ``serve``.

    Raises:
        InputError: see ``layers`` and ``niivue``; or the port is taken.
    """
    niivue()
    shown = layers(folder, fixed)
    report = folder / REPORT if (folder / REPORT).is_file() else None
    try:
        warnings = warnings_of(read_record(folder))
        return Viewer(folder.resolve().name, shown, report, warnings=warnings, port=port)
    except OSError as error:
        raise InputError(f"port {port}: {error.strerror or error}") from error


def _handler(viewer: Viewer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers requests that come from this machine and name the token."""

        protocol_version = "HTTP/1.1"
        timeout = 60  # seconds that a browser may keep a connection for nothing

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            port = viewer.server.server_port
            # Another site's page can lead a browser here under its own name, but not under ours.
            local = self.headers.get("Host") in (f"127.0.0.1:{port}", f"localhost:{port}")
            token, slash, name = self.path.partition("?")[0].removeprefix("/").partition("/")
            known = secrets.compare_digest(token.encode(), viewer.token.encode())
            if not (local and known and slash and name in viewer.answers):
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not here\n", with_body)
                return
            kind, content = viewer.answers[name]
            try:
                payload = content()
            except Exception as error:
                told = f"{error}\n".encode("utf-8", "replace")
                self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", told, with_body)
                return
            self._send(HTTPStatus.OK, kind, payload, with_body, of_report=name == REPORT)

        def _send(
            self,
            status: HTTPStatus,
            kind: str,
            payload: bytes,
            with_body: bool,
            *,
            of_report: bool = False,
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(payload)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            # A report is a file, of anybody's: it may run our script, and see nothing from here.
            allowed = f"{policy(SCRIPT)}; sandbox allow-scripts" if of_report else POLICY
            self.send_header("Content-Security-Policy", allowed)
            if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
                self.close_connection = True  # what follows is no request
            self.end_headers()
            if with_body:
                self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the terminal is the user's."""

    return Handler

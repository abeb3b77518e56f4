"""A viewer of one result in three dimensions: NiiVue in the browser, served to this machine."""

import gzip
import importlib.util
import io
import os
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

from .._files import check_readable
from .._layout import REPORT, WARPED, WARPED_LABELS
from ..errors import InputError
from ..pictures.pages import TEMPLATES, fragment, policy
from ..pictures.report import SCRIPT, recorded_warnings
from ..registration.record import input_path, read_record
from ..space.image_file import nifti
from ..space.volume import ImageLike, Volume, read_placement, read_series, read_volume

Kind = Literal["image", "labels"]

# NiiVue starts workers from blobs, and has its pictures as data.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; worker-src blob:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Layer:
    """A volume in the viewer.

    Args:
        name: as the page shows it.
        kind: "image" for intensities, or "labels".
        source: a file or an image.
    """

    name: str
    kind: Kind
    source: ImageLike

    @cached_property
    def payload(self) -> bytes:
        """The volume as a gzipped NIfTI file; labels are numbered from 1, see ``values``."""
        volume = read_series(self.source, self.name)
        if self.kind == "labels":
            labels, position = np.unique(volume.data, return_inverse=True)
            index = np.array([self.values.index(value) for value in labels.tolist()], np.uint16)
            volume = Volume(index[position].reshape(volume.data.shape), volume.grid)
        image = nifti(_plain(volume.data), volume.grid)
        image.header.set_intent("label" if self.kind == "labels" else "none")
        stream = io.BytesIO()
        with gzip.GzipFile("", "wb", 1, stream, mtime=0) as zipped:
            zipped.write(image.to_bytes())
        return stream.getvalue()

    @cached_property
    def values(self) -> list[float]:
        """0 and the other values of a label map; ``payload`` holds their positions in this list."""
        if self.kind == "image":
            return []
        labels = np.unique(read_series(self.source, self.name).data)
        return [0, *(value for value in labels.tolist() if value != 0)]


def layers(folder: Path, fixed: Path | None = None) -> list[Layer]:
    """The layers of a registration, from the lowest up: fixed, moved, and the labels.

    The fixed scan and its labels are outside the folder. They are shown only if their hashes are
    those in the record.

    Args:
        folder: of the result.
        fixed: the fixed scan, if its file was moved after the registration.

    Raises:
        InputError: the folder holds no registration, or the fixed scan cannot be found.
    """
    record = read_record(folder)
    if fixed is None:
        try:
            fixed = input_path(record, "fixed")
        except InputError as error:
            raise InputError(f"{error}; give the fixed scan with `fixed`") from error
    if fixed is None:
        raise InputError(
            f"result {folder}: metrics.json names no fixed scan; give the scan with `fixed`"
        )
    for path, name in ((fixed, "fixed scan"), (folder / WARPED, "moved scan")):
        read_volume(path, name)
    shown = [Layer("fixed", "image", fixed), Layer("moved", "image", folder / WARPED)]
    if os.path.lexists(folder / WARPED_LABELS):
        check_readable(folder / WARPED_LABELS, "moved labels")
        shown.append(Layer("moved labels", "labels", folder / WARPED_LABELS))
    with suppress(InputError):  # without the file, the other layers can still be shown
        if fixed_labels := input_path(record, "fixed_labels"):
            shown.append(Layer("fixed labels", "labels", fixed_labels))
    return shown


def doubts_about(shown: Sequence[Layer]) -> list[str]:
    """What the headers of the layers leave in doubt, one sentence each."""
    return [text for x in shown for text in read_placement(x.source, x.name).warnings]


def _plain(data: np.ndarray) -> np.ndarray:
    """Convert data to a type that NiiVue reads."""
    if data.dtype.kind == "f" or data.dtype.itemsize > 4:
        return data.astype(np.float32)
    return data.astype(np.uint8) if data.dtype.kind == "b" else data


@cache
def niivue() -> str:
    """The JavaScript module of NiiVue, from the package ipyniivue.

    That package embeds the module as text, for the pages that it saves.

    Raises:
        InputError: ipyniivue is not installed, or is a version that does not embed the module.
    """
    spec = importlib.util.find_spec("ipyniivue")
    if spec is None or spec.origin is None:
        raise InputError(
            "the viewer needs NiiVue, which is not installed: pip install 'voxwarp[view]'"
        )
    widget = Path(spec.origin).parent / "static" / "widget.js"
    try:
        text = widget.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"NiiVue {widget}: this file cannot be read ({error.strerror})") from error
    for quoted in re.findall(r'="((?:[\w.!~*\'()-]|%[0-9A-F]{2}){1000000,})"', text):
        module = unquote(quoted)
        if re.search(r"export\{[^}]*\bNiivue\b[^}]*\};?\s*$", module):
            return module
    raise InputError(
        f"NiiVue {widget}: this version of ipyniivue does not work with the viewer; install "
        f"ipyniivue 2.4: pip install 'voxwarp[view]'"
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: browsers close connections at any time, and that is no error."""


class Viewer:
    """A server of one result, for browsers on this machine that know the secret token.

    It serves the page, NiiVue, the layers and the report, and no other file.

    Args:
        title: of the page.
        shown: the layers, from the lowest up.
        report: the report of the result, if it has one.
        warnings: of the registration.
        port: the port; 0 takes a free one.
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
        self.contents = self._contents()

    @property
    def url(self) -> str:
        """The address of the page, with the token."""
        return f"http://127.0.0.1:{self.server.server_port}/{self.token}/"

    def serve(self) -> None:
        """Serve until ``close`` is called or Ctrl-C is pressed."""
        try:
            self.server.serve_forever(poll_interval=0.1)
        finally:
            self.server.server_close()

    def close(self) -> None:
        """End ``serve``."""
        self.server.shutdown()

    def _contents(self) -> Mapping[str, tuple[str, Callable[[], bytes]]]:
        """Type and contents of everything that is served, by name."""
        script = "text/javascript; charset=utf-8"
        contents: dict[str, tuple[str, Callable[[], bytes]]] = {
            "": ("text/html; charset=utf-8", self._page),
            "niivue.js": (script, lambda: niivue().encode()),
            "viewer.js": (script, (TEMPLATES / "viewer.js").read_bytes),
        }
        for index, layer in enumerate(self.shown):
            contents[f"{index}.nii.gz"] = ("application/gzip", partial(getattr, layer, "payload"))
        if self.report:
            contents[REPORT] = ("text/html; charset=utf-8", self.report.read_bytes)
        return contents

    def _page(self) -> bytes:
        """The page with the viewer."""
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
    """Make a viewer of a saved result; ``Viewer.serve`` starts it.

    Args:
        folder: of the result.
        fixed: the fixed scan, if its file was moved after the registration.
        port: of the page; 0 takes a free one.

    Raises:
        InputError: see ``layers`` and ``niivue``; or the port is already in use.
    """
    niivue()
    shown = layers(folder, fixed)
    report = folder / REPORT if (folder / REPORT).is_file() else None
    try:
        warnings = recorded_warnings(read_record(folder))
        return Viewer(folder.resolve().name, shown, report, warnings=warnings, port=port)
    except OSError as error:
        raise InputError(
            f"port {port} cannot be used ({error.strerror or error}); choose another one, or 0 for "
            f"a free one"
        ) from error


def _handler(viewer: Viewer) -> type[BaseHTTPRequestHandler]:
    """The class that answers requests to a viewer."""

    class Handler(BaseHTTPRequestHandler):
        """Answers requests from this machine that have the token."""

        protocol_version = "HTTP/1.1"
        timeout = 60  # seconds until an idle connection is closed

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            port = viewer.server.server_port
            # A foreign site can make its own host name point here (DNS rebinding), but not ours.
            local = self.headers.get("Host") in (f"127.0.0.1:{port}", f"localhost:{port}")
            token, slash, name = self.path.partition("?")[0].removeprefix("/").partition("/")
            known = secrets.compare_digest(token.encode(), viewer.token.encode())
            if not (local and known and slash and name in viewer.contents):
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n", with_body)
                return
            kind, content = viewer.contents[name]
            try:
                payload = content()
            except Exception as error:
                reason = f"{error}\n".encode("utf-8", "replace")
                self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", reason, with_body)
                return
            self._send(HTTPStatus.OK, kind, payload, with_body, is_report=name == REPORT)

        def _send(
            self,
            status: HTTPStatus,
            kind: str,
            payload: bytes,
            with_body: bool,
            *,
            is_report: bool = False,
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(payload)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            # A report may come from anybody: it may run our script, but not read from this server.
            allowed = f"{policy(SCRIPT)}; sandbox allow-scripts" if is_report else POLICY
            self.send_header("Content-Security-Policy", allowed)
            if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
                self.close_connection = True  # the body is not another request
            self.end_headers()
            if with_body:
                self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

    return Handler

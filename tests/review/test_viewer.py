"""``voxwarp view``: what the server answers, and that Chromium draws it."""

import gzip
import http.client
import importlib.util
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest
from browser import PATIENCE, Browser, chromium
from odd_headers import TWO, of_two_minds
from PIL import Image
from webpages import HOSTILE, Parsed

from voxwarp._layout import METRICS, REPORT, WARPED, WARPED_LABELS
from voxwarp.errors import InputError
from voxwarp.review import viewer as module
from voxwarp.review.viewer import Layer, Viewer, doubts_about, layers, niivue, view
from voxwarp.space.grid import Grid
from voxwarp.space.volume import read_series


@pytest.fixture(scope="module")
def folder(phantoms, poses, unlike_grids, register_quickly, tmp_path_factory) -> Path:
    """A saved result with labels."""
    scans = tmp_path_factory.mktemp("scans")
    for role, grid in unlike_grids.items():
        pose = getattr(poses, role)
        nib.save(phantoms.image(grid, pose, np.int16), scans / f"{role}.nii.gz")
        nib.save(phantoms.labels(grid, pose), scans / f"{role}_labels.nii.gz")
    result = register_quickly(
        scans / "moving.nii.gz",
        scans / "fixed.nii.gz",
        labels=scans / "moving_labels.nii.gz",
        fixed_labels=scans / "fixed_labels.nii.gz",
    )
    out = tmp_path_factory.mktemp("results") / "sub <01> & 'co' ü"
    result.save(out)
    return out


def needs_niivue() -> None:
    if importlib.util.find_spec("ipyniivue") is None:
        pytest.skip("no NiiVue: pip install 'voxwarp[view]'")


@pytest.fixture
def running(folder) -> Iterator[Viewer]:
    needs_niivue()
    viewer = view(folder)
    thread = threading.Thread(target=viewer.serve)
    thread.start()
    yield viewer
    viewer.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def ask(
    viewer: Viewer, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """The answer to a request with exactly this path."""
    port = viewer.server.server_port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def test_all_parts_of_the_page_are_served(running, folder):
    base = urlsplit(running.url).path
    status, page, headers = ask(running, base)
    assert status == 200
    parsed = Parsed(page.decode())
    assert folder.name in parsed.words
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    names = ["niivue.js", "viewer.js", "report.html", *(f"{i}.nii.gz" for i in range(4))]
    for name in names:
        status, payload, _ = ask(running, base + name)
        assert status == 200, name
        assert payload, name
        status, body, headers = ask(running, base + name, "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) == len(payload)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/report.html",
        "/{token}",
        "/{token}/metrics.json",
        "/{token}/../metrics.json",
        "/{token}/../../../../../etc/passwd",
        "/{token}/%2e%2e/%2e%2e/etc/passwd",
        "/{token}/..%2fmetrics.json",
        "/{token}//etc/passwd",
        "/{token}/4.nii.gz",
        "/{token}x/report.html",
        "/{token}/report.html/",
        "/wrong/report.html",
        "/%00",
    ],
)
def test_nothing_else_is_served(running, path):
    status, payload, _ = ask(running, path.format(token=running.token))
    assert status == 404
    assert payload == b"not found\n"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "0.0.0.0:{port}", ""])
def test_other_names_of_this_machine_are_refused(running, host):
    """A foreign site whose name points here (DNS rebinding) gets nothing."""
    path = urlsplit(running.url).path
    name = host.format(port=running.server.server_port)
    assert ask(running, path, Host=name)[0] == 404
    assert ask(running, path, Host=f"localhost:{running.server.server_port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_it_only_reads(running, method):
    assert ask(running, urlsplit(running.url).path, method)[0] == 501


def test_other_machines_cannot_ask(running):
    assert running.server.server_address[0] == "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
        try:
            towards.connect(("192.0.2.1", 9))  # of no machine; nothing is sent
        except OSError:
            pytest.skip("this machine has no other address")
        own = towards.getsockname()[0]
    assert not own.startswith("127.")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((own, running.server.server_port), timeout=PATIENCE)


def test_tokens_differ_and_are_long(folder):
    needs_niivue()
    tokens = []
    for _ in range(3):
        viewer = view(folder)
        tokens.append(viewer.token)
        viewer.server.server_close()
    assert len(set(tokens)) == 3
    assert all(len(token) >= 32 for token in tokens)


def test_layers_are_the_scans(folder):
    """Fixed, moved and both label maps on their grids; labels are numbered from 1."""
    record = json.loads((folder / METRICS).read_text())
    scans = layers(folder)
    names = ["fixed", "moved", "moved labels", "fixed labels"]
    assert [layer.name for layer in scans] == names
    files = [
        Path(record["inputs"]["fixed"]["path"]),
        folder / WARPED,
        folder / WARPED_LABELS,
        Path(record["inputs"]["fixed_labels"]["path"]),
    ]
    for layer, path in zip(scans, files, strict=True):
        shown = nib.Nifti1Image.from_bytes(gzip.decompress(layer.payload))
        expected = nib.load(path)
        np.testing.assert_allclose(shown.affine, expected.affine, atol=1e-4)
        data = np.asarray(shown.dataobj)
        if layer.kind == "labels":
            assert shown.header.get_intent()[0] == "label"
            assert data.max() == len(layer.values) - 1
            data = np.array(layer.values)[data]
        np.testing.assert_array_equal(data, np.asarray(expected.dataobj))


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint8, np.int16, np.float32])
def test_types_that_viewers_read(tmp_path, dtype):
    path = tmp_path / "scan.nii.gz"
    data = np.arange(60).reshape(3, 4, 5).astype(dtype)
    nib.save(nib.Nifti1Image(data, np.eye(4), dtype=dtype), path)
    shown = nib.Nifti1Image.from_bytes(gzip.decompress(Layer("fixed", "image", path).payload))
    assert shown.get_data_dtype().itemsize <= 4
    np.testing.assert_array_equal(np.asarray(shown.dataobj), data)


@pytest.mark.parametrize("numbers", [[-1, 0, 11], [-5, -1], [0, 312782546, 312782547], [3, 4]])
def test_any_labels_are_numbered(tmp_path, numbers):
    """Also negative and large ones; 0 stays the background."""
    data = np.random.default_rng(1).choice(numbers, (4, 5, 6)).astype(np.int32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "labels.nii.gz")
    layer = Layer("labels", "labels", tmp_path / "labels.nii.gz")
    shown = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(layer.payload)).dataobj)
    np.testing.assert_array_equal(np.array(layer.values)[shown], data)
    assert layer.values[0] == 0


def test_the_body_of_a_request_is_not_another_request(running):
    path, port = urlsplit(running.url).path, running.server.server_port
    inner = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    request = f"GET /x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(inner)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall((request + inner).encode())
        answer = b""
        with suppress(ConnectionResetError):
            while block := connection.recv(1 << 16):
                answer += block
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"404" in answer.splitlines()[0]


def test_browsers_may_close_the_connection(running, capfd):
    path = urlsplit(running.url).path + "0.nii.gz"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", running.server.server_port)) as connection:
            host = f"Host: 127.0.0.1:{running.server.server_port}"
            connection.sendall(f"GET {path} HTTP/1.1\r\n{host}\r\n\r\n".encode())
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert ask(running, path)[0] == 200
    for thread in threading.enumerate():  # they would print errors when they end
        if "process_request_thread" in thread.name:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert capfd.readouterr().err == ""


def copied(folder: Path, to: Path, **inputs: object) -> Path:
    """A copy of a result with other inputs in its record."""
    to.mkdir()
    record = json.loads((folder / METRICS).read_text())
    record["inputs"] |= inputs
    (to / METRICS).write_text(json.dumps(record))
    (to / WARPED).write_bytes((folder / WARPED).read_bytes())
    return to


def test_a_record_cannot_make_it_show_other_files(folder, tmp_path, refuses):
    """The hash must be that of the file, and the file must be a scan."""
    needs_niivue()
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for number, recorded in enumerate(
        (
            {"path": str(secret), "sha256": "0" * 64},
            {"path": str(secret), "sha256": None},
            {"path": ["x"], "sha256": 1},
            {"path": "a\0b", "sha256": "0" * 64},
            {"path": "/dev/zero", "sha256": "0" * 64},
            None,
            {"path": str(tmp_path / "gone.nii.gz"), "sha256": "0" * 64},
            "text",
        )
    ):
        out = copied(folder, tmp_path / str(number), fixed=recorded)
        assert "--fixed" in refuses("view", out, "--no-browser")
    digest = sha256(secret.read_bytes()).hexdigest()
    out = copied(folder, tmp_path / "known", fixed={"path": str(secret), "sha256": digest})
    assert "not an image" in refuses("view", out, "--no-browser")


def test_warnings_come_first(folder, tmp_path):
    needs_niivue()
    out = copied(folder, tmp_path / "out")
    record = json.loads((out / METRICS).read_text())
    (out / METRICS).write_text(json.dumps(record | {"warnings": [HOSTILE]}))
    viewer = view(out)
    viewer.server.server_close()
    words = Parsed(viewer._page().decode()).words
    assert words.index(HOSTILE) < words.index("fixed")


def test_the_fixed_scan_may_have_moved(folder, tmp_path):
    record = json.loads((folder / METRICS).read_text())
    elsewhere = tmp_path / "elsewhere.nii.gz"
    elsewhere.write_bytes(Path(record["inputs"]["fixed"]["path"]).read_bytes())
    out = copied(folder, tmp_path / "out", fixed={"path": "/gone", "sha256": "0"})
    assert layers(out, elsewhere)[0].source == elsewhere


def test_what_headers_leave_in_doubt_is_said(folder, tmp_path):
    """Of the files that are shown; our own have one placement."""
    record = json.loads((folder / METRICS).read_text())
    doubtful = of_two_minds(Path(record["inputs"]["fixed"]["path"]), tmp_path / "doubtful.nii.gz")
    assert doubts_about(layers(folder)) == []
    (doubt,) = doubts_about(layers(folder, doubtful))
    assert doubt.startswith(f"fixed {doubtful}: ")
    assert TWO in doubt


def test_volumes_in_the_viewer_have_their_space(folder):
    shown = layers(folder)[0]
    coded_4 = replace(shown, source=replace(read_series(shown.source), grid=_grid_of(shown, 4)))
    assert _stored(coded_4).header["sform_code"] == 4
    assert _stored(shown).header["sform_code"] == read_series(shown.source).grid.space_code


def _grid_of(layer: Layer, code: int) -> Grid:
    return read_series(layer.source).grid.in_space(code)


def _stored(layer: Layer) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(layer.payload))


def test_the_template_is_known(folder, tmp_path):
    out = copied(folder, tmp_path / "out", fixed={"template": "MNI152"}, fixed_labels=None)
    assert [layer.name for layer in layers(out)] == ["fixed", "moved"]


def test_folders_that_cannot_be_viewed(tmp_path, refuses):
    assert "no such file" in refuses("view", tmp_path / "gone", "--no-browser")
    with pytest.raises(InputError, match="give a folder that register wrote"):
        layers(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "metrics.json" in refuses("view", tmp_path / "empty", "--no-browser")
    (tmp_path / "empty" / METRICS).write_text("{")
    assert "not the record" in refuses("view", tmp_path / "empty", "--no-browser")


def test_a_port_that_is_in_use(folder, refuses):
    needs_niivue()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port}" in refuses("view", folder, "--no-browser", "--port", port)


def test_without_niivue(folder, monkeypatch, refuses):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    niivue.cache_clear()
    try:
        assert "voxwarp[view]" in refuses("view", folder, "--no-browser")
    finally:
        niivue.cache_clear()


def test_with_another_niivue(tmp_path, monkeypatch):
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "widget.js").write_text('var a="text";')
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: spec)
    niivue.cache_clear()
    try:
        with pytest.raises(InputError, match=r"install ipyniivue 2\.4"):
            niivue()
    finally:
        niivue.cache_clear()


def test_as_a_command(folder):
    """It prints its address and answers, and Ctrl-C ends it without an error."""
    needs_niivue()
    process = subprocess.Popen(
        [sys.executable, "-m", "voxwarp", "view", str(folder), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env=os.environ | {"PYTHONUNBUFFERED": ""},
    )
    try:
        assert process.stdout is not None
        url = urlsplit(process.stdout.readline().strip())
        assert url.hostname == "127.0.0.1"
        connection = http.client.HTTPConnection("127.0.0.1", url.port or 0, timeout=PATIENCE)
        connection.request("GET", url.path)
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0
    assert len(complaints.splitlines()) == 1  # that it ends


# In the browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def drawn(browser: Browser) -> np.ndarray:
    """The visible canvas, (height, width, 3)."""
    shot = Image.open(io.BytesIO(browser.find("#canvas").screenshot_as_png)).convert("RGB")
    return np.asarray(shot).astype(int)


def slide(browser: Browser, layer: int, value: float) -> None:
    browser.run(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
        browser.find(f'input[data-layer="{layer}"]'),
        value,
    )


@pytest.fixture
def opened(browser, running) -> Browser:
    browser.width(1400)
    browser.open(running.url)
    browser.wait(lambda: browser.run("return document.body.dataset.ready") == "yes")
    browser.wait(lambda: drawn(browser).std() > 5)
    return browser


def test_it_draws(opened, folder):
    """It draws slices, and shows the values under the cross-hairs."""
    assert folder.name in opened.find("h1").text
    assert len(np.unique(drawn(opened).reshape(-1, 3), axis=0)) > 50
    location = opened.find("#where").text
    assert "mm" in location
    assert "fixed" in location
    assert opened.complaints() == []


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_sliders_change_the_picture(opened, layer):
    for other in range(4):
        slide(opened, other, 1 if other == 0 else 0)
    before = drawn(opened)
    slide(opened, layer, 0 if layer == 0 else 1)
    opened.wait(lambda: np.abs(drawn(opened) - before).mean() > 1)
    assert opened.complaints() == []


def test_labels_are_coloured_and_the_background_is_not(opened):
    slide(opened, 1, 0)
    grey = drawn(opened)
    slide(opened, 2, 1)
    opened.wait(lambda: np.abs(drawn(opened) - grey).mean() > 1)
    coloured = drawn(opened)
    corner = np.s_[:30, :30]
    assert np.abs(coloured[corner] - grey[corner]).max() < 10
    assert (np.ptp(coloured, axis=2) > 60).mean() > 0.02  # not grey


def test_views_keys_and_clicks(opened):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    before = drawn(opened)
    for name in ("axial", "coronal", "sagittal", "render", "multi"):
        opened.find(f'#view option[value="{name}"]').click()
        opened.wait(lambda before=before: np.abs(drawn(opened) - before).mean() > 0.5)
        before = drawn(opened)
    slider = opened.find('input[data-layer="1"]')
    opened.run("document.getElementById('canvas').focus()")
    for value in ("1", "0", "1"):  # one scan or the other, no blend
        opened.press("f")
        assert slider.get_attribute("value") == value
    opened.wait(lambda: np.abs(drawn(opened) - before).mean() > 0.5)
    for key in (Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.PAGE_DOWN):
        location = opened.find("#where").text
        opened.press(key)
        opened.wait(lambda location=location: opened.find("#where").text != location)
    location = opened.find("#where").text
    ActionChains(opened.driver).move_to_element_with_offset(
        opened.find("#canvas"), -420, 30
    ).click().perform()
    opened.wait(lambda: opened.find("#where").text != location)
    assert opened.complaints() == []


def test_scripts_of_foreign_reports_do_not_run(folder, tmp_path, browser):
    """A report may come from anybody."""
    needs_niivue()
    out = copied(folder, tmp_path / "out")
    (out / REPORT).write_text("<title>quiet</title><script>document.title='in'</script>")
    viewer = view(out)
    thread = threading.Thread(target=viewer.serve)
    thread.start()
    try:
        browser.open(viewer.url + "report.html")
        assert browser.driver.title == "quiet"
        assert "Content Security Policy" in str(browser.complaints())
        (out / REPORT).write_bytes((folder / REPORT).read_bytes())
        browser.open(viewer.url + "report.html")
        assert browser.find("#flicker").is_displayed()  # our own script runs
        assert browser.complaints() == []
    finally:
        viewer.close()
        thread.join(PATIENCE)


def test_a_narrow_window(opened):
    opened.width(400)
    assert opened.run("return document.documentElement.scrollWidth") <= 400
    opened.wait(lambda: drawn(opened).std() > 5)


def test_hostile_names_are_escaped(folder, tmp_path, browser):
    """A folder's name and a record cannot add markup to the page."""
    needs_niivue()
    out = copied(folder, tmp_path / HOSTILE.replace("/", "∕"))
    viewer = view(out)
    thread = threading.Thread(target=viewer.serve)
    thread.start()
    try:
        browser.open(viewer.url)
        browser.wait(lambda: browser.run("return document.body.dataset.ready") == "yes")
        assert browser.find("h1").text == out.name
        assert browser.driver.title == f"{out.name} · voxwarp view"
        assert browser.complaints() == []
    finally:
        viewer.close()
        thread.join(PATIENCE)

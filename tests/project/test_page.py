"""brax's page in a browser; skipped without Chromium or Chrome, npm and a package registry.

The page loads its scripts from the network. Here they come from npm, in the same versions, so that
the test depends on no other server.
"""

import functools
import http.server
import importlib.util
import re
import shutil
import subprocess
import threading
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest

import jaxrl_envs
from jaxrl_envs import render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
SCRIPT = re.compile(r'https://(?:unpkg\.com|cdn\.jsdelivr\.net/npm)/([\w-]+)@([\d.]+)/([^"]*)')
VIEWER = re.compile(r"https://cdn\.jsdelivr\.net/gh/google/brax@v[\d.]+/brax/visualizer/js/")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A screenshot of the page in Chromium, and its console output."""
    if BROWSER is None:
        pytest.skip("there is no Chromium or Chrome")
    if shutil.which("npm") is None:
        pytest.skip("there is no npm")
    folder = tmp_path_factory.mktemp("page")
    env = jaxrl_envs.make("brax/inverted_pendulum", backend="spring")
    start = jax.jit(env.reset)(jax.random.key(0))[0]
    render.render(env, jax.tree.map(lambda x: x[None], start), [0.0], folder / "page.html")
    page = (folder / "page.html").read_text(encoding="utf-8")
    wanted = {f"{name}@{version}" for name, version, _ in SCRIPT.findall(page)}
    assert any(name.startswith("three@") for name in wanted)
    install = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *sorted(wanted)],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if install.returncode:
        pytest.skip(f"npm reaches no registry: {install.stderr.strip().splitlines()[-1]}")
    page = VIEWER.sub("/js/", SCRIPT.sub(_from_npm, page))
    (folder / "page.html").write_text(page, encoding="utf-8")
    [brax] = importlib.util.find_spec("brax").submodule_search_locations
    shutil.copytree(Path(brax) / "visualizer" / "js", folder / "js")
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = subprocess.run(
            [
                BROWSER, "--headless=new", "--no-sandbox", "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader", "--enable-logging=stderr", "--window-size=640,480",
                f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000",
                f"--screenshot={folder / 'page.png'}",
                f"http://127.0.0.1:{server.server_port}/page.html",
            ],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        server.shutdown()
    assert browser.returncode == 0, browser.stderr
    return PIL.Image.open(folder / "page.png").convert("RGB"), browser.stderr


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def _from_npm(match):
    """The path in an npm package for the URL of a script; `+esm` is its module."""
    name, _, path = match.groups()
    return f"/node_modules/{name}/" + path.replace("+esm", f"dist/{name}.esm.js")


@pytest.mark.thorough
def test_the_page_draws_the_cart_and_its_pole(opened):
    picture, console = opened
    said = [line for line in console.splitlines() if "CONSOLE" in line]
    assert not [line for line in said if "Uncaught" in line or "Error" in line], said
    red, _, blue = np.moveaxis(np.asarray(picture, int), 2, 0)
    bodies = red - blue > 15  # brax's colour of a body; the background and the rail are grey
    rows, columns = (np.flatnonzero(bodies.any(axis)) for axis in (1, 0))
    assert 20 < np.ptp(rows) < 200
    assert 10 < np.ptp(columns) < 200
    widths = bodies.sum(1)[rows]
    pole, cart = widths[: len(rows) // 2], widths[-8:]
    assert pole.max() < cart.max() / 2

"""A list on its way: from `picketctl serve` through the link service into the watch service."""

from __future__ import annotations

import random
import secrets
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import tomli_w

from appliance import config as configuration
from appliance.accelerator.manifest import SHIPPED, Manifest
from appliance.config import Config
from appliance.controller import cli
from appliance.link.downlink import Downlink
from appliance.link.nng import NngLink
from appliance.services.identity import load_identity
from appliance.services.join import join
from appliance.services.link import LinkService
from appliance.system.clock import SystemClock
from appliance.system.secret import SecretBuffer
from appliance.types import FalseMatch
from appliance.watchlist.admission import Model
from appliance.watchlist.bundle import WHOLE
from appliance.watchlist.trusted import TrustedWatchlist
from tests.path.fleet_hands import Serving, write_list
from tests.soak.proxy import Cable, Proxy

TEMPLATES = 4000
LIST_BYTES = TEMPLATES * 192 * 2
STEPS = 60
TABLE = FalseMatch((0.0, 0.5), (0.5, 1e-8), 0.5, 1e-8, 30.0, 10**6, 10**10, "made up")


class WatchSide:
    """The half of a watch service that takes lists, in the test's thread."""

    def __init__(self, config: Config, stack: ExitStack) -> None:
        node, boot = config.node, secrets.token_bytes(16)
        model = Manifest.load(SHIPPED).model("mobilefacenet-112").spec.id
        self.door = TrustedWatchlist(
            node=node.id,
            boot=boot,
            fleet=node.fleet,
            authorities=[bytes.fromhex(key) for key in node.authorities],
            signatures=node.signatures,
            online_key=bytes.fromhex(node.online_key),
            models={WHOLE: Model(model, 192, TABLE)},
            allocate=SecretBuffer,
        )
        stack.callback(self.door.wipe)
        link = NngLink(f"ipc://{config.local.run}/link.ipc", redial_s=(0.01, 0.1))
        self.downlink = Downlink(
            stack.enter_context(link),
            self.door,
            sign=load_identity(Path(node.identity)).sign,
            node=node.id,
            boot=boot,
            model=model,
            timeout_s=4.0,
            poll_s=1.0,
            rng=random.Random(1),  # noqa: S311 - a spread
            clock=SystemClock(),
            stop=threading.Event(),
            longest_s=0.1,
        )

    def until(self, holds: Callable[[], bool]) -> None:
        for _ in range(STEPS):
            if holds():
                return
            self.downlink.step()
        pytest.fail(f"not within {STEPS} steps; refused: {self.downlink.refused!r}")

    def here(self) -> int:
        """Pieces fetched of the list that is on its way."""
        return (self.downlink.fetching or (0, 0))[0]


@contextmanager
def link_service(config: Config) -> Iterator[None]:
    stop = threading.Event()
    with ExitStack() as stack:
        thread = threading.Thread(target=LinkService(config, stack, stop).run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def run(*words: object) -> None:
    assert cli.main([str(word) for word in words]) == 0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[Config, Proxy]]:
    """A joined node whose cable can be pulled, and a deployment for it under way."""
    fleet, folder = tmp_path / "fleet", tmp_path / "cam"
    run("init", fleet, "--name", "town")
    run("node", "add", "cam-1", "--fleet", fleet, "--out", folder)
    bundle = write_list(tmp_path / "market", fleet="town", templates=TEMPLATES)
    run("list", "sign", bundle, "--key", fleet / "authorities" / "authority.key")
    with Serving(fleet) as serving:
        proxy = Proxy(int(serving.url.rpartition(":")[2]))
        document = tomllib.loads((folder / "node.toml").read_text())
        document["link"] |= {
            "controllers": [f"tls+tcp://127.0.0.1:{proxy.port}"],
            "join": serving.join_url,
            "answer_timeout_s": 2.0,
        }
        document["local"] = {"run": "run"}
        document["camera"] = {"source": "scene", "path": "none.toml"}
        (folder / "run").mkdir()
        (folder / "node.toml").write_text(tomli_w.dumps(document))
        config = configuration.load(folder / "node.toml")
        join(config, folder / "join.toml")
        run(
            *("deploy", "start", "--fleet", fleet, "--list", bundle, "--nodes", "cam-1"),
            *("--until", "+8h", "--authority", "a", "--purpose", "p", "--location", "l"),
        )
        yield config, proxy
        proxy.close()


@pytest.mark.slow
def test_a_list_resumes_after_a_cut_and_crosses_the_network_once(
    node: tuple[Config, Proxy],
) -> None:
    config, proxy = node
    with ExitStack() as stack:
        watch = WatchSide(config, stack)
        with link_service(config):
            watch.until(lambda: watch.here() >= 5)
            proxy.cable = Cable.CUT
            watch.until(lambda: watch.downlink.fetching is None)
            assert watch.door.current is None
        proxy.cable = Cable.WHOLE
        with link_service(config):  # another one: the first was killed meanwhile
            watch.until(lambda: watch.door.current is not None)
            assert watch.door.in_use == ("market", 1)
            assert proxy.answered_bytes < 1.3 * LIST_BYTES
            first = proxy.answered_bytes
            watch.downlink.step()  # tells that it is in use
            # The watch service starts again: its list comes from the card, the key does not.
            again = WatchSide(config, stack)
            again.until(lambda: again.door.current is not None)
            assert again.door.floors == {"market": 1}
            assert proxy.answered_bytes - first < 0.2 * LIST_BYTES

"""What every benchmark is given: the plan, the cores, the peers, and where to say what happens."""

import importlib.util
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import peers
from benchmarks.progress import Say
from benchmarks.rounds import Plan
from benchmarks.servers import Contender, Cores, Server, StartError


@dataclass(slots=True)
class Setting:
    """One run. `core` is the tested server's, `others` are the load's; None is anywhere."""

    plan: Plan
    say: Say
    with_peers: bool
    core: Cores
    others: Cores
    versions: dict[str, str] = field(default_factory=dict)
    """Of the peers that took part."""

    def start(self, stack: ExitStack, contender: Contender, cores: Cores = None) -> Server:
        """Start a server that ends with `stack`; raises StartError."""
        self.say(f"starting {contender.name}")
        return stack.enter_context(Server(contender, cores))

    def start_all(
        self, stack: ExitStack, contenders: Iterable[Contender], cores: Cores = None
    ) -> list[Server]:
        """Start several; a peer that does not come up is left out, by name."""
        servers = []
        for contender in contenders:
            try:
                servers.append(self.start(stack, contender, cores))
            except StartError as error:
                if not contender.peer:
                    raise
                self.say.note(f"{contender.name} is left out: {error}")
        return servers

    def has_llama(self) -> bool:
        """Return whether local models can run here; where they cannot, the report says so."""
        if importlib.util.find_spec("llama_cpp") is not None:
            return True
        self.say.note("local models are left out: llama-cpp-python is not installed")
        return False

    def litellm(self) -> Path | None:
        """Return the interpreter that has LiteLLM, installed if need be; None without peers."""
        return self._peer(peers.LITELLM)

    def llama_server(self) -> Path | None:
        """Return the interpreter that can run llama-cpp-python's server; None without peers."""
        return self._peer(peers.LLAMA_SERVER)

    def _peer(self, peer: peers.Peer) -> Path | None:
        if not self.with_peers:
            return None
        installed = peers.install(peer, self.say)
        if installed is None:
            return None
        self.versions[peer.shown] = installed.version
        return installed.interpreter

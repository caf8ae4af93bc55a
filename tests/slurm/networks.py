"""A cluster whose nodes are machines of their own as far as networks go; root only.

Each node has its own network namespace, host name and /etc/hosts, and a cable to a switch, to which this machine has
one, too. All of it is gone with the daemons: a namespace that nobody is in takes its ends of the cables with it.
"""

import time
from collections.abc import Mapping

SWITCH = """\
ip link set lo up && ip link add lan type bridge && ip link set lan up &&
ip link add name trunk type veth peer name "$1" netns "$2" && ip link set trunk master lan up && echo $$ > "$4.new" &&
nsenter -t "$2" -n ip addr add "$3" dev "$1" && nsenter -t "$2" -n ip link set "$1" up && mv "$4.new" "$4" &&
exec sleep infinity
"""
MACHINE = """\
node=$1 interface=$2 address=$3 hosts=$4 switch=$5 && shift 5 &&
hostname "$node" && mount --bind "$hosts" /etc/hosts && ip link set lo up &&
ip link add "$interface" type veth peer name "to$node" netns "$switch" &&
nsenter -t "$switch" -n ip link set "to$node" master lan up &&
ip addr add "$address" dev "$interface" && ip link set "$interface" up &&
ip link add name docker0 type bridge && ip addr add 172.31.255.1/24 dev docker0 && ip link set docker0 up && exec "$@"
"""


def networked(base: type) -> type:
    """A subclass of cluster.py's Cluster."""

    class Networked(base):
        """`interfaces`: what a node calls its cable, if not eth0; each has a docker0 besides, at the same address.
        `hosts`: lines of everybody's /etc/hosts."""

        def __init__(self, *given: object, interfaces: Mapping[str, str], hosts: str, **options: object):
            super().__init__(*given, **options)
            self._interfaces, self._hosts = dict(interfaces), hosts

        def _write_config(self, port: int) -> None:
            self._lan = port // 600 % 250  # no other cluster has this block
            self.controller_address = f"10.231.{self._lan}.254"
            self.node_addresses = f"10.231.{self._lan}.[1-{len(self.nodes)}]"
            super()._write_config(port)

        def start_controller(self) -> None:
            pid, here = self.folder / "switch", f"{self.controller_address}/24"
            if not pid.exists():
                words = [f"lan{self._lan}", str(self._keeper.pid), here, str(pid)]
                self._daemon("switch", ["unshare", "--net", "sh", "-c", SWITCH, "sh", *words])
                while not pid.exists():
                    time.sleep(0.01)
            super().start_controller()

        def machine(self, node: str) -> list[str]:
            file, number = self.folder / f"hosts-{node}", node.removeprefix("n")
            file.write_text(f"127.0.0.1 localhost\n{self._hosts}\n")
            words = [node, self._interfaces.get(node, "eth0"), f"10.231.{self._lan}.{number}/24", str(file)]
            switch = (self.folder / "switch").read_text().strip()
            return ["unshare", "--net", "--mount", "--uts", "sh", "-c", MACHINE, "sh", *words, switch]

    return Networked

"""What one task on each node of a job runs while meeting.py finds out how the nodes reach one another.

Standard library alone, and little of it, because it must run where nothing of ours can be imported:

    python -I -S -c SOURCE        SOURCE is this file

It says `NODE has INTERFACE=ADDRESS` of each, then `NODE listens PORT` or `NODE cannot REASON`. Each line `WHO QUESTION
PORT ADDRESS` that it is told (WHO is a node, or * for all of them) has it knock there: `NODE reaches QUESTION NUMBER
SOURCE`, at which numeric address and from which of its own, or `NODE misses QUESTION REASON`. The end of what it is
told ends it.
"""

import _thread
import os
import socket
import sys

ORDER = "SSLRUN_MEETING"  # FIRST PORT KNOCK ANSWER, in the environment: everybody on a node may read a command line
ATTEMPT_SECONDS = 5.0  # for one address: a lost packet is sent again after one and after three
FIRST_PORT = 10_000  # services of a node have theirs below
EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
TRIES = 100
SIOCGIFCONF, REQUEST_BYTES, REQUESTS = 0x8912, 40, 512  # struct ifreq: 16 bytes of name, then a sockaddr


def source() -> str:
    """This file, for SOURCE."""
    with open(__file__) as file:
        return file.read()


def main() -> None:
    first, port, knock, answer = os.environ[ORDER].split()
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    try:
        server = listener(int(port)) if node == first else listening(0)
    except OSError as error:
        say(node, "cannot", reason(error))
        return
    _thread.start_new_thread(serve, (server, knock.encode(), answer.encode()))
    for interface, address in addresses():  # in short lines: srun mixes long ones of several tasks in their middle
        say(node, "has", f"{interface}={address}")
    say(node, "listens", server.getsockname()[1])
    for line in sys.stdin:
        who, question, at, address = line.rstrip("\n").split(" ", 3)
        if who in ("*", node):
            _thread.start_new_thread(call, (node, question, address, int(at), knock.encode(), answer.encode()))


def say(*words: object) -> None:
    """One line, in one piece."""
    os.write(1, f"\n{' '.join(map(str, words))}\n".encode())  # a site's tasks may have begun a line of their own


def listener(port: int) -> socket.socket:
    """A socket at all of this machine's addresses. With port 0 at one that no connection is given meanwhile, so that
    another process can listen there afterwards: it lies below those that Linux gives to connections."""
    if port:
        return listening(port)
    try:
        with open(EPHEMERAL) as file:
            end = int(file.read().split()[0])
    except (OSError, ValueError):
        end = 32768
    for _ in range(TRIES if end > FIRST_PORT else 0):
        try:
            return listening(FIRST_PORT + int.from_bytes(os.urandom(4), "big") % (end - FIRST_PORT))
        except OSError:
            continue
    return listening(0)


def listening(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=socket.SOMAXCONN)


def addresses() -> "list[tuple[str, str]]":
    """(interface, address) of this machine, of each interface the one first that libraries take; none that holds on
    one cable alone. Empty where the kernel is not Linux."""
    found = []
    try:
        import array
        import fcntl
        import struct

        room = array.array("B", bytes(REQUEST_BYTES * REQUESTS))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            given = struct.pack("iP", len(room), room.buffer_info()[0])
            used = struct.unpack("iP", fcntl.ioctl(any_socket, SIOCGIFCONF, given))[0]
        for at in range(0, used, REQUEST_BYTES):
            name = room[at : at + 16].tobytes().split(b"\0")[0].decode().partition(":")[0]  # eth0:1 is eth0
            found.append((name, socket.inet_ntop(socket.AF_INET, room[at + 20 : at + 24].tobytes())))
    except (ImportError, OSError):
        pass
    try:
        with open("/proc/net/if_inet6") as file:
            rows = [line.split() for line in file]
    except OSError:
        rows = []
    for digits, _, _, scope, _, name in rows:
        if scope != "20":  # a link's
            found.append((name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))))
    return found


def serve(server: socket.socket, knock: bytes, answer: bytes) -> None:
    while True:
        try:
            line, _ = server.accept()
            _thread.start_new_thread(greet, (line, knock, answer))
        except (OSError, RuntimeError):  # it was gone before it was taken, or there are too many
            continue


def greet(line: socket.socket, knock: bytes, answer: bytes) -> None:
    """Answer who knocks as agreed, and nobody else."""
    try:
        with line:
            line.settimeout(ATTEMPT_SECONDS)
            if heard(line, len(knock)) == knock:
                line.sendall(answer)
    except OSError:
        pass


def call(node: str, question: str, address: str, port: int, knock: bytes, answer: bytes) -> None:
    wrong = "no answer"
    try:
        for family, kind, protocol, _, there in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM):
            try:
                with socket.socket(family, kind, protocol) as line:
                    line.settimeout(ATTEMPT_SECONDS)
                    line.connect(there)
                    line.sendall(knock)
                    if heard(line, len(answer)) == answer:
                        say(node, "reaches", question, there[0], line.getsockname()[0])
                        return
                    wrong = "another machine answers"
            except OSError as error:
                wrong = reason(error)
    except (OSError, UnicodeError) as error:  # no name may be longer than IDNA has it
        wrong = reason(error)
    say(node, "misses", question, wrong)


def heard(line: socket.socket, size: int) -> bytes:
    said = b""
    while len(said) < size and (more := line.recv(size - len(said))):
        said += more
    return said


def reason(error: Exception) -> str:
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "its name cannot be resolved there"
    if isinstance(error, TimeoutError):
        return "no answer"
    return (os.strerror(error.errno) if getattr(error, "errno", None) else str(error)).lower()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # threads may still wait for an answer

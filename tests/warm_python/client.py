"""Stands in for `python`: hands its arguments, environment, folder, limits and standard streams to the server beside it,
passes signals on, and ends as the server says that they have ended."""

import json
import os
import resource
import signal
import socket
import sys

LIMITS = [value for name, value in vars(resource).items() if name.startswith("RLIMIT_")]
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "socket"))
    request = {
        "arguments": sys.argv[1:],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "limits": [(limit, resource.getrlimit(limit)) for limit in set(LIMITS)],
    }
    content = json.dumps(request).encode()
    socket.send_fds(server, [len(content).to_bytes(8, "little")], [0, 1, 2])
    server.sendall(content)
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: server.sendall(bytes([number])))
    answer = server.recv(64)
status = int(answer or b"1")
if status < 0:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)

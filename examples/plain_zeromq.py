"""Focus with your own camera and stage over plain ZeroMQ: any language can do the same.

The daemon runs with `microscope.kind = "client"`, as in configs/client.toml. `Microscope` stands for your hardware.
"""

import json

import zmq
from my_microscope import Microscope  # snap() → (y, x) array of uint8 or uint16; move_to(z_um); position_um()

microscope = Microscope()
socket = zmq.Context().socket(zmq.REQ)
socket.connect("tcp://127.0.0.1:5570")


def call(method, params, *pixels):
    head = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    socket.send_multipart([head, *pixels])
    reply = json.loads(socket.recv())
    if "error" in reply:
        raise RuntimeError(reply["error"]["message"])
    return reply["result"]


def focus(kind):
    """`calibrate` once per objective, in focus by eye; then `refocus` wherever you like."""
    run = call("focus.ask", {"kind": kind, "z_um": microscope.position_um(), "limits_um": [-150, 150]})
    while run["expose_um"]:
        microscope.move_to(run["expose_um"][0])
        image = microscope.snap()
        told = {"dtype": image.dtype.name, "shape": image.shape, "z_um": microscope.position_um()}
        run = call("focus.tell", {"run": run["run"], "frames": [told]}, image.tobytes())
    return run["result"]


print(f"calibrated, in focus at {focus('calibrate')['z_focus_um']:.2f} µm")
found = focus("refocus")
microscope.move_to(found["focus_um"])
print(
    f"in focus at {found['focus_um']:.2f} ± {found['sigma_um']:.2f} µm after {found['exposures']} exposures"
)

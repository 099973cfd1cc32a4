"""A web server in a sandbox, seen from outside, before and after the sandbox slept."""

import time
import urllib.request

from pandastack import Sandbox

SERVER = "cd /srv && echo 'hello from the sandbox' > index.html && setsid python3 -m http.server 8000 --bind 127.0.0.1"

with Sandbox.create(template="base", ttl_seconds=300) as sandbox:
    sandbox.exec(f"({SERVER} >/dev/null 2>&1 &)", check=True)
    while not any(port.listening and port.port == 8000 for port in sandbox.ports()):
        time.sleep(0.2)
    print("in a browser:", sandbox.preview_url(8000))
    link = sandbox.create_preview(8000, ttl_seconds=60)
    print(urllib.request.urlopen(link.url).read().decode(), end="")
    sandbox.hibernate()
    print(urllib.request.urlopen(link.url).read().decode(), end="")  # the request wakes it

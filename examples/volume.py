"""A volume that outlives sandboxes: one fills it, many read it, and a fork's changes are kept as another volume."""

from pandastack import Client

client = Client()
client.volumes.create("example", 64)
try:
    with client.sandboxes.create("base", ttl_seconds=120, volumes=[{"name": "example"}]) as writer:
        writer.exec("seq 1 1000 > /mnt/example/numbers", check=True)
    mounts = [{"name": "example", "read_only": True}]
    with client.sandboxes.create("base", ttl_seconds=120, volumes=mounts) as reader:
        print("lines:", reader.exec("wc -l < /mnt/example/numbers", check=True).stdout.strip())
    with (
        client.sandboxes.create("base", ttl_seconds=120, volumes=[{"name": "example"}]) as parent,
        parent.fork() as child,
    ):
        child.exec("echo changed > /mnt/example/numbers", check=True)
        client.volumes.keep(child.id, "/mnt/example", "example-copy")
        print("the parent's:", parent.exec("head -n 1 /mnt/example/numbers", check=True).stdout.strip())
    for volume in client.volumes.list():
        print(volume["name"], volume["size_mb"], "MB,", volume["size_bytes"] >> 10, "KB on disk")
finally:
    for volume in client.volumes.list():
        if volume["name"].startswith("example"):
            client.volumes.delete(volume["name"])

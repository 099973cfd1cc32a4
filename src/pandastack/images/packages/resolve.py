"""From declared packages to a lock: each kind resolved by its own field's resolver, on top of what a base has."""

from __future__ import annotations

from pandastack.images.apt import private_apt
from pandastack.images.packages import debian, npm, python
from pandastack.images.packages.declared import Packages
from pandastack.images.packages.lock import Deb, Lock
from pandastack.images.tree import Tree


async def resolve(packages: Packages, base: Tree) -> Lock:
    """The lock of ``packages`` for a template built on ``base``, whose packages keep their versions.

    Raises :class:`BadRequestError` that names the package that does not exist or does not fit.
    """
    arch = base.debian.arch
    debs: tuple[Deb, ...] = ()
    if packages.debian:
        async with private_apt(arch, base.debian.suite) as apt:
            wanted = [*base.debian.wanted, *packages.debian]
            found = await debian.resolve(apt, wanted, base.debian.debs)
        debs = tuple(deb for deb in found if deb not in base.debian.debs)
    wheels = await python.resolve(packages.python, base.wheels, arch) if packages.python else ()
    tarballs = await npm.resolve(packages.npm, arch) if packages.npm else ()
    return Lock(packages, arch, debs, wheels, tarballs)

"""Makes warm Python programs differ in the copies of a machine: put beside Python's standard library in every template.

A program that is copied while it runs has the state of its random number generators copied too. The agent writes a
number into a small file whenever the machine has become another copy, before any program runs in it. Here every draw
from a generator that was seeded by the operating system compares the number *after* it has drawn, seeds the generator
anew when it has changed, and draws again: what was drawn from the old state is never handed out in a copy. Generators
that the program has seeded itself are left alone.

Imported at every start of Python by sitecustomize, so it imports next to nothing, and patches a module when that is
imported.
"""
# mypy: ignore-errors
# ruff: noqa: PTH120, PTH123 - pathlib takes longer to import than all of this

import sys

PATH = "/run/pandastack/generation"
"""Eight bytes, an integer in the machine's byte order; it is changed in place."""

_word = None


def current():
    """The number of this copy of the machine; another one whenever it has been copied, or 0 outside a sandbox."""
    word = _watched()
    return word[0] if word else 0


def _watched():
    """The number, mapped: reading it costs as much as reading a list."""
    global _word
    if _word is None:
        import mmap

        try:
            with open(PATH, "rb") as file:
                _word = memoryview(mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)).cast("Q")
        except (OSError, ValueError):  # no sandbox
            _word = ()
    return _word


def _redrawing(draw, word, reseed):
    """The method ``draw`` of generators that have the number they were seeded under as ``_generation``, None for those
    that their program has seeded."""

    def drawing(self, *arguments, **named):
        while True:
            value = draw(self, *arguments, **named)
            seeded = self._generation
            if seeded == word[0] or seeded is None:
                return value
            reseed(self)

    for name in ("__name__", "__qualname__", "__doc__"):
        setattr(drawing, name, getattr(draw, name, None))
    drawing.__wrapped__ = draw
    return drawing


def _patch_random(module, word):
    import os

    cls, instance = module.Random, module._inst
    base = cls.__mro__[1]
    draw_float, draw_bits, old_seed, old_setstate, old_gauss = (
        base.random, base.getrandbits, cls.seed, cls.setstate, cls.gauss,
    )  # fmt: skip

    def seed(self, a=None, *arguments, **named):
        now = word[0]  # before the entropy is taken: what changes meanwhile is noticed
        old_seed(self, a, *arguments, **named)
        self._generation = now if a is None else None

    def setstate(self, state):
        old_setstate(self, state)
        self._generation = None

    def again(self, draw, value, *arguments):
        """What :func:`_redrawing` does. The two quick draws begin it themselves, because programs make so many."""
        while not (self._generation == word[0] or self._generation is None):
            seed(self)
            value = draw(self, *arguments)
        return value

    def random(self):
        """random() -> x in the interval [0, 1)."""
        value = draw_float(self)
        return value if self._generation == word[0] else again(self, draw_float, value)

    def getrandbits(self, k, /):
        """getrandbits(k) -> x. Generates an int with k random bits."""
        value = draw_bits(self, k)
        return value if self._generation == word[0] else again(self, draw_bits, value, k)

    def system_gauss(self, *arguments, **named):
        self.gauss_next = None  # of two numbers that are made together the other one is kept here
        return old_gauss(self, *arguments, **named)

    seed.__wrapped__, setstate.__wrapped__ = old_seed, old_setstate
    seed.__doc__, setstate.__doc__ = old_seed.__doc__, old_setstate.__doc__
    cls._generation = None
    cls.seed, cls.setstate, cls.random, cls.getrandbits = seed, setstate, random, getrandbits
    cls.gauss = _redrawing(old_gauss, word, seed)
    module.SystemRandom.gauss = system_gauss
    for name in ("seed", "setstate", "random", "getrandbits", "gauss"):
        setattr(module, name, getattr(instance, name))
    instance.seed()
    os.register_at_fork(after_in_child=instance.seed)


def _patch_numpy(module, word):
    _patch_numpy_global(module, word)
    _patch_numpy_generators(module, word)


_NO_DRAWS = ("seed", "get_state", "set_state", "spawn", "bit_generator")


def _methods(base, word, reseed):
    names = [name for name in dir(base) if not name.startswith("_") and name not in _NO_DRAWS]
    return {name: _redrawing(getattr(base, name), word, reseed) for name in names if callable(getattr(base, name))}


def _patch_numpy_global(module, word):
    """The generator behind ``numpy.random.random`` and its like."""
    mtrand = module.mtrand
    old = mtrand._rand
    base = type(old)

    def seed(self, seed=None):
        now = word[0]
        base.seed(self, seed)
        self._generation = now if seed is None else None

    def set_state(self, state):
        base.set_state(self, state)
        self._generation = None

    def reseed(self):
        try:
            seed(self)
        except TypeError:  # the program has put another kind of bit generator there
            self._generation = None

    body = dict(_methods(base, word, reseed), seed=seed, set_state=set_state, _generation=None, __doc__=base.__doc__)
    cls = type("RandomState", (base,), dict(body, __module__=base.__module__))
    new = cls(old._bit_generator)
    for name in dir(mtrand):
        if getattr(getattr(mtrand, name), "__self__", None) is old:
            for each in (mtrand, module):
                if hasattr(each, name):
                    setattr(each, name, getattr(new, name))
    mtrand._rand = new
    new.seed()
    if hasattr(module, "set_bit_generator"):
        _patch_set_bit_generator(module, new)


def _patch_set_bit_generator(module, generator):
    old = module.set_bit_generator

    def set_bit_generator(bitgen):
        old(bitgen)
        generator._generation = None

    set_bit_generator.__doc__ = old.__doc__
    module.set_bit_generator = module.mtrand.set_bit_generator = set_bit_generator


def _patch_numpy_generators(module, word):
    """What ``numpy.random.default_rng()`` returns."""
    base, old = module.Generator, module.default_rng

    def reseed(self):
        now = word[0]
        bits = self.bit_generator
        with bits.lock:
            bits.state = type(bits)().state
        self._seeds = module.SeedSequence()
        self._generation = now

    def spawn(self, n_children):
        """Create new independent child generators."""
        while True:
            bits = self.bit_generator
            children = [fresh(type(bits)(seed)) for seed in (self._seeds or bits.seed_seq).spawn(n_children)]
            if self._generation == word[0]:
                return children
            reseed(self)

    def fresh(bits):
        made = cls(bits)
        made._generation, made._seeds = word[0], None
        return made

    body = dict(_methods(base, word, reseed), _generation=None, _seeds=None, __doc__=base.__doc__)
    if hasattr(base, "spawn"):
        body["spawn"] = spawn
    cls = type("Generator", (base,), dict(body, __module__=base.__module__))

    def default_rng(seed=None):
        if seed is not None:
            return old(seed)
        now = word[0]
        made = cls(module.PCG64())
        made._generation, made._seeds = now, None
        return made

    default_rng.__doc__ = old.__doc__
    module.default_rng = default_rng
    if hasattr(module, "_generator"):
        module._generator.default_rng = default_rng


def _patch_ssl(module, word):
    """OpenSSL's generator lives in the process, and asks the kernel for entropy once in a while only."""
    import os

    known = [word[0]]

    def refreshed():
        now = word[0]
        if now == known[0]:
            return False
        module.RAND_add(os.urandom(48), 48.0)
        known[0] = now
        return True

    def after_refreshing(old):
        def method(self, *arguments, **named):
            refreshed()
            return old(self, *arguments, **named)

        method.__name__, method.__doc__ = old.__name__, old.__doc__
        return method

    old_bytes = module.RAND_bytes

    def RAND_bytes(n, /):
        while True:
            drawn = old_bytes(n)
            if not refreshed():
                return drawn

    RAND_bytes.__doc__ = old_bytes.__doc__
    module.RAND_bytes = RAND_bytes
    for cls in (module.SSLSocket, module.SSLObject):
        cls.do_handshake = after_refreshing(cls.do_handshake)


_PATCHES = {"random": _patch_random, "numpy.random": _patch_numpy, "ssl": _patch_ssl}


def _patch(module):
    try:
        word = _watched()
        if word:
            _PATCHES[module.__name__](module, word)
    except Exception as error:  # a module of the future must not fail to import for this
        import warnings

        warnings.warn(f"{module.__name__} will repeat itself in copies of this sandbox: {error!r}", RuntimeWarning, 2)


class _Finder:
    """Finds what the others find, and patches it when it has been executed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in _PATCHES:
            return None
        for finder in sys.meta_path:
            spec = None if finder is _Finder else finder.find_spec(name, path, target)
            if spec is not None:
                _let_patch(spec)
                return spec
        return None


def _let_patch(spec):
    loader = spec.loader
    execute = loader.exec_module

    def exec_module(module):
        execute(module)
        if module.__name__ == spec.name:
            _patch(module)

    loader.exec_module = exec_module


def run_next_sitecustomize(here):
    """Run the sitecustomize module that the one in the file ``here`` hides, if there is any."""
    import os
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    own = os.path.dirname(here)
    spec = PathFinder.find_spec("sitecustomize", [path for path in sys.path if path != own])
    if spec is not None:
        spec.loader.exec_module(module_from_spec(spec))


def install():
    if _Finder in sys.meta_path:
        return
    sys.meta_path.insert(0, _Finder)
    for name in _PATCHES:
        if name in sys.modules:
            _patch(sys.modules[name])


install()

"""Pickles that want to run code."""

from hostile.kinds import MARKER, kind
from hostile.making import GOOD, anywhere, archive, called, named, state, tensor, value, whole

TOUCH = value(f"touch {MARKER}")
WRITE = value(f"open({MARKER!r}, 'w')")


@kind(unsafe=True)
def run_os_system(rng):
    module = rng.choice(["os", "posix", "nt"])
    return anywhere(rng, state(a=called(named(module, "system"), TOUCH)))


@kind(unsafe=True)
def run_eval(rng):
    module = rng.choice(["builtins", "__builtin__"])
    return anywhere(rng, called(named(module, rng.choice(["eval", "exec"])), WRITE))


@kind(unsafe=True)
def run_subprocess(rng):
    name = rng.choice(["Popen", "call", "check_output", "run", "getoutput"])
    return anywhere(rng, called(named("subprocess", name), TOUCH))


@kind(unsafe=True)
def run_stack_global(rng):
    body = value("os") + value("system") + b"\x93(" + TOUCH + b"tR"
    return anywhere(rng, body)


@kind(unsafe=True)
def run_inst(rng):
    return anywhere(rng, b"(" + TOUCH + b"ios\nsystem\n")


@kind(unsafe=True)
def run_obj(rng):
    return anywhere(rng, b"(" + named("os", "system") + TOUCH + b"o")


@kind(unsafe=True)
def run_newobj(rng):
    return anywhere(rng, named("subprocess", "Popen") + b"(" + TOUCH + b"t\x81")


@kind(unsafe=True)
def run_newobj_ex(rng):
    return anywhere(rng, named("subprocess", "Popen") + b"(" + TOUCH + b"t}\x92")


@kind(unsafe=True)
def run_text_protocol(rng):
    return f"cos\nsystem\n(S'touch {MARKER}'\ntR.".encode()


@kind(unsafe=True)
def run_from_setstate(rng):
    target = called(named("mymodule", "Config"))
    body = target + state(value("__setstate__") + named("os", "system")) + b"b" + TOUCH + b"b"
    return anywhere(rng, body)


@kind(unsafe=True)
def run_after_a_good_model(rng):
    return archive(GOOD + called(named("os", "popen"), TOUCH) + b"0")


@kind(unsafe=True)
def run_nested_pickle(rng):
    inner = whole(called(named("os", "system"), TOUCH))
    name = rng.choice(["pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal"])
    return anywhere(rng, called(named(name, "loads"), b"C" + bytes([len(inner)]) + inner))


@kind(unsafe=True)
def run_getattr_chain(rng):
    inner = called(named("builtins", "__import__"), value("os"))
    body = called(called(named("builtins", "getattr"), inner, value("system")), TOUCH)
    return anywhere(rng, body)


@kind(unsafe=True)
def run_reduce_ex(rng):
    name = rng.choice(["object.__reduce_ex__", "object.__class__", "type.__subclasses__"])
    return anywhere(rng, called(named("builtins", name), value(2)))


@kind(unsafe=True)
def run_torch_load(rng):
    module, name = rng.choice(
        [
            ("torch", "load"),
            ("torch.hub", "load"),
            ("torch.jit", "load"),
            ("torch.serialization", "load"),
            ("torch.utils.cpp_extension", "load_inline"),
            ("torch.utils.collect_env", "run"),
            ("numpy", "load"),
            ("numpy.testing._private.utils", "runstring"),
        ]
    )
    return anywhere(rng, called(named(module, name), value(MARKER)))


BYPASSES = (
    "pip.main runpy.run_path timeit.timeit cProfile.run profile.run pdb.run bdb.Bdb.run "
    "trace.Trace doctest.debug_script code.interact codeop.compile_command asyncio.run "
    "importlib.import_module imp.load_source pkgutil.resolve_name ctypes.CDLL webbrowser.open "
    "shutil.rmtree sys.exit socket.create_connection urllib.request.urlopen "
    "http.client.HTTPSConnection ssl.get_server_certificate multiprocessing.Process "
    "signal.raise_signal tempfile.mktemp operator.attrgetter operator.methodcaller "
    "types.CodeType types.FunctionType functools.reduce io.open _posixsubprocess.fork_exec "
    "pty.spawn idlelib.pyshell.ModifiedInterpreter.runcommand pydoc.pipepager "
    "ensurepip._run_pip zipimport.zipimporter sqlite3.connect venv.create "
    "lib2to3.pgen2.grammar.Grammar.loads logging.config.listen requests.get builtins.compile "
    "builtins.open builtins.breakpoint builtins.setattr pandas.read_pickle"
).split()


@kind(unsafe=True)
def run_scanner_bypasses(rng):
    module, _, name = rng.choice(BYPASSES).rpartition(".")
    return anywhere(rng, called(named(module, name), value(MARKER)))


@kind(unsafe=True)
def run_extension_registry(rng):
    body = rng.choice([b"\x82\x01", b"\x83\x01\x01", b"\x84\x01\x01\x01\x01"])
    return anywhere(rng, body + b"(" + TOUCH + b"tR")


@kind()
def run_inert_chain(rng):
    """Unknown classes are inert, so nothing runs; and no tensor comes out of it."""
    body = named("evil", "start")
    for _ in range(rng.choice([1, 100, 30_000])):
        body = body + b"(" + TOUCH + b"tR"
    return anywhere(rng, body)


@kind(refused=False)
def run_inert_beside_tensors(rng):
    extra = called(called(named("evil.module", "Run"), TOUCH), TOUCH)
    return archive(state(value("callbacks") + extra, a=tensor()))


@kind()
def run_storage_of_bytes(rng):
    inner = whole(called(named("os", "system"), TOUCH))
    source = called(named("torch.storage", "_load_from_bytes"), b"C" + bytes([len(inner)]) + inner)
    return anywhere(rng, state(a=tensor(source)))
